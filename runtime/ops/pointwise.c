// pointwise.c - running rows for elementwise ops. All inputs of such a call are operands of one
// loop, and its numbers are the rows' context. bf16 and f16 borrow the rows of f32 a piece at a time:
// the pieces stay in the nearest cache, where whole f32 copies would pass through memory.
#include "pointwise.h"

enum { PIECE = 512 };

// A row of f32 on operands that all are of one 16-bit dtype.
typedef struct narrow {
  dlua_row *row;
  void *context;
  int n; // operands
  dlua_dtype dtype;
} narrow;

static void narrow_row(void *context, int64_t n, char **p, const int64_t *s) {
  const narrow *r = context;
  dlua_row *widen = dlua_cast_simd()->to_f32[r->dtype],
           *round = dlua_cast_simd()->from_f32[r->dtype];
  float wide[DLUA_ITER_OPERANDS][PIECE];
  for (int64_t from = 0; from < n; from += PIECE) {
    int64_t count = n - from < PIECE ? n - from : PIECE, step[DLUA_ITER_OPERANDS];
    char *piece[DLUA_ITER_OPERANDS];
    for (int k = 0; k < r->n; k++) {
      piece[k] = (char *)wide[k], step[k] = k > 0 && s[k] == 0 ? 0 : (int64_t)sizeof(float);
      if (k == 0) continue;
      widen(NULL, s[k] ? count : 1, (char *[]){piece[k], p[k] + from * s[k]},
            (int64_t[]){sizeof(float), s[k]});
    }
    r->row(r->context, count, piece, step);
    round(NULL, count, (char *[]){p[0] + from * s[0], piece[0]}, (int64_t[]){s[0], sizeof(float)});
  }
}

static dlua_dtype dtype_of(const dlua_args *a) { return (dlua_dtype)a->in[a->nin - 1]->dtype; }

// Whether the call runs on the rows of f32: all operands are 16 bits wide. One with a mask only moves
// elements and has rows of its own.
static bool borrows(const dlua_args *a) {
  dlua_dtype dtype = dtype_of(a);
  return (dtype == DLUA_BF16 || dtype == DLUA_F16) && a->in[0]->dtype == dtype;
}

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
  narrow half = {row, (void *)a->num, a->nin + 1, dtype_of(a)};
  if (borrows(a))
    dlua_iter_run_serial(&it, narrow_row, &half);
  else
    dlua_iter_run_serial(&it, row, (void *)a->num);
  return DLUA_OK;
}

dlua_status dlua_rows_fast(const dlua_args *a, dlua_row *row, double cost) {
  if (!row) return DLUA_DECLINED;
  dlua_iter it;
  begin(&it, a);
  narrow half = {row, (void *)a->num, a->nin + 1, dtype_of(a)};
  if (borrows(a))
    dlua_iter_run(&it, cost + 2, narrow_row, &half);
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
