// targets.c - the readers under fire, the valid files they start from, and how each format's own
// checks are satisfied again after damage.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../../runtime/data/io_data.h"
#include "../../runtime/data/io_npy.h"
#include "../../runtime/data/io_png.h"
#include "../../runtime/data/io_safetensors.h"
#include "fuzz.h"

// Reads every byte, so that a sanitizer sees what a reader forgot to write or wrote beyond.
static uint64_t touch(const void *data, size_t size) {
  const uint8_t *bytes = data;
  uint64_t sum = 0;
  for (size_t k = 0; k < size; k++) sum += bytes[k];
  return sum;
}

static uint64_t mixed(uint64_t kind, uint64_t value) {
  return (kind ^ value) * 0x9E3779B97F4A7C15u + 1;
}

// What x is, after all of its storage was touched: every element must lie inside.
static uint64_t kind_of(const dlua_tensor *x) {
  uint64_t kind = mixed(x->dtype, x->ndim);
  for (int d = 0; d < x->ndim; d++) kind = mixed(kind, (uint64_t)x->size[d]);
  size_t bytes = (size_t)dlua_numel(x) * dlua_dtype_size((dlua_dtype)x->dtype);
  if (bytes > x->storage->bytes) abort();
  touch(x->storage->data, bytes);
  return kind;
}

static bool add_bytes(dlua_bytes *seed, int *n, const void *data, size_t size) {
  return *n < FUZZ_SEEDS && size <= FUZZ_MOST && dlua_bytes_add(&seed[(*n)++], data, size) == 0;
}

static bool add_text(dlua_bytes *seed, int *n, const char *text) {
  return add_bytes(seed, n, text, strlen(text));
}

// A seed that dlua itself has just written to the place's file.
static bool add_written(dlua_bytes *seed, int *n, const fuzz_place *place, dlua_status written) {
  if (written != DLUA_OK || *n >= FUZZ_SEEDS) return false;
  return dlua_file_read(place->input, FUZZ_MOST, &seed[(*n)++]) == DLUA_OK;
}

// ---------------------------------------------------------------- png

static uint32_t big_endian(const uint8_t *b) {
  return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void put_big_endian(uint8_t *b, uint32_t value) {
  for (int k = 0; k < 4; k++) b[k] = (uint8_t)(value >> (24 - 8 * k));
}

static int compare_names(const struct dirent **x, const struct dirent **y) {
  return strcmp((*x)->d_name, (*y)->d_name);
}

// Every PNG of the specs' fixtures, in the order of their names: a folder has one of its own.
static int png_seeds(const fuzz_place *place, dlua_bytes *seed) {
  (void)place;
  struct dirent **entries;
  int count = scandir(FUZZ_FIXTURES "/png", &entries, NULL, compare_names), n = 0;
  if (count < 0) return 0;
  for (int k = 0; k < count; k++) {
    char path[512];
    snprintf(path, sizeof path, FUZZ_FIXTURES "/png/%s", entries[k]->d_name);
    if (n < FUZZ_SEEDS && strstr(path, ".png") &&
        dlua_file_read(path, FUZZ_MOST, &seed[n]) == DLUA_OK)
      n++;
    free(entries[k]);
  }
  free(entries);
  return n;
}

static dlua_status decode(dlua_png *png, uint64_t *kind) {
  size_t size = (size_t)(png->channels * png->height * png->width) * (png->depth == 16 ? 4 : 1);
  dlua_bytes scratch = {0};
  uint8_t *pixels = malloc(size);
  if (!pixels) return dlua_fail(DLUA_NO_MEMORY, "no room for %zu bytes of pixels", size);
  dlua_status status = dlua_png_read(png, pixels, &scratch);
  if (status == DLUA_OK) {
    touch(pixels, size);
    *kind = mixed(mixed((uint64_t)png->channels, (uint64_t)png->height), (uint64_t)png->width);
  }
  free(pixels);
  dlua_bytes_free(&scratch);
  return status;
}

// The bytes themselves choose how they are read.
static dlua_status png_read(const fuzz_place *place, const dlua_bytes *input, uint64_t *kind) {
  (void)place;
  static const int channels[] = {0, 1, 3, 4};
  uint64_t sum = touch(input->data, input->size);
  dlua_png png = {0};
  dlua_status status =
      dlua_png_open(&png, "input.png", input->data, input->size, channels[sum % 4], sum & 4);
  if (status == DLUA_OK) status = decode(&png, kind);
  dlua_png_close(&png);
  return status;
}

// The CRC of every chunk that is still whole.
static void png_repair(dlua_bytes *x) {
  for (size_t at = 8; at + 12 <= x->size;) {
    uint64_t size = big_endian(x->data + at);
    if (at + 12 + size > x->size) return;
    uLong crc = crc32(crc32(0, NULL, 0), x->data + at + 4, (uInt)size + 4);
    put_big_endian(x->data + at + 8 + size, (uint32_t)crc);
    at += 12 + size;
  }
}

// ---------------------------------------------------------------- npy

static int npy_seeds(const fuzz_place *place, dlua_bytes *seed) {
  int n = 0;
  for (int dtype = 0; dtype < DLUA_DTYPES; dtype++) {
    dlua_tensor *x = NULL;
    if (dtype == DLUA_BF16) continue;
    if (dlua_tensor_new(&x, (dlua_dtype)dtype, dtype % 4, (int64_t[]){2, 3, 4}, dlua_cpu()) != 0) {
      return 0;
    }
    dlua_status status = dlua_tensor_fill(x, 1);
    if (status == DLUA_OK) status = dlua_npy_write(place->input, x);
    dlua_tensor_release(x);
    if (!add_written(seed, &n, place, status)) return 0;
  }
  static const char columns[] = "\x93NUMPY\2\0\x3c\0\0\0{'descr': '>i4', 'fortran_order': True, "
                                "'shape': (2, 1), }    \n\0\0\0\1\0\0\0\2";
  return add_bytes(seed, &n, columns, sizeof columns - 1) ? n : 0;
}

static dlua_status npy_read(const fuzz_place *place, const dlua_bytes *input, uint64_t *kind) {
  (void)input;
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_npy_read(place->input, &x));
  *kind = kind_of(x);
  dlua_tensor_release(x);
  return DLUA_OK;
}

// The size of a version 1 header, up to where its line ends.
static void npy_repair(dlua_bytes *x) {
  uint8_t *end = x->size > 10 ? memchr(x->data + 10, '\n', x->size - 10) : NULL;
  if (!end || x->data[6] != 1) return;
  size_t size = (size_t)(end + 1 - (x->data + 10));
  x->data[8] = (uint8_t)size, x->data[9] = (uint8_t)(size >> 8);
}

// ---------------------------------------------------------------- safetensors

static bool add_own_archive(const fuzz_place *place, dlua_bytes *seed, int *n) {
  dlua_tensor *x = NULL, *row = NULL;
  dlua_archive a = {0};
  dlua_status status = dlua_tensor_new(&x, DLUA_F32, 2, (int64_t[]){3, 2}, dlua_cpu());
  if (status == DLUA_OK) status = dlua_tensor_fill(x, 1);
  if (status == DLUA_OK) status = dlua_tensor_view(&row, x, 1, (int64_t[]){2}, (int64_t[]){1}, 2);
  if (status == DLUA_OK) status = dlua_archive_add(&a, "layer.weight", x);
  if (status == DLUA_OK) status = dlua_archive_add(&a, "tied \"\xc3\xa9\"", x);
  if (status == DLUA_OK) status = dlua_archive_add(&a, "row", row);
  if (status == DLUA_OK) status = dlua_archive_note(&a, "author", "line\nbreak");
  if (status == DLUA_OK) status = dlua_safetensors_write(place->input, &a);
  dlua_archive_free(&a);
  dlua_tensor_release(x), dlua_tensor_release(row);
  return add_written(seed, n, place, status);
}

static bool add_header(dlua_bytes *seed, int *n, const char *header, size_t body) {
  uint8_t size[8] = {(uint8_t)strlen(header), (uint8_t)(strlen(header) >> 8)}, zeros[64] = {0};
  return *n < FUZZ_SEEDS && dlua_bytes_add(&seed[*n], size, 8) == 0 &&
         dlua_bytes_add(&seed[*n], header, strlen(header)) == 0 &&
         dlua_bytes_add(&seed[(*n)++], zeros, body) == 0;
}

static int safetensors_seeds(const fuzz_place *place, dlua_bytes *seed) {
  int n = 0;
  bool made = add_own_archive(place, seed, &n) && add_header(seed, &n, "{}", 0) &&
              add_header(seed, &n,
                         "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                         "\"b\\u00e9\":{\"dtype\":\"BOOL\",\"shape\":[5],\"data_offsets\":[24,29]},"
                         "\"c\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[29,37]}}",
                         37) &&
              add_header(seed, &n,
                         "{\"__metadata__\":{\"k\":\"\\ud83d\\ude00\"},\"w\":{\"data_offsets\":"
                         "[0,0],\"dtype\":\"BF16\",\"shape\":[0,7,1,1,1,1,1,1]}}   ",
                         0);
  return made ? n : 0;
}

static dlua_status safetensors_read(const fuzz_place *place, const dlua_bytes *input,
                                    uint64_t *kind) {
  (void)input;
  dlua_archive a = {0};
  DLUA_TRY(dlua_safetensors_read(place->input, &a));
  *kind = mixed(1, (uint64_t)a.count);
  for (int64_t k = 0; k < a.count; k++) *kind = mixed(*kind, kind_of(a.item[k].tensor));
  for (int64_t k = 0; k < a.pairs; k++) {
    touch(a.pair[k].key, strlen(a.pair[k].key)), touch(a.pair[k].value, strlen(a.pair[k].value));
  }
  dlua_archive_free(&a);
  return DLUA_OK;
}

// The size of the header, up to its last brace.
static void safetensors_repair(dlua_bytes *x) {
  size_t end = x->size;
  while (end > 8 && x->data[end - 1] != '}') end--;
  if (end <= 8) return;
  for (int k = 0; k < 8; k++) x->data[k] = (uint8_t)((end - 8) >> (8 * k));
}

// ---------------------------------------------------------------- idx, plain and packed

static bool add_packed(dlua_bytes *seed, int *n, const dlua_bytes *plain) {
  uint8_t out[512];
  z_stream z = {0};
  if (deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return false;
  z.next_in = plain->data, z.avail_in = (uInt)plain->size;
  z.next_out = out, z.avail_out = sizeof out;
  int code = deflate(&z, Z_FINISH);
  deflateEnd(&z);
  return code == Z_STREAM_END && add_bytes(seed, n, out, sizeof out - z.avail_out);
}

static int idx_seeds(const fuzz_place *place, dlua_bytes *seed) {
  (void)place;
  static const uint8_t bytes[] = {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6};
  static const uint8_t floats[] = {0, 0, 13, 1, 0, 0, 0, 2, 63, 192, 0, 0, 192, 0, 0, 0};
  static const uint8_t none[] = {0, 0, 14, 2, 0, 0, 0, 0, 0, 0, 0, 9};
  int n = 0;
  bool made = add_bytes(seed, &n, bytes, sizeof bytes) &&
              add_bytes(seed, &n, floats, sizeof floats) &&
              add_bytes(seed, &n, none, sizeof none) && add_packed(seed, &n, &seed[0]) &&
              add_packed(seed, &n, &seed[1]);
  return made ? n : 0;
}

static dlua_status idx_read(const fuzz_place *place, const dlua_bytes *input, uint64_t *kind) {
  (void)input;
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_idx_read(place->input, &x));
  *kind = kind_of(x);
  dlua_tensor_release(x);
  return DLUA_OK;
}

// ---------------------------------------------------------------- cifar

enum { RECORD = 3073 };

static int cifar_seeds(const fuzz_place *place, dlua_bytes *seed) {
  (void)place;
  static uint8_t records[2 * RECORD];
  int n = 0;
  for (int k = 0; k < 2 * RECORD; k++) records[k] = (uint8_t)(k % 10);
  return add_bytes(seed, &n, records, RECORD) && add_bytes(seed, &n, records, 2 * RECORD) ? n : 0;
}

static dlua_status cifar_pictures(const dlua_dataset *set, uint64_t *kind) {
  dlua_decoder decoder = {0};
  dlua_status status = DLUA_OK;
  for (int64_t i = 0; i < set->count && status == DLUA_OK; i++) {
    dlua_picture picture;
    status = dlua_dataset_picture(set, i, &decoder, &picture);
    if (status == DLUA_OK) touch(picture.data, (size_t)dlua_picture_count(&picture));
  }
  dlua_decoder_free(&decoder);
  *kind = mixed(kind_of(set->source->field[1].rows), (uint64_t)set->count);
  return status;
}

static dlua_status cifar_read(const fuzz_place *place, const dlua_bytes *input, uint64_t *kind) {
  (void)input;
  dlua_dataset *set = NULL;
  DLUA_TRY(dlua_cifar_open(place->folder, false, &set));
  dlua_status status = cifar_pictures(set, kind);
  dlua_dataset_release(set);
  return status;
}

// A size of whole records, mostly with labels that are classes.
static void cifar_repair(dlua_bytes *x) {
  x->size -= x->size % RECORD;
  for (size_t at = 0; at < x->size; at += RECORD) x->data[at] %= 11;
}

// ---------------------------------------------------------------- csv

static int csv_seeds(const fuzz_place *place, dlua_bytes *seed) {
  (void)place;
  int n = 0;
  bool made = add_text(seed, &n, "name,\"x, y\",z\r\n\"a \"\"b\"\"\",1.5,-2\r\nc,,3e2\r\n") &&
              add_text(seed, &n, "1\n2\n\n3") && add_text(seed, &n, "\"a\nb\",\"\"\n,\n") &&
              add_text(seed, &n,
                       "\xef\xbb\xbf"
                       "a;b\n0x1p3;nan\ninf;-0\n");
  return made ? n : 0;
}

static dlua_status csv_read(const fuzz_place *place, const dlua_bytes *input, uint64_t *kind) {
  dlua_csv csv;
  uint64_t sum = touch(input->data, input->size);
  DLUA_TRY(dlua_csv_read(place->input, sum & 1 ? ',' : ';', sum & 2, &csv));
  int64_t cells = (csv.rows + csv.header) * csv.columns;
  for (int64_t k = 0; k < cells; k++) {
    dlua_csv_field cell;
    double value;
    if (csv.at > csv.file.size || dlua_csv_next(&csv, &cell) != DLUA_OK) abort();
    touch(cell.text, cell.size);
    dlua_csv_number(&cell, &value);
  }
  if (csv.at != csv.file.size) abort();
  *kind = mixed((uint64_t)csv.rows, (uint64_t)csv.columns);
  dlua_csv_free(&csv);
  return DLUA_OK;
}

// ---------------------------------------------------------------- the list

const fuzz_target fuzz_targets[] = {
    {"png", "input.png", png_seeds, png_read, png_repair},
    {"npy", "input.npy", npy_seeds, npy_read, npy_repair},
    {"safetensors", "input.safetensors", safetensors_seeds, safetensors_read, safetensors_repair},
    {"idx", "input", idx_seeds, idx_read, NULL},
    {"cifar", "test_batch.bin", cifar_seeds, cifar_read, cifar_repair},
    {"csv", "input.csv", csv_seeds, csv_read, NULL},
    {NULL},
};
