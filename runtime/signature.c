// signature.c - the list of ops and their parsed signatures. A signature is parsed once, at its
// first use.
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op.h"

static const dlua_op *const ops[] = {
#define DLUA_OP(name) &dlua_op_##name,
#include "ops.def"
#undef DLUA_OP
};

enum { OPS = sizeof ops / sizeof *ops, SLOTS = 1024 };

_Static_assert(OPS <= SLOTS / 2, "the table of ops is too full to be searched fast");

static int16_t slot_of[SLOTS]; // hash from struct address to row + 1
static dlua_signature *parsed[OPS];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned hash(const dlua_op *op) {
  return (unsigned)((uintptr_t)op >> 4) * 2654435761u >> 22;
}

static void fill_slots(void) {
  for (int k = 0; k < OPS; k++) {
    unsigned at = hash(ops[k]);
    while (slot_of[at % SLOTS]) at++;
    slot_of[at % SLOTS] = (int16_t)(k + 1);
  }
}

int dlua_op_count(void) { return OPS; }
const dlua_op *dlua_op_at(int k) { return ops[k]; }

int dlua_op_id(const dlua_op *op) {
  pthread_once(&once, fill_slots);
  for (unsigned at = hash(op);; at++) {
    int row = slot_of[at % SLOTS] - 1;
    if (row < 0 || ops[row] == op) return row;
  }
}

const dlua_op *dlua_op_find(const char *name) {
  for (int k = 0; k < OPS; k++) {
    if (strcmp(ops[k]->name, name) == 0) return ops[k];
  }
  return NULL;
}

// ---------------------------------------------------------------- the parser

static void skip_space(const char **at) {
  while (**at == ' ' || **at == '\n') (*at)++;
}

static void read_name(const char **at, char *name, size_t size) {
  size_t n = 0;
  while (isalnum((unsigned char)**at) || **at == '_') {
    if (n + 1 < size) name[n++] = **at;
    (*at)++;
  }
  name[n] = 0;
}

static void read_words(const char **at, dlua_param *p) {
  (*at)++; // {
  while (**at && **at != '}') {
    read_name(at, p->words[p->nwords++], sizeof p->words[0]);
    if (**at == '|') (*at)++;
  }
  if (**at) (*at)++;
}

static void read_bounds(const char **at, dlua_param *p) {
  char *end;
  p->bounded = true;
  p->lo = strtod(*at + 1, &end);
  p->hi = strtod(end + 1, &end);
  *at = end + 1;
}

// What follows the kind's letter: ? * {words} (bounds) and a digit.
static void read_marks(const char **at, dlua_param *p) {
  for (;; (*at)++) {
    if (**at == '?')
      p->optional = true;
    else if (**at == '*')
      p->list = true;
    else if (**at == '{')
      read_words(at, p), (*at)--;
    else if (**at == '(')
      read_bounds(at, p), (*at)--;
    else if (isdigit((unsigned char)**at) && p->kind == 'd')
      p->plus_one = true;
    else if (isdigit((unsigned char)**at))
      p->exactly = **at - '0';
    else
      return;
  }
}

static void preset_number(const char *text, dlua_param *p) {
  char *end;
  dlua_value *v = &p->preset;
  v->f = strtod(text, &end);
  v->i = strtoll(text, &end, 10);
  v->is_int = *end == 0;
  // Dimensions count from 1 outside; negative ones stay and are resolved against the tensor.
  if (p->kind == 'd' && v->i > 0) v->i--;
  v->n = p->exactly;
  for (int k = 0; k < v->n; k++) v->v[k] = v->i;
}

static void read_default(const char **at, dlua_param *p) {
  char text[32];
  size_t n = strcspn(*at + 1, ", ");
  snprintf(text, sizeof text, "%.*s", (int)n, *at + 1);
  *at += n + 1;
  p->has_default = p->preset.set = true;
  if (p->kind == 'b')
    p->preset.i = strcmp(text, "true") == 0;
  else if (p->kind == 'e') {
    for (int k = 0; k < p->nwords; k++) {
      if (strcmp(p->words[k], text) == 0) p->preset.i = k;
    }
  } else
    preset_number(text, p);
}

static void read_param(const char **at, dlua_signature *sig, int position) {
  dlua_param p = {0};
  read_name(at, p.name, sizeof p.name);
  if (**at == ':') (*at)++;
  p.kind = **at ? *(*at)++ : 0;
  read_marks(at, &p);
  if (**at == '=') read_default(at, &p);
  if (p.kind == 'D' && !p.has_default) p.preset.set = true; // none means all
  bool tensor = strchr("TIB", p.kind) != NULL;
  sig->order[position] = tensor ? sig->ntensor : -1 - sig->nnum;
  if (tensor)
    sig->has_list |= p.list, sig->tensor[sig->ntensor++] = p;
  else
    sig->num[sig->nnum++] = p;
}

static dlua_signature *parse(const char *at) {
  dlua_signature *sig = dlua_new(sizeof *sig);
  if (!sig) return NULL;
  int position = 0;
  for (skip_space(&at); *at && *at != '-'; skip_space(&at)) {
    read_param(&at, sig, position++);
    skip_space(&at);
    if (*at == ',') at++;
  }
  if (*at) at += 2; // ->
  for (skip_space(&at); *at; skip_space(&at)) {
    read_name(&at, sig->result[sig->nresult++], sizeof sig->result[0]);
    if (*at == ',') at++;
  }
  return sig;
}

const dlua_signature *dlua_op_signature(const dlua_op *op) {
  int row = dlua_op_id(op);
  dlua_signature *sig = __atomic_load_n(&parsed[row], __ATOMIC_ACQUIRE);
  if (sig) return sig;
  pthread_mutex_lock(&lock);
  if (!parsed[row]) __atomic_store_n(&parsed[row], parse(op->sig), __ATOMIC_RELEASE);
  sig = parsed[row];
  pthread_mutex_unlock(&lock);
  return sig;
}
