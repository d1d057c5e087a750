// fold.h - the inner loops of reductions, softmax and random numbers, compiled once per instruction
// set. All take contiguous f32 rows; lanes are summed in an order that is the same for every set.
#ifndef DLUA_FOLD_H
#define DLUA_FOLD_H

#include <stdint.h>

// Rows that add_rows adds in f32 before it adds to its sums: the bits are the same where it is
// called with a multiple of it at a time.
enum { DLUA_FOLD_DEPTH = 64 };

typedef struct dlua_fold_kernels {
  double (*sum)(const float *x, int64_t n);
  double (*sum_squares)(const float *x, int64_t n, float centre); // of x - centre
  double (*sum_squared_differences)(const float *x, const float *y, int64_t n);
  // sums[k] += x[k] + x[stride + k] + … over that many rows, k < n.
  void (*add_rows)(double *sums, const float *x, int64_t rows, int64_t stride, int64_t n);
  float (*max)(const float *x, int64_t n); // n > 0; nan when there is one
  float (*min)(const float *x, int64_t n);
  // The largest x into top, the result is log(sum(exp(x - top))); n > 0.
  double (*log_sum_exp)(const float *x, int64_t n, float *top);
  // y = scale * softmax(x); y may be x.
  void (*softmax)(float *y, const float *x, int64_t n, float scale);
  void (*log_softmax)(float *y, const float *x, int64_t n);
  // The same for up to sixteen columns side by side, of count entries that are stride apart: their
  // largest entries and the sums of exp(x - largest); y = scale * softmax(x). Arrays have 16
  // entries.
  void (*column_sums)(const float *x, int64_t count, int64_t stride, int64_t n, float *tops,
                      float *sums);
  void (*softmax_columns)(float *y, const float *x, int64_t count, int64_t stride, int64_t n,
                          const float *scale);
  // gx = y (g - sum(g y)), and for the logarithm gx = g - exp(y) sum(g).
  void (*softmax_grad)(float *gx, const float *g, const float *y, int64_t n);
  void (*log_softmax_grad)(float *gx, const float *g, const float *y, int64_t n);
  // The same for n <= 16 columns side by side.
  void (*softmax_grad_columns)(float *gx, const float *g, const float *y, int64_t count,
                               int64_t stride, int64_t n);
  void (*log_softmax_grad_columns)(float *gx, const float *g, const float *y, int64_t count,
                                   int64_t stride, int64_t n);
  // The four lanes of these Philox blocks (key, stream 0), one after the other.
  void (*philox)(uint32_t *bits, uint64_t key, uint64_t first, int64_t blocks);
  // n numbers from n random words each; n is even for normals.
  void (*uniform)(float *y, const uint32_t *bits, int64_t n, float low, float span);
  void (*normal)(float *y, const uint32_t *bits, int64_t n, float mean, float std);
  // Keeps x * scale where the word's upper 24 bits reach threshold, else 0; mask says which.
  void (*dropout)(float *y, uint8_t *mask, const float *x, const uint32_t *bits, int64_t n,
                  uint32_t threshold, float scale);
} dlua_fold_kernels;

// The best set this CPU runs; chosen at the first call.
const dlua_fold_kernels *dlua_fold_simd(void);

#endif
