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

void virtq_driver_move(struct virtq_driver *d, void *base)
{
    uint8_t *bytes = base;
    if (d->packed) {
        d->ring = base;
        d->driver_event = (struct vring_packed_desc_event *)(void *)(bytes + avail_offset(d->size));
        d->device_event = d->driver_event + 1;
        return;
    }
    d->desc = base;
    d->avail = (struct vring_avail *)(void *)(bytes + avail_offset(d->size));
    d->used = (struct vring_used *)(void *)(bytes + used_offset(d->size));
}

void virtq_driver_init(struct virtq_driver *d, void *base, uint64_t guest_addr, uint16_t size, bool event_idx)
{
    uint8_t *bytes = base;
    memset(bytes, 0, virtq_driver_bytes(size));
    memset(d, 0, sizeof(*d));
    d->size = size;
    d->event_idx = event_idx;
    d->desc_addr = guest_addr;
    d->avail_addr = guest_addr + avail_offset(size);
    d->used_addr = guest_addr + used_offset(size);
    virtq_driver_move(d, base);
}

void virtq_driver_init_packed(struct virtq_driver *d, void *base, uint64_t guest_addr, uint16_t size, bool event_idx)
{
    uint8_t *bytes = base;
    memset(bytes, 0, virtq_driver_bytes(size));
    memset(d, 0, sizeof(*d));
    d->size = size;
    d->event_idx = event_idx;
    d->packed = d->avail_wrap = d->used_wrap = true;
    d->desc_addr = guest_addr;
    d->avail_addr = guest_addr + avail_offset(size);
    d->used_addr = d->avail_addr + 4;
    virtq_driver_move(d, base);
}

uint32_t virtq_driver_packed_base(const struct virtq_driver *d)
{
    return d->avail_idx | (uint32_t)d->avail_wrap << 15 | (uint32_t)d->last_used << 16 | (uint32_t)d->used_wrap << 31;
}

// ---- packed ----

static void step(const struct virtq_driver *d, uint16_t *index, bool *wrap, uint16_t slots)
{
    for (; slots; slots--) {
        *index = (uint16_t)(*index + 1);
        if (*index == d->size) {
            *index = 0;
            *wrap = !*wrap;
        }
    }
}

static uint16_t flags_in_lap(uint16_t flags, bool wrap)
{
    return (uint16_t)(flags | (wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED));
}

// The first descriptor's flags come last: with them the whole chain is there (2.8.13.3).
static void packed_offer(struct virtq_driver *d, uint16_t head)
{
    struct vring_packed_desc *first = &d->ring[d->avail_idx];
    uint16_t first_flags = 0, n = 0;
    for (uint16_t at = head;; at = d->table[at].next) {
        const struct vring_desc *from = &d->table[at];
        struct vring_packed_desc *to = &d->ring[d->avail_idx];
        const uint16_t flags = flags_in_lap(from->flags, d->avail_wrap);
        to->addr = from->addr;
        to->len = from->len;
        to->id = head;
        if (n)
            to->flags = flags;
        else
            first_flags = flags;
        n++;
        step(d, &d->avail_idx, &d->avail_wrap, 1);
        if (!(from->flags & VRING_DESC_F_NEXT) || n == d->size)
            break;
    }
    d->slots[head] = n;
    d->offered_slots += n;
    __atomic_store_n(&first->flags, first_flags, __ATOMIC_RELEASE);
}

static bool packed_is_used(const struct virtq_driver *d)
{
    const uint16_t flags = __atomic_load_n(&d->ring[d->last_used].flags, __ATOMIC_ACQUIRE);
    return !!(flags & 1u << VRING_PACKED_DESC_F_AVAIL) == d->used_wrap &&
           !!(flags & 1u << VRING_PACKED_DESC_F_USED) == d->used_wrap;
}

static bool packed_take(struct virtq_driver *d, uint32_t *id, uint32_t *len)
{
    if (!packed_is_used(d))
        return false;
    *id = d->ring[d->last_used].id;
    *len = d->ring[d->last_used].len;
    step(d, &d->last_used, &d->used_wrap, d->slots[*id % d->size]);
    return true;
}

static bool packed_needs_kick(struct virtq_driver *d)
{
    const uint16_t flags = __atomic_load_n(&d->device_event->flags, __ATOMIC_RELAXED);
    const uint16_t off_wrap = __atomic_load_n(&d->device_event->off_wrap, __ATOMIC_RELAXED);
    const unsigned offered = d->offered_slots;
    d->offered_slots = 0;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC)
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    // Was the place among those that were offered? Back from where we are.
    uint16_t at = d->avail_idx;
    bool wrap = d->avail_wrap;
    for (unsigned i = 0; i < offered; i++) {
        wrap ^= at == 0;
        at = (uint16_t)(at ? at - 1 : d->size - 1);
        if (off_wrap == (at | (unsigned)wrap << VRING_PACKED_EVENT_F_WRAP_CTR))
            return true;
    }
    return false;
}

static void packed_want_calls(struct virtq_driver *d, uint16_t flags)
{
    d->driver_event->off_wrap = (uint16_t)(d->last_used | (unsigned)d->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
    __atomic_store_n(&d->driver_event->flags, flags, __ATOMIC_RELEASE);
}

// ---- either ----

void virtq_driver_jump(struct virtq_driver *d, uint16_t idx)
{
    d->avail_idx = d->last_used = d->kicked_idx = idx;
    d->avail->idx = d->used->idx = idx;
}

void virtq_driver_desc(struct virtq_driver *d, uint16_t index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    struct vring_desc *table = d->packed ? d->table : d->desc;
    table[index] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

void virtq_driver_offer(struct virtq_driver *d, uint16_t head)
{
    if (d->packed) {
        packed_offer(d, head);
        return;
    }
    d->avail->ring[d->avail_idx % d->size] = head;
    d->avail_idx++;
    __atomic_store_n(&d->avail->idx, d->avail_idx, __ATOMIC_RELEASE);
}

bool virtq_driver_needs_kick(struct virtq_driver *d)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (d->packed)
        return packed_needs_kick(d);
    uint16_t old = d->kicked_idx;
    d->kicked_idx = d->avail_idx;
    if (!d->event_idx)
        return !(__atomic_load_n(&d->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
    uint16_t event = __atomic_load_n((uint16_t *)&d->used->ring[d->size], __ATOMIC_RELAXED);
    return vring_need_event(event, d->avail_idx, old);
}

bool virtq_driver_take(struct virtq_driver *d, uint32_t *id, uint32_t *len)
{
    if (d->packed)
        return packed_take(d, id, len);
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
    if (d->packed)
        packed_want_calls(d, VRING_PACKED_EVENT_FLAG_DISABLE);
    else if (!d->event_idx)
        __atomic_store_n(&d->avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

bool virtq_driver_calls_on(struct virtq_driver *d)
{
    if (d->packed)
        packed_want_calls(d, d->event_idx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_ENABLE);
    else if (d->event_idx)
        __atomic_store_n(&d->avail->ring[d->size], d->last_used, __ATOMIC_RELAXED);
    else
        __atomic_store_n(&d->avail->flags, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return d->packed ? packed_is_used(d) : __atomic_load_n(&d->used->idx, __ATOMIC_ACQUIRE) != d->last_used;
}
