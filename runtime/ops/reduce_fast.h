// reduce_fast.h - vector kernels of reductions over f32; all return DLUA_DECLINED where they do not
// apply.
#ifndef DLUA_REDUCE_FAST_H
#define DLUA_REDUCE_FAST_H

#include "../cpu/accumulate.h"
#include "../op.h"

// Sums (or means) of in[0] over dims, where the fastest dimension of x in memory is contiguous:
// rows, columns and whole tensors. The same bits for every number of threads.
dlua_status dlua_sum_fast(const dlua_args *a, unsigned dims, bool mean);
// Writes the elements of rows rows of n, stride apart, the first at place start; called once for each
// element before it is summed.
typedef void dlua_make_rows(void *context, int64_t start, int64_t rows, int64_t stride, int64_t n);
// Sums of x over all dimensions but the last, whose elements make writes: x is contiguous. The bits
// are those of dlua_sum_fast.
dlua_status dlua_sum_columns_fast(const dlua_tensor *x, const dlua_tensor *sums,
                                  dlua_make_rows *make, void *context);
// Sums (or means), products, all and any of every dtype (accumulate.c).
dlua_status dlua_accumulate_fast(const dlua_args *a, unsigned dims, dlua_folding folding,
                                 bool mean);
// Square root of the sum of squares, and variances (or their roots), of contiguous rows.
dlua_status dlua_norm_fast(const dlua_args *a, unsigned dims);
dlua_status dlua_var_fast(const dlua_args *a, unsigned dims, bool unbiased, bool root);
// logsumexp of contiguous rows, or of columns.
dlua_status dlua_logsumexp_fast(const dlua_args *a, unsigned dims);
// The largest or smallest element of rows, for calls with one result.
dlua_status dlua_extreme_fast(const dlua_args *a, unsigned dims, bool largest);

#endif
