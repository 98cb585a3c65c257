// Requests in flight, remembered in a buffer that outlives the back end (vhost-user protocol, "Inflight I/O tracking"): of split
// queues (inflight.c) and of packed ones (inflight_packed.c).
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

// A descriptor of a packed ring, as it was there; of a chain's first one also what belongs to the chain.
struct inflight_packed_desc {
    uint8_t inflight;
    uint8_t padding;
    uint16_t next; // of the chain, or of the free ones
    uint16_t last, num;
    uint64_t counter;
    uint16_t id, flags;
    uint32_t len;
    uint64_t addr;
};

// What has no "old_" goes ahead while something is given back, and is the same otherwise.
struct inflight_packed_region {
    uint64_t features;
    uint16_t version; // 0: not initialized
    uint16_t desc_num;
    uint16_t free_head, old_free_head;
    uint16_t used_idx, old_used_idx;
    uint8_t used_wrap, old_used_wrap;
    uint8_t padding[7];
    struct inflight_packed_desc desc[];
};

struct inflight {
    struct inflight_region *region;        // of a split queue; NULL: not tracked
    struct inflight_packed_region *packed; // of a packed one; NULL: not tracked
    uint16_t desc_num;
    uint64_t counter;
    uint16_t n_again, next_again; // heads to be taken up again, in the order in which they were fetched
    uint16_t again[VIRTQ_SIZE_MAX];
    // Of a packed queue, our own, since the region's are foreign: the list of free descriptors, and where requests have theirs.
    uint16_t free_head;
    uint16_t next[VIRTQ_SIZE_MAX];
    uint16_t last[VIRTQ_SIZE_MAX];  // of a chain, by its first one
    uint16_t first[VIRTQ_SIZE_MAX]; // by the buffer's id
};

size_t inflight_region_bytes(uint16_t queue_size, bool packed); // with padding to 64, so that queues share no cache line

// Takes up a queue's region. used_idx is that of the used ring. *last_avail is set to what follows from the region if it was in use
// before. queue_size is at most desc_num.
void inflight_open(struct inflight *in, void *region, uint16_t desc_num, uint16_t queue_size, uint16_t used_idx,
                   uint16_t *last_avail);
void inflight_fetched(struct inflight *in, uint16_t head);
// Around the moment at which the used index moves on by one, to used_idx.
void inflight_before_used(struct inflight *in, uint16_t head);
void inflight_after_used(struct inflight *in, uint16_t head, uint16_t used_idx);

// The same for a packed queue that was just started; it goes on where the region says, if that was in use before. -EINVAL: what the
// region says cannot be.
int inflight_packed_open(struct inflight *in, void *region, uint16_t desc_num, struct virtqueue *vq, struct tv_error *err);
// The next of those that are to be taken up again. As virtqueue_pop().
int inflight_packed_pop_again(struct inflight *in, struct virtqueue *vq, struct virtq_chain *chain);
// `index`: where the ring has the first descriptor of what was popped just now.
void inflight_packed_fetched(struct inflight *in, const struct virtqueue *vq, uint16_t index, uint16_t id);
void inflight_packed_before_used(struct inflight *in, const struct virtqueue *vq, uint16_t id);
void inflight_packed_after_used(struct inflight *in, uint16_t id);
