// pad.cu - a tensor with a frame around it, or less of it. Where a position of the result comes from
// is worked out per element, so that there are no tables to send. The gradient goes the other way:
// one thread collects, in row-major order, what shows its element.
#include "move.h"
#include "shown.h"
#include "walk.h"

namespace {

struct Picture {
  Shown s;
  int ndim;
  int64_t count, size[DLUA_MAX_DIMS]; // of the result
  int64_t own[DLUA_MAX_DIMS], step[DLUA_MAX_DIMS];
  char *x, *y;
};

// The position of x that at shows, -1 for none.
template <class I> __device__ inline I shown_at(I at, I size, int mode) {
  if (at >= 0 && at < size) return at;
  switch (mode) {
  case REFLECT: return at < 0 ? -at : 2 * (size - 1) - at;
  case REPLICATE: return at < 0 ? 0 : size - 1;
  case CIRCULAR: return at < 0 ? at % size + (at % size < 0 ? size : 0) : at % size;
  default: return -1;
  }
}

template <class U, class I> __global__ void show(Picture p) {
  for (I k = (I)first_index(); k < (I)p.count; k += (I)all_threads()) {
    int64_t offset = 0;
    bool framed = false;
    I rest = p.s.turn ? (I)((k + p.count - p.s.turn) % p.count) : k;
    for (int d = p.ndim - 1; d >= 0 && !framed; d--) {
      I outer = rest / (I)p.size[d], at = rest - outer * (I)p.size[d];
      if (p.s.each[d] != 1) at /= (I)p.s.each[d];
      at = shown_at<I>(at - (I)p.s.before[d], (I)p.own[d], p.s.mode);
      framed = at < 0;
      offset += (int64_t)at * p.step[d];
      rest = outer;
    }
    ((U *)p.y)[k] = framed ? (U)p.s.fill : *(const U *)(p.x + offset);
  }
}

} // namespace

dlua_status dlua_gpu_show(const dlua_args *a, const Shown &s) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  Picture p = {.s = s, .ndim = y->ndim, .count = dlua_numel(y)};
  int lead = y->ndim - x->ndim;
  int64_t reach = p.count;
  for (int d = 0; d < y->ndim; d++) {
    p.size[d] = y->size[d];
    p.own[d] = d < lead ? 1 : x->size[d - lead];
    p.step[d] = d < lead ? 0 : step_of(x, d - lead);
    if (p.own[d] > reach) reach = p.own[d]; // pads may cut all but little off
  }
  p.x = data<char>(x), p.y = data<char>(y);
  // Positions are signed and up to a size away on both sides.
  bool small = reach <= INT32_MAX / 4;
  return with_element(width_of(x), 0, [&](auto type, auto) {
    using U = decltype(type);
    unsigned blocks = blocks_for(p.count);
    return small ? launch(a, show<U, int32_t>, blocks, THREADS, p)
                 : launch(a, show<U, int64_t>, blocks, THREADS, p);
  });
}

// ---------------------------------------------------------------- pad

namespace {

// Pairs are listed from the last dimension: {left, right, top, bottom, …}.
void read_before(const dlua_value *pad, int ndim, int64_t *before) {
  for (int k = 0; k < pad->n / 2; k++) before[ndim - 1 - k] = pad->v[2 * k];
}

} // namespace

extern "C" dlua_status dlua_gpu_pad(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  Shown s = shown_as((int)a->num[1].i);
  read_before(&a->num[0], x->ndim, s.before);
  s.fill = dlua_gpu_bits(x->dtype, &a->num[2]);
  return dlua_gpu_show(a, s);
}

// ---------------------------------------------------------------- pad_grad

namespace {

struct Frame {
  int mode, ndim;
  int64_t count, size[DLUA_MAX_DIMS], padded[DLUA_MAX_DIMS], before[DLUA_MAX_DIMS];
  int64_t step[DLUA_MAX_DIMS]; // of g
};

// How many positions of g may show position at of dimension d of x, at most.
__device__ inline int64_t viewers(const Frame &f, int d, int64_t at) {
  if (f.padded[d] == f.size[d] && f.before[d] == 0) return 1;
  if (f.mode == CONSTANT) return 1;
  if (f.mode != REPLICATE) return 3;
  int64_t n = 1, after = f.padded[d] - f.size[d] - f.before[d];
  if (at == 0 && f.before[d] > 0) n += f.before[d];
  if (at == f.size[d] - 1 && after > 0) n += after;
  return n;
}

// The n-th of them in order, -1 where there is none.
__device__ inline int64_t viewer(const Frame &f, int d, int64_t at, int64_t n, int64_t of) {
  int64_t size = f.size[d], from = at;
  if (f.mode == REPLICATE)
    from += n - (at == 0 && f.before[d] > 0 ? f.before[d] : 0);
  else if (of > 1 && n != 1) {
    if (f.mode == CIRCULAR)
      from += n == 0 ? -size : size;
    else
      from = n == 0 ? -at : 2 * (size - 1) - at;
    if (from == at) return -1;
  }
  from += f.before[d];
  return from >= 0 && from < f.padded[d] ? from : -1;
}

template <class T> __global__ void collect_shown(Frame f, const char *g, T *gx) {
  for (int64_t k = first_index(); k < f.count; k += all_threads()) {
    int64_t at[DLUA_MAX_DIMS], of[DLUA_MAX_DIMS], ways = 1, rest = k;
    for (int d = f.ndim - 1; d >= 0; d--) {
      at[d] = rest % f.size[d], rest /= f.size[d];
      of[d] = viewers(f, d, at[d]), ways *= of[d];
    }
    compute_t<T> sum = 0;
    for (int64_t way = 0; way < ways; way++) {
      int64_t offset = 0, left = way;
      bool seen = true;
      for (int d = f.ndim - 1; d >= 0 && seen; d--) {
        int64_t from = viewer(f, d, at[d], left % of[d], of[d]);
        left /= of[d], seen = from >= 0;
        offset += from * f.step[d];
      }
      if (seen) sum += widen(*(const T *)(g + offset));
    }
    gx[k] = narrow<T>(sum);
  }
}

} // namespace

extern "C" dlua_status dlua_gpu_pad_grad(const dlua_args *a) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  Frame f = {.mode = (int)a->num[2].i, .ndim = g->ndim, .count = dlua_numel(gx)};
  for (int d = 0; d < g->ndim; d++)
    f.size[d] = gx->size[d], f.padded[d] = g->size[d], f.step[d] = step_of(g, d);
  read_before(&a->num[1], g->ndim, f.before);
  return with_float(g, [&](auto type) {
    using T = decltype(type);
    return launch(a, collect_shown<T>, blocks_for(f.count), THREADS, f, data<char>(g), data<T>(gx));
  });
}
