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

static float entry(const dlua_tensor *p, int64_t channel, float missing) {
  return p ? dlua_f32(p)[channel * p->stride[0]] : missing;
}

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

// Mean and rstd of the channels from column on: the batch's, or the running ones.
static void take_moments(const job *j, int64_t column, double *mean, double *rstd) {
  const dlua_args *a = j->a;
  const float *x = j->x + column; // the first row is the shift
  int64_t n = width_at(j, column);
  double sum[STRIP] = {0}, squares[STRIP] = {0};
  if (a->num[0].i) dlua_norm_simd()->column_moments(x, j->n, j->c, n, x, sum, squares);
  for (int64_t k = 0; k < n; k++) {
    mean[k] = entry(a->in[3], column + k, 0);
    rstd[k] = 1 / __builtin_sqrt(entry(a->in[4], column + k, 0) + a->num[2].f);
    dlua_moments m = {x[k], sum[k], squares[k], j->n};
    if (a->num[0].i) dlua_finish_moments(a, column + k, &m, &mean[k], &rstd[k]);
  }
}

static void norm_strips(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const dlua_args *a = j->a;
  for (int64_t column = from * STRIP; column < j->c && column < to * STRIP; column += STRIP) {
    double mean[STRIP], rstd[STRIP];
    float scale[STRIP], offset[STRIP];
    int64_t n = width_at(j, column);
    take_moments(j, column, mean, rstd);
    for (int64_t k = 0; k < n; k++) {
      double s = rstd[k] * entry(a->in[1], column + k, 1);
      scale[k] = (float)s, offset[k] = (float)(entry(a->in[2], column + k, 0) - mean[k] * s);
      dlua_f32(a->out[1])[column + k] = (float)mean[k];
      dlua_f32(a->out[2])[column + k] = (float)rstd[k];
    }
    dlua_norm_simd()->column_affine(j->out + column, j->x + column, j->n, j->c, n, scale, offset);
  }
}

dlua_status dlua_batch_norm_columns(const dlua_args *a) {
  if (!takes(a->in[0])) return DLUA_DECLINED;
  DLUA_TRY(run_strips(&(job){.a = a, .x = dlua_f32(a->in[0])}, 4, norm_strips));
  for (int k = 3; k <= 4 && a->num[0].i; k++) {
    if (a->in[k]) a->in[k]->storage->version++;
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient

// gx = g a + x b + c, see norm_fast.c.
static void grad_strips(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const dlua_args *a = j->a;
  double training = (double)a->num[0].i / (double)j->n;
  for (int64_t column = from * STRIP; column < j->c && column < to * STRIP; column += STRIP) {
    double sum[STRIP] = {0}, product[STRIP] = {0};
    float fa[STRIP], fb[STRIP], fc[STRIP];
    int64_t n = width_at(j, column);
    const float *means = dlua_f32(a->in[3]) + column, *rstds = dlua_f32(a->in[4]) + column;
    dlua_norm_simd()->column_products(j->g + column, j->x + column, j->n, j->c, n, means, sum,
                                      product);
    for (int64_t k = 0; k < n; k++) {
      double rstd = rstds[k], scale = rstd * entry(a->in[2], column + k, 1);
      double slope = -scale * rstd * rstd * product[k] * training;
      fa[k] = (float)scale, fb[k] = (float)slope;
      fc[k] = (float)(-scale * sum[k] * training - slope * means[k]);
      dlua_f32(a->out[1])[column + k] = (float)(product[k] * rstd);
      dlua_f32(a->out[2])[column + k] = (float)sum[k];
    }
    dlua_norm_simd()->column_affine2(j->out + column, j->g + column, j->x + column, j->n, j->c, n,
                                     fa, fb, fc);
  }
}

dlua_status dlua_batch_norm_grad_columns(const dlua_args *a) {
  const dlua_tensor *x = a->in[1];
  if (!takes(x)) return DLUA_DECLINED;
  dlua_tensor *g = NULL;
  DLUA_TRY(dlua_contiguous(a->in[0], &g));
  job j = {.a = a, .x = dlua_f32(x), .g = dlua_f32(g)};
  dlua_status status = run_strips(&j, 8, grad_strips);
  dlua_tensor_release(g);
  return status;
}
