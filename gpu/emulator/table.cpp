// table.cpp - the table of calls with the emulator's functions in it, and faults on demand: the n-th
// call of a function fails with the code a test has chosen.
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

dlua_status test_fault(const char *what, int n) {
  const char *space = std::strchr(what, ' ');
  int length = space ? (int)(space - what) : (int)std::strlen(what);
  std::snprintf(wanted, sizeof wanted, "%.*s", length, what);
  code = space ? std::atoi(space + 1) : 999;
  countdown = n;
  return DLUA_OK;
}

} // namespace

int emulator::fault(const char *function) {
  if (countdown == 0) return 0;
  if (std::strcmp(wanted, "any") != 0 && std::strcmp(wanted, function) != 0) return 0;
  bool now = countdown == 1 || countdown == -1;
  if (countdown > 0)
    countdown--;
  else if (countdown < -1)
    countdown++;
  return now ? code : 0;
}

extern "C" const dlua_cuda_calls dlua_cuda_calls_table = {
#define CUDA_CALL(name) .name = emulator::name,
#define BLAS_CALL(name) .name = emulator::name,
#define DNN_CALL(name) .name = emulator::name,
#include "../calls.def"
    .test_fault = test_fault,
};
