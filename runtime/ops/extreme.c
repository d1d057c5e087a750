// extreme.c - max, min, argmax, argmin. Ties give the first, a nan wins (the first one), as in
// PyTorch. Positions are 1-based; over the whole tensor they count row-major.
#include <math.h>

#include <string.h>

#include "../cpu/accumulate.h"
#include "../cpu/fold.h"
#include "../parallel.h"
#include "reduce.h"
#include "reduce_fast.h"

// ---------------------------------------------------------------- folds

static void max_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || (!(x[k] <= s->f) && !isnan(s->f))) s->f = x[k], s->at = s->seen + k;
}

static void min_floats(dlua_fold *s, const double *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || (!(x[k] >= s->f) && !isnan(s->f))) s->f = x[k], s->at = s->seen + k;
}

static void max_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || x[k] > s->i) s->i = x[k], s->at = s->seen + k;
}

static void min_ints(dlua_fold *s, const int64_t *x, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (s->seen + k == 0 || x[k] < s->i) s->i = x[k], s->at = s->seen + k;
}

static void extreme_finish(dlua_fold *s, int64_t o) {
  const dlua_args *a = s->call;
  if (dlua_is_float(a->out[0]->dtype))
    dlua_put(a->out[0], o, s->f);
  else
    dlua_put_int(a->out[0], o, s->i);
  if (a->nout > 1) dlua_put_int(a->out[1], o, s->at + 1);
}

static void position_finish(dlua_fold *s, int64_t o) {
  dlua_put_int(s->call->out[0], o, s->at + 1);
}

static const dlua_folder max_folder = {
    .passes = 1, .floats = max_floats, .ints = max_ints, .finish = extreme_finish};
static const dlua_folder min_folder = {
    .passes = 1, .floats = min_floats, .ints = min_ints, .finish = extreme_finish};
static const dlua_folder argmax_folder = {
    .passes = 1, .floats = max_floats, .ints = max_ints, .finish = position_finish};
static const dlua_folder argmin_folder = {
    .passes = 1, .floats = min_floats, .ints = min_ints, .finish = position_finish};

// ---------------------------------------------------------------- shapes

static unsigned dims_of(const dlua_args *a) {
  return a->num[0].set ? 1u << a->num[0].i : (1u << a->in[0]->ndim) - 1;
}

static dlua_status shape_one(dlua_args *a, int k) {
  unsigned dims = dims_of(a);
  DLUA_TRY(dlua_refuse_empty(a, dims));
  int64_t size[DLUA_MAX_DIMS];
  int n = dlua_reduced_shape(a->in[0], dims, a->num[1].i != 0, size);
  dlua_spec_shape(a, k, n, size);
  return DLUA_OK;
}

static dlua_status extreme_shape(dlua_args *a) {
  a->nout = a->num[0].set ? 2 : 1;
  DLUA_TRY(shape_one(a, 0));
  if (a->nout == 2) {
    DLUA_TRY(shape_one(a, 1));
    a->spec[1].dtype = DLUA_I64;
  }
  return DLUA_OK;
}

static dlua_status position_shape(dlua_args *a) {
  DLUA_TRY(shape_one(a, 0));
  a->spec[0].dtype = DLUA_I64;
  return DLUA_OK;
}

// ---------------------------------------------------------------- typed loops

enum { STRIP = 256 };

// Results lie side by side as the innermost kept dimension, width of them; a task is a strip.
typedef struct search {
  dlua_reduction r;
  dlua_extreme *extreme;
  const char *x;
  char *values;       // NULL: positions only
  int64_t *positions; // NULL: values only
  int64_t size, width, step, strips;
  bool largest, long_rows;
} search;

// Long rows of f32: the extreme in vectors, then its place.
static void search_rows(const dlua_fold_kernels *simd, bool largest, void *best, int64_t *at,
                        const float *x, int64_t length, int64_t n, int64_t step) {
  for (int64_t k = 0; k < n; k++, x += step) {
    float top = largest ? simd->max(x, length) : simd->min(x, length);
    int64_t place = 0;
    while (x[place] != top && (top == top || x[place] == x[place])) place++;
    ((float *)best)[k] = x[place], at[k] = place;
  }
}

static void search_strips(void *context, int64_t from, int64_t to) {
  const search *w = context;
  const dlua_reduction *r = &w->r;
  double best[STRIP]; // as wide as any dtype
  int64_t at[STRIP];
  for (int64_t task = from; task < to; task++) {
    int64_t group = task / w->strips, column = task % w->strips * STRIP;
    int64_t n = w->width - column < STRIP ? w->width - column : STRIP;
    int64_t start = dlua_offset_at(r->nkept - 1, r->kept, r->kept_stride, group) + column * w->step;
    int64_t o = group * w->width + column, stride = r->nreduced ? r->reduced_stride[0] : 0;
    if (w->long_rows)
      search_rows(dlua_fold_simd(), w->largest, best, at, (const float *)w->x + start, r->count, n,
                  w->step);
    else
      w->extreme(best, at, w->x + start * w->size, r->count, stride, n, w->step);
    if (w->values) memcpy(w->values + o * w->size, best, (size_t)(n * w->size));
    for (int64_t k = 0; w->positions && k < n; k++) w->positions[o + k] = at[k] + 1;
  }
}

// One dimension, or all of a contiguous tensor.
static dlua_status search_fast(const dlua_args *a, bool largest, dlua_tensor *values,
                               dlua_tensor *positions) {
  const dlua_tensor *x = a->in[0];
  const dlua_accumulators *simd = dlua_accumulate_simd();
  search w = {.x = dlua_data(x), .size = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype)};
  dlua_reduction_plan(&w.r, x, dims_of(a));
  w.extreme = (largest ? simd->largest : simd->smallest)[x->dtype];
  if (!w.extreme || w.r.outputs == 0 || w.r.nreduced > 1) return DLUA_DECLINED;
  w.values = values ? dlua_data(values) : NULL;
  w.positions = positions ? dlua_i64(positions) : NULL;
  w.width = w.r.nkept > 0 ? w.r.kept[w.r.nkept - 1] : 1;
  w.step = w.r.nkept > 0 ? w.r.kept_stride[w.r.nkept - 1] : 0;
  w.strips = (w.width + STRIP - 1) / STRIP;
  w.largest = largest;
  w.long_rows =
      x->dtype == DLUA_F32 && w.r.nreduced == 1 && w.r.reduced_stride[0] == 1 && w.r.count >= 32;
  int64_t tasks = w.r.outputs / w.width * w.strips;
  dlua_parallel(tasks, 2.0 * (double)dlua_numel(x) / (double)tasks, search_strips, &w);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradients

// Over everything: the gradient is shared by all elements that reach the extreme (or are nan as it
// is).
static void give_shared(dlua_back *b, dlua_tensor *x, dlua_tensor *y) {
  dlua_scope *s = b->s;
  dlua_tensor *nan_x = dlua_call(s, &dlua_op_isnan, dlua_t(x));
  dlua_tensor *nan_y = dlua_call(s, &dlua_op_isnan, dlua_t(y));
  dlua_tensor *nans = dlua_call(s, &dlua_op_logical_and, dlua_t(nan_x), dlua_t(nan_y));
  dlua_tensor *top = dlua_call(s, &dlua_op_eq, dlua_t(x), dlua_t(y));
  top = dlua_call(s, &dlua_op_logical_or, dlua_t(top), dlua_t(nans));
  dlua_tensor *share = dlua_div(s, b->g[0], dlua_call(s, &dlua_op_sum, dlua_t(top)));
  dlua_give(b, 0, dlua_mul(s, top, share));
}

// Along a dimension: all of it goes to the element that was taken.
static void extreme_back(dlua_back *b) {
  dlua_scope *s = b->s;
  dlua_tensor *x = dlua_saved(b, "x"), *g = b->g[0];
  if (!b->num[0].set) {
    give_shared(b, x, dlua_saved(b, "values"));
    return;
  }
  dlua_tensor *at = dlua_saved(b, "indices");
  if (x != NULL && x->ndim > 0 && b->num[1].i == 0) {
    g = dlua_call(s, &dlua_op_unsqueeze, dlua_t(g), dlua_i(b->num[0].i));
    at = dlua_call(s, &dlua_op_unsqueeze, dlua_t(at), dlua_i(b->num[0].i));
  }
  if (x == NULL || at == NULL || g == NULL) return;
  if (x->ndim == 0)
    dlua_give(b, 0, g);
  else
    dlua_give(b, 0,
              dlua_call(s, &dlua_op_scatter, dlua_t(dlua_zeros_like(s, x)), dlua_t(at), dlua_t(g),
                        dlua_i(b->num[0].i)));
}

// ---------------------------------------------------------------- ops

static dlua_status max_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &max_folder, dims_of(a));
}

static dlua_status max_vector(const dlua_args *a) { return dlua_extreme_fast(a, dims_of(a), true); }

static dlua_status max_search(const dlua_args *a) {
  return search_fast(a, true, a->out[0], a->nout > 1 ? a->out[1] : NULL);
}

static dlua_status max_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &max_folder, dims_of(a));
}

static dlua_status min_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &min_folder, dims_of(a));
}

static dlua_status min_vector(const dlua_args *a) {
  return dlua_extreme_fast(a, dims_of(a), false);
}

static dlua_status min_search(const dlua_args *a) {
  return search_fast(a, false, a->out[0], a->nout > 1 ? a->out[1] : NULL);
}

static dlua_status min_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &min_folder, dims_of(a));
}

static dlua_status argmax_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &argmax_folder, dims_of(a));
}

static dlua_status argmax_search(const dlua_args *a) {
  return search_fast(a, true, NULL, a->out[0]);
}

static dlua_status argmax_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &argmax_folder, dims_of(a));
}

static dlua_status argmin_cpu(const dlua_args *a) {
  return dlua_fold_plain(a, &argmin_folder, dims_of(a));
}

static dlua_status argmin_search(const dlua_args *a) {
  return search_fast(a, false, NULL, a->out[0]);
}

static dlua_status argmin_team(const dlua_args *a) {
  return dlua_fold_parallel(a, &argmin_folder, dims_of(a));
}

const dlua_op dlua_op_max = {
    .name = "max",
    .sig = "x:T, dim:d?, keepdim:b=false -> values, indices",
    .doc =
        "The largest element of x; with a dimension the largest along it and their positions (the "
        "first of equals).",
    .dtype = DLUA_KEEP,
    .shape = extreme_shape,
    .cpu = max_cpu,
    .fast = (dlua_kernel *const[]){max_vector, max_search, max_team, NULL},
    .back = extreme_back,
    .save = "x values indices",
};

const dlua_op dlua_op_min = {
    .name = "min",
    .sig = "x:T, dim:d?, keepdim:b=false -> values, indices",
    .doc = "The smallest element of x; with a dimension the smallest along it and their positions "
           "(the first of equals).",
    .dtype = DLUA_KEEP,
    .shape = extreme_shape,
    .cpu = min_cpu,
    .fast = (dlua_kernel *const[]){min_vector, min_search, min_team, NULL},
    .back = extreme_back,
    .save = "x values indices",
};

const dlua_op dlua_op_argmax = {
    .name = "argmax",
    .sig = "x:T, dim:d?, keepdim:b=false -> indices",
    .doc = "Position of the largest element, the first of equals: along a dimension, or in the "
           "flattened tensor.",
    .dtype = DLUA_KEEP,
    .shape = position_shape,
    .cpu = argmax_cpu,
    .fast = (dlua_kernel *const[]){argmax_search, argmax_team, NULL},
};

const dlua_op dlua_op_argmin = {
    .name = "argmin",
    .sig = "x:T, dim:d?, keepdim:b=false -> indices",
    .doc = "Position of the smallest element, the first of equals: along a dimension, or in the "
           "flattened tensor.",
    .dtype = DLUA_KEEP,
    .shape = position_shape,
    .cpu = argmin_cpu,
    .fast = (dlua_kernel *const[]){argmin_search, argmin_team, NULL},
};
