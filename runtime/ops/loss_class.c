// loss_class.c - nll_loss and cross_entropy: x holds classes along dimension 2 ({n,k}, {n,k,…}) or
// is one sample {k}.
//
// Both come down to weights q of the classes at every position p: the loss is sum_c q_c (lse -
// x_c), for nll_loss -sum_c q_c x_c. For a label t, q is (1 - s) w_t at t plus s/k w_c everywhere
// (s: label smoothing); for probabilities w_c ((1 - s) t_c + s/k). The gradient of cross_entropy is
// then softmax(x) sum(q) - q: one pass, no logarithm. The mean over labels divides by the sum of
// w_t, over probabilities by the number of positions, all as in PyTorch.
#include <math.h>
#include <string.h>

#include "../cpu/fold.h"
#include "../cpu/simd.h"
#include "../parallel.h"
#include "loss.h"
#include "reduce.h"

// One call, whichever the op: x lies as outer × k × inner, a position is one of outer × inner.
typedef struct classes {
  const dlua_args *call;
  const dlua_tensor *x, *target, *weight, *g; // g: only in gradients
  dlua_tensor *out;
  int64_t k, inner, positions, ignore;
  double smoothing, weight_sum, norm;
  bool probabilities, log_input; // log_input: x holds log-probabilities (nll_loss)
  bool vectors, columns;         // f32 rows that lie contiguous; rows that lie side by side
  int reduction;
  double *losses; // of every position
} classes;

static double at(const dlua_tensor *x, int64_t k) {
  return x->dtype == DLUA_F32 ? (double)dlua_f32(x)[k] : dlua_f64(x)[k];
}

static int class_dim(const dlua_tensor *x) { return x->ndim > 1; }

// The label at a position, as the script wrote it.
static int64_t label_at(const classes *w, int64_t p) {
  const dlua_tensor *t = w->target;
  if (t->dtype == DLUA_I64) return dlua_i64(t)[p];
  if (t->dtype == DLUA_I32) return ((const int32_t *)dlua_data(t))[p];
  return ((const uint8_t *)dlua_data(t))[p];
}

static double class_weight(const classes *w, int64_t c) { return w->weight ? at(w->weight, c) : 1; }

static int64_t position_start(const classes *w, int64_t p) {
  return p / w->inner * w->inner * w->k + p % w->inner;
}

// ---------------------------------------------------------------- set-up

static void measure(classes *w) {
  const dlua_tensor *x = w->x;
  int dim = class_dim(x);
  w->k = x->size[dim], w->inner = 1;
  for (int d = dim + 1; d < x->ndim; d++) w->inner *= x->size[d];
  w->positions = (dim ? x->size[0] : 1) * w->inner;
  w->probabilities = !w->log_input && dlua_is_float(w->target->dtype);
  w->vectors = w->inner == 1 && x->dtype == DLUA_F32;
  w->columns = w->inner >= 8 && x->dtype == DLUA_F32;
}

// Checks every label and adds up what the mean is divided by.
static dlua_status weigh(classes *w) {
  w->weight_sum = 0, w->norm = 0;
  for (int64_t c = 0; c < w->k; c++) w->weight_sum += class_weight(w, c);
  if (w->probabilities) w->norm = (double)w->positions;
  for (int64_t p = 0; p < w->positions && !w->probabilities; p++) {
    int64_t label = label_at(w, p);
    if (label == w->ignore) continue;
    if (label < 1 || label > w->k)
      return dlua_fail(
          DLUA_BAD_ARGUMENT,
          "%s: target %lld at position %lld is outside 1..%lld (class labels start at 1)",
          w->call->op->name, (long long)label, (long long)p + 1, (long long)w->k);
    w->norm += class_weight(w, label - 1);
  }
  if (w->reduction != DLUA_MEAN) w->norm = 1;
  return DLUA_OK;
}

// The weights q at position p, one per class; their sum. 0 for an ignored label.
static double fill_weights(const classes *w, int64_t p, double *q) {
  double even = w->smoothing / (double)w->k, sure = 1 - w->smoothing, sum = 0;
  if (w->probabilities) {
    int64_t start = position_start(w, p);
    for (int64_t c = 0; c < w->k; c++) {
      q[c] = class_weight(w, c) * (sure * at(w->target, start + c * w->inner) + even);
      sum += q[c];
    }
    return sum;
  }
  int64_t label = label_at(w, p);
  bool ignored = label == w->ignore;
  for (int64_t c = 0; c < w->k; c++) q[c] = ignored ? 0 : even * class_weight(w, c);
  if (ignored) return 0;
  q[label - 1] += sure * class_weight(w, label - 1);
  return sure * class_weight(w, label - 1) + even * w->weight_sum;
}

// ---------------------------------------------------------------- forward

// log(sum(exp(x))) of a position as its largest x and the rest, which keeps differences exact.
typedef struct lse {
  double top, rest;
} lse;

static lse log_sum_exp(const classes *w, int64_t start) {
  if (w->log_input) return (lse){0, 0};
  if (w->vectors) {
    float top;
    double rest = dlua_fold_simd()->log_sum_exp(dlua_f32(w->x) + start, w->k, &top);
    return (lse){(double)top, rest};
  }
  double top = -INFINITY, sum = 0;
  for (int64_t c = 0; c < w->k; c++) {
    double e = at(w->x, start + c * w->inner);
    if (!(e <= top) && !isnan(top)) top = e;
  }
  for (int64_t c = 0; c < w->k; c++) sum += exp(at(w->x, start + c * w->inner) - top);
  return (lse){top, log(sum)};
}

// lse - x_c.
static double minus_log(const classes *w, lse l, int64_t start, int64_t c) {
  return (l.top - at(w->x, start + c * w->inner)) + l.rest;
}

// The same for n positions side by side.
static void log_sum_exps(const classes *w, int64_t p, int64_t n, lse *l) {
  float tops[16], sums[16];
  if (!w->columns || w->log_input) {
    for (int64_t j = 0; j < n; j++) l[j] = log_sum_exp(w, position_start(w, p + j));
    return;
  }
  const float *x = dlua_f32(w->x) + position_start(w, p);
  dlua_fold_simd()->column_sums(x, w->k, w->inner, n, tops, sums);
  for (int64_t j = 0; j < n; j++) l[j] = (lse){(double)tops[j], log((double)sums[j])};
}

// How many positions from p on, sixteen at most, lie side by side.
static int64_t neighbours(const classes *w, int64_t p, int64_t to) {
  int64_t n = w->inner - p % w->inner;
  if (n > to - p) n = to - p;
  return n < 16 ? n : 16;
}

// The loss of probabilities over a contiguous f32 row without class weights: sum_c t_c (lse - x_c)
// in vectors, and its mean over all classes for what smoothing takes from them.
static double soft_row_loss(const classes *w, int64_t start, lse l) {
  enum { SOME = 1024 };
  float values[SOME];
  dlua_value parts[2] = {{.f = l.top}, {.f = l.rest}};
  double loss = 0;
  for (int64_t c = 0; c < w->k; c += SOME) {
    int64_t n = w->k - c < SOME ? w->k - c : SOME;
    char *p[3] = {(char *)values, (char *)(dlua_f32(w->x) + start + c),
                  (char *)(dlua_f32(w->target) + start + c)};
    dlua_simd()->of[DLUA_F32].soft_label(parts, n, p, (int64_t[]){4, 4, 4});
    loss += dlua_fold_simd()->sum(values, n);
  }
  if (w->smoothing == 0) return loss;
  double mean = l.top + l.rest - dlua_fold_simd()->sum(dlua_f32(w->x) + start, w->k) / (double)w->k;
  return (1 - w->smoothing) * loss + w->smoothing * mean;
}

// sum_c q_c (lse - x_c); classes of weight 0 count nothing, though x may be -inf there.
static double position_loss(const classes *w, int64_t p, lse l) {
  int64_t start = position_start(w, p), label = w->probabilities ? 0 : label_at(w, p);
  if (!w->probabilities && label == w->ignore) return 0;
  if (w->probabilities && w->vectors && !w->weight && w->target->dtype == DLUA_F32)
    return soft_row_loss(w, start, l);
  double even = w->smoothing / (double)w->k, sure = 1 - w->smoothing, loss = 0;
  if (!w->probabilities)
    loss = sure * class_weight(w, label - 1) * minus_log(w, l, start, label - 1);
  if (!w->probabilities && even == 0) return loss;
  for (int64_t c = 0; c < w->k; c++) {
    double t = w->probabilities ? sure * at(w->target, start + c * w->inner) : 0;
    double q = class_weight(w, c) * (t + even);
    if (q != 0) loss += q * minus_log(w, l, start, c);
  }
  return loss;
}

static void position_losses(void *context, int64_t from, int64_t to) {
  const classes *w = context;
  lse l[16];
  for (int64_t p = from, n; p < to; p += n) {
    n = neighbours(w, p, to);
    log_sum_exps(w, p, n, l);
    for (int64_t j = 0; j < n; j++) {
      if (w->losses)
        w->losses[p + j] = position_loss(w, p + j, l[j]);
      else
        dlua_put(w->out, p + j, position_loss(w, p + j, l[j]));
    }
  }
}

static dlua_status forward(classes *w, bool team) {
  DLUA_TRY(weigh(w));
  double few[512], sum = 0;
  size_t bytes = (size_t)w->positions * sizeof *w->losses;
  void *many = NULL;
  if (w->reduction != DLUA_NONE) {
    if (bytes > sizeof few) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, &many));
    w->losses = many ? many : few;
  }
  double cost = (w->vectors || w->columns ? 10 : 20) * (double)w->k;
  if (team)
    dlua_parallel(w->positions, cost, position_losses, w);
  else
    position_losses(w, 0, w->positions);
  for (int64_t p = 0; p < w->positions && w->losses; p++) sum += w->losses[p];
  if (w->losses) dlua_put(w->out, 0, sum / w->norm);
  if (many) dlua_free(dlua_cpu(), many, bytes);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient and weights

static double gradient_scale(const classes *w, int64_t p) {
  if (!w->g) return 1 / w->norm;
  return at(w->g, w->reduction == DLUA_NONE ? p : 0) / w->norm;
}

// out = scale (softmax(x) sum(q) - q) at one position, without vectors.
static void put_gradient(const classes *w, int64_t p, double scale, double *q) {
  int64_t start = position_start(w, p);
  double sum = fill_weights(w, p, q);
  lse l = sum == 0 ? (lse){0, 0} : log_sum_exp(w, start);
  for (int64_t c = 0; c < w->k; c++) {
    double share = sum == 0 ? 0 : exp(-minus_log(w, l, start, c)) * sum;
    dlua_put(w->out, start + c * w->inner, scale * (share - q[c]));
  }
}

// The same for a plain label of a contiguous f32 row.
static void put_gradient_row(const classes *w, int64_t p, double scale) {
  int64_t label = label_at(w, p), start = p * w->k;
  float *gx = dlua_f32(w->out) + start;
  if (label == w->ignore) {
    memset(gx, 0, (size_t)w->k * sizeof *gx);
    return;
  }
  float weight = (float)(scale * class_weight(w, label - 1));
  dlua_fold_simd()->softmax(gx, dlua_f32(w->x) + start, w->k, weight);
  gx[label - 1] -= weight;
}

// The same for plain labels of n positions side by side.
static void put_gradient_columns(const classes *w, int64_t p, int64_t n) {
  float scale[16] = {0};
  int64_t start = position_start(w, p);
  for (int64_t j = 0; j < n; j++) {
    int64_t label = label_at(w, p + j);
    bool counts = label != w->ignore;
    scale[j] = counts ? (float)(gradient_scale(w, p + j) * class_weight(w, label - 1)) : 0;
  }
  float *gx = dlua_f32(w->out) + start;
  dlua_fold_simd()->softmax_columns(gx, dlua_f32(w->x) + start, w->k, w->inner, n, scale);
  for (int64_t j = 0; j < n; j++) {
    int64_t label = label_at(w, p + j);
    if (label != w->ignore) gx[(label - 1) * w->inner + j] -= scale[j];
    for (int64_t c = 0; c < w->k && label == w->ignore; c++) gx[c * w->inner + j] = 0;
  }
}

typedef struct gradients {
  const classes *w;
  void (*put)(const classes *w, int64_t p, double scale, double *q);
  dlua_status *status;
} gradients;

static void put_weights(const classes *w, int64_t p, double scale, double *q) {
  int64_t start = position_start(w, p);
  fill_weights(w, p, q);
  for (int64_t c = 0; c < w->k; c++) dlua_put(w->out, start + c * w->inner, scale * q[c]);
}

static void put_positions(void *context, int64_t from, int64_t to) {
  const gradients *gradient = context;
  const classes *w = gradient->w;
  double few[512];
  void *many = NULL;
  size_t bytes = (size_t)w->k * sizeof *few;
  bool plain = gradient->put == put_gradient && !w->probabilities && w->smoothing == 0;
  bool rows = plain && w->vectors, columns = plain && w->columns;
  for (int64_t p = from, n; columns && p < to; p += n)
    put_gradient_columns(w, p, n = neighbours(w, p, to));
  if (columns) return;
  if (!rows && bytes > sizeof few) {
    dlua_status status = dlua_alloc(dlua_cpu(), bytes, &many);
    if (status != DLUA_OK) {
      *gradient->status = status;
      return;
    }
  }
  for (int64_t p = from; p < to; p++) {
    double scale = gradient_scale(w, p);
    if (rows)
      put_gradient_row(w, p, scale);
    else
      gradient->put(w, p, scale, many ? many : few);
  }
  if (many) dlua_free(dlua_cpu(), many, bytes);
}

static dlua_status put_all(classes *w, bool team,
                           void (*put)(const classes *w, int64_t p, double scale, double *q)) {
  DLUA_TRY(weigh(w));
  dlua_status status = DLUA_OK;
  gradients gradient = {.w = w, .put = put, .status = &status};
  double cost = (w->vectors || w->columns ? 10 : 25) * (double)w->k;
  if (team)
    dlua_parallel(w->positions, cost, put_positions, &gradient);
  else
    put_positions(&gradient, 0, w->positions);
  // A worker's message stays in its thread.
  if (status == DLUA_NO_MEMORY) dlua_fail(status, "%s: out of memory", w->call->op->name);
  return status;
}

// ---------------------------------------------------------------- shapes

// The shape of x without its classes.
static int label_shape(const dlua_tensor *x, int64_t *size) {
  return dlua_reduced_shape(x, 1u << class_dim(x), false, size);
}

static bool has_label_shape(const dlua_tensor *x, const dlua_tensor *target) {
  int64_t size[DLUA_MAX_DIMS];
  int n = label_shape(x, size);
  return target->ndim == n && memcmp(size, target->size, (size_t)n * sizeof *size) == 0;
}

static dlua_status check_x(const dlua_args *a, const dlua_tensor *x, const dlua_tensor *weight) {
  const char *name = a->op->name;
  if (!dlua_is_float(x->dtype))
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: x must be a float tensor, got %s %s", name,
                     dlua_dtype_name(x->dtype), dlua_shape_text(x));
  if (x->ndim == 0 || x->size[class_dim(x)] == 0)
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: x %s has no classes; it must be {n,k} or {k}", name,
                     dlua_shape_text(x));
  int64_t k = x->size[class_dim(x)];
  if (weight && (weight->ndim != 1 || weight->size[0] != k || !dlua_is_float(weight->dtype)))
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "%s: weight must be floats {%lld}, one per class, got %s %s", name,
                     (long long)k, dlua_dtype_name(weight->dtype), dlua_shape_text(weight));
  return DLUA_OK;
}

static dlua_status check_labels(const dlua_args *a, const dlua_tensor *x,
                                const dlua_tensor *target) {
  int64_t size[DLUA_MAX_DIMS];
  if (has_label_shape(x, target)) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: target must be %s for x %s, got %s", a->op->name,
                   dlua_sizes_text(label_shape(x, size), size), dlua_shape_text(x),
                   dlua_shape_text(target));
}

// Labels or probabilities.
static dlua_status check_target(const dlua_args *a, const dlua_tensor *x,
                                const dlua_tensor *target) {
  bool floats = dlua_is_float(target->dtype), labels = !floats && target->dtype != DLUA_BOOL;
  if (labels) return check_labels(a, x, target);
  if (floats && dlua_same_shape(x, target)) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT,
                   "%s: target must be integer class labels (i64, i32, u8) or probabilities of x's "
                   "shape, got %s %s (x %s)",
                   a->op->name, dlua_dtype_name(target->dtype), dlua_shape_text(target),
                   dlua_shape_text(x));
}

static dlua_status check_smoothing(const dlua_args *a, double smoothing) {
  if (smoothing >= 0 && smoothing <= 1) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: label_smoothing must lie in 0..1, got %g", a->op->name,
                   smoothing);
}

static void loss_spec(dlua_args *a, int reduction) {
  int64_t size[DLUA_MAX_DIMS];
  int n = label_shape(a->in[0], size);
  dlua_spec_shape(a, 0, reduction == DLUA_NONE ? n : 0, size);
}

// ---------------------------------------------------------------- nll_loss

static dlua_status nll_shape(dlua_args *a) {
  DLUA_TRY(check_x(a, a->in[0], a->in[2]));
  DLUA_TRY(check_labels(a, a->in[0], a->in[1]));
  loss_spec(a, (int)a->num[1].i);
  return DLUA_OK;
}

static classes nll_call(const dlua_args *a) {
  classes w = {.call = a, .x = a->in[0], .target = a->in[1], .weight = a->in[2], .out = a->out[0]};
  w.ignore = a->num[0].i, w.reduction = (int)a->num[1].i, w.log_input = true;
  measure(&w);
  return w;
}

static dlua_status nll_cpu(const dlua_args *a) {
  classes w = nll_call(a);
  return forward(&w, false);
}

static dlua_status nll_team(const dlua_args *a) {
  classes w = nll_call(a);
  return forward(&w, true);
}

static void refuse_weight_gradient(dlua_back *b, int input, const char *name) {
  if (dlua_needs(b, input))
    dlua_failed(b->s, dlua_fail(DLUA_BAD_STATE, "%s: weight has no gradient; detach it", name));
}

// A gradient per position with its class dimension back; one for all stays as it is.
static dlua_tensor *with_classes(dlua_back *b, dlua_tensor *g, int reduction, int ndim) {
  if (reduction != DLUA_NONE) return g;
  return dlua_call(b->s, &dlua_op_unsqueeze, dlua_t(g), dlua_i(ndim > 1));
}

static void nll_back(dlua_back *b) {
  refuse_weight_gradient(b, 2, "nll_loss");
  dlua_tensor *x = dlua_saved(b, "x");
  dlua_tensor *q =
      dlua_call(b->s, &dlua_op_cross_entropy_weights, dlua_t(x), dlua_t(dlua_saved(b, "target")),
                dlua_t(dlua_saved(b, "weight")), dlua_v(&b->num[0]), dlua_f(0), dlua_v(&b->num[1]));
  if (x == NULL) return;
  dlua_tensor *g = with_classes(b, b->g[0], (int)b->num[1].i, x->ndim);
  dlua_give(b, 0, dlua_neg(b->s, dlua_mul(b->s, q, g)));
}

const dlua_op dlua_op_nll_loss = {
    .name = "nll_loss",
    .sig = "x:T, target:I, weight:T?, ignore_index:i=-100, reduction:e{mean|sum|none}=mean -> loss",
    .doc =
        "Minus the log-probability x of the target class (labels from 1); the mean is weighted by "
        "the classes' weights.",
    .dtype = DLUA_SAME_FLOAT,
    .shape = nll_shape,
    .cpu = nll_cpu,
    .fast = (dlua_kernel *const[]){nll_team, NULL},
    .back = nll_back,
    .save = "x target weight",
    .contiguous = "*",
};

// ---------------------------------------------------------------- cross_entropy

static dlua_status cross_entropy_shape(dlua_args *a) {
  DLUA_TRY(check_x(a, a->in[0], a->in[2]));
  DLUA_TRY(check_target(a, a->in[0], a->in[1]));
  DLUA_TRY(check_smoothing(a, a->num[1].f));
  loss_spec(a, (int)a->num[2].i);
  return DLUA_OK;
}

// first: the position of x among the inputs; target and weight follow.
static classes entropy_call(const dlua_args *a, int first, bool plain) {
  classes w = {.call = a, .x = a->in[first], .target = a->in[first + 1], .out = a->out[0]};
  w.weight = a->in[first + 2], w.g = first ? a->in[0] : NULL;
  w.ignore = a->num[0].i, w.smoothing = a->num[1].f, w.reduction = (int)a->num[2].i;
  measure(&w);
  if (plain) w.vectors = w.columns = false;
  return w;
}

static dlua_status cross_entropy_cpu(const dlua_args *a) {
  classes w = entropy_call(a, 0, true);
  return forward(&w, false);
}

static dlua_status cross_entropy_team(const dlua_args *a) {
  classes w = entropy_call(a, 0, false);
  return forward(&w, true);
}

// Of probabilities t: -g w_c (1 - s) log softmax(x) / norm.
static dlua_tensor *target_gradient(dlua_back *b, dlua_tensor *x, dlua_tensor *weight,
                                    dlua_tensor *g) {
  int dim = class_dim(x);
  dlua_tensor *slope = dlua_call(b->s, &dlua_op_log_softmax, dlua_t(x), dlua_i(dim));
  if (weight) {
    int64_t size[DLUA_MAX_DIMS];
    for (int k = 0; k < x->ndim; k++) size[k] = k == dim ? x->size[dim] : 1;
    weight = dlua_call(b->s, &dlua_op_reshape, dlua_t(weight), dlua_list(x->ndim, size));
    slope = dlua_mul(b->s, slope, weight);
  }
  double positions = (double)dlua_numel(x) / (double)x->size[dim];
  double scale = (b->num[1].f - 1) / (b->num[2].i == DLUA_MEAN ? positions : 1);
  return dlua_mul(b->s, dlua_scale(b->s, slope, scale), g);
}

static void cross_entropy_back(dlua_back *b) {
  refuse_weight_gradient(b, 2, "cross_entropy");
  dlua_tensor *x = dlua_saved(b, "x"), *target = dlua_saved(b, "target");
  dlua_tensor *weight = dlua_saved(b, "weight");
  if (x == NULL) return;
  if (dlua_needs(b, 0))
    dlua_give(b, 0,
              dlua_call(b->s, &dlua_op_cross_entropy_grad, dlua_t(b->g[0]), dlua_t(x),
                        dlua_t(target), dlua_t(weight), dlua_v(&b->num[0]), dlua_v(&b->num[1]),
                        dlua_v(&b->num[2])));
  if (dlua_needs(b, 1))
    dlua_give(b, 1,
              target_gradient(b, x, weight, with_classes(b, b->g[0], (int)b->num[2].i, x->ndim)));
}

const dlua_op dlua_op_cross_entropy = {
    .name = "cross_entropy",
    .sig = "x:T, target:T, weight:T?, ignore_index:i=-100, label_smoothing:f=0, "
           "reduction:e{mean|sum|none}=mean -> loss",
    .doc =
        "Cross entropy between softmax(x) along dimension 2 and the target: integer class labels "
        "from 1, or probabilities of x's shape. The mean over labels is weighted by the classes' "
        "weights; label_smoothing mixes in the even distribution.",
    .dtype = DLUA_ANY_DTYPE,
    .shape = cross_entropy_shape,
    .cpu = cross_entropy_cpu,
    .fast = (dlua_kernel *const[]){cross_entropy_team, NULL},
    .back = cross_entropy_back,
    .save = "x target weight",
    .contiguous = "*",
};

// ---------------------------------------------------------------- cross_entropy_grad

static dlua_status entropy_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *x = a->in[1];
  DLUA_TRY(check_x(a, x, a->in[3]));
  DLUA_TRY(check_target(a, x, a->in[2]));
  if (a->num[2].i == DLUA_NONE ? !has_label_shape(x, g) : g->ndim != 0)
    return dlua_shape_error(a, "g does not have the loss's shape");
  a->spec[0].dtype = x->dtype;
  dlua_spec_shape(a, 0, x->ndim, x->size);
  return DLUA_OK;
}

static dlua_status entropy_grad_cpu(const dlua_args *a) {
  classes w = entropy_call(a, 1, true);
  return put_all(&w, false, put_gradient);
}

static dlua_status entropy_grad_team(const dlua_args *a) {
  classes w = entropy_call(a, 1, false);
  return put_all(&w, true, put_gradient);
}

// out = g (softmax(x) W - q), W = sum_c q_c; h is the incoming gradient. By g: sum(h (p W - q))
// over what g was spread to. By x: the gradient of softmax for h g W.
static void entropy_grad_back(dlua_back *b) {
  dlua_scope *s = b->s;
  if (dlua_needs(b, 2))
    dlua_failed(s, dlua_fail(DLUA_BAD_STATE, "cross_entropy: the second derivative by the target "
                                             "is not there; detach it"));
  refuse_weight_gradient(b, 3, "cross_entropy");
  dlua_tensor *x = dlua_saved(b, "x"), *g = dlua_saved(b, "g"), *h = b->g[0];
  if (x == NULL) return;
  int64_t dim = class_dim(x);
  int reduction = (int)b->num[2].i;
  dlua_tensor *q = dlua_call(s, &dlua_op_cross_entropy_weights, dlua_t(x),
                             dlua_t(dlua_saved(b, "target")), dlua_t(dlua_saved(b, "weight")),
                             dlua_v(&b->num[0]), dlua_v(&b->num[1]), dlua_v(&b->num[2]));
  dlua_tensor *sum = dlua_call(s, &dlua_op_sum, dlua_t(q), dlua_list(1, &dim), dlua_i(1));
  dlua_tensor *p = dlua_call(s, &dlua_op_softmax, dlua_t(x), dlua_i(dim));
  if (dlua_needs(b, 0)) {
    dlua_tensor *slope = dlua_mul(s, h, dlua_sub(s, dlua_mul(s, p, sum), q));
    dlua_arg dims = reduction == DLUA_NONE ? dlua_list(1, &dim) : dlua_list(0, NULL);
    dlua_give(b, 0, dlua_call(s, &dlua_op_sum, dlua_t(slope), dims));
  }
  if (dlua_needs(b, 1)) {
    dlua_tensor *each = dlua_mul(s, sum, with_classes(b, g, reduction, x->ndim));
    dlua_give(
        b, 1,
        dlua_call(s, &dlua_op_softmax_grad, dlua_t(dlua_mul(s, h, each)), dlua_t(p), dlua_i(dim)));
  }
}

const dlua_op dlua_op_cross_entropy_grad = {
    .name = "cross_entropy_grad",
    .sig = "g:T, x:T, target:T, weight:T?, ignore_index:i=-100, label_smoothing:f=0, "
           "reduction:e{mean|sum|none}=mean -> gx",
    .doc = "The gradient of cross_entropy by x, g being that of the loss.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_HIDDEN,
    .shape = entropy_grad_shape,
    .cpu = entropy_grad_cpu,
    .fast = (dlua_kernel *const[]){entropy_grad_team, NULL},
    .back = entropy_grad_back,
    .save = "g x target weight",
    .contiguous = "*",
};

// ---------------------------------------------------------------- cross_entropy_weights

static dlua_status weights_shape(dlua_args *a) {
  DLUA_TRY(check_x(a, a->in[0], a->in[2]));
  DLUA_TRY(check_target(a, a->in[0], a->in[1]));
  return dlua_shape_same(a);
}

static dlua_status weights_cpu(const dlua_args *a) {
  classes w = entropy_call(a, 0, true);
  return put_all(&w, false, put_weights);
}

const dlua_op dlua_op_cross_entropy_weights = {
    .name = "cross_entropy_weights",
    .sig = "x:T, target:T, weight:T?, ignore_index:i=-100, label_smoothing:f=0, "
           "reduction:e{mean|sum|none}=mean -> q",
    .doc = "What every class of x's shape counts in cross_entropy or nll_loss, divided as the "
           "reduction divides. Carries no gradient.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = weights_shape,
    .cpu = weights_cpu,
    .contiguous = "*",
};
