// csv.c - CSV files as columns of tensors and texts: csv in the table core.io, which
// lua/dlua/data/frame.lua is filled from.
#include <string.h>

#include "../runtime/data/io_data.h"
#include "value.h"

#define CSV "dlua.csv"

static int csv_gc(lua_State *L) {
  dlua_csv_free(lua_touserdata(L, 1));
  return 0;
}

// A column is numbers when its first cell that is not empty is one; reads no further than needed.
static void find_numbers(lua_State *L, dlua_csv *csv, bool *text) {
  dlua_csv_field cell;
  bool *known = lua_newuserdatauv(L, (size_t)csv->columns, 0);
  memset(known, 0, (size_t)csv->columns), memset(text, 0, (size_t)csv->columns);
  int64_t left = csv->columns;
  for (int64_t k = 0; csv->header && k < csv->columns; k++) {
    dlua_bind_check(L, dlua_csv_next(csv, &cell));
  }
  for (int64_t row = 0; row < csv->rows && left > 0; row++) {
    for (int64_t k = 0; k < csv->columns; k++) {
      double value;
      dlua_bind_check(L, dlua_csv_next(csv, &cell));
      if (known[k] || cell.size == 0) continue;
      known[k] = true, left--;
      text[k] = !dlua_csv_number(&cell, &value);
    }
  }
  lua_pop(L, 1);
}

// Pushes the list of names: the header's cells, or the columns' numbers.
static void push_names(lua_State *L, dlua_csv *csv) {
  dlua_csv_field cell;
  lua_createtable(L, (int)csv->columns, 0);
  for (int64_t k = 0; k < csv->columns; k++) {
    if (csv->header) {
      dlua_bind_check(L, dlua_csv_next(csv, &cell));
      lua_pushlstring(L, cell.text, cell.size);
    } else {
      lua_pushfstring(L, "%d", (int)k + 1);
    }
    lua_rawseti(L, -2, k + 1);
  }
}

// Pushes the list of columns, empty yet: an f64 tensor where value[k] becomes its data, or a table.
static void push_columns(lua_State *L, const dlua_csv *csv, const bool *text, double **value) {
  lua_createtable(L, (int)csv->columns, 0);
  for (int64_t k = 0; k < csv->columns; k++) {
    if (text[k]) {
      lua_createtable(L, (int)csv->rows, 0);
    } else {
      dlua_tensor **x = dlua_bind_box(L);
      dlua_bind_check(L, dlua_tensor_new(x, DLUA_F64, 1, &csv->rows, dlua_cpu()));
      value[k] = dlua_f64(*x);
    }
    lua_rawseti(L, -2, k + 1);
  }
}

// Puts a cell into the column on top of the stack.
static void add_text(lua_State *L, const dlua_csv_field *cell, int64_t row) {
  lua_pushlstring(L, cell->text, cell->size);
  lua_rawseti(L, -2, row + 1);
}

static void add_number(lua_State *L, const dlua_csv_field *cell, int64_t column, const char *path,
                       double *value) {
  if (dlua_csv_number(cell, value)) return;
  lua_pushlstring(L, cell->text, cell->size);
  dlua_bind_raise(L, "%s:%d: column %d is numbers, but \"%s\" is none", path, (int)cell->line,
                  (int)column + 1, lua_tostring(L, -1));
}

// Fills the columns, whose list is on top of the stack.
static void fill_columns(lua_State *L, dlua_csv *csv, const char *path, const bool *text,
                         double *const *value) {
  dlua_csv_field cell;
  for (int64_t row = 0; row < csv->rows; row++) {
    for (int64_t k = 0; k < csv->columns; k++) {
      dlua_bind_check(L, dlua_csv_next(csv, &cell));
      if (!text[k]) {
        add_number(L, &cell, k, path, &value[k][row]);
        continue;
      }
      lua_rawgeti(L, -1, k + 1);
      add_text(L, &cell, row);
      lua_pop(L, 1);
    }
  }
}

// csv(path, delimiter, header): list of names, list of columns (f64 tensors or lists of strings),
// rows.
static int read_csv(lua_State *L) {
  dlua_bind_enter(L);
  const char *path = dlua_bind_need_string(L, 1, "read_csv: path");
  const char *delimiter = dlua_bind_need_string(L, 2, "read_csv: delimiter");
  dlua_csv *csv = lua_newuserdatauv(L, sizeof *csv, 0);
  *csv = (dlua_csv){0};
  luaL_setmetatable(L, CSV);
  dlua_bind_check(L, dlua_csv_read(path, delimiter[0], lua_toboolean(L, 3), csv));
  bool *text = lua_newuserdatauv(L, (size_t)csv->columns * sizeof *text, 0);
  double **value = lua_newuserdatauv(L, (size_t)csv->columns * sizeof *value, 0);
  find_numbers(L, csv, text);
  dlua_csv_rewind(csv);
  push_names(L, csv);
  push_columns(L, csv, text, value);
  fill_columns(L, csv, path, text, value);
  lua_pushinteger(L, csv->rows);
  dlua_csv_free(csv);
  return 3;
}

void dlua_bind_csv(lua_State *L) {
  luaL_newmetatable(L, CSV);
  lua_pushcfunction(L, csv_gc), lua_setfield(L, -2, "__gc");
  lua_pushliteral(L, "locked"), lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  luaL_getsubtable(L, -1, "io");
  lua_pushcfunction(L, read_csv);
  lua_setfield(L, -2, "csv");
  lua_pop(L, 1);
}
