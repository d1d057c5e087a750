// onednn_conv.c - convolution forward and its two gradients.
//
// A plan is asked for with the layouts (layout.h) that its tensors already have and otherwise leaves
// the choice to the library; whatever lies differently is reordered on the way. Weights are
// parameters and stay strided: their converted copy hangs on their storage and is made again when
// the version changes.
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "../parallel.h"
#include "../settings.h"
#include "layout.h"
#include "onednn.h"
#include "onednn_plan.h"

// The library's prototypes ask for arrays of 12 numbers where it reads as many as there are
// dimensions.
#pragma GCC diagnostic ignored "-Wstringop-overread"

typedef enum direction { FORWARD, INPUT_GRAD, WEIGHT_GRAD } direction;

// All a primitive depends on.
typedef struct conv_key {
  int32_t direction, algorithm, threads, bias, type, xlayout, ylayout;
  int32_t none; // no padding in the key
  int64_t n, c, h, w, o, kh, kw, p, q, groups;
  int64_t stride[2], padding[2], dilation[2];
} conv_key;

// ---------------------------------------------------------------- descriptions

static dnnl_data_type_t type_of(const dlua_tensor *x) {
  return x->dtype == DLUA_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_memory_desc_t by_strides(int ndim, const int64_t *size, const int64_t *stride,
                                     dnnl_data_type_t type) {
  dnnl_memory_desc_t desc;
  memset(&desc, 0, sizeof desc);
  dnnl_memory_desc_init_by_strides(&desc, ndim, size, type, stride);
  return desc;
}

static dnnl_memory_desc_t by_tag(int ndim, const int64_t *size, dnnl_format_tag_t tag,
                                 dnnl_data_type_t type) {
  dnnl_memory_desc_t desc;
  memset(&desc, 0, sizeof desc);
  dnnl_memory_desc_init_by_tag(&desc, ndim, size, type, tag);
  return desc;
}

static dnnl_memory_desc_t in_layout(const int64_t size[4], int layout, dnnl_data_type_t type) {
  dnnl_format_tag_t tag = layout == DLUA_NCHW16C  ? dnnl_nChw16c
                          : layout == DLUA_NCHW8C ? dnnl_nChw8c
                          : layout == DLUA_NHWC   ? dnnl_nhwc
                                                  : dnnl_format_tag_any;
  return by_tag(4, size, tag, type);
}

// n, h, w, c in memory.
static bool channels_last(const dlua_tensor *x) {
  int64_t want[4] = {x->size[1] * x->size[2] * x->size[3], 1, x->size[3] * x->size[1], x->size[1]};
  for (int d = 0; d < 4; d++)
    if (x->size[d] > 1 && x->stride[d] != want[d]) return false;
  return x->storage->layout == DLUA_STRIDED;
}

// An activation as it lies: in its layout, row-major, or channels last by its strides.
static dnnl_memory_desc_t lying(const dlua_tensor *x) {
  if (x->storage->layout != DLUA_STRIDED) return in_layout(x->size, x->storage->layout, type_of(x));
  return by_tag(4, x->size, dlua_is_contiguous(x) ? dnnl_nchw : dnnl_nhwc, type_of(x));
}

// {groups, o/groups, c/groups, kh, kw}, or without the first where there is one group.
static dnnl_memory_desc_t weight_desc(const dlua_tensor *w, int64_t groups) {
  if (groups == 1) return by_strides(4, w->size, w->stride, type_of(w));
  int64_t size[5] = {groups, w->size[0] / groups, w->size[1], w->size[2], w->size[3]};
  int64_t stride[5] = {size[1] * w->stride[0], w->stride[0], w->stride[1], w->stride[2],
                       w->stride[3]};
  return by_strides(5, size, stride, type_of(w));
}

// ---------------------------------------------------------------- plans

// The operation descriptor of one direction; a gradient wants the forward one as a hint.
static dlua_status describe(const conv_key *k, direction direction, bool exact,
                            dnnl_convolution_desc_t *desc) {
  int64_t xs[4] = {k->n, k->c, k->h, k->w}, ys[4] = {k->n, k->o, k->p, k->q};
  int64_t ws[5] = {k->groups, k->o / k->groups, k->c / k->groups, k->kh, k->kw};
  dnnl_dims_t dilates = {k->dilation[0] - 1, k->dilation[1] - 1};
  dnnl_data_type_t type = (dnnl_data_type_t)k->type;
  dnnl_memory_desc_t x = in_layout(xs, exact ? k->xlayout : DLUA_STRIDED, type);
  dnnl_memory_desc_t y = in_layout(ys, exact ? k->ylayout : DLUA_STRIDED, type);
  dnnl_memory_desc_t w = k->groups == 1 ? by_tag(4, ws + 1, dnnl_format_tag_any, type)
                                        : by_tag(5, ws, dnnl_format_tag_any, type);
  dnnl_memory_desc_t b = by_tag(1, &k->o, dnnl_a, type);
  dnnl_alg_kind_t alg = (dnnl_alg_kind_t)k->algorithm;
  dnnl_status_t status;
  if (direction == FORWARD) {
    status = dnnl_dilated_convolution_forward_desc_init(desc, dnnl_forward_training, alg, &x, &w,
                                                        k->bias ? &b : NULL, &y, k->stride, dilates,
                                                        k->padding, k->padding);
  } else if (direction == INPUT_GRAD) {
    status = dnnl_dilated_convolution_backward_data_desc_init(desc, alg, &x, &w, &y, k->stride,
                                                              dilates, k->padding, k->padding);
  } else {
    status = dnnl_dilated_convolution_backward_weights_desc_init(
        desc, alg, &x, &w, NULL, &y, k->stride, dilates, k->padding, k->padding);
  }
  return dlua_onednn_check(status, "describe a convolution");
}

static dlua_status create(const conv_key *k, bool exact, dnnl_primitive_desc_t *result) {
  dnnl_convolution_desc_t forward, desc;
  dnnl_primitive_desc_t hint = NULL;
  dnnl_primitive_attr_t attr;
  DLUA_TRY(describe(k, FORWARD, exact, &forward));
  DLUA_TRY(describe(k, (direction)k->direction, exact, &desc));
  DLUA_TRY(dlua_onednn_attributes(&attr));
  dnnl_engine_t engine = dlua_onednn_engine();
  dnnl_status_t status = dnnl_success;
  if (k->direction != FORWARD)
    status = dnnl_primitive_desc_create(&hint, &forward, attr, engine, NULL);
  if (status == dnnl_success)
    status = dnnl_primitive_desc_create(result, &desc, attr, engine, hint);
  if (hint) dnnl_primitive_desc_destroy(hint);
  dnnl_primitive_attr_destroy(attr);
  return dlua_onednn_check(status, "plan a convolution");
}

static dlua_status make_conv(const void *key, dlua_plan *plan) {
  const conv_key *k = key;
  dlua_status status = create(k, true, &plan->desc);
  if (status == DLUA_DECLINED && (k->xlayout || k->ylayout)) status = create(k, false, &plan->desc);
  return status;
}

// ---------------------------------------------------------------- converted weights

// One converted copy of a weight; several where forward and gradient want different ones.
typedef struct copy {
  struct copy *next;
  uint32_t version;
  dnnl_memory_desc_t given, wanted;
  int64_t offset;
  size_t bytes;
  void *data;
} copy;

static pthread_mutex_t copies_lock = PTHREAD_MUTEX_INITIALIZER;

static void drop_copies(void *cache) {
  for (copy *c = cache, *next; c; c = next) {
    next = c->next;
    dlua_free(dlua_cpu(), c->data, c->bytes);
    dlua_delete(c, sizeof *c);
  }
}

static dlua_status new_copy(const dlua_tensor *w, const dlua_part *part, copy **result) {
  copy *c = dlua_new(sizeof *c);
  if (!c) return DLUA_NO_MEMORY;
  c->bytes = dnnl_memory_desc_get_size(&part->wanted);
  if (dlua_alloc(dlua_cpu(), c->bytes, &c->data) != DLUA_OK) {
    dlua_delete(c, sizeof *c);
    return DLUA_NO_MEMORY;
  }
  c->given = part->given, c->wanted = part->wanted, c->offset = w->offset;
  c->version = w->storage->version - 1;
  c->next = w->storage->cache;
  w->storage->cache = c, w->storage->drop_cache = drop_copies;
  *result = c;
  return DLUA_OK;
}

static dlua_status find_copy(const dlua_tensor *w, dlua_part *part) {
  copy *c = w->storage->cache;
  while (c && (c->offset != w->offset || !dnnl_memory_desc_equal(&c->wanted, &part->wanted) ||
               !dnnl_memory_desc_equal(&c->given, &part->given)))
    c = c->next;
  if (!c) DLUA_TRY(new_copy(w, part, &c));
  if (c->version != w->storage->version) {
    DLUA_TRY(dlua_plan_reorder(&part->wanted, c->data, &part->given, part->data));
    c->version = w->storage->version;
  }
  part->given = part->wanted, part->data = c->data;
  return DLUA_OK;
}

// Lets the part point to the weight as the primitive wants it.
static dlua_status convert_weight(const dlua_tensor *w, dlua_part *part) {
  if (dnnl_memory_desc_equal(&part->given, &part->wanted)) return DLUA_OK;
  pthread_mutex_lock(&copies_lock);
  dlua_status status = find_copy(w, part);
  pthread_mutex_unlock(&copies_lock);
  return status;
}

// ---------------------------------------------------------------- one call

static dlua_part part_of(const dlua_plan *plan, int argument, bool result, const dlua_tensor *x,
                         dnnl_memory_desc_t given) {
  return (dlua_part){.argument = argument,
                     .result = result,
                     .data = dlua_data(x),
                     .given = given,
                     .wanted = dlua_plan_wants(plan, argument)};
}

static dlua_status run_plan(const dlua_plan *plan, const dlua_conv *c, direction direction) {
  static const int arguments[3][3] = {
      [FORWARD] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
      [INPUT_GRAD] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
      [WEIGHT_GRAD] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
  };
  const int *arg = arguments[direction];
  dlua_part parts[4] = {
      part_of(plan, arg[0], direction == INPUT_GRAD, c->x, lying(c->x)),
      part_of(plan, arg[1], direction == WEIGHT_GRAD, c->w, weight_desc(c->w, c->groups)),
      part_of(plan, arg[2], direction == FORWARD, c->y, lying(c->y)),
  };
  if (direction != WEIGHT_GRAD) DLUA_TRY(convert_weight(c->w, &parts[1]));
  if (direction == FORWARD && c->b)
    parts[3] =
        part_of(plan, DNNL_ARG_BIAS, false, c->b, by_tag(1, c->b->size, dnnl_a, type_of(c->b)));
  return dlua_plan_run(plan, direction == FORWARD && c->b ? 4 : 3, parts);
}

static bool winograd_fits(const conv_key *k) {
  return k->type == dnnl_f32 && k->kh == 3 && k->kw == 3 && k->groups == 1 && k->stride[0] == 1 &&
         k->stride[1] == 1 && k->dilation[0] == 1 && k->dilation[1] == 1 && k->c >= 16 &&
         k->o >= 16;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// The best of three runs of an algorithm, or infinity where there is no such kernel.
static double timed(conv_key *k, dnnl_alg_kind_t algorithm, const dlua_conv *c) {
  double best = 1e30;
  dlua_plan *plan;
  k->algorithm = (int32_t)algorithm;
  if (dlua_plan_find(k, sizeof *k, make_conv, &plan) != DLUA_OK) return best;
  for (int run = 0; run < 3; run++) {
    double from = seconds();
    if (run_plan(plan, c, (direction)k->direction) != DLUA_OK) break;
    double took = seconds() - from;
    if (took < best) best = took;
  }
  dlua_plan_release(plan);
  return best;
}

// Algorithms chosen by timing, by key; the oldest choice gives way.
static struct {
  pthread_mutex_t lock;
  int next;
  struct {
    conv_key key;
    int32_t algorithm;
  } choice[256];
} tuned = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum { CHOICES = sizeof tuned.choice / sizeof *tuned.choice };

static int32_t tune(conv_key *k, const dlua_conv *c) {
  int32_t found = 0;
  k->algorithm = 0;
  conv_key key = *k;
  pthread_mutex_lock(&tuned.lock);
  for (int i = 0; i < CHOICES && !found; i++)
    if (memcmp(&tuned.choice[i].key, &key, sizeof key) == 0) found = tuned.choice[i].algorithm;
  pthread_mutex_unlock(&tuned.lock);
  if (found) return found;
  double direct = timed(k, dnnl_convolution_direct, c);
  found = timed(k, dnnl_convolution_winograd, c) < direct ? dnnl_convolution_winograd
                                                          : dnnl_convolution_direct;
  pthread_mutex_lock(&tuned.lock);
  tuned.choice[tuned.next].key = key, tuned.choice[tuned.next].algorithm = found;
  tuned.next = (tuned.next + 1) % CHOICES;
  pthread_mutex_unlock(&tuned.lock);
  return found;
}

static dlua_status run_key(conv_key *k, const dlua_conv *c) {
  dlua_plan *plan = NULL;
  bool fits = dlua_winograd() && winograd_fits(k);
  k->algorithm = fits && dlua_autotune() ? tune(k, c)
                 : fits                  ? dnnl_convolution_winograd
                                         : dnnl_convolution_direct;
  dlua_status status = dlua_plan_find(k, sizeof *k, make_conv, &plan);
  if (status == DLUA_DECLINED && k->algorithm == dnnl_convolution_winograd) {
    k->algorithm = dnnl_convolution_direct;
    status = dlua_plan_find(k, sizeof *k, make_conv, &plan);
  }
  if (status == DLUA_OK) status = run_plan(plan, c, (direction)k->direction);
  dlua_plan_release(plan);
  return status;
}

static dlua_status run(const dlua_conv *c, direction direction) {
  const dlua_tensor *x = c->x, *w = c->w, *y = c->y;
  conv_key k;
  memset(&k, 0, sizeof k);
  k.direction = direction, k.bias = direction == FORWARD && c->b;
  k.type = (int32_t)type_of(x);
  k.xlayout = x->storage->layout, k.ylayout = y->storage->layout, k.groups = c->groups;
  k.n = x->size[0], k.c = x->size[1], k.h = x->size[2], k.w = x->size[3];
  k.o = w->size[0], k.kh = w->size[2], k.kw = w->size[3], k.p = y->size[2], k.q = y->size[3];
  for (int d = 0; d < 2; d++) {
    k.stride[d] = c->stride[d], k.padding[d] = c->padding[d], k.dilation[d] = c->dilation[d];
  }
  double work = 2.0 * (double)dlua_numel(y) * (double)(w->size[1] * k.kh * k.kw);
  k.threads = dlua_team_begin(work);
  dlua_status status = run_key(&k, c);
  dlua_team_end();
  return status;
}

// x where the library can read it, else a contiguous copy.
static dlua_status readable(const dlua_tensor *x, dlua_tensor **result) {
  if (x->storage->layout == DLUA_STRIDED && !channels_last(x)) return dlua_contiguous(x, result);
  return *result = dlua_tensor_retain((dlua_tensor *)x), DLUA_OK;
}

static dlua_status run_readable(dlua_conv c, direction direction) {
  dlua_tensor *x = NULL, *y = NULL;
  dlua_status status = readable(c.x, &x);
  if (status == DLUA_OK) status = readable(c.y, &y);
  if (status == DLUA_OK) c.x = x, c.y = y, status = run(&c, direction);
  dlua_tensor_release(x), dlua_tensor_release(y);
  return status;
}

dlua_status dlua_onednn_conv(const dlua_conv *c) { return run_readable(*c, FORWARD); }
dlua_status dlua_onednn_conv_input(const dlua_conv *c) { return run_readable(*c, INPUT_GRAD); }
dlua_status dlua_onednn_conv_weight(const dlua_conv *c) { return run_readable(*c, WEIGHT_GRAD); }
