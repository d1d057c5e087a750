// conv.c - 2-d convolution (cross-correlation, as everywhere in deep learning) and its gradients.
//
//   y[n,o,p,q] = b[o] + sum over c,u,v of x[n, c, p stride - padding + u dilation, …] w[o,c,u,v]
//
// Forward, gradient of the input and gradient of the weight are three sides of one trilinear form,
// so each one's gradient is made of the other two and derivatives of any order follow. Kernels in
// order: few channels (conv_lanes.h), oneDNN (onednn.h), the plain loops on the team, the plain
// loops.
#include "../cpu/layout.h"
#include "../cpu/onednn.h"
#include "../op.h"
#include "../parallel.h"
#include "conv_lanes.h"

enum { STRIDE, PADDING, DILATION, GROUPS }; // numbers, after size where there is one

// The three tensors of a call, whichever is the result.
static dlua_conv conv_of(const dlua_value *num, const dlua_tensor *x, const dlua_tensor *w,
                         const dlua_tensor *b, const dlua_tensor *y) {
  dlua_conv c = {.x = x, .w = w, .b = b, .y = y, .groups = num[GROUPS].i};
  for (int d = 0; d < 2; d++) {
    c.stride[d] = num[STRIDE].v[d], c.padding[d] = num[PADDING].v[d];
    c.dilation[d] = num[DILATION].v[d];
  }
  return c;
}

static dlua_conv forward_of(const dlua_args *a) {
  return conv_of(a->num, a->in[0], a->in[1], a->in[2], a->out[0]);
}
static dlua_conv input_of(const dlua_args *a) {
  return conv_of(a->num + 1, a->out[0], a->in[1], NULL, a->in[0]);
}
static dlua_conv weight_of(const dlua_args *a) {
  return conv_of(a->num + 1, a->in[1], a->out[0], NULL, a->in[0]);
}

// ---------------------------------------------------------------- plain

static double at(const dlua_tensor *x, int64_t n, int64_t c, int64_t i, int64_t j) {
  int64_t k = n * x->stride[0] + c * x->stride[1] + i * x->stride[2] + j * x->stride[3];
  return dlua_real(x, k);
}

static void put(const dlua_tensor *x, int64_t n, int64_t c, int64_t i, int64_t j, double value) {
  int64_t k = n * x->stride[0] + c * x->stride[1] + i * x->stride[2] + j * x->stride[3];
  if (x->dtype == DLUA_F32)
    dlua_f32(x)[k] = (float)value;
  else
    dlua_f64(x)[k] = value;
}

// Where tap u of result row p reads, or -1 in the padding.
static int64_t reads(const dlua_conv *c, int d, int64_t p, int64_t u) {
  int64_t i = p * c->stride[d] - c->padding[d] + u * c->dilation[d];
  return i < c->x->size[2 + d] ? i : -1;
}

// The result row whose tap u reads i, or -1.
static int64_t writes(const dlua_conv *c, int d, int64_t i, int64_t u) {
  int64_t p = i + c->padding[d] - u * c->dilation[d];
  if (p < 0 || p % c->stride[d] != 0) return -1;
  return p / c->stride[d] < c->y->size[2 + d] ? p / c->stride[d] : -1;
}

static double y_at(const dlua_conv *c, int64_t n, int64_t o, int64_t p, int64_t q) {
  int64_t deep = c->w->size[1], first = o / (c->w->size[0] / c->groups) * deep;
  double sum = 0;
  for (int64_t k = 0; k < deep; k++) {
    for (int64_t u = 0; u < c->w->size[2]; u++) {
      int64_t i = reads(c, 0, p, u);
      for (int64_t v = 0; i >= 0 && v < c->w->size[3]; v++) {
        int64_t j = reads(c, 1, q, v);
        if (j >= 0) sum += at(c->x, n, first + k, i, j) * at(c->w, o, k, u, v);
      }
    }
  }
  return sum;
}

static double x_at(const dlua_conv *c, int64_t n, int64_t k, int64_t i, int64_t j) {
  int64_t deep = c->w->size[1], wide = c->w->size[0] / c->groups, first = k / deep * wide;
  double sum = 0;
  for (int64_t o = first; o < first + wide; o++) {
    for (int64_t u = 0; u < c->w->size[2]; u++) {
      int64_t p = writes(c, 0, i, u);
      for (int64_t v = 0; p >= 0 && v < c->w->size[3]; v++) {
        int64_t q = writes(c, 1, j, v);
        if (q >= 0) sum += at(c->y, n, o, p, q) * at(c->w, o, k % deep, u, v);
      }
    }
  }
  return sum;
}

static double w_at(const dlua_conv *c, int64_t o, int64_t k, int64_t u, int64_t v) {
  int64_t from = o / (c->w->size[0] / c->groups) * c->w->size[1] + k;
  double sum = 0;
  for (int64_t n = 0; n < c->x->size[0]; n++) {
    for (int64_t p = 0; p < c->y->size[2]; p++) {
      int64_t i = reads(c, 0, p, u);
      for (int64_t q = 0; i >= 0 && q < c->y->size[3]; q++) {
        int64_t j = reads(c, 1, q, v);
        if (j >= 0) sum += at(c->x, n, from, i, j) * at(c->y, n, o, p, q);
      }
    }
  }
  return sum;
}

// A result and the formula of its elements.
typedef struct job {
  dlua_conv c;
  const dlua_tensor *out;
  double (*element)(const dlua_conv *c, int64_t, int64_t, int64_t, int64_t);
} job;

// Planes from..to of the first two dimensions of the result.
static void planes(void *context, int64_t from, int64_t to) {
  const job *w = context;
  const int64_t *size = w->out->size;
  const dlua_tensor *b = w->c.b;
  for (int64_t k = from; k < to; k++) {
    int64_t n = k / size[1], c = k % size[1];
    for (int64_t i = 0; i < size[2]; i++) {
      for (int64_t j = 0; j < size[3]; j++) {
        double value = w->element(&w->c, n, c, i, j);
        if (b && b->dtype == DLUA_F32) value += (double)dlua_f32(b)[c * b->stride[0]];
        if (b && b->dtype == DLUA_F64) value += dlua_f64(b)[c * b->stride[0]];
        put(w->out, n, c, i, j, value);
      }
    }
  }
}

static dlua_status plain(const job *w, bool team) {
  int64_t count = w->out->size[0] * w->out->size[1];
  double all = (double)dlua_numel(w->c.y) * (double)dlua_numel(w->c.w) / (double)(count + 1);
  if (team)
    dlua_parallel(count, all, planes, (void *)w);
  else
    planes((void *)w, 0, count);
  return DLUA_OK;
}

static dlua_status forward_strided(const dlua_args *a) {
  return plain(&(job){forward_of(a), a->out[0], y_at}, false);
}
static dlua_status input_strided(const dlua_args *a) {
  return plain(&(job){input_of(a), a->out[0], x_at}, false);
}
static dlua_status weight_strided(const dlua_args *a) {
  return plain(&(job){weight_of(a), a->out[0], w_at}, false);
}
static dlua_status forward_team(const dlua_args *a) {
  return plain(&(job){forward_of(a), a->out[0], y_at}, true);
}
static dlua_status input_team(const dlua_args *a) {
  return plain(&(job){input_of(a), a->out[0], x_at}, true);
}
static dlua_status weight_team(const dlua_args *a) {
  return plain(&(job){weight_of(a), a->out[0], w_at}, true);
}

static dlua_status forward_cpu(const dlua_args *a) { return dlua_run_strided(a, forward_strided); }
static dlua_status input_cpu(const dlua_args *a) { return dlua_run_strided(a, input_strided); }
static dlua_status weight_cpu(const dlua_args *a) { return dlua_run_strided(a, weight_strided); }

// ---------------------------------------------------------------- fast

// The library takes f32 and bf16 of at least one element.
static bool library_takes(const dlua_conv *c) {
  return (c->x->dtype == DLUA_F32 || c->x->dtype == DLUA_BF16) && dlua_numel(c->x) > 0 &&
         dlua_numel(c->y) > 0 && dlua_numel(c->w) > 0 &&
         (!c->b || c->b->stride[0] == 1 || c->b->size[0] == 1);
}

static dlua_status forward_library(const dlua_args *a) {
  dlua_conv c = forward_of(a);
  return library_takes(&c) ? dlua_onednn_conv(&c) : DLUA_DECLINED;
}
static dlua_status input_library(const dlua_args *a) {
  dlua_conv c = input_of(a);
  return library_takes(&c) ? dlua_onednn_conv_input(&c) : DLUA_DECLINED;
}
static dlua_status weight_library(const dlua_args *a) {
  dlua_conv c = weight_of(a);
  return library_takes(&c) ? dlua_onednn_conv_weight(&c) : DLUA_DECLINED;
}

// The plain loops on the team; bf16 that the library declined goes on to f32.
static dlua_status run_team(const dlua_args *a, dlua_kernel *kernel) {
  return a->in[0]->dtype == DLUA_BF16 ? DLUA_DECLINED : dlua_run_strided(a, kernel);
}
static dlua_status forward_plain(const dlua_args *a) { return run_team(a, forward_team); }
static dlua_status input_plain(const dlua_args *a) { return run_team(a, input_team); }
static dlua_status weight_plain(const dlua_args *a) { return run_team(a, weight_team); }

static dlua_kernel *const forward_kernels[] = {dlua_conv_lanes, forward_library, forward_plain,
                                               NULL};
static dlua_kernel *const input_kernels[] = {dlua_conv_lanes_input_grad, input_library, input_plain,
                                             NULL};
static dlua_kernel *const weight_kernels[] = {dlua_conv_lanes_weight_grad, weight_library,
                                              weight_plain, NULL};

// ---------------------------------------------------------------- shapes

static dlua_status check_numbers(const dlua_args *a, const dlua_value *num) {
  const int64_t most = 1 << 20; // no picture is wider, and products of such sizes do not overflow
  for (int d = 0; d < 2; d++) {
    if (num[STRIDE].v[d] > most || num[PADDING].v[d] > most || num[DILATION].v[d] > most)
      return dlua_shape_error(a, "stride, padding and dilation must be at most %lld",
                              (long long)most);
    if (num[STRIDE].v[d] < 1)
      return dlua_shape_error(a, "stride is %lld, must be 1 or more", (long long)num[STRIDE].v[d]);
    if (num[PADDING].v[d] < 0)
      return dlua_shape_error(a, "padding %lld is negative", (long long)num[PADDING].v[d]);
    if (num[DILATION].v[d] < 1) {
      return dlua_shape_error(a, "dilation is %lld, must be 1 or more",
                              (long long)num[DILATION].v[d]);
    }
  }
  if (num[GROUPS].i < 1 || num[GROUPS].i > most)
    return dlua_shape_error(a, "groups is %lld, must lie in 1..%lld", (long long)num[GROUPS].i,
                            (long long)most);
  return DLUA_OK;
}

static dlua_status check_channels(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *w = a->in[1], *b = a->in[2];
  int64_t groups = a->num[GROUPS].i, wanted = dlua_size_mul(w->size[1], groups);
  if (x->size[1] != wanted) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: x has %lld channel%s but w expects %lld (x %s, w %s)",
                     a->op->name, (long long)x->size[1], x->size[1] == 1 ? "" : "s",
                     (long long)wanted, dlua_shape_text(x), dlua_shape_text(w));
  }
  if (w->size[0] % groups != 0) {
    return dlua_shape_error(a, "%lld result channels do not divide into %lld groups",
                            (long long)w->size[0], (long long)groups);
  }
  if (b && (b->ndim != 1 || b->size[0] != w->size[0]))
    return dlua_shape_error(a, "b must have %lld elements", (long long)w->size[0]);
  return DLUA_OK;
}

// Rows of the result along dimension d; below 1 where the kernel does not fit.
static int64_t extent(const dlua_value *num, int d, int64_t size, int64_t kernel) {
  int64_t padded = dlua_size_add(size, 2 * num[PADDING].v[d]);
  int64_t room = dlua_size_add(padded, -dlua_size_mul(num[DILATION].v[d], kernel - 1)) - 1;
  return room < 0 ? 0 : room / num[STRIDE].v[d] + 1;
}

static dlua_status kernel_too_large(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *w = a->in[1];
  int64_t kernel[2], input[2];
  for (int d = 0; d < 2; d++) {
    int64_t reach = dlua_size_mul(a->num[DILATION].v[d], w->size[2 + d] - 1);
    kernel[d] = dlua_size_add(reach, 1);
    input[d] = dlua_size_add(x->size[2 + d], 2 * a->num[PADDING].v[d]);
  }
  return dlua_shape_error(a, "the kernel %s is larger than the padded input %s",
                          dlua_sizes_text(2, kernel), dlua_sizes_text(2, input));
}

// Blocks pay where both sides have whole ones; a first layer writes them from its 3 channels.
static dlua_layout layout_of(const dlua_args *a, int64_t from, int64_t to, int64_t groups) {
  dlua_layout layout = dlua_layout_for(a);
  int64_t block = dlua_layout_block(layout);
  if (block == 0) return layout;
  bool whole = from % block == 0 && (groups == 1 || from == groups || from / groups % block == 0);
  return whole || (from <= 4 && to >= 32) ? layout : DLUA_STRIDED;
}

static dlua_status conv2d_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0], *w = a->in[1];
  if (x->ndim != 4 || w->ndim != 4)
    return dlua_shape_error(a, "x {n,c,h,w} and w {out,in,h,w} must have 4 dimensions");
  DLUA_TRY(check_numbers(a, a->num));
  DLUA_TRY(check_channels(a));
  int64_t size[4] = {x->size[0], w->size[0]};
  for (int d = 0; d < 2; d++) {
    if (w->size[2 + d] < 1) return dlua_shape_error(a, "the kernel is empty");
    size[2 + d] = extent(a->num, d, x->size[2 + d], w->size[2 + d]);
    if (size[2 + d] < 1) return kernel_too_large(a);
  }
  dlua_spec_shape(a, 0, 4, size);
  a->spec[0].layout = layout_of(a, x->size[1], w->size[0], a->num[GROUPS].i);
  return DLUA_OK;
}

// What forward would make of x {n,c,h,w} and w; fails unless that is g's.
static dlua_status check_result(const dlua_args *a, const int64_t x[4], const int64_t w[4]) {
  const dlua_tensor *g = a->in[0];
  const dlua_value *num = a->num + 1;
  int64_t size[4] = {x[0], w[0], extent(num, 0, x[2], w[2]), extent(num, 1, x[3], w[3])};
  for (int d = 0; d < 4; d++) {
    if (g->size[d] != size[d])
      return dlua_shape_error(a, "g must have the shape %s", dlua_sizes_text(4, size));
  }
  if (x[1] != dlua_size_mul(w[1], num[GROUPS].i) || w[0] % num[GROUPS].i != 0)
    return dlua_shape_error(a, "the channels do not divide into %lld groups",
                            (long long)num[GROUPS].i);
  return DLUA_OK;
}

static dlua_status input_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *w = a->in[1];
  if (g->ndim != 4 || w->ndim != 4) return dlua_shape_error(a, "g and w must have 4 dimensions");
  DLUA_TRY(check_numbers(a, a->num + 1));
  int64_t groups = a->num[1 + GROUPS].i;
  int64_t size[4] = {g->size[0], dlua_size_mul(w->size[1], groups), a->num[0].v[0], a->num[0].v[1]};
  DLUA_TRY(check_result(a, size, w->size));
  dlua_spec_shape(a, 0, 4, size);
  a->spec[0].layout = size[1] > 4 ? layout_of(a, g->size[1], size[1], groups) : DLUA_STRIDED;
  return DLUA_OK;
}

static dlua_status weight_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *x = a->in[1];
  if (g->ndim != 4 || x->ndim != 4) return dlua_shape_error(a, "g and x must have 4 dimensions");
  DLUA_TRY(check_numbers(a, a->num + 1));
  int64_t size[4] = {g->size[1], x->size[1] / a->num[1 + GROUPS].i, a->num[0].v[0], a->num[0].v[1]};
  DLUA_TRY(check_result(a, x->size, size));
  dlua_spec_shape(a, 0, 4, size);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradients

// A call of one of the three with the numbers of this one.
static dlua_tensor *forward(dlua_back *b, dlua_tensor *x, dlua_tensor *w, const dlua_value *num) {
  return dlua_call(b->s, &dlua_op_conv2d, dlua_t(x), dlua_t(w), dlua_none(), dlua_v(&num[STRIDE]),
                   dlua_v(&num[PADDING]), dlua_v(&num[DILATION]), dlua_v(&num[GROUPS]));
}

static dlua_tensor *sized(dlua_back *b, const dlua_op *op, dlua_tensor *g, dlua_tensor *other,
                          const int64_t size[2], const dlua_value *num) {
  return dlua_call(b->s, op, dlua_t(g), dlua_t(other), dlua_list(2, size), dlua_v(&num[STRIDE]),
                   dlua_v(&num[PADDING]), dlua_v(&num[DILATION]), dlua_v(&num[GROUPS]));
}

static void sizes_of(const dlua_back *b, int input, int64_t size[2]) {
  int ndim;
  int64_t all[DLUA_MAX_DIMS];
  dlua_input_shape(b, input, &ndim, all);
  size[0] = all[2], size[1] = all[3];
}

static void conv2d_back(dlua_back *b) {
  int64_t image[2], kernel[2];
  sizes_of(b, 0, image), sizes_of(b, 1, kernel);
  dlua_tensor *g = b->g[0];
  if (dlua_needs(b, 0))
    dlua_give(b, 0, sized(b, &dlua_op_conv2d_input_grad, g, dlua_saved(b, "w"), image, b->num));
  if (dlua_needs(b, 1))
    dlua_give(b, 1, sized(b, &dlua_op_conv2d_weight_grad, g, dlua_saved(b, "x"), kernel, b->num));
  if (dlua_needs(b, 2)) dlua_give(b, 2, dlua_call(b->s, &dlua_op_channel_sum, dlua_t(g)));
}

static void input_grad_back(dlua_back *b) {
  int64_t kernel[2];
  sizes_of(b, 1, kernel);
  dlua_tensor *g = b->g[0];
  if (dlua_needs(b, 0)) dlua_give(b, 0, forward(b, g, dlua_saved(b, "w"), b->num + 1));
  if (dlua_needs(b, 1)) {
    dlua_give(b, 1,
              sized(b, &dlua_op_conv2d_weight_grad, dlua_saved(b, "g"), g, kernel, b->num + 1));
  }
}

static void weight_grad_back(dlua_back *b) {
  int64_t image[2];
  sizes_of(b, 1, image);
  dlua_tensor *g = b->g[0];
  if (dlua_needs(b, 0)) dlua_give(b, 0, forward(b, dlua_saved(b, "x"), g, b->num + 1));
  if (dlua_needs(b, 1)) {
    dlua_give(b, 1, sized(b, &dlua_op_conv2d_input_grad, dlua_saved(b, "g"), g, image, b->num + 1));
  }
}

// ---------------------------------------------------------------- ops

const dlua_op dlua_op_conv2d = {
    .name = "conv2d",
    .strided = "w b",
    .sig = "x:T, w:T, b:T?, stride:s2=1, padding:s2=0, dilation:s2=1, groups:i=1 -> y",
    .doc = "2-d convolution of x {n,c,h,w} with w {out,c/groups,kh,kw} plus b {out}: every result "
           "is the sum of a window of x times a kernel of w.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_BF16_UNITS,
    .shape = conv2d_shape,
    .cpu = forward_cpu,
    .fast = forward_kernels,
    .back = conv2d_back,
    .save = "x w",
    .autocast = DLUA_CAST_LOWER,
};

const dlua_op dlua_op_conv2d_input_grad = {
    .name = "conv2d_input_grad",
    .strided = "w",
    .sig = "g:T, w:T, size:s2, stride:s2=1, padding:s2=0, dilation:s2=1, groups:i=1 -> gx",
    .doc = "Gradient of conv2d by an x of this height and width, from the gradient g of its "
           "result.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_BF16_UNITS | DLUA_HIDDEN,
    .shape = input_grad_shape,
    .cpu = input_cpu,
    .fast = input_kernels,
    .back = input_grad_back,
    .save = "g w",
};

const dlua_op dlua_op_conv2d_weight_grad = {
    .name = "conv2d_weight_grad",
    .sig = "g:T, x:T, size:s2, stride:s2=1, padding:s2=0, dilation:s2=1, groups:i=1 -> gw",
    .doc = "Gradient of conv2d by a w with kernels of this size, from the gradient g of its "
           "result.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_BF16_UNITS | DLUA_HIDDEN,
    .shape = weight_grad_shape,
    .cpu = weight_cpu,
    .fast = weight_kernels,
    .back = weight_grad_back,
    .save = "g x",
};
