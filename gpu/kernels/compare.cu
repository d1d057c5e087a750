// compare.cu - comparisons, logic and tests of single numbers; the results are bool.
#include <math.h>

#include "pointwise.h"

namespace {

#define COMPARISON(name, expression) \
  struct name { \
    template <class C> __device__ bool operator()(C x, C y) const { return expression; } \
  };
#define TEST(name, of_floats, of_integers) \
  struct name { \
    template <class C> __device__ bool operator()(C x) const { return of_floats; } \
    __device__ bool operator()(int64_t x) const { return ((void)x, of_integers); } \
  };

COMPARISON(Eq, x == y)
COMPARISON(Ne, x != y)
COMPARISON(Lt, x < y)
COMPARISON(Le, x <= y)
COMPARISON(Gt, x > y)
COMPARISON(Ge, x >= y)
COMPARISON(And, x != C(0) && y != C(0))
COMPARISON(Or, x != C(0) || y != C(0))
COMPARISON(Xor, (x != C(0)) != (y != C(0)))
TEST(Not, x == 0, x == 0)
TEST(IsNan, x != x, false)
TEST(IsInf, fabs(x) == C(INFINITY), false)
TEST(IsFinite, fabs(x) < C(INFINITY), true)

} // namespace

extern "C" dlua_status dlua_gpu_eq(const dlua_args *a) { return pointwise<2>(a, Eq()); }
extern "C" dlua_status dlua_gpu_ne(const dlua_args *a) { return pointwise<2>(a, Ne()); }
extern "C" dlua_status dlua_gpu_lt(const dlua_args *a) { return pointwise<2>(a, Lt()); }
extern "C" dlua_status dlua_gpu_le(const dlua_args *a) { return pointwise<2>(a, Le()); }
extern "C" dlua_status dlua_gpu_gt(const dlua_args *a) { return pointwise<2>(a, Gt()); }
extern "C" dlua_status dlua_gpu_ge(const dlua_args *a) { return pointwise<2>(a, Ge()); }
extern "C" dlua_status dlua_gpu_logical_and(const dlua_args *a) { return pointwise<2>(a, And()); }
extern "C" dlua_status dlua_gpu_logical_or(const dlua_args *a) { return pointwise<2>(a, Or()); }
extern "C" dlua_status dlua_gpu_logical_xor(const dlua_args *a) { return pointwise<2>(a, Xor()); }
extern "C" dlua_status dlua_gpu_logical_not(const dlua_args *a) { return pointwise<1>(a, Not()); }
extern "C" dlua_status dlua_gpu_isnan(const dlua_args *a) { return pointwise<1>(a, IsNan()); }
extern "C" dlua_status dlua_gpu_isinf(const dlua_args *a) { return pointwise<1>(a, IsInf()); }
extern "C" dlua_status dlua_gpu_isfinite(const dlua_args *a) { return pointwise<1>(a, IsFinite()); }
