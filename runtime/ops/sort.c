// sort.c - sort, argsort, topk. Elements become unsigned keys that order as they do, NaN above all
// (as PyTorch has it) and -0 equal to 0; a lane of (key, position) items is sorted stably and the
// values are read from x again. One algorithm for every dtype, short lanes by insertion, long ones
// by radix on the bytes in which the keys differ at all.
#include <string.h>

#include "../parallel.h"
#include "shape.h"
#include "walk.h"

typedef struct item {
  uint64_t key;
  int64_t at;
} item;

// ---------------------------------------------------------------- keys

// Floats order as their bits do once negative ones are turned over and the sign stands on its head.
static uint64_t float_key(uint64_t bits, int width, uint64_t infinity) {
  uint64_t sign = (uint64_t)1 << (width - 1), all = sign | (sign - 1);
  if ((bits & ~sign) > infinity) return all;
  if (bits == sign) bits = 0;
  return bits & sign ? ~bits & all : bits | sign;
}

static uint64_t key_of(const void *p, uint8_t dtype) {
  uint16_t half;
  uint32_t word;
  uint64_t wide;
  switch (dtype) {
  case DLUA_F32: memcpy(&word, p, 4); return float_key(word, 32, 0x7f800000u);
  case DLUA_F64: memcpy(&wide, p, 8); return float_key(wide, 64, 0x7ff0000000000000u);
  case DLUA_BF16: memcpy(&half, p, 2); return float_key(half, 16, 0x7f80u);
  case DLUA_F16: memcpy(&half, p, 2); return float_key(half, 16, 0x7c00u);
  case DLUA_I64: memcpy(&wide, p, 8); return wide ^ (uint64_t)1 << 63;
  case DLUA_I32: memcpy(&word, p, 4); return word ^ 0x80000000u;
  default: return *(const uint8_t *)p;
  }
}

// ---------------------------------------------------------------- stable sorts of items

enum { FEW = 48 };

static void insertion_sort(item *items, int64_t n) {
  for (int64_t k = 1; k < n; k++) {
    item moving = items[k];
    int64_t to = k;
    for (; to > 0 && items[to - 1].key > moving.key; to--) items[to] = items[to - 1];
    items[to] = moving;
  }
}

// One pass of a radix sort: items by one byte of their keys, in order, into to.
static void radix_pass(const item *items, item *to, int64_t n, int shift) {
  int64_t place[256] = {0}, sum = 0;
  for (int64_t k = 0; k < n; k++) place[items[k].key >> shift & 255]++;
  for (int digit = 0; digit < 256; digit++) {
    int64_t count = place[digit];
    place[digit] = sum;
    sum += count;
  }
  for (int64_t k = 0; k < n; k++) to[place[items[k].key >> shift & 255]++] = items[k];
}

// Sorts by key, equal keys as they came. spare has room for n items.
static void sort_items(item *items, item *spare, int64_t n) {
  if (n <= FEW) {
    insertion_sort(items, n);
    return;
  }
  item *from = items, *to = spare;
  uint64_t differ = 0;
  for (int64_t k = 1; k < n; k++) differ |= items[k].key ^ items[0].key;
  for (int shift = 0; shift < 64; shift += 8) {
    if (!(differ >> shift & 255)) continue;
    radix_pass(from, to, n, shift);
    item *swap = from;
    from = to, to = swap;
  }
  if (from != items) memcpy(items, from, (size_t)n * sizeof *items);
}

// ---------------------------------------------------------------- the best k

static bool after(const item *x, const item *y) {
  return x->key != y->key ? x->key > y->key : x->at > y->at;
}

// Restores a heap whose worst item is on top, below its entry at.
static void sink(item *heap, int64_t n, int64_t at) {
  item moving = heap[at];
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && after(&heap[child + 1], &heap[child])) child++;
    if (!after(&heap[child], &moving)) break;
    heap[at] = heap[child];
  }
  heap[at] = moving;
}

// Sorts a heap whose worst item is on top, best first.
static void sort_heap(item *heap, int64_t n) {
  for (int64_t last = n - 1; last > 0; last--) {
    item worst = heap[0];
    heap[0] = heap[last];
    heap[last] = worst;
    sink(heap, last, 0);
  }
}

// ---------------------------------------------------------------- lanes

typedef struct sorting {
  const dlua_tensor *x, *values, *indices; // values NULL: not wanted
  int64_t dim, n, count;                   // length of a lane, and how many of its items are kept
  bool descending;
  dlua_walk lanes; // x, indices, values at the first element of each lane
  dlua_status status;
} sorting;

static int64_t step_of(const dlua_tensor *x, int64_t dim) {
  return x && x->ndim ? x->stride[dim] * (int64_t)dlua_dtype_size((dlua_dtype)x->dtype) : 0;
}

static item item_of(const sorting *s, const char *lane, int64_t step, int64_t k) {
  uint64_t key = key_of(lane + k * step, s->x->dtype);
  return (item){s->descending ? ~key : key, k};
}

// The first few of a long lane: a heap of the best so far, which most elements never enter. A later
// element with the key of the worst is worse, so that comparing keys is enough.
static void pick_items(const sorting *s, const char *lane, int64_t step, item *heap) {
  for (int64_t k = 0; k < s->count; k++) heap[k] = item_of(s, lane, step, k);
  for (int64_t at = s->count / 2 - 1; at >= 0; at--) sink(heap, s->count, at);
  for (int64_t k = s->count; k < s->n; k++) {
    item next = item_of(s, lane, step, k);
    if (next.key < heap[0].key) heap[0] = next, sink(heap, s->count, 0);
  }
  sort_heap(heap, s->count);
}

static void sort_lane(const sorting *s, char *const *p, item *items) {
  int64_t step = step_of(s->x, s->dim), to = step_of(s->indices, s->dim);
  if (s->count <= s->n / 8) {
    pick_items(s, p[0], step, items);
  } else {
    for (int64_t k = 0; k < s->n; k++) items[k] = item_of(s, p[0], step, k);
    sort_items(items, items + s->n, s->n);
  }
  for (int64_t k = 0; k < s->count; k++) *(int64_t *)(p[1] + k * to) = items[k].at + 1;
  if (!s->values) return;
  size_t width = dlua_dtype_size((dlua_dtype)s->x->dtype);
  int64_t value_step = step_of(s->values, s->dim);
  for (int64_t k = 0; k < s->count; k++)
    memcpy(p[2] + k * value_step, p[0] + items[k].at * step, width);
}

static void sort_lanes(void *context, int64_t from, int64_t to) {
  sorting *s = context;
  size_t bytes = 2 * (size_t)s->n * sizeof(item);
  item *items = dlua_new(bytes);
  if (!items) { // the message stays on this thread; the caller writes it again
    __atomic_store_n(&s->status, DLUA_NO_MEMORY, __ATOMIC_RELAXED);
    return;
  }
  dlua_walk w = s->lanes;
  dlua_walk_seek(&w, from);
  for (; from < to; from++, dlua_walk_next(&w)) sort_lane(s, w.p, items);
  dlua_delete(items, bytes);
}

static dlua_status sort_all(const dlua_args *a, sorting *s) {
  dlua_tensor first[3]; // each operand cut to the first position of the lane
  const dlua_tensor *operand[] = {s->x, s->indices, s->values ? s->values : s->indices};
  s->n = dlua_extent(s->x, s->dim), s->count = dlua_extent(s->indices, s->dim);
  if (dlua_numel(s->indices) == 0) return DLUA_OK;
  for (int k = 0; k < 3; k++) {
    first[k] = *operand[k];
    if (s->x->ndim) first[k].size[s->dim] = 1;
  }
  dlua_walk_begin(&s->lanes, s->x->ndim, first[0].size);
  for (int k = 0; k < 3; k++) dlua_walk_add(&s->lanes, &first[k]);
  dlua_parallel(s->lanes.count, 30 * (double)s->n, sort_lanes, s);
  if (s->status == DLUA_OK) return DLUA_OK;
  return dlua_fail(s->status, "%s: out of memory for lanes of %lld elements (x %s)", a->op->name,
                   (long long)s->n, dlua_shape_text(s->x));
}

// ---------------------------------------------------------------- ops

static dlua_status sort_shape(dlua_args *a) {
  a->spec[a->nout - 1].dtype = DLUA_I64;
  return dlua_shape_same(a);
}

static dlua_status sort_cpu(const dlua_args *a) {
  sorting s = {.x = a->in[0],
               .values = a->out[0],
               .indices = a->out[1],
               .dim = a->num[0].i,
               .descending = a->num[1].i};
  return sort_all(a, &s);
}

// The gradient goes back to the places that the values came from; dim is one of the numbers.
static void give_back(dlua_back *b, const dlua_value *dim) {
  dlua_give(b, 0,
            dlua_call(b->s, &dlua_op_scatter, dlua_t(dlua_zeros_for(b, 0)),
                      dlua_t(dlua_saved(b, "indices")), dlua_t(b->g[0]), dlua_v(dim)));
}

static void sort_back(dlua_back *b) { give_back(b, &b->num[0]); }

const dlua_op dlua_op_sort = {
    .name = "sort",
    .sig = "x:T, dim:d=-1, descending:b=false -> values, indices",
    .doc =
        "The elements along dim in order, and where they were. Equal ones stay in their order, NaN "
        "counts as the largest.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = sort_shape,
    .cpu = sort_cpu,
    .back = sort_back,
    .save = "indices",
};

static dlua_status argsort_cpu(const dlua_args *a) {
  sorting s = {.x = a->in[0], .indices = a->out[0], .dim = a->num[0].i, .descending = a->num[1].i};
  return sort_all(a, &s);
}

const dlua_op dlua_op_argsort = {
    .name = "argsort",
    .sig = "x:T, dim:d=-1, descending:b=false -> indices",
    .doc =
        "The positions that sort x along dim, counted from 1; equal elements stay in their order.",
    .dtype = DLUA_ANY_DTYPE,
    .flags = DLUA_HALF,
    .shape = sort_shape,
    .cpu = argsort_cpu,
};

static dlua_status topk_shape(dlua_args *a) {
  const dlua_tensor *x = a->in[0];
  int64_t k = a->num[0].i, dim = a->num[1].i, extent = dlua_extent(x, dim), size[DLUA_MAX_DIMS];
  if (k < 0 || k > extent) {
    return dlua_shape_error(a, "k %lld is outside 0..%lld, the size of dimension %lld",
                            (long long)k, (long long)extent, (long long)dim + 1);
  }
  if (x->ndim == 0 && k == 0) return dlua_shape_error(a, "a 0-d tensor has one element, k is 0");
  memcpy(size, x->size, sizeof size);
  if (x->ndim) size[dim] = k;
  dlua_spec_shape(a, 0, x->ndim, size);
  dlua_spec_shape(a, 1, x->ndim, size);
  a->spec[1].dtype = DLUA_I64;
  return DLUA_OK;
}

static dlua_status topk_cpu(const dlua_args *a) {
  sorting s = {.x = a->in[0],
               .values = a->out[0],
               .indices = a->out[1],
               .dim = a->num[1].i,
               .descending = a->num[2].i};
  return sort_all(a, &s);
}

static void topk_back(dlua_back *b) { give_back(b, &b->num[1]); }

const dlua_op dlua_op_topk = {
    .name = "topk",
    .sig = "x:T, k:i, dim:d=-1, largest:b=true, sorted:b=true -> values, indices",
    .doc = "The k largest or smallest elements along dim, best first, and where they are; of equal "
           "ones the first. sorted = false asks for no order, but gets the same.",
    .dtype = DLUA_KEEP,
    .flags = DLUA_HALF,
    .shape = topk_shape,
    .cpu = topk_cpu,
    .back = topk_back,
    .save = "indices",
};
