// Tensors as views over storages: references, sharing, copies, texts.
#include "check.h"

SPEC(a_view_shares_and_keeps_its_storage) {
  dlua_tensor *x = NULL, *view = NULL;
  if (!CHECK_OK(dlua_tensor_new(&x, DLUA_F32, SIZES(2, 3), dlua_cpu()))) return;
  for (int k = 0; k < 6; k++) dlua_f32(x)[k] = (float)k;
  CHECK_OK(dlua_tensor_view(&view, x, 1, (int64_t[]){2}, (int64_t[]){3}, 1));
  CHECK(view->view && view->storage == x->storage && view->storage->refs == 2);
  dlua_tensor_release(x);
  CHECK(HOLDS(view, 1, 4));
  dlua_tensor_release(view);
}

SPEC(retaining_counts) {
  dlua_tensor *x = NULL;
  if (!CHECK_OK(dlua_tensor_new(&x, DLUA_U8, 0, NULL, dlua_cpu()))) return;
  CHECK(dlua_tensor_retain(x) == x && x->refs == 2);
  dlua_tensor_release(x);
  CHECK(x->refs == 1);
  dlua_tensor_release(x);
  CHECK(dlua_tensor_retain(NULL) == NULL);
  dlua_tensor_release(NULL);
}

SPEC(contiguity_looks_at_what_matters) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(2, 3));
  dlua_tensor *t = dlua_call(&s, &dlua_op_t, dlua_t(x));
  dlua_tensor *column = dlua_call(&s, &dlua_op_narrow, dlua_t(x), dlua_i(1), dlua_i(2), dlua_i(1));
  dlua_tensor *row = dlua_call(&s, &dlua_op_narrow, dlua_t(x), dlua_i(0), dlua_i(2), dlua_i(1));
  dlua_tensor *none = dlua_call(&s, &dlua_op_narrow, dlua_t(t), dlua_i(0), dlua_i(1), dlua_i(0));
  if (CHECK(s.status == DLUA_OK)) {
    CHECK(dlua_is_contiguous(x) && dlua_is_contiguous(row) && dlua_is_contiguous(none));
    CHECK(!dlua_is_contiguous(t) && !dlua_is_contiguous(column));
    dlua_tensor *packed = NULL, *same = NULL;
    CHECK_OK(dlua_contiguous(t, &packed));
    CHECK(packed != t && HOLDS(packed, 0, 3, 1, 4, 2, 5));
    CHECK_OK(dlua_contiguous(x, &same));
    CHECK(same == x);
    dlua_tensor_release(packed), dlua_tensor_release(same);
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(copies_go_across_strides_and_dtypes) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_I32, -1, 1, SIZES(2, 3));
  dlua_tensor *y = count_up(&s, DLUA_F64, 0, 0, SIZES(3, 2));
  dlua_tensor *t = dlua_call(&s, &dlua_op_t, dlua_t(y));
  if (CHECK(s.status == DLUA_OK)) {
    uint32_t version = y->storage->version;
    CHECK_OK(dlua_copy(t, x));
    CHECK(HOLDS(y, -1, 2, 0, 3, 1, 4));
    CHECK(y->storage->version == version + 1);
    CHECK_FAILS(dlua_copy(y, x), "{2,3}");
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(items_keep_their_kind) {
  dlua_scope s;
  dlua_scope_begin(&s);
  bool is_int;
  int64_t i;
  double f;
  dlua_tensor *big = VECTOR(&s, DLUA_I64, 1);
  if (!CHECK(s.status == DLUA_OK)) return;
  *dlua_i64(big) = INT64_MAX - 1;
  CHECK_OK(dlua_item(big, &is_int, &i, &f));
  CHECK(is_int && i == INT64_MAX - 1);
  CHECK_OK(dlua_item(VECTOR(&s, DLUA_BF16, 0.5), &is_int, &i, &f));
  CHECK(!is_int && f == 0.5);
  CHECK_FAILS(dlua_item(VECTOR(&s, DLUA_F32, 1, 2), &is_int, &i, &f), "2 elements");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(filling_works_for_every_dtype) {
  dlua_scope s;
  dlua_scope_begin(&s);
  for (int dtype = 0; dtype < DLUA_DTYPES; dtype++) {
    dlua_tensor *x = count_up(&s, (dlua_dtype)dtype, 0, 1, SIZES(3));
    if (!CHECK(s.status == DLUA_OK)) break;
    CHECK_OK(dlua_tensor_fill(x, 1));
    CHECK(HOLDS(x, 1, 1, 1));
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(shapes_have_texts) {
  int64_t wide[] = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX,
                    INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
  CHECK(strcmp(dlua_sizes_text(0, NULL), "{}") == 0);
  CHECK(strcmp(dlua_sizes_text(SIZES(2, 3)), "{2,3}") == 0);
  CHECK(strlen(dlua_sizes_text(8, wide)) == 8 * 19 + 9);
}

int main(void) {
  RUN(a_view_shares_and_keeps_its_storage);
  RUN(retaining_counts);
  RUN(contiguity_looks_at_what_matters);
  RUN(copies_go_across_strides_and_dtypes);
  RUN(items_keep_their_kind);
  RUN(filling_works_for_every_dtype);
  RUN(shapes_have_texts);
  return finish();
}
