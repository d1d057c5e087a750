// walk.h - visiting every position of a shape in row-major order, with a pointer into each operand.
//
//   dlua_walk w;
//   dlua_walk_begin(&w, out->ndim, out->size);
//   dlua_walk_add(&w, out), dlua_walk_add(&w, x);      // p[0] and p[1]; x broadcasts to the shape
//   for (int64_t i = 0; i < w.count; i++, dlua_walk_next(&w)) *(float *)w.p[0] = *(float *)w.p[1];
//
// Unlike the iterator of the elementwise family it keeps the logical order, since index ops count
// positions, and it takes twice as many dimensions, since tiling writes a shape of pairs.
#ifndef DLUA_OPS_WALK_H
#define DLUA_OPS_WALK_H

#include "../op.h"

#define DLUA_WALK_DIMS (2 * DLUA_MAX_DIMS)
#define DLUA_WALK_OPERANDS 4

typedef struct dlua_walk {
  int ndim, n;   // at least one dimension; operands so far
  int64_t count; // positions in all
  int64_t size[DLUA_WALK_DIMS], at[DLUA_WALK_DIMS];
  int64_t step[DLUA_WALK_OPERANDS][DLUA_WALK_DIMS]; // bytes
  char *p[DLUA_WALK_OPERANDS];                      // of each operand, the element at this position
} dlua_walk;

// Starts at the first position of a shape. A 0-d shape is walked as {1}.
void dlua_walk_begin(dlua_walk *w, int ndim, const int64_t *size);
// Adds a host tensor as the next operand, broadcast to the shape; returns its number.
int dlua_walk_add(dlua_walk *w, const dlua_tensor *x);
// Goes to a position, counted from 0.
void dlua_walk_seek(dlua_walk *w, int64_t position);

// Merges dimensions that every operand steps through as one. Keeps the order, not the positions in
// at[]; the walk must stand at its first position.
void dlua_walk_merge(dlua_walk *w);
// Copies p[1] to p[0] at every position, elements of width 1, 2, 4 or 8 bytes, on the whole team
// where it pays. The walk must stand at its first position and is spent afterwards.
void dlua_walk_copy(dlua_walk *w, size_t width);
// Copies src to dst, equal shapes or src broadcast, one dtype.
void dlua_move(const dlua_tensor *dst, const dlua_tensor *src);

// Elements from here to the end of the row (the last dimension), but no more than most.
static inline int64_t dlua_walk_row(const dlua_walk *w, int64_t most) {
  int64_t rest = w->size[w->ndim - 1] - w->at[w->ndim - 1];
  return rest < most ? rest : most;
}

static inline void dlua_walk_next(dlua_walk *w) {
  for (int d = w->ndim - 1; d >= 0; d--) {
    bool carry = ++w->at[d] == w->size[d];
    for (int k = 0; k < w->n; k++) w->p[k] += w->step[k][d];
    if (!carry) return;
    for (int k = 0; k < w->n; k++) w->p[k] -= w->step[k][d] * w->size[d];
    w->at[d] = 0;
  }
}

// Goes n elements on, 1 <= n <= the rest of the row.
static inline void dlua_walk_skip(dlua_walk *w, int64_t n) {
  int last = w->ndim - 1;
  for (int k = 0; k < w->n; k++) w->p[k] += (n - 1) * w->step[k][last];
  w->at[last] += n - 1;
  dlua_walk_next(w);
}

#endif
