// kinds.h - the kinds of transforms and their numbers, for C and CUDA.
#ifndef DLUA_KINDS_H
#define DLUA_KINDS_H

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
  DLUA_T_ERASE,  // probability, area lo hi, lo hi of log(h / w), value, random values
  DLUA_T_KINDS
} dlua_transform_kind;

#define DLUA_TRANSFORM_NUMBERS 40

typedef struct dlua_transform {
  dlua_transform_kind kind;
  double p[DLUA_TRANSFORM_NUMBERS];
} dlua_transform;

#endif
