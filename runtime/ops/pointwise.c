// pointwise.c - running rows for elementwise ops. All inputs of such a call are operands of one
// loop, and its numbers are the rows' context.
#include "pointwise.h"

static void begin(dlua_iter *it, const dlua_args *a) {
  dlua_tensor *operands[DLUA_ITER_OPERANDS] = {a->out[0]};
  for (int k = 0; k < a->nin; k++) operands[k + 1] = a->in[k];
  dlua_iter_begin(it, a->nin + 1, operands);
}

dlua_status dlua_rows_run(const dlua_args *a, dlua_rows rows) {
  dlua_row *row = rows[a->in[a->nin - 1]->dtype];
  if (!row) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s tensors are not accepted", a->op->name,
                     dlua_dtype_name((dlua_dtype)a->in[a->nin - 1]->dtype));
  }
  dlua_iter it;
  begin(&it, a);
  dlua_iter_run_serial(&it, row, (void *)a->num);
  return DLUA_OK;
}

dlua_status dlua_rows_fast(const dlua_args *a, dlua_row *row, double cost) {
  if (!row) return DLUA_DECLINED;
  dlua_iter it;
  begin(&it, a);
  dlua_iter_run(&it, cost, row, (void *)a->num);
  return DLUA_OK;
}

const dlua_dtype_rows *dlua_rows_of(const dlua_args *a) {
  return &dlua_simd()->of[a->in[a->nin - 1]->dtype];
}

double dlua_number_or(const dlua_value *v, double missing) {
  return !v->set ? missing : v->is_int ? (double)v->i : v->f;
}

void dlua_zero_back(dlua_back *b) {
  for (int k = 0; k < b->nin; k++) {
    if (dlua_needs(b, k)) dlua_give(b, k, dlua_zeros_like(b->s, b->g[0]));
  }
}
