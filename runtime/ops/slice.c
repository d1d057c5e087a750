// slice.c - a rectangular part of a tensor: seen (narrow, select, slice) or replaced (set_slice).
// slice and set_slice are what x[key] and x[key] = v become; narrow and select take their positions
// as a script writes them, counted from 1. Seeing and replacing are each other's gradients.
#include <string.h>

#include "shape.h"
#include "walk.h"

// A part of x per dimension: the first position (from 0), how many, every how manieth, and whether
// the dimension is gone afterwards. Laid out as the numbers of slice and set_slice.
typedef struct part {
  int n;
  int64_t start[DLUA_MAX_DIMS], count[DLUA_MAX_DIMS], step[DLUA_MAX_DIMS], drop[DLUA_MAX_DIMS];
} part;

static part whole(int ndim, const int64_t *size) {
  part p = {.n = ndim};
  for (int d = 0; d < ndim; d++) p.count[d] = size[d], p.step[d] = 1;
  return p;
}

// The view of x that a part is; out takes its shape, strides and offset.
static void look(const dlua_tensor *x, const part *p, dlua_tensor *out) {
  int n = 0;
  *out = *x;
  for (int d = 0; d < p->n; d++) {
    out->offset += p->start[d] * x->stride[d];
    if (p->drop[d]) continue;
    out->size[n] = p->count[d],
    out->stride[n++] = x->stride[d] * (p->count[d] > 1 ? p->step[d] : 1);
  }
  out->ndim = (uint8_t)n;
}

static dlua_status view(dlua_args *a, const part *p) {
  dlua_tensor y;
  look(a->in[0], p, &y);
  return dlua_tensor_view(&a->out[0], a->in[0], y.ndim, y.size, y.stride, y.offset);
}

// Reads the four lists of a slice and checks that they lie inside x.
static dlua_status read_part(const dlua_args *a, part *p) {
  const dlua_tensor *x = a->in[0];
  p->n = x->ndim;
  for (int k = 0; k < 4; k++)
    if (a->num[k].n != p->n)
      return dlua_shape_error(a, "%d positions given, x has %d dimensions", a->num[k].n, p->n);
  for (int d = 0; d < p->n; d++) {
    p->start[d] = a->num[0].v[d], p->count[d] = a->num[1].v[d];
    p->step[d] = a->num[2].v[d], p->drop[d] = a->num[3].v[d];
    int64_t last =
        dlua_size_add(p->start[d], dlua_size_mul(dlua_size_add(p->count[d], -1), p->step[d]));
    if (p->count[d] < 0 || p->step[d] < 1 || p->start[d] < 0 || p->start[d] > x->size[d] ||
        (p->count[d] > 0 && last >= x->size[d]) || (p->drop[d] && p->count[d] != 1)) {
      return dlua_shape_error(a, "range %lld..%lld of dimension %d is outside 1..%lld",
                              (long long)dlua_size_add(p->start[d], 1),
                              (long long)dlua_size_add(last, 1), d + 1, (long long)x->size[d]);
    }
  }
  return DLUA_OK;
}

static dlua_tensor *put(dlua_scope *s, dlua_tensor *x, dlua_tensor *value, const part *p) {
  return dlua_call(s, &dlua_op_set_slice, dlua_t(x), dlua_t(value), dlua_list(p->n, p->start),
                   dlua_list(p->n, p->count), dlua_list(p->n, p->step), dlua_list(p->n, p->drop));
}

// g in the place of one dimension's positions from start on, zeros around it.
static void give_range(dlua_back *b, int dim, int64_t start, int64_t count, bool drop) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  part p = whole(ndim, size);
  p.start[dim] = start, p.count[dim] = count, p.drop[dim] = drop;
  dlua_give(b, 0, put(b->s, dlua_zeros_for(b, 0), b->g[0], &p));
}

// ---------------------------------------------------------------- narrow, select

static dlua_status narrow_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t dim = a->num[0].i, start = a->num[1].i, length = a->num[2].i, have = x->size[dim];
  if (x->ndim == 0) return dlua_shape_error(a, "a 0-d tensor has no dimension to narrow");
  if (start < 1 || length < 0 || start - 1 > have || length > have - (start - 1)) {
    return dlua_shape_error(a, "%lld elements from %lld on are outside 1..%lld of dimension %lld",
                            (long long)length, (long long)start, (long long)have,
                            (long long)dim + 1);
  }
  part p = whole(x->ndim, x->size);
  p.start[dim] = start - 1, p.count[dim] = length;
  return view(a, &p);
}

static void narrow_back(dlua_back *b) {
  give_range(b, (int)b->num[0].i, b->num[1].i - 1, b->num[2].i, false);
}

const dlua_op dlua_op_narrow = {
    .name = "narrow",
    .sig = "x:T, dim:d, start:i, length:i -> y",
    .doc = "A view of length positions of dimension dim, from start on.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = narrow_shape,
    .back = narrow_back,
};

// The position that index names, from 0: negative ones count from the end.
static int64_t position(int64_t index, int64_t extent) {
  return index < 0 ? index + extent : index - 1;
}

static dlua_status select_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  if (x->ndim == 0) return dlua_shape_error(a, "a 0-d tensor has no dimension to select from");
  int64_t dim = a->num[0].i, extent = x->size[dim], at = position(a->num[1].i, extent);
  if (a->num[1].i == 0 || at < 0 || at >= extent) {
    return dlua_fail(
        DLUA_BAD_ARGUMENT, "select: index %lld is outside 1..%lld (x %s, dimension %lld)",
        (long long)a->num[1].i, (long long)extent, dlua_shape_text(x), (long long)dim + 1);
  }
  part p = whole(x->ndim, x->size);
  p.start[dim] = at, p.count[dim] = 1, p.drop[dim] = 1;
  return view(a, &p);
}

static void select_back(dlua_back *b) {
  int ndim, dim = (int)b->num[0].i;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  give_range(b, dim, position(b->num[1].i, size[dim]), 1, true);
}

const dlua_op dlua_op_select = {
    .name = "select",
    .sig = "x:T, dim:d, index:i -> y",
    .doc =
        "A view of one position of dimension dim, without that dimension; a negative index counts "
        "from the end.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = select_shape,
    .back = select_back,
};

// ---------------------------------------------------------------- slice, set_slice

static dlua_status slice_shape(dlua_args *a) {
  part p;
  DLUA_TRY(read_part(a, &p));
  return view(a, &p);
}

static dlua_tensor *call_slice(dlua_back *b) {
  return dlua_call(b->s, &dlua_op_slice, dlua_t(b->g[0]), dlua_v(&b->num[0]), dlua_v(&b->num[1]),
                   dlua_v(&b->num[2]), dlua_v(&b->num[3]));
}

static dlua_tensor *call_set_slice(dlua_back *b, dlua_tensor *x, dlua_tensor *value) {
  return dlua_call(b->s, &dlua_op_set_slice, dlua_t(x), dlua_t(value), dlua_v(&b->num[0]),
                   dlua_v(&b->num[1]), dlua_v(&b->num[2]), dlua_v(&b->num[3]));
}

static void slice_back(dlua_back *b) {
  dlua_give(b, 0, call_set_slice(b, dlua_zeros_for(b, 0), b->g[0]));
}

const dlua_op dlua_op_slice = {
    .name = "slice",
    .sig = "x:T, start:s, count:s, step:s, drop:s -> y",
    .doc =
        "A view of a part of x, what x[key] is: per dimension the first position counted from 0, "
        "how many, every how manieth, and 1 where the dimension goes.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW | DLUA_HIDDEN,
    .shape = slice_shape,
    .back = slice_back,
};

static dlua_status set_slice_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0], *value = a->in[1];
  part p;
  dlua_tensor target;
  DLUA_TRY(read_part(a, &p));
  look(x, &p, &target);
  bool fits = value->ndim <= target.ndim;
  for (int d = 1; fits && d <= value->ndim; d++)
    fits = value->size[value->ndim - d] == 1 ||
           value->size[value->ndim - d] == target.size[target.ndim - d];
  if (!fits) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "set_slice: value %s does not fit the part %s of x %s",
                     dlua_shape_text(value), dlua_shape_text(&target), dlua_shape_text(x));
  }
  return dlua_shape_same(a);
}

static dlua_status set_slice_cpu(const dlua_args *a) {
  part p;
  dlua_tensor target;
  DLUA_TRY(read_part(a, &p));
  dlua_start_from(a);
  look(a->out[0], &p, &target);
  dlua_move(&target, a->in[1]);
  return DLUA_OK;
}

static void set_slice_back(dlua_back *b) {
  if (dlua_needs(b, 0)) dlua_give(b, 0, call_set_slice(b, b->g[0], dlua_num(b->s, 0)));
  if (dlua_needs(b, 1)) dlua_give(b, 1, call_slice(b));
}

const dlua_op dlua_op_set_slice = {
    .name = "set_slice",
    .sig = "x:T, value:T, start:s, count:s, step:s, drop:s -> y",
    .doc =
        "x with a part replaced by value, broadcast to it: what x[key] = value is, in place. The "
        "part is given as for slice.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE | DLUA_HALF | DLUA_HIDDEN,
    .shape = set_slice_shape,
    .cpu = set_slice_cpu,
    .back = set_slice_back,
};
