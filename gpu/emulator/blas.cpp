// blas.cpp - cuBLASLt on the CPU: descriptors hold what was set, a product is three loops.
#include "faults.h"
#include "functions.h"

using emulator::fault;

#define RETURN_FAULT(name) \
  if (int code = fault(#name)) return (cublasStatus_t)code

namespace emulator {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  RETURN_FAULT(cublasLtCreate);
  static int one;
  *handle = (cublasLtHandle_t)&one;
  return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
  case CUBLAS_STATUS_EXECUTION_FAILED: return "the function failed to launch on the GPU";
  case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality is not supported";
  default: return "an error of the emulator";
  }
}

} // namespace emulator
