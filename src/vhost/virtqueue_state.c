// Saving and loading a virtqueue. What was loaded is foreign: the rings are mapped and checked as at the start, and everything else
// is only ever compared with what the driver writes.
#include "vhost/virtqueue.h"

#include <errno.h>

static void packed_state(struct virtqueue *vq, struct state *s)
{
    state_bool(s, "packed", &vq->packed);
    state_bool(s, "avail_wrap", &vq->avail_wrap);
    state_bool(s, "used_wrap", &vq->used_wrap);
    state_u32(s, "pushed_slots", &vq->pushed_slots);
    for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++)
        state_u16(s, "slots", &vq->slots[i]);
    if (!state_is_loading(s) || !vq->packed || state_failed(s))
        return;
    if (vq->last_avail >= vq->size || vq->used_idx >= vq->size)
        state_fail(s, "virtqueue: it stands beyond its %u descriptors", vq->size);
    for (unsigned i = 0; i < vq->size && i < VIRTQ_SIZE_MAX; i++)
        if (vq->slots[i] > vq->size)
            state_fail(s, "virtqueue: a chain of %u descriptors in a ring of %u", vq->slots[i], vq->size);
}

int virtqueue_state(struct virtqueue *vq, struct state *s)
{
    struct tv_error err = {0};
    const uint32_t version = state_section_begin(s, "virtqueue", 2); // 2: packed queues
    state_u16(s, "size", &vq->size);
    state_bool(s, "ready", &vq->ready);
    state_bool(s, "broken", &vq->broken);
    state_bool(s, "event_idx", &vq->event_idx);
    state_bool(s, "kicks_disabled", &vq->kicks_disabled);
    state_u64(s, "desc_addr", &vq->desc_addr);
    state_u64(s, "avail_addr", &vq->avail_addr);
    state_u64(s, "used_addr", &vq->used_addr);
    state_u16(s, "last_avail", &vq->last_avail);
    state_u16(s, "used_idx", &vq->used_idx);
    state_u16(s, "signalled_used", &vq->signalled_used);
    state_bool(s, "signalled_valid", &vq->signalled_valid);
    state_u64_array(s, "in_flight", vq->in_flight, VIRTQ_SIZE_MAX / 64);
    if (version >= 2)
        packed_state(vq, s);
    state_section_end(s);
    if (!state_is_loading(s))
        return state_failed(s) ? -EIO : 0;
    vq->desc = NULL;
    vq->avail = NULL;
    vq->used = NULL;
    vq->ring = NULL;
    vq->driver_event = vq->device_event = NULL;
    vq->why = vq->broken ? "it was broken when it was saved" : NULL;
    if (!state_failed(s) && vq->ready && virtqueue_map_rings(vq, &err) < 0)
        state_fail(s, "%s", err.text);
    if (!state_failed(s))
        return 0;
    virtqueue_init(vq, vq->mem);
    return -EINVAL;
}
