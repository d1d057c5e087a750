// max_pool.h - max pooling, compiled once per instruction set (simd/pool.c).
#ifndef DLUA_MAX_POOL_H
#define DLUA_MAX_POOL_H

#include <stdint.h>

// One plane: x {h,w} vectors of 16 or 8 channels, or single
// floats, -> y {oh,ow} and the 1-based places of the maxima
// in the plane.
typedef struct dlua_pool_plane {
  int64_t h, w, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw;
} dlua_pool_plane;

typedef struct dlua_pool_kernels {
  void (*max16)(const dlua_pool_plane *p, const float *x, float *y, int32_t *where);
  void (*max8)(const dlua_pool_plane *p, const float *x, float *y, int32_t *where);
  void (*max1)(const dlua_pool_plane *p, const float *x, float *y, int32_t *where);
  // The maximum of {rows,columns} elements, 1 or more, of a picture w wide, and its place counted
  // from x: the first of equals, of NaNs the last.
  float (*window)(const float *x, int64_t w, int64_t rows, int64_t columns, int32_t *where);
} dlua_pool_kernels;

extern const dlua_pool_kernels dlua_pool_base;
extern const dlua_pool_kernels dlua_pool_avx2, dlua_pool_avx512; // x86-64 only

#endif
