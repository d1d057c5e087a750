// softmax.cu - softmax and its logarithm along one dimension, and their gradients: one kernel each,
// in which every row is read once where it fits into the registers of a block.
#include "rows.h"

namespace {

template <class T, int WIDTH> struct Softmax : Exponents<compute_t<T>> {
  static constexpr int W = WIDTH;
  using C = compute_t<T>;
  using State = typename Exponents<C>::State;
  struct Row {};
  struct Item {
    C x[W];
  };
  struct Done {
    C top, rest; // the logarithm of the sum, or 1 / sum
  };
  const T *x;
  T *y;
  bool logarithm;

  static Softmax of(const dlua_args *a, bool logarithm) {
    Softmax op;
    op.x = data<T>(a->in[0]), op.y = data<T>(a->out[0]), op.logarithm = logarithm;
    return op;
  }

  __device__ Row open(int64_t) const { return {}; }
  __device__ Item load(const Row &, int64_t, int64_t at) const {
    Item item;
    load_some<W>(x + at, item.x);
    return item;
  }
  __device__ void add(State *s, const Item &item) const { this->add_some(s, item.x); }
  __device__ Done close(const Row &, const State &s) const {
    double sum = this->sum_of(s);
    return {s.top, C(logarithm ? log(sum) : 1 / sum)};
  }
  __device__ void put(const Row &, int64_t, int64_t at, const Item &item, const Done &done) const {
    C result[W];
    for (int i = 0; i < W; i++) {
      C shifted = item.x[i] - done.top;
      result[i] = logarithm ? shifted - done.rest : exp(shifted) * done.rest;
    }
    store_some<W>(y + at, result);
  }
};

// y (g - sum(g y)), or for the logarithm g - exp(y) sum(g).
template <class T, int WIDTH> struct SoftmaxGrad {
  static constexpr int W = WIDTH;
  using C = compute_t<T>;
  using State = double;
  struct Row {};
  struct Item {
    C g[W], y[W];
  };
  using Done = C;
  const T *g, *y;
  T *gx;
  bool logarithm;

  static SoftmaxGrad of(const dlua_args *a, bool logarithm) {
    return {data<T>(a->in[0]), data<T>(a->in[1]), data<T>(a->out[0]), logarithm};
  }

  __device__ Row open(int64_t) const { return {}; }
  __device__ Item load(const Row &, int64_t, int64_t at) const {
    Item item;
    load_some<W>(g + at, item.g);
    load_some<W>(y + at, item.y);
    return item;
  }
  __device__ State first() const { return 0; }
  __device__ void add(State *s, const Item &item) const {
    for (int i = 0; i < W; i++)
      *s += logarithm ? double(item.g[i]) : double(item.g[i]) * double(item.y[i]);
  }
  __device__ void join(State *s, const State &other) const { *s += other; }
  __device__ Done close(const Row &, const State &s) const { return C(s); }
  __device__ void put(const Row &, int64_t, int64_t at, const Item &item, const Done &sum) const {
    C result[W];
    for (int i = 0; i < W; i++)
      result[i] = logarithm ? item.g[i] - exp(item.y[i]) * sum : item.y[i] * (item.g[i] - sum);
    store_some<W>(gx + at, result);
  }
};

template <template <class, int> class Op> dlua_status run(const dlua_args *a, bool logarithm) {
  const dlua_tensor *x = a->in[0];
  int64_t dim = a->num[0].i, n = x->ndim > 0 ? x->size[dim] : 1, inner = 1;
  for (int64_t k = dim + 1; k < x->ndim; k++) inner *= x->size[k];
  int64_t rows = n > 0 ? dlua_numel(x) / n : 0;
  return with_float(x, [&](auto type) {
    using T = decltype(type);
    constexpr int WIDTH = Elements<T>::WIDTH;
    bool packs = WIDTH > 1 && packs_of_row<T>(a->out[0], n, inner);
    for (int k = 0; k < a->nin; k++) packs &= packs_of_row<T>(a->in[k], n, inner);
    if (packs) return run_map(a, rows, n, inner, Op<T, WIDTH>::of(a, logarithm));
    return run_map(a, rows, n, inner, Op<T, 1>::of(a, logarithm));
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_softmax(const dlua_args *a) { return run<Softmax>(a, false); }
extern "C" dlua_status dlua_gpu_log_softmax(const dlua_args *a) { return run<Softmax>(a, true); }
extern "C" dlua_status dlua_gpu_softmax_grad(const dlua_args *a) {
  return run<SoftmaxGrad>(a, false);
}
extern "C" dlua_status dlua_gpu_log_softmax_grad(const dlua_args *a) {
  return run<SoftmaxGrad>(a, true);
}
