// The tape: values, second order, what it refuses, how it lets go.
#include "check.h"

static dlua_tensor *leaf(dlua_tensor *x) {
  if (x) x->requires_grad = true;
  return x;
}

SPEC(a_cube_has_its_derivatives) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F64, 2, -3)), *first = NULL, *second = NULL;
  dlua_tensor *y = dlua_mul(&s, dlua_mul(&s, x, x), x);
  dlua_tensor *sum = dlua_call(&s, &dlua_op_sum, dlua_t(y));
  if (CHECK(s.status == DLUA_OK)) {
    CHECK_OK(dlua_grad(1, &sum, NULL, 1, &x, true, true, &first));
    CHECK(HOLDS(first, 12, 27));
    dlua_own(&s, first);
    dlua_tensor *again = dlua_call(&s, &dlua_op_sum, dlua_t(first));
    CHECK_OK(dlua_grad(1, &again, NULL, 1, &x, false, false, &second));
    CHECK(HOLDS(second, 12, -18));
    dlua_own(&s, second);
    CHECK(x->grad == NULL);
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(gradients_add_up_in_leaves) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F32, 1, 2)), *y = leaf(VECTOR(&s, DLUA_F32, 5));
  for (int k = 0; k < 2; k++) {
    dlua_tensor *sum = dlua_call(&s, &dlua_op_sum, dlua_t(dlua_mul(&s, x, y)));
    CHECK_OK(dlua_backward(sum, NULL, false, false));
  }
  CHECK(HOLDS(x->grad, 10, 10) && HOLDS(y->grad, 6));
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(a_graph_is_used_once) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F32, 1, 2));
  dlua_tensor *y = dlua_mul(&s, x, x), *sum = dlua_call(&s, &dlua_op_sum, dlua_t(y));
  CHECK_FAILS(dlua_backward(y, NULL, false, false), "backward");
  CHECK_OK(dlua_backward(sum, NULL, true, false));
  CHECK_OK(dlua_backward(sum, NULL, false, false));
  CHECK_FAILS(dlua_backward(sum, NULL, false, false), "");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(changing_a_saved_tensor_is_an_error) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F32, 1, 2)), *v = dlua_mul(&s, x, dlua_num(&s, 2));
  dlua_tensor *sum = dlua_call(&s, &dlua_op_sum, dlua_t(dlua_mul(&s, v, v)));
  dlua_args a;
  dlua_args_init(&a, &dlua_op_add);
  a.inplace = true, a.in[0] = v, a.in[1] = dlua_num(&s, 1);
  CHECK_OK(dlua_run(&a));
  dlua_tensor_release(a.out[0]);
  CHECK_FAILS(dlua_backward(sum, NULL, false, false), "in place");
  CHECK_FAILS(dlua_backward(sum, NULL, false, false), "mul");
  a.in[0] = x, a.out[0] = NULL;
  CHECK_FAILS(dlua_run(&a), "leaf");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(without_grad_mode_nothing_is_recorded) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F32, 1, 2));
  bool before = dlua_set_grad_mode(false);
  dlua_tensor *y = dlua_mul(&s, x, x);
  dlua_set_grad_mode(before);
  CHECK(before && y && !y->requires_grad && !y->node);
  CHECK_OK(dlua_scope_end(&s));
}

// A million calls in a row: neither the walk nor the release may use the C stack per node.
static dlua_tensor *long_chain(dlua_tensor *x) {
  dlua_tensor *y = dlua_tensor_retain(x);
  dlua_args a;
  for (int k = 0; k < 1000000; k++) {
    dlua_args_init(&a, &dlua_op_add);
    a.in[0] = y, a.in[1] = x;
    if (!CHECK_OK(dlua_run(&a))) break;
    dlua_tensor_release(y);
    y = a.out[0];
  }
  checks -= 999999;
  return y;
}

SPEC(a_million_nodes_are_released) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F32, 1));
  if (CHECK(s.status == DLUA_OK)) dlua_tensor_release(long_chain(x));
  CHECK(x->refs == 1);
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(a_million_nodes_are_walked) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = leaf(VECTOR(&s, DLUA_F32, 1));
  if (CHECK(s.status == DLUA_OK)) {
    dlua_tensor *y = long_chain(x), *sum = dlua_call(&s, &dlua_op_sum, dlua_t(y));
    CHECK_OK(dlua_backward(sum, NULL, false, false));
    CHECK(HOLDS(x->grad, 1000001));
    dlua_tensor_release(y);
  }
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(a_cube_has_its_derivatives);
  RUN(gradients_add_up_in_leaves);
  RUN(a_graph_is_used_once);
  RUN(changing_a_saved_tensor_is_an_error);
  RUN(without_grad_mode_nothing_is_recorded);
  RUN(a_million_nodes_are_released);
  RUN(a_million_nodes_are_walked);
  return finish();
}
