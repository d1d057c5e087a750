// create.c - tensors from nothing: constant, counted, identity.
//
// Sizes are checked here and multiplied with care, before anything is allocated. Results that are
// constant carry no gradient.
#include <math.h>
#include <string.h>

#include "convert.h"
#include "create.h"
#include "reduce.h"

dlua_status dlua_check_sizes(const dlua_args *a, int n, const int64_t *size) {
  int64_t limit = INT64_MAX / 16;
  bool empty = false;
  for (int k = 0; k < n; k++) {
    if (size[k] < 0)
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: size %lld of dimension %d is negative", a->op->name,
                       (long long)size[k], k + 1);
    empty |= size[k] == 0;
  }
  for (int k = 0; k < n && !empty; k++) {
    if (size[k] > limit)
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s has too many elements", a->op->name,
                       dlua_sizes_text(n, size));
    limit /= size[k];
  }
  return DLUA_OK;
}

dlua_status dlua_shape_sized(dlua_args *a) {
  DLUA_TRY(dlua_check_sizes(a, a->num[0].n, a->num[0].v));
  dlua_spec_shape(a, 0, a->num[0].n, a->num[0].v);
  return DLUA_OK;
}

// ---------------------------------------------------------------- constants

// Sets every element, exactly for integers.
static dlua_status fill_with(dlua_tensor *out, const dlua_value *value) {
  bool exact = value->is_int && out->dtype == DLUA_I64 && dlua_is_contiguous(out);
  if (!exact) return dlua_tensor_fill(out, value->is_int ? (double)value->i : value->f);
  int64_t n = dlua_numel(out);
  for (int64_t k = 0; k < n; k++) dlua_i64(out)[k] = value->i;
  return DLUA_OK;
}

// All bits 0 are 0 in every dtype.
static dlua_status zeros_cpu(const dlua_args *a) {
  dlua_tensor *out = a->out[0];
  if (!dlua_is_contiguous(out)) return dlua_tensor_fill(out, 0);
  memset(dlua_data(out), 0, (size_t)dlua_numel(out) * dlua_dtype_size((dlua_dtype)out->dtype));
  return DLUA_OK;
}

static dlua_status ones_cpu(const dlua_args *a) { return dlua_tensor_fill(a->out[0], 1); }
static dlua_status full_cpu(const dlua_args *a) { return fill_with(a->out[0], &a->num[1]); }
static dlua_status fill_cpu(const dlua_args *a) { return fill_with(a->out[0], &a->num[0]); }

static dlua_status empty_cpu(const dlua_args *a) {
  (void)a;
  return DLUA_OK;
}

const dlua_op dlua_op_zeros = {
    .name = "zeros",
    .sig = "size:s -> out",
    .doc = "A tensor of zeros.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = dlua_shape_sized,
    .cpu = zeros_cpu,
};

const dlua_op dlua_op_ones = {
    .name = "ones",
    .sig = "size:s -> out",
    .doc = "A tensor of ones.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = dlua_shape_sized,
    .cpu = ones_cpu,
};

const dlua_op dlua_op_full = {
    .name = "full",
    .sig = "size:s, value:n -> out",
    .doc = "A tensor with one value everywhere; f32 unless a dtype is given.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = dlua_shape_sized,
    .cpu = full_cpu,
};

const dlua_op dlua_op_empty = {
    .name = "empty",
    .sig = "size:s -> out",
    .doc = "A tensor whose content is whatever the memory held: to be written before it is read.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = dlua_shape_sized,
    .cpu = empty_cpu,
};

const dlua_op dlua_op_zeros_like = {
    .name = "zeros_like",
    .sig = "x:T -> y",
    .doc = "Zeros of x's shape, dtype and device.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_ELEMENTWISE | DLUA_NO_GRAD,
    .shape = dlua_shape_same,
    .cpu = zeros_cpu,
};

const dlua_op dlua_op_ones_like = {
    .name = "ones_like",
    .sig = "x:T -> y",
    .doc = "Ones of x's shape, dtype and device.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_ELEMENTWISE | DLUA_NO_GRAD,
    .shape = dlua_shape_same,
    .cpu = ones_cpu,
};

const dlua_op dlua_op_full_like = {
    .name = "full_like",
    .sig = "x:T, value:n -> y",
    .doc = "One value in x's shape, dtype and device.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_ELEMENTWISE | DLUA_NO_GRAD,
    .shape = dlua_shape_same,
    .cpu = fill_cpu,
};

// What x held before does not matter any more.
static void fill_back(dlua_back *b) { dlua_give(b, 0, dlua_zeros_like(b->s, b->g[0])); }

const dlua_op dlua_op_fill = {
    .name = "fill",
    .sig = "x:T, value:n -> y",
    .doc = "One value in x's shape; fill_ overwrites x with it.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_ELEMENTWISE | DLUA_INPLACE,
    .shape = dlua_shape_same,
    .cpu = fill_cpu,
    .back = fill_back,
};

const dlua_op dlua_op_zero = {
    .name = "zero",
    .sig = "x:T -> y",
    .doc = "Zeros in x's shape; zero_ overwrites x with them.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_ELEMENTWISE | DLUA_INPLACE,
    .shape = dlua_shape_same,
    .cpu = zeros_cpu,
    .back = fill_back,
};

// ---------------------------------------------------------------- eye

static dlua_status eye_shape(dlua_args *a) {
  int64_t n = a->num[0].i, m = a->num[1].set ? a->num[1].i : n, size[2] = {n, m};
  DLUA_TRY(dlua_check_sizes(a, 2, size));
  dlua_spec_shape(a, 0, 2, size);
  return DLUA_OK;
}

// Element k of a contiguous result of any dtype but the narrow floats.
static void put_integer(const dlua_tensor *out, int64_t k, int64_t i) {
  if (dlua_is_float(out->dtype))
    dlua_put(out, k, (double)i);
  else
    dlua_put_int(out, k, out->dtype == DLUA_BOOL ? i != 0 : i);
}

static void put_float(const dlua_tensor *out, int64_t k, double f) {
  if (dlua_is_float(out->dtype))
    dlua_put(out, k, f);
  else
    dlua_put_int(out, k, out->dtype == DLUA_BOOL ? f != 0 : dlua_to_integer(f, out->dtype));
}

static dlua_status eye_cpu(const dlua_args *a) {
  dlua_tensor *out = a->out[0];
  DLUA_TRY(dlua_tensor_fill(out, 0));
  int64_t n = out->size[0] < out->size[1] ? out->size[0] : out->size[1];
  for (int64_t k = 0; k < n; k++) put_integer(out, k * (out->size[1] + 1), 1);
  return DLUA_OK;
}

const dlua_op dlua_op_eye = {
    .name = "eye",
    .sig = "n:i, m:i? -> out",
    .doc = "The {n,m} matrix with ones on its diagonal; m is n unless given.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = eye_shape,
    .cpu = eye_cpu,
};

// ---------------------------------------------------------------- range, linspace

static bool all_ints(const dlua_args *a) {
  return a->num[0].is_int && a->num[1].is_int && a->num[2].is_int;
}

static double number(const dlua_value *v) { return v->is_int ? (double)v->i : v->f; }

// How many numbers lie between first and last, both included. With floats, a last that is missed by
// rounding alone counts: range(0, 0.3, 0.1) has four.
static int64_t range_count(const dlua_args *a) {
  if (all_ints(a)) {
    __int128 span = (__int128)a->num[1].i - a->num[0].i, step = a->num[2].i;
    if ((span < 0 && step > 0) || (span > 0 && step < 0)) return 0;
    return span / step >= INT64_MAX ? INT64_MAX : (int64_t)(span / step) + 1;
  }
  double steps = (number(&a->num[1]) - number(&a->num[0])) / number(&a->num[2]);
  return steps < 0 ? 0 : (int64_t)fmin(floor(steps * (1 + 1e-12) + 1e-9), 0x1p62) + 1;
}

static dlua_status range_shape(dlua_args *a) {
  double step = number(&a->num[2]), span = number(&a->num[1]) - number(&a->num[0]);
  if (step == 0 || !isfinite(step) || !isfinite(span))
    return dlua_fail(DLUA_BAD_ARGUMENT, "range: from %g to %g in steps of %g never ends",
                     number(&a->num[0]), number(&a->num[1]), step);
  int64_t count = range_count(a);
  DLUA_TRY(dlua_check_sizes(a, 1, &count));
  if (!a->dtype_set && all_ints(a)) a->spec[0].dtype = DLUA_I64;
  dlua_spec_shape(a, 0, 1, &count);
  return DLUA_OK;
}

static dlua_status range_cpu(const dlua_args *a) {
  int64_t n = a->out[0]->size[0], step = a->num[2].i;
  for (int64_t k = 0; k < n; k++) {
    if (all_ints(a))
      put_integer(a->out[0], k, a->num[0].i + k * step);
    else
      put_float(a->out[0], k, number(&a->num[0]) + (double)k * number(&a->num[2]));
  }
  return DLUA_OK;
}

const dlua_op dlua_op_range = {
    .name = "range",
    .sig = "first:n, last:n, step:n=1 -> out",
    .doc =
        "first, first + step, … up to last, both ends included; i64 when all three are integers.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = range_shape,
    .cpu = range_cpu,
};

static dlua_status linspace_shape(dlua_args *a) {
  DLUA_TRY(dlua_check_sizes(a, 1, &a->num[2].i));
  dlua_spec_shape(a, 0, 1, &a->num[2].i);
  return DLUA_OK;
}

// Counted from the nearer end, so that both ends are exact.
static dlua_status linspace_cpu(const dlua_args *a) {
  int64_t n = a->out[0]->size[0];
  double first = a->num[0].f, last = a->num[1].f,
         step = n > 1 ? (last - first) / (double)(n - 1) : 0;
  for (int64_t k = 0; k < n; k++) {
    double f = k < (n + 1) / 2 ? first + step * (double)k : last - step * (double)(n - 1 - k);
    put_float(a->out[0], k, f);
  }
  return DLUA_OK;
}

const dlua_op dlua_op_linspace = {
    .name = "linspace",
    .sig = "first:f, last:f, steps:i -> out",
    .doc = "steps numbers at equal distances from first to last, both ends included.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE,
    .shape = linspace_shape,
    .cpu = linspace_cpu,
};
