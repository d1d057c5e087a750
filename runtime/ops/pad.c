// pad.c - a tensor with a frame around it, or less of it. Every mode is one table per dimension
// that says which position of x each position of the result shows, -1 for none; the kernels know no
// modes.
#include <string.h>

#include "../parallel.h"
#include "shape.h"
#include "walk.h"

enum { CONSTANT, REFLECT, REPLICATE, CIRCULAR };

typedef struct frame {
  int ndim;
  int64_t before[DLUA_MAX_DIMS], after[DLUA_MAX_DIMS];
} frame;

// Pairs are listed from the last dimension: {left, right, top, bottom, …}.
static frame read_frame(const dlua_value *pad, int ndim) {
  frame f = {.ndim = ndim};
  for (int k = 0; k < pad->n / 2; k++) {
    f.before[ndim - 1 - k] = pad->v[2 * k];
    f.after[ndim - 1 - k] = pad->v[2 * k + 1];
  }
  return f;
}

static dlua_status check_frame(const dlua_args *a, const dlua_value *pad, int mode, int ndim,
                               const int64_t *size, int64_t *padded) {
  static const char *const limit[] = {"", "less than the size", "", "at most the size"};
  if (pad->n % 2 || pad->n / 2 > ndim) {
    return dlua_shape_error(a, "%d pads given; they come in pairs, for at most %d dimensions",
                            pad->n, ndim);
  }
  frame f = read_frame(pad, ndim);
  for (int d = 0; d < ndim; d++) {
    int64_t most = f.before[d] > f.after[d] ? f.before[d] : f.after[d];
    if ((mode == REFLECT && most > 0 && most >= size[d]) || (mode == CIRCULAR && most > size[d])) {
      return dlua_shape_error(a, "pad %lld of dimension %d must be %s %lld", (long long)most, d + 1,
                              limit[mode], (long long)size[d]);
    }
    if (mode == REPLICATE && most > 0 && size[d] == 0) {
      return dlua_shape_error(a, "dimension %d is empty, there is nothing to replicate", d + 1);
    }
    padded[d] = dlua_size_add(dlua_size_add(size[d], f.before[d]), f.after[d]);
    if (padded[d] < 0) {
      return dlua_shape_error(a, "pads %lld and %lld leave nothing of dimension %d",
                              (long long)f.before[d], (long long)f.after[d], d + 1);
    }
  }
  return DLUA_OK;
}

static int64_t shown(int64_t at, int64_t size, int mode) {
  if (at >= 0 && at < size) return at;
  switch (mode) {
  case REFLECT: return at < 0 ? -at : 2 * (size - 1) - at;
  case REPLICATE: return at < 0 ? 0 : size - 1;
  case CIRCULAR: return at < 0 ? at + size : at - size;
  default: return -1;
  }
}

// The tables of all dimensions one after the other; NULL without memory.
typedef struct tables {
  size_t bytes;
  int64_t *all, *of[DLUA_MAX_DIMS];
} tables;

static dlua_status make_tables(tables *t, const frame *f, int mode, const int64_t *size,
                               const int64_t *padded) {
  int64_t count = 1;
  for (int d = 0; d < f->ndim; d++) count += padded[d];
  t->bytes = (size_t)count * sizeof *t->all;
  t->all = dlua_new(t->bytes);
  if (!t->all) return DLUA_NO_MEMORY;
  int64_t *next = t->all;
  for (int d = 0; d < f->ndim; d++) {
    t->of[d] = next;
    for (int64_t k = 0; k < padded[d]; k++) *next++ = shown(k - f->before[d], size[d], mode);
  }
  return DLUA_OK;
}

static void drop_tables(tables *t) { dlua_delete(t->all, t->bytes); }

// ---------------------------------------------------------------- pad

static dlua_status pad_shape(dlua_args *a) {
  int64_t padded[DLUA_MAX_DIMS] = {0};
  const dlua_tensor *x = a->in[0];
  DLUA_TRY(check_frame(a, &a->num[0], (int)a->num[1].i, x->ndim, x->size, padded));
  dlua_spec_shape(a, 0, x->ndim, padded);
  return dlua_number_fits(a, &a->num[2], (dlua_dtype)x->dtype);
}

typedef struct padding {
  const dlua_tensor *x, *y;
  const tables *t;
  size_t width;
  int64_t before; // pad in front of a row
  union {
    float f32;
    double f64;
    int64_t i64;
    int32_t i32;
    uint8_t u8;
  } fill;
} padding;

static void set_fill(padding *p, dlua_dtype dtype, double value) {
  switch (dtype) {
  case DLUA_F64: p->fill.f64 = value; break;
  case DLUA_I64: p->fill.i64 = (int64_t)value; break;
  case DLUA_I32: p->fill.i32 = (int32_t)value; break;
  case DLUA_U8: p->fill.u8 = (uint8_t)value; break;
  case DLUA_BOOL: p->fill.u8 = value != 0; break;
  default: p->fill.f32 = (float)value; break;
  }
}

// Where row of the result begins in x, in elements, or -1 when all of it is frame; outer rows are
// counted over all dimensions but the last two.
static int64_t outer_offset(const padding *p, int64_t outer) {
  int64_t offset = 0;
  for (int d = p->y->ndim - 3; d >= 0; d--) {
    int64_t at = p->t->of[d][outer % p->y->size[d]];
    if (at < 0) return -1;
    offset += at * p->x->stride[d];
    outer /= p->y->size[d];
  }
  return offset;
}

static void put(char *to, const void *from, size_t width) {
  switch (width) {
  case 1: memcpy(to, from, 1); break;
  case 4: memcpy(to, from, 4); break;
  default: memcpy(to, from, 8); break;
  }
}

static void pad_elements(const padding *p, char *to, const char *from, int64_t begin, int64_t end) {
  int last = p->y->ndim - 1;
  const int64_t *table = p->t->of[last];
  int64_t step = p->x->stride[last] * (int64_t)p->width;
  for (int64_t k = begin; k < end; k++) {
    const void *element = !from || table[k] < 0 ? (const void *)&p->fill : from + table[k] * step;
    put(to + (size_t)k * p->width, element, p->width);
  }
}

// from is the row of x that is shown, NULL where the whole row is frame.
static void pad_row(const padding *p, char *to, const char *from) {
  int last = p->y->ndim - 1;
  int64_t n = p->y->size[last], begin = p->before < 0 ? 0 : p->before;
  int64_t skipped = begin - p->before, inside = p->x->size[last] - skipped;
  if (inside > n - begin) inside = n - begin;
  if (!from || inside <= 0 || p->x->stride[last] != 1) {
    pad_elements(p, to, from, 0, n);
    return;
  }
  memcpy(to + (size_t)begin * p->width, from + (size_t)skipped * p->width,
         (size_t)inside * p->width);
  pad_elements(p, to, from, 0, begin);
  pad_elements(p, to, from, begin + inside, n);
}

static void pad_rows(void *context, int64_t begin, int64_t end) {
  const padding *p = context;
  int d = p->y->ndim - 2; // the dimension that counts rows; none in a vector
  int64_t height = d >= 0 ? p->y->size[d] : 1, outer = -1, offset = 0;
  size_t bytes = (size_t)p->y->size[p->y->ndim - 1] * p->width;
  const char *source = dlua_data(p->x);
  char *to = (char *)dlua_data(p->y) + (size_t)begin * bytes;
  for (int64_t row = begin; row < end; row++, to += bytes) {
    if (outer < 0 || row % height == 0) outer = row / height, offset = outer_offset(p, outer);
    int64_t at = d >= 0 ? p->t->of[d][row - outer * height] : 0;
    int64_t from = at * (d >= 0 ? p->x->stride[d] : 0) + offset;
    pad_row(p, to, at < 0 || offset < 0 ? NULL : source + from * (int64_t)p->width);
  }
}

static dlua_status pad_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  int mode = (int)a->num[1].i;
  frame f = read_frame(&a->num[0], x->ndim);
  if (x->ndim == 0) return dlua_move(y, x), DLUA_OK;
  if (dlua_numel(y) == 0) return DLUA_OK;
  tables t;
  DLUA_TRY(make_tables(&t, &f, mode, x->size, y->size));
  padding p = {.x = x,
               .y = y,
               .t = &t,
               .width = dlua_dtype_size((dlua_dtype)x->dtype),
               .before = f.before[x->ndim - 1]};
  set_fill(&p, (dlua_dtype)x->dtype, a->num[2].f);
  int64_t columns = y->size[y->ndim - 1];
  dlua_parallel(dlua_numel(y) / columns, (double)columns, pad_rows, &p);
  drop_tables(&t);
  return DLUA_OK;
}

static void pad_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_pad_grad, dlua_t(b->g[0]), dlua_list(ndim, size),
                      dlua_v(&b->num[0]), dlua_v(&b->num[1])));
}

const dlua_op dlua_op_pad = {
    .name = "pad",
    .sig = "x:T, pad:s, mode:e{constant|reflect|replicate|circular}=constant, value:f=0 -> y",
    .doc =
        "x with pad elements around it, pairs from the last dimension: {left, right, top, bottom}. "
        "They hold value, mirror x without its edge, repeat the edge, or go round; negative pads "
        "cut off.",
    .dtype = DLUA_KEEP,
    .shape = pad_shape,
    .cpu = pad_cpu,
    .back = pad_back,
};

// ---------------------------------------------------------------- pad_grad

static dlua_status pad_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0];
  const dlua_value *size = &a->num[0];
  int64_t padded[DLUA_MAX_DIMS] = {0};
  DLUA_TRY(check_frame(a, &a->num[1], (int)a->num[2].i, size->n, size->v, padded));
  if (g->ndim != size->n || memcmp(padded, g->size, sizeof *padded * (size_t)size->n) != 0) {
    return dlua_shape_error(a, "the gradient of a padded %s must be %s",
                            dlua_sizes_text(size->n, size->v), dlua_sizes_text(size->n, padded));
  }
  dlua_spec_shape(a, 0, size->n, size->v);
  return DLUA_OK;
}

// Adds every element of g to the one it shows, in row-major order of g.
static void add_shown(dlua_tensor *gx, const dlua_tensor *g, const tables *t) {
  dlua_walk w;
  dlua_walk_begin(&w, g->ndim, g->size);
  dlua_walk_add(&w, g);
  char *to = dlua_data(gx);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w)) {
    int64_t place = 0;
    bool framed = false;
    for (int d = 0; d < g->ndim; d++) {
      framed |= t->of[d][w.at[d]] < 0;
      place += t->of[d][w.at[d]] * gx->stride[d];
    }
    if (framed) continue;
    if (g->dtype == DLUA_F64)
      ((double *)to)[place] += *(const double *)w.p[0];
    else
      ((float *)to)[place] += *(const float *)w.p[0];
  }
}

static dlua_status pad_grad_cpu(const dlua_args *a) {
  const dlua_tensor *g = a->in[0];
  dlua_tensor *gx = a->out[0];
  frame f = read_frame(&a->num[1], g->ndim);
  if (g->ndim == 0) return dlua_move(gx, g), DLUA_OK;
  memset(dlua_data(gx), 0, (size_t)dlua_numel(gx) * dlua_dtype_size((dlua_dtype)gx->dtype));
  tables t;
  DLUA_TRY(make_tables(&t, &f, (int)a->num[2].i, gx->size, g->size));
  add_shown(gx, g, &t);
  drop_tables(&t);
  return DLUA_OK;
}

static void pad_grad_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_pad, dlua_t(b->g[0]), dlua_v(&b->num[1]), dlua_v(&b->num[2]),
                      dlua_f(0)));
}

const dlua_op dlua_op_pad_grad = {
    .name = "pad_grad",
    .sig = "g:T, size:s, pad:s, mode:e{constant|reflect|replicate|circular}=constant -> gx",
    .doc = "The gradient of pad: every element of g added to the one of a tensor of size that it "
           "shows.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = pad_grad_shape,
    .cpu = pad_grad_cpu,
    .back = pad_grad_back,
};
