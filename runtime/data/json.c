// json.c - a JSON cursor. Refused: a tree of values; the one reader of JSON here knows what it
// expects at every place, and a tree of a 100 MB header would need gigabytes.
#include "json.h"

#include <stdio.h>
#include <string.h>

void dlua_json_space(dlua_json *j) {
  while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) {
    j->at++;
  }
}

bool dlua_json_take(dlua_json *j, char c) {
  dlua_json_space(j);
  if (j->at >= j->end || *j->at != c) return false;
  j->at++;
  return true;
}

bool dlua_json_integer(dlua_json *j, uint64_t *value) {
  dlua_json_space(j);
  const char *from = j->at;
  uint64_t n = 0;
  while (j->at < j->end && *j->at >= '0' && *j->at <= '9') {
    if (n > (INT64_MAX - 9) / 10) return false;
    n = 10 * n + (uint64_t)(*j->at++ - '0');
  }
  bool leading_zero = j->at > from + 1 && *from == '0';
  if (j->at == from || leading_zero) return false;
  if (j->at < j->end && (*j->at == '.' || *j->at == 'e' || *j->at == 'E')) return false;
  *value = n;
  return true;
}

// ---------------------------------------------------------------- strings

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static bool four_digits(const char **at, const char *end, uint32_t *code) {
  if (end - *at < 4) return false;
  *code = 0;
  for (int k = 0; k < 4; k++) {
    int digit = hex_digit(*(*at)++);
    if (digit < 0) return false;
    *code = *code << 4 | (uint32_t)digit;
  }
  return true;
}

// The code point after \u; two of them where they are a surrogate pair.
static bool code_point(const char **at, const char *end, uint32_t *code) {
  uint32_t low;
  if (!four_digits(at, end, code)) return false;
  if (*code < 0xD800 || *code > 0xDFFF) return true;
  if (*code > 0xDBFF || end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u') return false;
  *at += 2;
  if (!four_digits(at, end, &low) || low < 0xDC00 || low > 0xDFFF) return false;
  *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
  return true;
}

static size_t to_utf8(uint32_t code, char out[4]) {
  size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (size_t k = n; k-- > 1; code >>= 6) out[k] = (char)(0x80 | (code & 0x3F));
  out[0] = (char)(lead[n] | code);
  return n;
}

// What an escape means, from behind its backslash; 0 where it is none.
static size_t escape(const char **at, const char *end, char out[4]) {
  static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
  if (*at >= end) return 0;
  char c = *(*at)++;
  uint32_t code;
  if (c == 'u') return code_point(at, end, &code) ? to_utf8(code, out) : 0;
  const char *found = c ? strchr(plain, c) : NULL;
  if (!found) return 0;
  out[0] = meaning[found - plain];
  return 1;
}

// Bytes of the UTF-8 sequence at b, 0 where it is none (overlong and surrogates included).
static size_t sequence(const uint8_t *b, size_t left) {
  size_t n = b[0] < 0x80 ? 1 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
  if (n == 1) return 1;
  if (b[0] < 0xC2 || b[0] > 0xF4 || left < n) return 0;
  for (size_t k = 1; k < n; k++) {
    if ((b[k] & 0xC0) != 0x80) return 0;
  }
  bool overlong = (b[0] == 0xE0 && b[1] < 0xA0) || (b[0] == 0xF0 && b[1] < 0x90);
  bool surrogate = b[0] == 0xED && b[1] > 0x9F, beyond = b[0] == 0xF4 && b[1] > 0x8F;
  return overlong || surrogate || beyond ? 0 : n;
}

// Decodes one character of a string and passes over it; the bytes of it, 0 where it is none.
static size_t character(const char **at, const char *end, char out[4]) {
  if ((unsigned char)**at < 0x20) return 0;
  if (**at == '\\') {
    ++*at;
    return escape(at, end, out);
  }
  size_t n = sequence((const uint8_t *)*at, (size_t)(end - *at));
  memcpy(out, *at, n);
  *at += n;
  return n;
}

bool dlua_json_string(dlua_json *j, dlua_text *text) {
  char ignored[4];
  if (!dlua_json_take(j, '"')) return false;
  text->raw = j->at;
  const char *at = j->at;
  while (at < j->end && *at != '"') {
    if (character(&at, j->end, ignored) > 0) continue;
    j->at += at - j->at;
    return false;
  }
  text->size = (size_t)(at - text->raw);
  j->at += text->size;
  if (j->at >= j->end) return false;
  j->at++;
  return true;
}

bool dlua_json_is(const dlua_text *text, const char *word) {
  const char *at = text->raw, *end = at + text->size;
  size_t left = strlen(word);
  while (at < end) {
    char out[4];
    size_t n = character(&at, end, out);
    if (n > left || memcmp(word, out, n) != 0) return false;
    word += n, left -= n;
  }
  return left == 0;
}

void dlua_json_decode(dlua_text *text) {
  const char *at = text->raw, *end = at + text->size;
  char *to = text->raw;
  while (at < end) {
    char out[4];
    size_t n = character(&at, end, out);
    memcpy(to, out, n);
    to += n;
  }
  *to = 0;
  text->size = (size_t)(to - text->raw);
}

dlua_status dlua_json_write(dlua_bytes *out, const char *text, size_t size) {
  DLUA_TRY(dlua_bytes_add(out, "\"", 1));
  for (size_t k = 0; k < size; k++) {
    unsigned char c = (unsigned char)text[k];
    char escaped[8] = {(char)c};
    size_t n = 1;
    if (c == '"' || c == '\\') n = (size_t)snprintf(escaped, sizeof escaped, "\\%c", c);
    if (c < 0x20) n = (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", c);
    DLUA_TRY(dlua_bytes_add(out, escaped, n));
  }
  return dlua_bytes_add(out, "\"", 1);
}
