// The table of the namespace's kernel, as it changes (rtnetlink(7)): what daemons and `ip route` put there. Two sockets, one for
// events and one to ask for everything: at the beginning, after events were lost (ENOBUFS), and when a device or an address has
// changed, for then the kernel takes routes of IPv4 away without a word.
//
// While everything is told again events go on, and may be newer than what is told about the same route (candidates.h). What has
// piled up before is of no use then, and could undo what was lost behind it: it is thrown away first.
#include "router/ip/control_plane.h"

#include "base/log.h"

#include <errno.h>
#include <linux/nexthop.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES 65536          // one message of the kernel's, events or a piece of a dump, is smaller
#define ROOM_BYTES (8 << 20)        // for events that wait
#define TURN 64                     // receives, before others have their turn on the loop
#define DEVICE_PAUSE_NS 50000000ull // after a device has changed: often several do

enum dump { DUMP_NEXTHOPS, DUMP_ROUTES4, DUMP_ROUTES6, DUMP_NEIGHBOURS, DUMPS };

struct rtnetlink {
    struct vn *vn;
    struct learn *learn;
    struct rtnetlink_env env;
    int events_fd, dump_fd;
    struct loop_source *events, *dump, *timer;
    enum dump current; // DUMPS: nothing is being told
    uint32_t sequence;
    bool is_interrupted; // what is told is of two states of the table
    uint64_t messages, bad_messages, overruns, dumps;
    uint8_t buffer[BUFFER_BYTES];
};

// ---- telling everything again ----

static void request(struct rtnetlink *r)
{
    static const uint16_t types[DUMPS] = {RTM_GETNEXTHOP, RTM_GETROUTE, RTM_GETROUTE, RTM_GETNEIGH};
    static const uint8_t families[DUMPS] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNSPEC};
    struct netlink_writer w;
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    union { // all begin with the family
        struct nhmsg nexthop;
        struct rtmsg route;
        struct ndmsg neighbour;
    } header = {.route = {.rtm_family = families[r->current]}};
    const size_t len = r->current == DUMP_NEXTHOPS     ? sizeof(header.nexthop)
                       : r->current == DUMP_NEIGHBOURS ? sizeof(header.neighbour)
                                                       : sizeof(header.route);
    netlink_begin(&w, types[r->current], NLM_F_REQUEST | NLM_F_DUMP, &header, len);
    netlink_set_sequence(&w, ++r->sequence);
    if (sendto(r->dump_fd, w.bytes, w.len, 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
        log_event(LOG_WARN, "router", "the namespace's table cannot be asked for", LOG_STR("network", r->vn->name),
                  LOG_STR("why", strerror(errno)));
        r->current = DUMPS;
        loop_set_timer(r->timer, DEVICE_PAUSE_NS * 20, 0);
    }
}

static void throw_away_events(struct rtnetlink *r)
{
    ssize_t n;
    do
        n = recv(r->events_fd, r->buffer, sizeof(r->buffer), 0);
    while (n > 0 || (n < 0 && (errno == EINTR || errno == ENOBUFS)));
}

static void tell_again(struct rtnetlink *r)
{
    loop_set_timer(r->timer, 0, 0);
    if (r->current != DUMPS) { // the socket can have one at a time
        r->is_interrupted = true;
        return;
    }
    throw_away_events(r);
    learn_begin(r->learn, true);
    r->env.neighbours_begin(r->env.arg);
    r->current = 0;
    r->is_interrupted = false;
    r->dumps++;
    request(r);
}

// What was told of a table that changed meanwhile may lack something that was there all the time: nothing goes for that.
static void finish(struct rtnetlink *r)
{
    if (r->is_interrupted) {
        loop_set_timer(r->timer, DEVICE_PAUSE_NS, 0);
        return;
    }
    learn_end(r->learn);
    r->env.neighbours_end(r->env.arg);
}

static void go_on(struct rtnetlink *r)
{
    r->current++;
    if (r->current < DUMPS)
        request(r);
    else
        finish(r);
}

static void take_told(struct rtnetlink *r, const struct netlink_message *m)
{
    if (m->sequence != r->sequence || r->current == DUMPS)
        return; // of one that was given up
    r->is_interrupted |= (m->flags & NLM_F_DUMP_INTR) != 0;
    if (m->kind == NETLINK_DONE_MESSAGE || m->kind == NETLINK_ERROR_MESSAGE)
        go_on(r); // an error: the kernel has no such thing
    else
        learn_message(r->learn, m, true);
}

static void take_event(struct rtnetlink *r, const struct netlink_message *m)
{
    if (m->kind == NETLINK_LINK_MESSAGE)
        loop_set_timer(r->timer, DEVICE_PAUSE_NS, 0);
    else
        learn_message(r->learn, m, false);
}

// ---- receiving ----

// What one receive brought. From others than the kernel nothing is taken.
static void take(struct rtnetlink *r, size_t len_bytes, bool is_event)
{
    const uint8_t *at = r->buffer;
    struct netlink_message m;
    for (int result; (result = netlink_read(&at, &len_bytes, &m)) != -ENODATA;) {
        r->messages++;
        if (result)
            r->bad_messages++;
        else if (is_event)
            take_event(r, &m);
        else
            take_told(r, &m);
    }
}

static ssize_t receive(struct rtnetlink *r, int fd)
{
    struct sockaddr_nl from = {0};
    struct iovec piece = {r->buffer, sizeof(r->buffer)};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &piece, .msg_iovlen = 1};
    const ssize_t n = recvmsg(fd, &message, 0);
    if (n < 0)
        return -errno;
    return from.nl_pid || message.msg_flags & MSG_TRUNC ? 0 : n;
}

static void on_events(void *arg, int fd, uint32_t events)
{
    struct rtnetlink *r = arg;
    (void)events;
    for (unsigned i = 0; i < TURN; i++) {
        const ssize_t n = receive(r, fd);
        if (n == -ENOBUFS) {
            r->overruns++;
            tell_again(r);
        }
        if (n < 0)
            break;
        take(r, (size_t)n, true);
    }
    control_plane_settle(r->vn);
}

static void on_dump(void *arg, int fd, uint32_t events)
{
    struct rtnetlink *r = arg;
    ssize_t n = 0;
    (void)events;
    for (unsigned i = 0; i < TURN && n >= 0; i++) {
        n = receive(r, fd);
        if (n >= 0)
            take(r, (size_t)n, false);
        else if (n != -EAGAIN && n != -EINTR)
            r->is_interrupted = true;
    }
    control_plane_settle(r->vn);
}

static void on_timer(void *arg)
{
    tell_again(arg);
}

// ---- coming and going ----

static int open_socket(struct namespace *space, uint32_t groups, struct tv_error *err)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    const int room = ROOM_BYTES;
    int fd = namespace_socket(space, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE, err);
    if (fd < 0)
        return fd;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)); // what there is; more is lost, and told again
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        tv_error_set(err, -errno, "namespace '%s': its table cannot be listened to: %s", namespace_name(space), strerror(errno));
        close(fd);
        return err->code;
    }
    return fd;
}

static uint32_t group(unsigned number)
{
    return 1u << (number - 1);
}

static int start(struct rtnetlink *r, struct namespace *space, struct tv_error *err)
{
    struct loop *loop = r->vn->env.loop;
    const uint32_t groups = group(RTNLGRP_LINK) | group(RTNLGRP_NEIGH) | group(RTNLGRP_IPV4_IFADDR) | group(RTNLGRP_IPV4_ROUTE) |
                            group(RTNLGRP_IPV6_ROUTE) | group(RTNLGRP_NEXTHOP);
    r->events_fd = open_socket(space, groups, err);
    r->dump_fd = r->events_fd < 0 ? -1 : open_socket(space, 0, err);
    if (r->dump_fd < 0)
        return err->code;
    r->timer = loop_add_timer(loop, on_timer, r, err);
    r->events = r->timer ? loop_add_fd(loop, r->events_fd, EPOLLIN, on_events, r, err) : NULL;
    r->dump = r->events ? loop_add_fd(loop, r->dump_fd, EPOLLIN, on_dump, r, err) : NULL;
    return r->dump ? 0 : err->code;
}

struct rtnetlink *rtnetlink_create(struct vn *vn, struct namespace *space, struct learn *learn, const struct rtnetlink_env *env,
                                   struct tv_error *err)
{
    struct rtnetlink *r = calloc(1, sizeof(*r));
    if (!r) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    *r = (struct rtnetlink){.vn = vn, .learn = learn, .env = *env, .events_fd = -1, .dump_fd = -1, .current = DUMPS};
    if (start(r, space, err)) {
        rtnetlink_destroy(r);
        return NULL;
    }
    tell_again(r);
    return r;
}

void rtnetlink_destroy(struct rtnetlink *r)
{
    if (!r)
        return;
    loop_remove(r->events);
    loop_remove(r->dump);
    loop_remove(r->timer);
    if (r->events_fd >= 0)
        close(r->events_fd);
    if (r->dump_fd >= 0)
        close(r->dump_fd);
    free(r);
}

json_t *rtnetlink_describe(const struct rtnetlink *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "routes",
                     (json_int_t)candidates_count(r->learn->candidates, ORIGIN_KERNEL), "messages", (json_int_t)r->messages,
                     "bad_messages", (json_int_t)r->bad_messages, "overruns", (json_int_t)r->overruns, "dumps",
                     (json_int_t)r->dumps, "refused", (json_int_t)r->learn->n_refused, "settled", r->current == DUMPS);
}
