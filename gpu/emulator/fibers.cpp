// fibers.cpp - threads of a block as fibers. One fiber runs thread after thread; only where a thread
// meets a barrier is its fiber put aside and another one goes on, so a kernel without barriers costs
// one fiber and no switch.
//
// A GPU promises no order, so launches differ in theirs: the blocks of a grid and the threads of a
// block, whenever several could go on, take turns forwards, backwards or in any order, by a number
// drawn for the launch. The draws are the same in every process. DLUA_EMULATOR_ORDER is one way for
// all launches: "forward", "reverse", or the number to shuffle by.
#include "fibers.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
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

// What runs, or goes on later; the address sanitizer is told where its stack is.
struct Routine {
  ucontext_t context;
  const void *stack = nullptr;
  size_t size = 0;
  void *shadow = nullptr; // the sanitizer's
};

struct Fiber : Routine {
  Thread thread;
  ~Fiber() {
    if (stack) munmap(const_cast<void *>(stack), STACK);
  }
};

// What threads wait for: it opens when as many as still run are there.
struct Barrier {
  unsigned running = 0;
  std::vector<Fiber *> there; // in the order they came
  void begin(unsigned threads) { running = threads, there.clear(); }
};

struct Warp {
  Barrier barrier;
  uint64_t places[32];
  void begin(unsigned threads) { barrier.begin(threads), std::fill_n(places, 32, NOBODY); }
};

// The block that runs, and the fibers, which stay for the next one.
void (*body)(void **);
void **body_arguments;
unsigned next_thread, thread_count;
dim3 block_at;
Barrier whole;
std::vector<Warp> warps;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber *> idle;  // between two blocks, all of them
std::vector<Fiber *> ready; // to go on, in the order they may
Fiber *current;
Routine scheduler;

// ---------------------------------------------------------------- the order

enum Way { FORWARD, REVERSE, SHUFFLED };

Way way; // of this launch
uint64_t drawn;
std::vector<unsigned> thread_turns;

// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
uint64_t draw() {
  uint64_t z = drawn += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

void choose_way() {
  static const char *const set = std::getenv("DLUA_EMULATOR_ORDER");
  static uint64_t launches, first = set ? std::strtoull(set, nullptr, 10) : 0;
  drawn = first ^ ++launches << 32;
  way = set ? SHUFFLED : Way(draw() % 3);
  if (set && std::strcmp(set, "forward") == 0) way = FORWARD;
  if (set && std::strcmp(set, "reverse") == 0) way = REVERSE;
}

// The numbers below n, in the order that they have their turns in.
void take_turns(std::vector<unsigned> *turns, size_t n) {
  turns->resize(n);
  for (size_t k = 0; k < n; k++) (*turns)[k] = (unsigned)(way == REVERSE ? n - 1 - k : k);
  for (size_t k = n; k > 1 && way == SHUFFLED; k--)
    std::swap((*turns)[k - 1], (*turns)[draw() % k]);
}

// ---------------------------------------------------------------- fibers

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

void open_if_complete(Barrier *b) {
  if (b->there.size() != b->running) return;
  ready.insert(ready.end(), b->there.begin(), b->there.end());
  b->there.clear();
}

// A thread that has ended is not waited for any more.
void leave(Barrier *b) {
  b->running--;
  open_if_complete(b);
}

// This thread goes on when it has come among the ready ones and it is its turn.
void put_aside() {
  Fiber *self = current;
  yield(self);
  here = &self->thread;
}

void wait_at(Barrier *b) {
  b->there.push_back(current);
  open_if_complete(b);
  put_aside();
}

Warp *warp_of(const Thread &t) { return &warps[t.number / 32]; }

void run_threads() {
  Fiber *self = current;
  while (next_thread < thread_count) {
    unsigned n = thread_turns[next_thread++];
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

// A fiber that can go on, or NULL.
Fiber *take_ready() {
  if (ready.empty()) return nullptr;
  auto it = ready.begin() + (way == SHUFFLED ? (long)(draw() % ready.size()) : 0);
  Fiber *fiber = *it;
  ready.erase(it);
  return fiber;
}

// False where threads wait for each other for ever.
bool run_block() {
  next_thread = 0;
  take_turns(&thread_turns, thread_count);
  whole.begin(thread_count);
  warps.resize((thread_count + 31) / 32);
  for (unsigned n = 0; n < warps.size(); n++) warps[n].begin(std::min(thread_count - 32 * n, 32u));
  for (;;) {
    bool fresh_first = way == SHUFFLED && next_thread < thread_count && draw() % 2;
    Fiber *fiber = fresh_first ? nullptr : take_ready();
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
  return whole.running == 0;
}

} // namespace

void block_barrier() { wait_at(&whole); }
void warp_barrier() { wait_at(&warp_of(*here)->barrier); }
uint64_t *warp_places() { return warp_of(*here)->places; }

void may_be_overtaken() {
  if (way != SHUFFLED || draw() % 2) return;
  ready.push_back(current);
  put_aside();
}

bool run_grid(void (*thread)(void **arguments), void **arguments, dim3 grid, dim3 block) {
  body = thread, body_arguments = arguments;
  block_size = block, grid_size = grid;
  thread_count = block.x * block.y * block.z;
  choose_way();
  std::vector<unsigned> block_turns;
  take_turns(&block_turns, (size_t)grid.x * grid.y * grid.z);
  for (unsigned n : block_turns) {
    block_at = dim3(n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y);
    if (run_block()) continue;
    ready.clear(), fibers.clear(), idle.clear();
    return false;
  }
  return true;
}

} // namespace emulator
