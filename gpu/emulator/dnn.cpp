// dnn.cpp - cuDNN's backend on the CPU: descriptors hold the attributes that were set, a convolution
// is plain loops.
#include "faults.h"
#include "functions.h"

using emulator::fault;

namespace emulator {

const char *cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
  case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
  case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
  default: return "an error of the emulator";
  }
}

size_t cudnnGetVersion() { return CUDNN_VERSION; }

} // namespace emulator
