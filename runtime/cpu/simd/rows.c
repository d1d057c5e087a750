// rows.c - the loops of simd.h, compiled once per instruction set (DLUA_ISA). They are plain C that
// the compiler vectorises: one source for all sets, no intrinsics. Compiled without contraction of
// x * y + z, so that a value does not depend on its place in a row or on the number of threads.
#include "../simd.h"

#include <string.h>

#include "float_math.h"

enum { BLOCK = 256 };

#define ALWAYS_INLINE inline __attribute__((always_inline))

static double lower_limit(const dlua_value *v) {
  return !v->set ? -(double)INFINITY : v->is_int ? (double)v->i : v->f;
}

static double upper_limit(const dlua_value *v) {
  return !v->set ? (double)INFINITY : v->is_int ? (double)v->i : v->f;
}

#define REAL uint8_t
#define IN(name) name##_u8
#include "row_loops.h"
#undef REAL
#undef IN

#define REAL int32_t
#define IN(name) name##_i32
#include "row_loops.h"
#undef REAL
#undef IN

#define REAL int64_t
#define IN(name) name##_i64
#include "row_loops.h"
#undef REAL
#undef IN

#define FLOATS
#define REAL double
#define IN(name) name##_f64
#include "row_loops.h"
#undef REAL
#undef IN

#define REAL float
#define IN(name) name##_f32
#include "row_loops.h"

// ---------------------------------------------------------------- functions of f32

ROW1(sqrt, 0, 0, __builtin_sqrtf(x))
ROW1(rsqrt, 0, 0, 1 / __builtin_sqrt((double)x))
ROW1(exp, 0, 0, fm_exp(x))
ROW1(expm1, 0, 0, vm_expm1(x))
ROW1(log, 0, 0, fm_log(x))
ROW1(log1p, 0, 0, vm_log1p(x))
ROW1(log2, 0, 0, vm_log(x) * 1.4426950408889634074)
ROW1(log10, 0, 0, vm_log(x) * 0.43429448190325182765)
ROW1(erf, 0, 0, fm_erf(x))
ROW1(sigmoid, 0, 0, fm_sigmoid(x))
ROW1(tanh, 0, 0, fm_tanh(x))
ROW1(sinh, 0, 0, vm_sinh(x))
ROW1(cosh, 0, 0, vm_cosh(x))
ROW1(atan, 0, 0, fm_atan2(x, 1))
ROW1(asin, 0, 0, fm_atan2(x, fm_other_side(x)))
ROW1(acos, 0, 0, fm_atan2(fm_other_side(x), x))
ROW2(atan2, 0, 0, fm_atan2(x, y)) // the row's x is the op's y: operands in order

// Where x is -inf the product is nan, as in the plain loop; nan stays the one it is, whichever of
// the factors the machine would take it from.
static inline float gated(float x, float gate) {
  float y = x != x ? x : x * gate;
  return x == -INFINITY ? NAN : y;
}

static inline float limited(float x, float size) {
  float raised = x < -size ? -size : x;
  return raised > size ? size : raised;
}

static inline float silu_slope(float x) {
  float inside = limited(x, 100), rest, s = fm_sigmoids(inside, &rest);
  return s * FM_FMA(inside, rest, 1);
}

ROW1(silu, 0, 0, gated(x, fm_sigmoid(x)))
ROW2(silu_grad, 0, 0, x *silu_slope(y))

ROW1(elu, num[0].f, 0, x > 0 ? (double)x : a * vm_expm1(x))
ROW2(elu_grad, num[0].f, 0, y > 0 ? (double)x : (double)x * a * vm_exp(y))

ROW1(softplus, num[0].f, num[1].f,
     (double)x *a > b ? (double)x : vm_log1p(vm_exp((double)x * a)) / a)
ROW2(softplus_grad, num[0].f, num[1].f,
     (double)y *a > b ? (double)x : (double)x * vm_sigmoid((double)y * a))
ROW1(logsigmoid, 0, 0, (x < 0 ? (double)x : 0) - vm_log1p(vm_exp(-__builtin_fabs(x))))

// ---------------------------------------------------------------- gelu

static const double root = 0.79788456080286535588, cubic = 0.044715;

// (1 + tanh(u)) / 2 is the sigmoid of 2 u.
static inline double tanh_gate(double x) { return vm_sigmoid(2 * root * (x + cubic * x * x * x)); }

static inline double tanh_slope(double x) {
  double inside = vm_clamp(x, -30, 30), s = tanh_gate(inside);
  double du = root * (1 + 3 * cubic * inside * inside);
  return s + 2 * inside * s * (1 - s) * du;
}

static inline float normal_gate(float x) {
  float bell;
  return fm_normal(x, &bell);
}

static inline float normal_slope(float x) {
  float bell, gate = fm_normal(x, &bell);
  return FM_FMA(limited(x, 20), bell, gate);
}

ROW1(gelu_normal, 0, 0, gated(x, normal_gate(x)))
ROW1(gelu_tanh, 0, 0, gated(x, (float)tanh_gate(x)))
ROW2(gelu_normal_grad, 0, 0, x *normal_slope(y))
ROW2(gelu_tanh_grad, 0, 0, x *tanh_slope(y))

static void gelu_f32(void *context, int64_t n, char **p, const int64_t *s) {
  bool by_tanh = ((const dlua_value *)context)->i;
  (by_tanh ? gelu_tanh_f32 : gelu_normal_f32)(context, n, p, s);
}

static void gelu_grad_f32(void *context, int64_t n, char **p, const int64_t *s) {
  bool by_tanh = ((const dlua_value *)context)->i;
  (by_tanh ? gelu_tanh_grad_f32 : gelu_normal_grad_f32)(context, n, p, s);
}

// ---------------------------------------------------------------- pow

static inline double power(double x, double y) {
  double z = vm_pow(x, y);
  return y == 1 ? x : z;
}

// The products are those of f32, as in the plain loop.
ROW2(pow_any, 0, 0, y == 2 ? x * x : y == 3 ? x * x * x : (float)power(x, y))
ROW1(pow_3, 0, 0, x *x *x)

// A repeated exponent is spread over a block: as an invariant it makes the compiler split the loop
// along its conditions and leave the parts scalar.
static void pow_same(void *context, int64_t n, char **p, const int64_t *s) {
  float y[BLOCK];
  for (int64_t k = 0; k < BLOCK; k++) y[k] = *(const float *)p[2];
  for (int64_t k = 0; k < n; k += BLOCK) {
    char *block[3] = {p[0] + k * s[0], p[1] + k * s[1], (char *)y};
    int64_t strides[3] = {s[0], s[1], sizeof *y};
    pow_any_f32(context, n - k < BLOCK ? n - k : BLOCK, block, strides);
  }
}

static void pow_f32(void *context, int64_t n, char **p, const int64_t *s) {
  float y = *(const float *)p[2];
  if (s[2] == 0 && y == 2)
    square_f32(context, n, p, s);
  else if (s[2] == 0 && y == 3)
    pow_3_f32(context, n, p, s);
  else
    (s[2] == 0 ? pow_same : pow_any_f32)(context, n, p, s);
}

// ---------------------------------------------------------------- sin and cos

static inline void copy_f32(void *to, int64_t to_step, const void *from, int64_t from_step,
                            int64_t n) {
  if (to_step == sizeof(float) && from_step == sizeof(float)) {
    memcpy(to, from, (size_t)n * sizeof(float));
    return;
  }
  for (int64_t k = 0; k < n; k++)
    *(float *)((char *)to + k * to_step) = *(const float *)((const char *)from + k * from_step);
}

static inline double sine(double x) { return vm_sine(x, 0); }
static inline double cosine(double x) { return vm_sine(x, 1); }
static inline double tangent(double x) { return vm_sine(x, 0) / vm_sine(x, 1); }

// Large angles, rare, go to libm; their places are known only after the block is done.
static ALWAYS_INLINE void angle_row(double (*f)(double), double (*libm)(double), int64_t n,
                                    char **p, const int64_t *s) {
  float x[BLOCK], y[BLOCK];
  for (int64_t from = 0; from < n; from += BLOCK) {
    int64_t count = n - from < BLOCK ? n - from : BLOCK;
    int large = 0;
    copy_f32(x, sizeof *x, p[1] + from * s[1], s[1], count);
#pragma omp simd reduction(| : large)
    for (int64_t k = 0; k < count; k++) {
      y[k] = (float)f(x[k]);
      large |= __builtin_fabsf(x[k]) > (float)VM_ANGLE;
    }
    for (int64_t k = 0; large && k < count; k++) {
      if (__builtin_fabsf(x[k]) > (float)VM_ANGLE) y[k] = (float)libm(x[k]);
    }
    copy_f32(p[0] + from * s[0], s[0], y, sizeof *y, count);
  }
}

static void sin_f32(void *context, int64_t n, char **p, const int64_t *s) {
  (void)context;
  angle_row(sine, sin, n, p, s);
}

static void cos_f32(void *context, int64_t n, char **p, const int64_t *s) {
  (void)context;
  angle_row(cosine, cos, n, p, s);
}

static void tan_f32(void *context, int64_t n, char **p, const int64_t *s) {
  (void)context;
  angle_row(tangent, tan, n, p, s);
}

// ---------------------------------------------------------------- losses

// The second number is delta or beta.
static inline float huber(float d, float delta) {
  return d <= delta ? 0.5f * d * d : delta * (d - 0.5f * delta);
}

static inline float smooth_l1(float d, float beta) {
  return d < beta ? 0.5f * d * d / beta : d - 0.5f * beta;
}

static inline double floored_log(double x) {
  double y = vm_log(x);
  return y < -100 ? -100 : y;
}

ROW2(l1_loss, 0, 0, __builtin_fabsf(x - y))
ROW2(huber_loss, num[1].f, 0, huber(__builtin_fabsf(x - y), a))
ROW2(smooth_l1_loss, num[1].f, 0, smooth_l1(__builtin_fabsf(x - y), a))
ROW2(bce_loss, 0, 0, -y *floored_log(x) - (1 - (double)y) * floored_log(1 - (double)x))
ROW2(bce_with_logits, 0, 0,
     (1 - (double)y) * x + (x < 0 ? -x : 0) + vm_log1p(vm_exp(-__builtin_fabs(x))))
ROW2(soft_label, num[0].f, num[1].f, y == 0 ? 0 : y * ((a - x) + b))
ROW2(kl_div, 0, 0, y == 0 ? 0 : y * (vm_log(y) - x))

// ---------------------------------------------------------------- the table

// What all types have, and what those with fractions have besides.
#define ARITHMETIC(tag) \
  .add = add_##tag, .sub = sub_##tag, .mul = mul_##tag, .maximum = maximum_##tag, \
  .minimum = minimum_##tag, .neg = neg_##tag, .abs = abs_##tag, .sign = sign_##tag, \
  .square = square_##tag, .relu = relu_##tag, CHOICES(tag)
#define CHOICES(tag) \
  .where = where_##tag, .eq = eq_##tag, .ne = ne_##tag, .lt = lt_##tag, .le = le_##tag, \
  .gt = gt_##tag, .ge = ge_##tag, .logical_and = logical_and_##tag, \
  .logical_or = logical_or_##tag, .logical_xor = logical_xor_##tag, \
  .logical_not = logical_not_##tag
#define FRACTIONS(tag) \
  .div = div_##tag, .reciprocal = reciprocal_##tag, .floor = floor_##tag, .ceil = ceil_##tag, \
  .round = round_##tag, .trunc = trunc_##tag, .isnan = isnan_##tag, .isinf = isinf_##tag, \
  .isfinite = isfinite_##tag, .clamp = clamp_##tag, .clamp_grad = clamp_grad_##tag, \
  .relu_grad = relu_grad_##tag, .leaky_relu = leaky_relu_##tag, \
  .leaky_relu_grad = leaky_relu_grad_##tag, .sigmoid_grad = sigmoid_grad_##tag, \
  .dropout_grad = dropout_grad_##tag, .tanh_grad = tanh_grad_##tag, .hardtanh = hardtanh_##tag, \
  .hardtanh_grad = hardtanh_grad_##tag

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

extern const dlua_simd_kernels JOIN(dlua_simd_, DLUA_ISA);
const dlua_simd_kernels JOIN(dlua_simd_, DLUA_ISA) = {
    .of[DLUA_F32] = {ARITHMETIC(f32),
                     FRACTIONS(f32),
                     .pow = pow_f32,
                     .sqrt = sqrt_f32,
                     .rsqrt = rsqrt_f32,
                     .exp = exp_f32,
                     .log = log_f32,
                     .log1p = log1p_f32,
                     .expm1 = expm1_f32,
                     .log2 = log2_f32,
                     .log10 = log10_f32,
                     .sin = sin_f32,
                     .cos = cos_f32,
                     .tan = tan_f32,
                     .erf = erf_f32,
                     .sinh = sinh_f32,
                     .cosh = cosh_f32,
                     .atan = atan_f32,
                     .asin = asin_f32,
                     .acos = acos_f32,
                     .atan2 = atan2_f32,
                     .elu = elu_f32,
                     .elu_grad = elu_grad_f32,
                     .gelu = gelu_f32,
                     .gelu_grad = gelu_grad_f32,
                     .silu = silu_f32,
                     .silu_grad = silu_grad_f32,
                     .sigmoid = sigmoid_f32,
                     .tanh = tanh_f32,
                     .softplus = softplus_f32,
                     .softplus_grad = softplus_grad_f32,
                     .logsigmoid = logsigmoid_f32,
                     .l1_loss = l1_loss_f32,
                     .huber_loss = huber_loss_f32,
                     .smooth_l1_loss = smooth_l1_loss_f32,
                     .bce_loss = bce_loss_f32,
                     .bce_with_logits = bce_with_logits_f32,
                     .kl_div = kl_div_f32,
                     .soft_label = soft_label_f32},
    .of[DLUA_F64] = {ARITHMETIC(f64), FRACTIONS(f64)},
    .of[DLUA_I64] = {ARITHMETIC(i64)},
    .of[DLUA_I32] = {ARITHMETIC(i32)},
    .of[DLUA_U8] = {ARITHMETIC(u8)},
    .of[DLUA_BOOL] = {.add = maximum_u8,
                      .mul = minimum_u8,
                      .maximum = maximum_u8,
                      .minimum = minimum_u8,
                      CHOICES(u8)},
};
