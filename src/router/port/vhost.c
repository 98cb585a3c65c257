// Ports of the kind `vhost`: machines, by vhost-user. A socket is made at the path; a machine that connects has the port, and when
// it goes another one may come. One pair of queues, no offloads, so that what comes are frames as they are on a wire.
//
// DPDK's library serves the socket on a thread of its own and tells of machines there; `vid` is how the worker knows. When a
// machine goes, that thread waits until the worker has passed by, and only then takes its memory away.
#include "router/port/port.h"

#include "base/log.h"
#include "base/rpc.h"
#include "router/params.h"
#include "router/port/vhost_memory.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <rte_vhost.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { QUEUE_TO_MACHINE, QUEUE_FROM_MACHINE }; // virtio 1.2, 5.1.2
#define NOBODY (-1)

struct vhost {
    struct vhost *next; // in `all`
    struct port *port;
    char path[108];
    bool unsealed;   // memory that can be cut off is taken, too
    _Atomic int vid; // the machine, or NOBODY; written by the library's thread, acquired by the worker
    int kick_fd;     // what the machine kicks, in the worker's epoll; NOBODY: none. The library's thread's
};

static struct vhost *all;
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

static struct vhost *find(int vid)
{
    char path[108] = "";
    if (rte_vhost_get_ifname(vid, path, sizeof(path)))
        return NULL;
    pthread_mutex_lock(&all_lock);
    struct vhost *own = all;
    while (own && strcmp(own->path, path))
        own = own->next;
    pthread_mutex_unlock(&all_lock);
    return own;
}

static void unwatch(struct vhost *own)
{
    if (own->kick_fd < 0)
        return;
    epoll_ctl(own->port->env.epoll_fd, EPOLL_CTL_DEL, own->kick_fd, NULL);
    close(own->kick_fd);
    own->kick_fd = NOBODY;
}

// A copy of the descriptor, since the library closes its own when it likes. Edge-triggered: the counter is never read, each kick is
// an edge.
static void watch(struct vhost *own, int vid)
{
    struct rte_vhost_vring ring;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    unwatch(own);
    if (rte_vhost_get_vhost_vring(vid, QUEUE_FROM_MACHINE, &ring) || ring.kickfd < 0)
        return;
    own->kick_fd = dup(ring.kickfd);
    if (own->kick_fd >= 0 && epoll_ctl(own->port->env.epoll_fd, EPOLL_CTL_ADD, own->kick_fd, &event))
        unwatch(own);
}

static int machine_came(int vid)
{
    struct vhost *own = find(vid);
    if (!own)
        return -1;
    rte_vhost_enable_guest_notification(vid, QUEUE_TO_MACHINE, 0);
    rte_vhost_enable_guest_notification(vid, QUEUE_FROM_MACHINE, 1);
    watch(own, vid);
    atomic_store_explicit(&own->vid, vid, memory_order_release);
    log_event(LOG_INFO, "router", "a machine has come", LOG_STR("socket", own->path));
    return 0;
}

static void machine_went(int vid)
{
    struct vhost *own = find(vid);
    if (!own)
        return;
    atomic_store_explicit(&own->vid, NOBODY, memory_order_release);
    unwatch(own);
    rte_rcu_qsbr_synchronize(own->port->env.rcu, RTE_QSBR_THRID_INVALID);
    log_event(LOG_INFO, "router", "a machine has gone", LOG_STR("socket", own->path));
}

static int queue_changed(int vid, uint16_t queue, int enable)
{
    struct vhost *own = find(vid);
    if (own && queue == QUEUE_FROM_MACHINE && enable)
        watch(own, vid);
    return 0;
}

static enum rte_vhost_msg_result check_message(int vid, void *message)
{
    struct vhost *own = find(vid);
    return !own || vhost_memory_refuses(message, own->path, own->unsealed) ? RTE_VHOST_MSG_RESULT_ERR
                                                                           : RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

// Before the first message.
static int connected(int vid)
{
    static const struct rte_vhost_user_extern_ops checks = {.pre_msg_handle = check_message};
    return rte_vhost_extern_callback_register(vid, &checks, NULL);
}

static const struct rte_vhost_device_ops device_ops = {
    .new_connection = connected,
    .new_device = machine_came,
    .destroy_device = machine_went,
    .vring_state_changed = queue_changed,
};

static void leave(struct vhost *own)
{
    pthread_mutex_lock(&all_lock);
    struct vhost **at = &all;
    while (*at != own)
        at = &(*at)->next;
    *at = own->next;
    pthread_mutex_unlock(&all_lock);
}

static void vhost_close(struct port *port)
{
    struct vhost *own = port->own;
    rte_vhost_driver_unregister(own->path); // with machine_went(), if there is one
    leave(own);
    free(own);
}

static int serve(struct vhost *own, struct tv_error *err)
{
    static const uint64_t off = 1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_HOST_TSO4 |
                                1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_HOST_ECN | 1ull << VIRTIO_NET_F_HOST_UFO |
                                1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN |
                                1ull << VIRTIO_NET_F_GUEST_UFO | 1ull << VIRTIO_NET_F_MQ;
    // What is left of a router that was killed goes; a socket that is answered does not.
    const int fd = rpc_listen(own->path, 0600, err);
    if (fd < 0)
        return fd;
    close(fd);
    unlink(own->path);
    if (rte_vhost_driver_register(own->path, RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS))
        return tv_error_set(err, -EADDRINUSE, "socket '%s' cannot be made", own->path);
    if (rte_vhost_driver_disable_features(own->path, off) || rte_vhost_driver_callback_register(own->path, &device_ops) ||
        rte_vhost_driver_start(own->path)) {
        rte_vhost_driver_unregister(own->path);
        return tv_error_set(err, -EIO, "socket '%s' cannot be served", own->path);
    }
    return 0;
}

static int vhost_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    const char *path;
    const json_t *unsealed = json_object_get(params, "unsealed");
    (void)fd;
    if (params_get_string(params, "socket", NULL, &path, err))
        return -EINVAL;
    if (unsealed && !json_is_boolean(unsealed))
        return tv_error_set(err, -EINVAL, "\"unsealed\" must be true or false");
    struct vhost *own = port->own = calloc(1, sizeof(*own));
    if (!own)
        return tv_error_set(err, -ENOMEM, "out of memory");
    own->port = port;
    own->unsealed = json_is_true(unsealed);
    own->vid = own->kick_fd = NOBODY;
    if (!*path || strlen(path) >= sizeof(own->path)) {
        free(own);
        return tv_error_set(err, -EINVAL, "socket '%s': a path has 1 to %zu characters", path, sizeof(own->path) - 1);
    }
    strcpy(own->path, path);
    pthread_mutex_lock(&all_lock);
    own->next = all;
    all = own;
    pthread_mutex_unlock(&all_lock);
    int r = serve(own, err);
    if (r) {
        leave(own);
        free(own);
    }
    return r;
}

static uint16_t vhost_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    return vid == NOBODY ? 0 : rte_vhost_dequeue_burst(vid, QUEUE_FROM_MACHINE, port->env.pool, packets, n);
}

// The library copies; what the machine has no room for is lost to it, as on a wire.
static uint16_t vhost_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    const uint16_t sent = vid == NOBODY ? 0 : rte_vhost_enqueue_burst(vid, QUEUE_TO_MACHINE, packets, n);
    rte_pktmbuf_free_bulk(packets, sent);
    return sent;
}

static bool vhost_arm(struct port *port)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    if (vid == NOBODY)
        return true;
    rte_vhost_enable_guest_notification(vid, QUEUE_FROM_MACHINE, 1);
    return !rte_vhost_rx_queue_count(vid, QUEUE_FROM_MACHINE);
}

static void vhost_disarm(struct port *port)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    if (vid != NOBODY)
        rte_vhost_enable_guest_notification(vid, QUEUE_FROM_MACHINE, 0);
}

static json_t *vhost_describe(struct port *port)
{
    struct vhost *own = port->own;
    return json_pack("{s:s, s:b}", "socket", own->path, "connected", atomic_load(&own->vid) != NOBODY);
}

const struct port_kind port_vhost = {
    .name = "vhost",
    .open = vhost_open,
    .close = vhost_close,
    .receive = vhost_receive,
    .send = vhost_send,
    .arm = vhost_arm,
    .disarm = vhost_disarm,
    .describe = vhost_describe,
};
