// Admission: what fits is taken, what does not is refused with promises, sum and capacity in the message.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "promise/admit.h"

enum { HOLDERS_MAX = 8 };
static const struct promise_capacity nvme = {.name = "device 'nvme0'", .share_max = PROMISE_SHARE_MAX_DEFAULT};

// Holders of a device that does 400MB/s and 10000 requests a second with what each asks for, and takes 1 ms.
struct house {
    struct promise_set sets[HOLDERS_MAX];
    struct promise_holder holders[HOLDERS_MAX];
    size_t n;
    struct tv_error err;
};

static struct promise_holder *join(struct house *h, enum promise_resource resource, const char *name, const char *promises)
{
    struct tv_error err = {0};
    if (promise_set_parse(&h->sets[h->n], resource, promises, &err) != 0)
        fail_msg("%s", err.text);
    struct promise_holder *holder = &h->holders[h->n];
    *holder = (struct promise_holder){.name = name, .set = &h->sets[h->n]};
    holder->alone[PROMISE_BANDWIDTH] = 400000000;
    holder->alone[PROMISE_OPERATIONS] = 10000;
    holder->alone[PROMISE_LATENCY] = 1000000;
    holder->alone[PROMISE_CORES] = 8000000; // of CPUs: eight
    holder->alone[PROMISE_BIT_RATE] = 10000000000;
    h->n++;
    return holder;
}

static int admit(struct house *h)
{
    h->err = (struct tv_error){0};
    return promise_admit(&nvme, h->holders, h->n, &h->err);
}

static void refused(struct house *h, const char *message)
{
    assert_int_equal(admit(h), -EBUSY);
    assert_string_equal(h->err.text, message);
}

static void test_one_metric(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    assert_int_equal(admit(&h), 0);
    join(&h, PROMISE_DISK, "db", "reserve: 300MB/s");
    join(&h, PROMISE_DISK, "web", "reserve: 40MB/s"); // 85 % to the byte
    assert_int_equal(admit(&h), 0);
    assert_int_equal(promise_fit(&nvme, h.holders, h.n), 1000000);
    join(&h, PROMISE_DISK, "one", "reserve: 1B/s");
    refused(&h,
            "device 'nvme0' cannot keep 300MB/s (db) + 40MB/s (web) + 1B/s (one) = 340000001B/s: 340MB/s can be promised, 85% of "
            "its 400MB/s; reserve 1B/s less");
    struct house alone = {.n = 0};
    join(&alone, PROMISE_DISK, "db", "reserve: 500MB/s, limit: 600MB/s");
    refused(&alone,
            "device 'nvme0' cannot keep 500MB/s (db) = 500MB/s: 340MB/s can be promised, 85% of its 400MB/s; reserve 160MB/s less");
    assert_int_equal(promise_fit(&nvme, alone.holders, alone.n), 680000);
}

// What is to be done within a promised latency goes first, and takes what it takes; with a reserve of the same disk, the larger.
static void test_latencies_take_time(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    struct promise_holder *web = join(&h, PROMISE_DISK, "web", "latency: p99 < 5ms, reserve: 20%");
    join(&h, PROMISE_DISK, "db", "reserve: 200MB/s");
    web->latency_need = 350000;
    assert_int_equal(admit(&h), 0);
    assert_int_equal(promise_need(web), 350000);
    web->latency_need = 400000;
    refused(&h, "device 'nvme0' cannot keep 200MB/s (db: 50%) + latency: p99 < 5ms (web: 40%) = 90% of its time: 85% can be "
                "promised; reserve 5% less");
    web->latency_need = 0; // not known
    assert_int_equal(promise_need(web), 200000);
    assert_int_equal(admit(&h), 0);
    web->alone[PROMISE_LATENCY] = 5000000;
    web->latency_source = "for those of disk 'db'";
    refused(&h, "web: 'latency: p99 < 5ms' cannot be kept: device 'nvme0' itself takes 5ms for those of disk 'db'; promise more "
                "than that");
}

static void test_limits_and_weights_take_nothing(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    for (unsigned i = 0; i < HOLDERS_MAX; i++)
        join(&h, PROMISE_DISK, "d", "limit: 390MB/s and 9000 iops and 99%, weight: 10000, latency: p99 < 5ms");
    assert_int_equal(admit(&h), 0);
    assert_int_equal(promise_need(&h.holders[0]), 0);
}

static void test_metrics_together(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    join(&h, PROMISE_DISK, "db", "reserve: 40MB/s, latency: p99 < 5ms"); // 10 %
    join(&h, PROMISE_DISK, "web", "reserve: 5000 iops");                 // 50 %
    join(&h, PROMISE_DISK, "files", "utilization: 25%");
    assert_int_equal(admit(&h), 0);
    join(&h, PROMISE_DISK, "mail", "utilization: 1%");
    refused(
        &h,
        "device 'nvme0' cannot keep 5k iops (web: 50%) + 25% (files) + 40MB/s (db: 10%) + 1% (mail) = 86% of its time: 85% can be "
        "promised; reserve 1% less");
    // What a holder asks for makes the same promise cheaper or dearer.
    h.holders[1].alone[PROMISE_OPERATIONS] = 20000;
    assert_int_equal(admit(&h), 0);
}

// The same requests serve all reserves of one holder.
static void test_the_largest_counts(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    join(&h, PROMISE_DISK, "db", "reserve: 200MB/s and 6000 iops and 50%");
    assert_int_equal(promise_need(&h.holders[0]), 600000);
    assert_int_equal(admit(&h), 0);
    // Rounded up: a third of the device is more than 33.3333 %.
    h.holders[0].alone[PROMISE_OPERATIONS] = 18000;
    h.holders[0].alone[PROMISE_BANDWIDTH] = 600000000;
    promise_set_parse(&h.sets[0], PROMISE_DISK, "reserve: 200MB/s", NULL);
    assert_int_equal(promise_need(&h.holders[0]), 333334);
}

// The message has room for the largest; the remedy stands at its end whatever the names are.
static void test_many(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    for (unsigned i = 0; i < HOLDERS_MAX; i++)
        join(&h, PROMISE_DISK, "a disk with a name that takes more room than a message has for each of them, which is cut",
             i % 2 ? "reserve: 20.0001%" : "reserve: 41.234567MB/s");
    assert_int_equal(admit(&h), -EBUSY);
    assert_non_null(strstr(h.err.text, "cannot keep 20.0001% (a disk with a name that takes mo) + "));
    assert_non_null(strstr(h.err.text, " + 4 others = 121.2352% of its time: 85% can be promised; reserve 36.2352% less"));
}

static void test_latency_floor(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    struct promise_holder *db = join(&h, PROMISE_DISK, "disk 'db'", "latency: p99 < 1ms");
    refused(&h, "disk 'db': 'latency: p99 < 1ms' cannot be kept: device 'nvme0' itself takes 1ms; promise more than that");
    db->alone[PROMISE_LATENCY] = 999999;
    assert_int_equal(admit(&h), 0);
    db->alone[PROMISE_LATENCY] = 0; // not known
    assert_int_equal(admit(&h), 0);
}

static void test_not_known(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    struct promise_holder *db = join(&h, PROMISE_DISK, "disk 'db'", "reserve: 10 iops and 5%");
    db->alone[PROMISE_OPERATIONS] = 0;
    assert_int_equal(admit(&h), -ENODATA);
    assert_string_equal(h.err.text,
                        "disk 'db': 'reserve: 10 iops': what device 'nvme0' does in this metric is not known yet: promise a "
                        "percentage, or measure it first");
    assert_int_equal(promise_need(db), 50000);
}

static void test_cpus_and_links(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    join(&h, PROMISE_CPU, "vm a", "reserve: 4 cores");
    join(&h, PROMISE_CPU, "vm b", "reserve: 2.8 cores");
    assert_int_equal(admit(&h), 0);
    join(&h, PROMISE_CPU, "vm c", "reserve: 2%");
    assert_int_equal(admit(&h), -EBUSY);
    assert_non_null(strstr(h.err.text, "4 cores (vm a: 50%) + 2.8 cores (vm b: 35%) + 2% (vm c) = 87% of its time"));
    struct house l = {.n = 0};
    join(&l, PROMISE_LINK, "a", "reserve: 8Gbit/s");
    join(&l, PROMISE_LINK, "b", "reserve: 600Mbit/s");
    refused(&l, "device 'nvme0' cannot keep 8Gbit/s (a) + 600Mbit/s (b) = 8.6Gbit/s: 8.5Gbit/s can be promised, 85% of its "
                "10Gbit/s; reserve "
                "100Mbit/s less");
}

// No sum is too large for the arithmetic.
static void test_extremes(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    for (unsigned i = 0; i < HOLDERS_MAX; i++)
        join(&h, PROMISE_DISK, "d", "reserve: 1000TB/s")->alone[PROMISE_BANDWIDTH] = 1;
    assert_int_equal(admit(&h), -EBUSY);
    assert_int_equal(promise_fit(&nvme, h.holders, h.n), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_metric),
        cmocka_unit_test(test_latencies_take_time),
        cmocka_unit_test(test_limits_and_weights_take_nothing),
        cmocka_unit_test(test_metrics_together),
        cmocka_unit_test(test_the_largest_counts),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_latency_floor),
        cmocka_unit_test(test_not_known),
        cmocka_unit_test(test_cpus_and_links),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
