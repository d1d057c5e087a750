// lua_checks.c - a Lua that is said to check its callers does: a planted misuse of its API ends a
// child process. Without it a build that lost the checks would pass every spec all the same.
#include <lauxlib.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void pop_nothing(lua_State *L) { lua_pop(L, 1); }
static void push_a_table(lua_State *L) { lua_newtable(L); }

// The signal that ends a process which does this to a new state; 0: it exits.
static int ended_by(void (*misuse)(lua_State *)) {
  int status = 0;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    fclose(stderr); // Lua's assertion prints itself
    misuse(luaL_newstate());
    _exit(0);
  }
  return waitpid(child, &status, 0) == child && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

SPEC(misuse_of_the_api_aborts) {
  CHECK(ended_by(push_a_table) == 0);
  CHECK(ended_by(pop_nothing) == SIGABRT);
}

int main(void) {
  RUN(misuse_of_the_api_aborts);
  return finish();
}
