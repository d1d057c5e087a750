// gemm.c - picks the kernel of a matrix product. Measured: oneDNN is as fast as our own kernel on
// one thread and chooses its team well, but calls cost up to half a microsecond and it wants one
// unit stride per matrix; so the smallest and the odd ones are ours, and f64 is, which it lacks.
#include "gemm.h"

#include "../parallel.h"
#include "isa.h"
#include "onednn.h"

extern const dlua_gemm_kernels dlua_gemm_kernels_base;
#ifdef __x86_64__
extern const dlua_gemm_kernels dlua_gemm_kernels_avx2, dlua_gemm_kernels_avx512;
#endif

static const dlua_gemm_kernels *kernels(void) {
  static const dlua_gemm_kernels *const kernels[] = DLUA_PER_ISA(dlua_gemm_kernels);
  return kernels[dlua_isa()];
}

enum { STEP = 32 }; // rows or columns per slice of the team

typedef struct slices {
  const dlua_gemm *g;
  void (*run)(const dlua_gemm *g);
  int64_t width; // bytes of an element
  bool columns;  // the team splits columns, else rows
} slices;

static const char *moved(const void *x, int64_t elements, int64_t width) {
  return x ? (const char *)x + elements * width : NULL;
}

static void run_slice(void *context, int64_t from, int64_t to) {
  const slices *s = context;
  dlua_gemm g = *s->g;
  int64_t all = s->columns ? g.n : g.m, first = from * STEP;
  int64_t count = (to * STEP < all ? to * STEP : all) - first;
  if (s->columns) {
    g.n = count;
    g.b = moved(g.b, first * g.bj, s->width), g.bias = moved(g.bias, first, s->width);
    g.c = (void *)moved(g.c, first, s->width);
  } else {
    g.m = count;
    g.a = moved(g.a, first * g.ai, s->width), g.c = (void *)moved(g.c, first * g.ci, s->width);
  }
  s->run(&g);
}

static void run_team(const dlua_gemm *g, void (*run)(const dlua_gemm *), int64_t width) {
  slices s = {.g = g, .run = run, .width = width, .columns = g->n > g->m};
  int64_t all = s.columns ? g->n : g->m;
  double cost = 2.0 * (double)(s.columns ? g->m : g->n) * (double)g->k * STEP;
  dlua_parallel((all + STEP - 1) / STEP, cost, run_slice, &s);
}

void dlua_gemm_f64(const dlua_gemm *g) { run_team(g, kernels()->f64, sizeof(double)); }

void dlua_gemm_f32(const dlua_gemm *g) {
  bool small = g->n >= 16 && g->m * g->n * g->k <= 20000;
  if (small)
    kernels()->f32(g);
  else if (!dlua_onednn_gemm(g))
    run_team(g, kernels()->f32, sizeof(float));
}
