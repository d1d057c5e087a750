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
#include "window.h"

// What each kind reads from p, in this order.
typedef enum dlua_transform_kind {
  DLUA_T_TO_FLOAT,  // nothing: u8 -> f32 / 255; f32 passes
  DLUA_T_NORMALIZE, // n, then n means, then n deviations (n is 1 or c): (x - mean) / std, f32 only
  DLUA_T_CROP,      // random h w, padding top right bottom left, mode, fill
  DLUA_T_CENTER_CROP, // h w
  DLUA_T_RESIZE,      // h w (w = 0: the shorter side becomes h); bilinear, wider when shrinking
  DLUA_T_PAD,         // top right bottom left, mode, fill
  DLUA_T_FLIP_H,      // probability
  DLUA_T_FLIP_V,      // probability
  DLUA_T_AFFINE, // angle lo hi (degrees), translation y x (fractions), scale lo hi, shear lo hi
                 // (degrees), bilinear, fill
  DLUA_T_COLOR,  // lo hi of brightness, contrast, saturation; lo hi of hue (-0.5..0.5)
  DLUA_T_ERASE,  // probability, area lo hi, ratio lo hi, value, random values
  DLUA_T_KINDS
} dlua_transform_kind;

#define DLUA_TRANSFORM_NUMBERS 40

typedef struct dlua_transform {
  dlua_transform_kind kind;
  double p[DLUA_TRANSFORM_NUMBERS];
} dlua_transform;

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
