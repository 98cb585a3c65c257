// mClock: A. Gulati, A. Merchant, P. J. Varman, "mClock: Handling Throughput Variability for Hypervisor IO Scheduling", OSDI 2010,
// section 3.1 and algorithm 1.
//
// Each request has three tags in real time: R for the reservation, L for the limit, P for the weight; each is its rate's interval
// after the tag of the disk's request before it, but not before its arrival. While some R tag is due, the least R tag goes
// (constraint-based phase); else, of the requests whose L tag is due, the least P tag (weight-based phase), and then the disk's R
// tags are moved back, so that what it gets by its weight does not count against its reservation. A disk that was idle starts at
// the least P tag of the others. The tags of all but the first request of a disk follow from the first's, so only those are kept.
//
// Beyond the paper: rates in bytes beside those in requests; a tag is then advanced by the longer of the two intervals. A request
// counts for the weight as section 3.2 has it: once, and once more for each COST_BYTES.
#include "store/sched/item_fifo.h"

#include "base/clock.h"
#include "base/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define COST_BYTES 32768u

struct mclock {
    struct dispatcher base;
    struct heap reserved; // by R, of those queues with requests and a reservation
    struct heap ready;    // by P, of those whose L is due
    struct heap limited;  // by L, of the others
    unsigned window, in_flight, n_queues;
};

struct dispatch_queue {
    struct heap_node r, p, l; // keys are the tags of the first request
    struct item_fifo line;
    struct dispatch_terms terms;
    uint64_t last_r, last_p, last_l; // of the request dispatched last
    unsigned held;
};

#define QUEUE_OF(node, member) ((struct dispatch_queue *)((char *)(node)-offsetof(struct dispatch_queue, member)))

static struct dispatcher *mclock_create(const struct dispatch_config *config, struct tv_error *err)
{
    struct mclock *m = calloc(1, sizeof(*m));
    if (!m) {
        tv_error_set(err, -ENOMEM, "dispatcher: out of memory");
        return NULL;
    }
    m->base.ops = &dispatch_mclock;
    m->window = config->window;
    return &m->base;
}

static void mclock_destroy(struct dispatcher *d)
{
    struct mclock *m = (struct mclock *)d;
    heap_fini(&m->reserved);
    heap_fini(&m->ready);
    heap_fini(&m->limited);
    free(m);
}

static struct dispatch_queue *mclock_queue_add(struct dispatcher *d, const char *disk, struct tv_error *err)
{
    struct mclock *m = (struct mclock *)d;
    size_t n = m->n_queues + 1;
    struct dispatch_queue *queue = calloc(1, sizeof(*queue));
    if (!queue || heap_reserve(&m->reserved, n) || heap_reserve(&m->ready, n) || heap_reserve(&m->limited, n)) {
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk);
        free(queue);
        return NULL;
    }
    m->n_queues++;
    queue->terms = dispatch_no_terms;
    return queue;
}

static void mclock_queue_remove(struct dispatcher *d, struct dispatch_queue *queue)
{
    struct mclock *m = (struct mclock *)d;
    assert(!queue->held);
    m->n_queues--;
    free(queue);
}

// How long the request takes at these rates; 0: there are none.
static uint64_t interval_ns(const struct dispatch_rates *rates, const struct dispatch_item *item)
{
    uint64_t of_request = rates->ops_per_s ? NS_PER_S / rates->ops_per_s : 0;
    uint64_t of_bytes = rates->bytes_per_s ? item->len_bytes * NS_PER_S / rates->bytes_per_s : 0;
    return of_request > of_bytes ? of_request : of_bytes;
}

static uint64_t weight_interval(const struct dispatch_queue *queue, const struct dispatch_item *item)
{
    return (COST_BYTES + item->len_bytes) * DISPATCH_WEIGHT_MAX / queue->terms.weight;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// Puts the queue, by the tags of its first request, where it belongs.
static void put(struct mclock *m, struct dispatch_queue *queue, uint64_t least_p, uint64_t now_ns)
{
    const struct dispatch_item *item = queue->line.head;
    uint64_t r = interval_ns(&queue->terms.reserve, item), l = interval_ns(&queue->terms.limit, item);
    if (r)
        heap_push(&m->reserved, &queue->r, later(queue->last_r + r, item->enqueued_ns));
    queue->p.key = later(queue->last_p + weight_interval(queue, item), least_p);
    queue->l.key = l ? later(queue->last_l + l, item->enqueued_ns) : 0;
    if (queue->l.key > now_ns)
        heap_push(&m->limited, &queue->l, queue->l.key);
    else
        heap_push(&m->ready, &queue->p, queue->p.key);
}

static void take_out(struct mclock *m, struct dispatch_queue *queue)
{
    if (queue->r.at)
        heap_remove(&m->reserved, &queue->r);
    if (queue->p.at)
        heap_remove(&m->ready, &queue->p);
    if (queue->l.at)
        heap_remove(&m->limited, &queue->l);
}

static int mclock_queue_set(struct dispatcher *d, struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns,
                            struct tv_error *err)
{
    struct mclock *m = (struct mclock *)d;
    int r = dispatch_check_terms(d->ops, terms, DISPATCH_KNOWS_WEIGHT | DISPATCH_KNOWS_RATES, err);
    if (r)
        return r;
    take_out(m, queue);
    queue->terms = *terms;
    queue->last_r = queue->last_l = now_ns;
    if (queue->line.head)
        put(m, queue, 0, now_ns);
    return 0;
}

static void mclock_enqueue(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item)
{
    struct mclock *m = (struct mclock *)d;
    bool was_idle = !queue->line.head;
    item->queue = queue;
    queue->held++;
    item_fifo_push(&queue->line, item);
    if (was_idle)
        put(m, queue, m->ready.n ? heap_first_key(&m->ready) : 0, item->enqueued_ns);
}

static void release_limited(struct mclock *m, uint64_t now_ns)
{
    while (heap_first_key(&m->limited) <= now_ns) {
        struct dispatch_queue *queue = QUEUE_OF(heap_first(&m->limited), l);
        heap_remove(&m->limited, &queue->l);
        heap_push(&m->ready, &queue->p, queue->p.key);
    }
}

static struct dispatch_item *mclock_next(struct dispatcher *d, uint64_t now_ns)
{
    struct mclock *m = (struct mclock *)d;
    if (m->in_flight == m->window)
        return NULL;
    release_limited(m, now_ns);
    bool constrained = heap_first_key(&m->reserved) <= now_ns;
    if (!constrained && !m->ready.n)
        return NULL;
    struct dispatch_queue *queue = constrained ? QUEUE_OF(heap_first(&m->reserved), r) : QUEUE_OF(heap_first(&m->ready), p);
    bool is_reserved = queue->r.at;
    take_out(m, queue);
    struct dispatch_item *item = item_fifo_pop(&queue->line);
    if (is_reserved)
        queue->last_r = queue->r.key;
    if (is_reserved && !constrained)
        queue->last_r -= interval_ns(&queue->terms.reserve, item);
    queue->last_p = queue->p.key;
    queue->last_l = queue->l.key;
    if (queue->line.head)
        put(m, queue, 0, now_ns);
    m->in_flight++;
    d->counters.dispatched++;
    return item;
}

static uint64_t mclock_wake_ns(const struct dispatcher *d)
{
    const struct mclock *m = (const struct mclock *)d;
    if (m->in_flight == m->window)
        return UINT64_MAX;
    uint64_t r = heap_first_key(&m->reserved), l = heap_first_key(&m->limited);
    return r < l ? r : l;
}

static void mclock_complete(struct dispatcher *d, struct dispatch_item *item, uint64_t now_ns)
{
    (void)now_ns;
    struct mclock *m = (struct mclock *)d;
    m->in_flight--;
    item->queue->held--;
}

const struct dispatch_ops dispatch_mclock = {
    .name = "mclock",
    .create = mclock_create,
    .destroy = mclock_destroy,
    .queue_add = mclock_queue_add,
    .queue_remove = mclock_queue_remove,
    .queue_set = mclock_queue_set,
    .enqueue = mclock_enqueue,
    .next = mclock_next,
    .wake_ns = mclock_wake_ns,
    .complete = mclock_complete,
};
