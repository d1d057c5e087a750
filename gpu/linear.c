// linear.c - linear, alone and with its activation, and the way back through it: products of
// matmul.c with what the library's epilogues add. What the library does not do to a result on the
// way out, a kernel of dlua's does in a pass of its own.
//
// relu's slope reaches the library as bits, which a kernel makes of relu's result when they are
// wanted. b's gradient comes with w's, whichever way the gradient before the activation came.
#include "matmul.h"

dlua_kernel dlua_gpu_linear, dlua_gpu_linear_relu, dlua_gpu_linear_gelu,
    dlua_gpu_linear_weight_grad, dlua_gpu_relu_linear_grad, dlua_gpu_gelu_linear_grad;
dlua_kernel dlua_gpu_relu, dlua_gpu_relu_grad, dlua_gpu_gelu, dlua_gpu_gelu_grad, dlua_gpu_sum;

static bool is_half(const dlua_tensor *x) { return dlua_is_half((dlua_dtype)x->dtype); }

// ---------------------------------------------------------------- forward

static dlua_operands linear_of(const dlua_args *a) {
  return (dlua_operands){.x = a->in[0], .y = a->in[1], .bias = a->in[2], .turned = true};
}

dlua_status dlua_gpu_linear(const dlua_args *a) { return dlua_gpu_multiply(a, linear_of(a)); }

// Not by the library's epilogue, which makes 0 of nan: a network that has diverged would go on, with a
// loss that looks well.
dlua_status dlua_gpu_linear_relu(const dlua_args *a) {
  DLUA_TRY(dlua_gpu_multiply(a, linear_of(a)));
  return dlua_gpu_pass(a, dlua_gpu_relu, a->out[0], NULL, 0);
}

// The library's gelu is the tanh form, by the hardware's tanh, which is good for 11 bits: it is for
// bf16 and f16 that ask for that form. Else what it is applied to comes with its bias from the
// library, has to be kept anyway, and is read once more.
dlua_status dlua_gpu_linear_gelu(const dlua_args *a) {
  dlua_operands o = linear_of(a);
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  if (is_half(a->in[0]) && a->num[0].i) {
    o.epilogue = CUBLASLT_EPILOGUE_GELU_AUX, o.aux = a->out[1];
    dlua_status status = dlua_gpu_by_library(a, o);
    if (status != DLUA_DECLINED) return status;
  }
  dlua_args product = *a;
  product.nout = 1, product.out[0] = a->out[1];
  DLUA_TRY(dlua_gpu_multiply(&product, linear_of(a)));
  return dlua_gpu_pass(a, dlua_gpu_gelu, a->out[1], NULL, 0);
}

// ---------------------------------------------------------------- backward

static dlua_status column_sums(const dlua_args *a) {
  dlua_args sum = *a;
  sum.num[0] = (dlua_value){.set = true, .n = 1}; // dimension 0
  return dlua_gpu_pass(&sum, dlua_gpu_sum, a->in[0], NULL, 1);
}

// gw = g' x, and the sums of g's columns, which are the rows of the product's first operand.
dlua_status dlua_gpu_linear_weight_grad(const dlua_args *a) {
  dlua_tensor g = *a->in[0];
  g.size[0] = a->in[0]->size[1], g.size[1] = a->in[0]->size[0];
  g.stride[0] = a->in[0]->stride[1], g.stride[1] = a->in[0]->stride[0];
  dlua_operands o = {.x = &g, .y = a->in[1]};
  if (dlua_numel(a->out[0]) > 0 && g.dtype != DLUA_F64) {
    o.epilogue = CUBLASLT_EPILOGUE_BGRADB, o.sums = a->out[1];
    dlua_status status = dlua_gpu_by_library(a, o);
    if (status != DLUA_DECLINED) return status;
  }
  DLUA_TRY(dlua_gpu_multiply(a, (dlua_operands){.x = &g, .y = a->in[1]}));
  return column_sums(a);
}

// gx = g w, which goes through an activation's slope at the third input.
static dlua_status through_slope(const dlua_args *a, dlua_operands o, dlua_kernel *slope) {
  if (dlua_numel(a->out[0]) == 0) return DLUA_OK;
  o.x = a->in[0], o.y = a->in[1];
  if (o.epilogue) {
    dlua_status status = dlua_gpu_by_library(a, o);
    if (status != DLUA_DECLINED) return status;
  }
  DLUA_TRY(dlua_gpu_multiply(a, (dlua_operands){.x = o.x, .y = o.y}));
  return dlua_gpu_pass(a, slope, a->out[0], a->in[2], 0);
}

dlua_status dlua_gpu_relu_linear_grad(const dlua_args *a) {
  dlua_operands o = {.slope = a->in[2]};
  if (a->in[0]->dtype != DLUA_F64) o.epilogue = CUBLASLT_EPILOGUE_DRELU;
  return through_slope(a, o, dlua_gpu_relu_grad);
}

dlua_status dlua_gpu_gelu_linear_grad(const dlua_args *a) {
  dlua_operands o = {.aux = a->in[2]};
  if (is_half(a->in[0]) && a->num[0].i) o.epilogue = CUBLASLT_EPILOGUE_DGELU;
  return through_slope(a, o, dlua_gpu_gelu_grad);
}
