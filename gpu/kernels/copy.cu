// copy.cu - elements from one place, stride and dtype to another.
#include "../pointwise.h"

namespace {

struct Same {
  template <class C> __device__ C operator()(C x) const { return x; }
};

// Floats become integers by truncation; nan is 0 and the ends of the range saturate.
struct Truncate {
  uint8_t dtype;
  __device__ int64_t operator()(double x) const {
    double low = dtype == DLUA_I64 ? -0x1p63 : dtype == DLUA_I32 ? -0x1p31 : 0;
    double high = dtype == DLUA_I64 ? 0x1p63 : dtype == DLUA_I32 ? 0x1p31 - 1 : 255;
    if (x != x) return 0;
    if (x >= high) return dtype == DLUA_I64 ? INT64_MAX : (int64_t)high;
    return x <= low ? (int64_t)low : (int64_t)x;
  }
};

} // namespace

extern "C" dlua_status dlua_gpu_cast(const dlua_args *a) {
  dlua_dtype to = (dlua_dtype)a->out[0]->dtype, from = (dlua_dtype)a->in[0]->dtype;
  dlua_tensor *const operands[2] = {a->out[0], a->in[0]};
  Loop<2> loop = loop_over(a, operands);
  if (!dlua_is_float(from) || dlua_is_float(to) || to == DLUA_BOOL)
    return run_loop<ALL_TYPES>(a, loop, from, Same());
  return launch(a, pointwise_strided<double, 2, Truncate>, blocks_for(loop.count), THREADS, loop,
                Truncate{(uint8_t)to});
}

extern "C" dlua_status dlua_gpu_clone(const dlua_args *a) { return dlua_gpu_cast(a); }
