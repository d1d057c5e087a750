// channel_sum.c - the sum of every channel of {n,c,…}: the gradient of a bias. It is sum over all
// other dimensions, but reads blocked activations as they lie.
#include <string.h>

#include "../cpu/channel_rows.h"
#include "../cpu/fold.h"
#include "../cpu/layout.h"
#include "../op.h"
#include "../parallel.h"
#include "reduce.h"

static dlua_status channel_sum_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  if (x->ndim < 2) return dlua_shape_error(a, "x must have 2 dimensions or more");
  dlua_spec_shape(a, 0, 1, &x->size[1]);
  return DLUA_OK;
}

static dlua_status strided(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->out[0];
  int64_t channels = x->size[1], plane = 1;
  for (int d = 2; d < x->ndim; d++) plane *= x->size[d];
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0;
    for (int64_t n = 0; n < x->size[0]; n++)
      for (int64_t k = 0; k < plane; k++) sum += dlua_real(x, (n * channels + c) * plane + k);
    if (y->dtype == DLUA_F32)
      dlua_f32(y)[c] = (float)sum;
    else
      dlua_f64(y)[c] = sum;
  }
  return DLUA_OK;
}

static dlua_status channel_sum_cpu(const dlua_args *a) { return dlua_run_strided(a, strided); }

// Unit k is image n and group k % groups of block channels, pixels x block floats in a row.
typedef struct job {
  const float *x;
  double *sums; // {n, groups, block}
  int64_t block, pixels;
} job;

static void add_units(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t k = from; k < to; k++) {
    const float *x = j->x + k * j->block * j->pixels;
    double *sums = j->sums + k * j->block;
    if (j->block == 1)
      *sums = dlua_fold_simd()->sum(x, j->pixels);
    else
      dlua_fold_simd()->add_rows(sums, x, j->pixels, j->block, j->block);
  }
}

static dlua_status channel_sum_fast(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t count = dlua_numel(x), n = x->size[0], channels = x->size[1];
  if (x->dtype != DLUA_F32 || count == 0 || dlua_is_nhwc(x)) return DLUA_DECLINED;
  int64_t block = dlua_layout_block((dlua_layout)x->storage->layout);
  job j = {.x = dlua_f32(x), .block = block ? block : 1, .pixels = count / n / channels};
  size_t bytes = (size_t)(n * channels) * sizeof(double);
  DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, (void **)&j.sums));
  memset(j.sums, 0, bytes);
  dlua_parallel(n * channels / j.block, (double)(j.block * j.pixels), add_units, &j);
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += j.sums[k * channels + c];
    dlua_f32(a->out[0])[c] = (float)sum;
  }
  dlua_free(dlua_cpu(), j.sums, bytes);
  return DLUA_OK;
}

// Parts of 64 rows or a multiple, at most 64 of them, added up in their order.
typedef struct rows_job {
  const char *x;
  bool half;
  int64_t rows, c, padded, part;
  size_t width;
  double *sums; // {parts, padded}
} rows_job;

static void add_parts(void *context, int64_t from, int64_t to) {
  const rows_job *j = context;
  for (int64_t k = from; k < to; k++) {
    int64_t first = k * j->part, rest = j->rows - first;
    dlua_row_simd()->sums(j->x + (size_t)(first * j->c) * j->width, j->half,
                          rest < j->part ? rest : j->part, j->c, j->sums + k * j->padded);
  }
}

static dlua_status channel_sum_rows(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  bool half = x->dtype == DLUA_BF16;
  if (!dlua_is_nhwc(x) || (x->dtype != DLUA_F32 && !half) || dlua_numel(x) == 0)
    return DLUA_DECLINED;
  rows_job j = {.x = dlua_data(x), .half = half, .c = x->size[1]};
  j.rows = dlua_numel(x) / j.c, j.padded = dlua_row_padded(j.c);
  j.width = dlua_dtype_size((dlua_dtype)x->dtype), j.part = (j.rows + 4095) / 4096 * 64;
  int64_t parts = (j.rows + j.part - 1) / j.part;
  size_t bytes = (size_t)(parts * j.padded) * sizeof(double);
  DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, (void **)&j.sums));
  memset(j.sums, 0, bytes);
  dlua_parallel(parts, (double)(j.part * j.c), add_parts, &j);
  for (int64_t c = 0; c < j.c; c++) {
    double sum = 0;
    for (int64_t k = 0; k < parts; k++) sum += j.sums[k * j.padded + c];
    dlua_put(a->out[0], c, sum);
  }
  dlua_free(dlua_cpu(), j.sums, bytes);
  return DLUA_OK;
}

static void channel_sum_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS], column[DLUA_MAX_DIMS] = {1, 1, 1, 1, 1, 1, 1, 1};
  dlua_input_shape(b, 0, &ndim, size);
  column[1] = size[1];
  dlua_tensor *g = dlua_call(b->s, &dlua_op_reshape, dlua_t(b->g[0]), dlua_list(ndim, column));
  dlua_give(b, 0, dlua_call(b->s, &dlua_op_expand, dlua_t(g), dlua_list(ndim, size)));
}

static dlua_kernel *const kernels[] = {channel_sum_fast, channel_sum_rows, NULL};

const dlua_op dlua_op_channel_sum = {
    .name = "channel_sum",
    .sig = "x:T -> y",
    .doc = "The sum of every channel of x {n,c,…} over all other dimensions.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC | DLUA_HIDDEN,
    .shape = channel_sum_shape,
    .cpu = channel_sum_cpu,
    .fast = kernels,
    .back = channel_sum_back,
    .contiguous = "x",
};
