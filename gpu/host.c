// host.c - the runtime's functions that this module uses, forwarded. They are hidden, so that the
// module neither needs nor offers any symbol of dlua's.
#include "host.h"

#include <stdarg.h>
#include <stdio.h>

#include "../runtime/rng.h"
#include "cuda.h"
#include "stream.h"

const dlua_host *dlua_gpu_host;

dlua_status dlua_fail(dlua_status code, const char *format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  return dlua_gpu_host->fail(code, "%s", text);
}

dlua_status dlua_alloc(dlua_device *device, size_t bytes, void **block) {
  return dlua_gpu_host->alloc(device, bytes, block);
}

void dlua_free(dlua_device *device, void *block, size_t bytes) {
  dlua_gpu_host->free(device, block, bytes);
}

bool dlua_gpu_reclaim(void) { return dlua_gpu_host->reclaim("cuda", dlua_gpu_current()); }

uint64_t dlua_rng_key(void) { return dlua_gpu_host->rng_key(); }
uint64_t dlua_rng_take(uint64_t blocks) { return dlua_gpu_host->rng_take(blocks); }
