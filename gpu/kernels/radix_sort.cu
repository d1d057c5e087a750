// radix_sort.cu - CUB's radix sort, in one place since it takes long to compile: one pair of types,
// and the number of bits looked at is the caller's. It launches by itself, past the table of calls.
#include "radix_sort.h"

#ifdef DLUA_EMULATED
#include "../emulator/radix_sort.h"
#else
#include <cub/device/device_radix_sort.cuh>
#endif

dlua_status Pairs::take(const dlua_args *a, int64_t count) {
  n = count;
  for (Scratch &m : memory) DLUA_TRY(m.take(a, (size_t)n * sizeof(uint64_t)));
  keys = memory[0].as<uint64_t>(), spare_keys = memory[1].as<uint64_t>();
  values = memory[2].as<int64_t>(), spare_values = memory[3].as<int64_t>();
  return DLUA_OK;
}

dlua_status dlua_gpu_sort_pairs(const dlua_args *a, Pairs *pairs, int from, int to) {
  cub::DoubleBuffer<uint64_t> keys(pairs->keys, pairs->spare_keys);
  cub::DoubleBuffer<int64_t> values(pairs->values, pairs->spare_values);
  Scratch scratch;
  void *queue = nullptr;
  size_t bytes = 0;
  if (pairs->n < 2 || from >= to) return DLUA_OK;
  DLUA_TRY(dlua_gpu_queue(a->device->index, &queue));
  auto sort = [&](void *block) {
    return dlua_gpu_check("DeviceRadixSort",
                          cub::DeviceRadixSort::SortPairs(block, bytes, keys, values, pairs->n,
                                                          from, to, (cudaStream_t)queue));
  };
  DLUA_TRY(sort(nullptr)); // asks for the bytes
  DLUA_TRY(scratch.take(a, bytes));
  DLUA_TRY(sort(scratch.block));
  pairs->keys = keys.Current(), pairs->spare_keys = keys.Alternate();
  pairs->values = values.Current(), pairs->spare_values = values.Alternate();
  return DLUA_OK;
}
