// rules.c - shape rules and messages that families share.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "op.h"

void dlua_spec_shape(dlua_args *a, int k, int ndim, const int64_t *size) {
  a->spec[k].ndim = ndim;
  for (int d = 0; d < ndim; d++) a->spec[k].size[d] = size[d];
}

int64_t dlua_size_add(int64_t x, int64_t y) {
  int64_t sum;
  if (!__builtin_add_overflow(x, y, &sum)) return sum;
  return x < 0 ? INT64_MIN : INT64_MAX;
}

int64_t dlua_size_mul(int64_t x, int64_t y) {
  int64_t product;
  if (!__builtin_mul_overflow(x, y, &product)) return product;
  return (x < 0) != (y < 0) ? INT64_MIN : INT64_MAX;
}

dlua_status dlua_shape_same(dlua_args *a) {
  for (int k = 0; k < a->nout; k++) dlua_spec_shape(a, k, a->in[0]->ndim, a->in[0]->size);
  return DLUA_OK;
}

// "(x {2,3}, w {4})" for all inputs that are there; long lists are cut.
static void input_shapes(const dlua_args *a, char *text, size_t size) {
  size_t at = (size_t)snprintf(text, size, "(");
  bool first = true;
  for (int k = 0; k < a->nin && k < 6 && at < size; k++) {
    if (!a->in[k]) continue;
    const char *name = a->sig->tensor[k < a->sig->ntensor ? k : a->sig->ntensor - 1].name;
    at += (size_t)snprintf(text + at, size - at, "%s%s %s", first ? "" : ", ", name,
                           dlua_shape_text(a->in[k]));
    first = false;
  }
  if (at < size) snprintf(text + at, size - at, a->nin > 6 ? ", …)" : ")");
}

dlua_status dlua_shape_error(const dlua_args *a, const char *format, ...) {
  char what[512], shapes[480];
  va_list list;
  va_start(list, format);
  vsnprintf(what, sizeof what, format, list);
  va_end(list);
  input_shapes(a, shapes, sizeof shapes);
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s%s: %s %s", a->op->name, a->inplace ? "_" : "", what,
                   shapes);
}

// Merges the shape of x into size[0..*ndim); false when they do not broadcast.
static bool merge(int *ndim, int64_t size[DLUA_MAX_DIMS], const dlua_tensor *x) {
  int grow = x->ndim - *ndim;
  if (grow > 0) {
    memmove(size + grow, size, (size_t)*ndim * sizeof *size);
    memcpy(size, x->size, (size_t)grow * sizeof *size);
    *ndim = x->ndim;
  }
  for (int d = 0; d < x->ndim; d++) {
    int64_t *s = &size[*ndim - 1 - d], t = x->size[x->ndim - 1 - d];
    if (*s == t || t == 1) continue;
    if (*s != 1) return false;
    *s = t;
  }
  return true;
}

dlua_status dlua_shape_broadcast(dlua_args *a) {
  int ndim = 0, first = -1;
  int64_t size[DLUA_MAX_DIMS];
  for (int k = 0; k < a->nin; k++) {
    if (!a->in[k]) continue;
    if (first < 0) first = k;
    if (merge(&ndim, size, a->in[k])) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s%s: shapes %s and %s do not broadcast", a->op->name,
                     a->inplace ? "_" : "", dlua_shape_text(a->in[first]),
                     dlua_shape_text(a->in[k]));
  }
  for (int k = 0; k < a->nout; k++) dlua_spec_shape(a, k, ndim, size);
  return DLUA_OK;
}

dlua_status dlua_number_fits(const dlua_args *a, const dlua_value *v, dlua_dtype dtype) {
  if (!v->set || dlua_is_float(dtype) || dtype == DLUA_BOOL) return DLUA_OK;
  const char *name = dlua_dtype_name(dtype), *place = a->inplace ? "_" : "";
  bool whole = v->is_int || (v->f == floor(v->f) && v->f >= -0x1p63 && v->f < 0x1p63);
  if (!whole)
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s%s: %g does not fit into %s, which holds integers",
                     a->op->name, place, v->f, name);
  int64_t i = v->is_int ? v->i : (int64_t)v->f;
  int64_t least = dtype == DLUA_U8 ? 0 : dtype == DLUA_I32 ? INT32_MIN : INT64_MIN;
  int64_t most = dtype == DLUA_U8 ? UINT8_MAX : dtype == DLUA_I32 ? INT32_MAX : INT64_MAX;
  if (i >= least && i <= most) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s%s: %lld does not fit into %s (%lld..%lld)", a->op->name,
                   place, (long long)i, name, (long long)least, (long long)most);
}

dlua_status dlua_index(const dlua_args *a, int64_t value, int64_t position, int64_t extent,
                       int64_t *index) {
  if (value >= 1 && value <= extent) return *index = value - 1, DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: index %lld at position %lld is outside 1..%lld%s",
                   a->op->name, (long long)value, (long long)position + 1, (long long)extent,
                   value == 0 ? " (indices start at 1)" : "");
}
