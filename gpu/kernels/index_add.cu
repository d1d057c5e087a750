// index_add.cu - sums at the positions that a tensor of indices names, as exact as on the CPU: every
// place gets its terms one after the other in row-major order of the index, and no atomics are used.
//
// Few entries along the indexed dimension: one thread for each line of them. Many: the entries are
// sorted by the place they name, stably, and the first one of every place brings all that follow
// for the same place; of an index_add only the list is sorted, and the threads share its columns.
#include "indexed.h"
#include "radix_sort.h"

namespace {

// How terms are read and sums are written: in float for 16 bits. Integers keep their low bits, and
// true stays true.
template <class T> struct Floats {
  using Sum = compute_t<T>;
  __device__ Sum load(const char *p) const { return widen(*(const T *)p); }
  __device__ void store(char *p, Sum sum) const { *(T *)p = narrow<T>(sum); }
};

struct Integers {
  using Sum = int64_t;
  uint8_t dtype;
  __device__ Sum load(const char *p) const { return load_as<int64_t>(p, dtype); }
  __device__ void store(char *p, Sum sum) const { store_as(p, dtype, sum); }
};

template <class F> dlua_status with_sums(const dlua_tensor *y, F f) {
  switch (y->dtype) {
  case DLUA_F32: return f(Floats<float>());
  case DLUA_F64: return f(Floats<double>());
  case DLUA_BF16: return f(Floats<bf16>());
  case DLUA_F16: return f(Floats<f16>());
  default: return f(Integers{y->dtype});
  }
}

// ---------------------------------------------------------------- few entries

template <class S> __global__ void add_lines(Walk<OPERANDS> w, Indexed in, Line line, S sums) {
  for (int64_t k = first_index(); k < w.count; k += all_threads()) {
    int64_t at[OPERANDS], place;
    find(w, k, at);
    for (int64_t j = 0; j < line.length; j++) {
      const char *entry = w.data[INDEX] + at[INDEX] + j * line.step[INDEX];
      if (!entry_at(in, entry, at[POSITION] + j * line.step[POSITION], &place)) continue;
      char *y = w.data[INDEXED] + at[INDEXED] + place * in.step;
      sums.store(y, sums.load(y) + sums.load(w.data[PLAIN] + at[PLAIN] + j * line.step[PLAIN]));
    }
  }
}

// ---------------------------------------------------------------- many

// The place of every entry, count for a bad one, and its number.
template <class I>
__global__ void name_places(Places p, Indexed in, uint64_t *places, int64_t *entries) {
  for (I k = (I)first_index(); k < (I)p.walk.count; k += (I)all_threads()) {
    int64_t at[2], place;
    find(p.walk, k, at);
    bool good = entry_at(in, p.walk.data[1] + at[1], (int64_t)k, &place);
    places[k] = (uint64_t)(good ? at[0] + place * p.next : p.count), entries[k] = (int64_t)k;
  }
}

// Entries in the order of their places. What one entry adds is columns wide.
struct Segments {
  int64_t n;
  uint64_t none; // the place of bad entries
  const uint64_t *place;
  const int64_t *entry;
  Walk<2> columns; // y and source
  Walk<1> places;  // y
  Walk<1> entries; // source
};

constexpr int BATCH = 8; // terms under way at a time

template <class S> __global__ void add_segments(Segments s, S sums) {
  for (int64_t k = first_index(); k < s.n * s.columns.count; k += all_threads()) {
    int64_t i = k / s.columns.count, at[2], to[1];
    uint64_t place = s.place[i];
    if (place == s.none || (i > 0 && s.place[i - 1] == place)) continue;
    find(s.columns, k - i * s.columns.count, at);
    find(s.places, (int64_t)place, to);
    char *y = s.columns.data[0] + at[0] + to[0];
    auto sum = sums.load(y);
    for (bool more = true; more; i += BATCH) {
      typename S::Sum term[BATCH];
      bool mine[BATCH];
      for (int j = 0; j < BATCH; j++) {
        mine[j] = i + j < s.n && s.place[i + j] == place;
        int64_t from[1] = {0};
        if (mine[j]) find(s.entries, s.entry[i + j], from);
        term[j] = mine[j] ? sums.load(s.columns.data[1] + at[1] + from[0]) : 0;
      }
      for (int j = 0; j < BATCH; j++)
        if (mine[j]) sum += term[j];
      more = mine[BATCH - 1];
    }
    sums.store(y, sum);
  }
}

Walk<1> one_operand(int ndim, const int64_t *size, const int64_t *step) {
  Walk<1> w = walk_over<1>(ndim, size);
  for (int d = 0; d < w.ndim; d++) w.step[0][d] = step[d];
  merge(&w);
  return w;
}

Segments segments_of(const Entries &e) {
  Segments s = {};
  s.columns = walk_over<2>(0, nullptr);
  s.columns.data[0] = e.walk.data[INDEXED], s.columns.data[1] = e.walk.data[PLAIN];
  if (!e.slices) {
    int64_t step[DLUA_MAX_DIMS] = {0};
    for (int d = 0; d < e.ndim; d++) step[d] = step_of(e.big, d);
    s.places = one_operand(e.ndim, e.big->size, step);
    s.entries = one_operand(e.ndim, e.size, e.walk.step[PLAIN]);
    return s;
  }
  for (int d = 0; d < e.ndim; d++) {
    s.columns.size[d] = d == e.dim ? 1 : e.size[d], s.columns.count *= s.columns.size[d];
    s.columns.step[0][d] = e.walk.step[INDEXED][d], s.columns.step[1][d] = e.walk.step[PLAIN][d];
    s.columns.ndim = e.ndim;
  }
  merge(&s.columns);
  s.places = one_operand(1, &e.in.extent, &e.in.step);
  s.entries = one_operand(1, &e.length, &e.walk.step[PLAIN][e.dim]);
  return s;
}

dlua_status add_sorted(const dlua_args *a, const Entries &e) {
  Pairs pairs;
  Places p = places_of(e);
  Segments s = segments_of(e);
  unsigned blocks = blocks_for(p.walk.count);
  DLUA_TRY(pairs.take(a, p.walk.count));
  DLUA_TRY(
      p.walk.count > INT32_MAX
          ? launch(a, name_places<int64_t>, blocks, THREADS, p, e.in, pairs.keys, pairs.values)
          : launch(a, name_places<uint32_t>, blocks, THREADS, p, e.in, pairs.keys, pairs.values));
  DLUA_TRY(dlua_gpu_sort_pairs(a, &pairs, 0, bits_below(p.count + 1)));
  s.n = p.walk.count, s.none = (uint64_t)p.count, s.place = pairs.keys, s.entry = pairs.values;
  return with_sums(a->out[0], [&](auto sums) {
    return launch(a, add_segments<decltype(sums)>, blocks_for(s.n * s.columns.count), THREADS, s,
                  sums);
  });
}

dlua_status run_add(const dlua_args *a, bool slices) {
  Source source;
  Entries e;
  DLUA_TRY(source.open(a, 2));
  DLUA_TRY(dlua_gpu_start_from(a));
  DLUA_TRY(e.open(a, a->out[0], &source.tensor, slices));
  if (e.walk.count == 0) return DLUA_OK;
  // A sum of 16 bits is rounded once, not at every term.
  int64_t few = width_of(a->out[0]) == 2 ? 1 : SHORT_LINE;
  if (e.length > few) return add_sorted(a, e);
  Line line = cut_lines(&e);
  return with_sums(a->out[0], [&](auto sums) {
    return launch(a, add_lines<decltype(sums)>, blocks_for(e.walk.count), THREADS, e.walk, e.in,
                  line, sums);
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_index_add(const dlua_args *a) { return run_add(a, true); }
extern "C" dlua_status dlua_gpu_scatter_add(const dlua_args *a) { return run_add(a, false); }
