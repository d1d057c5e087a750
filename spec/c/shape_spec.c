// Ops that move elements: shape, slice, join, pad, index, mask, sort.
#include "check.h"

SPEC(reshape_is_a_view_where_it_can_be) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 1, 1, SIZES(2, 3, 4));
  dlua_tensor *flat = dlua_call(&s, &dlua_op_reshape, dlua_t(x), LIST(-1));
  CHECK(HAS_SHAPE(flat, 24) && flat->storage == x->storage);
  dlua_tensor *swapped = dlua_call(&s, &dlua_op_transpose, dlua_t(x), dlua_i(0), dlua_i(1));
  dlua_tensor *split = dlua_call(&s, &dlua_op_reshape, dlua_t(swapped), LIST(3, 2, 2, 2));
  CHECK(split->storage == x->storage && at(split, 5) == 14);
  dlua_tensor *copied = dlua_call(&s, &dlua_op_reshape, dlua_t(swapped), LIST(6, 4));
  CHECK(copied->storage != x->storage && !copied->view && at(copied, 5) == 14);
  dlua_tensor *none = dlua_call(&s, &dlua_op_reshape,
                                dlua_t(count_up(&s, DLUA_U8, 0, 1, SIZES(0, 3))), LIST(3, 0, 5));
  CHECK(HAS_SHAPE(none, 3, 0, 5));
  dlua_tensor *one =
      dlua_call(&s, &dlua_op_reshape, dlua_t(VECTOR(&s, DLUA_F32, 7)), dlua_list(0, NULL));
  CHECK(one && one->ndim == 0 && at(one, 0) == 7);
  dlua_tensor *y = count_up(&s, DLUA_F32, 1, 1, SIZES(2, 3));
  CHECK_FAILS(CALL_STATUS(&dlua_op_reshape, dlua_t(y), LIST(4, 2)),
              "reshape: cannot make {4,2} (8 elements) from {2,3} (6 elements)");
  CHECK_FAILS(CALL_STATUS(&dlua_op_reshape, dlua_t(y), LIST(-1, -1)), "only one");
  CHECK_FAILS(CALL_STATUS(&dlua_op_reshape, dlua_t(y), LIST(-1, 4)), "{-1,4}");
  CHECK_FAILS(CALL_STATUS(&dlua_op_reshape, dlua_t(y), LIST(-2, 3)), "-2");
  CHECK_FAILS(CALL_STATUS(&dlua_op_reshape, dlua_t(y), LIST(INT64_C(1) << 40, INT64_C(1) << 40)),
              "cannot make");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(views_rename_dimensions) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F16, 1, 1, SIZES(2, 1, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_permute, dlua_t(x), LIST(2, 0, 1)), 3, 2, 1));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_squeeze, dlua_t(x), dlua_none()), 2, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_squeeze, dlua_t(x), dlua_i(0)), 2, 1, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_unsqueeze, dlua_t(x), dlua_i(-1)), 2, 1, 3, 1));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_expand, dlua_t(x), LIST(4, -1, 5, -1)), 4, 2, 5, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_flatten, dlua_t(x), dlua_i(1), dlua_i(-1)), 2, 3));
  dlua_tensor *p = dlua_call(&s, &dlua_op_permute, dlua_t(x), LIST(2, 0, 1));
  CHECK(HOLDS(p, 1, 4, 2, 5, 3, 6));
  CHECK_FAILS(CALL_STATUS(&dlua_op_permute, dlua_t(x), LIST(0, 1)), "permute: 2 dimensions");
  CHECK_FAILS(CALL_STATUS(&dlua_op_permute, dlua_t(x), LIST(0, 1, 1)), "twice");
  CHECK_FAILS(CALL_STATUS(&dlua_op_expand, dlua_t(x), LIST(2, 1, 4)),
              "expand: size 3 of dimension 3");
  CHECK_FAILS(CALL_STATUS(&dlua_op_t, dlua_t(x)), "3 dimensions");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(parts_are_seen_and_replaced) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_I32, 1, 1, SIZES(3, 4));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_narrow, dlua_t(x), dlua_i(1), dlua_i(2), dlua_i(2)), 2, 3, 6,
              7, 10, 11));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_select, dlua_t(x), dlua_i(0), dlua_i(-1)), 9, 10, 11, 12));
  dlua_tensor *part =
      dlua_call(&s, &dlua_op_slice, dlua_t(x), LIST(0, 1), LIST(2, 1), LIST(2, 1), LIST(0, 1));
  CHECK(HAS_SHAPE(part, 2) && HOLDS(part, 2, 10));
  dlua_tensor *y = dlua_call(&s, &dlua_op_set_slice, dlua_t(x), dlua_t(dlua_num(&s, 0)), LIST(0, 1),
                             LIST(2, 2), LIST(2, 2), LIST(0, 0));
  CHECK(HOLDS(y, 1, 0, 3, 0, 5, 6, 7, 8, 9, 0, 11, 0) && at(x, 1) == 2);
  CHECK_FAILS(CALL_STATUS(&dlua_op_select, dlua_t(x), dlua_i(0), dlua_i(4)),
              "select: index 4 is outside 1..3");
  CHECK_FAILS(CALL_STATUS(&dlua_op_select, dlua_t(x), dlua_i(0), dlua_i(0)), "index 0");
  CHECK_FAILS(CALL_STATUS(&dlua_op_narrow, dlua_t(x), dlua_i(1), dlua_i(4), dlua_i(2)), "1..4");
  CHECK_FAILS(CALL_STATUS(&dlua_op_narrow, dlua_t(x), dlua_i(1), dlua_i(2), dlua_i(INT64_MAX)),
              "1..4");
  CHECK_FAILS(
      CALL_STATUS(&dlua_op_slice, dlua_t(x), LIST(0, 3), LIST(3, 2), LIST(1, 1), LIST(0, 0)),
      "range 4..5 of dimension 2 is outside 1..4");
  CHECK_FAILS(CALL_STATUS(&dlua_op_set_slice, dlua_t(x),
                          dlua_t(count_up(&s, DLUA_I32, 0, 1, SIZES(3))), LIST(0, 0), LIST(1, 4),
                          LIST(1, 1), LIST(0, 0)),
              "set_slice: value {3}");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(joining_works_for_every_width) {
  dlua_scope s;
  dlua_scope_begin(&s);
  for (int dtype = 0; dtype < DLUA_BOOL; dtype++) {
    dlua_tensor *x = count_up(&s, (dlua_dtype)dtype, 1, 1, SIZES(2, 2));
    dlua_tensor *both[] = {x, dlua_call(&s, &dlua_op_t, dlua_t(x))};
    CHECK(HOLDS(dlua_call_list(&s, &dlua_op_cat, 2, both, 1, (dlua_arg[]){dlua_i(1)}), 1, 2, 1, 3,
                3, 4, 2, 4));
    dlua_tensor *stacked = dlua_call_list(&s, &dlua_op_stack, 2, both, 1, (dlua_arg[]){dlua_i(2)});
    CHECK(HAS_SHAPE(stacked, 2, 2, 2) && HOLDS(stacked, 1, 1, 2, 3, 3, 2, 4, 4));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_flip, dlua_t(x), dlua_i(0)), 3, 4, 1, 2));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_flip, dlua_t(x)), 4, 3, 2, 1));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_roll, dlua_t(x), LIST(-1), dlua_none()), 2, 3, 4, 1));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_roll, dlua_t(x), LIST(1, 3), LIST(0, 1)), 4, 3, 2, 1));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_tile, dlua_t(x), LIST(2, 1)), 1, 2, 3, 4, 1, 2, 3, 4));
    CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_tile, dlua_t(x), LIST(3, 1, 2)), 3, 2, 4));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_repeat_interleave, dlua_t(x), dlua_i(2), dlua_i(1)), 1, 1, 2,
                2, 3, 3, 4, 4));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_tril, dlua_t(x), dlua_i(0)), 1, 0, 3, 4));
    CHECK(HOLDS(dlua_call(&s, &dlua_op_triu, dlua_t(x), dlua_i(1)), 0, 2, 0, 0));
  }
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(2, 2)),
              *y = count_up(&s, DLUA_I64, 0, 1, SIZES(2, 3));
  dlua_tensor *mixed =
      dlua_call_list(&s, &dlua_op_cat, 2, (dlua_tensor *[]){x, y}, 1, (dlua_arg[]){dlua_i(1)});
  CHECK(mixed && mixed->dtype == DLUA_F32 && HAS_SHAPE(mixed, 2, 5));
  dlua_scope bad;
  dlua_scope_begin(&bad);
  dlua_call_list(&bad, &dlua_op_cat, 2, (dlua_tensor *[]){x, y}, 1, (dlua_arg[]){dlua_i(0)});
  CHECK_FAILS(dlua_scope_end(&bad), "cat: tensor 2 is {2,3}, tensor 1 is {2,2}");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(pads_follow_their_mode) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_F32, 1, 2, 3);
  CHECK(HOLDS(dlua_call(&s, &dlua_op_pad, dlua_t(x), LIST(1, 2), dlua_i(0), dlua_f(9)), 9, 1, 2, 3,
              9, 9));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_pad, dlua_t(x), LIST(2, 2), dlua_i(1)), 3, 2, 1, 2, 3, 2, 1));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_pad, dlua_t(x), LIST(2, 1), dlua_i(2)), 1, 1, 1, 2, 3, 3));
  CHECK(
      HOLDS(dlua_call(&s, &dlua_op_pad, dlua_t(x), LIST(2, 3), dlua_i(3)), 2, 3, 1, 2, 3, 1, 2, 3));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_pad, dlua_t(x), LIST(-1, -1)), 2));
  CHECK_FAILS(CALL_STATUS(&dlua_op_pad, dlua_t(x), LIST(3, 0), dlua_i(1)),
              "pad 3 of dimension 1 must be less than the size 3");
  CHECK_FAILS(CALL_STATUS(&dlua_op_pad, dlua_t(x), LIST(1)), "pairs");
  CHECK_FAILS(CALL_STATUS(&dlua_op_pad, dlua_t(x), LIST(-2, -2)), "leave nothing");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(indices_count_from_one) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F64, 1, 1, SIZES(3, 2));
  dlua_tensor *index = VECTOR(&s, DLUA_U8, 3, 1, 3);
  CHECK(HOLDS(dlua_call(&s, &dlua_op_index_select, dlua_t(x), dlua_t(index), dlua_i(0)), 5, 6, 1, 2,
              5, 6));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_index_add, dlua_t(x), dlua_t(index), dlua_t(x), dlua_i(0)), 4,
              6, 3, 4, 11, 14));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_index_copy, dlua_t(x), dlua_t(index), dlua_t(x), dlua_i(0)), 3,
              4, 3, 4, 5, 6));
  dlua_tensor *which =
      dlua_call(&s, &dlua_op_reshape, dlua_t(VECTOR(&s, DLUA_I32, 2, 1, 1, 2)), LIST(2, 2));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_gather, dlua_t(x), dlua_t(which), dlua_i(1)), 2, 1, 3, 4));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_gather, dlua_t(x), dlua_t(which), dlua_i(0)), 3, 2, 1, 4));
  dlua_tensor *zeros = count_up(&s, DLUA_F64, 0, 0, SIZES(3, 2));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_scatter, dlua_t(zeros), dlua_t(which), dlua_t(x), dlua_i(0)),
              3, 2, 1, 4, 0, 0));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_scatter_add, dlua_t(x), dlua_t(which), dlua_t(x), dlua_i(1)),
              3, 3, 6, 8, 5, 6));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(a_bad_index_changes_nothing) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 1, 1, SIZES(3, 2));
  static const double bad[] = {0, -1, 4, 1e15};
  for (int k = 0; k < 4; k++) {
    dlua_tensor *index = VECTOR(&s, DLUA_I64, 1, bad[k]);
    dlua_tensor *source = count_up(&s, DLUA_F32, 9, 0, SIZES(2, 2));
    dlua_tensor *wide =
        dlua_call(&s, &dlua_op_expand,
                  dlua_t(dlua_call(&s, &dlua_op_unsqueeze, dlua_t(index), dlua_i(1))), LIST(2, 2));
    CHECK_FAILS(CALL_STATUS(&dlua_op_index_select, dlua_t(x), dlua_t(index), dlua_i(0)),
                "at position 2 is outside 1..3");
    CHECK_FAILS(CALL_STATUS(&dlua_op_gather, dlua_t(x), dlua_t(wide), dlua_i(0)),
                "at position 3 is outside 1..3");
    const dlua_op *writers[] = {&dlua_op_index_add, &dlua_op_index_copy, &dlua_op_scatter,
                                &dlua_op_scatter_add};
    for (int w = 0; w < 4; w++) {
      dlua_args a;
      dlua_args_init(&a, writers[w]);
      a.inplace = true, a.in[0] = x, a.in[1] = w < 2 ? index : wide, a.in[2] = source;
      a.num[0].set = true, a.num[0].i = 0;
      CHECK_FAILS(dlua_run(&a), "is outside 1..3");
      CHECK(HOLDS(x, 1, 2, 3, 4, 5, 6));
    }
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(a_source_may_be_the_target) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_F32, 1, 2, 3), *index = VECTOR(&s, DLUA_I64, 2, 3, 1);
  dlua_args a;
  dlua_args_init(&a, &dlua_op_index_copy);
  a.inplace = true, a.in[0] = x, a.in[1] = index, a.in[2] = x;
  a.num[0].set = true, a.num[0].i = 0;
  CHECK_OK(dlua_run(&a));
  CHECK(HOLDS(x, 3, 1, 2));
  dlua_tensor_release(a.out[0]);
  dlua_tensor *mask = VECTOR(&s, DLUA_BOOL, 0, 1, 1);
  dlua_args_init(&a, &dlua_op_masked_scatter);
  a.inplace = true, a.in[0] = x, a.in[1] = mask, a.in[2] = x;
  CHECK_OK(dlua_run(&a));
  CHECK(HOLDS(x, 3, 3, 1));
  dlua_tensor_release(a.out[0]);
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(masks_choose_elements) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_BF16, 1, 1, SIZES(2, 3)),
              *mask = VECTOR(&s, DLUA_BOOL, 1, 0, 1);
  CHECK(HOLDS(dlua_call(&s, &dlua_op_masked_select, dlua_t(x), dlua_t(mask)), 1, 3, 4, 6));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_masked_fill, dlua_t(x), dlua_t(mask), dlua_f(-1)), -1, 2, -1,
              -1, 5, -1));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_masked_scatter, dlua_t(x), dlua_t(mask),
                        dlua_t(VECTOR(&s, DLUA_BF16, 7, 8, 9, 10, 11))),
              7, 2, 8, 9, 5, 10));
  CHECK_FAILS(CALL_STATUS(&dlua_op_masked_scatter, dlua_t(x), dlua_t(mask),
                          dlua_t(VECTOR(&s, DLUA_BF16, 7, 8, 9))),
              "true at 4 positions but source has 3");
  dlua_tensor *where =
      dlua_call(&s, &dlua_op_nonzero, dlua_t(VECTOR(&s, DLUA_F32, 0, 5, -0.0, NAN)));
  CHECK(HAS_SHAPE(where, 2, 1) && where->dtype == DLUA_I64 && HOLDS(where, 2, 4));
  dlua_tensor *hot =
      dlua_call(&s, &dlua_op_one_hot, dlua_t(VECTOR(&s, DLUA_I64, 2, 1)), dlua_none());
  CHECK(HAS_SHAPE(hot, 2, 2) && HOLDS(hot, 0, 1, 1, 0));
  CHECK_FAILS(CALL_STATUS(&dlua_op_one_hot, dlua_t(VECTOR(&s, DLUA_I64, 1, 4)), dlua_i(3)),
              "one_hot: index 4 at position 2 is outside 1..3");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(sorting_is_stable_and_puts_nan_last) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *out[DLUA_MAX_OUT];
  dlua_tensor *x = VECTOR(&s, DLUA_F32, 2, NAN, -1, 0, -INFINITY, 2, -0.0, INFINITY);
  dlua_call_all(&s, &dlua_op_sort, out, dlua_t(x));
  CHECK(HOLDS(out[0], -INFINITY, -1, 0, 0, 2, 2, INFINITY, NAN));
  CHECK(HOLDS(out[1], 5, 3, 4, 7, 1, 6, 8, 2));
  dlua_call_all(&s, &dlua_op_sort, out, dlua_t(x), dlua_i(0), dlua_i(1));
  CHECK(HOLDS(out[1], 2, 8, 1, 6, 4, 7, 3, 5));
  dlua_call_all(&s, &dlua_op_topk, out, dlua_t(x), dlua_i(3));
  CHECK(HOLDS(out[0], NAN, INFINITY, 2) && HOLDS(out[1], 2, 8, 1));
  dlua_tensor *t = dlua_call(&s, &dlua_op_t, dlua_t(count_up(&s, DLUA_I64, 6, -1, SIZES(2, 3))));
  dlua_call_all(&s, &dlua_op_sort, out, dlua_t(t), dlua_i(0));
  CHECK(HOLDS(out[0], 4, 1, 5, 2, 6, 3) && HOLDS(out[1], 3, 3, 2, 2, 1, 1));
  CHECK_FAILS(CALL_STATUS(&dlua_op_topk, dlua_t(x), dlua_i(9)), "k 9 is outside 0..8");
  CHECK_OK(dlua_scope_end(&s));
}

// Few and many, short and long keys: a sorted lane is ordered, and the best k are its beginning.
SPEC(long_lanes_sort_as_short_ones) {
  dlua_scope s;
  dlua_scope_begin(&s);
  static const dlua_dtype dtypes[] = {DLUA_F32, DLUA_F64, DLUA_BF16, DLUA_F16,
                                      DLUA_I64, DLUA_I32, DLUA_U8};
  dlua_tensor *out[DLUA_MAX_OUT], *best[DLUA_MAX_OUT];
  for (int d = 0; d < 7; d++) {
    dlua_tensor *x = count_up(&s, DLUA_F64, 0, 0, SIZES(5000)), *y = NULL;
    if (!CHECK(s.status == DLUA_OK)) break;
    uint32_t state = 1;
    for (int k = 0; k < 5000; k++) {
      state = state * 1664525u + 1013904223u;
      dlua_f64(x)[k] = (double)(state >> 24) - (dtypes[d] == DLUA_U8 ? 0 : 100);
    }
    CHECK_OK(dlua_cast(x, dtypes[d], &y));
    dlua_own(&s, y);
    dlua_call_all(&s, &dlua_op_sort, out, dlua_t(y));
    dlua_call_all(&s, &dlua_op_topk, best, dlua_t(y), dlua_i(60), dlua_i(0), dlua_i(0));
    dlua_tensor *sorted = NULL;
    CHECK_OK(dlua_cast(out[0], DLUA_F64, &sorted));
    int wrong = 0;
    for (int k = 1; k < 5000; k++) {
      double before = dlua_f64(sorted)[k - 1], here = dlua_f64(sorted)[k];
      wrong += before > here || (before == here && dlua_i64(out[1])[k - 1] > dlua_i64(out[1])[k]);
    }
    CHECK(wrong == 0);
    CHECK(memcmp(dlua_i64(best[1]), dlua_i64(out[1]), 60 * sizeof(int64_t)) == 0);
    dlua_tensor_release(sorted);
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(empty_tensors_pass_through) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 0, 1, SIZES(0, 3)),
              *index = count_up(&s, DLUA_I64, 0, 1, SIZES(0));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_flip, dlua_t(x)), 0, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_pad, dlua_t(x), LIST(1, 1)), 0, 5));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_sort, dlua_t(x), dlua_i(0)), 0, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_index_select, dlua_t(x), dlua_t(index), dlua_i(1)), 0, 0));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_tril, dlua_t(x)), 0, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_nonzero, dlua_t(x)), 0, 2));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_roll, dlua_t(x), LIST(1), dlua_i(0)), 0, 3));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_one_hot, dlua_t(index), dlua_i(3)), 0, 3));
  CHECK(HOLDS(dlua_call(&s, &dlua_op_sum_to, dlua_t(x), LIST(3)), 0, 0, 0));
  CHECK(HAS_SHAPE(dlua_call(&s, &dlua_op_tile, dlua_t(x), LIST(2, 0)), 0, 0));
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(reshape_is_a_view_where_it_can_be);
  RUN(views_rename_dimensions);
  RUN(parts_are_seen_and_replaced);
  RUN(joining_works_for_every_width);
  RUN(pads_follow_their_mode);
  RUN(indices_count_from_one);
  RUN(a_bad_index_changes_nothing);
  RUN(a_source_may_be_the_target);
  RUN(masks_choose_elements);
  RUN(sorting_is_stable_and_puts_nan_last);
  RUN(long_lanes_sort_as_short_ones);
  RUN(empty_tensors_pass_through);
  return finish();
}
