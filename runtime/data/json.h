// json.h - just enough JSON to read a header: a cursor that takes strings, whole numbers and
// punctuation, strictly.
//
//   dlua_json j = {.at = text, .end = text + size};
//   if (dlua_json_take(&j, '{') && dlua_json_string(&j, &key)) …
//
// Every function returns false where the text is something else and leaves the cursor at the place;
// nothing reads beyond end. Strings must be UTF-8; \u escapes become UTF-8.
#ifndef DLUA_JSON_H
#define DLUA_JSON_H

#include "file.h"

typedef struct dlua_json {
  const char *at, *end;
} dlua_json;

// A string's text, 0-terminated (size does not count that), and where it stood between its quotes.
typedef struct dlua_text {
  dlua_bytes bytes;
  const char *raw;
  size_t raw_size;
} dlua_text;

void dlua_json_space(dlua_json *j);
bool dlua_json_take(dlua_json *j, char c); // passes over space and c
bool dlua_json_string(dlua_json *j, dlua_text *text);
bool dlua_json_integer(dlua_json *j, uint64_t *value); // 0 … 2^63-1, no sign, point or exponent
// Appends text as a JSON string, quotes included.
dlua_status dlua_json_write(dlua_bytes *out, const char *text, size_t size);

#endif
