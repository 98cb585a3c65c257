// The device's side of a packed virtqueue (virtio 1.2, section 2.8): one ring of descriptors, in which the driver makes buffers
// available and the device overwrites them with what it has used. One thread a queue; the driver runs on others.
//
// Every field in guest memory is read by exactly one load into a local. Multi-byte fields are little-endian.
#include "vhost/virtqueue_internal.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED (1u << VRING_PACKED_DESC_F_USED)

int packed_set_base(struct virtqueue *vq, uint32_t base, struct tv_error *err)
{
    vq->last_avail = base & 0x7fff;
    vq->avail_wrap = base >> 15 & 1;
    vq->used_idx = base >> 16 & 0x7fff;
    vq->used_wrap = base >> 31;
    if (vq->last_avail >= vq->size || vq->used_idx >= vq->size)
        return tv_error_set(err, -EINVAL, "virtqueue: it cannot go on at 0x%x, it has %u descriptors", base, vq->size);
    return 0;
}

static void move_on(const struct virtqueue *vq, uint16_t *index, bool *wrap, uint16_t slots)
{
    const uint32_t to = (uint32_t)*index + slots;
    *wrap ^= to >= vq->size;
    *index = (uint16_t)(to >= vq->size ? to - vq->size : to);
}

// 2.8.1: available is what has the driver's wrap counter in one bit and its inverse in the other. Acquire pairs with the driver's
// write barrier before it stores the flags of a chain's first descriptor: the rest of the chain is visible after it.
bool packed_is_available(const struct virtqueue *vq)
{
    const uint16_t flags = le16toh(__atomic_load_n(&vq->ring[vq->last_avail].flags, __ATOMIC_ACQUIRE));
    return !!(flags & AVAIL) == vq->avail_wrap && !!(flags & USED) != vq->avail_wrap;
}

static struct vring_packed_desc read_desc(const uint8_t *at)
{
    struct vring_packed_desc desc;
    memcpy(&desc, at, sizeof(desc));
    __asm__ volatile("" ::: "memory");
    desc.addr = le64toh(desc.addr);
    desc.len = le32toh(desc.len);
    desc.id = le16toh(desc.id);
    desc.flags = le16toh(desc.flags);
    return desc;
}

static int add_desc(struct virtqueue *vq, struct virtq_chain *chain, const struct vring_packed_desc *desc)
{
    return virtqueue_add_segments(vq, chain, desc->addr, desc->len, desc->flags & VRING_DESC_F_WRITE);
}

// 2.8.7: all of the table is one buffer; of its flags there is only WRITE.
static int add_table(struct virtqueue *vq, struct virtq_chain *chain, const struct vring_packed_desc *desc)
{
    const uint8_t *table = virtqueue_indirect_table(vq, desc->addr, desc->len);
    if (!table)
        return -EPROTO;
    for (uint32_t i = 0; i < desc->len / 16; i++) {
        const struct vring_packed_desc entry = read_desc(table + 16 * (size_t)i);
        if (entry.flags & VRING_DESC_F_INDIRECT)
            return virtqueue_break(vq, "an indirect descriptor in an indirect table");
        if (add_desc(vq, chain, &entry) < 0)
            return -EPROTO;
    }
    return 0;
}

// One descriptor of the ring: 1: the next one belongs to the same chain; 0: it was the last.
static int add(struct virtqueue *vq, struct virtq_chain *chain, const struct vring_packed_desc *desc)
{
    const bool has_next = desc->flags & VRING_DESC_F_NEXT;
    if (!(desc->flags & VRING_DESC_F_INDIRECT))
        return add_desc(vq, chain, desc) < 0 ? -EPROTO : has_next;
    if (has_next)
        return virtqueue_break(vq, "a descriptor both indirect and chained");
    return add_table(vq, chain, desc);
}

static void begin(struct virtq_chain *chain)
{
    chain->n_out = chain->n_in = 0;
    chain->len_out_bytes = chain->len_in_bytes = 0;
}

// The id stands in the last descriptor (2.8.6).
static int take(struct virtqueue *vq, struct virtq_chain *chain, uint16_t id, uint16_t slots)
{
    if (id >= vq->size)
        return virtqueue_break(vq, "a buffer id beyond the queue's size");
    if (virtqueue_is_in_flight(vq, id))
        return virtqueue_break(vq, "a buffer id that is in flight already");
    vq->in_flight[id / 64] |= 1ull << (id % 64);
    vq->slots[id] = slots;
    chain->head = id;
    return 1;
}

int packed_pop(struct virtqueue *vq, struct virtq_chain *chain)
{
    bool is_there = packed_is_available(vq);
    if (!is_there && vq->event_idx && !vq->kicks_disabled)
        is_there = virtqueue_kicks_on(vq);
    if (!is_there)
        return 0;
    begin(chain);
    uint16_t index = vq->last_avail, slots = 0;
    int ret;
    struct vring_packed_desc desc;
    do {
        if (slots == vq->size)
            return virtqueue_break(vq, "a chain longer than the ring");
        desc = read_desc((const uint8_t *)&vq->ring[index]);
        ret = add(vq, chain, &desc);
        if (ret < 0)
            return ret;
        slots++;
        index = index + 1 == vq->size ? 0 : (uint16_t)(index + 1);
    } while (ret == 1);
    ret = take(vq, chain, desc.id, slots);
    if (ret == 1)
        move_on(vq, &vq->last_avail, &vq->avail_wrap, slots);
    return ret;
}

int virtqueue_pop_descs(struct virtqueue *vq, const struct vring_packed_desc *descs, uint16_t n, struct virtq_chain *chain)
{
    if (vq->broken || !vq->ready)
        return -EPROTO;
    begin(chain);
    int ret = 1;
    for (uint16_t i = 0; i < n && ret == 1; i++) {
        ret = add(vq, chain, &descs[i]);
        if (ret == 1 && i + 1 == n)
            ret = virtqueue_break(vq, "a chain without an end");
        if (ret == 0 && i + 1 < n)
            ret = virtqueue_break(vq, "a chain with two ends");
    }
    return ret < 0 ? ret : take(vq, chain, descs[n - 1].id, n);
}

// 2.8.10.1: the whole used descriptor, and then its flags, by which it becomes used. Release pairs with the driver's read barrier.
void packed_push(struct virtqueue *vq, uint16_t id, uint32_t len_written_bytes)
{
    struct vring_packed_desc *desc = &vq->ring[vq->used_idx];
    const unsigned flags = (vq->used_wrap ? AVAIL | USED : 0) | (len_written_bytes ? VRING_DESC_F_WRITE : 0);
    __atomic_store_n(&desc->id, htole16(id), __ATOMIC_RELAXED);
    __atomic_store_n(&desc->len, htole32(len_written_bytes), __ATOMIC_RELAXED);
    __atomic_store_n(&desc->flags, htole16((uint16_t)flags), __ATOMIC_RELEASE);
    move_on(vq, &vq->used_idx, &vq->used_wrap, vq->slots[id]);
    vq->pushed_slots += vq->slots[id];
}

// The driver's event structure (2.8.9): lower half where, with its wrap counter in bit 15, upper half how.
bool packed_needs_call(struct virtqueue *vq)
{
    const uint32_t event = le32toh(__atomic_load_n(vq->driver_event, __ATOMIC_RELAXED));
    const uint32_t how = event >> 16 & 3, pushed = vq->pushed_slots;
    const bool knows = vq->signalled_valid && pushed <= vq->size;
    vq->pushed_slots = 0;
    vq->signalled_valid = true;
    if (how == VRING_PACKED_EVENT_FLAG_DISABLE)
        return false;
    if (how != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx || !knows)
        return true;
    const int32_t at = (int32_t)(event & 0x7fff), lap = (event >> 15 & 1) == vq->used_wrap ? 0 : vq->size;
    const int32_t passed = vq->used_idx + lap - at; // slots since there; 0 and less: not there yet
    return passed > 0 && (uint32_t)passed <= pushed;
}

void packed_publish_kick_wish(struct virtqueue *vq)
{
    uint32_t wish = VRING_PACKED_EVENT_FLAG_ENABLE << 16;
    if (vq->kicks_disabled)
        wish = VRING_PACKED_EVENT_FLAG_DISABLE << 16;
    else if (vq->event_idx)
        wish = (uint32_t)VRING_PACKED_EVENT_FLAG_DESC << 16 | (uint32_t)vq->avail_wrap << 15 | vq->last_avail;
    __atomic_store_n(vq->device_event, htole32(wish), __ATOMIC_RELAXED);
}
