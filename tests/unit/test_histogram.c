// Histograms: percentiles against sorted values, the whole range of 64 bits, merging, emptiness.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/histogram.h"

static struct histogram h, other;

static void test_empty(void **state)
{
    (void)state;
    histogram_reset(&h);
    assert_int_equal(histogram_percentile(&h, 500), 0);
    assert_int_equal(histogram_mean(&h), 0);
    histogram_merge(&h, &h);
    assert_int_equal(h.count, 0);
}

static void test_small_values_are_exact(void **state)
{
    (void)state;
    histogram_reset(&h);
    for (unsigned i = 0; i < 64; i++)
        histogram_add(&h, i);
    assert_int_equal(histogram_percentile(&h, 0), 0);
    assert_int_equal(histogram_percentile(&h, 500), 31);
    assert_int_equal(histogram_percentile(&h, 1000), 63);
    assert_int_equal(h.sum, 63 * 32);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_against_sorted(void **state)
{
    (void)state;
    enum { N = 10007 };
    static uint64_t values[N];
    uint64_t random = 88172645463325252ull;
    histogram_reset(&h);
    histogram_reset(&other);
    for (unsigned i = 0; i < N; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        values[i] = random >> (i % 64); // all sizes
        histogram_add(i & 1 ? &h : &other, values[i]);
    }
    histogram_merge(&h, &other);
    qsort(values, N, sizeof(values[0]), by_value);
    assert_int_equal(h.count, N);
    assert_int_equal(h.min, values[0]);
    assert_int_equal(h.max, values[N - 1]);
    for (unsigned per_mille = 1; per_mille <= 1000; per_mille++) {
        uint64_t exact = values[(N * per_mille + 999ull) / 1000 - 1], told = histogram_percentile(&h, per_mille);
        assert_true(told >= exact && told - exact <= exact / 32 + 1);
    }
}

static void test_extremes(void **state)
{
    (void)state;
    histogram_reset(&h);
    histogram_add(&h, UINT64_MAX);
    histogram_add(&h, 0);
    assert_int_equal(histogram_percentile(&h, 500), 0);
    assert_true(histogram_percentile(&h, 999) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_small_values_are_exact),
        cmocka_unit_test(test_against_sorted),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
