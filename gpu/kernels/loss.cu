// loss.cu - losses that compare x and target element by element: their values, or the sum of them in
// the same pass.
#include "../../runtime/ops/loss.h"
#include "rows.h"

namespace {

enum Kind { MSE, L1, HUBER, SMOOTH_L1, BCE, LOGITS, KL, KL_LOG };

template <class C> __device__ inline C clamped(C x) { return x < C(-100) ? C(-100) : x; }

template <class C> __device__ inline C softplus_minus(C x) {
  return log1p(exp(-fabs(x))) + (x < C(0) ? -x : C(0));
}

// Which of them is the same question for all threads, so one kernel serves them all.
template <class C>
__device__ inline C loss_of(Kind kind, C parameter, C x, C t, C weight, C positive) {
  C d = fabs(x - t);
  switch (kind) {
  case MSE: return d * d;
  case L1: return d;
  case HUBER: return d <= parameter ? C(0.5) * d * d : parameter * (d - C(0.5) * parameter);
  case SMOOTH_L1: return d < parameter ? C(0.5) * d * d / parameter : d - C(0.5) * parameter;
  case BCE: return weight * (-t * clamped(log(x)) - (C(1) - t) * clamped(log1p(-x)));
  case LOGITS:
    return weight * ((C(1) - t) * x + ((positive - C(1)) * t + C(1)) * softplus_minus(x));
  case KL: return t == C(0) ? C(0) : t * (log(t) - x);
  default: return exp(t) * (t - x);
  }
}

// A weight that broadcasts to x, whose sizes these are; or a number.
struct Weight {
  const char *data;
  double number;
  uint8_t dtype;
  int ndim;
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS]; // bytes

  template <class C> __device__ C at(int64_t k) const {
    if (!data) return C(number);
    return load_as<C>(data + offset_of(ndim, size, stride, k), dtype);
  }
};

Weight weight_of(const dlua_args *a, int input) {
  const dlua_tensor *x = a->in[0], *w = input < a->nin ? a->in[input] : nullptr;
  Weight weight = {};
  weight.number = 1;
  if (!w) return weight;
  weight.dtype = w->dtype;
  if (w->number) return weight.number = load_as<double>(dlua_data(w), w->dtype), weight;
  weight.data = data<char>(w), weight.ndim = x->ndim;
  for (int d = 0; d < x->ndim; d++) {
    int from = d - x->ndim + w->ndim;
    bool repeated = from < 0 || w->size[from] == 1;
    weight.size[d] = x->size[d];
    weight.stride[d] =
        repeated ? 0 : w->stride[from] * (int64_t)dlua_dtype_size((dlua_dtype)w->dtype);
  }
  return weight;
}

// The loader of a loss's values.
template <class T> struct Values {
  using C = compute_t<T>;
  static constexpr int WIDTH = Elements<T>::WIDTH;
  Kind kind;
  double parameter;
  const T *x, *t; // NULL: a number
  double x_number, t_number;
  Weight weight, positive;
  dlua_index_check check;

  template <int W> __device__ void get(int64_t at, C (&v)[W]) const {
    C a[W], b[W];
    for (int i = 0; i < W; i++) a[i] = C(x_number), b[i] = C(t_number);
    if (x) load_some<W>(x + at, a);
    if (t) load_some<W>(t + at, b);
    DLUA_UNROLL
    for (int i = 0; i < W; i++) {
      if (kind == BCE && (a[i] < C(0) || a[i] > C(1))) report(a[i], at + i);
      v[i] =
          loss_of(kind, C(parameter), a[i], b[i], factor<W>(weight, at), factor<W>(positive, at));
    }
  }
  // Where weights are tensors elements are taken one by one: finding W of them at once is long code.
  template <int W> __device__ C factor(const Weight &w, int64_t at) const {
    if constexpr (W == 1) return w.at<C>(at);
    return C(w.number);
  }
  __device__ void report(double p, int64_t position) const {
    int64_t bits;
    memcpy(&bits, &p, sizeof bits);
    note_fault(check, DLUA_FAULT_SCORE, bits, position, 0);
  }
  bool aligned() const {
    return (uintptr_t)x % 16 == 0 && (uintptr_t)t % 16 == 0 && !weight.data && !positive.data;
  }
};

template <int W, class L, class T> __global__ void put_values(L load, T *y, int64_t n) {
  for (int64_t k = first_index() * W; k < n; k += all_threads() * W) {
    typename L::C v[W];
    load.get(k, v);
    store_some<W>(y + k, v);
  }
}

// What a sum is divided by.
double divisor(int reduction, const dlua_tensor *x) {
  if (reduction == DLUA_BATCHMEAN) return x->ndim > 0 ? (double)x->size[0] : 1;
  return reduction == DLUA_MEAN ? (double)dlua_numel(x) : 1;
}

double number_of(const dlua_tensor *x) {
  return x->number ? load_as<double>(dlua_data(x), x->dtype) : 0;
}

template <class T> T *memory_of(const dlua_tensor *x) { return x->number ? nullptr : data<T>(x); }

template <class T>
dlua_status reduce(const dlua_args *a, Kind kind, double parameter, int reduction) {
  const dlua_tensor *x = a->in[0], *t = a->in[1];
  int64_t n = dlua_numel(x);
  Values<T> load = {kind, parameter, memory_of<T>(x), memory_of<T>(t), number_of(x), number_of(t)};
  load.weight = weight_of(a, 2), load.positive = weight_of(a, 3);
  if (kind == BCE) DLUA_TRY(dlua_gpu_index_check(a, &load.check));
  if (reduction != DLUA_NONE)
    return fold(a, one_row(n), load, Sum<compute_t<T>>(a->out[0], 1 / divisor(reduction, x)));
  T *y = data<T>(a->out[0]);
  constexpr int WIDTH = Values<T>::WIDTH;
  if (n % WIDTH == 0 && load.aligned() && (uintptr_t)y % 16 == 0)
    return launch(a, put_values<WIDTH, Values<T>, T>, blocks_for(n / WIDTH), THREADS, load, y, n);
  return launch(a, put_values<1, Values<T>, T>, blocks_for(n), THREADS, load, y, n);
}

dlua_status run(const dlua_args *a, Kind kind, double parameter, const dlua_value *reduction) {
  return with_float(a->in[0], [&](auto type) {
    return reduce<decltype(type)>(a, kind, parameter, (int)reduction->i);
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_mse_loss(const dlua_args *a) { return run(a, MSE, 0, &a->num[0]); }
extern "C" dlua_status dlua_gpu_l1_loss(const dlua_args *a) { return run(a, L1, 0, &a->num[0]); }
extern "C" dlua_status dlua_gpu_huber_loss(const dlua_args *a) {
  return run(a, HUBER, a->num[1].f, &a->num[0]);
}
extern "C" dlua_status dlua_gpu_smooth_l1_loss(const dlua_args *a) {
  return run(a, SMOOTH_L1, a->num[1].f, &a->num[0]);
}
extern "C" dlua_status dlua_gpu_bce_loss(const dlua_args *a) { return run(a, BCE, 0, &a->num[0]); }
extern "C" dlua_status dlua_gpu_bce_with_logits(const dlua_args *a) {
  return run(a, LOGITS, 0, &a->num[0]);
}
extern "C" dlua_status dlua_gpu_kl_div(const dlua_args *a) {
  return run(a, a->num[0].i ? KL_LOG : KL, 0, &a->num[1]);
}
