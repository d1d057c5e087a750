// elementwise.c - arithmetic between tensors that broadcast, and the choice between two of them.
//
// Integers wrap around as two's complement (their loops run on unsigned types), bool adds as "or"
// and multiplies as "and". Floor division and remainder are Python's and Lua's: the remainder has
// the divisor's sign. Refused: integer division by zero, a negative power of an integer, and
// sub, neg and friends on bool, which PyTorch refuses as well.
#include <math.h>
#include <tgmath.h>

#include "pointwise.h"

#define RING_ROWS2(op, expression, of_bools) \
  DLUA_FLOAT_ROWS2(op, expression) \
  DLUA_ROW2(op##_i64, uint64_t, uint64_t, uint64_t, expression) \
  DLUA_ROW2(op##_i32, uint32_t, uint32_t, uint32_t, expression) \
  DLUA_ROW2(op##_u8, uint8_t, uint8_t, uint8_t, expression) \
  DLUA_ROW2(op##_bool, bool, bool, bool, of_bools)
#define ORDER_ROWS2(op, expression) \
  DLUA_FLOAT_ROWS2(op, expression) \
  DLUA_ROW2(op##_i64, int64_t, int64_t, int64_t, expression) \
  DLUA_ROW2(op##_i32, int32_t, int32_t, int32_t, expression) \
  DLUA_ROW2(op##_u8, uint8_t, uint8_t, uint8_t, expression) \
  DLUA_ROW2(op##_bool, bool, bool, bool, expression)

enum {
  ARITHMETIC = DLUA_ELEMENTWISE | DLUA_INPLACE, // integers are looked at before
  ROWS = DLUA_ROWS | DLUA_INPLACE
};

static dlua_tensor *choose(dlua_back *b, dlua_tensor *condition, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(b->s, &dlua_op_where, dlua_t(condition), dlua_t(x), dlua_t(y));
}

static dlua_tensor *zero(dlua_back *b) { return dlua_num(b->s, 0); }

// ---------------------------------------------------------------- add, sub, mul, div

RING_ROWS2(add, x + y, x || y)
RING_ROWS2(sub, x - y, x != y)
RING_ROWS2(mul, x *y, x &&y)
DLUA_FLOAT_ROWS2(div, x / y)

DLUA_ANY_CPU(add)
DLUA_ANY_CPU(sub)
DLUA_ANY_CPU(mul)
DLUA_FLOAT_CPU(div)
DLUA_FAST(add, 1)
DLUA_FAST(sub, 1)
DLUA_FAST(mul, 1)
DLUA_FAST(div, 1)

static void add_back(dlua_back *b) {
  dlua_give(b, 0, b->g[0]);
  dlua_give(b, 1, b->g[0]);
}

static void sub_back(dlua_back *b) {
  dlua_give(b, 0, b->g[0]);
  if (dlua_needs(b, 1)) dlua_give(b, 1, dlua_neg(b->s, b->g[0]));
}

static void mul_back(dlua_back *b) {
  if (dlua_needs(b, 0)) dlua_give(b, 0, dlua_mul(b->s, b->g[0], dlua_saved(b, "y")));
  if (dlua_needs(b, 1)) dlua_give(b, 1, dlua_mul(b->s, b->g[0], dlua_saved(b, "x")));
}

static void div_back(dlua_back *b) {
  dlua_tensor *gx = dlua_div(b->s, b->g[0], dlua_saved(b, "y"));
  dlua_give(b, 0, gx);
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *out = dlua_div(b->s, dlua_saved(b, "x"), dlua_saved(b, "y"));
  dlua_give(b, 1, dlua_neg(b->s, dlua_mul(b->s, gx, out)));
}

const dlua_op dlua_op_add = {
    .name = "add",
    .sig = "x:T, y:T -> out",
    .doc = "x + y.",
    .dtype = DLUA_PROMOTE,
    .flags = ROWS | DLUA_WRAPS,
    .shape = dlua_shape_broadcast,
    .cpu = add_cpu,
    .fast = DLUA_ONLY(add_fast),
    .back = add_back,
};

const dlua_op dlua_op_sub = {
    .name = "sub",
    .sig = "x:T, y:T -> out",
    .doc = "x - y.",
    .dtype = DLUA_PROMOTE,
    .flags = ROWS | DLUA_WRAPS,
    .shape = dlua_shape_broadcast,
    .cpu = sub_cpu,
    .fast = DLUA_ONLY(sub_fast),
    .back = sub_back,
    .refuse = "bool",
};

const dlua_op dlua_op_mul = {
    .name = "mul",
    .sig = "x:T, y:T -> out",
    .doc = "x * y.",
    .dtype = DLUA_PROMOTE,
    .flags = ROWS | DLUA_WRAPS,
    .shape = dlua_shape_broadcast,
    .cpu = mul_cpu,
    .fast = DLUA_ONLY(mul_fast),
    .back = mul_back,
    .save = "x y",
};

const dlua_op dlua_op_div = {
    .name = "div",
    .sig = "x:T, y:T(0.5,3) -> out",
    .doc = "x / y; integers are divided as f32.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .flags = ROWS,
    .shape = dlua_shape_broadcast,
    .cpu = div_cpu,
    .fast = DLUA_ONLY(div_fast),
    .back = div_back,
    .save = "x y",
};

// ---------------------------------------------------------------- floor_div, mod

static inline int64_t floor_div_int(int64_t x, int64_t y) {
  if (y == -1) return (int64_t)(0 - (uint64_t)x); // INT64_MIN / -1 would trap
  int64_t q = x / y;
  return q - (x % y != 0 && (x % y < 0) != (y < 0));
}

static inline int64_t mod_int(int64_t x, int64_t y) {
  if (y == -1) return 0;
  int64_t r = x % y;
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static inline double remainder_of(double x, double y) {
  double r = fmod(x, y);
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

// From the remainder, so that floor_div * y + mod gives x; rounding may leave q just off an
// integer.
static inline double quotient_of(double x, double y) {
  if (y == 0) return x / y;
  double q = (x - remainder_of(x, y)) / y, below = floor(q);
  return q - below > 0.5 ? below + 1 : below;
}

DLUA_FLOAT_ROWS2(floor_div, quotient_of(x, y))
DLUA_ROW2(floor_div_i64, int64_t, int64_t, int64_t, floor_div_int(x, y))
DLUA_ROW2(floor_div_i32, int32_t, int32_t, int32_t, floor_div_int(x, y))
DLUA_ROW2(floor_div_u8, uint8_t, uint8_t, uint8_t, x / y)
DLUA_FLOAT_ROWS2(mod, remainder_of(x, y))
DLUA_ROW2(mod_i64, int64_t, int64_t, int64_t, mod_int(x, y))
DLUA_ROW2(mod_i32, int32_t, int32_t, int32_t, mod_int(x, y))
DLUA_ROW2(mod_u8, uint8_t, uint8_t, uint8_t, x % y)

// Looks for what an integer operand must not be before anything is written.
typedef struct search {
  bool zero, negative;
  dlua_dtype dtype;
} search;

static void search_row(void *context, int64_t n, char **p, const int64_t *s) {
  search *found = context;
  for (int64_t k = 0; k < n; k++) {
    int64_t y = found->dtype == DLUA_I64   ? DLUA_AT(int64_t, 0)
                : found->dtype == DLUA_I32 ? DLUA_AT(int32_t, 0)
                                           : DLUA_AT(uint8_t, 0);
    found->zero |= y == 0, found->negative |= y < 0;
  }
}

static search search_integers(dlua_tensor *y) {
  search found = {.dtype = (dlua_dtype)y->dtype};
  if (dlua_is_float(found.dtype)) return found;
  dlua_iter it;
  dlua_iter_begin(&it, 1, &y);
  dlua_iter_run_serial(&it, search_row, &found);
  return found;
}

static dlua_status check_divisor(const dlua_args *a) {
  if (!search_integers(a->in[1]).zero) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: integer division by zero (x %s, y %s)", a->op->name,
                   dlua_shape_text(a->in[0]), dlua_shape_text(a->in[1]));
}

static dlua_status floor_div_cpu(const dlua_args *a) {
  DLUA_TRY(check_divisor(a));
  return dlua_rows_run(a, (dlua_rows){[DLUA_F32] = floor_div_f32,
                                      [DLUA_F64] = floor_div_f64,
                                      [DLUA_I64] = floor_div_i64,
                                      [DLUA_I32] = floor_div_i32,
                                      [DLUA_U8] = floor_div_u8});
}

static dlua_status mod_cpu(const dlua_args *a) {
  DLUA_TRY(check_divisor(a));
  return dlua_rows_run(a, (dlua_rows){[DLUA_F32] = mod_f32,
                                      [DLUA_F64] = mod_f64,
                                      [DLUA_I64] = mod_i64,
                                      [DLUA_I32] = mod_i32,
                                      [DLUA_U8] = mod_u8});
}

static void mod_back(dlua_back *b) {
  dlua_give(b, 0, b->g[0]);
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *times =
      dlua_call(b->s, &dlua_op_floor_div, dlua_t(dlua_saved(b, "x")), dlua_t(dlua_saved(b, "y")));
  dlua_give(b, 1, dlua_neg(b->s, dlua_mul(b->s, b->g[0], times)));
}

const dlua_op dlua_op_floor_div = {
    .name = "floor_div",
    .sig = "x:T, y:T(0.5,3) -> out",
    .doc = "floor(x / y), for integers exactly; its gradient is zero.",
    .dtype = DLUA_PROMOTE,
    .flags = ARITHMETIC,
    .shape = dlua_shape_broadcast,
    .cpu = floor_div_cpu,
    .back = dlua_zero_back,
    .refuse = "bool",
};

const dlua_op dlua_op_mod = {
    .name = "mod",
    .sig = "x:T, y:T(0.5,3) -> out",
    .doc = "x - floor(x / y) * y: the remainder with the sign of y.",
    .dtype = DLUA_PROMOTE,
    .flags = ARITHMETIC,
    .shape = dlua_shape_broadcast,
    .cpu = mod_cpu,
    .back = mod_back,
    .save = "x y",
    .refuse = "bool",
};

// ---------------------------------------------------------------- pow

static inline int64_t power_int(int64_t x, int64_t y) {
  uint64_t result = 1, base = (uint64_t)x;
  for (; y > 0; y >>= 1, base *= base) {
    if (y & 1) result *= base;
  }
  return (int64_t)result;
}

// The exponents 1, 2 and 3 multiply, so that squares are exact on every path.
#define POWER(x, y) ((y) == 2 ? x * x : (y) == 1 ? x : (y) == 3 ? x * x * x : pow(x, y))
DLUA_FLOAT_ROWS2(pow, POWER(x, y))
DLUA_ROW2(pow_i64, int64_t, int64_t, int64_t, power_int(x, y))
DLUA_ROW2(pow_i32, int32_t, int32_t, int32_t, power_int(x, y))
DLUA_ROW2(pow_u8, uint8_t, uint8_t, uint8_t, power_int(x, y))
DLUA_FAST(pow, 20)

static dlua_status pow_cpu(const dlua_args *a) {
  if (search_integers(a->in[1]).negative) {
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "pow: an integer to a negative power is no integer; use a float tensor (x %s, "
                     "y %s)",
                     dlua_shape_text(a->in[0]), dlua_shape_text(a->in[1]));
  }
  return dlua_rows_run(a, (dlua_rows){[DLUA_F32] = pow_f32,
                                      [DLUA_F64] = pow_f64,
                                      [DLUA_I64] = pow_i64,
                                      [DLUA_I32] = pow_i32,
                                      [DLUA_U8] = pow_u8});
}

// g y x^(y-1), and 0 where y is 0 even if x is 0 too.
static dlua_tensor *base_gradient(dlua_back *b, dlua_tensor *x, dlua_tensor *y) {
  dlua_tensor *one = dlua_num(b->s, 1), *g = dlua_mul(b->s, b->g[0], y);
  dlua_tensor *power = dlua_call(b->s, &dlua_op_pow, dlua_t(x), dlua_t(dlua_sub(b->s, y, one)));
  dlua_tensor *none = dlua_call(b->s, &dlua_op_eq, dlua_t(y), dlua_t(zero(b)));
  return choose(b, none, zero(b), dlua_mul(b->s, g, power));
}

// The same for an exponent that is a plain number.
static dlua_tensor *number_gradient(dlua_back *b, dlua_tensor *x, const dlua_tensor *y) {
  bool is_int = false;
  int64_t i = 0;
  double f = 0;
  if (!x || !y) return NULL;
  dlua_status status = dlua_item(y, &is_int, &i, &f);
  if (status != DLUA_OK) return dlua_failed(b->s, status);
  if (is_int) f = (double)i;
  if (f == 0) return dlua_zeros_like(b->s, b->g[0]);
  if (f == 1) return b->g[0];
  dlua_tensor *power = x;
  if (f != 2) power = dlua_call(b->s, &dlua_op_pow, dlua_t(x), dlua_t(dlua_num(b->s, f - 1)));
  return dlua_mul(b->s, b->g[0], dlua_scale(b->s, power, f));
}

// An operand as the gradient computes with it: arithmetic on a plain number alone would run in f32.
static dlua_tensor *operand(dlua_back *b, const char *name) {
  dlua_tensor *x = dlua_saved(b, name);
  if (!x || !x->number) return x;
  return dlua_call(b->s, &dlua_op_cast, dlua_t(x), dlua_i(b->g[0]->dtype));
}

// g out log(x), and 0 where x is 0 and y is not negative.
static dlua_tensor *exponent_gradient(dlua_back *b, dlua_tensor *x, dlua_tensor *y) {
  dlua_tensor *log = dlua_call(b->s, &dlua_op_log, dlua_t(operand(b, "x")));
  dlua_tensor *g = dlua_mul(b->s, dlua_mul(b->s, b->g[0], dlua_saved(b, "out")), log);
  dlua_tensor *flat = dlua_call(b->s, &dlua_op_eq, dlua_t(x), dlua_t(zero(b)));
  dlua_tensor *positive = dlua_call(b->s, &dlua_op_ge, dlua_t(y), dlua_t(zero(b)));
  return choose(b, dlua_call(b->s, &dlua_op_logical_and, dlua_t(flat), dlua_t(positive)), zero(b),
                g);
}

static void pow_back(dlua_back *b) {
  dlua_tensor *y = dlua_saved(b, "y"), *x = dlua_saved(b, "x");
  if (dlua_needs(b, 0)) {
    dlua_give(b, 0, y && y->number ? number_gradient(b, x, y) : base_gradient(b, x, y));
  }
  if (dlua_needs(b, 1)) dlua_give(b, 1, exponent_gradient(b, x, y));
}

const dlua_op dlua_op_pow = {
    .name = "pow",
    .sig = "x:T(0.2,3), y:T -> out",
    .doc = "x ^ y. The exponents 1, 2 and 3 multiply. Integers take exponents from 0 up.",
    .dtype = DLUA_PROMOTE,
    .flags = ARITHMETIC,
    .shape = dlua_shape_broadcast,
    .cpu = pow_cpu,
    .fast = DLUA_ONLY(pow_fast),
    .back = pow_back,
    .save = "x y out",
    .refuse = "bool",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- maximum, minimum

ORDER_ROWS2(maximum, x > y || x != x ? x : y)
ORDER_ROWS2(minimum, x < y || x != x ? x : y)
DLUA_ANY_CPU(maximum)
DLUA_ANY_CPU(minimum)
DLUA_FAST(maximum, 1)
DLUA_FAST(minimum, 1)

// The winner takes the gradient; equals share it.
static void extreme_back(dlua_back *b, const dlua_op *wins) {
  dlua_tensor *x = dlua_saved(b, "x"), *y = dlua_saved(b, "y"), *pair[2] = {x, y};
  dlua_tensor *tie = dlua_call(b->s, &dlua_op_eq, dlua_t(x), dlua_t(y));
  dlua_tensor *half = dlua_scale(b->s, b->g[0], 0.5);
  for (int k = 0; k < 2; k++) {
    if (!dlua_needs(b, k)) continue;
    dlua_tensor *won = dlua_call(b->s, wins, dlua_t(pair[k]), dlua_t(pair[1 - k]));
    dlua_give(b, k, choose(b, tie, half, choose(b, won, b->g[0], zero(b))));
  }
}

static void maximum_back(dlua_back *b) { extreme_back(b, &dlua_op_gt); }
static void minimum_back(dlua_back *b) { extreme_back(b, &dlua_op_lt); }

const dlua_op dlua_op_maximum = {
    .name = "maximum",
    .sig = "x:T, y:T -> out",
    .doc = "The larger of x and y; nan where one is nan. Equals share the gradient.",
    .dtype = DLUA_PROMOTE,
    .flags = ROWS,
    .shape = dlua_shape_broadcast,
    .cpu = maximum_cpu,
    .fast = DLUA_ONLY(maximum_fast),
    .back = maximum_back,
    .save = "x y",
};

const dlua_op dlua_op_minimum = {
    .name = "minimum",
    .sig = "x:T, y:T -> out",
    .doc = "The smaller of x and y; nan where one is nan. Equals share the gradient.",
    .dtype = DLUA_PROMOTE,
    .flags = ROWS,
    .shape = dlua_shape_broadcast,
    .cpu = minimum_cpu,
    .fast = DLUA_ONLY(minimum_fast),
    .back = minimum_back,
    .save = "x y",
};

// ---------------------------------------------------------------- atan2

DLUA_FLOAT_ROWS2(atan2, atan2(x, y)) // the row's x is the op's y: operands in order
DLUA_FLOAT_CPU(atan2)
DLUA_FAST(atan2, 20)

static void atan2_back(dlua_back *b) {
  dlua_tensor *y = operand(b, "y"), *x = operand(b, "x");
  dlua_tensor *square = dlua_add(b->s, dlua_mul(b->s, x, x), dlua_mul(b->s, y, y));
  dlua_tensor *g = dlua_div(b->s, b->g[0], square);
  if (dlua_needs(b, 0)) dlua_give(b, 0, dlua_mul(b->s, g, x));
  if (dlua_needs(b, 1)) dlua_give(b, 1, dlua_neg(b->s, dlua_mul(b->s, g, y)));
}

const dlua_op dlua_op_atan2 = {
    .name = "atan2",
    .sig = "y:T, x:T(0.2,3) -> out",
    .doc = "The angle of the point (x, y), from -pi to pi.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .flags = ROWS,
    .shape = dlua_shape_broadcast,
    .cpu = atan2_cpu,
    .fast = DLUA_ONLY(atan2_fast),
    .back = atan2_back,
    .save = "y x",
};

// ---------------------------------------------------------------- where

// Only moves elements, so one loop per width serves all dtypes.
#define WHERE_ROW(name, T) \
  static void name(void *context, int64_t n, char **p, const int64_t *s) { \
    (void)context; \
    for (int64_t k = 0; k < n; k++) \
      DLUA_AT(T, 0) = DLUA_AT(uint8_t, 1) ? DLUA_AT(T, 2) : DLUA_AT(T, 3); \
  }
WHERE_ROW(where_1, uint8_t)
WHERE_ROW(where_2, uint16_t)
WHERE_ROW(where_4, uint32_t)
WHERE_ROW(where_8, uint64_t)
DLUA_FAST(where, 1)

static dlua_status where_cpu(const dlua_args *a) {
  static dlua_rows rows = {where_4, where_8, where_2, where_2, where_8, where_4, where_1, where_1};
  return dlua_rows_run(a, rows);
}

static void where_back(dlua_back *b) {
  dlua_tensor *condition = dlua_saved(b, "condition");
  if (dlua_needs(b, 1)) dlua_give(b, 1, choose(b, condition, b->g[0], zero(b)));
  if (dlua_needs(b, 2)) dlua_give(b, 2, choose(b, condition, zero(b), b->g[0]));
}

const dlua_op dlua_op_where = {
    .name = "where",
    .sig = "condition:B, x:T, y:T -> out",
    .doc = "x where the condition holds, y elsewhere.",
    .dtype = DLUA_PROMOTE,
    .flags = DLUA_ELEMENTWISE | DLUA_HALF,
    .shape = dlua_shape_broadcast,
    .cpu = where_cpu,
    .fast = DLUA_ONLY(where_fast),
    .back = where_back,
    .save = "condition",
};
