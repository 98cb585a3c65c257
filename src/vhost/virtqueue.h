// The device's side of a split virtqueue (virtio 1.2, section 2.7), with EVENT_IDX and indirect descriptors.
// Packed queues (section 2.8) will stand beside it behind the same calls.
//
// One owner thread a queue. The driver is not trusted: a loop, an address out of range, a chain over VIRTQ_SEGMENTS_MAX, a wrong
// index or an out segment after an in segment breaks the queue (`broken`), and nothing else; each guest field is read once.
#pragma once

#include "base/state.h"
#include "vhost/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define VIRTQ_SIZE_MAX 1024
#define VIRTQ_SEGMENTS_MAX 256 // data segments in one chain, after indirection

// A request: n_out readable segments, then n_in writable ones.
struct virtq_chain {
    uint16_t head; // to be given back to virtqueue_push()
    uint16_t n_out, n_in;
    uint32_t len_out_bytes, len_in_bytes; // sums; a chain of 4 GiB or more is refused
    struct iovec iov[VIRTQ_SEGMENTS_MAX];
};

struct virtqueue {
    const struct guest_memory *mem;            // borrowed
    uint16_t size;                             // a power of 2, at most VIRTQ_SIZE_MAX
    bool ready;                                // addresses are set and checked
    bool broken;                               // the driver broke the rules: the device needs a reset
    const char *why;                           // what it did, when broken
    bool event_idx;                            // VIRTIO_F_EVENT_IDX (bit 29) was negotiated
    uint64_t desc_addr, avail_addr, used_addr; // guest-physical
    uint16_t last_avail, used_idx, signalled_used;
    bool signalled_valid;
    bool kicks_disabled;
    uint64_t in_flight[VIRTQ_SIZE_MAX / 64]; // heads popped and not pushed yet: a second pop of one breaks the queue
    struct vring_desc *desc;                 // views
    struct vring_avail *avail;
    struct vring_used *used;
};

void virtqueue_init(struct virtqueue *vq, const struct guest_memory *mem);
// Checks and maps the three areas (2.7: alignment 16, 2, 4). The next available index is last_avail; used_idx is read from the
// ring.
int virtqueue_start(struct virtqueue *vq, uint16_t size, uint64_t desc_addr, uint64_t avail_addr, uint64_t used_addr,
                    uint16_t last_avail, bool event_idx, struct tv_error *err);
void virtqueue_stop(struct virtqueue *vq);

// 1: *chain is the next request. 0: nothing there, and the driver will kick for the next one unless kicks are off. -EPROTO: the
// queue is (now) broken.
int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain);
// The chain at `head` without the available ring, for a request that was taken off it before (by a predecessor, or before the state
// was saved). 1 or -EPROTO.
int virtqueue_pop_head(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain);
bool virtqueue_is_empty(const struct virtqueue *vq);
// Gives a request back, len_written_bytes of its in segments filled. Visible to the driver on return.
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len_written_bytes);
// After one or more pushes: does the driver want to be interrupted? (2.7.7.2, 2.7.10)
bool virtqueue_needs_call(struct virtqueue *vq);
// Kicks off: do not notify us, we are polling. Kicks on: returns true if something came meanwhile (pop again before waiting).
void virtqueue_kicks_off(struct virtqueue *vq);
bool virtqueue_kicks_on(struct virtqueue *vq);

// Copies between a chain's out (in) segments, from offset_bytes on, and a buffer; returns how many bytes there were.
size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset_bytes, void *buf, size_t len_bytes);
size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset_bytes, const void *buf, size_t len_bytes);

// The views of the rings from size and addresses, with all checks; part of start and load.
int virtqueue_map_rings(struct virtqueue *vq, struct tv_error *err);
int virtqueue_state(struct virtqueue *vq, struct state *s); // after loading, the views are made again and checked
