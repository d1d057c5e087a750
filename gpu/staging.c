// staging.c - a copy from ordinary memory makes the driver wait for the device behind one's back, so
// everything goes through pinned pieces that the device reads when it gets to them.
//
// Small copies lie one after the other in a piece, in the queue of work. A large one crosses the bus
// in a queue of its own, into memory of the device that no kernel uses, and only from there, at a
// hundred times the speed, into its place in the queue of work: so the next batch travels while
// kernels of the last one run, although the block it is for may just have been freed by them. Two
// copies on the device cost less than one that must wait.
#include "staging.h"

#include <string.h>

enum { SMALL_COPY = 64 << 10, SMALL_PIECE = 1 << 20, LARGE_PIECE = 8 << 20 };

// ---------------------------------------------------------------- pieces

static dlua_status make_event(cudaEvent_t *event) {
  if (*event) return DLUA_OK;
  return CUDA_STATUS(cudaEventCreateWithFlags, event, cudaEventDisableTiming);
}

// Makes what a piece lacks, and waits until nobody needs what it holds.
static dlua_status open_piece(dlua_piece *p, size_t bytes) {
  DLUA_TRY(make_event(&p->taken));
  if (!p->host) CUDA_TRY(cudaHostAlloc, &p->host, bytes, cudaHostAllocDefault);
  if (p->busy) CUDA_TRY(cudaEventSynchronize, p->taken);
  p->busy = false;
  return DLUA_OK;
}

// The next large piece, free.
static dlua_status next_large(dlua_staging *s, dlua_piece **p) {
  s->large_at = (s->large_at + 1) % DLUA_LARGE_PIECES;
  *p = &s->large[s->large_at];
  return open_piece(*p, LARGE_PIECE);
}

// Room for a small copy in the current small piece, or at the start of the next.
static dlua_status room(dlua_staging *s, cudaStream_t work, size_t bytes, char **host) {
  dlua_piece *p = &s->small[s->small_at];
  size_t aligned = (bytes + 63) / 64 * 64;
  if (!p->host) DLUA_TRY(open_piece(p, SMALL_PIECE));
  if (s->small_used + aligned > SMALL_PIECE) {
    CUDA_TRY(cudaEventRecord, p->taken, work);
    p->busy = true;
    s->small_at = (s->small_at + 1) % DLUA_SMALL_PIECES, s->small_used = 0;
    p = &s->small[s->small_at];
    DLUA_TRY(open_piece(p, SMALL_PIECE));
  }
  *host = (char *)p->host + s->small_used;
  s->small_used += aligned;
  return DLUA_OK;
}

static dlua_status mend(dlua_staging *s, cudaStream_t work) {
  if (!s->broken) return DLUA_OK;
  if (s->copies) CUDA_TRY(cudaStreamSynchronize, s->copies);
  CUDA_TRY(cudaStreamSynchronize, work);
  s->broken = false;
  return DLUA_OK;
}

// ---------------------------------------------------------------- to the device

static dlua_status small_in(dlua_staging *s, cudaStream_t work, void *dst, const void *src,
                            size_t bytes) {
  char *host;
  DLUA_TRY(room(s, work, bytes, &host));
  memcpy(host, src, bytes);
  CUDA_TRY(cudaMemcpyAsync, dst, host, bytes, cudaMemcpyHostToDevice, work);
  return DLUA_OK;
}

static dlua_status part_in(dlua_staging *s, cudaStream_t work, char *dst, const char *src,
                           size_t bytes) {
  dlua_piece *p;
  DLUA_TRY(next_large(s, &p));
  DLUA_TRY(make_event(&p->arrived));
  if (!p->device) CUDA_TRY(cudaMalloc, &p->device, LARGE_PIECE);
  memcpy(p->host, src, bytes);
  CUDA_TRY(cudaMemcpyAsync, p->device, p->host, bytes, cudaMemcpyHostToDevice, s->copies);
  CUDA_TRY(cudaEventRecord, p->arrived, s->copies);
  CUDA_TRY(cudaStreamWaitEvent, work, p->arrived, 0);
  CUDA_TRY(cudaMemcpyAsync, dst, p->device, bytes, cudaMemcpyDeviceToDevice, work);
  CUDA_TRY(cudaEventRecord, p->taken, work);
  p->busy = true;
  return DLUA_OK;
}

static size_t part_of(size_t left) { return left < LARGE_PIECE ? left : LARGE_PIECE; }

static dlua_status large_in(dlua_staging *s, cudaStream_t work, char *dst, const char *src,
                            size_t bytes) {
  if (!s->copies) CUDA_TRY(cudaStreamCreateWithFlags, &s->copies, cudaStreamNonBlocking);
  for (size_t at = 0; at < bytes; at += LARGE_PIECE) {
    DLUA_TRY(part_in(s, work, dst + at, src + at, part_of(bytes - at)));
  }
  return DLUA_OK;
}

dlua_status dlua_stage_in(dlua_staging *s, cudaStream_t work, void *dst, const void *src,
                          size_t bytes) {
  DLUA_TRY(mend(s, work));
  dlua_status status =
      bytes < SMALL_COPY ? small_in(s, work, dst, src, bytes) : large_in(s, work, dst, src, bytes);
  s->broken = status != DLUA_OK;
  return status;
}

// ---------------------------------------------------------------- to the host

static dlua_status ask_for_part(dlua_staging *s, cudaStream_t work, const char *src, size_t bytes,
                                dlua_piece **p) {
  DLUA_TRY(next_large(s, p));
  CUDA_TRY(cudaMemcpyAsync, (*p)->host, src, bytes, cudaMemcpyDeviceToHost, work);
  CUDA_TRY(cudaEventRecord, (*p)->taken, work);
  (*p)->busy = true;
  return DLUA_OK;
}

static dlua_status take_part(dlua_piece *p, char *dst, size_t bytes) {
  CUDA_TRY(cudaEventSynchronize, p->taken);
  p->busy = false;
  memcpy(dst, p->host, bytes);
  return DLUA_OK;
}

// One part travels while the one before it is copied out.
static dlua_status large_out(dlua_staging *s, cudaStream_t work, char *dst, const char *src,
                             size_t bytes) {
  dlua_piece *before = NULL;
  for (size_t at = 0; at < bytes; at += LARGE_PIECE) {
    dlua_piece *p;
    DLUA_TRY(ask_for_part(s, work, src + at, part_of(bytes - at), &p));
    if (before) DLUA_TRY(take_part(before, dst + at - LARGE_PIECE, LARGE_PIECE));
    before = p;
  }
  size_t last = (bytes - 1) / LARGE_PIECE * LARGE_PIECE;
  return take_part(before, dst + last, bytes - last);
}

dlua_status dlua_stage_out(dlua_staging *s, cudaStream_t work, void *dst, const void *src,
                           size_t bytes) {
  if (bytes < SMALL_COPY) {
    CUDA_TRY(cudaMemcpyAsync, dst, src, bytes, cudaMemcpyDeviceToHost, work);
    CUDA_TRY(cudaStreamSynchronize, work);
    return DLUA_OK;
  }
  DLUA_TRY(mend(s, work));
  dlua_status status = large_out(s, work, dst, src, bytes);
  s->broken = status != DLUA_OK;
  return status;
}
