// streams.h - the order of work, for libraries that queue some.
#ifndef DLUA_GPU_EMULATOR_STREAMS_H
#define DLUA_GPU_EMULATOR_STREAMS_H

#include <cuda_runtime_api.h>

namespace emulator {

// Does what a stream has put off: to be called before a library's work in it.
void catch_up(cudaStream_t stream);

// The device that a stream was made for, and the one that is current.
int device_of(cudaStream_t stream);
int device_now();

} // namespace emulator

#endif
