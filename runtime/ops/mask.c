// mask.c - elements chosen by a bool mask, and the ways between masks, positions and classes.
// Results whose size depends on the data are counted in the shape rule, on a host copy where the
// data lies elsewhere.
#include <string.h>

#include "../parallel.h"
#include "shape.h"
#include "walk.h"

// x on the host in a dtype; caller owns the result.
static dlua_status host_copy(const dlua_tensor *x, dlua_dtype dtype, dlua_tensor **host) {
  dlua_tensor *near = NULL;
  DLUA_TRY(dlua_to_device(x, dlua_cpu(), &near));
  dlua_status status = dlua_cast(near, dtype, host);
  dlua_tensor_release(near);
  return status;
}

static int64_t count_true(const dlua_tensor *mask) {
  dlua_walk w;
  int64_t count = 0;
  dlua_walk_begin(&w, mask->ndim, mask->size);
  dlua_walk_add(&w, mask);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w)) count += *w.p[0] != 0;
  return count;
}

static dlua_status count_on_host(const dlua_tensor *x, int64_t *count) {
  dlua_tensor *host = NULL;
  DLUA_TRY(host_copy(x, DLUA_BOOL, &host));
  *count = count_true(host);
  dlua_tensor_release(host);
  return DLUA_OK;
}

static bool broadcasts_to(const dlua_tensor *mask, const dlua_tensor *x) {
  if (mask->ndim > x->ndim) return false;
  for (int d = 1; d <= mask->ndim; d++) {
    int64_t size = mask->size[mask->ndim - d];
    if (size != 1 && size != x->size[x->ndim - d]) return false;
  }
  return true;
}

// ---------------------------------------------------------------- masked_fill

// A number that an integer dtype holds, as dlua_number_fits saw.
static int64_t whole(const dlua_value *v) { return v->is_int ? v->i : (int64_t)v->f; }

// A number as one element of a dtype; the kernels see neither bf16 nor f16.
static void store(void *to, uint8_t dtype, const dlua_value *v) {
  switch (dtype) {
  case DLUA_F32: *(float *)to = (float)v->f; break;
  case DLUA_F64: *(double *)to = v->f; break;
  case DLUA_I64: *(int64_t *)to = whole(v); break;
  case DLUA_I32: *(int32_t *)to = (int32_t)whole(v); break;
  case DLUA_U8: *(uint8_t *)to = (uint8_t)whole(v); break;
  default: *(uint8_t *)to = v->is_int ? v->i != 0 : v->f != 0; break;
  }
}

typedef struct filling {
  dlua_walk walk; // result, mask
  size_t width;
  _Alignas(8) char value[8];
} filling;

#define FILL_ROW(type) \
  for (int64_t k = 0; k < n; k++) \
    if (mask[k * mask_step]) *(type *)(y + k * y_step) = *(const type *)value

static void fill_row(char *y, int64_t y_step, const char *mask, int64_t mask_step, int64_t n,
                     const void *value, size_t width) {
  switch (width) {
  case 1: FILL_ROW(uint8_t); break;
  case 4: FILL_ROW(uint32_t); break;
  default: FILL_ROW(uint64_t); break;
  }
}

static void fill_slice(void *context, int64_t from, int64_t to) {
  const filling *f = context;
  dlua_walk w = f->walk;
  int last = w.ndim - 1;
  dlua_walk_seek(&w, from);
  for (int64_t n; from < to; from += n, dlua_walk_skip(&w, n)) {
    n = dlua_walk_row(&w, to - from);
    fill_row(w.p[0], w.step[0][last], w.p[1], w.step[1][last], n, f->value, f->width);
  }
}

static dlua_status masked_fill_cpu(const dlua_args *a) {
  const dlua_tensor *y = a->out[0];
  filling f = {.width = dlua_dtype_size((dlua_dtype)y->dtype)};
  store(f.value, y->dtype, &a->num[0]);
  dlua_start_from(a);
  dlua_walk_begin(&f.walk, y->ndim, y->size);
  dlua_walk_add(&f.walk, y), dlua_walk_add(&f.walk, a->in[1]);
  dlua_walk_merge(&f.walk);
  dlua_parallel(f.walk.count, 1, fill_slice, &f);
  return DLUA_OK;
}

static void masked_fill_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_masked_fill, dlua_t(b->g[0]), dlua_t(dlua_saved(b, "mask")),
                      dlua_i(0)));
}

const dlua_op dlua_op_masked_fill = {
    .name = "masked_fill",
    .sig = "x:T, mask:B, value:n -> y",
    .doc = "value where mask is true, x elsewhere; both broadcast.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE,
    .shape = dlua_shape_broadcast,
    .cpu = masked_fill_cpu,
    .back = masked_fill_back,
    .save = "mask",
};

// ---------------------------------------------------------------- masked_select, masked_scatter

static dlua_status masked_select_shape(dlua_args *a) {
  const dlua_tensor *mask = a->in[1];
  DLUA_TRY(dlua_shape_broadcast(a));
  int64_t all = 1, count, own = dlua_numel(mask);
  for (int d = 0; d < a->spec[0].ndim; d++) all *= a->spec[0].size[d];
  DLUA_TRY(count_on_host(mask, &count));
  dlua_spec_shape(a, 0, 1, (int64_t[]){own ? count * (all / own) : 0});
  return DLUA_OK;
}

// The shape that x and mask broadcast to, which the rule kept only the count of.
static int joint_shape(const dlua_tensor *x, const dlua_tensor *mask, int64_t *size) {
  int ndim = x->ndim > mask->ndim ? x->ndim : mask->ndim;
  for (int d = 1; d <= ndim; d++) {
    int64_t own = d <= x->ndim ? x->size[x->ndim - d] : 1;
    size[ndim - d] = own == 1 && d <= mask->ndim ? mask->size[mask->ndim - d] : own;
  }
  return ndim;
}

static dlua_status masked_select_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *mask = a->in[1];
  int64_t size[DLUA_MAX_DIMS];
  size_t width = dlua_dtype_size((dlua_dtype)x->dtype);
  char *to = dlua_data(a->out[0]);
  dlua_walk w;
  dlua_walk_begin(&w, joint_shape(x, mask, size), size);
  dlua_walk_add(&w, x), dlua_walk_add(&w, mask);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w))
    if (*w.p[1]) memcpy(to, w.p[0], width), to += width;
  return DLUA_OK;
}

static void masked_select_back(dlua_back *b) {
  dlua_tensor *mask = dlua_saved(b, "mask"), shape = {0};
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  if (!mask) return;
  dlua_input_shape(b, 0, &ndim, shape.size);
  shape.ndim = (uint8_t)ndim;
  ndim = joint_shape(&shape, mask, size);
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_masked_scatter,
                      dlua_t(dlua_zeros_of(b->s, b->g[0], ndim, size)), dlua_t(mask),
                      dlua_t(b->g[0])));
}

const dlua_op dlua_op_masked_select = {
    .name = "masked_select",
    .sig = "x:T, mask:B -> y",
    .doc = "The elements of x where mask is true, as a vector in row-major order: x[mask].",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = masked_select_shape,
    .cpu = masked_select_cpu,
    .back = masked_select_back,
    .save = "mask",
};

static dlua_status masked_scatter_shape(dlua_args *a) {
  if (!broadcasts_to(a->in[1], a->in[0])) {
    return dlua_shape_error(a, "mask does not broadcast to x");
  }
  return dlua_shape_same(a);
}

static dlua_status check_source(const dlua_tensor *x, const dlua_tensor *mask, int64_t have,
                                bool exact) {
  int64_t own = dlua_numel(mask), count = own ? count_true(mask) * (dlua_numel(x) / own) : 0;
  if (exact ? count == have : count <= have) return DLUA_OK;
  return dlua_fail(
      DLUA_BAD_ARGUMENT,
      "masked_scatter: mask is true at %lld positions but source has %lld elements (x %s, "
      "mask %s)",
      (long long)count, (long long)have, dlua_shape_text(x), dlua_shape_text(mask));
}

static dlua_status masked_scatter_cpu(const dlua_args *a) {
  const dlua_tensor *y = a->out[0];
  dlua_tensor *mask = a->in[1], *source = NULL;
  size_t width = dlua_dtype_size((dlua_dtype)y->dtype);
  DLUA_TRY(check_source(y, mask, dlua_numel(a->in[2]), a->num[0].i));
  DLUA_TRY(dlua_source_of(a, 2, &source));
  dlua_start_from(a);
  dlua_walk w, from;
  dlua_walk_begin(&from, source->ndim, source->size);
  dlua_walk_add(&from, source);
  dlua_walk_begin(&w, y->ndim, y->size);
  dlua_walk_add(&w, y), dlua_walk_add(&w, mask);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w))
    if (*w.p[1]) memcpy(w.p[0], from.p[0], width), dlua_walk_next(&from);
  dlua_tensor_release(source);
  return DLUA_OK;
}

// The gradient of source: what was taken, then zeros for what was not, in source's shape.
static void give_taken(dlua_back *b, dlua_tensor *mask) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS], count = 1;
  dlua_input_shape(b, 2, &ndim, size);
  for (int d = 0; d < ndim; d++) count *= size[d];
  dlua_tensor *g = dlua_call(b->s, &dlua_op_masked_select, dlua_t(b->g[0]), dlua_t(mask));
  if (!g) return;
  int64_t pad[] = {0, count - dlua_numel(g)};
  if (pad[1] > 0) g = dlua_call(b->s, &dlua_op_pad, dlua_t(g), dlua_list(2, pad));
  dlua_give(b, 2, dlua_call(b->s, &dlua_op_reshape, dlua_t(g), dlua_list(ndim, size)));
}

static void masked_scatter_back(dlua_back *b) {
  dlua_tensor *mask = dlua_saved(b, "mask");
  if (dlua_needs(b, 0)) {
    dlua_give(b, 0,
              dlua_call(b->s, &dlua_op_masked_fill, dlua_t(b->g[0]), dlua_t(mask), dlua_i(0)));
  }
  if (dlua_needs(b, 2)) give_taken(b, mask);
}

const dlua_op dlua_op_masked_scatter = {
    .name = "masked_scatter",
    .sig = "x:T, mask:B, source:T, exact:b=false -> y",
    .doc = "x with the elements where mask is true replaced by those of source, both in row-major "
           "order. What source has beyond them is left over; with exact it is an error.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE | DLUA_HALF,
    .shape = masked_scatter_shape,
    .cpu = masked_scatter_cpu,
    .back = masked_scatter_back,
    .save = "mask",
};

// ---------------------------------------------------------------- nonzero, one_hot

static dlua_status nonzero_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t count;
  DLUA_TRY(count_on_host(x, &count));
  dlua_spec_shape(a, 0, 2, (int64_t[]){count, x->ndim});
  a->spec[0].dtype = DLUA_I64;
  return DLUA_OK;
}

static bool is_nonzero(const void *p, uint8_t dtype) {
  switch (dtype) {
  case DLUA_F32: return *(const float *)p != 0;
  case DLUA_F64: return *(const double *)p != 0;
  case DLUA_BF16:
  case DLUA_F16: return (*(const uint16_t *)p & 0x7fff) != 0; // without the sign
  case DLUA_I64: return *(const int64_t *)p != 0;
  case DLUA_I32: return *(const int32_t *)p != 0;
  default: return *(const uint8_t *)p != 0;
  }
}

static dlua_status nonzero_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t *to = dlua_i64(a->out[0]);
  dlua_walk w;
  dlua_walk_begin(&w, x->ndim, x->size);
  dlua_walk_add(&w, x);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w)) {
    if (!is_nonzero(w.p[0], x->dtype)) continue;
    for (int d = 0; d < x->ndim; d++) *to++ = w.at[d] + 1;
  }
  return DLUA_OK;
}

const dlua_op dlua_op_nonzero = {
    .name = "nonzero",
    .sig = "x:T -> index",
    .doc = "The positions of the elements that are not zero, one row each in row-major order, one "
           "column per dimension, counted from 1.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_HALF,
    .shape = nonzero_shape,
    .cpu = nonzero_cpu,
};

// The largest entry of an index, 0 when it is empty.
static dlua_status largest(const dlua_tensor *index, int64_t *most) {
  dlua_tensor *host = NULL;
  DLUA_TRY(host_copy(index, DLUA_I64, &host));
  dlua_walk w;
  dlua_walk_begin(&w, host->ndim, host->size);
  dlua_walk_add(&w, host);
  *most = 0;
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w))
    if (*(const int64_t *)w.p[0] > *most) *most = *(const int64_t *)w.p[0];
  dlua_tensor_release(host);
  return DLUA_OK;
}

static dlua_status one_hot_shape(dlua_args *a) {
  const dlua_tensor *index = a->in[0];
  int64_t size[DLUA_MAX_DIMS + 1], classes = a->num[0].i;
  if (!a->num[0].set)
    DLUA_TRY(largest(index, &classes));
  else if (classes < 1) {
    return dlua_shape_error(a, "classes must be at least 1, got %lld", (long long)classes);
  }
  if (index->ndim == DLUA_MAX_DIMS) {
    return dlua_shape_error(a, "the result would have more than %d dimensions", DLUA_MAX_DIMS);
  }
  memcpy(size, index->size, sizeof index->size);
  size[index->ndim] = classes;
  dlua_spec_shape(a, 0, index->ndim + 1, size);
  a->spec[0].dtype = DLUA_I64;
  return DLUA_OK;
}

static dlua_status one_hot_cpu(const dlua_args *a) {
  const dlua_tensor *index = a->in[0], *y = a->out[0];
  int64_t classes = y->size[y->ndim - 1], at, *to = dlua_i64(y);
  memset(to, 0, (size_t)dlua_numel(y) * sizeof *to);
  dlua_walk w;
  dlua_walk_begin(&w, index->ndim, index->size);
  dlua_walk_add(&w, index);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w)) {
    DLUA_TRY(dlua_index(a, *(const int64_t *)w.p[0], k, classes, &at));
    to[k * classes + at] = 1;
  }
  return DLUA_OK;
}

const dlua_op dlua_op_one_hot = {
    .name = "one_hot",
    .sig = "index:I, classes:i? -> y",
    .doc = "Zeros with a one at each index, along a new last dimension of size classes: by default "
           "the "
           "largest index.",
    .dtype = DLUA_ANY_DTYPE,
    .shape = one_hot_shape,
    .cpu = one_hot_cpu,
};
