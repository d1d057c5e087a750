// fuzz.h - damaged input for dlua's readers, and what a target of it is.
//
//   fuzz npy --seconds 45              damages npy files until the time is up
//   fuzz npy --inputs 100000           the same many of them on every machine
//   fuzz npy --seed 7 --at 1234        one input again, in this process, for a debugger
//   fuzz npy --planted                 passes only when the harness finds the bug it carries
//
// An input is a pure function of target, seed and iteration: nothing is learnt on the way, so that
// a failure can be repeated from three words. Refused: coverage feedback, which needs a compiler of
// its own and cannot be repeated.
#ifndef DLUA_FUZZ_H
#define DLUA_FUZZ_H

#include "../../runtime/data/file.h"
#include "../../runtime/dlua.h"

enum { FUZZ_SEEDS = 80, FUZZ_MOST = 1 << 16 };

// What a run works with.
typedef struct fuzz_place {
  char folder[256]; // emptied at the end
  char input[300];  // the file with the current input, in folder
} fuzz_place;

typedef struct fuzz_target {
  const char *name;
  const char *file; // what the input is called in the folder
  // Appends the valid inputs that mutation starts from; returns how many there are, 0 on failure.
  int (*seeds)(const fuzz_place *place, dlua_bytes *seed);
  // Reads the input. What it was read as (a number that differs for different shapes) goes to
  // *kind.
  dlua_status (*read)(const fuzz_place *place, const dlua_bytes *input, uint64_t *kind);
  // Makes checksums and sizes right again after a mutation, so that it gets past them; or NULL.
  void (*repair)(dlua_bytes *input);
} fuzz_target;

extern const fuzz_target fuzz_targets[]; // ended by a NULL name

// Damages input in place: a choice of bits, numbers, ranges and pieces of other, by (seed,
// iteration).
void fuzz_mutate(dlua_bytes *input, const dlua_bytes *other, uint64_t seed, uint64_t iteration);
// A number below limit, drawn for a purpose of one's own.
uint64_t fuzz_draw(uint64_t seed, uint64_t iteration, uint32_t purpose, uint64_t limit);

#endif
