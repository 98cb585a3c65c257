// The driver's side of a virtqueue, split or packed, written from the specification (virtio 1.2, sections 2.7 and 2.8) for tests
// alone. A packed one is used as if it had a table of descriptors as well: a chain comes into the ring when it is offered, and its
// id is its head. It shares nothing with the code under test but the layout in <linux/virtio_ring.h>. One thread drives a queue.
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
    bool packed;
    struct vring_packed_desc *ring;
    struct vring_packed_desc_event *driver_event, *device_event;
    bool avail_wrap, used_wrap;
    unsigned offered_slots; // since the last question for a kick
    struct vring_desc table[1024];
    uint16_t slots[1024]; // that a chain takes, by its head
};

size_t virtq_driver_bytes(uint16_t size); // of the three areas
// Lays a fresh queue out at `base`, which the guest has at guest_addr (aligned to 16).
void virtq_driver_init(struct virtq_driver *d, void *base, uint64_t guest_addr, uint16_t size, bool event_idx);
void virtq_driver_init_packed(struct virtq_driver *d, void *base, uint64_t guest_addr, uint16_t size, bool event_idx);
void virtq_driver_move(struct virtq_driver *d, void *base);      // its memory is there now
uint32_t virtq_driver_packed_base(const struct virtq_driver *d); // where it stands, as vhost-user has it
void virtq_driver_jump(struct virtq_driver *d, uint16_t idx);    // all indices stand at idx, as after that many requests

void virtq_driver_desc(struct virtq_driver *d, uint16_t index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void virtq_driver_offer(struct virtq_driver *d, uint16_t head);
bool virtq_driver_needs_kick(struct virtq_driver *d); // after one or more offers

bool virtq_driver_take(struct virtq_driver *d, uint32_t *id, uint32_t *len);
void virtq_driver_calls_off(struct virtq_driver *d);
bool virtq_driver_calls_on(struct virtq_driver *d); // true: something came meanwhile
