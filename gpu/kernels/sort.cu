// sort.cu - sort, argsort, topk. Elements become unsigned keys that order as they do, NaN above all
// and -0 equal to 0, as on the CPU; equal keys are told apart by their position, so every way gives
// the same order. Short lanes are sorted in shared memory, a block each. The first few of a longer
// lane are kept there while a block goes through it. All others go through one radix sort of all
// lanes at once, for which the number of the lane is the upper part of the key.
#include "radix_sort.h"
#include "walk.h"

namespace {

constexpr int SLOTS = 2048, LANE_THREADS = 512; // items in shared memory, threads that sort them
constexpr int MOST_KEPT = SLOTS / 4;            // the others are room for candidates

// Operands of the walk over lanes; a lane is n entries, a step apart.
enum { X, INDICES, VALUES, OPERANDS };

struct Lanes {
  Walk<OPERANDS> walk;
  int64_t n, kept, step[OPERANDS];
  uint8_t dtype;
  int bits;     // of a key
  bool flipped; // the largest first
};

// ---------------------------------------------------------------- keys

// Floats order as their bits do once negative ones are turned over and the sign stands on its head.
__device__ inline uint64_t float_key(uint64_t bits, int width, uint64_t infinity) {
  uint64_t sign = (uint64_t)1 << (width - 1), all = sign | (sign - 1);
  if ((bits & ~sign) > infinity) return all;
  if (bits == sign) bits = 0;
  return bits & sign ? ~bits & all : bits | sign;
}

__device__ inline uint64_t key_of(const Lanes &s, const char *p) {
  uint64_t key;
  switch (s.dtype) {
  case DLUA_F32: key = float_key(*(const uint32_t *)p, 32, 0x7f800000u); break;
  case DLUA_F64: key = float_key(*(const uint64_t *)p, 64, 0x7ff0000000000000u); break;
  case DLUA_BF16: key = float_key(*(const uint16_t *)p, 16, 0x7f80u); break;
  case DLUA_F16: key = float_key(*(const uint16_t *)p, 16, 0x7c00u); break;
  case DLUA_I64: key = *(const uint64_t *)p ^ (uint64_t)1 << 63; break;
  case DLUA_I32: key = *(const uint32_t *)p ^ 0x80000000u; break;
  default: key = *(const uint8_t *)p; break;
  }
  return s.flipped ? ~key & (~(uint64_t)0 >> (64 - s.bits)) : key;
}

__device__ inline void give_entry(const Lanes &s, const int64_t (&at)[OPERANDS], int64_t rank,
                                  int64_t position) {
  *(int64_t *)(s.walk.data[INDICES] + at[INDICES] + rank * s.step[INDICES]) = position + 1;
  if (!s.walk.data[VALUES]) return;
  char *to = s.walk.data[VALUES] + at[VALUES] + rank * s.step[VALUES];
  const char *from = s.walk.data[X] + at[X] + position * s.step[X];
  switch (s.bits) {
  case 8: *to = *from; break;
  case 16: *(uint16_t *)to = *(const uint16_t *)from; break;
  case 32: *(uint32_t *)to = *(const uint32_t *)from; break;
  default: *(uint64_t *)to = *(const uint64_t *)from; break;
  }
}

// ---------------------------------------------------------------- in shared memory

struct Items {
  uint64_t key[SLOTS];
  uint32_t at[SLOTS];
};

// Behind every item, even one with all bits set, which has a smaller position.
__device__ inline void clear_slots(Items &items, int from, int slots) {
  for (int k = from + (int)threadIdx.x; k < slots; k += (int)blockDim.x)
    items.key[k] = ~(uint64_t)0, items.at[k] = ~0u;
}

// Batcher's bitonic sort; slots is a power of two. All threads of the block call it.
__device__ inline void sort_slots(Items &items, int slots) {
  __syncthreads();
  for (int run = 2; run <= slots; run *= 2) {
    for (int apart = run / 2; apart > 0; apart /= 2) {
      for (int k = (int)threadIdx.x; k < slots / 2; k += (int)blockDim.x) {
        int low = k / apart * apart * 2 + k % apart, high = low + apart;
        bool upwards = (low & run) == 0;
        uint64_t low_key = items.key[low], high_key = items.key[high];
        uint32_t low_at = items.at[low], high_at = items.at[high];
        bool after = low_key != high_key ? low_key > high_key : low_at > high_at;
        if (after != upwards) continue;
        items.key[low] = high_key, items.key[high] = low_key;
        items.at[low] = high_at, items.at[high] = low_at;
      }
      __syncthreads();
    }
  }
}

// A block per lane of at most slots entries.
__global__ void sort_lanes(Lanes s, int slots) {
  __shared__ Items items;
  for (int64_t lane = blockIdx.x; lane < s.walk.count; lane += gridDim.x) {
    int64_t at[OPERANDS];
    find(s.walk, lane, at);
    for (int k = (int)threadIdx.x; k < s.n; k += (int)blockDim.x)
      items.key[k] = key_of(s, s.walk.data[X] + at[X] + k * s.step[X]), items.at[k] = (uint32_t)k;
    clear_slots(items, (int)s.n, slots);
    sort_slots(items, slots);
    for (int k = (int)threadIdx.x; k < s.kept; k += (int)blockDim.x)
      give_entry(s, at, k, items.at[k]);
    __syncthreads();
  }
}

// A block per longer lane: the best so far stand in front, behind them come candidates, which must
// be better than the last of the best; when there is no room for more, all are sorted.
__global__ void select_lanes(Lanes s) {
  __shared__ Items items;
  __shared__ int used;
  for (int64_t lane = blockIdx.x; lane < s.walk.count; lane += gridDim.x) {
    int64_t at[OPERANDS];
    uint64_t worst = ~(uint64_t)0; // a later entry with the same key is worse
    bool full = false;
    find(s.walk, lane, at);
    if (threadIdx.x == 0) used = 0;
    __syncthreads();
    for (int64_t start = 0; start < s.n; start += blockDim.x) {
      int64_t k = start + threadIdx.x;
      if (k < s.n) {
        uint64_t key = key_of(s, s.walk.data[X] + at[X] + k * s.step[X]);
        if (!full || key < worst) {
          int slot = atomicAdd(&used, 1);
          items.key[slot] = key, items.at[slot] = (uint32_t)k;
        }
      }
      __syncthreads();
      int have = used;
      bool last = start + blockDim.x >= s.n;
      __syncthreads();
      if (!last && have + (int)blockDim.x <= SLOTS) continue;
      clear_slots(items, have, SLOTS);
      sort_slots(items, SLOTS);
      if (threadIdx.x == 0 && have > s.kept) used = (int)s.kept;
      full = have >= s.kept, worst = items.key[s.kept - 1];
      __syncthreads();
    }
    for (int k = (int)threadIdx.x; k < s.kept; k += (int)blockDim.x)
      give_entry(s, at, k, items.at[k]);
    __syncthreads();
  }
}

// ---------------------------------------------------------------- by radix

// shift: where the number of the lane goes, or 64 where it has no room.
__global__ void make_keys(Lanes s, int shift, uint64_t *keys, int64_t *values) {
  for (int64_t k = first_index(); k < s.walk.count * s.n; k += all_threads()) {
    int64_t lane = k / s.n, at[OPERANDS];
    find(s.walk, lane, at);
    uint64_t key = key_of(s, s.walk.data[X] + at[X] + (k - lane * s.n) * s.step[X]);
    keys[k] = shift < 64 ? (uint64_t)lane << shift | key : key, values[k] = k;
  }
}

__global__ void make_lane_keys(int64_t n, int64_t count, const int64_t *values, uint64_t *keys) {
  for (int64_t k = first_index(); k < count; k += all_threads())
    keys[k] = (uint64_t)(values[k] / n);
}

__global__ void give_sorted(Lanes s, const int64_t *values) {
  for (int64_t k = first_index(); k < s.walk.count * s.kept; k += all_threads()) {
    int64_t lane = k / s.kept, rank = k - lane * s.kept, at[OPERANDS];
    find(s.walk, lane, at);
    give_entry(s, at, rank, values[lane * s.n + rank] - lane * s.n);
  }
}

dlua_status sort_by_radix(const dlua_args *a, const Lanes &s) {
  Pairs pairs;
  int64_t count = s.walk.count * s.n;
  int lane_bits = bits_below(s.walk.count), all = s.bits + lane_bits;
  DLUA_TRY(pairs.take(a, count));
  DLUA_TRY(launch(a, make_keys, blocks_for(count), THREADS, s, all <= 64 ? s.bits : 64, pairs.keys,
                  pairs.values));
  DLUA_TRY(dlua_gpu_sort_pairs(a, &pairs, 0, all <= 64 ? all : s.bits));
  if (all > 64) { // then by lanes, in which the order by keys stays
    DLUA_TRY(launch(a, make_lane_keys, blocks_for(count), THREADS, s.n, count, pairs.values,
                    pairs.keys));
    DLUA_TRY(dlua_gpu_sort_pairs(a, &pairs, 0, lane_bits));
  }
  return launch(a, give_sorted, blocks_for(s.walk.count * s.kept), THREADS, s, pairs.values);
}

// ---------------------------------------------------------------- the three ways

constexpr int64_t LONG = 1 << 17; // one block should not go through more alone

int slots_for(int64_t n) {
  int slots = 2;
  while (slots < n) slots *= 2;
  return slots;
}

dlua_status sort_all(const dlua_args *a, const dlua_tensor *values, const dlua_tensor *indices,
                     int64_t dim, bool flipped) {
  const dlua_tensor *x = a->in[0];
  const dlua_tensor *operand[OPERANDS] = {x, indices, values};
  Lanes s = {walk_over<OPERANDS>(x->ndim, x->size)};
  if (dlua_numel(indices) == 0) return DLUA_OK;
  for (int k = 0; k < OPERANDS; k++) {
    if (!operand[k]) continue;
    set_operand(&s.walk, k, operand[k]);
    s.step[k] = step_of(operand[k], dim);
  }
  s.n = extent_of(x, dim), s.kept = extent_of(indices, dim);
  s.walk.count /= s.n, s.walk.size[dim] = 1;
  merge(&s.walk);
  s.dtype = x->dtype, s.bits = (int)(8 * width_of(x)), s.flipped = flipped;
  bool few = s.kept <= MOST_KEPT && (s.n <= LONG || s.walk.count >= 132) && s.n < UINT32_MAX;
  if (s.n > SLOTS && !few) return sort_by_radix(a, s);
  unsigned blocks = (unsigned)(s.walk.count < INT32_MAX ? s.walk.count : INT32_MAX);
  if (s.n > SLOTS) return launch(a, select_lanes, blocks, LANE_THREADS, s);
  int slots = slots_for(s.n);
  unsigned threads = slots < 2 * WARP ? WARP : slots / 2;
  return launch(a, sort_lanes, blocks, threads < LANE_THREADS ? threads : LANE_THREADS, s, slots);
}

} // namespace

extern "C" dlua_status dlua_gpu_sort(const dlua_args *a) {
  return sort_all(a, a->out[0], a->out[1], a->num[0].i, a->num[1].i != 0);
}

extern "C" dlua_status dlua_gpu_argsort(const dlua_args *a) {
  return sort_all(a, nullptr, a->out[0], a->num[0].i, a->num[1].i != 0);
}

extern "C" dlua_status dlua_gpu_topk(const dlua_args *a) {
  return sort_all(a, a->out[0], a->out[1], a->num[1].i, a->num[2].i != 0);
}
