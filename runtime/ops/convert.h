// convert.h - copying elements between any two strided host tensors.
#ifndef DLUA_OPS_CONVERT_H
#define DLUA_OPS_CONVERT_H

#include "../op.h"

// dst = src, element by element; the same shape, host-readable, any strides and dtypes, no overlap.
// Floats become integers by truncation, saturated at the ends of the range, nan as 0; bool is
// whether the number differs from 0. Blocked layouts only when both are of the same one.
void dlua_convert(dlua_tensor *dst, const dlua_tensor *src);
// A float as an element of an integer dtype, by the same rule.
int64_t dlua_to_integer(double x, dlua_dtype dtype);

#endif
