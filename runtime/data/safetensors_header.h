// safetensors_header.h - the JSON header of a safetensors file, for io_safetensors.c alone.
//
//   dlua_header h = {.path = path};
//   … h.text is filled …
//   dlua_status status = dlua_header_parse(&h);                     // the form
//   if (status == DLUA_OK) status = dlua_header_check_sum(&h);      // over the text as written
//   if (status == DLUA_OK) status = dlua_header_check(&h, data);    // the meaning
//   … h.entry[k].name.raw, dlua_header_note(&h, "dlua.crc32c:", name) …
//   dlua_header_free(&h);
#ifndef DLUA_SAFETENSORS_HEADER_H
#define DLUA_SAFETENSORS_HEADER_H

#include "io_safetensors.h"
#include "json.h"

extern const char *const dlua_safetensors_dtypes[DLUA_DTYPES]; // "F32", …

typedef struct dlua_entry { // one tensor as the header describes it
  dlua_text name;
  dlua_dtype dtype;
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  uint64_t from, to; // in the data
} dlua_entry;

typedef struct dlua_note { // one pair of the metadata
  dlua_text key, value;
} dlua_note;

// Names, keys and values lie in text: as they were written until dlua_header_check, decoded and
// 0-terminated from then on.
typedef struct dlua_header {
  const char *path;  // borrowed
  dlua_bytes text;   // the header's own
  dlua_entry *entry; // by place in the file once checked
  const dlua_entry **by_name;
  dlua_note *note; // by key once checked
  int64_t count, room, notes, note_room;
  bool metadata; // seen
  size_t crc_at; // where the header's own sum stands in text, 0: it has none
} dlua_header;

// Reads text from end to end and holds it against the limits of io_safetensors.h.
dlua_status dlua_header_parse(dlua_header *h);
// CRC-32C of the text as written, the sum's own digits blank; the header has a sum.
uint32_t dlua_header_sum(const dlua_header *h);
// Holds that against the stored one, if there is one.
dlua_status dlua_header_check_sum(const dlua_header *h);
dlua_status dlua_header_wrong_sum(const char *path, const char *what, const char *stored,
                                  uint32_t crc);
// Decodes all texts, and checks that names are there once and that values follow one another from 0
// to size.
dlua_status dlua_header_check(dlua_header *h, uint64_t size);
// Of a checked header: the value of the pair whose key is prefix and name together, or NULL; the
// entry of a name, or NULL.
const char *dlua_header_note(const dlua_header *h, const char *prefix, const char *name);
const dlua_entry *dlua_header_entry(const dlua_header *h, char *name);
void dlua_header_free(dlua_header *h);

#endif
