// accumulate.h - sums, products, logical folds and extremes of every dtype, compiled once per
// instruction set (simd/accumulate.c).
//
// One loop serves all shapes: acc[k] takes in entry k of every row. A long row is rows of a hundred
// entries below each other, many short rows are columns that lie a row apart.
#ifndef DLUA_ACCUMULATE_H
#define DLUA_ACCUMULATE_H

#include "../dlua.h"

typedef enum dlua_folding {
  DLUA_FOLD_SUM,
  DLUA_FOLD_PROD,
  DLUA_FOLD_ALL,
  DLUA_FOLD_ANY
} dlua_folding;

// What one result becomes: f for float tensors, i (which wraps) for all others.
typedef union dlua_cell {
  double f;
  uint64_t i;
} dlua_cell;

// Folds x[r * stride + k * step] into cell acc[k] for r < rows, in order, and k < n.
typedef void dlua_accumulate(void *acc, const void *x, int64_t rows, int64_t stride, int64_t n,
                             int64_t step);

// Where the largest (or smallest) of x[r * stride + k * step] over r < rows stands, counted from 0,
// into at[k] for k < n, and itself into best[k]. The first of equals; a nan wins, the first one.
typedef void dlua_extreme(void *best, int64_t *at, const void *x, int64_t rows, int64_t stride,
                          int64_t n, int64_t step);

typedef struct dlua_accumulators {
  // By folding and dtype; NULL for bf16 and f16.
  dlua_accumulate *of[4][DLUA_DTYPES];
  dlua_extreme *largest[DLUA_DTYPES], *smallest[DLUA_DTYPES];
  bool (*inside)(const int64_t *index, int64_t n, int64_t extent); // are all in 1..extent?
} dlua_accumulators;

// The set of the instruction set in use.
const dlua_accumulators *dlua_accumulate_simd(void);

#endif
