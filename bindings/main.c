// main.c - the program: `dlua script.lua …` runs a script, `dlua` opens a prompt, `dlua test` runs
// specs.
//
// The state starts with Lua's own libraries only; the core opens when a script first requires dlua.
// Scripts stop at Ctrl-C between two instructions, the second Ctrl-C ends the process.
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../runtime/env.h"
#include "../runtime/parallel.h"
#include "program.h"

enum { FAILED = 1, MISUSED = 2, STOPPED = 130 };

static lua_State *volatile running; // whose script a Ctrl-C stops; NULL while there is none
static volatile sig_atomic_t stopped;

// ---------------------------------------------------------------- Ctrl-C

static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  if (dlua_bind_take_interrupt()) dlua_bind_raise_text(L, "interrupted");
}

static void on_interrupt(int signal) {
  (void)signal;
  if (!running || stopped) _exit(STOPPED);
  stopped = 1;
  dlua_bind_interrupt();
  lua_sethook(running, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

// A hook stops one coroutine only, so resume and wrap note which one runs: calls the function below
// nargs arguments, in which co runs.
static int call_in(lua_State *L, lua_State *co, int nargs) {
  lua_State *before = running;
  if (before && co) running = co;
  int status = lua_pcall(L, nargs, LUA_MULTRET, 0);
  running = before;
  if (dlua_bind_take_interrupt()) dlua_bind_raise_text(L, "interrupted"); // co ended first
  return status;
}

// Upvalue: Lua's own coroutine.resume.
static int resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  return call_in(L, co, lua_gettop(L) - 1) == LUA_OK ? lua_gettop(L) : lua_error(L);
}

// Upvalues: a function that Lua's own wrap made, its coroutine.
static int call_wrapped(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  int status = call_in(L, lua_tothread(L, lua_upvalueindex(2)), lua_gettop(L) - 1);
  if (status == LUA_OK) return lua_gettop(L);
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) { // as wrap does for its caller
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

// Upvalue: Lua's own coroutine.wrap.
static int wrap(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  lua_getupvalue(L, -1, 1);
  lua_pushcclosure(L, call_wrapped, 2);
  return 1;
}

// ---------------------------------------------------------------- children

// Upvalue: Lua's own os.execute or io.popen. The team binds the main thread to one CPU, which a
// process started from it would keep; these two start theirs without any handler of fork.
static int call_unbound(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  dlua_unbind_thread();
  int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  dlua_rebind_thread();
  return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

// Arguments are checked here, where a message has the script's line and the function's name.
static int execute(lua_State *L) {
  luaL_optstring(L, 1, NULL);
  return call_unbound(L);
}

static int open_pipe(lua_State *L) {
  luaL_checkstring(L, 1);
  luaL_checkoption(L, 2, "r", (const char *[]){"r", "w", NULL});
  return call_unbound(L);
}

// ---------------------------------------------------------------- calls

static int add_traceback(lua_State *L) {
  const char *message = luaL_tolstring(L, 1, NULL);
  if (dlua_env_on("DLUA_TRACEBACK")) luaL_traceback(L, L, message, 1);
  return 1;
}

int dlua_program_call(lua_State *L, int nargs, int nresults) {
  int base = lua_gettop(L) - nargs;
  struct sigaction action = {.sa_handler = on_interrupt}, before;
  lua_pushcfunction(L, add_traceback);
  lua_insert(L, base);
  running = L, stopped = 0;
  sigaction(SIGINT, &action, &before);
  int status = lua_pcall(L, nargs, nresults, base);
  sigaction(SIGINT, &before, NULL);
  lua_sethook(L, NULL, 0, 0);
  running = NULL;
  dlua_bind_take_interrupt();
  lua_remove(L, base);
  return status;
}

static int report(lua_State *L, int status) {
  if (status == LUA_OK) return EXIT_SUCCESS;
  fprintf(stderr, "dlua: %s\n", luaL_tolstring(L, -1, NULL));
  return stopped ? STOPPED : FAILED;
}

// Runs the chunk or reports why it could not be loaded; the value to exit with.
static int run_loaded(lua_State *L, int status, int nargs) {
  if (status == LUA_OK) status = dlua_program_call(L, nargs, 0);
  return report(L, status);
}

static int run_string(lua_State *L, const char *text) {
  return run_loaded(L, luaL_loadbuffer(L, text, strlen(text), "=(command line)"), 0);
}

static int run_library(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  if (dlua_program_call(L, 1, 1) != LUA_OK) return report(L, LUA_ERRRUN);
  const char *dot = strrchr(name, '.');
  lua_setglobal(L, dot ? dot + 1 : name);
  return EXIT_SUCCESS;
}

// ---------------------------------------------------------------- scripts

// Sets the global arg: arg[0] is the script, what came before it has negative positions.
static void set_arg(lua_State *L, int argc, char **argv, int script) {
  lua_createtable(L, argc - script, script + 1);
  for (int k = 0; k < argc; k++) {
    lua_pushstring(L, argv[k]);
    lua_rawseti(L, -2, k - script);
  }
  lua_setglobal(L, "arg");
}

static int run_script(lua_State *L, int argc, char **argv, int script) {
  const char *name = strcmp(argv[script], "-") == 0 ? NULL : argv[script];
  int status = luaL_loadfile(L, name), nargs = argc - script - 1;
  if (status == LUA_OK) {
    luaL_checkstack(L, nargs, "too many arguments");
    for (int k = 1; k <= nargs; k++) lua_pushstring(L, argv[script + k]);
  }
  return run_loaded(L, status, status == LUA_OK ? nargs : 0);
}

// dlua test …: dlua.testing hands the arguments to busted and says what to exit with.
static int run_tests(lua_State *L, int argc, char **argv) {
  set_arg(L, argc, argv, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "dlua.testing");
  if (dlua_program_call(L, 1, 1) != LUA_OK) return report(L, LUA_ERRRUN);
  lua_getfield(L, -1, "run");
  if (dlua_program_call(L, 0, 1) != LUA_OK) return report(L, LUA_ERRRUN);
  return (int)lua_tointeger(L, -1);
}

static int run_prompt(lua_State *L) {
  luaL_requiref(L, "dlua.terminal", luaopen_dlua_terminal, 0);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "dlua.prompt");
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) return report(L, LUA_ERRRUN);
  return report(L, lua_pcall(L, 0, 0, 0));
}

// ---------------------------------------------------------------- options

static const char usage[] = "usage: dlua [options] [script.lua [arguments]]\n"
                            "       dlua test [busted arguments]\n"
                            "  -e code   run code\n"
                            "  -l name   require a library into a global of its name\n"
                            "  -i        open the prompt after the script\n"
                            "  -v        print the version\n"
                            "  -         run the standard input\n"
                            "  --env     list the environment switches\n"
                            "  --help    print this\n"
                            "Without a script dlua opens a prompt.\n";

typedef struct plan {
  int script;         // position of the script; argc: there is none
  bool prompt, quiet; // quiet: an option took the place of the script
} plan;

static void print_version(void) {
  printf("dlua %s (%s, cpu: %d threads)\n", DLUA_VERSION, LUA_VERSION, dlua_threads());
}

static void print_switches(void) {
  for (const dlua_switch *s = dlua_switches; s->name; s++) {
    const char *value = dlua_env(s->name);
    printf("%-16s %s%s%s%s\n", s->name, s->doc, value ? " [" : "", value ? value : "",
           value ? "]" : "");
  }
}

static int misuse(const char *option, const char *problem) {
  fprintf(stderr, "dlua: option '%s' %s\n%s", option, problem, usage);
  return MISUSED;
}

// Does what options say in their order; stops at the script. Anything but success ends the program.
static int run_options(lua_State *L, int argc, char **argv, plan *p) {
  int k = 1, status = EXIT_SUCCESS;
  for (; k < argc && argv[k][0] == '-' && argv[k][1] && status == EXIT_SUCCESS; k++) {
    const char *option = argv[k];
    bool takes_value = option[1] == 'e' || option[1] == 'l';
    const char *value = takes_value ? option[2]      ? option + 2
                                      : k + 1 < argc ? argv[++k]
                                                     : NULL
                                    : NULL;
    if (takes_value && !value) return misuse(option, "needs an argument");
    p->quiet = p->quiet || option[1] != 'i';
    if (option[1] == 'e')
      status = run_string(L, value);
    else if (option[1] == 'l')
      status = run_library(L, value);
    else if (strcmp(option, "-i") == 0)
      p->prompt = true;
    else if (strcmp(option, "-v") == 0)
      print_version();
    else if (strcmp(option, "--env") == 0)
      print_switches();
    else if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0)
      fputs(usage, stdout);
    else
      return misuse(option, "is unknown");
  }
  p->script = k;
  return status;
}

// ---------------------------------------------------------------- the state

// The folder with dlua's Lua files: ../lua beside a build folder, ../share/lua/5.4 of an
// installation.
static bool find_library(char *folder, size_t size) {
  static const char *const places[] = {"../lua", "../share/lua/5.4"};
  char program[400], file[600];
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  if (n <= 0) return false;
  program[n] = 0;
  *strrchr(program, '/') = 0;
  for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
    snprintf(folder, size, "%s/%s", program, places[k]);
    snprintf(file, sizeof file, "%s/dlua/init.lua", folder);
    if (access(file, R_OK) == 0) return true;
  }
  return false;
}

static void set_paths(lua_State *L) {
  char found[512], *folder = NULL;
  if (!find_library(found, sizeof found) || !(folder = realpath(found, NULL))) return;
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", folder, folder, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_pop(L, 2);
  free(folder);
}

// Puts a function in the place of one of Lua's own, which it gets as its upvalue.
static void replace(lua_State *L, const char *library, const char *name, lua_CFunction function) {
  lua_getglobal(L, library);
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, function, 1);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

static void open_state(lua_State *L) {
  luaL_openlibs(L);
  set_paths(L);
  replace(L, "coroutine", "resume", resume);
  replace(L, "coroutine", "wrap", wrap);
  replace(L, "os", "execute", execute);
  replace(L, "io", "popen", open_pipe);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_dlua_core);
  lua_setfield(L, -2, "dlua.core");
  lua_pop(L, 1);
}

static int run_all(lua_State *L, int argc, char **argv) {
  plan p = {0};
  if (argc > 1 && strcmp(argv[1], "test") == 0) return run_tests(L, argc, argv);
  set_arg(L, argc, argv, 0);
  int status = run_options(L, argc, argv, &p);
  if (status != EXIT_SUCCESS) return status;
  if (p.script < argc) {
    set_arg(L, argc, argv, p.script);
    status = run_script(L, argc, argv, p.script);
  }
  bool nothing = p.script >= argc && !p.quiet;
  if (p.prompt || (nothing && isatty(STDIN_FILENO))) return run_prompt(L);
  if (nothing) return run_script(L, 1, (char *[]){"-"}, 0);
  return status;
}

// Everything runs in a protected call: a failing library or a lack of memory is an error, no abort.
static int protected_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  open_state(L);
  lua_pushinteger(L, run_all(L, argc, argv));
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (!L) return fputs("dlua: no memory to start\n", stderr), FAILED;
  lua_pushcfunction(L, protected_main);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = FAILED;
  if (lua_pcall(L, 2, 1, 0) == LUA_OK)
    status = (int)lua_tointeger(L, -1);
  else
    fprintf(stderr, "dlua: %s\n", lua_isstring(L, -1) ? lua_tostring(L, -1) : "failed");
  lua_close(L);
  return status;
}
