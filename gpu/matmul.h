// matmul.h - products of tensors with what follows the sums, for the ops that are such products.
//
//   dlua_operands o = {.x = x, .y = w, .bias = b, .turned = true};
//   o.epilogue = CUBLASLT_EPILOGUE_GELU_AUX, o.aux = z;
//   dlua_status status = dlua_gpu_by_library(a, o); // z = x w' + b, a->out[0] = gelu(z)
#ifndef DLUA_GPU_MATMUL_H
#define DLUA_GPU_MATMUL_H

#include "library.h"
#include "product.h"

typedef struct dlua_operands {
  const dlua_tensor *x, *y; // {…,m,k} and {…,k,n}
  const dlua_tensor *bias;  // {n}, added to each row; or NULL
  bool turned;              // y is {n,k}
  uint32_t epilogue;        // of cublasLtEpilogue_t, without a bias that is added; 0: none
  const dlua_tensor *sums;  // BGRADB: {m}, becomes the sums of x's rows, over k
  const dlua_tensor *aux;   // GELU_AUX, DGELU: like out, what gelu is applied to
  const dlua_tensor *slope; // DRELU: like out and contiguous, relu's result
} dlua_operands;

// The product into a->out[0] by a kernel of the library alone; DLUA_DECLINED where it has none.
dlua_status dlua_gpu_by_library(const dlua_args *a, dlua_operands o);
// The product, with a bias at most, of any dtype and any sizes.
dlua_status dlua_gpu_multiply(const dlua_args *a, dlua_operands o);
// Result number k of the call as f of x and y, which may be NULL, in a pass of its own.
dlua_status dlua_gpu_pass(const dlua_args *a, dlua_kernel *f, const dlua_tensor *x,
                          const dlua_tensor *y, int k);

#endif
