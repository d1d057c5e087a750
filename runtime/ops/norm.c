// norm.c - batch normalisation (Ioffe and Szegedy, 2015): y = (x - mean) / sqrt(var + eps) * weight
// + bias per channel, and with relu what is positive of that.
//
// In training mean and var are the batch's, and the running averages move towards them by momentum
// (var unbiased, as PyTorch has it); otherwise the running averages are used. Backward is the fused
// op batch_norm_grad; when the backward pass is itself recorded, the same formula is written in
// elementary ops, which have all derivatives. Where relu lets g through is computed from x again,
// which both walks read anyway: y need not be read, and not be kept.
#include <math.h>
#include <string.h>

#include "norm_fast.h"

static int64_t spread(const dlua_tensor *x) { // elements per image and channel
  int64_t n = 1;
  for (int d = 2; d < x->ndim; d++) n *= x->size[d];
  return n;
}

// ---------------------------------------------------------------- shape

// Values per channel may be f32 where x is bf16 or f16; statistics always are.
static dlua_dtype channel_dtype(const dlua_tensor *x) {
  bool half = dlua_is_half((dlua_dtype)x->dtype);
  return half ? DLUA_F32 : (dlua_dtype)x->dtype;
}

static dlua_status check_channels(const dlua_args *a, const dlua_tensor *x, int k) {
  const dlua_tensor *p = a->in[k];
  int64_t channels = x->size[1];
  if (!p) return DLUA_OK;
  if (p->ndim != 1 || p->size[0] != channels) {
    return dlua_shape_error(a, "x has %lld channels but %s has shape %s", (long long)channels,
                            a->sig->tensor[k].name, dlua_shape_text(p));
  }
  if (p->dtype != x->dtype && p->dtype != channel_dtype(x)) {
    return dlua_shape_error(a, "x is %s but %s is %s", dlua_dtype_name((dlua_dtype)x->dtype),
                            a->sig->tensor[k].name, dlua_dtype_name((dlua_dtype)p->dtype));
  }
  return DLUA_OK;
}

static dlua_status check_float(const dlua_args *a, const dlua_tensor *x) {
  if (!dlua_is_float((dlua_dtype)x->dtype)) {
    return dlua_shape_error(a, "x must be a float tensor, got %s",
                            dlua_dtype_name((dlua_dtype)x->dtype));
  }
  if (x->ndim < 2) return dlua_shape_error(a, "x must have the shape {n,c} or {n,c,…}");
  return DLUA_OK;
}

static dlua_status batch_norm_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[NORM_X];
  DLUA_TRY(check_float(a, x));
  int64_t c = x->size[1];
  for (int k = NORM_WEIGHT; k <= NORM_RUNNING_VAR; k++) DLUA_TRY(check_channels(a, x, k));
  bool training = a->num[NORM_TRAINING].i;
  if (!training && (!a->in[NORM_RUNNING_MEAN] || !a->in[NORM_RUNNING_VAR])) {
    return dlua_shape_error(a, "without training it needs running_mean and running_var");
  }
  if (training && x->size[0] * spread(x) < 2) {
    return dlua_shape_error(a, "training needs more than %lld value per channel",
                            (long long)(x->size[0] * spread(x)));
  }
  dlua_spec_shape(a, 0, x->ndim, x->size);
  a->spec[0].layout = (dlua_layout)x->storage->layout;
  a->spec[0].dtype = (dlua_dtype)x->dtype;
  a->spec[1].dtype = a->spec[2].dtype = channel_dtype(x);
  a->spec[1].wide = a->spec[2].wide = true;
  dlua_spec_shape(a, 1, 1, &c);
  dlua_spec_shape(a, 2, 1, &c);
  return DLUA_OK;
}

// ---------------------------------------------------------------- one element of any tensor

static double get_or(const dlua_tensor *x, int64_t channel, double missing) {
  return x ? dlua_real(x, channel * x->stride[0]) : missing;
}

static void move_average(const dlua_tensor *running, int64_t channel, double momentum,
                         double value) {
  if (!running) return;
  int64_t at = channel * running->stride[0];
  dlua_set_real(running, at, (1 - momentum) * dlua_real(running, at) + momentum * value);
}

void dlua_finish_moments(const dlua_args *a, int64_t channel, const dlua_moments *m, double *mean,
                         double *rstd) {
  double d = m->sum / (double)m->count, var = m->squares / (double)m->count - d * d;
  if (var < 0) var = 0;
  *mean = m->shift + d;
  *rstd = 1 / sqrt(var + a->num[NORM_EPS].f);
  double unbiased = var * (double)m->count / (double)(m->count - 1);
  move_average(a->in[NORM_RUNNING_MEAN], channel, a->num[NORM_MOMENTUM].f, *mean);
  move_average(a->in[NORM_RUNNING_VAR], channel, a->num[NORM_MOMENTUM].f, unbiased);
}

// ---------------------------------------------------------------- plain kernels

static dlua_moments moments(const dlua_tensor *x, int64_t channel) {
  int64_t c = x->size[1], inner = spread(x);
  dlua_moments m = {.shift = dlua_real(x, channel * inner), .count = x->size[0] * inner};
  for (int64_t n = 0; n < x->size[0]; n++) {
    for (int64_t k = 0; k < inner; k++) {
      double d = dlua_real(x, (n * c + channel) * inner + k) - m.shift;
      m.sum += d, m.squares += d * d;
    }
  }
  return m;
}

static dlua_status batch_norm_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[NORM_X], *y = a->out[0];
  int64_t c = x->size[1], inner = spread(x);
  for (int64_t channel = 0; channel < c; channel++) {
    double mean = get_or(a->in[NORM_RUNNING_MEAN], channel, 0);
    double rstd = 1 / sqrt(get_or(a->in[NORM_RUNNING_VAR], channel, 0) + a->num[NORM_EPS].f);
    if (a->num[NORM_TRAINING].i) {
      dlua_moments m = moments(x, channel);
      dlua_finish_moments(a, channel, &m, &mean, &rstd);
    }
    dlua_set_real(a->out[1], channel, mean), dlua_set_real(a->out[2], channel, rstd);
    mean = dlua_real(a->out[1], channel), rstd = dlua_real(a->out[2], channel);
    double scale = rstd * get_or(a->in[NORM_WEIGHT], channel, 1),
           bias = get_or(a->in[NORM_BIAS], channel, 0);
    for (int64_t n = 0; n < x->size[0]; n++) {
      for (int64_t k = 0; k < inner; k++) {
        int64_t at = (n * c + channel) * inner + k;
        double value = (dlua_real(x, at) - mean) * scale + bias;
        dlua_set_real(y, at, a->num[NORM_RELU].i && value < 0 ? 0 : value);
      }
    }
  }
  for (int k = NORM_RUNNING_MEAN; k <= NORM_RUNNING_VAR && a->num[NORM_TRAINING].i; k++) {
    if (a->in[k]) a->in[k]->storage->version++;
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient

static dlua_status batch_norm_grad_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[GRAD_G], *x = a->in[GRAD_X], *weight = a->in[GRAD_WEIGHT];
  DLUA_TRY(check_float(a, x));
  if (!dlua_same_shape(g, x)) return dlua_shape_error(a, "g has not x's shape");
  if (g->dtype != x->dtype) {
    return dlua_shape_error(a, "g is %s but x is %s", dlua_dtype_name((dlua_dtype)g->dtype),
                            dlua_dtype_name((dlua_dtype)x->dtype));
  }
  for (int k = GRAD_WEIGHT; k <= GRAD_RSTD; k++) DLUA_TRY(check_channels(a, x, k));
  dlua_spec_shape(a, 0, x->ndim, x->size);
  a->spec[0].layout = (dlua_layout)x->storage->layout;
  a->spec[0].dtype = (dlua_dtype)x->dtype;
  a->spec[1].dtype = a->spec[2].dtype = (dlua_dtype)(weight ? weight : x)->dtype;
  dlua_spec_shape(a, 1, 1, &x->size[1]);
  dlua_spec_shape(a, 2, 1, &x->size[1]);
  return DLUA_OK;
}

static dlua_status batch_norm_grad_cpu(const dlua_args *a) {
  const dlua_tensor *g = a->in[GRAD_G], *x = a->in[GRAD_X], *gx = a->out[0];
  int64_t c = x->size[1], inner = spread(x);
  for (int64_t channel = 0; channel < c; channel++) {
    double mean = dlua_real(a->in[GRAD_MEAN], channel), rstd = dlua_real(a->in[GRAD_RSTD], channel),
           sum = 0, product = 0, bias = get_or(a->in[GRAD_BIAS], channel, 0);
    double scale = rstd * get_or(a->in[GRAD_WEIGHT], channel, 1),
           count = (double)(x->size[0] * inner);
    for (int pass = 0; pass < 2; pass++) { // both sums, then gx
      for (int64_t n = 0; n < x->size[0]; n++) {
        for (int64_t k = 0; k < inner; k++) {
          int64_t at = (n * c + channel) * inner + k;
          double d = dlua_real(x, at) - mean;
          bool open = !a->num[GRAD_RELU].i || d * scale + bias > 0;
          double let = open ? dlua_real(g, at) : 0, back = (sum + d * rstd * product) / count;
          if (pass == 0)
            sum += let, product += let * d * rstd;
          else
            dlua_set_real(gx, at, scale * (let - (a->num[GRAD_TRAINING].i ? back : 0)));
        }
      }
    }
    dlua_set_real(a->out[1], channel, product), dlua_set_real(a->out[2], channel, sum);
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- backward

// A {c} tensor as {1,c,1,…}, to broadcast over x.
static dlua_tensor *as_channels(dlua_scope *s, dlua_tensor *v, int ndim) {
  int64_t size[DLUA_MAX_DIMS];
  for (int d = 0; d < ndim; d++) size[d] = d == 1 ? -1 : 1;
  return v ? dlua_call(s, &dlua_op_reshape, dlua_t(v), dlua_list(ndim, size)) : NULL;
}

typedef struct dims { // all but the channel
  int n;
  int64_t v[DLUA_MAX_DIMS];
} dims;

static dims all_but_channels(int ndim) {
  dims d = {0};
  for (int k = 0; k < ndim; k++) {
    if (k != 1) d.v[d.n++] = k;
  }
  return d;
}

static dlua_tensor *mean_of(dlua_scope *s, dlua_tensor *x, const dims *d) {
  return dlua_call(s, &dlua_op_mean, dlua_t(x), dlua_list(d->n, d->v), dlua_i(true));
}

static dlua_tensor *sum_of(dlua_scope *s, dlua_tensor *x, const dims *d) {
  return dlua_call(s, &dlua_op_sum, dlua_t(x), dlua_list(d->n, d->v), dlua_i(false));
}

// The fused gradient, spelt out so that it can be differentiated again.
static void batch_norm_back_recorded(dlua_back *b, dlua_tensor *x, dlua_tensor *weight,
                                     dlua_tensor *bias) {
  dlua_scope *s = b->s;
  if (s->status != DLUA_OK) return;
  bool training = b->num[NORM_TRAINING].i;
  dims d = all_but_channels(x->ndim);
  dlua_tensor *g = b->g[0], *mean, *rstd, *centred;
  if (training) {
    mean = mean_of(s, x, &d);
    centred = dlua_sub(s, x, mean);
    dlua_tensor *var = mean_of(s, dlua_mul(s, centred, centred), &d);
    rstd = dlua_call(s, &dlua_op_rsqrt, dlua_t(dlua_add(s, var, dlua_num(s, b->num[NORM_EPS].f))));
  } else {
    mean = as_channels(s, dlua_saved(b, "_mean"), x->ndim);
    rstd = as_channels(s, dlua_saved(b, "_rstd"), x->ndim);
    centred = dlua_sub(s, x, mean);
  }
  dlua_tensor *normal = dlua_mul(s, centred, rstd);
  if (b->num[NORM_RELU].i) {
    dlua_tensor *y = weight ? dlua_mul(s, normal, as_channels(s, weight, x->ndim)) : normal;
    if (bias) y = dlua_add(s, y, as_channels(s, bias, x->ndim));
    g = dlua_call(s, &dlua_op_relu_grad, dlua_t(g), dlua_t(y));
  }
  dlua_tensor *gn = g;
  if (training) {
    dlua_tensor *back = dlua_mul(s, normal, mean_of(s, dlua_mul(s, g, normal), &d));
    gn = dlua_sub(s, dlua_sub(s, g, mean_of(s, g, &d)), back);
  }
  dlua_tensor *scale = weight ? dlua_mul(s, as_channels(s, weight, x->ndim), rstd) : rstd;
  dlua_give(b, NORM_X, dlua_mul(s, gn, scale));
  if (weight && dlua_needs(b, NORM_WEIGHT))
    dlua_give(b, NORM_WEIGHT, sum_of(s, dlua_mul(s, g, normal), &d));
  if (dlua_needs(b, NORM_BIAS)) dlua_give(b, NORM_BIAS, sum_of(s, g, &d));
}

static void batch_norm_back(dlua_back *b) {
  dlua_tensor *x = dlua_saved(b, "x"), *weight = dlua_saved(b, "weight");
  dlua_tensor *bias = dlua_saved(b, "bias");
  if (dlua_grad_mode()) {
    batch_norm_back_recorded(b, x, weight, bias);
    return;
  }
  dlua_tensor *out[DLUA_MAX_OUT];
  dlua_call_all(b->s, &dlua_op_batch_norm_grad, out, dlua_t(b->g[0]), dlua_t(x), dlua_t(weight),
                dlua_t(bias), dlua_t(dlua_saved(b, "_mean")), dlua_t(dlua_saved(b, "_rstd")),
                dlua_i(b->num[NORM_TRAINING].i), dlua_i(b->num[NORM_RELU].i));
  dlua_give(b, NORM_X, out[0]);
  dlua_give(b, NORM_WEIGHT, out[1]);
  dlua_give(b, NORM_BIAS, out[2]);
}

const dlua_op dlua_op_batch_norm = {
    .name = "batch_norm",
    .writes = "running_mean running_var",
    .sig = "x:T, weight:T?, bias:T?, running_mean:T?, running_var:T?, training:b=false, "
           "momentum:f=0.1, eps:f=1e-5, relu:b=false "
           "-> y, _mean, _rstd",
    .doc =
        "(x - mean) / sqrt(var + eps) * weight + bias for each channel of x {n,c} or {n,c,…}. In "
        "training mean and "
        "var (biased) are the batch's and the running averages become (1 - momentum) * old + "
        "momentum * new, with "
        "the unbiased variance; otherwise the running averages are used. With relu, 0 "
        "where that is negative. Ioffe and Szegedy, 2015.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC,
    .shape = batch_norm_shape,
    .cpu = batch_norm_cpu,
    .fast = (dlua_kernel *const[]){dlua_batch_norm_fast, dlua_batch_norm_rows,
                                   dlua_batch_norm_columns, NULL},
    .back = batch_norm_back,
    .save = "x weight bias _mean _rstd",
    .contiguous = "x",
    .autocast = DLUA_CAST_NOTHING,
};

const dlua_op dlua_op_batch_norm_grad = {
    .name = "batch_norm_grad",
    .sig = "g:T, x:T, weight:T?, bias:T?, mean:T, rstd:T, training:b=true, relu:b=false "
           "-> gx, gw, gb",
    .doc = "The gradients of batch_norm by x, weight and bias: with n = (x - mean) rstd, gw = "
           "sum(g n), gb = sum(g), "
           "gx = weight rstd (g - mean(g) - n mean(g n)) in training, weight rstd g otherwise. "
           "With relu, g is 0 where n weight + bias is not positive.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC | DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = batch_norm_grad_shape,
    .cpu = batch_norm_grad_cpu,
    .fast = (dlua_kernel *const[]){dlua_batch_norm_grad_fast, dlua_batch_norm_grad_rows,
                                   dlua_batch_norm_grad_columns, NULL},
    .contiguous = "*",
    .follow = "x",
};
