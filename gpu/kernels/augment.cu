// augment.cu - batches of pictures transformed from a data set that lies on the device, in one launch
// (and one before it, where colours need the mean of each picture).
//
// A block makes a piece of one picture. Its threads draw first, a step of the list each; then a thread
// goes from a place of the result back through the steps to the place of the data set's picture that
// is seen there, or to a step that has put something else there, and takes the value forward again.
// No picture is kept between steps. Compiled without fused products: values are the CPU's, bit by bit.
#include "kernel.h"

#include "../../runtime/data/color.h"
#include "../../runtime/data/erase.h"
#include "../../runtime/data/geometry.h"
#include "../../runtime/data/level.h"
#include "../../runtime/data/window.h"
#include "../../runtime/ops/augment.h"

namespace {

constexpr int CHANNELS = 4; // that a thread takes through the steps at once
constexpr int MEANS = 19;   // of a normalisation, the most that its numbers have room for
constexpr int NOTHING = DLUA_T_KINDS;

static_assert(THREADS == DLUA_MEAN_LANES && 2 * MEANS < DLUA_TRANSFORM_NUMBERS);

// What a step does to one picture, drawn; kind is NOTHING where that leaves it as it is.
struct Step {
  int kind;
  bool levels, bilinear; // pictures before it are u8; it samples between pixels
  int64_t h, w;          // of pictures before it
  double fill;
  union {
    dlua_window window;
    dlua_affine affine;
    struct {
      dlua_jitter jitter;
      float mean;
    } color;
    struct {
      dlua_box box;
      dlua_words words;
      bool noise;
    } erased;
    struct {
      int64_t h, w;
    } resized;
    struct {
      int count;
      float mean[MEANS], std[MEANS];
    } normal;
  };
};

struct Batch {
  dlua_index_check check;
  const uint8_t *images;
  int64_t count, channels, size[2]; // of the data set
  int64_t pictures, result[2];      // of the batch
  const int64_t *index;
  const double *rows; // of the op's steps
  int steps;
  uint64_t key;
  uint32_t epoch;
  float *means; // {pictures, DLUA_AUGMENT_STEPS}, or NULL
};

// ---------------------------------------------------------------- draws

__device__ Step draw_step(const Batch &b, int64_t sample, int k) {
  const double *row = b.rows + k * DLUA_AUGMENT_ROW, *p = row + DLUA_AUGMENT_P;
  dlua_words words = {b.key, (uint64_t)sample, b.epoch, (uint32_t)k, 0, {{0, 0, 0, 0}}};
  Step s;
  s.kind = (int)row[DLUA_AUGMENT_KIND];
  s.h = (int64_t)row[DLUA_AUGMENT_HEIGHT], s.w = (int64_t)row[DLUA_AUGMENT_WIDTH];
  s.levels = row[DLUA_AUGMENT_LEVELS] != 0, s.bilinear = false, s.fill = 0;
  switch (s.kind) {
  case DLUA_T_NORMALIZE:
    s.normal.count = p[0] < MEANS ? (int)p[0] : MEANS;
    for (int c = 0; c < s.normal.count; c++)
      s.normal.mean[c] = float(p[1 + c]), s.normal.std[c] = float(p[1 + s.normal.count + c]);
    break;
  case DLUA_T_CROP:
  case DLUA_T_CENTER_CROP:
  case DLUA_T_PAD:
    s.window = dlua_window_draw(s.kind, p, &words, s.h, s.w);
    s.kind = DLUA_T_CROP, s.fill = s.window.fill;
    break;
  case DLUA_T_RESIZE:
    s.resized.h = s.h, s.resized.w = s.w;
    dlua_resized(p, &s.resized.h, &s.resized.w);
    s.bilinear = s.resized.h != s.h || s.resized.w != s.w;
    break;
  case DLUA_T_FLIP_H:
  case DLUA_T_FLIP_V:
    if (!dlua_draw_chance(&words, p[0])) s.kind = NOTHING;
    break;
  case DLUA_T_AFFINE:
    s.affine = dlua_affine_draw(p, &words, s.h, s.w);
    s.bilinear = p[8] != 0, s.fill = p[9];
    break;
  case DLUA_T_COLOR:
    s.color.jitter = dlua_jitter_draw(p, &words, b.channels);
    s.color.mean = 0;
    break;
  case DLUA_T_ERASE:
    s.erased.box = dlua_draw_box(p, &words, s.h, s.w);
    s.erased.words = words, s.fill = p[5], s.erased.noise = p[6] != 0;
    if (s.erased.box.h == 0) s.kind = NOTHING;
  }
  return s;
}

// All steps for picture k of the batch; gives its place in the data set, -1 where there is none. Every
// thread of the block calls it.
__device__ int64_t draw(const Batch &b, int64_t k, Step *steps) {
  __shared__ int64_t sample;
  if (threadIdx.x == 0 && !index_at(b.check, b.index[k], k, b.count, &sample)) sample = -1;
  __syncthreads();
  int number = (int)threadIdx.x;
  if (sample >= 0 && number < b.steps) {
    steps[number] = draw_step(b, sample, number);
    if (b.means && steps[number].kind == DLUA_T_COLOR)
      steps[number].color.mean = b.means[k * DLUA_AUGMENT_STEPS + number];
  }
  __syncthreads();
  return sample;
}

// ---------------------------------------------------------------- a pixel

// One picture of the data set on its way; channels first … first + CHANNELS - 1 of it.
struct Source {
  const uint8_t *picture;
  int64_t h, w, channels, first;
  const Step *steps;
};

__device__ Source source_of(const Batch &b, int64_t at, const Step *steps) {
  int64_t elements = b.channels * b.size[0] * b.size[1];
  return {b.images + at * elements, b.size[0], b.size[1], b.channels, 0, steps};
}

__device__ void read_pixel(const Source &s, int64_t y, int64_t x, float *v) {
  bool there = y >= 0 && x >= 0 && y < s.h && x < s.w;
  DLUA_UNROLL
  for (int c = 0; c < CHANNELS; c++) {
    bool exists = there && s.first + c < s.channels;
    v[c] = exists ? float(s.picture[(s.first + c) * s.h * s.w + y * s.w + x]) : 0;
  }
}

__device__ void fill_pixel(float value, float *v) {
  DLUA_UNROLL
  for (int c = 0; c < CHANNELS; c++) v[c] = value;
}

// Goes from a place after the step to the one before it that is seen there; true where the step itself
// has put something there, which then is in v.
__device__ bool settles(const Source &source, const Step &s, int64_t &y, int64_t &x, float *v) {
  switch (s.kind) {
  case DLUA_T_CROP:
    y = dlua_window_at(s.window.top + y, s.h, s.window.mode);
    x = dlua_window_at(s.window.left + x, s.w, s.window.mode);
    if (y >= 0 && x >= 0) return false;
    fill_pixel(dlua_fill_value(s.fill, s.levels), v);
    return true;
  case DLUA_T_FLIP_H: x = s.w - 1 - x; return false;
  case DLUA_T_FLIP_V: y = s.h - 1 - y; return false;
  case DLUA_T_AFFINE: {
    double from[2];
    dlua_affine_back(&s.affine, y, x, from);
    y = dlua_nearest(from[0], s.h), x = dlua_nearest(from[1], s.w);
    if (y >= 0 && x >= 0) return false;
    fill_pixel(s.levels ? dlua_level_near((float)s.fill) : (float)s.fill, v);
    return true;
  }
  case DLUA_T_ERASE: {
    const dlua_box &box = s.erased.box;
    int64_t row = y - box.top, column = x - box.left;
    if (row < 0 || row >= box.h || column < 0 || column >= box.w) return false;
    fill_pixel(dlua_fill_value(s.fill, s.levels), v);
    if (!s.erased.noise) return true;
    DLUA_UNROLL
    for (int c = 0; c < CHANNELS; c++)
      v[c] = dlua_noise(&s.erased.words, &box, source.first + c, row * box.w + column, s.levels);
    return true;
  }
  default: return false;
  }
}

// What the step makes of a value.
__device__ void change(const Source &source, const Step &s, float *v) {
  if (s.kind == DLUA_T_TO_FLOAT && s.levels) {
    DLUA_UNROLL
    for (int c = 0; c < CHANNELS; c++) v[c] = v[c] / 255.0f;
  } else if (s.kind == DLUA_T_NORMALIZE) {
    DLUA_UNROLL
    for (int c = 0; c < CHANNELS; c++) {
      int64_t k = s.normal.count == 1 ? 0 : source.first + c;
      if (k < s.normal.count) v[c] = (v[c] - s.normal.mean[k]) / s.normal.std[k];
    }
  } else if (s.kind == DLUA_T_COLOR) {
    DLUA_UNROLL
    for (int c = 0; c < 3 && s.levels; c++) v[c] = v[c] / 255.0f;
    dlua_recolor(&s.color.jitter, 0, s.color.jitter.count, s.color.mean, v);
    DLUA_UNROLL
    for (int c = 0; c < 3 && s.levels; c++) v[c] = dlua_level_near(v[c] * 255);
  }
}

template <int DEPTH>
__device__ void pixel(const Source &source, int last, int64_t y, int64_t x, float *v);

// What step k, which samples between pixels, makes of those around a place.
template <int DEPTH>
__device__ void sample(const Source &source, int k, int64_t y, int64_t x, float *v) {
  const Step &s = source.steps[k];
  dlua_taps rows, columns;
  if (s.kind == DLUA_T_RESIZE) {
    rows = dlua_taps_resized(y, s.h, s.resized.h), columns = dlua_taps_resized(x, s.w, s.resized.w);
  } else {
    double from[2];
    dlua_affine_back(&s.affine, y, x, from);
    bool touches = dlua_touches(from[0], s.h) && dlua_touches(from[1], s.w);
    rows = dlua_taps_between(touches ? from[0] : 0);
    columns = dlua_taps_between(touches ? from[1] : 0);
    if (!touches) rows.count = 0;
  }
  fill_pixel(rows.count > 0 ? 0 : (float)s.fill, v);
  for (int64_t i = rows.first; i < rows.first + rows.count; i++) {
    float line[CHANNELS] = {0}, one[CHANNELS], weight = dlua_tap_weight(&rows, i);
    for (int64_t j = columns.first; j < columns.first + columns.count; j++) {
      bool inside = i >= 0 && j >= 0 && i < s.h && j < s.w;
      fill_pixel((float)s.fill, one);
      if (inside) pixel<DEPTH - 1>(source, k, i, j, one);
      float part = dlua_tap_weight(&columns, j);
      DLUA_UNROLL
      for (int c = 0; c < CHANNELS; c++) line[c] += part * one[c];
    }
    DLUA_UNROLL
    for (int c = 0; c < CHANNELS; c++) v[c] += weight * line[c];
  }
  DLUA_UNROLL
  for (int c = 0; c < CHANNELS && s.levels; c++) v[c] = dlua_level_near(v[c]);
}

// The value at a place of the picture that comes to step `last`; at most DEPTH of the steps before it
// sample between pixels.
template <int DEPTH>
__device__ void pixel(const Source &source, int last, int64_t y, int64_t x, float *v) {
  int k = last;
  bool settled = false;
  while (k > 0 && !settled) {
    const Step &s = source.steps[--k];
    settled = true;
    if (!s.bilinear)
      settled = settles(source, s, y, x, v);
    else if constexpr (DEPTH > 0)
      sample<DEPTH>(source, k, y, x, v);
    else
      fill_pixel(0, v);
  }
  if (settled)
    k++;
  else
    read_pixel(source, y, x, v);
  for (; k < last; k++) change(source, source.steps[k], v);
}

// ---------------------------------------------------------------- kernels

// The mean that the contrast of picture k is changed around, for every ColorJitter of the list.
__global__ void picture_means(Batch b) {
  __shared__ Step steps[DLUA_AUGMENT_STEPS];
  __shared__ double lane[DLUA_MEAN_LANES];
  for (int64_t k = blockIdx.x; k < b.pictures; k += gridDim.x) {
    Batch unknown = b;
    unknown.means = nullptr;
    int64_t at = draw(unknown, k, steps);
    Source source = source_of(b, at, steps);
    for (int i = 0; i < b.steps && at >= 0; i++) {
      Step &s = steps[i];
      if (s.kind != DLUA_T_COLOR || s.color.jitter.contrast == s.color.jitter.count) continue;
      double sum = 0;
      for (int64_t p = threadIdx.x; p < s.h * s.w; p += DLUA_MEAN_LANES) {
        float v[CHANNELS];
        int64_t y = quotient(p, s.w);
        pixel<1>(source, i, y, p - y * s.w, v);
        DLUA_UNROLL
        for (int c = 0; c < 3 && s.levels; c++) v[c] = v[c] / 255.0f;
        dlua_recolor(&s.color.jitter, 0, s.color.jitter.contrast, 0, v);
        sum += dlua_grey(v, b.channels);
      }
      lane[threadIdx.x] = sum;
      for (int half = DLUA_MEAN_LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) lane[threadIdx.x] += lane[threadIdx.x + half];
      }
      if (threadIdx.x == 0) {
        s.color.mean = (float)(lane[0] / (double)(s.h * s.w));
        b.means[k * DLUA_AUGMENT_STEPS + i] = s.color.mean;
      }
      __syncthreads();
    }
    __syncthreads();
  }
}

// Registers for two blocks beside each other on a multiprocessor, or four: what is drawn would
// take them.
template <int DEPTH>
__global__ void __launch_bounds__(THREADS, 4 - 2 * DEPTH)
    augment(Batch b, char *result, uint8_t dtype, int width) {
  __shared__ Step steps[DLUA_AUGMENT_STEPS];
  int64_t plane = b.result[0] * b.result[1];
  for (int64_t k = blockIdx.y; k < b.pictures; k += gridDim.y) {
    int64_t at = draw(b, k, steps);
    Source source = source_of(b, at, steps);
    for (int64_t p = first_index(); p < plane && at >= 0; p += all_threads()) {
      int64_t y = quotient(p, b.result[1]), x = p - y * b.result[1];
      for (source.first = 0; source.first < b.channels; source.first += CHANNELS) {
        float v[CHANNELS];
        pixel<DEPTH>(source, b.steps, y, x, v);
        char *to = result + ((k * b.channels + source.first) * plane + p) * width;
        DLUA_UNROLL
        for (int c = 0; c < CHANNELS; c++)
          if (source.first + c < b.channels) store_as(to + c * plane * width, dtype, v[c]);
      }
    }
    __syncthreads();
  }
}

} // namespace

extern "C" dlua_status dlua_gpu_augment(const dlua_args *a) {
  const dlua_tensor *x = a->in[0], *y = a->out[0], *steps = a->in[2];
  if (dlua_numel(y) == 0) return DLUA_OK;
  Batch b = {};
  DLUA_TRY(dlua_gpu_index_check(a, &b.check));
  b.images = data<uint8_t>(x), b.count = x->size[0], b.channels = x->size[1];
  b.pictures = y->size[0], b.index = data<int64_t>(a->in[1]);
  for (int k = 0; k < 2; k++) b.size[k] = x->size[2 + k], b.result[k] = y->size[2 + k];
  b.rows = data<double>(steps), b.steps = steps ? (int)steps->size[0] : 0;
  b.key = (uint64_t)a->num[DLUA_AUGMENT_KEY].i;
  b.epoch = (uint32_t)a->num[DLUA_AUGMENT_EPOCH].i;
  size_t bytes = (size_t)b.pictures * DLUA_AUGMENT_STEPS * sizeof *b.means;
  bool contrast = a->num[DLUA_AUGMENT_CONTRAST].i != 0;
  dlua_status status = DLUA_OK;
  if (contrast) {
    DLUA_TRY(dlua_alloc(a->device, bytes, (void **)&b.means));
    status = launch(a, picture_means, blocks_for(b.pictures * THREADS), THREADS, b);
  }
  // Several blocks share a picture where there are few pictures: each draws for itself.
  int64_t pieces = blocks_for(b.result[0] * b.result[1]), room = MOST_BLOCKS / 2 / b.pictures;
  if (pieces > room) pieces = room > 1 ? room : 1;
  dim3 blocks((unsigned)pieces, (unsigned)(b.pictures < 65535 ? b.pictures : 65535));
  auto kernel = a->num[DLUA_AUGMENT_BETWEEN].i ? augment<1> : augment<0>;
  int width = (int)dlua_dtype_size((dlua_dtype)y->dtype);
  if (status == DLUA_OK)
    status = launch(a, kernel, blocks, THREADS, b, data<char>(y), y->dtype, width);
  if (contrast) dlua_free(a->device, b.means, bytes);
  return status;
}
