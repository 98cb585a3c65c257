// How long the device itself takes: see device_time.h.
#include "store/device_time.h"

#include <string.h>

#define ENOUGH 1000u
#define TAIL_LEAST 10u

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 4)
        return (unsigned)ns;
    const unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    return power << 2 | (unsigned)(ns >> (power - 2) & 3);
}

static uint64_t smallest_in(unsigned bucket)
{
    const unsigned power = bucket >> 2;
    return bucket < 4 ? bucket : (4ull | (bucket & 3)) << (power - 2);
}

void device_time_add(struct device_time *t, uint64_t ns)
{
    t->n[0][bucket_of(ns)]++;
    t->count[0]++;
}

void device_time_turn(struct device_time *t)
{
    if (t->count[0] < ENOUGH)
        return;
    memcpy(t->n[1], t->n[0], sizeof(t->n[1]));
    memset(t->n[0], 0, sizeof(t->n[0]));
    t->count[1] = t->count[0];
    t->count[0] = 0;
}

uint64_t device_time_of(const struct device_time *t, unsigned per_mille)
{
    const uint64_t count = (uint64_t)t->count[0] + t->count[1], most = count * (1000 - per_mille) / 1000;
    uint64_t longer = 0;
    if (most < TAIL_LEAST)
        return 0;
    unsigned bucket = DEVICE_TIME_BUCKETS;
    while (bucket && longer <= most) {
        bucket--;
        longer += (uint64_t)t->n[0][bucket] + t->n[1][bucket];
    }
    return smallest_in(bucket);
}
