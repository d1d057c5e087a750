// library.h - what the ops that cuBLASLt and cuDNN compute have in common: the libraries' handles,
// inputs copied into a layout they take, and plans (descriptors and the algorithm chosen) kept by key.
//
//   static dlua_plans plans = {.key_size = sizeof(my_key), .plan_size = sizeof(my_plan), .drop = drop};
//   my_plan *plan = dlua_plans_find(&plans, &key);
//   if (!plan) DLUA_TRY(make(&key, plan = …)), dlua_plans_add(&plans, &key, plan);
#ifndef DLUA_GPU_LIBRARY_H
#define DLUA_GPU_LIBRARY_H

#include "cuda.h"
#include "stream.h"

// Workspace that an algorithm may ask for.
#define DLUA_GPU_WORKSPACE ((size_t)32 << 20)

// The handle of a device, made at the first call; the device is current afterwards. cuDNN's works on
// the device's queue.
dlua_status dlua_gpu_blas(int index, cublasLtHandle_t *handle);
dlua_status dlua_gpu_dnn(int index, cudnnHandle_t *handle);

// ---------------------------------------------------------------- inputs

// A tensor in the strides that a library takes: x itself, or a copy of it.
typedef struct dlua_packed {
  dlua_tensor tensor;
  dlua_storage storage;
  size_t bytes; // of the copy; 0: there is none
} dlua_packed;

// A scratch tensor with the dtype and sizes of x, whose dimensions lie in memory in order, outermost
// first; NULL: row-major. To be released.
dlua_status dlua_packed_new(const dlua_args *a, const dlua_tensor *x, const int *order,
                            dlua_packed *packed);
// The same with x's elements.
dlua_status dlua_packed_copy(const dlua_args *a, const dlua_tensor *x, const int *order,
                             dlua_packed *packed);
// Gives the copy back; the next kernel to get its memory comes later in order.
void dlua_packed_release(const dlua_args *a, dlua_packed *packed);

// The largest power of two up to 256 that an address is a multiple of.
uint32_t dlua_alignment(const void *address);

// ---------------------------------------------------------------- plans

enum { DLUA_PLAN_SETS = 128, DLUA_PLAN_WAYS = 4 };

// At most SETS * WAYS plans, found by the bytes of their keys, which therefore have no padding that
// is not zero. Where a set is full, the plan that was not used for longest makes room.
typedef struct dlua_plans {
  size_t key_size, plan_size;
  void (*drop)(void *plan); // what a plan holds
  uint64_t clock;
  struct {
    uint64_t used;
    void *block; // key and plan
  } slot[DLUA_PLAN_SETS][DLUA_PLAN_WAYS];
} dlua_plans;

void *dlua_plans_find(dlua_plans *plans, const void *key); // NULL: not there
// Takes over what plan holds, also when it fails; *kept is the plan until the next add.
dlua_status dlua_plans_add(dlua_plans *plans, const void *key, const void *plan, void **kept);

// Runs candidates 0..n-1 a few times each and gives the fastest. One that fails is out of the race;
// fails where all do. Waits for the device.
dlua_status dlua_gpu_fastest(int index, int n, dlua_status (*run)(void *context, int candidate),
                             void *context, int *fastest);

#endif
