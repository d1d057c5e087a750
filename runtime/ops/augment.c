// augment.c - batches of pictures that are cut out, flipped and normalised on the device where the
// data set lies: what transform.c does to one picture at a time, for the transforms that training
// on pictures nearly always uses.
#include "augment.h"

#include "../half.h"
#include "../op.h"
#include "../parallel.h"

// ---------------------------------------------------------------- shapes

static dlua_status check_means(const dlua_args *a) {
  const dlua_tensor *mean = a->in[2], *std = a->in[3];
  if (!mean && !std) return DLUA_OK;
  if (!mean || !std) return dlua_shape_error(a, "mean and std come together");
  if (mean->dtype != DLUA_F32 || std->dtype != DLUA_F32) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "augment: mean and std must be f32, got %s and %s",
                     dlua_dtype_name((dlua_dtype)mean->dtype),
                     dlua_dtype_name((dlua_dtype)std->dtype));
  }
  int64_t n = mean->ndim == 1 ? mean->size[0] : 0;
  if (!dlua_same_shape(mean, std) || (n != 1 && n != a->in[0]->size[1])) {
    return dlua_shape_error(a,
                            "mean and std must have one number, or one for each of %lld channels",
                            (long long)a->in[0]->size[1]);
  }
  return DLUA_OK;
}

// Sizes and places stay far from where their sums would overflow, and a mirrored line is continued
// by less than its own length.
static dlua_status check_window(const dlua_args *a) {
  static const char *const axis[] = {"rows", "columns"};
  const int64_t most = 1 << 24;
  dlua_augment g = dlua_augment_of(a);
  for (int k = 0; k < 2; k++) {
    if (g.window[k] < 1 || g.window[k] > most || g.count[k] < 1 || g.count[k] > most ||
        g.first[k] < -most || g.first[k] > most) {
      return dlua_shape_error(a, "window: %lld %s from %lld on, %lld places: sizes lie in 1..%lld",
                              (long long)g.window[k], axis[k], (long long)g.first[k],
                              (long long)g.count[k], (long long)most);
    }
    if (g.mode != DLUA_PAD_REFLECT && g.mode != DLUA_PAD_SYMMETRIC) continue;
    int64_t reach = g.size[k] - (g.mode == DLUA_PAD_REFLECT), last = g.first[k] + g.count[k] - 1;
    if (g.first[k] < -reach || last + g.window[k] > g.size[k] + reach) {
      return dlua_shape_error(a, "window: %lld %s from %lld..%lld on cannot mirror %lld",
                              (long long)g.window[k], axis[k], (long long)g.first[k],
                              (long long)last, (long long)g.size[k]);
    }
  }
  return DLUA_OK;
}

static dlua_status check_erase(const dlua_args *a) {
  const dlua_tensor *erase = a->in[4];
  const dlua_value *draw = &a->num[DLUA_AUGMENT_DRAW];
  if (!erase) return DLUA_OK;
  if (erase->dtype != DLUA_F64 || erase->ndim != 1 || erase->size[0] != DLUA_AUGMENT_ERASE_NUMBERS)
    return dlua_shape_error(a, "erase must be %d numbers of f64, got %s",
                            DLUA_AUGMENT_ERASE_NUMBERS, dlua_dtype_name((dlua_dtype)erase->dtype));
  if (draw->v[5] >= 0 && draw->v[5] < DLUA_AUGMENT_STAGES) return DLUA_OK;
  return dlua_shape_error(a, "draw: %lld is no stage of pictures, 0..%d", (long long)draw->v[5],
                          DLUA_AUGMENT_STAGES - 1);
}

static dlua_status check_draws(const dlua_args *a) {
  const dlua_value *draw = &a->num[DLUA_AUGMENT_DRAW];
  int64_t fill = a->num[DLUA_AUGMENT_FILL].i;
  for (int k = 0; k < draw->n; k++) {
    if (draw->v[k] >= 0 && draw->v[k] <= (k == 0 ? UINT32_MAX : UINT8_MAX)) continue;
    return dlua_shape_error(a, "draw: %lld is no epoch or place in a list of transforms",
                            (long long)draw->v[k]);
  }
  if (fill >= 0 && fill <= UINT8_MAX) return DLUA_OK;
  return dlua_shape_error(a, "fill %lld does not fit into u8 (0..255)", (long long)fill);
}

static dlua_status augment_shape(dlua_args *a) {
  static const dlua_dtype results[] = {DLUA_F32, DLUA_BF16, DLUA_F16};
  const dlua_tensor *images = a->in[0], *index = a->in[1];
  const dlua_value *window = &a->num[DLUA_AUGMENT_WINDOW];
  if (images->dtype != DLUA_U8 || images->ndim != 4) {
    return dlua_shape_error(a, "images must be u8 {n,c,h,w}, got %s",
                            dlua_dtype_name((dlua_dtype)images->dtype));
  }
  for (int d = 1; d < 4; d++)
    if (images->size[d] == 0) return dlua_shape_error(a, "the pictures are empty");
  if (index->ndim != 1) return dlua_shape_error(a, "index must have one dimension");
  int draws = a->in[4] ? DLUA_AUGMENT_ERASE_DRAW_NUMBERS : DLUA_AUGMENT_DRAW_NUMBERS;
  if (window->n != DLUA_AUGMENT_WINDOW_NUMBERS || a->num[DLUA_AUGMENT_DRAW].n != draws) {
    return dlua_shape_error(a, "window takes %d numbers and draw %d, got %d and %d",
                            DLUA_AUGMENT_WINDOW_NUMBERS, draws, window->n,
                            a->num[DLUA_AUGMENT_DRAW].n);
  }
  DLUA_TRY(check_erase(a));
  DLUA_TRY(check_means(a));
  DLUA_TRY(check_window(a));
  DLUA_TRY(check_draws(a));
  int64_t size[4] = {index->size[0], images->size[1], window->v[0], window->v[1]};
  dlua_spec_shape(a, 0, 4, size);
  a->spec[0].dtype = results[a->num[DLUA_AUGMENT_DTYPE].i];
  return DLUA_OK;
}

// ---------------------------------------------------------------- the kernel

#define LEVELS 256

typedef struct batch {
  dlua_augment g;
  const uint8_t *images;
  const int64_t *index;
  size_t width;            // bytes of an element of the result
  const void *values;      // of every level in every channel
  const float *mean, *std; // NULL: pictures keep 0..1
  int64_t next;            // from one channel's mean to the next
  dlua_dtype dtype;
  char *to;
} batch;

static void set_value(void *values, int64_t k, dlua_dtype dtype, float value) {
  switch (dtype) {
  case DLUA_BF16: ((uint16_t *)values)[k] = dlua_f32_to_bf16(value); break;
  case DLUA_F16: ((uint16_t *)values)[k] = dlua_f32_to_f16(value); break;
  default: ((float *)values)[k] = value;
  }
}

// Pictures have only so many levels: what becomes of each is calculated once.
static void fill_values(const dlua_args *a, void *values) {
  const dlua_tensor *mean = a->in[2], *std = a->in[3];
  for (int64_t c = 0; c < a->in[0]->size[1]; c++) {
    for (int64_t level = 0; level < LEVELS; level++) {
      float value = (float)level / 255.0f;
      int64_t k = mean && mean->size[0] > 1 ? c : 0;
      if (mean) value = (value - dlua_f32(mean)[k]) / dlua_f32(std)[k];
      set_value(values, c * LEVELS + level, (dlua_dtype)a->out[0]->dtype, value);
    }
  }
}

// One place of a picture in all channels; from is its place in the data set's picture, -1: the fill.
static void put_pixel(const batch *b, const uint8_t *picture, int64_t from, char *to) {
  int64_t area = b->g.size[0] * b->g.size[1], plane = b->g.window[0] * b->g.window[1];
  for (int64_t c = 0; c < b->g.channels; c++) {
    int64_t level = c * LEVELS + (from < 0 ? b->g.fill : picture[c * area + from]);
    char *p = to + c * plane * (int64_t)b->width;
    if (b->width == sizeof(float))
      *(float *)p = ((const float *)b->values)[level];
    else
      *(uint16_t *)p = ((const uint16_t *)b->values)[level];
  }
}

// The same of an element of the box that is erased.
static void put_erased(const batch *b, const dlua_augment_fate *fate, int64_t element, char *to) {
  int64_t plane = b->g.window[0] * b->g.window[1];
  for (int64_t c = 0; c < b->g.channels; c++) {
    float value = dlua_augment_erased_value(&b->g, fate, c, element);
    if (b->g.erase_stage == DLUA_AUGMENT_LEVELS) value /= 255.0f;
    if (b->mean && b->g.erase_stage != DLUA_AUGMENT_NORMALIZED)
      value = (value - b->mean[c * b->next]) / b->std[c * b->next];
    set_value(to + c * plane * (int64_t)b->width, 0, b->dtype, value);
  }
}

static void fill_slice(void *context, int64_t first, int64_t last) {
  const batch *b = context;
  const dlua_augment *g = &b->g;
  int64_t area = g->size[0] * g->size[1], plane = g->window[0] * g->window[1];
  for (int64_t k = first; k < last; k++) {
    int64_t sample = b->index[k] - 1;
    dlua_augment_fate fate = dlua_augment_draw(g, (uint64_t)sample);
    const uint8_t *picture = b->images + sample * g->channels * area;
    char *to = b->to + k * g->channels * plane * (int64_t)b->width;
    for (int64_t y = 0; y < g->window[0]; y++) {
      int64_t row = dlua_augment_at(g, &fate, 0, y);
      for (int64_t x = 0; x < g->window[1]; x++, to += b->width) {
        int64_t column = dlua_augment_at(g, &fate, 1, x);
        int64_t erased = dlua_augment_erased(g, &fate, y, x);
        if (erased >= 0)
          put_erased(b, &fate, erased, to);
        else
          put_pixel(b, picture, row < 0 || column < 0 ? -1 : row * g->size[1] + column, to);
      }
    }
  }
}

static dlua_status augment_cpu(const dlua_args *a) {
  const dlua_tensor *images = a->in[0], *index = a->in[1], *y = a->out[0];
  for (int64_t k = 0, at; k < index->size[0]; k++)
    DLUA_TRY(dlua_index(a, dlua_i64(index)[k], k, images->size[0], &at));
  size_t width = dlua_dtype_size((dlua_dtype)y->dtype);
  size_t bytes = (size_t)images->size[1] * LEVELS * width;
  void *values = dlua_new(bytes);
  if (!values) return DLUA_NO_MEMORY;
  fill_values(a, values);
  batch b = {.g = dlua_augment_of(a),
             .images = dlua_data(images),
             .index = dlua_i64(index),
             .width = width,
             .values = values,
             .mean = a->in[2] ? dlua_f32(a->in[2]) : NULL,
             .std = a->in[3] ? dlua_f32(a->in[3]) : NULL,
             .next = a->in[2] && a->in[2]->size[0] > 1 ? 1 : 0,
             .dtype = (dlua_dtype)y->dtype,
             .to = dlua_data(y)};
  dlua_parallel(index->size[0], 4 * (double)(b.g.window[0] * b.g.window[1]), fill_slice, &b);
  dlua_delete(values, bytes);
  return DLUA_OK;
}

const dlua_op dlua_op_augment = {
    .name = "augment",
    .sig = "images:T, index:I, mean:T?, std:T?, erase:T?, window:s, draw:s, key:i=0, "
           "mode:e{constant|reflect|symmetric|edge}=constant, fill:i=0, vertical:f=0, "
           "horizontal:f=0, dtype:e{f32|bf16|f16}=f32 -> y",
    .doc =
        "The pictures images[index[k]] of a u8 set {n,c,h,w} as a batch: cut, flipped, divided by "
        "255, then (x - mean) / std for each channel. Carries no gradient. window is {height, "
        "width, first row, first column, rows, columns}: the corner is drawn from rows * columns "
        "places, counted from 0, which may lie outside; mode and fill say what is seen there. "
        "vertical and horizontal are the chances of a flip. The draws are those of transforms in "
        "a DataLoader with this key: draw is {epoch, place of the crop, of the vertical flip, of "
        "the horizontal flip in the list of transforms, from 0}; a flip whose place is before "
        "the crop's is done before it. erase {chance, least and most of the area, log of the least "
        "and most h / w, value, 1 for noise instead}, f64, fills a box; draw goes on {…, its "
        "place, "
        "what pictures are there: 0 levels of u8, 1 floats, 2 normalised}.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_HALF | DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = augment_shape,
    .cpu = augment_cpu,
    .contiguous = "*",
};
