// onednn.h - what the runtime takes from oneDNN 2.x, the CPU library for large kernels in f32 and bf16. Only
// onednn*.c call it: version 3 changed its C interface, and these files are where that would end.
//
// All functions want host tensors, of f32 where nothing else is said. Those that return
// DLUA_DECLINED leave the work to the caller.
#ifndef DLUA_ONEDNN_H
#define DLUA_ONEDNN_H

#include "../op.h"
#include "gemm.h"

// g on the library's kernels; false where one of the matrices has no unit stride.
bool dlua_onednn_gemm(const dlua_gemm *g);

// Whether the library multiplies bf16 on units of this CPU (AVX512-BF16, AMX) that DLUA_ISA leaves
// it; without them its bf16 kernels are slower than f32 ones or missing.
bool dlua_onednn_bf16(void);

// A batch of bf16 products, summed in f32 and rounded once. An operand that a dimension of the batch
// repeats has stride 0 there; the results follow each other.
typedef struct dlua_products {
  dlua_gemm g; // the first; add is not looked at
  int ndim;    // of the batch
  int64_t size[DLUA_MAX_DIMS], a[DLUA_MAX_DIMS], b[DLUA_MAX_DIMS]; // strides in elements
} dlua_products;

dlua_status dlua_onednn_products(const dlua_products *p);

// A 2-d convolution, all of f32 or all of bf16: x {n,c,h,w}, weight {o,c/groups,kh,kw}, bias {o} or NULL, y {n,o,p,q}.
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
