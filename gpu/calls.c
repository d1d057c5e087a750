// calls.c - the table of the libraries' own functions.
#include "cuda.h"

const dlua_cuda_calls dlua_cuda_calls_table = {
#define CUDA_CALL(name) .name = name,
#define BLAS_CALL(name) .name = name,
#define DNN_CALL(name) .name = name,
#include "calls.def"
};
