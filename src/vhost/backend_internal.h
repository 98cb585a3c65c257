// The back end's parts among themselves.
//
// backend.c          connection: accept, receive, answer, disconnect; the public calls
// backend_message.c  carries out messages that were checked
// backend_ring.c     the life of a queue: configured, started, stopped
//
// All on the loop's thread.
#pragma once

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
    struct vhost_receiver rx;
    struct loop_source *listen_source, *source, *accept_timer, *poll_timer;
    struct backend_ring rings[]; // ops.n_queues
};

uint64_t backend_features(const struct vhost_backend *be); // that we offer

static inline bool backend_logs(const struct vhost_backend *be)
{
    return be->features >> VHOST_F_LOG_ALL & 1;
}

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
int ring_set_kick(struct backend_ring *ring, int fd, struct tv_error *err); // fd taken, -1: polled
int ring_set_call(struct backend_ring *ring, int fd, struct tv_error *err); // fd taken, -1: none
int ring_set_err(struct backend_ring *ring, int fd, struct tv_error *err);  // fd taken, -1: none
void ring_call(struct backend_ring *ring);
bool ring_may_signal(int fd);    // it is an eventfd, as far as can be told
void ring_poll_timer(void *arg); // be: serves the rings without a kick_fd

// Carries out a message that passed vhost_check_request(), answers it included. -EPROTO: it made no sense; other errors: it could
// not be done.
int backend_apply(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err);
