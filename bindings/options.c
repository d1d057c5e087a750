// options.c - reading the last table of a call by hand, for the functions that are no ops. The
// words of the errors are those of op.c.
#include <string.h>

#include "../runtime/words.h"
#include "value.h"

bool dlua_bind_is_options(lua_State *L, int index) {
  if (!lua_istable(L, index)) return false;
  index = lua_absindex(L, index);
  bool any = false;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    any = true;
    if (lua_type(L, -2) == LUA_TSTRING) continue;
    lua_pop(L, 2);
    return false;
  }
  return any;
}

static bool is_among(const char *word, const char *const *names) {
  while (*names && strcmp(word, *names) != 0) names++;
  return *names != NULL;
}

static void unknown_option(lua_State *L, const char *who, const char *key,
                           const char *const *names) {
  int count = 0;
  while (names[count]) count++;
  const char *near = dlua_nearest(key, count, names);
  if (near) dlua_bind_raise(L, "%s: unknown option '%s' (did you mean '%s'?)", who, key, near);
  dlua_bind_raise(L, "%s: unknown option '%s'", who, key);
}

void dlua_bind_check_options(lua_State *L, int index, const char *who, const char *const *names) {
  if (lua_isnoneornil(L, index)) return;
  if (!lua_istable(L, index)) {
    dlua_bind_raise(L, "%s: options must be a table, got %s", who, dlua_bind_type(L, index));
  }
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      dlua_bind_raise(L, "%s: options have names, such as %s = …", who, names[0]);
    if (!is_among(lua_tostring(L, -2), names)) unknown_option(L, who, lua_tostring(L, -2), names);
  }
}

bool dlua_bind_flag(lua_State *L, int index, const char *who, const char *key, bool fallback) {
  if (!lua_istable(L, index)) return fallback;
  lua_getfield(L, index, key);
  if (!lua_isnil(L, -1)) {
    if (!lua_isboolean(L, -1)) {
      dlua_bind_raise(L, "%s: %s must be a boolean, got %s", who, key, dlua_bind_type(L, -1));
    }
    fallback = lua_toboolean(L, -1);
  }
  lua_pop(L, 1);
  return fallback;
}

double dlua_bind_number(lua_State *L, int index, const char *who, const char *key) {
  if (lua_getfield(L, index, key) != LUA_TNUMBER)
    dlua_bind_raise(L, "%s: %s must be a number, got %s", who, key, dlua_bind_type(L, -1));
  double value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

int64_t dlua_bind_integer(lua_State *L, int index, const char *who, const char *key) {
  lua_getfield(L, index, key);
  if (!lua_isinteger(L, -1))
    dlua_bind_raise(L, "%s: %s must be an integer, got %s", who, key, dlua_bind_type(L, -1));
  int64_t value = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

void dlua_bind_need_table(lua_State *L, int index, const char *who) {
  if (!lua_istable(L, index))
    dlua_bind_raise(L, "%s must be a table, got %s", who, dlua_bind_type(L, index));
}

int64_t dlua_bind_need_integer(lua_State *L, int index, const char *who) {
  int64_t value = 0;
  int ok = 0;
  if (lua_type(L, index) == LUA_TNUMBER) value = lua_tointegerx(L, index, &ok);
  if (!ok) dlua_bind_raise(L, "%s must be an integer, got %s", who, dlua_bind_type(L, index));
  return value;
}

const char *dlua_bind_opt_string(lua_State *L, int index, const char *who, const char *fallback) {
  return lua_isnoneornil(L, index) ? fallback : dlua_bind_need_string(L, index, who);
}

const char *dlua_bind_need_string(lua_State *L, int index, const char *who) {
  if (lua_type(L, index) != LUA_TSTRING)
    dlua_bind_raise(L, "%s must be a string, got %s", who, dlua_bind_type(L, index));
  return lua_tostring(L, index);
}

// A string option on top of the stack, or NULL when it is missing.
static const char *push_word(lua_State *L, int index, const char *who, const char *key) {
  int type = lua_getfield(L, index, key);
  if (type == LUA_TNIL) return NULL;
  if (type != LUA_TSTRING)
    dlua_bind_raise(L, "%s: %s must be a string, got %s", who, key, dlua_bind_type(L, -1));
  return lua_tostring(L, -1);
}

void dlua_bind_tensor_options(lua_State *L, int index, const char *who, dlua_dtype *dtype,
                              dlua_device **device, bool *requires_grad) {
  if (!lua_istable(L, index)) return;
  const char *word = push_word(L, index, who, "dtype");
  if (word) dlua_bind_check(L, dlua_dtype_find(word, dtype));
  word = push_word(L, index, who, "device");
  if (word) dlua_bind_check(L, dlua_device_find(word, device));
  lua_pop(L, 2);
  *requires_grad = dlua_bind_flag(L, index, who, "requires_grad", *requires_grad);
}

dlua_status dlua_bind_require(dlua_tensor *x, const char *who, bool on) {
  if (on && !dlua_is_float((dlua_dtype)x->dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "%s: only float tensors can require a gradient, not %s (x %s)", who,
                     dlua_dtype_name((dlua_dtype)x->dtype), dlua_shape_text(x));
  }
  if (!on && x->node) {
    return dlua_fail(
        DLUA_BAD_STATE,
        "%s: x was made by a recorded call; x:detach() gives it without history (x %s)", who,
        dlua_shape_text(x));
  }
  x->requires_grad = on;
  return DLUA_OK;
}
