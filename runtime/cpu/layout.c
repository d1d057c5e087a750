// layout.c - moving activations between strided and blocked storage: for every image and block of
// channels, a transposition of block rows of pixels into pixels of block channels. NHWC is moved by
// the copies, which go by strides.
//
// Refused: blocks with padding lanes (they would have to stay zero through every op), and direct
// conversion between blocks and any other layout but the strided one, which hardly ever meet.
#include "layout.h"

#include <string.h>

#include "../parallel.h"
#include "isa.h"

// What is asked for 16 bits computes in them itself: see takes_half in op_convert.c.
static dlua_layout half_layout(const dlua_spec *y) {
  bool differs = y->size[1] > 1 && (y->size[2] > 1 || y->size[3] > 1);
  return dlua_is_half(y->dtype) && differs ? DLUA_NHWC : DLUA_STRIDED;
}

dlua_layout dlua_layout_for(const dlua_args *a) {
  if (dlua_reference_mode()) return DLUA_STRIDED;
  if (a->device != dlua_cpu() || a->spec[0].dtype != DLUA_F32) return half_layout(&a->spec[0]);
  dlua_layout layout = dlua_isa() == DLUA_AVX512 ? DLUA_NCHW16C
                       : dlua_isa() == DLUA_AVX2 ? DLUA_NCHW8C
                                                 : DLUA_STRIDED;
  int64_t block = dlua_layout_block(layout), channels = a->spec[0].size[1];
  return block && channels > 0 && channels % block == 0 ? layout : DLUA_STRIDED;
}

typedef struct turn {
  float *strided, *blocked;
  int64_t block, blocks, h, w; // blocks: per image
  int64_t sn, sc, sh, sw;      // strides of the strided side
} turn;

// One row of w pixels into w groups of block channels.
static void pack_row(const turn *t, float *blocked, const float *x) {
  if (t->sc == 1) {
    for (int64_t p = 0; p < t->w; p++, x += t->sw, blocked += t->block)
      memcpy(blocked, x, (size_t)t->block * sizeof *x);
    return;
  }
  for (int64_t p = 0; p < t->w; p++, x += t->sw, blocked += t->block)
    for (int64_t c = 0; c < t->block; c++) blocked[c] = x[c * t->sc];
}

static void unpack_row(const turn *t, float *x, const float *blocked) {
  if (t->sc == 1) {
    for (int64_t p = 0; p < t->w; p++, x += t->sw, blocked += t->block)
      memcpy(x, blocked, (size_t)t->block * sizeof *x);
    return;
  }
  for (int64_t c = 0; c < t->block; c++)
    for (int64_t p = 0; p < t->w; p++) x[c * t->sc + p * t->sw] = blocked[p * t->block + c];
}

static float *place(const turn *t, int64_t k) {
  return t->strided + k / t->blocks * t->sn + k % t->blocks * t->block * t->sc;
}

static void pack(void *context, int64_t from, int64_t to) {
  const turn *t = context;
  for (int64_t k = from; k < to; k++)
    for (int64_t i = 0; i < t->h; i++)
      pack_row(t, t->blocked + (k * t->h + i) * t->w * t->block, place(t, k) + i * t->sh);
}

static void unpack(void *context, int64_t from, int64_t to) {
  const turn *t = context;
  for (int64_t k = from; k < to; k++)
    for (int64_t i = 0; i < t->h; i++)
      unpack_row(t, place(t, k) + i * t->sh, t->blocked + (k * t->h + i) * t->w * t->block);
}

static uint64_t reorders; // atomic

uint64_t dlua_reorders(void) { return __atomic_load_n(&reorders, __ATOMIC_RELAXED); }

dlua_status dlua_reorder(dlua_tensor *dst, const dlua_tensor *src) {
  if (dst->storage->layout != src->storage->layout)
    __atomic_add_fetch(&reorders, 1, __ATOMIC_RELAXED);
  if (dlua_device_of(dst) != dlua_cpu()) return dlua_copy(dst, src);
  if (dst->storage->layout == src->storage->layout) {
    if (dst->storage->layout == DLUA_STRIDED) return dlua_copy(dst, src);
    size_t width = dlua_dtype_size((dlua_dtype)src->dtype);
    memcpy(dlua_data(dst), dlua_data(src), (size_t)dlua_numel(src) * width);
    return DLUA_OK;
  }
  if (dst->storage->layout == DLUA_NHWC || src->storage->layout == DLUA_NHWC)
    return dlua_copy(dst, src);
  bool packs = dst->storage->layout != DLUA_STRIDED;
  const dlua_tensor *strided = packs ? src : dst, *blocked = packs ? dst : src;
  int64_t block = dlua_layout_block((dlua_layout)blocked->storage->layout), h = src->size[2],
          w = src->size[3], sh = strided->stride[2], sw = strided->stride[3];
  if (sh == w * sw || h == 1) w *= h, h = 1;
  turn t = {.strided = dlua_f32(strided),
            .blocked = dlua_f32(blocked),
            .block = block,
            .blocks = src->size[1] / block,
            .h = h,
            .w = w,
            .sn = strided->stride[0],
            .sc = strided->stride[1],
            .sh = sh,
            .sw = sw};
  dlua_parallel(src->size[0] * t.blocks, (double)(block * h * w), packs ? pack : unpack, &t);
  return DLUA_OK;
}

dlua_status dlua_in_layout(dlua_tensor *x, dlua_layout layout, dlua_tensor **result) {
  if (layout == DLUA_STRIDED) return dlua_contiguous(x, result);
  if (x->storage->layout == layout) return *result = dlua_tensor_retain(x), DLUA_OK;
  dlua_tensor *y = NULL;
  if (x->storage->layout != DLUA_STRIDED) {
    dlua_tensor *flat = NULL;
    DLUA_TRY(dlua_contiguous(x, &flat));
    dlua_status status = dlua_in_layout(flat, layout, result);
    return dlua_tensor_release(flat), status;
  }
  DLUA_TRY(dlua_tensor_new(&y, (dlua_dtype)x->dtype, x->ndim, x->size, dlua_device_of(x)));
  y->storage->layout = (uint8_t)layout;
  dlua_status status = dlua_reorder(y, x);
  if (status != DLUA_OK) return dlua_tensor_release(y), status;
  *result = y;
  return DLUA_OK;
}

// ---------------------------------------------------------------- kernels without layouts

static dlua_status run_copies(dlua_args *a, dlua_kernel *kernel, dlua_tensor *const *out) {
  for (int k = 0; k < a->nin; k++)
    if (a->in[k] && a->in[k]->storage->layout != DLUA_STRIDED)
      DLUA_TRY(dlua_contiguous(a->in[k], &a->slots[k]));
  for (int k = 0; k < a->nout; k++) {
    const dlua_tensor *y = out[k];
    if (y->storage->layout != DLUA_STRIDED)
      DLUA_TRY(dlua_tensor_new(&a->out[k], (dlua_dtype)y->dtype, y->ndim, y->size, dlua_cpu()));
  }
  DLUA_TRY(kernel(a));
  for (int k = 0; k < a->nout; k++)
    if (a->out[k] != out[k]) DLUA_TRY(dlua_reorder(out[k], a->out[k]));
  return DLUA_OK;
}

dlua_status dlua_run_strided(const dlua_args *a, dlua_kernel *kernel) {
  dlua_args copy = *a;
  copy.in = copy.slots;
  for (int k = 0; k < a->nin; k++) copy.in[k] = a->in[k];
  dlua_status status = run_copies(&copy, kernel, a->out);
  for (int k = 0; k < a->nin; k++)
    if (copy.in[k] != a->in[k]) dlua_tensor_release(copy.in[k]);
  for (int k = 0; k < a->nout; k++)
    if (copy.out[k] != a->out[k]) dlua_tensor_release(copy.out[k]);
  return status;
}
