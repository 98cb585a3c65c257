// The experiments with schedulers on the modelled SSD (src/store/model/experiment.h), one JSON object a line. What is printed
// repeats to the byte.
//
// Usage: sched_experiments [EXPERIMENT]...   all of them, without arguments
#include "base/clock.h"
#include "store/model/experiment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct contender {
    const char *name;
    const struct dispatch_ops *ops;
    unsigned window;
};

static const struct contender contenders[] = {
    {"fifo", &dispatch_fifo, 256},    {"sfq(1)", &dispatch_sfq, 1},         {"sfq(32)", &dispatch_sfq, 32},
    {"drr(256)", &dispatch_drr, 256}, {"mclock(32)", &dispatch_mclock, 32}, {"mclock(256)", &dispatch_mclock, 256},
    {"oios", &dispatch_oios, 256},
};
#define N_CONTENDERS (sizeof(contenders) / sizeof(contenders[0]))
#define OIOS (&contenders[N_CONTENDERS - 1])

static struct experiment_rig rig_of(const struct contender *who, const struct ssd_config *ssd, bool aged)
{
    return (struct experiment_rig){.ssd = ssd, .aged = aged, .scheduler = who->ops, .window = who->window};
}

static void check(int failed, const struct tv_error *err)
{
    if (!failed)
        return;
    fprintf(stderr, "sched_experiments: %s\n", err->text);
    exit(2);
}

static struct sim_load in_bursts(struct sim_load load)
{
    load.on_ns = 3 * NS_PER_MS;
    load.off_ns = NS_PER_MS;
    return load;
}

// ---- sharing ----

struct sharing {
    const char *name;
    const struct ssd_config *ssd;
    bool aged;
    struct sim_load load;
    unsigned depth;
    double seconds;
};

static void fair(void)
{
    const struct sharing cases[] = {
        {"few requests", &ssd_sata, false, experiment_reads(0), 4, 4},
        {"more requests", &ssd_sata, false, experiment_reads(0), 16, 4},
        {"many requests, faster device", &ssd_nvme, false, experiment_reads(0), 64, 1},
        {"mixed, garbage collection", &ssd_sata, true, experiment_mixed(0), 32, 10},
        {"mixed, garbage collection, bursts", &ssd_sata, true, in_bursts(experiment_mixed(0)), 32, 10},
    };
    const uint32_t weights[4] = {100, 100, 100, 100};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
        for (size_t k = 0; k < N_CONTENDERS; k++) {
            struct tv_error err = {0};
            struct experiment_shares r;
            struct experiment_rig rig = rig_of(&contenders[k], cases[c].ssd, cases[c].aged);
            struct sim_load loads[4] = {cases[c].load, cases[c].load, cases[c].load, cases[c].load};
            for (unsigned i = 0; i < 4; i++)
                loads[i].depth = i ? cases[c].depth : 2 * cases[c].depth;
            check(experiment_shares(&rig, loads, weights, 4, cases[c].seconds, &r, &err), &err);
            printf("{\"experiment\": \"fair\", \"case\": \"%s\", \"scheduler\": \"%s\", \"mb_per_s\": [%.1f, %.1f, %.1f, %.1f], "
                   "\"sum_mb_per_s\": %.1f, \"jain\": %.4f, \"idle\": %" PRIu64 "}\n",
                   cases[c].name, contenders[k].name, r.mb_per_s[0], r.mb_per_s[1], r.mb_per_s[2], r.mb_per_s[3], r.sum_mb_per_s,
                   r.jain, r.idle);
        }
}

static void weights(void)
{
    const struct sharing cases[] = {
        {"4 KiB reads", &ssd_sata, false, experiment_reads(64), 64, 4},
        {"4 KiB reads, faster device", &ssd_nvme, false, experiment_reads(256), 256, 1},
        {"mixed, garbage collection", &ssd_sata, true, experiment_mixed(64), 64, 60},
        {"mixed, garbage collection, bursts", &ssd_sata, true, in_bursts(experiment_mixed(64)), 64, 60},
    };
    const uint32_t of_disks[4] = {100, 200, 400, 800};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct tv_error err = {0};
        struct experiment_shares r;
        struct experiment_rig rig = rig_of(OIOS, cases[c].ssd, cases[c].aged);
        const struct sim_load loads[4] = {cases[c].load, cases[c].load, cases[c].load, cases[c].load};
        check(experiment_shares(&rig, loads, of_disks, 4, cases[c].seconds, &r, &err), &err);
        printf("{\"experiment\": \"weights\", \"case\": \"%s\", \"scheduler\": \"oios\", \"error\": %.4f, \"idle\": %" PRIu64 "}\n",
               cases[c].name, r.weight_error, r.idle);
    }
}

// Two disks of one kind and two of another: what each gets, as a part of what it would have alone.
static void kinds(void)
{
    const uint32_t equal[4] = {100, 100, 100, 100};
    struct sim_load reads = experiment_reads(128), large = experiment_reads(16), writes = reads;
    large.small_bytes = 256 << 10;
    writes.read_permille = 0;
    const struct {
        const char *name;
        bool aged;
        struct sim_load loads[2];
    } cases[] = {
        {"reads of 4 KiB and 256 KiB", false, {reads, large}},
        {"reads and writes", false, {reads, writes}},
        {"reads and writes, garbage collection", true, {reads, writes}},
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
        for (size_t k = 0; k < N_CONTENDERS; k++) {
            struct tv_error err = {0};
            struct experiment_shares r, alone[2];
            struct experiment_rig rig = rig_of(&contenders[k], &ssd_sata, cases[c].aged),
                                  fifo = rig_of(&contenders[0], &ssd_sata, cases[c].aged);
            const struct sim_load loads[4] = {cases[c].loads[0], cases[c].loads[1], cases[c].loads[0], cases[c].loads[1]};
            for (int i = 0; i < 2; i++)
                check(experiment_shares(&fifo, &cases[c].loads[i], equal, 1, 2, &alone[i], &err), &err);
            check(experiment_shares(&rig, loads, equal, 4, 4, &r, &err), &err);
            printf("{\"experiment\": \"kinds\", \"case\": \"%s\", \"scheduler\": \"%s\", \"parts\": [%.3f, %.3f], "
                   "\"sum_mb_per_s\": %.1f, \"idle\": %" PRIu64 "}\n",
                   cases[c].name, contenders[k].name, r.mb_per_s[0] / alone[0].mb_per_s[0], r.mb_per_s[1] / alone[1].mb_per_s[0],
                   r.sum_mb_per_s, r.idle);
        }
}

// ---- promises ----

static void together(void)
{
    const struct contender *who[] = {&contenders[0], &contenders[4], OIOS};
    const unsigned most[] = {0, 2, 3}; // what they can be told
    for (size_t k = 0; k < 3; k++)
        for (unsigned promises = 0; promises <= most[k]; promises++) {
            struct tv_error err = {0};
            struct experiment_deck2 r;
            struct experiment_rig rig = rig_of(who[k], &ssd_sata, true);
            check(experiment_deck2(&rig, promises, 100, &r, &err), &err);
            printf("{\"experiment\": \"together\", \"case\": \"%u promises\", \"scheduler\": \"%s\", \"held\": [%u, %u, %u], "
                   "\"windows\": %u, \"mb_per_s\": [%.1f, %.1f, %.1f, %.1f, %.1f], \"requests_per_s\": %.1f, "
                   "\"sum_mb_per_s\": %.1f, \"idle\": %" PRIu64 "}\n",
                   promises, who[k]->name, r.held[0], r.held[1], r.held[2], r.windows, r.mb_per_s[0], r.mb_per_s[1], r.mb_per_s[2],
                   r.mb_per_s[3], r.mb_per_s[4], r.requests_per_s, r.sum_mb_per_s, r.idle);
        }
}

static void limits(void)
{
    static const uint64_t rates[] = {100, 1000, 10000, 100000, 1000000};
    struct experiment_rig rig = rig_of(OIOS, &ssd_nvme, false);
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
        for (int neighbour = 0; neighbour < 2; neighbour++) {
            struct tv_error err = {0};
            double error;
            uint64_t idle;
            check(experiment_limit(&rig, rates[i], neighbour, 4, &error, &idle, &err), &err);
            printf("{\"experiment\": \"limits\", \"case\": \"%" PRIu64 "/s%s\", \"scheduler\": \"oios\", \"error\": %.4f, "
                   "\"idle\": %" PRIu64 "}\n",
                   rates[i], neighbour ? ", beside a neighbour" : "", error, idle);
        }
}

static void reserves(void)
{
    struct {
        const char *name;
        bool aged;
        struct sim_load load;
        uint64_t window_ns;
        unsigned windows;
    } cases[] = {
        {"200 MB/s, 4 KiB reads, windows of 100 ms", false, experiment_reads(32), NS_PER_S / 10, 200},
        {"200 MB/s, mixed, garbage collection, windows of 1 s", true, experiment_mixed(64), NS_PER_S, 100},
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct tv_error err = {0};
        double least;
        uint64_t idle;
        struct experiment_rig rig = rig_of(OIOS, &ssd_sata, cases[c].aged);
        check(experiment_reserve(&rig, &cases[c].load, 200000000, cases[c].window_ns, cases[c].windows, &least, &idle, &err), &err);
        printf("{\"experiment\": \"reserves\", \"case\": \"%s\", \"scheduler\": \"oios\", \"least\": %.4f, \"idle\": %" PRIu64
               "}\n",
               cases[c].name, least, idle);
    }
}

static void changes(void)
{
    static const char *const names[] = {"weight", "arrival"};
    struct sim_load load = experiment_reads(48);
    struct experiment_rig rig = rig_of(OIOS, &ssd_sata, false);
    struct tv_error err = {0};
    for (int change = EXPERIMENT_WEIGHT; change <= EXPERIMENT_ARRIVAL; change++) {
        unsigned settled_ms;
        double overshoot;
        check(experiment_change(&rig, &load, (enum experiment_change)change, &settled_ms, &overshoot, &err), &err);
        printf(
            "{\"experiment\": \"changes\", \"case\": \"%s\", \"scheduler\": \"oios\", \"settled_ms\": %u, \"overshoot\": %.3f}\n",
            names[change], settled_ms, overshoot);
    }
    double worst;
    check(experiment_steady(&rig, &load, 60, &worst, &err), &err);
    printf("{\"experiment\": \"changes\", \"case\": \"none for a minute\", \"scheduler\": \"oios\", \"worst\": %.4f}\n", worst);
}

static void latencies(void)
{
    struct sim_load own = {.rate_per_s = 3000, .read_permille = 1000, .small_bytes = 4096}, writes = own, fast = own;
    struct sim_load large = experiment_reads(16);
    large.small_bytes = 256 << 10;
    writes.read_permille = 500;
    fast.rate_per_s = 50000;
    struct {
        const char *name;
        const struct ssd_config *ssd;
        bool aged;
        struct sim_load own, other;
        uint64_t goal_us;
        unsigned windows;
    } cases[] = {
        {"500 us, beside 4 KiB reads", &ssd_sata, false, own, experiment_reads(64), 500, 20},
        {"2.5 ms, beside 256 KiB reads", &ssd_sata, false, own, large, 2500, 20},
        {"5 ms, mixed, garbage collection", &ssd_sata, true, writes, experiment_mixed(48), 5000, 100},
        {"200 us, faster device, beside 4 KiB reads", &ssd_nvme, false, fast, experiment_reads(256), 200, 10},
        {"500 us, faster device, beside 256 KiB reads", &ssd_nvme, false, fast, large, 500, 10},
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
        for (size_t k = 0; k < N_CONTENDERS; k += N_CONTENDERS - 1) {
            struct tv_error err = {0};
            struct experiment_latency r;
            const struct sim_load loads[3] = {cases[c].own, cases[c].other, cases[c].other};
            struct experiment_rig rig = rig_of(&contenders[k], cases[c].ssd, cases[c].aged);
            check(experiment_latency(&rig, loads, cases[c].goal_us, cases[c].windows, &r, &err), &err);
            printf("{\"experiment\": \"latencies\", \"case\": \"%s\", \"scheduler\": \"%s\", \"held\": %u, \"windows\": %u, "
                   "\"worst_us\": %.0f, \"busy\": %.3f, \"idle\": %" PRIu64 "}\n",
                   cases[c].name, contenders[k].name, r.held, r.windows, r.worst_us, r.busy, r.idle);
        }
}

// ---- over time, for plots: a line each step ----

struct series {
    const char *experiment, *scheduler;
    uint64_t step_ns;
    unsigned n;
};

static void print_step(void *arg, struct sim_disk *const *disks, const double *mb_per_s, unsigned n)
{
    struct series *s = arg;
    printf("{\"series\": \"%s\", \"scheduler\": \"%s\", \"t\": %.1f, \"mb_per_s\": [", s->experiment, s->scheduler,
           (double)(++s->n * s->step_ns) / (double)NS_PER_S);
    for (unsigned i = 0; i < n; i++)
        printf("%s%.1f", i ? ", " : "", mb_per_s[i]);
    printf("], \"requests_per_s\": [");
    for (unsigned i = 0; i < n; i++)
        printf("%s%.0f", i ? ", " : "", (double)disks[i]->latency.count * (double)NS_PER_S / (double)s->step_ns);
    printf("], \"latency_us\": [");
    for (unsigned i = 0; i < n; i++) {
        const struct histogram *h = &disks[i]->latency;
        printf("%s[%.1f, %.1f, %.1f]", i ? ", " : "", (double)histogram_percentile(h, 500) / 1e3,
               (double)histogram_percentile(h, 990) / 1e3, (double)histogram_percentile(h, 999) / 1e3);
    }
    printf("]}\n");
}

static void over_time(void)
{
    for (size_t k = 0; k < N_CONTENDERS; k++) {
        struct tv_error err = {0};
        struct experiment_rig rig = rig_of(&contenders[k], &ssd_sata, true);
        struct series s = {.experiment = "fair", .scheduler = contenders[k].name, .step_ns = NS_PER_S / 5};
        const struct experiment_steps steps = {.step_ns = s.step_ns, .n = 30, .fn = print_step, .arg = &s};
        const struct sim_load loads[4] = {experiment_mixed(64), experiment_mixed(32), experiment_mixed(32), experiment_mixed(32)};
        check(experiment_shares_in_steps(&rig, loads, 4, &steps, &err), &err);
    }
    const struct contender *who[] = {&contenders[0], OIOS};
    for (int k = 0; k < 2; k++) {
        struct tv_error err = {0};
        struct experiment_rig rig = rig_of(who[k], &ssd_sata, true);
        struct series s = {.experiment = "together", .scheduler = who[k]->name, .step_ns = NS_PER_S / 2};
        const struct experiment_steps steps = {.step_ns = s.step_ns, .n = 20, .fn = print_step, .arg = &s};
        check(experiment_deck2_in_steps(&rig, k ? 3 : 0, &steps, &err), &err);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } experiments[] = {
        {"fair", fair},         {"weights", weights}, {"kinds", kinds},         {"together", together},   {"limits", limits},
        {"reserves", reserves}, {"changes", changes}, {"latencies", latencies}, {"over-time", over_time},
    };
    for (size_t e = 0; e < sizeof(experiments) / sizeof(experiments[0]); e++) {
        bool wanted = argc == 1;
        for (int i = 1; i < argc; i++)
            wanted |= !strcmp(argv[i], experiments[e].name);
        if (wanted)
            experiments[e].run();
    }
    return 0;
}
