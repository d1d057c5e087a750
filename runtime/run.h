// run.h - one call of dlua_run while it is under way, for the files its stages stand in: op.c (the
// order, targets, kernels), op_check.c (what is refused), op_convert.c (what is converted).
#ifndef DLUA_RUN_H
#define DLUA_RUN_H

#include "op.h"

// A converted number operand: a 0-d tensor that lives as long as the run and costs no allocation.
typedef struct dlua_number {
  dlua_tensor tensor;
  dlua_storage storage;
  uint64_t value;
} dlua_number;

// What one run holds besides its arguments.
typedef struct dlua_frame {
  dlua_args *a;
  const dlua_signature *sig;
  dlua_tensor **given;                 // the caller's inputs, while a->in points to converted ones
  dlua_tensor *converted[DLUA_MAX_IN]; // used unless there are more inputs
  dlua_tensor **in;
  int ntemps;
  dlua_tensor *few[2 * DLUA_MAX_IN], **temps;
  int nnumbers;
  dlua_number numbers[3];
  dlua_dtype narrow; // bf16 or f16 while the kernel computes in f32, else DLUA_F32
  dlua_dtype final[DLUA_MAX_OUT];
  dlua_tensor *results[DLUA_MAX_OUT]; // what the caller gets; out[] is what the kernel writes
  dlua_node *node;                    // the record of this call
  bool record;
} dlua_frame;

// The parameter of input k; all items of a list have that of the list.
static inline const dlua_param *dlua_input_param(const dlua_args *a, int k) {
  return &a->sig->tensor[k < a->sig->ntensor ? k : a->sig->ntensor - 1];
}
static inline const char *dlua_input_name(const dlua_args *a, int k) {
  return dlua_input_param(a, k)->name;
}
// Is word one of the words of list, which stand apart by spaces?
bool dlua_word_in(const char *word, const char *list);
// bool 0, integers 1, floats 2: a lower kind never decides the dtype of a result.
static inline int dlua_dtype_kind(dlua_dtype dtype) {
  return dlua_is_float(dtype) ? 2 : dtype != DLUA_BOOL;
}
// The call as messages name it, "add_" when it is in place. Borrowed until the thread's next one.
const char *dlua_call_name(const dlua_args *a);

// Refuses missing inputs, several devices, stale views, dimensions out of range and targets that
// may not be changed in place; makes dimensions non-negative and sets a->device.
dlua_status dlua_check_call(dlua_args *a);
// Once the shape rule has spoken: refuses numbers its dtype cannot hold, and a recorded call of an
// op without gradient. Clears f->record when no result can carry one.
dlua_status dlua_check_results(dlua_frame *f);
// Refuses an in-place result of another shape or a higher kind than its target's.
dlua_status dlua_check_target(const dlua_frame *f);

// Brings the inputs to the dtypes of the op's rule and to layouts its kernels take; sets the
// results' dtype and layout. What it makes belongs to the frame.
dlua_status dlua_convert_inputs(dlua_frame *f);
// Copies sources of an in-place call that overlap the target in another order.
dlua_status dlua_copy_overlaps(dlua_frame *f);

#endif
