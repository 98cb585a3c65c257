// Limits, reserves and turns of networks, in simulated time: who has what of a worker on which several compete.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/latency.h"
#include "router/pace.h"

#define HZ 2000000000ull
#define US (HZ / 1000000)
#define QUANTUM (20 * US)
#define ALWAYS UINT64_MAX

// A network whose packets have one size and one cost.
struct load {
    uint64_t bits, cycles; // a packet
    uint64_t interval;     // between packets that come; 0: there are always more
    uint64_t until;        // then no more come
    unsigned most;         // packets of a burst; 0: 32
    // the rig's
    struct pace pace;
    struct pace_terms terms;
    uint64_t next, packets, slept;
};

static uint64_t now, stolen; // of what has passed, the host ran something else for so long

static uint64_t own(void)
{
    return now - stolen;
}

static void begin(struct load *loads, unsigned n)
{
    now = 12345;
    stolen = 0;
    for (unsigned i = 0; i < n; i++) {
        atomic_store(&loads[i].terms.weight, DRR_WEIGHT_DEFAULT);
        pace_init(&loads[i].pace, &loads[i].terms, HZ, now, own());
        loads[i].next = now;
        loads[i].until = loads[i].until ? loads[i].until : ALWAYS;
    }
}

static void set(_Atomic uint64_t *term, uint64_t value)
{
    atomic_store(term, value);
}

static unsigned arrived(struct load *load, unsigned most)
{
    unsigned n = 0;
    while (n < most && now < load->until && (!load->interval || load->next <= now)) {
        load->next += load->interval;
        n++;
    }
    return n;
}

// As worker.c does it.
static unsigned serve_burst(struct load *load, bool *has_turn)
{
    const unsigned asked = pace_budget(&load->pace, load->most ? load->most : 32), n = asked ? arrived(load, asked) : 0;
    load->pace.is_backlogged = asked && n == asked;
    now += n ? n * load->cycles : 50;
    const uint64_t cycles = n ? n * load->cycles : 50;
    *has_turn = *has_turn && drr_charge(&load->pace.drr, cycles, cycles);
    if (n) {
        const struct pace_burst burst = {n, n * load->bits, cycles, n == asked};
        pace_charge(&load->pace, &burst);
    } else {
        pace_found_empty(&load->pace);
    }
    load->packets += n;
    return n;
}

static void serve(struct load *load)
{
    pace_look(&load->pace, now, own());
    bool has_turn = drr_begin(&load->pace.drr, QUANTUM);
    unsigned n = 1;
    while (n && (has_turn || pace_is_owed(&load->pace))) {
        n = serve_burst(load, &has_turn);
        pace_look(&load->pace, now, own());
    }
}

static void run(struct load *loads, unsigned n, uint64_t cycles)
{
    const uint64_t end = now + cycles;
    while (now < end)
        for (unsigned i = 0; i < n; i++)
            serve(&loads[i]);
}

static void apply(struct load *load)
{
    pace_apply(&load->pace);
}

static void assert_near(uint64_t value, uint64_t wanted, uint64_t per_mille)
{
    if (value < wanted - wanted * per_mille / 1000 || value > wanted + wanted * per_mille / 1000)
        fail_msg("%llu, but %llu was wanted", (unsigned long long)value, (unsigned long long)wanted);
}

// In each second by itself, at rates from a packet now and then to millions, alone and where turns are long.
static void test_limit_is_exact(void **state)
{
    (void)state;
    static const uint64_t rates[] = {1000000, 10000000, 1000000000, 20000000000};
    for (unsigned i = 0; i < 4; i++) {
        struct load loads[2] = {{.bits = 12000, .cycles = 200}, {.bits = 512, .cycles = 100}};
        begin(loads, 2);
        set(&loads[0].terms.limit[PACE_BITS], rates[i]);
        apply(&loads[0]);
        for (unsigned second = 0; second < 3; second++) {
            const uint64_t before = loads[0].packets;
            run(loads, 2, HZ);
            const uint64_t bits = (loads[0].packets - before) * 12000;
            assert_true(bits <= rates[i] + rates[i] / 100 + 12000);
            assert_true(bits >= rates[i] - rates[i] / 100 - 12000);
        }
    }
}

static void test_limits_in_packets_and_cycles(void **state)
{
    (void)state;
    struct load loads[2] = {{.bits = 512, .cycles = 100}, {.bits = 512, .cycles = 100}};
    begin(loads, 2);
    set(&loads[0].terms.limit[PACE_PACKETS], 123456);
    set(&loads[1].terms.limit[PACE_CYCLES], HZ / 4);
    apply(&loads[0]);
    apply(&loads[1]);
    run(loads, 2, HZ);
    assert_near(loads[0].packets, 123456, 10);
    assert_near(counter_get(&loads[1].pace.usage.cycles), HZ / 4, 10);
    // The narrower of two holds, and a change does at once.
    set(&loads[0].terms.limit[PACE_BITS], 512 * 1000);
    apply(&loads[0]);
    const uint64_t before = loads[0].packets;
    run(loads, 2, HZ);
    assert_near(loads[0].packets - before, 1000, 10);
}

// What was not used is not saved up, but for what a burst may be.
static void test_limit_saves_no_more_than_a_burst(void **state)
{
    (void)state;
    struct load load = {.bits = 8000, .cycles = 100, .until = 1}; // nothing
    begin(&load, 1);
    set(&load.terms.limit[PACE_BITS], 1000000000);
    apply(&load);
    run(&load, 1, HZ);
    assert_int_equal(load.packets, 0);
    load.until = ALWAYS;
    run(&load, 1, HZ / 1000);
    assert_true(load.packets * 8000 <= 1000000000 / 1000 * (PACE_BURST_US / 1000 + 1) + 2 * 8000);
}

static void test_waits_for_enough(void **state)
{
    (void)state;
    struct load load = {.bits = 8000, .cycles = 100};
    begin(&load, 1);
    set(&load.terms.limit[PACE_BITS], 1000000000);
    apply(&load);
    assert_int_equal(pace_wait(&load.pace) > 0, true);
    run(&load, 1, HZ / 100);
    pace_look(&load.pace, now, own());
    if (!load.pace.is_limited)
        while (pace_budget(&load.pace, 32)) {
            bool has_turn = true;
            serve_burst(&load, &has_turn);
        }
    const uint64_t wait = pace_wait(&load.pace);
    assert_true(wait > 0 && wait < HZ / 1000 * PACE_BURST_US / 1000);
    pace_look(&load.pace, now + wait / 2, own() + wait / 2);
    assert_int_equal(pace_budget(&load.pace, 32), 0);
    pace_look(&load.pace, now + wait, own() + wait);
    assert_true(pace_budget(&load.pace, 32) >= 31);
    assert_int_equal(pace_wait(&load.pace), 0);
}

// A flow that needs 60 % of the CPU for what is reserved, and would have a tenth of it by weight.
static void test_reserve_is_met(void **state)
{
    (void)state;
    struct load loads[10];
    for (unsigned i = 0; i < 10; i++)
        loads[i] = (struct load){.bits = 512, .cycles = i ? 1500 : 200};
    begin(loads, 10);
    const uint64_t reserved = HZ * 6 / 10 / 200; // packets/s
    set(&loads[0].terms.reserve[PACE_PACKETS], reserved);
    apply(&loads[0]);
    run(loads, 10, HZ);
    assert_near(loads[0].packets, reserved, 5);
    for (unsigned i = 1; i < 10; i++) // the rest by weight, and nothing is left
        assert_near(loads[i].packets * 1500, HZ * 4 / 10 / 9, 20);
}

// The larger of the reserve and the share by weight, not both.
static void test_reserve_below_share_adds_nothing(void **state)
{
    (void)state;
    struct load loads[2] = {{.bits = 512, .cycles = 100}, {.bits = 512, .cycles = 100}};
    begin(loads, 2);
    set(&loads[0].terms.reserve[PACE_CYCLES], HZ * 4 / 10);
    set(&loads[0].terms.reserve[PACE_BITS], 1000000);
    apply(&loads[0]);
    run(loads, 2, HZ);
    assert_near(loads[0].packets * 100, HZ / 2, 10);
    assert_near(loads[1].packets * 100, HZ / 2, 10);
}

// What is reserved and not asked for others have; and it has not been saved up when it is asked for again.
static void test_reserve_is_work_conserving(void **state)
{
    (void)state;
    struct load loads[2] = {{.bits = 512, .cycles = 100, .interval = 20000}, {.bits = 512, .cycles = 100}};
    begin(loads, 2);
    set(&loads[0].terms.reserve[PACE_PACKETS], HZ * 8 / 10 / 100);
    apply(&loads[0]);
    run(loads, 2, HZ);
    assert_near(loads[0].packets, HZ / 20000, 2); // all that came
    assert_true(loads[1].packets * 100 > HZ * 9 / 10);
    loads[0].interval = 0;
    const uint64_t before = loads[1].packets;
    run(loads, 2, HZ / 10);
    assert_near((loads[1].packets - before) * 100, HZ / 10 * 2 / 10, 20);
}

// Packets that have become twenty times as dear are carried within what their network is entitled to; its neighbour's reserve
// stands.
static void test_dear_packets_take_no_ones_reserve(void **state)
{
    (void)state;
    struct load loads[3] = {{.bits = 512, .cycles = 4000}, {.bits = 512, .cycles = 200}, {.bits = 512, .cycles = 200}};
    begin(loads, 3);
    set(&loads[0].terms.reserve[PACE_PACKETS], HZ / 10 / 200);
    set(&loads[0].terms.entitled, HZ / 10);
    set(&loads[1].terms.reserve[PACE_PACKETS], HZ * 7 / 10 / 200);
    set(&loads[1].terms.entitled, HZ * 71 / 100);
    apply(&loads[0]);
    apply(&loads[1]);
    run(loads, 3, HZ);
    assert_near(loads[1].packets, HZ * 7 / 10 / 200, 10);
    assert_true(counter_get(&loads[0].pace.usage.cycles) >= HZ / 10 * 98 / 100); // its own share is whole
    assert_true(loads[2].packets * 200 > HZ / 20);
}

// The host leaves the worker half of its CPU: reserves have what they can, and the rest is not left with nothing.
static void test_half_of_a_cpu(void **state)
{
    (void)state;
    struct load loads[2] = {{.bits = 512, .cycles = 200}, {.bits = 512, .cycles = 200}};
    begin(loads, 2);
    const uint64_t began = own();
    set(&loads[0].terms.reserve[PACE_PACKETS], HZ * 8 / 10 / 200);
    set(&loads[0].terms.entitled, HZ * 84 / 100);
    apply(&loads[0]);
    for (unsigned i = 0; i < 200; i++) {
        run(loads, 2, HZ / 200);
        now += HZ / 200;
        stolen += HZ / 200;
    }
    assert_near(counter_get(&loads[0].pace.usage.cycles), (own() - began) * 84 / 100, 10);
    assert_near(counter_get(&loads[1].pace.usage.cycles), (own() - began) * 16 / 100, 50);
}

// Waiting counts while there is more than was taken, and not while an own limit is in the way.
static void test_waiting(void **state)
{
    (void)state;
    struct load loads[3] = {
        {.bits = 512, .cycles = 100}, {.bits = 512, .cycles = 100, .interval = 100000}, {.bits = 512, .cycles = 100}};
    begin(loads, 3);
    set(&loads[2].terms.limit[PACE_PACKETS], 1000);
    apply(&loads[2]);
    run(loads, 3, HZ);
    assert_near(counter_get(&loads[0].pace.usage.waited_cycles), HZ, 10);
    assert_true(counter_get(&loads[1].pace.usage.waited_cycles) < HZ / 100);
    assert_true(counter_get(&loads[2].pace.usage.waited_cycles) < HZ / 20);
}

// A burst of dear packets is a single one, and so each of those that come now and then is all that was asked for: none of them waits
// for as long as it takes to carry it.
static void test_single_packets_do_not_wait(void **state)
{
    (void)state;
    struct load loads[2] = {{.bits = 512, .cycles = 100000, .interval = 2000000, .most = 1},
                            {.bits = 512, .cycles = 100000, .interval = 50000, .most = 1}};
    begin(loads, 1);
    run(loads, 1, HZ);
    assert_near(loads[0].packets, HZ / 2000000, 2);
    assert_int_equal(counter_get(&loads[0].pace.usage.waited_cycles), 0);
    begin(loads + 1, 1); // twice as many as can be carried: some wait all the time
    run(loads + 1, 1, HZ);
    assert_near(counter_get(&loads[1].pace.usage.waited_cycles), HZ, 10);
}

// Terms at the ends of their ranges, and a clock that jumps by hours.
static void test_extremes(void **state)
{
    (void)state;
    struct load load = {.bits = 1u << 24, .cycles = 1000000};
    begin(&load, 1);
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        set(&load.terms.limit[i], i % 2 ? 1 : 1000000000000000ull);
        set(&load.terms.reserve[i], i % 2 ? 1 : 1000000000000000ull);
    }
    apply(&load);
    for (unsigned i = 0; i < 100; i++) {
        serve(&load);
        now += HZ * 100000;
    }
    assert_true(load.packets >= 99);
    set(&load.terms.limit[PACE_PACKETS], 0);
    apply(&load);
    assert_true(load.pace.limits == (1u << PACE_BITS | 1u << PACE_CYCLES));
}

static void test_latency_buckets(void **state)
{
    (void)state;
    unsigned last = 0;
    for (uint64_t cycles = 0; cycles < 1ull << 50; cycles += 1 + cycles / 50) {
        const unsigned bucket = latency_bucket_of(cycles);
        assert_true(bucket < LATENCY_BUCKETS && bucket >= last && bucket <= last + 1);
        if (cycles < 1ull << 47) {
            assert_true(latency_largest_in(bucket) >= cycles && latency_largest_in(bucket) - cycles <= cycles / 8);
            assert_int_equal(latency_bucket_of(latency_largest_in(bucket)), bucket);
        }
        last = bucket;
    }
    assert_int_equal(latency_bucket_of(UINT64_MAX), LATENCY_BUCKETS - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit_is_exact),
        cmocka_unit_test(test_limits_in_packets_and_cycles),
        cmocka_unit_test(test_limit_saves_no_more_than_a_burst),
        cmocka_unit_test(test_waits_for_enough),
        cmocka_unit_test(test_reserve_is_met),
        cmocka_unit_test(test_reserve_below_share_adds_nothing),
        cmocka_unit_test(test_reserve_is_work_conserving),
        cmocka_unit_test(test_dear_packets_take_no_ones_reserve),
        cmocka_unit_test(test_half_of_a_cpu),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_single_packets_do_not_wait),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_latency_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
