// norm_fast.h - the fast kernels of batch normalisation, by how the activations lie, and what they
// share.
#ifndef DLUA_NORM_FAST_H
#define DLUA_NORM_FAST_H

#include "../op.h"

// Inputs and numbers of batch_norm, and of its gradient.
enum { NORM_X, NORM_WEIGHT, NORM_BIAS, NORM_RUNNING_MEAN, NORM_RUNNING_VAR };
enum { NORM_TRAINING, NORM_MOMENTUM, NORM_EPS, NORM_RELU };
enum { GRAD_G, GRAD_X, GRAD_WEIGHT, GRAD_BIAS, GRAD_MEAN, GRAD_RSTD };
enum { GRAD_TRAINING, GRAD_RELU };

// f32 in contiguous or blocked memory (norm_fast.c).
dlua_status dlua_batch_norm_fast(const dlua_args *a);
dlua_status dlua_batch_norm_grad_fast(const dlua_args *a);
// f32 and bf16 in NHWC (norm_rows.c); values per channel are f32.
dlua_status dlua_batch_norm_rows(const dlua_args *a);
dlua_status dlua_batch_norm_grad_rows(const dlua_args *a);
// Contiguous f32 x {n,c} (norm_columns.c).
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

// What the fast kernels share: from the moments (of training, else unused) to y = x scale + offset of
// a channel, setting its mean and rstd; from the sums of g and g (x - mean) over count values to
// gx = g factor[0] + x factor[1] + factor[2], setting its gradients of weight and bias; and the scale
// and offset that y had.
void dlua_norm_gate_factors(const dlua_args *a, int64_t channel, float *scale, float *offset);
void dlua_norm_factors(const dlua_args *a, int64_t channel, const dlua_moments *m, float *scale,
                       float *offset);
void dlua_norm_grad_factors(const dlua_args *a, int64_t channel, int64_t count, double sum,
                            double product, float factor[3]);

#endif
