// optim.cu - one launch for all parameters of a step: a batch of them travels with the launch, blocks
// find their parameter by its first block. Formulas as in runtime/cpu/simd/optim_loops.h.
#include "../optim.h"

#include "reduce.h"

extern "C" {
#include "../../runtime/optim_factors.h"
}

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

template <class T> __host__ __device__ Factors<T> factors_as(const dlua_factors &f) {
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

// A step as all its parameters take it. verdict: not 0 where nothing is to be changed, or NULL.
// skipped: for each place how many of the steps were left out, or NULL; they are not of those that
// the options of Adam and Adagrad count, nor is the first of them momentum's first.
template <class T> struct Step {
  dlua_optim o;
  int64_t number;
  Factors<T> f; // of that number
  const float *verdict;
  int64_t *skipped;
};

template <class T> __device__ Factors<T> factors_after(const Step<T> &s, int64_t skipped) {
  __shared__ Factors<T> late;
  if (threadIdx.x == 0) late = factors_as<T>(dlua_optim_factors(&s.o, s.number - skipped));
  __syncthreads();
  return late;
}

template <class T, void RULE(T *, T, T *, T *, T *, const Factors<T> &)>
__global__ void step(Batch batch, Step<T> s) {
  const Item &item = item_of(batch);
  int64_t *skipped = s.skipped ? s.skipped + (int)item.place - 1 : nullptr;
  if (s.verdict && *s.verdict != 0) {
    if (skipped && blockIdx.x == item.first && threadIdx.x == 0) ++*skipped;
    return;
  }
  T *p = (T *)item.p, *a = (T *)item.slot[0], *b = (T *)item.slot[1], *c = (T *)item.slot[2];
  const T *g = (const T *)item.g;
  const Factors<T> f = skipped && *skipped != 0 ? factors_after(s, *skipped) : s.f;
  each(item, [&](int64_t i) { RULE(p + i, g[i], a + i, b + i, c + i, f); });
}

template <class T>
dlua_status launch_step(const dlua_args *a, const Batch &batch, const Step<T> &s) {
  auto kernel = s.o.rule == DLUA_SGD       ? step<T, sgd<T>>
                : s.o.rule == DLUA_ADAM    ? step<T, adam<T>>
                : s.o.rule == DLUA_RMSPROP ? step<T, rmsprop<T>>
                                           : step<T, adagrad<T>>;
  return launch(a, kernel, batch.blocks, THREADS, batch, s);
}

template <class T>
dlua_status run_step(const dlua_args *a, const dlua_optim &o, int64_t number, int n,
                     const dlua_pass *passes, const float *verdict, int64_t *skipped) {
  Step<T> s = {o, number, factors_as<T>(dlua_optim_factors(&o, number)), verdict, skipped};
  for (int k = 0; k < n; k += MOST) DLUA_TRY(launch_step(a, batch_from(k, n, passes), s));
  return DLUA_OK;
}

// ---------------------------------------------------------------- looking

// Raises the verdict to the place of a parameter whose gradient is not finite. Places are positive
// floats, which compare as their bits do. With scale, gradients are divided by it on the way.
template <class T> __global__ void look(Batch batch, const float *scale, float *verdict) {
  const Item &item = item_of(batch);
  T *g = (T *)const_cast<void *>(item.g), factor = scale ? T(1 / double(*scale)) : T(1);
  bool fine = true;
  each(item, [&](int64_t i) {
    T x = g[i];
    fine &= x - x == T(0);
    if (scale) g[i] = x * factor;
  });
  if (!fine) atomicMax((int *)verdict, __float_as_int(item.place));
}

template <class T>
dlua_status run_look(const dlua_args *a, int n, const dlua_pass *passes, const float *scale,
                     float *verdict) {
  for (int k = 0; k < n; k += MOST) {
    Batch batch = batch_from(k, n, passes);
    DLUA_TRY(launch(a, look<T>, batch.blocks, THREADS, batch, scale, verdict));
  }
  return DLUA_OK;
}

// How the loss is scaled after a step, calculated as on the CPU.
template <class T>
__global__ void next_scale(const T *scale, const T *good, const T *found, double growth,
                           double backoff, double interval, T *next, T *count) {
  bool bad = *found != T(0), grows = !bad && *good + T(1) >= T(interval);
  T grown = T(double(*scale) * growth), lower = T(double(*scale) * backoff);
  *count = bad || grows ? T(0) : *good + T(1);
  *next = bad                              ? (lower > T(0x1p-126) ? lower : T(0x1p-126))
          : grows && grown - grown == T(0) ? grown
                                           : *scale;
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

dlua_status dlua_gpu_step(dlua_device *device, const dlua_optim *o, dlua_dtype dtype, int64_t step,
                          int n, const dlua_pass *passes, dlua_tensor *verdict,
                          dlua_tensor *skipped) {
  static const dlua_op op = {.name = "step"};
  dlua_args a = named(&op, device);
  auto run = dtype == DLUA_F32 ? run_step<float> : run_step<double>;
  return run(&a, *o, step, n, passes, data<float>(verdict), data<int64_t>(skipped));
}

dlua_status dlua_gpu_look(dlua_device *device, dlua_dtype dtype, int n, const dlua_pass *passes,
                          const dlua_tensor *scale, dlua_tensor *verdict) {
  static const dlua_op op = {.name = "step"};
  dlua_args a = named(&op, device);
  auto run = dtype == DLUA_F32 ? run_look<float> : run_look<double>;
  return run(&a, n, passes, data<float>(scale), data<float>(verdict));
}

extern "C" dlua_status dlua_gpu_loss_scale(const dlua_args *a) {
  return with_float(a->out[0], [&](auto type) {
    using T = compute_t<decltype(type)>; // bf16 and f16 arrive as float
    return launch(a, next_scale<T>, 1, 1, data<T>(a->in[0]), data<T>(a->in[1]), data<T>(a->in[2]),
                  a->num[0].f, a->num[1].f, (double)a->num[2].i, data<T>(a->out[0]),
                  data<T>(a->out[1]));
  });
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
