// convolution.h - what a convolution of cuDNN's backend has been told, and its plain sums.
#ifndef DLUA_GPU_EMULATOR_CONVOLUTION_H
#define DLUA_GPU_EMULATOR_CONVOLUTION_H

#include <library_types.h>

#include <cstdint>

namespace emulator {

enum Direction { FORWARD, BACKWARD_DATA, BACKWARD_FILTER };

struct Tensor {
  cudaDataType_t type;
  int64_t size[4], stride[4], id, alignment;
  bool is_virtual; // handed on within a graph
};

struct Convolution {
  Direction direction;
  Tensor tensor[3]; // x, w, y
  bool biased;
  Tensor bias; // {1,c,1,1}
  int64_t padding[2], stride[2], dilation[2];
};

// The direction's result from the two others, plus the bias, data[3]; narrow: f32 inputs are rounded to
// TF32 first.
void convolve(const Convolution &c, void *const data[4], bool narrow);

} // namespace emulator

#endif
