// cast.c - the rows of simd.h that turn f32 into other dtypes and back, for one instruction set.
#include "../simd.h"

#include <math.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include "../../half.h"

#define CAST(name, T, S, expression) \
  static void name(void *context, int64_t n, char **p, const int64_t *s) { \
    (void)context; \
    if (s[0] == sizeof(T) && s[1] == sizeof(S)) { \
      T *to = (T *)p[0]; \
      const S *from = (const S *)p[1]; \
      _Pragma("omp simd") for (int64_t k = 0; k < n; k++) { \
        S x = from[k]; \
        to[k] = expression; \
      } \
      return; \
    } \
    for (int64_t k = 0; k < n; k++) { \
      S x = *(const S *)(p[1] + k * s[1]); \
      *(T *)(p[0] + k * s[0]) = expression; \
    } \
  }

// Truncates; the ends of the range saturate and nan is 0.
static inline int64_t to_i64(float x) {
  float known = x == x ? x : 0, raised = known < -0x1p63f ? -0x1p63f : known;
  int64_t whole = (int64_t)(raised >= 0x1p63f ? 0 : raised);
  return raised >= 0x1p63f ? INT64_MAX : whole;
}

static inline int32_t to_i32(float x) {
  float known = x == x ? x : 0, raised = known < -0x1p31f ? -0x1p31f : known;
  int32_t whole = (int32_t)(raised >= 0x1p31f ? 0 : raised);
  return raised >= 0x1p31f ? INT32_MAX : whole;
}

static inline uint8_t to_u8(float x) {
  float raised = x > 0 ? x : 0;
  return (uint8_t)(int32_t)(raised > 255 ? 255 : raised);
}

CAST(f32_from_f64, float, double, (float)x)
CAST(f32_from_bf16, float, uint16_t, dlua_bf16_to_f32(x))
CAST(f32_from_i64, float, int64_t, (float)x)
CAST(f32_from_i32, float, int32_t, (float)x)
CAST(f32_from_u8, float, uint8_t, (float)x)
CAST(f32_from_bool, float, uint8_t, x != 0)
CAST(f64_from_f32, double, float, (double)x)
CAST(bf16_from_f32, uint16_t, float, dlua_f32_to_bf16(x))
CAST(i64_from_f32, int64_t, float, to_i64(x))
CAST(i32_from_f32, int32_t, float, to_i32(x))
CAST(u8_from_f32, uint8_t, float, to_u8(x))
CAST(bool_from_f32, uint8_t, float, x != 0)

#ifdef __F16C__
static inline float half_to_float(uint16_t x) { return _cvtsh_ss(x); }
static inline uint16_t float_to_half(float x) {
  return x != x ? dlua_f32_to_f16(x) : _cvtss_sh(x, 0);
}
#else
static inline float half_to_float(uint16_t x) { return dlua_f16_to_f32(x); }
static inline uint16_t float_to_half(float x) { return dlua_f32_to_f16(x); }
#endif
CAST(f32_from_f16_one, float, uint16_t, half_to_float(x))
CAST(f16_one_from_f32, uint16_t, float, float_to_half(x))

// The machine converts eight at a time.
static void f32_from_f16(void *context, int64_t n, char **p, const int64_t *s) {
  int64_t k = 0;
#ifdef __F16C__
  for (; s[0] == 4 && s[1] == 2 && k + 8 <= n; k += 8) {
    __m128i x = _mm_loadu_si128((const __m128i *)(p[1] + 2 * k));
    _mm256_storeu_ps((float *)(p[0] + 4 * k), _mm256_cvtph_ps(x));
  }
#endif
  char *rest[2] = {p[0] + k * s[0], p[1] + k * s[1]};
  f32_from_f16_one(context, n - k, rest, s);
}

static void f16_from_f32(void *context, int64_t n, char **p, const int64_t *s) {
  int64_t k = 0;
#ifdef __F16C__
  for (; s[0] == 2 && s[1] == 4 && k + 8 <= n; k += 8) {
    __m256 x = _mm256_loadu_ps((const float *)(p[1] + 4 * k));
    if (_mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q))) break; // nan: one by one
    _mm_storeu_si128((__m128i *)(p[0] + 2 * k), _mm256_cvtps_ph(x, 0));
  }
#endif
  char *rest[2] = {p[0] + k * s[0], p[1] + k * s[1]};
  f16_one_from_f32(context, n - k, rest, s);
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

extern const dlua_cast_rows JOIN(dlua_casts_, DLUA_ISA);
const dlua_cast_rows JOIN(dlua_casts_, DLUA_ISA) = {
    .to_f32 = {[DLUA_F64] = f32_from_f64,
               [DLUA_BF16] = f32_from_bf16,
               [DLUA_F16] = f32_from_f16,
               [DLUA_I64] = f32_from_i64,
               [DLUA_I32] = f32_from_i32,
               [DLUA_U8] = f32_from_u8,
               [DLUA_BOOL] = f32_from_bool},
    .from_f32 = {[DLUA_F64] = f64_from_f32,
                 [DLUA_BF16] = bf16_from_f32,
                 [DLUA_F16] = f16_from_f32,
                 [DLUA_I64] = i64_from_f32,
                 [DLUA_I32] = i32_from_f32,
                 [DLUA_U8] = u8_from_f32,
                 [DLUA_BOOL] = bool_from_f32},
};
