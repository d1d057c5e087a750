// The mock device: separate memory, the same numbers as the CPU, and faults on demand.
#include <stdlib.h>

#include "program.h"

static dlua_device *mock;

SPEC(devices_are_found_by_name) {
  dlua_device *second = NULL, *none = NULL;
  if (!CHECK_OK(dlua_device_find("mock", &mock))) return;
  CHECK_OK(dlua_device_find("mock:2", &second));
  CHECK(mock != second && strcmp(dlua_device_name(mock), "mock") == 0);
  CHECK(strcmp(dlua_device_name(second), "mock:2") == 0);
  CHECK_FAILS(dlua_device_find("mock:3", &none), "2 mock devices");
  CHECK_FAILS(dlua_device_find("mock:0", &none), "count from 1");
  CHECK_FAILS(dlua_device_find("mokc", &none), "unknown device");
  dlua_device_info info;
  CHECK_OK(mock->backend->info(0, &info));
  CHECK_OK(dlua_synchronize(mock));
}

SPEC(data_goes_there_and_back) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_device *second = NULL;
  CHECK_OK(dlua_device_find("mock:2", &second));
  for (int dtype = 0; dtype < DLUA_DTYPES; dtype++) {
    dlua_tensor *x = count_up(&s, (dlua_dtype)dtype, 0, 1, SIZES(3, 5));
    dlua_tensor *t = dlua_call(&s, &dlua_op_t, dlua_t(x));
    dlua_tensor *there = moved_to(&s, t, mock), *further = moved_to(&s, there, second);
    dlua_tensor *back = moved_to(&s, further, dlua_cpu());
    CHECK(there && dlua_device_of(there) == mock && dlua_device_of(further) == second);
    CHECK(same_bits(t, back));
  }
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(a_program_gives_the_same_bits) {
  dlua_tensor *here = NULL, *there = NULL;
  CHECK_OK(program(dlua_cpu(), &here));
  CHECK_OK(program(mock, &there));
  CHECK(there && dlua_device_of(there) == mock);
  CHECK(same_bits(here, there));
  dlua_tensor_release(here), dlua_tensor_release(there);
}

SPEC(devices_do_not_mix) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = VECTOR(&s, DLUA_F32, 1, 2), *there = moved_to(&s, x, mock);
  CHECK_FAILS(CALL_STATUS(&dlua_op_add, dlua_t(x), dlua_t(there)),
              "add: x is on cpu but y is on mock");
  CHECK(HOLDS(dlua_add(&s, there, dlua_num(&s, 1)), 2, 3));
  CHECK_FAILS(mock->backend->from_host(0, dlua_data(x), dlua_data(x), 4), "not of mock");
  CHECK_FAILS(mock->backend->to_host(1, dlua_data(x), dlua_data(there), 4), "not of mock:2");
  CHECK_OK(dlua_scope_end(&s));
}

SPEC(in_place_calls_reach_the_device) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = moved_to(&s, VECTOR(&s, DLUA_F32, 1, 2, 3), mock);
  dlua_args a;
  dlua_args_init(&a, &dlua_op_set_slice);
  a.inplace = true, a.in[0] = x, a.in[1] = dlua_num(&s, 9);
  for (int k = 0; k < 4; k++)
    a.num[k] = (dlua_value){.set = true, .n = 1, .v = {k == 1 ? 2 : k != 3}};
  CHECK_OK(dlua_run(&a));
  CHECK(HOLDS(x, 1, 9, 9) && x->storage->version == 1);
  dlua_tensor_release(a.out[0]);
  CHECK_OK(dlua_scope_end(&s));
}

// Enough allocations, copies and launches for a fault to strike at many places.
static dlua_status program_twice(void) {
  DLUA_TRY(program(mock, NULL));
  return program(mock, NULL);
}

// With DLUA_CACHE=0, as one run of this spec has it, the device is asked for every block.
static bool is_cached(void) { return !getenv("DLUA_CACHE"); }

SPEC(faults_are_clean_errors) {
  static const char *const faults[] = {"alloc", "copy", "launch"};
  static const dlua_status kinds[] = {DLUA_NO_MEMORY, DLUA_BAD_DEVICE, DLUA_BAD_DEVICE};
  CHECK_OK(program(mock, NULL));
  for (int f = 0; f < 3; f++) {
    int met = 0;
    for (int n = 1; n < 200; n++) {
      size_t live = dlua_live_bytes();
      dlua_empty_cache(mock); // or the module is never asked for memory
      CHECK_OK(mock->backend->test_fault(faults[f], n));
      dlua_status status = program_twice();
      mock->backend->test_fault(faults[f], 0);
      CHECK(dlua_live_bytes() == live);
      if (status == DLUA_OK) break;
      met++;
      CHECK(status == kinds[f] && strstr(dlua_message(), "injected"));
    }
    // Where there is a cache, a failed allocation is tried once more with it emptied, and never seen.
    CHECK(f == 0 && is_cached() ? met == 0 : met > 5);
  }
  CHECK_FAILS(mock->backend->test_fault("no such", 1), "known: alloc");
}

SPEC(a_full_device_is_an_error_and_gets_well) {
  int met = 0;
  for (int n = 1; n < 200; n++) {
    size_t live = dlua_live_bytes();
    dlua_empty_cache(mock); // the whole program fits into one segment
    CHECK_OK(mock->backend->test_fault("alloc", -n));
    dlua_status status = program_twice();
    mock->backend->test_fault("alloc", 0);
    CHECK(dlua_live_bytes() == live);
    if (status == DLUA_OK) break;
    met++;
    CHECK(status == DLUA_NO_MEMORY && strstr(dlua_message(), "mock: out of memory"));
  }
  CHECK(is_cached() ? met > 0 : met > 5); // cached, a few segments hold everything
  CHECK_OK(program(mock, NULL));
}

SPEC(a_missing_kernel_is_named) {
  dlua_scope s;
  dlua_scope_begin(&s);
  dlua_tensor *x = moved_to(&s, VECTOR(&s, DLUA_F32, 1, 2), mock);
  CHECK_OK(mock->backend->test_fault("missing kernel exp", 1));
  CHECK_FAILS(CALL_STATUS(&dlua_op_exp, dlua_t(x)), "exp: there is no kernel for it on mock");
  CHECK_OK(mock->backend->test_fault("missing kernel exp", 0));
  CHECK_OK(CALL_STATUS(&dlua_op_exp, dlua_t(x)));
  CHECK_OK(dlua_scope_end(&s));
}

int main(void) {
  RUN(devices_are_found_by_name);
  if (mock) {
    RUN(data_goes_there_and_back);
    RUN(a_program_gives_the_same_bits);
    RUN(devices_do_not_mix);
    RUN(in_place_calls_reach_the_device);
    RUN(faults_are_clean_errors);
    RUN(a_full_device_is_an_error_and_gets_well);
    RUN(a_missing_kernel_is_named);
  }
  return finish();
}
