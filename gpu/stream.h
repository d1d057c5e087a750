// stream.h - one CUDA device's queue: copies, kernels, and the cell in which a kernel notes a bad
// index. Plain enough for C and C++; no type of CUDA's in it.
#ifndef DLUA_GPU_STREAM_H
#define DLUA_GPU_STREAM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "../runtime/args.h"

// Opens what has to be there before any work: counts devices, checks the driver. Called once.
dlua_status dlua_gpu_open(int *count);

dlua_status dlua_gpu_alloc(int index, size_t bytes, void **block);
void dlua_gpu_free(int index, void *block, size_t bytes);
dlua_status dlua_gpu_from_host(int index, void *dst, const void *src, size_t bytes);
dlua_status dlua_gpu_to_host(int index, void *dst, const void *src, size_t bytes);
dlua_status dlua_gpu_copy(int index, void *dst, const void *src, size_t bytes);
dlua_status dlua_gpu_fill_bytes(int index, void *dst, int byte, size_t bytes);
dlua_status dlua_gpu_synchronize(int index);

// Makes a device current; *queue is its cudaStream_t, for calls of other libraries.
dlua_status dlua_gpu_queue(int index, void **queue);

// Queues a kernel of the call's device; a kernel of no blocks is no work. For launch() in kernel.h.
dlua_status dlua_gpu_launch(const dlua_args *a, const void *kernel, const unsigned blocks[3],
                            const unsigned threads[3], void **arguments);

// Where a kernel that meets an index outside 1..extent leaves word of it. The first one stays until
// the host has seen it; the call and the script's line are remembered when the kernel is queued.
typedef struct dlua_bad_index {
  uint64_t call;                   // 0: none so far
  int64_t value, position, extent; // position counts from 0
} dlua_bad_index;

typedef struct dlua_index_check {
  dlua_bad_index *cell; // device memory
  uint64_t call;
} dlua_index_check;

// What the next kernel of this call gets to check its indices with.
dlua_status dlua_gpu_index_check(const dlua_args *a, dlua_index_check *check);
// The same for another number that only a kernel knows: the message is "op: before value after".
dlua_status dlua_gpu_value_check(const dlua_args *a, const char *before, const char *after,
                                 dlua_index_check *check);

#ifdef __cplusplus
}
#endif

#endif
