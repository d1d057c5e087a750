// norm.c - the loops of norm.h for one instruction set. Sums run in float over short stretches and
// in double across them, so that a sum of millions of values keeps its digits.
#include "../norm.h"

#include <stddef.h>

enum { LANES = DLUA_NORM_LANES, STRETCH = 64 * LANES };

#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)
#define INLINE static inline __attribute__((always_inline))

// g, or 0 where the gate of lane l is closed.
INLINE float let(const dlua_norm_gate *gate, float g, float x, int64_t l) {
  if (!gate) return g;
  return x * gate->scale[l] + gate->offset[l] > 0 ? g : 0;
}

INLINE float held(float y, bool relu) { return relu && y < 0 ? 0 : y; }

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

INLINE void products_of(const float *g, const float *x, int64_t count, const float *mean,
                        const dlua_norm_gate *gate, double *sum, double *product) {
  for (int64_t from = 0; from < count; from += STRETCH) {
    int64_t n = count - from < STRETCH ? count - from : STRETCH, k = 0;
    float s[LANES] = {0}, p[LANES] = {0};
    for (; k + LANES <= n; k += LANES) {
      for (int l = 0; l < LANES; l++) {
        float u = x[from + k + l], v = let(gate, g[from + k + l], u, l);
        s[l] += v, p[l] += v * (u - mean[l]);
      }
    }
    for (int l = 0; k + l < n; l++) {
      float u = x[from + k + l], v = let(gate, g[from + k + l], u, l);
      s[l] += v, p[l] += v * (u - mean[l]);
    }
    for (int l = 0; l < LANES; l++) sum[l] += s[l], product[l] += p[l];
  }
}

static void products(const float *g, const float *x, int64_t count, const float *mean,
                     const dlua_norm_gate *gate, double *sum, double *product) {
  if (gate)
    products_of(g, x, count, mean, &(dlua_norm_gate){gate->scale, gate->offset}, sum, product);
  else
    products_of(g, x, count, mean, NULL, sum, product);
}

INLINE void affine_of(float *restrict y, const float *restrict x, int64_t count, const float *a,
                      const float *b, bool relu) {
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    for (int l = 0; l < LANES; l++) y[k + l] = held(x[k + l] * a[l] + b[l], relu);
  }
  for (int l = 0; k + l < count; l++) y[k + l] = held(x[k + l] * a[l] + b[l], relu);
}

static void affine(float *y, const float *x, int64_t count, const float *a, const float *b,
                   bool relu) {
  if (relu)
    affine_of(y, x, count, a, b, true);
  else
    affine_of(y, x, count, a, b, false);
}

INLINE void affine2_of(float *restrict gx, const float *restrict g, const float *restrict x,
                       int64_t count, const float *a, const float *b, const float *c,
                       const dlua_norm_gate *gate) {
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    for (int l = 0; l < LANES; l++)
      gx[k + l] = let(gate, g[k + l], x[k + l], l) * a[l] + (x[k + l] * b[l] + c[l]);
  }
  for (int l = 0; k + l < count; l++)
    gx[k + l] = let(gate, g[k + l], x[k + l], l) * a[l] + (x[k + l] * b[l] + c[l]);
}

static void affine2(float *gx, const float *g, const float *x, int64_t count, const float *a,
                    const float *b, const float *c, const dlua_norm_gate *gate) {
  if (gate)
    affine2_of(gx, g, x, count, a, b, c, &(dlua_norm_gate){gate->scale, gate->offset});
  else
    affine2_of(gx, g, x, count, a, b, c, NULL);
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
                            const float *mean, const dlua_norm_gate *gate, double *sum,
                            double *product) {
  for (int64_t from = 0; from < rows; from += ROWS) {
    float s[STRIP] = {0}, p[STRIP] = {0};
    for (int64_t r = from; r < rows && r < from + ROWS; r++) {
      for (int64_t k = 0; k < n; k++) {
        float u = x[r * stride + k], v = let(gate, g[r * stride + k], u, k);
        s[k] += v, p[k] += v * (u - mean[k]);
      }
    }
    add_columns(sum, s, n), add_columns(product, p, n);
  }
}

static void column_affine(float *restrict y, const float *restrict x, int64_t rows, int64_t stride,
                          int64_t n, const float *restrict a, const float *restrict b, bool relu) {
  for (int64_t r = 0; r < rows; r++, x += stride, y += stride) {
    for (int64_t k = 0; k < n; k++) y[k] = held(x[k] * a[k] + b[k], relu);
  }
}

static void column_affine2(float *restrict gx, const float *restrict g, const float *restrict x,
                           int64_t rows, int64_t stride, int64_t n, const float *restrict a,
                           const float *restrict b, const float *restrict c,
                           const dlua_norm_gate *gate) {
  for (int64_t r = 0; r < rows; r++, x += stride, g += stride, gx += stride) {
    for (int64_t k = 0; k < n; k++) gx[k] = let(gate, g[k], x[k], k) * a[k] + (x[k] * b[k] + c[k]);
  }
}

const dlua_norm_kernels NAMED(dlua_norm_, DLUA_ISA) = {
    moments,        products,        affine,        affine2,
    column_moments, column_products, column_affine, column_affine2};
