// dlua.h - tensors, devices, memory and automatic differentiation. No Lua, no CUDA.
//
//   dlua_tensor *x, *y;
//   DLUA_TRY(dlua_tensor_new(&x, DLUA_F32, 1, (int64_t[]){4}, dlua_cpu()));
//   dlua_tensor_fill(x, 2.0);                // {2,2,2,2}
//   dlua_scope s;                            // op.h: calls of ops; the scope owns the results
//   dlua_scope_begin(&s);
//   y = dlua_call(&s, &dlua_op_exp, dlua_t(x));
//   if (y) printf("%g\n", dlua_f32(y)[0]);   // 7.38906
//   dlua_tensor_release(x);
//   return dlua_scope_end(&s);               // the first failure, if any
//
// Rules that hold everywhere
//   * A function that can fail returns dlua_status; DLUA_OK is 0. What it makes goes through a pointer that
//     stays untouched on failure. The one place that writes the message is dlua_fail; all others pass it on.
//   * Nothing here aborts or exits, or prints unless DLUA_VERBOSE asks for it.
//   * "caller owns the result": release it once. "borrowed": do not release, valid while its owner lives.
//   * Dimensions and sizes count from 0 in C; every message counts from 1, as its reader does.
//   * Sums that oneDNN splits among threads (products, weight gradients) may differ in the last bits between
//     thread counts; everything else does not depend on them.
#ifndef DLUA_H
#define DLUA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DLUA_VERSION "0.1"
#define DLUA_MAX_DIMS 8

// ---------------------------------------------------------------- status

typedef enum dlua_status {
  DLUA_OK = 0,
  DLUA_BAD_ARGUMENT, // the caller's mistake: shapes, types, ranges
  DLUA_NO_MEMORY,    // host or device memory is spent; a smaller call works
  DLUA_BAD_FILE,     // the outside world: missing, truncated or corrupt files
  DLUA_BAD_DEVICE,   // a device or its library failed or is missing
  DLUA_BAD_EARLIER,  // an earlier call's mistake, seen only now; the message ends with its place
  DLUA_BAD_STATE,    // right call, wrong moment: a freed graph, a changed saved tensor
  DLUA_DECLINED,     // a fast kernel is not for these arguments; never leaves dlua_run
} dlua_status;

// Sets this thread's message (one line, printf style, cut at 1023 bytes) and returns code.
dlua_status dlua_fail(dlua_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
// The message of this thread's last failure; borrowed until its next one. Never NULL.
const char *dlua_message(void);
// Sets how to learn the line of the script that is running ("train.lua:41"), for errors that show
// when another one runs: in backward, and on devices, which work later than they are asked.
void dlua_set_where(void (*where)(char *text, size_t size));
void dlua_where(char *text, size_t size); // "" when nobody knows
// Returns the failure of an expression from the calling function.
#define DLUA_TRY(expression) \
  do { \
    dlua_status try_status_ = (expression); \
    if (try_status_ != DLUA_OK) return try_status_; \
  } while (0)

// ---------------------------------------------------------------- dtypes

typedef enum dlua_dtype {
  DLUA_F32,
  DLUA_F64,
  DLUA_BF16,
  DLUA_F16,
  DLUA_I64,
  DLUA_I32,
  DLUA_U8,
  DLUA_BOOL,
  DLUA_DTYPES
} dlua_dtype;

size_t dlua_dtype_size(dlua_dtype dtype);      // bytes of one element
const char *dlua_dtype_name(dlua_dtype dtype); // "f32", …; static
// Finds a dtype by name; DLUA_BAD_ARGUMENT names the nearest spelling.
dlua_status dlua_dtype_find(const char *name, dlua_dtype *dtype);
static inline bool dlua_is_float(dlua_dtype dtype) { return dtype <= DLUA_F16; }
static inline bool dlua_is_half(dlua_dtype dtype) {
  return dtype == DLUA_BF16 || dtype == DLUA_F16;
}
// The dtype that holds both, PyTorch's table: bool < u8 < i32 < i64 < f16, bf16 < f32 < f64; f16
// with bf16 is f32.
dlua_dtype dlua_promote(dlua_dtype a, dlua_dtype b);

// ---------------------------------------------------------------- devices (backend.h says what one
// is made of)

typedef struct dlua_device dlua_device;

dlua_device *dlua_cpu(void);
// Finds "cpu", "cuda", "cuda:2", "mock", …; the first mention of a device loads its module. Indices
// count from 1.
dlua_status dlua_device_find(const char *name, dlua_device **device);
const char *
dlua_device_name(const dlua_device *device); // "cpu", "cuda", "cuda:2"; borrowed for ever
// Puts "who: " before the message when a device has failed or has no memory left, unless it is there;
// returns status. Devices do not know what they were doing it for.
dlua_status dlua_name_failure(dlua_status status, const char *who);
// Waits until the device has done everything asked of it and reports errors found meanwhile.
dlua_status dlua_synchronize(dlua_device *device);
// How often the host has waited for the device: to read from it, or in dlua_synchronize.
uint64_t dlua_waits(const dlua_device *device);

// ---------------------------------------------------------------- memory

typedef struct dlua_memory {
  size_t live, peak, cached; // bytes in use, their highest value, bytes kept for reuse
  uint64_t allocations;      // blocks ever handed out
  uint64_t system;           // of those, blocks that came from the system instead of the cache
  size_t largest;            // devices: the largest cached block in one piece…
  int segments;              // …and the pieces of memory it all lies in
} dlua_memory;

// 64-byte aligned block from the device's cache (256-byte aligned on devices other than the CPU);
// the content is undefined. 0 bytes give a valid pointer.
dlua_status dlua_alloc(dlua_device *device, size_t bytes, void **block);
void dlua_free(dlua_device *device, void *block, size_t bytes); // bytes as asked for
dlua_memory dlua_memory_stats(const dlua_device *device);
void dlua_memory_reset_peak(dlua_device *device);
void dlua_empty_cache(dlua_device *device); // gives cached blocks back to the system
dlua_device *dlua_out_of_memory(void); // of this thread's last DLUA_NO_MEMORY; the CPU by default
size_t dlua_live_bytes(void);          // bytes in use on all devices together
// Sets what lets go of memory that nobody needs any more. An allocation that fails on this thread
// calls it once, empties all caches and tries again; what it allocates itself is not tried again. On
// other threads, and with NULL as at the start, there is no second try.
void dlua_set_reclaim(void (*fn)(void));
// Does that, for memory of the device that comes from elsewhere; whether another try is worth it.
bool dlua_reclaim(dlua_device *device);
// Makes the n-th allocation from now (blocks and small objects alike) fail, its second try too, or
// with it every later one when `on` is set; n = 0 switches it off. For tests.
void dlua_fail_allocation(uint64_t n, bool on);
uint64_t dlua_allocation_count(void); // allocations tried so far, to learn how many n there are
// Small host objects (tensors, nodes, tables): as calloc and free, with counting and fault
// injection. NULL on failure with the message set.
void *dlua_new(size_t bytes);
void dlua_delete(void *object, size_t bytes);
// The same for what is freed without saying how large it was: blocks that libraries ask for, and
// copies of texts. NULL may be deleted.
void *dlua_new_block(size_t bytes);
char *dlua_new_text(const char *text);
void dlua_delete_block(void *block);

// ---------------------------------------------------------------- tensors

// Where the numbers lie. The other layouts are for whole 4-d activations {n,c,h,w} and take the same
// bytes: NCHW8C and NCHW16C on the CPU, for f32, where c is a multiple of the block; NHWC, the
// elements in the order n,h,w,c, for every dtype. Shapes are {n,c,h,w} all the same; every
// op but the few that say so sees strided tensors only.
typedef enum dlua_layout { DLUA_STRIDED, DLUA_NCHW8C, DLUA_NCHW16C, DLUA_NHWC } dlua_layout;

typedef struct dlua_node dlua_node; // one recorded call, see grad.h

typedef struct dlua_storage {
  int refs;          // atomic
  uint8_t layout;    // of all tensors over it: only whole row-major ones lie over one not strided
  uint32_t version;  // bumped by every in-place write
  uint32_t rewrites; // in-place writes that were recorded; a view made before one is stale
  size_t bytes;
  void *data;
  dlua_device *device;
  void *cache;                // a kernel's converted copy of this content, or NULL
  void (*drop_cache)(void *); // frees it
} dlua_storage;

typedef struct dlua_tensor {
  int refs; // atomic
  uint8_t dtype, ndim;
  bool requires_grad; // a leaf that collects a gradient, or the result of a recorded call
  bool number; // a 0-d host tensor that stands for a plain number: it never widens and fits every
               // device
  bool view;   // shares its storage with the tensor it was made from
  uint8_t output;    // which result of node this is
  uint32_t rewrites; // storage->rewrites when this tensor was made
  int64_t size[DLUA_MAX_DIMS], stride[DLUA_MAX_DIMS], offset; // in elements
  dlua_storage *storage;
  struct dlua_tensor *grad; // of a leaf, or NULL
  dlua_node *node;          // the call that made it, or NULL
} dlua_tensor;

// Bytes that a contiguous tensor of a shape takes; false where a size is negative or the sizes, a 0
// among them notwithstanding, are more than can be addressed.
bool dlua_shape_bytes(dlua_dtype dtype, int ndim, const int64_t *size, size_t *bytes);
// A new contiguous tensor of undefined content; caller owns the result. Fails on overflow, ndim and
// memory.
dlua_status dlua_tensor_new(dlua_tensor **tensor, dlua_dtype dtype, int ndim, const int64_t *size,
                            dlua_device *device);
// A 0-d host tensor that stands for a number: exact i64 if is_int, else f64 value kept; caller owns
// the result.
dlua_status dlua_tensor_number(dlua_tensor **tensor, bool is_int, int64_t i, double f);
// Another tensor over the same storage, detached, with sizes and strides of one's own (all in
// elements). Fails only on ndim and on sizes beyond what can be addressed: for view rules. Caller
// owns the result.
dlua_status dlua_tensor_view(dlua_tensor **view, const dlua_tensor *x, int ndim,
                             const int64_t *size, const int64_t *stride, int64_t offset);
// The same elements without history, sharing storage; caller owns the result.
dlua_status dlua_tensor_detach(dlua_tensor **detached, const dlua_tensor *x);
dlua_tensor *dlua_tensor_retain(dlua_tensor *x); // x itself, one more reference; NULL stays NULL
void dlua_tensor_release(dlua_tensor *x);        // NULL is fine

int64_t dlua_numel(const dlua_tensor *x);
bool dlua_is_contiguous(const dlua_tensor *x); // strided, row-major, no gaps
bool dlua_same_shape(const dlua_tensor *x, const dlua_tensor *y);
// How far apart x's elements lie along each dimension, in elements: x->stride, or what that is over an
// NHWC storage. Not for blocks.
void dlua_strides(const dlua_tensor *x, int64_t *stride);
static inline dlua_device *dlua_device_of(const dlua_tensor *x) { return x->storage->device; }
// First element of x: storage address + offset. Host memory only on the CPU.
void *dlua_data(const dlua_tensor *x);
static inline float *dlua_f32(const dlua_tensor *x) { return (float *)dlua_data(x); }
static inline double *dlua_f64(const dlua_tensor *x) { return (double *)dlua_data(x); }
// Element k, counted in memory from the first, of an f32 or f64 tensor.
static inline double dlua_real(const dlua_tensor *x, int64_t k) {
  return x->dtype == DLUA_F32 ? (double)dlua_f32(x)[k] : dlua_f64(x)[k];
}
static inline void dlua_set_real(const dlua_tensor *x, int64_t k, double value) {
  if (x->dtype == DLUA_F32)
    dlua_f32(x)[k] = (float)value;
  else
    dlua_f64(x)[k] = value;
}
static inline int64_t *dlua_i64(const dlua_tensor *x) { return (int64_t *)dlua_data(x); }

// x as a contiguous strided tensor: x itself retained where it is one already, else a copy. Caller
// owns the result.
dlua_status dlua_contiguous(const dlua_tensor *x, dlua_tensor **result);
// x as another dtype or on another device, detached: x retained where nothing changes. Caller owns
// the result.
dlua_status dlua_cast(const dlua_tensor *x, dlua_dtype dtype, dlua_tensor **result);
dlua_status dlua_to_device(const dlua_tensor *x, dlua_device *device, dlua_tensor **result);
// Writes src into dst element by element (shapes equal, any strides, dtypes and devices). Bumps
// dst's version. A dst in NHWC keeps it where both lie on one device and src is not in blocks; one in
// blocks becomes strided.
dlua_status dlua_copy(dlua_tensor *dst, const dlua_tensor *src);
dlua_status dlua_tensor_fill(dlua_tensor *x, double value);
// Gives x the strided layout for good (a no-op for strided ones); its content, version and history
// stay.
dlua_status dlua_make_strided(dlua_tensor *x);
// How often a whole tensor has been brought from one layout to another so far.
uint64_t dlua_reorders(void);
// Sends the element of a tensor on a device to the host, without waiting for it. dlua_receive gives it
// as dlua_item does, or *arrived = false while it is on its way; DLUA_BAD_STATE when that is long ago.
typedef struct dlua_ticket {
  dlua_device *device;
  dlua_dtype dtype;
  uint64_t number;
} dlua_ticket;

dlua_status dlua_send(const dlua_tensor *x, dlua_ticket *ticket);
dlua_status dlua_receive(const dlua_ticket *ticket, bool *arrived, double *value);
// One element (1 in all) of x on any device as a number; waits for the device.
dlua_status dlua_item(const dlua_tensor *x, bool *is_int, int64_t *i, double *f);
// "{2,3}" for messages; borrowed, one of eight buffers per thread used in turn.
const char *dlua_shape_text(const dlua_tensor *x);
const char *dlua_sizes_text(int n, const int64_t *size);

// ---------------------------------------------------------------- gradients (grad.h for those who
// write ops)

bool dlua_grad_mode(void);
bool dlua_set_grad_mode(bool on); // returns what it was
// Adds d(x)/d(leaf), times gradient (NULL: x has one element and it is 1), to every leaf's grad.
// Frees the graph as it goes unless retain_graph; create_graph records the backward pass itself and
// implies retain_graph.
dlua_status dlua_backward(dlua_tensor *x, dlua_tensor *gradient, bool retain_graph,
                          bool create_graph);
// Gradients of the sum of outputs by inputs, without touching any grad; results[i] is NULL where
// input i was not used. Caller owns the results.
dlua_status dlua_grad(int noutputs, dlua_tensor **outputs, dlua_tensor **gradients, int ninputs,
                      dlua_tensor **inputs, bool retain_graph, bool create_graph,
                      dlua_tensor **results);

// ---------------------------------------------------------------- random numbers, threads,
// process-wide settings

void dlua_seed(uint64_t seed);
uint64_t dlua_random_key(void);         // a fresh 64-bit key drawn from the global generator
void dlua_rng_state(uint64_t state[2]); // seed and offset, for checkpoints
void dlua_set_rng_state(const uint64_t state[2]);

int dlua_threads(void);         // size of the kernel team
void dlua_set_threads(int n);   // clamped to 1..number of CPUs
bool dlua_reference_mode(void); // DLUA_REF=1: only plain kernels run
void dlua_set_reference_mode(bool on);

#endif
