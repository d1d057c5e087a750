// iterate.h - one loop over several tensors that broadcast to the shape of the first.
//
//   static void add_row(void *context, int64_t count, char **data, const int64_t *stride) {
//     for (int64_t k = 0; k < count; k++)
//       *(float *)(data[0] + k * stride[0]) =
//           *(float *)(data[1] + k * stride[1]) + *(float *)(data[2] + k * stride[2]);
//   }
//   dlua_iter it;
//   dlua_iter_begin(&it, 3, (dlua_tensor *[]){out, x, y});
//   dlua_iter_run(&it, 1, add_row, NULL);
//
// Dimensions are reordered and merged, so a row is as long as the operands allow; its order is not
// the logical one. Rows may be cut anywhere: a row function must treat every element alike.
#ifndef DLUA_OPS_ITERATE_H
#define DLUA_OPS_ITERATE_H

#include "../args.h"

#define DLUA_ITER_OPERANDS 5

typedef struct dlua_iter {
  int n, ndim;                                       // operands; at least one dimension
  int64_t size[DLUA_MAX_DIMS];                       // [0] is the innermost
  int64_t stride[DLUA_ITER_OPERANDS][DLUA_MAX_DIMS]; // bytes, 0 where an operand is repeated
  char *data[DLUA_ITER_OPERANDS];
} dlua_iter;

// Works on count elements; element k of operand i lies at data[i] + k * stride[i].
typedef void dlua_row(void *context, int64_t count, char **data, const int64_t *stride);

// x with the dimensions of a number of kind D running backwards: a struct over the same storage that
// holds no reference.
dlua_tensor dlua_flipped(const dlua_tensor *x, const dlua_value *dims);
// Lays out the loop over operands[0] (the result) with the others broadcast to it, in any layouts but
// blocked ones: those only where all operands are of one shape and layout (or have one element).
void dlua_iter_begin(dlua_iter *it, int n, dlua_tensor *const *operands);
// Calls row over all elements, on the whole team where count * cost is worth it (parallel.h).
void dlua_iter_run(const dlua_iter *it, double cost, dlua_row *row, void *context);
// The same on this thread only, in one fixed order.
void dlua_iter_run_serial(const dlua_iter *it, dlua_row *row, void *context);

#endif
