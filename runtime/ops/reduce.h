// reduce.h - what the reductions share: shape rules, folds over pieces of elements, the way back for
// gradients. See dlua_fold_plain for how elements are visited, reduction.h for their order.
#ifndef DLUA_REDUCE_H
#define DLUA_REDUCE_H

#include "../op.h"
#include "reduction.h"

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
