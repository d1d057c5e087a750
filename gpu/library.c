// library.c - handles, packed inputs, the table of plans, and the choice by timing.
#include "library.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"

enum { MOST_DEVICES = 16, TIMED_RUNS = 5 };

// ---------------------------------------------------------------- handles

dlua_status dlua_gpu_blas(int index, cublasLtHandle_t *handle) {
  static cublasLtHandle_t handles[MOST_DEVICES];
  void *queue;
  DLUA_TRY(dlua_gpu_queue(index, &queue));
  if (!handles[index]) BLAS_TRY(cublasLtCreate, &handles[index]);
  *handle = handles[index];
  return DLUA_OK;
}

dlua_status dlua_gpu_dnn(int index, cudnnHandle_t *handle) {
  static cudnnHandle_t handles[MOST_DEVICES];
  void *queue;
  DLUA_TRY(dlua_gpu_queue(index, &queue));
  if (!handles[index]) {
    cudnnHandle_t made;
    dlua_status status = DNN_STATUS(cudnnCreate, &made);
    if (status == DLUA_OK) {
      status = DNN_STATUS(cudnnSetStream, made, queue);
      if (status != DLUA_OK) dlua_cuda_calls_table.cudnnDestroy(made);
    }
    if (status == DLUA_DECLINED) status = DLUA_BAD_DEVICE; // it is the GPU that is not supported
    DLUA_TRY(status);
    handles[index] = made;
  }
  *handle = handles[index];
  return DLUA_OK;
}

// ---------------------------------------------------------------- inputs

dlua_kernel dlua_gpu_clone;

dlua_status dlua_packed_new(const dlua_args *a, const dlua_tensor *x, const int *order,
                            dlua_packed *packed) {
  dlua_tensor *t = &packed->tensor;
  *packed = (dlua_packed){.tensor = *x, .storage = {.refs = 1, .device = a->device}};
  t->offset = 0, t->grad = NULL, t->node = NULL;
  int64_t stride = 1;
  for (int k = x->ndim - 1; k >= 0; k--) {
    int d = order ? order[k] : k;
    t->stride[d] = stride, stride *= x->size[d];
  }
  packed->bytes = (size_t)stride * dlua_dtype_size((dlua_dtype)x->dtype);
  dlua_status status = dlua_alloc(a->device, packed->bytes, &packed->storage.data);
  if (status != DLUA_OK) packed->bytes = 0;
  t->storage = &packed->storage;
  return status;
}

dlua_status dlua_packed_copy(const dlua_args *a, const dlua_tensor *x, const int *order,
                             dlua_packed *packed) {
  DLUA_TRY(dlua_packed_new(a, x, order, packed));
  dlua_args copy = {.op = a->op, .sig = a->sig, .nin = 1, .nout = 1, .device = a->device};
  copy.in = copy.slots, copy.slots[0] = (dlua_tensor *)x, copy.out[0] = &packed->tensor;
  dlua_status status = dlua_gpu_clone(&copy);
  if (status != DLUA_OK) dlua_packed_release(a, packed);
  return status;
}

void dlua_packed_release(const dlua_args *a, dlua_packed *packed) {
  if (packed->bytes) dlua_free(a->device, packed->storage.data, packed->bytes);
  packed->bytes = 0;
}

uint32_t dlua_alignment(const void *address) {
  uintptr_t bits = (uintptr_t)address | 256;
  return (uint32_t)(bits & -bits);
}

// ---------------------------------------------------------------- plans

// FNV-1a.
static unsigned set_of(const void *key, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t k = 0; k < size; k++) hash = (hash ^ ((const uint8_t *)key)[k]) * 0x100000001b3u;
  return (unsigned)((hash ^ hash >> 32) % DLUA_PLAN_SETS);
}

// Where the plan begins in a block; malloc's alignment behind the key.
static size_t plan_offset(const dlua_plans *plans) { return (plans->key_size + 15) & ~(size_t)15; }

void *dlua_plans_find(dlua_plans *plans, const void *key) {
  unsigned set = set_of(key, plans->key_size);
  for (int way = 0; way < DLUA_PLAN_WAYS; way++) {
    char *block = plans->slot[set][way].block;
    if (!block || memcmp(block, key, plans->key_size) != 0) continue;
    plans->slot[set][way].used = ++plans->clock;
    return block + plan_offset(plans);
  }
  return NULL;
}

dlua_status dlua_plans_add(dlua_plans *plans, const void *key, const void *plan, void **kept) {
  unsigned set = set_of(key, plans->key_size);
  int oldest = 0;
  for (int way = 1; way < DLUA_PLAN_WAYS; way++)
    if (plans->slot[set][way].used < plans->slot[set][oldest].used) oldest = way;
  char *block = plans->slot[set][oldest].block;
  if (block) plans->drop(block + plan_offset(plans));
  if (!block) block = malloc(plan_offset(plans) + plans->plan_size);
  *kept = block ? memcpy(block + plan_offset(plans), plan, plans->plan_size) : NULL;
  if (!block) {
    plans->drop((void *)plan);
    return dlua_fail(DLUA_NO_MEMORY, "no memory for the plan of a library call");
  }
  memcpy(block, key, plans->key_size);
  plans->slot[set][oldest].block = block;
  plans->slot[set][oldest].used = ++plans->clock;
  return DLUA_OK;
}

// ---------------------------------------------------------------- timing

// Milliseconds of TIMED_RUNS runs of a candidate, after one that does not count.
static dlua_status time_of(void *queue, cudaEvent_t from, cudaEvent_t to,
                           dlua_status (*run)(void *, int), void *context, int candidate,
                           float *milliseconds) {
  DLUA_TRY(run(context, candidate));
  CUDA_TRY(cudaEventRecord, from, queue);
  for (int k = 0; k < TIMED_RUNS; k++) DLUA_TRY(run(context, candidate));
  CUDA_TRY(cudaEventRecord, to, queue);
  CUDA_TRY(cudaEventSynchronize, to);
  CUDA_TRY(cudaEventElapsedTime, milliseconds, from, to);
  return DLUA_OK;
}

dlua_status dlua_gpu_fastest(int index, int n, dlua_status (*run)(void *context, int candidate),
                             void *context, int *fastest) {
  void *queue;
  cudaEvent_t from = NULL, to = NULL;
  float best = 0, milliseconds;
  *fastest = -1;
  DLUA_TRY(dlua_gpu_queue(index, &queue));
  dlua_status status = CUDA_STATUS(cudaEventCreateWithFlags, &from, cudaEventDefault);
  if (status == DLUA_OK) status = CUDA_STATUS(cudaEventCreateWithFlags, &to, cudaEventDefault);
  dlua_status made = status;
  for (int k = 0; k < n && made == DLUA_OK; k++) {
    dlua_status timed = time_of(queue, from, to, run, context, k, &milliseconds);
    if (timed != DLUA_OK)
      status = timed;
    else if (*fastest < 0 || milliseconds < best)
      *fastest = k, best = milliseconds;
  }
  if (from) dlua_cuda_quiet(dlua_cuda_calls_table.cudaEventDestroy(from));
  if (to) dlua_cuda_quiet(dlua_cuda_calls_table.cudaEventDestroy(to));
  return *fastest >= 0 ? DLUA_OK : status;
}
