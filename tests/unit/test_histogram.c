// Histograms: what is read back lies within 1/32 above the truth, whatever the values.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/histogram.h"

static struct histogram h, other;

static int reset(void **state)
{
    (void)state;
    histogram_reset(&h);
    histogram_reset(&other);
    return 0;
}

static void test_empty(void **state)
{
    (void)state;
    assert_true(histogram_percentile(&h, 500) == 0 && histogram_mean(&h) == 0 && h.count == 0);
    histogram_merge(&h, &other);
    assert_true(h.count == 0);
}

static void check_alone(uint64_t value)
{
    histogram_reset(&h);
    histogram_add(&h, value);
    assert_true(histogram_percentile(&h, 1) == value); // never above the largest one
    // With a larger value beside it the bucket's end is seen: at most 1/32 too much, never too little.
    histogram_add(&h, UINT64_MAX);
    const uint64_t read = histogram_percentile(&h, 500);
    assert_true(read >= value && read - value <= value / 32);
}

static void test_precision(void **state)
{
    (void)state;
    check_alone(0);
    for (unsigned e = 0; e < 64; e++) {
        const uint64_t power = 1ull << e;
        check_alone(power - 1);
        check_alone(power);
        check_alone(power + 1);
        check_alone(power + power / 2 + power / 7);
    }
    check_alone(UINT64_MAX);
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_percentiles_of_many(void **state)
{
    (void)state;
    enum { N = 20000 };
    static uint64_t values[N];
    uint64_t x = 88172645463325252ull;
    for (size_t i = 0; i < N; i++) { // xorshift, over many magnitudes
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        values[i] = x >> (x % 60);
        histogram_add(&h, values[i]);
    }
    qsort(values, N, sizeof(values[0]), compare);
    const uint32_t asked[] = {0, 1, 10, 250, 500, 900, 990, 999, 1000};
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        size_t rank = ((size_t)N * asked[i] + 999) / 1000;
        const uint64_t truth = values[rank ? rank - 1 : 0];
        const uint64_t read = histogram_percentile(&h, asked[i]);
        assert_true(read >= truth && read - truth <= truth / 32);
    }
    assert_true(h.min == values[0] && h.max == values[N - 1]);
    assert_true(histogram_percentile(&h, 4000) == values[N - 1]);
}

static void test_merge(void **state)
{
    (void)state;
    struct histogram *all = calloc(1, sizeof(*all));
    assert_non_null(all);
    for (uint64_t i = 1; i <= 1000; i++) {
        histogram_add(i % 3 ? &h : &other, i * i);
        histogram_add(all, i * i);
    }
    histogram_merge(&h, &other);
    assert_memory_equal(&h, all, sizeof(h));
    histogram_reset(&other);
    histogram_merge(&other, all);
    assert_memory_equal(&other, all, sizeof(h));
    assert_true(histogram_mean(all) == 333833); // 1001 * 2001 / 6, rounded down
    free(all);
}

// What is left of a reading when an earlier one is taken off is what came in between.
static void test_subtract(void **state)
{
    (void)state;
    static struct histogram between, untouched;
    histogram_reset(&between);
    for (unsigned i = 0; i < 1000; i++)
        histogram_add(&h, 1000 + i);
    other = h;
    for (unsigned i = 0; i < 500; i++) {
        histogram_add(&h, 3000000 + 1000 * i);
        histogram_add(&between, 3000000 + 1000 * i);
    }
    untouched = other;
    assert_false(histogram_subtract(&other, &h)); // the later one
    assert_memory_equal(&other, &untouched, sizeof(other));
    assert_true(histogram_subtract(&h, &other));
    assert_true(h.count == 500 && h.sum == between.sum && h.max == between.max);
    assert_true(h.min <= between.min && between.min - h.min <= between.min / 32);
    assert_memory_equal(h.buckets, between.buckets, sizeof(h.buckets));
    for (unsigned per_mille = 1; per_mille <= 1000; per_mille++)
        assert_true(histogram_percentile(&h, per_mille) == histogram_percentile(&between, per_mille));
    other = h;
    assert_true(histogram_subtract(&h, &other) && h.count == 0 && h.max == 0 && histogram_percentile(&h, 500) == 0);
}

static void test_count_to(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 64; i++)
        histogram_add(&h, i);
    histogram_add(&h, UINT64_MAX);
    assert_true(histogram_count_to(&h, 0) == 1 && histogram_count_to(&h, 31) == 32 && histogram_count_to(&h, 1u << 20) == 64);
    assert_true(histogram_count_to(&h, UINT64_MAX) == 65);
}

static void check_refused(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    histogram_add(&other, 1);
    assert_true(histogram_decode(&other, json) == -EINVAL && other.count == 0);
    json_decref(json);
}

static void test_json(void **state)
{
    (void)state;
    for (unsigned e = 0; e < 63; e++)
        histogram_add(&h, (1ull << e) + e);
    json_t *json = histogram_encode(&h);
    assert_true(histogram_decode(&other, json) == 0 && other.count == h.count && other.max == h.max);
    assert_memory_equal(other.buckets, h.buckets, sizeof(h.buckets));
    json_decref(json);
    histogram_add(&h, UINT64_MAX); // beyond what a number in JSON holds
    json = histogram_encode(&h);
    assert_true(histogram_decode(&other, json) == 0 && other.count == h.count && other.max == INT64_MAX);
    json_decref(json);
    check_refused("{}");
    check_refused("{\"count\": 1, \"sum\": 1, \"max\": 1, \"buckets\": []}");
    check_refused("{\"count\": 1, \"sum\": 1, \"max\": 1000, \"buckets\": [[1000, 1]]}"); // inside of a bucket
    check_refused("{\"count\": 2, \"sum\": 1, \"max\": 9, \"buckets\": [[9, 1], [8, 1]]}");
    check_refused("{\"count\": 1, \"sum\": 1, \"max\": 1, \"buckets\": [[9, 1]]}");
    check_refused("{\"count\": 0, \"sum\": 1, \"max\": 9, \"buckets\": [[9, 0]]}");
    check_refused("{\"count\": 1, \"sum\": -1, \"max\": 9, \"buckets\": [[9, 1]]}");
}

static void test_sum_saturates(void **state)
{
    (void)state;
    histogram_add(&h, UINT64_MAX);
    histogram_add(&h, UINT64_MAX);
    assert_true(h.sum == UINT64_MAX && h.count == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_empty, reset),
        cmocka_unit_test_setup(test_precision, reset),
        cmocka_unit_test_setup(test_percentiles_of_many, reset),
        cmocka_unit_test_setup(test_merge, reset),
        cmocka_unit_test_setup(test_subtract, reset),
        cmocka_unit_test_setup(test_count_to, reset),
        cmocka_unit_test_setup(test_json, reset),
        cmocka_unit_test_setup(test_sum_saturates, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
