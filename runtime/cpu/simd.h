// simd.h - the loops of runtime/cpu/simd/rows.c, compiled once per instruction set, and which set runs.
//
//   dlua_row *row = dlua_simd()->of[DLUA_F32].add;     // NULL where there is no fast loop
#ifndef DLUA_SIMD_H
#define DLUA_SIMD_H

#include "../ops/iterate.h"

// Loops over one row (iterate.h) for one dtype, named as their ops; NULL where there is none. The
// context is the call's numbers (dlua_value *). Contiguous operands and repeated elements are fast,
// all others right.
typedef struct dlua_dtype_rows {
  dlua_row *add, *sub, *mul, *div, *maximum, *minimum, *pow, *where;
  dlua_row *eq, *ne, *lt, *le, *gt, *ge;
  dlua_row *logical_and, *logical_or, *logical_xor, *logical_not, *isnan, *isinf, *isfinite;
  dlua_row *neg, *abs, *sign, *square, *reciprocal, *sqrt, *rsqrt, *clamp, *clamp_grad;
  dlua_row *floor, *ceil, *round, *trunc;
  dlua_row *exp, *log, *log1p, *expm1, *log2, *log10, *sin, *cos, *tan, *erf;
  dlua_row *sinh, *cosh, *atan, *asin, *acos, *atan2;
  dlua_row *relu, *relu_grad, *leaky_relu, *leaky_relu_grad, *elu, *elu_grad;
  dlua_row *gelu, *gelu_grad, *silu, *silu_grad, *sigmoid, *sigmoid_grad, *tanh, *tanh_grad;
  dlua_row *softplus, *softplus_grad, *hardtanh, *hardtanh_grad, *logsigmoid, *dropout_grad;
  // Values of losses from x and target, without weights and reduction.
  dlua_row *l1_loss, *huber_loss, *smooth_l1_loss, *bce_loss, *bce_with_logits, *kl_div;
  // target * (first - x + second), 0 where target is 0: cross entropy with log(sum(exp(x))) in two
  // parts.
  dlua_row *soft_label;
} dlua_dtype_rows;

typedef struct dlua_simd_kernels {
  dlua_dtype_rows of[DLUA_DTYPES];
} dlua_simd_kernels;

// Rows that convert between f32 and the other dtypes (simd/cast.c), by the other one.
typedef struct dlua_cast_rows {
  dlua_row *to_f32[DLUA_DTYPES], *from_f32[DLUA_DTYPES];
} dlua_cast_rows;

// The loops of the chosen set.
const dlua_simd_kernels *dlua_simd(void);
const dlua_cast_rows *dlua_cast_simd(void);

#endif
