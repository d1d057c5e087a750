// create.h - sizes given by a script, checked before anything is allocated.
#ifndef DLUA_CREATE_H
#define DLUA_CREATE_H

#include "../op.h"

// Refuses negative sizes and products that overflow: "zeros: size -1 of dimension 1 is negative".
dlua_status dlua_check_sizes(const dlua_args *a, int n, const int64_t *size);
// Shape rule of creation ops whose first number is size:s.
dlua_status dlua_shape_sized(dlua_args *a);

#endif
