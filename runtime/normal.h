// normal.h - pairs of normal deviates from random words by Box and Muller's method ("A note on the
// generation of random normal deviates", 1958), shared by C and CUDA.
//
// The same bits come out wherever it is compiled: every sum of a product is written as fma, the
// rest are single roundings (products, quotients, square roots), so that a compiler finds nothing
// to contract. log is the series 2 artanh((m - 1) / (m + 1)) on [sqrt(1/2), sqrt(2)), sine and
// cosine are their series on [-pi/4, pi/4] after an exact reduction in integers.
#ifndef DLUA_NORMAL_H
#define DLUA_NORMAL_H

#include <math.h>
#include <string.h>

#include "rng.h"

// -2 log(k / 2^24) for 1 <= k <= 2^24.
DLUA_INLINE float dlua_minus_two_log_f32(uint32_t k) {
  float f = (float)(int32_t)k, m;
  int32_t bits;
  memcpy(&bits, &f, sizeof bits);
  int32_t e = (bits - 0x3F3504F3) >> 23;
  bits -= e * (1 << 23);
  memcpy(&m, &bits, sizeof m);
  float s = (m - 1) / (m + 1), s2 = s * s;
  float p = fmaf(s2, 0.18181818f, 0.22222222f);
  p = fmaf(s2, p, 0.28571429f);
  p = fmaf(s2, p, 0.4f);
  p = fmaf(s2, p, 0.66666667f);
  float log_m = fmaf(s * s2, p, 2 * s);
  return -2 * fmaf((float)(e - 24), 0.69314718f, log_m);
}

// Two independent deviates from two random words.
DLUA_INLINE void dlua_normal_pair_f32(uint32_t a, uint32_t b, float *first, float *second) {
  float r = sqrtf(dlua_minus_two_log_f32((a >> 8) + 1));
  int32_t k = (int32_t)(b >> 8), quarter = (k + (1 << 21)) >> 22;
  float t = (float)(k - quarter * (1 << 22)) * 3.7450703e-07f; // pi / 2^23
  float t2 = t * t;
  float p = fmaf(t2, 2.7557319e-06f, -1.9841270e-04f);
  p = fmaf(t2, p, 8.3333333e-03f);
  p = fmaf(t2, p, -0.16666667f);
  float sine = fmaf(t * t2, p, t);
  float q = fmaf(t2, 2.4801587e-05f, -1.3888889e-03f);
  q = fmaf(t2, q, 4.1666667e-02f);
  q = fmaf(t2, q, -0.5f);
  float cosine = fmaf(t2, q, 1.0f);
  float x = quarter & 1 ? sine : cosine, y = quarter & 1 ? cosine : sine;
  *first = r * ((quarter + 1) & 2 ? -x : x);
  *second = r * (quarter & 2 ? -y : y);
}

// The same in double, from two words of 64 bits.
DLUA_INLINE double dlua_minus_two_log_f64(uint64_t k) {
  double f = (double)(int64_t)k, m;
  int64_t bits;
  memcpy(&bits, &f, sizeof bits);
  int64_t e = (bits - 0x3FE6A09E667F3BCD) >> 52;
  bits -= e * ((int64_t)1 << 52);
  memcpy(&m, &bits, sizeof m);
  double s = (m - 1) / (m + 1), s2 = s * s, p = 2.0 / 25;
  for (int n = 23; n >= 3; n -= 2) p = fma(s2, p, 2.0 / n);
  double log_m = fma(s * s2, p, 2 * s);
  return -2 * fma((double)(e - 53), 0.69314718055994530942, log_m);
}

DLUA_INLINE void dlua_normal_pair_f64(uint64_t a, uint64_t b, double *first, double *second) {
  const double sines[] = {2.8114572543455206e-15,  -7.6471637318198164e-13, 1.6059043836821613e-10,
                          -2.5052108385441720e-08, 2.7557319223985893e-06,  -1.9841269841269841e-04,
                          8.3333333333333332e-03,  -1.6666666666666666e-01};
  const double cosines[] = {4.7794773323873853e-14, -1.1470745597729725e-11,
                            2.0876756987868100e-09, -2.7557319223985888e-07,
                            2.4801587301587302e-05, -1.3888888888888889e-03,
                            4.1666666666666664e-02, -0.5};
  double r = sqrt(dlua_minus_two_log_f64((a >> 11) + 1));
  int64_t k = (int64_t)(b >> 11), quarter = (k + ((int64_t)1 << 50)) >> 51;
  double t = (double)(k - quarter * ((int64_t)1 << 51)) * 6.9757369960172636e-16; // pi / 2^52
  double t2 = t * t, p = -8.2206352466243295e-18, q = -1.5619206968586225e-16;
  for (int n = 0; n < 8; n++) p = fma(t2, p, sines[n]), q = fma(t2, q, cosines[n]);
  double sine = fma(t * t2, p, t), cosine = fma(t2, q, 1.0);
  double x = quarter & 1 ? sine : cosine, y = quarter & 1 ? cosine : sine;
  *first = r * ((quarter + 1) & 2 ? -x : x);
  *second = r * (quarter & 2 ? -y : y);
}

#endif
