// simd.c - the loops of the instruction set in use.
#include "simd.h"

#include "channel_rows.h"
#include "isa.h"

extern const dlua_simd_kernels dlua_simd_base;
extern const dlua_cast_rows dlua_casts_base;
#ifdef __x86_64__
extern const dlua_simd_kernels dlua_simd_avx2, dlua_simd_avx512;
extern const dlua_cast_rows dlua_casts_avx2, dlua_casts_avx512;
#endif

const dlua_simd_kernels *dlua_simd(void) {
  static const dlua_simd_kernels *const kernels[] = DLUA_PER_ISA(dlua_simd);
  return kernels[dlua_isa()];
}

const dlua_row_kernels *dlua_row_simd(void) {
  static const dlua_row_kernels *const kernels[] = DLUA_PER_ISA(dlua_rows);
  return kernels[dlua_isa()];
}

const dlua_cast_rows *dlua_cast_simd(void) {
  static const dlua_cast_rows *const kernels[] = DLUA_PER_ISA(dlua_casts);
  return kernels[dlua_isa()];
}
