// Verdicts: is each promise on a resource kept or broken, since when, by how much, and who had what was lacking?
//
// One watch a resource. Its owner adds what each holder got as it happens or every few milliseconds, and ticks; when a window is
// over, every promise is judged over it, and a callback tells of those that broke or are kept again. What is judged
// (trivet-promises(7)):
//
//   reserve   what was done against what was reserved for the time in which requests waited; nothing waited, nothing is owed
//   limit     what was done against the limit
//   latency   the part of the requests that was late; or none was done though some waited for longer than the promised time
//   weight    of who waited all the time: the time it had against its share by water-filling, of what all had together
//
// A request that straddles windows breaks nothing: what is missing from a reserve or beyond a limit must be more than the mean
// request.
//
// Times are arguments, in ns of any clock that does not go back; now - since_ns is an age even where it reaches before the clock's
// zero. One owner thread. Only create, join, change and loading allocate.
#pragma once

#include "promise/promise.h"

#include <stdbool.h>

struct promise_watch;

#define PROMISE_NAME_MAX 64u // with its end

// What a holder got since it was last added.
struct promise_sample {
    // BANDWIDTH bytes, OPERATIONS requests, BIT_RATE bits, PACKETS packets, CORES ns of CPU time, LATENCY those of the requests
    // that took as long as the promised time or longer. UTILIZATION: ns of the resource's time (CPU time divided by the number of
    // CPUs); needed of every holder, with promises or without, to tell who had what was lacking.
    uint64_t amount[PROMISE_METRICS];
    // The time in which requests waited for their turn. One that waits for its holder's own limit does not count, here and in its
    // latency.
    uint64_t waited_ns;
    // The resource itself takes as long as the promised latency: to hold back others was tried, and is of no use.
    bool is_slow;
};

// How much of some time a promise was broken. Time in which nothing was owed counts as neither.
struct promise_record {
    uint64_t judged_ms, broken_ms;
};

// The last time that a promise was broken, or the time that it is.
struct promise_breach {
    uint64_t since_ns;
    uint64_t broken_ms; // the windows that broke it; 0: there was none
    // Of the window in which most was missing; as in a verdict.
    uint32_t lack, held;
    bool by_resource;
    char held_by[PROMISE_NAME_MAX];
};

struct promise_verdict {
    struct promise promise;
    bool kept;
    bool owed; // false: nothing was owed in the last window, which counts as kept
    uint64_t since_ns;
    // Of the last broken window while it is broken, of the last window while it is kept. In base units, by the second; of a
    // latency, millionths of the requests that may be late and were; of a weight, millionths of the resource's time.
    uint64_t goal, achieved;
    // Of the last broken window, 0 while it is kept. Millionths of the goal that were missing, or exceeded it; of a latency, of the
    // requests.
    uint32_t lack;
    // Who had most of the resource's time beyond its reserves (beyond its share, if a weight was broken), and how much, in
    // millionths of it; of a limit, the holder itself. A name, since it may have left; "" is nobody: more than that was used by
    // none, the resource or its scheduler is to blame.
    uint32_t held;
    bool by_resource; // of a broken latency: the resource itself takes as long, and no holder is to blame
    char held_by[PROMISE_NAME_MAX];
    struct promise_breach last;
    struct promise_record hour, day, all; // the last 55 to 60 minutes, and 5 minutes less than 24 hours to 24 hours
};

// A promise broke, or is kept again (verdict.kept).
struct promise_event {
    uint32_t slot;
    const char *name;
    struct promise_verdict verdict;
};

struct promise_watch_options {
    uint32_t holders_max;
    uint64_t window_ns;        // > 0
    uint32_t tolerance;        // millionths of the goal
    uint32_t weight_tolerance; // millionths of the share
    uint32_t windows_to_mend;  // kept in so many windows in a row, a broken promise is kept again
    // Called by tick; may not change the watch. May be NULL.
    void (*event)(void *opaque, const struct promise_event *event);
    void *opaque;
};

#define PROMISE_WATCH_DEFAULTS .window_ns = 1000000000, .tolerance = 10000, .weight_tolerance = 20000, .windows_to_mend = 3

struct promise_watch *promise_watch_create(const struct promise_watch_options *options, uint64_t now_ns); // NULL: out of memory
void promise_watch_destroy(struct promise_watch *w);

// Copies name and set. The slot is the holder's until it leaves. -ENOSPC, -EINVAL (the name), -ENOMEM.
int promise_watch_join(struct promise_watch *w, const char *name, const struct promise_set *set, uint64_t now_ns, uint32_t *slot,
                       struct tv_error *err);
// Other promises. One of the same kind and metric goes on with its verdict and its record, with the new value as its goal; what of
// the window is over is judged by none.
int promise_watch_change(struct promise_watch *w, uint32_t slot, const struct promise_set *set, uint64_t now_ns,
                         struct tv_error *err);
void promise_watch_leave(struct promise_watch *w, uint32_t slot);

void promise_watch_add(struct promise_watch *w, uint32_t slot, const struct promise_sample *sample);
void promise_watch_tick(struct promise_watch *w, uint64_t now_ns);

// The verdicts as of the last window, in the set's order; returns how many.
unsigned promise_watch_verdicts(const struct promise_watch *w, uint32_t slot,
                                struct promise_verdict verdicts[static PROMISE_SET_MAX]);
const char *promise_watch_name(const struct promise_watch *w, uint32_t slot); // NULL: nobody has the slot

// Saves, or loads into a watch that nobody has joined: holders in their slots, verdicts, records and the open window. Times go as
// ages, so another clock may go on with them. A stream that fails leaves the watch empty.
void promise_watch_state(struct promise_watch *w, struct state *s, uint64_t now_ns);
