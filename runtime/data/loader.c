// loader.c - a bounded ring of batches between workers and the one thread that takes them in order.
// Workers take batch numbers, not examples: a batch is filled by one thread without a lock, and its
// place in the ring is known before it is begun. Refused: a thread pool across epochs; starting two
// threads costs 50 us, stopping them makes leaving a loop early trivial.
#include "loader.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../parallel.h"

enum { MOST_WORKERS = 64 };

typedef struct place { // one of the ring
  bool ready;
  dlua_status status;
  dlua_batch batch;
  char message[512];
} place;

// What one thread needs to make batches.
typedef struct maker {
  dlua_decoder decoder;
  dlua_scratch scratch;
} maker;

struct dlua_loader {
  dlua_dataset *dataset;
  dlua_loader_options options;
  dlua_transform *steps;
  int64_t *order;
  int64_t batches;
  uint32_t epoch;
  bool running;
  maker own; // of the thread that takes batches

  pthread_mutex_t lock;
  pthread_cond_t made, room;
  place *ring;
  int64_t size;         // of the ring
  int64_t begun, taken; // batches given to workers, handed out
  bool again;           // the batch taken last failed for memory and is to be made once more
  atomic_bool stop;
  int threads;
  pthread_t thread[MOST_WORKERS];

  double began, ended, waited;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void release_batch(dlua_batch *batch) {
  for (int k = 0; k < DLUA_MAX_FIELDS; k++) dlua_tensor_release(batch->tensor[k]);
  *batch = (dlua_batch){0};
}

static void free_maker(maker *m) {
  dlua_decoder_free(&m->decoder);
  dlua_scratch_free(&m->scratch);
}

// ---------------------------------------------------------------- making a batch

// Field 1 of an example as a picture: from a file, a block or a row of a tensor.
static dlua_status picture_of(const dlua_loader *l, int64_t example, maker *m, dlua_picture *p) {
  if (l->dataset->source->pictures) {
    return dlua_dataset_picture(l->dataset, example, &m->decoder, p);
  }
  const dlua_tensor *rows = l->dataset->source->field[0].rows;
  if (rows->ndim != 4 || (rows->dtype != DLUA_U8 && rows->dtype != DLUA_F32)) {
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "DataLoader: transforms take pictures {n,c,h,w} of u8 or f32, not %s %s",
                     dlua_dtype_name(rows->dtype), dlua_shape_text(rows));
  }
  *p = (dlua_picture){
      .dtype = rows->dtype, .c = rows->size[1], .h = rows->size[2], .w = rows->size[3]};
  size_t bytes = (size_t)dlua_picture_count(p) * dlua_dtype_size(p->dtype);
  p->data = (const char *)dlua_data(rows) + (size_t)dlua_dataset_row(l->dataset, example) * bytes;
  return DLUA_OK;
}

static dlua_status different_size(const dlua_tensor *x, const dlua_picture *p) {
  return dlua_fail(DLUA_BAD_ARGUMENT,
                   "DataLoader: the pictures of a batch differ in size, %s and %s: put Resize or "
                   "CenterCrop into the transform",
                   dlua_sizes_text(3, x->size + 1),
                   dlua_sizes_text(3, (int64_t[]){p->c, p->h, p->w}));
}

static dlua_status put_picture(dlua_batch *batch, int64_t k, const dlua_picture *p) {
  if (!batch->tensor[0]) {
    int64_t size[4] = {batch->size, p->c, p->h, p->w};
    DLUA_TRY(dlua_tensor_new(&batch->tensor[0], p->dtype, 4, size, dlua_cpu()));
  }
  const dlua_tensor *x = batch->tensor[0];
  if (x->size[1] != p->c || x->size[2] != p->h || x->size[3] != p->w) return different_size(x, p);
  size_t bytes = (size_t)dlua_picture_count(p) * dlua_dtype_size(p->dtype);
  memcpy((char *)dlua_data(x) + (size_t)k * bytes, p->data, bytes);
  return DLUA_OK;
}

static dlua_status fill_pictures(dlua_loader *l, dlua_batch *batch, maker *m) {
  for (int64_t k = 0; k < batch->size; k++) {
    if (atomic_load_explicit(&l->stop, memory_order_relaxed)) {
      return dlua_fail(DLUA_BAD_STATE, "DataLoader: stopped");
    }
    int64_t example = l->order[batch->first + k];
    dlua_draw draw = {.key = l->options.key, .sample = (uint64_t)example, .epoch = l->epoch};
    dlua_picture in, out;
    DLUA_TRY(picture_of(l, example, m, &in));
    DLUA_TRY(dlua_transform_run(l->options.nsteps, l->steps, &draw, &in, &m->scratch, &out));
    DLUA_TRY(put_picture(batch, k, &out));
  }
  return DLUA_OK;
}

static dlua_status fill_rows(const dlua_loader *l, dlua_batch *batch, int field) {
  const dlua_tensor *rows = l->dataset->source->field[field].rows;
  int64_t size[DLUA_MAX_DIMS];
  memcpy(size, rows->size, sizeof size);
  size[0] = batch->size;
  DLUA_TRY(dlua_tensor_new(&batch->tensor[field], rows->dtype, rows->ndim, size, dlua_cpu()));
  size_t bytes = dlua_dtype_size(rows->dtype);
  for (int d = 1; d < rows->ndim; d++) bytes *= (size_t)rows->size[d];
  for (int64_t k = 0; k < batch->size && bytes > 0; k++) {
    int64_t row = dlua_dataset_row(l->dataset, l->order[batch->first + k]);
    memcpy((char *)dlua_data(batch->tensor[field]) + (size_t)k * bytes,
           (const char *)dlua_data(rows) + (size_t)row * bytes, bytes);
  }
  return DLUA_OK;
}

static dlua_status fill_fields(dlua_loader *l, dlua_batch *batch, maker *m) {
  const dlua_source *s = l->dataset->source;
  bool pictures = s->pictures || l->options.nsteps > 0;
  if (pictures) DLUA_TRY(fill_pictures(l, batch, m));
  for (int k = pictures ? 1 : 0; k < s->nfields; k++) DLUA_TRY(fill_rows(l, batch, k));
  batch->count = s->nfields;
  return DLUA_OK;
}

static dlua_status make_batch(dlua_loader *l, int64_t number, maker *m, dlua_batch *batch) {
  int64_t first = number * l->options.batch, left = l->dataset->count - first;
  *batch = (dlua_batch){.first = first, .size = left < l->options.batch ? left : l->options.batch};
  dlua_status status = fill_fields(l, batch, m);
  if (status != DLUA_OK) release_batch(batch);
  return status;
}

// ---------------------------------------------------------------- workers

static bool may_begin(const dlua_loader *l) {
  return l->begun < l->batches && l->begun < l->taken + l->size;
}

static void store(dlua_loader *l, int64_t number, dlua_status status, const dlua_batch *batch) {
  place *p = &l->ring[number % l->size];
  p->batch = *batch, p->status = status;
  if (status != DLUA_OK) snprintf(p->message, sizeof p->message, "%s", dlua_message());
  p->ready = true;
  pthread_cond_signal(&l->made);
}

static void *work(void *argument) {
  dlua_loader *l = argument;
  maker m = {0};
  dlua_unbind_thread();
  pthread_mutex_lock(&l->lock);
  while (!l->stop && l->begun < l->batches) {
    if (!may_begin(l)) {
      pthread_cond_wait(&l->room, &l->lock);
      continue;
    }
    int64_t number = l->begun++;
    pthread_mutex_unlock(&l->lock);
    dlua_batch batch;
    dlua_status status = make_batch(l, number, &m, &batch);
    pthread_mutex_lock(&l->lock);
    store(l, number, status, &batch);
  }
  pthread_mutex_unlock(&l->lock);
  free_maker(&m);
  dlua_thread_done();
  return NULL;
}

// Ends the epoch: workers finish the example they are at, finished batches are dropped.
static void stop(dlua_loader *l) {
  pthread_mutex_lock(&l->lock);
  l->stop = true;
  pthread_cond_broadcast(&l->room);
  pthread_mutex_unlock(&l->lock);
  for (int k = 0; k < l->threads; k++) pthread_join(l->thread[k], NULL);
  for (int64_t k = 0; k < l->size; k++) {
    release_batch(&l->ring[k].batch);
    l->ring[k].ready = false;
  }
  l->threads = 0, l->running = false, l->ended = now();
}

// Signals stay with the main thread. If the system gives no thread at all, batches are made by the
// thread that takes them.
static void start_workers(dlua_loader *l) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  while (l->threads < l->options.workers && l->threads < l->batches) {
    if (pthread_create(&l->thread[l->threads], NULL, work, l) != 0) break;
    l->threads++;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

// ---------------------------------------------------------------- from outside

static dlua_status set_up(dlua_loader *l) {
  const dlua_loader_options *o = &l->options;
  l->size = o->workers > 0 ? (int64_t)o->workers * (o->ahead > 0 ? o->ahead : 1) : 1;
  l->ring = dlua_new((size_t)l->size * sizeof *l->ring);
  l->order = l->ring ? dlua_new((size_t)(l->dataset->count + 1) * sizeof *l->order) : NULL;
  l->steps = l->order ? dlua_new((size_t)(o->nsteps + 1) * sizeof *l->steps) : NULL;
  if (!l->steps) return DLUA_NO_MEMORY;
  if (o->nsteps > 0) memcpy(l->steps, o->steps, (size_t)o->nsteps * sizeof *l->steps);
  int64_t n = l->dataset->count;
  l->batches = o->drop_last ? n / o->batch : n / o->batch + (n % o->batch != 0);
  return DLUA_OK;
}

dlua_status dlua_loader_new(dlua_loader **loader, dlua_dataset *dataset,
                            const dlua_loader_options *options) {
  dlua_loader *l = dlua_new(sizeof *l);
  if (!l) return DLUA_NO_MEMORY;
  l->options = *options;
  if (l->options.workers > MOST_WORKERS) l->options.workers = MOST_WORKERS;
  l->dataset = dlua_dataset_retain(dataset);
  pthread_mutex_init(&l->lock, NULL);
  pthread_cond_init(&l->made, NULL);
  pthread_cond_init(&l->room, NULL);
  dlua_status status = set_up(l);
  if (status == DLUA_OK) {
    *loader = l;
  } else {
    dlua_loader_free(l);
  }
  return status;
}

void dlua_loader_free(dlua_loader *l) {
  if (!l) return;
  if (l->running) stop(l);
  free_maker(&l->own);
  if (l->steps) dlua_delete(l->steps, (size_t)(l->options.nsteps + 1) * sizeof *l->steps);
  if (l->order) dlua_delete(l->order, (size_t)(l->dataset->count + 1) * sizeof *l->order);
  if (l->ring) dlua_delete(l->ring, (size_t)l->size * sizeof *l->ring);
  pthread_mutex_destroy(&l->lock);
  pthread_cond_destroy(&l->made);
  pthread_cond_destroy(&l->room);
  dlua_dataset_release(l->dataset);
  dlua_delete(l, sizeof *l);
}

int64_t dlua_loader_batches(const dlua_loader *l) { return l->batches; }

int64_t dlua_loader_examples(const dlua_loader *l) { return l->dataset->count; }
int dlua_loader_fields(const dlua_loader *l) { return l->dataset->source->nfields; }

int64_t dlua_loader_example(const dlua_loader *l, int64_t i) { return l->order[i]; }

dlua_status dlua_loader_start(dlua_loader *l, uint32_t epoch) {
  if (l->running) stop(l);
  if (l->batches == 0) {
    return dlua_fail(DLUA_BAD_ARGUMENT,
                     "DataLoader: %lld examples make no whole batch of %lld (drop_last)",
                     (long long)l->dataset->count, (long long)l->options.batch);
  }
  if (l->options.shuffle) {
    dlua_permutation(l->options.key, epoch, l->dataset->count, l->order);
  } else {
    for (int64_t i = 0; i < l->dataset->count; i++) l->order[i] = i;
  }
  l->epoch = epoch, l->begun = l->taken = 0, l->running = true, l->again = false;
  l->began = now(), l->waited = 0;
  atomic_store(&l->stop, false);
  start_workers(l);
  return DLUA_OK;
}

// Waits for the batch whose turn it is.
static dlua_status take(dlua_loader *l, dlua_batch *batch) {
  pthread_mutex_lock(&l->lock);
  place *p = &l->ring[l->taken % l->size];
  while (!p->ready) pthread_cond_wait(&l->made, &l->lock);
  dlua_status status = p->status;
  *batch = p->batch;
  p->batch = (dlua_batch){0}, p->ready = false;
  if (status != DLUA_OK) dlua_fail(status, "%s", p->message);
  l->taken++;
  pthread_cond_broadcast(&l->room);
  pthread_mutex_unlock(&l->lock);
  return status;
}

dlua_status dlua_loader_next(dlua_loader *l, dlua_batch *batch) {
  *batch = (dlua_batch){0};
  if (!l->running || (l->taken >= l->batches && !l->again)) {
    if (l->running) stop(l);
    return DLUA_OK;
  }
  double before = now();
  bool second = l->again;
  dlua_status status;
  if (second || l->threads == 0) {
    if (!second) l->taken++;
    status = make_batch(l, l->taken - 1, &l->own, batch);
  } else {
    status = take(l, batch);
  }
  l->waited += now() - before;
  l->again = status == DLUA_NO_MEMORY && !second;
  if (status != DLUA_OK && !l->again) stop(l);
  return status;
}

dlua_loader_stats dlua_loader_get_stats(const dlua_loader *l) {
  double elapsed = (l->running ? now() : l->ended) - l->began;
  return (dlua_loader_stats){.wait = elapsed > 0 ? l->waited / elapsed : 0,
                             .waited = l->waited,
                             .elapsed = elapsed,
                             .batches = l->taken};
}
