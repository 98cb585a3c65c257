// The service's end of a vhost-user connection (vhost-user protocol of the QEMU documentation, "back-end").
//
// One device, one front end at a time; when it goes, all its queues stop and the next one may connect. The front end is a peer and
// not trusted: every message is decoded and checked whole, then applied. All callbacks and calls on the loop's thread.
//
// Protocol features: MQ, CONFIG, REPLY_ACK, RESET_DEVICE, STATUS, CONFIGURE_MEM_SLOTS, BACKEND_REQ, INFLIGHT_SHMFD, LOG_SHMFD.
// While the front end keeps a dirty log, two write to it: the library what it writes to rings, and the service what it writes to
// requests' memory.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "vhost/memory.h"
#include "vhost/virtqueue.h"

#include <stdbool.h>
#include <stdint.h>

struct vhost_backend;

struct vhost_backend_ops {
    uint64_t features; // virtio device features offered; the library adds its own (EVENT_IDX, INDIRECT_DESC, VERSION_1 ...)
    unsigned n_queues;
    uint32_t config_len_bytes;
    void (*config_read)(void *arg, uint8_t *config);                                           // fills config_len_bytes
    int (*config_write)(void *arg, uint32_t offset, const uint8_t *bytes, uint32_t len_bytes); // NULL: not writable
    void (*connected)(void *arg);                                                              // may be NULL
    void (*disconnected)(void *arg); // all queues are stopped by then; may be NULL
    void (*started)(void *arg, unsigned queue, uint64_t acked_features);
    // No request may be in flight on return: the service drains. Its chains' memory may go away after it.
    void (*stopped)(void *arg, unsigned queue);
    void (*kicked)(void *arg, unsigned queue); // pop all there is
    // From now on (or no longer): vhost_backend_log_writes() for all that is written to chains, also to those popped before. NULL:
    // the service does not do so, and a machine with it cannot migrate.
    void (*logging)(void *arg, bool on);
};

// Accepts on listen_fd (taken).
struct vhost_backend *vhost_backend_create(struct loop *loop, int listen_fd, const struct vhost_backend_ops *ops, void *arg,
                                           struct tv_error *err);
void vhost_backend_destroy(struct vhost_backend *be);

// Requests of a started queue. Pop gives those first that a dead predecessor had in flight. Results as virtqueue_pop(); a broken
// queue is reported to the front end by its error eventfd and stays silent until it is started again.
int vhost_backend_pop(struct vhost_backend *be, unsigned queue, struct virtq_chain *chain);
void vhost_backend_push(struct vhost_backend *be, unsigned queue, uint16_t head, uint32_t len_written_bytes);
void vhost_backend_call(struct vhost_backend *be, unsigned queue); // after a batch of pushes: interrupt if the driver wants it
// What was written to a chain's memory, whether the request succeeded or not; after the writes, before the push.
void vhost_backend_log_writes(struct vhost_backend *be, const struct iovec *iov, unsigned n_iov);

// For a service that polls. Whether the driver has to kick; true also asks for what came before it knew: kicked() is called for it,
// and the result says that there was something.
bool vhost_backend_set_kicks(struct vhost_backend *be, unsigned queue, bool wanted);
bool vhost_backend_poll(struct vhost_backend *be, unsigned queue); // kicked() if there is something, and whether there was

void vhost_backend_config_changed(struct vhost_backend *be); // tells the front end
bool vhost_backend_is_connected(const struct vhost_backend *be);
