// activation.cu - the nonlinear functions between layers and their gradients, in the order of
// runtime/ops/activation.c. Gradients take g and what the op saved, x or y.
#include <math.h>

#include "reduce.h"

namespace {

// ---------------------------------------------------------------- straight lines

struct Relu {
  template <class C> __device__ C operator()(C x) const { return x > C(0) || x != x ? x : C(0); }
};
struct ReluGrad {
  template <class C> __device__ C operator()(C g, C y) const { return y > C(0) ? g : C(0); }
};

struct LeakyRelu {
  double slope;
  template <class C> __device__ C operator()(C x) const { return x > C(0) ? x : x * C(slope); }
};
struct LeakyReluGrad {
  double slope;
  template <class C> __device__ C operator()(C g, C x) const { return x > C(0) ? g : g * C(slope); }
};

struct Hardtanh {
  double min, max;
  template <class C> __device__ C operator()(C x) const {
    return x < C(min) ? C(min) : x > C(max) ? C(max) : x;
  }
};
struct HardtanhGrad {
  double min, max;
  template <class C> __device__ C operator()(C g, C x) const {
    return x > C(min) && x < C(max) ? g : C(0);
  }
};

// ---------------------------------------------------------------- elu

struct Elu {
  double alpha;
  template <class C> __device__ C operator()(C x) const {
    return x > C(0) ? x : C(alpha) * expm1(x);
  }
};
struct EluGrad {
  double alpha;
  template <class C> __device__ C operator()(C g, C x) const {
    return x > C(0) ? g : g * C(alpha) * exp(x);
  }
};

// ---------------------------------------------------------------- gelu

template <class C> __device__ inline C sigmoid_of(C x) { return C(1) / (C(1) + exp(-x)); }

// tanh form: x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3); 1 + tanh(u) is twice the
// sigmoid of 2 u, which is exact for large negative x too.
constexpr double ROOT = 0.79788456080286535588, CUBIC = 0.044715,
                 HALF_ROOT = 0.70710678118654752440;
constexpr double STRAIGHT = 30; // beyond it gelu is x or 0 in every dtype

template <class C> __device__ inline C tanh_share(C x) {
  return sigmoid_of(C(2 * ROOT) * (x + C(CUBIC) * x * x * x));
}

template <class C> __device__ inline C normal_share(C x) {
  return C(0.5) * erfc(-x * C(HALF_ROOT));
}

struct Gelu {
  template <class C> __device__ C operator()(C x) const { return x * normal_share(x); }
};
struct GeluTanh {
  template <class C> __device__ C operator()(C x) const { return x * tanh_share(x); }
};
struct GeluGrad {
  template <class C> __device__ C operator()(C g, C x) const {
    if (fabs(x) > C(STRAIGHT)) return x > C(0) ? g : g * C(0);
    return g * (normal_share(x) + C(0.5 * ROOT) * x * exp(C(-0.5) * x * x));
  }
};
struct GeluTanhGrad {
  template <class C> __device__ C operator()(C g, C x) const {
    if (fabs(x) > C(STRAIGHT)) return x > C(0) ? g : g * C(0);
    C s = tanh_share(x), du = C(ROOT) * (C(1) + C(3 * CUBIC) * x * x);
    return g * (s + C(2) * x * s * (C(1) - s) * du);
  }
};

struct GeluEitherGrad {
  bool by_tanh;
  template <class C> __device__ C operator()(C g, C x) const {
    return by_tanh ? GeluTanhGrad()(g, x) : GeluGrad()(g, x);
  }
};

// ---------------------------------------------------------------- gradients of a bias before them

template <class T> __device__ inline T stored(const Elements<T> &, compute_t<T> value) {
  return narrow<T>(value);
}
template <class T> __device__ inline compute_t<T> value_of(const Elements<T> &, T element) {
  return widen(element);
}

template <class T> __device__ inline uint16_t bits_of(T value) {
  uint16_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
__device__ inline uint16_t stored(const Halves &halves, float value) {
  return halves.bf ? bits_of(bf16(value)) : bits_of(f16(value));
}
__device__ inline float value_of(const Halves &halves, uint16_t bits) { return halves.value(bits); }

// A loader that makes what it gives: the activation's gradient from g and x, which goes to gx on the
// way. A fold reads each element once.
template <class L, class F> struct Made {
  using C = typename L::C;
  using T = std::remove_const_t<std::remove_pointer_t<decltype(L::x)>>;
  static constexpr int WIDTH = L::WIDTH;
  L g, x;
  T *gx;
  F slope;
  template <int W> __device__ void get(int64_t at, C (&v)[W]) const {
    C saved[W];
    Pack<T, W> pack;
    g.get(at, v), x.get(at, saved);
    for (int i = 0; i < W; i++) {
      pack.element[i] = stored(g, slope(v[i], saved[i]));
      v[i] = value_of(g, pack.element[i]);
    }
    *(Pack<T, W> *)(gx + at) = pack;
  }
  bool aligned() const { return g.aligned() && x.aligned() && (uintptr_t)gx % 16 == 0; }
};

// gx = slope(g, x), and its sums over all dimensions but the last.
template <class F> dlua_status bias_grad(const dlua_args *a, F slope) {
  const dlua_tensor *g = a->in[0];
  dlua_reduction r = reduction_of(g, (1u << (g->ndim - 1)) - 1, true);
  return with_loader<FLOATS>(g, [&](auto load) {
    using L = decltype(load);
    using M = Made<L, F>;
    L x = load;
    x.x = data<typename M::T>(a->in[1]);
    M made = {load, x, data<typename M::T>(a->out[0]), slope};
    return fold(a, r, made, Sum<typename L::C>(a->out[1], 1));
  });
}

// ---------------------------------------------------------------- sigmoid, silu, tanh

struct Sigmoid {
  template <class C> __device__ C operator()(C x) const { return sigmoid_of(x); }
};
struct SigmoidGrad {
  template <class C> __device__ C operator()(C g, C y) const { return g * y * (C(1) - y); }
};
struct Silu {
  template <class C> __device__ C operator()(C x) const { return x / (C(1) + exp(-x)); }
};
struct SiluGrad {
  template <class C> __device__ C operator()(C g, C x) const {
    if (isinf(x)) return x > C(0) ? g : g * C(0);
    C s = sigmoid_of(x);
    return g * s * (C(1) + x * (C(1) - s));
  }
};
struct Tanh {
  template <class C> __device__ C operator()(C x) const { return tanh(x); }
};
struct TanhGrad {
  template <class C> __device__ C operator()(C g, C y) const { return g * (C(1) - y * y); }
};

// ---------------------------------------------------------------- softplus, logsigmoid

struct Softplus {
  double beta, threshold;
  template <class C> __device__ C operator()(C x) const {
    C z = x * C(beta);
    return z > C(threshold) ? x : log1p(exp(z)) / C(beta);
  }
};
struct SoftplusGrad {
  double beta, threshold;
  template <class C> __device__ C operator()(C g, C x) const {
    C z = x * C(beta);
    return z > C(threshold) ? g : g * sigmoid_of(z);
  }
};
struct Logsigmoid {
  template <class C> __device__ C operator()(C x) const {
    return x != x ? x : (x < C(0) ? x : C(0)) - log1p(exp(-fabs(x)));
  }
};

} // namespace

extern "C" dlua_status dlua_gpu_relu(const dlua_args *a) { return pointwise<1>(a, Relu()); }

// Kernels of one float tensor, and of g and a saved one, the functor made of the call's numbers.
#define ACTIVATION(op, F, ...) \
  extern "C" dlua_status dlua_gpu_##op(const dlua_args *a) { \
    return pointwise<1, FLOATS>(a, F{__VA_ARGS__}); \
  }
#define GRADIENT(op, F, ...) \
  extern "C" dlua_status dlua_gpu_##op(const dlua_args *a) { \
    return pointwise<2, FLOATS>(a, F{__VA_ARGS__}); \
  }

GRADIENT(relu_grad, ReluGrad)
ACTIVATION(leaky_relu, LeakyRelu, a->num[0].f)
GRADIENT(leaky_relu_grad, LeakyReluGrad, a->num[0].f)
ACTIVATION(elu, Elu, a->num[0].f)
GRADIENT(elu_grad, EluGrad, a->num[0].f)
ACTIVATION(silu, Silu)
GRADIENT(silu_grad, SiluGrad)
ACTIVATION(sigmoid, Sigmoid)
GRADIENT(sigmoid_grad, SigmoidGrad)
ACTIVATION(tanh, Tanh)
GRADIENT(tanh_grad, TanhGrad)
ACTIVATION(softplus, Softplus, a->num[0].f, a->num[1].f)
GRADIENT(softplus_grad, SoftplusGrad, a->num[0].f, a->num[1].f)
ACTIVATION(hardtanh, Hardtanh, a->num[0].f, a->num[1].f)
GRADIENT(hardtanh_grad, HardtanhGrad, a->num[0].f, a->num[1].f)
ACTIVATION(logsigmoid, Logsigmoid)

extern "C" dlua_status dlua_gpu_gelu(const dlua_args *a) {
  bool by_tanh = a->num[0].i;
  return by_tanh ? pointwise<1, FLOATS>(a, GeluTanh()) : pointwise<1, FLOATS>(a, Gelu());
}

extern "C" dlua_status dlua_gpu_gelu_grad(const dlua_args *a) {
  bool by_tanh = a->num[0].i;
  return by_tanh ? pointwise<2, FLOATS>(a, GeluTanhGrad()) : pointwise<2, FLOATS>(a, GeluGrad());
}

extern "C" dlua_status dlua_gpu_relu_bias_grad(const dlua_args *a) {
  return bias_grad(a, ReluGrad());
}

extern "C" dlua_status dlua_gpu_gelu_bias_grad(const dlua_args *a) {
  return bias_grad(a, GeluEitherGrad{a->num[0].i != 0});
}
