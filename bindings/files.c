// files.c - dlua.save and dlua.load: tensors by name as safetensors, one tensor as npy, by the
// file's ending.
#include <stdlib.h>
#include <string.h>

#include "../runtime/data/io_npy.h"
#include "../runtime/data/io_safetensors.h"
#include "value.h"

#define ARCHIVE "dlua.archive"

static dlua_archive *push_archive(lua_State *L) {
  dlua_archive *a = lua_newuserdatauv(L, sizeof *a, 0);
  *a = (dlua_archive){0};
  luaL_setmetatable(L, ARCHIVE);
  return a;
}

static int archive_gc(lua_State *L) {
  dlua_archive_free(lua_touserdata(L, 1));
  return 0;
}

static bool ends_with(const char *path, const char *ending) {
  size_t size = strlen(path), n = strlen(ending);
  return size >= n && strcmp(path + size - n, ending) == 0;
}

static const char *check_path(lua_State *L, const char *who) {
  if (lua_type(L, 1) != LUA_TSTRING) {
    dlua_bind_raise(L, "%s: path must be a string, got %s", who, dlua_bind_type(L, 1));
  }
  const char *path = lua_tostring(L, 1);
  if (!ends_with(path, ".npy") && !ends_with(path, ".safetensors")) {
    dlua_bind_raise(L, "%s: %s must end in .safetensors or .npy", who, path);
  }
  return path;
}

// ---------------------------------------------------------------- saving

static void gather_tensors(lua_State *L, int index, dlua_archive *a) {
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) {
      dlua_bind_raise(L, "save: names must be strings, got %s", luaL_typename(L, -2));
    }
    size_t size;
    const char *name = lua_tolstring(L, -2, &size);
    dlua_tensor *x = dlua_bind_test_tensor(L, -1);
    if (!x) dlua_bind_raise(L, "save: %s must be a tensor, got %s", name, dlua_bind_type(L, -1));
    if (size == 0 || strlen(name) != size || strcmp(name, "__metadata__") == 0) {
      dlua_bind_raise(L, "save: \"%s\" cannot be the name of a tensor", name);
    }
    dlua_bind_check(L, dlua_archive_add(a, name, x));
  }
}

static int by_key(const void *x, const void *y) {
  return strcmp(((const dlua_pair *)x)->key, ((const dlua_pair *)y)->key);
}

// The text at index, which a file can hold: without zero bytes.
static const char *metadata_text(lua_State *L, int index) {
  size_t size;
  const char *text = lua_tolstring(L, index, &size);
  if (strlen(text) != size) dlua_bind_raise(L, "save: metadata \"%s\" has a zero byte in it", text);
  return text;
}

// {metadata = {key = text, …}}, in the order of keys: a table gives the same bytes every time.
static void gather_metadata(lua_State *L, int index, dlua_archive *a) {
  static const char *const names[] = {"metadata", NULL};
  if (lua_isnoneornil(L, index)) return;
  dlua_bind_check_options(L, index, "save", names);
  if (lua_getfield(L, index, "metadata") == LUA_TNIL) return;
  if (!lua_istable(L, -1)) {
    dlua_bind_raise(L, "save: metadata must be a table of strings, got %s", luaL_typename(L, -1));
  }
  int table = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1)) {
      dlua_bind_raise(L, "save: metadata must be a table of strings");
    }
    lua_pushvalue(L, -1); // a number becomes its text, but not under lua_next
    dlua_bind_check(L, dlua_archive_note(a, metadata_text(L, -3), metadata_text(L, -1)));
    lua_pop(L, 1);
  }
  if (a->pairs > 0) qsort(a->pair, (size_t)a->pairs, sizeof *a->pair, by_key);
}

// save(path, {name = tensor, …}, {metadata = {…}}) or save("x.npy", tensor)
static int save(lua_State *L) {
  dlua_bind_enter(L);
  lua_settop(L, 3);
  const char *path = check_path(L, "save");
  if (ends_with(path, ".npy")) {
    dlua_bind_check(L, dlua_npy_write(path, dlua_bind_tensor(L, 2, "save: x")));
    return 0;
  }
  if (!lua_istable(L, 2)) {
    return dlua_bind_raise(L, "save: a table of named tensors is needed, got %s",
                           dlua_bind_type(L, 2));
  }
  dlua_archive *a = push_archive(L);
  gather_tensors(L, 2, a);
  gather_metadata(L, 3, a);
  dlua_bind_check(L, dlua_safetensors_write(path, a));
  return 0;
}

// ---------------------------------------------------------------- loading

static int load_npy(lua_State *L, const char *path) {
  dlua_tensor **x = dlua_bind_box(L);
  dlua_status status = dlua_npy_read(path, x);
  if (status == DLUA_BAD_FILE) return dlua_bind_nil(L);
  dlua_bind_check(L, status);
  return 1;
}

static void push_contents(lua_State *L, const dlua_archive *a) {
  lua_createtable(L, 0, (int)a->count);
  for (int64_t k = 0; k < a->count; k++) {
    dlua_tensor **x = dlua_bind_box(L);
    *x = dlua_tensor_retain(a->item[k].tensor);
    lua_setfield(L, -2, a->item[k].name);
  }
  lua_createtable(L, 0, (int)a->pairs);
  for (int64_t k = 0; k < a->pairs; k++) {
    lua_pushstring(L, a->pair[k].value);
    lua_setfield(L, -2, a->pair[k].key);
  }
}

// load(path): tensors by name and the metadata, or the tensor of an npy file; nil and a message
// when the file cannot be read.
static int load(lua_State *L) {
  dlua_bind_enter(L);
  const char *path = check_path(L, "load");
  if (ends_with(path, ".npy")) return load_npy(L, path);
  dlua_archive *a = push_archive(L);
  dlua_status status = dlua_safetensors_read(path, a);
  if (status == DLUA_BAD_FILE) return dlua_bind_nil(L);
  dlua_bind_check(L, status);
  push_contents(L, a);
  return 2;
}

void dlua_bind_files(lua_State *L) {
  static const luaL_Reg functions[] = {{"save", save}, {"load", load}, {NULL, NULL}};
  luaL_newmetatable(L, ARCHIVE);
  lua_pushcfunction(L, archive_gc), lua_setfield(L, -2, "__gc");
  lua_pushliteral(L, "locked"), lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
