// stream.h - one CUDA device's queue: copies, kernels, and the cell in which a kernel notes a bad
// value. Plain enough for C and C++; no type of CUDA's in it.
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
dlua_status dlua_gpu_send(int index, const void *src, size_t bytes, uint64_t *ticket);
dlua_status dlua_gpu_receive(int index, uint64_t ticket, void *dst, size_t bytes, bool *arrived);

// Makes a device current on this thread; which one is, -1 at the start.
dlua_status dlua_gpu_select(int index);
int dlua_gpu_current(void);
// The same; *queue is its cudaStream_t, for calls of other libraries.
dlua_status dlua_gpu_queue(int index, void **queue);
// What such a call's cudaError_t becomes; see dlua_cuda_check.
dlua_status dlua_gpu_check(const char *call, int error);

// Queues a kernel of the call's device; a kernel of no blocks is no work. For launch() in kernel.h.
dlua_status dlua_gpu_launch(const dlua_args *a, const void *kernel, const unsigned blocks[3],
                            const unsigned threads[3], void **arguments);

// What a kernel may find wrong with the values it is given.
typedef enum dlua_fault_kind {
  DLUA_FAULT_INDEX,       // value is outside 1..extent
  DLUA_FAULT_DIVISOR,     // an integer divisor is 0
  DLUA_FAULT_EXPONENT,    // an integer exponent is negative
  DLUA_FAULT_PROBABILITY, // the double whose bits are value is outside 0..1
  DLUA_FAULT_SCORE,       // the same, where a score was taken for a probability
  DLUA_FAULT_LABEL,       // value is no class of 1..extent
  DLUA_FAULT_SOURCE,      // a mask has value places for a source of extent elements
} dlua_fault_kind;

// Where a kernel leaves word of that: of the first call with a fault the one at the smallest position,
// which stays until the host has seen it. The call, its shapes and the script's line are remembered
// when the kernel is queued.
typedef struct dlua_fault {
  uint64_t call; // 0: none so far
  uint32_t lock; // 1: a thread is writing
  dlua_fault_kind kind;
  int64_t value, position, extent; // position counts from 0
} dlua_fault;

typedef struct dlua_index_check {
  dlua_fault *cell; // device memory
  uint64_t call;
} dlua_index_check;

// What the next kernel of this call gets to check its indices and other values with.
dlua_status dlua_gpu_index_check(const dlua_args *a, dlua_index_check *check);

#ifdef __cplusplus
}
#endif

#endif
