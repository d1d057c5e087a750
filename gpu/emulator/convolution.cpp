// convolution.cpp - the loops. All three directions add up the same products, each into its result.
#include "convolution.h"

#include <vector>

#include "numbers.h"

namespace {

int64_t place(const emulator::Tensor &t, int64_t a, int64_t b, int64_t i, int64_t j) {
  return a * t.stride[0] + b * t.stride[1] + i * t.stride[2] + j * t.stride[3];
}

int64_t extent(const emulator::Tensor &t) {
  int64_t last = 1;
  for (int d = 0; d < 4; d++) last += (t.size[d] - 1) * t.stride[d];
  return last;
}

// A tensor as doubles, at the places of its elements.
std::vector<double> widened(const emulator::Tensor &t, const void *data, bool narrow) {
  std::vector<double> values((size_t)extent(t));
  for (int64_t k = 0; k < (int64_t)values.size(); k++) {
    double value = emulator::number_at(t.type, data, k);
    values[(size_t)k] = narrow && t.type == CUDA_R_32F ? emulator::tf32(value) : value;
  }
  return values;
}

} // namespace

void emulator::convolve(const Convolution &c, void *const data[4], bool narrow) {
  const Tensor &x = c.tensor[0], &w = c.tensor[1], &y = c.tensor[2];
  static const int results[] = {2, 0, 1};
  int result = results[c.direction];
  std::vector<double> all[3];
  for (int i = 0; i < 3; i++) {
    if (i == result)
      all[i].assign((size_t)extent(c.tensor[i]), 0);
    else
      all[i] = widened(c.tensor[i], data[i], narrow);
  }
  int64_t groups = x.size[1] / w.size[1], wide = w.size[0] / groups;
  auto add = [&](int64_t n, int64_t o, int64_t k, int64_t p, int64_t q, int64_t u, int64_t v) {
    int64_t i = p * c.stride[0] - c.padding[0] + u * c.dilation[0];
    int64_t j = q * c.stride[1] - c.padding[1] + v * c.dilation[1];
    if (i < 0 || i >= x.size[2] || j < 0 || j >= x.size[3]) return;
    double &ax = all[0][(size_t)place(x, n, o / wide * w.size[1] + k, i, j)];
    double &aw = all[1][(size_t)place(w, o, k, u, v)];
    double &ay = all[2][(size_t)place(y, n, o, p, q)];
    if (result == 0)
      ax += aw * ay;
    else if (result == 1)
      aw += ax * ay;
    else
      ay += ax * aw;
  };
  for (int64_t n = 0; n < y.size[0]; n++)
    for (int64_t o = 0; o < y.size[1]; o++)
      for (int64_t k = 0; k < w.size[1]; k++)
        for (int64_t p = 0; p < y.size[2]; p++)
          for (int64_t q = 0; q < y.size[3]; q++)
            for (int64_t u = 0; u < w.size[2]; u++)
              for (int64_t v = 0; v < w.size[3]; v++) add(n, o, k, p, q, u, v);
  const Tensor &t = c.tensor[result];
  for (int64_t a = 0; a < t.size[0]; a++)
    for (int64_t b = 0; b < t.size[1]; b++)
      for (int64_t i = 0; i < t.size[2]; i++)
        for (int64_t j = 0; j < t.size[3]; j++) {
          int64_t at = place(t, a, b, i, j);
          double bias = c.biased ? number_at(c.bias.type, data[3], b * c.bias.stride[1]) : 0;
          put_number(t.type, data[result], at, all[result][(size_t)at] + bias);
        }
}
