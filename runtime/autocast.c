// autocast.c - casts in front of ops. A parameter is used many times between two steps (weight
// sharing, gradient accumulation, recurrent nets), so its cast is made once and kept until autocast
// ends, by tensor, version and whether it was recorded.
#include "autocast.h"

#include <string.h>

static _Thread_local dlua_dtype lower = DLUA_F32;

// ---------------------------------------------------------------- casts that are kept

typedef struct kept {
  dlua_tensor *x, *cast; // owned
  uint32_t version;
  bool recorded;
} kept;

static _Thread_local kept *table; // open addressing, a power of two of places
static _Thread_local size_t places, used;

static kept *place_of(kept *in, size_t n, const dlua_tensor *x, bool recorded) {
  size_t k = (uintptr_t)x / sizeof(dlua_tensor) * 2 + recorded;
  while (in[k % n].x && (in[k % n].x != x || in[k % n].recorded != recorded)) k++;
  return &in[k % n];
}

static void drop_kept(void) {
  for (size_t k = 0; k < places; k++) {
    dlua_tensor_release(table[k].x);
    dlua_tensor_release(table[k].cast);
  }
  dlua_delete(table, places * sizeof *table);
  table = NULL, places = used = 0;
}

static dlua_status grow(void) {
  size_t more = places ? 2 * places : 64;
  kept *new = dlua_new(more * sizeof *new);
  if (!new) return DLUA_NO_MEMORY;
  for (size_t k = 0; k < places; k++) {
    if (table[k].x) *place_of(new, more, table[k].x, table[k].recorded) = table[k];
  }
  dlua_delete(table, places * sizeof *table);
  table = new, places = more;
  return DLUA_OK;
}

static dlua_status cast(dlua_tensor *x, dlua_dtype dtype, dlua_tensor **result) {
  dlua_args a;
  dlua_args_init(&a, &dlua_op_cast);
  a.in[0] = x, a.num[0].i = dtype, a.num[0].set = true;
  DLUA_TRY(dlua_run(&a));
  *result = a.out[0];
  return DLUA_OK;
}

// A parameter in the lower dtype; caller owns the result.
static dlua_status cast_kept(dlua_tensor *x, dlua_tensor **result) {
  bool recorded = dlua_grad_mode();
  if (2 * used >= places) DLUA_TRY(grow());
  kept *at = place_of(table, places, x, recorded);
  if (at->x && at->version == x->storage->version && at->cast->dtype == lower) {
    *result = dlua_tensor_retain(at->cast);
    return DLUA_OK;
  }
  dlua_tensor *y = NULL;
  DLUA_TRY(cast(x, lower, &y));
  if (!at->x) at->x = dlua_tensor_retain(x), at->recorded = recorded, used++;
  dlua_tensor_release(at->cast);
  at->cast = y, at->version = x->storage->version;
  *result = dlua_tensor_retain(y);
  return DLUA_OK;
}

dlua_dtype dlua_autocast(void) { return lower; }

dlua_dtype dlua_set_autocast(dlua_dtype dtype) {
  dlua_dtype before = lower;
  lower = dtype;
  if (dtype == DLUA_F32) drop_kept();
  return before;
}

// ---------------------------------------------------------------- calls

static bool is_cast(const dlua_args *a, int k) {
  const dlua_tensor *x = a->in[k];
  return x && !x->number && (dlua_is_half((dlua_dtype)x->dtype) || x->dtype == DLUA_F32);
}

// The dtype this call's inputs are brought to; false where they stay as they are.
static bool wanted_dtype(const dlua_args *a, dlua_dtype *dtype) {
  bool any = false, mixed = false;
  if (a->op->autocast == DLUA_CAST_NOTHING) return false;
  for (int k = 0; k < a->nin; k++) {
    if (a->in[k] && a->in[k]->dtype == DLUA_F64 && !a->in[k]->number) return false;
    if (!is_cast(a, k)) continue;
    dlua_dtype own = (dlua_dtype)a->in[k]->dtype;
    mixed |= any && own != *dtype;
    *dtype = any ? dlua_promote(*dtype, own) : own;
    any = true;
  }
  if (!any) return false;
  if (a->op->autocast == DLUA_CAST_WIDEST) return mixed;
  *dtype = a->op->autocast == DLUA_CAST_LOWER ? lower : DLUA_F32;
  return true;
}

static dlua_status cast_inputs(dlua_args *a, dlua_dtype dtype, dlua_tensor **in) {
  for (int k = 0; k < a->nin; k++) {
    if (!is_cast(a, k) || a->in[k]->dtype == dtype) {
      in[k] = dlua_tensor_retain(a->in[k]);
      continue;
    }
    bool parameter = a->in[k]->requires_grad && !a->in[k]->node && dtype == lower;
    DLUA_TRY(parameter ? cast_kept(a->in[k], &in[k]) : cast(a->in[k], dtype, &in[k]));
  }
  return DLUA_OK;
}

dlua_status dlua_run_autocast(dlua_args *a, dlua_status (*run)(dlua_args *a)) {
  dlua_dtype dtype;
  if (a->inplace || !wanted_dtype(a, &dtype)) return run(a);
  dlua_tensor *few[DLUA_MAX_IN] = {0}, **in = few, **given = a->in;
  size_t bytes = (size_t)a->nin * sizeof *in;
  if (a->nin > DLUA_MAX_IN && !(in = dlua_new(bytes))) return DLUA_NO_MEMORY;
  dlua_status status = cast_inputs(a, dtype, in);
  a->in = in;
  if (status == DLUA_OK) status = run(a);
  a->in = given;
  for (int k = 0; k < a->nin; k++) dlua_tensor_release(in[k]);
  if (in != few) dlua_delete(in, bytes);
  return status;
}
