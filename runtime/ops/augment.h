// augment.h - what the kernels of augment do for one picture and one place of it, on every device.
#ifndef DLUA_AUGMENT_H
#define DLUA_AUGMENT_H

#include "../args.h"
#include "../data/window.h"

// The numbers of a call, in the order of its signature.
enum {
  DLUA_AUGMENT_WINDOW,
  DLUA_AUGMENT_DRAW,
  DLUA_AUGMENT_KEY,
  DLUA_AUGMENT_MODE,
  DLUA_AUGMENT_FILL,
  DLUA_AUGMENT_VERTICAL,
  DLUA_AUGMENT_HORIZONTAL,
  DLUA_AUGMENT_DTYPE
};
#define DLUA_AUGMENT_WINDOW_NUMBERS 6
#define DLUA_AUGMENT_DRAW_NUMBERS 4

// One call. What has two entries has one for y and one for x.
typedef struct dlua_augment {
  int64_t channels, size[2];  // of a picture
  int64_t window[2];          // the size of the result's pictures
  int64_t first[2], count[2]; // the places that the window's corner is drawn from
  double chance[2];           // of a flip
  uint64_t key;
  uint32_t epoch, window_step, flip_step[2];
  int mode;
  uint8_t fill;
} dlua_augment;

static inline dlua_augment dlua_augment_of(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  const int64_t *window = a->num[DLUA_AUGMENT_WINDOW].v, *draw = a->num[DLUA_AUGMENT_DRAW].v;
  dlua_augment g;
  g.channels = x->size[1];
  for (int k = 0; k < 2; k++) {
    g.size[k] = x->size[2 + k];
    g.window[k] = window[k], g.first[k] = window[2 + k], g.count[k] = window[4 + k];
    g.chance[k] = a->num[DLUA_AUGMENT_VERTICAL + k].f;
    g.flip_step[k] = (uint32_t)draw[2 + k];
  }
  g.epoch = (uint32_t)draw[0], g.window_step = (uint32_t)draw[1];
  g.key = (uint64_t)a->num[DLUA_AUGMENT_KEY].i;
  g.mode = (int)a->num[DLUA_AUGMENT_MODE].i;
  g.fill = (uint8_t)a->num[DLUA_AUGMENT_FILL].i;
  return g;
}

// What is drawn for one picture.
typedef struct dlua_augment_fate {
  int64_t corner[2];
  bool flipped[2];
} dlua_augment_fate;

// sample counts from 0.
DLUA_INLINE dlua_augment_fate dlua_augment_draw(const dlua_augment *g, uint64_t sample) {
  dlua_augment_fate fate;
  dlua_block place = dlua_transform_draw(g->key, sample, g->epoch, g->window_step, 0);
  for (int k = 0; k < 2; k++) {
    dlua_block flip = dlua_transform_draw(g->key, sample, g->epoch, g->flip_step[k], 0);
    fate.corner[k] = g->first[k] + dlua_draw_below(place.lane[k], g->count[k]);
    fate.flipped[k] = (double)dlua_unit_f32(flip.lane[0]) < g->chance[k];
  }
  return fate;
}

// Which row (axis 0) or column (axis 1) of the picture place `at` of the result shows; -1: the fill.
DLUA_INLINE int64_t dlua_augment_at(const dlua_augment *g, const dlua_augment_fate *fate, int axis,
                                    int64_t at) {
  bool before = g->flip_step[axis] < g->window_step; // the picture is flipped, not the window
  if (fate->flipped[axis] && !before) at = g->window[axis] - 1 - at;
  at = dlua_window_at(fate->corner[axis] + at, g->size[axis], g->mode);
  return fate->flipped[axis] && before && at >= 0 ? g->size[axis] - 1 - at : at;
}

#endif
