// call.c - calls of ops with temporaries that a scope owns, so that a formula reads as an
// expression.
#include <math.h>
#include <string.h>

#include "op.h"

void dlua_scope_begin(dlua_scope *s) {
  s->status = DLUA_OK, s->count = 0;
  s->owned = s->few, s->capacity = (int)(sizeof s->few / sizeof *s->few);
}

dlua_status dlua_scope_end(dlua_scope *s) {
  for (int k = 0; k < s->count; k++) dlua_tensor_release(s->owned[k]);
  if (s->owned != s->few) dlua_delete(s->owned, (size_t)s->capacity * sizeof *s->owned);
  return s->status;
}

dlua_tensor *dlua_failed(dlua_scope *s, dlua_status status) {
  if (s->status == DLUA_OK) s->status = status;
  return NULL;
}

static bool grow(dlua_scope *s) {
  size_t bytes = (size_t)s->capacity * sizeof *s->owned;
  dlua_tensor **wider = dlua_new(2 * bytes);
  if (!wider) return false;
  memcpy(wider, s->owned, bytes);
  if (s->owned != s->few) dlua_delete(s->owned, bytes);
  s->owned = wider, s->capacity *= 2;
  return true;
}

dlua_tensor *dlua_own(dlua_scope *s, dlua_tensor *x) {
  if (!x) return NULL;
  if (s->count == s->capacity && !grow(s)) {
    dlua_tensor_release(x);
    return dlua_failed(s, DLUA_NO_MEMORY);
  }
  return s->owned[s->count++] = x;
}

static void set_number(dlua_value *v, char kind, int exactly, const dlua_arg *arg) {
  if (arg->kind == DLUA_ARG_VALUE) {
    *v = *arg->value;
    return;
  }
  v->set = arg->kind != DLUA_ARG_NONE || kind == 'D', v->n = 0;
  if (arg->kind == DLUA_ARG_INT || arg->kind == DLUA_ARG_FLOAT) {
    v->is_int = arg->kind == DLUA_ARG_INT, v->i = arg->i, v->f = arg->f;
    if (kind == 'D') v->n = 1, v->v[0] = arg->i;
    for (; v->n < exactly; v->n++) v->v[v->n] = arg->i;
  }
  if (arg->kind == DLUA_ARG_LIST) {
    v->n = arg->n;
    for (int k = 0; k < arg->n; k++) v->v[k] = arg->v[k];
  }
}

// Fills the call from args, tensors first.
static void set_args(dlua_args *a, int n, const dlua_arg *args) {
  int tensor = 0, number = 0;
  for (int k = 0; k < n; k++) {
    if (tensor < a->nin && !a->sig->has_list) {
      a->in[tensor++] = args[k].kind == DLUA_ARG_TENSOR ? args[k].t : NULL;
      continue;
    }
    const dlua_param *p = &a->sig->num[number];
    set_number(&a->num[number++], p->kind, p->exactly, &args[k]);
  }
}

static void run_owned(dlua_scope *s, dlua_args *a, dlua_tensor **out) {
  dlua_status status = dlua_run(a);
  if (status != DLUA_OK)
    dlua_failed(s, status);
  else {
    for (int k = 0; k < a->nout; k++) out[k] = dlua_own(s, a->out[k]);
  }
}

void dlua_call_all_n(dlua_scope *s, const dlua_op *op, dlua_tensor **out, int n,
                     const dlua_arg *args) {
  memset(out, 0, DLUA_MAX_OUT * sizeof *out);
  if (s->status != DLUA_OK) return;
  dlua_args a;
  dlua_args_init(&a, op);
  set_args(&a, n, args);
  run_owned(s, &a, out);
}

dlua_tensor *dlua_call_n(dlua_scope *s, const dlua_op *op, int n, const dlua_arg *args) {
  dlua_tensor *out[DLUA_MAX_OUT];
  dlua_call_all_n(s, op, out, n, args);
  return out[0];
}

dlua_tensor *dlua_call_list(dlua_scope *s, const dlua_op *op, int nin, dlua_tensor **in, int n,
                            const dlua_arg *args) {
  dlua_tensor *out[DLUA_MAX_OUT] = {0};
  if (s->status != DLUA_OK) return NULL;
  dlua_args a;
  dlua_args_init(&a, op);
  a.in = in, a.nin = nin;
  set_args(&a, n, args);
  run_owned(s, &a, out);
  return out[0];
}

dlua_tensor *dlua_num(dlua_scope *s, double value) {
  dlua_tensor *x = NULL;
  if (s->status != DLUA_OK) return NULL;
  bool exact = value == trunc(value) && fabs(value) < 9e15;
  dlua_status status = dlua_tensor_number(&x, exact, exact ? (int64_t)value : 0, value);
  return status == DLUA_OK ? dlua_own(s, x) : dlua_failed(s, status);
}

dlua_tensor *dlua_add(dlua_scope *s, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(s, &dlua_op_add, dlua_t(x), dlua_t(y));
}
dlua_tensor *dlua_sub(dlua_scope *s, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(s, &dlua_op_sub, dlua_t(x), dlua_t(y));
}
dlua_tensor *dlua_mul(dlua_scope *s, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(s, &dlua_op_mul, dlua_t(x), dlua_t(y));
}
dlua_tensor *dlua_div(dlua_scope *s, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(s, &dlua_op_div, dlua_t(x), dlua_t(y));
}
dlua_tensor *dlua_neg(dlua_scope *s, dlua_tensor *x) {
  return dlua_call(s, &dlua_op_neg, dlua_t(x));
}
dlua_tensor *dlua_scale(dlua_scope *s, dlua_tensor *x, double factor) {
  return dlua_mul(s, x, dlua_num(s, factor));
}
dlua_tensor *dlua_zeros_like(dlua_scope *s, const dlua_tensor *x) {
  return dlua_call(s, &dlua_op_zeros_like, dlua_t((dlua_tensor *)x));
}
