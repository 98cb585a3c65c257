// Ports of the kind `vhost`: machines, by vhost-user. A socket is made at the path; a machine that connects has the port, and when
// it goes another one may come.
//
// A machine has one pair of queues or several. It is received from all, in turn; what is for it goes to one by its flow, so that
// the packets of a flow stay in order. In networks of a type that carries such packets a machine may leave checksums and the
// cutting of what TCP sends to others (offload.h).
//
// DPDK's library serves the socket on a thread of its own and tells of machines there; `vid` is how the worker knows. When a
// machine goes, that thread waits until the worker has passed by, and only then takes its memory away.
#include "router/port/port.h"

#include "base/log.h"
#include "base/rpc.h"
#include "router/offload.h"
#include "router/params.h"
#include "router/port/vhost_memory.h"
#include "router/port/vhost_wake.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <rte_ether.h>
#include <rte_vhost.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define NOBODY (-1)
#define PAIRS_MAX 64 // that are served; the library would let a machine have 128

// virtio 1.2, 5.1.2
#define TO_MACHINE(pair) ((uint16_t)(2 * (pair)))
#define FROM_MACHINE(pair) ((uint16_t)(2 * (pair) + 1))

struct vhost {
    struct vhost *next; // in `all`
    struct port *port;
    char path[108];
    bool unsealed;   // memory that can be cut off is taken, too
    _Atomic int vid; // the machine, or NOBODY; written by the library's thread, acquired by the worker
    _Atomic unsigned offloads;
    _Atomic uint64_t to, from; // queues that are ready, a bit a pair; by the library's thread
    int kick_fds[PAIRS_MAX];   // what the machine kicks, in the worker's epoll; NOBODY: none. The library's thread's
    unsigned next_pair;        // the worker's
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

// ---- the library's thread ----

static void unwatch(struct vhost *own, unsigned pair)
{
    if (own->kick_fds[pair] < 0)
        return;
    epoll_ctl(own->port->env.epoll_fd, EPOLL_CTL_DEL, own->kick_fds[pair], NULL);
    close(own->kick_fds[pair]);
    own->kick_fds[pair] = NOBODY;
}

// A copy of the descriptor, since the library closes its own when it likes. Edge-triggered: the counter is never read, each kick is
// an edge.
static void watch(struct vhost *own, int vid, unsigned pair)
{
    struct rte_vhost_vring ring;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    unwatch(own, pair);
    if (rte_vhost_get_vhost_vring(vid, FROM_MACHINE(pair), &ring) || ring.kickfd < 0)
        return;
    own->kick_fds[pair] = dup(ring.kickfd);
    if (own->kick_fds[pair] >= 0 && epoll_ctl(own->port->env.epoll_fd, EPOLL_CTL_ADD, own->kick_fds[pair], &event))
        unwatch(own, pair);
}

// What it can be given with something left to be done.
static unsigned offloads_of(int vid)
{
    uint64_t features = 0;
    rte_vhost_get_negotiated_features(vid, &features);
    return (features >> VIRTIO_NET_F_GUEST_CSUM & 1 ? OFFLOAD_CHECKSUM : 0) |
           (features >> VIRTIO_NET_F_GUEST_TSO4 & 1 ? OFFLOAD_TSO4 : 0) |
           (features >> VIRTIO_NET_F_GUEST_TSO6 & 1 ? OFFLOAD_TSO6 : 0);
}

static int machine_came(int vid)
{
    struct vhost *own = find(vid);
    if (!own)
        return -1;
    atomic_store_explicit(&own->offloads, offloads_of(vid), memory_order_relaxed);
    rte_vhost_enable_guest_notification(vid, TO_MACHINE(0), 0);
    rte_vhost_enable_guest_notification(vid, FROM_MACHINE(0), 1);
    atomic_store_explicit(&own->vid, vid, memory_order_release);
    watch(own, vid, 0); // behind it: a kick that came before is an edge now, and a worker that wakes finds the machine
    log_event(LOG_INFO, "router", "a machine has come", LOG_STR("socket", own->path));
    return 0;
}

static void machine_went(int vid)
{
    struct vhost *own = find(vid);
    if (!own)
        return;
    atomic_store_explicit(&own->vid, NOBODY, memory_order_release);
    for (unsigned i = 0; i < PAIRS_MAX; i++)
        unwatch(own, i);
    rte_rcu_qsbr_synchronize(own->port->env.rcu, RTE_QSBR_THRID_INVALID);
    log_event(LOG_INFO, "router", "a machine has gone", LOG_STR("socket", own->path));
}

// The worker may not see it in time: a queue that is not ready gives nothing and takes nothing. It is told of before the machine
// itself, and while that is there.
static int queue_changed(int vid, uint16_t queue, int enable)
{
    struct vhost *own = find(vid);
    const unsigned pair = queue / 2;
    if (!own || pair >= PAIRS_MAX)
        return 0;
    _Atomic uint64_t *set = queue == TO_MACHINE(pair) ? &own->to : &own->from;
    if (enable)
        atomic_fetch_or_explicit(set, 1ull << pair, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(set, ~(1ull << pair), memory_order_relaxed);
    if (set == &own->from && enable)
        watch(own, vid, pair);
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
    struct vhost *own = find(vid);
    if (own) {
        atomic_store_explicit(&own->to, 0, memory_order_relaxed);
        atomic_store_explicit(&own->from, 0, memory_order_relaxed);
    }
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

// What nobody here does: to keep a mark of congestion (CWR) to the first frame that is cut, which the library does not pass on, and
// to cut UDP into fragments.
static uint64_t features_off(const struct port *port)
{
    static const uint64_t never = 1ull << VIRTIO_NET_F_HOST_ECN | 1ull << VIRTIO_NET_F_HOST_UFO | 1ull << VIRTIO_NET_F_GUEST_ECN |
                                  1ull << VIRTIO_NET_F_GUEST_UFO;
    static const uint64_t sums = 1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM;
    static const uint64_t tso4 = 1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO4;
    static const uint64_t tso6 = 1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_TSO6;
    const unsigned has = port->env.offloads;
    return never | (has & OFFLOAD_CHECKSUM ? 0 : sums) | (has & OFFLOAD_TSO4 ? 0 : tso4) | (has & OFFLOAD_TSO6 ? 0 : tso6);
}

static int serve(struct vhost *own, struct tv_error *err)
{
    // What is left of a router that was killed goes; a socket that is answered does not. Nobody may get through to this one, which is
    // not DPDK's yet.
    const int fd = rpc_bind(own->path, 0600, err);
    if (fd < 0)
        return fd;
    close(fd);
    unlink(own->path);
    if (rte_vhost_driver_register(own->path, RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS))
        return tv_error_set(err, -EADDRINUSE, "socket '%s' cannot be made", own->path);
    if (rte_vhost_driver_disable_features(own->path, features_off(own->port)) ||
        rte_vhost_driver_callback_register(own->path, &device_ops) || rte_vhost_driver_start(own->path)) {
        rte_vhost_driver_unregister(own->path);
        return tv_error_set(err, -EIO, "socket '%s' cannot be served", own->path);
    }
    vhost_wake();
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
    own->vid = NOBODY;
    for (unsigned i = 0; i < PAIRS_MAX; i++)
        own->kick_fds[i] = NOBODY;
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

// ---- worker ----

static uint64_t get_set(const _Atomic uint64_t *set)
{
    return atomic_load_explicit(set, memory_order_relaxed);
}

// What makes no sense goes no further.
static uint16_t take_offloads(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < n; i++) {
        if (!packets[i]->ol_flags || offload_take(packets[i])) {
            packets[kept++] = packets[i];
        } else {
            counter_add(&port->env.counters->dropped[DROP_MALFORMED], 1);
            rte_pktmbuf_free(packets[i]);
        }
    }
    return kept;
}

// From the next pair that has something.
static uint16_t vhost_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    const uint64_t from = vid == NOBODY ? 0 : get_set(&own->from);
    uint16_t got = 0;
    for (uint64_t left = from; left && !got;) {
        const uint64_t later = left & (~0ull << own->next_pair);
        const unsigned pair = (unsigned)__builtin_ctzll(later ? later : left);
        got = rte_vhost_dequeue_burst(vid, FROM_MACHINE(pair), port->env.pool, packets, n);
        own->next_pair = (pair + 1) % PAIRS_MAX;
        left &= ~(1ull << pair);
    }
    return take_offloads(port, packets, got);
}

// The same for all packets of a flow: addresses and, of TCP and UDP in one piece, ports. Nothing hangs on its being good.
static uint32_t flow_of(const struct rte_mbuf *packet)
{
    const uint8_t *frame = rte_pktmbuf_mtod(packet, const uint8_t *);
    const uint32_t len = packet->data_len;
    uint32_t words[9] = {0};
    if (len < 54) // Ethernet and the fixed header of IPv6
        return 0;
    if (frame[12] == 0x08 && frame[13] == 0x00) {
        const uint32_t head = RTE_ETHER_HDR_LEN + (frame[14] & 0xfu) * 4u;
        memcpy(words, frame + 26, 8);
        if (!(frame[20] & 0x3f) && !frame[21] && (frame[23] == 6 || frame[23] == 17) && head + 4 <= len)
            memcpy(words + 8, frame + head, 4);
    } else if (frame[12] == 0x86 && frame[13] == 0xdd) {
        memcpy(words, frame + 22, 32);
        if ((frame[20] == 6 || frame[20] == 17) && len >= 58)
            memcpy(words + 8, frame + 54, 4);
    }
    uint64_t mixed = 0;
    for (unsigned i = 0; i < 9; i++)
        mixed = (mixed ^ words[i]) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(mixed >> 32);
}

// The n-th of the set.
static unsigned pick(uint64_t set, unsigned n)
{
    while (n--)
        set &= set - 1;
    return (unsigned)__builtin_ctzll(set);
}

static void send_to_pair(struct port *port, int vid, unsigned pair, struct rte_mbuf **packets, uint16_t n)
{
    const uint16_t sent = rte_vhost_enqueue_burst(vid, TO_MACHINE(pair), packets, n);
    if (sent < n)
        counter_add(&port->env.counters->dropped[DROP_SEND_FULL], (uint64_t)n - sent);
}

// Runs of one flow's pair go together, in their order.
static uint16_t send_by_flow(struct port *port, int vid, uint64_t to, struct rte_mbuf **packets, uint16_t n)
{
    const unsigned n_pairs = (unsigned)__builtin_popcountll(to);
    unsigned pair = 0;
    uint16_t begin = 0;
    for (uint16_t i = 0; i < n; i++) {
        const unsigned next = pick(to, (unsigned)((uint64_t)flow_of(packets[i]) * n_pairs >> 32));
        if (i > begin && next != pair) {
            send_to_pair(port, vid, pair, packets + begin, i - begin);
            begin = i;
        }
        pair = next;
    }
    send_to_pair(port, vid, pair, packets + begin, n - begin);
    return n;
}

// The library copies; what the machine has no room for is lost to it, as on a wire.
static uint16_t vhost_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    const uint64_t to = vid == NOBODY ? 0 : get_set(&own->to);
    uint16_t sent = 0;
    if (to & (to - 1))
        sent = send_by_flow(port, vid, to, packets, n);
    else if (to)
        sent = rte_vhost_enqueue_burst(vid, TO_MACHINE(__builtin_ctzll(to)), packets, n);
    rte_pktmbuf_free_bulk(packets, sent);
    return sent;
}

static unsigned vhost_offloads(struct port *port)
{
    struct vhost *own = port->own;
    return atomic_load_explicit(&own->offloads, memory_order_relaxed);
}

static bool vhost_arm(struct port *port)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    bool is_empty = true;
    for (uint64_t set = vid == NOBODY ? 0 : get_set(&own->from); set; set &= set - 1) {
        const unsigned pair = (unsigned)__builtin_ctzll(set);
        rte_vhost_enable_guest_notification(vid, FROM_MACHINE(pair), 1);
        is_empty &= !rte_vhost_rx_queue_count(vid, FROM_MACHINE(pair));
    }
    return is_empty;
}

// Room for what it receives is never waited for.
static void vhost_disarm(struct port *port)
{
    struct vhost *own = port->own;
    const int vid = atomic_load_explicit(&own->vid, memory_order_acquire);
    for (uint64_t set = vid == NOBODY ? 0 : get_set(&own->from); set; set &= set - 1)
        rte_vhost_enable_guest_notification(vid, FROM_MACHINE(__builtin_ctzll(set)), 0);
    for (uint64_t set = vid == NOBODY ? 0 : get_set(&own->to) & ~1ull; set; set &= set - 1)
        rte_vhost_enable_guest_notification(vid, TO_MACHINE(__builtin_ctzll(set)), 0);
}

static json_t *vhost_describe(struct port *port)
{
    const struct vhost *own = port->own;
    return json_pack("{s:s, s:b, s:i}", "socket", own->path, "connected", atomic_load(&own->vid) != NOBODY, "queues",
                     __builtin_popcountll(get_set(&own->to)));
}

const struct port_kind port_vhost = {
    .name = "vhost",
    .open = vhost_open,
    .close = vhost_close,
    .receive = vhost_receive,
    .send = vhost_send,
    .offloads = vhost_offloads,
    .arm = vhost_arm,
    .disarm = vhost_disarm,
    .describe = vhost_describe,
};
