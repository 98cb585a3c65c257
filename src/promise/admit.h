// Admission: can a resource keep a set of promises together? Pure arithmetic; any thread.
//
// Reserves in different metrics are brought to one currency, the share of the resource's time that they take, by what each holder
// would reach if it had the resource alone: 40MB/s of 400MB/s are 10 % of it. What it would reach depends on what it asks for
// (large requests or small ones), so the figures are each holder's own: where a cost is known, units per second are 10^9 / its
// nanoseconds a unit. Reserves of one holder are met by the same requests, so it needs the largest of them, not their sum.
#pragma once

#include "promise/promise.h"

#include <stddef.h>

struct promise_holder {
    const char *name; // for messages: "disk 'db'"
    const struct promise_set *set;
    // In base units: what it would reach alone, PROMISE_CORES that of all CPUs. Of PROMISE_LATENCY: what the resource itself takes
    // for the promised part of its requests. 0: not known; a reserve is then refused, a latency not checked. PROMISE_UTILIZATION is
    // unused.
    uint64_t alone[PROMISE_METRICS];
    const char *latency_source; // how that is known of a latency, for messages: "by its own requests"; NULL: no word of it
    // Millionths of the resource's time that the requests take which are to be done within the promised latency; 0: not known. They
    // go before all others, so this is reserved like all else.
    uint64_t latency_need;
};

struct promise_capacity {
    const char *name;   // "device 'nvme0'"
    uint32_t share_max; // so many millionths can be promised
};

#define PROMISE_SHARE_MAX_DEFAULT 850000u

// 0, or -errno with the promises, their sum and what can be promised: -EBUSY when the reserves are too much together or a latency
// is less than the resource takes, -ENODATA when it is not known what a holder would reach.
int promise_admit(const struct promise_capacity *capacity, const struct promise_holder *holders, size_t n, struct tv_error *err);

// What a holder's reserves take, in millionths, rounded up; what is not known counts as nothing.
uint64_t promise_need(const struct promise_holder *holder);

// When a resource has become slower than what was promised of it: by how many millionths all reserves are to be scaled for them to
// fit; 1000000 when they do.
uint32_t promise_fit(const struct promise_capacity *capacity, const struct promise_holder *holders, size_t n);
