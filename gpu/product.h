// product.h - what kernels/matmul.cu does for products: a batch of them, and bits for an epilogue.
#ifndef DLUA_GPU_PRODUCT_H
#define DLUA_GPU_PRODUCT_H

#ifdef __cplusplus
extern "C" {
#endif

#include "../runtime/args.h"

// out {m,n} = x {m,k} · y {k,n} + bias {n}, all of one dtype; strides in elements. out's columns
// follow each other.
typedef struct dlua_product {
  uint8_t dtype;
  const void *x, *y, *bias; // bias: NULL for none
  void *out;
  int64_t m, n, k;
  int64_t xi, xk, yk, yj, bj; // steps of x along m and k, of y along k and n, of bias
  int ndim;                   // of the batch, outermost first
  int64_t size[DLUA_MAX_DIMS], stride[3][DLUA_MAX_DIMS]; // steps of x, y and out
} dlua_product;

// Any dtype but bool, any strides and sizes. Floats are summed in float, f64 in double, integers wrap.
dlua_status dlua_gpu_tiled_product(const dlua_args *a, const dlua_product *p);

// Where y > 0, for y contiguous with rows of n elements, a bit each as the library's DRELU reads
// them: a byte's lowest bit is its first element, and rows lie `pitch` bits apart, a multiple of 8.
dlua_status dlua_gpu_slope_bits(const dlua_args *a, const dlua_tensor *y, int64_t n, int64_t pitch,
                                void *bits);

#ifdef __cplusplus
}
#endif

#endif
