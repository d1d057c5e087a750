// conv.cu - convolutions that cuDNN does not do (f64, and what it has no engine for), and the bias of
// those that it does without.
//
// The forward pass and the gradient of the input have a thread per element of the result, whose sum
// is one window. The gradient of the weight sums over all pictures: a block per element, halving its
// partial sums in a fixed order.
#include "../conv.h"
#include "pointwise.h"

namespace {

__device__ inline int64_t place(const dlua_conv_tensor &t, int64_t n, int64_t c, int64_t i,
                                int64_t j) {
  return n * t.stride[0] + c * t.stride[1] + i * t.stride[2] + j * t.stride[3];
}

template <class T>
__device__ inline compute_t<T> at(const dlua_conv_tensor &t, int64_t n, int64_t c, int64_t i,
                                  int64_t j) {
  return widen(((const T *)t.data)[place(t, n, c, i, j)]);
}

// Element k of a tensor, row-major.
__device__ inline void indices(const dlua_conv_tensor &t, int64_t k, int64_t index[4]) {
  for (int d = 3; d >= 0; d--) {
    int64_t rest = k / t.size[d];
    index[d] = k - rest * t.size[d], k = rest;
  }
}

__host__ __device__ inline int64_t count(const dlua_conv_tensor &t) {
  return t.size[0] * t.size[1] * t.size[2] * t.size[3];
}

// What tap u of result row p reads; negative or beyond the picture in the padding.
__device__ inline int64_t reads(const dlua_conv2d &c, int d, int64_t p, int64_t u) {
  return p * c.step[d] - c.padding[d] + u * c.dilation[d];
}

// The result row whose tap u reads i, or -1.
__device__ inline int64_t writes(const dlua_conv2d &c, int d, int64_t i, int64_t u) {
  int64_t p = i + c.padding[d] - u * c.dilation[d];
  if (p < 0 || p % c.step[d] != 0) return -1;
  return p / c.step[d] < c.y.size[2 + d] ? p / c.step[d] : -1;
}

template <class T>
__device__ inline compute_t<T> y_at(const dlua_conv2d &c, int64_t n, int64_t o, int64_t p,
                                    int64_t q) {
  int64_t deep = c.w.size[1], first = o / (c.w.size[0] / c.groups) * deep;
  compute_t<T> sum = 0;
  for (int64_t k = 0; k < deep; k++) {
    for (int64_t u = 0; u < c.w.size[2]; u++) {
      int64_t i = reads(c, 0, p, u);
      if (i < 0 || i >= c.x.size[2]) continue;
      for (int64_t v = 0; v < c.w.size[3]; v++) {
        int64_t j = reads(c, 1, q, v);
        if (j < 0 || j >= c.x.size[3]) continue;
        sum += at<T>(c.x, n, first + k, i, j) * at<T>(c.w, o, k, u, v);
      }
    }
  }
  return sum;
}

template <class T>
__device__ inline compute_t<T> x_at(const dlua_conv2d &c, int64_t n, int64_t k, int64_t i,
                                    int64_t j) {
  int64_t deep = c.w.size[1], wide = c.w.size[0] / c.groups, first = k / deep * wide;
  compute_t<T> sum = 0;
  for (int64_t o = first; o < first + wide; o++) {
    for (int64_t u = 0; u < c.w.size[2]; u++) {
      int64_t p = writes(c, 0, i, u);
      if (p < 0) continue;
      for (int64_t v = 0; v < c.w.size[3]; v++) {
        int64_t q = writes(c, 1, j, v);
        if (q >= 0) sum += at<T>(c.y, n, o, p, q) * at<T>(c.w, o, k % deep, u, v);
      }
    }
  }
  return sum;
}

template <class T> __global__ void direct_forward(dlua_conv2d c, int64_t total) {
  for (int64_t k = first_index(); k < total; k += all_threads()) {
    int64_t i[4];
    indices(c.y, k, i);
    compute_t<T> sum = y_at<T>(c, i[0], i[1], i[2], i[3]);
    if (c.bias) sum += widen(((const T *)c.bias)[i[1] * c.bias_step]);
    ((T *)c.y.data)[place(c.y, i[0], i[1], i[2], i[3])] = narrow<T>(sum);
  }
}

template <class T> __global__ void direct_input_grad(dlua_conv2d c, int64_t total) {
  for (int64_t k = first_index(); k < total; k += all_threads()) {
    int64_t i[4];
    indices(c.x, k, i);
    ((T *)c.x.data)[place(c.x, i[0], i[1], i[2], i[3])] =
        narrow<T>(x_at<T>(c, i[0], i[1], i[2], i[3]));
  }
}

// This thread's part of the gradient of w[o,k,u,v].
template <class T>
__device__ inline compute_t<T> w_part(const dlua_conv2d &c, const int64_t w[4], int64_t total) {
  int64_t from = w[0] / (c.w.size[0] / c.groups) * c.w.size[1] + w[1];
  compute_t<T> sum = 0;
  for (int64_t k = threadIdx.x; k < total; k += blockDim.x) {
    int64_t q = k % c.y.size[3], p = k / c.y.size[3] % c.y.size[2];
    int64_t n = k / c.y.size[3] / c.y.size[2];
    int64_t i = reads(c, 0, p, w[2]), j = reads(c, 1, q, w[3]);
    if (i < 0 || i >= c.x.size[2] || j < 0 || j >= c.x.size[3]) continue;
    sum += at<T>(c.x, n, from, i, j) * at<T>(c.y, n, w[0], p, q);
  }
  return sum;
}

template <class T>
__global__ void direct_weight_grad(dlua_conv2d c, int64_t elements, int64_t total) {
  __shared__ compute_t<T> part[THREADS];
  for (int64_t k = blockIdx.x; k < elements; k += gridDim.x) {
    int64_t i[4];
    indices(c.w, k, i);
    part[threadIdx.x] = w_part<T>(c, i, total);
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) ((T *)c.w.data)[place(c.w, i[0], i[1], i[2], i[3])] = narrow<T>(part[0]);
    __syncthreads();
  }
}

// ---------------------------------------------------------------- bias

// W elements at once, which belong to channels next to each other in NHWC (plane 1) and else to one.
template <int W, class T>
__global__ void add_bias(T *y, int64_t total, int64_t plane, int64_t channels, const T *bias,
                         int64_t bias_step) {
  int64_t step = plane == 1 ? bias_step : 0;
  for (int64_t k = first_index() * W; k < total; k += all_threads() * W) {
    const T *b = bias + k / plane % channels * bias_step;
    compute_t<T> v[W];
    load_some<W>(y + k, v);
    for (int i = 0; i < W; i++) v[i] += widen(b[i * step]);
    store_some<W>(y + k, v);
  }
}

} // namespace

extern "C" dlua_status dlua_gpu_direct_forward(const dlua_args *a, const dlua_conv2d *c) {
  return with_float(a->out[0], [&](auto type) {
    int64_t total = count(c->y);
    return launch(a, direct_forward<decltype(type)>, blocks_for(total), THREADS, *c, total);
  });
}

extern "C" dlua_status dlua_gpu_direct_input_grad(const dlua_args *a, const dlua_conv2d *c) {
  return with_float(a->out[0], [&](auto type) {
    int64_t total = count(c->x);
    return launch(a, direct_input_grad<decltype(type)>, blocks_for(total), THREADS, *c, total);
  });
}

extern "C" dlua_status dlua_gpu_direct_weight_grad(const dlua_args *a, const dlua_conv2d *c) {
  return with_float(a->out[0], [&](auto type) {
    int64_t elements = count(c->w), total = c->y.size[0] * c->y.size[2] * c->y.size[3];
    unsigned blocks = (unsigned)(elements < MOST_BLOCKS ? elements : MOST_BLOCKS);
    return launch(a, direct_weight_grad<decltype(type)>, blocks, THREADS, *c, elements, total);
  });
}

extern "C" dlua_status dlua_gpu_add_bias(const dlua_args *a, const dlua_tensor *y,
                                         const dlua_tensor *bias) {
  int64_t total = dlua_numel(y), channels = y->size[1];
  int64_t plane = y->storage->layout == DLUA_NHWC ? 1 : y->size[2] * y->size[3];
  return with_float(y, [&](auto type) {
    using T = decltype(type);
    constexpr int W = Pack<T>::WIDTH;
    bool packs = (plane == 1 ? channels : plane) % W == 0 && (uintptr_t)dlua_data(y) % 16 == 0;
    return launch(a, packs ? add_bias<W, T> : add_bias<1, T>, blocks_for(packs ? total / W : total),
                  THREADS, data<T>(y), total, plane, channels, data<T>(bias), bias->stride[0]);
  });
}
