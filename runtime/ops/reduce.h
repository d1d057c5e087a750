// reduce.h - how reductions see a tensor: some dimensions stay, the others are folded into one
// number per result.
//
//   dlua_reduction r;
//   dlua_reduction_plan(&r, x, dims);                  // dims: bit k set means dimension k is
//   reduced for (int64_t o = 0; o < r.outputs; o++) {
//     int64_t start = dlua_offset_at(r.nkept, r.kept, r.kept_stride, o);
//     … r.count elements of x from there, see dlua_fold_run …
//   }
//
// Results are row-major over the kept dimensions, so keepdim changes their sizes and not their
// order.
#ifndef DLUA_REDUCE_H
#define DLUA_REDUCE_H

#include "../op.h"

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
// The shape of x without these dimensions (or with them as 1) into size; returns its ndim.
int dlua_reduced_shape(const dlua_tensor *x, unsigned dims, bool keepdim, int64_t *size);
// Shape rule of ops with "x:T, dim:D, keepdim:b, …": the first two numbers.
dlua_status dlua_shape_reduce(dlua_args *a);
// Fails with "max: nothing to reduce (x {0,3})" when a result would be made of no elements.
dlua_status dlua_refuse_empty(const dlua_args *a, unsigned dims);

// ---------------------------------------------------------------- folding

// The running state of one result.
typedef struct dlua_fold {
  const dlua_args *call;
  int pass;      // folds that look at the elements twice: 0, then 1
  int64_t count; // elements per result
  int64_t seen;  // elements before this piece
  double f, centre;
  int64_t i, at;
} dlua_fold;

// One kind of reduction: pieces of each result's elements come in order, converted to double (float
// tensors) or to int64_t (all others).
typedef struct dlua_folder {
  int passes;
  dlua_fold first; // the state to start from
  void (*floats)(dlua_fold *s, const double *x, int64_t n);
  void (*ints)(dlua_fold *s, const int64_t *x, int64_t n);
  void (*finish)(dlua_fold *s, int64_t o); // writes result o
} dlua_folder;

// Folds in[0] on this thread, and the same on the team of threads: results are independent, so the
// bits are those of the plain one.
dlua_status dlua_fold_plain(const dlua_args *a, const dlua_folder *f, unsigned dims);
dlua_status dlua_fold_parallel(const dlua_args *a, const dlua_folder *f, unsigned dims);

// Element o of a contiguous result.
void dlua_put(const dlua_tensor *out, int64_t o, double value);
void dlua_put_int(const dlua_tensor *out, int64_t o, int64_t value);

// ---------------------------------------------------------------- sums

// Adds part(context, from, to) over fixed slices of 0..n, in order, on the team of threads: the
// result has the same bits for every number of threads.
dlua_status dlua_sum_slices(int64_t n, double cost,
                            double (*part)(void *context, int64_t from, int64_t to), void *context,
                            double *sum);

// ---------------------------------------------------------------- gradients

// g, the gradient of a reduction's result, with the reduced dimensions back as 1 (so that it
// broadcasts against the input); and expanded to the input's shape.
dlua_tensor *dlua_unreduce(dlua_back *b, dlua_tensor *g);
dlua_tensor *dlua_spread(dlua_back *b, dlua_tensor *g);
// Elements of the recorded input that went into each result.
int64_t dlua_reduced_count(const dlua_back *b);

#endif
