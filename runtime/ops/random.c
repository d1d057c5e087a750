// random.c - random tensors and dropout.
//
// Draws follow the rule of rng.h: element i of a call belongs to word i of its counter range (block
// first + i / 4, lane i % 4), or to words 2 i and 2 i + 1 where it takes 64 bits (f64 and
// integers). So the bits depend on the seed and the calls before, and on nothing else. Kernels take
// pieces of the range; the plain ones take it word by word. Draws count logically: a tensor with
// gaps gets the same numbers as a contiguous one.
#include <math.h>
#include <string.h>

#include "../cpu/fold.h"
#include "../normal.h"
#include "../parallel.h"
#include "../rng.h"
#include "create.h"
#include "pointwise.h"
#include "reduce.h"

enum { PIECE = 256 }; // words drawn at a time

// One call: pieces of its elements are drawn by draw.
typedef struct draw {
  const dlua_args *call;
  dlua_tensor *out;
  const dlua_tensor *x; // of bernoulli and dropout
  uint8_t *mask;        // of dropout
  uint64_t key, first;
  int64_t n, low, channel; // channel: elements that share a draw (dropout2d)
  uint64_t span;
  double a, b; // low and span, or mean and deviation
  uint32_t threshold;
  float scale;
  int words; // per element
  bool plain, contiguous;
  // Writes count elements from k on, made of bits.
  void (*piece)(const struct draw *d, int64_t k, int64_t count, const uint32_t *bits);
} draw;

static void words_of(const draw *d, int64_t block, int64_t count, uint32_t *bits) {
  if (!d->plain) {
    dlua_fold_simd()->philox(bits, d->key, d->first + (uint64_t)block, count);
    return;
  }
  for (int64_t k = 0; k < count; k++) {
    dlua_block drawn = dlua_philox(d->key, 0, d->first + (uint64_t)(block + k), 0);
    memcpy(bits + 4 * k, drawn.lane, sizeof drawn.lane);
  }
}

// Draws for the elements of blocks from … to.
static void draw_blocks(void *context, int64_t from, int64_t to) {
  const draw *d = context;
  uint32_t bits[PIECE];
  for (int64_t block = from; block < to; block += PIECE / 4) {
    int64_t count = to - block < PIECE / 4 ? to - block : PIECE / 4;
    int64_t k = block * 4 / d->words, end = k + count * 4 / d->words;
    words_of(d, block, count, bits);
    d->piece(d, k, (end < d->n ? end : d->n) - k, bits);
  }
}

static dlua_status run_draw(draw *d, int64_t n, int words, bool plain) {
  int64_t blocks = (n * words + 3) / 4;
  d->n = n, d->words = words, d->plain = plain, d->contiguous = dlua_is_contiguous(d->out);
  d->key = dlua_rng_key(), d->first = dlua_rng_take((uint64_t)blocks);
  if (plain)
    draw_blocks(d, 0, blocks);
  else
    dlua_parallel(blocks, 20, draw_blocks, d);
  return DLUA_OK;
}

static uint64_t wide(const uint32_t *bits, int64_t k) {
  return (uint64_t)bits[2 * k] << 32 | bits[2 * k + 1];
}

// Memory position of logical element k of a result that is written in place.
static int64_t place(const draw *d, int64_t k) {
  return d->contiguous ? k : dlua_offset_at(d->out->ndim, d->out->size, d->out->stride, k);
}

static void put(const draw *d, int64_t k, double value) { dlua_put(d->out, place(d, k), value); }

static int words_for(const dlua_tensor *x) { return x->dtype == DLUA_F64 ? 2 : 1; }

static dlua_status float_shape(dlua_args *a) {
  if (!dlua_is_float(a->spec[0].dtype))
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: dtype must be a float, got %s", a->op->name,
                     dlua_dtype_name(a->spec[0].dtype));
  return dlua_shape_sized(a);
}

// ---------------------------------------------------------------- uniform

static void uniform_piece(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  if (d->words == 2) {
    for (int64_t j = 0; j < count; j++)
      put(d, k + j, fma(dlua_unit_f64(bits[2 * j], bits[2 * j + 1]), d->b, d->a));
  } else if (d->contiguous && !d->plain) {
    dlua_fold_simd()->uniform(dlua_f32(d->out) + k, bits, count, (float)d->a, (float)d->b);
  } else {
    for (int64_t j = 0; j < count; j++)
      put(d, k + j, (double)fmaf(dlua_unit_f32(bits[j]), (float)d->b, (float)d->a));
  }
}

static dlua_status draw_uniform(const dlua_args *a, double low, double high, bool plain) {
  draw d = {.call = a, .out = a->out[0], .a = low, .b = high - low, .piece = uniform_piece};
  return run_draw(&d, dlua_numel(d.out), words_for(d.out), plain);
}

static dlua_status rand_cpu(const dlua_args *a) { return draw_uniform(a, 0, 1, true); }
static dlua_status rand_team(const dlua_args *a) { return draw_uniform(a, 0, 1, false); }

static dlua_status uniform_cpu(const dlua_args *a) {
  return draw_uniform(a, a->num[0].f, a->num[1].f, true);
}

static dlua_status uniform_team(const dlua_args *a) {
  return draw_uniform(a, a->num[0].f, a->num[1].f, false);
}

static dlua_status uniform_shape(dlua_args *a) {
  double low = a->num[0].f, high = a->num[1].f;
  if (!(low <= high) || !isfinite(high - low))
    return dlua_fail(DLUA_BAD_ARGUMENT, "uniform: there is nothing between low %g and high %g", low,
                     high);
  return dlua_shape_same(a);
}

// What x held before does not matter to draws that replace it.
static void replaced_back(dlua_back *b) { dlua_give(b, 0, dlua_zeros_like(b->s, b->g[0])); }

const dlua_op dlua_op_rand = {
    .name = "rand",
    .sig = "size:s -> out",
    .doc = "Even draws from [0, 1).",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE | DLUA_RANDOM,
    .shape = float_shape,
    .cpu = rand_cpu,
    .fast = (dlua_kernel *const[]){rand_team, NULL},
};

const dlua_op dlua_op_uniform = {
    .name = "uniform",
    .sig = "x:T, low:f=0, high:f=1 -> y",
    .doc = "Even draws between low and high in x's shape; uniform_ overwrites x with them.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_INPLACE | DLUA_RANDOM,
    .shape = uniform_shape,
    .cpu = uniform_cpu,
    .fast = (dlua_kernel *const[]){uniform_team, NULL},
    .back = replaced_back,
};

// ---------------------------------------------------------------- normal

static void normal_pairs_f64(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  for (int64_t j = 0; j < count; j += 2) {
    double pair[2];
    dlua_normal_pair_f64(wide(bits, j), wide(bits, j + 1), &pair[0], &pair[1]);
    put(d, k + j, fma(d->b, pair[0], d->a));
    if (j + 1 < count) put(d, k + j + 1, fma(d->b, pair[1], d->a));
  }
}

static void normal_piece(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  if (d->words == 2) {
    normal_pairs_f64(d, k, count, bits);
    return;
  }
  int64_t j = 0;
  if (d->contiguous && !d->plain) {
    j = count & ~(int64_t)1;
    dlua_fold_simd()->normal(dlua_f32(d->out) + k, bits, j, (float)d->a, (float)d->b);
  }
  for (; j < count; j += 2) {
    float pair[2];
    dlua_normal_pair_f32(bits[j], bits[j + 1], &pair[0], &pair[1]);
    put(d, k + j, (double)fmaf((float)d->b, pair[0], (float)d->a));
    if (j + 1 < count) put(d, k + j + 1, (double)fmaf((float)d->b, pair[1], (float)d->a));
  }
}

static dlua_status draw_normal(const dlua_args *a, double mean, double std, bool plain) {
  draw d = {.call = a, .out = a->out[0], .a = mean, .b = std, .piece = normal_piece};
  return run_draw(&d, dlua_numel(d.out), words_for(d.out), plain);
}

static dlua_status randn_cpu(const dlua_args *a) { return draw_normal(a, 0, 1, true); }
static dlua_status randn_team(const dlua_args *a) { return draw_normal(a, 0, 1, false); }

static dlua_status normal_cpu(const dlua_args *a) {
  return draw_normal(a, a->num[0].f, a->num[1].f, true);
}

static dlua_status normal_team(const dlua_args *a) {
  return draw_normal(a, a->num[0].f, a->num[1].f, false);
}

static dlua_status normal_shape(dlua_args *a) {
  if (!(a->num[1].f >= 0))
    return dlua_fail(DLUA_BAD_ARGUMENT, "normal: std must be 0 or more, got %g", a->num[1].f);
  return dlua_shape_same(a);
}

const dlua_op dlua_op_randn = {
    .name = "randn",
    .sig = "size:s -> out",
    .doc = "Draws from the standard normal distribution.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE | DLUA_RANDOM,
    .shape = float_shape,
    .cpu = randn_cpu,
    .fast = (dlua_kernel *const[]){randn_team, NULL},
};

const dlua_op dlua_op_normal = {
    .name = "normal",
    .sig = "x:T, mean:f=0, std:f=1 -> y",
    .doc = "Normal draws in x's shape; normal_ overwrites x with them.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_INPLACE | DLUA_RANDOM,
    .shape = normal_shape,
    .cpu = normal_cpu,
    .fast = (dlua_kernel *const[]){normal_team, NULL},
    .back = replaced_back,
};

// ---------------------------------------------------------------- integers

// The upper half of bits * span: 0 … span - 1, even to within span / 2^64 (span 0: all 64 bits).
static int64_t scaled(uint64_t bits, uint64_t span) {
  return (int64_t)(span == 0 ? bits : (uint64_t)((unsigned __int128)bits * span >> 64));
}

static void randint_piece(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  for (int64_t j = 0; j < count; j++) {
    int64_t value = (int64_t)((uint64_t)d->low + (uint64_t)scaled(wide(bits, j), d->span));
    if (dlua_is_float(d->out->dtype))
      dlua_put(d->out, k + j, (double)value);
    else if (d->out->dtype == DLUA_BOOL)
      dlua_put_int(d->out, k + j, value != 0);
    else
      dlua_put_int(d->out, k + j, value);
  }
}

static dlua_status draw_randint(const dlua_args *a, bool plain) {
  draw d = {.call = a, .out = a->out[0], .low = a->num[0].i, .piece = randint_piece};
  d.span = (uint64_t)a->num[1].i - (uint64_t)a->num[0].i + 1;
  return run_draw(&d, dlua_numel(d.out), 2, plain);
}

static dlua_status randint_cpu(const dlua_args *a) { return draw_randint(a, true); }
static dlua_status randint_team(const dlua_args *a) { return draw_randint(a, false); }

static dlua_status randint_shape(dlua_args *a) {
  if (a->num[0].i > a->num[1].i)
    return dlua_fail(DLUA_BAD_ARGUMENT, "randint: there is nothing between low %lld and high %lld",
                     (long long)a->num[0].i, (long long)a->num[1].i);
  if (!a->dtype_set) a->spec[0].dtype = DLUA_I64;
  for (int k = 0; k < 2; k++) {
    dlua_value limit = {.set = true, .is_int = true, .i = a->num[k].i};
    DLUA_TRY(dlua_number_fits(a, &limit, a->spec[0].dtype));
  }
  DLUA_TRY(dlua_check_sizes(a, a->num[2].n, a->num[2].v));
  dlua_spec_shape(a, 0, a->num[2].n, a->num[2].v);
  return DLUA_OK;
}

const dlua_op dlua_op_randint = {
    .name = "randint",
    .sig = "low:i, high:i, size:s -> out",
    .doc = "Even draws of integers from low to high, both included; i64 unless a dtype is given.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE | DLUA_RANDOM,
    .shape = randint_shape,
    .cpu = randint_cpu,
    .fast = (dlua_kernel *const[]){randint_team, NULL},
};

static dlua_status randperm_shape(dlua_args *a) {
  DLUA_TRY(dlua_check_sizes(a, 1, &a->num[0].i));
  if (!a->dtype_set) a->spec[0].dtype = DLUA_I64;
  if (a->spec[0].dtype != DLUA_I64 && a->spec[0].dtype != DLUA_I32)
    return dlua_fail(DLUA_BAD_ARGUMENT, "randperm: dtype must be i64 or i32, got %s",
                     dlua_dtype_name(a->spec[0].dtype));
  dlua_spec_shape(a, 0, 1, &a->num[0].i);
  return DLUA_OK;
}

// Fisher and Yates' shuffle from the end; element k is swapped by draw k of 64 bits.
static dlua_status randperm_cpu(const dlua_args *a) {
  dlua_tensor *out = a->out[0];
  int64_t n = out->size[0];
  uint64_t key = dlua_rng_key(), first = dlua_rng_take((uint64_t)((n + 1) / 2));
  int64_t *wide_out = dlua_i64(out);
  int32_t *small_out = (int32_t *)dlua_data(out);
  for (int64_t k = 0; k < n; k++) dlua_put_int(out, k, k + 1);
  dlua_block block = {{0}};
  for (int64_t k = n - 1; k > 0; k--) {
    if (k == n - 1 || k & 1) block = dlua_philox(key, 0, first + (uint64_t)k / 2, 0); // two draws
    int64_t j = scaled(wide(block.lane, k & 1), (uint64_t)k + 1);
    if (out->dtype == DLUA_I64) {
      int64_t kept = wide_out[k];
      wide_out[k] = wide_out[j], wide_out[j] = kept;
    } else {
      int32_t kept = small_out[k];
      small_out[k] = small_out[j], small_out[j] = kept;
    }
  }
  return DLUA_OK;
}

const dlua_op dlua_op_randperm = {
    .name = "randperm",
    .sig = "n:i -> out",
    .doc = "The numbers 1 … n in random order, i64.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_CREATE | DLUA_RANDOM,
    .shape = randperm_shape,
    .cpu = randperm_cpu,
};

// ---------------------------------------------------------------- bernoulli

static double at(const dlua_tensor *x, int64_t k) {
  int64_t offset = dlua_offset_at(x->ndim, x->size, x->stride, k);
  return dlua_real(x, offset);
}

static void bernoulli_piece(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  for (int64_t j = 0; j < count; j++) {
    double unit = d->words == 2 ? dlua_unit_f64(bits[2 * j], bits[2 * j + 1])
                                : (double)dlua_unit_f32(bits[j]);
    put(d, k + j, unit < at(d->x, k + j));
  }
}

static dlua_status draw_bernoulli(const dlua_args *a, bool plain) {
  const dlua_tensor *p = a->in[0];
  int64_t n = dlua_numel(p);
  for (int64_t k = 0; k < n; k++) {
    double chance = at(p, k);
    if (!(chance >= 0 && chance <= 1))
      return dlua_fail(DLUA_BAD_ARGUMENT, "bernoulli: p %g at position %lld is outside 0..1",
                       chance, (long long)k + 1);
  }
  draw d = {.call = a, .out = a->out[0], .x = p, .piece = bernoulli_piece};
  return run_draw(&d, n, words_for(p), plain);
}

static dlua_status bernoulli_cpu(const dlua_args *a) { return draw_bernoulli(a, true); }
static dlua_status bernoulli_team(const dlua_args *a) { return draw_bernoulli(a, false); }

const dlua_op dlua_op_bernoulli = {
    .name = "bernoulli",
    .sig = "p:T(0,1) -> y",
    .doc = "1 with probability p, else 0, for every element of p. Its gradient is 0.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_INPLACE | DLUA_RANDOM,
    .shape = dlua_shape_same,
    .cpu = bernoulli_cpu,
    .fast = (dlua_kernel *const[]){bernoulli_team, NULL},
    .back = replaced_back,
};

// ---------------------------------------------------------------- dropout

// Nothing is drawn, and there is no mask, when nothing can be dropped.
static bool drops(const dlua_value *num) { return num[1].i != 0 && num[0].f > 0; }

static double keep_scale(const dlua_value *num) { return num[0].f < 1 ? 1 / (1 - num[0].f) : 0; }

static dlua_status dropout_shape(dlua_args *a) {
  double p = a->num[0].f;
  if (!(p >= 0 && p <= 1))
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: p must lie in 0..1, got %g", a->op->name, p);
  a->nout = drops(a->num) ? 2 : 1;
  DLUA_TRY(dlua_shape_same(a));
  a->spec[1].dtype = DLUA_BOOL;
  return DLUA_OK;
}

// One mask entry per channel.
static dlua_status dropout2d_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  if (x->ndim < 3) return dlua_shape_error(a, "x must be {n,c,h,w} or {c,h,w}");
  DLUA_TRY(dropout_shape(a));
  int64_t size[DLUA_MAX_DIMS];
  for (int k = 0; k < x->ndim; k++) size[k] = k < x->ndim - 2 ? x->size[k] : 1;
  dlua_spec_shape(a, 1, x->ndim, size);
  return DLUA_OK;
}

static void drop(const draw *d, int64_t count, const uint32_t *bits, const float *x, float *y,
                 uint8_t *mask) {
  if (!d->plain) {
    dlua_fold_simd()->dropout(y, mask, x, bits, count, d->threshold, d->scale);
    return;
  }
  for (int64_t k = 0; k < count; k++) {
    mask[k] = bits[k] >> 8 >= d->threshold;
    y[k] = mask[k] ? x[k] * d->scale : 0;
  }
}

// bf16 and f16 are widened and rounded piece by piece.
static void drop_narrow(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  float x[PIECE], y[PIECE];
  const dlua_cast_rows *rows = dlua_cast_simd();
  const int64_t wide = sizeof(float), narrow = sizeof(uint16_t);
  uint16_t *from = (uint16_t *)dlua_data(d->x) + k, *to = (uint16_t *)dlua_data(d->out) + k;
  rows->to_f32[d->x->dtype](NULL, count, (char *[]){(char *)x, (char *)from},
                            (int64_t[]){wide, narrow});
  drop(d, count, bits, x, y, d->mask + k);
  rows->from_f32[d->out->dtype](NULL, count, (char *[]){(char *)to, (char *)y},
                                (int64_t[]){narrow, wide});
}

static void dropout_piece(const draw *d, int64_t k, int64_t count, const uint32_t *bits) {
  if (dlua_is_half((dlua_dtype)d->out->dtype)) {
    drop_narrow(d, k, count, bits);
    return;
  }
  if (d->channel == 1 && d->out->dtype == DLUA_F32) {
    drop(d, count, bits, dlua_f32(d->x) + k, dlua_f32(d->out) + k, d->mask + k);
    return;
  }
  for (int64_t j = k; j < k + count; j++) {
    d->mask[j] = bits[j - k] >> 8 >= d->threshold;
    for (int64_t e = j * d->channel; e < (j + 1) * d->channel; e++) {
      if (d->out->dtype == DLUA_F32)
        dlua_f32(d->out)[e] = d->mask[j] ? dlua_f32(d->x)[e] * d->scale : 0;
      else
        dlua_f64(d->out)[e] = d->mask[j] ? dlua_f64(d->x)[e] * d->a : 0;
    }
  }
}

static dlua_status draw_dropout(const dlua_args *a, bool plain) {
  const dlua_tensor *x = a->in[0];
  if (a->nout == 1) return dlua_copy(a->out[0], x);
  int64_t n = dlua_numel(a->out[1]);
  draw d = {.call = a, .out = a->out[0], .x = x, .mask = dlua_data(a->out[1])};
  d.channel = n > 0 ? dlua_numel(x) / n : 0;
  d.threshold = (uint32_t)ceil(a->num[0].f * 0x1p24);
  d.a = keep_scale(a->num), d.scale = (float)d.a, d.piece = dropout_piece;
  return run_draw(&d, n, 1, plain);
}

static dlua_status dropout_cpu(const dlua_args *a) { return draw_dropout(a, true); }
static dlua_status dropout_team(const dlua_args *a) { return draw_dropout(a, false); }

// The gradient through what a mask keeps. The mask is the row's x: operands in order.
static dlua_tensor *masked(dlua_back *b, dlua_tensor *mask) {
  return dlua_call(b->s, &dlua_op_dropout_grad, dlua_t(mask), dlua_t(b->g[0]), dlua_v(&b->num[0]));
}

static void dropout_back(dlua_back *b) {
  dlua_give(b, 0, drops(b->num) ? masked(b, dlua_saved(b, "_mask")) : b->g[0]);
}

const dlua_op dlua_op_dropout = {
    .name = "dropout",
    .sig = "x:T, p:f=0.5, training:b=true -> y, _mask",
    .doc = "Zeroes each element with probability p and divides the others by 1 - p; x itself when "
           "training is false.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_RANDOM | DLUA_HALF,
    .shape = dropout_shape,
    .cpu = dropout_cpu,
    .fast = (dlua_kernel *const[]){dropout_team, NULL},
    .back = dropout_back,
    .save = "_mask",
    .contiguous = "x",
};

DLUA_ROW2(dropout_grad_f32, float, bool, float, y *(x ? (float)keep_scale(num) : 0))
DLUA_ROW2(dropout_grad_f64, double, bool, double, y *(x ? keep_scale(num) : 0))
DLUA_FLOAT_KERNELS(dropout_grad, 1)

static void dropout_grad_back(dlua_back *b) { dlua_give(b, 1, masked(b, dlua_saved(b, "mask"))); }

const dlua_op dlua_op_dropout_grad = {
    .name = "dropout_grad",
    .sig = "mask:B, g:T, p:f=0.5 -> gx",
    .doc = "g / (1 - p) where the mask is true, g * 0 elsewhere.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_ROWS | DLUA_HIDDEN,
    .shape = dlua_shape_broadcast,
    .cpu = dropout_grad_cpu,
    .fast = DLUA_ONLY(dropout_grad_fast),
    .back = dropout_grad_back,
    .save = "mask",
};

const dlua_op dlua_op_dropout2d = {
    .name = "dropout2d",
    .sig = "x:T, p:f=0.5, training:b=true -> y, _mask",
    .doc =
        "Zeroes whole channels of {n,c,h,w} with probability p and divides the others by 1 - p; x "
        "itself when training is false.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_RANDOM,
    .shape = dropout2d_shape,
    .cpu = dropout_cpu,
    .fast = (dlua_kernel *const[]){dropout_team, NULL},
    .back = dropout_back,
    .save = "_mask",
    .contiguous = "x",
};
