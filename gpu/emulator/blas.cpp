// blas.cpp - cuBLASLt on the CPU: descriptors hold what was set, a product is three loops. It is
// stricter than fast: an attribute of a wrong size, a leading dimension too small, an algorithm used
// for another product than the one it was found for, or an address less aligned than was promised,
// is refused as the library refuses it.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "faults.h"
#include "functions.h"
#include "numbers.h"
#include "streams.h"

using emulator::fault;

#define RETURN_FAULT(name) \
  if (int code = fault(#name)) return (cublasStatus_t)code

namespace {

struct Layout {
  int32_t type, order = CUBLASLT_ORDER_COL;
  uint64_t rows, columns;
  int64_t ld, step = 0;
  int32_t batch = 1;
};

struct Call {
  int32_t compute, scale, turned[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void *bias = nullptr;
  void *aux = nullptr;
  int64_t aux_ld = 0;
  bool adds_bias() const { return epilogue & CUBLASLT_EPILOGUE_BIAS; }
  // What follows the sums beside a bias that is added.
  uint32_t step() const {
    return epilogue == CUBLASLT_EPILOGUE_DEFAULT ? 0 : epilogue & ~CUBLASLT_EPILOGUE_BIAS;
  }
  bool has_aux() const { return epilogue & 128; }
};

struct Preference {
  uint64_t workspace = 0;
  uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment[4] = {256, 256, 256, 256}; // A B C D
};

// What cublasLtMatmulAlgo_t's 64 bytes hold: the product that an algorithm was found for, with how the
// operands, the bias and what lies beside were aligned.
struct Algorithm {
  uint64_t product, workspace;
  uint32_t alignment[6];
  int32_t parts; // of a sum
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

template <class T> cublasStatus_t set(T *attribute, const void *value, size_t size) {
  if (!value || size != sizeof *attribute) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy((void *)attribute, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

// One product: operands 0 and 1 are A and B, 2 and 3 are C and D.
struct Product {
  const Call *call;
  const Layout *layout[4];
  int64_t m, n, k;
};

bool known_types(const Product &p) {
  int32_t type = p.layout[3]->type, compute = p.call->compute;
  for (const Layout *l : p.layout)
    if (l->type != type) return false;
  if (type == CUDA_R_64F) return compute == CUBLAS_COMPUTE_64F && p.call->scale == CUDA_R_64F;
  if (p.call->scale != CUDA_R_32F) return false;
  if (type == CUDA_R_32F)
    return compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  return (type == CUDA_R_16BF || type == CUDA_R_16F) && compute == CUBLAS_COMPUTE_32F;
}

bool valid(const Layout &l) {
  bool columns = l.order == CUBLASLT_ORDER_COL;
  if (!columns && l.order != CUBLASLT_ORDER_ROW) return false;
  return l.rows > 0 && l.columns > 0 && l.batch > 0 && l.ld >= 0 && l.ld <= INT32_MAX &&
         (uint64_t)l.ld >= (columns ? l.rows : l.columns) && l.rows <= INT32_MAX &&
         l.columns <= INT32_MAX;
}

bool known_epilogue(const Call &call) {
  switch (call.epilogue) {
  case CUBLASLT_EPILOGUE_DEFAULT:
  case CUBLASLT_EPILOGUE_BIAS:
  case CUBLASLT_EPILOGUE_GELU_AUX:
  case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
  case CUBLASLT_EPILOGUE_DRELU:
  case CUBLASLT_EPILOGUE_DGELU:
  case CUBLASLT_EPILOGUE_BGRADB: return true;
  default: return false;
  }
}

// What lies beside the operands: a bias; the sums of B's columns, of a transposed B of more than one;
// what GELU is applied to, as whole packs of 8 elements, or ReLU's slope, as whole packs of 128 bits.
// There are no slopes of a product that adds nothing up, with k = 1. What an epilogue does not use must
// not be there.
cublasStatus_t check_epilogue(const Product &p) {
  const Call &call = *p.call;
  const Layout *d = p.layout[3];
  if (call.epilogue == CUBLASLT_EPILOGUE_DEFAULT)
    return call.bias || call.aux ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
  bool activates = call.step() != 0, sums = call.step() == CUBLASLT_EPILOGUE_BGRADB;
  if (!known_epilogue(call) || d->order == CUBLASLT_ORDER_ROW ||
      (activates && d->type == CUDA_R_64F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (sums && (call.turned[1] != CUBLAS_OP_T || p.n == 1)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if ((call.adds_bias() || sums) != (call.bias != nullptr)) return CUBLAS_STATUS_INVALID_VALUE;
  if (call.has_aux() != (call.aux != nullptr)) return CUBLAS_STATUS_INVALID_VALUE;
  if (sums && d->batch > 1) return CUBLAS_STATUS_INVALID_VALUE;
  if (!call.has_aux()) return CUBLAS_STATUS_SUCCESS;
  bool slope = call.step() == CUBLASLT_EPILOGUE_DRELU || call.step() == CUBLASLT_EPILOGUE_DGELU;
  if (slope && p.k == 1) return CUBLAS_STATUS_INVALID_VALUE;
  int64_t pack = call.step() == CUBLASLT_EPILOGUE_DRELU ? 128 : 8;
  bool fits = call.aux && (uintptr_t)call.aux % 16 == 0 && call.aux_ld % pack == 0 &&
              call.aux_ld >= (int64_t)d->rows && d->batch == 1;
  return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t check(Product *p) {
  const Layout *a = p->layout[0], *b = p->layout[1], *c = p->layout[2], *d = p->layout[3];
  bool ta = p->call->turned[0] == CUBLAS_OP_T, tb = p->call->turned[1] == CUBLAS_OP_T;
  for (const Layout *l : p->layout)
    if (!valid(*l) || l->batch != d->batch) return CUBLAS_STATUS_INVALID_VALUE;
  p->m = (int64_t)d->rows, p->n = (int64_t)d->columns;
  p->k = (int64_t)(ta ? a->rows : a->columns);
  bool fits = (ta ? a->columns : a->rows) == d->rows && (tb ? b->rows : b->columns) == d->columns &&
              (int64_t)(tb ? b->columns : b->rows) == p->k && c->rows == d->rows &&
              c->columns == d->columns && c->order == d->order;
  int64_t lines = d->order == CUBLASLT_ORDER_COL ? p->n : p->m;
  if (d->batch > 1 && d->step < d->ld * (lines - 1) + 1) fits = false; // results would overlap
  if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
  if (!known_types(*p)) return CUBLAS_STATUS_NOT_SUPPORTED;
  return check_epilogue(*p);
}

// A number for everything an algorithm may depend on.
uint64_t identity(const Product &p) {
  uint64_t hash = 0;
  auto mix = [&](uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
  };
  mix((uint64_t)p.call->compute), mix(p.call->epilogue), mix((uint64_t)p.call->aux_ld);
  mix((uint64_t)p.call->turned[0]), mix((uint64_t)p.call->turned[1]);
  for (const Layout *l : p.layout) {
    mix((uint64_t)l->type), mix((uint64_t)l->order), mix(l->rows), mix(l->columns);
    mix((uint64_t)l->ld), mix((uint64_t)l->step), mix((uint64_t)l->batch);
  }
  return hash;
}

double operand(const Product &p, int which, const void *data, int64_t batch, int64_t i, int64_t j) {
  const Layout *l = p.layout[which];
  if (which < 2 && p.call->turned[which] == CUBLAS_OP_T) std::swap(i, j);
  int64_t at = l->order == CUBLASLT_ORDER_COL ? j * l->ld + i : i * l->ld + j;
  double value = emulator::number_at((cudaDataType_t)l->type, data, batch * l->step + at);
  return p.call->compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? emulator::tf32(value) : value;
}

// The tanh form, the only one that the library has.
const double ROOT = 0.79788456080286535588, CUBIC = 0.044715;
double gelu_tanh(double x) { return std::tanh(ROOT * (x + CUBIC * x * x * x)); }
double gelu(double x) { return 0.5 * x * (1 + gelu_tanh(x)); }
double gelu_slope(double x) {
  double t = gelu_tanh(x);
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * CUBIC * x * x);
}

// What becomes of a sum on its way to row i, column j of D.
double through_epilogue(const Product &p, double sum, int64_t i, int64_t j) {
  const Call &call = *p.call;
  cudaDataType_t type = (cudaDataType_t)p.layout[3]->type;
  int64_t at = j * call.aux_ld + i;
  if (call.adds_bias()) sum += emulator::number_at(type, call.bias, i);
  switch (call.step()) {
  case CUBLASLT_EPILOGUE_GELU_AUX: emulator::put_number(type, call.aux, at, sum); return gelu(sum);
  case CUBLASLT_EPILOGUE_DRELU: return ((const uint8_t *)call.aux)[at / 8] >> at % 8 & 1 ? sum : 0;
  case CUBLASLT_EPILOGUE_DGELU: return sum * gelu_slope(emulator::number_at(type, call.aux, at));
  default: return sum;
  }
}

void sum_columns(const Product &p, const void *b) {
  for (int64_t j = 0; j < p.n; j++) {
    double sum = 0;
    for (int64_t q = 0; q < p.k; q++) sum += operand(p, 1, b, 0, q, j);
    emulator::put_number((cudaDataType_t)p.layout[3]->type, p.call->bias, j, sum);
  }
}

// How many of a sum's k products count. In parts of equally many whole blocks of 64 each, what is left
// behind them is forgotten where it is less than there are parts: an error of the library's.
int64_t summed(int64_t k, int32_t parts) {
  bool forgets = k / 64 % parts == 0 && parts > k % 64;
  return forgets ? k - k % 64 : k;
}

void multiply(const Product &p, int64_t k, double alpha, const void *a, const void *b, double beta,
              const void *c, void *d) {
  const Layout *l = p.layout[3];
  cudaDataType_t type = (cudaDataType_t)l->type;
  for (int64_t batch = 0; batch < l->batch; batch++) {
    for (int64_t i = 0; i < p.m; i++) {
      for (int64_t j = 0; j < p.n; j++) {
        double sum = 0;
        for (int64_t q = 0; q < k; q++)
          sum += operand(p, 0, a, batch, i, q) * operand(p, 1, b, batch, q, j);
        sum *= alpha;
        if (beta != 0) sum += beta * operand(p, 2, c, batch, i, j);
        sum = through_epilogue(p, sum, i, j);
        int64_t at = l->order == CUBLASLT_ORDER_COL ? j * l->ld + i : i * l->ld + j;
        emulator::put_number(type, d, batch * l->step + at, sum);
      }
    }
  }
  if (p.call->step() == CUBLASLT_EPILOGUE_BGRADB) sum_columns(p, b);
}

bool aligned(const void *p, uint32_t to) { return (uintptr_t)p % to == 0; }

// The largest power of two up to 16 that an address is a multiple of.
uint32_t alignment_of(const void *p) {
  uint32_t to = 16;
  while (!aligned(p, to)) to /= 2;
  return to;
}

} // namespace

namespace emulator {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  RETURN_FAULT(cublasLtCreate);
  int *device = new (std::nothrow) int(device_now());
  *handle = (cublasLtHandle_t)device;
  return device ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
  case CUBLAS_STATUS_EXECUTION_FAILED: return "the function failed to launch on the GPU";
  case CUBLAS_STATUS_INVALID_VALUE: return "an invalid value was given";
  case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality is not supported";
  default: return "an error of the emulator";
  }
}

// ---------------------------------------------------------------- descriptors

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld) {
  RETURN_FAULT(cublasLtMatrixLayoutCreate);
  Layout *l = new (std::nothrow) Layout;
  if (!l) return CUBLAS_STATUS_ALLOC_FAILED;
  l->type = type, l->rows = rows, l->columns = columns, l->ld = ld;
  *layout = (cublasLtMatrixLayout_t)l;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete (Layout *)layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size) {
  RETURN_FAULT(cublasLtMatrixLayoutSetAttribute);
  Layout *l = (Layout *)layout;
  switch (attribute) {
  case CUBLASLT_MATRIX_LAYOUT_ORDER: return set(&l->order, value, size);
  case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return set(&l->batch, value, size);
  case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return set(&l->step, value, size);
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *call, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  RETURN_FAULT(cublasLtMatmulDescCreate);
  Call *c = new (std::nothrow) Call;
  if (!c) return CUBLAS_STATUS_ALLOC_FAILED;
  c->compute = compute, c->scale = scale;
  *call = (cublasLtMatmulDesc_t)c;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t call) {
  delete (Call *)call;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t call,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size) {
  RETURN_FAULT(cublasLtMatmulDescSetAttribute);
  Call *c = (Call *)call;
  switch (attribute) {
  case CUBLASLT_MATMUL_DESC_TRANSA: return set(&c->turned[0], value, size);
  case CUBLASLT_MATMUL_DESC_TRANSB: return set(&c->turned[1], value, size);
  case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&c->epilogue, value, size);
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&c->bias, value, size);
  case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return set(&c->aux, value, size);
  case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return set(&c->aux_ld, value, size);
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  RETURN_FAULT(cublasLtMatmulPreferenceCreate);
  *preference = (cublasLtMatmulPreference_t) new (std::nothrow) Preference;
  return *preference ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete (Preference *)preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t size) {
  RETURN_FAULT(cublasLtMatmulPreferenceSetAttribute);
  Preference *p = (Preference *)preference;
  switch (attribute) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(&p->workspace, value, size);
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(&p->reduction, value, size);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(&p->alignment[0], value, size);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(&p->alignment[1], value, size);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(&p->alignment[2], value, size);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(&p->alignment[3], value, size);
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

// ---------------------------------------------------------------- products

// Three algorithms, the first with much workspace, and long sums in 16 parts.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t call,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *count) {
  RETURN_FAULT(cublasLtMatmulAlgoGetHeuristic);
  if (!handle || !call || !a || !b || !c || !d || wanted <= 0) return CUBLAS_STATUS_INVALID_VALUE;
  Product p = {(Call *)call, {(Layout *)a, (Layout *)b, (Layout *)c, (Layout *)d}, 0, 0, 0};
  const Preference *asked = (Preference *)preference;
  if (cublasStatus_t status = check(&p)) return status;
  for (*count = 0; *count < wanted && *count < 3; ++*count) {
    cublasLtMatmulHeuristicResult_t *r = &results[*count];
    bool first = *count == 0;
    Algorithm algorithm = {
        identity(p), first ? asked->workspace / 512 : 0, {}, first && p.k >= 512 ? 16 : 1};
    std::memcpy(algorithm.alignment, asked->alignment, sizeof asked->alignment);
    algorithm.alignment[4] = alignment_of(p.call->bias);
    algorithm.alignment[5] = alignment_of(p.call->aux);
    *r = cublasLtMatmulHeuristicResult_t();
    std::memcpy((void *)&r->algo, &algorithm, sizeof algorithm);
    r->workspaceSize = algorithm.workspace, r->state = CUBLAS_STATUS_SUCCESS, r->wavesCount = 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t size, size_t *written) {
  RETURN_FAULT(cublasLtMatmulAlgoConfigGetAttribute);
  Algorithm algorithm;
  if (attribute != CUBLASLT_ALGO_CONFIG_SPLITK_NUM || size != sizeof algorithm.parts)
    return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy((void *)&algorithm, algo, sizeof algorithm);
  std::memcpy(value, &algorithm.parts, size);
  *written = size;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t call, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b,
                              cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_size, cudaStream_t stream) {
  RETURN_FAULT(cublasLtMatmul);
  if (!handle || !call || !la || !lb || !lc || !ld || !alpha || !beta || !a || !b || !c || !d)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (device_of(stream) != *(int *)handle || device_now() != *(int *)handle)
    return CUBLAS_STATUS_INVALID_VALUE; // a handle is a device's
  Product p = {(Call *)call, {(Layout *)la, (Layout *)lb, (Layout *)lc, (Layout *)ld}, 0, 0, 0};
  if (cublasStatus_t status = check(&p)) return status;
  catch_up(stream);
  int width = size_of((cudaDataType_t)p.layout[3]->type);
  int32_t parts = 1;
  if (algo) {
    Algorithm algorithm;
    const void *operands[6] = {a, b, c, d, p.call->bias, p.call->aux};
    std::memcpy((void *)&algorithm, algo, sizeof algorithm);
    if (algorithm.product != identity(p)) return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace_size < algorithm.workspace || (workspace_size && !workspace))
      return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 6; i++)
      if (!aligned(operands[i], algorithm.alignment[i])) return CUBLAS_STATUS_INVALID_VALUE;
    parts = algorithm.parts;
  }
  if (workspace) {
    if (!aligned(workspace, 256)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memset(workspace, 0xff, workspace_size);
  }
  if (!aligned(a, width) || !aligned(b, width) || !aligned(d, width))
    return CUBLAS_STATUS_INVALID_VALUE;
  bool wide = p.call->scale == CUDA_R_64F;
  multiply(p, summed(p.k, parts), wide ? *(const double *)alpha : (double)*(const float *)alpha, a,
           b, wide ? *(const double *)beta : (double)*(const float *)beta, c, d);
  return CUBLAS_STATUS_SUCCESS;
}

} // namespace emulator
