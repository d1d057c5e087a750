// norm_rows.c - batch normalisation over NHWC activations of f32 or bf16: rows of channels. The rows
// are cut into parts whose sums go to a table that is added up in order, so the result does not depend
// on the number of threads. Two walks over memory: sums, then the result.
#include <string.h>

#include "../cpu/channel_rows.h"
#include "../cpu/layout.h"
#include "../parallel.h"
#include "norm_fast.h"

enum { PARTS = 64, STRETCH = 64 }; // parts at most; a part is a multiple of so many rows

// What the walks have for each channel: shift or mean, the factors of the result, and the gate's.
enum { CENTRE, FACTOR, GATE = FACTOR + 3, VECTORS = GATE + 2 };

typedef struct job {
  const dlua_args *a;
  const char *x, *g;
  char *out;
  bool half;
  int64_t rows, c, padded, part, parts; // part: rows of one
  size_t width;
  double *sums;            // {parts, 2, padded}
  float *vectors[VECTORS]; // of padded, below
} job;

static bool takes(const dlua_tensor *x) {
  return dlua_is_nhwc(x) && (x->dtype == DLUA_F32 || x->dtype == DLUA_BF16) && dlua_numel(x) > 0;
}

static size_t scratch_bytes(const job *j) {
  return (size_t)j->padded * (sizeof(double) * 2 * (size_t)j->parts + sizeof(float) * VECTORS);
}

static dlua_status open_job(job *j, const dlua_args *a, const dlua_tensor *x) {
  *j = (job){.a = a, .x = dlua_data(x), .out = dlua_data(a->out[0]), .c = x->size[1]};
  j->half = x->dtype == DLUA_BF16, j->width = dlua_dtype_size((dlua_dtype)x->dtype);
  j->rows = dlua_numel(x) / j->c, j->padded = dlua_row_padded(j->c);
  j->part = (j->rows + PARTS * STRETCH - 1) / (PARTS * STRETCH) * STRETCH;
  j->parts = (j->rows + j->part - 1) / j->part;
  DLUA_TRY(dlua_alloc(dlua_cpu(), scratch_bytes(j), (void **)&j->sums));
  memset(j->sums, 0, scratch_bytes(j));
  float *vectors = (float *)(j->sums + j->parts * 2 * j->padded);
  for (int k = 0; k < VECTORS; k++) j->vectors[k] = vectors + k * j->padded;
  return DLUA_OK;
}

static void close_job(job *j) { dlua_free(dlua_cpu(), j->sums, scratch_bytes(j)); }

static void run_parts(job *j, void (*body)(void *, int64_t, int64_t)) {
  dlua_parallel(j->parts, 2.0 * (double)(j->part * j->c), body, j);
}

static int64_t rows_of(const job *j, int64_t part) {
  int64_t rest = j->rows - part * j->part;
  return rest < j->part ? rest : j->part;
}

static size_t place_of(const job *j, int64_t part) {
  return (size_t)(part * j->part * j->c) * j->width;
}

static void total(const job *j, int64_t channel, double *first, double *second) {
  *first = *second = 0;
  for (int64_t k = 0; k < j->parts; k++) {
    const double *sums = j->sums + k * 2 * j->padded;
    *first += sums[channel], *second += sums[j->padded + channel];
  }
}

// ---------------------------------------------------------------- forward

static void sum_parts(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t k = from; k < to; k++) {
    double *sums = j->sums + k * 2 * j->padded;
    dlua_row_simd()->moments(j->x + place_of(j, k), j->half, rows_of(j, k), j->c,
                             j->vectors[CENTRE], sums, sums + j->padded);
  }
}

static void scale_parts(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t k = from; k < to; k++) {
    size_t at = place_of(j, k);
    dlua_row_simd()->affine(j->out + at, j->x + at, j->half, rows_of(j, k), j->c,
                            j->vectors[FACTOR], j->vectors[FACTOR + 1], j->a->num[NORM_RELU].i);
  }
}

// The first row, which the sums are taken around.
static void set_shift(const job *j) {
  dlua_row_simd()->sums(j->x, j->half, 1, j->c, j->sums);
  for (int64_t k = 0; k < j->c; k++) j->vectors[CENTRE][k] = (float)j->sums[k];
  memset(j->sums, 0, (size_t)j->padded * sizeof *j->sums);
}

dlua_status dlua_batch_norm_rows(const dlua_args *a) {
  if (!takes(a->in[NORM_X])) return DLUA_DECLINED;
  job j;
  DLUA_TRY(open_job(&j, a, a->in[NORM_X]));
  bool training = a->num[NORM_TRAINING].i;
  if (training) {
    set_shift(&j);
    run_parts(&j, sum_parts);
  }
  for (int64_t k = 0; k < j.c; k++) {
    dlua_moments m = {.shift = j.vectors[CENTRE][k], .count = j.rows};
    total(&j, k, &m.sum, &m.squares);
    dlua_norm_factors(a, k, &m, &j.vectors[FACTOR][k], &j.vectors[FACTOR + 1][k]);
  }
  for (int k = NORM_RUNNING_MEAN; k <= NORM_RUNNING_VAR && training; k++) {
    if (a->in[k]) a->in[k]->storage->version++;
  }
  run_parts(&j, scale_parts);
  close_job(&j);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient

static const dlua_norm_gate *gate_of(const job *j, dlua_norm_gate *gate) {
  *gate = (dlua_norm_gate){j->vectors[GATE], j->vectors[GATE + 1]};
  return j->a->num[GRAD_RELU].i ? gate : NULL;
}

static void product_parts(void *context, int64_t from, int64_t to) {
  const job *j = context;
  dlua_norm_gate gate;
  for (int64_t k = from; k < to; k++) {
    size_t at = place_of(j, k);
    double *sums = j->sums + k * 2 * j->padded;
    dlua_row_simd()->products(j->g + at, j->x + at, j->half, rows_of(j, k), j->c,
                              j->vectors[CENTRE], gate_of(j, &gate), sums, sums + j->padded);
  }
}

static void grad_parts(void *context, int64_t from, int64_t to) {
  const job *j = context;
  dlua_norm_gate gate;
  for (int64_t k = from; k < to; k++) {
    size_t at = place_of(j, k);
    dlua_row_simd()->affine2(j->out + at, j->g + at, j->x + at, j->half, rows_of(j, k), j->c,
                             j->vectors[FACTOR], j->vectors[FACTOR + 1], j->vectors[FACTOR + 2],
                             gate_of(j, &gate));
  }
}

dlua_status dlua_batch_norm_grad_rows(const dlua_args *a) {
  const dlua_tensor *x = a->in[GRAD_X];
  if (!takes(x)) return DLUA_DECLINED;
  job j;
  DLUA_TRY(open_job(&j, a, x));
  j.g = dlua_data(a->in[GRAD_G]);
  memcpy(j.vectors[CENTRE], dlua_f32(a->in[GRAD_MEAN]), (size_t)j.c * sizeof(float));
  for (int64_t k = 0; k < j.c; k++)
    dlua_norm_gate_factors(a, k, &j.vectors[GATE][k], &j.vectors[GATE + 1][k]);
  run_parts(&j, product_parts);
  for (int64_t k = 0; k < j.c; k++) {
    double sum, product;
    float factor[3];
    total(&j, k, &sum, &product);
    dlua_norm_grad_factors(a, k, j.rows, sum, product, factor);
    for (int i = 0; i < 3; i++) j.vectors[FACTOR + i][k] = factor[i];
  }
  run_parts(&j, grad_parts);
  close_job(&j);
  return DLUA_OK;
}
