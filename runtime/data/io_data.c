// io_data.c - CIFAR-10, idx files and MNIST, folders of classes. Bytes stay where the file had
// them: CIFAR's records are used in place, label byte and all.
#include "io_data.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

static const size_t file_limit = UINT32_MAX;
static const size_t unpacked_limit = (size_t)1 << 30; // of a gzip file, which can be a thousandth

// Labels of count examples as field 1 of a source of pictures.
static dlua_status add_labels(dlua_source *s, int64_t **labels) {
  DLUA_TRY(dlua_tensor_new(&s->field[1].rows, DLUA_I64, 1, &s->count, dlua_cpu()));
  s->nfields = 2;
  *labels = dlua_i64(s->field[1].rows);
  return DLUA_OK;
}

// ---------------------------------------------------------------- CIFAR-10

enum { CIFAR_PIXELS = 3 * 32 * 32, CIFAR_RECORD = CIFAR_PIXELS + 1 };

static const char *const cifar_classes[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                            "dog",      "frog",       "horse", "ship", "truck"};

static dlua_status check_records(const char *path, const uint8_t *data, size_t size) {
  for (size_t at = 0; at < size; at += CIFAR_RECORD) {
    if (data[at] <= 9) continue;
    return dlua_fail(DLUA_BAD_FILE, "%s: label %d at byte %zu is outside 0..9", path, data[at], at);
  }
  return DLUA_OK;
}

// files: how many of this size follow, this one included.
static dlua_status read_records(const dlua_reader *r, int files, dlua_bytes *block) {
  size_t size = (size_t)r->size;
  if (size == 0 || size > file_limit || size % CIFAR_RECORD != 0) {
    return dlua_fail(DLUA_BAD_FILE,
                     "%s: %zu bytes are not whole records of %d (the last one starts at byte %zu)",
                     r->path, size, CIFAR_RECORD, size - size % CIFAR_RECORD);
  }
  DLUA_TRY(dlua_bytes_reserve(block, block->size + size * (size_t)(block->size > 0 ? 1 : files)));
  DLUA_TRY(dlua_reader_at(r, 0, block->data + block->size, size));
  DLUA_TRY(check_records(r->path, block->data + block->size, size));
  block->size += size;
  return DLUA_OK;
}

// Appends a file of whole records to block.
static dlua_status add_records(const char *path, int files, dlua_bytes *block) {
  dlua_reader r;
  DLUA_TRY(dlua_reader_open(&r, path));
  dlua_status status = read_records(&r, files, block);
  dlua_reader_close(&r);
  return status;
}

static dlua_status read_cifar(const char *folder, bool train, dlua_bytes *block) {
  char path[4096];
  int files = train ? 5 : 1;
  for (int k = 1; k <= files; k++) {
    snprintf(path, sizeof path, train ? "%s/data_batch_%d.bin" : "%s/test_batch.bin", folder, k);
    DLUA_TRY(add_records(path, files, block));
  }
  return DLUA_OK;
}

static dlua_status fill_cifar(dlua_source *s, dlua_bytes *block) {
  int64_t *labels = NULL;
  s->block = *block, *block = (dlua_bytes){0};
  s->pictures = true, s->channels = 3, s->h = s->w = 32;
  s->first = 1, s->spacing = CIFAR_RECORD;
  DLUA_TRY(add_labels(s, &labels));
  for (int64_t i = 0; i < s->count; i++) labels[i] = s->block.data[i * CIFAR_RECORD] + 1;
  return dlua_source_classes(s, 10, cifar_classes);
}

dlua_status dlua_cifar_open(const char *folder, bool train, dlua_dataset **dataset) {
  dlua_bytes block = {0};
  dlua_source *s = NULL;
  dlua_status status = read_cifar(folder, train, &block);
  if (status == DLUA_OK) status = dlua_source_new((int64_t)(block.size / CIFAR_RECORD), &s);
  if (status == DLUA_OK) status = fill_cifar(s, &block);
  dlua_bytes_free(&block);
  if (status == DLUA_OK) return dlua_dataset_new(s, dataset);
  dlua_source_release(s);
  return status;
}

// ---------------------------------------------------------------- idx

// A plain file, or one that zlib unpacks, read front to back.
typedef struct stream {
  const char *path;
  dlua_bytes file;
  bool packed, done;
  z_stream z;
  size_t at; // in the unpacked bytes
} stream;

static voidpf get_block(voidpf unused, uInt count, uInt size) {
  (void)unused;
  return dlua_new_block((size_t)count * size);
}

static void free_block(voidpf unused, voidpf block) {
  (void)unused;
  dlua_delete_block(block);
}

static dlua_status open_stream(stream *s, const char *path) {
  *s = (stream){.path = path, .z = {.zalloc = get_block, .zfree = free_block}};
  DLUA_TRY(dlua_file_read(path, file_limit, &s->file));
  s->packed = s->file.size >= 2 && s->file.data[0] == 0x1F && s->file.data[1] == 0x8B;
  if (s->packed && inflateInit2(&s->z, 15 + 16) != Z_OK) return DLUA_NO_MEMORY;
  s->z.next_in = s->file.data, s->z.avail_in = (uInt)s->file.size;
  return DLUA_OK;
}

static void close_stream(stream *s) {
  if (s->packed) inflateEnd(&s->z);
  dlua_bytes_free(&s->file);
}

// Unpacks up to size bytes; *got says how many there were.
static dlua_status unpack(stream *s, uint8_t *out, size_t size, size_t *got) {
  s->z.next_out = out, *got = 0;
  while (*got < size && !s->done) {
    size_t left = size - *got;
    s->z.avail_out = left > 1 << 30 ? 1 << 30 : (uInt)left;
    int code = inflate(&s->z, Z_NO_FLUSH);
    *got = (size_t)(s->z.next_out - out);
    if (code == Z_STREAM_END) {
      s->done = true;
    } else if (code == Z_MEM_ERROR) {
      return DLUA_NO_MEMORY;
    } else if (code != Z_OK) {
      return dlua_fail(DLUA_BAD_FILE, "%s: %s (gzip, at byte %zu of %zu)", s->path,
                       s->z.msg ? s->z.msg : "the file is cut short", s->file.size - s->z.avail_in,
                       s->file.size);
    }
  }
  return DLUA_OK;
}

static dlua_status read_some(stream *s, void *out, size_t size, size_t *got) {
  if (s->packed) {
    DLUA_TRY(unpack(s, out, size, got));
  } else {
    *got = size < s->file.size - s->at ? size : s->file.size - s->at;
    if (*got > 0) memcpy(out, s->file.data + s->at, *got);
  }
  s->at += *got;
  return DLUA_OK;
}

static dlua_status read_exactly(stream *s, void *out, size_t size) {
  size_t got = 0, from = s->at;
  DLUA_TRY(read_some(s, out, size, &got));
  if (got == size) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s: ends at byte %zu where byte %zu was expected (idx)", s->path,
                   from + got, from + size);
}

// Nothing may follow the values, and gzip's own sum must have been reached.
static dlua_status expect_end(stream *s) {
  uint8_t extra;
  size_t got = 0;
  DLUA_TRY(read_some(s, &extra, 1, &got));
  if (got == 0) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s: goes on at byte %zu where it should end (idx)", s->path,
                   s->at - 1);
}

static dlua_status idx_dtype(const stream *s, int code, dlua_dtype *dtype) {
  switch (code) {
  case 0x08: return *dtype = DLUA_U8, DLUA_OK;
  case 0x0C: return *dtype = DLUA_I32, DLUA_OK;
  case 0x0D: return *dtype = DLUA_F32, DLUA_OK;
  case 0x0E: return *dtype = DLUA_F64, DLUA_OK;
  }
  return dlua_fail(DLUA_BAD_FILE, "%s: type 0x%02X at byte 2 is none that is read (idx)", s->path,
                   code);
}

// Holds the bytes of the values against what the file can contain (deflate makes at most 1032 bytes
// from one) and against the limit. What a packed file promises beyond its content stays untouched.
static dlua_status check_promise(const stream *s, dlua_dtype dtype, int ndim, const int64_t *size) {
  size_t bytes = 0;
  uint64_t most = (uint64_t)s->file.size * (s->packed ? 1032 : 1);
  if (!dlua_shape_bytes(dtype, ndim, size, &bytes) || bytes > most) {
    return dlua_fail(DLUA_BAD_FILE, "%s: %zu bytes cannot hold sizes %s (idx)", s->path,
                     s->file.size, dlua_sizes_text(ndim, size));
  }
  if (!s->packed || bytes <= unpacked_limit) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s: unpacks to %zu bytes, more than the limit of %zu (idx)",
                   s->path, bytes, unpacked_limit);
}

static dlua_status idx_header(stream *s, dlua_dtype *dtype, int *ndim, int64_t *size) {
  uint8_t head[4], raw[4 * DLUA_MAX_DIMS];
  DLUA_TRY(read_exactly(s, head, 4));
  if (head[0] != 0 || head[1] != 0) {
    return dlua_fail(DLUA_BAD_FILE, "%s: bytes 0 and 1 are not 0: not an idx file", s->path);
  }
  DLUA_TRY(idx_dtype(s, head[2], dtype));
  if (head[3] < 1 || head[3] > DLUA_MAX_DIMS) {
    return dlua_fail(DLUA_BAD_FILE, "%s: %d dimensions at byte 3 are outside 1..%d (idx)", s->path,
                     head[3], DLUA_MAX_DIMS);
  }
  *ndim = head[3];
  DLUA_TRY(read_exactly(s, raw, 4 * (size_t)*ndim));
  for (int d = 0; d < *ndim; d++) {
    const uint8_t *b = raw + 4 * d;
    size[d] = (int64_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
  }
  return check_promise(s, *dtype, *ndim, size);
}

// Values are stored high byte first.
static void swap_bytes(uint8_t *data, int64_t count, size_t size) {
  for (int64_t k = 0; k < count; k++, data += size) {
    for (size_t i = 0; i < size / 2; i++) {
      uint8_t kept = data[i];
      data[i] = data[size - 1 - i], data[size - 1 - i] = kept;
    }
  }
}

static dlua_status idx_values(stream *s, dlua_tensor **tensor) {
  dlua_dtype dtype = DLUA_U8;
  int ndim = 0;
  int64_t size[DLUA_MAX_DIMS];
  DLUA_TRY(idx_header(s, &dtype, &ndim, size));
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_tensor_new(&x, dtype, ndim, size, dlua_cpu()));
  size_t each = dlua_dtype_size(dtype);
  dlua_status status = read_exactly(s, dlua_data(x), (size_t)dlua_numel(x) * each);
  if (status == DLUA_OK) status = expect_end(s);
  if (status == DLUA_OK) {
    if (each > 1) swap_bytes(dlua_data(x), dlua_numel(x), each);
    *tensor = x;
  } else {
    dlua_tensor_release(x);
  }
  return status;
}

dlua_status dlua_idx_read(const char *path, dlua_tensor **tensor) {
  stream s;
  dlua_status status = open_stream(&s, path);
  if (status == DLUA_OK) status = idx_values(&s, tensor);
  close_stream(&s);
  return status;
}

// ---------------------------------------------------------------- MNIST

static const char *const digits[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};

// folder/name, or folder/name.gz where only that exists.
static dlua_status read_part(const char *folder, const char *name, int ndim, dlua_tensor **x) {
  char path[4096];
  struct stat info;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (stat(path, &info) != 0) snprintf(path, sizeof path, "%s/%s.gz", folder, name);
  dlua_tensor *read = NULL;
  DLUA_TRY(dlua_idx_read(path, &read));
  if (read->dtype == DLUA_U8 && read->ndim == ndim) return *x = read, DLUA_OK;
  dlua_status status = dlua_fail(DLUA_BAD_FILE, "%s: holds %s %s, not u8 of %d dimensions", path,
                                 dlua_dtype_name(read->dtype), dlua_shape_text(read), ndim);
  dlua_tensor_release(read);
  return status;
}

// Takes the picture's block from the tensor by copying: the source frees it its own way.
static dlua_status fill_mnist(dlua_source *s, const dlua_tensor *x, const dlua_tensor *y,
                              const char *folder) {
  int64_t *labels = NULL;
  s->pictures = true, s->channels = 1, s->h = x->size[1], s->w = x->size[2];
  s->spacing = (size_t)(s->h * s->w);
  DLUA_TRY(dlua_bytes_add(&s->block, dlua_data(x), (size_t)dlua_numel(x)));
  DLUA_TRY(add_labels(s, &labels));
  for (int64_t i = 0; i < s->count; i++) {
    int label = ((const uint8_t *)dlua_data(y))[i];
    if (label > 9) {
      return dlua_fail(DLUA_BAD_FILE, "%s: label %d of example %lld is outside 0..9", folder, label,
                       (long long)i + 1);
    }
    labels[i] = label + 1;
  }
  return dlua_source_classes(s, 10, digits);
}

static dlua_status make_mnist(const char *folder, const dlua_tensor *x, const dlua_tensor *y,
                              dlua_dataset **dataset) {
  if (x->size[0] != y->size[0] || x->size[0] == 0) {
    return dlua_fail(DLUA_BAD_FILE, "%s: %lld pictures but %lld labels", folder,
                     (long long)x->size[0], (long long)y->size[0]);
  }
  dlua_source *s = NULL;
  DLUA_TRY(dlua_source_new(x->size[0], &s));
  dlua_status status = fill_mnist(s, x, y, folder);
  if (status == DLUA_OK) return dlua_dataset_new(s, dataset);
  dlua_source_release(s);
  return status;
}

dlua_status dlua_mnist_open(const char *folder, bool train, dlua_dataset **dataset) {
  dlua_tensor *x = NULL, *y = NULL;
  dlua_status status =
      read_part(folder, train ? "train-images-idx3-ubyte" : "t10k-images-idx3-ubyte", 3, &x);
  if (status == DLUA_OK) {
    status = read_part(folder, train ? "train-labels-idx1-ubyte" : "t10k-labels-idx1-ubyte", 1, &y);
  }
  if (status == DLUA_OK) status = make_mnist(folder, x, y, dataset);
  dlua_tensor_release(x);
  dlua_tensor_release(y);
  return status;
}

// ---------------------------------------------------------------- folders

// Names that grow; sorted by bytes, so that every machine sees one order.
typedef struct names {
  char **name;
  int64_t count, room;
} names;

static void free_names(names *list) {
  for (int64_t k = 0; k < list->count; k++) dlua_delete_block(list->name[k]);
  dlua_delete_block(list->name);
  *list = (names){0};
}

static dlua_status add_name(names *list, const char *name) {
  DLUA_TRY(dlua_list_grow((void **)&list->name, list->count, &list->room, sizeof *list->name));
  char *copy = dlua_new_text(name);
  if (!copy) return DLUA_NO_MEMORY;
  list->name[list->count++] = copy;
  return DLUA_OK;
}

static int by_bytes(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_png(const char *name) {
  size_t size = strlen(name);
  return size > 4 && strcasecmp(name + size - 4, ".png") == 0;
}

// The entries of a folder that do not start with a dot: sub-folders, or PNG files.
static dlua_status list_folder(const char *folder, bool folders, names *list) {
  DIR *dir = opendir(folder);
  if (!dir) return dlua_fail(DLUA_BAD_FILE, "%s: %s", folder, strerror(errno));
  dlua_status status = DLUA_OK;
  for (struct dirent *entry; status == DLUA_OK && (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (folders ? !dlua_is_folder(path) : !is_png(entry->d_name)) continue;
    status = add_name(list, folders ? entry->d_name : path);
  }
  closedir(dir);
  if (list->count > 0) qsort(list->name, (size_t)list->count, sizeof *list->name, by_bytes);
  return status;
}

// All pictures, class after class; last[k] is where class k ends.
static dlua_status list_pictures(const char *folder, const names *classes, names *pictures,
                                 int64_t *last) {
  for (int64_t k = 0; k < classes->count; k++) {
    char path[4096];
    names found = {0};
    snprintf(path, sizeof path, "%s/%s", folder, classes->name[k]);
    dlua_status status = list_folder(path, false, &found);
    for (int64_t i = 0; status == DLUA_OK && i < found.count; i++) {
      status = add_name(pictures, found.name[i]);
    }
    free_names(&found);
    DLUA_TRY(status);
    last[k] = pictures->count;
  }
  return DLUA_OK;
}

static dlua_status fill_folder(dlua_source *s, const names *classes, names *pictures,
                               const int64_t *last) {
  int64_t *labels = NULL, class = 0;
  s->slots = dlua_new((size_t)s->count * sizeof *s->slots);
  if (!s->slots) return DLUA_NO_MEMORY;
  s->pictures = true;
  for (int64_t i = 0; i < s->count; i++) {
    s->slots[i].path = pictures->name[i], pictures->name[i] = NULL; // taken over
  }
  DLUA_TRY(add_labels(s, &labels));
  for (int64_t i = 0; i < s->count; i++) {
    while (i >= last[class]) class ++;
    labels[i] = class + 1;
  }
  return dlua_source_classes(s, (int)classes->count, (const char *const *)classes->name);
}

static dlua_status make_folder(const char *folder, int channels, const names *classes,
                               names *pictures, int64_t *last, dlua_dataset **dataset) {
  if (classes->count == 0 || classes->count > 1 << 20) {
    return dlua_fail(DLUA_BAD_FILE, "%s: has no folders, one for each class", folder);
  }
  DLUA_TRY(list_pictures(folder, classes, pictures, last));
  if (pictures->count == 0) {
    return dlua_fail(DLUA_BAD_FILE, "%s: the folders of its %lld classes hold no .png file", folder,
                     (long long)classes->count);
  }
  dlua_source *s = NULL;
  DLUA_TRY(dlua_source_new(pictures->count, &s));
  s->channels = channels;
  dlua_status status = fill_folder(s, classes, pictures, last);
  if (status == DLUA_OK) return dlua_dataset_new(s, dataset);
  dlua_source_release(s);
  return status;
}

dlua_status dlua_folder_open(const char *folder, int channels, dlua_dataset **dataset) {
  names classes = {0}, pictures = {0};
  dlua_status status = list_folder(folder, true, &classes);
  size_t bytes = (size_t)(classes.count + 1) * sizeof(int64_t);
  int64_t *last = status == DLUA_OK ? dlua_new(bytes) : NULL;
  if (status == DLUA_OK && !last) status = DLUA_NO_MEMORY;
  if (status == DLUA_OK) {
    status = make_folder(folder, channels, &classes, &pictures, last, dataset);
  }
  if (last) dlua_delete(last, bytes);
  free_names(&pictures);
  free_names(&classes);
  return status;
}
