// stream.c - one stream per device, in which everything happens in order. Nothing waits for the
// device but to_host and synchronize; there, what kernels noted meanwhile becomes an error. Copies
// from and to the host go through pinned memory (staging.c).
#include "stream.h"

#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "host.h"
#include "notes.h"
#include "staging.h"

enum { MOST_DEVICES = 16, REMEMBERED = 256 };

// A call whose kernel checks values, kept until its error could have been seen.
typedef struct remembered {
  uint64_t call;
  const dlua_op *op;
  int ndim[2]; // of its first two inputs
  int64_t size[2][DLUA_MAX_DIMS];
  char where[120];
} remembered;

typedef struct stream {
  cudaStream_t queue;
  dlua_staging staging;
  dlua_notes notes;
  dlua_fault *cell; // on the device
  uint64_t calls;   // that check values
  uint64_t checked; // of those, how many had been queued when the cell was last read
  remembered ring[REMEMBERED];
} stream;

static stream streams[MOST_DEVICES];

dlua_status dlua_gpu_open(int *count) {
  CUDA_TRY(cudaGetDeviceCount, count);
  if (*count > MOST_DEVICES) *count = MOST_DEVICES;
  return DLUA_OK;
}

static _Thread_local int current = -1;

int dlua_gpu_current(void) { return current; }

// Makes the device current; nobody else in the process changes it.
dlua_status dlua_gpu_select(int index) {
  if (index == current) return DLUA_OK;
  CUDA_TRY(cudaSetDevice, index);
  current = index;
  return DLUA_OK;
}

// Makes the device current, with its stream there.
static dlua_status use(int index, stream **s) {
  *s = &streams[index];
  DLUA_TRY(dlua_gpu_select(index));
  if (!(*s)->queue) CUDA_TRY(cudaStreamCreateWithFlags, &(*s)->queue, cudaStreamNonBlocking);
  return DLUA_OK;
}

dlua_status dlua_gpu_queue(int index, void **queue) {
  stream *s;
  DLUA_TRY(use(index, &s));
  *queue = s->queue;
  return DLUA_OK;
}

dlua_status dlua_gpu_check(const char *call, int error) {
  // Many launches, and some may have been made: the next call may find memory, this one is not repeated.
  if (error == cudaErrorMemoryAllocation) dlua_gpu_reclaim();
  return dlua_cuda_check(call, (cudaError_t)error);
}

// ---------------------------------------------------------------- memory

dlua_status dlua_gpu_alloc(int index, size_t bytes, void **block) {
  stream *s;
  DLUA_TRY(use(index, &s));
  CUDA_TRY(cudaMalloc, block, bytes);
  return DLUA_OK;
}

// What is queued may use the block still, and of cudaFree no more is said than that it may wait for it.
// Where waiting fails the device is gone, and its memory with it.
void dlua_gpu_free(int index, void *block, size_t bytes) {
  stream *s;
  (void)bytes;
  if (use(index, &s) == DLUA_OK &&
      dlua_cuda_quiet(dlua_cuda_calls_table.cudaStreamSynchronize(s->queue)))
    dlua_cuda_quiet(dlua_cuda_calls_table.cudaFree(block));
}

dlua_status dlua_gpu_from_host(int index, void *dst, const void *src, size_t bytes) {
  stream *s;
  DLUA_TRY(use(index, &s));
  return dlua_stage_in(&s->staging, s->queue, dst, src, bytes);
}

dlua_status dlua_gpu_copy(int index, void *dst, const void *src, size_t bytes) {
  stream *s;
  DLUA_TRY(use(index, &s));
  CUDA_TRY(cudaMemcpyAsync, dst, src, bytes, cudaMemcpyDeviceToDevice, s->queue);
  return DLUA_OK;
}

dlua_status dlua_gpu_fill_bytes(int index, void *dst, int byte, size_t bytes) {
  stream *s;
  DLUA_TRY(use(index, &s));
  CUDA_TRY(cudaMemsetAsync, dst, byte, bytes, s->queue);
  return DLUA_OK;
}

// ---------------------------------------------------------------- bad values

// What is wrong, in the words of the CPU's kernels.
static void describe(char *text, size_t n, const remembered *call, const dlua_fault *fault) {
  const char *x = dlua_sizes_text(call->ndim[0], call->size[0]);
  const char *y = dlua_sizes_text(call->ndim[1], call->size[1]);
  double real;
  memcpy(&real, &fault->value, sizeof real);
  switch (fault->kind) {
  case DLUA_FAULT_INDEX:
    snprintf(text, n, "index %lld at position %lld is outside 1..%lld%s", (long long)fault->value,
             (long long)fault->position + 1, (long long)fault->extent,
             fault->value == 0 ? " (indices start at 1)" : "");
    return;
  case DLUA_FAULT_DIVISOR: snprintf(text, n, "integer division by zero (x %s, y %s)", x, y); return;
  case DLUA_FAULT_EXPONENT:
    snprintf(text, n,
             "an integer to a negative power is no integer; use a float tensor (x %s, y %s)", x, y);
    return;
  case DLUA_FAULT_PROBABILITY:
    snprintf(text, n, "p %g at position %lld is outside 0..1", real,
             (long long)fault->position + 1);
    return;
  case DLUA_FAULT_SCORE:
    snprintf(text, n, "x %g at position %lld is outside 0..1; bce_with_logits takes scores (x %s)",
             real, (long long)fault->position + 1, x);
    return;
  case DLUA_FAULT_SOURCE:
    snprintf(text, n, "mask is true at %lld positions but source has %lld elements (x %s, mask %s)",
             (long long)fault->value, (long long)fault->extent, x, y);
    return;
  case DLUA_FAULT_LABEL:
    snprintf(text, n, "target %lld at position %lld is outside 1..%lld (class labels start at 1)",
             (long long)fault->value, (long long)fault->position + 1, (long long)fault->extent);
    return;
  }
}

static dlua_status report(stream *s, const dlua_fault *fault) {
  static const remembered forgotten;
  const remembered *call = &s->ring[fault->call % REMEMBERED];
  if (call->call != fault->call) call = &forgotten;
  char text[512];
  describe(text, sizeof text, call, fault);
  const char *name = call->op ? call->op->name : "an earlier call";
  if (!call->where[0]) return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s", name, text);
  return dlua_fail(DLUA_BAD_EARLIER, "%s: %s  %s", name, text, call->where);
}

// Waits; then reads the cell if a kernel may have written to it since.
static dlua_status wait(stream *s) {
  dlua_fault fault = {0};
  bool look = s->cell && s->checked < s->calls;
  if (look)
    CUDA_TRY(cudaMemcpyAsync, &fault, s->cell, sizeof fault, cudaMemcpyDeviceToHost, s->queue);
  CUDA_TRY(cudaStreamSynchronize, s->queue);
  s->checked = s->calls;
  if (!look || fault.call == 0) return DLUA_OK;
  CUDA_TRY(cudaMemsetAsync, s->cell, 0, sizeof *s->cell, s->queue);
  return report(s, &fault);
}

dlua_status dlua_gpu_index_check(const dlua_args *a, dlua_index_check *check) {
  stream *s;
  DLUA_TRY(use(a->device->index, &s));
  if (!s->cell) {
    void *cell = NULL;
    CUDA_TRY(cudaMalloc, &cell, sizeof *s->cell);
    s->cell = cell;
    CUDA_TRY(cudaMemsetAsync, s->cell, 0, sizeof *s->cell, s->queue);
  }
  remembered *call = &s->ring[++s->calls % REMEMBERED];
  call->call = s->calls, call->op = a->op;
  for (int k = 0; k < 2; k++) {
    const dlua_tensor *x = k < a->nin ? a->in[k] : NULL;
    call->ndim[k] = x ? x->ndim : 0;
    if (x) memcpy(call->size[k], x->size, sizeof x->size);
  }
  dlua_gpu_host->where(call->where, sizeof call->where);
  *check = (dlua_index_check){s->cell, s->calls};
  return DLUA_OK;
}

// ---------------------------------------------------------------- waiting

dlua_status dlua_gpu_to_host(int index, void *dst, const void *src, size_t bytes) {
  stream *s;
  DLUA_TRY(use(index, &s));
  DLUA_TRY(dlua_stage_out(&s->staging, s->queue, dst, src, bytes));
  return wait(s);
}

dlua_status dlua_gpu_synchronize(int index) {
  stream *s;
  DLUA_TRY(use(index, &s));
  return wait(s);
}

// ---------------------------------------------------------------- not waiting

dlua_status dlua_gpu_send(int index, const void *src, size_t bytes, uint64_t *ticket) {
  stream *s;
  DLUA_TRY(use(index, &s));
  return dlua_note_send(&s->notes, s->queue, src, bytes, ticket);
}

dlua_status dlua_gpu_receive(int index, uint64_t ticket, void *dst, size_t bytes, bool *arrived) {
  stream *s;
  DLUA_TRY(use(index, &s));
  return dlua_note_receive(&s->notes, ticket, dst, bytes, arrived);
}

// ---------------------------------------------------------------- kernels

dlua_status dlua_gpu_launch(const dlua_args *a, const void *kernel, const unsigned blocks[3],
                            const unsigned threads[3], void **arguments) {
  stream *s;
  if (blocks[0] == 0 || blocks[1] == 0 || blocks[2] == 0) return DLUA_OK;
  DLUA_TRY(use(a->device->index, &s));
  dim3 grid = {blocks[0], blocks[1], blocks[2]}, block = {threads[0], threads[1], threads[2]};
  return CUDA_STATUS(cudaLaunchKernel, kernel, grid, block, arguments, 0, s->queue);
}
