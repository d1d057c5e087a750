// program.h - a small program that touches memory in every way the runtime has: fresh tensors,
// views, in-place writes, several results, data-dependent shapes, a recorded graph and its backward
// pass.
#ifndef DLUA_SPEC_PROGRAM_H
#define DLUA_SPEC_PROGRAM_H

#include "check.h"

static inline dlua_tensor *moved_to(dlua_scope *s, dlua_tensor *x, dlua_device *device) {
  dlua_tensor *there = NULL;
  if (!x) return NULL;
  dlua_status status = dlua_to_device(x, device, &there);
  return status == DLUA_OK ? dlua_own(s, there) : dlua_failed(s, status);
}

// Runs on a device; result, where wanted, is the gradient of a leaf, owned by the caller.
static inline dlua_status program(dlua_device *device, dlua_tensor **result) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = moved_to(&s, count_up(&s, DLUA_F32, -1, 0.25, SIZES(4, 5)), device);
  dlua_tensor *index = moved_to(&s, VECTOR(&s, DLUA_I64, 2, 4, 1), device), *out[DLUA_MAX_OUT];
  if (x) x->requires_grad = true;
  dlua_tensor *y = dlua_mul(&s, x, dlua_call(&s, &dlua_op_exp, dlua_t(x)));
  y = dlua_call(&s, &dlua_op_pad, dlua_t(y), LIST(1, 1), dlua_i(1));
  dlua_tensor *rows = dlua_call(&s, &dlua_op_index_select, dlua_t(y), dlua_t(index), dlua_i(0));
  dlua_call_all(&s, &dlua_op_topk, out, dlua_t(rows), dlua_i(2));
  dlua_tensor *mask = dlua_call(&s, &dlua_op_gt, dlua_t(rows), dlua_t(dlua_num(&s, 0)));
  dlua_tensor *some = dlua_call(&s, &dlua_op_masked_select, dlua_t(rows), dlua_t(mask));
  dlua_tensor *joined = dlua_call_list(
      &s, &dlua_op_cat, 2, (dlua_tensor *[]){dlua_call(&s, &dlua_op_flatten, dlua_t(out[0])), some},
      1, (dlua_arg[]){dlua_i(0)});
  dlua_tensor *loss = dlua_call(&s, &dlua_op_sum, dlua_t(joined));
  if (s.status == DLUA_OK) s.status = dlua_backward(loss, NULL, false, false);
  if (s.status == DLUA_OK && result) *result = dlua_tensor_retain(x->grad);
  return dlua_scope_end(&s);
}

#endif
