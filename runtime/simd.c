// simd.c - which instruction set runs, decided once from cpuid (so that emulators which lack one
// are served too) and the switch DLUA_ISA.
#include "simd.h"

#include <string.h>

#include "env.h"

static dlua_isa best_isa(void) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return DLUA_ISA_AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return DLUA_ISA_AVX2;
#endif
  return DLUA_ISA_BASE;
}

static dlua_isa choose_isa(void) {
  static const char *const names[] = {"base", "avx2", "avx512"};
  const char *wish = dlua_env("DLUA_ISA");
  dlua_isa best = best_isa();
  for (int k = 0; wish && k < (int)best; k++) {
    if (strcmp(wish, names[k]) == 0) return (dlua_isa)k;
  }
  return best;
}

dlua_isa dlua_isa_chosen(void) {
  static int chosen = -1;
  if (chosen < 0) chosen = (int)choose_isa();
  return (dlua_isa)chosen;
}

extern const dlua_simd_kernels dlua_simd_base;
#ifdef __x86_64__
extern const dlua_simd_kernels dlua_simd_avx2, dlua_simd_avx512;
#endif

const dlua_simd_kernels *dlua_simd(void) {
  switch (dlua_isa_chosen()) {
#ifdef __x86_64__
  case DLUA_ISA_AVX512: return &dlua_simd_avx512;
  case DLUA_ISA_AVX2: return &dlua_simd_avx2;
#endif
  default: return &dlua_simd_base;
  }
}
