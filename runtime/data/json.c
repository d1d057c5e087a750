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

static bool four_digits(dlua_json *j, uint32_t *code) {
  if (j->end - j->at < 4) return false;
  *code = 0;
  for (int k = 0; k < 4; k++) {
    int digit = hex_digit(*j->at++);
    if (digit < 0) return false;
    *code = *code << 4 | (uint32_t)digit;
  }
  return true;
}

// The code point after \u; two of them where they are a surrogate pair.
static bool code_point(dlua_json *j, uint32_t *code) {
  uint32_t low;
  if (!four_digits(j, code)) return false;
  if (*code < 0xD800 || *code > 0xDFFF) return true;
  if (*code > 0xDBFF || j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u') return false;
  j->at += 2;
  if (!four_digits(j, &low) || low < 0xDC00 || low > 0xDFFF) return false;
  *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
  return true;
}

static bool add_utf8(dlua_bytes *out, uint32_t code) {
  uint8_t b[4];
  size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (size_t k = n; k-- > 1; code >>= 6) b[k] = (uint8_t)(0x80 | (code & 0x3F));
  b[0] = (uint8_t)(lead[n] | code);
  return dlua_bytes_add(out, b, n) == DLUA_OK;
}

static bool escape(dlua_json *j, dlua_bytes *out) {
  static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
  if (j->at >= j->end) return false;
  char c = *j->at++;
  uint32_t code;
  if (c == 'u') return code_point(j, &code) && add_utf8(out, code);
  const char *found = c ? strchr(plain, c) : NULL;
  return found && dlua_bytes_add(out, &meaning[found - plain], 1) == DLUA_OK;
}

// Bytes of the UTF-8 sequence at the cursor, 0 where it is none (overlong and surrogates included).
static size_t sequence(const dlua_json *j) {
  const uint8_t *b = (const uint8_t *)j->at;
  size_t left = (size_t)(j->end - j->at), n = b[0] < 0x80   ? 1
                                              : b[0] < 0xE0 ? 2
                                              : b[0] < 0xF0 ? 3
                                                            : 4;
  if (n == 1) return 1;
  if (b[0] < 0xC2 || b[0] > 0xF4 || left < n) return 0;
  for (size_t k = 1; k < n; k++) {
    if ((b[k] & 0xC0) != 0x80) return 0;
  }
  bool overlong = (b[0] == 0xE0 && b[1] < 0xA0) || (b[0] == 0xF0 && b[1] < 0x90);
  bool surrogate = b[0] == 0xED && b[1] > 0x9F, beyond = b[0] == 0xF4 && b[1] > 0x8F;
  return overlong || surrogate || beyond ? 0 : n;
}

static bool string_body(dlua_json *j, dlua_bytes *out) {
  while (j->at < j->end && *j->at != '"') {
    if ((unsigned char)*j->at < 0x20) return false;
    if (*j->at == '\\') {
      j->at++;
      if (!escape(j, out)) return false;
      continue;
    }
    size_t n = sequence(j);
    if (n == 0 || dlua_bytes_add(out, j->at, n) != DLUA_OK) return false;
    j->at += n;
  }
  return j->at < j->end;
}

bool dlua_json_string(dlua_json *j, dlua_text *text) {
  text->bytes.size = 0;
  if (!dlua_json_take(j, '"')) return false;
  text->raw = j->at;
  if (!string_body(j, &text->bytes)) return false;
  text->raw_size = (size_t)(j->at - text->raw);
  j->at++;
  if (dlua_bytes_add(&text->bytes, "", 1) != DLUA_OK) return false;
  text->bytes.size--;
  return true;
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
