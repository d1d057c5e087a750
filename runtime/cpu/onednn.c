// onednn.c - the engine, the table of prepared primitives and their execution; and the product of
// matrices, which needs none.
//
// Scratch memory comes from dlua's allocator, so it is warm, counted and never the library's own.
// A plan can run on several threads at once: everything that belongs to a call is made by the call.
#include "onednn.h"

#include <pthread.h>
#include <string.h>

#include "../parallel.h"
#include "onednn_plan.h"

enum { BUCKETS = 256, MOST_PLANS = 1024, MOST_PARTS = 5 };

static struct {
  pthread_once_t once;
  dnnl_status_t status;
  dnnl_engine_t engine;
  dnnl_stream_t stream; // without state on the CPU, so all threads share it
  pthread_mutex_t lock;
  dlua_plan *bucket[BUCKETS];
  int count;
  uint64_t clock;
} lib = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static void start(void) {
  lib.status = dnnl_engine_create(&lib.engine, dnnl_cpu, 0);
  if (lib.status == dnnl_success)
    lib.status = dnnl_stream_create(&lib.stream, lib.engine, dnnl_stream_default_flags);
}

dnnl_engine_t dlua_onednn_engine(void) {
  pthread_once(&lib.once, start);
  return lib.engine;
}

dlua_status dlua_onednn_check(dnnl_status_t status, const char *what) {
  switch (status) {
  case dnnl_success: return DLUA_OK;
  case dnnl_unimplemented: return DLUA_DECLINED;
  case dnnl_out_of_memory:
    return dlua_fail(DLUA_NO_MEMORY, "out of memory: oneDNN cannot %s", what);
  case dnnl_invalid_arguments:
    return dlua_fail(DLUA_BAD_DEVICE, "oneDNN cannot %s: invalid arguments", what);
  default: return dlua_fail(DLUA_BAD_DEVICE, "oneDNN cannot %s: status %d", what, (int)status);
  }
}

dlua_status dlua_onednn_attributes(dnnl_primitive_attr_t *attr) {
  DLUA_TRY(dlua_onednn_check(dnnl_primitive_attr_create(attr), "make attributes"));
  dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
  return DLUA_OK;
}

dlua_status dlua_onednn_dense(dnnl_memory_desc_t *desc, int ndim, const int64_t *size,
                              dnnl_data_type_t type) {
  int64_t stride[DNNL_MAX_NDIMS], inner = 1;
  for (int d = ndim - 1; d >= 0; d--) stride[d] = inner, inner *= size[d];
  memset(desc, 0, sizeof *desc);
  return dlua_onednn_check(dnnl_memory_desc_init_by_strides(desc, ndim, size, type, stride),
                           "describe memory");
}

// ---------------------------------------------------------------- plans

// Fowler, Noll and Vo's hash, 64 bits.
static uint64_t hash_of(const unsigned char *key, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t k = 0; k < bytes; k++) hash = (hash ^ key[k]) * 0x100000001b3u;
  return hash;
}

void dlua_plan_release(dlua_plan *plan) {
  if (!plan || __atomic_sub_fetch(&plan->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
  dnnl_primitive_destroy(plan->primitive);
  dnnl_primitive_desc_destroy(plan->desc);
  dlua_delete(plan->key, plan->bytes);
  dlua_delete(plan, sizeof *plan);
}

static dlua_plan *plan_new(const void *key, size_t bytes, uint64_t hash) {
  dlua_plan *plan = dlua_new(sizeof *plan);
  if (!plan) return NULL;
  plan->refs = 1, plan->hash = hash, plan->bytes = bytes;
  plan->key = dlua_new(bytes);
  if (!plan->key) {
    dlua_delete(plan, sizeof *plan);
    return NULL;
  }
  memcpy(plan->key, key, bytes);
  return plan;
}

// Takes the plan that was not used for the longest time out of the table. The lock is held.
static dlua_plan *oldest(void) {
  dlua_plan **found = NULL;
  for (int k = 0; k < BUCKETS; k++)
    for (dlua_plan **p = &lib.bucket[k]; *p; p = &(*p)->next)
      if (!found || (*p)->used < (*found)->used) found = p;
  dlua_plan *plan = *found;
  *found = plan->next, lib.count--;
  return plan;
}

static dlua_plan *look_up(const void *key, size_t bytes, uint64_t hash) {
  pthread_mutex_lock(&lib.lock);
  dlua_plan *plan = lib.bucket[hash % BUCKETS];
  while (plan && (plan->hash != hash || plan->bytes != bytes || memcmp(plan->key, key, bytes) != 0))
    plan = plan->next;
  if (plan) {
    plan->used = ++lib.clock;
    __atomic_add_fetch(&plan->refs, 1, __ATOMIC_RELAXED);
  }
  pthread_mutex_unlock(&lib.lock);
  return plan;
}

static void insert(dlua_plan *plan) {
  dlua_plan *out = NULL;
  __atomic_add_fetch(&plan->refs, 1, __ATOMIC_RELAXED);
  pthread_mutex_lock(&lib.lock);
  if (lib.count == MOST_PLANS) out = oldest();
  plan->used = ++lib.clock, plan->next = lib.bucket[plan->hash % BUCKETS];
  lib.bucket[plan->hash % BUCKETS] = plan, lib.count++;
  pthread_mutex_unlock(&lib.lock);
  dlua_plan_release(out);
}

dlua_status dlua_plan_find(const void *key, size_t bytes,
                           dlua_status (*make)(const void *key, dlua_plan *plan),
                           dlua_plan **plan) {
  uint64_t hash = hash_of(key, bytes);
  *plan = look_up(key, bytes, hash);
  if (*plan) return DLUA_OK;
  if (!dlua_onednn_engine()) return dlua_onednn_check(lib.status, "make its engine");
  dlua_plan *fresh = plan_new(key, bytes, hash);
  if (!fresh) return DLUA_NO_MEMORY;
  dlua_status status = make(key, fresh);
  if (status == DLUA_OK && !fresh->primitive) {
    status = dlua_onednn_check(dnnl_primitive_create(&fresh->primitive, fresh->desc),
                               "make a primitive");
  }
  if (status != DLUA_OK) return dlua_plan_release(fresh), status;
  insert(fresh);
  *plan = fresh;
  return DLUA_OK;
}

dnnl_memory_desc_t dlua_plan_wants(const dlua_plan *plan, int argument) {
  const dnnl_memory_desc_t *desc =
      dnnl_primitive_desc_query_md(plan->desc, dnnl_query_exec_arg_md, argument);
  return *desc;
}

// ---------------------------------------------------------------- running

// What a call owns while it runs.
typedef struct running {
  int nmemory, nblock;
  dnnl_exec_arg_t arg[MOST_PARTS + 1];
  void *block[MOST_PARTS + 1];
  size_t bytes[MOST_PARTS + 1];
} running;

static dlua_status take_block(running *r, size_t bytes, void **block) {
  DLUA_TRY(dlua_alloc(dlua_cpu(), bytes, block));
  r->block[r->nblock] = *block, r->bytes[r->nblock++] = bytes;
  return DLUA_OK;
}

static dlua_status add_memory(running *r, int argument, const dnnl_memory_desc_t *desc,
                              void *data) {
  dnnl_memory_t memory;
  DLUA_TRY(
      dlua_onednn_check(dnnl_memory_create(&memory, desc, lib.engine, data), "describe memory"));
  r->arg[r->nmemory++] = (dnnl_exec_arg_t){argument, memory};
  return DLUA_OK;
}

static dlua_status add_scratch(running *r, const dlua_plan *plan) {
  const dnnl_memory_desc_t *desc =
      dnnl_primitive_desc_query_md(plan->desc, dnnl_query_scratchpad_md, 0);
  size_t bytes = desc ? dnnl_memory_desc_get_size(desc) : 0;
  void *block;
  if (bytes == 0) return DLUA_OK;
  DLUA_TRY(take_block(r, bytes, &block));
  return add_memory(r, DNNL_ARG_SCRATCHPAD, desc, block);
}

static void finish(running *r) {
  for (int k = 0; k < r->nmemory; k++) dnnl_memory_destroy(r->arg[k].memory);
  for (int k = 0; k < r->nblock; k++) dlua_free(dlua_cpu(), r->block[k], r->bytes[k]);
}

static dlua_status execute(const running *r, const dlua_plan *plan) {
  return dlua_onednn_check(dnnl_primitive_execute(plan->primitive, lib.stream, r->nmemory, r->arg),
                           "run a primitive");
}

typedef struct reorder_key {
  int threads;
  dnnl_memory_desc_t from, to;
} reorder_key;

static dlua_status make_reorder(const void *key, dlua_plan *plan) {
  const reorder_key *k = key;
  dnnl_primitive_attr_t attr;
  DLUA_TRY(dlua_onednn_attributes(&attr));
  dnnl_status_t status = dnnl_reorder_primitive_desc_create(&plan->desc, &k->from, lib.engine,
                                                            &k->to, lib.engine, attr);
  dnnl_primitive_attr_destroy(attr);
  return dlua_onednn_check(status, "plan a reorder");
}

dlua_status dlua_plan_reorder(const dnnl_memory_desc_t *to, void *dst,
                              const dnnl_memory_desc_t *from, const void *src) {
  reorder_key key;
  dlua_plan *plan;
  running r = {0};
  memset(&key, 0, sizeof key);
  key.threads = dlua_threads(), key.from = *from, key.to = *to;
  DLUA_TRY(dlua_plan_find(&key, sizeof key, make_reorder, &plan));
  dlua_status status = add_memory(&r, DNNL_ARG_FROM, from, (void *)src);
  if (status == DLUA_OK) status = add_memory(&r, DNNL_ARG_TO, to, dst);
  if (status == DLUA_OK) status = add_scratch(&r, plan);
  if (status == DLUA_OK) status = execute(&r, plan);
  finish(&r);
  dlua_plan_release(plan);
  return status;
}

// Gives the primitive the part as it wants it: the tensor itself, or a block of its own.
static dlua_status add_part(running *r, const dlua_part *part, void **data) {
  *data = part->data;
  if (!dnnl_memory_desc_equal(&part->given, &part->wanted)) {
    DLUA_TRY(take_block(r, dnnl_memory_desc_get_size(&part->wanted), data));
    if (!part->result) DLUA_TRY(dlua_plan_reorder(&part->wanted, *data, &part->given, part->data));
  }
  return add_memory(r, part->argument, &part->wanted, *data);
}

static dlua_status run_parts(running *r, const dlua_plan *plan, int n, const dlua_part *parts) {
  void *data[MOST_PARTS];
  for (int k = 0; k < n; k++) DLUA_TRY(add_part(r, &parts[k], &data[k]));
  DLUA_TRY(add_scratch(r, plan));
  DLUA_TRY(execute(r, plan));
  for (int k = 0; k < n; k++) {
    if (parts[k].result && data[k] != parts[k].data)
      DLUA_TRY(dlua_plan_reorder(&parts[k].given, parts[k].data, &parts[k].wanted, data[k]));
  }
  return DLUA_OK;
}

dlua_status dlua_plan_run(const dlua_plan *plan, int n, const dlua_part *parts) {
  running r = {0};
  dlua_status status = run_parts(&r, plan, n, parts);
  finish(&r);
  return status;
}

// ---------------------------------------------------------------- products

// The leading dimension of a matrix in rows or in columns; false where neither is contiguous.
static bool leading(int64_t rows, int64_t columns, int64_t row, int64_t column, char *turned,
                    int64_t *ld) {
  if (column == 1 || columns == 1) {
    *turned = 'N', *ld = rows == 1 ? columns : row;
    if (*ld >= columns) return true;
  }
  *turned = 'T', *ld = columns == 1 ? rows : column;
  return (row == 1 || rows == 1) && *ld >= rows;
}

bool dlua_onednn_gemm(const dlua_gemm *g) {
  char ta, tb;
  int64_t lda, ldb;
  if (g->m == 0 || g->n == 0 || g->k == 0) return false;
  if (!leading(g->m, g->k, g->ai, g->ak, &ta, &lda)) return false;
  if (!leading(g->k, g->n, g->bk, g->bj, &tb, &ldb)) return false;
  float *c = g->c;
  bool onto = g->add || g->bias;
  for (int64_t i = 0; g->bias && !g->add && i < g->m; i++)
    memcpy(c + i * g->ci, g->bias, (size_t)g->n * sizeof *c);
  dlua_team_begin((double)g->m * (double)g->n * (double)g->k);
  dnnl_status_t status =
      dnnl_sgemm(ta, tb, g->m, g->n, g->k, 1, g->a, lda, g->b, ldb, onto ? 1 : 0, c, g->ci);
  dlua_team_end();
  return status == dnnl_success;
}
