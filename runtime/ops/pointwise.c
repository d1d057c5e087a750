// pointwise.c - running rows for elementwise ops. All inputs of such a call are operands of one
// loop, and its numbers are the rows' context. bf16 and f16 borrow the rows of f32 a piece at a time:
// the pieces stay in the nearest cache, where whole f32 copies would pass through memory.
#include "pointwise.h"

enum { PIECE = 512 };

// A row of f32 for operands of which some are of other dtypes.
typedef struct narrow {
  dlua_row *row;
  void *context;
  int n;                               // operands
  dlua_row *widen[DLUA_ITER_OPERANDS]; // of an input, NULL where the row reads it as it is
  dlua_row *round;                     // of the result, NULL where the row writes its dtype
} narrow;

static void narrow_row(void *context, int64_t n, char **p, const int64_t *s) {
  const narrow *r = context;
  float wide[DLUA_ITER_OPERANDS][PIECE];
  for (int64_t from = 0; from < n; from += PIECE) {
    int64_t count = n - from < PIECE ? n - from : PIECE, step[DLUA_ITER_OPERANDS];
    char *piece[DLUA_ITER_OPERANDS];
    for (int k = 0; k < r->n; k++) {
      char *given = p[k] + from * s[k];
      bool as_it_is = k == 0 ? !r->round : !r->widen[k];
      piece[k] = as_it_is ? given : (char *)wide[k];
      step[k] = as_it_is || (k > 0 && s[k] == 0) ? s[k] : (int64_t)sizeof(float);
      if (k > 0 && !as_it_is)
        r->widen[k](NULL, s[k] ? count : 1, (char *[]){piece[k], given},
                    (int64_t[]){sizeof(float), s[k]});
    }
    r->row(r->context, count, piece, step);
    if (r->round)
      r->round(NULL, count, (char *[]){p[0] + from * s[0], piece[0]},
               (int64_t[]){s[0], sizeof(float)});
  }
}

// Whether the call computes in 16 bits on the rows of f32.
static bool borrows(const dlua_args *a) {
  return (a->op->flags & DLUA_BORROWS) && dlua_is_half(a->dtype);
}

static narrow borrowed(const dlua_args *a, dlua_row *row) {
  dlua_dtype result = (dlua_dtype)a->out[0]->dtype;
  narrow r = {.row = row, .context = (void *)a->num, .n = a->nin + 1};
  if (dlua_is_half(result)) r.round = dlua_cast_simd()->from_f32[result];
  for (int k = 0; k < a->nin; k++) {
    bool computes = a->sig->tensor[k].kind == 'T'; // with it; masks are read as they are
    if (computes) r.widen[k + 1] = dlua_cast_simd()->to_f32[a->in[k]->dtype];
  }
  return r;
}

static dlua_dtype dtype_of(const dlua_args *a) { return (dlua_dtype)a->in[a->nin - 1]->dtype; }

static dlua_dtype rows_dtype(const dlua_args *a) { return borrows(a) ? DLUA_F32 : dtype_of(a); }

static void begin(dlua_iter *it, const dlua_args *a) {
  dlua_tensor *operands[DLUA_ITER_OPERANDS] = {a->out[0]};
  for (int k = 0; k < a->nin; k++) operands[k + 1] = a->in[k];
  dlua_iter_begin(it, a->nin + 1, operands);
}

dlua_status dlua_rows_run(const dlua_args *a, dlua_rows rows) {
  dlua_row *row = rows[rows_dtype(a)];
  if (!row) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s tensors are not accepted", a->op->name,
                     dlua_dtype_name(dtype_of(a)));
  }
  dlua_iter it;
  begin(&it, a);
  narrow half;
  if (borrows(a))
    half = borrowed(a, row), dlua_iter_run_serial(&it, narrow_row, &half);
  else
    dlua_iter_run_serial(&it, row, (void *)a->num);
  return DLUA_OK;
}

dlua_status dlua_rows_fast(const dlua_args *a, dlua_row *row, double cost) {
  if (!row) return DLUA_DECLINED;
  dlua_iter it;
  begin(&it, a);
  narrow half;
  if (borrows(a))
    half = borrowed(a, row), dlua_iter_run(&it, cost + 2, narrow_row, &half);
  else
    dlua_iter_run(&it, cost, row, (void *)a->num);
  return DLUA_OK;
}

const dlua_dtype_rows *dlua_rows_of(const dlua_args *a) { return &dlua_simd()->of[rows_dtype(a)]; }

double dlua_number_or(const dlua_value *v, double missing) {
  return !v->set ? missing : v->is_int ? (double)v->i : v->f;
}

void dlua_zero_back(dlua_back *b) {
  for (int k = 0; k < b->nin; k++) {
    if (dlua_needs(b, k)) dlua_give(b, k, dlua_zeros_like(b->s, b->g[0]));
  }
}
