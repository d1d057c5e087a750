// index.cu - reading at the positions that a tensor of indices names, and writing where of several
// writers the last one wins. A bad index is noted and its entry left out; nothing waits for it.
//
// The last writer: short lines of entries (along the indexed dimension, the only one in which two
// entries can meet) are looked through by one thread; for long ones every place is first given the
// number of its last entry by atomicMax, whose result does not depend on the order of the threads.
#include "indexed.h"

namespace {

// ---------------------------------------------------------------- index_select, gather

template <class U, class I> __global__ void gather_units(Walk<OPERANDS> w, Indexed in) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[OPERANDS], place;
    find(w, k, at);
    if (!entry_at(in, w.data[INDEX] + at[INDEX], at[POSITION], &place)) continue;
    *(U *)(w.data[PLAIN] + at[PLAIN]) =
        *(const U *)(w.data[INDEXED] + at[INDEXED] + place * in.step);
  }
}

dlua_status run_gather(const dlua_args *a, bool slices) {
  Entries e;
  DLUA_TRY(e.open(a, a->in[0], a->out[0], slices));
  merge(&e.walk);
  int64_t unit = widen_units(&e.walk, 2, width_of(a->out[0]), e.in.step);
  return with_unit(unit, e.walk.count, [&](auto type, auto count) {
    return launch(a, gather_units<decltype(type), decltype(count)>, blocks_for(e.walk.count),
                  THREADS, e.walk, e.in);
  });
}

// ---------------------------------------------------------------- the last entry of every place

using Owner = unsigned long long; // position of the last entry + 1, 0 where there is none

template <class I> __global__ void note_last(Places p, Indexed in, Owner *owner) {
  for (I k = (I)first_index(); k < (I)p.walk.count; k += (I)all_threads()) {
    int64_t at[2], place;
    find(p.walk, k, at);
    if (entry_at(in, p.walk.data[1] + at[1], (int64_t)k, &place))
      atomicMax(&owner[at[0] + place * p.next], (Owner)k + 1);
  }
}

dlua_status find_last(const dlua_args *a, const Entries &e, const Places &p, Scratch *owner) {
  size_t bytes = (size_t)p.count * sizeof(Owner);
  unsigned blocks = blocks_for(p.walk.count);
  DLUA_TRY(owner->take(a, bytes));
  DLUA_TRY(dlua_gpu_fill_bytes(a->device->index, owner->block, 0, bytes));
  if (p.walk.count > INT32_MAX)
    return launch(a, note_last<int64_t>, blocks, THREADS, p, e.in, owner->as<Owner>());
  return launch(a, note_last<uint32_t>, blocks, THREADS, p, e.in, owner->as<Owner>());
}

// The entries with the number of their place, dim left out, as the last operand.
Walk<OPERANDS + 1> with_places(const Entries &e, const Places &p) {
  Walk<OPERANDS + 1> w = walk_over<OPERANDS + 1>(e.ndim, e.size);
  for (int k = 0; k < OPERANDS; k++) {
    w.data[k] = e.walk.data[k];
    for (int d = 0; d < w.ndim; d++) w.step[k][d] = e.walk.step[k][d];
  }
  for (int d = 0; d < w.ndim; d++) w.step[OPERANDS][d] = e.slices ? 0 : p.walk.step[0][d];
  return w;
}

// ---------------------------------------------------------------- scatter, index_copy

template <class U, class I>
__global__ void write_last(Walk<OPERANDS + 1> w, Indexed in, const Owner *owner, int64_t next) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[OPERANDS + 1], place;
    find(w, k, at);
    if (!entry_at(in, w.data[INDEX] + at[INDEX], at[POSITION], &place)) continue;
    if (owner[at[OPERANDS] + place * next] != (Owner)at[POSITION] + 1) continue;
    *(U *)(w.data[INDEXED] + at[INDEXED] + place * in.step) =
        *(const U *)(w.data[PLAIN] + at[PLAIN]);
  }
}

dlua_status write_entries(const dlua_args *a, const Entries &e) {
  Scratch owner;
  Places p = places_of(e);
  DLUA_TRY(find_last(a, e, p, &owner));
  Walk<OPERANDS + 1> w = with_places(e, p);
  merge(&w);
  int64_t unit = widen_units(&w, 2, width_of(a->out[0]), e.in.step);
  return with_unit(unit, w.count, [&](auto type, auto count) {
    return launch(a, write_last<decltype(type), decltype(count)>, blocks_for(w.count), THREADS, w,
                  e.in, owner.as<Owner>(), p.next);
  });
}

template <class U, class I> __global__ void write_lines(Walk<OPERANDS> w, Indexed in, Line line) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[OPERANDS], place;
    find(w, k, at);
    for (int64_t j = 0; j < line.length; j++) {
      const char *entry = w.data[INDEX] + at[INDEX] + j * line.step[INDEX];
      if (entry_at(in, entry, at[POSITION] + j * line.step[POSITION], &place))
        *(U *)(w.data[INDEXED] + at[INDEXED] + place * in.step) =
            *(const U *)(w.data[PLAIN] + at[PLAIN] + j * line.step[PLAIN]);
    }
  }
}

dlua_status run_write(const dlua_args *a, bool slices) {
  Source source;
  Entries e;
  DLUA_TRY(source.open(a, 2));
  DLUA_TRY(dlua_gpu_start_from(a));
  DLUA_TRY(e.open(a, a->out[0], &source.tensor, slices));
  if (e.walk.count == 0) return DLUA_OK;
  if (slices || e.length > SHORT_LINE) return write_entries(a, e);
  Line line = cut_lines(&e);
  return with_element(width_of(a->out[0]), e.walk.count, [&](auto type, auto count) {
    return launch(a, write_lines<decltype(type), decltype(count)>, blocks_for(e.walk.count),
                  THREADS, e.walk, e.in, line);
  });
}

// ---------------------------------------------------------------- gather_last

template <class U, class I>
__global__ void gather_owned(Walk<OPERANDS + 1> w, Indexed in, const Owner *owner, int64_t next) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[OPERANDS + 1], place;
    find(w, k, at);
    if (!entry_at(in, w.data[INDEX] + at[INDEX], at[POSITION], &place)) continue;
    bool last = owner[at[OPERANDS] + place * next] == (Owner)at[POSITION] + 1;
    *(U *)(w.data[PLAIN] + at[PLAIN]) =
        last ? *(const U *)(w.data[INDEXED] + at[INDEXED] + place * in.step) : U(0);
  }
}

template <class U, class I>
__global__ void gather_line_last(Walk<OPERANDS> w, Indexed in, Line line) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[OPERANDS], place;
    find(w, k, at);
    const char *entries = w.data[INDEX] + at[INDEX];
    for (int64_t j = 0; j < line.length; j++) {
      int64_t value = *(const int64_t *)(entries + j * line.step[INDEX]);
      int64_t position = at[POSITION] + j * line.step[POSITION];
      if (!index_at(in.check, value, position, in.extent, &place)) continue;
      bool last = true;
      for (int64_t i = j + 1; i < line.length && last; i++)
        last = *(const int64_t *)(entries + i * line.step[INDEX]) != value;
      *(U *)(w.data[PLAIN] + at[PLAIN] + j * line.step[PLAIN]) =
          last ? *(const U *)(w.data[INDEXED] + at[INDEXED] + place * in.step) : U(0);
    }
  }
}

} // namespace

extern "C" dlua_status dlua_gpu_index_select(const dlua_args *a) { return run_gather(a, true); }
extern "C" dlua_status dlua_gpu_gather(const dlua_args *a) { return run_gather(a, false); }
extern "C" dlua_status dlua_gpu_index_copy(const dlua_args *a) { return run_write(a, true); }
extern "C" dlua_status dlua_gpu_scatter(const dlua_args *a) { return run_write(a, false); }

extern "C" dlua_status dlua_gpu_gather_last(const dlua_args *a) {
  Entries e;
  int64_t width = width_of(a->out[0]);
  DLUA_TRY(e.open(a, a->in[0], a->out[0], false));
  if (e.walk.count == 0) return DLUA_OK;
  if (e.length > SHORT_LINE) {
    Scratch owner;
    Places p = places_of(e);
    DLUA_TRY(find_last(a, e, p, &owner));
    Walk<OPERANDS + 1> w = with_places(e, p);
    merge(&w);
    return with_element(width, w.count, [&](auto type, auto count) {
      return launch(a, gather_owned<decltype(type), decltype(count)>, blocks_for(w.count), THREADS,
                    w, e.in, owner.as<Owner>(), p.next);
    });
  }
  Line line = cut_lines(&e);
  return with_element(width, e.walk.count, [&](auto type, auto count) {
    return launch(a, gather_line_last<decltype(type), decltype(count)>, blocks_for(e.walk.count),
                  THREADS, e.walk, e.in, line);
  });
}
