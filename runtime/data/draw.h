// draw.h - the random numbers that a transform takes for one picture: the same for the threads of a
// loader and for the kernels of the op augment.
#ifndef DLUA_DRAW_H
#define DLUA_DRAW_H

#include <math.h>
#include <stdbool.h>

#include "../rng.h"

// The words that one transform, counted from 0, draws for a picture in an epoch, in order.
typedef struct dlua_words {
  uint64_t key, sample;
  uint32_t epoch, step, next;
  dlua_block block;
} dlua_words;

DLUA_INLINE dlua_block dlua_words_block(const dlua_words *w, uint32_t block) {
  uint64_t high = (uint64_t)w->epoch << 32 | (uint64_t)w->step << 24 | block;
  return dlua_philox(w->key, 1, w->sample, high);
}

DLUA_INLINE uint32_t dlua_next_word(dlua_words *w) {
  if (w->next % 4 == 0) w->block = dlua_words_block(w, w->next / 4);
  return w->block.lane[w->next++ % 4];
}

// A word by its number.
DLUA_INLINE uint32_t dlua_word_at(const dlua_words *w, int64_t number) {
  return dlua_words_block(w, (uint32_t)(number / 4)).lane[number % 4];
}

// Whether what happens with this probability does.
DLUA_INLINE bool dlua_draw_chance(dlua_words *w, double chance) {
  return (double)dlua_unit_f32(dlua_next_word(w)) < chance;
}

// A number in [lo, hi); one of 0..n-1.
DLUA_INLINE double dlua_draw_between(dlua_words *w, double lo, double hi) {
  return fma(hi - lo, (double)dlua_unit_f32(dlua_next_word(w)), lo);
}
DLUA_INLINE int64_t dlua_draw_below(dlua_words *w, int64_t n) {
  return (int64_t)((double)dlua_unit_f32(dlua_next_word(w)) * (double)n);
}

#endif
