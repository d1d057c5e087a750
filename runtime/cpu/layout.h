// layout.h - blocked activations: {n,c,h,w} kept as n, c/block, h, w, block, so that one vector
// register holds one pixel of a block of channels. These are oneDNN's nChw8c and nChw16c.
#ifndef DLUA_LAYOUT_H
#define DLUA_LAYOUT_H

#include "../op.h"

// Channels per block of a layout: 8 or 16; 0 for the strided one.
static inline int64_t dlua_layout_block(dlua_layout layout) {
  return layout == DLUA_NCHW16C ? 16 : layout == DLUA_NCHW8C ? 8 : 0;
}

// The layout for a result of this call with so many channels: blocked when the call runs on the CPU
// in f32 with vector kernels and the block divides the channels, else strided. For shape rules.
dlua_layout dlua_layout_for(const dlua_args *a, int64_t channels);

// Writes src into dst where at most one of them is blocked, or both alike: same shape, f32, host
// memory; the strided one may have any strides. Does not touch dst's version.
dlua_status dlua_reorder(dlua_tensor *dst, const dlua_tensor *src);

// x in the layout, strided meaning contiguous: x itself retained where it is so already, else a
// copy without history. Caller owns the result.
dlua_status dlua_in_layout(dlua_tensor *x, dlua_layout layout, dlua_tensor **result);

// Runs a kernel that knows strided tensors only on a call that may have blocked ones.
dlua_status dlua_run_strided(const dlua_args *a, dlua_kernel *kernel);

#endif
