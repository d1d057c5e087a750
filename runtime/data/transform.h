// transform.h - what happens to one picture {c,h,w} on its way into a batch, as a list of structs.
//
//   dlua_transform steps[] = {{.kind = DLUA_T_CROP, .p = {…}}, {.kind = DLUA_T_TO_FLOAT}};
//   dlua_draw draw = {.key = loader_key, .epoch = 3, .sample = 17};
//   dlua_status status = dlua_transform_run(2, steps, &draw, &picture, &scratch, &result);
//
// Random steps draw from Philox with key (draw.key, 1) and counter (epoch, sample, step), so a
// picture's fate depends on nothing else: not on the worker, not on what came before.
//
// Pictures are u8 (0..255) or f32. A step keeps the dtype it is given, computes in f32 and rounds
// to nearest for u8; only TO_FLOAT changes it. Sampling between pixels takes pixel centres at
// integer coordinates.
#ifndef DLUA_TRANSFORM_H
#define DLUA_TRANSFORM_H

#include "dataset.h"
#include "kinds.h"

typedef struct dlua_draw {
  uint64_t key, sample;
  uint32_t epoch;
  uint32_t step; // position of the first transform in the whole pipeline
} dlua_draw;

// Room for what passes between steps; all zero to begin with, used again from picture to picture.
typedef struct dlua_scratch {
  dlua_bytes side[2], work;
} dlua_scratch;

void dlua_scratch_free(dlua_scratch *scratch);

// The name that messages use: "RandomCrop".
const char *dlua_transform_name(dlua_transform_kind kind);
// Finds a kind by that name; DLUA_BAD_ARGUMENT if there is none.
dlua_status dlua_transform_find(const char *name, dlua_transform_kind *kind);

// Refuses sizes and paddings that no picture has; steps that are run must have passed.
dlua_status dlua_transform_check(const dlua_transform *t);

// Runs n steps on a picture. result is the input itself or lies in scratch until its next use.
dlua_status dlua_transform_run(int n, const dlua_transform *steps, const dlua_draw *draw,
                               const dlua_picture *input, dlua_scratch *scratch,
                               dlua_picture *result);

#endif
