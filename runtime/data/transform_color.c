// transform_color.c - brightness, contrast, saturation and hue, in a drawn order. Values are f32 in
// 0..1 from the first change to the last.
#include "color.h"
#include "level.h"
#include "transform_steps.h"

// Makes changes first … last - 1 of every pixel, and gives the mean of what they make.
static float change(const dlua_jitter *j, int first, int last, float mean, float *v, int64_t c,
                    int64_t plane) {
  double lane[DLUA_MEAN_LANES] = {0};
  for (int64_t k = 0; k < plane; k++) {
    float pixel[3] = {v[k]};
    for (int64_t i = 1; i < c; i++) pixel[i] = v[i * plane + k];
    dlua_recolor(j, first, last, mean, pixel);
    lane[k % DLUA_MEAN_LANES] += dlua_grey(pixel, c);
    for (int64_t i = 0; i < c; i++) v[i * plane + k] = pixel[i];
  }
  for (int half = DLUA_MEAN_LANES / 2; half > 0; half /= 2)
    for (int k = 0; k < half; k++) lane[k] += lane[k + half];
  return (float)(lane[0] / (double)plane);
}

static void load(const dlua_picture *p, float *v) {
  int64_t n = dlua_picture_count(p);
  for (int64_t k = 0; k < n; k++) {
    v[k] = p->dtype == DLUA_U8 ? (float)((const uint8_t *)p->data)[k] / 255
                               : ((const float *)p->data)[k];
  }
}

dlua_status dlua_step_color(dlua_step *s) {
  if (s->in.c != 1 && s->in.c != 3) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "ColorJitter: takes 1 or 3 channels, not %lld",
                     (long long)s->in.c);
  }
  int64_t n = dlua_picture_count(&s->in), plane = s->in.h * s->in.w;
  dlua_jitter jitter = dlua_jitter_draw(s->t->p, &s->words, s->in.c);
  DLUA_TRY(dlua_bytes_reserve(s->work, (size_t)n * sizeof(float)));
  void *out = dlua_step_make(s, s->in.dtype, s->in.c, s->in.h, s->in.w);
  if (!out) return DLUA_NO_MEMORY;
  float *v = s->in.dtype == DLUA_U8 ? (float *)s->work->data : out;
  load(&s->in, v);
  float mean = change(&jitter, 0, jitter.contrast, 0, v, s->in.c, plane);
  if (jitter.contrast < jitter.count)
    change(&jitter, jitter.contrast, jitter.count, mean, v, s->in.c, plane);
  if (s->in.dtype == DLUA_U8) {
    for (int64_t k = 0; k < n; k++) ((uint8_t *)out)[k] = (uint8_t)dlua_level_near(v[k] * 255);
  }
  return DLUA_OK;
}
