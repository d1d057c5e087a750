// iterate.c - runs a loop that iterate_layout.c has laid out, row by row, on one thread or the team.
#include "iterate.h"

#include <string.h>

#include "../parallel.h"

typedef struct job {
  const dlua_iter *it;
  dlua_row *row;
  void *context;
} job;

// Pointers and position of element number from; returns its place in the row.
static int64_t seek(const dlua_iter *it, int64_t from, int64_t *at, char **data) {
  memcpy(data, it->data, sizeof it->data);
  for (int d = 0; d < it->ndim; d++) {
    at[d] = from % it->size[d], from /= it->size[d];
    for (int k = 0; k < it->n; k++) data[k] += at[d] * it->stride[k][d];
  }
  return at[0];
}

// To the start of the next row, from place at[0] = 0.
static void next_row(const dlua_iter *it, int64_t *at, char **data) {
  for (int d = 1; d < it->ndim; d++) {
    bool carry = ++at[d] == it->size[d];
    int64_t steps = carry ? 1 - it->size[d] : 1;
    for (int k = 0; k < it->n; k++) data[k] += steps * it->stride[k][d];
    if (!carry) return;
    at[d] = 0;
  }
}

static void run_slice(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const dlua_iter *it = j->it;
  if (from == to) return; // a size may be 0 here
  int64_t at[DLUA_MAX_DIMS], inner[DLUA_ITER_OPERANDS];
  char *data[DLUA_ITER_OPERANDS], *row[DLUA_ITER_OPERANDS];
  for (int k = 0; k < it->n; k++) inner[k] = it->stride[k][0];
  int64_t place = seek(it, from, at, data);
  while (from < to) {
    int64_t count = it->size[0] - place < to - from ? it->size[0] - place : to - from;
    memcpy(row, data, sizeof row);
    j->row(j->context, count, row, inner);
    from += count;
    for (int k = 0; k < it->n; k++) data[k] -= place * inner[k];
    place = 0;
    next_row(it, at, data);
  }
}

static int64_t count_of(const dlua_iter *it) {
  int64_t count = 1;
  for (int d = 0; d < it->ndim; d++) count *= it->size[d];
  return count;
}

void dlua_iter_run_serial(const dlua_iter *it, dlua_row *row, void *context) {
  run_slice(&(job){it, row, context}, 0, count_of(it));
}

void dlua_iter_run(const dlua_iter *it, double cost, dlua_row *row, void *context) {
  int64_t count = count_of(it);
  if (it->ndim == 1 && count < 4096) {
    int64_t inner[DLUA_ITER_OPERANDS];
    char *data[DLUA_ITER_OPERANDS];
    for (int k = 0; k < it->n; k++) inner[k] = it->stride[k][0], data[k] = it->data[k];
    if (count > 0) row(context, count, data, inner);
    return;
  }
  dlua_parallel(count, cost, run_slice, &(job){it, row, context});
}
