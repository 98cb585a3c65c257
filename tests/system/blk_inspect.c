// Small looks at a disk: what it says of itself, what it does when it is full or read-only, that it tells of a new size.
#include "blk_driver.h"

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE (64u << 10)

static struct loop *open_device(struct blk_device *dev, const struct blk_options *options)
{
    struct tv_error err = {0};
    struct loop *loop = loop_create(&err);
    if (!loop)
        blk_fail("%s", err.text);
    blk_device_open(dev, loop, options->socket, options->n_queues, options->refused);
    return loop;
}

static unsigned set_write_cache(struct blk_device *dev, uint8_t value)
{
    struct virtio_blk_config config;
    if (vhost_frontend_config_write(dev->fe, offsetof(struct virtio_blk_config, wce), &value, 1) ||
        vhost_frontend_config_read(dev->fe, 0, &config, sizeof(config) < 60 ? sizeof(config) : 60))
        blk_fail("cannot set the cache mode");
    return config.wce;
}

int blk_inspect(const struct blk_options *options)
{
    static struct blk_device dev;
    struct loop *loop = open_device(&dev, options);
    struct virtio_blk_config config = {0};
    char id[21] = "";
    uint8_t sectors[4096] = {0};
    vhost_frontend_config_read(dev.fe, 0, &config, 60);
    uint8_t id_status = blk_device_do(&dev, VIRTIO_BLK_T_GET_ID, 0, id, 20);
    uint8_t read_status = blk_device_do(&dev, VIRTIO_BLK_T_IN, 0, sectors, sizeof(sectors));
    uint8_t write_status = blk_device_do(&dev, VIRTIO_BLK_T_OUT, 0, sectors, sizeof(sectors));
    uint8_t beyond_status = blk_device_do(&dev, VIRTIO_BLK_T_IN, dev.capacity_sectors, sectors, sizeof(sectors));
    uint8_t unknown_status = blk_device_do(&dev, 99, 0, NULL, 0);
    uint8_t flush_status = blk_device_do(&dev, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
    unsigned off = set_write_cache(&dev, 0);
    uint8_t through_status = blk_device_do(&dev, VIRTIO_BLK_T_OUT, 0, sectors, sizeof(sectors));
    unsigned on = set_write_cache(&dev, 1);
    printf("{\"features\": %" PRIu64 ", \"capacity_sectors\": %" PRIu64 ", \"block_size\": %" PRIu32 ", \"physical_exp\": %u, "
           "\"queues\": %u, \"read_only\": %s, \"id\": \"%s\", \"id_status\": %u, \"read\": %u, \"write\": %u, \"beyond\": %u, "
           "\"unknown\": %u, \"flush\": %u, \"write_through\": %u, \"cache_off\": %u, \"cache_on\": %u}\n",
           dev.features, dev.capacity_sectors, dev.block_size_bytes, config.physical_block_exp, config.num_queues,
           dev.features >> VIRTIO_BLK_F_RO & 1 ? "true" : "false", id, id_status, read_status, write_status, beyond_status,
           unknown_status, flush_status, through_status, off, on);
    blk_device_close(&dev);
    loop_destroy(loop);
    return 0;
}

int blk_fill(const struct blk_options *options)
{
    static struct blk_device dev;
    static uint8_t bytes[PIECE], back[PIECE];
    struct loop *loop = open_device(&dev, options);
    uint64_t n = dev.capacity_sectors / (PIECE / 512), n_taken = 0;
    bool *taken = calloc(n, sizeof(*taken));
    for (uint64_t i = 0; i < n; i++) {
        memset(bytes, (int)(i % 251 + 1), PIECE);
        taken[i] = blk_device_do(&dev, VIRTIO_BLK_T_OUT, i * (PIECE / 512), bytes, PIECE) == VIRTIO_BLK_S_OK;
        n_taken += taken[i];
    }
    for (uint64_t i = 0; i < n; i++) {
        memset(bytes, (int)(i % 251 + 1), PIECE);
        if (!taken[i])
            continue;
        if (blk_device_do(&dev, VIRTIO_BLK_T_IN, i * (PIECE / 512), back, PIECE) || memcmp(bytes, back, PIECE))
            blk_fail("piece %" PRIu64 " was taken, and is not there", i);
    }
    printf("{\"pieces\": %" PRIu64 ", \"taken\": %" PRIu64 "}\n", n, n_taken);
    blk_device_close(&dev);
    loop_destroy(loop);
    free(taken);
    return 0;
}

static void tell_size(struct blk_device *dev)
{
    printf("{\"capacity_sectors\": %" PRIu64 "}\n", dev->capacity_sectors);
    fflush(stdout);
}

// Until --requests lines are told.
int blk_resize(const struct blk_options *options)
{
    static struct blk_device dev;
    struct loop *loop = open_device(&dev, options);
    uint8_t sector[4096] = {0};
    uint64_t capacity = dev.capacity_sectors;
    tell_size(&dev);
    for (uint64_t i = 1; i < options->n_requests; i++) {
        while (dev.capacity_sectors == capacity)
            loop_run_once(loop, 1000);
        capacity = dev.capacity_sectors;
        if (blk_device_do(&dev, VIRTIO_BLK_T_OUT, capacity - 8, sector, sizeof(sector)))
            blk_fail("the last block of the new size cannot be written");
        if (!blk_device_do(&dev, VIRTIO_BLK_T_OUT, capacity, sector, sizeof(sector)))
            blk_fail("a block behind the new end can be written");
        tell_size(&dev);
    }
    blk_device_close(&dev);
    loop_destroy(loop);
    return 0;
}

// Switches the write cache off, and asks the back end that comes after this one.
int blk_cache(const struct blk_options *options)
{
    static struct blk_device dev;
    struct loop *loop = open_device(&dev, options);
    struct virtio_blk_config config = {0};
    printf("{\"cache\": %u}\n", set_write_cache(&dev, 0));
    fflush(stdout);
    while (dev.n_attached < 2)
        loop_run_once(loop, 1000);
    vhost_frontend_config_read(dev.fe, 0, &config, 60);
    printf("{\"cache\": %u}\n", config.wce);
    blk_device_close(&dev);
    loop_destroy(loop);
    return 0;
}
