// bias_grad.c - on the way back through a layer y = f(x w' + b): the gradient before f, and that of
// the bias, its column sums, while the rows are still in the cache.
//
// f's own hidden ops give the first: their kernels, row by row, and their backward. So the bits are
// those of the two ops this one stands for.
#include <string.h>

#include "../backend.h"
#include "pointwise.h"
#include "reduce_fast.h"

static dlua_status bias_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *x = a->in[1];
  if (g->ndim == 0) return dlua_shape_error(a, "g has no dimensions, needs at least 1");
  if (g->ndim != x->ndim || memcmp(g->size, x->size, (size_t)g->ndim * sizeof *g->size) != 0)
    return dlua_shape_error(a, "the shapes differ");
  dlua_spec_shape(a, 0, g->ndim, g->size);
  dlua_spec_shape(a, 1, 1, &g->size[g->ndim - 1]);
  return DLUA_OK;
}

// ---------------------------------------------------------------- plain

static void add_columns(const dlua_tensor *x, int64_t column, const dlua_tensor *sums) {
  int64_t n = dlua_numel(sums), count = dlua_numel(x);
  double sum = 0;
  for (int64_t k = column; k < count; k += n) sum += dlua_real(x, k);
  if (sums->dtype == DLUA_F32)
    dlua_f32(sums)[column] = (float)sum;
  else
    dlua_f64(sums)[column] = sum;
}

static dlua_status plain(const dlua_args *a, const dlua_op *slope) {
  dlua_args first = *a;
  first.op = slope, first.nout = 1;
  DLUA_TRY(slope->cpu(&first));
  for (int64_t j = 0; j < dlua_numel(a->out[1]); j++) add_columns(a->out[0], j, a->out[1]);
  return DLUA_OK;
}

static dlua_status relu_bias_grad_cpu(const dlua_args *a) { return plain(a, &dlua_op_relu_grad); }
static dlua_status gelu_bias_grad_cpu(const dlua_args *a) { return plain(a, &dlua_op_gelu_grad); }

// ---------------------------------------------------------------- fast

typedef struct made {
  const dlua_args *call;
  dlua_row *row;
} made;

// Some rows of a strip of columns: in[0] and in[1] lie as out[0] does.
static void make_rows(void *context, int64_t start, int64_t rows, int64_t stride, int64_t n) {
  const made *m = context;
  const int64_t step[3] = {sizeof(float), sizeof(float), sizeof(float)};
  for (int64_t k = 0; k < rows; k++, start += stride) {
    char *place[3] = {(char *)(dlua_f32(m->call->out[0]) + start),
                      (char *)(dlua_f32(m->call->in[0]) + start),
                      (char *)(dlua_f32(m->call->in[1]) + start)};
    m->row((void *)m->call->num, n, place, step);
  }
}

// One op after the other, for what has no such rows: f64, and a single row.
static dlua_status in_turn(const dlua_args *a, const dlua_op *slope) {
  dlua_args first = *a, second = *a;
  first.op = slope, first.nout = 1;
  DLUA_TRY(dlua_run_cpu(&first));
  second.op = &dlua_op_sum, second.in = second.slots, second.in[0] = a->out[0], second.nin = 1;
  second.out[0] = a->out[1], second.nout = 1;
  second.num[0] = (dlua_value){.set = true, .n = a->out[0]->ndim - 1};
  for (int d = 0; d < second.num[0].n; d++) second.num[0].v[d] = d;
  return dlua_run_cpu(&second);
}

static dlua_status fast(const dlua_args *a, const dlua_op *slope, dlua_row *row) {
  made m = {a, row};
  if (a->in[0]->ndim == 1) return DLUA_DECLINED;
  if (row && a->in[0]->dtype == DLUA_F32) {
    dlua_status status = dlua_sum_columns_fast(a->out[0], a->out[1], make_rows, &m);
    if (status != DLUA_DECLINED) return status;
  }
  return in_turn(a, slope);
}

static dlua_status relu_bias_grad_fast(const dlua_args *a) {
  return fast(a, &dlua_op_relu_grad, dlua_rows_of(a)->relu_grad);
}
static dlua_status gelu_bias_grad_fast(const dlua_args *a) {
  return fast(a, &dlua_op_gelu_grad, dlua_rows_of(a)->gelu_grad);
}

// ---------------------------------------------------------------- gradients

// The second result sums the first, so f's hidden op sees the sum of both gradients.
static void back_of(dlua_back *b, const dlua_op *slope) {
  dlua_tensor *both = dlua_add(b->s, b->g[0], b->g[1]);
  dlua_back first = *b;
  first.g = &both;
  if (both) slope->back(&first);
}

static void relu_bias_grad_back(dlua_back *b) { back_of(b, &dlua_op_relu_grad); }
static void gelu_bias_grad_back(dlua_back *b) { back_of(b, &dlua_op_gelu_grad); }

// ---------------------------------------------------------------- ops

const dlua_op dlua_op_relu_bias_grad = {
    .name = "relu_bias_grad",
    .sig = "g:T, y:T -> gx, gb",
    .doc = "g where y > 0, 0 elsewhere, and the sums of that over all dimensions but the last.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = bias_grad_shape,
    .cpu = relu_bias_grad_cpu,
    .fast = DLUA_ONLY(relu_bias_grad_fast),
    .back = relu_bias_grad_back,
    .save = "y",
    .contiguous = "*",
};

const dlua_op dlua_op_gelu_bias_grad = {
    .name = "gelu_bias_grad",
    .sig = "g:T, x:T, approximate:e{none|tanh}=none -> gx, gb",
    .doc = "The gradient of gelu, and its sums over all dimensions but the last.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = bias_grad_shape,
    .cpu = gelu_bias_grad_cpu,
    .fast = DLUA_ONLY(gelu_bias_grad_fast),
    .back = gelu_bias_grad_back,
    .save = "g x",
    .contiguous = "*",
};
