// matmul.c - matrix products through cuBLASLt: matmul, bmm, dot, and what linear.c makes of them.
//
// The library thinks in columns, dlua in rows. A row-major result is the column-major transpose, so
// what it is asked for is out' = y' x': n rows, m columns. The alternative, CUBLASLT_ORDER_ROW, does
// not go with a bias in the epilogue, and the bias of linear runs along n, the rows, as the epilogue
// wants it. Strides become leading dimensions and transposes; an operand is copied only where neither
// of its strides is 1. Plans, with the algorithm from the library's heuristic or from timing
// (dlua.autotune), are kept by all they depend on. What the library does not take goes to
// kernels/matmul.cu.
#include "matmul.h"

#include <string.h>

#include "host.h"

enum { X, Y, OUT, OPERANDS, CANDIDATES = 8, MOST_LAUNCHES = 8 };

// ---------------------------------------------------------------- products

// Batch dimensions of x and y, broadcast; out's follow each other.
static void plan_batch(dlua_product *p, const dlua_tensor *x, const dlua_tensor *y) {
  int nx = x->ndim > 2 ? x->ndim - 2 : 0, ny = y->ndim > 2 ? y->ndim - 2 : 0;
  int64_t step = p->m * p->n;
  p->ndim = nx > ny ? nx : ny;
  for (int d = p->ndim - 1; d >= 0; d--) {
    int dx = d - (p->ndim - nx), dy = d - (p->ndim - ny);
    int64_t sx = dx < 0 ? 1 : x->size[dx], sy = dy < 0 ? 1 : y->size[dy];
    p->size[d] = sx == 1 ? sy : sx;
    p->stride[X][d] = sx == 1 ? 0 : x->stride[dx];
    p->stride[Y][d] = sy == 1 ? 0 : y->stride[dy];
    p->stride[OUT][d] = step, step *= p->size[d];
  }
}

// y may be w {out,in} of linear, turned.
static dlua_product product_of(const dlua_args *a, const dlua_tensor *x, const dlua_tensor *y,
                               bool turned, const dlua_tensor *bias) {
  int dx = x->ndim, dy = y->ndim, row = dy > 1 ? dy - 2 : 0, column = dy - 1;
  if (turned) row = 1, column = 0;
  dlua_product p = {.dtype = x->dtype,
                    .x = dlua_data(x),
                    .y = dlua_data(y),
                    .out = dlua_data(a->out[0]),
                    .bias = bias ? dlua_data(bias) : NULL,
                    .bj = bias ? bias->stride[0] : 0,
                    .m = dx > 1 ? x->size[dx - 2] : 1,
                    .n = dy > 1 ? y->size[column] : 1,
                    .k = x->size[dx - 1],
                    .xi = dx > 1 ? x->stride[dx - 2] : 0,
                    .xk = x->stride[dx - 1],
                    .yk = y->stride[row],
                    .yj = dy > 1 ? y->stride[column] : 0};
  plan_batch(&p, x, y);
  return p;
}

static void drop_dim(dlua_product *p, int d) {
  size_t rest = (size_t)(p->ndim - d - 1) * sizeof *p->size;
  memmove(p->size + d, p->size + d + 1, rest);
  for (int i = 0; i < OPERANDS; i++) memmove(p->stride[i] + d, p->stride[i] + d + 1, rest);
  p->ndim--;
}

static void swap_dims(dlua_product *p, int d, int e) {
  int64_t size = p->size[d];
  p->size[d] = p->size[e], p->size[e] = size;
  for (int i = 0; i < OPERANDS; i++) {
    int64_t stride = p->stride[i][d];
    p->stride[i][d] = p->stride[i][e], p->stride[i][e] = stride;
  }
}

// A y without batch and rows of x that follow each other: one tall product.
static void merge_rows(dlua_product *p) {
  int64_t m = p->m, stride = p->xi;
  for (int d = p->ndim - 1; d >= 0; d--) {
    if (p->size[d] == 1) continue;
    if (p->stride[Y][d] != 0) return;
    if (m == 1)
      stride = p->stride[X][d];
    else if (p->stride[X][d] != m * stride)
      return;
    m *= p->size[d];
  }
  p->m = m, p->xi = stride, p->ndim = 0;
}

// As few batch dimensions as the strides allow, the longest one last.
static void merge_batch(dlua_product *p) {
  for (int d = p->ndim - 1; d >= 0; d--)
    if (p->size[d] == 1) drop_dim(p, d);
  for (int d = p->ndim - 2; d >= 0; d--) {
    bool follows = true;
    for (int i = 0; i < OPERANDS; i++)
      follows &= p->stride[i][d] == p->size[d + 1] * p->stride[i][d + 1];
    if (!follows) continue;
    p->size[d + 1] *= p->size[d];
    drop_dim(p, d);
  }
  for (int d = 0; d < p->ndim - 1; d++)
    if (p->size[d] > p->size[p->ndim - 1]) swap_dims(p, d, p->ndim - 1);
}

// How many calls of the library a merged batch takes: each does the last dimension.
static int64_t launches(const dlua_product *p) {
  int64_t count = 1;
  for (int d = 0; d < p->ndim - 1; d++) count *= p->size[d];
  return count;
}

// ---------------------------------------------------------------- plans

// A matrix as the library describes it: columns of `rows` elements, ld apart.
typedef struct matrix {
  bool turned; // the operand is its transpose
  int64_t ld;
} matrix;

// All that a plan depends on; no padding.
typedef struct plan_key {
  int64_t m, n, k, ld[2], step[OPERANDS], aux_ld;
  int32_t batch, device;
  uint32_t alignment[OPERANDS + 2]; // the last: of what lies beside
  uint32_t epilogue;
  uint8_t dtype, turned[2], tf32, tune, small, zero[2];
} plan_key;

typedef struct plan {
  bool taken; // false: the library does not do this
  cublasLtMatmulDesc_t call;
  cublasLtMatrixLayout_t layout[OPERANDS];
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace;
} plan;

static void drop_plan(void *pointer) {
  plan *p = pointer;
  if (p->call) dlua_cuda_calls_table.cublasLtMatmulDescDestroy(p->call);
  for (int i = 0; i < OPERANDS; i++)
    if (p->layout[i]) dlua_cuda_calls_table.cublasLtMatrixLayoutDestroy(p->layout[i]);
}

static dlua_plans plans = {
    .key_size = sizeof(plan_key), .plan_size = sizeof(plan), .drop = drop_plan};

// Strides of a matrix {rows,columns}, column-major: true where the library can read it so. It has no
// sizes beyond 32 bits.
static bool columns_of(int64_t rows, int64_t columns, int64_t row, int64_t column, int64_t *ld) {
  *ld = columns == 1 ? rows : column;
  return (rows == 1 || row == 1) && *ld >= rows && *ld <= INT32_MAX;
}

// A row that lies in one piece, as the weights of a single output do, is a column turned: as a row its
// ld would be 1, which no 16 bytes go into, and that is what the fast algorithms ask for.
static bool matrix_of(int64_t rows, int64_t columns, int64_t row, int64_t column, matrix *m) {
  bool line = rows == 1 && columns > 1 && column == 1;
  m->turned = false;
  if (!line && columns_of(rows, columns, row, column, &m->ld)) return true;
  m->turned = true;
  return columns_of(columns, rows, column, row, &m->ld);
}

static cudaDataType_t type_of(uint8_t dtype) {
  switch (dtype) {
  case DLUA_F64: return CUDA_R_64F;
  case DLUA_BF16: return CUDA_R_16BF;
  case DLUA_F16: return CUDA_R_16F;
  default: return CUDA_R_32F;
  }
}

static dlua_status make_layout(const plan_key *k, int operand, int64_t rows, int64_t columns,
                               int64_t ld, cublasLtMatrixLayout_t *layout) {
  BLAS_TRY(cublasLtMatrixLayoutCreate, layout, type_of(k->dtype), (uint64_t)rows, (uint64_t)columns,
           ld);
  if (k->batch == 1) return DLUA_OK;
  BLAS_TRY(cublasLtMatrixLayoutSetAttribute, *layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &k->batch,
           sizeof k->batch);
  BLAS_TRY(cublasLtMatrixLayoutSetAttribute, *layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
           &k->step[operand], sizeof k->step[operand]);
  return DLUA_OK;
}

// What a product takes from memory or writes there beside its operands.
typedef struct beside {
  void *bias; // to be added, n elements, or sums of x, m elements; or NULL
  void *aux;  // of the activation: what it is applied to, or bits; or NULL
  int64_t aux_ld;
  const dlua_tensor *slope; // what bits in aux are made from, or NULL
} beside;

static dlua_status set_beside(const plan *p, const beside *e) {
  if (e->bias)
    BLAS_TRY(cublasLtMatmulDescSetAttribute, p->call, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &e->bias,
             sizeof e->bias);
  if (e->aux)
    BLAS_TRY(cublasLtMatmulDescSetAttribute, p->call, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
             &e->aux, sizeof e->aux);
  return DLUA_OK;
}

static dlua_status make_epilogue(const plan_key *k, const beside *e, const plan *p) {
  if (k->epilogue == CUBLASLT_EPILOGUE_DEFAULT) return DLUA_OK;
  BLAS_TRY(cublasLtMatmulDescSetAttribute, p->call, CUBLASLT_MATMUL_DESC_EPILOGUE, &k->epilogue,
           sizeof k->epilogue);
  if (e->aux)
    BLAS_TRY(cublasLtMatmulDescSetAttribute, p->call, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
             &k->aux_ld, sizeof k->aux_ld);
  return set_beside(p, e);
}

static dlua_status make_call(const plan_key *k, const beside *e, plan *p) {
  cublasComputeType_t compute = k->dtype == DLUA_F64 ? CUBLAS_COMPUTE_64F
                                : k->tf32            ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                     : CUBLAS_COMPUTE_32F;
  cudaDataType_t scale = k->dtype == DLUA_F64 ? CUDA_R_64F : CUDA_R_32F;
  int32_t turned = CUBLAS_OP_T;
  BLAS_TRY(cublasLtMatmulDescCreate, &p->call, compute, scale);
  if (k->turned[Y])
    BLAS_TRY(cublasLtMatmulDescSetAttribute, p->call, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
             sizeof turned);
  if (k->turned[X])
    BLAS_TRY(cublasLtMatmulDescSetAttribute, p->call, CUBLASLT_MATMUL_DESC_TRANSB, &turned,
             sizeof turned);
  return make_epilogue(k, e, p);
}

static dlua_status make_descriptors(const plan_key *k, const beside *e, plan *p) {
  DLUA_TRY(make_call(k, e, p));
  bool tx = k->turned[X], ty = k->turned[Y];
  DLUA_TRY(make_layout(k, X, tx ? k->m : k->k, tx ? k->k : k->m, k->ld[X], &p->layout[X]));
  DLUA_TRY(make_layout(k, Y, ty ? k->k : k->n, ty ? k->n : k->k, k->ld[Y], &p->layout[Y]));
  return make_layout(k, OUT, k->n, k->m, k->n, &p->layout[OUT]);
}

static dlua_status prefer(const plan_key *k, cublasLtMatmulPreference_t preference) {
  static const cublasLtMatmulPreferenceAttributes_t alignment[OPERANDS] = {
      [X] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      [Y] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      [OUT] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  uint64_t workspace = k->small ? 0 : DLUA_GPU_WORKSPACE;
  uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; // parts are never rounded to 16 bit
  BLAS_TRY(cublasLtMatmulPreferenceSetAttribute, preference,
           CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
  BLAS_TRY(cublasLtMatmulPreferenceSetAttribute, preference,
           CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction);
  for (int i = 0; i < OPERANDS; i++)
    BLAS_TRY(cublasLtMatmulPreferenceSetAttribute, preference, alignment[i], &k->alignment[i],
             sizeof k->alignment[i]);
  BLAS_TRY(cublasLtMatmulPreferenceSetAttribute, preference,
           CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &k->alignment[OUT],
           sizeof k->alignment[OUT]);
  return DLUA_OK;
}

// The heuristic's candidates, best first.
static dlua_status ask(const plan_key *k, cublasLtHandle_t handle, const plan *p, int wanted,
                       cublasLtMatmulHeuristicResult_t *results, int *count) {
  cublasLtMatmulPreference_t preference = NULL;
  *count = 0;
  BLAS_TRY(cublasLtMatmulPreferenceCreate, &preference);
  dlua_status status = prefer(k, preference);
  if (status == DLUA_OK)
    status =
        BLAS_STATUS(cublasLtMatmulAlgoGetHeuristic, handle, p->call, p->layout[Y], p->layout[X],
                    p->layout[OUT], p->layout[OUT], preference, wanted, results, count);
  dlua_cuda_calls_table.cublasLtMatmulPreferenceDestroy(preference);
  return status;
}

// Whether an algorithm may leave the last products of a sum out. cuBLASLt 12.8 to 13.1 were seen to, on
// Hopper and Blackwell, where k is cut into parts of equally many whole blocks, and there are more
// parts than products behind the last of them. How long its blocks are an algorithm does not say.
static bool drops_tail(int64_t k, int32_t parts) {
  for (int64_t block = 16; parts > 1 && block <= 256; block *= 2)
    if (k % block != 0 && k / block % parts == 0 && parts > k % block) return true;
  return false;
}

// The same without those that cannot be used, of at most `wanted`.
static dlua_status find_candidates(const plan_key *k, cublasLtHandle_t handle, const plan *p,
                                   int wanted, cublasLtMatmulHeuristicResult_t *results,
                                   int *found) {
  int count;
  *found = 0;
  DLUA_TRY(ask(k, handle, p, wanted, results, &count));
  for (int i = 0; i < count; i++) {
    int32_t parts = 1;
    size_t written;
    if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
    BLAS_TRY(cublasLtMatmulAlgoConfigGetAttribute, &results[i].algo,
             CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, &written);
    if (!drops_tail(k->k, parts)) results[(*found)++] = results[i];
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- running

static dlua_status run_plan(const dlua_args *a, const dlua_product *p, const beside *e,
                            const plan *l) {
  float one = 1, zero = 0;
  double wide_one = 1, wide_zero = 0;
  bool wide = p->dtype == DLUA_F64;
  cublasLtHandle_t handle;
  void *queue, *workspace = NULL;
  DLUA_TRY(dlua_gpu_blas(a->device->index, &handle));
  DLUA_TRY(dlua_gpu_queue(a->device->index, &queue));
  DLUA_TRY(set_beside(l, e));
  if (l->workspace) DLUA_TRY(dlua_alloc(a->device, l->workspace, &workspace));
  dlua_status status = BLAS_STATUS(
      cublasLtMatmul, handle, l->call, wide ? (void *)&wide_one : &one, p->y, l->layout[Y], p->x,
      l->layout[X], wide ? (void *)&wide_zero : &zero, p->out, l->layout[OUT], p->out,
      l->layout[OUT], &l->algorithm, workspace, l->workspace, queue);
  if (workspace) dlua_free(a->device, workspace, l->workspace);
  return status;
}

typedef struct race {
  const dlua_args *call;
  const dlua_product *product;
  const beside *beside;
  plan *plan;
  const cublasLtMatmulHeuristicResult_t *results;
} race;

static void choose(plan *p, const cublasLtMatmulHeuristicResult_t *result) {
  p->taken = true, p->algorithm = result->algo, p->workspace = result->workspaceSize;
}

static dlua_status run_candidate(void *context, int candidate) {
  race *r = context;
  choose(r->plan, &r->results[candidate]);
  return run_plan(r->call, r->product, r->beside, r->plan);
}

static dlua_status make_plan(const dlua_args *a, const dlua_product *p, const beside *e,
                             const plan_key *k, plan *made) {
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  int found, fastest = 0, wanted = k->tune ? CANDIDATES : 1;
  cublasLtHandle_t handle;
  DLUA_TRY(dlua_gpu_blas(a->device->index, &handle));
  DLUA_TRY(make_descriptors(k, e, made));
  DLUA_TRY(find_candidates(k, handle, made, wanted, results, &found));
  if (found == 0) DLUA_TRY(find_candidates(k, handle, made, CANDIDATES, results, &found));
  if (found == 0) return DLUA_DECLINED;
  race r = {a, p, e, made, results};
  if (found > 1 && k->tune)
    DLUA_TRY(dlua_gpu_fastest(a->device->index, found, run_candidate, &r, &fastest));
  choose(made, &results[fastest]);
  return DLUA_OK;
}

static dlua_status find_plan(const dlua_args *a, const dlua_product *p, const beside *e,
                             const plan_key *k, plan **found) {
  *found = dlua_plans_find(&plans, k);
  if (*found) return DLUA_OK;
  plan made = {0};
  dlua_status status = make_plan(a, p, e, k, &made);
  if (status == DLUA_DECLINED)
    made.taken = false; // kept all the same: it is asked once
  else if (status != DLUA_OK)
    return drop_plan(&made), status;
  return dlua_plans_add(&plans, k, &made, (void **)found);
}

// One call of the library; DLUA_DECLINED where it does not do this.
static dlua_status run_library(const dlua_args *a, const dlua_product *p, const beside *e,
                               plan_key *k) {
  plan *l;
  const void *operand[] = {[X] = p->x, [Y] = p->y, [OUT] = p->out, e->bias, e->aux};
  for (int i = 0; i < OPERANDS + 2; i++) k->alignment[i] = dlua_alignment(operand[i]);
  for (k->small = 0; k->small < 2; k->small++) {
    dlua_status status = find_plan(a, p, e, k, &l);
    if (status == DLUA_OK && !l->taken) return DLUA_DECLINED;
    if (status == DLUA_OK && e->slope)
      status = dlua_gpu_slope_bits(a, e->slope, p->n, e->aux_ld, e->aux);
    if (status == DLUA_OK) status = run_plan(a, p, e, l);
    if (status == DLUA_DECLINED) l->taken = false;           // whatever the heuristic said
    if (status != DLUA_NO_MEMORY || k->small) return status; // else again without a workspace
  }
  return DLUA_OK;
}

static plan_key key_of(const dlua_args *a, const dlua_product *p, const matrix *x, const matrix *y,
                       const beside *e) {
  plan_key k;
  int last = p->ndim - 1;
  memset(&k, 0, sizeof k);
  k.m = p->m, k.n = p->n, k.k = p->k, k.batch = last < 0 ? 1 : (int32_t)p->size[last];
  k.ld[X] = x->ld, k.ld[Y] = y->ld, k.turned[X] = x->turned, k.turned[Y] = y->turned;
  k.aux_ld = e->aux_ld;
  for (int i = 0; i < OPERANDS; i++) k.step[i] = last < 0 ? 0 : p->stride[i][last];
  k.device = a->device->index, k.dtype = p->dtype;
  k.tf32 = p->dtype == DLUA_F32 && dlua_gpu_host->tf32(), k.tune = dlua_gpu_host->autotune();
  return k;
}

// All products of a merged batch, one call of the library per step of the outer dimensions. Where it
// declines one of them, the caller does all of them again.
static dlua_status run_batch(const dlua_args *a, const dlua_product *p, const beside *e,
                             plan_key *k) {
  int64_t width = (int64_t)dlua_dtype_size((dlua_dtype)p->dtype), count = launches(p);
  for (int64_t number = 0; number < count; number++) {
    dlua_product one = *p;
    int64_t offset[OPERANDS] = {0}, rest = number;
    for (int d = p->ndim - 2; d >= 0; d--) {
      for (int i = 0; i < OPERANDS; i++) offset[i] += rest % p->size[d] * p->stride[i][d];
      rest /= p->size[d];
    }
    one.x = (const char *)p->x + offset[X] * width;
    one.y = (const char *)p->y + offset[Y] * width;
    one.out = (char *)p->out + offset[OUT] * width;
    dlua_status status = run_library(a, &one, e, k);
    if (status != DLUA_OK) return status;
  }
  return DLUA_OK;
}

static bool library_takes(const dlua_product *p) {
  int64_t batch = p->ndim ? p->size[p->ndim - 1] : 1;
  return dlua_is_float((dlua_dtype)p->dtype) && p->k > 0 && p->m <= INT32_MAX &&
         p->n <= INT32_MAX && p->k <= INT32_MAX && batch <= INT32_MAX;
}

// ---------------------------------------------------------------- ops

static dlua_product merged(const dlua_args *a, const dlua_operands *o) {
  dlua_product p = product_of(a, o->x, o->y, o->turned, o->bias);
  merge_rows(&p);
  merge_batch(&p);
  return p;
}

static bool matrices_of(const dlua_product *p, matrix *x, matrix *y) {
  bool fits_y = matrix_of(p->n, p->k, p->yj, p->yk, y);
  return matrix_of(p->k, p->m, p->xk, p->xi, x) && fits_y;
}

// Bits of a row of relu's slope, which the library wants in whole packs of 128.
static int64_t row_of_bits(int64_t n) { return (n + 127) / 128 * 128; }

static bool is_slope(uint32_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_DRELU || epilogue == CUBLASLT_EPILOGUE_DGELU;
}

// The library's rules for what an epilogue has besides a bias: whole packs of 8 elements, x turned
// where its rows are summed, more than one product to a sum where a slope follows (NVIDIA's own
// nvmath-python refuses k = 1 there) and, here, no batch.
static bool takes_beside(const dlua_product *p, const dlua_operands *o, const matrix *x,
                         const beside *e) {
  if (o->sums && !x->turned) return false;
  if (is_slope(o->epilogue) && p->k == 1) return false;
  if (e->aux && (e->aux_ld % 8 != 0 || dlua_alignment(e->aux) < 16)) return false;
  return p->ndim == 0 || (!o->sums && !e->aux);
}

// Copies what the library cannot read in place: row-major operands and a packed bias always fit.
static dlua_status pack(const dlua_args *a, dlua_operands *o, const dlua_product *p,
                        dlua_packed packed[OPERANDS]) {
  matrix m;
  const dlua_tensor **operand[OPERANDS] = {&o->x, &o->y, &o->bias};
  bool many = launches(p) > MOST_LAUNCHES;
  bool copied[OPERANDS] = {many || !matrix_of(p->k, p->m, p->xk, p->xi, &m),
                           many || !matrix_of(p->n, p->k, p->yj, p->yk, &m),
                           o->bias && p->bj != 1 && p->n > 1};
  for (int i = 0; i < OPERANDS; i++) {
    if (!copied[i] || dlua_is_contiguous(*operand[i])) continue;
    DLUA_TRY(dlua_packed_copy(a, *operand[i], NULL, &packed[i]));
    *operand[i] = &packed[i].tensor;
  }
  return DLUA_OK;
}

static dlua_status multiply_packed(const dlua_args *a, dlua_operands *o, void *bits,
                                   dlua_packed packed[OPERANDS]) {
  matrix x, y;
  dlua_product p = merged(a, o);
  DLUA_TRY(pack(a, o, &p, packed));
  p = merged(a, o);
  if (!matrices_of(&p, &x, &y)) return DLUA_DECLINED;
  beside e = {(void *)p.bias, bits, bits ? row_of_bits(p.n) : 0, o->slope};
  if (o->sums) e.bias = dlua_data(o->sums);
  if (o->aux) e.aux = dlua_data(o->aux), e.aux_ld = p.n;
  if (!takes_beside(&p, o, &x, &e)) return DLUA_DECLINED;
  plan_key key = key_of(a, &p, &x, &y, &e);
  key.epilogue = o->epilogue | (p.bias ? CUBLASLT_EPILOGUE_BIAS : 0);
  if (key.epilogue == 0) key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  return run_batch(a, &p, &e, &key);
}

dlua_status dlua_gpu_by_library(const dlua_args *a, dlua_operands o) {
  dlua_product p = merged(a, &o);
  if (!library_takes(&p)) return DLUA_DECLINED;
  dlua_packed packed[OPERANDS] = {0};
  size_t bytes = o.slope ? (size_t)(dlua_numel(a->out[0]) / p.n * row_of_bits(p.n) / 8) : 0;
  void *bits = NULL;
  if (bytes) DLUA_TRY(dlua_alloc(a->device, bytes, &bits));
  dlua_status status = multiply_packed(a, &o, bits, packed);
  for (int i = 0; i < OPERANDS; i++) dlua_packed_release(a, &packed[i]);
  if (bytes) dlua_free(a->device, bits, bytes);
  return status;
}

dlua_status dlua_gpu_pass(const dlua_args *a, dlua_kernel *f, const dlua_tensor *x,
                          const dlua_tensor *y, int k) {
  dlua_args call = *a;
  call.in = call.slots, call.in[0] = (dlua_tensor *)x, call.in[1] = (dlua_tensor *)y;
  call.nin = y ? 2 : 1, call.out[0] = a->out[k], call.nout = 1;
  return f(&call);
}

dlua_kernel dlua_gpu_add;

// A bias that the library has no kernel for is rather added afterwards than that the whole product is
// left to kernels/matmul.cu, which knows no tensor cores.
dlua_status dlua_gpu_multiply(const dlua_args *a, dlua_operands o) {
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  dlua_status status = dlua_gpu_by_library(a, o);
  if (status == DLUA_DECLINED && o.bias) {
    dlua_operands bare = o;
    bare.bias = NULL;
    status = dlua_gpu_by_library(a, bare);
    if (status == DLUA_OK) return dlua_gpu_pass(a, dlua_gpu_add, a->out[0], o.bias, 0);
  }
  if (status != DLUA_DECLINED) return status;
  dlua_product p = merged(a, &o);
  return dlua_gpu_tiled_product(a, &p);
}

dlua_kernel dlua_gpu_matmul, dlua_gpu_bmm, dlua_gpu_dot;

dlua_status dlua_gpu_matmul(const dlua_args *a) {
  return dlua_gpu_multiply(a, (dlua_operands){.x = a->in[0], .y = a->in[1]});
}
dlua_status dlua_gpu_bmm(const dlua_args *a) { return dlua_gpu_matmul(a); }
dlua_status dlua_gpu_dot(const dlua_args *a) { return dlua_gpu_matmul(a); }
