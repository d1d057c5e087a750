// extreme.cu - max, min, argmax, argmin. Ties give the first, a nan wins (the first one); positions
// are 1-based, and row-major over what is reduced.
#include "reduce.h"

namespace {

template <class C> struct Extreme : Plain {
  struct State {
    int64_t at; // -1: none yet
    C value;
  };
  bool largest;
  Result values; // y NULL: not wanted
  int64_t *positions;

  __device__ State first() const { return {-1, C(0)}; }
  __device__ void add(State *s, C x, int64_t at, None) const { join(s, {at, x}); }
  __device__ void join(State *s, const State &other) const {
    if (other.at >= 0 && (s->at < 0 || beats(other, *s))) *s = other;
  }
  __device__ bool beats(const State &a, const State &b) const {
    bool nan_a = a.value != a.value, nan_b = b.value != b.value;
    if (nan_a || nan_b) return nan_a && (!nan_b || a.at < b.at);
    if (a.value == b.value) return a.at < b.at;
    return largest ? a.value > b.value : a.value < b.value;
  }
  __device__ void finish(const State &s, int64_t o, None) const {
    if (values.y) values.put(o, s.value);
    if (positions) positions[o] = s.at + 1;
  }
};

dlua_status extreme(const dlua_args *a, bool largest, const dlua_tensor *values,
                    const dlua_tensor *positions) {
  unsigned dims = a->num[0].set ? 1u << a->num[0].i : (1u << a->in[0]->ndim) - 1;
  dlua_reduction r = reduction_of(a->in[0], a->in[0]->ndim > 0 ? dims : 0, positions == nullptr);
  return with_loader(a->in[0], [&](auto load) {
    using C = typename decltype(load)::C;
    Result y = values ? result_of(values) : Result{};
    return fold(a, r, load, Extreme<C>{{}, largest, y, data<int64_t>(positions)});
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_max(const dlua_args *a) {
  return extreme(a, true, a->out[0], a->nout > 1 ? a->out[1] : nullptr);
}
extern "C" dlua_status dlua_gpu_min(const dlua_args *a) {
  return extreme(a, false, a->out[0], a->nout > 1 ? a->out[1] : nullptr);
}
extern "C" dlua_status dlua_gpu_argmax(const dlua_args *a) {
  return extreme(a, true, nullptr, a->out[0]);
}
extern "C" dlua_status dlua_gpu_argmin(const dlua_args *a) {
  return extreme(a, false, nullptr, a->out[0]);
}
