// Every allocation of a program fails once: a clean error, nothing left in use, and the next run
// works.
#include "program.h"

SPEC(every_allocation_may_fail) {
  CHECK_OK(program(dlua_cpu(), NULL));
  uint64_t before = dlua_allocation_count();
  CHECK_OK(program(dlua_cpu(), NULL));
  uint64_t total = dlua_allocation_count() - before;
  CHECK(total > 50);
  size_t live = dlua_live_bytes();
  int wrong = 0;
  for (uint64_t n = 1; n <= total; n++) {
    dlua_fail_allocation(n, false);
    dlua_status status = program(dlua_cpu(), NULL);
    dlua_fail_allocation(0, false);
    bool clean =
        status == DLUA_NO_MEMORY && strstr(dlua_message(), "memory") && dlua_live_bytes() == live;
    if (!clean)
      printf("  allocation %llu: status %d, %s\n", (unsigned long long)n, status, dlua_message());
    wrong += !clean;
  }
  CHECK(wrong == 0);
  CHECK_OK(program(dlua_cpu(), NULL));
}

// One call of an op with a bad index or an injected failure leaves its target as it was.
SPEC(a_failed_call_changes_nothing) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = count_up(&s, DLUA_F32, 1, 1, SIZES(2, 2)), *index = VECTOR(&s, DLUA_I32, 1, 2);
  for (uint64_t n = 1; n <= 3; n++) {
    dlua_args a;
    dlua_args_init(&a, &dlua_op_index_copy);
    a.inplace = true, a.in[0] = x, a.in[1] = index, a.in[2] = x;
    a.num[0].set = true, a.num[0].i = 0;
    dlua_fail_allocation(n, false);
    CHECK(dlua_run(&a) == DLUA_NO_MEMORY);
    dlua_fail_allocation(0, false);
    CHECK(HOLDS(x, 1, 2, 3, 4) && a.out[0] == NULL);
  }
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(every_allocation_may_fail);
  RUN(a_failed_call_changes_nothing);
  return finish();
}
