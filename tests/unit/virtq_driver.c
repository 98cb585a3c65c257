// See virtq_driver.h.
#include "virtq_driver.h"

#include <string.h>

static size_t avail_offset(uint16_t size)
{
    return 16u * size;
}

static size_t used_offset(uint16_t size)
{
    return (avail_offset(size) + 6 + 2u * size + 3) & ~(size_t)3;
}

size_t virtq_driver_bytes(uint16_t size)
{
    return used_offset(size) + 6 + 8u * size;
}

void virtq_driver_init(struct virtq_driver *d, void *base, uint64_t guest_addr, uint16_t size, bool event_idx)
{
    uint8_t *bytes = base;
    memset(bytes, 0, virtq_driver_bytes(size));
    *d = (struct virtq_driver){.size = size,
                               .event_idx = event_idx,
                               .desc_addr = guest_addr,
                               .avail_addr = guest_addr + avail_offset(size),
                               .used_addr = guest_addr + used_offset(size),
                               .desc = base,
                               .avail = (struct vring_avail *)(void *)(bytes + avail_offset(size)),
                               .used = (struct vring_used *)(void *)(bytes + used_offset(size))};
}

void virtq_driver_jump(struct virtq_driver *d, uint16_t idx)
{
    d->avail_idx = d->last_used = d->kicked_idx = idx;
    d->avail->idx = d->used->idx = idx;
}

void virtq_driver_desc(struct virtq_driver *d, uint16_t index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    d->desc[index] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

void virtq_driver_offer(struct virtq_driver *d, uint16_t head)
{
    d->avail->ring[d->avail_idx % d->size] = head;
    d->avail_idx++;
    __atomic_store_n(&d->avail->idx, d->avail_idx, __ATOMIC_RELEASE);
}

bool virtq_driver_needs_kick(struct virtq_driver *d)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t old = d->kicked_idx;
    d->kicked_idx = d->avail_idx;
    if (!d->event_idx)
        return !(__atomic_load_n(&d->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
    uint16_t event = __atomic_load_n((uint16_t *)&d->used->ring[d->size], __ATOMIC_RELAXED);
    return vring_need_event(event, d->avail_idx, old);
}

bool virtq_driver_take(struct virtq_driver *d, uint32_t *id, uint32_t *len)
{
    if (__atomic_load_n(&d->used->idx, __ATOMIC_ACQUIRE) == d->last_used)
        return false;
    const struct vring_used_elem *elem = &d->used->ring[d->last_used % d->size];
    *id = elem->id;
    *len = elem->len;
    d->last_used++;
    return true;
}

void virtq_driver_calls_off(struct virtq_driver *d)
{
    if (!d->event_idx)
        __atomic_store_n(&d->avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

bool virtq_driver_calls_on(struct virtq_driver *d)
{
    if (d->event_idx)
        __atomic_store_n(&d->avail->ring[d->size], d->last_used, __ATOMIC_RELAXED);
    else
        __atomic_store_n(&d->avail->flags, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&d->used->idx, __ATOMIC_ACQUIRE) != d->last_used;
}
