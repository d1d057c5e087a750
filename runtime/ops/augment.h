// augment.h - the arguments of the op augment, as its kernels read them on every device.
//
// steps has a row for each transform of the list: its kind, the height, width and dtype (1: u8, 0: f32)
// of the pictures that come to it, then its numbers as ../data/kinds.h lists them.
#ifndef DLUA_AUGMENT_H
#define DLUA_AUGMENT_H

#include "../args.h"
#include "../data/kinds.h"

// The numbers of a call.
enum {
  DLUA_AUGMENT_SIZE,
  DLUA_AUGMENT_EPOCH,
  DLUA_AUGMENT_KEY,
  DLUA_AUGMENT_CONTRAST,
  DLUA_AUGMENT_BETWEEN,
  DLUA_AUGMENT_DTYPE
};
// A row of steps.
enum {
  DLUA_AUGMENT_KIND,
  DLUA_AUGMENT_HEIGHT,
  DLUA_AUGMENT_WIDTH,
  DLUA_AUGMENT_LEVELS,
  DLUA_AUGMENT_P,
  DLUA_AUGMENT_ROW = DLUA_AUGMENT_P + DLUA_TRANSFORM_NUMBERS
};
#define DLUA_AUGMENT_STEPS 16 // at most

#endif
