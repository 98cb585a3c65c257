// A disk: the virtio-blk device behind one vhost-user socket, on one image. Private to the store; its thread.
//
// A request's way: popped from its queue into a free slot of the pool, decoded whole, answered at once if it is refused or needs no
// device, else queued at the dispatcher; store.c starts its transfer when the dispatcher says so; its end is pushed to the queue,
// and the queue called at the end of the batch.
#pragma once

#include "store/image.h"
#include "store/promises.h"
#include "store/sched/dispatch.h"
#include "store/store.h"
#include "store/transfer.h"
#include "vhost/backend.h"

#define DISK_REQUESTS_MAX 1024 // in the store at once; the rest waits in the rings
#define DISK_POP_BUDGET 1024   // requests popped from a queue in one go: a driver that never stops gets no more than its turn

struct disk_counters {
    uint64_t reads, writes, flushes, discards, write_zeroes, read_bytes, written_bytes, errors, refused;
};

struct disk_request {
    struct dispatch_item item;
    struct disk *disk;
    uint16_t queue, head;
    struct disk_request *link; // free
    struct transfer transfer;
};

struct store {
    struct loop *loop;
    struct io_engine *io;
    struct dispatcher *dispatcher;
    struct loop_source *timer; // for the dispatcher
    uint64_t wake_ns;          // for when it is set; UINT64_MAX: it is not
    struct transfer_env env;
    struct promises *promises;
    struct rpc_server *control; // NULL: there is none
    struct disk *disks;
    struct disk *dirty; // with queues to call
    struct virtq_chain chain;
    void (*quit)(void *);
    void *quit_arg;
};

struct disk {
    struct disk *next, *next_dirty;
    struct store *store;
    char name[STORE_NAME_MAX], serial[BLK_ID_BYTES];
    struct image image;
    int file;
    unsigned n_queues;
    struct vhost_backend *backend;
    struct vhost_backend_ops ops;
    struct dispatch_queue *queue;
    struct dispatch_terms terms; // of the queue
    struct disk_promises promised;
    // of the session with the present front end
    uint64_t acked;            // features
    bool writeback;            // configuration field of VIRTIO_BLK_F_CONFIG_WCE
    uint64_t started, starved; // bits of queues; starved: may have requests for which there was no slot, or no budget
    uint64_t to_call;          // bits of queues; not 0 only while the disk is on the dirty list
    bool is_dirty;
    unsigned n_in_flight; // sum of the next
    unsigned in_flight[STORE_QUEUES_MAX];
    // the pool of requests: slots from n_used on have never been touched
    struct disk_request *slots, *free;
    unsigned n_used;
    struct disk_counters counters;
    struct disk_latency *latency;
    bool logged_full, logged_short, logged_error;
};

// `promises`: those of config.
struct disk *disk_create(struct store *store, const struct disk_config *config, const struct promise_set *promises, int image_fd,
                         int listen_fd, struct tv_error *err);
void disk_destroy(struct disk *disk);
int disk_resize(struct disk *disk, uint64_t size_bytes, struct tv_error *err);
json_t *disk_stat(const struct disk *disk);
void disk_pop_starved(struct disk *disk);    // as far as slots and budget go
bool disk_is_eager(const struct disk *disk); // starved, and there are slots
void disk_call_queues(struct disk *disk);

void disk_begin(struct disk_request *request); // the dispatcher has let it go: start its transfer

// store.c, for disks
struct disk *store_find_disk(struct store *store, const char *name, struct tv_error *err); // NULL with err
void store_mark_dirty(struct disk *disk);                                                  // the batch's end will see to it
void store_forget_dirty(struct disk *disk);
void store_end_batch(struct store *store);
void store_drain(struct disk *disk, const unsigned *count); // until *count, of the disk's requests, is 0
