// file.c - whole files. Data sets of 50 000 small files are read through here, so one file costs
// open, fstat, read, close and no allocation. Refused: mmap, because a file cut short by another
// process would end this one with SIGBUS.
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---------------------------------------------------------------- bytes

dlua_status dlua_bytes_reserve(dlua_bytes *bytes, size_t capacity) {
  if (capacity <= bytes->capacity) return DLUA_OK;
  if (bytes->size > 0 && capacity < 2 * bytes->capacity) capacity = 2 * bytes->capacity;
  void *data = NULL;
  DLUA_TRY(dlua_alloc(dlua_cpu(), capacity, &data));
  if (bytes->size > 0) memcpy(data, bytes->data, bytes->size);
  if (bytes->data) dlua_free(dlua_cpu(), bytes->data, bytes->capacity);
  bytes->data = data, bytes->capacity = capacity;
  return DLUA_OK;
}

dlua_status dlua_bytes_add(dlua_bytes *bytes, const void *data, size_t size) {
  DLUA_TRY(dlua_bytes_reserve(bytes, bytes->size + size));
  if (size > 0) memcpy(bytes->data + bytes->size, data, size);
  bytes->size += size;
  return DLUA_OK;
}

void dlua_bytes_free(dlua_bytes *bytes) {
  if (bytes->data) dlua_free(dlua_cpu(), bytes->data, bytes->capacity);
  *bytes = (dlua_bytes){0};
}

dlua_status dlua_list_grow(void **list, int64_t count, int64_t *room, size_t each) {
  if (count < *room) return DLUA_OK;
  int64_t wanted = *room > 0 ? 2 * *room : 32;
  void *grown = dlua_new_block((size_t)wanted * each);
  if (!grown) return DLUA_NO_MEMORY;
  if (count > 0) memcpy(grown, *list, (size_t)count * each);
  dlua_delete_block(*list);
  *list = grown, *room = wanted;
  return DLUA_OK;
}

// ---------------------------------------------------------------- reading

static dlua_status system_error(const char *path) {
  return dlua_fail(DLUA_BAD_FILE, "%s: %s", path, strerror(errno));
}

bool dlua_is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static dlua_status check_regular(dlua_reader *r) {
  struct stat info;
  if (fstat(r->fd, &info) != 0) return system_error(r->path);
  if (S_ISDIR(info.st_mode)) {
    return dlua_fail(DLUA_BAD_FILE, "%s: is a folder, not a file", r->path);
  }
  if (!S_ISREG(info.st_mode)) {
    return dlua_fail(DLUA_BAD_FILE, "%s: is not a regular file", r->path);
  }
  r->size = (uint64_t)info.st_size;
  return DLUA_OK;
}

dlua_status dlua_reader_open(dlua_reader *r, const char *path) {
  *r = (dlua_reader){.path = path};
  r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // O_NONBLOCK: a pipe must not hang us
  if (r->fd < 0) return system_error(path);
  dlua_status status = check_regular(r);
  if (status != DLUA_OK) dlua_reader_close(r);
  return status;
}

dlua_status dlua_reader_at(const dlua_reader *r, uint64_t offset, void *data, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t count = pread(r->fd, (char *)data + at, size - at, (off_t)(offset + at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return system_error(r->path);
    if (count == 0) {
      return dlua_fail(DLUA_BAD_FILE, "%s: ends at byte %llu where byte %llu was expected", r->path,
                       (unsigned long long)(offset + at), (unsigned long long)(offset + size));
    }
    at += (size_t)count;
  }
  return DLUA_OK;
}

void dlua_reader_close(dlua_reader *r) {
  if (r->fd >= 0) close(r->fd);
  r->fd = -1;
}

static dlua_status read_whole(const dlua_reader *r, size_t limit, dlua_bytes *bytes) {
  if (r->size > limit) {
    return dlua_fail(DLUA_BAD_FILE, "%s: has %llu bytes, more than the limit of %zu", r->path,
                     (unsigned long long)r->size, limit);
  }
  bytes->size = 0;
  DLUA_TRY(dlua_bytes_reserve(bytes, (size_t)r->size));
  DLUA_TRY(dlua_reader_at(r, 0, bytes->data, (size_t)r->size));
  bytes->size = (size_t)r->size;
  return DLUA_OK;
}

dlua_status dlua_file_read(const char *path, size_t limit, dlua_bytes *bytes) {
  dlua_reader r;
  DLUA_TRY(dlua_reader_open(&r, path));
  dlua_status status = read_whole(&r, limit, bytes);
  dlua_reader_close(&r);
  return status;
}

// ---------------------------------------------------------------- writing

// path's folder: everything up to the last slash, or "."; path loses what follows it.
static const char *folder_of(char *path) {
  char *slash = strrchr(path, '/');
  if (!slash) return ".";
  if (slash == path) return "/";
  *slash = 0;
  return path;
}

dlua_status dlua_writer_open(dlua_writer *w, const char *path) {
  static atomic_uint serial;
  *w = (dlua_writer){.fd = -1};
  size_t size = strlen(path) + 40;
  w->path = dlua_new_text(path);
  char *temporary = w->path ? dlua_new_block(size) : NULL;
  if (!temporary) {
    dlua_writer_cancel(w);
    return DLUA_NO_MEMORY;
  }
  snprintf(temporary, size, "%s.%ld.%u.part", path, (long)getpid(), atomic_fetch_add(&serial, 1));
  w->fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (w->fd >= 0) return w->temporary = temporary, DLUA_OK;
  dlua_status status = system_error(path);
  dlua_delete_block(temporary); // the file of that name is not ours to remove
  dlua_writer_cancel(w);
  return status;
}

static dlua_status write_error(const dlua_writer *w) {
  const char *why = strerror(errno);
  return dlua_fail(DLUA_BAD_FILE, "%s: %s after %llu bytes (the file that was there is untouched)",
                   w->path, why, (unsigned long long)w->written);
}

dlua_status dlua_writer_add(dlua_writer *w, const void *data, size_t size) {
  for (const uint8_t *at = data; size > 0;) {
    ssize_t count = write(w->fd, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return write_error(w);
    at += count, size -= (size_t)count, w->written += (uint64_t)count;
  }
  return DLUA_OK;
}

// A rename is only on the disk once its folder is. Folders that cannot be synced (some network file
// systems say EINVAL) are left to the system.
static void sync_folder(char *path) {
  int fd = open(folder_of(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) fsync(fd), close(fd);
}

dlua_status dlua_writer_commit(dlua_writer *w) {
  dlua_status status = w->quick || fsync(w->fd) == 0 ? DLUA_OK : write_error(w);
  if (close(w->fd) != 0 && status == DLUA_OK) status = write_error(w);
  w->fd = -1;
  if (status == DLUA_OK && rename(w->temporary, w->path) != 0) status = write_error(w);
  if (status == DLUA_OK) {
    if (!w->quick) sync_folder(w->path);
    dlua_delete_block(w->temporary), w->temporary = NULL;
  }
  dlua_writer_cancel(w);
  return status;
}

void dlua_writer_cancel(dlua_writer *w) {
  if (w->fd >= 0) close(w->fd);
  if (w->temporary) unlink(w->temporary);
  dlua_delete_block(w->temporary), dlua_delete_block(w->path);
  *w = (dlua_writer){.fd = -1};
}

dlua_status dlua_file_write(const char *path, const void *data, size_t size) {
  dlua_writer w;
  DLUA_TRY(dlua_writer_open(&w, path));
  w.quick = true;
  dlua_status status = dlua_writer_add(&w, data, size);
  if (status == DLUA_OK) return dlua_writer_commit(&w);
  dlua_writer_cancel(&w);
  return status;
}
