// pool.cu - max and average pooling of x {n,c,h,w}, one thread per result, or per 16 bytes of channels
// in NHWC. Gradients gather: each element of gx adds up what its windows give it, in one order, so
// nothing is added atomically.
#include "reduce.h"

namespace {

// One pooled dimension of n elements: window i starts at i stride - padding; adaptive ones cover
// floor(i n / o) to ceil((i + 1) n / o).
struct Axis {
  int64_t n, o, kernel, stride, padding, dilation;
  bool adaptive, count_padding;

  __device__ int64_t from(int64_t i) const { return adaptive ? i * n / o : i * stride - padding; }
  __device__ int64_t to(int64_t i) const {
    if (adaptive) return ((i + 1) * n + o - 1) / o;
    int64_t end = i * stride - padding + dilation * (kernel - 1) + 1;
    return end < n ? end : n;
  }
  // What an average divides by along this dimension.
  __device__ int64_t count(int64_t i) const {
    int64_t first = from(i), end = to(i);
    if (!count_padding || adaptive) return end - (first > 0 ? first : 0);
    end = first + kernel;
    return (end < n + padding ? end : n + padding) - first;
  }
  // The windows that element k lies in: first to last.
  __device__ int64_t first(int64_t k) const {
    if (adaptive) return k * o / n;
    int64_t room = k + padding - kernel + 1;
    return room <= 0 ? 0 : (room + stride - 1) / stride;
  }
  __device__ int64_t last(int64_t k) const {
    int64_t i = adaptive ? ((k + 1) * o - 1) / n : (k + padding) / stride;
    return i < o ? i : o - 1;
  }
};

// Pictures of pixels of `channels` elements side by side: planes {n * c} with one, NHWC with c.
struct Pool {
  int64_t images, channels;
  Axis rows, columns;
};

// Step k of pictures of height times width pixels, which take `groups` steps each: its picture, row,
// column, and step within the pixel.
struct Place {
  int64_t image, row, column, group;
  __device__ Place(int64_t k, int64_t height, int64_t width, int64_t groups) {
    int64_t pixel = quotient(k, groups), line = quotient(pixel, width);
    group = k - pixel * groups, column = pixel - line * width;
    image = quotient(line, height), row = line - image * height;
  }
};

// ---------------------------------------------------------------- forward

// The first maximum, or the last nan, and its place from 1; 0 where a window has no element. Steps
// are W channels of a pixel.
template <int W, class T> __global__ void max_pool(Pool p, const T *x, T *y, int32_t *places) {
  using C = compute_t<T>;
  const Axis &r = p.rows, &c = p.columns;
  int64_t groups = p.channels / W;
  for (int64_t k = first_index(); k < p.images * r.o * c.o * groups; k += all_threads()) {
    Place at(k, r.o, c.o, groups);
    const T *picture = x + at.image * r.n * c.n * p.channels + at.group * W;
    C best[W], v[W];
    Pack<int32_t, W> place;
    for (int w = 0; w < W; w++) best[w] = C(-INFINITY), place.element[w] = 0;
    int64_t bottom = r.to(at.row), right = c.to(at.column);
    for (int64_t i = r.from(at.row); i < bottom; i += r.dilation) {
      for (int64_t j = c.from(at.column); j < right && i >= 0; j += c.dilation) {
        if (j < 0) continue;
        load_some<W>(picture + (i * c.n + j) * p.channels, v);
        for (int w = 0; w < W; w++) {
          if (v[w] > best[w] || v[w] != v[w] || place.element[w] == 0)
            best[w] = v[w], place.element[w] = int32_t(i * c.n + j + 1);
        }
      }
    }
    store_some<W>(y + k * W, best);
    ((Pack<int32_t, W> *)places)[k] = place;
  }
}

template <int W, class T> __global__ void average_pool(Pool p, const T *x, T *y) {
  using C = compute_t<T>;
  const Axis &r = p.rows, &c = p.columns;
  int64_t groups = p.channels / W;
  for (int64_t k = first_index(); k < p.images * r.o * c.o * groups; k += all_threads()) {
    Place at(k, r.o, c.o, groups);
    const T *picture = x + at.image * r.n * c.n * p.channels + at.group * W;
    int64_t top = r.from(at.row), bottom = r.to(at.row);
    int64_t left = c.from(at.column), right = c.to(at.column);
    C sum[W] = {}, v[W], count = C(r.count(at.row) * c.count(at.column));
    for (int64_t i = top > 0 ? top : 0; i < bottom; i++) {
      C line[W] = {};
      for (int64_t j = left > 0 ? left : 0; j < right; j++) {
        load_some<W>(picture + (i * c.n + j) * p.channels, v);
        for (int w = 0; w < W; w++) line[w] += v[w];
      }
      for (int w = 0; w < W; w++) sum[w] += line[w];
    }
    for (int w = 0; w < W; w++) sum[w] /= count;
    store_some<W>(y + k * W, sum);
  }
}

// ---------------------------------------------------------------- gradients

template <int W, class T> __global__ void average_pool_grad(Pool p, const T *g, T *gx) {
  using C = compute_t<T>;
  const Axis &r = p.rows, &c = p.columns;
  int64_t groups = p.channels / W;
  for (int64_t k = first_index(); k < p.images * r.n * c.n * groups; k += all_threads()) {
    Place at(k, r.n, c.n, groups);
    const T *picture = g + at.image * r.o * c.o * p.channels + at.group * W;
    int64_t bottom = r.last(at.row), right = c.last(at.column);
    C sum[W] = {}, v[W];
    for (int64_t i = r.first(at.row); i <= bottom; i++) {
      for (int64_t j = c.first(at.column); j <= right; j++) {
        load_some<W>(picture + (i * c.o + j) * p.channels, v);
        for (int w = 0; w < W; w++) sum[w] += v[w] / C(r.count(i) * c.count(j));
      }
    }
    store_some<W>(gx + k * W, sum);
  }
}

// Max pooling's places say nothing of their windows. So the outputs of each place are chained up, in
// whatever order threads come, and added in ascending order: chains are as short as windows overlap.
// Heads and next lie as the pixels of `images` pictures of `channels` elements; these are a part of
// the tensors' pictures, from one on, whose pixels are `wide`, from a channel on.
struct Chains {
  int64_t images, channels;
  int64_t first_image, first_channel, wide;
  int64_t in, out; // pixels of a picture
  const int32_t *places;
  int32_t *heads, *next; // an output of the picture from 1, 0: none

  // Where entry k of the part lies in the tensor.
  __device__ int64_t outside(int64_t k, int64_t pixels) const {
    int64_t pixel = quotient(k, channels);
    return (first_image * pixels + pixel) * wide + first_channel + k - pixel * channels;
  }
  __device__ void link(int64_t k) const {
    int64_t pixel = quotient(k, channels), image = quotient(pixel, out);
    int32_t place = places[outside(k, out)];
    if (place < 1 || place > in) return;
    int64_t at = (image * in + place - 1) * channels + k - pixel * channels;
    next[k] = atomicExch(&heads[at], int32_t(pixel - image * out) + 1);
  }
  // The sum of g over the chain of entry k.
  template <class T> __device__ T sum(const T *g, int64_t k) const {
    compute_t<T> total = 0;
    int64_t pixel = quotient(k, channels), start = quotient(pixel, in) * out;
    int64_t channel = k - pixel * channels;
    int32_t head = heads[k], done = 0;
    for (;;) {
      int32_t least = 0;
      for (int32_t o = head; o != 0; o = next[(start + o - 1) * channels + channel])
        if (o > done && (least == 0 || o < least)) least = o;
      if (least == 0) return narrow<T>(total);
      total += widen(g[outside((start + least - 1) * channels + channel, out)]), done = least;
    }
  }
};

__global__ void link_places(Chains c) {
  for (int64_t k = first_index(); k < c.images * c.out * c.channels; k += all_threads()) c.link(k);
}

template <class T> __global__ void gather_places(Chains c, const T *g, T *gx) {
  for (int64_t k = first_index(); k < c.images * c.in * c.channels; k += all_threads())
    gx[k] = c.sum(g, k);
}

__global__ void clear(int32_t *heads, int64_t n) {
  for (int64_t k = first_index(); k < n; k += all_threads()) heads[k] = 0;
}

// The same in one kernel for small pictures: of as many images and channels at a time as `part` says,
// in a block's own memory.
constexpr int MOST = 4096;

template <class T> __global__ void scatter_small(Chains all, Chains part, const T *g, T *gx) {
  __shared__ int32_t heads[MOST], next[MOST];
  int64_t strips = (all.channels + part.channels - 1) / part.channels;
  int64_t parts = (all.images + part.images - 1) / part.images * strips;
  for (int64_t k = blockIdx.x; k < parts; k += gridDim.x) {
    Chains c = part;
    c.first_image = k / strips * part.images, c.first_channel = k % strips * part.channels;
    if (c.images > all.images - c.first_image) c.images = all.images - c.first_image;
    if (c.channels > all.channels - c.first_channel) c.channels = all.channels - c.first_channel;
    c.heads = heads, c.next = next;
    int64_t inputs = c.images * c.in * c.channels, outputs = c.images * c.out * c.channels;
    for (int64_t i = threadIdx.x; i < inputs; i += THREADS) heads[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < outputs; i += THREADS) c.link(i);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < inputs; i += THREADS) gx[c.outside(i, c.in)] = c.sum(g, i);
    __syncthreads();
  }
}

// What a block takes: whole pictures of single elements, or some channels of one, as long as these are
// not so few that most of what is read from memory is for others. None: too large.
Chains part_of(const Chains &c) {
  int64_t larger = c.in > c.out ? c.in : c.out;
  Chains part = c;
  if (c.channels == 1)
    part.images = larger < MOST / 4 ? MOST / 4 / larger : larger <= MOST;
  else
    part.images = larger <= MOST / 4, part.channels = larger > 0 ? MOST / larger : 1;
  if (part.channels > c.channels) part.channels = c.channels;
  return part;
}

template <class T> dlua_status scatter(const dlua_args *a, Chains c, const T *g, T *gx) {
  int64_t inputs = c.images * c.in * c.channels, outputs = c.images * c.out * c.channels;
  if (inputs == 0) return DLUA_OK;
  Chains part = part_of(c);
  if (part.images > 0) {
    int64_t strips = (c.channels + part.channels - 1) / part.channels;
    int64_t parts = (c.images + part.images - 1) / part.images * strips;
    return launch(a, scatter_small<T>, (unsigned)(parts < MOST_BLOCKS ? parts : MOST_BLOCKS),
                  THREADS, c, part, g, gx);
  }
  void *chains = nullptr;
  size_t bytes = (size_t)(inputs + outputs) * sizeof(int32_t);
  DLUA_TRY(dlua_alloc(a->device, bytes, &chains));
  c.heads = (int32_t *)chains, c.next = c.heads + inputs;
  dlua_status status = launch(a, clear, blocks_for(inputs), THREADS, c.heads, inputs);
  if (status == DLUA_OK) status = launch(a, link_places, blocks_for(outputs), THREADS, c);
  if (status == DLUA_OK)
    status = launch(a, gather_places<T>, blocks_for(inputs), THREADS, c, g, gx);
  dlua_free(a->device, chains, bytes);
  return status;
}

// ---------------------------------------------------------------- geometry

// large and small: the tensors before and after pooling. num: kernel, stride, padding; NULL:
// adaptive.
Axis axis_of(const dlua_tensor *large, const dlua_tensor *small, int d, const dlua_value *num) {
  Axis axis = {large->size[2 + d], small->size[2 + d], 1, 1, 0, 1};
  axis.adaptive = num == nullptr;
  if (!num) return axis;
  axis.kernel = num[0].v[d], axis.stride = num[1].set ? num[1].v[d] : num[0].v[d];
  axis.padding = num[2].v[d];
  return axis;
}

// The channels of a pixel that lie side by side.
int64_t side_by_side(const dlua_tensor *x) {
  return x->storage->layout == DLUA_NHWC ? x->size[1] : 1;
}

Pool pool_of(const dlua_tensor *large, const dlua_tensor *small, const dlua_value *num) {
  int64_t channels = side_by_side(large);
  return {large->size[0] * large->size[1] / channels, channels, axis_of(large, small, 0, num),
          axis_of(large, small, 1, num)};
}

// Do steps of 16 bytes stay within a pixel, in both tensors?
template <class T> bool steps_fit(const Pool &p, const dlua_tensor *x, const dlua_tensor *y) {
  return p.channels % Pack<T>::WIDTH == 0 && (uintptr_t)dlua_data(x) % 16 == 0 &&
         (uintptr_t)dlua_data(y) % 16 == 0;
}

dlua_status run_max(const dlua_args *a, const Pool &p) {
  return with_float(a->in[0], [&](auto type) {
    using T = decltype(type);
    constexpr int W = Pack<T>::WIDTH;
    bool packs = steps_fit<T>(p, a->in[0], a->out[0]);
    int64_t n = dlua_numel(a->out[0]);
    return launch(a, packs ? max_pool<W, T> : max_pool<1, T>, blocks_for(packs ? n / W : n),
                  THREADS, p, data<T>(a->in[0]), data<T>(a->out[0]), data<int32_t>(a->out[1]));
  });
}

// Whole planes are reductions: a thread each would read them alone.
bool whole(const Axis &axis) {
  if (axis.o != 1) return false;
  return axis.adaptive || (axis.padding == 0 && axis.kernel == axis.n);
}

dlua_status run_average(const dlua_args *a, const Pool &p) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  if (whole(p.rows) && whole(p.columns))
    return with_loader<FLOATS>(x, [&](auto load) {
      Sum<typename decltype(load)::C> mean(y, 1 / (double)(x->size[2] * x->size[3]));
      return fold(a, reduction_of(x, 12, true), load, mean);
    });
  return with_float(x, [&](auto type) {
    using T = decltype(type);
    constexpr int W = Pack<T>::WIDTH;
    bool packs = steps_fit<T>(p, x, y);
    int64_t n = dlua_numel(y);
    return launch(a, packs ? average_pool<W, T> : average_pool<1, T>, blocks_for(packs ? n / W : n),
                  THREADS, p, data<T>(x), data<T>(y));
  });
}

dlua_status run_average_grad(const dlua_args *a, const Pool &p) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  return with_float(g, [&](auto type) {
    using T = decltype(type);
    constexpr int W = Pack<T>::WIDTH;
    bool packs = steps_fit<T>(p, g, gx);
    int64_t n = dlua_numel(gx);
    return launch(a, packs ? average_pool_grad<W, T> : average_pool_grad<1, T>,
                  blocks_for(packs ? n / W : n), THREADS, p, data<T>(g), data<T>(gx));
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_max_pool2d(const dlua_args *a) {
  Pool p = pool_of(a->in[0], a->out[0], a->num);
  p.rows.dilation = a->num[3].v[0], p.columns.dilation = a->num[3].v[1];
  return run_max(a, p);
}

extern "C" dlua_status dlua_gpu_adaptive_max_pool2d(const dlua_args *a) {
  return run_max(a, pool_of(a->in[0], a->out[0], nullptr));
}

extern "C" dlua_status dlua_gpu_max_pool2d_grad(const dlua_args *a) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  Chains c = {};
  c.channels = c.wide = side_by_side(gx), c.images = gx->size[0] * gx->size[1] / c.channels;
  c.in = gx->size[2] * gx->size[3], c.out = g->size[2] * g->size[3];
  c.places = data<int32_t>(a->in[1]);
  return with_float(g, [&](auto type) {
    using T = decltype(type);
    return scatter(a, c, data<T>(g), data<T>(gx));
  });
}

extern "C" dlua_status dlua_gpu_avg_pool2d(const dlua_args *a) {
  Pool p = pool_of(a->in[0], a->out[0], a->num);
  p.rows.count_padding = p.columns.count_padding = a->num[4].i;
  return run_average(a, p);
}

extern "C" dlua_status dlua_gpu_avg_pool2d_grad(const dlua_args *a) {
  Pool p = pool_of(a->out[0], a->in[0], a->num + 1);
  p.rows.count_padding = p.columns.count_padding = a->num[5].i;
  return run_average_grad(a, p);
}

extern "C" dlua_status dlua_gpu_adaptive_avg_pool2d(const dlua_args *a) {
  return run_average(a, pool_of(a->in[0], a->out[0], nullptr));
}

extern "C" dlua_status dlua_gpu_adaptive_avg_pool2d_grad(const dlua_args *a) {
  return run_average_grad(a, pool_of(a->out[0], a->in[0], nullptr));
}
