// iterate.c - lays out loops over broadcast operands. Most calls are flat (equal shapes, no gaps,
// or one element repeated) and leave at the first exit; the rest get their dimensions sorted by
// stride and merged. Refused: logical order, which walk.h keeps for those who count positions.
#include "iterate.h"

#include <string.h>

#include "../parallel.h"

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
    bool same = k == 0 || (dlua_same_shape(x, out) && is_packed(x));
    if (!same && !is_single(x)) return false;
    it->stride[k][0] = same ? (int64_t)dlua_dtype_size((dlua_dtype)x->dtype) : 0;
  }
  it->ndim = 1, it->size[0] = dlua_numel(out);
  return true;
}

static void lay_strides(dlua_iter *it, int k, const dlua_tensor *out, const dlua_tensor *x) {
  int64_t width = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
  for (int d = 0; d < it->ndim; d++) {
    int from = x->ndim - 1 - d; // dimension 0 of the loop is the last of the shape
    bool repeated = from < 0 || (x->size[from] == 1 && out->size[out->ndim - 1 - d] != 1);
    it->stride[k][d] = repeated ? 0 : x->stride[from] * width;
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

// ---------------------------------------------------------------- running

typedef struct job {
  const dlua_iter *it;
  dlua_row *row;
  void *context;
} job;

// Pointers and position of element number from; returns its place in the row.
static int64_t seek(const dlua_iter *it, int64_t from, int64_t *at, char **data) {
  memcpy(data, it->data, sizeof it->data);
  for (int d = 0; d < it->ndim; d++) {
    at[d] = from % it->size[d], from /= it->size[d];
    for (int k = 0; k < it->n; k++) data[k] += at[d] * it->stride[k][d];
  }
  return at[0];
}

// To the start of the next row, from place at[0] = 0.
static void next_row(const dlua_iter *it, int64_t *at, char **data) {
  for (int d = 1; d < it->ndim; d++) {
    bool carry = ++at[d] == it->size[d];
    int64_t steps = carry ? 1 - it->size[d] : 1;
    for (int k = 0; k < it->n; k++) data[k] += steps * it->stride[k][d];
    if (!carry) return;
    at[d] = 0;
  }
}

static void run_slice(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const dlua_iter *it = j->it;
  if (from == to) return; // a size may be 0 here
  int64_t at[DLUA_MAX_DIMS], inner[DLUA_ITER_OPERANDS];
  char *data[DLUA_ITER_OPERANDS], *row[DLUA_ITER_OPERANDS];
  for (int k = 0; k < it->n; k++) inner[k] = it->stride[k][0];
  int64_t place = seek(it, from, at, data);
  while (from < to) {
    int64_t count = it->size[0] - place < to - from ? it->size[0] - place : to - from;
    memcpy(row, data, sizeof row);
    j->row(j->context, count, row, inner);
    from += count;
    for (int k = 0; k < it->n; k++) data[k] -= place * inner[k];
    place = 0;
    next_row(it, at, data);
  }
}

static int64_t count_of(const dlua_iter *it) {
  int64_t count = 1;
  for (int d = 0; d < it->ndim; d++) count *= it->size[d];
  return count;
}

void dlua_iter_run_serial(const dlua_iter *it, dlua_row *row, void *context) {
  run_slice(&(job){it, row, context}, 0, count_of(it));
}

void dlua_iter_run(const dlua_iter *it, double cost, dlua_row *row, void *context) {
  int64_t count = count_of(it);
  if (it->ndim == 1 && count < 4096) {
    int64_t inner[DLUA_ITER_OPERANDS];
    char *data[DLUA_ITER_OPERANDS];
    for (int k = 0; k < it->n; k++) inner[k] = it->stride[k][0], data[k] = it->data[k];
    if (count > 0) row(context, count, data, inner);
    return;
  }
  dlua_parallel(count, cost, run_slice, &(job){it, row, context});
}
