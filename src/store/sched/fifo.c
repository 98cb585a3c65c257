// First come, first served: the simplest dispatcher (see dispatch.h).
#include "store/sched/item_fifo.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct fifo {
    struct dispatcher base;
    struct item_fifo line;      // one for all disks, in the order of arrival
    unsigned window, in_flight; // in_flight <= window
};

struct dispatch_queue {
    unsigned held; // queued or with the device
};

static struct dispatcher *fifo_create(const struct dispatch_config *config, struct tv_error *err)
{
    struct fifo *f = calloc(1, sizeof(*f));
    if (!f) {
        tv_error_set(err, -ENOMEM, "dispatcher: out of memory");
        return NULL;
    }
    f->base.ops = &dispatch_fifo;
    f->window = config->window;
    return &f->base;
}

static void fifo_destroy(struct dispatcher *d)
{
    free(d);
}

static struct dispatch_queue *fifo_queue_add(struct dispatcher *d, const char *disk, struct tv_error *err)
{
    (void)d;
    struct dispatch_queue *queue = calloc(1, sizeof(*queue));
    if (!queue)
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk);
    return queue;
}

static void fifo_queue_remove(struct dispatcher *d, struct dispatch_queue *queue)
{
    (void)d;
    assert(!queue->held);
    free(queue);
}

static int fifo_queue_set(struct dispatcher *d, struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns,
                          struct tv_error *err)
{
    (void)queue, (void)now_ns;
    return dispatch_check_terms(d->ops, terms, 0, err);
}

static void fifo_enqueue(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item)
{
    struct fifo *f = (struct fifo *)d;
    item->queue = queue;
    item_fifo_push(&f->line, item);
    queue->held++;
}

static struct dispatch_item *fifo_next(struct dispatcher *d, uint64_t now_ns)
{
    (void)now_ns;
    struct fifo *f = (struct fifo *)d;
    if (!f->line.head || f->in_flight == f->window)
        return NULL;
    f->in_flight++;
    d->counters.dispatched++;
    return item_fifo_pop(&f->line);
}

static void fifo_complete(struct dispatcher *d, struct dispatch_item *item, uint64_t now_ns)
{
    (void)now_ns;
    struct fifo *f = (struct fifo *)d;
    f->in_flight--;
    item->queue->held--;
}

const struct dispatch_ops dispatch_fifo = {
    .name = "fifo",
    .create = fifo_create,
    .destroy = fifo_destroy,
    .queue_add = fifo_queue_add,
    .queue_remove = fifo_queue_remove,
    .queue_set = fifo_queue_set,
    .enqueue = fifo_enqueue,
    .next = fifo_next,
    .wake_ns = dispatch_never_wakes,
    .complete = fifo_complete,
};
