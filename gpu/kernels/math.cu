// math.cu - functions of one tensor: CUDA's own in the precision of the tensor, bf16 and f16 in
// float.
#include <math.h>

#include "pointwise.h"

namespace {

// A functor for one expression of x, of type C.
#define FUNCTION(name, expression) \
  struct name { \
    template <class C> __device__ C operator()(C x) const { return expression; } \
  };

// ---------------------------------------------------------------- any dtype

FUNCTION(Neg, -x)
FUNCTION(Square, x *x)
FUNCTION(Sign, x > C(0) ? C(1) : x < C(0) ? C(-1) : x)

// A function of floats that leaves integers as they are.
#define ROUNDING(name, expression) \
  struct name { \
    template <class C> __device__ C operator()(C x) const { return expression; } \
    __device__ int64_t operator()(int64_t x) const { return x; } \
  };

ROUNDING(Floor, floor(x))
ROUNDING(Ceil, ceil(x))
ROUNDING(Round, rint(x))
ROUNDING(Trunc, trunc(x))

struct Abs {
  template <class C> __device__ C operator()(C x) const { return fabs(x); }
  __device__ int64_t operator()(int64_t x) const {
    return x < 0 ? (int64_t)(0 - (uint64_t)x) : x; // the least integer stays
  }
};

// ---------------------------------------------------------------- floats

FUNCTION(Reciprocal, 1 / x)
FUNCTION(Exp, exp(x))
FUNCTION(Expm1, expm1(x))
FUNCTION(Log, log(x))
FUNCTION(Log1p, log1p(x))
FUNCTION(Log2, log2(x))
FUNCTION(Log10, log10(x))
FUNCTION(Sqrt, sqrt(x))
FUNCTION(Rsqrt, 1 / sqrt(x))
FUNCTION(Sin, sin(x))
FUNCTION(Cos, cos(x))
FUNCTION(Tan, tan(x))
FUNCTION(Asin, asin(x))
FUNCTION(Acos, acos(x))
FUNCTION(Atan, atan(x))
FUNCTION(Sinh, sinh(x))
FUNCTION(Cosh, cosh(x))
FUNCTION(Erf, erf(x))

// ---------------------------------------------------------------- clamp

// The upper limit wins where the two cross; nan passes.
struct Clamp {
  double low, high;
  int64_t least, most; // the same for integers
  template <class C> __device__ C operator()(C x) const {
    C raised = x < C(low) ? C(low) : x;
    return raised > C(high) ? C(high) : raised;
  }
  __device__ int64_t operator()(int64_t x) const {
    int64_t raised = x < least ? least : x;
    return raised > most ? most : raised;
  }
};

struct ClampGrad {
  double low, high;
  template <class C> __device__ C operator()(C g, C x) const {
    return x >= C(low) && x <= C(high) ? g : C(0);
  }
};

double number_or(const dlua_value &v, double missing) {
  return !v.set ? missing : v.is_int ? (double)v.i : v.f;
}

} // namespace

extern "C" dlua_status dlua_gpu_neg(const dlua_args *a) { return pointwise<1>(a, Neg()); }
extern "C" dlua_status dlua_gpu_abs(const dlua_args *a) { return pointwise<1>(a, Abs()); }
extern "C" dlua_status dlua_gpu_sign(const dlua_args *a) { return pointwise<1>(a, Sign()); }
extern "C" dlua_status dlua_gpu_square(const dlua_args *a) { return pointwise<1>(a, Square()); }
extern "C" dlua_status dlua_gpu_floor(const dlua_args *a) {
  return pointwise<1, ALL_TYPES | RARE>(a, Floor());
}
extern "C" dlua_status dlua_gpu_ceil(const dlua_args *a) {
  return pointwise<1, ALL_TYPES | RARE>(a, Ceil());
}
extern "C" dlua_status dlua_gpu_round(const dlua_args *a) {
  return pointwise<1, ALL_TYPES | RARE>(a, Round());
}
extern "C" dlua_status dlua_gpu_trunc(const dlua_args *a) {
  return pointwise<1, ALL_TYPES | RARE>(a, Trunc());
}

#define FLOAT_KERNEL(op, F, types) \
  extern "C" dlua_status dlua_gpu_##op(const dlua_args *a) { return pointwise<1, types>(a, F()); }

FLOAT_KERNEL(reciprocal, Reciprocal, FLOATS)
FLOAT_KERNEL(exp, Exp, FLOATS)
FLOAT_KERNEL(log, Log, FLOATS)
FLOAT_KERNEL(sqrt, Sqrt, FLOATS)
FLOAT_KERNEL(rsqrt, Rsqrt, FLOATS)
FLOAT_KERNEL(sin, Sin, FLOATS)
FLOAT_KERNEL(cos, Cos, FLOATS)
FLOAT_KERNEL(expm1, Expm1, FLOATS | RARE)
FLOAT_KERNEL(log1p, Log1p, FLOATS | RARE)
FLOAT_KERNEL(log2, Log2, FLOATS | RARE)
FLOAT_KERNEL(log10, Log10, FLOATS | RARE)
FLOAT_KERNEL(tan, Tan, FLOATS | RARE)
FLOAT_KERNEL(asin, Asin, FLOATS | RARE)
FLOAT_KERNEL(acos, Acos, FLOATS | RARE)
FLOAT_KERNEL(atan, Atan, FLOATS | RARE)
FLOAT_KERNEL(sinh, Sinh, FLOATS | RARE)
FLOAT_KERNEL(cosh, Cosh, FLOATS | RARE)
FLOAT_KERNEL(erf, Erf, FLOATS | RARE)

extern "C" dlua_status dlua_gpu_clamp(const dlua_args *a) {
  const dlua_value &min = a->num[0], &max = a->num[1];
  return pointwise<1>(a, Clamp{number_or(min, -INFINITY), number_or(max, INFINITY),
                               min.set ? min.i : INT64_MIN, max.set ? max.i : INT64_MAX});
}

extern "C" dlua_status dlua_gpu_clamp_grad(const dlua_args *a) {
  return pointwise<2, FLOATS>(
      a, ClampGrad{number_or(a->num[0], -INFINITY), number_or(a->num[1], INFINITY)});
}
