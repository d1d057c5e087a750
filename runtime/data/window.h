// window.h - which pixel a place of a window on a picture shows, and the draws that put it there:
// what the transforms of a loader and the kernels of the op augment have in common.
//
// A window may reach beyond its picture; a mode says what is seen there.
#ifndef DLUA_WINDOW_H
#define DLUA_WINDOW_H

#include "../rng.h"

enum { DLUA_PAD_CONSTANT, DLUA_PAD_REFLECT, DLUA_PAD_SYMMETRIC, DLUA_PAD_EDGE };

// Where position i of a line of n lies in the line that a padding mode continues; -1: nowhere.
DLUA_INLINE int64_t dlua_window_at(int64_t i, int64_t n, int mode) {
  if (i >= 0 && i < n) return i;
  if (mode == DLUA_PAD_CONSTANT) return -1;
  if (mode == DLUA_PAD_EDGE) return i < 0 ? 0 : n - 1;
  if (mode == DLUA_PAD_SYMMETRIC) return i < 0 ? -1 - i : 2 * n - 1 - i;
  return i < 0 ? -i : 2 * n - 2 - i;
}

// A block of the draws that one transform, counted from 0, makes for a picture in an epoch.
DLUA_INLINE dlua_block dlua_transform_draw(uint64_t key, uint64_t sample, uint32_t epoch,
                                           uint32_t step, uint32_t block) {
  uint64_t high = (uint64_t)epoch << 32 | (uint64_t)step << 24 | block;
  return dlua_philox(key, 1, sample, high);
}

// One of 0..n-1 from 32 random bits.
DLUA_INLINE int64_t dlua_draw_below(uint32_t bits, int64_t n) {
  return (int64_t)((double)dlua_unit_f32(bits) * (double)n);
}

#endif
