// A virtio-blk driver in user space, over the front end of src/vhost: for system tests and benchmarks of anything that serves
// vhost-user-blk. It goes on when the back end dies and comes again: it connects anew by the socket's path.
//
// One thread: the loop's. A used entry that answers nothing in flight, or answers twice, ends the program: that is what it looks
// for.
#pragma once

#include "base/loop.h"
#include "vhost/frontend.h"
#include "virtq_driver.h"

#define BLK_DEVICE_QUEUES 8
#define BLK_DEVICE_DEPTH 32          // requests in flight a queue
#define BLK_DEVICE_DATA (256u << 10) // most data of a request
#define BLK_DEVICE_RING 256          // descriptors: BLK_DEVICE_DEPTH chains of up to 8

enum blk_cut { BLK_CUT_NONE, BLK_CUT_EVEN, BLK_CUT_ODD }; // how data is cut into segments; ODD: at no block's border

struct blk_io {
    unsigned queue, slot;
    bool in_flight;
    uint32_t type;
    uint64_t sector, number, started_ns;
    uint32_t len_bytes, shift; // data starts `shift` bytes into its memory: not aligned then
    uint8_t status;
    uint8_t *data;
    struct blk_device *dev;
    struct blk_io *next_free;
};

struct blk_queue {
    struct blk_device *dev;
    struct virtq_driver ring;
    int kick_fd, call_fd;
    struct loop_source *source;
    struct blk_io ios[BLK_DEVICE_DEPTH], *free;
    unsigned n_in_flight;
};

struct blk_device {
    struct loop *loop;
    const char *path;
    struct vhost_frontend *fe;
    struct guest_memory mem;
    uint8_t *ram;
    unsigned n_queues;
    struct blk_queue queues[BLK_DEVICE_QUEUES];
    bool polls; // wants no calls; blk_device_poll() looks
    uint64_t features, capacity_sectors;
    uint32_t block_size_bytes;
    uint64_t n_submitted, n_completed, n_attached;
    struct loop_source *retry;
    void (*completed)(struct blk_io *io);                       // the io is free after it
    void (*batch_done)(struct blk_device *dev, unsigned queue); // refill; may be NULL
    void (*resized)(struct blk_device *dev);                    // may be NULL
    void *arg;
};

// `refused`: features not to acknowledge. The program ends with a message when the device cannot be had within 30 s.
void blk_device_open(struct blk_device *dev, struct loop *loop, const char *path, unsigned n_queues, uint64_t refused);
void blk_device_close(struct blk_device *dev);

struct blk_io *blk_device_get(struct blk_device *dev, unsigned queue); // NULL: all in flight. To be submitted, always
// Offers the request: type, sector, len_bytes, shift and data (at io->data + io->shift) are set. For len_bytes of out or in data.
void blk_device_submit(struct blk_io *io, enum blk_cut cut);
void blk_device_kick(struct blk_device *dev, unsigned queue);
void blk_device_poll(struct blk_device *dev); // takes what is done, and has batch_done called for it
// One request and its answer; only while nothing else is in flight. Copies data both ways. Its status.
uint8_t blk_device_do(struct blk_device *dev, uint32_t type, uint64_t sector, void *data, uint32_t len_bytes);

void blk_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
