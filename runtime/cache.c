// cache.c - caching allocator: free blocks are kept by size class, per device, and handed out again
// most recent first, because a warm block is several times faster than a fresh one. After two
// rounds of a training loop nothing comes from the system. Small host objects (tensors, nodes) are
// counted here too, so that one switch (dlua_fail_allocation) can make any allocation of the
// runtime fail.
//
// Refused for the CPU: splitting and merging blocks. Eight classes per doubling waste at most an
// eighth and need no search. A device's memory is scarcer and slower to get: its blocks are cut from
// segments (segments.c). A device does everything in order, in one stream, so a block that was freed
// may be handed out at once: whatever still reads it was queued before what the next owner queues.
#include "cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "env.h"
#include "segments.h"

enum { CLASSES = 8 * 48, SMALLEST = 64, HUGE_BLOCK = 4 << 20, SPARE = 256 << 20 };

typedef struct block { // a free block of the CPU holds its own link
  struct block *next;
} block;

struct dlua_cache {
  pthread_mutex_t lock;
  block *free[CLASSES];    // the CPU's
  dlua_segments *segments; // a device's; NULL for the CPU
  dlua_memory stats;
};

static atomic_uint_fast64_t tried, fail_at;
static atomic_bool fail_on; // after the one that failed, the others fail too
static atomic_size_t live_everywhere;

// Counts one allocation; true when it is one that a test wants to fail.
static bool must_fail(void) {
  uint64_t count = atomic_fetch_add_explicit(&tried, 1, memory_order_relaxed) + 1;
  uint64_t wanted = atomic_load_explicit(&fail_at, memory_order_relaxed);
  if (wanted == 0 || count < wanted) return false;
  if (atomic_load_explicit(&fail_on, memory_order_relaxed)) return true;
  if (count != wanted) return false;
  atomic_store(&fail_at, 0);
  return true;
}

void dlua_fail_allocation(uint64_t n, bool on) {
  atomic_store(&fail_on, on);
  atomic_store(&fail_at, n ? atomic_load(&tried) + n : 0);
}

uint64_t dlua_allocation_count(void) { return atomic_load(&tried); }

size_t dlua_live_bytes(void) {
  return atomic_load_explicit(&live_everywhere, memory_order_relaxed);
}

struct dlua_cache *dlua_cache_new(void) {
  struct dlua_cache *cache = dlua_new(sizeof *cache);
  if (!cache) return NULL;
  cache->segments = dlua_segments_new();
  if (!cache->segments) return dlua_delete(cache, sizeof *cache), NULL;
  pthread_mutex_init(&cache->lock, NULL);
  return cache;
}

struct dlua_cache *dlua_cache_cpu(void) {
  static struct dlua_cache cache = {.lock = PTHREAD_MUTEX_INITIALIZER};
  return &cache;
}

// Size class of a request and the bytes that blocks of the class have: powers of two in eight steps.
static int class_of(size_t bytes, size_t *rounded) {
  if (bytes <= SMALLEST) return *rounded = SMALLEST, 0;
  int log = 63 - __builtin_clzll(bytes - 1);
  size_t step = (size_t)1 << (log - 3);
  if (step < SMALLEST) step = SMALLEST;
  *rounded = (bytes + step - 1) / step * step;
  return (log - 6) * 8 + (int)((*rounded - ((size_t)1 << log)) / step);
}

static _Thread_local dlua_device *short_of_memory;

dlua_device *dlua_out_of_memory(void) { return short_of_memory ? short_of_memory : dlua_cpu(); }

// ---------------------------------------------------------------- when memory is out

static _Thread_local struct {
  void (*fn)(void);
  bool running;
  int held; // locks of caches, which giving memory back would wait for
} reclaim;

void dlua_set_reclaim(void (*fn)(void)) { reclaim.fn = fn; }

static void hold(struct dlua_cache *cache) {
  pthread_mutex_lock(&cache->lock);
  reclaim.held++;
}

static void let_go(struct dlua_cache *cache) {
  reclaim.held--;
  pthread_mutex_unlock(&cache->lock);
}

bool dlua_reclaim(dlua_device *device) {
  bool can = reclaim.fn && !reclaim.running && reclaim.held == 0;
  if (can) {
    reclaim.running = true;
    reclaim.fn();
    for (int k = 0; k < dlua_device_count(); k++) dlua_empty_cache(dlua_device_at(k));
    reclaim.running = false;
  }
  short_of_memory = device; // last: what ran meanwhile may have been short of other memory
  return can;
}

// ---------------------------------------------------------------- counts

static void count_in(dlua_memory *stats, size_t bytes, bool from_system) {
  stats->live += bytes, stats->allocations++, stats->system += from_system;
  if (stats->live > stats->peak) stats->peak = stats->live;
  atomic_fetch_add_explicit(&live_everywhere, bytes, memory_order_relaxed);
}

// ---------------------------------------------------------------- blocks of the CPU

static dlua_status system_alloc(size_t bytes, void **memory) {
  if (posix_memalign(memory, bytes >= HUGE_BLOCK ? 1 << 21 : SMALLEST, bytes) != 0) {
    return dlua_fail(DLUA_NO_MEMORY, "out of memory: %.1f MiB more on top of %.1f MiB in use",
                     bytes / 1048576.0, dlua_live_bytes() / 1048576.0);
  }
  if (bytes >= HUGE_BLOCK) madvise(*memory, bytes, MADV_HUGEPAGE);
  return DLUA_OK;
}

// Takes a block of the class from the list, or NULL. The lock is held.
static void *take(struct dlua_cache *cache, int class) {
  block *found = cache->free[class];
  if (found) cache->free[class] = found->next;
  return found;
}

static void empty_host_cache(struct dlua_cache *cache) {
  for (int class = 0; class < CLASSES; class ++) {
    void *memory;
    while ((memory = take(cache, class))) free(memory);
  }
  cache->stats.cached = 0;
}

static dlua_status host_alloc(dlua_device *device, size_t bytes, void **memory) {
  size_t rounded;
  int class = class_of(bytes, &rounded);
  struct dlua_cache *cache = device->cache;
  hold(cache);
  void *found = take(cache, class);
  if (found) {
    cache->stats.cached -= rounded;
    count_in(&cache->stats, rounded, false);
  }
  let_go(cache);
  if (!found) {
    dlua_status status = system_alloc(rounded, &found);
    if (status == DLUA_NO_MEMORY) { // blocks of other classes may be all that is in the way
      dlua_empty_cache(device);
      status = system_alloc(rounded, &found);
    }
    DLUA_TRY(status);
    hold(cache);
    count_in(&cache->stats, rounded, true);
    let_go(cache);
  }
  *memory = found;
  return DLUA_OK;
}

// DLUA_POISON=1 fills freed host blocks with a pattern that is a NaN as f32 and f64.
static bool poisoned(void) {
  static int on = -1;
  if (on < 0) on = dlua_env_on("DLUA_POISON");
  return on;
}

static void host_free(dlua_device *device, void *memory, size_t bytes) {
  size_t rounded;
  int class = class_of(bytes, &rounded);
  if (poisoned()) memset(memory, 0xff, rounded);
  struct dlua_cache *cache = device->cache;
  hold(cache);
  // Loops over ever other sizes must not hoard: what is kept is bounded by what was once in use.
  bool kept = cache->stats.cached + rounded <= cache->stats.peak + SPARE;
  if (kept) {
    block *link = memory;
    link->next = cache->free[class];
    cache->free[class] = link;
    cache->stats.cached += rounded;
  }
  cache->stats.live -= rounded;
  let_go(cache);
  atomic_fetch_sub_explicit(&live_everywhere, rounded, memory_order_relaxed);
  if (!kept) free(memory);
}

// ---------------------------------------------------------------- blocks of a device

// DLUA_CACHE=0 asks the device for every block: a tool that knows the bounds of what was asked for
// then sees what goes beyond them.
static bool uncached(void) {
  static int off = -1;
  if (off < 0) {
    const char *value = dlua_env("DLUA_CACHE");
    off = value && strcmp(value, "0") == 0;
  }
  return off;
}

static void give_back(dlua_device *device) {
  void *memory;
  size_t size;
  while (dlua_segments_remove(device->cache->segments, &memory, &size)) {
    device->backend->free(device->index, memory, size);
  }
}

// Memory of the device, as much as wished for, else what is needed, else that with everything given
// back that nobody uses.
static dlua_status device_memory(dlua_device *device, size_t *size, size_t least, void **memory) {
  const dlua_backend *backend = device->backend;
  dlua_status status = backend->alloc(device->index, *size, memory);
  if (status == DLUA_NO_MEMORY && least < *size) {
    *size = least;
    status = backend->alloc(device->index, least, memory);
  }
  if (status == DLUA_NO_MEMORY) {
    *size = least;
    give_back(device);
    status = backend->alloc(device->index, least, memory);
  }
  return status;
}

static dlua_status grow(dlua_device *device, size_t bytes) {
  dlua_segments *segments = device->cache->segments;
  size_t size = dlua_segments_growth(segments, bytes);
  void *memory;
  DLUA_TRY(device_memory(device, &size, dlua_segments_least(bytes), &memory));
  dlua_status status = dlua_segments_add(segments, memory, size, bytes);
  if (status != DLUA_OK) device->backend->free(device->index, memory, size);
  return status;
}

static dlua_status take_or_grow(dlua_device *device, size_t bytes, void **memory, bool *grown) {
  dlua_segments *segments = device->cache->segments;
  void *found = dlua_segments_take(segments, bytes);
  *grown = !found;
  if (!found) {
    DLUA_TRY(grow(device, bytes));
    found = dlua_segments_take(segments, bytes);
  }
  *memory = found;
  return DLUA_OK;
}

static size_t device_bytes(size_t bytes) { return uncached() ? bytes : dlua_segments_round(bytes); }

static dlua_status device_alloc(dlua_device *device, size_t bytes, void **memory) {
  struct dlua_cache *cache = device->cache;
  bool grown = true;
  hold(cache);
  dlua_status status = uncached() ? device->backend->alloc(device->index, bytes, memory)
                                  : take_or_grow(device, bytes, memory, &grown);
  if (status == DLUA_OK) count_in(&cache->stats, device_bytes(bytes), grown);
  let_go(cache);
  if (status != DLUA_NO_MEMORY) return status;
  const double mib = 1048576.0;
  dlua_memory m = dlua_memory_stats(device);
  return dlua_fail(status,
                   "%s: %.1f MiB more on %s, where %.1f MiB are in use and %.1f MiB free between "
                   "them; a smaller batch needs less",
                   dlua_message(), (double)bytes / mib, device->name, (double)m.live / mib,
                   (double)m.cached / mib);
}

static void device_free(dlua_device *device, void *memory, size_t bytes) {
  struct dlua_cache *cache = device->cache;
  size_t counted = device_bytes(bytes);
  hold(cache);
  cache->stats.live -= counted;
  if (uncached())
    device->backend->free(device->index, memory, bytes);
  else
    dlua_segments_give(cache->segments, memory);
  let_go(cache);
  atomic_fetch_sub_explicit(&live_everywhere, counted, memory_order_relaxed);
}

// ---------------------------------------------------------------- blocks

static dlua_status try_alloc(dlua_device *device, size_t bytes, void **memory, bool fails) {
  if (fails) {
    return dlua_fail(DLUA_NO_MEMORY, "out of memory: %zu bytes more on %s (injected)", bytes,
                     device->name);
  }
  return device->cache->segments ? device_alloc(device, bytes, memory)
                                 : host_alloc(device, bytes, memory);
}

dlua_status dlua_alloc(dlua_device *device, size_t bytes, void **memory) {
  dlua_status status;
  if (bytes > (size_t)1 << 46)
    status = dlua_fail(DLUA_NO_MEMORY, "out of memory: %.1f GiB asked for", bytes / 1073741824.0);
  else {
    bool fails = must_fail();
    status = try_alloc(device, bytes, memory, fails);
    // Nothing is gained by a collection where a test wants the failure.
    if (status == DLUA_NO_MEMORY && !fails && dlua_reclaim(device))
      status = try_alloc(device, bytes, memory, false);
  }
  if (status == DLUA_NO_MEMORY) short_of_memory = device;
  return status;
}

void dlua_free(dlua_device *device, void *memory, size_t bytes) {
  if (!memory) return;
  if (device->cache->segments)
    device_free(device, memory, bytes);
  else
    host_free(device, memory, bytes);
}

void dlua_empty_cache(dlua_device *device) {
  struct dlua_cache *cache = device->cache;
  hold(cache);
  if (cache->segments)
    give_back(device);
  else
    empty_host_cache(cache);
  let_go(cache);
}

dlua_memory dlua_memory_stats(const dlua_device *device) {
  struct dlua_cache *cache = device->cache;
  hold(cache);
  dlua_memory stats = cache->stats;
  if (cache->segments) {
    dlua_segment_figures f = dlua_segments_figures(cache->segments);
    stats.cached = f.reserved > stats.live ? f.reserved - stats.live : 0;
    stats.largest = f.largest, stats.segments = f.segments;
  }
  let_go(cache);
  return stats;
}

void dlua_memory_reset_peak(dlua_device *device) {
  struct dlua_cache *cache = device->cache;
  hold(cache);
  cache->stats.peak = cache->stats.live;
  let_go(cache);
}

// ---------------------------------------------------------------- small objects

enum { SMALL_STEP = 32, SMALL_LISTS = 32 }; // objects up to 1 KiB are recycled per thread

static bool is_recycled(size_t list) {
#ifdef __SANITIZE_ADDRESS__
  return (void)list, false; // the sanitizer wants to see every object come and go
#else
  return list < SMALL_LISTS;
#endif
}

// Most that a list keeps: the main thread frees what loader threads made, without end.
enum { SMALL_KEPT = 1024 };

typedef struct link {
  struct link *next;
} link;

static _Thread_local link *small[SMALL_LISTS];
static _Thread_local int small_count[SMALL_LISTS];

static size_t list_of(size_t bytes) { return bytes ? (bytes + SMALL_STEP - 1) / SMALL_STEP : 1; }

static void *try_new(size_t bytes, bool fails) {
  if (fails) {
    dlua_fail(DLUA_NO_MEMORY, "out of memory: %zu bytes more (injected)", bytes);
    return NULL;
  }
  size_t list = list_of(bytes);
  void *object = is_recycled(list) ? small[list] : NULL;
  if (object) {
    small[list] = small[list]->next;
    small_count[list]--;
    return object;
  }
  object = malloc(list * SMALL_STEP);
  if (!object) dlua_fail(DLUA_NO_MEMORY, "out of memory: %zu bytes more", bytes);
  return object;
}

void *dlua_new(size_t bytes) {
  bool fails = must_fail();
  void *object = try_new(bytes, fails);
  if (!object && !fails && dlua_reclaim(dlua_cpu())) object = try_new(bytes, false);
  if (object) return memset(object, 0, bytes);
  short_of_memory = NULL;
  return NULL;
}

void dlua_delete(void *object, size_t bytes) {
  if (!object) return;
  size_t list = list_of(bytes);
  if (!is_recycled(list) || small_count[list] >= SMALL_KEPT) {
    free(object);
    return;
  }
  link *back = object;
  back->next = small[list];
  small[list] = back;
  small_count[list]++;
}

enum { PREFIX = 16 }; // bytes before a block that hold its size; they keep its alignment

void *dlua_new_block(size_t bytes) {
  char *object = bytes < SIZE_MAX / 2 ? dlua_new(PREFIX + bytes) : NULL;
  if (!object) return NULL;
  memcpy(object, &bytes, sizeof bytes);
  return object + PREFIX;
}

char *dlua_new_text(const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = dlua_new_block(size);
  return copy ? memcpy(copy, text, size) : NULL;
}

void dlua_delete_block(void *block) {
  if (!block) return;
  size_t bytes;
  char *object = (char *)block - PREFIX;
  memcpy(&bytes, object, sizeof bytes);
  dlua_delete(object, PREFIX + bytes);
}

void dlua_thread_done(void) {
  for (int list = 0; list < SMALL_LISTS; list++) {
    while (small[list]) {
      link *next = small[list]->next;
      free(small[list]);
      small[list] = next;
    }
    small_count[list] = 0;
  }
}
