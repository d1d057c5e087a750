// tensor.c - storages and the views over them. A tensor is small (sizes, strides, offset) and owns
// one reference to its storage; everything that computes goes through ops, save the copies at the
// end of this file.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "cpu/layout.h"
#include "grad.h"
#include "ops/convert.h"

// ---------------------------------------------------------------- storage

static dlua_status storage_new(dlua_storage **result, size_t bytes, dlua_device *device) {
  dlua_storage *storage = dlua_new(sizeof *storage);
  if (!storage) return DLUA_NO_MEMORY;
  dlua_status status = dlua_alloc(device, bytes, &storage->data);
  if (status != DLUA_OK) return dlua_delete(storage, sizeof *storage), status;
  storage->refs = 1, storage->bytes = bytes, storage->device = device;
  *result = storage;
  return DLUA_OK;
}

static void drop_cache(dlua_storage *storage) {
  if (storage->cache) storage->drop_cache(storage->cache);
  storage->cache = NULL;
}

static void storage_release(dlua_storage *storage) {
  if (__atomic_sub_fetch(&storage->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  drop_cache(storage);
  dlua_free(storage->device, storage->data, storage->bytes);
  dlua_delete(storage, sizeof *storage);
}

// ---------------------------------------------------------------- tensors

static void set_shape(dlua_tensor *x, int ndim, const int64_t *size) {
  x->ndim = (uint8_t)ndim;
  int64_t stride = 1;
  for (int d = ndim - 1; d >= 0; d--) {
    x->size[d] = size[d], x->stride[d] = stride;
    stride *= size[d] > 1 ? size[d] : 1;
  }
}

static dlua_status check_shape(dlua_dtype dtype, int ndim, const int64_t *size, size_t *bytes) {
  if (ndim < 0 || ndim > DLUA_MAX_DIMS) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "a tensor has at most %d dimensions, got %d", DLUA_MAX_DIMS,
                     ndim);
  }
  for (int d = 0; d < ndim; d++) {
    if (size[d] < 0) {
      return dlua_fail(DLUA_BAD_ARGUMENT, "size %lld of dimension %d is negative %s",
                       (long long)size[d], d + 1, dlua_sizes_text(ndim, size));
    }
  }
  if (!dlua_shape_bytes(dtype, ndim, size, bytes)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "a tensor of shape %s is too large to address",
                     dlua_sizes_text(ndim, size));
  }
  return DLUA_OK;
}

dlua_status dlua_tensor_new(dlua_tensor **tensor, dlua_dtype dtype, int ndim, const int64_t *size,
                            dlua_device *device) {
  size_t bytes = 0;
  DLUA_TRY(check_shape(dtype, ndim, size, &bytes));
  dlua_tensor *x = dlua_new(sizeof *x);
  if (!x) return DLUA_NO_MEMORY;
  dlua_status status = storage_new(&x->storage, bytes, device);
  if (status != DLUA_OK) return dlua_delete(x, sizeof *x), status;
  x->refs = 1, x->dtype = (uint8_t)dtype;
  set_shape(x, ndim, size);
  *tensor = x;
  return DLUA_OK;
}

dlua_status dlua_tensor_number(dlua_tensor **tensor, bool is_int, int64_t i, double f) {
  dlua_tensor *x = NULL;
  DLUA_TRY(dlua_tensor_new(&x, is_int ? DLUA_I64 : DLUA_F64, 0, NULL, dlua_cpu()));
  if (is_int)
    *dlua_i64(x) = i;
  else
    *dlua_f64(x) = f;
  x->number = true;
  *tensor = x;
  return DLUA_OK;
}

// A copy of the struct over the same storage, without history.
static dlua_tensor *alias(const dlua_tensor *x) {
  dlua_tensor *y = dlua_new(sizeof *y);
  if (!y) return NULL;
  *y = *x;
  __atomic_add_fetch(&x->storage->refs, 1, __ATOMIC_RELAXED);
  y->refs = 1, y->requires_grad = false, y->grad = NULL, y->node = NULL, y->output = 0;
  y->rewrites = x->storage->rewrites;
  return y;
}

dlua_status dlua_tensor_view(dlua_tensor **view, const dlua_tensor *x, int ndim,
                             const int64_t *size, const int64_t *stride, int64_t offset) {
  size_t bytes = 0;
  DLUA_TRY(check_shape((dlua_dtype)x->dtype, ndim, size, &bytes));
  dlua_tensor *y = alias(x);
  if (!y) return DLUA_NO_MEMORY;
  y->view = true, y->number = false, y->ndim = (uint8_t)ndim, y->offset = offset;
  for (int d = 0; d < ndim; d++) y->size[d] = size[d], y->stride[d] = stride[d];
  *view = y;
  return DLUA_OK;
}

dlua_status dlua_tensor_detach(dlua_tensor **detached, const dlua_tensor *x) {
  dlua_tensor *y = alias(x);
  if (!y) return DLUA_NO_MEMORY;
  *detached = y;
  return DLUA_OK;
}

dlua_tensor *dlua_tensor_retain(dlua_tensor *x) {
  if (x) __atomic_add_fetch(&x->refs, 1, __ATOMIC_RELAXED);
  return x;
}

void dlua_tensor_release(dlua_tensor *x) {
  if (!x || __atomic_sub_fetch(&x->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  dlua_node *node = x->node;
  dlua_tensor_release(x->grad);
  storage_release(x->storage);
  dlua_delete(x, sizeof *x);
  dlua_node_release(node);
}

// ---------------------------------------------------------------- copies

static bool on_cpu(const dlua_tensor *x) { return dlua_device_of(x) == dlua_cpu(); }

// Bytes from a contiguous tensor to another of the same dtype, whatever their devices.
static dlua_status move_bytes(dlua_tensor *dst, const dlua_tensor *src, size_t bytes) {
  dlua_device *to = dlua_device_of(dst), *from = dlua_device_of(src);
  if (bytes == 0) return DLUA_OK;
  if (to == from) return to->backend->copy(to->index, dlua_data(dst), dlua_data(src), bytes);
  if (on_cpu(src)) return to->backend->from_host(to->index, dlua_data(dst), dlua_data(src), bytes);
  if (on_cpu(dst)) {
    __atomic_add_fetch(&from->waits, 1, __ATOMIC_RELAXED);
    return from->backend->to_host(from->index, dlua_data(dst), dlua_data(src), bytes);
  }
  return DLUA_DECLINED; // device to device goes through the host
}

static size_t bytes_of(const dlua_tensor *x) {
  return (size_t)dlua_numel(x) * dlua_dtype_size((dlua_dtype)x->dtype);
}

// A new contiguous host tensor with the content of x, same dtype.
static dlua_status to_host(const dlua_tensor *x, dlua_tensor **result) {
  dlua_tensor *packed = NULL, *y = NULL;
  DLUA_TRY(dlua_contiguous(x, &packed));
  dlua_status status = dlua_tensor_new(&y, (dlua_dtype)x->dtype, x->ndim, x->size, dlua_cpu());
  if (status == DLUA_OK) status = move_bytes(y, packed, bytes_of(x));
  dlua_tensor_release(packed);
  if (status != DLUA_OK) return dlua_tensor_release(y), status;
  *result = y;
  return DLUA_OK;
}

// dst and src differ in dtype or strides and live on one device.
static dlua_status convert(dlua_tensor *dst, const dlua_tensor *src) {
  if (on_cpu(dst)) return dlua_convert(dst, src), DLUA_OK;
  dlua_args a;
  dlua_args_init(&a, &dlua_op_cast);
  dlua_kernel *kernel = dlua_device_of(dst)->backend->kernel(&dlua_op_cast);
  if (!kernel)
    return dlua_fail(DLUA_BAD_DEVICE, "cast: no kernel on %s", dlua_device_of(dst)->name);
  a.in[0] = (dlua_tensor *)src, a.out[0] = dst, a.nout = 1, a.device = dlua_device_of(dst);
  return kernel(&a);
}

static dlua_status copy_across(dlua_tensor *dst, const dlua_tensor *src) {
  if (dst->dtype == src->dtype && dlua_is_contiguous(dst) && dlua_is_contiguous(src) &&
      (on_cpu(dst) || on_cpu(src))) {
    return move_bytes(dst, src, bytes_of(src));
  }
  dlua_tensor *host = NULL, *there = NULL, *packed = NULL;
  dlua_status status = to_host(src, &host);
  if (status == DLUA_OK && on_cpu(dst))
    dlua_convert(dst, host);
  else if (status == DLUA_OK) {
    status = dlua_cast(host, (dlua_dtype)dst->dtype, &packed);
    if (status == DLUA_OK) {
      status = dlua_tensor_new(&there, (dlua_dtype)dst->dtype, dst->ndim, dst->size,
                               dlua_device_of(dst));
    }
    if (status == DLUA_OK) status = move_bytes(there, packed, bytes_of(there));
    if (status == DLUA_OK) status = convert(dst, there);
  }
  dlua_tensor_release(host), dlua_tensor_release(there), dlua_tensor_release(packed);
  return status;
}

dlua_status dlua_copy(dlua_tensor *dst, const dlua_tensor *src) {
  if (!dlua_same_shape(dst, src)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "copy: shapes %s and %s differ", dlua_shape_text(dst),
                     dlua_shape_text(src));
  }
  bool together = dlua_device_of(dst) == dlua_device_of(src);
  bool blocks = dlua_layout_block((dlua_layout)dst->storage->layout) ||
                dlua_layout_block((dlua_layout)src->storage->layout);
  bool by_strides = together && !blocks; // elements are found in all other layouts
  if (!by_strides) DLUA_TRY(dlua_make_strided(dst));
  dst->storage->version++;
  if (dlua_numel(dst) == 0) return DLUA_OK;
  dlua_tensor *flat = NULL;
  if (src->storage->layout != DLUA_STRIDED && !by_strides) {
    DLUA_TRY(dlua_contiguous(src, &flat));
    src = flat;
  }
  dlua_status status = together ? convert(dst, src) : copy_across(dst, src);
  dlua_tensor_release(flat);
  return status;
}

// A new tensor like x in the dtype, on the device and in the layout (contiguous where that is
// strided), filled from x.
static dlua_status copied(const dlua_tensor *x, dlua_dtype dtype, dlua_device *device,
                          dlua_layout layout, dlua_tensor **result) {
  dlua_tensor *y = NULL;
  DLUA_TRY(dlua_tensor_new(&y, dtype, x->ndim, x->size, device));
  y->storage->layout = (uint8_t)layout;
  bool moves = x->storage->layout == layout || device != dlua_device_of(x);
  dlua_status status = moves ? dlua_copy(y, x) : dlua_reorder(y, x);
  if (status != DLUA_OK) return dlua_tensor_release(y), status;
  y->storage->version = 0;
  *result = y;
  return DLUA_OK;
}

dlua_status dlua_contiguous(const dlua_tensor *x, dlua_tensor **result) {
  if (dlua_is_contiguous(x)) return *result = dlua_tensor_retain((dlua_tensor *)x), DLUA_OK;
  return copied(x, (dlua_dtype)x->dtype, dlua_device_of(x), DLUA_STRIDED, result);
}

dlua_status dlua_cast(const dlua_tensor *x, dlua_dtype dtype, dlua_tensor **result) {
  if (x->dtype == dtype) return *result = dlua_tensor_retain((dlua_tensor *)x), DLUA_OK;
  dlua_layout layout = (dlua_layout)x->storage->layout;
  if (dlua_layout_block(layout) == 0) return copied(x, dtype, dlua_device_of(x), layout, result);
  dlua_tensor *flat = NULL;
  DLUA_TRY(dlua_contiguous(x, &flat));
  dlua_status status = copied(flat, dtype, dlua_device_of(x), DLUA_STRIDED, result);
  dlua_tensor_release(flat);
  return status;
}

dlua_status dlua_to_device(const dlua_tensor *x, dlua_device *device, dlua_tensor **result) {
  if (dlua_device_of(x) == device) return *result = dlua_tensor_retain((dlua_tensor *)x), DLUA_OK;
  return copied(x, (dlua_dtype)x->dtype, device, DLUA_STRIDED, result);
}

// By the device's own kernel, to which the number travels with the launch; declines without one.
static dlua_status fill_there(dlua_tensor *x, bool exact, double value) {
  const dlua_backend *backend = dlua_device_of(x)->backend;
  dlua_kernel *kernel = on_cpu(x) ? NULL : backend->kernel(&dlua_op_fill);
  bool narrow = dlua_is_half((dlua_dtype)x->dtype);
  if (!kernel || (narrow && !backend->half(&dlua_op_fill))) return DLUA_DECLINED;
  dlua_args a;
  dlua_args_init(&a, &dlua_op_fill);
  a.in[0] = a.out[0] = x, a.device = dlua_device_of(x);
  a.num[0].set = true, a.num[0].is_int = exact;
  a.num[0].i = exact ? (int64_t)value : 0, a.num[0].f = value;
  x->storage->version++;
  return kernel(&a);
}

dlua_status dlua_tensor_fill(dlua_tensor *x, double value) {
  dlua_tensor *number = NULL, *spread = NULL;
  static const int64_t zeros[DLUA_MAX_DIMS];
  bool exact = value == trunc(value) && fabs(value) < 9e15;
  dlua_status there = fill_there(x, exact, value);
  if (there != DLUA_DECLINED) return there;
  DLUA_TRY(dlua_tensor_number(&number, exact, exact ? (int64_t)value : 0, value));
  dlua_status status = dlua_tensor_view(&spread, number, x->ndim, x->size, zeros, 0);
  if (status == DLUA_OK) status = dlua_copy(x, spread);
  dlua_tensor_release(number), dlua_tensor_release(spread);
  return status;
}

dlua_status dlua_make_strided(dlua_tensor *x) {
  dlua_storage *storage = x->storage;
  if (storage->layout == DLUA_STRIDED) return DLUA_OK;
  dlua_storage *fresh = NULL;
  DLUA_TRY(storage_new(&fresh, storage->bytes, storage->device));
  dlua_tensor strided = *x;
  strided.storage = fresh;
  dlua_status status = dlua_reorder(&strided, x);
  if (status == DLUA_OK) { // the block is exchanged under all tensors that share the storage
    void *blocked = storage->data;
    storage->data = fresh->data, storage->layout = DLUA_STRIDED;
    fresh->data = blocked;
    drop_cache(storage);
  }
  storage_release(fresh);
  return status;
}

dlua_status dlua_item(const dlua_tensor *x, bool *is_int, int64_t *i, double *f) {
  if (dlua_numel(x) != 1) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "item: x has %lld elements, needs exactly 1 (x %s)",
                     (long long)dlua_numel(x), dlua_shape_text(x));
  }
  bool exact = !dlua_is_float((dlua_dtype)x->dtype);
  dlua_tensor *host = NULL, *wide = NULL;
  DLUA_TRY(dlua_to_device(x, dlua_cpu(), &host));
  dlua_status status = dlua_cast(host, exact ? DLUA_I64 : DLUA_F64, &wide);
  if (status == DLUA_OK) {
    *is_int = exact;
    *i = exact ? *dlua_i64(wide) : 0;
    *f = exact ? (double)*i : *dlua_f64(wide);
  }
  dlua_tensor_release(host), dlua_tensor_release(wide);
  return status;
}

dlua_status dlua_send(const dlua_tensor *x, dlua_ticket *ticket) {
  dlua_device *device = dlua_device_of(x);
  if (dlua_numel(x) != 1 || on_cpu(x)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "send: x must be one element on a device (x %s on %s)",
                     dlua_shape_text(x), device->name);
  }
  *ticket = (dlua_ticket){.device = device, .dtype = (dlua_dtype)x->dtype};
  return device->backend->send(device->index, dlua_data(x), bytes_of(x), &ticket->number);
}

dlua_status dlua_receive(const dlua_ticket *ticket, bool *arrived, double *value) {
  const dlua_device *device = ticket->device;
  dlua_tensor *x = NULL;
  bool is_int;
  int64_t i;
  DLUA_TRY(dlua_tensor_new(&x, ticket->dtype, 0, NULL, dlua_cpu()));
  dlua_status status =
      device->backend->receive(device->index, ticket->number, dlua_data(x), bytes_of(x), arrived);
  if (status == DLUA_OK && *arrived) status = dlua_item(x, &is_int, &i, value);
  dlua_tensor_release(x);
  return status;
}
