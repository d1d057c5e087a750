// cuda.h - every call of CUDA, cuBLASLt and cuDNN goes through one table of pointers and one of three
// macros, which turn a failure into a status and a message that names the call and what the library
// says about it:
//
//   CUDA_TRY(cudaMemsetAsync, block, 0, bytes, stream);
//
// The table holds the libraries' own functions (calls.c). A module built for tests has the emulator's
// instead (emulator/), which computes on the CPU and fails on demand.
#ifndef DLUA_GPU_CUDA_H
#define DLUA_GPU_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "../runtime/backend.h"

typedef struct dlua_cuda_calls {
#define CUDA_CALL(name) __typeof__(name) *name;
#define BLAS_CALL(name) __typeof__(name) *name;
#define DNN_CALL(name) __typeof__(name) *name;
#include "calls.def"
#undef CUDA_CALL
#undef BLAS_CALL
#undef DNN_CALL
  // Makes the n-th call of a function fail ("cudaMalloc", "any"; "cudaMalloc 2" with that code), and
  // for -n all after it too; 0 ends it. NULL where the functions are real.
  dlua_status (*test_fault)(const char *what, int n);
} dlua_cuda_calls;

extern const dlua_cuda_calls dlua_cuda_calls_table;

// DLUA_OK, or DLUA_NO_MEMORY or DLUA_BAD_DEVICE with the message "cudaMalloc: out of memory (2)". What
// cuBLASLt or cuDNN does not support is DLUA_DECLINED.
dlua_status dlua_cuda_check(const char *call, cudaError_t error);
dlua_status dlua_blas_check(const char *call, cublasStatus_t error);
dlua_status dlua_dnn_check(const char *call, cudnnStatus_t error);

// Whether a call worked that nobody is to hear of. A failure is not left behind in CUDA's last error,
// where whoever asks next, after a call of his own, would find it.
bool dlua_cuda_quiet(cudaError_t error);

// Gives back what nobody needs any more; whether a call that was short of memory is worth another try.
bool dlua_gpu_reclaim(void);

// The libraries ask for memory of their own: at a first launch, for handles, plans and products. A call
// that got none is made once more, as in dlua_alloc: none reads what it may have written by then.
#define DLUA_TRIED_AGAIN(expression) \
  __extension__({ \
    dlua_status tried = (expression); \
    if (tried == DLUA_NO_MEMORY && dlua_gpu_reclaim()) tried = (expression); \
    tried; \
  })
#define CUDA_STATUS(call, ...) \
  DLUA_TRIED_AGAIN(dlua_cuda_check(#call, dlua_cuda_calls_table.call(__VA_ARGS__)))
#define BLAS_STATUS(call, ...) \
  DLUA_TRIED_AGAIN(dlua_blas_check(#call, dlua_cuda_calls_table.call(__VA_ARGS__)))
#define DNN_STATUS(call, ...) \
  DLUA_TRIED_AGAIN(dlua_dnn_check(#call, dlua_cuda_calls_table.call(__VA_ARGS__)))
#define CUDA_TRY(...) DLUA_TRY(CUDA_STATUS(__VA_ARGS__))
#define BLAS_TRY(...) DLUA_TRY(BLAS_STATUS(__VA_ARGS__))
#define DNN_TRY(...) DLUA_TRY(DNN_STATUS(__VA_ARGS__))

#endif
