// optim_step.c - what is the same for a step on every device: the numbers of a rule, what fits a
// parameter, and who steps it. Parameters of a device go there in as few passes as their dtypes and
// step counts allow, mostly one.
#include <math.h>

#include "backend.h"
#include "cpu/optim_kernels.h"

bool dlua_optim_takes(const dlua_tensor *p) {
  bool able = dlua_device_of(p) == dlua_cpu() || dlua_device_of(p)->backend->step;
  return able && (p->dtype == DLUA_F32 || p->dtype == DLUA_F64);
}

unsigned dlua_optim_slots(const dlua_optim *o) {
  switch (o->rule) {
  case DLUA_SGD: return o->momentum != 0;
  case DLUA_ADAM: return 3u | (o->amsgrad ? 4u : 0);
  case DLUA_RMSPROP: return 1u | (o->centered ? 2u : 0) | (o->momentum != 0 ? 4u : 0);
  case DLUA_ADAGRAD: return 1u;
  }
  return 0;
}

static void sgd_factors(const dlua_optim *o, int64_t step, dlua_factors *f) {
  f->velocity = o->momentum != 0;
  f->nesterov = o->nesterov;
  f->momentum = o->momentum;
  f->keep = step == 1 ? 0 : o->momentum; // the first velocity is the first gradient itself
  f->add = step == 1 ? 1 : 1 - o->dampening;
}

static void adam_factors(const dlua_optim *o, int64_t step, dlua_factors *f) {
  if (o->decoupled) f->shrink = 1 - o->lr * o->weight_decay, f->decay = 0;
  f->lr = o->lr / (1 - pow(o->beta1, (double)step));
  f->root = 1 / sqrt(1 - pow(o->beta2, (double)step));
  f->add = 1 - o->beta1;
  f->keep2 = o->beta2;
  f->add2 = 1 - o->beta2;
  f->amsgrad = o->amsgrad;
}

static void rmsprop_factors(const dlua_optim *o, dlua_factors *f) {
  f->keep = o->alpha;
  f->add = 1 - o->alpha;
  f->centered = o->centered;
  f->velocity = o->momentum != 0;
  f->momentum = o->momentum;
}

dlua_factors dlua_optim_factors(const dlua_optim *o, int64_t step) {
  dlua_factors f = {.sign = o->maximize ? -1 : 1, .shrink = 1, .decay = o->weight_decay};
  f.lr = o->lr;
  f.eps = o->eps;
  switch (o->rule) {
  case DLUA_SGD: sgd_factors(o, step, &f); break;
  case DLUA_ADAM: adam_factors(o, step, &f); break;
  case DLUA_RMSPROP: rmsprop_factors(o, &f); break;
  case DLUA_ADAGRAD: f.lr = o->lr / (1 + (double)(step - 1) * o->lr_decay); break;
  }
  return f;
}

static dlua_status check_update(const dlua_optim *o, int k, const dlua_update *u) {
  if (u->g->dtype != u->p->dtype || !dlua_same_shape(u->g, u->p))
    return dlua_fail(DLUA_BAD_ARGUMENT, "step: parameter %d is %s %s but its gradient %s %s", k + 1,
                     dlua_shape_text(u->p), dlua_dtype_name(u->p->dtype), dlua_shape_text(u->g),
                     dlua_dtype_name(u->g->dtype));
  for (int j = 0; j < DLUA_OPTIM_SLOTS; j++) {
    if (!(dlua_optim_slots(o) >> j & 1)) continue;
    const dlua_tensor *s = u->slot[j];
    if (!s || s->dtype != u->p->dtype || !dlua_same_shape(s, u->p) || !dlua_is_contiguous(s))
      return dlua_fail(DLUA_BAD_ARGUMENT, "step: the state of parameter %d does not fit it", k + 1);
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- passes of a device

// What one pass needs, and the contiguous copies behind it where there are any.
typedef struct gathered {
  dlua_pass *passes;
  dlua_tensor **p, **g; // owned
  int n, room;
} gathered;

static void release(gathered *all) {
  for (int k = 0; k < all->n; k++) {
    if (all->p) dlua_tensor_release(all->p[k]);
    dlua_tensor_release(all->g[k]);
  }
  size_t room = (size_t)all->room;
  dlua_delete(all->passes, room * sizeof *all->passes);
  dlua_delete(all->p, room * sizeof *all->p);
  dlua_delete(all->g, room * sizeof *all->g);
}

static dlua_status make_room(gathered *all, int n) {
  *all = (gathered){.room = n};
  all->passes = dlua_new((size_t)n * sizeof *all->passes);
  all->p = all->passes ? dlua_new((size_t)n * sizeof *all->p) : NULL;
  all->g = all->p ? dlua_new((size_t)n * sizeof *all->g) : NULL;
  return all->g ? DLUA_OK : DLUA_NO_MEMORY;
}

static dlua_status gather(gathered *all, dlua_tensor *p, dlua_tensor *g) {
  int k = all->n;
  if (p) DLUA_TRY(dlua_contiguous(p, &all->p[k]));
  dlua_status status = dlua_contiguous(g, &all->g[k]);
  if (status != DLUA_OK) {
    dlua_tensor_release(all->p[k]);
    all->p[k] = NULL;
    return status;
  }
  all->passes[k] = (dlua_pass){
      .p = p ? dlua_data(all->p[k]) : NULL, .g = dlua_data(all->g[k]), .count = dlua_numel(g)};
  all->n++;
  return DLUA_OK;
}

static dlua_status put_back(dlua_tensor *x, const dlua_tensor *work) {
  if (work->storage != x->storage) return dlua_copy(x, work);
  x->storage->version++;
  return DLUA_OK;
}

static bool goes_with(const dlua_update *u, const dlua_update *first) {
  return dlua_device_of(u->p) == dlua_device_of(first->p) && u->p->dtype == first->p->dtype &&
         u->step == first->step;
}

// Steps updates[from] and all later ones that go with it.
static dlua_status step_together(const dlua_optim *o, int n, const dlua_update *updates, int from,
                                 dlua_tensor *verdict, gathered *all) {
  const dlua_update *first = &updates[from];
  dlua_device *device = dlua_device_of(first->p);
  DLUA_TRY(make_room(all, n - from));
  for (int k = from; k < n; k++) {
    if (!goes_with(&updates[k], first)) continue;
    DLUA_TRY(gather(all, updates[k].p, updates[k].g));
    all->passes[all->n - 1].place = updates[k].place;
    for (int j = 0; j < DLUA_OPTIM_SLOTS; j++) {
      const dlua_tensor *slot = updates[k].slot[j];
      all->passes[all->n - 1].slot[j] = slot ? dlua_data(slot) : NULL;
    }
  }
  dlua_factors f = dlua_optim_factors(o, first->step);
  DLUA_TRY(device->backend->step(device, o->rule, (dlua_dtype)first->p->dtype, &f, all->n,
                                 all->passes, verdict));
  for (int k = from, at = 0; k < n; k++) {
    if (goes_with(&updates[k], first)) DLUA_TRY(put_back(updates[k].p, all->p[at++]));
  }
  return DLUA_OK;
}

static bool came_before(const dlua_update *updates, int k) {
  for (int j = 0; j < k; j++)
    if (goes_with(&updates[k], &updates[j])) return true;
  return false;
}

static dlua_status step_on_devices(const dlua_optim *o, int n, const dlua_update *updates,
                                   dlua_tensor *verdict) {
  dlua_status status = DLUA_OK;
  for (int k = 0; k < n && status == DLUA_OK; k++) {
    if (came_before(updates, k)) continue;
    gathered all = {0};
    status = step_together(o, n, updates, k, verdict, &all);
    release(&all);
  }
  return status;
}

dlua_status dlua_optim_step(const dlua_optim *o, int n, const dlua_update *updates,
                            dlua_bad_gradient *bad) {
  if (bad) bad->update = -1, bad->written = false;
  bool away = false, here = false;
  for (int k = 0; k < n; k++) {
    DLUA_TRY(check_update(o, k, &updates[k]));
    away |= dlua_device_of(updates[k].p) != dlua_cpu();
    here |= dlua_device_of(updates[k].p) == dlua_cpu();
  }
  if (away && here)
    return dlua_fail(DLUA_BAD_ARGUMENT, "step: some parameters of the group are on cpu, some on a "
                                        "device; make a group of each");
  if (away) return step_on_devices(o, n, updates, bad ? bad->verdict : NULL);
  return n ? dlua_step_on_cpu(o, n, updates, bad) : DLUA_OK;
}

dlua_status dlua_clip_on_device(int n, dlua_tensor *const *x, double p, double max_norm,
                                dlua_tensor **norm) {
  dlua_device *device = n ? dlua_device_of(x[0]) : dlua_cpu();
  if (!device->backend->clip) return DLUA_DECLINED;
  for (int k = 0; k < n; k++) {
    if (dlua_device_of(x[k]) != device || x[k]->dtype != x[0]->dtype) return DLUA_DECLINED;
  }
  gathered all = {0};
  dlua_tensor *result = NULL;
  dlua_status status = dlua_tensor_new(&result, DLUA_F32, 0, NULL, device);
  if (status == DLUA_OK) status = make_room(&all, n);
  for (int k = 0; k < n && status == DLUA_OK; k++) status = gather(&all, NULL, x[k]);
  if (status == DLUA_OK)
    status =
        device->backend->clip(device, (dlua_dtype)x[0]->dtype, n, all.passes, p, max_norm, result);
  for (int k = 0; k < n && status == DLUA_OK; k++) status = put_back(x[k], all.g[k]);
  release(&all);
  if (status != DLUA_OK) return dlua_tensor_release(result), status;
  *norm = result;
  return DLUA_OK;
}
