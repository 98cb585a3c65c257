// What a worker keeps of what was promised: see promises.h.
#include "router/promises.h"

#include "base/clock.h"

static uint64_t product(uint64_t value, uint64_t factor, uint64_t divisor)
{
    const unsigned __int128 product = (unsigned __int128)value * factor / divisor;
    return product < PROMISE_VALUE_MAX ? (uint64_t)product : PROMISE_VALUE_MAX;
}

uint64_t terms_rate(const struct promise_set *set, enum promise_kind kind, enum pace_metric metric, uint64_t hz)
{
    static const enum promise_metric metrics[PACE_METRICS] = {
        [PACE_BITS] = PROMISE_BIT_RATE, [PACE_PACKETS] = PROMISE_PACKETS, [PACE_CYCLES] = PROMISE_UTILIZATION};
    const struct promise *p = promise_set_find(set, kind, metrics[metric]);
    if (!p)
        return 0;
    return metric == PACE_CYCLES ? product(p->value, hz, 1000000) : p->value;
}

void terms_set(struct pace_terms *terms, const struct promise_set *set, const uint64_t reserve[static PACE_METRICS], uint64_t hz)
{
    const struct promise *latency = promise_set_find(set, PROMISE_RESERVE, PROMISE_LATENCY);
    atomic_store_explicit(&terms->weight, promise_set_weight(set), memory_order_relaxed);
    atomic_store_explicit(&terms->late_cycles, latency ? product(latency->value, hz, NS_PER_S) : 0, memory_order_relaxed);
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        const uint64_t own = terms_rate(set, PROMISE_RESERVE, i, hz);
        atomic_store_explicit(&terms->limit[i], terms_rate(set, PROMISE_LIMIT, i, hz), memory_order_relaxed);
        atomic_store_explicit(&terms->reserve[i], own > reserve[i] ? own : reserve[i], memory_order_relaxed);
    }
}
