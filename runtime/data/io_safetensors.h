// io_safetensors.h - tensors by name in one file, strictly as the safetensors format wants them.
//
//   dlua_archive a;
//   DLUA_TRY(dlua_safetensors_read("net.safetensors", &a));
//   … a.item[k].name, a.item[k].tensor, a.pair[k].key, a.pair[k].value …
//   dlua_archive_free(&a);
//
// A file is 8 bytes of header size, a JSON header, and the values without holes; anything else is
// refused. dlua's own files carry in __metadata__ a CRC-32C of the header ("dlua.crc32c", computed
// with its eight digits blank) and of every tensor ("dlua.crc32c:NAME"), which are checked when
// present. Tensors that share all their elements are stored once; "dlua.same:NAME" says as which.
#ifndef DLUA_IO_SAFETENSORS_H
#define DLUA_IO_SAFETENSORS_H

#include "file.h"

// Of one file. A tensor or pair costs a hundred times the bytes that it takes to write one down, so
// their number is what bounds the memory that a header can ask for.
#define DLUA_MAX_HEADER 100000000
#define DLUA_MAX_TENSORS (1 << 16)
#define DLUA_MAX_PAIRS (1 << 17)

typedef struct dlua_named {
  char *name;
  dlua_tensor *tensor;
} dlua_named;

typedef struct dlua_pair {
  char *key, *value;
} dlua_pair;

// What a file holds: tensors in the order of their bytes, metadata in the order of its keys without
// dlua's own.
typedef struct dlua_archive {
  dlua_named *item;
  int64_t count, room;
  dlua_pair *pair;
  int64_t pairs, pair_room;
} dlua_archive;

// Adds a tensor (retained) or a pair of texts (copied).
dlua_status dlua_archive_add(dlua_archive *a, const char *name, dlua_tensor *tensor);
dlua_status dlua_archive_note(dlua_archive *a, const char *key, const char *value);
void dlua_archive_free(dlua_archive *a);

// Writes an archive; path has its old content or all of the new one at any time. Tensors on other
// devices and views are copied one at a time. Keys that start with "dlua." are refused.
dlua_status dlua_safetensors_write(const char *path, const dlua_archive *a);
// Reads a file into an empty archive; caller frees it. On failure it is empty.
dlua_status dlua_safetensors_read(const char *path, dlua_archive *a);

#endif
