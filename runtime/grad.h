// grad.h - the tape: what dlua_run records and how backward walks it.
//
// A node is one recorded call. It owns detached copies of what its op's backward function reads,
// remembers their versions, and knows where each input's gradient goes. seq grows with every node,
// so inputs always have smaller numbers than results and a heap by seq is a topological order.
#ifndef DLUA_GRAD_H
#define DLUA_GRAD_H

#include "op.h"

// Where the gradient of one input goes: to a node's result, to a leaf, or nowhere.
typedef struct dlua_edge {
  dlua_node *node;   // owned
  dlua_tensor *leaf; // owned
  uint8_t output, dtype, ndim;
  bool wanted; // set by the walk: someone asked for a gradient behind this edge
  int64_t size[DLUA_MAX_DIMS];
} dlua_edge;

// One tensor kept for backward.
typedef struct dlua_kept {
  dlua_tensor *tensor; // owned, detached; NULL for a missing optional input
  uint32_t version;
  int16_t slot; // input k, or result -1 - k
} dlua_kept;

struct dlua_node {
  int refs; // atomic
  const dlua_op *op;
  uint64_t seq;
  size_t bytes; // of this object with its arrays
  int nin, nout, nkept, nnum;
  bool walked; // a backward is on its way over it
  bool freed;  // its kept tensors are gone
  bool ahead;  // what is pending was given with dlua_give_ahead
  int uses;    // of the walk: wanted edges that lead here, and outputs
  dlua_edge *edges;
  dlua_kept *kept;
  dlua_value *num;
  dlua_spec *results;
  dlua_device *device;
  dlua_tensor **pending; // gradients of the results that have arrived during a walk
  dlua_node *next;       // of the release queue
  char where[56];        // the script line of the call
  // A function with a gradient of its own instead of an op's.
  void (*back)(dlua_back *b, void *user);
  void (*drop)(void *user);
  void *user;
};

void dlua_node_release(
    dlua_node *node); // NULL is fine; iterative, graphs may be a million nodes deep

// Does this call have to be recorded?
bool dlua_should_record(const dlua_args *a);
// Prepares the record of a call before its kernel runs: everything that can fail. in[] are the
// caller's inputs, results what it will get. Caller owns the node.
dlua_status dlua_record_open(dlua_node **node, const dlua_args *a, dlua_tensor **in,
                             dlua_tensor **results);
// Records the finished call: its results get the node. Cannot fail.
void dlua_record_close(dlua_node *node, dlua_args *a);
// Records a custom function over inputs and results; takes over user (drop frees it), on failure
// too.
dlua_status dlua_record_custom(int nin, dlua_tensor **in, int nout, dlua_tensor **out,
                               void (*back)(dlua_back *b, void *user), void (*drop)(void *user),
                               void *user);
// Makes x a result of the same node as of (for outputs stored detached and read again in backward).
dlua_status dlua_attach(dlua_tensor *x, const dlua_tensor *of);

#endif
