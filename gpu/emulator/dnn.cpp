// dnn.cpp - cuDNN's backend on the CPU: descriptors hold the attributes that were set, checked against
// a table of what each kind takes, and what they say is resolved when they are finalized. A graph is a
// convolution, or a forward one and the addition of a bias to its result. There are four engines, of
// which a careful caller lets run only some; a convolution is plain loops.
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <vector>

#include "convolution.h"
#include "faults.h"
#include "functions.h"
#include "streams.h"

using emulator::Convolution;
using emulator::fault;

#define RETURN_FAULT(name) \
  if (int code = fault(#name)) return (cudnnStatus_t)code

namespace {

struct Value {
  std::vector<char> bytes;
  int64_t count;
};

enum Engine { TENSOR_CORES, UNORDERED, WITH_WORKSPACE, PLAIN, NO_ENGINE };

struct Descriptor {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<int, Value> values;
  Convolution convolution = {}; // of operations and all that is made of them
  emulator::Tensor sum = {};    // of additions: what the bias is added to
  Engine engine = NO_ENGINE;

  template <class T> T get(cudnnBackendAttributeName_t name, int k = 0) const {
    T value;
    std::memcpy(&value, values.at(name).bytes.data() + (size_t)k * sizeof value, sizeof value);
    return value;
  }
  int64_t count(cudnnBackendAttributeName_t name) const { return values.at(name).count; }
};

// ---------------------------------------------------------------- attributes

struct Rule {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t kind;
  int64_t most; // elements
  bool optional = false;
};

// Every one of them has to be set that is not optional.
const Rule rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 8},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 8},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, true},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
     1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
     CUDNN_TYPE_CONVOLUTION_MODE, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64,
     1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64,
     8},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64,
     8},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64,
     8},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 8},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 2},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE,
     1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
     1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
     CUDNN_TYPE_VOID_PTR, 64},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
     64},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
     1},
#define OPERATION(type, x, w, y, prefix) \
  {type, prefix##_##x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, \
      {type, prefix##_##w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, \
      {type, prefix##_##y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, \
      {type, prefix##_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, \
      {type, prefix##_ALPHA, CUDNN_TYPE_FLOAT, 1}, {type, prefix##_BETA, CUDNN_TYPE_FLOAT, 1},
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, X, W, Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD)
        OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, DX, W, DY,
                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA)
            OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, X, DW, DY,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER)
#undef OPERATION
};

size_t size_of(cudnnBackendAttributeType_t kind) {
  switch (kind) {
  case CUDNN_TYPE_HANDLE:
  case CUDNN_TYPE_INT64:
  case CUDNN_TYPE_VOID_PTR:
  case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
  case CUDNN_TYPE_BOOLEAN: return 1;
  default: return 4;
  }
}

bool all_set(const Descriptor &d) {
  for (const Rule &rule : rules)
    if (rule.type == d.type && !rule.optional && !d.values.count(rule.name)) return false;
  return true;
}

// ---------------------------------------------------------------- finalizing

cudnnStatus_t finalize_tensor(Descriptor *d) {
  emulator::Tensor *t = &d->convolution.tensor[0];
  if (d->count(CUDNN_ATTR_TENSOR_DIMENSIONS) != 4 || d->count(CUDNN_ATTR_TENSOR_STRIDES) != 4)
    return CUDNN_STATUS_NOT_SUPPORTED;
  for (int k = 0; k < 4; k++) {
    t->size[k] = d->get<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, k);
    t->stride[k] = d->get<int64_t>(CUDNN_ATTR_TENSOR_STRIDES, k);
    if (t->size[k] < 1 || t->stride[k] < 1) return CUDNN_STATUS_BAD_PARAM;
  }
  t->id = d->get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  t->alignment = d->get<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  t->is_virtual =
      d->values.count(CUDNN_ATTR_TENSOR_IS_VIRTUAL) && d->get<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL);
  switch (d->get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)) {
  case CUDNN_DATA_FLOAT: t->type = CUDA_R_32F; break;
  case CUDNN_DATA_BFLOAT16: t->type = CUDA_R_16BF; break;
  case CUDNN_DATA_HALF: t->type = CUDA_R_16F; break;
  default: return CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE;
  }
  bool power = t->alignment > 0 && (t->alignment & (t->alignment - 1)) == 0;
  return power && t->alignment >= (t->type == CUDA_R_32F ? 4 : 2) ? CUDNN_STATUS_SUCCESS
                                                                  : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t finalize_convolution(Descriptor *d) {
  Convolution *c = &d->convolution;
  if (d->get<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2) return CUDNN_STATUS_NOT_SUPPORTED;
  const cudnnBackendAttributeName_t names[] = {
      CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS,
      CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_ATTR_CONVOLUTION_DILATIONS};
  for (cudnnBackendAttributeName_t name : names)
    if (d->count(name) != 2) return CUDNN_STATUS_BAD_PARAM;
  for (int k = 0; k < 2; k++) {
    c->padding[k] = d->get<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, k);
    c->stride[k] = d->get<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, k);
    c->dilation[k] = d->get<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS, k);
    if (c->padding[k] < 0 || c->stride[k] < 1 || c->dilation[k] < 1) return CUDNN_STATUS_BAD_PARAM;
    if (d->get<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, k) != c->padding[k])
      return CUDNN_STATUS_NOT_SUPPORTED;
  }
  bool mode =
      d->get<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION;
  bool type = d->get<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) == CUDNN_DATA_FLOAT;
  return mode && type ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

// The descriptor that an attribute holds, if it is of a type and finalized.
const Descriptor *part(const Descriptor &d, cudnnBackendAttributeName_t name,
                       cudnnBackendDescriptorType_t type) {
  const Descriptor *p = (const Descriptor *)d.get<cudnnBackendDescriptor_t>(name);
  return p && p->type == type && p->finalized ? p : nullptr;
}

bool shapes_fit(const Convolution &c) {
  const int64_t *x = c.tensor[0].size, *w = c.tensor[1].size, *y = c.tensor[2].size;
  if (x[0] != y[0] || w[0] != y[1] || x[1] % w[1] != 0 || w[0] % (x[1] / w[1]) != 0) return false;
  for (int k = 0; k < 2; k++) {
    int64_t room = x[2 + k] + 2 * c.padding[k] - c.dilation[k] * (w[2 + k] - 1) - 1;
    if (room < 0 || y[2 + k] != room / c.stride[k] + 1) return false;
  }
  return true;
}

cudnnStatus_t finalize_operation(Descriptor *d, emulator::Direction direction,
                                 const cudnnBackendAttributeName_t names[6]) {
  Convolution *c = &d->convolution;
  const Descriptor *said = part(*d, names[3], CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  if (!said) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  *c = said->convolution, c->direction = direction;
  for (int k = 0; k < 3; k++) {
    const Descriptor *tensor = part(*d, names[k], CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    if (!tensor) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    c->tensor[k] = tensor->convolution.tensor[0];
    bool handed_on = k == 2 && direction == emulator::FORWARD && c->tensor[k].is_virtual;
    cudaDataType_t type = handed_on ? CUDA_R_32F : c->tensor[0].type;
    if (c->tensor[k].type != type || c->tensor[k].is_virtual != handed_on)
      return CUDNN_STATUS_BAD_PARAM;
    for (int j = 0; j < k; j++)
      if (c->tensor[j].id == c->tensor[k].id) return CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES;
  }
  if (d->get<float>(names[4]) != 1 || d->get<float>(names[5]) != 0)
    return CUDNN_STATUS_NOT_SUPPORTED;
  return shapes_fit(*c) ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
}

cudnnStatus_t finalize_pointwise(Descriptor *d) {
  bool mode = d->get<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE) == CUDNN_POINTWISE_ADD;
  bool type = d->get<cudnnDataType_t>(CUDNN_ATTR_POINTWISE_MATH_PREC) == CUDNN_DATA_FLOAT;
  return mode && type ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

// sum {n,c,h,w} + bias {1,c,1,1} to y.
cudnnStatus_t finalize_addition(Descriptor *d) {
  const cudnnBackendAttributeName_t names[] = {CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
                                               CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
                                               CUDNN_ATTR_OPERATION_POINTWISE_YDESC};
  emulator::Tensor tensor[3];
  if (!part(*d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_BACKEND_POINTWISE_DESCRIPTOR))
    return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  for (int k = 0; k < 3; k++) {
    const Descriptor *t = part(*d, names[k], CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    if (!t) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    tensor[k] = t->convolution.tensor[0];
  }
  for (int k = 0; k < 4; k++) {
    if (tensor[0].size[k] != tensor[2].size[k] ||
        tensor[1].size[k] != (k == 1 ? tensor[2].size[k] : 1))
      return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
  }
  if (tensor[0].id == tensor[2].id || tensor[1].id == tensor[2].id)
    return CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES;
  d->sum = tensor[0], d->convolution.bias = tensor[1], d->convolution.tensor[2] = tensor[2];
  return CUDNN_STATUS_SUCCESS;
}

bool is_channels_last(const emulator::Tensor &t) {
  return t.stride[1] == 1 && t.stride[3] == t.size[1] && t.stride[2] == t.size[1] * t.size[3];
}

// Whether an addition takes what a convolution hands on; then both are one.
bool add_bias(Convolution *c, const Descriptor &addition) {
  const emulator::Tensor &y = addition.convolution.tensor[2], &bias = addition.convolution.bias;
  bool takes = c->tensor[2].is_virtual && addition.sum.is_virtual &&
               addition.sum.id == c->tensor[2].id && !y.is_virtual && !bias.is_virtual;
  for (int k = 0; k < 4; k++) takes = takes && y.size[k] == c->tensor[2].size[k];
  for (int k = 0; k < 2; k++)
    takes = takes && c->tensor[k].id != y.id && c->tensor[k].id != bias.id;
  if (!takes || y.type != c->tensor[0].type || bias.type != y.type) return false;
  c->tensor[2] = y, c->bias = bias, c->biased = true;
  return true;
}

cudnnStatus_t finalize_graph(Descriptor *d) {
  if (!d->get<cudnnHandle_t>(CUDNN_ATTR_OPERATIONGRAPH_HANDLE)) return CUDNN_STATUS_BAD_PARAM;
  for (int k = 0; k < d->count(CUDNN_ATTR_OPERATIONGRAPH_OPS); k++) {
    const Descriptor *operation =
        (const Descriptor *)d->get<cudnnBackendDescriptor_t>(CUDNN_ATTR_OPERATIONGRAPH_OPS, k);
    if (!operation || !operation->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    bool addition = operation->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR;
    if (addition != (k == 1)) return CUDNN_STATUS_NOT_SUPPORTED;
    if (addition && !add_bias(&d->convolution, *operation)) return CUDNN_STATUS_BAD_PARAM;
    if (!addition) d->convolution = operation->convolution;
  }
  const Convolution &c = d->convolution;
  if (c.tensor[2].is_virtual) return CUDNN_STATUS_BAD_PARAM; // nobody takes it
  bool groups = c.tensor[0].size[1] != c.tensor[1].size[1];
  if (groups && (c.dilation[0] > 1 || c.dilation[1] > 1)) return CUDNN_STATUS_NOT_SUPPORTED;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_plan(Descriptor *d) {
  const Descriptor *config =
      part(*d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  if (!config) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  if (!d->get<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE)) return CUDNN_STATUS_BAD_PARAM;
  d->convolution = config->convolution, d->engine = config->engine;
  if (d->engine != TENSOR_CORES) return CUDNN_STATUS_SUCCESS;
  for (const emulator::Tensor &t : d->convolution.tensor)
    if (t.alignment < 16) return CUDNN_STATUS_NOT_SUPPORTED;
  bool bias = !d->convolution.biased || d->convolution.bias.alignment >= 16;
  return bias ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

cudnnStatus_t finalize(Descriptor *d) {
#define NAMES(x, w, y, prefix) \
  { prefix##_##x, prefix##_##w, prefix##_##y, prefix##_CONV_DESC, prefix##_ALPHA, prefix##_BETA }
  static const cudnnBackendAttributeName_t forward[] =
      NAMES(X, W, Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD);
  static const cudnnBackendAttributeName_t data[] =
      NAMES(DX, W, DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA);
  static const cudnnBackendAttributeName_t filter[] =
      NAMES(X, DW, DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER);
#undef NAMES
  if (!all_set(*d)) return CUDNN_STATUS_BAD_PARAM;
  switch (d->type) {
  case CUDNN_BACKEND_TENSOR_DESCRIPTOR: return finalize_tensor(d);
  case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: return finalize_convolution(d);
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    return finalize_operation(d, emulator::FORWARD, forward);
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
    return finalize_operation(d, emulator::BACKWARD_DATA, data);
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
    return finalize_operation(d, emulator::BACKWARD_FILTER, filter);
  case CUDNN_BACKEND_POINTWISE_DESCRIPTOR: return finalize_pointwise(d);
  case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: return finalize_addition(d);
  case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: return finalize_graph(d);
  case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
    return part(*d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
               ? CUDNN_STATUS_SUCCESS
               : CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: return finalize_plan(d);
  case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
    return d->count(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS) ==
                   d->count(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS)
               ? CUDNN_STATUS_SUCCESS
               : CUDNN_STATUS_BAD_PARAM;
  default: return CUDNN_STATUS_NOT_SUPPORTED; // results of a heuristic: it finalizes them
  }
}

// ---------------------------------------------------------------- engines

// f32 has all engines, the one that sums in any order second; 16 bit those for channels-last. With a
// bias only whole groups of 8 channels are taken, and there is nothing to fall back to.
std::vector<Engine> suggestions(const Descriptor &heuristic) {
  const Convolution &c = ((const Descriptor *)heuristic.get<cudnnBackendDescriptor_t>(
                              CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH))
                             ->convolution;
  bool groups = c.tensor[0].size[1] != c.tensor[1].size[1];
  if (c.biased && (groups || c.tensor[0].size[1] % 8 != 0 || c.tensor[2].size[1] % 8 != 0))
    return {};
  if (heuristic.get<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK)
    return c.biased ? std::vector<Engine>() : std::vector<Engine>{PLAIN};
  if (c.tensor[0].type == CUDA_R_32F) return {TENSOR_CORES, UNORDERED, WITH_WORKSPACE, PLAIN};
  for (const emulator::Tensor &t : c.tensor)
    if (!is_channels_last(t)) return {};
  return {UNORDERED, TENSOR_CORES, WITH_WORKSPACE};
}

std::vector<cudnnBackendNumericalNote_t> notes(Engine engine) {
  if (engine == TENSOR_CORES) return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
  if (engine == UNORDERED)
    return {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
            CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
  return {};
}

int64_t workspace_of(Engine engine) { return engine == WITH_WORKSPACE ? 4096 : 0; }

cudnnStatus_t give_suggestions(const Descriptor &d, int64_t wanted, int64_t *count, void *values) {
  std::vector<Engine> all = suggestions(d);
  *count = (int64_t)all.size();
  for (int64_t k = 0; k < *count && k < wanted; k++) {
    Descriptor *config = ((Descriptor **)values)[k];
    if (!config || config->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
      return CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE;
    config->engine = all[(size_t)k], config->finalized = true;
    config->convolution =
        ((const Descriptor *)d.get<cudnnBackendDescriptor_t>(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH))
            ->convolution;
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t give_engine(const Descriptor &d, int64_t wanted, int64_t *count, void *values) {
  Descriptor *engine = wanted > 0 ? *(Descriptor **)values : nullptr;
  if (!engine || engine->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR)
    return CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE;
  engine->engine = d.engine, engine->finalized = true, *count = 1;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t give_notes(const Descriptor &d, int64_t wanted, int64_t *count, void *values) {
  std::vector<cudnnBackendNumericalNote_t> all = notes(d.engine);
  *count = (int64_t)all.size();
  for (int64_t k = 0; k < *count && k < wanted; k++)
    ((cudnnBackendNumericalNote_t *)values)[k] = all[(size_t)k];
  return CUDNN_STATUS_SUCCESS;
}

// The address that a variant pack gives for a tensor.
void *address(const Descriptor &pack, const emulator::Tensor &t) {
  for (int k = 0; k < pack.count(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS); k++)
    if (pack.get<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, k) == t.id)
      return pack.get<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, k);
  return nullptr;
}

} // namespace

namespace emulator {

// A handle holds its stream.
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  RETURN_FAULT(cudnnCreate);
  *handle = (cudnnHandle_t) new (std::nothrow) cudaStream_t(nullptr);
  return *handle ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete (cudaStream_t *)handle;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  RETURN_FAULT(cudnnSetStream);
  if (!handle) return CUDNN_STATUS_BAD_PARAM;
  *(cudaStream_t *)handle = stream;
  return CUDNN_STATUS_SUCCESS;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
  case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
  case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
  case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED:
    return "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED";
  case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
  default: return "an error of the emulator";
  }
}

size_t cudnnGetVersion() { return CUDNN_VERSION; }

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *descriptor) {
  RETURN_FAULT(cudnnBackendCreateDescriptor);
  Descriptor *d = new (std::nothrow) Descriptor;
  if (!d) return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
  d->type = type;
  *descriptor = d;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete (Descriptor *)descriptor;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t kind, int64_t count,
                                       const void *values) {
  RETURN_FAULT(cudnnBackendSetAttribute);
  Descriptor *d = (Descriptor *)descriptor;
  if (!d || !values) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  if (d->finalized) return CUDNN_STATUS_BAD_PARAM;
  for (const Rule &rule : rules) {
    if (rule.type != d->type || rule.name != name) continue;
    if (rule.kind != kind) return CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE;
    if (count < 1 || count > rule.most) return CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND;
    const char *first = (const char *)values;
    d->values[name] = {std::vector<char>(first, first + (size_t)count * size_of(kind)), count};
    return CUDNN_STATUS_SUCCESS;
  }
  return CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  RETURN_FAULT(cudnnBackendFinalize);
  Descriptor *d = (Descriptor *)descriptor;
  if (!d || d->finalized) return CUDNN_STATUS_BAD_PARAM;
  cudnnStatus_t status = finalize(d);
  d->finalized = status == CUDNN_STATUS_SUCCESS;
  return status;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t kind, int64_t wanted,
                                       int64_t *count, void *values) {
  RETURN_FAULT(cudnnBackendGetAttribute);
  const Descriptor *d = (const Descriptor *)descriptor;
  if (!d || !count || !values) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  if (!d->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  if (d->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && name == CUDNN_ATTR_ENGINEHEUR_RESULTS &&
      kind == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    return give_suggestions(*d, wanted, count, values);
  if (d->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR && name == CUDNN_ATTR_ENGINECFG_ENGINE &&
      kind == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    return give_engine(*d, wanted, count, values);
  if (d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
      kind == CUDNN_TYPE_NUMERICAL_NOTE)
    return give_notes(*d, wanted, count, values);
  if (d->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
      name != CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE || kind != CUDNN_TYPE_INT64 || wanted < 1)
    return CUDNN_STATUS_BAD_PARAM;
  *(int64_t *)values = workspace_of(d->engine), *count = 1;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  RETURN_FAULT(cudnnBackendExecute);
  const Descriptor *p = (const Descriptor *)plan, *v = (const Descriptor *)pack;
  if (!handle || !p || !v) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  if (!p->finalized || !v->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  catch_up(*(cudaStream_t *)handle);
  void *data[4], *workspace = v->get<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  int operands = p->convolution.biased ? 4 : 3;
  if (v->count(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS) != operands) return CUDNN_STATUS_BAD_PARAM;
  for (int k = 0; k < operands; k++) {
    const Tensor &t = k < 3 ? p->convolution.tensor[k] : p->convolution.bias;
    data[k] = address(*v, t);
    if (!data[k]) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
    if ((uintptr_t)data[k] % (uintptr_t)t.alignment)
      return CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER;
  }
  size_t bytes = (size_t)workspace_of(p->engine);
  if (bytes && !workspace) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  if (bytes) std::memset(workspace, 0xff, bytes);
  if (p->engine == UNORDERED) return CUDNN_STATUS_EXECUTION_FAILED; // nobody should ask for it
  convolve(p->convolution, data, p->engine == TENSOR_CORES);
  return CUDNN_STATUS_SUCCESS;
}

} // namespace emulator
