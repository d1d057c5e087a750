// indexed.h - walks over the entries of an index: what the kernels that read and write at the
// positions an index names have in common.
#ifndef DLUA_GPU_INDEXED_H
#define DLUA_GPU_INDEXED_H

#include "move.h"
#include "walk.h"

// The dimension whose positions the index names: its size, and the bytes between two of them.
struct Indexed {
  dlua_index_check check;
  int64_t extent, step;
};

// Operands of the walks: the tensor that is indexed (its own dimension stands still), the one that
// is shaped like the entries, the index, the position of an entry in the index.
enum { INDEXED, PLAIN, INDEX, POSITION, OPERANDS };

struct Entries {       // the index is that of input 1, dim the call's first number
  Walk<OPERANDS> walk; // over all dimensions of the plain tensor, or of an index of single elements
  Indexed in;
  int64_t dim, length;         // of the index along dim
  bool slices;                 // the index is a list of positions
  const dlua_tensor *big;      // the tensor that is indexed
  int64_t size[DLUA_MAX_DIMS]; // of the entries
  int ndim;

  dlua_status open(const dlua_args *a, const dlua_tensor *indexed, const dlua_tensor *plain,
                   bool slices);
};

inline dlua_status Entries::open(const dlua_args *a, const dlua_tensor *indexed,
                                 const dlua_tensor *plain, bool list) {
  const dlua_tensor *index = a->in[1];
  big = indexed, slices = list, dim = a->num[0].i;
  length = list ? dlua_numel(index) : extent_of(index, dim);
  ndim = list ? plain->ndim : index->ndim;
  for (int d = 0; d < ndim; d++) size[d] = list ? plain->size[d] : index->size[d];
  if (ndim == 0) size[0] = 1; // a walk over 0-d has one dimension
  walk = walk_over<OPERANDS>(ndim, size);
  set_operand(&walk, INDEXED, indexed), set_operand(&walk, PLAIN, plain);
  walk.step[INDEXED][dim] = 0;
  if (list) {
    walk.data[INDEX] = data<char>(index);
    walk.step[INDEX][dim] = index->ndim ? step_of(index, 0) : 0;
    walk.step[POSITION][dim] = 1;
  } else {
    set_operand(&walk, INDEX, index), set_counter(&walk, POSITION, size);
  }
  in.extent = extent_of(indexed, dim), in.step = step_of(indexed, dim);
  return dlua_gpu_index_check(a, &in.check);
}

// ---------------------------------------------------------------- where entries can meet

// Numbers the places that the entries name: entry k of the walk names place (operand 0) + index
// (operand 1) * next.
struct Places {
  Walk<2> walk; // over the entries of the index, in row-major order
  int64_t next, count;
};

inline Places places_of(const Entries &e) {
  Places p = {};
  if (e.slices) {
    p.walk = walk_over<2>(1, &e.length);
    p.walk.step[1][0] = e.walk.step[INDEX][e.dim];
    p.next = 1, p.count = e.in.extent;
  } else {
    p.walk = walk_over<2>(e.ndim, e.size), p.next = 1, p.count = 1;
    for (int d = e.ndim - 1; d >= 0; d--) {
      if (d == e.dim)
        p.next = p.count;
      else
        p.walk.step[0][d] = p.count;
      p.walk.step[1][d] = e.walk.step[INDEX][d];
      p.count *= e.big->size[d];
    }
  }
  p.walk.data[1] = e.walk.data[INDEX];
  return p;
}

// Two entries can name one place only along the indexed dimension: lines of entries, looked through
// one after the other by one thread each where they are no longer than SHORT_LINE.
constexpr int64_t SHORT_LINE = 64;

struct Line {
  int64_t length, step[OPERANDS]; // from one entry to the next
};

// Leaves the walk with one entry per line.
inline Line cut_lines(Entries *e) {
  Line line = {e->length, {}};
  for (int k = 0; k < OPERANDS; k++) line.step[k] = e->walk.step[k][e->dim];
  if (e->length > 0) e->walk.count /= e->length;
  e->walk.size[e->dim] = 1;
  merge(&e->walk);
  return line;
}

// ---------------------------------------------------------------- in kernels

// The 0-based entry of an index at an address.
__device__ inline bool entry_at(const Indexed &in, const char *p, int64_t position, int64_t *at) {
  return index_at(in.check, *(const int64_t *)p, position, in.extent, at);
}

#endif
