// The example at the top of dlua.h compiles and does what its comments say. CMake cuts it out of
// the header.
#define _GNU_SOURCE
#include <unistd.h>

#include "check.h"

static dlua_status example(void) {
#include "header_example.inc"
}

// What a function prints; its status goes to *status.
static void printed(dlua_status (*f)(void), dlua_status *status, char *text, size_t size) {
  FILE *file = tmpfile();
  fflush(stdout);
  int out = dup(STDOUT_FILENO);
  dup2(fileno(file), STDOUT_FILENO);
  *status = f();
  fflush(stdout);
  dup2(out, STDOUT_FILENO), close(out);
  rewind(file);
  text[fread(text, 1, size - 1, file)] = 0;
  fclose(file);
}

SPEC(the_example_runs) {
  dlua_status status;
  char text[64];
  printed(example, &status, text, sizeof text);
  CHECK_OK(status);
  CHECK(strcmp(text, "7.38906\n") == 0);
}

int main(void) {
  RUN(the_example_runs);
  return finish();
}
