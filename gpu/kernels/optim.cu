// optim.cu - one launch for all parameters of a step: a batch of them travels with the launch, blocks
// find their parameter by its first block. Formulas as in runtime/cpu/simd/optim_loops.h.
#include "../optim.h"

#include "reduce.h"

namespace {

constexpr int PIECE = 4096; // elements of one block
constexpr int MOST = 256;   // parameters of one launch: its arguments stay below 32 KB

struct Item {
  void *p, *slot[DLUA_OPTIM_SLOTS];
  const void *g;
  int64_t count;
  unsigned first; // its first block
  float place;
};

struct Batch {
  int n;
  unsigned blocks;
  Item item[MOST];
};

// Takes parameters from `from` on into a batch.
Batch batch_from(int from, int n, const dlua_pass *passes) {
  Batch b;
  b.n = 0, b.blocks = 0;
  for (int k = from; k < n && b.n < MOST; k++) {
    Item *item = &b.item[b.n++];
    item->p = passes[k].p, item->g = passes[k].g, item->count = passes[k].count;
    for (int j = 0; j < DLUA_OPTIM_SLOTS; j++) item->slot[j] = passes[k].slot[j];
    item->first = b.blocks, item->place = (float)passes[k].place;
    b.blocks += (unsigned)((item->count + PIECE - 1) / PIECE);
  }
  return b;
}

// The parameter of this block: the last one that starts at or before it and is not empty.
__device__ const Item &item_of(const Batch &b) {
  int low = 0, high = b.n - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (b.item[middle].first <= blockIdx.x)
      low = middle;
    else
      high = middle - 1;
  }
  return b.item[low];
}

// Calls f for every element of this block's piece.
template <class F> __device__ void each(const Item &item, const F &f) {
  int64_t from = (int64_t)(blockIdx.x - item.first) * PIECE;
  int64_t to = from + PIECE < item.count ? from + PIECE : item.count;
  for (int64_t i = from + threadIdx.x; i < to; i += THREADS) f(i);
}

// ---------------------------------------------------------------- steps

template <class T> struct Factors {
  T sign, shrink, decay, lr, keep, add, keep2, add2, momentum, root, eps;
  bool velocity, nesterov, amsgrad, centered;
};

template <class T> Factors<T> factors_as(const dlua_factors &f) {
  return {T(f.sign), T(f.shrink), T(f.decay), T(f.lr),       T(f.keep),
          T(f.add),  T(f.keep2),  T(f.add2),  T(f.momentum), T(f.root),
          T(f.eps),  f.velocity,  f.nesterov, f.amsgrad,     f.centered};
}

template <class T> __device__ void sgd(T *p, T g, T *a, T *, T *, const Factors<T> &f) {
  T d = f.sign * g + f.decay * *p;
  if (f.velocity) {
    T v = *a = f.keep * *a + f.add * d;
    d = f.nesterov ? d + f.momentum * v : v;
  }
  *p -= f.lr * d;
}

template <class T> __device__ void adam(T *p, T g, T *a, T *b, T *c, const Factors<T> &f) {
  T w = f.shrink * *p, d = f.sign * g + f.decay * w;
  T mean = *a += f.add * (d - *a);
  T square = *b = f.keep2 * *b + f.add2 * d * d;
  if (f.amsgrad) square = *c = *c > square ? *c : square;
  *p = w - f.lr * mean / (sqrt(square) * f.root + f.eps);
}

template <class T> __device__ void rmsprop(T *p, T g, T *a, T *b, T *c, const Factors<T> &f) {
  T d = f.sign * g + f.decay * *p;
  T variance = *a = f.keep * *a + f.add * d * d;
  if (f.centered) {
    T mean = *b += f.add * (d - *b);
    variance -= mean * mean;
  }
  T direction = d / (sqrt(variance) + f.eps);
  if (f.velocity) direction = *c = f.momentum * *c + direction;
  *p -= f.lr * direction;
}

template <class T> __device__ void adagrad(T *p, T g, T *a, T *, T *, const Factors<T> &f) {
  T d = f.sign * g + f.decay * *p;
  T sum = *a += d * d;
  *p -= f.lr * d / (sqrt(sum) + f.eps);
}

// verdict: not 0 where a gradient was not finite; NULL without the guard.
template <class T, void RULE(T *, T, T *, T *, T *, const Factors<T> &)>
__global__ void step(Batch batch, Factors<T> f, const float *verdict) {
  if (verdict && *verdict != 0) return;
  const Item &item = item_of(batch);
  T *p = (T *)item.p, *a = (T *)item.slot[0], *b = (T *)item.slot[1], *c = (T *)item.slot[2];
  const T *g = (const T *)item.g;
  each(item, [&](int64_t i) { RULE(p + i, g[i], a + i, b + i, c + i, f); });
}

// Raises the verdict to the place of a parameter whose gradient is not finite. Places are positive
// floats, which compare as their bits do.
template <class T> __global__ void guard(Batch batch, float *verdict) {
  const Item &item = item_of(batch);
  const T *g = (const T *)item.g;
  bool fine = true;
  each(item, [&](int64_t i) { fine &= g[i] - g[i] == T(0); });
  if (!fine) atomicMax((int *)verdict, __float_as_int(item.place));
}

template <class T>
dlua_status launch_step(const dlua_args *a, dlua_rule rule, const Batch &batch, const Factors<T> &f,
                        const float *verdict) {
  auto kernel = rule == DLUA_SGD       ? step<T, sgd<T>>
                : rule == DLUA_ADAM    ? step<T, adam<T>>
                : rule == DLUA_RMSPROP ? step<T, rmsprop<T>>
                                       : step<T, adagrad<T>>;
  return launch(a, kernel, batch.blocks, THREADS, batch, f, verdict);
}

template <class T>
dlua_status run_step(const dlua_args *a, dlua_rule rule, const dlua_factors &f, int n,
                     const dlua_pass *passes, float *verdict) {
  for (int k = 0; k < n && verdict; k += MOST) {
    Batch batch = batch_from(k, n, passes);
    DLUA_TRY(launch(a, guard<T>, batch.blocks, THREADS, batch, verdict));
  }
  for (int k = 0; k < n; k += MOST)
    DLUA_TRY(launch_step<T>(a, rule, batch_from(k, n, passes), factors_as<T>(f), verdict));
  return DLUA_OK;
}

// ---------------------------------------------------------------- norms

// Joins magnitudes, or their powers: the largest where p is infinite, with a NaN above all, else the
// sum.
struct Norm {
  using State = double;
  double p;
  bool largest;
  __device__ void join(State *s, State x) const {
    if (largest)
      *s = x > *s || x != x ? x : *s;
    else
      *s += x;
  }
  __device__ double power(double x) const { return largest ? x : p == 2 ? x * x : pow(x, p); }
  __device__ double root(double s) const { return largest ? s : p == 2 ? sqrt(s) : pow(s, 1 / p); }
};

// The powers of each block's gradients joined.
template <class T> __global__ void norm_pieces(Batch batch, Norm norm, double *partial) {
  const Item &item = item_of(batch);
  const T *g = (const T *)item.g;
  double mine = 0;
  each(item, [&](int64_t i) { norm.join(&mine, norm.power(fabs(double(g[i])))); });
  mine = join_lanes(norm, mine, THREADS);
  if (threadIdx.x == 0) partial[blockIdx.x] = mine;
}

__global__ void norm_finish(const double *partial, int64_t n, Norm norm, float *result) {
  double mine = 0;
  for (int64_t k = threadIdx.x; k < n; k += THREADS) norm.join(&mine, partial[k]);
  mine = join_lanes(norm, mine, THREADS);
  if (threadIdx.x == 0) *result = float(norm.root(mine));
}

template <class T> __global__ void scale_pieces(Batch batch, const float *norm, double max_norm) {
  double factor = max_norm / (double(*norm) + 1e-6);
  if (*norm - *norm != 0 || factor >= 1) return;
  const Item &item = item_of(batch);
  T *g = (T *)const_cast<void *>(item.g);
  each(item, [&](int64_t i) { g[i] *= T(factor); });
}

template <class T>
dlua_status run_clip(const dlua_args *a, int n, const dlua_pass *passes, double p, double max_norm,
                     float *norm, double *partial) {
  int64_t pieces = 0;
  Norm f = {p, p - p != 0};
  for (int k = 0; k < n; k += MOST) {
    Batch batch = batch_from(k, n, passes);
    DLUA_TRY(launch(a, norm_pieces<T>, batch.blocks, THREADS, batch, f, partial + pieces));
    pieces += batch.blocks;
  }
  DLUA_TRY(launch(a, norm_finish, 1, THREADS, partial, pieces, f, norm));
  for (int k = 0; k < n; k += MOST) {
    Batch batch = batch_from(k, n, passes);
    DLUA_TRY(launch(a, scale_pieces<T>, batch.blocks, THREADS, batch, norm, max_norm));
  }
  return DLUA_OK;
}

// What launches name in their errors.
dlua_args named(const dlua_op *op, dlua_device *device) {
  dlua_args a = {};
  a.op = op, a.device = device;
  return a;
}

} // namespace

dlua_status dlua_gpu_step(dlua_device *device, dlua_rule rule, dlua_dtype dtype,
                          const dlua_factors *f, int n, const dlua_pass *passes,
                          dlua_tensor *verdict) {
  static const dlua_op op = {.name = "step"};
  dlua_args a = named(&op, device);
  return dtype == DLUA_F32 ? run_step<float>(&a, rule, *f, n, passes, data<float>(verdict))
                           : run_step<double>(&a, rule, *f, n, passes, data<float>(verdict));
}

dlua_status dlua_gpu_clip(dlua_device *device, dlua_dtype dtype, int n, const dlua_pass *passes,
                          double p, double max_norm, dlua_tensor *norm) {
  static const dlua_op op = {.name = "clip_grad_norm_"};
  dlua_args a = named(&op, device);
  size_t bytes = sizeof(double);
  for (int k = 0; k < n; k++) bytes += sizeof(double) * ((passes[k].count + PIECE - 1) / PIECE);
  void *partial = nullptr;
  DLUA_TRY(dlua_alloc(device, bytes, &partial));
  float *out = data<float>(norm);
  dlua_status status = dtype == DLUA_F32
                           ? run_clip<float>(&a, n, passes, p, max_norm, out, (double *)partial)
                           : run_clip<double>(&a, n, passes, p, max_norm, out, (double *)partial);
  dlua_free(device, partial, bytes);
  return status;
}
