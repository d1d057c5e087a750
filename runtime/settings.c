// settings.c - the switches. Set by the script's thread between calls, so plain variables.
#include "settings.h"

static bool winograd = true, autotune = false, tf32 = false;

static bool set(bool *state, bool on) {
  bool was = *state;
  *state = on;
  return was;
}

bool dlua_winograd(void) { return winograd; }
bool dlua_set_winograd(bool on) { return set(&winograd, on); }

bool dlua_autotune(void) { return autotune; }
bool dlua_set_autotune(bool on) { return set(&autotune, on); }

bool dlua_tf32(void) { return tf32; }
bool dlua_set_tf32(bool on) { return set(&tf32, on); }
