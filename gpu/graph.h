// graph.h - convolutions as graphs of cuDNN's backend: the operation, or that and a bias added to its
// result before it is rounded, the engines that can compute it, and plans to run. graph.c alone knows
// the library's descriptors.
#ifndef DLUA_GPU_GRAPH_H
#define DLUA_GPU_GRAPH_H

#include "library.h"

typedef enum dlua_direction { DLUA_FORWARD, DLUA_INPUT_GRAD, DLUA_WEIGHT_GRAD } dlua_direction;

enum {
  DLUA_CONV_X,
  DLUA_CONV_W,
  DLUA_CONV_Y,
  DLUA_CONV_TENSORS,
  DLUA_CONV_BIAS = DLUA_CONV_TENSORS, // {o} without gaps, of y's dtype
  DLUA_CONV_OPERANDS
};

// A convolution of x {n,c,h,w} with w {o,c/groups,kh,kw} to y, of which the direction says the
// result, and all that the choice of an engine depends on. No padding: it is a key of plans.
typedef struct dlua_graph_case {
  int64_t size[DLUA_CONV_TENSORS][4];
  int64_t stride[2], padding[2], dilation[2];
  uint64_t workspace; // the most an engine may take
  uint32_t alignment[DLUA_CONV_OPERANDS];
  int32_t device;
  uint8_t direction, dtype, channels_last, bias, tf32, winograd, tune, zero[5];
} dlua_graph_case;

// An engine ready to run. Empty where config is NULL.
typedef struct dlua_graph_plan {
  cudnnBackendDescriptor_t config, plan;
  size_t workspace;
} dlua_graph_plan;

// Up to `wanted` plans, the one that the library thinks fastest first; none where it has no engine for
// this case. Caller drops them.
dlua_status dlua_graph_plans(const dlua_graph_case *c, int wanted, dlua_graph_plan *plans,
                             int *count);
void dlua_graph_drop(dlua_graph_plan *plan);

// Queues it. Workspace: plan->workspace bytes. The bias is NULL where the case has none.
dlua_status dlua_graph_run(int device, const dlua_graph_plan *plan,
                           void *const data[DLUA_CONV_OPERANDS], void *workspace);

#endif
