// shape.h - what the families that rearrange elements share.
#ifndef DLUA_OPS_SHAPE_H
#define DLUA_OPS_SHAPE_H

#include "../op.h"

// Zeros with the dtype and device of like, without history; owned by s, NULL after a failure.
dlua_tensor *dlua_zeros_of(dlua_scope *s, const dlua_tensor *like, int ndim, const int64_t *size);
// The same in the shape of an input of the recorded call: what a partial gradient is put into.
dlua_tensor *dlua_zeros_for(dlua_back *b, int input);

// For kernels that change some elements only: result 0 starts as a copy of input 0, unless the call
// goes in place.
void dlua_start_from(const dlua_args *a);
// Input k, which is read while result 0 is written: itself, or a copy where both are one. Caller
// owns the result.
dlua_status dlua_source_of(const dlua_args *a, int k, dlua_tensor **source);
// Size of a dimension; a 0-d tensor has one of size 1.
static inline int64_t dlua_extent(const dlua_tensor *x, int64_t dim) {
  return x->ndim ? x->size[dim] : 1;
}

#endif
