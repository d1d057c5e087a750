// kernel.h - what every file of kernels starts from: element types, launches, small helpers for
// device code.
//
//   template <class T> __global__ void twice(const T *x, T *y, int64_t n) {
//     for (int64_t k = first_index(); k < n; k += all_threads()) y[k] = x[k] * T(2);
//   }
//   extern "C" dlua_status dlua_gpu_twice(const dlua_args *a) {
//     return with_float(a->in[0], [&](auto type) {
//       using T = decltype(type);
//       int64_t n = dlua_numel(a->out[0]);
//       return launch(a, twice<T>, blocks_for(n), THREADS, data<T>(a->in[0]), data<T>(a->out[0]), n);
//     });
//   }
//
// The kernels keep to the part of CUDA C++ that emulator/language.h also offers on the CPU: blocks
// of up to three dimensions, static __shared__ arrays, __syncthreads, warp shuffles and votes,
// atomics; no <<<>>>, no dynamic shared memory, no inline assembly.
#ifndef DLUA_GPU_KERNEL_H
#define DLUA_GPU_KERNEL_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <tuple>
#include <utility>

#ifdef DLUA_EMULATED
#include "../emulator/language.h"
#endif

#include "../stream.h"
extern "C" {
#include "../../runtime/backend.h"
#include "../../runtime/ops/iterate.h"
#include "../../runtime/ops/reduction.h"
}

// ---------------------------------------------------------------- element types

using bf16 = __nv_bfloat16;
using f16 = __half;

// What arithmetic on a type is done in: bf16 and f16 in float.
template <class T> struct compute_of { using type = T; };
template <> struct compute_of<bf16> { using type = float; };
template <> struct compute_of<f16> { using type = float; };
template <class T> using compute_t = typename compute_of<T>::type;

template <class T> __device__ inline compute_t<T> widen(T x) { return compute_t<T>(x); }
template <class T> __device__ inline T narrow(compute_t<T> x) { return T(x); }

// Runs f with a value of the tensor's element type; the type is all that matters.
template <class F> dlua_status with_float(const dlua_tensor *x, F f) {
  switch (x->dtype) {
  case DLUA_F32: return f(float());
  case DLUA_F64: return f(double());
  case DLUA_BF16: return f(bf16());
  case DLUA_F16: return f(f16());
  default:
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s tensors are not accepted",
                     dlua_dtype_name((dlua_dtype)x->dtype));
  }
}

// The same for kernels that only move elements: an unsigned integer of the same width.
template <class F> dlua_status with_width(const dlua_tensor *x, F f) {
  switch (dlua_dtype_size((dlua_dtype)x->dtype)) {
  case 1: return f(uint8_t());
  case 2: return f(uint16_t());
  case 4: return f(uint32_t());
  default: return f(uint64_t());
  }
}

template <class T> T *data(const dlua_tensor *x) { return x ? (T *)dlua_data(x) : nullptr; }

// One element of any dtype as C, and back: what kernels without a type of their own read and write.
template <class C> __host__ __device__ inline C load_as(const void *p, uint8_t dtype) {
  switch (dtype) {
  case DLUA_F32: return C(*(const float *)p);
  case DLUA_F64: return C(*(const double *)p);
  case DLUA_BF16: return C(float(*(const bf16 *)p));
  case DLUA_F16: return C(float(*(const f16 *)p));
  case DLUA_I64: return C(*(const int64_t *)p);
  case DLUA_I32: return C(*(const int32_t *)p);
  case DLUA_U8: return C(*(const uint8_t *)p);
  default: return C(*(const uint8_t *)p != 0);
  }
}

// Integers keep their low bits.
template <class R> __device__ inline void store_as(void *p, uint8_t dtype, R value) {
  switch (dtype) {
  case DLUA_F32: *(float *)p = float(value); break;
  case DLUA_F64: *(double *)p = double(value); break;
  case DLUA_BF16: *(bf16 *)p = bf16(float(value)); break;
  case DLUA_F16: *(f16 *)p = f16(float(value)); break;
  case DLUA_I64: *(int64_t *)p = int64_t(value); break;
  case DLUA_I32: *(int32_t *)p = int32_t(int64_t(value)); break;
  case DLUA_U8: *(uint8_t *)p = uint8_t(int64_t(value)); break;
  default: *(uint8_t *)p = value != R(0);
  }
}

// k / n of what is not negative; in 32 bits, where both fit, several times as fast.
__device__ inline int64_t quotient(int64_t k, int64_t n) {
  if (n == 1) return k;
  return (k | n) <= UINT32_MAX ? (uint32_t)k / (uint32_t)n : k / n;
}

// ---------------------------------------------------------------- launching

// In front of a loop whose arrays are to stay in registers: left to itself the compiler keeps long
// bodies as they are, and indexed arrays then lie in memory.
#ifdef DLUA_EMULATED
#define DLUA_UNROLL
#else
#define DLUA_UNROLL _Pragma("unroll")
#endif

constexpr int THREADS = 256, MOST_BLOCKS = 132 * 16, WARP = 32;

// Blocks of THREADS for n elements; kernels step by all_threads() to the rest.
inline unsigned blocks_for(int64_t n) {
  int64_t blocks = (n + THREADS - 1) / THREADS;
  return (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
}

__device__ inline int64_t first_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline int64_t all_threads() { return (int64_t)gridDim.x * blockDim.x; }

#ifdef DLUA_EMULATED
// Calls a kernel whose address is the first argument for one thread.
template <class... P> void emulated_thread(void **arguments) {
  auto call = [&]<size_t... I>(std::index_sequence<I...>) {
    (*(void (**)(P...))arguments[0])(*(P *)arguments[I + 1]...);
  };
  call(std::index_sequence_for<P...>());
}
#endif

// Queues kernel(parameters…) on the call's device. Parameters are passed as the kernel's own types.
template <class... P, class... A>
dlua_status launch(const dlua_args *a, void (*kernel)(P...), dim3 blocks, dim3 threads,
                   A... parameters) {
  const unsigned grid[3] = {blocks.x, blocks.y, blocks.z};
  const unsigned block[3] = {threads.x, threads.y, threads.z};
  std::tuple<P...> values(parameters...);
  return std::apply(
      [&](P &...value) {
#ifdef DLUA_EMULATED
        void *arguments[] = {&kernel, &value...};
        return dlua_gpu_launch(a, (const void *)emulated_thread<P...>, grid, block, arguments);
#else
        void *arguments[] = {&value...};
        return dlua_gpu_launch(a, (const void *)kernel, grid, block, arguments);
#endif
      },
      values);
}

// ---------------------------------------------------------------- indices and other values

// Leaves word for the host, unless there is word of an earlier call or of a smaller position, so that
// the message is the CPU's whatever the order of the threads. Those that cannot change it any more
// need no lock: a position is there before its call is.
__device__ inline void note_fault(const dlua_index_check &check, dlua_fault_kind kind,
                                  int64_t value, int64_t position, int64_t extent) {
  volatile dlua_fault *cell = check.cell;
  uint64_t call = cell->call;
  __threadfence();
  if (call != 0 && (call != check.call || cell->position <= position)) return;
  for (bool done = false; !done;) {
    if (atomicCAS(&check.cell->lock, 0u, 1u) != 0) continue;
    __threadfence();
    if (cell->call == 0 || (cell->call == check.call && position < cell->position)) {
      cell->kind = kind;
      cell->value = value;
      cell->position = position;
      cell->extent = extent;
      __threadfence();
      cell->call = check.call;
    }
    __threadfence();
    atomicExch(&check.cell->lock, 0u);
    done = true;
  }
}

// Turns a 1-based index into a 0-based one; false, and word of it for the host, where it is
// outside 1..extent. The kernel then leaves the element out.
__device__ inline bool index_at(const dlua_index_check &check, int64_t value, int64_t position,
                                int64_t extent, int64_t *index) {
  if (value >= 1 && value <= extent) return *index = value - 1, true;
  note_fault(check, DLUA_FAULT_INDEX, value, position, extent);
  return false;
}

#endif
