// What the scheduler is told of a disk's promises: each in its own place, and terms that it takes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store/terms.h"

static struct dispatch_terms terms_of(const char *text)
{
    struct promise_set set;
    struct tv_error err = {0};
    assert_int_equal(promise_set_parse(&set, PROMISE_DISK, text, &err), 0);
    const struct dispatch_terms terms = terms_of_promises(&set);
    assert_int_equal(dispatch_check_terms(&dispatch_oios, &terms, UINT32_MAX, &err), 0);
    return terms;
}

// By members: the bytes between them may be anything.
static void assert_no_rates(const struct dispatch_rates *rates)
{
    assert_int_equal(rates->bytes_per_s, dispatch_no_terms.reserve.bytes_per_s);
    assert_int_equal(rates->ops_per_s, dispatch_no_terms.reserve.ops_per_s);
    assert_int_equal(rates->device_ppm, dispatch_no_terms.reserve.device_ppm);
}

static void test_nothing(void **state)
{
    (void)state;
    const struct dispatch_terms terms = terms_of("");
    assert_no_rates(&terms.reserve);
    assert_no_rates(&terms.limit);
    assert_int_equal(terms.weight, dispatch_no_terms.weight);
    assert_int_equal(terms.latency_ns, 0);
}

static void test_each_in_its_place(void **state)
{
    (void)state;
    const struct dispatch_terms terms = terms_of("reserve: 40MB/s and 1000 iops and 20%; limit: 80MB/s and 2000 iops and 90%; "
                                                 "latency: p99.9 < 5ms; weight: 300");
    assert_int_equal(terms.reserve.bytes_per_s, 40000000);
    assert_int_equal(terms.reserve.ops_per_s, 1000);
    assert_int_equal(terms.reserve.device_ppm, 200000);
    assert_int_equal(terms.limit.bytes_per_s, 80000000);
    assert_int_equal(terms.limit.ops_per_s, 2000);
    assert_int_equal(terms.limit.device_ppm, 900000);
    assert_int_equal(terms.latency_ns, 5000000);
    assert_int_equal(terms.latency_permille, 999);
    assert_int_equal(terms.weight, 300);
}

static void test_extremes(void **state)
{
    (void)state;
    const struct dispatch_terms terms =
        terms_of("reserve: 1B/s, limit: 1000TB/s and 1 iops and 100%, weight: 10000, latency: p0.1 < 1ns");
    assert_int_equal(terms.reserve.bytes_per_s, 1);
    assert_int_equal(terms.limit.bytes_per_s, 1000000000000000);
    assert_int_equal(terms.limit.device_ppm, 1000000);
    assert_int_equal(terms.latency_permille, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_each_in_its_place),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
