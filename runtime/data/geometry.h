// geometry.h - where the pixels of resized and turned pictures come from, and how they are weighted:
// what the transforms of a loader and the kernels of the op augment have in common. Compiled without
// fused products; what libraries calculate differently is a series of its own.
#ifndef DLUA_GEOMETRY_H
#define DLUA_GEOMETRY_H

#include "draw.h"

// ---------------------------------------------------------------- between pixels

// Pixels first … first + count - 1 of a line under a triangle of half width support around center,
// where pixel k has its centre at k + 0.5; total of their heights.
typedef struct dlua_taps {
  int64_t first, count;
  double center, support;
  float total;
} dlua_taps;

DLUA_INLINE float dlua_tap_height(const dlua_taps *t, int64_t k) {
  double distance = fabs((double)k + 0.5 - t->center) / t->support;
  return (float)(distance < 1 ? 1 - distance : 0);
}

DLUA_INLINE float dlua_tap_weight(const dlua_taps *t, int64_t k) {
  return dlua_tap_height(t, k) / t->total;
}

DLUA_INLINE dlua_taps dlua_taps_under(double center, double support, int64_t first, int64_t count) {
  dlua_taps t = {first, count, center, support, 0};
  double total = 0;
  for (int64_t k = first; k < first + count; k++) total += dlua_tap_height(&t, k);
  t.total = (float)total;
  return t;
}

// For pixel i of a line of `to` that a line of `from` becomes. When it shrinks, the triangle widens to
// cover all that the pixel stands for.
DLUA_INLINE dlua_taps dlua_taps_resized(int64_t i, int64_t from, int64_t to) {
  double scale = (double)from / (double)to, support = scale > 1 ? scale : 1;
  double center = ((double)i + 0.5) * scale;
  int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
  first = first < 0 ? 0 : first, end = end > from ? from : end;
  return dlua_taps_under(center, support, first, end - first);
}

// For a place between two pixels, which may lie beyond the line.
DLUA_INLINE dlua_taps dlua_taps_between(double at) {
  return dlua_taps_under(at + 0.5, 1, (int64_t)floor(at), 2);
}

// The size that DLUA_T_RESIZE with numbers p gives a picture of h x w.
DLUA_INLINE void dlua_resized(const double *p, int64_t *h, int64_t *w) {
  int64_t size = (int64_t)p[0], height = *h, width = *w;
  bool shorter = p[1] == 0; // the shorter side becomes size, the other keeps its proportion
  *h = !shorter || height <= width ? size : size * height / width;
  *w = !shorter ? (int64_t)p[1] : height <= width ? size * width / height : size;
}

// ---------------------------------------------------------------- affine maps

// The inverse of rotation times shear times scale, around the centre.
typedef struct dlua_affine {
  double a, b, c, d, scale, center[2], shift[2];
} dlua_affine;

// Sine and cosine of an angle in degrees, exact at the quarters: a series at what is left of the
// nearest of them.
DLUA_INLINE void dlua_sine_cosine(double degrees, double *sine, double *cosine) {
  double quarters = rint(degrees / 90);
  double x = fma(-90, quarters, degrees) * 0x1.1df46a2529d39p-6, s = 1, c = 1;
  for (int n = 15; n >= 3; n -= 2) s = fma(s, -x * x * (1.0 / (n * (n - 1))), 1);
  for (int n = 16; n >= 2; n -= 2) c = fma(c, -x * x * (1.0 / (n * (n - 1))), 1);
  s *= x;
  double turn = quarters - 4 * floor(quarters / 4);
  bool odd = turn == 1 || turn == 3;
  *sine = (odd ? c : s) * (turn >= 2 ? -1 : 1);
  *cosine = (odd ? s : c) * (turn == 1 || turn == 2 ? -1 : 1);
}

// p: as kinds.h lists them; for a picture of h x w.
DLUA_INLINE dlua_affine dlua_affine_draw(const double *p, dlua_words *words, int64_t h, int64_t w) {
  dlua_affine m;
  double sine, cosine, rise, run;
  dlua_sine_cosine(dlua_draw_between(words, p[0], p[1]), &sine, &cosine);
  m.shift[0] = rint(dlua_draw_between(words, -p[2], p[2]) * (double)h);
  m.shift[1] = rint(dlua_draw_between(words, -p[3], p[3]) * (double)w);
  m.center[0] = (double)(h - 1) / 2, m.center[1] = (double)(w - 1) / 2;
  m.scale = dlua_draw_between(words, p[4], p[5]);
  dlua_sine_cosine(dlua_draw_between(words, p[6], p[7]), &rise, &run);
  double shear = rise / run;
  m.a = cosine, m.b = -cosine * shear - sine, m.c = sine, m.d = cosine - sine * shear;
  return m;
}

// Where place (y, x) of the result comes from.
DLUA_INLINE void dlua_affine_back(const dlua_affine *m, int64_t y, int64_t x, double *from) {
  double oy = ((double)y - m->center[0] - m->shift[0]) / m->scale;
  double ox = ((double)x - m->center[1] - m->shift[1]) / m->scale;
  from[0] = m->a * oy - m->c * ox + m->center[0];
  from[1] = m->d * ox - m->b * oy + m->center[1];
}

// The pixel of a line of n next to a place; -1: outside.
DLUA_INLINE int64_t dlua_nearest(double at, int64_t n) {
  double k = floor(at + 0.5);
  return k >= 0 && k < (double)n ? (int64_t)k : -1;
}

// Whether a place lies between pixels one of which is on a line of n.
DLUA_INLINE bool dlua_touches(double at, int64_t n) { return at > -1 && at < (double)n; }

#endif
