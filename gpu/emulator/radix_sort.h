// radix_sort.h - the one entry point of CUB that the kernels use, on the CPU.
#ifndef DLUA_GPU_EMULATOR_RADIX_SORT_H
#define DLUA_GPU_EMULATOR_RADIX_SORT_H

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "faults.h"

namespace cub {

template <class T> struct DoubleBuffer {
  T *buffers[2];
  int selector = 0;
  DoubleBuffer(T *current, T *spare) : buffers{current, spare} {}
  T *Current() const { return buffers[selector]; }
  T *Alternate() const { return buffers[1 - selector]; }
};

struct DeviceRadixSort {
  template <class K, class V>
  static cudaError_t SortPairs(void *scratch, size_t &bytes, DoubleBuffer<K> &keys,
                               DoubleBuffer<V> &values, int64_t n, int from, int to, cudaStream_t) {
    if (!scratch) return bytes = 1, cudaSuccess;
    if (int code = emulator::fault("DeviceRadixSort")) return (cudaError_t)code;
    std::vector<int64_t> order((size_t)n);
    for (int64_t k = 0; k < n; k++) order[(size_t)k] = k;
    K mask = (to - from < (int)(8 * sizeof(K)) ? (K(1) << (to - from)) - 1 : ~K(0));
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return (keys.Current()[a] >> from & mask) < (keys.Current()[b] >> from & mask);
    });
    for (int64_t k = 0; k < n; k++) {
      keys.Alternate()[k] = keys.Current()[order[(size_t)k]];
      values.Alternate()[k] = values.Current()[order[(size_t)k]];
    }
    keys.selector ^= 1, values.selector ^= 1;
    return cudaSuccess;
  }
};

} // namespace cub

#endif
