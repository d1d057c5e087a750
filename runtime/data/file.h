// file.h - whole files in and out, the only way dlua's readers and writers touch the disk.
//
//   dlua_bytes bytes = {0};
//   DLUA_TRY(dlua_file_read("net.npy", 1 << 30, &bytes));
//   … bytes.data[0 … bytes.size) …
//   dlua_bytes_free(&bytes);
//
// Reading refuses folders, devices and files above a limit before it allocates. Writing replaces: a
// reader of the path sees the old content or the new one, never a part.
#ifndef DLUA_FILE_H
#define DLUA_FILE_H

#include "../dlua.h"

// A block that grows and is used again; all zero is an empty one.
typedef struct dlua_bytes {
  uint8_t *data;
  size_t size, capacity;
} dlua_bytes;

// Makes room for capacity bytes; content up to size is kept.
dlua_status dlua_bytes_reserve(dlua_bytes *bytes, size_t capacity);
dlua_status dlua_bytes_add(dlua_bytes *bytes, const void *data, size_t size);
void dlua_bytes_free(dlua_bytes *bytes);

// Makes room for one more item in a list of count, which dlua_delete_block frees.
dlua_status dlua_list_grow(void **list, int64_t count, int64_t *room, size_t each);

// Reads a regular file of at most limit bytes into bytes, in place of what was there.
dlua_status dlua_file_read(const char *path, size_t limit, dlua_bytes *bytes);
bool dlua_is_folder(const char *path);

// A file read in parts.
typedef struct dlua_reader {
  int fd;
  const char *path; // borrowed
  uint64_t size;
} dlua_reader;

dlua_status dlua_reader_open(dlua_reader *r, const char *path);
// Reads exactly size bytes at an offset; a file that ends before fails with both numbers.
dlua_status dlua_reader_at(const dlua_reader *r, uint64_t offset, void *data, size_t size);
void dlua_reader_close(dlua_reader *r); // fine on one that is not open

// A file being written beside the one that it will replace.
typedef struct dlua_writer {
  int fd;
  char *path, *temporary;
  uint64_t written;
  bool quick; // not synced to the disk: for what can be made again, thousands at a time
} dlua_writer;

// Opens path's stand-in (same folder, O_EXCL). On failure nothing is left behind.
dlua_status dlua_writer_open(dlua_writer *w, const char *path);
dlua_status dlua_writer_add(dlua_writer *w, const void *data, size_t size);
// fsync, rename, fsync of the folder. Ends the writer either way; after a failure the old file is
// untouched and the stand-in gone.
dlua_status dlua_writer_commit(dlua_writer *w);
// Ends the writer and leaves the old file as it was; fine on one that is already ended.
void dlua_writer_cancel(dlua_writer *w);
// All of it for one block, quick: whole or not there, but the system decides when it is on the
// disk.
dlua_status dlua_file_write(const char *path, const void *data, size_t size);

// CRC-32C (Castagnoli) of data, going on from crc (0 to start).
uint32_t dlua_crc32c(uint32_t crc, const void *data, size_t size);

#endif
