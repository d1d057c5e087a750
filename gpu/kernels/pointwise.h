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
// the launch. Where all operands lie in one order without gaps, threads move 16 bytes at a time; a
// functor that returns bool writes bytes beside that.
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

// Division by a number below 2^31 of another such, as a product. Source: Granlund and Montgomery,
// "Division by invariant integers using multiplication", 1994.
struct Divisor {
  uint32_t factor, shift;
  __device__ uint32_t quotient(uint32_t n) const { return (__umulhi(n, factor) + n) >> shift; }
};

inline Divisor divisor_of(uint32_t d) {
  Divisor result = {0, 0};
  while (((uint64_t)1 << result.shift) < d) result.shift++;
  result.factor = (uint32_t)(((((uint64_t)1 << result.shift) - d) << 32) / d + 1);
  return result;
}

template <int N> struct Loop { // operand 0 is the result
  int ndim;
  bool flat; // packed or single operands, all inputs of one dtype
  int64_t count, size[DLUA_MAX_DIMS];
  Divisor divisor[DLUA_MAX_DIMS];
  Operand operand[N];
};

// RARE: a function that no training step calls often is not worth compiling for packs.
enum Types { FLOATS = 1, INTEGERS = 2, ALL_TYPES = FLOATS | INTEGERS, RARE = 4 };

// ---------------------------------------------------------------- kernels

template <class C> __device__ inline C number_of(const Operand &o) {
  return std::is_integral<C>::value ? C(o.integer) : C(o.number);
}

// Adds to offset where element k of the loop lies in every operand, in bytes.
template <int N>
__device__ inline void find_place(const Loop<N> &loop, int64_t k, int64_t (&offset)[N]) {
  bool small = loop.count <= INT32_MAX;
  for (int d = 0; d < loop.ndim; d++) {
    int64_t rest = 0, at = k;
    if (d < loop.ndim - 1) {
      rest = small ? loop.divisor[d].quotient((uint32_t)k) : k / loop.size[d];
      at = k - rest * loop.size[d];
    }
    for (int i = 0; i < N; i++) offset[i] += at * loop.operand[i].stride[d];
    k = rest;
  }
}

template <class C, int N, class F, size_t... I>
__device__ inline void apply_at(const Loop<N> &loop, const F &f, int64_t k,
                                std::index_sequence<I...>) {
  int64_t offset[N] = {};
  find_place(loop, k, offset);
  auto result = f((loop.operand[I + 1].data ? load_as<C>(loop.operand[I + 1].data + offset[I + 1],
                                                         loop.operand[I + 1].dtype)
                                            : number_of<C>(loop.operand[I + 1]))...);
  store_as(loop.operand[0].data + offset[0], loop.operand[0].dtype, result);
}

// Any strides and dtypes, element by element.
template <class C, int N, class F> __global__ void pointwise_strided(Loop<N> loop, F f) {
  for (int64_t k = first_index(); k < loop.count; k += all_threads())
    apply_at<C>(loop, f, k, std::make_index_sequence<N - 1>());
}

// Elements that are moved at once.
template <class T, int N = 16 / sizeof(T)> struct alignas(N * sizeof(T)) Pack {
  static constexpr int WIDTH = N;
  T element[N];
};

// W elements of one type, from memory that is aligned for them and back.
template <int W, class T> __device__ inline void load_some(const T *x, compute_t<T> (&v)[W]) {
  if constexpr (W == 1) {
    v[0] = widen(*x);
  } else {
    Pack<T> pack = *(const Pack<T> *)x;
    for (int i = 0; i < W; i++) v[i] = widen(pack.element[i]);
  }
}

template <int W, class T> __device__ inline void store_some(T *y, const compute_t<T> (&v)[W]) {
  if constexpr (W == 1) {
    *y = narrow<T>(v[0]);
  } else {
    Pack<T> pack;
    for (int i = 0; i < W; i++) pack.element[i] = narrow<T>(v[i]);
    *(Pack<T> *)y = pack;
  }
}

template <class T, int W>
__device__ inline void load_pack(const Operand &o, int64_t k, Pack<T, W> *pack) {
  if (o.data && o.stride[0] != 0) {
    *pack = ((const Pack<T, W> *)o.data)[k];
    return;
  }
  T one = o.data ? *(const T *)o.data : narrow<T>(number_of<compute_t<T>>(o));
  for (int j = 0; j < W; j++) pack->element[j] = one;
}

template <class T> __device__ inline T load_one(const Operand &o, int64_t k) {
  return o.data ? ((const T *)o.data)[o.stride[0] ? k : 0] : narrow<T>(number_of<compute_t<T>>(o));
}

// Only its type is of use: what the functor gives for inputs of type C.
template <class C, class F, size_t... I>
auto call_of(std::index_sequence<I...>) -> decltype(std::declval<F>()(((void)I, C())...));

// What a functor of floats writes: bool, or the inputs' type T.
template <class T, class V> struct written_by { using type = T; };
template <class T> struct written_by<T, bool> { using type = bool; };

// Packed operands of one type, or numbers and single elements: 16 bytes at a time, the rest one by
// one.
template <class T, class R, int N, class F, size_t... I>
__device__ inline void apply_flat(const Loop<N> &loop, const F &f, std::index_sequence<I...>) {
  constexpr int WIDTH = Pack<T>::WIDTH;
  int64_t packs = loop.count / WIDTH;
  for (int64_t k = first_index(); k < packs; k += all_threads()) {
    Pack<T> in[N - 1];
    Pack<R, WIDTH> out;
    (load_pack(loop.operand[I + 1], k, &in[I]), ...);
    for (int j = 0; j < WIDTH; j++)
      out.element[j] = narrow<R>(compute_t<R>(f(widen(in[I].element[j])...)));
    ((Pack<R, WIDTH> *)loop.operand[0].data)[k] = out;
  }
  for (int64_t k = packs * WIDTH + first_index(); k < loop.count; k += all_threads())
    ((R *)loop.operand[0].data)[k] =
        narrow<R>(compute_t<R>(f(widen(load_one<T>(loop.operand[I + 1], k))...)));
}

template <class T, class R, int N, class F> __global__ void pointwise_flat(Loop<N> loop, F f) {
  apply_flat<T, R>(loop, f, std::make_index_sequence<N - 1>());
}

// ---------------------------------------------------------------- laying out

// Whether threads can move the operand in packs of this many bytes, or it is a single element.
inline bool is_packed(const Operand &o, int64_t bytes) {
  if (!o.data || o.stride[0] == 0) return true;
  return o.stride[0] == (int64_t)dlua_dtype_size((dlua_dtype)o.dtype) &&
         (uintptr_t)o.data % bytes == 0;
}

// The loop over out and n inputs.
template <int N> Loop<N> loop_over(const dlua_args *a, dlua_tensor *const (&operands)[N]) {
  Loop<N> loop = {};
  dlua_iter it;
  dlua_iter_begin(&it, N, operands);
  loop.ndim = it.ndim, loop.count = 1, loop.flat = it.ndim == 1;
  for (int d = 0; d < it.ndim; d++) loop.size[d] = it.size[d], loop.count *= it.size[d];
  for (int d = 0; d < it.ndim && loop.count > 0 && loop.count <= INT32_MAX; d++)
    loop.divisor[d] = divisor_of((uint32_t)it.size[d]);
  for (int i = 0; i < N; i++) {
    const dlua_tensor *x = operands[i];
    Operand *o = &loop.operand[i];
    o->dtype = x->dtype, o->data = x->storage->device == a->device ? it.data[i] : nullptr;
    for (int d = 0; d < it.ndim; d++) o->stride[d] = it.stride[i][d];
    if (!o->data) {
      o->number = load_as<double>(dlua_data(x), x->dtype);
      // One that is no integer, like an infinity, meets kernels of floats alone.
      bool whole = !dlua_is_float((dlua_dtype)x->dtype) || fabs(o->number) < 0x1p63;
      o->integer = whole ? load_as<int64_t>(dlua_data(x), x->dtype) : 0;
    }
    bool alike = i == 0 || !o->data || x->dtype == operands[N - 1]->dtype;
    loop.flat &= alike && is_packed(*o, 16);
  }
  return loop;
}

// By pointwise_flat where its result is of the output's dtype, else by pointwise_strided.
template <int TYPES, class T, class C, int N, class F>
dlua_status run_floats(const dlua_args *a, const Loop<N> &loop, dlua_dtype dtype, F f) {
  using V = decltype(call_of<C, F>(std::make_index_sequence<N - 1>()));
  using R = typename written_by<T, V>::type;
  if constexpr (!(TYPES & RARE)) {
    int64_t packs = (loop.count + Pack<T>::WIDTH - 1) / Pack<T>::WIDTH;
    if (loop.flat && loop.operand[0].dtype == (std::is_same<R, bool>::value ? DLUA_BOOL : dtype))
      return launch(a, pointwise_flat<T, R, N, F>, blocks_for(packs), THREADS, loop, f);
  }
  return launch(a, pointwise_strided<C, N, F>, blocks_for(loop.count), THREADS, loop, f);
}

template <int TYPES, int N, class F>
dlua_status run_loop(const dlua_args *a, const Loop<N> &loop, dlua_dtype dtype, F f) {
  if constexpr (TYPES & FLOATS) {
    switch (dtype) {
    case DLUA_F32: return run_floats<TYPES, float, float>(a, loop, dtype, f);
    case DLUA_BF16: return run_floats<TYPES, bf16, float>(a, loop, dtype, f);
    case DLUA_F16: return run_floats<TYPES, f16, float>(a, loop, dtype, f);
    case DLUA_F64:
      return launch(a, pointwise_strided<double, N, F>, blocks_for(loop.count), THREADS, loop, f);
    default: break;
    }
  }
  if constexpr (TYPES & INTEGERS) {
    if (!dlua_is_float(dtype))
      return launch(a, pointwise_strided<int64_t, N, F>, blocks_for(loop.count), THREADS, loop, f);
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
