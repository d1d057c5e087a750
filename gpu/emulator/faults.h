// faults.h - library calls that fail because a test asked for it.
#ifndef DLUA_GPU_EMULATOR_FAULTS_H
#define DLUA_GPU_EMULATOR_FAULTS_H

namespace emulator {

// The code that this call of a function has to fail with, or 0. Counts the call.
int fault(const char *function);

// What CUDA's runtime remembers of the last call of its own that failed, once; or 0.
int take_last_error();
// Makes it remember an error, which is what comes back.
int remember(int error);

// Makes every call fail from now on, as after a fault of a kernel.
void die(int error);

// The version of the driver, 0 where there is none.
int driver();

// Whether the last fault was one of a full GPU, once.
bool take_full();

} // namespace emulator

#endif
