// augment.cu - batches of pictures cut, flipped and normalised from a data set that lies on the
// device, in one launch. A block makes a piece of one picture: what is drawn for the picture is
// drawn once, then a thread finds where its place comes from and follows it through all channels.
#include "kernel.h"

#include "../../runtime/ops/augment.h"

namespace {

struct Batch {
  dlua_augment g;
  dlua_index_check check;
  const uint8_t *images;
  int64_t count, pictures; // in the data set, in the batch
  const int64_t *index;
  const float *mean, *std; // NULL: pictures keep 0..1
  int next;                // from one channel's mean to the next
};

template <class T, class I> __global__ void augment(Batch b, T *y) {
  __shared__ dlua_augment_fate fate;
  __shared__ int64_t sample;
  const dlua_augment &g = b.g;
  int64_t area = g.size[0] * g.size[1], plane = g.window[0] * g.window[1];
  for (int64_t k = blockIdx.y; k < b.pictures; k += gridDim.y) {
    if (threadIdx.x == 0) {
      sample = -1;
      if (index_at(b.check, b.index[k], k, b.count, &sample))
        fate = dlua_augment_draw(&g, (uint64_t)sample);
    }
    __syncthreads();
    for (I p = (I)first_index(); p < (I)plane && sample >= 0; p += (I)all_threads()) {
      I line = p / (I)g.window[1];
      int64_t row = dlua_augment_at(&g, &fate, 0, line);
      int64_t column = dlua_augment_at(&g, &fate, 1, p - line * (I)g.window[1]);
      bool outside = row < 0 || column < 0;
      int64_t from = sample * g.channels * area + (outside ? 0 : row * g.size[1] + column);
      int64_t erased = dlua_augment_erased(&g, &fate, line, p - line * (I)g.window[1]);
      int stage = erased < 0 ? DLUA_AUGMENT_LEVELS : g.erase_stage;
      T *to = y + k * g.channels * plane + p;
      for (int64_t c = 0; c < g.channels; c++) {
        float value = erased >= 0 ? dlua_augment_erased_value(&g, &fate, c, erased)
                                  : float(outside ? g.fill : b.images[from + c * area]);
        if (stage == DLUA_AUGMENT_LEVELS) value = value / 255.0f;
        if (b.mean && stage != DLUA_AUGMENT_NORMALIZED)
          value = (value - b.mean[c * b.next]) / b.std[c * b.next];
        to[c * plane] = T(value);
      }
    }
    __syncthreads();
  }
}

} // namespace

extern "C" dlua_status dlua_gpu_augment(const dlua_args *a) {
  const dlua_tensor *y = a->out[0], *mean = a->in[2];
  if (dlua_numel(y) == 0) return DLUA_OK;
  Batch b = {.g = dlua_augment_of(a)};
  DLUA_TRY(dlua_gpu_index_check(a, &b.check));
  b.images = data<uint8_t>(a->in[0]), b.count = a->in[0]->size[0], b.pictures = y->size[0];
  b.index = data<int64_t>(a->in[1]);
  b.mean = data<float>(mean), b.std = data<float>(a->in[3]);
  b.next = mean && mean->size[0] > 1 ? 1 : 0;
  // Several blocks share a picture where there are few pictures: each draws for itself.
  int64_t plane = y->size[2] * y->size[3], pieces = blocks_for(plane), most = 65535;
  int64_t room = b.pictures < MOST_BLOCKS ? MOST_BLOCKS / b.pictures : 1;
  dim3 blocks((unsigned)(pieces < room ? pieces : room),
              (unsigned)(b.pictures < most ? b.pictures : most));
  return with_float(y, [&](auto type) {
    using T = decltype(type);
    return plane <= INT32_MAX / 2 ? launch(a, augment<T, int32_t>, blocks, THREADS, b, data<T>(y))
                                  : launch(a, augment<T, int64_t>, blocks, THREADS, b, data<T>(y));
  });
}
