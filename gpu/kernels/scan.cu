// scan.cu - running sums and products along a dimension, and linear recurrences. All three are runs
// of an associative operation, in double or 64-bit integers: of a recurrence y = b + x y the maps are
// composed. A warp takes a row that lies side by side, a thread one of rows that lie across memory.
// Few long rows are cut into chunks: their totals first, then those scanned, then the chunks anew,
// each from what came before it. The cuts depend on the shape alone, and so does the result.
#include "move.h"
#include "walk.h"

namespace {

// Lines along one dimension of contiguous tensors, entries inner apart, cut into chunks.
struct Lines {
  int64_t count, n, inner, chunk, chunks;
  bool reverse;
};

__device__ inline int64_t element_of(const Lines &s, int64_t line, int64_t j) {
  int64_t start = line / s.inner * s.inner * s.n + line % s.inner;
  return start + (s.reverse ? s.n - 1 - j : j) * s.inner;
}

// ---------------------------------------------------------------- operations

struct Arrays {
  const char *x, *b;
  char *y;
  uint8_t from, to; // dtypes
  int64_t x_width, y_width;
};

template <class C> __device__ inline C read(const Arrays &p, const char *x, int64_t k) {
  return load_as<C>(x + k * p.x_width, p.from);
}

template <class C> struct Add {
  using Value = C;
  Arrays p;
  __device__ C none() const { return 0; }
  __device__ C load(const Lines &, int64_t at, int64_t) const { return read<C>(p, p.x, at); }
  __device__ C join(C before, C after) const { return before + after; }
  __device__ C shift(C v, int by) const { return __shfl_up_sync(~0u, v, by); }
  __device__ C from_lane(C v, int lane) const { return __shfl_sync(~0u, v, lane); }
  __device__ void store(int64_t at, C v) const { store_as(p.y + at * p.y_width, p.to, v); }
};

template <class C> struct Multiply : Add<C> {
  __device__ C none() const { return 1; }
  __device__ C join(C before, C after) const { return before * after; }
};

// y = offset + factor * (the y before).
struct Map {
  double factor, offset;
};

struct Recur {
  using Value = Map;
  Arrays p;
  __device__ Map none() const { return {1, 0}; }
  // Forwards the factor is this element's, backwards the next one's; the first has none.
  __device__ Map load(const Lines &s, int64_t at, int64_t j) const {
    double factor = j == 0 ? 0 : read<double>(p, p.x, s.reverse ? at + s.inner : at);
    return {factor, read<double>(p, p.b, at)};
  }
  __device__ Map join(Map before, Map after) const {
    return {before.factor * after.factor, after.factor * before.offset + after.offset};
  }
  __device__ Map shift(Map v, int by) const {
    return {__shfl_up_sync(~0u, v.factor, by), __shfl_up_sync(~0u, v.offset, by)};
  }
  __device__ Map from_lane(Map v, int lane) const {
    return {__shfl_sync(~0u, v.factor, lane), __shfl_sync(~0u, v.offset, lane)};
  }
  __device__ void store(int64_t at, Map v) const { store_as(p.y + at * p.y_width, p.to, v.offset); }
};

// ---------------------------------------------------------------- kernels

// Every lane's value joined with those of the lanes before it.
template <class Op>
__device__ inline typename Op::Value scan_warp(const Op &op, typename Op::Value v, int lane) {
  for (int by = 1; by < WARP; by *= 2) {
    auto before = op.shift(v, by);
    if (lane >= by) v = op.join(before, v);
  }
  return v;
}

// A warp per chunk of a row. totals: where the chunk's total goes, or with `finish` what came before
// it is found.
template <class Op>
__global__ void scan_rows(Lines s, Op op, typename Op::Value *totals, bool finish) {
  int lane = threadIdx.x % WARP;
  for (int64_t k = first_index() / WARP; k < s.count * s.chunks; k += all_threads() / WARP) {
    int64_t line = k / s.chunks, c = k - line * s.chunks, start = c * s.chunk;
    int64_t end = start + s.chunk < s.n ? start + s.chunk : s.n;
    bool any = finish && c > 0;
    typename Op::Value carry = any ? totals[k] : op.none();
    for (int64_t j = start; j < end; j += WARP) {
      bool mine = j + lane < end;
      int64_t at = mine ? element_of(s, line, j + lane) : 0;
      auto v = scan_warp(op, mine ? op.load(s, at, j + lane) : op.none(), lane);
      if (any) v = op.join(carry, v);
      if (mine && finish) op.store(at, v);
      carry = op.from_lane(v, end - j < WARP ? (int)(end - j) - 1 : WARP - 1), any = true;
    }
    if (!finish && lane == 0) totals[k] = carry;
  }
}

// A thread per chunk of a line; neighbours have neighbouring lines.
template <class Op>
__global__ void scan_columns(Lines s, Op op, typename Op::Value *totals, bool finish) {
  for (int64_t k = first_index(); k < s.count * s.chunks; k += all_threads()) {
    int64_t column = k % s.inner, c = k / s.inner % s.chunks;
    int64_t line = k / s.inner / s.chunks * s.inner + column, start = c * s.chunk;
    int64_t end = start + s.chunk < s.n ? start + s.chunk : s.n;
    bool any = finish && c > 0;
    typename Op::Value carry = any ? totals[line * s.chunks + c] : op.none();
    for (int64_t j = start; j < end; j++) {
      int64_t at = element_of(s, line, j);
      auto v = op.load(s, at, j);
      carry = any ? op.join(carry, v) : v, any = true;
      if (finish) op.store(at, carry);
    }
    if (!finish) totals[line * s.chunks + c] = carry;
  }
}

// A warp per line: every total becomes what comes before its chunk; the first is left out.
template <class Op> __global__ void scan_totals(Lines s, Op op, typename Op::Value *totals) {
  int lane = threadIdx.x % WARP;
  for (int64_t line = first_index() / WARP; line < s.count; line += all_threads() / WARP) {
    typename Op::Value carry = op.none(), *own = totals + line * s.chunks;
    for (int64_t c = 0; c < s.chunks; c += WARP) {
      bool mine = c + lane < s.chunks;
      auto v = scan_warp(op, mine ? own[c + lane] : op.none(), lane);
      if (c > 0) v = op.join(carry, v);
      auto before = op.shift(v, 1);
      if (mine && c + lane > 0) own[c + lane] = lane == 0 ? carry : before;
      carry = op.from_lane(v, WARP - 1);
    }
  }
}

// ---------------------------------------------------------------- laying out

constexpr int64_t ROW_CHUNK = 1024, COLUMN_CHUNK = 64, MOST_CHUNKS = 4096;

// Lines are cut where there are too few to keep the device busy.
Lines lines_of(const dlua_args *a, int64_t dim) {
  const dlua_tensor *x = a->in[0];
  Lines s = {.n = extent_of(x, dim), .inner = 1, .chunks = 1};
  for (int64_t d = dim + 1; d < x->ndim; d++) s.inner *= x->size[d];
  s.count = s.n > 0 ? dlua_numel(x) / s.n : 0, s.chunk = s.n;
  bool rows = s.inner == 1;
  int64_t least = rows ? ROW_CHUNK : COLUMN_CHUNK, threads = s.count * (rows ? WARP : 1);
  if (s.n > 4 * least && threads < MOST_BLOCKS * (int64_t)THREADS / 8) {
    int64_t even = (s.n + MOST_CHUNKS - 1) / MOST_CHUNKS;
    s.chunk = even < least ? least : even;
    s.chunks = (s.n + s.chunk - 1) / s.chunk;
  }
  return s;
}

template <class Op> dlua_status run_scan(const dlua_args *a, const Lines &s, const Op &op) {
  using Value = typename Op::Value;
  bool rows = s.inner == 1;
  auto kernel = rows ? scan_rows<Op> : scan_columns<Op>;
  unsigned blocks = blocks_for(s.count * s.chunks * (rows ? WARP : 1));
  Scratch totals;
  if (s.chunks > 1) {
    DLUA_TRY(totals.take(a, (size_t)(s.count * s.chunks) * sizeof(Value)));
    DLUA_TRY(launch(a, kernel, blocks, THREADS, s, op, totals.as<Value>(), false));
    DLUA_TRY(
        launch(a, scan_totals<Op>, blocks_for(s.count * WARP), THREADS, s, op, totals.as<Value>()));
  }
  return launch(a, kernel, blocks, THREADS, s, op, totals.as<Value>(), true);
}

Arrays arrays_of(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  return {data<char>(x), a->nin > 1 ? data<char>(a->in[1]) : nullptr,
          data<char>(y), x->dtype,
          y->dtype,      width_of(x),
          width_of(y)};
}

template <template <class> class Op> dlua_status accumulate(const dlua_args *a) {
  Lines s = lines_of(a, a->num[0].i);
  if (dlua_is_float((dlua_dtype)a->in[0]->dtype)) return run_scan(a, s, Op<double>{arrays_of(a)});
  return run_scan(a, s, Op<uint64_t>{arrays_of(a)}); // wraps around, as in `+`
}

} // namespace

extern "C" dlua_status dlua_gpu_cumsum(const dlua_args *a) { return accumulate<Add>(a); }
extern "C" dlua_status dlua_gpu_cumprod(const dlua_args *a) { return accumulate<Multiply>(a); }

extern "C" dlua_status dlua_gpu_linear_scan(const dlua_args *a) {
  Lines s = lines_of(a, a->num[0].i);
  s.reverse = a->num[1].i != 0;
  return run_scan(a, s, Recur{arrays_of(a)});
}
