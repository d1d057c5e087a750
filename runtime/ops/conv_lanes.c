// conv_lanes.c - convolutions of few channels: a block of sixteen images is transposed so that each
// vector lane holds one of them, convolved there, and transposed back (lanes.h). Blocks are shared
// out to the team; the weight gradient adds up the blocks' parts in their order, so it does not
// depend on the number of threads.
//
// The gradient of the input is a convolution too: of the padded result gradient with the mirrored
// weights.
#include "conv_lanes.h"

#include <string.h>

#include "../cpu/isa.h"
#include "../cpu/lanes.h"
#include "../parallel.h"

enum { STRIDE, PADDING, DILATION, GROUPS };     // numbers of conv2d
enum { MANY_CHANNELS = 64, FEWEST_IMAGES = 4 }; // beyond these oneDNN's blocked kernels win

static const dlua_lanes_kernels *kernels(void) {
  static const dlua_lanes_kernels *const kernels[] = DLUA_PER_ISA(dlua_lanes);
  return kernels[dlua_isa()];
}

// One call: images from x and g or y, through scratch that every slice of the team has for itself.
typedef struct job {
  const dlua_lanes_kernels *k;
  dlua_lanes_shape s;
  int64_t images, ph, pw; // padding of the packed input
  const float *x, *w, *b, *g;
  float *y, *gw;
  float *scratch;
  int64_t per_slice, packed, unpacked; // floats: scratch of a slice, of one packed input and result
  int next;                            // slice that takes its scratch next
} job;

static bool takes(const dlua_value *num, const dlua_tensor *x, const dlua_tensor *y) {
  if (x->dtype != DLUA_F32 || y->dtype != DLUA_F32) return false;
  if (!dlua_is_contiguous(x) || !dlua_is_contiguous(y)) return false;
  for (int d = 0; d < 2; d++) {
    if (num[STRIDE].v[d] != 1 || num[DILATION].v[d] != 1) return false;
  }
  if (num[GROUPS].i != 1 || x->size[0] < FEWEST_IMAGES) return false;
  return x->size[1] % 16 || y->size[1] % 16
             ? x->size[1] <= MANY_CHANNELS && y->size[1] <= MANY_CHANNELS
             : false;
}

static dlua_status open_job(job *j, int64_t images, int64_t ph, int64_t pw, int64_t extra) {
  j->k = kernels(), j->images = images, j->ph = ph, j->pw = pw, j->next = 0;
  j->packed = j->s.cin * j->s.h * j->s.w * DLUA_LANES;
  j->unpacked = j->s.cout * j->s.oh * j->s.ow * DLUA_LANES;
  j->per_slice = j->packed + j->unpacked;
  size_t floats = (size_t)(j->per_slice * dlua_threads() + extra);
  return dlua_alloc(dlua_cpu(), floats * sizeof(float), (void **)&j->scratch);
}

static void close_job(job *j, int64_t extra) {
  size_t floats = (size_t)(j->per_slice * dlua_threads() + extra);
  dlua_free(dlua_cpu(), j->scratch, floats * sizeof(float));
}

static float *slice_scratch(job *j) {
  return j->scratch + __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED) * j->per_slice;
}

static int64_t images_of(const job *j, int64_t block) {
  int64_t left = j->images - block * DLUA_LANES;
  return left < DLUA_LANES ? left : DLUA_LANES;
}

static void pack_input(const job *j, float *to, const float *x, int64_t block) {
  int64_t h = j->s.h - 2 * j->ph, w = j->s.w - 2 * j->pw;
  j->k->pack(to, x + block * DLUA_LANES * j->s.cin * h * w, images_of(j, block), j->s.cin, h, w,
             j->ph, j->pw);
}

static void forward_blocks(void *context, int64_t from, int64_t to) {
  job *j = context;
  float *packed = slice_scratch(j), *result = packed + j->packed;
  int64_t plane = j->s.oh * j->s.ow;
  for (int64_t block = from; block < to; block++) {
    pack_input(j, packed, j->x, block);
    j->k->forward(&j->s, result, packed, j->w, j->b);
    j->k->unpack(j->y + block * DLUA_LANES * j->s.cout * plane, result, images_of(j, block),
                 j->s.cout, plane);
  }
}

static void weight_blocks(void *context, int64_t from, int64_t to) {
  job *j = context;
  float *packed = slice_scratch(j), *g = packed + j->packed;
  int64_t plane = j->s.oh * j->s.ow, weights = j->s.cout * j->s.cin * j->s.kh * j->s.kw;
  for (int64_t block = from; block < to; block++) {
    pack_input(j, packed, j->x, block);
    j->k->pack(g, j->g + block * DLUA_LANES * j->s.cout * plane, images_of(j, block), j->s.cout,
               j->s.oh, j->s.ow, 0, 0);
    j->k->weight_grad(&j->s, j->gw + block * weights, g, packed);
  }
}

static int64_t block_count(const job *j) { return (j->images + DLUA_LANES - 1) / DLUA_LANES; }

static double block_cost(const job *j) {
  return (double)DLUA_LANES * j->s.cout * j->s.oh * j->s.ow * j->s.cin * j->s.kh * j->s.kw;
}

dlua_status dlua_conv_lanes(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *w = a->in[1], *b = a->in[2], *y = a->out[0];
  if (!takes(a->num, x, y) || !dlua_is_contiguous(w) || (b && !dlua_is_contiguous(b)))
    return DLUA_DECLINED;
  int64_t ph = a->num[PADDING].v[0], pw = a->num[PADDING].v[1];
  job j = {.s = {x->size[1], w->size[0], x->size[2] + 2 * ph, x->size[3] + 2 * pw, w->size[2],
                 w->size[3], y->size[2], y->size[3]}};
  j.x = dlua_f32(x), j.w = dlua_f32(w), j.b = b ? dlua_f32(b) : NULL, j.y = dlua_f32(y);
  DLUA_TRY(open_job(&j, x->size[0], ph, pw, 0));
  dlua_parallel(block_count(&j), block_cost(&j), forward_blocks, &j);
  close_job(&j, 0);
  return DLUA_OK;
}

// {cout,cin,kh,kw} -> {cin,cout,kh,kw} with both taps mirrored.
static void mirror(float *to, const float *w, const int64_t size[4]) {
  int64_t taps = size[2] * size[3];
  for (int64_t o = 0; o < size[0]; o++) {
    for (int64_t c = 0; c < size[1]; c++) {
      for (int64_t t = 0; t < taps; t++)
        to[(c * size[0] + o) * taps + taps - 1 - t] = w[(o * size[1] + c) * taps + t];
    }
  }
}

dlua_status dlua_conv_lanes_input_grad(const dlua_args *a) {
  const dlua_tensor *g = a->in[0], *w = a->in[1], *gx = a->out[0];
  const dlua_value *num = a->num + 1;
  int64_t ph = w->size[2] - 1 - num[PADDING].v[0], pw = w->size[3] - 1 - num[PADDING].v[1];
  if (!takes(num, g, gx) || !dlua_is_contiguous(w) || ph < 0 || pw < 0) return DLUA_DECLINED;
  job j = {.s = {w->size[0], w->size[1], g->size[2] + 2 * ph, g->size[3] + 2 * pw, w->size[2],
                 w->size[3], gx->size[2], gx->size[3]}};
  int64_t extra = dlua_numel(w);
  DLUA_TRY(open_job(&j, g->size[0], ph, pw, extra));
  float *mirrored = j.scratch + j.per_slice * dlua_threads();
  mirror(mirrored, dlua_f32(w), w->size);
  j.x = dlua_f32(g), j.w = mirrored, j.y = dlua_f32(gx);
  dlua_parallel(block_count(&j), block_cost(&j), forward_blocks, &j);
  close_job(&j, extra);
  return DLUA_OK;
}

dlua_status dlua_conv_lanes_weight_grad(const dlua_args *a) {
  const dlua_tensor *g = a->in[0], *x = a->in[1], *gw = a->out[0];
  const dlua_value *num = a->num + 1;
  if (!takes(num, x, g) || !dlua_is_contiguous(gw)) return DLUA_DECLINED;
  int64_t ph = num[PADDING].v[0], pw = num[PADDING].v[1];
  job j = {.s = {x->size[1], g->size[1], x->size[2] + 2 * ph, x->size[3] + 2 * pw, gw->size[2],
                 gw->size[3], g->size[2], g->size[3]}};
  int64_t weights = dlua_numel(gw), extra = weights * ((x->size[0] + DLUA_LANES - 1) / DLUA_LANES);
  DLUA_TRY(open_job(&j, x->size[0], ph, pw, extra));
  j.x = dlua_f32(x), j.g = dlua_f32(g), j.gw = j.scratch + j.per_slice * dlua_threads();
  dlua_parallel(block_count(&j), block_cost(&j), weight_blocks, &j);
  float *sum = dlua_f32(gw);
  memcpy(sum, j.gw, (size_t)weights * sizeof *sum);
  for (int64_t block = 1; block < block_count(&j); block++) {
    for (int64_t k = 0; k < weights; k++) sum[k] += j.gw[block * weights + k];
  }
  close_job(&j, extra);
  return DLUA_OK;
}
