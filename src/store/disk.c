// Disks: the life of a disk and its device. See disk.h; requests are in disk_request.c.
#include "store/disk.h"

#include "base/log.h"
#include "store/disk_request.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CONFIG_BYTES 60u // up to and with write_zeroes_may_unmap and its padding (5.2.4)

static uint64_t offered_features(const struct disk *disk)
{
    uint64_t f = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY |
                 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE;
    if (disk->n_queues > 1)
        f |= 1ull << VIRTIO_BLK_F_MQ;
    if (disk->image.read_only)
        return f | 1ull << VIRTIO_BLK_F_RO;
    f |= 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
    if (disk->image.can_discard)
        f |= 1ull << VIRTIO_BLK_F_DISCARD;
    return f;
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
    const struct disk *disk = arg;
    const struct image *image = &disk->image;
    uint32_t ratio = image->physical_bytes / image->block_size_bytes;
    struct virtio_blk_config config = {
        .capacity = htole64(image->size_bytes / BLK_SECTOR_BYTES),
        .seg_max = htole32(BLK_SEGMENTS_MAX),
        .blk_size = htole32(image->block_size_bytes),
        .physical_block_exp = log2_of(ratio),
        .min_io_size = htole16((uint16_t)ratio),
        .wce = disk->writeback,
        .num_queues = htole16((uint16_t)disk->n_queues),
    };
    if (!image->read_only) {
        config.max_discard_sectors = config.max_write_zeroes_sectors = htole32(BLK_RANGE_SECTORS_MAX);
        config.max_discard_seg = config.max_write_zeroes_seg = htole32(BLK_RANGES_MAX);
        config.discard_sector_alignment = htole32(image->physical_bytes / BLK_SECTOR_BYTES);
        config.write_zeroes_may_unmap = image->can_discard;
    }
    _Static_assert(offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4 == CONFIG_BYTES, "layout of 5.2.4");
    memcpy(bytes, &config, CONFIG_BYTES);
}

// 5.2.5: the driver may write the cache mode alone. It holds for requests that are decoded from then on.
static int config_write(void *arg, uint32_t offset, const uint8_t *bytes, uint32_t len_bytes)
{
    struct disk *disk = arg;
    if (offset != offsetof(struct virtio_blk_config, wce) || len_bytes != 1 || bytes[0] > 1)
        return -EINVAL;
    disk->writeback = bytes[0];
    return 0;
}

static void on_connected(void *arg)
{
    struct disk *disk = arg;
    disk->writeback = true;
    log_event(LOG_INFO, "store", "front end connected", LOG_STR("disk", disk->name));
}

static void on_disconnected(void *arg)
{
    struct disk *disk = arg;
    log_event(LOG_INFO, "store", "front end gone", LOG_STR("disk", disk->name));
}

static void on_started(void *arg, unsigned queue, uint64_t acked)
{
    struct disk *disk = arg;
    disk->acked = acked;
    disk->started |= 1ull << queue;
}

static void on_stopped(void *arg, unsigned queue)
{
    struct disk *disk = arg;
    disk->started &= ~(1ull << queue);
    disk->starved &= ~(1ull << queue);
    store_drain(disk, &disk->in_flight[queue]);
}

static void on_kicked(void *arg, unsigned queue)
{
    struct disk *disk = arg;
    disk_request_pop(disk, queue);
    store_end_batch(disk->store);
}

static int init_pool(struct disk *disk, struct tv_error *err)
{
    void *slots = mmap(NULL, DISK_REQUESTS_MAX * sizeof(struct disk_request), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slots == MAP_FAILED)
        return tv_error_set(err, -errno, "disk '%s': pool of requests: %s", disk->name, strerror(errno));
    disk->slots = slots;
    return 0;
}

static int init_disk(struct disk *disk, const struct disk_config *config, const struct promise_set *promises, struct tv_error *err)
{
    int r = init_pool(disk, err);
    if (!r && !(disk->latency = calloc(1, sizeof(*disk->latency))))
        r = tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk->name);
    if (r)
        return r;
    disk->file = io_add_file(disk->store->io, disk->image.fd, err);
    if (disk->file < 0)
        return disk->file;
    struct dispatcher *d = disk->store->dispatcher;
    disk->queue = d->ops->queue_add(d, config->name, err);
    if (!disk->queue)
        return -ENOMEM;
    return promises_join(disk->store->promises, disk, promises, config->admitted, err);
}

struct disk *disk_create(struct store *store, const struct disk_config *config, const struct promise_set *promises, int image_fd,
                         int listen_fd, struct tv_error *err)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk) {
        close(image_fd);
        close(listen_fd);
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", config->name);
        return NULL;
    }
    disk->store = store;
    disk->file = -1;
    disk->n_queues = config->n_queues;
    disk->writeback = true;
    disk->terms = dispatch_no_terms;
    strcpy(disk->name, config->name); // its length was checked
    const char *serial = config->serial ? config->serial : config->name;
    memcpy(disk->serial, serial, strnlen(serial, sizeof(disk->serial)));
    char label[STORE_NAME_MAX + 8];
    snprintf(label, sizeof(label), "disk '%s'", disk->name);
    struct image_options options = {.read_only = config->read_only, .block_size_bytes = config->block_size_bytes};
    int r = image_init(&disk->image, image_fd, label, &options, err);
    if (!r)
        r = init_disk(disk, config, promises, err);
    if (r) {
        close(listen_fd);
        disk_destroy(disk);
        return NULL;
    }
    disk->ops = (struct vhost_backend_ops){
        .features = offered_features(disk),
        .n_queues = disk->n_queues,
        .config_len_bytes = CONFIG_BYTES,
        .config_read = config_read,
        .config_write = config_write,
        .connected = on_connected,
        .disconnected = on_disconnected,
        .started = on_started,
        .stopped = on_stopped,
        .kicked = on_kicked,
    };
    disk->backend = vhost_backend_create(store->loop, listen_fd, &disk->ops, disk, err);
    if (disk->backend)
        return disk;
    disk_destroy(disk);
    return NULL;
}

void disk_destroy(struct disk *disk)
{
    if (disk->backend)
        vhost_backend_destroy(disk->backend); // stops the queues, and so drains
    store_forget_dirty(disk);
    promises_leave(disk->store->promises, disk);
    struct dispatcher *d = disk->store->dispatcher;
    if (disk->queue)
        d->ops->queue_remove(d, disk->queue);
    if (disk->file >= 0)
        io_remove_file(disk->store->io, disk->file);
    image_fini(&disk->image);
    if (disk->slots)
        munmap(disk->slots, DISK_REQUESTS_MAX * sizeof(struct disk_request));
    free(disk->latency);
    free(disk);
}

int disk_resize(struct disk *disk, uint64_t size_bytes, struct tv_error *err)
{
    // Nothing may be under way past a new, nearer end: a write there would extend the file again.
    store_drain(disk, &disk->n_in_flight);
    uint64_t before = disk->image.size_bytes;
    int r = image_resize(&disk->image, disk->name, size_bytes, err);
    if (r)
        return r;
    log_event(LOG_INFO, "store", "disk resized", LOG_STR("disk", disk->name), LOG_U64("from_bytes", before),
              LOG_U64("to_bytes", disk->image.size_bytes));
    vhost_backend_config_changed(disk->backend);
    return 0;
}
