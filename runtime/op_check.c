// op_check.c - what dlua_run refuses, before anything is written. Every message names the op and the
// shapes.
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "grad.h"
#include "run.h"

const char *dlua_call_name(const dlua_args *a) {
  static _Thread_local char text[40];
  if (!a->inplace) return a->op->name;
  snprintf(text, sizeof text, "%s_", a->op->name);
  return text;
}

// ---------------------------------------------------------------- inputs

static dlua_status check_present(const dlua_args *a) {
  for (int k = 0; k < a->nin; k++) {
    if (!a->in[k] && !dlua_input_param(a, k)->optional) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is missing", dlua_call_name(a),
                       dlua_input_name(a, k));
    }
  }
  if (a->sig->has_list && a->nin < a->sig->ntensor) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is an empty list", dlua_call_name(a),
                     dlua_input_name(a, a->nin));
  }
  return DLUA_OK;
}

static dlua_status check_device(dlua_args *a) {
  int first = -1;
  for (int k = 0; k < a->nin; k++) {
    const dlua_tensor *x = a->in[k];
    if (!x || x->number) continue;
    if (first < 0)
      first = k, a->device = dlua_device_of(x);
    else if (dlua_device_of(x) != a->device) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is on %s but %s is on %s", dlua_call_name(a),
                       dlua_input_name(a, first), a->device->name, dlua_input_name(a, k),
                       dlua_device_of(x)->name);
    }
  }
  return DLUA_OK;
}

static dlua_status check_stale(const dlua_args *a) {
  if (!dlua_grad_mode()) return DLUA_OK;
  for (int k = 0; k < a->nin; k++) {
    const dlua_tensor *x = a->in[k];
    if (x && x->rewrites != x->storage->rewrites) {
      return dlua_fail(DLUA_BAD_STATE,
                       "%s: %s shares memory with a tensor that was changed in place and recorded "
                       "since; take the view again after the change (%s %s)",
                       dlua_call_name(a), dlua_input_name(a, k), dlua_input_name(a, k),
                       dlua_shape_text(x));
    }
  }
  return DLUA_OK;
}

static dlua_status check_dim(const dlua_args *a, int ndim, bool plus_one, int64_t *dim) {
  int64_t most = ndim + plus_one, wish = *dim;
  if (*dim < 0) *dim += most;
  if (most == 0 && (wish == 0 || wish == -1))
    return *dim = 0, DLUA_OK; // a 0-d tensor has one implied
  if (*dim >= 0 && *dim < most) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: dimension %lld is outside 1..%lld (%s %s)",
                   dlua_call_name(a), (long long)(wish < 0 ? wish : wish + 1), (long long)most,
                   dlua_input_name(a, 0), dlua_shape_text(a->in[0]));
}

// Makes every dimension among the numbers non-negative and checks it against the first tensor.
static dlua_status check_dims(dlua_args *a) {
  for (int k = 0; k < a->sig->nnum; k++) {
    dlua_value *v = &a->num[k];
    const dlua_param *p = &a->sig->num[k];
    if (p->has_default && !v->set) continue;
    if (!v->set) {
      if (p->optional) continue;
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is missing", dlua_call_name(a), p->name);
    }
    if (a->nin == 0 || !a->in[0]) continue;
    if (p->kind == 'd') DLUA_TRY(check_dim(a, a->in[0]->ndim, p->plus_one, &v->i));
    if (p->kind != 'D') continue;
    for (int d = 0; d < v->n; d++) {
      DLUA_TRY(check_dim(a, a->in[0]->ndim, false, &v->v[d]));
      for (int e = 0; e < d; e++) {
        if (v->v[e] != v->v[d]) continue;
        return dlua_fail(DLUA_BAD_ARGUMENT, "%s: dimension %lld is given twice", dlua_call_name(a),
                         (long long)v->v[d] + 1);
      }
    }
  }
  return DLUA_OK;
}

static dlua_status check_inplace(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  for (int d = 0; d < x->ndim; d++) {
    if (x->stride[d] == 0 && x->size[d] > 1) {
      return dlua_fail(DLUA_BAD_ARGUMENT,
                       "%s: several elements of x share one place in memory (an expanded tensor); "
                       "clone it first (x %s)",
                       dlua_call_name(a), dlua_shape_text(x));
    }
  }
  if (!dlua_grad_mode()) return DLUA_OK;
  if (x->requires_grad && !x->node) {
    return dlua_fail(
        DLUA_BAD_STATE,
        "%s: x is a leaf that requires gradient; change it in place inside dlua.no_grad "
        "(x %s)",
        dlua_call_name(a), dlua_shape_text(x));
  }
  if (x->requires_grad && x->view) {
    return dlua_fail(DLUA_BAD_STATE,
                     "%s: x is a view of a recorded tensor; change the tensor itself with x[key] = "
                     "value, or clone the view (x %s)",
                     dlua_call_name(a), dlua_shape_text(x));
  }
  for (int k = 1; k < a->nin && x->view; k++) {
    if (!a->in[k] || !a->in[k]->requires_grad) continue;
    return dlua_fail(
        DLUA_BAD_STATE,
        "%s: %s requires gradient but x is a view, whose tensor would not know; change "
        "the tensor itself with x[key] = value, or clone the view (x %s)",
        dlua_call_name(a), dlua_input_name(a, k), dlua_shape_text(x));
  }
  return DLUA_OK;
}

dlua_status dlua_check_call(dlua_args *a) {
  DLUA_TRY(check_present(a));
  DLUA_TRY(check_device(a));
  DLUA_TRY(check_stale(a));
  if (a->sig->nnum) DLUA_TRY(check_dims(a));
  return a->inplace ? check_inplace(a) : DLUA_OK;
}

// ---------------------------------------------------------------- results

// Only float results carry a gradient, and their op must have one.
static dlua_status check_record(dlua_frame *f) {
  bool any = f->a->op->flags & DLUA_VIEW;
  for (int k = 0; k < f->a->nout; k++) any |= dlua_is_float(f->a->spec[k].dtype);
  f->record &= any;
  if (!f->record || f->a->op->back) return DLUA_OK;
  return dlua_fail(DLUA_BAD_STATE, "%s: has no gradient; detach the input or use dlua.no_grad",
                   f->a->op->name);
}

// Numbers that are stored in the result must be values of its dtype.
static dlua_status check_values(const dlua_args *a) {
  if (a->op->dtype == DLUA_PROMOTE) return DLUA_OK;
  for (int k = 0; k < a->sig->nnum; k++) {
    if (a->sig->num[k].kind == 'n') DLUA_TRY(dlua_number_fits(a, &a->num[k], a->spec[0].dtype));
  }
  return DLUA_OK;
}

dlua_status dlua_check_results(dlua_frame *f) {
  if (f->a->sig->nnum) DLUA_TRY(check_values(f->a));
  return check_record(f);
}

dlua_status dlua_check_target(const dlua_frame *f) {
  const dlua_args *a = f->a;
  const dlua_tensor *x = f->given[0];
  if (a->spec[0].ndim != x->ndim ||
      memcmp(a->spec[0].size, x->size, x->ndim * sizeof *x->size) != 0) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: the result %s does not fit into x %s",
                     dlua_call_name(a), dlua_sizes_text(a->spec[0].ndim, a->spec[0].size),
                     dlua_shape_text(x));
  }
  if (dlua_dtype_kind(f->final[0]) > dlua_dtype_kind((dlua_dtype)x->dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: the result is %s, x is %s (x %s)", dlua_call_name(a),
                     dlua_dtype_name(f->final[0]), dlua_dtype_name((dlua_dtype)x->dtype),
                     dlua_shape_text(x));
  }
  return DLUA_OK;
}
