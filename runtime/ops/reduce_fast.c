// reduce_fast.c - f32 sums, means and extremes along contiguous memory.
//
// What is contiguous may be reduced (rows: a whole tensor, the last dimension, {n,c,h,w} to {c}) or
// kept (columns: {n,c} to {c}). Either way the work is cut into pieces of about 2^14 elements by
// the shape alone; each piece's sums go to a table in double, and the table is added up in order.
// So the result does not depend on the number of threads, and a single long sum still uses all of
// them.
#include "reduce_fast.h"

#include <math.h>

#include "../cpu/fold.h"
#include "../cpu/isa.h"
#include "../parallel.h"
#include "reduce.h"

enum { PIECE = 1 << 14, COLUMNS = 1 << 10, SHORT = 32 };

extern const dlua_fold_kernels dlua_fold_base, dlua_fold_avx2, dlua_fold_avx512;

const dlua_fold_kernels *dlua_fold_simd(void) {
  static const dlua_fold_kernels *const kernels[] = DLUA_PER_ISA(dlua_fold);
  return kernels[dlua_isa()];
}

// ---------------------------------------------------------------- rows

// The reduced part of one result is runs × length contiguous elements. A piece is several whole
// runs or, where runs are long, a part of one.
typedef struct rows {
  dlua_reduction r;
  const float *x;
  bool squares;                                                // sum (x - centre)^2 instead of x
  const double *centre;                                        // one per result; NULL: 0
  int64_t runs, length, runs_per_piece, parts_per_run, pieces; // pieces: per result
  double *table;                                               // outputs × pieces
} rows;

static double sum_run(const rows *w, const float *x, int64_t n, int64_t o) {
  if (!w->squares) return dlua_fold_simd()->sum(x, n);
  return dlua_fold_simd()->sum_squares(x, n, w->centre ? (float)w->centre[o] : 0);
}

static double sum_piece(const rows *w, int64_t o, int64_t piece) {
  const dlua_reduction *r = &w->r;
  const float *x = w->x + dlua_offset_at(r->nkept, r->kept, r->kept_stride, o);
  int last = r->nreduced - 1;
  if (w->parts_per_run > 1) {
    int64_t run = piece / w->parts_per_run, from = piece % w->parts_per_run * PIECE;
    int64_t n = w->length - from < PIECE ? w->length - from : PIECE;
    return sum_run(w, x + from + dlua_offset_at(last, r->reduced, r->reduced_stride, run), n, o);
  }
  double sum = 0;
  int64_t from = piece * w->runs_per_piece, to = from + w->runs_per_piece;
  for (int64_t run = from; run < to && run < w->runs; run++)
    sum += sum_run(w, x + dlua_offset_at(last, r->reduced, r->reduced_stride, run), w->length, o);
  return sum;
}

static void sum_pieces(void *context, int64_t from, int64_t to) {
  const rows *w = context;
  for (int64_t k = from; k < to; k++) w->table[k] = sum_piece(w, k / w->pieces, k % w->pieces);
}

static void cut_rows(rows *w) {
  const dlua_reduction *r = &w->r;
  w->length = r->reduced[r->nreduced - 1], w->runs = r->count / w->length;
  w->parts_per_run = (w->length + PIECE - 1) / PIECE;
  w->runs_per_piece = w->length < PIECE ? PIECE / w->length : 1;
  w->pieces = w->parts_per_run > 1 ? w->runs * w->parts_per_run
                                   : (w->runs + w->runs_per_piece - 1) / w->runs_per_piece;
}

// Sums every result; leaves them in table[0..outputs).
static void sum_rows(rows *w) {
  const dlua_reduction *r = &w->r;
  double per_piece = (double)r->count / (double)w->pieces;
  dlua_parallel(r->outputs * w->pieces, per_piece + 10, sum_pieces, w);
  for (int64_t o = 0; o < r->outputs && w->pieces > 1; o++) {
    double sum = 0;
    for (int64_t k = 0; k < w->pieces; k++) sum += w->table[o * w->pieces + k];
    w->table[o] = sum;
  }
}

// Room for doubles: few on the stack, many from the allocator.
typedef struct room {
  double few[64], *at;
  size_t bytes;
} room;

static dlua_status room_open(room *m, int64_t count) {
  void *block = m->few;
  m->bytes = (size_t)count * sizeof *m->at;
  if (m->bytes > sizeof m->few) DLUA_TRY(dlua_alloc(dlua_cpu(), m->bytes, &block));
  m->at = block;
  return DLUA_OK;
}

static void room_close(room *m) {
  if (m->at != m->few) dlua_free(dlua_cpu(), m->at, m->bytes);
}

static dlua_status put_row_sums(rows *w, float *out, double scale) {
  room m;
  cut_rows(w);
  DLUA_TRY(room_open(&m, w->r.outputs * w->pieces));
  w->table = m.at;
  sum_rows(w);
  for (int64_t o = 0; o < w->r.outputs; o++) out[o] = (float)(w->table[o] * scale);
  room_close(&m);
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
  int64_t width, strips, depth, rows_per_piece,
      pieces;           // depth: length of the innermost reduced dim
  double *table;        // pieces × outputs
  dlua_make_rows *make; // or NULL: x is there
  void *context;
} columns;

static void add_piece(const columns *w, int64_t start, int64_t piece, double *sums, int64_t n) {
  const dlua_reduction *r = &w->r;
  int last = r->nreduced - 1;
  int64_t row = piece * w->rows_per_piece, end = row + w->rows_per_piece;
  if (end > r->count) end = r->count;
  while (row < end) {
    int64_t inside = row % w->depth, some = w->depth - inside;
    if (some > end - row) some = end - row;
    if (w->make && some > DLUA_FOLD_DEPTH)
      some = DLUA_FOLD_DEPTH; // summed while still in the cache
    int64_t at = start + inside * r->reduced_stride[last] +
                 dlua_offset_at(last, r->reduced, r->reduced_stride, row / w->depth);
    if (w->make) w->make(w->context, at, some, r->reduced_stride[last], n);
    dlua_fold_simd()->add_rows(sums, w->x + at, some, r->reduced_stride[last], n);
    row += some;
  }
}

static void add_strips(void *context, int64_t from, int64_t to) {
  const columns *w = context;
  const dlua_reduction *r = &w->r;
  int last = r->nkept - 1;
  for (int64_t k = from; k < to; k++) {
    int64_t strip = k % w->strips, piece = k / w->strips % w->pieces,
            group = k / w->strips / w->pieces;
    int64_t column = strip * COLUMNS, n = w->width - column < COLUMNS ? w->width - column : COLUMNS;
    double sums[COLUMNS];
    for (int64_t j = 0; j < n; j++) sums[j] = 0;
    int64_t start = dlua_offset_at(last, r->kept, r->kept_stride, group) + column;
    add_piece(w, start, piece, sums, n);
    int64_t o = group * w->width + column;
    for (int64_t j = 0; j < n; j++) {
      if (w->table)
        w->table[piece * r->outputs + o + j] = sums[j];
      else
        w->out[o + j] = (float)(sums[j] * w->scale);
    }
  }
}

static dlua_status sum_columns(columns *w) {
  dlua_reduction *r = &w->r;
  w->width = r->kept[r->nkept - 1], w->strips = (w->width + COLUMNS - 1) / COLUMNS;
  w->depth = r->reduced[r->nreduced - 1];
  int64_t strip = w->width < COLUMNS ? w->width : COLUMNS;
  w->rows_per_piece = 4 * PIECE / (strip > 16 ? strip : 16);
  w->pieces = (r->count + w->rows_per_piece - 1) / w->rows_per_piece;
  size_t bytes = (size_t)(w->pieces * r->outputs) * sizeof *w->table;
  void *table = NULL;
  if (w->pieces > 1) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, &table));
  w->table = table;
  dlua_parallel(r->outputs / w->width * w->pieces * w->strips, 4 * PIECE, add_strips, w);
  if (w->table == NULL) return DLUA_OK;
  for (int64_t k = 1; k < w->pieces; k++)
    for (int64_t o = 0; o < r->outputs; o++) w->table[o] += w->table[k * r->outputs + o];
  for (int64_t o = 0; o < r->outputs; o++) w->out[o] = (float)(w->table[o] * w->scale);
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
    if (r.reduced[r.nreduced - 1] < SHORT && r.nkept > 0) return DLUA_DECLINED;
    rows w = {.r = r, .x = dlua_f32(x)};
    return put_row_sums(&w, dlua_f32(a->out[0]), scale);
  }
  if (r.nkept == 0 || r.kept_stride[r.nkept - 1] != 1) return DLUA_DECLINED;
  columns w = {.r = r, .x = dlua_f32(x), .out = dlua_f32(a->out[0]), .scale = scale};
  return sum_columns(&w);
}

dlua_status dlua_sum_columns_fast(const dlua_tensor *x, const dlua_tensor *sums,
                                  dlua_make_rows *make, void *context) {
  columns w = {
      .x = dlua_f32(x), .out = dlua_f32(sums), .scale = 1, .make = make, .context = context};
  dlua_reduction_plan(&w.r, x, (1u << (x->ndim - 1)) - 1);
  if (w.r.outputs < 2 || w.r.nreduced == 0 || w.r.count == 0) return DLUA_DECLINED;
  return sum_columns(&w);
}

// Plans a fold of contiguous f32 rows; false where x has none.
static bool plan_rows(rows *w, const dlua_tensor *x, unsigned dims) {
  if (x->dtype != DLUA_F32) return false;
  *w = (rows){.x = dlua_f32(x)};
  dlua_reduction_plan(&w->r, x, dims);
  dlua_reduction_sort(&w->r);
  if (w->r.outputs == 0 || w->r.count == 0 || w->r.nreduced == 0) return false;
  return w->r.reduced_stride[w->r.nreduced - 1] == 1;
}

dlua_status dlua_norm_fast(const dlua_args *a, unsigned dims) {
  rows w;
  if (!plan_rows(&w, a->in[0], dims)) return DLUA_DECLINED;
  float *out = dlua_f32(a->out[0]);
  w.squares = true;
  DLUA_TRY(put_row_sums(&w, out, 1));
  for (int64_t o = 0; o < w.r.outputs; o++) {
    // Where squares leave the range of f32, the plain fold has the room of double.
    if (!(out[o] > 1e-30F && out[o] < 1e38F)) return DLUA_DECLINED;
    out[o] = sqrtf(out[o]);
  }
  return DLUA_OK;
}

dlua_status dlua_var_fast(const dlua_args *a, unsigned dims, bool unbiased, bool root) {
  rows w;
  if (!plan_rows(&w, a->in[0], dims)) return DLUA_DECLINED;
  cut_rows(&w);
  room table, means;
  int64_t n = w.r.outputs;
  DLUA_TRY(room_open(&table, n * w.pieces));
  dlua_status status = room_open(&means, n);
  if (status == DLUA_OK) {
    double count = (double)w.r.count, freedom = fmax(count - unbiased, 0);
    w.table = table.at;
    sum_rows(&w);
    for (int64_t o = 0; o < n; o++) means.at[o] = w.table[o] / count;
    w.squares = true, w.centre = means.at;
    sum_rows(&w);
    for (int64_t o = 0; o < n; o++) {
      // The mean was rounded to f32; the rest of it is taken off here.
      double off = means.at[o] - (double)(float)means.at[o];
      double var = (w.table[o] - count * off * off) / freedom;
      if (!(var > 1e-30 && var < 1e38) && freedom > 0) status = DLUA_DECLINED; // as above
      dlua_f32(a->out[0])[o] = (float)(root ? sqrt(fmax(var, 0)) : var);
    }
    room_close(&means);
  }
  room_close(&table);
  return status;
}

// ---------------------------------------------------------------- logsumexp

// One result's row, in parts of PIECE elements: each leaves log(sum(exp)) of its own.
typedef struct exponentials {
  const float *x;
  int64_t n, parts;
  double *logs; // {outputs, parts}
} exponentials;

static void log_parts(void *context, int64_t from, int64_t to) {
  const exponentials *w = context;
  for (int64_t k = from; k < to; k++) {
    int64_t start = k % w->parts * PIECE, n = w->n - start < PIECE ? w->n - start : PIECE;
    float top;
    double rest = dlua_fold_simd()->log_sum_exp(w->x + k / w->parts * w->n + start, n, &top);
    w->logs[k] = isinf(top) ? top : top + rest;
  }
}

static double join_logs(const double *logs, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t k = 0; k < n; k++)
    if (!(logs[k] <= top)) top = logs[k];
  if (isinf(top) || isnan(top)) return top;
  for (int64_t k = 0; k < n; k++) sum += exp(logs[k] - top);
  return top + log(sum);
}

// Up to sixteen results whose elements lie below each other.
typedef struct stacked {
  const float *x;
  float *out;
  int64_t count, stride, width;
} stacked;

static void log_columns(void *context, int64_t from, int64_t to) {
  const stacked *w = context;
  float tops[16], sums[16];
  for (int64_t k = from * 16; k < to * 16 && k < w->width; k += 16) {
    int64_t n = w->width - k < 16 ? w->width - k : 16;
    dlua_fold_simd()->column_sums(w->x + k, w->count, w->stride, n, tops, sums);
    for (int64_t j = 0; j < n; j++)
      w->out[k + j] = isinf(tops[j]) ? tops[j] : (float)(tops[j] + log(sums[j]));
  }
}

dlua_status dlua_logsumexp_fast(const dlua_args *a, unsigned dims) {
  const dlua_tensor *x = a->in[0];
  dlua_reduction r;
  dlua_reduction_plan(&r, x, dims);
  if (x->dtype != DLUA_F32 || r.outputs == 0 || r.count == 0 || r.nreduced != 1 || r.nkept > 1)
    return DLUA_DECLINED;
  float *out = dlua_f32(a->out[0]);
  if (r.nkept == 1 && r.kept_stride[0] == 1) {
    stacked w = {dlua_f32(x), out, r.count, r.reduced_stride[0], r.outputs};
    dlua_parallel((w.width + 15) / 16, 160.0 * (double)w.count, log_columns, &w);
    return DLUA_OK;
  }
  if (r.reduced_stride[0] != 1 || (r.nkept == 1 && r.kept_stride[0] != r.count))
    return DLUA_DECLINED;
  exponentials w = {.x = dlua_f32(x), .n = r.count, .parts = (r.count + PIECE - 1) / PIECE};
  room m;
  DLUA_TRY(room_open(&m, r.outputs * w.parts));
  w.logs = m.at;
  dlua_parallel(r.outputs * w.parts, 10.0 * (double)(w.parts > 1 ? PIECE : w.n), log_parts, &w);
  for (int64_t o = 0; o < r.outputs; o++)
    out[o] = (float)(w.parts > 1 ? join_logs(m.at + o * w.parts, w.parts) : m.at[o]);
  room_close(&m);
  return DLUA_OK;
}

// ---------------------------------------------------------------- extremes

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
