// elementwise.cu - arithmetic of two tensors, and the choice between them. What the host cannot know
// about integers before the kernel runs, a divisor of 0 or a negative exponent, becomes a fault.
#include <math.h>

#include "pointwise.h"

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
struct Div {
  template <class C> __device__ C operator()(C x, C y) const { return x / y; }
};
struct Maximum {
  template <class C> __device__ C operator()(C x, C y) const { return x > y || x != x ? x : y; }
};
struct Minimum {
  template <class C> __device__ C operator()(C x, C y) const { return x < y || x != x ? x : y; }
};
struct Atan2 {
  template <class C> __device__ C operator()(C y, C x) const { return atan2(y, x); }
};

// ---------------------------------------------------------------- floor_div, mod

// With the sign of y. In double for f32 too, as on the CPU, or quotients could miss by one.
__device__ inline double remainder_of(double x, double y) {
  double r = fmod(x, y);
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

__device__ inline double quotient_of(double x, double y) {
  if (y == 0) return x / y;
  double q = (x - remainder_of(x, y)) / y, below = floor(q);
  return q - below > 0.5 ? below + 1 : below;
}

struct FloorDiv {
  dlua_index_check check;
  template <class C> __device__ C operator()(C x, C y) const { return C(quotient_of(x, y)); }
  __device__ int64_t operator()(int64_t x, int64_t y) const {
    if (y == 0) note_fault(check, DLUA_FAULT_DIVISOR, 0, 0, 0);
    if (y == 0 || y == -1) return (int64_t)(0 - (uint64_t)x); // INT64_MIN / -1 would overflow
    int64_t q = x / y, r = x - q * y;
    return q - (r != 0 && (r < 0) != (y < 0));
  }
};

struct Mod {
  dlua_index_check check;
  template <class C> __device__ C operator()(C x, C y) const { return C(remainder_of(x, y)); }
  __device__ int64_t operator()(int64_t x, int64_t y) const {
    if (y == 0) note_fault(check, DLUA_FAULT_DIVISOR, 0, 0, 0);
    if (y == 0 || y == -1) return 0;
    int64_t r = x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
  }
};

// ---------------------------------------------------------------- pow

struct Pow {
  dlua_index_check check;
  // The exponents 1, 2 and 3 multiply, so that squares are exact.
  template <class C> __device__ C operator()(C x, C y) const {
    if (y == 2) return x * x;
    if (y == 1) return x;
    return y == 3 ? x * x * x : pow(x, y);
  }
  __device__ int64_t operator()(int64_t x, int64_t y) const {
    if (y < 0) note_fault(check, DLUA_FAULT_EXPONENT, y, 0, 0);
    uint64_t result = 1, base = (uint64_t)x;
    for (; y > 0; y >>= 1, base *= base) {
      if (y & 1) result *= base;
    }
    return (int64_t)result;
  }
};

// f with the means to report what is wrong with integers.
template <int TYPES, class F> dlua_status checked(const dlua_args *a, F f) {
  if (!dlua_is_float((dlua_dtype)a->in[1]->dtype)) DLUA_TRY(dlua_gpu_index_check(a, &f.check));
  return pointwise<2, TYPES>(a, f);
}

// ---------------------------------------------------------------- where

struct Where {
  template <class C> __device__ C operator()(C condition, C x, C y) const {
    return condition != C(0) ? x : y;
  }
};

// The condition in bytes, x, y and the result as bits of one width.
template <class U> __global__ void where_flat(Loop<4> loop) {
  constexpr int WIDTH = Pack<U>::WIDTH;
  int64_t packs = loop.count / WIDTH;
  for (int64_t k = first_index(); k < packs; k += all_threads()) {
    Pack<uint8_t, WIDTH> condition;
    Pack<U> x, y;
    load_pack(loop.operand[1], k, &condition);
    load_pack(loop.operand[2], k, &x), load_pack(loop.operand[3], k, &y);
    for (int j = 0; j < WIDTH; j++)
      x.element[j] = condition.element[j] ? x.element[j] : y.element[j];
    ((Pack<U> *)loop.operand[0].data)[k] = x;
  }
  for (int64_t k = packs * WIDTH + first_index(); k < loop.count; k += all_threads())
    ((U *)loop.operand[0].data)[k] = load_one<uint8_t>(loop.operand[1], k)
                                         ? load_one<U>(loop.operand[2], k)
                                         : load_one<U>(loop.operand[3], k);
}

template <class U> dlua_status run_where_flat(const dlua_args *a, Loop<4> loop) {
  for (int i = 2; i < 4; i++) { // numbers as their bits
    if (!loop.operand[i].data) loop.operand[i].integer = *data<U>(a->in[i - 1]);
  }
  int64_t packs = (loop.count + Pack<U>::WIDTH - 1) / Pack<U>::WIDTH;
  return launch(a, where_flat<U>, blocks_for(packs), THREADS, loop);
}

} // namespace

extern "C" dlua_status dlua_gpu_add(const dlua_args *a) { return pointwise<2>(a, Add()); }
extern "C" dlua_status dlua_gpu_sub(const dlua_args *a) { return pointwise<2>(a, Sub()); }
extern "C" dlua_status dlua_gpu_mul(const dlua_args *a) { return pointwise<2>(a, Mul()); }
extern "C" dlua_status dlua_gpu_div(const dlua_args *a) { return pointwise<2, FLOATS>(a, Div()); }
extern "C" dlua_status dlua_gpu_maximum(const dlua_args *a) { return pointwise<2>(a, Maximum()); }
extern "C" dlua_status dlua_gpu_minimum(const dlua_args *a) { return pointwise<2>(a, Minimum()); }
extern "C" dlua_status dlua_gpu_atan2(const dlua_args *a) {
  return pointwise<2, FLOATS | RARE>(a, Atan2());
}
extern "C" dlua_status dlua_gpu_floor_div(const dlua_args *a) {
  return checked<ALL_TYPES | RARE>(a, FloorDiv());
}
extern "C" dlua_status dlua_gpu_mod(const dlua_args *a) {
  return checked<ALL_TYPES | RARE>(a, Mod());
}
extern "C" dlua_status dlua_gpu_pow(const dlua_args *a) { return checked<ALL_TYPES>(a, Pow()); }

extern "C" dlua_status dlua_gpu_where(const dlua_args *a) {
  dlua_tensor *const operands[4] = {a->out[0], a->in[0], a->in[1], a->in[2]};
  Loop<4> loop = loop_over(a, operands);
  bool flat = loop.ndim == 1;
  for (const Operand &o : loop.operand) flat &= is_packed(o, 16);
  size_t width = dlua_dtype_size((dlua_dtype)a->out[0]->dtype);
  if (flat && width == 4) return run_where_flat<uint32_t>(a, loop);
  if (flat && width == 2) return run_where_flat<uint16_t>(a, loop);
  return run_loop<ALL_TYPES>(a, loop, (dlua_dtype)a->out[0]->dtype, Where());
}
