// check.c - what a failed library call becomes: a status and one line that names the call.
#include "cuda.h"

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
  case cudaErrorInsufficientDriver: return "; a newer driver is needed";
  case cudaErrorSystemNotReady: return "; is nvidia-fabricmanager running?";
  default: return "";
  }
}

dlua_status dlua_cuda_check(const char *call, cudaError_t error) {
  if (error == cudaSuccess) return DLUA_OK;
  dlua_cuda_calls_table.cudaGetLastError(); // or the next call that asks would report this one
  return dlua_fail(error == cudaErrorMemoryAllocation ? DLUA_NO_MEMORY : DLUA_BAD_DEVICE,
                   "%s: %s (%d)%s", call, dlua_cuda_calls_table.cudaGetErrorString(error),
                   (int)error, advice(error));
}

// Whether a library failed because CUDA, which it called, had no memory; it may say so in no other way.
static bool cuda_was_short(void) {
  return dlua_cuda_calls_table.cudaGetLastError() == cudaErrorMemoryAllocation;
}

dlua_status dlua_blas_check(const char *call, cublasStatus_t error) {
  if (error == CUBLAS_STATUS_SUCCESS) return DLUA_OK;
  bool memory = cuda_was_short() || error == CUBLAS_STATUS_ALLOC_FAILED;
  bool unsupported = error == CUBLAS_STATUS_NOT_SUPPORTED || error == CUBLAS_STATUS_ARCH_MISMATCH;
  dlua_status status = memory ? DLUA_NO_MEMORY : unsupported ? DLUA_DECLINED : DLUA_BAD_DEVICE;
  return dlua_fail(status, "%s: %s (%d)", call,
                   dlua_cuda_calls_table.cublasLtGetStatusString(error), (int)error);
}

dlua_status dlua_dnn_check(const char *call, cudnnStatus_t error) {
  if (error == CUDNN_STATUS_SUCCESS) return DLUA_OK;
  bool memory = cuda_was_short() || error == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                error == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  bool unsupported = CUDNN_STATUS_CATEGORY((int)error) == CUDNN_STATUS_NOT_SUPPORTED;
  dlua_status status = memory ? DLUA_NO_MEMORY : unsupported ? DLUA_DECLINED : DLUA_BAD_DEVICE;
  return dlua_fail(status, "%s: %s (%d)", call, dlua_cuda_calls_table.cudnnGetErrorString(error),
                   (int)error);
}
