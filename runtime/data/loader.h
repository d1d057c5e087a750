// loader.h - batches in order, made ahead of time by worker threads.
//
//   dlua_loader *loader = NULL;
//   DLUA_TRY(dlua_loader_new(&loader, dataset, &(dlua_loader_options){.batch = 128, …}));
//   DLUA_TRY(dlua_loader_start(loader, 1));                    // epoch 1
//   while (dlua_loader_next(loader, &batch) == DLUA_OK && batch.count > 0) …
//   dlua_loader_free(loader);
//
// Which examples make batch k, and what random transforms do to them, follows from the key, the
// epoch and the example alone: any number of workers, none included, gives the same bits. Workers
// never run kernels of the team.
#ifndef DLUA_LOADER_H
#define DLUA_LOADER_H

#include "transform.h"

typedef struct dlua_loader dlua_loader;

typedef struct dlua_loader_options {
  int64_t batch;               // examples per batch, at least 1
  bool shuffle;                // another order each epoch
  bool drop_last;              // leave out a last batch that is not whole
  int workers;                 // threads; 0: batches are made by whoever asks for them
  int ahead;                   // batches per worker that may wait finished, at least 1
  uint64_t key;                // of order and draws
  int nsteps;                  // transforms of field 1
  const dlua_transform *steps; // copied
} dlua_loader_options;

typedef struct dlua_batch {
  int count;                            // of tensors; 0: the epoch is over
  dlua_tensor *tensor[DLUA_MAX_FIELDS]; // the caller owns them
  int64_t first, size;                  // which examples of the epoch's order, from 0
} dlua_batch;

typedef struct dlua_loader_stats {
  double wait; // share of the time since the epoch began that was spent waiting for batches
  double waited, elapsed; // the same in seconds
  int64_t batches;        // handed out
} dlua_loader_stats;

// A loader over a dataset, which it keeps; caller owns the result.
dlua_status dlua_loader_new(dlua_loader **loader, dlua_dataset *dataset,
                            const dlua_loader_options *options);
void dlua_loader_free(dlua_loader *loader);              // stops the workers; NULL is fine
int64_t dlua_loader_batches(const dlua_loader *loader);  // per epoch
int64_t dlua_loader_examples(const dlua_loader *loader); // in the dataset
int dlua_loader_fields(const dlua_loader *loader);       // tensors of a batch
// Begins an epoch (1, 2, …) and ends the one that runs. Fails when there is no whole batch.
dlua_status dlua_loader_start(dlua_loader *loader, uint32_t epoch);
// The next batch, or one of count 0 at the end. A worker's failure comes back here, at its batch,
// and ends the epoch; but after DLUA_NO_MEMORY one more call makes that batch again.
dlua_status dlua_loader_next(dlua_loader *loader, dlua_batch *batch);
dlua_loader_stats dlua_loader_get_stats(const dlua_loader *loader);
// Example i of the running epoch's order: its position in the dataset, from 0.
int64_t dlua_loader_example(const dlua_loader *loader, int64_t i);

// Fills order with a permutation of 0..n-1 that follows from key and round alone.
void dlua_permutation(uint64_t key, uint64_t round, int64_t n, int64_t *order);
// Deals n examples to parts of count[0..parts), which add up to n at most: order[0..count[0]) are
// the first part's positions and so on, each part in rising order. With labels (1-based classes)
// every part gets each class in proportion.
dlua_status dlua_split(uint64_t key, int64_t n, const int64_t *labels, int parts,
                       const int64_t *count, int64_t *order);

#endif
