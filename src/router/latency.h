// How long packets took, as a histogram in cycles: each power of two is cut into eight, so that what is read back is at most an
// eighth too long. One writer; anybody reads. (base/histogram.h is finer, and too large for each of a thousand networks.)
#pragma once

#include "router/counters.h"

#define LATENCY_SUB_BITS 3
#define LATENCY_BUCKETS ((48u - LATENCY_SUB_BITS) << LATENCY_SUB_BITS) // up to 2^47 cycles, a day

static inline unsigned latency_bucket_of(uint64_t cycles)
{
    const uint64_t value = cycles < 1ull << 47 ? cycles : (1ull << 47) - 1;
    if (value < 1u << LATENCY_SUB_BITS)
        return (unsigned)value;
    const unsigned shift = 63 - (unsigned)__builtin_clzll(value) - LATENCY_SUB_BITS;
    return (shift << LATENCY_SUB_BITS) + (unsigned)(value >> shift);
}

static inline uint64_t latency_largest_in(unsigned bucket)
{
    if (bucket < 1u << LATENCY_SUB_BITS)
        return bucket;
    const unsigned shift = (bucket >> LATENCY_SUB_BITS) - 1;
    const uint64_t first = (1u << LATENCY_SUB_BITS) + (bucket & ((1u << LATENCY_SUB_BITS) - 1));
    return ((first + 1) << shift) - 1;
}
