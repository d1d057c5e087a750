// op.c - dlua_run, the one dispatch point: every computation passes the stages below in this order.
//
//   check    kinds of the inputs, one device, stale views, numbers of dimensions
//   convert  dtypes to what the op's rule says, blocked layouts to strided where the kernel takes none
//   shape    the op's rule says what the results are
//   target   fresh tensors, or the first input when the result goes in place
//   record   the tape's node is prepared, when a gradient may be asked for
//   kernel   the device's; on the CPU fast ones first, the plain one last
//   finish   results in the promised dtype; the node is hung onto them
//
// All that can fail happens before the kernel writes, so a failed call has changed nothing. Refused: a
// per-op choice of any of this. What differs between ops is said by fields of their struct.
#include <stdio.h>
#include <string.h>

#include "autocast.h"
#include "backend.h"
#include "cpu/layout.h"
#include "env.h"
#include "grad.h"
#include "run.h"

void dlua_args_init(dlua_args *a, const dlua_op *op) {
  a->op = op, a->sig = dlua_op_signature(op);
  a->nin = a->sig->ntensor - a->sig->has_list, a->nout = a->sig->nresult;
  a->inplace = a->dtype_set = false;
  a->dtype = DLUA_F32, a->device = dlua_cpu(), a->in = a->slots;
  memset(a->slots, 0, sizeof a->slots);
  memset(a->out, 0, sizeof a->out);
  for (int k = 0; k < a->sig->nnum; k++) a->num[k] = a->sig->num[k].preset;
}

// ---------------------------------------------------------------- target

// Where the kernel writes: x itself when dtype and layout allow it.
static bool writes_directly(const dlua_frame *f) {
  return f->a->inplace && f->given[0] == f->in[0] && f->a->spec[0].dtype == f->given[0]->dtype &&
         f->a->spec[0].layout == f->given[0]->storage->layout;
}

static dlua_status make_result(dlua_frame *f, int k) {
  dlua_args *a = f->a;
  dlua_spec *s = &a->spec[k];
  bool target = a->inplace && k == 0;
  if (target)
    f->results[k] = dlua_tensor_retain(f->given[0]);
  else {
    DLUA_TRY(dlua_tensor_new(&f->results[k], f->final[k], s->ndim, s->size, a->device));
    bool keeps = f->final[k] == s->dtype || s->layout == DLUA_NHWC; // blocks are of f32 alone
    if (keeps) f->results[k]->storage->layout = (uint8_t)s->layout;
  }
  if (target ? writes_directly(f) : f->final[k] == s->dtype) {
    a->out[k] = dlua_tensor_retain(f->results[k]);
    return DLUA_OK;
  }
  DLUA_TRY(dlua_tensor_new(&a->out[k], s->dtype, s->ndim, s->size, a->device));
  a->out[k]->storage->layout = (uint8_t)s->layout;
  return DLUA_OK;
}

// Brings what the kernel wrote to the results, and what it wrote to converted inputs back to the
// given ones.
static dlua_status finish_results(dlua_frame *f) {
  dlua_args *a = f->a;
  for (int k = 0; k < a->nout; k++) {
    dlua_tensor *result = f->results[k];
    bool target = a->inplace && k == 0;
    if (a->out[k] != result) {
      DLUA_TRY(dlua_copy(result, a->out[k]));
      if (!target) result->storage->version = 0;
    } else if (target)
      result->storage->version++;
    dlua_tensor_release(a->out[k]);
    a->out[k] = result, f->results[k] = NULL;
  }
  for (int k = 0; k < a->nin && a->op->writes; k++) {
    if (f->in[k] == f->given[k] || !dlua_word_in(dlua_input_name(a, k), a->op->writes)) continue;
    DLUA_TRY(dlua_copy(f->given[k], f->in[k]));
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- kernel

// A call in bf16 that no fast kernel took: on f32 copies, the results rounded once.
static dlua_status run_widened(const dlua_args *a, dlua_args *wide) {
  for (int k = 0; k < a->nin; k++) {
    if (a->in[k]) DLUA_TRY(dlua_cast(a->in[k], DLUA_F32, &wide->in[k]));
  }
  for (int k = 0; k < a->nout; k++) {
    const dlua_tensor *out = a->out[k];
    DLUA_TRY(dlua_tensor_new(&wide->out[k], DLUA_F32, out->ndim, out->size, dlua_cpu()));
  }
  DLUA_TRY(dlua_run_cpu(wide));
  for (int k = 0; k < a->nout; k++) DLUA_TRY(dlua_copy(a->out[k], wide->out[k]));
  return DLUA_OK;
}

static dlua_status widen(const dlua_args *a) {
  dlua_args wide = *a;
  wide.in = wide.slots;
  memset(wide.slots, 0, sizeof wide.slots);
  memset(wide.out, 0, sizeof wide.out);
  dlua_status status = run_widened(a, &wide);
  for (int k = 0; k < a->nin; k++) dlua_tensor_release(wide.in[k]);
  for (int k = 0; k < a->nout; k++) dlua_tensor_release(wide.out[k]);
  return status;
}

static bool has_nhwc(const dlua_args *a) {
  bool found = false;
  for (int k = 0; k < a->nin; k++) found |= dlua_is_nhwc(a->in[k]);
  for (int k = 0; k < a->nout; k++) found |= dlua_is_nhwc(a->out[k]);
  return found;
}

dlua_status dlua_run_cpu(const dlua_args *a) {
  const dlua_op *op = a->op;
  if (op->fast && !dlua_reference_mode()) {
    for (dlua_kernel *const *kernel = op->fast; *kernel; kernel++) {
      dlua_status status = (*kernel)(a);
      if (status != DLUA_DECLINED) return status;
    }
  }
  if ((op->flags & DLUA_BF16_UNITS) && a->in[0]->dtype == DLUA_BF16) return widen(a);
  return has_nhwc(a) && (op->flags & DLUA_LAYOUTS) ? dlua_run_strided(a, op->cpu) : op->cpu(a);
}

// DLUA_VERBOSE=1: one line per call.
static void report(const dlua_args *a) {
  fprintf(stderr, "%s%s on %s:", a->op->name, a->inplace ? "_" : "", a->device->name);
  for (int k = 0; k < a->nin; k++) {
    if (a->in[k])
      fprintf(stderr, " %s%s", dlua_dtype_name((dlua_dtype)a->in[k]->dtype),
              dlua_shape_text(a->in[k]));
  }
  fprintf(stderr, " -> %s\n", dlua_sizes_text(a->spec[0].ndim, a->spec[0].size));
}

// On another device: DLUA_SYNC=1 waits after each op, so that a late fault is blamed on the right
// one.
static dlua_status run_device(const dlua_args *a) {
  static int wait = -1;
  if (wait < 0) wait = dlua_env_on("DLUA_SYNC");
  dlua_kernel *kernel = a->device->backend->kernel(a->op);
  if (!kernel) {
    return dlua_fail(DLUA_BAD_DEVICE, "%s: there is no kernel for it on %s", a->op->name,
                     a->device->name);
  }
  DLUA_TRY(kernel(a));
  return wait ? dlua_synchronize(a->device) : DLUA_OK;
}

static dlua_status run_kernel(const dlua_args *a) {
  static int verbose = -1;
  if (verbose < 0) verbose = dlua_env_on("DLUA_VERBOSE");
  if (verbose) report(a);
  return a->device == dlua_cpu() ? dlua_run_cpu(a) : run_device(a);
}

static int reference = -1;

bool dlua_reference_mode(void) {
  if (reference < 0) reference = dlua_env_on("DLUA_REF");
  return reference;
}

void dlua_set_reference_mode(bool on) { reference = on; }

// ---------------------------------------------------------------- the stages in order

static dlua_status prepare(dlua_frame *f) {
  DLUA_TRY(dlua_check_call(f->a));
  f->record = dlua_should_record(f->a);
  return dlua_convert_inputs(f);
}

static dlua_status compute(dlua_frame *f) {
  dlua_args *a = f->a;
  DLUA_TRY(a->op->shape(a));
  DLUA_TRY(dlua_check_results(f));
  if (a->op->flags & DLUA_VIEW) {
    return f->record ? dlua_record_open(&f->node, a, f->given, a->out) : DLUA_OK;
  }
  for (int k = 0; k < a->nout; k++) {
    bool narrowed = f->narrow != DLUA_F32 && a->spec[k].dtype == DLUA_F32 && !a->spec[k].wide;
    f->final[k] = narrowed ? f->narrow : a->spec[k].dtype;
  }
  if (a->inplace) {
    DLUA_TRY(dlua_check_target(f));
    DLUA_TRY(dlua_copy_overlaps(f));
  }
  for (int k = 0; k < a->nout; k++) DLUA_TRY(make_result(f, k));
  // Everything the record needs is there before the kernel writes: a call that fails has changed
  // nothing.
  if (f->record) DLUA_TRY(dlua_record_open(&f->node, a, f->given, f->results));
  DLUA_TRY(run_kernel(a));
  return finish_results(f);
}

// Room for the converted inputs and the temporaries of calls with many inputs.
static dlua_status open_frame(dlua_frame *f, dlua_args *a) {
  f->a = a, f->sig = a->sig, f->given = a->in, f->ntemps = f->nnumbers = 0;
  f->in = f->converted, f->temps = f->few, f->node = NULL;
  memset(f->results, 0, sizeof f->results);
  size_t bytes = (size_t)a->nin * sizeof(dlua_tensor *);
  if (a->nin > DLUA_MAX_IN) {
    f->in = dlua_new(3 * bytes);
    if (!f->in) return DLUA_NO_MEMORY;
    f->temps = f->in + a->nin; // an input may be converted twice
  }
  memcpy(f->in, a->in, bytes);
  return DLUA_OK;
}

static void close_frame(dlua_frame *f) {
  for (int k = 0; k < DLUA_MAX_OUT; k++) dlua_tensor_release(f->results[k]);
  for (int k = 0; k < f->ntemps; k++) dlua_tensor_release(f->temps[k]);
  f->a->in = f->given;
  if (f->in != f->converted) dlua_delete(f->in, 3 * (size_t)f->a->nin * sizeof(dlua_tensor *));
}

static void drop_results(dlua_args *a) {
  for (int k = 0; k < DLUA_MAX_OUT; k++) {
    dlua_tensor_release(a->out[k]);
    a->out[k] = NULL;
  }
}

static dlua_status run(dlua_args *a) {
  dlua_frame f;
  DLUA_TRY(open_frame(&f, a));
  a->in = f.in;
  dlua_status status = prepare(&f);
  if (status == DLUA_OK) status = compute(&f);
  close_frame(&f);
  if (status != DLUA_OK) {
    drop_results(a);
    dlua_name_failure(status, dlua_call_name(a));
  } else if (f.node)
    dlua_record_close(f.node, a);
  dlua_node_release(f.node);
  return status;
}

dlua_status dlua_run(dlua_args *a) {
  return dlua_autocast() == DLUA_F32 ? run(a) : dlua_run_autocast(a, run);
}
