// move.c - what a tensor is as a whole: its dtype and device, its place in the graph. to() is the
// cast op for dtypes and a recorded copy for devices, so gradients travel back the same way.
#include <string.h>

#include "../runtime/grad.h"
#include "value.h"

// ---------------------------------------------------------------- to

typedef struct target {
  dlua_dtype dtype;    // DLUA_DTYPES: as it is
  dlua_device *device; // NULL: as it is
} target;

// A word is a dtype or a device; which of the two was meant decides the message.
static dlua_status read_word(const char *word, target *t) {
  if (dlua_dtype_find(word, &t->dtype) == DLUA_OK) return DLUA_OK;
  bool device = strchr(word, ':') || strcmp(word, "cpu") == 0 || strcmp(word, "cuda") == 0 ||
                strcmp(word, "mock") == 0;
  if (!device)
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "to: '%s' is neither a dtype (f32 f64 bf16 f16 i64 i32 u8 bool) nor a device",
                     word);
  return dlua_device_find(word, &t->device);
}

// core.is_dtype(word): is it the name of a dtype?
static int is_dtype(lua_State *L) {
  dlua_dtype dtype;
  const char *word = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
  lua_pushboolean(L, word && dlua_dtype_find(word, &dtype) == DLUA_OK);
  return 1;
}

static target read_target(lua_State *L) {
  static const char *const names[] = {"dtype", "device", NULL};
  target t = {DLUA_DTYPES, NULL};
  bool unused = false;
  for (int k = 2; k <= lua_gettop(L); k++) {
    dlua_tensor *like = dlua_bind_test_tensor(L, k);
    if (like)
      t = (target){(dlua_dtype)like->dtype, dlua_device_of(like)};
    else if (lua_type(L, k) == LUA_TSTRING)
      dlua_bind_check(L, read_word(lua_tostring(L, k), &t));
    else if (lua_istable(L, k)) {
      dlua_bind_check_options(L, k, "to", names);
      dlua_bind_tensor_options(L, k, "to", &t.dtype, &t.device, &unused);
    } else
      dlua_bind_raise(L, "to: expected a dtype, a device or a tensor, got %s",
                      dlua_bind_type(L, k));
  }
  return t;
}

static void moved_back(dlua_back *b, void *device) {
  dlua_tensor *g = NULL;
  dlua_status status = dlua_to_device(b->g[0], device, &g);
  if (status != DLUA_OK)
    dlua_failed(b->s, status);
  else
    dlua_give(b, 0, dlua_own(b->s, g));
}

static void drop_nothing(void *user) { (void)user; }

// x on another device; recorded when a gradient may be asked for.
static dlua_status move(dlua_tensor *x, dlua_device *device, dlua_tensor **y) {
  DLUA_TRY(dlua_to_device(x, device, y));
  if (!x->requires_grad || !dlua_grad_mode()) return DLUA_OK;
  return dlua_record_custom(1, &x, 1, y, moved_back, drop_nothing, dlua_device_of(x));
}

static dlua_status cast(dlua_tensor *x, dlua_dtype dtype, dlua_tensor **y) {
  dlua_args a;
  dlua_args_init(&a, &dlua_op_cast);
  a.in[0] = x;
  a.num[0].set = true, a.num[0].i = dtype;
  DLUA_TRY(dlua_run(&a));
  *y = a.out[0];
  return DLUA_OK;
}

// to(dtype | device | tensor | {dtype, device}, …): x itself when nothing changes.
static int to(lua_State *L) {
  dlua_bind_enter(L);
  dlua_tensor *x = dlua_bind_tensor(L, 1, "to: x");
  target t = read_target(L);
  lua_pushvalue(L, 1);
  if (t.dtype != DLUA_DTYPES && t.dtype != x->dtype) {
    dlua_tensor **slot = dlua_bind_box(L);
    dlua_bind_check(L, cast(x, t.dtype, slot));
    x = *slot;
  }
  if (t.device && t.device != dlua_device_of(x)) {
    dlua_tensor **slot = dlua_bind_box(L);
    dlua_status status = move(x, t.device, slot);
    dlua_bind_check(L, dlua_name_failure(status, "to"));
  }
  return 1;
}

// ---------------------------------------------------------------- the graph

static int detach(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "detach: x"), **slot = dlua_bind_box(L);
  dlua_bind_check(L, dlua_tensor_detach(slot, x));
  return 1;
}

static int requires_grad_(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "requires_grad_: x");
  bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
  if (!lua_isnoneornil(L, 2) && !lua_isboolean(L, 2))
    return dlua_bind_raise(L, "requires_grad_: on must be a boolean, got %s", dlua_bind_type(L, 2));
  dlua_bind_check(L, dlua_bind_require(x, "requires_grad_", on));
  lua_settop(L, 1);
  return 1;
}

// A fresh box of the same tensor, which the innermost open scope releases.
static int alias(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "alias: x");
  *dlua_bind_box(L) = dlua_tensor_retain(x);
  return 1;
}

void dlua_bind_moves(lua_State *L) {
  static const luaL_Reg methods[] = {{"to", to},
                                     {"detach", detach},
                                     {"requires_grad_", requires_grad_},
                                     {"alias", alias},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"is_dtype", is_dtype}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_getfield(L, -1, "methods");
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 1);
}
