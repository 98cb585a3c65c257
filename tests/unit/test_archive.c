// Records of verdicts in a file, on simulated clocks: what a new process goes on with, what a file costs, what power cuts, foreign
// bytes and wrong clocks do to it, and who gets the place of whom.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "promise/archive.h"

enum { HOLDERS_MAX = 8, SECTOR = 512, BLOCK = 4096 };
#define UNIX_MS 1800000000000ull
#define DAY_S 86400u

// A file and whoever writes it: a process with its watch and its archive, which can be killed and started again.
struct rig {
    struct promise_watch *w;
    struct promise_archive *a;
    uint64_t now_ns, unix_ms;
    uint8_t *file;
    size_t len;
    uint32_t db, hog;
};

static struct promise_moment moment(const struct rig *r)
{
    return (struct promise_moment){.now_ns = r->now_ns, .unix_ms = r->unix_ms};
}

static uint32_t join(struct rig *r, const char *name, const char *promises)
{
    struct promise_set set;
    uint32_t slot;
    assert_int_equal(promise_set_parse(&set, PROMISE_DISK, promises, NULL), 0);
    assert_int_equal(promise_watch_join(r->w, name, &set, r->now_ns, &slot, NULL), 0);
    const struct promise_moment m = moment(r);
    promise_archive_resume(r->a, r->w, slot, &m);
    return slot;
}

static void start_empty(struct rig *r)
{
    const struct promise_watch_options options = {PROMISE_WATCH_DEFAULTS, .holders_max = HOLDERS_MAX};
    struct tv_error err = {0};
    r->w = promise_watch_create(&options, r->now_ns);
    r->a = promise_archive_create();
    assert_true(r->w && r->a);
    if (promise_archive_load(r->a, r->file, r->len, &err))
        fail_msg("%s", err.text);
}

static void start(struct rig *r)
{
    start_empty(r);
    r->db = join(r, "db", "reserve: 40MB/s, latency: p99 < 5ms");
    r->hog = join(r, "hog", "");
}

static void killed(struct rig *r)
{
    promise_watch_destroy(r->w);
    promise_archive_destroy(r->a);
}

static int setup(void **state)
{
    struct rig *r = test_calloc(1, sizeof(*r));
    r->now_ns = 1000 * NS_PER_S;
    r->unix_ms = UNIX_MS;
    r->file = test_calloc(1, PROMISE_ARCHIVE_BYTES_MAX);
    start(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    killed(r);
    test_free(r->file);
    test_free(r);
    return 0;
}

static void save(struct rig *r, uint32_t slot)
{
    const struct promise_moment m = moment(r);
    assert_int_equal(promise_archive_save(r->a, r->w, slot, &m), 0);
}

// What is to be written goes to the file; how much it was.
static size_t write_out(struct rig *r)
{
    static uint8_t piece[3 * BLOCK];
    uint64_t offset;
    size_t total = 0;
    for (size_t n; (n = promise_archive_take(r->a, piece, sizeof(piece), &offset)); total += n) {
        assert_true(offset + n <= PROMISE_ARCHIVE_BYTES_MAX && n % SECTOR == 0 && n <= sizeof(piece));
        memcpy(r->file + offset, piece, n);
        r->len = offset + n > r->len ? offset + n : r->len;
    }
    return total;
}

// A second in which the reserve was kept, or a quarter of it was lacking.
static void second(struct rig *r, bool kept)
{
    const struct promise_sample db = {.amount = {[PROMISE_BANDWIDTH] = kept ? 40000000 : 30000000,
                                                 [PROMISE_OPERATIONS] = 10000,
                                                 [PROMISE_UTILIZATION] = 200000000},
                                      .waited_ns = NS_PER_S},
                                hog = {.amount = {[PROMISE_UTILIZATION] = 700000000}, .waited_ns = NS_PER_S};
    r->now_ns += NS_PER_S;
    r->unix_ms += 1000;
    promise_watch_add(r->w, r->db, &db);
    promise_watch_add(r->w, r->hog, &hog);
    promise_watch_tick(r->w, r->now_ns);
}

static void run(struct rig *r, unsigned seconds, bool kept)
{
    for (unsigned i = 0; i < seconds; i++) {
        second(r, kept);
        save(r, r->db);
        save(r, r->hog);
    }
}

static struct promise_verdict verdict(const struct rig *r, unsigned i)
{
    struct promise_verdict verdicts[PROMISE_SET_MAX];
    assert_true(i < promise_watch_verdicts(r->w, r->db, verdicts));
    return verdicts[i];
}

// Another process, whose clock begins anew, so much later.
static void start_again(struct rig *r, unsigned later_s)
{
    write_out(r);
    killed(r);
    r->now_ns = 7 * NS_PER_MS;
    r->unix_ms += later_s * 1000ull;
    start(r);
}

static void test_goes_on(void **state)
{
    struct rig *r = *state;
    run(r, 1000, true);
    run(r, 10, false);
    start_again(r, 60);
    struct promise_verdict v = verdict(r, 0);
    assert_true(!v.kept && v.owed && v.goal == 40000000 && v.achieved == 30000000 && v.lack == 250000 && v.held == 700000);
    assert_string_equal(v.held_by, "hog");
    assert_int_equal(r->now_ns - v.since_ns, 70 * NS_PER_S);
    assert_true(v.hour.judged_ms == 1010000 && v.hour.broken_ms == 10000 && v.day.broken_ms == 10000);
    assert_true(v.all.judged_ms == 1010000 && v.all.broken_ms == 10000);
    assert_true(verdict(r, 1).kept && verdict(r, 1).day.judged_ms == 1010000 && verdict(r, 1).day.broken_ms == 0);
    run(r, 2, true);
    assert_false(verdict(r, 0).kept); // as if nothing had been: three windows mend
    run(r, 10, true);
    start_again(r, 1);
    v = verdict(r, 0);
    assert_true(v.kept && v.lack == 0 && !v.held_by[0] && r->now_ns - v.since_ns == 13 * NS_PER_S);
    assert_true(v.last.broken_ms == 10000 && v.last.lack == 250000 && v.last.held == 700000);
    assert_int_equal(r->now_ns - v.last.since_ns, (10 + 60 + 12 + 1) * NS_PER_S);
    assert_string_equal(v.last.held_by, "hog");
    assert_true(v.day.judged_ms == 1022000 && v.day.broken_ms == 10000);
}

// Hours and days end while the file lies there as they do while it is written, and to the slot.
static void test_passes(void **state)
{
    struct rig *r = *state;
    run(r, 100, false);
    for (unsigned h = 0; h < 30; h++) {
        run(r, 20, true);
        start_again(r, 3580);
        const struct promise_verdict v = verdict(r, 0);
        assert_int_equal(v.day.broken_ms, h < 23 ? 100000 : 0);
        assert_int_equal(v.hour.broken_ms, 0);
        assert_int_equal(v.all.broken_ms, 100000);
        assert_int_equal(v.day.judged_ms, h < 23 ? 100000 + (h + 1) * 20000 : 24 * 20000 - (h == 23 ? 20000 : 20000));
    }
}

// A clock that was set back or far ahead costs the record of that time and nothing else.
static void test_clock_set(void **state)
{
    struct rig *r = *state;
    run(r, 400, false);
    write_out(r);
    r->unix_ms -= 5 * DAY_S * 1000ull;
    start_again(r, 0);
    assert_true(verdict(r, 0).day.judged_ms == 400000 && verdict(r, 0).since_ns == r->now_ns);
    run(r, 10, true);
    start_again(r, 100 * DAY_S);
    assert_true(verdict(r, 0).day.judged_ms == 0 && verdict(r, 0).all.judged_ms == 410000 && verdict(r, 0).all.broken_ms == 400000);
    run(r, 10, true);
    start_again(r, 1);
    assert_int_equal(verdict(r, 0).day.judged_ms, 10000);
}

// A second costs a sector for what was found and one for the slot, of each promise; a quiet disk costs none.
static void test_cost(void **state)
{
    struct rig *r = *state;
    run(r, 1, true);
    assert_int_equal(write_out(r), 3 * BLOCK); // head, and a record each
    for (unsigned i = 0; i < 1000; i++) {
        r->now_ns += i % 3 * 300000; // never quite as far from the other clock
        run(r, 1, true);
        assert_true(write_out(r) <= 4 * SECTOR * (i % 300 >= 290 || i % 300 <= 10 ? 8 : 1));
    }
    size_t total = 0;
    for (unsigned i = 0; i < 1000; i++) {
        r->now_ns += NS_PER_S + i % 3 * 300000;
        r->unix_ms += 1000;
        promise_watch_tick(r->w, r->now_ns);
        save(r, r->db);
        total += write_out(r);
    }
    assert_true(total <= 2 * 2 * SECTOR + 2 * 5 * BLOCK); // nothing was owed any more, twice; and slots begin
}

// Power goes at any sector: what is there is as it was, or as it is.
static void test_power_cut(void **state)
{
    struct rig *r = *state;
    uint8_t before[3 * BLOCK], after[3 * BLOCK];
    run(r, 600, true);
    write_out(r);
    memcpy(before, r->file, sizeof(before));
    run(r, 600, false);
    write_out(r);
    memcpy(after, r->file, sizeof(after));
    for (unsigned cut = 0; cut < 256; cut++) {
        for (unsigned i = 0; i < 3 * BLOCK / SECTOR; i++)
            memcpy(r->file + i * SECTOR, (cut >> i % 8 & 1 ? after : before) + i * SECTOR, SECTOR);
        killed(r);
        start(r);
        const struct promise_verdict v = verdict(r, 0);
        assert_true(v.kept == !(cut & 1) && (v.all.broken_ms == 0 || v.all.broken_ms == 600000));
        assert_true(v.day.judged_ms >= 600000 && v.day.judged_ms <= 1200000);
        assert_true(v.day.broken_ms <= 600000);
    }
}

// Damage costs what it hits: the record whose first sector it is, or four hours of one.
static void test_damaged(void **state)
{
    struct rig *r = *state;
    run(r, 600, false);
    write_out(r);
    for (size_t at = 0; at < r->len; at += 7) {
        r->file[at] ^= 0x40;
        promise_archive_destroy(r->a);
        promise_watch_destroy(r->w);
        r->a = promise_archive_create();
        const struct promise_watch_options options = {PROMISE_WATCH_DEFAULTS, .holders_max = HOLDERS_MAX};
        r->w = promise_watch_create(&options, r->now_ns);
        const int rc = promise_archive_load(r->a, r->file, r->len, NULL);
        assert_int_equal(rc, at < SECTOR ? -EINVAL : 0);
        r->db = join(r, "db", "reserve: 40MB/s, latency: p99 < 5ms");
        r->hog = join(r, "hog", "");
        const bool is_head = at >= BLOCK && at < BLOCK + SECTOR;
        assert_int_equal(verdict(r, 0).all.broken_ms, at < SECTOR || is_head ? 0 : 600000);
        r->file[at] ^= 0x40;
    }
    for (size_t len = 0; len < r->len; len += 509) {
        struct promise_archive *a = promise_archive_create();
        const int rc = promise_archive_load(a, r->file, len, NULL);
        assert_true(rc == 0 || (rc == -EINVAL && len < SECTOR));
        promise_archive_destroy(a);
    }
    struct tv_error err = {0};
    assert_int_equal(promise_archive_load(r->a, "#!/bin/sh\n", 10, &err), -EINVAL);
    assert_non_null(strstr(err.text, "something else"));
}

// What is read only after the disks have joined is put before what they have had since.
static void test_read_late(void **state)
{
    struct rig *r = *state;
    for (unsigned broken = 0; broken < 2; broken++) { // since
        run(r, 500, true);
        run(r, 5, false);
        write_out(r);
        const size_t len = r->len;
        killed(r);
        r->len = 0;
        start(r);
        r->len = len;
        for (unsigned i = 0; i < 4; i++)
            second(r, !broken);
        const uint64_t before_ms = broken ? 510000 : 0;
        assert_int_equal(promise_archive_load(r->a, r->file, r->len, NULL), 0);
        const struct promise_moment m = moment(r);
        promise_archive_resume(r->a, r->w, r->db, &m);
        const struct promise_verdict v = verdict(r, 0);
        assert_true(v.day.judged_ms == 509000 + before_ms && v.all.judged_ms == v.day.judged_ms);
        assert_true(v.day.broken_ms == (broken ? 14000 : 5000) && v.kept == !broken);
        assert_int_equal(r->now_ns - v.since_ns, (broken ? 9 : 4) * NS_PER_S);
        assert_int_equal(v.last.broken_ms, broken ? 9000 : 5000);
        run(r, 1, true);
        assert_int_equal(verdict(r, 0).day.judged_ms, v.day.judged_ms + 1000);
        promise_watch_leave(r->w, r->db); // the next round begins with what this one has had
        r->db = join(r, "db", "reserve: 40MB/s, latency: p99 < 5ms");
    }
}

// Names, kinds and metrics tell promises apart; a value is no other promise. Who does not come back is forgotten after a day, when
// his place is needed.
static void test_places(void **state)
{
    struct rig *r = *state;
    run(r, 10, false);
    promise_watch_leave(r->w, r->db);
    r->db = join(r, "db", "limit: 40MB/s, reserve: 30 iops");
    assert_true(verdict(r, 0).day.judged_ms == 0 && verdict(r, 1).day.judged_ms == 0);
    promise_watch_leave(r->w, r->db);
    r->db = join(r, "db2", "reserve: 40MB/s");
    assert_int_equal(verdict(r, 0).day.judged_ms, 0);
    promise_watch_leave(r->w, r->db);
    r->db = join(r, "db", "reserve: 50MB/s");
    assert_true(verdict(r, 0).day.judged_ms == 10000 && verdict(r, 0).promise.value == 50000000);
    const size_t before = r->len + write_out(r);
    promise_watch_leave(r->w, r->db);
    r->unix_ms += DAY_S * 1000ull - 400000;
    r->now_ns += DAY_S * NS_PER_S - 400 * NS_PER_S;
    const uint32_t young = join(r, "young", "weight: 3");
    save(r, young);
    write_out(r);
    assert_int_equal(r->len, before + BLOCK);
    r->unix_ms += 800000;
    r->now_ns += 800 * NS_PER_S;
    save(r, young);
    const uint32_t later = join(r, "later", "weight: 3");
    save(r, later);
    write_out(r);
    assert_int_equal(r->len, before + BLOCK);
    promise_watch_leave(r->w, young);
    promise_watch_leave(r->w, later);
    r->db = join(r, "db", "reserve: 40MB/s");
    assert_int_equal(verdict(r, 0).all.judged_ms, 0); // forgotten
}

static void test_full(void **state)
{
    struct rig *r = *state;
    const struct promise_moment m = moment(r);
    char name[16];
    for (unsigned i = 0; i < 4095; i++) {
        snprintf(name, sizeof(name), "d%u", i);
        const uint32_t slot = join(r, name, "weight: 1");
        save(r, slot);
        promise_watch_leave(r->w, slot);
    }
    const uint32_t one_more = join(r, "one more", "weight: 1");
    assert_int_equal(promise_archive_save(r->a, r->w, one_more, &m), -ENOSPC);
    write_out(r);
    assert_int_equal(r->len, PROMISE_ARCHIVE_BYTES_MAX);
}

static void test_slow_device(void **state)
{
    struct rig *r = *state;
    const struct promise_sample slow = {.amount = {[PROMISE_OPERATIONS] = 100, [PROMISE_LATENCY] = 50}, .is_slow = true};
    promise_watch_add(r->w, r->db, &slow);
    promise_watch_tick(r->w, r->now_ns += NS_PER_S);
    save(r, r->db);
    start_again(r, 0);
    assert_true(verdict(r, 1).by_resource && verdict(r, 1).last.by_resource && !verdict(r, 0).by_resource);
    run(r, 3, true);
    start_again(r, 0);
    assert_true(verdict(r, 1).kept && !verdict(r, 1).by_resource && verdict(r, 1).last.by_resource);
}

static void test_written_again(void **state)
{
    struct rig *r = *state;
    uint8_t piece[BLOCK];
    uint64_t offset, again;
    run(r, 3, true);
    const size_t n = promise_archive_take(r->a, piece, sizeof(piece), &offset);
    promise_archive_untake(r->a, offset, n);
    assert_int_equal(promise_archive_take(r->a, piece, sizeof(piece), &again), n);
    assert_int_equal(again, offset);
    promise_archive_untake(r->a, offset, n);
    assert_int_equal(write_out(r), 3 * BLOCK);
    start_again(r, 0);
    assert_int_equal(verdict(r, 0).day.judged_ms, 3000);
}

#define ARCHIVE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ARCHIVE_TEST(test_goes_on),     ARCHIVE_TEST(test_passes),        ARCHIVE_TEST(test_clock_set),
        ARCHIVE_TEST(test_cost),        ARCHIVE_TEST(test_power_cut),     ARCHIVE_TEST(test_damaged),
        ARCHIVE_TEST(test_places),      ARCHIVE_TEST(test_read_late),     ARCHIVE_TEST(test_full),
        ARCHIVE_TEST(test_slow_device), ARCHIVE_TEST(test_written_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
