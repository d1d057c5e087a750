// pool_rows.c - max pooling of NHWC activations of f32 or bf16: pixels of channels side by side. The
// gradient adds up in f32, in scratch memory where the result is bf16, so windows that overlap round
// once.
#include <string.h>

#include "../cpu/channel_rows.h"
#include "../cpu/layout.h"
#include "../cpu/simd.h"
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

// ---------------------------------------------------------------- gradients

enum { ROOM = 1 << 17 }; // floats of scratch a thread likes to have in its second cache

// Item k is strip k % strips of the channels of image k / strips.
typedef struct spread {
  const dlua_tensor *gx;
  dlua_pool_add *add;
  const void *context;
  int64_t pixels, c, strip, strips; // pixels: of an image
  float *scratch;                   // {threads, pixels, strip}, or NULL where gx is f32
  int next;                         // slice that takes its scratch next
} spread;

static void spread_strip(const spread *s, int64_t k, float *sums) {
  int64_t image = k / s->strips, first = k % s->strips * s->strip;
  int64_t n = s->c - first < s->strip ? s->c - first : s->strip, at = image * s->pixels * s->c;
  if (!s->scratch) sums = dlua_f32(s->gx) + at;
  memset(sums, 0, (size_t)(s->pixels * n) * sizeof *sums);
  s->add(s->context, image, first, n, sums);
  int64_t step = n == s->c ? s->pixels : 1; // pixels that lie beside each other
  for (int64_t pixel = 0; s->scratch && pixel < s->pixels; pixel += step) {
    char *p[2] = {element(s->gx, at + pixel * s->c + first), (char *)(sums + pixel * n)};
    dlua_cast_simd()->from_f32[DLUA_BF16](NULL, n * step, p,
                                          (int64_t[]){sizeof(uint16_t), sizeof(float)});
  }
}

static void spread_strips(void *context, int64_t from, int64_t to) {
  spread *s = context;
  int slice = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
  float *sums = s->scratch ? s->scratch + slice * s->pixels * s->strip : NULL;
  for (int64_t k = from; k < to; k++) spread_strip(s, k, sums);
}

dlua_status dlua_pool_spread(const dlua_tensor *gx, double cost, dlua_pool_add *add,
                             const void *context) {
  spread s = {.gx = gx, .add = add, .context = context, .c = gx->size[1]};
  s.pixels = gx->size[2] * gx->size[3];
  int64_t fits = ROOM / (s.pixels + 1) / 16 * 16;
  s.strip = gx->dtype == DLUA_F32 || fits >= s.c ? s.c : fits > 16 ? fits : 16;
  s.strips = (s.c + s.strip - 1) / s.strip;
  size_t bytes = (size_t)(dlua_threads() * s.pixels * s.strip) * sizeof(float);
  if (gx->dtype == DLUA_BF16) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, (void **)&s.scratch));
  dlua_parallel(gx->size[0] * s.strips, cost * (double)s.strip, spread_strips, &s);
  if (s.scratch) dlua_free(dlua_cpu(), s.scratch, bytes);
  return DLUA_OK;
}

// A dilated window over a tiny image may have no tap inside it: its place is 0. No place outside the
// plane is written to, whatever a script gives.
static inline void add_maxima_of(const dlua_args *a, bool half, int64_t image, int64_t first,
                                 int64_t n, float *sums) {
  const dlua_tensor *gx = a->out[0];
  const int64_t *size = a->in[0]->size;
  int64_t out = size[2] * size[3], at = image * out * size[1] + first;
  uint64_t places = (uint64_t)(gx->size[2] * gx->size[3]);
  const void *g = dlua_data(a->in[0]);
  const int32_t *where = dlua_data(a->in[1]);
  for (int64_t k = 0; k < out; k++, at += size[1]) {
    for (int64_t l = 0; l < n; l++) {
      uint64_t place = (uint64_t)where[at + l] - 1;
      if (place < places) sums[(int64_t)place * n + l] += dlua_pool_value(g, half, at + l);
    }
  }
}

static void add_maxima(const void *context, int64_t image, int64_t first, int64_t n, float *sums) {
  const dlua_args *a = context;
  if (a->in[0]->dtype == DLUA_BF16)
    add_maxima_of(a, true, image, first, n, sums);
  else
    add_maxima_of(a, false, image, first, n, sums);
}

dlua_status dlua_max_pool2d_grad_rows(const dlua_args *a) {
  const dlua_tensor *g = a->in[0], *gx = a->out[0];
  if (!takes(g, gx) || g->dtype != gx->dtype || !dlua_is_nhwc(a->in[1])) return DLUA_DECLINED;
  double cost = (double)(gx->size[2] * gx->size[3] + 2 * g->size[2] * g->size[3]);
  return dlua_pool_spread(gx, cost, add_maxima, a);
}
