// rng.c - the global generator: a key and a counter range. No state per thread or device.
#include "rng.h"

#include <stdatomic.h>

#include "dlua.h"

static atomic_uint_fast64_t key = 0x853c49e6748fea9bu, offset;

void dlua_seed(uint64_t seed) {
  atomic_store(&key, seed);
  atomic_store(&offset, 0);
}

uint64_t dlua_rng_key(void) { return atomic_load_explicit(&key, memory_order_relaxed); }

uint64_t dlua_rng_take(uint64_t blocks) { return atomic_fetch_add(&offset, blocks); }

uint64_t dlua_random_key(void) {
  dlua_block block = dlua_philox(dlua_rng_key(), 0, dlua_rng_take(1), 0);
  return (uint64_t)block.lane[1] << 32 | block.lane[0];
}

void dlua_rng_state(uint64_t state[2]) {
  state[0] = atomic_load(&key);
  state[1] = atomic_load(&offset);
}

void dlua_set_rng_state(const uint64_t state[2]) {
  atomic_store(&key, state[0]);
  atomic_store(&offset, state[1]);
}
