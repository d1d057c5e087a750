// loss.c - losses that compare x and target element by element.
//
// Each is one formula of an element (in double) plus its gradient in ops; what is shared is the
// reduction: fixed slices added in order, so a loss has the same bits for every number of threads.
// Losses never broadcast x against target: a shape {n} against {n,1} is nearly always a mistake
// that would train silently. Weights do broadcast to x.
#include <math.h>

#include "../cpu/fold.h"
#include "../cpu/simd.h"
#include "../parallel.h"
#include "loss.h"
#include "reduce.h"

typedef struct loss {
  const dlua_args *call;
  double parameter; // delta or beta
  bool log_target;
  double (*value)(const struct loss *w, double x, double t, int64_t i);
} loss;

// The entry of a weight that broadcasts to x at x's element i; 1 without weight.
static double weight_at(const loss *w, int input, int64_t i) {
  const dlua_tensor *x = w->call->in[0], *weight = w->call->in[input];
  if (weight == NULL) return 1;
  int64_t offset = 0;
  for (int k = x->ndim - 1, j = weight->ndim - 1; j >= 0; k--, j--) {
    if (weight->size[j] > 1) offset += i % x->size[k] * weight->stride[j];
    i /= x->size[k];
  }
  return dlua_real(weight, offset);
}

// ---------------------------------------------------------------- reduction

static double sum_values(void *context, int64_t from, int64_t to) {
  const loss *w = context;
  const dlua_tensor *x = w->call->in[0], *t = w->call->in[1];
  double sum = 0;
  for (int64_t k = from; k < to; k++) sum += w->value(w, dlua_real(x, k), dlua_real(t, k), k);
  return sum;
}

static void each_value(void *context, int64_t from, int64_t to) {
  const loss *w = context;
  const dlua_tensor *x = w->call->in[0], *t = w->call->in[1];
  for (int64_t k = from; k < to; k++)
    dlua_put(w->call->out[0], k, w->value(w, dlua_real(x, k), dlua_real(t, k), k));
}

// What a sum is divided by.
static double divisor(int reduction, int ndim, const int64_t *size) {
  if (reduction == DLUA_BATCHMEAN) return ndim > 0 ? (double)size[0] : 1;
  double count = 1;
  for (int k = 0; k < ndim; k++) count *= (double)size[k];
  return reduction == DLUA_MEAN ? count : 1;
}

static dlua_status reduce_plain(loss *w, int reduction) {
  const dlua_tensor *x = w->call->in[0];
  int64_t n = dlua_numel(x);
  if (reduction == DLUA_NONE)
    each_value(w, 0, n);
  else
    dlua_put(w->call->out[0], 0, sum_values(w, 0, n) / divisor(reduction, x->ndim, x->size));
  return DLUA_OK;
}

static dlua_status reduce_team(loss *w, int reduction) {
  const dlua_tensor *x = w->call->in[0];
  int64_t n = dlua_numel(x);
  double sum;
  if (reduction == DLUA_NONE) {
    dlua_parallel(n, 10, each_value, w);
    return DLUA_OK;
  }
  DLUA_TRY(dlua_sum_slices(n, 10, sum_values, w, &sum));
  dlua_put(w->call->out[0], 0, sum / divisor(reduction, x->ndim, x->size));
  return DLUA_OK;
}

// ---------------------------------------------------------------- vector loops

// A loop of simd.h gives the values of a few elements at a time, which are then added.
typedef struct vectors {
  const dlua_args *call;
  dlua_row *row;
  void *numbers;
} vectors;

static void value_row(const vectors *v, float *values, int64_t from, int64_t n) {
  const dlua_args *a = v->call;
  char *p[3] = {(char *)values, (char *)(dlua_f32(a->in[0]) + from),
                (char *)(dlua_f32(a->in[1]) + from)};
  v->row(v->numbers, n, p, (int64_t[]){sizeof *values, sizeof *values, sizeof *values});
}

static double sum_row_values(void *context, int64_t from, int64_t to) {
  enum { SOME = 2048 };
  float values[SOME];
  double sum = 0;
  for (int64_t k = from; k < to; k += SOME) {
    int64_t n = to - k < SOME ? to - k : SOME;
    value_row(context, values, k, n);
    sum += dlua_fold_simd()->sum(values, n);
  }
  return sum;
}

static void put_row_values(void *context, int64_t from, int64_t to) {
  const vectors *v = context;
  value_row(v, dlua_f32(v->call->out[0]) + from, from, to - from);
}

// Declines all but f32 without weights.
static dlua_status reduce_vector(const dlua_args *a, int reduction, dlua_row *row) {
  const dlua_tensor *x = a->in[0];
  int64_t n = dlua_numel(x);
  if (x->dtype != DLUA_F32) return DLUA_DECLINED;
  for (int k = 2; k < a->nin; k++)
    if (a->in[k] != NULL) return DLUA_DECLINED;
  vectors v = {a, row, (void *)a->num};
  double sum;
  if (reduction == DLUA_NONE) {
    dlua_parallel(n, 10, put_row_values, &v);
    return DLUA_OK;
  }
  DLUA_TRY(dlua_sum_slices(n, 10, sum_row_values, &v, &sum));
  dlua_put(a->out[0], 0, sum / divisor(reduction, x->ndim, x->size));
  return DLUA_OK;
}

static const dlua_dtype_rows *f32_rows(void) { return &dlua_simd()->of[DLUA_F32]; }

// ---------------------------------------------------------------- shapes

static dlua_status check_weight(const dlua_args *a, int input, const char *name) {
  const dlua_tensor *x = a->in[0], *weight = a->in[input];
  if (weight == NULL) return DLUA_OK;
  bool fits = weight->ndim <= x->ndim;
  for (int k = 0; fits && k < weight->ndim; k++)
    fits = weight->size[k] == 1 || weight->size[k] == x->size[k + x->ndim - weight->ndim];
  if (fits) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s %s does not broadcast to x %s", a->op->name, name,
                   dlua_shape_text(weight), dlua_shape_text(x));
}

static dlua_status pair_shape(dlua_args *a, int reduction) {
  const dlua_tensor *x = a->in[0], *t = a->in[1];
  if (!dlua_same_shape(x, t))
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: shapes %s and %s differ; losses never broadcast",
                     a->op->name, dlua_shape_text(x), dlua_shape_text(t));
  dlua_spec_shape(a, 0, reduction == DLUA_NONE ? x->ndim : 0, x->size);
  return DLUA_OK;
}

static dlua_status plain_shape(dlua_args *a) { return pair_shape(a, (int)a->num[0].i); }

static dlua_status positive_shape(dlua_args *a, const char *name, bool zero_too) {
  double value = a->num[1].f;
  if (!(zero_too ? value >= 0 : value > 0))
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s must be %s, got %g", a->op->name, name,
                     zero_too ? "0 or more" : "greater than 0", value);
  return plain_shape(a);
}

static dlua_status huber_shape(dlua_args *a) { return positive_shape(a, "delta", false); }
static dlua_status smooth_l1_shape(dlua_args *a) { return positive_shape(a, "beta", true); }

static dlua_status weighted_shape(dlua_args *a) {
  DLUA_TRY(check_weight(a, 2, "weight"));
  if (a->nin > 3) DLUA_TRY(check_weight(a, 3, "pos_weight"));
  return plain_shape(a);
}

static dlua_status kl_div_shape(dlua_args *a) { return pair_shape(a, (int)a->num[1].i); }

// ---------------------------------------------------------------- gradients

// The gradient of the loss as one of every element: divided as the sum was.
static dlua_tensor *each_gradient(dlua_back *b, int reduction) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  double d = divisor(reduction, ndim, size);
  return d == 1 ? b->g[0] : dlua_scale(b->s, b->g[0], 1 / d);
}

// Losses of x - target: the slope of one side is minus that of the other.
static void give_difference(dlua_back *b, dlua_tensor *slope) {
  dlua_tensor *gx = dlua_mul(b->s, slope, each_gradient(b, (int)b->num[0].i));
  dlua_give(b, 0, gx);
  if (dlua_needs(b, 1)) dlua_give(b, 1, dlua_neg(b->s, gx));
}

static dlua_tensor *difference(dlua_back *b) {
  return dlua_sub(b->s, dlua_saved(b, "x"), dlua_saved(b, "target"));
}

static void refuse_weight_gradient(dlua_back *b, int input, const char *name) {
  if (!dlua_needs(b, input)) return;
  dlua_failed(b->s, dlua_fail(DLUA_BAD_STATE, "%s has no gradient; detach it", name));
}

// ---------------------------------------------------------------- mse, l1

static double mse_value(const loss *w, double x, double t, int64_t i) {
  (void)w, (void)i;
  return (x - t) * (x - t);
}

static dlua_status mse_cpu(const dlua_args *a) {
  return reduce_plain(&(loss){.call = a, .value = mse_value}, (int)a->num[0].i);
}

static dlua_status mse_team(const dlua_args *a) {
  return reduce_team(&(loss){.call = a, .value = mse_value}, (int)a->num[0].i);
}

static double sum_squares(void *context, int64_t from, int64_t to) {
  const dlua_args *a = context;
  return dlua_fold_simd()->sum_squared_differences(dlua_f32(a->in[0]) + from,
                                                   dlua_f32(a->in[1]) + from, to - from);
}

static dlua_status mse_vector(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  double sum;
  if (x->dtype != DLUA_F32 || a->num[0].i == DLUA_NONE) return DLUA_DECLINED;
  DLUA_TRY(dlua_sum_slices(dlua_numel(x), 1, sum_squares, (void *)a, &sum));
  dlua_put(a->out[0], 0, sum / divisor((int)a->num[0].i, x->ndim, x->size));
  return DLUA_OK;
}

static void mse_back(dlua_back *b) { give_difference(b, dlua_scale(b->s, difference(b), 2)); }

const dlua_op dlua_op_mse_loss = {
    .name = "mse_loss",
    .sig = "x:T, target:T, reduction:e{mean|sum|none}=mean -> loss",
    .doc = "Squared error (x - target)^2; x and target have one shape.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = plain_shape,
    .cpu = mse_cpu,
    .fast = (dlua_kernel *const[]){mse_vector, mse_team, NULL},
    .back = mse_back,
    .save = "x target",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};

static double l1_value(const loss *w, double x, double t, int64_t i) {
  (void)w, (void)i;
  return fabs(x - t);
}

static dlua_status l1_cpu(const dlua_args *a) {
  return reduce_plain(&(loss){.call = a, .value = l1_value}, (int)a->num[0].i);
}

static dlua_status l1_vector(const dlua_args *a) {
  return reduce_vector(a, (int)a->num[0].i, f32_rows()->l1_loss);
}

static dlua_status l1_team(const dlua_args *a) {
  return reduce_team(&(loss){.call = a, .value = l1_value}, (int)a->num[0].i);
}

static void l1_back(dlua_back *b) {
  give_difference(b, dlua_call(b->s, &dlua_op_sign, dlua_t(difference(b))));
}

const dlua_op dlua_op_l1_loss = {
    .name = "l1_loss",
    .sig = "x:T, target:T, reduction:e{mean|sum|none}=mean -> loss",
    .doc = "Absolute error |x - target|; x and target have one shape.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = plain_shape,
    .cpu = l1_cpu,
    .fast = (dlua_kernel *const[]){l1_vector, l1_team, NULL},
    .back = l1_back,
    .save = "x target",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- huber, smooth l1

static double huber_value(const loss *w, double x, double t, int64_t i) {
  (void)i;
  double d = fabs(x - t), delta = w->parameter;
  return d <= delta ? 0.5 * d * d : delta * (d - 0.5 * delta);
}

static double smooth_l1_value(const loss *w, double x, double t, int64_t i) {
  (void)i;
  double d = fabs(x - t), beta = w->parameter;
  return d < beta ? 0.5 * d * d / beta : d - 0.5 * beta;
}

static dlua_status huber_cpu(const dlua_args *a) {
  loss w = {.call = a, .parameter = a->num[1].f, .value = huber_value};
  return reduce_plain(&w, (int)a->num[0].i);
}

static dlua_status huber_vector(const dlua_args *a) {
  return reduce_vector(a, (int)a->num[0].i, f32_rows()->huber_loss);
}

static dlua_status huber_team(const dlua_args *a) {
  loss w = {.call = a, .parameter = a->num[1].f, .value = huber_value};
  return reduce_team(&w, (int)a->num[0].i);
}

static dlua_tensor *clamp(dlua_scope *s, dlua_tensor *x, double limit) {
  return dlua_call(s, &dlua_op_clamp, dlua_t(x), dlua_f(-limit), dlua_f(limit));
}

static void huber_back(dlua_back *b) {
  give_difference(b, clamp(b->s, difference(b), b->num[1].f));
}

const dlua_op dlua_op_huber_loss = {
    .name = "huber_loss",
    .sig = "x:T, target:T, reduction:e{mean|sum|none}=mean, delta:f=1 -> loss",
    .doc = "Half the squared error up to delta, delta (|x - target| - delta / 2) beyond.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = huber_shape,
    .cpu = huber_cpu,
    .fast = (dlua_kernel *const[]){huber_vector, huber_team, NULL},
    .back = huber_back,
    .save = "x target",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};

static dlua_status smooth_l1_cpu(const dlua_args *a) {
  loss w = {.call = a, .parameter = a->num[1].f, .value = smooth_l1_value};
  return reduce_plain(&w, (int)a->num[0].i);
}

static dlua_status smooth_l1_vector(const dlua_args *a) {
  return reduce_vector(a, (int)a->num[0].i, f32_rows()->smooth_l1_loss);
}

static dlua_status smooth_l1_team(const dlua_args *a) {
  loss w = {.call = a, .parameter = a->num[1].f, .value = smooth_l1_value};
  return reduce_team(&w, (int)a->num[0].i);
}

static void smooth_l1_back(dlua_back *b) {
  double beta = b->num[1].f;
  if (beta == 0)
    l1_back(b);
  else
    give_difference(b, clamp(b->s, dlua_scale(b->s, difference(b), 1 / beta), 1));
}

const dlua_op dlua_op_smooth_l1_loss = {
    .name = "smooth_l1_loss",
    .sig = "x:T, target:T, reduction:e{mean|sum|none}=mean, beta:f=1 -> loss",
    .doc = "(x - target)^2 / (2 beta) up to beta, |x - target| - beta / 2 beyond.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = smooth_l1_shape,
    .cpu = smooth_l1_cpu,
    .fast = (dlua_kernel *const[]){smooth_l1_vector, smooth_l1_team, NULL},
    .back = smooth_l1_back,
    .save = "x target",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- binary cross entropy

static double clamped_log(double x) { return x > 0 ? fmax(log(x), -100) : x == 0 ? -100 : NAN; }

static double bce_value(const loss *w, double x, double t, int64_t i) {
  double value = -t * clamped_log(x) - (1 - t) * clamped_log(1 - x);
  return weight_at(w, 2, i) * value;
}

// A score in the place of a probability would give nan; what is nan already says so itself.
static dlua_status check_probabilities(const dlua_args *a) {
  dlua_tensor *x = a->in[0];
  int64_t n = dlua_numel(x);
  for (int64_t k = 0; k < n; k++) {
    double p = dlua_real(x, k);
    if (p < 0 || p > 1)
      return dlua_fail(DLUA_BAD_ARGUMENT,
                       "bce_loss: x %g at position %lld is outside 0..1; bce_with_logits takes "
                       "scores (x %s)",
                       p, (long long)k + 1, dlua_shape_text(x));
  }
  return DLUA_OK;
}

static dlua_status bce_cpu(const dlua_args *a) {
  DLUA_TRY(check_probabilities(a));
  return reduce_plain(&(loss){.call = a, .value = bce_value}, (int)a->num[0].i);
}

static dlua_status bce_vector(const dlua_args *a) {
  if (a->in[0]->dtype == DLUA_F32) DLUA_TRY(check_probabilities(a));
  return reduce_vector(a, (int)a->num[0].i, f32_rows()->bce_loss);
}

static dlua_status bce_team(const dlua_args *a) {
  DLUA_TRY(check_probabilities(a));
  return reduce_team(&(loss){.call = a, .value = bce_value}, (int)a->num[0].i);
}

static dlua_tensor *times_weight(dlua_back *b, dlua_tensor *g) {
  dlua_tensor *weight = dlua_saved(b, "weight");
  return weight == NULL ? g : dlua_mul(b->s, g, weight);
}

static dlua_tensor *log_floor(dlua_scope *s, dlua_tensor *x) {
  dlua_tensor *y = dlua_call(s, &dlua_op_log, dlua_t(x));
  return dlua_call(s, &dlua_op_clamp, dlua_t(y), dlua_f(-100), dlua_none());
}

// gx = (x - t) / max(x (1 - x), 1e-12), the guard of PyTorch; gt = log(1 - x) - log(x).
static void bce_back(dlua_back *b) {
  dlua_scope *s = b->s;
  refuse_weight_gradient(b, 2, "bce_loss: weight");
  dlua_tensor *x = dlua_saved(b, "x"), *rest = dlua_sub(s, dlua_num(s, 1), x);
  dlua_tensor *g = times_weight(b, each_gradient(b, (int)b->num[0].i));
  if (dlua_needs(b, 0)) {
    dlua_tensor *spread =
        dlua_call(s, &dlua_op_clamp, dlua_t(dlua_mul(s, x, rest)), dlua_f(1e-12), dlua_none());
    dlua_give(b, 0, dlua_mul(s, g, dlua_div(s, difference(b), spread)));
  }
  if (dlua_needs(b, 1))
    dlua_give(b, 1, dlua_mul(s, g, dlua_sub(s, log_floor(s, rest), log_floor(s, x))));
}

const dlua_op dlua_op_bce_loss = {
    .name = "bce_loss",
    .sig = "x:T(0.05,0.95), target:T(0,1), weight:T?, reduction:e{mean|sum|none}=mean -> loss",
    .doc =
        "Binary cross entropy -t log(x) - (1 - t) log(1 - x) of probabilities x; logarithms stop "
        "at -100.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = weighted_shape,
    .cpu = bce_cpu,
    .fast = (dlua_kernel *const[]){bce_vector, bce_team, NULL},
    .back = bce_back,
    .save = "x target weight",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};

static double softplus_minus(double x) { return log1p(exp(-fabs(x))) + (x < 0 ? -x : 0); }

static double logits_value(const loss *w, double x, double t, int64_t i) {
  double factor = w->call->in[3] ? (weight_at(w, 3, i) - 1) * t + 1 : 1;
  return weight_at(w, 2, i) * ((1 - t) * x + factor * softplus_minus(x));
}

static dlua_status logits_cpu(const dlua_args *a) {
  return reduce_plain(&(loss){.call = a, .value = logits_value}, (int)a->num[0].i);
}

static dlua_status logits_vector(const dlua_args *a) {
  return reduce_vector(a, (int)a->num[0].i, f32_rows()->bce_with_logits);
}

static dlua_status logits_team(const dlua_args *a) {
  return reduce_team(&(loss){.call = a, .value = logits_value}, (int)a->num[0].i);
}

// With f = (pos_weight - 1) t + 1: gx = (1 - t) - f (1 - sigmoid(x)), gt = -x + (pos_weight - 1)
// softplus(-x).
static void logits_back(dlua_back *b) {
  dlua_scope *s = b->s;
  refuse_weight_gradient(b, 2, "bce_with_logits: weight");
  refuse_weight_gradient(b, 3, "bce_with_logits: pos_weight");
  dlua_tensor *x = dlua_saved(b, "x"), *t = dlua_saved(b, "target");
  dlua_tensor *pos = dlua_saved(b, "pos_weight"), *one = dlua_num(s, 1);
  dlua_tensor *g = times_weight(b, each_gradient(b, (int)b->num[0].i));
  dlua_tensor *more = pos ? dlua_sub(s, pos, one) : NULL;
  if (dlua_needs(b, 0)) {
    dlua_tensor *p = dlua_call(s, &dlua_op_sigmoid, dlua_t(x)), *slope = dlua_sub(s, p, t);
    if (more) slope = dlua_sub(s, slope, dlua_mul(s, dlua_mul(s, more, t), dlua_sub(s, one, p)));
    dlua_give(b, 0, dlua_mul(s, g, slope));
  }
  if (dlua_needs(b, 1)) {
    dlua_tensor *slope = dlua_neg(s, x);
    if (more) {
      dlua_tensor *soft = dlua_call(s, &dlua_op_softplus, dlua_t(slope));
      slope = dlua_add(s, slope, dlua_mul(s, more, soft));
    }
    dlua_give(b, 1, dlua_mul(s, g, slope));
  }
}

const dlua_op dlua_op_bce_with_logits = {
    .name = "bce_with_logits",
    .sig = "x:T, target:T(0,1), weight:T?, pos_weight:T?, reduction:e{mean|sum|none}=mean -> loss",
    .doc =
        "Binary cross entropy of sigmoid(x), computed without overflow; pos_weight multiplies the "
        "part of target.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = weighted_shape,
    .cpu = logits_cpu,
    .fast = (dlua_kernel *const[]){logits_vector, logits_team, NULL},
    .back = logits_back,
    .save = "x target weight pos_weight",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- kl_div

static double kl_value(const loss *w, double x, double t, int64_t i) {
  (void)i;
  if (w->log_target) return exp(t) * (t - x);
  return t == 0 ? 0 : t * (log(t) - x);
}

static dlua_status kl_cpu(const dlua_args *a) {
  loss w = {.call = a, .log_target = a->num[0].i != 0, .value = kl_value};
  return reduce_plain(&w, (int)a->num[1].i);
}

static dlua_status kl_vector(const dlua_args *a) {
  if (a->num[0].i) return DLUA_DECLINED; // log_target
  return reduce_vector(a, (int)a->num[1].i, f32_rows()->kl_div);
}

static dlua_status kl_team(const dlua_args *a) {
  loss w = {.call = a, .log_target = a->num[0].i != 0, .value = kl_value};
  return reduce_team(&w, (int)a->num[1].i);
}

// Of t (log t - x): gx = -t, gt = log t + 1 - x (0 where t is 0); of e^t (t - x): gx = -e^t, gt =
// e^t (t - x + 1).
static void kl_back(dlua_back *b) {
  dlua_scope *s = b->s;
  bool log_target = b->num[0].i != 0;
  dlua_tensor *x = dlua_saved(b, "x"), *t = dlua_saved(b, "target");
  dlua_tensor *g = each_gradient(b, (int)b->num[1].i);
  dlua_tensor *p = log_target ? dlua_call(s, &dlua_op_exp, dlua_t(t)) : t;
  dlua_give(b, 0, dlua_neg(s, dlua_mul(s, g, p)));
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *log_p = log_target ? t : dlua_call(s, &dlua_op_log, dlua_t(t));
  dlua_tensor *slope = dlua_add(s, dlua_sub(s, log_p, x), dlua_num(s, 1));
  if (log_target) {
    slope = dlua_mul(s, slope, p);
  } else {
    dlua_tensor *zero = dlua_call(s, &dlua_op_eq, dlua_t(t), dlua_t(dlua_num(s, 0)));
    slope = dlua_call(s, &dlua_op_masked_fill, dlua_t(slope), dlua_t(zero), dlua_f(0));
  }
  dlua_give(b, 1, dlua_mul(s, g, slope));
}

const dlua_op dlua_op_kl_div = {
    .name = "kl_div",
    .sig = "x:T, target:T(0.05,0.95), log_target:b=false, "
           "reduction:e{mean|sum|none|batchmean}=mean -> loss",
    .doc = "Kullback-Leibler divergence target (log(target) - x) of log-probabilities x; batchmean "
           "divides by the size of dimension 1.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = kl_div_shape,
    .cpu = kl_cpu,
    .fast = (dlua_kernel *const[]){kl_vector, kl_team, NULL},
    .back = kl_back,
    .save = "x target",
    .contiguous = "x target",
    .autocast = DLUA_CAST_F32,
};
