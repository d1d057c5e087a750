// extreme.c - max, min, argmax, argmin. Ties give the first, a nan wins (the first one), as in
// PyTorch. Positions are 1-based; over the whole tensor they count row-major.
#include <math.h>

#include "reduce.h"
#include "reduce_fast.h"

// ---------------------------------------------------------------- folds

static void max_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || (!(x[k] <= s->f) && !isnan(s->f))) s->f = x[k], s->at = s->seen + k;
}

static void min_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || (!(x[k] >= s->f) && !isnan(s->f))) s->f = x[k], s->at = s->seen + k;
}

static void max_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || x[k] > s->i) s->i = x[k], s->at = s->seen + k;
}

static void min_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || x[k] < s->i) s->i = x[k], s->at = s->seen + k;
}

static void extreme_finish(dlua_fold *s, int64_t o) {
  const dlua_args *a = s->call;
  if (dlua_is_float(a->out[0]->dtype))
    dlua_put(a->out[0], o, s->f);
  else
    dlua_put_int(a->out[0], o, s->i);
  if (a->nout > 1) dlua_put_int(a->out[1], o, s->at + 1);
}

static void position_finish(dlua_fold *s, int64_t o) {
  dlua_put_int(s->call->out[0], o, s->at + 1);
}

static const dlua_folder max_folder = {
    .passes = 1, .floats = max_floats, .ints = max_ints, .finish = extreme_finish};
static const dlua_folder min_folder = {
    .passes = 1, .floats = min_floats, .ints = min_ints, .finish = extreme_finish};
static const dlua_folder argmax_folder = {
    .passes = 1, .floats = max_floats, .ints = max_ints, .finish = position_finish};
static const dlua_folder argmin_folder = {
    .passes = 1, .floats = min_floats, .ints = min_ints, .finish = position_finish};

// ---------------------------------------------------------------- shapes

static unsigned dims_of(const dlua_args *a) {
  return a->num[0].set ? 1u << a->num[0].i : (1u << a->in[0]->ndim) - 1;
}

static dlua_status shape_one(dlua_args *a, int k) {
  unsigned dims = dims_of(a);
  DLUA_TRY(dlua_refuse_empty(a, dims));
  int64_t size[DLUA_MAX_DIMS];
  int n = dlua_reduced_shape(a->in[0], dims, a->num[1].i != 0, size);
  dlua_spec_shape(a, k, n, size);
  return DLUA_OK;
}

static dlua_status extreme_shape(dlua_args *a) {
  a->nout = a->num[0].set ? 2 : 1;
  DLUA_TRY(shape_one(a, 0));
  if (a->nout == 2) {
    DLUA_TRY(shape_one(a, 1));
    a->spec[1].dtype = DLUA_I64;
  }
  return DLUA_OK;
}

static dlua_status position_shape(dlua_args *a) {
  DLUA_TRY(shape_one(a, 0));
  a->spec[0].dtype = DLUA_I64;
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradients

// Over everything: the gradient is shared by all elements that reach the extreme (or are nan as it
// is).
static void give_shared(dlua_back *b, dlua_tensor *x, dlua_tensor *y) {
  dlua_scope *s = b->s;
  dlua_tensor *nan_x = dlua_call(s, &dlua_op_isnan, dlua_t(x));
  dlua_tensor *nan_y = dlua_call(s, &dlua_op_isnan, dlua_t(y));
  dlua_tensor *nans = dlua_call(s, &dlua_op_logical_and, dlua_t(nan_x), dlua_t(nan_y));
  dlua_tensor *top = dlua_call(s, &dlua_op_eq, dlua_t(x), dlua_t(y));
  top = dlua_call(s, &dlua_op_logical_or, dlua_t(top), dlua_t(nans));
  dlua_tensor *share = dlua_div(s, b->g[0], dlua_call(s, &dlua_op_sum, dlua_t(top)));
  dlua_give(b, 0, dlua_mul(s, top, share));
}

// Along a dimension: all of it goes to the element that was taken.
static void extreme_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *x = dlua_saved(b, "x"), *g = b->g[0];
  if (!b->num[0].set) {
    give_shared(b, x, dlua_saved(b, "values"));
    return;
  }
  dlua_tensor *at = dlua_saved(b, "indices");
  if (x != NULL && x->ndim > 0 && b->num[1].i == 0) {
    g = dlua_call(s, &dlua_op_unsqueeze, dlua_t(g), dlua_i(b->num[0].i));
    at = dlua_call(s, &dlua_op_unsqueeze, dlua_t(at), dlua_i(b->num[0].i));
  }
  if (x == NULL || at == NULL || g == NULL) return;
  if (x->ndim == 0)
    dlua_give(b, 0, g);
  else
    dlua_give(b, 0,
              dlua_call(s, &dlua_op_scatter, dlua_t(dlua_zeros_like(s, x)), dlua_t(at), dlua_t(g),
                        dlua_i(b->num[0].i)));
}

// ---------------------------------------------------------------- ops

static dlua_status max_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &max_folder, dims_of(a));
}

static dlua_status max_vector(const dlua_args *a) { return dlua_extreme_fast(a, dims_of(a), true); }

static dlua_status max_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &max_folder, dims_of(a));
}

static dlua_status min_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &min_folder, dims_of(a));
}

static dlua_status min_vector(const dlua_args *a) {
  return dlua_extreme_fast(a, dims_of(a), false);
}

static dlua_status min_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &min_folder, dims_of(a));
}

static dlua_status argmax_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &argmax_folder, dims_of(a));
}

static dlua_status argmax_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &argmax_folder, dims_of(a));
}

static dlua_status argmin_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &argmin_folder, dims_of(a));
}

static dlua_status argmin_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &argmin_folder, dims_of(a));
}

const dlua_op dlua_op_max = {
    .name = "max",
    .sig = "x:T, dim:d?, keepdim:b=false -> values, indices",
    .doc =
        "The largest element of x; with a dimension the largest along it and their positions (the "
        "first of equals).",
    .dtype = DLUA_KEEP,
    .shape = extreme_shape,
    .cpu = max_cpu,
    .fast = (dlua_kernel *const[]){max_vector, max_team, NULL},
    .back = extreme_back,
    .save = "x values indices",
};

const dlua_op dlua_op_min = {
    .name = "min",
    .sig = "x:T, dim:d?, keepdim:b=false -> values, indices",
    .doc = "The smallest element of x; with a dimension the smallest along it and their positions "
           "(the first of equals).",
    .dtype = DLUA_KEEP,
    .shape = extreme_shape,
    .cpu = min_cpu,
    .fast = (dlua_kernel *const[]){min_vector, min_team, NULL},
    .back = extreme_back,
    .save = "x values indices",
};

const dlua_op dlua_op_argmax = {
    .name = "argmax",
    .sig = "x:T, dim:d?, keepdim:b=false -> indices",
    .doc = "Position of the largest element, the first of equals: along a dimension, or in the "
           "flattened tensor.",
    .dtype = DLUA_KEEP,
    .shape = position_shape,
    .cpu = argmax_cpu,
    .fast = (dlua_kernel *const[]){argmax_team, NULL},
};

const dlua_op dlua_op_argmin = {
    .name = "argmin",
    .sig = "x:T, dim:d?, keepdim:b=false -> indices",
    .doc = "Position of the smallest element, the first of equals: along a dimension, or in the "
           "flattened tensor.",
    .dtype = DLUA_KEEP,
    .shape = position_shape,
    .cpu = argmin_cpu,
    .fast = (dlua_kernel *const[]){argmin_team, NULL},
};
