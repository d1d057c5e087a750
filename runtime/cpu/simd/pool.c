// pool.c - max pooling of a plane of channel vectors (max_pool.h) for one instruction set.
#include "../max_pool.h"

#include <math.h>
#include <stdbool.h>

#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
enum { LANES = 16 };

INLINE void take_larger(vec *best, ivec *at, vec v, ivec place) {
  ivec better = (v > *best) | (v != v) | (*at == 0);
  *best = (vec)(((ivec)v & better) | ((ivec)*best & ~better));
  *at = (place & better) | (*at & ~better);
}

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

// The same for sixteen lanes in one vector, which the compiler does not find by itself.
static void max16(const dlua_pool_plane *p, const float *x, float *y, int32_t *where) {
  for (int64_t i = 0; i < p->oh; i++) {
    for (int64_t j = 0; j < p->ow; j++, y += LANES, where += LANES) {
      vec best = {0};
      ivec at = {0};
      for (int64_t u = 0; u < p->kh; u++) {
        int64_t row = i * p->sh - p->ph + u * p->dh;
        for (int64_t v = 0; row >= 0 && row < p->h && v < p->kw; v++) {
          int64_t column = j * p->sw - p->pw + v * p->dw, at_pixel = row * p->w + column;
          if (column < 0 || column >= p->w) continue;
          take_larger(&best, &at, *(const vec *)(x + at_pixel * LANES),
                      (ivec){0} + (int32_t)at_pixel + 1);
        }
      }
      ivec none = at == 0;
      *(vec *)y = (vec)(((ivec)best & ~none) | ((ivec)((vec){0} - INFINITY) & none));
      *(ivec *)where = at;
    }
  }
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

// Two by two windows beside each other, all inside: what most networks ask for.
static int is_halving(const dlua_pool_plane *p) {
  return p->kh == 2 && p->kw == 2 && p->sh == 2 && p->sw == 2 && p->dh == 1 && p->dw == 1 &&
         p->ph == 0 && p->pw == 0 && 2 * p->oh <= p->h && 2 * p->ow <= p->w;
}

// Sixteen windows whose upper left corners are x[0], x[2], …; w floats to the row below. place: of
// x[0], 1-based.
INLINE void halve(const float *x, const float *below, int32_t w, int32_t place, vec *best,
                  ivec *at) {
  static const ivec steps = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  vec a = *(const vec *)x, b = *(const vec *)(x + LANES);
  vec c = *(const vec *)below, d = *(const vec *)(below + LANES);
  ivec even = steps, odd = steps + 1, first = steps + place;
  *best = __builtin_shuffle(a, b, even), *at = first;
  take_larger(best, at, __builtin_shuffle(a, b, odd), first + 1);
  take_larger(best, at, __builtin_shuffle(c, d, even), first + w);
  take_larger(best, at, __builtin_shuffle(c, d, odd), first + w + 1);
}

// Two vectors from x, of which left floats are there: x itself, or a padded copy.
INLINE const float *padded(const float *x, int64_t left, float *buffer) {
  if (left >= 2 * LANES) return x;
  for (int64_t k = 0; k < 2 * LANES; k++) buffer[k] = k < left ? x[k] : 0;
  return buffer;
}

// Vectors may reach into the next row of the plane, which is written later; those that would reach
// beyond the plane go through buffers.
static void max_halves(const dlua_pool_plane *p, const float *x, float *y, int32_t *where) {
  float upper[2 * LANES], lower[2 * LANES];
  int64_t in = p->h * p->w, out = p->oh * p->ow;
  for (int64_t i = 0; i < p->oh; i++) {
    for (int64_t j = 0; j < p->ow; j += LANES) {
      int64_t from = 2 * i * p->w + 2 * j, below = from + p->w, to = i * p->ow + j;
      vec best;
      ivec at;
      halve(padded(x + from, in - from, upper), padded(x + below, in - below, lower), (int32_t)p->w,
            (int32_t)from + 1, &best, &at);
      if (to + LANES <= out) {
        *(vec *)(y + to) = best, *(ivec *)(where + to) = at;
      } else {
        for (int64_t l = 0; l < out - to; l++) y[to + l] = best[l], where[to + l] = at[l];
      }
    }
  }
}

static void max1(const dlua_pool_plane *p, const float *x, float *y, int32_t *where) {
  if (is_halving(p)) {
    max_halves(p, x, y, where);
    return;
  }
  for (int64_t i = 0; i < p->oh; i++, y += p->ow, where += p->ow) {
    for (int64_t j = 0; j < p->ow; j++) y[j] = -INFINITY, where[j] = 0;
    for (int64_t u = 0; u < p->kh; u++) {
      int64_t row = i * p->sh - p->ph + u * p->dh;
      for (int64_t v = 0; row >= 0 && row < p->h && v < p->kw; v++)
        max_row(p, x, row, v * p->dw - p->pw, y, where);
    }
  }
}

// The largest of the lanes and n elements; *nan is set where one of them is none.
static void largest_lanes(const float *x, int64_t n, vec *lanes, bool *nan) {
  vec best = *lanes;
  ivec none = {0};
  int64_t k = 0;
  for (; k + LANES <= n; k += LANES) {
    vec v = *(const vec *)(x + k);
    ivec better = v > best;
    best = (vec)(((ivec)v & better) | ((ivec)best & ~better));
    none |= v != v;
  }
  for (int l = 0; l < LANES; l++) *nan |= none[l] != 0;
  for (; k < n; k++) {
    if (x[k] > best[0]) best[0] = x[k];
    *nan |= x[k] != x[k];
  }
  *lanes = best;
}

static int64_t first_of(const float *x, int64_t n, float value) {
  int64_t k = 0;
  while (k < n && x[k] != value) k++;
  return k;
}

static int64_t last_nan(const float *x, int64_t n) {
  int64_t k = n - 1;
  while (k >= 0 && x[k] == x[k]) k--;
  return k;
}

// The value first, then its place: the first of equals, of NaNs the last.
static float window(const float *x, int64_t w, int64_t rows, int64_t columns, int32_t *where) {
  vec lanes = (vec){0} - INFINITY;
  bool nan = false;
  if (columns == w) columns *= rows, rows = 1;
  for (int64_t i = 0; i < rows; i++) largest_lanes(x + i * w, columns, &lanes, &nan);
  float best = lanes[0];
  for (int l = 1; l < LANES; l++) best = lanes[l] > best ? lanes[l] : best;
  for (int64_t k = 0; k < rows; k++) {
    int64_t i = nan ? rows - 1 - k : k;
    int64_t j = nan ? last_nan(x + i * w, columns) : first_of(x + i * w, columns, best);
    if (j < 0 || j == columns) continue;
    *where = (int32_t)(i * w + j);
    return x[i * w + j];
  }
  return best;
}

const dlua_pool_kernels NAMED(dlua_pool_, DLUA_ISA) = {max16, max8, max1, window};
