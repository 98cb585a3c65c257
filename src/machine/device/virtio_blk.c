// virtio-blk (virtio 1.2, section 5.2), the machine's half: registers, notifications and interrupts. The requests are served by a
// store in another process by vhost-user and never pass through here. On the loop's thread.
//
// The device outlives its back end: while that is away the queues stay as they are, the guest's requests wait in its memory, and
// the next back end takes them up.
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

#define CLASS_STORAGE 0x018000u
// <linux/virtio_blk.h> has a struct of the same name as ours, so its numbers are given here: 5.2.3, 5.2.4.
enum { CONFIG_WCE = 32, CONFIG_QUEUES = 34, CONFIG_BYTES = 60 }; // up to write_zeroes_may_unmap and its padding
enum {
    F_SIZE_MAX = 1,
    F_SEG_MAX = 2,
    F_GEOMETRY = 4,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_TOPOLOGY = 10,
    F_CONFIG_WCE = 11,
    F_MQ = 12,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14,
};

// What the transport and this file know how to pass on.
#define FEATURES                                                                                                                   \
    (1ull << F_SIZE_MAX | 1ull << F_SEG_MAX | 1ull << F_GEOMETRY | 1ull << F_RO | 1ull << F_BLK_SIZE | 1ull << F_FLUSH |           \
     1ull << F_TOPOLOGY | 1ull << F_CONFIG_WCE | 1ull << F_MQ | 1ull << F_DISCARD | 1ull << F_WRITE_ZEROES |                       \
     1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_F_VERSION_1 |                          \
     1ull << VIRTIO_F_RING_PACKED)

struct blk_queue {
    struct virtio_blk *blk;
    unsigned index;
    int kick_fd, call_fd; // eventfds, for the device's whole life
    struct loop_source *call_source;
};

struct virtio_blk {
    struct virtio_blk_config config;
    struct vhost_frontend *fe;
    struct virtio_pci *vp;
    unsigned n_queues;
    struct blk_queue queues[VIRTIO_BLK_QUEUES_MAX];
};

// --- configuration space

// As the back end has it, but with our number of queues.
static int fetch_config(struct virtio_blk *blk, bool tell)
{
    uint8_t space[CONFIG_BYTES];
    int rc = vhost_frontend_config_read(blk->fe, 0, space, sizeof(space));
    if (rc != 0)
        return rc;
    const uint16_t n_queues = (uint16_t)blk->n_queues;
    memcpy(space + CONFIG_QUEUES, &n_queues, sizeof(n_queues));
    virtio_pci_config_set(blk->vp, 0, space, sizeof(space), tell);
    return 0;
}

static void config_changed(void *arg)
{
    struct virtio_blk *blk = arg;
    if (blk->vp)
        fetch_config(blk, true);
}

// 5.2.4: the driver may write the cache mode. The front end tells it to each back end that comes later, too.
static void config_written(void *dev, uint32_t offset, uint32_t len_bytes)
{
    struct virtio_blk *blk = dev;
    uint8_t bytes[CONFIG_BYTES];
    virtio_pci_config_get(blk->vp, offset, bytes, len_bytes);
    if (vhost_frontend_config_write(blk->fe, offset, bytes, len_bytes) != 0)
        fetch_config(blk, true); // the driver reads what holds
}

// --- queues

static void called(void *arg, int fd, uint32_t events)
{
    struct blk_queue *q = arg;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof(count)) == sizeof(count))
        virtio_pci_interrupt(q->blk->vp, q->index);
}

static int queue_start(void *dev, unsigned index, const struct virtio_queue_setup *setup)
{
    struct virtio_blk *blk = dev;
    const struct vhost_frontend_queue queue = {.size = setup->size,
                                               .desc_addr = setup->desc_addr,
                                               .avail_addr = setup->avail_addr,
                                               .used_addr = setup->used_addr,
                                               .kick_fd = blk->queues[index].kick_fd,
                                               .call_fd = blk->queues[index].call_fd};
    int rc = vhost_frontend_start_queue(blk->fe, index, &queue, NULL);
    return rc == -EALREADY ? 0 : rc;
}

static void queue_stop(void *dev, unsigned index)
{
    struct virtio_blk *blk = dev;
    vhost_frontend_stop_queue(blk->fe, index);
}

// Used buffers may have been given back by a back end that died before it could say so, or before the machine was saved: an
// interrupt too many does no harm.
static void interrupt_all(struct virtio_blk *blk)
{
    for (unsigned i = 0; i < blk->n_queues; i++)
        if (virtio_pci_queue_is_live(blk->vp, i))
            virtio_pci_interrupt(blk->vp, i);
}

// --- life

static int started(void *dev, uint64_t features)
{
    struct virtio_blk *blk = dev;
    int rc = vhost_frontend_set_features(blk->fe, features, NULL);
    return rc != 0 ? rc
                   : vhost_frontend_set_status(blk->fe, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                                                            VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void reset(void *dev)
{
    struct virtio_blk *blk = dev;
    vhost_frontend_reset(blk->fe);
}

// Saving stopped the queues, and a loaded machine has none running yet: both go on where they stood.
static int thawed(void *dev, struct tv_error *err)
{
    struct virtio_blk *blk = dev;
    for (unsigned i = 0; i < blk->n_queues; i++) {
        if (!virtio_pci_queue_is_live(blk->vp, i))
            continue;
        const struct virtio_queue_setup setup = virtio_pci_queue_setup(blk->vp, i);
        int rc = queue_start(blk, i, &setup);
        if (rc != 0)
            return tv_error_set(err, rc, "virtio-blk: queue %u cannot go on: %s", i, strerror(-rc));
    }
    interrupt_all(blk);
    return 0;
}

static int save_or_load(void *dev, struct state *s)
{
    struct virtio_blk *blk = dev;
    int rc = vhost_frontend_state(blk->fe, s);
    return rc != 0 || state_failed(s) ? -EINVAL : 0;
}

static void destroy(void *dev)
{
    struct virtio_blk *blk = dev;
    for (unsigned i = 0; i < VIRTIO_BLK_QUEUES_MAX; i++)
        loop_remove(blk->queues[i].call_source);
    vhost_frontend_destroy(blk->fe);
    for (unsigned i = 0; i < VIRTIO_BLK_QUEUES_MAX; i++) {
        if (blk->queues[i].kick_fd >= 0)
            close(blk->queues[i].kick_fd);
        if (blk->queues[i].call_fd >= 0)
            close(blk->queues[i].call_fd);
    }
    free(blk);
}

static const struct virtio_ops ops = {.name = "virtio-blk",
                                      .device_type = VIRTIO_ID_BLOCK,
                                      .class_code = CLASS_STORAGE,
                                      .started = started,
                                      .queue_start = queue_start,
                                      .queue_stop = queue_stop,
                                      .config_written = config_written,
                                      .reset = reset,
                                      .thawed = thawed,
                                      .state = save_or_load,
                                      .destroy = destroy};

static void disconnected(void *arg)
{
    struct virtio_blk *blk = arg;
    if (blk->config.disconnected)
        blk->config.disconnected(blk->config.arg);
}

static void queue_broken(void *arg)
{
    struct virtio_blk *blk = arg;
    if (blk->vp)
        virtio_pci_needs_reset(blk->vp, "the driver broke the rules of a queue");
}

static int create_queue(struct virtio_blk *blk, struct blk_queue *q, struct tv_error *err)
{
    q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->kick_fd < 0 || q->call_fd < 0)
        return tv_error_set(err, -errno, "virtio-blk: cannot make an eventfd: %s", strerror(errno));
    q->call_source = loop_add_fd(blk->config.home.loop, q->call_fd, EPOLLIN, called, q, err);
    return q->call_source ? 0 : -ENOMEM;
}

static int create_frontend(struct virtio_blk *blk, int fd, struct tv_error *err)
{
    const struct vhost_frontend_config config = {.loop = blk->config.home.loop,
                                                 .mem = blk->config.home.mem,
                                                 .n_queues = blk->config.n_queues,
                                                 .config_len_bytes = CONFIG_BYTES,
                                                 .disconnected = disconnected,
                                                 .config_changed = config_changed,
                                                 .queue_broken = queue_broken,
                                                 .arg = blk};
    blk->fe = vhost_frontend_create(&config, err);
    if (!blk->fe) {
        close(fd);
        return -ENOMEM;
    }
    return vhost_frontend_attach(blk->fe, fd, err);
}

static int create_device(struct virtio_blk *blk, struct tv_error *err)
{
    uint8_t space[CONFIG_BYTES];
    if (vhost_frontend_config_read(blk->fe, 0, space, sizeof(space)) != 0)
        return tv_error_set(err, -EPROTO, "virtio-blk: the back end does not tell its configuration");
    uint64_t features = vhost_frontend_features(blk->fe) & FEATURES;
    unsigned most = vhost_frontend_max_queues(blk->fe);
    blk->n_queues = !(features >> F_MQ & 1) ? 1 : most < blk->config.n_queues ? most : blk->config.n_queues;
    for (unsigned i = 0; i < blk->n_queues; i++)
        if (create_queue(blk, &blk->queues[i], err) != 0)
            return -ENOMEM;
    const struct virtio_pci_config config = {.home = blk->config.home,
                                             .ops = &ops,
                                             .dev = blk,
                                             .features = features,
                                             .n_queues = blk->n_queues,
                                             .config_len_bytes = CONFIG_BYTES};
    blk->vp = virtio_pci_create(&config, err);
    if (!blk->vp)
        return -ENOMEM;
    for (unsigned i = 0; i < blk->n_queues; i++) {
        virtio_pci_set_notify_fd(blk->vp, i, blk->queues[i].kick_fd);
        virtio_pci_set_call(blk->vp, i, blk->queues[i].call_fd, blk->queues[i].call_source);
    }
    if (features >> F_CONFIG_WCE & 1)
        virtio_pci_config_writable(blk->vp, CONFIG_WCE, 1);
    return 0;
}

struct virtio_blk *virtio_blk_add(const struct virtio_blk_config *config, int fd, struct tv_error *err)
{
    struct virtio_blk *blk = config->n_queues >= 1 && config->n_queues <= VIRTIO_BLK_QUEUES_MAX ? calloc(1, sizeof(*blk)) : NULL;
    if (!blk) {
        close(fd);
        tv_error_set(err, -EINVAL, "a disk of %u queues; 1 to %u can be", config->n_queues, VIRTIO_BLK_QUEUES_MAX);
        return NULL;
    }
    blk->config = *config;
    for (unsigned i = 0; i < VIRTIO_BLK_QUEUES_MAX; i++)
        blk->queues[i] = (struct blk_queue){.blk = blk, .index = i, .kick_fd = -1, .call_fd = -1};
    if (create_frontend(blk, fd, err) != 0 || create_device(blk, err) != 0) {
        destroy(blk);
        return NULL;
    }
    fetch_config(blk, false);
    return blk;
}

int virtio_blk_attach(struct virtio_blk *blk, int fd, struct tv_error *err)
{
    if (vhost_frontend_is_attached(blk->fe)) {
        close(fd);
        return tv_error_set(err, -EBUSY, "virtio-blk: a back end is attached already");
    }
    int rc = vhost_frontend_attach(blk->fe, fd, err);
    if (rc == 0)
        interrupt_all(blk);
    return rc;
}

bool virtio_blk_is_attached(const struct virtio_blk *blk)
{
    return vhost_frontend_is_attached(blk->fe);
}
