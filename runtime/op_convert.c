// op_convert.c - what dlua_run does to the inputs before the kernel sees them: dtypes by the op's
// rule, numbers among them without an allocation, blocked layouts and overlaps.
#include <string.h>

#include "backend.h"
#include "cpu/layout.h"
#include "cpu/onednn.h"
#include "ops/convert.h"
#include "run.h"

bool dlua_word_in(const char *word, const char *list) {
  size_t n = strlen(word);
  for (const char *at = list; (at = strstr(at, word)); at += n) {
    if ((at == list || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ')) return true;
  }
  return false;
}

// ---------------------------------------------------------------- one input

static dlua_status hold(dlua_frame *f, int k, dlua_tensor *converted) {
  if (converted != f->in[k])
    f->temps[f->ntemps++] = converted;
  else
    dlua_tensor_release(converted);
  f->in[k] = converted;
  return DLUA_OK;
}

// x, a number, in another dtype.
static dlua_tensor *cast_number(dlua_number *n, const dlua_tensor *x, dlua_dtype dtype) {
  n->storage = (dlua_storage){.refs = 1, .data = &n->value, .bytes = sizeof n->value};
  n->storage.device = dlua_cpu();
  n->tensor = (dlua_tensor){.refs = 1, .number = true, .storage = &n->storage};
  n->tensor.dtype = (uint8_t)dtype;
  dlua_convert(&n->tensor, x);
  return &n->tensor;
}

static dlua_status cast_input(dlua_frame *f, int k, dlua_dtype dtype) {
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

// ---------------------------------------------------------------- dtypes

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
static dlua_dtype common_dtype(const dlua_frame *f) {
  dtype_pick level[3] = {{0}};
  for (int k = 0; k < f->a->nin; k++) {
    const dlua_tensor *x = f->in[k];
    if (!x || dlua_input_param(f->a, k)->kind != 'T') continue;
    if (x->number)
      pick(&level[2], dlua_dtype_kind((dlua_dtype)x->dtype) == 2 ? DLUA_F32 : DLUA_I64);
    else
      pick(&level[x->ndim == 0], (dlua_dtype)x->dtype);
  }
  for (int k = 0; k < f->sig->nnum; k++) {
    if (f->sig->num[k].kind == 'n' && f->a->num[k].set)
      pick(&level[2], f->a->num[k].is_int ? DLUA_I64 : DLUA_F32);
  }
  dtype_pick result = level[0];
  for (int k = 1; k < 3; k++) {
    if (level[k].any &&
        (!result.any || dlua_dtype_kind(level[k].dtype) > dlua_dtype_kind(result.dtype))) {
      result = level[k];
    }
  }
  return result.any ? result.dtype : DLUA_F32;
}

static dlua_status same_dtype(const dlua_frame *f, dlua_dtype *dtype) {
  const dlua_args *a = f->a;
  int first = -1;
  for (int k = 0; k < a->nin; k++) {
    if (!f->in[k] || dlua_input_param(f->a, k)->kind != 'T' || f->in[k]->number) continue;
    if (first < 0) first = k;
    if (f->in[k]->dtype == f->in[first]->dtype) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s is %s but %s is %s (%s %s, %s %s)",
                     dlua_call_name(a), dlua_input_name(a, first),
                     dlua_dtype_name((dlua_dtype)f->in[first]->dtype), dlua_input_name(a, k),
                     dlua_dtype_name((dlua_dtype)f->in[k]->dtype), dlua_input_name(a, first),
                     dlua_shape_text(f->in[first]), dlua_input_name(a, k),
                     dlua_shape_text(f->in[k]));
  }
  *dtype = first < 0 ? DLUA_F32 : (dlua_dtype)f->in[first]->dtype;
  return DLUA_OK;
}

static dlua_status refuse_dtype(const dlua_args *a, dlua_dtype dtype) {
  if (a->op->dtype == DLUA_SAME_FLOAT && !dlua_is_float(dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s must be a float tensor, got %s %s",
                     dlua_call_name(a), dlua_input_name(a, 0), dlua_dtype_name(dtype),
                     dlua_shape_text(a->in[0]));
  }
  if (a->op->refuse && dlua_word_in(dlua_dtype_name(dtype), a->op->refuse)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s tensors are not accepted (%s %s)",
                     dlua_call_name(a), dlua_dtype_name(dtype), dlua_input_name(a, 0),
                     dlua_shape_text(a->in[0]));
  }
  return DLUA_OK;
}

// The dtype the T inputs are brought to, and whether they have to be at all.
static dlua_status rule_dtype(const dlua_frame *f, dlua_dtype *dtype) {
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
static dlua_status convert_index(dlua_frame *f, int k) {
  const dlua_param *p = dlua_input_param(f->a, k);
  dlua_dtype dtype = (dlua_dtype)f->in[k]->dtype;
  if (p->kind == 'B' ? dtype != DLUA_BOOL : !is_integer(dtype)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: %s must be %s, got %s %s", dlua_call_name(f->a),
                     p->name, p->kind == 'B' ? "a bool tensor" : "an integer tensor (i64, i32, u8)",
                     dlua_dtype_name(dtype), dlua_shape_text(f->in[k]));
  }
  return p->kind == 'B' ? DLUA_OK : cast_input(f, k, DLUA_I64);
}

// Whether the kernels of the call's device compute in this 16-bit type themselves.
static bool takes_half(const dlua_args *a, dlua_dtype dtype) {
  if ((a->op->flags & DLUA_VIEW) || a->device->backend->half(a->op)) return true;
  return dtype == DLUA_BF16 && (a->op->flags & DLUA_BF16_UNITS) && a->device == dlua_cpu() &&
         !dlua_reference_mode() && dlua_onednn_bf16();
}

// Brings an input of an op that computes 16 bits in f32 itself to what its kernel takes.
static dlua_status lend_input(dlua_frame *f, int k) {
  return f->in[k]->number ? cast_input(f, k, DLUA_F32) : DLUA_OK;
}

// The input of a call whose layout the kernels go by.
static const dlua_tensor *leading_input(const dlua_args *a) {
  int k = 0;
  while (a->op->follow && strcmp(dlua_input_name(a, k), a->op->follow) != 0) k++;
  return a->in[k];
}

// Whether the call runs on kernels of the CPU for rows of channels.
static bool takes_rows(const dlua_args *a, dlua_dtype dtype) {
  if (!(a->op->flags & DLUA_BF16_NHWC) || dtype != DLUA_BF16) return false;
  const dlua_tensor *x = leading_input(a);
  return a->device == dlua_cpu() && !dlua_reference_mode() && dlua_is_nhwc(x) && dlua_numel(x) > 0;
}

static dlua_status convert_dtypes(dlua_frame *f) {
  dlua_args *a = f->a;
  dlua_dtype dtype = DLUA_F32;
  DLUA_TRY(rule_dtype(f, &dtype));
  f->narrow = DLUA_F32;
  bool half = dlua_is_half(dtype);
  bool rows = takes_rows(a, dtype);
  bool borrows = half && (a->op->flags & DLUA_BORROWS) && a->device == dlua_cpu();
  if (half && !rows && !takes_half(a, dtype)) f->narrow = dtype, dtype = DLUA_F32;
  for (int k = 0; k < a->nin; k++) {
    if (!f->in[k]) continue;
    if (dlua_input_param(f->a, k)->kind != 'T')
      DLUA_TRY(convert_index(f, k));
    else if (borrows)
      DLUA_TRY(lend_input(f, k));
    else if (a->op->dtype != DLUA_ANY_DTYPE)
      DLUA_TRY(cast_input(f, k, dtype));
    else if (f->narrow != DLUA_F32 && f->in[k]->dtype == f->narrow)
      DLUA_TRY(cast_input(f, k, dtype));
    else if (rows && f->in[k]->dtype == DLUA_BF16 && f->in[k]->ndim == 1)
      DLUA_TRY(cast_input(f, k, DLUA_F32));
  }
  dlua_dtype result = a->op->dtype == DLUA_COMPARE ? DLUA_BOOL : dtype;
  for (int k = 0; k < DLUA_MAX_OUT; k++)
    a->spec[k].dtype = result, a->spec[k].layout = DLUA_STRIDED, a->spec[k].wide = false;
  if (!(a->op->flags & DLUA_CREATE)) a->dtype = dtype;
  return DLUA_OK;
}

// ---------------------------------------------------------------- layouts

// One of the inputs of an elementwise call that are blocked alike, so that memory order does not
// matter to it, or NULL. Its results must be f32, for no other type has blocks, and cast chooses its
// type later.
static const dlua_tensor *blocked_model(const dlua_frame *f) {
  const dlua_tensor *first = NULL;
  if (f->a->spec[0].dtype != DLUA_F32 || f->a->op->dtype == DLUA_ANY_DTYPE) return NULL;
  for (int k = 0; k < f->a->nin; k++) {
    const dlua_tensor *x = f->in[k];
    if (!x || x->number) continue;
    if (!first) first = x;
    if (x->storage->layout != first->storage->layout || !dlua_same_shape(x, first)) return NULL;
  }
  return first;
}

// Whether x broadcasts to y's shape.
static bool spreads_to(const dlua_tensor *x, const dlua_tensor *y) {
  if (x->ndim > y->ndim) return false;
  for (int d = 0; d < x->ndim; d++) {
    int64_t size = x->size[x->ndim - 1 - d];
    if (size != 1 && size != y->size[y->ndim - 1 - d]) return false;
  }
  return true;
}

// The NHWC input of an elementwise call that the result will have the shape of, or NULL. In place it
// is the target.
static const dlua_tensor *nhwc_model(const dlua_frame *f) {
  const dlua_tensor *model = NULL;
  for (int k = 0; k < (f->a->inplace ? 1 : f->a->nin); k++) {
    if (dlua_is_nhwc(f->in[k]) && (!model || spreads_to(model, f->in[k]))) model = f->in[k];
  }
  for (int k = 0; k < f->a->nin && model; k++) {
    if (f->in[k] && !spreads_to(f->in[k], model)) model = NULL;
  }
  return model;
}

static dlua_status bring(dlua_frame *f, int k, dlua_layout layout) {
  dlua_tensor *y = NULL;
  DLUA_TRY(dlua_in_layout(f->in[k], layout, &y));
  return hold(f, k, y);
}

// An elementwise result like the model. Inputs of its shape are read as it is; those that broadcast
// are read by their strides.
static dlua_status follow_model(dlua_frame *f, const dlua_tensor *model) {
  dlua_layout layout = (dlua_layout)model->storage->layout;
  for (int k = 0; k < f->a->nin; k++) {
    if (!f->in[k]) continue;
    if (dlua_same_shape(f->in[k], model))
      DLUA_TRY(bring(f, k, layout));
    else if (dlua_layout_block((dlua_layout)f->in[k]->storage->layout))
      DLUA_TRY(dlua_make_strided(f->in[k]));
  }
  for (int k = 0; k < DLUA_MAX_OUT; k++) f->a->spec[k].layout = layout;
  return DLUA_OK;
}

// Brings the first input to the layout of the one that it is to follow.
static dlua_status follow_input(dlua_frame *f) {
  int k = 1;
  while (strcmp(dlua_input_name(f->a, k), f->a->op->follow) != 0) k++;
  dlua_layout layout = (dlua_layout)f->in[k]->storage->layout;
  bool fits = dlua_same_shape(f->in[0], f->in[k]) &&
              (dlua_layout_block(layout) == 0 || f->in[0]->dtype == DLUA_F32);
  if (layout == DLUA_STRIDED) return dlua_make_strided(f->in[0]);
  return fits ? bring(f, 0, layout) : dlua_make_strided(f->in[k]);
}

static dlua_status convert_layouts(dlua_frame *f) {
  dlua_args *a = f->a;
  bool other = false;
  for (int k = 0; k < a->nin; k++) other |= f->in[k] && f->in[k]->storage->layout != DLUA_STRIDED;
  if (!other) return DLUA_OK;
  bool taken = (a->op->flags & DLUA_LAYOUTS) && !dlua_reference_mode();
  if (a->op->flags & DLUA_ELEMENTWISE) {
    const dlua_tensor *model = nhwc_model(f);
    if (!model) model = blocked_model(f);
    if (model) return follow_model(f, model);
  }
  for (int k = 0; k < a->nin; k++) {
    bool leave = taken && !(a->op->strided && dlua_word_in(dlua_input_name(a, k), a->op->strided));
    if (f->in[k] && !leave) DLUA_TRY(dlua_make_strided(f->in[k]));
  }
  return taken && a->op->follow ? follow_input(f) : DLUA_OK;
}

static dlua_status make_contiguous(dlua_frame *f) {
  const char *which = f->a->op->contiguous;
  if (!which) return DLUA_OK;
  for (int k = 0; k < f->a->nin; k++) {
    dlua_tensor *x = f->in[k], *y = NULL;
    if (!x || x->storage->layout != DLUA_STRIDED || dlua_is_contiguous(x)) continue;
    if (which[0] != '*' && !dlua_word_in(dlua_input_name(f->a, k), which)) continue;
    DLUA_TRY(dlua_contiguous(x, &y));
    y->number = x->number;
    DLUA_TRY(hold(f, k, y));
  }
  return DLUA_OK;
}

dlua_status dlua_convert_inputs(dlua_frame *f) {
  DLUA_TRY(convert_dtypes(f));
  DLUA_TRY(convert_layouts(f));
  return make_contiguous(f);
}

// ---------------------------------------------------------------- overlaps

static bool same_view(const dlua_tensor *x, const dlua_tensor *y) {
  return dlua_same_shape(x, y) && x->offset == y->offset && x->dtype == y->dtype &&
         memcmp(x->stride, y->stride, x->ndim * sizeof *x->stride) == 0;
}

// Sources that overlap the target in another order are copied first.
dlua_status dlua_copy_overlaps(dlua_frame *f) {
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
