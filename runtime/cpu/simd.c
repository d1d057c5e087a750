// simd.c - the loops of the instruction set in use.
#include "simd.h"

#include "isa.h"

extern const dlua_simd_kernels dlua_simd_base;
extern const dlua_cast_rows dlua_casts_base;
#ifdef __x86_64__
extern const dlua_simd_kernels dlua_simd_avx2, dlua_simd_avx512;
extern const dlua_cast_rows dlua_casts_avx2, dlua_casts_avx512;
#endif

const dlua_simd_kernels *dlua_simd(void) {
  switch (dlua_isa()) {
#ifdef __x86_64__
  case DLUA_AVX512: return &dlua_simd_avx512;
  case DLUA_AVX2: return &dlua_simd_avx2;
#endif
  default: return &dlua_simd_base;
  }
}

const dlua_cast_rows *dlua_cast_simd(void) {
  switch (dlua_isa()) {
#ifdef __x86_64__
  case DLUA_AVX512: return &dlua_casts_avx512;
  case DLUA_AVX2: return &dlua_casts_avx2;
#endif
  default: return &dlua_casts_base;
  }
}
