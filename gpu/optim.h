// optim.h - passes over all parameters of an optimiser at once, see backend.h.
#ifndef DLUA_GPU_OPTIM_H
#define DLUA_GPU_OPTIM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "../runtime/backend.h"

dlua_status dlua_gpu_step(dlua_device *device, const dlua_optim *o, dlua_dtype dtype, int64_t step,
                          int n, const dlua_pass *passes, dlua_tensor *verdict,
                          dlua_tensor *skipped);
dlua_status dlua_gpu_look(dlua_device *device, dlua_dtype dtype, int n, const dlua_pass *passes,
                          const dlua_tensor *scale, dlua_tensor *verdict);
dlua_status dlua_gpu_clip(dlua_device *device, dlua_dtype dtype, int n, const dlua_pass *passes,
                          double p, double max_norm, dlua_tensor *norm);

#ifdef __cplusplus
}
#endif

#endif
