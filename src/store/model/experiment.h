// The experiments with schedulers on the modelled SSD: each is defined here once, for the tests, which hold the results against
// what is promised, and for the benchmark, which prints them. See sim.h.
#pragma once

#include "store/model/sim.h"

#define EXPERIMENT_DISKS_MAX 1024u

struct experiment_rig {
    const struct ssd_config *ssd;
    bool aged;
    const struct dispatch_ops *scheduler;
    unsigned window;
};

// Loads that occur more than once.
struct sim_load experiment_reads(unsigned depth); // 4 KiB, at random
struct sim_load experiment_mixed(unsigned depth); // 70 % reads; one in ten has 256 KiB, the others 4 KiB

// How disks share the device, each with its load and weight, from the second second on.
struct experiment_shares {
    double mb_per_s[EXPERIMENT_DISKS_MAX], sum_mb_per_s;
    double jain;         // of the throughputs by weight: 1 is perfect
    double weight_error; // the worst of the disks' shares, relative to what its weight gives it
    uint64_t idle;       // violations of work conservation, by the scheduler's own count and by the rig's
};
int experiment_shares(const struct experiment_rig *rig, const struct sim_load *loads, const uint32_t *weights, unsigned n,
                      double seconds, struct experiment_shares *result, struct tv_error *err);

// The decks' second experiment: a file server, a database, a mail server that keeps small files (as postmark has it), and two
// neighbours that take what they get; in turn, and staying: 40 MB/s reserved for the first, a limit of 300 requests/s for the
// second, a latency below 5 ms for 99 % of the third's.
#define EXPERIMENT_DECK2_DISKS 5u
struct experiment_deck2 {
    unsigned windows, held[3]; // of one second; in so many of them the promise held, whether it was made or not
    double mb_per_s[EXPERIMENT_DECK2_DISKS], requests_per_s, sum_mb_per_s; // requests_per_s: the second disk's
    uint64_t idle;
};
int experiment_deck2(const struct experiment_rig *rig, unsigned promises, unsigned windows, struct experiment_deck2 *result,
                     struct tv_error *err);

// What disks do over time, for plots. Called at the end of each step, with what was done in it; latencies are those of the step.
typedef void experiment_step_fn(void *arg, struct sim_disk *const *disks, const double *mb_per_s, unsigned n);
struct experiment_steps {
    uint64_t step_ns;
    unsigned n;
    experiment_step_fn *fn;
    void *arg;
};
// Disks with equal shares, from their first request on.
int experiment_shares_in_steps(const struct experiment_rig *rig, const struct sim_load *loads, unsigned n,
                               const struct experiment_steps *steps, struct tv_error *err);
// The decks' second experiment in four parts of steps->n steps: before the n-th the n-th promise is made, up to `promises`.
int experiment_deck2_in_steps(const struct experiment_rig *rig, unsigned promises, const struct experiment_steps *steps,
                              struct tv_error *err);

// How far the requests of a second are from a limit, at worst, beside a greedy neighbour or alone; 0.01: 1 %.
int experiment_limit(const struct experiment_rig *rig, uint64_t ops_per_s, bool neighbour, unsigned windows, double *error,
                     uint64_t *idle, struct tv_error *err);

// A disk with a reservation above its share, among three others with the same load: the least of the windows, relative to the goal.
int experiment_reserve(const struct experiment_rig *rig, const struct sim_load *load, uint64_t bytes_per_s, uint64_t window_ns,
                       unsigned windows, double *least, uint64_t *idle, struct tv_error *err);

// One of four disks is given three times the others' weight while they run (its share: from a quarter to a half), or the three
// others begin while it runs (from the whole to a quarter). After so many milliseconds its share of the last 20 ms is within 5 % of
// the new one and stays there for a second; overshoot: how far beyond the new share it was meanwhile, relative to the step.
enum experiment_change { EXPERIMENT_WEIGHT, EXPERIMENT_ARRIVAL };
int experiment_change(const struct experiment_rig *rig, const struct sim_load *load, enum experiment_change change,
                      unsigned *settled_ms, double *overshoot, struct tv_error *err);

// The share of one of four equal disks in windows of 100 ms over so long, relative to a quarter: how far it is off at worst.
int experiment_steady(const struct experiment_rig *rig, const struct sim_load *load, unsigned seconds, double *worst,
                      struct tv_error *err);

// A disk with a promised 99th percentile and a load of its own, between two greedy ones.
struct experiment_latency {
    unsigned windows, held; // of one second
    double worst_us, mb_per_s[3];
    double busy;         // of the busiest stage, on average over its members
    bool is_device_slow; // at the end; what the scheduler says
    uint64_t idle;
};
int experiment_latency(const struct experiment_rig *rig, const struct sim_load loads[3], uint64_t goal_us, unsigned windows,
                       struct experiment_latency *result, struct tv_error *err);
