// virtio-net (virtio 1.2, section 5.1), the machine's half: registers, notifications, interrupts and the control queue. Frames are
// carried by a router in another process by vhost-user and never pass through here. On the loop's thread.
//
// The device outlives its back end: while that is away the queues stay as they are and frames wait in the guest's memory. Only when
// none comes back for a while is the link told to be down. The next back end knows nothing of where the machine is, so it is
// announced there: by the driver, or in its name.
#include "base/clock.h"
#include "machine/device/virtio_pci.h"
#include "vhost/frontend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CLASS_ETHERNET 0x020000u
#define LINK_DOWN_NS (1 * NS_PER_S) // without a back end
// <linux/virtio_net.h> has a struct of the same name as ours, so its numbers are given here: 5.1.3.
enum {
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_MTU = 3,
    F_MAC = 5,
    F_GUEST_TSO4 = 7,
    F_GUEST_TSO6 = 8,
    F_GUEST_ECN = 9,
    F_GUEST_UFO = 10,
    F_HOST_TSO4 = 11,
    F_HOST_TSO6 = 12,
    F_HOST_ECN = 13,
    F_HOST_UFO = 14,
    F_MRG_RXBUF = 15,
    F_STATUS = 16,
    F_CTRL_VQ = 17,
    F_GUEST_ANNOUNCE = 21,
    F_MQ = 22,
    F_GUEST_USO4 = 54,
    F_GUEST_USO6 = 55,
    F_HOST_USO = 56,
};
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_PAIRS = 8, CONFIG_MTU = 10, CONFIG_BYTES = 12 }; // 5.1.4
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };
enum { CTRL_ANNOUNCE = 3, CTRL_ANNOUNCE_ACK = 0, CTRL_MQ = 4, CTRL_MQ_PAIRS_SET = 0 }; // 5.1.6.5
enum { CTRL_OK = 0, CTRL_ERR = 1 };
enum { CTRL_ROUND = 64 }; // commands; then the loop serves others

#define BIT(feature) (1ull << (feature))
// What this file and the transport know how to pass on; a back end has them or not.
#define PASSED                                                                                                                     \
    (BIT(F_CSUM) | BIT(F_GUEST_CSUM) | BIT(F_GUEST_TSO4) | BIT(F_GUEST_TSO6) | BIT(F_GUEST_ECN) | BIT(F_GUEST_UFO) |               \
     BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6) | BIT(F_HOST_ECN) | BIT(F_HOST_UFO) | BIT(F_MRG_RXBUF) | BIT(F_GUEST_USO4) |              \
     BIT(F_GUEST_USO6) | BIT(F_HOST_USO) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |                       \
     BIT(VIRTIO_F_VERSION_1))
// What is the machine's to do; MTU and MQ beside them where there are such.
#define OWN (BIT(F_MAC) | BIT(F_STATUS) | BIT(F_CTRL_VQ) | BIT(F_GUEST_ANNOUNCE))

#define QUEUES_MAX (2 * VIRTIO_NET_PAIRS_MAX)

struct net_queue { // 5.1.2: of a pair first what the machine receives, then what it sends
    struct virtio_net *net;
    unsigned index;
    int kick_fd, call_fd; // eventfds, for the device's whole life
    struct loop_source *call_source;
};

struct virtio_net {
    struct virtio_net_config config;
    struct vhost_frontend *fe;
    struct virtio_pci *vp;
    unsigned n_pairs;                    // that the device has
    uint16_t n_used;                     // pairs that the driver wants to be served
    struct net_queue queues[QUEUES_MAX]; // 2 * n_pairs
    struct virtqueue control;
    bool is_down;   // no back end for long
    bool is_loaded; // and not thawed yet
    struct loop_source *away_timer;
};

// --- configuration space

static uint16_t status_of(struct virtio_net *net)
{
    uint16_t status;
    virtio_pci_config_get(net->vp, CONFIG_STATUS, &status, sizeof(status));
    return status;
}

static void set_status(struct virtio_net *net, unsigned status, bool tell)
{
    const uint16_t value = (uint16_t)status;
    if (value != status_of(net))
        virtio_pci_config_set(net->vp, CONFIG_STATUS, &value, sizeof(value), tell);
}

// As it is for a new driver.
static void fill_config(struct virtio_net *net)
{
    const uint16_t n_pairs = (uint16_t)net->n_pairs, mtu = net->config.mtu_bytes, status = net->is_down ? 0 : STATUS_LINK_UP;
    virtio_pci_config_set(net->vp, CONFIG_MAC, net->config.mac, sizeof(net->config.mac), false);
    virtio_pci_config_set(net->vp, CONFIG_STATUS, &status, sizeof(status), false);
    virtio_pci_config_set(net->vp, CONFIG_PAIRS, &n_pairs, sizeof(n_pairs), false);
    virtio_pci_config_set(net->vp, CONFIG_MTU, &mtu, sizeof(mtu), false);
}

static bool has(const struct virtio_net *net, unsigned feature)
{
    return virtio_pci_features(net->vp) >> feature & 1;
}

// 5.1.6.5.4. A driver that does not announce itself is announced by the back end, if that can.
static void announce(struct virtio_net *net)
{
    if (!virtio_pci_queue_is_live(net->vp, 1))
        return; // it has nothing to be found for
    if (has(net, F_GUEST_ANNOUNCE))
        set_status(net, status_of(net) | STATUS_ANNOUNCE, true);
    else
        vhost_frontend_send_rarp(net->fe, net->config.mac);
}

// --- the control queue, 5.1.6.5

// 5.1.2: behind all the pairs there are, or behind the first one if the driver does not know of others.
static unsigned control_index(const struct virtio_net *net)
{
    return has(net, F_MQ) ? 2 * net->n_pairs : 2;
}

static void use_pairs(struct virtio_net *net, unsigned n)
{
    net->n_used = (uint16_t)n;
    for (unsigned i = 0; i < 2 * net->n_pairs; i++)
        vhost_frontend_enable_queue(net->fe, i, i < 2 * n);
}

static uint8_t set_pairs(struct virtio_net *net, const struct virtq_chain *chain)
{
    uint8_t bytes[2];
    if (!has(net, F_MQ) || virtq_chain_read(chain, 2, bytes, sizeof(bytes)) != sizeof(bytes))
        return CTRL_ERR;
    const unsigned n = bytes[0] | (unsigned)bytes[1] << 8;
    if (n < 1 || n > net->n_pairs)
        return CTRL_ERR;
    use_pairs(net, n);
    return CTRL_OK;
}

static uint8_t obey(struct virtio_net *net, const struct virtq_chain *chain)
{
    uint8_t head[2]; // class and command
    if (virtq_chain_read(chain, 0, head, sizeof(head)) != sizeof(head))
        return CTRL_ERR;
    if (head[0] == CTRL_MQ && head[1] == CTRL_MQ_PAIRS_SET)
        return set_pairs(net, chain);
    if (head[0] != CTRL_ANNOUNCE || head[1] != CTRL_ANNOUNCE_ACK || !has(net, F_GUEST_ANNOUNCE))
        return CTRL_ERR;
    set_status(net, status_of(net) & ~(unsigned)STATUS_ANNOUNCE, true);
    return CTRL_OK;
}

static void serve_control(struct virtio_net *net)
{
    const unsigned index = control_index(net);
    struct virtq_chain chain;
    unsigned n = 0;
    if (!virtio_pci_queue_is_live(net->vp, index))
        return;
    while (n < CTRL_ROUND && virtqueue_pop(&net->control, &chain) == 1) {
        const uint8_t ack = obey(net, &chain);
        virtqueue_push(&net->control, chain.head, (uint32_t)virtq_chain_write(&chain, 0, &ack, sizeof(ack)));
        n++;
    }
    if (n && virtqueue_needs_call(&net->control))
        virtio_pci_interrupt(net->vp, index);
    if (net->control.broken)
        virtio_pci_needs_reset(net->vp, net->control.why);
    else if (n == CTRL_ROUND)
        virtio_pci_notify_again(net->vp, index);
}

static void notified(void *dev, unsigned index)
{
    struct virtio_net *net = dev;
    if (index == control_index(net))
        serve_control(net);
}

// --- queues

static void called(void *arg, int fd, uint32_t events)
{
    struct net_queue *q = arg;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) == sizeof(count))
        virtio_pci_interrupt(q->net->vp, q->index);
}

static int start_control(struct virtio_net *net, const struct virtio_queue_setup *setup)
{
    virtio_pci_set_notify_fd(net->vp, control_index(net), -1);
    virtio_pci_set_call(net->vp, control_index(net), -1, NULL);
    return virtqueue_start(&net->control, setup->size, setup->desc_addr, setup->avail_addr, setup->used_addr, 0,
                           has(net, VIRTIO_RING_F_EVENT_IDX) ? VIRTQ_EVENT_IDX : 0, NULL);
}

static int start_data(struct virtio_net *net, unsigned index, const struct virtio_queue_setup *setup)
{
    const struct vhost_frontend_queue queue = {.size = setup->size,
                                               .desc_addr = setup->desc_addr,
                                               .avail_addr = setup->avail_addr,
                                               .used_addr = setup->used_addr,
                                               .kick_fd = net->queues[index].kick_fd,
                                               .call_fd = net->queues[index].call_fd,
                                               .disabled = index >= 2u * net->n_used};
    virtio_pci_set_notify_fd(net->vp, index, queue.kick_fd);
    virtio_pci_set_call(net->vp, index, queue.call_fd, net->queues[index].call_source);
    int rc = vhost_frontend_start_queue(net->fe, index, &queue, NULL);
    return rc == -EALREADY ? 0 : rc;
}

static int queue_start(void *dev, unsigned index, const struct virtio_queue_setup *setup)
{
    struct virtio_net *net = dev;
    const unsigned control = control_index(net);
    if (index > control)
        return -EINVAL; // a driver without MQ has no such queue
    return index == control ? start_control(net, setup) : start_data(net, index, setup);
}

static void queue_stop(void *dev, unsigned index)
{
    struct virtio_net *net = dev;
    if (index == control_index(net))
        virtqueue_stop(&net->control);
    else
        vhost_frontend_stop_queue(net->fe, index);
}

// Used buffers may have been given back by a back end that died before it could say so, or before the machine was saved: an
// interrupt too many does no harm.
static void interrupt_all(struct virtio_net *net)
{
    for (unsigned i = 0; i < 2 * net->n_pairs; i++)
        if (virtio_pci_queue_is_live(net->vp, i))
            virtio_pci_interrupt(net->vp, i);
}

// --- life

static int started(void *dev, uint64_t features)
{
    struct virtio_net *net = dev;
    net->n_used = 1; // 5.1.5.2: until the driver says otherwise
    int rc = vhost_frontend_set_features(net->fe, features & vhost_frontend_features(net->fe), NULL);
    return rc != 0 ? rc
                   : vhost_frontend_set_status(net->fe, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                                                            VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void reset(void *dev)
{
    struct virtio_net *net = dev;
    net->n_used = 1;
    vhost_frontend_reset(net->fe);
    if (net->vp)
        fill_config(net);
}

// Saving stopped the queues, and a loaded machine has none running yet: both go on where they stood. Whether there is a link is
// this machine's own to say, and it may be on another host than before.
static int thawed(void *dev, struct tv_error *err)
{
    struct virtio_net *net = dev;
    for (unsigned i = 0; i < 2 * net->n_pairs; i++) {
        if (i == control_index(net) || !virtio_pci_queue_is_live(net->vp, i))
            continue;
        const struct virtio_queue_setup setup = virtio_pci_queue_setup(net->vp, i);
        int rc = start_data(net, i, &setup);
        if (rc != 0)
            return tv_error_set(err, rc, "virtio-net: queue %u cannot go on: %s", i, strerror(-rc));
    }
    interrupt_all(net);
    if (net->is_loaded && vhost_frontend_is_attached(net->fe)) {
        set_status(net, status_of(net) | STATUS_LINK_UP, true);
        announce(net);
    }
    net->is_loaded = false;
    return 0;
}

static void check_loaded(struct virtio_net *net, struct state *s)
{
    uint8_t mac[6];
    uint16_t n_pairs;
    virtio_pci_config_get(net->vp, CONFIG_MAC, mac, sizeof(mac));
    virtio_pci_config_get(net->vp, CONFIG_PAIRS, &n_pairs, sizeof(n_pairs));
    if (n_pairs != net->n_pairs || net->n_used < 1 || net->n_used > n_pairs)
        state_fail(s, "virtio-net: saved with %u of %u pairs of queues in use, the device has %u", net->n_used, n_pairs,
                   net->n_pairs);
    if (memcmp(mac, net->config.mac, sizeof(mac)) != 0)
        state_fail(s, "virtio-net: saved with another MAC address");
    if (net->control.ready != virtio_pci_queue_is_started(net->vp, control_index(net)))
        state_fail(s, "virtio-net: the control queue is started and has no rings, or the other way round");
    net->is_loaded = true;
    if (!state_failed(s))
        return;
    net->n_used = 1;
    virtqueue_stop(&net->control);
}

static int save_or_load(void *dev, struct state *s)
{
    struct virtio_net *net = dev;
    state_section_begin(s, "virtio-net", 1);
    state_u16(s, "n_used", &net->n_used);
    virtqueue_state(&net->control, s);
    if (state_is_loading(s))
        check_loaded(net, s);
    vhost_frontend_state(net->fe, s);
    state_section_end(s);
    return state_failed(s) ? -EINVAL : 0;
}

static void destroy(void *dev)
{
    struct virtio_net *net = dev;
    loop_remove(net->away_timer);
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        loop_remove(net->queues[i].call_source);
    vhost_frontend_destroy(net->fe);
    for (unsigned i = 0; i < QUEUES_MAX; i++) {
        if (net->queues[i].kick_fd >= 0)
            close(net->queues[i].kick_fd);
        if (net->queues[i].call_fd >= 0)
            close(net->queues[i].call_fd);
    }
    free(net);
}

static const struct virtio_ops ops = {.name = "virtio-net",
                                      .device_type = VIRTIO_ID_NET,
                                      .class_code = CLASS_ETHERNET,
                                      .started = started,
                                      .queue_start = queue_start,
                                      .queue_stop = queue_stop,
                                      .notified = notified,
                                      .reset = reset,
                                      .thawed = thawed,
                                      .state = save_or_load,
                                      .destroy = destroy};

static void away_for_long(void *arg)
{
    struct virtio_net *net = arg;
    net->is_down = !vhost_frontend_is_attached(net->fe);
    if (net->is_down)
        set_status(net, status_of(net) & ~(unsigned)STATUS_LINK_UP, true);
}

static void disconnected(void *arg)
{
    struct virtio_net *net = arg;
    loop_set_timer(net->away_timer, LINK_DOWN_NS, 0);
    if (net->config.disconnected)
        net->config.disconnected(net->config.arg);
}

static void queue_broken(void *arg)
{
    struct virtio_net *net = arg;
    if (net->vp)
        virtio_pci_needs_reset(net->vp, "the driver broke the rules of a queue");
}

static int create_queue(struct virtio_net *net, struct net_queue *q, struct tv_error *err)
{
    q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->kick_fd < 0 || q->call_fd < 0)
        return tv_error_set(err, -errno, "virtio-net: cannot make an eventfd: %s", strerror(errno));
    q->call_source = loop_add_fd(net->config.home.loop, q->call_fd, EPOLLIN, called, q, err);
    return q->call_source ? 0 : -ENOMEM;
}

static int create_frontend(struct virtio_net *net, int fd, struct tv_error *err)
{
    const struct vhost_frontend_config config = {.loop = net->config.home.loop,
                                                 .mem = net->config.home.mem,
                                                 .n_queues = 2 * net->config.n_pairs,
                                                 .is_net = true,
                                                 .mtu_bytes = net->config.mtu_bytes,
                                                 .disconnected = disconnected,
                                                 .queue_broken = queue_broken,
                                                 .arg = net};
    net->away_timer = loop_add_timer(net->config.home.loop, away_for_long, net, err);
    net->fe = net->away_timer ? vhost_frontend_create(&config, err) : NULL;
    if (!net->fe) {
        close(fd);
        return -ENOMEM;
    }
    return vhost_frontend_attach(net->fe, fd, err);
}

static uint64_t features_of(struct virtio_net *net)
{
    const uint64_t theirs = vhost_frontend_features(net->fe);
    const unsigned most = vhost_frontend_max_queues(net->fe) / 2;
    net->n_pairs = theirs & BIT(F_MQ) ? most : 1;
    return (theirs & PASSED) | OWN | (net->n_pairs > 1 ? BIT(F_MQ) : 0) | (net->config.mtu_bytes ? BIT(F_MTU) : 0);
}

static int create_device(struct virtio_net *net, struct tv_error *err)
{
    const uint64_t features = features_of(net);
    for (unsigned i = 0; i < 2 * net->n_pairs; i++)
        if (create_queue(net, &net->queues[i], err) != 0)
            return -ENOMEM;
    const struct virtio_pci_config config = {.home = net->config.home,
                                             .ops = &ops,
                                             .dev = net,
                                             .features = features,
                                             .n_queues = 2 * net->n_pairs + 1,
                                             .config_len_bytes = CONFIG_BYTES};
    net->vp = virtio_pci_create(&config, err);
    return net->vp ? 0 : -ENOMEM;
}

struct virtio_net *virtio_net_add(const struct virtio_net_config *config, int fd, struct tv_error *err)
{
    struct virtio_net *net = config->n_pairs >= 1 && config->n_pairs <= VIRTIO_NET_PAIRS_MAX ? calloc(1, sizeof(*net)) : NULL;
    if (!net) {
        close(fd);
        tv_error_set(err, -EINVAL, "a network of %u pairs of queues; 1 to %u can be", config->n_pairs, VIRTIO_NET_PAIRS_MAX);
        return NULL;
    }
    net->config = *config;
    net->n_used = 1;
    virtqueue_init(&net->control, config->home.mem);
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        net->queues[i] = (struct net_queue){.net = net, .index = i, .kick_fd = -1, .call_fd = -1};
    if (create_frontend(net, fd, err) != 0 || create_device(net, err) != 0) {
        destroy(net);
        return NULL;
    }
    fill_config(net);
    return net;
}

int virtio_net_attach(struct virtio_net *net, int fd, struct tv_error *err)
{
    if (vhost_frontend_is_attached(net->fe)) {
        close(fd);
        return tv_error_set(err, -EBUSY, "virtio-net: a back end is attached already");
    }
    int rc = vhost_frontend_attach(net->fe, fd, err);
    if (rc != 0)
        return rc;
    loop_set_timer(net->away_timer, 0, 0);
    net->is_down = false;
    interrupt_all(net);
    set_status(net, status_of(net) | STATUS_LINK_UP, true);
    announce(net);
    return 0;
}

bool virtio_net_is_attached(const struct virtio_net *net)
{
    return vhost_frontend_is_attached(net->fe);
}
