// augment.c - batches of pictures that are transformed on the device where the data set lies. Here, as
// the oracle of that, the transforms are done one after the other, as the threads of a loader do them.
#include "augment.h"

#include <string.h>

#include "../data/transform.h"
#include "../half.h"
#include "../op.h"

// ---------------------------------------------------------------- shapes

static dlua_status check_numbers(const dlua_args *a) {
  const int64_t most = 1 << 24, *size = a->num[DLUA_AUGMENT_SIZE].v;
  int64_t epoch = a->num[DLUA_AUGMENT_EPOCH].i;
  if (size[0] < 1 || size[1] < 1 || size[0] > most || size[1] > most) {
    return dlua_shape_error(a, "size {%lld,%lld}: sides lie in 1..%lld", (long long)size[0],
                            (long long)size[1], (long long)most);
  }
  if (epoch >= 0 && epoch <= UINT32_MAX) return DLUA_OK;
  return dlua_shape_error(a, "epoch %lld is outside 0..%lld", (long long)epoch,
                          (long long)UINT32_MAX);
}

static dlua_status augment_shape(dlua_args *a) {
  static const dlua_dtype results[] = {DLUA_F32, DLUA_BF16, DLUA_F16, DLUA_U8};
  const dlua_tensor *images = a->in[0], *index = a->in[1], *steps = a->in[2];
  if (images->dtype != DLUA_U8 || images->ndim != 4) {
    return dlua_shape_error(a, "images must be u8 {n,c,h,w}, got %s",
                            dlua_dtype_name((dlua_dtype)images->dtype));
  }
  for (int d = 1; d < 4; d++)
    if (images->size[d] == 0) return dlua_shape_error(a, "the pictures are empty");
  if (index->ndim != 1) return dlua_shape_error(a, "index must have one dimension");
  if (steps && (steps->dtype != DLUA_F64 || steps->ndim != 2 || steps->size[0] < 1 ||
                steps->size[0] > DLUA_AUGMENT_STEPS || steps->size[1] != DLUA_AUGMENT_ROW)) {
    return dlua_shape_error(a, "steps must be 1..%d rows of %d numbers of f64, got %s",
                            DLUA_AUGMENT_STEPS, DLUA_AUGMENT_ROW,
                            dlua_dtype_name((dlua_dtype)steps->dtype));
  }
  DLUA_TRY(check_numbers(a));
  const int64_t *v = a->num[DLUA_AUGMENT_SIZE].v;
  dlua_spec_shape(a, 0, 4, (int64_t[]){index->size[0], images->size[1], v[0], v[1]});
  a->spec[0].dtype = results[a->num[DLUA_AUGMENT_DTYPE].i];
  return DLUA_OK;
}

// ---------------------------------------------------------------- the kernel

static dlua_status read_steps(const dlua_args *a, dlua_transform *list, int *n) {
  const dlua_tensor *steps = a->in[2];
  *n = steps ? (int)steps->size[0] : 0;
  for (int k = 0; k < *n; k++) {
    const double *row = (const double *)dlua_data(steps) + k * DLUA_AUGMENT_ROW;
    if (!(row[DLUA_AUGMENT_KIND] >= 0 && row[DLUA_AUGMENT_KIND] < DLUA_T_KINDS))
      return dlua_fail(DLUA_BAD_ARGUMENT, "augment: %g is no kind of transform, 0..%d",
                       row[DLUA_AUGMENT_KIND], DLUA_T_KINDS - 1);
    list[k].kind = (dlua_transform_kind)row[DLUA_AUGMENT_KIND];
    memcpy(list[k].p, row + DLUA_AUGMENT_P, sizeof list[k].p);
    DLUA_TRY(dlua_transform_check(&list[k]));
  }
  return DLUA_OK;
}

static void set_value(void *values, int64_t k, dlua_dtype dtype, float value) {
  switch (dtype) {
  case DLUA_BF16: ((uint16_t *)values)[k] = dlua_f32_to_bf16(value); break;
  case DLUA_F16: ((uint16_t *)values)[k] = dlua_f32_to_f16(value); break;
  case DLUA_U8: ((uint8_t *)values)[k] = (uint8_t)value; break;
  default: ((float *)values)[k] = value;
  }
}

// Writes the picture that was made for place k of the batch.
static dlua_status put_picture(const dlua_args *a, const dlua_picture *p, int64_t k) {
  const dlua_tensor *y = a->out[0];
  if (p->h != y->size[2] || p->w != y->size[3] || (p->dtype == DLUA_U8) != (y->dtype == DLUA_U8))
    return dlua_shape_error(
        a, "steps make pictures %s %s, not %s {%lld,%lld,%lld}", dlua_dtype_name(p->dtype),
        dlua_sizes_text(3, (int64_t[]){p->c, p->h, p->w}), dlua_dtype_name((dlua_dtype)y->dtype),
        (long long)y->size[1], (long long)y->size[2], (long long)y->size[3]);
  int64_t count = dlua_picture_count(p);
  for (int64_t i = 0; i < count; i++) {
    float value = p->dtype == DLUA_U8 ? ((const uint8_t *)p->data)[i] : ((const float *)p->data)[i];
    set_value(dlua_data(y), k * count + i, (dlua_dtype)y->dtype, value);
  }
  return DLUA_OK;
}

static dlua_status augment_cpu(const dlua_args *a) {
  const dlua_tensor *images = a->in[0], *index = a->in[1];
  dlua_transform list[DLUA_AUGMENT_STEPS];
  dlua_scratch scratch = {0};
  dlua_status status = DLUA_OK;
  int n;
  DLUA_TRY(read_steps(a, list, &n));
  dlua_picture in = {DLUA_U8, images->size[1], images->size[2], images->size[3], NULL}, out;
  dlua_draw draw = {.key = (uint64_t)a->num[DLUA_AUGMENT_KEY].i,
                    .epoch = (uint32_t)a->num[DLUA_AUGMENT_EPOCH].i};
  for (int64_t k = 0, at; k < index->size[0] && status == DLUA_OK; k++) {
    status = dlua_index(a, dlua_i64(index)[k], k, images->size[0], &at);
    if (status != DLUA_OK) break;
    in.data = (const uint8_t *)dlua_data(images) + at * dlua_picture_count(&in);
    draw.sample = (uint64_t)at;
    status = dlua_transform_run(n, list, &draw, &in, &scratch, &out);
    if (status == DLUA_OK) status = put_picture(a, &out, k);
  }
  dlua_scratch_free(&scratch);
  return status;
}

const dlua_op dlua_op_augment = {
    .name = "augment",
    .sig = "images:T, index:I, steps:T?, size:s2, epoch:i=0, key:i=0, contrast:b=false, "
           "between:b=false, "
           "dtype:e{f32|bf16|f16|u8}=f32 -> y",
    .doc =
        "The pictures images[index[k]] of a u8 set {n,c,h,w} as a batch, transformed as a "
        "DataLoader with this key does in this epoch. Carries no gradient. steps, f64, has a row "
        "for each of the transforms: its kind from 0, the height, width and dtype (1 u8, 0 f32) "
        "of pictures before it, and 40 numbers. size is that of the result's pictures, whose dtype "
        "is u8 where the last step leaves them so. between says that a step, one at most, samples "
        "between pixels (Resize, bilinear RandomAffine), contrast that a ColorJitter changes it, "
        "for which a device goes over each picture once more.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_HALF | DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = augment_shape,
    .cpu = augment_cpu,
    .contiguous = "*",
};
