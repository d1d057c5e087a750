// dataset.c - sources, views and their statistics. Refused: a Lua table per example; 60 000 of them
// make every collection slow.
#include "dataset.h"

#include <math.h>
#include <string.h>

#include "../parallel.h"
#include "io_png.h"

// ---------------------------------------------------------------- sources

dlua_status dlua_source_new(int64_t count, dlua_source **source) {
  dlua_source *s = dlua_new(sizeof *s);
  if (!s) return DLUA_NO_MEMORY;
  atomic_init(&s->refs, 1);
  s->count = count;
  s->keep_limit = (size_t)4 << 30;
  *source = s;
  return DLUA_OK;
}

static size_t kept_bytes(const dlua_source *s, int64_t h, int64_t w) {
  return sizeof(dlua_pixels) + (size_t)(s->channels * h * w);
}

static void free_slots(dlua_source *s) {
  for (int64_t i = 0; s->slots && i < s->count; i++) {
    dlua_pixels *kept = atomic_load(&s->slots[i].kept);
    if (kept) dlua_free(dlua_cpu(), kept, kept_bytes(s, kept->h, kept->w));
    dlua_delete_block(s->slots[i].path);
  }
  dlua_delete(s->slots, (size_t)s->count * sizeof *s->slots);
}

void dlua_source_release(dlua_source *s) {
  if (!s || atomic_fetch_sub(&s->refs, 1) > 1) return;
  if (s->slots) free_slots(s);
  for (int k = 0; k < s->nfields; k++) dlua_tensor_release(s->field[k].rows);
  dlua_bytes_free(&s->block);
  for (int k = 0; k < s->nclasses; k++) dlua_delete_block(s->classes[k]);
  dlua_delete_block(s->classes);
  dlua_delete(s, sizeof *s);
}

dlua_status dlua_source_classes(dlua_source *s, int n, const char *const *names) {
  s->classes = dlua_new_block((size_t)n * sizeof *s->classes);
  if (!s->classes) return DLUA_NO_MEMORY;
  while (s->nclasses < n) {
    char *name = dlua_new_text(names[s->nclasses]);
    if (!name) return DLUA_NO_MEMORY;
    s->classes[s->nclasses++] = name;
  }
  return DLUA_OK;
}

// ---------------------------------------------------------------- views

dlua_status dlua_dataset_new(dlua_source *source, dlua_dataset **dataset) {
  dlua_dataset *d = dlua_new(sizeof *d);
  if (!d) {
    dlua_source_release(source);
    return DLUA_NO_MEMORY;
  }
  atomic_init(&d->refs, 1);
  d->source = source, d->count = source->count;
  *dataset = d;
  return DLUA_OK;
}

dlua_status dlua_dataset_tensors(int n, dlua_tensor *const *tensors, dlua_dataset **dataset) {
  dlua_source *s = NULL;
  for (int k = 0; k < n; k++) {
    if (tensors[k]->ndim == 0 || tensors[k]->size[0] != tensors[0]->size[0]) {
      return dlua_fail(DLUA_BAD_ARGUMENT,
                       "TensorDataset: dimension 1 must be the same in all tensors (tensor 1 %s, "
                       "tensor %d %s)",
                       dlua_shape_text(tensors[0]), k + 1, dlua_shape_text(tensors[k]));
    }
  }
  DLUA_TRY(dlua_source_new(tensors[0]->size[0], &s));
  for (int k = 0; k < n; k++) {
    dlua_tensor *host = NULL;
    dlua_status status = dlua_to_device(tensors[k], dlua_cpu(), &host);
    if (status == DLUA_OK) status = dlua_contiguous(host, &s->field[k].rows);
    dlua_tensor_release(host);
    if (status != DLUA_OK) {
      dlua_source_release(s);
      return status;
    }
    s->nfields = k + 1;
  }
  return dlua_dataset_new(s, dataset);
}

dlua_status dlua_dataset_subset(const dlua_dataset *dataset, const int64_t *index, int64_t count,
                                dlua_dataset **subset) {
  for (int64_t k = 0; k < count; k++) {
    if (index[k] < 1 || index[k] > dataset->count) {
      return dlua_fail(DLUA_BAD_ARGUMENT,
                       "data.subset: index %lld at position %lld is outside 1..%lld",
                       (long long)index[k], (long long)k + 1, (long long)dataset->count);
    }
  }
  dlua_dataset *d = dlua_new(sizeof *d);
  if (!d) return DLUA_NO_MEMORY;
  d->index = dlua_new((size_t)(count > 0 ? count : 1) * sizeof *d->index);
  if (!d->index) {
    dlua_delete(d, sizeof *d);
    return DLUA_NO_MEMORY;
  }
  for (int64_t k = 0; k < count; k++) d->index[k] = dlua_dataset_row(dataset, index[k] - 1);
  atomic_init(&d->refs, 1);
  d->source = dataset->source, d->count = count;
  atomic_fetch_add(&d->source->refs, 1);
  *subset = d;
  return DLUA_OK;
}

dlua_dataset *dlua_dataset_retain(dlua_dataset *d) {
  atomic_fetch_add(&d->refs, 1);
  return d;
}

void dlua_dataset_release(dlua_dataset *d) {
  if (!d || atomic_fetch_sub(&d->refs, 1) > 1) return;
  if (d->index) dlua_delete(d->index, (size_t)(d->count > 0 ? d->count : 1) * sizeof *d->index);
  dlua_source_release(d->source);
  dlua_delete(d, sizeof *d);
}

// ---------------------------------------------------------------- pictures

void dlua_decoder_free(dlua_decoder *decoder) {
  dlua_bytes_free(&decoder->file);
  dlua_bytes_free(&decoder->rows);
  dlua_bytes_free(&decoder->pixels);
}

// Decodes a file into the decoder's own pixels.
static dlua_status decode(const dlua_source *s, const char *path, dlua_decoder *decoder,
                          dlua_picture *picture) {
  dlua_png png;
  DLUA_TRY(dlua_file_read(path, (size_t)1 << 30, &decoder->file));
  DLUA_TRY(dlua_png_open(&png, path, decoder->file.data, decoder->file.size, s->channels, false));
  *picture = (dlua_picture){.dtype = DLUA_U8, .c = png.channels, .h = png.height, .w = png.width};
  dlua_status status = dlua_bytes_reserve(&decoder->pixels, (size_t)dlua_picture_count(picture));
  if (status == DLUA_OK) status = dlua_png_read(&png, decoder->pixels.data, &decoder->rows);
  dlua_png_close(&png);
  picture->data = decoder->pixels.data;
  return status;
}

// Keeps a copy of a decoded picture for later epochs, unless that would pass the limit. When two
// threads decode the same picture, the slower one's copy is dropped.
static dlua_status keep(dlua_source *s, dlua_slot *slot, dlua_picture *picture) {
  size_t bytes = kept_bytes(s, picture->h, picture->w);
  dlua_pixels *copy = NULL, *other = NULL;
  if (atomic_fetch_add(&s->kept, bytes) + bytes > s->keep_limit) {
    atomic_fetch_sub(&s->kept, bytes);
    return DLUA_OK;
  }
  dlua_status status = dlua_alloc(dlua_cpu(), bytes, (void **)&copy);
  if (status == DLUA_OK) {
    copy->h = picture->h, copy->w = picture->w;
    memcpy(copy->pixels, picture->data, (size_t)dlua_picture_count(picture));
    if (atomic_compare_exchange_strong(&slot->kept, &other, copy)) {
      picture->data = copy->pixels;
      return DLUA_OK;
    }
    dlua_free(dlua_cpu(), copy, bytes);
  }
  atomic_fetch_sub(
      &s->kept,
      bytes); // another thread was first, or there is no room: the picture is decoded again
  return DLUA_OK;
}

dlua_status dlua_dataset_picture(const dlua_dataset *dataset, int64_t i, dlua_decoder *decoder,
                                 dlua_picture *picture) {
  dlua_source *s = dataset->source;
  int64_t row = dlua_dataset_row(dataset, i);
  if (!s->slots) {
    const uint8_t *data = s->block.data + s->first + (size_t)row * s->spacing;
    *picture =
        (dlua_picture){.dtype = DLUA_U8, .c = s->channels, .h = s->h, .w = s->w, .data = data};
    return DLUA_OK;
  }
  dlua_slot *slot = &s->slots[row];
  const dlua_pixels *kept = atomic_load(&slot->kept);
  if (kept) {
    *picture = (dlua_picture){
        .dtype = DLUA_U8, .c = s->channels, .h = kept->h, .w = kept->w, .data = kept->pixels};
    return DLUA_OK;
  }
  DLUA_TRY(decode(s, slot->path, decoder, picture));
  return keep(s, slot, picture);
}

// ---------------------------------------------------------------- all of a data set as tensors

typedef struct gathering {
  const dlua_dataset *dataset;
  const dlua_tensor *x;
  atomic_bool failed;  // a picture differs in size or cannot be read
  atomic_bool starved; // or there was no memory to read it
} gathering;

static void gather_slice(void *context, int64_t from, int64_t to) {
  gathering *g = context;
  const int64_t *size = g->x->size + 1;
  size_t bytes = (size_t)(size[0] * size[1] * size[2]);
  dlua_decoder decoder = {0};
  for (int64_t i = from; i < to && !atomic_load_explicit(&g->failed, memory_order_relaxed); i++) {
    dlua_picture p;
    dlua_status status = dlua_dataset_picture(g->dataset, i, &decoder, &p);
    if (status == DLUA_NO_MEMORY) {
      atomic_store(&g->starved, true);
      break;
    }
    if (status != DLUA_OK || p.c != size[0] || p.h != size[1] || p.w != size[2])
      atomic_store(&g->failed, true);
    else
      memcpy((uint8_t *)dlua_data(g->x) + (size_t)i * bytes, p.data, bytes);
  }
  dlua_decoder_free(&decoder);
}

dlua_status dlua_dataset_pictures(const dlua_dataset *dataset, size_t most, dlua_tensor **x) {
  dlua_decoder decoder = {0};
  dlua_picture first;
  *x = NULL;
  if (dataset->count == 0) return DLUA_OK;
  dlua_status status = dlua_dataset_picture(dataset, 0, &decoder, &first);
  dlua_decoder_free(&decoder);
  if (status != DLUA_OK) return status == DLUA_NO_MEMORY ? status : DLUA_OK;
  size_t bytes;
  if (__builtin_mul_overflow((size_t)dataset->count, (size_t)dlua_picture_count(&first), &bytes) ||
      bytes > most) {
    return DLUA_OK;
  }
  gathering g = {.dataset = dataset};
  dlua_tensor *all = NULL;
  int64_t size[4] = {dataset->count, first.c, first.h, first.w};
  DLUA_TRY(dlua_tensor_new(&all, DLUA_U8, 4, size, dlua_cpu()));
  g.x = all;
  dlua_parallel(dataset->count, 1e4, gather_slice, &g);
  if (g.starved && !g.failed) { // threads of the team collect no garbage; this one does
    g.starved = false;
    gather_slice(&g, 0, dataset->count);
  }
  if (g.starved || g.failed)
    dlua_tensor_release(all);
  else
    *x = all;
  return g.starved && !g.failed ? DLUA_NO_MEMORY : DLUA_OK;
}

dlua_status dlua_dataset_rows(const dlua_dataset *dataset, int field, dlua_tensor **x) {
  dlua_tensor *rows = dataset->source->field[field].rows;
  if (!dataset->index) return *x = dlua_tensor_retain(rows), DLUA_OK;
  int64_t size[DLUA_MAX_DIMS];
  memcpy(size, rows->size, sizeof size);
  size[0] = dataset->count;
  DLUA_TRY(dlua_tensor_new(x, (dlua_dtype)rows->dtype, rows->ndim, size, dlua_cpu()));
  size_t bytes = dlua_dtype_size((dlua_dtype)rows->dtype);
  for (int d = 1; d < rows->ndim; d++) bytes *= (size_t)rows->size[d];
  for (int64_t k = 0; k < dataset->count; k++) {
    memcpy((char *)dlua_data(*x) + (size_t)k * bytes,
           (const char *)dlua_data(rows) + (size_t)dataset->index[k] * bytes, bytes);
  }
  return DLUA_OK;
}

uint64_t dlua_dataset_stamp(const dlua_dataset *dataset) {
  uint64_t stamp = 0;
  const dlua_source *s = dataset->source;
  for (int k = 0; k < s->nfields; k++)
    if (s->field[k].rows) stamp += s->field[k].rows->storage->version;
  return stamp;
}

// ---------------------------------------------------------------- statistics

typedef struct sums {
  const dlua_dataset *dataset;
  pthread_mutex_t lock;
  uint64_t sum[4], squares[4], pixels;
  dlua_status status;
  char message[512];
} sums;

static void add_picture(const dlua_picture *p, uint64_t *sum, uint64_t *squares) {
  int64_t plane = p->h * p->w;
  for (int64_t c = 0; c < p->c; c++) {
    const uint8_t *data = (const uint8_t *)p->data + c * plane;
    for (int64_t from = 0; from < plane; from += 1 << 15) { // 2^15 squares fit 32 bits
      int64_t to = from + (1 << 15) < plane ? from + (1 << 15) : plane;
      uint32_t total = 0, square = 0;
      for (int64_t k = from; k < to; k++) {
        uint32_t v = data[k];
        total += v, square += v * v;
      }
      sum[c] += total, squares[c] += square;
    }
  }
}

static void sum_slice(void *context, int64_t from, int64_t to) {
  sums *all = context;
  dlua_decoder decoder = {0};
  uint64_t sum[4] = {0}, squares[4] = {0}, pixels = 0;
  dlua_status status = DLUA_OK;
  for (int64_t i = from; i < to && status == DLUA_OK; i++) {
    dlua_picture picture;
    status = dlua_dataset_picture(all->dataset, i, &decoder, &picture);
    if (status != DLUA_OK) break;
    add_picture(&picture, sum, squares);
    pixels += (uint64_t)(picture.h * picture.w);
  }
  dlua_decoder_free(&decoder);
  pthread_mutex_lock(&all->lock);
  for (int c = 0; c < 4; c++) all->sum[c] += sum[c], all->squares[c] += squares[c];
  all->pixels += pixels;
  if (status != DLUA_OK && all->status == DLUA_OK) {
    all->status = status;
    strncpy(all->message, dlua_message(), sizeof all->message - 1);
  }
  pthread_mutex_unlock(&all->lock);
}

dlua_status dlua_dataset_statistics(const dlua_dataset *dataset, double *mean, double *std) {
  sums all = {.dataset = dataset, .lock = PTHREAD_MUTEX_INITIALIZER};
  dlua_parallel(dataset->count, 1e4, sum_slice, &all);
  if (all.status == DLUA_NO_MEMORY) { // as above
    all = (sums){.dataset = dataset, .lock = PTHREAD_MUTEX_INITIALIZER};
    sum_slice(&all, 0, dataset->count);
  }
  if (all.status != DLUA_OK) return dlua_fail(all.status, "%s", all.message);
  for (int c = 0; c < dataset->source->channels; c++) {
    double n = all.pixels > 0 ? (double)all.pixels : 1, m = (double)all.sum[c] / n;
    double variance = (double)all.squares[c] / n - m * m;
    mean[c] = m / 255, std[c] = sqrt(variance > 0 ? variance : 0) / 255;
  }
  return DLUA_OK;
}
