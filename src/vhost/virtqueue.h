// The device's side of a virtqueue, split (virtio 1.2, section 2.7; virtqueue.c) or packed (2.8; virtqueue_packed.c), with
// EVENT_IDX and indirect descriptors.
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
    uint16_t head; // to be given back to virtqueue_push(): of a packed queue the buffer id
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
    bool packed;                               // VIRTIO_F_RING_PACKED (bit 34) was
    uint64_t desc_addr, avail_addr, used_addr; // guest-physical; of a packed queue the last two are those of the event structures
    uint16_t last_avail, used_idx;             // free-running; of a packed queue less than its size, with a wrap counter each
    bool avail_wrap, used_wrap;
    uint16_t signalled_used;
    uint32_t pushed_slots; // packed: since the driver was last asked whether it wants a call
    bool signalled_valid;
    bool kicks_disabled;
    uint64_t in_flight[VIRTQ_SIZE_MAX / 64]; // heads popped and not pushed yet: a second pop of one breaks the queue
    uint16_t slots[VIRTQ_SIZE_MAX];          // packed: how many descriptors of the ring each of them takes
    struct vring_desc *desc;                 // views
    struct vring_avail *avail;
    struct vring_used *used;
    struct vring_packed_desc *ring;
    uint32_t *driver_event, *device_event;
};

void virtqueue_init(struct virtqueue *vq, const struct guest_memory *mem);
#define VIRTQ_EVENT_IDX 1u
#define VIRTQ_PACKED 2u
// Where a queue is, as vhost-user has it: of a split one the next available index (the used one is read from the ring). Of a packed
// one bits 0 to 14 the next available descriptor, bit 15 its wrap counter, and the same of the next used one from bit 16 on.
#define VIRTQ_BASE_PACKED_NEW 0x80008000u // of one that is new
// Checks and maps the three areas (alignment 16, 2, 4; of a packed queue 16, 4, 4).
int virtqueue_start(struct virtqueue *vq, uint16_t size, uint64_t desc_addr, uint64_t avail_addr, uint64_t used_addr, uint32_t base,
                    unsigned features, struct tv_error *err);
uint32_t virtqueue_base(const struct virtqueue *vq);
void virtqueue_stop(struct virtqueue *vq);

// 1: *chain is the next request. 0: nothing there, and the driver will kick for the next one unless kicks are off. -EPROTO: the
// queue is (now) broken.
int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain);
// The chain at `head` without the available ring, for a request that was taken off it before (by a predecessor, or before the state
// was saved). Of a split queue. 1 or -EPROTO.
int virtqueue_pop_head(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain);
// The same of a packed queue, where the ring does not hold it any more: its descriptors as they were in the ring, n of them.
struct vring_packed_desc;
int virtqueue_pop_descs(struct virtqueue *vq, const struct vring_packed_desc *descs, uint16_t n, struct virtq_chain *chain);
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
