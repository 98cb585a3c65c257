// Disks with workloads, behind any scheduler, on a modelled SSD, in simulated time: the rig of every experiment. The same calls
// give the same results, to the byte. One thread.
#pragma once

#include "base/histogram.h"
#include "store/model/ssd.h"
#include "store/sched/dispatch.h"

#define SIM_SLOTS 1024u // requests of a disk at once, as in the store

// What a guest asks of its disk. Everything random comes from the disk's own sequence of pseudo-random numbers.
struct sim_load {
    unsigned depth;         // closed loop: so many requests are there at once, a new one for each that is done, think_ns later
    uint64_t rate_per_s;    // open loop, with depth 0: as many come, at random, done or not; 0: none
    uint64_t think_ns;      // closed loop; on average, evenly between nothing and twice as much
    uint64_t on_ns, off_ns; // it comes in bursts; off_ns 0: it does not
    unsigned read_permille, sequential_permille;
    uint32_t small_bytes, large_bytes; // multiples of a page
    unsigned large_permille;
};

struct sim_counts {
    uint64_t requests, bytes;
    uint64_t late; // requests of an open loop that found no slot and were never made
};

struct sim_disk {
    const char *name;
    struct dispatch_queue *queue;
    struct sim_counts counts; // since the beginning; of what is done
    struct histogram latency; // since sim_reset_latency(): from enqueue to completion
    struct ssd_usage usage;
    unsigned queued, in_flight;
};

struct sim;

struct sim_config {
    const struct ssd_config *ssd;
    bool aged; // see ssd_age()
    const struct dispatch_ops *scheduler;
    unsigned window;
    unsigned disks_max;
};

struct sim *sim_create(const struct sim_config *config, struct tv_error *err);
void sim_destroy(struct sim *sim);

// The disks share the device's pages evenly, disks_max parts. NULL with err. `name` is borrowed.
struct sim_disk *sim_add(struct sim *sim, const char *name, struct tv_error *err);
void sim_set_load(struct sim *sim, struct sim_disk *disk, const struct sim_load *load); // at once; what is under way goes on
int sim_set_terms(struct sim *sim, struct sim_disk *disk, const struct dispatch_terms *terms, struct tv_error *err);
void sim_run(struct sim *sim, uint64_t until_ns);
uint64_t sim_now_ns(const struct sim *sim);
void sim_reset_latency(struct sim_disk *disk);

const struct dispatcher *sim_dispatcher(const struct sim *sim);
const struct ssd *sim_ssd(const struct sim *sim);
// How often the device stood idle although a disk without limits had a request queued: whatever the scheduler says of itself.
uint64_t sim_idle(const struct sim *sim);
