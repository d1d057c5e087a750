// norm_fast.c - batch normalisation over {n,c,…} f32 activations, contiguous or blocked. The work
// is cut into units of one image and one channel (or block of channels); their sums go to a table
// that is added up in order, so the result does not depend on the number of threads. Two walks over
// memory: sums, then the result.
#include "norm_fast.h"

#include <string.h>

#include "../cpu/isa.h"
#include "../cpu/layout.h"
#include "../cpu/norm.h"
#include "../parallel.h"
#include "reduce.h"

enum { LANES = DLUA_NORM_LANES, SHORTEST = 8 };

// What the walks have for each lane: shift or mean, the factors of the result, and the gate's.
enum { CENTRE, FACTOR, GATE = FACTOR + 3, VECTORS = GATE + 2 };

const dlua_norm_kernels *dlua_norm_simd(void) {
  static const dlua_norm_kernels *const kernels[] = DLUA_PER_ISA(dlua_norm);
  return kernels[dlua_isa()];
}

// One call. A unit is image n, channels from .. from + block; its memory is consecutive.
typedef struct job {
  const dlua_args *a;
  int64_t n, c, block, groups, length; // channels per unit, units per image, floats per unit
  const float *x, *g;
  float *out;
  double *sums;   // {n, groups, 2, LANES}
  float *vectors; // {groups, VECTORS, LANES}, below
} job;

static int64_t block_of(const dlua_tensor *x) {
  return x->storage->layout == DLUA_NCHW16C ? 16 : x->storage->layout == DLUA_NCHW8C ? 8 : 1;
}

static size_t scratch_bytes(const job *j) {
  return sizeof(double) * (size_t)(j->n * j->groups * 2 * LANES) +
         sizeof(float) * (size_t)(j->groups * VECTORS * LANES);
}

static dlua_status open_job(job *j, const dlua_args *a, const dlua_tensor *x) {
  j->a = a, j->n = x->size[0], j->c = x->size[1], j->block = block_of(x);
  j->groups = j->c / j->block, j->length = dlua_numel(x) / (j->n * j->groups);
  j->x = dlua_f32(x), j->out = dlua_f32(a->out[0]);
  DLUA_TRY(dlua_alloc(dlua_cpu(), scratch_bytes(j), (void **)&j->sums));
  memset(j->sums, 0, scratch_bytes(j));
  j->vectors = (float *)(j->sums + j->n * j->groups * 2 * LANES);
  return DLUA_OK;
}

static void close_job(job *j) { dlua_free(dlua_cpu(), j->sums, scratch_bytes(j)); }

static bool takes(const dlua_tensor *x) {
  return x->dtype == DLUA_F32 && dlua_numel(x) > 0 && !dlua_is_nhwc(x) &&
         (x->storage->layout != DLUA_STRIDED ||
          (dlua_is_contiguous(x) && dlua_numel(x) >= SHORTEST * x->size[0] * x->size[1]));
}

static float *vector_of(const job *j, int64_t group, int which) {
  return j->vectors + (group * VECTORS + which) * LANES;
}

// Sets one vector of a group: lane l gets value(channel of l).
static void spread_lanes(const job *j, int64_t group, int which, const float *per_channel) {
  float *v = vector_of(j, group, which);
  for (int l = 0; l < LANES; l++) v[l] = per_channel[l % j->block];
}

// The two sums of channel i of a group over all images, in their order.
static void total(const job *j, int64_t group, int64_t i, double *first, double *second) {
  *first = *second = 0;
  for (int64_t n = 0; n < j->n; n++) {
    const double *sums = j->sums + (n * j->groups + group) * 2 * LANES;
    for (int64_t l = i; l < LANES; l += j->block) *first += sums[l], *second += sums[LANES + l];
  }
}

// ---------------------------------------------------------------- forward

static void sum_units(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t u = from; u < to; u++) {
    double *sums = j->sums + u * 2 * LANES;
    dlua_norm_simd()->moments(j->x + u * j->length, j->length, vector_of(j, u % j->groups, CENTRE),
                              sums, sums + LANES);
  }
}

static void scale_units(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t u = from; u < to; u++) {
    const float *factor = vector_of(j, u % j->groups, FACTOR);
    dlua_norm_simd()->affine(j->out + u * j->length, j->x + u * j->length, j->length, factor,
                             factor + LANES, j->a->num[NORM_RELU].i);
  }
}

static float channel_value(const dlua_tensor *p, int64_t channel, float missing) {
  return p ? dlua_f32(p)[channel * p->stride[0]] : missing;
}

// y = x scale + offset, from mean and rstd as they are kept: backward comes to the same.
static void line(float mean, float rstd, const dlua_tensor *weight, const dlua_tensor *bias,
                 int64_t channel, float *scale, float *offset) {
  double s = (double)rstd * channel_value(weight, channel, 1);
  *scale = (float)s, *offset = (float)(channel_value(bias, channel, 0) - mean * s);
}

void dlua_norm_factors(const dlua_args *a, int64_t channel, const dlua_moments *m, float *scale,
                       float *offset) {
  double mean = channel_value(a->in[NORM_RUNNING_MEAN], channel, 0);
  double var = channel_value(a->in[NORM_RUNNING_VAR], channel, 0);
  double rstd = 1 / __builtin_sqrt(var + a->num[NORM_EPS].f);
  if (a->num[NORM_TRAINING].i) dlua_finish_moments(a, channel, m, &mean, &rstd);
  float *means = dlua_f32(a->out[1]), *rstds = dlua_f32(a->out[2]);
  means[channel] = (float)mean, rstds[channel] = (float)rstd;
  line(means[channel], rstds[channel], a->in[NORM_WEIGHT], a->in[NORM_BIAS], channel, scale,
       offset);
}

void dlua_norm_gate_factors(const dlua_args *a, int64_t channel, float *scale, float *offset) {
  line(dlua_f32(a->in[GRAD_MEAN])[channel], dlua_f32(a->in[GRAD_RSTD])[channel], a->in[GRAD_WEIGHT],
       a->in[GRAD_BIAS], channel, scale, offset);
}

// What dlua_norm_factors gives for a group's channels.
static void finish_group(const job *j, int64_t group) {
  float scale[LANES], offset[LANES];
  for (int64_t i = 0; i < j->block; i++) {
    dlua_moments m = {.shift = vector_of(j, group, CENTRE)[i],
                      .count = j->n * j->length / j->block};
    if (j->a->num[NORM_TRAINING].i) total(j, group, i, &m.sum, &m.squares);
    dlua_norm_factors(j->a, group * j->block + i, &m, &scale[i], &offset[i]);
  }
  spread_lanes(j, group, FACTOR, scale);
  spread_lanes(j, group, FACTOR + 1, offset);
}

dlua_status dlua_batch_norm_fast(const dlua_args *a) {
  if (!takes(a->in[NORM_X])) return DLUA_DECLINED;
  job j;
  DLUA_TRY(open_job(&j, a, a->in[NORM_X]));
  bool training = a->num[NORM_TRAINING].i;
  int64_t units = j.n * j.groups;
  if (training) {
    for (int64_t group = 0; group < j.groups; group++)
      spread_lanes(&j, group, CENTRE, j.x + group * j.length);
    dlua_parallel(units, (double)j.length, sum_units, &j);
  }
  for (int64_t group = 0; group < j.groups; group++) finish_group(&j, group);
  for (int k = NORM_RUNNING_MEAN; k <= NORM_RUNNING_VAR && training; k++) {
    if (a->in[k]) a->in[k]->storage->version++;
  }
  dlua_parallel(units, (double)j.length, scale_units, &j);
  close_job(&j);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradient

static const dlua_norm_gate *gate_of(const job *j, int64_t group, dlua_norm_gate *gate) {
  *gate = (dlua_norm_gate){vector_of(j, group, GATE), vector_of(j, group, GATE + 1)};
  return j->a->num[GRAD_RELU].i ? gate : NULL;
}

static void product_units(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t u = from; u < to; u++) {
    dlua_norm_gate gate;
    int64_t group = u % j->groups;
    double *sums = j->sums + u * 2 * LANES;
    dlua_norm_simd()->products(j->g + u * j->length, j->x + u * j->length, j->length,
                               vector_of(j, group, CENTRE), gate_of(j, group, &gate), sums,
                               sums + LANES);
  }
}

static void grad_units(void *context, int64_t from, int64_t to) {
  const job *j = context;
  for (int64_t u = from; u < to; u++) {
    dlua_norm_gate gate;
    int64_t group = u % j->groups;
    const float *factor = vector_of(j, group, FACTOR);
    dlua_norm_simd()->affine2(j->out + u * j->length, j->g + u * j->length, j->x + u * j->length,
                              j->length, factor, factor + LANES, factor + 2 * LANES,
                              gate_of(j, group, &gate));
  }
}

// gx = scale (g - sum/count - (x - mean) rstd² product/count) as g a + x b + c.
void dlua_norm_grad_factors(const dlua_args *a, int64_t channel, int64_t count, double sum,
                            double product, float factor[3]) {
  double mean = dlua_f32(a->in[GRAD_MEAN])[channel], rstd = dlua_f32(a->in[GRAD_RSTD])[channel];
  double scale = rstd * channel_value(a->in[GRAD_WEIGHT], channel, 1);
  double share =
      (double)a->num[GRAD_TRAINING].i / (double)count; // of the batch's statistics in training
  double slope = -scale * rstd * rstd * product * share;
  dlua_put(a->out[1], channel, product * rstd);
  dlua_put(a->out[2], channel, sum);
  factor[0] = (float)scale, factor[1] = (float)slope;
  factor[2] = (float)(-scale * sum * share - slope * mean);
}

static void open_grad_group(const job *j, int64_t group) {
  float scale[LANES], offset[LANES];
  for (int64_t i = 0; i < j->block; i++)
    dlua_norm_gate_factors(j->a, group * j->block + i, &scale[i], &offset[i]);
  spread_lanes(j, group, CENTRE, dlua_f32(j->a->in[GRAD_MEAN]) + group * j->block);
  spread_lanes(j, group, GATE, scale);
  spread_lanes(j, group, GATE + 1, offset);
}

static void finish_grad_group(const job *j, int64_t group) {
  float factors[3][LANES];
  for (int64_t i = 0; i < j->block; i++) {
    double sum, product;
    float factor[3];
    total(j, group, i, &sum, &product);
    dlua_norm_grad_factors(j->a, group * j->block + i, j->n * j->length / j->block, sum, product,
                           factor);
    for (int k = 0; k < 3; k++) factors[k][i] = factor[k];
  }
  for (int k = 0; k < 3; k++) spread_lanes(j, group, FACTOR + k, factors[k]);
}

dlua_status dlua_batch_norm_grad_fast(const dlua_args *a) {
  const dlua_tensor *x = a->in[GRAD_X];
  if (!takes(x)) return DLUA_DECLINED;
  job j;
  DLUA_TRY(open_job(&j, a, x));
  j.g = dlua_f32(a->in[GRAD_G]);
  for (int64_t group = 0; group < j.groups; group++) open_grad_group(&j, group);
  dlua_parallel(j.n * j.groups, 2.0 * (double)j.length, product_units, &j);
  for (int64_t group = 0; group < j.groups; group++) finish_grad_group(&j, group);
  dlua_parallel(j.n * j.groups, 2.0 * (double)j.length, grad_units, &j);
  close_job(&j);
  return DLUA_OK;
}
