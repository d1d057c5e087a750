// fibers.h - running one kernel launch on the CPU.
#ifndef DLUA_GPU_EMULATOR_FIBERS_H
#define DLUA_GPU_EMULATOR_FIBERS_H

#include <cuda_runtime_api.h>

namespace emulator {

// Calls thread(arguments) once for every thread of every block, block after block. False when the
// threads of a block wait for each other for ever, or there is no memory for their stacks.
bool run_grid(void (*thread)(void **arguments), void **arguments, dim3 grid, dim3 block);

} // namespace emulator

#endif
