// The front end's parts among themselves.
//
// frontend.c         what the machine calls: attach, features, queues, saved state
// frontend_wire.c    requests and their answers on the socket
// frontend_log.c     what the back end writes to guest memory
// frontend_events.c  what comes by itself: the back end's own requests, queue errors, its end
//
// All on the loop's thread.
#pragma once

#include "vhost/dirty_log.h"
#include "vhost/frontend.h"
#include "vhost/protocol.h"

struct frontend_queue {
    bool started;                  // by the driver; the back end knows of it while it is attached
    bool paused;                   // stopped by saving, to be started again by resume or, after loading, by the device
    bool has_base;                 // it stood somewhere before: at `base`
    uint32_t base;                 // where it goes on, as virtqueue.h has it
    struct vhost_frontend_queue q; // descriptors are borrowed, -1 after loading
};

// Invariant: fd >= 0 exactly while attached (or attaching); then source, request_fd and what belongs to them may be there.
struct vhost_frontend {
    struct vhost_frontend_config config;
    int fd, request_fd, err_fd;
    bool failed; // the connection broke during a request: to be dropped when the call is over
    uint64_t offered, acked, protocol;
    bool has_acked, has_config;
    uint8_t status;
    unsigned max_queues;
    uint8_t space[VHOST_CONFIG_MAX]; // the configuration space as last read
    // what the driver has written of it since the last reset, byte by byte: the next back end is told
    bool is_written[VHOST_CONFIG_MAX];
    uint8_t written[VHOST_CONFIG_MAX];
    int inflight_fd; // -1: none
    struct vhost_inflight inflight;
    struct dirty_log log; // shared with each back end while there is one
    struct vhost_receiver request_rx;
    struct loop_source *source, *request_source, *err_source, *away_timer;
    struct frontend_queue queues[VHOST_QUEUES_MAX];
};

// Requests. A broken or late connection, or a wrong answer, sets fe->failed. A refusal does not.
int wire_set(struct vhost_frontend *fe, uint32_t request, const void *payload, size_t size_bytes, const int *fds, unsigned n_fds,
             struct tv_error *err); // waits for the acknowledgement if REPLY_ACK is there; -EREMOTEIO: refused
int wire_set_u64(struct vhost_frontend *fe, uint32_t request, uint64_t value, struct tv_error *err);
int wire_set_ring(struct vhost_frontend *fe, uint32_t request, unsigned index, uint32_t num, struct tv_error *err);
int wire_set_ring_fd(struct vhost_frontend *fe, uint32_t request, unsigned index, int fd, struct tv_error *err); // fd -1: none
int wire_get_u64(struct vhost_frontend *fe, uint32_t request, uint64_t *value, struct tv_error *err);
int wire_get_ring_base(struct vhost_frontend *fe, unsigned index, uint32_t *base, struct tv_error *err);
int wire_get_config(struct vhost_frontend *fe, uint8_t *space, struct tv_error *err); // config_len_bytes
int wire_get_inflight(struct vhost_frontend *fe, struct vhost_inflight *inflight, int *fd, struct tv_error *err);
int wire_send_log(struct vhost_frontend *fe, struct tv_error *err);
int wire_send_memory(struct vhost_frontend *fe, uint64_t max_slots, struct tv_error *err);
bool wire_has(const struct vhost_frontend *fe, enum vhost_protocol_feature feature);

// The end of every call that spoke to the back end: a connection that broke is dropped, and that is no failure for the driver.
int frontend_settle(struct vhost_frontend *fe, int ret);
int frontend_send_features(struct vhost_frontend *fe, struct tv_error *err);
int frontend_send_ring_addr(struct vhost_frontend *fe, unsigned index, struct tv_error *err);
bool frontend_is_packed(const struct vhost_frontend *fe);

int log_check(const struct vhost_frontend *fe, struct tv_error *err); // -ENOTSUP: this back end cannot log, and should
// The back end goes, maybe between a write to a ring and its mark: those of what it wrote for requests come before it says so.
void log_rings_lost(struct vhost_frontend *fe);

int events_open(struct vhost_frontend *fe, struct tv_error *err);            // at create: queue errors, timer
void events_forget_errors(struct vhost_frontend *fe);                        // at reset
void events_close(struct vhost_frontend *fe);                                // at destroy
int events_watch(struct vhost_frontend *fe, struct tv_error *err);           // the socket, once attached
int events_request_channel(struct vhost_frontend *fe, struct tv_error *err); // hands the back end a socket of its own
void frontend_drop(struct vhost_frontend *fe);                               // closes the connection, says nothing
void frontend_lost(struct vhost_frontend *fe);                               // and tells the device, from the loop
