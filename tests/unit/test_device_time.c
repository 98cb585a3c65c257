// How long the device itself takes: never more than it does, at most a fifth less, not told from too few requests, and forgotten.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/device_time.h"

static void add(struct device_time *t, unsigned n, uint64_t ns)
{
    for (unsigned i = 0; i < n; i++)
        device_time_add(t, ns);
}

static void test_values(void **state)
{
    (void)state;
    for (uint64_t ns = 1; ns < UINT64_MAX / 3; ns += 1 + ns / 7) {
        struct device_time t = {0};
        add(&t, 20, ns);
        const uint64_t told = device_time_of(&t, 500);
        assert_true(told <= ns && told >= ns - ns / 5);
    }
    struct device_time t = {0};
    add(&t, 20, UINT64_MAX);
    assert_true(device_time_of(&t, 500) > UINT64_MAX / 10 * 8);
}

static void test_percentiles(void **state)
{
    (void)state;
    struct device_time t = {0};
    add(&t, 890, 1024);
    assert_int_equal(device_time_of(&t, 990), 0); // ten of a thousand have to be there
    assert_int_equal(device_time_of(&t, 500), 1024);
    add(&t, 110, 4096);
    assert_int_equal(device_time_of(&t, 990), 4096);
    assert_int_equal(device_time_of(&t, 900), 4096);
    assert_int_equal(device_time_of(&t, 880), 1024);
    assert_int_equal(device_time_of(&t, 999), 0);
}

static void test_forgets(void **state)
{
    (void)state;
    struct device_time t = {0};
    add(&t, 1000, 1 << 20);
    device_time_turn(&t);
    assert_int_equal(device_time_of(&t, 500), 1 << 20);
    device_time_turn(&t); // nothing came since: what is known stays
    assert_int_equal(device_time_of(&t, 500), 1 << 20);
    add(&t, 5000, 1024);
    assert_int_equal(device_time_of(&t, 500), 1024);
    assert_int_equal(device_time_of(&t, 950), 1 << 20);
    device_time_turn(&t);
    assert_int_equal(device_time_of(&t, 990), 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
