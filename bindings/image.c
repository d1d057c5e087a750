// image.c - PNG pictures as tensors {c,h,w}: core.io.png_read and core.io.png_write, under
// lua/dlua/image.lua.
#include "../runtime/data/io_png.h"
#include "value.h"

static dlua_status read_png(const char *path, int channels, bool deep, dlua_tensor **x) {
  dlua_bytes file = {0}, scratch = {0};
  dlua_png png = {0};
  dlua_status status = dlua_file_read(path, (size_t)1 << 30, &file);
  if (status == DLUA_OK) {
    status = dlua_png_open(&png, path, file.data, file.size, channels, deep);
  }
  if (status == DLUA_OK) {
    int64_t size[3] = {png.channels, png.height, png.width};
    status = dlua_tensor_new(x, png.depth == 16 ? DLUA_I32 : DLUA_U8, 3, size, dlua_cpu());
  }
  if (status == DLUA_OK) status = dlua_png_read(&png, dlua_data(*x), &scratch);
  dlua_png_close(&png);
  dlua_bytes_free(&scratch);
  dlua_bytes_free(&file);
  return status;
}

// png_read(path, channels, deep): the picture, or nil and a message.
static int png_read(lua_State *L) {
  dlua_bind_enter(L);
  const char *path = dlua_bind_need_string(L, 1, "image.load: path");
  int channels = (int)dlua_bind_need_integer(L, 2, "image.load: channels");
  bool deep = lua_toboolean(L, 3);
  dlua_tensor **x = dlua_bind_box(L);
  dlua_status status = read_png(path, channels, deep, x);
  if (status == DLUA_BAD_FILE) return dlua_bind_nil(L);
  dlua_bind_check(L, status);
  return 1;
}

// Finds the first value outside 0..65535.
static dlua_status check_deep(const dlua_tensor *x) {
  const int32_t *value = dlua_data(x);
  for (int64_t k = 0; k < dlua_numel(x); k++) {
    if (value[k] >= 0 && value[k] <= 65535) continue;
    return dlua_fail(DLUA_BAD_ARGUMENT, "image.save: value %d at position %lld is outside 0..65535",
                     value[k], (long long)k + 1);
  }
  return DLUA_OK;
}

static dlua_status write_png(const char *path, const dlua_tensor *x, int level) {
  dlua_bytes file = {0};
  bool deep = x->dtype == DLUA_I32;
  dlua_status status = deep ? check_deep(x) : DLUA_OK;
  if (status == DLUA_OK) {
    status = dlua_png_encode(path, dlua_data(x), (int)x->size[0], x->size[1], x->size[2],
                             deep ? 16 : 8, level, &file);
  }
  if (status == DLUA_OK) status = dlua_file_write(path, file.data, file.size);
  dlua_bytes_free(&file);
  return status;
}

// png_write(path, x, level): x is u8 or i32 {c,h,w} with 1 to 4 channels, contiguous on the CPU.
static int png_write(lua_State *L) {
  dlua_bind_enter(L);
  const char *path = dlua_bind_need_string(L, 1, "image.save: path");
  dlua_tensor *x = dlua_bind_tensor(L, 2, "image.save: x");
  bool known = x->dtype == DLUA_U8 || x->dtype == DLUA_I32;
  if (!known || x->ndim != 3 || x->size[0] < 1 || x->size[0] > 4 || !dlua_is_contiguous(x)) {
    return dlua_bind_raise(L, "image.save: takes u8 or i32 {c,h,w} of 1 to 4 channels, not %s %s",
                           dlua_dtype_name(x->dtype), dlua_shape_text(x));
  }
  dlua_bind_check(L, write_png(path, x, (int)dlua_bind_need_integer(L, 3, "image.save: level")));
  return 0;
}

void dlua_bind_image(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"png_read", png_read}, {"png_write", png_write}, {NULL, NULL}};
  luaL_getsubtable(L, -1, "io");
  luaL_setfuncs(L, functions, 0);
  lua_pop(L, 1);
}
