// safetensors_header.c - a header parsed without a copy of anything: names and values stay in its
// text, so what a header of 100 MB costs is its text and a bounded number of entries. Lookups are
// by sorted order, because whoever wrote the file chose how many there are.
#include "safetensors_header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char crc_key[] = "dlua.crc32c";

const char *const dlua_safetensors_dtypes[DLUA_DTYPES] = {"F32", "F64", "BF16", "F16",
                                                          "I64", "I32", "U8",   "BOOL"};

// ---------------------------------------------------------------- the header, parsed

void dlua_header_free(dlua_header *h) {
  dlua_delete_block(h->entry);
  dlua_delete_block(h->by_name);
  dlua_delete_block(h->note);
  dlua_bytes_free(&h->text);
}

static dlua_status malformed(const dlua_header *h, const dlua_json *j, const char *expected) {
  return dlua_fail(DLUA_BAD_FILE, "%s: byte %zu of the header: %s expected (safetensors)", h->path,
                   8 + (size_t)(j->at - (const char *)h->text.data), expected);
}

static dlua_status too_many(const dlua_header *h, const char *what, int limit) {
  return dlua_fail(DLUA_BAD_FILE, "%s: the header has more than %d %s (safetensors)", h->path,
                   limit, what);
}

static dlua_status parse_note(dlua_header *h, dlua_json *j) {
  dlua_note n;
  if (!dlua_json_string(j, &n.key)) return malformed(h, j, "a string");
  if (!dlua_json_take(j, ':')) return malformed(h, j, ":");
  if (!dlua_json_string(j, &n.value)) return malformed(h, j, "a string");
  if (h->notes == DLUA_MAX_PAIRS) return too_many(h, "pairs of metadata", DLUA_MAX_PAIRS);
  DLUA_TRY(dlua_list_grow((void **)&h->note, h->notes, &h->note_room, sizeof *h->note));
  h->note[h->notes++] = n;
  if (!dlua_json_is(&n.key, crc_key)) return DLUA_OK;
  if (n.value.size != 8) return malformed(h, j, "a sum of 8 digits");
  h->crc_at = (size_t)(n.value.raw - (const char *)h->text.data);
  return DLUA_OK;
}

static dlua_status parse_metadata(dlua_header *h, dlua_json *j) {
  if (h->metadata) return malformed(h, j, "one __metadata__");
  h->metadata = true;
  if (!dlua_json_take(j, '{')) return malformed(h, j, "{");
  if (dlua_json_take(j, '}')) return DLUA_OK;
  do DLUA_TRY(parse_note(h, j));
  while (dlua_json_take(j, ','));
  return dlua_json_take(j, '}') ? DLUA_OK : malformed(h, j, "} or ,");
}

static dlua_status parse_dtype(dlua_header *h, dlua_json *j, dlua_entry *e) {
  dlua_text name;
  if (!dlua_json_string(j, &name)) return malformed(h, j, "a dtype");
  for (int k = 0; k < DLUA_DTYPES; k++) {
    if (dlua_json_is(&name, dlua_safetensors_dtypes[k])) return e->dtype = (dlua_dtype)k, DLUA_OK;
  }
  dlua_json_decode(&name), dlua_json_decode(&e->name); // the header is read no further
  return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s is of dtype %.20s, which dlua does not have",
                   h->path, e->name.raw, name.raw);
}

static dlua_status parse_shape(dlua_header *h, dlua_json *j, dlua_entry *e) {
  uint64_t size;
  if (!dlua_json_take(j, '[')) return malformed(h, j, "[");
  if (dlua_json_take(j, ']')) return DLUA_OK;
  do {
    if (!dlua_json_integer(j, &size)) return malformed(h, j, "a size");
    if (e->ndim == DLUA_MAX_DIMS) {
      dlua_json_decode(&e->name); // the header is read no further
      return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s has more than %d dimensions", h->path,
                       e->name.raw, DLUA_MAX_DIMS);
    }
    e->size[e->ndim++] = (int64_t)size;
  } while (dlua_json_take(j, ','));
  return dlua_json_take(j, ']') ? DLUA_OK : malformed(h, j, "] or ,");
}

static dlua_status parse_offsets(dlua_header *h, dlua_json *j, dlua_entry *e) {
  bool good = dlua_json_take(j, '[') && dlua_json_integer(j, &e->from) && dlua_json_take(j, ',') &&
              dlua_json_integer(j, &e->to) && dlua_json_take(j, ']');
  return good ? DLUA_OK : malformed(h, j, "[from, to]");
}

static dlua_status parse_entry(dlua_header *h, dlua_json *j, dlua_entry *e) {
  static const char *const keys[] = {"dtype", "shape", "data_offsets"};
  static dlua_status (*const parse[])(dlua_header *, dlua_json *,
                                      dlua_entry *) = {parse_dtype, parse_shape, parse_offsets};
  dlua_text key;
  int seen = 0;
  if (!dlua_json_take(j, '{')) return malformed(h, j, "{");
  do {
    if (!dlua_json_string(j, &key)) return malformed(h, j, "dtype, shape or data_offsets");
    int k = 0;
    while (k < 3 && !dlua_json_is(&key, keys[k])) k++;
    if (k == 3 || (seen & 1 << k)) return malformed(h, j, "dtype, shape and data_offsets, once");
    if (!dlua_json_take(j, ':')) return malformed(h, j, ":");
    DLUA_TRY(parse[k](h, j, e));
    seen |= 1 << k;
  } while (dlua_json_take(j, ','));
  if (seen != 7) return malformed(h, j, "dtype, shape and data_offsets");
  return dlua_json_take(j, '}') ? DLUA_OK : malformed(h, j, "} or ,");
}

static dlua_status parse_member(dlua_header *h, dlua_json *j) {
  dlua_text name;
  if (!dlua_json_string(j, &name)) return malformed(h, j, "a name");
  if (!dlua_json_take(j, ':')) return malformed(h, j, ":");
  if (dlua_json_is(&name, "__metadata__")) return parse_metadata(h, j);
  if (h->count == DLUA_MAX_TENSORS) return too_many(h, "tensors", DLUA_MAX_TENSORS);
  DLUA_TRY(dlua_list_grow((void **)&h->entry, h->count, &h->room, sizeof *h->entry));
  dlua_entry *e = &h->entry[h->count++];
  *e = (dlua_entry){.name = name};
  return parse_entry(h, j, e);
}

dlua_status dlua_header_parse(dlua_header *h) {
  dlua_json j = {(char *)h->text.data, (const char *)h->text.data + h->text.size};
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
  const dlua_entry *x = a, *y = b;
  if (x->from != y->from) return x->from < y->from ? -1 : 1;
  return x->to < y->to ? -1 : x->to > y->to;
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const dlua_entry *const *)a)->name.raw,
                (*(const dlua_entry *const *)b)->name.raw);
}

static int by_key(const void *a, const void *b) {
  return strcmp(((const dlua_note *)a)->key.raw, ((const dlua_note *)b)->key.raw);
}

static dlua_status twice(const dlua_header *h, const char *name) {
  return dlua_fail(DLUA_BAD_FILE, "%s: %s appears twice (safetensors)", h->path, name);
}

// Sorts what is looked up by name and refuses names that appear twice.
static dlua_status check_names(dlua_header *h) {
  h->by_name = dlua_new_block((size_t)h->count * sizeof *h->by_name);
  if (!h->by_name) return DLUA_NO_MEMORY;
  for (int64_t k = 0; k < h->count; k++) h->by_name[k] = &h->entry[k];
  qsort(h->by_name, (size_t)h->count, sizeof *h->by_name, by_name);
  for (int64_t k = 1; k < h->count; k++) {
    if (by_name(&h->by_name[k - 1], &h->by_name[k]) == 0) return twice(h, h->by_name[k]->name.raw);
  }
  if (h->notes > 0) qsort(h->note, (size_t)h->notes, sizeof *h->note, by_key);
  for (int64_t k = 1; k < h->notes; k++) {
    if (by_key(&h->note[k - 1], &h->note[k]) == 0) return twice(h, h->note[k].key.raw);
  }
  return DLUA_OK;
}

static dlua_status check_entry(const dlua_header *h, const dlua_entry *e, uint64_t expected) {
  size_t bytes = 0;
  bool fits = dlua_shape_bytes(e->dtype, e->ndim, e->size, &bytes);
  if (e->from != expected) {
    return dlua_fail(DLUA_BAD_FILE,
                     "%s: tensor %s starts at byte %llu of the data where %llu was expected "
                     "(safetensors)",
                     h->path, e->name.raw, (unsigned long long)e->from,
                     (unsigned long long)expected);
  }
  if (fits && e->to >= e->from && e->to - e->from == bytes) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s: tensor %s %s of %s does not take %lld bytes (safetensors)",
                   h->path, e->name.raw, dlua_sizes_text(e->ndim, e->size),
                   dlua_safetensors_dtypes[e->dtype], (long long)(e->to - e->from));
}

typedef struct prefixed {
  const char *prefix, *name;
} prefixed;

// Compares a prefix and a name, as one text, with a pair's key.
static int with_key(const void *wanted, const void *found) {
  const prefixed *w = wanted;
  const char *key = ((const dlua_note *)found)->key.raw;
  size_t size = strlen(w->prefix);
  int order = strncmp(w->prefix, key, size);
  return order != 0 ? order : strcmp(w->name, key + size);
}

const char *dlua_header_note(const dlua_header *h, const char *prefix, const char *name) {
  if (h->notes == 0) return NULL;
  const dlua_note *n =
      bsearch(&(prefixed){prefix, name}, h->note, (size_t)h->notes, sizeof *n, with_key);
  return n ? n->value.raw : NULL;
}

uint32_t dlua_header_sum(const dlua_header *h) {
  uint32_t crc = dlua_crc32c(0, h->text.data, h->crc_at);
  crc = dlua_crc32c(crc, "        ", 8);
  return dlua_crc32c(crc, h->text.data + h->crc_at + 8, h->text.size - h->crc_at - 8);
}

dlua_status dlua_header_wrong_sum(const char *path, const char *what, const char *stored,
                                  uint32_t crc) {
  return dlua_fail(DLUA_BAD_FILE, "%s: %s is damaged: CRC-32C is %08x, %.8s was stored", path, what,
                   crc, stored);
}

dlua_status dlua_header_check_sum(const dlua_header *h) {
  char digits[9];
  if (h->crc_at == 0) return DLUA_OK;
  uint32_t crc = dlua_header_sum(h);
  snprintf(digits, sizeof digits, "%08x", crc);
  const char *stored = (const char *)h->text.data + h->crc_at;
  return memcmp(digits, stored, 8) == 0 ? DLUA_OK
                                        : dlua_header_wrong_sum(h->path, "the header", stored, crc);
}

// A header that has anything of dlua's must have its sum, or a damaged key would switch it off.
static dlua_status expect_sum(const dlua_header *h) {
  for (int64_t k = 0; k < h->notes && h->crc_at == 0; k++) {
    if (strncmp(h->note[k].key.raw, "dlua.", 5) == 0) {
      return dlua_fail(DLUA_BAD_FILE, "%s: the header's own CRC-32C is missing", h->path);
    }
  }
  return DLUA_OK;
}

static bool has_zero(const dlua_text *text) { return strlen(text->raw) != text->size; }

static dlua_status decode(dlua_header *h) {
  for (int64_t k = 0; k < h->count; k++) {
    dlua_text *name = &h->entry[k].name;
    dlua_json_decode(name);
    if (has_zero(name)) {
      return dlua_fail(DLUA_BAD_FILE, "%s: the name of a tensor, %s, has a zero byte (safetensors)",
                       h->path, name->raw);
    }
  }
  for (int64_t k = 0; k < h->notes; k++) {
    dlua_json_decode(&h->note[k].key), dlua_json_decode(&h->note[k].value);
  }
  return DLUA_OK;
}

dlua_status dlua_header_check(dlua_header *h, uint64_t size) {
  uint64_t expected = 0;
  DLUA_TRY(decode(h));
  DLUA_TRY(expect_sum(h));
  if (h->count > 0) qsort(h->entry, (size_t)h->count, sizeof *h->entry, by_place);
  for (int64_t k = 0; k < h->count; k++) {
    DLUA_TRY(check_entry(h, &h->entry[k], expected));
    expected = h->entry[k].to;
  }
  if (expected != size) {
    return dlua_fail(DLUA_BAD_FILE, "%s: tensors take %llu bytes, the file has %llu (safetensors)",
                     h->path, (unsigned long long)expected, (unsigned long long)size);
  }
  return check_names(h);
}

const dlua_entry *dlua_header_entry(const dlua_header *h, char *name) {
  const dlua_entry wanted = {.name = {.raw = name}}, *key = &wanted;
  const dlua_entry *const *found =
      bsearch(&key, h->by_name, (size_t)h->count, sizeof *h->by_name, by_name);
  return found ? *found : NULL;
}
