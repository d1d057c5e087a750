// reduction_plan.c - the split of a tensor into kept and reduced dimensions. Pure: device modules
// link it too.
#include "reduction.h"

static void add_dim(int *n, int64_t *sizes, int64_t *strides, int64_t size, int64_t stride) {
  if (size == 1) return;
  if (*n > 0 && strides[*n - 1] == size * stride) {
    sizes[*n - 1] *= size, strides[*n - 1] = stride;
    return;
  }
  sizes[*n] = size, strides[*n] = stride, ++*n;
}

void dlua_reduction_plan(dlua_reduction *r, const dlua_tensor *x, unsigned dims) {
  int64_t stride[DLUA_MAX_DIMS];
  dlua_strides(x, stride);
  *r = (dlua_reduction){.outputs = 1, .count = 1};
  for (int k = 0; k < x->ndim; k++) {
    if (dims >> k & 1) {
      r->count *= x->size[k];
      add_dim(&r->nreduced, r->reduced, r->reduced_stride, x->size[k], stride[k]);
    } else {
      r->outputs *= x->size[k];
      add_dim(&r->nkept, r->kept, r->kept_stride, x->size[k], stride[k]);
    }
  }
}

void dlua_reduction_sort(dlua_reduction *r) {
  int n = r->nreduced;
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS];
  for (int k = 0; k < n; k++) {
    int at = k;
    for (; at > 0 && stride[at - 1] < r->reduced_stride[k]; at--)
      size[at] = size[at - 1], stride[at] = stride[at - 1];
    size[at] = r->reduced[k], stride[at] = r->reduced_stride[k];
  }
  r->nreduced = 0;
  for (int k = 0; k < n; k++)
    add_dim(&r->nreduced, r->reduced, r->reduced_stride, size[k], stride[k]);
}

int64_t dlua_offset_at(int ndim, const int64_t *size, const int64_t *stride, int64_t index) {
  int64_t offset = 0;
  for (int k = ndim - 1; k > 0 && index > 0; k--) {
    offset += index % size[k] * stride[k];
    index /= size[k];
  }
  return ndim > 0 ? offset + index * stride[0] : 0;
}

unsigned dlua_reduced_dims(const dlua_tensor *x, const dlua_value *dims) {
  unsigned all = (1u << x->ndim) - 1, some = 0;
  if (!dims->set) return all;
  for (int k = 0; k < dims->n; k++) some |= 1u << dims->v[k];
  return dims->n > 0 ? some : all;
}
