// hooks.c - dlua.test: makes rare things frequent, for specs. Allocations of the runtime and of Lua
// fail when told to, a collection runs at every call, plain kernels run alone, devices fault.
//
// Lua tries a failed allocation again after a full collection, so a failure means both tries. The
// allocator is only wrapped while the hooks for it are in use.
#include "../runtime/backend.h"
#include "value.h"

static int fail_allocation(lua_State *L) {
  dlua_fail_allocation((uint64_t)dlua_bind_need_integer(L, 1, "fail_allocation: n"),
                       lua_toboolean(L, 2));
  return 0;
}

static int allocation_count(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)dlua_allocation_count());
  return 1;
}

// ---------------------------------------------------------------- Lua's own allocations

static struct {
  lua_Alloc alloc;
  void *state;
  lua_Integer count, fail_at; // fail_at: 0 for none
} lua_memory;

static void *counting_alloc(void *state, void *block, size_t had, size_t size) {
  (void)state;
  bool grows = size > (block ? had : 0);
  if (grows) {
    lua_Integer n = ++lua_memory.count;
    if (lua_memory.fail_at > 0 && (n == lua_memory.fail_at || n == lua_memory.fail_at + 1)) {
      return NULL;
    }
  }
  return lua_memory.alloc(lua_memory.state, block, had, size);
}

// fail_lua_allocation(n): the n-th request for memory of Lua's fails; 0 ends it and the counting.
static int fail_lua_allocation(lua_State *L) {
  lua_Integer n = dlua_bind_need_integer(L, 1, "fail_lua_allocation: n");
  if (!lua_memory.alloc) {
    lua_memory.alloc = lua_getallocf(L, &lua_memory.state);
    lua_setallocf(L, counting_alloc, NULL);
  }
  lua_memory.fail_at = n > 0 ? lua_memory.count + n : 0;
  if (n == 0) {
    lua_setallocf(L, lua_memory.alloc, lua_memory.state);
    lua_memory.alloc = NULL;
  }
  return 0;
}

// lua_allocation_count(): requests since the wrapping.
static int lua_allocation_count(lua_State *L) {
  lua_pushinteger(L, lua_memory.count);
  return 1;
}

// ---------------------------------------------------------------- the rest

// collect_always([on]): whether a full collection runs at every call and before every new tensor,
// before setting it.
static int collect_always(lua_State *L) {
  lua_pushboolean(L, dlua_bind_collect_always(lua_isnone(L, 1) ? -1 : lua_toboolean(L, 1)));
  return 1;
}

// fault(device, "alloc" | "copy" | "launch", n): the n-th such thing on the device fails.
static int fault(lua_State *L) {
  dlua_device *d = NULL;
  dlua_bind_check(L, dlua_device_find(dlua_bind_opt_string(L, 1, "fault: device", "mock"), &d));
  const char *what = dlua_bind_need_string(L, 2, "fault: what");
  if (!d->backend->test_fault)
    return dlua_bind_raise(L, "fault: %s has no faults to inject", d->name);
  dlua_bind_check(L, d->backend->test_fault(what, (int)dlua_bind_need_integer(L, 3, "fault: n")));
  return 0;
}

// waits(device): how often the host has waited for the device so far.
static int waits(lua_State *L) {
  dlua_device *d = NULL;
  dlua_bind_check(L, dlua_device_find(dlua_bind_need_string(L, 1, "waits: device"), &d));
  lua_pushinteger(L, (lua_Integer)dlua_waits(d));
  return 1;
}

// layout(x): how x's elements lie, "strided", "nchw8c", "nchw16c" or "nhwc".
static int layout(lua_State *L) {
  static const char *const names[] = {"strided", "nchw8c", "nchw16c", "nhwc"};
  lua_pushstring(L, names[dlua_bind_tensor(L, 1, "layout")->storage->layout]);
  return 1;
}

// reorders(): how often a whole tensor has been brought to another layout so far.
static int reorders(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)dlua_reorders());
  return 1;
}

// reference([on]): whether only plain kernels run, before setting it.
static int reference(lua_State *L) {
  lua_pushboolean(L, dlua_reference_mode());
  if (!lua_isnone(L, 1)) dlua_set_reference_mode(lua_toboolean(L, 1));
  return 1;
}

void dlua_bind_hooks(lua_State *L) {
  static const luaL_Reg functions[] = {{"fail_allocation", fail_allocation},
                                       {"allocation_count", allocation_count},
                                       {"fail_lua_allocation", fail_lua_allocation},
                                       {"lua_allocation_count", lua_allocation_count},
                                       {"collect_always", collect_always},
                                       {"fault", fault},
                                       {"waits", waits},
                                       {"layout", layout},
                                       {"reorders", reorders},
                                       {"reference", reference},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "test");
}
