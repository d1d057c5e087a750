// language.h - the part of CUDA C++ that dlua's kernels use, as plain C++, so that a compiler for the
// CPU turns the very same kernel files into a module that runs without a GPU. Each thread of a block
// is a fiber; one that reaches a barrier is put aside until all the others are there (fibers.cpp).
//
// It checks what a kernel computes, not how fast; threads of a block run one after the other between
// barriers and atomics, in an order that changes from launch to launch, so that a missing barrier
// shows.
#ifndef DLUA_GPU_EMULATOR_LANGUAGE_H
#define DLUA_GPU_EMULATOR_LANGUAGE_H

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace emulator {

struct Thread {
  dim3 index, block;
  unsigned number; // in its block
};

extern Thread *here;
extern dim3 block_size, grid_size;

// Returns when all threads of the block that still run have called it.
void block_barrier();
// The same for the threads of this thread's warp; every one of them must get there.
void warp_barrier();
// This warp's 32 places of 8 bytes, for what its threads show each other, and what stands there where
// a thread shows nothing: a NaN in any type.
uint64_t *warp_places();
constexpr uint64_t NOBODY = ~(uint64_t)0;
// Other threads of the block may run before this one goes on.
void may_be_overtaken();

} // namespace emulator

#define threadIdx (emulator::here->index)
#define blockIdx (emulator::here->block)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)
#define warpSize 32

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { emulator::warp_barrier(); }
inline void __threadfence() { emulator::may_be_overtaken(); }

// ---------------------------------------------------------------- within a warp

namespace emulator {

template <class T> T exchange(T value, unsigned from, bool valid) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t *places = warp_places();
  std::memcpy(&places[here->number % 32], &value, sizeof value);
  warp_barrier();
  T result = value;
  if (valid) std::memcpy(&result, &places[from], sizeof result);
  warp_barrier();
  places[here->number % 32] = NOBODY;
  return result;
}

inline unsigned vote(bool mine) {
  uint64_t *places = warp_places();
  places[here->number % 32] = mine;
  warp_barrier();
  unsigned first = here->number / 32 * 32, all = block_size.x * block_size.y * block_size.z;
  unsigned result = 0;
  for (unsigned k = 0; k < 32 && first + k < all; k++) result |= (unsigned)(places[k] == 1) << k;
  warp_barrier();
  places[here->number % 32] = NOBODY;
  return result;
}

} // namespace emulator

template <class T> T __shfl_sync(unsigned, T value, int from, int width = 32) {
  unsigned lane = emulator::here->number % 32;
  return emulator::exchange(value, lane / width * width + (unsigned)from % width, true);
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
  unsigned lane = emulator::here->number % 32, from = lane ^ (unsigned)mask;
  return emulator::exchange(value, from, from / width <= lane / width);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
  unsigned lane = emulator::here->number % 32;
  return emulator::exchange(value, lane + by, lane % width + by < (unsigned)width);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned by, int width = 32) {
  unsigned lane = emulator::here->number % 32;
  return emulator::exchange(value, lane - by, lane % width >= by);
}
inline unsigned __ballot_sync(unsigned, bool mine) { return emulator::vote(mine); }
inline bool __any_sync(unsigned, bool mine) { return emulator::vote(mine) != 0; }
inline bool __all_sync(unsigned, bool mine) { return emulator::vote(!mine) == 0; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

// ---------------------------------------------------------------- atomics: one thread runs at a time

namespace emulator {

template <class T> T overtaken(T value) { return may_be_overtaken(), value; }

} // namespace emulator

template <class T, class U> T atomicAdd(T *p, U value) {
  T old = *p;
  *p = T(old + T(value));
  return emulator::overtaken(old);
}
template <class T, class U> T atomicMax(T *p, U value) {
  T old = *p;
  if (old < T(value)) *p = T(value);
  return emulator::overtaken(old);
}
template <class T, class U> T atomicMin(T *p, U value) {
  T old = *p;
  if (T(value) < old) *p = T(value);
  return emulator::overtaken(old);
}
template <class T, class U> T atomicOr(T *p, U value) {
  T old = *p;
  *p = T(old | T(value));
  return emulator::overtaken(old);
}
template <class T, class U> T atomicExch(T *p, U value) {
  T old = *p;
  *p = T(value);
  return emulator::overtaken(old);
}
template <class T, class U, class V> T atomicCAS(T *p, U compare, V value) {
  T old = *p;
  if (old == T(compare)) *p = T(value);
  return emulator::overtaken(old);
}

// ---------------------------------------------------------------- mathematics CUDA has and C++ lacks

inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
template <class T> T __ldg(const T *p) { return *p; }
inline float __int_as_float(int x) {
  float y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline int __float_as_int(float x) {
  int y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)(((uint64_t)x * y) >> 32); }

#endif
