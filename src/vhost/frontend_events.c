// What comes to the front end by itself: the back end's own requests, the error eventfd of its queues, and its end.
#include "vhost/frontend_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define MESSAGES_PER_ROUND 32

static void close_request_channel(struct vhost_frontend *fe)
{
    loop_remove(fe->request_source);
    fe->request_source = NULL;
    vhost_message_clear(&fe->request_rx);
    if (fe->request_fd >= 0)
        close(fe->request_fd);
    fe->request_fd = -1;
}

void frontend_drop(struct vhost_frontend *fe)
{
    close_request_channel(fe);
    loop_remove(fe->source);
    fe->source = NULL;
    if (fe->fd >= 0) {
        close(fe->fd);
        log_rings_lost(fe);
    }
    fe->fd = -1;
    fe->protocol = 0;
    fe->failed = false;
    loop_set_timer(fe->away_timer, 0, 0);
}

// The device hears of it from the loop, not from within its own call.
void frontend_lost(struct vhost_frontend *fe)
{
    log_event(LOG_WARN, "vhost", "back end has gone");
    frontend_drop(fe);
    loop_set_timer(fe->away_timer, 1, 0);
}

static void on_away(void *arg)
{
    struct vhost_frontend *fe = arg;
    if (fe->fd < 0 && fe->config.disconnected)
        fe->config.disconnected(fe->config.arg);
}

// Nothing comes on the main socket but answers, and those are waited for: this is the end, or nonsense.
static void on_socket(void *arg, int fd, uint32_t events)
{
    (void)fd, (void)events;
    frontend_lost(arg);
}

// Returns 1 when the configuration changed.
static int serve_request(struct vhost_frontend *fe)
{
    const struct vhost_header *header = &fe->request_rx.message.header;
    bool known = header->request == VHOST_BACKEND_CONFIG_CHANGE && header->size_bytes == 0 && !(header->flags & VHOST_REPLY);
    uint64_t failed = !known;
    if (!known)
        log_event(LOG_WARN, "vhost", "back end sent a request that is not known", LOG_U64("request", header->request));
    if ((header->flags & VHOST_NEED_REPLY) &&
        vhost_send(fe->request_fd, header->request, VHOST_REPLY, &failed, sizeof(failed), NULL, 0) < 0)
        return -EPIPE;
    return known;
}

static void on_request(void *arg, int fd, uint32_t events)
{
    struct vhost_frontend *fe = arg;
    bool changed = false;
    int ret = 1;
    (void)events;
    for (unsigned i = 0; i < MESSAGES_PER_ROUND && ret > 0; i++) {
        ret = vhost_receive(&fe->request_rx, fd, NULL);
        if (ret <= 0)
            break;
        int served = serve_request(fe);
        vhost_message_clear(&fe->request_rx);
        changed |= served == 1;
        ret = served < 0 ? served : 1;
    }
    if (ret < 0)
        close_request_channel(fe); // the main socket tells whether the back end is still there
    if (changed && fe->config.config_changed)
        fe->config.config_changed(fe->config.arg);
}

static void on_queue_error(void *arg, int fd, uint32_t events)
{
    struct vhost_frontend *fe = arg;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return;
    log_event(LOG_WARN, "vhost", "back end found a queue broken");
    if (fe->config.queue_broken)
        fe->config.queue_broken(fe->config.arg);
}

// After a reset nothing that was said of the old queues counts.
void events_forget_errors(struct vhost_frontend *fe)
{
    uint64_t count;
    ssize_t n = read(fe->err_fd, &count, sizeof(count));
    (void)n;
}

int events_open(struct vhost_frontend *fe, struct tv_error *err)
{
    fe->err_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fe->err_fd < 0)
        return tv_error_set(err, -errno, "vhost front end: eventfd: %s", strerror(errno));
    fe->err_source = loop_add_fd(fe->config.loop, fe->err_fd, EPOLLIN, on_queue_error, fe, err);
    fe->away_timer = fe->err_source ? loop_add_timer(fe->config.loop, on_away, fe, err) : NULL;
    return fe->away_timer ? 0 : -ENOMEM;
}

void events_close(struct vhost_frontend *fe)
{
    loop_remove(fe->err_source);
    loop_remove(fe->away_timer);
    if (fe->err_fd >= 0)
        close(fe->err_fd);
}

int events_watch(struct vhost_frontend *fe, struct tv_error *err)
{
    fe->source = loop_add_fd(fe->config.loop, fe->fd, EPOLLIN | EPOLLRDHUP, on_socket, fe, err);
    return fe->source ? 0 : -ENOMEM;
}

int events_request_channel(struct vhost_frontend *fe, struct tv_error *err)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return tv_error_set(err, -errno, "vhost front end: socketpair: %s", strerror(errno));
    fe->request_fd = fds[0];
    vhost_receiver_init(&fe->request_rx);
    fe->request_source = loop_add_fd(fe->config.loop, fe->request_fd, EPOLLIN, on_request, fe, err);
    int ret = fe->request_source ? wire_set(fe, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &fds[1], 1, err) : -ENOMEM;
    close(fds[1]);
    return ret;
}
