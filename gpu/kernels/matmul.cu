// matmul.cu - matrix products that cuBLASLt does not do: of integers, over no elements at all, and of
// what its heuristic refuses. Blocks of threads share tiles of both matrices; a tile's sum over k is
// taken in order, so results are the same every time. And what an epilogue of the library reads.
#include "../product.h"
#include "reduce.h"

namespace {

constexpr int TILE = 16;

// Element offsets of product number `batch` in x, y and out.
__device__ inline void batch_offset(const dlua_product &p, int64_t batch, int64_t offset[3]) {
  offset[0] = offset[1] = offset[2] = 0;
  for (int d = p.ndim - 1; d >= 0; d--) {
    int64_t rest = batch / p.size[d], at = batch - rest * p.size[d];
    for (int i = 0; i < 3; i++) offset[i] += at * p.stride[i][d];
    batch = rest;
  }
}

template <class T> __device__ inline compute_t<T> element(const void *x, int64_t k) {
  return widen(((const T *)x)[k]);
}

// U is what sums are kept in: unsigned for integers, which wrap.
template <class T, class U>
__global__ void tiled_product(dlua_product p, int64_t rows, int64_t columns, int64_t tiles) {
  __shared__ U xs[TILE][TILE + 1], ys[TILE][TILE + 1];
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int64_t offset[3], batch = tile / (rows * columns), at = tile - batch * rows * columns;
    batch_offset(p, batch, offset);
    int64_t i = at / columns * TILE + threadIdx.y, j0 = at % columns * TILE;
    int64_t j = j0 + threadIdx.x;
    U sum = 0;
    for (int64_t k0 = 0; k0 < p.k; k0 += TILE) {
      int64_t kx = k0 + threadIdx.x, ky = k0 + threadIdx.y;
      bool in_x = i < p.m && kx < p.k, in_y = ky < p.k && j < p.n;
      xs[threadIdx.y][threadIdx.x] =
          in_x ? U(element<T>(p.x, offset[0] + i * p.xi + kx * p.xk)) : U(0);
      ys[threadIdx.y][threadIdx.x] =
          in_y ? U(element<T>(p.y, offset[1] + ky * p.yk + j * p.yj)) : U(0);
      __syncthreads();
      for (int k = 0; k < TILE; k++) sum += xs[threadIdx.y][k] * ys[k][threadIdx.x];
      __syncthreads();
    }
    if (i >= p.m || j >= p.n) continue;
    if (p.bias) sum += U(element<T>(p.bias, j * p.bj));
    ((T *)p.out)[offset[2] + i * p.n + j] = T(sum);
  }
}

template <class T, class U> dlua_status start(const dlua_args *a, const dlua_product *p) {
  int64_t rows = (p->m + TILE - 1) / TILE, columns = (p->n + TILE - 1) / TILE;
  int64_t tiles = rows * columns;
  for (int d = 0; d < p->ndim; d++) tiles *= p->size[d];
  unsigned blocks = (unsigned)(tiles < MOST_BLOCKS ? tiles : MOST_BLOCKS);
  return launch(a, tiled_product<T, U>, blocks, dim3(TILE, TILE), *p, rows, columns, tiles);
}

// A byte of bits for every thread: row by row, `pitch` bytes each.
template <class L>
__global__ void slope_bits(L y, uint8_t *bits, int64_t rows, int64_t n, int64_t pitch, bool packs) {
  constexpr int W = L::WIDTH;
  using C = typename L::C;
  for (int64_t k = first_index(); k < rows * pitch; k += all_threads()) {
    int64_t row = k / pitch, column = (k - row * pitch) * 8, at = row * n + column;
    unsigned byte = 0;
    if (packs && column < n) {
      for (int i = 0; i < 8; i += W) {
        C v[W];
        y.get(at + i, v);
        for (int j = 0; j < W; j++) byte |= (unsigned)(v[j] > C(0)) << (i + j);
      }
    } else {
      for (int i = 0; i < 8 && column + i < n; i++) {
        C v[1];
        y.get(at + i, v);
        byte |= (unsigned)(v[0] > C(0)) << i;
      }
    }
    bits[k] = (uint8_t)byte;
  }
}

} // namespace

extern "C" dlua_status dlua_gpu_slope_bits(const dlua_args *a, const dlua_tensor *y, int64_t n,
                                           int64_t pitch, void *bits) {
  int64_t rows = dlua_numel(y) / n, bytes = pitch / 8;
  return with_loader<FLOATS>(y, [&](auto load) {
    using L = decltype(load);
    bool packs = n % 8 == 0 && load.aligned();
    return launch(a, slope_bits<L>, blocks_for(rows * bytes), THREADS, load, (uint8_t *)bits, rows,
                  n, bytes, packs);
  });
}

extern "C" dlua_status dlua_gpu_tiled_product(const dlua_args *a, const dlua_product *p) {
  switch (p->dtype) {
  case DLUA_F32: return start<float, float>(a, p);
  case DLUA_F64: return start<double, double>(a, p);
  case DLUA_BF16: return start<bf16, float>(a, p);
  case DLUA_F16: return start<f16, float>(a, p);
  case DLUA_I64: return start<int64_t, uint64_t>(a, p);
  case DLUA_I32: return start<int32_t, uint32_t>(a, p);
  default: return start<uint8_t, uint32_t>(a, p);
  }
}
