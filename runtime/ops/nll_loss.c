// nll_loss.c - minus the log-probability of the target class.
#include "loss_class.h"

static dlua_status nll_shape(dlua_args *a) {
  DLUA_TRY(dlua_check_classes(a, a->in[0], a->in[2]));
  DLUA_TRY(dlua_check_labels(a, a->in[0], a->in[1]));
  dlua_class_loss_spec(a, (int)a->num[1].i);
  return DLUA_OK;
}

static dlua_classes nll_call(const dlua_args *a) {
  dlua_classes w = {
      .call = a, .x = a->in[0], .target = a->in[1], .weight = a->in[2], .out = a->out[0]};
  w.ignore = a->num[0].i, w.reduction = (int)a->num[1].i, w.log_input = true;
  dlua_classes_measure(&w);
  return w;
}

static dlua_status nll_cpu(const dlua_args *a) {
  dlua_classes w = nll_call(a);
  return dlua_class_loss(&w, false);
}

static dlua_status nll_team(const dlua_args *a) {
  dlua_classes w = nll_call(a);
  return dlua_class_loss(&w, true);
}

static void nll_back(dlua_back *b) {
  dlua_refuse_weight_gradient(b, 2, "nll_loss");
  dlua_tensor *x = dlua_saved(b, "x");
  dlua_tensor *q =
      dlua_call(b->s, &dlua_op_cross_entropy_weights, dlua_t(x), dlua_t(dlua_saved(b, "target")),
                dlua_t(dlua_saved(b, "weight")), dlua_v(&b->num[0]), dlua_f(0), dlua_v(&b->num[1]));
  if (x == NULL) return;
  dlua_tensor *g = dlua_with_classes(b, b->g[0], (int)b->num[1].i, x->ndim);
  dlua_give(b, 0, dlua_neg(b->s, dlua_mul(b->s, q, g)));
}

const dlua_op dlua_op_nll_loss = {
    .name = "nll_loss",
    .sig = "x:T, target:I, weight:T?, ignore_index:i=-100, reduction:e{mean|sum|none}=mean -> loss",
    .doc =
        "Minus the log-probability x of the target class (labels from 1); the mean is weighted by "
        "the classes' weights.",
    .dtype = DLUA_SAME_FLOAT,
    .shape = nll_shape,
    .cpu = nll_cpu,
    .fast = (dlua_kernel *const[]){nll_team, NULL},
    .back = nll_back,
    .save = "x target weight",
    .contiguous = "*",
    .autocast = DLUA_CAST_F32,
};
