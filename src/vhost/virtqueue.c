// The device's side of a virtqueue: what both forms have in common, and the split one (virtio 1.2, section 2.7). One thread a
// queue; the driver runs on others.
//
// Every field in guest memory is read by exactly one load into a local. Multi-byte fields are little-endian.
#include "vhost/virtqueue_internal.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

int virtqueue_break(struct virtqueue *vq, const char *why)
{
    vq->broken = true;
    vq->why = why;
    return -EPROTO;
}

void virtqueue_init(struct virtqueue *vq, const struct guest_memory *mem)
{
    *vq = (struct virtqueue){.mem = mem};
}

static uint16_t *used_event(const struct virtqueue *vq) // written by the driver, behind the available ring (2.7.7.1)
{
    return &vq->avail->ring[vq->size];
}

static uint16_t *avail_event(const struct virtqueue *vq) // written by us, behind the used ring (2.7.10.1)
{
    return (uint16_t *)&vq->used->ring[vq->size];
}

// How many requests wait. Acquire pairs with the driver's release (its write barrier before it moves idx, 2.7.13.3.1): the ring's
// entries and descriptors it made available are visible after it.
static uint16_t available(const struct virtqueue *vq)
{
    return (uint16_t)(le16toh(__atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE)) - vq->last_avail);
}

static void publish_kick_wish(struct virtqueue *vq)
{
    if (vq->packed)
        packed_publish_kick_wish(vq);
    else if (vq->event_idx)
        __atomic_store_n(avail_event(vq), htole16(vq->last_avail), __ATOMIC_RELAXED);
    else
        __atomic_store_n(&vq->used->flags, htole16(vq->kicks_disabled ? VRING_USED_F_NO_NOTIFY : 0), __ATOMIC_RELAXED);
}

static int out_of_memory(const struct virtqueue *vq, struct tv_error *err)
{
    return tv_error_set(err, -EFAULT, "virtqueue: a ring (0x%llx, 0x%llx, 0x%llx) lies outside of guest memory",
                        (unsigned long long)vq->desc_addr, (unsigned long long)vq->avail_addr, (unsigned long long)vq->used_addr);
}

static int map_split(struct virtqueue *vq, struct tv_error *err)
{
    vq->desc = guest_memory_view(vq->mem, vq->desc_addr, 16ull * vq->size);
    vq->avail = guest_memory_view(vq->mem, vq->avail_addr, 6 + 2ull * vq->size);
    vq->used = guest_memory_view(vq->mem, vq->used_addr, 6 + 8ull * vq->size);
    if (!vq->desc || !vq->avail || !vq->used)
        return out_of_memory(vq, err);
    // A region that is itself mapped at an odd place would make the views unaligned.
    if ((uintptr_t)vq->desc % 16 || (uintptr_t)vq->avail % 2 || (uintptr_t)vq->used % 4)
        return tv_error_set(err, -EINVAL, "virtqueue: the memory that holds the rings is not aligned");
    return 0;
}

static int map_packed(struct virtqueue *vq, struct tv_error *err)
{
    vq->ring = guest_memory_view(vq->mem, vq->desc_addr, 16ull * vq->size);
    vq->driver_event = guest_memory_view(vq->mem, vq->avail_addr, 4);
    vq->device_event = guest_memory_view(vq->mem, vq->used_addr, 4);
    if (!vq->ring || !vq->driver_event || !vq->device_event)
        return out_of_memory(vq, err);
    if ((uintptr_t)vq->ring % 16 || (uintptr_t)vq->driver_event % 4 || (uintptr_t)vq->device_event % 4)
        return tv_error_set(err, -EINVAL, "virtqueue: the memory that holds the rings is not aligned");
    return 0;
}

int virtqueue_map_rings(struct virtqueue *vq, struct tv_error *err)
{
    if (vq->size == 0 || vq->size > VIRTQ_SIZE_MAX || (vq->size & (vq->size - 1)) != 0)
        return tv_error_set(err, -EINVAL, "virtqueue: a size of %u is no power of 2 up to %d", vq->size, VIRTQ_SIZE_MAX);
    if (vq->desc_addr % 16 || vq->avail_addr % (vq->packed ? 4 : 2) || vq->used_addr % 4)
        return tv_error_set(err, -EINVAL, "virtqueue: a ring address is not aligned (to 16, %d, 4)", vq->packed ? 4 : 2);
    return vq->packed ? map_packed(vq, err) : map_split(vq, err);
}

int virtqueue_start(struct virtqueue *vq, uint16_t size, uint64_t desc_addr, uint64_t avail_addr, uint64_t used_addr, uint32_t base,
                    unsigned features, struct tv_error *err)
{
    const struct guest_memory *mem = vq->mem;
    *vq = (struct virtqueue){.mem = mem,
                             .size = size,
                             .event_idx = features & VIRTQ_EVENT_IDX,
                             .packed = features & VIRTQ_PACKED,
                             .desc_addr = desc_addr,
                             .avail_addr = avail_addr,
                             .used_addr = used_addr,
                             .last_avail = (uint16_t)base};
    int ret = virtqueue_map_rings(vq, err);
    if (!ret && vq->packed)
        ret = packed_set_base(vq, base, err);
    if (ret < 0) {
        virtqueue_init(vq, mem);
        return ret;
    }
    vq->ready = true;
    if (!vq->packed)
        vq->used_idx = vq->signalled_used = le16toh(__atomic_load_n(&vq->used->idx, __ATOMIC_RELAXED));
    virtqueue_kicks_on(vq); // a predecessor may have died with kicks off
    return 0;
}

uint32_t virtqueue_base(const struct virtqueue *vq)
{
    if (!vq->packed)
        return vq->last_avail;
    return vq->last_avail | (uint32_t)vq->avail_wrap << 15 | (uint32_t)vq->used_idx << 16 | (uint32_t)vq->used_wrap << 31;
}

void virtqueue_stop(struct virtqueue *vq)
{
    virtqueue_init(vq, vq->mem);
}

// A table of descriptors being walked: the queue's own or an indirect one.
struct table {
    const uint8_t *entries;
    uint32_t n;
    bool indirect;
};

// The whole descriptor is copied once, and the compiler is kept from going back to guest memory for any part of it. Indirect tables
// need not be aligned, so it is a copy of bytes.
static struct vring_desc read_desc(const struct table *table, uint16_t index)
{
    struct vring_desc desc;
    memcpy(&desc, table->entries + 16 * (size_t)index, sizeof(desc));
    __asm__ volatile("" ::: "memory");
    desc.addr = le64toh(desc.addr);
    desc.len = le32toh(desc.len);
    desc.flags = le16toh(desc.flags);
    desc.next = le16toh(desc.next);
    return desc;
}

const uint8_t *virtqueue_indirect_table(struct virtqueue *vq, uint64_t addr, uint32_t len_bytes)
{
    if (len_bytes == 0 || len_bytes % 16 != 0) {
        virtqueue_break(vq, "an indirect table whose length is no multiple of 16");
        return NULL;
    }
    const uint8_t *entries = guest_memory_view(vq->mem, addr, len_bytes);
    if (!entries)
        virtqueue_break(vq, "an indirect table outside of guest memory");
    return entries;
}

static int enter_indirect(struct virtqueue *vq, struct table *table, const struct vring_desc *desc)
{
    if (table->indirect)
        return virtqueue_break(vq, "an indirect descriptor in an indirect table");
    if (desc->flags & VRING_DESC_F_NEXT)
        return virtqueue_break(vq, "a descriptor both indirect and chained");
    table->entries = virtqueue_indirect_table(vq, desc->addr, desc->len);
    if (!table->entries)
        return -EPROTO;
    table->n = desc->len / 16;
    table->indirect = true;
    return 0;
}

// One data descriptor, in as many segments as it touches regions of memory.
int virtqueue_add_segments(struct virtqueue *vq, struct virtq_chain *chain, uint64_t addr, uint32_t len_bytes, bool in)
{
    if (len_bytes == 0)
        return virtqueue_break(vq, "an empty descriptor");
    if (!in && chain->n_in > 0)
        return virtqueue_break(vq, "a readable descriptor after a writable one");
    if (len_bytes > UINT32_MAX - chain->len_out_bytes - chain->len_in_bytes)
        return virtqueue_break(vq, "a chain of 4 GiB or more");
    uint64_t rest = len_bytes;
    while (rest > 0) {
        uint64_t got = 0;
        if (chain->n_out + chain->n_in == VIRTQ_SEGMENTS_MAX)
            return virtqueue_break(vq, "a chain of too many segments");
        void *view = guest_memory_view_part(vq->mem, addr, rest, &got);
        if (!view)
            return virtqueue_break(vq, "a buffer outside of guest memory");
        chain->iov[chain->n_out + chain->n_in] = (struct iovec){.iov_base = view, .iov_len = got};
        if (in)
            chain->n_in++;
        else
            chain->n_out++;
        addr += got;
        rest -= got;
    }
    if (in)
        chain->len_in_bytes += len_bytes;
    else
        chain->len_out_bytes += len_bytes;
    return 0;
}

// Ends always: each step adds a segment (at most VIRTQ_SEGMENTS_MAX) or enters the one indirect table.
static int walk_chain(struct virtqueue *vq, struct virtq_chain *chain)
{
    struct table table = {.entries = (const uint8_t *)vq->desc, .n = vq->size};
    uint32_t index = chain->head;
    for (;;) {
        if (index >= table.n)
            return virtqueue_break(vq, "a descriptor index beyond its table");
        struct vring_desc desc = read_desc(&table, (uint16_t)index);
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (enter_indirect(vq, &table, &desc) < 0)
                return -EPROTO;
            index = 0;
            continue;
        }
        if (virtqueue_add_segments(vq, chain, desc.addr, desc.len, desc.flags & VRING_DESC_F_WRITE) < 0)
            return -EPROTO;
        if (!(desc.flags & VRING_DESC_F_NEXT))
            return 1;
        index = desc.next;
    }
}

int virtqueue_pop_head(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain)
{
    if (vq->broken || !vq->ready)
        return -EPROTO;
    if (head >= vq->size)
        return virtqueue_break(vq, "a head beyond the descriptor table");
    if (virtqueue_is_in_flight(vq, head))
        return virtqueue_break(vq, "a head that is in flight already");
    chain->head = head;
    chain->n_out = chain->n_in = 0;
    chain->len_out_bytes = chain->len_in_bytes = 0;
    int ret = walk_chain(vq, chain);
    if (ret == 1)
        vq->in_flight[head / 64] |= 1ull << (head % 64);
    return ret;
}

int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain)
{
    if (vq->broken)
        return -EPROTO;
    if (!vq->ready)
        return 0;
    if (vq->packed)
        return packed_pop(vq, chain);
    uint16_t n = available(vq);
    if (n == 0 && vq->event_idx && !vq->kicks_disabled && virtqueue_kicks_on(vq))
        n = available(vq);
    if (n == 0)
        return 0;
    if (n > vq->size)
        return virtqueue_break(vq, "an available index more than the queue's size ahead");
    uint16_t head = le16toh(__atomic_load_n(&vq->avail->ring[vq->last_avail & (vq->size - 1)], __ATOMIC_RELAXED));
    vq->last_avail++;
    return virtqueue_pop_head(vq, head, chain);
}

bool virtqueue_is_empty(const struct virtqueue *vq)
{
    return vq->broken || !vq->ready || !(vq->packed ? packed_is_available(vq) : available(vq) != 0);
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len_written_bytes)
{
    if (!vq->ready)
        return;
    assert(head < vq->size && virtqueue_is_in_flight(vq, head));
    vq->in_flight[head / 64] &= ~(1ull << (head % 64));
    if (vq->packed) {
        packed_push(vq, head, len_written_bytes);
        return;
    }
    struct vring_used_elem *elem = &vq->used->ring[vq->used_idx & (vq->size - 1)];
    __atomic_store_n(&elem->id, htole32(head), __ATOMIC_RELAXED);
    __atomic_store_n(&elem->len, htole32(len_written_bytes), __ATOMIC_RELAXED);
    vq->used_idx++;
    // Pairs with the driver's acquire of idx: it sees the element and the data before it.
    __atomic_store_n(&vq->used->idx, htole16(vq->used_idx), __ATOMIC_RELEASE);
    if (vq->used_idx == vq->signalled_used)
        vq->signalled_valid = false; // 65536 pushes without a question: the difference no longer tells
}

bool virtqueue_needs_call(struct virtqueue *vq)
{
    if (!vq->ready)
        return false;
    // Pairs with the driver's full barrier between enabling interrupts and looking at used->idx (2.7.14): either it sees our
    // pushes or we see its wish.
    atomic_thread_fence(memory_order_seq_cst);
    if (vq->packed)
        return packed_needs_call(vq);
    if (!vq->event_idx)
        return !(le16toh(__atomic_load_n(&vq->avail->flags, __ATOMIC_RELAXED)) & VRING_AVAIL_F_NO_INTERRUPT);
    uint16_t old = vq->signalled_used;
    bool valid = vq->signalled_valid;
    vq->signalled_used = vq->used_idx;
    vq->signalled_valid = true;
    uint16_t event = le16toh(__atomic_load_n(used_event(vq), __ATOMIC_RELAXED));
    return !valid || (uint16_t)(vq->used_idx - event - 1) < (uint16_t)(vq->used_idx - old);
}

void virtqueue_kicks_off(struct virtqueue *vq)
{
    if (!vq->ready || vq->kicks_disabled)
        return;
    vq->kicks_disabled = true;
    if (vq->packed || !vq->event_idx) // else it is enough not to move avail_event on
        publish_kick_wish(vq);
}

bool virtqueue_kicks_on(struct virtqueue *vq)
{
    if (!vq->ready)
        return false;
    vq->kicks_disabled = false;
    publish_kick_wish(vq);
    // Pairs with the driver's full barrier between moving avail->idx and reading our wish (2.7.13.4.1).
    atomic_thread_fence(memory_order_seq_cst);
    return vq->packed ? packed_is_available(vq) : available(vq) != 0;
}

size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset_bytes, void *buf, size_t len_bytes)
{
    uint8_t *to = buf;
    size_t done = 0;
    for (unsigned i = 0; i < chain->n_out && done < len_bytes; i++) {
        const struct iovec *iov = &chain->iov[i];
        if (offset_bytes >= iov->iov_len) {
            offset_bytes -= iov->iov_len;
            continue;
        }
        size_t n = iov->iov_len - offset_bytes;
        if (n > len_bytes - done)
            n = len_bytes - done;
        memcpy(to + done, (const uint8_t *)iov->iov_base + offset_bytes, n);
        done += n;
        offset_bytes = 0;
    }
    return done;
}

size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset_bytes, const void *buf, size_t len_bytes)
{
    const uint8_t *from = buf;
    size_t done = 0;
    for (unsigned i = 0; i < chain->n_in && done < len_bytes; i++) {
        const struct iovec *iov = &chain->iov[chain->n_out + i];
        if (offset_bytes >= iov->iov_len) {
            offset_bytes -= iov->iov_len;
            continue;
        }
        size_t n = iov->iov_len - offset_bytes;
        if (n > len_bytes - done)
            n = len_bytes - done;
        memcpy((uint8_t *)iov->iov_base + offset_bytes, from + done, n);
        done += n;
        offset_bytes = 0;
    }
    return done;
}
