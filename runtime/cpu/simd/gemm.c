// gemm.c - small and odd matrix products, written once and compiled per instruction set. Large f32
// products belong to oneDNN, which packs both sides for every cache; its calls cost microseconds,
// which is more than a small product takes.
#include "../gemm.h"

#include <string.h>

#if defined __AVX512F__
enum { BYTES = 64, ROWS = 8 };
#elif defined __AVX__
enum { BYTES = 32, ROWS = 6 };
#else
enum { BYTES = 16, ROWS = 4 };
#endif
enum { DEPTH = 256, TALLEST = 8 };

typedef float vec_f32 __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef double vec_f64 __attribute__((vector_size(BYTES), aligned(8), may_alias));

#define REAL float
#define VEC vec_f32
#define LANES (BYTES / 4)
#define NAMED(name) name##_f32
#include "gemm_loops.h"
#undef REAL
#undef VEC
#undef LANES
#undef NAMED

#define REAL double
#define VEC vec_f64
#define LANES (BYTES / 8)
#define NAMED(name) name##_f64
#include "gemm_loops.h"

#define PASTE(a, b) a##b
#define TABLE(isa) PASTE(dlua_gemm_kernels_, isa)

extern const dlua_gemm_kernels TABLE(DLUA_ISA);
const dlua_gemm_kernels TABLE(DLUA_ISA) = {.f32 = product_f32, .f64 = product_f64};
