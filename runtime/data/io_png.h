// io_png.h - PNG pictures in and out of memory, planes first: {c,h,w}.
//
//   dlua_png png;
//   DLUA_TRY(dlua_png_open(&png, "cat.png", bytes, size, 0, false));
//   … room for png.channels * png.height * png.width values …
//   status = dlua_png_read(&png, pixels, &scratch);
//   dlua_png_close(&png);
//
// Values are the file's own: gamma, chromaticity and background chunks are ignored. Grey of 1, 2
// and 4 bits is spread over 0..255, palettes become their colours, a transparent colour (tRNS)
// becomes an alpha channel. 16-bit files keep 0..65535 where the caller asks for it and are scaled
// to 0..255 where not.
#ifndef DLUA_IO_PNG_H
#define DLUA_IO_PNG_H

#include "file.h"

#define DLUA_MAX_PIXELS 89500000 // of one picture, before anything is allocated for it

typedef struct dlua_png {
  int64_t width, height;
  int channels; // 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA
  int depth;    // 8: values are uint8_t; 16: int32_t
  struct dlua_png_state *state;
} dlua_png;

// Reads the header of a PNG in memory; bytes are borrowed until dlua_png_close. name stands in
// messages. channels: 0 keeps what the file has; 1, 3 and 4 convert (luma is Rec. 601 as Pillow's,
// alpha is dropped or set to 255). deep keeps 16 bits. Fails on pictures above DLUA_MAX_PIXELS and
// on more pixels than the bytes can hold.
dlua_status dlua_png_open(dlua_png *png, const char *name, const uint8_t *bytes, size_t size,
                          int channels, bool deep);
// Decodes into pixels {channels,height,width}; once per open. scratch is used again from call to
// call.
dlua_status dlua_png_read(dlua_png *png, void *pixels, dlua_bytes *scratch);
void dlua_png_close(dlua_png *png); // fine on one whose open failed

// Encodes pixels {channels,height,width} of depth 8 (uint8_t) or 16 (int32_t 0..65535) and appends
// the file to out. level: zlib's, 1..9.
dlua_status dlua_png_encode(const char *name, const void *pixels, int channels, int64_t height,
                            int64_t width, int depth, int level, dlua_bytes *out);

#endif
