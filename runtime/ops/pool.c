// pool.c - max pooling. The second result says where in its plane each maximum lies, counted from
// 1, so that the gradient is one scatter and its gradient one gather, for windows of any shape,
// adaptive ones too.
#include "pool.h"

#include <math.h>
#include <string.h>

#include "../cpu/isa.h"
#include "../cpu/layout.h"
#include "../parallel.h"

enum { KERNEL, STRIDE, PADDING, DILATION }; // numbers

// ---------------------------------------------------------------- shapes

static dlua_status check_plane(const dlua_args *a) {
  if (a->in[0]->ndim == 4) return DLUA_OK;
  return dlua_shape_error(a, "x must have the shape {n,c,h,w}");
}

// Windows along one dimension; 0 or less when none fits.
static int64_t windows(int64_t n, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                       bool ceil_mode) {
  int64_t room = n + 2 * padding - dilation * (kernel - 1) - 1;
  if (room < 0) return 0;
  int64_t count = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  return ceil_mode && (count - 1) * stride >= n + padding ? count - 1 : count;
}

static dlua_status check_window(const dlua_args *a, int64_t kernel, int64_t stride, int64_t padding,
                                int64_t dilation) {
  if (kernel < 1 || stride < 1 || dilation < 1) {
    return dlua_shape_error(a, "kernel %lld, stride %lld and dilation %lld must be at least 1",
                            (long long)kernel, (long long)stride, (long long)dilation);
  }
  const int64_t most = 1 << 20; // no picture is wider, and products of such sizes do not overflow
  if (kernel > most || stride > most || dilation > most) {
    return dlua_shape_error(a, "kernel %lld, stride %lld and dilation %lld must be at most %lld",
                            (long long)kernel, (long long)stride, (long long)dilation,
                            (long long)most);
  }
  if (padding < 0 || padding > kernel / 2) {
    return dlua_shape_error(a, "padding %lld is not between 0 and half the kernel %lld",
                            (long long)padding, (long long)kernel);
  }
  return DLUA_OK;
}

dlua_status dlua_pool_plane_of(const dlua_args *a, bool dilated, bool ceil_mode,
                               dlua_pool_plane *p) {
  DLUA_TRY(check_plane(a));
  const dlua_value *k = &a->num[KERNEL], *s = a->num[STRIDE].set ? &a->num[STRIDE] : k,
                   *pad = &a->num[PADDING];
  static const int64_t ones[2] = {1, 1};
  const int64_t *d = dilated ? a->num[DILATION].v : ones, *size = a->in[0]->size;
  for (int i = 0; i < 2; i++) DLUA_TRY(check_window(a, k->v[i], s->v[i], pad->v[i], d[i]));
  *p = (dlua_pool_plane){.h = size[2],
                         .w = size[3],
                         .kh = k->v[0],
                         .kw = k->v[1],
                         .sh = s->v[0],
                         .sw = s->v[1],
                         .ph = pad->v[0],
                         .pw = pad->v[1],
                         .dh = d[0],
                         .dw = d[1]};
  p->oh = windows(p->h, p->kh, p->sh, p->ph, p->dh, ceil_mode);
  p->ow = windows(p->w, p->kw, p->sw, p->pw, p->dw, ceil_mode);
  if (p->oh > 0 && p->ow > 0) return DLUA_OK;
  return dlua_shape_error(
      a, "the window %lldx%lld does not fit into %lldx%lld with padding %lldx%lld",
      (long long)(p->dh * (p->kh - 1) + 1), (long long)(p->dw * (p->kw - 1) + 1), (long long)p->h,
      (long long)p->w, (long long)p->ph, (long long)p->pw);
}

dlua_status dlua_pool_adaptive(const dlua_args *a, dlua_pool_plane *p) {
  DLUA_TRY(check_plane(a));
  const int64_t *size = a->in[0]->size;
  *p = (dlua_pool_plane){.h = size[2], .w = size[3], .oh = a->num[0].v[0], .ow = a->num[0].v[1]};
  if (p->oh < 1 || p->ow < 1) {
    return dlua_shape_error(a, "size {%lld,%lld} must be at least 1", (long long)p->oh,
                            (long long)p->ow);
  }
  if (p->h > 0 && p->w > 0) return DLUA_OK;
  return dlua_shape_error(a, "x has no elements to pool");
}

void dlua_pool_spec(dlua_args *a, int k, const dlua_pool_plane *p) {
  const int64_t *size = a->in[0]->size;
  dlua_spec_shape(a, k, 4, (int64_t[]){size[0], size[1], p->oh, p->ow});
}

// Places are i32, and so are kernels' numbers of results in a plane.
static dlua_status check_count(const dlua_args *a, int64_t h, int64_t w) {
  if (h == 0 || w <= INT32_MAX / h) return DLUA_OK;
  return dlua_shape_error(
      a, "a plane of %lldx%lld has more elements than the %d that can be told apart", (long long)h,
      (long long)w, INT32_MAX);
}

static dlua_status check_places(const dlua_args *a, const dlua_pool_plane *p) {
  DLUA_TRY(check_count(a, p->h, p->w));
  return check_count(a, p->oh, p->ow);
}

static dlua_status max_pool2d_shape(dlua_args *a) {
  dlua_pool_plane p;
  DLUA_TRY(dlua_pool_plane_of(a, true, a->num[4].i, &p));
  DLUA_TRY(check_places(a, &p));
  for (int k = 0; k < 2; k++) {
    dlua_pool_spec(a, k, &p);
    a->spec[k].layout = (dlua_layout)a->in[0]->storage->layout;
  }
  a->spec[1].dtype = DLUA_I32;
  return DLUA_OK;
}

static dlua_status adaptive_max_pool2d_shape(dlua_args *a) {
  dlua_pool_plane p;
  DLUA_TRY(dlua_pool_adaptive(a, &p));
  DLUA_TRY(check_places(a, &p));
  for (int k = 0; k < 2; k++) {
    dlua_pool_spec(a, k, &p);
    if (a->device != dlua_cpu()) // whose kernels know no blocks
      a->spec[k].layout = (dlua_layout)a->in[0]->storage->layout;
  }
  a->spec[1].dtype = DLUA_I32;
  return DLUA_OK;
}

// ---------------------------------------------------------------- plain kernels

// The maximum of x over rows and columns of one plane, in steps; 1-based place in *where.
static double max_of(const dlua_tensor *x, int64_t plane, const int64_t rows[3],
                     const int64_t columns[3], int32_t *where) {
  double best = -INFINITY;
  *where = 0;
  int64_t w = x->size[3], base = plane * x->size[2] * w;
  for (int64_t i = rows[0]; i < rows[1]; i += rows[2]) {
    for (int64_t j = columns[0]; j < columns[1]; j += columns[2]) {
      if (i < 0 || j < 0) continue;
      int64_t at = base + i * w + j;
      double v = dlua_real(x, at);
      if (v > best || v != v || *where == 0) best = v, *where = (int32_t)(i * w + j + 1);
    }
  }
  return best;
}

static void put_max(const dlua_args *a, int64_t at, double best, int32_t where) {
  dlua_set_real(a->out[0], at, best);
  ((int32_t *)dlua_data(a->out[1]))[at] = where;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static dlua_status max_pool2d_cpu(const dlua_args *a) {
  dlua_pool_plane p;
  DLUA_TRY(dlua_pool_plane_of(a, true, a->num[4].i, &p));
  int64_t planes = a->in[0]->size[0] * a->in[0]->size[1], at = 0;
  for (int64_t plane = 0; plane < planes; plane++) {
    for (int64_t i = 0; i < p.oh; i++) {
      for (int64_t j = 0; j < p.ow; j++, at++) {
        int64_t top = i * p.sh - p.ph, left = j * p.sw - p.pw;
        int64_t rows[3] = {top, least(p.h, top + p.dh * (p.kh - 1) + 1), p.dh};
        int64_t columns[3] = {left, least(p.w, left + p.dw * (p.kw - 1) + 1), p.dw};
        int32_t where;
        double best = max_of(a->in[0], plane, rows, columns, &where);
        put_max(a, at, best, where);
      }
    }
  }
  return DLUA_OK;
}

static dlua_status adaptive_max_pool2d_plain(const dlua_args *a) {
  dlua_pool_plane p;
  DLUA_TRY(dlua_pool_adaptive(a, &p));
  int64_t planes = a->in[0]->size[0] * a->in[0]->size[1], at = 0;
  for (int64_t plane = 0; plane < planes; plane++) {
    for (int64_t i = 0; i < p.oh; i++) {
      for (int64_t j = 0; j < p.ow; j++, at++) {
        int64_t rows[3] = {dlua_adaptive_from(i, p.h, p.oh), dlua_adaptive_to(i, p.h, p.oh), 1};
        int64_t columns[3] = {dlua_adaptive_from(j, p.w, p.ow), dlua_adaptive_to(j, p.w, p.ow), 1};
        int32_t where;
        double best = max_of(a->in[0], plane, rows, columns, &where);
        put_max(a, at, best, where);
      }
    }
  }
  return DLUA_OK;
}

static dlua_status adaptive_max_pool2d_cpu(const dlua_args *a) {
  return dlua_run_strided(a, adaptive_max_pool2d_plain);
}

// ---------------------------------------------------------------- fast kernels

static const dlua_pool_kernels *kernels(void) {
  static const dlua_pool_kernels *const kernels[] = DLUA_PER_ISA(dlua_pool);
  return kernels[dlua_isa()];
}

typedef struct job {
  const dlua_args *a;
  dlua_pool_plane p;
  int64_t block; // channels side by side in memory: 1, 8 or 16
} job;

static void max_planes(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const float *x = dlua_f32(j->a->in[0]);
  float *y = dlua_f32(j->a->out[0]);
  int32_t *where = dlua_data(j->a->out[1]);
  int64_t in = j->p.h * j->p.w * j->block, out = j->p.oh * j->p.ow * j->block;
  for (int64_t k = from; k < to; k++) {
    void (*plane)(const dlua_pool_plane *, const float *, float *, int32_t *) =
        j->block == 16  ? kernels()->max16
        : j->block == 8 ? kernels()->max8
                        : kernels()->max1;
    plane(&j->p, x + k * in, y + k * out, where + k * out);
  }
}

static dlua_status max_pool2d_fast(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  if (x->dtype != DLUA_F32 || dlua_is_nhwc(x)) return DLUA_DECLINED;
  job j = {.a = a,
           .block = x->storage->layout == DLUA_STRIDED
                        ? 1
                        : dlua_layout_block((dlua_layout)x->storage->layout)};
  DLUA_TRY(dlua_pool_plane_of(a, true, a->num[4].i, &j.p));
  double cost = (double)(j.p.oh * j.p.ow * j.p.kh * j.p.kw * j.block);
  dlua_parallel(x->size[0] * x->size[1] / j.block, cost, max_planes, &j);
  return DLUA_OK;
}

static void adaptive_planes(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const dlua_pool_plane *p = &j->p;
  float *y = dlua_f32(j->a->out[0]) + from * p->oh * p->ow;
  int32_t *where = (int32_t *)dlua_data(j->a->out[1]) + from * p->oh * p->ow;
  for (int64_t plane = from; plane < to; plane++) {
    const float *x = dlua_f32(j->a->in[0]) + plane * p->h * p->w;
    for (int64_t i = 0; i < p->oh; i++) {
      int64_t top = dlua_adaptive_from(i, p->h, p->oh),
              rows = dlua_adaptive_to(i, p->h, p->oh) - top;
      for (int64_t k = 0; k < p->ow; k++) {
        int64_t left = dlua_adaptive_from(k, p->w, p->ow), start = top * p->w + left;
        int64_t columns = dlua_adaptive_to(k, p->w, p->ow) - left;
        *y++ = kernels()->window(x + start, p->w, rows, columns, where);
        *where++ += (int32_t)start + 1;
      }
    }
  }
}

static dlua_status adaptive_max_pool2d_strided(const dlua_args *a) {
  job j = {.a = a};
  DLUA_TRY(dlua_pool_adaptive(a, &j.p));
  int64_t planes = a->in[0]->size[0] * a->in[0]->size[1];
  dlua_parallel(planes, (double)(j.p.h * j.p.w), adaptive_planes, &j);
  return DLUA_OK;
}

static dlua_status adaptive_max_pool2d_fast(const dlua_args *a) {
  if (a->in[0]->dtype != DLUA_F32) return DLUA_DECLINED;
  return dlua_run_strided(a, adaptive_max_pool2d_strided);
}

// ---------------------------------------------------------------- gradient

static dlua_status max_pool2d_grad_shape(dlua_args *a) {
  if (!dlua_same_shape(a->in[0], a->in[1]))
    return dlua_shape_error(a, "g has not the shape of indices");
  const dlua_tensor *g = a->in[0], *where = a->in[1];
  const dlua_value *size = &a->num[0];
  if (!dlua_is_float((dlua_dtype)g->dtype) || where->dtype != DLUA_I32)
    return dlua_shape_error(a, "g must be of floats and indices i32, not %s and %s",
                            dlua_dtype_name((dlua_dtype)g->dtype),
                            dlua_dtype_name((dlua_dtype)where->dtype));
  if (g->ndim != 4 || size->n != 4 || g->size[0] != size->v[0] || g->size[1] != size->v[1])
    return dlua_shape_error(a, "g is no gradient of a pooled %s",
                            dlua_sizes_text(size->n, size->v));
  DLUA_TRY(check_count(a, size->v[2], size->v[3]));
  DLUA_TRY(check_count(a, g->size[2], g->size[3]));
  dlua_spec_shape(a, 0, a->num[0].n, a->num[0].v);
  a->spec[0].dtype = (dlua_dtype)a->in[0]->dtype;
  a->spec[0].layout = (dlua_layout)a->in[1]->storage->layout;
  return DLUA_OK;
}

typedef struct scatter {
  const dlua_tensor *g, *where, *gx;
  int64_t in, out, block; // elements of a plane (of blocks)
} scatter;

// One plane; block channels side by side. A dilated window over a tiny image may have no tap inside
// it: its place is 0. No place outside the plane is written to, whatever a script gives.
static void scatter_f32(const scatter *s, float *gx, const float *g, const int32_t *where) {
  uint64_t places = (uint64_t)(s->in / s->block);
  for (int64_t k = 0; k < s->out; k += s->block) {
    for (int64_t l = 0; l < s->block; l++) {
      uint64_t place = (uint64_t)where[k + l] - 1;
      if (place < places) gx[(int64_t)place * s->block + l] += g[k + l];
    }
  }
}

static void scatter_f64(const scatter *s, double *gx, const double *g, const int32_t *where) {
  for (int64_t k = 0; k < s->out; k++) {
    uint64_t place = (uint64_t)where[k] - 1;
    if (place < (uint64_t)s->in) gx[place] += g[k];
  }
}

static void scatter_planes(void *context, int64_t from, int64_t to) {
  const scatter *s = context;
  const int32_t *where = dlua_data(s->where);
  size_t width = dlua_dtype_size((dlua_dtype)s->gx->dtype);
  for (int64_t plane = from; plane < to; plane++) {
    char *gx = (char *)dlua_data(s->gx) + (size_t)(plane * s->in) * width;
    const char *g = (const char *)dlua_data(s->g) + (size_t)(plane * s->out) * width;
    memset(gx, 0, (size_t)s->in * width);
    if (width == sizeof(float))
      scatter_f32(s, (float *)gx, (const float *)g, where + plane * s->out);
    else
      scatter_f64(s, (double *)gx, (const double *)g, where + plane * s->out);
  }
}

static dlua_status run_scatter(const dlua_args *a, int64_t block) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  scatter s = {.g = g, .where = a->in[1], .gx = gx, .block = block};
  s.in = gx->size[2] * gx->size[3] * block, s.out = g->size[2] * g->size[3] * block;
  dlua_parallel(gx->size[0] * gx->size[1] / block, (double)(s.in + 2 * s.out), scatter_planes, &s);
  return DLUA_OK;
}

static dlua_status max_pool2d_grad_cpu(const dlua_args *a) { return run_scatter(a, 1); }

static dlua_status max_pool2d_grad_fast(const dlua_args *a) {
  dlua_layout layout = (dlua_layout)a->in[1]->storage->layout;
  int64_t block = dlua_layout_block(layout);
  return block ? run_scatter(a, block) : DLUA_DECLINED;
}

// The gradient by g: what lies at the places, gathered from the planes laid out in a row. Before each
// stands a zero, which the place 0 of a window without an element means.
static void max_pool2d_grad_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *where = dlua_saved(b, "indices"), *g = b->g[0];
  if (!where) return;
  int64_t in[3] = {g->size[0], g->size[1], g->size[2] * g->size[3]};
  int64_t out[3] = {in[0], in[1], where->size[2] * where->size[3]};
  dlua_tensor *flat = dlua_call(s, &dlua_op_reshape, dlua_t(g), dlua_list(3, in));
  flat = dlua_call(s, &dlua_op_pad, dlua_t(flat), dlua_list(2, (int64_t[]){1, 0}));
  dlua_tensor *places = dlua_call(s, &dlua_op_cast, dlua_t(where), dlua_i(DLUA_I64));
  places = dlua_call(s, &dlua_op_reshape, dlua_t(places), dlua_list(3, out));
  places = dlua_add(s, places, dlua_num(s, 1)); // in 64 bits: the last place may be the last i32
  dlua_tensor *picked = dlua_call(s, &dlua_op_gather, dlua_t(flat), dlua_t(places), dlua_i(2));
  dlua_give(b, 0, dlua_call(s, &dlua_op_reshape, dlua_t(picked), dlua_list(4, where->size)));
}

static void max_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_max_pool2d_grad, dlua_t(b->g[0]),
                      dlua_t(dlua_saved(b, "_indices")), dlua_list(ndim, size)));
}

const dlua_op dlua_op_max_pool2d = {
    .name = "max_pool2d",
    .sig =
        "x:T, kernel:s2, stride:s2?, padding:s2=0, dilation:s2=1, ceil_mode:b=false -> y, _indices",
    .doc = "The maximum of each window of x {n,c,h,w}; stride is the kernel by default. The "
           "gradient goes to the first "
           "maximum; a NaN is the maximum of its window.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC,
    .shape = max_pool2d_shape,
    .cpu = max_pool2d_cpu,
    .fast = (dlua_kernel *const[]){max_pool2d_fast, dlua_max_pool2d_rows, NULL},
    .back = max_back,
    .save = "_indices",
    .contiguous = "x",
};

const dlua_op dlua_op_adaptive_max_pool2d = {
    .name = "adaptive_max_pool2d",
    .sig = "x:T, size:s2 -> y, _indices",
    .doc = "The maximum of size[1] x size[2] windows that cover x {n,c,h,w}: window i of o over n "
           "rows goes from "
           "floor(i n / o) to ceil((i + 1) n / o).",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS,
    .shape = adaptive_max_pool2d_shape,
    .cpu = adaptive_max_pool2d_cpu,
    .fast = (dlua_kernel *const[]){adaptive_max_pool2d_fast, NULL},
    .back = max_back,
    .save = "_indices",
    .contiguous = "x",
};

const dlua_op dlua_op_max_pool2d_grad = {
    .name = "max_pool2d_grad",
    .sig = "g:T, indices:T, size:s -> gx",
    .doc = "The gradient of max pooling by x: g added up at the places where the maxima were "
           "(1-based in each plane).",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC | DLUA_HIDDEN,
    .shape = max_pool2d_grad_shape,
    .cpu = max_pool2d_grad_cpu,
    .fast = (dlua_kernel *const[]){max_pool2d_grad_fast, dlua_max_pool2d_grad_rows, NULL},
    .back = max_pool2d_grad_back,
    .save = "indices",
    .contiguous = "*",
    .follow = "indices",
};
