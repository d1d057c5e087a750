// transform_geometry.c - transforms that sample between pixels: resizing, rotation, affine maps.
// Refused: rounding to u8 between the two passes of a resize, as Pillow does; it costs accuracy and
// saves nothing.
#include "geometry.h"
#include "level.h"
#include "transform_steps.h"

static float value_at(const dlua_picture *p, int64_t k) {
  return p->dtype == DLUA_U8 ? (float)((const uint8_t *)p->data)[k] : ((const float *)p->data)[k];
}

static void put(void *out, dlua_dtype dtype, int64_t k, float value) {
  if (dtype == DLUA_U8) {
    ((uint8_t *)out)[k] = (uint8_t)dlua_level_near(value);
  } else {
    ((float *)out)[k] = value;
  }
}

// ---------------------------------------------------------------- resize

// Which inputs make output pixel i of a line, and their weights.
static dlua_taps triangle(int64_t i, int64_t from, int64_t to, float *weight) {
  dlua_taps t = dlua_taps_resized(i, from, to);
  for (int64_t k = 0; k < t.count; k++) weight[k] = dlua_tap_weight(&t, t.first + k);
  return t;
}

static int64_t triangle_room(double scale) { return 2 * (int64_t)ceil(scale > 1 ? scale : 1) + 2; }

// {c,h,w} -> {c,h,width} in f32.
static void resize_rows(const dlua_picture *p, int64_t width, float *out, float *weight) {
  for (int64_t x = 0; x < width; x++) {
    dlua_taps t = triangle(x, p->w, width, weight);
    for (int64_t row = 0; row < p->c * p->h; row++) {
      float sum = 0;
      for (int64_t k = 0; k < t.count; k++)
        sum += weight[k] * value_at(p, row * p->w + t.first + k);
      out[row * width + x] = sum;
    }
  }
}

// {c,h,w} in f32 -> {c,height,w} of out's dtype.
static void resize_columns(const float *in, int64_t h, dlua_picture *to, void *out, float *weight) {
  for (int64_t y = 0; y < to->h; y++) {
    dlua_taps t = triangle(y, h, to->h, weight);
    for (int64_t c = 0; c < to->c; c++) {
      for (int64_t x = 0; x < to->w; x++) {
        float sum = 0;
        for (int64_t k = 0; k < t.count; k++)
          sum += weight[k] * in[(c * h + t.first + k) * to->w + x];
        put(out, to->dtype, (c * to->h + y) * to->w + x, sum);
      }
    }
  }
}

dlua_status dlua_step_resize(dlua_step *s) {
  const dlua_picture *p = &s->in;
  int64_t h = p->h, w = p->w;
  dlua_resized(s->t->p, &h, &w);
  if (h == p->h && w == p->w) return DLUA_OK;
  if (h < 1 || w < 1) return dlua_step_refuse_empty(s, h, w);
  double larger = fmax((double)p->h / (double)h, (double)p->w / (double)w);
  size_t between = (size_t)(p->c * p->h * w);
  DLUA_TRY(dlua_bytes_reserve(s->work, (between + (size_t)triangle_room(larger)) * sizeof(float)));
  void *out = dlua_step_make(s, p->dtype, p->c, h, w);
  if (!out) return DLUA_NO_MEMORY;
  float *middle = (float *)s->work->data, *weight = middle + between;
  resize_rows(p, w, middle, weight);
  resize_columns(middle, p->h, &s->out, out, weight);
  return DLUA_OK;
}

// ---------------------------------------------------------------- affine maps

static float pixel(const dlua_picture *p, int64_t c, int64_t row, int64_t column, float fill) {
  bool inside = row >= 0 && column >= 0 && row < p->h && column < p->w;
  return inside ? value_at(p, (c * p->h + row) * p->w + column) : fill;
}

// A place between pixels: the first row and column of four, and their weights.
typedef struct between {
  int64_t first[2];
  float weight[2][2];
} between;

static between between_at(const double *from) {
  between b;
  for (int axis = 0; axis < 2; axis++) {
    dlua_taps t = dlua_taps_between(from[axis]);
    b.first[axis] = t.first;
    for (int k = 0; k < 2; k++) b.weight[axis][k] = dlua_tap_weight(&t, t.first + k);
  }
  return b;
}

static float blend(const dlua_picture *p, int64_t c, const between *b, float fill) {
  float sum = 0;
  for (int y = 0; y < 2; y++) {
    float line = 0;
    for (int x = 0; x < 2; x++)
      line += b->weight[1][x] * pixel(p, c, b->first[0] + y, b->first[1] + x, fill);
    sum += b->weight[0][y] * line;
  }
  return sum;
}

// Every output pixel looks up the place it came from.
dlua_status dlua_step_affine(dlua_step *s) {
  const double *p = s->t->p;
  const dlua_picture *in = &s->in;
  float fill = (float)p[9];
  dlua_affine map = dlua_affine_draw(p, &s->words, in->h, in->w);
  void *out = dlua_step_make(s, in->dtype, in->c, in->h, in->w);
  if (!out) return DLUA_NO_MEMORY;
  for (int64_t y = 0; y < in->h; y++) {
    for (int64_t x = 0; x < in->w; x++) {
      double from[2];
      dlua_affine_back(&map, y, x, from);
      bool mixed = p[8] != 0 && dlua_touches(from[0], in->h) && dlua_touches(from[1], in->w);
      between four = {0};
      if (mixed) four = between_at(from);
      int64_t row = mixed ? -1 : dlua_nearest(from[0], in->h);
      int64_t column = mixed ? -1 : dlua_nearest(from[1], in->w);
      for (int64_t c = 0; c < in->c; c++) {
        float value = mixed ? blend(in, c, &four, fill) : pixel(in, c, row, column, fill);
        put(out, in->dtype, (c * in->h + y) * in->w + x, value);
      }
    }
  }
  return DLUA_OK;
}
