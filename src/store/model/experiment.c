// Experiments with schedulers on the modelled SSD: see experiment.h.
#include "store/model/experiment.h"

#include "base/clock.h"

#include <math.h>

static struct sim *start(const struct experiment_rig *rig, unsigned n, struct sim_disk **disks, struct tv_error *err)
{
    struct sim_config config = {
        .ssd = rig->ssd, .aged = rig->aged, .scheduler = rig->scheduler, .window = rig->window, .disks_max = n};
    struct sim *sim = sim_create(&config, err);
    for (unsigned i = 0; sim && i < n; i++) {
        disks[i] = sim_add(sim, "disk", err);
        if (!disks[i]) {
            sim_destroy(sim);
            return NULL;
        }
    }
    return sim;
}

static uint64_t idle_of(const struct sim *sim)
{
    return sim_idle(sim) + sim_dispatcher(sim)->counters.idle;
}

// Ends it, with the error that is there.
static int fail(struct sim *sim, const struct tv_error *err)
{
    sim_destroy(sim);
    return err ? err->code : -1;
}

struct sim_load experiment_reads(unsigned depth)
{
    return (struct sim_load){.depth = depth, .read_permille = 1000, .small_bytes = 4096};
}

struct sim_load experiment_mixed(unsigned depth)
{
    return (struct sim_load){
        .depth = depth, .read_permille = 700, .small_bytes = 4096, .large_bytes = 256 << 10, .large_permille = 100};
}

// ---- shares ----

// What was done since the last call, in bytes.
static void take_bytes(struct sim_disk *const *disks, unsigned n, uint64_t *before, double *bytes)
{
    for (unsigned i = 0; i < n; i++) {
        bytes[i] = (double)(disks[i]->counts.bytes - before[i]);
        before[i] = disks[i]->counts.bytes;
    }
}

static void judge_shares(struct experiment_shares *r, const uint32_t *weights, unsigned n)
{
    double sum = 0, squares = 0, all = 0;
    r->sum_mb_per_s = r->weight_error = 0;
    for (unsigned i = 0; i < n; i++) {
        double x = r->mb_per_s[i] / weights[i];
        sum += x;
        squares += x * x;
        all += weights[i];
        r->sum_mb_per_s += r->mb_per_s[i];
    }
    r->jain = squares > 0 ? sum * sum / (n * squares) : 0; // R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984
    for (unsigned i = 0; i < n; i++) {
        double error = fabs(r->mb_per_s[i] / r->sum_mb_per_s / (weights[i] / all) - 1);
        r->weight_error = error > r->weight_error ? error : r->weight_error;
    }
}

int experiment_shares(const struct experiment_rig *rig, const struct sim_load *loads, const uint32_t *weights, unsigned n,
                      double seconds, struct experiment_shares *result, struct tv_error *err)
{
    struct sim_disk *disks[EXPERIMENT_DISKS_MAX];
    uint64_t before[EXPERIMENT_DISKS_MAX] = {0};
    struct sim *sim = start(rig, n, disks, err);
    if (!sim)
        return err ? err->code : -1;
    for (unsigned i = 0; i < n; i++) {
        struct dispatch_terms terms = dispatch_no_terms;
        terms.weight = weights[i];
        if (weights[i] != DISPATCH_WEIGHT_DEFAULT && sim_set_terms(sim, disks[i], &terms, err))
            return fail(sim, err);
        sim_set_load(sim, disks[i], &loads[i]);
    }
    sim_run(sim, NS_PER_S);
    take_bytes(disks, n, before, result->mb_per_s);
    sim_run(sim, NS_PER_S + (uint64_t)(seconds * (double)NS_PER_S));
    take_bytes(disks, n, before, result->mb_per_s);
    for (unsigned i = 0; i < n; i++)
        result->mb_per_s[i] /= 1e6 * seconds;
    judge_shares(result, weights, n);
    result->idle = idle_of(sim);
    sim_destroy(sim);
    return 0;
}

// ---- the decks' second experiment ----

static const struct sim_load deck2_loads[EXPERIMENT_DECK2_DISKS] = {
    // filebench's file server: reads and writes of whole files in pieces
    {.depth = 8,
     .read_permille = 600,
     .small_bytes = 16384,
     .large_bytes = 131072,
     .large_permille = 400,
     .sequential_permille = 700},
    // sysbench: pages of a database
    {.depth = 16, .read_permille = 700, .small_bytes = 16384},
    // postmark: small files
    {.depth = 4, .read_permille = 500, .small_bytes = 4096, .large_bytes = 16384, .large_permille = 300},
    // neighbours
    {.depth = 32, .read_permille = 700, .small_bytes = 65536, .large_bytes = 262144, .large_permille = 300},
    {.depth = 64, .read_permille = 700, .small_bytes = 4096, .large_bytes = 262144, .large_permille = 200},
};

#define DECK2_RESERVE 40000000u
#define DECK2_LIMIT 300u
#define DECK2_LATENCY_NS (5 * NS_PER_MS)

static int promise_deck2(struct sim *sim, struct sim_disk **disks, unsigned promises, struct tv_error *err)
{
    struct dispatch_terms terms[3] = {dispatch_no_terms, dispatch_no_terms, dispatch_no_terms};
    terms[0].reserve.bytes_per_s = DECK2_RESERVE;
    terms[1].limit.ops_per_s = DECK2_LIMIT;
    terms[2].latency_ns = DECK2_LATENCY_NS;
    terms[2].latency_permille = 990;
    int r = 0;
    for (unsigned i = 0; !r && i < promises; i++)
        r = sim_set_terms(sim, disks[i], &terms[i], err);
    return r;
}

static void judge_deck2_window(struct sim_disk *const *disks, const struct sim_counts *before, unsigned held[3])
{
    uint64_t bytes = disks[0]->counts.bytes - before[0].bytes, requests = disks[1]->counts.requests - before[1].requests;
    held[0] += bytes >= DECK2_RESERVE / 100 * 99;
    held[1] += requests <= DECK2_LIMIT + DECK2_LIMIT / 100;
    held[2] += histogram_percentile(&disks[2]->latency, 990) <= DECK2_LATENCY_NS;
}

int experiment_deck2(const struct experiment_rig *rig, unsigned promises, unsigned windows, struct experiment_deck2 *result,
                     struct tv_error *err)
{
    struct sim_disk *disks[EXPERIMENT_DECK2_DISKS];
    struct sim_counts first[EXPERIMENT_DECK2_DISKS], before[EXPERIMENT_DECK2_DISKS];
    *result = (struct experiment_deck2){.windows = windows};
    struct sim *sim = start(rig, EXPERIMENT_DECK2_DISKS, disks, err);
    if (!sim)
        return err ? err->code : -1;
    if (promise_deck2(sim, disks, promises, err))
        return fail(sim, err);
    for (unsigned i = 0; i < EXPERIMENT_DECK2_DISKS; i++)
        sim_set_load(sim, disks[i], &deck2_loads[i]);
    sim_run(sim, NS_PER_S);
    for (unsigned i = 0; i < EXPERIMENT_DECK2_DISKS; i++)
        first[i] = disks[i]->counts;
    for (unsigned w = 0; w < windows; w++) {
        for (unsigned i = 0; i < EXPERIMENT_DECK2_DISKS; i++) {
            before[i] = disks[i]->counts;
            sim_reset_latency(disks[i]);
        }
        sim_run(sim, (w + 2) * NS_PER_S);
        judge_deck2_window(disks, before, result->held);
    }
    for (unsigned i = 0; i < EXPERIMENT_DECK2_DISKS; i++) {
        result->mb_per_s[i] = (double)(disks[i]->counts.bytes - first[i].bytes) / 1e6 / windows;
        result->sum_mb_per_s += result->mb_per_s[i];
    }
    result->requests_per_s = (double)(disks[1]->counts.requests - first[1].requests) / windows;
    result->idle = idle_of(sim);
    sim_destroy(sim);
    return 0;
}

// ---- over time ----

// Runs `steps` from now on.
static void run_steps(struct sim *sim, struct sim_disk *const *disks, unsigned n, const struct experiment_steps *steps)
{
    uint64_t before[EXPERIMENT_DISKS_MAX];
    double mb_per_s[EXPERIMENT_DISKS_MAX];
    for (unsigned i = 0; i < n; i++)
        before[i] = disks[i]->counts.bytes;
    for (unsigned step = 0; step < steps->n; step++) {
        for (unsigned i = 0; i < n; i++)
            sim_reset_latency(disks[i]);
        sim_run(sim, sim_now_ns(sim) + steps->step_ns);
        take_bytes(disks, n, before, mb_per_s);
        for (unsigned i = 0; i < n; i++)
            mb_per_s[i] *= 1e3 / (double)steps->step_ns;
        steps->fn(steps->arg, disks, mb_per_s, n);
    }
}

int experiment_shares_in_steps(const struct experiment_rig *rig, const struct sim_load *loads, unsigned n,
                               const struct experiment_steps *steps, struct tv_error *err)
{
    struct sim_disk *disks[EXPERIMENT_DISKS_MAX];
    struct sim *sim = start(rig, n, disks, err);
    if (!sim)
        return err ? err->code : -1;
    for (unsigned i = 0; i < n; i++)
        sim_set_load(sim, disks[i], &loads[i]);
    run_steps(sim, disks, n, steps);
    sim_destroy(sim);
    return 0;
}

int experiment_deck2_in_steps(const struct experiment_rig *rig, unsigned promises, const struct experiment_steps *steps,
                              struct tv_error *err)
{
    struct sim_disk *disks[EXPERIMENT_DECK2_DISKS];
    struct sim *sim = start(rig, EXPERIMENT_DECK2_DISKS, disks, err);
    if (!sim)
        return err ? err->code : -1;
    for (unsigned i = 0; i < EXPERIMENT_DECK2_DISKS; i++)
        sim_set_load(sim, disks[i], &deck2_loads[i]);
    for (unsigned part = 0; part <= 3; part++) {
        if (promise_deck2(sim, disks, part < promises ? part : promises, err))
            return fail(sim, err);
        run_steps(sim, disks, EXPERIMENT_DECK2_DISKS, steps);
    }
    sim_destroy(sim);
    return 0;
}

// ---- limits and reservations ----

int experiment_limit(const struct experiment_rig *rig, uint64_t ops_per_s, bool neighbour, unsigned windows, double *error,
                     uint64_t *idle, struct tv_error *err)
{
    struct sim_disk *disks[2];
    struct sim *sim = start(rig, 2, disks, err);
    if (!sim)
        return err ? err->code : -1;
    struct dispatch_terms terms = dispatch_no_terms;
    struct sim_load load = experiment_reads(512);
    terms.limit.ops_per_s = ops_per_s;
    terms.weight = neighbour ? DISPATCH_WEIGHT_MAX : terms.weight; // so that it is the limit that holds it back
    if (sim_set_terms(sim, disks[0], &terms, err))
        return fail(sim, err);
    sim_set_load(sim, disks[0], &load);
    if (neighbour)
        sim_set_load(sim, disks[1], &load);
    *error = 0;
    for (unsigned w = 0; w < windows; w++) {
        uint64_t before = disks[0]->counts.requests;
        sim_run(sim, (w + 1) * NS_PER_S);
        double off = fabs((double)(disks[0]->counts.requests - before) / (double)ops_per_s - 1);
        *error = off > *error ? off : *error;
    }
    *idle = idle_of(sim);
    sim_destroy(sim);
    return 0;
}

int experiment_reserve(const struct experiment_rig *rig, const struct sim_load *load, uint64_t bytes_per_s, uint64_t window_ns,
                       unsigned windows, double *least, uint64_t *idle, struct tv_error *err)
{
    struct sim_disk *disks[4];
    struct sim *sim = start(rig, 4, disks, err);
    if (!sim)
        return err ? err->code : -1;
    struct dispatch_terms terms = dispatch_no_terms;
    terms.reserve.bytes_per_s = bytes_per_s;
    if (sim_set_terms(sim, disks[0], &terms, err))
        return fail(sim, err);
    for (unsigned i = 0; i < 4; i++)
        sim_set_load(sim, disks[i], load);
    sim_run(sim, NS_PER_S);
    *least = INFINITY;
    for (unsigned w = 0; w < windows; w++) {
        uint64_t before = disks[0]->counts.bytes;
        sim_run(sim, NS_PER_S + (w + 1) * window_ns);
        double rate = (double)(disks[0]->counts.bytes - before) * (double)NS_PER_S / (double)window_ns;
        *least = fmin(*least, rate / (double)bytes_per_s);
    }
    *idle = idle_of(sim);
    sim_destroy(sim);
    return 0;
}

// ---- in time ----

// Runs on for window_ns; the first disk's share of what all did meanwhile.
static double next_share(struct sim *sim, struct sim_disk *const *disks, uint64_t *before, uint64_t window_ns)
{
    double bytes[4], sum = 0;
    sim_run(sim, sim_now_ns(sim) + window_ns);
    take_bytes(disks, 4, before, bytes);
    for (unsigned i = 0; i < 4; i++)
        sum += bytes[i];
    return sum > 0 ? bytes[0] / sum : 0;
}

#define SETTLE_WINDOW_MS 20u
#define SETTLE_WINDOWS 60u // the last 50 of them must be good

int experiment_change(const struct experiment_rig *rig, const struct sim_load *load, enum experiment_change change,
                      unsigned *settled_ms, double *overshoot, struct tv_error *err)
{
    struct sim_disk *disks[4];
    uint64_t before[4] = {0};
    struct sim *sim = start(rig, 4, disks, err);
    if (!sim)
        return err ? err->code : -1;
    for (unsigned i = 0; i < (change == EXPERIMENT_ARRIVAL ? 1 : 4); i++)
        sim_set_load(sim, disks[i], load);
    double from = next_share(sim, disks, before, NS_PER_S), to = change == EXPERIMENT_ARRIVAL ? 0.25 : 0.5;
    struct dispatch_terms terms = dispatch_no_terms;
    terms.weight *= 3;
    if (change == EXPERIMENT_WEIGHT && sim_set_terms(sim, disks[0], &terms, err))
        return fail(sim, err);
    for (unsigned i = 1; change == EXPERIMENT_ARRIVAL && i < 4; i++)
        sim_set_load(sim, disks[i], load);
    *settled_ms = 0;
    *overshoot = 0;
    for (unsigned w = 0; w < SETTLE_WINDOWS; w++) {
        double share = next_share(sim, disks, before, SETTLE_WINDOW_MS * NS_PER_MS);
        if (fabs(share / to - 1) > 0.05)
            *settled_ms = (w + 1) * SETTLE_WINDOW_MS;
        *overshoot = fmax(*overshoot, (share - to) / (to - from));
    }
    sim_destroy(sim);
    return 0;
}

int experiment_steady(const struct experiment_rig *rig, const struct sim_load *load, unsigned seconds, double *worst,
                      struct tv_error *err)
{
    struct sim_disk *disks[4];
    uint64_t before[4] = {0};
    struct sim *sim = start(rig, 4, disks, err);
    if (!sim)
        return err ? err->code : -1;
    for (unsigned i = 0; i < 4; i++)
        sim_set_load(sim, disks[i], load);
    next_share(sim, disks, before, NS_PER_S);
    *worst = 0;
    for (unsigned w = 0; w < seconds * 10; w++)
        *worst = fmax(*worst, fabs(next_share(sim, disks, before, 100 * NS_PER_MS) * 4 - 1));
    sim_destroy(sim);
    return 0;
}

// ---- latency ----

static double busiest(const struct sim *sim, const struct ssd_usage *before, double ns)
{
    struct ssd_usage now = ssd_total(sim_ssd(sim));
    double most = 0;
    for (unsigned i = 0; i < SSD_STAGES; i++)
        most = fmax(most, (double)(now.busy_ns[i] - before->busy_ns[i]) / ns / ssd_stage_width(sim_ssd(sim), (enum ssd_stage)i));
    return most;
}

int experiment_latency(const struct experiment_rig *rig, const struct sim_load loads[3], uint64_t goal_us, unsigned windows,
                       struct experiment_latency *result, struct tv_error *err)
{
    struct sim_disk *disks[3];
    uint64_t before[3] = {0};
    *result = (struct experiment_latency){.windows = windows};
    struct sim *sim = start(rig, 3, disks, err);
    if (!sim)
        return err ? err->code : -1;
    struct dispatch_terms terms = dispatch_no_terms;
    terms.latency_ns = goal_us * NS_PER_US;
    terms.latency_permille = 990;
    if (rig->scheduler != &dispatch_fifo && sim_set_terms(sim, disks[0], &terms, err))
        return fail(sim, err);
    for (unsigned i = 0; i < 3; i++)
        sim_set_load(sim, disks[i], &loads[i]);
    sim_run(sim, NS_PER_S);
    struct ssd_usage used = ssd_total(sim_ssd(sim));
    take_bytes(disks, 3, before, result->mb_per_s);
    for (unsigned w = 0; w < windows; w++) {
        sim_reset_latency(disks[0]);
        sim_run(sim, (w + 2) * NS_PER_S);
        double p99_us = (double)histogram_percentile(&disks[0]->latency, 990) / 1e3;
        result->held += p99_us <= (double)goal_us;
        result->worst_us = fmax(result->worst_us, p99_us);
    }
    take_bytes(disks, 3, before, result->mb_per_s);
    for (unsigned i = 0; i < 3; i++)
        result->mb_per_s[i] /= 1e6 * windows;
    result->busy = busiest(sim, &used, (double)windows * (double)NS_PER_S);
    const struct dispatcher *d = sim_dispatcher(sim);
    result->is_device_slow = d->ops->is_device_slow && d->ops->is_device_slow(d, disks[0]->queue);
    result->idle = idle_of(sim);
    sim_destroy(sim);
    return 0;
}
