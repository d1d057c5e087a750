// runtime.cpp - the CUDA runtime on the CPU: memory is host memory, of which each device has a
// gibibyte to give; a launch runs the kernel's threads as fibers. Every function first asks whether a
// test wants it to fail (faults.h).
//
// A stream does at once what it is asked, but for copies from the host: those wait, as a busy device
// would let them, until something in the stream or behind an event of it needs them. Who changes
// their source too soon, or uses their target without waiting, gets wrong numbers here too. Who frees
// memory without waiting for what is queued, leaves an error to be found by others, copies to where a
// device has no memory, or takes a stream or an event to another device, is refused.
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <new>

#include "faults.h"
#include "fibers.h"
#include "functions.h"
#include "streams.h"

using emulator::fault;

namespace {

enum { DEVICES = 2 };
constexpr size_t MEMORY = (size_t)1 << 30;
thread_local int current_device;
size_t used[DEVICES];

struct Block {
  int device;
  size_t bytes;
};
std::map<void *, Block> blocks; // those of devices

struct Copy {
  Copy *next;
  void *to;
  const void *from;
  size_t bytes;
};

struct Stream {
  int device;
  Copy *first, **last; // copies from the host that have not happened yet, in order
  Stream *next;
  uint64_t queued, finished;           // work so far, and what somebody has waited for
  uint64_t recorded, reached;          // events, likewise
  std::map<Stream *, uint64_t> behind; // how much of others' work comes before what is queued here
};

Stream *streams; // all of them

// A query that nobody has waited for first hears that the event has not happened yet.
struct Event {
  int device;
  bool timed;
  Stream *stream; // it was recorded in last
  uint64_t number, queued;
};

Stream *of(cudaStream_t stream) { return (Stream *)stream; }

void finish(Stream *s) {
  while (s->first) {
    Copy *copy = s->first;
    s->first = copy->next;
    std::memcpy(copy->to, copy->from, copy->bytes);
    delete copy;
  }
  s->last = &s->first;
}

void finish_all() {
  for (Stream *s = streams; s; s = s->next) finish(s);
}

cudaError_t defer(Stream *s, void *to, const void *from, size_t bytes) {
  Copy *copy = new (std::nothrow) Copy{nullptr, to, from, bytes};
  if (!copy) return cudaErrorMemoryAllocation;
  *s->last = copy;
  s->last = &copy->next;
  return cudaSuccess;
}

void finish(cudaEvent_t event) {
  Event *e = (Event *)event;
  if (e->stream) finish(e->stream);
}

void raise(uint64_t *count, uint64_t to) {
  if (*count < to) *count = to;
}

void reach(Stream *s, uint64_t event, uint64_t work) {
  raise(&s->reached, event), raise(&s->finished, work);
  for (auto &[other, before] : s->behind) raise(&other->finished, before);
}

void reach_all(Stream *s) { reach(s, s->recorded, s->queued); }

// Whether the device may still be at work, as far as anybody has been told.
bool at_work(int device) {
  for (Stream *s = streams; s; s = s->next)
    if (s->device == device && s->finished < s->queued) return true;
  return false;
}

// Whether bytes from an address on are memory that a device has given.
bool on_device(const void *start, size_t bytes) {
  if (bytes == 0) return true;
  auto after = blocks.upper_bound((void *)start);
  if (after == blocks.begin()) return false;
  auto block = std::prev(after);
  return (const char *)start + bytes <= (const char *)block->first + block->second.bytes;
}

} // namespace

#define RETURN_FAULT(name) \
  if (int code = fault(#name)) return (cudaError_t)code

namespace emulator {

void catch_up(cudaStream_t stream) {
  if (!stream) return;
  finish(of(stream));
  of(stream)->queued++;
}

int device_of(cudaStream_t stream) { return of(stream)->device; }
int device_now() { return current_device; }

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
  p->major = 9, p->minor = 0, p->multiProcessorCount = 1, p->totalGlobalMem = MEMORY;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  RETURN_FAULT(cudaMemGetInfo);
  *free = emulator::take_full() ? 0 : MEMORY - used[current_device];
  *total = MEMORY;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
  RETURN_FAULT(cudaDriverGetVersion);
  *version = emulator::driver();
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  RETURN_FAULT(cudaRuntimeGetVersion);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return (cudaError_t)emulator::take_last_error(); }

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
  case cudaSuccess: return "no error";
  case cudaErrorMemoryAllocation: return "out of memory";
  case cudaErrorNoDevice: return "no CUDA-capable device is detected";
  case cudaErrorInsufficientDriver:
    return "CUDA driver version is insufficient for CUDA runtime version";
  case cudaErrorSystemNotReady: return "system not yet initialized";
  case cudaErrorLaunchFailure: return "unspecified launch failure";
  case cudaErrorLaunchTimeout: return "the launch timed out and was terminated";
  case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
  default: return "an error of the emulator";
  }
}

// ---------------------------------------------------------------- memory

cudaError_t cudaMalloc(void **block, size_t bytes) {
  RETURN_FAULT(cudaMalloc);
  if (bytes > MEMORY - used[current_device]) return cudaErrorMemoryAllocation;
  if (posix_memalign(block, 256, bytes ? bytes : 1)) return cudaErrorMemoryAllocation;
  std::memset(*block, 0xff, bytes); // NaN, to find reads of what nobody wrote
  used[current_device] += bytes;
  blocks[*block] = {current_device, bytes};
  return cudaSuccess;
}

// Frees also where it fails: what a dead GPU held goes with its process. Nobody waits here for what is
// queued: where that is not over, it meets memory that is gone.
cudaError_t cudaFree(void *block) {
  cudaError_t error = (cudaError_t)fault("cudaFree");
  auto known = blocks.find(block);
  if (known == blocks.end()) return block ? cudaErrorInvalidValue : error;
  if (at_work(known->second.device)) emulator::die(cudaErrorIllegalAddress);
  finish_all();
  used[known->second.device] -= known->second.bytes;
  blocks.erase(known);
  std::free(block);
  return error;
}

cudaError_t cudaHostAlloc(void **block, size_t bytes, unsigned) {
  RETURN_FAULT(cudaHostAlloc);
  return posix_memalign(block, 4096, bytes ? bytes : 1) ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  RETURN_FAULT(cudaMemcpyAsync);
  if ((kind != cudaMemcpyDeviceToHost && !on_device(dst, bytes)) ||
      (kind != cudaMemcpyHostToDevice && !on_device(src, bytes)))
    return cudaErrorInvalidValue;
  of(stream)->queued++;
  if (kind == cudaMemcpyHostToDevice) return defer(of(stream), dst, src, bytes);
  finish(of(stream));
  if ((char *)dst < (char *)src + bytes && (char *)src < (char *)dst + bytes)
    return cudaErrorInvalidValue; // a GPU copies parts in any order
  std::memcpy(dst, src, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int byte, size_t bytes, cudaStream_t stream) {
  RETURN_FAULT(cudaMemsetAsync);
  if (!on_device(dst, bytes)) return cudaErrorInvalidValue;
  finish(of(stream));
  of(stream)->queued++;
  std::memset(dst, byte, bytes);
  return cudaSuccess;
}

// ---------------------------------------------------------------- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  RETURN_FAULT(cudaStreamCreateWithFlags);
  Stream *s = new (std::nothrow) Stream();
  if (!s) return cudaErrorMemoryAllocation;
  s->device = current_device, s->last = &s->first;
  s->next = streams, streams = s;
  *stream = (cudaStream_t)s;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  RETURN_FAULT(cudaStreamSynchronize);
  finish(of(stream));
  reach_all(of(stream));
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  RETURN_FAULT(cudaStreamWaitEvent);
  Event *e = (Event *)event;
  finish(event);
  if (e->stream) raise(&of(stream)->behind[e->stream], e->queued);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  RETURN_FAULT(cudaEventCreateWithFlags);
  Event *e = new (std::nothrow) Event();
  if (!e) return cudaErrorMemoryAllocation;
  e->device = current_device, e->timed = !(flags & cudaEventDisableTiming);
  *event = (cudaEvent_t)e;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  RETURN_FAULT(cudaEventDestroy);
  delete (Event *)event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  RETURN_FAULT(cudaEventRecord);
  Event *e = (Event *)event;
  Stream *s = of(stream);
  if (e->device != s->device) return cudaErrorInvalidResourceHandle;
  e->stream = s, e->number = ++s->recorded, e->queued = s->queued;
  return cudaSuccess;
}

// Not to have happened yet is no failure, but CUDA remembers it as one.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  RETURN_FAULT(cudaEventQuery);
  Event *e = (Event *)event;
  if (!e->stream) return cudaSuccess;
  bool reached = e->stream->reached >= e->number;
  reach(e->stream, e->number, e->queued);
  if (!reached) return (cudaError_t)emulator::remember(cudaErrorNotReady);
  finish(e->stream);
  return cudaSuccess;
}

// All take the same time.
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
  RETURN_FAULT(cudaEventElapsedTime);
  for (Event *e : {(Event *)from, (Event *)to}) {
    if (!e->timed || !e->stream) return cudaErrorInvalidResourceHandle;
    if (e->stream->reached < e->number) return cudaErrorNotReady;
  }
  *milliseconds = 1;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  RETURN_FAULT(cudaEventSynchronize);
  Event *e = (Event *)event;
  finish(event);
  if (e->stream) reach(e->stream, e->number, e->queued);
  return cudaSuccess;
}

// ---------------------------------------------------------------- kernels

// An error that an earlier call left behind is taken for the launch's own, as it is by everyone who
// asks for the last error after a launch.
cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t,
                             cudaStream_t stream) {
  RETURN_FAULT(cudaLaunchKernel);
  if (int left = emulator::take_last_error()) return (cudaError_t)left;
  if (of(stream)->device != current_device) return cudaErrorInvalidResourceHandle;
  finish(of(stream));
  of(stream)->queued++;
  size_t threads = (size_t)block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x > INT32_MAX || grid.y > 65535 ||
      grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  return run_grid((void (*)(void **))function, arguments, grid, block) ? cudaSuccess
                                                                       : cudaErrorLaunchTimeout;
}

} // namespace emulator
