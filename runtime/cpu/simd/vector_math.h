// vector_math.h - elementary functions as straight-line code without branches, calls or tables, for
// loops that the compiler turns into vectors. They compute in f64 and serve f32: within one unit in
// the last place of an f32 for all its values, infinities, nan and subnormals included.
//
// f64 inside is half as wide as f32, but needs no pairs of floats, no second polynomial for hard
// ranges, and never meets a subnormal. Reductions are Cody and Waite's; polynomials are
// near-minimax fits on the reduced range, their relative error stands beside them. Written without
// contraction in mind: VM_FMA is fused where the instruction set has it, and the compiler must not
// fuse more, so that vector lanes and left-over elements agree to the bit.
#ifndef DLUA_VECTOR_MATH_H
#define DLUA_VECTOR_MATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

// A call that is left in a loop keeps it from becoming vectors.
#define VM_INLINE static inline __attribute__((always_inline))

#ifdef __FMA__
#define VM_FMA(x, y, z) __builtin_fma(x, y, z)
#else
#define VM_FMA(x, y, z) ((x) * (y) + (z))
#endif

VM_INLINE int64_t vm_bits(double x) {
  int64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

VM_INLINE double vm_double(int64_t bits) {
  double x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// nan stays nan.
VM_INLINE double vm_clamp(double x, double low, double high) {
  double raised = x < low ? low : x;
  return raised > high ? high : raised;
}

// Adding it rounds to an integer, which then lies in the lowest bits.
#define VM_ROUND 0x1.8p52

// ---------------------------------------------------------------- exponentials

// x = n ln2 + r; power becomes 2^n. Beyond +-200 every f32 result is 0 or infinite.
VM_INLINE double vm_reduce_exp(double x, double *power) {
  double inside = vm_clamp(x, -200, 200);
  double shifted = VM_FMA(inside, 0x1.71547652b82fep0, VM_ROUND), n = shifted - VM_ROUND;
  *power = vm_double((int64_t)(((uint64_t)vm_bits(shifted) << 52) + (uint64_t)vm_bits(1.0)));
  double r = VM_FMA(n, -0x1.62e42fee00000p-1, inside);
  return VM_FMA(n, -0x1.a39ef35793c76p-33, r);
}

VM_INLINE double vm_exp(double x) { // 3e-9
  double power, r = vm_reduce_exp(x, &power);
  double q = 0.001381446347599602;
  q = VM_FMA(q, r, 0.0083687498606228594);
  q = VM_FMA(q, r, 0.041668392309739913);
  q = VM_FMA(q, r, 0.1666652034688576);
  q = VM_FMA(q, r, 0.49999993425207284);
  double p = VM_FMA(q * r, r, r);
  return VM_FMA(p, power, power);
}

VM_INLINE double vm_expm1(double x) { // 1e-11
  double power, r = vm_reduce_exp(x, &power);
  double q = 2.7493300658865117e-06;
  q = VM_FMA(q, r, 2.4880891317008345e-05);
  q = VM_FMA(q, r, 0.00019841538903931716);
  q = VM_FMA(q, r, 0.0013888810977600342);
  q = VM_FMA(q, r, 0.0083333330948861251);
  q = VM_FMA(q, r, 0.041666666963257784);
  q = VM_FMA(q, r, 0.16666666667267672);
  q = VM_FMA(q, r, 0.49999999999662603);
  double p = VM_FMA(q * r, r, r);
  return VM_FMA(p, power, power - 1);
}

VM_INLINE double vm_sigmoid(double x) { return 1 / (1 + vm_exp(-x)); }

VM_INLINE double vm_sinh(double x) {
  double e = vm_expm1(__builtin_fabs(x));
  return __builtin_copysign(0.5 * (e + e / (e + 1)), x);
}

VM_INLINE double vm_cosh(double x) {
  double e = vm_exp(x);
  return 0.5 * (e + 1 / e);
}

// ---------------------------------------------------------------- logarithms

// With s = (m - 1) / (m + 1), log(m) = 2 s + s^3 L(s^2); plus k ln2.
VM_INLINE double vm_log_ratio(double over, double under, double k) { // 4e-16
  double s = over / under, z = s * s;
  double q = 0.16821386028875338;
  q = VM_FMA(q, z, 0.18123517457222524);
  q = VM_FMA(q, z, 0.22223375381637878);
  q = VM_FMA(q, z, 0.28571417080521389);
  q = VM_FMA(q, z, 0.40000000052558071);
  q = VM_FMA(q, z, 0.66666666666586682);
  double log = VM_FMA(q * z, s, 2 * s);
  return VM_FMA(k, 0x1.62e42fefa39efp-1, log);
}

// x = 2^k m with m between sqrt(1/2) and sqrt(2), for positive normal f64.
VM_INLINE double vm_reduce_log(double x, double *k) {
  const int64_t half_root = 0x3FE6A09E667F3BCD, one = 0x3FF0000000000000;
  uint64_t moved = (uint64_t)vm_bits(x) + (uint64_t)(one - half_root);
  *k = vm_double((int64_t)(moved >> 52) + vm_bits(VM_ROUND)) - (VM_ROUND + 1023);
  return vm_double((int64_t)(moved & 0xFFFFFFFFFFFFF) + half_root);
}

// What log is where its argument is no positive finite number.
VM_INLINE double vm_log_edges(double x, double log) {
  double y = x == (double)INFINITY ? (double)INFINITY : log;
  y = x == 0 ? -(double)INFINITY : y;
  return x >= 0 ? y : (double)NAN;
}

VM_INLINE double vm_log(double x) {
  double k, m = vm_reduce_log(x, &k);
  return vm_log_edges(x, vm_log_ratio(m - 1, m + 1, k));
}

// Small x skip the sum 1 + x, which would drop their last digits.
VM_INLINE double vm_log1p(double x) {
  double k, m = vm_reduce_log(1 + x, &k);
  bool small = __builtin_fabs(x) < 0.25;
  double log = vm_log_ratio(small ? x : m - 1, small ? x + 2 : m + 1, small ? 0 : k);
  return vm_log_edges(1 + x, log);
}

// ---------------------------------------------------------------- powers

VM_INLINE double vm_pow_positive(double x, double y) {
  double k, m = vm_reduce_log(x, &k), log = vm_log_ratio(m - 1, m + 1, k);
  log = x == (double)INFINITY ? (double)INFINITY : log;
  log = x == 0 ? -(double)INFINITY : log;
  return vm_exp(y * log);
}

// C's rules for all arguments; x and y are f32 values.
VM_INLINE double vm_pow(double x, double y) {
  double size = __builtin_fabs(x), z = vm_pow_positive(size, y);
  bool huge = __builtin_fabs(y) >= 0x1p24; // an even integer
  double whole = (y + VM_ROUND) - VM_ROUND, half = (y * 0.5 + VM_ROUND) - VM_ROUND;
  bool integer = huge | (whole == y), odd = !huge & (whole == y) & (half * 2 != y);
  bool negative = __builtin_copysign(1.0, x) < 0;
  z = (size == 1) & (y == y) ? 1 : z;
  z = negative & odd ? -z : z;
  z = (x < 0) & !integer & (size < (double)INFINITY) ? (double)NAN : z;
  z = (x != x) | (y != y) ? (double)NAN : z;
  return (x == 1) | (y == 0) ? 1 : z;
}

// ---------------------------------------------------------------- angles

// Arguments up to VM_ANGLE, beyond which the reduction runs out of digits.
#define VM_ANGLE 0x1p20

// x = n pi/2 + r; quadrant is n in the lowest bits.
VM_INLINE double vm_reduce_angle(double x, int64_t *quadrant) {
  double inside = vm_clamp(x, -VM_ANGLE, VM_ANGLE);
  double shifted = VM_FMA(inside, 0x1.45f306dc9c883p-1, VM_ROUND), n = shifted - VM_ROUND;
  *quadrant = vm_bits(shifted);
  double r = VM_FMA(n, -0x1.921fb544p0, inside);
  r = VM_FMA(n, -0x1.0b4611a6p-34, r);
  return VM_FMA(n, -0x1.3198a2e037073p-69, r);
}

// The sine of the angle plus turns quarters.
VM_INLINE double vm_sine(double x, int64_t turns) { // 5e-12
  int64_t n;
  double r = vm_reduce_angle(x, &n), z = r * r;
  n += turns;
  double s = 2.7182723922177219e-06;
  s = VM_FMA(s, z, -0.00019839330734357962);
  s = VM_FMA(s, z, 0.0083333293730918426);
  s = VM_FMA(s, z, -0.16666666641514705);
  s = VM_FMA(s * z, r, r);
  double c = -2.720985654450608e-07;
  c = VM_FMA(c, z, 2.479951538406836e-05);
  c = VM_FMA(c, z, -0.0013888883735787903);
  c = VM_FMA(c, z, 0.041666666622621362);
  c = VM_FMA(c * z, z, VM_FMA(z, -0.5, 1));
  double y = vm_double((vm_bits(c) & -(n & 1)) | (vm_bits(s) & ((n & 1) - 1)));
  return vm_double(vm_bits(y) ^ (int64_t)((uint64_t)(n & 2) << 62));
}

#endif
