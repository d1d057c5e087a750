// layout.h - activations {n,c,h,w} that lie in another order. On the CPU f32 is kept as n, c/block, h,
// w, block, so that one vector register holds one pixel of a block of channels: oneDNN's nChw8c and
// nChw16c. 16-bit floats, and what is made of them, are kept as n, h, w, c, which the units for
// products of devices and CPUs read.
#ifndef DLUA_LAYOUT_H
#define DLUA_LAYOUT_H

#include "../op.h"

// Channels per block of a layout: 8 or 16; 0 for those without blocks.
static inline int64_t dlua_layout_block(dlua_layout layout) {
  return layout == DLUA_NCHW16C ? 16 : layout == DLUA_NCHW8C ? 8 : 0;
}

// The layout for a convolution's result, whose shape is in spec[0]: blocked when the call runs on the
// CPU in f32 with vector kernels and the block divides the channels, NHWC when it runs in 16 bits and
// that differs from row-major, else strided. For shape rules.
dlua_layout dlua_layout_for(const dlua_args *a);

// Writes src into dst, of the same shape and dtype, on the same device. Where one of them is blocked
// the other one is strided, by any strides, or both are alike. dst's version counts for nothing.
dlua_status dlua_reorder(dlua_tensor *dst, const dlua_tensor *src);

// x in the layout, strided meaning contiguous: x itself retained where it is so already, else a
// copy without history. Caller owns the result.
dlua_status dlua_in_layout(dlua_tensor *x, dlua_layout layout, dlua_tensor **result);

static inline bool dlua_is_nhwc(const dlua_tensor *x) {
  return x && x->storage->layout == DLUA_NHWC;
}

// Runs a kernel that knows strided tensors only on a call that may have others.
dlua_status dlua_run_strided(const dlua_args *a, dlua_kernel *kernel);

#endif
