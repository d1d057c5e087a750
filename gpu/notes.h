// notes.h - small values on their way from the device to the host, which looks now and then instead
// of waiting for them.
#ifndef DLUA_GPU_NOTES_H
#define DLUA_GPU_NOTES_H

#include "cuda.h"

// Of one device; all zero at first.
typedef struct dlua_notes {
  char *memory; // pinned
  uint64_t sent;
  cudaEvent_t arrived[DLUA_NOTES];
} dlua_notes;

dlua_status dlua_note_send(dlua_notes *n, cudaStream_t work, const void *src, size_t bytes,
                           uint64_t *ticket);
dlua_status dlua_note_receive(dlua_notes *n, uint64_t ticket, void *dst, size_t bytes,
                              bool *arrived);

#endif
