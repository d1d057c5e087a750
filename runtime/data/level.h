// level.h - how numbers become levels of u8, wherever transforms are done.
#ifndef DLUA_LEVEL_H
#define DLUA_LEVEL_H

#include <math.h>

#include "../rng.h"

// The level next to v, the even one of two; NaN is 0. (Beyond 2^23 floats are whole.)
DLUA_INLINE float dlua_level_near(float v) {
  v = v > 0 ? v : 0;
  v = v < 255 ? v : 255;
  return v + 0x1p23f - 0x1p23f;
}

// What stands where pictures of levels, or of floats, are filled with a value. A level is the low
// byte of the whole number next to it.
DLUA_INLINE float dlua_fill_value(double value, int levels) {
  return levels ? (float)(uint8_t)(int64_t)rint(fmin(fmax(value, -0x1p62), 0x1p62)) : (float)value;
}

#endif
