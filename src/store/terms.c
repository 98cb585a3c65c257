// What the scheduler is told of a disk's promises: see terms.h.
#include "store/terms.h"

static uint64_t value_of(const struct promise_set *set, enum promise_kind kind, enum promise_metric metric)
{
    const struct promise *p = promise_set_find(set, kind, metric);
    return p ? p->value : 0;
}

static struct dispatch_rates rates_of(const struct promise_set *set, enum promise_kind kind)
{
    return (struct dispatch_rates){.bytes_per_s = value_of(set, kind, PROMISE_BANDWIDTH),
                                   .ops_per_s = value_of(set, kind, PROMISE_OPERATIONS),
                                   .device_ppm = (uint32_t)value_of(set, kind, PROMISE_UTILIZATION)};
}

struct dispatch_terms terms_of_promises(const struct promise_set *set)
{
    _Static_assert(PROMISE_WEIGHT_DEFAULT == DISPATCH_WEIGHT_DEFAULT && PROMISE_WEIGHT_MAX == DISPATCH_WEIGHT_MAX,
                   "the same weights");
    const struct promise *latency = promise_set_find(set, PROMISE_RESERVE, PROMISE_LATENCY);
    return (struct dispatch_terms){.weight = promise_set_weight(set),
                                   .reserve = rates_of(set, PROMISE_RESERVE),
                                   .limit = rates_of(set, PROMISE_LIMIT),
                                   .latency_ns = latency ? latency->value : 0,
                                   .latency_permille = latency ? latency->per_mille : 0};
}
