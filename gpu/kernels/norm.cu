// norm.cu - batch normalisation: one pass over x for mean and variance, one to normalise; for the
// gradient one over g and x for both sums, one for gx. Statistics are kept in float (double for f64)
// whatever x is. Where relu lets g through both passes compute from x, as forward did.
#include "rows.h"

namespace {

enum { X, WEIGHT, BIAS, RUNNING_MEAN, RUNNING_VAR }; // inputs of batch_norm
enum { TRAINING, MOMENTUM, EPS, RELU };              // its numbers
enum { GRAD_G, GRAD_X, GRAD_WEIGHT, GRAD_BIAS, GRAD_MEAN, GRAD_RSTD };
enum { GRAD_TRAINING, GRAD_RELU };

// A value per channel; data NULL: missing.
struct PerChannel {
  char *data;
  int64_t stride; // bytes
  uint8_t dtype;
  __device__ double get(int64_t c, double missing) const {
    return data ? load_as<double>(data + c * stride, dtype) : missing;
  }
  __device__ void put(int64_t c, double value) const {
    if (data) store_as(data + c * stride, dtype, value);
  }
};

PerChannel per_channel(const dlua_tensor *x) {
  if (!x) return {};
  int64_t size = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
  return {data<char>(x), x->stride[0] * size, x->dtype};
}

// y = scale (x - mean) + bias; its gradient is gx = scale g + slope (x - mean) + offset.
template <class C> struct Affine {
  C mean, scale, bias, slope, offset;
  __device__ C value(C x) const { return (x - mean) * scale + bias; }
};

// ---------------------------------------------------------------- statistics

// From a channel's mean and variance to all that is made of them.
template <class C> struct Channels {
  PerChannel weight, bias, running_mean, running_var, mean, rstd;
  double momentum, eps;
  Affine<C> *affine;

  // From mean and rstd as they are kept: backward comes to the same.
  __device__ void close(int64_t c, double average, double var) const {
    mean.put(c, average), rstd.put(c, 1 / sqrt(var + eps));
    affine[c] = {C(mean.get(c, 0)), C(rstd.get(c, 1) * weight.get(c, 1)), C(bias.get(c, 0)), C(0),
                 C(0)};
  }
  __device__ void move(const PerChannel &running, int64_t c, double value) const {
    running.put(c, (1 - momentum) * running.get(c, 0) + momentum * value);
  }
};

// Sums of x - origin and its square, origin being the channel's first element.
template <class C> struct BatchMoments {
  struct State {
    double sum, squares;
  };
  static constexpr int AHEAD = 4;
  Channels<C> channels;
  double count;
  template <class L> __device__ C origin(const L &load, int64_t at, int64_t) const {
    C x[1];
    load.get(at, x);
    return x[0];
  }
  __device__ State first() const { return {0, 0}; }
  __device__ void add(State *s, C x, int64_t, C origin) const {
    double d = double(x) - double(origin);
    s->sum += d, s->squares += d * d;
  }
  __device__ void join(State *s, const State &other) const {
    s->sum += other.sum, s->squares += other.squares;
  }
  __device__ void finish(const State &s, int64_t c, C origin) const {
    double d = s.sum / count, var = s.squares / count - d * d;
    if (var < 0) var = 0;
    channels.move(channels.running_mean, c, double(origin) + d);
    channels.move(channels.running_var, c, var * count / (count - 1));
    channels.close(c, double(origin) + d, var);
  }
};

template <class C> __global__ void use_running(Channels<C> channels, int64_t n) {
  for (int64_t c = first_index(); c < n; c += all_threads())
    channels.close(c, channels.running_mean.get(c, 0), channels.running_var.get(c, 0));
}

// What the gradient folds: g and x together.
template <class C> struct Pair { C g, x; };

template <class T> struct Pairs {
  using C = Pair<compute_t<T>>;
  static constexpr int WIDTH = Elements<T>::WIDTH;
  const T *g, *x;
  template <int W> __device__ void get(int64_t at, C (&v)[W]) const {
    compute_t<T> a[W], b[W];
    load_some<W>(g + at, a);
    load_some<W>(x + at, b);
    for (int i = 0; i < W; i++) v[i] = {a[i], b[i]};
  }
  bool aligned() const { return (uintptr_t)g % 16 == 0 && (uintptr_t)x % 16 == 0; }
};

// sum(g) and sum(g (x - mean)), with relu over those g that it lets through.
template <class C> struct GradientSums {
  struct State {
    double sum, product;
  };
  static constexpr int AHEAD = 2; // of g and x
  PerChannel weight, bias, mean, rstd, gw, gb;
  double share; // 1 / count in training, else 0
  bool relu;
  Affine<C> *affine;

  template <class L> __device__ Affine<C> origin(const L &, int64_t, int64_t c) const {
    return {C(mean.get(c, 0)), C(rstd.get(c, 1) * weight.get(c, 1)), C(bias.get(c, 0)), C(0), C(0)};
  }
  __device__ State first() const { return {0, 0}; }
  __device__ void add(State *s, const Pair<C> &v, int64_t, const Affine<C> &f) const {
    if (relu && !(f.value(v.x) > 0)) return;
    s->sum += double(v.g), s->product += double(v.g) * double(v.x - f.mean);
  }
  __device__ void join(State *s, const State &other) const {
    s->sum += other.sum, s->product += other.product;
  }
  __device__ void finish(const State &s, int64_t c, Affine<C> f) const {
    double r = rstd.get(c, 1), product = s.product * r, scale = r * weight.get(c, 1);
    gw.put(c, product), gb.put(c, s.sum);
    f.slope = C(-scale * r * product * share), f.offset = C(-scale * s.sum * share);
    affine[c] = f;
  }
};

// ---------------------------------------------------------------- elements

// What becomes of W elements from one on; those of element i are f[i * step].
template <class T> struct Forward {
  using C = compute_t<T>;
  const T *x;
  T *y;
  bool relu;
  const Affine<C> *affine; // of every channel
  template <int W> __device__ void apply(int64_t at, const Affine<C> *f, int step) const {
    C v[W];
    load_some<W>(x + at, v);
    for (int i = 0; i < W; i++) {
      v[i] = f[i * step].value(v[i]);
      if (relu && v[i] < 0) v[i] = 0;
    }
    store_some<W>(y + at, v);
  }
};

template <class T> struct Backward {
  using C = compute_t<T>;
  const T *g, *x;
  T *gx;
  bool relu;
  const Affine<C> *affine;
  template <int W> __device__ void apply(int64_t at, const Affine<C> *f, int step) const {
    C a[W], b[W];
    load_some<W>(g + at, a);
    load_some<W>(x + at, b);
    for (int i = 0; i < W; i++) {
      const Affine<C> &c = f[i * step];
      if (relu && !(c.value(b[i]) > 0)) a[i] = 0;
      a[i] = a[i] * c.scale + (b[i] - c.mean) * c.slope + c.offset;
    }
    store_some<W>(gx + at, a);
  }
};

// Where a channel's elements lie: `inner` together.
struct Plane {
  int64_t channels, inner, count;
  __device__ int64_t channel(int64_t at) const {
    int64_t plane = quotient(at, inner);
    return plane - quotient(plane, channels) * channels;
  }
};

template <int W, class Op> __global__ void by_planes(Plane p, Op op) {
  for (int64_t at = first_index() * W; at < p.count; at += all_threads() * W) {
    Affine<typename Op::C> f = op.affine[p.channel(at)];
    op.template apply<W>(at, &f, 0);
  }
}

// Channels side by side, in NHWC and of {n,c}: a thread keeps what it knows of W of them and goes from
// pixel to pixel. Blocks are blockDim.x times W channels wide, `strips` of them make up a pixel.
template <int W, class Op> __global__ void by_pixels(Plane p, int64_t strips, Op op) {
  int64_t column = (blockIdx.x % strips * blockDim.x + threadIdx.x) * W;
  int64_t step = gridDim.x / strips * blockDim.y * p.channels;
  Affine<typename Op::C> f[W];
  if (column >= p.channels) return;
  DLUA_UNROLL
  for (int i = 0; i < W; i++) f[i] = op.affine[column + i];
  int64_t at = (blockIdx.x / strips * blockDim.y + threadIdx.y) * p.channels + column;
  for (; at < p.count; at += step) op.template apply<W>(at, f, 1);
}

template <int W, class Op> dlua_status run(const dlua_args *a, const Plane &p, Op op) {
  if (p.count == 0) return DLUA_OK;
  if (p.inner > 1) return launch(a, by_planes<W, Op>, blocks_for(p.count / W), THREADS, p, op);
  int64_t groups = p.channels / W, pixels = p.count / p.channels;
  int wide = power_of_two(groups, WARP), high = THREADS / wide;
  int64_t strips = (groups + wide - 1) / wide, parts = (pixels + high * 4 - 1) / (high * 4);
  int64_t most = strips < MOST_BLOCKS ? MOST_BLOCKS / strips : 1;
  if (parts > most) parts = most;
  return launch(a, by_pixels<W, Op>, (unsigned)(strips * parts), dim3(wide, high), p, strips, op);
}

// ---------------------------------------------------------------- calls

Plane plane_of(const dlua_tensor *x) {
  Plane p = {x->size[1], 1, dlua_numel(x)};
  for (int d = 2; d < x->ndim && x->storage->layout != DLUA_NHWC; d++) p.inner *= x->size[d];
  return p;
}

// Do steps of W elements stay within a plane, or within a row of channels?
template <class T> bool steps_fit(const Plane &p, const dlua_tensor *x, const dlua_tensor *y) {
  int64_t W = Elements<T>::WIDTH;
  bool aligned = (uintptr_t)dlua_data(x) % 16 == 0 && (uintptr_t)dlua_data(y) % 16 == 0;
  return W > 1 && aligned && (p.inner == 1 ? p.channels : p.inner) % W == 0;
}

dlua_reduction per_channel_sums(const dlua_tensor *x) {
  return reduction_of(x, ((1u << x->ndim) - 1) & ~2u, true);
}

template <class T> dlua_status forward(const dlua_args *a, Affine<compute_t<T>> *affine) {
  using C = compute_t<T>;
  const dlua_tensor *x = a->in[X], *y = a->out[0];
  Plane p = plane_of(x);
  Channels<C> channels = {per_channel(a->in[WEIGHT]),
                          per_channel(a->in[BIAS]),
                          per_channel(a->in[RUNNING_MEAN]),
                          per_channel(a->in[RUNNING_VAR]),
                          per_channel(a->out[1]),
                          per_channel(a->out[2]),
                          a->num[MOMENTUM].f,
                          a->num[EPS].f,
                          affine};
  if (a->num[TRAINING].i) {
    dlua_reduction r = per_channel_sums(x);
    BatchMoments<C> moments = {channels, (double)r.count};
    DLUA_TRY(fold(a, r, Elements<T>{data<T>(x)}, moments));
  } else {
    DLUA_TRY(launch(a, use_running<C>, blocks_for(p.channels), THREADS, channels, p.channels));
  }
  Forward<T> op = {data<T>(x), data<T>(y), a->num[RELU].i != 0, affine};
  return steps_fit<T>(p, x, y) ? run<Elements<T>::WIDTH>(a, p, op) : run<1>(a, p, op);
}

template <class T> dlua_status backward(const dlua_args *a, Affine<compute_t<T>> *affine) {
  using C = compute_t<T>;
  const dlua_tensor *g = a->in[GRAD_G], *x = a->in[GRAD_X], *gx = a->out[0];
  bool relu = a->num[GRAD_RELU].i != 0;
  Plane p = plane_of(x);
  dlua_reduction r = per_channel_sums(x);
  GradientSums<C> sums = {per_channel(a->in[GRAD_WEIGHT]),
                          per_channel(a->in[GRAD_BIAS]),
                          per_channel(a->in[GRAD_MEAN]),
                          per_channel(a->in[GRAD_RSTD]),
                          per_channel(a->out[1]),
                          per_channel(a->out[2]),
                          a->num[GRAD_TRAINING].i ? 1 / (double)r.count : 0,
                          relu,
                          affine};
  DLUA_TRY(fold(a, r, Pairs<T>{data<T>(g), data<T>(x)}, sums));
  Backward<T> op = {data<T>(g), data<T>(x), data<T>(gx), relu, affine};
  bool packs = steps_fit<T>(p, x, gx) && (uintptr_t)dlua_data(g) % 16 == 0;
  return packs ? run<Elements<T>::WIDTH>(a, p, op) : run<1>(a, p, op);
}

// Runs go with room for the channels' coefficients.
template <class C, class Go> dlua_status with_affine(const dlua_args *a, int64_t channels, Go go) {
  void *block = nullptr;
  size_t bytes = (size_t)(channels + 1) * sizeof(Affine<C>);
  DLUA_TRY(dlua_alloc(a->device, bytes, &block));
  dlua_status status = go((Affine<C> *)block);
  dlua_free(a->device, block, bytes);
  return status;
}

} // namespace

extern "C" dlua_status dlua_gpu_batch_norm(const dlua_args *a) {
  DLUA_TRY(with_float(a->in[X], [&](auto type) {
    using T = decltype(type);
    return with_affine<compute_t<T>>(a, a->in[X]->size[1],
                                     [&](auto *affine) { return forward<T>(a, affine); });
  }));
  for (int k = RUNNING_MEAN; k <= RUNNING_VAR && a->num[TRAINING].i; k++)
    if (a->in[k]) a->in[k]->storage->version++;
  return DLUA_OK;
}

extern "C" dlua_status dlua_gpu_batch_norm_grad(const dlua_args *a) {
  return with_float(a->in[GRAD_X], [&](auto type) {
    using T = decltype(type);
    return with_affine<compute_t<T>>(a, a->in[GRAD_X]->size[1],
                                     [&](auto *affine) { return backward<T>(a, affine); });
  });
}
