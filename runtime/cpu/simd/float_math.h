// float_math.h - what vector_math.h does, in f32 alone: twice as many lanes, for the functions that
// networks call most. Within four units in the last place for every f32, subnormal results
// included.
//
// Results near 1 and tails near 0 come from the same exponential of -|x|, so nothing cancels.
#ifndef DLUA_FLOAT_MATH_H
#define DLUA_FLOAT_MATH_H

#include "vector_math.h"

#ifdef __FMA__
#define FM_FMA(x, y, z) __builtin_fmaf(x, y, z)
#else
#define FM_FMA(x, y, z) ((float)((double)(x) * (y) + (z)))
#endif

// exp(x + more) for x <= 0, more being at most a few units in the last place of x.
static inline float fm_exp_sum(float x, float more) { // 3e-9
  const float round = 0x1.8p23f;
  float inside = x < -104 ? -104 : x;
  float shifted = FM_FMA(inside, 0x1.715476p0f, round), n = shifted - round;
  float r = FM_FMA(n, -0x1.62e4p-1f, inside);
  r = FM_FMA(n, -0x1.7f7d1cp-20f, r) + more;
  float q = 0.0013950481079518795f;
  q = FM_FMA(q, r, 0.008368883281946182f);
  q = FM_FMA(q, r, 0.04166620597243309f);
  q = FM_FMA(q, r, 0.166665181517601f);
  q = FM_FMA(q, r, 0.5f);
  float p = FM_FMA(q, r * r, r) + 1, power;
  uint32_t bits; // 2^(n + 64), as 2^n alone may be out of range
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + ((64u + 127u) << 23);
  __builtin_memcpy(&power, &bits, sizeof power);
  return p * power * 0x1p-64f;
}

static inline float fm_sigmoid(float x) {
  float e = fm_exp_sum(-__builtin_fabsf(x), 0);
  return (x < 0 ? e : 1) / (1 + e);
}

// The sigmoids of x and -x, which lose no digits near 1.
static inline float fm_sigmoids(float x, float *other) {
  float e = fm_exp_sum(-__builtin_fabsf(x), 0), high = 1 / (1 + e), low = e * high;
  *other = x < 0 ? high : low;
  return x < 0 ? low : high;
}

// The normal distribution function of -a and, through bell, exp(-a^2 / 2), for 0 <= a <= 15: a
// polynomial of s = 1 / (1 + 0.35 a) times the exponential, the rounding of a^2 made up for.
static inline float fm_normal_tail(float a, float *bell) { // 3e-8
  float z = a * a, lost = FM_FMA(a, a, -z), s = 1 / FM_FMA(a, 0.35f, 1);
  float q = -0.029158236458897590f;
  q = FM_FMA(q, s, 0.14403258264064789f);
  q = FM_FMA(q, s, -0.25584232807159424f);
  q = FM_FMA(q, s, 0.15932336449623108f);
  q = FM_FMA(q, s, -0.023214763030409813f);
  q = FM_FMA(q, s, 0.10555347055196762f);
  q = FM_FMA(q, s, 0.11982105672359467f);
  q = FM_FMA(q, s, 0.13986355066299438f);
  q = FM_FMA(q, s, 0.139621302485466f);
  *bell = fm_exp_sum(-0.5f * z, -0.5f * lost);
  return q * s * *bell;
}

// The normal distribution function of x and, through bell, its density.
static inline float fm_normal(float x, float *bell) {
  float a = __builtin_fabsf(x), tail = fm_normal_tail(a > 15 ? 15 : a, bell);
  *bell *= 0.3989422804f;
  return x < 0 ? tail : 1 - tail;
}

#endif
