// reduce.c - sums, products, moments, norms and the two logical folds.
//
// Each is a folder (reduce.h): what it does to a piece of elements and how a result is finished.
// Float sums are kept in double and rounded once. Sum and mean of f32 have vector kernels
// (reduce_fast.c); the rest is the plain fold over a team of threads. Gradients are formulas in
// other ops, so second derivatives follow.
#include <math.h>

#include "reduce.h"
#include "reduce_fast.h"

// ---------------------------------------------------------------- sum and mean

static void sum_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++) s->f += x[k];
}

static void sum_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  uint64_t sum = (uint64_t)s->i; // wraps, as every integer sum does
  for (int64_t k = 0; k < n; k++) sum += (uint64_t)x[k];
  s->i = (int64_t)sum;
}

static void sum_finish(dlua_fold *s, int64_t o) {
  const dlua_tensor *out = s->call->out[0];
  if (dlua_is_float(out->dtype))
    dlua_put(out, o, s->f);
  else
    dlua_put_int(out, o, s->i);
}

static void mean_finish(dlua_fold *s, int64_t o) {
  dlua_put(s->call->out[0], o, s->f / (double)s->count);
}

static const dlua_folder sum_folder = {
    .passes = 1, .floats = sum_floats, .ints = sum_ints, .finish = sum_finish};
static const dlua_folder mean_folder = {.passes = 1, .floats = sum_floats, .finish = mean_finish};

static unsigned dims_of(const dlua_args *a) { return dlua_reduced_dims(a->in[0], &a->num[0]); }

// Integers and bool are summed, and multiplied, as i64.
static dlua_status shape_widened(dlua_args *a) {
  if (!dlua_is_float(a->in[0]->dtype)) a->spec[0].dtype = DLUA_I64;
  return dlua_shape_reduce(a);
}

static dlua_status sum_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &sum_folder, dims_of(a));
}

static dlua_status sum_vector(const dlua_args *a) { return dlua_sum_fast(a, dims_of(a), false); }

static dlua_status sum_cells(const dlua_args *a) {
  return dlua_accumulate_fast(a, dims_of(a), DLUA_FOLD_SUM, false);
}

static dlua_status sum_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &sum_folder, dims_of(a));
}

static void sum_back(dlua_back *b) { dlua_give(b, 0, dlua_spread(b, b->g[0])); }

const dlua_op dlua_op_sum = {
    .name = "sum",
    .sig = "x:T, dim:D, keepdim:b=false -> y",
    .doc = "Sum of all elements, or over one or several dimensions. Integers and bool give i64.",
    .dtype = DLUA_KEEP,
    .shape = shape_widened,
    .cpu = sum_cpu,
    .fast = (dlua_kernel *const[]){sum_vector, sum_cells, sum_team, NULL},
    .back = sum_back,
    .autocast = DLUA_CAST_F32,
};

static dlua_status mean_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &mean_folder, dims_of(a));
}

static dlua_status mean_vector(const dlua_args *a) { return dlua_sum_fast(a, dims_of(a), true); }

static dlua_status mean_cells(const dlua_args *a) {
  return dlua_accumulate_fast(a, dims_of(a), DLUA_FOLD_SUM, true);
}

static dlua_status mean_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &mean_folder, dims_of(a));
}

static void mean_back(dlua_back *b) {
  dlua_tensor *g = dlua_scale(b->s, b->g[0], 1 / (double)dlua_reduced_count(b));
  dlua_give(b, 0, dlua_spread(b, g));
}

const dlua_op dlua_op_mean = {
    .name = "mean",
    .sig = "x:T, dim:D, keepdim:b=false -> y",
    .doc = "Mean of all elements, or over one or several dimensions; of integers in f32.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = dlua_shape_reduce,
    .cpu = mean_cpu,
    .fast = (dlua_kernel *const[]){mean_vector, mean_cells, mean_team, NULL},
    .back = mean_back,
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- sum_to

// The dimensions of in[0] that shrink; those in front that are missing in size count as well.
static unsigned shrunk_dims(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int lead = x->ndim - a->num[0].n;
  unsigned dims = 0;
  for (int k = 0; k < x->ndim; k++)
    if (k < lead || a->num[0].v[k - lead] != x->size[k]) dims |= 1u << k;
  return dims;
}

static dlua_status sum_to_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  const dlua_value *size = &a->num[0];
  bool fits = size->n <= x->ndim;
  for (int k = 0; fits && k < size->n; k++)
    fits = size->v[k] == 1 || size->v[k] == x->size[k + x->ndim - size->n];
  if (!fits)
    return dlua_shape_error(a, "%s was not broadcast to it", dlua_sizes_text(size->n, size->v));
  if (!dlua_is_float(x->dtype)) a->spec[0].dtype = DLUA_I64;
  dlua_spec_shape(a, 0, size->n, size->v);
  return DLUA_OK;
}

static dlua_status sum_to_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &sum_folder, shrunk_dims(a));
}

static dlua_status sum_to_vector(const dlua_args *a) {
  return dlua_sum_fast(a, shrunk_dims(a), false);
}

static dlua_status sum_to_cells(const dlua_args *a) {
  return dlua_accumulate_fast(a, shrunk_dims(a), DLUA_FOLD_SUM, false);
}

static dlua_status sum_to_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &sum_folder, shrunk_dims(a));
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
    .doc =
        "Sums x over the dimensions that broadcasting a tensor of this size to x's shape added or "
        "stretched: the gradient of broadcasting.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HIDDEN,
    .shape = sum_to_shape,
    .cpu = sum_to_cpu,
    .fast = (dlua_kernel *const[]){sum_to_vector, sum_to_cells, sum_to_team, NULL},
    .back = sum_to_back,
};

// ---------------------------------------------------------------- prod

static void prod_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++) s->f *= x[k];
}

static void prod_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  uint64_t product = (uint64_t)s->i;
  for (int64_t k = 0; k < n; k++) product *= (uint64_t)x[k];
  s->i = (int64_t)product;
}

static const dlua_folder prod_folder = {.passes = 1,
                                        .first = {.f = 1, .i = 1},
                                        .floats = prod_floats,
                                        .ints = prod_ints,
                                        .finish = sum_finish};

static dlua_status prod_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &prod_folder, dims_of(a));
}

static dlua_status prod_cells(const dlua_args *a) {
  return dlua_accumulate_fast(a, dims_of(a), DLUA_FOLD_PROD, false);
}

static dlua_status prod_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &prod_folder, dims_of(a));
}

// Products of all earlier elements of the last dimension (1 for the first), which has n >= 1 of
// them.
static dlua_tensor *products_before(dlua_scope *s, dlua_tensor *x, int64_t n) {
  int last = x->ndim - 1;
  dlua_tensor *head = dlua_call(s, &dlua_op_narrow, dlua_t(x), dlua_i(last), dlua_i(1), dlua_i(1));
  dlua_tensor *ones = dlua_call(s, &dlua_op_ones_like, dlua_t(head));
  if (n == 1) return ones;
  dlua_tensor *front =
      dlua_call(s, &dlua_op_narrow, dlua_t(x), dlua_i(last), dlua_i(1), dlua_i(n - 1));
  dlua_tensor *pair[2] = {ones, dlua_call(s, &dlua_op_cumprod, dlua_t(front), dlua_i(last))};
  return dlua_call_list(s, &dlua_op_cat, 2, pair, 1, (dlua_arg[]){dlua_i(last)});
}

static dlua_tensor *flip_last(dlua_scope *s, dlua_tensor *x) {
  return dlua_call(s, &dlua_op_flip, dlua_t(x), dlua_list(1, (int64_t[]){x->ndim - 1}));
}

// Each element's product of the others, without dividing (elements may be 0): those before it times
// those after it, along the reduced dimensions moved to the end and flattened.
static void prod_back(dlua_back *b) {
  dlua_tensor *x = dlua_saved(b, "x");
  if (x == NULL || dlua_numel(x) == 0) {
    if (x != NULL) dlua_give(b, 0, dlua_zeros_like(b->s, x));
    return;
  }
  unsigned dims = dlua_reduced_dims(x, &b->num[0]);
  int64_t order[DLUA_MAX_DIMS], back[DLUA_MAX_DIMS], flat[DLUA_MAX_DIMS + 1], moved[DLUA_MAX_DIMS];
  int n = 0;
  for (int k = 0; k < x->ndim; k++)
    if (!(dims >> k & 1)) flat[n] = x->size[k], order[n++] = k;
  int kept = n;
  for (int k = 0; k < x->ndim; k++)
    if (dims >> k & 1) order[n++] = k;
  for (int k = 0; k < n; k++) back[order[k]] = k, moved[k] = x->size[order[k]];
  int64_t count = dlua_reduced_count(b);
  if (kept == DLUA_MAX_DIMS) { // nothing was reduced
    dlua_give(b, 0, b->g[0]);
    return;
  }
  flat[kept] = count;
  dlua_scope *s = b->s;
  dlua_tensor *rows = dlua_call(s, &dlua_op_permute, dlua_t(x), dlua_list(n, order));
  rows = dlua_call(s, &dlua_op_reshape, dlua_t(rows), dlua_list(kept + 1, flat));
  if (rows == NULL) return;
  dlua_tensor *before = products_before(s, rows, count), *flipped = flip_last(s, rows);
  if (before == NULL || flipped == NULL) return;
  dlua_tensor *after = products_before(s, flipped, count);
  if (after == NULL) return;
  dlua_tensor *others = dlua_mul(s, before, flip_last(s, after));
  others = dlua_call(s, &dlua_op_reshape, dlua_t(others), dlua_list(n, moved));
  others = dlua_call(s, &dlua_op_permute, dlua_t(others), dlua_list(n, back));
  dlua_give(b, 0, dlua_mul(s, others, dlua_unreduce(b, b->g[0])));
}

const dlua_op dlua_op_prod = {
    .name = "prod",
    .sig = "x:T, dim:D, keepdim:b=false -> y",
    .doc =
        "Product of all elements, or over one or several dimensions. Integers and bool give i64.",
    .dtype = DLUA_KEEP,
    .shape = shape_widened,
    .cpu = prod_cpu,
    .fast = (dlua_kernel *const[]){prod_cells, prod_team, NULL},
    .back = prod_back,
    .save = "x",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- var and std

static void var_floats(dlua_fold *s, const double *x, int64_t n) {
  if (s->pass == 0) {
    for (int64_t k = 0; k < n; k++) s->centre += x[k];
  } else {
    double mean = s->centre / (double)s->count;
    for (int64_t k = 0; k < n; k++) s->f += (x[k] - mean) * (x[k] - mean);
  }
}

// The divisor; as in PyTorch one element has no unbiased variance: 0 / 0.
static double freedom(const dlua_args *a, int64_t count) {
  double d = (double)(count - (a->num[2].i != 0));
  return d > 0 ? d : 0;
}

static void var_finish(dlua_fold *s, int64_t o) {
  dlua_put(s->call->out[0], o, s->f / freedom(s->call, s->count));
}

static void std_finish(dlua_fold *s, int64_t o) {
  dlua_put(s->call->out[0], o, sqrt(s->f / freedom(s->call, s->count)));
}

static const dlua_folder var_folder = {.passes = 2, .floats = var_floats, .finish = var_finish};
static const dlua_folder std_folder = {.passes = 2, .floats = var_floats, .finish = std_finish};

static dlua_status var_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &var_folder, dims_of(a));
}

static dlua_status var_vector(const dlua_args *a) {
  return dlua_var_fast(a, dims_of(a), a->num[2].i != 0, false);
}

static dlua_status var_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &var_folder, dims_of(a));
}

static dlua_status std_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &std_folder, dims_of(a));
}

static dlua_status std_vector(const dlua_args *a) {
  return dlua_var_fast(a, dims_of(a), a->num[2].i != 0, true);
}

static dlua_status std_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &std_folder, dims_of(a));
}

// gx = g * 2 (x - mean) / (n - 1), where g is the gradient of the variance.
static void give_var(dlua_back *b, dlua_tensor *x, dlua_tensor *g) {
  double count = (double)dlua_reduced_count(b), d = count - (b->num[2].i != 0);
  dlua_tensor *mean = dlua_call(b->s, &dlua_op_mean, dlua_t(x), dlua_v(&b->num[0]), dlua_i(1));
  dlua_tensor *centred = dlua_sub(b->s, x, mean);
  g = dlua_scale(b->s, dlua_unreduce(b, g), 2 / (d > 0 ? d : 0));
  dlua_give(b, 0, dlua_mul(b->s, g, centred));
}

static void var_back(dlua_back *b) { give_var(b, dlua_saved(b, "x"), b->g[0]); }

// g / what, but 0 where what is 0.
static dlua_tensor *divide_or_zero(dlua_scope *s, dlua_tensor *g, dlua_tensor *what) {
  dlua_tensor *zero = dlua_call(s, &dlua_op_eq, dlua_t(what), dlua_t(dlua_num(s, 0)));
  dlua_tensor *safe = dlua_call(s, &dlua_op_masked_fill, dlua_t(what), dlua_t(zero), dlua_f(1));
  return dlua_call(s, &dlua_op_masked_fill, dlua_t(dlua_div(s, g, safe)), dlua_t(zero), dlua_f(0));
}

// d std = d var / (2 std); 0 where all elements are equal, as in PyTorch.
static void std_back(dlua_back *b) {
  dlua_tensor *g = divide_or_zero(b->s, b->g[0], dlua_saved(b, "y"));
  give_var(b, dlua_saved(b, "x"), dlua_scale(b->s, g, 0.5));
}

const dlua_op dlua_op_var = {
    .name = "var",
    .sig = "x:T, dim:D, keepdim:b=false, unbiased:b=true -> y",
    .doc =
        "Variance over all elements or over one or several dimensions; divided by n - 1, or by n "
        "with unbiased = false.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = dlua_shape_reduce,
    .cpu = var_cpu,
    .fast = (dlua_kernel *const[]){var_vector, var_team, NULL},
    .back = var_back,
    .save = "x",
    .autocast = DLUA_CAST_F32,
};

const dlua_op dlua_op_std = {
    .name = "std",
    .sig = "x:T, dim:D, keepdim:b=false, unbiased:b=true -> y",
    .doc = "Standard deviation: the square root of var.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = dlua_shape_reduce,
    .cpu = std_cpu,
    .fast = (dlua_kernel *const[]){std_vector, std_team, NULL},
    .back = std_back,
    .save = "x y",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- norm

static void norm_floats(dlua_fold *s, const double *x, int64_t n) {
  double p = s->call->num[0].f;
  if (p == 2)
    for (int64_t k = 0; k < n; k++) s->f += x[k] * x[k];
  else if (p == 1)
    for (int64_t k = 0; k < n; k++) s->f += fabs(x[k]);
  else if (p == 0)
    for (int64_t k = 0; k < n; k++) s->f += x[k] != 0;
  else if (isinf(p))
    for (int64_t k = 0; k < n; k++) {
      double size = fabs(x[k]);
      bool first = s->seen + k == 0, beats = p > 0 ? size > s->f : size < s->f;
      if (first || beats || isnan(size)) s->f = size; // nothing beats a nan
    }
  else
    for (int64_t k = 0; k < n; k++) s->f += pow(fabs(x[k]), p);
}

static void norm_finish(dlua_fold *s, int64_t o) {
  double p = s->call->num[0].f, y = s->f;
  if (p == 2)
    y = sqrt(y);
  else if (p != 0 && p != 1 && !isinf(p))
    y = pow(y, 1 / p);
  dlua_put(s->call->out[0], o, y);
}

static const dlua_folder norm_folder = {.passes = 1, .floats = norm_floats, .finish = norm_finish};

static dlua_status norm_shape(dlua_args *a) {
  unsigned dims = dlua_reduced_dims(a->in[0], &a->num[1]);
  if (isnan(a->num[0].f)) return dlua_shape_error(a, "p is nan");
  if (isinf(a->num[0].f)) DLUA_TRY(dlua_refuse_empty(a, dims));
  int64_t size[DLUA_MAX_DIMS];
  int n = dlua_reduced_shape(a->in[0], dims, a->num[2].i != 0, size);
  dlua_spec_shape(a, 0, n, size);
  return DLUA_OK;
}

static dlua_status norm_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &norm_folder, dlua_reduced_dims(a->in[0], &a->num[1]));
}

static dlua_status norm_vector(const dlua_args *a) {
  if (a->num[0].f != 2) return DLUA_DECLINED;
  return dlua_norm_fast(a, dlua_reduced_dims(a->in[0], &a->num[1]));
}

static dlua_status norm_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &norm_folder, dlua_reduced_dims(a->in[0], &a->num[1]));
}

// d|x|_p = sign(x) (|x| / y)^(p-1); for p = inf each of the n largest gets 1/n. 0 where y is 0.
static dlua_tensor *norm_slope(dlua_scope *s, dlua_tensor *x, dlua_tensor *y,
                               const dlua_value *num) {
  double p = num[0].f;
  if (p == 2) return divide_or_zero(s, x, y);
  dlua_tensor *sign = dlua_call(s, &dlua_op_sign, dlua_t(x));
  if (p == 0) return dlua_zeros_like(s, x);
  if (p == 1) return sign;
  dlua_tensor *size = dlua_call(s, &dlua_op_abs, dlua_t(x));
  if (isinf(p)) {
    dlua_tensor *top = dlua_call(s, &dlua_op_eq, dlua_t(size), dlua_t(y));
    dlua_tensor *share = dlua_call(s, &dlua_op_sum, dlua_t(top), dlua_v(&num[1]), dlua_i(1));
    return dlua_div(s, dlua_mul(s, sign, top), share);
  }
  dlua_tensor *ratio = divide_or_zero(s, size, y), *power = dlua_num(s, p - 1);
  dlua_tensor *slope = dlua_call(s, &dlua_op_pow, dlua_t(ratio), dlua_t(power));
  dlua_tensor *zero = dlua_call(s, &dlua_op_eq, dlua_t(x), dlua_t(dlua_num(s, 0)));
  slope = dlua_call(s, &dlua_op_masked_fill, dlua_t(slope), dlua_t(zero), dlua_f(0));
  return dlua_mul(s, sign, slope);
}

static void norm_back(dlua_back *b) {
  dlua_tensor *x = dlua_saved(b, "x"), *y = dlua_saved(b, "y");
  if (x == NULL || y == NULL) return;
  int64_t size[DLUA_MAX_DIMS];
  int n = dlua_reduced_shape(x, dlua_reduced_dims(x, &b->num[1]), true, size);
  y = dlua_call(b->s, &dlua_op_reshape, dlua_t(y), dlua_list(n, size));
  dlua_tensor *g = dlua_call(b->s, &dlua_op_reshape, dlua_t(b->g[0]), dlua_list(n, size));
  dlua_give(b, 0, dlua_mul(b->s, g, norm_slope(b->s, x, y, b->num)));
}

const dlua_op dlua_op_norm = {
    .name = "norm",
    .sig = "x:T, p:f=2, dim:D, keepdim:b=false -> y",
    .doc =
        "The p-norm (sum of |x|^p)^(1/p) of all elements, or over one or several dimensions; p = "
        "math.huge is the largest |x|, p = 0 counts what is not zero. Its gradient at 0 is 0.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = norm_shape,
    .cpu = norm_cpu,
    .fast = (dlua_kernel *const[]){norm_vector, norm_team, NULL},
    .back = norm_back,
    .save = "x y",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- logsumexp

static void logsumexp_floats(dlua_fold *s, const double *x, int64_t n) {
  if (s->pass == 0) {
    for (int64_t k = 0; k < n; k++)
      if (!(x[k] <= s->centre)) s->centre = x[k];
  } else {
    double shift = isinf(s->centre) ? 0 : s->centre;
    for (int64_t k = 0; k < n; k++) s->f += exp(x[k] - shift);
  }
}

static void logsumexp_finish(dlua_fold *s, int64_t o) {
  dlua_put(s->call->out[0], o, log(s->f) + (isinf(s->centre) ? 0 : s->centre));
}

static const dlua_folder logsumexp_folder = {.passes = 2,
                                             .first = {.centre = -INFINITY},
                                             .floats = logsumexp_floats,
                                             .finish = logsumexp_finish};

static dlua_status logsumexp_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &logsumexp_folder, dims_of(a));
}

static dlua_status logsumexp_vector(const dlua_args *a) {
  return dlua_logsumexp_fast(a, dims_of(a));
}

static dlua_status logsumexp_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &logsumexp_folder, dims_of(a));
}

// gx = g * exp(x - y); a result of -inf (all elements are) has gradient 0 instead of nan.
static void logsumexp_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *y = dlua_unreduce(b, dlua_saved(b, "y"));
  dlua_tensor *nothing = dlua_call(s, &dlua_op_eq, dlua_t(y), dlua_t(dlua_num(s, -INFINITY)));
  y = dlua_call(s, &dlua_op_masked_fill, dlua_t(y), dlua_t(nothing), dlua_f(0));
  dlua_tensor *share = dlua_call(s, &dlua_op_exp, dlua_t(dlua_sub(s, dlua_saved(b, "x"), y)));
  dlua_give(b, 0, dlua_mul(s, dlua_unreduce(b, b->g[0]), share));
}

const dlua_op dlua_op_logsumexp = {
    .name = "logsumexp",
    .sig = "x:T, dim:D, keepdim:b=false -> y",
    .doc =
        "log(sum(exp(x))) over all elements or over one or several dimensions, without overflow.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = dlua_shape_reduce,
    .cpu = logsumexp_cpu,
    .fast = (dlua_kernel *const[]){logsumexp_vector, logsumexp_team, NULL},
    .back = logsumexp_back,
    .save = "x y",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- all and any

static void all_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++) s->i &= x[k] != 0;
}

static void all_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  for (int64_t k = 0; k < n; k++) s->i &= x[k] != 0;
}

static void any_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++) s->i |= x[k] != 0;
}

static void any_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  for (int64_t k = 0; k < n; k++) s->i |= x[k] != 0;
}

static const dlua_folder all_folder = {
    .passes = 1, .first = {.i = 1}, .floats = all_floats, .ints = all_ints, .finish = sum_finish};
static const dlua_folder any_folder = {
    .passes = 1, .floats = any_floats, .ints = any_ints, .finish = sum_finish};

static dlua_status shape_bool(dlua_args *a) {
  a->spec[0].dtype = DLUA_BOOL;
  return dlua_shape_reduce(a);
}

static dlua_status all_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &all_folder, dims_of(a));
}

static dlua_status all_cells(const dlua_args *a) {
  return dlua_accumulate_fast(a, dims_of(a), DLUA_FOLD_ALL, false);
}

static dlua_status all_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &all_folder, dims_of(a));
}

static dlua_status any_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &any_folder, dims_of(a));
}

static dlua_status any_cells(const dlua_args *a) {
  return dlua_accumulate_fast(a, dims_of(a), DLUA_FOLD_ANY, false);
}

static dlua_status any_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &any_folder, dims_of(a));
}

const dlua_op dlua_op_all = {
    .name = "all",
    .sig = "x:T, dim:D, keepdim:b=false -> y",
    .doc = "True where no element is zero, over everything or over one or several dimensions.",
    .dtype = DLUA_KEEP,
    .shape = shape_bool,
    .cpu = all_cpu,
    .fast = (dlua_kernel *const[]){all_cells, all_team, NULL},
};

const dlua_op dlua_op_any = {
    .name = "any",
    .sig = "x:T, dim:D, keepdim:b=false -> y",
    .doc =
        "True where some element is not zero, over everything or over one or several dimensions.",
    .dtype = DLUA_KEEP,
    .shape = shape_bool,
    .cpu = any_cpu,
    .fast = (dlua_kernel *const[]){any_cells, any_team, NULL},
};
