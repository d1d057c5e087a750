// io_safetensors.c - checkpoints that other programs can read and that notice damage. Writing runs
// the reader's own checks over the finished header, so nothing leaves that would not come back.
// Refused: memory mapping (a file cut short by another process would end this one) and any layout
// the format's own validation refuses: holes, overlaps, trailing bytes, duplicate names.
#include "safetensors_header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char crc_of[] = "dlua.crc32c:", same_as[] = "dlua.same:";
static const char format_key[] = "dlua.format";

// ---------------------------------------------------------------- archives

dlua_status dlua_archive_add(dlua_archive *a, const char *name, dlua_tensor *tensor) {
  DLUA_TRY(dlua_list_grow((void **)&a->item, a->count, &a->room, sizeof *a->item));
  char *copy = dlua_new_text(name);
  if (!copy) return DLUA_NO_MEMORY;
  a->item[a->count++] = (dlua_named){copy, dlua_tensor_retain(tensor)};
  return DLUA_OK;
}

dlua_status dlua_archive_note(dlua_archive *a, const char *key, const char *value) {
  DLUA_TRY(dlua_list_grow((void **)&a->pair, a->pairs, &a->pair_room, sizeof *a->pair));
  dlua_pair pair = {.key = dlua_new_text(key)};
  if (pair.key) pair.value = dlua_new_text(value);
  if (!pair.value) {
    dlua_delete_block(pair.key);
    return DLUA_NO_MEMORY;
  }
  a->pair[a->pairs++] = pair;
  return DLUA_OK;
}

void dlua_archive_free(dlua_archive *a) {
  for (int64_t k = 0; k < a->count; k++) {
    dlua_delete_block(a->item[k].name);
    dlua_tensor_release(a->item[k].tensor);
  }
  for (int64_t k = 0; k < a->pairs; k++) {
    dlua_delete_block(a->pair[k].key), dlua_delete_block(a->pair[k].value);
  }
  dlua_delete_block(a->item), dlua_delete_block(a->pair);
  *a = (dlua_archive){0};
}

// ---------------------------------------------------------------- reading

static dlua_status read_header(dlua_header *h, const dlua_reader *r) {
  uint8_t raw[8];
  uint64_t size = 0;
  if (r->size < 8) {
    return dlua_fail(DLUA_BAD_FILE, "%s: %llu bytes are no safetensors file", h->path,
                     (unsigned long long)r->size);
  }
  DLUA_TRY(dlua_reader_at(r, 0, raw, 8));
  for (int k = 7; k >= 0; k--) size = size << 8 | raw[k];
  if (size > DLUA_MAX_HEADER || size > r->size - 8) {
    return dlua_fail(
        DLUA_BAD_FILE, "%s: a header of %llu bytes does not fit (file %llu, limit %d; safetensors)",
        h->path, (unsigned long long)size, (unsigned long long)r->size, DLUA_MAX_HEADER);
  }
  DLUA_TRY(dlua_bytes_reserve(&h->text, (size_t)size));
  DLUA_TRY(dlua_reader_at(r, 8, h->text.data, (size_t)size));
  h->text.size = (size_t)size;
  DLUA_TRY(dlua_header_parse(h));
  DLUA_TRY(dlua_header_check_sum(h));
  return dlua_header_check(h, r->size - 8 - size);
}

static dlua_status check_booleans(const dlua_header *h, const dlua_entry *e, const uint8_t *value) {
  for (uint64_t k = 0; k < e->to - e->from; k++) {
    if (value[k] <= 1) continue;
    return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s: byte %llu of the data is %d, not a boolean",
                     h->path, e->name.raw, (unsigned long long)(e->from + k), value[k]);
  }
  return DLUA_OK;
}

static dlua_status check_values(const dlua_header *h, const dlua_entry *e, const void *data) {
  const char *stored = dlua_header_note(h, crc_of, e->name.raw);
  uint32_t crc = h->crc_at > 0 ? dlua_crc32c(0, data, (size_t)(e->to - e->from)) : 0;
  char digits[9], what[200];
  snprintf(digits, sizeof digits, "%08x", crc);
  snprintf(what, sizeof what, "tensor %.180s", e->name.raw);
  if (h->crc_at > 0 && (!stored || strcmp(stored, digits) != 0)) {
    return dlua_header_wrong_sum(h->path, what, stored ? stored : "none", crc);
  }
  return e->dtype == DLUA_BOOL ? check_booleans(h, e, data) : DLUA_OK;
}

static dlua_status read_entry(const dlua_header *h, const dlua_reader *r, const dlua_entry *e,
                              dlua_archive *a) {
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_tensor_new(&x, e->dtype, e->ndim, e->size, dlua_cpu()));
  uint64_t start = 8 + h->text.size + e->from;
  dlua_status status = dlua_reader_at(r, start, dlua_data(x), (size_t)(e->to - e->from));
  if (status == DLUA_OK) status = check_values(h, e, dlua_data(x));
  if (status == DLUA_OK) status = dlua_archive_add(a, e->name.raw, x);
  dlua_tensor_release(x);
  return status;
}

// The user's own pairs, and the names under which a tensor appears once more: items of a are the
// entries in their order.
static dlua_status read_metadata(const dlua_header *h, dlua_archive *a) {
  for (int64_t k = 0; k < h->notes; k++) {
    char *key = h->note[k].key.raw, *value = h->note[k].value.raw;
    if (strncmp(key, same_as, sizeof same_as - 1) == 0) {
      char *name = key + sizeof same_as - 1;
      const dlua_entry *e = dlua_header_entry(h, value);
      if (!e || dlua_header_entry(h, name)) {
        return dlua_fail(DLUA_BAD_FILE, "%s: %s cannot be the same as %s", h->path, name, value);
      }
      DLUA_TRY(dlua_archive_add(a, name, a->item[e - h->entry].tensor));
    } else if (strncmp(key, "dlua.", 5) != 0) {
      DLUA_TRY(dlua_archive_note(a, key, value));
    }
  }
  return DLUA_OK;
}

static dlua_status read_archive(const dlua_reader *r, dlua_archive *a) {
  dlua_header h = {.path = r->path};
  dlua_status status = read_header(&h, r);
  for (int64_t k = 0; k < h.count && status == DLUA_OK; k++) {
    status = read_entry(&h, r, &h.entry[k], a);
  }
  if (status == DLUA_OK) status = read_metadata(&h, a);
  dlua_header_free(&h);
  return status;
}

dlua_status dlua_safetensors_read(const char *path, dlua_archive *a) {
  dlua_reader r;
  *a = (dlua_archive){0};
  DLUA_TRY(dlua_reader_open(&r, path));
  dlua_status status = read_archive(&r, a);
  dlua_reader_close(&r);
  if (status != DLUA_OK) dlua_archive_free(a);
  return status;
}

// ---------------------------------------------------------------- writing

typedef struct draft {
  const char *path;
  const dlua_archive *archive;
  const dlua_named **order; // as written; tied ones after their first
  int64_t *same;            // of each in order: place of the one it equals, or -1
  dlua_bytes text;
} draft;

static int by_size_and_name(const void *a, const void *b) {
  const dlua_named *x = *(const dlua_named *const *)a, *y = *(const dlua_named *const *)b;
  size_t sx = dlua_dtype_size(x->tensor->dtype), sy = dlua_dtype_size(y->tensor->dtype);
  if (sx != sy) return sx > sy ? -1 : 1; // wide values first, so that all are aligned
  return strcmp(x->name, y->name);
}

static bool same_elements(const dlua_tensor *x, const dlua_tensor *y) {
  return x->storage == y->storage && x->offset == y->offset && x->dtype == y->dtype &&
         x->storage->layout == y->storage->layout && dlua_same_shape(x, y) && dlua_numel(x) > 0 &&
         memcmp(x->stride, y->stride, (size_t)x->ndim * sizeof *x->stride) == 0;
}

static void arrange(draft *d) {
  int64_t n = d->archive->count;
  for (int64_t k = 0; k < n; k++) d->order[k] = &d->archive->item[k];
  if (n > 0) qsort(d->order, (size_t)n, sizeof *d->order, by_size_and_name);
  for (int64_t k = 0; k < n; k++) {
    d->same[k] = -1;
    for (int64_t i = 0; i < k && d->same[k] < 0; i++) {
      bool tied = d->same[i] < 0 && same_elements(d->order[i]->tensor, d->order[k]->tensor);
      if (tied) d->same[k] = i;
    }
  }
}

// A tensor's bytes on the host, one tensor at a time.
static dlua_status host_copy(const dlua_tensor *x, dlua_tensor **flat) {
  dlua_tensor *host = NULL;
  DLUA_TRY(dlua_to_device(x, dlua_cpu(), &host));
  dlua_status status = dlua_contiguous(host, flat);
  dlua_tensor_release(host);
  return status;
}

static size_t bytes_of(const dlua_tensor *x) {
  return (size_t)dlua_numel(x) * dlua_dtype_size(x->dtype);
}

static dlua_status add_text(draft *d, const char *text) {
  return dlua_bytes_add(&d->text, text, strlen(text));
}

// ,"prefix name":"value"
static dlua_status add_pair(draft *d, const char *prefix, const char *name, const char *value) {
  dlua_bytes key = {0};
  dlua_status status = dlua_bytes_add(&key, prefix, strlen(prefix));
  if (status == DLUA_OK) status = dlua_bytes_add(&key, name, strlen(name));
  if (status == DLUA_OK) status = add_text(d, ",");
  if (status == DLUA_OK) status = dlua_json_write(&d->text, (const char *)key.data, key.size);
  if (status == DLUA_OK) status = add_text(d, ":");
  if (status == DLUA_OK) status = dlua_json_write(&d->text, value, strlen(value));
  dlua_bytes_free(&key);
  return status;
}

static dlua_status add_sum(draft *d, const dlua_named *item) {
  dlua_tensor *flat = NULL;
  char digits[9];
  DLUA_TRY(host_copy(item->tensor, &flat));
  snprintf(digits, sizeof digits, "%08x", dlua_crc32c(0, dlua_data(flat), bytes_of(flat)));
  dlua_tensor_release(flat);
  return add_pair(d, crc_of, item->name, digits);
}

static dlua_status add_metadata(draft *d) {
  DLUA_TRY(add_text(d, "{\"__metadata__\":{\"dlua.crc32c\":\"        \""));
  DLUA_TRY(add_pair(d, format_key, "", "1"));
  for (int64_t k = 0; k < d->archive->count; k++) {
    const dlua_named *item = d->order[k];
    DLUA_TRY(d->same[k] < 0 ? add_sum(d, item)
                            : add_pair(d, same_as, item->name, d->order[d->same[k]]->name));
  }
  for (int64_t k = 0; k < d->archive->pairs; k++) {
    const dlua_pair *pair = &d->archive->pair[k];
    if (strncmp(pair->key, "dlua.", 5) == 0) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "save: metadata key %s: names with dlua. are dlua's own",
                       pair->key);
    }
    DLUA_TRY(add_pair(d, pair->key, "", pair->value));
  }
  return add_text(d, "}");
}

static dlua_status add_entry(draft *d, const dlua_named *item, uint64_t *at) {
  char part[64];
  const dlua_tensor *x = item->tensor;
  DLUA_TRY(add_text(d, ","));
  DLUA_TRY(dlua_json_write(&d->text, item->name, strlen(item->name)));
  snprintf(part, sizeof part, ":{\"dtype\":\"%s\",\"shape\":[", dlua_safetensors_dtypes[x->dtype]);
  DLUA_TRY(add_text(d, part));
  for (int k = 0; k < x->ndim; k++) {
    snprintf(part, sizeof part, k > 0 ? ",%lld" : "%lld", (long long)x->size[k]);
    DLUA_TRY(add_text(d, part));
  }
  uint64_t end = *at + bytes_of(x);
  snprintf(part, sizeof part, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at,
           (unsigned long long)end);
  *at = end;
  return add_text(d, part);
}

// Checks a copy of what was written as a reader would; *crc becomes its sum.
static dlua_status check_copy(dlua_header *h, const dlua_bytes *text, uint64_t size,
                              uint32_t *crc) {
  DLUA_TRY(dlua_bytes_add(&h->text, text->data, text->size));
  DLUA_TRY(dlua_header_parse(h));
  *crc = dlua_header_sum(h);
  return dlua_header_check(h, size);
}

// Ends the header and puts its sum in.
static dlua_status finish_text(draft *d, uint64_t size) {
  uint32_t crc = 0;
  char digits[9];
  DLUA_TRY(add_text(d, "}"));
  while (d->text.size % 8 != 0) DLUA_TRY(add_text(d, " "));
  if (d->text.size > DLUA_MAX_HEADER) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: a header of %zu bytes is above the limit of %d",
                     d->path, d->text.size, DLUA_MAX_HEADER);
  }
  dlua_header h = {.path = d->path};
  dlua_status status = check_copy(&h, &d->text, size, &crc);
  snprintf(digits, sizeof digits, "%08x", crc);
  if (status == DLUA_OK) memcpy(d->text.data + h.crc_at, digits, 8);
  dlua_header_free(&h);
  return status;
}

static dlua_status write_values(const draft *d, dlua_writer *w) {
  uint8_t size[8];
  for (int k = 0; k < 8; k++) size[k] = (uint8_t)((uint64_t)d->text.size >> (8 * k));
  DLUA_TRY(dlua_writer_add(w, size, 8));
  DLUA_TRY(dlua_writer_add(w, d->text.data, d->text.size));
  for (int64_t k = 0; k < d->archive->count; k++) {
    dlua_tensor *flat = NULL;
    if (d->same[k] >= 0) continue;
    DLUA_TRY(host_copy(d->order[k]->tensor, &flat));
    dlua_status status = dlua_writer_add(w, dlua_data(flat), bytes_of(flat));
    dlua_tensor_release(flat);
    DLUA_TRY(status);
  }
  return DLUA_OK;
}

static dlua_status write_draft(draft *d) {
  uint64_t at = 0;
  arrange(d);
  DLUA_TRY(add_metadata(d));
  for (int64_t k = 0; k < d->archive->count; k++) {
    if (d->same[k] < 0) DLUA_TRY(add_entry(d, d->order[k], &at));
  }
  DLUA_TRY(finish_text(d, at));
  dlua_writer w;
  DLUA_TRY(dlua_writer_open(&w, d->path));
  dlua_status status = write_values(d, &w);
  if (status == DLUA_OK) return dlua_writer_commit(&w);
  dlua_writer_cancel(&w);
  return status;
}

dlua_status dlua_safetensors_write(const char *path, const dlua_archive *a) {
  size_t n = (size_t)a->count;
  draft d = {.path = path, .archive = a};
  d.order = dlua_new_block(n * sizeof *d.order);
  d.same = d.order ? dlua_new_block(n * sizeof *d.same) : NULL;
  dlua_status status = d.same ? write_draft(&d) : DLUA_NO_MEMORY;
  dlua_delete_block(d.order), dlua_delete_block(d.same);
  dlua_bytes_free(&d.text);
  return status;
}
