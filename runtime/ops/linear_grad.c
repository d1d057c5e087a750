// linear_grad.c - what devices whose products end in more than a sum compute in one call on the way
// back through y = f(x w' + b): the gradients of w and b together, and that of x with the slope of
// the activation that x comes from.
//
// The CPU has nothing to win here: on it, backward functions call the ops that these stand for, and
// the kernels below say what the results are.
#include <string.h>

#include "../op.h"

static dlua_status leading_shape(const dlua_args *a, const dlua_tensor *g, const dlua_tensor *y) {
  if (g->ndim == 0 || g->ndim != y->ndim)
    return dlua_shape_error(a, "the numbers of dimensions must be equal and not 0");
  if (memcmp(g->size, y->size, (size_t)(g->ndim - 1) * sizeof *g->size) != 0)
    return dlua_shape_error(a, "sizes before the last differ");
  return DLUA_OK;
}

// ---------------------------------------------------------------- of w and b

static dlua_status weight_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *x = a->in[1];
  if (g->ndim != 2 || x->ndim != 2) return dlua_shape_error(a, "g and x must have 2 dimensions");
  DLUA_TRY(leading_shape(a, g, x));
  dlua_spec_shape(a, 0, 2, (int64_t[]){g->size[1], x->size[1]});
  dlua_spec_shape(a, 1, 1, &g->size[1]);
  return DLUA_OK;
}

// Makes a part of the call: op of x and y into result k. It points into itself, and stays where it is.
static void part(dlua_args *call, const dlua_args *a, const dlua_op *op, const dlua_tensor *x,
                 dlua_tensor *y, int k) {
  *call = *a;
  call->op = op, call->nin = y ? 2 : 1, call->nout = 1, call->out[0] = a->out[k];
  call->in = call->slots, call->in[0] = (dlua_tensor *)x, call->in[1] = y;
}

static dlua_status weight_cpu(const dlua_args *a) {
  dlua_tensor turned = *a->in[0];
  turned.size[0] = a->in[0]->size[1], turned.size[1] = a->in[0]->size[0];
  turned.stride[0] = a->in[0]->stride[1], turned.stride[1] = a->in[0]->stride[0];
  dlua_args product, sum;
  part(&product, a, &dlua_op_matmul, &turned, a->in[1], 0);
  part(&sum, a, &dlua_op_sum, a->in[0], NULL, 1);
  sum.num[0] = (dlua_value){.set = true, .n = 1};
  DLUA_TRY(product.op->cpu(&product));
  return sum.op->cpu(&sum);
}

// gw = g' x, and gb is the sums of g's columns: what comes for them goes to g as linear does it.
static void weight_back(dlua_back *b) {
  dlua_tensor *g = dlua_saved(b, "g"), *x = dlua_saved(b, "x");
  if (dlua_needs(b, 0))
    dlua_give(b, 0, dlua_call(b->s, &dlua_op_linear, dlua_t(x), dlua_t(b->g[0]), dlua_t(b->g[1])));
  if (dlua_needs(b, 1))
    dlua_give(b, 1, dlua_call(b->s, &dlua_op_matmul, dlua_t(g), dlua_t(b->g[0])));
}

// ---------------------------------------------------------------- of x, before an activation

static dlua_status input_shape(dlua_args *a) {
  const dlua_tensor *g = a->in[0], *w = a->in[1], *y = a->in[2];
  if (w->ndim != 2) return dlua_shape_error(a, "w must have 2 dimensions {out,in}");
  DLUA_TRY(leading_shape(a, g, y));
  if (g->size[g->ndim - 1] != w->size[0] || y->size[y->ndim - 1] != w->size[1])
    return dlua_shape_error(a, "the last sizes are not those of w");
  dlua_spec_shape(a, 0, y->ndim, y->size);
  return DLUA_OK;
}

static dlua_status input_cpu(const dlua_args *a, const dlua_op *slope) {
  dlua_args product, last;
  part(&product, a, &dlua_op_matmul, a->in[0], a->in[1], 0);
  DLUA_TRY(product.op->cpu(&product));
  part(&last, a, slope, a->out[0], a->in[2], 0);
  return slope->cpu(&last);
}

static dlua_status relu_cpu(const dlua_args *a) { return input_cpu(a, &dlua_op_relu_grad); }
static dlua_status gelu_cpu(const dlua_args *a) { return input_cpu(a, &dlua_op_gelu_grad); }

// ---------------------------------------------------------------- ops

const dlua_op dlua_op_linear_weight_grad = {
    .name = "linear_weight_grad",
    .sig = "g:T, x:T -> gw, gb",
    .doc = "The gradients of linear's w and b together: g' x and the sums of g's columns, for g "
           "{n,out} and x {n,in}.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = weight_shape,
    .cpu = weight_cpu,
    .back = weight_back,
    .save = "g x",
    .contiguous = "g",
};

const dlua_op dlua_op_relu_linear_grad = {
    .name = "relu_linear_grad",
    .sig = "g:T, w:T, y:T -> gx",
    .doc = "The gradient of linear's input y before the relu that made y: g w where y > 0, 0 "
           "elsewhere. It carries no gradient itself: with create_graph other ops do the same.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = input_shape,
    .cpu = relu_cpu,
    .contiguous = "g y",
};

const dlua_op dlua_op_gelu_linear_grad = {
    .name = "gelu_linear_grad",
    .sig = "g:T, w:T, z:T, approximate:e{none|tanh}=none -> gx",
    .doc =
        "The gradient of linear's input gelu(z) before gelu: g w times the slope at z. It carries "
        "no gradient itself: with create_graph other ops do the same.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = input_shape,
    .cpu = gelu_cpu,
    .contiguous = "g z",
};
