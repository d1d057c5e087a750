// isa.c - asks the CPU once. Tools that emulate one (valgrind 3.19 knows no AVX-512) are asked the
// same way.
#include "isa.h"

#include <string.h>

#include "../env.h"

static dlua_isa_level best(void) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return DLUA_AVX512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return DLUA_AVX2;
#endif
  return DLUA_BASE;
}

dlua_isa_level dlua_isa(void) {
  static int level = -1;
  if (level >= 0) return (dlua_isa_level)level;
  int found = best();
  const char *wish = dlua_env("DLUA_ISA");
  if (wish && strcmp(wish, "base") == 0) found = DLUA_BASE;
  if (wish && strcmp(wish, "avx2") == 0 && found > DLUA_AVX2) found = DLUA_AVX2;
  return (dlua_isa_level)(level = found);
}
