// pointwise.h - elementwise kernels over operands that broadcast, with any strides and dtypes.
//
//   struct Add {
//     template <class C> __device__ C operator()(C x, C y) const { return x + y; }
//   };
//   extern "C" dlua_status dlua_gpu_add(const dlua_args *a) { return pointwise<2>(a, Add()); }
//
// The functor gets its inputs in one type C: float for f32, bf16 and f16, double for f64, int64_t
// for integers and bool, by the dtype of the last input; its result is converted to the dtype of
// the output. Integers keep their low bits, so they wrap. Inputs that are plain numbers travel with
// the launch. Where all operands lie in one order without gaps, threads move 16 bytes at a time.
#ifndef DLUA_GPU_POINTWISE_H
#define DLUA_GPU_POINTWISE_H

#include "kernel.h"

// One operand: memory with a stride per dimension in bytes, or a number of the host.
struct Operand {
  char *data; // NULL: number holds the value
  double number;
  int64_t integer;
  uint8_t dtype;
  int64_t stride[DLUA_MAX_DIMS];
};

template <int N> struct Loop { // operand 0 is the result
  int ndim;
  bool flat; // one dimension, strides are the element size or 0
  int64_t count, size[DLUA_MAX_DIMS];
  Operand operand[N];
};

enum Types { FLOATS = 1, INTEGERS = 2, ALL_TYPES = FLOATS | INTEGERS };

// ---------------------------------------------------------------- kernels

template <class C> __device__ inline C number_of(const Operand &o) {
  return std::is_integral<C>::value ? C(o.integer) : C(o.number);
}

// Any strides: every thread finds the places of its elements by division.
template <class C, int N, class F, size_t... I>
__device__ inline void apply_at(const Loop<N> &loop, const F &f, int64_t k,
                                std::index_sequence<I...>) {
  int64_t offset[N] = {};
  for (int d = 0; d < loop.ndim; d++) {
    int64_t rest = k / loop.size[d], at = k - rest * loop.size[d];
    for (int i = 0; i < N; i++) offset[i] += at * loop.operand[i].stride[d];
    k = rest;
  }
  auto result = f((loop.operand[I + 1].data ? load_as<C>(loop.operand[I + 1].data + offset[I + 1],
                                                         loop.operand[I + 1].dtype)
                                            : number_of<C>(loop.operand[I + 1]))...);
  store_as(loop.operand[0].data + offset[0], loop.operand[0].dtype, result);
}

template <class C, int N, class F> __global__ void pointwise_strided(Loop<N> loop, F f) {
  for (int64_t k = first_index(); k < loop.count; k += all_threads())
    apply_at<C>(loop, f, k, std::make_index_sequence<N - 1>());
}

// Packed operands of one type, or numbers and single elements: 16 bytes at a time, the rest one by
// one.
template <class T> struct alignas(16) Pack {
  static constexpr int WIDTH = 16 / sizeof(T);
  T element[WIDTH];
};

template <class T> __device__ inline void load_pack(const Operand &o, int64_t k, Pack<T> *pack) {
  if (o.data && o.stride[0] != 0) {
    *pack = ((const Pack<T> *)o.data)[k];
    return;
  }
  T one = o.data ? *(const T *)o.data : narrow<T>(number_of<compute_t<T>>(o));
  for (int j = 0; j < Pack<T>::WIDTH; j++) pack->element[j] = one;
}

template <class T> __device__ inline T load_one(const Operand &o, int64_t k) {
  return o.data ? ((const T *)o.data)[o.stride[0] ? k : 0] : narrow<T>(number_of<compute_t<T>>(o));
}

template <class T, int N, class F, size_t... I>
__device__ inline void apply_flat(const Loop<N> &loop, const F &f, std::index_sequence<I...>) {
  constexpr int WIDTH = Pack<T>::WIDTH;
  int64_t packs = loop.count / WIDTH;
  for (int64_t k = first_index(); k < packs; k += all_threads()) {
    Pack<T> in[N - 1], out;
    (load_pack(loop.operand[I + 1], k, &in[I]), ...);
    for (int j = 0; j < WIDTH; j++)
      out.element[j] = narrow<T>(compute_t<T>(f(widen(in[I].element[j])...)));
    ((Pack<T> *)loop.operand[0].data)[k] = out;
  }
  for (int64_t k = packs * WIDTH + first_index(); k < loop.count; k += all_threads())
    ((T *)loop.operand[0].data)[k] =
        narrow<T>(compute_t<T>(f(widen(load_one<T>(loop.operand[I + 1], k))...)));
}

template <class T, int N, class F> __global__ void pointwise_flat(Loop<N> loop, F f) {
  apply_flat<T>(loop, f, std::make_index_sequence<N - 1>());
}

// ---------------------------------------------------------------- laying out

// The loop over out and n inputs; false where an operand is not 16-byte aligned or of another type,
// so that only pointwise_strided will do.
template <int N> Loop<N> loop_over(const dlua_args *a, dlua_tensor *const (&operands)[N]) {
  Loop<N> loop = {};
  dlua_iter it;
  dlua_iter_begin(&it, N, operands);
  loop.ndim = it.ndim, loop.count = 1, loop.flat = it.ndim == 1;
  for (int d = 0; d < it.ndim; d++) loop.size[d] = it.size[d], loop.count *= it.size[d];
  for (int i = 0; i < N; i++) {
    const dlua_tensor *x = operands[i];
    Operand *o = &loop.operand[i];
    int64_t width = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
    o->dtype = x->dtype, o->data = x->storage->device == a->device ? it.data[i] : nullptr;
    for (int d = 0; d < it.ndim; d++) o->stride[d] = it.stride[i][d];
    if (!o->data) {
      o->number = load_as<double>(dlua_data(x), x->dtype);
      o->integer = load_as<int64_t>(dlua_data(x), x->dtype);
      continue;
    }
    bool packed = o->stride[0] == width && (uintptr_t)o->data % 16 == 0;
    bool single = i > 0 && o->stride[0] == 0;
    loop.flat &= x->dtype == operands[0]->dtype && (packed || single);
  }
  return loop;
}

template <int TYPES, int N, class F>
dlua_status run_loop(const dlua_args *a, const Loop<N> &loop, dlua_dtype dtype, F f) {
  unsigned blocks = blocks_for(loop.count);
  if constexpr (TYPES & FLOATS) {
    if (loop.flat && dtype == DLUA_F32)
      return launch(a, pointwise_flat<float, N, F>, blocks, THREADS, loop, f);
    if (loop.flat && dtype == DLUA_BF16)
      return launch(a, pointwise_flat<bf16, N, F>, blocks, THREADS, loop, f);
    if (loop.flat && dtype == DLUA_F16)
      return launch(a, pointwise_flat<f16, N, F>, blocks, THREADS, loop, f);
    if (dtype == DLUA_F64)
      return launch(a, pointwise_strided<double, N, F>, blocks, THREADS, loop, f);
    if (dlua_is_float(dtype))
      return launch(a, pointwise_strided<float, N, F>, blocks, THREADS, loop, f);
  }
  if constexpr (TYPES & INTEGERS) {
    if (!dlua_is_float(dtype))
      return launch(a, pointwise_strided<int64_t, N, F>, blocks, THREADS, loop, f);
  }
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s tensors are not accepted", a->op->name,
                   dlua_dtype_name(dtype));
}

// out[0] = f(in[0], …, in[N - 1]) for the types that the op takes.
template <int N, int TYPES = ALL_TYPES, class F> dlua_status pointwise(const dlua_args *a, F f) {
  dlua_tensor *operands[N + 1] = {a->out[0]};
  for (int k = 0; k < N; k++) operands[k + 1] = a->in[k];
  return run_loop<TYPES>(a, loop_over(a, operands), (dlua_dtype)a->in[N - 1]->dtype, f);
}

#endif
