// parallel.c - the kernel team. Two unbound threads on a two-core virtual machine were measured 3
// to 20 times slower than one, because both land on one core. libgomp reads OMP_PROC_BIND when it
// is loaded and would bind every later thread and child process too, so the team binds itself: each
// member to one of the CPUs the process started with.
#define _GNU_SOURCE
#include "parallel.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "dlua.h"
#include "env.h"

static cpu_set_t all_cpus; // those of the process when the team was made
static int team;           // its size; 0: not decided yet
static bool placed;        // its threads run, and are bound where that is wanted
static bool bound;         // they are

static bool wants_binding(void) {
  if (dlua_env("DLUA_BIND")) return dlua_env_on("DLUA_BIND");
  return !getenv("OMP_PROC_BIND") && !getenv("OMPI_COMM_WORLD_SIZE") && !getenv("PMI_SIZE");
}

// Binds this thread to the k-th of the process's CPUs.
static void bind_to(int k) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &all_cpus) && k-- == 0) CPU_SET(cpu, &one);
  }
  sched_setaffinity(0, sizeof one, &one);
}

static void make_team(int n) {
  team = n, placed = n == 1;
  omp_set_dynamic(0);
  omp_set_num_threads(n);
}

// Late, at the first work for more than one thread: a thread that computes alone is better off
// where the scheduler puts it, and a script that computes nothing starts no others.
static void place_team(void) {
  placed = true;
  if (!wants_binding()) return;
  if (!bound) pthread_atfork(NULL, NULL, dlua_unbind_thread);
  bound = true;
#pragma omp parallel
  bind_to(omp_get_thread_num());
}

// Those that libgomp found before it bound this thread to one, where OMP_PROC_BIND has it do so.
static void find_cpus(void) {
  int id[CPU_SETSIZE];
  for (int place = 0; place < omp_get_num_places(); place++) {
    int n = omp_get_place_num_procs(place);
    if (n > CPU_SETSIZE) continue;
    omp_get_place_proc_ids(place, id);
    for (int k = 0; k < n; k++) CPU_SET(id[k], &all_cpus);
  }
  if (CPU_COUNT(&all_cpus) == 0) sched_getaffinity(0, sizeof all_cpus, &all_cpus);
}

static int cpu_count(void) {
  if (CPU_COUNT(&all_cpus) == 0) find_cpus();
  return CPU_COUNT(&all_cpus);
}

int dlua_threads(void) {
  if (team == 0) {
    const char *wish = dlua_env("OMP_NUM_THREADS");
    int most = cpu_count(), n = wish ? atoi(wish) : most;
    make_team(n < 1 ? 1 : n > most ? most : n);
  }
  return team;
}

void dlua_set_threads(int n) {
  int most = cpu_count();
  make_team(n < 1 ? 1 : n > most ? most : n);
}

void dlua_unbind_thread(void) {
  if (CPU_COUNT(&all_cpus) > 0) sched_setaffinity(0, sizeof all_cpus, &all_cpus);
}

void dlua_rebind_thread(void) {
  if (bound) bind_to(0);
}

// Below this much work a second thread costs more than it brings.
static const double worth = 1e6;

static bool for_team(double cost) {
  if (dlua_threads() == 1 || cost < worth || omp_in_parallel()) return false;
  if (!placed) place_team();
  return true;
}

int dlua_team_begin(double cost) {
  int n = for_team(cost) ? team : 1;
  if (team > 1) omp_set_num_threads(n);
  return n;
}

void dlua_team_end(void) {
  if (team > 1) omp_set_num_threads(team);
}

void dlua_parallel(int64_t n, double cost, void (*body)(void *, int64_t, int64_t), void *context) {
  if (n <= 0) return;
  if (!for_team((double)n * cost)) {
    body(context, 0, n);
    return;
  }
#pragma omp parallel
  {
    int64_t k = omp_get_thread_num(), count = omp_get_num_threads();
    int64_t from = n * k / count, to = n * (k + 1) / count;
    if (from < to) body(context, from, to);
  }
}
