// optim_step.c - what is the same for a step on every device: what fits a parameter, and who steps
// it. Parameters of a device go there in as few passes as their dtypes and step counts allow, mostly
// one.
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

static dlua_status look_and_step(const dlua_optim *o, const dlua_update *first, dlua_device *device,
                                 const gathered *all, const dlua_bad_gradient *bad) {
  const dlua_backend *backend = device->backend;
  dlua_dtype dtype = (dlua_dtype)first->p->dtype;
  dlua_tensor *verdict = bad ? bad->verdict : NULL, *skipped = bad ? bad->skipped : NULL;
  if (verdict && !bad->decided)
    DLUA_TRY(backend->look(device, dtype, all->n, all->passes, NULL, verdict));
  return backend->step(device, o, dtype, first->step, all->n, all->passes, verdict, skipped);
}

// Steps updates[from] and all later ones that go with it.
static dlua_status step_together(const dlua_optim *o, int n, const dlua_update *updates, int from,
                                 const dlua_bad_gradient *bad, gathered *all) {
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
  DLUA_TRY(look_and_step(o, first, device, all, bad));
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
                                   const dlua_bad_gradient *bad) {
  dlua_status status = DLUA_OK;
  for (int k = 0; k < n && status == DLUA_OK; k++) {
    if (came_before(updates, k)) continue;
    gathered all = {0};
    status = step_together(o, n, updates, k, bad, &all);
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
  if (away) return step_on_devices(o, n, updates, bad);
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

// ---------------------------------------------------------------- scaled gradients

static dlua_status unscale_here(int n, dlua_tensor *const *g, const dlua_tensor *scale,
                                dlua_tensor *verdict) {
  int bad;
  DLUA_TRY(dlua_find_not_finite(n, g, &bad));
  if (bad >= 0) dlua_f32(verdict)[0] = 1, verdict->storage->version++;
  return scale ? dlua_scale_all(n, g, 1 / (double)dlua_f32(scale)[0]) : DLUA_OK;
}

// Those of a dtype, in one pass.
static dlua_status unscale_there(int n, dlua_tensor *const *g, dlua_dtype dtype,
                                 const dlua_tensor *scale, dlua_tensor *verdict) {
  dlua_device *device = dlua_device_of(verdict);
  gathered all;
  dlua_status status = make_room(&all, n);
  for (int k = 0; k < n && status == DLUA_OK; k++) {
    if (g[k]->dtype != dtype) continue;
    status = gather(&all, NULL, g[k]);
    if (status == DLUA_OK) all.passes[all.n - 1].place = 1;
  }
  if (status == DLUA_OK && all.n > 0)
    status = device->backend->look(device, dtype, all.n, all.passes, scale, verdict);
  for (int k = 0, at = 0; k < n && status == DLUA_OK && scale; k++) {
    if (g[k]->dtype == dtype) status = put_back(g[k], all.g[at++]);
  }
  release(&all);
  return status;
}

dlua_status dlua_unscale(int n, dlua_tensor *const *g, const dlua_tensor *scale,
                         dlua_tensor *verdict) {
  dlua_device *device = dlua_device_of(verdict);
  for (int k = 0; k < n; k++) {
    if (dlua_device_of(g[k]) != device || !dlua_optim_takes(g[k])) return DLUA_DECLINED;
  }
  if (n == 0) return DLUA_OK;
  if (device == dlua_cpu()) return unscale_here(n, g, scale, verdict);
  DLUA_TRY(unscale_there(n, g, DLUA_F32, scale, verdict));
  return unscale_there(n, g, DLUA_F64, scale, verdict);
}
