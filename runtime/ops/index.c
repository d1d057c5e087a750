// index.c - reading and writing at positions that a tensor of indices names. The whole index is
// checked before the first element is written, so a bad one changes nothing. Where several entries
// name one place, they act in row-major order of the index: sums are the same whatever the threads,
// and of several writers the last one wins, which gather_last knows when it is asked for gradients.
#include <string.h>

#include "../cpu/accumulate.h"
#include "../parallel.h"
#include "shape.h"
#include "walk.h"

static dlua_status check_index(const dlua_args *a, const dlua_tensor *index, int64_t extent) {
  dlua_walk w;
  int64_t at;
  if (dlua_is_contiguous(index) &&
      dlua_accumulate_simd()->inside(dlua_i64(index), dlua_numel(index), extent))
    return DLUA_OK;
  dlua_walk_begin(&w, index->ndim, index->size);
  dlua_walk_add(&w, index);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w))
    DLUA_TRY(dlua_index(a, *(const int64_t *)w.p[0], k, extent, &at));
  return DLUA_OK;
}

static int64_t width_of(const dlua_tensor *x) {
  return (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
}

static int64_t stride_of(const dlua_tensor *x, int64_t dim) {
  return x->ndim ? x->stride[dim] * width_of(x) : 0;
}

static void put(char *to, const char *from, int64_t width) {
  switch (width) {
  case 1: memcpy(to, from, 1); break;
  case 2: memcpy(to, from, 2); break;
  case 4: memcpy(to, from, 4); break;
  default: memcpy(to, from, 8); break;
  }
}

static void add(char *to, const char *from, uint8_t dtype) {
  switch (dtype) {
  case DLUA_F32: *(float *)to += *(const float *)from; break;
  case DLUA_F64: *(double *)to += *(const double *)from; break;
  case DLUA_I64: *(uint64_t *)to += *(const uint64_t *)from; break; // wraps around, as in `+`
  case DLUA_I32: *(uint32_t *)to += *(const uint32_t *)from; break;
  case DLUA_U8: *(uint8_t *)to += *(const uint8_t *)from; break;
  default: *(uint8_t *)to |= *(const uint8_t *)from; break; // bool
  }
}

// ---------------------------------------------------------------- whole slices: index_select, …

static dlua_status check_vector(dlua_args *a) {
  if (a->in[1]->ndim > 1) return dlua_shape_error(a, "index must have 1 dimension");
  return DLUA_OK;
}

static dlua_status index_select_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t size[DLUA_MAX_DIMS];
  DLUA_TRY(check_vector(a));
  memcpy(size, x->size, sizeof size);
  if (x->ndim)
    size[a->num[0].i] = dlua_numel(a->in[1]);
  else if (dlua_numel(a->in[1]) != 1)
    return dlua_shape_error(a, "a 0-d x takes one index");
  dlua_spec_shape(a, 0, x->ndim, size);
  return DLUA_OK;
}

// x at one position of dim, the dimension kept with size 1.
static dlua_tensor slab(const dlua_tensor *x, int64_t dim, int64_t at) {
  dlua_tensor part = *x;
  if (x->ndim) part.offset += at * x->stride[dim], part.size[dim] = 1;
  return part;
}

static int64_t entry(const dlua_tensor *index, int64_t k) {
  return dlua_i64(index)[index->ndim ? k * index->stride[0] : 0] - 1;
}

static dlua_status index_select_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *index = a->in[1];
  int64_t dim = a->num[0].i;
  DLUA_TRY(check_index(a, index, dlua_extent(x, dim)));
  for (int64_t k = 0; k < dlua_numel(index); k++) {
    dlua_tensor from = slab(x, dim, entry(index, k)), to = slab(a->out[0], dim, k);
    dlua_move(&to, &from);
  }
  return DLUA_OK;
}

// A contiguous x of any dtype as {outer, extent, inner}: one memcpy per position.
typedef struct rows {
  const char *x;
  char *y;
  const dlua_tensor *index;
  int64_t extent, count, bytes; // bytes of one position
} rows;

#define PICK_ROW(type) \
  for (; k < end; k++) ((type *)y)[k] = ((const type *)x)[index[k * step] - 1]

// Single elements of one row.
static void pick_row(const rows *r, char *y, const char *x, int64_t k, int64_t end) {
  const int64_t *index = dlua_i64(r->index);
  int64_t step = r->index->ndim ? r->index->stride[0] : 0;
  switch (r->bytes) {
  case 1: PICK_ROW(uint8_t); break;
  case 2: PICK_ROW(uint16_t); break;
  case 4: PICK_ROW(uint32_t); break;
  default: PICK_ROW(uint64_t); break;
  }
}

static void copy_rows(void *context, int64_t from, int64_t to) {
  const rows *r = context;
  while (from < to) {
    int64_t outer = from / r->count, k = from % r->count, end = k + (to - from);
    const char *x = r->x + outer * r->extent * r->bytes;
    char *y = r->y + outer * r->count * r->bytes;
    if (end > r->count) end = r->count;
    from += end - k;
    if (r->bytes <= 8) {
      pick_row(r, y, x, k, end);
      continue;
    }
    for (; k < end; k++)
      memcpy(y + k * r->bytes, x + entry(r->index, k) * r->bytes, (size_t)r->bytes);
  }
}

static dlua_status index_select_rows(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *index = a->in[1];
  int64_t dim = a->num[0].i, n = dlua_numel(index), inner = width_of(x);
  if (x->ndim == 0 || !dlua_is_contiguous(x)) return DLUA_DECLINED;
  for (int64_t d = dim + 1; d < x->ndim; d++) inner *= x->size[d];
  if (inner <= 8 && inner != width_of(x)) return DLUA_DECLINED;
  DLUA_TRY(check_index(a, index, x->size[dim]));
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  rows r = {dlua_data(x), dlua_data(a->out[0]), index, x->size[dim], n, inner};
  int64_t total = dlua_numel(a->out[0]) * width_of(x) / inner;
  dlua_parallel(total, 4 + (double)inner / 4, copy_rows, &r);
  return DLUA_OK;
}

static void index_select_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_index_add, dlua_t(dlua_zeros_for(b, 0)),
                      dlua_t(dlua_saved(b, "index")), dlua_t(b->g[0]), dlua_v(&b->num[0])));
}

const dlua_op dlua_op_index_select = {
    .name = "index_select",
    .sig = "x:T, dim:d, index:I -> y",
    .doc = "The positions of dimension dim that index lists, in its order.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = index_select_shape,
    .cpu = index_select_cpu,
    .fast = (dlua_kernel *const[]){index_select_rows, NULL},
    .back = index_select_back,
    .save = "index",
};

static dlua_status slabs_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0], *source = a->in[2];
  int64_t dim = a->num[0].i;
  DLUA_TRY(check_vector(a));
  bool fits = source->ndim == x->ndim && dlua_extent(source, dim) == dlua_numel(a->in[1]);
  for (int d = 0; fits && d < x->ndim; d++) fits = d == dim || source->size[d] == x->size[d];
  if (!fits) {
    return dlua_shape_error(
        a, "source must be like x, but with one position per index in dimension %lld",
        (long long)dim + 1);
  }
  return dlua_shape_same(a);
}

static void add_slab(const dlua_tensor *to, const dlua_tensor *from) {
  dlua_walk w;
  dlua_walk_begin(&w, to->ndim, to->size);
  dlua_walk_add(&w, to), dlua_walk_add(&w, from);
  for (int64_t k = 0; k < w.count; k++, dlua_walk_next(&w)) add(w.p[0], w.p[1], to->dtype);
}

static dlua_status write_slabs(const dlua_args *a,
                               void (*write)(const dlua_tensor *, const dlua_tensor *)) {
  const dlua_tensor *index = a->in[1];
  dlua_tensor *y = a->out[0], *source = NULL;
  int64_t dim = a->num[0].i;
  DLUA_TRY(check_index(a, index, dlua_extent(y, dim)));
  DLUA_TRY(dlua_source_of(a, 2, &source));
  dlua_start_from(a);
  for (int64_t k = 0; k < dlua_numel(index); k++) {
    dlua_tensor to = slab(y, dim, entry(index, k)), from = slab(source, dim, k);
    write(&to, &from);
  }
  dlua_tensor_release(source);
  return DLUA_OK;
}

static dlua_status index_add_cpu(const dlua_args *a) { return write_slabs(a, add_slab); }
static dlua_status index_copy_cpu(const dlua_args *a) { return write_slabs(a, dlua_move); }

// f32 rows: each thread has its columns and goes through all rows of the index in order.
typedef struct adding {
  float *y;
  const float *source;
  const dlua_tensor *index;
  int64_t width;
} adding;

static void add_columns(void *context, int64_t from, int64_t to) {
  const adding *r = context;
  for (int64_t k = 0; k < dlua_numel(r->index); k++) {
    float *y = r->y + entry(r->index, k) * r->width;
    const float *source = r->source + k * r->width;
    for (int64_t c = from; c < to; c++) y[c] += source[c];
  }
}

static dlua_status index_add_rows(const dlua_args *a) {
  const dlua_tensor *y = a->out[0], *index = a->in[1], *source = a->in[2];
  if (y->ndim == 0 || y->dtype != DLUA_F32 || a->num[0].i != 0) return DLUA_DECLINED;
  if (!dlua_is_contiguous(y) || !dlua_is_contiguous(source)) return DLUA_DECLINED;
  if (dlua_data(y) == dlua_data(source) || y->size[0] == 0) return DLUA_DECLINED;
  DLUA_TRY(check_index(a, index, y->size[0]));
  dlua_start_from(a);
  adding r = {dlua_f32(y), dlua_f32(source), index, dlua_numel(y) / y->size[0]};
  dlua_parallel(r.width, (double)dlua_numel(index), add_columns, &r);
  return DLUA_OK;
}

static void index_add_back(dlua_back *b) {
  if (dlua_needs(b, 0)) dlua_give(b, 0, b->g[0]);
  if (dlua_needs(b, 2)) {
    dlua_give(b, 2,
              dlua_call(b->s, &dlua_op_index_select, dlua_t(b->g[0]),
                        dlua_t(dlua_saved(b, "index")), dlua_v(&b->num[0])));
  }
}

const dlua_op dlua_op_index_add = {
    .name = "index_add",
    .sig = "x:T, dim:d, index:I, source:T -> y",
    .doc = "x with position k of source added to position index[k] of dimension dim, for every k.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE,
    .shape = slabs_shape,
    .cpu = index_add_cpu,
    .fast = (dlua_kernel *const[]){index_add_rows, NULL},
    .back = index_add_back,
    .save = "index",
};

// index as a tensor of source's shape, so that slices can be asked for one element at a time.
static dlua_tensor *spread_index(dlua_back *b) {
  dlua_tensor *index = dlua_saved(b, "index");
  int ndim, dim = (int)b->num[0].i;
  int64_t size[DLUA_MAX_DIMS], column[DLUA_MAX_DIMS];
  if (!index) return NULL;
  dlua_input_shape(b, 2, &ndim, size);
  for (int d = 0; d < ndim; d++) column[d] = d == dim ? size[d] : 1;
  index = dlua_call(b->s, &dlua_op_reshape, dlua_t(index), dlua_list(ndim, column));
  return dlua_call(b->s, &dlua_op_expand, dlua_t(index), dlua_list(ndim, size));
}

static void index_copy_back(dlua_back *b) {
  dlua_tensor *index = spread_index(b);
  if (dlua_needs(b, 0)) {
    dlua_give(b, 0,
              dlua_call(b->s, &dlua_op_scatter, dlua_t(b->g[0]), dlua_t(index),
                        dlua_t(dlua_zeros_for(b, 2)), dlua_v(&b->num[0])));
  }
  if (dlua_needs(b, 2)) {
    dlua_give(
        b, 2,
        dlua_call(b->s, &dlua_op_gather_last, dlua_t(b->g[0]), dlua_t(index), dlua_v(&b->num[0])));
  }
}

const dlua_op dlua_op_index_copy = {
    .name = "index_copy",
    .sig = "x:T, dim:d, index:I, source:T -> y",
    .doc =
        "x with position index[k] of dimension dim replaced by position k of source, for every k.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE | DLUA_HALF,
    .shape = slabs_shape,
    .cpu = index_copy_cpu,
    .back = index_copy_back,
    .save = "index",
};

// ---------------------------------------------------------------- single elements: gather, scatter

// Whether an index fits x: no larger in any dimension but the one it names positions of.
static bool index_fits(const dlua_tensor *index, const dlua_tensor *x, int64_t dim) {
  if (index->ndim != x->ndim) return false;
  for (int d = 0; d < x->ndim; d++)
    if (d != dim && index->size[d] > x->size[d]) return false;
  return true;
}

static dlua_status gather_shape(dlua_args *a) {
  const dlua_tensor *index = a->in[1];
  int64_t dim = a->num[0].i;
  if (!index_fits(index, a->in[0], dim)) {
    return dlua_shape_error(a, "index must not be larger than x in dimensions other than %lld",
                            (long long)dim + 1);
  }
  dlua_spec_shape(a, 0, index->ndim, index->size);
  return DLUA_OK;
}

static dlua_status scatter_shape(dlua_args *a) {
  const dlua_tensor *index = a->in[1], *source = a->in[2];
  int64_t dim = a->num[0].i;
  bool fits = index_fits(index, a->in[0], dim) && source->ndim == index->ndim;
  for (int d = 0; fits && d < index->ndim; d++) fits = index->size[d] <= source->size[d];
  if (!fits) {
    return dlua_shape_error(a,
                            "index must not be larger than source, nor than x in dimensions other "
                            "than %lld",
                            (long long)dim + 1);
  }
  return dlua_shape_same(a);
}

// Operand k of a walk over an index: x, whose position along dim the index names instead.
static int add_indexed(dlua_walk *w, const dlua_tensor *x, int64_t dim) {
  int k = dlua_walk_add(w, x);
  for (int d = 0; d < x->ndim; d++) w->step[k][d] = d == dim ? 0 : x->stride[d] * width_of(x);
  return k;
}

typedef struct gathering {
  dlua_walk walk; // result, index, x
  int64_t step, width;
} gathering;

// Entries side by side, as they nearly always are, have a loop without strides.
#define GATHER_ROW(type) \
  if (to_step == (int64_t)sizeof(type) && x_step == 0 && index_step == (int64_t)sizeof(int64_t)) { \
    for (int64_t k = 0; k < n; k++) \
      ((type *)to)[k] = *(const type *)(x + ((const int64_t *)index)[k] * step); \
  } else { \
    for (int64_t k = 0; k < n; k++) \
      *(type *)(to + k * to_step) = \
          *(const type *)(x + k * x_step + *(const int64_t *)(index + k * index_step) * step); \
  }

static void gather_row(const dlua_walk *w, int64_t n, int64_t step, int64_t width) {
  int last = w->ndim - 1;
  int64_t to_step = w->step[0][last], index_step = w->step[1][last], x_step = w->step[2][last];
  char *to = w->p[0];
  const char *index = w->p[1], *x = w->p[2] - step; // indices count from 1
  switch (width) {
  case 1: GATHER_ROW(uint8_t); break;
  case 2: GATHER_ROW(uint16_t); break;
  case 4: GATHER_ROW(uint32_t); break;
  default: GATHER_ROW(uint64_t); break;
  }
}

static void gather_slice(void *context, int64_t from, int64_t to) {
  const gathering *g = context;
  dlua_walk w = g->walk;
  dlua_walk_seek(&w, from);
  for (int64_t n; from < to; from += n, dlua_walk_skip(&w, n)) {
    n = dlua_walk_row(&w, to - from);
    gather_row(&w, n, g->step, g->width);
  }
}

static dlua_status start_gather(const dlua_args *a, gathering *g) {
  const dlua_tensor *x = a->in[0], *index = a->in[1];
  int64_t dim = a->num[0].i;
  DLUA_TRY(check_index(a, index, dlua_extent(x, dim)));
  dlua_walk_begin(&g->walk, index->ndim, index->size);
  dlua_walk_add(&g->walk, a->out[0]), dlua_walk_add(&g->walk, index);
  add_indexed(&g->walk, x, dim);
  g->step = stride_of(x, dim), g->width = width_of(x);
  return DLUA_OK;
}

static dlua_status gather_cpu(const dlua_args *a) {
  gathering g;
  DLUA_TRY(start_gather(a, &g));
  if (g.walk.count > 0) gather_slice(&g, 0, g.walk.count);
  return DLUA_OK;
}

static dlua_status gather_threads(const dlua_args *a) {
  gathering g;
  DLUA_TRY(start_gather(a, &g));
  dlua_parallel(g.walk.count, 4, gather_slice, &g);
  return DLUA_OK;
}

static void gather_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_scatter_add, dlua_t(dlua_zeros_for(b, 0)),
                      dlua_t(dlua_saved(b, "index")), dlua_t(b->g[0]), dlua_v(&b->num[0])));
}

const dlua_op dlua_op_gather = {
    .name = "gather",
    .sig = "x:T, dim:d, index:I -> y",
    .doc =
        "y[i][j] = x[index[i][j]][j] for dim 1, y[i][j] = x[i][index[i][j]] for dim 2, and so on.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = gather_shape,
    .cpu = gather_cpu,
    .fast = (dlua_kernel *const[]){gather_threads, NULL},
    .back = gather_back,
    .save = "index",
};

#define SCATTER_ROW(type, assign) \
  for (int64_t k = 0; k < n; k++) { \
    const type value = *(const type *)(from + k * from_step); \
    *(type *)(y + k * y_step + *(const int64_t *)(index + k * index_step) * step) assign value; \
  }

// A row of the index (operand 0): source (1) replaces elements of y (2), or is added to them.
static void scatter_row(const dlua_walk *w, int64_t n, int64_t step, dlua_dtype dtype, bool sum) {
  int last = w->ndim - 1;
  int64_t index_step = w->step[0][last], from_step = w->step[1][last], y_step = w->step[2][last];
  const char *index = w->p[0], *from = w->p[1];
  char *y = w->p[2] - step; // indices count from 1
  if (sum) {
    switch (dtype) {
    case DLUA_F32: SCATTER_ROW(float, +=) break;
    case DLUA_F64: SCATTER_ROW(double, +=) break;
    case DLUA_I64: SCATTER_ROW(uint64_t, +=) break;
    case DLUA_I32: SCATTER_ROW(uint32_t, +=) break;
    case DLUA_U8: SCATTER_ROW(uint8_t, +=) break;
    default: SCATTER_ROW(uint8_t, |=) break; // bool
    }
    return;
  }
  switch (dlua_dtype_size(dtype)) {
  case 1: SCATTER_ROW(uint8_t, =) break;
  case 2: SCATTER_ROW(uint16_t, =) break;
  case 4: SCATTER_ROW(uint32_t, =) break;
  default: SCATTER_ROW(uint64_t, =) break;
  }
}

static dlua_status write_elements(const dlua_args *a, bool sum) {
  const dlua_tensor *index = a->in[1];
  dlua_tensor *y = a->out[0], *source = NULL;
  int64_t dim = a->num[0].i;
  DLUA_TRY(check_index(a, index, dlua_extent(y, dim)));
  DLUA_TRY(dlua_source_of(a, 2, &source));
  dlua_start_from(a);
  dlua_walk w;
  dlua_walk_begin(&w, index->ndim, index->size);
  dlua_walk_add(&w, index), dlua_walk_add(&w, source), add_indexed(&w, y, dim);
  for (int64_t k = 0, n; k < w.count; k += n, dlua_walk_skip(&w, n)) {
    n = dlua_walk_row(&w, w.count - k);
    scatter_row(&w, n, stride_of(y, dim), (dlua_dtype)y->dtype, sum);
  }
  dlua_tensor_release(source);
  return DLUA_OK;
}

static dlua_status scatter_cpu(const dlua_args *a) { return write_elements(a, false); }
static dlua_status scatter_add_cpu(const dlua_args *a) { return write_elements(a, true); }

// Hands g, which has the index's shape, to source, which may be larger.
static void give_source(dlua_back *b, dlua_tensor *g) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS], start[DLUA_MAX_DIMS] = {0}, step[DLUA_MAX_DIMS];
  if (!g) return;
  dlua_input_shape(b, 2, &ndim, size);
  if (memcmp(size, g->size, sizeof *size * (size_t)ndim) != 0) {
    for (int d = 0; d < ndim; d++) step[d] = 1;
    g = dlua_call(b->s, &dlua_op_set_slice, dlua_t(dlua_zeros_for(b, 2)), dlua_t(g),
                  dlua_list(ndim, start), dlua_list(ndim, g->size), dlua_list(ndim, step),
                  dlua_list(ndim, start));
  }
  dlua_give(b, 2, g);
}

static void scatter_back(dlua_back *b) {
  dlua_tensor *index = dlua_saved(b, "index");
  if (!index) return;
  if (dlua_needs(b, 0)) {
    dlua_tensor *zeros = dlua_zeros_of(b->s, b->g[0], index->ndim, index->size);
    dlua_give(b, 0,
              dlua_call(b->s, &dlua_op_scatter, dlua_t(b->g[0]), dlua_t(index), dlua_t(zeros),
                        dlua_v(&b->num[0])));
  }
  if (dlua_needs(b, 2)) {
    give_source(b, dlua_call(b->s, &dlua_op_gather_last, dlua_t(b->g[0]), dlua_t(index),
                             dlua_v(&b->num[0])));
  }
}

const dlua_op dlua_op_scatter = {
    .name = "scatter",
    .sig = "x:T, dim:d, index:I, source:T -> y",
    .doc = "x with y[index[i][j]][j] = source[i][j] for dim 1 and so on, the counterpart of "
           "gather; of "
           "several writers the last one in row-major order wins.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE | DLUA_HALF,
    .shape = scatter_shape,
    .cpu = scatter_cpu,
    .back = scatter_back,
    .save = "index",
};

static void scatter_add_back(dlua_back *b) {
  if (dlua_needs(b, 0)) dlua_give(b, 0, b->g[0]);
  if (dlua_needs(b, 2)) {
    give_source(b, dlua_call(b->s, &dlua_op_gather, dlua_t(b->g[0]), dlua_t(dlua_saved(b, "index")),
                             dlua_v(&b->num[0])));
  }
}

const dlua_op dlua_op_scatter_add = {
    .name = "scatter_add",
    .sig = "x:T, dim:d, index:I, source:T -> y",
    .doc =
        "x with source[i][j] added to y[index[i][j]][j] for dim 1 and so on; sums are in row-major "
        "order of index.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_INPLACE,
    .shape = scatter_shape,
    .cpu = scatter_add_cpu,
    .back = scatter_add_back,
    .save = "index",
};

// Goes through the index backwards and marks every element of x it has named.
static dlua_status gather_last_cpu(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  dlua_tensor packed = *x; // x without gaps: offsets in it number the elements
  int64_t width = width_of(x), numel = 1, step = 0;
  gathering g;
  DLUA_TRY(start_gather(a, &g));
  for (int d = x->ndim - 1; d >= 0; d--) packed.stride[d] = numel, numel *= x->size[d];
  if (x->ndim) step = packed.stride[a->num[0].i];
  char *seen = dlua_new((size_t)numel + 1);
  if (!seen) return DLUA_NO_MEMORY;
  for (int64_t k = g.walk.count - 1; k >= 0; k--) {
    dlua_walk_seek(&g.walk, k);
    int64_t at = *(const int64_t *)g.walk.p[1] - 1, mark = at * step;
    for (int d = 0; d < x->ndim; d++)
      if (d != a->num[0].i) mark += g.walk.at[d] * packed.stride[d];
    if (seen[mark])
      memset(g.walk.p[0], 0, (size_t)width);
    else
      put(g.walk.p[0], g.walk.p[2] + at * g.step, width);
    seen[mark] = 1;
  }
  dlua_delete(seen, (size_t)numel + 1);
  return DLUA_OK;
}

static void gather_last_back(dlua_back *b) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_scatter, dlua_t(dlua_zeros_for(b, 0)),
                      dlua_t(dlua_saved(b, "index")), dlua_t(b->g[0]), dlua_v(&b->num[0])));
}

const dlua_op dlua_op_gather_last = {
    .name = "gather_last",
    .sig = "x:T, dim:d, index:I -> y",
    .doc =
        "As gather, but zero where a later entry of index names the same element: the gradient of "
        "what scatter writes.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF | DLUA_HIDDEN,
    .shape = gather_shape,
    .cpu = gather_last_cpu,
    .back = gather_last_back,
    .save = "index",
};
