// loss_class.c - the forward pass and the checks that nll_loss and cross_entropy share.
//
// Both come down to weights q of the classes at every position p: the loss is sum_c q_c (lse -
// x_c), for nll_loss -sum_c q_c x_c. For a label t, q is (1 - s) w_t at t plus s/k w_c everywhere
// (s: label smoothing); for probabilities w_c ((1 - s) t_c + s/k). The mean over labels divides by
// the sum of w_t, over probabilities by the number of positions, all as in PyTorch.
#include "loss_class.h"

#include <math.h>
#include <string.h>

#include "../cpu/fold.h"
#include "../cpu/simd.h"
#include "../parallel.h"
#include "reduce.h"

// ---------------------------------------------------------------- set-up

void dlua_classes_measure(dlua_classes *w) {
  const dlua_tensor *x = w->x;
  int dim = dlua_class_dim(x);
  w->k = x->size[dim], w->inner = 1;
  for (int d = dim + 1; d < x->ndim; d++) w->inner *= x->size[d];
  w->positions = (dim ? x->size[0] : 1) * w->inner;
  w->probabilities = !w->log_input && dlua_is_float(w->target->dtype);
  w->vectors = w->inner == 1 && x->dtype == DLUA_F32;
  w->columns = w->inner >= 8 && x->dtype == DLUA_F32;
}

// Checks every label and adds up what the mean is divided by.
dlua_status dlua_classes_weigh(dlua_classes *w) {
  w->weight_sum = 0, w->norm = 0;
  for (int64_t c = 0; c < w->k; c++) w->weight_sum += dlua_class_weight(w, c);
  if (w->probabilities) w->norm = (double)w->positions;
  for (int64_t p = 0; p < w->positions && !w->probabilities; p++) {
    int64_t label = dlua_label_at(w, p);
    if (label == w->ignore) continue;
    if (label < 1 || label > w->k)
      return dlua_fail(
          DLUA_BAD_ARGUMENT,
          "%s: target %lld at position %lld is outside 1..%lld (class labels start at 1)",
          w->call->op->name, (long long)label, (long long)p + 1, (long long)w->k);
    w->norm += dlua_class_weight(w, label - 1);
  }
  if (w->reduction != DLUA_MEAN) w->norm = 1;
  return DLUA_OK;
}

// ---------------------------------------------------------------- forward

dlua_lse dlua_log_sum_exp(const dlua_classes *w, int64_t start) {
  if (w->log_input) return (dlua_lse){0, 0};
  if (w->vectors) {
    float top;
    double rest = dlua_fold_simd()->log_sum_exp(dlua_f32(w->x) + start, w->k, &top);
    return (dlua_lse){(double)top, rest};
  }
  double top = -INFINITY, sum = 0;
  for (int64_t c = 0; c < w->k; c++) {
    double e = dlua_real(w->x, start + c * w->inner);
    if (!(e <= top) && !isnan(top)) top = e;
  }
  for (int64_t c = 0; c < w->k; c++) sum += exp(dlua_real(w->x, start + c * w->inner) - top);
  return (dlua_lse){top, log(sum)};
}

// The same for n positions side by side.
static void log_sum_exps(const dlua_classes *w, int64_t p, int64_t n, dlua_lse *l) {
  float tops[16], sums[16];
  if (!w->columns || w->log_input) {
    for (int64_t j = 0; j < n; j++) l[j] = dlua_log_sum_exp(w, dlua_position_start(w, p + j));
    return;
  }
  const float *x = dlua_f32(w->x) + dlua_position_start(w, p);
  dlua_fold_simd()->column_sums(x, w->k, w->inner, n, tops, sums);
  for (int64_t j = 0; j < n; j++) l[j] = (dlua_lse){(double)tops[j], log((double)sums[j])};
}

// The loss of probabilities over a contiguous f32 row without class weights: sum_c t_c (lse - x_c)
// in vectors, and its mean over all classes for what smoothing takes from them.
static double soft_row_loss(const dlua_classes *w, int64_t start, dlua_lse l) {
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
static double position_loss(const dlua_classes *w, int64_t p, dlua_lse l) {
  int64_t start = dlua_position_start(w, p), label = w->probabilities ? 0 : dlua_label_at(w, p);
  if (!w->probabilities && label == w->ignore) return 0;
  if (w->probabilities && w->vectors && !w->weight && w->target->dtype == DLUA_F32)
    return soft_row_loss(w, start, l);
  double even = w->smoothing / (double)w->k, sure = 1 - w->smoothing, loss = 0;
  if (!w->probabilities)
    loss = sure * dlua_class_weight(w, label - 1) * dlua_minus_log(w, l, start, label - 1);
  if (!w->probabilities && even == 0) return loss;
  for (int64_t c = 0; c < w->k; c++) {
    double t = w->probabilities ? sure * dlua_real(w->target, start + c * w->inner) : 0;
    double q = dlua_class_weight(w, c) * (t + even);
    if (q != 0) loss += q * dlua_minus_log(w, l, start, c);
  }
  return loss;
}

static void position_losses(void *context, int64_t from, int64_t to) {
  const dlua_classes *w = context;
  dlua_lse l[16];
  for (int64_t p = from, n; p < to; p += n) {
    n = dlua_neighbours(w, p, to);
    log_sum_exps(w, p, n, l);
    for (int64_t j = 0; j < n; j++) {
      if (w->losses)
        w->losses[p + j] = position_loss(w, p + j, l[j]);
      else
        dlua_put(w->out, p + j, position_loss(w, p + j, l[j]));
    }
  }
}

dlua_status dlua_class_loss(dlua_classes *w, bool team) {
  DLUA_TRY(dlua_classes_weigh(w));
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

// ---------------------------------------------------------------- shapes

// The shape of x without its classes.
static int label_shape(const dlua_tensor *x, int64_t *size) {
  return dlua_reduced_shape(x, 1u << dlua_class_dim(x), false, size);
}

bool dlua_has_label_shape(const dlua_tensor *x, const dlua_tensor *target) {
  int64_t size[DLUA_MAX_DIMS];
  int n = label_shape(x, size);
  return target->ndim == n && memcmp(size, target->size, (size_t)n * sizeof *size) == 0;
}

dlua_status dlua_check_classes(const dlua_args *a, const dlua_tensor *x,
                               const dlua_tensor *weight) {
  const char *name = a->op->name;
  if (!dlua_is_float(x->dtype))
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: x must be a float tensor, got %s %s", name,
                     dlua_dtype_name(x->dtype), dlua_shape_text(x));
  if (x->ndim == 0 || x->size[dlua_class_dim(x)] == 0)
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: x %s has no classes; it must be {n,k} or {k}", name,
                     dlua_shape_text(x));
  int64_t k = x->size[dlua_class_dim(x)];
  if (weight && (weight->ndim != 1 || weight->size[0] != k || !dlua_is_float(weight->dtype)))
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "%s: weight must be floats {%lld}, one per class, got %s %s", name,
                     (long long)k, dlua_dtype_name(weight->dtype), dlua_shape_text(weight));
  return DLUA_OK;
}

dlua_status dlua_check_labels(const dlua_args *a, const dlua_tensor *x, const dlua_tensor *target) {
  int64_t size[DLUA_MAX_DIMS];
  if (dlua_has_label_shape(x, target)) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: target must be %s for x %s, got %s", a->op->name,
                   dlua_sizes_text(label_shape(x, size), size), dlua_shape_text(x),
                   dlua_shape_text(target));
}

void dlua_class_loss_spec(dlua_args *a, int reduction) {
  int64_t size[DLUA_MAX_DIMS];
  int n = label_shape(a->in[0], size);
  dlua_spec_shape(a, 0, reduction == DLUA_NONE ? n : 0, size);
}

// ---------------------------------------------------------------- gradients

void dlua_refuse_weight_gradient(dlua_back *b, int input, const char *name) {
  if (dlua_needs(b, input))
    dlua_failed(b->s, dlua_fail(DLUA_BAD_STATE, "%s: weight has no gradient; detach it", name));
}

// A gradient per position with its class dimension back; one for all stays as it is.
dlua_tensor *dlua_with_classes(dlua_back *b, dlua_tensor *g, int reduction, int ndim) {
  if (reduction != DLUA_NONE) return g;
  return dlua_call(b->s, &dlua_op_unsqueeze, dlua_t(g), dlua_i(ndim > 1));
}
