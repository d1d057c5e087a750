// args.h - one call of an op as shape rules and kernels see it, and the struct that says what an op
// is. Readable by C++ and so by CUDA; op.h adds what the authors of ops call.
#ifndef DLUA_ARGS_H
#define DLUA_ARGS_H

#include "dlua.h"

#define DLUA_MAX_OUT 4
#define DLUA_MAX_NUM 8
#define DLUA_MAX_IN 8 // fixed inputs; only T* goes beyond

typedef struct dlua_op dlua_op;

// One number of a call.
typedef struct dlua_value {
  bool set;                 // given or by default; false: missing
  bool is_int;              // of kind n: i is exact
  int n;                    // of kinds D s s2: how many
  int64_t i;                // of kinds i b d e, and of n when is_int
  double f;                 // of kinds f n
  int64_t v[DLUA_MAX_DIMS]; // of kinds D s s2
} dlua_value;

// What a shape rule says about a result before it is allocated.
typedef struct dlua_spec {
  dlua_dtype dtype;
  dlua_layout layout;
  int ndim;
  bool wide; // stays f32 where the kernel computes for bf16 or f16
  int64_t size[DLUA_MAX_DIMS];
} dlua_spec;

// One call as shape rules and kernels see it.
typedef struct dlua_args {
  const dlua_op *op;
  const struct dlua_signature *sig;
  int nin, nout;  // nout: set by the shape rule where an op has a varying number of results
  bool inplace;   // the result is written into in[0]
  bool dtype_set; // creation ops: a dtype was asked for
  dlua_dtype dtype;
  dlua_device *device; // creation ops: where; filled in by dlua_run for the others
  dlua_tensor **in;    // borrowed; points to slots unless the call has more inputs
  dlua_tensor *slots[DLUA_MAX_IN];
  dlua_tensor *out[DLUA_MAX_OUT];
  dlua_spec spec[DLUA_MAX_OUT];
  dlua_value num[DLUA_MAX_NUM];
} dlua_args;

typedef struct dlua_back dlua_back; // one recorded call on the way back, see op.h

// What dlua_run does to the T inputs before the kernel sees them, and the dtype results have by
// default (spec.dtype).
typedef enum dlua_dtype_rule {
  DLUA_SAME_FLOAT, // all T inputs must be the same float dtype; results too
  DLUA_PROMOTE,    // T inputs are promoted to one dtype; results too; numbers accepted in place of
                   // tensors
  DLUA_PROMOTE_FLOAT, // as PROMOTE, but integers and bool become f32 (x / y, exp, mean)
  DLUA_COMPARE,       // as PROMOTE for the inputs, results are bool
  DLUA_KEEP,      // any dtype of the first T input; results too; other T inputs must have the same
  DLUA_ANY_DTYPE, // nothing is checked or converted; the shape rule sets spec.dtype
} dlua_dtype_rule;

// What a call's float inputs are while autocast is on, see autocast.h.
typedef enum dlua_autocast_rule {
  DLUA_CAST_WIDEST,  // as they are; where they differ, the widest
  DLUA_CAST_LOWER,   // bf16 or f16 in place of f32
  DLUA_CAST_F32,     // f32 in place of bf16 and f16
  DLUA_CAST_NOTHING, // as they are: the op takes activations and parameters of different dtypes
} dlua_autocast_rule;

enum {              // dlua_op.flags
  DLUA_VIEW = 1,    // the shape rule makes out[0] itself with dlua_tensor_view; no kernel
  DLUA_INPLACE = 2, // also exists as name_: the result goes into the first input
  DLUA_ELEMENTWISE =
      4, // results have the inputs' broadcast shape; blocked layouts of equal inputs are kept, and
         // NHWC of one that has the result's shape
  DLUA_LAYOUTS = 8, // kernels, fast or a device's, take any layout; the shape rule sets spec.layout
  DLUA_CREATE = 16, // no tensor inputs; takes options dtype, device, requires_grad
  DLUA_HALF = 32,   // the CPU kernel takes bf16 and f16 itself; others run through f32
  DLUA_BF16_UNITS = 1024, // its fast CPU kernels take bf16 where the CPU multiplies it, or decline
  DLUA_BORROWS =
      4096, // with DLUA_HALF: computes bf16 and f16 in f32 on the CPU, where its kernel takes
            // numbers as f32 and other inputs as they are
  DLUA_BF16_NHWC = 2048, // its fast CPU kernels take bf16 in NHWC, with f32 values per channel
  DLUA_NO_GRAD = 64,     // float results that carry no gradient on purpose (documented in doc)
  DLUA_HIDDEN =
      128, // a part of other ops (their gradients): no Lua method, but tests and docs like any op
  DLUA_WRAPS = 512,  // integers wrap around, and so may a number beyond them: u8 - 300
  DLUA_RANDOM = 256, // draws from the generator: derived tests reseed before each call
};

typedef dlua_status dlua_kernel(const dlua_args *a);

struct dlua_op {
  const char *name, *sig, *doc; // doc: one or more sentences; formula and source where there is one
  dlua_dtype_rule dtype;
  unsigned flags;
  dlua_status (*shape)(
      dlua_args *a); // checks shapes, fills spec[]; errors name the op and both shapes
  dlua_kernel *cpu;  // the plain reference kernel: any strides unless .contiguous names the input
  dlua_kernel *const *fast; // tried first, in order, NULL-terminated; DLUA_DECLINED passes on
  void (*back)(dlua_back *b);
  const char *save;       // what back reads: names of inputs and results, "x y"
  const char *contiguous; // inputs that dlua_run makes contiguous first ("*": all)
  const char *strided;    // with DLUA_LAYOUTS: inputs that come strided all the same
  const char
      *follow; // with DLUA_LAYOUTS: the input whose layout the first one is brought to, or NULL
  const char *writes; // inputs the kernel changes besides the results (running averages)
  dlua_autocast_rule autocast;
  const char *refuse; // dtypes the op does not take, "bool u8", or NULL
};

#endif
