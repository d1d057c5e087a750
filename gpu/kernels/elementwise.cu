// elementwise.cu - arithmetic of two tensors.
#include "../pointwise.h"

namespace {

struct Add {
  template <class C> __device__ C operator()(C x, C y) const { return x + y; }
};
struct Sub {
  template <class C> __device__ C operator()(C x, C y) const { return x - y; }
};
struct Mul {
  template <class C> __device__ C operator()(C x, C y) const { return x * y; }
};

} // namespace

extern "C" dlua_status dlua_gpu_add(const dlua_args *a) { return pointwise<2>(a, Add()); }
extern "C" dlua_status dlua_gpu_sub(const dlua_args *a) { return pointwise<2>(a, Sub()); }
extern "C" dlua_status dlua_gpu_mul(const dlua_args *a) { return pointwise<2>(a, Mul()); }
