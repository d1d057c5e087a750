// channel_rows.h - the inner loops over NHWC activations: rows (pixels) of c channels side by side,
// of f32 or bf16, compiled once per instruction set (simd/channel_rows.c). All arithmetic is f32's;
// bf16 is widened and rounded in registers.
#ifndef DLUA_CHANNEL_ROWS_H
#define DLUA_CHANNEL_ROWS_H

#include <stdbool.h>

#include "max_pool.h"
#include "norm.h"

// Vectors that have an entry per channel are padded to a multiple of these.
enum { DLUA_ROW_LANES = 16 };

static inline int64_t dlua_row_padded(int64_t channels) {
  return (channels + DLUA_ROW_LANES - 1) / DLUA_ROW_LANES * DLUA_ROW_LANES;
}

// half: x, g and results are bf16, else f32. Sums are f32 over up to 64 rows and double across them:
// the bits are the same where a multiple of 64 rows is given at a time.
typedef struct dlua_row_kernels {
  // sum[k] += x - shift[k], squares[k] += (x - shift[k])².
  void (*moments)(const void *x, bool half, int64_t rows, int64_t c, const float *shift,
                  double *sum, double *squares);
  // sum[k] += g, product[k] += g (x - mean[k]), with g 0 where the gate is closed.
  void (*products)(const void *g, const void *x, bool half, int64_t rows, int64_t c,
                   const float *mean, const dlua_norm_gate *gate, double *sum, double *product);
  // sum[k] += x.
  void (*sums)(const void *x, bool half, int64_t rows, int64_t c, double *sum);
  // y = x a[k] + b[k], with relu 0 where that is negative.
  void (*affine)(void *y, const void *x, bool half, int64_t rows, int64_t c, const float *a,
                 const float *b, bool relu);
  // gx = g a[k] + x b[k] + d[k], with g 0 where the gate is closed.
  void (*affine2)(void *gx, const void *g, const void *x, bool half, int64_t rows, int64_t c,
                  const float *a, const float *b, const float *d, const dlua_norm_gate *gate);
  // Row i of the result of pooling one image: y and the 1-based places of the maxima (max_pool.h).
  void (*max)(const dlua_pool_plane *p, int64_t i, const void *x, bool half, int64_t c, void *y,
              int32_t *where);
} dlua_row_kernels;

extern const dlua_row_kernels dlua_rows_base;
extern const dlua_row_kernels dlua_rows_avx2, dlua_rows_avx512; // x86-64 only

// The set of the instruction set in use.
const dlua_row_kernels *dlua_row_simd(void);

#endif
