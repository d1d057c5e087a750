// iterate_layout.c - lays out loops over broadcast operands. Most calls are flat (equal shapes, no
// gaps, or one element repeated) and leave at the first exit; the rest get their dimensions sorted
// by stride and merged. Pure: device modules link it too. Refused: logical order, which walk.h keeps
// for those who count positions.
#include "iterate.h"

dlua_tensor dlua_flipped(const dlua_tensor *x, const dlua_value *dims) {
  dlua_tensor y = *x;
  for (int d = 0; d < y.ndim; d++) {
    bool flipped = dims->n == 0;
    for (int k = 0; k < dims->n; k++) flipped |= dims->v[k] == d;
    if (!flipped || y.size[d] == 0) continue;
    y.offset += (y.size[d] - 1) * y.stride[d];
    y.stride[d] = -y.stride[d];
  }
  return y;
}

static bool is_packed(const dlua_tensor *x) {
  return x->storage->layout != DLUA_STRIDED || dlua_is_contiguous(x);
}

static bool is_single(const dlua_tensor *x) {
  for (int d = 0; d < x->ndim; d++) {
    if (x->size[d] != 1) return false;
  }
  return true;
}

// All operands lie in memory in the same order without gaps, or have one element.
static bool lay_flat(dlua_iter *it, dlua_tensor *const *operands) {
  const dlua_tensor *out = operands[0];
  if (!is_packed(out)) return false;
  for (int k = 0; k < it->n; k++) {
    const dlua_tensor *x = operands[k];
    bool same = k == 0 || (dlua_same_shape(x, out) && is_packed(x) &&
                           x->storage->layout == out->storage->layout);
    if (!same && !is_single(x)) return false;
    it->stride[k][0] = same ? (int64_t)dlua_dtype_size((dlua_dtype)x->dtype) : 0;
  }
  it->ndim = 1, it->size[0] = dlua_numel(out);
  return true;
}

static void lay_strides(dlua_iter *it, int k, const dlua_tensor *out, const dlua_tensor *x) {
  int64_t width = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype), stride[DLUA_MAX_DIMS];
  dlua_strides(x, stride);
  for (int d = 0; d < it->ndim; d++) {
    int from = x->ndim - 1 - d; // dimension 0 of the loop is the last of the shape
    bool repeated = from < 0 || (x->size[from] == 1 && out->size[out->ndim - 1 - d] != 1);
    it->stride[k][d] = repeated ? 0 : stride[from] * width;
  }
}

static void swap_dims(dlua_iter *it, int d, int e) {
  int64_t size = it->size[d];
  it->size[d] = it->size[e], it->size[e] = size;
  for (int k = 0; k < it->n; k++) {
    int64_t stride = it->stride[k][d];
    it->stride[k][d] = it->stride[k][e], it->stride[k][e] = stride;
  }
}

// Does dimension e move less far than d? The first operand that tells them apart decides.
static bool moves_less(const dlua_iter *it, int e, int d) {
  for (int k = 0; k < it->n; k++) {
    int64_t a = it->stride[k][e], b = it->stride[k][d];
    if (a < 0) a = -a;
    if (b < 0) b = -b;
    if (a != b && a != 0 && b != 0) return a < b;
  }
  return false;
}

static void sort_dims(dlua_iter *it) {
  for (int d = 1; d < it->ndim; d++) {
    for (int e = d; e > 0 && moves_less(it, e, e - 1); e--) swap_dims(it, e, e - 1);
  }
}

static bool continues(const dlua_iter *it, int inner, int outer) {
  for (int k = 0; k < it->n; k++) {
    if (it->stride[k][outer] != it->stride[k][inner] * it->size[inner]) return false;
  }
  return true;
}

static void copy_dim(dlua_iter *it, int to, int from) {
  it->size[to] = it->size[from];
  for (int k = 0; k < it->n; k++) it->stride[k][to] = it->stride[k][from];
}

static void drop_single_dims(dlua_iter *it) {
  int kept = 0;
  for (int d = 0; d < it->ndim; d++) {
    if (it->size[d] != 1) copy_dim(it, kept++, d);
  }
  it->ndim = kept;
}

static void merge_dims(dlua_iter *it) {
  int last = 0;
  for (int d = 1; d < it->ndim; d++) {
    if (continues(it, last, d))
      it->size[last] *= it->size[d];
    else
      copy_dim(it, ++last, d);
  }
  it->ndim = last + 1;
}

void dlua_iter_begin(dlua_iter *it, int n, dlua_tensor *const *operands) {
  const dlua_tensor *out = operands[0];
  it->n = n;
  for (int k = 0; k < n; k++) it->data[k] = dlua_data(operands[k]);
  if (lay_flat(it, operands)) return;
  it->ndim = out->ndim;
  for (int d = 0; d < it->ndim; d++) it->size[d] = out->size[out->ndim - 1 - d];
  for (int k = 0; k < n; k++) lay_strides(it, k, out, operands[k]);
  drop_single_dims(it);
  if (it->ndim == 0) {
    it->ndim = 1, it->size[0] = 1;
    for (int k = 0; k < n; k++) it->stride[k][0] = 0;
    return;
  }
  sort_dims(it);
  merge_dims(it);
}
