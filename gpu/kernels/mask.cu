// mask.cu - elements chosen by a bool mask, and the ways between masks, positions and classes. What
// is chosen keeps its row-major order without the host: one kernel counts per stretch of elements,
// one adds the counts up, and one gives every chosen element its number. The sizes of results are
// the shape rule's affair.
#include <stdio.h>

#include "move.h"
#include "walk.h"

namespace {

// ---------------------------------------------------------------- masked_fill

// Operands: result, x, mask.
template <class U, class I> __global__ void fill_where(Walk<3> w, uint64_t value) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[3];
    find(w, k, at);
    bool chosen = *(const uint8_t *)(w.data[2] + at[2]) != 0;
    *(U *)(w.data[0] + at[0]) = chosen ? (U)value : *(const U *)(w.data[1] + at[1]);
  }
}

// ---------------------------------------------------------------- numbering

constexpr int ROUNDS = 8, STRETCH = THREADS * ROUNDS, WARPS = THREADS / WARP;

// Numbers the threads of a block for which chosen holds, from 0; *all is how many there are.
__device__ inline int number_in_block(bool chosen, int *all) {
  __shared__ int counts[WARPS];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, before = 0;
  unsigned votes = __ballot_sync(~0u, chosen);
  if (lane == 0) counts[warp] = __popc(votes);
  __syncthreads();
  *all = 0;
  for (int k = 0; k < WARPS; k++) {
    if (k < warp) before += counts[k];
    *all += counts[k];
  }
  __syncthreads();
  return before + __popc(votes & ((1u << lane) - 1));
}

// A block per stretch.
template <class Test> __global__ void count_chosen(Test test, int64_t n, int64_t *counts) {
  int64_t sum = 0;
  for (int round = 0; round < ROUNDS; round++) {
    int64_t k = (int64_t)blockIdx.x * STRETCH + round * THREADS + threadIdx.x;
    int all;
    number_in_block(k < n && test(k), &all);
    sum += all;
  }
  if (threadIdx.x == 0) counts[blockIdx.x] = sum;
}

// One block: every count becomes the sum of those before it; the sum of all follows the last one.
__global__ void sum_counts(int64_t *counts, int64_t n) {
  __shared__ int64_t sums[THREADS];
  int64_t carry = 0;
  for (int64_t start = 0; start < n; start += THREADS) {
    int64_t k = start + threadIdx.x, own = k < n ? counts[k] : 0;
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned by = 1; by < THREADS; by *= 2) {
      int64_t other = threadIdx.x >= by ? sums[threadIdx.x - by] : 0;
      __syncthreads();
      sums[threadIdx.x] += other;
      __syncthreads();
    }
    if (k < n) counts[k] = carry + sums[threadIdx.x] - own;
    carry += sums[THREADS - 1];
    __syncthreads();
  }
  if (threadIdx.x == 0) counts[n] = carry;
}

template <class Test, class Use>
__global__ void use_chosen(Test test, Use use, int64_t n, const int64_t *counts) {
  int64_t number = counts[blockIdx.x];
  for (int round = 0; round < ROUNDS; round++) {
    int64_t k = (int64_t)blockIdx.x * STRETCH + round * THREADS + threadIdx.x;
    int all;
    bool chosen = k < n && test(k);
    int own = number_in_block(chosen, &all);
    if (chosen) use(k, number + own);
    number += all;
  }
}

// use(k, number) for every k below n for which test(k) holds. Leaves the counts, of which the last
// is that of all, in memory.
template <class Test, class Use>
dlua_status for_chosen(const dlua_args *a, Test test, Use use, int64_t n, Scratch *memory) {
  int64_t stretches = (n + STRETCH - 1) / STRETCH;
  DLUA_TRY(memory->take(a, (size_t)(stretches + 1) * sizeof(int64_t)));
  int64_t *counts = memory->as<int64_t>();
  DLUA_TRY(launch(a, count_chosen<Test>, (unsigned)stretches, THREADS, test, n, counts));
  DLUA_TRY(launch(a, sum_counts, 1, THREADS, counts, stretches));
  return launch(a, use_chosen<Test, Use>, (unsigned)stretches, THREADS, test, use, n, counts);
}

// ---------------------------------------------------------------- what is done with the numbers

struct Masked {
  Walk<1> mask;
  __device__ bool operator()(int64_t k) const {
    int64_t at[1];
    find(mask, k, at);
    return *(const uint8_t *)(mask.data[0] + at[0]) != 0;
  }
};

Masked masked(const dlua_tensor *mask, int ndim, const int64_t *size) {
  Masked m = {walk_over<1>(ndim, size)};
  set_operand(&m.mask, 0, mask), merge(&m.mask);
  return m;
}

template <class U> struct Select {
  Walk<1> x;
  U *y;
  __device__ void operator()(int64_t k, int64_t number) const {
    int64_t at[1];
    find(x, k, at);
    y[number] = *(const U *)(x.data[0] + at[0]);
  }
};

template <class U> struct Scatter {
  Walk<1> y, source; // source has positions of its own
  __device__ void operator()(int64_t k, int64_t number) const {
    int64_t to[1], from[1];
    if (number >= source.count) return;
    find(y, k, to), find(source, number, from);
    *(U *)(y.data[0] + to[0]) = *(const U *)(source.data[0] + from[0]);
  }
};

// Notes a count beyond what there is, or with exact below it.
__global__ void check_count(dlua_index_check check, const int64_t *count, int64_t have,
                            bool exact) {
  if (exact ? *count != have : *count > have) note_fault(check, DLUA_FAULT_SOURCE, *count, 0, have);
}

struct Nonzero {
  Walk<1> x;
  uint8_t dtype;
  __device__ bool operator()(int64_t k) const {
    int64_t at[1];
    find(x, k, at);
    const char *p = x.data[0] + at[0];
    return dtype == DLUA_I64 ? *(const int64_t *)p != 0 : load_as<double>(p, dtype) != 0;
  }
};

struct Positions {
  int ndim;
  int64_t size[DLUA_MAX_DIMS], *y;
  __device__ void operator()(int64_t k, int64_t number) const {
    for (int d = ndim - 1; d >= 0; d--) {
      y[number * ndim + d] = k % size[d] + 1;
      k /= size[d];
    }
  }
};

__global__ void mark_classes(Walk<1> index, dlua_index_check check, int64_t classes, int64_t *y) {
  for (int64_t k = first_index(); k < index.count; k += all_threads()) {
    int64_t at[1], place;
    find(index, k, at);
    if (index_at(check, *(const int64_t *)(index.data[0] + at[0]), k, classes, &place))
      y[k * classes + place] = 1;
  }
}

template <class F> dlua_status with_width_of(const dlua_tensor *x, F f) {
  return with_element(width_of(x), 0, [&](auto type, auto) { return f(type); });
}

} // namespace

extern "C" dlua_status dlua_gpu_masked_fill(const dlua_args *a) {
  const dlua_tensor *y = a->out[0];
  Walk<3> w = walk_over<3>(y->ndim, y->size);
  set_operand(&w, 0, y), set_operand(&w, 1, a->in[0]), set_operand(&w, 2, a->in[1]);
  merge(&w);
  uint64_t value = dlua_gpu_bits(y->dtype, &a->num[0]);
  return with_element(width_of(y), w.count, [&](auto type, auto count) {
    return launch(a, fill_where<decltype(type), decltype(count)>, blocks_for(w.count), THREADS, w,
                  value);
  });
}

extern "C" dlua_status dlua_gpu_masked_select(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *mask = a->in[1];
  int64_t size[DLUA_MAX_DIMS];
  int ndim = x->ndim > mask->ndim ? x->ndim : mask->ndim;
  for (int d = 1; d <= ndim; d++) { // the shape that both broadcast to
    int64_t own = d <= x->ndim ? x->size[x->ndim - d] : 1;
    size[ndim - d] = own == 1 && d <= mask->ndim ? mask->size[mask->ndim - d] : own;
  }
  Walk<1> from = walk_over<1>(ndim, size);
  set_operand(&from, 0, x), merge(&from);
  Scratch memory;
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  return with_width_of(x, [&](auto type) {
    using U = decltype(type);
    Select<U> use = {from, data<U>(a->out[0])};
    return for_chosen(a, masked(mask, ndim, size), use, from.count, &memory);
  });
}

extern "C" dlua_status dlua_gpu_masked_scatter(const dlua_args *a) {
  const dlua_tensor *y = a->out[0], *mask = a->in[1];
  Source source;
  Scratch memory;
  dlua_index_check check;
  DLUA_TRY(source.open(a, 2));
  DLUA_TRY(dlua_gpu_start_from(a));
  if (dlua_numel(y) == 0) return DLUA_OK;
  Walk<1> to = walk_over<1>(y->ndim, y->size);
  Walk<1> from = walk_over<1>(source.tensor.ndim, source.tensor.size);
  set_operand(&to, 0, y), merge(&to);
  set_operand(&from, 0, &source.tensor), merge(&from);
  DLUA_TRY(with_width_of(y, [&](auto type) {
    Scatter<decltype(type)> use = {to, from};
    return for_chosen(a, masked(mask, y->ndim, y->size), use, to.count, &memory);
  }));
  bool exact = a->num[0].i;
  if (from.count >= to.count && !exact) return DLUA_OK;
  int64_t *total = memory.as<int64_t>() + (to.count + STRETCH - 1) / STRETCH;
  DLUA_TRY(dlua_gpu_index_check(a, &check));
  return launch(a, check_count, 1, 1, check, total, from.count, exact);
}

extern "C" dlua_status dlua_gpu_nonzero(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  Nonzero test = {walk_over<1>(x->ndim, x->size), x->dtype};
  set_operand(&test.x, 0, x), merge(&test.x);
  Positions use = {.ndim = x->ndim, .y = data<int64_t>(a->out[0])};
  for (int d = 0; d < x->ndim; d++) use.size[d] = x->size[d];
  Scratch memory;
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  return for_chosen(a, test, use, test.x.count, &memory);
}

extern "C" dlua_status dlua_gpu_one_hot(const dlua_args *a) {
  const dlua_tensor *index = a->in[0], *y = a->out[0];
  int64_t classes = y->size[y->ndim - 1];
  dlua_index_check check;
  Walk<1> w = walk_over<1>(index->ndim, index->size);
  set_operand(&w, 0, index), merge(&w);
  DLUA_TRY(dlua_gpu_fill_bytes(a->device->index, dlua_data(y), 0,
                               (size_t)dlua_numel(y) * sizeof(int64_t)));
  DLUA_TRY(dlua_gpu_index_check(a, &check));
  return launch(a, mark_classes, blocks_for(w.count), THREADS, w, check, classes, data<int64_t>(y));
}
