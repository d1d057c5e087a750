// print.c - tensors as text: a line with dtype and shape, then rows in aligned columns. Long
// dimensions show their first and last entries; a device's tensor is copied to the host for it.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "value.h"

enum { MOST_SHOWN = 400, LONGEST_ROW = 20, EDGE = 3, CELL = 32, MOST_COLUMNS = 32 };

typedef struct printer {
  luaL_Buffer *b;
  const dlua_tensor *x; // contiguous, on the host
  bool elide;
  int ncells;
  int width[MOST_COLUMNS];
} printer;

// ---------------------------------------------------------------- cells

static void write_float(char *cell, double value) {
  if (isnan(value))
    snprintf(cell, CELL, "nan"); // whatever its sign
  else if (value == floor(value) && fabs(value) < 1e7)
    snprintf(cell, CELL, "%.0f", value);
  else
    snprintf(cell, CELL, "%.5g", value);
}

static void write_cell(const dlua_tensor *x, int64_t k, char *cell) {
  const void *data = dlua_data(x);
  switch (x->dtype) {
  case DLUA_F32: write_float(cell, (double)((const float *)data)[k]); break;
  case DLUA_F64: write_float(cell, ((const double *)data)[k]); break;
  case DLUA_I64: snprintf(cell, CELL, "%lld", (long long)((const int64_t *)data)[k]); break;
  case DLUA_I32: snprintf(cell, CELL, "%d", (int)((const int32_t *)data)[k]); break;
  case DLUA_U8: snprintf(cell, CELL, "%d", ((const uint8_t *)data)[k]); break;
  default: snprintf(cell, CELL, "%s", ((const uint8_t *)data)[k] ? "true" : "false"); break;
  }
}

// The entries of a dimension that are shown: all of them, or EDGE from each end with a gap (-1)
// between.
static int shown(const printer *p, int64_t size) {
  return p->elide && size > 2 * EDGE ? 2 * EDGE + 1 : (int)size;
}

static int64_t entry(const printer *p, int64_t size, int k) {
  if (!p->elide || size <= 2 * EDGE || k < EDGE) return k;
  return k == EDGE ? -1 : size - 2 * EDGE - 1 + k;
}

// ---------------------------------------------------------------- rows

static int64_t row_length(const dlua_tensor *x) { return x->ndim ? x->size[x->ndim - 1] : 1; }

static void measure_row(printer *p, int64_t first) {
  char cell[CELL];
  int64_t length = row_length(p->x);
  for (int k = 0; k < shown(p, length); k++) {
    int64_t at = entry(p, length, k);
    if (at >= 0) write_cell(p->x, first + at, cell);
    int width = at < 0 ? 1 : (int)strlen(cell);
    if (width > p->width[k]) p->width[k] = width;
  }
}

static void write_row(printer *p, int64_t first) {
  char cell[CELL], text[CELL + 64];
  int64_t length = row_length(p->x);
  for (int k = 0; k < shown(p, length); k++) {
    int64_t at = entry(p, length, k);
    if (at >= 0) write_cell(p->x, first + at, cell);
    if (at < 0)
      snprintf(text, sizeof text, "%s…", k ? "  " : " ");
    else
      snprintf(text, sizeof text, "%s%*s", k ? "  " : " ", p->width[k], cell);
    luaL_addstring(p->b, text);
  }
}

// Visits the rows that are shown, in order; write false only measures them.
static void visit(printer *p, int d, int64_t first, bool write) {
  const dlua_tensor *x = p->x;
  if (d >= x->ndim - 1) {
    if (!write) {
      measure_row(p, first);
      return;
    }
    luaL_addstring(p->b, "\n");
    write_row(p, first);
    return;
  }
  int64_t block = 1;
  for (int e = d + 1; e < x->ndim; e++) block *= x->size[e];
  for (int k = 0; k < shown(p, x->size[d]); k++) {
    int64_t at = entry(p, x->size[d], k);
    if (at < 0 && write) luaL_addstring(p->b, "\n …");
    if (write && k > 0 && d < x->ndim - 2) luaL_addstring(p->b, "\n");
    if (at >= 0) visit(p, d + 1, first + at * block, write);
  }
}

// ---------------------------------------------------------------- the whole

static void write_head(luaL_Buffer *b, const dlua_tensor *x) {
  char text[32];
  luaL_addstring(b, dlua_dtype_name((dlua_dtype)x->dtype));
  luaL_addchar(b, '[');
  for (int d = 0; d < x->ndim; d++) {
    snprintf(text, sizeof text, d ? "x%lld" : "%lld", (long long)x->size[d]);
    luaL_addstring(b, text);
  }
  luaL_addchar(b, ']');
  if (dlua_device_of(x) == dlua_cpu()) return;
  luaL_addchar(b, ' ');
  luaL_addstring(b, dlua_device_name(dlua_device_of(x)));
}

int dlua_bind_tostring(lua_State *L) {
  dlua_tensor *x = dlua_bind_test_tensor(L, 1);
  if (!x) return lua_pushliteral(L, "a released tensor"), 1;
  dlua_tensor **host = dlua_bind_box(L);
  dlua_bind_check(L, dlua_name_failure(dlua_bind_host(x, host), "tostring"));
  printer *p = lua_newuserdatauv(L, sizeof *p, 0);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  bool elide = dlua_numel(x) > MOST_SHOWN || row_length(x) > LONGEST_ROW;
  *p = (printer){.b = &b, .x = *host, .elide = elide};
  write_head(&b, x);
  if (dlua_numel(x) > 0) {
    visit(p, 0, 0, false);
    if (x->ndim <= 1)
      luaL_addchar(&b, ' '), write_row(p, 0);
    else
      visit(p, 0, 0, true);
  }
  luaL_pushresult(&b);
  return 1;
}
