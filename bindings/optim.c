// optim.c - optimiser steps, gradient norms and the writing of parameters, for lua/dlua/optim and
// lua/dlua/nn.
//
// A step takes one table (an optimiser's group) and reads parameters, gradients and state in C: no
// box is made per gradient, and a step of a small net costs little more than its table reads. What
// an option may be is checked in Lua, once, when the optimiser is made.
#include <math.h>
#include <string.h>

#include "../runtime/optim.h"
#include "value.h"

// ---------------------------------------------------------------- lists of tensors

// A list of borrowed tensors in memory that the collector owns; their boxes stay above it on the
// stack, since a finalizer may change the Lua list.
static dlua_tensor **list_of(lua_State *L, int index, const char *who, int *n) {
  dlua_bind_need_table(L, index, who);
  *n = (int)lua_rawlen(L, index);
  luaL_checkstack(L, *n + 16, who);
  dlua_tensor **list = lua_newuserdatauv(L, (size_t)(*n + 1) * sizeof *list, 0);
  for (int k = 0; k < *n; k++) {
    lua_rawgeti(L, index, k + 1);
    list[k] = dlua_bind_tensor(L, -1, who);
  }
  return list;
}

// Replaces the parameters of a list by the gradients they have; where[] gets their positions from
// 1.
static int gradients_of(int n, dlua_tensor **list, int *where) {
  int count = 0;
  for (int k = 0; k < n; k++) {
    if (!list[k]->grad) continue;
    if (where) where[count] = k + 1;
    list[count++] = list[k]->grad;
  }
  return count;
}

static bool takes_all(int n, dlua_tensor *const *x) {
  for (int k = 0; k < n; k++)
    if (!dlua_optim_takes(x[k])) return false;
  return true;
}

static bool all_on_cpu(int n, dlua_tensor *const *x) {
  for (int k = 0; k < n; k++)
    if (dlua_device_of(x[k]) != dlua_cpu()) return false;
  return true;
}

// The norm of gradients of a device, clipped without waiting for it: a 0-d tensor, or nothing.
static int clip_there(lua_State *L, int n, dlua_tensor *const *list) {
  dlua_tensor **norm = dlua_bind_box(L);
  dlua_status status = dlua_clip_on_device(n, list, lua_tonumber(L, 3), lua_tonumber(L, 2), norm);
  if (status == DLUA_DECLINED) return 0;
  dlua_bind_check(L, status);
  return 1;
}

// core.clip_grad_norm(parameters, max_norm, p): scales the gradients, returns the norm they had, on
// a device as a 0-d tensor; nil, with nothing changed, when a gradient needs the formulas in Lua.
static int clip_grad_norm(lua_State *L) {
  int n;
  dlua_tensor **list = list_of(L, 1, "clip_grad_norm_: parameters", &n);
  double norm = 0;
  if (lua_type(L, 2) != LUA_TNUMBER || lua_type(L, 3) != LUA_TNUMBER)
    return dlua_bind_raise(L, "clip_grad_norm_: max_norm and the norm's p must be numbers");
  double max_norm = lua_tonumber(L, 2);
  dlua_bind_enter(L);
  n = gradients_of(n, list, NULL);
  if (!takes_all(n, list)) return 0;
  if (!all_on_cpu(n, list)) return clip_there(L, n, list);
  dlua_bind_check(L, dlua_global_norm(n, list, lua_tonumber(L, 3), &norm));
  double factor = max_norm / (norm + 1e-6);
  if (isfinite(norm) && factor < 1) dlua_bind_check(L, dlua_scale_all(n, list, factor));
  lua_pushnumber(L, norm);
  return 1;
}

// core.find_bad_gradient(parameters): position of the first whose gradient is not finite, or nil;
// false when a gradient needs the formulas in Lua, true when the step itself will look on a device.
static int find_bad_gradient(lua_State *L) {
  int n, position = -1;
  dlua_tensor **list = list_of(L, 1, "step: parameters", &n);
  int *where = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *where, 0);
  n = gradients_of(n, list, where);
  bool takes = takes_all(n, list);
  if (!takes || !all_on_cpu(n, list)) return lua_pushboolean(L, takes), 1;
  dlua_bind_check(L, dlua_find_not_finite(n, list, &position));
  if (position < 0) return 0;
  lua_pushinteger(L, where[position]);
  return 1;
}

// core.unscale(parameters, scale, verdict): raises verdict to 1 where a gradient is not finite and
// divides all by scale, both 0-d f32 tensors of their device; no scale, no division. false, with
// nothing changed, when a gradient needs the formulas in Lua.
static int unscale(lua_State *L) {
  int n;
  dlua_tensor **list = list_of(L, 1, "unscale_: parameters", &n);
  dlua_tensor *scale = lua_isnil(L, 2) ? NULL : dlua_bind_tensor(L, 2, "unscale_: scale");
  dlua_tensor *verdict = dlua_bind_tensor(L, 3, "unscale_: verdict");
  dlua_bind_enter(L);
  dlua_status status = dlua_unscale(gradients_of(n, list, NULL), list, scale, verdict);
  if (status != DLUA_DECLINED) dlua_bind_check(L, status);
  return lua_pushboolean(L, status == DLUA_OK), 1;
}

// core.clear_gradients(parameters): grad becomes nil.
static int clear_gradients(lua_State *L) {
  int n;
  dlua_bind_enter(L);
  dlua_tensor **list = list_of(L, 1, "zero_grad: parameters", &n);
  for (int k = 0; k < n; k++) {
    dlua_tensor_release(list[k]->grad);
    list[k]->grad = NULL;
  }
  return 0;
}

// ---------------------------------------------------------------- steps

// Scripts may edit a group between steps, so every option is checked when it is read.
static double number(lua_State *L, int group, const char *key) {
  return dlua_bind_number(L, group, "step", key);
}

static bool flag(lua_State *L, int group, const char *key) {
  return dlua_bind_flag(L, group, "step", key, false);
}

static void read_betas(lua_State *L, int group, dlua_optim *o) {
  lua_getfield(L, group, "betas");
  dlua_bind_need_table(L, -1, "step: betas");
  int ok[2];
  lua_rawgeti(L, -1, 1), lua_rawgeti(L, -2, 2);
  o->beta1 = lua_tonumberx(L, -2, &ok[0]), o->beta2 = lua_tonumberx(L, -1, &ok[1]);
  if (!ok[0] || !ok[1]) dlua_bind_raise(L, "step: betas must be two numbers");
  lua_pop(L, 3);
}

static dlua_optim read_options(lua_State *L, int rule, int group) {
  dlua_optim o = {.rule = (dlua_rule)rule};
  o.lr = number(L, group, "lr");
  o.weight_decay = number(L, group, "weight_decay");
  o.maximize = flag(L, group, "maximize");
  if (rule == DLUA_SGD || rule == DLUA_RMSPROP) o.momentum = number(L, group, "momentum");
  if (rule == DLUA_SGD) {
    o.dampening = number(L, group, "dampening");
    o.nesterov = flag(L, group, "nesterov");
    return o;
  }
  o.eps = number(L, group, "eps");
  if (rule == DLUA_RMSPROP) {
    o.alpha = number(L, group, "alpha");
    o.centered = flag(L, group, "centered");
  } else if (rule == DLUA_ADAGRAD) {
    o.lr_decay = number(L, group, "lr_decay");
  } else {
    o.amsgrad = flag(L, group, "amsgrad");
    o.decoupled = flag(L, group, "decoupled");
    read_betas(L, group, &o);
  }
  return o;
}

// The state tensor in slot list at `slots` for parameter k: made (filled with start) when the
// parameter meets its first gradient, converted or fetched when the parameter was.
static dlua_tensor *slot_tensor(lua_State *L, int slots, int k, const dlua_tensor *p,
                                double start) {
  lua_rawgeti(L, slots, k);
  dlua_tensor *old = lua_isnil(L, -1) ? NULL : dlua_bind_tensor(L, -1, "step: state");
  bool far = old && dlua_device_of(old) != dlua_device_of(p);
  if (!old || far || old->dtype != p->dtype || !dlua_is_contiguous(old)) {
    dlua_tensor **box = dlua_bind_box(L), *strided = NULL;
    if (far) {
      dlua_tensor **near = dlua_bind_box(L);
      dlua_bind_check(L, dlua_to_device(old, dlua_device_of(p), near));
      old = *near;
      lua_replace(L, -3); // over the far one
    }
    if (!old) {
      dlua_bind_check(L, dlua_tensor_new(box, p->dtype, p->ndim, p->size, dlua_device_of(p)));
      dlua_bind_check(L, dlua_tensor_fill(*box, start));
    } else if (old->dtype != p->dtype) {
      dlua_bind_check(L, dlua_cast(old, p->dtype, box));
    } else {
      dlua_bind_check(L, dlua_contiguous(old, &strided));
      *box = strided;
    }
    old = *box;
    dlua_bind_keep(L, -1);
    lua_rawseti(L, slots, k);
  }
  lua_pop(L, 1);
  return old;
}

// The number of the step that parameter k is about to take.
static int64_t next_step(lua_State *L, int steps, int k) {
  lua_rawgeti(L, steps, k);
  int64_t step = (int64_t)lua_tointeger(L, -1) + 1;
  lua_pop(L, 1);
  return step;
}

static bool is_with(const dlua_tensor *p, const dlua_tensor *x) {
  return !x || dlua_device_of(p) == dlua_device_of(x);
}

// The fused pass takes parameters that are where the verdict on them is.
static bool takes_group(int n, dlua_tensor *const *list, const dlua_bad_gradient *bad) {
  for (int k = 0; k < n; k++) {
    const dlua_tensor *p = list[k];
    if (!p->grad) continue;
    if (!dlua_optim_takes(p) || !is_with(p, bad->verdict) || !is_with(p, bad->skipped))
      return false;
  }
  return true;
}

// The steps that were left out on a device, a number for each of n parameters, or NULL.
static dlua_tensor *skipped_steps(lua_State *L, int group, int n) {
  lua_getfield(L, group, "skipped");
  if (lua_isnil(L, -1)) return NULL;
  dlua_tensor *skipped = dlua_bind_tensor(L, -1, "step: skipped");
  if (skipped->dtype != DLUA_I64 || dlua_numel(skipped) != n || !dlua_is_contiguous(skipped))
    dlua_bind_raise(L, "step: skipped does not fit the %d parameters", n);
  return skipped;
}

// The place of x in a list, from 1.
static int position_of(int n, dlua_tensor *const *list, const dlua_tensor *x) {
  int k = 0;
  while (k < n && list[k] != x) k++;
  return k + 1;
}

static int read_rule(lua_State *L) {
  static const char *const rules[] = {"sgd", "adam", "rmsprop", "adagrad", NULL};
  const char *word = dlua_bind_need_string(L, 1, "step: the rule");
  for (int k = 0; rules[k]; k++) {
    if (strcmp(word, rules[k]) == 0) return k;
  }
  return dlua_bind_raise(L, "step: rule '%s' is unknown (sgd, adam, rmsprop, adagrad)", word);
}

// core.optim_step(rule, group, guard, verdict, decided): one step of a group {params =, slots =
// {list, list, list}, steps =, skipped =, options…}. On a device the verdict is a 0-d tensor, the
// guard's or, decided, one that stands: see optim.h. Returns false, with nothing changed, when a
// parameter needs the formulas in Lua; with guard, the position of one whose gradient is not finite
// and whether anything was changed.
static int optim_step(lua_State *L) {
  int rule = read_rule(L), n, count = 0;
  bool guard = lua_toboolean(L, 3);
  dlua_bad_gradient bad = {.update = -1, .decided = lua_toboolean(L, 5)};
  if (!lua_isnoneornil(L, 4)) bad.verdict = dlua_bind_tensor(L, 4, "step: verdict");
  dlua_bind_need_table(L, 2, "step: the group");
  lua_settop(L, 2); // the caller keeps the verdict
  dlua_bind_enter(L);
  dlua_optim o = read_options(L, rule, 2);
  double start = rule == DLUA_ADAGRAD ? number(L, 2, "initial_accumulator_value") : 0;
  lua_getfield(L, 2, "params"); // 3
  lua_getfield(L, 2, "steps");  // 4
  lua_getfield(L, 2, "slots");  // 5
  dlua_bind_need_table(L, 4, "step: steps");
  dlua_bind_need_table(L, 5, "step: slots");
  unsigned used = dlua_optim_slots(&o);
  for (int j = 0; j < DLUA_OPTIM_SLOTS; j++) { // 6, 7, 8
    lua_rawgeti(L, 5, j + 1);
    if (used >> j & 1) dlua_bind_need_table(L, -1, "step: each of slots");
  }
  dlua_tensor **list = list_of(L, 3, "step: params", &n); // 9
  bad.skipped = skipped_steps(L, 2, n);
  if (!takes_group(n, list, &bad)) return lua_pushboolean(L, false), 1;
  dlua_update *updates = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *updates, 0);
  for (int k = 0; k < n; k++) {
    if (!list[k]->grad) continue;
    dlua_update *u = &updates[count++];
    *u = (dlua_update){
        .p = list[k], .g = list[k]->grad, .step = next_step(L, 4, k + 1), .place = n - k};
    for (int j = 0; j < DLUA_OPTIM_SLOTS; j++)
      if (used >> j & 1) u->slot[j] = slot_tensor(L, 6 + j, k + 1, list[k], start);
  }
  bool watched = guard || bad.verdict || bad.skipped;
  dlua_bind_check(L, dlua_optim_step(&o, count, updates, watched ? &bad : NULL));
  if (bad.update >= 0) {
    lua_pushinteger(L, position_of(n, list, updates[bad.update].p));
    lua_pushboolean(L, bad.written);
    return 2;
  }
  for (int k = n; k > 0; k--) { // counted only now that all went well
    if (!list[k - 1]->grad) continue;
    lua_pushinteger(L, updates[--count].step);
    lua_rawseti(L, 4, k);
  }
  lua_pushboolean(L, true);
  return 1;
}

// ---------------------------------------------------------------- writing parameters

// core.set_data(x, y): x takes over y's elements, dtype, shape and device and stays the same
// tensor, leaf or not of a graph to come. For modules that move.
static int set_data(lua_State *L) {
  dlua_bind_enter(L);
  dlua_tensor *x = dlua_bind_tensor(L, 1, "set_data: x");
  dlua_tensor *y = dlua_bind_tensor(L, 2, "set_data: y"), *source = NULL;
  if (x->node) return dlua_bind_raise(L, "set_data: x was made by a recorded call");
  if (x->grad) return dlua_bind_raise(L, "set_data: x has a gradient that would not fit it");
  dlua_bind_check(L, dlua_tensor_detach(&source, y));
  dlua_tensor old = *x;
  *x = *source;
  x->refs = old.refs, x->requires_grad = old.requires_grad;
  old.refs = source->refs, old.requires_grad = false;
  *source = old;
  dlua_tensor_release(source);
  return 0;
}

// core.assign(x, y), x:copy_(y): writes y's elements into x (shapes equal, any dtypes and devices).
static int assign(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "copy_: x"), *y = dlua_bind_tensor(L, 2, "copy_: y");
  if (!dlua_same_shape(x, y))
    return dlua_bind_raise(L, "copy_: x is %s but y is %s", dlua_shape_text(x), dlua_shape_text(y));
  if (dlua_grad_mode() && (x->requires_grad || y->requires_grad))
    return dlua_bind_raise(L, "copy_: is not recorded; call it inside dlua.no_grad");
  dlua_bind_check(L, dlua_copy(x, y));
  lua_settop(L, 1);
  return 1;
}

void dlua_bind_optim(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"optim_step", optim_step},
      {"clip_grad_norm", clip_grad_norm},
      {"find_bad_gradient", find_bad_gradient},
      {"unscale", unscale},
      {"clear_gradients", clear_gradients},
      {"set_data", set_data},
      {"assign", assign},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
