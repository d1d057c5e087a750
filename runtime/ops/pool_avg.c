// pool_avg.c - average pooling. Its gradient spreads each value over its window and is linear, so
// average pooling is the gradient of the gradient.
#include <string.h>

#include "../cpu/fold.h"
#include "../cpu/layout.h"
#include "../parallel.h"
#include "pool.h"

enum { CEIL_MODE = 3, COUNT_PADDING = 4 }; // numbers of avg_pool2d after kernel, stride and padding

// One pooled dimension: window i covers from .. to of n elements and is counted as `count`.
typedef struct window {
  int64_t from, to, count;
} window;

typedef struct job {
  const dlua_tensor *x, *y; // the large side and the pooled side
  dlua_pool_plane p;
  bool adaptive, count_padding, spread; // spread: gradient, y to x
  int64_t block;                        // channels side by side, in the vector kernels
} job;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static window window_at(const job *j, int64_t i, bool rows) {
  const dlua_pool_plane *p = &j->p;
  int64_t n = rows ? p->h : p->w, o = rows ? p->oh : p->ow;
  if (j->adaptive) {
    window w = {dlua_adaptive_from(i, n, o), dlua_adaptive_to(i, n, o), 0};
    w.count = w.to - w.from;
    return w;
  }
  int64_t kernel = rows ? p->kh : p->kw, stride = rows ? p->sh : p->sw,
          padding = rows ? p->ph : p->pw;
  int64_t from = i * stride - padding, to = least(from + kernel, n + padding);
  window w = {from < 0 ? 0 : from, least(to, n), to - from};
  if (!j->count_padding) w.count = w.to - w.from;
  return w;
}

// One plane, f32 or f64: y = mean of the window, or x += y / count over the window.
#define AVERAGE_PLANE(name, real) \
  static void name(const job *j, real *x, real *y) { \
    for (int64_t i = 0; i < j->p.oh; i++) { \
      window rows = window_at(j, i, true); \
      for (int64_t k = 0; k < j->p.ow; k++, y++) { \
        window columns = window_at(j, k, false); \
        double count = (double)(rows.count * columns.count), sum = 0; \
        real share = (real)(*y / count); \
        for (int64_t r = rows.from; r < rows.to; r++) { \
          for (int64_t c = columns.from; c < columns.to; c++) { \
            if (j->spread) \
              x[r * j->p.w + c] += share; \
            else \
              sum += (double)x[r * j->p.w + c]; \
          } \
        } \
        if (!j->spread) *y = (real)(sum / count); \
      } \
    } \
  }
AVERAGE_PLANE(average_f32, float)
AVERAGE_PLANE(average_f64, double)

static void planes(void *context, int64_t from, int64_t to) {
  const job *j = context;
  int64_t in = j->p.h * j->p.w, out = j->p.oh * j->p.ow;
  for (int64_t k = from; k < to; k++) {
    if (j->x->dtype == DLUA_F32)
      average_f32(j, dlua_f32(j->x) + k * in, dlua_f32(j->y) + k * out);
    else
      average_f64(j, dlua_f64(j->x) + k * in, dlua_f64(j->y) + k * out);
  }
}

static dlua_status run_plain(job *j) {
  size_t bytes = (size_t)dlua_numel(j->x) * dlua_dtype_size((dlua_dtype)j->x->dtype);
  if (j->spread)
    memset(dlua_data(j->x), 0, bytes);
  else
    memset(dlua_data(j->y), 0, (size_t)dlua_numel(j->y) * dlua_dtype_size((dlua_dtype)j->y->dtype));
  dlua_parallel(j->x->size[0] * j->x->size[1], (double)(j->p.h * j->p.w), planes, j);
  return DLUA_OK;
}

// ---------------------------------------------------------------- vector kernels

// Blocked planes, and strided ones whose windows are whole rows: a window is then one run.
static bool vectors_apply(job *j) {
  const dlua_tensor *given = j->spread ? j->y : j->x;
  if (given->dtype != DLUA_F32 || dlua_is_nhwc(given)) return false;
  j->block = dlua_layout_block((dlua_layout)given->storage->layout);
  if (j->block) return true;
  j->block = 1;
  window columns = window_at(j, 0, false);
  return j->p.ow == 1 && columns.from == 0 && columns.to == j->p.w;
}

static void sum_pixels(const job *j, double *sums, const float *x, int64_t n) {
  if (j->block == 1)
    *sums += dlua_fold_simd()->sum(x, n);
  else
    dlua_fold_simd()->add_rows(sums, x, n, j->block, j->block);
}

static void share_pixels(const job *j, const float *share, float *x, int64_t n) {
  if (j->block == 1) {
    for (int64_t k = 0; k < n; k++) x[k] += *share;
  } else {
    for (int64_t k = 0; k < n; k++)
      for (int64_t l = 0; l < j->block; l++) x[k * j->block + l] += share[l];
  }
}

static void pool_window(const job *j, float *x, float *y, window rows, window columns) {
  double sums[16] = {0}, count = (double)(rows.count * columns.count);
  float share[16];
  int64_t n = columns.to - columns.from, step = 1;
  if (n == j->p.w) n *= rows.to - rows.from, step = rows.to - rows.from;
  for (int64_t l = 0; l < j->block; l++) share[l] = (float)(y[l] / count);
  for (int64_t r = rows.from; r < rows.to; r += step) {
    float *run = x + (r * j->p.w + columns.from) * j->block;
    if (j->spread)
      share_pixels(j, share, run, n);
    else
      sum_pixels(j, sums, run, n);
  }
  for (int64_t l = 0; l < j->block && !j->spread; l++) y[l] = (float)(sums[l] / count);
}

static void block_planes(void *context, int64_t from, int64_t to) {
  const job *j = context;
  int64_t in = j->p.h * j->p.w * j->block, out = j->p.oh * j->p.ow * j->block;
  for (int64_t k = from; k < to; k++) {
    float *x = dlua_f32(j->x) + k * in, *y = dlua_f32(j->y) + k * out;
    memset(j->spread ? x : y, 0, (size_t)(j->spread ? in : out) * sizeof(float));
    for (int64_t i = 0; i < j->p.oh; i++) {
      for (int64_t c = 0; c < j->p.ow; c++, y += j->block)
        pool_window(j, x, y, window_at(j, i, true), window_at(j, c, false));
    }
  }
}

static dlua_status run_vectors(job *j) {
  if (!vectors_apply(j)) return DLUA_DECLINED;
  int64_t in = j->p.h * j->p.w * j->block;
  dlua_parallel(j->x->size[0] * j->x->size[1] / j->block, (double)in, block_planes, j);
  return DLUA_OK;
}

// ---------------------------------------------------------------- avg_pool2d

// A single pixel of channel blocks lies in memory as a strided one does.
static void spec_like_x(dlua_args *a, const dlua_pool_plane *p) {
  dlua_pool_spec(a, 0, p);
  if (p->oh > 1 || p->ow > 1) a->spec[0].layout = (dlua_layout)a->in[0]->storage->layout;
}

static dlua_status avg_pool2d_shape(dlua_args *a) {
  dlua_pool_plane p;
  DLUA_TRY(dlua_pool_plane_of(a, false, a->num[CEIL_MODE].i, &p));
  spec_like_x(a, &p);
  return DLUA_OK;
}

static dlua_status avg_pool2d_run(const dlua_args *a, dlua_status (*run)(job *)) {
  job j = {.x = a->in[0], .y = a->out[0], .count_padding = a->num[COUNT_PADDING].i};
  DLUA_TRY(dlua_pool_plane_of(a, false, a->num[CEIL_MODE].i, &j.p));
  return run(&j);
}

static dlua_status avg_pool2d_cpu(const dlua_args *a) { return avg_pool2d_run(a, run_plain); }
static dlua_status avg_pool2d_fast(const dlua_args *a) { return avg_pool2d_run(a, run_vectors); }

static dlua_tensor *avg_pool2d_of(dlua_scope *s, dlua_tensor *x, const dlua_value *num) {
  return dlua_call(s, &dlua_op_avg_pool2d, dlua_t(x), dlua_v(&num[0]), dlua_v(&num[1]),
                   dlua_v(&num[2]), dlua_v(&num[3]), dlua_v(&num[4]));
}

static void avg_pool2d_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  const dlua_value *num = b->num;
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_avg_pool2d_grad, dlua_t(b->g[0]), dlua_list(ndim, size),
                      dlua_v(&num[0]), dlua_v(&num[1]), dlua_v(&num[2]), dlua_v(&num[3]),
                      dlua_v(&num[4])));
}

static dlua_status grad_shape(dlua_args *a) {
  if (a->num[0].n != 4 || a->in[0]->ndim != 4)
    return dlua_shape_error(a, "g and size must have 4 dimensions");
  dlua_spec_shape(a, 0, 4, a->num[0].v);
  a->spec[0].layout = (dlua_layout)a->in[0]->storage->layout;
  bool pixel = a->in[0]->size[2] == 1 && a->in[0]->size[3] == 1;
  if (pixel && a->device != dlua_cpu()) a->spec[0].layout = dlua_layout_for(a); // see spec_like_x
  return DLUA_OK;
}

static dlua_status avg_pool2d_grad_run(const dlua_args *a, dlua_status (*run)(job *)) {
  const dlua_value *num = a->num + 1, *stride = num[1].set ? &num[1] : &num[0];
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  job j = {.x = gx, .y = g, .count_padding = num[COUNT_PADDING].i, .spread = true};
  j.p = (dlua_pool_plane){.h = gx->size[2],
                          .w = gx->size[3],
                          .oh = g->size[2],
                          .ow = g->size[3],
                          .kh = num[0].v[0],
                          .kw = num[0].v[1],
                          .sh = stride->v[0],
                          .sw = stride->v[1],
                          .ph = num[2].v[0],
                          .pw = num[2].v[1]};
  return run(&j);
}

static dlua_status avg_pool2d_grad_cpu(const dlua_args *a) {
  return avg_pool2d_grad_run(a, run_plain);
}

static dlua_status avg_pool2d_grad_fast(const dlua_args *a) {
  return avg_pool2d_grad_run(a, run_vectors);
}

static void avg_pool2d_grad_back(dlua_back *b) {
  dlua_give(b, 0, avg_pool2d_of(b->s, b->g[0], b->num + 1));
}

const dlua_op dlua_op_avg_pool2d = {
    .name = "avg_pool2d",
    .sig = "x:T, kernel:s2, stride:s2?, padding:s2=0, ceil_mode:b=false, count_include_pad:b=true "
           "-> y",
    .doc = "The mean of each window of x {n,c,h,w}; stride is the kernel by default. Padding "
           "counts as zeros unless "
           "count_include_pad is false.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS,
    .shape = avg_pool2d_shape,
    .cpu = avg_pool2d_cpu,
    .fast = (dlua_kernel *const[]){avg_pool2d_fast, NULL},
    .back = avg_pool2d_back,
    .contiguous = "x",
};

const dlua_op dlua_op_avg_pool2d_grad = {
    .name = "avg_pool2d_grad",
    .sig = "g:T, size:s, kernel:s2, stride:s2?, padding:s2=0, ceil_mode:b=false, "
           "count_include_pad:b=true -> gx",
    .doc = "The gradient of avg_pool2d by x of that size: each element of g divided evenly over "
           "its window.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_HIDDEN,
    .shape = grad_shape,
    .cpu = avg_pool2d_grad_cpu,
    .fast = (dlua_kernel *const[]){avg_pool2d_grad_fast, NULL},
    .back = avg_pool2d_grad_back,
    .contiguous = "g",
};

// ---------------------------------------------------------------- adaptive_avg_pool2d

static dlua_status adaptive_avg_pool2d_shape(dlua_args *a) {
  dlua_pool_plane p;
  DLUA_TRY(dlua_pool_adaptive(a, &p));
  spec_like_x(a, &p);
  return DLUA_OK;
}

static dlua_status adaptive_avg_pool2d_run(const dlua_args *a, dlua_status (*run)(job *)) {
  job j = {.x = a->in[0], .y = a->out[0], .adaptive = true};
  DLUA_TRY(dlua_pool_adaptive(a, &j.p));
  return run(&j);
}

static dlua_status adaptive_avg_pool2d_cpu(const dlua_args *a) {
  return adaptive_avg_pool2d_run(a, run_plain);
}

static dlua_status adaptive_avg_pool2d_fast(const dlua_args *a) {
  return adaptive_avg_pool2d_run(a, run_vectors);
}

static void adaptive_avg_pool2d_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(
      b, 0,
      dlua_call(b->s, &dlua_op_adaptive_avg_pool2d_grad, dlua_t(b->g[0]), dlua_list(ndim, size)));
}

static dlua_status adaptive_avg_pool2d_grad_run(const dlua_args *a, dlua_status (*run)(job *)) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  job j = {.x = gx, .y = g, .adaptive = true, .spread = true};
  j.p = (dlua_pool_plane){.h = gx->size[2], .w = gx->size[3], .oh = g->size[2], .ow = g->size[3]};
  return run(&j);
}

static dlua_status adaptive_avg_pool2d_grad_cpu(const dlua_args *a) {
  return adaptive_avg_pool2d_grad_run(a, run_plain);
}

static dlua_status adaptive_avg_pool2d_grad_fast(const dlua_args *a) {
  return adaptive_avg_pool2d_grad_run(a, run_vectors);
}

static void adaptive_avg_pool2d_grad_back(dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_adaptive_avg_pool2d, dlua_t(b->g[0]), dlua_list(2, size + 2)));
}

const dlua_op dlua_op_adaptive_avg_pool2d = {
    .name = "adaptive_avg_pool2d",
    .sig = "x:T, size:s2 -> y",
    .doc = "The mean of size[1] x size[2] windows that cover x {n,c,h,w}: window i of o over n "
           "rows goes from "
           "floor(i n / o) to ceil((i + 1) n / o).",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS,
    .shape = adaptive_avg_pool2d_shape,
    .cpu = adaptive_avg_pool2d_cpu,
    .fast = (dlua_kernel *const[]){adaptive_avg_pool2d_fast, NULL},
    .back = adaptive_avg_pool2d_back,
    .contiguous = "x",
};

const dlua_op dlua_op_adaptive_avg_pool2d_grad = {
    .name = "adaptive_avg_pool2d_grad",
    .sig = "g:T, size:s -> gx",
    .doc = "The gradient of adaptive_avg_pool2d by x of that size.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_LAYOUTS | DLUA_HIDDEN,
    .shape = grad_shape,
    .cpu = adaptive_avg_pool2d_grad_cpu,
    .fast = (dlua_kernel *const[]){adaptive_avg_pool2d_grad_fast, NULL},
    .back = adaptive_avg_pool2d_grad_back,
    .contiguous = "g",
};
