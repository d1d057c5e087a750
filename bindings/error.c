// error.c - the one throw site, and what it adds to a message: the path of the layer that was
// running and the line of the script. Both are looked for on the stack only when something is
// raised, so that a call that works pays nothing for them.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../runtime/words.h"
#include "value.h"

// What a deep recursion costs is bounded: the way to each level is walked anew.
enum { MOST_LEVELS = 1000, MOST_MODULES = 32 };

// Keys of the registry: the function that runs a module's forward, the function that names its
// path, the folder of dlua's Lua files.
static const char module_call_key, layer_path_key, folder_key;

// ---------------------------------------------------------------- the script line

// Notes the folder of dlua's own Lua files, by the rule that require uses, while package is as the
// program made it; nothing when it cannot be found.
static void find_folder(lua_State *L) {
  int top = lua_gettop(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchpath");
  lua_pushliteral(L, "dlua");
  lua_getfield(L, -3, "path");
  if (lua_pcall(L, 2, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING) {
    const char *file = lua_tostring(L, -1), *slash = strrchr(file, '/');
    lua_pushlstring(L, file, slash ? (size_t)(slash - file) + 1 : 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &folder_key);
  }
  lua_settop(L, top);
}

// "" when it could not be found. Allocates nothing, so it cannot raise.
static const char *own_folder(lua_State *L) {
  bool found = lua_rawgetp(L, LUA_REGISTRYINDEX, &folder_key) == LUA_TSTRING;
  const char *folder = found ? lua_tostring(L, -1) : "";
  lua_pop(L, 1); // the registry keeps it
  return folder;
}

static bool is_own(const char *source, const char *folder) {
  if (source[0] == '=' && source[1] == '[') return true; // C
  return source[0] == '@' && folder[0] && strncmp(source + 1, folder, strlen(folder)) == 0;
}

// snprintf(text, size, "%s:%d", source, line), ten times as fast: every recorded call asks.
static void write_line(char *text, size_t size, const char *source, int line) {
  char digits[12], *first = digits + sizeof digits - 1;
  *first = 0;
  for (; line > 0 || !*first; line /= 10) *--first = (char)('0' + line % 10);
  *--first = ':';
  size_t end = (size_t)(digits + sizeof digits - 1 - first), begin = strlen(source);
  if (begin + end >= size) begin = size - 1 - end;
  memcpy(text, source, begin);
  memcpy(text + begin, first, end + 1);
}

void dlua_bind_where(lua_State *L, char *text, size_t size) {
  lua_Debug ar;
  text[0] = 0;
  if (!lua_checkstack(L, 2)) return;
  const char *folder = own_folder(L);
  for (int level = 0; level < MOST_LEVELS && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "l", &ar);
    if (ar.currentline < 0) continue; // C, and a source costs more than a line
    lua_getinfo(L, "S", &ar);
    if (is_own(ar.source, folder)) continue;
    if (strcmp(ar.source, "=prompt") == 0) return; // the line is in front of the reader
    write_line(text, size, ar.short_src, ar.currentline);
    return;
  }
}

// ---------------------------------------------------------------- the layer path

// Pushes a list of the innermost modules whose forward is running, outermost first; their number is
// the result.
static int push_running_modules(lua_State *L) {
  lua_Debug ar;
  int found[MOST_MODULES], count = 0;
  for (int level = 0; level < MOST_LEVELS && count < MOST_MODULES; level++) {
    if (!lua_getstack(L, level, &ar)) break;
    lua_getinfo(L, "f", &ar);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &module_call_key);
    if (lua_rawequal(L, -1, -2)) found[count++] = level;
    lua_pop(L, 2);
  }
  lua_createtable(L, count, 0);
  for (int k = 1; k <= count; k++) {
    lua_getstack(L, found[count - k], &ar);
    if (lua_getlocal(L, &ar, 1)) lua_rawseti(L, -2, k);
  }
  return count;
}

// Pushes "  [features.1]" when a module is running, else "".
static void push_layer_path(lua_State *L) {
  int top = lua_gettop(L);
  luaL_checkstack(L, 10, "error");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &layer_path_key) == LUA_TFUNCTION &&
      push_running_modules(L) > 0 && lua_pcall(L, 1, 1, 0) == LUA_OK &&
      lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) > 0) {
    lua_pushfstring(L, "  [%s]", lua_tostring(L, -1));
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return;
  }
  lua_settop(L, top);
  lua_pushliteral(L, "");
}

// ---------------------------------------------------------------- raising

int dlua_bind_raise_text(lua_State *L, const char *text) {
  char where[80];
  lua_pushstring(L, text);
  push_layer_path(L);
  dlua_bind_where(L, where, sizeof where);
  lua_pushfstring(L, where[0] ? "  %s" : "%s", where);
  lua_concat(L, 3);
  return lua_error(L);
}

int dlua_bind_raise(lua_State *L, const char *format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  return dlua_bind_raise_text(L, text);
}

static void raise_no_memory(lua_State *L) {
  char text[1024], largest[256];
  dlua_bind_largest(largest, sizeof largest);
  snprintf(text, sizeof text, "%.700s%s%s%s", dlua_message(),
           largest[0] ? " (largest tensors: " : "", largest, largest[0] ? ")" : "");
  dlua_bind_raise_text(L, text);
}

void dlua_bind_check(lua_State *L, dlua_status status) {
  if (status == DLUA_OK) return;
  if (dlua_bind_raise_pending(L)) return;
  if (status == DLUA_NO_MEMORY) raise_no_memory(L);
  if (status == DLUA_BAD_EARLIER) {
    lua_pushstring(L, dlua_message());
    lua_error(L);
  }
  char text[1024]; // the message may be replaced while the layer path is looked for
  snprintf(text, sizeof text, "%s", dlua_message());
  dlua_bind_raise_text(L, text);
}

int dlua_bind_nil(lua_State *L) {
  lua_pushnil(L);
  lua_pushstring(L, dlua_message());
  return 2;
}

// ---------------------------------------------------------------- for Lua modules

// fail(format, …): raises a message as C does.
static int fail(lua_State *L) {
  lua_getglobal(L, "string");
  lua_getfield(L, -1, "format");
  lua_replace(L, -2);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return dlua_bind_raise_text(L, lua_tostring(L, -1));
}

const char *dlua_bind_nearest(lua_State *L, int index, const char *word) {
  const char *words[512];
  int count = 0;
  index = lua_absindex(L, index);
  for (lua_Integer k = 1; count < 512 && lua_rawgeti(L, index, k) != LUA_TNIL; k++) {
    if (lua_type(L, -1) == LUA_TSTRING) words[count++] = lua_tostring(L, -1);
    lua_pop(L, 1); // the array keeps it
  }
  lua_pop(L, 1);
  return dlua_nearest(word, count, words);
}

// nearest(word, list): the entry spelt most like word, or nil.
static int nearest(lua_State *L) {
  const char *word = dlua_bind_need_string(L, 1, "nearest: word");
  dlua_bind_need_table(L, 2, "nearest: list");
  lua_pushstring(L, dlua_bind_nearest(L, 2, word));
  return 1;
}

// set_module_call(fn): frames of fn, whose first local is a module, make the layer path.
static int set_module_call(lua_State *L) {
  if (!lua_isfunction(L, 1)) return dlua_bind_raise(L, "set_module_call: fn must be a function");
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &module_call_key);
  return 0;
}

// set_layer_path(fn): fn(modules, outermost first) gives "features.1".
static int set_layer_path(lua_State *L) {
  if (!lua_isfunction(L, 1)) return dlua_bind_raise(L, "set_layer_path: fn must be a function");
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &layer_path_key);
  return 0;
}

void dlua_bind_errors(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"fail", fail},
      {"nearest", nearest},
      {"set_module_call", set_module_call},
      {"set_layer_path", set_layer_path},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
  find_folder(L);
}
