// OIOS: the clocks of reservations and limits. See oios.h.
//
// A clock says up to when the disk has had what a rate gives: each request moves it on by the time that the rate allows for it. A
// limit's clock may lie LIMIT_SLACK_NS behind, so that a disk that was served a little late still gets its whole rate; what it
// could have had before that is lost. A reservation's clock lies at most RESERVE_LEAD_NS ahead: what a disk gets beyond its
// reservation is not held against it. And it lies behind by as much as the device could not deliver, as long as the disk has
// something to do.
//
// Reservations run in a time of their own, which is behind the real one by `slip`. When they cannot all be kept, because the device
// has become slower, that time stands still whenever the one furthest behind is RESERVE_SLACK_NS late: all are then kept in
// proportion.
#include "store/sched/oios.h"

#include "base/clock.h"

#define LIMIT_SLACK_NS (6 * NS_PER_MS)
#define RESERVE_SLACK_NS (180 * NS_PER_MS)
#define RESERVE_LEAD_NS NS_PER_MS

static void add_clock(struct oios_clocks *clocks, enum oios_metric metric, double unit_ns, uint64_t ns)
{
    clocks->clock[clocks->n++] = (struct oios_clock){.ns = ns, .unit_ns = unit_ns, .metric = metric};
}

static void set_clocks(struct oios_clocks *clocks, const struct dispatch_rates *rates, uint64_t ns)
{
    clocks->n = 0;
    if (rates->bytes_per_s)
        add_clock(clocks, OIOS_BYTES, (double)NS_PER_S / (double)rates->bytes_per_s, ns);
    if (rates->ops_per_s)
        add_clock(clocks, OIOS_REQUESTS, (double)NS_PER_S / (double)rates->ops_per_s, ns);
    if (rates->device_ppm)
        add_clock(clocks, OIOS_DEVICE_NS, 1e6 / rates->device_ppm, ns);
}

void terms_set(struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns, uint64_t slip_ns)
{
    queue->terms = *terms;
    set_clocks(&queue->limit, &terms->limit, now_ns);
    set_clocks(&queue->reserve, &terms->reserve, now_ns - slip_ns);
    queue->has_latency = terms->latency_ns;
    queue->is_plain = !queue->limit.n && !queue->reserve.n && !queue->has_latency;
}

static void move_to(struct oios_clocks *clocks, uint64_t least_ns)
{
    for (unsigned i = 0; i < clocks->n; i++)
        if (clocks->clock[i].ns < least_ns)
            clocks->clock[i].ns = least_ns;
}

static uint64_t before(uint64_t now_ns, uint64_t ns)
{
    return now_ns > ns ? now_ns - ns : 0;
}

// How far an item moves a clock.
static uint64_t takes_ns(const struct oios_clock *clock, const struct dispatch_item *item)
{
    switch (clock->metric) {
    case OIOS_BYTES:
        return (uint64_t)((double)item->len_bytes * clock->unit_ns);
    case OIOS_REQUESTS:
        return (uint64_t)clock->unit_ns;
    case OIOS_DEVICE_NS:
        return (uint64_t)(item->cost_ns * clock->unit_ns);
    }
    return 0;
}

void terms_begin(struct dispatch_queue *queue, uint64_t now_ns, uint64_t slip_ns)
{
    move_to(&queue->reserve, now_ns - slip_ns);
}

void terms_return(struct dispatch_queue *queue, uint64_t now_ns, uint64_t slip_ns)
{
    move_to(&queue->reserve, before(now_ns - slip_ns, RESERVE_SLACK_NS));
}

void terms_charge(struct dispatch_queue *queue, const struct dispatch_item *item, uint64_t now_ns, uint64_t slip_ns)
{
    const uint64_t least_ns = before(now_ns, LIMIT_SLACK_NS), reserve_now_ns = now_ns - slip_ns;
    for (struct oios_clock *c = queue->limit.clock, *end = c + queue->limit.n; c < end; c++)
        c->ns = (c->ns < least_ns ? least_ns : c->ns) + takes_ns(c, item);
    for (struct oios_clock *c = queue->reserve.clock, *end = c + queue->reserve.n; c < end; c++) {
        const uint64_t took_ns = takes_ns(c, item),
                       most_ns = reserve_now_ns + (took_ns > RESERVE_LEAD_NS ? took_ns : RESERVE_LEAD_NS);
        c->ns = c->ns + took_ns < most_ns ? c->ns + took_ns : most_ns;
    }
}

uint64_t terms_slip_ns(uint64_t slip_ns, uint64_t furthest_behind_ns, uint64_t now_ns)
{
    uint64_t least_ns = furthest_behind_ns + RESERVE_SLACK_NS;
    return now_ns - slip_ns > least_ns ? now_ns - least_ns : slip_ns;
}

uint64_t terms_gate_ns(const struct dispatch_queue *queue)
{
    uint64_t gate_ns = 0;
    for (unsigned i = 0; i < queue->limit.n; i++)
        if (queue->limit.clock[i].ns > gate_ns)
            gate_ns = queue->limit.clock[i].ns;
    return gate_ns;
}

// A promised latency does not count the time that a request waits for its own disk's limit.
uint64_t terms_since_ns(const struct dispatch_queue *queue, const struct dispatch_item *head)
{
    uint64_t gate_ns = terms_gate_ns(queue);
    return gate_ns > head->enqueued_ns ? gate_ns : head->enqueued_ns;
}

uint64_t terms_behind_ns(const struct dispatch_queue *queue)
{
    uint64_t behind_ns = UINT64_MAX;
    for (unsigned i = 0; i < queue->reserve.n; i++)
        if (queue->reserve.clock[i].ns < behind_ns)
            behind_ns = queue->reserve.clock[i].ns;
    return behind_ns;
}
