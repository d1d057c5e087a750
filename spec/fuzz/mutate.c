// mutate.c - the damage: what bad disks, bad programs and bad people do to files.
#include <stdio.h>
#include <string.h>

#include "../../runtime/rng.h"
#include "fuzz.h"

// Draws of one iteration, in order.
typedef struct draws {
  uint64_t seed, iteration;
  uint32_t count;
} draws;

uint64_t fuzz_draw(uint64_t seed, uint64_t iteration, uint32_t purpose, uint64_t limit) {
  dlua_block b = dlua_philox(seed, purpose, iteration, 0);
  uint64_t bits = (uint64_t)b.lane[0] << 32 | b.lane[1];
  return limit > 0 ? bits % limit : bits;
}

static uint64_t draw(draws *d, uint64_t limit) {
  dlua_block b = dlua_philox(d->seed, 9, d->iteration, ++d->count);
  uint64_t bits = (uint64_t)b.lane[0] << 32 | b.lane[1];
  return limit > 0 ? bits % limit : bits;
}

// Numbers that sizes and offsets go wrong with.
// clang-format off
static const uint64_t extremes[] = {
    0, 1, 2, 7, 9, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 0x7fffffff, 0x80000000,
    0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};
// clang-format on

static void put_number(uint8_t *at, int width, uint64_t value, bool big) {
  for (int k = 0; k < width; k++) at[big ? width - 1 - k : k] = (uint8_t)(value >> (8 * k));
}

static void set_number(dlua_bytes *x, draws *d) {
  int width = 1 << draw(d, 4);
  uint64_t value = extremes[draw(d, sizeof extremes / sizeof *extremes)];
  if (x->size < (size_t)width) return;
  put_number(x->data + draw(d, x->size - (size_t)width + 1), width, value, draw(d, 2));
}

static void flip_bit(dlua_bytes *x, draws *d) {
  x->data[draw(d, x->size)] ^= (uint8_t)(1u << draw(d, 8));
}

static void add_to_byte(dlua_bytes *x, draws *d) {
  x->data[draw(d, x->size)] += (uint8_t)(draw(d, 33) - 16);
}

static void set_byte(dlua_bytes *x, draws *d) { x->data[draw(d, x->size)] = (uint8_t)draw(d, 256); }

static void cut_end(dlua_bytes *x, draws *d) { x->size = draw(d, x->size + 1); }

static void cut_out(dlua_bytes *x, draws *d) {
  size_t at = draw(d, x->size), n = draw(d, x->size - at + 1);
  if (draw(d, 2)) n %= 9;
  memmove(x->data + at, x->data + at + n, x->size - at - n);
  x->size -= n;
}

// Puts n bytes in at a place; too much for the buffer is left out.
static void put_in(dlua_bytes *x, size_t at, const uint8_t *from, size_t n) {
  if (x->size + n > FUZZ_MOST) return;
  memmove(x->data + at + n, x->data + at, x->size - at);
  memcpy(x->data + at, from, n);
  x->size += n;
}

static void repeat_part(dlua_bytes *x, draws *d) {
  uint8_t part[256];
  size_t from = draw(d, x->size), n = draw(d, sizeof part);
  if (n > x->size - from) n = x->size - from;
  memcpy(part, x->data + from, n);
  put_in(x, draw(d, x->size + 1), part, n);
}

static void take_from(dlua_bytes *x, const dlua_bytes *other, draws *d) {
  if (other->size == 0) return;
  size_t from = draw(d, other->size), n = draw(d, other->size - from) + 1, at = draw(d, x->size);
  if (draw(d, 2)) {
    put_in(x, at, other->data + from, n);
  } else {
    if (n > x->size - at) n = x->size - at;
    memcpy(x->data + at, other->data + from, n);
  }
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

// Another number in the place of one that is written in digits.
static void rewrite_digits(dlua_bytes *x, draws *d) {
  size_t at = draw(d, x->size), end;
  while (at < x->size && !is_digit(x->data[at])) at++;
  for (end = at; end < x->size && is_digit(x->data[end]);) end++;
  if (at == end) return;
  char text[24];
  uint64_t value = extremes[draw(d, sizeof extremes / sizeof *extremes)];
  int n = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
  memmove(x->data + at, x->data + end, x->size - end);
  x->size -= end - at;
  put_in(x, at, (const uint8_t *)text, (size_t)n);
}

static void mutate_once(dlua_bytes *x, const dlua_bytes *other, draws *d) {
  static void (*const ways[])(dlua_bytes *, draws *) = {
      flip_bit, set_byte,    add_to_byte,    set_number, set_number, rewrite_digits,
      cut_out,  repeat_part, rewrite_digits, flip_bit,   cut_end};
  size_t n = sizeof ways / sizeof *ways, way = draw(d, n + 1);
  if (x->size == 0) return;
  if (way == n)
    take_from(x, other, d);
  else
    ways[way](x, d);
}

void fuzz_mutate(dlua_bytes *input, const dlua_bytes *other, uint64_t seed, uint64_t iteration) {
  draws d = {seed, iteration, 0};
  int times = 1 << draw(&d, 4);
  for (int k = 0; k < times; k++) mutate_once(input, other, &d);
}
