// math.c - functions of one tensor. The plain loops below are libm's, in the precision of the
// tensor; the fast ones for f32 (simd/rows.c) stay within 4 units in the last place of them.
//
// Integers pass through floor and friends unchanged, keep their dtype under neg, abs, sign and
// square, and become f32 under the rest.
#include <math.h>
#include <tgmath.h>

#include "pointwise.h"

enum { ARITHMETIC = DLUA_ROWS | DLUA_INPLACE };

#define ANY_ROWS1(op, of_floats, of_integers) \
  DLUA_FLOAT_ROWS1(op, of_floats) \
  DLUA_ROW1(op##_i64, int64_t, int64_t, of_integers) \
  DLUA_ROW1(op##_i32, int32_t, int32_t, of_integers) \
  DLUA_ROW1(op##_u8, uint8_t, uint8_t, of_integers) \
  DLUA_ROW1(op##_bool, bool, bool, of_integers) \
  DLUA_ANY_CPU(op)

#define UNARY_OP(op, rule, signature, text, ...) \
  const dlua_op dlua_op_##op = {.name = #op, \
                                .sig = signature, \
                                .doc = text, \
                                .dtype = rule, \
                                .flags = ARITHMETIC, \
                                .shape = dlua_shape_same, \
                                .cpu = op##_cpu, \
                                __VA_ARGS__};

// What gradients are written with: each takes and gives tensors of the scope of one backward call.
static dlua_tensor *times(dlua_back *b, dlua_tensor *x, dlua_tensor *y) {
  return dlua_mul(b->s, x, y);
}
static dlua_tensor *apply(dlua_back *b, const dlua_op *op, dlua_tensor *x) {
  return dlua_call(b->s, op, dlua_t(x));
}
static dlua_tensor *plus(dlua_back *b, dlua_tensor *x, double number) {
  return dlua_add(b->s, x, dlua_num(b->s, number));
}
static dlua_tensor *square(dlua_back *b, dlua_tensor *x) { return apply(b, &dlua_op_square, x); }
static dlua_tensor *scaled(dlua_back *b, dlua_tensor *x, double factor) {
  return dlua_scale(b->s, x, factor);
}

// ---------------------------------------------------------------- sign and size

static inline int64_t neg_int(int64_t x) { return (int64_t)(0 - (uint64_t)x); }
static inline int64_t abs_int(int64_t x) { return x < 0 ? neg_int(x) : x; }
static inline int64_t sign_int(int64_t x) { return (x > 0) - (x < 0); }
static inline int64_t square_int(int64_t x) { return (int64_t)((uint64_t)x * (uint64_t)x); }

ANY_ROWS1(neg, -x, neg_int(x))
ANY_ROWS1(abs, fabs(x), abs_int(x))
ANY_ROWS1(sign, x > 0 ? 1 : x < 0 ? -1 : x, sign_int(x))
ANY_ROWS1(square, x *x, square_int(x))
DLUA_FLOAT_ROWS1(reciprocal, 1 / x)
DLUA_FLOAT_CPU(reciprocal)
DLUA_FAST(neg, 1)
DLUA_FAST(abs, 1)
DLUA_FAST(sign, 1)
DLUA_FAST(square, 1)
DLUA_FAST(reciprocal, 1)

static void neg_back(dlua_back *b) { dlua_give(b, 0, dlua_neg(b->s, b->g[0])); }

static void abs_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], apply(b, &dlua_op_sign, dlua_saved(b, "x"))));
}

static void square_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], scaled(b, dlua_saved(b, "x"), 2)));
}

static void reciprocal_back(dlua_back *b) {
  dlua_tensor *y = dlua_saved(b, "y");
  dlua_give(b, 0, dlua_neg(b->s, times(b, b->g[0], times(b, y, y))));
}

UNARY_OP(neg, DLUA_PROMOTE, "x:T -> y", "-x.", .fast = DLUA_ONLY(neg_fast), .back = neg_back,
         .refuse = "bool")
UNARY_OP(abs, DLUA_PROMOTE, "x:T -> y", "|x|; its gradient at 0 is 0.", .fast = DLUA_ONLY(abs_fast),
         .back = abs_back, .save = "x")
UNARY_OP(sign, DLUA_PROMOTE, "x:T -> y", "1, 0 or -1 as x is positive, zero or negative.",
         .fast = DLUA_ONLY(sign_fast), .back = dlua_zero_back)
UNARY_OP(square, DLUA_PROMOTE, "x:T -> y", "x * x.", .fast = DLUA_ONLY(square_fast),
         .back = square_back, .save = "x")
UNARY_OP(reciprocal, DLUA_PROMOTE_FLOAT, "x:T(0.5,3) -> y", "1 / x.",
         .fast = DLUA_ONLY(reciprocal_fast), .back = reciprocal_back, .save = "y",
         .autocast = DLUA_CAST_F32)

// ---------------------------------------------------------------- rounding

ANY_ROWS1(floor, floor(x), x)
ANY_ROWS1(ceil, ceil(x), x)
ANY_ROWS1(round, rint(x), x)
ANY_ROWS1(trunc, trunc(x), x)

DLUA_FAST(floor, 1)
DLUA_FAST(ceil, 1)
DLUA_FAST(round, 1)
DLUA_FAST(trunc, 1)

UNARY_OP(floor, DLUA_PROMOTE, "x:T -> y", "The largest integer up to x.",
         .fast = DLUA_ONLY(floor_fast), .back = dlua_zero_back)
UNARY_OP(ceil, DLUA_PROMOTE, "x:T -> y", "The smallest integer from x on.",
         .fast = DLUA_ONLY(ceil_fast), .back = dlua_zero_back)
UNARY_OP(round, DLUA_PROMOTE, "x:T -> y", "The nearest integer; halves go to the even one.",
         .fast = DLUA_ONLY(round_fast), .back = dlua_zero_back)
UNARY_OP(trunc, DLUA_PROMOTE, "x:T -> y", "x without its fraction.", .fast = DLUA_ONLY(trunc_fast),
         .back = dlua_zero_back)

// ---------------------------------------------------------------- exponentials and logarithms

#define FLOAT_FUNCTION(op, expression) \
  DLUA_FLOAT_ROWS1(op, expression) \
  DLUA_FLOAT_CPU(op)

FLOAT_FUNCTION(exp, exp(x))
FLOAT_FUNCTION(expm1, expm1(x))
FLOAT_FUNCTION(log, log(x))
FLOAT_FUNCTION(log1p, log1p(x))
FLOAT_FUNCTION(log2, log2(x))
FLOAT_FUNCTION(log10, log10(x))
FLOAT_FUNCTION(sqrt, sqrt(x))
FLOAT_FUNCTION(rsqrt, 1 / sqrt(x))
DLUA_FAST(exp, 10)
DLUA_FAST(expm1, 20)
DLUA_FAST(log, 10)
DLUA_FAST(log1p, 20)
DLUA_FAST(log2, 20)
DLUA_FAST(log10, 20)
DLUA_FAST(sqrt, 4)
DLUA_FAST(rsqrt, 8)

static void exp_back(dlua_back *b) { dlua_give(b, 0, times(b, b->g[0], dlua_saved(b, "y"))); }

static void expm1_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], plus(b, dlua_saved(b, "y"), 1)));
}

static void log_back(dlua_back *b) { dlua_give(b, 0, dlua_div(b->s, b->g[0], dlua_saved(b, "x"))); }

static void log1p_back(dlua_back *b) {
  dlua_give(b, 0, dlua_div(b->s, b->g[0], plus(b, dlua_saved(b, "x"), 1)));
}

static void log2_back(dlua_back *b) {
  dlua_give(b, 0, dlua_div(b->s, b->g[0], scaled(b, dlua_saved(b, "x"), M_LN2)));
}

static void log10_back(dlua_back *b) {
  dlua_give(b, 0, dlua_div(b->s, b->g[0], scaled(b, dlua_saved(b, "x"), M_LN10)));
}

static void sqrt_back(dlua_back *b) {
  dlua_give(b, 0, dlua_div(b->s, b->g[0], scaled(b, dlua_saved(b, "y"), 2)));
}

static void rsqrt_back(dlua_back *b) {
  dlua_tensor *y = dlua_saved(b, "y");
  dlua_give(b, 0, times(b, scaled(b, b->g[0], -0.5), times(b, y, square(b, y))));
}

UNARY_OP(exp, DLUA_PROMOTE_FLOAT, "x:T -> y", "e to the power x.", .fast = DLUA_ONLY(exp_fast),
         .back = exp_back, .save = "y", .autocast = DLUA_CAST_F32)
UNARY_OP(expm1, DLUA_PROMOTE_FLOAT, "x:T -> y", "exp(x) - 1, exact near 0.",
         .fast = DLUA_ONLY(expm1_fast), .back = expm1_back, .save = "y", .autocast = DLUA_CAST_F32)
UNARY_OP(log, DLUA_PROMOTE_FLOAT, "x:T(0.2,3) -> y", "The natural logarithm of x.",
         .fast = DLUA_ONLY(log_fast), .back = log_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(log1p, DLUA_PROMOTE_FLOAT, "x:T(-0.5,3) -> y", "log(1 + x), exact near 0.",
         .fast = DLUA_ONLY(log1p_fast), .back = log1p_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(log2, DLUA_PROMOTE_FLOAT, "x:T(0.2,3) -> y", "The logarithm of x to base 2.",
         .fast = DLUA_ONLY(log2_fast), .back = log2_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(log10, DLUA_PROMOTE_FLOAT, "x:T(0.2,3) -> y", "The logarithm of x to base 10.",
         .fast = DLUA_ONLY(log10_fast), .back = log10_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(sqrt, DLUA_PROMOTE_FLOAT, "x:T(0.2,3) -> y", "The square root of x.",
         .fast = DLUA_ONLY(sqrt_fast), .back = sqrt_back, .save = "y")
UNARY_OP(rsqrt, DLUA_PROMOTE_FLOAT, "x:T(0.2,3) -> y", "1 / sqrt(x).",
         .fast = DLUA_ONLY(rsqrt_fast), .back = rsqrt_back, .save = "y", .autocast = DLUA_CAST_F32)

// ---------------------------------------------------------------- angles

FLOAT_FUNCTION(sin, sin(x))
FLOAT_FUNCTION(cos, cos(x))
FLOAT_FUNCTION(tan, tan(x))
FLOAT_FUNCTION(asin, asin(x))
FLOAT_FUNCTION(acos, acos(x))
FLOAT_FUNCTION(atan, atan(x))
FLOAT_FUNCTION(sinh, sinh(x))
FLOAT_FUNCTION(cosh, cosh(x))
FLOAT_FUNCTION(erf, erf(x))
DLUA_FAST(sin, 20)
DLUA_FAST(cos, 20)
DLUA_FAST(tan, 30)
DLUA_FAST(asin, 20)
DLUA_FAST(acos, 20)
DLUA_FAST(atan, 20)
DLUA_FAST(sinh, 20)
DLUA_FAST(cosh, 20)
DLUA_FAST(erf, 20)

static void sin_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], apply(b, &dlua_op_cos, dlua_saved(b, "x"))));
}

static void cos_back(dlua_back *b) {
  dlua_tensor *sine = apply(b, &dlua_op_sin, dlua_saved(b, "x"));
  dlua_give(b, 0, dlua_neg(b->s, times(b, b->g[0], sine)));
}

static void tan_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], plus(b, square(b, dlua_saved(b, "y")), 1)));
}

// g / sqrt(1 - x^2)
static dlua_tensor *over_root(dlua_back *b) {
  dlua_tensor *rest = plus(b, dlua_neg(b->s, square(b, dlua_saved(b, "x"))), 1);
  return times(b, b->g[0], apply(b, &dlua_op_rsqrt, rest));
}

static void asin_back(dlua_back *b) { dlua_give(b, 0, over_root(b)); }
static void acos_back(dlua_back *b) { dlua_give(b, 0, dlua_neg(b->s, over_root(b))); }

static void atan_back(dlua_back *b) {
  dlua_give(b, 0, dlua_div(b->s, b->g[0], plus(b, square(b, dlua_saved(b, "x")), 1)));
}

static void sinh_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], apply(b, &dlua_op_cosh, dlua_saved(b, "x"))));
}

static void cosh_back(dlua_back *b) {
  dlua_give(b, 0, times(b, b->g[0], apply(b, &dlua_op_sinh, dlua_saved(b, "x"))));
}

static void erf_back(dlua_back *b) {
  dlua_tensor *bell = apply(b, &dlua_op_exp, dlua_neg(b->s, square(b, dlua_saved(b, "x"))));
  dlua_give(b, 0, times(b, b->g[0], scaled(b, bell, M_2_SQRTPI)));
}

UNARY_OP(sin, DLUA_PROMOTE_FLOAT, "x:T -> y", "The sine of x radians.", .fast = DLUA_ONLY(sin_fast),
         .back = sin_back, .save = "x")
UNARY_OP(cos, DLUA_PROMOTE_FLOAT, "x:T -> y", "The cosine of x radians.",
         .fast = DLUA_ONLY(cos_fast), .back = cos_back, .save = "x")
UNARY_OP(tan, DLUA_PROMOTE_FLOAT, "x:T(-1,1) -> y", "The tangent of x radians.",
         .fast = DLUA_ONLY(tan_fast), .back = tan_back, .save = "y", .autocast = DLUA_CAST_F32)
UNARY_OP(asin, DLUA_PROMOTE_FLOAT, "x:T(-0.9,0.9) -> y", "The angle whose sine is x.",
         .fast = DLUA_ONLY(asin_fast), .back = asin_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(acos, DLUA_PROMOTE_FLOAT, "x:T(-0.9,0.9) -> y", "The angle whose cosine is x.",
         .fast = DLUA_ONLY(acos_fast), .back = acos_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(atan, DLUA_PROMOTE_FLOAT, "x:T -> y", "The angle whose tangent is x.",
         .fast = DLUA_ONLY(atan_fast), .back = atan_back, .save = "x")
UNARY_OP(sinh, DLUA_PROMOTE_FLOAT, "x:T -> y", "(exp(x) - exp(-x)) / 2.",
         .fast = DLUA_ONLY(sinh_fast), .back = sinh_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(cosh, DLUA_PROMOTE_FLOAT, "x:T -> y", "(exp(x) + exp(-x)) / 2.",
         .fast = DLUA_ONLY(cosh_fast), .back = cosh_back, .save = "x", .autocast = DLUA_CAST_F32)
UNARY_OP(erf, DLUA_PROMOTE_FLOAT, "x:T -> y",
         "The error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.",
         .fast = DLUA_ONLY(erf_fast), .back = erf_back, .save = "x")

// ---------------------------------------------------------------- clamp

// Limits of an integer tensor: integers, since a fraction makes the result a float.
static int64_t least(const dlua_value *v) { return v->set ? v->i : INT64_MIN; }

static int64_t most(const dlua_value *v) { return v->set ? v->i : INT64_MAX; }

// The upper limit wins where the two cross, as in PyTorch; nan passes.
static double clamp_float(double x, const dlua_value *num) {
  double low = dlua_number_or(num, -INFINITY), high = dlua_number_or(num + 1, INFINITY);
  double raised = x < low ? low : x;
  return raised > high ? high : raised;
}

static int64_t clamp_int(int64_t x, const dlua_value *num) {
  int64_t low = least(num), high = most(num + 1), raised = x < low ? low : x;
  return raised > high ? high : raised;
}

ANY_ROWS1(clamp, clamp_float(x, num), clamp_int(x, num))
DLUA_FAST(clamp, 1)

static bool inside(double x, const dlua_value *num) {
  return x >= dlua_number_or(num, -INFINITY) && x <= dlua_number_or(num + 1, INFINITY);
}

DLUA_FLOAT_ROWS2(clamp_grad, inside(y, num) ? x : 0) // x is g, y is x: operands in order
DLUA_FLOAT_KERNELS(clamp_grad, 1)

static dlua_status clamp_shape(dlua_args *a) {
  const dlua_value *min = &a->num[0], *max = &a->num[1];
  if (!min->set && !max->set) return dlua_shape_error(a, "neither min nor max is given");
  if (min->i > 0) DLUA_TRY(dlua_number_fits(a, min, a->spec[0].dtype)); // below, it limits nothing
  if (max->i < 0) DLUA_TRY(dlua_number_fits(a, max, a->spec[0].dtype));
  return dlua_shape_same(a);
}

static dlua_tensor *clamp_slope(dlua_back *b, const char *input) {
  return dlua_call(b->s, &dlua_op_clamp_grad, dlua_t(b->g[0]), dlua_t(dlua_saved(b, input)),
                   dlua_v(&b->num[0]), dlua_v(&b->num[1]));
}

static void clamp_back(dlua_back *b) { dlua_give(b, 0, clamp_slope(b, "x")); }

static void clamp_grad_back(dlua_back *b) {
  dlua_give(b, 0, clamp_slope(b, "x"));
  if (dlua_needs(b, 1)) dlua_give(b, 1, dlua_zeros_like(b->s, b->g[0]));
}

const dlua_op dlua_op_clamp = {
    .name = "clamp",
    .sig = "x:T, min:n?, max:n? -> y",
    .doc = "x brought into min..max, either of which may be missing; the gradient passes where x "
           "lies inside, the ends included.",
    .dtype = DLUA_PROMOTE,
    .flags = ARITHMETIC,
    .shape = clamp_shape,
    .cpu = clamp_cpu,
    .fast = DLUA_ONLY(clamp_fast),
    .back = clamp_back,
    .save = "x",
};

const dlua_op dlua_op_clamp_grad = {
    .name = "clamp_grad",
    .sig = "g:T, x:T, min:n?, max:n? -> gx",
    .doc = "g where min <= x <= max, 0 elsewhere: the gradient of clamp.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_ROWS | DLUA_HIDDEN,
    .shape = dlua_shape_same,
    .cpu = clamp_grad_cpu,
    .fast = DLUA_ONLY(clamp_grad_fast),
    .back = clamp_grad_back,
    .save = "x",
};
