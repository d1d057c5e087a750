// settings.h - switches of the process that kernels look at, whatever device they are for.
//
//   bool was = dlua_set_autotune(true);
//
// Every dlua_set_… returns what the switch was.
#ifndef DLUA_SETTINGS_H
#define DLUA_SETTINGS_H

#include <stdbool.h>

// Winograd's algorithm for convolutions with small kernels: on from the start. Results differ from
// the direct ones by up to 5e-5 of the largest element.
bool dlua_set_winograd(bool on);
bool dlua_winograd(void);
// Chooses between algorithms by timing each new shape once, instead of by a rule; off from the
// start.
bool dlua_set_autotune(bool on);
bool dlua_autotune(void);
// f32 products and convolutions on GPUs may round their inputs to TF32, 10 bits of mantissa, which
// is several times faster; off from the start.
bool dlua_set_tf32(bool on);
bool dlua_tf32(void);

#endif
