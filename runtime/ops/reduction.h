// reduction.h - how reductions see a tensor: some dimensions stay, the others are folded into one
// number per result.
//
//   dlua_reduction r;
//   dlua_reduction_plan(&r, x, dims); // dims: bit k set means dimension k is reduced
//   for (int64_t o = 0; o < r.outputs; o++) {
//     int64_t start = dlua_offset_at(r.nkept, r.kept, r.kept_stride, o);
//     … r.count elements of x from there
//   }
//
// Results are row-major over the kept dimensions, so keepdim changes their sizes and not their
// order.
#ifndef DLUA_REDUCTION_H
#define DLUA_REDUCTION_H

#include "../args.h"

// Sizes and strides (in elements of x) of the two groups, outermost first; neighbours that form one
// run are merged and dimensions of size 1 are gone.
typedef struct dlua_reduction {
  int64_t outputs, count; // results, and elements folded into each
  int nkept, nreduced;
  int64_t kept[DLUA_MAX_DIMS], kept_stride[DLUA_MAX_DIMS];
  int64_t reduced[DLUA_MAX_DIMS], reduced_stride[DLUA_MAX_DIMS];
} dlua_reduction;

void dlua_reduction_plan(dlua_reduction *r, const dlua_tensor *x, unsigned dims);
// Orders the reduced dimensions by stride and merges again: memory order, for folds that commute.
void dlua_reduction_sort(dlua_reduction *r);
// Offset in elements of entry index of a row-major walk over these sizes.
int64_t dlua_offset_at(int ndim, const int64_t *size, const int64_t *stride, int64_t index);

// Bits of a number of kind D or d?; none given means all dimensions of x.
unsigned dlua_reduced_dims(const dlua_tensor *x, const dlua_value *dims);

#endif
