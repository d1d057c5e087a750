// radix_sort.h - long sorts on the device.
#ifndef DLUA_GPU_RADIX_SORT_H
#define DLUA_GPU_RADIX_SORT_H

#include "move.h"

// Keys with a value each, and room for as many again, which the sort takes turns with.
struct Pairs {
  int64_t n = 0;
  Scratch memory[4];
  uint64_t *keys = nullptr, *spare_keys = nullptr; // keys and values: where they are now
  int64_t *values = nullptr, *spare_values = nullptr;

  dlua_status take(const dlua_args *a, int64_t count);
};

// Sorts by bits from..to - 1 of the keys, ascending; equal ones stay in their order.
dlua_status dlua_gpu_sort_pairs(const dlua_args *a, Pairs *pairs, int from, int to);

// Bits that numbers below n have at most.
inline int bits_below(int64_t n) {
  int bits = 0;
  while (bits < 63 && (int64_t)1 << bits < n) bits++;
  return bits;
}

#endif
