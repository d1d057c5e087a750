// function.c - dlua.Function{forward =, backward =}: an op written in Lua.
//
// The node that records a call holds one reference into Lua, to a record {backward, ctx, held}. It
// is dropped by whoever frees the node, perhaps inside a finalizer or on another thread, so dropped
// references wait in a queue for the Lua thread. held lists the tensors in ctx and in plain tables
// of it: they outlive scopes. Outputs among them would make the node own itself; they are stored
// detached and tied to the node again for the time of backward. Tensors in ctx that were changed in
// place since are an error, as for any op.
#include <string.h>

#include "../runtime/grad.h"
#include "value.h"

enum { MOST_TENSORS = 64 };

typedef struct record {
  int ref;
  int position[MOST_TENSORS]; // of input k among forward's arguments, from 1
  struct record *next;
} record;

static record *dropped; // atomic stack

static const char pending_key; // the Lua error of a backward function, on its way to the caller

// ---------------------------------------------------------------- references

static void drop(void *user) {
  record *r = user;
  r->next = __atomic_load_n(&dropped, __ATOMIC_RELAXED);
  while (
      !__atomic_compare_exchange_n(&dropped, &r->next, r, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
    continue;
}

void dlua_bind_drain(lua_State *L) {
  if (!__atomic_load_n(&dropped, __ATOMIC_RELAXED)) return;
  record *r = __atomic_exchange_n(&dropped, NULL, __ATOMIC_ACQUIRE);
  while (r) {
    record *next = r->next;
    luaL_unref(L, LUA_REGISTRYINDEX, r->ref);
    dlua_delete(r, sizeof *r);
    r = next;
  }
}

bool dlua_bind_raise_pending(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &pending_key) == LUA_TNIL) return lua_pop(L, 1), false;
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pending_key);
  lua_error(L);
  return true;
}

// ---------------------------------------------------------------- what ctx holds

static void push_alias(lua_State *L, dlua_tensor *x) {
  dlua_tensor **slot = dlua_bind_box(L);
  dlua_bind_check(L, dlua_tensor_detach(slot, x));
}

static int output_at(dlua_tensor *x, int nout, dlua_tensor **out) {
  for (int k = 0; k < nout; k++) {
    if (out[k] == x) return k;
  }
  return -1;
}

// A tensor in held: its table, its key there, its version, and which output it is, or -1.
enum { TABLE = 1, KEY, VERSION, OUTPUT, FIELDS = OUTPUT };

typedef struct settling {
  int held, nout;
  lua_Integer count;
  dlua_tensor **out;
} settling;

static void set_held(lua_State *L, settling *s, int field) {
  lua_rawseti(L, s->held, s->count * FIELDS + field);
}

// Notes a tensor that ctx holds and takes it out of scopes; an output is replaced by a detached
// one.
static void settle(lua_State *L, int table, void *user) {
  settling *s = user;
  dlua_tensor *x = dlua_bind_test_tensor(L, -1);
  if (!x) return;
  int k = output_at(x, s->nout, s->out);
  lua_pushvalue(L, table), set_held(L, s, TABLE);
  lua_pushvalue(L, -2), set_held(L, s, KEY);
  lua_pushinteger(L, x->storage->version), set_held(L, s, VERSION);
  lua_pushinteger(L, k), set_held(L, s, OUTPUT);
  s->count++;
  if (k < 0) return dlua_bind_keep(L, -1);
  lua_pushvalue(L, -2);
  push_alias(L, x);
  dlua_bind_keep(L, -1);
  lua_rawset(L, table);
}

// Pushes the table, the key and the value of tensor k, from 0, in held; false: there is none.
static bool push_held(lua_State *L, int held, lua_Integer k) {
  if (lua_rawgeti(L, held, k * FIELDS + TABLE) == LUA_TNIL) return lua_pop(L, 1), false;
  lua_rawgeti(L, held, k * FIELDS + KEY);
  lua_pushvalue(L, -1);
  lua_rawget(L, -3);
  return true;
}

static lua_Integer held_integer(lua_State *L, int held, lua_Integer k, int field) {
  lua_rawgeti(L, held, k * FIELDS + field);
  lua_Integer value = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

// Raises when a tensor of ctx was changed in place since forward.
static void check_versions(lua_State *L, const dlua_node *node, int ctx, int held) {
  for (lua_Integer k = 0; push_held(L, held, k); k++) {
    dlua_tensor *x = dlua_bind_test_tensor(L, -1);
    if (x && (lua_Integer)x->storage->version != held_integer(L, held, k, VERSION)) {
      const char *place = lua_rawequal(L, -3, ctx) ? "ctx." : "a tensor nested in ctx at key ";
      dlua_bind_raise(
          L, "Function: %s%s was changed in place after the call at %s, and backward needs it (%s)",
          place, luaL_tolstring(L, -2, NULL), node->where, dlua_shape_text(x));
    }
    lua_pop(L, 3);
  }
}

// Makes the outputs in ctx results of the node (on) or detached ones again.
static void tie_outputs(lua_State *L, dlua_node *node, int held, bool on) {
  for (lua_Integer k = 0; push_held(L, held, k); k++) {
    lua_Integer output = held_integer(L, held, k, OUTPUT);
    dlua_tensor *x = output < 0 ? NULL : dlua_bind_test_tensor(L, -1);
    if (x) {
      push_alias(L, x);
      dlua_tensor of = {.node = node, .output = (uint8_t)output};
      if (on) dlua_bind_check(L, dlua_attach(dlua_bind_test_tensor(L, -1), &of));
      dlua_bind_keep(L, -1);
      lua_replace(L, -2);
      lua_rawset(L, -3);
      lua_pop(L, 1);
    } else {
      lua_pop(L, 3);
    }
  }
}

// ---------------------------------------------------------------- backward

// A gradient has the shape of its argument, or of what that was broadcast to.
static void check_shape(lua_State *L, const dlua_back *b, int k, int position, dlua_tensor *g) {
  int ndim;
  int64_t size[DLUA_MAX_DIMS];
  dlua_input_shape(b, k, &ndim, size);
  bool fits = g->ndim >= ndim;
  for (int d = 1; fits && d <= ndim; d++)
    fits = size[ndim - d] == 1 || size[ndim - d] == g->size[g->ndim - d];
  if (fits) return;
  dlua_bind_raise(L, "Function: backward gave a gradient %s for argument %d of shape %s",
                  dlua_shape_text(g), position, dlua_sizes_text(ndim, size));
}

static void give_results(lua_State *L, dlua_back *b, const record *r, int first) {
  int count = lua_gettop(L) - first + 1;
  for (int k = 0; k < b->nin; k++) {
    int position = r->position[k];
    if (!dlua_needs(b, k)) continue;
    if (position > count) {
      dlua_bind_raise(L,
                      "Function: backward gave %d gradient%s but argument %d needs one too (nil "
                      "where there is none)",
                      count, count == 1 ? "" : "s", position);
    }
    int at = first + position - 1;
    if (lua_isnil(L, at)) continue;
    dlua_tensor *g = dlua_bind_test_tensor(L, at);
    if (!g) {
      dlua_bind_raise(L, "Function: backward must give a tensor or nil for argument %d, got %s",
                      position, dlua_bind_type(L, at));
    }
    check_shape(L, b, k, position, g);
    dlua_give(b, k, dlua_own(b->s, dlua_tensor_retain(g)));
  }
}

// Runs a record's Lua function. Arguments: dlua_back, record.
static int run_backward(lua_State *L) {
  dlua_back *b = lua_touserdata(L, 1);
  const record *r = lua_touserdata(L, 2);
  enum { RECORD = 3, CTX, HELD };
  lua_settop(L, 2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->ref);
  lua_rawgeti(L, RECORD, 2), lua_rawgeti(L, RECORD, 3);
  check_versions(L, b->node, CTX, HELD);
  bool tie = dlua_grad_mode();
  if (tie) tie_outputs(L, b->node, HELD, true);
  lua_rawgeti(L, RECORD, 1);
  lua_pushvalue(L, CTX);
  for (int k = 0; k < b->node->nout; k++) *dlua_bind_box(L) = dlua_tensor_retain(b->g[k]);
  int status = lua_pcall(L, 1 + b->node->nout, LUA_MULTRET, 0);
  luaL_checkstack(L, 10, "Function");
  if (tie) tie_outputs(L, b->node, HELD, false);
  if (status != LUA_OK) return lua_error(L);
  give_results(L, b, r, HELD + 1);
  return 0;
}

// Called by the walk: nothing may be raised through it.
static void back(dlua_back *b, void *user) {
  lua_State *L = dlua_bind_running();
  if (!lua_checkstack(L, 8)) {
    dlua_failed(b->s, dlua_fail(DLUA_NO_MEMORY, "Function: no stack for backward"));
    return;
  }
  lua_pushcfunction(L, run_backward);
  lua_pushlightuserdata(L, b);
  lua_pushlightuserdata(L, user);
  int status = lua_pcall(L, 2, 0, 0);
  dlua_bind_set_running(L);
  if (status == LUA_OK) return;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pending_key);
  dlua_failed(b->s, dlua_fail(DLUA_BAD_STATE, "Function: backward failed"));
}

// ---------------------------------------------------------------- forward

// Arguments that are tensors, in order; fills the record's positions.
static int read_inputs(lua_State *L, int nargs, record *r, dlua_tensor **in, bool *needed) {
  int count = 0;
  for (int k = 1; k <= nargs; k++) {
    dlua_tensor *x = dlua_bind_test_tensor(L, k);
    if (!x) continue;
    if (count == MOST_TENSORS)
      dlua_bind_raise(L, "Function: takes at most %d tensors, got more", MOST_TENSORS);
    *needed |= x->requires_grad;
    r->position[count] = k, in[count++] = x;
  }
  return count;
}

// forward may have released what it was given.
static void refuse_released(lua_State *L, int nin, const record *r) {
  for (int k = 0; k < nin; k++) {
    if (!dlua_bind_test_tensor(L, r->position[k]))
      dlua_bind_raise(L, "Function: forward released argument %d", r->position[k]);
  }
}

// The results from first on; those that are inputs or have a history of their own become fresh
// tensors.
static int read_outputs(lua_State *L, int first, int nin, dlua_tensor **in, dlua_tensor **out) {
  int count = 0, given = lua_gettop(L) - first + 1;
  if (given > DLUA_MAX_OUT)
    dlua_bind_raise(L, "Function: forward returns at most %d tensors, got %d", DLUA_MAX_OUT, given);
  for (int k = first; k < first + given; k++) {
    dlua_tensor *y = dlua_bind_test_tensor(L, k);
    if (!y)
      dlua_bind_raise(L, "Function: forward must return tensors, got %s", dlua_bind_type(L, k));
    if (y->node || output_at(y, nin, in) >= 0) {
      push_alias(L, y);
      lua_replace(L, k);
      y = dlua_bind_test_tensor(L, k);
    }
    out[count++] = y;
  }
  return count;
}

// Pushes ctx and calls forward (upvalue 1) with it and the arguments, not recording; the results
// lie above ctx.
static void run_forward(lua_State *L, int nargs) {
  luaL_checkstack(L, nargs + 10, NULL);
  lua_newtable(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, -2);
  for (int k = 1; k <= nargs; k++) lua_pushvalue(L, k);
  bool before = dlua_set_grad_mode(false);
  int status = lua_pcall(L, nargs + 1, LUA_MULTRET, 0);
  dlua_set_grad_mode(before);
  dlua_bind_set_running(L);
  if (status != LUA_OK) lua_error(L);
}

// Makes the record {backward, ctx, held} and a reference to it.
static int reference(lua_State *L, int ctx, int nout, dlua_tensor **out) {
  lua_createtable(L, 3, 0);
  lua_pushvalue(L, lua_upvalueindex(2)), lua_rawseti(L, -2, 1);
  lua_pushvalue(L, ctx), lua_rawseti(L, -2, 2);
  lua_newtable(L);
  settling s = {.held = lua_gettop(L), .nout = nout, .out = out};
  dlua_bind_walk(L, ctx, true, settle, &s);
  lua_rawseti(L, -2, 3);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

// Upvalues: forward, backward.
static int call_function(lua_State *L) {
  dlua_tensor *in[MOST_TENSORS], *out[DLUA_MAX_OUT];
  record found = {0};
  bool needed = false;
  dlua_bind_enter(L);
  int nargs = lua_gettop(L), ctx = nargs + 1;
  int nin = read_inputs(L, nargs, &found, in, &needed);
  run_forward(L, nargs);
  int results = lua_gettop(L) - ctx;
  if (!needed || !dlua_grad_mode()) return results;
  refuse_released(L, nin, &found);
  int nout = read_outputs(L, ctx + 1, nin, in, out);
  found.ref = reference(L, ctx, nout, out);
  record *kept = dlua_new(sizeof *kept);
  if (!kept) {
    luaL_unref(L, LUA_REGISTRYINDEX, found.ref);
    dlua_bind_check(L, DLUA_NO_MEMORY);
  }
  *kept = found;
  dlua_bind_check(L, dlua_record_custom(nin, in, nout, out, back, drop, kept));
  return results;
}

// Function{forward = function(ctx, x, …) … end, backward = function(ctx, g, …) … end}: a function
// to call.
static int function(lua_State *L) {
  static const char *const names[] = {"forward", "backward", NULL};
  lua_settop(L, 1);
  dlua_bind_check_options(L, 1, "Function", names);
  for (int k = 0; k < 2; k++) {
    if (!lua_istable(L, 1) || lua_getfield(L, 1, names[k]) != LUA_TFUNCTION) {
      return dlua_bind_raise(L, "Function: %s must be a function", names[k]);
    }
  }
  lua_pushcclosure(L, call_function, 2);
  return 1;
}

void dlua_bind_functions(lua_State *L) {
  lua_pushcfunction(L, function);
  lua_setfield(L, -2, "Function");
}
