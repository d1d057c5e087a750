// backend.h - what a device is made of. A device module (dlua_cuda.so, dlua_mock.so) exports one
// symbol,
//
//   const dlua_backend *dlua_module(const dlua_host *host);
//
// returns NULL with host->fail called when it cannot work here, and links against nothing of dlua:
// what it needs from the runtime comes through dlua_host. It is opened at the first mention of its
// device, never at start.
//
// A device does what it is asked in order and may do it later: kernels, fills and copies on the
// device and from the host return as soon as they are queued, and source memory on the host may be
// reused then. to_host and synchronize wait, and report what went wrong meanwhile.
//
// Where conv2d takes 16-bit floats itself, it gives them in DLUA_NHWC: on such a device kernels of ops
// with DLUA_LAYOUTS or DLUA_ELEMENTWISE, and cast between any two layouts, look at storage->layout (see
// dlua_strides; dlua_iter does). All others meet strided tensors.
#ifndef DLUA_BACKEND_H
#define DLUA_BACKEND_H

#include "args.h"
#include "optim.h"

#define DLUA_ABI 5

// What a device keeps of values that were sent (dlua_backend.send), and how large one may be.
#define DLUA_NOTES 64
#define DLUA_NOTE_BYTES 16

// What the runtime offers a module.
typedef struct dlua_host {
  int abi;
  dlua_status (*fail)(dlua_status code, const char *format, ...)
      __attribute__((format(printf, 2, 3)));
  const dlua_op *(*op_find)(const char *name);
  dlua_status (*run_cpu)(
      const dlua_args *a); // runs the op's CPU kernels on tensors whose data the CPU can read
  dlua_device *cpu;        // the device such tensors are on
  // Scratch memory for a kernel: blocks of the device's cache, to be freed as soon as the kernel is
  // queued, since the next one to get them comes later in order.
  dlua_status (*alloc)(dlua_device *device, size_t bytes, void **block);
  void (*free)(dlua_device *device, void *block, size_t bytes);
  // See dlua_reclaim; the device by the name of its backend and its index there.
  bool (*reclaim)(const char *backend, int index);
  uint64_t (*rng_key)(void); // see rng.h
  uint64_t (*rng_take)(uint64_t blocks);
  // Where the script is, "[features.1]  train.lua:41", for errors found later; "" when unknown.
  void (*where)(char *text, size_t size);
  bool (*winograd)(void), (*autotune)(void), (*tf32)(void); // see settings.h
} dlua_host;

typedef struct dlua_device_info {
  char name[128];      // "NVIDIA H200"
  char libraries[128]; // "CUDA 13.0, cuDNN 9.12"
  size_t memory, free; // bytes
  int major, minor;    // compute capability
  int multiprocessors;
} dlua_device_info;

// One parameter of a pass over many: contiguous memory of the device.
typedef struct dlua_pass {
  void *p, *slot[DLUA_OPTIM_SLOTS];
  const void *g;
  int64_t count; // elements
  int place;     // see dlua_update
} dlua_pass;

typedef struct dlua_backend {
  int abi;
  const char *name;   // "cuda": devices are cuda, cuda:2, …
  int (*count)(void); // how many devices
  dlua_status (*info)(int index, dlua_device_info *info);
  dlua_status (*alloc)(int index, size_t bytes,
                       void **block); // raw memory; the runtime caches above it
  void (*free)(int index, void *block, size_t bytes);
  dlua_status (*from_host)(int index, void *dst, const void *src, size_t bytes);
  dlua_status (*to_host)(int index, void *dst, const void *src, size_t bytes); // waits
  dlua_status (*copy)(int index, void *dst, const void *src, size_t bytes);    // on the device
  dlua_status (*synchronize)(int index);
  // Sends a few bytes to the host without waiting; receive gives them once they have arrived, until
  // DLUA_NOTES later ones have been sent.
  dlua_status (*send)(int index, const void *src, size_t bytes, uint64_t *ticket);
  dlua_status (*receive)(int index, uint64_t ticket, void *dst, size_t bytes, bool *arrived);
  dlua_kernel *(*kernel)(const dlua_op *op); // NULL: no kernel for this op
  bool (*half)(const dlua_op *op); // its kernel takes bf16 and f16 itself; else it runs through f32
  // The passes below go over parameters of one dtype (f32, f64) together. NULL: ops will do.
  // Step number `step`; verdict and skipped as in dlua_bad_gradient, whose verdict stands, or NULL.
  dlua_status (*step)(dlua_device *device, const dlua_optim *o, dlua_dtype dtype, int64_t step,
                      int n, const dlua_pass *passes, dlua_tensor *verdict, dlua_tensor *skipped);
  // Raises the verdict to the place of each gradient that is not finite; divides all by scale, a 0-d
  // f32 tensor of the device or NULL.
  dlua_status (*look)(dlua_device *device, dlua_dtype dtype, int n, const dlua_pass *passes,
                      const dlua_tensor *scale, dlua_tensor *verdict);
  // The p-norm over all gradients into norm, a 0-d f32 tensor of the device; where it is finite and
  // above max_norm they are scaled to it.
  dlua_status (*clip)(dlua_device *device, dlua_dtype dtype, int n, const dlua_pass *passes,
                      double p, double max_norm, dlua_tensor *norm);
  dlua_status (*test_fault)(
      const char *what,
      int n); // makes the n-th "alloc", "copy" or "launch" fail, and for -n all after it too; 0
              // ends it; "missing kernel OP" hides a kernel. NULL where not supported
} dlua_backend;

struct dlua_device {
  const dlua_backend *backend;
  int index; // from 0
  char name[24];
  struct dlua_cache *cache; // see cache.c
  uint64_t waits;           // atomic: how often the host has waited for it
};

// The CPU's own table, and every device opened so far.
extern const dlua_backend dlua_cpu_backend;
int dlua_device_count(void);
dlua_device *dlua_device_at(int k);
// Runs the fast CPU kernels of a call in order, then the plain one, on tensors that the host can read.
dlua_status dlua_run_cpu(const dlua_args *a);

#endif
