// Virtqueues in random memory, at rest or changing under the reader. Whatever the ring says, a chain that comes out lies in guest
// memory, its sums are right, and the queue ends.
//
// clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_virtqueue.c and the libraries vhost and base
#include <errno.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "vhost/virtqueue.h"

#define RAM 0x1000ull
#define RAM_BYTES 16384u
#define HEAD 8

static struct guest_memory mem;
static uint8_t *ram;

struct writer {
    const uint8_t *data;
    size_t size;
    atomic_bool stop;
};

// The driver that does not keep still: writes the input over the memory, at other places each time.
static void *write_all_over(void *arg)
{
    struct writer *writer = arg;
    for (unsigned round = 0; !atomic_load(&writer->stop); round++) {
        for (size_t i = 0; i < writer->size; i++)
            __atomic_store_n(&ram[(i + 16u * round) % RAM_BYTES], writer->data[i], __ATOMIC_RELAXED);
    }
    return NULL;
}

// Makes the random ring a plausible one: so many requests wait, and buffers are near guest memory.
static void aim_packed(const struct virtqueue *vq, uint8_t how, uint8_t n_waiting)
{
    for (unsigned i = 0; (how & 8) && i < vq->size; i++) {
        struct vring_packed_desc *desc = &vq->ring[i];
        desc->addr = RAM + desc->addr % (RAM_BYTES + 16);
        desc->len %= 600;
        desc->id = (uint16_t)(desc->id % (vq->size + 1));
    }
    for (unsigned i = 0; (how & 4) && i < n_waiting % (vq->size + 1u); i++) {
        struct vring_packed_desc *desc = &vq->ring[(vq->last_avail + i) % vq->size];
        const bool wrap = vq->last_avail + i < vq->size ? vq->avail_wrap : !vq->avail_wrap;
        desc->flags = (uint16_t)((desc->flags & 7) | (wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED));
    }
}

static void aim(const struct virtqueue *vq, uint8_t how, uint8_t n_waiting)
{
    if (vq->packed) {
        aim_packed(vq, how, n_waiting);
        return;
    }
    if (how & 4)
        vq->avail->idx = (uint16_t)(vq->last_avail + n_waiting % (vq->size + 2));
    for (unsigned i = 0; (how & 8) && i < vq->size; i++) {
        struct vring_desc desc = vq->desc[i];
        vq->desc[i] = (struct vring_desc){.addr = RAM + desc.addr % (RAM_BYTES + 16),
                                          .len = desc.len % 600,
                                          .flags = desc.flags & 7,
                                          .next = (uint16_t)(desc.next % (vq->size + 1))};
    }
}

static void check_chain(const struct virtq_chain *chain)
{
    uint64_t out = 0, in = 0;
    if (chain->n_out + chain->n_in > VIRTQ_SEGMENTS_MAX || chain->n_out + chain->n_in == 0)
        abort();
    for (unsigned i = 0; i < chain->n_out + chain->n_in; i++) {
        const uint8_t *base = chain->iov[i].iov_base;
        size_t len = chain->iov[i].iov_len;
        if (base < ram || len == 0 || len > RAM_BYTES || (size_t)(base - ram) > RAM_BYTES - len)
            abort();
        *(i < chain->n_out ? &out : &in) += len;
    }
    if (out != chain->len_out_bytes || in != chain->len_in_bytes)
        abort();
}

static void serve(struct virtqueue *vq, uint8_t how)
{
    static struct virtq_chain chain;
    uint16_t heads[VIRTQ_SIZE_MAX];
    unsigned n_heads = 0;
    int ret = 0;
    for (unsigned i = 0; i < 3000 && (ret = virtqueue_pop(vq, &chain)) >= 0; i++) {
        if (ret == 1) {
            check_chain(&chain);
            heads[n_heads++] = chain.head;
        }
        if (n_heads > 0 && (ret == 0 || (i + how) % 3 == 0)) {
            virtqueue_push(vq, heads[--n_heads], chain.len_in_bytes);
            virtqueue_needs_call(vq);
        } else if (ret == 0) {
            virtqueue_kicks_off(vq);
            virtqueue_kicks_on(vq);
            if (!(how & 1)) // nobody writes: it stays empty
                break;
        }
    }
    if (ret < 0 && (ret != -EPROTO || !vq->broken || !vq->why))
        abort();
    while (n_heads > 0)
        virtqueue_push(vq, heads[--n_heads], 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ram) {
        int fd = guest_ram_create("fuzz", RAM_BYTES, NULL);
        if (guest_memory_add(&mem, RAM, RAM_BYTES, fd, 0, 0, NULL) < 0)
            abort();
        ram = guest_memory_view(&mem, RAM, RAM_BYTES);
    }
    if (size < HEAD)
        return 0;
    // size of the queue, places of the rings in units of 16, first index, options
    struct virtqueue vq;
    struct writer writer = {.data = data + HEAD, .size = size - HEAD};
    memset(ram, 0, RAM_BYTES);
    memcpy(ram, data + HEAD, size - HEAD < RAM_BYTES ? size - HEAD : RAM_BYTES);
    virtqueue_init(&vq, &mem);
    const bool packed = data[6] & 16;
    uint32_t base = (uint32_t)(data[4] | data[5] << 8);
    if (packed) // both somewhere
        base = (base & 0x80ff) | (base & 0x80ff) << 16;
    int ret = virtqueue_start(&vq, (uint16_t)(1u << (data[0] % 12)), RAM + 16u * data[1], RAM + 16u * data[2], RAM + 16u * data[3],
                              base, (data[6] & 2 ? VIRTQ_EVENT_IDX : 0) | (packed ? VIRTQ_PACKED : 0), NULL);
    if (ret < 0)
        return 0;
    aim(&vq, data[6], data[7]);
    pthread_t thread;
    bool moving = (data[6] & 1) && pthread_create(&thread, NULL, write_all_over, &writer) == 0;
    serve(&vq, data[6]);
    atomic_store(&writer.stop, true);
    if (moving)
        pthread_join(thread, NULL);
    virtqueue_stop(&vq);
    return 0;
}
