// What both forms of a virtqueue have in common, and the packed one's calls: the same as those of virtqueue.h, which see.
#pragma once

#include "vhost/virtqueue.h"

int virtqueue_break(struct virtqueue *vq, const char *why); // -EPROTO

static inline bool virtqueue_is_in_flight(const struct virtqueue *vq, uint16_t head)
{
    return vq->in_flight[head / 64] >> (head % 64) & 1;
}

// One data descriptor, in as many segments as it touches regions of memory.
int virtqueue_add_segments(struct virtqueue *vq, struct virtq_chain *chain, uint64_t addr, uint32_t len_bytes, bool in);
const uint8_t *virtqueue_indirect_table(struct virtqueue *vq, uint64_t addr, uint32_t len_bytes); // NULL: the queue is broken

int packed_set_base(struct virtqueue *vq, uint32_t base, struct tv_error *err);
int packed_pop(struct virtqueue *vq, struct virtq_chain *chain);
bool packed_is_available(const struct virtqueue *vq);
void packed_push(struct virtqueue *vq, uint16_t id, uint32_t len_written_bytes);
bool packed_needs_call(struct virtqueue *vq);
void packed_publish_kick_wish(struct virtqueue *vq);
