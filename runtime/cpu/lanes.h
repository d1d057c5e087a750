// lanes.h - convolutions of few channels, one image per vector lane (simd/lanes.c,
// ops/conv_lanes.c).
//
// Blocked layouts pad 3 or 6 channels to 16 and waste most of the arithmetic. Here a block of
// images is transposed to {c, h, w, lane}, zero padding included, so that every instruction works
// on whole vectors whatever c, h and w are.
#ifndef DLUA_LANES_H
#define DLUA_LANES_H

#include <stdint.h>

enum { DLUA_LANES = 16 }; // images per block

// A stride-1 convolution of one block: x {cin,h,w,lane} is padded, y {cout,oh,ow,lane}, w
// {cout,cin,kh,kw}.
typedef struct dlua_lanes_shape {
  int64_t cin, cout, h, w, kh, kw, oh, ow; // oh = h - kh + 1, ow = w - kw + 1
} dlua_lanes_shape;

typedef struct dlua_lanes_kernels {
  // {count images, c, h, w} -> {c, h + 2 ph, w + 2 pw, lane}; missing images and the border are
  // zero.
  void (*pack)(float *to, const float *from, int64_t images, int64_t c, int64_t h, int64_t w,
               int64_t ph, int64_t pw);
  // {c, hw, lane} -> {count images, c, hw}.
  void (*unpack)(float *to, const float *from, int64_t images, int64_t c, int64_t hw);
  // y = conv(x, w) + b; b may be NULL.
  void (*forward)(const dlua_lanes_shape *s, float *y, const float *x, const float *w,
                  const float *b);
  // gw = the block's sum of g (like y) against x.
  void (*weight_grad)(const dlua_lanes_shape *s, float *gw, const float *g, const float *x);
} dlua_lanes_kernels;

extern const dlua_lanes_kernels dlua_lanes_base;
extern const dlua_lanes_kernels dlua_lanes_avx2, dlua_lanes_avx512; // x86-64 only

#endif
