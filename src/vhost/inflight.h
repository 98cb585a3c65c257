// Requests in flight, remembered in a buffer that outlives the back end (vhost-user protocol, "Inflight I/O tracking", split
// queues).
//
// The buffer is shared with the front end, which keeps it: its contents are foreign, so each field is read once and bounded. A
// back end that is killed between any two stores leaves a state from which inflight_open() tells exactly which requests the driver
// has not been given back.
#pragma once

#include "vhost/virtqueue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inflight_desc {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next;
    uint64_t counter;
};

struct inflight_region {
    uint64_t features;
    uint16_t version; // 0: not initialized
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
    struct inflight_desc desc[];
};

struct inflight {
    struct inflight_region *region; // NULL: not tracked
    uint16_t desc_num;
    uint64_t counter;
    uint16_t n_again, next_again; // heads to be taken up again, in the order in which they were fetched
    uint16_t again[VIRTQ_SIZE_MAX];
};

size_t inflight_region_bytes(uint16_t queue_size); // with padding to 64, so that queues share no cache line

// Takes up a queue's region. used_idx is that of the used ring. *last_avail is set to what follows from the region if it was in use
// before. queue_size is at most desc_num.
void inflight_open(struct inflight *in, void *region, uint16_t desc_num, uint16_t queue_size, uint16_t used_idx,
                   uint16_t *last_avail);
void inflight_fetched(struct inflight *in, uint16_t head);
// Around the moment at which the used index moves on by one, to used_idx.
void inflight_before_used(struct inflight *in, uint16_t head);
void inflight_after_used(struct inflight *in, uint16_t head, uint16_t used_idx);
