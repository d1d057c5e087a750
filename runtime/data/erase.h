// erase.h - where random erasing puts its box (Zhong et al., "Random Erasing Data Augmentation", 2017):
// what the transform of a loader and the kernels of the op augment have in common.
//
// The same box comes out wherever it is compiled: sums of products are written as fma, and exp is a
// series of its own.
#ifndef DLUA_ERASE_H
#define DLUA_ERASE_H

#include <math.h>

#include "window.h"

// How often, how large a part of the picture, and of which shapes: log(h / w).
typedef struct dlua_erasing {
  double chance, area[2], log_ratio[2];
} dlua_erasing;

// Rows top … top + h - 1 and columns left … left + w - 1, none where h is 0. words: how many random
// words were drawn for it; noise takes those that follow, a word for each element, channel by channel.
typedef struct dlua_box {
  int64_t top, left, h, w;
  uint32_t words;
} dlua_box;

// The draws that one transform makes for one picture, in order.
typedef struct dlua_words {
  uint64_t key, sample;
  uint32_t epoch, step, next;
  dlua_block block;
} dlua_words;

DLUA_INLINE uint32_t dlua_next_word(dlua_words *w) {
  if (w->next % 4 == 0)
    w->block = dlua_transform_draw(w->key, w->sample, w->epoch, w->step, w->next / 4);
  return w->block.lane[w->next++ % 4];
}

// A word of the draws by its number.
DLUA_INLINE uint32_t dlua_word_at(const dlua_words *w, int64_t number) {
  return dlua_transform_draw(w->key, w->sample, w->epoch, w->step, (uint32_t)(number / 4))
      .lane[number % 4];
}

DLUA_INLINE double dlua_between(double lo, double hi, uint32_t bits) {
  return fma(hi - lo, (double)dlua_unit_f32(bits), lo);
}

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

// Up to ten tries for a box that fits into a picture of height x width.
DLUA_INLINE dlua_box dlua_draw_box(const dlua_erasing *e, dlua_words *w, int64_t height,
                                   int64_t width) {
  dlua_box none = {0, 0, 0, 0, 0};
  if (!((double)dlua_unit_f32(dlua_next_word(w)) < e->chance)) return none;
  for (int attempt = 0; attempt < 10; attempt++) {
    double area = dlua_between(e->area[0], e->area[1], dlua_next_word(w));
    double ratio = dlua_exp_f64(dlua_between(e->log_ratio[0], e->log_ratio[1], dlua_next_word(w)));
    area *= (double)(height * width);
    double h = rint(sqrt(area * ratio)), columns = rint(sqrt(area / ratio));
    if (!(h >= 1 && h < (double)height && columns >= 1 && columns < (double)width)) continue;
    dlua_box box = {0, 0, (int64_t)h, (int64_t)columns, 0};
    box.top = dlua_draw_below(dlua_next_word(w), height - box.h + 1);
    box.left = dlua_draw_below(dlua_next_word(w), width - box.w + 1);
    box.words = w->next;
    return box;
  }
  return none;
}

#endif
