// reduce.h - folds of a tensor's elements into one state per result.
//
//   template <class C> struct Count : Plain {
//     using State = int64_t;
//     Result y;
//     __device__ State first() const { return 0; }
//     __device__ void add(State *s, C x, int64_t at, None) const { *s += x != C(0); }
//     __device__ void join(State *s, const State &other) const { *s += other; }
//     __device__ void finish(const State &s, int64_t o, None) const { y.put(o, s); }
//   };
//   with_loader(x, [&](auto load) {
//     return fold(a, reduction, load, Count<typename decltype(load)::C>{{}, result_of(y)});
//   });
//
// A loader gives elements by their offset; a folder says what becomes of them. Threads lie along the
// reduced elements where those are next to each other (1 to 32 lanes or a whole block per result),
// else along the kept ones. Few results of many elements are cut into pieces by their shape alone,
// whose states a second kernel joins: the whole GPU works, and the bits are the same each time.
// Refused: atomics on floats, and large states.
#ifndef DLUA_GPU_REDUCE_H
#define DLUA_GPU_REDUCE_H

#include <type_traits>

#include "pointwise.h"

// ---------------------------------------------------------------- loaders

// Elements of a float type; W of them as one 16-byte access, or one.
template <class T> struct Elements {
  using C = compute_t<T>;
  static constexpr int WIDTH = sizeof(T) == 8 ? 1 : Pack<T>::WIDTH;
  const T *x;
  template <int W> __device__ void get(int64_t at, C (&v)[W]) const {
    if constexpr (W == 1) {
      v[0] = widen(x[at]);
    } else {
      Pack<T> pack = *(const Pack<T> *)(x + at);
      for (int i = 0; i < W; i++) v[i] = widen(pack.element[i]);
    }
  }
  bool aligned() const { return (uintptr_t)x % 16 == 0; }
};

template <class T> __device__ inline T from_bits(uint16_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// bf16 and f16 in one kernel: what their bits mean is the same question for all threads.
struct Halves {
  using C = float;
  static constexpr int WIDTH = 8;
  const uint16_t *x;
  bool bf;
  __device__ float value(uint16_t bits) const {
    return bf ? float(from_bits<bf16>(bits)) : float(from_bits<f16>(bits));
  }
  template <int W> __device__ void get(int64_t at, float (&v)[W]) const {
    if constexpr (W == 1) {
      v[0] = value(x[at]);
    } else {
      Pack<uint16_t> pack = *(const Pack<uint16_t> *)(x + at);
      for (int i = 0; i < W; i++) v[i] = value(pack.element[i]);
    }
  }
  bool aligned() const { return (uintptr_t)x % 16 == 0; }
};

// Integers and bool of any width.
struct Integers {
  using C = int64_t;
  static constexpr int WIDTH = 1;
  const char *x;
  int64_t size;
  uint8_t dtype;
  template <int W> __device__ void get(int64_t at, int64_t (&v)[W]) const {
    v[0] = load_as<int64_t>(x + at * size, dtype);
  }
};

template <int TYPES = ALL_TYPES, class F> dlua_status with_loader(const dlua_tensor *x, F f) {
  switch (x->dtype) {
  case DLUA_F32: return f(Elements<float>{data<float>(x)});
  case DLUA_F64: return f(Elements<double>{data<double>(x)});
  case DLUA_BF16:
  case DLUA_F16: return f(Halves{data<uint16_t>(x), x->dtype == DLUA_BF16});
  default: break;
  }
  if constexpr (TYPES & INTEGERS) {
    int64_t size = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
    return f(Integers{data<char>(x), size, x->dtype});
  }
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s tensors are not accepted",
                   dlua_dtype_name((dlua_dtype)x->dtype));
}

// ---------------------------------------------------------------- folders

// What a folder wants to know of a result before its first element: nothing.
struct None {};

struct Plain {
  static constexpr int AHEAD = 1; // rows of columns that are asked for at once
  template <class L> __device__ None origin(const L &, int64_t, int64_t) const { return {}; }
};

// Float sums are kept in double: two instructions more where memory is what is waited for.
template <class C> struct Adds : Plain {
  using State = std::conditional_t<std::is_integral<C>::value, uint64_t, double>;
  static constexpr int AHEAD = 4;
  __device__ State first() const { return 0; }
  __device__ void add(State *s, C x, int64_t, None) const { *s += State(x); }
  __device__ void join(State *s, const State &other) const { *s += other; }
};

// A contiguous result, element by element.
struct Result {
  char *y;
  int64_t size;
  uint8_t dtype;
  template <class R> __device__ void put(int64_t o, R value) const {
    store_as(y + o * size, dtype, value);
  }
};

inline Result result_of(const dlua_tensor *y) {
  return {data<char>(y), (int64_t)dlua_dtype_size((dlua_dtype)y->dtype), y->dtype};
}

// The sum of all elements; of floats times a factor.
template <class C> struct Sum : Adds<C> {
  Result y;
  double scale;
  Sum(const Result &y, double scale) : y(y), scale(scale) {}
  Sum(const dlua_tensor *out, double scale) : Sum(result_of(out), scale) {}
  __device__ void finish(const typename Adds<C>::State &s, int64_t o, None) const {
    if constexpr (std::is_integral<C>::value)
      y.put(o, int64_t(s));
    else
      y.put(o, s * scale);
  }
};

// ---------------------------------------------------------------- sums of exponentials

// The largest x so far, and the sum of exp(x - largest), where an infinite one is not subtracted. A
// nan never is the largest, but makes the sum one.
template <class C> struct Exponents {
  struct State {
    double sum;
    C top;
  };
  __device__ static C shift(C top) { return top - top == C(0) ? top : C(0); }
  __device__ State first() const { return {0, C(-INFINITY)}; }
  __device__ void raise(State *s, C top) const {
    if (!(top > s->top)) return;
    if (s->sum != 0) s->sum *= exp(shift(s->top) - shift(top));
    s->top = top;
  }
  template <int W> __device__ void add_some(State *s, const C (&x)[W]) const {
    C top = x[0];
    for (int i = 1; i < W; i++) top = x[i] > top || top != top ? x[i] : top;
    raise(s, top);
    for (int i = 0; i < W; i++) s->sum += exp(x[i] - shift(s->top));
  }
  __device__ void join(State *s, const State &other) const {
    State rest = other;
    raise(s, rest.top), raise(&rest, s->top);
    s->sum += rest.sum;
  }
  // The sum of exp(x - largest) with nothing left out: a row whose largest is infinite has none.
  __device__ static double sum_of(const State &s) {
    return s.top - s.top == C(0) ? s.sum : double(NAN);
  }
};

// ---------------------------------------------------------------- joining threads

template <class S> __device__ inline S from_lane(S s, int mask) {
  using Word = std::conditional_t<sizeof(S) % 8 == 0, unsigned long long, unsigned>;
  static_assert(sizeof(S) % sizeof(Word) == 0 && sizeof(S) <= 24);
  Word words[sizeof(S) / sizeof(Word)];
  memcpy(words, &s, sizeof s);
  for (Word &word : words) word = __shfl_xor_sync(~0u, word, mask);
  memcpy(&s, words, sizeof s);
  return s;
}

// The states of `lanes` neighbours (a power of two up to 32, or THREADS: the block) become one, which
// all of them get. Every thread of the block must come.
template <class F>
__device__ inline typename F::State join_lanes(const F &f, typename F::State s, int lanes) {
  using State = typename F::State;
  for (int mask = (lanes < WARP ? lanes : WARP) / 2; mask > 0; mask /= 2)
    f.join(&s, from_lane(s, mask));
  if (lanes <= WARP) return s;
  __shared__ State warps[THREADS / WARP];
  __syncthreads();
  if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = s;
  __syncthreads();
  s = warps[0];
  for (int k = 1; k < THREADS / WARP; k++) f.join(&s, warps[k]);
  return s;
}

// ---------------------------------------------------------------- kernels

// Steps are what a thread does at once: W reduced elements of a row, or one row of W columns.
struct Fold {
  dlua_reduction r;
  int64_t steps, pieces, length; // length: steps of a piece
  int64_t width, strips;         // columns: innermost kept size, blocks it takes
  int lanes;                     // rows: threads of a result
};

__device__ inline int64_t offset_of(int ndim, const int64_t *size, const int64_t *stride,
                                    int64_t k) {
  int64_t offset = 0;
  if (ndim == 0) return 0;
  for (int d = ndim - 1; d > 0; d--) {
    int64_t rest = quotient(k, size[d]);
    offset += (k - rest * size[d]) * stride[d];
    k = rest;
  }
  return offset + k * stride[0];
}

template <class F, class O>
__device__ inline void put(const Fold &g, const F &f, const typename F::State &s, int64_t o,
                           int64_t piece, O origin, typename F::State *partials) {
  if (g.pieces == 1)
    f.finish(s, o, origin);
  else
    partials[piece * g.r.outputs + o] = s;
}

template <int W, class L, class F>
__global__ void fold_rows(Fold g, L load, F f, typename F::State *partials) {
  int per_block = THREADS / g.lanes, lane = (int)threadIdx.x % g.lanes;
  int64_t units = g.r.outputs * g.pieces, stride = (int64_t)gridDim.x * per_block;
  for (int64_t first = (int64_t)blockIdx.x * per_block; first < units; first += stride) {
    int64_t unit = first + threadIdx.x / g.lanes, o = unit / g.pieces, piece = unit % g.pieces;
    typename F::State s = f.first();
    decltype(f.origin(load, 0, 0)) origin = {};
    if (unit < units && g.steps > 0) {
      int64_t start = offset_of(g.r.nkept, g.r.kept, g.r.kept_stride, o);
      int64_t end = (piece + 1) * g.length < g.steps ? (piece + 1) * g.length : g.steps;
      origin = f.origin(load, start, o);
      for (int64_t k = piece * g.length + lane; k < end; k += g.lanes) {
        typename L::C v[W];
        load.get(start + offset_of(g.r.nreduced, g.r.reduced, g.r.reduced_stride, k * W), v);
        for (int i = 0; i < W; i++) f.add(&s, v[i], k * W + i, origin);
      }
    }
    s = join_lanes(f, s, g.lanes);
    if (unit < units && lane == 0) put(g, f, s, o, piece, origin, partials);
  }
}

// Blocks are blockDim.x times W columns wide; threads above each other share a column's rows. For
// wide states a block has too few threads to keep memory busy with a row each.
template <int W, class L, class F>
__global__ void fold_columns(Fold g, L load, F f, typename F::State *partials) {
  using State = typename F::State;
  constexpr int AHEAD = W == 1 ? 1 : F::AHEAD;
  __shared__ State cells[THREADS][W];
  const dlua_reduction &r = g.r;
  int64_t units = r.outputs / g.width * g.strips * g.pieces, step = r.kept_stride[r.nkept - 1];
  State *mine = cells[threadIdx.y * blockDim.x + threadIdx.x];
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    int64_t piece = unit % g.pieces, rest = unit / g.pieces, group = rest / g.strips;
    int64_t column = (rest % g.strips * blockDim.x + threadIdx.x) * W, o = group * g.width + column;
    int64_t start = offset_of(r.nkept - 1, r.kept, r.kept_stride, group) + column * step;
    int64_t end = (piece + 1) * g.length < g.steps ? (piece + 1) * g.length : g.steps;
    State s[W];
    decltype(f.origin(load, 0, 0)) origin[W] = {};
    for (int i = 0; i < W; i++) s[i] = f.first();
    if (column < g.width) {
      for (int i = 0; i < W; i++) origin[i] = f.origin(load, start + i * step, o + i);
      int64_t high = blockDim.y;
      for (int64_t k = piece * g.length + threadIdx.y; k < end; k += AHEAD * high) {
        typename L::C v[AHEAD][W];
        DLUA_UNROLL
        for (int u = 0; u < AHEAD; u++) {
          int64_t at = offset_of(r.nreduced, r.reduced, r.reduced_stride, k + u * high);
          if (k + u * high < end) load.get(start + at, v[u]);
        }
        DLUA_UNROLL
        for (int u = 0; u < AHEAD; u++) {
          for (int i = 0; i < W && k + u * high < end; i++)
            f.add(&s[i], v[u][i], k + u * high, origin[i]);
        }
      }
    }
    for (int i = 0; i < W; i++) mine[i] = s[i];
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
      __syncthreads();
      for (int i = 0; i < W && threadIdx.y < half; i++)
        f.join(&mine[i], mine[half * blockDim.x * W + i]);
    }
    for (int i = 0; i < W && threadIdx.y == 0 && column < g.width; i++)
      put(g, f, mine[i], o + i, piece, f.origin(load, start + i * step, o + i), partials);
    __syncthreads();
  }
}

// One warp per result joins its pieces.
template <class L, class F>
__global__ void fold_pieces(Fold g, L load, F f, const typename F::State *partials) {
  int lane = (int)threadIdx.x % WARP;
  int64_t warps = all_threads() / WARP;
  for (int64_t o = first_index() / WARP; o < g.r.outputs; o += warps) {
    typename F::State s = f.first();
    for (int64_t piece = lane; piece < g.pieces; piece += WARP)
      f.join(&s, partials[piece * g.r.outputs + o]);
    s = join_lanes(f, s, WARP);
    if (lane == 0)
      f.finish(s, o, f.origin(load, offset_of(g.r.nkept, g.r.kept, g.r.kept_stride, o), o));
  }
}

// ---------------------------------------------------------------- laying out

constexpr int64_t ENOUGH_BLOCKS = 132 * 8;

inline int power_of_two(int64_t n, int most) {
  int p = 1;
  while (p < n && p < most) p *= 2;
  return p;
}

// Cuts the steps of `units` blocks into pieces of at least `least` steps, if there are few blocks.
inline void cut(Fold *g, int64_t units, int64_t least) {
  int64_t wanted = units > 0 && units < ENOUGH_BLOCKS / 2 ? ENOUGH_BLOCKS / units : 1;
  int64_t most = g->steps / least;
  g->pieces = wanted < most ? wanted : most;
  if (g->pieces < 1) g->pieces = 1;
  g->length = (g->steps + g->pieces - 1) / g->pieces;
}

// Are all strides but the innermost of the group `along` multiples of W, and that one 1?
inline bool packs_fit(const dlua_reduction &r, bool along_kept, int W) {
  int n = along_kept ? r.nkept : r.nreduced;
  const int64_t *size = along_kept ? r.kept : r.reduced;
  const int64_t *stride = along_kept ? r.kept_stride : r.reduced_stride;
  if (n == 0 || stride[n - 1] != 1 || size[n - 1] % W != 0) return false;
  for (int d = 0; d < r.nkept - along_kept; d++)
    if (r.kept_stride[d] % W != 0) return false;
  for (int d = 0; d < r.nreduced - !along_kept; d++)
    if (r.reduced_stride[d] % W != 0) return false;
  return true;
}

// Is the innermost kept dimension closer together than the innermost reduced one?
inline bool kept_is_inner(const dlua_reduction &r) {
  if (r.nkept == 0 || r.nreduced == 0) return false;
  return llabs(r.kept_stride[r.nkept - 1]) < llabs(r.reduced_stride[r.nreduced - 1]);
}

template <int W, class L, class F>
dlua_status run_fold(const dlua_args *a, Fold g, bool columns, L load, F f) {
  using State = typename F::State;
  const dlua_reduction &r = g.r;
  dim3 blocks, threads(THREADS);
  if (columns) {
    g.width = r.kept[r.nkept - 1], g.steps = r.count;
    int wide = power_of_two(g.width / W, WARP), high = THREADS / wide;
    g.strips = (g.width / W + wide - 1) / wide;
    int64_t units = r.outputs / g.width * g.strips;
    cut(&g, units, high * 8);
    blocks = dim3((unsigned)(units * g.pieces < MOST_BLOCKS ? units * g.pieces : MOST_BLOCKS));
    threads = dim3(wide, high);
  } else {
    g.steps = r.count / W;
    g.lanes = g.steps > 16 * WARP ? THREADS : power_of_two(g.steps, WARP);
    if (g.lanes == THREADS)
      cut(&g, r.outputs, THREADS * 4);
    else
      g.pieces = 1, g.length = g.steps;
    blocks = dim3(blocks_for(r.outputs * g.pieces * g.lanes));
  }
  void *partials = nullptr;
  size_t bytes = (size_t)(r.outputs * g.pieces) * sizeof(State);
  if (g.pieces > 1) DLUA_TRY(dlua_alloc(a->device, bytes, &partials));
  dlua_status status = launch(a, columns ? fold_columns<W, L, F> : fold_rows<W, L, F>, blocks,
                              threads, g, load, f, (State *)partials);
  if (g.pieces > 1) {
    if (status == DLUA_OK)
      status = launch(a, fold_pieces<L, F>, blocks_for(r.outputs * WARP), THREADS, g, load, f,
                      (const State *)partials);
    dlua_free(a->device, partials, bytes);
  }
  return status;
}

// Folds what the loader gives at the offsets of the reduction; f.finish writes each result.
template <class L, class F>
dlua_status fold(const dlua_args *a, const dlua_reduction &r, L load, F f) {
  Fold g = {r};
  if (r.outputs == 0) return DLUA_OK;
  bool columns = r.count > 0 && kept_is_inner(r);
  if constexpr (L::WIDTH > 1) {
    if (load.aligned() && packs_fit(r, columns, L::WIDTH))
      return run_fold<L::WIDTH>(a, g, columns, load, f);
  }
  return run_fold<1>(a, g, columns, load, f);
}

// The reduction of a tensor's dimensions whose bits are set. sorted: in memory order, for folds that
// do not count positions.
inline dlua_reduction reduction_of(const dlua_tensor *x, unsigned dims, bool sorted) {
  dlua_reduction r;
  dlua_reduction_plan(&r, x, dims);
  if (sorted) dlua_reduction_sort(&r);
  return r;
}

// n values that a loader gives for 0 .. n - 1, into one.
inline dlua_reduction one_row(int64_t n) {
  dlua_reduction r = {};
  r.outputs = 1, r.count = n, r.nreduced = 1, r.reduced[0] = n, r.reduced_stride[0] = 1;
  return r;
}

#endif
