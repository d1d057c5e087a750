// conv.c - conv2d and its gradients through cuDNN.
//
// f32 goes to the library row-major, as tensors lie. 16-bit floats go channels-last, which is what the
// tensor cores read and how activations are kept (DLUA_NHWC): weights, their gradients and pictures
// that come from elsewhere are turned in scratch memory. The bias is a part of the library's graph, or
// where it has no engine for that a pass of its own. f64, tensors without elements, and whatever the
// library has no engine for are summed directly (kernels/conv.cu). Plans are kept by all they depend
// on; they are the heuristic's first, or with dlua.autotune the fastest of its suggestions.
#include "conv.h"

#include <string.h>

#include "graph.h"
#include "host.h"

enum { STRIDE, PADDING, DILATION, GROUPS }; // numbers, after size where there is one
enum { CANDIDATES = 8 };

// Gradients of weights and Winograd's algorithm want more than products do.
#define MOST_WORKSPACE ((size_t)256 << 20)

static const int row_major[4] = {0, 1, 2, 3}, channels_last[4] = {0, 2, 3, 1};

// A call: the tensors, whichever is the result.
typedef struct convolution {
  const dlua_args *call;
  dlua_direction direction;
  const dlua_tensor *tensor[DLUA_CONV_TENSORS], *bias;
  const dlua_value *num;
} convolution;

// ---------------------------------------------------------------- direct

static dlua_conv_tensor view_of(const dlua_tensor *x) {
  dlua_conv_tensor t = {.data = dlua_data(x)};
  memcpy(t.size, x->size, sizeof t.size);
  dlua_strides(x, t.stride);
  return t;
}

static dlua_status run_direct(const convolution *c) {
  dlua_conv2d plain = {.dtype = c->tensor[DLUA_CONV_X]->dtype,
                       .groups = c->num[GROUPS].i,
                       .x = view_of(c->tensor[DLUA_CONV_X]),
                       .w = view_of(c->tensor[DLUA_CONV_W]),
                       .y = view_of(c->tensor[DLUA_CONV_Y]),
                       .bias = c->bias ? dlua_data(c->bias) : NULL,
                       .bias_step = c->bias ? c->bias->stride[0] : 0};
  memcpy(plain.step, c->num[STRIDE].v, sizeof plain.step);
  memcpy(plain.padding, c->num[PADDING].v, sizeof plain.padding);
  memcpy(plain.dilation, c->num[DILATION].v, sizeof plain.dilation);
  return c->direction == DLUA_FORWARD      ? dlua_gpu_direct_forward(c->call, &plain)
         : c->direction == DLUA_INPUT_GRAD ? dlua_gpu_direct_input_grad(c->call, &plain)
                                           : dlua_gpu_direct_weight_grad(c->call, &plain);
}

// ---------------------------------------------------------------- plans

static void drop_plan(void *plan) { dlua_graph_drop(plan); }

static dlua_plans plans = {
    .key_size = sizeof(dlua_graph_case), .plan_size = sizeof(dlua_graph_plan), .drop = drop_plan};

static dlua_graph_case case_of(const convolution *c, void *const data[DLUA_CONV_OPERANDS]) {
  dlua_graph_case k;
  memset(&k, 0, sizeof k);
  for (int i = 0; i < DLUA_CONV_TENSORS; i++)
    memcpy(k.size[i], c->tensor[i]->size, sizeof k.size[i]);
  for (int i = 0; i < DLUA_CONV_OPERANDS && data[i]; i++) {
    uint32_t alignment = dlua_alignment(data[i]);
    k.alignment[i] = alignment < 16 ? alignment : 16;
  }
  k.bias = data[DLUA_CONV_BIAS] != NULL;
  memcpy(k.stride, c->num[STRIDE].v, sizeof k.stride);
  memcpy(k.padding, c->num[PADDING].v, sizeof k.padding);
  memcpy(k.dilation, c->num[DILATION].v, sizeof k.dilation);
  k.device = c->call->device->index, k.direction = (uint8_t)c->direction;
  k.dtype = c->tensor[0]->dtype, k.channels_last = k.dtype != DLUA_F32;
  k.tf32 = k.dtype == DLUA_F32 && dlua_gpu_host->tf32();
  k.winograd = dlua_gpu_host->winograd(), k.tune = dlua_gpu_host->autotune();
  return k;
}

static dlua_status run_plan(const convolution *c, const dlua_graph_plan *plan,
                            void *const data[DLUA_CONV_OPERANDS]) {
  void *workspace = NULL;
  dlua_device *device = c->call->device;
  if (plan->workspace) DLUA_TRY(dlua_alloc(device, plan->workspace, &workspace));
  dlua_status status = dlua_graph_run(device->index, plan, data, workspace);
  if (workspace) dlua_free(device, workspace, plan->workspace);
  return status;
}

typedef struct race {
  const convolution *c;
  const dlua_graph_plan *plans;
  void *const *data;
} race;

static dlua_status run_candidate(void *context, int candidate) {
  const race *r = context;
  return run_plan(r->c, &r->plans[candidate], r->data);
}

// The plan for a case, an empty one where the library has none.
static dlua_status make_plan(const convolution *c, const dlua_graph_case *k,
                             void *const data[DLUA_CONV_OPERANDS], dlua_graph_plan *made) {
  dlua_graph_plan found[CANDIDATES];
  int count, fastest = 0;
  *made = (dlua_graph_plan){0};
  DLUA_TRY(dlua_graph_plans(k, k->tune ? CANDIDATES : 1, found, &count));
  if (count == 0) return DLUA_OK;
  race r = {c, found, data};
  dlua_status status = DLUA_OK;
  if (count > 1) status = dlua_gpu_fastest(k->device, count, run_candidate, &r, &fastest);
  for (int i = 0; i < count; i++) {
    if (status == DLUA_OK && i == fastest)
      *made = found[i];
    else
      dlua_graph_drop(&found[i]);
  }
  return status;
}

static dlua_status find_plan(const convolution *c, const dlua_graph_case *k,
                             void *const data[DLUA_CONV_OPERANDS], dlua_graph_plan **found) {
  dlua_graph_plan made;
  *found = dlua_plans_find(&plans, k);
  if (*found) return DLUA_OK;
  DLUA_TRY(make_plan(c, k, data, &made));
  return dlua_plans_add(&plans, k, &made, (void **)found);
}

// DLUA_DECLINED where the library has no engine; short of memory, one without workspace is looked for.
static dlua_status run_library(const convolution *c, void *const data[DLUA_CONV_OPERANDS]) {
  dlua_graph_plan *plan;
  dlua_graph_case k = case_of(c, data);
  dlua_status status = DLUA_NO_MEMORY;
  for (int attempt = 0; attempt < 2 && status == DLUA_NO_MEMORY; attempt++) {
    k.workspace = attempt ? 0 : MOST_WORKSPACE;
    status = find_plan(c, &k, data, &plan);
    if (status == DLUA_OK && !plan->plan) return DLUA_DECLINED;
    if (status == DLUA_OK) status = run_plan(c, plan, data);
  }
  return status;
}

// ---------------------------------------------------------------- layouts

dlua_kernel dlua_gpu_clone;

// Whether x's elements lie in this order of dimensions without gaps.
static bool lies(const dlua_tensor *x, const int order[4]) {
  int64_t step = 1, stride[4];
  dlua_strides(x, stride);
  for (int k = 3; k >= 0; k--) {
    int d = order[k];
    if (x->size[d] != 1 && stride[d] != step) return false;
    step *= x->size[d];
  }
  return true;
}

// Where the library finds or leaves the elements of a tensor: in place, or in a copy.
static dlua_status place(const convolution *c, int which, dlua_packed *packed, void **data) {
  const dlua_tensor *x = c->tensor[which];
  const int *order = x->dtype != DLUA_F32 ? channels_last : row_major;
  *data = dlua_data(x);
  if (lies(x, order)) return DLUA_OK;
  DLUA_TRY(x == c->call->out[0] ? dlua_packed_new(c->call, x, order, packed)
                                : dlua_packed_copy(c->call, x, order, packed));
  *data = packed->storage.data;
  return DLUA_OK;
}

// The bias where the library adds it, else NULL.
static dlua_status place_bias(const convolution *c, dlua_packed *packed, void **data) {
  *data = NULL;
  if (!c->bias) return DLUA_OK;
  *data = dlua_data(c->bias);
  if (dlua_is_contiguous(c->bias)) return DLUA_OK;
  DLUA_TRY(dlua_packed_copy(c->call, c->bias, NULL, packed));
  *data = packed->storage.data;
  return DLUA_OK;
}

// Moves the result out of its copy.
static dlua_status take_out(const convolution *c, dlua_packed *packed) {
  const dlua_args *a = c->call;
  dlua_args copy = {.op = a->op, .sig = a->sig, .nin = 1, .nout = 1, .device = a->device};
  if (!packed->bytes) return DLUA_OK;
  copy.in = copy.slots, copy.slots[0] = &packed->tensor, copy.out[0] = a->out[0];
  return dlua_gpu_clone(&copy);
}

// With the bias in the graph if the library has an engine for that, else with a pass for it.
static dlua_status run_operands(const convolution *c, dlua_packed *result,
                                void *data[DLUA_CONV_OPERANDS]) {
  dlua_status status = run_library(c, data);
  if (status == DLUA_DECLINED && data[DLUA_CONV_BIAS]) {
    data[DLUA_CONV_BIAS] = NULL;
    status = run_library(c, data);
  }
  if (status == DLUA_OK) status = take_out(c, result);
  bool missing = c->bias && !data[DLUA_CONV_BIAS];
  if (status != DLUA_OK || !missing) return status;
  return dlua_gpu_add_bias(c->call, c->call->out[0], c->bias);
}

static dlua_status run_placed(const convolution *c) {
  static const int result[] = {DLUA_CONV_Y, DLUA_CONV_X, DLUA_CONV_W}; // by direction
  dlua_packed packed[DLUA_CONV_OPERANDS] = {0};
  void *data[DLUA_CONV_OPERANDS];
  dlua_status status = place_bias(c, &packed[DLUA_CONV_BIAS], &data[DLUA_CONV_BIAS]);
  for (int i = 0; i < DLUA_CONV_TENSORS && status == DLUA_OK; i++)
    status = place(c, i, &packed[i], &data[i]);
  if (status == DLUA_OK) status = run_operands(c, &packed[result[c->direction]], data);
  for (int i = 0; i < DLUA_CONV_OPERANDS; i++) dlua_packed_release(c->call, &packed[i]);
  return status;
}

// ---------------------------------------------------------------- ops

static bool library_takes(const convolution *c) {
  bool any = true;
  for (int i = 0; i < DLUA_CONV_TENSORS; i++) any &= dlua_numel(c->tensor[i]) > 0;
  return any && c->tensor[0]->dtype != DLUA_F64;
}

static dlua_status run(convolution c) {
  if (dlua_numel(c.call->out[0]) == 0) return DLUA_OK;
  dlua_status status = library_takes(&c) ? run_placed(&c) : DLUA_DECLINED;
  return status == DLUA_DECLINED ? run_direct(&c) : status;
}

dlua_kernel dlua_gpu_conv2d, dlua_gpu_conv2d_input_grad, dlua_gpu_conv2d_weight_grad;

dlua_status dlua_gpu_conv2d(const dlua_args *a) {
  return run((convolution){a, DLUA_FORWARD, {a->in[0], a->in[1], a->out[0]}, a->in[2], a->num});
}

dlua_status dlua_gpu_conv2d_input_grad(const dlua_args *a) {
  return run((convolution){a, DLUA_INPUT_GRAD, {a->out[0], a->in[1], a->in[0]}, NULL, a->num + 1});
}

dlua_status dlua_gpu_conv2d_weight_grad(const dlua_args *a) {
  return run((convolution){a, DLUA_WEIGHT_GRAD, {a->in[1], a->out[0], a->in[0]}, NULL, a->num + 1});
}
