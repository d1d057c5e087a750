// sum_to.c - the gradient of broadcasting: sums over the positions that a smaller tensor was
// repeated to. Every result is summed by one thread in row-major order, in double, so it does not
// depend on the number of threads.
#include <string.h>

#include "../parallel.h"
#include "shape.h"
#include "walk.h"

static dlua_status sum_to_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  const dlua_value *size = &a->num[0];
  int lead = x->ndim - size->n;
  bool fits = lead >= 0;
  for (int d = 0; fits && d < size->n; d++)
    fits = size->v[d] == 1 || size->v[d] == x->size[lead + d];
  if (!fits) return dlua_shape_error(a, "cannot sum to %s", dlua_sizes_text(size->n, size->v));
  dlua_spec_shape(a, 0, size->n, size->v);
  return DLUA_OK;
}

// x as kept dimensions, where the result walks, and summed ones, where each result adds up.
typedef struct split {
  const dlua_tensor *x;
  dlua_tensor *y;
  int nsummed;
  int64_t summed[DLUA_MAX_DIMS], step[DLUA_MAX_DIMS], count;
} split;

static split split_dims(const dlua_tensor *x, dlua_tensor *y) {
  split s = {.x = x, .y = y, .count = 1};
  int lead = x->ndim - y->ndim;
  for (int d = 0; d < x->ndim; d++) {
    if (x->size[d] == 1 || (d >= lead && y->size[d - lead] == x->size[d])) continue;
    s.summed[s.nsummed] = x->size[d], s.step[s.nsummed++] = x->stride[d];
    s.count *= x->size[d];
  }
  return s;
}

static double element(const void *p, uint8_t dtype) {
  return dtype == DLUA_F64 ? *(const double *)p : *(const float *)p;
}

static double sum_from(const split *s, const char *p) {
  dlua_walk w;
  int64_t width = (int64_t)dlua_dtype_size((dlua_dtype)s->x->dtype);
  dlua_walk_begin(&w, s->nsummed, s->summed);
  w.n = 1, w.p[0] = (char *)p;
  for (int d = 0; d < s->nsummed; d++) w.step[0][d] = s->step[d] * width;
  double sum = 0;
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w)) sum += element(w.p[0], s->x->dtype);
  return sum;
}

// Walks the kept positions: x with its summed dimensions cut to their first position.
static void sum_slice(void *context, int64_t from, int64_t to) {
  const split *s = context;
  dlua_walk w;
  dlua_tensor first = *s->x;
  int lead = first.ndim - s->y->ndim;
  first.ndim = s->y->ndim;
  memmove(first.size, first.size + lead, sizeof *first.size * s->y->ndim);
  memmove(first.stride, first.stride + lead, sizeof *first.stride * s->y->ndim);
  for (int d = 0; d < s->y->ndim; d++) first.size[d] = s->y->size[d];
  dlua_walk_begin(&w, s->y->ndim, s->y->size);
  dlua_walk_add(&w, s->y), dlua_walk_add(&w, &first);
  dlua_walk_seek(&w, from);
  for (; from < to; from++, dlua_walk_next(&w)) {
    double sum = sum_from(s, w.p[1]);
    if (s->y->dtype == DLUA_F64)
      *(double *)w.p[0] = sum;
    else
      *(float *)w.p[0] = (float)sum;
  }
}

static dlua_status sum_to_cpu(const dlua_args *a) {
  split s = split_dims(a->in[0], a->out[0]);
  if (dlua_numel(a->out[0]) > 0) sum_slice(&s, 0, dlua_numel(a->out[0]));
  return DLUA_OK;
}

// ---------------------------------------------------------------- leading dimensions, f32

enum { COLUMNS = 256 };

typedef struct columns {
  const float *x;
  float *y;
  int64_t rows, width;
} columns;

// Sums all rows of a block of columns, row by row, so that memory is read in order.
static void sum_columns(void *context, int64_t from, int64_t to) {
  const columns *c = context;
  double sum[COLUMNS];
  for (; from < to; from += COLUMNS) {
    int64_t n = to - from < COLUMNS ? to - from : COLUMNS;
    memset(sum, 0, sizeof sum);
    for (int64_t r = 0; r < c->rows; r++) {
      const float *row = c->x + r * c->width + from;
      for (int64_t k = 0; k < n; k++) sum[k] += row[k];
    }
    for (int64_t k = 0; k < n; k++) c->y[from + k] = (float)sum[k];
  }
}

// {r, …, c, …} to {c, …}: the gradient of a bias. The result of each column is what the plain
// kernel gives, bit for bit.
static dlua_status sum_to_rows(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  int lead = x->ndim - y->ndim;
  int64_t width = dlua_numel(y);
  if (x->dtype != DLUA_F32 || !dlua_is_contiguous(x) || width == 0) return DLUA_DECLINED;
  if (memcmp(x->size + lead, y->size, sizeof *y->size * y->ndim) != 0) return DLUA_DECLINED;
  columns c = {dlua_f32(x), dlua_f32(y), dlua_numel(x) / width, width};
  dlua_parallel(width, (double)c.rows, sum_columns, &c);
  return DLUA_OK;
}

// ---------------------------------------------------------------- any f32 or f64

static dlua_status sum_to_threads(const dlua_args *a) {
  split s = split_dims(a->in[0], a->out[0]);
  dlua_parallel(dlua_numel(a->out[0]), 2 * (double)s.count, sum_slice, &s);
  return DLUA_OK;
}

static void sum_to_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_expand, dlua_t(b->g[0]), dlua_list(ndim, size)));
}

const dlua_op dlua_op_sum_to = {
    .name = "sum_to",
    .sig = "x:T, size:s -> y",
    .doc = "x summed over the dimensions in which a tensor of size would be broadcast to it.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = sum_to_shape,
    .cpu = sum_to_cpu,
    .fast = (dlua_kernel *const[]){sum_to_rows, sum_to_threads, NULL},
    .back = sum_to_back,
};
