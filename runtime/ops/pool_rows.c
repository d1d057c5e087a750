// pool_rows.c - max pooling of NHWC activations of f32 or bf16: pixels of channels side by side. The
// gradient adds up in f32, in scratch memory where the result is bf16, so windows that overlap round
// once.
#include <string.h>

#include "../cpu/channel_rows.h"
#include "../cpu/layout.h"
#include "../cpu/simd.h"
#include "../half.h"
#include "../parallel.h"
#include "pool.h"

static bool takes(const dlua_tensor *x, const dlua_tensor *y) {
  return dlua_is_nhwc(x) && dlua_is_nhwc(y) && (x->dtype == DLUA_F32 || x->dtype == DLUA_BF16);
}

static char *element(const dlua_tensor *x, int64_t k) {
  return (char *)dlua_data(x) + (size_t)k * dlua_dtype_size((dlua_dtype)x->dtype);
}

// ---------------------------------------------------------------- forward

typedef struct pooling {
  const dlua_args *a;
  dlua_pool_plane p;
} pooling;

// Item k is row k % oh of image k / oh.
static void max_rows(void *context, int64_t from, int64_t to) {
  const pooling *j = context;
  const dlua_tensor *x = j->a->in[0], *y = j->a->out[0], *where = j->a->out[1];
  int64_t c = x->size[1], image = j->p.h * j->p.w * c, row = j->p.ow * c;
  for (int64_t k = from; k < to; k++)
    dlua_row_simd()->max(&j->p, k % j->p.oh, element(x, k / j->p.oh * image), x->dtype == DLUA_BF16,
                         c, element(y, k * row), (int32_t *)dlua_data(where) + k * row);
}

dlua_status dlua_max_pool2d_rows(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  pooling j = {.a = a};
  if (!takes(x, a->out[0])) return DLUA_DECLINED;
  DLUA_TRY(dlua_pool_plane_of(a, true, a->num[4].i, &j.p));
  double cost = (double)(j.p.ow * j.p.kh * j.p.kw * x->size[1]);
  dlua_parallel(x->size[0] * j.p.oh, cost, max_rows, &j);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient

enum { ROOM = 1 << 17 }; // floats of scratch a thread likes to have in its second cache

// Item k is strip k % strips of the channels of image k / strips.
typedef struct scatter {
  const dlua_tensor *g, *where, *gx;
  int64_t in, out, c, strip, strips; // in, out: pixels of an image
  float *scratch;                    // {threads, in, strip}, or NULL where gx is f32
  int next;                          // slice that takes its scratch next
} scatter;

// Adds pixel for pixel. No place outside the plane is written to, whatever a script gives.
static void add_f32(const scatter *s, int64_t at, int64_t n, float *sums, int64_t stride) {
  const float *g = dlua_f32(s->g);
  const int32_t *where = dlua_data(s->where);
  for (int64_t k = 0; k < s->out; k++, at += s->c) {
    for (int64_t l = 0; l < n; l++) {
      uint64_t place = (uint64_t)where[at + l] - 1;
      if (place < (uint64_t)s->in) sums[(int64_t)place * stride + l] += g[at + l];
    }
  }
}

static void add_bf16(const scatter *s, int64_t at, int64_t n, float *sums, int64_t stride) {
  const uint16_t *g = dlua_data(s->g);
  const int32_t *where = dlua_data(s->where);
  for (int64_t k = 0; k < s->out; k++, at += s->c) {
    for (int64_t l = 0; l < n; l++) {
      uint64_t place = (uint64_t)where[at + l] - 1;
      if (place < (uint64_t)s->in) sums[(int64_t)place * stride + l] += dlua_bf16_to_f32(g[at + l]);
    }
  }
}

// Image and strip of item k: rounded from scratch memory of their own.
static void scatter_strip(const scatter *s, int64_t k, float *sums) {
  int64_t image = k / s->strips, first = k % s->strips * s->strip;
  int64_t n = s->c - first < s->strip ? s->c - first : s->strip, step = n == s->c ? s->in : 1;
  memset(sums, 0, (size_t)(s->in * n) * sizeof *sums);
  add_bf16(s, image * s->out * s->c + first, n, sums, n);
  for (int64_t pixel = 0; pixel < s->in; pixel += step) {
    char *p[2] = {element(s->gx, (image * s->in + pixel) * s->c + first),
                  (char *)(sums + pixel * n)};
    dlua_cast_simd()->from_f32[DLUA_BF16](NULL, n * step, p,
                                          (int64_t[]){sizeof(uint16_t), sizeof(float)});
  }
}

static void scatter_strips(void *context, int64_t from, int64_t to) {
  scatter *s = context;
  int slice = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
  for (int64_t k = from; k < to; k++) {
    if (s->scratch) {
      scatter_strip(s, k, s->scratch + slice * s->in * s->strip);
      continue;
    }
    float *gx = dlua_f32(s->gx) + k * s->in * s->c;
    memset(gx, 0, (size_t)(s->in * s->c) * sizeof *gx);
    add_f32(s, k * s->out * s->c, s->c, gx, s->c);
  }
}

dlua_status dlua_max_pool2d_grad_rows(const dlua_args *a) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  if (!takes(g, gx) || g->dtype != gx->dtype || !dlua_is_nhwc(a->in[1])) return DLUA_DECLINED;
  scatter s = {.g = g, .where = a->in[1], .gx = gx, .c = gx->size[1]};
  s.in = gx->size[2] * gx->size[3], s.out = g->size[2] * g->size[3];
  int64_t fits = ROOM / (s.in + 1) / 16 * 16;
  s.strip = gx->dtype == DLUA_F32 || fits >= s.c ? s.c : fits > 16 ? fits : 16;
  s.strips = (s.c + s.strip - 1) / s.strip;
  size_t bytes = (size_t)(dlua_threads() * s.in * s.strip) * sizeof(float);
  if (gx->dtype == DLUA_BF16) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, (void **)&s.scratch));
  dlua_parallel(gx->size[0] * s.strips, (double)((s.in + 2 * s.out) * s.strip), scatter_strips, &s);
  if (s.scratch) dlua_free(dlua_cpu(), s.scratch, bytes);
  return DLUA_OK;
}
