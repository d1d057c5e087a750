// join.c - ops that copy elements to new places: cat, stack, tile, repeat_interleave, flip, roll,
// tril, triu. Each is one strided copy per source, so elements go by their width and no dtype has a
// path of its own. The gradients are cuts and sums of the same places.
#include <string.h>

#include "iterate.h"
#include "shape.h"
#include "walk.h"

static size_t width_of(const dlua_tensor *x) { return dlua_dtype_size((dlua_dtype)x->dtype); }

// The part of x that starts at a position of a dimension and is that long.
static dlua_tensor range(const dlua_tensor *x, int64_t dim, int64_t start, int64_t length) {
  dlua_tensor part = *x;
  part.offset += start * x->stride[dim];
  part.size[dim] = length;
  return part;
}

// ---------------------------------------------------------------- cat, stack

static bool same_but(const dlua_tensor *x, const dlua_tensor *y, int64_t dim) {
  if (x->ndim != y->ndim) return false;
  for (int d = 0; d < x->ndim; d++)
    if (d != dim && x->size[d] != y->size[d]) return false;
  return true;
}

static dlua_status cat_shape(dlua_args *a) {
  const dlua_tensor *first = a->in[0];
  int64_t dim = a->num[0].i, size[DLUA_MAX_DIMS];
  if (first->ndim == 0) return dlua_shape_error(a, "0-d tensors cannot be joined; use stack");
  memcpy(size, first->size, sizeof size);
  for (int k = 1; k < a->nin; k++) {
    if (!same_but(first, a->in[k], dim)) {
      return dlua_fail(
          DLUA_BAD_ARGUMENT,
          "cat: tensor %d is %s, tensor 1 is %s; they may differ in dimension %lld only", k + 1,
          dlua_shape_text(a->in[k]), dlua_shape_text(first), (long long)dim + 1);
    }
    size[dim] = dlua_size_add(size[dim], a->in[k]->size[dim]);
  }
  dlua_spec_shape(a, 0, first->ndim, size);
  return DLUA_OK;
}

static dlua_status cat_cpu(const dlua_args *a) {
  int64_t dim = a->num[0].i, start = 0;
  for (int k = 0; k < a->nin; k++) {
    int64_t length = a->in[k]->size[dim];
    dlua_tensor place = range(a->out[0], dim, start, length);
    dlua_move(&place, a->in[k]);
    start += length;
  }
  return DLUA_OK;
}

static void cat_back(dlua_back *b) {
  int64_t dim = b->num[0].i, start = 1, size[DLUA_MAX_DIMS];
  for (int k = 0, ndim; k < b->nin; k++) {
    dlua_input_shape(b, k, &ndim, size);
    if (dlua_needs(b, k)) {
      dlua_give(b, k,
                dlua_call(b->s, &dlua_op_narrow, dlua_t(b->g[0]), dlua_i(dim), dlua_i(start),
                          dlua_i(size[dim])));
    }
    start += size[dim];
  }
}

const dlua_op dlua_op_cat = {
    .name = "cat",
    .sig = "xs:T*, dim:d=1 -> y",
    .doc = "The tensors of a list one after the other along dim.",
    .dtype = DLUA_PROMOTE,
    .flags = DLUA_HALF,
    .shape = cat_shape,
    .cpu = cat_cpu,
    .back = cat_back,
};

static dlua_status stack_shape(dlua_args *a) {
  const dlua_tensor *first = a->in[0];
  int64_t dim = a->num[0].i, size[DLUA_MAX_DIMS + 1];
  for (int k = 1; k < a->nin; k++) {
    if (dlua_same_shape(first, a->in[k])) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "stack: tensor %d is %s, tensor 1 is %s; all must be alike",
                     k + 1, dlua_shape_text(a->in[k]), dlua_shape_text(first));
  }
  if (first->ndim == DLUA_MAX_DIMS) {
    return dlua_shape_error(a, "the result would have more than %d dimensions", DLUA_MAX_DIMS);
  }
  for (int d = 0; d <= first->ndim; d++)
    size[d] = d < dim ? first->size[d] : d == dim ? a->nin : first->size[d - 1];
  dlua_spec_shape(a, 0, first->ndim + 1, size);
  return DLUA_OK;
}

static dlua_status stack_cpu(const dlua_args *a) {
  int64_t dim = a->num[0].i;
  for (int k = 0; k < a->nin; k++) {
    dlua_tensor place = range(a->out[0], dim, k, 1);
    int after = --place.ndim - (int)dim;
    memmove(place.size + dim, place.size + dim + 1, (size_t)after * sizeof *place.size);
    memmove(place.stride + dim, place.stride + dim + 1, (size_t)after * sizeof *place.stride);
    dlua_move(&place, a->in[k]);
  }
  return DLUA_OK;
}

static void stack_back(dlua_back *b) {
  for (int k = 0; k < b->nin; k++) {
    if (!dlua_needs(b, k)) continue;
    dlua_give(b, k,
              dlua_call(b->s, &dlua_op_select, dlua_t(b->g[0]), dlua_v(&b->num[0]), dlua_i(k + 1)));
  }
}

const dlua_op dlua_op_stack = {
    .name = "stack",
    .sig = "xs:T*, dim:d1=1 -> y",
    .doc = "Tensors of one shape side by side along a new dimension dim.",
    .dtype = DLUA_PROMOTE,
    .flags = DLUA_HALF,
    .shape = stack_shape,
    .cpu = stack_cpu,
    .back = stack_back,
};

// ---------------------------------------------------------------- tile, repeat_interleave

// Dimension d of y as the pair repeats x size: both orders of the pair are one copy whose source
// stands still along repeats.
static void repeat_copy(const dlua_tensor *y, const dlua_tensor *x, const int64_t *repeats,
                        bool size_first) {
  int64_t pairs[DLUA_WALK_DIMS], width = (int64_t)width_of(y);
  int lead = y->ndim - x->ndim;
  dlua_walk w;
  for (int d = 0; d < y->ndim; d++) {
    pairs[2 * d + size_first] = repeats[d];
    pairs[2 * d + !size_first] = d < lead ? 1 : x->size[d - lead];
  }
  dlua_walk_begin(&w, 2 * y->ndim, pairs);
  w.n = 2, w.p[0] = dlua_data(y), w.p[1] = dlua_data(x);
  for (int d = 0; d < y->ndim; d++) {
    int64_t step = y->stride[d] * width;
    w.step[0][2 * d + 1] = step;
    w.step[0][2 * d] = step * pairs[2 * d + 1];
    w.step[1][2 * d + !size_first] = d < lead ? 0 : x->stride[d - lead] * width;
  }
  dlua_walk_copy(&w, (size_t)width);
}

// Sums the gradient over one dimension's repeats: g as {before, pair, after} in the pair's order.
static dlua_tensor *sum_repeats(dlua_back *b, dlua_tensor *g, int dim, int64_t repeats,
                                bool size_first) {
  if (!g) return NULL;
  int64_t before = 1, after = 1, each = repeats ? g->size[dim] / repeats : 0, size[DLUA_MAX_DIMS];
  memcpy(size, g->size, sizeof size);
  for (int d = 0; d < dim; d++) before *= size[d];
  for (int d = dim + 1; d < g->ndim; d++) after *= size[d];
  size[dim] = each;
  int64_t pair[] = {before, size_first ? each : repeats, size_first ? repeats : each, after};
  int ndim = g->ndim;
  g = dlua_call(b->s, &dlua_op_reshape, dlua_t(g), dlua_list(4, pair));
  g = dlua_call(b->s, &dlua_op_sum, dlua_t(g), dlua_i(size_first ? 2 : 1));
  return dlua_call(b->s, &dlua_op_reshape, dlua_t(g), dlua_list(ndim, size));
}

static dlua_status tile_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  const dlua_value *repeats = &a->num[0];
  int64_t size[DLUA_MAX_DIMS];
  int lead = repeats->n - x->ndim;
  if (lead < 0) {
    return dlua_shape_error(a, "%d repeats given, x has %d dimensions", repeats->n, x->ndim);
  }
  for (int d = 0; d < repeats->n; d++) {
    int64_t had = d < lead ? 1 : x->size[d - lead];
    size[d] = dlua_size_mul(had, repeats->v[d]);
    if (repeats->v[d] < 0) {
      return dlua_shape_error(a, "cannot repeat dimension %d %lld times", d + 1,
                              (long long)repeats->v[d]);
    }
  }
  dlua_spec_shape(a, 0, repeats->n, size);
  return DLUA_OK;
}

static dlua_status tile_cpu(const dlua_args *a) {
  repeat_copy(a->out[0], a->in[0], a->num[0].v, false);
  return DLUA_OK;
}

static void tile_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_tensor *g = b->g[0];
  if (dlua_numel(g) == 0) {
    dlua_give(b, 0, dlua_zeros_for(b, 0));
    return;
  }
  for (int d = 0; d < b->num[0].n; d++)
    if (b->num[0].v[d] > 1) g = sum_repeats(b, g, d, b->num[0].v[d], false);
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_reshape, dlua_t(g), dlua_list(ndim, size)));
}

const dlua_op dlua_op_tile = {
    .name = "tile",
    .sig = "x:T, repeats:s -> y",
    .doc =
        "x repeated as a whole, repeats[k] times along dimension k; more repeats than dimensions "
        "add dimensions in front. Also called repeat.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = tile_shape,
    .cpu = tile_cpu,
    .back = tile_back,
};

static dlua_status repeat_interleave_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t size[DLUA_MAX_DIMS], repeats = a->num[0].i, dim = a->num[1].i;
  if (x->ndim == 0) return dlua_shape_error(a, "a 0-d tensor has no dimension to repeat");
  memcpy(size, x->size, sizeof size);
  size[dim] = dlua_size_mul(size[dim], repeats);
  if (repeats < 0) {
    return dlua_shape_error(a, "cannot repeat elements %lld times", (long long)repeats);
  }
  dlua_spec_shape(a, 0, x->ndim, size);
  return DLUA_OK;
}

static dlua_status repeat_interleave_cpu(const dlua_args *a) {
  int64_t repeats[DLUA_MAX_DIMS];
  for (int d = 0; d < a->in[0]->ndim; d++) repeats[d] = d == a->num[1].i ? a->num[0].i : 1;
  repeat_copy(a->out[0], a->in[0], repeats, true);
  return DLUA_OK;
}

static void repeat_interleave_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_numel(b->g[0]) == 0
                ? dlua_zeros_for(b, 0)
                : sum_repeats(b, b->g[0], (int)b->num[1].i, b->num[0].i, true));
}

const dlua_op dlua_op_repeat_interleave = {
    .name = "repeat_interleave",
    .sig = "x:T, repeats:i, dim:d -> y",
    .doc = "Every position along dim repeated on the spot: a a b b c c.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = repeat_interleave_shape,
    .cpu = repeat_interleave_cpu,
    .back = repeat_interleave_back,
};

// ---------------------------------------------------------------- flip, roll

static dlua_status flip_cpu(const dlua_args *a) {
  dlua_tensor x = dlua_flipped(a->in[0], &a->num[0]);
  dlua_move(a->out[0], &x);
  return DLUA_OK;
}

static void flip_back(dlua_back *b) {
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_flip, dlua_t(b->g[0]), dlua_v(&b->num[0])));
}

const dlua_op dlua_op_flip = {
    .name = "flip",
    .sig = "x:T, dims:D -> y",
    .doc = "x in reverse order along dims, all of them by default.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = dlua_shape_same,
    .cpu = flip_cpu,
    .back = flip_back,
};

static dlua_status roll_shape(dlua_args *a) {
  if (a->num[1].n == 0 && a->num[0].n == 1) return dlua_shape_same(a);
  if (a->num[0].n != a->num[1].n) {
    return dlua_shape_error(a, "%d shifts for %d dimensions", a->num[0].n, a->num[1].n);
  }
  return dlua_shape_same(a);
}

// Along every rolled dimension x is two blocks that change places; a bit of turn says which of
// them.
static void roll_blocks(const dlua_tensor *y, const dlua_tensor *x, const int64_t *dims,
                        const int64_t *shifts, int n) {
  for (unsigned turn = 0; turn < 1u << n; turn++) {
    dlua_tensor from = *x, to = *y;
    for (int k = 0; k < n; k++) {
      int64_t d = dims[k], extent = dlua_extent(x, d);
      int64_t shift = extent ? (shifts[k] % extent + extent) % extent : 0;
      bool wrapped = turn >> k & 1;
      int64_t length = wrapped ? shift : extent - shift;
      from = range(&from, d, wrapped ? extent - shift : 0, length);
      to = range(&to, d, wrapped ? 0 : shift, length);
    }
    dlua_move(&to, &from);
  }
}

static dlua_status roll_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  const dlua_value *shifts = &a->num[0], *dims = &a->num[1];
  if (x->ndim == 0) return dlua_move(y, x), DLUA_OK;
  if (dims->n > 0) return roll_blocks(y, x, dims->v, shifts->v, dims->n), DLUA_OK;
  // Without dimensions the elements are rolled in row-major order, whatever their shape.
  int64_t n = dlua_numel(x), shift = n ? (shifts->v[0] % n + n) % n : 0;
  dlua_walk w;
  dlua_walk_begin(&w, x->ndim, x->size);
  dlua_walk_add(&w, x);
  char *to = dlua_data(y);
  size_t width = width_of(x);
  for (int64_t k = 0; k < n; k++, dlua_walk_next(&w))
    memcpy(to + (size_t)((k + shift) % n) * width, w.p[0], width);
  return DLUA_OK;
}

static void roll_back(dlua_back *b) {
  int64_t shifts[DLUA_MAX_DIMS];
  for (int k = 0; k < b->num[0].n;
       k++) { // less than a whole turn: the least integer has no negative
    int64_t turn = b->num[1].n ? dlua_extent(b->g[0], b->num[1].v[k]) : dlua_numel(b->g[0]);
    shifts[k] = turn ? -(b->num[0].v[k] % turn) : 0;
  }
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_roll, dlua_t(b->g[0]), dlua_list(b->num[0].n, shifts),
                      dlua_v(&b->num[1])));
}

const dlua_op dlua_op_roll = {
    .name = "roll",
    .sig = "x:T, shifts:s, dims:D -> y",
    .doc =
        "x moved by shifts along dims; what leaves at one end comes back at the other. One shift "
        "without dims rolls all elements in row-major order.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = roll_shape,
    .cpu = roll_cpu,
    .back = roll_back,
};

// ---------------------------------------------------------------- tril, triu

static dlua_status matrix_shape(dlua_args *a) {
  if (a->in[0]->ndim < 2) return dlua_shape_error(a, "x must have at least 2 dimensions");
  return dlua_shape_same(a);
}

// Copies columns from..to of row r of every matrix.
static void copy_columns(const dlua_args *a, int64_t r, int64_t from, int64_t to) {
  int row = a->in[0]->ndim - 2, column = row + 1;
  if (from >= to) return;
  dlua_tensor x = range(a->in[0], row, r, 1), y = range(a->out[0], row, r, 1);
  x = range(&x, column, from, to - from), y = range(&y, column, from, to - from);
  dlua_move(&y, &x);
}

static int64_t clip(int64_t at, int64_t most) { return at < 0 ? 0 : at > most ? most : at; }

static dlua_status triangle(const dlua_args *a, bool lower) {
  const dlua_tensor *x = a->in[0];
  int64_t rows = x->size[x->ndim - 2], columns = x->size[x->ndim - 1];
  int64_t diagonal = a->num[0].i;
  if (diagonal > columns) diagonal = columns;
  if (diagonal < -rows) diagonal = -rows;
  memset(dlua_data(a->out[0]), 0, (size_t)dlua_numel(x) * width_of(x));
  for (int64_t r = 0; r < rows; r++) {
    if (lower)
      copy_columns(a, r, 0, clip(r + diagonal + 1, columns));
    else
      copy_columns(a, r, clip(r + diagonal, columns), columns);
  }
  return DLUA_OK;
}

static dlua_status tril_cpu(const dlua_args *a) { return triangle(a, true); }
static dlua_status triu_cpu(const dlua_args *a) { return triangle(a, false); }

static void tril_back(dlua_back *b) {
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_tril, dlua_t(b->g[0]), dlua_v(&b->num[0])));
}
static void triu_back(dlua_back *b) {
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_triu, dlua_t(b->g[0]), dlua_v(&b->num[0])));
}

const dlua_op dlua_op_tril = {
    .name = "tril",
    .sig = "x:T, diagonal:i=0 -> y",
    .doc =
        "The lower triangle of matrices up to a diagonal, zero elsewhere; diagonals above the main "
        "one count upwards from 0.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = matrix_shape,
    .cpu = tril_cpu,
    .back = tril_back,
};

const dlua_op dlua_op_triu = {
    .name = "triu",
    .sig = "x:T, diagonal:i=0 -> y",
    .doc = "The upper triangle of matrices from a diagonal on, zero elsewhere; diagonals above the "
           "main one count upwards from 0.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = matrix_shape,
    .cpu = triu_cpu,
    .back = triu_back,
};
