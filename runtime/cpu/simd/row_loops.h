// row_loops.h - a row of the iterator for one type: the loops that a function of one element
// becomes. Included once per type REAL, with FLOATS defined for those that have fractions; IN(name)
// gives names of their own. Integers wrap around.
//
// Contiguous operands and repeated elements get loops that vectorise; every other stride takes the
// last loop. All of them call the same function, so that an element's value never depends on where
// in the row it lies.

typedef REAL IN(one)(REAL x, REAL a, REAL b);
typedef REAL IN(two)(REAL x, REAL y, REAL a, REAL b);
typedef uint8_t IN(test)(REAL x, REAL y);
typedef uint8_t IN(test_one)(REAL x);

#undef HERE
#undef ROW1
#undef ROW2
#undef ROW_TEST
#undef ROW_TEST1

#define HERE(T, i) (*(T *)(p[i] + k * s[i]))

static ALWAYS_INLINE void IN(loop1)(IN(one) * f, REAL a, REAL b, int64_t n, char **p,
                                    const int64_t *s) {
  if (s[0] == sizeof(REAL) && s[1] == sizeof(REAL)) {
    REAL *y = (REAL *)p[0];
    const REAL *x = (const REAL *)p[1];
#pragma omp simd
    for (int64_t k = 0; k < n; k++) y[k] = f(x[k], a, b);
  } else {
    for (int64_t k = 0; k < n; k++) HERE(REAL, 0) = f(HERE(REAL, 1), a, b);
  }
}

static ALWAYS_INLINE void IN(loop2)(IN(two) * f, REAL a, REAL b, int64_t n, char **p,
                                    const int64_t *s) {
  const int64_t wide = sizeof(REAL);
  REAL *z = (REAL *)p[0];
  const REAL *x = (const REAL *)p[1], *y = (const REAL *)p[2];
  if (s[0] == wide && s[1] == wide && s[2] == wide) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = f(x[k], y[k], a, b);
  } else if (s[0] == wide && s[1] == wide && s[2] == 0) {
    REAL same = *y;
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = f(x[k], same, a, b);
  } else if (s[0] == wide && s[1] == 0 && s[2] == wide) {
    REAL same = *x;
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = f(same, y[k], a, b);
  } else {
    for (int64_t k = 0; k < n; k++) HERE(REAL, 0) = f(HERE(REAL, 1), HERE(REAL, 2), a, b);
  }
}

static ALWAYS_INLINE void IN(loop_test)(IN(test) * f, int64_t n, char **p, const int64_t *s) {
  const int64_t wide = sizeof(REAL);
  uint8_t *z = (uint8_t *)p[0];
  const REAL *x = (const REAL *)p[1], *y = (const REAL *)p[2];
  if (s[0] == 1 && s[1] == wide && s[2] == wide) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = f(x[k], y[k]);
  } else if (s[0] == 1 && s[1] == wide && s[2] == 0) {
    REAL same = *y;
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = f(x[k], same);
  } else {
    for (int64_t k = 0; k < n; k++) HERE(uint8_t, 0) = f(HERE(REAL, 1), HERE(REAL, 2));
  }
}

static ALWAYS_INLINE void IN(loop_test1)(IN(test_one) * f, int64_t n, char **p, const int64_t *s) {
  uint8_t *z = (uint8_t *)p[0];
  const REAL *x = (const REAL *)p[1];
  if (s[0] == 1 && s[1] == sizeof(REAL)) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = f(x[k]);
  } else {
    for (int64_t k = 0; k < n; k++) HERE(uint8_t, 0) = f(HERE(REAL, 1));
  }
}

// A row from an expression of x (and y); a and b are its numbers, rounded to the dtype.
#define ROW1(name, first, second, expression) \
  static inline REAL IN(name##_at)(REAL x, REAL a, REAL b) { \
    (void)a, (void)b; \
    return (REAL)(expression); \
  } \
  static void IN(name)(void *context, int64_t n, char **p, const int64_t *s) { \
    const dlua_value *num = context; \
    (void)num; \
    IN(loop1)(IN(name##_at), (REAL)(first), (REAL)(second), n, p, s); \
  }
#define ROW2(name, first, second, expression) \
  static inline REAL IN(name##_at)(REAL x, REAL y, REAL a, REAL b) { \
    (void)a, (void)b; \
    return (REAL)(expression); \
  } \
  static void IN(name)(void *context, int64_t n, char **p, const int64_t *s) { \
    const dlua_value *num = context; \
    (void)num; \
    IN(loop2)(IN(name##_at), (REAL)(first), (REAL)(second), n, p, s); \
  }
#define ROW_TEST(name, expression) \
  static inline uint8_t IN(name##_at)(REAL x, REAL y) { return expression; } \
  static void IN(name)(void *context, int64_t n, char **p, const int64_t *s) { \
    (void)context; \
    IN(loop_test)(IN(name##_at), n, p, s); \
  }
#define ROW_TEST1(name, expression) \
  static inline uint8_t IN(name##_at)(REAL x) { return expression; } \
  static void IN(name)(void *context, int64_t n, char **p, const int64_t *s) { \
    (void)context; \
    IN(loop_test1)(IN(name##_at), n, p, s); \
  }

ROW2(add, 0, 0, x + y)
ROW2(sub, 0, 0, x - y)
ROW2(mul, 0, 0, x *y)
ROW2(maximum, 0, 0, (x > y) | (x != x) ? x : y)
ROW2(minimum, 0, 0, (x < y) | (x != x) ? x : y)

ROW_TEST(eq, x == y)
ROW_TEST(ne, x != y)
ROW_TEST(lt, x < y)
ROW_TEST(le, x <= y)
ROW_TEST(gt, x > y)
ROW_TEST(ge, x >= y)
ROW_TEST(logical_and, (x != 0) & (y != 0))
ROW_TEST(logical_or, (x != 0) | (y != 0))
ROW_TEST(logical_xor, (x != 0) ^ (y != 0))
ROW_TEST1(logical_not, x == 0)

ROW1(neg, 0, 0, -x)
ROW1(square, 0, 0, x *x)
ROW1(relu, 0, 0, (x > 0) | (x != x) ? x : 0)

static void IN(where)(void *context, int64_t n, char **p, const int64_t *s) {
  (void)context;
  const int64_t wide = sizeof(REAL);
  if (s[0] == wide && s[1] == 1 && (s[2] == wide || s[2] == 0) && (s[3] == wide || s[3] == 0)) {
    REAL *z = (REAL *)p[0];
    const uint8_t *c = (const uint8_t *)p[1];
    const REAL *x = (const REAL *)p[2], *y = (const REAL *)p[3];
    if (s[2] && s[3]) {
#pragma omp simd
      for (int64_t k = 0; k < n; k++) z[k] = c[k] ? x[k] : y[k];
    } else if (s[2]) {
      REAL same = *y;
#pragma omp simd
      for (int64_t k = 0; k < n; k++) z[k] = c[k] ? x[k] : same;
    } else {
      REAL same = *x;
      int64_t step = s[3] != 0;
      for (int64_t k = 0; k < n; k++) z[k] = c[k] ? same : y[k * step];
    }
  } else {
    for (int64_t k = 0; k < n; k++)
      HERE(REAL, 0) = HERE(uint8_t, 1) ? HERE(REAL, 2) : HERE(REAL, 3);
  }
}

#ifdef FLOATS
// The mask comes first, an element or one for the row.
static void IN(dropout_grad)(void *context, int64_t n, char **p, const int64_t *s) {
  const dlua_value *num = context;
  const int64_t wide = sizeof(REAL);
  const REAL scale = (REAL)(num[0].f < 1 ? 1 / (1 - num[0].f) : 0);
  REAL *z = (REAL *)p[0];
  const uint8_t *mask = (const uint8_t *)p[1];
  const REAL *x = (const REAL *)p[2];
  if (s[0] == wide && s[1] == 1 && s[2] == wide) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = x[k] * (mask[k] ? scale : 0);
  } else if (s[0] == wide && s[1] == 0 && s[2] == wide) {
    REAL factor = *mask ? scale : 0;
#pragma omp simd
    for (int64_t k = 0; k < n; k++) z[k] = x[k] * factor;
  } else {
    for (int64_t k = 0; k < n; k++) HERE(REAL, 0) = HERE(REAL, 2) * (HERE(uint8_t, 1) ? scale : 0);
  }
}

ROW1(abs, 0, 0, __builtin_fabs(x))
ROW1(sign, 0, 0, x > 0 ? 1 : x < 0 ? -1 : x)
ROW1(floor, 0, 0, __builtin_floor(x))
ROW1(ceil, 0, 0, __builtin_ceil(x))
ROW1(round, 0, 0, __builtin_rint(x))
ROW1(trunc, 0, 0, __builtin_trunc(x))
ROW_TEST1(isnan, x != x)
ROW_TEST1(isinf, __builtin_fabs(x) == (REAL)INFINITY)
ROW_TEST1(isfinite, __builtin_fabs(x) < (REAL)INFINITY)

ROW2(div, 0, 0, x / y)
ROW1(reciprocal, 0, 0, 1 / x)
ROW2(relu_grad, 0, 0, y > 0 ? x : 0)
ROW1(leaky_relu, num[0].f, 0, x > 0 ? x : x * a)
ROW2(leaky_relu_grad, num[0].f, 0, y > 0 ? x : x * a)
ROW2(sigmoid_grad, 0, 0, x *y *(1 - y))
ROW2(tanh_grad, 0, 0, x *(1 - y * y))

#define LOW lower_limit(&num[0])
#define HIGH upper_limit(&num[1])
static inline REAL IN(inside)(REAL x, REAL low, REAL high) {
  REAL raised = x < low ? low : x;
  return raised > high ? high : raised;
}
ROW1(clamp, LOW, HIGH, IN(inside)(x, a, b))
ROW2(clamp_grad, LOW, HIGH, (y >= a) & (y <= b) ? x : 0)
ROW1(hardtanh, num[0].f, num[1].f, IN(inside)(x, a, b))
ROW2(hardtanh_grad, num[0].f, num[1].f, (y > a) & (y < b) ? x : 0)
#undef LOW
#undef HIGH
#else
ROW1(abs, 0, 0, x > -x ? x : -x)
ROW1(sign, 0, 0, x > 0 ? 1 : -(x != 0))
#endif
