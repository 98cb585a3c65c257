// Limits and reserves as a worker keeps them: see pace.h.
#include "router/pace.h"

#define CREDIT_MAX (INT64_MAX / 2)

struct usage_reading usage_read(const struct usage *usage)
{
    return (struct usage_reading){.packets = counter_get(&usage->packets),
                                  .bits = counter_get(&usage->bits),
                                  .cycles = counter_get(&usage->cycles),
                                  .waited_cycles = counter_get(&usage->waited_cycles),
                                  .late_packets = counter_get(&usage->late_packets),
                                  .full_packets = counter_get(&usage->full_packets),
                                  .full_bits = counter_get(&usage->full_bits),
                                  .full_cycles = counter_get(&usage->full_cycles)};
}

static int64_t product(uint64_t rate, uint64_t cycles)
{
    const unsigned __int128 product = (unsigned __int128)rate * cycles;
    return product < CREDIT_MAX ? (int64_t)product : CREDIT_MAX;
}

// A meter keeps its credit, so that a change of its rate forgives nothing.
static void set_meter(struct meter *meter, uint64_t rate, int64_t least, int64_t most)
{
    meter->rate = rate;
    meter->least = least;
    meter->most = most;
    if (meter->credit > most)
        meter->credit = most;
}

void pace_init(struct pace *pace, struct pace_terms *terms, uint64_t hz, uint64_t now, uint64_t own)
{
    atomic_store_explicit(&terms->entitled, UINT64_MAX, memory_order_relaxed);
    *pace = (struct pace){.terms = terms, .hz = hz, .looked = now, .looked_own = own, .advanced = now, .advanced_own = own};
    pace_apply(pace);
}

void pace_apply(struct pace *pace)
{
    const struct pace_terms *terms = pace->terms;
    const unsigned before = pace->limits | pace->reserves;
    const uint64_t us = pace->hz / 1000000;
    pace->drr.weight = atomic_load_explicit(&terms->weight, memory_order_relaxed);
    pace->late_cycles = counter_get(&terms->late_cycles);
    pace->limits = pace->reserves = 0;
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        const uint64_t limit = counter_get(&terms->limit[i]), reserve = counter_get(&terms->reserve[i]);
        pace->limits |= limit ? 1u << i : 0;
        pace->reserves |= reserve ? 1u << i : 0;
        set_meter(&pace->limit[i], limit, INT64_MIN, product(limit, us * PACE_BURST_US));
        set_meter(&pace->reserve[i], reserve, -product(reserve, us * PACE_AHEAD_US), product(reserve, us * PACE_BEHIND_US));
    }
    set_meter(&pace->entitled, 0, -product(pace->hz, us * PACE_AHEAD_US), product(pace->hz, us * PACE_BEHIND_US));
    if (!pace->limits)
        pace->is_limited = false;
    if (before) // else the meters have stood still
        return;
    pace->advanced = pace->looked;
    pace->advanced_own = pace->looked_own;
}

// A quarter of what the bucket holds, or enough for a burst: one that is awaited packet by packet would be taken packet by packet.
static int64_t worth_while(const struct pace *pace, unsigned metric)
{
    const int64_t quarter = pace->limit[metric].most / 4;
    const uint64_t packet = metric == PACE_BITS ? pace->mean_packet : metric == PACE_PACKETS ? pace->hz : 0;
    return packet && packet < (uint64_t)quarter / 32 ? (int64_t)packet * 32 : quarter;
}

uint64_t pace_wait(const struct pace *pace)
{
    uint64_t wait = 0;
    for (unsigned i = 0; i < PACE_METRICS; i++) {
        const struct meter *limit = &pace->limit[i];
        const int64_t lacking = pace->limits & 1u << i ? worth_while(pace, i) - limit->credit : 0;
        const uint64_t cycles = lacking > 0 ? (uint64_t)lacking / limit->rate + 1 : 0;
        wait = cycles > wait ? cycles : wait;
    }
    return wait;
}
