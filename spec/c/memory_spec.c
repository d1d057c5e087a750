// Messages, dtypes and the allocator.
#include <pthread.h>

#include "check.h"

SPEC(messages_are_one_line_and_kept) {
  CHECK_FAILS(dlua_fail(DLUA_BAD_FILE, "load: %s at offset %d", "a.png", 7),
              "load: a.png at offset 7");
  CHECK(dlua_fail(DLUA_BAD_DEVICE, "x") == DLUA_BAD_DEVICE);
  char text[3000];
  memset(text, 'a', sizeof text - 1), text[sizeof text - 1] = 0;
  dlua_fail(DLUA_BAD_FILE, "%s", text);
  CHECK(strlen(dlua_message()) == 1023);
  CHECK_FAILS(dlua_fail(DLUA_BAD_FILE, "again: %s", dlua_message()), "again: aaa");
}

SPEC(dtypes_have_names_and_sizes) {
  static const char *const names[] = {"f32", "f64", "bf16", "f16", "i64", "i32", "u8", "bool"};
  static const size_t sizes[] = {4, 8, 2, 2, 8, 4, 1, 1};
  dlua_dtype dtype;
  for (int k = 0; k < DLUA_DTYPES; k++) {
    CHECK(strcmp(dlua_dtype_name((dlua_dtype)k), names[k]) == 0);
    CHECK(dlua_dtype_size((dlua_dtype)k) == sizes[k]);
    CHECK_OK(dlua_dtype_find(names[k], &dtype));
    CHECK((int)dtype == k);
  }
  CHECK_FAILS(dlua_dtype_find("f31", &dtype), "f32");
}

SPEC(promotion_is_a_lattice) {
  CHECK(dlua_promote(DLUA_BF16, DLUA_F16) == DLUA_F32);
  CHECK(dlua_promote(DLUA_I64, DLUA_BF16) == DLUA_BF16);
  CHECK(dlua_promote(DLUA_BOOL, DLUA_U8) == DLUA_U8);
  CHECK(dlua_promote(DLUA_F32, DLUA_F64) == DLUA_F64);
  for (int a = 0; a < DLUA_DTYPES; a++)
    for (int b = 0; b < DLUA_DTYPES; b++)
      CHECK(dlua_promote((dlua_dtype)a, (dlua_dtype)b) ==
            dlua_promote((dlua_dtype)b, (dlua_dtype)a));
}

static uint16_t bits_of(float value, dlua_dtype dtype) {
  dlua_tensor *x = NULL, *y = NULL;
  uint16_t bits = 0;
  if (!CHECK_OK(dlua_tensor_new(&x, DLUA_F32, 0, NULL, dlua_cpu()))) return 0;
  *dlua_f32(x) = value;
  if (CHECK_OK(dlua_cast(x, dtype, &y))) memcpy(&bits, dlua_data(y), 2);
  dlua_tensor_release(x), dlua_tensor_release(y);
  return bits;
}

SPEC(half_floats_round_to_even) {
  static const struct {
    float value;
    uint16_t bf16, f16;
  } cases[] = {
      {0.0f, 0x0000, 0x0000},        {-0.0f, 0x8000, 0x8000},       {1.0f, 0x3f80, 0x3c00},
      {-2.0f, 0xc000, 0xc000},       {65504.0f, 0x4780, 0x7bff},    {65520.0f, 0x4780, 0x7c00},
      {INFINITY, 0x7f80, 0x7c00},    {1.00390625f, 0x3f80, 0x3c04}, // bf16: a tie, to even
      {1.01171875f, 0x3f82, 0x3c0c},                                // the next tie goes up
      {0x1p-24f, 0x3380, 0x0001},    {0x1p-25f, 0x3300, 0x0000},    // f16: half the smallest
      {0x1.8p-25f, 0x3340, 0x0001},  {0x1p-14f, 0x3880, 0x0400},    {3.4028235e38f, 0x7f80, 0x7c00},
  };
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    if (!CHECK(bits_of(cases[k].value, DLUA_BF16) == cases[k].bf16) ||
        !CHECK(bits_of(cases[k].value, DLUA_F16) == cases[k].f16)) {
      printf("  %a\n", (double)cases[k].value);
    }
  }
  CHECK((bits_of(NAN, DLUA_BF16) & 0x7fff) > 0x7f80);
  CHECK((bits_of(NAN, DLUA_F16) & 0x7fff) > 0x7c00);
}

SPEC(every_half_survives_the_way_to_f32_and_back) {
  static const dlua_dtype halves[] = {DLUA_BF16, DLUA_F16};
  for (int h = 0; h < 2; h++) {
    dlua_tensor *x = NULL, *wide = NULL, *back = NULL;
    if (!CHECK_OK(dlua_tensor_new(&x, halves[h], 1, (int64_t[]){65536}, dlua_cpu()))) return;
    uint16_t *bits = dlua_data(x);
    for (int k = 0; k < 65536; k++) bits[k] = (uint16_t)k;
    CHECK_OK(dlua_cast(x, DLUA_F32, &wide));
    CHECK_OK(dlua_cast(wide, halves[h], &back));
    int wrong = 0;
    for (int k = 0; k < 65536; k++)
      wrong += ((uint16_t *)dlua_data(back))[k] != bits[k] && !isnan(dlua_f32(wide)[k]);
    CHECK(wrong == 0);
    dlua_tensor_release(x), dlua_tensor_release(wide), dlua_tensor_release(back);
  }
}

SPEC(blocks_are_aligned_and_reused) {
  void *first = NULL, *second = NULL;
  dlua_memory before = dlua_memory_stats(dlua_cpu());
  CHECK_OK(dlua_alloc(dlua_cpu(), 100000, &first));
  CHECK((uintptr_t)first % 64 == 0);
  dlua_memory during = dlua_memory_stats(dlua_cpu());
  CHECK(during.live >= before.live + 100000 && during.peak >= during.live);
  dlua_free(dlua_cpu(), first, 100000);
  CHECK(dlua_memory_stats(dlua_cpu()).live == before.live);
  CHECK(dlua_memory_stats(dlua_cpu()).cached >= 100000);
  CHECK_OK(dlua_alloc(dlua_cpu(), 100000, &second));
  CHECK(second == first);
  CHECK(dlua_memory_stats(dlua_cpu()).system == during.system);
  dlua_free(dlua_cpu(), second, 100000);
  dlua_empty_cache(dlua_cpu());
  CHECK(dlua_memory_stats(dlua_cpu()).cached == 0);
}

SPEC(every_size_has_its_room) {
  enum { MOST = 400 };
  void *blocks[MOST];
  for (int k = 0; k < MOST; k++) {
    size_t bytes = (size_t)k * (size_t)k * 3;
    if (!CHECK_OK(dlua_alloc(dlua_cpu(), bytes, &blocks[k]))) return;
    memset(blocks[k], k, bytes);
  }
  int wrong = 0;
  for (int k = 0; k < MOST; k++) {
    size_t bytes = (size_t)k * (size_t)k * 3;
    for (size_t b = 0; b < bytes; b++) wrong += ((uint8_t *)blocks[k])[b] != (uint8_t)k;
    dlua_free(dlua_cpu(), blocks[k], bytes);
  }
  CHECK(wrong == 0);
}

SPEC(an_injected_failure_strikes_once) {
  void *block = NULL;
  dlua_fail_allocation(2, false);
  CHECK_OK(dlua_alloc(dlua_cpu(), 64, &block));
  dlua_free(dlua_cpu(), block, 64), block = NULL;
  CHECK_FAILS(dlua_alloc(dlua_cpu(), 64, &block), "out of memory");
  CHECK(block == NULL);
  CHECK_OK(dlua_alloc(dlua_cpu(), 64, &block));
  dlua_free(dlua_cpu(), block, 64);
  dlua_fail_allocation(0, false);
}

// More than any machine has, and yet a size.
#define TOO_MUCH ((size_t)1 << 45)

static int reclaimed;

// Allocates while memory is out, which must not lead back here.
static void count_reclaim(void) {
  void *block = NULL;
  reclaimed++;
  CHECK_FAILS(dlua_alloc(dlua_cpu(), TOO_MUCH, &block), "out of memory");
}

static void *fail_to_allocate(void *unused) {
  void *block = NULL;
  CHECK_FAILS(dlua_alloc(dlua_cpu(), TOO_MUCH, &block), "out of memory");
  CHECK(dlua_new(TOO_MUCH) == NULL);
  return unused;
}

SPEC(memory_is_reclaimed_once_on_the_thread_that_said_how) {
  pthread_t other;
  dlua_set_reclaim(count_reclaim);
  fail_to_allocate(NULL);
  CHECK(reclaimed == 2);
  CHECK(pthread_create(&other, NULL, fail_to_allocate, NULL) == 0);
  pthread_join(other, NULL);
  CHECK(reclaimed == 2);
  dlua_set_reclaim(NULL);
  fail_to_allocate(NULL);
  CHECK(reclaimed == 2 && !dlua_reclaim(dlua_cpu()));
}

SPEC(absurd_sizes_are_errors) {
  dlua_tensor *x = NULL;
  int64_t huge[] = {INT64_C(1) << 40, INT64_C(1) << 40};
  CHECK_FAILS(dlua_tensor_new(&x, DLUA_F32, 2, huge, dlua_cpu()), "too large");
  CHECK_FAILS(dlua_tensor_new(&x, DLUA_F32, 1, (int64_t[]){INT64_C(1) << 60}, dlua_cpu()), "");
  CHECK_FAILS(dlua_tensor_new(&x, DLUA_F32, 1, (int64_t[]){-1}, dlua_cpu()), "-1");
  CHECK_FAILS(dlua_tensor_new(&x, DLUA_F32, 9, (int64_t[9]){0}, dlua_cpu()), "9");
  CHECK(x == NULL);
}

int main(void) {
  RUN(messages_are_one_line_and_kept);
  RUN(dtypes_have_names_and_sizes);
  RUN(promotion_is_a_lattice);
  RUN(half_floats_round_to_even);
  RUN(every_half_survives_the_way_to_f32_and_back);
  RUN(blocks_are_aligned_and_reused);
  RUN(every_size_has_its_room);
  RUN(an_injected_failure_strikes_once);
  RUN(memory_is_reclaimed_once_on_the_thread_that_said_how);
  RUN(absurd_sizes_are_errors);
  return finish();
}
