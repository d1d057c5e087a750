// lanes.c - the kernels of lanes.h for one instruction set. A vector holds one element of sixteen
// images; the compiler splits it where registers are narrower.
#include "../lanes.h"

#include <string.h>

typedef float vec __attribute__((vector_size(DLUA_LANES * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(DLUA_LANES * sizeof(int32_t))));
typedef float vec_unaligned __attribute__((vector_size(DLUA_LANES * sizeof(float)), aligned(4)));

#define INLINE static inline __attribute__((always_inline))
#define PASTE(a, b) a##b
#define NAMED(a, isa) PASTE(a, isa)

// Registers: rows × columns accumulators. Sets with 16 narrow registers take smaller tiles.
#ifdef __AVX512F__
enum { ROWS = 4, COLUMNS = 6 };
#else
enum { ROWS = 2, COLUMNS = 2 };
#endif

// ---------------------------------------------------------------- transposition

// One 16 × 16 tile: to[k][lane] = from[lane][k], lanes beyond images and k beyond width are zero or
// untouched.
INLINE void transpose_tile(float *to, int64_t to_step, const float *from, int64_t from_step,
                           int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t k = 0; k < width; k++) to[k * to_step + r] = from[r * from_step + k];
  }
}

// One of four rounds that transpose a tile: rows r and r + 8 are interleaved.
INLINE void interleave(vec to[16], const vec from[16]) {
  const ivec low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  const ivec high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  for (int r = 0; r < 8; r++) {
    to[2 * r] = __builtin_shuffle(from[r], from[r + 8], low);
    to[2 * r + 1] = __builtin_shuffle(from[r], from[r + 8], high);
  }
}

// A full tile through registers.
INLINE void transpose_full(float *to, int64_t to_step, const float *from, int64_t from_step) {
  vec a[16], b[16];
  for (int r = 0; r < 16; r++) a[r] = *(const vec_unaligned *)(from + r * from_step);
  interleave(b, a);
  interleave(a, b);
  interleave(b, a);
  interleave(a, b);
  for (int r = 0; r < 16; r++) *(vec_unaligned *)(to + r * to_step) = a[r];
}

INLINE void transpose(float *to, int64_t to_step, const float *from, int64_t from_step,
                      int64_t rows, int64_t width) {
  if (rows == 16 && width == 16)
    transpose_full(to, to_step, from, from_step);
  else
    transpose_tile(to, to_step, from, from_step, rows, width);
}

static void pack(float *to, const float *from, int64_t images, int64_t c, int64_t h, int64_t w,
                 int64_t ph, int64_t pw) {
  int64_t tall = h + 2 * ph, wide = w + 2 * pw;
  if (ph || pw || images < DLUA_LANES)
    memset(to, 0, sizeof(float) * (size_t)(c * tall * wide * DLUA_LANES));
  for (int64_t row = 0; row < c * h; row++) {
    float *line = to + ((row / h * tall + row % h + ph) * wide + pw) * DLUA_LANES;
    for (int64_t k = 0; k < w; k += 16) {
      int64_t width = w - k < 16 ? w - k : 16;
      transpose(line + k * DLUA_LANES, DLUA_LANES, from + row * w + k, c * h * w, images, width);
    }
  }
}

static void unpack(float *to, const float *from, int64_t images, int64_t c, int64_t hw) {
  for (int64_t k = 0; k < c * hw; k += 16) {
    int64_t width = c * hw - k < 16 ? c * hw - k : 16;
    const float *tile = from + k * DLUA_LANES;
    if (images == 16 && width == 16)
      transpose_full(to + k, c * hw, tile, DLUA_LANES);
    else {
      for (int64_t n = 0; n < images; n++) {
        for (int64_t i = 0; i < width; i++) to[n * c * hw + k + i] = tile[i * DLUA_LANES + n];
      }
    }
  }
}

// ---------------------------------------------------------------- forward

// rows results channels × columns neighbours of one line.
INLINE void forward_tile(const dlua_lanes_shape *s, float *y, const float *x, const float *w,
                         const float *b, int rows, int columns) {
  vec sum[ROWS][COLUMNS];
  int64_t per_row = s->cin * s->kh * s->kw;
  for (int r = 0; r < rows; r++) {
    for (int k = 0; k < columns; k++) sum[r][k] = (vec){0} + (b ? b[r] : 0.0f);
  }
  for (int64_t c = 0; c < s->cin; c++) {
    for (int64_t i = 0; i < s->kh; i++) {
      const float *line = x + (c * s->h + i) * s->w * DLUA_LANES;
      for (int64_t j = 0; j < s->kw; j++, w++) {
        for (int k = 0; k < columns; k++) {
          vec v = *(const vec *)(line + (j + k) * DLUA_LANES);
          for (int r = 0; r < rows; r++) sum[r][k] += v * w[r * per_row];
        }
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int k = 0; k < columns; k++)
      *(vec *)(y + (r * s->oh * s->ow + k) * DLUA_LANES) = sum[r][k];
  }
}

INLINE void forward_rows(const dlua_lanes_shape *s, float *y, const float *x, const float *w,
                         const float *b, int rows) {
  for (int64_t i = 0; i < s->oh; i++) {
    float *to = y + i * s->ow * DLUA_LANES;
    const float *from = x + i * s->w * DLUA_LANES;
    int64_t k = 0;
    for (; k + COLUMNS <= s->ow; k += COLUMNS) {
      forward_tile(s, to + k * DLUA_LANES, from + k * DLUA_LANES, w, b, rows, COLUMNS);
    }
    for (; k + 2 <= s->ow; k += 2) {
      forward_tile(s, to + k * DLUA_LANES, from + k * DLUA_LANES, w, b, rows, 2);
    }
    if (k < s->ow) forward_tile(s, to + k * DLUA_LANES, from + k * DLUA_LANES, w, b, rows, 1);
  }
}

static void forward(const dlua_lanes_shape *s, float *y, const float *x, const float *w,
                    const float *b) {
  int64_t o = 0, plane = s->oh * s->ow * DLUA_LANES, per_row = s->cin * s->kh * s->kw;
  for (; o + ROWS <= s->cout; o += ROWS) {
    forward_rows(s, y + o * plane, x, w + o * per_row, b ? b + o : NULL, ROWS);
  }
  for (; o + 2 <= s->cout; o += 2) {
    forward_rows(s, y + o * plane, x, w + o * per_row, b ? b + o : NULL, 2);
  }
  if (o < s->cout) forward_rows(s, y + o * plane, x, w + o * per_row, b ? b + o : NULL, 1);
}

// ---------------------------------------------------------------- weight gradient

INLINE float lane_sum(const vec *v) {
  float sum = 0;
  for (int k = 0; k < DLUA_LANES; k++) sum += (*v)[k];
  return sum;
}

// The gradients of taps (i, j .. j + taps) for rows result channels and one input channel.
INLINE void weight_tile(const dlua_lanes_shape *s, float *gw, const float *g, const float *x,
                        int rows, int taps) {
  vec sum[ROWS][COLUMNS] = {{{0}}};
  int64_t plane = s->oh * s->ow * DLUA_LANES;
  for (int64_t i = 0; i < s->oh; i++) {
    const float *gline = g + i * s->ow * DLUA_LANES, *xline = x + i * s->w * DLUA_LANES;
    for (int64_t k = 0; k < s->ow; k++) {
      for (int r = 0; r < rows; r++) {
        vec v = *(const vec *)(gline + r * plane + k * DLUA_LANES);
        for (int t = 0; t < taps; t++)
          sum[r][t] += v * *(const vec *)(xline + (k + t) * DLUA_LANES);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int t = 0; t < taps; t++) gw[r * s->cin * s->kh * s->kw + t] = lane_sum(&sum[r][t]);
  }
}

INLINE void weight_line(const dlua_lanes_shape *s, float *gw, const float *g, const float *x,
                        int rows) {
  int64_t j = 0;
  for (; j + COLUMNS - 1 <= s->kw && COLUMNS > 2; j += COLUMNS - 1) {
    weight_tile(s, gw + j, g, x + j * DLUA_LANES, rows, COLUMNS - 1);
  }
  for (; j + 3 <= s->kw && COLUMNS > 2; j += 3)
    weight_tile(s, gw + j, g, x + j * DLUA_LANES, rows, 3);
  for (; j + 2 <= s->kw; j += 2) weight_tile(s, gw + j, g, x + j * DLUA_LANES, rows, 2);
  if (j < s->kw) weight_tile(s, gw + j, g, x + j * DLUA_LANES, rows, 1);
}

static void weight_grad(const dlua_lanes_shape *s, float *gw, const float *g, const float *x) {
  int64_t plane = s->oh * s->ow * DLUA_LANES, taps = s->kh * s->kw;
  for (int64_t o = 0; o < s->cout;) {
    int rows = s->cout - o >= ROWS ? ROWS : s->cout - o >= 2 ? 2 : 1;
    for (int64_t line = 0; line < s->cin * s->kh; line++) {
      const float *from = x + (line / s->kh * s->h + line % s->kh) * s->w * DLUA_LANES;
      float *to = gw + o * s->cin * taps + line * s->kw;
      if (rows == ROWS)
        weight_line(s, to, g + o * plane, from, ROWS);
      else if (rows == 2)
        weight_line(s, to, g + o * plane, from, 2);
      else
        weight_line(s, to, g + o * plane, from, 1);
    }
    o += rows;
  }
}

const dlua_lanes_kernels NAMED(dlua_lanes_, DLUA_ISA) = {pack, unpack, forward, weight_grad};
