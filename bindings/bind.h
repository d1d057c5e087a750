// bind.h - how C objects live in Lua. A tensor is a full userdata (a "box") that holds exactly one
// reference.
//
// Rules: create the box first, then fill it, so that a failing allocation leaks nothing. Raise only
// through dlua_bind_raise and dlua_bind_check, never through libpng or device frames and never with
// a lock held or something raw in hand. Finalizers only touch C reference counts.
#ifndef DLUA_BIND_H
#define DLUA_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "../runtime/op.h"

#define DLUA_TENSOR "dlua.tensor" // name of the boxes' metatable in the registry

// Pushes an empty box and returns its slot: fill it with an owned reference. Never NULL (memory
// errors raise).
dlua_tensor **dlua_bind_box(lua_State *L);
// The tensor at index, borrowed while the box is on the stack; raises when it is none or was
// released. who names the function and argument in the message: "matmul: y".
dlua_tensor *dlua_bind_tensor(lua_State *L, int index, const char *who);
// The same, NULL when the value is no tensor.
dlua_tensor *dlua_bind_test_tensor(lua_State *L, int index);
// Raises dlua_message() when status is a failure. The text gets the layer path and the script line
// added:
//   conv2d: x has 3 channels but w expects 1 (x {8,3,32,32}, w {16,1,5,5})  [features.1]
//   train.lua:41
// The script line is the first frame outside dlua's own Lua files; the layer path comes from the
// frames of nn.Module's call function (told by core.set_module_call), read only now.
void dlua_bind_check(lua_State *L, dlua_status status);
int dlua_bind_raise(lua_State *L, const char *format, ...);
// For calls that may answer nil, message: pushes nil and the message and returns 2.
int dlua_bind_nil(lua_State *L);
// On DLUA_NO_MEMORY: drop the cache, collect twice, then say whether to try the call once more.
bool dlua_bind_retry(lua_State *L, dlua_status status);
// At op entry: collects when external bytes have outgrown the last collection (policy in box.c).
void dlua_bind_collect(lua_State *L);

// Each adds its functions to the table on top of the stack.
void dlua_bind_ops(lua_State *L); // op.c: one closure for all ops, methods and in-place methods
void dlua_bind_tensors(
    lua_State *L); // tensor.c: creation from tables, item, totable, indexing, print, metamethods
void dlua_bind_grad(lua_State *L);   // grad.c: backward, grad, no_grad, Function
void dlua_bind_device(lua_State *L); // device.c: devices, memory, threads, settings, module loading
void dlua_bind_data(lua_State *L);   // data.c: readers, loader, transforms
void dlua_bind_image(lua_State *L);  // image.c: PNG
void dlua_bind_files(lua_State *L);  // files.c: safetensors, npy
void dlua_bind_optim(lua_State *L);  // optim.c: fused optimiser steps, clipping

// The C module: `dlua.core`. The program preloads it; plain lua5.4 finds dlua/core.so.
int luaopen_dlua_core(lua_State *L);

#endif
