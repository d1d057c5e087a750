// onednn_plan.h - prepared oneDNN primitives, shared by the files that call the library. Making one
// costs about a millisecond (code is generated), running it next to nothing, so they are kept by
// everything they depend on.
#ifndef DLUA_ONEDNN_PLAN_H
#define DLUA_ONEDNN_PLAN_H

#include <oneapi/dnnl/dnnl.h>

#include "../dlua.h"

typedef struct dlua_plan {
  int refs; // atomic: the table's and those of running calls
  uint64_t hash, used;
  size_t bytes;
  void *key;
  dnnl_primitive_desc_t desc;
  dnnl_primitive_t primitive;
  struct dlua_plan *next;
} dlua_plan;

// One tensor of a call: where it lies and how, and which argument of the primitive it is.
typedef struct dlua_part {
  int argument;
  bool result;
  void *data;
  dnnl_memory_desc_t given;  // as it lies in data
  dnnl_memory_desc_t wanted; // as the primitive takes it; reordered on the way where they differ
} dlua_part;

dnnl_engine_t dlua_onednn_engine(void);
// OK, or this failure of the library as ours: DLUA_DECLINED where it has no such kernel.
dlua_status dlua_onednn_check(dnnl_status_t status, const char *what);
// Attributes that leave scratch memory to us; the caller destroys them.
dlua_status dlua_onednn_attributes(dnnl_primitive_attr_t *attr);
// Row-major memory without gaps.
dlua_status dlua_onednn_dense(dnnl_memory_desc_t *desc, int ndim, const int64_t *size,
                              dnnl_data_type_t type);
// The plan of a key (bytes, no padding); make fills desc and primitive of a new one. Caller
// releases the plan.
dlua_status dlua_plan_find(const void *key, size_t bytes,
                           dlua_status (*make)(const void *key, dlua_plan *plan), dlua_plan **plan);
void dlua_plan_release(dlua_plan *plan);
// Runs a plan over the parts, reordering those that lie differently.
dlua_status dlua_plan_run(const dlua_plan *plan, int n, const dlua_part *parts);
// Moves data from one description to another.
dlua_status dlua_plan_reorder(const dnnl_memory_desc_t *to, void *dst,
                              const dnnl_memory_desc_t *from, const void *src);
// What a plan's primitive takes as this argument.
dnnl_memory_desc_t dlua_plan_wants(const dlua_plan *plan, int argument);

#endif
