// check.h - a test runner for C, and short words to make tensors and call ops with.
//
//   SPEC(adding_nothing) { CHECK(1 + 0 == 1); CHECK_FAILS(dlua_fail(DLUA_BAD_FILE, "no"), "no"); }
//   int main(void) { RUN(adding_nothing); return finish(); }
//
// A failed check prints itself and the spec goes on. Every spec must leave as many bytes in use as
// it found.
#ifndef DLUA_SPEC_CHECK_H
#define DLUA_SPEC_CHECK_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../../runtime/backend.h"
#include "../../runtime/op.h"

static int checks, failures;

static inline bool check(bool passed, const char *file, int line, const char *what) {
  checks++;
  if (passed) return true;
  failures++;
  printf("%s:%d: %s  (last message: %s)\n", file, line, what, dlua_message());
  return false;
}

// Whether a status is a failure whose message has a part.
static inline bool fails_with(dlua_status status, const char *part) {
  return status != DLUA_OK && strstr(dlua_message(), part) && !strchr(dlua_message(), '\n');
}

#define CHECK(x) check((x), __FILE__, __LINE__, #x)
#define CHECK_OK(x) check((x) == DLUA_OK, __FILE__, __LINE__, #x)
#define CHECK_FAILS(x, part) check(fails_with((x), (part)), __FILE__, __LINE__, #x " lacks " #part)
#define CHECK_NEAR(x, y, tolerance) \
  check(fabs((double)(x) - (double)(y)) <= (tolerance), __FILE__, __LINE__, #x " is not near " #y)

#define SPEC(name) static void name(void)
#define RUN(name) run_spec(#name, name)

static inline void run_spec(const char *name, void (*spec)(void)) {
  size_t live = dlua_live_bytes();
  int before = failures;
  spec();
  if (dlua_live_bytes() != live) {
    failures++;
    printf("%s: %zd bytes left in use\n", name, (ssize_t)(dlua_live_bytes() - live));
  }
  printf("%s %s\n", failures == before ? "ok" : "FAILED", name);
}

static inline int finish(void) {
  printf("%d checks, %d failed\n", checks, failures);
  return failures > 0;
}

// ---------------------------------------------------------------- tensors and calls

#define SIZES(...) \
  (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }
#define LIST(...) dlua_list(SIZES(__VA_ARGS__))

// A tensor of a dtype and shape on the CPU, owned by s, whose elements are start, start + step, ….
static inline dlua_tensor *count_up(dlua_scope *s, dlua_dtype dtype, double start, double step,
                                    int ndim, const int64_t *size) {
  dlua_tensor *wide = NULL, *x = NULL;
  if (dlua_tensor_new(&wide, DLUA_F64, ndim, size, dlua_cpu()) != DLUA_OK) {
    return dlua_failed(s, DLUA_NO_MEMORY);
  }
  for (int64_t k = 0; k < dlua_numel(wide); k++) dlua_f64(wide)[k] = start + step * (double)k;
  dlua_status status = dlua_cast(wide, dtype, &x);
  dlua_tensor_release(wide);
  return status == DLUA_OK ? dlua_own(s, x) : dlua_failed(s, status);
}

// A vector of given values.
static inline dlua_tensor *vector(dlua_scope *s, dlua_dtype dtype, int n, const double *values) {
  dlua_tensor *wide = NULL, *x = NULL;
  if (dlua_tensor_new(&wide, DLUA_F64, 1, (int64_t[]){n}, dlua_cpu()) != DLUA_OK) {
    return dlua_failed(s, DLUA_NO_MEMORY);
  }
  memcpy(dlua_f64(wide), values, (size_t)n * sizeof *values);
  dlua_status status = dlua_cast(wide, dtype, &x);
  dlua_tensor_release(wide);
  return status == DLUA_OK ? dlua_own(s, x) : dlua_failed(s, status);
}

#define VECTOR(s, dtype, ...) \
  vector(s, dtype, (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)), (double[]){__VA_ARGS__})

// Element k of x in row-major order, whatever its dtype, strides and device; NaN when x is NULL.
static inline double at(const dlua_tensor *x, int64_t k) {
  dlua_tensor *host = NULL, *wide = NULL, *packed = NULL;
  double value = NAN;
  if (x && dlua_to_device(x, dlua_cpu(), &host) == DLUA_OK &&
      dlua_cast(host, DLUA_F64, &wide) == DLUA_OK && dlua_contiguous(wide, &packed) == DLUA_OK &&
      k < dlua_numel(packed)) {
    value = dlua_f64(packed)[k];
  }
  dlua_tensor_release(host), dlua_tensor_release(wide), dlua_tensor_release(packed);
  return value;
}

// Whether x holds exactly these values in row-major order, NaN equal to NaN.
static inline bool holds(const dlua_tensor *x, int n, const double *values) {
  if (!x || dlua_numel(x) != n) return false;
  for (int k = 0; k < n; k++) {
    double found = at(x, k);
    if (found == values[k] || (isnan(found) && isnan(values[k]))) continue;
    printf("  element %d is %.17g instead of %.17g in %s\n", k + 1, found, values[k],
           dlua_shape_text(x));
    return false;
  }
  return true;
}

#define HOLDS(x, ...) \
  holds(x, (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)), (double[]){__VA_ARGS__})

// Whether x has a shape.
static inline bool has_shape(const dlua_tensor *x, int ndim, const int64_t *size) {
  return x && x->ndim == ndim && memcmp(x->size, size, (size_t)ndim * sizeof *size) == 0;
}

#define HAS_SHAPE(x, ...) has_shape(x, SIZES(__VA_ARGS__))

// Whether two tensors have one dtype, one shape and the same bits.
static inline bool same_bits(const dlua_tensor *x, const dlua_tensor *y) {
  dlua_tensor *hx = NULL, *hy = NULL, *px = NULL, *py = NULL;
  bool same = x && y && x->dtype == y->dtype && dlua_same_shape(x, y) &&
              dlua_to_device(x, dlua_cpu(), &hx) == DLUA_OK &&
              dlua_to_device(y, dlua_cpu(), &hy) == DLUA_OK &&
              dlua_contiguous(hx, &px) == DLUA_OK && dlua_contiguous(hy, &py) == DLUA_OK &&
              memcmp(dlua_data(px), dlua_data(py),
                     (size_t)dlua_numel(px) * dlua_dtype_size((dlua_dtype)px->dtype)) == 0;
  dlua_tensor_release(hx), dlua_tensor_release(hy);
  dlua_tensor_release(px), dlua_tensor_release(py);
  return same;
}

// The status of one call, its result dropped.
static inline dlua_status call_status(const dlua_op *op, int n, const dlua_arg *args) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_call_n(&s, op, n, args);
  return dlua_scope_end(&s);
}

#define CALL_STATUS(op, ...) \
  call_status(op, (int)(sizeof((dlua_arg[]){__VA_ARGS__}) / sizeof(dlua_arg)), \
              (dlua_arg[]){__VA_ARGS__})

#endif
