// segments.h - which parts of a device's memory are in use: address arithmetic alone, the memory
// itself is never touched. A device hands out large segments; blocks are cut from them, and merged
// with their free neighbours when they come back.
//
//   void *block = dlua_segments_take(s, bytes);
//   if (!block) {
//     size_t more = dlua_segments_growth(s, bytes);
//     … memory = more bytes of the device …
//     dlua_segments_add(s, memory, more, bytes);
//     block = dlua_segments_take(s, bytes); // never NULL now
//   }
//   dlua_segments_give(s, block);
//
// Not safe for threads: the owner has a lock.
#ifndef DLUA_SEGMENTS_H
#define DLUA_SEGMENTS_H

#include "dlua.h"

enum { DLUA_DEVICE_ALIGNMENT = 256 };

typedef struct dlua_segments dlua_segments;

typedef struct dlua_segment_figures {
  size_t reserved; // bytes of all segments
  size_t largest;  // bytes of the largest free block
  int segments, free_blocks;
} dlua_segment_figures;

// NULL on failure with the message set.
dlua_segments *dlua_segments_new(void);
// Forgets everything; the memory of segments that are left is the caller's.
void dlua_segments_delete(dlua_segments *s);

// The bytes that a request of so many takes: a multiple of the alignment, at least one.
size_t dlua_segments_round(size_t bytes);
// A block of at least so many bytes, or NULL when no free one is large enough.
void *dlua_segments_take(dlua_segments *s, size_t bytes);
// How large the next segment should be for a request that found nothing. Where the device has no
// more that large, dlua_segments_least may still work.
size_t dlua_segments_growth(const dlua_segments *s, size_t bytes);
size_t dlua_segments_least(size_t bytes);
// Adds a segment, free as a whole. It is for requests of one kind, small or large, as `bytes` is.
dlua_status dlua_segments_add(dlua_segments *s, void *memory, size_t size, size_t bytes);
// Takes a block back; false when it is none of these.
bool dlua_segments_give(dlua_segments *s, const void *block);
// Removes one segment that is free as a whole; false when there is none.
bool dlua_segments_remove(dlua_segments *s, void **memory, size_t *size);
dlua_segment_figures dlua_segments_figures(const dlua_segments *s);

#endif
