// The back end's connection: one front end at a time is accepted, its messages are received, checked, carried out and answered;
// when it goes or makes no sense, all its queues stop and everything of it is given back.
#include "vhost/backend_internal.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define MESSAGES_PER_ROUND 32 // then the loop serves others

uint64_t backend_features(const struct vhost_backend *be)
{
    return be->ops.features | 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
           1ull << VIRTIO_F_RING_PACKED | 1ull << VHOST_F_PROTOCOL_FEATURES | (be->ops.logging ? 1ull << VHOST_F_LOG_ALL : 0);
}

static void disconnect(struct vhost_backend *be)
{
    for (unsigned i = 0; i < be->ops.n_queues; i++)
        ring_forget(&be->rings[i]);
    loop_remove(be->source);
    be->source = NULL;
    vhost_message_clear(&be->rx);
    close(be->fd);
    be->fd = -1;
    if (be->request_fd >= 0)
        close(be->request_fd);
    be->request_fd = -1;
    guest_memory_fini(&be->mem);
    guest_memory_fini(&be->inflight);
    be->inflight_num = be->inflight_size = 0;
    be->features = be->protocol = 0;
    be->has_features = false;
    be->status = 0;
    backend_forget_log(be);
    if (be->ops.disconnected)
        be->ops.disconnected(be->arg);
}

static int acknowledge(struct vhost_backend *be, const struct vhost_header *header, int result)
{
    bool wanted = (header->flags & VHOST_NEED_REPLY) && (be->protocol >> VHOST_PROTOCOL_REPLY_ACK & 1);
    if (vhost_request_has_reply(header->request))
        return result;
    if (!wanted) // what a guest can cause never ends the connection
        return header->request == VHOST_SET_CONFIG ? 0 : result;
    uint64_t failed = result < 0;
    return vhost_send(be->fd, header->request, VHOST_REPLY, &failed, sizeof(failed), NULL, 0);
}

static int serve_message(struct vhost_backend *be, struct tv_error *err)
{
    struct vhost_message *message = &be->rx.message;
    struct vhost_header header = message->header;
    int ret = vhost_check_request(message, be->protocol, err);
    if (ret < 0)
        return ret;
    ret = backend_apply(be, message, err);
    if (ret == -EPROTO)
        return ret;
    if (ret < 0 && err->code == 0)
        tv_error_set(err, ret, "%s: %s", vhost_request_name(header.request), strerror(-ret));
    if (ret < 0 && log_limit_pass(&be->told, "vhost", clock_now_ns()))
        log_event(LOG_WARN, "vhost", "request failed", LOG_STR("reason", err->text));
    return acknowledge(be, &header, ret);
}

static int serve_socket(struct vhost_backend *be, struct tv_error *err)
{
    for (unsigned i = 0; i < MESSAGES_PER_ROUND; i++) {
        int ret = vhost_receive(&be->rx, be->fd, err);
        if (ret <= 0)
            return ret;
        ret = serve_message(be, err);
        vhost_message_clear(&be->rx);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static void drop_front_end(struct vhost_backend *be, enum log_level level, const char *reason)
{
    log_event(level, "vhost", "front end disconnected", LOG_STR("reason", reason));
    disconnect(be);
    loop_set_events(be->listen_source, EPOLLIN);
}

bool backend_check_memory(struct vhost_backend *be)
{
    if (be->fd < 0 ||
        (!guest_memory_is_lost(&be->mem) && !guest_memory_is_lost(&be->inflight) && !guest_memory_is_lost(&be->log.file)))
        return true;
    drop_front_end(be, LOG_WARN, "the file of a memory region was cut");
    return false;
}

static void on_socket(void *arg, int fd, uint32_t events)
{
    struct vhost_backend *be = arg;
    struct tv_error err = {0};
    (void)fd, (void)events;
    int ret = serve_socket(be, &err);
    bool closed = ret == -ECONNRESET && be->rx.got_bytes == 0;
    if (ret < 0)
        drop_front_end(be, closed ? LOG_INFO : LOG_WARN, err.code ? err.text : strerror(-ret));
    else
        backend_check_memory(be);
}

static void on_listen(void *arg, int listen_fd, uint32_t events)
{
    struct vhost_backend *be = arg;
    struct tv_error err = {0};
    (void)events;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            return;
        log_event(LOG_ERROR, "vhost", "cannot accept", LOG_STR("error", strerror(errno)));
        loop_set_events(be->listen_source, 0);
        loop_set_timer(be->accept_timer, NS_PER_S, 0); // out of descriptors, say: not in a hurry
        return;
    }
    vhost_receiver_init(&be->rx);
    be->source = loop_add_fd(be->loop, fd, EPOLLIN, on_socket, be, &err);
    if (!be->source) {
        log_event(LOG_ERROR, "vhost", "cannot accept", LOG_STR("error", err.text));
        close(fd);
        return;
    }
    be->fd = fd;
    loop_set_events(be->listen_source, 0); // the next one waits its turn
    if (be->ops.connected)
        be->ops.connected(be->arg);
}

static void on_accept_timer(void *arg)
{
    struct vhost_backend *be = arg;
    if (be->fd < 0)
        loop_set_events(be->listen_source, EPOLLIN);
}

// Gives back whatever is there; also of a back end that was not fully made.
static void backend_free(struct vhost_backend *be)
{
    if (be->fd >= 0)
        disconnect(be);
    loop_remove(be->listen_source);
    loop_remove(be->accept_timer);
    loop_remove(be->poll_timer);
    close(be->listen_fd);
    free(be);
}

struct vhost_backend *vhost_backend_create(struct loop *loop, int listen_fd, const struct vhost_backend_ops *ops, void *arg,
                                           struct tv_error *err)
{
    struct vhost_backend *be = NULL;
    if (ops->n_queues == 0 || ops->n_queues > VHOST_SOCKET_QUEUES_MAX || ops->config_len_bytes > VHOST_CONFIG_MAX)
        tv_error_set(err, -EINVAL, "vhost back end: %u queues, %u bytes of configuration", ops->n_queues, ops->config_len_bytes);
    else if (guest_memory_guard_install(err) == 0)
        be = calloc(1, sizeof(*be) + ops->n_queues * sizeof(be->rings[0]));
    if (!be) {
        close(listen_fd);
        return NULL;
    }
    be->loop = loop;
    be->ops = *ops;
    be->arg = arg;
    be->listen_fd = listen_fd;
    be->fd = be->request_fd = be->log_fd = -1;
    guest_memory_init(&be->mem);
    guest_memory_init(&be->inflight);
    dirty_log_init(&be->log);
    for (unsigned i = 0; i < ops->n_queues; i++)
        ring_init(be, &be->rings[i]);
    be->accept_timer = loop_add_timer(loop, on_accept_timer, be, err);
    be->poll_timer = be->accept_timer ? loop_add_timer(loop, ring_poll_timer, be, err) : NULL;
    be->listen_source = be->poll_timer ? loop_add_fd(loop, listen_fd, EPOLLIN, on_listen, be, err) : NULL;
    if (be->listen_source)
        return be;
    backend_free(be);
    return NULL;
}

void vhost_backend_destroy(struct vhost_backend *be)
{
    if (be)
        backend_free(be);
}

void vhost_backend_call(struct vhost_backend *be, unsigned queue)
{
    ring_call(&be->rings[queue]);
}

void vhost_backend_config_changed(struct vhost_backend *be)
{
    if (be->request_fd < 0)
        return;
    // A full socket holds this very message already: nothing else is ever sent on it.
    int ret = vhost_send(be->request_fd, VHOST_BACKEND_CONFIG_CHANGE, 0, NULL, 0, NULL, 0);
    if (ret < 0 && ret != -EAGAIN)
        log_event(LOG_WARN, "vhost", "cannot tell of a changed configuration", LOG_STR("error", strerror(-ret)));
}

bool vhost_backend_is_connected(const struct vhost_backend *be)
{
    return be->fd >= 0;
}
