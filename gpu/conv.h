// conv.h - a convolution as the kernels in kernels/conv.cu take it.
#ifndef DLUA_GPU_CONV_H
#define DLUA_GPU_CONV_H

#ifdef __cplusplus
extern "C" {
#endif

#include "../runtime/args.h"

typedef struct dlua_conv_tensor {
  void *data;
  int64_t size[4], stride[4]; // in elements
} dlua_conv_tensor;

// x {n,c,h,w}, w {o,c/groups,kh,kw}, y {n,o,p,q}; bias {o} of y, or NULL.
typedef struct dlua_conv2d {
  uint8_t dtype;
  int64_t groups;
  int64_t step[2], padding[2], dilation[2];
  dlua_conv_tensor x, w, y;
  const void *bias;
  int64_t bias_step;
} dlua_conv2d;

// The plain sums, for every float dtype, any strides and sizes: y, the gradient of x, that of w.
dlua_status dlua_gpu_direct_forward(const dlua_args *a, const dlua_conv2d *c);
dlua_status dlua_gpu_direct_input_grad(const dlua_args *a, const dlua_conv2d *c);
dlua_status dlua_gpu_direct_weight_grad(const dlua_args *a, const dlua_conv2d *c);

// y {n,c,h,w} += bias {c}; y lies row-major without gaps, or in NHWC.
dlua_status dlua_gpu_add_bias(const dlua_args *a, const dlua_tensor *y, const dlua_tensor *bias);

#ifdef __cplusplus
}
#endif

#endif
