// Start-time fair queueing with depth D: W. Jin, J. S. Chase, J. Kaur, "Interposed Proportional Sharing for a Storage Service
// Utility", SIGMETRICS 2004, section 4.1 (SFQ(D)), after P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996. D is the dispatcher's window.
//
// A request's start tag is the larger of the virtual time at its arrival and the finish tag of the disk's request before it; its
// finish tag is cost / weight later. The least start tag goes first, and is then the virtual time. The cost is the length. Since
// the virtual time never passes the start tag of what is queued, tags are made when a request comes to the head of its queue.
#include "store/sched/item_fifo.h"

#include "base/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define COST_LEAST_BYTES 4096u

struct sfq {
    struct dispatcher base;
    struct heap starts; // of queues with requests, by the start tag of the first
    unsigned window, in_flight, n_queues;
    uint64_t virtual_time, last_finish;
};

struct dispatch_queue {
    struct heap_node start; // first
    struct item_fifo line;
    uint64_t finish; // of what was dispatched last
    uint32_t weight;
    unsigned held;
};

static struct dispatcher *sfq_create(const struct dispatch_config *config, struct tv_error *err)
{
    struct sfq *s = calloc(1, sizeof(*s));
    if (!s) {
        tv_error_set(err, -ENOMEM, "dispatcher: out of memory");
        return NULL;
    }
    s->base.ops = &dispatch_sfq;
    s->window = config->window;
    return &s->base;
}

static void sfq_destroy(struct dispatcher *d)
{
    struct sfq *s = (struct sfq *)d;
    heap_fini(&s->starts);
    free(s);
}

static struct dispatch_queue *sfq_queue_add(struct dispatcher *d, const char *disk, struct tv_error *err)
{
    struct sfq *s = (struct sfq *)d;
    struct dispatch_queue *queue = calloc(1, sizeof(*queue));
    if (!queue || heap_reserve(&s->starts, s->n_queues + 1)) {
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk);
        free(queue);
        return NULL;
    }
    s->n_queues++;
    queue->weight = DISPATCH_WEIGHT_DEFAULT;
    return queue;
}

static void sfq_queue_remove(struct dispatcher *d, struct dispatch_queue *queue)
{
    struct sfq *s = (struct sfq *)d;
    assert(!queue->held);
    s->n_queues--;
    free(queue);
}

static int sfq_queue_set(struct dispatcher *d, struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns,
                         struct tv_error *err)
{
    (void)now_ns;
    int r = dispatch_check_terms(d->ops, terms, DISPATCH_KNOWS_WEIGHT, err);
    if (!r)
        queue->weight = terms->weight;
    return r;
}

static void sfq_enqueue(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item)
{
    struct sfq *s = (struct sfq *)d;
    item->queue = queue;
    item_fifo_push(&queue->line, item);
    queue->held++;
    if (!queue->start.at)
        heap_push(&s->starts, &queue->start, queue->finish > s->virtual_time ? queue->finish : s->virtual_time);
}

static uint64_t tag_length(const struct dispatch_queue *queue, const struct dispatch_item *item)
{
    uint64_t cost = item->len_bytes > COST_LEAST_BYTES ? item->len_bytes : COST_LEAST_BYTES;
    return cost * DISPATCH_WEIGHT_MAX / queue->weight;
}

static struct dispatch_item *sfq_next(struct dispatcher *d, uint64_t now_ns)
{
    (void)now_ns;
    struct sfq *s = (struct sfq *)d;
    struct dispatch_queue *queue = (struct dispatch_queue *)heap_first(&s->starts);
    if (!queue || s->in_flight == s->window)
        return NULL;
    heap_remove(&s->starts, &queue->start);
    struct dispatch_item *item = item_fifo_pop(&queue->line);
    s->virtual_time = queue->start.key;
    queue->finish = queue->start.key + tag_length(queue, item);
    if (queue->finish > s->last_finish)
        s->last_finish = queue->finish;
    if (queue->line.head)
        heap_push(&s->starts, &queue->start, queue->finish);
    s->in_flight++;
    d->counters.dispatched++;
    return item;
}

static void sfq_complete(struct dispatcher *d, struct dispatch_item *item, uint64_t now_ns)
{
    (void)now_ns;
    struct sfq *s = (struct sfq *)d;
    item->queue->held--;
    if (!--s->in_flight && !s->starts.n) // the end of a busy period
        s->virtual_time = s->last_finish;
}

const struct dispatch_ops dispatch_sfq = {
    .name = "sfq",
    .create = sfq_create,
    .destroy = sfq_destroy,
    .queue_add = sfq_queue_add,
    .queue_remove = sfq_queue_remove,
    .queue_set = sfq_queue_set,
    .enqueue = sfq_enqueue,
    .next = sfq_next,
    .wake_ns = dispatch_never_wakes,
    .complete = sfq_complete,
};
