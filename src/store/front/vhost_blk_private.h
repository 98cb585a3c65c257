// The parts of vhost_blk.c and vhost_blk_request.c.
//
// A request's way: popped from its queue into a free slot, decoded whole, answered at once if it is refused or needs no device,
// else submitted to the disk, range by range when it has several; its end is pushed to the queue, and the queue called at the end
// of the batch.
#pragma once

#include "store/disk.h"
#include "store/front/blk_request.h"
#include "vhost/backend.h"

#define VHOST_BLK_REQUESTS_MAX 1024 // taken at once; the rest waits in the rings
#define VHOST_BLK_POP_BUDGET 1024   // popped from a queue in one go: a driver that never stops gets no more than its turn

struct vhost_blk_request {
    struct disk_request request;
    struct vhost_blk *front;
    struct vhost_blk_request *link; // free
    uint16_t queue, head;
    unsigned range; // of blk.ranges: under way
    struct blk_request blk;
};

struct vhost_blk {
    struct disk_front front;
    struct vhost_backend *backend;
    struct vhost_backend_ops ops;
    unsigned n_queues;
    // of the session with the present peer
    uint64_t acked;            // features
    bool writeback;            // configuration field of VIRTIO_BLK_F_CONFIG_WCE
    bool logs;                 // what is written to guest memory goes to a dirty log
    uint64_t started, starved; // bits of queues; starved: may have requests for which there was no slot, or no budget
    uint64_t to_call;          // bits of queues; not 0 only while the front end is marked
    unsigned in_flight[STORE_QUEUES_MAX];
    // slots from n_used on have never been touched
    struct vhost_blk_request *slots, *free;
    unsigned n_used;
    struct virtq_chain chain; // the one that is being taken
};

void vhost_blk_pop(struct vhost_blk *f, unsigned queue); // all there is, as far as slots and budget go
