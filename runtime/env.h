// env.h - the environment switches of dlua, all in one table (env.c); `dlua --env` prints it.
#ifndef DLUA_ENV_H
#define DLUA_ENV_H

#include <stdbool.h>

typedef struct dlua_switch {
  const char *name, *doc;
} dlua_switch;

// The table, ended by a NULL name.
extern const dlua_switch dlua_switches[];

// The value of a switch of the table, or NULL where it is unset or empty. Borrowed.
const char *dlua_env(const char *name);
// Is it set to something other than 0?
bool dlua_env_on(const char *name);

#endif
