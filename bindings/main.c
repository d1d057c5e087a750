// main.c - the program: options, script, exit code.
#include <stdio.h>
#include <lualib.h>
#include "value.h"
int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "dlua.core", luaopen_dlua_core, 0);
  lua_pop(L, 1);
  if (argc < 2 || luaL_dofile(L, argv[1])) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
}
