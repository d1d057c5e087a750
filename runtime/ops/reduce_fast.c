// reduce_fast.c - f32 sums, means and extremes along contiguous memory.
//
// What is contiguous may be reduced (rows: a whole tensor, the last dimension, {n,c,h,w} to {c}) or
// kept (columns: {n,c} to {c}). Either way the work is cut into pieces of about 2^14 elements by the
// shape alone; each piece's sums go to a table in double, and the table is added up in order. So the
// result does not depend on the number of threads, and a single long sum still uses all of them.
#include "reduce_fast.h"

#include "../fold.h"
#include "../isa.h"
#include "../parallel.h"
#include "reduce.h"

enum { PIECE = 1 << 14, COLUMNS = 1 << 10 };

extern const dlua_fold_kernels dlua_fold_base, dlua_fold_avx2, dlua_fold_avx512;

const dlua_fold_kernels *dlua_fold_simd(void) {
#ifdef __x86_64__
  if (dlua_isa() == DLUA_AVX512) return &dlua_fold_avx512;
  if (dlua_isa() == DLUA_AVX2) return &dlua_fold_avx2;
#endif
  return &dlua_fold_base;
}

// ---------------------------------------------------------------- rows

// The reduced part of one result is runs × length contiguous elements. A piece is several whole runs
// or, where runs are long, a part of one.
typedef struct rows {
  dlua_reduction r;
  const float *x;
  float *out;
  double scale;
  int64_t runs, length, runs_per_piece, parts_per_run, pieces; // pieces: per result
  double *table; // NULL where a result is one piece
} rows;

static double sum_piece(const rows *w, int64_t start, int64_t piece) {
  const dlua_reduction *r = &w->r;
  const dlua_fold_kernels *simd = dlua_fold_simd();
  int last = r->nreduced - 1;
  if (w->parts_per_run > 1) {
    int64_t run = piece / w->parts_per_run, from = piece % w->parts_per_run * PIECE;
    int64_t n = w->length - from < PIECE ? w->length - from : PIECE;
    return simd->sum(
        w->x + start + from + dlua_offset_at(last, r->reduced, r->reduced_stride, run), n);
  }
  double sum = 0;
  int64_t from = piece * w->runs_per_piece, to = from + w->runs_per_piece;
  for (int64_t run = from; run < to && run < w->runs; run++)
    sum += simd->sum(w->x + start + dlua_offset_at(last, r->reduced, r->reduced_stride, run),
                     w->length);
  return sum;
}

static void sum_pieces(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  const dlua_reduction *r = &w->r;
  for (int64_t k = from; k < to; k++) {
    int64_t start = dlua_offset_at(r->nkept, r->kept, r->kept_stride, k / w->pieces);
    double sum = sum_piece(w, start, k % w->pieces);
    if (w->table) w->table[k] = sum;
    else w->out[k] = (float)(sum * w->scale);
  }
}

static dlua_status sum_rows(rows *w) {
  dlua_reduction *r = &w->r;
  w->length = r->reduced[r->nreduced - 1], w->runs = r->count / w->length;
  w->parts_per_run = (w->length + PIECE - 1) / PIECE;
  w->runs_per_piece = w->length < PIECE ? PIECE / w->length : 1;
  w->pieces = w->parts_per_run > 1 ? w->runs * w->parts_per_run
                                   : (w->runs + w->runs_per_piece - 1) / w->runs_per_piece;
  int64_t all = r->outputs * w->pieces;
  size_t bytes = (size_t)all * sizeof *w->table;
  void *table = NULL;
  if (w->pieces > 1) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, &table));
  w->table = table;
  dlua_parallel(all, (double)r->count / (double)w->pieces / 4 + 8, sum_pieces, w);
  if (w->table == NULL) return DLUA_OK;
  for (int64_t o = 0; o < r->outputs; o++) {
    double sum = 0;
    for (int64_t k = 0; k < w->pieces; k++) sum += w->table[o * w->pieces + k];
    w->out[o] = (float)(sum * w->scale);
  }
  dlua_free(dlua_cpu(), table, bytes);
  return DLUA_OK;
}

// ---------------------------------------------------------------- columns

// Results lie side by side as the innermost kept dimension, width of them; a task is a strip of up
// to COLUMNS of these times a fixed number of the reduced entries.
typedef struct columns {
  dlua_reduction r;
  const float *x;
  float *out;
  double scale;
  int64_t width, strips, depth, rows_per_piece, pieces; // depth: length of the innermost reduced dim
  double *table;                                        // pieces × outputs
} columns;

static void add_piece(const columns *w, int64_t start, int64_t piece, double *sums, int64_t n) {
  const dlua_reduction *r = &w->r;
  int last = r->nreduced - 1;
  int64_t row = piece * w->rows_per_piece, end = row + w->rows_per_piece;
  if (end > r->count) end = r->count;
  while (row < end) {
    int64_t inside = row % w->depth, some = w->depth - inside;
    if (some > end - row) some = end - row;
    const float *x = w->x + start + inside * r->reduced_stride[last] +
                     dlua_offset_at(last, r->reduced, r->reduced_stride, row / w->depth);
    dlua_fold_simd()->add_rows(sums, x, some, r->reduced_stride[last], n);
    row += some;
  }
}

static void add_strips(void *context, int64_t from, int64_t to) {
  const columns *w = context;
  const dlua_reduction *r = &w->r;
  int last = r->nkept - 1;
  for (int64_t k = from; k < to; k++) {
    int64_t strip = k % w->strips, piece = k / w->strips % w->pieces, group = k / w->strips / w->pieces;
    int64_t column = strip * COLUMNS, n = w->width - column < COLUMNS ? w->width - column : COLUMNS;
    double sums[COLUMNS];
    for (int64_t j = 0; j < n; j++) sums[j] = 0;
    int64_t start = dlua_offset_at(last, r->kept, r->kept_stride, group) + column;
    add_piece(w, start, piece, sums, n);
    int64_t o = group * w->width + column;
    for (int64_t j = 0; j < n; j++) {
      if (w->table) w->table[piece * r->outputs + o + j] = sums[j];
      else w->out[o + j] = (float)(sums[j] * w->scale);
    }
  }
}

static dlua_status sum_columns(columns *w) {
  dlua_reduction *r = &w->r;
  w->width = r->kept[r->nkept - 1], w->strips = (w->width + COLUMNS - 1) / COLUMNS;
  w->depth = r->reduced[r->nreduced - 1];
  int64_t strip = w->width < COLUMNS ? w->width : COLUMNS;
  w->rows_per_piece = 2 * PIECE / (strip > 16 ? strip : 16);
  w->pieces = (r->count + w->rows_per_piece - 1) / w->rows_per_piece;
  size_t bytes = (size_t)(w->pieces * r->outputs) * sizeof *w->table;
  void *table = NULL;
  if (w->pieces > 1) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, &table));
  w->table = table;
  dlua_parallel(r->outputs / w->width * w->pieces * w->strips, PIECE / 2, add_strips, w);
  if (w->table == NULL) return DLUA_OK;
  for (int64_t o = 0; o < r->outputs; o++) {
    double sum = 0;
    for (int64_t k = 0; k < w->pieces; k++) sum += w->table[k * r->outputs + o];
    w->out[o] = (float)(sum * w->scale);
  }
  dlua_free(dlua_cpu(), table, bytes);
  return DLUA_OK;
}

// ---------------------------------------------------------------- entry points

dlua_status dlua_sum_fast(const dlua_args *a, unsigned dims, bool mean) {
  const dlua_tensor *x = a->in[0];
  if (x->dtype != DLUA_F32) return DLUA_DECLINED;
  dlua_reduction r;
  dlua_reduction_plan(&r, x, dims);
  dlua_reduction_sort(&r);
  if (r.outputs == 0 || r.nreduced == 0 || r.count == 0) return DLUA_DECLINED;
  double scale = mean ? 1 / (double)r.count : 1;
  if (r.reduced_stride[r.nreduced - 1] == 1) {
    rows w = {.r = r, .x = dlua_f32(x), .out = dlua_f32(a->out[0]), .scale = scale};
    return sum_rows(&w);
  }
  if (r.nkept == 0 || r.kept_stride[r.nkept - 1] != 1) return DLUA_DECLINED;
  columns w = {.r = r, .x = dlua_f32(x), .out = dlua_f32(a->out[0]), .scale = scale};
  return sum_columns(&w);
}

typedef struct extremes {
  const float *x;
  float *out;
  int64_t length;
  float (*extreme)(const float *x, int64_t n);
} extremes;

static void find_extremes(void *context, int64_t from, int64_t to) {
  const extremes *w = context;
  for (int64_t k = from; k < to; k++) w->out[k] = w->extreme(w->x + k * w->length, w->length);
}

dlua_status dlua_extreme_fast(const dlua_args *a, unsigned dims, bool largest) {
  const dlua_tensor *x = a->in[0];
  if (a->nout != 1 || x->dtype != DLUA_F32 || !dlua_is_contiguous(x)) return DLUA_DECLINED;
  dlua_reduction r;
  dlua_reduction_plan(&r, x, dims);
  if (r.nreduced != 1 || r.nkept != 0 || r.reduced_stride[0] != 1) return DLUA_DECLINED;
  const dlua_fold_kernels *simd = dlua_fold_simd();
  extremes w = {.x = dlua_f32(x), .out = dlua_f32(a->out[0]), .length = r.count};
  w.extreme = largest ? simd->max : simd->min;
  find_extremes(&w, 0, 1);
  return DLUA_OK;
}
