// One thread and two give the same bits, and what the team binds stays within it.
#define _GNU_SOURCE
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../runtime/parallel.h"
#include "derivative.h"

static dlua_tensor *numbers(dlua_scope *s, int ndim, const int64_t *size) {
  dlua_tensor *x = count_up(s, DLUA_F32, 0, 0, ndim, size);
  uint32_t state = 3;
  for (int64_t k = 0; x && k < dlua_numel(x); k++) {
    state = state * 1664525u + 1013904223u;
    dlua_f32(x)[k] = (float)state / 4e9f;
  }
  return x;
}

static bool same_with_two(const call *c) {
  dlua_scope s;
  dlua_scope_begin(&s);
  int threads = dlua_threads();
  dlua_set_threads(1);
  dlua_tensor *one = run_call(&s, c);
  dlua_set_threads(2);
  dlua_tensor *two = run_call(&s, c);
  dlua_set_threads(threads);
  bool same = same_bits(one, two);
  dlua_scope_end(&s);
  if (!same) printf("  %s\n", c->op->name);
  return same;
}

#define SAME(...) CHECK(same_with_two(&(call){__VA_ARGS__}))
#define NUMS(...) .n = sizeof((dlua_arg[]){__VA_ARGS__}) / sizeof(dlua_arg), .num = {__VA_ARGS__}

SPEC(threads_change_no_bit) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(1500, 800)), *t = dlua_call(&s, &dlua_op_t, dlua_t(x));
  dlua_tensor *index = count_up(&s, DLUA_I64, 1, 0, SIZES(1500));
  for (int64_t k = 0; index && k < 1500; k++) dlua_i64(index)[k] = k * 7 % 50 + 1;
  dlua_tensor *wide = dlua_call(&s, &dlua_op_expand,
                                dlua_t(dlua_call(&s, &dlua_op_unsqueeze, dlua_t(index), dlua_i(1))),
                                LIST(1500, 800));
  SAME(&dlua_op_sum, 1, .in = {x});
  SAME(&dlua_op_sum, 1, .in = {t}, NUMS(dlua_i(1)));
  SAME(&dlua_op_exp, 1, .in = {x});
  SAME(&dlua_op_add, 2, .in = {x, x});
  SAME(&dlua_op_sum_to, 1, .in = {x}, NUMS(LIST(800)));
  SAME(&dlua_op_sum_to, 1, .in = {t}, NUMS(LIST(800, 1)));
  SAME(&dlua_op_flip, 1, .in = {t});
  SAME(&dlua_op_pad, 1, .in = {x}, NUMS(LIST(3, 3), dlua_i(1)));
  SAME(&dlua_op_sort, 1, .in = {x}, NUMS(dlua_i(0)));
  SAME(&dlua_op_topk, 1, .in = {x}, NUMS(dlua_i(5)));
  SAME(&dlua_op_index_select, 2, .in = {x, index}, NUMS(dlua_i(0)));
  SAME(&dlua_op_index_add, 3, .in = {x, index, x}, NUMS(dlua_i(0)));
  SAME(&dlua_op_gather, 2, .in = {x, wide}, NUMS(dlua_i(0)));
  SAME(&dlua_op_scatter_add, 3, .in = {x, wide, x}, NUMS(dlua_i(0)));
  CHECK_OK(dlua_scope_end(&s));
}

// The plain kernels are the oracle of the fast ones.
SPEC(fast_kernels_do_what_plain_ones_do) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = numbers(&s, SIZES(300, 40)), *index = VECTOR(&s, DLUA_I64, 5, 1, 300, 5);
  dlua_tensor *rows = numbers(&s, SIZES(4, 40));
  const call calls[] = {
      {&dlua_op_index_select, 2, .in = {x, index}, NUMS(dlua_i(0))},
      {&dlua_op_index_add, 3, .in = {x, index, rows}, NUMS(dlua_i(0))},
      {&dlua_op_gather, 2, .in = {x, dlua_call(&s, &dlua_op_unsqueeze, dlua_t(index), dlua_i(1))},
       NUMS(dlua_i(0))},
  };
  for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
    dlua_tensor *fast = run_call(&s, &calls[k]);
    dlua_set_reference_mode(true);
    dlua_tensor *plain = run_call(&s, &calls[k]);
    dlua_set_reference_mode(false);
    if (!CHECK(same_bits(fast, plain))) printf("  %s\n", calls[k].op->name);
  }
  CHECK_OK(dlua_scope_end(&s));
}

// As many as the process had before its team was bound.
static int cpus_of_child(void) {
  int status = 0;
  pid_t child = fork();
  if (child == 0) {
    cpu_set_t own;
    sched_getaffinity(0, sizeof own, &own);
    _exit(CPU_COUNT(&own));
  }
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

SPEC(a_forked_child_has_every_cpu) {
  dlua_scope s;
  dlua_scope_begin(&s);
  cpu_set_t before, bound, after;
  dlua_unbind_thread();
  sched_getaffinity(0, sizeof before, &before);
  dlua_rebind_thread();
  dlua_call(&s, &dlua_op_exp, dlua_t(numbers(&s, SIZES(1500, 800))));
  sched_getaffinity(0, sizeof bound, &bound);
  CHECK(cpus_of_child() == (CPU_COUNT(&before) & 0xff));
  dlua_unbind_thread();
  dlua_rebind_thread();
  sched_getaffinity(0, sizeof after, &after);
  CHECK(CPU_EQUAL(&bound, &after));
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(threads_change_no_bit);
  RUN(fast_kernels_do_what_plain_ones_do);
  RUN(a_forked_child_has_every_cpu);
  return finish();
}
