// Requests in flight: see inflight.h. The order of the stores is the whole point; release keeps it, for the compiler and for the
// reader, which is another process after our death.
#include "vhost/inflight.h"

#include <stdlib.h>

#define INFLIGHT_VERSION 1

size_t inflight_region_bytes(uint16_t queue_size, bool packed)
{
    size_t bytes = packed ? sizeof(struct inflight_packed_region) + queue_size * sizeof(struct inflight_packed_desc)
                          : sizeof(struct inflight_region) + queue_size * sizeof(struct inflight_desc);
    return (bytes + 63) & ~(size_t)63;
}

// The last batch was given to the driver, but the predecessor died before it had noted that. `used_idx` of the region tells how
// many they were.
static void finish_last_batch(struct inflight *in, uint16_t used_idx)
{
    struct inflight_region *region = in->region;
    uint16_t batch = (uint16_t)(used_idx - __atomic_load_n(&region->used_idx, __ATOMIC_RELAXED));
    uint16_t head = __atomic_load_n(&region->last_batch_head, __ATOMIC_RELAXED);
    for (uint16_t i = 0; i < batch && i < in->desc_num && head < in->desc_num; i++) {
        __atomic_store_n(&region->desc[head].inflight, 0, __ATOMIC_RELEASE);
        head = __atomic_load_n(&region->desc[head].next, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&region->used_idx, used_idx, __ATOMIC_RELEASE);
}

struct fetched {
    uint64_t counter;
    uint16_t head;
};

static int by_counter(const void *a, const void *b)
{
    const struct fetched *x = a, *y = b;
    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static void collect(struct inflight *in, uint16_t queue_size)
{
    struct fetched fetched[VIRTQ_SIZE_MAX];
    uint16_t n = 0;
    for (uint16_t head = 0; head < queue_size; head++) {
        const struct inflight_desc *desc = &in->region->desc[head];
        if (__atomic_load_n(&desc->inflight, __ATOMIC_RELAXED) != 1)
            continue;
        fetched[n++] = (struct fetched){.counter = __atomic_load_n(&desc->counter, __ATOMIC_RELAXED), .head = head};
    }
    qsort(fetched, n, sizeof(fetched[0]), by_counter);
    for (uint16_t i = 0; i < n; i++)
        in->again[i] = fetched[i].head;
    in->n_again = n;
    in->counter = n > 0 ? fetched[n - 1].counter + 1 : 0;
}

void inflight_open(struct inflight *in, void *region, uint16_t desc_num, uint16_t queue_size, uint16_t used_idx,
                   uint16_t *last_avail)
{
    in->region = region;
    in->packed = NULL;
    in->desc_num = desc_num;
    in->counter = 0;
    in->n_again = in->next_again = 0;
    if (!region)
        return;
    if (__atomic_load_n(&in->region->version, __ATOMIC_ACQUIRE) == 0) {
        __atomic_store_n(&in->region->desc_num, desc_num, __ATOMIC_RELAXED);
        __atomic_store_n(&in->region->used_idx, used_idx, __ATOMIC_RELAXED);
        __atomic_store_n(&in->region->version, INFLIGHT_VERSION, __ATOMIC_RELEASE);
        return;
    }
    finish_last_batch(in, used_idx);
    collect(in, queue_size);
    // What was taken off the available ring is what was given back plus what is in flight.
    *last_avail = (uint16_t)(used_idx + in->n_again);
}

void inflight_fetched(struct inflight *in, uint16_t head)
{
    if (!in->region)
        return;
    __atomic_store_n(&in->region->desc[head].counter, in->counter++, __ATOMIC_RELAXED);
    __atomic_store_n(&in->region->desc[head].inflight, 1, __ATOMIC_RELEASE);
}

void inflight_before_used(struct inflight *in, uint16_t head)
{
    if (!in->region)
        return;
    uint16_t last = __atomic_load_n(&in->region->last_batch_head, __ATOMIC_RELAXED);
    __atomic_store_n(&in->region->desc[head].next, last, __ATOMIC_RELAXED);
    __atomic_store_n(&in->region->last_batch_head, head, __ATOMIC_RELEASE);
}

void inflight_after_used(struct inflight *in, uint16_t head, uint16_t used_idx)
{
    if (!in->region)
        return;
    __atomic_store_n(&in->region->desc[head].inflight, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&in->region->used_idx, used_idx, __ATOMIC_RELEASE);
}
