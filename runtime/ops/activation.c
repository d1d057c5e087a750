// activation.c - the nonlinear functions between layers. Each gradient that can be fused is a
// hidden op of its own, (g, x or y) -> gx, with a gradient too, so that second derivatives work.
//
// In the loops of gradients the first operand, g, is called x and the saved tensor y: operands are
// named in their order.
#include <math.h>
#include <tgmath.h>

#include "pointwise.h"

enum { ACTIVATION = DLUA_ROWS | DLUA_INPLACE, GRADIENT = DLUA_ROWS | DLUA_HIDDEN };

#define ACTIVATION_OP(op, rule, signature, text, ...) \
  const dlua_op dlua_op_##op = {.name = #op, \
                                .sig = signature, \
                                .doc = text, \
                                .dtype = rule, \
                                .flags = ACTIVATION, \
                                .shape = dlua_shape_same, \
                                .cpu = op##_cpu, \
                                .fast = DLUA_ONLY(op##_fast), \
                                .back = op##_back, \
                                __VA_ARGS__};
#define GRADIENT_OP(op, signature, text, ...) \
  const dlua_op dlua_op_##op = {.name = #op, \
                                .sig = signature, \
                                .doc = text, \
                                .dtype = DLUA_SAME_FLOAT, \
                                .flags = GRADIENT, \
                                .shape = dlua_shape_same, \
                                .cpu = op##_cpu, \
                                .fast = DLUA_ONLY(op##_fast), \
                                .back = op##_back, \
                                __VA_ARGS__};

// What gradients are written with.
static dlua_tensor *mul(dlua_back *b, dlua_tensor *x, dlua_tensor *y) {
  return dlua_mul(b->s, x, y);
}
static dlua_tensor *apply(dlua_back *b, const dlua_op *op, dlua_tensor *x) {
  return dlua_call(b->s, op, dlua_t(x));
}
static dlua_tensor *affine(dlua_back *b, dlua_tensor *x, double factor, double plus) {
  return dlua_add(b->s, dlua_scale(b->s, x, factor), dlua_num(b->s, plus));
}
static dlua_tensor *square(dlua_back *b, dlua_tensor *x) { return apply(b, &dlua_op_square, x); }
static dlua_tensor *choose(dlua_back *b, dlua_tensor *condition, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(b->s, &dlua_op_where, dlua_t(condition), dlua_t(x), dlua_t(y));
}
static dlua_tensor *above(dlua_back *b, dlua_tensor *x, double limit) {
  return dlua_call(b->s, &dlua_op_gt, dlua_t(x), dlua_t(dlua_num(b->s, limit)));
}

// gx from g through a hidden op that takes the same numbers.
static dlua_tensor *slope(dlua_back *b, const dlua_op *op, const char *saved) {
  dlua_arg args[2 + DLUA_MAX_NUM] = {dlua_t(b->g[0]), dlua_t(dlua_saved(b, saved))};
  int n = 2;
  for (int k = 0; k < dlua_op_signature(op)->nnum; k++) args[n++] = dlua_v(&b->num[k]);
  return dlua_call_n(b->s, op, n, args);
}

// The gradient of a hidden op by the tensor it saved: g, its own g, and the second derivative.
static void give_second(dlua_back *b, dlua_tensor *second) {
  dlua_give(b, 1, mul(b, mul(b, b->g[0], dlua_saved(b, "g")), second));
}

static void give_zeros(dlua_back *b) {
  if (dlua_needs(b, 1)) dlua_give(b, 1, dlua_zeros_like(b->s, b->g[0]));
}

// ---------------------------------------------------------------- relu

DLUA_FLOAT_ROWS1(relu, x > 0 || x != x ? x : 0)
DLUA_ROW1(relu_i64, int64_t, int64_t, x > 0 ? x : 0)
DLUA_ROW1(relu_i32, int32_t, int32_t, x > 0 ? x : 0)
DLUA_ROW1(relu_u8, uint8_t, uint8_t, x)
DLUA_ROW1(relu_bool, bool, bool, x)
DLUA_ANY_CPU(relu)
DLUA_FAST(relu, 1)
DLUA_FLOAT_ROWS2(relu_grad, y > 0 ? x : 0)
DLUA_FLOAT_KERNELS(relu_grad, 1)

static void relu_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_relu_grad, "y")); }

static void relu_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_relu_grad, "y"));
  give_zeros(b);
}

ACTIVATION_OP(relu, DLUA_PROMOTE, "x:T -> y", "The larger of x and 0; its gradient at 0 is 0.",
              .save = "y", .refuse = "bool")
GRADIENT_OP(relu_grad, "g:T, y:T -> gx", "g where y > 0, 0 elsewhere.", .save = "y")

// ---------------------------------------------------------------- leaky_relu

DLUA_FLOAT_ROWS1(leaky_relu, x > 0 ? x : x * num[0].f)
DLUA_FLOAT_KERNELS(leaky_relu, 1)
DLUA_FLOAT_ROWS2(leaky_relu_grad, y > 0 ? x : x * num[0].f)
DLUA_FLOAT_KERNELS(leaky_relu_grad, 1)

static void leaky_relu_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_leaky_relu_grad, "x"));
}

static void leaky_relu_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_leaky_relu_grad, "x"));
  give_zeros(b);
}

ACTIVATION_OP(leaky_relu, DLUA_SAME_FLOAT, "x:T, slope:f=0.01 -> y",
              "x where x > 0, slope * x elsewhere.", .save = "x")
GRADIENT_OP(leaky_relu_grad, "g:T, x:T, slope:f=0.01 -> gx", "g where x > 0, slope * g elsewhere.",
            .save = "x")

// ---------------------------------------------------------------- elu

DLUA_FLOAT_ROWS1(elu, x > 0 ? x : num[0].f * expm1(x))
DLUA_FLOAT_KERNELS(elu, 20)
DLUA_FLOAT_ROWS2(elu_grad, y > 0 ? x : x * num[0].f * exp(y))
DLUA_FLOAT_KERNELS(elu_grad, 10)

static void elu_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_elu_grad, "x")); }

static void elu_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_elu_grad, "x"));
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *x = dlua_saved(b, "x"),
              *bend = dlua_scale(b->s, apply(b, &dlua_op_exp, x), b->num[0].f);
  give_second(b, choose(b, above(b, x, 0), dlua_num(b->s, 0), bend));
}

ACTIVATION_OP(elu, DLUA_SAME_FLOAT, "x:T, alpha:f=1 -> y",
              "x where x > 0, alpha * (exp(x) - 1) elsewhere.", .save = "x")
GRADIENT_OP(elu_grad, "g:T, x:T, alpha:f=1 -> gx",
            "g where x > 0, g * alpha * exp(x) elsewhere: the gradient of elu.", .save = "g x")

// ---------------------------------------------------------------- gelu

// tanh form: x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
// Source: Hendrycks and Gimpel, "Gaussian error linear units", 2016.
static const double root = 0.79788456080286535588, cubic = 0.044715;

static inline double gelu_of(double x, bool by_tanh) {
  if (by_tanh) return 0.5 * x * (1 + tanh(root * (x + cubic * x * x * x)));
  return 0.5 * x * erfc(-x * M_SQRT1_2);
}

static inline double gelu_slope(double x, bool by_tanh) {
  if (isinf(x)) return x > 0;
  if (by_tanh) {
    double t = tanh(root * (x + cubic * x * x * x)), du = root * (1 + 3 * cubic * x * x);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
  }
  return 0.5 * erfc(-x * M_SQRT1_2) + 0.5 * root * x * exp(-0.5 * x * x);
}

DLUA_FLOAT_ROWS1(gelu, gelu_of(x, num[0].i))
DLUA_FLOAT_KERNELS(gelu, 20)
DLUA_FLOAT_ROWS2(gelu_grad, x *gelu_slope(y, num[0].i))
DLUA_FLOAT_KERNELS(gelu_grad, 30)

static void gelu_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_gelu_grad, "x")); }

// (1 - t^2) (u' + x u'' / 2 - x t u'^2)
static dlua_tensor *tanh_bend(dlua_back *b, dlua_tensor *x) {
  dlua_tensor *xx = square(b, x), *du = affine(b, xx, 3 * cubic * root, root);
  dlua_tensor *u = mul(b, x, affine(b, xx, cubic * root, root)), *t = apply(b, &dlua_op_tanh, u);
  dlua_tensor *curve = dlua_add(b->s, du, dlua_scale(b->s, xx, 3 * cubic * root));
  dlua_tensor *turn = mul(b, mul(b, x, t), square(b, du));
  return mul(b, affine(b, square(b, t), -1, 1), dlua_sub(b->s, curve, turn));
}

// The bell curve times (2 - x^2).
static dlua_tensor *erf_bend(dlua_back *b, dlua_tensor *x) {
  dlua_tensor *xx = square(b, x), *bell = apply(b, &dlua_op_exp, dlua_scale(b->s, xx, -0.5));
  return mul(b, dlua_scale(b->s, bell, 0.5 * root), affine(b, xx, -1, 2));
}

static void gelu_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_gelu_grad, "x"));
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *x = dlua_saved(b, "x");
  give_second(b, b->num[0].i ? tanh_bend(b, x) : erf_bend(b, x));
}

ACTIVATION_OP(gelu, DLUA_SAME_FLOAT, "x:T, approximate:e{none|tanh}=none -> y",
              "x times the normal distribution function of x, or its approximation by tanh.",
              .save = "x")
GRADIENT_OP(gelu_grad, "g:T, x:T, approximate:e{none|tanh}=none -> gx", "The gradient of gelu.",
            .save = "g x")

// ---------------------------------------------------------------- sigmoid, silu, tanh

static inline double sigmoid_of(double x) { return 1 / (1 + exp(-x)); }

static inline double silu_slope(double x) {
  if (isinf(x)) return x > 0;
  double s = sigmoid_of(x);
  return s * (1 + x * (1 - s));
}

DLUA_FLOAT_ROWS1(sigmoid, sigmoid_of(x))
DLUA_FLOAT_KERNELS(sigmoid, 10)
DLUA_FLOAT_ROWS2(sigmoid_grad, x *y *(1 - y))
DLUA_FLOAT_KERNELS(sigmoid_grad, 2)
DLUA_FLOAT_ROWS1(silu, x / (1 + exp(-(double)x)))
DLUA_FLOAT_KERNELS(silu, 10)
DLUA_FLOAT_ROWS2(silu_grad, x *silu_slope(y))
DLUA_FLOAT_KERNELS(silu_grad, 15)
DLUA_FLOAT_ROWS1(tanh, tanh(x))
DLUA_FLOAT_KERNELS(tanh, 15)
DLUA_FLOAT_ROWS2(tanh_grad, x *(1 - y * y))
DLUA_FLOAT_KERNELS(tanh_grad, 2)

static void sigmoid_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_sigmoid_grad, "y")); }
static void silu_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_silu_grad, "x")); }
static void tanh_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_tanh_grad, "y")); }

static void sigmoid_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_sigmoid_grad, "y"));
  if (dlua_needs(b, 1)) give_second(b, affine(b, dlua_saved(b, "y"), -2, 1));
}

// s (1 - s) (2 + x (1 - 2 s))
static void silu_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_silu_grad, "x"));
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *x = dlua_saved(b, "x"), *s = apply(b, &dlua_op_sigmoid, x);
  dlua_tensor *bell = mul(b, s, affine(b, s, -1, 1));
  give_second(b, mul(b, bell, affine(b, mul(b, x, affine(b, s, -2, 1)), 1, 2)));
}

static void tanh_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_tanh_grad, "y"));
  if (dlua_needs(b, 1)) give_second(b, dlua_scale(b->s, dlua_saved(b, "y"), -2));
}

ACTIVATION_OP(sigmoid, DLUA_PROMOTE_FLOAT, "x:T -> y", "1 / (1 + exp(-x)).", .save = "y")
GRADIENT_OP(sigmoid_grad, "g:T, y:T -> gx", "g * y * (1 - y): the gradient of sigmoid.",
            .save = "g y")
ACTIVATION_OP(silu, DLUA_SAME_FLOAT, "x:T -> y", "x * sigmoid(x).", .save = "x")
GRADIENT_OP(silu_grad, "g:T, x:T -> gx", "The gradient of silu.", .save = "g x")
ACTIVATION_OP(tanh, DLUA_PROMOTE_FLOAT, "x:T -> y", "The hyperbolic tangent of x.", .save = "y")
GRADIENT_OP(tanh_grad, "g:T, y:T -> gx", "g * (1 - y * y): the gradient of tanh.", .save = "g y")

// ---------------------------------------------------------------- softplus, logsigmoid

static inline double softplus_of(double x, double beta, double threshold) {
  return x * beta > threshold ? x : log1p(exp(x * beta)) / beta;
}

static inline double softplus_slope(double x, double beta, double threshold) {
  return x * beta > threshold ? 1 : sigmoid_of(x * beta);
}

static inline double logsigmoid_of(double x) { return fmin(x, 0) - log1p(exp(-fabs(x))); }

DLUA_FLOAT_ROWS1(softplus, softplus_of(x, num[0].f, num[1].f))
DLUA_FLOAT_KERNELS(softplus, 25)
DLUA_FLOAT_ROWS2(softplus_grad, x *softplus_slope(y, num[0].f, num[1].f))
DLUA_FLOAT_KERNELS(softplus_grad, 12)
DLUA_FLOAT_ROWS1(logsigmoid, x != x ? x : logsigmoid_of(x))
DLUA_FLOAT_KERNELS(logsigmoid, 25)

static void softplus_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_softplus_grad, "x")); }

static void softplus_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_softplus_grad, "x"));
  if (!dlua_needs(b, 1)) return;
  double beta = b->num[0].f, threshold = b->num[1].f;
  dlua_tensor *z = dlua_scale(b->s, dlua_saved(b, "x"), beta), *s = apply(b, &dlua_op_sigmoid, z);
  dlua_tensor *bend = dlua_scale(b->s, mul(b, s, affine(b, s, -1, 1)), beta);
  give_second(b, choose(b, above(b, z, threshold), dlua_num(b->s, 0), bend));
}

static void logsigmoid_back(dlua_back *b) {
  dlua_tensor *s = apply(b, &dlua_op_sigmoid, dlua_neg(b->s, dlua_saved(b, "x")));
  dlua_give(b, 0, mul(b, b->g[0], s));
}

ACTIVATION_OP(softplus, DLUA_SAME_FLOAT, "x:T, beta:f=1, threshold:f=20 -> y",
              "log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold.",
              .save = "x", .autocast = DLUA_CAST_F32)
GRADIENT_OP(softplus_grad, "g:T, x:T, beta:f=1, threshold:f=20 -> gx",
            "g * sigmoid(beta * x), and g where beta * x > threshold: the gradient of softplus.",
            .save = "g x")
ACTIVATION_OP(logsigmoid, DLUA_SAME_FLOAT, "x:T -> y", "log(sigmoid(x)).", .save = "x",
              .autocast = DLUA_CAST_F32)

// ---------------------------------------------------------------- hardtanh

DLUA_FLOAT_ROWS1(hardtanh, x<num[0].f ? num[0].f : x> num[1].f ? num[1].f : x)
DLUA_FLOAT_KERNELS(hardtanh, 1)
DLUA_FLOAT_ROWS2(hardtanh_grad, y > num[0].f && y < num[1].f ? x : 0)
DLUA_FLOAT_KERNELS(hardtanh_grad, 1)

static void hardtanh_back(dlua_back *b) { dlua_give(b, 0, slope(b, &dlua_op_hardtanh_grad, "x")); }

static void hardtanh_grad_back(dlua_back *b) {
  dlua_give(b, 0, slope(b, &dlua_op_hardtanh_grad, "x"));
  give_zeros(b);
}

ACTIVATION_OP(hardtanh, DLUA_SAME_FLOAT, "x:T, min:f=-1, max:f=1 -> y", "x brought into min..max.",
              .save = "x")
GRADIENT_OP(hardtanh_grad, "g:T, x:T, min:f=-1, max:f=1 -> gx",
            "g where min < x < max, 0 elsewhere: the gradient of hardtanh.", .save = "x")
