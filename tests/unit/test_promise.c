// The grammar of promises: what people write, what is refused and why, and back to text and to saved state.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/state.h"
#include "promise/promise.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct promise_set parsed(enum promise_resource resource, const char *text)
{
    struct promise_set set = {0};
    struct tv_error err = {0};
    if (promise_set_parse(&set, resource, text, &err) != 0)
        fail_msg("'%s': %s", text, err.text);
    return set;
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        enum promise_resource resource;
        const char *text;
        struct promise promise;
    } cases[] = {
        {PROMISE_DISK, "reserve: 40MB/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 40000000}},
        {PROMISE_DISK, "reserve:40MB/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 40000000}},
        {PROMISE_DISK, " \treserve : 40 MB/s ", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 40000000}},
        {PROMISE_DISK, "reserve: 40MiB/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 40ull << 20}},
        {PROMISE_DISK, "reserve: 0.1GiB/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 107374182}},
        {PROMISE_DISK, "reserve: 1.5kB/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 1500}},
        {PROMISE_DISK, "reserve: 7B/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 7}},
        {PROMISE_DISK, "limit: 300 iops", {PROMISE_LIMIT, PROMISE_OPERATIONS, 0, 300}},
        {PROMISE_DISK, "limit: 300 requests/s", {PROMISE_LIMIT, PROMISE_OPERATIONS, 0, 300}},
        {PROMISE_DISK, "limit: 10k iops", {PROMISE_LIMIT, PROMISE_OPERATIONS, 0, 10000}},
        {PROMISE_DISK, "limit: 1.25M IOPS", {PROMISE_LIMIT, PROMISE_OPERATIONS, 0, 1250000}},
        {PROMISE_DISK, "latency: p99 < 5ms", {PROMISE_RESERVE, PROMISE_LATENCY, 990, 5000000}},
        {PROMISE_DISK, "latency: p99.9<250us", {PROMISE_RESERVE, PROMISE_LATENCY, 999, 250000}},
        {PROMISE_DISK, "latency: p50 < 0.5 s", {PROMISE_RESERVE, PROMISE_LATENCY, 500, 500000000}},
        {PROMISE_DISK, "utilization: 25%", {PROMISE_RESERVE, PROMISE_UTILIZATION, 0, 250000}},
        {PROMISE_DISK, "reserve: 25%", {PROMISE_RESERVE, PROMISE_UTILIZATION, 0, 250000}},
        {PROMISE_DISK, "limit: 33.3333 %", {PROMISE_LIMIT, PROMISE_UTILIZATION, 0, 333333}},
        {PROMISE_DISK, "limit: 100%", {PROMISE_LIMIT, PROMISE_UTILIZATION, 0, 1000000}},
        {PROMISE_DISK, "weight: 200", {PROMISE_WEIGHT, PROMISE_UTILIZATION, 0, 200}},
        {PROMISE_CPU, "reserve: 1.5 cores", {PROMISE_RESERVE, PROMISE_CORES, 0, 1500000}},
        {PROMISE_CPU, "limit: 1 core", {PROMISE_LIMIT, PROMISE_CORES, 0, 1000000}},
        {PROMISE_CPU, "utilization: 12.5%", {PROMISE_RESERVE, PROMISE_UTILIZATION, 0, 125000}},
        {PROMISE_LINK, "reserve: 100Mbit/s", {PROMISE_RESERVE, PROMISE_BIT_RATE, 0, 100000000}},
        {PROMISE_LINK, "limit: 1.5M packets/s", {PROMISE_LIMIT, PROMISE_PACKETS, 0, 1500000}},
        {PROMISE_LINK, "limit: 100kpps", {PROMISE_LIMIT, PROMISE_PACKETS, 0, 100000}},
        {PROMISE_LINK, "latency: p99 < 200us", {PROMISE_RESERVE, PROMISE_LATENCY, 990, 200000}},
        {PROMISE_DISK, "reserve: 1000TB/s", {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, PROMISE_VALUE_MAX}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct promise_set set = parsed(cases[i].resource, cases[i].text);
        const struct promise *p = &set.list[0], *q = &cases[i].promise;
        if (set.n != 1 || p->kind != q->kind || p->metric != q->metric || p->per_mille != q->per_mille || p->value != q->value)
            fail_msg("'%s': kind %d, metric %d, p %u, value %llu", cases[i].text, p->kind, p->metric, p->per_mille,
                     (unsigned long long)p->value);
    }
}

static void test_sets(void **state)
{
    (void)state;
    // The second experiment of the deck, all of it for one disk.
    const struct promise_set set = parsed(PROMISE_DISK, "reserve: 40MB/s and 100 iops, limit: 300 iops;\n\n"
                                                        "latency: p99 < 5ms\nweight: 200,");
    assert_int_equal(set.n, 5);
    assert_int_equal(promise_set_find(&set, PROMISE_RESERVE, PROMISE_BANDWIDTH)->value, 40000000);
    assert_int_equal(promise_set_find(&set, PROMISE_RESERVE, PROMISE_OPERATIONS)->value, 100);
    assert_int_equal(promise_set_find(&set, PROMISE_LIMIT, PROMISE_OPERATIONS)->value, 300);
    assert_int_equal(promise_set_find(&set, PROMISE_RESERVE, PROMISE_LATENCY)->per_mille, 990);
    assert_null(promise_set_find(&set, PROMISE_LIMIT, PROMISE_BANDWIDTH));
    assert_int_equal(promise_set_weight(&set), 200);

    const struct promise_set none = parsed(PROMISE_DISK, " \n");
    assert_int_equal(none.n, 0);
    assert_int_equal(promise_set_weight(&none), PROMISE_WEIGHT_DEFAULT);
    assert_int_equal(parsed(PROMISE_DISK, "reserve: 5MB/s, limit: 5MB/s").n, 2); // equal is not above
    // What the set can hold, it does.
    assert_int_equal(
        parsed(PROMISE_DISK, "reserve: 1MB/s and 1 iops and 1%, limit: 2MB/s and 2 iops and 2%, latency: p50 < 1s, weight: 1").n,
        PROMISE_SET_MAX);
}

static void test_entries(void **state)
{
    (void)state;
    struct promise_set set = {.resource = PROMISE_DISK};
    struct tv_error err = {0};
    assert_int_equal(promise_set_add(&set, "reserve", "40MB/s and 100 iops", &err), 0);
    assert_int_equal(promise_set_add(&set, "limit", "300 iops", &err), 0);
    assert_int_equal(set.n, 3);
    // One that fails in its second half leaves nothing of its first.
    assert_int_equal(promise_set_add(&set, "limit", "50MB/s and 20 iops", &err), -EINVAL);
    assert_int_equal(set.n, 3);
    assert_string_equal(err.text, "'limit: 20 iops': 'limit: 300 iops' is there already: keep one of the two");
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        enum promise_resource resource;
        const char *text, *reason;
    } cases[] = {
        {PROMISE_DISK, "reserv: 40MB/s", "'reserv' is no promise: write reserve, limit, weight, latency or utilization"},
        {PROMISE_DISK, "40MB/s", "'40MB/s' does not say what is promised: write it as in 'reserve: 40MB/s'"},
        {PROMISE_DISK, "reserve", "'reserve' does not say what is promised"},
        {PROMISE_DISK, "reserve:", "'reserve: ': it is not a number with a unit: write MB/s, iops or %"},
        {PROMISE_DISK, "reserve: 40MB/s and ", "'reserve: ': it is not a number"},
        {PROMISE_DISK, "reserve: -40MB/s", "it is not a number"},
        {PROMISE_DISK, "reserve: .5MB/s", "it is not a number"},
        {PROMISE_DISK, "reserve: 40", "'reserve: 40': it has no unit: write MB/s, iops or %"},
        {PROMISE_DISK, "reserve: 40MB", "the unit 'MB' is unknown: write MB/s"},
        {PROMISE_DISK, "reserve: 40mB/s", "the unit 'mB/s' is unknown: write MB/s, iops or %"},
        {PROMISE_DISK, "reserve: 40Mb/s", "'Mb/s' may be bits or bytes: write kB/s, MB/s, GB/s, or kbit/s"},
        {PROMISE_LINK, "limit: 100mbps", "'mbps' may be bits or bytes"},
        {PROMISE_DISK, "reserve: 40Miiops", "unknown"},
        {PROMISE_DISK, "limit: 1Ki iops", "the unit 'Ki iops' is unknown"},
        {PROMISE_DISK, "limit: 5k%", "unknown"},
        {PROMISE_DISK, "reserve: 100Mbit/s", "this unit is not one of a disk: write MB/s, iops or %"},
        {PROMISE_DISK, "reserve: 2 cores", "this unit is not one of a disk"},
        {PROMISE_CPU, "limit: 300 iops", "this unit is not one of a CPU: write cores or %"},
        {PROMISE_LINK, "limit: 40MB/s", "this unit is not one of a network: write Mbit/s, packets/s or %"},
        {PROMISE_DISK, "limit: 5ms", "a latency cannot be limited: to make requests slower than they are serves nobody"},
        {PROMISE_DISK, "limit: p99 < 5ms", "a latency cannot be limited"},
        {PROMISE_DISK, "reserve: 5ms", "a latency has a key of its own: write 'latency: p99 < 5ms'"},
        {PROMISE_DISK, "reserve: p99 < 5ms", "a latency has a key of its own"},
        {PROMISE_DISK, "latency: 5ms", "say of how many requests, p0.1 to p99.9: 'latency: p99 < 5ms' is 99 of 100"},
        {PROMISE_DISK, "latency: p100 < 5ms", "p0.1 to p99.9"},
        {PROMISE_DISK, "latency: p99.99 < 5ms", "p0.1 to p99.9"},
        {PROMISE_DISK, "latency: p0 < 5ms", "p0.1 to p99.9"},
        {PROMISE_DISK, "latency: p99 5ms", "'<' is missing"},
        {PROMISE_DISK, "latency: p99 < 5", "is no time: write a number with ns, us, ms or s"},
        {PROMISE_DISK, "latency: p99 < 5MB/s", "is no time"},
        {PROMISE_DISK, "latency: p99 <= 5ms", "is no time"},
        {PROMISE_CPU, "latency: p99 < 5ms", "a CPU has no latency that could be promised"},
        {PROMISE_DISK, "utilization: 40MB/s", "a utilization is so many % of a disk: write 'utilization: 25%'"},
        {PROMISE_DISK, "weight: 200 iops", "a weight shares the time of a disk, whatever it is used for: write it without a unit"},
        {PROMISE_DISK, "weight: 25%", "write it without a unit"},
        {PROMISE_DISK, "weight: 1.5", "a weight is a whole number, 1 to 10000"},
        {PROMISE_DISK, "weight: heavy", "a weight is a whole number, 1 to 10000"},
        {PROMISE_DISK, "reserve: 0MB/s", "it comes to nothing: leave it out"},
        {PROMISE_DISK, "reserve: 0.3 iops", "it comes to nothing"},
        {PROMISE_DISK, "limit: 0 iops", "a limit of nothing would stop a disk for good: pause the machine instead"},
        {PROMISE_DISK, "reserve: 10MB/s, reserve: 20MB/s", "'reserve: 10MB/s' is there already: keep one of the two"},
        {PROMISE_DISK, "reserve: 25%, utilization: 25%", "'reserve: 25%' is there already"},
        {PROMISE_DISK, "latency: p99 < 5ms, latency: p50 < 1ms", "'latency: p99 < 5ms' is there already"},
        {PROMISE_DISK, "reserve: 40MB/s, limit: 10MB/s", "'limit: 10MB/s': limit 10MB/s is below reserve 40MB/s"},
        {PROMISE_DISK, "limit: 10MB/s, reserve: 40MB/s", "'reserve: 40MB/s': limit 10MB/s is below reserve 40MB/s"},
        {PROMISE_DISK, "reserve: 1\x01MB/s", "unknown"},
    };
    static const struct {
        const char *text, *reason;
    } large[] = {
        {"reserve: 1001TB/s", "it is too much: write at most 1000TB/s"},
        {"reserve: 99999999999999999999999999 iops", "it is too much: write at most 1000T iops"},
        {"limit: 100.1%", "it is too much: write at most 100%"},
        {"weight: 0", "a weight is 1 to 10000; who has none said has 100"},
        {"weight: 10001", "a weight is 1 to 10000"},
        {"weight: 18446744073709551617", "a weight is 1 to 10000"},
    };
    const struct promise_set before = parsed(PROMISE_DISK, "weight: 3");
    for (size_t i = 0; i < COUNT(cases) + COUNT(large); i++) {
        const bool is_large = i >= COUNT(cases);
        const char *text = is_large ? large[i - COUNT(cases)].text : cases[i].text;
        const char *reason = is_large ? large[i - COUNT(cases)].reason : cases[i].reason;
        struct promise_set set = before;
        struct tv_error err = {0};
        const int rc = promise_set_parse(&set, is_large ? PROMISE_DISK : cases[i].resource, text, &err);
        if (rc != (is_large ? -ERANGE : -EINVAL) || rc != err.code || !strstr(err.text, reason))
            fail_msg("'%s': %d '%s', not '%s'", text, rc, err.text, reason);
        assert_memory_equal(&set, &before, sizeof(set));
    }
}

static void test_format(void **state)
{
    (void)state;
    static const struct {
        enum promise_resource resource;
        const char *text, *again;
    } cases[] = {
        {PROMISE_DISK, "utilization: 25%", "reserve: 25%"},
        {PROMISE_DISK, "reserve: 1000kB/s", "reserve: 1MB/s"},
        {PROMISE_DISK, "reserve: 1500000B/s", "reserve: 1.5MB/s"},
        {PROMISE_DISK, "reserve: 4194304B/s", "reserve: 4MiB/s"},
        {PROMISE_DISK, "limit: 1500 iops", "limit: 1500 iops"},
        {PROMISE_DISK, "limit: 10000 iops", "limit: 10k iops"},
        {PROMISE_DISK, "latency: p99.9 < 1500000 ns", "latency: p99.9 < 1.5ms"},
        {PROMISE_DISK, "latency: p50 < 1s", "latency: p50 < 1s"},
        {PROMISE_CPU, "limit: 1 cores", "limit: 1 core"},
        {PROMISE_CPU, "limit: 0.000001 cores", "limit: 0.000001 cores"},
        {PROMISE_LINK, "limit: 100000kbit/s and 2 pps", "limit: 100Mbit/s and 2 packets/s"},
        {PROMISE_DISK, "weight: 5; limit: 1 iops; limit: 10%", "weight: 5, limit: 1 iops and 10%"},
        {PROMISE_DISK, "reserve: 1 iops; latency: p99 < 1ms; reserve: 2%", "reserve: 1 iops, latency: p99 < 1ms, reserve: 2%"},
        {PROMISE_DISK, "", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[PROMISE_SET_TEXT_MAX];
        const struct promise_set set = parsed(cases[i].resource, cases[i].text);
        assert_string_equal(promise_set_format(&set, text), cases[i].again);
    }
}

static void assert_same(const struct promise_set *a, const struct promise_set *b)
{
    assert_int_equal(a->resource, b->resource);
    assert_int_equal(a->n, b->n);
    for (unsigned i = 0; i < a->n; i++) {
        assert_int_equal(a->list[i].kind, b->list[i].kind);
        assert_int_equal(a->list[i].metric, b->list[i].metric);
        assert_int_equal(a->list[i].per_mille, b->list[i].per_mille);
        assert_int_equal(a->list[i].value, b->list[i].value);
    }
}

// Any value of any metric is read back as it was printed.
static void test_round_trip(void **state)
{
    (void)state;
    static const char *const keys[PROMISE_METRICS] = {
        [PROMISE_BANDWIDTH] = "reserve", [PROMISE_OPERATIONS] = "limit", [PROMISE_LATENCY] = "latency",
        [PROMISE_UTILIZATION] = "limit", [PROMISE_CORES] = "reserve",    [PROMISE_BIT_RATE] = "limit",
        [PROMISE_PACKETS] = "reserve"};
    static const enum promise_resource resources[PROMISE_METRICS] = {
        [PROMISE_CORES] = PROMISE_CPU, [PROMISE_BIT_RATE] = PROMISE_LINK, [PROMISE_PACKETS] = PROMISE_LINK};
    uint64_t random = 88172645463325252ull; // xorshift64 (Marsaglia 2003)
    for (unsigned i = 0; i < 20000; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        const enum promise_metric metric = (enum promise_metric)(random % PROMISE_METRICS);
        uint64_t value = 1 + (random >> 8) % PROMISE_VALUE_MAX;
        value >>= random % 50;
        if (value == 0 || (metric == PROMISE_UTILIZATION && value > 1000000))
            value = 1;
        char number[PROMISE_TEXT_MAX], text[PROMISE_SET_TEXT_MAX] = "p0.1 < ";
        promise_format_value(metric, value, number);
        strcpy(metric == PROMISE_LATENCY ? text + strlen(text) : text, number);
        struct promise_set set = {.resource = resources[metric]}, again;
        struct tv_error err = {0};
        if (promise_set_add(&set, keys[metric], text, &err) != 0 || set.list[0].value != value || set.list[0].metric != metric)
            fail_msg("%llu came out as '%s': %s", (unsigned long long)value, text, err.text);
        again = parsed(set.resource, promise_set_format(&set, text));
        assert_same(&again, &set);
    }
}

static struct promise_set saved_and_loaded(struct promise_set set, int expected, struct tv_error *err)
{
    void *buf;
    size_t len;
    struct state *s = state_create_save();
    promise_set_state(&set, s);
    assert_int_equal(state_finish(s, &buf, &len, NULL), 0);
    state_destroy(s);
    struct promise_set again = {0};
    s = state_create_load(buf, len);
    promise_set_state(&again, s);
    assert_int_equal(state_finish(s, NULL, NULL, err), expected);
    state_destroy(s);
    free(buf);
    return again;
}

static void test_state(void **state)
{
    (void)state;
    struct tv_error err = {0};
    const struct promise_set set = parsed(PROMISE_DISK, "reserve: 40MB/s, limit: 300 iops, latency: p99 < 5ms, weight: 7");
    const struct promise_set again = saved_and_loaded(set, 0, &err);
    assert_same(&again, &set);

    // Bytes that no text could have made.
    static const struct promise wrong[] = {
        {PROMISE_KINDS, PROMISE_BANDWIDTH, 0, 1},        {PROMISE_RESERVE, PROMISE_METRICS, 0, 1},
        {PROMISE_RESERVE, PROMISE_CORES, 0, 1},          {PROMISE_RESERVE, PROMISE_BANDWIDTH, 990, 1},
        {PROMISE_RESERVE, PROMISE_LATENCY, 0, 1},        {PROMISE_RESERVE, PROMISE_LATENCY, 1000, 1},
        {PROMISE_LIMIT, PROMISE_LATENCY, 990, 1},        {PROMISE_WEIGHT, PROMISE_OPERATIONS, 0, 1},
        {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, 0},      {PROMISE_RESERVE, PROMISE_BANDWIDTH, 0, PROMISE_VALUE_MAX + 1},
        {PROMISE_WEIGHT, PROMISE_UTILIZATION, 0, 10001}, {PROMISE_LIMIT, PROMISE_UTILIZATION, 0, 1000001},
    };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        const struct promise_set bad = {.resource = PROMISE_DISK, .n = 1, .list = {wrong[i]}};
        assert_int_equal(saved_and_loaded(bad, -EINVAL, &err).n, 0);
    }
    const struct promise_set twice = {.resource = PROMISE_DISK,
                                      .n = 2,
                                      .list = {{PROMISE_LIMIT, PROMISE_BANDWIDTH, 0, 1}, {PROMISE_LIMIT, PROMISE_BANDWIDTH, 0, 2}}};
    assert_int_equal(saved_and_loaded(twice, -EINVAL, &err).n, 0);
    assert_non_null(strstr(err.text, "is there already"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),  cmocka_unit_test(test_sets),   cmocka_unit_test(test_entries),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_format), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
