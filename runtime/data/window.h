// window.h - which pixel a place of a window on a picture shows, and where the window is put: what the
// transforms of a loader and the kernels of the op augment have in common.
//
// A window may reach beyond its picture; a mode says what is seen there.
#ifndef DLUA_WINDOW_H
#define DLUA_WINDOW_H

#include "draw.h"
#include "kinds.h"

enum { DLUA_PAD_CONSTANT, DLUA_PAD_REFLECT, DLUA_PAD_SYMMETRIC, DLUA_PAD_EDGE };

// Rows top … top + h - 1 and columns left … left + w - 1.
typedef struct dlua_window {
  int64_t top, left, h, w;
  int mode;
  double fill;
} dlua_window;

// The window of a crop or border on a picture of h x w, into which it fits.
DLUA_INLINE dlua_window dlua_window_draw(int kind, const double *p, dlua_words *words, int64_t h,
                                         int64_t w) {
  dlua_window v = {0, 0, (int64_t)p[0], (int64_t)p[1], DLUA_PAD_CONSTANT, 0};
  if (kind == DLUA_T_CENTER_CROP) {
    v.top = (h - v.h) / 2, v.left = (w - v.w) / 2;
    return v;
  }
  const double *side = kind == DLUA_T_CROP ? p + 2 : p;
  int64_t rows = h + (int64_t)(side[0] + side[2]), columns = w + (int64_t)(side[1] + side[3]);
  v.mode = (int)side[4], v.fill = side[5];
  v.top = -(int64_t)side[0], v.left = -(int64_t)side[3];
  if (kind == DLUA_T_CROP) {
    v.top += dlua_draw_below(words, rows - v.h + 1);
    v.left += dlua_draw_below(words, columns - v.w + 1);
  } else {
    v.h = rows, v.w = columns;
  }
  return v;
}

// Where position i of a line of n lies in the line that a padding mode continues; -1: nowhere.
DLUA_INLINE int64_t dlua_window_at(int64_t i, int64_t n, int mode) {
  if (i >= 0 && i < n) return i;
  if (mode == DLUA_PAD_CONSTANT) return -1;
  if (mode == DLUA_PAD_EDGE) return i < 0 ? 0 : n - 1;
  if (mode == DLUA_PAD_SYMMETRIC) return i < 0 ? -1 - i : 2 * n - 1 - i;
  return i < 0 ? -i : 2 * n - 2 - i;
}

#endif
