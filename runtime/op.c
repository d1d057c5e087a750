// op.c - dlua_run, the one dispatch point: every computation passes the stages below in this order.
//
//   check    kinds of the inputs, one device, stale views, numbers of dimensions
//   convert  dtypes to what the op's rule says, blocked layouts to strided where the kernel takes none
//   shape    the op's rule says what the results are
//   target   fresh tensors, or the first input when the result goes in place
//   record   the tape's node is prepared, when a gradient may be asked for
//   kernel   the device's; on the CPU fast ones first, the plain one last
//   finish   results in the promised dtype; the node is hung onto them
//
// All that can fail happens before the kernel writes, so a failed call has changed nothing. Refused: a
// per-op choice of any of this. What differs between ops is said by fields of their struct.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "cpu/layout.h"
#include "env.h"
#include "grad.h"
#include "op.h"
#include "ops/convert.h"

// A converted number operand: a 0-d tensor that lives as long as the run and costs no allocation.
typedef struct number_operand {
  dlua_tensor tensor;
  dlua_storage storage;
  uint64_t value;
} number_operand;

// What one run holds besides its arguments.
typedef struct frame {
  dlua_args *a;
  const dlua_signature *sig;
  dlua_tensor **given;                 // the caller's inputs, while a->in points to converted ones
  dlua_tensor *converted[DLUA_MAX_IN]; // used unless there are more inputs
  dlua_tensor **in;
  int ntemps;
  dlua_tensor *few[2 * DLUA_MAX_IN], **temps;
  int nnumbers;
  number_operand numbers[3];
  dlua_dtype narrow; // bf16 or f16 while the kernel computes in f32, else DLUA_F32
  dlua_dtype final[DLUA_MAX_OUT];
  dlua_tensor *results[DLUA_MAX_OUT]; // what the caller gets; out[] is what the kernel writes
  dlua_node *node;                    // the record of this call
  bool record;
} frame;

void dlua_args_init(dlua_args *a, const dlua_op *op) {
  a->op = op, a->sig = dlua_op_signature(op);
  a->nin = a->sig->ntensor - a->sig->has_list, a->nout = a->sig->nresult;
  a->inplace = a->dtype_set = false;
  a->dtype = DLUA_F32, a->device = dlua_cpu(), a->in = a->slots;
  memset(a->slots, 0, sizeof a->slots);
  memset(a->out, 0, sizeof a->out);
  for (int k = 0; k < a->sig->nnum; k++) a->num[k] = a->sig->num[k].preset;
}

// ---------------------------------------------------------------- check

static const dlua_param *param_of(const dlua_signature *sig, int k) {
  return &sig->tensor[k < sig->ntensor ? k : sig->ntensor - 1];
}

static const char *input_name(const dlua_args *a, int k) { return param_of(a->sig, k)->name; }

static const char *name_of(const dlua_args *a) {
  static _Thread_local char text[40];
  if (!a->inplace) return a->op->name;
  snprintf(text, sizeof text, "%s_", a->op->name);
  return text;
}

static dlua_status check_present(const dlua_args *a) {
  for (int k = 0; k < a->nin; k++) {
    if (!a->in[k] && !param_of(a->sig, k)->optional) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is missing", name_of(a), input_name(a, k));
    }
  }
  if (a->sig->has_list && a->nin < a->sig->ntensor) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is an empty list", name_of(a),
                     input_name(a, a->nin));
  }
  return DLUA_OK;
}

static dlua_status check_device(dlua_args *a) {
  int first = -1;
  for (int k = 0; k < a->nin; k++) {
    const dlua_tensor *x = a->in[k];
    if (!x || x->number) continue;
    if (first < 0)
      first = k, a->device = dlua_device_of(x);
    else if (dlua_device_of(x) != a->device) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is on %s but %s is on %s", name_of(a),
                       input_name(a, first), a->device->name, input_name(a, k),
                       dlua_device_of(x)->name);
    }
  }
  return DLUA_OK;
}

static dlua_status check_stale(const dlua_args *a) {
  if (!dlua_grad_mode()) return DLUA_OK;
  for (int k = 0; k < a->nin; k++) {
    const dlua_tensor *x = a->in[k];
    if (x && x->rewrites != x->storage->rewrites) {
      return dlua_fail(DLUA_BAD_STATE,
                       "%s: %s shares memory with a tensor that was changed in place and recorded "
                       "since; take the view again after the change (%s %s)",
                       name_of(a), input_name(a, k), input_name(a, k), dlua_shape_text(x));
    }
  }
  return DLUA_OK;
}

static dlua_status check_dim(const dlua_args *a, int ndim, bool plus_one, int64_t *dim) {
  int64_t most = ndim + plus_one, wish = *dim;
  if (*dim < 0) *dim += most;
  if (most == 0 && (wish == 0 || wish == -1))
    return *dim = 0, DLUA_OK; // a 0-d tensor has one implied
  if (*dim >= 0 && *dim < most) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: dimension %lld is outside 1..%lld (%s %s)", name_of(a),
                   (long long)(wish < 0 ? wish : wish + 1), (long long)most, input_name(a, 0),
                   dlua_shape_text(a->in[0]));
}

// Makes every dimension among the numbers non-negative and checks it against the first tensor.
static dlua_status check_dims(dlua_args *a) {
  for (int k = 0; k < a->sig->nnum; k++) {
    dlua_value *v = &a->num[k];
    const dlua_param *p = &a->sig->num[k];
    if (p->has_default && !v->set) continue;
    if (!v->set) {
      if (p->optional) continue;
      return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is missing", name_of(a), p->name);
    }
    if (a->nin == 0 || !a->in[0]) continue;
    if (p->kind == 'd') DLUA_TRY(check_dim(a, a->in[0]->ndim, p->plus_one, &v->i));
    if (p->kind != 'D') continue;
    for (int d = 0; d < v->n; d++) {
      DLUA_TRY(check_dim(a, a->in[0]->ndim, false, &v->v[d]));
      for (int e = 0; e < d; e++) {
        if (v->v[e] != v->v[d]) continue;
        return dlua_fail(DLUA_BAD_ARGUMENT, "%s: dimension %lld is given twice", name_of(a),
                         (long long)v->v[d] + 1);
      }
    }
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- convert

static dlua_status hold(frame *f, int k, dlua_tensor *converted) {
  if (converted != f->in[k])
    f->temps[f->ntemps++] = converted;
  else
    dlua_tensor_release(converted);
  f->in[k] = converted;
  return DLUA_OK;
}

// x, a number, in another dtype.
static dlua_tensor *cast_number(number_operand *n, const dlua_tensor *x, dlua_dtype dtype) {
  n->storage = (dlua_storage){.refs = 1, .data = &n->value, .bytes = sizeof n->value};
  n->storage.device = dlua_cpu();
  n->tensor = (dlua_tensor){.refs = 1, .number = true, .storage = &n->storage};
  n->tensor.dtype = (uint8_t)dtype;
  dlua_convert(&n->tensor, x);
  return &n->tensor;
}

static dlua_status cast_input(frame *f, int k, dlua_dtype dtype) {
  dlua_tensor *x = f->in[k], *y = NULL;
  if (x->dtype == dtype) return DLUA_OK;
  if (x->number && x->dtype == DLUA_I64 && !(f->a->op->flags & DLUA_WRAPS)) {
    dlua_value v = {.set = true, .is_int = true, .i = *dlua_i64(x)};
    DLUA_TRY(dlua_number_fits(f->a, &v, dtype));
  }
  if (x->number && f->nnumbers < 3 && !(f->a->op->flags & DLUA_VIEW)) {
    f->in[k] = cast_number(&f->numbers[f->nnumbers++], x, dtype);
    return DLUA_OK;
  }
  DLUA_TRY(dlua_cast(x, dtype, &y));
  y->number = x->number;
  return hold(f, k, y);
}

// bool 0, integers 1, floats 2: a lower kind never decides the dtype of a result.
static int kind_of(dlua_dtype dtype) { return dlua_is_float(dtype) ? 2 : dtype != DLUA_BOOL; }

typedef struct dtype_pick {
  bool any;
  dlua_dtype dtype;
} dtype_pick;

static void pick(dtype_pick *p, dlua_dtype dtype) {
  p->dtype = p->any ? dlua_promote(p->dtype, dtype) : dtype;
  p->any = true;
}

// PyTorch's rule: tensors with dimensions decide, then 0-d tensors, then numbers; a later one
// counts only when it is of a higher kind.
static dlua_dtype common_dtype(const frame *f) {
  dtype_pick level[3] = {{0}};
  for (int k = 0; k < f->a->nin; k++) {
    const dlua_tensor *x = f->in[k];
    if (!x || param_of(f->sig, k)->kind != 'T') continue;
    if (x->number)
      pick(&level[2], kind_of((dlua_dtype)x->dtype) == 2 ? DLUA_F32 : DLUA_I64);
    else
      pick(&level[x->ndim == 0], (dlua_dtype)x->dtype);
  }
  for (int k = 0; k < f->sig->nnum; k++) {
    if (f->sig->num[k].kind == 'n' && f->a->num[k].set)
      pick(&level[2], f->a->num[k].is_int ? DLUA_I64 : DLUA_F32);
  }
  dtype_pick result = level[0];
  for (int k = 1; k < 3; k++) {
    if (level[k].any && (!result.any || kind_of(level[k].dtype) > kind_of(result.dtype))) {
      result = level[k];
    }
  }
  return result.any ? result.dtype : DLUA_F32;
}

static dlua_status same_dtype(const frame *f, dlua_dtype *dtype) {
  const dlua_args *a = f->a;
  int first = -1;
  for (int k = 0; k < a->nin; k++) {
    if (!f->in[k] || param_of(f->sig, k)->kind != 'T' || f->in[k]->number) continue;
    if (first < 0) first = k;
    if (f->in[k]->dtype == f->in[first]->dtype) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is %s but %s is %s (%s %s, %s %s)", name_of(a),
                     input_name(a, first), dlua_dtype_name((dlua_dtype)f->in[first]->dtype),
                     input_name(a, k), dlua_dtype_name((dlua_dtype)f->in[k]->dtype),
                     input_name(a, first), dlua_shape_text(f->in[first]), input_name(a, k),
                     dlua_shape_text(f->in[k]));
  }
  *dtype = first < 0 ? DLUA_F32 : (dlua_dtype)f->in[first]->dtype;
  return DLUA_OK;
}

static bool word_in(const char *word, const char *list) {
  size_t n = strlen(word);
  for (const char *at = list; (at = strstr(at, word)); at += n) {
    if ((at == list || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ')) return true;
  }
  return false;
}

static dlua_status refuse_dtype(const dlua_args *a, dlua_dtype dtype) {
  if (a->op->dtype == DLUA_SAME_FLOAT && !dlua_is_float(dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s must be a float tensor, got %s %s", name_of(a),
                     input_name(a, 0), dlua_dtype_name(dtype), dlua_shape_text(a->in[0]));
  }
  if (a->op->refuse && word_in(dlua_dtype_name(dtype), a->op->refuse)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s tensors are not accepted (%s %s)", name_of(a),
                     dlua_dtype_name(dtype), input_name(a, 0), dlua_shape_text(a->in[0]));
  }
  return DLUA_OK;
}

// The dtype the T inputs are brought to, and whether they have to be at all.
static dlua_status rule_dtype(const frame *f, dlua_dtype *dtype) {
  const dlua_args *a = f->a;
  switch (a->op->dtype) {
  case DLUA_SAME_FLOAT:
  case DLUA_KEEP: DLUA_TRY(same_dtype(f, dtype)); break;
  case DLUA_PROMOTE:
  case DLUA_COMPARE: *dtype = common_dtype(f); break;
  case DLUA_PROMOTE_FLOAT:
    *dtype = common_dtype(f);
    if (!dlua_is_float(*dtype)) *dtype = DLUA_F32;
    break;
  case DLUA_ANY_DTYPE:
    *dtype = a->nin && f->in[0] ? (dlua_dtype)f->in[0]->dtype : a->dtype;
    return DLUA_OK;
  }
  return a->nin ? refuse_dtype(a, *dtype) : DLUA_OK;
}

static bool is_integer(dlua_dtype dtype) {
  return dtype == DLUA_I64 || dtype == DLUA_I32 || dtype == DLUA_U8;
}

// Index inputs become i64, masks must be bool.
static dlua_status convert_index(frame *f, int k) {
  const dlua_param *p = param_of(f->sig, k);
  dlua_dtype dtype = (dlua_dtype)f->in[k]->dtype;
  if (p->kind == 'B' ? dtype != DLUA_BOOL : !is_integer(dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s must be %s, got %s %s", name_of(f->a), p->name,
                     p->kind == 'B' ? "a bool tensor" : "an integer tensor (i64, i32, u8)",
                     dlua_dtype_name(dtype), dlua_shape_text(f->in[k]));
  }
  return p->kind == 'B' ? DLUA_OK : cast_input(f, k, DLUA_I64);
}

static dlua_status convert_dtypes(frame *f) {
  dlua_args *a = f->a;
  dlua_dtype dtype = DLUA_F32;
  DLUA_TRY(rule_dtype(f, &dtype));
  f->narrow = DLUA_F32;
  bool half = dtype == DLUA_BF16 || dtype == DLUA_F16;
  if (half && !(a->op->flags & DLUA_VIEW) && !a->device->backend->half(a->op)) {
    f->narrow = dtype, dtype = DLUA_F32;
  }
  for (int k = 0; k < a->nin; k++) {
    if (!f->in[k]) continue;
    if (param_of(f->sig, k)->kind != 'T')
      DLUA_TRY(convert_index(f, k));
    else if (a->op->dtype != DLUA_ANY_DTYPE)
      DLUA_TRY(cast_input(f, k, dtype));
    else if (f->narrow != DLUA_F32 && f->in[k]->dtype == f->narrow)
      DLUA_TRY(cast_input(f, k, dtype));
  }
  dlua_dtype result = a->op->dtype == DLUA_COMPARE ? DLUA_BOOL : dtype;
  for (int k = 0; k < DLUA_MAX_OUT; k++)
    a->spec[k].dtype = result, a->spec[k].layout = DLUA_STRIDED;
  if (!(a->op->flags & DLUA_CREATE)) a->dtype = dtype;
  return DLUA_OK;
}

// All blocked inputs of an elementwise call alike: memory order does not matter to it. Its results
// must be f32, for no other type has blocks, and cast chooses its type later.
static bool layouts_agree(const frame *f) {
  const dlua_tensor *first = NULL;
  if (f->a->spec[0].dtype != DLUA_F32 || f->a->op->dtype == DLUA_ANY_DTYPE) return false;
  for (int k = 0; k < f->a->nin; k++) {
    const dlua_tensor *x = f->in[k];
    if (!x || x->number) continue;
    if (!first) first = x;
    if (x->storage->layout != first->storage->layout || !dlua_same_shape(x, first)) return false;
  }
  return true;
}

static dlua_status convert_layouts(frame *f) {
  dlua_args *a = f->a;
  bool blocked = false;
  for (int k = 0; k < a->nin; k++) blocked |= f->in[k] && f->in[k]->storage->layout != DLUA_STRIDED;
  if (!blocked) return DLUA_OK;
  bool taken = (a->op->flags & DLUA_LAYOUTS) && !dlua_reference_mode();
  if ((a->op->flags & DLUA_ELEMENTWISE) && layouts_agree(f)) {
    for (int k = 0; k < DLUA_MAX_OUT; k++)
      a->spec[k].layout = (dlua_layout)f->in[0]->storage->layout;
    return DLUA_OK;
  }
  for (int k = 0; k < a->nin; k++) {
    bool leave = taken && !(a->op->strided && word_in(input_name(a, k), a->op->strided));
    if (f->in[k] && !leave) DLUA_TRY(dlua_make_strided(f->in[k]));
  }
  return DLUA_OK;
}

static dlua_status make_contiguous(frame *f) {
  const char *which = f->a->op->contiguous;
  if (!which) return DLUA_OK;
  for (int k = 0; k < f->a->nin; k++) {
    dlua_tensor *x = f->in[k], *y = NULL;
    if (!x || x->storage->layout != DLUA_STRIDED || dlua_is_contiguous(x)) continue;
    if (which[0] != '*' && !word_in(input_name(f->a, k), which)) continue;
    DLUA_TRY(dlua_contiguous(x, &y));
    y->number = x->number;
    DLUA_TRY(hold(f, k, y));
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- target

static dlua_status check_inplace(const dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  for (int d = 0; d < x->ndim; d++) {
    if (x->stride[d] == 0 && x->size[d] > 1) {
      return dlua_fail(DLUA_BAD_ARGUMENT,
                       "%s: several elements of x share one place in memory (an expanded tensor); "
                       "clone it first (x %s)",
                       name_of(a), dlua_shape_text(x));
    }
  }
  if (!dlua_grad_mode()) return DLUA_OK;
  if (x->requires_grad && !x->node) {
    return dlua_fail(
        DLUA_BAD_STATE,
        "%s: x is a leaf that requires gradient; change it in place inside dlua.no_grad "
        "(x %s)",
        name_of(a), dlua_shape_text(x));
  }
  if (x->requires_grad && x->view) {
    return dlua_fail(DLUA_BAD_STATE,
                     "%s: x is a view of a recorded tensor; change the tensor itself with x[key] = "
                     "value, or clone the view (x %s)",
                     name_of(a), dlua_shape_text(x));
  }
  for (int k = 1; k < a->nin && x->view; k++) {
    if (!a->in[k] || !a->in[k]->requires_grad) continue;
    return dlua_fail(
        DLUA_BAD_STATE,
        "%s: %s requires gradient but x is a view, whose tensor would not know; change "
        "the tensor itself with x[key] = value, or clone the view (x %s)",
        name_of(a), input_name(a, k), dlua_shape_text(x));
  }
  return DLUA_OK;
}

static bool same_view(const dlua_tensor *x, const dlua_tensor *y) {
  return dlua_same_shape(x, y) && x->offset == y->offset && x->dtype == y->dtype &&
         memcmp(x->stride, y->stride, x->ndim * sizeof *x->stride) == 0;
}

// Sources that overlap the target in another order are copied first.
static dlua_status copy_overlaps(frame *f) {
  dlua_args *a = f->a;
  for (int k = 1; k < a->nin; k++) {
    dlua_tensor *x = f->in[k], *y = NULL;
    if (!x || x->storage != f->in[0]->storage || same_view(x, f->in[0])) continue;
    DLUA_TRY(dlua_tensor_new(&y, (dlua_dtype)x->dtype, x->ndim, x->size, dlua_device_of(x)));
    f->temps[f->ntemps++] = y;
    DLUA_TRY(dlua_copy(y, x));
    f->in[k] = y;
  }
  return DLUA_OK;
}

static dlua_status fits_inplace(const frame *f) {
  const dlua_args *a = f->a;
  const dlua_tensor *x = f->given[0];
  if (a->spec[0].ndim != x->ndim ||
      memcmp(a->spec[0].size, x->size, x->ndim * sizeof *x->size) != 0) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: the result %s does not fit into x %s", name_of(a),
                     dlua_sizes_text(a->spec[0].ndim, a->spec[0].size), dlua_shape_text(x));
  }
  if (kind_of(f->final[0]) > kind_of((dlua_dtype)x->dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: the result is %s, x is %s (x %s)", name_of(a),
                     dlua_dtype_name(f->final[0]), dlua_dtype_name((dlua_dtype)x->dtype),
                     dlua_shape_text(x));
  }
  return DLUA_OK;
}

// Where the kernel writes: x itself when dtype and layout allow it.
static bool writes_directly(const frame *f) {
  return f->a->inplace && f->given[0] == f->in[0] && f->a->spec[0].dtype == f->given[0]->dtype &&
         f->a->spec[0].layout == f->given[0]->storage->layout;
}

static dlua_status make_result(frame *f, int k) {
  dlua_args *a = f->a;
  dlua_spec *s = &a->spec[k];
  bool target = a->inplace && k == 0;
  if (target)
    f->results[k] = dlua_tensor_retain(f->given[0]);
  else {
    DLUA_TRY(dlua_tensor_new(&f->results[k], f->final[k], s->ndim, s->size, a->device));
    f->results[k]->storage->layout = (uint8_t)s->layout;
  }
  if (target ? writes_directly(f) : f->final[k] == s->dtype) {
    a->out[k] = dlua_tensor_retain(f->results[k]);
    return DLUA_OK;
  }
  DLUA_TRY(dlua_tensor_new(&a->out[k], s->dtype, s->ndim, s->size, a->device));
  a->out[k]->storage->layout = (uint8_t)s->layout;
  return DLUA_OK;
}

// Brings what the kernel wrote to the results, and what it wrote to converted inputs back to the
// given ones.
static dlua_status finish_results(frame *f) {
  dlua_args *a = f->a;
  for (int k = 0; k < a->nout; k++) {
    dlua_tensor *result = f->results[k];
    bool target = a->inplace && k == 0;
    if (a->out[k] != result) {
      DLUA_TRY(dlua_copy(result, a->out[k]));
      if (!target) result->storage->version = 0;
    } else if (target)
      result->storage->version++;
    dlua_tensor_release(a->out[k]);
    a->out[k] = result, f->results[k] = NULL;
  }
  for (int k = 0; k < a->nin && a->op->writes; k++) {
    if (f->in[k] == f->given[k] || !word_in(input_name(a, k), a->op->writes)) continue;
    DLUA_TRY(dlua_copy(f->given[k], f->in[k]));
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- kernel

dlua_status dlua_run_cpu(const dlua_args *a) {
  const dlua_op *op = a->op;
  if (op->fast && !dlua_reference_mode()) {
    for (dlua_kernel *const *kernel = op->fast; *kernel; kernel++) {
      dlua_status status = (*kernel)(a);
      if (status != DLUA_DECLINED) return status;
    }
  }
  return op->cpu(a);
}

// DLUA_VERBOSE=1: one line per call.
static void report(const dlua_args *a) {
  fprintf(stderr, "%s%s on %s:", a->op->name, a->inplace ? "_" : "", a->device->name);
  for (int k = 0; k < a->nin; k++) {
    if (a->in[k])
      fprintf(stderr, " %s%s", dlua_dtype_name((dlua_dtype)a->in[k]->dtype),
              dlua_shape_text(a->in[k]));
  }
  fprintf(stderr, " -> %s\n", dlua_sizes_text(a->spec[0].ndim, a->spec[0].size));
}

// On another device: DLUA_SYNC=1 waits after each op, so that a late fault is blamed on the right
// one.
static dlua_status run_device(const dlua_args *a) {
  static int wait = -1;
  if (wait < 0) wait = dlua_env_on("DLUA_SYNC");
  dlua_kernel *kernel = a->device->backend->kernel(a->op);
  if (!kernel) {
    return dlua_fail(DLUA_BAD_DEVICE, "%s: there is no kernel for it on %s", a->op->name,
                     a->device->name);
  }
  DLUA_TRY(kernel(a));
  return wait ? dlua_synchronize(a->device) : DLUA_OK;
}

static dlua_status run_kernel(const dlua_args *a) {
  static int verbose = -1;
  if (verbose < 0) verbose = dlua_env_on("DLUA_VERBOSE");
  if (verbose) report(a);
  return a->device == dlua_cpu() ? dlua_run_cpu(a) : run_device(a);
}

static int reference = -1;

bool dlua_reference_mode(void) {
  if (reference < 0) reference = dlua_env_on("DLUA_REF");
  return reference;
}

void dlua_set_reference_mode(bool on) { reference = on; }

// ---------------------------------------------------------------- the stages in order

static dlua_status prepare(frame *f) {
  dlua_args *a = f->a;
  DLUA_TRY(check_present(a));
  DLUA_TRY(check_device(a));
  DLUA_TRY(check_stale(a));
  if (a->sig->nnum) DLUA_TRY(check_dims(a));
  if (a->inplace) DLUA_TRY(check_inplace(a));
  f->record = dlua_should_record(a);
  DLUA_TRY(convert_dtypes(f));
  DLUA_TRY(convert_layouts(f));
  return make_contiguous(f);
}

// Only float results carry a gradient, and their op must have one.
static dlua_status check_record(frame *f) {
  bool any = f->a->op->flags & DLUA_VIEW;
  for (int k = 0; k < f->a->nout; k++) any |= dlua_is_float(f->a->spec[k].dtype);
  f->record &= any;
  if (!f->record || f->a->op->back) return DLUA_OK;
  return dlua_fail(DLUA_BAD_STATE, "%s: has no gradient; detach the input or use dlua.no_grad",
                   f->a->op->name);
}

// Numbers that are stored in the result must be values of its dtype.
static dlua_status check_values(const dlua_args *a) {
  if (a->op->dtype == DLUA_PROMOTE) return DLUA_OK;
  for (int k = 0; k < a->sig->nnum; k++) {
    if (a->sig->num[k].kind == 'n') DLUA_TRY(dlua_number_fits(a, &a->num[k], a->spec[0].dtype));
  }
  return DLUA_OK;
}

static dlua_status compute(frame *f) {
  dlua_args *a = f->a;
  DLUA_TRY(a->op->shape(a));
  if (a->sig->nnum) DLUA_TRY(check_values(a));
  DLUA_TRY(check_record(f));
  if (a->op->flags & DLUA_VIEW) {
    return f->record ? dlua_record_open(&f->node, a, f->given, a->out) : DLUA_OK;
  }
  for (int k = 0; k < a->nout; k++) {
    bool narrowed = f->narrow != DLUA_F32 && a->spec[k].dtype == DLUA_F32;
    f->final[k] = narrowed ? f->narrow : a->spec[k].dtype;
  }
  if (a->inplace) {
    DLUA_TRY(fits_inplace(f));
    DLUA_TRY(copy_overlaps(f));
  }
  for (int k = 0; k < a->nout; k++) DLUA_TRY(make_result(f, k));
  // Everything the record needs is there before the kernel writes: a call that fails has changed
  // nothing.
  if (f->record) DLUA_TRY(dlua_record_open(&f->node, a, f->given, f->results));
  DLUA_TRY(run_kernel(a));
  return finish_results(f);
}

// Room for the converted inputs and the temporaries of calls with many inputs.
static dlua_status open_frame(frame *f, dlua_args *a) {
  f->a = a, f->sig = a->sig, f->given = a->in, f->ntemps = f->nnumbers = 0;
  f->in = f->converted, f->temps = f->few, f->node = NULL;
  memset(f->results, 0, sizeof f->results);
  size_t bytes = (size_t)a->nin * sizeof(dlua_tensor *);
  if (a->nin > DLUA_MAX_IN) {
    f->in = dlua_new(3 * bytes);
    if (!f->in) return DLUA_NO_MEMORY;
    f->temps = f->in + a->nin; // an input may be converted twice
  }
  memcpy(f->in, a->in, bytes);
  return DLUA_OK;
}

static void close_frame(frame *f) {
  for (int k = 0; k < DLUA_MAX_OUT; k++) dlua_tensor_release(f->results[k]);
  for (int k = 0; k < f->ntemps; k++) dlua_tensor_release(f->temps[k]);
  f->a->in = f->given;
  if (f->in != f->converted) dlua_delete(f->in, 3 * (size_t)f->a->nin * sizeof(dlua_tensor *));
}

static void drop_results(dlua_args *a) {
  for (int k = 0; k < DLUA_MAX_OUT; k++) {
    dlua_tensor_release(a->out[k]);
    a->out[k] = NULL;
  }
}

dlua_status dlua_run(dlua_args *a) {
  frame f;
  DLUA_TRY(open_frame(&f, a));
  a->in = f.in;
  dlua_status status = prepare(&f);
  if (status == DLUA_OK) status = compute(&f);
  close_frame(&f);
  if (status != DLUA_OK)
    drop_results(a);
  else if (f.node)
    dlua_record_close(f.node, a);
  dlua_node_release(f.node);
  return status;
}
