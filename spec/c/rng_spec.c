// Philox4x32-10 against the known answers of Random123 (kat_vectors), and the generator above it.
#include "../../runtime/rng.h"

#include "check.h"

static bool draws(uint64_t key, uint64_t counter, uint64_t high, const uint32_t expected[4]) {
  dlua_block block = dlua_philox(key, 0, counter, high);
  return memcmp(block.lane, expected, sizeof block.lane) == 0;
}

SPEC(philox_gives_the_known_answers) {
  CHECK(draws(0, 0, 0, (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  CHECK(draws(UINT64_MAX, UINT64_MAX, UINT64_MAX,
              (uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK(draws(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu,
              (uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

SPEC(streams_differ) {
  dlua_block ops = dlua_philox(1, 0, 2, 3), loader = dlua_philox(1, 1, 2, 3);
  CHECK(memcmp(&ops, &loader, sizeof ops) != 0);
}

SPEC(units_stay_below_one) {
  CHECK(dlua_unit_f32(0) == 0 && dlua_unit_f32(UINT32_MAX) < 1);
  CHECK(dlua_unit_f64(0, 0) == 0 && dlua_unit_f64(UINT32_MAX, UINT32_MAX) < 1);
}

SPEC(the_state_can_be_put_back) {
  uint64_t state[2];
  dlua_seed(17);
  dlua_random_key();
  dlua_rng_state(state);
  uint64_t first = dlua_random_key(), second = dlua_random_key();
  CHECK(first != second);
  dlua_set_rng_state(state);
  CHECK(dlua_random_key() == first && dlua_random_key() == second);
  dlua_seed(17);
  CHECK(dlua_rng_take(5) == 0 && dlua_rng_take(1) == 5);
}

int main(void) {
  RUN(philox_gives_the_known_answers);
  RUN(streams_differ);
  RUN(units_stay_below_one);
  RUN(the_state_can_be_put_back);
  return finish();
}
