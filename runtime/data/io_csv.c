// io_csv.c - tables as text (RFC 4180): one pass over the file marks the cells, quotes are undone
// in place, so a table costs its file and twelve bytes a cell.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io_data.h"

typedef struct scanner {
  const char *path;
  dlua_csv *csv;
  char delimiter;
  size_t at;
  uint32_t line;
  int64_t in_row; // cells of this row so far
} scanner;

static dlua_status add_cell(scanner *s, size_t from, size_t to, uint32_t line) {
  dlua_cell cell = {(uint32_t)from, (uint32_t)(to - from), line};
  s->in_row++;
  return dlua_bytes_add(&s->csv->cells, &cell, sizeof cell);
}

static bool ends_cell(const scanner *s, char c) {
  return c == s->delimiter || c == '\n' || c == '\r';
}

// A quoted cell from its opening quote on: what is inside moves to where the quote was.
static dlua_status quoted(scanner *s) {
  char *text = (char *)s->csv->file.data;
  size_t size = s->csv->file.size, from = s->at, to = from;
  uint32_t line = s->line;
  for (s->at++; s->at < size; s->at++) {
    if (text[s->at] == '"') {
      bool doubled = s->at + 1 < size && text[s->at + 1] == '"';
      if (!doubled) break;
      s->at++;
    }
    if (text[s->at] == '\n') s->line++;
    text[to++] = text[s->at];
  }
  if (s->at >= size) {
    return dlua_fail(DLUA_BAD_FILE, "%s:%u: the quote that starts a cell here is never closed",
                     s->path, line);
  }
  s->at++;
  if (s->at < size && !ends_cell(s, text[s->at])) {
    return dlua_fail(DLUA_BAD_FILE, "%s:%u: text after a closing quote", s->path, s->line);
  }
  return add_cell(s, from, to, line);
}

static dlua_status plain(scanner *s) {
  const char *text = (const char *)s->csv->file.data;
  size_t from = s->at;
  while (s->at < s->csv->file.size && !ends_cell(s, text[s->at])) s->at++;
  return add_cell(s, from, s->at, s->line);
}

static dlua_status end_row(scanner *s) {
  dlua_csv *csv = s->csv;
  if (csv->rows == 0) csv->columns = s->in_row;
  if (s->in_row != csv->columns) {
    return dlua_fail(DLUA_BAD_FILE, "%s:%u: %lld cells where the first row has %lld", s->path,
                     s->line, (long long)s->in_row, (long long)csv->columns);
  }
  csv->rows++, s->in_row = 0;
  return DLUA_OK;
}

// One line of the file (or several, where a quoted cell spans them); empty lines are passed over.
static dlua_status scan_row(scanner *s) {
  const char *text = (const char *)s->csv->file.data;
  size_t size = s->csv->file.size;
  bool empty = text[s->at] == '\n' || text[s->at] == '\r';
  while (!empty) {
    DLUA_TRY(s->at < size && text[s->at] == '"' ? quoted(s) : plain(s));
    if (s->at >= size || text[s->at] != s->delimiter) break;
    s->at++;
  }
  if (!empty) DLUA_TRY(end_row(s));
  if (s->at < size && text[s->at] == '\r') s->at++;
  if (s->at < size && text[s->at] == '\n') s->at++, s->line++;
  return DLUA_OK;
}

static dlua_status scan(const char *path, char delimiter, bool header, dlua_csv *csv) {
  DLUA_TRY(dlua_file_read(path, UINT32_MAX, &csv->file));
  scanner s = {.path = path, .csv = csv, .delimiter = delimiter, .line = 1};
  if (csv->file.size >= 3 && memcmp(csv->file.data, "\xEF\xBB\xBF", 3) == 0) s.at = 3;
  while (s.at < csv->file.size) DLUA_TRY(scan_row(&s));
  csv->header = header;
  if (csv->rows < (header ? 1 : 0) || csv->columns == 0) {
    return dlua_fail(DLUA_BAD_FILE, "%s: has no rows", path);
  }
  csv->rows -= header ? 1 : 0;
  return DLUA_OK;
}

dlua_status dlua_csv_read(const char *path, char delimiter, bool header, dlua_csv *csv) {
  *csv = (dlua_csv){0};
  dlua_status status = scan(path, delimiter, header, csv);
  if (status != DLUA_OK) dlua_csv_free(csv);
  return status;
}

void dlua_csv_free(dlua_csv *csv) {
  dlua_bytes_free(&csv->file);
  dlua_bytes_free(&csv->cells);
}

const dlua_cell *dlua_csv_cell(const dlua_csv *csv, int64_t row, int64_t column) {
  const dlua_cell *cells = (const dlua_cell *)csv->cells.data;
  return &cells[(row + (csv->header ? 1 : 0)) * csv->columns + column];
}

bool dlua_csv_number(const dlua_csv *csv, const dlua_cell *cell, double *value) {
  char text[64], *end;
  const char *from = (const char *)csv->file.data + cell->at;
  size_t size = cell->size;
  while (size > 0 && (from[0] == ' ' || from[0] == '\t')) from++, size--;
  while (size > 0 && (from[size - 1] == ' ' || from[size - 1] == '\t')) size--;
  if (size == 0) return *value = NAN, true;
  if (size >= sizeof text || memchr(from, 'x', size) || memchr(from, 'X', size)) return false;
  memcpy(text, from, size);
  text[size] = 0;
  *value = strtod(text, &end);
  return *end == 0;
}
