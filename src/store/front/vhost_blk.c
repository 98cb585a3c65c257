// The virtio-blk device of a disk: see vhost_blk.h; requests are in vhost_blk_request.c.
#include "store/front/vhost_blk.h"

#include "base/log.h"
#include "store/front/vhost_blk_private.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CONFIG_BYTES 60u // up to and with write_zeroes_may_unmap and its padding (5.2.4)

static uint64_t offered_features(const struct vhost_blk *f)
{
    const struct volume *volume = f->front.disk->volume;
    uint64_t features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY |
                        1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE;
    if (f->n_queues > 1)
        features |= 1ull << VIRTIO_BLK_F_MQ;
    if (volume->read_only)
        return features | 1ull << VIRTIO_BLK_F_RO;
    features |= 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
    if (volume->can_discard)
        features |= 1ull << VIRTIO_BLK_F_DISCARD;
    return features;
}

static uint8_t log2_of(uint32_t value)
{
    uint8_t n = 0;
    while (value >>= 1)
        n++;
    return n;
}

static void config_read(void *arg, uint8_t *bytes)
{
    const struct vhost_blk *f = arg;
    const struct volume *volume = f->front.disk->volume;
    uint32_t ratio = volume->physical_bytes / volume->block_bytes;
    struct virtio_blk_config config = {
        .capacity = htole64(volume->size_bytes / BLK_SECTOR_BYTES),
        .seg_max = htole32(BLK_SEGMENTS_MAX),
        .blk_size = htole32(volume->block_bytes),
        .physical_block_exp = log2_of(ratio),
        .min_io_size = htole16((uint16_t)ratio),
        .wce = f->writeback,
        .num_queues = htole16((uint16_t)f->n_queues),
    };
    if (!volume->read_only) {
        config.max_discard_sectors = config.max_write_zeroes_sectors = htole32(BLK_RANGE_SECTORS_MAX);
        config.max_discard_seg = config.max_write_zeroes_seg = htole32(BLK_RANGES_MAX);
        config.discard_sector_alignment = htole32(volume->physical_bytes / BLK_SECTOR_BYTES);
        config.write_zeroes_may_unmap = volume->can_discard;
    }
    _Static_assert(offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4 == CONFIG_BYTES, "layout of 5.2.4");
    memcpy(bytes, &config, CONFIG_BYTES);
}

// 5.2.5: the driver may write the cache mode alone. It holds for requests that are decoded from then on.
static int config_write(void *arg, uint32_t offset, const uint8_t *bytes, uint32_t len_bytes)
{
    struct vhost_blk *f = arg;
    if (offset != offsetof(struct virtio_blk_config, wce) || len_bytes != 1 || bytes[0] > 1)
        return -EINVAL;
    f->writeback = bytes[0];
    return 0;
}

// ---- the session ----

static void on_connected(void *arg)
{
    struct vhost_blk *f = arg;
    f->writeback = true;
    log_event(LOG_INFO, "store", "front end connected", LOG_STR("disk", f->front.disk->name));
}

static void on_disconnected(void *arg)
{
    struct vhost_blk *f = arg;
    log_event(LOG_INFO, "store", "front end gone", LOG_STR("disk", f->front.disk->name));
}

static void on_started(void *arg, unsigned queue, uint64_t acked)
{
    struct vhost_blk *f = arg;
    f->acked = acked;
    f->started |= 1ull << queue;
}

static void on_stopped(void *arg, unsigned queue)
{
    struct vhost_blk *f = arg;
    f->started &= ~(1ull << queue);
    f->starved &= ~(1ull << queue);
    store_drain(f->front.disk, &f->in_flight[queue]);
}

static void on_kicked(void *arg, unsigned queue)
{
    struct vhost_blk *f = arg;
    vhost_blk_pop(f, queue);
    store_heat(&f->front);
    store_end_batch(f->front.disk->store);
}

static void on_logging(void *arg, bool on)
{
    struct vhost_blk *f = arg;
    f->logs = on;
    log_event(LOG_INFO, "store", on ? "dirty log begins: a migration" : "dirty log ends", LOG_STR("disk", f->front.disk->name));
}

// ---- the front end ----

static bool is_eager(const struct vhost_blk *f)
{
    return f->starved && (f->free || f->n_used < VHOST_BLK_REQUESTS_MAX);
}

static bool front_end_batch(struct disk_front *front)
{
    struct vhost_blk *f = (struct vhost_blk *)front;
    for (uint64_t todo = f->starved; todo; todo &= todo - 1)
        vhost_blk_pop(f, (unsigned)__builtin_ctzll(todo));
    uint64_t todo = f->to_call;
    f->to_call = 0;
    if (todo && f->front.is_hot)
        store_heat(front);
    for (; todo; todo &= todo - 1)
        vhost_backend_call(f->backend, (unsigned)__builtin_ctzll(todo));
    return is_eager(f);
}

static bool front_poll(struct disk_front *front)
{
    struct vhost_blk *f = (struct vhost_blk *)front;
    bool any = false;
    for (uint64_t todo = f->started; todo; todo &= todo - 1)
        any |= vhost_backend_poll(f->backend, (unsigned)__builtin_ctzll(todo));
    return any;
}

static bool front_set_kicks(struct disk_front *front, bool wanted)
{
    struct vhost_blk *f = (struct vhost_blk *)front;
    bool any = false;
    for (uint64_t todo = f->started; todo; todo &= todo - 1)
        any |= vhost_backend_set_kicks(f->backend, (unsigned)__builtin_ctzll(todo), wanted);
    return any;
}

static void front_resized(struct disk_front *front)
{
    struct vhost_blk *f = (struct vhost_blk *)front;
    vhost_backend_config_changed(f->backend);
}

static void front_describe(const struct disk_front *front, json_t *object)
{
    const struct vhost_blk *f = (const struct vhost_blk *)front;
    json_object_set_new(object, "connected", json_boolean(vhost_backend_is_connected(f->backend)));
    json_object_set_new(object, "queues", json_integer((json_int_t)f->n_queues));
}

static void front_destroy(struct disk_front *front)
{
    struct vhost_blk *f = (struct vhost_blk *)front;
    if (f->backend)
        vhost_backend_destroy(f->backend); // stops the queues, and so drains
    disk_detach(front);
    if (f->slots)
        munmap(f->slots, VHOST_BLK_REQUESTS_MAX * sizeof(*f->slots));
    free(f);
}

static const struct disk_front_ops front_ops = {
    .end_batch = front_end_batch,
    .poll = front_poll,
    .set_kicks = front_set_kicks,
    .resized = front_resized,
    .describe = front_describe,
    .destroy = front_destroy,
};

static int init_slots(struct vhost_blk *f, struct tv_error *err)
{
    void *slots = mmap(NULL, VHOST_BLK_REQUESTS_MAX * sizeof(*f->slots), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slots == MAP_FAILED)
        return tv_error_set(err, -errno, "disk '%s': pool of requests: %s", f->front.disk->name, strerror(errno));
    f->slots = slots;
    return 0;
}

int vhost_blk_create(struct disk *disk, unsigned n_queues, int listen_fd, struct tv_error *err)
{
    struct vhost_blk *f = calloc(1, sizeof(*f));
    if (!f) {
        close(listen_fd);
        return tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk->name);
    }
    f->front.ops = &front_ops;
    f->n_queues = n_queues;
    f->writeback = true;
    disk_attach(disk, &f->front);
    int r = init_slots(f, err);
    if (r) {
        close(listen_fd);
        front_destroy(&f->front);
        return r;
    }
    f->ops = (struct vhost_backend_ops){
        .features = offered_features(f),
        .n_queues = n_queues,
        .config_len_bytes = CONFIG_BYTES,
        .config_read = config_read,
        .config_write = config_write,
        .connected = on_connected,
        .disconnected = on_disconnected,
        .started = on_started,
        .stopped = on_stopped,
        .kicked = on_kicked,
        .logging = on_logging,
    };
    struct tv_error own = {0};
    f->backend = vhost_backend_create(disk->store->loop, listen_fd, &f->ops, f, &own);
    if (f->backend)
        return 0;
    front_destroy(&f->front);
    if (err)
        *err = own;
    return own.code;
}
