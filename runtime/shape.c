// shape.c - what can be said of a tensor from its sizes and strides alone. Pure functions: device
// modules link this file too, since they link against nothing of the runtime.
#include <stdio.h>
#include <string.h>

#include "dlua.h"

// Sizes of 0 do not excuse the others: their strides must be numbers too.
bool dlua_shape_bytes(dlua_dtype dtype, int ndim, const int64_t *size, size_t *bytes) {
  int64_t n = (int64_t)dlua_dtype_size(dtype);
  bool overflow = false, empty = false;
  for (int d = 0; d < ndim; d++) {
    if (size[d] < 0) return false;
    empty |= size[d] == 0;
    overflow |= __builtin_mul_overflow(n, size[d] > 0 ? size[d] : 1, &n);
  }
  *bytes = empty ? 0 : (size_t)n;
  return !overflow;
}

int64_t dlua_numel(const dlua_tensor *x) {
  int64_t n = 1;
  for (int d = 0; d < x->ndim; d++) n *= x->size[d];
  return n;
}

bool dlua_is_contiguous(const dlua_tensor *x) {
  if (x->storage->layout != DLUA_STRIDED) return false;
  int64_t stride = 1;
  bool empty = false;
  for (int d = x->ndim - 1; d >= 0; d--) {
    if (x->size[d] == 0) empty = true;
    if (x->size[d] > 1 && x->stride[d] != stride && !empty) {
      return dlua_numel(x) == 0;
    }
    stride *= x->size[d] > 1 ? x->size[d] : 1;
  }
  return true;
}

void dlua_strides(const dlua_tensor *x, int64_t *stride) {
  memcpy(stride, x->stride, x->ndim * sizeof *stride);
  if (x->storage->layout != DLUA_NHWC) return;
  int64_t c = x->size[1], h = x->size[2], w = x->size[3];
  stride[0] = c * h * w, stride[1] = 1, stride[2] = w * c, stride[3] = c;
}

bool dlua_same_shape(const dlua_tensor *x, const dlua_tensor *y) {
  return x->ndim == y->ndim && memcmp(x->size, y->size, x->ndim * sizeof *x->size) == 0;
}

void *dlua_data(const dlua_tensor *x) {
  return (char *)x->storage->data + x->offset * (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
}

// ---------------------------------------------------------------- texts

const char *dlua_sizes_text(int n, const int64_t *size) {
  static _Thread_local char buffers[8][192];
  static _Thread_local unsigned turn;
  char *text = buffers[turn++ % 8];
  int at = snprintf(text, 192, "{");
  for (int d = 0; d < n; d++) {
    at += snprintf(text + at, (size_t)(192 - at), d ? ",%lld" : "%lld", (long long)size[d]);
  }
  snprintf(text + at, (size_t)(192 - at), "}");
  return text;
}

const char *dlua_shape_text(const dlua_tensor *x) { return dlua_sizes_text(x->ndim, x->size); }
