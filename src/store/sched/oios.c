// OIOS: queues, rounds and the order of service. See oios.h.
#include "store/sched/oios.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_BITS 20
#define CACHE_LINE 64
#define CARRY_ROUNDS 2        // opportunities that a disk which always has something to do may have at once
#define RESERVE_DEBT_ROUNDS 2 // as far down a reservation takes the credit
#define LANE_DEBT_ROUNDS 1    // as far down a latency lane takes it

#define QUEUE_OF(node, member) ((struct dispatch_queue *)((char *)(node)-offsetof(struct dispatch_queue, member)))

// ---- rings of queues ----

static void ring_init(struct oios_link *ring)
{
    ring->next = ring->prev = ring;
}

static void ring_insert(struct oios_link *after, struct oios_link *link)
{
    link->next = after->next;
    link->prev = after;
    after->next->prev = link;
    after->next = link;
}

static void ring_remove(struct oios_link *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
    link->next = NULL;
}

// Moves all of the second to the end of the first.
static void ring_append(struct oios_link *ring, struct oios_link *more)
{
    if (more->next == more)
        return;
    more->next->prev = ring->prev;
    ring->prev->next = more->next;
    more->prev->next = ring;
    ring->prev = more->prev;
    ring_init(more);
}

static bool ring_is_empty(const struct oios_link *ring)
{
    return ring->next == ring;
}

// ---- life ----

static struct dispatcher *oios_create(const struct dispatch_config *config, struct tv_error *err)
{
    struct oios *o = calloc(1, sizeof(*o));
    if (!o) {
        tv_error_set(err, -ENOMEM, "dispatcher: out of memory");
        return NULL;
    }
    o->base.ops = &dispatch_oios;
    o->skip = UINT64_MAX;
    o->window_requests = config->window;
    ring_init(&o->turn);
    ring_init(&o->later);
    wheel_init(&o->gates, 16, 16);     // 66 us, 66 ms ahead
    wheel_init(&o->behind, 18, 700);   // 262 us, 184 ms back, 85 ms ahead
    wheel_init(&o->deadlines, 16, 16); // 66 us, 66 ms ahead
    cost_init(&o->cost);
    window_init(&o->window);
    return &o->base;
}

static void oios_destroy(struct dispatcher *d)
{
    free(d);
}

static struct dispatch_queue *oios_queue_add(struct dispatcher *d, const char *disk, struct tv_error *err)
{
    (void)d;
    struct dispatch_queue *queue = NULL;
    if (!posix_memalign((void **)&queue, CACHE_LINE, sizeof(*queue)))
        memset(queue, 0, sizeof(*queue));
    if (!queue) {
        tv_error_set(err, -ENOMEM, "disk '%s': out of memory", disk);
        return NULL;
    }
    terms_set(queue, &dispatch_no_terms, 0, 0);
    queue->weight = queue->terms.weight;
    queue->boost = 1;
    return queue;
}

static struct dispatch_queue **find_latency(struct oios *o, const struct dispatch_queue *queue)
{
    struct dispatch_queue **at = &o->latency;
    while (*at && *at != queue)
        at = &(*at)->next_latency;
    return at;
}

static void oios_queue_remove(struct dispatcher *d, struct dispatch_queue *queue)
{
    struct dispatch_queue **at = find_latency((struct oios *)d, queue);
    assert(!queue->n_held);
    if (*at)
        *at = queue->next_latency;
    free(queue);
}

// ---- opportunity ----

static int64_t opportunity(const struct oios *o, const struct dispatch_queue *queue)
{
    return (int64_t)(queue->weight * o->unit_ns >> UNIT_BITS) + 1; // never none at all
}

// Gives what the rounds since the last look have brought.
static void refresh(struct oios *o, struct dispatch_queue *queue)
{
    uint64_t rounds = o->round - queue->round;
    if (!rounds)
        return;
    int64_t each = opportunity(o, queue), most = each * (queue->kept ? CARRY_ROUNDS : 1), missing = most - queue->credit_ns;
    if (missing < 0 || rounds > (uint64_t)(missing / each))
        queue->credit_ns = most;
    else
        queue->credit_ns += each * (int64_t)rounds;
    queue->round = o->round;
    queue->kept = queue->n_held;
}

static void put_in_lane(struct oios *o, struct dispatch_queue *queue, uint64_t now_ns)
{
    if (queue->credit_ns > -LANE_DEBT_ROUNDS * opportunity(o, queue))
        wheel_put(&o->deadlines, &queue->deadline, terms_since_ns(queue, queue->line.head) + queue->terms.latency_ns, now_ns);
}

// It has used its opportunity. Rounds in which nobody of those that wait could go yet are left out.
static void put_later(struct oios *o, struct dispatch_queue *queue)
{
    uint64_t rounds = (uint64_t)(-queue->credit_ns / opportunity(o, queue)) + 1;
    ring_insert(o->later.prev, &queue->link);
    if (rounds < o->skip)
        o->skip = rounds;
}

// Of all that have something to do, the opportunities are one round's time together. Disks come and go all the time: what counts is
// how many there were of late, so that a round is not long because it began at a quiet moment.
static void begin_round(struct oios *o, uint64_t now_ns)
{
    uint64_t of_late = o->round_weight - o->round_weight / 4;
    o->round += o->skip != UINT64_MAX ? o->skip : 1;
    o->skip = UINT64_MAX;
    o->round_weight = o->weight > of_late ? o->weight : of_late ? of_late : 1;
    o->unit_ns = ((uint64_t)OIOS_ROUND_NS << UNIT_BITS) / o->round_weight;
    ring_append(&o->turn, &o->later);
    for (struct dispatch_queue *queue = o->latency; queue; queue = queue->next_latency)
        if (queue->link.next) {
            refresh(o, queue);
            if (!wheel_holds(&queue->deadline))
                put_in_lane(o, queue, now_ns);
        }
}

// ---- where a queue stands ----

// It has requests, and may go or not.
static void place(struct oios *o, struct dispatch_queue *queue, bool returns, uint64_t now_ns)
{
    if (queue->limit.n) {
        uint64_t gate_ns = terms_gate_ns(queue);
        if (gate_ns > now_ns) {
            wheel_put(&o->gates, &queue->gate, gate_ns, now_ns);
            return;
        }
    }
    o->n_ready++;
    queue->ready_ns = now_ns;
    refresh(o, queue);
    if (queue->credit_ns <= 0)
        put_later(o, queue);
    else
        ring_insert(returns ? &o->turn : o->turn.prev, &queue->link);
    if (queue->reserve.n)
        wheel_put(&o->behind, &queue->behind, terms_behind_ns(queue), now_ns - o->slip_ns);
    if (queue->has_latency)
        put_in_lane(o, queue, now_ns);
}

static uint64_t waits_ns(const struct dispatch_queue *queue, uint64_t now_ns)
{
    return queue->link.next && now_ns > queue->ready_ns ? now_ns - queue->ready_ns : 0;
}

static void take_out(struct oios *o, struct dispatch_queue *queue, uint64_t now_ns)
{
    if (queue->link.next) {
        queue->waited_ns += waits_ns(queue, now_ns);
        ring_remove(&queue->link);
        o->n_ready--;
    }
    if (wheel_holds(&queue->gate))
        wheel_remove(&o->gates, &queue->gate);
    if (wheel_holds(&queue->behind))
        wheel_remove(&o->behind, &queue->behind);
    if (wheel_holds(&queue->deadline))
        wheel_remove(&o->deadlines, &queue->deadline);
}

// One that was just served has more, and may go: as if it were taken out and placed anew.
static void go_on(struct oios *o, struct dispatch_queue *queue, uint64_t now_ns)
{
    queue->waited_ns += waits_ns(queue, now_ns);
    queue->ready_ns = now_ns;
    if (queue->credit_ns <= 0) {
        ring_remove(&queue->link);
        put_later(o, queue);
    } else if (o->turn.next != &queue->link) {
        ring_remove(&queue->link);
        ring_insert(&o->turn, &queue->link);
    }
    if (queue->reserve.n)
        wheel_move(&o->behind, &queue->behind, terms_behind_ns(queue), now_ns - o->slip_ns);
    if (queue->has_latency) {
        if (wheel_holds(&queue->deadline))
            wheel_remove(&o->deadlines, &queue->deadline);
        put_in_lane(o, queue, now_ns);
    }
}

static int oios_queue_set(struct dispatcher *d, struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns,
                          struct tv_error *err)
{
    struct oios *o = (struct oios *)d;
    const unsigned all = DISPATCH_KNOWS_WEIGHT | DISPATCH_KNOWS_RATES | DISPATCH_KNOWS_DEVICE | DISPATCH_KNOWS_LATENCY;
    int r = dispatch_check_terms(d->ops, terms, all, err);
    if (r)
        return r;
    struct dispatch_queue **at = find_latency(o, queue);
    if (*at)
        *at = queue->next_latency;
    take_out(o, queue, now_ns);
    terms_set(queue, terms, now_ns, o->slip_ns);
    if (queue->n_held)
        o->weight += (uint64_t)terms->weight - queue->weight;
    queue->weight = terms->weight;
    queue->boost = 1;
    latency_begin(queue);
    queue->credit_ns = 0;
    if (queue->has_latency) {
        queue->next_latency = o->latency;
        o->latency = queue;
    }
    if (queue->line.head)
        place(o, queue, false, now_ns);
    return 0;
}

// ---- data path ----

static void oios_enqueue(struct dispatcher *d, struct dispatch_queue *queue, struct dispatch_item *item)
{
    struct oios *o = (struct oios *)d;
    bool was_empty = !queue->line.head;
    item->queue = queue;
    item_fifo_push(&queue->line, item);
    if (!queue->n_held++) {
        o->weight += queue->weight;
        if (o->weight > 4 * o->round_weight) // its opportunities are too large for so many
            begin_round(o, item->enqueued_ns);
        if (queue->reserve.n)
            terms_begin(queue, item->enqueued_ns, o->slip_ns);
    }
    if (was_empty) {
        o->n_waiting++;
        terms_return(queue, item->enqueued_ns, o->slip_ns);
        place(o, queue, true, item->enqueued_ns);
    }
}

static void open_gates(struct oios *o, uint64_t now_ns)
{
    for (struct wheel_node *node; (node = wheel_due(&o->gates, now_ns));) {
        struct dispatch_queue *queue = QUEUE_OF(node, gate);
        wheel_remove(&o->gates, node);
        terms_return(queue, now_ns, o->slip_ns);
        place(o, queue, true, node->key_ns > now_ns ? node->key_ns : now_ns);
    }
}

static void tick(struct oios *o, uint64_t now_ns)
{
    o->tick_ns = now_ns + OIOS_TICK_NS;
    cost_learn(&o->cost);
    latency_tick(o);
}

// The queue whose turn it is; there is one that may go.
static struct dispatch_queue *pick_turn(struct oios *o, uint64_t now_ns)
{
    for (;;) {
        while (!ring_is_empty(&o->turn)) {
            struct dispatch_queue *queue = (struct dispatch_queue *)o->turn.next;
            refresh(o, queue);
            if (queue->credit_ns > 0)
                return queue;
            ring_remove(&queue->link);
            put_later(o, queue);
        }
        begin_round(o, now_ns);
    }
}

static struct dispatch_item *let_go(struct oios *o, struct dispatch_queue *queue, bool by_reserve, uint64_t now_ns)
{
    struct dispatch_item *item = item_fifo_pop(&queue->line);
    uint64_t gate_ns = queue->is_plain ? 0 : terms_gate_ns(queue);
    item->held_ns = gate_ns < now_ns ? gate_ns : now_ns; // gates open by the wheel's tick, a little early
    uint64_t cost_ns = cost_let_go(&o->cost, item, item->offset_bytes == queue->next_bytes[item->kind]);
    queue->next_bytes[item->kind] = item->offset_bytes + item->len_bytes;
    refresh(o, queue);
    int64_t least_ns = by_reserve ? -RESERVE_DEBT_ROUNDS * opportunity(o, queue) : INT64_MIN;
    int64_t credit_ns = queue->credit_ns - (int64_t)cost_ns;
    if (credit_ns < least_ns)
        credit_ns = queue->credit_ns < least_ns ? queue->credit_ns : least_ns;
    queue->credit_ns = credit_ns;
    if (!queue->is_plain)
        terms_charge(queue, item, now_ns, o->slip_ns);
    item->ahead_ns = o->in_flight_ns < UINT32_MAX ? (uint32_t)o->in_flight_ns : UINT32_MAX;
    o->in_flight++;
    o->in_flight_ns += cost_ns;
    item->in_lane = queue->has_latency;
    o->lane_ns += queue->has_latency ? cost_ns : 0;
    o->base.counters.dispatched++;
    window_let_go(&o->window);
    if (queue->line.head && (queue->is_plain || terms_gate_ns(queue) <= now_ns)) {
        if (!queue->is_plain || credit_ns <= 0) // not the commonest case: that it goes on where it is
            go_on(o, queue, now_ns);
        return item;
    }
    take_out(o, queue, now_ns);
    if (queue->line.head)
        place(o, queue, true, now_ns);
    else
        o->n_waiting--;
    return item;
}

static void nothing_ready(struct oios *o)
{
    o->window.bound = false;
    if (o->in_flight == o->window_requests || window_is_full(&o->window, o->in_flight_ns))
        return;
    o->base.counters.idle += o->n_waiting != o->gates.n; // all that wait must be held back by their limits
    cost_not_full(&o->cost);
    window_not_full(&o->window);
}

static struct dispatch_item *oios_next(struct dispatcher *d, uint64_t now_ns)
{
    struct oios *o = (struct oios *)d;
    if (now_ns >= o->tick_ns)
        tick(o, now_ns);
    if (o->gates.n)
        open_gates(o, now_ns);
    if (!o->n_ready) {
        nothing_ready(o);
        return NULL;
    }
    o->window.bound = true;
    if (o->in_flight == o->window_requests)
        return NULL;
    bool is_full = o->in_flight && window_is_full(&o->window, o->in_flight_ns);
    struct wheel_node *node;
    if (o->deadlines.n && (!is_full || (double)o->lane_ns < o->window.size_ns) && (node = wheel_due(&o->deadlines, UINT64_MAX)))
        return let_go(o, QUEUE_OF(node, deadline), false, now_ns);
    if (is_full)
        return NULL;
    if (o->behind.n && (node = wheel_due(&o->behind, now_ns - o->slip_ns))) {
        o->slip_ns = terms_slip_ns(o->slip_ns, node->key_ns, now_ns);
        return let_go(o, QUEUE_OF(node, behind), true, now_ns);
    }
    return let_go(o, pick_turn(o, now_ns), false, now_ns);
}

static uint64_t oios_wake_ns(const struct dispatcher *d)
{
    return wheel_next_ns(&((struct oios *)d)->gates);
}

static void oios_complete(struct dispatcher *d, struct dispatch_item *item, uint64_t now_ns)
{
    struct oios *o = (struct oios *)d;
    struct dispatch_queue *queue = item->queue;
    o->in_flight--;
    o->in_flight_ns -= item->cost_ns;
    o->lane_ns -= item->in_lane ? item->cost_ns : 0;
    if (!--queue->n_held)
        o->weight -= queue->weight;
    cost_completed(&o->cost, item, now_ns);
    window_completed(&o->window, item, now_ns);
    if (queue->has_latency)
        latency_completed(queue, item, now_ns);
}

static uint64_t oios_waited_ns(const struct dispatcher *d, const struct dispatch_queue *queue, uint64_t now_ns)
{
    (void)d;
    return queue->waited_ns + waits_ns(queue, now_ns);
}

static bool oios_is_device_slow(const struct dispatcher *d, const struct dispatch_queue *queue)
{
    (void)d;
    return queue->given_up && queue->is_device;
}

static bool oios_knows_costs(const struct dispatcher *d)
{
    return ((const struct oios *)d)->cost.n_learned == COST_KNOWN;
}

const struct dispatch_ops dispatch_oios = {
    .name = "oios",
    .create = oios_create,
    .destroy = oios_destroy,
    .queue_add = oios_queue_add,
    .queue_remove = oios_queue_remove,
    .queue_set = oios_queue_set,
    .enqueue = oios_enqueue,
    .next = oios_next,
    .wake_ns = oios_wake_ns,
    .complete = oios_complete,
    .waited_ns = oios_waited_ns,
    .knows_costs = oios_knows_costs,
    .is_device_slow = oios_is_device_slow,
};
