// color.h - changes of colours in a drawn order, for one pixel: what the transform of a loader and the
// kernels of the op augment have in common. Compiled without fused products, as everything that is to
// give the same bits on every device.
//
// A pixel is three floats in 0..1, of which pictures with one channel use the first; values are
// clamped after each change.
#ifndef DLUA_COLOR_H
#define DLUA_COLOR_H

#include "draw.h"

enum { DLUA_BRIGHTNESS, DLUA_CONTRAST, DLUA_SATURATION, DLUA_HUE, DLUA_CHANGES };

// What is drawn for a picture: which changes to make, in order. Those before place `contrast` make
// the pixels whose mean that one needs; it is `count` where there is none.
typedef struct dlua_jitter {
  int count, contrast, change[DLUA_CHANGES];
  float amount[DLUA_CHANGES];
} dlua_jitter;

// p: as kinds.h lists them. Changes by nothing, and of the colours of grey pictures, are left out.
DLUA_INLINE dlua_jitter dlua_jitter_draw(const double *p, dlua_words *words, int64_t channels) {
  int order[DLUA_CHANGES] = {DLUA_BRIGHTNESS, DLUA_CONTRAST, DLUA_SATURATION, DLUA_HUE};
  float amount[DLUA_CHANGES];
  for (int k = 0; k < DLUA_CHANGES; k++)
    amount[k] = (float)dlua_draw_between(words, p[2 * k], p[2 * k + 1]);
  for (int k = DLUA_CHANGES - 1; k > 0; k--) {
    int64_t other = dlua_draw_below(words, k + 1);
    int swapped = order[k];
    order[k] = order[other], order[other] = swapped;
  }
  dlua_jitter j = {0, -1, {0}, {0}};
  for (int k = 0; k < DLUA_CHANGES; k++) {
    int which = order[k];
    double nothing = which == DLUA_HUE ? 0 : 1;
    if (p[2 * which] == nothing && p[2 * which + 1] == nothing) continue;
    if (channels != 3 && which >= DLUA_SATURATION) continue;
    if (which == DLUA_CONTRAST) j.contrast = j.count;
    j.change[j.count] = which, j.amount[j.count++] = amount[which];
  }
  if (j.contrast < 0) j.contrast = j.count;
  return j;
}

DLUA_INLINE float dlua_clamp_unit(float v) { return v < 0 ? 0 : v > 1 ? 1 : v; }

DLUA_INLINE float dlua_luma(const float *v) {
  return 0.299f * v[0] + 0.587f * v[1] + 0.114f * v[2];
}

// Every value moves from base towards or away: factor 1 leaves it.
DLUA_INLINE void dlua_blend(float *v, float factor, float base) {
  for (int c = 0; c < 3; c++) v[c] = dlua_clamp_unit(factor * v[c] + (1 - factor) * base);
}

// Hue 0..1 of a colour whose largest and smallest parts differ by range.
DLUA_INLINE float dlua_hue_of(const float *v, float most, float range) {
  if (range == 0) return 0;
  if (most == v[0]) return (v[1] - v[2]) / range / 6 + 1;
  if (most == v[1]) return ((v[2] - v[0]) / range + 2) / 6;
  return ((v[0] - v[1]) / range + 4) / 6;
}

// Turns a colour around the grey axis of the HSV hexcone (Smith, "Color gamut transform pairs",
// 1978): part = most - range * clamp(|6 h - centre| …).
DLUA_INLINE void dlua_turn_hue(float *v, float shift) {
  float most = v[1] > v[2] ? v[1] : v[2], least = v[1] < v[2] ? v[1] : v[2];
  most = v[0] > most ? v[0] : most, least = v[0] < least ? v[0] : least;
  float range = most - least, hue = dlua_hue_of(v, most, range) + shift;
  hue -= floorf(hue);
  for (int c = 0; c < 3; c++) {
    float at = (float)(5 - 2 * c) + hue * 6;
    if (at >= 6) at -= 6;
    v[c] = most - range * dlua_clamp_unit(at < 4 - at ? at : 4 - at);
  }
}

// Makes changes first … last - 1; mean is what the contrast is changed around.
DLUA_INLINE void dlua_recolor(const dlua_jitter *j, int first, int last, float mean, float *v) {
  for (int k = first; k < last; k++) {
    float amount = j->amount[k];
    switch (j->change[k]) {
    case DLUA_BRIGHTNESS: dlua_blend(v, amount, 0); break;
    case DLUA_CONTRAST: dlua_blend(v, amount, mean); break;
    case DLUA_SATURATION: dlua_blend(v, amount, dlua_luma(v)); break;
    default: dlua_turn_hue(v, amount);
    }
  }
}

// The mean of a picture is summed in lanes, pixel k in lane k % DLUA_MEAN_LANES, which are then folded
// in halves: an order that a block of threads can keep.
#define DLUA_MEAN_LANES 256

DLUA_INLINE float dlua_grey(const float *v, int64_t channels) {
  return channels == 3 ? dlua_luma(v) : v[0];
}

#endif
