// matmul.c - products of matrices: matmul, bmm, dot and linear, alone and with the activation after it.
//
// All are one loop over a batch of gemm.h products. A batch whose rows follow each other in memory
// becomes one tall matrix; transposed operands are strides. Gradients are products again, with the
// transposes as views.
#include "../backend.h"
#include "../cpu/gemm.h"
#include "../cpu/onednn.h"
#include "../op.h"
#include "../parallel.h"

#include <string.h>

enum { MAX_BATCH = DLUA_MAX_DIMS };

// A batch of products x {m,k} · y {k,n}: operand 0 is x, 1 is y, 2 the result.
typedef struct product {
  const dlua_args *call;
  dlua_dtype dtype;
  int ndim; // batch dimensions
  int64_t size[MAX_BATCH], stride[2][MAX_BATCH], count;
  dlua_gemm g; // strides and sizes of one product; pointers to the first
} product;

static char *start(const product *p, int operand, int64_t k) {
  int64_t width = (int64_t)dlua_dtype_size(p->dtype);
  if (operand == 2) return (char *)p->g.c + k * p->g.m * p->g.n * width;
  int64_t offset = 0;
  for (int d = p->ndim - 1; d >= 0; d--) {
    offset += k % p->size[d] * p->stride[operand][d];
    k /= p->size[d];
  }
  return (char *)(operand ? p->g.b : p->g.a) + offset * width;
}

// Batch dimensions of the operands, broadcast.
static void plan_batch(product *p, const dlua_tensor *x, const dlua_tensor *y) {
  int nx = x->ndim > 2 ? x->ndim - 2 : 0, ny = y->ndim > 2 ? y->ndim - 2 : 0;
  p->ndim = nx > ny ? nx : ny, p->count = 1;
  for (int d = 0; d < p->ndim; d++) {
    int dx = d - (p->ndim - nx), dy = d - (p->ndim - ny);
    int64_t sx = dx < 0 ? 1 : x->size[dx], sy = dy < 0 ? 1 : y->size[dy];
    p->size[d] = sx == 1 ? sy : sx;
    p->stride[0][d] = sx == 1 ? 0 : x->stride[dx], p->stride[1][d] = sy == 1 ? 0 : y->stride[dy];
    p->count *= p->size[d];
  }
}

// A y without batch and rows of x that follow each other: one tall product.
static void merge_rows(product *p) {
  int64_t m = p->g.m, stride = p->g.ai;
  for (int d = p->ndim - 1; d >= 0; d--) {
    if (p->size[d] == 1) continue;
    if (p->stride[1][d] != 0) return;
    if (m == 1)
      stride = p->stride[0][d];
    else if (p->stride[0][d] != m * stride)
      return;
    m *= p->size[d];
  }
  p->g.m = m, p->g.ai = stride, p->ndim = 0, p->count = 1;
}

static product product_of(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->in[1];
  int dx = x->ndim, dy = y->ndim;
  product p = {.call = a, .dtype = (dlua_dtype)x->dtype};
  p.g = (dlua_gemm){.m = dx > 1 ? x->size[dx - 2] : 1,
                    .n = dy > 1 ? y->size[dy - 1] : 1,
                    .k = x->size[dx - 1],
                    .a = dlua_data(x),
                    .b = dlua_data(y),
                    .ai = dx > 1 ? x->stride[dx - 2] : 0,
                    .ak = x->stride[dx - 1],
                    .bk = y->stride[dy > 1 ? dy - 2 : 0],
                    .bj = dy > 1 ? y->stride[dy - 1] : 0,
                    .c = dlua_data(a->out[0])};
  p.g.ci = p.g.n;
  plan_batch(&p, x, y);
  return p;
}

// x {…,in} and w {out,in}: the same as matmul with w transposed.
static product linear_of(const dlua_args *a) {
  const dlua_tensor *w = a->in[1];
  dlua_args swapped = *a;
  dlua_tensor turned = *w;
  turned.size[0] = w->size[1], turned.size[1] = w->size[0];
  turned.stride[0] = w->stride[1], turned.stride[1] = w->stride[0];
  swapped.in = swapped.slots, swapped.in[0] = a->in[0], swapped.in[1] = &turned;
  product p = product_of(&swapped);
  p.call = a;
  return p;
}

// ---------------------------------------------------------------- plain

static double number_at(dlua_dtype dtype, const void *x, int64_t k) {
  return dtype == DLUA_F32 ? (double)((const float *)x)[k] : ((const double *)x)[k];
}

static int64_t integer_at(dlua_dtype dtype, const void *x, int64_t k) {
  if (dtype == DLUA_I64) return ((const int64_t *)x)[k];
  return dtype == DLUA_I32 ? ((const int32_t *)x)[k] : ((const uint8_t *)x)[k];
}

static void put(dlua_dtype dtype, void *y, int64_t k, double f, int64_t i) {
  switch (dtype) {
  case DLUA_F32: ((float *)y)[k] = (float)f; break;
  case DLUA_F64: ((double *)y)[k] = f; break;
  case DLUA_I64: ((int64_t *)y)[k] = i; break;
  case DLUA_I32: ((int32_t *)y)[k] = (int32_t)i; break;
  default: ((uint8_t *)y)[k] = (uint8_t)i;
  }
}

// One element: the sum over k in double or in wrapping 64 bit integers.
static void plain_element(const product *p, const void *x, const void *y, const dlua_tensor *bias,
                          void *out, int64_t i, int64_t j) {
  const dlua_gemm *g = &p->g;
  double f = bias ? number_at(p->dtype, dlua_data(bias), j * bias->stride[0]) : 0;
  uint64_t n = 0;
  for (int64_t q = 0; q < g->k; q++) {
    int64_t left = i * g->ai + q * g->ak, right = q * g->bk + j * g->bj;
    if (dlua_is_float(p->dtype))
      f += number_at(p->dtype, x, left) * number_at(p->dtype, y, right);
    else
      n += (uint64_t)integer_at(p->dtype, x, left) * (uint64_t)integer_at(p->dtype, y, right);
  }
  put(p->dtype, out, i * g->ci + j, f, (int64_t)n);
}

static dlua_status plain(const product *p, const dlua_tensor *bias) {
  for (int64_t k = 0; k < p->count; k++)
    for (int64_t i = 0; i < p->g.m; i++)
      for (int64_t j = 0; j < p->g.n; j++)
        plain_element(p, start(p, 0, k), start(p, 1, k), bias, start(p, 2, k), i, j);
  return DLUA_OK;
}

static dlua_status matmul_cpu(const dlua_args *a) {
  product p = product_of(a);
  return plain(&p, NULL);
}

static dlua_status linear_cpu(const dlua_args *a) {
  product p = linear_of(a);
  return plain(&p, a->in[2]);
}

// ---------------------------------------------------------------- fast

static void run_products(void *context, int64_t from, int64_t to) {
  const product *p = context;
  for (int64_t k = from; k < to; k++) {
    dlua_gemm g = p->g;
    g.a = start(p, 0, k), g.b = start(p, 1, k), g.c = start(p, 2, k);
    if (p->dtype == DLUA_F32)
      dlua_gemm_f32(&g);
    else
      dlua_gemm_f64(&g);
  }
}

static dlua_status bf16_products(const product *p) {
  dlua_products batch = {.g = p->g, .ndim = p->ndim};
  memcpy(batch.size, p->size, sizeof batch.size);
  memcpy(batch.a, p->stride[0], sizeof batch.a);
  memcpy(batch.b, p->stride[1], sizeof batch.b);
  return dlua_onednn_products(&batch);
}

static dlua_status fast(product *p) {
  if (p->dtype == DLUA_BF16) {
    merge_rows(p);
    return bf16_products(p);
  }
  if (p->dtype != DLUA_F32 && p->dtype != DLUA_F64) return DLUA_DECLINED;
  merge_rows(p);
  double work = 2.0 * (double)p->g.m * (double)p->g.n * (double)p->g.k;
  if (p->count < 4)
    run_products(p, 0, p->count); // the team splits each product instead
  else
    dlua_parallel(p->count, work, run_products, p);
  return DLUA_OK;
}

static dlua_status matmul_fast(const dlua_args *a) {
  product p = product_of(a);
  return fast(&p);
}

static dlua_status linear_fast(const dlua_args *a) {
  const dlua_tensor *bias = a->in[2];
  if (bias && bias->stride[0] != 1 && bias->size[0] > 1) return DLUA_DECLINED;
  product p = linear_of(a);
  p.g.bias = bias ? dlua_data(bias) : NULL;
  return fast(&p);
}

static dlua_kernel *const matmul_kernels[] = {matmul_fast, NULL};
static dlua_kernel *const linear_kernels[] = {linear_fast, NULL};

// ---------------------------------------------------------------- activations after linear

// The call of a part of a: into result k.
static dlua_args part(const dlua_args *a, const dlua_op *op, int k) {
  dlua_args call = *a;
  call.op = op, call.nout = 1, call.out[0] = a->out[k];
  return call;
}

// out[0] = f of result k, which may be out[0] itself, while it is still in the cache.
static dlua_status activate(const dlua_args *a, const dlua_op *f, int k,
                            dlua_status (*run)(const dlua_args *)) {
  dlua_args call = part(a, f, 0);
  call.in = call.slots, call.nin = 1, call.in[0] = a->out[k];
  return run(&call);
}

static dlua_status linear_relu_cpu(const dlua_args *a) {
  DLUA_TRY(linear_cpu(a));
  return activate(a, &dlua_op_relu, 0, dlua_op_relu.cpu);
}

static dlua_status linear_relu_fast(const dlua_args *a) {
  DLUA_TRY(linear_fast(a));
  return activate(a, &dlua_op_relu, 0, dlua_run_cpu);
}

static dlua_status linear_gelu_cpu(const dlua_args *a) {
  dlua_args product = part(a, &dlua_op_linear, 1);
  DLUA_TRY(linear_cpu(&product));
  return activate(a, &dlua_op_gelu, 1, dlua_op_gelu.cpu);
}

static dlua_status linear_gelu_fast(const dlua_args *a) {
  dlua_args product = part(a, &dlua_op_linear, 1);
  DLUA_TRY(linear_fast(&product));
  return activate(a, &dlua_op_gelu, 1, dlua_run_cpu);
}

static dlua_kernel *const linear_relu_kernels[] = {linear_relu_fast, NULL};
static dlua_kernel *const linear_gelu_kernels[] = {linear_gelu_fast, NULL};

// ---------------------------------------------------------------- shapes

// The batch dimensions of the result into size; false where they do not broadcast.
static bool batch_shape(const dlua_tensor *x, const dlua_tensor *y, int *ndim, int64_t *size) {
  int nx = x->ndim > 2 ? x->ndim - 2 : 0, ny = y->ndim > 2 ? y->ndim - 2 : 0;
  *ndim = nx > ny ? nx : ny;
  for (int d = 0; d < *ndim; d++) {
    int dx = d - (*ndim - nx), dy = d - (*ndim - ny);
    int64_t sx = dx < 0 ? 1 : x->size[dx], sy = dy < 0 ? 1 : y->size[dy];
    if (sx != sy && sx != 1 && sy != 1) return false;
    size[d] = sx == 1 ? sy : sx;
  }
  return true;
}

static dlua_status matmul_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->in[1];
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  if (x->ndim == 0 || y->ndim == 0)
    return dlua_shape_error(a, "%s has no dimensions, needs at least 1", x->ndim ? "y" : "x");
  int64_t columns = x->size[x->ndim - 1], rows = y->size[y->ndim > 1 ? y->ndim - 2 : 0];
  if (columns != rows) {
    return dlua_shape_error(a, "x has %lld column%s but y has %lld row%s", (long long)columns,
                            columns == 1 ? "" : "s", (long long)rows, rows == 1 ? "" : "s");
  }
  if (!batch_shape(x, y, &ndim, size))
    return dlua_shape_error(a, "the batch dimensions do not broadcast");
  if (x->ndim > 1) size[ndim++] = x->size[x->ndim - 2];
  if (y->ndim > 1) size[ndim++] = y->size[y->ndim - 1];
  dlua_spec_shape(a, 0, ndim, size);
  return DLUA_OK;
}

static dlua_status bmm_shape(dlua_args *a) {
  if (a->in[0]->ndim != 3 || a->in[1]->ndim != 3)
    return dlua_shape_error(a, "x and y must have 3 dimensions");
  if (a->in[0]->size[0] != a->in[1]->size[0])
    return dlua_shape_error(a, "x has %lld matrices but y has %lld", (long long)a->in[0]->size[0],
                            (long long)a->in[1]->size[0]);
  return matmul_shape(a);
}

static dlua_status dot_shape(dlua_args *a) {
  if (a->in[0]->ndim != 1 || a->in[1]->ndim != 1)
    return dlua_shape_error(a, "x and y must have 1 dimension");
  if (a->in[0]->size[0] != a->in[1]->size[0]) return dlua_shape_error(a, "the sizes differ");
  return matmul_shape(a);
}

static dlua_status linear_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0], *w = a->in[1], *b = a->in[2];
  if (w->ndim != 2) return dlua_shape_error(a, "w must have 2 dimensions {out,in}");
  if (x->ndim == 0) return dlua_shape_error(a, "x has no dimensions, needs at least 1");
  int64_t features = x->size[x->ndim - 1], size[DLUA_MAX_DIMS];
  if (features != w->size[1]) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: x has %lld feature%s but w expects %lld (x %s, w %s)",
                     a->op->name, (long long)features, features == 1 ? "" : "s",
                     (long long)w->size[1], dlua_shape_text(x), dlua_shape_text(w));
  }
  if (b && (b->ndim != 1 || b->size[0] != w->size[0]))
    return dlua_shape_error(a, "b must have %lld elements", (long long)w->size[0]);
  memcpy(size, x->size, sizeof size);
  size[x->ndim - 1] = w->size[0];
  for (int k = 0; k < a->nout; k++) dlua_spec_shape(a, k, x->ndim, size);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradients

static dlua_tensor *turned(dlua_scope *s, dlua_tensor *x) {
  return dlua_call(s, &dlua_op_transpose, dlua_t(x), dlua_i(-2), dlua_i(-1));
}

static dlua_tensor *times(dlua_scope *s, dlua_tensor *x, dlua_tensor *y) {
  return dlua_call(s, &dlua_op_matmul, dlua_t(x), dlua_t(y));
}

static dlua_tensor *grown(dlua_scope *s, dlua_tensor *x, int dim) {
  return dlua_call(s, &dlua_op_unsqueeze, dlua_t(x), dlua_i(dim));
}

static dlua_tensor *shrunk(dlua_scope *s, dlua_tensor *x, int dim) {
  return dlua_call(s, &dlua_op_squeeze, dlua_t(x), dlua_i(dim));
}

// All rows of a batch as one matrix.
static dlua_tensor *as_matrix(dlua_scope *s, dlua_tensor *x) {
  if (!x || x->ndim == 2) return x;
  int64_t columns = x->size[x->ndim - 1], rows = 1;
  for (int d = 0; d < x->ndim - 1; d++) rows *= x->size[d];
  return dlua_call(s, &dlua_op_reshape, dlua_t(x), dlua_list(2, (int64_t[]){rows, columns}));
}

static void matmul_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *x = dlua_saved(b, "x"), *y = dlua_saved(b, "y"), *g = b->g[0];
  if (!x || !y) return;
  bool vector_x = x->ndim == 1, vector_y = y->ndim == 1;
  if (vector_y) y = grown(s, y, 1), g = grown(s, g, -1);
  if (vector_x) x = grown(s, x, 0), g = grown(s, g, -2);
  if (!x || !y || !g) return;
  if (dlua_needs(b, 0)) {
    dlua_tensor *gx = times(s, g, turned(s, y));
    dlua_give(b, 0, vector_x ? shrunk(s, gx, -2) : gx);
  }
  if (!dlua_needs(b, 1)) return;
  bool one = y->ndim == 2; // then its gradient sums over the batch, which the product does
  dlua_tensor *gy =
      one ? times(s, turned(s, as_matrix(s, x)), as_matrix(s, g)) : times(s, turned(s, x), g);
  dlua_give(b, 1, vector_y ? shrunk(s, gy, -1) : gy);
}

static bool on_device(const dlua_back *b) { return b->g[0]->storage->device != dlua_cpu(); }

// The gradient of x before the activation that made x, which a device's product can end in; NULL
// where that does not apply: no product knows gelu by erf, by tanh well enough for f32, or any of
// them in f64.
static dlua_tensor *ahead(dlua_back *b, dlua_tensor *g) {
  dlua_back maker;
  uint8_t dtype = b->g[0]->dtype;
  bool half = dlua_is_half((dlua_dtype)dtype);
  if (!g || !on_device(b) || dtype == DLUA_F64) return NULL;
  const dlua_op *op = dlua_sole_maker(b, 0, &maker);
  if (op == &dlua_op_linear_relu) {
    dlua_tensor *y = dlua_saved(&maker, "y");
    return dlua_call(b->s, &dlua_op_relu_linear_grad, dlua_t(g), dlua_t(dlua_saved(b, "w")),
                     dlua_t(y));
  }
  if (op == &dlua_op_linear_gelu && half && maker.num[0].i) {
    dlua_tensor *z = dlua_saved(&maker, "_z");
    return dlua_call(b->s, &dlua_op_gelu_linear_grad, dlua_t(g), dlua_t(dlua_saved(b, "w")),
                     dlua_t(z), dlua_v(&maker.num[0]));
  }
  return NULL;
}

static void give_input(dlua_back *b, dlua_tensor *g) {
  if (!dlua_needs(b, 0)) return;
  dlua_tensor *gx = ahead(b, g);
  if (gx)
    dlua_give_ahead(b, 0, gx);
  else
    dlua_give(b, 0, times(b->s, g, dlua_saved(b, "w")));
}

static void give_products(dlua_back *b, dlua_tensor *g) {
  dlua_scope *s = b->s;
  give_input(b, g);
  if (dlua_needs(b, 1))
    dlua_give(b, 1, times(s, turned(s, as_matrix(s, g)), as_matrix(s, dlua_saved(b, "x"))));
}

static void give_bias(dlua_back *b, dlua_tensor *g) {
  if (dlua_needs(b, 2))
    dlua_give(b, 2, dlua_call(b->s, &dlua_op_sum, dlua_t(as_matrix(b->s, g)), dlua_i(0)));
}

// All of them from g, the gradient before an activation.
static void give_all(dlua_back *b, dlua_tensor *g) {
  dlua_tensor *both[DLUA_MAX_OUT];
  if (!on_device(b) || !dlua_needs(b, 1) || !dlua_needs(b, 2)) {
    give_products(b, g);
    give_bias(b, g);
    return;
  }
  give_input(b, g);
  dlua_call_all(b->s, &dlua_op_linear_weight_grad, both, dlua_t(as_matrix(b->s, g)),
                dlua_t(as_matrix(b->s, dlua_saved(b, "x"))));
  dlua_give(b, 1, both[0]);
  dlua_give(b, 2, both[1]);
}

static void linear_back(dlua_back *b) { give_all(b, b->g[0]); }

// The pass that gives the gradients before the activation and of the bias together: the CPU has it in
// f32 and f64, while its 16-bit kernels of the two are faster apart.
static bool in_one_pass(const dlua_back *b) {
  uint8_t dtype = b->g[0]->dtype;
  return dlua_needs(b, 2) && (on_device(b) || dtype == DLUA_F32 || dtype == DLUA_F64);
}

static void linear_relu_back(dlua_back *b) {
  if (dlua_is_ahead(b)) return give_all(b, b->g[0]);
  dlua_tensor *y = dlua_saved(b, "y"), *both[DLUA_MAX_OUT] = {NULL};
  if (in_one_pass(b)) {
    dlua_call_all(b->s, &dlua_op_relu_bias_grad, both, dlua_t(b->g[0]), dlua_t(y));
    give_products(b, both[0]);
    dlua_give(b, 2, both[1]);
    return;
  }
  give_all(b, dlua_call(b->s, &dlua_op_relu_grad, dlua_t(b->g[0]), dlua_t(y)));
}

// A gradient of _z itself comes only from second derivatives.
static void linear_gelu_back(dlua_back *b) {
  if (dlua_is_ahead(b)) return give_all(b, b->g[0]);
  dlua_tensor *z = dlua_saved(b, "_z"), *both[DLUA_MAX_OUT] = {NULL};
  if (in_one_pass(b) && !b->g[1]) {
    dlua_call_all(b->s, &dlua_op_gelu_bias_grad, both, dlua_t(b->g[0]), dlua_t(z),
                  dlua_v(&b->num[0]));
    give_products(b, both[0]);
    dlua_give(b, 2, both[1]);
    return;
  }
  dlua_tensor *g =
      dlua_call(b->s, &dlua_op_gelu_grad, dlua_t(b->g[0]), dlua_t(z), dlua_v(&b->num[0]));
  if (b->g[1]) g = dlua_add(b->s, g, b->g[1]);
  give_all(b, g);
}

// ---------------------------------------------------------------- ops

const dlua_op dlua_op_matmul = {
    .name = "matmul",
    .sig = "x:T, y:T -> out",
    .doc = "Matrix product over the last two dimensions; the others broadcast. A 1-d x is a row, a "
           "1-d y a column, and the dimension that stands for it is dropped from the result.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_BF16_UNITS,
    .refuse = "bool",
    .shape = matmul_shape,
    .cpu = matmul_cpu,
    .fast = matmul_kernels,
    .back = matmul_back,
    .save = "x y",
    .autocast = DLUA_CAST_LOWER,
};

const dlua_op dlua_op_bmm = {
    .name = "bmm",
    .sig = "x:T, y:T -> out",
    .doc = "Products of matching matrices: x {b,m,k}, y {b,k,n}, result {b,m,n}.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_BF16_UNITS,
    .refuse = "bool",
    .shape = bmm_shape,
    .cpu = matmul_cpu,
    .fast = matmul_kernels,
    .back = matmul_back,
    .save = "x y",
    .autocast = DLUA_CAST_LOWER,
};

const dlua_op dlua_op_dot = {
    .name = "dot",
    .sig = "x:T, y:T -> out",
    .doc = "Sum of the products of two vectors' elements.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_BF16_UNITS,
    .refuse = "bool",
    .shape = dot_shape,
    .cpu = matmul_cpu,
    .fast = matmul_kernels,
    .back = matmul_back,
    .save = "x y",
    .autocast = DLUA_CAST_LOWER,
};

const dlua_op dlua_op_linear = {
    .name = "linear",
    .sig = "x:T, w:T, b:T? -> y",
    .doc = "y = x w' + b for x {…,in}, w {out,in} and b {out}.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_BF16_UNITS,
    .shape = linear_shape,
    .cpu = linear_cpu,
    .fast = linear_kernels,
    .back = linear_back,
    .save = "x w",
    .autocast = DLUA_CAST_LOWER,
};

const dlua_op dlua_op_linear_relu = {
    .name = "linear_relu",
    .sig = "x:T, w:T, b:T? -> y",
    .doc = "relu of linear in one call: what nn.Sequential makes of nn.Linear before nn.ReLU.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN | DLUA_BF16_UNITS,
    .shape = linear_shape,
    .cpu = linear_relu_cpu,
    .fast = linear_relu_kernels,
    .back = linear_relu_back,
    .save = "x w y",
    .autocast = DLUA_CAST_LOWER,
};

const dlua_op dlua_op_linear_gelu = {
    .name = "linear_gelu",
    .sig = "x:T, w:T, b:T?, approximate:e{none|tanh}=none -> y, _z",
    .doc =
        "gelu of linear in one call: what nn.Sequential makes of nn.Linear before nn.GELU. _z is "
        "what gelu is applied to.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN | DLUA_BF16_UNITS,
    .shape = linear_shape,
    .cpu = linear_gelu_cpu,
    .fast = linear_gelu_kernels,
    .back = linear_gelu_back,
    .save = "x w _z",
    .autocast = DLUA_CAST_LOWER,
};
