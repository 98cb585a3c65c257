// Requests of a virtio-blk device, from the ring to the answer: see vhost_blk_private.h.
#include "store/front/vhost_blk_private.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <string.h>

static struct vhost_blk_request *get_slot(struct vhost_blk *f)
{
    struct vhost_blk_request *request = f->free;
    if (request)
        f->free = request->link;
    else if (f->n_used < VHOST_BLK_REQUESTS_MAX)
        request = &f->slots[f->n_used++];
    return request;
}

static void put_slot(struct vhost_blk *f, struct vhost_blk_request *request)
{
    request->link = f->free;
    f->free = request;
}

// ---- out ----

static void push(struct vhost_blk *f, unsigned queue, uint16_t head, uint32_t len_bytes)
{
    vhost_backend_push(f->backend, queue, head, len_bytes);
    f->to_call |= 1ull << queue;
    store_mark(&f->front);
}

// Also of a request that failed: it may have got as far as writing something.
static void log_writes(struct vhost_blk *f, const struct blk_request *blk, bool fills)
{
    const struct iovec status = {.iov_base = blk->status, .iov_len = 1};
    vhost_backend_log_writes(f->backend, &status, 1);
    if (fills)
        vhost_backend_log_writes(f->backend, blk->iov, blk->n_iov);
}

static void answer(struct vhost_blk *f, struct vhost_blk_request *request, uint8_t status)
{
    const struct blk_request *blk = &request->blk;
    bool fills = blk->op == BLK_READ || blk->op == BLK_GET_ID;
    *(volatile uint8_t *)blk->status = status; // before the push, which has the barrier
    if (f->logs)
        log_writes(f, blk, fills);
    // Of a request that failed, nothing that was written but its status is worth anything to the driver (2.7.8.2).
    uint32_t len = status == VIRTIO_BLK_S_OK && fills ? blk->len_bytes + 1 : 1;
    push(f, request->queue, request->head, len);
    put_slot(f, request);
}

static void submit_range(struct vhost_blk_request *request)
{
    const struct blk_range *range = &request->blk.ranges[request->range];
    struct volume_request *io = &request->request.io;
    io->offset_bytes = range->offset_bytes;
    io->len_bytes = range->len_bytes;
    io->may_unmap = range->unmap;
    disk_submit(request->front->front.disk, &request->request);
}

static void on_done(struct disk_request *disk_request, int result)
{
    struct vhost_blk_request *request = (struct vhost_blk_request *)disk_request;
    struct vhost_blk *f = request->front;
    if (!result && ++request->range < request->blk.n_ranges) {
        submit_range(request);
        return;
    }
    f->in_flight[request->queue]--;
    if (!result)
        answer(f, request, VIRTIO_BLK_S_OK);
    else
        answer(f, request, result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
}

// ---- in ----

static void answer_id(struct vhost_blk *f, struct vhost_blk_request *request)
{
    const struct blk_request *blk = &request->blk;
    char id[BLK_ID_BYTES] = {0};
    memcpy(id, f->front.disk->serial, strlen(f->front.disk->serial));
    size_t at = 0;
    for (unsigned i = 0; i < blk->n_iov; at += blk->iov[i++].iov_len)
        memcpy(blk->iov[i].iov_base, id + at, blk->iov[i].iov_len);
    answer(f, request, VIRTIO_BLK_S_OK);
}

// Done by doing nothing: a flush where nothing is ever written, and what covers no byte.
static bool is_empty(const struct vhost_blk *f, const struct blk_request *blk)
{
    switch (blk->op) {
    case BLK_READ:
    case BLK_WRITE:
        return !blk->len_bytes;
    case BLK_FLUSH:
        return f->front.disk->volume->read_only;
    default:
        return !blk->n_ranges;
    }
}

// 5.2.6.2: writes are stable when they are answered, unless the driver knows of the cache and has left it on.
static bool writes_through(const struct vhost_blk *f)
{
    if (!(f->acked & 1ull << VIRTIO_BLK_F_FLUSH))
        return true;
    return (f->acked & 1ull << VIRTIO_BLK_F_CONFIG_WCE) && !f->writeback;
}

static void submit(struct vhost_blk *f, struct vhost_blk_request *request)
{
    static const enum volume_op ops[] = {
        [BLK_READ] = VOLUME_READ,       [BLK_WRITE] = VOLUME_WRITE,       [BLK_FLUSH] = VOLUME_FLUSH,
        [BLK_DISCARD] = VOLUME_DISCARD, [BLK_WRITE_ZEROES] = VOLUME_ZERO,
    };
    const struct blk_request *blk = &request->blk;
    struct volume_request *io = &request->request.io;
    request->request.done = on_done;
    request->range = 0;
    io->op = ops[blk->op];
    io->durable = io->op != VOLUME_READ && io->op != VOLUME_FLUSH && writes_through(f);
    io->only_fast = false;
    f->in_flight[request->queue]++;
    if (blk->n_ranges) {
        submit_range(request);
        return;
    }
    io->offset_bytes = blk->offset_bytes;
    io->len_bytes = blk->len_bytes;
    io->data = (struct volume_data){.iov = blk->iov, .n_iov = blk->n_iov};
    disk_submit(f->front.disk, &request->request);
}

static void accept_chain(struct vhost_blk *f, unsigned queue, struct vhost_blk_request *request)
{
    const struct volume *volume = f->front.disk->volume;
    struct blk_geometry geometry = {
        .capacity_bytes = volume->size_bytes,
        .block_size_bytes = volume->block_bytes,
        .read_only = volume->read_only,
        .discard = f->acked & 1ull << VIRTIO_BLK_F_DISCARD,
        .write_zeroes = f->acked & 1ull << VIRTIO_BLK_F_WRITE_ZEROES,
    };
    struct blk_request *blk = &request->blk;
    request->front = f;
    request->queue = (uint16_t)queue;
    request->head = f->chain.head;
    int r = blk_request_decode(blk, &f->chain, &geometry);
    if (r)
        f->front.disk->counters.refused++;
    if (r < 0) {
        push(f, queue, f->chain.head, 0);
        put_slot(f, request);
    } else if (r > 0) {
        answer(f, request, (uint8_t)r);
    } else if (blk->op == BLK_GET_ID) {
        answer_id(f, request);
    } else if (is_empty(f, blk)) {
        answer(f, request, VIRTIO_BLK_S_OK);
    } else {
        submit(f, request);
    }
}

void vhost_blk_pop(struct vhost_blk *f, unsigned queue)
{
    f->starved &= ~(1ull << queue);
    for (unsigned budget = VHOST_BLK_POP_BUDGET; budget; budget--) {
        struct vhost_blk_request *request = get_slot(f);
        if (!request)
            break;
        if (vhost_backend_pop(f->backend, queue, &f->chain) != 1) {
            put_slot(f, request);
            return;
        }
        accept_chain(f, queue, request);
    }
    f->starved |= 1ull << queue;
    store_mark(&f->front);
}
