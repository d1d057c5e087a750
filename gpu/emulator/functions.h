// functions.h - the emulator's own version of every function in calls.def, in its namespace.
#ifndef DLUA_GPU_EMULATOR_FUNCTIONS_H
#define DLUA_GPU_EMULATOR_FUNCTIONS_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

namespace emulator {

#define CUDA_CALL(name) extern decltype(::name) name;
#define BLAS_CALL(name) extern decltype(::name) name;
#define DNN_CALL(name) extern decltype(::name) name;
#include "../calls.def"
#undef CUDA_CALL
#undef BLAS_CALL
#undef DNN_CALL

} // namespace emulator

#endif
