// Gradients of the ops that move elements, first and second order.
#include "derivative.h"

static dlua_tensor *numbers(dlua_scope *s, int ndim, const int64_t *size) {
  dlua_tensor *x = count_up(s, DLUA_F64, 0, 0, ndim, size);
  uint32_t state = 7;
  for (int64_t k = 0; x && k < dlua_numel(x); k++) {
    state = state * 1664525u + 1013904223u;
    dlua_f64(x)[k] = (double)state / UINT32_MAX * 4 - 2;
  }
  return x;
}

#define AGREE(...) CHECK(derivatives_agree(&(call){__VA_ARGS__}))
#define NUMS(...) .n = sizeof((dlua_arg[]){__VA_ARGS__}) / sizeof(dlua_arg), .num = {__VA_ARGS__}

SPEC(views) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(2, 3, 2)), *one = numbers(&s, SIZES(2, 1, 3));
  dlua_tensor *matrix = numbers(&s, SIZES(2, 3));
  AGREE(&dlua_op_reshape, 1, .in = {x}, NUMS(LIST(4, -1)));
  AGREE(&dlua_op_flatten, 1, .in = {x}, NUMS(dlua_i(1), dlua_i(2)));
  AGREE(&dlua_op_transpose, 1, .in = {x}, NUMS(dlua_i(0), dlua_i(2)));
  AGREE(&dlua_op_t, 1, .in = {matrix});
  AGREE(&dlua_op_permute, 1, .in = {x}, NUMS(LIST(1, 2, 0)));
  AGREE(&dlua_op_expand, 1, .in = {one}, NUMS(LIST(2, 2, 4, 3)));
  AGREE(&dlua_op_squeeze, 1, .in = {one}, NUMS(dlua_none()));
  AGREE(&dlua_op_unsqueeze, 1, .in = {x}, NUMS(dlua_i(1)));
  AGREE(&dlua_op_narrow, 1, .in = {x}, NUMS(dlua_i(1), dlua_i(2), dlua_i(2)));
  AGREE(&dlua_op_select, 1, .in = {x}, NUMS(dlua_i(1), dlua_i(-1)));
  AGREE(&dlua_op_slice, 1, .in = {x},
        NUMS(LIST(0, 0, 1), LIST(2, 2, 1), LIST(1, 2, 1), LIST(0, 0, 1)));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(parts) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(3, 4)), *value = numbers(&s, SIZES(2, 1));
  for (int input = 0; input < 2; input++) {
    AGREE(&dlua_op_set_slice, 2, input, .in = {x, value},
          NUMS(LIST(0, 1), LIST(2, 3), LIST(2, 1), LIST(0, 0)));
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(joins) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(2, 3)), *y = numbers(&s, SIZES(2, 2)),
              *z = numbers(&s, SIZES(2, 3));
  for (int input = 0; input < 2; input++) {
    AGREE(&dlua_op_cat, 2, input, .in = {x, y}, NUMS(dlua_i(1)));
    AGREE(&dlua_op_stack, 2, input, .in = {x, z}, NUMS(dlua_i(1)));
  }
  AGREE(&dlua_op_tile, 1, .in = {x}, NUMS(LIST(2, 1, 3)));
  AGREE(&dlua_op_repeat_interleave, 1, .in = {x}, NUMS(dlua_i(3), dlua_i(0)));
  AGREE(&dlua_op_flip, 1, .in = {x}, NUMS(dlua_i(1)));
  AGREE(&dlua_op_roll, 1, .in = {x}, NUMS(LIST(1, -2), LIST(0, 1)));
  AGREE(&dlua_op_roll, 1, .in = {x}, NUMS(LIST(2), dlua_none()));
  AGREE(&dlua_op_tril, 1, .in = {x}, NUMS(dlua_i(0)));
  AGREE(&dlua_op_triu, 1, .in = {x}, NUMS(dlua_i(1)));
  AGREE(&dlua_op_sum_to, 1, .in = {x}, NUMS(LIST(1, 3)));
  AGREE(&dlua_op_sum_to, 1, .in = {x}, NUMS(LIST(3)));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(pads) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(2, 3, 4));
  for (int mode = 0; mode < 4; mode++)
    AGREE(&dlua_op_pad, 1, .in = {x}, NUMS(LIST(2, 1, 1, 2), dlua_i(mode), dlua_f(0.5)));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(indices) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(3, 2)), *rows = numbers(&s, SIZES(4, 2));
  dlua_tensor *index = VECTOR(&s, DLUA_I64, 3, 1, 3, 2);
  dlua_tensor *which =
      dlua_call(&s, &dlua_op_reshape, dlua_t(VECTOR(&s, DLUA_I64, 2, 3, 2, 1, 1, 3)), LIST(3, 2));
  AGREE(&dlua_op_index_select, 2, .in = {x, index}, NUMS(dlua_i(0)));
  AGREE(&dlua_op_gather, 2, .in = {x, which}, NUMS(dlua_i(0)));
  AGREE(&dlua_op_gather_last, 2, .in = {x, which}, NUMS(dlua_i(0)));
  for (int input = 0; input < 3; input += 2) {
    AGREE(&dlua_op_index_add, 3, input, .in = {x, index, rows}, NUMS(dlua_i(0)));
    AGREE(&dlua_op_index_copy, 3, input, .in = {x, index, rows}, NUMS(dlua_i(0)));
    AGREE(&dlua_op_scatter, 3, input, .in = {x, which, rows}, NUMS(dlua_i(0)));
    AGREE(&dlua_op_scatter_add, 3, input, .in = {x, which, rows}, NUMS(dlua_i(0)));
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(masks) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(2, 3)), *row = numbers(&s, SIZES(3)),
              *source = numbers(&s, SIZES(2, 4));
  dlua_tensor *mask = VECTOR(&s, DLUA_BOOL, 1, 0, 1);
  dlua_tensor *full =
      dlua_call(&s, &dlua_op_reshape, dlua_t(VECTOR(&s, DLUA_BOOL, 1, 0, 1, 1, 0, 0)), LIST(2, 3));
  AGREE(&dlua_op_masked_fill, 2, .in = {x, mask}, NUMS(dlua_f(3)));
  AGREE(&dlua_op_masked_fill, 2, .in = {row, full}, NUMS(dlua_f(3)));
  AGREE(&dlua_op_masked_select, 2, .in = {x, mask});
  AGREE(&dlua_op_masked_select, 2, .in = {row, full});
  for (int input = 0; input < 3; input += 2)
    AGREE(&dlua_op_masked_scatter, 3, input, .in = {x, mask, source});
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(sorts) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(4, 3));
  AGREE(&dlua_op_sort, 1, .in = {x}, NUMS(dlua_i(0), dlua_i(1)));
  AGREE(&dlua_op_topk, 1, .in = {x}, NUMS(dlua_i(2), dlua_i(1)));
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(views);
  RUN(parts);
  RUN(joins);
  RUN(pads);
  RUN(indices);
  RUN(masks);
  RUN(sorts);
  return finish();
}
