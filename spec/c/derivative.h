// derivative.h - checks an op's gradient, and the gradient of that gradient, against central
// differences in f64.
#ifndef DLUA_SPEC_DERIVATIVE_H
#define DLUA_SPEC_DERIVATIVE_H

#include "check.h"

// One call to differentiate by its tensor `input`: the tensors, then the numbers as for dlua_call.
typedef struct call {
  const dlua_op *op;
  int nin, input, n;
  dlua_tensor *in[DLUA_MAX_IN];
  dlua_arg num[DLUA_MAX_NUM];
} call;

static inline dlua_tensor *run_call(dlua_scope *s, const call *c) {
  dlua_arg args[DLUA_MAX_IN + DLUA_MAX_NUM];
  if (dlua_op_signature(c->op)->has_list) {
    return dlua_call_list(s, c->op, c->nin, (dlua_tensor **)c->in, c->n, c->num);
  }
  for (int k = 0; k < c->nin; k++) args[k] = c->in[k] ? dlua_t(c->in[k]) : dlua_none();
  memcpy(args + c->nin, c->num, (size_t)c->n * sizeof *args);
  return dlua_call_n(s, c->op, c->nin + c->n, args);
}

// sum(op(…) * weight) with element k of the input moved by h.
static inline double moved(const call *c, const dlua_tensor *weight, int64_t k, double h) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = c->in[c->input];
  double kept = dlua_f64(x)[k], sum = 0;
  dlua_f64(x)[k] = kept + h;
  dlua_tensor *y = run_call(&s, c);
  for (int64_t i = 0; y && i < dlua_numel(y); i++) sum += at(y, i) * dlua_f64(weight)[i];
  dlua_f64(x)[k] = kept;
  dlua_scope_end(&s);
  return sum;
}

static inline bool near(double found, double expected) {
  return fabs(found - expected) <= 1e-7 + 1e-5 * fabs(expected);
}

// First order: gradient of sum(y * weight) by the input. Second order: that gradient, as a function
// of weight, times the direction v, differentiated by weight, is the derivative of y along v.
static inline bool derivatives_agree(const call *c) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = c->in[c->input], *gx = NULL, *gw = NULL;
  x->requires_grad = true;
  dlua_tensor *y = run_call(&s, c);
  bool agree = y != NULL;
  dlua_tensor *weight = y ? count_up(&s, DLUA_F64, 0.3, 0.7, y->ndim, y->size) : NULL;
  dlua_tensor *v = count_up(&s, DLUA_F64, -0.4, 0.3, x->ndim, x->size);
  if (weight) weight->requires_grad = true;
  agree = agree && dlua_grad(1, &y, &weight, 1, &x, true, true, &gx) == DLUA_OK && gx;
  if (agree) dlua_own(&s, gx);
  agree = agree && dlua_grad(1, &gx, &v, 1, &weight, false, false, &gw) == DLUA_OK && gw;
  if (agree) dlua_own(&s, gw);
  x->requires_grad = false;
  bool before = dlua_set_grad_mode(false);
  double along = 0, expected = 0;
  for (int64_t k = 0; agree && k < dlua_numel(x); k++) {
    double slope = (moved(c, weight, k, 1e-4) - moved(c, weight, k, -1e-4)) / 2e-4;
    agree = near(at(gx, k), slope);
    if (!agree) printf("  gradient %lld is %g, not %g\n", (long long)k + 1, at(gx, k), slope);
    expected += slope * dlua_f64(v)[k];
  }
  for (int64_t k = 0; agree && k < dlua_numel(weight); k++)
    along += at(gw, k) * dlua_f64(weight)[k];
  if (agree && !near(along, expected)) {
    agree = false;
    printf("  second order gives %g, not %g\n", along, expected);
  }
  dlua_set_grad_mode(before);
  if (dlua_scope_end(&s) != DLUA_OK) agree = false;
  if (!agree) printf("  %s: %s\n", c->op->name, dlua_message());
  return agree;
}

#endif
