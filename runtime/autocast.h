// autocast.h - mixed precision: while it is on, every op gets its float inputs in the dtype that its
// struct says (.autocast), and parameters stay f32.
//
//   dlua_dtype before = dlua_set_autocast(DLUA_BF16);
//   … forward …
//   dlua_set_autocast(before);
//
// LOWER ops (products and convolutions) get f32 inputs as bf16 or f16, F32 ops (sums, exponentials,
// losses, norms) get bf16 and f16 inputs as f32, batch_norm takes 16-bit activations beside f32
// parameters, all others what they are given, the widest where it differs. f64 is never touched, nor is a call in place. The casts are recorded like any
// op, so gradients arrive in f32; backward itself runs in the dtypes that forward has recorded. The
// rules are PyTorch's (torch.amp, "autocast op reference").
#ifndef DLUA_AUTOCAST_H
#define DLUA_AUTOCAST_H

#include "op.h"

// This thread's lower dtype, DLUA_F32 where autocast is off; setting gives what it was. Leaving it
// drops the casts of parameters that were kept for further uses.
dlua_dtype dlua_autocast(void);
dlua_dtype dlua_set_autocast(dlua_dtype dtype);

// Calls run(a) with the inputs cast as the op says; a->in is what it was afterwards.
dlua_status dlua_run_autocast(dlua_args *a, dlua_status (*run)(dlua_args *a));

#endif
