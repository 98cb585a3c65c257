// A disk: a volume, its queue at the dispatcher, what it is promised, and what is counted of its requests. Private to the store;
// its thread.
//
// Front ends (store/front) serve it to clients: one or several, by any protocol, at the same time. A front end owns its requests
// and checks what a client wants against disk->volume. The disk hands a request to the dispatcher, starts it on the volume when the
// dispatcher lets it go, and calls `done`. Work comes in batches (store.h): a front end that has something to tell its client when
// one ends marks itself.
#pragma once

#include "base/histogram.h"
#include "store/promises.h"
#include "store/sched/dispatch.h"
#include "store/store.h"
#include "store/volume/chores.h"
#include "store/volume/env.h"

#define DISK_STATUS_MAX 16 // requests for status under way at once; they pass by the dispatcher

struct disk_request {
    struct dispatch_item item; // the disk's
    // The front end's: op, durable, may_unmap, only_fast, offset_bytes, len_bytes and data; `extent` is an answer. The rest the
    // disk's.
    struct volume_request io;
    struct volume_chore *chore;                             // what is done instead, if not NULL; of io only len_bytes counts
    struct disk *disk;                                      // set by disk_submit()
    struct disk_request *link;                              // the disk's
    void (*done)(struct disk_request *request, int result); // as of a volume's request
};

struct disk_front {
    const struct disk_front_ops *ops;
    struct disk *disk;
    struct disk_front *next, *next_marked, *next_hot;
    bool is_marked, is_hot;
    uint64_t hot_until_ns;
};

struct disk_front_ops {
    // At the end of a batch in which it was marked: its answers go out. True: there is more to take, and the others come first.
    bool (*end_batch)(struct disk_front *front);
    // Both NULL of one that is not polled. Takes what there is without having been told, and says whether there was anything.
    bool (*poll)(struct disk_front *front);
    // Whether its client has to tell from now on, since nobody polls; true if there was something that came before it knew.
    bool (*set_kicks)(struct disk_front *front, bool wanted);
    void (*resized)(struct disk_front *front);                        // disk->volume has another size
    void (*describe)(const struct disk_front *front, json_t *object); // adds members to what is told of the disk
    void (*destroy)(struct disk_front *front);                        // the disk goes: drains its requests and detaches
};

struct disk_counters {
    uint64_t reads, writes, flushes, discards, write_zeroes, read_bytes, written_bytes, errors, refused;
};

// Nanoseconds from submission to completion of what succeeded, queueing included.
struct disk_latency {
    struct histogram read, write, flush, trim; // trim: discard and write-zeroes
};

struct store {
    struct loop *loop;
    struct io_engine *io;
    struct dispatcher *dispatcher;
    struct loop_source *timer; // for the dispatcher
    uint64_t wake_ns;          // for when it is set; UINT64_MAX: it is not
    struct volume_env env;
    struct promises *promises;
    struct rpc_server *control; // NULL: there is none
    struct adding *adding;      // disks that wait for an image (control_add.c)
    struct nbd_server *nbd;     // NULL: nobody has listened yet
    struct disk *disks;
    struct disk_front *marked;
    uint64_t poll_ns; // how long a front end is polled after it had something to do; 0: never
    struct disk_front *hot;
    uint64_t now_ns;  // of this batch; 0: not looked at yet
    bool knows_costs; // what requests cost is learned from the device, as of the last look (promises.c)
    void (*quit)(void *);
    void *quit_arg;
};

struct disk {
    struct disk *next;
    struct store *store;
    char name[STORE_NAME_MAX];
    char serial[STORE_SERIAL_MAX + 1];
    struct volume *volume;
    struct volume_chores *chores; // the volume's own work; it outlives the volume
    struct disk_front *fronts;
    struct dispatch_queue *queue;
    struct dispatch_terms terms; // of the queue
    struct disk_promises promised;
    unsigned n_in_flight; // submitted and not done
    unsigned n_started;   // of these, with the volume; the others wait for their turn
    // Contexts for the volume: as many as can be under way at once.
    uint8_t *contexts;
    size_t context_bytes; // of each
    unsigned n_contexts;  // that were ever used
    void *free_context;   // a list; what was used last is warm
    unsigned n_status;
    struct disk_request *status_waiting, **status_tail;
    struct disk_counters counters;
    struct disk_latency *latency;
    bool logged_full, logged_short, logged_error;
};

// Takes the volume and its chores, from malloc(), also on failure. `promises`: those of config.
struct disk *disk_create(struct store *store, const struct disk_config *config, const struct promise_set *promises,
                         struct volume *volume, struct volume_chores *chores, struct tv_error *err);
void disk_destroy(struct disk *disk); // and its front ends
int disk_resize(struct disk *disk, uint64_t size_bytes, struct tv_error *err);
json_t *disk_stat(const struct disk *disk, bool histograms); // with all of what latency sums up
void disk_describe(const struct disk *disk, json_t *object); // what it is: the shorter part of its stat

// disk_snapshot.c: see store_snapshot_disk(), store_settle_absorbed(), store_blank_disk()
int disk_snapshot(struct disk *disk, int overlay_fd, struct tv_error *err);
int disk_settle_absorbed(struct disk *disk, struct tv_error *err);
int disk_blank(struct disk *disk, struct tv_error *err);

void disk_attach(struct disk *disk, struct disk_front *front);
void disk_detach(struct disk_front *front);

// disk_request.c
void disk_submit(struct disk *disk, struct disk_request *request); // `done` is never called from inside
void disk_begin(struct disk_request *request);                     // the dispatcher has let it go
// For this volume, which becomes the disk's; nothing is under way. On failure all is as it was.
int disk_make_contexts(struct disk *disk, const struct volume *volume, struct tv_error *err);
void disk_free_contexts(struct disk *disk);

// store.c
struct disk *store_find_disk(struct store *store, const char *name, struct tv_error *err); // NULL with err
void store_mark(struct disk_front *front);                                                 // the batch's end will see to it
uint64_t store_now_ns(struct store *store); // the same for all that is done in one go
void store_unmark(struct disk_front *front);
// Ends a batch: for whoever was called from outside of the store and has submitted or marked something.
void store_end_batch(struct store *store);
void store_drain(struct disk *disk, const unsigned *count); // until *count, of requests of the disk's, is 0

// poll.c
void store_heat(struct disk_front *front); // it had something to do: it is polled for a while
void store_cool(struct disk_front *front); // it goes
