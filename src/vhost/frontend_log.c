// The front end's dirty log: a memfd that each back end gets, with LOG_ALL for what it writes for requests and the flag of each
// ring for what it writes there (vhost-user protocol, "Migration"). It reaches from guest address 0 to the end of memory.
#include "vhost/frontend_internal.h"

#include <errno.h>
#include <linux/virtio_ring.h>

int log_check(const struct vhost_frontend *fe, struct tv_error *err)
{
    if (wire_has(fe, VHOST_PROTOCOL_LOG_SHMFD) && (fe->offered >> VHOST_F_LOG_ALL & 1))
        return 0;
    return tv_error_set(
        err, -ENOTSUP,
        "vhost back end: it keeps no log of what it writes (LOG_SHMFD, LOG_ALL), and a machine that moves needs one");
}

// Again for all that runs: with the log or without it, as it is there or not.
static int tell(struct vhost_frontend *fe, struct tv_error *err)
{
    int ret = fe->has_acked ? frontend_send_features(fe, err) : 0;
    for (unsigned i = 0; i < fe->max_queues && ret == 0; i++)
        if (fe->queues[i].started)
            ret = frontend_send_ring_addr(fe, i, err);
    return ret;
}

static int create(struct vhost_frontend *fe, struct tv_error *err)
{
    const struct guest_memory *mem = fe->config.mem;
    uint64_t end = 0;
    for (unsigned i = 0; i < mem->n_regions; i++) {
        const uint64_t to = mem->regions[i].guest_addr + mem->regions[i].size_bytes;
        end = to > end ? to : end;
    }
    const uint64_t bytes = (end + 8 * DIRTY_PAGE_BYTES - 1) / (8 * DIRTY_PAGE_BYTES);
    const int fd = guest_ram_create("dirty-log", (bytes + DIRTY_PAGE_BYTES - 1) / DIRTY_PAGE_BYTES * DIRTY_PAGE_BYTES, err);
    return fd < 0 ? fd : dirty_log_set(&fe->log, fd, bytes, 0, err);
}

int vhost_frontend_start_log(struct vhost_frontend *fe, struct tv_error *err)
{
    if (dirty_log_is_there(&fe->log))
        return 0;
    int ret = fe->fd >= 0 ? log_check(fe, err) : 0;
    if (ret == 0)
        ret = create(fe, err);
    if (ret < 0 || fe->fd < 0)
        return ret;
    ret = wire_send_log(fe, err);
    if (ret == 0)
        ret = tell(fe, err);
    ret = frontend_settle(fe, ret);
    if (ret < 0)
        vhost_frontend_stop_log(fe);
    return ret;
}

void vhost_frontend_stop_log(struct vhost_frontend *fe)
{
    if (!dirty_log_is_there(&fe->log))
        return;
    dirty_log_fini(&fe->log);
    if (fe->fd >= 0)
        frontend_settle(fe, tell(fe, NULL));
}

int vhost_frontend_take_log(struct vhost_frontend *fe, unsigned region, uint64_t *bitmap, size_t n_words)
{
    const struct guest_memory *mem = fe->config.mem;
    if (!dirty_log_is_there(&fe->log) || region >= mem->n_regions)
        return -EINVAL;
    const uint64_t n_pages = (mem->regions[region].size_bytes + DIRTY_PAGE_BYTES - 1) / DIRTY_PAGE_BYTES;
    if (n_words < (n_pages + 63) / 64)
        return -EINVAL;
    dirty_log_take(&fe->log, mem->regions[region].guest_addr, n_pages, bitmap);
    return 0;
}

void log_rings_lost(struct vhost_frontend *fe)
{
    const bool is_packed = frontend_is_packed(fe);
    for (unsigned i = 0; i < fe->config.n_queues; i++) {
        const struct vhost_frontend_queue *q = &fe->queues[i].q;
        if (!fe->queues[i].started)
            continue;
        dirty_log_mark(&fe->log, q->used_addr, is_packed ? sizeof(struct vring_packed_desc_event) : 6 + 8ull * q->size);
        if (is_packed)
            dirty_log_mark(&fe->log, q->desc_addr, sizeof(struct vring_packed_desc) * q->size);
    }
}
