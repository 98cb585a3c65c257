// Verdicts, on a simulated clock: what breaks a promise and what does not, since when, by how much, who had it; what is told; what
// is kept over a save; and that nothing is allocated while samples come.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/state.h"
#include "promise/watch.h"

enum { STEP_NS = 10000000, STEPS = 100, HOLDERS_MAX = 8, EVENTS_MAX = 64 }; // 100 samples a window
enum { MB = 1000000 };

// ---- allocations, counted: the linker turns the watch's calls to these

static unsigned allocations;
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    allocations++;
    return __real_realloc(old, size);
}

// ---- the rig: a resource, its holders, and what each gets in a second

// What a holder does by the second, and for how many millionths of it its requests wait.
struct load {
    uint64_t amount[PROMISE_METRICS];
    uint32_t waits;
};

struct rig {
    struct promise_watch *w;
    uint64_t now;
    struct load loads[HOLDERS_MAX];
    bool there[HOLDERS_MAX];
    struct promise_event events[EVENTS_MAX];
    unsigned n_events;
};

static void note(void *opaque, const struct promise_event *event)
{
    struct rig *r = opaque;
    assert_true(r->n_events < EVENTS_MAX);
    r->events[r->n_events++] = *event;
}

static struct promise_watch *new_watch(struct rig *r)
{
    const struct promise_watch_options options = {PROMISE_WATCH_DEFAULTS, .holders_max = HOLDERS_MAX, .event = note, .opaque = r};
    struct promise_watch *w = promise_watch_create(&options, r->now);
    assert_non_null(w);
    return w;
}

static int setup(void **state)
{
    struct rig *r = test_calloc(1, sizeof(*r));
    r->now = 1000 * NS_PER_S;
    r->w = new_watch(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    promise_watch_destroy(r->w);
    test_free(r);
    return 0;
}

static struct promise_set parsed(enum promise_resource resource, const char *text)
{
    struct promise_set set;
    struct tv_error err = {0};
    if (promise_set_parse(&set, resource, text, &err) != 0)
        fail_msg("%s", err.text);
    return set;
}

static uint32_t join_resource(struct rig *r, enum promise_resource resource, const char *name, const char *promises)
{
    uint32_t slot;
    const struct promise_set set = parsed(resource, promises);
    assert_int_equal(promise_watch_join(r->w, name, &set, r->now, &slot, NULL), 0);
    assert_string_equal(promise_watch_name(r->w, slot), name);
    r->there[slot] = true;
    return slot;
}

static uint32_t join(struct rig *r, const char *name, const char *promises)
{
    return join_resource(r, PROMISE_DISK, name, promises);
}

// A disk's load: requests of one size, with this part of the device's time.
static void disk_load(struct rig *r, uint32_t slot, uint64_t bytes, uint64_t requests, uint32_t busy, uint32_t waits)
{
    r->loads[slot] = (struct load){.waits = waits};
    r->loads[slot].amount[PROMISE_BANDWIDTH] = bytes;
    r->loads[slot].amount[PROMISE_OPERATIONS] = requests;
    r->loads[slot].amount[PROMISE_UTILIZATION] = busy * 1000ull;
}

// The part of what comes by the second that falls into a step, without a rest over the second.
static uint64_t in_step(uint64_t by_second, unsigned step)
{
    return by_second * (step + 1) / STEPS - by_second * step / STEPS;
}

static void run_to(struct rig *r, struct promise_watch *w, unsigned step)
{
    r->now += STEP_NS;
    for (uint32_t i = 0; i < HOLDERS_MAX; i++) {
        struct promise_sample sample = {.waited_ns = (uint64_t)STEP_NS / 1000000 * r->loads[i].waits};
        for (unsigned m = 0; m < PROMISE_METRICS; m++)
            sample.amount[m] = in_step(r->loads[i].amount[m], step);
        if (r->there[i])
            promise_watch_add(w, i, &sample);
    }
    promise_watch_tick(w, r->now);
}

static void run(struct rig *r, unsigned seconds)
{
    for (unsigned i = 0; i < seconds * STEPS; i++)
        run_to(r, r->w, i % STEPS);
}

static struct promise_verdict verdict(const struct rig *r, uint32_t slot, unsigned index)
{
    struct promise_verdict verdicts[PROMISE_SET_MAX];
    assert_true(index < promise_watch_verdicts(r->w, slot, verdicts));
    return verdicts[index];
}

static bool kept(const struct rig *r, uint32_t slot)
{
    return verdict(r, slot, 0).kept;
}

static bool is_held_by(const struct rig *r, uint32_t slot, const char *name, uint32_t held)
{
    const struct promise_verdict v = verdict(r, slot, 0);
    return !strcmp(v.held_by, name) && v.held == held;
}

enum { ALL = 1000000, HALF = 500000 }; // millionths

// ---- reserves

static void test_reserve(void **state)
{
    struct rig *r = *state;
    const uint64_t start = r->now;
    const uint32_t db = join(r, "db", "reserve: 40MB/s"), hog = join(r, "hog", "");
    disk_load(r, db, 40 * MB, 10000, 200000, ALL);
    disk_load(r, hog, 160 * MB, 1000, 800000, ALL);
    run(r, 3);
    struct promise_verdict v = verdict(r, db, 0);
    assert_true(v.kept && v.owed && v.since_ns == start && v.achieved == 40 * MB && v.goal == 40 * MB);
    assert_true(v.lack == 0 && !v.held_by[0]);
    disk_load(r, db, 39600000, 9900, 198000, ALL); // 1 % is forgiven
    run(r, 1);
    assert_true(kept(r, db) && r->n_events == 0);

    disk_load(r, db, 30 * MB, 7500, 150000, ALL);
    disk_load(r, hog, 170 * MB, 1000, 850000, ALL);
    run(r, 2);
    v = verdict(r, db, 0);
    assert_true(!v.kept && v.since_ns == start + 4 * NS_PER_S);
    assert_int_equal(v.achieved, 30 * MB);
    assert_int_equal(v.lack, 250000);
    assert_string_equal(v.held_by, "hog");
    assert_int_equal(v.held, 850000);
    assert_int_equal(r->n_events, 1); // once, not with every window
    assert_true(!r->events[0].verdict.kept && r->events[0].slot == db);
    assert_string_equal(r->events[0].name, "db");
    assert_string_equal(r->events[0].verdict.held_by, "hog");

    disk_load(r, db, 40 * MB, 10000, 200000, ALL);
    run(r, 2);
    v = verdict(r, db, 0);
    assert_true(!v.kept && v.lack == 250000 && !strcmp(v.held_by, "hog")); // two good windows are not yet three; the figures stay
    run(r, 1);
    v = verdict(r, db, 0);
    assert_true(v.kept && v.since_ns == start + 6 * NS_PER_S && v.lack == 0); // since the first of the three
    assert_int_equal(r->n_events, 2);
    assert_true(r->events[1].verdict.kept && !r->events[1].verdict.held_by[0]);
    assert_true(v.hour.judged_ms == 9000 && v.hour.broken_ms == 2000);
}

static void test_good_windows_must_follow_each_other(void **state)
{
    struct rig *r = *state;
    const uint32_t db = join(r, "db", "reserve: 100 iops");
    for (unsigned i = 0; i < 6; i++) {
        disk_load(r, db, 0, i % 3 ? 100 : 50, HALF, ALL);
        run(r, 1);
    }
    assert_true(!kept(r, db) && r->n_events == 1);
    run(r, 1);
    assert_true(kept(r, db));
}

static void test_nothing_is_owed_to_who_does_not_ask(void **state)
{
    struct rig *r = *state;
    const uint32_t db = join(r, "db", "reserve: 40MB/s");
    disk_load(r, db, 0, 0, 0, 0);
    run(r, 2);
    struct promise_verdict v = verdict(r, db, 0);
    assert_true(v.kept && !v.owed && v.all.judged_ms == 0);
    disk_load(r, db, 20 * MB, 5000, 100000, HALF); // half of it, for half the time
    run(r, 1);
    v = verdict(r, db, 0);
    assert_true(v.kept && v.owed && v.goal == 20 * MB);
    disk_load(r, db, 19 * MB, 5000, 95000, HALF);
    run(r, 1);
    v = verdict(r, db, 0);
    assert_true(!v.kept && v.lack == 50000);
}

// Requests of 4 MB against 2 MB/s: each other second sees none or one of them.
static void test_large_requests(void **state)
{
    struct rig *r = *state;
    const uint32_t limited = join(r, "limited", "limit: 2MB/s"), reserved = join(r, "reserved", "reserve: 10MB/s");
    for (unsigned i = 0; i < 10; i++) {
        disk_load(r, limited, i % 2 ? 4 * MB : 0, i % 2, 10000, 0);
        disk_load(r, reserved, i % 2 ? 12 * MB : 8 * MB, i % 2 ? 3 : 2, 10000, ALL);
        run(r, 1);
        assert_true(kept(r, limited) && kept(r, reserved));
    }
    disk_load(r, limited, 8 * MB, 2, 10000, 0);
    disk_load(r, reserved, 4 * MB, 1, 10000, ALL);
    run(r, 1);
    assert_true(!kept(r, limited) && !kept(r, reserved));
}

static void test_other_units(void **state)
{
    struct rig *r = *state;
    const uint32_t disk = join(r, "disk", "utilization: 25%");
    const uint32_t vm = join_resource(r, PROMISE_CPU, "vm", "reserve: 1.5 cores, limit: 2 cores");
    const uint32_t link = join_resource(r, PROMISE_LINK, "link", "limit: 100Mbit/s and 10k packets/s");
    disk_load(r, disk, 1, 1000, 250000, ALL);
    r->loads[vm] = (struct load){.amount = {[PROMISE_CORES] = 3 * NS_PER_S / 2}, .waits = ALL};
    r->loads[link] = (struct load){.amount = {[PROMISE_BIT_RATE] = 100 * MB, [PROMISE_PACKETS] = 10000}};
    run(r, 1);
    assert_true(kept(r, disk) && kept(r, vm) && verdict(r, vm, 1).kept && kept(r, link) && verdict(r, link, 1).kept);
    assert_int_equal(verdict(r, disk, 0).achieved, 250000);
    assert_int_equal(verdict(r, vm, 0).achieved, 1500000);
    disk_load(r, disk, 1, 1000, 240000, ALL);
    r->loads[vm].amount[PROMISE_CORES] = 9 * NS_PER_S / 4;
    r->loads[link].amount[PROMISE_BIT_RATE] = 110 * MB;
    run(r, 1);
    assert_true(!kept(r, disk) && kept(r, vm) && !verdict(r, vm, 1).kept && !kept(r, link) && verdict(r, link, 1).kept);
    assert_int_equal(verdict(r, disk, 0).lack, 40000);
    assert_int_equal(verdict(r, vm, 1).lack, 125000);
    assert_int_equal(verdict(r, link, 0).lack, 100000);
    assert_string_equal(verdict(r, link, 0).held_by, promise_watch_name(r->w, link)); // who exceeds its limit holds it itself
}

// ---- latencies

static void test_latency(void **state)
{
    struct rig *r = *state;
    const uint32_t web = join(r, "web", "latency: p99 < 5ms"), hog = join(r, "hog", "reserve: 10%");
    disk_load(r, web, MB, 1000, 100000, HALF);
    disk_load(r, hog, MB, 1000, 900000, ALL);
    r->loads[web].amount[PROMISE_LATENCY] = 10; // late ones: 1 %
    run(r, 1);
    assert_true(kept(r, web) && verdict(r, web, 0).achieved == 10000 && verdict(r, web, 0).goal == 10000);
    r->loads[web].amount[PROMISE_LATENCY] = 11;
    run(r, 1);
    struct promise_verdict v = verdict(r, web, 0);
    assert_true(!v.kept && v.achieved == 11000 && v.lack == 1000 && !strcmp(v.held_by, "hog"));
    assert_int_equal(v.held, 800000); // what it had beyond its reserve
    disk_load(r, web, 0, 0, 0, 0);
    run(r, 3);
    assert_true(kept(r, web) && !verdict(r, web, 0).owed);
    disk_load(r, web, 0, 0, 0, ALL); // none is late, since none is done
    run(r, 1);
    v = verdict(r, web, 0);
    assert_true(!v.kept && v.achieved == 1000000);
}

// ---- weights: the first experiment of the deck

static void test_weights(void **state)
{
    struct rig *r = *state;
    const uint32_t greedy = join(r, "vm1", "weight: 100");
    uint32_t others[3];
    for (unsigned i = 0; i < 3; i++)
        others[i] = join(r, "vm", "weight: 100");
    disk_load(r, greedy, 1, 1000, 400000, ALL); // first come, first served: twice the requests, twice the share
    for (unsigned i = 0; i < 3; i++)
        disk_load(r, others[i], 1, 1000, 200000, ALL);
    run(r, 1);
    assert_true(kept(r, greedy));
    for (unsigned i = 0; i < 3; i++) {
        const struct promise_verdict v = verdict(r, others[i], 0);
        assert_true(!v.kept && v.goal == 250000 && v.achieved == 200000 && v.lack == 200000);
        assert_true(!strcmp(v.held_by, "vm1") && v.held == 150000);
    }
    disk_load(r, greedy, 1, 1000, 250000, ALL);
    for (unsigned i = 0; i < 3; i++)
        disk_load(r, others[i], 1, 1000, 250000 - 2000 * i, ALL);
    run(r, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_true(kept(r, others[i]));
    // One that asks for less leaves the rest to the others, and one with a reserve has it first.
    const struct promise_set first = parsed(PROMISE_DISK, "weight: 100, reserve: 50%");
    assert_int_equal(promise_watch_change(r->w, greedy, &first, r->now, NULL), 0);
    disk_load(r, greedy, 1, 1000, 500000, ALL);
    disk_load(r, others[0], 1, 1000, 60000, HALF);
    disk_load(r, others[1], 1, 1000, 220000, ALL);
    disk_load(r, others[2], 1, 1000, 220000, ALL);
    run(r, 2);
    assert_true(kept(r, greedy) && kept(r, others[0]) && kept(r, others[1]) && kept(r, others[2]));
    assert_int_equal(verdict(r, others[1], 0).goal, 220000);
    assert_false(verdict(r, others[0], 0).owed);
}

// Who waits for its own limit is not owed more.
static void test_weight_and_limit(void **state)
{
    struct rig *r = *state;
    const uint32_t limited = join(r, "limited", "weight: 100, limit: 1000 iops"), other = join(r, "other", "weight: 100");
    disk_load(r, limited, 1, 1000, 100000, ALL);
    disk_load(r, other, 1, 1000, 900000, ALL);
    run(r, 1);
    assert_true(kept(r, limited) && kept(r, other));
    assert_int_equal(verdict(r, other, 0).goal, 900000);
}

// ---- who had it

static void test_blame(void **state)
{
    struct rig *r = *state;
    const uint32_t db = join(r, "db", "reserve: 40MB/s"), fair = join(r, "fair", "reserve: 60MB/s"),
                   hog = join(r, "hog", "weight: 7");
    disk_load(r, db, 10 * MB, 1000, 100000, ALL);
    disk_load(r, fair, 60 * MB, 1000, 600000, ALL); // most of all, and no more than its reserve
    disk_load(r, hog, 30 * MB, 1000, 300000, ALL);
    run(r, 1);
    assert_true(!kept(r, db) && is_held_by(r, db, "hog", 300000));
    disk_load(r, fair, 90 * MB, 1000, 900000, ALL); // now a third of it is not: as much as the other has
    disk_load(r, hog, 0, 0, 0, 0);
    run(r, 1);
    assert_true(is_held_by(r, db, "fair", 300000));
    // A holder is never blamed for what it lacks itself, though it has most.
    const uint32_t web = join(r, "web", "latency: p99 < 5ms");
    disk_load(r, web, MB, 1000, 500000, ALL);
    r->loads[web].amount[PROMISE_LATENCY] = 100;
    run(r, 1);
    assert_true(!kept(r, web) && is_held_by(r, web, "fair", 300000));
    assert_string_equal(verdict(r, db, 0).held_by, "web");
    disk_load(r, web, 0, 0, 0, 0);
    disk_load(r, fair, 60 * MB, 1000, 600000, ALL); // nobody has more than its reserve: the device has become slower
    run(r, 1);
    assert_string_equal(verdict(r, db, 0).held_by, "");
    assert_int_equal(verdict(r, db, 0).held, 300000);
    // Who has left had it, and not who has its slot next.
    disk_load(r, hog, 0, 0, 400000, ALL);
    run(r, 1);
    assert_string_equal(verdict(r, db, 0).held_by, "hog");
    promise_watch_leave(r->w, hog);
    r->there[hog] = false;
    assert_null(promise_watch_name(r->w, hog));
    assert_int_equal(join(r, "next", ""), hog);
    assert_string_equal(verdict(r, db, 0).held_by, "hog");
    disk_load(r, hog, 0, 0, 0, 0);
    run(r, 1);
    assert_true(is_held_by(r, db, "", 300000));
}

// Where the resource itself takes as long as a latency that was promised, whoever has most of it is not to blame for that; for what
// else is broken he is.
static void test_slow_resource(void **state)
{
    struct rig *r = *state;
    const uint32_t web = join(r, "web", "latency: p99 < 5ms"), hog = join(r, "hog", "");
    disk_load(r, hog, 90 * MB, 1000, 700000, ALL);
    disk_load(r, web, MB, 1000, 100000, ALL);
    r->loads[web].amount[PROMISE_LATENCY] = 100;
    run(r, 1);
    assert_true(is_held_by(r, web, "hog", 700000) && !verdict(r, web, 0).by_resource);
    const struct promise_sample slow = {.is_slow = true};
    promise_watch_add(r->w, web, &slow);
    run(r, 1);
    struct promise_verdict v = verdict(r, web, 0);
    assert_true(is_held_by(r, web, "", 0) && v.by_resource && v.lack == 90000 && !v.last.by_resource == !(v.last.lack == v.lack));
    r->loads[web].amount[PROMISE_LATENCY] = 0;
    run(r, 3);
    v = verdict(r, web, 0);
    assert_true(v.kept && !v.by_resource && v.last.by_resource && v.last.broken_ms == 2000);
}

// What is told of the last breach: its begin, all windows that broke it, and who had it in the worst one. The next one begins anew.
static void test_last_breach(void **state)
{
    struct rig *r = *state;
    const uint32_t db = join(r, "db", "reserve: 40MB/s"), hog = join(r, "hog", "");
    disk_load(r, hog, 90 * MB, 1000, 700000, ALL);
    disk_load(r, db, 40 * MB, 1000, 100000, ALL);
    run(r, 2);
    assert_int_equal(verdict(r, db, 0).last.broken_ms, 0);
    const uint64_t began = r->now;
    disk_load(r, db, 30 * MB, 1000, 100000, ALL);
    run(r, 2);
    disk_load(r, db, 10 * MB, 1000, 100000, ALL);
    run(r, 1);
    disk_load(r, hog, 10 * MB, 1000, 100000, ALL);
    disk_load(r, db, 20 * MB, 1000, 100000, ALL);
    run(r, 1);
    assert_true(is_held_by(r, db, "", 800000));
    disk_load(r, db, 40 * MB, 1000, 100000, ALL);
    run(r, 5);
    struct promise_verdict v = verdict(r, db, 0);
    assert_true(v.kept && v.last.since_ns == began && v.last.broken_ms == 4000 && v.last.lack == 750000 && v.last.held == 700000);
    assert_string_equal(v.last.held_by, "hog");
    const uint64_t again = r->now;
    disk_load(r, db, 30 * MB, 1000, 100000, ALL);
    run(r, 1);
    v = verdict(r, db, 0);
    assert_true(v.last.since_ns == again && v.last.broken_ms == 1000 && v.last.lack == 250000 && !v.last.held_by[0]);
}

// ---- holders come, change and go

static void test_join(void **state)
{
    struct rig *r = *state;
    struct tv_error err = {0};
    uint32_t slot = 77;
    const struct promise_set set = parsed(PROMISE_DISK, "");
    assert_int_equal(promise_watch_join(r->w, "", &set, r->now, &slot, &err), -EINVAL);
    assert_int_equal(
        promise_watch_join(r->w, "0123456789012345678901234567890123456789012345678901234567890123", &set, r->now, &slot, &err),
        -EINVAL);
    assert_non_null(strstr(err.text, "a name has 1 to 63 characters"));
    for (unsigned i = 0; i < HOLDERS_MAX; i++)
        join(r, "012345678901234567890123456789012345678901234567890123456789012", "");
    assert_int_equal(promise_watch_join(r->w, "x", &set, r->now, &slot, &err), -ENOSPC);
    assert_string_equal(err.text, "'x' cannot be watched: there are 8 already, and no more may be");
    assert_int_equal(slot, 77);
}

// Who joins late in a window is judged with the next one; who joins early, over what it was there.
static void test_join_within_a_window(void **state)
{
    struct rig *r = *state;
    const uint64_t start = r->now;
    for (unsigned i = 0; i < STEPS * 8 / 10; i++)
        run_to(r, r->w, i);
    const uint32_t db = join(r, "db", "reserve: 100 iops");
    disk_load(r, db, 0, 50, HALF, ALL);
    for (unsigned i = STEPS * 8 / 10; i < STEPS; i++)
        run_to(r, r->w, i);
    assert_true(r->now == start + NS_PER_S && kept(r, db) && !verdict(r, db, 0).owed);
    run(r, 1);
    assert_true(!kept(r, db) && verdict(r, db, 0).since_ns == start + 800000000 && verdict(r, db, 0).all.judged_ms == 1200);
}

// Its share of a window of which it was there for a part only is nothing that could be told.
static void test_weight_within_a_window(void **state)
{
    struct rig *r = *state;
    const uint32_t first = join(r, "first", "weight: 100");
    disk_load(r, first, 1, 1000, ALL, ALL);
    for (unsigned i = 0; i < STEPS / 5; i++)
        run_to(r, r->w, i);
    const uint32_t second = join(r, "second", "weight: 100");
    disk_load(r, first, 1, 1000, HALF, ALL);
    disk_load(r, second, 1, 1000, HALF, ALL);
    for (unsigned i = STEPS / 5; i < STEPS; i++)
        run_to(r, r->w, i);
    assert_true(kept(r, first) && kept(r, second) && !verdict(r, second, 0).owed);
    run(r, 1);
    assert_true(kept(r, second) && verdict(r, second, 0).owed && verdict(r, second, 0).goal == HALF);
}

static void test_change(void **state)
{
    struct rig *r = *state;
    const uint64_t start = r->now;
    const uint32_t db = join(r, "db", "reserve: 40MB/s, latency: p99 < 5ms");
    disk_load(r, db, 30 * MB, 1000, HALF, ALL);
    run(r, 2);
    assert_false(kept(r, db));
    const struct promise_set less = parsed(PROMISE_DISK, "limit: 50MB/s, reserve: 30MB/s");
    assert_int_equal(promise_watch_change(r->w, db, &less, r->now, NULL), 0);
    struct promise_verdict v = verdict(r, db, 1);
    assert_true(!v.kept && v.promise.value == 30 * MB && v.since_ns == start && v.all.judged_ms == 2000);
    assert_true(kept(r, db) && verdict(r, db, 0).since_ns == r->now && verdict(r, db, 0).promise.kind == PROMISE_LIMIT);
    run(r, 3);
    v = verdict(r, db, 1);
    assert_true(v.kept && v.since_ns == start + 2 * NS_PER_S && r->n_events == 2);
}

// Ticks that came late make one long window.
static void test_late_tick(void **state)
{
    struct rig *r = *state;
    const uint32_t db = join(r, "db", "reserve: 100 iops");
    struct promise_sample sample = {.waited_ns = 10 * NS_PER_S, .amount = {[PROMISE_OPERATIONS] = 1000}};
    promise_watch_add(r->w, db, &sample);
    promise_watch_tick(r->w, r->now += 10 * NS_PER_S);
    assert_true(kept(r, db) && verdict(r, db, 0).achieved == 100 && verdict(r, db, 0).all.judged_ms == 10000);
    promise_watch_tick(r->w, r->now); // no time has passed: no window
    assert_true(verdict(r, db, 0).all.judged_ms == 10000);
}

static void test_record(void **state)
{
    struct rig *r = *state;
    const uint32_t db = join(r, "db", "reserve: 100 iops");
    struct promise_sample sample = {.waited_ns = NS_PER_S};
    for (unsigned minute = 0; minute < 26 * 60; minute++) // the first hour is bad, and the last ten minutes
        for (unsigned second = 0; second < 60; second++) {
            sample.amount[PROMISE_OPERATIONS] = minute < 60 || minute >= 26 * 60 - 10 ? 50 : 100;
            promise_watch_add(r->w, db, &sample);
            promise_watch_tick(r->w, r->now += NS_PER_S);
        }
    const struct promise_verdict v = verdict(r, db, 0);
    assert_true(v.all.judged_ms == 26 * 3600000ull && v.all.broken_ms == 70 * 60000);
    assert_true(v.day.judged_ms > 86000000 && v.day.judged_ms <= 86400000 &&
                v.day.broken_ms == 600000); // the bad hour has fallen off
    assert_true(v.hour.judged_ms >= 55 * 60000 && v.hour.judged_ms <= 60 * 60000 && v.hour.broken_ms == 600000);
    promise_watch_tick(r->w, r->now += 2 * 3600 * NS_PER_S); // nobody asked for anything
    assert_true(verdict(r, db, 0).hour.judged_ms == 0 && verdict(r, db, 0).day.broken_ms == 600000);
}

// ---- feeding allocates nothing

static void test_no_allocation(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < HOLDERS_MAX; i++)
        disk_load(r, join(r, "d", "reserve: 10MB/s, limit: 20MB/s, latency: p99 < 1ms, weight: 5"), i * MB * 4, 1000, 120000, ALL);
    assert_true(allocations > 0); // they are counted
    const unsigned before = allocations;
    run(r, 5);
    assert_true(r->n_events > 4);
    assert_int_equal(allocations, before);
}

// ---- saved and loaded

static void *save(struct promise_watch *w, uint64_t now, size_t *len)
{
    void *buf;
    struct state *s = state_create_save();
    promise_watch_state(w, s, now);
    assert_int_equal(state_finish(s, &buf, len, NULL), 0);
    state_destroy(s);
    return buf;
}

static int load(struct promise_watch *w, uint64_t now, const void *buf, size_t len, struct tv_error *err)
{
    struct state *s = state_create_load(buf, len);
    promise_watch_state(w, s, now);
    const int rc = state_finish(s, NULL, NULL, err);
    state_destroy(s);
    return rc;
}

static void fill(struct rig *r)
{
    disk_load(r, join(r, "db", "reserve: 40MB/s, latency: p99 < 5ms"), 30 * MB, 1000, 300000, ALL);
    disk_load(r, join(r, "gone", "weight: 3"), MB, 1000, 100000, ALL);
    disk_load(r, join(r, "hog", "limit: 50MB/s, weight: 200"), 60 * MB, 1000, 600000, ALL);
    run(r, 3);
    r->loads[0].amount[PROMISE_BANDWIDTH] = 40 * MB; // broken still, with one good window
    run(r, 1);
    for (unsigned i = 0; i < 30; i++)
        run_to(r, r->w, i);
    promise_watch_leave(r->w, 1);
    r->there[1] = false;
}

static void assert_same(const struct promise_verdict *a, const struct promise_verdict *b)
{
    assert_int_equal(a->promise.kind, b->promise.kind);
    assert_int_equal(a->promise.metric, b->promise.metric);
    assert_int_equal(a->promise.per_mille, b->promise.per_mille);
    assert_int_equal(a->promise.value, b->promise.value);
    assert_true(a->kept == b->kept && a->owed == b->owed);
    assert_true(a->goal == b->goal && a->achieved == b->achieved);
    assert_true(a->lack == b->lack && a->held == b->held);
    assert_string_equal(a->held_by, b->held_by);
    assert_true(a->last.broken_ms == b->last.broken_ms && a->last.lack == b->last.lack && a->last.held == b->last.held);
    assert_string_equal(a->last.held_by, b->last.held_by);
    assert_memory_equal(&a->hour, &b->hour, sizeof(a->hour));
    assert_memory_equal(&a->day, &b->day, sizeof(a->day));
    assert_memory_equal(&a->all, &b->all, sizeof(a->all));
}

// A watch that was saved within a window and loaded by a process with another clock goes on as the one that was not.
static void test_state(void **state)
{
    struct rig *r = *state;
    struct tv_error err = {0};
    size_t len;
    fill(r);
    void *buf = save(r->w, r->now, &len);
    struct rig other = *r;
    other.now = 5 * NS_PER_MS; // begun after what it remembers
    other.w = new_watch(&other);
    if (load(other.w, other.now, buf, len, &err) != 0)
        fail_msg("%s", err.text);
    free(buf);
    for (unsigned i = 30; i < 6 * STEPS + 30; i++) {
        if (i == 2 * STEPS)
            assert_true(kept(&other, 0) && other.now - verdict(&other, 0, 0).since_ns == 3 * NS_PER_S);
        if (i == 4 * STEPS)
            r->loads[0].amount[PROMISE_BANDWIDTH] = other.loads[0].amount[PROMISE_BANDWIDTH] = 10 * MB;
        run_to(r, r->w, i % STEPS);
        run_to(&other, other.w, i % STEPS);
    }
    assert_int_equal(other.n_events, r->n_events);
    assert_true(!kept(r, 0));
    for (uint32_t slot = 0; slot < 3; slot += 2)
        for (unsigned i = 0; i < 2; i++) {
            const struct promise_verdict a = verdict(r, slot, i), b = verdict(&other, slot, i);
            assert_int_equal(other.now - b.since_ns, r->now - a.since_ns);
            assert_same(&a, &b);
        }
    assert_null(promise_watch_name(other.w, 1));
    promise_watch_destroy(other.w);
}

static void test_damaged(void **state)
{
    struct rig *r = *state;
    size_t len;
    fill(r);
    unsigned char *buf = save(r->w, r->now, &len);
    struct promise_watch *w = new_watch(r);
    for (size_t cut = 0; cut < len; cut += cut < 1000 ? 1 : 97) {
        assert_int_equal(load(w, r->now, buf, cut, NULL), -EINVAL);
        for (uint32_t slot = 0; slot < HOLDERS_MAX; slot++)
            assert_null(promise_watch_name(w, slot));
    }
    // One byte wrong is refused, or gives a watch that goes on.
    for (size_t at = 0; at < len; at += at < 1000 ? 1 : 61) {
        buf[at] ^= 0x81;
        if (load(w, r->now, buf, len, NULL) == 0) {
            promise_watch_tick(w, r->now + 2 * NS_PER_S);
            r->n_events = 0;
        }
        buf[at] ^= 0x81;
        promise_watch_destroy(w);
        w = new_watch(r);
    }
    promise_watch_destroy(w);
    free(buf);
    // A watch that has room for fewer.
    void *whole = save(r->w, r->now, &len);
    const struct promise_watch_options small = {PROMISE_WATCH_DEFAULTS, .holders_max = 2};
    struct tv_error err = {0};
    w = promise_watch_create(&small, r->now);
    assert_int_equal(load(w, r->now, whole, len, &err), -EINVAL);
    assert_non_null(strstr(err.text, "watch: holder 1 is in slot 2; they are in ascending slots below 2"));
    assert_null(promise_watch_name(w, 0));
    promise_watch_destroy(w);
    free(whole);
}

int main(void)
{
#define WATCH_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WATCH_TEST(test_reserve),
        WATCH_TEST(test_good_windows_must_follow_each_other),
        WATCH_TEST(test_nothing_is_owed_to_who_does_not_ask),
        WATCH_TEST(test_large_requests),
        WATCH_TEST(test_other_units),
        WATCH_TEST(test_latency),
        WATCH_TEST(test_weights),
        WATCH_TEST(test_weight_and_limit),
        WATCH_TEST(test_blame),
        WATCH_TEST(test_last_breach),
        WATCH_TEST(test_slow_resource),
        WATCH_TEST(test_join),
        WATCH_TEST(test_join_within_a_window),
        WATCH_TEST(test_weight_within_a_window),
        WATCH_TEST(test_change),
        WATCH_TEST(test_late_tick),
        WATCH_TEST(test_record),
        WATCH_TEST(test_no_allocation),
        WATCH_TEST(test_state),
        WATCH_TEST(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
