// index.c - x.field, x.field = v, x[key] and x[key] = v. Keys are read into one region, a start,
// count and step per dimension, which is one op to see and one op to replace. Ends outside the size
// are errors, never clamped; tables list no indices, because {1, 3} is the range from 1 to 3.
#include <string.h>

#include "value.h"

typedef struct region {
  dlua_tensor *x;
  int64_t start[DLUA_MAX_DIMS], count[DLUA_MAX_DIMS], step[DLUA_MAX_DIMS], drop[DLUA_MAX_DIMS];
  dlua_tensor *index; // an index tensor in one place of the key, or NULL
  int index_dim;      // its dimension once dropped ones are gone
} region;

// ---------------------------------------------------------------- reading keys

static void whole(region *r, dlua_tensor *x) {
  *r = (region){.x = x};
  for (int d = 0; d < x->ndim; d++) r->count[d] = x->size[d], r->step[d] = 1;
}

// Position k of dimension d counted from 0; raises where there is none.
static int64_t position(lua_State *L, const region *r, int d, lua_Integer k) {
  int64_t size = r->x->size[d], at = k < 0 ? k + size : k - 1;
  if (k != 0 && at >= 0 && at < size) return at;
  dlua_bind_raise(L, "index: %lld is outside 1..%lld (dimension %d of x %s)", (long long)k,
                  (long long)size, d + 1, dlua_shape_text(r->x));
  return 0;
}

static void pick(lua_State *L, region *r, int d, lua_Integer k) {
  r->start[d] = position(L, r, d, k), r->count[d] = 1, r->drop[d] = 1;
}

static bool get_integer(lua_State *L, int index, int k, lua_Integer *value) {
  int ok = lua_rawgeti(L, index, k) == LUA_TNUMBER;
  if (ok) *value = lua_tointegerx(L, -1, &ok);
  lua_pop(L, 1);
  return ok;
}

// Keys beside 1..length would be dropped without a word: {row = 2}, {1, nil, 2}.
static void check_keys(lua_State *L, int index, int length) {
  int count = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    count++;
    if (lua_type(L, -2) == LUA_TSTRING)
      dlua_bind_raise(L, "index: a table in x[…] is a list of entries, without key '%s'",
                      lua_tostring(L, -2));
  }
  if (count != length) dlua_bind_raise(L, "index: a table in x[…] is a list without holes");
}

static void wrong_range(lua_State *L, const region *r, int d) {
  dlua_bind_raise(L,
                  "index: a table in x[…] is {} or {first, last} or {first, last, step} (dimension "
                  "%d of x %s); to "
                  "list indices use a tensor of dtype i64",
                  d + 1, dlua_shape_text(r->x));
}

// {first, last[, step]}, both ends included; {k + 1, k} is empty.
static void range(lua_State *L, region *r, int d, int index) {
  lua_Integer first = 0, last = 0, step = 1, size = r->x->size[d];
  size_t length = lua_rawlen(L, index);
  check_keys(L, index, (int)length);
  if (length == 0) return;
  if (length > 3 || length < 2 || !get_integer(L, index, 1, &first) ||
      !get_integer(L, index, 2, &last) || (length == 3 && !get_integer(L, index, 3, &step))) {
    wrong_range(L, r, d);
  }
  if (step < 1)
    dlua_bind_raise(L, "index: step %lld of dimension %d is less than 1", (long long)step, d + 1);
  lua_Integer from = first < 0 ? first + size + 1 : first, to = last < 0 ? last + size + 1 : last;
  r->step[d] = step;
  if (to == from - 1 && from >= 1 && from <= size + 1) {
    r->start[d] = from - 1, r->count[d] = 0;
    return;
  }
  if (from < 1 || to > size || to < from) {
    dlua_bind_raise(L, "index: range %lld..%lld is outside 1..%lld (dimension %d of x %s)",
                    (long long)first, (long long)last, (long long)size, d + 1,
                    dlua_shape_text(r->x));
  }
  r->start[d] = from - 1, r->count[d] = (to - from) / step + 1;
}

static void read_entry(lua_State *L, region *r, int d, int index) {
  dlua_tensor *t = dlua_bind_test_tensor(L, index);
  int ok = 0;
  lua_Integer k = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &ok) : 0;
  if (ok)
    pick(L, r, d, k);
  else if (t && r->index)
    dlua_bind_raise(L, "index: only one place of x[…] may hold a tensor");
  else if (t && t->dtype == DLUA_BOOL && t->ndim != 1)
    dlua_bind_raise(L, "index: a mask inside x[{…}] has one dimension (mask %s)",
                    dlua_shape_text(t));
  else if (t)
    r->index = t, r->index_dim = d;
  else if (lua_istable(L, index))
    range(L, r, d, index);
  else
    dlua_bind_raise(L, "index: dimension %d must be an integer, a range or a tensor, got %s", d + 1,
                    dlua_bind_type(L, index));
}

// Reads x[{…}]; entries that are missing at the end mean all.
static void read_table(lua_State *L, region *r, int index) {
  int length = (int)lua_rawlen(L, index);
  check_keys(L, index, length);
  if (length > r->x->ndim) {
    dlua_bind_raise(L, "index: %d entries for %d dimension%s (x %s)", length, r->x->ndim,
                    r->x->ndim == 1 ? "" : "s", dlua_shape_text(r->x));
  }
  for (int d = 0; d < length; d++) {
    lua_rawgeti(L, index, d + 1);
    read_entry(L, r, d, lua_gettop(L));
    lua_pop(L, 1);
  }
  int dropped = 0;
  for (int d = 0; d < r->index_dim; d++) dropped += (int)r->drop[d];
  r->index_dim -= dropped;
}

static void read_key(lua_State *L, region *r, dlua_tensor *x, int index) {
  int ok = 0;
  lua_Integer k = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &ok) : 0;
  whole(r, x);
  if (ok && x->ndim == 0)
    dlua_bind_raise(L, "index: x has no dimensions (x {}); x:item() gives its number");
  if (ok)
    pick(L, r, 0, k);
  else if (lua_istable(L, index))
    read_table(L, r, index);
  else
    dlua_bind_raise(L, "index: x[…] takes an integer, a table or a tensor, got %s",
                    dlua_bind_type(L, index));
}

// ---------------------------------------------------------------- messages

static const char assignment[] = "x[key] = value";

// The rest of a message that an op's name begins, as in "index_copy_: …"; NULL for another one.
static const char *after_op(const char *text) {
  char name[32];
  size_t n = strcspn(text, ":");
  if (n >= sizeof name) return NULL;
  memcpy(name, text, n), name[n] = 0;
  if (n > 0 && name[n - 1] == '_') name[n - 1] = 0;
  return dlua_op_find(name) ? text + n : NULL;
}

// A failure of an op that indexing is made of, told as what the script wrote instead of by the
// op's name and that of its source.
static dlua_status retell(dlua_status status, const char *written) {
  if (status == DLUA_OK) return status;
  char text[1024];
  snprintf(text, sizeof text, "%s", dlua_message());
  const char *rest = after_op(text), *source = rest ? strstr(rest, " source ") : NULL;
  if (source)
    return dlua_fail(status, "%s%.*s value %s", written, (int)(source - rest), rest, source + 8);
  return rest ? dlua_fail(status, "%s%s", written, rest) : status;
}

// ---------------------------------------------------------------- ops on regions

static void set_list(dlua_value *v, int n, const int64_t *list) {
  v->set = true, v->n = n;
  memcpy(v->v, list, sizeof *list * (size_t)n);
}

static void set_region(dlua_args *a, const region *r) {
  const int64_t *lists[] = {r->start, r->count, r->step, r->drop};
  for (int k = 0; k < 4; k++) set_list(&a->num[k], r->x->ndim, lists[k]);
}

// Runs a prepared call and puts its first result into the box at slot (NULL: drops it).
static dlua_status run(dlua_args *a, dlua_tensor **slot) {
  DLUA_TRY(dlua_run(a));
  for (int k = 0; k < a->nout; k++) {
    if (k == 0 && slot)
      *slot = a->out[0];
    else
      dlua_tensor_release(a->out[k]);
  }
  return DLUA_OK;
}

// number: the op's first one, or -1: as it is preset.
static dlua_status run_two(const dlua_op *op, bool inplace, dlua_tensor *x, dlua_tensor *y,
                           int64_t number, dlua_tensor *source, dlua_tensor **slot) {
  dlua_args a;
  dlua_args_init(&a, op);
  a.inplace = inplace;
  a.in[0] = x, a.in[1] = y;
  if (source) a.in[2] = source;
  if (a.sig->nnum > 0 && number >= 0) a.num[0].set = true, a.num[0].i = number;
  return run(&a, slot);
}

static dlua_status see(const region *r, dlua_tensor **slot) {
  dlua_args a;
  dlua_args_init(&a, &dlua_op_slice);
  a.in[0] = r->x;
  set_region(&a, r);
  return run(&a, slot);
}

// ---------------------------------------------------------------- index tensors and masks

static bool is_mask(const dlua_tensor *t) { return t->dtype == DLUA_BOOL; }

// A mask over all of x, whose elements it picks; any other mask picks positions of one dimension.
static bool is_full_mask(const dlua_tensor *x, const dlua_tensor *key, int dim) {
  return is_mask(key) && dim == 0 && (key->ndim == x->ndim || key->ndim != 1);
}

// Does the mask's shape agree with x, or, of one dimension, with dimension dim of x?
static dlua_status check_mask(const dlua_tensor *x, const dlua_tensor *mask, int dim) {
  if (is_full_mask(x, mask, dim) ? dlua_same_shape(x, mask)
                                 : mask->ndim == 1 && mask->size[0] == x->size[dim])
    return DLUA_OK;
  if (dim > 0) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "index: mask %s does not fit dimension %d of x %s",
                     dlua_shape_text(mask), dim + 1, dlua_shape_text(x));
  }
  return dlua_fail(DLUA_BAD_ARGUMENT, "index: the mask's shape is not x's (x %s, mask %s)",
                   dlua_shape_text(x), dlua_shape_text(mask));
}

// The positions along one dimension that a key names, as a vector owned by s.
static dlua_tensor *rows_of(dlua_scope *s, dlua_tensor *key) {
  if (is_mask(key)) key = dlua_call(s, &dlua_op_nonzero, dlua_t(key));
  return dlua_call(s, &dlua_op_reshape, dlua_t(key), dlua_list(1, (int64_t[]){-1}));
}

// The shape of x with dimension dim replaced by the shape of index; returns its dimensions.
static int picked_shape(const dlua_tensor *x, int dim, const dlua_tensor *index, int64_t *size) {
  int n = 0;
  for (int d = 0; d < dim; d++) size[n++] = x->size[d];
  for (int d = 0; d < index->ndim; d++) size[n++] = index->size[d];
  for (int d = dim + 1; d < x->ndim; d++) size[n++] = x->size[d];
  return n;
}

static dlua_tensor *too_many(dlua_scope *s, int n) {
  return dlua_failed(s,
                     dlua_fail(DLUA_BAD_ARGUMENT, "index: the result would have %d dimensions", n));
}

static dlua_status see_rows(dlua_tensor *x, dlua_tensor *key, int dim, dlua_tensor **slot) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *y =
      dlua_call(&s, &dlua_op_index_select, dlua_t(x), dlua_t(rows_of(&s, key)), dlua_i(dim));
  if (y && !is_mask(key) && key->ndim != 1) {
    int64_t size[2 * DLUA_MAX_DIMS];
    int n = picked_shape(x, dim, key, size);
    y = n <= DLUA_MAX_DIMS ? dlua_call(&s, &dlua_op_reshape, dlua_t(y), dlua_list(n, size))
                           : too_many(&s, n);
  }
  if (y) *slot = dlua_tensor_retain(y);
  return dlua_scope_end(&s);
}

static dlua_status see_tensor(dlua_tensor *x, dlua_tensor *key, int dim, dlua_tensor **slot) {
  if (x->ndim == 0 && !is_mask(key))
    return dlua_fail(DLUA_BAD_ARGUMENT, "index: x has no dimensions (x {})");
  if (is_mask(key)) DLUA_TRY(check_mask(x, key, dim));
  if (!is_full_mask(x, key, dim)) return see_rows(x, key, dim, slot);
  return run_two(&dlua_op_masked_select, false, x, key, -1, NULL, slot);
}

static int read_index(lua_State *L, dlua_tensor *x) {
  dlua_tensor *key = dlua_bind_test_tensor(L, 2);
  dlua_tensor **slot = dlua_bind_box(L);
  region r = {0};
  if (key) {
    dlua_bind_check(L, retell(see_tensor(x, key, 0, slot), "index"));
    return 1;
  }
  read_key(L, &r, x, 2);
  dlua_bind_check(L, retell(see(&r, slot), "index"));
  if (!r.index) return 1;
  dlua_tensor **picked = dlua_bind_box(L);
  dlua_bind_check(L, retell(see_tensor(*slot, r.index, r.index_dim, picked), "index"));
  return 1;
}

// ---------------------------------------------------------------- writing

// v without leading dimensions of size 1 beyond ndim ones: x[1] = a row {1,n}.
static dlua_tensor *strip(dlua_scope *s, dlua_tensor *v, int ndim) {
  int extra = 0;
  while (v->ndim - extra > ndim && v->size[extra] == 1) extra++;
  if (extra == 0) return v;
  return dlua_call(s, &dlua_op_reshape, dlua_t(v), dlua_list(v->ndim - extra, v->size + extra));
}

// The value to write as a tensor of x's dtype; owned by s.
static dlua_tensor *value_of(lua_State *L, dlua_scope *s, const dlua_tensor *x, int index) {
  dlua_tensor *v = dlua_bind_test_tensor(L, index);
  if (v) return v->dtype == x->dtype ? v : dlua_call(s, &dlua_op_cast, dlua_t(v), dlua_i(x->dtype));
  int type = lua_type(L, index);
  if (type != LUA_TNUMBER && type != LUA_TBOOLEAN) {
    return dlua_failed(s, dlua_fail(DLUA_BAD_ARGUMENT,
                                    "%s: value must be a tensor or a number, got %s", assignment,
                                    dlua_bind_type(L, index)));
  }
  double f = type == LUA_TBOOLEAN ? lua_toboolean(L, index) : lua_tonumber(L, index);
  int is_int = type == LUA_TBOOLEAN;
  int64_t i = is_int ? (int64_t)f : lua_tointegerx(L, index, &is_int);
  if (!is_int && !dlua_is_float((dlua_dtype)x->dtype)) {
    return dlua_failed(s, dlua_fail(DLUA_BAD_ARGUMENT, "%s: %g does not fit into an %s tensor",
                                    assignment, f, dlua_dtype_name((dlua_dtype)x->dtype)));
  }
  dlua_status status = dlua_tensor_number(&v, is_int, i, f);
  return status == DLUA_OK ? dlua_own(s, v) : dlua_failed(s, status);
}

static dlua_status replace(dlua_scope *s, const region *r, dlua_tensor *value) {
  dlua_args a;
  int ndim = r->x->ndim;
  for (int d = 0; d < r->x->ndim; d++) ndim -= (int)r->drop[d];
  value = strip(s, value, ndim);
  if (!value) return s->status;
  dlua_args_init(&a, &dlua_op_set_slice);
  a.inplace = true;
  a.in[0] = r->x, a.in[1] = value;
  set_region(&a, r);
  return run(&a, NULL);
}

// x[mask] = a number: exact for integers.
static dlua_status fill_mask(dlua_tensor *x, dlua_tensor *mask, dlua_tensor *number) {
  dlua_args a;
  dlua_value *v = &a.num[0];
  dlua_args_init(&a, &dlua_op_masked_fill);
  a.inplace = true;
  a.in[0] = x, a.in[1] = mask;
  v->set = true, v->is_int = number->dtype == DLUA_I64;
  if (v->is_int) v->i = *dlua_i64(number);
  v->f = v->is_int ? (double)v->i : *dlua_f64(number);
  return run(&a, NULL);
}

// x[mask] = values: as many as there are places, or one for all.
static dlua_status replace_masked(dlua_scope *s, dlua_tensor *x, dlua_tensor *mask,
                                  dlua_tensor *value) {
  if (value->number) return fill_mask(x, mask, value);
  bool exact = dlua_numel(value) != 1;
  if (!exact) {
    value = dlua_call(s, &dlua_op_reshape, dlua_t(value), dlua_list(0, NULL));
    value = dlua_call(s, &dlua_op_expand, dlua_t(value), dlua_list(x->ndim, x->size));
  }
  return value ? run_two(&dlua_op_masked_scatter, true, x, mask, exact, value, NULL) : s->status;
}

// value spread over the part of x that key picks along dim, that part's dimensions made one.
static dlua_tensor *spread(dlua_scope *s, dlua_tensor *x, dlua_tensor *key, dlua_tensor *rows,
                           int dim, dlua_tensor *value) {
  int64_t size[2 * DLUA_MAX_DIMS];
  int n = picked_shape(x, dim, is_mask(key) ? rows : key, size);
  if (n > DLUA_MAX_DIMS) return too_many(s, n);
  value = strip(s, value, n);
  bool fits = value && value->ndim <= n;
  for (int d = 1; fits && d <= value->ndim; d++) {
    int64_t have = value->size[value->ndim - d];
    fits = have == 1 || have == size[n - d];
  }
  if (value && !fits) {
    return dlua_failed(
        s, dlua_fail(DLUA_BAD_ARGUMENT, "%s: value %s does not fit the part %s of x %s", assignment,
                     dlua_shape_text(value), dlua_sizes_text(n, size), dlua_shape_text(x)));
  }
  if (value && value->number) value = dlua_call(s, &dlua_op_cast, dlua_t(value), dlua_i(x->dtype));
  value = dlua_call(s, &dlua_op_expand, dlua_t(value), dlua_list(n, size));
  n = picked_shape(x, dim, rows, size);
  return dlua_call(s, &dlua_op_reshape, dlua_t(value), dlua_list(n, size));
}

// The positions key names along dim of x, and the value spread over them; false after a failure.
static bool prepare(dlua_scope *s, dlua_tensor *x, dlua_tensor *key, int dim, dlua_tensor **rows,
                    dlua_tensor **value) {
  dlua_status status = is_mask(key) ? check_mask(x, key, dim) : DLUA_OK;
  if (status != DLUA_OK) return dlua_failed(s, status);
  *rows = rows_of(s, key);
  *value = *rows ? spread(s, x, key, *rows, dim, *value) : NULL;
  return *value != NULL;
}

static dlua_status write_tensor(lua_State *L, dlua_scope *s, dlua_tensor *x, dlua_tensor *key) {
  dlua_tensor *value = value_of(L, s, x, 3), *rows;
  if (!value) return s->status;
  if (x->ndim == 0 && !is_mask(key))
    return dlua_fail(DLUA_BAD_ARGUMENT, "index: x has no dimensions (x {})");
  if (is_full_mask(x, key, 0)) {
    DLUA_TRY(check_mask(x, key, 0));
    return replace_masked(s, x, key, value);
  }
  if (!prepare(s, x, key, 0, &rows, &value)) return s->status;
  return run_two(&dlua_op_index_copy, true, x, rows, 0, value, NULL);
}

// x[{…, key}] = value: the rest of the key is seen, changed and put back, so that it is recorded as
// a change of x and not of a view of it.
static dlua_status write_part(dlua_scope *s, const region *r, dlua_tensor *value) {
  dlua_tensor *part = NULL, *rows;
  DLUA_TRY(see(r, &part));
  dlua_own(s, part);
  if (!prepare(s, part, r->index, r->index_dim, &rows, &value)) return s->status;
  part = dlua_call(s, &dlua_op_index_copy, dlua_t(part), dlua_t(rows), dlua_t(value),
                   dlua_i(r->index_dim));
  return part ? replace(s, r, part) : s->status;
}

static dlua_status write_region(lua_State *L, dlua_scope *s, const region *r) {
  dlua_tensor *value = value_of(L, s, r->x, 3);
  if (!value) return s->status;
  return r->index ? write_part(s, r, value) : replace(s, r, value);
}

static void write_index(lua_State *L, dlua_tensor *x) {
  dlua_tensor *key = dlua_bind_test_tensor(L, 2);
  region r = {0};
  if (!key) read_key(L, &r, x, 2);
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_status status = key ? write_tensor(L, &s, x, key) : write_region(L, &s, &r);
  dlua_status ended = dlua_scope_end(&s);
  dlua_bind_check(L, retell(status != DLUA_OK ? status : ended, assignment));
}

// ---------------------------------------------------------------- fields

static int unknown_field(lua_State *L, const char *name) {
  lua_newtable(L);
  int count = 0;
  for (int up = 1; up <= 2; up++) {
    for (lua_pushnil(L); lua_next(L, lua_upvalueindex(up)); lua_pop(L, 1)) {
      lua_pushvalue(L, -2);
      lua_rawseti(L, -4, ++count);
    }
  }
  const char *near = dlua_bind_nearest(L, -1, name);
  return near ? dlua_bind_raise(L, "tensor: no field or method '%s' (did you mean '%s'?)", name,
                                near)
              : dlua_bind_raise(L, "tensor: no field or method '%s'", name);
}

// Upvalues: methods, fields. Strings are looked up raw, methods first.
static int box_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) return unknown_field(L, lua_tostring(L, 2));
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
  }
  dlua_bind_enter(L);
  return read_index(L, dlua_bind_tensor(L, 1, "index: x"));
}

static void set_grad(lua_State *L, dlua_tensor *x) {
  dlua_tensor *g = lua_isnil(L, 3) ? NULL : dlua_bind_tensor(L, 3, "grad: the new gradient");
  if (g && !dlua_same_shape(g, x)) {
    dlua_bind_raise(L, "grad: the gradient's shape is not x's (x %s, gradient %s)",
                    dlua_shape_text(x), dlua_shape_text(g));
  }
  if (g && g->dtype != x->dtype) {
    dlua_bind_raise(L, "grad: x is %s but the gradient is %s",
                    dlua_dtype_name((dlua_dtype)x->dtype), dlua_dtype_name((dlua_dtype)g->dtype));
  }
  if (g && dlua_device_of(g) != dlua_device_of(x)) {
    dlua_bind_raise(L, "grad: x is on %s but the gradient is on %s",
                    dlua_device_name(dlua_device_of(x)), dlua_device_name(dlua_device_of(g)));
  }
  dlua_tensor *old = x->grad;
  x->grad = dlua_tensor_retain(g);
  dlua_tensor_release(old);
}

static int box_newindex(lua_State *L) {
  dlua_bind_enter(L);
  dlua_tensor *x = dlua_bind_tensor(L, 1, "index: x");
  if (lua_type(L, 2) != LUA_TSTRING) return write_index(L, x), 0;
  const char *name = lua_tostring(L, 2);
  if (strcmp(name, "grad") == 0)
    set_grad(L, x);
  else if (strcmp(name, "requires_grad") == 0) {
    if (!lua_isboolean(L, 3))
      dlua_bind_raise(L, "requires_grad must be a boolean, got %s", dlua_bind_type(L, 3));
    dlua_bind_check(L, dlua_bind_require(x, "requires_grad", lua_toboolean(L, 3)));
  } else
    dlua_bind_raise(L, "tensor: field '%s' cannot be assigned (only grad and requires_grad can)",
                    name);
  return 0;
}

void dlua_bind_index(lua_State *L) {
  luaL_getmetatable(L, DLUA_TENSOR);
  lua_getfield(L, -2, "methods");
  lua_getfield(L, -3, "fields");
  lua_pushcclosure(L, box_index, 2);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, box_newindex);
  lua_setfield(L, -2, "__newindex");
  lua_pop(L, 1);
}
