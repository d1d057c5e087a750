// rng.h - Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
// shared by C and CUDA. Ops draw with key (seed, 0): element i of a call uses block offset + i / 4,
// lane i % 4, whatever the threads, layout or device. Loaders draw with key (loader key, 1),
// counter (epoch, sample, transform).
#ifndef DLUA_RNG_H
#define DLUA_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define DLUA_INLINE static inline __host__ __device__
#else
#define DLUA_INLINE static inline
#endif

typedef struct dlua_block {
  uint32_t lane[4];
} dlua_block;

DLUA_INLINE dlua_block dlua_philox(uint64_t key, uint32_t stream, uint64_t counter, uint64_t high) {
  uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)high,
           c3 = (uint32_t)(high >> 32);
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32) ^ (stream * 0x9E3779B9u);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  dlua_block block = {{c0, c1, c2, c3}};
  return block;
}

// 24 random bits as a float in [0, 1); 53 as a double.
DLUA_INLINE float dlua_unit_f32(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }
DLUA_INLINE double dlua_unit_f64(uint32_t high, uint32_t low) {
  return (double)((((uint64_t)high << 32) | low) >> 11) * 0x1p-53;
}

// The global generator's key, and count blocks of its counter range for one call; returns the
// first.
uint64_t dlua_rng_key(void);
uint64_t dlua_rng_take(uint64_t blocks);

#endif
