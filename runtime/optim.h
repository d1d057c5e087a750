// optim.h - what an optimiser does to parameters: one fused pass per step, norms and clipping of
// gradients. f32 and f64, any strides, on the CPU and on devices that offer such passes (backend.h);
// others go through the formulas in lua/dlua/optim, written with ops.
//
//   dlua_optim o = {.rule = DLUA_SGD, .lr = 0.1, .momentum = 0.9};
//   dlua_update u = {.p = weight, .g = weight->grad, .slot = {velocity}, .step = 1};
//   if (dlua_optim_step(&o, 1, &u, NULL) != DLUA_OK) puts(dlua_message());
//
// Formulas and their order of operations are PyTorch's, so that training runs can be compared.
#ifndef DLUA_OPTIM_H
#define DLUA_OPTIM_H

#include "dlua.h"

typedef enum dlua_rule { DLUA_SGD, DLUA_ADAM, DLUA_RMSPROP, DLUA_ADAGRAD } dlua_rule;

#define DLUA_OPTIM_SLOTS 3

// The numbers of one step. Each rule reads its own: momentum, dampening, nesterov (SGD, RMSprop);
// beta1, beta2, amsgrad, decoupled (Adam; decoupled is AdamW); alpha, centered (RMSprop); lr_decay
// (Adagrad).
typedef struct dlua_optim {
  dlua_rule rule;
  bool nesterov, amsgrad, decoupled, centered, maximize;
  double lr, weight_decay, eps;
  double momentum, dampening, beta1, beta2, alpha, lr_decay;
} dlua_optim;

// One parameter of a step; all borrowed. Slots have the parameter's dtype and shape and are
// contiguous.
typedef struct dlua_update {
  dlua_tensor *p, *g, *slot[DLUA_OPTIM_SLOTS];
  int64_t step; // steps of this parameter, with this one and with those that a device left out
  int place;    // what a device's verdict says of it: 1 for the last of its group, more before
} dlua_update;

// A step's numbers as the loops want them: everything that is the same for all elements is done.
typedef struct dlua_factors {
  double sign;          // -1 to climb
  double shrink, decay; // p *= shrink (decoupled decay); d = sign * g + decay * p
  double lr;            // step size, bias correction included
  double keep, add;     // slot = keep * slot + add * d
  double keep2, add2;   // the same for the second slot
  double momentum;      // Nesterov's look ahead; RMSprop's velocity
  double root, eps;     // denominator: sqrt(v) * root + eps
  bool velocity, nesterov, amsgrad, centered;
} dlua_factors;

// Which slots the rule keeps, bit k for slot k. SGD: velocity. Adam: mean, mean square, its
// maximum. RMSprop: mean square, mean, velocity. Adagrad: sum of squares.
unsigned dlua_optim_slots(const dlua_optim *o);
// Can the fused pass take this parameter? Otherwise the formulas in Lua do.
bool dlua_optim_takes(const dlua_tensor *p);
// What the guard of a step found.
typedef struct dlua_bad_gradient {
  int update;   // the update whose gradient is not finite, or -1
  bool written; // other parameters, or a part of that one, have taken the step
  // On a device: a 0-d f32 tensor there, raised to the place of each update whose gradient is not
  // finite. Where it is not 0, now or from before, nothing is changed.
  dlua_tensor *verdict;
  bool decided; // the verdict stands: gradients are not looked at
  // NULL, or i64 on the device: at a place less 1 how many steps were left out for a verdict. They do
  // not count, and are subtracted there from the step of an update.
  dlua_tensor *skipped;
} dlua_bad_gradient;

// Updates all parameters and their slots in place, in parallel; bumps the parameters' versions.
// Fails before anything is changed when a gradient or slot does not fit its parameter. With bad,
// nothing is written from a gradient that is not finite: those of 4096 elements or fewer are looked
// at before anything is changed, larger ones block by block, and the step ends there.
// On a device all are looked at before anything is changed, and verdict says what was found.
dlua_status dlua_optim_step(const dlua_optim *o, int n, const dlua_update *updates,
                            dlua_bad_gradient *bad);

// Clips gradients of a device to max_norm without waiting for it: *norm is a new 0-d f32 tensor there
// (caller owns the result). Declines unless all are of one dtype on one device that offers it.
dlua_status dlua_clip_on_device(int n, dlua_tensor *const *x, double p, double max_norm,
                                dlua_tensor **norm);

// Raises verdict, a 0-d f32 tensor, to 1 where a gradient has an element that is not finite, and
// divides all of them by scale (the same, or NULL); on a device without waiting for it. Declines,
// with nothing changed, unless the fused passes take all gradients and they are where verdict is.
dlua_status dlua_unscale(int n, dlua_tensor *const *g, const dlua_tensor *scale,
                         dlua_tensor *verdict);

// On the CPU. The p-norm over all elements of all tensors together (p = INFINITY: the largest
// magnitude). The same bits for any number of threads.
dlua_status dlua_global_norm(int n, dlua_tensor *const *x, double p, double *norm);
// Multiplies all elements of all tensors by factor, in place.
dlua_status dlua_scale_all(int n, dlua_tensor *const *x, double factor);
// The first tensor with an element that is not finite: its position from 0, or -1.
dlua_status dlua_find_not_finite(int n, dlua_tensor *const *x, int *position);

#endif
