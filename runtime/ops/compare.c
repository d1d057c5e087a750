// compare.c - comparisons, logic and tests of single numbers. Results are bool and carry no
// gradient. Tensors of different dtypes are compared in the dtype that holds both.
#include <math.h>

#include "pointwise.h"

#define COMPARE_ROWS(op, expression) \
  DLUA_ROW2(op##_f32, bool, float, float, expression) \
  DLUA_ROW2(op##_f64, bool, double, double, expression) \
  DLUA_ROW2(op##_i64, bool, int64_t, int64_t, expression) \
  DLUA_ROW2(op##_i32, bool, int32_t, int32_t, expression) \
  DLUA_ROW2(op##_u8, bool, uint8_t, uint8_t, expression) \
  DLUA_ROW2(op##_bool, bool, bool, bool, expression) \
  DLUA_ANY_CPU(op)
#define TEST_ROWS(op, expression) \
  DLUA_ROW1(op##_f32, bool, float, expression) \
  DLUA_ROW1(op##_f64, bool, double, expression) \
  DLUA_ROW1(op##_i64, bool, int64_t, expression) \
  DLUA_ROW1(op##_i32, bool, int32_t, expression) \
  DLUA_ROW1(op##_u8, bool, uint8_t, expression) \
  DLUA_ROW1(op##_bool, bool, bool, expression) \
  DLUA_ANY_CPU(op)

COMPARE_ROWS(eq, x == y)
COMPARE_ROWS(ne, x != y)
COMPARE_ROWS(lt, x < y)
COMPARE_ROWS(le, x <= y)
COMPARE_ROWS(gt, x > y)
COMPARE_ROWS(ge, x >= y)
DLUA_FAST(eq, 1)
DLUA_FAST(ne, 1)
DLUA_FAST(lt, 1)
DLUA_FAST(le, 1)
DLUA_FAST(gt, 1)
DLUA_FAST(ge, 1)
COMPARE_ROWS(logical_and, x &&y)
COMPARE_ROWS(logical_or, x || y)
COMPARE_ROWS(logical_xor, !x != !y)
TEST_ROWS(logical_not, !x)
TEST_ROWS(isnan, x != x)
TEST_ROWS(isinf, isinf((double)x))
TEST_ROWS(isfinite, isfinite((double)x))
DLUA_FAST(logical_and, 1)
DLUA_FAST(logical_or, 1)
DLUA_FAST(logical_xor, 1)
DLUA_FAST(logical_not, 1)
DLUA_FAST(isnan, 1)
DLUA_FAST(isinf, 1)
DLUA_FAST(isfinite, 1)

#define COMPARE_OP(op, text, ...) \
  const dlua_op dlua_op_##op = {.name = #op, \
                                .sig = "x:T, y:T -> out", \
                                .doc = text, \
                                .dtype = DLUA_COMPARE, \
                                .flags = DLUA_ROWS, \
                                .shape = dlua_shape_broadcast, \
                                .cpu = op##_cpu, \
                                __VA_ARGS__};
#define TEST_OP(op, text) \
  const dlua_op dlua_op_##op = {.name = #op, \
                                .sig = "x:T -> y", \
                                .doc = text, \
                                .dtype = DLUA_COMPARE, \
                                .flags = DLUA_ROWS, \
                                .shape = dlua_shape_same, \
                                .cpu = op##_cpu, \
                                .fast = DLUA_ONLY(op##_fast)};

COMPARE_OP(eq, "Whether x = y; nan equals nothing.", .fast = DLUA_ONLY(eq_fast))
COMPARE_OP(ne, "Whether x and y differ.", .fast = DLUA_ONLY(ne_fast))
COMPARE_OP(lt, "Whether x < y.", .fast = DLUA_ONLY(lt_fast))
COMPARE_OP(le, "Whether x <= y.", .fast = DLUA_ONLY(le_fast))
COMPARE_OP(gt, "Whether x > y.", .fast = DLUA_ONLY(gt_fast))
COMPARE_OP(ge, "Whether x >= y.", .fast = DLUA_ONLY(ge_fast))
COMPARE_OP(logical_and, "Whether neither x nor y is 0.", .fast = DLUA_ONLY(logical_and_fast))
COMPARE_OP(logical_or, "Whether x or y or both are not 0.", .fast = DLUA_ONLY(logical_or_fast))
COMPARE_OP(logical_xor, "Whether exactly one of x and y is 0.", .fast = DLUA_ONLY(logical_xor_fast))
TEST_OP(logical_not, "Whether x is 0.")
TEST_OP(isnan, "Whether x is nan, no number.")
TEST_OP(isinf, "Whether x is infinite.")
TEST_OP(isfinite, "Whether x is neither nan nor infinite.")
