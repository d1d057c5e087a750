// transform_color.c - brightness, contrast, saturation and hue, in a drawn order. Values are f32 in
// 0..1 from the first change to the last and are clamped after each.
#include <math.h>

#include "transform_steps.h"

static float clamp(float v) { return v < 0 ? 0 : v > 1 ? 1 : v; }

static float luma(const float *v, int64_t plane, int64_t k) {
  return 0.299f * v[k] + 0.587f * v[plane + k] + 0.114f * v[2 * plane + k];
}

// Every value moves from base towards or away: factor 1 leaves it.
static void blend(float *v, int64_t n, float factor, float base) {
  for (int64_t k = 0; k < n; k++) v[k] = clamp(factor * v[k] + (1 - factor) * base);
}

static void contrast(float *v, int64_t c, int64_t plane, float factor) {
  double mean = 0;
  for (int64_t k = 0; k < plane; k++) mean += c == 3 ? luma(v, plane, k) : v[k];
  blend(v, c * plane, factor, (float)(mean / (double)plane));
}

static void saturation(float *v, int64_t plane, float factor) {
  for (int64_t k = 0; k < plane; k++) {
    float grey = luma(v, plane, k);
    for (int64_t c = 0; c < 3; c++) {
      v[c * plane + k] = clamp(factor * v[c * plane + k] + (1 - factor) * grey);
    }
  }
}

// Hue 0..1 of a colour whose largest and smallest parts differ by range.
static float hue_of(float r, float g, float b, float most, float range) {
  if (range == 0) return 0;
  if (most == r) return (g - b) / range / 6 + 1;
  if (most == g) return ((b - r) / range + 2) / 6;
  return ((r - g) / range + 4) / 6;
}

// Turns a colour around the grey axis of the HSV hexcone (Smith, "Color gamut transform pairs",
// 1978): part = most - range * clamp(|6 h - centre| …).
static void turn_hue(float *v, int64_t plane, float shift) {
  static const float offset[3] = {5, 3, 1};
  for (int64_t k = 0; k < plane; k++) {
    float r = v[k], g = v[plane + k], b = v[2 * plane + k];
    float most = fmaxf(r, fmaxf(g, b)), range = most - fminf(r, fminf(g, b));
    float hue = hue_of(r, g, b, most, range) + shift;
    hue -= floorf(hue);
    for (int c = 0; c < 3; c++) {
      float at = fmodf(offset[c] + hue * 6, 6);
      v[c * plane + k] = most - range * clamp(fminf(at, 4 - at));
    }
  }
}

static void change(float *v, int64_t c, int64_t plane, int which, float amount) {
  switch (which) {
  case 0: blend(v, c * plane, amount, 0); break;
  case 1: contrast(v, c, plane, amount); break;
  case 2:
    if (c == 3) saturation(v, plane, amount);
    break;
  default:
    if (c == 3) turn_hue(v, plane, amount);
  }
}

static void load(const dlua_picture *p, float *v) {
  int64_t n = dlua_picture_count(p);
  for (int64_t k = 0; k < n; k++) {
    v[k] = p->dtype == DLUA_U8 ? (float)((const uint8_t *)p->data)[k] / 255
                               : ((const float *)p->data)[k];
  }
}

dlua_status dlua_step_color(dlua_step *s) {
  const double *p = s->t->p;
  if (s->in.c != 1 && s->in.c != 3) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "ColorJitter: takes 1 or 3 channels, not %lld",
                     (long long)s->in.c);
  }
  int64_t n = dlua_picture_count(&s->in), plane = s->in.h * s->in.w;
  int order[4] = {0, 1, 2, 3};
  float amount[4];
  for (int k = 0; k < 4; k++) amount[k] = (float)dlua_step_between(s, p[2 * k], p[2 * k + 1]);
  for (int k = 3; k > 0; k--) {
    int64_t other = dlua_step_below(s, k + 1);
    int swapped = order[k];
    order[k] = order[other], order[other] = swapped;
  }
  DLUA_TRY(dlua_bytes_reserve(s->work, (size_t)n * sizeof(float)));
  void *out = dlua_step_make(s, s->in.dtype, s->in.c, s->in.h, s->in.w);
  if (!out) return DLUA_NO_MEMORY;
  float *v = s->in.dtype == DLUA_U8 ? (float *)s->work->data : out;
  load(&s->in, v);
  for (int k = 0; k < 4; k++) {
    int which = order[k];
    bool still = p[2 * which] == p[2 * which + 1] && p[2 * which] == (which == 3 ? 0 : 1);
    if (!still) change(v, s->in.c, plane, which, amount[which]);
  }
  if (s->in.dtype == DLUA_U8) {
    for (int64_t k = 0; k < n; k++) ((uint8_t *)out)[k] = (uint8_t)lrintf(v[k] * 255);
  }
  return DLUA_OK;
}
