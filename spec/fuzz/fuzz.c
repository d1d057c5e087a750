// fuzz.c - runs one target in a child process until the inputs or the time are up, and reads its
// death.
//
// The input lies in a file before it is read, and the iteration in memory that both processes see:
// whatever the child does, the parent knows what did it. A child that computes ten seconds for one
// input, or gives no sign of life for ten minutes, hangs. Memory is held to 32 MiB above the start
// (R18: 4 times the file, which is at most 64 KiB, and 32 MiB), so a reader that believes a header
// fails with "out of memory", which no input of this size may cause.
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

enum { MEMORY = 32 << 20, PATIENCE = 10, FOUND = 99 };

typedef struct run {
  const fuzz_target *target;
  fuzz_place place;
  double seconds;
  uint64_t inputs;   // how many to try, whatever time they take; 0: as many as the seconds allow
  uint64_t seed, at; // at: the only iteration, UINT64_MAX for all
  bool planted;
  volatile uint64_t *iteration, *accepted; // shared
} run;

#ifdef __SANITIZE_ADDRESS__
// The sanitizer's own memory is without bounds, so single blocks are held down instead.
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "max_allocation_size_mb=32:allocator_may_return_null=1:quarantine_size_mb=16";
}
static bool limit_memory(void) { return true; }
#else
static bool limit_memory(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  bool known = file && fscanf(file, "%lu", &pages) == 1;
  if (file) fclose(file);
  rlim_t most = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + MEMORY + 4 * FUZZ_MOST;
  return known && setrlimit(RLIMIT_AS, &(struct rlimit){most, most}) == 0;
}
#endif

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool write_file(const char *path, const dlua_bytes *bytes) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  bool written = fd >= 0 && write(fd, bytes->data, bytes->size) == (ssize_t)bytes->size;
  if (fd >= 0) close(fd);
  return written;
}

// ---------------------------------------------------------------- the child

typedef struct seeds {
  int count;
  dlua_bytes bytes[FUZZ_SEEDS];
  uint64_t kind[FUZZ_SEEDS];
} seeds;

_Noreturn static void complain(const char *what) {
  fprintf(stderr, "%s (message: %s)\n", what, dlua_message());
  _exit(1);
}

// Whether a message is one line that names the file.
static bool is_clear(const char *text, const char *file) {
  if (!strstr(text, file)) return false;
  for (; *text; text++) {
    if (iscntrl((unsigned char)*text)) return false;
  }
  return true;
}

// Reads one input and holds the outcome against what every reader promises.
static bool read_one(const run *r, const dlua_bytes *input, uint64_t *kind) {
  size_t live = dlua_live_bytes();
  if (!write_file(r->place.input, input)) complain("the input could not be written");
  dlua_status status = r->target->read(&r->place, input, kind);
  if (dlua_live_bytes() != live) complain("memory was left in use");
  if (status == DLUA_NO_MEMORY) complain("a small file asked for much memory");
  if (status != DLUA_OK && !is_clear(dlua_message(), r->target->file)) {
    complain("the message does not name the file in one line");
  }
  return status == DLUA_OK;
}

static void read_seeds(const run *r, seeds *s) {
  s->count = r->target->seeds(&r->place, s->bytes);
  if (s->count == 0) complain("there are no seeds");
  for (int k = 0; k < s->count; k++) read_one(r, &s->bytes[k], &s->kind[k]);
}

// The planted bug: it strikes where a damaged file is taken for a good one of another shape.
static void strike(const seeds *s, uint64_t kind) {
  for (int k = 0; k < s->count; k++) {
    if (s->kind[k] == kind) return;
  }
  raise(SIGSEGV);
}

static void try_one(const run *r, const seeds *s, dlua_bytes *input, uint64_t iteration) {
  uint64_t kind = 0, count = (uint64_t)s->count;
  const dlua_bytes *from = &s->bytes[fuzz_draw(r->seed, iteration, 1, count)];
  const dlua_bytes *other = &s->bytes[fuzz_draw(r->seed, iteration, 2, count)];
  memcpy(input->data, from->data, from->size);
  input->size = from->size;
  fuzz_mutate(input, other, r->seed, iteration);
  if (r->target->repair && fuzz_draw(r->seed, iteration, 3, 2)) r->target->repair(input);
  if (!read_one(r, input, &kind)) return;
  ++*r->accepted;
  if (r->planted) strike(s, kind);
}

static void child(const run *r) {
  static seeds s;
  dlua_bytes input = {0};
  if (dlua_bytes_reserve(&input, FUZZ_MOST) != DLUA_OK) complain("no memory to start with");
  read_seeds(r, &s);
  if (!limit_memory()) complain("memory cannot be limited");
  double end = now() + r->seconds;
  bool single = r->at != UINT64_MAX;
  uint64_t first = single ? r->at : 0, inputs = single ? 1 : r->inputs;
  for (uint64_t k = first; inputs ? k - first < inputs : now() < end; k++) {
    *r->iteration = k;
    try_one(r, &s, &input, k);
  }
  dlua_bytes_free(&input);
  for (int k = 0; k < s.count; k++) dlua_bytes_free(&s.bytes[k]);
}

// ---------------------------------------------------------------- the parent

// Seconds that a child has computed.
static double computed(pid_t pid) {
  clockid_t clock;
  struct timespec t = {0};
  if (clock_getcpuclockid(pid, &clock) == 0) clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Waits for the child; true when it had to be killed because it stood still. What it computes
// counts, so that a busy machine does not make it look so.
static bool wait_for(const run *r, pid_t pid, int *status) {
  uint64_t seen = *r->iteration;
  double moved = now(), before = 0;
  while (waitpid(pid, status, WNOHANG) == 0) {
    usleep(20000);
    if (*r->iteration != seen) seen = *r->iteration, moved = now(), before = computed(pid);
    if (computed(pid) - before < PATIENCE && now() - moved < 60 * PATIENCE) continue;
    kill(pid, SIGKILL);
    waitpid(pid, status, 0);
    return true;
  }
  return false;
}

// Prints how to repeat a failure and keeps its input beside the caller.
static void report(const run *r, int status, bool hangs) {
  char kept[300];
  dlua_bytes input = {0};
  snprintf(kept, sizeof kept, "fuzz-%s-%llu-%llu.bin", r->target->name, (unsigned long long)r->seed,
           (unsigned long long)*r->iteration);
  bool copied =
      dlua_file_read(r->place.input, FUZZ_MOST, &input) == DLUA_OK && write_file(kept, &input);
  dlua_bytes_free(&input);
  printf("%s: %s at iteration %llu of seed %llu (%s); repeat: fuzz %s --seed %llu --at %llu\n",
         r->target->name,
         hangs                 ? "hangs"
         : WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                               : "fails",
         (unsigned long long)*r->iteration, (unsigned long long)r->seed,
         copied ? kept : "input lost", r->target->name, (unsigned long long)r->seed,
         (unsigned long long)*r->iteration);
}

static int judge(const run *r, int status, bool hangs, double seconds) {
  bool died = hangs || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  bool struck = WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
  if (WIFEXITED(status) && WEXITSTATUS(status) == FOUND) struck = true;
  if (r->planted) {
    printf("%s: the planted bug was %s after %llu inputs, %.1f s\n", r->target->name,
           struck ? "found" : "not found", (unsigned long long)*r->iteration + 1, seconds);
    return struck ? EXIT_SUCCESS : EXIT_FAILURE;
  }
  if (died) return report(r, status, hangs), EXIT_FAILURE;
  printf("%s: %llu inputs, %llu of them read as valid, %.1f s\n", r->target->name,
         (unsigned long long)*r->iteration + 1, (unsigned long long)*r->accepted, seconds);
  return EXIT_SUCCESS;
}

static int run_target(run *r) {
  double start = now();
  int status = 0;
  if (r->at != UINT64_MAX) return child(r), EXIT_SUCCESS;
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0) return perror("fork"), EXIT_FAILURE;
  if (pid == 0) {
    if (r->planted) signal(SIGSEGV, SIG_DFL); // the sanitizer's handler would only print
    child(r);
    exit(EXIT_SUCCESS);
  }
  bool hangs = wait_for(r, pid, &status);
  return judge(r, status, hangs, now() - start);
}

// ---------------------------------------------------------------- arguments

static bool find_target(run *r, const char *name) {
  for (r->target = fuzz_targets; r->target->name; r->target++) {
    if (strcmp(r->target->name, name) == 0) return true;
  }
  return false;
}

static bool read_arguments(run *r, int argc, char **argv) {
  if (argc < 2 || !find_target(r, argv[1])) return false;
  for (int k = 2; k < argc; k++) {
    if (strcmp(argv[k], "--planted") == 0) {
      r->planted = true;
      continue;
    }
    if (k + 1 == argc) return false;
    if (strcmp(argv[k], "--seconds") == 0)
      r->seconds = strtod(argv[++k], NULL);
    else if (strcmp(argv[k], "--inputs") == 0)
      r->inputs = strtoull(argv[++k], NULL, 10);
    else if (strcmp(argv[k], "--seed") == 0)
      r->seed = strtoull(argv[++k], NULL, 10);
    else if (strcmp(argv[k], "--at") == 0)
      r->at = strtoull(argv[++k], NULL, 10);
    else
      return false;
  }
  return true;
}

static bool open_place(run *r) {
  fuzz_place *p = &r->place;
  snprintf(p->folder, sizeof p->folder, "%s/dlua-fuzz-XXXXXX",
           access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  if (!mkdtemp(p->folder)) return false;
  snprintf(p->input, sizeof p->input, "%s/%s", p->folder, r->target->file);
  void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return false;
  r->iteration = shared, r->accepted = r->iteration + 1;
  return true;
}

static void close_place(const run *r) {
  unlink(r->place.input);
  rmdir(r->place.folder);
}

int main(int argc, char **argv) {
  run r = {.seconds = 2, .seed = 1, .at = UINT64_MAX};
  if (!read_arguments(&r, argc, argv)) {
    fprintf(stderr, "usage: fuzz TARGET [--seconds S | --inputs N] [--seed N] [--at ITERATION] "
                    "[--planted]\n");
    return 2;
  }
  if (!open_place(&r)) return perror("fuzz"), EXIT_FAILURE;
  int status = run_target(&r);
  close_place(&r);
  return status;
}
