// io_csv.c - tables as text (RFC 4180). One pass checks and counts, later ones hand out cell after
// cell. Refused: an index of the cells, which for short ones is several times the file.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io_data.h"

static bool ends_line(char c) { return c == '\n' || c == '\r'; }

static bool ends_cell(const dlua_csv *csv, char c) { return c == csv->delimiter || ends_line(c); }

static const char *text_of(const dlua_csv *csv) { return (const char *)csv->file.data; }

// A cell as it stands in the file: without the quotes around it, with doubled ones in it.
typedef struct span {
  size_t from, to;
  bool doubled;
} span;

static dlua_status quoted(dlua_csv *csv, const char *path, span *cell) {
  const char *text = text_of(csv);
  size_t size = csv->file.size;
  uint32_t line = csv->line;
  cell->from = ++csv->at;
  for (; csv->at < size; csv->at++) {
    if (text[csv->at] == '"') {
      if (csv->at + 1 >= size || text[csv->at + 1] != '"') break;
      cell->doubled = true, csv->at++;
    }
    if (text[csv->at] == '\n') csv->line++;
  }
  if (csv->at >= size) {
    return dlua_fail(DLUA_BAD_FILE, "%s:%u: the quote that starts a cell here is never closed",
                     path, line);
  }
  cell->to = csv->at++;
  if (csv->at >= size || ends_cell(csv, text[csv->at])) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s:%u: text after a closing quote", path, csv->line);
}

// Passes over a cell and the delimiter behind it; *more says whether there was one. path is for
// messages.
static dlua_status pass_cell(dlua_csv *csv, const char *path, span *cell, bool *more) {
  const char *text = text_of(csv);
  size_t size = csv->file.size;
  *cell = (span){.from = csv->at};
  if (csv->at < size && text[csv->at] == '"') {
    DLUA_TRY(quoted(csv, path, cell));
  } else {
    while (csv->at < size && !ends_cell(csv, text[csv->at])) csv->at++;
    cell->to = csv->at;
  }
  *more = csv->at < size && text[csv->at] == csv->delimiter;
  csv->at += *more;
  return DLUA_OK;
}

// Ends of lines, empty lines too.
static void pass_lines(dlua_csv *csv) {
  const char *text = text_of(csv);
  for (; csv->at < csv->file.size && ends_line(text[csv->at]); csv->at++) {
    if (text[csv->at] == '\n') csv->line++;
  }
}

// ---------------------------------------------------------------- checking

static dlua_status check_row(dlua_csv *csv, const char *path) {
  int64_t cells = 0;
  bool more = true;
  while (more) {
    span cell;
    DLUA_TRY(pass_cell(csv, path, &cell, &more));
    if (++cells <= DLUA_MAX_COLUMNS) continue;
    return dlua_fail(DLUA_BAD_FILE, "%s:%u: a row has more than %d cells", path, csv->line,
                     DLUA_MAX_COLUMNS);
  }
  if (csv->rows++ == 0) csv->columns = cells;
  if (cells == csv->columns) return DLUA_OK;
  return dlua_fail(DLUA_BAD_FILE, "%s:%u: %lld cells where the first row has %lld", path, csv->line,
                   (long long)cells, (long long)csv->columns);
}

static dlua_status check(dlua_csv *csv, const char *path) {
  DLUA_TRY(dlua_file_read(path, UINT32_MAX, &csv->file));
  for (dlua_csv_rewind(csv); csv->at < csv->file.size; pass_lines(csv)) {
    DLUA_TRY(check_row(csv, path));
  }
  if (csv->rows == 0) return dlua_fail(DLUA_BAD_FILE, "%s: has no rows", path);
  if (csv->header) csv->rows--;
  dlua_csv_rewind(csv);
  return DLUA_OK;
}

dlua_status dlua_csv_read(const char *path, char delimiter, bool header, dlua_csv *csv) {
  *csv = (dlua_csv){.delimiter = delimiter, .header = header};
  dlua_status status = check(csv, path);
  if (status != DLUA_OK) dlua_csv_free(csv);
  return status;
}

void dlua_csv_free(dlua_csv *csv) {
  dlua_bytes_free(&csv->file);
  dlua_bytes_free(&csv->room);
}

// ---------------------------------------------------------------- cells

void dlua_csv_rewind(dlua_csv *csv) {
  bool mark = csv->file.size >= 3 && memcmp(csv->file.data, "\xEF\xBB\xBF", 3) == 0;
  csv->at = mark ? 3 : 0, csv->line = 1;
  pass_lines(csv);
}

// Makes doubled quotes single, in a copy: the file is read again.
static dlua_status undouble(dlua_csv *csv, dlua_csv_field *cell) {
  DLUA_TRY(dlua_bytes_reserve(&csv->room, cell->size));
  char *to = (char *)csv->room.data;
  for (size_t k = 0; k < cell->size; k++) {
    if (cell->text[k] == '"') k++;
    *to++ = cell->text[k];
  }
  cell->text = (const char *)csv->room.data;
  cell->size = (size_t)(to - cell->text);
  return DLUA_OK;
}

dlua_status dlua_csv_next(dlua_csv *csv, dlua_csv_field *cell) {
  span found;
  bool more;
  cell->line = csv->line;
  DLUA_TRY(pass_cell(csv, "", &found, &more));
  if (!more) pass_lines(csv);
  cell->text = text_of(csv) + found.from, cell->size = found.to - found.from;
  return found.doubled ? undouble(csv, cell) : DLUA_OK;
}

bool dlua_csv_number(const dlua_csv_field *cell, double *value) {
  char text[64], *end;
  const char *from = cell->text;
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
