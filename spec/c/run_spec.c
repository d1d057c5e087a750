// The list of ops, their signatures, and what dlua_run checks before a kernel sees anything.
#include "check.h"

static const dlua_param *param(const dlua_op *op, const char *name) {
  const dlua_signature *sig = dlua_op_signature(op);
  for (int k = 0; k < sig->ntensor; k++)
    if (strcmp(sig->tensor[k].name, name) == 0) return &sig->tensor[k];
  for (int k = 0; k < sig->nnum; k++)
    if (strcmp(sig->num[k].name, name) == 0) return &sig->num[k];
  return NULL;
}

SPEC(signatures_are_parsed) {
  const dlua_signature *sig = dlua_op_signature(&dlua_op_pad);
  CHECK(sig->ntensor == 1 && sig->nnum == 3 && sig->nresult == 1 && !sig->has_list);
  const dlua_param *mode = param(&dlua_op_pad, "mode"), *value = param(&dlua_op_pad, "value");
  CHECK(mode->kind == 'e' && mode->nwords == 4 && strcmp(mode->words[2], "replicate") == 0);
  CHECK(mode->has_default && mode->preset.i == 0);
  CHECK(value->kind == 'f' && value->preset.set && value->preset.f == 0);
  CHECK(param(&dlua_op_squeeze, "dim")->optional && !param(&dlua_op_squeeze, "dim")->has_default);
  CHECK(param(&dlua_op_unsqueeze, "dim")->plus_one);
  CHECK(param(&dlua_op_cat, "dim")->preset.i == 0);
  CHECK(param(&dlua_op_sort, "dim")->preset.i == -1);
  CHECK(param(&dlua_op_topk, "largest")->preset.i == 1);
  CHECK(dlua_op_signature(&dlua_op_cat)->has_list);
  sig = dlua_op_signature(&dlua_op_sort);
  CHECK(sig->nresult == 2 && strcmp(sig->result[1], "indices") == 0);
  sig = dlua_op_signature(&dlua_op_gather); // x, dim, index as written, tensors first in in[]
  CHECK(sig->order[0] == 0 && sig->order[1] == -1 && sig->order[2] == 1);
}

// Whether a word of n letters names a tensor that a call of the op takes or gives.
static bool names_tensor(const dlua_signature *sig, const char *word, size_t n) {
  for (int k = 0; k < sig->ntensor + sig->nresult; k++) {
    const char *name = k < sig->ntensor ? sig->tensor[k].name : sig->result[k - sig->ntensor];
    if (strlen(name) == n && memcmp(name, word, n) == 0) return true;
  }
  return false;
}

// A word of .save that names nothing would only show in the first backward pass that reads it.
SPEC(what_ops_save_exists) {
  CHECK(names_tensor(dlua_op_signature(&dlua_op_sort), "indices", 7));
  CHECK(!names_tensor(dlua_op_signature(&dlua_op_sort), "indice", 6));
  for (int k = 0; k < dlua_op_count(); k++) {
    const dlua_op *op = dlua_op_at(k);
    const dlua_signature *sig = dlua_op_signature(op);
    for (const char *at = op->save ? op->save : ""; *at;) {
      size_t n = strcspn(at, " ");
      if (!CHECK(n > 0 && names_tensor(sig, at, n))) printf("  %s: %s\n", op->name, op->save);
      at += n + strspn(at + n, " ");
    }
  }
}

SPEC(every_op_is_complete) {
  for (int k = 0; k < dlua_op_count(); k++) {
    const dlua_op *op = dlua_op_at(k);
    const dlua_signature *sig = dlua_op_signature(op);
    bool complete = op->name && op->sig && op->doc && op->shape && dlua_op_find(op->name) == op &&
                    dlua_op_id(op) == k && sig && sig->nresult >= 1 &&
                    (op->cpu || (op->flags & DLUA_VIEW)) && op->doc[strlen(op->doc) - 1] == '.';
    if (!CHECK(complete)) printf("  %s\n", op->name);
    for (int p = 0; sig && p < sig->nnum; p++)
      if (!CHECK(strchr("ifbndDse", sig->num[p].kind))) printf("  %s %s\n", op->name, op->sig);
  }
}

SPEC(missing_and_mixed_arguments_are_errors) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(2, 3));
  dlua_tensor *y = count_up(&s, DLUA_F32, 0, 1, SIZES(4));
  CHECK_FAILS(CALL_STATUS(&dlua_op_add, dlua_t(x)), "add: y is missing");
  CHECK_FAILS(CALL_STATUS(&dlua_op_add, dlua_t(x), dlua_t(y)),
              "add: shapes {2,3} and {4} do not broadcast");
  CHECK_FAILS(CALL_STATUS(&dlua_op_transpose, dlua_t(x), dlua_i(0), dlua_i(2)),
              "transpose: dimension 3 is outside 1..2 (x {2,3})");
  CHECK_FAILS(CALL_STATUS(&dlua_op_transpose, dlua_t(x), dlua_i(0), dlua_i(-3)), "dimension -3");
  CHECK_FAILS(CALL_STATUS(&dlua_op_masked_select, dlua_t(x), dlua_t(x)),
              "mask must be a bool tensor");
  CHECK_FAILS(CALL_STATUS(&dlua_op_gather, dlua_t(x), dlua_t(x), dlua_i(0)),
              "index must be an integer tensor");
  dlua_args a;
  dlua_args_init(&a, &dlua_op_cat);
  CHECK_FAILS(dlua_run(&a), "xs is an empty list");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(a_failed_scope_stays_failed) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(2, 3));
  CHECK(dlua_call(&s, &dlua_op_select, dlua_t(x), dlua_i(0), dlua_i(3)) == NULL);
  CHECK(dlua_call(&s, &dlua_op_t, dlua_t(x)) == NULL);
  CHECK(dlua_scope_end(&s) == DLUA_BAD_ARGUMENT);
}

SPEC(a_scope_owns_more_than_a_few) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(2));
  for (int k = 0; k < 100; k++) x = dlua_call(&s, &dlua_op_flip, dlua_t(x));
  CHECK(HOLDS(x, 0, 1));
  CHECK_OK(dlua_scope_end(&s));
}

static dlua_status run_in_place(const dlua_op *op, dlua_tensor *x, dlua_tensor *y) {
  dlua_args a;
  dlua_args_init(&a, op);
  a.inplace = true, a.in[0] = x, a.in[1] = y;
  dlua_status status = dlua_run(&a);
  if (status == DLUA_OK) dlua_tensor_release(a.out[0]);
  return status;
}

SPEC(in_place_calls_write_and_count) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(2, 2));
  uint32_t version = x->storage->version;
  CHECK_OK(run_in_place(&dlua_op_add, x, dlua_num(&s, 10)));
  CHECK(HOLDS(x, 10, 11, 12, 13) && x->storage->version == version + 1);
  CHECK_OK(run_in_place(&dlua_op_add, x, dlua_call(&s, &dlua_op_t, dlua_t(x))));
  CHECK(HOLDS(x, 20, 23, 23, 26));
  dlua_tensor *wide = count_up(&s, DLUA_F32, 0, 1, SIZES(3, 2, 2));
  CHECK_FAILS(run_in_place(&dlua_op_add, x, wide), "add_");
  dlua_tensor *spread = dlua_call(&s, &dlua_op_expand, dlua_t(VECTOR(&s, DLUA_F32, 1)), LIST(4));
  CHECK_FAILS(run_in_place(&dlua_op_add, spread, dlua_num(&s, 1)), "clone");
  dlua_tensor *whole = count_up(&s, DLUA_I64, 0, 1, SIZES(2));
  CHECK_FAILS(run_in_place(&dlua_op_add, whole, dlua_num(&s, 0.5)), "i64");
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(signatures_are_parsed);
  RUN(what_ops_save_exists);
  RUN(every_op_is_complete);
  RUN(missing_and_mixed_arguments_are_errors);
  RUN(a_failed_scope_stays_failed);
  RUN(a_scope_owns_more_than_a_few);
  RUN(in_place_calls_write_and_count);
  return finish();
}
