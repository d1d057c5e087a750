// core.c - the C module dlua.core: one table with every function of C, and under .methods those of
// tensors. lua/dlua/init.lua makes the user's `dlua` of it.
#include "../runtime/grad.h"
#include "value.h"

// Writes the script line of the running call, for the runtime.
static void where(char *text, size_t size) {
  lua_State *L = dlua_bind_running();
  text[0] = 0;
  if (L) dlua_bind_where(L, text, size);
}

// Everything else is hidden; plain lua5.4 looks this one up by name.
__attribute__((visibility("default"))) int luaopen_dlua_core(lua_State *L) {
  lua_newtable(L);
  lua_newtable(L);
  lua_setfield(L, -2, "methods");
  dlua_bind_errors(L);
  dlua_bind_boxes(L);
  dlua_bind_ops(L);
  dlua_bind_tensors(L);
  dlua_bind_grad(L);
  dlua_bind_device(L);
  dlua_bind_hooks(L);
  dlua_bind_data(L);
  dlua_bind_csv(L);
  dlua_bind_image(L);
  dlua_bind_files(L);
  dlua_bind_optim(L);
  dlua_set_where(where);
  return 1;
}
