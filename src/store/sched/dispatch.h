// The seam of the scheduler: requests of all disks go in, and come out in the order in which the device is to see them.
//
// A disk has a queue; requests enter at its tail. The dispatcher says which request goes to the device next, and learns from each
// completion. It knows nothing of virtio, images or io_uring. One dispatcher a device; all calls on the store's thread, none may
// allocate but queue_add.
#pragma once

#include "base/error.h"

#include <stdint.h>

enum dispatch_kind { DISPATCH_READ, DISPATCH_WRITE, DISPATCH_FLUSH, DISPATCH_TRIM };

struct dispatch_queue; // one disk's; its members are the scheduler's own

// A request as the scheduler sees it; embedded in the store's. It belongs to the dispatcher from enqueue to next.
struct dispatch_item {
    struct dispatch_item *link;   // the dispatcher's
    struct dispatch_queue *queue; // set by enqueue
    enum dispatch_kind kind;
    uint64_t offset_bytes, len_bytes;
    uint64_t enqueued_ns, dispatched_ns; // CLOCK_MONOTONIC; set by the caller
};

struct dispatcher {
    const struct dispatch_ops *ops;
};

struct dispatch_ops {
    const char *name;
    // `window`: at most so many requests are with the device at once.
    struct dispatcher *(*create)(unsigned window, struct tv_error *err);
    void (*destroy)(struct dispatcher *d); // all queues have been removed

    struct dispatch_queue *(*queue_add)(struct dispatcher *d, const char *disk, struct tv_error *err);
    void (*queue_remove)(struct dispatcher *d, struct dispatch_queue *queue); // nothing of it is queued or with the device

    void (*enqueue)(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item);
    // The next request for the device, or NULL: there is none, or the window is full.
    struct dispatch_item *(*next)(struct dispatcher *d, uint64_t now_ns);
    // The request is done; it kept the device busy for device_ns (first submission to last completion).
    void (*complete)(struct dispatcher *d, struct dispatch_item *item, uint64_t device_ns);
};

extern const struct dispatch_ops dispatch_fifo; // first come, first served, over all disks
