// optim_kernels.h - the inner loops of optim.c, compiled once per instruction set (simd/optim.c).
#ifndef DLUA_OPTIM_KERNELS_H
#define DLUA_OPTIM_KERNELS_H

#include "../optim.h"

// p, gradient, three slots (NULL where unused).
typedef void dlua_step_kernel(int64_t n, void *p, const void *g, void *a, void *b, void *c,
                              const dlua_factors *f);

// The same up to the first block of gradients that is not finite; returns how many elements it
// stepped.
typedef int64_t dlua_guarded_kernel(int64_t n, void *p, const void *g, void *a, void *b, void *c,
                                    const dlua_factors *f);

// Kernels for f32 [0] and f64 [1].
typedef struct dlua_optim_kernels {
  dlua_step_kernel *step[4][2]; // by dlua_rule
  dlua_guarded_kernel *guarded[4][2];
  double (*sum_squares[2])(int64_t n, const void *x);
  double (*largest[2])(int64_t n, const void *x); // magnitude; NaN counts as larger than infinity
  bool (*finite[2])(int64_t n, const void *x);    // all elements?
  void (*scale[2])(int64_t n, void *x, double factor);
} dlua_optim_kernels;

// Steps parameters of the CPU, which have been checked.
dlua_status dlua_step_on_cpu(const dlua_optim *o, int n, const dlua_update *updates,
                             dlua_bad_gradient *bad);

extern const dlua_optim_kernels dlua_optim_kernels_base;
extern const dlua_optim_kernels dlua_optim_kernels_avx2, dlua_optim_kernels_avx512; // x86-64 only

#endif
