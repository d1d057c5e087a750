// op.c - every op as a Lua function, through one C closure: its upvalue holds the op and its parsed
// signature, which says how to read the arguments. Arguments come by position, by name in a last
// table, or both.
//
// Reading arguments raises nothing: it returns a status, so that the temporary tensors that stand
// for numbers are always released. Only call_op raises, with nothing in hand. The boxes of the
// results are made before the op runs.
#include <stdio.h>
#include <string.h>

#include "../runtime/words.h"
#include "value.h"

typedef struct bound {
  const dlua_op *op;
  const dlua_signature *sig;
  int nparams, nvisible; // results whose name starts with _ are for backward alone
  bool inplace;
  bool unary;   // a metamethod of one operand, which Lua passes twice
  bool numbers; // Lua numbers may stand for tensors
  char name[32];
} bound;

typedef struct call {
  lua_State *L;
  const bound *b;
  int nargs, options; // arguments by position; index of the options table or 0
  uint32_t given;     // bit per position of the signature
  bool requires_grad;
  int nmade;
  dlua_tensor *made[DLUA_MAX_IN]; // stand for numbers and tables, released after the run
  dlua_args a;
} call;

#define WRONG(...) dlua_fail(DLUA_BAD_ARGUMENT, __VA_ARGS__)

// ---------------------------------------------------------------- tensors

static dlua_status wrong_type(const call *c, const char *param, const char *wanted, int index) {
  return WRONG("%s: %s must be %s, got %s", c->b->name, param, wanted, dlua_bind_type(c->L, index));
}

// What an in-place call writes into is no number.
static bool takes_number(const call *c, int k) {
  return c->b->sig->tensor[k].kind == 'T' && c->b->numbers && !(c->b->inplace && k == 0);
}

static dlua_status hold(call *c, int k, dlua_tensor *x) {
  c->a.in[k] = c->made[c->nmade++] = x;
  return DLUA_OK;
}

// The last numbers, float and integer, that no graph kept: x + 1 in a loop allocates nothing for 1.
static dlua_tensor *spare[2];

static dlua_tensor *take_spare(bool is_int, int64_t i, double f) {
  dlua_tensor *x = spare[is_int];
  spare[is_int] = NULL;
  if (x && is_int)
    *dlua_i64(x) = i;
  else if (x)
    *dlua_f64(x) = f;
  return x;
}

// Releases what perform made; a number that nobody else holds becomes the spare one.
static void drop_made(dlua_tensor *x) {
  bool is_int = x->dtype == DLUA_I64;
  if (x->number && !spare[is_int] && x->refs == 1 && x->storage->refs == 1)
    spare[is_int] = x;
  else
    dlua_tensor_release(x);
}

static dlua_status read_number_tensor(call *c, int k, int index) {
  bool is_int = lua_isinteger(c->L, index);
  int64_t i = is_int ? lua_tointeger(c->L, index) : 0;
  double f = lua_tonumber(c->L, index);
  dlua_tensor *x = take_spare(is_int, i, f);
  if (!x) DLUA_TRY(dlua_tensor_number(&x, is_int, i, f));
  return hold(c, k, x);
}

static dlua_status read_index_table(call *c, int k, int index) {
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_bind_read(c->L, index, c->b->name, DLUA_I64, &x));
  return hold(c, k, x);
}

// A table of tensors: they become the inputs from k on. They stay on the stack, since a finalizer may
// change the table while the op runs.
static dlua_status read_list(call *c, int k, int index) {
  const char *name = c->b->sig->tensor[k].name;
  if (!lua_istable(c->L, index)) return wrong_type(c, name, "a table of tensors", index);
  int count = (int)lua_rawlen(c->L, index);
  if (!lua_checkstack(c->L, count + 4)) return WRONG("%s: %s is too long", c->b->name, name);
  if (k + count > DLUA_MAX_IN) {
    dlua_tensor **in = dlua_new_block(sizeof *in * (size_t)(k + count));
    if (!in) return DLUA_NO_MEMORY;
    memcpy(in, c->a.in, sizeof *in * (size_t)k);
    c->a.in = in;
  }
  for (int i = 0; i < count; i++) {
    lua_rawgeti(c->L, index, i + 1);
    c->a.in[k + i] = dlua_bind_test_tensor(c->L, -1);
    if (!c->a.in[k + i]) {
      return WRONG("%s: item %d of %s must be a tensor, got %s", c->b->name, i + 1, name,
                   dlua_bind_type(c->L, -1));
    }
  }
  c->a.nin = k + count;
  return DLUA_OK;
}

static dlua_status read_tensor(call *c, int k, int index) {
  const dlua_param *p = &c->b->sig->tensor[k];
  if (p->list) return read_list(c, k, index);
  c->a.in[k] = dlua_bind_test_tensor(c->L, index);
  if (c->a.in[k]) return DLUA_OK;
  int type = lua_type(c->L, index);
  if (type == LUA_TNUMBER && takes_number(c, k)) return read_number_tensor(c, k, index);
  if (type == LUA_TTABLE && p->kind == 'I') return read_index_table(c, k, index);
  const char *wanted = takes_number(c, k) ? "a tensor or a number"
                       : p->kind == 'I'   ? "a tensor or a table of integers"
                                          : "a tensor";
  return wrong_type(c, p->name, wanted, index);
}

// ---------------------------------------------------------------- numbers

static bool to_integer(lua_State *L, int index, int64_t *value) {
  int ok = 0;
  if (lua_type(L, index) == LUA_TNUMBER) *value = lua_tointegerx(L, index, &ok);
  return ok;
}

// A dimension as the runtime counts it: from 0, negative from the end.
static dlua_status read_dimension(const call *c, const dlua_param *p, int index, int64_t *dim) {
  if (!to_integer(c->L, index, dim)) return wrong_type(c, p->name, "a dimension", index);
  if (*dim == 0) return WRONG("%s: %s is 0, but dimensions count from 1", c->b->name, p->name);
  if (*dim > 0) (*dim)--;
  return DLUA_OK;
}

static dlua_status read_entry(const call *c, const dlua_param *p, int index, int64_t *entry) {
  if (p->kind == 'D') return read_dimension(c, p, index, entry);
  if (to_integer(c->L, index, entry)) return DLUA_OK;
  return wrong_type(c, p->name, "integers", index);
}

static dlua_status read_entries(call *c, const dlua_param *p, dlua_value *v, int index) {
  size_t count = lua_rawlen(c->L, index);
  if (count > DLUA_MAX_DIMS) {
    return WRONG("%s: %s has %d entries, more than the %d dimensions a tensor may have", c->b->name,
                 p->name, (int)count, DLUA_MAX_DIMS);
  }
  if (p->exactly && (int)count != p->exactly) {
    return WRONG("%s: %s has %d entries, not %d", c->b->name, p->name, (int)count, p->exactly);
  }
  v->n = (int)count;
  for (int k = 0; k < v->n; k++) {
    lua_rawgeti(c->L, index, k + 1);
    dlua_status status = read_entry(c, p, -1, &v->v[k]);
    lua_pop(c->L, 1);
    DLUA_TRY(status);
  }
  return DLUA_OK;
}

// A list parameter from a table or one number; s2 spreads the number.
static dlua_status read_sizes(call *c, const dlua_param *p, dlua_value *v, int index) {
  v->set = true;
  if (lua_istable(c->L, index)) return read_entries(c, p, v, index);
  if (lua_type(c->L, index) != LUA_TNUMBER) {
    return wrong_type(c, p->name, p->exactly ? "an integer or a pair" : "integers", index);
  }
  DLUA_TRY(read_entry(c, p, index, &v->v[0]));
  v->n = p->exactly ? p->exactly : 1;
  for (int k = 1; k < v->n; k++) v->v[k] = v->v[0];
  return DLUA_OK;
}

static dlua_status unknown_word(const call *c, const dlua_param *p, const char *word) {
  const char *words[8];
  for (int k = 0; k < p->nwords; k++) words[k] = p->words[k];
  char known[128] = "";
  for (int k = 0; k < p->nwords; k++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", k ? ", " : "", words[k]);
  }
  const char *near = dlua_nearest(word, p->nwords, words);
  if (near)
    return WRONG("%s: %s '%s' is unknown (did you mean %s? known: %s)", c->b->name, p->name, word,
                 near, known);
  return WRONG("%s: %s '%s' is unknown (known: %s)", c->b->name, p->name, word, known);
}

static dlua_status read_word(const call *c, const dlua_param *p, dlua_value *v, int index) {
  if (lua_type(c->L, index) != LUA_TSTRING) return wrong_type(c, p->name, "a string", index);
  const char *word = lua_tostring(c->L, index);
  for (int k = 0; k < p->nwords; k++) {
    if (strcmp(word, p->words[k]) != 0) continue;
    v->set = true, v->i = k;
    return DLUA_OK;
  }
  return unknown_word(c, p, word);
}

static dlua_status read_integer(const call *c, const dlua_param *p, dlua_value *v, int index) {
  if (!to_integer(c->L, index, &v->i)) return wrong_type(c, p->name, "an integer", index);
  v->f = (double)v->i;
  return DLUA_OK;
}

static dlua_status read_float(const call *c, const dlua_param *p, dlua_value *v, int index) {
  if (lua_type(c->L, index) != LUA_TNUMBER) return wrong_type(c, p->name, "a number", index);
  v->f = lua_tonumber(c->L, index);
  v->is_int = lua_isinteger(c->L, index);
  v->i = v->is_int ? lua_tointeger(c->L, index) : 0;
  return DLUA_OK;
}

static dlua_status read_number(call *c, int k, int index) {
  const dlua_param *p = &c->b->sig->num[k];
  dlua_value *v = &c->a.num[k];
  v->set = true;
  switch (p->kind) {
  case 'i': return read_integer(c, p, v, index);
  case 'f':
  case 'n': return read_float(c, p, v, index);
  case 'd': return read_dimension(c, p, index, &v->i);
  case 'e': return read_word(c, p, v, index);
  case 'b':
    if (!lua_isboolean(c->L, index)) return wrong_type(c, p->name, "a boolean", index);
    v->i = lua_toboolean(c->L, index);
    return DLUA_OK;
  default: return read_sizes(c, p, v, index);
  }
}

// ---------------------------------------------------------------- arguments

static const dlua_param *param_at(const dlua_signature *sig, int position) {
  int k = sig->order[position];
  return k >= 0 ? &sig->tensor[k] : &sig->num[-1 - k];
}

static dlua_status read_param(call *c, int position, int index) {
  int k = c->b->sig->order[position];
  c->given |= 1u << position;
  return k >= 0 ? read_tensor(c, k, index) : read_number(c, -1 - k, index);
}

static bool is_sizes(const dlua_param *p) {
  return (p->kind == 's' || p->kind == 'D') && !p->exactly;
}

// zeros(2, 3), x:permute(2, 1): the last parameter takes all numbers that are left.
static dlua_status read_rest(call *c, const dlua_param *p, int position, int index) {
  dlua_value *v = &c->a.num[-1 - c->b->sig->order[position]];
  int count = c->nargs - index + 1;
  if (count > DLUA_MAX_DIMS) {
    return WRONG("%s: a tensor has at most %d dimensions, got %d", c->b->name, DLUA_MAX_DIMS,
                 count);
  }
  c->given |= 1u << position;
  v->set = true, v->n = count;
  for (int k = 0; k < count; k++) DLUA_TRY(read_entry(c, p, index + k, &v->v[k]));
  return DLUA_OK;
}

static dlua_status read_positional(call *c) {
  const dlua_signature *sig = c->b->sig;
  int last = c->b->nparams - 1;
  for (int position = 0; position < c->nargs; position++) {
    if (position > last) {
      return WRONG("%s: takes at most %d argument%s, got %d", c->b->name, last + 1,
                   last == 0 ? "" : "s", c->nargs);
    }
    if (lua_type(c->L, position + 1) == LUA_TNIL) continue;
    const dlua_param *p = param_at(sig, position);
    if (position == last && is_sizes(p) && lua_type(c->L, position + 1) == LUA_TNUMBER) {
      return read_rest(c, p, position, position + 1);
    }
    DLUA_TRY(read_param(c, position, position + 1));
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- options

static dlua_status unknown_option(const call *c, const char *key) {
  const char *names[DLUA_MAX_IN + DLUA_MAX_NUM + 3];
  int count = 0;
  for (; count < c->b->nparams; count++) names[count] = param_at(c->b->sig, count)->name;
  if (c->b->op->flags & DLUA_CREATE) {
    names[count++] = "dtype", names[count++] = "device", names[count++] = "requires_grad";
  }
  const char *near = dlua_nearest(key, count, names);
  if (near) return WRONG("%s: unknown option '%s' (did you mean '%s'?)", c->b->name, key, near);
  return WRONG("%s: unknown option '%s'", c->b->name, key);
}

// dtype, device and requires_grad of an op that makes tensors from nothing.
static dlua_status read_create_option(call *c, const char *key, int index, bool *known) {
  *known = true;
  if (strcmp(key, "requires_grad") == 0) {
    if (!lua_isboolean(c->L, index)) return wrong_type(c, key, "a boolean", index);
    c->requires_grad = lua_toboolean(c->L, index);
    return DLUA_OK;
  }
  bool dtype = strcmp(key, "dtype") == 0;
  if (!dtype && strcmp(key, "device") != 0) return *known = false, DLUA_OK;
  if (lua_type(c->L, index) != LUA_TSTRING) return wrong_type(c, key, "a string", index);
  const char *word = lua_tostring(c->L, index);
  c->a.dtype_set |= dtype;
  dlua_status status =
      dtype ? dlua_dtype_find(word, &c->a.dtype) : dlua_device_find(word, &c->a.device);
  if (status == DLUA_OK) return DLUA_OK;
  char problem[512];
  snprintf(problem, sizeof problem, "%s", dlua_message());
  return dlua_fail(status, "%s: %s", c->b->name, problem);
}

static dlua_status read_option(call *c, const char *key, int index) {
  bool known = false;
  for (int position = 0; position < c->b->nparams; position++) {
    if (strcmp(key, param_at(c->b->sig, position)->name) != 0) continue;
    if (c->given & 1u << position) return WRONG("%s: %s is given twice", c->b->name, key);
    return read_param(c, position, index);
  }
  if (c->b->op->flags & DLUA_CREATE) DLUA_TRY(read_create_option(c, key, index, &known));
  return known ? DLUA_OK : unknown_option(c, key);
}

static dlua_status read_options(call *c) {
  lua_pushnil(c->L);
  while (lua_next(c->L, c->options)) { // the values stay on the stack, see read_list
    int value = lua_gettop(c->L);
    DLUA_TRY(read_option(c, lua_tostring(c->L, value - 1), value));
    if (!lua_checkstack(c->L, 4)) return WRONG("%s: too many options", c->b->name);
    lua_pushvalue(c->L, value - 1);
  }
  return DLUA_OK;
}

// Is an empty table at the end meant as a list?
static bool wants_table(const bound *b, int position) {
  if (position >= b->nparams) return false;
  const dlua_param *p = param_at(b->sig, position);
  return p->list || strchr("IsD", p->kind) != NULL;
}

static void find_options(call *c) {
  c->options = 0;
  if (c->nargs == 0 || lua_type(c->L, c->nargs) != LUA_TTABLE) return;
  lua_pushnil(c->L);
  bool empty = !lua_next(c->L, c->nargs);
  if (!empty) lua_pop(c->L, 2);
  if (empty ? !wants_table(c->b, c->nargs - 1) : dlua_bind_is_options(c->L, c->nargs)) {
    c->options = c->nargs--;
  }
}

// ---------------------------------------------------------------- the call

static dlua_status read_arguments(call *c) {
  dlua_args_init(&c->a, c->b->op);
  c->a.inplace = c->b->inplace;
  c->given = 0, c->requires_grad = false;
  DLUA_TRY(read_positional(c));
  return c->options ? read_options(c) : DLUA_OK;
}

static dlua_status perform(call *c) {
  c->nmade = 0;
  dlua_status status = read_arguments(c);
  if (status == DLUA_OK) status = dlua_run(&c->a);
  while (c->nmade > 0) drop_made(c->made[--c->nmade]);
  if (c->a.in != c->a.slots) dlua_delete_block(c->a.in);
  return status;
}

// The first results go to their boxes; those that only backward reads are dropped.
static int deliver(call *c, dlua_tensor **slot[]) {
  int visible = c->a.nout < c->b->nvisible ? c->a.nout : c->b->nvisible;
  for (int k = 0; k < visible; k++) *slot[k] = c->a.out[k];
  for (int k = visible; k < c->a.nout; k++) dlua_tensor_release(c->a.out[k]);
  return visible;
}

// The result of an in-place call is its first argument, which may have come by name.
static int deliver_inplace(call *c) {
  for (int k = 0; k < c->a.nout; k++) dlua_tensor_release(c->a.out[k]);
  if (c->nargs > 0 && dlua_bind_test_tensor(c->L, 1))
    lua_pushvalue(c->L, 1);
  else
    lua_getfield(c->L, c->options, c->b->sig->tensor[0].name);
  return 1;
}

static int call_op(lua_State *L) {
  call c; // not cleared: 2 kB, of which a call uses little
  const bound *b = lua_touserdata(L, lua_upvalueindex(1));
  dlua_tensor **slot[DLUA_MAX_OUT];
  c.L = L, c.b = b, c.nargs = b->unary ? 1 : lua_gettop(L);
  find_options(&c);
  dlua_bind_enter(L);
  int top = lua_gettop(L);
  for (int k = 0; k < b->nvisible && !b->inplace; k++) slot[k] = dlua_bind_box(L);
  dlua_status status = perform(&c);
  if (status != DLUA_OK) return dlua_bind_check(L, status), 0;
  if (b->inplace) return deliver_inplace(&c);
  int count = deliver(&c, slot);
  if (c.requires_grad) dlua_bind_check(L, dlua_bind_require(*slot[0], b->name, true));
  lua_settop(L, top + count);
  return count;
}

// ---------------------------------------------------------------- what a script may ask about an
// op

static void push_param(lua_State *L, const dlua_param *p) {
  lua_newtable(L);
  lua_pushstring(L, p->name), lua_setfield(L, -2, "name");
  lua_pushfstring(L, "%c", p->kind), lua_setfield(L, -2, "kind");
  lua_pushboolean(L, p->optional || p->preset.set), lua_setfield(L, -2, "optional");
  lua_pushboolean(L, p->list), lua_setfield(L, -2, "list");
  if (p->exactly) lua_pushinteger(L, p->exactly), lua_setfield(L, -2, "exactly");
  if (p->bounded) {
    lua_pushnumber(L, p->lo), lua_setfield(L, -2, "lo");
    lua_pushnumber(L, p->hi), lua_setfield(L, -2, "hi");
  }
  if (p->nwords == 0) return;
  lua_newtable(L);
  for (int k = 0; k < p->nwords; k++) lua_pushstring(L, p->words[k]), lua_rawseti(L, -2, k + 1);
  lua_setfield(L, -2, "words");
}

static void push_flags(lua_State *L, const dlua_op *op) {
  static const struct {
    unsigned flag;
    const char *name;
  } flags[] = {{DLUA_VIEW, "view"},
               {DLUA_INPLACE, "inplace"},
               {DLUA_ELEMENTWISE, "elementwise"},
               {DLUA_LAYOUTS, "layouts"},
               {DLUA_CREATE, "create"},
               {DLUA_HALF, "half"},
               {DLUA_NO_GRAD, "no_grad"},
               {DLUA_HIDDEN, "hidden"},
               {DLUA_RANDOM, "random"},
               {DLUA_BF16_UNITS, "bf16_units"}};
  for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
    lua_pushboolean(L, (op->flags & flags[k].flag) != 0);
    lua_setfield(L, -2, flags[k].name);
  }
}

// Pushes {name, sig, doc, dtype rule, flags, params, results} of an op.
static void push_description(lua_State *L, const dlua_op *op) {
  static const char *const rules[] = {"same_float", "promote", "promote_float",
                                      "compare",    "keep",    "any_dtype"};
  static const char *const casts[] = {"widest", "lower", "f32", "nothing"};
  const dlua_signature *sig = dlua_op_signature(op);
  lua_newtable(L);
  lua_pushstring(L, op->name), lua_setfield(L, -2, "name");
  lua_pushstring(L, op->sig), lua_setfield(L, -2, "sig");
  lua_pushstring(L, op->doc), lua_setfield(L, -2, "doc");
  lua_pushstring(L, rules[op->dtype]), lua_setfield(L, -2, "dtype");
  lua_pushstring(L, casts[op->autocast]), lua_setfield(L, -2, "autocast");
  lua_pushstring(L, op->refuse ? op->refuse : ""), lua_setfield(L, -2, "refuse");
  lua_pushboolean(L, op->back != NULL), lua_setfield(L, -2, "differentiable");
  push_flags(L, op);
  lua_newtable(L);
  for (int k = 0; k < sig->ntensor + sig->nnum; k++) {
    push_param(L, param_at(sig, k));
    lua_rawseti(L, -2, k + 1);
  }
  lua_setfield(L, -2, "params");
  lua_newtable(L);
  for (int k = 0; k < sig->nresult; k++)
    lua_pushstring(L, sig->result[k]), lua_rawseti(L, -2, k + 1);
  lua_setfield(L, -2, "results");
}

// op_info(name): the description of one op; without a name, a list of all names.
static int op_info(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    lua_newtable(L);
    for (int k = 0; k < dlua_op_count(); k++) {
      lua_pushstring(L, dlua_op_at(k)->name);
      lua_rawseti(L, -2, k + 1);
    }
    return 1;
  }
  const dlua_op *op = dlua_op_find(dlua_bind_need_string(L, 1, "op_info: name"));
  if (!op) return lua_pushnil(L), 1;
  push_description(L, op);
  return 1;
}

// ---------------------------------------------------------------- registration

static int visible_results(const dlua_signature *sig) {
  int count = 0;
  while (count < sig->nresult && sig->result[count][0] != '_') count++;
  return count;
}

static bound *push_op(lua_State *L, const dlua_op *op, const char *name) {
  const dlua_signature *sig = dlua_op_signature(op);
  if (!sig) luaL_error(L, "%s", dlua_message());
  bound *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (bound){
      .op = op, .sig = sig, .nparams = sig->ntensor + sig->nnum, .nvisible = visible_results(sig)};
  b->numbers =
      op->dtype == DLUA_PROMOTE || op->dtype == DLUA_PROMOTE_FLOAT || op->dtype == DLUA_COMPARE;
  snprintf(b->name, sizeof b->name, "%s", name);
  lua_pushcclosure(L, call_op, 1);
  return b;
}

// Sets core[name], and methods[name] when the first parameter is a tensor. Stack: core, methods,
// ops.
static void add_op(lua_State *L, const dlua_op *op, const char *name, bool inplace) {
  push_op(L, op, name)->inplace = inplace;
  const dlua_signature *sig = dlua_op_signature(op);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, name); // ops
  if (op->flags & DLUA_HIDDEN) {
    lua_pop(L, 1);
    return;
  }
  bool method = sig->ntensor > 0 && sig->order[0] == 0 && !sig->tensor[0].list;
  if (method) lua_pushvalue(L, -1), lua_setfield(L, -4, name);
  lua_setfield(L, -4, name);
}

static void add_all(lua_State *L) {
  for (int k = 0; k < dlua_op_count(); k++) {
    const dlua_op *op = dlua_op_at(k);
    char name[40];
    add_op(L, op, op->name, false);
    snprintf(name, sizeof name, "%s_", op->name);
    if (op->flags & DLUA_INPLACE) add_op(L, op, name, true);
  }
}

static void add_operators(lua_State *L) {
  static const struct {
    const char *event, *op;
  } operators[] = {{"__add", "add"}, {"__sub", "sub"},        {"__mul", "mul"}, {"__div", "div"},
                   {"__mod", "mod"}, {"__idiv", "floor_div"}, {"__pow", "pow"}, {"__unm", "neg"}};
  luaL_getmetatable(L, DLUA_TENSOR);
  for (size_t k = 0; k < sizeof operators / sizeof *operators; k++) {
    const dlua_op *op = dlua_op_find(operators[k].op);
    if (!op) continue;
    push_op(L, op, op->name)->unary = strcmp(operators[k].event, "__unm") == 0;
    lua_setfield(L, -2, operators[k].event);
  }
  lua_pop(L, 1);
}

// Names that are Lua's reserved words, under which an op is also found: x["repeat"](x, 2).
static void add_alias(lua_State *L, const char *alias, const char *name) {
  for (int at = -3; at <= -2; at++) {
    lua_getfield(L, at, name);
    lua_setfield(L, at - 1, alias);
  }
}

void dlua_bind_ops(lua_State *L) {
  lua_getfield(L, -1, "methods");
  lua_newtable(L);
  add_all(L);
  add_operators(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "ops");
  lua_pop(L, 1);
  lua_pushvalue(L, -2); // core, methods, core: the order add_alias wants is core, methods, anything
  add_alias(L, "repeat", "tile");
  lua_pop(L, 2);
  lua_pushcfunction(L, op_info);
  lua_setfield(L, -2, "op_info");
}
