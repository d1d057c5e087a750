// optim.c - optimiser steps as one pass over memory.
//
// An optimiser reads each parameter, gradient and slot once and writes them once: nothing is left
// to win but memory traffic, so all tensors of a step are cut into slices of one size and handed to
// the team together, and a net of fifty small tensors costs one parallel region. Slices do not
// depend on the number of threads and partial sums are combined in their order, so that results do
// not either. It refuses half precision: those parameters take the formulas in Lua.
#include "optim.h"

#include <math.h>
#include <stdatomic.h>

#include "cpu/isa.h"
#include "cpu/optim_kernels.h"
#include "optim_factors.h"
#include "parallel.h"

enum { SLICE = 16384 }; // elements: five f32 streams of a slice stay in the second-level cache

static const dlua_optim_kernels *kernels(void) {
  static const dlua_optim_kernels *const kernels[] = DLUA_PER_ISA(dlua_optim_kernels);
  return kernels[dlua_reference_mode() ? DLUA_BASE : dlua_isa()];
}

// ---------------------------------------------------------------- slices

static int64_t slices_of(const dlua_tensor *x) { return (dlua_numel(x) + SLICE - 1) / SLICE; }

// Where slice number `slice` of a list of tensors lies; first[k] is the number of tensor k's first.
typedef struct place {
  int tensor;
  int64_t from, count;
} place;

static place place_of(int n, const int64_t *first, dlua_tensor *const *x, int64_t slice) {
  int low = 0, high = n - 1;
  while (low < high) { // the last tensor that starts at or before the slice and is not empty
    int middle = (low + high + 1) / 2;
    if (first[middle] <= slice)
      low = middle;
    else
      high = middle - 1;
  }
  int64_t from = (slice - first[low]) * SLICE, left = dlua_numel(x[low]) - from;
  return (place){low, from, left < SLICE ? left : SLICE};
}

// A list of tensors made contiguous, with the numbers of their first slices.
typedef struct pile {
  int n;
  dlua_tensor **x; // owned
  int64_t *first, total;
} pile;

static void pile_close(pile *s, int n) {
  for (int k = 0; s->x && k < n; k++) dlua_tensor_release(s->x[k]);
  dlua_delete(s->x, (size_t)n * sizeof *s->x);
  dlua_delete(s->first, (size_t)n * sizeof *s->first);
}

static dlua_status pile_fill(pile *s, int n, dlua_tensor *const *x) {
  s->x = dlua_new((size_t)n * sizeof *s->x);
  s->first = s->x ? dlua_new((size_t)n * sizeof *s->first) : NULL;
  if (!s->first) return DLUA_NO_MEMORY;
  for (s->n = 0; s->n < n; s->n++) {
    if (dlua_device_of(x[s->n]) != dlua_cpu() || !dlua_optim_takes(x[s->n]))
      return dlua_fail(DLUA_BAD_ARGUMENT, "gradients: tensor %d is %s on %s, not f32 or f64 on cpu",
                       s->n + 1, dlua_dtype_name(x[s->n]->dtype),
                       dlua_device_name(dlua_device_of(x[s->n])));
    DLUA_TRY(dlua_contiguous(x[s->n], &s->x[s->n]));
    s->first[s->n] = s->total;
    s->total += slices_of(x[s->n]);
  }
  return DLUA_OK;
}

// Caller closes the pile with the same n, also after a failure.
static dlua_status pile_open(pile *s, int n, dlua_tensor *const *x) {
  *s = (pile){0};
  return n ? pile_fill(s, n, x) : DLUA_OK;
}

static void *at(const dlua_tensor *x, int64_t element) {
  return (char *)dlua_data(x) + (size_t)element * dlua_dtype_size(x->dtype);
}

// ---------------------------------------------------------------- norms

typedef struct norm_pass {
  const dlua_optim_kernels *k;
  const pile *s;
  double p, *partial;
} norm_pass;

static double power_sum(const dlua_tensor *x, place here, double p) {
  double sum = 0;
  for (int64_t i = here.from; i < here.from + here.count; i++) sum += pow(fabs(dlua_real(x, i)), p);
  return sum;
}

static void norm_slices(void *context, int64_t from, int64_t to) {
  norm_pass *c = context;
  for (int64_t slice = from; slice < to; slice++) {
    place here = place_of(c->s->n, c->s->first, c->s->x, slice);
    const dlua_tensor *x = c->s->x[here.tensor];
    int is_f64 = x->dtype == DLUA_F64;
    const void *data = at(x, here.from);
    if (c->p == 2)
      c->partial[slice] = c->k->sum_squares[is_f64](here.count, data);
    else if (isinf(c->p))
      c->partial[slice] = c->k->largest[is_f64](here.count, data);
    else
      c->partial[slice] = power_sum(x, here, c->p);
  }
}

// Fills one partial result per slice; the caller frees *partial with dlua_delete(…, total).
static dlua_status partials(const pile *s, double p, double **partial) {
  *partial = dlua_new((size_t)(s->total + 1) * sizeof **partial);
  if (!*partial) return DLUA_NO_MEMORY;
  norm_pass c = {kernels(), s, p, *partial};
  dlua_parallel(s->total, SLICE, norm_slices, &c);
  return DLUA_OK;
}

static double combined(const pile *s, const double *partial, double p) {
  double sum = 0;
  for (int64_t k = 0; k < s->total; k++) {
    if (!isinf(p))
      sum += partial[k];
    else if (!(partial[k] <= sum)) // a NaN wins and stays
      sum = isnan(sum) ? sum : partial[k];
  }
  return p == 2 ? sqrt(sum) : isinf(p) ? sum : pow(sum, 1 / p);
}

dlua_status dlua_global_norm(int n, dlua_tensor *const *x, double p, double *norm) {
  pile s;
  double *partial = NULL;
  dlua_status status = pile_open(&s, n, x);
  if (status == DLUA_OK) status = partials(&s, p, &partial);
  if (status == DLUA_OK) *norm = combined(&s, partial, p);
  dlua_delete(partial, (size_t)(s.total + 1) * sizeof *partial);
  pile_close(&s, n);
  return status;
}

// ---------------------------------------------------------------- the guard

static bool is_finite(const dlua_optim_kernels *k, const dlua_tensor *x, int64_t from, int64_t n) {
  return k->finite[x->dtype == DLUA_F64](n, at(x, from));
}

typedef struct finite_pass {
  const dlua_optim_kernels *k;
  const pile *s;
  _Atomic int64_t bad; // the first slice with an element that is not finite, or s->total
} finite_pass;

static void note_bad(_Atomic int64_t *bad, int64_t slice) {
  int64_t now = *bad;
  while (slice < now && !atomic_compare_exchange_weak(bad, &now, slice)) {
  }
}

static void check_slices(void *context, int64_t from, int64_t to) {
  finite_pass *c = context;
  for (int64_t slice = from; slice < to; slice++) {
    place here = place_of(c->s->n, c->s->first, c->s->x, slice);
    if (is_finite(c->k, c->s->x[here.tensor], here.from, here.count)) continue;
    note_bad(&c->bad, slice);
    return;
  }
}

// Position of the tensor a slice belongs to, or -1 for one beyond the last.
static int owner_of(const pile *s, int64_t slice) {
  return slice < s->total ? place_of(s->n, s->first, s->x, slice).tensor : -1;
}

dlua_status dlua_find_not_finite(int n, dlua_tensor *const *x, int *position) {
  pile s;
  dlua_status status = pile_open(&s, n, x);
  if (status == DLUA_OK) {
    finite_pass c = {kernels(), &s, s.total};
    dlua_parallel(s.total, SLICE, check_slices, &c);
    *position = owner_of(&s, c.bad);
  }
  pile_close(&s, n);
  return status;
}

// ---------------------------------------------------------------- scaling

typedef struct scale_pass {
  const dlua_optim_kernels *k;
  const pile *s;
  double factor;
} scale_pass;

static void scale_slices(void *context, int64_t from, int64_t to) {
  scale_pass *c = context;
  for (int64_t slice = from; slice < to; slice++) {
    place here = place_of(c->s->n, c->s->first, c->s->x, slice);
    dlua_tensor *x = c->s->x[here.tensor];
    c->k->scale[x->dtype == DLUA_F64](here.count, at(x, here.from), c->factor);
  }
}

// Writes a contiguous copy back where x itself was not contiguous, and tells x's readers.
static dlua_status put_back(dlua_tensor *x, const dlua_tensor *work) {
  if (work != x && work->storage != x->storage) return dlua_copy(x, work);
  x->storage->version++;
  return DLUA_OK;
}

dlua_status dlua_scale_all(int n, dlua_tensor *const *x, double factor) {
  pile s;
  dlua_status status = pile_open(&s, n, x);
  if (status == DLUA_OK) {
    scale_pass c = {kernels(), &s, factor};
    dlua_parallel(s.total, SLICE, scale_slices, &c);
    for (int k = 0; k < n && status == DLUA_OK; k++) status = put_back(x[k], s.x[k]);
  }
  pile_close(&s, n);
  return status;
}

// ---------------------------------------------------------------- steps

typedef struct step_pass {
  const dlua_optim_kernels *k;
  const dlua_optim *o;
  const dlua_update *updates;
  const pile *p, *g;
  bool guard;
  _Atomic int64_t bad;  // the first slice whose gradient is not finite, or p->total
  _Atomic bool written; // has any parameter been changed?
} step_pass;

// Gradients of up to this many elements are looked at before the step, larger ones by its kernel as
// it comes to them: reading all of them twice cost 1.4 to 3.4 % of a training step.
enum { SMALL = 4096 };

// Steps a slice; false when the guard stopped it.
static bool step_slice(step_pass *c, place here) {
  const dlua_update *u = &c->updates[here.tensor];
  const dlua_tensor *g = c->g->x[here.tensor];
  dlua_factors f = dlua_optim_factors(c->o, u->step);
  void *p = at(c->p->x[here.tensor], here.from), *slot[DLUA_OPTIM_SLOTS];
  for (int k = 0; k < DLUA_OPTIM_SLOTS; k++)
    slot[k] = u->slot[k] ? at(u->slot[k], here.from) : NULL;
  int rule = c->o->rule, is_f64 = u->p->dtype == DLUA_F64;
  const void *from = at(g, here.from);
  int64_t done = here.count;
  if (c->guard && dlua_numel(g) > SMALL)
    done = c->k->guarded[rule][is_f64](here.count, p, from, slot[0], slot[1], slot[2], &f);
  else
    c->k->step[rule][is_f64](here.count, p, from, slot[0], slot[1], slot[2], &f);
  if (done > 0 && !c->written) c->written = true;
  return done == here.count;
}

static void step_slices(void *context, int64_t from, int64_t to) {
  step_pass *c = context;
  for (int64_t slice = from; slice < to && c->bad == c->p->total; slice++) {
    if (step_slice(c, place_of(c->p->n, c->p->first, c->p->x, slice))) continue;
    note_bad(&c->bad, slice);
  }
}

// Looks at the small gradients before anything is changed: among them are those of all biases, where
// what is not finite in a layer shows.
static void check_small(step_pass *c) {
  for (int k = 0; k < c->g->n && c->bad == c->p->total; k++) {
    int64_t n = dlua_numel(c->g->x[k]);
    if (n <= SMALL && !is_finite(c->k, c->g->x[k], 0, n)) c->bad = c->g->first[k];
  }
}

static dlua_status step_piles(const dlua_optim *o, int n, const dlua_update *updates,
                              dlua_tensor **list, pile *p, pile *g, dlua_bad_gradient *bad) {
  for (int k = 0; k < n; k++) list[k] = updates[k].p;
  DLUA_TRY(pile_open(p, n, list));
  for (int k = 0; k < n; k++) list[k] = updates[k].g;
  DLUA_TRY(pile_open(g, n, list));
  step_pass c = {kernels(), o, updates, p, g, bad, p->total, false};
  if (bad) check_small(&c);
  dlua_parallel(p->total, 4 * SLICE, step_slices, &c);
  if (bad) bad->update = owner_of(g, c.bad), bad->written = c.written;
  for (int k = 0; k < n && c.written; k++) DLUA_TRY(put_back(updates[k].p, p->x[k]));
  return DLUA_OK;
}

dlua_status dlua_step_on_cpu(const dlua_optim *o, int n, const dlua_update *updates,
                             dlua_bad_gradient *bad) {
  pile p = {0}, g = {0};
  dlua_tensor **list = dlua_new((size_t)n * sizeof *list);
  dlua_status status = list ? step_piles(o, n, updates, list, &p, &g, bad) : DLUA_NO_MEMORY;
  pile_close(&p, n);
  pile_close(&g, n);
  dlua_delete(list, (size_t)n * sizeof *list);
  return status;
}
