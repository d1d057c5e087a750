// status.c - the one place that writes a message. Everything else passes the status on unchanged.
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

#include "dlua.h"

static _Thread_local char message[1024] = "no error";

dlua_status dlua_fail(dlua_status code, const char *format, ...) {
  char text[sizeof message]; // the arguments may point into the old message
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  for (char *c = text; *c; c++) {
    if (iscntrl((unsigned char)*c)) *c = '?'; // names from files: one line, no terminal codes
  }
  snprintf(message, sizeof message, "%s", text);
  return code;
}

const char *dlua_message(void) { return message; }

static void (*find_where)(char *text, size_t size);

void dlua_set_where(void (*where)(char *text, size_t size)) { find_where = where; }

void dlua_where(char *text, size_t size) {
  text[0] = 0;
  if (find_where) find_where(text, size);
}
