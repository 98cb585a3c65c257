// The back end's parts among themselves.
//
// backend.c          connection: accept, receive, answer, disconnect; the public calls
// backend_message.c  carries out messages that were checked
// backend_log.c      the dirty log
// backend_ring.c     the life of a queue: configured, started, stopped
//
// All on the loop's thread.
#pragma once

#include "base/log.h"
#include "vhost/backend.h"
#include "vhost/dirty_log.h"
#include "vhost/inflight.h"
#include "vhost/protocol.h"

#include <linux/virtio_config.h>

// Invariants: started implies that all parts of the configuration are there, vq is ready and the service was told. The kick source
// exists while the ring is started and has a kick_fd. Descriptors are owned, -1 if none.
struct backend_ring {
    struct virtqueue vq;
    struct inflight inflight;
    struct vhost_backend *be;
    uint16_t size; // 0: not told yet
    uint32_t base; // where it goes on at the next start, as virtqueue.h has it
    bool has_addr, has_kick, enabled, started, error_told;
    bool logs_used; // what it writes to the ring goes to the dirty log
    struct vhost_ring_addr addr;
    int kick_fd, call_fd, err_fd; // has_kick without kick_fd: polled
    struct loop_source *kick_source;
};

struct vhost_backend {
    struct loop *loop;
    struct vhost_backend_ops ops;
    void *arg;
    int listen_fd, fd;     // fd: -1 without a front end
    int request_fd;        // for our own requests, or -1
    uint64_t features;     // acknowledged by SET_FEATURES
    uint64_t protocol;     // protocol features negotiated
    bool has_features;     // SET_FEATURES came: no ring starts before
    uint8_t status;        // SET_STATUS
    uint16_t inflight_num; // queues and queue size of the inflight buffer; 0: there is none
    uint16_t inflight_size;
    struct guest_memory mem;
    struct guest_memory inflight; // one region, the buffer
    struct dirty_log log;
    int log_fd;            // signalled when it was written to, or -1
    bool logs;             // the service was told to tell what it writes
    struct log_limit told; // what the front end, or its guest, did wrong
    struct vhost_receiver rx;
    struct loop_source *listen_source, *source, *accept_timer, *poll_timer;
    struct backend_ring rings[]; // ops.n_queues
};

uint64_t backend_features(const struct vhost_backend *be); // that we offer

static inline bool backend_is_packed(const struct vhost_backend *be)
{
    return be->features >> VIRTIO_F_RING_PACKED & 1;
}

// False: a file of the front end's was cut under us, and it was disconnected for it.
bool backend_check_memory(struct vhost_backend *be);

// Starts the ring if everything it needs is there, and serves what waits in it. 0 also when it cannot start yet.
int ring_update(struct backend_ring *ring, struct tv_error *err);
void ring_stop(struct backend_ring *ring);   // the service drains; it goes on at base
void ring_forget(struct backend_ring *ring); // stops, and back to the initial state
void ring_init(struct vhost_backend *be, struct backend_ring *ring);
int ring_set_kick(struct backend_ring *ring, int fd, struct tv_error *err);     // fd taken, -1: polled
int ring_set_call(struct backend_ring *ring, int fd, struct tv_error *err);     // fd taken, -1: none
int ring_set_err(struct backend_ring *ring, int fd, struct tv_error *err);      // fd taken, -1: none
int backend_set_log_fd(struct vhost_backend *be, int fd, struct tv_error *err); // fd taken
void ring_call(struct backend_ring *ring);
void ring_poll_timer(void *arg); // be: serves the rings without a kick_fd

// Whether there is a place for everything. A ring's size may not be known yet; it is asked again when it starts.
int backend_check_log(const struct dirty_log *log, const struct guest_memory *mem, struct tv_error *err);
int ring_check_log(const struct backend_ring *ring, const struct dirty_log *log, const struct vhost_ring_addr *addr,
                   struct tv_error *err);
int backend_set_log_base(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err);
void backend_forget_log(struct vhost_backend *be);
void backend_update_log(
    struct vhost_backend *be); // after a change of features, of the log or of a ring's address: who writes to it
bool ring_lacks_log(const struct backend_ring *ring); // it is to be written, and is not there: nothing may run meanwhile
// For a ring with logs_used: one used element, or descriptor, was written; the wish for kicks may have been; anything may.
void ring_log_pushed(struct backend_ring *ring, uint16_t used_idx);
void ring_log_wish(struct backend_ring *ring);
void ring_log_all(struct backend_ring *ring);

// Carries out a message that passed vhost_check_request(), answers it included. -EPROTO: it made no sense; other errors: it could
// not be done.
int backend_apply(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err);
