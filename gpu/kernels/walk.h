// walk.h - every position of a shape in row-major order, with the place of each operand there: what
// the kernels that move elements share. Elements go by their width, in units of up to 16 bytes.
//
//   Walk<2> w = walk_over<2>(out->ndim, out->size);
//   set_operand(&w, 0, out), set_operand(&w, 1, x); // x broadcasts to the shape
//   merge(&w);
//
// In a kernel:
//
//   for (I k = first_index(); k < w.count; k += all_threads()) {
//     int64_t at[2]; // bytes from data
//     find(w, k, at);
//   }
#ifndef DLUA_GPU_WALK_H
#define DLUA_GPU_WALK_H

#include "kernel.h"

template <int N> struct Walk {
  int ndim; // at least one
  int64_t count, size[DLUA_MAX_DIMS];
  char *data[N];
  int64_t step[N][DLUA_MAX_DIMS];
};

inline int64_t width_of(const dlua_tensor *x) {
  return (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
}

// Size of a dimension, and bytes from one position of it to the next; a 0-d tensor has one of size 1.
inline int64_t extent_of(const dlua_tensor *x, int64_t dim) { return x->ndim ? x->size[dim] : 1; }
inline int64_t step_of(const dlua_tensor *x, int64_t dim) {
  return x->ndim ? x->stride[dim] * width_of(x) : 0;
}

// ---------------------------------------------------------------- laying out

// A 0-d shape is walked as {1}.
template <int N> Walk<N> walk_over(int ndim, const int64_t *size) {
  Walk<N> w = {};
  w.ndim = ndim > 0 ? ndim : 1, w.count = 1, w.size[0] = 1;
  for (int d = 0; d < ndim; d++) w.size[d] = size[d], w.count *= size[d];
  return w;
}

template <int N> void set_operand(Walk<N> *w, int k, const dlua_tensor *x) {
  int lead = w->ndim - x->ndim;
  for (int d = 0; d < x->ndim; d++) w->step[k][lead + d] = x->size[d] == 1 ? 0 : step_of(x, d);
  w->data[k] = (char *)dlua_data(x);
}

// An operand without memory: counts the positions of a shape of as many dimensions, in row-major
// order.
template <int N> void set_counter(Walk<N> *w, int k, const int64_t *size) {
  int64_t step = 1;
  for (int d = w->ndim - 1; d >= 0; d--) w->step[k][d] = step, step *= size[d];
}

template <int N> void take_dim(Walk<N> *w, int to, int from) {
  w->size[to] = w->size[from];
  for (int k = 0; k < N; k++) w->step[k][to] = w->step[k][from];
}

// Makes one of dimensions that every operand steps through as one. Keeps the order.
template <int N> void merge(Walk<N> *w) {
  int last = -1;
  for (int d = 0; d < w->ndim; d++) {
    if (w->size[d] == 1) continue;
    bool continues = last >= 0;
    for (int k = 0; k < N; k++)
      continues = continues && w->step[k][last] == w->step[k][d] * w->size[d];
    int64_t outer = continues ? w->size[last] : 1;
    take_dim(w, continues ? last : ++last, d);
    w->size[last] *= outer;
  }
  if (last < 0) {
    last = 0, w->size[0] = 1;
    for (int k = 0; k < N; k++) w->step[k][0] = 0;
  }
  w->ndim = last + 1;
}

// Makes units of several elements where the first `moved` operands lie side by side in the last
// dimension and the others stand still there; step is one that a kernel adds itself. Returns the
// bytes of a unit.
template <int N> int64_t widen_units(Walk<N> *w, int moved, int64_t width, int64_t step = 0) {
  int last = w->ndim - 1;
  for (int k = 0; k < N; k++)
    if (w->step[k][last] != (k < moved ? width : 0)) return width;
  for (int64_t unit = 16; unit > width; unit /= 2) {
    bool fits = w->size[last] * width % unit == 0 && step % unit == 0;
    for (int k = 0; k < moved; k++) {
      fits = fits && (uintptr_t)w->data[k] % (uintptr_t)unit == 0;
      for (int d = 0; d < last; d++) fits = fits && w->step[k][d] % unit == 0;
    }
    if (!fits) continue;
    w->count = w->count / w->size[last] * (w->size[last] * width / unit);
    w->size[last] = w->size[last] * width / unit;
    for (int k = 0; k < moved; k++) w->step[k][last] = unit;
    return unit;
  }
  return width;
}

// Runs f with a value of a type of that many bytes, and with one of the type to count up to n in:
// division of 32 bits is much the cheaper one.
template <class F> dlua_status with_unit(int64_t unit, int64_t n, F f) {
  auto sized = [&](auto type) { return n <= INT32_MAX ? f(type, uint32_t()) : f(type, int64_t()); };
  switch (unit) {
  case 1: return sized(uint8_t());
  case 2: return sized(uint16_t());
  case 4: return sized(uint32_t());
  case 8: return sized(uint64_t());
  default: return sized(uint4());
  }
}

// The same for kernels that take single elements.
template <class F> dlua_status with_element(int64_t width, int64_t n, F f) {
  auto sized = [&](auto type) { return n <= INT32_MAX ? f(type, uint32_t()) : f(type, int64_t()); };
  switch (width) {
  case 1: return sized(uint8_t());
  case 2: return sized(uint16_t());
  case 4: return sized(uint32_t());
  default: return sized(uint64_t());
  }
}

// ---------------------------------------------------------------- in kernels

// Where position k is: of every operand the sum of its steps.
template <class I, int N> __device__ inline void find(const Walk<N> &w, I k, int64_t (&at)[N]) {
  for (int i = 0; i < N; i++) at[i] = 0;
  for (int d = w.ndim - 1; d > 0; d--) {
    I size = (I)w.size[d], rest = k / size, here = k - rest * size;
    for (int i = 0; i < N; i++) at[i] += (int64_t)here * w.step[i][d];
    k = rest;
  }
  for (int i = 0; i < N; i++) at[i] += (int64_t)k * w.step[i][0];
}

#endif
