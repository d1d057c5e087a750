// join.cu - ops that copy elements to new places: cat, stack, tile, repeat_interleave, flip, roll,
// tril, triu. A list of tensors without gaps, which it nearly always is, is joined by one launch for
// each MOST_PARTS of them, however small they are.
#include "move.h"
#include "shown.h"
#include "walk.h"

namespace {

// The part of x that starts at a position of a dimension and is that long.
dlua_tensor range(const dlua_tensor *x, int64_t dim, int64_t start, int64_t length) {
  dlua_tensor part = *x;
  part.offset += start * x->stride[dim];
  part.size[dim] = length;
  return part;
}

// ---------------------------------------------------------------- cat, stack

constexpr int MOST_PARTS = 64;

// Parts as {outer, own bytes}, side by side in rows of the result. All counted in units.
struct Parts {
  int n;
  int64_t outer, row, first; // units of a row of the result, and where the parts start in it
  int64_t start[MOST_PARTS + 1];
  const char *data[MOST_PARTS];
  char *y;
};

template <class U> __global__ void join_parts(Parts p) {
  int64_t width = p.start[p.n], all = p.outer * width;
  for (int64_t k = first_index(); k < all; k += all_threads()) {
    int64_t row = k / width, at = k - row * width;
    int low = 0, high = p.n; // the last part that starts at or before at
    while (high - low > 1) {
      int middle = (low + high) / 2;
      if (p.start[middle] <= at)
        low = middle;
      else
        high = middle;
    }
    int64_t own = p.start[low + 1] - p.start[low];
    ((U *)p.y)[row * p.row + p.first + at] =
        ((const U *)p.data[low])[row * own + at - p.start[low]];
  }
}

// The widest unit in which every part and every row can be counted.
int64_t unit_of(const dlua_args *a, int64_t outer, int64_t row) {
  int64_t unit = 16, width = width_of(a->out[0]);
  for (int k = 0; k < a->nin; k++) {
    int64_t own = dlua_numel(a->in[k]) * width / outer;
    while (unit > width && (own % unit || (uintptr_t)dlua_data(a->in[k]) % (uintptr_t)unit))
      unit /= 2;
  }
  while (unit > width && (row % unit || (uintptr_t)dlua_data(a->out[0]) % (uintptr_t)unit))
    unit /= 2;
  return unit;
}

// Tensors without gaps, of which each gives its share to every one of outer rows.
dlua_status join(const dlua_args *a, int64_t outer) {
  int64_t width = width_of(a->out[0]), row = dlua_numel(a->out[0]) * width / outer;
  int64_t unit = unit_of(a, outer, row), done = 0;
  for (int k = 0; k < a->nin;) {
    Parts p = {.n = 0, .outer = outer, .row = row / unit, .first = done};
    p.y = data<char>(a->out[0]);
    for (; p.n < MOST_PARTS && k < a->nin; k++) {
      int64_t own = dlua_numel(a->in[k]) * width / outer / unit;
      p.data[p.n] = data<char>(a->in[k]);
      p.start[p.n + 1] = p.start[p.n] + own;
      p.n++;
    }
    done += p.start[p.n];
    DLUA_TRY(with_unit(unit, 0, [&](auto type, auto) {
      return launch(a, join_parts<decltype(type)>, blocks_for(outer * p.start[p.n]), THREADS, p);
    }));
  }
  return DLUA_OK;
}

bool all_packed(const dlua_args *a) {
  for (int k = 0; k < a->nin; k++)
    if (!dlua_is_contiguous(a->in[k])) return false;
  return true;
}

int64_t rows_before(const dlua_tensor *y, int64_t dim) {
  int64_t rows = 1;
  for (int64_t d = 0; d < dim; d++) rows *= y->size[d];
  return rows;
}

} // namespace

extern "C" dlua_status dlua_gpu_cat(const dlua_args *a) {
  int64_t dim = a->num[0].i, start = 0;
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  if (all_packed(a)) return join(a, rows_before(a->out[0], dim));
  for (int k = 0; k < a->nin; k++) {
    int64_t length = a->in[k]->size[dim];
    dlua_tensor place = range(a->out[0], dim, start, length);
    DLUA_TRY(dlua_gpu_move(a, &place, a->in[k]));
    start += length;
  }
  return DLUA_OK;
}

extern "C" dlua_status dlua_gpu_stack(const dlua_args *a) {
  int64_t dim = a->num[0].i;
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  if (all_packed(a)) return join(a, rows_before(a->out[0], dim));
  for (int k = 0; k < a->nin; k++) {
    dlua_tensor place = range(a->out[0], dim, k, 1);
    place.ndim--;
    for (int64_t d = dim; d < place.ndim; d++)
      place.size[d] = place.size[d + 1], place.stride[d] = place.stride[d + 1];
    DLUA_TRY(dlua_gpu_move(a, &place, a->in[k]));
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- tile, repeat_interleave

extern "C" dlua_status dlua_gpu_tile(const dlua_args *a) {
  return dlua_gpu_show(a, shown_as(CIRCULAR));
}

extern "C" dlua_status dlua_gpu_repeat_interleave(const dlua_args *a) {
  Shown s = shown_as(CONSTANT);
  s.each[a->num[1].i] = a->num[0].i;
  return dlua_gpu_show(a, s);
}

// ---------------------------------------------------------------- flip, roll

extern "C" dlua_status dlua_gpu_flip(const dlua_args *a) {
  dlua_tensor x = dlua_flipped(a->in[0], &a->num[0]);
  return dlua_gpu_move(a, a->out[0], &x);
}

extern "C" dlua_status dlua_gpu_roll(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  const dlua_value *shifts = &a->num[0], *dims = &a->num[1];
  int64_t n = dlua_numel(x);
  Shown s = shown_as(CIRCULAR);
  if (n == 0 || x->ndim == 0) return dlua_gpu_move(a, a->out[0], x);
  if (dims->n == 0) s.turn = (shifts->v[0] % n + n) % n;
  for (int k = 0; k < dims->n; k++) {
    int64_t d = dims->v[k];
    s.before[d] = (s.before[d] + shifts->v[k] % x->size[d]) % x->size[d];
  }
  return dlua_gpu_show(a, s);
}

// ---------------------------------------------------------------- tril, triu

namespace {

// Operand 0 of the walk is x; 1 counts rows, 2 columns.
template <class U, class I>
__global__ void keep_triangle(Walk<3> w, U *y, int64_t diagonal, bool lower) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[3];
    find(w, k, at);
    bool kept = lower ? at[2] - at[1] <= diagonal : at[2] - at[1] >= diagonal;
    y[k] = kept ? *(const U *)(w.data[0] + at[0]) : U(0);
  }
}

dlua_status triangle(const dlua_args *a, bool lower) {
  const dlua_tensor *x = a->in[0];
  Walk<3> w = walk_over<3>(x->ndim, x->size);
  set_operand(&w, 0, x);
  w.step[1][x->ndim - 2] = 1, w.step[2][x->ndim - 1] = 1;
  merge(&w);
  return with_element(width_of(x), w.count, [&](auto type, auto count) {
    using U = decltype(type);
    return launch(a, keep_triangle<U, decltype(count)>, blocks_for(w.count), THREADS, w,
                  data<U>(a->out[0]), a->num[0].i, lower);
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_tril(const dlua_args *a) { return triangle(a, true); }
extern "C" dlua_status dlua_gpu_triu(const dlua_args *a) { return triangle(a, false); }
