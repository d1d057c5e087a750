// dataset.h - examples kept out of the Lua heap: pictures or rows of tensors, their labels, and
// views of them by index.
//
//   dlua_dataset *train = NULL, *part = NULL;
//   DLUA_TRY(dlua_cifar_open("cifar-10-batches-bin", true, &train));        // io_data.h
//   DLUA_TRY(dlua_dataset_subset(train, index, 1000, &part));
//   … dlua_dataset_picture(part, 0, &decoder, &picture) …
//   dlua_dataset_release(part), dlua_dataset_release(train);
//
// A source holds what was read, once; a dataset is a source and a list of rows in it. Pictures of a
// folder are decoded when first asked for and kept, up to a limit, for later epochs. Everything
// here may be called from several threads at once.
#ifndef DLUA_DATASET_H
#define DLUA_DATASET_H

#include <pthread.h>
#include <stdatomic.h>

#include "file.h"

#define DLUA_MAX_FIELDS 8

// One picture {c,h,w}: uint8_t or float values, borrowed.
typedef struct dlua_picture {
  dlua_dtype dtype;
  int64_t c, h, w;
  const void *data;
} dlua_picture;

static inline int64_t dlua_picture_count(const dlua_picture *p) { return p->c * p->h * p->w; }

// The decoded pixels of a file.
typedef struct dlua_pixels {
  int64_t h, w;
  uint8_t pixels[];
} dlua_pixels;

// A picture on the disk, and its pixels once they have been decoded.
typedef struct dlua_slot {
  char *path;
  _Atomic(dlua_pixels *) kept;
} dlua_slot;

// One part of every example. Field 0 of a source of pictures has no rows: it is made of slots or of
// equally spaced pictures.
typedef struct dlua_field {
  dlua_tensor *rows; // contiguous {n,…} on the CPU; row i belongs to example i
} dlua_field;

typedef struct dlua_source {
  atomic_int refs;
  int64_t count;
  int nfields;
  dlua_field field[DLUA_MAX_FIELDS];
  bool pictures;    // field 0 is pictures of channels values per pixel
  int channels;     // 1, 3 or 4
  dlua_slot *slots; // pictures in files, or NULL
  dlua_bytes block; // or all in one block: picture i at first + i * spacing
  size_t first, spacing;
  int64_t h, w;       // of all pictures in the block
  atomic_size_t kept; // bytes of decoded pictures
  size_t keep_limit;
  int nclasses;
  char **classes;
} dlua_source;

typedef struct dlua_dataset {
  atomic_int refs;
  dlua_source *source;
  int64_t count;
  int64_t *index; // rows of the source, 0-based; NULL: all
} dlua_dataset;

// What a thread that decodes needs: used again from picture to picture.
typedef struct dlua_decoder {
  dlua_bytes file, rows, pixels;
} dlua_decoder;

void dlua_decoder_free(dlua_decoder *decoder);

// An empty source of count examples; caller owns the result.
dlua_status dlua_source_new(int64_t count, dlua_source **source);
void dlua_source_release(dlua_source *source); // NULL is fine
// Sets the names of the classes, copied.
dlua_status dlua_source_classes(dlua_source *source, int n, const char *const *names);

// All of a source; takes over the caller's reference, also on failure. Caller owns the result.
dlua_status dlua_dataset_new(dlua_source *source, dlua_dataset **dataset);
// Rows of a tensor per example; every tensor is {n,…}. Caller owns the result.
dlua_status dlua_dataset_tensors(int n, dlua_tensor *const *tensors, dlua_dataset **dataset);
// The examples index[0..count) of dataset, 1-based; caller owns the result.
dlua_status dlua_dataset_subset(const dlua_dataset *dataset, const int64_t *index, int64_t count,
                                dlua_dataset **subset);
dlua_dataset *dlua_dataset_retain(dlua_dataset *dataset); // dataset, one more reference
void dlua_dataset_release(dlua_dataset *dataset);         // NULL is fine

// The row of the source that example i (from 0) is.
static inline int64_t dlua_dataset_row(const dlua_dataset *dataset, int64_t i) {
  return dataset->index ? dataset->index[i] : i;
}
// Picture i of a dataset of pictures; valid until the decoder is used again.
dlua_status dlua_dataset_picture(const dlua_dataset *dataset, int64_t i, dlua_decoder *decoder,
                                 dlua_picture *picture);
// All pictures as one u8 tensor {n,c,h,w}, row i being example i; caller owns the result. NULL where
// they differ in size, take more than `most` bytes, or one cannot be read.
dlua_status dlua_dataset_pictures(const dlua_dataset *dataset, size_t most, dlua_tensor **x);
// A field of rows in the same way, shared with the source where the dataset is all of it.
dlua_status dlua_dataset_rows(const dlua_dataset *dataset, int field, dlua_tensor **x);
// A number that changes when a tensor of rows is written to.
uint64_t dlua_dataset_stamp(const dlua_dataset *dataset);
// Mean and standard deviation per channel on the scale 0..1 over all pixels; exact sums, so the
// result does not depend on threads. mean and std have room for 4.
dlua_status dlua_dataset_statistics(const dlua_dataset *dataset, double *mean, double *std);

#endif
