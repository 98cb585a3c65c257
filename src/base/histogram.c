// Log-linear histograms: see histogram.h.
#include "base/histogram.h"

#include <string.h>

#define SUB (1u << HISTOGRAM_SUB_BITS)

// Values below 2 * SUB have a bucket each; above, the leading bit tells the row and the next SUB_BITS bits the bucket in it.
unsigned histogram_bucket_of(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned)((value >> shift) - SUB);
}

uint64_t histogram_largest_in(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t first = (uint64_t)(SUB + (bucket & (SUB - 1))) << shift;
    return first + ((1ull << shift) - 1);
}

// A sum that stays at its end spoils the mean and nothing else; one that wraps would make it look small.
static void add_saturated(uint64_t *sum, uint64_t value)
{
    if (__builtin_add_overflow(*sum, value, sum))
        *sum = UINT64_MAX;
}

void histogram_reset(struct histogram *h)
{
    memset(h, 0, sizeof(*h));
}

void histogram_add(struct histogram *h, uint64_t value)
{
    if (!h->count || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->count++;
    add_saturated(&h->sum, value);
    h->buckets[histogram_bucket_of(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (!from->count)
        return;
    if (!into->count || from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    into->count += from->count;
    add_saturated(&into->sum, from->sum);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t histogram_smallest_in(unsigned bucket)
{
    return bucket ? histogram_largest_in(bucket - 1) + 1 : 0;
}

// The ends of what the buckets hold.
static void take_ends_from_buckets(struct histogram *h)
{
    h->min = h->max = 0;
    for (unsigned i = HISTOGRAM_BUCKETS; i-- > 0;) {
        if (!h->buckets[i])
            continue;
        h->min = histogram_smallest_in(i);
        h->max = h->max ? h->max : histogram_largest_in(i);
    }
}

bool histogram_subtract(struct histogram *h, const struct histogram *earlier)
{
    bool is_earlier = earlier->count <= h->count && earlier->sum <= h->sum;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && is_earlier; i++)
        is_earlier = earlier->buckets[i] <= h->buckets[i];
    if (!is_earlier)
        return false;
    const uint64_t max = h->max;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        h->buckets[i] -= earlier->buckets[i];
    h->count -= earlier->count;
    h->sum -= earlier->sum;
    take_ends_from_buckets(h);
    if (h->max > max)
        h->max = max;
    return true;
}

uint64_t histogram_count_to(const struct histogram *h, uint64_t value)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram_largest_in(i) <= value; i++)
        n += h->buckets[i];
    return n;
}

uint64_t histogram_percentile(const struct histogram *h, unsigned per_mille)
{
    if (per_mille > 1000)
        per_mille = 1000;
    uint64_t wanted = h->count / 1000 * per_mille + (h->count % 1000 * per_mille + 999) / 1000, seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen && seen >= wanted)
            return histogram_largest_in(i) < h->max ? histogram_largest_in(i) : h->max;
    }
    return 0;
}

uint64_t histogram_mean(const struct histogram *h)
{
    return h->count ? h->sum / h->count : 0;
}
