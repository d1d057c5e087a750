// table.cpp - the table of calls with the emulator's functions in it, and faults on demand: the n-th
// call of a function fails with the code a test has chosen. "cublasLtMatmul 13+full" is a library that
// fails in its own words since the GPU is full, which CUDA says when it is asked next;
// "cudaGetDeviceCount 35+12040" has a driver for CUDA 12.4.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "faults.h"
#include "functions.h"

extern "C" {
#include "../cuda.h"
}

namespace {

char wanted[64]; // a function, or "any"
int code = 999, countdown;
int driver_version = CUDART_VERSION;
bool fills;     // the GPU is full then
bool full;      // and until it is asked for
int last_error; // of CUDA, until it is asked for
int final_code; // what every call fails with since a kernel died; 0: none has

// A fault of these leaves nothing usable, as on a GPU.
bool is_final(int error) {
  return error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure;
}

bool begins(const char *text, const char *with) {
  return std::strncmp(text, with, std::strlen(with)) == 0;
}

dlua_status test_fault(const char *what, int n) {
  const char *space = std::strchr(what, ' ');
  int length = space ? (int)(space - what) : (int)std::strlen(what);
  std::snprintf(wanted, sizeof wanted, "%.*s", length, what);
  code = space ? std::atoi(space + 1) : 999;
  const char *plus = space ? std::strchr(space, '+') : nullptr;
  fills = plus && begins(plus, "+full");
  driver_version = plus && !fills ? std::atoi(plus + 1) : CUDART_VERSION;
  countdown = n;
  full = false, last_error = final_code = 0;
  return DLUA_OK;
}

// DLUA_CUDA_FAULT="cudaGetDeviceCount 100 1": a fault that is there from the start.
struct Start {
  Start() {
    const char *what = std::getenv("DLUA_CUDA_FAULT");
    const char *n = what ? std::strrchr(what, ' ') : nullptr;
    if (n) test_fault(what, std::atoi(n));
  }
} start;

// After a kernel's death each library says so in its own way.
int code_after_death(const char *function) {
  if (begins(function, "cublas")) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (begins(function, "cudnn")) return CUDNN_STATUS_EXECUTION_FAILED;
  return final_code;
}

} // namespace

int emulator::fault(const char *function) {
  if (final_code) return code_after_death(function);
  if (countdown == 0) return 0;
  if (std::strcmp(wanted, "any") != 0 && std::strcmp(wanted, function) != 0) return 0;
  bool now = countdown == 1 || countdown == -1;
  if (countdown > 0)
    countdown--;
  else if (countdown < -1)
    countdown++;
  if (now) full = fills;
  if (now && begins(function, "cuda")) last_error = code;
  if (now && begins(function, "cuda") && is_final(code)) final_code = code;
  return now ? code : 0;
}

int emulator::take_last_error() {
  int error = last_error;
  last_error = 0;
  return error;
}

int emulator::remember(int error) { return last_error = error; }

void emulator::die(int error) { final_code = last_error = error; }

int emulator::driver() { return driver_version; }

bool emulator::take_full() {
  bool was = full;
  full = false;
  return was;
}

extern "C" const dlua_cuda_calls dlua_cuda_calls_table = {
#define CUDA_CALL(name) .name = emulator::name,
#define BLAS_CALL(name) .name = emulator::name,
#define DNN_CALL(name) .name = emulator::name,
#include "../calls.def"
    .test_fault = test_fault,
};
