// copy.cu - elements from one place, stride and dtype to another. Copies within a dtype move bytes:
// as one where both sides lie without gaps, through tiles in shared memory where they run along
// different dimensions, else in the widest units that fit.
#include "move.h"
#include "pointwise.h"
#include "walk.h"

namespace {

// ---------------------------------------------------------------- within a dtype

template <class U, class I> __global__ void move_units(Walk<2> w) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[2];
    find(w, k, at);
    *(U *)(w.data[0] + at[0]) = *(const U *)(w.data[1] + at[1]);
  }
}

// The low bytes of value, which comes with the launch, to every place.
template <class U, class I> __global__ void put_value(Walk<1> w, uint64_t value) {
  for (I k = (I)first_index(); k < (I)w.count; k += (I)all_threads()) {
    int64_t at[1];
    find(w, k, at);
    *(U *)(w.data[0] + at[0]) = (U)value;
  }
}

constexpr int TILE = 32, TILE_ROWS = 8;

// Matrices whose rows lie side by side in the target and whose columns do in the source.
struct Turn {
  Walk<2> outer; // the matrices
  int64_t rows, columns, row_step, column_step;
  int64_t row_tiles, column_tiles;
};

template <class U> __global__ void move_turned(Turn t) {
  __shared__ U tile[TILE][TILE + 1];
  int64_t tiles = t.row_tiles * t.column_tiles, all = tiles * t.outer.count;
  for (int64_t k = blockIdx.x; k < all; k += gridDim.x) {
    int64_t at[2], inside = k % tiles;
    int64_t row = inside / t.column_tiles * TILE, column = inside % t.column_tiles * TILE;
    find(t.outer, k / tiles, at);
    const char *from = t.outer.data[1] + at[1];
    for (int j = threadIdx.y; j < TILE; j += TILE_ROWS) {
      int64_t r = row + threadIdx.x, c = column + j;
      if (r < t.rows && c < t.columns)
        tile[j][threadIdx.x] = ((const U *)(from + c * t.column_step))[r];
    }
    __syncthreads();
    for (int j = threadIdx.y; j < TILE; j += TILE_ROWS) {
      int64_t r = row + j, c = column + threadIdx.x;
      if (r < t.rows && c < t.columns)
        ((U *)(t.outer.data[0] + at[0] + r * t.row_step))[c] = tile[threadIdx.x][j];
    }
    __syncthreads();
  }
}

// Whether the source of a loop runs along another dimension than the target, and then the matrices.
bool find_turn(const dlua_iter &it, int64_t width, Turn *t) {
  int other = 0;
  for (int d = 1; d < it.ndim; d++)
    if (it.stride[1][d] == width) other = d;
  if (other == 0 || it.stride[0][0] != width || it.stride[1][0] == width) return false;
  t->columns = it.size[0], t->rows = it.size[other];
  if (t->columns < 8 || t->rows < 8) return false;
  t->row_step = it.stride[0][other], t->column_step = it.stride[1][0];
  t->row_tiles = (t->rows + TILE - 1) / TILE, t->column_tiles = (t->columns + TILE - 1) / TILE;
  t->outer = walk_over<2>(0, nullptr);
  int n = 0;
  for (int d = it.ndim - 1; d > 0; d--) {
    if (d == other) continue;
    t->outer.size[n] = it.size[d], t->outer.count *= it.size[d];
    for (int k = 0; k < 2; k++) t->outer.step[k][n] = it.stride[k][d];
    t->outer.ndim = ++n;
  }
  for (int k = 0; k < 2; k++) t->outer.data[k] = it.data[k];
  return true;
}

dlua_status run_turn(const dlua_args *a, const Turn &t, int64_t width) {
  int64_t tiles = t.row_tiles * t.column_tiles * t.outer.count;
  unsigned blocks = (unsigned)(tiles < MOST_BLOCKS ? tiles : MOST_BLOCKS);
  return with_element(width, 0, [&](auto type, auto) {
    return launch(a, move_turned<decltype(type)>, blocks, dim3(TILE, TILE_ROWS), t);
  });
}

// The loop as a walk: its dimension 0 is the innermost.
Walk<2> walk_of(const dlua_iter &it) {
  Walk<2> w = walk_over<2>(0, nullptr);
  w.ndim = it.ndim;
  for (int d = 0; d < it.ndim; d++) {
    int to = it.ndim - 1 - d;
    w.size[to] = it.size[d], w.count *= it.size[d];
    for (int k = 0; k < 2; k++) w.step[k][to] = it.stride[k][d];
  }
  for (int k = 0; k < 2; k++) w.data[k] = it.data[k];
  return w;
}

dlua_status put_number(const dlua_args *a, const dlua_tensor *to, const dlua_tensor *from) {
  Walk<1> w = walk_over<1>(to->ndim, to->size);
  uint64_t value = 0;
  memcpy(&value, dlua_data(from), dlua_dtype_size((dlua_dtype)from->dtype));
  set_operand(&w, 0, to), merge(&w);
  return with_element(width_of(to), w.count, [&](auto type, auto count) {
    return launch(a, put_value<decltype(type), decltype(count)>, blocks_for(w.count), THREADS, w,
                  value);
  });
}

// ---------------------------------------------------------------- from dtype to dtype

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

constexpr int QUAD = 4;

template <class T> struct alignas(QUAD * sizeof(T)) Quad { T element[QUAD]; };

// Both without gaps.
template <class To, class From> __global__ void convert_packed(To *y, const From *x, int64_t n) {
  int64_t quads = n / QUAD;
  for (int64_t k = first_index(); k < quads; k += all_threads()) {
    Quad<From> in = ((const Quad<From> *)x)[k];
    Quad<To> out;
    for (int j = 0; j < QUAD; j++) out.element[j] = To(float(in.element[j]));
    ((Quad<To> *)y)[k] = out;
  }
  for (int64_t k = quads * QUAD + first_index(); k < n; k += all_threads()) y[k] = To(float(x[k]));
}

template <class To, class From> dlua_status convert(const dlua_args *a) {
  int64_t n = dlua_numel(a->out[0]);
  return launch(a, convert_packed<To, From>, blocks_for(n / QUAD + 1), THREADS, data<To>(a->out[0]),
                data<From>(a->in[0]), n);
}

// The pairs that training in mixed precision and image input meet all the time; DLUA_DECLINED for
// others and where something is not in place for 16 bytes at once.
dlua_status try_packed(const dlua_args *a, const Loop<2> &loop) {
  const Operand &y = loop.operand[0], &x = loop.operand[1];
  bool packed = loop.ndim == 1 && x.data && y.stride[0] == width_of(a->out[0]) &&
                x.stride[0] == width_of(a->in[0]);
  if (!packed || (uintptr_t)y.data % 16 || (uintptr_t)x.data % 16) return DLUA_DECLINED;
  if (y.dtype == DLUA_F32 && x.dtype == DLUA_BF16) return convert<float, bf16>(a);
  if (y.dtype == DLUA_F32 && x.dtype == DLUA_F16) return convert<float, f16>(a);
  if (y.dtype == DLUA_F32 && x.dtype == DLUA_U8) return convert<float, uint8_t>(a);
  if (y.dtype == DLUA_BF16 && x.dtype == DLUA_F32) return convert<bf16, float>(a);
  if (y.dtype == DLUA_F16 && x.dtype == DLUA_F32) return convert<f16, float>(a);
  return DLUA_DECLINED;
}

} // namespace

dlua_status dlua_gpu_move(const dlua_args *a, const dlua_tensor *to, const dlua_tensor *from) {
  dlua_tensor *const operands[2] = {(dlua_tensor *)to, (dlua_tensor *)from};
  int64_t width = width_of(to);
  dlua_iter it;
  Turn turn = {};
  if (dlua_numel(to) == 0) return DLUA_OK;
  if (from->storage->device != a->device) return put_number(a, to, from);
  dlua_iter_begin(&it, 2, operands);
  if (it.ndim == 1 && it.stride[0][0] == width && it.stride[1][0] == width)
    return dlua_gpu_copy(a->device->index, it.data[0], it.data[1], (size_t)(it.size[0] * width));
  if (find_turn(it, width, &turn)) return run_turn(a, turn, width);
  Walk<2> w = walk_of(it);
  int64_t unit = widen_units(&w, 2, width);
  return with_unit(unit, w.count, [&](auto type, auto count) {
    return launch(a, move_units<decltype(type), decltype(count)>, blocks_for(w.count), THREADS, w);
  });
}

dlua_status dlua_gpu_start_from(const dlua_args *a) {
  if (dlua_data(a->out[0]) == dlua_data(a->in[0])) return DLUA_OK;
  return dlua_gpu_move(a, a->out[0], a->in[0]);
}

dlua_status Source::open(const dlua_args *a, int k) {
  const dlua_tensor *x = a->in[k];
  tensor = *x;
  if (dlua_data(x) != dlua_data(a->out[0])) return DLUA_OK;
  DLUA_TRY(memory.take(a, (size_t)(dlua_numel(x) * width_of(x))));
  storage.device = a->device, storage.data = memory.block;
  tensor.storage = &storage, tensor.offset = 0;
  int64_t stride = 1;
  for (int d = x->ndim - 1; d >= 0; d--) tensor.stride[d] = stride, stride *= x->size[d];
  return dlua_gpu_move(a, &tensor, x);
}

namespace {

template <class T> uint64_t bits_of(T value) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

} // namespace

uint64_t dlua_gpu_bits(uint8_t dtype, const dlua_value *number) {
  switch (dtype) {
  case DLUA_F32: return bits_of((float)number->f);
  case DLUA_F64: return bits_of(number->f);
  case DLUA_BF16: return bits_of(bf16((float)number->f));
  case DLUA_F16: return bits_of(f16((float)number->f));
  case DLUA_BOOL: return number->is_int ? number->i != 0 : number->f != 0;
  default: return (uint64_t)(number->is_int ? number->i : (int64_t)number->f);
  }
}

extern "C" dlua_status dlua_gpu_clone(const dlua_args *a) {
  return dlua_gpu_move(a, a->out[0], a->in[0]);
}

extern "C" dlua_status dlua_gpu_cast(const dlua_args *a) {
  dlua_dtype to = (dlua_dtype)a->out[0]->dtype, from = (dlua_dtype)a->in[0]->dtype;
  if (to == from) return dlua_gpu_clone(a);
  dlua_tensor *const operands[2] = {a->out[0], a->in[0]};
  Loop<2> loop = loop_over(a, operands);
  dlua_status status = try_packed(a, loop);
  if (status != DLUA_DECLINED) return status;
  if (!dlua_is_float(from) || dlua_is_float(to) || to == DLUA_BOOL)
    return run_loop<ALL_TYPES>(a, loop, from, Same());
  return launch(a, pointwise_strided<double, 2, Truncate>, blocks_for(loop.count), THREADS, loop,
                Truncate{(uint8_t)to});
}
