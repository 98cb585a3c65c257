// What OIOS promises, held against it on the modelled SSD, in simulated time: the figures repeat to the byte, so the targets
// themselves are asserted. And in every experiment the device never stood idle while a request might have gone.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "store/model/experiment.h"

static const struct experiment_rig sata = {.ssd = &ssd_sata, .scheduler = &dispatch_oios, .window = 256};
static const struct experiment_rig sata_aged = {.ssd = &ssd_sata, .aged = true, .scheduler = &dispatch_oios, .window = 256};
static const struct experiment_rig nvme = {.ssd = &ssd_nvme, .scheduler = &dispatch_oios, .window = 256};
static const uint32_t equal[EXPERIMENT_DISKS_MAX] = {[0 ... EXPERIMENT_DISKS_MAX - 1] = DISPATCH_WEIGHT_DEFAULT};

static struct experiment_rig with(struct experiment_rig rig, const struct dispatch_ops *scheduler, unsigned window)
{
    rig.scheduler = scheduler;
    rig.window = window;
    return rig;
}

// The decks' first experiment: four disks, one of which asks for twice as much as each of the others.
static struct experiment_shares twice(struct experiment_rig rig, struct sim_load load, unsigned depth)
{
    struct experiment_shares r;
    struct sim_load loads[4] = {load, load, load, load};
    for (unsigned i = 0; i < 4; i++)
        loads[i].depth = i ? depth : 2 * depth;
    assert_int_equal(experiment_shares(&rig, loads, equal, 4, rig.ssd == &ssd_sata ? 2 : 0.5, &r, NULL), 0);
    assert_int_equal(r.idle, 0);
    return r;
}

static void test_fair_at_full_speed(void **state)
{
    (void)state;
    // Few requests in all: the depth that the others need to be fast makes them unfair.
    struct experiment_shares fifo = twice(with(sata, &dispatch_fifo, 256), experiment_reads(0), 4);
    struct experiment_shares sfq1 = twice(with(sata, &dispatch_sfq, 1), experiment_reads(0), 4);
    struct experiment_shares sfq32 = twice(with(sata, &dispatch_sfq, 32), experiment_reads(0), 4);
    struct experiment_shares oios = twice(sata, experiment_reads(0), 4);
    assert_true(fifo.jain < 0.9 && sfq32.jain < 0.9 && sfq1.sum_mb_per_s < fifo.sum_mb_per_s / 2);
    assert_true(oios.jain >= 0.99 && oios.sum_mb_per_s >= 0.98 * fifo.sum_mb_per_s);
    // Many requests on a faster device: the depth that keeps the others fair makes them slow.
    fifo = twice(with(nvme, &dispatch_fifo, 256), experiment_reads(0), 64);
    sfq32 = twice(with(nvme, &dispatch_sfq, 32), experiment_reads(0), 64);
    struct experiment_shares mclock = twice(with(nvme, &dispatch_mclock, 32), experiment_reads(0), 64);
    oios = twice(nvme, experiment_reads(0), 64);
    assert_true(fifo.jain < 0.9 && sfq32.sum_mb_per_s < fifo.sum_mb_per_s / 2);
    assert_true(oios.jain >= 0.99 && oios.sum_mb_per_s >= 0.98 * fifo.sum_mb_per_s);
    assert_true(oios.sum_mb_per_s > 1.8 * mclock.sum_mb_per_s);
}

static void test_fair_with_garbage_collection(void **state)
{
    (void)state;
    struct sim_load bursts = experiment_mixed(0);
    bursts.on_ns = 3 * NS_PER_MS;
    bursts.off_ns = NS_PER_MS;
    struct experiment_shares fifo = twice(with(sata_aged, &dispatch_fifo, 256), experiment_mixed(0), 32);
    struct experiment_shares oios = twice(sata_aged, experiment_mixed(0), 32);
    assert_true(fifo.jain < 0.9);
    assert_true(oios.jain >= 0.99 && oios.sum_mb_per_s >= 0.98 * fifo.sum_mb_per_s);
    fifo = twice(with(sata_aged, &dispatch_fifo, 256), bursts, 32);
    oios = twice(sata_aged, bursts, 32);
    assert_true(oios.jain >= 0.99 && oios.sum_mb_per_s >= 0.98 * fifo.sum_mb_per_s);
}

static void check_weights(struct experiment_rig rig, struct sim_load load, double seconds)
{
    const uint32_t weights[4] = {100, 200, 400, 800};
    const struct sim_load loads[4] = {load, load, load, load};
    struct experiment_shares r;
    assert_int_equal(experiment_shares(&rig, loads, weights, 4, seconds, &r, NULL), 0);
    print_message("weights: error %.2f %%\n", 100 * r.weight_error);
    assert_true(r.weight_error <= 0.02);
    assert_int_equal(r.idle, 0);
}

static void test_weights(void **state)
{
    (void)state;
    struct sim_load bursts = experiment_mixed(64);
    bursts.on_ns = 3 * NS_PER_MS;
    bursts.off_ns = NS_PER_MS;
    check_weights(sata, experiment_reads(64), 1);
    check_weights(nvme, experiment_reads(256), 0.3);
    check_weights(sata_aged, experiment_mixed(64), 15);
    check_weights(sata_aged, bursts, 15);
}

static void test_many_disks(void **state)
{
    (void)state;
    static struct sim_load loads[256];
    static struct experiment_shares r;
    for (unsigned i = 0; i < 256; i++)
        loads[i] = experiment_reads(4 + i % 8 * 4);
    assert_int_equal(experiment_shares(&nvme, loads, equal, 256, 0.5, &r, NULL), 0);
    assert_true(r.jain >= 0.999 && r.weight_error < 0.02);
    assert_int_equal(r.idle, 0);
}

// Costs are learned: disks with small and with large requests get the same part of what each would have alone.
static void test_learns_costs(void **state)
{
    (void)state;
    struct sim_load small = experiment_reads(128), large = experiment_reads(16);
    struct experiment_shares r, alone;
    large.small_bytes = 256 << 10;
    struct sim_load loads[4] = {small, large, small, large};
    assert_int_equal(experiment_shares(&sata, &small, equal, 1, 0.5, &alone, NULL), 0);
    double small_mb_per_s = alone.mb_per_s[0];
    assert_int_equal(experiment_shares(&sata, &large, equal, 1, 0.5, &alone, NULL), 0);
    double large_mb_per_s = alone.mb_per_s[0];
    assert_int_equal(experiment_shares(&sata, loads, equal, 4, 3, &r, NULL), 0);
    double ratio = r.mb_per_s[0] / small_mb_per_s / (r.mb_per_s[1] / large_mb_per_s);
    print_message("4 KiB and 256 KiB: ratio of parts %.3f\n", ratio);
    assert_true(ratio > 0.96 && ratio < 1.04);
    assert_int_equal(r.idle, 0);
}

static void test_limits(void **state)
{
    (void)state;
    static const uint64_t limits[] = {100, 1000, 10000, 100000, 1000000};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        for (int neighbour = 0; neighbour < 2; neighbour++) {
            double error;
            uint64_t idle;
            unsigned windows = limits[i] > 10000 || neighbour ? 1 : 4;
            assert_int_equal(experiment_limit(&nvme, limits[i], neighbour, windows, &error, &idle, NULL), 0);
            print_message("limit %d: off by %.2f %%\n", (int)limits[i], 100 * error);
            assert_true(error <= 0.0101);
            assert_int_equal(idle, 0);
        }
}

static void test_reservations(void **state)
{
    (void)state;
    struct sim_load reads = experiment_reads(32), mixed = experiment_mixed(64);
    double least;
    uint64_t idle;
    // Nearly half of the device for one of four, looked at ten times a second.
    assert_int_equal(experiment_reserve(&sata, &reads, 200000000, NS_PER_S / 10, 30, &least, &idle, NULL), 0);
    assert_true(least >= 0.99);
    assert_int_equal(idle, 0);
    assert_int_equal(experiment_reserve(&sata_aged, &mixed, 200000000, NS_PER_S, 20, &least, &idle, NULL), 0);
    print_message("reservation of 200 MB/s, garbage collection: least window %.4f\n", least);
    assert_true(least >= 0.99);
    assert_int_equal(idle, 0);
}

static double mb_since(const struct sim_disk *disk, uint64_t before, double seconds)
{
    return (double)(disk->counts.bytes - before) / 1e6 / seconds;
}

// More is promised than the device has: all get the same part of it. And what a disk had while others were idle is not held against
// it.
static void test_reservations_in_hard_times(void **state)
{
    (void)state;
    struct tv_error err = {0};
    struct sim_config config = {.ssd = &ssd_sata, .scheduler = &dispatch_oios, .window = 256, .disks_max = 3};
    struct sim *sim = sim_create(&config, &err);
    struct dispatch_terms terms = dispatch_no_terms;
    struct sim_load load = experiment_reads(64), none = {0};
    struct sim_disk *disks[3];
    for (int i = 0; i < 3; i++) {
        disks[i] = sim_add(sim, "d", &err);
        terms.reserve.bytes_per_s = i < 2 ? 400000000u >> i : 0;
        assert_int_equal(sim_set_terms(sim, disks[i], &terms, &err), 0);
        sim_set_load(sim, disks[i], &load);
    }
    sim_run(sim, 2 * NS_PER_S);
    uint64_t before[2] = {disks[0]->counts.bytes, disks[1]->counts.bytes};
    sim_run(sim, 3 * NS_PER_S);
    double first = mb_since(disks[0], before[0], 1), second = mb_since(disks[1], before[1], 1);
    assert_true(fabs(first / second / 2 - 1) < 0.02 && first + second > 420);

    terms.reserve.bytes_per_s = 300000000;
    assert_int_equal(sim_set_terms(sim, disks[0], &terms, &err), 0);
    assert_int_equal(sim_set_terms(sim, disks[1], &dispatch_no_terms, &err), 0);
    for (int i = 1; i < 3; i++)
        sim_set_load(sim, disks[i], &none);
    sim_run(sim, 6 * NS_PER_S); // it has all, a third more than it is promised
    for (int i = 1; i < 3; i++)
        sim_set_load(sim, disks[i], &load);
    before[0] = disks[0]->counts.bytes;
    sim_run(sim, 6 * NS_PER_S + NS_PER_S / 10);
    assert_true(mb_since(disks[0], before[0], 0.1) > 297);
    sim_destroy(sim);
}

static void test_changes_settle(void **state)
{
    (void)state;
    struct sim_load load = experiment_reads(48);
    unsigned settled_ms;
    double overshoot;
    for (int change = EXPERIMENT_WEIGHT; change <= EXPERIMENT_ARRIVAL; change++) {
        assert_int_equal(experiment_change(&sata, &load, (enum experiment_change)change, &settled_ms, &overshoot, NULL), 0);
        print_message("change %d: settled in %u ms, overshoot %.1f %%\n", change, settled_ms, 100 * overshoot);
        assert_true(settled_ms <= 100 && overshoot <= 0.1);
    }
}

static void test_steady_for_a_minute(void **state)
{
    (void)state;
    struct ssd_config slow = ssd_sata; // so that a minute is simulated in a second
    slow.command_ns *= 6;
    struct experiment_rig rig = sata;
    struct sim_load load = experiment_reads(48);
    double worst;
    rig.ssd = &slow;
    assert_int_equal(experiment_steady(&rig, &load, 60, &worst, NULL), 0);
    print_message("a minute in windows of 100 ms: off by %.2f %% at worst\n", 100 * worst);
    assert_true(worst <= 0.05);
}

static void check_latency(struct experiment_rig rig, struct sim_load own, struct sim_load other, uint64_t goal_us, unsigned windows)
{
    const struct sim_load loads[3] = {own, other, other};
    struct experiment_rig fifo = with(rig, &dispatch_fifo, 256);
    struct experiment_latency r, f;
    assert_int_equal(experiment_latency(&fifo, loads, goal_us, 2, &f, NULL), 0);
    assert_int_equal(experiment_latency(&rig, loads, goal_us, windows, &r, NULL), 0);
    print_message("p99 < %d us: held %u of %u, at worst %.0f (fifo %.0f); busiest stage %.2f (fifo %.2f)\n", (int)goal_us, r.held,
                  windows, r.worst_us, f.worst_us, r.busy, f.busy);
    assert_int_equal(f.held, 0);
    assert_true(r.held * 100 >= 99 * windows);
    assert_true(r.busy >= 0.9 * f.busy);
    assert_int_equal(r.idle, 0);
}

static void test_latencies(void **state)
{
    (void)state;
    struct sim_load own = {.rate_per_s = 3000, .read_permille = 1000, .small_bytes = 4096}, large = experiment_reads(16);
    large.small_bytes = 256 << 10;
    check_latency(sata, own, experiment_reads(64), 500, 5); // the unloaded device takes 77
    check_latency(sata, own, large, 2500, 5);               // a neighbour's request alone takes 560
    own.read_permille = 500;
    check_latency(sata_aged, own, experiment_mixed(48), 5000, 100);
    own.rate_per_s = 50000;
    check_latency(nvme, own, large, 500, 1);
}

// What nobody could keep, since the device takes longer by itself, or for one request of others, costs the others nothing.
static void check_hopeless(struct experiment_rig rig, struct sim_load own, struct sim_load other, uint64_t goal_us, bool is_device)
{
    const struct sim_load loads[3] = {own, other, other};
    struct experiment_latency r, easy;
    assert_int_equal(experiment_latency(&rig, loads, 1000000, 8, &easy, NULL), 0);
    assert_int_equal(experiment_latency(&rig, loads, goal_us, 8, &r, NULL), 0);
    const double sum = r.mb_per_s[1] + r.mb_per_s[2], most = easy.mb_per_s[1] + easy.mb_per_s[2];
    print_message("p99 < %d us: held %u of 8, at worst %.0f (%.0f without); the others have %.1f MB/s (%.1f without)\n",
                  (int)goal_us, r.held, r.worst_us, easy.worst_us, sum, most);
    assert_int_equal(r.held, 0);
    assert_true(r.is_device_slow == is_device && !easy.is_device_slow);
    assert_true(sum >= 0.97 * most && r.busy >= 0.97 * easy.busy);
    assert_int_equal(r.idle, 0);
}

static void test_hopeless_latencies(void **state)
{
    (void)state;
    struct sim_load own = {.rate_per_s = 3000, .read_permille = 1000, .small_bytes = 4096}, large = experiment_reads(16);
    large.small_bytes = 256 << 10;
    check_hopeless(sata, own, experiment_reads(64), 60, true); // the unloaded device takes 77
    check_hopeless(sata, own, large, 60, false);               // behind one of 560 it cannot be told
    check_hopeless(sata, own, large, 300, false);              // a neighbour's request alone takes 560
    check_hopeless(sata_aged, own, experiment_mixed(48), 60, true);
    check_hopeless(nvme, own, large, 40, false);
    own.small_bytes = 1 << 20; // takes 2 ms by itself
    own.rate_per_s = 50;
    check_hopeless(sata, own, experiment_reads(64), 1000, true);
}

static void test_all_promises_together(void **state)
{
    (void)state;
    struct experiment_rig fifo = with(sata_aged, &dispatch_fifo, 256);
    struct experiment_deck2 r;
    assert_int_equal(experiment_deck2(&fifo, 0, 5, &r, NULL), 0);
    assert_true(r.held[0] == 0 && r.held[1] == 0 && r.held[2] == 0);
    for (unsigned promises = 1; promises <= 3; promises++) {
        assert_int_equal(experiment_deck2(&sata_aged, promises, 20, &r, NULL), 0);
        for (unsigned i = 0; i < promises; i++)
            assert_int_equal(r.held[i], 20);
        assert_int_equal(r.idle, 0);
    }
    assert_true(r.requests_per_s >= 297);
}

static void test_time_of_the_device(void **state)
{
    (void)state;
    struct tv_error err = {0};
    struct sim_config config = {.ssd = &ssd_sata, .scheduler = &dispatch_oios, .window = 256, .disks_max = 3};
    struct sim *sim = sim_create(&config, &err);
    struct dispatch_terms terms[3] = {dispatch_no_terms, dispatch_no_terms, dispatch_no_terms};
    const double parts[3] = {0.6, 0.1, 0.3};
    struct sim_load load = experiment_reads(32);
    struct sim_disk *disks[3];
    terms[0].reserve.device_ppm = 600000;
    terms[1].limit.device_ppm = 100000;
    for (int i = 0; i < 3; i++) {
        disks[i] = sim_add(sim, "d", &err);
        assert_int_equal(sim_set_terms(sim, disks[i], &terms[i], &err), 0);
        sim_set_load(sim, disks[i], &load);
    }
    uint64_t before[3], sum = 0;
    sim_run(sim, NS_PER_S);
    for (int i = 0; i < 3; i++)
        before[i] = disks[i]->counts.bytes;
    sim_run(sim, 2 * NS_PER_S);
    for (int i = 0; i < 3; i++)
        sum += disks[i]->counts.bytes - before[i];
    for (int i = 0; i < 3; i++)
        assert_true(fabs((double)(disks[i]->counts.bytes - before[i]) / (double)sum - parts[i]) < 0.01);
    // All of it can be taken back while it runs.
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sim_set_terms(sim, disks[i], &dispatch_no_terms, &err), 0);
        before[i] = disks[i]->counts.bytes;
    }
    sim_run(sim, 3 * NS_PER_S);
    for (int i = 0; i < 3; i++)
        assert_true(fabs((double)(disks[i]->counts.bytes - before[i]) / (double)sum - 1.0 / 3) < 0.01);
    assert_int_equal(sim_idle(sim) + sim_dispatcher(sim)->counters.idle, 0);
    sim_destroy(sim);
}

// Disks come, go, burst and are promised this and that, all at random: the device never stands idle while it need not, nobody is
// forgotten, and when all is quiet again shares are what they should be.
static void test_anything_goes(void **state)
{
    (void)state;
    struct tv_error err = {0};
    struct sim_config config = {.ssd = &ssd_sata, .aged = true, .scheduler = &dispatch_oios, .window = 256, .disks_max = 12};
    struct sim *sim = sim_create(&config, &err);
    struct sim_disk *disks[12];
    uint64_t before[12], sum = 0;
    for (int i = 0; i < 12; i++)
        disks[i] = sim_add(sim, "d", &err);
    srand(4);
    for (int step = 1; step <= 500; step++) {
        struct sim_disk *disk = disks[rand() % 12];
        struct sim_load load = experiment_mixed((unsigned)rand() % 64);
        struct dispatch_terms terms = {.weight = 1 + (uint32_t)rand() % 1000};
        load.read_permille = (unsigned)rand() % 1001;
        load.off_ns = rand() % 3 ? 0 : NS_PER_MS;
        load.on_ns = NS_PER_MS;
        if (rand() % 3 == 0)
            terms.reserve.bytes_per_s = (uint64_t)rand() % 100000000;
        if (rand() % 3 == 0)
            terms.limit.ops_per_s = 100 + (uint64_t)rand() % 20000;
        if (rand() % 4 == 0)
            terms.limit.device_ppm = 1 + (uint32_t)rand() % 1000000;
        if (rand() % 4 == 0) {
            terms.latency_ns = 100000 + (uint64_t)rand() % 10000000;
            terms.latency_permille = 500 + (uint32_t)rand() % 500;
        }
        assert_int_equal(sim_set_terms(sim, disk, &terms, &err), 0);
        sim_set_load(sim, disk, &load);
        sim_run(sim, (uint64_t)step * 10 * NS_PER_MS);
    }
    struct sim_load load = experiment_reads(16);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(sim_set_terms(sim, disks[i], &dispatch_no_terms, &err), 0);
        sim_set_load(sim, disks[i], &load);
    }
    sim_run(sim, 8 * NS_PER_S);
    for (int i = 0; i < 12; i++)
        before[i] = disks[i]->counts.bytes;
    sim_run(sim, 9 * NS_PER_S);
    for (int i = 0; i < 12; i++)
        sum += disks[i]->counts.bytes - before[i];
    for (int i = 0; i < 12; i++)
        assert_true(fabs((double)(disks[i]->counts.bytes - before[i]) / (double)sum * 12 - 1) < 0.02);
    assert_true(sum > 400000000); // of 431 MB/s
    assert_int_equal(sim_idle(sim) + sim_dispatcher(sim)->counters.idle, 0);
    sim_destroy(sim); // waits for all that is under way
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fair_at_full_speed),
        cmocka_unit_test(test_fair_with_garbage_collection),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_many_disks),
        cmocka_unit_test(test_learns_costs),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_reservations),
        cmocka_unit_test(test_reservations_in_hard_times),
        cmocka_unit_test(test_changes_settle),
        cmocka_unit_test(test_steady_for_a_minute),
        cmocka_unit_test(test_latencies),
        cmocka_unit_test(test_hopeless_latencies),
        cmocka_unit_test(test_all_promises_together),
        cmocka_unit_test(test_time_of_the_device),
        cmocka_unit_test(test_anything_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
