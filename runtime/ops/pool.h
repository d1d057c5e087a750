// pool.h - what max (pool.c) and average pooling (pool_avg.c) share.
#ifndef DLUA_POOL_H
#define DLUA_POOL_H

#include "../cpu/max_pool.h"
#include "../half.h"
#include "../op.h"

// Numbers 0.. of a pooling op from kernel on: kernel, stride, padding, and dilation where it has
// one. Checks them against x {n,c,h,w} and fills the plane with PyTorch's result size (ceil_mode:
// windows may hang over the end, but must start inside).
dlua_status dlua_pool_plane_of(const dlua_args *a, bool dilated, bool ceil_mode,
                               dlua_pool_plane *p);
// Checks an adaptive op's size against x.
dlua_status dlua_pool_adaptive(const dlua_args *a, dlua_pool_plane *p);
// Spec k: x's first two dimensions and the plane's result.
void dlua_pool_spec(dlua_args *a, int k, const dlua_pool_plane *p);
// Adaptive window i of o over n elements: from floor(i n / o) to ceil((i + 1) n / o).
static inline int64_t dlua_adaptive_from(int64_t i, int64_t n, int64_t o) { return i * n / o; }
static inline int64_t dlua_adaptive_to(int64_t i, int64_t n, int64_t o) {
  return ((i + 1) * n + o - 1) / o;
}

// Max pooling and its gradient over NHWC activations of f32 and bf16 (pool_rows.c).
dlua_status dlua_max_pool2d_rows(const dlua_args *a);
dlua_status dlua_max_pool2d_grad_rows(const dlua_args *a);

// Element k of f32 or bf16 (half).
static inline float dlua_pool_value(const void *x, bool half, int64_t k) {
  return half ? dlua_bf16_to_f32(((const uint16_t *)x)[k]) : ((const float *)x)[k];
}
// Adds to sums {pixels of an image, n}, which are 0, what belongs to its channels first .. first + n.
typedef void dlua_pool_add(const void *context, int64_t image, int64_t first, int64_t n,
                           float *sums);
// Fills gx, in NHWC of f32 or bf16, with such sums, on the team; cost: operations per image and
// channel.
dlua_status dlua_pool_spread(const dlua_tensor *gx, double cost, dlua_pool_add *add,
                             const void *context);

#endif
