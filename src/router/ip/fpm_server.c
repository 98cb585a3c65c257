// Where zebra's module dplane_fpm_nl connects to: a TCP port of the namespace's loopback (fpm.h). One connection at a time, the
// latest.
//
// zebra tells everything when it has connected, and never that this was all. So what it told by an earlier connection stays for a
// while: routes that are told again, at once or when the daemons behind a new zebra have found it, were never away; others go then.
#include "router/ip/control_plane.h"
#include "router/ip/fpm.h"

#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES (4 * FPM_FRAME_MAX)
#define TURN_BYTES (1u << 20) // before others have their turn on the loop

struct fpm_server {
    struct vn *vn;
    struct learn *learn;
    uint32_t port, stale_s;
    int listen_fd, fd; // fd: the connection's, -1: none
    struct loop_source *listener, *connection, *timer;
    size_t len_bytes; // in the buffer
    uint64_t connections, messages, bad_messages;
    uint8_t buffer[BUFFER_BYTES];
};

// From now on what was told is not known to be true any more; it goes when time is up.
static void begin_again(struct fpm_server *s)
{
    learn_begin(s->learn, false);
    loop_set_timer(s->timer, (uint64_t)s->stale_s * 1000000000, 0);
}

static void on_timer(void *arg)
{
    struct fpm_server *s = arg;
    const size_t n = learn_end(s->learn);
    if (n)
        log_event(LOG_INFO, "router", "routes that were not told again are gone", LOG_STR("network", s->vn->name),
                  LOG_U64("routes", n));
    control_plane_settle(s->vn);
}

static void hang_up(struct fpm_server *s, const char *why)
{
    if (s->fd < 0)
        return;
    log_event(LOG_INFO, "router", "FPM: connection closed", LOG_STR("network", s->vn->name), LOG_STR("why", why));
    loop_remove(s->connection);
    close(s->fd);
    s->connection = NULL;
    s->fd = -1;
    s->len_bytes = 0;
    learn_settle(s->learn);
    begin_again(s);
}

// Messages that cannot be read are passed over: what is in the frame behind them can still be.
static void take_messages(struct fpm_server *s, const uint8_t *at, size_t len_bytes)
{
    struct netlink_message m;
    for (int r; (r = netlink_read(&at, &len_bytes, &m)) != -ENODATA;) {
        s->messages++;
        if (r)
            s->bad_messages++;
        else
            learn_message(s->learn, &m, false);
    }
}

// All whole frames in the buffer. -EBADMSG: the peer speaks something else.
static int take_frames(struct fpm_server *s)
{
    const uint8_t *at = s->buffer, *messages;
    size_t messages_bytes;
    int r;
    while (!(r = fpm_read(&at, &s->len_bytes, &messages, &messages_bytes)))
        take_messages(s, messages, messages_bytes);
    memmove(s->buffer, at, s->len_bytes);
    return r == -EAGAIN ? 0 : r;
}

static void on_data(void *arg, int fd, uint32_t events)
{
    struct fpm_server *s = arg;
    const char *why = NULL;
    (void)events;
    for (size_t turn = 0; turn < TURN_BYTES && !why;) {
        const ssize_t n = recv(fd, s->buffer + s->len_bytes, sizeof(s->buffer) - s->len_bytes, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            why = n ? strerror(errno) : "zebra has closed it";
            break;
        }
        turn += (size_t)n;
        s->len_bytes += (size_t)n;
        if (take_frames(s))
            why = "what came is no FPM of version 1 with rtnetlink (zebra's module dplane_fpm_nl)";
    }
    learn_settle(s->learn);
    if (why)
        hang_up(s, why);
    control_plane_settle(s->vn);
}

static void on_connection(void *arg, int listen_fd, uint32_t events)
{
    struct fpm_server *s = arg;
    struct tv_error err;
    (void)events;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    hang_up(s, "there is a new one");
    s->connection = loop_add_fd(s->vn->env.loop, fd, EPOLLIN, on_data, s, &err);
    if (!s->connection) {
        log_event(LOG_ERROR, "router", err.text, LOG_STR("network", s->vn->name));
        close(fd);
        return;
    }
    s->fd = fd;
    s->connections++;
    log_event(LOG_INFO, "router", "FPM: connected", LOG_STR("network", s->vn->name));
    begin_again(s);
}

static int listen_inside(struct fpm_server *s, struct namespace *space, struct tv_error *err)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htobe16((uint16_t)s->port), .sin_addr.s_addr = htobe32(INADDR_LOOPBACK)};
    const int one = 1;
    s->listen_fd = namespace_socket(space, AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, err);
    if (s->listen_fd < 0)
        return s->listen_fd;
    setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(s->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(s->listen_fd, 4) < 0)
        return tv_error_set(err, -errno,
                            "port %u of namespace '%s', for FPM: %s; another network or router has the namespace, or "
                            "give another \"fpm_port\"",
                            s->port, namespace_name(space), strerror(errno));
    return 0;
}

struct fpm_server *fpm_server_create(struct vn *vn, struct namespace *space, struct learn *learn,
                                     const struct control_plane_config *config, struct tv_error *err)
{
    struct fpm_server *s = calloc(1, sizeof(*s));
    if (!s) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    s->vn = vn;
    s->learn = learn;
    s->port = config->fpm_port;
    s->stale_s = config->stale_s;
    s->fd = s->listen_fd = -1;
    if (!listen_inside(s, space, err)) {
        s->timer = loop_add_timer(vn->env.loop, on_timer, s, err);
        s->listener = s->timer ? loop_add_fd(vn->env.loop, s->listen_fd, EPOLLIN, on_connection, s, err) : NULL;
    }
    if (!s->listener) {
        fpm_server_destroy(s);
        return NULL;
    }
    return s;
}

void fpm_server_destroy(struct fpm_server *s)
{
    if (!s)
        return;
    loop_remove(s->connection);
    loop_remove(s->listener);
    loop_remove(s->timer);
    if (s->fd >= 0)
        close(s->fd);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    free(s);
}

json_t *fpm_server_describe(const struct fpm_server *s)
{
    return json_pack("{s:i, s:b, s:I, s:I, s:I, s:I, s:I}", "port", (int)s->port, "connected", s->fd >= 0, "connections",
                     (json_int_t)s->connections, "messages", (json_int_t)s->messages, "bad_messages", (json_int_t)s->bad_messages,
                     "routes", (json_int_t)candidates_count(s->learn->candidates, ORIGIN_FPM), "refused",
                     (json_int_t)s->learn->n_refused);
}
