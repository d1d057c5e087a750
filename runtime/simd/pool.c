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
        int better = !(v[l] <= best[l]) | (at[l] == 0);
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

const dlua_pool_kernels NAMED(dlua_pool_, DLUA_ISA) = {max16, max8};
