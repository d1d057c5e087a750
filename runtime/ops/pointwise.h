// pointwise.h - what the files of elementwise ops share: loops from one expression, and the two
// kernels that run them.
//
//   DLUA_FLOAT_ROWS1(exp, exp(x))               // rows exp_f32 and exp_f64; num[] is in scope
//   DLUA_FLOAT_KERNELS(exp, 10)                 // kernels exp_cpu, and exp_fast where simd.h has
//   it
#ifndef DLUA_OPS_POINTWISE_H
#define DLUA_OPS_POINTWISE_H

#include "../cpu/simd.h"
#include "../op.h"
#include "iterate.h"

typedef dlua_row *const dlua_rows[DLUA_DTYPES]; // by dtype of the last input

// Runs the row for the call's dtype on this thread, with the call's numbers as its context. A call in
// bf16 or f16, of an op with DLUA_BORROWS, runs on the rows of f32.
dlua_status dlua_rows_run(const dlua_args *a, dlua_rows rows);
// Runs a fast row on the whole team; declines where there is none.
dlua_status dlua_rows_fast(const dlua_args *a, dlua_row *row, double cost);
// The fast rows for the call's dtype.
const dlua_dtype_rows *dlua_rows_of(const dlua_args *a);
// A number of the call, or what to take where it is missing; integers of kind n become doubles.
double dlua_number_or(const dlua_value *v, double missing);

// Flags of ops whose kernels are made of rows of f32 and those of other dtypes.
enum { DLUA_ROWS = DLUA_ELEMENTWISE | DLUA_HALF | DLUA_BORROWS };

#define DLUA_AT(T, i) (*(T *)(p[i] + k * s[i]))

// A loop "result = expression of x (y, z)" over a row; T are the inputs' types, R the result's.
#define DLUA_ROW1(name, R, T, expression) \
  static void name(void *context, int64_t n, char **p, const int64_t *s) { \
    const dlua_value *num = context; \
    (void)num; \
    for (int64_t k = 0; k < n; k++) { \
      T x = DLUA_AT(T, 1); \
      DLUA_AT(R, 0) = (R)(expression); \
    } \
  }
#define DLUA_ROW2(name, R, T, U, expression) \
  static void name(void *context, int64_t n, char **p, const int64_t *s) { \
    const dlua_value *num = context; \
    (void)num; \
    for (int64_t k = 0; k < n; k++) { \
      T x = DLUA_AT(T, 1); \
      U y = DLUA_AT(U, 2); \
      DLUA_AT(R, 0) = (R)(expression); \
    } \
  }

#define DLUA_FLOAT_ROWS1(op, expression) \
  DLUA_ROW1(op##_f32, float, float, expression) \
  DLUA_ROW1(op##_f64, double, double, expression)
#define DLUA_FLOAT_ROWS2(op, expression) \
  DLUA_ROW2(op##_f32, float, float, float, expression) \
  DLUA_ROW2(op##_f64, double, double, double, expression)

#define DLUA_FLOAT_CPU(op) \
  static dlua_status op##_cpu(const dlua_args *a) { \
    return dlua_rows_run(a, (dlua_rows){[DLUA_F32] = op##_f32, [DLUA_F64] = op##_f64}); \
  }
#define DLUA_ANY_CPU(op) \
  static dlua_status op##_cpu(const dlua_args *a) { \
    return dlua_rows_run(a, (dlua_rows){[DLUA_F32] = op##_f32, \
                                        [DLUA_F64] = op##_f64, \
                                        [DLUA_I64] = op##_i64, \
                                        [DLUA_I32] = op##_i32, \
                                        [DLUA_U8] = op##_u8, \
                                        [DLUA_BOOL] = op##_bool}); \
  }
// cost: rough number of simple operations per element.
#define DLUA_FAST(op, cost) \
  static dlua_status op##_fast(const dlua_args *a) { \
    return dlua_rows_fast(a, dlua_rows_of(a)->op, cost); \
  }
#define DLUA_FLOAT_KERNELS(op, cost) DLUA_FLOAT_CPU(op) DLUA_FAST(op, cost)

#define DLUA_ONLY(kernel) ((dlua_kernel *const[]){kernel, NULL})

// Gradients that are zero everywhere: every wanted input gets zeros.
void dlua_zero_back(dlua_back *b);

#endif
