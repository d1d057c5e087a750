// op.h - what an op is, for those who write one and those who call one.
//
// An op is one struct beside its functions in runtime/ops/<family>.c plus one row in ops.def. From that
// struct the Lua function and method, argument checks, help, completion and the derived tests follow.
//
//   static dlua_status leaky_relu_cpu(const dlua_args *a) { … a->in[0], a->num[0].f, a->out[0] … }
//   static void leaky_relu_back(dlua_back *b) {
//     dlua_tensor *x = dlua_saved(b, "x");
//     dlua_give(b, 0, dlua_call(b->s, &dlua_op_leaky_relu_grad, dlua_t(b->g[0]), dlua_t(x), dlua_f(b->num[0].f)));
//   }
//   const dlua_op dlua_op_leaky_relu = {
//     .name = "leaky_relu", .sig = "x:T, slope:f=0.01 -> y",
//     .doc = "x where x > 0, slope * x elsewhere.",
//     .dtype = DLUA_SAME_FLOAT, .shape = dlua_shape_same, .cpu = leaky_relu_cpu,
//     .back = leaky_relu_back, .save = "x",
//   };
//
// Signature: "name:kind[=default], … -> result, …". Tensors come first in in[], the rest in num[], both in
// order. A result whose name starts with _ is for backward alone.
//
//   T      tensor; T? may be missing (in[k] is NULL); T* a list, the last of the tensors: the rest of in[];
//          T(lo,hi) values between lo and hi (only the derived tests look at it)
//   I      index tensor: kernels always see i64, 1-based, and read it with dlua_index
//   B      mask: bool tensor
//   i f b  integer, number, boolean; n a number that stays an exact integer; i? f? n? may be missing (.set false)
//   d      dimension of the first tensor, from 0 here, from 1 outside; d1 of one that has one more (unsqueeze, stack)
//   D      none, one or several dimensions (.n == 0 means all)
//   s      list of integers (sizes), -1 where the op says so; s2 exactly two: "3" gives {3,3}
//   e{a|b} a word; .i is its position from 0
#ifndef DLUA_OP_H
#define DLUA_OP_H

#include "args.h"

// ---------------------------------------------------------------- calling

// Prepares a call of op: in = slots, nin = the fixed inputs, numbers at their defaults, everything
// else zero.
void dlua_args_init(dlua_args *a, const dlua_op *op);
// The one dispatch point. Checks, converts, allocates, runs and records. On success the caller owns
// a->out[0..nout).
dlua_status dlua_run(dlua_args *a);

// Calls with temporaries owned by a scope: formulas read as expressions. After a failure every call
// returns NULL at once and the status stays; results live until dlua_scope_end (retain what should
// outlive it).
typedef struct dlua_scope {
  dlua_status status;
  int count, capacity;
  dlua_tensor **owned;
  dlua_tensor *few[24];
} dlua_scope;

void dlua_scope_begin(dlua_scope *s);
dlua_status dlua_scope_end(dlua_scope *s);            // releases all; returns the first failure
dlua_tensor *dlua_own(dlua_scope *s, dlua_tensor *x); // hands x over to the scope, returns x
dlua_tensor *dlua_failed(dlua_scope *s, dlua_status status); // notes a failure, returns NULL

typedef struct dlua_arg {
  enum {
    DLUA_ARG_TENSOR,
    DLUA_ARG_INT,
    DLUA_ARG_FLOAT,
    DLUA_ARG_LIST,
    DLUA_ARG_NONE,
    DLUA_ARG_VALUE
  } kind;
  dlua_tensor *t;
  int64_t i;
  double f;
  int n;
  const int64_t *v;
  const dlua_value *value;
} dlua_arg;

static inline dlua_arg dlua_t(dlua_tensor *t) {
  return (dlua_arg){.kind = DLUA_ARG_TENSOR, .t = t};
}
static inline dlua_arg dlua_i(int64_t i) {
  return (dlua_arg){.kind = DLUA_ARG_INT, .i = i, .f = (double)i};
}
static inline dlua_arg dlua_f(double f) { return (dlua_arg){.kind = DLUA_ARG_FLOAT, .f = f}; }
static inline dlua_arg dlua_list(int n, const int64_t *v) {
  return (dlua_arg){.kind = DLUA_ARG_LIST, .n = n, .v = v};
}
static inline dlua_arg dlua_none(void) {
  return (dlua_arg){.kind = DLUA_ARG_NONE};
} // a missing optional argument
static inline dlua_arg dlua_v(const dlua_value *v) {
  return (dlua_arg){.kind = DLUA_ARG_VALUE, .value = v};
} // passed on as it is

// Runs op with arguments in the order of its signature, tensors first (no T*); returns its first
// result, owned by s.
dlua_tensor *dlua_call_n(dlua_scope *s, const dlua_op *op, int n, const dlua_arg *args);
#define dlua_call(s, op, ...) \
  dlua_call_n(s, op, (int)(sizeof((dlua_arg[]){__VA_ARGS__}) / sizeof(dlua_arg)), \
              (dlua_arg[]){__VA_ARGS__})
// The same, filling all results of the op into out[0..nout) of DLUA_MAX_OUT.
void dlua_call_all_n(dlua_scope *s, const dlua_op *op, dlua_tensor **out, int n,
                     const dlua_arg *args);
#define dlua_call_all(s, op, out, ...) \
  dlua_call_all_n(s, op, out, (int)(sizeof((dlua_arg[]){__VA_ARGS__}) / sizeof(dlua_arg)), \
                  (dlua_arg[]){__VA_ARGS__})
// Runs an op with a list of tensors (cat, stack) and its numbers.
dlua_tensor *dlua_call_list(dlua_scope *s, const dlua_op *op, int nin, dlua_tensor **in, int n,
                            const dlua_arg *args);
// Plain numbers as tensors, and the arithmetic every formula needs; all owned by s.
dlua_tensor *dlua_num(dlua_scope *s, double value);
dlua_tensor *dlua_add(dlua_scope *s, dlua_tensor *x, dlua_tensor *y);
dlua_tensor *dlua_sub(dlua_scope *s, dlua_tensor *x, dlua_tensor *y);
dlua_tensor *dlua_mul(dlua_scope *s, dlua_tensor *x, dlua_tensor *y);
dlua_tensor *dlua_div(dlua_scope *s, dlua_tensor *x, dlua_tensor *y);
dlua_tensor *dlua_neg(dlua_scope *s, dlua_tensor *x);
dlua_tensor *dlua_scale(dlua_scope *s, dlua_tensor *x, double factor);
dlua_tensor *dlua_zeros_like(dlua_scope *s, const dlua_tensor *x);

// ---------------------------------------------------------------- gradients

// What a backward function sees of one recorded call. It calls ops only, so it runs on every device
// and can itself be recorded. b->g[k] is the gradient of result k, never NULL for float results
// (zeros where nothing came); but NULL where nothing came for one whose name starts with _.
struct dlua_back {
  dlua_scope *s;
  dlua_node *node;
  dlua_tensor **g;
  const dlua_value *num;
  int nin;
};

bool dlua_needs(const dlua_back *b, int input); // does anyone want the gradient of this input?
// A tensor listed in the op's .save, by its name in the signature ("x", "y", …; "xs" items by
// dlua_saved_at). Fails when it was changed in place since. NULL when the optional input was
// missing.
dlua_tensor *dlua_saved(dlua_back *b, const char *name);
dlua_tensor *dlua_saved_at(dlua_back *b, int slot); // the same by place: input k, or result -1 - k
// Hands over the gradient of an input; summed to the input's shape where it was broadcast, cast to
// its dtype.
void dlua_give(dlua_back *b, int input, dlua_tensor *gradient);
// The op whose call made this input, with that call in *maker for dlua_saved and its numbers: where
// in this walk nobody else gives that call a gradient, wants the input's own, or goes on to higher
// derivatives; NULL otherwise. A backward function may then do the first part of the maker's in its
// own kernel and hand over the result with dlua_give_ahead; the maker's finds dlua_is_ahead.
const dlua_op *dlua_sole_maker(const dlua_back *b, int input, dlua_back *maker);
void dlua_give_ahead(dlua_back *b, int input, dlua_tensor *gradient); // of the input's own shape
bool dlua_is_ahead(const dlua_back *b);
// Shape of an input of the recorded call, for rules that need it without saving the tensor.
void dlua_input_shape(const dlua_back *b, int input, int *ndim, int64_t *size);

// ---------------------------------------------------------------- shape rules shared by families

dlua_status dlua_shape_same(dlua_args *a);      // every result like in[0]
dlua_status dlua_shape_broadcast(dlua_args *a); // NumPy broadcasting over all T, I and B inputs;
                                                // "add: shapes {2,3} and {4} do not broadcast"
// Fails unless v is a value of dtype: "fill: 300 does not fit into u8 (0..255)". bool takes any.
dlua_status dlua_number_fits(const dlua_args *a, const dlua_value *v, dlua_dtype dtype);
// Sets spec[k] to a shape; the dtype stays what the rule gave.
void dlua_spec_shape(dlua_args *a, int k, int ndim, const int64_t *size);
// Arithmetic of sizes in shape rules: a result that does not fit stays at the end of the numbers it
// has passed, so a rule may calculate with whatever a script gives; such a size is refused later.
int64_t dlua_size_add(int64_t x, int64_t y);
int64_t dlua_size_mul(int64_t x, int64_t y);
// Fails with "op: what" plus all input shapes: (x {2,3}, w {4}). Use for every shape error.
dlua_status dlua_shape_error(const dlua_args *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// ---------------------------------------------------------------- helpers for kernels

// Reads entry i of a 1-based index and returns it 0-based; DLUA_BAD_ARGUMENT "gather: index 5 at
// position 3 is outside 1..4" otherwise. position counts from 0 here.
dlua_status dlua_index(const dlua_args *a, int64_t value, int64_t position, int64_t extent,
                       int64_t *index);

// ---------------------------------------------------------------- the list

#define DLUA_OP(name) extern const dlua_op dlua_op_##name;
#include "ops.def"
#undef DLUA_OP

int dlua_op_count(void);
const dlua_op *dlua_op_at(int k);
int dlua_op_id(const dlua_op *op);             // its row in ops.def
const dlua_op *dlua_op_find(const char *name); // NULL when there is none

// A parsed signature; made once per op, borrowed for ever.
typedef struct dlua_param {
  char name[24];
  char kind;     // T I B i f b n d D s e
  bool optional; // "?"
  bool list;     // T*
  bool plus_one; // d1
  int exactly;   // s2: 2
  bool has_default;
  dlua_value preset; // the default
  double lo, hi;     // T(lo,hi)
  bool bounded;
  int nwords;
  char words[8][16]; // e{…}
} dlua_param;

typedef struct dlua_signature {
  int ntensor, nnum, nresult; // ntensor counts a T* as one
  bool has_list;
  dlua_param tensor[DLUA_MAX_IN], num[DLUA_MAX_NUM];
  char result[DLUA_MAX_OUT][24];
  int order[DLUA_MAX_IN + DLUA_MAX_NUM]; // as written: k >= 0 is tensor k, -1-k is number k
} dlua_signature;

const dlua_signature *dlua_op_signature(const dlua_op *op);

#endif
