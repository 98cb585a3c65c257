// The life of a queue in the back end: configured by messages, started when all is there and it is enabled, stopped.
//
// The protocol lets a ring start at its first kick. We start it as soon as it could get one: a predecessor may have taken the kick
// for what waits in it now.
#include "vhost/backend_internal.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define POLL_PERIOD_NS NS_PER_MS // of a queue whose front end asks for polling

static unsigned ring_index(const struct backend_ring *ring)
{
    return (unsigned)(ring - ring->be->rings);
}

void ring_init(struct vhost_backend *be, struct backend_ring *ring)
{
    *ring = (struct backend_ring){.be = be, .kick_fd = -1, .call_fd = -1, .err_fd = -1};
    virtqueue_init(&ring->vq, &be->mem);
}

// The peer holds the same eventfd and may have made it blocking, so it is read only without waiting. 1: there was a kick. 0: none.
static int take_kick(int fd)
{
    uint64_t count;
    struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
    ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
    if (n == (ssize_t)sizeof(count))
        return 1;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -EINVAL;
}

// An eventfd is an anonymous inode, which has no file type; a write to any other kind of them fails at once. Pipes and sockets
// could raise SIGPIPE or block.
static bool may_be_eventfd(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0;
}

// Never waits: a full counter means that the reader has not seen the last signal, so nothing is lost.
static void signal_eventfd(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    const uint64_t one = 1;
    if (fd >= 0 && poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && write(fd, &one, sizeof(one)) < 0)
        log_event(LOG_DEBUG, "vhost", "cannot signal an eventfd", LOG_STR("error", strerror(errno)));
}

static void replace_fd(int *place, int fd)
{
    if (*place >= 0)
        close(*place);
    *place = fd;
}

static void tell_broken(struct backend_ring *ring)
{
    if (ring->error_told)
        return;
    ring->error_told = true;
    if (log_limit_pass(&ring->be->told, "vhost", clock_now_ns()))
        log_event(LOG_WARN, "vhost", "queue broken by its driver", LOG_U64("queue", ring_index(ring)),
                  LOG_STR("reason", ring->vq.why));
    signal_eventfd(ring->err_fd);
}

static int pop_again(struct backend_ring *ring, struct virtq_chain *chain)
{
    struct inflight *in = &ring->inflight;
    return ring->vq.packed ? inflight_packed_pop_again(in, &ring->vq, chain)
                           : virtqueue_pop_head(&ring->vq, in->again[in->next_again++], chain);
}

int vhost_backend_pop(struct vhost_backend *be, unsigned queue, struct virtq_chain *chain)
{
    struct backend_ring *ring = &be->rings[queue];
    struct inflight *in = &ring->inflight;
    int ret;
    if (!ring->started)
        return 0;
    if (in->next_again < in->n_again) {
        ret = pop_again(ring, chain);
    } else {
        const uint16_t index = ring->vq.last_avail;
        ret = virtqueue_pop(&ring->vq, chain);
        if (ret == 1 && ring->vq.packed)
            inflight_packed_fetched(in, &ring->vq, index, chain->head);
        else if (ret == 1)
            inflight_fetched(in, chain->head);
    }
    if (ret < 0)
        tell_broken(ring);
    else if (ret == 0 && ring->logs_used) // asked for a kick
        ring_log_wish(ring);
    return ret;
}

void vhost_backend_push(struct vhost_backend *be, unsigned queue, uint16_t head, uint32_t len_written_bytes)
{
    struct backend_ring *ring = &be->rings[queue];
    if (!ring->started)
        return;
    const uint16_t at = ring->vq.used_idx;
    if (ring->vq.packed) {
        inflight_packed_before_used(&ring->inflight, &ring->vq, head);
        virtqueue_push(&ring->vq, head, len_written_bytes);
        inflight_packed_after_used(&ring->inflight, head);
    } else {
        inflight_before_used(&ring->inflight, head);
        virtqueue_push(&ring->vq, head, len_written_bytes);
        inflight_after_used(&ring->inflight, head, ring->vq.used_idx);
    }
    if (ring->logs_used)
        ring_log_pushed(ring, at);
}

static void tell_log(struct vhost_backend *be)
{
    if (dirty_log_take_touched(&be->log))
        signal_eventfd(be->log_fd);
}

void ring_call(struct backend_ring *ring)
{
    if (ring->started && virtqueue_needs_call(&ring->vq))
        signal_eventfd(ring->call_fd);
    tell_log(ring->be);
}

static void ring_serve(struct backend_ring *ring)
{
    ring->be->ops.kicked(ring->be->arg, ring_index(ring));
    tell_log(ring->be); // of what popping wrote
}

static void on_kick(void *arg, int fd, uint32_t events)
{
    struct backend_ring *ring = arg;
    int ret = take_kick(fd);
    if (ret == 1) {
        ring_serve(ring);
        backend_check_memory(ring->be);
    } else if (ret < 0 || (events & (EPOLLERR | EPOLLHUP))) {
        log_event(LOG_WARN, "vhost", "kick descriptor does not work", LOG_U64("queue", ring_index(ring)));
        loop_remove(ring->kick_source);
        ring->kick_source = NULL;
    }
}

bool vhost_backend_poll(struct vhost_backend *be, unsigned queue)
{
    struct backend_ring *ring = &be->rings[queue];
    if (!ring->started || virtqueue_is_empty(&ring->vq))
        return false;
    ring_serve(ring);
    backend_check_memory(be);
    return true;
}

bool vhost_backend_set_kicks(struct vhost_backend *be, unsigned queue, bool wanted)
{
    struct backend_ring *ring = &be->rings[queue];
    if (!ring->started)
        return false;
    bool any = false;
    if (wanted)
        any = virtqueue_kicks_on(&ring->vq);
    else
        virtqueue_kicks_off(&ring->vq);
    if (ring->logs_used)
        ring_log_wish(ring);
    return any && vhost_backend_poll(be, queue);
}

void ring_poll_timer(void *arg)
{
    struct vhost_backend *be = arg;
    for (unsigned i = 0; i < be->ops.n_queues; i++) {
        struct backend_ring *ring = &be->rings[i];
        if (ring->started && ring->kick_fd < 0)
            ring_serve(ring);
    }
    backend_check_memory(be);
}

static void update_poll_timer(struct vhost_backend *be)
{
    bool needed = false;
    for (unsigned i = 0; i < be->ops.n_queues; i++)
        needed |= be->rings[i].started && be->rings[i].kick_fd < 0;
    loop_set_timer(be->poll_timer, needed ? POLL_PERIOD_NS : 0, needed ? POLL_PERIOD_NS : 0);
}

static int open_inflight(struct backend_ring *ring, struct tv_error *err)
{
    struct vhost_backend *be = ring->be;
    const bool packed = ring->vq.packed;
    void *region = NULL;
    if (ring_index(ring) < be->inflight_num && ring->size <= be->inflight_size)
        region = guest_memory_view(&be->inflight, ring_index(ring) * inflight_region_bytes(be->inflight_size, packed),
                                   inflight_region_bytes(be->inflight_size, packed));
    if (packed)
        return inflight_packed_open(&ring->inflight, region, be->inflight_size, &ring->vq, err);
    inflight_open(&ring->inflight, region, be->inflight_size, ring->size, ring->vq.used_idx, &ring->vq.last_avail);
    return 0;
}

// Ring addresses are the front end's user addresses.
static int start_virtqueue(struct backend_ring *ring, struct tv_error *err)
{
    struct vhost_backend *be = ring->be;
    const bool packed = backend_is_packed(be), event_idx = be->features >> VIRTIO_RING_F_EVENT_IDX & 1;
    uint64_t desc = 0, avail = 0, used = 0;
    if (!guest_memory_view_user(&be->mem, ring->addr.desc, 16ull * ring->size, &desc) ||
        !guest_memory_view_user(&be->mem, ring->addr.avail, packed ? 4 : 6 + 2ull * ring->size, &avail) ||
        !guest_memory_view_user(&be->mem, ring->addr.used, packed ? 4 : 6 + 8ull * ring->size, &used))
        return tv_error_set(err, -EFAULT, "queue %u: its rings lie outside of the memory regions", ring_index(ring));
    int ret = ring_check_log(ring, &be->log, &ring->addr, err);
    if (ret < 0)
        return ret;
    ret = virtqueue_start(&ring->vq, ring->size, desc, avail, used, ring->base,
                          (event_idx ? VIRTQ_EVENT_IDX : 0) | (packed ? VIRTQ_PACKED : 0), err);
    if (!ret && (ret = open_inflight(ring, err)))
        virtqueue_stop(&ring->vq);
    return ret;
}

int ring_update(struct backend_ring *ring, struct tv_error *err)
{
    struct vhost_backend *be = ring->be;
    bool enabled = ring->enabled || !(be->features >> VHOST_F_PROTOCOL_FEATURES & 1);
    if (ring->started || !be->has_features || ring->size == 0 || !ring->has_addr || !ring->has_kick || !enabled ||
        ring_lacks_log(ring))
        return 0;
    int ret = start_virtqueue(ring, err);
    if (ret < 0)
        return ret;
    if (ring->kick_fd >= 0) {
        ring->kick_source = loop_add_fd(be->loop, ring->kick_fd, EPOLLIN, on_kick, ring, err);
        if (!ring->kick_source) {
            virtqueue_stop(&ring->vq);
            return err ? err->code : -EIO;
        }
    }
    ring->started = true;
    ring->error_told = false;
    update_poll_timer(be);
    log_event(LOG_DEBUG, "vhost", "queue started", LOG_U64("queue", ring_index(ring)), LOG_U64("next", ring->vq.last_avail),
              LOG_U64("in_flight", ring->inflight.n_again));
    be->ops.started(be->arg, ring_index(ring), be->features);
    virtqueue_kicks_on(&ring->vq); // at the index where it goes on now
    if (ring->logs_used)           // a predecessor may have died between writing and marking
        ring_log_all(ring);
    ring_serve(ring);
    return 0;
}

void ring_stop(struct backend_ring *ring)
{
    if (!ring->started)
        return;
    loop_remove(ring->kick_source);
    ring->kick_source = NULL;
    ring->be->ops.stopped(ring->be->arg, ring_index(ring));
    ring_call(ring); // for what was pushed while draining
    ring->base = virtqueue_base(&ring->vq);
    ring->started = false;
    virtqueue_stop(&ring->vq);
    update_poll_timer(ring->be);
}

void ring_forget(struct backend_ring *ring)
{
    ring_stop(ring);
    replace_fd(&ring->kick_fd, -1);
    replace_fd(&ring->call_fd, -1);
    replace_fd(&ring->err_fd, -1);
    ring_init(ring->be, ring);
}

int ring_set_kick(struct backend_ring *ring, int fd, struct tv_error *err)
{
    if (fd >= 0 && (!may_be_eventfd(fd) || take_kick(fd) < 0)) {
        close(fd);
        return tv_error_set(err, -EPROTO, "queue %u: the kick descriptor is no eventfd", ring_index(ring));
    }
    ring_stop(ring);
    replace_fd(&ring->kick_fd, fd);
    ring->has_kick = true;
    return ring_update(ring, err);
}

// Signals at once: a predecessor may have died between pushing and calling.
int ring_set_call(struct backend_ring *ring, int fd, struct tv_error *err)
{
    if (fd >= 0 && !may_be_eventfd(fd)) {
        close(fd);
        return tv_error_set(err, -EPROTO, "queue %u: the call descriptor is no eventfd", ring_index(ring));
    }
    replace_fd(&ring->call_fd, fd);
    signal_eventfd(fd);
    return 0;
}

int backend_set_log_fd(struct vhost_backend *be, int fd, struct tv_error *err)
{
    if (!may_be_eventfd(fd)) {
        close(fd);
        return tv_error_set(err, -EPROTO, "SET_LOG_FD: the descriptor is no eventfd");
    }
    replace_fd(&be->log_fd, fd);
    return 0;
}

int ring_set_err(struct backend_ring *ring, int fd, struct tv_error *err)
{
    if (fd >= 0 && !may_be_eventfd(fd)) {
        close(fd);
        return tv_error_set(err, -EPROTO, "queue %u: the error descriptor is no eventfd", ring_index(ring));
    }
    replace_fd(&ring->err_fd, fd);
    return 0;
}
