// loss_class.h - what nll_loss and cross_entropy share: classes along dimension 2 of x ({n,k},
// {n,k,…}) or one sample {k}.
#ifndef DLUA_LOSS_CLASS_H
#define DLUA_LOSS_CLASS_H

#include "../op.h"
#include "loss.h"

// One call, whichever the op: x lies as outer × k × inner, a position is one of outer × inner.
typedef struct dlua_classes {
  const dlua_args *call;
  const dlua_tensor *x, *target, *weight, *g; // g: only in gradients
  dlua_tensor *out;
  int64_t k, inner, positions, ignore;
  double smoothing, weight_sum, norm;
  bool probabilities, log_input; // log_input: x holds log-probabilities (nll_loss)
  bool vectors, columns;         // f32 rows that lie contiguous; rows that lie side by side
  int reduction;
  double *losses; // of every position
} dlua_classes;

static inline int dlua_class_dim(const dlua_tensor *x) { return x->ndim > 1; }

// The label at a position, as the script wrote it.
static inline int64_t dlua_label_at(const dlua_classes *w, int64_t p) {
  const dlua_tensor *t = w->target;
  if (t->dtype == DLUA_I64) return dlua_i64(t)[p];
  if (t->dtype == DLUA_I32) return ((const int32_t *)dlua_data(t))[p];
  return ((const uint8_t *)dlua_data(t))[p];
}

static inline double dlua_class_weight(const dlua_classes *w, int64_t c) {
  return w->weight ? dlua_real(w->weight, c) : 1;
}

static inline int64_t dlua_position_start(const dlua_classes *w, int64_t p) {
  return p / w->inner * w->inner * w->k + p % w->inner;
}

// log(sum(exp(x))) of a position as its largest x and the rest, which keeps differences exact.
typedef struct dlua_lse {
  double top, rest;
} dlua_lse;

// lse - x_c.
static inline double dlua_minus_log(const dlua_classes *w, dlua_lse l, int64_t start, int64_t c) {
  return (l.top - dlua_real(w->x, start + c * w->inner)) + l.rest;
}

// How many positions from p on, sixteen at most, lie side by side.
static inline int64_t dlua_neighbours(const dlua_classes *w, int64_t p, int64_t to) {
  int64_t n = w->inner - p % w->inner;
  if (n > to - p) n = to - p;
  return n < 16 ? n : 16;
}

// Fills in what follows from the tensors: sizes, kind of target, how rows lie.
void dlua_classes_measure(dlua_classes *w);
// Checks every label and adds up what the mean is divided by.
dlua_status dlua_classes_weigh(dlua_classes *w);
// log(sum(exp(x))) of the position that starts at x[start]; {0, 0} for log-probabilities.
dlua_lse dlua_log_sum_exp(const dlua_classes *w, int64_t start);
// The loss into w->out, plain or on the team of threads.
dlua_status dlua_class_loss(dlua_classes *w, bool team);

// Shapes: x has classes and weight one entry for each, target is labels of its other dimensions.
dlua_status dlua_check_classes(const dlua_args *a, const dlua_tensor *x, const dlua_tensor *weight);
dlua_status dlua_check_labels(const dlua_args *a, const dlua_tensor *x, const dlua_tensor *target);
// Has target the shape of x without its classes?
bool dlua_has_label_shape(const dlua_tensor *x, const dlua_tensor *target);
// spec[0] of a loss: its shape after the reduction.
void dlua_class_loss_spec(dlua_args *a, int reduction);

// Gradients: fails when input, the classes' weights, wants one.
void dlua_refuse_weight_gradient(dlua_back *b, int input, const char *name);
// A gradient per position with its class dimension back; one for all stays as it is.
dlua_tensor *dlua_with_classes(dlua_back *b, dlua_tensor *g, int reduction, int ndim);

#endif
