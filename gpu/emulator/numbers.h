// numbers.h - elements of the libraries' types, for the products and convolutions of the emulator.
#ifndef DLUA_GPU_EMULATOR_NUMBERS_H
#define DLUA_GPU_EMULATOR_NUMBERS_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <library_types.h>

#include <cstdint>
#include <cstring>

namespace emulator {

inline double number_at(cudaDataType_t type, const void *p, int64_t k) {
  switch (type) {
  case CUDA_R_64F: return ((const double *)p)[k];
  case CUDA_R_16BF: return (double)(float)((const __nv_bfloat16 *)p)[k];
  case CUDA_R_16F: return (double)(float)((const __half *)p)[k];
  default: return (double)((const float *)p)[k];
  }
}

inline void put_number(cudaDataType_t type, void *p, int64_t k, double value) {
  switch (type) {
  case CUDA_R_64F: ((double *)p)[k] = value; break;
  case CUDA_R_16BF: ((__nv_bfloat16 *)p)[k] = __nv_bfloat16((float)value); break;
  case CUDA_R_16F: ((__half *)p)[k] = __half((float)value); break;
  default: ((float *)p)[k] = (float)value;
  }
}

inline int size_of(cudaDataType_t type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
}

// What is left of an f32 in TF32: 10 bits of mantissa, rounded.
inline double tf32(double value) {
  float narrow = (float)value;
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&narrow, &bits, sizeof bits);
  return (double)narrow;
}

} // namespace emulator

#endif
