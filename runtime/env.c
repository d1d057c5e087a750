// env.c - the one table of environment switches.
#include "env.h"

#include <stdlib.h>
#include <string.h>

// clang-format off
const dlua_switch dlua_switches[] = {
  {"DLUA_BIND",       "0: do not bind the team of threads to CPUs"},
  {"DLUA_CACHE",      "0: ask devices for each block of memory anew, to find uses beyond its end"},
  {"DLUA_COLLECT",    "1: collect all garbage at every call, to find uses of what was freed"},
  {"DLUA_DATA",       "folder with the data sets that data.load looks for first"},
  {"DLUA_ISA",        "base, avx2 or avx512: use no instructions beyond these"},
  {"DLUA_POISON",     "1: fill freed memory with NaN, to find uses of it"},
  {"DLUA_REF",        "1: run only the plain reference kernels"},
  {"DLUA_SYNC",       "1: wait for the device after each op"},
  {"DLUA_TRACEBACK",  "1: errors of scripts print the Lua stack too"},
  {"DLUA_VERBOSE",    "1: print each op and its shapes to the standard error stream"},
  {"OMP_NUM_THREADS", "threads of the team; default: all CPUs of the process"},
  {NULL, NULL},
};
// clang-format on

const char *dlua_env(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

bool dlua_env_on(const char *name) {
  const char *value = dlua_env(name);
  return value && strcmp(value, "0") != 0;
}
