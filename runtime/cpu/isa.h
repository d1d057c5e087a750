// isa.h - which instruction set this process may use. Files in runtime/cpu/simd are compiled once for
// each; a family keeps one table of kernels per set and picks by dlua_isa().
#ifndef DLUA_ISA_H
#define DLUA_ISA_H

typedef enum dlua_isa_level { DLUA_BASE, DLUA_AVX2, DLUA_AVX512, DLUA_ISAS } dlua_isa_level;

// What a family compiled for each set, in the order above: the initializer of an array of pointers to
// NAME_base, NAME_avx2 and NAME_avx512, to be indexed by dlua_isa().
#ifdef __x86_64__
#define DLUA_PER_ISA(name) \
  { &name##_base, &name##_avx2, &name##_avx512 }
#else
#define DLUA_PER_ISA(name) \
  { &name##_base }
#endif

// The best set of this CPU, lowered by DLUA_ISA; the same for the whole run.
dlua_isa_level dlua_isa(void);

#endif
