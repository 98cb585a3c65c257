// Captures: see control_capture.h. While there is one, its ring is emptied fifty times a second. A reader that is slow costs the
// capture packets, which are counted, and nobody else anything: the descriptor is never waited for.
#include "router/control_capture.h"

#include "base/clock.h"
#include "base/log.h"
#include "router/capture.h"
#include "router/params.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EMPTY_NS (20 * NS_PER_MS)
#define BUFFER_BYTES (64u << 10)
#define ROOM_BYTES (CAPTURE_SNAP_MAX + 2 * PCAPNG_BLOCK_OVERHEAD) // for a packet, and its port when it is new
#define INTERFACES_MAX 1024

struct session {
    struct session *next;
    char vn[16];
    struct capture *capture;
    struct loop_source *timer;
    int fd;
    uint32_t snap_bytes;
    bool is_ending, has_statistics;
    unsigned n_interfaces;
    char interfaces[INTERFACES_MAX][PORT_NAME_MAX + 1];
    size_t n_bytes, n_written;
    uint8_t buffer[BUFFER_BYTES];
};

static struct router *router;
static struct loop *loop;
static struct session *sessions;

void control_init_captures(struct router *its_router, struct loop *its_loop)
{
    router = its_router;
    loop = its_loop;
}

static struct session *find(const char *vn)
{
    struct session *s = sessions;
    while (s && strcmp(s->vn, vn))
        s = s->next;
    return s;
}

static void end_session(struct session *s)
{
    struct session **at = &sessions;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    router_clear_capture(router, s->vn, s->capture);
    loop_remove(s->timer);
    close(s->fd);
    capture_destroy(s->capture);
    free(s);
}

void control_end_captures(void)
{
    while (sessions)
        end_session(sessions);
}

// Its number in the file; a new one is described first.
static uint32_t interface_of(struct session *s, const char *port)
{
    for (unsigned i = 0; i < s->n_interfaces; i++)
        if (!strcmp(s->interfaces[i], port))
            return i;
    if (s->n_interfaces == INTERFACES_MAX) // so many ports have come and gone meanwhile
        return INTERFACES_MAX - 1;
    memcpy(s->interfaces[s->n_interfaces], port, PORT_NAME_MAX + 1);
    s->n_bytes += pcapng_interface(s->buffer + s->n_bytes, port, s->snap_bytes);
    return s->n_interfaces++;
}

static void put_statistics(struct session *s)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    interface_of(s, s->n_interfaces ? s->interfaces[0] : s->vn); // there is one at least
    s->n_bytes += pcapng_statistics(s->buffer + s->n_bytes, 0, (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec,
                                    capture_seen(s->capture), capture_dropped(s->capture));
    s->has_statistics = true;
}

// As much as there is room for. False: nothing was there.
static bool fill(struct session *s)
{
    struct capture_packet p;
    const size_t before = s->n_bytes;
    while (s->n_bytes + ROOM_BYTES <= BUFFER_BYTES) {
        if (!capture_next(s->capture, &p)) {
            if (s->is_ending && !s->has_statistics)
                put_statistics(s);
            break;
        }
        const uint32_t interface = interface_of(s, p.port);
        s->n_bytes += pcapng_packet(s->buffer + s->n_bytes, interface, p.at_ns, p.direction, p.data, p.kept_bytes, p.len_bytes);
    }
    return s->n_bytes > before;
}

// 0: all of it is written; -EAGAIN: the reader is slow; else nobody reads.
static int drain(struct session *s)
{
    while (s->n_written < s->n_bytes) {
        const ssize_t n = write(s->fd, s->buffer + s->n_written, s->n_bytes - s->n_written);
        if (n < 0 && errno != EINTR)
            return -errno;
        s->n_written += n < 0 ? 0 : (size_t)n;
    }
    s->n_bytes = s->n_written = 0;
    return 0;
}

// The other end of a pipe or socket is closed: not even a packet is needed to find out.
static bool is_abandoned(const struct session *s)
{
    struct pollfd pfd = {.fd = s->fd};
    return poll(&pfd, 1, 0) > 0 && pfd.revents & (POLLERR | POLLHUP);
}

static void empty(void *arg)
{
    struct session *s = arg;
    int r = is_abandoned(s) ? -EPIPE : drain(s);
    while (!r && fill(s))
        r = drain(s);
    if (!r && s->has_statistics) {
        end_session(s);
    } else if (r && r != -EAGAIN) {
        log_event(LOG_INFO, "router", "a capture ends", LOG_STR("network", s->vn), LOG_STR("reason", strerror(-r)));
        end_session(s);
    }
}

static int check_fd(int fd, struct tv_error *err)
{
    const int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return tv_error_set(err, -EINVAL, "a descriptor to write to must come with capture.start");
    return 0;
}

static struct session *make_session(const char *vn, const char *port, uint32_t snap_bytes, struct tv_error *err)
{
    struct session *s = calloc(1, sizeof(*s));
    if (s) {
        snprintf(s->vn, sizeof(s->vn), "%s", vn);
        s->snap_bytes = snap_bytes;
        s->capture = capture_create(snap_bytes);
        s->timer = loop_add_timer(loop, empty, s, err);
    }
    if (!s || !s->capture || !s->timer)
        tv_error_set(err, -ENOMEM, "no memory for a capture");
    else if (router_set_capture(router, vn, port, s->capture, err) == 0)
        return s;
    if (s) {
        loop_remove(s->timer);
        capture_destroy(s->capture);
    }
    free(s);
    return NULL;
}

void control_start_capture(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *vn = "", *port = "";
    uint32_t snap_bytes = CAPTURE_SNAP_MAX;
    (void)arg;
    int fd = req ? rpc_request_take_fd(req, 0) : -1;
    int r = check_fd(fd, &err);
    if (!r)
        r = params_get_string(params, "vn", NULL, &vn, &err);
    if (!r)
        r = params_get_string(params, "port", "", &port, &err);
    if (!r)
        r = params_get_u32(params, "snap", CAPTURE_SNAP_MAX, 14, CAPTURE_SNAP_MAX, &snap_bytes, &err);
    struct session *s = r ? NULL : make_session(vn, port, snap_bytes, &err);
    if (!s) {
        if (fd >= 0)
            close(fd);
        rpc_reply_error(req, err.code == -EINVAL ? RPC_BAD_PARAMS : RPC_FAILED, &err);
        return;
    }
    s->fd = fd;
    s->next = sessions;
    sessions = s;
    s->n_bytes = pcapng_section(s->buffer);
    loop_set_timer(s->timer, 1, EMPTY_NS);
    rpc_reply(req, json_object());
}

// The ports let go of it at once, so what was counted is final; what lies in the ring still goes out.
void control_stop_capture(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *vn = "";
    (void)arg;
    const int r = params_get_string(params, "vn", NULL, &vn, &err);
    struct session *s = r ? NULL : find(vn);
    if (!r && (!s || s->is_ending))
        tv_error_set(&err, -ENOENT, "network '%.40s' is not being captured", vn);
    if (err.code || !s) {
        rpc_reply_error(req, r ? RPC_BAD_PARAMS : RPC_FAILED, &err);
        return;
    }
    router_clear_capture(router, s->vn, s->capture);
    rpc_reply(req, json_pack("{s:I, s:I}", "packets", (json_int_t)capture_seen(s->capture), "dropped",
                             (json_int_t)capture_dropped(s->capture)));
    s->is_ending = true;
    empty(s);
}
