// reduction.c - what all reductions share: the split of a tensor into kept and reduced dimensions,
// the walk over it, and the way back for gradients.
//
// Every reduction is a fold over pieces of up to 256 elements converted to double or int64_t: one
// loop per dtype here instead of one per op and dtype. That is exact for every dtype and quick
// enough for all but the sums, maxima and softmaxes of training, which have kernels of their own.
// It refuses to split one result over threads: only sums do that, in fixed slices.
#include <string.h>

#include "../half.h"
#include "../parallel.h"
#include "reduce.h"

enum { PIECE = 256, SLICE = 1 << 14 };

// ---------------------------------------------------------------- dimensions

int dlua_reduced_shape(const dlua_tensor *x, unsigned dims, bool keepdim, int64_t *size) {
  int n = 0;
  for (int k = 0; k < x->ndim; k++) {
    if (!(dims >> k & 1))
      size[n++] = x->size[k];
    else if (keepdim)
      size[n++] = 1;
  }
  return n;
}

dlua_status dlua_shape_reduce(dlua_args *a) {
  unsigned dims = dlua_reduced_dims(a->in[0], &a->num[0]);
  int64_t size[DLUA_MAX_DIMS];
  int n = dlua_reduced_shape(a->in[0], dims, a->num[1].i != 0, size);
  dlua_spec_shape(a, 0, n, size);
  return DLUA_OK;
}

dlua_status dlua_refuse_empty(const dlua_args *a, unsigned dims) {
  const dlua_tensor *x = a->in[0];
  for (int k = 0; k < x->ndim; k++)
    if ((dims >> k & 1) && x->size[k] == 0) return dlua_shape_error(a, "nothing to reduce");
  return DLUA_OK;
}

// ---------------------------------------------------------------- folding

// Converts n elements of x, stride apart, from offset on.
static void load_floats(const dlua_tensor *x, int64_t offset, int64_t stride, int64_t n,
                        double *piece) {
  if (x->dtype == DLUA_F32) {
    const float *data = dlua_f32(x) + offset;
    for (int64_t k = 0; k < n; k++) piece[k] = data[k * stride];
  } else {
    const double *data = dlua_f64(x) + offset;
    for (int64_t k = 0; k < n; k++) piece[k] = data[k * stride];
  }
}

static void load_ints(const dlua_tensor *x, int64_t offset, int64_t stride, int64_t n,
                      int64_t *piece) {
  if (x->dtype == DLUA_I64) {
    const int64_t *data = dlua_i64(x) + offset;
    for (int64_t k = 0; k < n; k++) piece[k] = data[k * stride];
  } else if (x->dtype == DLUA_I32) {
    const int32_t *data = (const int32_t *)dlua_data(x) + offset;
    for (int64_t k = 0; k < n; k++) piece[k] = data[k * stride];
  } else {
    const uint8_t *data = (const uint8_t *)dlua_data(x) + offset;
    for (int64_t k = 0; k < n; k++) piece[k] = data[k * stride];
  }
}

typedef struct walk {
  const dlua_args *call;
  const dlua_folder *folder;
  dlua_reduction r;
} walk;

// One run of equally spaced elements, piece by piece.
static void fold_run(const walk *w, dlua_fold *s, int64_t offset, int64_t stride, int64_t n) {
  const dlua_tensor *x = w->call->in[0];
  union {
    double floats[PIECE];
    int64_t ints[PIECE];
  } piece;
  for (int64_t k = 0; k < n; k += PIECE) {
    int64_t count = n - k < PIECE ? n - k : PIECE;
    if (dlua_is_float(x->dtype)) {
      load_floats(x, offset + k * stride, stride, count, piece.floats);
      w->folder->floats(s, piece.floats, count);
    } else {
      load_ints(x, offset + k * stride, stride, count, piece.ints);
      w->folder->ints(s, piece.ints, count);
    }
    s->seen += count;
  }
}

static void fold_results(void *context, int64_t from, int64_t to) {
  const walk *w = context;
  const dlua_reduction *r = &w->r;
  int last = r->nreduced - 1;
  int64_t length = last >= 0 ? r->reduced[last] : 1,
          stride = last >= 0 ? r->reduced_stride[last] : 1;
  int64_t runs = r->count == 0 ? 0 : r->count / length;
  for (int64_t o = from; o < to; o++) {
    int64_t start = dlua_offset_at(r->nkept, r->kept, r->kept_stride, o);
    dlua_fold s = w->folder->first;
    s.call = w->call, s.count = r->count;
    for (s.pass = 0; s.pass < w->folder->passes; s.pass++) {
      s.seen = 0;
      for (int64_t k = 0; k < runs; k++)
        fold_run(w, &s, start + dlua_offset_at(last, r->reduced, r->reduced_stride, k), stride,
                 length);
    }
    w->folder->finish(&s, o);
  }
}

dlua_status dlua_fold_plain(const dlua_args *a, const dlua_folder *f, unsigned dims) {
  walk w = {.call = a, .folder = f};
  dlua_reduction_plan(&w.r, a->in[0], dims);
  fold_results(&w, 0, w.r.outputs);
  return DLUA_OK;
}

dlua_status dlua_fold_parallel(const dlua_args *a, const dlua_folder *f, unsigned dims) {
  walk w = {.call = a, .folder = f};
  dlua_reduction_plan(&w.r, a->in[0], dims);
  dlua_parallel(w.r.outputs, 4.0 * (double)w.r.count * f->passes, fold_results, &w);
  return DLUA_OK;
}

void dlua_put(const dlua_tensor *out, int64_t o, double value) {
  if (out->dtype == DLUA_F32)
    dlua_f32(out)[o] = (float)value;
  else if (out->dtype == DLUA_BF16)
    ((uint16_t *)dlua_data(out))[o] = dlua_f32_to_bf16((float)value);
  else
    dlua_f64(out)[o] = value;
}

void dlua_put_int(const dlua_tensor *out, int64_t o, int64_t value) {
  if (out->dtype == DLUA_I64)
    dlua_i64(out)[o] = value;
  else if (out->dtype == DLUA_I32)
    ((int32_t *)dlua_data(out))[o] = (int32_t)value;
  else
    ((uint8_t *)dlua_data(out))[o] = (uint8_t)value;
}

// ---------------------------------------------------------------- sums in slices

typedef struct slices {
  int64_t n;
  double (*part)(void *context, int64_t from, int64_t to);
  void *context;
  double *sums;
} slices;

static void sum_some(void *context, int64_t from, int64_t to) {
  slices *s = context;
  for (int64_t k = from; k < to; k++) {
    int64_t end = (k + 1) * SLICE;
    s->sums[k] = s->part(s->context, k * SLICE, end < s->n ? end : s->n);
  }
}

dlua_status dlua_sum_slices(int64_t n, double cost,
                            double (*part)(void *context, int64_t from, int64_t to), void *context,
                            double *sum) {
  int64_t count = (n + SLICE - 1) / SLICE;
  double few[64];
  slices s = {.n = n, .part = part, .context = context, .sums = few};
  void *many = NULL;
  size_t bytes = (size_t)count * sizeof *s.sums;
  if (bytes > sizeof few) {
    DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, &many));
    s.sums = many;
  }
  dlua_parallel(count, cost * SLICE, sum_some, &s);
  *sum = 0;
  for (int64_t k = 0; k < count; k++) *sum += s.sums[k];
  if (many != NULL) dlua_free(dlua_cpu(), many, bytes);
  return DLUA_OK;
}

// ---------------------------------------------------------------- gradients

// The recorded input's shape and its reduced dimensions.
static unsigned recorded_dims(const dlua_back *b, int *ndim, int64_t *size) {
  dlua_input_shape(b, 0, ndim, size);
  dlua_tensor x = {.ndim = (uint8_t)*ndim};
  return dlua_reduced_dims(&x, &b->num[0]);
}

dlua_tensor *dlua_unreduce(dlua_back *b, dlua_tensor *g) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  unsigned dims = recorded_dims(b, &ndim, size);
  if (g == NULL || g->ndim == ndim) return g;
  for (int k = 0; k < ndim; k++)
    if (dims >> k & 1) size[k] = 1;
  return dlua_call(b->s, &dlua_op_reshape, dlua_t(g), dlua_list(ndim, size));
}

dlua_tensor *dlua_spread(dlua_back *b, dlua_tensor *g) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, 0, &ndim, size);
  return dlua_call(b->s, &dlua_op_expand, dlua_t(dlua_unreduce(b, g)), dlua_list(ndim, size));
}

int64_t dlua_reduced_count(const dlua_back *b) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS], count = 1;
  unsigned dims = recorded_dims(b, &ndim, size);
  for (int k = 0; k < ndim; k++)
    if (dims >> k & 1) count *= size[k];
  return count;
}
