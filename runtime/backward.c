// backward.c - the walk over the tape. Nodes wait in a heap by seq; the one with the highest number
// has received all its gradients. Nothing here recurses, and what a node kept is dropped as soon as
// its turn is over.
#include <string.h>

#include "autocast.h"
#include "backend.h"
#include "grad.h"

// A tensor whose gradient is asked for (dlua_grad), and what has come so far.
typedef struct target {
  dlua_tensor *x;
  dlua_tensor *gradient; // owned
} target;

typedef struct list { // a growing array of nodes or tensors
  void **item;
  int count, capacity;
} list;

typedef struct walk {
  dlua_scope scope; // of the running node
  list heap;        // nodes, owned
  list leaves;      // leaves that got a gradient in this turn, borrowed
  list nodes;       // all that the walk may come to, owned and marked as its own
  int ntargets;
  target *targets; // NULL: gradients go to the leaves' grad
  bool retain, create;
} walk;

static _Thread_local walk *current; // dlua_give reaches its walk through it

// ---------------------------------------------------------------- lists and the heap

static dlua_status push(list *l, void *item) {
  if (l->count == l->capacity) {
    int wider = l->capacity ? 2 * l->capacity : 64;
    void **grown = dlua_new((size_t)wider * sizeof *grown);
    if (!grown) return DLUA_NO_MEMORY;
    if (l->count) memcpy(grown, l->item, (size_t)l->count * sizeof *grown);
    dlua_delete(l->item, (size_t)l->capacity * sizeof *l->item);
    l->item = grown, l->capacity = wider;
  }
  l->item[l->count++] = item;
  return DLUA_OK;
}

static void list_free(list *l) { dlua_delete(l->item, (size_t)l->capacity * sizeof *l->item); }

static uint64_t seq_at(const list *heap, int k) { return ((dlua_node *)heap->item[k])->seq; }

static void swap(list *heap, int i, int j) {
  void *item = heap->item[i];
  heap->item[i] = heap->item[j], heap->item[j] = item;
}

static dlua_status heap_push(list *heap, dlua_node *node) {
  DLUA_TRY(push(heap, node));
  __atomic_add_fetch(&node->refs, 1, __ATOMIC_RELAXED);
  for (int k = heap->count - 1; k > 0 && seq_at(heap, k) > seq_at(heap, (k - 1) / 2);
       k = (k - 1) / 2) {
    swap(heap, k, (k - 1) / 2);
  }
  return DLUA_OK;
}

static dlua_node *heap_pop(list *heap) {
  dlua_node *top = heap->item[0];
  heap->item[0] = heap->item[--heap->count];
  for (int k = 0;;) {
    int child = 2 * k + 1;
    if (child >= heap->count) return top;
    if (child + 1 < heap->count && seq_at(heap, child + 1) > seq_at(heap, child)) child++;
    if (seq_at(heap, k) >= seq_at(heap, child)) return top;
    swap(heap, k, child);
    k = child;
  }
}

// ---------------------------------------------------------------- gradients on their way

static bool only_ours(const dlua_tensor *x) { return x->refs == 1 && x->storage->refs == 1; }

// *sum += g, taking a reference of g or making a new tensor; in place where nobody else can see it.
static dlua_status accumulate(dlua_tensor **sum, dlua_tensor *g) {
  if (!*sum) return *sum = dlua_tensor_retain(g), DLUA_OK;
  dlua_args a;
  dlua_args_init(&a, &dlua_op_add);
  a.in[0] = *sum, a.in[1] = g;
  a.inplace = !dlua_grad_mode() && only_ours(*sum) &&
              (*sum)->storage->layout == g->storage->layout &&
              (dlua_is_contiguous(*sum) || (*sum)->storage->layout != DLUA_STRIDED);
  DLUA_TRY(dlua_run(&a));
  dlua_tensor_release(*sum);
  *sum = a.out[0];
  return DLUA_OK;
}

static bool is_pending(const dlua_node *node) {
  for (int k = 0; k < node->nout; k++) {
    if (node->pending[k]) return true;
  }
  return false;
}

static dlua_status to_leaf(walk *w, dlua_tensor *leaf, dlua_tensor *g) {
  if (!w->targets) {
    DLUA_TRY(accumulate(&leaf->grad, g));
    return push(&w->leaves, leaf);
  }
  for (int k = 0; k < w->ntargets; k++) {
    if (w->targets[k].x == leaf) DLUA_TRY(accumulate(&w->targets[k].gradient, g));
  }
  return DLUA_OK;
}

static dlua_status to_node(walk *w, dlua_node *node, int output, dlua_tensor *g) {
  if (!is_pending(node)) DLUA_TRY(heap_push(&w->heap, node));
  return accumulate(&node->pending[output], g);
}

static bool edge_fits(const dlua_edge *edge, const dlua_tensor *g) {
  return edge->ndim == g->ndim && memcmp(edge->size, g->size, g->ndim * sizeof *g->size) == 0;
}

void dlua_give(dlua_back *b, int input, dlua_tensor *gradient) {
  const dlua_edge *edge = &b->node->edges[input];
  if (!gradient || b->s->status != DLUA_OK || !edge->wanted) return;
  if (!edge_fits(edge, gradient)) {
    gradient =
        dlua_call(b->s, &dlua_op_sum_to, dlua_t(gradient), dlua_list(edge->ndim, edge->size));
  }
  if (gradient && gradient->dtype != edge->dtype) {
    gradient = dlua_call(b->s, &dlua_op_cast, dlua_t(gradient), dlua_i(edge->dtype));
  }
  if (!gradient) return;
  dlua_status status = edge->leaf ? to_leaf(current, edge->leaf, gradient)
                                  : to_node(current, edge->node, edge->output, gradient);
  if (status != DLUA_OK) dlua_failed(b->s, status);
}

// ---------------------------------------------------------------- gradients given ahead

static bool is_target(const walk *w, const dlua_edge *edge) {
  for (int k = 0; k < w->ntargets; k++) {
    const dlua_tensor *x = w->targets[k].x;
    if (edge->leaf ? x == edge->leaf : x->node == edge->node && x->output == edge->output)
      return true;
  }
  return false;
}

const dlua_op *dlua_sole_maker(const dlua_back *b, int input, dlua_back *maker) {
  const dlua_edge *edge = &b->node->edges[input];
  dlua_node *node = edge->wanted ? edge->node : NULL;
  bool sole = node && node->uses == 1 && !node->back && !node->freed;
  if (!sole || current->create || is_target(current, edge)) return NULL;
  *maker = (dlua_back){.s = b->s, .node = node, .num = node->num, .nin = node->nin};
  return node->op;
}

void dlua_give_ahead(dlua_back *b, int input, dlua_tensor *gradient) {
  dlua_give(b, input, gradient);
  if (gradient && b->s->status == DLUA_OK) b->node->edges[input].node->ahead = true;
}

bool dlua_is_ahead(const dlua_back *b) { return b->node->ahead; }

// ---------------------------------------------------------------- what a backward function reads

bool dlua_needs(const dlua_back *b, int input) { return b->node->edges[input].wanted; }

void dlua_input_shape(const dlua_back *b, int input, int *ndim, int64_t *size) {
  const dlua_edge *edge = &b->node->edges[input];
  *ndim = edge->ndim;
  memcpy(size, edge->size, edge->ndim * sizeof *size);
}

static int slot_of(const dlua_signature *sig, const char *name) {
  for (int k = 0; k < sig->ntensor; k++) {
    if (strcmp(name, sig->tensor[k].name) == 0) return k;
  }
  for (int k = 0; k < sig->nresult; k++) {
    if (strcmp(name, sig->result[k]) == 0) return -1 - k;
  }
  return INT16_MIN;
}

// With create_graph a kept tensor gets its history back: an input its edge, a result this node.
static dlua_tensor *with_history(dlua_back *b, const dlua_kept *kept) {
  const dlua_edge *edge = kept->slot >= 0 ? &b->node->edges[kept->slot] : NULL;
  if (edge && edge->leaf && edge->leaf->storage == kept->tensor->storage) return edge->leaf;
  dlua_node *node = edge ? edge->node : b->node;
  if (!node || !dlua_is_float((dlua_dtype)kept->tensor->dtype)) return kept->tensor;
  dlua_tensor *x = NULL;
  dlua_status status = dlua_tensor_detach(&x, kept->tensor);
  if (status != DLUA_OK) return dlua_failed(b->s, status);
  x->node = node, x->requires_grad = true;
  x->output = edge ? edge->output : (uint8_t)(-1 - kept->slot);
  __atomic_add_fetch(&node->refs, 1, __ATOMIC_RELAXED);
  return dlua_own(b->s, x);
}

dlua_tensor *dlua_saved_at(dlua_back *b, int slot) {
  if (b->s->status != DLUA_OK) return NULL;
  for (int k = 0; k < b->node->nkept; k++) {
    const dlua_kept *kept = &b->node->kept[k];
    if (kept->slot != slot) continue;
    if (!kept->tensor) return NULL;
    if (kept->tensor->storage->version == kept->version) {
      return dlua_grad_mode() ? with_history(b, kept) : kept->tensor;
    }
    const char *where = b->node->where;
    return dlua_failed(b->s,
                       dlua_fail(DLUA_BAD_STATE,
                                 "%s: a tensor that its gradient needs (%s) was changed in place "
                                 "after the call%s%s; clone it before changing it",
                                 b->node->op->name, dlua_shape_text(kept->tensor),
                                 where[0] ? " at " : "", where));
  }
  return dlua_failed(b->s, dlua_fail(DLUA_BAD_STATE,
                                     "%s: its gradient reads a tensor that .save does not name",
                                     b->node->op->name));
}

dlua_tensor *dlua_saved(dlua_back *b, const char *name) {
  return dlua_saved_at(b, slot_of(dlua_op_signature(b->node->op), name));
}

// ---------------------------------------------------------------- one turn

// Is result k of an op for backward alone? A function of a script has no signature, nor such results.
static bool is_internal(const dlua_node *node, int k) {
  return !node->back && dlua_op_signature(node->op)->result[k][0] == '_';
}

static dlua_status fill_missing(dlua_node *node) {
  for (int k = 0; k < node->nout; k++) {
    const dlua_spec *r = &node->results[k];
    if (node->pending[k] || !dlua_is_float(r->dtype) || is_internal(node, k)) continue;
    DLUA_TRY(dlua_tensor_new(&node->pending[k], r->dtype, r->ndim, r->size, node->device));
    DLUA_TRY(dlua_tensor_fill(node->pending[k], 0));
    node->pending[k]->storage->version = 0;
  }
  return DLUA_OK;
}

// A gradient that is handed out must be its own contiguous memory: several leaves may have been
// given one tensor.
static dlua_status settle(dlua_tensor **gradient) {
  dlua_tensor *g = *gradient;
  if (!g || (only_ours(g) && dlua_is_contiguous(g))) return DLUA_OK;
  dlua_args a;
  dlua_args_init(&a, &dlua_op_clone);
  a.in[0] = g;
  DLUA_TRY(dlua_run(&a)); // recorded with create_graph
  dlua_tensor_release(g);
  *gradient = a.out[0];
  return DLUA_OK;
}

static dlua_status settle_leaves(walk *w) {
  dlua_status status = DLUA_OK;
  for (int k = 0; k < w->leaves.count && status == DLUA_OK; k++) {
    status = settle(&((dlua_tensor *)w->leaves.item[k])->grad);
  }
  w->leaves.count = 0;
  return status;
}

static dlua_status settle_targets(walk *w) {
  for (int k = 0; k < w->ntargets; k++) DLUA_TRY(settle(&w->targets[k].gradient));
  return DLUA_OK;
}

static dlua_status run_back(walk *w, dlua_node *node) {
  dlua_back b = {
      .s = &w->scope, .node = node, .g = node->pending, .num = node->num, .nin = node->nin};
  if (node->freed) {
    return dlua_fail(DLUA_BAD_STATE,
                     "backward: this part of the graph was freed by an earlier backward; "
                     "pass {retain_graph = true} to that call (%s)",
                     node->op->name);
  }
  DLUA_TRY(fill_missing(node));
  dlua_scope_begin(&w->scope);
  if (node->back)
    node->back(&b, node->user);
  else
    node->op->back(&b);
  return dlua_scope_end(&w->scope);
}

static void forget(dlua_node *node) {
  for (int k = 0; k < node->nkept; k++) {
    dlua_tensor_release(node->kept[k].tensor);
    node->kept[k].tensor = NULL;
  }
  node->freed = node->nkept > 0;
}

static void drop_pending(dlua_node *node) {
  node->ahead = false;
  for (int k = 0; k < node->nout; k++) {
    dlua_tensor_release(node->pending[k]);
    node->pending[k] = NULL;
  }
}

static dlua_status capture(walk *w, const dlua_node *node) {
  for (int k = 0; k < w->ntargets; k++) {
    target *t = &w->targets[k];
    if (t->x->node != node || !node->pending[t->x->output]) continue;
    DLUA_TRY(accumulate(&t->gradient, node->pending[t->x->output]));
  }
  return DLUA_OK;
}

static bool leads_on(const dlua_node *node) {
  for (int k = 0; k < node->nin; k++) {
    if (node->edges[k].wanted) return true;
  }
  return false;
}

static dlua_status turn(walk *w, dlua_node *node) {
  dlua_status status = w->targets ? capture(w, node) : DLUA_OK;
  bool on = status == DLUA_OK && leads_on(node);
  if (on) status = run_back(w, node);
  drop_pending(node);
  if (on && status == DLUA_OK && !w->retain) forget(node);
  return status == DLUA_OK ? settle_leaves(w) : status;
}

// ---------------------------------------------------------------- which edges matter

// All nodes behind the outputs, each once, highest seq first.
static dlua_status collect(list *nodes, int noutputs, dlua_tensor **outputs) {
  list heap = {0};
  dlua_status status = DLUA_OK;
  for (int k = 0; k < noutputs && status == DLUA_OK; k++) {
    if (outputs[k]->node) status = heap_push(&heap, outputs[k]->node);
  }
  uint64_t last = UINT64_MAX;
  while (heap.count) {
    dlua_node *node = heap_pop(&heap);
    if (node->seq != last && status == DLUA_OK) {
      last = node->seq;
      status = push(nodes, node);
      for (int k = 0; k < node->nin && status == DLUA_OK; k++) {
        if (node->edges[k].node) status = heap_push(&heap, node->edges[k].node);
      }
    }
    dlua_node_release(node);
  }
  list_free(&heap);
  return status;
}

// Takes the nodes for this walk; their pending gradients must not belong to a walk that has called
// this one.
static dlua_status enter_nodes(walk *w) {
  for (int n = 0; n < w->nodes.count; n++) {
    dlua_node *node = w->nodes.item[n];
    if (node->walked) {
      for (int k = 0; k < n; k++) ((dlua_node *)w->nodes.item[k])->walked = false;
      w->nodes.count = 0;
      return dlua_fail(DLUA_BAD_STATE,
                       "backward: this graph is being walked by an outer backward; detach what "
                       "is differentiated inside it (%s)",
                       node->op->name);
    }
    node->walked = true, node->uses = 0;
  }
  for (int n = 0; n < w->nodes.count; n++)
    __atomic_add_fetch(&((dlua_node *)w->nodes.item[n])->refs, 1, __ATOMIC_RELAXED);
  return DLUA_OK;
}

static void leave_nodes(walk *w) {
  for (int n = 0; n < w->nodes.count; n++) {
    dlua_node *node = w->nodes.item[n];
    node->walked = false;
    dlua_node_release(node);
  }
  list_free(&w->nodes);
}

// Marks the edges on a way to a target; without targets, every edge that goes anywhere. Counts for
// each node how often it will be given a gradient at most.
static dlua_status mark_wanted(walk *w, int noutputs, dlua_tensor **outputs) {
  dlua_status status = collect(&w->nodes, noutputs, outputs);
  if (status != DLUA_OK)
    w->nodes.count = 0;
  else
    status = enter_nodes(w);
  for (int n = w->nodes.count - 1; n >= 0; n--) { // inputs before results
    dlua_node *node = w->nodes.item[n];
    for (int k = 0; k < node->nin; k++) {
      dlua_edge *edge = &node->edges[k];
      bool anywhere = edge->leaf || edge->node;
      bool leads = edge->node && leads_on(edge->node);
      edge->wanted = anywhere && (!w->targets || is_target(w, edge) || leads);
      if (edge->wanted && edge->node) edge->node->uses++;
    }
  }
  for (int k = 0; k < noutputs && status == DLUA_OK; k++)
    if (outputs[k]->node) outputs[k]->node->uses++;
  return status;
}

// ---------------------------------------------------------------- entry points

static dlua_status check_root(dlua_tensor *x, dlua_tensor *gradient) {
  if (!x->requires_grad) {
    return dlua_fail(DLUA_BAD_STATE,
                     "backward: x does not require gradient: nothing it was made from does (x %s)",
                     dlua_shape_text(x));
  }
  if (!gradient && dlua_numel(x) != 1) {
    return dlua_fail(
        DLUA_BAD_ARGUMENT,
        "backward: x has %lld elements; reduce it to one (sum, mean) or pass its gradient (x %s)",
        (long long)dlua_numel(x), dlua_shape_text(x));
  }
  if (gradient && dlua_device_of(gradient) != dlua_device_of(x)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "backward: x is on %s but the gradient is on %s (x %s)",
                     dlua_device_name(dlua_device_of(x)),
                     dlua_device_name(dlua_device_of(gradient)), dlua_shape_text(x));
  }
  if (gradient && gradient->dtype != x->dtype) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "backward: x is %s but the gradient is %s (x %s)",
                     dlua_dtype_name((dlua_dtype)x->dtype),
                     dlua_dtype_name((dlua_dtype)gradient->dtype), dlua_shape_text(x));
  }
  if (gradient && !dlua_same_shape(gradient, x)) {
    return dlua_fail(DLUA_BAD_ARGUMENT, "backward: the gradient %s has not x's shape %s",
                     dlua_shape_text(gradient), dlua_shape_text(x));
  }
  return DLUA_OK;
}

static dlua_status start(walk *w, dlua_tensor *x, dlua_tensor *gradient) {
  dlua_tensor *g = dlua_tensor_retain(gradient);
  dlua_status status = DLUA_OK;
  if (!g) {
    status = dlua_tensor_new(&g, (dlua_dtype)x->dtype, x->ndim, x->size, dlua_device_of(x));
    if (status == DLUA_OK) status = dlua_tensor_fill(g, 1);
  }
  if (status == DLUA_OK) status = x->node ? to_node(w, x->node, x->output, g) : to_leaf(w, x, g);
  dlua_tensor_release(g);
  return status;
}

static dlua_status run_walk(walk *w, int noutputs, dlua_tensor **outputs, dlua_tensor **gradients) {
  for (int k = 0; k < noutputs; k++)
    DLUA_TRY(check_root(outputs[k], gradients ? gradients[k] : NULL));
  walk *outer = current;
  bool recorded = dlua_set_grad_mode(w->create);
  dlua_dtype lower = dlua_set_autocast(DLUA_F32); // dtypes are as forward has recorded them
  current = w;
  dlua_status status = mark_wanted(w, noutputs, outputs);
  for (int k = 0; k < noutputs && status == DLUA_OK; k++) {
    status = start(w, outputs[k], gradients ? gradients[k] : NULL);
  }
  if (status == DLUA_OK) status = settle_leaves(w);
  while (w->heap.count) {
    dlua_node *node = heap_pop(&w->heap);
    if (status == DLUA_OK)
      status = turn(w, node);
    else
      drop_pending(node);
    dlua_node_release(node);
  }
  if (status == DLUA_OK) status = settle_targets(w);
  leave_nodes(w);
  current = outer;
  dlua_set_grad_mode(recorded);
  dlua_set_autocast(lower);
  list_free(&w->heap), list_free(&w->leaves);
  return status;
}

dlua_status dlua_backward(dlua_tensor *x, dlua_tensor *gradient, bool retain_graph,
                          bool create_graph) {
  walk w = {.retain = retain_graph || create_graph, .create = create_graph};
  return run_walk(&w, 1, &x, gradient ? &gradient : NULL);
}

dlua_status dlua_grad(int noutputs, dlua_tensor **outputs, dlua_tensor **gradients, int ninputs,
                      dlua_tensor **inputs, bool retain_graph, bool create_graph,
                      dlua_tensor **results) {
  size_t bytes = (size_t)ninputs * sizeof(target);
  target *targets = dlua_new(bytes);
  if (!targets) return DLUA_NO_MEMORY;
  for (int k = 0; k < ninputs; k++) targets[k].x = inputs[k];
  walk w = {.retain = retain_graph || create_graph,
            .create = create_graph,
            .targets = targets,
            .ntargets = ninputs};
  dlua_status status = run_walk(&w, noutputs, outputs, gradients);
  for (int k = 0; k < ninputs; k++) {
    if (status == DLUA_OK)
      results[k] = targets[k].gradient;
    else
      dlua_tensor_release(targets[k].gradient);
  }
  dlua_delete(targets, bytes);
  return status;
}
