// erase.h - where random erasing puts its box (Zhong et al., "Random Erasing Data Augmentation", 2017):
// what the transform of a loader and the kernels of the op augment have in common.
//
// The same box comes out wherever it is compiled: sums of products are written as fma, and exp is a
// series of its own.
#ifndef DLUA_ERASE_H
#define DLUA_ERASE_H

#include "draw.h"

// Rows top … top + h - 1 and columns left … left + w - 1, none where h is 0. words: how many random
// words were drawn for it; noise takes those that follow, a word for each element, channel by channel.
typedef struct dlua_box {
  int64_t top, left, h, w;
  uint32_t words;
} dlua_box;

// e to the x: 2^k times the series at what is left, which lies within ±log(2) / 2. Beyond ±1000 it is
// infinity or 0 long since; NaN counts as -1000.
DLUA_INLINE double dlua_exp_f64(double x) {
  x = fmin(fmax(x, -1000), 1000);
  double k = rint(x * 1.4426950408889634);
  double r = fma(-k, 0x1.abc9e3b39803fp-56, fma(-k, 0x1.62e42fefa39efp-1, x));
  double sum = 1;
  for (int n = 13; n >= 1; n--) sum = fma(sum * r, 1.0 / n, 1);
  return ldexp(sum, (int)k);
}

// Up to ten tries for a box that fits into a picture of height x width. p: as kinds.h lists them.
DLUA_INLINE dlua_box dlua_draw_box(const double *p, dlua_words *w, int64_t height, int64_t width) {
  dlua_box none = {0, 0, 0, 0, 0};
  if (!dlua_draw_chance(w, p[0])) return none;
  for (int attempt = 0; attempt < 10; attempt++) {
    double area = dlua_draw_between(w, p[1], p[2]);
    double ratio = dlua_exp_f64(dlua_draw_between(w, p[3], p[4]));
    area *= (double)(height * width);
    double h = rint(sqrt(area * ratio)), columns = rint(sqrt(area / ratio));
    if (!(h >= 1 && h < (double)height && columns >= 1 && columns < (double)width)) continue;
    dlua_box box = {0, 0, (int64_t)h, (int64_t)columns, 0};
    box.top = dlua_draw_below(w, height - box.h + 1);
    box.left = dlua_draw_below(w, width - box.w + 1);
    box.words = w->next;
    return box;
  }
  return none;
}

// What noise puts at an element of the box, counted in rows: a level, or a float in 0..1.
DLUA_INLINE float dlua_noise(const dlua_words *w, const dlua_box *box, int64_t channel,
                             int64_t element, int levels) {
  float u = dlua_unit_f32(dlua_word_at(w, box->words + channel * box->h * box->w + element));
  return levels ? (float)(uint8_t)(256 * u) : u;
}

#endif
