// Requests in flight of a packed queue: see inflight.h. The ring does not hold what is in flight, so the region has copies of the
// descriptors, chained from a list of free ones. The order of the stores is the whole point: until the last of them what came
// before is not yet so, and whoever comes after our death goes back.
#include "vhost/inflight.h"
#include "vhost/virtqueue_internal.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#define INFLIGHT_VERSION 1

#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)
#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)

_Static_assert(sizeof(struct inflight_packed_desc) == 32 && sizeof(struct inflight_packed_region) == 32, "as the protocol has it");

static int refuse(struct tv_error *err, const char *what)
{
    return tv_error_set(err, -EINVAL, "the buffer of requests in flight makes no sense: %s", what);
}

static void make_new(struct inflight *in, const struct virtqueue *vq)
{
    struct inflight_packed_region *region = in->packed;
    for (uint16_t i = 0; i < in->desc_num; i++) {
        in->next[i] = (uint16_t)(i + 1); // the last one's is where the list ends
        STORE(region->desc[i].next, in->next[i]);
    }
    STORE(region->desc_num, in->desc_num);
    STORE(region->free_head, 0);
    STORE(region->old_free_head, 0);
    STORE(region->used_idx, vq->used_idx);
    STORE(region->old_used_idx, vq->used_idx);
    STORE(region->used_wrap, vq->used_wrap);
    STORE(region->old_used_wrap, vq->used_wrap);
    STORE(region->version, INFLIGHT_VERSION);
}

// Something was being given back when the predecessor died. Whether the driver has it the ring tells: its descriptor is no longer
// one that is available in the lap of then.
static void settle_last(struct inflight_packed_region *region, const struct virtqueue *vq)
{
    const uint16_t used_idx = LOAD(region->used_idx), old_idx = LOAD(region->old_used_idx);
    const uint8_t wrap = LOAD(region->used_wrap), old_wrap = LOAD(region->old_used_wrap);
    if (used_idx == old_idx && wrap == old_wrap)
        return;
    const uint16_t flags = le16toh(LOAD(vq->ring[old_idx].flags));
    const bool is_available =
        !!(flags & 1u << VRING_PACKED_DESC_F_AVAIL) == old_wrap && !!(flags & 1u << VRING_PACKED_DESC_F_USED) != old_wrap;
    if (is_available)
        return;
    STORE(region->old_free_head, LOAD(region->free_head));
    STORE(region->old_used_idx, used_idx);
    STORE(region->old_used_wrap, wrap);
}

static void go_back(struct inflight_packed_region *region)
{
    STORE(region->free_head, LOAD(region->old_free_head));
    STORE(region->used_idx, LOAD(region->old_used_idx));
    STORE(region->used_wrap, LOAD(region->old_used_wrap));
}

// What was being taken off the ring when the predecessor died is on the list of the free ones still.
static void take_lists(struct inflight *in)
{
    struct inflight_packed_region *region = in->packed;
    for (uint16_t i = 0; i < in->desc_num; i++)
        in->next[i] = LOAD(region->desc[i].next);
    in->free_head = LOAD(region->free_head);
    for (uint16_t i = 0, at = in->free_head; i < in->desc_num && at < in->desc_num; i++, at = in->next[at])
        STORE(region->desc[at].inflight, 0);
}

struct fetched {
    uint64_t counter;
    uint16_t first;
};

static int by_counter(const void *a, const void *b)
{
    const struct fetched *x = a, *y = b;
    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static int collect(struct inflight *in, uint16_t queue_size, uint32_t *n_slots, struct tv_error *err)
{
    struct fetched fetched[VIRTQ_SIZE_MAX];
    uint16_t n = 0;
    *n_slots = 0;
    for (uint16_t first = 0; first < in->desc_num; first++) {
        const struct inflight_packed_desc *desc = &in->packed->desc[first];
        if (LOAD(desc->inflight) != 1)
            continue;
        const uint16_t num = LOAD(desc->num);
        *n_slots += num;
        if (!num || *n_slots > queue_size || n == queue_size)
            return refuse(err, "more in flight than the queue has descriptors");
        fetched[n++] = (struct fetched){.counter = LOAD(desc->counter), .first = first};
    }
    if (n > 1)
        qsort(fetched, n, sizeof(fetched[0]), by_counter);
    for (uint16_t i = 0; i < n; i++)
        in->again[i] = fetched[i].first;
    in->n_again = n;
    in->counter = n > 0 ? fetched[n - 1].counter + 1 : 0;
    return 0;
}

int inflight_packed_open(struct inflight *in, void *region, uint16_t desc_num, struct virtqueue *vq, struct tv_error *err)
{
    struct inflight_packed_region *r = in->packed = region;
    in->region = NULL;
    in->desc_num = desc_num;
    in->counter = 0;
    in->n_again = in->next_again = in->free_head = 0;
    if (!r)
        return 0;
    if (LOAD(r->version) == 0) {
        make_new(in, vq);
        return 0;
    }
    if (LOAD(r->old_used_idx) >= vq->size || LOAD(r->used_idx) >= vq->size)
        return refuse(err, "it stands beyond the queue's end");
    settle_last(r, vq);
    go_back(r);
    take_lists(in);
    uint32_t n_slots;
    int ret = collect(in, vq->size, &n_slots, err);
    if (ret < 0)
        return ret;
    const uint16_t used_idx = LOAD(r->used_idx) % vq->size;
    const bool used_wrap = LOAD(r->used_wrap) & 1, laps = used_idx + n_slots >= vq->size;
    const uint32_t next = used_idx + n_slots - (laps ? vq->size : 0u);
    // What was taken off the ring is what was given back plus what is in flight.
    return packed_set_base(vq, next | (uint32_t)(used_wrap ^ laps) << 15 | (uint32_t)used_idx << 16 | (uint32_t)used_wrap << 31,
                           err);
}

int inflight_packed_pop_again(struct inflight *in, struct virtqueue *vq, struct virtq_chain *chain)
{
    struct vring_packed_desc descs[VIRTQ_SIZE_MAX];
    const uint16_t first = in->again[in->next_again++];
    const uint16_t num = LOAD(in->packed->desc[first].num);
    uint16_t at = first, n = 0;
    for (; n < num && n < vq->size && at < in->desc_num; n++) {
        const struct inflight_packed_desc *desc = &in->packed->desc[at];
        descs[n] = (struct vring_packed_desc){
            .addr = LOAD(desc->addr), .len = LOAD(desc->len), .id = LOAD(desc->id), .flags = LOAD(desc->flags)};
        in->last[first] = at;
        at = in->next[at];
    }
    int ret = virtqueue_pop_descs(vq, descs, n, chain);
    if (ret == 1)
        in->first[chain->head] = first;
    return ret;
}

void inflight_packed_fetched(struct inflight *in, const struct virtqueue *vq, uint16_t index, uint16_t id)
{
    struct inflight_packed_region *region = in->packed;
    const uint16_t first = in->free_head;
    if (!region || first >= in->desc_num)
        return;
    uint16_t at = first;
    STORE(region->desc[first].num, 0);
    STORE(region->desc[first].counter, in->counter++);
    STORE(region->desc[first].inflight, 1);
    for (uint16_t i = 0; i < vq->slots[id] && at < in->desc_num; i++) {
        const struct vring_packed_desc *from = &vq->ring[index];
        struct inflight_packed_desc *to = &region->desc[at];
        STORE(to->addr, le64toh(__atomic_load_n(&from->addr, __ATOMIC_RELAXED)));
        STORE(to->len, le32toh(__atomic_load_n(&from->len, __ATOMIC_RELAXED)));
        STORE(to->id, le16toh(__atomic_load_n(&from->id, __ATOMIC_RELAXED)));
        STORE(to->flags, le16toh(__atomic_load_n(&from->flags, __ATOMIC_RELAXED)));
        STORE(region->desc[first].num, (uint16_t)(i + 1));
        in->last[first] = at;
        at = in->next[at];
        index = (uint16_t)(index + 1) == vq->size ? 0 : (uint16_t)(index + 1);
    }
    in->first[id] = first;
    in->free_head = at;
    STORE(region->desc[first].last, in->last[first]);
    STORE(region->free_head, at);
    STORE(region->old_free_head, at);
}

void inflight_packed_before_used(struct inflight *in, const struct virtqueue *vq, uint16_t id)
{
    struct inflight_packed_region *region = in->packed;
    const uint16_t first = in->first[id];
    if (!region || first >= in->desc_num || in->last[first] >= in->desc_num)
        return;
    const uint32_t used_idx = (uint32_t)vq->used_idx + vq->slots[id];
    in->next[in->last[first]] = in->free_head;
    STORE(region->desc[in->last[first]].next, in->free_head);
    in->free_head = first;
    STORE(region->free_head, first);
    STORE(region->used_idx, (uint16_t)(used_idx >= vq->size ? used_idx - vq->size : used_idx));
    STORE(region->used_wrap, vq->used_wrap ^ (used_idx >= vq->size));
}

void inflight_packed_after_used(struct inflight *in, uint16_t id)
{
    struct inflight_packed_region *region = in->packed;
    const uint16_t first = in->first[id];
    if (!region || first >= in->desc_num)
        return;
    STORE(region->desc[first].inflight, 0);
    STORE(region->old_free_head, in->free_head);
    STORE(region->old_used_idx, LOAD(region->used_idx));
    STORE(region->old_used_wrap, LOAD(region->used_wrap));
}
