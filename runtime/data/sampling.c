// sampling.c - orders drawn from Philox: the shuffle of an epoch and the split of a data set.
#include <stdlib.h>
#include <string.h>

#include "../rng.h"
#include "loader.h"

// Fisher and Yates; the number below n comes from 64 bits by multiplication, whose bias is under
// n / 2^64.
void dlua_permutation(uint64_t key, uint64_t round, int64_t n, int64_t *order) {
  for (int64_t i = 0; i < n; i++) order[i] = i;
  for (int64_t i = n - 1; i > 0; i--) {
    dlua_block bits = dlua_philox(key, 2, (uint64_t)i, round);
    uint64_t draw = (uint64_t)bits.lane[0] << 32 | bits.lane[1];
    int64_t other = (int64_t)((unsigned __int128)draw * (uint64_t)(i + 1) >> 64);
    int64_t swapped = order[i];
    order[i] = order[other], order[other] = swapped;
  }
}

typedef struct place {
  double at; // where in its class the example stands, 0..1
  int64_t label, position;
} place;

static int by_place(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->at != y->at) return x->at < y->at ? -1 : 1;
  if (x->label != y->label) return x->label < y->label ? -1 : 1;
  return x->position < y->position ? -1 : x->position > y->position;
}

static int by_label(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->label != y->label) return x->label < y->label ? -1 : 1;
  return x->at < y->at ? -1 : x->at > y->at;
}

// Orders the examples so that any run of them holds the classes in proportion: each class is spread
// evenly over the whole length.
static void interleave(place *places, int64_t n) {
  qsort(places, (size_t)n, sizeof *places, by_label);
  for (int64_t from = 0, to = 0; from < n; from = to) {
    while (to < n && places[to].label == places[from].label) to++;
    for (int64_t k = from; k < to; k++) {
      places[k].at = ((double)(k - from) + 0.5) / (double)(to - from);
    }
  }
  qsort(places, (size_t)n, sizeof *places, by_place);
}

static int rising(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

dlua_status dlua_split(uint64_t key, int64_t n, const int64_t *labels, int parts,
                       const int64_t *count, int64_t *order) {
  dlua_permutation(key, 0, n, order);
  if (labels && n > 0) {
    size_t bytes = (size_t)n * sizeof(place);
    place *places = dlua_new(bytes);
    if (!places) return DLUA_NO_MEMORY;
    for (int64_t k = 0; k < n; k++) {
      places[k] = (place){.at = (double)k, .label = labels[order[k]], .position = order[k]};
    }
    interleave(places, n);
    for (int64_t k = 0; k < n; k++) order[k] = places[k].position;
    dlua_delete(places, bytes);
  }
  for (int k = 0; k < parts; order += count[k], k++) {
    qsort(order, (size_t)count[k], sizeof *order, rising);
  }
  return DLUA_OK;
}
