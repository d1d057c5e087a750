// pool_avg.c - average pooling. Its gradient spreads each value over its window and is linear, so
// average pooling is the gradient of the gradient.
#include <string.h>

#include "../cpu/channel_rows.h"
#include "../cpu/fold.h"
#include "../cpu/layout.h"
#include "../cpu/simd.h"
#include "../parallel.h"
#include "pool.h"

enum { SHARES = 64 };                      // channels whose shares are at hand
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

// ---------------------------------------------------------------- rows of channels

// An averaging of NHWC activations with sums for every slice of the team.
typedef struct row_job {
  const job *j;
  int64_t padded;
  double *scratch; // {threads, 2, padded}: sums, and room for as many floats
  int next;        // slice that takes its scratch next
} row_job;

static char *element(const dlua_tensor *x, int64_t k) {
  return (char *)dlua_data(x) + (size_t)k * dlua_dtype_size((dlua_dtype)x->dtype);
}

// Pixel k of the result, counted through all images.
static void average_pixel(const row_job *r, int64_t k, double *sums) {
  const job *j = r->j;
  int64_t c = j->x->size[1], image = k / (j->p.oh * j->p.ow), step = 1;
  window rows = window_at(j, k / j->p.ow % j->p.oh, true),
         columns = window_at(j, k % j->p.ow, false);
  int64_t n = columns.to - columns.from;
  if (n == j->p.w) n *= rows.to - rows.from, step = rows.to - rows.from;
  memset(sums, 0, (size_t)r->padded * sizeof *sums);
  for (int64_t row = rows.from; row < rows.to; row += step) {
    int64_t at = ((image * j->p.h + row) * j->p.w + columns.from) * c;
    dlua_row_simd()->sums(element(j->x, at), j->x->dtype == DLUA_BF16, n, c, sums);
  }
  float *means = (float *)(sums + r->padded);
  for (int64_t l = 0; l < c; l++)
    means[l] = (float)(sums[l] / (double)(rows.count * columns.count));
  if (j->y->dtype == DLUA_F32)
    memcpy(element(j->y, k * c), means, (size_t)c * sizeof *means);
  else
    dlua_cast_simd()->from_f32[DLUA_BF16](NULL, c, (char *[]){element(j->y, k * c), (char *)means},
                                          (int64_t[]){sizeof(uint16_t), sizeof(float)});
}

static void average_pixels(void *context, int64_t from, int64_t to) {
  row_job *r = context;
  int slice = __atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED);
  for (int64_t k = from; k < to; k++) average_pixel(r, k, r->scratch + slice * 2 * r->padded);
}

// A window's share of g: one element of each of its n channels.
static void add_share(const job *j, window rows, window columns, int64_t at, int64_t n,
                      float *sums) {
  const void *g = dlua_data(j->y);
  bool half = j->y->dtype == DLUA_BF16;
  double count = (double)(rows.count * columns.count);
  float share[SHARES];
  for (int64_t first = 0; first < n; first += SHARES) {
    int64_t some = n - first < SHARES ? n - first : SHARES;
    for (int64_t l = 0; l < some; l++)
      share[l] = (float)((double)dlua_pool_value(g, half, at + first + l) / count);
    for (int64_t r = rows.from; r < rows.to; r++) {
      for (int64_t c = columns.from; c < columns.to; c++) {
        float *to = sums + (r * j->p.w + c) * n + first;
        for (int64_t l = 0; l < some; l++) to[l] += share[l];
      }
    }
  }
}

static void add_shares(const void *context, int64_t image, int64_t first, int64_t n, float *sums) {
  const job *j = context;
  int64_t c = j->x->size[1], at = image * j->p.oh * j->p.ow * c + first;
  for (int64_t i = 0; i < j->p.oh; i++) {
    window rows = window_at(j, i, true);
    for (int64_t k = 0; k < j->p.ow; k++, at += c) {
      window columns = window_at(j, k, false);
      add_share(j, rows, columns, at, n, sums);
    }
  }
}

static bool rows_apply(const job *j) {
  const dlua_tensor *given = j->spread ? j->y : j->x;
  bool pixel = j->p.oh == 1 && j->p.ow == 1; // which lies alike in both layouts
  return (given->dtype == DLUA_F32 || given->dtype == DLUA_BF16) && dlua_is_nhwc(j->x) &&
         (pixel || dlua_is_nhwc(j->y)) && given->dtype == (j->spread ? j->x : j->y)->dtype;
}

static dlua_status run_rows(const job *j) {
  double window = (double)(j->p.h * j->p.w) / (double)(j->p.oh * j->p.ow);
  if (j->spread) return dlua_pool_spread(j->x, 2.0 * (double)(j->p.h * j->p.w), add_shares, j);
  row_job r = {.j = j, .padded = dlua_row_padded(j->x->size[1])};
  size_t bytes = (size_t)(dlua_threads() * 2 * r.padded) * sizeof(double);
  DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, (void **)&r.scratch));
  dlua_parallel(j->x->size[0] * j->p.oh * j->p.ow, window * (double)r.padded, average_pixels, &r);
  dlua_free(dlua_cpu(), r.scratch, bytes);
  return DLUA_OK;
}

static dlua_status run_vectors(job *j) {
  if (rows_apply(j)) return run_rows(j);
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
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC,
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
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC | DLUA_HIDDEN,
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
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC,
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
    .flags = DLUA_LAYOUTS | DLUA_BF16_NHWC | DLUA_HIDDEN,
    .shape = grad_shape,
    .cpu = adaptive_avg_pool2d_grad_cpu,
    .fast = (dlua_kernel *const[]){adaptive_avg_pool2d_grad_fast, NULL},
    .back = adaptive_avg_pool2d_grad_back,
    .contiguous = "g",
};
