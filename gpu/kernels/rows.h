// rows.h - kernels that fold a row of elements and then write something for each of them: softmax,
// class losses and their gradients. A row is n elements that lie `inner` apart.
//
//   struct Scale {                               // y = x / sum of the row
//     static constexpr int W = 1;                // elements that are taken at once
//     using State = double;
//     struct Row {};
//     struct Item { float x; };
//     __device__ Row open(int64_t row) const;
//     __device__ Item load(const Row &, int64_t c, int64_t at) const; // element c, at this offset
//     __device__ State first() const;
//     __device__ void add(State *, const Item &) const;
//     __device__ void join(State *, const State &) const;
//     using Done = double;
//     __device__ Done close(const Row &, const State &) const; // what put needs of the row's state
//     __device__ void put(const Row &, int64_t c, int64_t at, const Item &, const Done &) const;
//   };
//
// Rows that lie in one piece are taken by 1 to 32 lanes or a block, rows side by side by a block of
// threads of which 32 stand next to each other. Up to HELD items of a thread stay in registers, so
// memory is read once; longer rows are read again, from the cache if they fit.
#ifndef DLUA_GPU_ROWS_H
#define DLUA_GPU_ROWS_H

#include "reduce.h"

struct Rows {
  int64_t rows, n, inner;
  int64_t units, strips; // blocks' worth of rows; of those, how many make up `inner`
  int lanes;             // threads of a row
  int wide;              // rows side by side in a block; 0: rows in one piece
};

// The row of this thread in a unit; false if there is none.
__device__ inline bool row_at(const Rows &g, int64_t unit, int64_t *row) {
  if (g.wide == 0) {
    *row = unit * (THREADS / g.lanes) + threadIdx.x / g.lanes;
    return *row < g.rows;
  }
  int64_t column = unit % g.strips * g.wide + threadIdx.x % g.wide;
  *row = unit / g.strips * g.inner + column;
  return column < g.inner;
}

__device__ inline int64_t row_start(const Rows &g, int64_t row) {
  return g.inner == 1 ? row * g.n : row / g.inner * g.inner * g.n + row % g.inner;
}

__device__ inline int lane_of(const Rows &g) {
  return g.wide == 0 ? (int)threadIdx.x % g.lanes : (int)threadIdx.x / g.wide;
}

// One state of all threads of a row, for all of them. Every thread of the block must come.
template <class F>
__device__ inline typename F::State join_row(const Rows &g, const F &f, typename F::State s) {
  if (g.wide == 0) return join_lanes(f, s, g.lanes);
  __shared__ typename F::State cells[THREADS];
  __syncthreads();
  cells[threadIdx.x] = s;
  for (int half = g.lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane_of(g) < half) f.join(&cells[threadIdx.x], cells[threadIdx.x + half * g.wide]);
  }
  __syncthreads();
  return cells[threadIdx.x % g.wide];
}

// ---------------------------------------------------------------- items

// A thread's items of a row: held, or loaded each time they are looked at.
constexpr int HELD = 4;

template <class Op, bool HOLDS> struct Items {
  typename Op::Item held[HOLDS ? HELD : 1];
  template <class Visit>
  __device__ void each(const Rows &g, const Op &op, const typename Op::Row &row, int64_t start,
                       bool again, Visit visit) {
    int64_t steps = g.n / Op::W, lane = lane_of(g);
    if constexpr (HOLDS) {
      DLUA_UNROLL
      for (int i = 0; i < HELD; i++) {
        int64_t c = (lane + i * g.lanes) * Op::W;
        if (!again && c < g.n) held[i] = op.load(row, c, start + c * g.inner);
      }
      DLUA_UNROLL
      for (int i = 0; i < HELD; i++) {
        int64_t c = (lane + i * g.lanes) * Op::W;
        if (c < g.n) visit(c, start + c * g.inner, held[i]);
      }
    } else {
      for (int64_t k = lane; k < steps; k += g.lanes) {
        int64_t c = k * Op::W, at = start + c * g.inner;
        visit(c, at, op.load(row, c, at));
      }
    }
  }
};

// The row of a thread in a unit, folded. Every thread of the block makes one, also those without a row.
template <bool HOLDS, class Op> struct FoldedRow {
  int64_t index, start = 0;
  bool mine;
  typename Op::Row row = {};
  typename Op::State state;
  Items<Op, HOLDS> items;

  __device__ FoldedRow(const Rows &g, const Op &op, int64_t unit)
      : mine(row_at(g, unit, &index)), state(op.first()) {
    if (mine) {
      row = op.open(index), start = row_start(g, index);
      items.each(g, op, row, start, false,
                 [&](int64_t, int64_t, const auto &item) { op.add(&state, item); });
    }
    state = join_row(g, op, state);
  }
  // Visits this thread's items again.
  template <class Visit> __device__ void each(const Rows &g, const Op &op, Visit visit) {
    if (mine) items.each(g, op, row, start, true, visit);
  }
};

template <bool HOLDS, class Op> __global__ void map_rows(Rows g, Op op) {
  for (int64_t unit = blockIdx.x; unit < g.units; unit += gridDim.x) {
    FoldedRow<HOLDS, Op> r(g, op, unit);
    typename Op::Done done = op.close(r.row, r.state);
    r.each(g, op,
           [&](int64_t c, int64_t at, const auto &item) { op.put(r.row, c, at, item, done); });
  }
}

// ---------------------------------------------------------------- laying out

// What a kernel for rows is launched with; W: elements of a step. holds: HELD steps of each thread
// are enough.
inline Rows rows_of(int64_t rows, int64_t n, int64_t inner, int W, bool *holds) {
  Rows g = {rows, n, inner};
  int64_t steps = n / W;
  if (inner > 1) {
    g.wide = power_of_two(inner, WARP), g.lanes = THREADS / g.wide;
    g.strips = (inner + g.wide - 1) / g.wide, g.units = rows / inner * g.strips;
  } else {
    g.lanes = steps > WARP * HELD ? THREADS : power_of_two(steps, WARP);
    int64_t per_block = THREADS / g.lanes;
    g.units = (rows + per_block - 1) / per_block;
  }
  *holds = steps <= (int64_t)g.lanes * HELD;
  return g;
}

inline unsigned blocks_of(const Rows &g) {
  return (unsigned)(g.units < MOST_BLOCKS ? g.units : MOST_BLOCKS);
}

// Can rows of n elements of x be taken 16 bytes at a time?
template <class T> bool packs_of_row(const dlua_tensor *x, int64_t n, int64_t inner) {
  return inner == 1 && n % Pack<T>::WIDTH == 0 && (uintptr_t)dlua_data(x) % 16 == 0;
}

template <class Op>
dlua_status run_map(const dlua_args *a, int64_t rows, int64_t n, int64_t inner, Op op) {
  bool holds;
  Rows g = rows_of(rows, n, inner, Op::W, &holds);
  return launch(a, holds ? map_rows<true, Op> : map_rows<false, Op>, blocks_of(g), THREADS, g, op);
}

#endif
