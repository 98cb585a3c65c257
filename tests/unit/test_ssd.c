// The model of an SSD: it repeats to the nanosecond, and behaves as drives do: latencies without load, throughput that grows with
// the depth until a stage is full, a write buffer, garbage collection that costs what it must.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "store/model/sim.h"

static struct sim *start(const struct ssd_config *ssd, bool aged, const struct sim_load *load, struct sim_disk **disk)
{
    struct tv_error err = {0};
    struct sim_config config = {.ssd = ssd, .aged = aged, .scheduler = &dispatch_fifo, .window = 256, .disks_max = 1};
    struct sim *sim = sim_create(&config, &err);
    assert_non_null(sim);
    *disk = sim_add(sim, "d", &err);
    assert_non_null(*disk);
    sim_set_load(sim, *disk, load);
    return sim;
}

static struct sim_load reads(unsigned depth)
{
    return (struct sim_load){.depth = depth, .read_permille = 1000, .small_bytes = 4096};
}

static uint64_t rate(const struct ssd_config *ssd, bool aged, const struct sim_load *load, uint64_t ms)
{
    struct sim_disk *disk;
    struct sim *sim = start(ssd, aged, load, &disk);
    sim_run(sim, ms * NS_PER_MS / 4);
    uint64_t before = disk->counts.bytes;
    sim_run(sim, ms * NS_PER_MS / 4 + ms * NS_PER_MS);
    uint64_t bytes_per_s = (disk->counts.bytes - before) * 1000 / ms;
    sim_destroy(sim);
    return bytes_per_s;
}

static void test_unloaded_latency(void **state)
{
    (void)state;
    const struct ssd_config *c = &ssd_sata;
    struct sim_load load = reads(1);
    struct sim_disk *disk;
    struct sim *sim = start(c, false, &load, &disk);
    sim_run(sim, 10 * NS_PER_MS);
    uint64_t one = c->command_ns + c->read_ns + c->channel_ns + c->link_ns;
    assert_int_equal(disk->latency.min, one);
    assert_int_equal(disk->latency.max, one);
    assert_int_equal(disk->counts.requests, 10 * NS_PER_MS / one);
    assert_int_equal(disk->usage.busy_ns[SSD_DIES] / c->read_ns, 10 * NS_PER_MS / one + 1); // the last is under way
    sim_destroy(sim);
}

static void test_depth(void **state)
{
    (void)state;
    struct sim_load one = reads(1), eight = reads(8), many = reads(64);
    uint64_t a = rate(&ssd_sata, false, &one, 50), b = rate(&ssd_sata, false, &eight, 50), c = rate(&ssd_sata, false, &many, 50);
    uint64_t most = 4096 * NS_PER_S / ssd_sata.command_ns; // the controller's
    assert_true(b > 5 * a && c > b);
    assert_true(c > most * 97 / 100 && c <= most + most / 100);
    struct sim_load large = {.depth = 16, .read_permille = 1000, .small_bytes = 256 << 10};
    uint64_t l = rate(&ssd_sata, false, &large, 50), link = 4096 * NS_PER_S / ssd_sata.link_ns;
    assert_true(l > link * 97 / 100 && l <= link + link / 100);
}

static void test_writes(void **state)
{
    (void)state;
    struct sim_load load = {.depth = 32, .small_bytes = 4096};
    struct sim_disk *disk;
    struct sim *sim = start(&ssd_sata, true, &load, &disk);
    sim_run(sim, NS_PER_MS); // goes into the buffer, as fast as the controller takes it
    assert_true(disk->counts.requests > 90 && disk->latency.max < NS_PER_MS);
    sim_run(sim, 2 * NS_PER_S); // the dies' pace, less what is copied
    uint64_t before = disk->counts.bytes, copied = ssd_copied_pages(sim_ssd(sim)), programmed = ssd_programmed_pages(sim_ssd(sim));
    sim_run(sim, 4 * NS_PER_S);
    uint64_t random = (disk->counts.bytes - before) / 2;
    uint64_t dies = SSD_PAGE_BYTES * NS_PER_S / ssd_sata.program_ns * ssd_stage_width(sim_ssd(sim), SSD_DIES);
    double amplification = (double)(ssd_programmed_pages(sim_ssd(sim)) - programmed) /
                           (double)(ssd_programmed_pages(sim_ssd(sim)) - programmed - (ssd_copied_pages(sim_ssd(sim)) - copied));
    // Greedy collection under even random writes, with about a quarter to spare.
    assert_true(amplification > 2 && amplification < 4.5);
    assert_true((double)random * amplification < (double)dies && random > dies / 8);
    sim_destroy(sim);
    assert_true(rate(&ssd_sata, false, &load, 1000) > random * 3 / 2);
}

static void test_flush_and_trim(void **state)
{
    (void)state;
    struct tv_error err = {0};
    struct ssd *s = ssd_create(&ssd_sata, &err);
    assert_non_null(s);
    struct ssd_command write = {.kind = DISPATCH_WRITE, .len_bytes = 1 << 20}, flush = {.kind = DISPATCH_FLUSH};
    struct ssd_command trim = {.kind = DISPATCH_TRIM, .len_bytes = 1 << 20};
    ssd_submit(s, &write, 0);
    struct ssd_command *done = NULL;
    while (!done)
        done = ssd_step(s, UINT64_MAX);
    assert_ptr_equal(done, &write);
    uint64_t now_ns = 256 * ssd_sata.link_ns + ssd_sata.command_ns;
    ssd_submit(s, &flush, now_ns);
    ssd_submit(s, &trim, now_ns);
    for (done = NULL; !done;)
        done = ssd_step(s, UINT64_MAX);
    assert_ptr_equal(done, &trim);
    for (done = NULL; !done;) {
        now_ns = ssd_next_ns(s);
        done = ssd_step(s, UINT64_MAX);
    }
    assert_ptr_equal(done, &flush);
    assert_int_equal(ssd_programmed_pages(s), 256); // before the flush was done
    assert_true(now_ns >= 256 / 32 * ssd_sata.program_ns);
    assert_true(ssd_next_ns(s) == UINT64_MAX);
    ssd_destroy(s);
}

static void test_repeats(void **state)
{
    (void)state;
    struct sim_load load = {
        .depth = 48, .read_permille = 600, .small_bytes = 4096, .large_bytes = 256 << 10, .large_permille = 200};
    struct sim_disk *disk[2];
    struct sim *sim[2];
    for (int i = 0; i < 2; i++) {
        sim[i] = start(&ssd_nvme, true, &load, &disk[i]);
        sim_run(sim[i], 200 * NS_PER_MS);
    }
    assert_memory_equal(&disk[0]->counts, &disk[1]->counts, sizeof(disk[0]->counts));
    assert_memory_equal(&disk[0]->latency, &disk[1]->latency, sizeof(disk[0]->latency));
    assert_memory_equal(&disk[0]->usage, &disk[1]->usage, sizeof(disk[0]->usage));
    for (int i = 0; i < 2; i++)
        sim_destroy(sim[i]);
}

static void test_open_loop_and_bursts(void **state)
{
    (void)state;
    struct sim_load load = {.rate_per_s = 10000, .read_permille = 1000, .small_bytes = 4096};
    struct sim_disk *disk;
    struct sim *sim = start(&ssd_sata, false, &load, &disk);
    sim_run(sim, NS_PER_S);
    assert_in_range(disk->counts.requests, 9800, 10200);
    load.on_ns = 10 * NS_PER_MS;
    load.off_ns = 30 * NS_PER_MS;
    sim_set_load(sim, disk, &load);
    uint64_t before = disk->counts.requests;
    sim_run(sim, 3 * NS_PER_S);
    assert_in_range(disk->counts.requests - before, 4700, 5300);
    load = (struct sim_load){.depth = 1, .think_ns = 1000000, .read_permille = 1000, .small_bytes = 4096};
    sim_set_load(sim, disk, &load);
    before = disk->counts.requests;
    sim_run(sim, 5 * NS_PER_S);
    assert_in_range(disk->counts.requests - before, 1750, 1950); // 1 ms and 77 us each
    sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unloaded_latency), cmocka_unit_test(test_depth),   cmocka_unit_test(test_writes),
        cmocka_unit_test(test_flush_and_trim),   cmocka_unit_test(test_repeats), cmocka_unit_test(test_open_loop_and_bursts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
