// create.cu - tensors from nothing: constant, counted, identity. Compiled without contraction, so
// that counted floats have the CPU's bits.
#include "pointwise.h"

extern "C" {
#include "../host.h"
dlua_kernel dlua_gpu_cast;
}

namespace {

struct Same {
  template <class C> __device__ C operator()(C x) const { return x; }
};

// Every element of out as the cast of one number, which travels with the launch.
dlua_status fill_with(const dlua_args *a, bool is_int, int64_t i, double f) {
  dlua_storage storage = {};
  dlua_tensor number = {};
  dlua_dtype to = (dlua_dtype)a->out[0]->dtype;
  storage.device = dlua_gpu_host->cpu;
  storage.data = is_int ? (void *)&i : (void *)&f;
  number.storage = &storage, number.number = true;
  number.dtype = is_int ? DLUA_I64 : DLUA_F64;
  dlua_tensor *in[1] = {&number}, *const operands[2] = {a->out[0], &number};
  if (is_int || dlua_is_float(to))
    return run_loop<ALL_TYPES>(a, loop_over(a, operands), to, Same());
  dlua_args cast = *a; // a fraction in an integer tensor
  cast.in = in, cast.nin = 1;
  return dlua_gpu_cast(&cast);
}

dlua_status fill_with(const dlua_args *a, const dlua_value &value) {
  return fill_with(a, value.is_int, value.i, value.f);
}

// All bits 0 are 0 in every dtype.
dlua_status clear(const dlua_args *a) {
  const dlua_tensor *out = a->out[0];
  if (!dlua_is_contiguous(out)) return fill_with(a, true, 0, 0);
  size_t bytes = (size_t)dlua_numel(out) * dlua_dtype_size((dlua_dtype)out->dtype);
  return bytes ? dlua_gpu_fill_bytes(a->device->index, dlua_data(out), 0, bytes) : DLUA_OK;
}

// ---------------------------------------------------------------- counted

struct Diagonal {
  int64_t width;
  __device__ int64_t operator()(int64_t k) const { return k / width == k % width; }
};

struct Integers {
  int64_t first, step;
  __device__ int64_t operator()(int64_t k) const { return first + k * step; }
};

struct Floats {
  double first, step;
  __device__ double operator()(int64_t k) const { return first + (double)k * step; }
};

// From the nearer end, so that both are exact.
struct Between {
  double first, last, step;
  int64_t n;
  __device__ double operator()(int64_t k) const {
    return k < (n + 1) / 2 ? first + step * (double)k : last - step * (double)(n - 1 - k);
  }
};

struct Places { // of a result without gaps
  char *data;
  int64_t n, width;
  uint8_t dtype;
  bool real;
};

// Integers get whole numbers: a bool is true from 1 on.
template <class F> __global__ void counted(Places out, F f) {
  for (int64_t k = first_index(); k < out.n; k += all_threads()) {
    auto value = f(k);
    if (out.real)
      store_as(out.data + k * out.width, out.dtype, value);
    else
      store_as(out.data + k * out.width, out.dtype, (int64_t)value);
  }
}

template <class F> dlua_status count(const dlua_args *a, F f) {
  const dlua_tensor *out = a->out[0];
  dlua_dtype dtype = (dlua_dtype)out->dtype;
  Places places = {data<char>(out), dlua_numel(out), (int64_t)dlua_dtype_size(dtype), out->dtype,
                   dlua_is_float(dtype)};
  return launch(a, counted<F>, blocks_for(places.n), THREADS, places, f);
}

double as_double(const dlua_value &v) { return v.is_int ? (double)v.i : v.f; }

} // namespace

extern "C" dlua_status dlua_gpu_zeros(const dlua_args *a) { return clear(a); }
extern "C" dlua_status dlua_gpu_zeros_like(const dlua_args *a) { return clear(a); }
extern "C" dlua_status dlua_gpu_zero(const dlua_args *a) { return clear(a); }
extern "C" dlua_status dlua_gpu_ones(const dlua_args *a) { return fill_with(a, true, 1, 1); }
extern "C" dlua_status dlua_gpu_ones_like(const dlua_args *a) { return fill_with(a, true, 1, 1); }
extern "C" dlua_status dlua_gpu_full(const dlua_args *a) { return fill_with(a, a->num[1]); }
extern "C" dlua_status dlua_gpu_full_like(const dlua_args *a) { return fill_with(a, a->num[0]); }
extern "C" dlua_status dlua_gpu_fill(const dlua_args *a) { return fill_with(a, a->num[0]); }

extern "C" dlua_status dlua_gpu_empty(const dlua_args *a) {
  (void)a;
  return DLUA_OK;
}

extern "C" dlua_status dlua_gpu_eye(const dlua_args *a) {
  return count(a, Diagonal{a->out[0]->size[1]});
}

extern "C" dlua_status dlua_gpu_range(const dlua_args *a) {
  const dlua_value &first = a->num[0], &last = a->num[1], &step = a->num[2];
  bool exact = first.is_int && last.is_int && step.is_int;
  if (exact && !dlua_is_float((dlua_dtype)a->out[0]->dtype))
    return count(a, Integers{first.i, step.i});
  return count(a, Floats{as_double(first), as_double(step)});
}

extern "C" dlua_status dlua_gpu_linspace(const dlua_args *a) {
  int64_t n = a->out[0]->size[0];
  double first = a->num[0].f, last = a->num[1].f;
  return count(a, Between{first, last, n > 1 ? (last - first) / (double)(n - 1) : 0, n});
}
