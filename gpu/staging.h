// staging.h - copies between the device and memory of the host that it cannot read by itself, through
// memory that it can.
#ifndef DLUA_GPU_STAGING_H
#define DLUA_GPU_STAGING_H

#include "cuda.h"

enum { DLUA_SMALL_PIECES = 2, DLUA_LARGE_PIECES = 4 };

// Pinned memory of the host and, for copies to the device, as much on the device.
typedef struct dlua_piece {
  void *host;
  void *device;
  cudaEvent_t arrived; // in the queue of copies: the content is on the device
  cudaEvent_t taken;   // in the queue of work: nobody needs the content any more
  bool busy;           // taken has been queued and not been waited for
} dlua_piece;

// Of one device; all zero at first, and what it needs is made when it is needed.
typedef struct dlua_staging {
  cudaStream_t copies;
  dlua_piece small[DLUA_SMALL_PIECES], large[DLUA_LARGE_PIECES];
  int small_at, large_at; // pieces in use
  size_t small_used;      // bytes of that piece
  bool broken; // a call failed half-way: what is queued still reads pieces that look free
} dlua_staging;

// Copies to the device, in order with what `work` does before and afterwards. Returns when src may be
// reused, without waiting for the device unless all pieces are in flight.
dlua_status dlua_stage_in(dlua_staging *s, cudaStream_t work, void *dst, const void *src,
                          size_t bytes);
// Copies to the host after all that was queued; returns when the bytes are there.
dlua_status dlua_stage_out(dlua_staging *s, cudaStream_t work, void *dst, const void *src,
                           size_t bytes);

#endif
