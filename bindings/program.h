// program.h - what main.c and repl.c share.
#ifndef DLUA_PROGRAM_H
#define DLUA_PROGRAM_H

#include "value.h"

// lua_pcall whose call Ctrl-C stops ("interrupted"); with DLUA_TRACEBACK errors carry the stack.
int dlua_program_call(lua_State *L, int nargs, int nresults);
// The module dlua.terminal: reading lines with history and completion, running code that Ctrl-C
// stops.
int luaopen_dlua_terminal(lua_State *L);

#endif
