// grad.c - gradients as a script asks for them: backward, grad, and the recording mode. Functions
// with a gradient of their own are in function.c.
#include <string.h>

#include "../runtime/autocast.h"
#include "value.h"

enum { MOST = 256 }; // tensors in one dlua.grad call

// ---------------------------------------------------------------- backward

// x:backward([gradient], {retain_graph, create_graph})
static int backward(lua_State *L) {
  static const char *const names[] = {"retain_graph", "create_graph", "gradient", NULL};
  dlua_tensor *x = dlua_bind_tensor(L, 1, "backward: x"), *gradient = NULL;
  int options = dlua_bind_is_options(L, 2) ? 2 : 3;
  lua_settop(L, 3);
  dlua_bind_check_options(L, options, "backward", names);
  if (options == 3 && !lua_isnil(L, 2)) gradient = dlua_bind_tensor(L, 2, "backward: gradient");
  if (lua_istable(L, options) && lua_getfield(L, options, "gradient") != LUA_TNIL) {
    gradient = dlua_bind_tensor(L, -1, "backward: gradient");
  }
  bool retain = dlua_bind_flag(L, options, "backward", "retain_graph", false);
  bool create = dlua_bind_flag(L, options, "backward", "create_graph", false);
  dlua_bind_enter(L);
  dlua_bind_check(L, dlua_backward(x, gradient, retain, create));
  return 0;
}

// ---------------------------------------------------------------- grad

// Reads one tensor or a list of them into list; the number is the result.
static int read_tensors(lua_State *L, int index, const char *who, dlua_tensor **list) {
  list[0] = dlua_bind_test_tensor(L, index);
  if (list[0]) return 1;
  if (!lua_istable(L, index)) {
    dlua_bind_raise(L, "grad: %s must be a tensor or a list of tensors, got %s", who,
                    dlua_bind_type(L, index));
  }
  int count = (int)lua_rawlen(L, index);
  luaL_checkstack(L, count + 4, "grad: too many tensors");
  if (count == 0 || count > MOST)
    dlua_bind_raise(L, "grad: %s has %d tensors, not 1..%d", who, count, MOST);
  for (int k = 0; k < count; k++) {
    lua_rawgeti(L, index, k + 1);
    list[k] = dlua_bind_test_tensor(L, -1);
    if (!list[k])
      dlua_bind_raise(L, "grad: item %d of %s must be a tensor, got %s", k + 1, who,
                      dlua_bind_type(L, -1)); // it stays here: a finalizer may change the list
  }
  return count;
}

static void refuse_unused(lua_State *L, int count, dlua_tensor **results) {
  for (int k = 0; k < count; k++) {
    if (results[k]) continue;
    for (int i = 0; i < count; i++) dlua_tensor_release(results[i]);
    dlua_bind_raise(
        L,
        "grad: input %d was not used to compute the output; allow_unused = true gives nil for it",
        k + 1);
  }
}

// grad(y | {y, …}, x | {x, …}, {grad_outputs, retain_graph, create_graph, allow_unused})
static int grad(lua_State *L) {
  static const char *const names[] = {"retain_graph", "create_graph", "allow_unused",
                                      "grad_outputs", NULL};
  dlua_tensor *y[MOST], *x[MOST], *g[MOST], *results[MOST];
  dlua_tensor **slot[MOST];
  dlua_bind_enter(L);
  lua_settop(L, 3);
  int ny = read_tensors(L, 1, "y", y), nx = read_tensors(L, 2, "x", x);
  dlua_bind_check_options(L, 3, "grad", names);
  bool given = lua_istable(L, 3) && lua_getfield(L, 3, "grad_outputs") != LUA_TNIL;
  if (given && read_tensors(L, lua_gettop(L), "grad_outputs", g) != ny) {
    dlua_bind_raise(L, "grad: grad_outputs must be as many as y, which are %d", ny);
  }
  bool retain = dlua_bind_flag(L, 3, "grad", "retain_graph", false);
  bool create = dlua_bind_flag(L, 3, "grad", "create_graph", false);
  bool unused = dlua_bind_flag(L, 3, "grad", "allow_unused", false);
  luaL_checkstack(L, nx + 4, "grad: too many inputs");
  for (int k = 0; k < nx; k++) slot[k] = dlua_bind_box(L);
  dlua_bind_check(L, dlua_grad(ny, y, given ? g : NULL, nx, x, retain, create, results));
  if (!unused) refuse_unused(L, nx, results);
  int first = lua_gettop(L) - nx + 1;
  for (int k = 0; k < nx; k++) {
    *slot[k] = results[k];
    if (!results[k]) lua_pushnil(L), lua_replace(L, first + k);
  }
  return nx;
}

// ---------------------------------------------------------------- the mode

// Calls the function at 1 with the rest as arguments in a mode; the mode is put back on errors too.
// A plain pcall cannot be yielded across, which is meant: another coroutine would run in this one's
// mode.
static int in_mode(lua_State *L, const char *who, bool on) {
  if (!lua_isfunction(L, 1)) {
    return dlua_bind_raise(L, "%s: fn must be a function, got %s", who, dlua_bind_type(L, 1));
  }
  bool before = dlua_set_grad_mode(on);
  int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  dlua_set_grad_mode(before);
  return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

static int no_grad(lua_State *L) { return in_mode(L, "no_grad", false); }
static int enable_grad(lua_State *L) { return in_mode(L, "enable_grad", true); }

// autocast(dtype, fn, …): calls fn with its ops' inputs cast, "f32" meaning as they are.
static int autocast(lua_State *L) {
  dlua_dtype dtype;
  dlua_bind_check(L, dlua_dtype_find(dlua_bind_need_string(L, 1, "autocast: dtype"), &dtype));
  if (dtype != DLUA_BF16 && dtype != DLUA_F16 && dtype != DLUA_F32)
    return dlua_bind_raise(L, "autocast: dtype must be bf16, f16 or f32, got %s",
                           dlua_dtype_name(dtype));
  if (!lua_isfunction(L, 2))
    return dlua_bind_raise(L, "autocast: fn must be a function, got %s", dlua_bind_type(L, 2));
  dlua_dtype before = dlua_set_autocast(dtype);
  int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  dlua_set_autocast(before);
  return status == LUA_OK ? lua_gettop(L) - 1 : lua_error(L);
}

// autocast_dtype(): what autocast casts to at the moment, or nil.
static int autocast_dtype(lua_State *L) {
  if (dlua_autocast() == DLUA_F32) return 0;
  lua_pushstring(L, dlua_dtype_name(dlua_autocast()));
  return 1;
}

static int is_grad_enabled(lua_State *L) {
  lua_pushboolean(L, dlua_grad_mode());
  return 1;
}

void dlua_bind_grad(lua_State *L) {
  static const luaL_Reg functions[] = {{"grad", grad},
                                       {"no_grad", no_grad},
                                       {"enable_grad", enable_grad},
                                       {"is_grad_enabled", is_grad_enabled},
                                       {"autocast", autocast},
                                       {"autocast_dtype", autocast_dtype},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_getfield(L, -1, "methods");
  lua_pushcfunction(L, backward);
  lua_setfield(L, -2, "backward");
  lua_pop(L, 1);
  dlua_bind_functions(L);
}
