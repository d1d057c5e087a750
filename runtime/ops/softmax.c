// softmax.c - softmax and its logarithm along one dimension, with their gradients as ops.
//
// Rows are shifted by their largest element, so nothing overflows; a row of -inf gives nan, as in
// PyTorch. Inputs are made contiguous: a row is then n elements, inner apart, and the common case
// (the last dimension, f32) has a vector kernel.
#include <math.h>

#include "../cpu/fold.h"
#include "../parallel.h"
#include "reduce.h"

// rows × n elements, inner apart.
typedef struct rows {
  const dlua_args *call;
  int64_t rows, n, inner;
} rows;

static rows rows_of(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t dim = a->num[0].i;
  rows w = {.call = a, .n = x->ndim > 0 ? x->size[dim] : 1, .inner = 1};
  for (int64_t k = dim + 1; k < x->ndim; k++) w.inner *= x->size[k];
  w.rows = w.n > 0 ? dlua_numel(x) / w.n : 0;
  return w;
}

static int64_t row_start(const rows *w, int64_t row) {
  return row / w->inner * w->inner * w->n + row % w->inner;
}

static dlua_status run_rows(const dlua_args *a, double cost,
                            void (*body)(void *w, int64_t from, int64_t to)) {
  rows w = rows_of(a);
  if (cost == 0)
    body(&w, 0, w.rows);
  else
    dlua_parallel(w.rows, cost * (double)w.n, body, &w);
  return DLUA_OK;
}

// The team runs the plain body on rows: nothing is split, so the bits are the same.
enum { PLAIN = 0, PER_EXP = 20, PER_VECTOR_EXP = 10 };

// Declines all but f32 rows that lie contiguous.
static bool vectors_apply(const dlua_args *a) {
  return a->in[0]->dtype == DLUA_F32 && rows_of(a).inner == 1;
}

// Rows that lie side by side go sixteen at a time.
static bool columns_apply(const dlua_args *a) {
  return a->in[0]->dtype == DLUA_F32 && rows_of(a).inner >= 8;
}

// How many rows from k on, sixteen at most, lie side by side.
static int64_t neighbours(const rows *w, int64_t k, int64_t to) {
  int64_t n = w->inner - k % w->inner;
  if (n > to - k) n = to - k;
  return n < 16 ? n : 16;
}

static dlua_status same_shapes(dlua_args *a) {
  if (!dlua_same_shape(a->in[0], a->in[1])) return dlua_shape_error(a, "shapes differ");
  return dlua_shape_same(a);
}

// ---------------------------------------------------------------- forward

// Largest element of a row, nan if it has one, and the sum of exp(x - largest).
static double row_sum(const rows *w, int64_t start, double *top) {
  const dlua_tensor *x = w->call->in[0];
  double sum = 0;
  *top = -INFINITY;
  for (int64_t j = 0; j < w->n; j++) {
    double e = dlua_real(x, start + j * w->inner);
    if (!(e <= *top) && !isnan(*top)) *top = e;
  }
  for (int64_t j = 0; j < w->n; j++) sum += exp(dlua_real(x, start + j * w->inner) - *top);
  return sum;
}

static void softmax_rows(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  for (int64_t k = from; k < to; k++) {
    int64_t start = row_start(w, k);
    double top, sum = row_sum(w, start, &top);
    for (int64_t j = start; j < start + w->n * w->inner; j += w->inner)
      dlua_put(w->call->out[0], j, exp(dlua_real(w->call->in[0], j) - top) / sum);
  }
}

static void log_softmax_rows(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  for (int64_t k = from; k < to; k++) {
    int64_t start = row_start(w, k);
    double top, rest = log(row_sum(w, start, &top));
    for (int64_t j = start; j < start + w->n * w->inner; j += w->inner)
      dlua_put(w->call->out[0], j, dlua_real(w->call->in[0], j) - top - rest);
  }
}

static void softmax_vectors(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const float *x = dlua_f32(w->call->in[0]);
  float *y = dlua_f32(w->call->out[0]);
  for (int64_t k = from; k < to; k++)
    dlua_fold_simd()->softmax(y + k * w->n, x + k * w->n, w->n, 1);
}

static void log_softmax_vectors(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const float *x = dlua_f32(w->call->in[0]);
  float *y = dlua_f32(w->call->out[0]);
  for (int64_t k = from; k < to; k++)
    dlua_fold_simd()->log_softmax(y + k * w->n, x + k * w->n, w->n);
}

static void softmax_across(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const float ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (int64_t k = from, n; k < to; k += n) {
    int64_t start = row_start(w, k);
    n = neighbours(w, k, to);
    dlua_fold_simd()->softmax_columns(dlua_f32(w->call->out[0]) + start,
                                      dlua_f32(w->call->in[0]) + start, w->n, w->inner, n, ones);
  }
}

static void log_softmax_across(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  float tops[16], sums[16];
  for (int64_t k = from, n; k < to; k += n) {
    int64_t start = row_start(w, k);
    const float *x = dlua_f32(w->call->in[0]) + start;
    float *y = dlua_f32(w->call->out[0]) + start;
    n = neighbours(w, k, to);
    dlua_fold_simd()->column_sums(x, w->n, w->inner, n, tops, sums);
    for (int64_t j = 0; j < n; j++) sums[j] = logf(sums[j]);
    for (int64_t c = 0; c < w->n; c++)
      for (int64_t j = 0; j < n; j++)
        y[c * w->inner + j] = (x[c * w->inner + j] - tops[j]) - sums[j];
  }
}

static dlua_status softmax_cpu(const dlua_args *a) { return run_rows(a, PLAIN, softmax_rows); }
static dlua_status softmax_team(const dlua_args *a) { return run_rows(a, PER_EXP, softmax_rows); }

static dlua_status softmax_vector(const dlua_args *a) {
  if (columns_apply(a)) return run_rows(a, PER_VECTOR_EXP, softmax_across);
  return vectors_apply(a) ? run_rows(a, PER_VECTOR_EXP, softmax_vectors) : DLUA_DECLINED;
}

static dlua_status log_softmax_cpu(const dlua_args *a) {
  return run_rows(a, PLAIN, log_softmax_rows);
}

static dlua_status log_softmax_team(const dlua_args *a) {
  return run_rows(a, PER_EXP, log_softmax_rows);
}

static dlua_status log_softmax_vector(const dlua_args *a) {
  if (columns_apply(a)) return run_rows(a, PER_VECTOR_EXP, log_softmax_across);
  return vectors_apply(a) ? run_rows(a, PER_VECTOR_EXP, log_softmax_vectors) : DLUA_DECLINED;
}

static void softmax_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_softmax_grad, dlua_t(b->g[0]), dlua_t(dlua_saved(b, "y")),
                      dlua_v(&b->num[0])));
}

static void log_softmax_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_log_softmax_grad, dlua_t(b->g[0]), dlua_t(dlua_saved(b, "y")),
                      dlua_v(&b->num[0])));
}

const dlua_op dlua_op_softmax = {
    .name = "softmax",
    .sig = "x:T, dim:d -> y",
    .doc = "exp(x) / sum(exp(x)) along a dimension.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = dlua_shape_same,
    .cpu = softmax_cpu,
    .fast = (dlua_kernel *const[]){softmax_vector, softmax_team, NULL},
    .back = softmax_back,
    .save = "y",
    .contiguous = "x",
    .autocast = DLUA_CAST_F32,
};

const dlua_op dlua_op_log_softmax = {
    .name = "log_softmax",
    .sig = "x:T, dim:d -> y",
    .doc = "x - log(sum(exp(x))) along a dimension: the logarithm of softmax without its rounding.",
    .dtype = DLUA_PROMOTE_FLOAT,
    .shape = dlua_shape_same,
    .cpu = log_softmax_cpu,
    .fast = (dlua_kernel *const[]){log_softmax_vector, log_softmax_team, NULL},
    .back = log_softmax_back,
    .save = "y",
    .contiguous = "x",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- gradients

static void softmax_grad_rows(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const dlua_tensor *g = w->call->in[0], *y = w->call->in[1];
  for (int64_t k = from; k < to; k++) {
    int64_t start = row_start(w, k), end = start + w->n * w->inner;
    double dot = 0;
    for (int64_t j = start; j < end; j += w->inner) dot += dlua_real(g, j) * dlua_real(y, j);
    for (int64_t j = start; j < end; j += w->inner)
      dlua_put(w->call->out[0], j, dlua_real(y, j) * (dlua_real(g, j) - dot));
  }
}

static void log_softmax_grad_rows(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const dlua_tensor *g = w->call->in[0], *y = w->call->in[1];
  for (int64_t k = from; k < to; k++) {
    int64_t start = row_start(w, k), end = start + w->n * w->inner;
    double sum = 0;
    for (int64_t j = start; j < end; j += w->inner) sum += dlua_real(g, j);
    for (int64_t j = start; j < end; j += w->inner)
      dlua_put(w->call->out[0], j, dlua_real(g, j) - exp(dlua_real(y, j)) * sum);
  }
}

static void softmax_grad_vectors(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const float *g = dlua_f32(w->call->in[0]), *y = dlua_f32(w->call->in[1]);
  float *gx = dlua_f32(w->call->out[0]);
  for (int64_t k = from * w->n; k < to * w->n; k += w->n)
    dlua_fold_simd()->softmax_grad(gx + k, g + k, y + k, w->n);
}

static void log_softmax_grad_vectors(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const float *g = dlua_f32(w->call->in[0]), *y = dlua_f32(w->call->in[1]);
  float *gx = dlua_f32(w->call->out[0]);
  for (int64_t k = from * w->n; k < to * w->n; k += w->n)
    dlua_fold_simd()->log_softmax_grad(gx + k, g + k, y + k, w->n);
}

typedef void columns_grad(float *gx, const float *g, const float *y, int64_t count, int64_t stride,
                          int64_t n);

static void grad_across(const rows *w, int64_t from, int64_t to, columns_grad *grad) {
  const float *g = dlua_f32(w->call->in[0]), *y = dlua_f32(w->call->in[1]);
  float *gx = dlua_f32(w->call->out[0]);
  for (int64_t k = from, n; k < to; k += n) {
    int64_t start = row_start(w, k);
    n = neighbours(w, k, to);
    grad(gx + start, g + start, y + start, w->n, w->inner, n);
  }
}

static void softmax_grad_across(void *w, int64_t from, int64_t to) {
  grad_across(w, from, to, dlua_fold_simd()->softmax_grad_columns);
}

static void log_softmax_grad_across(void *w, int64_t from, int64_t to) {
  grad_across(w, from, to, dlua_fold_simd()->log_softmax_grad_columns);
}

static dlua_status softmax_grad_cpu(const dlua_args *a) {
  return run_rows(a, PLAIN, softmax_grad_rows);
}

static dlua_status softmax_grad_team(const dlua_args *a) {
  return run_rows(a, PER_VECTOR_EXP, softmax_grad_rows);
}

static dlua_status softmax_grad_vector(const dlua_args *a) {
  if (columns_apply(a)) return run_rows(a, PER_VECTOR_EXP, softmax_grad_across);
  return vectors_apply(a) ? run_rows(a, PER_VECTOR_EXP, softmax_grad_vectors) : DLUA_DECLINED;
}

static dlua_status log_softmax_grad_cpu(const dlua_args *a) {
  return run_rows(a, PLAIN, log_softmax_grad_rows);
}

static dlua_status log_softmax_grad_team(const dlua_args *a) {
  return run_rows(a, PER_EXP, log_softmax_grad_rows);
}

static dlua_status log_softmax_grad_vector(const dlua_args *a) {
  if (columns_apply(a)) return run_rows(a, PER_VECTOR_EXP, log_softmax_grad_across);
  return vectors_apply(a) ? run_rows(a, PER_VECTOR_EXP, log_softmax_grad_vectors) : DLUA_DECLINED;
}

static dlua_tensor *sum_along(dlua_back *b, dlua_tensor *x) {
  return dlua_call(b->s, &dlua_op_sum, dlua_t(x), dlua_list(1, &b->num[0].i), dlua_i(1));
}

// out = y (g - sum(g y)) is linear in g, with itself as gradient; by y it is h (g - sum(g y)) -
// g sum(h y), h being the incoming gradient.
static void softmax_grad_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *g = dlua_saved(b, "g"), *y = dlua_saved(b, "y"), *h = b->g[0];
  dlua_give(b, 0, dlua_call(s, &dlua_op_softmax_grad, dlua_t(h), dlua_t(y), dlua_v(&b->num[0])));
  if (!dlua_needs(b, 1)) return;
  dlua_tensor *centred = dlua_sub(s, g, sum_along(b, dlua_mul(s, g, y)));
  dlua_tensor *other = dlua_mul(s, g, sum_along(b, dlua_mul(s, h, y)));
  dlua_give(b, 1, dlua_sub(s, dlua_mul(s, h, centred), other));
}

// out = g - exp(y) sum(g).
static void log_softmax_grad_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *h = b->g[0], *p = dlua_call(s, &dlua_op_exp, dlua_t(dlua_saved(b, "y")));
  dlua_tensor *hp = dlua_mul(s, h, p);
  dlua_give(b, 0, dlua_sub(s, h, sum_along(b, hp)));
  if (dlua_needs(b, 1))
    dlua_give(b, 1, dlua_neg(s, dlua_mul(s, hp, sum_along(b, dlua_saved(b, "g")))));
}

const dlua_op dlua_op_softmax_grad = {
    .name = "softmax_grad",
    .sig = "g:T, y:T, dim:d -> gx",
    .doc = "y (g - sum(g y)) along a dimension: the gradient of softmax, y its result.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = same_shapes,
    .cpu = softmax_grad_cpu,
    .fast = (dlua_kernel *const[]){softmax_grad_vector, softmax_grad_team, NULL},
    .back = softmax_grad_back,
    .save = "g y",
    .contiguous = "*",
};

const dlua_op dlua_op_log_softmax_grad = {
    .name = "log_softmax_grad",
    .sig = "g:T, y:T, dim:d -> gx",
    .doc = "g - exp(y) sum(g) along a dimension: the gradient of log_softmax, y its result.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = same_shapes,
    .cpu = log_softmax_grad_cpu,
    .fast = (dlua_kernel *const[]){log_softmax_grad_vector, log_softmax_grad_team, NULL},
    .back = log_softmax_grad_back,
    .save = "g y",
    .contiguous = "*",
};
