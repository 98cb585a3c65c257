// The machine's end of a vhost-user connection (vhost-user protocol of the QEMU documentation, "front-end").
//
// The front end remembers all it was told (features, memory, queues), so that a connection that broke can be attached again by a
// new descriptor at any time: everything is replayed, and with INFLIGHT_SHMFD the requests in flight are taken up by the new back
// end, none lost, none done twice. It opens no socket itself: the supervisor connects and hands the descriptor in.
//
// A network's device (`is_net`) keeps no record of what is in flight, since a frame may be lost or come twice: queues go on behind
// what was given back, and are split.
//
// All calls on the loop's thread. Requests that need an answer wait for it at most VHOST_TIMEOUT_MS; a back end that does not
// answer in time counts as disconnected.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"
#include "vhost/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHOST_TIMEOUT_MS 5000
#define VHOST_QUEUES_MAX 64

struct vhost_frontend;

struct vhost_frontend_config {
    struct loop *loop;
    const struct guest_memory *mem;  // borrowed; shared with the back end
    unsigned n_queues;               // at most what the device offers to its driver; of a network two a pair, and no control queue
    bool is_net;                     // GET_QUEUE_NUM counts pairs then
    uint16_t mtu_bytes;              // of a network, told to the back end; 0: nothing is told
    uint32_t config_len_bytes;       // of the device's configuration space, for GET_CONFIG
    void (*disconnected)(void *arg); // the back end has gone; attach again when there is a new one
    void (*config_changed)(void *arg); // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG
    void (*queue_broken)(void *arg);   // the driver broke the rules on some queue: the device needs a reset; may be NULL
    void *arg;
};

struct vhost_frontend_queue {
    uint16_t size;
    uint64_t desc_addr, avail_addr, used_addr; // guest-physical
    int kick_fd, call_fd;                      // eventfds, borrowed for as long as the queue is started
    bool disabled;                             // as vhost_frontend_enable_queue() has it
};

struct vhost_frontend *vhost_frontend_create(const struct vhost_frontend_config *config, struct tv_error *err);
void vhost_frontend_destroy(struct vhost_frontend *fe);

// Takes fd (also on failure): handshake, features, memory, and whatever had been started before. A back end that lacks a feature
// which the driver has already acknowledged is refused (-ENOTSUP).
int vhost_frontend_attach(struct vhost_frontend *fe, int fd, struct tv_error *err);
bool vhost_frontend_is_attached(const struct vhost_frontend *fe);

uint64_t vhost_frontend_features(const struct vhost_frontend *fe); // virtio features the back end offers
unsigned vhost_frontend_max_queues(const struct vhost_frontend *fe);
// Configuration space: read from the back end; the last one read while it is away.
int vhost_frontend_config_read(struct vhost_frontend *fe, uint32_t offset, void *buf, uint32_t len_bytes);
// What is written goes to each back end that comes later, too, until the next reset; while none is there it is only remembered.
int vhost_frontend_config_write(struct vhost_frontend *fe, uint32_t offset, const void *buf, uint32_t len_bytes);

// What the driver does. They succeed while the back end is away: it learns of it when it comes.
int vhost_frontend_set_features(struct vhost_frontend *fe, uint64_t acked, struct tv_error *err);
int vhost_frontend_start_queue(struct vhost_frontend *fe, unsigned index, const struct vhost_frontend_queue *queue,
                               struct tv_error *err);
// Whether the back end serves a queue that is started (SET_VRING_ENABLE).
int vhost_frontend_enable_queue(struct vhost_frontend *fe, unsigned index, bool enable);
int vhost_frontend_stop_queue(struct vhost_frontend *fe, unsigned index); // GET_VRING_BASE: waits until the back end let go of it
int vhost_frontend_set_status(struct vhost_frontend *fe, uint8_t status);
int vhost_frontend_reset(struct vhost_frontend *fe); // stops all queues, RESET_DEVICE

// A network's device is where it was not before, or its back end knows nothing of it yet: a RARP is sent in its name. -ENOTSUP: the
// back end does not do that.
int vhost_frontend_send_rarp(struct vhost_frontend *fe, const uint8_t mac[static 6]);

// What the back end writes to guest memory, for whoever copies a machine that goes on. Logging goes on over the death of a back
// end; the next one must be able to log as well. -ENOTSUP: the one that is there is not. While none is there it is remembered.
int vhost_frontend_start_log(struct vhost_frontend *fe, struct tv_error *err);
void vhost_frontend_stop_log(struct vhost_frontend *fe);
// Adds the pages that were written since the last call to the bitmap, one bit a 4 KiB page of region `region` of the memory. What
// has been written when the queues are stopped is all in it after that. -EINVAL: nothing is logged, there is no such region, or the
// bitmap is smaller than it.
int vhost_frontend_take_log(struct vhost_frontend *fe, unsigned region, uint64_t *bitmap, size_t n_words);

// Drains (queues stopped, in-flight requests done) when saving, so it needs an attached back end if a queue is started, but for a
// network; a save is followed by vhost_frontend_resume(), which starts the queues again where they stood. After loading the device
// starts its queues by vhost_frontend_start_queue(), since their eventfds are new; they go on where they stood. Attaching may come
// before or after.
int vhost_frontend_state(struct vhost_frontend *fe, struct state *s);
int vhost_frontend_resume(struct vhost_frontend *fe, struct tv_error *err);
