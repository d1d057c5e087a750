// onednn_matmul.c - products of matrices in bf16, on the CPU's units for them. f32 products need no
// plan and stand in onednn.c.
//
// Refused: matrices without a unit stride and views that overlap themselves; those run through f32.
#include <string.h>

#include "../parallel.h"
#include "isa.h"
#include "onednn.h"
#include "onednn_plan.h"

enum { MOST_DIMS = DLUA_MAX_DIMS + 2 };

// All a primitive depends on.
typedef struct matmul_key {
  int32_t threads, bias;
  dnnl_memory_desc_t x, y, out;
} matmul_key;

bool dlua_onednn_bf16(void) {
  const int needed = dnnl_cpu_isa_avx512_core_bf16; // the names are sets of bits
  return dlua_isa() == DLUA_AVX512 && (dnnl_get_effective_cpu_isa() & needed) == needed;
}

static dlua_status make_matmul(const void *key, dlua_plan *plan) {
  const matmul_key *k = key;
  dnnl_matmul_desc_t desc;
  dnnl_primitive_attr_t attr;
  dnnl_dims_t size;
  dnnl_memory_desc_t bias;
  for (int d = 0; d < k->out.ndims; d++) size[d] = 1;
  size[k->out.ndims - 1] = k->out.dims[k->out.ndims - 1];
  DLUA_TRY(dlua_onednn_dense(&bias, k->out.ndims, size, dnnl_bf16));
  DLUA_TRY(
      dlua_onednn_check(dnnl_matmul_desc_init(&desc, &k->x, &k->y, k->bias ? &bias : NULL, &k->out),
                        "describe a product"));
  DLUA_TRY(dlua_onednn_attributes(&attr));
  dnnl_status_t status =
      dnnl_primitive_desc_create(&plan->desc, &desc, attr, dlua_onednn_engine(), NULL);
  dnnl_primitive_attr_destroy(attr);
  return dlua_onednn_check(status, "plan a product");
}

// The stride of a dimension; one element has none that matters to us, but the library looks at it.
static int64_t apart(int64_t size, int64_t stride, int64_t inner) {
  return size == 1 ? inner : stride;
}

// An operand: rows x columns, with the batch's strides before them; repeated dimensions have one
// element. Declined where the library cannot describe it.
static dlua_status operand(const dlua_products *p, const int64_t *batch, int64_t rows,
                           int64_t columns, int64_t row, int64_t column, dnnl_memory_desc_t *desc) {
  int n = p->ndim;
  dnnl_dims_t size, stride;
  size[n] = rows, size[n + 1] = columns;
  if (column == 1 || columns == 1)
    stride[n + 1] = 1, stride[n] = apart(rows, row, columns);
  else if (row == 1 || rows == 1)
    stride[n] = 1, stride[n + 1] = apart(columns, column, rows);
  else
    return DLUA_DECLINED;
  if (stride[n + 1] == 1 ? stride[n] < columns : stride[n + 1] < rows) return DLUA_DECLINED;
  for (int d = 0; d < n; d++) {
    size[d] = batch[d] == 0 ? 1 : p->size[d];
    stride[d] = apart(size[d], batch[d], rows * columns);
    if (stride[d] < 0) return DLUA_DECLINED;
  }
  memset(desc, 0, sizeof *desc);
  dnnl_status_t status = dnnl_memory_desc_init_by_strides(desc, n + 2, size, dnnl_bf16, stride);
  return status == dnnl_invalid_arguments ? DLUA_DECLINED
                                          : dlua_onednn_check(status, "describe a matrix");
}

static dlua_part part_of(int argument, const void *data, const dnnl_memory_desc_t *desc) {
  return (dlua_part){.argument = argument,
                     .result = argument == DNNL_ARG_DST,
                     .data = (void *)data,
                     .given = *desc,
                     .wanted = *desc};
}

static dlua_status run_key(const matmul_key *k, const dlua_gemm *g) {
  dlua_plan *plan = NULL;
  DLUA_TRY(dlua_plan_find(k, sizeof *k, make_matmul, &plan));
  dlua_part parts[4] = {part_of(DNNL_ARG_SRC, g->a, &k->x), part_of(DNNL_ARG_WEIGHTS, g->b, &k->y),
                        part_of(DNNL_ARG_DST, g->c, &k->out)};
  if (g->bias) {
    dnnl_memory_desc_t bias = dlua_plan_wants(plan, DNNL_ARG_BIAS);
    parts[3] = part_of(DNNL_ARG_BIAS, g->bias, &bias);
  }
  dlua_status status = dlua_plan_run(plan, g->bias ? 4 : 3, parts);
  dlua_plan_release(plan);
  return status;
}

dlua_status dlua_onednn_products(const dlua_products *p) {
  const dlua_gemm *g = &p->g;
  matmul_key k;
  dnnl_dims_t size;
  double work = 2.0 * (double)g->m * (double)g->n * (double)g->k;
  memset(&k, 0, sizeof k);
  for (int d = 0; d < p->ndim; d++) size[d] = p->size[d], work *= (double)p->size[d];
  if (work == 0 || p->ndim + 2 > MOST_DIMS) return DLUA_DECLINED;
  size[p->ndim] = g->m, size[p->ndim + 1] = g->n;
  DLUA_TRY(operand(p, p->a, g->m, g->k, g->ai, g->ak, &k.x));
  DLUA_TRY(operand(p, p->b, g->k, g->n, g->bk, g->bj, &k.y));
  DLUA_TRY(dlua_onednn_dense(&k.out, p->ndim + 2, size, dnnl_bf16));
  k.bias = g->bias != NULL, k.threads = dlua_team_begin(work);
  dlua_status status = run_key(&k, g);
  dlua_team_end();
  return status;
}
