// float_math.h - what vector_math.h does, in f32 alone: twice as many lanes. Within 2.6 units in the
// last place for every f32, subnormal results included; gates and bells within four.
//
// Results near 1 and tails near 0 come from the same exponential of -|x|, so nothing cancels.
// Polynomials are near-minimax fits in f32, their relative error stands beside them.
#ifndef DLUA_FLOAT_MATH_H
#define DLUA_FLOAT_MATH_H

#include "vector_math.h"

// Fused where the instruction set has it; where it matters, in any case.
#ifdef __FMA__
#define FM_FMA(x, y, z) __builtin_fmaf(x, y, z)
#define FM_FUSED(x, y, z) __builtin_fmaf(x, y, z)
#else
#define FM_FMA(x, y, z) ((x) * (y) + (z))
#define FM_FUSED(x, y, z) ((float)((double)(x) * (y) + (z)))
#endif

VM_INLINE uint32_t fm_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

VM_INLINE float fm_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// Adding it rounds to an integer, which then lies in the lowest bits.
#define FM_ROUND 0x1.8p23f

// ---------------------------------------------------------------- exponentials

// exp(x + more) = 2^n p, for |x| <= 104; n is in the lowest bits of shifted.
VM_INLINE float fm_exp_parts(float x, float more, float *shifted) { // 3e-9
  *shifted = FM_FMA(x, 0x1.715476p0f, FM_ROUND);
  float n = *shifted - FM_ROUND, r = FM_FMA(n, -0x1.62e4p-1f, x);
  r = FM_FMA(n, -0x1.7f7d1cp-20f, r) + more;
  float q = 0.0013950481079518795f;
  q = FM_FMA(q, r, 0.008368883281946182f);
  q = FM_FMA(q, r, 0.04166620597243309f);
  q = FM_FMA(q, r, 0.166665181517601f);
  q = FM_FMA(q, r, 0.5f);
  return FM_FMA(q, r * r, r) + 1;
}

// exp(x + more) for x <= 0, more being at most a few units in the last place of x.
VM_INLINE float fm_exp_sum(float x, float more) {
  float shifted, p = fm_exp_parts(x < -104 ? -104 : x, more, &shifted);
  // 2^(n + 64), as 2^n alone may be out of range
  return p * fm_float((fm_bits(shifted) << 23) + ((64u + 127u) << 23)) * 0x1p-64f;
}

// 2^n in two factors, of which neither is out of range.
VM_INLINE float fm_exp(float x) {
  float low = x < -104 ? -104 : x, shifted;
  float p = fm_exp_parts(low > 89 ? 89 : low, 0, &shifted);
  int32_t n = (int32_t)(fm_bits(shifted) - fm_bits(FM_ROUND)), half = n >> 1;
  return p * fm_float((uint32_t)(half + 127) << 23) * fm_float((uint32_t)(n - half + 127) << 23);
}

VM_INLINE float fm_sigmoid(float x) {
  float e = fm_exp_sum(-__builtin_fabsf(x), 0);
  return (x < 0 ? e : 1) / (1 + e);
}

// The sigmoids of x and -x, which lose no digits near 1.
VM_INLINE float fm_sigmoids(float x, float *other) {
  float e = fm_exp_sum(-__builtin_fabsf(x), 0), high = 1 / (1 + e), low = e * high;
  *other = x < 0 ? high : low;
  return x < 0 ? low : high;
}

VM_INLINE float fm_tanh(float x) { // 3e-9
  float a = __builtin_fabsf(x), z = a * a, e = fm_exp_sum(-2 * a, 0);
  float q = -0.005895158275961876f;
  q = FM_FMA(q, z, 0.020795971155166626f);
  q = FM_FMA(q, z, -0.053783830255270004f);
  q = FM_FMA(q, z, 0.13331924378871918f);
  q = FM_FMA(q, z, -0.33333298563957214f);
  float y = a < 0.6f ? FM_FMA(q * z, a, a) : (1 - e) / (1 + e);
  return __builtin_copysignf(y, x);
}

// ---------------------------------------------------------------- the normal distribution

// The normal distribution function of -a and, through bell, exp(-a^2 / 2), for 0 <= a <= 15: a
// polynomial of s = 1 / (1 + 0.35 a) times the exponential, the rounding of a^2 made up for.
VM_INLINE float fm_normal_tail(float a, float *bell) { // 3e-8
  float z = a * a, lost = FM_FUSED(a, a, -z), s = 1 / FM_FMA(a, 0.35f, 1);
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
VM_INLINE float fm_normal(float x, float *bell) {
  float a = __builtin_fabsf(x), tail = fm_normal_tail(a > 15 ? 15 : a, bell);
  *bell *= 0.3989422804f;
  return x < 0 ? tail : 1 - tail;
}

VM_INLINE float fm_erf(float x) { // 3e-9 below 0.75
  float a = __builtin_fabsf(x), z = a * a, far = a * 0x1.6a09e6p0f;
  float bell, rest = 1 - 2 * fm_normal_tail(far > 15 ? 15 : far, &bell);
  float q = 9.4608236852260908e-05f;
  q = FM_FMA(q, z, -0.00083552977324544565f);
  q = FM_FMA(q, z, 0.0052166859582873414f);
  q = FM_FMA(q, z, -0.02686474144259976f);
  q = FM_FMA(q, z, 0.11283778239478061f);
  q = FM_FMA(q, z, -0.37612638426996031f);
  float near = FM_FMA(a, 1.128379167067761f, q * z * a);
  return __builtin_copysignf(a < 0.75f ? near : rest, x);
}

// ---------------------------------------------------------------- logarithms

// x = 2^k (1 + f), 1 + f between sqrt(1/2) and sqrt(2); log(1 + f) = f - f^2 / 2 + f^3 q(f).
VM_INLINE float fm_log(float x) { // 6e-9
  const uint32_t half_root = 0x3F3504F3, one = 0x3F800000;
  bool subnormal = x < 0x1p-126f;
  uint32_t moved = fm_bits(subnormal ? x * 0x1p23f : x) + (one - half_root);
  float k = (float)((int32_t)(moved >> 23) - (subnormal ? 150 : 127));
  float f = fm_float((moved & 0x7FFFFF) + half_root) - 1, z = f * f;
  float q = -0.07634498924016953f;
  q = FM_FMA(q, f, 0.1276157796382904f);
  q = FM_FMA(q, f, -0.13160182535648346f);
  q = FM_FMA(q, f, 0.14201757311820984f);
  q = FM_FMA(q, f, -0.16623356938362122f);
  q = FM_FMA(q, f, 0.20001226663589478f);
  q = FM_FMA(q, f, -0.2500081956386566f);
  q = FM_FMA(q, f, 0.3333333134651184f);
  float y = FM_FMA(q * z, f, k * -0x1.bd0106p-13f);
  y = FM_FMA(k, 0x1.63p-1f, f + FM_FMA(z, -0.5f, y));
  y = x == INFINITY ? INFINITY : y;
  y = x == 0 ? -INFINITY : y;
  return x >= 0 ? y : NAN;
}

// ---------------------------------------------------------------- angles of points

// The angle of (x, y): of the octant below the diagonal, then turned over at the diagonal and the axes.
VM_INLINE float fm_atan2(float y, float x) { // 3e-9
  float a = __builtin_fabsf(x), b = __builtin_fabsf(y);
  float low = a < b ? a : b, high = a < b ? b : a;
  float t = low != high ? low / high : high != 0, z = t * t; // also where both are infinite or 0
  float q = -0.0017936228541657329f;
  q = FM_FMA(q, z, 0.01091461069881916f);
  q = FM_FMA(q, z, -0.031177856028079987f);
  q = FM_FMA(q, z, 0.05795760452747345f);
  q = FM_FMA(q, z, -0.0840345099568367f);
  q = FM_FMA(q, z, 0.10952185839414597f);
  q = FM_FMA(q, z, -0.14264242351055145f);
  q = FM_FMA(q, z, 0.19998548924922943f);
  q = FM_FMA(q, z, -0.33333298563957214f);
  float angle = FM_FMA(q * z, t, t);
  angle = a < b ? 0x1.921fb6p0f - angle : angle;
  angle = __builtin_copysignf(1, x) < 0 ? 0x1.921fb6p1f - angle : angle;
  angle = (x != x) | (y != y) ? NAN : angle;
  return __builtin_copysignf(angle, y);
}

// sqrt(1 - x^2), without cancellation near 1.
VM_INLINE float fm_other_side(float x) { return __builtin_sqrtf((1 - x) * (1 + x)); }

#endif
