// fold.c - the loops of fold.h, written once with sixteen lanes of f32 and compiled per instruction
// set (DLUA_ISA): narrower registers take several of them, so every set adds in the same order.
//
// Sums stay in the lanes for at most 64 additions each and then move to double: the error does not
// grow with the length. exp is a polynomial of degree 6 after Cody and Waite's reduction, within 2
// ulp; what would be subnormal is 0.
#include "../fold.h"

#include <math.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "../../normal.h"
#include "../../rng.h"

enum { LANES = 16, GROUP = 4, DEPTH = DLUA_FOLD_DEPTH };

// Lanes wider than the registers would change the calling convention; nothing here is called with
// them.
#pragma GCC diagnostic ignored "-Wpsabi"

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));

static inline vec splat(float x) { return x - (vec){0}; }
static inline vec load(const float *x) { return *(const vec *)x; }
static inline void store(float *y, vec v) { *(vec *)y = v; }
static inline vec choose(ivec mask, vec a, vec b) {
  return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

// The first n < 16 elements, the other lanes filled.
static inline vec load_some(const float *x, int64_t n, float fill) {
#ifdef __AVX512F__
  return (vec)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), x);
#else
  float lanes[LANES];
  for (int k = 0; k < LANES; k++) lanes[k] = fill;
  for (int64_t k = 0; k < n; k++) lanes[k] = x[k];
  return load(lanes);
#endif
}

static inline void store_some(float *y, vec v, int64_t n) {
#ifdef __AVX512F__
  _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  float lanes[LANES];
  store(lanes, v);
  for (int64_t k = 0; k < n; k++) y[k] = lanes[k];
#endif
}

// Lane k of the result is lane k + width.
static inline vec shift_lanes(vec v, int width) {
  const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return __builtin_shuffle(v, (lane + width) & (LANES - 1));
}

static inline float add_lanes(vec v) {
  v += shift_lanes(v, 8);
  v += shift_lanes(v, 4);
  v += shift_lanes(v, 2);
  v += shift_lanes(v, 1);
  return v[0];
}

// ---------------------------------------------------------------- sums

static double sum_row(const float *x, int64_t n) {
  double total = 0;
  int64_t k = 0;
  while (k + GROUP * LANES <= n) {
    vec a = {0}, b = {0}, c = {0}, d = {0};
    for (int depth = 0; depth < DEPTH && k + GROUP * LANES <= n; depth++, k += GROUP * LANES) {
      a += load(x + k), b += load(x + k + LANES);
      c += load(x + k + 2 * LANES), d += load(x + k + 3 * LANES);
    }
    total += (double)add_lanes((a + b) + (c + d));
  }
  vec rest = {0};
  for (; k + LANES <= n; k += LANES) rest += load(x + k);
  if (k < n) rest += load_some(x + k, n - k, 0);
  return total + (double)add_lanes(rest);
}

// Two sums at a time, so that additions overlap.
static double sum_squares(const float *x, int64_t n, float centre) {
  vec middle = splat(centre);
  double total = 0;
  int64_t k = 0;
  while (k + 2 * LANES <= n) {
    vec a = {0}, b = {0};
    for (int depth = 0; depth < DEPTH && k + 2 * LANES <= n; depth++, k += 2 * LANES) {
      vec p = load(x + k) - middle, q = load(x + k + LANES) - middle;
      a += p * p, b += q * q;
    }
    total += (double)add_lanes(a + b);
  }
  for (; k < n; k++) total += ((double)x[k] - (double)centre) * ((double)x[k] - (double)centre);
  return total;
}

static double sum_squared_differences(const float *x, const float *y, int64_t n) {
  double total = 0;
  int64_t k = 0;
  while (k + 2 * LANES <= n) {
    vec a = {0}, b = {0};
    for (int depth = 0; depth < DEPTH && k + 2 * LANES <= n; depth++, k += 2 * LANES) {
      vec p = load(x + k) - load(y + k), q = load(x + k + LANES) - load(y + k + LANES);
      a += p * p, b += q * q;
    }
    total += (double)add_lanes(a + b);
  }
  for (; k < n; k++) total += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
  return total;
}

static void add_to_doubles(double *sums, vec v, int64_t n) {
  float lanes[LANES];
  store(lanes, v);
  for (int64_t k = 0; k < n; k++) sums[k] += (double)lanes[k];
}

// Sixty-four columns of at most DEPTH rows.
static void add_wide(double *sums, const float *x, int64_t rows, int64_t stride) {
  vec a = {0}, b = {0}, c = {0}, d = {0};
  for (int64_t r = 0; r < rows; r++, x += stride) {
    a += load(x), b += load(x + LANES), c += load(x + 2 * LANES), d += load(x + 3 * LANES);
  }
  add_to_doubles(sums, a, LANES), add_to_doubles(sums + LANES, b, LANES);
  add_to_doubles(sums + 2 * LANES, c, LANES), add_to_doubles(sums + 3 * LANES, d, LANES);
}

static void add_narrow(double *sums, const float *x, int64_t rows, int64_t stride, int64_t n) {
  vec a = {0};
  if (n >= LANES) {
    for (int64_t r = 0; r < rows; r++) a += load(x + r * stride);
  } else {
    for (int64_t r = 0; r < rows; r++) a += load_some(x + r * stride, n, 0);
  }
  add_to_doubles(sums, a, n < LANES ? n : LANES);
}

static void add_rows(double *sums, const float *x, int64_t rows, int64_t stride, int64_t n) {
  for (int64_t r = 0; r < rows; r += DEPTH, x += DEPTH * stride) {
    int64_t some = rows - r < DEPTH ? rows - r : DEPTH, k = 0;
    for (; k + GROUP * LANES <= n; k += GROUP * LANES) add_wide(sums + k, x + k, some, stride);
    for (; k < n; k += LANES) add_narrow(sums + k, x + k, some, stride, n - k);
  }
}

// ---------------------------------------------------------------- extremes

static inline vec larger(vec a, vec b) { return choose(a > b, a, b); }

// The same where either may be nan, which wins.
static inline vec larger_or_nan(vec a, vec b) { return choose((a > b) | (a != a), a, b); }

// sign times the largest element of sign * x; a nan anywhere makes the result nan.
static inline float extreme(const float *x, int64_t n, float sign) {
  vec flip = splat(sign), a = splat(-INFINITY), b = a;
  ivec nans = {0};
  int64_t k = 0;
  for (; k + 2 * LANES <= n; k += 2 * LANES) {
    vec p = load(x + k) * flip, q = load(x + k + LANES) * flip;
    nans |= (p != p) | (q != q);
    a = larger(p, a), b = larger(q, b);
  }
  for (; k < n; k += LANES) {
    vec p = n - k < LANES ? load_some(x + k, n - k, x[k]) * flip : load(x + k) * flip;
    nans |= p != p;
    a = larger(p, a);
  }
  vec top = choose(nans, splat(NAN), larger(a, b));
  top = larger_or_nan(top, shift_lanes(top, 8));
  top = larger_or_nan(top, shift_lanes(top, 4));
  top = larger_or_nan(top, shift_lanes(top, 2));
  top = larger_or_nan(top, shift_lanes(top, 1));
  return top[0] * sign;
}

static float max_row(const float *x, int64_t n) { return extreme(x, n, 1); }
static float min_row(const float *x, int64_t n) { return extreme(x, n, -1); }

// ---------------------------------------------------------------- softmax

static inline vec exp_lanes(vec x) {
  const float shift = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
  vec clamped = choose(x < splat(-87.0f), splat(-87.0f), x);
  clamped = choose(clamped > splat(88.5f), splat(88.5f), clamped);
  vec shifted = clamped * 1.44269504f + shift, n = shifted - shift;
  vec r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  vec p = r * 1.3981999507e-3f + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  ivec power = ((ivec)shifted << 23) + (127 << 23);
  vec y = p * (vec)power;
  y = choose(x > splat(88.72f), splat(INFINITY), y);
  return choose(x < splat(-87.0f), (vec){0}, y);
}

// y = exp(x - top); returns the sum.
static inline double exp_row(float *y, const float *x, int64_t n, float top) {
  vec shift = splat(top);
  double total = 0;
  int64_t k = 0;
  while (k + LANES <= n) {
    vec sum = {0};
    for (int depth = 0; depth < DEPTH && k + LANES <= n; depth++, k += LANES) {
      vec e = exp_lanes(load(x + k) - shift);
      if (y) store(y + k, e);
      sum += e;
    }
    total += (double)add_lanes(sum);
  }
  if (k < n) {
    vec e = exp_lanes(load_some(x + k, n - k, -INFINITY) - shift);
    if (y) store_some(y + k, e, n - k);
    total += (double)add_lanes(e);
  }
  return total;
}

static void softmax_row(float *y, const float *x, int64_t n, float scale) {
  float factor = (float)((double)scale / exp_row(y, x, n, max_row(x, n)));
  for (int64_t k = 0; k < n; k++) y[k] *= factor;
}

static double log_sum_exp(const float *x, int64_t n, float *top) {
  *top = max_row(x, n);
  return log(exp_row(NULL, x, n, *top));
}

static void log_softmax_row(float *y, const float *x, int64_t n) {
  float top = max_row(x, n), rest = (float)log(exp_row(NULL, x, n, top));
  for (int64_t k = 0; k < n; k++) y[k] = (x[k] - top) - rest;
}

// ---------------------------------------------------------------- softmax across lanes

// Sixteen columns (n of them wanted) of count entries, stride apart.
static inline vec load_column(const float *x, int64_t n) {
  return n < LANES ? load_some(x, n, 0) : load(x);
}

static void store_column(float *y, vec v, int64_t n) {
  if (n < LANES)
    store_some(y, v, n);
  else
    store(y, v);
}

static inline vec column_tops(const float *x, int64_t count, int64_t stride, int64_t n) {
  vec top = splat(-INFINITY);
  for (int64_t c = 0; c < count; c++) top = larger_or_nan(top, load_column(x + c * stride, n));
  return top;
}

static void column_sums(const float *x, int64_t count, int64_t stride, int64_t n, float *tops,
                        float *sums) {
  vec top = column_tops(x, count, stride, n), sum = {0};
  for (int64_t c = 0; c < count; c++) sum += exp_lanes(load_column(x + c * stride, n) - top);
  store(tops, top), store(sums, sum);
}

static void softmax_columns(float *y, const float *x, int64_t count, int64_t stride, int64_t n,
                            const float *scale) {
  vec top = column_tops(x, count, stride, n), sum = {0};
  for (int64_t c = 0; c < count; c++) {
    vec e = exp_lanes(load_column(x + c * stride, n) - top);
    store_column(y + c * stride, e, n);
    sum += e;
  }
  vec factor = load(scale) / sum;
  for (int64_t c = 0; c < count; c++)
    store_column(y + c * stride, load_column(y + c * stride, n) * factor, n);
}

static double dot_row(const float *x, const float *y, int64_t n) {
  double total = 0;
  int64_t k = 0;
  while (k + LANES <= n) {
    vec sum = {0};
    for (int depth = 0; depth < DEPTH && k + LANES <= n; depth++, k += LANES)
      sum += load(x + k) * load(y + k);
    total += (double)add_lanes(sum);
  }
  for (; k < n; k++) total += (double)x[k] * (double)y[k];
  return total;
}

static void softmax_grad_row(float *gx, const float *g, const float *y, int64_t n) {
  float dot = (float)dot_row(g, y, n);
  for (int64_t k = 0; k < n; k++) gx[k] = y[k] * (g[k] - dot);
}

static void log_softmax_grad_row(float *gx, const float *g, const float *y, int64_t n) {
  float sum = (float)sum_row(g, n);
  vec sums = splat(sum);
  int64_t k = 0;
  for (; k + LANES <= n; k += LANES) store(gx + k, load(g + k) - exp_lanes(load(y + k)) * sums);
  if (k < n) {
    vec e = exp_lanes(load_some(y + k, n - k, 0));
    store_some(gx + k, load_some(g + k, n - k, 0) - e * sums, n - k);
  }
}

static void softmax_grad_columns(float *gx, const float *g, const float *y, int64_t count,
                                 int64_t stride, int64_t n) {
  vec dot = {0};
  for (int64_t c = 0; c < count; c++)
    dot += load_column(g + c * stride, n) * load_column(y + c * stride, n);
  for (int64_t c = 0; c < count * stride; c += stride)
    store_column(gx + c, load_column(y + c, n) * (load_column(g + c, n) - dot), n);
}

static void log_softmax_grad_columns(float *gx, const float *g, const float *y, int64_t count,
                                     int64_t stride, int64_t n) {
  vec sum = {0};
  for (int64_t c = 0; c < count; c++) sum += load_column(g + c * stride, n);
  for (int64_t c = 0; c < count * stride; c += stride)
    store_column(gx + c, load_column(g + c, n) - exp_lanes(load_column(y + c, n)) * sum, n);
}

// ---------------------------------------------------------------- random numbers

typedef uint32_t uvec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint64_t wide __attribute__((vector_size(64), aligned(4), may_alias));

// Both halves of the 64-bit products of all lanes with factor.
static inline void multiply_wide(uvec a, uint32_t factor, uvec *high, uvec *low) {
  const uint64_t lower = 0xFFFFFFFFu;
#ifdef __AVX512F__
  __m512i f = _mm512_set1_epi64((long long)factor);
  wide even = (wide)_mm512_mul_epu32((__m512i)a, f);
  wide odd = (wide)_mm512_mul_epu32((__m512i)((wide)a >> 32), f);
#else
  wide even = ((wide)a & lower) * factor, odd = ((wide)a >> 32) * factor;
#endif
  *high = (uvec)((even >> 32) | (odd & ~lower));
  *low = (uvec)((even & lower) | (odd << 32));
}

// a and b lane by lane in turn: the lower or the upper halves.
static inline uvec weave_low(uvec a, uvec b) {
  const uvec lanes = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  return __builtin_shuffle(a, b, lanes);
}

static inline uvec weave_high(uvec a, uvec b) {
  const uvec lanes = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return __builtin_shuffle(a, b, lanes);
}

// Sixteen blocks at once, one per lane; their counters differ in the lower word only.
static inline void philox_lanes(uint32_t *bits, uint64_t key, uint64_t first) {
  const uvec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  uvec c0 = lane + (uint32_t)first, c1 = (uvec){0} + (uint32_t)(first >> 32), c2 = {0}, c3 = {0};
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    uvec high0, low0, high1, low1;
    multiply_wide(c0, 0xD2511F53u, &high0, &low0);
    multiply_wide(c2, 0xCD9E8D57u, &high1, &low1);
    c0 = high1 ^ c1 ^ k0, c2 = high0 ^ c3 ^ k1, c1 = low1, c3 = low0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  uvec even0 = weave_low(c0, c2), even1 = weave_high(c0, c2);
  uvec odd0 = weave_low(c1, c3), odd1 = weave_high(c1, c3), *out = (uvec *)bits;
  out[0] = weave_low(even0, odd0), out[1] = weave_high(even0, odd0);
  out[2] = weave_low(even1, odd1), out[3] = weave_high(even1, odd1);
}

static void philox(uint32_t *bits, uint64_t key, uint64_t first, int64_t blocks) {
  int64_t k = 0;
  for (; k + LANES <= blocks; k += LANES) {
    uint64_t block = first + (uint64_t)k;
    if ((uint32_t)block > UINT32_MAX - LANES) break; // the lower words would wrap
    philox_lanes(bits + 4 * k, key, block);
  }
  for (; k < blocks; k++) {
    dlua_block block = dlua_philox(key, 0, first + (uint64_t)k, 0);
    memcpy(bits + 4 * k, block.lane, sizeof block.lane);
  }
}

static void uniform(float *y, const uint32_t *bits, int64_t n, float low, float span) {
  for (int64_t k = 0; k < n; k++) y[k] = fmaf((float)(int32_t)(bits[k] >> 8) * 0x1p-24f, span, low);
}

static void normal(float *y, const uint32_t *bits, int64_t n, float mean, float std) {
  for (int64_t k = 0; k < n; k += 2) {
    float first, second;
    dlua_normal_pair_f32(bits[k], bits[k + 1], &first, &second);
    y[k] = fmaf(std, first, mean), y[k + 1] = fmaf(std, second, mean);
  }
}

static void dropout(float *restrict y, uint8_t *restrict mask, const float *restrict x,
                    const uint32_t *restrict bits, int64_t n, uint32_t threshold, float scale) {
  for (int64_t k = 0; k < n; k++) {
    float scaled = x[k] * scale;
    y[k] = bits[k] >> 8 >= threshold ? scaled : 0;
  }
  for (int64_t k = 0; k < n; k++) mask[k] = bits[k] >> 8 >= threshold;
}

// ---------------------------------------------------------------- the table

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

extern const dlua_fold_kernels JOIN(dlua_fold_, DLUA_ISA);
const dlua_fold_kernels JOIN(dlua_fold_, DLUA_ISA) = {
    .sum = sum_row,
    .sum_squares = sum_squares,
    .sum_squared_differences = sum_squared_differences,
    .add_rows = add_rows,
    .max = max_row,
    .min = min_row,
    .log_sum_exp = log_sum_exp,
    .softmax = softmax_row,
    .log_softmax = log_softmax_row,
    .column_sums = column_sums,
    .softmax_columns = softmax_columns,
    .softmax_grad = softmax_grad_row,
    .log_softmax_grad = log_softmax_grad_row,
    .softmax_grad_columns = softmax_grad_columns,
    .log_softmax_grad_columns = log_softmax_grad_columns,
    .philox = philox,
    .uniform = uniform,
    .normal = normal,
    .dropout = dropout,
};
