// accumulate.c - the loops of accumulate.h for one instruction set.
#include "../accumulate.h"

// acc[k] = expression of itself, a, and the entry x: rows of neighbours in vectors, columns that
// lie apart one after the other.
#define LOOP(name, T, A, expression) \
  static void name(void *sums, const void *from, int64_t rows, int64_t stride, int64_t n, \
                   int64_t step) { \
    A *acc = sums; \
    const T *row = from; \
    for (int64_t r = 0; step == 1 && r < rows; r++, row += stride) { \
      _Pragma("omp simd") for (int64_t k = 0; k < n; k++) { \
        A a = acc[k], x = (A)row[k]; \
        acc[k] = expression; \
      } \
    } \
    for (int64_t k = 0; step != 1 && k < n; k++, row += step) { \
      A a = acc[k]; \
      for (int64_t r = 0; r < rows; r++) { \
        A x = (A)row[r * stride]; \
        a = expression; \
      } \
      acc[k] = a; \
    } \
  }

#define LOOPS(T, A, tag) \
  LOOP(sum_##tag, T, A, a + x) \
  LOOP(prod_##tag, T, A, a *x) \
  LOOP(all_##tag, T, A, (A)((a != 0) & (x != 0))) \
  LOOP(any_##tag, T, A, (A)((a != 0) | (x != 0)))

LOOPS(float, double, f32)
LOOPS(double, double, f64)
LOOPS(int64_t, uint64_t, i64)
LOOPS(int32_t, uint64_t, i32)
LOOPS(uint8_t, uint64_t, u8)

// Neighbours are compared in vectors without branches; a column by itself seldom finds a better
// one, so there a branch is quicker.
#define EXTREME(name, T, better) \
  static void name(void *best, int64_t *at, const void *from, int64_t rows, int64_t stride, \
                   int64_t n, int64_t step) { \
    T *top = best; \
    const T *row = from; \
    for (int64_t k = 0; step == 1 && k < n; k++) top[k] = row[k], at[k] = 0; \
    for (int64_t r = 1; step == 1 && r < rows; r++) { \
      row += stride; \
      _Pragma("omp simd") for (int64_t k = 0; k < n; k++) { \
        T x = row[k], b = top[k]; \
        top[k] = (better) ? x : b; \
        at[k] = (better) ? r : at[k]; \
      } \
    } \
    for (int64_t k = 0; step != 1 && k < n; k++, row += step) { \
      T b = *row; \
      int64_t place = 0; \
      for (int64_t r = 1; r < rows; r++) { \
        T x = row[r * stride]; \
        if (__builtin_expect(better, 0)) b = x, place = r; \
      } \
      top[k] = b, at[k] = place; \
    } \
  }
EXTREME(largest_f32, float, !(x <= b) & (b == b))
EXTREME(largest_f64, double, !(x <= b) & (b == b))
EXTREME(largest_i64, int64_t, x > b)
EXTREME(largest_i32, int32_t, x > b)
EXTREME(largest_u8, uint8_t, x > b)
EXTREME(smallest_f32, float, !(x >= b) & (b == b))
EXTREME(smallest_f64, double, !(x >= b) & (b == b))
EXTREME(smallest_i64, int64_t, x < b)
EXTREME(smallest_i32, int32_t, x < b)
EXTREME(smallest_u8, uint8_t, x < b)

static bool inside(const int64_t *index, int64_t n, int64_t extent) {
  uint64_t outside = 0; // its sign: that of a difference below 0
#pragma omp simd reduction(| : outside)
  for (int64_t k = 0; k < n; k++)
    outside |= ((uint64_t)index[k] - 1) | ((uint64_t)extent - (uint64_t)index[k]);
  return outside >> 63 == 0;
}

#define OF_TYPES(op) \
  { op##_f32, op##_f64, NULL, NULL, op##_i64, op##_i32, op##_u8, op##_u8 }
#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)

extern const dlua_accumulators NAMED(dlua_accumulators_, DLUA_ISA);
const dlua_accumulators NAMED(dlua_accumulators_, DLUA_ISA) = {
    {OF_TYPES(sum), OF_TYPES(prod), OF_TYPES(all), OF_TYPES(any)},
    OF_TYPES(largest),
    OF_TYPES(smallest),
    inside};
