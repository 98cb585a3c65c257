// A disk's requests: see disk_request.h.
#include "store/disk_request.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <string.h>

static struct disk_request *get_slot(struct disk *disk)
{
    struct disk_request *request = disk->free;
    if (request)
        disk->free = request->link;
    else if (disk->n_used < DISK_REQUESTS_MAX)
        request = &disk->slots[disk->n_used++];
    return request;
}

static void put_slot(struct disk *disk, struct disk_request *request)
{
    request->link = disk->free;
    disk->free = request;
}

static void push(struct disk *disk, unsigned queue, uint16_t head, uint32_t len_bytes)
{
    vhost_backend_push(disk->backend, queue, head, len_bytes);
    disk->to_call |= 1ull << queue;
    store_mark_dirty(disk);
}

static void answer(struct disk *disk, struct disk_request *request, uint8_t status)
{
    const struct blk_request *blk = &request->transfer.blk;
    bool fills = blk->op == BLK_READ || blk->op == BLK_GET_ID;
    *(volatile uint8_t *)blk->status = status; // before the push, which has the barrier
    // Of a request that failed, nothing that was written but its status is worth anything to the driver (2.7.8.2).
    uint32_t len = status == VIRTIO_BLK_S_OK && fills ? blk->len_bytes + 1 : 1;
    push(disk, request->queue, request->head, len);
    put_slot(disk, request);
}

// ---- what came of it ----

static void log_once(const struct disk *disk, bool *logged, const char *message, int result)
{
    if (*logged)
        return;
    *logged = true;
    log_event(LOG_ERROR, "store", message, LOG_STR("disk", disk->name), LOG_STR("error", strerror(-result)));
}

static void log_failure(struct disk *disk, int result)
{
    if (result == -ENOSPC || result == -EDQUOT || result == -EFBIG)
        log_once(disk, &disk->logged_full, "no room for the image to grow: its guest gets I/O errors", result);
    else if (result == -ENODATA)
        log_once(disk, &disk->logged_short, "image has become shorter than its disk: its guest gets I/O errors", result);
    else if (result != -EOPNOTSUPP)
        log_once(disk, &disk->logged_error, "I/O failed", result);
}

static void count(struct disk *disk, const struct blk_request *blk, uint64_t latency_ns)
{
    struct disk_counters *c = &disk->counters;
    struct disk_latency *l = disk->latency;
    switch (blk->op) {
    case BLK_READ:
        c->reads++;
        c->read_bytes += blk->len_bytes;
        histogram_add(&l->read, latency_ns);
        break;
    case BLK_WRITE:
        c->writes++;
        c->written_bytes += blk->len_bytes;
        histogram_add(&l->write, latency_ns);
        break;
    case BLK_FLUSH:
        c->flushes++;
        histogram_add(&l->flush, latency_ns);
        break;
    case BLK_DISCARD:
        c->discards++;
        histogram_add(&l->trim, latency_ns);
        break;
    default:
        c->write_zeroes++;
        histogram_add(&l->trim, latency_ns);
        break;
    }
}

// The time for which the disk's own limit held it back does not count.
static void count_if_late(struct disk *disk, const struct dispatch_item *item, uint64_t now_ns)
{
    uint64_t since_ns = item->held_ns > item->enqueued_ns ? item->held_ns : item->enqueued_ns;
    disk->promised.usage.late += now_ns - since_ns >= disk->promised.late_ns;
}

static void on_done(struct transfer *t, int result)
{
    struct disk_request *request = (struct disk_request *)((char *)t - offsetof(struct disk_request, transfer));
    struct disk *disk = request->disk;
    struct dispatcher *d = disk->store->dispatcher;
    uint64_t now_ns = clock_now_ns();
    d->ops->complete(d, &request->item, now_ns);
    count_if_late(disk, &request->item, now_ns);
    disk->in_flight[request->queue]--;
    disk->n_in_flight--;
    uint8_t status = VIRTIO_BLK_S_OK;
    if (result) {
        disk->counters.errors++;
        log_failure(disk, result);
        status = result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
    } else {
        count(disk, &t->blk, now_ns - request->item.enqueued_ns);
    }
    answer(disk, request, status);
}

// ---- in ----

static void answer_id(struct disk *disk, struct disk_request *request)
{
    const struct blk_request *blk = &request->transfer.blk;
    size_t at = 0;
    for (unsigned i = 0; i < blk->n_iov; at += blk->iov[i++].iov_len)
        memcpy(blk->iov[i].iov_base, disk->serial + at, blk->iov[i].iov_len);
    answer(disk, request, VIRTIO_BLK_S_OK);
}

// Done by doing nothing: a flush where nothing is ever written, and what covers no byte.
static bool is_empty(const struct disk *disk, const struct blk_request *blk)
{
    switch (blk->op) {
    case BLK_READ:
    case BLK_WRITE:
        return !blk->len_bytes;
    case BLK_FLUSH:
        return disk->image.read_only;
    default:
        return !blk->n_ranges;
    }
}

// 5.2.6.2: writes are stable when they are answered, unless the driver knows of the cache and has left it on.
static bool writes_through(const struct disk *disk)
{
    if (!(disk->acked & 1ull << VIRTIO_BLK_F_FLUSH))
        return true;
    return (disk->acked & 1ull << VIRTIO_BLK_F_CONFIG_WCE) && !disk->writeback;
}

static void enqueue(struct disk *disk, struct disk_request *request)
{
    static const enum dispatch_kind kinds[] = {
        [BLK_READ] = DISPATCH_READ,    [BLK_WRITE] = DISPATCH_WRITE,       [BLK_FLUSH] = DISPATCH_FLUSH,
        [BLK_DISCARD] = DISPATCH_TRIM, [BLK_WRITE_ZEROES] = DISPATCH_TRIM,
    };
    struct transfer *t = &request->transfer;
    struct dispatch_item *item = &request->item;
    t->image = &disk->image;
    t->file = disk->file;
    t->durable = writes_through(disk);
    t->done = on_done;
    item->kind = kinds[t->blk.op];
    item->offset_bytes = t->blk.n_ranges ? t->blk.ranges[0].offset_bytes : t->blk.offset_bytes;
    item->len_bytes = t->blk.len_bytes;
    for (unsigned i = 0; i < t->blk.n_ranges; i++)
        item->len_bytes += t->blk.ranges[i].len_bytes;
    item->enqueued_ns = clock_now_ns();
    item->cost_ns = 0;
    item->held_ns = 0;
    disk->in_flight[request->queue]++;
    disk->n_in_flight++;
    struct dispatcher *d = disk->store->dispatcher;
    d->ops->enqueue(d, disk->queue, item);
}

void disk_begin(struct disk_request *request)
{
    transfer_start(&request->disk->store->env, &request->transfer);
}

static void accept_chain(struct disk *disk, unsigned queue, struct disk_request *request, const struct virtq_chain *chain)
{
    struct blk_geometry geometry = {
        .capacity_bytes = disk->image.size_bytes,
        .block_size_bytes = disk->image.block_size_bytes,
        .read_only = disk->image.read_only,
        .discard = disk->acked & 1ull << VIRTIO_BLK_F_DISCARD,
        .write_zeroes = disk->acked & 1ull << VIRTIO_BLK_F_WRITE_ZEROES,
    };
    struct blk_request *blk = &request->transfer.blk;
    request->disk = disk;
    request->queue = (uint16_t)queue;
    request->head = chain->head;
    int r = blk_request_decode(blk, chain, &geometry);
    if (r)
        disk->counters.refused++;
    if (r < 0) {
        push(disk, queue, chain->head, 0);
        put_slot(disk, request);
    } else if (r > 0) {
        answer(disk, request, (uint8_t)r);
    } else if (blk->op == BLK_GET_ID) {
        answer_id(disk, request);
    } else if (is_empty(disk, blk)) {
        answer(disk, request, VIRTIO_BLK_S_OK);
    } else {
        enqueue(disk, request);
    }
}

void disk_request_pop(struct disk *disk, unsigned queue)
{
    struct virtq_chain *chain = &disk->store->chain;
    disk->starved &= ~(1ull << queue);
    for (unsigned budget = DISK_POP_BUDGET; budget; budget--) {
        struct disk_request *request = get_slot(disk);
        if (!request)
            break;
        if (vhost_backend_pop(disk->backend, queue, chain) != 1) {
            put_slot(disk, request);
            return;
        }
        accept_chain(disk, queue, request, chain);
    }
    disk->starved |= 1ull << queue;
    store_mark_dirty(disk);
}

bool disk_is_eager(const struct disk *disk)
{
    return disk->starved && (disk->free || disk->n_used < DISK_REQUESTS_MAX);
}

void disk_pop_starved(struct disk *disk)
{
    for (uint64_t todo = disk->starved; todo; todo &= todo - 1)
        disk_request_pop(disk, (unsigned)__builtin_ctzll(todo));
}

void disk_call_queues(struct disk *disk)
{
    uint64_t todo = disk->to_call;
    disk->to_call = 0;
    for (; todo; todo &= todo - 1)
        vhost_backend_call(disk->backend, (unsigned)__builtin_ctzll(todo));
}
