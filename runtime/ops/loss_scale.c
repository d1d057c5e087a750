// loss_scale.c - how a loss is scaled from step to step, so that a device decides it where it finds
// that a gradient is not finite, and nothing waits (lua/dlua/scaler.lua).
#include <math.h>

#include "reduce.h"

static dlua_status loss_scale_shape(dlua_args *a) {
  for (int k = 0; k < a->nin; k++) {
    if (dlua_numel(a->in[k]) != 1 || !dlua_same_shape(a->in[k], a->in[0]))
      return dlua_shape_error(a, "scale, good and found must be one number each");
  }
  return dlua_shape_same(a);
}

// A scale that no f32 holds, too large or below the normal numbers, would lose all gradients.
static dlua_status loss_scale_cpu(const dlua_args *a) {
  double scale = dlua_real(a->in[0], 0), good = dlua_real(a->in[1], 0) + 1;
  bool bad = dlua_real(a->in[2], 0) != 0, grows = !bad && good >= (double)a->num[2].i;
  double grown = scale * a->num[0].f;
  if (a->out[0]->dtype == DLUA_F32) grown = (double)(float)grown;
  if (bad)
    scale = fmax(scale * a->num[1].f, 0x1p-126);
  else if (grows && isfinite(grown))
    scale = grown;
  dlua_put(a->out[0], 0, scale);
  dlua_put(a->out[1], 0, bad || grows ? 0 : good);
  return DLUA_OK;
}

const dlua_op dlua_op_loss_scale = {
    .name = "loss_scale",
    .sig = "scale:T(1,9), good:T, found:T, growth:f=2, backoff:f=0.5, interval:i=2000 -> next, "
           "count",
    .doc =
        "The scale of the next step's loss, and how many good steps in a row there have been: "
        "where found is not 0 scale * backoff and 0, after interval good steps scale * growth and "
        "0, else scale and good + 1. The scale stays a normal number of f32. Carries no gradient.",
    .dtype = DLUA_SAME_FLOAT,
    .flags = DLUA_HIDDEN | DLUA_NO_GRAD,
    .shape = loss_scale_shape,
    .cpu = loss_scale_cpu,
    .contiguous = "*",
};
