// json.h - just enough JSON to read a header: a cursor that takes strings, whole numbers and
// punctuation, strictly, and allocates nothing.
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
  char *at;
  const char *end;
} dlua_json;

// A string as it stands between its quotes, checked but not yet decoded; borrowed from the text.
typedef struct dlua_text {
  char *raw;
  size_t size;
} dlua_text;

void dlua_json_space(dlua_json *j);
bool dlua_json_take(dlua_json *j, char c); // passes over space and c
bool dlua_json_string(dlua_json *j, dlua_text *text);
bool dlua_json_integer(dlua_json *j, uint64_t *value); // 0 … 2^63-1, no sign, point or exponent
// Whether a string that was taken means this word.
bool dlua_json_is(const dlua_text *text, const char *word);
// Decodes a string in place, once: text->raw becomes its meaning, 0-terminated over the closing
// quote, and size the bytes of it. No meaning is longer than how it is written.
void dlua_json_decode(dlua_text *text);
// Appends text as a JSON string, quotes included.
dlua_status dlua_json_write(dlua_bytes *out, const char *text, size_t size);

#endif
