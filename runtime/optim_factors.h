// optim_factors.h - the numbers of a step from the options of a rule, shared by C and CUDA: only a
// device that leaves out steps knows which one it is about to take.
#ifndef DLUA_OPTIM_FACTORS_H
#define DLUA_OPTIM_FACTORS_H

#include <math.h>

#include "optim.h"
#include "rng.h"

DLUA_INLINE void dlua_sgd_factors(const dlua_optim *o, int64_t step, dlua_factors *f) {
  f->velocity = o->momentum != 0;
  f->nesterov = o->nesterov;
  f->momentum = o->momentum;
  f->keep = step == 1 ? 0 : o->momentum; // the first velocity is the first gradient itself
  f->add = step == 1 ? 1 : 1 - o->dampening;
}

DLUA_INLINE void dlua_adam_factors(const dlua_optim *o, int64_t step, dlua_factors *f) {
  if (o->decoupled) f->shrink = 1 - o->lr * o->weight_decay, f->decay = 0;
  f->lr = o->lr / (1 - pow(o->beta1, (double)step));
  f->root = 1 / sqrt(1 - pow(o->beta2, (double)step));
  f->add = 1 - o->beta1;
  f->keep2 = o->beta2;
  f->add2 = 1 - o->beta2;
  f->amsgrad = o->amsgrad;
}

DLUA_INLINE void dlua_rmsprop_factors(const dlua_optim *o, dlua_factors *f) {
  f->keep = o->alpha;
  f->add = 1 - o->alpha;
  f->centered = o->centered;
  f->velocity = o->momentum != 0;
  f->momentum = o->momentum;
}

// The numbers of a parameter's step.
DLUA_INLINE dlua_factors dlua_optim_factors(const dlua_optim *o, int64_t step) {
  dlua_factors f = {.sign = o->maximize ? -1.0 : 1.0, .shrink = 1, .decay = o->weight_decay};
  f.lr = o->lr;
  f.eps = o->eps;
  switch (o->rule) {
  case DLUA_SGD: dlua_sgd_factors(o, step, &f); break;
  case DLUA_ADAM: dlua_adam_factors(o, step, &f); break;
  case DLUA_RMSPROP: dlua_rmsprop_factors(o, &f); break;
  case DLUA_ADAGRAD: f.lr = o->lr / (1 + (double)(step - 1) * o->lr_decay); break;
  }
  return f;
}

#endif
