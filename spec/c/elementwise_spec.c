// Elementwise ops: exact integers, conversions, and fast loops against plain ones for every op that
// has both, found in the list of ops.
#include "../../runtime/half.h"
#include "check.h"

#define CALL(op, ...) dlua_call(&s, &dlua_op_##op, __VA_ARGS__)

SPEC(integers_are_exact) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_I64, 7, -7, 7, -7, 0),
              *y = VECTOR(&s, DLUA_I64, 2, 2, -2, -2, 5);
  CHECK(HOLDS(CALL(floor_div, dlua_t(x), dlua_t(y)), 3, -4, -4, 3, 0));
  CHECK(HOLDS(CALL(mod, dlua_t(x), dlua_t(y)), 1, 1, -1, -1, 0));
  CHECK(HOLDS(CALL(pow, dlua_t(x), dlua_t(dlua_num(&s, 3))), 343, -343, 343, -343, 0));
  dlua_tensor *least = VECTOR(&s, DLUA_I64, -0x1p63), *minus = VECTOR(&s, DLUA_I64, -1);
  CHECK(HOLDS(CALL(floor_div, dlua_t(least), dlua_t(minus)), -0x1p63));
  CHECK(HOLDS(CALL(mod, dlua_t(least), dlua_t(minus)), 0));
  CHECK(HOLDS(CALL(neg, dlua_t(least)), -0x1p63));
  CHECK(HOLDS(CALL(mul, dlua_t(least), dlua_t(minus)), -0x1p63));
  CHECK(HOLDS(CALL(add, dlua_t(VECTOR(&s, DLUA_U8, 250)), dlua_t(VECTOR(&s, DLUA_U8, 10))), 4));
  CHECK(HOLDS(CALL(add, dlua_t(VECTOR(&s, DLUA_BOOL, 1, 0)), dlua_t(VECTOR(&s, DLUA_BOOL, 1, 0))),
              1, 0));
  CHECK_FAILS(CALL_STATUS(&dlua_op_mod, dlua_t(x), dlua_t(x)), "mod: integer division by zero");
  CHECK_FAILS(CALL_STATUS(&dlua_op_floor_div, dlua_t(x), dlua_t(x)), "division by zero");
  CHECK_FAILS(CALL_STATUS(&dlua_op_pow, dlua_t(x), dlua_t(minus)), "negative power");
  CHECK_FAILS(CALL_STATUS(&dlua_op_clamp, dlua_t(x)), "clamp: neither min nor max");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(floats_divide_as_lua_does) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_F32, 7, -7, 7.5, -1), *y = VECTOR(&s, DLUA_F32, 2, 2, -2, 0);
  CHECK(HOLDS(CALL(floor_div, dlua_t(x), dlua_t(y)), 3, -4, -4, -INFINITY));
  CHECK(HOLDS(CALL(mod, dlua_t(x), dlua_t(y)), 1, 1, -0.5, NAN));
  CHECK(
      HOLDS(CALL(maximum, dlua_t(x), dlua_t(VECTOR(&s, DLUA_F32, NAN, 0, 8, -2))), NAN, 0, 8, -1));
  CHECK(HOLDS(CALL(round, dlua_t(VECTOR(&s, DLUA_F64, 0.5, 1.5, -2.5))), 0, 2, -2));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(casts_saturate) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_F32, NAN, 1e20, -1e20, 2.7, -2.7, INFINITY);
  CHECK(HOLDS(CALL(cast, dlua_t(x), dlua_i(DLUA_U8)), 0, 255, 0, 2, 0, 255));
  CHECK(HOLDS(CALL(cast, dlua_t(x), dlua_i(DLUA_I32)), 0, INT32_MAX, INT32_MIN, 2, -2, INT32_MAX));
  CHECK(HOLDS(CALL(cast, dlua_t(x), dlua_i(DLUA_I64)), 0, 0x1p63, -0x1p63, 2, -2, 0x1p63));
  CHECK(HOLDS(CALL(cast, dlua_t(x), dlua_i(DLUA_BOOL)), 1, 1, 1, 1, 1, 1));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(halves_round_trip) {
  int wrong = 0;
  for (uint32_t h = 0; h < 0x10000; h++) {
    float f = dlua_f16_to_f32((uint16_t)h), b = dlua_bf16_to_f32((uint16_t)h);
    wrong += isnan(f) ? !isnan(dlua_f16_to_f32(dlua_f32_to_f16(f))) : dlua_f32_to_f16(f) != h;
    wrong += isnan(b) ? !isnan(dlua_bf16_to_f32(dlua_f32_to_bf16(b))) : dlua_f32_to_bf16(b) != h;
  }
  CHECK(wrong == 0);
  CHECK(dlua_f32_to_f16(65519.0f) == 0x7BFF && dlua_f32_to_f16(65520.0f) == 0x7C00);
  CHECK(dlua_f32_to_f16(0x1p-25f) == 0 && dlua_f32_to_f16(0x1.8p-25f) == 1);
  CHECK(dlua_f32_to_f16(2049.0f) == dlua_f32_to_f16(2048.0f)); // a tie goes to the even one
  CHECK(dlua_f32_to_bf16(0x1.01p0f) == 0x3F80 && dlua_f32_to_bf16(0x1.03p0f) == 0x3F82);
}

// ---------------------------------------------------------------- fast against plain

// Values over the whole range of f32, odd ones among them, in an order without pattern.
static dlua_tensor *wild(dlua_scope *s, int64_t n, uint32_t seed) {
  static const float odd[] = {0, -0.0f, 1, -1, 2, 3, INFINITY, -INFINITY, NAN, 1e-45f, -3e-39f, 88};
  dlua_tensor *x = NULL;
  if (dlua_tensor_new(&x, DLUA_F32, 1, &n, dlua_cpu()) != DLUA_OK) return NULL;
  for (int64_t k = 0; k < n; k++) {
    seed = seed * 1664525u + 1013904223u;
    float small = (float)(int32_t)seed * 0x1p-28f; // -8..8
    dlua_f32(x)[k] = k % 8 == 0   ? odd[(seed >> 8) % 12]
                     : k % 8 == 1 ? dlua_f32_of_bits(seed)
                                  : small;
  }
  return dlua_own(s, x);
}

// Distance in units in the last place of numbers near 1 or larger; gradients cross zero, where
// nothing finer makes sense.
static bool close_enough(float x, float y, bool gradient) {
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y);
  if (x == y) return true;
  float size = fmaxf(fabsf(y), gradient ? 1 : 0x1p-126f);
  return fabsf(x - y) <= size * 0x1p-21f;
}

static dlua_tensor *run(dlua_scope *s, const dlua_op *op, dlua_tensor *x, dlua_tensor *y) {
  const dlua_signature *sig = dlua_op_signature(op);
  dlua_arg args[2 + DLUA_MAX_NUM] = {dlua_t(x), dlua_t(y)};
  int n = sig->ntensor;
  for (int k = 0; k < sig->nnum; k++) {
    if (!sig->num[k].has_default) args[n++] = dlua_f(k - 0.5);
  }
  return dlua_call_n(s, op, n, args);
}

static void compare(const dlua_op *op, dlua_tensor *x, dlua_tensor *y) {
  dlua_scope s;
  dlua_scope_begin(&s);
  bool gradient = strstr(op->name, "_grad");
  dlua_tensor *fast = run(&s, op, x, y);
  dlua_set_reference_mode(true);
  dlua_tensor *plain = run(&s, op, x, y);
  dlua_set_reference_mode(false);
  if (CHECK(fast && plain) && fast->dtype == DLUA_F32) {
    for (int64_t k = 0; k < dlua_numel(fast); k++) {
      if (close_enough(dlua_f32(fast)[k], dlua_f32(plain)[k], gradient)) continue;
      printf("  %s: element %lld: %a instead of %a (x %a, y %a)\n", op->name, (long long)k + 1,
             (double)dlua_f32(fast)[k], (double)dlua_f32(plain)[k], at(x, k), at(y, k));
      CHECK(!"fast and plain agree");
      break;
    }
  } else if (fast) {
    CHECK(same_bits(fast, plain));
  }
  CHECK_OK(dlua_scope_end(&s));
}

static bool has_fast_loop(const dlua_op *op) {
  const dlua_signature *sig = dlua_op_signature(op);
  if (!(op->flags & DLUA_ELEMENTWISE) || !op->fast || sig->has_list) return false;
  for (int k = 0; k < sig->ntensor; k++) {
    if (sig->tensor[k].kind != 'T' || sig->tensor[k].optional) return false;
  }
  return sig->ntensor <= 2 && !(op->flags & DLUA_RANDOM);
}

SPEC(fast_loops_agree_with_plain_ones) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = wild(&s, 1003, 1), *y = wild(&s, 1003, 2);
  dlua_tensor *tame = count_up(&s, DLUA_F32, -4, 0.0078125, SIZES(1003));
  dlua_tensor *grid = CALL(reshape, dlua_t(x), LIST(17, 59)), *turned = CALL(t, dlua_t(grid));
  dlua_tensor *row = CALL(narrow, dlua_t(y), dlua_i(0), dlua_i(1), dlua_i(17));
  dlua_tensor *column = CALL(reshape, dlua_t(y), LIST(59, 17));
  for (int k = 0; k < dlua_op_count(); k++) {
    const dlua_op *op = dlua_op_at(k);
    if (!has_fast_loop(op)) continue;
    if (strstr(op->name, "_grad")) {
      compare(op, tame, y);
      continue;
    }
    compare(op, x, y);
    compare(op, turned, column);
    if (dlua_op_signature(op)->ntensor == 2 && op->shape == dlua_shape_broadcast) {
      compare(op, turned, row);
      compare(op, row, turned);
    }
  }
  CHECK_OK(dlua_scope_end(&s));
}

// The value of an element depends neither on its place nor on the number of threads.
SPEC(places_and_threads_do_not_matter) {
  dlua_scope s;
  dlua_scope_begin(&s);
  int threads = dlua_threads();
  dlua_tensor *x = wild(&s, 300001, 3), *y = wild(&s, 300001, 4);
  dlua_tensor *later = CALL(narrow, dlua_t(x), dlua_i(0), dlua_i(6), dlua_i(299990));
  const dlua_op *ops[] = {&dlua_op_exp,  &dlua_op_gelu, &dlua_op_sin,
                          &dlua_op_log,  &dlua_op_pow,  &dlua_op_silu_grad,
                          &dlua_op_tanh, &dlua_op_erf,  &dlua_op_asin};
  for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
    dlua_set_threads(1);
    dlua_tensor *one = run(&s, ops[k], x, y);
    dlua_set_threads(2);
    CHECK(same_bits(one, run(&s, ops[k], x, y)));
    if (dlua_op_signature(ops[k])->ntensor == 2) continue;
    dlua_tensor *part = CALL(narrow, dlua_t(one), dlua_i(0), dlua_i(6), dlua_i(299990));
    if (!CHECK(same_bits(part, run(&s, ops[k], later, y)))) printf("  %s\n", ops[k]->name);
  }
  dlua_set_threads(threads);
  CHECK_OK(dlua_scope_end(&s));
}

// ---------------------------------------------------------------- gradients at the edges

static dlua_tensor *gradient_of(dlua_scope *s, dlua_tensor *y, dlua_tensor *x) {
  dlua_tensor *g = NULL, *ones = dlua_add(s, dlua_zeros_like(s, y), dlua_num(s, 1));
  if (s->status != DLUA_OK) return NULL;
  dlua_status status = dlua_grad(1, &y, &ones, 1, &x, true, false, &g);
  return status == DLUA_OK ? dlua_own(s, g) : dlua_failed(s, status);
}

SPEC(gradients_at_corners) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_F32, -1, 0, 1), *zeros = VECTOR(&s, DLUA_F32, 0, 0, 0);
  x->requires_grad = true;
  CHECK(HOLDS(gradient_of(&s, CALL(relu, dlua_t(x)), x), 0, 0, 1));
  CHECK(HOLDS(gradient_of(&s, CALL(abs, dlua_t(x)), x), -1, 0, 1));
  CHECK(HOLDS(gradient_of(&s, CALL(maximum, dlua_t(x), dlua_t(zeros)), x), 0, 0.5, 1));
  CHECK(HOLDS(gradient_of(&s, CALL(minimum, dlua_t(x), dlua_t(zeros)), x), 1, 0.5, 0));
  CHECK(HOLDS(gradient_of(&s, CALL(clamp, dlua_t(x), dlua_f(0), dlua_f(1)), x), 0, 1, 1));
  CHECK(HOLDS(gradient_of(&s, CALL(hardtanh, dlua_t(x)), x), 0, 1, 0));
  CHECK(HOLDS(gradient_of(&s, CALL(floor, dlua_t(x)), x), 0, 0, 0));
  CHECK(HOLDS(gradient_of(&s, CALL(pow, dlua_t(x), dlua_t(zeros)), x), 0, 0, 0));
  CHECK(HOLDS(gradient_of(&s, CALL(pow, dlua_t(zeros), dlua_t(x)), x), -INFINITY, 0, 0));
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(integers_are_exact);
  RUN(floats_divide_as_lua_does);
  RUN(casts_saturate);
  RUN(halves_round_trip);
  RUN(fast_loops_agree_with_plain_ones);
  RUN(places_and_threads_do_not_matter);
  RUN(gradients_at_corners);
  return finish();
}
