// device.c - the table of devices and the loading of device modules. "cpu" is always there; any
// other name loads dlua_<name>.so at its first mention, and why that failed is kept.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "op.h"
#include "rng.h"
#include "settings.h"

enum { MOST_DEVICES = 32, MOST_MODULES = 4 };

static int cpu_count(void) { return 1; }
static dlua_status cpu_info(int index, dlua_device_info *info) {
  (void)index;
  *info = (dlua_device_info){.multiprocessors = dlua_threads()};
  snprintf(info->name, sizeof info->name, "cpu");
  return DLUA_OK;
}
static dlua_status cpu_move(int index, void *dst, const void *src, size_t bytes) {
  (void)index;
  memmove(dst, src, bytes);
  return DLUA_OK;
}
static dlua_status cpu_synchronize(int index) {
  (void)index;
  return DLUA_OK;
}
static dlua_kernel *cpu_kernel(const dlua_op *op) { return op->cpu; }
static bool cpu_half(const dlua_op *op) { return op->flags & DLUA_HALF; }

const dlua_backend dlua_cpu_backend = {
    .abi = DLUA_ABI,
    .name = "cpu",
    .count = cpu_count,
    .info = cpu_info,
    .from_host = cpu_move,
    .to_host = cpu_move,
    .copy = cpu_move,
    .synchronize = cpu_synchronize,
    .kernel = cpu_kernel,
    .half = cpu_half,
};

static dlua_device cpu = {.backend = &dlua_cpu_backend, .name = "cpu"};
static dlua_device *devices[MOST_DEVICES] = {&cpu};
static int device_count = 1;
static struct {
  char name[16];
  char reason[512]; // why it could not be loaded; empty: it was
} modules[MOST_MODULES];
static int module_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

dlua_device *dlua_cpu(void) {
  if (!cpu.cache) cpu.cache = dlua_cache_cpu();
  return &cpu;
}

int dlua_device_count(void) { return device_count; }
dlua_device *dlua_device_at(int k) { return devices[k]; }
const char *dlua_device_name(const dlua_device *device) { return device->name; }

uint64_t dlua_waits(const dlua_device *device) {
  return __atomic_load_n(&device->waits, __ATOMIC_RELAXED);
}

dlua_status dlua_name_failure(dlua_status status, const char *who) {
  const char *message = dlua_message();
  size_t length = strlen(who);
  bool full = status == DLUA_NO_MEMORY && dlua_out_of_memory() != &cpu;
  bool named = strncmp(message, who, length) == 0 && message[length] == ':';
  if ((!full && status != DLUA_BAD_DEVICE) || named) return status;
  return dlua_fail(status, "%s: %s", who, message);
}

dlua_status dlua_synchronize(dlua_device *device) {
  __atomic_add_fetch(&device->waits, 1, __ATOMIC_RELAXED);
  return device->backend->synchronize(device->index);
}

// The folder of the file that this code lies in: the program or core.so.
static void own_folder(char *folder, size_t size) {
  Dl_info info;
  folder[0] = 0;
  char *real = dladdr((void *)own_folder, &info) ? realpath(info.dli_fname, NULL) : NULL;
  if (!real) real = realpath("/proc/self/exe", NULL);
  if (!real) return;
  char *slash = strrchr(real, '/');
  if (slash) snprintf(folder, size, "%.*s", (int)(slash - real), real);
  free(real);
}

// Opens dlua_<name>.so in the folder that DLUA_MODULES names, else where it lies from the runtime's:
// beside it, where it is installed, or two above (core.so and the C tests in a build folder); NULL with
// the reason.
static void *open_module(const char *name, char *reason, size_t size) {
  char folder[400], path[1024];
  static const char *const below[] = {"", "/../" DLUA_DEVICE_FOLDER, "/../.."};
  const char *chosen = getenv("DLUA_MODULES");
  if (chosen)
    snprintf(folder, sizeof folder, "%s", chosen);
  else
    own_folder(folder, sizeof folder);
  snprintf(reason, size, "there is no dlua_%s.so %s %s", name, chosen ? "in" : "beside",
           chosen ? folder : "the program");
  for (int b = 0; b < (chosen ? 1 : 3); b++) {
    snprintf(path, sizeof path, "%s%s/dlua_%s.so", folder, below[b], name);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    fclose(file);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) snprintf(reason, size, "%s", dlerror());
    return handle;
  }
  return NULL;
}

static dlua_status add_devices(const dlua_backend *backend) {
  int count = backend->count();
  if (count <= 0) return dlua_fail(DLUA_BAD_DEVICE, "there is no such device in this machine");
  for (int k = 0; k < count && device_count < MOST_DEVICES; k++) {
    dlua_device *device = dlua_new(sizeof *device);
    if (!device) return DLUA_NO_MEMORY;
    *device = (dlua_device){.backend = backend, .index = k, .cache = dlua_cache_new()};
    if (!device->cache) return dlua_delete(device, sizeof *device), DLUA_NO_MEMORY;
    if (k == 0)
      snprintf(device->name, sizeof device->name, "%s", backend->name);
    else
      snprintf(device->name, sizeof device->name, "%s:%d", backend->name, k + 1);
    devices[device_count++] = device;
  }
  return DLUA_OK;
}

static bool reclaim_for(const char *backend, int index) {
  for (int k = 0; k < device_count; k++) {
    dlua_device *device = devices[k];
    if (device != &cpu && device->index == index && strcmp(device->backend->name, backend) == 0)
      return dlua_reclaim(device);
  }
  return false;
}

static dlua_status start_module(const char *name, char *reason, size_t size) {
  static const dlua_host host = {.abi = DLUA_ABI,
                                 .fail = dlua_fail,
                                 .op_find = dlua_op_find,
                                 .run_cpu = dlua_run_cpu,
                                 .cpu = &cpu,
                                 .alloc = dlua_alloc,
                                 .free = dlua_free,
                                 .reclaim = reclaim_for,
                                 .rng_key = dlua_rng_key,
                                 .rng_take = dlua_rng_take,
                                 .where = dlua_where,
                                 .winograd = dlua_winograd,
                                 .autotune = dlua_autotune,
                                 .tf32 = dlua_tf32};
  void *handle = open_module(name, reason, size);
  if (!handle) return DLUA_BAD_DEVICE;
  const dlua_backend *(*module)(const dlua_host *) =
      (const dlua_backend *(*)(const dlua_host *))dlsym(handle, "dlua_module");
  const dlua_backend *backend = module ? module(&host) : NULL;
  dlua_status status = DLUA_BAD_DEVICE;
  if (!module)
    dlua_fail(status, "dlua_%s.so exports no dlua_module", name);
  else if (backend && backend->abi != DLUA_ABI) {
    dlua_fail(status, "dlua_%s.so was built for interface %d, this is %d", name, backend->abi,
              DLUA_ABI);
  } else if (backend)
    status = add_devices(backend);
  if (status != DLUA_OK) {
    snprintf(reason, size, "%s", dlua_message());
    dlclose(handle);
  }
  return status;
}

static dlua_status load_module(const char *name) {
  int k = 0;
  while (k < module_count && strcmp(modules[k].name, name) != 0) k++;
  if (k == module_count) {
    if (module_count == MOST_MODULES) return dlua_fail(DLUA_BAD_DEVICE, "too many device modules");
    char reason[512] = "";
    dlua_status status = start_module(name, reason, sizeof reason);
    if (status == DLUA_NO_MEMORY) return status; // worth another try later
    snprintf(modules[k].name, sizeof modules[k].name, "%s", name);
    snprintf(modules[k].reason, sizeof modules[k].reason, "%s", status == DLUA_OK ? "" : reason);
    module_count++;
  }
  if (modules[k].reason[0]) {
    return dlua_fail(DLUA_BAD_DEVICE, "%s is not available: %s", name, modules[k].reason);
  }
  return DLUA_OK;
}

// Splits "cuda:2" into its kind and 0-based index.
static dlua_status split_name(const char *name, char kind[16], int *index) {
  const char *colon = strchr(name, ':');
  size_t length = colon ? (size_t)(colon - name) : strlen(name);
  bool known = false;
  static const char *const kinds[] = {"cpu", "cuda", "mock"};
  for (int k = 0; k < 3; k++)
    known |= strlen(kinds[k]) == length && !strncmp(name, kinds[k], length);
  if (!known) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "unknown device '%s' (known: cpu, cuda, cuda:2, …)", name);
  }
  snprintf(kind, 16, "%.*s", (int)length, name);
  *index = 0;
  if (!colon) return DLUA_OK;
  char *end;
  long number = strtol(colon + 1, &end, 10);
  if (*end || end == colon + 1 || number < 1 || number > 1000) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "device '%s': devices count from 1: %s, %s:2, …", name,
                     kind, kind);
  }
  *index = (int)number - 1;
  return DLUA_OK;
}

static dlua_status find_locked(const char *name, dlua_device **device) {
  char kind[16];
  int index = 0;
  DLUA_TRY(split_name(name, kind, &index));
  if (strcmp(kind, "cpu") != 0) DLUA_TRY(load_module(kind));
  int count = 0;
  for (int k = 0; k < device_count; k++) {
    if (strcmp(devices[k]->backend->name, kind) != 0) continue;
    if (count++ == index) return *device = devices[k], DLUA_OK;
  }
  return dlua_fail(DLUA_BAD_DEVICE, "device '%s' is not there: this machine has %d %s device%s",
                   name, count, kind, count == 1 ? "" : "s");
}

dlua_status dlua_device_find(const char *name, dlua_device **device) {
  dlua_cpu();
  pthread_mutex_lock(&lock);
  dlua_status status = find_locked(name, device);
  pthread_mutex_unlock(&lock);
  return status;
}
