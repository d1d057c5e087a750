// slice.cu - a rectangular part of a tensor replaced.
#include "move.h"

// As slice.c lays it out: the numbers are lists of start, count, step and drop.
extern "C" dlua_status dlua_gpu_set_slice(const dlua_args *a) {
  const dlua_tensor *y = a->out[0];
  const dlua_value *start = &a->num[0], *count = &a->num[1], *step = &a->num[2], *drop = &a->num[3];
  dlua_tensor part = *y;
  int n = 0;
  for (int d = 0; d < y->ndim; d++) {
    part.offset += start->v[d] * y->stride[d];
    if (drop->v[d]) continue;
    part.size[n] = count->v[d];
    part.stride[n++] = y->stride[d] * (count->v[d] > 1 ? step->v[d] : 1);
  }
  part.ndim = (uint8_t)n;
  DLUA_TRY(dlua_gpu_start_from(a));
  return dlua_gpu_move(a, &part, a->in[1]);
}
