// pool.cu - max and average pooling of x {n,c,h,w}, one thread per result. Gradients gather: each
// element of gx adds up what its windows give it, in one order, so nothing is added atomically.
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

struct Pool {
  int64_t planes;
  Axis rows, columns;
};

// Element k of planes of height times width: its plane, row and column.
struct Place {
  int64_t plane, row, column;
  __device__ Place(int64_t k, const int64_t height, const int64_t width) {
    int64_t rest = quotient(k, width);
    column = k - rest * width;
    plane = quotient(rest, height);
    row = rest - plane * height;
  }
};

// ---------------------------------------------------------------- forward

// The first maximum, or the last nan, and its place from 1; 0 where a window has no element.
template <class T> __global__ void max_pool(Pool p, const T *x, T *y, int32_t *places) {
  using C = compute_t<T>;
  const Axis &r = p.rows, &c = p.columns;
  for (int64_t k = first_index(); k < p.planes * r.o * c.o; k += all_threads()) {
    Place at(k, r.o, c.o);
    const T *plane = x + at.plane * r.n * c.n;
    C best = C(-INFINITY);
    int32_t place = 0;
    int64_t bottom = r.to(at.row), right = c.to(at.column);
    for (int64_t i = r.from(at.row); i < bottom; i += r.dilation) {
      for (int64_t j = c.from(at.column); j < right && i >= 0; j += c.dilation) {
        if (j < 0) continue;
        C v = widen(plane[i * c.n + j]);
        if (v > best || v != v || place == 0) best = v, place = int32_t(i * c.n + j + 1);
      }
    }
    y[k] = narrow<T>(best), places[k] = place;
  }
}

template <class T> __global__ void average_pool(Pool p, const T *x, T *y) {
  using C = compute_t<T>;
  const Axis &r = p.rows, &c = p.columns;
  for (int64_t k = first_index(); k < p.planes * r.o * c.o; k += all_threads()) {
    Place at(k, r.o, c.o);
    const T *plane = x + at.plane * r.n * c.n;
    int64_t top = r.from(at.row), bottom = r.to(at.row);
    int64_t left = c.from(at.column), right = c.to(at.column);
    C sum = 0;
    for (int64_t i = top > 0 ? top : 0; i < bottom; i++) {
      C line = 0;
      for (int64_t j = left > 0 ? left : 0; j < right; j++) line += widen(plane[i * c.n + j]);
      sum += line;
    }
    y[k] = narrow<T>(sum / C(r.count(at.row) * c.count(at.column)));
  }
}

// ---------------------------------------------------------------- gradients

template <class T> __global__ void average_pool_grad(Pool p, const T *g, T *gx) {
  using C = compute_t<T>;
  const Axis &r = p.rows, &c = p.columns;
  for (int64_t k = first_index(); k < p.planes * r.n * c.n; k += all_threads()) {
    Place at(k, r.n, c.n);
    const T *plane = g + at.plane * r.o * c.o;
    int64_t bottom = r.last(at.row), right = c.last(at.column);
    C sum = 0;
    for (int64_t i = r.first(at.row); i <= bottom; i++)
      for (int64_t j = c.first(at.column); j <= right; j++)
        sum += widen(plane[i * c.o + j]) / C(r.count(i) * c.count(j));
    gx[k] = narrow<T>(sum);
  }
}

// Max pooling's places say nothing of their windows. So the outputs of each place are chained up, in
// whatever order threads come, and added in ascending order: chains are as short as windows overlap.
struct Chains {
  int64_t planes, in, out; // elements of a plane
  const int32_t *places;
  int32_t *heads, *next; // {planes, in}, {planes, out}: an output of the plane from 1, 0: none

  __device__ void link(int64_t plane, int32_t output) const {
    int32_t place = places[plane * out + output];
    if (place < 1 || place > in) return;
    next[plane * out + output] = atomicExch(&heads[plane * in + place - 1], output + 1);
  }
  // The sum of g over one chain.
  template <class T> __device__ T sum(const T *g, int64_t plane, int64_t element) const {
    compute_t<T> total = 0;
    int32_t head = heads[plane * in + element], done = 0;
    for (;;) {
      int32_t least = 0;
      for (int32_t o = head; o != 0; o = next[plane * out + o - 1])
        if (o > done && (least == 0 || o < least)) least = o;
      if (least == 0) return narrow<T>(total);
      total += widen(g[plane * out + least - 1]), done = least;
    }
  }
};

__global__ void link_places(Chains c) {
  for (int64_t k = first_index(); k < c.planes * c.out; k += all_threads())
    c.link(k / c.out, int32_t(k % c.out));
}

template <class T> __global__ void gather_places(Chains c, const T *g, T *gx) {
  for (int64_t k = first_index(); k < c.planes * c.in; k += all_threads())
    gx[k] = c.sum(g, k / c.in, k % c.in);
}

__global__ void clear(int32_t *heads, int64_t n) {
  for (int64_t k = first_index(); k < n; k += all_threads()) heads[k] = 0;
}

// The same in one kernel for small planes, `some` of them at a time in a block's own memory.
constexpr int MOST = 4096;

template <class T> __global__ void scatter_small(Chains all, int64_t some, const T *g, T *gx) {
  __shared__ int32_t heads[MOST], next[MOST];
  for (int64_t first = blockIdx.x * some; first < all.planes; first += gridDim.x * some) {
    int64_t planes = all.planes - first < some ? all.planes - first : some;
    Chains c = all;
    c.places += first * c.out, c.heads = heads, c.next = next;
    for (int64_t k = threadIdx.x; k < planes * c.in; k += THREADS) heads[k] = 0;
    __syncthreads();
    for (int64_t k = threadIdx.x; k < planes * c.out; k += THREADS)
      c.link(k / c.out, int32_t(k % c.out));
    __syncthreads();
    for (int64_t k = threadIdx.x; k < planes * c.in; k += THREADS)
      gx[first * c.in + k] = c.sum(g + first * c.out, k / c.in, k % c.in);
    __syncthreads();
  }
}

template <class T> dlua_status scatter(const dlua_args *a, Chains c, const T *g, T *gx) {
  int64_t larger = c.in > c.out ? c.in : c.out;
  if (larger <= MOST) {
    int64_t some = larger < MOST / 4 ? MOST / 4 / larger : 1, blocks = (c.planes + some - 1) / some;
    return launch(a, scatter_small<T>, (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS),
                  THREADS, c, some, g, gx);
  }
  void *chains = nullptr;
  size_t bytes = (size_t)(c.planes * (c.in + c.out)) * sizeof(int32_t);
  DLUA_TRY(dlua_alloc(a->device, bytes, &chains));
  c.heads = (int32_t *)chains, c.next = c.heads + c.planes * c.in;
  int64_t inputs = c.planes * c.in, outputs = c.planes * c.out;
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

Pool pool_of(const dlua_tensor *large, const dlua_tensor *small, const dlua_value *num) {
  return {large->size[0] * large->size[1], axis_of(large, small, 0, num),
          axis_of(large, small, 1, num)};
}

dlua_status run_max(const dlua_args *a, const Pool &p) {
  return with_float(a->in[0], [&](auto type) {
    using T = decltype(type);
    return launch(a, max_pool<T>, blocks_for(dlua_numel(a->out[0])), THREADS, p, data<T>(a->in[0]),
                  data<T>(a->out[0]), data<int32_t>(a->out[1]));
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
    return launch(a, average_pool<T>, blocks_for(dlua_numel(y)), THREADS, p, data<T>(x),
                  data<T>(y));
  });
}

dlua_status run_average_grad(const dlua_args *a, const Pool &p) {
  return with_float(a->in[0], [&](auto type) {
    using T = decltype(type);
    return launch(a, average_pool_grad<T>, blocks_for(dlua_numel(a->out[0])), THREADS, p,
                  data<T>(a->in[0]), data<T>(a->out[0]));
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
  Chains c = {gx->size[0] * gx->size[1],
              gx->size[2] * gx->size[3],
              g->size[2] * g->size[3],
              data<int32_t>(a->in[1]),
              nullptr,
              nullptr};
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
