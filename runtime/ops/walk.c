// walk.c - see walk.h. Copies merge dimensions that lie in memory as one, so a contiguous copy is
// one memcpy per thread and everything else one strided loop per row.
#include "walk.h"

#include <string.h>

#include "../parallel.h"
#include "shape.h"

void dlua_walk_begin(dlua_walk *w, int ndim, const int64_t *size) {
  memset(w, 0, sizeof *w);
  w->ndim = ndim > 0 ? ndim : 1;
  w->size[0] = 1;
  w->count = 1;
  for (int d = 0; d < ndim; d++) w->size[d] = size[d], w->count *= size[d];
}

int dlua_walk_add(dlua_walk *w, const dlua_tensor *x) {
  int64_t width = (int64_t)dlua_dtype_size(x->dtype);
  int lead = w->ndim - x->ndim;
  for (int d = 0; d < x->ndim; d++)
    w->step[w->n][lead + d] = x->size[d] == 1 ? 0 : x->stride[d] * width;
  w->p[w->n] = dlua_data(x);
  return w->n++;
}

void dlua_walk_seek(dlua_walk *w, int64_t position) {
  for (int d = w->ndim - 1; d >= 0; d--) {
    int64_t at = position % w->size[d];
    for (int k = 0; k < w->n; k++) w->p[k] += (at - w->at[d]) * w->step[k][d];
    w->at[d] = at;
    position /= w->size[d];
  }
}

// Whether dimension d continues d + 1 in every operand.
static bool continues(const dlua_walk *w, int d) {
  for (int k = 0; k < w->n; k++)
    if (w->step[k][d] != w->step[k][d + 1] * w->size[d + 1]) return false;
  return true;
}

static void take_dim(dlua_walk *w, int to, int from) {
  w->size[to] = w->size[from];
  for (int k = 0; k < w->n; k++) w->step[k][to] = w->step[k][from];
}

static void drop_dim(dlua_walk *w, int d) {
  w->ndim--;
  for (; d < w->ndim; d++) take_dim(w, d, d + 1);
}

void dlua_walk_merge(dlua_walk *w) {
  for (int d = w->ndim - 1; d >= 0 && w->ndim > 1; d--)
    if (w->size[d] == 1) drop_dim(w, d);
  for (int d = w->ndim - 2; d >= 0; d--)
    if (continues(w, d)) {
      w->size[d + 1] *= w->size[d];
      drop_dim(w, d);
    }
}

#define COPY_ROW(type) \
  for (int64_t i = 0; i < n; i++) *(type *)(dst + i * to) = *(const type *)(src + i * from)

static void copy_row(char *dst, int64_t to, const char *src, int64_t from, int64_t n,
                     int64_t width) {
  if (to == width && from == width) {
    memcpy(dst, src, (size_t)(n * width));
    return;
  }
  if (to == 4 && from == -4) { // a flipped row of f32 or i32
    for (int64_t i = 0; i < n; i++) ((uint32_t *)dst)[i] = ((const uint32_t *)src)[-i];
    return;
  }
  switch (width) {
  case 1: COPY_ROW(uint8_t); break;
  case 2: COPY_ROW(uint16_t); break;
  case 4: COPY_ROW(uint32_t); break;
  default: COPY_ROW(uint64_t); break;
  }
}

typedef struct copying {
  const dlua_walk *walk;
  int64_t width;
} copying;

static void copy_slice(void *context, int64_t from, int64_t to) {
  const copying *c = context;
  dlua_walk w = *c->walk;
  int last = w.ndim - 1;
  dlua_walk_seek(&w, from);
  for (int64_t n; from < to; from += n, dlua_walk_skip(&w, n)) {
    n = dlua_walk_row(&w, to - from);
    copy_row(w.p[0], w.step[0][last], w.p[1], w.step[1][last], n, c->width);
  }
}

void dlua_walk_copy(dlua_walk *w, size_t width) {
  if (w->count == 0) return;
  dlua_walk_merge(w);
  copying c = {w, (int64_t)width};
  dlua_parallel(w->count, 1, copy_slice, &c);
}

void dlua_move(const dlua_tensor *dst, const dlua_tensor *src) {
  dlua_walk w;
  dlua_walk_begin(&w, dst->ndim, dst->size);
  dlua_walk_add(&w, dst);
  dlua_walk_add(&w, src);
  dlua_walk_copy(&w, dlua_dtype_size(dst->dtype));
}

void dlua_start_from(const dlua_args *a) {
  if (dlua_data(a->out[0]) != dlua_data(a->in[0])) dlua_move(a->out[0], a->in[0]);
}

dlua_status dlua_source_of(const dlua_args *a, int k, dlua_tensor **source) {
  dlua_tensor *x = a->in[k], *copy = NULL;
  if (dlua_data(x) != dlua_data(a->out[0])) return *source = dlua_tensor_retain(x), DLUA_OK;
  DLUA_TRY(dlua_tensor_new(&copy, (dlua_dtype)x->dtype, x->ndim, x->size, dlua_device_of(x)));
  dlua_move(copy, x);
  *source = copy;
  return DLUA_OK;
}
