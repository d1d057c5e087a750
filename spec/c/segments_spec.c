// Blocks cut from a device's segments: no two overlap, and all merge again.
#include <stdlib.h>

#include "../../runtime/segments.h"
#include "check.h"

enum { MIB = 1 << 20 };

// Segments at made-up addresses: nothing may touch the memory they stand for.
static uintptr_t next_address = (uintptr_t)1 << 44;

static void *take(dlua_segments *s, size_t bytes) {
  void *block = dlua_segments_take(s, bytes);
  if (block) return block;
  size_t size = dlua_segments_growth(s, bytes);
  CHECK_OK(dlua_segments_add(s, (void *)next_address, size, bytes));
  next_address += size + 2 * MIB;
  return dlua_segments_take(s, bytes);
}

// Gives all free segments back and says how many there were.
static int remove_all(dlua_segments *s) {
  void *memory;
  size_t size;
  int count = 0;
  while (dlua_segments_remove(s, &memory, &size)) count++;
  return count;
}

SPEC(requests_are_rounded_and_aligned) {
  CHECK(dlua_segments_round(0) == 256 && dlua_segments_round(1) == 256);
  CHECK(dlua_segments_round(256) == 256 && dlua_segments_round(257) == 512);
  dlua_segments *s = dlua_segments_new();
  for (size_t bytes = 0; bytes < 3 * MIB; bytes += 99991)
    CHECK((uintptr_t)take(s, bytes) % DLUA_DEVICE_ALIGNMENT == 0);
  dlua_segments_delete(s);
}

SPEC(small_requests_share_small_segments) {
  dlua_segments *s = dlua_segments_new();
  char *first = take(s, 1000), *second = take(s, 1000);
  CHECK(second == first + 1024);
  CHECK(dlua_segments_figures(s).segments == 1 && dlua_segments_figures(s).reserved == 2 * MIB);
  take(s, MIB), take(s, 3 * MIB); // the first fits beside them, the second is for large requests
  CHECK(dlua_segments_figures(s).segments == 2);
  CHECK(dlua_segments_figures(s).reserved == 22 * MIB);
  dlua_segments_delete(s);
}

SPEC(large_segments_grow_with_what_is_there) {
  dlua_segments *s = dlua_segments_new();
  CHECK(dlua_segments_growth(s, 3 * MIB) == 20 * MIB && dlua_segments_least(3 * MIB) == 4 * MIB);
  CHECK(dlua_segments_growth(s, 33 * MIB) == 34 * MIB);
  take(s, (size_t)1024 * MIB);
  CHECK(dlua_segments_growth(s, 3 * MIB) == 128 * MIB);
  take(s, (size_t)65536 * MIB);
  CHECK(dlua_segments_growth(s, 3 * MIB) == 512 * MIB);
  CHECK(dlua_segments_growth(s, 10) == 2 * MIB);
  dlua_segments_delete(s);
}

SPEC(the_best_fit_is_taken) {
  dlua_segments *s = dlua_segments_new();
  void *blocks[7];
  static const int kib[7] = {64, 1, 16, 1, 24, 1, 17}; // those of one KiB keep the others apart
  for (int k = 0; k < 7; k++) blocks[k] = take(s, (size_t)kib[k] << 10);
  for (int k = 0; k < 7; k += 2) CHECK(dlua_segments_give(s, blocks[k]));
  CHECK(dlua_segments_take(s, 15 << 10) == blocks[2]);
  CHECK(dlua_segments_take(s, 17 << 10) == blocks[4]); // that of 17 has merged with what follows
  CHECK(dlua_segments_take(s, 40 << 10) == blocks[0]);
  dlua_segments_delete(s);
}

SPEC(neighbours_merge_whatever_the_order) {
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  for (int o = 0; o < 6; o++) {
    dlua_segments *s = dlua_segments_new();
    void *blocks[3];
    for (int k = 0; k < 3; k++) blocks[k] = take(s, 512 << 10);
    for (int k = 0; k < 3; k++) CHECK(dlua_segments_give(s, blocks[orders[o][k]]));
    dlua_segment_figures f = dlua_segments_figures(s);
    CHECK(f.free_blocks == 1 && f.largest == 2 * MIB);
    CHECK(remove_all(s) == 1 && dlua_segments_figures(s).reserved == 0);
    dlua_segments_delete(s);
  }
}

SPEC(what_is_not_a_block_is_refused) {
  dlua_segments *s = dlua_segments_new();
  char *block = take(s, 1000);
  CHECK(!dlua_segments_give(s, block + 256) && !dlua_segments_give(s, NULL));
  CHECK(dlua_segments_give(s, block) && !dlua_segments_give(s, block));
  dlua_segments_delete(s);
}

// ---------------------------------------------------------------- anything in any order

enum { HELD = 600, ROUNDS = 60000 };

typedef struct held {
  uintptr_t from, to;
} held;

static int by_address(const void *a, const void *b) {
  const held *x = a, *y = b;
  return x->from < y->from ? -1 : x->from > y->from;
}

static bool no_overlap(const held *blocks) {
  held sorted[HELD];
  memcpy(sorted, blocks, sizeof sorted);
  qsort(sorted, HELD, sizeof *sorted, by_address);
  for (int k = 1; k < HELD; k++) {
    if (sorted[k].from && sorted[k].from < sorted[k - 1].to) return false;
  }
  return true;
}

static size_t random_size(unsigned *state) {
  *state = *state * 1664525 + 1013904223;
  size_t log = (*state >> 8) % 25;
  *state = *state * 1664525 + 1013904223;
  return ((size_t)1 << log) + (*state >> 8) % ((size_t)1 << log);
}

SPEC(random_blocks_never_overlap_and_all_merge) {
  for (unsigned seed = 1; seed <= 3; seed++) {
    dlua_segments *s = dlua_segments_new();
    static held blocks[HELD];
    unsigned state = seed;
    memset(blocks, 0, sizeof blocks);
    size_t live = 0, most = 0;
    for (int round = 0; round < ROUNDS; round++) {
      held *h = &blocks[random_size(&state) % HELD];
      if (h->from) {
        if (!CHECK(dlua_segments_give(s, (void *)h->from))) return;
        live -= h->to - h->from;
        *h = (held){0};
        continue;
      }
      size_t bytes = dlua_segments_round(random_size(&state));
      void *block = take(s, bytes);
      if (!CHECK(block != NULL)) return;
      *h = (held){(uintptr_t)block, (uintptr_t)block + bytes};
      live += bytes;
      if (live > most) most = live;
      if (round % 500 == 0 && !CHECK(no_overlap(blocks))) return;
      if (round % 5000 == 0) remove_all(s);
    }
    dlua_segment_figures f = dlua_segments_figures(s);
    if (!CHECK(f.reserved >= live && f.reserved < most + most / 2 + 100 * MIB))
      printf("  %zu MiB reserved for at most %zu MiB\n", f.reserved / MIB, most / MIB);
    for (int k = 0; k < HELD; k++) {
      if (blocks[k].from) CHECK(dlua_segments_give(s, (void *)blocks[k].from));
    }
    f = dlua_segments_figures(s);
    CHECK(f.free_blocks == f.segments);
    CHECK(remove_all(s) == f.segments && dlua_segments_figures(s).reserved == 0);
    dlua_segments_delete(s);
  }
}

int main(void) {
  RUN(requests_are_rounded_and_aligned);
  RUN(small_requests_share_small_segments);
  RUN(large_segments_grow_with_what_is_there);
  RUN(the_best_fit_is_taken);
  RUN(neighbours_merge_whatever_the_order);
  RUN(what_is_not_a_block_is_refused);
  RUN(random_blocks_never_overlap_and_all_merge);
  return finish();
}
