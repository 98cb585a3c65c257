// Ports of the kind `tap`: a network device of the kernel's, over its descriptor (Linux, networking/tuntap.rst), which comes with
// the request or is opened here. DPDK's own driver for it can do neither, and wants a signal for each packet.
#include "router/port/port.h"

#include "router/params.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <rte_cycles.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECES_MAX 8      // of a frame
#define PUNT_PAUSE_US 100 // between two looks in vain at a device of the control plane's

struct tap {
    int fd;
    struct rte_mbuf *spare; // for the next frame, so that a look at an empty device costs no allocation
    char device[IFNAMSIZ];
    uint64_t look_at, pause; // cycles; of the kind punt
};

static int open_device(const char *device, struct tv_error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    if (!*device || strlen(device) >= sizeof(request.ifr_name))
        return tv_error_set(err, -EINVAL, "device '%s': must be the name of a network device, 1 to %d characters", device,
                            IFNAMSIZ - 1);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tv_error_set(err, -errno, "/dev/net/tun: %s", strerror(errno));
    strcpy(request.ifr_name, device);
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        const int code = -errno;
        close(fd);
        return tv_error_set(err, code, "device '%s': %s; it must be a TAP device of this user's, or this must be root", device,
                            strerror(-code));
    }
    return fd;
}

// A descriptor that came: what reads and writes must be bare Ethernet frames.
static int check_device(int fd, struct tv_error *err)
{
    struct ifreq request = {0};
    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return tv_error_set(err, -EINVAL, "the descriptor is none of a TAP device");
    const int flags = request.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    if (flags != (IFF_TAP | IFF_NO_PI))
        return tv_error_set(err, -EINVAL, "device '%s': must have been opened with IFF_TAP | IFF_NO_PI, without IFF_VNET_HDR",
                            request.ifr_name);
    const int status = fcntl(fd, F_GETFL);
    if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) < 0)
        return tv_error_set(err, -errno, "device '%s': %s", request.ifr_name, strerror(errno));
    return 0;
}

static int tap_watch(struct port *port, struct tap *tap, struct tv_error *err)
{
    struct ifreq request = {0};
    struct epoll_event event = {0}; // nothing yet: it is armed when the worker goes to sleep
    if (ioctl(tap->fd, TUNGETIFF, &request) < 0 || epoll_ctl(port->env.epoll_fd, EPOLL_CTL_ADD, tap->fd, &event) < 0)
        return tv_error_set(err, -errno, "the TAP device cannot be waited for: %s", strerror(errno));
    memcpy(tap->device, request.ifr_name, sizeof(tap->device));
    return 0;
}

static int tap_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const char *device;
    int r = fd >= 0 ? check_device(fd, err) : params_get_string(params, "device", NULL, &device, err);
    if (r)
        return r;
    struct tap *tap = port->own = calloc(1, sizeof(*tap));
    if (!tap)
        return tv_error_set(err, -ENOMEM, "out of memory");
    tap->fd = fd >= 0 ? fd : open_device(device, err);
    r = tap->fd < 0 ? tap->fd : tap_watch(port, tap, err);
    if (r) {
        if (fd < 0 && tap->fd >= 0)
            close(tap->fd);
        free(tap);
    }
    return r;
}

static void tap_close(struct port *port)
{
    struct tap *tap = port->own;
    epoll_ctl(port->env.epoll_fd, EPOLL_CTL_DEL, tap->fd, NULL);
    rte_pktmbuf_free(tap->spare);
    close(tap->fd);
    free(tap);
}

static uint16_t tap_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct tap *tap = port->own;
    uint16_t got = 0;
    while (got < n) {
        struct rte_mbuf *m = tap->spare ? tap->spare : rte_pktmbuf_alloc(port->env.pool);
        tap->spare = NULL;
        if (!m) {
            counter_add(&port->env.counters->dropped[DROP_NO_BUFFERS], 1); // it lies in the device still, and is late
            break;
        }
        const ssize_t len = read(tap->fd, rte_pktmbuf_mtod(m, void *), rte_pktmbuf_tailroom(m));
        if (len <= 0) {
            tap->spare = m;
            break;
        }
        m->data_len = (uint16_t)len;
        m->pkt_len = (uint32_t)len;
        packets[got++] = m;
    }
    return got;
}

static bool write_frame(struct tap *tap, struct rte_mbuf *m)
{
    struct iovec pieces[PIECES_MAX];
    if (m->nb_segs > PIECES_MAX) {
        errno = EMSGSIZE;
        return false;
    }
    int n = 0;
    for (struct rte_mbuf *piece = m; piece; piece = piece->next)
        pieces[n++] = (struct iovec){rte_pktmbuf_mtod(piece, void *), piece->data_len};
    return writev(tap->fd, pieces, n) > 0;
}

static uint16_t tap_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct tap *tap = port->own;
    for (uint16_t i = 0; i < n; i++) {
        if (!write_frame(tap, packets[i])) {
            if (errno == EAGAIN)
                return i;
            counter_add(&port->env.counters->dropped[DROP_SEND_FULL], 1); // a device that is down, or a frame it cannot take
        }
        rte_pktmbuf_free(packets[i]);
    }
    return n;
}

// A look costs a system call: paid before each burst of other ports it would be a third of their time.
static uint16_t punt_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct tap *tap = port->own;
    const uint64_t now = rte_rdtsc();
    if (now < tap->look_at)
        return 0;
    const uint16_t got = tap_receive(port, packets, n);
    if (got < n)
        tap->look_at = now + tap->pause;
    return got;
}

static void set_events(struct port *port, uint32_t events)
{
    struct tap *tap = port->own;
    struct epoll_event event = {.events = events};
    epoll_ctl(port->env.epoll_fd, EPOLL_CTL_MOD, tap->fd, &event);
}

static bool tap_arm(struct port *port)
{
    set_events(port, EPOLLIN);
    return true;
}

static void tap_disarm(struct port *port)
{
    set_events(port, 0);
}

static int punt_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const int r = tap_open(port, params, fd, err);
    struct tap *tap = port->own;
    if (!r)
        tap->pause = rte_get_tsc_hz() / 1000000 * PUNT_PAUSE_US;
    return r;
}

static bool punt_arm(struct port *port)
{
    struct tap *tap = port->own;
    tap->look_at = 0; // when it wakes it looks
    return tap_arm(port);
}

static json_t *tap_describe(struct port *port)
{
    const struct tap *tap = port->own;
    return json_pack("{s:s}", "device", tap->device);
}

const struct port_kind port_tap = {
    .name = "tap",
    .open = tap_open,
    .close = tap_close,
    .receive = tap_receive,
    .send = tap_send,
    .arm = tap_arm,
    .disarm = tap_disarm,
    .describe = tap_describe,
};

const struct port_kind port_punt = {
    .name = "punt",
    .open = punt_open,
    .close = tap_close,
    .receive = punt_receive,
    .send = tap_send,
    .arm = punt_arm,
    .disarm = tap_disarm,
    .describe = tap_describe,
};
