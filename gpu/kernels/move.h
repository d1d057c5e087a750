// move.h - copies of whole tensors and scratch memory, for kernels that are made of them.
#ifndef DLUA_GPU_MOVE_H
#define DLUA_GPU_MOVE_H

#include "kernel.h"

// Copies from to to, one dtype, equal shapes or from broadcast, any strides. from may be a plain
// number of the host.
dlua_status dlua_gpu_move(const dlua_args *a, const dlua_tensor *to, const dlua_tensor *from);

// For kernels that change some elements only: result 0 starts as a copy of input 0, unless the call
// goes in place.
dlua_status dlua_gpu_start_from(const dlua_args *a);

// The low bytes of a number in a dtype.
uint64_t dlua_gpu_bits(uint8_t dtype, const dlua_value *number);

// Device memory until the end of the block of code: what is queued by then may use it.
struct Scratch {
  dlua_device *device = nullptr;
  void *block = nullptr;
  size_t bytes = 0;

  Scratch() = default;
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;
  ~Scratch() {
    if (block) dlua_free(device, block, bytes);
  }
  dlua_status take(const dlua_args *a, size_t size) {
    device = a->device, bytes = size;
    return dlua_alloc(device, size, &block);
  }
  template <class T> T *as() const { return (T *)block; }
};

// An input that is read while result 0 is written: itself, or a copy where both are one.
struct Source {
  Scratch memory;
  dlua_storage storage = {};
  dlua_tensor tensor = {};
  dlua_status open(const dlua_args *a, int k);
};

#endif
