// gemm.h - matrix products: c (m x n) = a (m x k) · b (k x n), plus what is asked for.
//
//   dlua_gemm g = {.m = 2, .n = 3, .k = 4, .a = a, .ai = 4, .ak = 1, .b = b, .bk = 3, .bj = 1,
//                  .c = c, .ci = 3};
//   dlua_gemm_f32(&g);
//
// Any strides of a and b are taken, so a transposed matrix is a matter of strides and never a copy.
#ifndef DLUA_GEMM_H
#define DLUA_GEMM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct dlua_gemm {
  int64_t m, n, k;
  const void *a, *b;
  int64_t ai, ak, bk, bj; // strides in elements
  void *c;                // rows of n elements, ci apart
  int64_t ci;
  const void *bias; // n elements, the start of every row, or NULL
  bool add;         // c += instead of c =; bias is not looked at
} dlua_gemm;

// On the whole team where the product is large enough, and only on this thread inside a slice of
// dlua_parallel.
void dlua_gemm_f32(const dlua_gemm *g);
void dlua_gemm_f64(const dlua_gemm *g);

// What runtime/cpu/simd/gemm.c offers per instruction set: the product on this thread.
typedef struct dlua_gemm_kernels {
  void (*f32)(const dlua_gemm *g);
  void (*f64)(const dlua_gemm *g);
} dlua_gemm_kernels;

#endif
