// transform_geometry.c - transforms that sample between pixels: resizing, rotation, affine maps.
// Refused: rounding to u8 between the two passes of a resize, as Pillow does; it costs accuracy and
// saves nothing.
#include <math.h>
#include <string.h>

#include "transform_steps.h"

static float value_at(const dlua_picture *p, int64_t k) {
  return p->dtype == DLUA_U8 ? (float)((const uint8_t *)p->data)[k] : ((const float *)p->data)[k];
}

static void put(void *out, dlua_dtype dtype, int64_t k, float value) {
  if (dtype == DLUA_U8) {
    ((uint8_t *)out)[k] = (uint8_t)lrintf(fminf(fmaxf(value, 0), 255));
  } else {
    ((float *)out)[k] = value;
  }
}

// ---------------------------------------------------------------- resize

// The triangle filter around the place of output pixel i in a line of n: which inputs, which
// weights. When the line shrinks, the triangle widens to cover all that it stands for.
static int64_t triangle(int64_t i, double scale, int64_t n, int64_t *first, float *weight) {
  double support = scale > 1 ? scale : 1, center = ((double)i + 0.5) * scale, total = 0;
  int64_t from = (int64_t)(center - support + 0.5), to = (int64_t)(center + support + 0.5);
  from = from < 0 ? 0 : from, to = to > n ? n : to;
  for (int64_t k = from; k < to; k++) {
    double distance = fabs((double)k + 0.5 - center) / support;
    weight[k - from] = (float)(distance < 1 ? 1 - distance : 0);
    total += weight[k - from];
  }
  for (int64_t k = from; k < to; k++) weight[k - from] /= (float)total;
  *first = from;
  return to - from;
}

static int64_t triangle_room(double scale) { return 2 * (int64_t)ceil(scale > 1 ? scale : 1) + 2; }

// {c,h,w} -> {c,h,width} in f32.
static void resize_rows(const dlua_picture *p, int64_t width, float *out, float *weight) {
  double scale = (double)p->w / (double)width;
  for (int64_t x = 0; x < width; x++) {
    int64_t first, count = triangle(x, scale, p->w, &first, weight);
    for (int64_t row = 0; row < p->c * p->h; row++) {
      float sum = 0;
      for (int64_t k = 0; k < count; k++) sum += weight[k] * value_at(p, row * p->w + first + k);
      out[row * width + x] = sum;
    }
  }
}

// {c,h,w} in f32 -> {c,height,w} of out's dtype.
static void resize_columns(const float *in, int64_t h, dlua_picture *to, void *out, float *weight) {
  double scale = (double)h / (double)to->h;
  for (int64_t y = 0; y < to->h; y++) {
    int64_t first, count = triangle(y, scale, h, &first, weight);
    for (int64_t c = 0; c < to->c; c++) {
      for (int64_t x = 0; x < to->w; x++) {
        float sum = 0;
        for (int64_t k = 0; k < count; k++) sum += weight[k] * in[(c * h + first + k) * to->w + x];
        put(out, to->dtype, (c * to->h + y) * to->w + x, sum);
      }
    }
  }
}

dlua_status dlua_step_resize(dlua_step *s) {
  int64_t h = (int64_t)s->t->p[0], w = (int64_t)s->t->p[1];
  const dlua_picture *p = &s->in;
  if (w == 0) { // the shorter side becomes h, the other keeps its proportion
    int64_t size = h;
    h = p->h <= p->w ? size : size * p->h / p->w;
    w = p->h <= p->w ? size * p->w / p->h : size;
  }
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

static float nearest(const dlua_picture *p, int64_t c, double y, double x, float fill) {
  double row = floor(y + 0.5), column = floor(x + 0.5);
  bool inside = row >= 0 && column >= 0 && row < (double)p->h && column < (double)p->w;
  return inside ? value_at(p, (c * p->h + (int64_t)row) * p->w + (int64_t)column) : fill;
}

static float bilinear(const dlua_picture *p, int64_t c, double y, double x, float fill) {
  double top = floor(y), left = floor(x);
  float fy = (float)(y - top), fx = (float)(x - left);
  float above = nearest(p, c, top, left, fill) * (1 - fx) + nearest(p, c, top, left + 1, fill) * fx;
  float below =
      nearest(p, c, top + 1, left, fill) * (1 - fx) + nearest(p, c, top + 1, left + 1, fill) * fx;
  return above * (1 - fy) + below * fy;
}

// Every output pixel looks up the place it came from: the inverse of rotation times shear times
// scale, around the centre.
dlua_status dlua_step_affine(dlua_step *s) {
  const double *p = s->t->p, degree = acos(-1) / 180;
  const dlua_picture *in = &s->in;
  double angle = dlua_step_between(s, p[0], p[1]) * degree;
  double dy = nearbyint(dlua_step_between(s, -p[2], p[2]) * (double)in->h);
  double dx = nearbyint(dlua_step_between(s, -p[3], p[3]) * (double)in->w);
  double scale = dlua_step_between(s, p[4], p[5]);
  double shear = tan(dlua_step_between(s, p[6], p[7]) * degree);
  double cy = (double)(in->h - 1) / 2, cx = (double)(in->w - 1) / 2;
  double a = cos(angle), b = -a * shear - sin(angle), c = sin(angle), d = a - c * shear;
  void *out = dlua_step_make(s, in->dtype, in->c, in->h, in->w);
  if (!out) return DLUA_NO_MEMORY;
  for (int64_t y = 0; y < in->h; y++) {
    for (int64_t x = 0; x < in->w; x++) {
      double oy = ((double)y - cy - dy) / scale, ox = ((double)x - cx - dx) / scale;
      double iy = a * oy - c * ox + cy, ix = d * ox - b * oy + cx;
      for (int64_t k = 0; k < in->c; k++) {
        float value =
            p[8] != 0 ? bilinear(in, k, iy, ix, (float)p[9]) : nearest(in, k, iy, ix, (float)p[9]);
        put(out, in->dtype, (k * in->h + y) * in->w + x, value);
      }
    }
  }
  return DLUA_OK;
}
