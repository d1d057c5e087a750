// device.c - devices, memory figures and the settings of the process, as functions of dlua.
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../runtime/backend.h"
#include "../runtime/settings.h"
#include "value.h"

// ---------------------------------------------------------------- devices

static dlua_device *device_at(lua_State *L, int index, const char *fallback) {
  dlua_device *device = NULL;
  const char *name = dlua_bind_opt_string(L, index, "device: name", fallback);
  dlua_bind_check(L, dlua_device_find(name, &device));
  return device;
}

// device(name | "auto"): the name of a device that is there; auto is cuda where it works, else cpu.
static int device(lua_State *L) {
  dlua_device *found = NULL;
  const char *name = dlua_bind_opt_string(L, 1, "device: name", "auto");
  if (strcmp(name, "auto") != 0)
    found = device_at(L, 1, name);
  else if (dlua_device_find("cuda", &found) != DLUA_OK)
    found = dlua_cpu();
  lua_pushstring(L, dlua_device_name(found));
  return 1;
}

// cuda.available(): true, or false and why not.
static int cuda_available(lua_State *L) {
  dlua_device *found = NULL;
  bool there = dlua_device_find("cuda", &found) == DLUA_OK;
  lua_pushboolean(L, there);
  if (there) return 1;
  lua_pushstring(L, dlua_message());
  return 2;
}

static void set_integer(lua_State *L, const char *key, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, key);
}

static void set_string(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

// cuda.devices(): {device, name, memory (bytes), free, capability, multiprocessors, libraries} of each.
static int cuda_devices(lua_State *L) {
  device_at(L, 1, "cuda");
  lua_newtable(L);
  for (int k = 0, n = 0; k < dlua_device_count(); k++) {
    const dlua_device *d = dlua_device_at(k);
    dlua_device_info info;
    if (strcmp(d->backend->name, "cuda") != 0) continue;
    dlua_bind_check(L, d->backend->info(d->index, &info));
    lua_newtable(L);
    set_string(L, "device", d->name);
    set_string(L, "name", info.name);
    set_string(L, "libraries", info.libraries);
    set_integer(L, "memory", info.memory);
    set_integer(L, "free", info.free);
    set_integer(L, "multiprocessors", (uint64_t)info.multiprocessors);
    lua_pushfstring(L, "%d.%d", info.major, info.minor);
    lua_setfield(L, -2, "capability");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

// send(x): starts bringing the one element of a tensor on a device to the host, without waiting;
// gives a ticket.
static int send(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "send: x");
  dlua_ticket *ticket = lua_newuserdatauv(L, sizeof *ticket, 0);
  dlua_bind_check(L, dlua_name_failure(dlua_send(x, ticket), "send"));
  luaL_setmetatable(L, "dlua.ticket");
  return 1;
}

// receive(ticket): the number, or nil while it is on its way.
static int receive(lua_State *L) {
  const dlua_ticket *ticket = luaL_testudata(L, 1, "dlua.ticket");
  bool arrived = false;
  double value = 0;
  if (!ticket) return dlua_bind_raise(L, "receive: takes what send gave");
  dlua_bind_check(L, dlua_name_failure(dlua_receive(ticket, &arrived, &value), "receive"));
  if (arrived) lua_pushnumber(L, value);
  return arrived;
}

static int synchronize_on(lua_State *L, const char *fallback) {
  dlua_device *device = device_at(L, 1, fallback);
  dlua_bind_check(L, dlua_name_failure(dlua_synchronize(device), "synchronize"));
  return 0;
}
static int cuda_synchronize(lua_State *L) { return synchronize_on(L, "cuda"); }
static int synchronize(lua_State *L) { return synchronize_on(L, "cpu"); }

static int empty_cache_of(lua_State *L, const char *fallback) {
  dlua_empty_cache(device_at(L, 1, fallback));
  dlua_bind_measure_anew();
  return 0;
}
static int cuda_empty_cache(lua_State *L) { return empty_cache_of(L, "cuda"); }
static int empty_cache(lua_State *L) { return empty_cache_of(L, "cpu"); }

// ---------------------------------------------------------------- memory

// memory([device]): bytes live, peak and cached, blocks handed out and taken from the system, bytes
// of Lua; for devices the largest cached block and the number of segments too.
static int memory_of(lua_State *L, const char *fallback) {
  const dlua_device *device = device_at(L, 1, fallback);
  dlua_memory m = dlua_memory_stats(device);
  lua_newtable(L);
  set_integer(L, "live", m.live);
  set_integer(L, "peak", m.peak);
  set_integer(L, "cached", m.cached);
  set_integer(L, "allocations", m.allocations);
  set_integer(L, "system", m.system);
  if (device != dlua_cpu()) {
    set_integer(L, "largest", m.largest);
    set_integer(L, "segments", (uint64_t)m.segments);
  }
  set_integer(L, "lua",
              (uint64_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (uint64_t)lua_gc(L, LUA_GCCOUNTB));
  return 1;
}
static int memory(lua_State *L) { return memory_of(L, "cpu"); }
static int cuda_memory(lua_State *L) { return memory_of(L, "cuda"); }

static int reset_peak_of(lua_State *L, const char *fallback) {
  dlua_memory_reset_peak(device_at(L, 1, fallback));
  return 0;
}
static int reset_peak_memory(lua_State *L) { return reset_peak_of(L, "cpu"); }
static int cuda_reset_peak_memory(lua_State *L) { return reset_peak_of(L, "cuda"); }

// ---------------------------------------------------------------- settings

// threads([n]): the size of the kernel team, before n is set.
static int threads(lua_State *L) {
  int before = dlua_threads();
  if (!lua_isnoneornil(L, 1)) {
    int ok;
    lua_Integer n = lua_tointegerx(L, 1, &ok);
    if (!ok || n < 1)
      return dlua_bind_raise(L, "threads: n must be at least 1, got %s",
                             luaL_tolstring(L, 1, NULL));
    dlua_set_threads(n > 1024 ? 1024 : (int)n);
  }
  lua_pushinteger(L, before);
  return 1;
}

static int seed(lua_State *L) {
  int ok;
  lua_Integer n = lua_tointegerx(L, 1, &ok);
  if (!ok) return dlua_bind_raise(L, "seed: n must be an integer, got %s", dlua_bind_type(L, 1));
  dlua_seed((uint64_t)n);
  return 0;
}

// rng_state(): {seed, offset} of the generator; set_rng_state takes it back.
static int rng_state(lua_State *L) {
  uint64_t state[2];
  dlua_rng_state(state);
  lua_createtable(L, 2, 0);
  for (int k = 0; k < 2; k++) lua_pushinteger(L, (lua_Integer)state[k]), lua_rawseti(L, -2, k + 1);
  return 1;
}

static int set_rng_state(lua_State *L) {
  uint64_t state[2];
  if (!lua_istable(L, 1)) return dlua_bind_raise(L, "set_rng_state: takes what rng_state() gave");
  for (int k = 0; k < 2; k++) {
    if (lua_rawgeti(L, 1, k + 1) != LUA_TNUMBER) {
      return dlua_bind_raise(L, "set_rng_state: takes what rng_state() gave");
    }
    state[k] = (uint64_t)lua_tointeger(L, -1);
  }
  dlua_set_rng_state(state);
  return 0;
}

// random_key(): a fresh 64-bit integer from the generator, for streams of one's own.
static int random_key(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)dlua_random_key());
  return 1;
}

static int seconds(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
  return 1;
}

// A switch of the process: gives its state, and sets it when an argument is there.
static int switch_of(lua_State *L, const char *who, bool state, bool (*set)(bool on)) {
  if (!lua_isnoneornil(L, 1) && !lua_isboolean(L, 1)) {
    return dlua_bind_raise(L, "%s: on must be a boolean, got %s", who, dlua_bind_type(L, 1));
  }
  if (lua_isboolean(L, 1)) set(lua_toboolean(L, 1));
  lua_pushboolean(L, state);
  return 1;
}

// winograd([on]), autotune([on]), cuda.tf32([on]): what it was before.
static int winograd(lua_State *L) {
  return switch_of(L, "winograd", dlua_winograd(), dlua_set_winograd);
}
static int autotune(lua_State *L) {
  return switch_of(L, "autotune", dlua_autotune(), dlua_set_autotune);
}
static int tf32(lua_State *L) { return switch_of(L, "tf32", dlua_tf32(), dlua_set_tf32); }

// is_terminal(): whether what a script prints is shown on a terminal.
static int is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty(STDOUT_FILENO));
  return 1;
}

static void add_table(lua_State *L, const char *name, const luaL_Reg *functions) {
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  lua_setfield(L, -2, name);
}

void dlua_bind_device(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"device", device},
      {"synchronize", synchronize},
      {"empty_cache", empty_cache},
      {"memory", memory},
      {"reset_peak_memory", reset_peak_memory},
      {"send", send},
      {"receive", receive},
      {"threads", threads},
      {"seed", seed},
      {"rng_state", rng_state},
      {"set_rng_state", set_rng_state},
      {"random_key", random_key},
      {"time", seconds},
      {"winograd", winograd},
      {"autotune", autotune},
      {"is_terminal", is_terminal},
      {NULL, NULL},
  };
  static const luaL_Reg cuda[] = {{"available", cuda_available},
                                  {"devices", cuda_devices},
                                  {"synchronize", cuda_synchronize},
                                  {"empty_cache", cuda_empty_cache},
                                  {"memory", cuda_memory},
                                  {"tf32", tf32},
                                  {"reset_peak_memory", cuda_reset_peak_memory},
                                  {NULL, NULL}};
  luaL_newmetatable(L, "dlua.ticket");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
  add_table(L, "cuda", cuda);
  lua_pushliteral(L, DLUA_VERSION);
  lua_setfield(L, -2, "version");
}
