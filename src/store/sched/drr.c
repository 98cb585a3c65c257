// Deficit round robin: M. Shreedhar, G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", SIGCOMM 1995, section 3.
//
// Disks with requests take turns. Each turn adds the disk's quantum to its deficit counter, and its requests go as long as the
// counter pays for them, by the byte; a disk whose queue runs empty loses what is left.
#include "store/sched/item_fifo.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define QUANTUM_BYTES 160u // for each unit of weight; 16 KB at the default: more than usual requests, less than usual queues
#define COST_LEAST_BYTES 4096u

struct drr {
    struct dispatcher base;
    struct dispatch_queue *turn, *last; // a line of the queues with requests
    unsigned window, in_flight;
};

struct dispatch_queue {
    struct dispatch_queue *link;
    struct item_fifo line;
    uint64_t deficit_bytes;
    uint32_t weight;
    unsigned held;
    bool has_turn; // the quantum of this turn is in the counter
};

static struct dispatcher *drr_create(const struct dispatch_config *config, struct tv_error *err)
{
    struct drr *r = calloc(1, sizeof(*r));
    if (!r) {
        tv_error_set(err, -ENOMEM, "dispatcher: out of memory");
        return NULL;
    }
    r->base.ops = &dispatch_drr;
    r->window = config->window;
    return &r->base;
}

static void drr_destroy(struct dispatcher *d)
{
    free(d);
}

static struct dispatch_queue *drr_queue_add(struct dispatcher *d, const char *disk, struct tv_error *err)
{
    (void)d;
    struct dispatch_queue *queue = calloc(1, sizeof(*queue));
    if (!queue) {
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk);
        return NULL;
    }
    queue->weight = DISPATCH_WEIGHT_DEFAULT;
    return queue;
}

static void drr_queue_remove(struct dispatcher *d, struct dispatch_queue *queue)
{
    (void)d;
    assert(!queue->held);
    free(queue);
}

static int drr_queue_set(struct dispatcher *d, struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns,
                         struct tv_error *err)
{
    (void)now_ns;
    int r = dispatch_check_terms(d->ops, terms, DISPATCH_KNOWS_WEIGHT, err);
    if (!r)
        queue->weight = terms->weight;
    return r;
}

static void join(struct drr *r, struct dispatch_queue *queue)
{
    queue->link = NULL;
    queue->has_turn = false;
    if (r->turn)
        r->last->link = queue;
    else
        r->turn = queue;
    r->last = queue;
}

static void drr_enqueue(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item)
{
    item->queue = queue;
    queue->held++;
    if (!queue->line.head)
        join((struct drr *)d, queue);
    item_fifo_push(&queue->line, item);
}

static uint64_t cost(const struct dispatch_item *item)
{
    return item->len_bytes > COST_LEAST_BYTES ? item->len_bytes : COST_LEAST_BYTES;
}

// The disk whose counter pays for its first request.
static struct dispatch_queue *find_turn(struct drr *r)
{
    for (;;) {
        struct dispatch_queue *queue = r->turn;
        if (!queue->has_turn)
            queue->deficit_bytes += (uint64_t)queue->weight * QUANTUM_BYTES;
        queue->has_turn = true;
        if (queue->deficit_bytes >= cost(queue->line.head))
            return queue;
        r->turn = queue->link;
        join(r, queue);
    }
}

static struct dispatch_item *drr_next(struct dispatcher *d, uint64_t now_ns)
{
    (void)now_ns;
    struct drr *r = (struct drr *)d;
    if (!r->turn || r->in_flight == r->window)
        return NULL;
    struct dispatch_queue *queue = find_turn(r);
    struct dispatch_item *item = item_fifo_pop(&queue->line);
    queue->deficit_bytes -= cost(item);
    if (!queue->line.head) {
        queue->deficit_bytes = 0;
        r->turn = queue->link;
    }
    r->in_flight++;
    d->counters.dispatched++;
    return item;
}

static void drr_complete(struct dispatcher *d, struct dispatch_item *item, uint64_t now_ns)
{
    (void)now_ns;
    struct drr *r = (struct drr *)d;
    r->in_flight--;
    item->queue->held--;
}

const struct dispatch_ops dispatch_drr = {
    .name = "drr",
    .create = drr_create,
    .destroy = drr_destroy,
    .queue_add = drr_queue_add,
    .queue_remove = drr_queue_remove,
    .queue_set = drr_queue_set,
    .enqueue = drr_enqueue,
    .next = drr_next,
    .wake_ns = dispatch_never_wakes,
    .complete = drr_complete,
};
