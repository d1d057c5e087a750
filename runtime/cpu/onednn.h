// onednn.h - what the runtime takes from oneDNN 2.x, the CPU library for large f32 kernels. Only
// onednn*.c call it: version 3 changed its C interface, and these files are where that would end.
//
// All functions want host f32 tensors. Those that return DLUA_DECLINED leave the work to the
// caller.
#ifndef DLUA_ONEDNN_H
#define DLUA_ONEDNN_H

#include "../op.h"
#include "gemm.h"

// g on the library's kernels; false where one of the matrices has no unit stride.
bool dlua_onednn_gemm(const dlua_gemm *g);

// A 2-d convolution: x {n,c,h,w}, weight {o,c/groups,kh,kw}, bias {o} or NULL, y {n,o,p,q}.
typedef struct dlua_conv {
  const dlua_tensor *x, *w, *b, *y;
  int64_t stride[2], padding[2], dilation[2], groups;
} dlua_conv;

// Each computes one of the tensors from the others: y; x as the gradient of the input from y as the
// gradient of the result; w as the gradient of the weight. Activations may be strided or blocked.
dlua_status dlua_onednn_conv(const dlua_conv *c);
dlua_status dlua_onednn_conv_input(const dlua_conv *c);
dlua_status dlua_onednn_conv_weight(const dlua_conv *c);

#endif
