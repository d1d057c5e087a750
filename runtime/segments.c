// segments.c - best fit over the free parts of a device's segments.
//
// Asking a GPU for memory takes as long as hundreds of kernels, and giving it back waits for the
// device, so a training step must do neither. Small requests come out of segments of 2 MiB, so that
// they never pin a large one; large requests out of segments that grow with what is in use already,
// so that their number stays small. A free block is found by its size in a table of lists, eight
// per doubling with a bit each for "not empty"; a block in use by its address in a hash table. Taken
// from PyTorch's allocator: the two pools and the figures of 1, 2 and 20 MiB. Refused: pools per
// stream, since a device here has one stream in order.
#include "segments.h"

#include <stdlib.h>

#define MIB ((size_t)1 << 20)

enum { SMALL, LARGE, POOLS };
enum { CLASSES = 8 * 48, WORDS = CLASSES / 64, FIRST_BUCKETS = 256 };

static const size_t most_small = MIB;               // requests up to this come from small segments
static const size_t small_segment = 2 * MIB;        // size of those
static const size_t usual_segment = 20 * MIB;       // least size of the others…
static const size_t largest_growth = 512 * MIB;     // …which grow up to this
static const size_t granule = 2 * MIB;              // what a device rounds to anyway
static const size_t worth_splitting[] = {256, MIB}; // a rest below this stays with its block

// A part of a segment, free or in use. Neighbours are those in address order in one segment.
typedef struct block {
  uintptr_t address;
  size_t size;
  struct block *before, *after;
  struct block *next, *previous; // free: in its list; in use: next in its bucket
  uint8_t pool;
  bool used;
} block;

struct dlua_segments {
  block *free[POOLS][CLASSES];
  uint64_t filled[POOLS][WORDS]; // a bit for each list that is not empty
  block **buckets;               // of blocks in use
  size_t bucket_count, used;
  size_t reserved;
  int segments, free_blocks;
};

static int pool_of(size_t bytes) { return bytes <= most_small ? SMALL : LARGE; }

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

size_t dlua_segments_round(size_t bytes) {
  return bytes ? round_up(bytes, DLUA_DEVICE_ALIGNMENT) : DLUA_DEVICE_ALIGNMENT;
}

// ---------------------------------------------------------------- free blocks by size

// The list of a size: those of one list differ by less than an eighth.
static int class_of(size_t size) {
  size_t units = size / DLUA_DEVICE_ALIGNMENT;
  if (units < 8) return (int)units;
  int log = 63 - __builtin_clzll(units);
  return 8 * (log - 2) + (int)(units >> (log - 3)) - 8;
}

static void insert_free(dlua_segments *s, block *b) {
  int class = class_of(b->size);
  block **list = &s->free[b->pool][class];
  b->used = false, b->previous = NULL, b->next = *list;
  if (*list) (*list)->previous = b;
  *list = b;
  s->filled[b->pool][class / 64] |= (uint64_t)1 << class % 64;
  s->free_blocks++;
}

static void remove_free(dlua_segments *s, block *b) {
  int class = class_of(b->size);
  block **list = &s->free[b->pool][class];
  if (b->previous)
    b->previous->next = b->next;
  else
    *list = b->next;
  if (b->next) b->next->previous = b->previous;
  if (!*list) s->filled[b->pool][class / 64] &= ~((uint64_t)1 << class % 64);
  s->free_blocks--;
}

// The smallest block of a list that has size bytes, or NULL.
static block *smallest_of(block *list, size_t size) {
  block *best = NULL;
  for (block *b = list; b; b = b->next) {
    if (b->size < size || (best && b->size >= best->size)) continue;
    best = b;
    if (b->size == size) break;
  }
  return best;
}

// The first list from class on that is not empty, or CLASSES.
static int next_filled(const uint64_t *filled, int class) {
  for (int word = class / 64; word < WORDS; word++) {
    uint64_t bits = filled[word];
    if (word == class / 64) bits &= ~(uint64_t)0 << class % 64;
    if (bits) return 64 * word + __builtin_ctzll(bits);
  }
  return CLASSES;
}

static block *best_fit(const dlua_segments *s, int pool, size_t size) {
  int class = next_filled(s->filled[pool], class_of(size));
  for (; class < CLASSES;
       class = class + 1 < CLASSES ? next_filled(s->filled[pool], class + 1) : CLASSES) {
    block *best = smallest_of(s->free[pool][class], size);
    if (best) return best;
  }
  return NULL;
}

// ---------------------------------------------------------------- blocks in use by address

static size_t bucket_of(const dlua_segments *s, uintptr_t address) {
  uint64_t hash = (uint64_t)(address / DLUA_DEVICE_ALIGNMENT) * UINT64_C(0x9e3779b97f4a7c15);
  return (size_t)(hash >> 32) & (s->bucket_count - 1);
}

static void insert_used(dlua_segments *s, block *b) {
  block **bucket = &s->buckets[bucket_of(s, b->address)];
  b->used = true, b->next = *bucket;
  *bucket = b;
  s->used++;
}

// Twice the buckets when there are more blocks; without memory for that, lists are only longer.
static void widen(dlua_segments *s) {
  size_t had = s->bucket_count;
  block **old = s->buckets, **wider = calloc(2 * had, sizeof *wider);
  if (!wider) return;
  s->buckets = wider, s->bucket_count = 2 * had, s->used = 0;
  for (size_t k = 0; k < had; k++) {
    for (block *b = old[k], *next; b; b = next) {
      next = b->next;
      insert_used(s, b);
    }
  }
  free(old);
}

static block *remove_used(dlua_segments *s, uintptr_t address) {
  block **link = &s->buckets[bucket_of(s, address)];
  while (*link && (*link)->address != address) link = &(*link)->next;
  block *found = *link;
  if (!found) return NULL;
  *link = found->next;
  s->used--;
  return found;
}

// ---------------------------------------------------------------- splitting and merging

// Cuts what a block has beyond size off into a free block of its own; without memory for that, the
// block stays whole.
static void split(dlua_segments *s, block *b, size_t size) {
  block *rest = malloc(sizeof *rest);
  if (!rest) return;
  *rest = (block){.address = b->address + size,
                  .size = b->size - size,
                  .before = b,
                  .after = b->after,
                  .pool = b->pool};
  if (b->after) b->after->before = rest;
  b->after = rest, b->size = size;
  insert_free(s, rest);
}

// b takes over its neighbour above.
static void absorb(block *b) {
  block *above = b->after;
  b->size += above->size, b->after = above->after;
  if (b->after) b->after->before = b;
  free(above);
}

void *dlua_segments_take(dlua_segments *s, size_t bytes) {
  size_t size = dlua_segments_round(bytes);
  int pool = pool_of(size);
  block *b = best_fit(s, pool, size);
  if (!b) return NULL;
  remove_free(s, b);
  if (b->size - size >= worth_splitting[pool]) split(s, b, size);
  if (s->used >= s->bucket_count) widen(s);
  insert_used(s, b);
  return (void *)b->address;
}

bool dlua_segments_give(dlua_segments *s, const void *address) {
  block *b = remove_used(s, (uintptr_t)address);
  if (!b) return false;
  if (b->after && !b->after->used) {
    remove_free(s, b->after);
    absorb(b);
  }
  if (b->before && !b->before->used) {
    b = b->before;
    remove_free(s, b);
    absorb(b);
  }
  insert_free(s, b);
  return true;
}

// ---------------------------------------------------------------- segments

size_t dlua_segments_least(size_t bytes) {
  size_t size = dlua_segments_round(bytes);
  return pool_of(size) == SMALL ? small_segment : round_up(size, granule);
}

// An eighth of what there is: the number of segments grows like a logarithm.
size_t dlua_segments_growth(const dlua_segments *s, size_t bytes) {
  size_t least = dlua_segments_least(bytes), more = s->reserved / 8;
  if (pool_of(dlua_segments_round(bytes)) == SMALL) return least;
  if (more < usual_segment) more = usual_segment;
  if (more > largest_growth) more = largest_growth;
  return least > more ? least : round_up(more, granule);
}

dlua_status dlua_segments_add(dlua_segments *s, void *memory, size_t size, size_t bytes) {
  block *b = malloc(sizeof *b);
  if (!b) return dlua_fail(DLUA_NO_MEMORY, "out of memory: %zu bytes more", sizeof *b);
  *b = (block){.address = (uintptr_t)memory,
               .size = size,
               .pool = (uint8_t)pool_of(dlua_segments_round(bytes))};
  insert_free(s, b);
  s->reserved += size, s->segments++;
  return DLUA_OK;
}

bool dlua_segments_remove(dlua_segments *s, void **memory, size_t *size) {
  for (int pool = 0; pool < POOLS; pool++) {
    for (int class = next_filled(s->filled[pool], 0); class < CLASSES; class ++) {
      for (block *b = s->free[pool][class]; b; b = b->next) {
        if (b->before || b->after) continue;
        *memory = (void *)b->address, *size = b->size;
        remove_free(s, b);
        s->reserved -= b->size, s->segments--;
        free(b);
        return true;
      }
    }
  }
  return false;
}

dlua_segment_figures dlua_segments_figures(const dlua_segments *s) {
  dlua_segment_figures f = {s->reserved, 0, s->segments, s->free_blocks};
  for (int pool = 0; pool < POOLS; pool++) {
    int class = CLASSES - 1;
    while (class >= 0 && !s->free[pool][class]) class --;
    if (class < 0) continue;
    for (block *b = s->free[pool][class]; b; b = b->next) {
      if (b->size > f.largest) f.largest = b->size;
    }
  }
  return f;
}

// ---------------------------------------------------------------- all of it

dlua_segments *dlua_segments_new(void) {
  dlua_segments *s = calloc(1, sizeof *s);
  block **buckets = calloc(FIRST_BUCKETS, sizeof *buckets);
  if (!s || !buckets) {
    free(s), free(buckets);
    dlua_fail(DLUA_NO_MEMORY, "out of memory: %zu bytes more", sizeof *s);
    return NULL;
  }
  s->buckets = buckets, s->bucket_count = FIRST_BUCKETS;
  return s;
}

static void delete_list(block *b) {
  while (b) {
    block *next = b->next;
    free(b);
    b = next;
  }
}

void dlua_segments_delete(dlua_segments *s) {
  if (!s) return;
  for (int pool = 0; pool < POOLS; pool++) {
    for (int class = 0; class < CLASSES; class ++) delete_list(s->free[pool][class]);
  }
  for (size_t k = 0; k < s->bucket_count; k++) delete_list(s->buckets[k]);
  free(s->buckets), free(s);
}
