// shown.h - a new tensor every position of which shows one of x, or nothing: what pad, tile,
// repeat_interleave and roll are.
#ifndef DLUA_GPU_SHOWN_H
#define DLUA_GPU_SHOWN_H

#include "kernel.h"

// What positions beyond x show; the first four in the order of pad's modes.
enum Beyond { CONSTANT, REFLECT, REPLICATE, CIRCULAR };

// Along dimension d position k of the result shows position k / each[d] - before[d] of x.
struct Shown {
  int mode;
  int64_t turn; // elements that the result is rolled by before all else, in row-major order
  int64_t before[DLUA_MAX_DIMS], each[DLUA_MAX_DIMS];
  uint64_t fill; // the low bytes are what nothing looks like
};

inline Shown shown_as(int mode) {
  Shown s = {};
  s.mode = mode;
  for (int64_t &each : s.each) each = 1;
  return s;
}

// Fills result 0, which lies without gaps, from input 0, whose missing dimensions come first.
dlua_status dlua_gpu_show(const dlua_args *a, const Shown &s);

#endif
