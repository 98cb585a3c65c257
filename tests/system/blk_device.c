// A virtio-blk driver in user space: see blk_device.h.
#include "blk_device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rpc.h"

#define RAM 0x80000000ull
#define QUEUE_BYTES (1u << 20)                // rings, headers and indirect tables of a queue
#define SLOT_BYTES 1024u                      // header at 0, status at 32, indirect table at 64
#define SLOTS_AT (256u << 10)                 // in a queue's memory
#define DATA_STRIDE (BLK_DEVICE_DATA + 4096u) // room to shift
#define QUEUE_DATA ((uint64_t)DATA_STRIDE * BLK_DEVICE_DEPTH)
#define CONFIG_BYTES 60u
#define SEGMENTS 6u              // of data, at most
#define WAIT_NS (200 * NS_PER_S) // a successor waits for what a killed store had with the kernel, on a busy host long

void blk_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("FAIL: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t guest_address(const struct blk_device *dev, const void *host)
{
    return RAM + (uint64_t)((const uint8_t *)host - dev->ram);
}

static uint8_t *slot_memory(const struct blk_io *io)
{
    return io->dev->ram + (uint64_t)io->queue * QUEUE_BYTES + SLOTS_AT + io->slot * SLOT_BYTES;
}

static void read_config(struct blk_device *dev)
{
    struct virtio_blk_config config = {0};
    if (vhost_frontend_config_read(dev->fe, 0, &config, CONFIG_BYTES))
        blk_fail("cannot read the configuration");
    dev->capacity_sectors = config.capacity;
    dev->block_size_bytes = dev->features >> VIRTIO_BLK_F_BLK_SIZE & 1 ? config.blk_size : 512;
}

// ---- connection ----

static bool try_attach(struct blk_device *dev)
{
    struct tv_error err = {0};
    int fd = rpc_connect(dev->path, &err);
    if (fd < 0 || vhost_frontend_attach(dev->fe, fd, &err))
        return false;
    dev->n_attached++;
    return true;
}

static void on_retry(void *arg)
{
    struct blk_device *dev = arg;
    if (vhost_frontend_is_attached(dev->fe) || try_attach(dev))
        loop_set_timer(dev->retry, 0, 0);
}

static void on_disconnected(void *arg)
{
    struct blk_device *dev = arg;
    loop_set_timer(dev->retry, NS_PER_MS, NS_PER_MS);
}

static void on_config_changed(void *arg)
{
    struct blk_device *dev = arg;
    read_config(dev);
    if (dev->resized)
        dev->resized(dev);
}

// ---- requests ----

static unsigned cut_data(const struct blk_io *io, enum blk_cut cut, uint32_t lens[SEGMENTS])
{
    unsigned n = 0;
    uint32_t left = io->len_bytes;
    if (cut == BLK_CUT_NONE || left < 512 * SEGMENTS) {
        lens[n++] = left;
        return left ? n : 0;
    }
    for (uint32_t piece = left / SEGMENTS & ~511u; n < SEGMENTS - 1; n++) {
        lens[n] = cut == BLK_CUT_ODD ? piece - 13 * (n + 1) : piece;
        left -= lens[n];
    }
    lens[n++] = left;
    return n;
}

static void fill_table(const struct blk_queue *q, uint8_t *table, const struct vring_desc *desc, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct vring_packed_desc packed = {
            .addr = desc[i].addr, .len = desc[i].len, .flags = desc[i].flags & VRING_DESC_F_WRITE};
        memcpy(table + 16 * (size_t)i, q->ring.packed ? (const void *)&packed : (const void *)&desc[i], 16);
    }
}

// Header, data and status as descriptors; even slots lay them into the ring, odd ones into an indirect table, if it is negotiated.
void blk_device_submit(struct blk_io *io, enum blk_cut cut)
{
    struct blk_device *dev = io->dev;
    struct blk_queue *q = &dev->queues[io->queue];
    uint8_t *memory = slot_memory(io);
    struct virtio_blk_outhdr header = {.type = io->type, .sector = io->sector};
    memcpy(memory, &header, sizeof(header));
    memory[32] = 0xff;
    bool in = io->type == VIRTIO_BLK_T_IN || io->type == VIRTIO_BLK_T_GET_ID;
    uint32_t lens[SEGMENTS];
    unsigned n_data = cut_data(io, cut, lens), n = 0;
    struct vring_desc desc[SEGMENTS + 2];
    desc[n++] = (struct vring_desc){.addr = guest_address(dev, memory), .len = sizeof(header)};
    uint64_t at = guest_address(dev, io->data) + io->shift;
    for (unsigned i = 0; i < n_data; at += lens[i++])
        desc[n++] = (struct vring_desc){.addr = at, .len = lens[i], .flags = in ? VRING_DESC_F_WRITE : 0};
    desc[n++] = (struct vring_desc){.addr = guest_address(dev, memory + 32), .len = 1, .flags = VRING_DESC_F_WRITE};

    bool indirect = (io->slot & 1) && (dev->features >> VIRTIO_RING_F_INDIRECT_DESC & 1);
    uint16_t head = (uint16_t)(io->slot * (BLK_DEVICE_RING / BLK_DEVICE_DEPTH));
    for (unsigned i = 0; i < n; i++) {
        uint16_t first = indirect ? 0 : head, next = i + 1 < n ? VRING_DESC_F_NEXT : 0;
        desc[i].flags = (uint16_t)(desc[i].flags | next);
        desc[i].next = (uint16_t)(first + i + 1);
        if (!indirect)
            virtq_driver_desc(&q->ring, (uint16_t)(head + i), desc[i].addr, desc[i].len, desc[i].flags, desc[i].next);
    }
    if (indirect) {
        fill_table(q, memory + 64, desc, n);
        virtq_driver_desc(&q->ring, head, guest_address(dev, memory + 64), (uint32_t)(n * sizeof(desc[0])), VRING_DESC_F_INDIRECT,
                          0);
    }
    io->in_flight = true;
    io->started_ns = clock_now_ns();
    q->n_in_flight++;
    dev->n_submitted++;
    virtq_driver_offer(&q->ring, head);
}

void blk_device_kick(struct blk_device *dev, unsigned queue)
{
    struct blk_queue *q = &dev->queues[queue];
    if (virtq_driver_needs_kick(&q->ring))
        eventfd_write(q->kick_fd, 1);
}

struct blk_io *blk_device_get(struct blk_device *dev, unsigned queue)
{
    struct blk_queue *q = &dev->queues[queue];
    struct blk_io *io = q->free;
    if (io)
        q->free = io->next_free;
    return io;
}

static void take_used(struct blk_queue *q)
{
    uint32_t id, len;
    while (virtq_driver_take(&q->ring, &id, &len)) {
        unsigned slot = id / (BLK_DEVICE_RING / BLK_DEVICE_DEPTH);
        if (id % (BLK_DEVICE_RING / BLK_DEVICE_DEPTH) || slot >= BLK_DEVICE_DEPTH)
            blk_fail("a completion of head %" PRIu32 ", which was never offered", id);
        struct blk_io *io = &q->ios[slot];
        if (!io->in_flight)
            blk_fail("a second completion of head %" PRIu32 " (request %" PRIu64 ")", id, io->number);
        io->in_flight = false;
        io->status = slot_memory(io)[32];
        q->n_in_flight--;
        q->dev->n_completed++;
        if (io->status == 0xff)
            blk_fail("request %" PRIu64 " was completed without a status", io->number);
        q->dev->completed(io);
        io->next_free = q->free;
        q->free = io;
    }
}

void blk_device_poll(struct blk_device *dev)
{
    for (unsigned i = 0; i < dev->n_queues; i++) {
        const uint64_t before = dev->n_completed;
        take_used(&dev->queues[i]);
        if (dev->n_completed != before && dev->batch_done)
            dev->batch_done(dev, i);
    }
}

static void on_call(void *arg, int fd, uint32_t events)
{
    struct blk_queue *q = arg;
    eventfd_t count;
    (void)events;
    eventfd_read(fd, &count);
    do {
        take_used(q);
        if (q->dev->batch_done)
            q->dev->batch_done(q->dev, (unsigned)(q - q->dev->queues));
    } while (!q->dev->polls && virtq_driver_calls_on(&q->ring));
}

// ---- set-up ----

static void init_queue(struct blk_device *dev, unsigned index)
{
    struct blk_queue *q = &dev->queues[index];
    struct tv_error err = {0};
    uint8_t *memory = dev->ram + (uint64_t)index * QUEUE_BYTES;
    uint8_t *data = dev->ram + (uint64_t)dev->n_queues * QUEUE_BYTES + index * QUEUE_DATA;
    q->dev = dev;
    void (*init)(struct virtq_driver *, void *, uint64_t, uint16_t, bool) =
        dev->features >> VIRTIO_F_RING_PACKED & 1 ? virtq_driver_init_packed : virtq_driver_init;
    init(&q->ring, memory, guest_address(dev, memory), BLK_DEVICE_RING, dev->features >> VIRTIO_RING_F_EVENT_IDX & 1);
    for (unsigned i = BLK_DEVICE_DEPTH; i-- > 0;) {
        q->ios[i] =
            (struct blk_io){.queue = index, .slot = i, .dev = dev, .data = data + (size_t)i * DATA_STRIDE, .next_free = q->free};
        q->free = &q->ios[i];
    }
    q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->source = loop_add_fd(dev->loop, q->call_fd, EPOLLIN, on_call, q, &err);
    struct vhost_frontend_queue queue = {
        .size = BLK_DEVICE_RING,
        .desc_addr = q->ring.desc_addr,
        .avail_addr = q->ring.avail_addr,
        .used_addr = q->ring.used_addr,
        .kick_fd = q->kick_fd,
        .call_fd = q->call_fd,
    };
    if (!q->source || vhost_frontend_start_queue(dev->fe, index, &queue, &err))
        blk_fail("queue %u: %s", index, err.text);
}

void blk_device_open(struct blk_device *dev, struct loop *loop, const char *path, unsigned n_queues, uint64_t refused)
{
    struct tv_error err = {0};
    uint64_t ram_bytes = n_queues * (QUEUE_BYTES + QUEUE_DATA);
    ram_bytes = (ram_bytes + 4095) & ~4095ull;
    dev->loop = loop;
    dev->path = path;
    dev->n_queues = n_queues;
    guest_memory_init(&dev->mem);
    if (guest_memory_add(&dev->mem, RAM, ram_bytes, guest_ram_create("blk_driver", ram_bytes, &err), 0, 0, &err))
        blk_fail("%s", err.text);
    dev->ram = guest_memory_view(&dev->mem, RAM, ram_bytes);
    // All of it is there, page after page, before anything goes into it: how scattered it is decides how fast a disk is, and is not
    // left to the order in which requests come.
    memset(dev->ram, 0, ram_bytes);
    dev->retry = loop_add_timer(loop, on_retry, dev, &err);
    struct vhost_frontend_config config = {
        .loop = loop,
        .mem = &dev->mem,
        .n_queues = n_queues,
        .config_len_bytes = CONFIG_BYTES,
        .disconnected = on_disconnected,
        .config_changed = on_config_changed,
        .arg = dev,
    };
    dev->fe = vhost_frontend_create(&config, &err);
    if (!dev->fe || !dev->retry)
        blk_fail("%s", err.text);
    for (uint64_t deadline = clock_now_ns() + WAIT_NS; !try_attach(dev);) {
        if (clock_now_ns() > deadline)
            blk_fail("nobody serves %s", path);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    dev->features = vhost_frontend_features(dev->fe) & ~refused;
    if (vhost_frontend_set_features(dev->fe, dev->features, &err))
        blk_fail("%s", err.text);
    read_config(dev);
    for (unsigned i = 0; i < n_queues; i++)
        init_queue(dev, i);
    vhost_frontend_set_status(dev->fe, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
                                           VIRTIO_CONFIG_S_DRIVER_OK);
    for (unsigned i = 0; i < n_queues && !dev->polls; i++)
        virtq_driver_calls_on(&dev->queues[i].ring);
}

void blk_device_close(struct blk_device *dev)
{
    for (unsigned i = 0; i < dev->n_queues; i++)
        vhost_frontend_stop_queue(dev->fe, i);
    vhost_frontend_destroy(dev->fe);
    for (unsigned i = 0; i < dev->n_queues; i++) {
        loop_remove(dev->queues[i].source);
        close(dev->queues[i].kick_fd);
        close(dev->queues[i].call_fd);
    }
    loop_remove(dev->retry);
    guest_memory_fini(&dev->mem);
}

static void on_one_completed(struct blk_io *io)
{
    (void)io;
}

uint8_t blk_device_do(struct blk_device *dev, uint32_t type, uint64_t sector, void *data, uint32_t len_bytes)
{
    struct blk_io *io = blk_device_get(dev, 0);
    if (!dev->completed)
        dev->completed = on_one_completed;
    io->type = type;
    io->sector = sector;
    io->len_bytes = len_bytes;
    io->shift = 0;
    if (len_bytes)
        memcpy(io->data, data, len_bytes);
    blk_device_submit(io, BLK_CUT_NONE);
    blk_device_kick(dev, 0);
    for (uint64_t deadline = clock_now_ns() + WAIT_NS; io->in_flight;) {
        if (clock_now_ns() > deadline)
            blk_fail("no answer to a request of type %" PRIu32 " in 200 s", type);
        loop_run_once(dev->loop, 1000);
    }
    if (len_bytes)
        memcpy(data, io->data, len_bytes);
    return io->status;
}
