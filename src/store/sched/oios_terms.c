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

static bool has_any(const struct dispatch_rates *rates)
{
    return rates->bytes_per_s || rates->ops_per_s || rates->device_ppm;
}

static void set_units(double per_unit_ns[3], const struct dispatch_rates *rates)
{
    per_unit_ns[0] = (double)NS_PER_S / (double)rates->bytes_per_s; // of what there is none, not used
    per_unit_ns[1] = (double)NS_PER_S / (double)rates->ops_per_s;
    per_unit_ns[2] = 1e6 / rates->device_ppm;
}

void terms_set(struct dispatch_queue *queue, const struct dispatch_terms *terms, uint64_t now_ns, uint64_t slip_ns)
{
    for (int i = 0; i < 3; i++) {
        queue->limit_ns[i] = now_ns;
        queue->reserve_ns[i] = now_ns - slip_ns;
    }
    queue->terms = *terms;
    set_units(queue->limit_unit_ns, &terms->limit);
    set_units(queue->reserve_unit_ns, &terms->reserve);
    queue->has_limit = has_any(&terms->limit);
    queue->has_reserve = has_any(&terms->reserve);
    queue->has_latency = terms->latency_ns;
}

static void move_to(uint64_t clocks[3], uint64_t least_ns)
{
    for (int i = 0; i < 3; i++)
        if (clocks[i] < least_ns)
            clocks[i] = least_ns;
}

static uint64_t before(uint64_t now_ns, uint64_t ns)
{
    return now_ns > ns ? now_ns - ns : 0;
}

static void charge(uint64_t clocks[3], const struct dispatch_rates *rates, const double per_unit_ns[3],
                   const struct dispatch_item *item)
{
    if (rates->bytes_per_s)
        clocks[0] += (uint64_t)((double)item->len_bytes * per_unit_ns[0]);
    if (rates->ops_per_s)
        clocks[1] += (uint64_t)per_unit_ns[1];
    if (rates->device_ppm)
        clocks[2] += (uint64_t)(item->cost_ns * per_unit_ns[2]);
}

void terms_begin(struct dispatch_queue *queue, uint64_t now_ns, uint64_t slip_ns)
{
    move_to(queue->reserve_ns, now_ns - slip_ns);
}

void terms_return(struct dispatch_queue *queue, uint64_t now_ns, uint64_t slip_ns)
{
    if (queue->has_reserve)
        move_to(queue->reserve_ns, before(now_ns - slip_ns, RESERVE_SLACK_NS));
}

static void charge_reserve(struct dispatch_queue *queue, const struct dispatch_item *item, uint64_t now_ns)
{
    uint64_t took[3] = {0};
    charge(took, &queue->terms.reserve, queue->reserve_unit_ns, item);
    for (int i = 0; i < 3; i++) {
        uint64_t most_ns = now_ns + (took[i] > RESERVE_LEAD_NS ? took[i] : RESERVE_LEAD_NS);
        queue->reserve_ns[i] += took[i];
        if (queue->reserve_ns[i] > most_ns)
            queue->reserve_ns[i] = most_ns;
    }
}

void terms_charge(struct dispatch_queue *queue, const struct dispatch_item *item, uint64_t now_ns, uint64_t slip_ns)
{
    if (queue->has_limit) {
        move_to(queue->limit_ns, before(now_ns, LIMIT_SLACK_NS));
        charge(queue->limit_ns, &queue->terms.limit, queue->limit_unit_ns, item);
    }
    if (queue->has_reserve)
        charge_reserve(queue, item, now_ns - slip_ns);
}

uint64_t terms_slip_ns(uint64_t slip_ns, uint64_t furthest_behind_ns, uint64_t now_ns)
{
    uint64_t least_ns = furthest_behind_ns + RESERVE_SLACK_NS;
    return now_ns - slip_ns > least_ns ? now_ns - least_ns : slip_ns;
}

uint64_t terms_gate_ns(const struct dispatch_queue *queue)
{
    const struct dispatch_rates *limit = &queue->terms.limit;
    uint64_t gate_ns = 0;
    if (limit->bytes_per_s)
        gate_ns = queue->limit_ns[0];
    if (limit->ops_per_s && queue->limit_ns[1] > gate_ns)
        gate_ns = queue->limit_ns[1];
    if (limit->device_ppm && queue->limit_ns[2] > gate_ns)
        gate_ns = queue->limit_ns[2];
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
    const struct dispatch_rates *reserve = &queue->terms.reserve;
    uint64_t behind_ns = UINT64_MAX;
    if (reserve->bytes_per_s)
        behind_ns = queue->reserve_ns[0];
    if (reserve->ops_per_s && queue->reserve_ns[1] < behind_ns)
        behind_ns = queue->reserve_ns[1];
    if (reserve->device_ppm && queue->reserve_ns[2] < behind_ns)
        behind_ns = queue->reserve_ns[2];
    return behind_ns;
}
