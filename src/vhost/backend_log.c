// The dirty log in the back end: where it is, whether all that is written has its place in it, and what the rings' part of it is
// (vhost-user protocol, "Migration"). What the service writes to chains it tells of itself, by vhost_backend_log_writes().
// The loop's thread.
#include "vhost/backend_internal.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include <linux/virtio_ring.h>

static uint64_t used_bytes(const struct backend_ring *ring) // of a packed queue the device's event structure
{
    return backend_is_packed(ring->be) ? sizeof(struct vring_packed_desc_event) : 6 + 8ull * ring->size;
}

int backend_check_log(const struct dirty_log *log, const struct guest_memory *mem, struct tv_error *err)
{
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const struct guest_region *region = &mem->regions[i];
        if (!dirty_log_covers(log, region->guest_addr, region->size_bytes))
            return tv_error_set(err, -EPROTO, "dirty log: too small for the memory region of %llu bytes at 0x%llx",
                                (unsigned long long)region->size_bytes, (unsigned long long)region->guest_addr);
    }
    return 0;
}

int ring_check_log(const struct backend_ring *ring, const struct dirty_log *log, const struct vhost_ring_addr *addr,
                   struct tv_error *err)
{
    if (!(addr->flags & VHOST_VRING_F_LOG) || !dirty_log_is_there(log) || ring->size == 0 ||
        dirty_log_covers(log, addr->log, used_bytes(ring)))
        return 0;
    return tv_error_set(err, -EPROTO, "dirty log: too small for the used ring at 0x%llx", (unsigned long long)addr->log);
}

void backend_update_log(struct vhost_backend *be)
{
    const bool is_there = dirty_log_is_there(&be->log), logs = is_there && be->features >> VHOST_F_LOG_ALL & 1;
    for (unsigned i = 0; i < be->ops.n_queues; i++)
        be->rings[i].logs_used = is_there && (be->rings[i].addr.flags & VHOST_VRING_F_LOG);
    if (logs != be->logs && be->ops.logging)
        be->ops.logging(be->arg, logs);
    be->logs = logs;
}

void backend_forget_log(struct vhost_backend *be)
{
    dirty_log_fini(&be->log);
    if (be->log_fd >= 0)
        close(be->log_fd);
    be->log_fd = -1;
    backend_update_log(be);
}

int backend_set_log_base(struct vhost_backend *be, struct vhost_message *message, struct tv_error *err)
{
    const struct vhost_log *where = &message->payload.log;
    struct dirty_log log;
    dirty_log_init(&log);
    int ret = dirty_log_set(&log, vhost_message_take_fd(message, 0), where->mmap_size, where->mmap_offset, err);
    if (!ret)
        ret = backend_check_log(&log, &be->mem, err);
    for (unsigned i = 0; i < be->ops.n_queues && !ret; i++) {
        if (be->rings[i].started)
            ret = ring_check_log(&be->rings[i], &log, &be->rings[i].addr, err);
    }
    if (ret < 0) {
        dirty_log_fini(&log);
        return ret;
    }
    dirty_log_fini(&be->log);
    be->log = log;
    backend_update_log(be);
    return 0;
}

bool ring_lacks_log(const struct backend_ring *ring)
{
    const bool wants = (ring->be->features >> VHOST_F_LOG_ALL & 1) || (ring->addr.flags & VHOST_VRING_F_LOG);
    return wants && !dirty_log_is_there(&ring->be->log);
}

void ring_log_pushed(struct backend_ring *ring, uint16_t used_idx)
{
    struct dirty_log *log = &ring->be->log;
    if (ring->vq.packed) {
        dirty_log_mark(log, ring->vq.desc_addr + used_idx * sizeof(struct vring_packed_desc), sizeof(struct vring_packed_desc));
        return;
    }
    const size_t element = used_idx & (ring->vq.size - 1u);
    dirty_log_mark(log, ring->addr.log + offsetof(struct vring_used, ring) + element * sizeof(struct vring_used_elem),
                   sizeof(struct vring_used_elem));
    dirty_log_mark(log, ring->addr.log + offsetof(struct vring_used, idx), sizeof(uint16_t));
}

void ring_log_wish(struct backend_ring *ring)
{
    struct dirty_log *log = &ring->be->log;
    dirty_log_mark(log, ring->addr.log, 4); // flags; or the event structure
    if (!ring->vq.packed)                   // avail_event
        dirty_log_mark(log, ring->addr.log + used_bytes(ring) - sizeof(uint16_t), sizeof(uint16_t));
}

void ring_log_all(struct backend_ring *ring)
{
    dirty_log_mark(&ring->be->log, ring->addr.log, used_bytes(ring));
    if (ring->vq.packed)
        dirty_log_mark(&ring->be->log, ring->vq.desc_addr, ring->vq.size * sizeof(struct vring_packed_desc));
}

void vhost_backend_log_writes(struct vhost_backend *be, const struct iovec *iov, unsigned n_iov)
{
    if (!be->logs)
        return;
    for (unsigned i = 0; i < n_iov; i++) {
        uint64_t addr;
        if (guest_memory_find(&be->mem, iov[i].iov_base, &addr))
            dirty_log_mark(&be->log, addr, iov[i].iov_len);
    }
}
