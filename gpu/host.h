// host.h - the runtime as seen from this module. Functions of the runtime that kernels need are
// here under their own names, forwarded through the table that dlua_module was given.
#ifndef DLUA_GPU_HOST_H
#define DLUA_GPU_HOST_H

#include "../runtime/backend.h"

extern const dlua_host *dlua_gpu_host;

#endif
