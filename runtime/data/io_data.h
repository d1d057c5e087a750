// io_data.h - data sets as they are published: CIFAR-10's binary files, MNIST's idx files, folders
// of PNG, tables as CSV.
//
//   dlua_dataset *train = NULL;
//   DLUA_TRY(dlua_cifar_open("cifar-10-batches-bin", true, &train));
//
// Every size is checked against the file before memory is taken; every failure names the file and
// the place in it. Class labels become 1-based here, and only here.
#ifndef DLUA_IO_DATA_H
#define DLUA_IO_DATA_H

#include "dataset.h"

// The six binary files of CIFAR-10 in folder; caller owns the result.
dlua_status dlua_cifar_open(const char *folder, bool train, dlua_dataset **dataset);
// MNIST's four idx files, plain or .gz; caller owns the result.
dlua_status dlua_mnist_open(const char *folder, bool train, dlua_dataset **dataset);
// Pictures in folder/CLASS/*.png: classes and files in byte order of their names. channels 1, 3
// or 4. Files are only listed here, and decoded when asked for. Caller owns the result.
dlua_status dlua_folder_open(const char *folder, int channels, dlua_dataset **dataset);
// One idx file, plain or .gz, of u8, i32, f32 or f64; caller owns the result.
dlua_status dlua_idx_read(const char *path, dlua_tensor **tensor);

// More columns than this are refused: each costs a hundred times the bytes that a cell may have.
#define DLUA_MAX_COLUMNS (1 << 15)

// A table as text, and a place in it.
typedef struct dlua_csv {
  dlua_bytes file, room; // room: for a cell whose doubled quotes were undone
  int64_t rows, columns; // rows without the header
  char delimiter;
  bool header; // names: the first row of cells
  size_t at;
  uint32_t line; // of the file, from 1
} dlua_csv;

typedef struct dlua_csv_field {
  const char *text; // borrowed until the next cell; not 0-terminated
  size_t size;
  uint32_t line;
} dlua_csv_field;

// Reads a table of at most 4 GiB. Every row must have as many cells as the first.
dlua_status dlua_csv_read(const char *path, char delimiter, bool header, dlua_csv *csv);
void dlua_csv_free(dlua_csv *csv);
// Cells row after row, the header's first: the next one, of which there must be one, and back to
// the start. Fails when memory runs out, with the place unspecified.
dlua_status dlua_csv_next(dlua_csv *csv, dlua_csv_field *cell);
void dlua_csv_rewind(dlua_csv *csv);
// The cell as a number: NaN when it is empty; false when it is neither.
bool dlua_csv_number(const dlua_csv_field *cell, double *value);

#endif
