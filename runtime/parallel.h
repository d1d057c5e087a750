// parallel.h - one team of threads for all kernels: OpenMP, shared with oneDNN.
// The team binds itself to CPUs when dlua owns the machine (DLUA_BIND=0 switches that off), see
// parallel.c.
#ifndef DLUA_PARALLEL_H
#define DLUA_PARALLEL_H

#include <stdint.h>

// Calls body(context, from, to) over slices of 0..n, on the whole team when n * cost is worth it,
// else once on this thread. cost: rough number of simple operations per item. Slices are the same
// for the same n and thread count.
void dlua_parallel(int64_t n, double cost, void (*body)(void *context, int64_t from, int64_t to),
                   void *context);

// Around a call of a library that opens parallel regions itself: they get the whole team when cost,
// here of the whole call, is worth it, else this thread alone. Gives the number of threads.
int dlua_team_begin(double cost);
void dlua_team_end(void);

// For loader threads and before a process is started: all CPUs again instead of the one the main
// thread is bound to. A forked child does this by itself.
void dlua_unbind_thread(void);
// For the main thread afterwards: back to the CPU that the team gave it, if it gave it one.
void dlua_rebind_thread(void);
// The last call of a loader thread: gives back what the runtime kept for it.
void dlua_thread_done(void);

#endif
