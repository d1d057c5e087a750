// repl.c - the terminal as the prompt needs it: lines with editing, history and completion through
// libedit, and calls that Ctrl-C stops. What the prompt does with them is lua/dlua/prompt.lua.
#include <editline/readline.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"

static lua_State *asking; // whose completer libedit calls; set while a line is read
static volatile sig_atomic_t cancelled;
static const char completer_key;
static char *line; // the last one; kept until the next, so that a failing push leaks nothing

// ---------------------------------------------------------------- completion

// Arguments: the text as a light userdata, which completion.
static int call_completer(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &completer_key);
  lua_pushstring(L, lua_touserdata(L, 1));
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  return 1;
}

// Completion k of text by the Lua function: NULL ends the list. The result is malloc'ed for
// libedit, through which nothing may be raised.
static char *next_completion(const char *text, int state) {
  lua_State *L = asking;
  char *copy = NULL;
  lua_pushcfunction(L, call_completer);
  lua_pushlightuserdata(L, (void *)text);
  lua_pushinteger(L, state + 1);
  if (lua_pcall(L, 2, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING)
    copy = strdup(lua_tostring(L, -1));
  lua_pop(L, 1);
  return copy;
}

static char *complete_nothing(const char *text, int state) {
  (void)text, (void)state;
  return NULL;
}

static char **complete(const char *text, int start, int end) {
  (void)start, (void)end;
  rl_attempted_completion_over = 1; // no file names
  return rl_completion_matches(text, next_completion);
}

// set_completer(fn): fn(word, k) gives the k-th completion or nil.
static int set_completer(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &completer_key);
  return 0;
}

// ---------------------------------------------------------------- lines

static void on_cancel(int signal) {
  (void)signal;
  cancelled = 1;
}

// While there is a prompt Ctrl-C cancels the line; a call, for as long as it runs, has it stop itself.
static void catch_cancels(void) {
  struct sigaction action = {.sa_handler = on_cancel}; // no SA_RESTART: reading ends
  sigaction(SIGINT, &action, NULL);
}

// read(prompt): a line; nil at the end of input; nil, true when Ctrl-C cancelled it, perhaps before it
// was asked for.
static int read_line(lua_State *L) {
  const char *prompt = luaL_checkstring(L, 1);
  asking = L;
  free(line);
  line = cancelled ? NULL : readline(prompt);
  asking = NULL;
  bool was = cancelled;
  cancelled = 0;
  if (line && !was) return lua_pushstring(L, line), 1;
  lua_pushnil(L);
  lua_pushboolean(L, was);
  return 2;
}

static int remember(lua_State *L) {
  add_history(luaL_checkstring(L, 1));
  return 0;
}

static int load_history(lua_State *L) {
  read_history(luaL_checkstring(L, 1));
  return 0;
}

static int save_history(lua_State *L) {
  const char *file = luaL_checkstring(L, 1);
  stifle_history((int)luaL_optinteger(L, 2, 1000));
  write_history(file);
  return 0;
}

// ---------------------------------------------------------------- calls

// call(fn, …): as pcall, and Ctrl-C stops it.
static int call(lua_State *L) {
  luaL_checkany(L, 1);
  int status = dlua_program_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  lua_pushboolean(L, status == LUA_OK);
  lua_insert(L, 1);
  return lua_gettop(L);
}

int luaopen_dlua_terminal(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"read", read_line},
      {"remember", remember},
      {"load_history", load_history},
      {"save_history", save_history},
      {"set_completer", set_completer},
      {"call", call},
      {NULL, NULL},
  };
  rl_readline_name = "dlua";
  rl_attempted_completion_function = complete;
  rl_completion_entry_function = complete_nothing;
  rl_basic_word_break_characters = " \t\n\"\\'`@$><=;|&{}()[],+-*/%^#~";
  rl_completion_append_character = '\0';
  using_history();
  catch_cancels();
  luaL_newlib(L, functions);
  return 1;
}
