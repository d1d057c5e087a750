// io_png.c - PNG through libpng's full interface. Its simplified one applies gAMA: 254 of 256
// levels of an 8-bit file change. libpng reports errors by longjmp; setjmp is confined to guard(),
// every call that may jump runs inside it, and no frame that owns memory is jumped over.
#include "io_png.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dlua_png_state {
  png_structp png;
  png_infop info;
  bool writing;
  const char *name;
  const uint8_t *bytes; // reading: the file
  size_t size, at;
  dlua_bytes *out;    // writing: where it goes
  dlua_status status; // of the allocation that failed
  int channels;       // wanted, 0: the file's own
  int file_channels;  // values per pixel in a decoded row
  bool deep;
  bool luma; // three values of the row make one pixel
  int passes;
  size_t rowbytes;
  void *pixels; // {c,h,w}
  dlua_bytes *scratch;
  int64_t height, width;
  int depth, level;
  char text[128]; // what libpng said
};

typedef struct dlua_png_state state;

// ---------------------------------------------------------------- libpng's callbacks

static void note_error(png_structp png, png_const_charp text) {
  state *s = png_get_error_ptr(png);
  snprintf(s->text, sizeof s->text, "%s", text);
  png_longjmp(png, 1);
}

static void ignore_warning(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void take_bytes(png_structp png, png_bytep data, size_t count) {
  state *s = png_get_io_ptr(png);
  if (count > s->size - s->at) {
    s->at = s->size;
    png_error(png, "the file is cut short");
  }
  memcpy(data, s->bytes + s->at, count);
  s->at += count;
}

static void give_bytes(png_structp png, png_bytep data, size_t count) {
  state *s = png_get_io_ptr(png);
  s->status = dlua_bytes_add(s->out, data, count);
  if (s->status != DLUA_OK) png_error(png, "out of memory");
}

static png_voidp get_block(png_structp png, png_alloc_size_t size) {
  state *s = png_get_mem_ptr(png);
  void *block = dlua_new_block(size);
  if (!block) s->status = DLUA_NO_MEMORY;
  return block;
}

static void free_block(png_structp png, png_voidp block) {
  (void)png;
  dlua_delete_block(block);
}

static void flush_nothing(png_structp png) { (void)png; }

// Runs step, false when libpng jumped out of it.
static bool guard(state *s, void (*step)(state *)) {
  if (setjmp(png_jmpbuf(s->png))) return false;
  step(s);
  return true;
}

// ---------------------------------------------------------------- reading

// Brings every kind of file to 8 or 16 bits of grey, grey+alpha, RGB or RGBA.
static void set_conversions(state *s) {
  int colour = png_get_color_type(s->png, s->info);
  bool transparent = png_get_valid(s->png, s->info, PNG_INFO_tRNS) != 0;
  bool alpha = (colour & PNG_COLOR_MASK_ALPHA) || transparent;
  bool grey = !(colour & PNG_COLOR_MASK_COLOR);
  png_set_expand(s->png); // palettes, small grey depths, tRNS
  if (!s->deep) png_set_scale_16(s->png);
  if (s->channels == 0) return;
  if ((s->channels == 1 || s->channels == 3) && alpha) png_set_strip_alpha(s->png);
  if (s->channels >= 3 && grey) png_set_gray_to_rgb(s->png);
  s->luma = s->channels == 1 && !grey; // libpng's own conversion would apply gAMA
  if (s->channels == 4 && !alpha) png_set_add_alpha(s->png, 0xFFFF, PNG_FILLER_AFTER);
}

static void read_header(state *s) {
  png_set_user_limits(s->png, 1 << 24, 1 << 24);
  png_set_chunk_malloc_max(s->png, 8 << 20);
  png_set_chunk_cache_max(s->png, 64);
  png_read_info(s->png, s->info);
  s->width = png_get_image_width(s->png, s->info);
  s->height = png_get_image_height(s->png, s->info);
}

static void start_rows(state *s) {
  s->passes = png_get_interlace_type(s->png, s->info) == PNG_INTERLACE_ADAM7 ? 7 : 1;
  set_conversions(s);
  if (s->passes > 1) png_set_interlace_handling(s->png);
  png_read_update_info(s->png, s->info);
  s->rowbytes = png_get_rowbytes(s->png, s->info);
  s->file_channels = png_get_channels(s->png, s->info);
  s->depth = png_get_bit_depth(s->png, s->info);
}

static dlua_status read_error(const state *s) {
  if (s->status != DLUA_OK) return s->status; // its message stands
  return dlua_fail(DLUA_BAD_FILE, "%s: %s (PNG, at byte %zu of %zu)", s->name, s->text, s->at,
                   s->size);
}

// Deflate makes at most 1032 bytes from one, so a short file cannot hold a large picture.
static dlua_status check_size(state *s) {
  uint64_t pixels = (uint64_t)s->width * (uint64_t)s->height;
  if (pixels > DLUA_MAX_PIXELS) {
    return dlua_fail(DLUA_BAD_FILE, "%s: %lldx%lld pixels are more than the limit of %d (PNG)",
                     s->name, (long long)s->width, (long long)s->height, DLUA_MAX_PIXELS);
  }
  int bits = png_get_bit_depth(s->png, s->info) * png_get_channels(s->png, s->info);
  if (pixels / 8 * (uint64_t)bits > (uint64_t)s->size * 1032) {
    return dlua_fail(DLUA_BAD_FILE, "%s: %zu bytes cannot hold %lldx%lld pixels (PNG)", s->name,
                     s->size, (long long)s->width, (long long)s->height);
  }
  return DLUA_OK;
}

static dlua_status open_file(dlua_png *png) {
  state *s = png->state;
  if (s->size < 8 || png_sig_cmp(s->bytes, 0, 8) != 0) {
    return dlua_fail(DLUA_BAD_FILE, "%s: is not a PNG file (its first 8 bytes are not PNG's)",
                     s->name);
  }
  s->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, s, note_error, ignore_warning, s,
                                    get_block, free_block);
  s->info = s->png ? png_create_info_struct(s->png) : NULL;
  if (!s->info) return DLUA_NO_MEMORY;
  png_set_read_fn(s->png, s, take_bytes);
  if (!guard(s, read_header)) return read_error(s);
  DLUA_TRY(check_size(s));
  if (!guard(s, start_rows)) return read_error(s);
  png->width = s->width, png->height = s->height;
  png->channels = s->luma ? 1 : s->file_channels;
  png->depth = s->depth;
  return DLUA_OK;
}

dlua_status dlua_png_open(dlua_png *png, const char *name, const uint8_t *bytes, size_t size,
                          int channels, bool deep) {
  *png = (dlua_png){.state = dlua_new(sizeof(state))};
  if (!png->state) return DLUA_NO_MEMORY;
  *png->state =
      (state){.name = name, .bytes = bytes, .size = size, .channels = channels, .deep = deep};
  dlua_status status = open_file(png);
  if (status != DLUA_OK) dlua_png_close(png);
  return status;
}

void dlua_png_close(dlua_png *png) {
  state *s = png->state;
  if (!s) return;
  if (s->png && s->writing) png_destroy_write_struct(&s->png, &s->info);
  if (s->png) png_destroy_read_struct(&s->png, &s->info, NULL);
  dlua_delete(s, sizeof *s);
  png->state = NULL;
}

static int value_at(const uint8_t *row, int depth, int64_t k) {
  return depth == 8 ? row[k] : row[2 * k] << 8 | row[2 * k + 1];
}

static void store(const state *s, int64_t k, int value) {
  if (s->depth == 8) {
    ((uint8_t *)s->pixels)[k] = (uint8_t)value;
  } else {
    ((int32_t *)s->pixels)[k] = value;
  }
}

// Rec. 601 luma in 16 bits of fraction.
static void store_luma(const state *s, const uint8_t *row, int64_t y) {
  for (int64_t x = 0; x < s->width; x++) {
    int64_t r = value_at(row, s->depth, 3 * x), g = value_at(row, s->depth, 3 * x + 1);
    int64_t b = value_at(row, s->depth, 3 * x + 2);
    store(s, y * s->width + x, (int)((19595 * r + 38470 * g + 7471 * b + 32768) >> 16));
  }
}

// Spreads one row of interleaved values over the planes.
static void store_row(const state *s, const uint8_t *row, int64_t y) {
  if (s->luma) {
    store_luma(s, row, y);
    return;
  }
  for (int c = 0; c < s->file_channels; c++) {
    int64_t first = (c * s->height + y) * s->width;
    for (int64_t x = 0; x < s->width; x++) {
      store(s, first + x, value_at(row, s->depth, x * s->file_channels + c));
    }
  }
}

// Interlaced files need all rows at once: each pass fills in pixels between those of the last.
static void read_rows(state *s) {
  bool whole = s->passes > 1;
  for (int pass = 0; pass < s->passes; pass++) {
    for (int64_t y = 0; y < s->height; y++) {
      uint8_t *row = s->scratch->data + (whole ? (size_t)y * s->rowbytes : 0);
      png_read_row(s->png, row, NULL);
      if (pass == s->passes - 1) store_row(s, row, y);
    }
  }
  png_read_end(s->png, NULL); // checks the sums of what follows the pixels
}

dlua_status dlua_png_read(dlua_png *png, void *pixels, dlua_bytes *scratch) {
  state *s = png->state;
  s->pixels = pixels, s->scratch = scratch;
  size_t rows = s->passes > 1 ? (size_t)s->height : 1;
  DLUA_TRY(dlua_bytes_reserve(scratch, rows * s->rowbytes));
  if (s->passes > 1) memset(scratch->data, 0, rows * s->rowbytes);
  return guard(s, read_rows) ? DLUA_OK : read_error(s);
}

// ---------------------------------------------------------------- writing

static void write_all(state *s) {
  static const int colours[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                PNG_COLOR_TYPE_RGB_ALPHA};
  png_set_IHDR(s->png, s->info, (png_uint_32)s->width, (png_uint_32)s->height, s->depth,
               colours[s->channels - 1], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_set_compression_level(s->png, s->level);
  png_write_info(s->png, s->info);
  int64_t plane = s->height * s->width;
  for (int64_t y = 0; y < s->height; y++) {
    uint8_t *at = s->scratch->data;
    for (int64_t x = 0; x < s->width; x++) {
      for (int c = 0; c < s->channels; c++) {
        int64_t k = c * plane + y * s->width + x;
        int value = s->depth == 8 ? ((uint8_t *)s->pixels)[k] : ((int32_t *)s->pixels)[k];
        if (s->depth == 16) *at++ = (uint8_t)(value >> 8);
        *at++ = (uint8_t)value;
      }
    }
    png_write_row(s->png, s->scratch->data);
  }
  png_write_end(s->png, NULL);
}

static dlua_status encode(state *s) {
  s->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, s, note_error, ignore_warning, s,
                                     get_block, free_block);
  s->info = s->png ? png_create_info_struct(s->png) : NULL;
  if (!s->info) return DLUA_NO_MEMORY;
  png_set_write_fn(s->png, s, give_bytes, flush_nothing);
  if (guard(s, write_all)) return DLUA_OK;
  if (s->status != DLUA_OK) return s->status;
  return dlua_fail(DLUA_BAD_FILE, "%s: %s (writing PNG)", s->name, s->text);
}

dlua_status dlua_png_encode(const char *name, const void *pixels, int channels, int64_t height,
                            int64_t width, int depth, int level, dlua_bytes *out) {
  if (height < 1 || width < 1 || height * width > DLUA_MAX_PIXELS) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: a picture of %lldx%lld pixels cannot be a PNG", name,
                     (long long)width, (long long)height);
  }
  dlua_bytes row = {0};
  DLUA_TRY(dlua_bytes_reserve(&row, (size_t)(width * channels * depth / 8)));
  dlua_png png = {.state = dlua_new(sizeof(state))};
  dlua_status status = png.state ? DLUA_OK : DLUA_NO_MEMORY;
  if (status == DLUA_OK) {
    *png.state = (state){.name = name,
                         .writing = true,
                         .pixels = (void *)(uintptr_t)pixels,
                         .channels = channels,
                         .height = height,
                         .width = width,
                         .depth = depth,
                         .level = level,
                         .scratch = &row,
                         .out = out};
    status = encode(png.state);
  }
  dlua_png_close(&png);
  dlua_bytes_free(&row);
  return status;
}
