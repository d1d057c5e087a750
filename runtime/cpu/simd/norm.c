// norm.c - the loops of norm.h for one instruction set. Sums run in float over short stretches and
// in double across them, so that a sum of millions of values keeps its digits.
#include "../norm.h"

enum { LANES = DLUA_NORM_LANES, STRETCH = 64 * LANES };

#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)

static void moments(const float *x, int64_t count, const float *shift, double *sum,
                    double *squares) {
  for (int64_t from = 0; from < count; from += STRETCH) {
    int64_t n = count - from < STRETCH ? count - from : STRETCH, k = 0;
    float s[LANES] = {0}, q[LANES] = {0};
    for (; k + LANES <= n; k += LANES) {
      for (int l = 0; l < LANES; l++) {
        float d = x[from + k + l] - shift[l];
        s[l] += d, q[l] += d * d;
      }
    }
    for (int l = 0; k + l < n; l++) {
      float d = x[from + k + l] - shift[l];
      s[l] += d, q[l] += d * d;
    }
    for (int l = 0; l < LANES; l++) sum[l] += s[l], squares[l] += q[l];
  }
}

static void products(const float *g, const float *x, int64_t count, const float *mean, double *sum,
                     double *product) {
  for (int64_t from = 0; from < count; from += STRETCH) {
    int64_t n = count - from < STRETCH ? count - from : STRETCH, k = 0;
    float s[LANES] = {0}, p[LANES] = {0};
    for (; k + LANES <= n; k += LANES) {
      for (int l = 0; l < LANES; l++) {
        float v = g[from + k + l];
        s[l] += v, p[l] += v * (x[from + k + l] - mean[l]);
      }
    }
    for (int l = 0; k + l < n; l++) {
      float v = g[from + k + l];
      s[l] += v, p[l] += v * (x[from + k + l] - mean[l]);
    }
    for (int l = 0; l < LANES; l++) sum[l] += s[l], product[l] += p[l];
  }
}

static void affine(float *restrict y, const float *restrict x, int64_t count, const float *a,
                   const float *b) {
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    for (int l = 0; l < LANES; l++) y[k + l] = x[k + l] * a[l] + b[l];
  }
  for (int l = 0; k + l < count; l++) y[k + l] = x[k + l] * a[l] + b[l];
}

static void affine2(float *restrict gx, const float *restrict g, const float *restrict x,
                    int64_t count, const float *a, const float *b, const float *c) {
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    for (int l = 0; l < LANES; l++) gx[k + l] = g[k + l] * a[l] + (x[k + l] * b[l] + c[l]);
  }
  for (int l = 0; k + l < count; l++) gx[k + l] = g[k + l] * a[l] + (x[k + l] * b[l] + c[l]);
}

// ---------------------------------------------------------------- columns

enum { STRIP = DLUA_NORM_STRIP, ROWS = 64 };

static void add_columns(double *sum, const float *s, int64_t n) {
  for (int64_t k = 0; k < n; k++) sum[k] += s[k];
}

static void column_moments(const float *x, int64_t rows, int64_t stride, int64_t n,
                           const float *shift, double *sum, double *squares) {
  for (int64_t from = 0; from < rows; from += ROWS) {
    float s[STRIP] = {0}, q[STRIP] = {0};
    for (int64_t r = from; r < rows && r < from + ROWS; r++) {
      for (int64_t k = 0; k < n; k++) {
        float d = x[r * stride + k] - shift[k];
        s[k] += d, q[k] += d * d;
      }
    }
    add_columns(sum, s, n), add_columns(squares, q, n);
  }
}

static void column_products(const float *g, const float *x, int64_t rows, int64_t stride, int64_t n,
                            const float *mean, double *sum, double *product) {
  for (int64_t from = 0; from < rows; from += ROWS) {
    float s[STRIP] = {0}, p[STRIP] = {0};
    for (int64_t r = from; r < rows && r < from + ROWS; r++) {
      for (int64_t k = 0; k < n; k++) {
        float v = g[r * stride + k];
        s[k] += v, p[k] += v * (x[r * stride + k] - mean[k]);
      }
    }
    add_columns(sum, s, n), add_columns(product, p, n);
  }
}

static void column_affine(float *restrict y, const float *restrict x, int64_t rows, int64_t stride,
                          int64_t n, const float *restrict a, const float *restrict b) {
  for (int64_t r = 0; r < rows; r++, x += stride, y += stride) {
    for (int64_t k = 0; k < n; k++) y[k] = x[k] * a[k] + b[k];
  }
}

static void column_affine2(float *restrict gx, const float *restrict g, const float *restrict x,
                           int64_t rows, int64_t stride, int64_t n, const float *restrict a,
                           const float *restrict b, const float *restrict c) {
  for (int64_t r = 0; r < rows; r++, x += stride, g += stride, gx += stride) {
    for (int64_t k = 0; k < n; k++) gx[k] = g[k] * a[k] + (x[k] * b[k] + c[k]);
  }
}

const dlua_norm_kernels NAMED(dlua_norm_, DLUA_ISA) = {
    moments,        products,        affine,        affine2,
    column_moments, column_products, column_affine, column_affine2};
