// dtype.c - names, sizes and promotion of element types.
#include <string.h>

#include "dlua.h"
#include "words.h"

static const struct {
  const char *name;
  size_t size;
} dtypes[DLUA_DTYPES] = {{"f32", 4}, {"f64", 8}, {"bf16", 2}, {"f16", 2},
                         {"i64", 8}, {"i32", 4}, {"u8", 1},   {"bool", 1}};

size_t dlua_dtype_size(dlua_dtype dtype) { return dtypes[dtype].size; }

const char *dlua_dtype_name(dlua_dtype dtype) { return dtypes[dtype].name; }

dlua_status dlua_dtype_find(const char *name, dlua_dtype *dtype) {
  const char *names[DLUA_DTYPES];
  for (int k = 0; k < DLUA_DTYPES; k++) {
    names[k] = dtypes[k].name;
    if (strcmp(name, names[k]) == 0) return *dtype = (dlua_dtype)k, DLUA_OK;
  }
  const char *near = dlua_nearest(name, DLUA_DTYPES, names);
  if (near)
    return dlua_fail(DLUA_BAD_ARGUMENT, "unknown dtype '%s' (did you mean '%s'?)", name, near);
  return dlua_fail(DLUA_BAD_ARGUMENT,
                   "unknown dtype '%s' (known: f32 f64 bf16 f16 i64 i32 u8 bool)", name);
}

dlua_dtype dlua_promote(dlua_dtype a, dlua_dtype b) {
  if (a == b) return a;
  static const int rank[DLUA_DTYPES] = {
      [DLUA_BOOL] = 0, [DLUA_U8] = 1,  [DLUA_I32] = 2, [DLUA_I64] = 3,
      [DLUA_BF16] = 4, [DLUA_F16] = 4, [DLUA_F32] = 5, [DLUA_F64] = 6};
  if (rank[a] == rank[b]) return DLUA_F32; // bf16 with f16
  return rank[a] > rank[b] ? a : b;
}
