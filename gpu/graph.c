// graph.c - descriptors of cuDNN's backend. A builder makes them, remembers the first failure, and in
// the end destroys them all, so that a graph reads as a list of what it is made of.
//
// Which engines may run: none that sums in an order of chance, rounds f32 inputs to a shorter type
// or sums in one; for f32 none on the tensor cores, which would be TF32, unless the script switched
// that on; Winograd's algorithm as the switch for it says.
#include "graph.h"

enum { MOST_MADE = 64, MOST_CONFIGS = 16 };

typedef cudnnBackendDescriptor_t descriptor;

typedef struct builder {
  dlua_status status;
  int count;
  descriptor made[MOST_MADE];
} builder;

// ---------------------------------------------------------------- descriptors

static descriptor make(builder *b, cudnnBackendDescriptorType_t type) {
  descriptor made = NULL;
  if (b->status != DLUA_OK) return NULL;
  if (b->count == MOST_MADE) {
    b->status = dlua_fail(DLUA_BAD_DEVICE, "too many descriptors in a graph");
    return NULL;
  }
  b->status = DNN_STATUS(cudnnBackendCreateDescriptor, type, &made);
  if (made) b->made[b->count++] = made;
  return made;
}

static void set(builder *b, descriptor d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values) {
  if (b->status != DLUA_OK) return;
  b->status = DNN_STATUS(cudnnBackendSetAttribute, d, name, type, count, values);
}

static void finish(builder *b, descriptor d) {
  if (b->status != DLUA_OK) return;
  b->status = DNN_STATUS(cudnnBackendFinalize, d);
}

static void set_numbers(builder *b, descriptor d, cudnnBackendAttributeName_t name, int64_t count,
                        const int64_t *values) {
  set(b, d, name, CUDNN_TYPE_INT64, count, values);
}

static void set_descriptor(builder *b, descriptor d, cudnnBackendAttributeName_t name,
                           descriptor value) {
  set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void destroy(descriptor d) {
  if (d) dlua_cuda_calls_table.cudnnBackendDestroyDescriptor(d);
}

static void destroy_all(builder *b) {
  while (b->count > 0) destroy(b->made[--b->count]);
}

// ---------------------------------------------------------------- the operation

// Strides of a {n,c,h,w} without gaps, row-major or with the channels innermost.
static void strides_of(const int64_t size[4], bool channels_last, int64_t stride[4]) {
  static const int order[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
  int64_t step = 1;
  for (int k = 3; k >= 0; k--) {
    int d = order[channels_last][k];
    stride[d] = step, step *= size[d];
  }
}

static cudnnDataType_t type_of(uint8_t dtype) {
  return dtype == DLUA_BF16  ? CUDNN_DATA_BFLOAT16
         : dtype == DLUA_F16 ? CUDNN_DATA_HALF
                             : CUDNN_DATA_FLOAT;
}

// Operands have the ids 1, 2, …; the sum before the bias is added comes after them.
enum { SUM_ID = DLUA_CONV_OPERANDS + 1 };

static descriptor open_tensor(builder *b, const dlua_graph_case *c, const int64_t size[4],
                              cudnnDataType_t type, int64_t id, int64_t alignment) {
  int64_t stride[4];
  descriptor d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  strides_of(size, c->channels_last, stride);
  set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  set_numbers(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, size);
  set_numbers(b, d, CUDNN_ATTR_TENSOR_STRIDES, 4, stride);
  set_numbers(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &id);
  set_numbers(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, &alignment);
  return d;
}

static descriptor make_tensor(builder *b, const dlua_graph_case *c, int which) {
  const int64_t bias[4] = {1, c->size[DLUA_CONV_Y][1], 1, 1};
  descriptor d = open_tensor(b, c, which == DLUA_CONV_BIAS ? bias : c->size[which],
                             type_of(c->dtype), which + 1, c->alignment[which]);
  finish(b, d);
  return d;
}

// What goes from the convolution to the addition in registers, in f32.
static descriptor make_sum(builder *b, const dlua_graph_case *c) {
  bool is_virtual = true;
  descriptor d = open_tensor(b, c, c->size[DLUA_CONV_Y], CUDNN_DATA_FLOAT, SUM_ID, 16);
  set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  finish(b, d);
  return d;
}

static descriptor make_convolution(builder *b, const dlua_graph_case *c) {
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  int64_t dims = 2;
  descriptor d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  set_numbers(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, &dims);
  set_numbers(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, dims, c->padding);
  set_numbers(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, dims, c->padding);
  set_numbers(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, dims, c->stride);
  set_numbers(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, dims, c->dilation);
  finish(b, d);
  return d;
}

// What the three directions call the same things.
static const struct direction {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t tensor[DLUA_CONV_TENSORS], convolution, alpha, beta;
} directions[] = {
    [DLUA_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                      {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [DLUA_INPUT_GRAD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [DLUA_WEIGHT_GRAD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                          {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};

static descriptor make_operation(builder *b, const dlua_graph_case *c,
                                 const descriptor tensor[DLUA_CONV_TENSORS]) {
  const struct direction *names = &directions[c->direction];
  float one = 1, zero = 0;
  descriptor convolution = make_convolution(b, c);
  descriptor d = make(b, names->type);
  for (int i = 0; i < DLUA_CONV_TENSORS; i++) set_descriptor(b, d, names->tensor[i], tensor[i]);
  set_descriptor(b, d, names->convolution, convolution);
  set(b, d, names->alpha, CUDNN_TYPE_FLOAT, 1, &one);
  set(b, d, names->beta, CUDNN_TYPE_FLOAT, 1, &zero);
  finish(b, d);
  return d;
}

// y = sum + bias, rounded once.
static descriptor make_addition(builder *b, const dlua_graph_case *c, descriptor sum,
                                descriptor y) {
  cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  descriptor bias = make_tensor(b, c, DLUA_CONV_BIAS);
  descriptor addition = make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set(b, addition, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  set(b, addition, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  finish(b, addition);
  descriptor d = make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, addition);
  set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, sum);
  set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, bias);
  set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  finish(b, d);
  return d;
}

static descriptor make_graph(builder *b, const dlua_graph_case *c, cudnnHandle_t handle) {
  descriptor tensor[DLUA_CONV_TENSORS], operation[2];
  for (int i = 0; i < DLUA_CONV_TENSORS; i++) tensor[i] = make_tensor(b, c, i);
  if (c->bias) {
    descriptor y = tensor[DLUA_CONV_Y], sum = make_sum(b, c);
    tensor[DLUA_CONV_Y] = sum;
    operation[1] = make_addition(b, c, sum, y);
  }
  operation[0] = make_operation(b, c, tensor);
  descriptor d = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  set(b, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, c->bias ? 2 : 1,
      operation);
  set(b, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  finish(b, d);
  return d;
}

// ---------------------------------------------------------------- engines

// The engine configurations that a heuristic suggests; 0 of them where it has none.
static int suggest(builder *b, descriptor graph, cudnnBackendHeurMode_t mode,
                   descriptor configs[MOST_CONFIGS]) {
  int64_t found = 0;
  descriptor d = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  set_descriptor(b, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  set(b, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  finish(b, d);
  for (int k = 0; k < MOST_CONFIGS; k++) configs[k] = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  if (b->status == DLUA_OK) {
    b->status = DNN_STATUS(cudnnBackendGetAttribute, d, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                           CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_CONFIGS, &found, configs);
  }
  if (b->status == DLUA_DECLINED) b->status = DLUA_OK, found = 0;
  return b->status != DLUA_OK ? 0 : found < MOST_CONFIGS ? (int)found : MOST_CONFIGS;
}

static bool allowed(const dlua_graph_case *c, cudnnBackendNumericalNote_t mark) {
  bool single = c->dtype == DLUA_F32;
  switch (mark) {
  case CUDNN_NUMERICAL_NOTE_TENSOR_CORE: return !single || c->tf32;
  case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
  case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
  case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC: return false;
  case CUDNN_NUMERICAL_NOTE_WINOGRAD:
  case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
  case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
  case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13: return c->winograd;
  default: return true;
  }
}

// Whether the engine of a configuration computes as precisely as asked.
static bool precise(builder *b, const dlua_graph_case *c, descriptor config) {
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t count = 0, one = 0;
  descriptor engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  if (b->status != DLUA_OK) return false;
  b->status = DNN_STATUS(cudnnBackendGetAttribute, config, CUDNN_ATTR_ENGINECFG_ENGINE,
                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one, &engine);
  if (b->status != DLUA_OK) return false;
  b->status = DNN_STATUS(cudnnBackendGetAttribute, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                         CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes);
  if (b->status != DLUA_OK) return false;
  for (int64_t k = 0; k < count && k < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; k++)
    if (!allowed(c, notes[k])) return false;
  return true;
}

// Takes a configuration out of what the builder destroys.
static void keep(builder *b, descriptor config) {
  for (int k = 0; k < b->count; k++)
    if (b->made[k] == config) b->made[k] = NULL;
}

// A plan for one configuration; DLUA_DECLINED where the engine turns out not to do it, or wants a larger
// workspace. Memory that is out now says nothing about the engine.
static dlua_status make_plan(const dlua_graph_case *c, cudnnHandle_t handle, descriptor config,
                             dlua_graph_plan *plan) {
  builder b = {.status = DLUA_OK};
  int64_t bytes = 0, one = 0;
  descriptor d = make(&b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  set_descriptor(&b, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  set(&b, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  finish(&b, d);
  if (b.status == DLUA_OK) {
    b.status = DNN_STATUS(cudnnBackendGetAttribute, d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                          CUDNN_TYPE_INT64, 1, &one, &bytes);
  }
  bool fits = b.status == DLUA_OK && (uint64_t)bytes <= c->workspace;
  if (!fits) {
    destroy_all(&b);
    return b.status == DLUA_NO_MEMORY ? b.status : DLUA_DECLINED;
  }
  *plan = (dlua_graph_plan){.config = config, .plan = d, .workspace = (size_t)bytes};
  return DLUA_OK;
}

// Plans of one heuristic's suggestions, after those that are there already.
static dlua_status add_plans(const dlua_graph_case *c, cudnnHandle_t handle,
                             cudnnBackendHeurMode_t mode, int wanted, dlua_graph_plan *plans,
                             int *count) {
  builder b = {.status = DLUA_OK};
  descriptor configs[MOST_CONFIGS];
  descriptor graph = make_graph(&b, c, handle);
  int found = suggest(&b, graph, mode, configs);
  for (int k = 0; k < found && *count < wanted; k++) {
    if (!precise(&b, c, configs[k])) continue;
    dlua_status status = make_plan(c, handle, configs[k], &plans[*count]);
    if (status == DLUA_NO_MEMORY) b.status = status;
    if (status != DLUA_OK) continue;
    keep(&b, configs[k]);
    ++*count;
  }
  destroy_all(&b);
  return b.status == DLUA_DECLINED ? DLUA_OK : b.status;
}

dlua_status dlua_graph_plans(const dlua_graph_case *c, int wanted, dlua_graph_plan *plans,
                             int *count) {
  static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  cudnnHandle_t handle;
  *count = 0;
  DLUA_TRY(dlua_gpu_dnn(c->device, &handle));
  for (int k = 0; k < 2 && *count == 0; k++) {
    dlua_status status = add_plans(c, handle, modes[k], wanted, plans, count);
    if (status == DLUA_OK) continue;
    while (*count > 0) dlua_graph_drop(&plans[--*count]);
    return status;
  }
  return DLUA_OK;
}

void dlua_graph_drop(dlua_graph_plan *plan) {
  destroy(plan->plan);
  destroy(plan->config);
  *plan = (dlua_graph_plan){0};
}

// ---------------------------------------------------------------- running

dlua_status dlua_graph_run(int device, const dlua_graph_plan *plan,
                           void *const data[DLUA_CONV_OPERANDS], void *workspace) {
  static const int64_t ids[DLUA_CONV_OPERANDS] = {1, 2, 3, 4}; // which + 1
  int64_t count = data[DLUA_CONV_BIAS] ? DLUA_CONV_OPERANDS : DLUA_CONV_TENSORS;
  cudnnHandle_t handle;
  builder b = {.status = DLUA_OK};
  DLUA_TRY(dlua_gpu_dnn(device, &handle));
  descriptor d = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  set(&b, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, data);
  set_numbers(&b, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, count, ids);
  set(&b, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  finish(&b, d);
  if (b.status == DLUA_OK) {
    b.status = DNN_STATUS(cudnnBackendExecute, handle, plan->plan, d);
  }
  destroy_all(&b);
  return b.status;
}
