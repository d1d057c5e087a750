// half.h - bf16 and f16 as the upper or packed bits of an f32. Rounding is to nearest, ties to
// even; nan stays nan (quiet), overflow gives infinity, f16 keeps its subnormals.
#ifndef DLUA_HALF_H
#define DLUA_HALF_H

#include <stdint.h>

static inline uint32_t dlua_bits_of_f32(float x) {
  union {
    float f;
    uint32_t u;
  } word = {.f = x};
  return word.u;
}

static inline float dlua_f32_of_bits(uint32_t bits) {
  union {
    uint32_t u;
    float f;
  } word = {.u = bits};
  return word.f;
}

static inline float dlua_bf16_to_f32(uint16_t h) { return dlua_f32_of_bits((uint32_t)h << 16); }

static inline uint16_t dlua_f32_to_bf16(float x) {
  uint32_t bits = dlua_bits_of_f32(x);
  uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return (uint16_t)(x != x ? (bits >> 16) | 0x40u : rounded);
}

// The exponent is moved by a multiplication, which also normalises subnormals.
static inline float dlua_f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7FFFu) << 13;
  uint32_t bits = dlua_bits_of_f32(dlua_f32_of_bits(rest) * 0x1p112f);
  if ((h & 0x7C00u) == 0x7C00u) bits = rest | 0x7F800000u;
  return dlua_f32_of_bits(bits | sign);
}

static inline uint16_t dlua_f32_to_f16(float x) {
  uint32_t bits = dlua_bits_of_f32(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (size > 0x7F800000u) {
    half = 0x7E00u;
  } else if (size >= 0x477FF000u) { // rounds to 65536 or more
    half = 0x7C00u;
  } else if (size < 0x38800000u) { // adding 0.5 leaves the subnormal's bits at the bottom
    half = dlua_bits_of_f32(dlua_f32_of_bits(size) + 0.5f) - 0x3F000000u;
  } else {
    half = (size - 0x38000000u + 0xFFFu + ((size >> 13) & 1u)) >> 13;
  }
  return (uint16_t)(half | sign);
}

#endif
