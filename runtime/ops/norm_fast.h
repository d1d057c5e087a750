// norm_fast.h - batch normalisation of f32 activations in contiguous or blocked memory
// (norm_fast.c).
#ifndef DLUA_NORM_FAST_H
#define DLUA_NORM_FAST_H

#include "../op.h"

dlua_status dlua_batch_norm_fast(const dlua_args *a);
dlua_status dlua_batch_norm_grad_fast(const dlua_args *a);
// The same for contiguous x {n,c} (norm_columns.c).
dlua_status dlua_batch_norm_columns(const dlua_args *a);
dlua_status dlua_batch_norm_grad_columns(const dlua_args *a);

// What the plain and the fast kernel share: from the moments of one channel (sum and squares of x -
// shift over count values) to mean and 1 / sqrt(var + eps), updating the running averages (NULL:
// none; var unbiased, as PyTorch does).
typedef struct dlua_moments {
  double shift, sum, squares;
  int64_t count;
} dlua_moments;
void dlua_finish_moments(const dlua_args *a, int64_t channel, const dlua_moments *m, double *mean,
                         double *rstd);

#endif
