// peak.c - what this machine can do at most: peak THREADS prints GFLOP/s and GB/s.
//
// Fused multiply-adds on registers, and a = b + c over arrays far larger than the caches, 12 bytes
// counted per element. The best of many short tries, so that a neighbour's work does not count. A
// row whose data stay in the cache can pass the second figure. The arrays have large pages where the
// system gives them, as dlua's own memory has, and do not start at the same place of a page.
#define _GNU_SOURCE
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { LANES = 16, CHAINS = 16, ROUNDS = 400000, TRIES = 60 };
static const int64_t elements = 1 << 23, apart = (1 << 23) + 1040;

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

#ifdef __x86_64__
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
static float
multiply_add(float factor) {
  lanes sum[CHAINS], x = factor + (lanes){0};
  for (int k = 0; k < CHAINS; k++) sum[k] = (float)k + x; // no two chains are the same
#pragma GCC unroll 1
  for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 16
    for (int k = 0; k < CHAINS; k++) sum[k] = sum[k] * x + x;
  }
  for (int k = 1; k < CHAINS; k++) sum[0] += sum[k];
  return sum[0][0];
}

static double gflops(int threads) {
  float total = 0;
  double start = omp_get_wtime();
#pragma omp parallel num_threads(threads) reduction(+ : total)
  total += multiply_add(0.5f);
  double seconds = omp_get_wtime() - start;
  return total > 0 ? 2e-9 * threads * LANES * CHAINS * (double)ROUNDS / seconds : 0;
}

static double gigabytes(int threads, float *restrict a, const float *b, const float *c) {
  double start = omp_get_wtime();
#pragma omp parallel for simd num_threads(threads)
  for (int64_t k = 0; k < elements; k++) a[k] = b[k] + c[k];
  return 12e-9 * (double)elements / (omp_get_wtime() - start);
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  size_t size = (size_t)apart * 3 * sizeof(float);
  float *a = aligned_alloc(1 << 21, (size + (1 << 21) - 1) >> 21 << 21);
  double flops = 0, bytes = 0;
  if (!a || threads < 1) return 1;
  madvise(a, size, MADV_HUGEPAGE);
  for (int64_t k = 0; k < 3 * apart; k++) a[k] = 1; // every page is there
  for (int k = 0; k < TRIES; k++) {
    double f = gflops(threads), b = gigabytes(threads, a, a + apart, a + 2 * apart);
    flops = f > flops ? f : flops, bytes = b > bytes ? b : bytes;
  }
  printf("%.6g %.6g\n", flops, bytes);
  free(a);
  return 0;
}
