// io_npy.c - NumPy arrays. The header is a Python literal; only the one form that NumPy itself
// writes is read: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
#include "io_npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const codes[DLUA_DTYPES] = {"f4", "f8", NULL, "f2", "i8", "i4", "u1", "b1"};

typedef struct array {
  const char *path;
  dlua_dtype dtype;
  bool columns, swapped; // column order; the other byte order
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
} array;

// ---------------------------------------------------------------- the header

typedef struct cursor {
  const char *at; // 0-terminated text
} cursor;

static void pass_space(cursor *c) {
  while (*c->at == ' ' || *c->at == '\n') c->at++;
}

static bool take(cursor *c, const char *text) {
  pass_space(c);
  size_t size = strlen(text);
  if (strncmp(c->at, text, size) != 0) return false;
  c->at += size;
  return true;
}

static dlua_status bad_header(const array *a, const char *what) {
  return dlua_fail(DLUA_BAD_FILE, "%s: %s in the header (npy)", a->path, what);
}

static dlua_status parse_dtype(array *a, cursor *c) {
  char text[16] = {0};
  if (!take(c, "'")) return bad_header(a, "no plain dtype");
  for (size_t k = 0; k + 1 < sizeof text && *c->at && *c->at != '\''; k++) text[k] = *c->at++;
  if (!take(c, "'")) return bad_header(a, "no plain dtype");
  for (int k = 0; k < DLUA_DTYPES; k++) {
    if (!codes[k] || strcmp(text + 1, codes[k]) != 0 || !strchr("<>=|", text[0])) continue;
    a->dtype = (dlua_dtype)k;
    a->swapped = text[0] == '>' && dlua_dtype_size(a->dtype) > 1;
    return DLUA_OK;
  }
  return dlua_fail(DLUA_BAD_FILE, "%s: dtype %s is none that dlua has (npy)", a->path, text);
}

static dlua_status parse_order(array *a, cursor *c) {
  a->columns = take(c, "True");
  return a->columns || take(c, "False") ? DLUA_OK : bad_header(a, "no fortran_order");
}

static dlua_status parse_shape(array *a, cursor *c) {
  if (!take(c, "(")) return bad_header(a, "no shape");
  while (!take(c, ")")) {
    char *end;
    pass_space(c);
    if (*c->at < '0' || *c->at > '9') return bad_header(a, "a size that is no number");
    unsigned long long size = strtoull(c->at, &end, 10);
    if (a->ndim == DLUA_MAX_DIMS) return bad_header(a, "more than 8 dimensions");
    if (size > INT64_MAX) return bad_header(a, "a size that is too large");
    a->size[a->ndim++] = (int64_t)size;
    c->at = end;
    if (!take(c, ",") && (pass_space(c), *c->at != ')')) return bad_header(a, "no , or )");
  }
  return DLUA_OK;
}

static dlua_status parse(array *a, const char *text) {
  cursor c = {text};
  int seen = 0;
  if (!take(&c, "{")) return bad_header(a, "no {");
  while (!take(&c, "}")) {
    int key = take(&c, "'descr':")           ? 0
              : take(&c, "'fortran_order':") ? 1
              : take(&c, "'shape':")         ? 2
                                             : 3;
    if (key == 3 || (seen & 1 << key)) return bad_header(a, "an unknown or repeated key");
    seen |= 1 << key;
    DLUA_TRY(key == 0 ? parse_dtype(a, &c) : key == 1 ? parse_order(a, &c) : parse_shape(a, &c));
    if (!take(&c, ",") && (pass_space(&c), *c.at != '}')) return bad_header(a, "no , or }");
  }
  return seen == 7 ? DLUA_OK : bad_header(a, "a missing key");
}

// ---------------------------------------------------------------- reading

// Reads the header and says where the values start.
static dlua_status read_header(const dlua_reader *r, array *a, uint64_t *start) {
  uint8_t raw[12] = {0};
  char text[65536];
  if (r->size < 12) return dlua_fail(DLUA_BAD_FILE, "%s: is no npy file", r->path);
  DLUA_TRY(dlua_reader_at(r, 0, raw, 12));
  if (memcmp(raw, "\x93NUMPY", 6) != 0 || raw[6] < 1 || raw[6] > 3) {
    return dlua_fail(DLUA_BAD_FILE, "%s: does not start as an npy file of version 1 to 3", r->path);
  }
  uint64_t size = raw[8] | raw[9] << 8;
  if (raw[6] > 1) size |= (uint64_t)raw[10] << 16 | (uint64_t)raw[11] << 24;
  *start = raw[6] > 1 ? 12 : 10;
  if (size >= sizeof text) return bad_header(a, "more than 65535 bytes");
  DLUA_TRY(dlua_reader_at(r, *start, text, (size_t)size));
  text[size] = 0;
  *start += size;
  return parse(a, text);
}

static dlua_status check_size(const dlua_reader *r, const array *a, uint64_t start) {
  size_t bytes = 0;
  bool fits = dlua_shape_bytes(a->dtype, a->ndim, a->size, &bytes);
  if (fits && bytes == r->size - start) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s: %llu bytes after the header are not %s of %s (npy)", r->path,
                   (unsigned long long)(r->size - start), dlua_sizes_text(a->ndim, a->size),
                   dlua_dtype_name(a->dtype));
}

static void swap_bytes(uint8_t *data, int64_t count, size_t size) {
  for (int64_t k = 0; k < count; k++, data += size) {
    for (size_t i = 0; i < size / 2; i++) {
      uint8_t kept = data[i];
      data[i] = data[size - 1 - i], data[size - 1 - i] = kept;
    }
  }
}

static dlua_status check_booleans(const array *a, const dlua_tensor *x) {
  const uint8_t *value = dlua_data(x);
  for (int64_t k = 0; a->dtype == DLUA_BOOL && k < dlua_numel(x); k++) {
    if (value[k] > 1) {
      return dlua_fail(DLUA_BAD_FILE, "%s: value %d at position %lld is not a boolean (npy)",
                       a->path, value[k], (long long)k + 1);
    }
  }
  return DLUA_OK;
}

// x with its dimensions in the other order, as a view.
static dlua_status reversed(const dlua_tensor *x, dlua_tensor **view) {
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS];
  for (int d = 0; d < x->ndim; d++) {
    size[d] = x->size[x->ndim - 1 - d], stride[d] = x->stride[x->ndim - 1 - d];
  }
  return dlua_tensor_view(view, x, x->ndim, size, stride, x->offset);
}

static dlua_status read_values(const dlua_reader *r, const array *a, uint64_t start,
                               dlua_tensor **result) {
  int64_t size[DLUA_MAX_DIMS];
  for (int d = 0; d < a->ndim; d++) size[d] = a->size[a->columns ? a->ndim - 1 - d : d];
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_tensor_new(&x, a->dtype, a->ndim, size, dlua_cpu()));
  size_t each = dlua_dtype_size(a->dtype);
  dlua_status status = dlua_reader_at(r, start, dlua_data(x), (size_t)dlua_numel(x) * each);
  if (status == DLUA_OK) status = check_booleans(a, x);
  if (status == DLUA_OK && a->swapped) swap_bytes(dlua_data(x), dlua_numel(x), each);
  if (status == DLUA_OK && a->columns) {
    status = reversed(x, result);
  } else if (status == DLUA_OK) {
    *result = dlua_tensor_retain(x);
  }
  dlua_tensor_release(x);
  return status;
}

dlua_status dlua_npy_read(const char *path, dlua_tensor **x) {
  dlua_reader r;
  array a = {.path = path};
  uint64_t start = 0;
  DLUA_TRY(dlua_reader_open(&r, path));
  dlua_status status = read_header(&r, &a, &start);
  if (status == DLUA_OK) status = check_size(&r, &a, start);
  if (status == DLUA_OK) status = read_values(&r, &a, start, x);
  dlua_reader_close(&r);
  return status;
}

// ---------------------------------------------------------------- writing

// The whole head of a file, padded so that the values start at a multiple of 64.
static size_t write_head(const dlua_tensor *x, char *head, size_t room) {
  size_t at = 10;
  at +=
      (size_t)snprintf(head + at, room - at, "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                       dlua_dtype_size(x->dtype) > 1 ? '<' : '|', codes[x->dtype]);
  for (int d = 0; d < x->ndim; d++) {
    at += (size_t)snprintf(head + at, room - at, d == x->ndim - 1 && d > 0 ? "%lld" : "%lld, ",
                           (long long)x->size[d]);
  }
  at += (size_t)snprintf(head + at, room - at, "), }");
  while ((at + 1) % 64 != 0) head[at++] = ' ';
  head[at++] = '\n';
  memcpy(head, "\x93NUMPY\x01\x00", 8);
  head[8] = (char)((at - 10) & 255), head[9] = (char)((at - 10) >> 8);
  return at;
}

static dlua_status write_file(const char *path, const dlua_tensor *flat) {
  char head[512];
  dlua_writer w;
  size_t size = write_head(flat, head, sizeof head);
  DLUA_TRY(dlua_writer_open(&w, path));
  dlua_status status = dlua_writer_add(&w, head, size);
  size_t bytes = (size_t)dlua_numel(flat) * dlua_dtype_size(flat->dtype);
  if (status == DLUA_OK) status = dlua_writer_add(&w, dlua_data(flat), bytes);
  if (status == DLUA_OK) return dlua_writer_commit(&w);
  dlua_writer_cancel(&w);
  return status;
}

dlua_status dlua_npy_write(const char *path, const dlua_tensor *x) {
  dlua_tensor *host = NULL, *flat = NULL;
  if (!codes[x->dtype]) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "save: npy has no %s; use .safetensors",
                     dlua_dtype_name(x->dtype));
  }
  dlua_status status = dlua_to_device(x, dlua_cpu(), &host);
  if (status == DLUA_OK) status = dlua_contiguous(host, &flat);
  if (status == DLUA_OK) status = write_file(path, flat);
  dlua_tensor_release(flat);
  dlua_tensor_release(host);
  return status;
}
