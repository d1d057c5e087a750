// module.c - the device "cuda": the one symbol of dlua_cuda.so, and the table of its kernels.
#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "host.h"
#include "optim.h"
#include "stream.h"

#define KERNEL(name) dlua_kernel dlua_gpu_##name;
#define HALF_KERNEL(name) dlua_kernel dlua_gpu_##name;
#include "kernels.def"
#undef KERNEL
#undef HALF_KERNEL

static const struct {
  const char *name;
  dlua_kernel *kernel;
  bool half;
} kernels[] = {
#define KERNEL(name) {#name, dlua_gpu_##name, false},
#define HALF_KERNEL(name) {#name, dlua_gpu_##name, true},
#include "kernels.def"
};

enum { KERNELS = sizeof kernels / sizeof *kernels, SLOTS = 1024 };

// Row of an op in kernels, by its address: ops are few and never move.
static int row_of(const dlua_op *op) {
  static struct {
    const dlua_op *op;
    int row;
  } slots[SLOTS];
  unsigned slot = (unsigned)((uintptr_t)op / 16 % SLOTS);
  while (slots[slot].op && slots[slot].op != op) slot = (slot + 1) % SLOTS;
  if (slots[slot].op) return slots[slot].row;
  int row = KERNELS - 1;
  while (row >= 0 && strcmp(kernels[row].name, op->name) != 0) row--;
  slots[slot].op = op, slots[slot].row = row;
  return row;
}

static dlua_kernel *kernel_of(const dlua_op *op) {
  int row = row_of(op);
  return row < 0 ? NULL : kernels[row].kernel;
}

static bool half(const dlua_op *op) {
  int row = row_of(op);
  return row >= 0 && kernels[row].half;
}

static int device_count;

static int count(void) { return device_count; }

static dlua_status info(int index, dlua_device_info *info) {
  struct cudaDeviceProp p;
  int version = 0;
  size_t all;
  *info = (dlua_device_info){0};
  CUDA_TRY(cudaGetDeviceProperties, &p, index);
  CUDA_TRY(cudaRuntimeGetVersion, &version);
  DLUA_TRY(dlua_gpu_select(index));
  CUDA_TRY(cudaMemGetInfo, &info->free, &all);
  size_t dnn = dlua_cuda_calls_table.cudnnGetVersion();
  snprintf(info->name, sizeof info->name, "%.120s", p.name);
  snprintf(info->libraries, sizeof info->libraries, "CUDA %d.%d, cuDNN %zu.%zu.%zu", version / 1000,
           version % 1000 / 10, dnn / 10000, dnn % 10000 / 100, dnn % 100);
  info->memory = p.totalGlobalMem, info->major = p.major, info->minor = p.minor;
  info->multiprocessors = p.multiProcessorCount;
  return DLUA_OK;
}

__attribute__((visibility("default"))) const dlua_backend *dlua_module(const dlua_host *host) {
  static dlua_backend backend = {
      .abi = DLUA_ABI,
      .name = "cuda",
      .count = count,
      .info = info,
      .alloc = dlua_gpu_alloc,
      .free = dlua_gpu_free,
      .from_host = dlua_gpu_from_host,
      .to_host = dlua_gpu_to_host,
      .copy = dlua_gpu_copy,
      .synchronize = dlua_gpu_synchronize,
      .send = dlua_gpu_send,
      .receive = dlua_gpu_receive,
      .kernel = kernel_of,
      .half = half,
      .step = dlua_gpu_step,
      .look = dlua_gpu_look,
      .clip = dlua_gpu_clip,
  };
  if (host->abi != DLUA_ABI) {
    host->fail(DLUA_BAD_DEVICE, "dlua_cuda.so was built for interface %d, this is %d", DLUA_ABI,
               host->abi);
    return NULL;
  }
  dlua_gpu_host = host;
  backend.test_fault = dlua_cuda_calls_table.test_fault;
  return dlua_gpu_open(&device_count) == DLUA_OK ? &backend : NULL;
}
