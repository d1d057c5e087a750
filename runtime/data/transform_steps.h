// transform_steps.h - what the files that make up the transforms share.
#ifndef DLUA_TRANSFORM_STEPS_H
#define DLUA_TRANSFORM_STEPS_H

#include "draw.h"
#include "transform.h"

// One step at work: reads in, and either points out.data at its result or leaves out as in.
typedef struct dlua_step {
  const dlua_transform *t;
  dlua_picture in, out;
  dlua_bytes *room; // for out
  dlua_bytes *work; // for what only this step needs
  dlua_words words; // its draws
} dlua_step;

// Makes out a picture of this size in room and gives its data; NULL when memory ran out.
void *dlua_step_make(dlua_step *s, dlua_dtype dtype, int64_t c, int64_t h, int64_t w);
// The failure of a step whose result would have no pixels.
dlua_status dlua_step_refuse_empty(const dlua_step *s, int64_t h, int64_t w);
static inline size_t dlua_step_bytes(const dlua_picture *p) {
  return (size_t)dlua_picture_count(p) * dlua_dtype_size(p->dtype);
}

// transform_geometry.c
dlua_status dlua_step_resize(dlua_step *s);
dlua_status dlua_step_affine(dlua_step *s);
// transform_color.c
dlua_status dlua_step_color(dlua_step *s);

#endif
