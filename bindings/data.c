// data.c - data sets, transforms and loaders as Lua values, in the table core.io that lua/dlua/data
// and lua/dlua/transforms are written over. Handles are userdata with one pointer; a NULL one is
// closed.
#include <string.h>

#include "../runtime/backend.h"
#include "../runtime/data/io_data.h"
#include "../runtime/data/loader.h"
#include "value.h"

#define DATASET "dlua.dataset"
#define TRANSFORM "dlua.transform"
#define LOADER "dlua.loader"

// ---------------------------------------------------------------- handles

static void **push_handle(lua_State *L, const char *kind) {
  void **handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = NULL;
  luaL_setmetatable(L, kind);
  return handle;
}

static dlua_dataset *check_dataset(lua_State *L, int index) {
  dlua_dataset **d = luaL_testudata(L, index, DATASET);
  if (!d || !*d) dlua_bind_raise(L, "data: a data set is needed, got %s", dlua_bind_type(L, index));
  return *d;
}

static dlua_loader *check_loader(lua_State *L, int index) {
  dlua_loader **l = luaL_testudata(L, index, LOADER);
  if (!l || !*l) dlua_bind_raise(L, "data: a loader is needed, got %s", dlua_bind_type(L, index));
  return *l;
}

static int dataset_gc(lua_State *L) {
  dlua_dataset **d = lua_touserdata(L, 1);
  dlua_dataset_release(*d);
  *d = NULL;
  return 0;
}

static int dataset_len(lua_State *L) {
  lua_pushinteger(L, check_dataset(L, 1)->count);
  return 1;
}

static int loader_gc(lua_State *L) {
  dlua_loader **l = lua_touserdata(L, 1);
  dlua_loader_free(*l);
  *l = NULL;
  return 0;
}

static int loader_len(lua_State *L) {
  lua_pushinteger(L, dlua_loader_batches(check_loader(L, 1)));
  return 1;
}

// ---------------------------------------------------------------- reading

// cifar(folder, train), mnist(folder, train), folder(folder, channels[, bytes of pictures to keep])
static int read_cifar(lua_State *L) {
  const char *folder = dlua_bind_need_string(L, 1, "data: folder");
  dlua_dataset **d = (dlua_dataset **)push_handle(L, DATASET);
  dlua_bind_check(L, dlua_cifar_open(folder, lua_toboolean(L, 2), d));
  return 1;
}

static int read_mnist(lua_State *L) {
  const char *folder = dlua_bind_need_string(L, 1, "data: folder");
  dlua_dataset **d = (dlua_dataset **)push_handle(L, DATASET);
  dlua_bind_check(L, dlua_mnist_open(folder, lua_toboolean(L, 2), d));
  return 1;
}

static int read_folder(lua_State *L) {
  const char *folder = dlua_bind_need_string(L, 1, "data: folder");
  int64_t channels = dlua_bind_need_integer(L, 2, "data.ImageFolder: channels");
  if (channels < 1 || channels > 4) {
    return dlua_bind_raise(L, "data.ImageFolder: channels must be 1 to 4, not %lld",
                           (long long)channels);
  }
  dlua_dataset **d = (dlua_dataset **)push_handle(L, DATASET);
  dlua_bind_check(L, dlua_folder_open(folder, (int)channels, d));
  if (lua_isinteger(L, 3)) (*d)->source->keep_limit = (size_t)lua_tointeger(L, 3);
  return 1;
}

// tensors(x, y, …)
static int from_tensors(lua_State *L) {
  dlua_tensor *x[DLUA_MAX_FIELDS];
  int n = lua_gettop(L);
  if (n < 1 || n > DLUA_MAX_FIELDS) {
    return dlua_bind_raise(L, "TensorDataset: takes 1 to %d tensors, not %d", DLUA_MAX_FIELDS, n);
  }
  for (int k = 0; k < n; k++) x[k] = dlua_bind_tensor(L, k + 1, "TensorDataset: argument");
  dlua_dataset **d = (dlua_dataset **)push_handle(L, DATASET);
  dlua_bind_check(L, dlua_dataset_tensors(n, x, d));
  return 1;
}

// One idx file as a tensor.
static int read_idx(lua_State *L) {
  const char *path = dlua_bind_need_string(L, 1, "data: path");
  dlua_tensor **x = dlua_bind_box(L);
  dlua_bind_check(L, dlua_idx_read(path, x));
  return 1;
}

// ---------------------------------------------------------------- looking at a data set

// subset(set, index): index is an i64 tensor of positions from 1.
static int subset(lua_State *L) {
  dlua_dataset *d = check_dataset(L, 1);
  dlua_tensor *index = dlua_bind_tensor(L, 2, "data.subset: index");
  if (index->dtype != DLUA_I64 || index->ndim != 1 || !dlua_is_contiguous(index)) {
    return dlua_bind_raise(L, "data.subset: index must be a contiguous i64 vector, not %s %s",
                           dlua_dtype_name(index->dtype), dlua_shape_text(index));
  }
  dlua_dataset **part = (dlua_dataset **)push_handle(L, DATASET);
  dlua_bind_check(L, dlua_dataset_subset(d, dlua_i64(index), index->size[0], part));
  return 1;
}

// Row of a field as a tensor of its own.
static dlua_status row_tensor(const dlua_tensor *rows, int64_t row, dlua_tensor **x) {
  DLUA_TRY(dlua_tensor_new(x, rows->dtype, rows->ndim - 1, rows->size + 1, dlua_cpu()));
  size_t bytes = (size_t)dlua_numel(*x) * dlua_dtype_size(rows->dtype);
  memcpy(dlua_data(*x), (const char *)dlua_data(rows) + (size_t)row * bytes, bytes);
  return DLUA_OK;
}

static dlua_status picture_tensor(const dlua_dataset *d, int64_t i, dlua_tensor **x) {
  dlua_decoder decoder = {0};
  dlua_picture p;
  dlua_status status = dlua_dataset_picture(d, i, &decoder, &p);
  int64_t size[3] = {0};
  if (status == DLUA_OK) {
    size[0] = p.c, size[1] = p.h, size[2] = p.w;
    status = dlua_tensor_new(x, p.dtype, 3, size, dlua_cpu());
  }
  if (status == DLUA_OK) memcpy(dlua_data(*x), p.data, (size_t)dlua_picture_count(&p));
  dlua_decoder_free(&decoder);
  return status;
}

// get(set, i): the parts of example i; numbers where a part is one.
static int get(lua_State *L) {
  dlua_bind_enter(L);
  dlua_dataset *d = check_dataset(L, 1);
  int64_t i = dlua_bind_need_integer(L, 2, "data: the example");
  if (i < 1 || i > d->count) {
    return dlua_bind_raise(L, "data: example %lld is outside 1..%lld", (long long)i,
                           (long long)d->count);
  }
  for (int k = 0; k < d->source->nfields; k++) {
    bool picture = k == 0 && d->source->pictures;
    const dlua_tensor *rows = d->source->field[k].rows;
    int64_t row = dlua_dataset_row(d, i - 1);
    if (!picture && rows->ndim == 1 && rows->dtype == DLUA_I64) {
      lua_pushinteger(L, dlua_i64(rows)[row]);
      continue;
    }
    dlua_tensor **x = dlua_bind_box(L);
    dlua_bind_check(L, picture ? picture_tensor(d, i - 1, x) : row_tensor(rows, row, x));
  }
  return d->source->nfields;
}

// A quarter of a device's free memory, all there is where it does not say.
static size_t room_on(lua_State *L, const char *name) {
  dlua_device *device = NULL;
  dlua_device_info info = {0};
  dlua_bind_check(L, dlua_device_find(name, &device));
  dlua_bind_check(L, device->backend->info(device->index, &info));
  return info.memory > 0 ? info.free / 4 : SIZE_MAX;
}

// Bytes of the rows of a field for all examples of a data set.
static size_t field_bytes(const dlua_dataset *d, int field) {
  const dlua_tensor *rows = d->source->field[field].rows;
  size_t all = (size_t)dlua_numel(rows) * dlua_dtype_size((dlua_dtype)rows->dtype);
  return rows->size[0] > 0 ? all / (size_t)rows->size[0] * (size_t)d->count : 0;
}

// fields(set, device): all of a data set as tensors on the host, one for each part of an example;
// nothing unless the first is u8 pictures of one size and the device has room for them all.
static int fields(lua_State *L) {
  dlua_bind_enter(L);
  dlua_dataset *d = check_dataset(L, 1);
  size_t room = room_on(L, dlua_bind_need_string(L, 2, "data: device"));
  const dlua_tensor *rows = d->source->field[0].rows;
  bool pictures = d->source->pictures;
  if (!pictures && (rows->dtype != DLUA_U8 || rows->ndim != 4)) return 0;
  for (int k = pictures ? 1 : 0; k < d->source->nfields; k++) {
    size_t bytes = field_bytes(d, k);
    if (bytes > room) return 0;
    room -= bytes;
  }
  for (int k = 0; k < d->source->nfields; k++) {
    dlua_tensor **x = dlua_bind_box(L);
    dlua_bind_check(L, pictures && k == 0 ? dlua_dataset_pictures(d, room, x)
                                          : dlua_dataset_rows(d, k, x));
    if (!*x) return 0;
  }
  return d->source->nfields;
}

// stamp(set): a number that changes when its tensors are written to.
static int stamp(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)dlua_dataset_stamp(check_dataset(L, 1)));
  return 1;
}

// statistics(set): mean and std per channel as two lists.
static int statistics(lua_State *L) {
  dlua_dataset *d = check_dataset(L, 1);
  double figure[2][4] = {{0}};
  if (!d->source->pictures) return dlua_bind_raise(L, "data: mean and std are those of pictures");
  dlua_bind_check(L, dlua_dataset_statistics(d, figure[0], figure[1]));
  for (int k = 0; k < 2; k++) {
    lua_createtable(L, d->source->channels, 0);
    for (int c = 0; c < d->source->channels; c++) {
      lua_pushnumber(L, figure[k][c]);
      lua_rawseti(L, -2, c + 1);
    }
  }
  return 2;
}

static int classes(lua_State *L) {
  dlua_source *s = check_dataset(L, 1)->source;
  if (s->nclasses == 0) return 0;
  lua_createtable(L, s->nclasses, 0);
  for (int k = 0; k < s->nclasses; k++) {
    lua_pushstring(L, s->classes[k]);
    lua_rawseti(L, -2, k + 1);
  }
  return 1;
}

// labels(set): the last part of every example, where that is one i64; nothing otherwise.
static int labels(lua_State *L) {
  dlua_dataset *d = check_dataset(L, 1);
  const dlua_tensor *rows = d->source->field[d->source->nfields - 1].rows;
  if (!rows || rows->ndim != 1 || rows->dtype != DLUA_I64) return 0;
  dlua_tensor **y = dlua_bind_box(L);
  dlua_bind_check(L, dlua_tensor_new(y, DLUA_I64, 1, &d->count, dlua_cpu()));
  for (int64_t i = 0; i < d->count; i++) dlua_i64(*y)[i] = dlua_i64(rows)[dlua_dataset_row(d, i)];
  return 1;
}

// ---------------------------------------------------------------- orders

// permutation(key, round, n): an i64 tensor of 1..n.
static int permutation(lua_State *L) {
  uint64_t key = (uint64_t)dlua_bind_need_integer(L, 1, "data: key");
  uint64_t round = (uint64_t)dlua_bind_need_integer(L, 2, "data: round");
  int64_t n = dlua_bind_need_integer(L, 3, "data: n");
  if (n < 0) return dlua_bind_raise(L, "data: %lld examples cannot be put in order", (long long)n);
  dlua_tensor **x = dlua_bind_box(L);
  dlua_bind_check(L, dlua_tensor_new(x, DLUA_I64, 1, &n, dlua_cpu()));
  dlua_permutation(key, round, n, dlua_i64(*x));
  for (int64_t k = 0; k < n; k++) dlua_i64(*x)[k]++;
  return 1;
}

static void check_labels(lua_State *L, const dlua_tensor *y, int64_t n) {
  bool host = dlua_device_of(y) == dlua_cpu() && dlua_is_contiguous(y);
  if (y->dtype == DLUA_I64 && y->ndim == 1 && y->size[0] == n && host) return;
  dlua_bind_raise(L, "data.random_split: labels must be i64 {%lld} on the cpu, not %s %s",
                  (long long)n, dlua_dtype_name((dlua_dtype)y->dtype), dlua_shape_text(y));
}

// The lengths of the parts, which must fit into n examples.
static void read_counts(lua_State *L, int index, int64_t n, int parts, int64_t *count) {
  int64_t left = n;
  for (int k = 0; k < parts; k++) {
    lua_rawgeti(L, index, k + 1);
    count[k] = dlua_bind_need_integer(L, -1, "data.random_split: each part");
    lua_pop(L, 1);
    if (count[k] < 0 || count[k] > left) {
      dlua_bind_raise(L, "data.random_split: part %d of %lld does not fit into the %lld left",
                      k + 1, (long long)count[k], (long long)left);
    }
    left -= count[k];
  }
}

// split(key, n, labels or nil, {count, …}): one i64 tensor of positions per part.
static int split(lua_State *L) {
  uint64_t key = (uint64_t)dlua_bind_need_integer(L, 1, "data.random_split: seed");
  int64_t n = dlua_bind_need_integer(L, 2, "data.random_split: n");
  dlua_tensor *y = lua_isnil(L, 3) ? NULL : dlua_bind_tensor(L, 3, "data.random_split: labels");
  if (y) check_labels(L, y, n);
  dlua_bind_need_table(L, 4, "data.random_split: counts");
  int parts = (int)lua_rawlen(L, 4);
  luaL_checkstack(L, parts + 4, "data.random_split: too many parts");
  int64_t *count = lua_newuserdatauv(L, (size_t)parts * sizeof *count + 1, 0);
  read_counts(L, 4, n, parts, count);
  dlua_tensor **order = dlua_bind_box(L);
  dlua_bind_check(L, dlua_tensor_new(order, DLUA_I64, 1, &n, dlua_cpu()));
  dlua_bind_check(L, dlua_split(key, n, y ? dlua_i64(y) : NULL, parts, count, dlua_i64(*order)));
  for (int64_t k = 0; k < n; k++) dlua_i64(*order)[k]++;
  for (int64_t k = 0, from = 0; k < parts; from += count[k++]) {
    dlua_tensor **part = dlua_bind_box(L);
    dlua_bind_check(L, dlua_tensor_new(part, DLUA_I64, 1, &count[k], dlua_cpu()));
    memcpy(dlua_data(*part), dlua_i64(*order) + from, (size_t)count[k] * sizeof(int64_t));
  }
  return parts;
}

// ---------------------------------------------------------------- transforms

// transform(name, {numbers}): the transform and the number of its kind
static int new_transform(lua_State *L) {
  const char *name = dlua_bind_need_string(L, 1, "transforms: name");
  dlua_transform *t = lua_newuserdatauv(L, sizeof *t, 0);
  *t = (dlua_transform){0};
  luaL_setmetatable(L, TRANSFORM);
  dlua_bind_check(L, dlua_transform_find(name, &t->kind));
  dlua_bind_need_table(L, 2, name);
  int n = (int)lua_rawlen(L, 2);
  if (n > DLUA_TRANSFORM_NUMBERS) return dlua_bind_raise(L, "%s: too many channels", name);
  for (int k = 0; k < n; k++) {
    lua_rawgeti(L, 2, k + 1);
    t->p[k] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  dlua_bind_check(L, dlua_transform_check(t));
  lua_pushinteger(L, t->kind);
  return 2;
}

// Copies the transforms in the list at index into one block that stays on the stack.
static dlua_transform *gather(lua_State *L, int index, int *n) {
  dlua_bind_need_table(L, index, "transforms: the list");
  *n = (int)lua_rawlen(L, index);
  dlua_transform *steps = lua_newuserdatauv(L, (size_t)*n * sizeof *steps + 1, 0);
  for (int k = 0; k < *n; k++) {
    lua_rawgeti(L, index, k + 1);
    const dlua_transform *t = luaL_testudata(L, -1, TRANSFORM);
    if (!t) dlua_bind_raise(L, "transforms: item %d is no transform", k + 1);
    steps[k] = *t;
    lua_pop(L, 1);
  }
  return steps;
}

static dlua_status as_picture(const dlua_transform *first, const dlua_tensor *x, dlua_picture *p) {
  if ((x->dtype != DLUA_U8 && x->dtype != DLUA_F32) || x->ndim != 3) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "%s: takes a picture {c,h,w} of u8 or f32, not %s %s",
                     dlua_transform_name(first->kind), dlua_dtype_name(x->dtype),
                     dlua_shape_text(x));
  }
  *p = (dlua_picture){
      .dtype = x->dtype, .c = x->size[0], .h = x->size[1], .w = x->size[2], .data = dlua_data(x)};
  if (dlua_picture_count(p) > 0) return DLUA_OK;
  return dlua_fail(DLUA_BAD_ARGUMENT, "%s: the picture %s is empty",
                   dlua_transform_name(first->kind), dlua_shape_text(x));
}

static dlua_status apply_steps(int n, const dlua_transform *steps, const dlua_draw *draw,
                               const dlua_tensor *x, dlua_tensor **y) {
  dlua_scratch scratch = {0};
  dlua_picture in, out = {0};
  dlua_tensor *host = NULL, *flat = NULL;
  dlua_status status = dlua_to_device(x, dlua_cpu(), &host);
  if (status == DLUA_OK) status = dlua_contiguous(host, &flat);
  if (status == DLUA_OK) status = as_picture(steps, flat, &in);
  if (status == DLUA_OK) status = dlua_transform_run(n, steps, draw, &in, &scratch, &out);
  if (status == DLUA_OK) {
    int64_t size[3] = {out.c, out.h, out.w};
    status = dlua_tensor_new(y, out.dtype, 3, size, dlua_cpu());
  }
  if (status == DLUA_OK) {
    memcpy(dlua_data(*y), out.data, (size_t)dlua_picture_count(&out) * dlua_dtype_size(out.dtype));
  }
  dlua_scratch_free(&scratch);
  dlua_tensor_release(flat);
  dlua_tensor_release(host);
  return status;
}

// apply({transforms}, x, key, epoch, sample, step): sample and step count from 1.
static int apply(lua_State *L) {
  dlua_bind_enter(L);
  int n;
  dlua_transform *steps = gather(L, 1, &n);
  if (n == 0) return dlua_bind_raise(L, "transforms: the list is empty");
  char who[64];
  snprintf(who, sizeof who, "%s: x", dlua_transform_name(steps->kind));
  dlua_tensor *x = dlua_bind_tensor(L, 2, who);
  dlua_draw draw = {.key = (uint64_t)dlua_bind_need_integer(L, 3, "transforms: key"),
                    .epoch = (uint32_t)dlua_bind_need_integer(L, 4, "transforms: epoch"),
                    .sample = (uint64_t)dlua_bind_need_integer(L, 5, "transforms: sample") - 1,
                    .step = (uint32_t)dlua_bind_need_integer(L, 6, "transforms: step") - 1};
  dlua_tensor **y = dlua_bind_box(L);
  dlua_bind_check(L, apply_steps(n, steps, &draw, x, y));
  return 1;
}

// ---------------------------------------------------------------- loaders

// loader(set, {batch, shuffle, drop_last, workers, ahead, key}, {transforms})
static int new_loader(lua_State *L) {
  dlua_dataset *d = check_dataset(L, 1);
  dlua_loader_options o = {.batch = dlua_bind_integer(L, 2, "DataLoader", "batch"),
                           .shuffle = dlua_bind_flag(L, 2, "DataLoader", "shuffle", false),
                           .drop_last = dlua_bind_flag(L, 2, "DataLoader", "drop_last", false),
                           .workers = (int)dlua_bind_integer(L, 2, "DataLoader", "workers"),
                           .ahead = (int)dlua_bind_integer(L, 2, "DataLoader", "ahead"),
                           .key = (uint64_t)dlua_bind_integer(L, 2, "DataLoader", "key")};
  o.steps = gather(L, 3, &o.nsteps);
  dlua_loader **l = (dlua_loader **)push_handle(L, LOADER);
  dlua_bind_check(L, dlua_loader_new(l, d, &o));
  return 1;
}

static int start(lua_State *L) {
  dlua_bind_check(L, dlua_loader_start(check_loader(L, 1), (uint32_t)dlua_bind_need_integer(
                                                               L, 2, "DataLoader: epoch")));
  return 0;
}

// next(loader): the tensors of the next batch, or nothing at the end. Boxes come first.
static int next(lua_State *L) {
  dlua_bind_enter(L);
  dlua_loader *l = check_loader(L, 1);
  dlua_tensor **box[DLUA_MAX_FIELDS];
  dlua_batch batch;
  for (int k = 0; k < dlua_loader_fields(l); k++) box[k] = dlua_bind_box(L);
  dlua_status status = dlua_loader_next(l, &batch);
  if (status == DLUA_NO_MEMORY && dlua_reclaim(dlua_cpu())) // a worker's, which collects nothing
    status = dlua_loader_next(l, &batch);
  dlua_bind_check(L, status);
  for (int k = 0; k < batch.count; k++) *box[k] = batch.tensor[k];
  lua_pop(L, dlua_loader_fields(l) - batch.count);
  return batch.count;
}

// examples(loader, first, n): positions in the data set, from 1, of examples of the running order.
static int examples(lua_State *L) {
  dlua_loader *l = check_loader(L, 1);
  int64_t first = dlua_bind_need_integer(L, 2, "data: first");
  int64_t n = dlua_bind_need_integer(L, 3, "data: n"), count = dlua_loader_examples(l);
  if (first < 1 || n < 0 || n > count || first - 1 > count - n) {
    return dlua_bind_raise(L, "data: %lld examples from %lld on are outside 1..%lld", (long long)n,
                           (long long)first, (long long)count);
  }
  lua_createtable(L, (int)n, 0);
  for (int64_t k = 0; k < n; k++) {
    lua_pushinteger(L, dlua_loader_example(l, first - 1 + k) + 1);
    lua_rawseti(L, -2, k + 1);
  }
  return 1;
}

static int stats(lua_State *L) {
  dlua_loader_stats s = dlua_loader_get_stats(check_loader(L, 1));
  lua_createtable(L, 0, 4);
  lua_pushnumber(L, s.wait), lua_setfield(L, -2, "wait");
  lua_pushnumber(L, s.waited), lua_setfield(L, -2, "waited");
  lua_pushnumber(L, s.elapsed), lua_setfield(L, -2, "elapsed");
  lua_pushinteger(L, s.batches), lua_setfield(L, -2, "batches");
  return 1;
}

// ---------------------------------------------------------------- the table

static int is_folder(lua_State *L) {
  lua_pushboolean(L, dlua_is_folder(dlua_bind_need_string(L, 1, "data: path")));
  return 1;
}

static void new_kind(lua_State *L, const char *kind, lua_CFunction gc, lua_CFunction len) {
  luaL_newmetatable(L, kind);
  if (gc) lua_pushcfunction(L, gc), lua_setfield(L, -2, "__gc");
  if (len) lua_pushcfunction(L, len), lua_setfield(L, -2, "__len");
  lua_pushliteral(L, "locked"), lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}

void dlua_bind_data(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"cifar", read_cifar},
      {"mnist", read_mnist},
      {"folder", read_folder},
      {"tensors", from_tensors},
      {"idx", read_idx},
      {"subset", subset},
      {"get", get},
      {"fields", fields},
      {"stamp", stamp},
      {"statistics", statistics},
      {"classes", classes},
      {"labels", labels},
      {"permutation", permutation},
      {"split", split},
      {"transform", new_transform},
      {"apply", apply},
      {"loader", new_loader},
      {"start", start},
      {"next", next},
      {"examples", examples},
      {"stats", stats},
      {"is_folder", is_folder},
      {NULL, NULL},
  };
  new_kind(L, DATASET, dataset_gc, dataset_len);
  new_kind(L, TRANSFORM, NULL, NULL);
  new_kind(L, LOADER, loader_gc, loader_len);
  luaL_getsubtable(L, -1, "io");
  luaL_setfuncs(L, functions, 0);
  lua_pop(L, 1);
}
