// shape.c - ops that look at the same elements through other sizes and strides. All but a reshape
// of strides that cannot be merged are views; none of them touches a number, so none has a kernel.
// slice and set_slice are the pair behind x[key] and x[key] = v, and each other's gradients.
#include <string.h>

#include "create.h"
#include "shape.h"
#include "walk.h"

static dlua_status view(dlua_args *a, int ndim, const int64_t *size, const int64_t *stride,
                        int64_t offset) {
  return dlua_tensor_view(&a->out[0], a->in[0], ndim, size, stride, offset);
}

// The gradient of every op that only renames positions: g in the shape of the input.
static void reshape_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_reshape, dlua_t(b->g[0]), dlua_list(ndim, size)));
}

dlua_tensor *dlua_zeros_of(dlua_scope *s, const dlua_tensor *like, int ndim, const int64_t *size) {
  dlua_tensor *zeros = NULL;
  if (s->status != DLUA_OK) return NULL;
  dlua_status status =
      dlua_tensor_new(&zeros, (dlua_dtype)like->dtype, ndim, size, dlua_device_of(like));
  if (status == DLUA_OK && dlua_numel(zeros) > 0) status = dlua_tensor_fill(zeros, 0);
  if (status == DLUA_OK) return dlua_own(s, zeros);
  dlua_tensor_release(zeros);
  return dlua_failed(s, status);
}

dlua_tensor *dlua_zeros_for(dlua_back *b, int input) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, input, &ndim, size);
  return b->s->status == DLUA_OK ? dlua_zeros_of(b->s, b->g[0], ndim, size) : NULL;
}

// ---------------------------------------------------------------- reshape, flatten

// Sizes with one -1 replaced by what is left for it.
static dlua_status fill_in(dlua_args *a, int n, const int64_t *wish, int64_t *size) {
  int64_t have = dlua_numel(a->in[0]), known = 1;
  int open = -1;
  bool overflow = false;
  for (int d = 0; d < n; d++) {
    size[d] = wish[d];
    if (wish[d] == -1 && open < 0)
      open = d;
    else if (wish[d] < 0) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: sizes %s: %s", a->op->name, dlua_sizes_text(n, wish),
                       wish[d] == -1 ? "only one can be -1" : "none can be less than -1");
    } else
      overflow |= __builtin_mul_overflow(known, wish[d], &known);
  }
  bool fits = !overflow && (open < 0 ? known == have : known > 0 && have % known == 0);
  if (open >= 0 && fits) size[open] = have / known;
  size_t bytes = 0;
  if (fits && dlua_shape_bytes((dlua_dtype)a->in[0]->dtype, n, size, &bytes)) return DLUA_OK;
  overflow |= fits;
  if (open < 0 && !overflow) {
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "%s: cannot make %s (%lld elements) from %s (%lld elements)", a->op->name,
                     dlua_sizes_text(n, wish), (long long)known, dlua_shape_text(a->in[0]),
                     (long long)have);
  }
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: cannot make %s from %s (%lld elements)", a->op->name,
                   dlua_sizes_text(n, wish), dlua_shape_text(a->in[0]), (long long)have);
}

static void row_major(int n, const int64_t *size, int64_t *stride) {
  int64_t step = 1;
  for (int d = n - 1; d >= 0; d--) {
    stride[d] = step;
    step *= size[d] > 1 ? size[d] : 1;
  }
}

// Strides that show x in another shape, if there are any: every run of old dimensions that lies in
// memory as one must be filled exactly by new ones.
static bool reshape_strides(const dlua_tensor *x, int n, const int64_t *size, int64_t *stride) {
  row_major(n, size, stride);
  if (dlua_numel(x) == 0) return true;
  int open = n; // new dimensions from here on have their strides
  for (int d = x->ndim - 1; d >= 0;) {
    int64_t run = x->size[d], step = x->stride[d], filled = 1;
    for (d--; d >= 0 && (run == 1 || x->size[d] == 1 || x->stride[d] == run * step); d--) {
      if (x->size[d] == 1) continue;
      if (run == 1) step = x->stride[d];
      run *= x->size[d];
    }
    while (open > 0 && (filled < run || size[open - 1] == 1)) {
      stride[--open] = filled * step;
      filled *= size[open];
    }
    if (filled != run) return false;
  }
  return true;
}

static dlua_status show_as(dlua_args *a, int n, const int64_t *size) {
  int64_t stride[DLUA_MAX_DIMS];
  dlua_tensor *x = a->in[0], *y = NULL;
  if (reshape_strides(x, n, size, stride)) return view(a, n, size, stride, x->offset);
  DLUA_TRY(dlua_contiguous(x, &y));
  y->ndim = (uint8_t)n;
  memcpy(y->size, size, (size_t)n * sizeof *size);
  row_major(n, size, y->stride);
  a->out[0] = y;
  return DLUA_OK;
}

static dlua_status reshape_shape(dlua_args *a) {
  int64_t size[DLUA_MAX_DIMS];
  DLUA_TRY(fill_in(a, a->num[0].n, a->num[0].v, size));
  return show_as(a, a->num[0].n, size);
}

const dlua_op dlua_op_reshape = {
    .name = "reshape",
    .sig = "x:T, size:s -> y",
    .doc =
        "The same elements in row-major order under other sizes; one size may be -1 and is worked "
        "out. A view of x where its strides allow it, a copy otherwise.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = reshape_shape,
    .back = reshape_back,
};

static dlua_status flatten_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t size[DLUA_MAX_DIMS], whole = 1;
  int n = 0, first = x->ndim ? (int)a->num[0].i : 0, last = x->ndim ? (int)a->num[1].i : -1;
  if (x->ndim && first > last) {
    return dlua_shape_error(a, "first dimension %d comes after last dimension %d", first + 1,
                            last + 1);
  }
  for (int d = 0; d < first; d++) size[n++] = x->size[d];
  for (int d = first; d <= last; d++) whole *= x->size[d];
  size[n++] = whole;
  for (int d = last + 1; d < x->ndim; d++) size[n++] = x->size[d];
  return show_as(a, n, size);
}

const dlua_op dlua_op_flatten = {
    .name = "flatten",
    .sig = "x:T, first:d=1, last:d=-1 -> y",
    .doc = "Dimensions first to last of x as one, all of them by default. A view where it can be.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = flatten_shape,
    .back = reshape_back,
};

// ---------------------------------------------------------------- orders of dimensions

static dlua_status reorder(dlua_args *a, const int *from) {
  const dlua_tensor *x = a->in[0];
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS];
  for (int d = 0; d < x->ndim; d++) size[d] = x->size[from[d]], stride[d] = x->stride[from[d]];
  return view(a, x->ndim, size, stride, x->offset);
}

static dlua_status swap(dlua_args *a, int d1, int d2) {
  int from[DLUA_MAX_DIMS];
  for (int d = 0; d < a->in[0]->ndim; d++) from[d] = d == d1 ? d2 : d == d2 ? d1 : d;
  return reorder(a, from);
}

static dlua_status transpose_shape(dlua_args *a) {
  return swap(a, (int)a->num[0].i, (int)a->num[1].i);
}

static void transpose_back(dlua_back *b) {
  dlua_give(
      b, 0,
      dlua_call(b->s, &dlua_op_transpose, dlua_t(b->g[0]), dlua_v(&b->num[0]), dlua_v(&b->num[1])));
}

const dlua_op dlua_op_transpose = {
    .name = "transpose",
    .sig = "x:T, dim1:d, dim2:d -> y",
    .doc = "A view of x with two dimensions exchanged.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = transpose_shape,
    .back = transpose_back,
};

static dlua_status t_shape(dlua_args *a) {
  if (a->in[0]->ndim > 2) {
    return dlua_shape_error(a, "x has %d dimensions, t takes at most 2 (permute takes any)",
                            a->in[0]->ndim);
  }
  return swap(a, 0, a->in[0]->ndim - 1);
}

static void t_back(dlua_back *b) { dlua_give(b, 0, dlua_call(b->s, &dlua_op_t, dlua_t(b->g[0]))); }

const dlua_op dlua_op_t = {
    .name = "t",
    .sig = "x:T -> y",
    .doc = "The transposed matrix, a view. Vectors stay as they are.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = t_shape,
    .back = t_back,
};

static dlua_status permute_shape(dlua_args *a) {
  const dlua_value *dims = &a->num[0];
  int from[DLUA_MAX_DIMS], n = a->in[0]->ndim;
  if (dims->n != n) return dlua_shape_error(a, "%d dimensions given, x has %d", dims->n, n);
  for (int d = 0; d < n; d++) from[d] = (int)dims->v[d];
  return reorder(a, from);
}

static void permute_back(dlua_back *b) {
  int64_t inverse[DLUA_MAX_DIMS];
  for (int d = 0; d < b->num[0].n; d++) inverse[b->num[0].v[d]] = d;
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_permute, dlua_t(b->g[0]), dlua_list(b->num[0].n, inverse)));
}

const dlua_op dlua_op_permute = {
    .name = "permute",
    .sig = "x:T, dims:D -> y",
    .doc = "A view of x whose k-th dimension is dimension dims[k] of x.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = permute_shape,
    .back = permute_back,
};

// ---------------------------------------------------------------- sizes of one

static dlua_status expand_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int n = a->num[0].n, lead = n - x->ndim;
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS] = {0};
  if (lead < 0) return dlua_shape_error(a, "%d sizes given, x has %d dimensions", n, x->ndim);
  for (int d = 0; d < n; d++) {
    int64_t had = d < lead ? 1 : x->size[d - lead];
    size[d] = a->num[0].v[d] == -1 && d >= lead ? had : a->num[0].v[d];
    if (size[d] < 0 || (size[d] != had && had != 1)) {
      return dlua_shape_error(a, "size %lld of dimension %d does not expand to %lld",
                              (long long)had, d + 1, (long long)a->num[0].v[d]);
    }
    if (d >= lead && size[d] == had) stride[d] = x->stride[d - lead];
  }
  DLUA_TRY(dlua_check_sizes(a, n, size));
  return view(a, n, size, stride, x->offset);
}

static void expand_back(dlua_back *b) { dlua_give(b, 0, b->g[0]); }

const dlua_op dlua_op_expand = {
    .name = "expand",
    .sig = "x:T, size:s -> y",
    .doc = "A view of x in which dimensions of size 1 are repeated up to size without copying; -1 "
           "keeps a size, new dimensions come first.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = expand_shape,
    .back = expand_back,
};

static dlua_status squeeze_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS];
  int n = 0;
  for (int d = 0; d < x->ndim; d++) {
    if (x->size[d] == 1 && (!a->num[0].set || a->num[0].i == d)) continue;
    size[n] = x->size[d], stride[n++] = x->stride[d];
  }
  return view(a, n, size, stride, x->offset);
}

const dlua_op dlua_op_squeeze = {
    .name = "squeeze",
    .sig = "x:T, dim:d? -> y",
    .doc = "A view of x without its dimensions of size 1, or without dim if its size is 1.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = squeeze_shape,
    .back = reshape_back,
};

static dlua_status unsqueeze_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t size[DLUA_MAX_DIMS + 1], stride[DLUA_MAX_DIMS + 1];
  int at = (int)a->num[0].i;
  for (int d = 0; d <= x->ndim; d++) {
    int from = d < at ? d : d - 1;
    size[d] = d == at ? 1 : x->size[from];
    stride[d] = d == at ? 1 : x->stride[from];
  }
  return view(a, x->ndim + 1, size, stride, x->offset);
}

const dlua_op dlua_op_unsqueeze = {
    .name = "unsqueeze",
    .sig = "x:T, dim:d1 -> y",
    .doc = "A view of x with a new dimension of size 1 at dim.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = unsqueeze_shape,
    .back = reshape_back,
};
