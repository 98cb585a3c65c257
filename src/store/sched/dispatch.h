// The seam of the scheduler: requests of all disks go in, and come out in the order in which the device is to see them.
//
// A disk has a queue; requests enter at its tail. The dispatcher says which request goes to the device next, and learns from each
// completion. It knows nothing of virtio, images or io_uring, and no time but what the caller tells, which never goes back: so the
// same code serves a real device and a model of one. One dispatcher a device; all calls on the store's thread, none may allocate
// but create and queue_add.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum dispatch_kind { DISPATCH_READ, DISPATCH_WRITE, DISPATCH_FLUSH, DISPATCH_TRIM };
#define DISPATCH_KINDS 4

struct dispatch_queue; // one disk's; its members are the scheduler's own

// A request as the scheduler sees it; embedded in the store's. It belongs to the dispatcher from enqueue to next.
struct dispatch_item {
    struct dispatch_item *link;   // the dispatcher's
    struct dispatch_queue *queue; // set by enqueue
    enum dispatch_kind kind;
    uint32_t cost_ns; // the dispatcher's
    // The dispatcher's: costs of what was with the device when it was let go; 0 of one that knows no costs.
    uint32_t ahead_ns;
    uint8_t stretch;  // the dispatcher's
    bool in_lane;     // the dispatcher's
    uint64_t offset_bytes, len_bytes;
    uint64_t enqueued_ns, dispatched_ns; // set by the caller
    uint64_t held_ns;                    // the dispatcher's: up to when a limit of its queue held it back; 0: none did
};

// What a disk is promised, or held to, in each metric. 0: nothing said.
struct dispatch_rates {
    uint64_t bytes_per_s, ops_per_s;
    uint32_t device_ppm; // of the device's time, in millionths
};

#define DISPATCH_WEIGHT_DEFAULT 100u
#define DISPATCH_WEIGHT_MAX 10000u

struct dispatch_terms {
    uint32_t weight; // 1 to DISPATCH_WEIGHT_MAX
    struct dispatch_rates reserve, limit;
    uint64_t latency_ns; // 0: none; else at least latency_permille of 1000 requests take no longer, queueing included
    uint32_t latency_permille;
};

struct dispatch_config {
    unsigned window; // at most so many requests are with the device at once
};

struct dispatch_counters {
    uint64_t dispatched;
    uint64_t
        idle; // next() gave nothing though there was room and a request that might go: never, of a scheduler that conserves work
};

struct dispatcher {
    const struct dispatch_ops *ops;
    struct dispatch_counters counters;
};

struct dispatch_ops {
    const char *name;
    struct dispatcher *(*create)(const struct dispatch_config *config, struct tv_error *err);
    void (*destroy)(struct dispatcher *d); // all queues have been removed

    // The new queue has the default weight and no other terms.
    struct dispatch_queue *(*queue_add)(struct dispatcher *d, const char *disk, struct tv_error *err);
    void (*queue_remove)(struct dispatcher *d, struct dispatch_queue *queue); // nothing of it is queued or with the device
    // New terms, at any time. -EINVAL: they mean nothing; -EOPNOTSUPP: this scheduler cannot hold them. The old ones stay then.
    int (*queue_set)(struct dispatcher *d, struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns,
                     struct tv_error *err);

    void (*enqueue)(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item);
    // The next request for the device, or NULL: there is none that may go, or the window is full.
    struct dispatch_item *(*next)(struct dispatcher *d, uint64_t now_ns);
    // After next() has said NULL: when to ask again though nothing is enqueued or completed; UINT64_MAX: never.
    uint64_t (*wake_ns)(const struct dispatcher *d);
    void (*complete)(struct dispatcher *d, struct dispatch_item *item, uint64_t now_ns);

    // For verdicts on promises; NULL of a scheduler that cannot tell.
    // For how long, in all, there were requests of the queue that waited though no limit of its own held them back.
    uint64_t (*waited_ns)(const struct dispatcher *d, const struct dispatch_queue *queue, uint64_t now_ns);
    // Whether an item's cost_ns is learned from this device, not assumed.
    bool (*knows_costs)(const struct dispatcher *d);
    // Whether the queue's promised latency is not held since the device takes as long with next to nothing else to do, so that
    // holding back others, which was tried, is of no use.
    bool (*is_device_slow)(const struct dispatcher *d, const struct dispatch_queue *queue);
};

extern const struct dispatch_ops dispatch_fifo;   // first come, first served, over all disks
extern const struct dispatch_ops dispatch_sfq;    // weights, by virtual time
extern const struct dispatch_ops dispatch_drr;    // weights, in rounds
extern const struct dispatch_ops dispatch_mclock; // reservations, limits and weights, by tags
extern const struct dispatch_ops dispatch_oios;   // all there is

extern const struct dispatch_terms dispatch_no_terms;       // the default weight, and nothing else
const struct dispatch_ops *dispatch_find(const char *name); // NULL: there is none of this name
extern const char dispatch_names[];                         // of all, for messages
// The same with what a person may say beside the name, "sfq:32": how many requests may be with the device at once, 1 to *window,
// which it is without. Not of oios, which finds its own.
const struct dispatch_ops *dispatch_parse(const char *text, unsigned *window);

uint64_t dispatch_never_wakes(const struct dispatcher *d); // wake_ns of those that hold nothing back
// For implementations: refuses terms that mean nothing, and all that is not in `known`.
enum { DISPATCH_KNOWS_WEIGHT = 1, DISPATCH_KNOWS_RATES = 2, DISPATCH_KNOWS_DEVICE = 4, DISPATCH_KNOWS_LATENCY = 8 };
int dispatch_check_terms(const struct dispatch_ops *ops, const struct dispatch_terms *terms, unsigned known, struct tv_error *err);
