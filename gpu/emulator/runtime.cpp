// runtime.cpp - the CUDA runtime on the CPU: memory is host memory, a stream does at once what it is
// asked, a launch runs the kernel's threads as fibers. Every function first asks whether a test
// wants it to fail (faults.h).
#include <cstdlib>
#include <cstring>

#include "faults.h"
#include "fibers.h"
#include "functions.h"

using emulator::fault;

namespace {

enum { DEVICES = 2 };
int current_device;

} // namespace

#define RETURN_FAULT(name) \
  if (int code = fault(#name)) return (cudaError_t)code

namespace emulator {

cudaError_t cudaGetDeviceCount(int *count) {
  RETURN_FAULT(cudaGetDeviceCount);
  *count = DEVICES;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  RETURN_FAULT(cudaSetDevice);
  if (device < 0 || device >= DEVICES) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  RETURN_FAULT(cudaGetDeviceProperties);
  if (device < 0 || device >= DEVICES) return cudaErrorInvalidDevice;
  *p = cudaDeviceProp();
  std::strcpy(p->name, "emulator");
  p->major = 9, p->minor = 0, p->multiProcessorCount = 1, p->totalGlobalMem = (size_t)1 << 30;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  RETURN_FAULT(cudaMemGetInfo);
  *free = *total = (size_t)1 << 30;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
  RETURN_FAULT(cudaDriverGetVersion);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  RETURN_FAULT(cudaRuntimeGetVersion);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
  case cudaSuccess: return "no error";
  case cudaErrorMemoryAllocation: return "out of memory";
  case cudaErrorNoDevice: return "no CUDA-capable device is detected";
  case cudaErrorInsufficientDriver:
    return "CUDA driver version is insufficient for CUDA runtime version";
  case cudaErrorLaunchFailure: return "unspecified launch failure";
  case cudaErrorLaunchTimeout: return "the launch timed out and was terminated";
  case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
  default: return "an error of the emulator";
  }
}

// ---------------------------------------------------------------- memory

cudaError_t cudaMalloc(void **block, size_t bytes) {
  RETURN_FAULT(cudaMalloc);
  return posix_memalign(block, 256, bytes ? bytes : 1) ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void *block) {
  RETURN_FAULT(cudaFree);
  std::free(block);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **block, size_t bytes, unsigned) {
  RETURN_FAULT(cudaHostAlloc);
  return posix_memalign(block, 4096, bytes ? bytes : 1) ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void *block) {
  RETURN_FAULT(cudaFreeHost);
  std::free(block);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  RETURN_FAULT(cudaMemcpyAsync);
  std::memmove(dst, src, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int byte, size_t bytes, cudaStream_t) {
  RETURN_FAULT(cudaMemsetAsync);
  std::memset(dst, byte, bytes);
  return cudaSuccess;
}

// ---------------------------------------------------------------- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  RETURN_FAULT(cudaStreamCreateWithFlags);
  *stream = (cudaStream_t)std::malloc(1);
  return *stream ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  RETURN_FAULT(cudaStreamSynchronize);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  RETURN_FAULT(cudaStreamWaitEvent);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  RETURN_FAULT(cudaDeviceSynchronize);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  RETURN_FAULT(cudaEventCreateWithFlags);
  *event = (cudaEvent_t)std::malloc(1);
  return *event ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  RETURN_FAULT(cudaEventDestroy);
  std::free((void *)event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  RETURN_FAULT(cudaEventRecord);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t) {
  RETURN_FAULT(cudaEventQuery);
  return cudaSuccess;
}

// All take the same time.
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) {
  RETURN_FAULT(cudaEventElapsedTime);
  *milliseconds = 1;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t) {
  RETURN_FAULT(cudaEventSynchronize);
  return cudaSuccess;
}

// ---------------------------------------------------------------- kernels

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t,
                             cudaStream_t) {
  RETURN_FAULT(cudaLaunchKernel);
  size_t threads = (size_t)block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  return run_grid((void (*)(void **))function, arguments, grid, block) ? cudaSuccess
                                                                       : cudaErrorLaunchTimeout;
}

} // namespace emulator
