// io_safetensors.c - checkpoints that other programs can read and that notice damage. Writing runs
// the reader's own checks over the finished header, so nothing leaves that would not come back.
// Refused: memory mapping (a file cut short by another process would end this one) and any layout
// the format's own validation refuses: holes, overlaps, trailing bytes, duplicate names.
#include "io_safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static const char crc_key[] = "dlua.crc32c", crc_of[] = "dlua.crc32c:", same_as[] = "dlua.same:";
static const char format_key[] = "dlua.format";

static const char *const dtype_names[DLUA_DTYPES] = {"F32", "F64", "BF16", "F16",
                                                     "I64", "I32", "U8",   "BOOL"};

// ---------------------------------------------------------------- archives

static dlua_status no_memory(void) { return dlua_fail(DLUA_NO_MEMORY, "out of memory"); }

static bool grow(void **list, int64_t count, int64_t *room, size_t each) {
  if (count < *room) return true;
  int64_t wanted = *room > 0 ? 2 * *room : 32;
  void *grown = realloc(*list, (size_t)wanted * each);
  if (!grown) return false;
  *list = grown, *room = wanted;
  return true;
}

dlua_status dlua_archive_add(dlua_archive *a, const char *name, dlua_tensor *tensor) {
  if (!grow((void **)&a->item, a->count, &a->room, sizeof *a->item)) return no_memory();
  char *copy = strdup(name);
  if (!copy) return no_memory();
  a->item[a->count++] = (dlua_named){copy, dlua_tensor_retain(tensor)};
  return DLUA_OK;
}

dlua_status dlua_archive_note(dlua_archive *a, const char *key, const char *value) {
  if (!grow((void **)&a->pair, a->pairs, &a->pair_room, sizeof *a->pair)) return no_memory();
  dlua_pair pair = {strdup(key), strdup(value)};
  if (!pair.key || !pair.value) {
    free(pair.key), free(pair.value);
    return no_memory();
  }
  a->pair[a->pairs++] = pair;
  return DLUA_OK;
}

void dlua_archive_free(dlua_archive *a) {
  for (int64_t k = 0; k < a->count; k++) {
    free(a->item[k].name);
    dlua_tensor_release(a->item[k].tensor);
  }
  for (int64_t k = 0; k < a->pairs; k++) free(a->pair[k].key), free(a->pair[k].value);
  free(a->item), free(a->pair);
  *a = (dlua_archive){0};
}

// ---------------------------------------------------------------- the header, parsed

typedef struct entry { // one tensor as the header describes it
  char *name;
  dlua_dtype dtype;
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  uint64_t from, to; // in the data
} entry;

typedef struct header {
  const char *path;
  dlua_bytes text;
  entry *entry;
  int64_t count, room;
  dlua_archive meta; // pairs only
  size_t crc_at;     // where the header's own sum stands in text, 0: it has none
  dlua_text key, value;
} header;

static void free_header(header *h) {
  for (int64_t k = 0; k < h->count; k++) free(h->entry[k].name);
  free(h->entry);
  dlua_archive_free(&h->meta);
  dlua_bytes_free(&h->text);
  dlua_bytes_free(&h->key.bytes);
  dlua_bytes_free(&h->value.bytes);
}

static dlua_status malformed(const header *h, const dlua_json *j, const char *expected) {
  return dlua_fail(DLUA_BAD_FILE, "%s: byte %zu of the header: %s expected (safetensors)", h->path,
                   8 + (size_t)(j->at - (const char *)h->text.data), expected);
}

static dlua_status parse_metadata(header *h, dlua_json *j) {
  if (!dlua_json_take(j, '{')) return malformed(h, j, "{");
  if (dlua_json_take(j, '}')) return DLUA_OK;
  do {
    if (!dlua_json_string(j, &h->key)) return malformed(h, j, "a string");
    if (!dlua_json_take(j, ':')) return malformed(h, j, ":");
    if (!dlua_json_string(j, &h->value)) return malformed(h, j, "a string");
    const char *key = (const char *)h->key.bytes.data, *value = (const char *)h->value.bytes.data;
    DLUA_TRY(dlua_archive_note(&h->meta, key, value));
    if (strcmp(key, crc_key) != 0) continue;
    if (h->value.raw_size != 8) return malformed(h, j, "a sum of 8 digits");
    h->crc_at = (size_t)(h->value.raw - (const char *)h->text.data);
  } while (dlua_json_take(j, ','));
  return dlua_json_take(j, '}') ? DLUA_OK : malformed(h, j, "} or ,");
}

static dlua_status parse_dtype(header *h, dlua_json *j, entry *e) {
  if (!dlua_json_string(j, &h->value)) return malformed(h, j, "a dtype");
  for (int k = 0; k < DLUA_DTYPES; k++) {
    if (strcmp((const char *)h->value.bytes.data, dtype_names[k]) != 0) continue;
    e->dtype = (dlua_dtype)k;
    return DLUA_OK;
  }
  return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s is of dtype %.20s, which dlua does not have",
                   h->path, e->name, (const char *)h->value.bytes.data);
}

static dlua_status parse_shape(header *h, dlua_json *j, entry *e) {
  uint64_t size;
  if (!dlua_json_take(j, '[')) return malformed(h, j, "[");
  if (dlua_json_take(j, ']')) return DLUA_OK;
  do {
    if (!dlua_json_integer(j, &size)) return malformed(h, j, "a size");
    if (e->ndim == DLUA_MAX_DIMS) {
      return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s has more than %d dimensions", h->path, e->name,
                       DLUA_MAX_DIMS);
    }
    e->size[e->ndim++] = (int64_t)size;
  } while (dlua_json_take(j, ','));
  return dlua_json_take(j, ']') ? DLUA_OK : malformed(h, j, "] or ,");
}

static dlua_status parse_offsets(header *h, dlua_json *j, entry *e) {
  bool good = dlua_json_take(j, '[') && dlua_json_integer(j, &e->from) && dlua_json_take(j, ',') &&
              dlua_json_integer(j, &e->to) && dlua_json_take(j, ']');
  return good ? DLUA_OK : malformed(h, j, "[from, to]");
}

static dlua_status parse_entry(header *h, dlua_json *j, entry *e) {
  static const char *const keys[] = {"dtype", "shape", "data_offsets"};
  static dlua_status (*const parse[])(header *, dlua_json *, entry *) = {parse_dtype, parse_shape,
                                                                         parse_offsets};
  int seen = 0;
  if (!dlua_json_take(j, '{')) return malformed(h, j, "{");
  do {
    if (!dlua_json_string(j, &h->key)) return malformed(h, j, "dtype, shape or data_offsets");
    int k = 0;
    while (k < 3 && strcmp((const char *)h->key.bytes.data, keys[k]) != 0) k++;
    if (k == 3 || (seen & 1 << k)) return malformed(h, j, "dtype, shape and data_offsets, once");
    if (!dlua_json_take(j, ':')) return malformed(h, j, ":");
    DLUA_TRY(parse[k](h, j, e));
    seen |= 1 << k;
  } while (dlua_json_take(j, ','));
  if (seen != 7) return malformed(h, j, "dtype, shape and data_offsets");
  return dlua_json_take(j, '}') ? DLUA_OK : malformed(h, j, "} or ,");
}

static dlua_status parse_member(header *h, dlua_json *j) {
  if (!dlua_json_string(j, &h->key)) return malformed(h, j, "a name");
  const char *name = (const char *)h->key.bytes.data;
  if (strlen(name) != h->key.bytes.size) return malformed(h, j, "a name without zero bytes");
  if (!dlua_json_take(j, ':')) return malformed(h, j, ":");
  if (strcmp(name, "__metadata__") == 0) {
    return h->meta.pairs > 0 ? malformed(h, j, "one __metadata__") : parse_metadata(h, j);
  }
  if (!grow((void **)&h->entry, h->count, &h->room, sizeof *h->entry)) return no_memory();
  entry *e = &h->entry[h->count];
  *e = (entry){.name = strdup(name)};
  if (!e->name) return no_memory();
  h->count++;
  return parse_entry(h, j, e);
}

static dlua_status parse_text(header *h) {
  dlua_json j = {(const char *)h->text.data, (const char *)h->text.data + h->text.size};
  if (j.at == j.end || *j.at != '{') return malformed(h, &j, "{");
  j.at++;
  if (!dlua_json_take(&j, '}')) {
    do DLUA_TRY(parse_member(h, &j));
    while (dlua_json_take(&j, ','));
    if (!dlua_json_take(&j, '}')) return malformed(h, &j, "} or ,");
  }
  while (j.at < j.end && *j.at == ' ') j.at++;
  return j.at == j.end ? DLUA_OK : malformed(h, &j, "nothing but spaces");
}

// ---------------------------------------------------------------- the header, checked

static int by_place(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->from != y->from) return x->from < y->from ? -1 : 1;
  return x->to < y->to ? -1 : x->to > y->to;
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

// Fails when two of n names are the same; they are what stride bytes apart from first on point to.
static dlua_status check_names(const header *h, const void *first, int64_t n, size_t stride) {
  char **names = malloc((size_t)(n + 1) * sizeof *names);
  if (!names) return no_memory();
  for (int64_t k = 0; k < n; k++)
    names[k] = *(char *const *)((const char *)first + k * (int64_t)stride);
  qsort(names, (size_t)n, sizeof *names, by_text);
  dlua_status status = DLUA_OK;
  for (int64_t k = 1; k < n && status == DLUA_OK; k++) {
    if (strcmp(names[k - 1], names[k]) != 0) continue;
    status = dlua_fail(DLUA_BAD_FILE, "%s: %s appears twice (safetensors)", h->path, names[k]);
  }
  free(names);
  return status;
}

static dlua_status check_entry(const header *h, const entry *e, uint64_t expected) {
  size_t bytes = 0;
  bool fits = dlua_shape_bytes(e->dtype, e->ndim, e->size, &bytes);
  if (e->from != expected) {
    return dlua_fail(DLUA_BAD_FILE,
                     "%s: tensor %s starts at byte %llu of the data where %llu was expected "
                     "(safetensors)",
                     h->path, e->name, (unsigned long long)e->from, (unsigned long long)expected);
  }
  if (fits && e->to >= e->from && e->to - e->from == bytes) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s %s of %s does not take %lld bytes (safetensors)",
                   h->path, e->name, dlua_sizes_text(e->ndim, e->size), dtype_names[e->dtype],
                   (long long)(e->to - e->from));
}

// Names once, values one after the other from 0 to size.
static dlua_status check_layout(header *h, uint64_t size) {
  uint64_t expected = 0;
  if (h->count > 0) qsort(h->entry, (size_t)h->count, sizeof *h->entry, by_place);
  for (int64_t k = 0; k < h->count; k++) {
    DLUA_TRY(check_entry(h, &h->entry[k], expected));
    expected = h->entry[k].to;
  }
  if (expected != size) {
    return dlua_fail(DLUA_BAD_FILE, "%s: tensors take %llu bytes, the file has %llu (safetensors)",
                     h->path, (unsigned long long)expected, (unsigned long long)size);
  }
  DLUA_TRY(check_names(h, h->entry, h->count, sizeof *h->entry));
  return check_names(h, h->meta.pair, h->meta.pairs, sizeof *h->meta.pair);
}

static const char *find_pair(const dlua_archive *meta, const char *prefix, const char *name) {
  size_t size = strlen(prefix);
  for (int64_t k = 0; k < meta->pairs; k++) {
    const char *key = meta->pair[k].key;
    if (strncmp(key, prefix, size) == 0 && strcmp(key + size, name) == 0) {
      return meta->pair[k].value;
    }
  }
  return NULL;
}

static uint32_t header_crc(const header *h) {
  uint32_t crc = dlua_crc32c(0, h->text.data, h->crc_at);
  crc = dlua_crc32c(crc, "        ", 8);
  return dlua_crc32c(crc, h->text.data + h->crc_at + 8, h->text.size - h->crc_at - 8);
}

static dlua_status wrong_sum(const char *path, const char *what, const char *stored, uint32_t crc) {
  return dlua_fail(DLUA_BAD_FILE, "%s: %s is damaged: CRC-32C is %08x, %.8s was stored", path, what,
                   crc, stored);
}

// A header that has anything of dlua's must have its sum, or a damaged key would switch it off.
static dlua_status check_header_sum(const header *h) {
  if (h->crc_at == 0) {
    for (int64_t k = 0; k < h->meta.pairs; k++) {
      if (strncmp(h->meta.pair[k].key, "dlua.", 5) == 0) {
        return dlua_fail(DLUA_BAD_FILE, "%s: the header's own CRC-32C is missing", h->path);
      }
    }
    return DLUA_OK;
  }
  char digits[9];
  uint32_t crc = header_crc(h);
  snprintf(digits, sizeof digits, "%08x", crc);
  const char *stored = (const char *)h->text.data + h->crc_at;
  return memcmp(digits, stored, 8) == 0 ? DLUA_OK : wrong_sum(h->path, "the header", stored, crc);
}

// ---------------------------------------------------------------- reading

static dlua_status read_header(header *h, const dlua_reader *r) {
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
  DLUA_TRY(parse_text(h));
  DLUA_TRY(check_header_sum(h));
  return check_layout(h, r->size - 8 - size);
}

static dlua_status check_booleans(const header *h, const entry *e, const uint8_t *value) {
  for (uint64_t k = 0; k < e->to - e->from; k++) {
    if (value[k] <= 1) continue;
    return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s: byte %llu of the data is %d, not a boolean",
                     h->path, e->name, (unsigned long long)(e->from + k), value[k]);
  }
  return DLUA_OK;
}

static dlua_status check_values(const header *h, const entry *e, const void *data) {
  const char *stored = find_pair(&h->meta, crc_of, e->name);
  uint32_t crc = h->crc_at > 0 ? dlua_crc32c(0, data, (size_t)(e->to - e->from)) : 0;
  char digits[9], what[200];
  snprintf(digits, sizeof digits, "%08x", crc);
  snprintf(what, sizeof what, "tensor %.180s", e->name);
  if (h->crc_at > 0 && (!stored || strcmp(stored, digits) != 0)) {
    return wrong_sum(h->path, what, stored ? stored : "none", crc);
  }
  return e->dtype == DLUA_BOOL ? check_booleans(h, e, data) : DLUA_OK;
}

static dlua_status read_entry(const header *h, const dlua_reader *r, const entry *e,
                              dlua_archive *a) {
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_tensor_new(&x, e->dtype, e->ndim, e->size, dlua_cpu()));
  uint64_t start = 8 + h->text.size + e->from;
  dlua_status status = dlua_reader_at(r, start, dlua_data(x), (size_t)(e->to - e->from));
  if (status == DLUA_OK) status = check_values(h, e, dlua_data(x));
  if (status == DLUA_OK) status = dlua_archive_add(a, e->name, x);
  dlua_tensor_release(x);
  return status;
}

static dlua_tensor *find_tensor(const dlua_archive *a, const char *name) {
  for (int64_t k = 0; k < a->count; k++) {
    if (strcmp(a->item[k].name, name) == 0) return a->item[k].tensor;
  }
  return NULL;
}

// The user's own pairs, and the names under which a tensor appears once more.
static dlua_status read_metadata(const header *h, dlua_archive *a) {
  for (int64_t k = 0; k < h->meta.pairs; k++) {
    const char *key = h->meta.pair[k].key, *value = h->meta.pair[k].value;
    if (strncmp(key, same_as, sizeof same_as - 1) == 0) {
      const char *name = key + sizeof same_as - 1;
      dlua_tensor *x = find_tensor(a, value);
      if (!x || find_tensor(a, name)) {
        return dlua_fail(DLUA_BAD_FILE, "%s: %s cannot be the same as %s", h->path, name, value);
      }
      DLUA_TRY(dlua_archive_add(a, name, x));
    } else if (strncmp(key, "dlua.", 5) != 0) {
      DLUA_TRY(dlua_archive_note(a, key, value));
    }
  }
  return DLUA_OK;
}

static dlua_status read_archive(const dlua_reader *r, dlua_archive *a) {
  header h = {.path = r->path};
  dlua_status status = read_header(&h, r);
  for (int64_t k = 0; k < h.count && status == DLUA_OK; k++) {
    status = read_entry(&h, r, &h.entry[k], a);
  }
  if (status == DLUA_OK) status = read_metadata(&h, a);
  free_header(&h);
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
  snprintf(part, sizeof part, ":{\"dtype\":\"%s\",\"shape\":[", dtype_names[x->dtype]);
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

// Parses what was written, as a reader would, and puts the sum in.
static dlua_status finish_text(draft *d, uint64_t size) {
  DLUA_TRY(add_text(d, "}"));
  while (d->text.size % 8 != 0) DLUA_TRY(add_text(d, " "));
  if (d->text.size > DLUA_MAX_HEADER) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: a header of %zu bytes is above the limit of %d",
                     d->path, d->text.size, DLUA_MAX_HEADER);
  }
  header h = {.path = d->path, .text = d->text};
  dlua_status status = parse_text(&h);
  if (status == DLUA_OK) status = check_layout(&h, size);
  if (status == DLUA_OK) {
    char digits[9];
    snprintf(digits, sizeof digits, "%08x", header_crc(&h));
    memcpy(d->text.data + h.crc_at, digits, 8);
  }
  h.text = (dlua_bytes){0}; // the draft's
  free_header(&h);
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
  size_t n = (size_t)a->count + 1;
  draft d = {.path = path, .archive = a};
  d.order = malloc(n * sizeof *d.order), d.same = malloc(n * sizeof *d.same);
  dlua_status status = d.order && d.same ? write_draft(&d) : no_memory();
  free(d.order), free(d.same);
  dlua_bytes_free(&d.text);
  return status;
}
