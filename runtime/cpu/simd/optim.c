// optim.c - inner loops of optimisers for one instruction set; the compiler vectorises them.
//
// The loops are written once in optim_loops.h and compiled for float and double. Reductions keep
// explicit lanes, because the compiler may not reorder a sum by itself.
#include <math.h>
#include <string.h>

#include "../optim_kernels.h"

#define REAL float
#define BITS uint32_t
#define INFINITE_BITS 0x7f800000u
#define SQRT sqrtf
#define NAMED(name) name##_f32
#include "optim_loops.h"
#undef REAL
#undef BITS
#undef INFINITE_BITS
#undef SQRT
#undef NAMED

#define REAL double
#define BITS uint64_t
#define INFINITE_BITS 0x7ff0000000000000u
#define SQRT sqrt
#define NAMED(name) name##_f64
#include "optim_loops.h"

#define PASTE(a, b) a##b
#define TABLE(isa) PASTE(dlua_optim_kernels_, isa)

const dlua_optim_kernels TABLE(DLUA_ISA) = {
    .step = {{sgd_f32, sgd_f64},
             {adam_f32, adam_f64},
             {rmsprop_f32, rmsprop_f64},
             {adagrad_f32, adagrad_f64}},
    .guarded = {{guarded_sgd_f32, guarded_sgd_f64},
                {guarded_adam_f32, guarded_adam_f64},
                {guarded_rmsprop_f32, guarded_rmsprop_f64},
                {guarded_adagrad_f32, guarded_adagrad_f64}},
    .sum_squares = {sum_squares_f32, sum_squares_f64},
    .largest = {largest_f32, largest_f64},
    .finite = {finite_f32, finite_f64},
    .scale = {scale_f32, scale_f64},
};
