// io_npy.h - one tensor in NumPy's own format (.npy, versions 1 to 3).
//
//   dlua_tensor *x = NULL;
//   DLUA_TRY(dlua_npy_read("x.npy", &x));
//
// Read and written: f32, f64, f16, i64, i32, u8 and bool of either byte order; bf16 has no name in
// the format. Arrays in column order come back as transposed views. Nothing is unpickled, ever.
#ifndef DLUA_IO_NPY_H
#define DLUA_IO_NPY_H

#include "file.h"

dlua_status dlua_npy_read(const char *path, dlua_tensor **x); // caller owns the result
dlua_status dlua_npy_write(const char *path, const dlua_tensor *x);

#endif
