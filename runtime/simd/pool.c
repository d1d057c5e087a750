// pool.c - max pooling of a plane of channel vectors (pool.h) for one instruction set.
#include "../pool.h"

#include <math.h>

#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)
#define INLINE static inline __attribute__((always_inline))

// The maximum of one window for each of the lanes; the first one wins, a NaN wins over all.
INLINE void max_window(const dlua_pool_plane *p, const float *x, int64_t top, int64_t left,
                       float *y, int32_t *where, int lanes) {
  float best[16];
  int32_t at[16];
  for (int l = 0; l < lanes; l++) best[l] = -INFINITY, at[l] = 0;
  for (int64_t i = 0; i < p->kh; i++) {
    int64_t row = top + i * p->dh;
    if (row < 0 || row >= p->h) continue;
    for (int64_t j = 0; j < p->kw; j++) {
      int64_t column = left + j * p->dw;
      if (column < 0 || column >= p->w) continue;
      int32_t place = (int32_t)(row * p->w + column + 1);
      const float *v = x + (place - 1) * lanes;
      for (int l = 0; l < lanes; l++) {
        int better = (v[l] > best[l]) | (v[l] != v[l]) | (at[l] == 0);
        best[l] = better ? v[l] : best[l];
        at[l] = better ? place : at[l];
      }
    }
  }
  for (int l = 0; l < lanes; l++) y[l] = best[l], where[l] = at[l];
}

INLINE void max_plane(const dlua_pool_plane *p, const float *x, float *y, int32_t *where,
                      int lanes) {
  for (int64_t i = 0; i < p->oh; i++) {
    for (int64_t j = 0; j < p->ow; j++, y += lanes, where += lanes) {
      max_window(p, x, i * p->sh - p->ph, j * p->sw - p->pw, y, where, lanes);
    }
  }
}

static void max16(const dlua_pool_plane *p, const float *x, float *y, int32_t *where) {
  max_plane(p, x, y, where, 16);
}
static void max8(const dlua_pool_plane *p, const float *x, float *y, int32_t *where) {
  max_plane(p, x, y, where, 8);
}

// One tap of n windows in a row, step apart in x; place: of the first, 1-based.
INLINE void max_tap(float *restrict y, int32_t *restrict where, const float *restrict x, int64_t n,
                    int64_t step, int32_t place) {
  for (int64_t j = 0; j < n; j++) {
    float v = x[j * step];
    int better = (v > y[j]) | (v != v) | (where[j] == 0);
    y[j] = better ? v : y[j];
    where[j] = better ? place + (int32_t)(j * step) : where[j];
  }
}

// Row by row of x under a row of windows: the windows whose tap (.., column) lies inside.
static void max_row(const dlua_pool_plane *p, const float *x, int64_t row, int64_t column, float *y,
                    int32_t *where) {
  int64_t first = column < 0 ? (-column + p->sw - 1) / p->sw : 0;
  int64_t end = column < p->w ? (p->w - 1 - column) / p->sw + 1 : 0;
  if (end > p->ow) end = p->ow;
  if (first >= end) return;
  int64_t at = row * p->w + column + first * p->sw;
  int32_t place = (int32_t)at + 1;
  y += first, where += first;
  if (p->sw == 2)
    max_tap(y, where, x + at, end - first, 2, place);
  else if (p->sw == 1)
    max_tap(y, where, x + at, end - first, 1, place);
  else
    max_tap(y, where, x + at, end - first, p->sw, place);
}

static void max1(const dlua_pool_plane *p, const float *x, float *y, int32_t *where) {
  for (int64_t i = 0; i < p->oh; i++, y += p->ow, where += p->ow) {
    for (int64_t j = 0; j < p->ow; j++) y[j] = -INFINITY, where[j] = 0;
    for (int64_t u = 0; u < p->kh; u++) {
      int64_t row = i * p->sh - p->ph + u * p->dh;
      for (int64_t v = 0; row >= 0 && row < p->h && v < p->kw; v++)
        max_row(p, x, row, v * p->dw - p->pw, y, where);
    }
  }
}

const dlua_pool_kernels NAMED(dlua_pool_, DLUA_ISA) = {max16, max8, max1};
