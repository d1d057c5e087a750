// norm_columns.c - batch normalisation of f32 {n,c}: channels are columns, taken in strips that
// stay in the cache from the sums to the result. A strip is one thread's, so the result does not
// depend on their number.
#include "../cpu/norm.h"
#include "../parallel.h"
#include "norm_fast.h"

enum { STRIP = DLUA_NORM_STRIP };

typedef struct job {
  const dlua_args *a;
  int64_t n, c;
  const float *x, *g;
  float *out;
} job;

static int64_t width_at(const job *j, int64_t column) {
  return j->c - column < STRIP ? j->c - column : STRIP;
}

static bool takes(const dlua_tensor *x) {
  return x->dtype == DLUA_F32 && x->ndim == 2 && dlua_numel(x) > 0 && dlua_is_contiguous(x);
}

static dlua_status run_strips(job *j, double cost, void (*body)(void *, int64_t, int64_t)) {
  j->n = j->a->out[0]->size[0], j->c = j->a->out[0]->size[1], j->out = dlua_f32(j->a->out[0]);
  dlua_parallel((j->c + STRIP - 1) / STRIP, cost * (double)j->n * STRIP, body, j);
  return DLUA_OK;
}

// ---------------------------------------------------------------- forward

static void norm_strips(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t column = from * STRIP; column < j->c && column < to * STRIP; column += STRIP) {
    const float *x = j->x + column; // the first row is the shift
    double sum[STRIP] = {0}, squares[STRIP] = {0};
    float scale[STRIP], offset[STRIP];
    int64_t n = width_at(j, column);
    if (j->a->num[NORM_TRAINING].i)
      dlua_norm_simd()->column_moments(x, j->n, j->c, n, x, sum, squares);
    for (int64_t k = 0; k < n; k++) {
      dlua_moments m = {x[k], sum[k], squares[k], j->n};
      dlua_norm_factors(j->a, column + k, &m, &scale[k], &offset[k]);
    }
    dlua_norm_simd()->column_affine(j->out + column, x, j->n, j->c, n, scale, offset,
                                    j->a->num[NORM_RELU].i);
  }
}

dlua_status dlua_batch_norm_columns(const dlua_args *a) {
  if (!takes(a->in[NORM_X])) return DLUA_DECLINED;
  DLUA_TRY(run_strips(&(job){.a = a, .x = dlua_f32(a->in[NORM_X])}, 4, norm_strips));
  for (int k = NORM_RUNNING_MEAN; k <= NORM_RUNNING_VAR && a->num[NORM_TRAINING].i; k++) {
    if (a->in[k]) a->in[k]->storage->version++;
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient

static void grad_strips(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t column = from * STRIP; column < j->c && column < to * STRIP; column += STRIP) {
    double sum[STRIP] = {0}, product[STRIP] = {0};
    float fa[STRIP], fb[STRIP], fc[STRIP], scale[STRIP], offset[STRIP], factor[3];
    const dlua_norm_gate *gate = j->a->num[GRAD_RELU].i ? &(dlua_norm_gate){scale, offset} : NULL;
    int64_t n = width_at(j, column);
    for (int64_t k = 0; k < n && gate; k++)
      dlua_norm_gate_factors(j->a, column + k, &scale[k], &offset[k]);
    dlua_norm_simd()->column_products(j->g + column, j->x + column, j->n, j->c, n,
                                      dlua_f32(j->a->in[GRAD_MEAN]) + column, gate, sum, product);
    for (int64_t k = 0; k < n; k++) {
      dlua_norm_grad_factors(j->a, column + k, j->n, sum[k], product[k], factor);
      fa[k] = factor[0], fb[k] = factor[1], fc[k] = factor[2];
    }
    dlua_norm_simd()->column_affine2(j->out + column, j->g + column, j->x + column, j->n, j->c, n,
                                     fa, fb, fc, gate);
  }
}

dlua_status dlua_batch_norm_grad_columns(const dlua_args *a) {
  const dlua_tensor *x = a->in[GRAD_X];
  if (!takes(x)) return DLUA_DECLINED;
  dlua_tensor *g = NULL;
  DLUA_TRY(dlua_contiguous(a->in[GRAD_G], &g));
  job j = {.a = a, .x = dlua_f32(x), .g = dlua_f32(g)};
  dlua_status status = run_strips(&j, 8, grad_strips);
  dlua_tensor_release(g);
  return status;
}
