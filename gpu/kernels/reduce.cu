// reduce.cu - sums, products, moments, norms and the two logical folds. Float states are double, so
// that a result is as good as its rounding whatever the number of elements.
#include "reduce.h"

namespace {

template <class L> using element = typename L::C;

unsigned dims_of(const dlua_args *a) { return dlua_reduced_dims(a->in[0], &a->num[0]); }

// ---------------------------------------------------------------- sums and products

dlua_status sum(const dlua_args *a, unsigned dims, bool mean) {
  dlua_reduction r = reduction_of(a->in[0], dims, true);
  return with_loader(a->in[0], [&](auto load) {
    double scale = mean ? 1 / (double)r.count : 1;
    return fold(a, r, load, Sum<element<decltype(load)>>(a->out[0], scale));
  });
}

template <class C> struct Product : Plain {
  using State = std::conditional_t<std::is_integral<C>::value, uint64_t, double>;
  Result y;
  __device__ State first() const { return 1; }
  __device__ void add(State *s, C x, int64_t, None) const { *s *= State(x); }
  __device__ void join(State *s, const State &other) const { *s *= other; }
  __device__ void finish(const State &s, int64_t o, None) const {
    if constexpr (std::is_integral<C>::value)
      y.put(o, int64_t(s));
    else
      y.put(o, s);
  }
};

// ---------------------------------------------------------------- var and std

// Sums of x - origin and its square, origin being the result's first element: a sample is within a
// few deviations of the mean, so the difference of the two sums loses nothing that matters.
struct Moments {
  struct State {
    double sum, squares;
  };
  static constexpr int AHEAD = 1;
  Result y;
  double count, freedom;
  bool root;
  template <class L> __device__ double origin(const L &load, int64_t at, int64_t) const {
    typename L::C x[1];
    load.get(at, x);
    return double(x[0]);
  }
  __device__ State first() const { return {0, 0}; }
  __device__ void add(State *s, double x, int64_t, double origin) const {
    double d = x - origin;
    s->sum += d, s->squares += d * d;
  }
  __device__ void join(State *s, const State &other) const {
    s->sum += other.sum, s->squares += other.squares;
  }
  __device__ void finish(const State &s, int64_t o, double) const {
    double all = s.squares - s.sum * s.sum / count;
    double var = (all < 0 ? 0 : all) / freedom;
    y.put(o, root ? sqrt(var) : var);
  }
};

// One element has no unbiased variance: 0 / 0.
dlua_status moments(const dlua_args *a, bool root) {
  dlua_reduction r = reduction_of(a->in[0], dims_of(a), true);
  double freedom = (double)(r.count - (a->num[2].i != 0));
  Moments f = {result_of(a->out[0]), (double)r.count, freedom > 0 ? freedom : 0, root};
  return with_loader<FLOATS>(a->in[0], [&](auto load) { return fold(a, r, load, f); });
}

// ---------------------------------------------------------------- norm

// What p makes of an element, and of the sum; the largest or smallest |x| for infinite p.
struct Norm : Plain {
  using State = double;
  Result y;
  double p;
  bool infinite;
  __device__ State first() const { return infinite && p < 0 ? double(INFINITY) : 0.0; }
  __device__ void add(State *s, double x, int64_t, None) const {
    double size = fabs(x);
    if (p == 2)
      *s += x * x;
    else if (p == 1)
      *s += size;
    else if (p == 0)
      *s += x != 0;
    else if (infinite)
      join(s, size);
    else
      *s += pow(size, p);
  }
  __device__ void join(State *s, const State &other) const {
    if (!infinite)
      *s += other;
    else if (p > 0 ? !(other <= *s) && *s == *s : !(other >= *s) && *s == *s)
      *s = other;
  }
  __device__ void finish(const State &s, int64_t o, None) const {
    bool plain = p == 0 || p == 1 || infinite;
    y.put(o, p == 2 ? sqrt(s) : plain ? s : pow(s, 1 / p));
  }
};

// ---------------------------------------------------------------- logsumexp

template <class C> struct LogSumExp : Plain, Exponents<C> {
  using State = typename Exponents<C>::State;
  Result y;
  __device__ void add(State *s, C x, int64_t, None) const { this->add_some(s, {x}); }
  __device__ void finish(const State &s, int64_t o, None) const {
    y.put(o, log(s.sum) + double(this->shift(s.top)));
  }
};

// ---------------------------------------------------------------- all and any

template <class C> struct Logical : Plain {
  using State = unsigned;
  Result y;
  bool all;
  __device__ State first() const { return all; }
  __device__ void add(State *s, C x, int64_t, None) const { join(s, x != C(0)); }
  __device__ void join(State *s, const State &other) const { *s = all ? *s & other : *s | other; }
  __device__ void finish(const State &s, int64_t o, None) const { y.put(o, int64_t(s)); }
};

dlua_status logical(const dlua_args *a, bool all) {
  dlua_reduction r = reduction_of(a->in[0], dims_of(a), true);
  return with_loader(a->in[0], [&](auto load) {
    return fold(a, r, load, Logical<element<decltype(load)>>{{}, result_of(a->out[0]), all});
  });
}

} // namespace

// ---------------------------------------------------------------- ops

extern "C" dlua_status dlua_gpu_sum(const dlua_args *a) { return sum(a, dims_of(a), false); }
extern "C" dlua_status dlua_gpu_mean(const dlua_args *a) { return sum(a, dims_of(a), true); }

// Those dimensions that the size lacks or has as 1.
extern "C" dlua_status dlua_gpu_sum_to(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int lead = x->ndim - a->num[0].n;
  unsigned dims = 0;
  for (int k = 0; k < x->ndim; k++)
    if (k < lead || a->num[0].v[k - lead] != x->size[k]) dims |= 1u << k;
  return sum(a, dims, false);
}

extern "C" dlua_status dlua_gpu_channel_sum(const dlua_args *a) {
  return sum(a, ((1u << a->in[0]->ndim) - 1) & ~2u, false);
}

extern "C" dlua_status dlua_gpu_prod(const dlua_args *a) {
  dlua_reduction r = reduction_of(a->in[0], dims_of(a), true);
  return with_loader(a->in[0], [&](auto load) {
    return fold(a, r, load, Product<element<decltype(load)>>{{}, result_of(a->out[0])});
  });
}

extern "C" dlua_status dlua_gpu_var(const dlua_args *a) { return moments(a, false); }
extern "C" dlua_status dlua_gpu_std(const dlua_args *a) { return moments(a, true); }

extern "C" dlua_status dlua_gpu_norm(const dlua_args *a) {
  dlua_reduction r = reduction_of(a->in[0], dlua_reduced_dims(a->in[0], &a->num[1]), true);
  double p = a->num[0].f;
  Norm f = {{}, result_of(a->out[0]), p, p - p != 0};
  return with_loader<FLOATS>(a->in[0], [&](auto load) { return fold(a, r, load, f); });
}

extern "C" dlua_status dlua_gpu_logsumexp(const dlua_args *a) {
  dlua_reduction r = reduction_of(a->in[0], dims_of(a), true);
  return with_loader<FLOATS>(a->in[0], [&](auto load) {
    return fold(a, r, load, LogSumExp<element<decltype(load)>>{{}, {}, result_of(a->out[0])});
  });
}

extern "C" dlua_status dlua_gpu_all(const dlua_args *a) { return logical(a, true); }
extern "C" dlua_status dlua_gpu_any(const dlua_args *a) { return logical(a, false); }
