// convert.c - copies and casts, and the ops cast, contiguous and clone on top of them.
//
// Three ways, the first that fits: memcpy; square blocks where source and target run along
// different dimensions (a transposed matrix walked row by row would touch a new cache line at every
// element); rows of the iterator. Other dtypes pass through the widest of their kind, so there is
// one reader and one writer per dtype instead of 64 pairs; f32 to and from the common ones is
// direct.
#include "convert.h"

#include <math.h>
#include <string.h>

#include "../cpu/simd.h"
#include "../half.h"
#include "../parallel.h"
#include "iterate.h"

// A block reads few lines of the source at a time: those of a power-of-two stride share a cache
// set.
enum { CHUNK = 512, BLOCK = 32, LINES = 8 };

// ---------------------------------------------------------------- same dtype

// clang-format off
#define MOVE(name, T) \
  static void name(void *context, int64_t n, char **p, const int64_t *s) { \
    (void)context; \
    if (s[0] == sizeof(T) && s[1] == sizeof(T)) { memcpy(p[0], p[1], (size_t)n * sizeof(T)); return; } \
    for (int64_t k = 0; k < n; k++) *(T *)(p[0] + k * s[0]) = *(const T *)(p[1] + k * s[1]); \
  }
// clang-format on
MOVE(move_1, uint8_t)
MOVE(move_2, uint16_t)
MOVE(move_4, uint32_t)
MOVE(move_8, uint64_t)

static dlua_row *mover(int64_t width) {
  return width == 1 ? move_1 : width == 2 ? move_2 : width == 4 ? move_4 : move_8;
}

// The target runs along dimension 0 of the loop, the source along another one.
typedef struct turn {
  const dlua_iter *it;
  int other;
  int64_t width, blocks; // blocks along other
} turn;

static void turn_block(const turn *t, char *dst, const char *src, int64_t rows, int64_t columns) {
  const dlua_iter *it = t->it;
  char *p[2] = {dst, (char *)src};
  int64_t s[2] = {it->stride[0][0], it->stride[1][0]};
  for (int64_t r = 0; r < rows; r++) {
    mover(t->width)(NULL, columns, p, s);
    p[0] += it->stride[0][t->other], p[1] += it->stride[1][t->other];
  }
}

// Slices number the strips of BLOCK places along other, over all outer dimensions.
static void turn_strips(void *context, int64_t from, int64_t to) {
  const turn *t = context;
  const dlua_iter *it = t->it;
  for (int64_t strip = from; strip < to; strip++) {
    int64_t first = strip % t->blocks * BLOCK, outer = strip / t->blocks;
    char *dst = it->data[0] + first * it->stride[0][t->other];
    const char *src = it->data[1] + first * it->stride[1][t->other];
    for (int d = 1; d < it->ndim; d++) {
      if (d == t->other) continue;
      int64_t at = outer % it->size[d];
      outer /= it->size[d];
      dst += at * it->stride[0][d], src += at * it->stride[1][d];
    }
    int64_t rows = it->size[t->other] - first < BLOCK ? it->size[t->other] - first : BLOCK;
    for (int64_t c = 0; c < it->size[0]; c += LINES) {
      int64_t columns = it->size[0] - c < LINES ? it->size[0] - c : LINES;
      turn_block(t, dst + c * it->stride[0][0], src + c * it->stride[1][0], rows, columns);
    }
  }
}

static bool try_turn(const dlua_iter *it, int64_t width) {
  turn t = {.it = it, .width = width};
  for (int d = 1; d < it->ndim; d++) {
    if (it->stride[1][d] == width) t.other = d;
  }
  if (t.other == 0 || it->stride[1][0] == width || it->size[0] < 8 || it->size[t.other] < 8)
    return false;
  t.blocks = (it->size[t.other] + BLOCK - 1) / BLOCK;
  int64_t strips = t.blocks;
  for (int d = 1; d < it->ndim; d++) {
    if (d != t.other) strips *= it->size[d];
  }
  dlua_parallel(strips, (double)(BLOCK * it->size[0]), turn_strips, &t);
  return true;
}

// ---------------------------------------------------------------- other dtypes

// Every integer fits i64, every float f64; a pair passes through the kind of its source.
typedef union wide {
  double f[CHUNK];
  int64_t i[CHUNK];
} wide;

typedef void reader(wide *w, int64_t n, const char *p, int64_t s);
typedef void writer(const wide *w, int64_t n, char *p, int64_t s);

static int64_t to_i64(double x) {
  if (x >= 0x1p63) return INT64_MAX;
  if (x < -0x1p63) return INT64_MIN;
  return x != x ? 0 : (int64_t)x;
}

static int32_t to_i32(double x) {
  if (x != x) return 0;
  return x >= 2147483647.0 ? INT32_MAX : x <= -2147483648.0 ? INT32_MIN : (int32_t)x;
}

static uint8_t to_u8(double x) { return x >= 255 ? 255 : x > 0 ? (uint8_t)x : 0; }

int64_t dlua_to_integer(double x, dlua_dtype dtype) {
  return dtype == DLUA_I32 ? to_i32(x) : dtype == DLUA_U8 ? to_u8(x) : to_i64(x);
}

#define READ(name, field, T, expression) \
  static void name(wide *w, int64_t n, const char *p, int64_t s) { \
    for (int64_t k = 0; k < n; k++) { \
      T x = *(const T *)(p + k * s); \
      w->field[k] = expression; \
    } \
  }
#define WRITE(name, field, T, expression) \
  static void name(const wide *w, int64_t n, char *p, int64_t s) { \
    for (int64_t k = 0; k < n; k++) { \
      __auto_type x = w->field[k]; \
      *(T *)(p + k * s) = expression; \
    } \
  }
READ(read_f32, f, float, (double)x)
READ(read_f64, f, double, x)
READ(read_bf16, f, uint16_t, (double)dlua_bf16_to_f32(x))
READ(read_f16, f, uint16_t, (double)dlua_f16_to_f32(x))
READ(read_i64, i, int64_t, x)
READ(read_i32, i, int32_t, x)
READ(read_u8, i, uint8_t, x)
READ(read_bool, i, uint8_t, x != 0)

WRITE(write_f32_f, f, float, (float)x)
WRITE(write_f64_f, f, double, x)
WRITE(write_bf16_f, f, uint16_t, dlua_f32_to_bf16((float)x))
WRITE(write_f16_f, f, uint16_t, dlua_f32_to_f16((float)x))
WRITE(write_i64_f, f, int64_t, to_i64(x))
WRITE(write_i32_f, f, int32_t, to_i32(x))
WRITE(write_u8_f, f, uint8_t, to_u8(x))
WRITE(write_bool_f, f, uint8_t, x != 0)

WRITE(write_f32_i, i, float, (float)x)
WRITE(write_f64_i, i, double, (double)x)
WRITE(write_bf16_i, i, uint16_t, dlua_f32_to_bf16((float)x))
WRITE(write_f16_i, i, uint16_t, dlua_f32_to_f16((float)x))
WRITE(write_i64_i, i, int64_t, x)
WRITE(write_i32_i, i, int32_t, (int32_t)x)
WRITE(write_u8_i, i, uint8_t, (uint8_t)x)
WRITE(write_bool_i, i, uint8_t, x != 0)

// In the order of dlua_dtype.
static reader *const readers[DLUA_DTYPES] = {read_f32, read_f64, read_bf16, read_f16,
                                             read_i64, read_i32, read_u8,   read_bool};
static writer *const writers[2][DLUA_DTYPES] = {
    {write_f32_i, write_f64_i, write_bf16_i, write_f16_i, write_i64_i, write_i32_i, write_u8_i,
     write_bool_i},
    {write_f32_f, write_f64_f, write_bf16_f, write_f16_f, write_i64_f, write_i32_f, write_u8_f,
     write_bool_f}};

typedef struct pair {
  reader *read;
  writer *write;
} pair;

static void convert_row(void *context, int64_t n, char **p, const int64_t *s) {
  const pair *types = context;
  wide w;
  for (int64_t k = 0; k < n; k += CHUNK) {
    int64_t count = n - k < CHUNK ? n - k : CHUNK;
    types->read(&w, count, p[1] + k * s[1], s[1]);
    types->write(&w, count, p[0] + k * s[0], s[0]);
  }
}

// The pairs that training meets all the time, without the detour.
static dlua_row *direct(dlua_dtype to, dlua_dtype from) {
  if (to == DLUA_F32) return dlua_cast_simd()->to_f32[from];
  return from == DLUA_F32 ? dlua_cast_simd()->from_f32[to] : NULL;
}

void dlua_convert(dlua_tensor *dst, const dlua_tensor *src) {
  dlua_dtype to = (dlua_dtype)dst->dtype, from = (dlua_dtype)src->dtype;
  dlua_iter it;
  dlua_iter_begin(&it, 2, (dlua_tensor *[]){dst, (dlua_tensor *)src});
  if (to == from) {
    int64_t width = (int64_t)dlua_dtype_size(to);
    if (!try_turn(&it, width)) dlua_iter_run(&it, 1, mover(width), NULL);
    return;
  }
  dlua_row *row = direct(to, from);
  if (row)
    dlua_iter_run(&it, 1, row, NULL);
  else
    dlua_iter_run(&it, 4, convert_row, &(pair){readers[from], writers[dlua_is_float(from)][to]});
}

// ---------------------------------------------------------------- ops

static dlua_status convert_cpu(const dlua_args *a) {
  dlua_convert(a->out[0], a->in[0]);
  return DLUA_OK;
}

// The gradient has the dtype of the result; dlua_give casts it to that of the input.
static void pass_back(dlua_back *b) { dlua_give(b, 0, b->g[0]); }

static dlua_status cast_shape(dlua_args *a) {
  a->spec[0].dtype = (dlua_dtype)a->num[0].i;
  return dlua_shape_same(a);
}

const dlua_op dlua_op_cast = {
    .name = "cast",
    .sig = "x:T, dtype:e{f32|f64|bf16|f16|i64|i32|u8|bool} -> y",
    .doc = "x as another dtype. Floats become integers by truncation (nan is 0, the ends of the "
           "range saturate); bool is x != 0. Between floats it carries the gradient.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_ELEMENTWISE | DLUA_HALF,
    .shape = cast_shape,
    .cpu = convert_cpu,
    .back = pass_back,
};

// A view of x where nothing has to move.
static dlua_status contiguous_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  if (!dlua_is_contiguous(x)) return dlua_contiguous(x, &a->out[0]);
  return dlua_tensor_view(&a->out[0], x, x->ndim, x->size, x->stride, x->offset);
}

const dlua_op dlua_op_contiguous = {
    .name = "contiguous",
    .sig = "x:T -> y",
    .doc = "x with its elements in row-major order without gaps: a copy, or x itself again where "
           "they lie like that already.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_VIEW,
    .shape = contiguous_shape,
    .back = pass_back,
};

const dlua_op dlua_op_clone = {
    .name = "clone",
    .sig = "x:T -> y",
    .doc = "A copy of x with storage of its own.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_ELEMENTWISE | DLUA_HALF,
    .shape = dlua_shape_same,
    .cpu = convert_cpu,
    .back = pass_back,
};
