// tensor.c - tensors from Lua tables and back, their fields and small methods. What computes is an
// op (op.c).
#include <math.h>
#include <string.h>

#include "value.h"

// ---------------------------------------------------------------- tables to tensors

typedef struct reader {
  lua_State *L;
  const char *who;
  dlua_dtype dtype; // of the result
  int ndim;
  int64_t size[DLUA_MAX_DIMS], at[DLUA_MAX_DIMS]; // at: where in the table, from 0
  dlua_tensor *x;
  int64_t count; // elements written
} reader;

#define WRONG(...) dlua_fail(DLUA_BAD_ARGUMENT, __VA_ARGS__)

// The place in the nested table that a message is about: "2", "{2,1}".
static const char *place(const reader *r, int depth) {
  int64_t at[DLUA_MAX_DIMS];
  for (int d = 0; d < depth; d++) at[d] = r->at[d] + 1;
  const char *text = dlua_sizes_text(depth, at);
  return text;
}

// Follows the first elements down to find the shape.
static dlua_status find_shape(reader *r, int index) {
  lua_State *L = r->L;
  int top = lua_gettop(L);
  lua_pushvalue(L, index);
  while (lua_istable(L, -1)) {
    if (r->ndim == DLUA_MAX_DIMS) {
      lua_settop(L, top);
      return WRONG("%s: the table nests deeper than %d levels", r->who, DLUA_MAX_DIMS);
    }
    r->size[r->ndim++] = (int64_t)lua_rawlen(L, -1);
    if (lua_rawgeti(L, -1, 1) == LUA_TNIL) break;
  }
  lua_settop(L, top);
  return DLUA_OK;
}

static dlua_status wrong_length(const reader *r, int depth, int64_t length) {
  const char *plural = length == 1 ? "" : "s";
  if (depth == 1) {
    return WRONG("%s: row %lld has %lld element%s but row 1 has %lld", r->who,
                 (long long)r->at[0] + 1, (long long)length, plural, (long long)r->size[1]);
  }
  return WRONG("%s: the table at %s has %lld element%s but the first one has %lld", r->who,
               place(r, depth), (long long)length, plural, (long long)r->size[depth]);
}

static dlua_status wrong_element(const reader *r, int index) {
  const char *type = dlua_bind_type(r->L, index);
  if (r->ndim == 0)
    return WRONG("%s: expected a number, a boolean or a table of them, got %s", r->who, type);
  if (lua_istable(r->L, index))
    return WRONG("%s: element %s is a table but the first one is a number", r->who,
                 place(r, r->ndim));
  return WRONG("%s: element %s must be a number, got %s%s", r->who, place(r, r->ndim), type,
               strcmp(type, "tensor") == 0 ? " (dlua.stack and dlua.cat join tensors)" : "");
}

static dlua_status write_integer(reader *r, int index, int64_t value, int ok) {
  if (!ok) {
    double number = lua_tonumber(r->L, index);
    return WRONG("%s: element %s is %g, which is no integer", r->who, place(r, r->ndim),
                 isnan(number) ? NAN : number); // a sign of nan means nothing
  }
  if ((r->dtype == DLUA_U8 && value != (uint8_t)value) ||
      (r->dtype == DLUA_I32 && value != (int32_t)value)) {
    return WRONG("%s: element %s is %lld, which does not fit into %s", r->who, place(r, r->ndim),
                 (long long)value, dlua_dtype_name(r->dtype));
  }
  dlua_i64(r->x)[r->count++] = value;
  return DLUA_OK;
}

static dlua_status write_element(reader *r, int index) {
  int type = lua_type(r->L, index);
  if (type != LUA_TNUMBER && type != LUA_TBOOLEAN) return wrong_element(r, index);
  double number = type == LUA_TBOOLEAN ? lua_toboolean(r->L, index) : lua_tonumber(r->L, index);
  switch (r->x->dtype) {
  case DLUA_F32: dlua_f32(r->x)[r->count++] = (float)number; break;
  case DLUA_F64: dlua_f64(r->x)[r->count++] = number; break;
  case DLUA_BOOL: ((uint8_t *)dlua_data(r->x))[r->count++] = number != 0; break;
  default: {
    int ok = 1;
    int64_t value = type == LUA_TBOOLEAN ? (int64_t)number : lua_tointegerx(r->L, index, &ok);
    return write_integer(r, index, value, ok);
  }
  }
  return DLUA_OK;
}

static dlua_status write_table(reader *r, int index, int depth) {
  lua_State *L = r->L;
  if (depth == r->ndim) return write_element(r, index);
  if (!lua_istable(L, index)) {
    return WRONG("%s: element %s is %s but the first one is a table", r->who, place(r, depth),
                 dlua_bind_type(L, index));
  }
  int64_t length = (int64_t)lua_rawlen(L, index);
  if (length != r->size[depth]) return wrong_length(r, depth, length);
  for (int64_t k = 0; k < length; k++) {
    r->at[depth] = k;
    lua_rawgeti(L, index, k + 1);
    dlua_status status = write_table(r, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
    DLUA_TRY(status);
  }
  return DLUA_OK;
}

// Are there booleans in the nested table and nothing else? Among numbers they count as 0 and 1.
static bool all_booleans(lua_State *L, int index, int depth) {
  if (!lua_istable(L, index)) return lua_isboolean(L, index);
  int64_t length = (int64_t)lua_rawlen(L, index);
  bool all = length > 0 && depth < DLUA_MAX_DIMS;
  for (int64_t k = 1; all && k <= length; k++) {
    lua_rawgeti(L, index, k);
    all = all_booleans(L, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
  }
  return all;
}

// {x = 1} holds no list, and so would make an empty tensor without a word.
static bool has_names(lua_State *L, int index) {
  if (!lua_istable(L, index) || lua_rawlen(L, index) > 0) return false;
  lua_pushnil(L);
  if (!lua_next(L, index)) return false;
  lua_pop(L, 2);
  return true;
}

// What elements are written as before the cast: exact integers for integer dtypes.
static dlua_dtype staging(dlua_dtype dtype) {
  if (dtype == DLUA_I32 || dtype == DLUA_U8) return DLUA_I64;
  return dlua_is_half(dtype) ? DLUA_F32 : dtype;
}

dlua_status dlua_bind_read(lua_State *L, int index, const char *who, dlua_dtype dtype,
                           dlua_tensor **result) {
  reader r = {.L = L, .who = who};
  if (!lua_checkstack(L, 2 * DLUA_MAX_DIMS + 4))
    return dlua_fail(DLUA_NO_MEMORY, "%s: no stack", who);
  index = lua_absindex(L, index);
  if (dtype == DLUA_DTYPES) dtype = all_booleans(L, index, 0) ? DLUA_BOOL : DLUA_F32;
  r.dtype = dtype;
  if (has_names(L, index)) return WRONG("%s: the table holds names, not a list of numbers", who);
  DLUA_TRY(find_shape(&r, index));
  DLUA_TRY(dlua_tensor_new(&r.x, staging(dtype), r.ndim, r.size, dlua_cpu()));
  dlua_status status = write_table(&r, index, 0);
  if (status == DLUA_OK) status = dlua_cast(r.x, dtype, result);
  dlua_tensor_release(r.x);
  return status;
}

// tensor(table | number | boolean | tensor, {dtype, device, requires_grad})
static int tensor(lua_State *L) {
  static const char *const names[] = {"dtype", "device", "requires_grad", NULL};
  dlua_dtype dtype = DLUA_DTYPES;
  dlua_device *device = dlua_cpu();
  bool requires_grad = false;
  dlua_bind_enter(L);
  lua_settop(L, 2);
  dlua_bind_check_options(L, 2, "tensor", names);
  dlua_bind_tensor_options(L, 2, "tensor", &dtype, &device, &requires_grad);
  dlua_tensor **slot = dlua_bind_box(L), **moved = dlua_bind_box(L);
  dlua_tensor *x = dlua_bind_test_tensor(L, 1);
  if (x) {
    return dlua_bind_raise(L, "tensor: x is a tensor already; use x:clone() or x:to(…) (x %s)",
                           dlua_shape_text(x));
  }
  dlua_bind_check(L, dlua_bind_read(L, 1, "tensor", dtype, slot));
  dlua_bind_check(L, dlua_to_device(*slot, device, moved));
  if (requires_grad) dlua_bind_check(L, dlua_bind_require(*moved, "tensor", true));
  return 1;
}

// ---------------------------------------------------------------- tensors to tables

dlua_status dlua_bind_host(const dlua_tensor *x, dlua_tensor **result) {
  dlua_tensor *near = NULL, *cast = NULL;
  dlua_dtype dtype = dlua_is_half((dlua_dtype)x->dtype) ? DLUA_F32 : (dlua_dtype)x->dtype;
  DLUA_TRY(dlua_to_device(x, dlua_cpu(), &near));
  dlua_status status = dlua_cast(near, dtype, &cast);
  dlua_tensor_release(near);
  if (status == DLUA_OK) status = dlua_contiguous(cast, result);
  dlua_tensor_release(cast);
  return status;
}

void dlua_bind_push_element(lua_State *L, const dlua_tensor *host, int64_t k) {
  const void *data = dlua_data(host);
  switch (host->dtype) {
  case DLUA_F32: lua_pushnumber(L, (double)((const float *)data)[k]); break;
  case DLUA_F64: lua_pushnumber(L, ((const double *)data)[k]); break;
  case DLUA_I64: lua_pushinteger(L, ((const int64_t *)data)[k]); break;
  case DLUA_I32: lua_pushinteger(L, ((const int32_t *)data)[k]); break;
  case DLUA_U8: lua_pushinteger(L, ((const uint8_t *)data)[k]); break;
  default: lua_pushboolean(L, ((const uint8_t *)data)[k]); break;
  }
}

static void push_nested(lua_State *L, const dlua_tensor *host, int d, int64_t *k) {
  if (d == host->ndim) {
    dlua_bind_push_element(L, host, (*k)++);
    return;
  }
  luaL_checkstack(L, 4, NULL);
  lua_createtable(L, (int)host->size[d], 0);
  for (int64_t i = 0; i < host->size[d]; i++) {
    push_nested(L, host, d + 1, k);
    lua_rawseti(L, -2, i + 1);
  }
}

static int totable(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "totable: x"), **host = dlua_bind_box(L);
  int64_t k = 0;
  dlua_bind_check(L, dlua_name_failure(dlua_bind_host(x, host), "totable"));
  push_nested(L, *host, 0, &k);
  return 1;
}

static int item(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "item: x");
  bool is_int;
  int64_t i;
  double f;
  dlua_bind_check(L, dlua_name_failure(dlua_item(x, &is_int, &i, &f), "item"));
  if (x->dtype == DLUA_BOOL)
    lua_pushboolean(L, i != 0 || (!is_int && f != 0));
  else if (is_int)
    lua_pushinteger(L, i);
  else
    lua_pushnumber(L, f);
  return 1;
}

// ---------------------------------------------------------------- size and shape

static int size(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "size: x");
  if (lua_isnoneornil(L, 2)) {
    luaL_checkstack(L, DLUA_MAX_DIMS, NULL);
    for (int d = 0; d < x->ndim; d++) lua_pushinteger(L, x->size[d]);
    return x->ndim;
  }
  int ok;
  lua_Integer d = lua_tointegerx(L, 2, &ok), dim = d < 0 ? d + x->ndim + 1 : d;
  if (!ok) return dlua_bind_raise(L, "size: dim must be a dimension, got %s", dlua_bind_type(L, 2));
  if (dim < 1 || dim > x->ndim) {
    return dlua_bind_raise(L, "size: dimension %lld is outside 1..%d (x %s)", (long long)d, x->ndim,
                           dlua_shape_text(x));
  }
  lua_pushinteger(L, x->size[dim - 1]);
  return 1;
}

static int push_list(lua_State *L, int n, const int64_t *v) {
  lua_createtable(L, n, 0);
  for (int k = 0; k < n; k++) lua_pushinteger(L, v[k]), lua_rawseti(L, -2, k + 1);
  return 1;
}

static int stride(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "stride: x");
  dlua_bind_check(L, dlua_make_strided(x));
  return push_list(L, x->ndim, x->stride);
}

static int numel(lua_State *L) {
  lua_pushinteger(L, dlua_numel(dlua_bind_tensor(L, 1, "numel: x")));
  return 1;
}

static int is_contiguous(lua_State *L) {
  lua_pushboolean(L, dlua_is_contiguous(dlua_bind_tensor(L, 1, "is_contiguous: x")));
  return 1;
}

static int is_tensor(lua_State *L) {
  lua_pushboolean(L, dlua_bind_test_tensor(L, 1) != NULL);
  return 1;
}

static int length(lua_State *L) {
  dlua_tensor *x = dlua_bind_tensor(L, 1, "#: x");
  if (x->ndim == 0)
    return dlua_bind_raise(L, "#: x has no dimensions (x {}); x:item() gives its number");
  lua_pushinteger(L, x->size[0]);
  return 1;
}

// ---------------------------------------------------------------- fields

typedef int getter(lua_State *L, dlua_tensor *x);

static int get_dtype(lua_State *L, dlua_tensor *x) {
  lua_pushstring(L, dlua_dtype_name((dlua_dtype)x->dtype));
  return 1;
}
static int get_device(lua_State *L, dlua_tensor *x) {
  lua_pushstring(L, dlua_device_name(dlua_device_of(x)));
  return 1;
}
static int get_ndim(lua_State *L, dlua_tensor *x) {
  lua_pushinteger(L, x->ndim);
  return 1;
}
static int get_shape(lua_State *L, dlua_tensor *x) { return push_list(L, x->ndim, x->size); }
static int get_requires_grad(lua_State *L, dlua_tensor *x) {
  lua_pushboolean(L, x->requires_grad);
  return 1;
}
static int get_is_leaf(lua_State *L, dlua_tensor *x) {
  lua_pushboolean(L, !x->node);
  return 1;
}
static int get_grad(lua_State *L, dlua_tensor *x) {
  if (!x->grad)
    lua_pushnil(L);
  else
    *dlua_bind_box(L) = dlua_tensor_retain(x->grad);
  return 1;
}

static const struct {
  const char *name;
  getter *get;
} fields[] = {{"dtype", get_dtype},    {"device", get_device}, {"ndim", get_ndim},
              {"shape", get_shape},    {"grad", get_grad},     {"requires_grad", get_requires_grad},
              {"is_leaf", get_is_leaf}};

// Each field is a closure in .fields of the core, called by __index with the tensor.
static int get_field(lua_State *L) {
  getter *get = fields[lua_tointeger(L, lua_upvalueindex(1))].get;
  return get(L, dlua_bind_tensor(L, 1, "field: x"));
}

static void add_fields(lua_State *L) {
  lua_newtable(L);
  for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) {
    lua_pushinteger(L, (lua_Integer)k);
    lua_pushcclosure(L, get_field, 1);
    lua_setfield(L, -2, fields[k].name);
  }
  lua_setfield(L, -2, "fields");
}

// ---------------------------------------------------------------- comparisons that Lua would make
// booleans of

static int refuse_order(lua_State *L) {
  return dlua_bind_raise(L, "%s", lua_tostring(L, lua_upvalueindex(1)));
}

static void add_refusal(lua_State *L, const char *event, const char *text) {
  lua_pushstring(L, text);
  lua_pushcclosure(L, refuse_order, 1);
  lua_setfield(L, -2, event);
}

// ---------------------------------------------------------------- registration

void dlua_bind_tensors(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"size", size}, {"stride", stride},   {"numel", numel},
      {"item", item}, {"totable", totable}, {"is_contiguous", is_contiguous},
      {NULL, NULL},
  };
  add_fields(L);
  lua_pushcfunction(L, tensor), lua_setfield(L, -2, "tensor");
  lua_pushcfunction(L, is_tensor), lua_setfield(L, -2, "is_tensor");
  lua_getfield(L, -1, "methods");
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 1);
  luaL_getmetatable(L, DLUA_TENSOR);
  lua_pushcfunction(L, length), lua_setfield(L, -2, "__len");
  lua_pushcfunction(L, dlua_bind_tostring), lua_setfield(L, -2, "__tostring");
  add_refusal(L, "__lt",
              "lt: < compares tensors as a whole; use x:lt(y) or x:gt(y) for each element");
  add_refusal(L, "__le",
              "le: <= compares tensors as a whole; use x:le(y) or x:ge(y) for each element");
  lua_pop(L, 1);
  dlua_bind_moves(L);
  dlua_bind_index(L);
}
