// augment.h - what the kernels of augment do for one picture and one place of it, on every device.
#ifndef DLUA_AUGMENT_H
#define DLUA_AUGMENT_H

#include "../args.h"
#include "../data/erase.h"

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
#define DLUA_AUGMENT_ERASE_DRAW_NUMBERS 6 // where something is erased
#define DLUA_AUGMENT_ERASE_NUMBERS 7

// What pictures are when a part of them is erased.
enum { DLUA_AUGMENT_LEVELS, DLUA_AUGMENT_FLOATS, DLUA_AUGMENT_NORMALIZED, DLUA_AUGMENT_STAGES };

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
  const double *erase; // the tensor of that name where the kernel runs, or NULL
  uint32_t erase_step;
  int erase_stage;
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
  g.erase = a->in[4] ? (const double *)dlua_data(a->in[4]) : NULL;
  g.erase_step = g.erase ? (uint32_t)draw[4] : 0;
  g.erase_stage = g.erase ? (int)draw[5] : DLUA_AUGMENT_LEVELS;
  return g;
}

// What is drawn for one picture.
typedef struct dlua_augment_fate {
  int64_t corner[2];
  bool flipped[2];
  dlua_box box;
  dlua_words words; // the draws of the erasing
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
  fate.box.h = 0;
  if (g->erase) {
    const double *p = g->erase;
    dlua_erasing how = {p[0], {p[1], p[2]}, {p[3], p[4]}};
    dlua_words words = {g->key, sample, g->epoch, g->erase_step, 0, {{0, 0, 0, 0}}};
    const int64_t *size = g->window_step > g->erase_step ? g->size : g->window;
    fate.box = dlua_draw_box(&how, &words, size[0], size[1]);
    fate.words = words;
  }
  return fate;
}

// Which row (axis 0) or column (axis 1) of the picture, as it is before the transform at `step` of
// the list, place `at` of the result shows; -1: the fill.
DLUA_INLINE int64_t dlua_augment_before(const dlua_augment *g, const dlua_augment_fate *fate,
                                        int axis, int64_t at, uint32_t step) {
  bool flips = fate->flipped[axis] && g->flip_step[axis] >= step;
  bool before = g->flip_step[axis] < g->window_step; // the picture is flipped, not the window
  if (flips && !before) at = g->window[axis] - 1 - at;
  if (g->window_step >= step) at = dlua_window_at(fate->corner[axis] + at, g->size[axis], g->mode);
  return flips && before && at >= 0 ? g->size[axis] - 1 - at : at;
}

// The same of the picture in the data set.
DLUA_INLINE int64_t dlua_augment_at(const dlua_augment *g, const dlua_augment_fate *fate, int axis,
                                    int64_t at) {
  return dlua_augment_before(g, fate, axis, at, 0);
}

// Which element of the box a place of the result shows, counted in rows; -1: none.
DLUA_INLINE int64_t dlua_augment_erased(const dlua_augment *g, const dlua_augment_fate *fate,
                                        int64_t y, int64_t x) {
  if (fate->box.h == 0) return -1;
  int64_t row = dlua_augment_before(g, fate, 0, y, g->erase_step + 1) - fate->box.top;
  int64_t column = dlua_augment_before(g, fate, 1, x, g->erase_step + 1) - fate->box.left;
  bool inside = row >= 0 && row < fate->box.h && column >= 0 && column < fate->box.w;
  return inside ? row * fate->box.w + column : -1;
}

// What stands in channel c at an element of the box: a level, or a float, by the stage.
DLUA_INLINE float dlua_augment_erased_value(const dlua_augment *g, const dlua_augment_fate *fate,
                                            int64_t c, int64_t element) {
  bool levels = g->erase_stage == DLUA_AUGMENT_LEVELS;
  if (g->erase[6] == 0)
    return levels ? (float)(uint8_t)(int64_t)rint(g->erase[5]) : (float)g->erase[5];
  int64_t number = fate->box.words + c * fate->box.h * fate->box.w + element;
  float u = dlua_unit_f32(dlua_word_at(&fate->words, number));
  return levels ? (float)(uint8_t)(256 * u) : u;
}

#endif
