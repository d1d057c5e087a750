// check.c - what a failed library call becomes: a status and one line that names the call.
#include <stdio.h>

#include "cuda.h"

// Bytes left on a GPU below which a failure is put down to them: loading the code of an engine takes
// tens of MiB.
#define FULL ((size_t)128 << 20)

bool dlua_cuda_quiet(cudaError_t error) {
  if (error != cudaSuccess) dlua_cuda_calls_table.cudaGetLastError();
  return error == cudaSuccess;
}

// What there is of a driver, where it is not enough for the runtime.
static const char *driver(void) {
  static char text[80];
  int version = 0;
  dlua_cuda_quiet(dlua_cuda_calls_table.cudaDriverGetVersion(&version));
  if (version == 0) return "; there is no driver of NVIDIA's";
  snprintf(text, sizeof text, "; the driver is for CUDA %d.%d, a newer one is needed",
           version / 1000, version % 1000 / 10);
  return text;
}

// What to do about it, where that is not plain. After a fault of a kernel the driver refuses all that
// this process asks for, and any later call may be the one that hears of it.
static const char *advice(cudaError_t error) {
  switch (error) {
  case cudaErrorIllegalAddress:
  case cudaErrorLaunchFailure:
  case cudaErrorLaunchTimeout:
  case cudaErrorMisalignedAddress:
  case cudaErrorIllegalInstruction:
  case cudaErrorInvalidAddressSpace:
  case cudaErrorInvalidPc:
  case cudaErrorHardwareStackError:
  case cudaErrorAssert:
  case cudaErrorECCUncorrectable:
    return "; start the process again to use the GPU (with DLUA_SYNC=1 it names the op that "
           "failed)";
  case cudaErrorInsufficientDriver: return driver();
  case cudaErrorUnsupportedPtxVersion: return "; a newer driver is needed";
  case cudaErrorNoKernelImageForDevice:
    return "; dlua_cuda.so was not built for this GPU (DLUA_CUDA_ARCHITECTURES)";
  case cudaErrorSystemNotReady: return "; is nvidia-fabricmanager running?";
  default: return "";
  }
}

dlua_status dlua_cuda_check(const char *call, cudaError_t error) {
  if (dlua_cuda_quiet(error)) return DLUA_OK;
  return dlua_fail(error == cudaErrorMemoryAllocation ? DLUA_NO_MEMORY : DLUA_BAD_DEVICE,
                   "%s: %s (%d)%s", call, dlua_cuda_calls_table.cudaGetErrorString(error),
                   (int)error, advice(error));
}

// Whether the GPU is so full that a library may have failed for want of memory. It may say so in no
// other way, and CUDA's last error says nothing: the libraries have a runtime of their own inside.
static bool is_full(void) {
  size_t free, all;
  return dlua_cuda_quiet(dlua_cuda_calls_table.cudaMemGetInfo(&free, &all)) && free < FULL;
}

dlua_status dlua_blas_check(const char *call, cublasStatus_t error) {
  if (error == CUBLAS_STATUS_SUCCESS) return DLUA_OK;
  dlua_status status = DLUA_BAD_DEVICE;
  if (error == CUBLAS_STATUS_NOT_SUPPORTED || error == CUBLAS_STATUS_ARCH_MISMATCH)
    status = DLUA_DECLINED;
  else if (error == CUBLAS_STATUS_ALLOC_FAILED ||
           (error != CUBLAS_STATUS_INVALID_VALUE && is_full()))
    status = DLUA_NO_MEMORY;
  return dlua_fail(status, "%s: %s (%d)", call,
                   dlua_cuda_calls_table.cublasLtGetStatusString(error), (int)error);
}

dlua_status dlua_dnn_check(const char *call, cudnnStatus_t error) {
  if (error == CUDNN_STATUS_SUCCESS) return DLUA_OK;
  int category = CUDNN_STATUS_CATEGORY((int)error);
  bool memory = error == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                error == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  dlua_status status = DLUA_BAD_DEVICE;
  if (category == CUDNN_STATUS_NOT_SUPPORTED)
    status = DLUA_DECLINED;
  else if (memory || (category != CUDNN_STATUS_BAD_PARAM && is_full()))
    status = DLUA_NO_MEMORY;
  return dlua_fail(status, "%s: %s (%d)", call, dlua_cuda_calls_table.cudnnGetErrorString(error),
                   (int)error);
}
