// fibers.cpp - threads of a block as fibers. One fiber runs thread after thread; only where a thread
// meets a barrier is its fiber put aside and another one goes on, so a kernel without barriers costs
// one fiber and no switch.
#include "fibers.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <memory>
#include <vector>

#include "language.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#else
static void __sanitizer_start_switch_fiber(void **, const void *, size_t) {}
static void __sanitizer_finish_switch_fiber(void *, const void **, size_t *) {}
#endif

namespace emulator {

Thread *here;
dim3 block_size, grid_size;

namespace {

constexpr size_t STACK = 256 << 10;

// What threads wait for: it opens when as many as still run have come.
struct Barrier {
  unsigned waiting = 0, running = 0;
  uint64_t opened = 0; // how many times
};

// What runs, or goes on later; the address sanitizer is told where its stack is.
struct Routine {
  ucontext_t context;
  const void *stack = nullptr;
  size_t size = 0;
  void *shadow = nullptr; // the sanitizer's
};

struct Fiber : Routine {
  Thread thread;
  Barrier *barrier = nullptr; // waits here until it has opened again
  uint64_t since = 0;
  ~Fiber() {
    if (stack) munmap(const_cast<void *>(stack), STACK);
  }
};

struct Warp {
  Barrier barrier;
  uint64_t places[32];
};

// The block that runs, and the fibers, which stay for the next one.
void (*body)(void **);
void **body_arguments;
unsigned next_thread, thread_count, launches;
dim3 block_at;
Barrier whole;
std::vector<Warp> warps;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber *> idle;    // between two blocks, all of them
std::vector<Fiber *> waiting; // at barriers, in the order they came
Fiber *current;
Routine scheduler;

// A fiber is being run, for the first time or again, by the scheduler.
void arrived(Fiber *self) {
  __sanitizer_finish_switch_fiber(self->shadow, &scheduler.stack, &scheduler.size);
}

// The scheduler goes on; returns when the fiber is run again.
void yield(Fiber *self) {
  __sanitizer_start_switch_fiber(&self->shadow, scheduler.stack, scheduler.size);
  swapcontext(&self->context, &scheduler.context);
  arrived(self);
}

void arrive(Barrier *b) {
  if (++b->waiting == b->running) b->waiting = 0, b->opened++;
}

// A thread that has ended is not waited for any more.
void leave(Barrier *b) {
  b->running--;
  if (b->waiting > 0 && b->waiting == b->running) b->waiting = 0, b->opened++;
}

void wait_at(Barrier *b) {
  uint64_t since = b->opened;
  arrive(b);
  if (b->opened != since) return;
  Fiber *self = current;
  self->barrier = b, self->since = since;
  waiting.push_back(self);
  yield(self);
  here = &self->thread;
}

Warp *warp_of(const Thread &t) { return &warps[t.number / 32]; }

// Every other launch runs its threads backwards.
unsigned number_of(unsigned turn) { return launches % 2 ? thread_count - 1 - turn : turn; }

void run_threads() {
  Fiber *self = current;
  while (next_thread < thread_count) {
    unsigned n = number_of(next_thread++);
    self->thread = {
        dim3(n % block_size.x, n / block_size.x % block_size.y, n / (block_size.x * block_size.y)),
        block_at, n};
    here = &self->thread;
    body(body_arguments);
    leave(&warp_of(self->thread)->barrier);
    leave(&whole);
  }
}

void fiber_main() {
  Fiber *self = current;
  arrived(self);
  for (;;) {
    run_threads();
    idle.push_back(self);
    yield(self);
  }
}

Fiber *new_fiber() {
  auto fiber = std::make_unique<Fiber>();
  void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) return nullptr;
  fiber->stack = stack, fiber->size = STACK;
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = stack, fiber->context.uc_stack.ss_size = STACK;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, fiber_main, 0);
  fibers.push_back(std::move(fiber));
  return fibers.back().get();
}

void resume(Fiber *fiber) {
  current = fiber;
  __sanitizer_start_switch_fiber(&scheduler.shadow, fiber->stack, fiber->size);
  swapcontext(&scheduler.context, &fiber->context);
  __sanitizer_finish_switch_fiber(scheduler.shadow, nullptr, nullptr);
}

// A fiber whose barrier has opened, or NULL.
Fiber *take_ready() {
  for (size_t k = 0; k < waiting.size(); k++) {
    Fiber *fiber = waiting[k];
    if (fiber->barrier->opened == fiber->since) continue;
    waiting.erase(waiting.begin() + (long)k);
    return fiber;
  }
  return nullptr;
}

bool run_block() {
  next_thread = 0;
  whole = Barrier{0, thread_count, 0};
  warps.assign((thread_count + 31) / 32, Warp());
  for (unsigned n = 0; n < thread_count; n++) warps[n / 32].barrier.running++;
  for (;;) {
    Fiber *fiber = take_ready();
    if (!fiber && next_thread < thread_count) {
      if (idle.empty()) {
        fiber = new_fiber();
        if (!fiber) return false;
      } else {
        fiber = idle.back();
        idle.pop_back();
      }
    }
    if (!fiber) break;
    resume(fiber);
  }
  return waiting.empty();
}

} // namespace

void block_barrier() { wait_at(&whole); }
void warp_barrier() { wait_at(&warp_of(*here)->barrier); }
uint64_t *warp_places() { return warp_of(*here)->places; }

bool run_grid(void (*thread)(void **arguments), void **arguments, dim3 grid, dim3 block) {
  body = thread, body_arguments = arguments;
  block_size = block, grid_size = grid;
  thread_count = block.x * block.y * block.z;
  launches++;
  for (block_at.z = 0; block_at.z < grid.z; block_at.z++) {
    for (block_at.y = 0; block_at.y < grid.y; block_at.y++) {
      for (block_at.x = 0; block_at.x < grid.x; block_at.x++) {
        if (run_block()) continue;
        waiting.clear(), fibers.clear(), idle.clear();
        return false;
      }
    }
  }
  return true;
}

} // namespace emulator
