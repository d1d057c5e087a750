// accumulate.c - sums, products, all and any of every dtype along regular memory.
//
// The results of one call are folded in cells of eight bytes. What is reduced is cut into pieces by
// the shape alone, every piece has its own cells, and these are folded in order: the bits do not
// depend on the number of threads, and one long row still uses all of them. Sums of f32 over long
// rows have quicker loops (reduce_fast.c).
#include "../cpu/accumulate.h"

#include "../cpu/isa.h"
#include "../parallel.h"
#include "reduce.h"
#include "reduce_fast.h"

enum { PIECE = 1 << 14, STRIP = 256, LONG = 64, ACROSS = 128 };

extern const dlua_accumulators dlua_accumulators_base;
#ifdef __x86_64__
extern const dlua_accumulators dlua_accumulators_avx2, dlua_accumulators_avx512;
#endif

const dlua_accumulators *dlua_accumulate_simd(void) {
  static const dlua_accumulators *const kernels[] = DLUA_PER_ISA(dlua_accumulators);
  return kernels[dlua_isa()];
}

// Reduced entries are counted row-major; a piece is a range of them. Results lie side by side as
// the innermost kept dimension, a strip is some of these.
typedef struct job {
  dlua_reduction r;
  dlua_accumulate *fold, *join; // join folds cells
  dlua_cell first;              // what every fold starts from
  const char *x;
  int64_t size, width, step, strips, pieces, rows_per_piece;
  bool across;      // reduced entries are contiguous: a row is cut into lanes
  dlua_cell *cells; // {pieces, outputs}
} job;

static void start(const job *j, dlua_cell *cells, int64_t n) {
  for (int64_t k = 0; k < n; k++) cells[k] = j->first;
}

// One contiguous run, ACROSS lanes at a time.
static void fold_run(const job *j, dlua_cell *to, const char *x, int64_t n) {
  dlua_cell lanes[ACROSS];
  int64_t whole = n / ACROSS * ACROSS;
  start(j, lanes, ACROSS);
  j->fold(lanes, x, n / ACROSS, ACROSS, ACROSS, 1);
  j->fold(lanes, x + whole * j->size, 1, 0, n - whole, 1);
  for (int64_t half = ACROSS / 2; half > 0; half /= 2) j->join(lanes, lanes + half, 1, 0, half, 1);
  j->join(to, lanes, 1, 0, 1, 1);
}

// Entries from .. to of n results side by side from start on.
static void fold_entries(const job *j, dlua_cell *cells, int64_t start_at, int64_t n, int64_t from,
                         int64_t to) {
  const dlua_reduction *r = &j->r;
  int last = r->nreduced - 1;
  int64_t depth = r->reduced[last], stride = r->reduced_stride[last];
  while (from < to) {
    int64_t inside = from % depth, some = depth - inside;
    if (some > to - from) some = to - from;
    int64_t at = start_at + inside * stride;
    if (last > 0) at += dlua_offset_at(last, r->reduced, r->reduced_stride, from / depth);
    if (j->across)
      fold_run(j, cells, j->x + at * j->size, some);
    else
      j->fold(cells, j->x + at * j->size, some, stride, n, j->step);
    from += some;
  }
}

static void fold_strips(void *context, int64_t from, int64_t to) {
  const job *j = context;
  const dlua_reduction *r = &j->r;
  int64_t strip = j->across ? 1 : STRIP;
  for (int64_t task = from; task < to; task++) {
    int64_t column = task % j->strips * strip, rest = task / j->strips;
    int64_t piece = rest % j->pieces, group = rest / j->pieces;
    int64_t n = j->width - column < strip ? j->width - column : strip;
    int64_t end = (piece + 1) * j->rows_per_piece;
    dlua_cell *cells = j->cells + piece * r->outputs + group * j->width + column;
    start(j, cells, n);
    int64_t at = dlua_offset_at(r->nkept - 1, r->kept, r->kept_stride, group) + column * j->step;
    fold_entries(j, cells, at, n, piece * j->rows_per_piece, end < r->count ? end : r->count);
  }
}

// Cuts the work; false where memory is not regular enough.
static bool cut(job *j) {
  dlua_reduction *r = &j->r;
  if (r->outputs == 0 || r->count == 0 || r->nreduced == 0) return false;
  int64_t depth = r->reduced[r->nreduced - 1];
  j->across = r->reduced_stride[r->nreduced - 1] == 1 && (depth >= LONG || r->nkept == 0);
  if (r->nkept == 0 && !j->across) return false;
  j->width = r->nkept > 0 ? r->kept[r->nkept - 1] : 1;
  j->step = r->nkept > 0 ? r->kept_stride[r->nkept - 1] : 1;
  int64_t strip = j->across ? 1 : j->width < STRIP ? j->width : STRIP;
  j->strips = j->across ? j->width : (j->width + STRIP - 1) / STRIP;
  j->rows_per_piece = 2 * PIECE / strip;
  j->pieces = (r->count + j->rows_per_piece - 1) / j->rows_per_piece;
  return true;
}

static void put_cells(const job *j, const dlua_args *a, double scale) {
  const dlua_tensor *out = a->out[0];
  const dlua_cell *cells = j->cells;
  void *y = dlua_data(out);
  int64_t n = j->r.outputs;
  if (out->dtype == DLUA_F32)
    for (int64_t o = 0; o < n; o++) ((float *)y)[o] = (float)(cells[o].f * scale);
  else if (out->dtype == DLUA_F64)
    for (int64_t o = 0; o < n; o++) ((double *)y)[o] = cells[o].f * scale;
  else if (out->dtype == DLUA_I64)
    for (int64_t o = 0; o < n; o++) ((int64_t *)y)[o] = (int64_t)cells[o].i;
  else // bool: 1 of every type has some bit set, 0 has none
    for (int64_t o = 0; o < n; o++) ((uint8_t *)y)[o] = cells[o].i != 0;
}

dlua_status dlua_accumulate_fast(const dlua_args *a, unsigned dims, dlua_folding folding,
                                 bool mean) {
  const dlua_tensor *x = a->in[0];
  bool floats = dlua_is_float(x->dtype),
       one = folding == DLUA_FOLD_PROD || folding == DLUA_FOLD_ALL;
  job j = {.x = dlua_data(x), .size = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype)};
  j.fold = dlua_accumulate_simd()->of[folding][x->dtype];
  j.join = dlua_accumulate_simd()->of[folding][floats ? DLUA_F64 : DLUA_I64];
  if (floats)
    j.first.f = one;
  else
    j.first.i = one;
  dlua_reduction_plan(&j.r, x, dims);
  dlua_reduction_sort(&j.r);
  if (!j.fold || !cut(&j)) return DLUA_DECLINED;
  dlua_cell few[64];
  size_t bytes = (size_t)(j.pieces * j.r.outputs) * sizeof *j.cells;
  void *block = few;
  if (bytes > sizeof few) DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, &block));
  j.cells = block;
  int64_t tasks = j.r.outputs / j.width * j.strips * j.pieces;
  dlua_parallel(tasks, 2.0 * (double)dlua_numel(x) / (double)tasks, fold_strips, &j);
  if (j.pieces > 1)
    j.join(j.cells, j.cells + j.r.outputs, j.pieces - 1, j.r.outputs, j.r.outputs, 1);
  put_cells(&j, a, mean ? 1 / (double)j.r.count : 1);
  if (block != few) dlua_free(dlua_cpu(), block, bytes);
  return DLUA_OK;
}
