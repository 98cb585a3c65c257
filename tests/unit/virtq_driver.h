// The driver's side of a split virtqueue, written from the specification (virtio 1.2, section 2.7) for tests alone. It shares
// nothing with the code under test but the layout in <linux/virtio_ring.h>. One thread drives a queue.
#pragma once

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct virtq_driver {
    uint16_t size;
    bool event_idx;
    uint64_t desc_addr, avail_addr, used_addr; // guest-physical
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    uint16_t avail_idx, last_used, kicked_idx;
};

size_t virtq_driver_bytes(uint16_t size); // of the three areas
// Lays a fresh queue out at `base`, which the guest has at guest_addr (aligned to 16).
void virtq_driver_init(struct virtq_driver *d, void *base, uint64_t guest_addr, uint16_t size, bool event_idx);
void virtq_driver_jump(struct virtq_driver *d, uint16_t idx); // all indices stand at idx, as after that many requests

void virtq_driver_desc(struct virtq_driver *d, uint16_t index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void virtq_driver_offer(struct virtq_driver *d, uint16_t head);
bool virtq_driver_needs_kick(struct virtq_driver *d); // after one or more offers

bool virtq_driver_take(struct virtq_driver *d, uint32_t *id, uint32_t *len);
void virtq_driver_calls_off(struct virtq_driver *d);
bool virtq_driver_calls_on(struct virtq_driver *d); // true: something came meanwhile
