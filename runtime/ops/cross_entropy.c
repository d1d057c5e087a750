// cross_entropy.c - nll_loss of log_softmax in one pass, with label smoothing and probabilities as
// targets; its gradient, softmax(x) sum(q) - q with the weights q of loss_class.c: one pass, no
// logarithm.
#include <math.h>
#include <string.h>

#include "../cpu/fold.h"
#include "../parallel.h"
#include "loss_class.h"
#include "reduce.h"

// Labels or probabilities.
static dlua_status check_target(const dlua_args *a, const dlua_tensor *x,
                                const dlua_tensor *target) {
  bool floats = dlua_is_float(target->dtype), labels = !floats && target->dtype != DLUA_BOOL;
  if (labels) return dlua_check_labels(a, x, target);
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

// first: the position of x among the inputs; target and weight follow.
static dlua_classes entropy_call(const dlua_args *a, int first, bool plain) {
  dlua_classes w = {.call = a, .x = a->in[first], .target = a->in[first + 1], .out = a->out[0]};
  w.weight = a->in[first + 2], w.g = first ? a->in[0] : NULL;
  w.ignore = a->num[0].i, w.smoothing = a->num[1].f, w.reduction = (int)a->num[2].i;
  dlua_classes_measure(&w);
  if (plain) w.vectors = w.columns = false;
  return w;
}

// ---------------------------------------------------------------- cross_entropy

static dlua_status cross_entropy_shape(dlua_args *a) {
  DLUA_TRY(dlua_check_classes(a, a->in[0], a->in[2]));
  DLUA_TRY(check_target(a, a->in[0], a->in[1]));
  DLUA_TRY(check_smoothing(a, a->num[1].f));
  dlua_class_loss_spec(a, (int)a->num[2].i);
  return DLUA_OK;
}

static dlua_status cross_entropy_cpu(const dlua_args *a) {
  dlua_classes w = entropy_call(a, 0, true);
  return dlua_class_loss(&w, false);
}

static dlua_status cross_entropy_team(const dlua_args *a) {
  dlua_classes w = entropy_call(a, 0, false);
  return dlua_class_loss(&w, true);
}

// Of probabilities t: -g w_c (1 - s) log softmax(x) / norm.
static dlua_tensor *target_gradient(dlua_back *b, dlua_tensor *x, dlua_tensor *weight,
                                    dlua_tensor *g) {
  int dim = dlua_class_dim(x);
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
  dlua_refuse_weight_gradient(b, 2, "cross_entropy");
  dlua_tensor *x = dlua_saved(b, "x"), *target = dlua_saved(b, "target");
  dlua_tensor *weight = dlua_saved(b, "weight");
  if (x == NULL) return;
  if (dlua_needs(b, 0))
    dlua_give(b, 0,
              dlua_call(b->s, &dlua_op_cross_entropy_grad, dlua_t(b->g[0]), dlua_t(x),
                        dlua_t(target), dlua_t(weight), dlua_v(&b->num[0]), dlua_v(&b->num[1]),
                        dlua_v(&b->num[2])));
  if (dlua_needs(b, 1))
    dlua_give(
        b, 1,
        target_gradient(b, x, weight, dlua_with_classes(b, b->g[0], (int)b->num[2].i, x->ndim)));
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
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- gradient and weights

// The weights q at position p, one per class; their sum. 0 for an ignored label.
static double fill_weights(const dlua_classes *w, int64_t p, double *q) {
  double even = w->smoothing / (double)w->k, sure = 1 - w->smoothing, sum = 0;
  if (w->probabilities) {
    int64_t start = dlua_position_start(w, p);
    for (int64_t c = 0; c < w->k; c++) {
      q[c] = dlua_class_weight(w, c) * (sure * dlua_real(w->target, start + c * w->inner) + even);
      sum += q[c];
    }
    return sum;
  }
  int64_t label = dlua_label_at(w, p);
  bool ignored = label == w->ignore;
  for (int64_t c = 0; c < w->k; c++) q[c] = ignored ? 0 : even * dlua_class_weight(w, c);
  if (ignored) return 0;
  q[label - 1] += sure * dlua_class_weight(w, label - 1);
  return sure * dlua_class_weight(w, label - 1) + even * w->weight_sum;
}

static double gradient_scale(const dlua_classes *w, int64_t p) {
  if (!w->g) return 1 / w->norm;
  return dlua_real(w->g, w->reduction == DLUA_NONE ? p : 0) / w->norm;
}

// out = scale (softmax(x) sum(q) - q) at one position, without vectors.
static void put_gradient(const dlua_classes *w, int64_t p, double scale, double *q) {
  int64_t start = dlua_position_start(w, p);
  double sum = fill_weights(w, p, q);
  dlua_lse l = sum == 0 ? (dlua_lse){0, 0} : dlua_log_sum_exp(w, start);
  for (int64_t c = 0; c < w->k; c++) {
    double share = sum == 0 ? 0 : exp(-dlua_minus_log(w, l, start, c)) * sum;
    dlua_put(w->out, start + c * w->inner, scale * (share - q[c]));
  }
}

// The same for a plain label of a contiguous f32 row.
static void put_gradient_row(const dlua_classes *w, int64_t p, double scale) {
  int64_t label = dlua_label_at(w, p), start = p * w->k;
  float *gx = dlua_f32(w->out) + start;
  if (label == w->ignore) {
    memset(gx, 0, (size_t)w->k * sizeof *gx);
    return;
  }
  float weight = (float)(scale * dlua_class_weight(w, label - 1));
  dlua_fold_simd()->softmax(gx, dlua_f32(w->x) + start, w->k, weight);
  gx[label - 1] -= weight;
}

// The same for plain labels of n positions side by side.
static void put_gradient_columns(const dlua_classes *w, int64_t p, int64_t n) {
  float scale[16] = {0};
  int64_t start = dlua_position_start(w, p);
  for (int64_t j = 0; j < n; j++) {
    int64_t label = dlua_label_at(w, p + j);
    bool counts = label != w->ignore;
    scale[j] = counts ? (float)(gradient_scale(w, p + j) * dlua_class_weight(w, label - 1)) : 0;
  }
  float *gx = dlua_f32(w->out) + start;
  dlua_fold_simd()->softmax_columns(gx, dlua_f32(w->x) + start, w->k, w->inner, n, scale);
  for (int64_t j = 0; j < n; j++) {
    int64_t label = dlua_label_at(w, p + j);
    if (label != w->ignore) gx[(label - 1) * w->inner + j] -= scale[j];
    for (int64_t c = 0; c < w->k && label == w->ignore; c++) gx[c * w->inner + j] = 0;
  }
}

typedef struct gradients {
  const dlua_classes *w;
  void (*put)(const dlua_classes *w, int64_t p, double scale, double *q);
  dlua_status *status;
} gradients;

static void put_weights(const dlua_classes *w, int64_t p, double scale, double *q) {
  int64_t start = dlua_position_start(w, p);
  fill_weights(w, p, q);
  for (int64_t c = 0; c < w->k; c++) dlua_put(w->out, start + c * w->inner, scale * q[c]);
}

static void put_positions(void *context, int64_t from, int64_t to) {
  const gradients *gradient = context;
  const dlua_classes *w = gradient->w;
  double few[512];
  void *many = NULL;
  size_t bytes = (size_t)w->k * sizeof *few;
  bool plain = gradient->put == put_gradient && !w->probabilities && w->smoothing == 0;
  bool rows = plain && w->vectors, columns = plain && w->columns;
  for (int64_t p = from, n; columns && p < to; p += n)
    put_gradient_columns(w, p, n = dlua_neighbours(w, p, to));
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

static dlua_status put_all(dlua_classes *w, bool team,
                           void (*put)(const dlua_classes *w, int64_t p, double scale, double *q)) {
  DLUA_TRY(dlua_classes_weigh(w));
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

// ---------------------------------------------------------------- cross_entropy_grad

static dlua_status entropy_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *x = a->in[1];
  DLUA_TRY(dlua_check_classes(a, x, a->in[3]));
  DLUA_TRY(check_target(a, x, a->in[2]));
  if (a->num[2].i == DLUA_NONE ? !dlua_has_label_shape(x, g) : g->ndim != 0)
    return dlua_shape_error(a, "g does not have the loss's shape");
  a->spec[0].dtype = x->dtype;
  dlua_spec_shape(a, 0, x->ndim, x->size);
  return DLUA_OK;
}

static dlua_status entropy_grad_cpu(const dlua_args *a) {
  dlua_classes w = entropy_call(a, 1, true);
  return put_all(&w, false, put_gradient);
}

static dlua_status entropy_grad_team(const dlua_args *a) {
  dlua_classes w = entropy_call(a, 1, false);
  return put_all(&w, true, put_gradient);
}

// out = g (softmax(x) W - q), W = sum_c q_c; h is the incoming gradient. By g: sum(h (p W - q))
// over what g was spread to. By x: the gradient of softmax for h g W.
static void entropy_grad_back(dlua_back *b) {
  dlua_scope *s = b->s;
  if (dlua_needs(b, 2))
    dlua_failed(s, dlua_fail(DLUA_BAD_STATE, "cross_entropy: the second derivative by the target "
                                             "is not there; detach it"));
  dlua_refuse_weight_gradient(b, 3, "cross_entropy");
  dlua_tensor *x = dlua_saved(b, "x"), *g = dlua_saved(b, "g"), *h = b->g[0];
  if (x == NULL) return;
  int64_t dim = dlua_class_dim(x);
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
    dlua_tensor *each = dlua_mul(s, sum, dlua_with_classes(b, g, reduction, x->ndim));
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
  DLUA_TRY(dlua_check_classes(a, a->in[0], a->in[2]));
  DLUA_TRY(check_target(a, a->in[0], a->in[1]));
  return dlua_shape_same(a);
}

static dlua_status weights_cpu(const dlua_args *a) {
  dlua_classes w = entropy_call(a, 0, true);
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
