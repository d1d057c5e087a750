// channel_rows.c - the loops of channel_rows.h for one instruction set. Sixteen channels are a vector;
// sums keep those of two vectors in registers while they go from pixel to pixel, so a stretch of
// pixels should stay in the nearest cache.
#include "../channel_rows.h"

#include <math.h>
#include <stddef.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// Vectors are passed between inlined functions only.
#pragma GCC diagnostic ignored "-Wpsabi"

#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(32), aligned(2), may_alias));
enum { LANES = DLUA_ROW_LANES, STRETCH = 64 };

// ---------------------------------------------------------------- vectors of either type

INLINE vec widen(hvec h) { return (vec)(__builtin_convertvector(h, uvec) << 16); }

// To nearest, ties to even; nan stays nan.
INLINE hvec narrow(vec v) {
  uvec bits = (uvec)v, upper = bits >> 16;
  uvec rounded = (bits + 0x7FFFu + (upper & 1)) >> 16, nan = (uvec)(v != v);
  return __builtin_convertvector((rounded & ~nan) | ((upper | 0x40u) & nan), hvec);
}

// The first n < 16 elements, the other lanes 0.
INLINE hvec load_halves(const uint16_t *x, int64_t n) {
#ifdef __AVX512F__
  return (hvec)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), x);
#else
  uint16_t lanes[LANES] = {0};
  for (int64_t l = 0; l < n; l++) lanes[l] = x[l];
  return *(const hvec *)lanes;
#endif
}

INLINE vec load_floats(const float *x, int64_t n) {
#ifdef __AVX512F__
  return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x);
#else
  float lanes[LANES] = {0};
  for (int64_t l = 0; l < n; l++) lanes[l] = x[l];
  return *(const vec *)lanes;
#endif
}

INLINE void store_halves(uint16_t *y, hvec v, int64_t n) {
#ifdef __AVX512F__
  _mm256_mask_storeu_epi16(y, (__mmask16)((1u << n) - 1), (__m256i)v);
#else
  for (int64_t l = 0; l < n; l++) y[l] = v[l];
#endif
}

INLINE void store_floats(float *y, vec v, int64_t n) {
#ifdef __AVX512F__
  _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  for (int64_t l = 0; l < n; l++) y[l] = v[l];
#endif
}

INLINE void store_places(int32_t *y, ivec v, int64_t n) {
#ifdef __AVX512F__
  _mm512_mask_storeu_epi32(y, (__mmask16)((1u << n) - 1), (__m512i)v);
#else
  for (int64_t l = 0; l < n; l++) y[l] = v[l];
#endif
}

// Elements at .. at + n of x, n <= 16, the other lanes 0.
INLINE vec load(const void *x, bool half, int64_t at, int64_t n) {
  const uint16_t *h = (const uint16_t *)x + at;
  const float *f = (const float *)x + at;
  if (half) return widen(n == LANES ? *(const hvec *)h : load_halves(h, n));
  return n == LANES ? *(const vec *)f : load_floats(f, n);
}

INLINE void store(void *y, bool half, int64_t at, int64_t n, vec v) {
  uint16_t *h = (uint16_t *)y + at;
  float *f = (float *)y + at;
  if (half && n == LANES)
    *(hvec *)h = narrow(v);
  else if (half)
    store_halves(h, narrow(v), n);
  else if (n == LANES)
    *(vec *)f = v;
  else
    store_floats(f, v, n);
}

INLINE vec entries(const float *per_channel, int64_t k) { return *(const vec *)(per_channel + k); }

// g, or 0 where the gates of these channels are closed.
INLINE vec let(const dlua_norm_gate *gate, vec g, vec x, int64_t k) {
  if (!gate) return g;
  return (vec)((ivec)g & (x * entries(gate->scale, k) + entries(gate->offset, k) > 0));
}

INLINE void add(double *sum, vec v) {
  for (int l = 0; l < LANES; l++) sum[l] += v[l];
}

// ---------------------------------------------------------------- sums

// Which sums: of x, with those of squares, or with those of products with g.
typedef enum kind { SUMS, MOMENTS, PRODUCTS } kind;

// Channels k .. of up to 64 rows; groups: 2 vectors or 1, the last of n channels.
INLINE void sum_strip(kind kind, const void *g, const void *x, bool half, int64_t rows, int64_t c,
                      int64_t k, int groups, int64_t n, const float *shift,
                      const dlua_norm_gate *gate, double *first, double *second) {
  vec s[2] = {{0}, {0}}, q[2] = {{0}, {0}}, centre[2] = {{0}, {0}};
  for (int i = 0; i < groups && kind != SUMS; i++) centre[i] = entries(shift, k + i * LANES);
  for (int64_t r = 0; r < rows; r++) {
    for (int i = 0; i < groups; i++) {
      int64_t at = r * c + k + i * LANES;
      vec u = load(x, half, at, n), d = u - centre[i];
      vec v = kind == PRODUCTS ? let(gate, load(g, half, at, n), u, k + i * LANES) : d;
      s[i] += v;
      if (kind != SUMS) q[i] += v * d;
    }
  }
  for (int i = 0; i < groups; i++) {
    add(first + k + i * LANES, s[i]);
    if (kind != SUMS) add(second + k + i * LANES, q[i]);
  }
}

INLINE void sum_rows(kind kind, const void *g, const void *x, bool half, int64_t rows, int64_t c,
                     const float *shift, const dlua_norm_gate *gate, double *first,
                     double *second) {
  size_t width = half ? sizeof(uint16_t) : sizeof(float);
  for (int64_t from = 0; from < rows; from += STRETCH) {
    int64_t count = rows - from < STRETCH ? rows - from : STRETCH, k = 0;
    const char *xs = (const char *)x + (size_t)(from * c) * width;
    const char *gs = kind == PRODUCTS ? (const char *)g + (size_t)(from * c) * width : NULL;
    for (; k + 2 * LANES <= c; k += 2 * LANES)
      sum_strip(kind, gs, xs, half, count, c, k, 2, LANES, shift, gate, first, second);
    if (k + LANES <= c) {
      sum_strip(kind, gs, xs, half, count, c, k, 1, LANES, shift, gate, first, second);
      k += LANES;
    }
    if (k < c) sum_strip(kind, gs, xs, half, count, c, k, 1, c - k, shift, gate, first, second);
  }
}

static void moments(const void *x, bool half, int64_t rows, int64_t c, const float *shift,
                    double *sum, double *squares) {
  if (half)
    sum_rows(MOMENTS, NULL, x, true, rows, c, shift, NULL, sum, squares);
  else
    sum_rows(MOMENTS, NULL, x, false, rows, c, shift, NULL, sum, squares);
}

static void products(const void *g, const void *x, bool half, int64_t rows, int64_t c,
                     const float *mean, const dlua_norm_gate *gate, double *sum, double *product) {
  if (half && gate)
    sum_rows(PRODUCTS, g, x, true, rows, c, mean, gate, sum, product);
  else if (half)
    sum_rows(PRODUCTS, g, x, true, rows, c, mean, NULL, sum, product);
  else if (gate)
    sum_rows(PRODUCTS, g, x, false, rows, c, mean, gate, sum, product);
  else
    sum_rows(PRODUCTS, g, x, false, rows, c, mean, NULL, sum, product);
}

static void sums(const void *x, bool half, int64_t rows, int64_t c, double *sum) {
  if (half)
    sum_rows(SUMS, NULL, x, true, rows, c, NULL, NULL, sum, NULL);
  else
    sum_rows(SUMS, NULL, x, false, rows, c, NULL, NULL, sum, NULL);
}

// ---------------------------------------------------------------- results

INLINE void affine_at(void *y, const void *x, bool half, int64_t at, int64_t n, int64_t k,
                      const float *a, const float *b, bool relu) {
  vec v = load(x, half, at, n) * entries(a, k) + entries(b, k);
  store(y, half, at, n, relu ? (vec)((ivec)v & ~(v < 0)) : v);
}

INLINE void affine_of(void *y, const void *x, bool half, int64_t rows, int64_t c, const float *a,
                      const float *b, bool relu) {
  for (int64_t r = 0; r < rows; r++) {
    int64_t k = 0;
    for (; k + LANES <= c; k += LANES) affine_at(y, x, half, r * c + k, LANES, k, a, b, relu);
    if (k < c) affine_at(y, x, half, r * c + k, c - k, k, a, b, relu);
  }
}

static void affine(void *y, const void *x, bool half, int64_t rows, int64_t c, const float *a,
                   const float *b, bool relu) {
  if (half)
    affine_of(y, x, true, rows, c, a, b, relu);
  else
    affine_of(y, x, false, rows, c, a, b, relu);
}

INLINE void affine2_at(void *gx, const void *g, const void *x, bool half, int64_t at, int64_t n,
                       int64_t k, const float *a, const float *b, const float *d,
                       const dlua_norm_gate *gate) {
  vec u = load(x, half, at, n), part = u * entries(b, k) + entries(d, k);
  store(gx, half, at, n, let(gate, load(g, half, at, n), u, k) * entries(a, k) + part);
}

INLINE void affine2_of(void *gx, const void *g, const void *x, bool half, int64_t rows, int64_t c,
                       const float *a, const float *b, const float *d, const dlua_norm_gate *gate) {
  for (int64_t r = 0; r < rows; r++) {
    int64_t k = 0;
    for (; k + LANES <= c; k += LANES)
      affine2_at(gx, g, x, half, r * c + k, LANES, k, a, b, d, gate);
    if (k < c) affine2_at(gx, g, x, half, r * c + k, c - k, k, a, b, d, gate);
  }
}

static void affine2(void *gx, const void *g, const void *x, bool half, int64_t rows, int64_t c,
                    const float *a, const float *b, const float *d, const dlua_norm_gate *gate) {
  if (half)
    affine2_of(gx, g, x, true, rows, c, a, b, d, gate);
  else
    affine2_of(gx, g, x, false, rows, c, a, b, d, gate);
}

// ---------------------------------------------------------------- max pooling

// Taps from .. to of a window that starts at start lie inside 0..size.
typedef struct taps {
  int64_t from, to;
} taps;

INLINE taps inside(int64_t start, int64_t count, int64_t step, int64_t size) {
  taps t = {start < 0 ? (-start + step - 1) / step : 0, (size - start + step - 1) / step};
  if (start >= size) t.to = 0;
  if (t.to > count) t.to = count;
  return t;
}

// The first of equals wins, a nan over all.
INLINE void max_at(const dlua_pool_plane *p, int64_t top, int64_t left, taps rows, taps columns,
                   const void *x, bool half, int64_t c, int64_t k, int64_t n, void *y,
                   int32_t *where) {
  vec best = (vec){0} - INFINITY;
  ivec at = {0};
  for (int64_t u = rows.from; u < rows.to; u++) {
    for (int64_t v = columns.from; v < columns.to; v++) {
      int64_t pixel = (top + u * p->dh) * p->w + left + v * p->dw;
      vec value = load(x, half, pixel * c + k, n);
      ivec better = (value > best) | (value != value) | (at == 0);
      best = (vec)(((ivec)value & better) | ((ivec)best & ~better));
      at = (((ivec){0} + (int32_t)pixel + 1) & better) | (at & ~better);
    }
  }
  store(y, half, k, n, best);
  if (n == LANES)
    *(ivec *)(where + k) = at;
  else
    store_places(where + k, at, n);
}

INLINE void max_row(const dlua_pool_plane *p, int64_t i, const void *x, bool half, int64_t c,
                    void *y, int32_t *where) {
  size_t width = half ? sizeof(uint16_t) : sizeof(float);
  int64_t top = i * p->sh - p->ph;
  taps rows = inside(top, p->kh, p->dh, p->h);
  for (int64_t j = 0; j < p->ow; j++, y = (char *)y + (size_t)c * width, where += c) {
    int64_t left = j * p->sw - p->pw, k = 0;
    taps columns = inside(left, p->kw, p->dw, p->w);
    for (; k + LANES <= c; k += LANES)
      max_at(p, top, left, rows, columns, x, half, c, k, LANES, y, where);
    if (k < c) max_at(p, top, left, rows, columns, x, half, c, k, c - k, y, where);
  }
}

static void max(const dlua_pool_plane *p, int64_t i, const void *x, bool half, int64_t c, void *y,
                int32_t *where) {
  if (half)
    max_row(p, i, x, true, c, y, where);
  else
    max_row(p, i, x, false, c, y, where);
}

const dlua_row_kernels NAMED(dlua_rows_, DLUA_ISA) = {moments, products, sums,
                                                      affine,  affine2,  max};
