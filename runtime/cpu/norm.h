// norm.h - the inner loops of batch normalisation, compiled once per instruction set (simd/norm.c).
// Memory is walked in vectors of sixteen floats; lane l belongs to channel l % block of a blocked
// layout, or all lanes to one channel.
#ifndef DLUA_NORM_H
#define DLUA_NORM_H

#include <stdbool.h>
#include <stdint.h>

enum { DLUA_NORM_LANES = 16, DLUA_NORM_STRIP = 256 };

// Where relu lets a gradient through: x scale[l] + offset[l] > 0. NULL for it: everywhere.
typedef struct dlua_norm_gate {
  const float *scale, *offset;
} dlua_norm_gate;

typedef struct dlua_norm_kernels {
  // sum[l] += x - shift[l], squares[l] += (x - shift[l])² over count floats.
  void (*moments)(const float *x, int64_t count, const float *shift, double *sum, double *squares);
  // sum[l] += g, product[l] += g (x - mean[l]), with g 0 where the gate is closed.
  void (*products)(const float *g, const float *x, int64_t count, const float *mean,
                   const dlua_norm_gate *gate, double *sum, double *product);
  // y = x a[l] + b[l], with relu 0 where that is negative.
  void (*affine)(float *y, const float *x, int64_t count, const float *a, const float *b,
                 bool relu);
  // gx = g a[l] + x b[l] + c[l], with g 0 where the gate is closed.
  void (*affine2)(float *gx, const float *g, const float *x, int64_t count, const float *a,
                  const float *b, const float *c, const dlua_norm_gate *gate);
  // The same for up to DLUA_NORM_STRIP columns side by side, their rows stride floats apart: entry
  // k of every vector belongs to column k.
  void (*column_moments)(const float *x, int64_t rows, int64_t stride, int64_t n,
                         const float *shift, double *sum, double *squares);
  void (*column_products)(const float *g, const float *x, int64_t rows, int64_t stride, int64_t n,
                          const float *mean, const dlua_norm_gate *gate, double *sum,
                          double *product);
  void (*column_affine)(float *y, const float *x, int64_t rows, int64_t stride, int64_t n,
                        const float *a, const float *b, bool relu);
  void (*column_affine2)(float *gx, const float *g, const float *x, int64_t rows, int64_t stride,
                         int64_t n, const float *a, const float *b, const float *c,
                         const dlua_norm_gate *gate);
} dlua_norm_kernels;

extern const dlua_norm_kernels dlua_norm_base;
extern const dlua_norm_kernels dlua_norm_avx2, dlua_norm_avx512; // x86-64 only

// The set of the instruction set in use.
const dlua_norm_kernels *dlua_norm_simd(void);

#endif
