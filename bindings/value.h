// value.h - how C objects live in Lua, and what the binding files share: the running state, tensors
// from and to Lua values, options tables. A tensor is a full userdata (a "box") that holds exactly
// one reference.
//
// Rules: create the box first, then fill it, so that a failing allocation leaks nothing. Raise only
// through dlua_bind_raise and dlua_bind_check, never through libpng or device frames and never with
// a lock held or something raw in hand. Finalizers only touch C reference counts.
#ifndef DLUA_VALUE_H
#define DLUA_VALUE_H

#include <lauxlib.h>
#include <lua.h>

#include "../runtime/op.h"

#define DLUA_TENSOR "dlua.tensor" // name of the boxes' metatable in the registry

// ---------------------------------------------------------------- boxes (box.c)

// Pushes an empty box and returns its slot: fill it with an owned reference. Never NULL (memory
// errors raise).
dlua_tensor **dlua_bind_box(lua_State *L);
// The tensor at index, borrowed while the box is on the stack; raises when it is none or was
// released. who names the function and argument in the message: "matmul: y".
dlua_tensor *dlua_bind_tensor(lua_State *L, int index, const char *who);
// The same, NULL when the value is no tensor.
dlua_tensor *dlua_bind_test_tensor(lua_State *L, int index);
// At op entry: collects when external bytes have outgrown the last collection (policy in box.c).
void dlua_bind_collect(lua_State *L);
// After a cache was emptied: that growth counts from the bytes that are live now.
void dlua_bind_measure_anew(void);

// To be called at the start of every function that computes: notes the state for script lines, runs
// what waits for the Lua thread, honours Ctrl-C, and collects when that is due. Raises in finalizers
// that run because memory is out: then a computation is under way already.
void dlua_bind_enter(lua_State *L);
// The state that called dlua_bind_enter last.
lua_State *dlua_bind_running(void);
// To be called after Lua code has run in the middle of a computation: its coroutine may be dead.
void dlua_bind_set_running(lua_State *L);
// Set from a signal handler: the next dlua_bind_enter raises "interrupted".
void dlua_bind_interrupt(void);
// Whether an interrupt waits; it is the caller's from now on.
bool dlua_bind_take_interrupt(void);
// Writes "f32{1024,1024} 4.0 MiB, …", the largest live tensors of the device that ran out of memory
// last, into text.
void dlua_bind_largest(char *text, size_t size);
// Takes the box at index, or those in a table there, out of all scopes that are open: for state
// that outlives the loop which made it.
void dlua_bind_keep(lua_State *L, int index);
// Gets the key at -2 and the value at -1 of the table at `table`; leaves the stack as it is and may
// set that key.
typedef void dlua_visitor(lua_State *L, int table, void *user);
// Visits every key of the table at index and of the tables in it, each table once; plain: tables in
// it that have a metatable are left out.
void dlua_bind_walk(lua_State *L, int index, bool plain, dlua_visitor *visit, void *user);
// Whether a full collection runs at every call and before every box, before setting it (0 or 1; -1
// asks).
bool dlua_bind_collect_always(int on);
// Adds scope, tidy, lasting, collection settings and the boxes' metatable fields of box.c.
void dlua_bind_boxes(lua_State *L);

// ---------------------------------------------------------------- errors (error.c)

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
// Adds fail, nearest, set_module_call and set_layer_path.
void dlua_bind_errors(lua_State *L);
// Raises text with the layer path and the script line, as dlua_bind_check does.
int dlua_bind_raise_text(lua_State *L, const char *text);
// Raises the Lua error that a function with a gradient of its own left behind, if there is one.
// (grad.c)
bool dlua_bind_raise_pending(lua_State *L);
// The nearest string of an array of names at index, or NULL; borrowed from the array.
const char *dlua_bind_nearest(lua_State *L, int index, const char *word);
// Writes "train.lua:41", the first frame outside dlua's own files; empty when there is none.
void dlua_bind_where(lua_State *L, char *text, size_t size);

// ---------------------------------------------------------------- Lua values as tensors (tensor.c)

// Reads a number, a boolean or a nested table at index into a new tensor on the CPU: dtype, or with
// *dtype == DLUA_DTYPES the one that fits (bool for booleans, f32 otherwise). Raises nothing; who
// begins the messages. Caller owns the result.
dlua_status dlua_bind_read(lua_State *L, int index, const char *who, dlua_dtype dtype,
                           dlua_tensor **result);
// Pushes element k (counted as in a contiguous tensor) of a contiguous host tensor as a Lua value.
void dlua_bind_push_element(lua_State *L, const dlua_tensor *host, int64_t k);
// x on the CPU, contiguous, detached, with a dtype that dlua_bind_push_element takes. Caller owns
// the result.
dlua_status dlua_bind_host(const dlua_tensor *x, dlua_tensor **result);
// What type() says, but "tensor" for tensors.
const char *dlua_bind_type(lua_State *L, int index);

// ---------------------------------------------------------------- options

// Is the value a table with string keys alone, and at least one?
bool dlua_bind_is_options(lua_State *L, int index);
// Raises when the options table at index has a key that is not among names (NULL-terminated);
// anything but nil or a table raises too.
void dlua_bind_check_options(lua_State *L, int index, const char *who, const char *const *names);
// Reads dtype, device and requires_grad from a checked table; what is missing stays as it is.
void dlua_bind_tensor_options(lua_State *L, int index, const char *who, dlua_dtype *dtype,
                              dlua_device **device, bool *requires_grad);
// A boolean option; fallback when it is missing.
bool dlua_bind_flag(lua_State *L, int index, const char *who, const char *key, bool fallback);
// A field that must be a number, or an integer.
double dlua_bind_number(lua_State *L, int index, const char *who, const char *key);
int64_t dlua_bind_integer(lua_State *L, int index, const char *who, const char *key);
// An argument that must be a table, an integer, a string; who names function and argument.
void dlua_bind_need_table(lua_State *L, int index, const char *who);
int64_t dlua_bind_need_integer(lua_State *L, int index, const char *who);
const char *dlua_bind_need_string(lua_State *L, int index, const char *who);
// A string; fallback when it is nil or missing.
const char *dlua_bind_opt_string(lua_State *L, int index, const char *who, const char *fallback);
// Makes x a leaf that collects a gradient, or stops it; raises where that makes no sense.
dlua_status dlua_bind_require(dlua_tensor *x, const char *who, bool on);

// ---------------------------------------------------------------- parts of one file each

void dlua_bind_index(
    lua_State *L); // index.c: fields __index and __newindex of the metatable on top
void dlua_bind_moves(lua_State *L);     // move.c: to, detach, requires_grad_
void dlua_bind_functions(lua_State *L); // function.c: Function
void dlua_bind_drain(lua_State *L);     // function.c: drops references of freed nodes
int dlua_bind_tostring(lua_State *L);   // print.c: __tostring
void dlua_bind_hooks(lua_State *L);     // hooks.c: test, what specs make fail

// ---------------------------------------------------------------- the core

// Each adds its functions to the table on top of the stack.
void dlua_bind_ops(lua_State *L); // op.c: one closure for all ops, methods and in-place methods
void dlua_bind_tensors(
    lua_State *L); // tensor.c: creation from tables, item, totable, indexing, print, metamethods
void dlua_bind_grad(lua_State *L);   // grad.c: backward, grad, no_grad, Function
void dlua_bind_device(lua_State *L); // device.c: devices, memory, threads, settings, module loading
void dlua_bind_data(lua_State *L);   // data.c: readers, loader, transforms
void dlua_bind_csv(lua_State *L);    // csv.c: tables of numbers and texts
void dlua_bind_image(lua_State *L);  // image.c: PNG
void dlua_bind_files(lua_State *L);  // files.c: safetensors, npy
void dlua_bind_optim(lua_State *L);  // optim.c: fused optimiser steps, clipping

// The C module: `dlua.core`. The program preloads it; plain lua5.4 finds dlua/core.so.
int luaopen_dlua_core(lua_State *L);

#endif
