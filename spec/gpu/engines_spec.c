// What the real cuDNN says about the module's convolutions, on a machine without a GPU: the library
// finds engines, and makes their plans, for a GPU that is only described to it. Descriptors that it
// would refuse, combinations without an engine and engines that compute less precisely than asked all
// show here; what the plans compute does not.
#include <stdlib.h>

#include "../../gpu/graph.h"
#include "../c/check.h"

enum { MOST_PLANS = 8 };

// ---------------------------------------------------------------- a GPU that is not there

// Of NVIDIA's tables for compute capabilities, in the names of cuDNN's JSON.
typedef struct gpu {
  const char *name;
  int generation, processors, shared_memory, blocks, threads;
  long l2, memory;
} gpu;

static const gpu gpus[] = {
    {"NVIDIA A100", 800, 108, 166912, 32, 2048, 40L << 20, 80L << 30},
    {"NVIDIA H200", 900, 132, 232448, 32, 2048, 60L << 20, 139L << 30},
    {"NVIDIA B200", 1000, 148, 232448, 32, 2048, 126L << 20, 179L << 30},
    {"NVIDIA GeForce RTX 5090", 1200, 170, 101376, 24, 1536, 96L << 20, 31L << 30}};

static cudnnBackendDescriptor_t described; // the GPU that engines are asked for

static bool describe(const gpu *g) {
  char text[1024];
  int length = snprintf(
      text, sizeof text,
      "{\"deviceName\":\"%s\",\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,"
      "\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,\"warpSize\":32,"
      "\"multiProcessorCount\":%d,\"maxSharedMemoryPerBlock\":49152,"
      "\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,"
      "\"regsPerBlock\":65536,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":%d,"
      "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"maxBlockSize\":[1024,1024,64],"
      "\"maxGridSize\":[2147483647,65535,65535],\"l2CacheSize\":%ld,\"totalGlobalMem\":%ld,"
      "\"smClockRateKHz\":1980000,\"memClockRateKHz\":3201000}",
      g->name, g->generation, g->processors, g->shared_memory, g->blocks, g->threads, g->l2,
      g->memory);
  return cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &described) ==
             CUDNN_STATUS_SUCCESS &&
         cudnnBackendSetAttribute(described, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                  CUDNN_TYPE_CHAR, length, text) == CUDNN_STATUS_SUCCESS &&
         cudnnBackendFinalize(described) == CUDNN_STATUS_SUCCESS;
}

// The description where graph.c gives the handle of a GPU.
static cudnnStatus_t set_attribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                   cudnnBackendAttributeType_t type, int64_t count,
                                   const void *values) {
  const cudnnBackendAttributeType_t descriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
  if (name == CUDNN_ATTR_OPERATIONGRAPH_HANDLE) return status;
  if (name == CUDNN_ATTR_EXECUTION_PLAN_HANDLE) {
    return cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, descriptor, 1,
                                    &described);
  }
  if (name == CUDNN_ATTR_ENGINEHEUR_MODE) {
    status =
        cudnnBackendSetAttribute(d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, descriptor, 1, &described);
  }
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return cudnnBackendSetAttribute(d, name, type, count, values);
}

static cudaError_t no_error(void) { return cudaSuccess; }

const dlua_cuda_calls dlua_cuda_calls_table = {
    .cudaGetLastError = no_error,
    .cudnnBackendCreateDescriptor = cudnnBackendCreateDescriptor,
    .cudnnBackendDestroyDescriptor = cudnnBackendDestroyDescriptor,
    .cudnnBackendFinalize = cudnnBackendFinalize,
    .cudnnBackendGetAttribute = cudnnBackendGetAttribute,
    .cudnnBackendSetAttribute = set_attribute,
    .cudnnGetErrorString = cudnnGetErrorString};

bool dlua_gpu_reclaim(void) { return false; }

dlua_status dlua_gpu_dnn(int index, cudnnHandle_t *handle) {
  (void)index;
  *handle = NULL;
  return DLUA_OK;
}

// ---------------------------------------------------------------- convolutions

typedef struct geometry {
  int64_t n, c, h, w, o, kh, kw, stride, padding, dilation, groups;
} geometry;

// Layers of the networks that are measured, and shapes that libraries are seldom asked for.
static const geometry known[] = {
    {128, 3, 32, 32, 32, 3, 3, 1, 1, 1, 1},     {128, 64, 16, 16, 128, 3, 3, 1, 1, 1, 1},
    {128, 3, 32, 32, 6, 5, 5, 1, 0, 1, 1},      {128, 6, 14, 14, 16, 5, 5, 1, 0, 1, 1},
    {1024, 3, 32, 32, 24, 2, 2, 1, 0, 1, 1},    {1024, 24, 31, 31, 64, 3, 3, 1, 1, 1, 1},
    {1024, 256, 15, 15, 256, 3, 3, 1, 1, 1, 1}, {128, 16, 32, 32, 32, 3, 3, 2, 1, 1, 1},
    {128, 16, 32, 32, 32, 1, 1, 2, 0, 1, 1},    {32, 64, 16, 16, 64, 3, 3, 1, 1, 1, 4},
    {32, 64, 16, 16, 64, 3, 3, 1, 1, 1, 64},    {16, 3, 224, 224, 64, 7, 7, 2, 3, 1, 1},
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1},          {60000, 1, 28, 28, 2, 5, 5, 1, 2, 1, 1},
    {2, 5, 9, 200, 7, 4, 1, 3, 2, 1, 1},        {3, 6, 17, 13, 9, 3, 3, 2, 4, 3, 3}};

static uint32_t state = 1;

static int below(int n) {
  state = state * 1664525u + 1013904223u;
  return (int)((state >> 8) % (uint32_t)n);
}

static geometry any_geometry(void) {
  geometry g = {.groups = 1 << below(3), .stride = 1 + below(3), .padding = below(4)};
  g.n = 1 + below(below(2) ? 4 : 256);
  g.c = g.groups * (1 + below(below(2) ? 8 : 100)),
  g.o = g.groups * (1 + below(below(2) ? 8 : 100));
  g.dilation = 1 + below(3), g.kh = 1 + below(5), g.kw = 1 + below(5);
  int64_t least_h = g.dilation * (g.kh - 1) + 1 - 2 * g.padding;
  int64_t least_w = g.dilation * (g.kw - 1) + 1 - 2 * g.padding;
  g.h = (least_h > 1 ? least_h : 1) + below(40), g.w = (least_w > 1 ? least_w : 1) + below(40);
  return g;
}

static int64_t result_size(int64_t size, int64_t kernel, const geometry *g) {
  return (size + 2 * g->padding - g->dilation * (kernel - 1) - 1) / g->stride + 1;
}

static dlua_graph_case case_of(const geometry *g, dlua_dtype dtype, dlua_direction direction) {
  dlua_graph_case c;
  memset(&c, 0, sizeof c);
  const int64_t size[DLUA_CONV_TENSORS][4] = {
      {g->n, g->c, g->h, g->w},
      {g->o, g->c / g->groups, g->kh, g->kw},
      {g->n, g->o, result_size(g->h, g->kh, g), result_size(g->w, g->kw, g)}};
  memcpy(c.size, size, sizeof size);
  for (int k = 0; k < 2; k++)
    c.stride[k] = g->stride, c.padding[k] = g->padding, c.dilation[k] = g->dilation;
  for (int k = 0; k < DLUA_CONV_OPERANDS; k++) c.alignment[k] = 16;
  c.direction = (uint8_t)direction, c.dtype = (uint8_t)dtype, c.channels_last = dtype != DLUA_F32;
  c.workspace = 256 << 20, c.winograd = true, c.tune = true;
  return c;
}

static const char *text_of(const dlua_graph_case *c) {
  static const char *const directions[] = {"forward", "input gradient", "weight gradient"};
  static char text[300];
  const int64_t *x = c->size[DLUA_CONV_X], *w = c->size[DLUA_CONV_W];
  snprintf(text, sizeof text,
           "%s of %s {%ld,%ld,%ld,%ld} with {%ld,%ld,%ld,%ld}, stride %ld, padding %ld, dilation "
           "%ld, bias %d, tf32 %d, workspace %ld, alignment %u",
           directions[c->direction], dlua_dtype_name((dlua_dtype)c->dtype), x[0], x[1], x[2], x[3],
           w[0], w[1], w[2], w[3], c->stride[0], c->padding[0], c->dilation[0], c->bias, c->tf32,
           (long)c->workspace, c->alignment[0]);
  return text;
}

// ---------------------------------------------------------------- plans

// Which of cuDNN's numerical notes the engine of a plan has, a bit for each.
static unsigned notes_of(const dlua_graph_plan *plan) {
  cudnnBackendDescriptor_t engine;
  cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t count = 0, one = 0;
  unsigned bits = 0;
  CHECK(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) == 0);
  CHECK(cudnnBackendGetAttribute(plan->config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one, &engine) == 0);
  CHECK(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count,
                                 note) == 0);
  for (int64_t k = 0; k < count; k++) bits |= 1u << note[k];
  cudnnBackendDestroyDescriptor(engine);
  return bits;
}

static unsigned forbidden(const dlua_graph_case *c) {
  unsigned bits = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC |
                  1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS |
                  1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
  if (c->dtype == DLUA_F32 && !c->tf32) bits |= 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  if (!c->winograd) bits |= 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD;
  return bits;
}

// Asks for plans; all that the engines of them note.
static unsigned plan(const dlua_graph_case *c) {
  dlua_graph_plan plans[MOST_PLANS];
  int count = 0, wanted = c->tune ? MOST_PLANS : 1, before = failures;
  unsigned notes = 0;
  CHECK_OK(dlua_graph_plans(c, wanted, plans, &count));
  CHECK(count >= 1 && count <= wanted);
  for (int k = 0; k < count; k++) {
    CHECK(plans[k].workspace <= c->workspace);
    notes |= notes_of(&plans[k]);
    dlua_graph_drop(&plans[k]);
  }
  CHECK((notes & forbidden(c)) == 0);
  if (failures > before) printf("  %s\n", text_of(c));
  return notes;
}

static const dlua_dtype dtypes[] = {DLUA_F32, DLUA_BF16, DLUA_F16};

// Each direction and dtype, with all that a network varies.
static void plan_all(const geometry *g) {
  for (int d = 0; d < 3; d++) {
    for (int direction = DLUA_FORWARD; direction <= DLUA_WEIGHT_GRAD; direction++) {
      dlua_graph_case c = case_of(g, dtypes[d], (dlua_direction)direction);
      for (int bias = 0; bias <= (direction == DLUA_FORWARD); bias++) {
        c.bias = (uint8_t)bias;
        plan(&c);
        if (dtypes[d] != DLUA_F32) continue;
        c.tf32 = true;
        plan(&c);
        c.tf32 = false;
      }
    }
  }
}

// One call as a script may come to make it: views begin anywhere, memory is short.
static void plan_any(void) {
  geometry g = any_geometry();
  dlua_dtype dtype = dtypes[below(3)];
  dlua_graph_case c = case_of(&g, dtype, (dlua_direction)below(3));
  c.bias = c.direction == DLUA_FORWARD && below(2), c.tf32 = dtype == DLUA_F32 && below(2);
  c.winograd = below(2) != 0, c.tune = below(2) != 0;
  if (below(4) == 0) c.workspace = 0;
  for (int k = 0; k < DLUA_CONV_OPERANDS; k++)
    c.alignment[k] = (uint32_t)dlua_dtype_size(dtype) << below(dtype == DLUA_F32 ? 3 : 4);
  plan(&c);
}

SPEC(every_convolution_has_a_precise_engine) {
  for (size_t k = 0; k < sizeof known / sizeof *known; k++) plan_all(&known[k]);
  for (int k = 0; k < 300; k++) plan_any();
}

SPEC(switches_choose_among_engines) {
  dlua_graph_case c = case_of(&known[1], DLUA_F32, DLUA_FORWARD);
  const unsigned tensor_core = 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  CHECK(!(plan(&c) & tensor_core));
  c.tf32 = true;
  CHECK(plan(&c) & tensor_core);
  c = case_of(&known[1], DLUA_BF16, DLUA_FORWARD);
  CHECK(plan(&c) & tensor_core);
}

SPEC(a_convolution_that_does_not_fit_is_refused) {
  dlua_graph_plan plans[MOST_PLANS];
  int count = 0;
  dlua_graph_case c = case_of(&known[1], DLUA_F32, DLUA_FORWARD);
  c.size[DLUA_CONV_Y][2]++;
  CHECK_FAILS(dlua_graph_plans(&c, MOST_PLANS, plans, &count), "cudnnBackendFinalize");
  CHECK(count == 0);
}

int main(void) {
  for (size_t k = 0; k < sizeof gpus / sizeof *gpus; k++) {
    if (!CHECK(describe(&gpus[k]))) continue;
    printf("%s\n", gpus[k].name);
    RUN(every_convolution_has_a_precise_engine);
    RUN(switches_choose_among_engines);
    RUN(a_convolution_that_does_not_fit_is_refused);
    cudnnBackendDestroyDescriptor(described);
  }
  return finish();
}
