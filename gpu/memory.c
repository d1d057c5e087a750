// memory.c - blocks that this module keeps for itself.
#include "cuda.h"

dlua_status dlua_cuda_device_memory(void **block, size_t bytes) {
  dlua_status status = CUDA_STATUS(cudaMalloc, block, bytes);
  if (status == DLUA_NO_MEMORY && dlua_reclaim()) status = CUDA_STATUS(cudaMalloc, block, bytes);
  return status;
}

dlua_status dlua_cuda_pinned_memory(void **memory, size_t bytes) {
  dlua_status status = CUDA_STATUS(cudaHostAlloc, memory, bytes, cudaHostAllocDefault);
  if (status == DLUA_NO_MEMORY && dlua_reclaim())
    status = CUDA_STATUS(cudaHostAlloc, memory, bytes, cudaHostAllocDefault);
  return status;
}
