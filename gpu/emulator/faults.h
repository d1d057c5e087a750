// faults.h - library calls that fail because a test asked for it.
#ifndef DLUA_GPU_EMULATOR_FAULTS_H
#define DLUA_GPU_EMULATOR_FAULTS_H

namespace emulator {

// The code that this call of a function has to fail with, or 0. Counts the call.
int fault(const char *function);

// What CUDA's runtime noted at the last fault that a test chose so, once; or 0.
int take_last_error();

} // namespace emulator

#endif
