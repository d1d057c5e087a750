// random.cu - random tensors and dropout: the numbers that runtime/ops/random.c draws, bit by bit.
// One thread makes the elements of one Philox block: four, or two where each takes 64 bits. Compiled
// without contraction, see normal.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pointwise.h"
#include "walk.h"

extern "C" {
#include "../../runtime/normal.h"
#include "../host.h"
}

namespace {

// Elements of one block: f64 and integers take two words each.
template <class T> struct per_block { static constexpr int COUNT = 4; };
template <> struct per_block<double> { static constexpr int COUNT = 2; };

// One call. Draws count logically: element k of the walk gets draw k, whatever the strides.
struct Draw {
  uint64_t key, first;
  bool packed;   // operand 0 lies without gaps, so that a thread's elements can be written at once
  Walk<2> place; // the result, and x of bernoulli
};

// Takes the words of n elements from the generator.
Draw draw_for(const dlua_tensor *out, const dlua_tensor *x, int elements_per_block) {
  Draw d = {};
  d.place = walk_over<2>(out->ndim, out->size);
  set_operand(&d.place, 0, out), set_operand(&d.place, 1, x);
  merge(&d.place);
  d.packed = dlua_is_contiguous(out) && (uintptr_t)d.place.data[0] % 16 == 0;
  d.key = dlua_rng_key();
  d.first =
      dlua_rng_take((uint64_t)((d.place.count + elements_per_block - 1) / elements_per_block));
  return d;
}

unsigned blocks_of(const Draw &d, int elements_per_block) {
  return blocks_for((d.place.count + elements_per_block - 1) / elements_per_block);
}

__device__ inline dlua_block words(const Draw &d, int64_t block) {
  return dlua_philox(d.key, 0, d.first + (uint64_t)block, 0);
}

__device__ inline uint64_t wide(const uint32_t *bits) { return (uint64_t)bits[0] << 32 | bits[1]; }

template <class T, int W>
__device__ inline void write(const Draw &d, int64_t block, const Pack<T, W> &y) {
  int64_t k = block * W, at[2];
  if (d.packed && k + W <= d.place.count) {
    ((Pack<T, W> *)d.place.data[0])[block] = y;
    return;
  }
  for (int j = 0; j < W && k + j < d.place.count; j++) {
    find(d.place, k + j, at);
    *(T *)(d.place.data[0] + at[0]) = y.element[j];
  }
}

// ---------------------------------------------------------------- uniform, normal

struct Uniform {
  double low, span;
  __device__ void operator()(const uint32_t *bits, float (&y)[4]) const {
    for (int j = 0; j < 4; j++) y[j] = fmaf(dlua_unit_f32(bits[j]), (float)span, (float)low);
  }
  __device__ void operator()(const uint32_t *bits, double (&y)[2]) const {
    for (int j = 0; j < 2; j++) y[j] = fma(dlua_unit_f64(bits[2 * j], bits[2 * j + 1]), span, low);
  }
};

struct Normal {
  double mean, std;
  __device__ void operator()(const uint32_t *bits, float (&y)[4]) const {
    dlua_normal_pair_f32(bits[0], bits[1], &y[0], &y[1]);
    dlua_normal_pair_f32(bits[2], bits[3], &y[2], &y[3]);
    for (float &v : y) v = fmaf((float)std, v, (float)mean);
  }
  __device__ void operator()(const uint32_t *bits, double (&y)[2]) const {
    dlua_normal_pair_f64(wide(bits), wide(bits + 2), &y[0], &y[1]);
    for (double &v : y) v = fma(std, v, mean);
  }
};

template <class T, class F> __global__ void draw_floats(Draw d, F f) {
  constexpr int W = per_block<T>::COUNT;
  for (int64_t b = first_index(); b * W < d.place.count; b += all_threads()) {
    dlua_block bits = words(d, b);
    compute_t<T> drawn[W];
    Pack<T, W> y;
    f(bits.lane, drawn);
    for (int j = 0; j < W; j++) y.element[j] = narrow<T>(drawn[j]);
    write(d, b, y);
  }
}

template <class F> dlua_status floats(const dlua_args *a, F f) {
  return with_float(a->out[0], [&](auto type) {
    using T = decltype(type);
    constexpr int W = per_block<T>::COUNT;
    Draw d = draw_for(a->out[0], a->out[0], W);
    return launch(a, draw_floats<T, F>, blocks_of(d, W), THREADS, d, f);
  });
}

// ---------------------------------------------------------------- integers

// low + 0 … span - 1 from the upper half of bits * span (span 0: all 64 bits).
__global__ void draw_integers(Draw d, uint64_t low, uint64_t span, uint8_t dtype, bool real) {
  for (int64_t b = first_index(); b * 2 < d.place.count; b += all_threads()) {
    dlua_block bits = words(d, b);
    for (int j = 0; j < 2 && b * 2 + j < d.place.count; j++) {
      uint64_t w = wide(bits.lane + 2 * j);
      if (span != 0) w = (uint64_t)((unsigned __int128)w * span >> 64);
      int64_t value = (int64_t)(low + w), at[2];
      find(d.place, b * 2 + j, at);
      if (real)
        store_as(d.place.data[0] + at[0], dtype, (double)value);
      else
        store_as(d.place.data[0] + at[0], dtype, value);
    }
  }
}

// ---------------------------------------------------------------- bernoulli

template <class T> __global__ void draw_bernoulli(Draw d, dlua_index_check check) {
  constexpr int W = per_block<T>::COUNT;
  for (int64_t b = first_index(); b * W < d.place.count; b += all_threads()) {
    dlua_block bits = words(d, b);
    Pack<T, W> y;
    for (int j = 0; j < W; j++) {
      int64_t k = b * W + j, at[2];
      if (k >= d.place.count) break;
      find(d.place, k, at);
      double p = widen(*(const T *)(d.place.data[1] + at[1]));
      double unit = W == 2 ? dlua_unit_f64(bits.lane[2 * j], bits.lane[2 * j + 1])
                           : (double)dlua_unit_f32(bits.lane[j]);
      if (!(p >= 0 && p <= 1)) {
        int64_t value;
        memcpy(&value, &p, sizeof value);
        note_fault(check, DLUA_FAULT_PROBABILITY, value, k, 0);
      }
      y.element[j] = narrow<T>(compute_t<T>(unit < p));
    }
    write(d, b, y);
  }
}

// ---------------------------------------------------------------- dropout

// x and the result lie without gaps; the mask is the draw's result.
template <class T>
__global__ void drop(Draw d, const T *x, T *y, bool packed, uint32_t threshold, double scale) {
  for (int64_t b = first_index(); b * 4 < d.place.count; b += all_threads()) {
    dlua_block bits = words(d, b);
    Pack<bool, 4> mask;
    Pack<T, 4> in, out;
    int64_t left = d.place.count - b * 4;
    if (packed && left >= 4) in = ((const Pack<T, 4> *)x)[b];
    for (int j = 0; j < 4; j++) {
      if (!packed || left < 4) in.element[j] = j < left ? x[b * 4 + j] : T(0.0f);
      mask.element[j] = bits.lane[j] >> 8 >= threshold;
      out.element[j] =
          narrow<T>(mask.element[j] ? widen(in.element[j]) * compute_t<T>(scale) : compute_t<T>(0));
    }
    write(d, b, mask);
    if (packed && left >= 4) {
      ((Pack<T, 4> *)y)[b] = out;
      continue;
    }
    for (int j = 0; j < 4 && j < left; j++) y[b * 4 + j] = out.element[j];
  }
}

__global__ void draw_mask(Draw d, uint32_t threshold) {
  for (int64_t b = first_index(); b * 4 < d.place.count; b += all_threads()) {
    dlua_block bits = words(d, b);
    Pack<bool, 4> mask;
    for (int j = 0; j < 4; j++) mask.element[j] = bits.lane[j] >> 8 >= threshold;
    write(d, b, mask);
  }
}

// g times the scale or 0, in packs of 16 bytes; n is the elements, the last pack's included.
template <class T>
__global__ void undrop(const bool *mask, const T *g, T *y, int64_t n, compute_t<T> scale) {
  constexpr int WIDTH = Pack<T>::WIDTH;
  for (int64_t k = first_index(); k * WIDTH < n; k += all_threads()) {
    if (k * WIDTH + WIDTH <= n) {
      Pack<bool, WIDTH> keep = ((const Pack<bool, WIDTH> *)mask)[k];
      Pack<T> v = ((const Pack<T> *)g)[k];
      for (int j = 0; j < WIDTH; j++)
        v.element[j] = narrow<T>(widen(v.element[j]) * (keep.element[j] ? scale : 0));
      ((Pack<T> *)y)[k] = v;
      continue;
    }
    for (int64_t i = k * WIDTH; i < n; i++) y[i] = narrow<T>(widen(g[i]) * (mask[i] ? scale : 0));
  }
}

// The same for operands of any strides.
struct Undrop {
  double scale;
  template <class C> __device__ C operator()(C mask, C g) const {
    return g * (mask != C(0) ? C(scale) : C(0));
  }
};

struct Keep {
  double scale;
  template <class C> __device__ C operator()(C mask, C x) const {
    return mask != C(0) ? x * C(scale) : C(0);
  }
};

uint32_t threshold_of(const dlua_args *a) { return (uint32_t)ceil(a->num[0].f * 0x1p24); }
double scale_of(const dlua_args *a) { return a->num[0].f < 1 ? 1 / (1 - a->num[0].f) : 0; }

// Nothing can be dropped, so nothing is drawn.
dlua_status pass(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  size_t bytes = (size_t)dlua_numel(x) * dlua_dtype_size((dlua_dtype)x->dtype);
  if (bytes == 0) return DLUA_OK;
  return dlua_gpu_copy(a->device->index, dlua_data(a->out[0]), dlua_data(x), bytes);
}

} // namespace

extern "C" dlua_status dlua_gpu_rand(const dlua_args *a) { return floats(a, Uniform{0, 1}); }
extern "C" dlua_status dlua_gpu_randn(const dlua_args *a) { return floats(a, Normal{0, 1}); }

extern "C" dlua_status dlua_gpu_uniform(const dlua_args *a) {
  return floats(a, Uniform{a->num[0].f, a->num[1].f - a->num[0].f});
}

extern "C" dlua_status dlua_gpu_normal(const dlua_args *a) {
  return floats(a, Normal{a->num[0].f, a->num[1].f});
}

extern "C" dlua_status dlua_gpu_randint(const dlua_args *a) {
  const dlua_tensor *out = a->out[0];
  uint64_t low = (uint64_t)a->num[0].i, span = (uint64_t)a->num[1].i - low + 1;
  Draw d = draw_for(out, out, 2);
  return launch(a, draw_integers, blocks_of(d, 2), THREADS, d, low, span, out->dtype,
                dlua_is_float((dlua_dtype)out->dtype));
}

// A shuffle swaps one element after the other: the CPU does it, and the device gets the result.
extern "C" dlua_status dlua_gpu_randperm(const dlua_args *a) {
  dlua_tensor *out = a->out[0], shuffled = *out;
  dlua_storage storage = *out->storage;
  size_t bytes = (size_t)dlua_numel(out) * dlua_dtype_size((dlua_dtype)out->dtype);
  if (bytes == 0) return DLUA_OK;
  storage.device = dlua_gpu_host->cpu, storage.data = malloc(bytes);
  if (!storage.data) return dlua_fail(DLUA_NO_MEMORY, "randperm: out of memory");
  shuffled.storage = &storage, shuffled.offset = 0;
  dlua_args call = *a;
  call.device = dlua_gpu_host->cpu, call.out[0] = &shuffled;
  dlua_status status = dlua_gpu_host->run_cpu(&call);
  if (status == DLUA_OK)
    status = dlua_gpu_from_host(a->device->index, dlua_data(out), storage.data, bytes);
  free(storage.data);
  return status;
}

extern "C" dlua_status dlua_gpu_bernoulli(const dlua_args *a) {
  dlua_index_check check;
  DLUA_TRY(dlua_gpu_index_check(a, &check));
  return with_float(a->out[0], [&](auto type) {
    using T = decltype(type);
    constexpr int W = per_block<T>::COUNT;
    Draw d = draw_for(a->out[0], a->in[0], W);
    return launch(a, draw_bernoulli<T>, blocks_of(d, W), THREADS, d, check);
  });
}

extern "C" dlua_status dlua_gpu_dropout(const dlua_args *a) {
  if (a->nout == 1) return pass(a);
  return with_float(a->out[0], [&](auto type) {
    using T = decltype(type);
    T *x = data<T>(a->in[0]), *y = data<T>(a->out[0]);
    bool packed = ((uintptr_t)x | (uintptr_t)y) % sizeof(Pack<T, 4>) == 0;
    Draw d = draw_for(a->out[1], a->out[1], 4);
    return launch(a, drop<T>, blocks_of(d, 4), THREADS, d, x, y, packed, threshold_of(a),
                  scale_of(a));
  });
}

extern "C" dlua_status dlua_gpu_dropout_grad(const dlua_args *a) {
  const dlua_tensor *mask = a->in[0], *g = a->in[1], *y = a->out[0];
  int64_t n = dlua_numel(y);
  uintptr_t all = (uintptr_t)dlua_data(g) | (uintptr_t)dlua_data(y);
  bool packed = dlua_is_contiguous(mask) && dlua_is_contiguous(g) && dlua_is_contiguous(y) &&
                dlua_numel(mask) == n && dlua_numel(g) == n && all % 16 == 0 &&
                (uintptr_t)dlua_data(mask) % 8 == 0;
  if (!packed) return pointwise<2, FLOATS | RARE>(a, Undrop{scale_of(a)});
  return with_float(y, [&](auto type) {
    using T = decltype(type);
    int64_t packs = (n + Pack<T>::WIDTH - 1) / Pack<T>::WIDTH;
    return launch(a, undrop<T>, blocks_for(packs), THREADS, data<bool>(mask), data<T>(g),
                  data<T>(y), n, (compute_t<T>)scale_of(a));
  });
}

// One draw per channel, then the channels.
extern "C" dlua_status dlua_gpu_dropout2d(const dlua_args *a) {
  if (a->nout == 1) return pass(a);
  dlua_tensor *const operands[3] = {a->out[0], a->out[1], a->in[0]};
  Draw d = draw_for(a->out[1], a->out[1], 4);
  DLUA_TRY(launch(a, draw_mask, blocks_of(d, 4), THREADS, d, threshold_of(a)));
  return run_loop<FLOATS | RARE>(a, loop_over(a, operands), (dlua_dtype)a->in[0]->dtype,
                                 Keep{scale_of(a)});
}
