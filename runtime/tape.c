// tape.c - recording: nodes, what they keep, and their release. The walk over them is in
// backward.c.
#include <stddef.h>
#include <string.h>

#include "backend.h"
#include "grad.h"

static _Thread_local bool grad_off;
static uint64_t last_seq;

bool dlua_grad_mode(void) { return !grad_off; }

bool dlua_set_grad_mode(bool on) {
  bool was = !grad_off;
  grad_off = !on;
  return was;
}

// ---------------------------------------------------------------- what an op keeps

enum { MOST_KEPT = 12, WHOLE_LIST = INT16_MAX };

enum {
#define DLUA_OP(name) ROW_##name,
#include "ops.def"
#undef DLUA_OP
  OPS
};

// An op's .save, read once: input k, result -1 - k, or WHOLE_LIST for the items of its T*.
typedef struct plan {
  int ready, count;
  int16_t slot[MOST_KEPT];
} plan;

static plan plans[OPS];

static bool same_word(const char *word, size_t n, const char *name) {
  return strlen(name) == n && strncmp(word, name, n) == 0;
}

// The slot of a name in the signature; INT16_MIN when there is none.
static int slot_named(const dlua_signature *sig, const char *word, size_t n) {
  for (int k = 0; k < sig->ntensor; k++) {
    if (same_word(word, n, sig->tensor[k].name)) return sig->tensor[k].list ? WHOLE_LIST : k;
  }
  for (int k = 0; k < sig->nresult; k++) {
    if (same_word(word, n, sig->result[k])) return -1 - k;
  }
  return INT16_MIN;
}

static const plan *plan_of(const dlua_op *op, const dlua_signature *sig) {
  plan *p = &plans[dlua_op_id(op)];
  if (__atomic_load_n(&p->ready, __ATOMIC_ACQUIRE)) return p;
  plan fresh = {0};
  for (const char *at = op->save ? op->save : ""; *at;) {
    size_t n = strcspn(at, " ");
    int slot = slot_named(sig, at, n);
    if (slot != INT16_MIN && fresh.count < MOST_KEPT) fresh.slot[fresh.count++] = (int16_t)slot;
    at += n + strspn(at + n, " ");
  }
  memcpy(p->slot, fresh.slot, sizeof p->slot);
  p->count = fresh.count;
  __atomic_store_n(&p->ready, 1, __ATOMIC_RELEASE);
  return p;
}

// ---------------------------------------------------------------- nodes

static dlua_node *node_new(const dlua_op *op, int nin, int nout, int nkept, int nnum) {
  size_t edges = (size_t)nin * sizeof(dlua_edge), kept = (size_t)nkept * sizeof(dlua_kept);
  size_t num = (size_t)nnum * sizeof(dlua_value), results = (size_t)nout * sizeof(dlua_spec);
  size_t pending = (size_t)nout * sizeof(dlua_tensor *);
  size_t bytes = sizeof(dlua_node) + edges + kept + num + results + pending;
  char *at = dlua_new(bytes);
  if (!at) return NULL;
  dlua_node *node = (dlua_node *)at;
  node->refs = 1, node->op = op, node->bytes = bytes;
  node->seq = __atomic_add_fetch(&last_seq, 1, __ATOMIC_RELAXED);
  node->nin = nin, node->nout = nout, node->nkept = nkept, node->nnum = nnum;
  node->edges = (dlua_edge *)(at += sizeof(dlua_node));
  node->kept = (dlua_kept *)(at += edges);
  node->num = (dlua_value *)(at += kept);
  node->results = (dlua_spec *)(at += num);
  node->pending = (dlua_tensor **)(at + results);
  dlua_where(node->where, sizeof node->where);
  return node;
}

static void node_clear(dlua_node *node) {
  for (int k = 0; k < node->nkept; k++) dlua_tensor_release(node->kept[k].tensor);
  for (int k = 0; k < node->nout; k++) dlua_tensor_release(node->pending[k]);
  for (int k = 0; k < node->nin; k++) {
    dlua_tensor_release(node->edges[k].leaf);
    dlua_node_release(node->edges[k].node);
  }
  if (node->drop) node->drop(node->user);
}

void dlua_node_release(dlua_node *node) {
  static _Thread_local dlua_node *queue;
  static _Thread_local bool draining;
  if (!node || __atomic_sub_fetch(&node->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  node->next = queue, queue = node;
  if (draining) return; // the loop below, further up the stack, will come to it
  draining = true;
  while (queue) {
    dlua_node *first = queue;
    queue = first->next;
    node_clear(first);
    dlua_delete(first, first->bytes);
  }
  draining = false;
}

static dlua_node *node_retain(dlua_node *node) {
  __atomic_add_fetch(&node->refs, 1, __ATOMIC_RELAXED);
  return node;
}

static void set_edge(dlua_edge *edge, dlua_tensor *x) {
  if (!x) return;
  edge->dtype = x->dtype, edge->ndim = x->ndim;
  memcpy(edge->size, x->size, x->ndim * sizeof *x->size);
  if (!x->requires_grad) return;
  if (x->node)
    edge->node = node_retain(x->node), edge->output = x->output;
  else
    edge->leaf = dlua_tensor_retain(x);
}

static void set_result(dlua_node *node, int k, dlua_tensor *y) {
  dlua_spec *spec = &node->results[k];
  spec->dtype = (dlua_dtype)y->dtype, spec->ndim = y->ndim;
  memcpy(spec->size, y->size, y->ndim * sizeof *y->size);
  if (!dlua_is_float((dlua_dtype)y->dtype)) return;
  dlua_node *old = y->node;
  y->node = node_retain(node), y->output = (uint8_t)k, y->requires_grad = true;
  dlua_node_release(old); // of an in-place call: its history hangs on the new node now
}

static dlua_status keep(dlua_kept *kept, int slot, dlua_tensor *x) {
  kept->slot = (int16_t)slot;
  if (!x) return DLUA_OK;
  DLUA_TRY(dlua_tensor_detach(&kept->tensor, x));
  kept->version =
      x->storage->version; // before the kernel: an input that it overwrites will not match
  return DLUA_OK;
}

static dlua_status keep_all(dlua_node *node, const dlua_args *a, dlua_tensor **in,
                            dlua_tensor **results, const plan *p) {
  int n = 0;
  for (int k = 0; k < p->count; k++) {
    int slot = p->slot[k];
    if (slot == WHOLE_LIST) {
      for (int i = a->sig->ntensor - 1; i < a->nin; i++) DLUA_TRY(keep(&node->kept[n++], i, in[i]));
    } else
      DLUA_TRY(keep(&node->kept[n++], slot, slot >= 0 ? in[slot] : results[-1 - slot]));
  }
  return DLUA_OK;
}

static int kept_count(const dlua_args *a, const plan *p) {
  int n = 0;
  for (int k = 0; k < p->count; k++)
    n += p->slot[k] == WHOLE_LIST ? a->nin - a->sig->ntensor + 1 : 1;
  return n;
}

bool dlua_should_record(const dlua_args *a) {
  if (grad_off || (a->op->flags & DLUA_NO_GRAD) || a->op->dtype == DLUA_COMPARE) return false;
  for (int k = 0; k < a->nin; k++) {
    if (a->in[k] && a->in[k]->requires_grad) return true;
  }
  return false;
}

dlua_status dlua_record_open(dlua_node **record, const dlua_args *a, dlua_tensor **in,
                             dlua_tensor **results) {
  const plan *p = plan_of(a->op, a->sig);
  dlua_node *node = node_new(a->op, a->nin, a->nout, kept_count(a, p), a->sig->nnum);
  if (!node) return DLUA_NO_MEMORY;
  node->device = a->device;
  memcpy(node->num, a->num, (size_t)a->sig->nnum * sizeof *a->num);
  dlua_status status = keep_all(node, a, in, results, p);
  for (int k = 0; status == DLUA_OK && k < a->nin; k++) set_edge(&node->edges[k], in[k]);
  if (status != DLUA_OK) return dlua_node_release(node), status;
  *record = node;
  return DLUA_OK;
}

void dlua_record_close(dlua_node *node, dlua_args *a) {
  for (int k = 0; k < node->nkept; k++) {
    dlua_kept *kept = &node->kept[k];
    if (kept->slot < 0 && kept->tensor) kept->version = kept->tensor->storage->version;
  }
  for (int k = 0; k < a->nout; k++) set_result(node, k, a->out[k]);
  if (a->inplace) a->out[0]->rewrites = ++a->out[0]->storage->rewrites;
}

dlua_status dlua_record_custom(int nin, dlua_tensor **in, int nout, dlua_tensor **out,
                               void (*back)(dlua_back *b, void *user), void (*drop)(void *user),
                               void *user) {
  static const dlua_op function = {.name = "Function", .sig = "-> y", .doc = ""};
  dlua_node *node = node_new(&function, nin, nout, 0, 0);
  if (!node) {
    drop(user);
    return DLUA_NO_MEMORY;
  }
  node->device = nin && in[0] ? dlua_device_of(in[0]) : dlua_cpu();
  node->back = back, node->drop = drop, node->user = user;
  for (int k = 0; k < nin; k++) set_edge(&node->edges[k], in[k]);
  for (int k = 0; k < nout; k++) set_result(node, k, out[k]);
  dlua_node_release(node);
  return DLUA_OK;
}

dlua_status dlua_attach(dlua_tensor *x, const dlua_tensor *of) {
  if (of->node && !x->node)
    x->node = node_retain(of->node), x->output = of->output, x->requires_grad = true;
  return DLUA_OK;
}
