// What disks were promised, and whether it is kept. Private to the store; its thread.
//
// A change holds for all disks it names or for none; admission.h tells what is refused. Every PROMISES_TICK_NS what each disk did
// goes to the watch (promise/watch.h), which judges windows of a second. A promise that breaks or is kept again is logged, and told
// to everyone at the control socket by the notification "promise.changed". What became of each in the last day can outlive the
// store (verdict_file.h).
#pragma once

#include "promise/promise.h"
#include "store/device_time.h"
#include "store/store.h"

#define PROMISES_TICK_NS 200000000u

struct promises;

// What a disk did since it was added. Bytes, requests and the device's time count when the scheduler lets them go, which is what a
// limit is about: after a moment in which the device stood still more than the limit may be completed at once.
struct disk_usage {
    uint64_t bytes, requests, device_ns;
    uint64_t late;       // requests that took as long as the promised latency or longer
    uint64_t latency_ns; // of all that are done, waiting for its own limit left out
};

struct disk_promises {
    struct promise_set set;
    bool is_watched;
    uint32_t slot;           // in the watch, while it is watched
    uint64_t late_ns;        // from this time on a request is late; UINT64_MAX: nothing was promised
    struct disk_usage usage; // counted where it happens
    // of promises.c
    struct disk_usage seen; // what of the usage has gone to the watch
    uint64_t seen_waited_ns;
    struct disk_usage measured;     // the usage at costs that the scheduler has learned; it fades
    uint64_t measured_ns;           // in so much time, that without any request left out
    struct device_time device_time; // counted where it happens
};

// verdicts_fd: see store.h.
struct promises *promises_create(struct store *store, int verdicts_fd, struct tv_error *err);
void promises_destroy(struct promises *p); // no disk is left

// A disk that has its queue gets what it was promised, or is refused; and goes.
// `unproven`: what is taken on trust is appended; NULL: nobody asks.
int promises_join(struct promises *p, struct disk *disk, const struct promise_set *set, bool admitted, json_t *unproven,
                  struct tv_error *err);
void promises_leave(struct promises *p, struct disk *disk);

// See store_promise().
int promises_change(struct promises *p, const json_t *wanted, bool admitted, json_t *unproven, struct tv_error *err);
void promises_describe(struct promises *p, const struct disk *disk, json_t *object); // adds "promises" and "verdicts"
