// run.h - what the files of the dispatch share: op.c, call.c, grad.c, device.c.
#ifndef DLUA_RUN_H
#define DLUA_RUN_H

#include "backend.h"

// Runs the op's fast kernels in order, then its plain one, on host-readable tensors.
dlua_status dlua_run_cpu(const dlua_args *a);

#endif
