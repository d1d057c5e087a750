// box.c - tensors as Lua values. A box is a full userdata with one reference to a tensor;
// finalizers only drop it.
//
// Lua's collector sees sixteen bytes where a tensor may hold a gigabyte, so dlua collects by its
// own count of bytes: at op entry, when live bytes have grown by a few MiB, a young collection
// takes the temporaries that a loop has just dropped (their blocks come back warm); when they have
// outgrown what the last full collection left, a full one runs. Both wait longer when they free
// little.
//
// Measured against incremental mode with the full rule alone: 500 000 small sums took 0.23 s
// instead of 0.41 s, a small network's steps 0.9 s instead of 1.5 s, and 1 000 temporaries of 1 MiB
// beside 200 000 live Lua tables 0.04 s and 5 MiB instead of 1.6 s and 125 MiB.
//
// All boxes form one list in order of creation. A scope is a marker in that list: everything after
// it is released when the scope closes. Refused: charging bytes to Lua's own accounting, which
// either costs a step per allocation or leaks in generational mode.
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "../runtime/backend.h"
#include "../runtime/env.h"
#include "value.h"

typedef struct link {
  struct link *before, *after;
} link;

typedef struct box {
  link link; // first, so that a link is its box
  const void *tag;
  dlua_tensor *tensor; // NULL: released
} box;

enum { MIB = 1 << 20, YOUNG_STEP = 4 * MIB, MOST_YOUNG_STEP = 32 * MIB, FULL_STEP = 96 * MIB };

// One Lua state at a time uses a process's tensors; their bytes are the process's, and so is this.
static struct {
  link boxes; // circular, oldest first
  size_t next, full;
  size_t young_step;
  unsigned full_patience; // 1, or more after full collections that freed little
  lua_State *running;
  lua_State *main; // the state's first coroutine
  bool reclaiming; // an allocation has failed, and garbage is being collected
  volatile sig_atomic_t interrupted;
  bool always; // collect at every turn, for specs
} context = {.boxes = {&context.boxes, &context.boxes},
             .young_step = YOUNG_STEP,
             .full = FULL_STEP,
             .full_patience = 1};

static const char tensor_tag = 't', scope_tag = 's';

// ---------------------------------------------------------------- the list

static void unlink_box(link *l) {
  l->before->after = l->after, l->after->before = l->before;
  l->before = l->after = l;
}

static void link_before(link *l, link *at) {
  l->after = at, l->before = at->before;
  at->before->after = l, at->before = l;
}

static void empty(box *b) {
  dlua_tensor *x = b->tensor;
  b->tensor = NULL;
  dlua_tensor_release(x);
}

// ---------------------------------------------------------------- boxes

static box *push_box(lua_State *L, const char *metatable, const void *tag) {
  if (context.always) lua_gc(L, LUA_GCCOLLECT);
  box *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (box){.link = {&b->link, &b->link}, .tag = tag};
  lua_rawgetp(L, LUA_REGISTRYINDEX, metatable);
  lua_setmetatable(L, -2);
  link_before(&b->link, &context.boxes);
  context.running = L; // a finalizer that the allocation ran may have called from a coroutine
  return b;
}

dlua_tensor **dlua_bind_box(lua_State *L) { return &push_box(L, &tensor_tag, &tensor_tag)->tensor; }

static box *test_box(lua_State *L, int index, const void *tag) {
  box *b = lua_touserdata(L, index);
  return b && lua_rawlen(L, index) == sizeof *b && b->tag == tag ? b : NULL;
}

dlua_tensor *dlua_bind_test_tensor(lua_State *L, int index) {
  box *b = test_box(L, index, &tensor_tag);
  return b ? b->tensor : NULL;
}

const char *dlua_bind_type(lua_State *L, int index) {
  box *b = test_box(L, index, &tensor_tag);
  return b ? b->tensor ? "tensor" : "a released tensor" : luaL_typename(L, index);
}

dlua_tensor *dlua_bind_tensor(lua_State *L, int index, const char *who) {
  dlua_tensor *x = dlua_bind_test_tensor(L, index);
  if (!x) dlua_bind_raise(L, "%s must be a tensor, got %s", who, dlua_bind_type(L, index));
  return x;
}

// A box that a finalizer brings back is no tensor any more and never enters the list again.
static int box_gc(lua_State *L) {
  box *b = test_box(L, 1, &tensor_tag);
  if (!b) return 0;
  unlink_box(&b->link);
  empty(b);
  b->tag = NULL;
  return 0;
}

static int box_release(lua_State *L) {
  box *b = test_box(L, 1, &tensor_tag);
  if (!b) return dlua_bind_raise(L, "release: x must be a tensor, got %s", dlua_bind_type(L, 1));
  if (!context.reclaiming) empty(b); // else the collection that is under way will
  return 0;
}

static int box_eq(lua_State *L) {
  dlua_tensor *x = dlua_bind_test_tensor(L, 1), *y = dlua_bind_test_tensor(L, 2);
  lua_pushboolean(L, x && x == y);
  return 1;
}

// ---------------------------------------------------------------- scopes

static void close_scope(box *scope) {
  if (scope->link.after == &scope->link) return; // closed before
  for (link *l = scope->link.after; l != &context.boxes; l = l->after) {
    box *b = (box *)l;
    bool leaf = b->tensor && b->tensor->requires_grad && !b->tensor->node;
    if (b->tag == &tensor_tag && !leaf && !context.reclaiming) empty(b);
  }
  unlink_box(&scope->link);
}

static int scope_close(lua_State *L) {
  box *scope = test_box(L, 1, &scope_tag);
  if (!scope) return dlua_bind_raise(L, "close: call it as scope:close()");
  close_scope(scope);
  return 0;
}

static int scope_gc(lua_State *L) {
  box *scope = test_box(L, 1, &scope_tag);
  if (!scope) return 0;
  unlink_box(&scope->link);
  scope->tag = NULL;
  return 0;
}

static int scope_new(lua_State *L) {
  push_box(L, &scope_tag, &scope_tag);
  return 1;
}

// Moves a box before a scope's marker; without a scope, before every other box.
static void keep_box(box *b, box *scope) {
  unlink_box(&b->link);
  link_before(&b->link, scope ? &scope->link : context.boxes.after);
}

// Appends the table on top of the stack to the list at `queue` unless it is in it; pops it.
static void enqueue(lua_State *L, int queue, lua_Integer *count) {
  lua_pushvalue(L, -1);
  bool known = lua_rawget(L, queue) != LUA_TNIL;
  lua_pop(L, 1);
  if (!known) {
    lua_pushvalue(L, -1);
    lua_pushboolean(L, true);
    lua_rawset(L, queue);
    lua_pushvalue(L, -1);
    lua_rawseti(L, queue, ++*count);
  }
  lua_pop(L, 1);
}

static bool has_metatable(lua_State *L, int index) {
  bool has = lua_getmetatable(L, index);
  if (has) lua_pop(L, 1);
  return has;
}

void dlua_bind_walk(lua_State *L, int index, bool plain, dlua_visitor *visit, void *user) {
  lua_Integer count = 0;
  luaL_checkstack(L, 8, "tables");
  lua_pushvalue(L, index);
  lua_newtable(L);
  lua_insert(L, -2);
  int queue = lua_gettop(L) - 1;
  enqueue(L, queue, &count);
  for (lua_Integer k = 1; k <= count; k++) {
    lua_rawgeti(L, queue, k);
    for (lua_pushnil(L); lua_next(L, queue + 1); lua_pop(L, 1)) {
      visit(L, queue + 1, user);
      if (!lua_istable(L, -1) || (plain && has_metatable(L, -1))) continue;
      lua_pushvalue(L, -1);
      enqueue(L, queue, &count);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static void keep_value(lua_State *L, int table, void *scope) {
  (void)table;
  box *b = test_box(L, -1, &tensor_tag);
  if (b) keep_box(b, scope);
}

// Keeps the box at index, or those in a table, out of a scope; without one, out of all.
static void keep(lua_State *L, int index, box *scope) {
  box *b = test_box(L, index, &tensor_tag);
  if (b)
    keep_box(b, scope);
  else if (lua_istable(L, index))
    dlua_bind_walk(L, index, false, keep_value, scope);
}

static int scope_keep(lua_State *L) {
  box *scope = test_box(L, 1, &scope_tag);
  if (!scope) return dlua_bind_raise(L, "keep: call it as scope:keep(…)");
  if (scope->link.after == &scope->link) return dlua_bind_raise(L, "keep: the scope is closed");
  for (int k = 2; k <= lua_gettop(L); k++) keep(L, k, scope);
  return lua_gettop(L) - 1;
}

void dlua_bind_keep(lua_State *L, int index) { keep(L, index, NULL); }

// lasting(x, …): no scope that is open now releases these tensors, or tables of them; gives them
// back.
static int lasting(lua_State *L) {
  for (int k = 1; k <= lua_gettop(L); k++) dlua_bind_keep(L, k);
  return lua_gettop(L);
}

// tidy(fn, …): calls fn in a scope and keeps what it returns.
static int tidy(lua_State *L) {
  if (!lua_isfunction(L, 1)) {
    return dlua_bind_raise(L, "tidy: fn must be a function, got %s", dlua_bind_type(L, 1));
  }
  box *scope = push_box(L, &scope_tag, &scope_tag);
  lua_insert(L, 1);
  int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  if (status == LUA_OK) {
    for (int k = 2; k <= lua_gettop(L); k++) keep(L, k, scope);
  }
  close_scope(scope);
  return status == LUA_OK ? lua_gettop(L) - 1 : lua_error(L);
}

// ---------------------------------------------------------------- when to collect

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

// Garbage may climb to where live bytes once were: its blocks are there. Once they are given back
// it may not.
void dlua_bind_measure_anew(void) {
  size_t live = dlua_live_bytes();
  context.full_patience = 1;
  context.full = live + larger(FULL_STEP, live / 2);
  context.young_step = YOUNG_STEP;
  context.next = live + YOUNG_STEP;
}

static void collect_full(lua_State *L, size_t live) {
  lua_gc(L, LUA_GCCOLLECT);
  size_t left = dlua_live_bytes(), freed = live > left ? live - left : 0;
  context.full_patience = freed > live / 8            ? 1
                          : context.full_patience < 8 ? 2 * context.full_patience
                                                      : 8;
  context.full = left + context.full_patience * larger(FULL_STEP, left / 2);
  context.young_step = YOUNG_STEP;
}

static void collect_young(lua_State *L, size_t live) {
  lua_gc(L, LUA_GCSTEP, 0);
  size_t left = dlua_live_bytes(), freed = live > left ? live - left : 0;
  if (freed >= context.young_step / 2)
    context.young_step = YOUNG_STEP;
  else if (context.young_step < MOST_YOUNG_STEP)
    context.young_step *= 2;
}

bool dlua_bind_collect_always(int on) {
  bool was = context.always;
  if (on >= 0) context.always = on;
  return was;
}

void dlua_bind_collect(lua_State *L) {
  size_t live = dlua_live_bytes();
  if (context.always) lua_gc(L, LUA_GCCOLLECT);
  if (live < context.next) return;
  if (live >= context.full)
    collect_full(L, live);
  else
    collect_young(L, live);
  context.next = dlua_live_bytes() + context.young_step;
}

// Called when an allocation fails, in the middle of whatever computes. What that borrows is in boxes
// on the stack or held by references; finalizers of scripts could still take it away, so they may
// not touch tensors meanwhile. The main coroutine is there as long as the state is; the one that
// computes may be another.
static void collect_for_memory(void) {
  lua_State *L = context.main, *running = context.running;
  context.reclaiming = true;
  for (int round = 0; round < 2; round++) { // the second for what finalizers let go of
    lua_gc(L, LUA_GCCOLLECT);
    if (lua_checkstack(L, 4)) dlua_bind_drain(L);
  }
  context.reclaiming = false;
  context.running = running;
  dlua_bind_measure_anew();
}

static int forget_state(lua_State *L) {
  (void)L;
  dlua_set_reclaim(NULL);
  return 0;
}

// Collects for allocations of this thread until the state is closed.
static void remember_state(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  context.main = lua_tothread(L, -1);
  lua_newuserdatauv(L, 0, 0);
  lua_newtable(L);
  lua_pushcfunction(L, forget_state), lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &context);
  lua_pop(L, 1);
  dlua_set_reclaim(collect_for_memory);
}

lua_State *dlua_bind_running(void) { return context.running; }
void dlua_bind_set_running(lua_State *L) { context.running = L; }
void dlua_bind_interrupt(void) { context.interrupted = 1; }

bool dlua_bind_take_interrupt(void) {
  bool was = context.interrupted;
  context.interrupted = 0;
  return was;
}

void dlua_bind_enter(lua_State *L) {
  if (context.reclaiming)
    dlua_bind_raise_text(L, "memory is out: a finalizer that frees some cannot compute");
  if (dlua_bind_take_interrupt()) dlua_bind_raise_text(L, "interrupted");
  dlua_bind_drain(L);
  dlua_bind_collect(L);
  context.running = L; // last: finalizers may have run in a coroutine that is dead by now
}

// ---------------------------------------------------------------- the largest tensors

enum { LARGEST = 3 };

static size_t bytes_of(const box *b) {
  return b->tag == &tensor_tag && b->tensor ? b->tensor->storage->bytes : 0;
}

// Puts the LARGEST boxes with storages of their own on the device into top, largest first.
static void find_largest(const box *top[LARGEST], const dlua_device *device) {
  for (link *l = context.boxes.after; l != &context.boxes; l = l->after) {
    const box *b = (box *)l;
    if (bytes_of(b) == 0 || b->tensor->view || b->tensor->storage->device != device) continue;
    for (int k = 0; k < LARGEST; k++) {
      if (top[k] && bytes_of(top[k]) >= bytes_of(b)) continue;
      const box *smaller = top[k];
      top[k] = b, b = smaller;
      if (!b) break;
    }
  }
}

void dlua_bind_largest(char *text, size_t size) {
  const box *top[LARGEST] = {NULL};
  find_largest(top, dlua_out_of_memory());
  size_t at = 0;
  text[0] = 0;
  for (int k = 0; k < LARGEST && top[k] && at < size; k++) {
    const dlua_tensor *x = top[k]->tensor;
    at += (size_t)snprintf(text + at, size - at, "%s%s%s %.1f MiB", k ? ", " : "",
                           dlua_dtype_name((dlua_dtype)x->dtype), dlua_shape_text(x),
                           (double)x->storage->bytes / MIB);
  }
}

// ---------------------------------------------------------------- registration

static void new_metatable(lua_State *L, const char *name, const char *key,
                          const luaL_Reg *functions) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, functions, 0);
  lua_pushliteral(L, "locked"), lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void dlua_bind_boxes(lua_State *L) {
  static const luaL_Reg tensor[] = {
      {"__gc", box_gc}, {"__close", box_release}, {"__eq", box_eq}, {NULL, NULL}};
  static const luaL_Reg scope[] = {{"__gc", scope_gc}, {"__close", scope_close}, {NULL, NULL}};
  static const luaL_Reg scope_methods[] = {
      {"keep", scope_keep}, {"close", scope_close}, {NULL, NULL}};
  new_metatable(L, DLUA_TENSOR, &tensor_tag, tensor);
  new_metatable(L, "dlua.scope", &scope_tag, scope);
  luaL_getmetatable(L, "dlua.scope");
  luaL_newlib(L, scope_methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  static const luaL_Reg functions[] = {
      {"scope", scope_new}, {"tidy", tidy}, {"lasting", lasting}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_getfield(L, -1, "methods");
  lua_pushcfunction(L, box_release);
  lua_setfield(L, -2, "release");
  lua_pop(L, 1);
  remember_state(L);
  lua_gc(L, LUA_GCGEN, 0, 0);
  context.always = dlua_env_on("DLUA_COLLECT");
}
