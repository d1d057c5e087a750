// mock.c - a device that exists for tests: dlua_mock.so. Two of them, "mock" and "mock:2", with
// memory that the host cannot read, the CPU's kernels behind it, and faults on demand. Whatever
// runs on it goes through every device-generic path of the runtime, so most mistakes that would
// show on a GPU show here, without one.
//
// Device addresses are host addresses with a tag in bits that no process has mapped: reading one is
// a segmentation fault at the very place of the mistake, and a copy sees from the tag whether it
// was handed the wrong kind of address or another device's. A kernel is the CPU's, run on shadows
// of the tensors with the tags taken off.
//
// Refused: simulating time or streams.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/backend.h"

enum { DEVICES = 2, TAG_SHIFT = 50, ALIGNMENT = 256 };

static const dlua_host *host;

// ---------------------------------------------------------------- faults

enum { ALLOC, COPY, LAUNCH, FAULTS };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int countdown[FAULTS]; // 1: the next one fails, -1: that and all after it, 0: none does
static char missing[32];      // the op that has no kernel
static size_t limit;          // bytes that a device has; 0: as many as the host

static bool strikes(int fault) {
  pthread_mutex_lock(&lock);
  int *left = &countdown[fault];
  bool now = *left == 1 || *left == -1;
  if (*left > 0)
    --*left;
  else if (*left < -1)
    ++*left;
  pthread_mutex_unlock(&lock);
  return now;
}

static dlua_status mock_test_fault(const char *what, int n) {
  static const char *const names[FAULTS] = {"alloc", "copy", "launch"};
  static const char kernel[] = "missing kernel ";
  if (strncmp(what, kernel, sizeof kernel - 1) == 0) {
    snprintf(missing, sizeof missing, "%s", n ? what + sizeof kernel - 1 : "");
    return DLUA_OK;
  }
  if (strcmp(what, "limit") == 0) return limit = (size_t)n, DLUA_OK;
  for (int k = 0; k < FAULTS; k++) {
    if (strcmp(what, names[k]) != 0) continue;
    pthread_mutex_lock(&lock);
    countdown[k] = n;
    pthread_mutex_unlock(&lock);
    return DLUA_OK;
  }
  return host->fail(
      DLUA_BAD_ARGUMENT,
      "mock: there is no fault '%s' (known: alloc, copy, launch, limit, missing kernel OP)", what);
}

// ---------------------------------------------------------------- memory

// In front of every block, so that all of them hang on one list: a leak checker does not see
// through tagged addresses.
typedef struct header {
  struct header *next, *previous;
} header;

static header blocks = {&blocks, &blocks};
static size_t in_use[DEVICES];

static uintptr_t tag_of(int index) { return (uintptr_t)(index + 1) << TAG_SHIFT; }
static int owner_of(const void *address) { return (int)((uintptr_t)address >> TAG_SHIFT) - 1; }
static void *readable(const void *address) {
  return (void *)((uintptr_t)address & (((uintptr_t)1 << TAG_SHIFT) - 1));
}

static dlua_status mock_alloc(int index, size_t bytes, void **block) {
  if (strikes(ALLOC)) {
    return host->fail(DLUA_NO_MEMORY, "mock: out of memory: %zu bytes more (injected)", bytes);
  }
  if (limit && bytes + in_use[index] > limit) {
    return host->fail(DLUA_NO_MEMORY, "mock: out of memory: %zu bytes more than %zu", bytes, limit);
  }
  header *h = NULL;
  if (bytes > SIZE_MAX - ALIGNMENT || posix_memalign((void **)&h, ALIGNMENT, ALIGNMENT + bytes)) {
    return host->fail(DLUA_NO_MEMORY, "mock: out of memory: %zu bytes more", bytes);
  }
  pthread_mutex_lock(&lock);
  *h = (header){blocks.next, &blocks};
  blocks.next->previous = h;
  blocks.next = h;
  in_use[index] += bytes;
  pthread_mutex_unlock(&lock);
  *block = (void *)(((uintptr_t)h + ALIGNMENT) | tag_of(index));
  return DLUA_OK;
}

static void mock_free(int index, void *block, size_t bytes) {
  if (!block) return;
  header *h = (header *)((char *)readable(block) - ALIGNMENT);
  pthread_mutex_lock(&lock);
  h->previous->next = h->next;
  h->next->previous = h->previous;
  in_use[index] -= bytes;
  pthread_mutex_unlock(&lock);
  free(h);
}

// Checks that an address belongs to a device, or to the host where owner is -1.
static dlua_status check_owner(const void *address, int owner, const char *what) {
  if (owner_of(address) == owner) return DLUA_OK;
  return host->fail(DLUA_BAD_DEVICE, "mock: copy %s address %p, which is not of %s", what, address,
                    owner < 0    ? "the host"
                    : owner == 0 ? "mock"
                                 : "mock:2");
}

static dlua_status move(int to, void *dst, int from, const void *src, size_t bytes) {
  if (strikes(COPY)) {
    return host->fail(DLUA_BAD_DEVICE, "mock: copy of %zu bytes failed (injected)", bytes);
  }
  DLUA_TRY(check_owner(dst, to, "to"));
  DLUA_TRY(check_owner(src, from, "from"));
  memmove(readable(dst), readable(src), bytes);
  return DLUA_OK;
}

static dlua_status mock_from_host(int index, void *dst, const void *src, size_t bytes) {
  return move(index, dst, -1, src, bytes);
}
static dlua_status mock_to_host(int index, void *dst, const void *src, size_t bytes) {
  return move(-1, dst, index, src, bytes);
}
static dlua_status mock_copy(int index, void *dst, const void *src, size_t bytes) {
  return move(index, dst, index, src, bytes);
}

// ---------------------------------------------------------------- kernels

// A tensor as the CPU's kernels may see it.
typedef struct shadow {
  dlua_tensor tensor, *of;
  dlua_storage storage, *shared; // its own storage, or that of an earlier shadow
} shadow;

typedef struct shadows {
  int count;
  shadow *all;
} shadows;

// The shadow of x: one per tensor and one storage per storage, so that identity means what it did.
static dlua_tensor *shade(shadows *s, dlua_tensor *x) {
  if (!x || owner_of(x->storage->data) < 0) return x; // a number lives on the host
  shadow *new = &s->all[s->count];
  new->shared = &new->storage;
  for (int k = 0; k < s->count; k++) {
    if (s->all[k].of == x) return &s->all[k].tensor;
    if (s->all[k].of->storage == x->storage) new->shared = s->all[k].shared;
  }
  new->of = x, new->tensor = *x, new->tensor.storage = new->shared;
  if (new->shared == &new->storage) {
    new->storage = *x->storage;
    new->storage.data = readable(x->storage->data);
    new->storage.device = host->cpu, new->storage.cache = NULL;
  }
  s->count++;
  return &new->tensor;
}

// Takes over what kernels note in storages, and drops what they keep there for a CPU.
static void settle(shadows *s) {
  for (int k = 0; k < s->count; k++) {
    dlua_storage *storage = &s->all[k].storage;
    if (s->all[k].shared != storage) continue;
    s->all[k].of->storage->version = storage->version;
    if (storage->cache) storage->drop_cache(storage->cache);
  }
}

static dlua_status launch(const dlua_args *a) {
  if (strikes(LAUNCH)) {
    return host->fail(DLUA_BAD_DEVICE, "mock: launch of %s failed (injected)", a->op->name);
  }
  size_t tensors = (size_t)(a->nin + a->nout);
  shadows s = {.all = calloc(tensors + 1, sizeof *s.all)};
  dlua_tensor **in = calloc(tensors + 1, sizeof *in);
  dlua_status status = DLUA_NO_MEMORY;
  if (!s.all || !in)
    host->fail(status, "mock: out of memory to launch %s", a->op->name);
  else {
    dlua_args shaded = *a;
    shaded.in = in, shaded.device = host->cpu;
    for (int k = 0; k < a->nin; k++) in[k] = shade(&s, a->in[k]);
    for (int k = 0; k < a->nout; k++) shaded.out[k] = shade(&s, a->out[k]);
    status = host->run_cpu(&shaded);
    settle(&s);
  }
  free(s.all), free(in);
  return status;
}

static dlua_kernel *mock_kernel(const dlua_op *op) {
  return strcmp(op->name, missing) == 0 ? NULL : launch;
}

// ---------------------------------------------------------------- the module

static int mock_count(void) { return DEVICES; }

static dlua_status mock_info(int index, dlua_device_info *info) {
  *info = (dlua_device_info){.multiprocessors = 1};
  snprintf(info->name, sizeof info->name, "mock device %d of %d", index + 1, DEVICES);
  snprintf(info->libraries, sizeof info->libraries, "the CPU behind memory the host cannot read");
  return DLUA_OK;
}

static bool mock_half(const dlua_op *op) { return op->flags & DLUA_HALF; }

static dlua_status mock_synchronize(int index) {
  (void)index;
  return DLUA_OK;
}

// Values sent arrive at the second look, so that whoever does not look again never sees them.
static struct {
  char bytes[DLUA_NOTE_BYTES];
  bool seen;
} notes[DEVICES][DLUA_NOTES];
static uint64_t sent[DEVICES];

static dlua_status mock_send(int index, const void *src, size_t bytes, uint64_t *ticket) {
  *ticket = ++sent[index];
  notes[index][*ticket % DLUA_NOTES].seen = false;
  return move(-1, notes[index][*ticket % DLUA_NOTES].bytes, index, src, bytes);
}

static dlua_status mock_receive(int index, uint64_t ticket, void *dst, size_t bytes,
                                bool *arrived) {
  if (ticket == 0 || ticket > sent[index] || ticket + DLUA_NOTES <= sent[index]) {
    return host->fail(DLUA_BAD_STATE, "receive: this value was sent too long ago");
  }
  *arrived = notes[index][ticket % DLUA_NOTES].seen;
  notes[index][ticket % DLUA_NOTES].seen = true;
  if (*arrived) memcpy(dst, notes[index][ticket % DLUA_NOTES].bytes, bytes);
  return DLUA_OK;
}

static const dlua_backend backend = {
    .abi = DLUA_ABI,
    .name = "mock",
    .count = mock_count,
    .info = mock_info,
    .alloc = mock_alloc,
    .free = mock_free,
    .from_host = mock_from_host,
    .to_host = mock_to_host,
    .copy = mock_copy,
    .synchronize = mock_synchronize,
    .send = mock_send,
    .receive = mock_receive,
    .kernel = mock_kernel,
    .half = mock_half,
    .test_fault = mock_test_fault,
};

__attribute__((visibility("default"))) const dlua_backend *dlua_module(const dlua_host *h) {
  host = h;
  if (h->abi == DLUA_ABI) return &backend;
  h->fail(DLUA_BAD_DEVICE, "the mock was built for interface %d, this is %d", DLUA_ABI, h->abi);
  return NULL;
}
