// scan.c - running sums and products along a dimension, and the linear recurrence their gradients
// need.
//
// The gradient of cumprod must not divide by elements that may be 0. With S_i = g_i + x_{i+1}
// S_{i+1} it is S_i times the product of the elements before i. That recurrence is an op
// (linear_scan) whose gradient is the same recurrence in the other direction, so derivatives of
// every order exist.
#include "../parallel.h"
#include "reduce.h"

// Lines along one dimension of contiguous tensors: n elements, inner apart.
typedef struct lines {
  const dlua_args *call;
  int64_t n, inner;
} lines;

static lines lines_of(const dlua_args *a, int64_t dim, int64_t *count) {
  const dlua_tensor *x = a->in[0];
  lines w = {.call = a, .n = x->ndim > 0 ? x->size[dim] : 1, .inner = 1};
  for (int64_t k = dim + 1; k < x->ndim; k++) w.inner *= x->size[k];
  *count = w.n > 0 ? dlua_numel(x) / w.n : 0;
  return w;
}

static int64_t line_start(const lines *w, int64_t k) {
  return k / w->inner * w->inner * w->n + k % w->inner;
}

// ---------------------------------------------------------------- cumsum and cumprod

enum { TOGETHER = 64 };

// One line of n entries, or several side by side, their entries inner apart.
#define SCAN(name, T, A, R) \
  static void name(const void *from, void *to, int64_t n, int64_t inner, int64_t lines, \
                   bool product) { \
    const T *x = from; \
    R *y = to; \
    A acc[TOGETHER], one = product; \
    for (int64_t k = 0; k < lines; k++) acc[k] = product; \
    if (lines == 1 && product) { \
      for (int64_t j = 0; j < n; j++) y[j * inner] = (R)(one *= (A)x[j * inner]); \
    } else if (lines == 1) { \
      for (int64_t j = 0; j < n; j++) y[j * inner] = (R)(one += (A)x[j * inner]); \
    } else { \
      for (int64_t j = 0; j < n; j++, x += inner, y += inner) { \
        for (int64_t k = 0; k < lines; k++) { \
          acc[k] = product ? acc[k] * (A)x[k] : acc[k] + (A)x[k]; \
          y[k] = (R)acc[k]; \
        } \
      } \
    } \
  }
SCAN(scan_f32, float, double, float)
SCAN(scan_f64, double, double, double)
SCAN(scan_i64, int64_t, uint64_t, int64_t)
SCAN(scan_i32, int32_t, uint64_t, int64_t)
SCAN(scan_u8, uint8_t, uint64_t, int64_t)

typedef void scan(const void *x, void *y, int64_t n, int64_t inner, int64_t lines, bool product);

static scan *scan_of(dlua_dtype dtype) {
  switch (dtype) {
  case DLUA_F32: return scan_f32;
  case DLUA_F64: return scan_f64;
  case DLUA_I64: return scan_i64;
  case DLUA_I32: return scan_i32;
  default: return scan_u8;
  }
}

static void scan_lines(const lines *w, int64_t from, int64_t to, bool product) {
  const dlua_tensor *x = w->call->in[0], *y = w->call->out[0];
  scan *run = scan_of((dlua_dtype)x->dtype);
  int64_t wide = (int64_t)dlua_dtype_size((dlua_dtype)x->dtype);
  int64_t out = (int64_t)dlua_dtype_size((dlua_dtype)y->dtype);
  const char *source = dlua_data(x);
  char *target = dlua_data(y);
  for (int64_t k = from, some; k < to; k += some) {
    some = w->inner - k % w->inner;
    if (some > TOGETHER) some = TOGETHER;
    if (some > to - k) some = to - k;
    int64_t at = line_start(w, k);
    run(source + at * wide, target + at * out, w->n, w->inner, some, product);
  }
}

static void sum_lines(void *w, int64_t from, int64_t to) { scan_lines(w, from, to, false); }
static void multiply_lines(void *w, int64_t from, int64_t to) { scan_lines(w, from, to, true); }

static dlua_status scan_shape(dlua_args *a) {
  if (!dlua_is_float(a->in[0]->dtype)) a->spec[0].dtype = DLUA_I64;
  dlua_spec_shape(a, 0, a->in[0]->ndim, a->in[0]->size);
  return DLUA_OK;
}

static dlua_status cumsum_cpu(const dlua_args *a) {
  int64_t count;
  lines w = lines_of(a, a->num[0].i, &count);
  sum_lines(&w, 0, count);
  return DLUA_OK;
}

static dlua_status cumsum_team(const dlua_args *a) {
  int64_t count;
  lines w = lines_of(a, a->num[0].i, &count);
  dlua_parallel(count, 6.0 * (double)w.n, sum_lines, &w);
  return DLUA_OK;
}

static dlua_status cumprod_cpu(const dlua_args *a) {
  int64_t count;
  lines w = lines_of(a, a->num[0].i, &count);
  multiply_lines(&w, 0, count);
  return DLUA_OK;
}

static dlua_status cumprod_team(const dlua_args *a) {
  int64_t count;
  lines w = lines_of(a, a->num[0].i, &count);
  dlua_parallel(count, 6.0 * (double)w.n, multiply_lines, &w);
  return DLUA_OK;
}

static dlua_tensor *flip(dlua_back *b, dlua_tensor *x) {
  return dlua_call(b->s, &dlua_op_flip, dlua_t(x), dlua_list(1, &b->num[0].i));
}

static void cumsum_back(dlua_back *b) {
  dlua_tensor *g = b->g[0];
  if (g != NULL && g->ndim > 0) {
    dlua_tensor *sums = dlua_call(b->s, &dlua_op_cumsum, dlua_t(flip(b, g)), dlua_v(&b->num[0]));
    g = flip(b, sums);
  }
  dlua_give(b, 0, g);
}

// x_i y_{i-1} along a dimension; the first element is head: x's own, or 0.
static dlua_tensor *times_previous(dlua_scope *s, dlua_tensor *x, dlua_tensor *y, int64_t dim,
                                   bool zero_head) {
  if (x == NULL || y == NULL) return NULL;
  int64_t n = x->size[dim];
  dlua_tensor *head = dlua_call(s, &dlua_op_narrow, dlua_t(x), dlua_i(dim), dlua_i(1), dlua_i(1));
  if (zero_head) head = dlua_zeros_like(s, head);
  if (n == 1 || head == NULL) return head;
  dlua_tensor *later =
      dlua_call(s, &dlua_op_narrow, dlua_t(x), dlua_i(dim), dlua_i(2), dlua_i(n - 1));
  dlua_tensor *before =
      dlua_call(s, &dlua_op_narrow, dlua_t(y), dlua_i(dim), dlua_i(1), dlua_i(n - 1));
  dlua_tensor *parts[2] = {head, dlua_mul(s, later, before)};
  return dlua_call_list(s, &dlua_op_cat, 2, parts, 1, (dlua_arg[]){dlua_i(dim)});
}

static void cumprod_back(dlua_back *b) {
  dlua_tensor *x = dlua_saved(b, "x"), *y = dlua_saved(b, "y"), *g = b->g[0];
  if (x == NULL || y == NULL || g == NULL) return;
  if (x->ndim > 0 && dlua_numel(x) > 0) {
    dlua_tensor *sums =
        dlua_call(b->s, &dlua_op_linear_scan, dlua_t(x), dlua_t(g), dlua_v(&b->num[0]), dlua_i(1));
    g = times_previous(b->s, sums, y, b->num[0].i, false);
  }
  dlua_give(b, 0, g);
}

const dlua_op dlua_op_cumsum = {
    .name = "cumsum",
    .sig = "x:T, dim:d -> y",
    .doc = "Running sums along a dimension. Integers and bool give i64.",
    .dtype = DLUA_KEEP,
    .shape = scan_shape,
    .cpu = cumsum_cpu,
    .fast = (dlua_kernel *const[]){cumsum_team, NULL},
    .back = cumsum_back,
    .contiguous = "x",
    .autocast = DLUA_CAST_F32,
};

const dlua_op dlua_op_cumprod = {
    .name = "cumprod",
    .sig = "x:T, dim:d -> y",
    .doc = "Running products along a dimension. Integers and bool give i64.",
    .dtype = DLUA_KEEP,
    .shape = scan_shape,
    .cpu = cumprod_cpu,
    .fast = (dlua_kernel *const[]){cumprod_team, NULL},
    .back = cumprod_back,
    .save = "x y",
    .contiguous = "x",
    .autocast = DLUA_CAST_F32,
};

// ---------------------------------------------------------------- linear_scan

static dlua_status linear_scan_shape(dlua_args *a) {
  if (!dlua_same_shape(a->in[0], a->in[1])) return dlua_shape_error(a, "shapes differ");
  return dlua_shape_same(a);
}

static dlua_status linear_scan_cpu(const dlua_args *a) {
  int64_t count;
  lines w = lines_of(a, a->num[0].i, &count);
  const dlua_tensor *x = a->in[0], *b = a->in[1];
  bool reverse = a->num[1].i != 0;
  for (int64_t k = 0; k < count; k++) {
    double y = 0;
    for (int64_t j = 0; j < w.n; j++) {
      int64_t at = line_start(&w, k) + (reverse ? w.n - 1 - j : j) * w.inner;
      // Forwards the factor is this element's, backwards the next one's.
      double carried = j == 0 ? 0 : dlua_real(x, reverse ? at + w.inner : at) * y;
      y = dlua_real(b, at) + carried;
      dlua_put(a->out[0], at, y);
    }
  }
  return DLUA_OK;
}

// With r the same scan of g in the other direction, gb = r; the factor of element i multiplied the
// y before it (forwards), or carried y_i to the element before (backwards).
static void linear_scan_back(dlua_back *b) {
  dlua_tensor *y = dlua_saved(b, "y");
  if (y == NULL || dlua_numel(y) == 0 || y->ndim == 0) return dlua_give(b, 1, b->g[0]);
  bool reverse = b->num[1].i != 0;
  dlua_tensor *r = dlua_call(b->s, &dlua_op_linear_scan, dlua_t(dlua_saved(b, "x")),
                             dlua_t(b->g[0]), dlua_v(&b->num[0]), dlua_i(!reverse));
  dlua_give(b, 1, r);
  if (!dlua_needs(b, 0)) return;
  dlua_give(b, 0, times_previous(b->s, reverse ? y : r, reverse ? r : y, b->num[0].i, true));
}

const dlua_op dlua_op_linear_scan = {
    .name = "linear_scan",
    .sig = "x:T, b:T, dim:d, reverse:b=false -> y",
    .doc = "y_i = b_i + x_i y_(i-1) along a dimension; in reverse y_i = b_i + x_(i+1) y_(i+1).",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN,
    .shape = linear_scan_shape,
    .cpu = linear_scan_cpu,
    .back = linear_scan_back,
    .save = "x y",
    .contiguous = "*",
    .autocast = DLUA_CAST_F32,
};
