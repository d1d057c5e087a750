// transform.c - the list of transforms, their draws, and those that only move or scale values.
// The path that every training run takes (crop, flip, to float, normalise) is plain loops over
// rows that the compiler vectorises: about 3 us for a 3x32x32 picture.
#include "transform.h"

#include <string.h>

#include "erase.h"
#include "level.h"
#include "transform_steps.h"
#include "window.h"

// ---------------------------------------------------------------- results

dlua_status dlua_step_refuse_empty(const dlua_step *s, int64_t h, int64_t w) {
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: a picture of %lldx%lld is empty",
                   dlua_transform_name(s->t->kind), (long long)h, (long long)w);
}

void *dlua_step_make(dlua_step *s, dlua_dtype dtype, int64_t c, int64_t h, int64_t w) {
  int64_t limit = (int64_t)1 << 33, plane = 0;
  if (__builtin_mul_overflow(h, w, &plane) || plane > limit / c) {
    dlua_fail(DLUA_BAD_ARGUMENT, "%s: a picture %s is too large", dlua_transform_name(s->t->kind),
              dlua_sizes_text(3, (int64_t[]){c, h, w}));
    return NULL;
  }
  s->out = (dlua_picture){.dtype = dtype, .c = c, .h = h, .w = w};
  if (dlua_bytes_reserve(s->room, dlua_step_bytes(&s->out)) != DLUA_OK) return NULL;
  s->out.data = s->room->data;
  return s->room->data;
}

// ---------------------------------------------------------------- values

static dlua_status to_float(dlua_step *s) {
  if (s->in.dtype == DLUA_F32) return DLUA_OK;
  float *out = dlua_step_make(s, DLUA_F32, s->in.c, s->in.h, s->in.w);
  if (!out) return DLUA_NO_MEMORY;
  const uint8_t *in = s->in.data;
  int64_t count = dlua_picture_count(&s->in);
  for (int64_t k = 0; k < count; k++) out[k] = (float)in[k] / 255.0f;
  return DLUA_OK;
}

static dlua_status normalize(dlua_step *s) {
  int64_t n = (int64_t)s->t->p[0], plane = s->in.h * s->in.w;
  const double *mean = s->t->p + 1, *std = mean + n;
  if (s->in.dtype != DLUA_F32) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "Normalize: takes f32, not u8: put ToFloat before it");
  }
  if (n != 1 && n != s->in.c) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "Normalize: %lld means for %lld channels", (long long)n,
                     (long long)s->in.c);
  }
  float *out = dlua_step_make(s, DLUA_F32, s->in.c, s->in.h, s->in.w);
  if (!out) return DLUA_NO_MEMORY;
  for (int64_t c = 0; c < s->in.c; c++) {
    const float *in = (const float *)s->in.data + c * plane;
    float m = (float)mean[n == 1 ? 0 : c], d = (float)std[n == 1 ? 0 : c];
    for (int64_t k = 0; k < plane; k++) out[c * plane + k] = (in[k] - m) / d;
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- places

static void fill_row(void *out, dlua_dtype dtype, int64_t n, double value) {
  if (dtype == DLUA_U8) {
    memset(out, (int)dlua_fill_value(value, true), (size_t)n);
  } else {
    for (int64_t k = 0; k < n; k++) ((float *)out)[k] = (float)value;
  }
}

// One row of a window: left of the picture, the picture, right of it.
static void window_row(const dlua_picture *p, const char *in, char *out, const dlua_window *v) {
  size_t size = dlua_dtype_size(p->dtype);
  int64_t left = v->left, w = v->w;
  int64_t from = left < 0 ? -left : 0, to = p->w - left < w ? p->w - left : w;
  if (from >= to) from = to = 0;
  if (to > from)
    memcpy(out + (size_t)from * size, in + (left + from) * (int64_t)size,
           (size_t)(to - from) * size);
  if (v->mode == DLUA_PAD_CONSTANT) {
    fill_row(out, p->dtype, from, v->fill);
    fill_row(out + (size_t)to * size, p->dtype, w - to, v->fill);
    return;
  }
  for (int64_t x = 0; x < w; x++) {
    if (x == from) x = to;
    if (x < w)
      memcpy(out + (size_t)x * size, in + dlua_window_at(left + x, p->w, v->mode) * (int64_t)size,
             size);
  }
}

// Copies what the step's window shows.
static dlua_status window(dlua_step *s) {
  const dlua_picture *p = &s->in;
  size_t size = dlua_dtype_size(p->dtype);
  dlua_window v = dlua_window_draw(s->t->kind, s->t->p, &s->words, p->h, p->w);
  if (v.h < 1 || v.w < 1) return dlua_step_refuse_empty(s, v.h, v.w);
  char *out = dlua_step_make(s, p->dtype, p->c, v.h, v.w);
  if (!out) return DLUA_NO_MEMORY;
  for (int64_t c = 0; c < p->c; c++) {
    const char *plane = (const char *)p->data + (size_t)(c * p->h * p->w) * size;
    for (int64_t y = 0; y < v.h; y++, out += (size_t)v.w * size) {
      int64_t row = dlua_window_at(v.top + y, p->h, v.mode);
      if (row < 0) {
        fill_row(out, p->dtype, v.w, v.fill);
      } else {
        window_row(p, plane + (size_t)(row * p->w) * size, out, &v);
      }
    }
  }
  return DLUA_OK;
}

// Reflection can continue a line by less than its own length only.
static dlua_status check_padding(const dlua_step *s, const double *side, int mode) {
  if (mode != DLUA_PAD_REFLECT && mode != DLUA_PAD_SYMMETRIC) return DLUA_OK;
  int shorter = mode == DLUA_PAD_REFLECT ? 1 : 0;
  for (int k = 0; k < 4; k++) {
    int64_t size = k % 2 == 0 ? s->in.h : s->in.w;
    if (side[k] <= (double)(size - shorter)) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: padding of %g cannot mirror a picture of %lldx%lld",
                     dlua_transform_name(s->t->kind), side[k], (long long)s->in.h,
                     (long long)s->in.w);
  }
  return DLUA_OK;
}

static dlua_status too_large(const dlua_step *s, int64_t h, int64_t w) {
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: a crop of %lldx%lld does not fit into a picture %s",
                   dlua_transform_name(s->t->kind), (long long)h, (long long)w,
                   dlua_sizes_text(3, (int64_t[]){s->in.c, s->in.h, s->in.w}));
}

static dlua_status random_crop(dlua_step *s) {
  const double *p = s->t->p, *side = p + 2;
  int64_t h = (int64_t)p[0], w = (int64_t)p[1];
  if (s->in.h + (int64_t)(side[0] + side[2]) < h || s->in.w + (int64_t)(side[1] + side[3]) < w)
    return too_large(s, h, w);
  DLUA_TRY(check_padding(s, side, (int)p[6]));
  return window(s);
}

static dlua_status center_crop(dlua_step *s) {
  int64_t h = (int64_t)s->t->p[0], w = (int64_t)s->t->p[1];
  return h > s->in.h || w > s->in.w ? too_large(s, h, w) : window(s);
}

static dlua_status pad(dlua_step *s) {
  DLUA_TRY(check_padding(s, s->t->p, (int)s->t->p[4]));
  return window(s);
}

static dlua_status flip_h(dlua_step *s) {
  if (!dlua_draw_chance(&s->words, s->t->p[0])) return DLUA_OK;
  void *made = dlua_step_make(s, s->in.dtype, s->in.c, s->in.h, s->in.w);
  if (!made) return DLUA_NO_MEMORY;
  int64_t w = s->in.w;
  for (int64_t row = 0; row < s->in.c * s->in.h; row++) {
    if (s->in.dtype == DLUA_U8) {
      const uint8_t *in = (const uint8_t *)s->in.data + row * w;
      for (int64_t x = 0; x < w; x++) ((uint8_t *)made)[row * w + x] = in[w - 1 - x];
    } else {
      const float *in = (const float *)s->in.data + row * w;
      for (int64_t x = 0; x < w; x++) ((float *)made)[row * w + x] = in[w - 1 - x];
    }
  }
  return DLUA_OK;
}

static dlua_status flip_v(dlua_step *s) {
  if (!dlua_draw_chance(&s->words, s->t->p[0])) return DLUA_OK;
  char *out = dlua_step_make(s, s->in.dtype, s->in.c, s->in.h, s->in.w);
  if (!out) return DLUA_NO_MEMORY;
  size_t row = (size_t)s->in.w * dlua_dtype_size(s->in.dtype);
  for (int64_t c = 0; c < s->in.c; c++) {
    for (int64_t y = 0; y < s->in.h; y++, out += row) {
      memcpy(out, (const char *)s->in.data + (size_t)((c + 1) * s->in.h - 1 - y) * row, row);
    }
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- erasing

static void erase_box(dlua_step *s, void *out, const dlua_box *box) {
  double value = s->t->p[5];
  bool noise = s->t->p[6] != 0, levels = s->in.dtype == DLUA_U8;
  for (int64_t c = 0; c < s->in.c; c++) {
    for (int64_t y = 0; y < box->h; y++) {
      int64_t first = (c * s->in.h + box->top + y) * s->in.w + box->left;
      size_t size = dlua_dtype_size(s->in.dtype);
      if (!noise) fill_row((char *)out + (size_t)first * size, s->in.dtype, box->w, value);
      for (int64_t x = 0; noise && x < box->w; x++) {
        float u = dlua_unit_f32(dlua_next_word(&s->words));
        if (levels) {
          ((uint8_t *)out)[first + x] = (uint8_t)(256 * u);
        } else {
          ((float *)out)[first + x] = u;
        }
      }
    }
  }
}

static dlua_status erase(dlua_step *s) {
  dlua_box box = dlua_draw_box(s->t->p, &s->words, s->in.h, s->in.w);
  if (box.h == 0) return DLUA_OK;
  void *out = dlua_step_make(s, s->in.dtype, s->in.c, s->in.h, s->in.w);
  if (!out) return DLUA_NO_MEMORY;
  memcpy(out, s->in.data, dlua_step_bytes(&s->in));
  erase_box(s, out, &box);
  return DLUA_OK;
}

// ---------------------------------------------------------------- the list

// clang-format off
static const struct {
  const char *name;
  dlua_status (*run)(dlua_step *);
} kinds[DLUA_T_KINDS] = {
  [DLUA_T_TO_FLOAT]    = {"ToFloat", to_float},
  [DLUA_T_NORMALIZE]   = {"Normalize", normalize},
  [DLUA_T_CROP]        = {"RandomCrop", random_crop},
  [DLUA_T_CENTER_CROP] = {"CenterCrop", center_crop},
  [DLUA_T_RESIZE]      = {"Resize", dlua_step_resize},
  [DLUA_T_PAD]         = {"Pad", pad},
  [DLUA_T_FLIP_H]      = {"RandomHorizontalFlip", flip_h},
  [DLUA_T_FLIP_V]      = {"RandomVerticalFlip", flip_v},
  [DLUA_T_AFFINE]      = {"RandomAffine", dlua_step_affine},
  [DLUA_T_COLOR]       = {"ColorJitter", dlua_step_color},
  [DLUA_T_ERASE]       = {"RandomErasing", erase},
};
// clang-format on

const char *dlua_transform_name(dlua_transform_kind kind) { return kinds[kind].name; }

dlua_status dlua_transform_find(const char *name, dlua_transform_kind *kind) {
  for (int k = 0; k < DLUA_T_KINDS; k++) {
    if (strcmp(name, kinds[k].name) != 0) continue;
    *kind = (dlua_transform_kind)k;
    return DLUA_OK;
  }
  return dlua_fail(DLUA_BAD_ARGUMENT, "transforms: there is no %s", name);
}

// Products of such sides, and of one with the elements of a picture, fit 64 bits.
dlua_status dlua_transform_check(const dlua_transform *t) {
  static const int sizes[DLUA_T_KINDS] = {
      [DLUA_T_CROP] = 6, [DLUA_T_CENTER_CROP] = 2, [DLUA_T_RESIZE] = 2, [DLUA_T_PAD] = 4};
  const int most = 1 << 24;
  for (int k = 0; k < sizes[t->kind]; k++) {
    if (t->p[k] >= 0 && t->p[k] <= most) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "transforms.%s: a size or padding of %.0f is outside 0..%d",
                     dlua_transform_name(t->kind), t->p[k], most);
  }
  return DLUA_OK;
}

void dlua_scratch_free(dlua_scratch *scratch) {
  dlua_bytes_free(&scratch->side[0]);
  dlua_bytes_free(&scratch->side[1]);
  dlua_bytes_free(&scratch->work);
}

dlua_status dlua_transform_run(int n, const dlua_transform *steps, const dlua_draw *draw,
                               const dlua_picture *input, dlua_scratch *scratch,
                               dlua_picture *result) {
  dlua_picture now = *input;
  int side = 0;
  for (int k = 0; k < n; k++) {
    dlua_step s = {.t = &steps[k],
                   .in = now,
                   .out = now,
                   .room = &scratch->side[side],
                   .work = &scratch->work,
                   .words = {.key = draw->key,
                             .sample = draw->sample,
                             .epoch = draw->epoch,
                             .step = draw->step + (uint32_t)k}};
    DLUA_TRY(kinds[steps[k].kind].run(&s));
    if (s.out.data != now.data) side = 1 - side;
    now = s.out;
  }
  *result = now;
  return DLUA_OK;
}
