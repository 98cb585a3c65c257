// Log-linear histogram of unsigned values (nanoseconds, bytes): each power of two is cut into 32 buckets, so that a value that is
// read back is at most 3 % off. Values below 64 are exact. No allocation; one owner thread.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_BUCKETS ((65u - HISTOGRAM_SUB_BITS) << HISTOGRAM_SUB_BITS)

// Invariant: count is the sum of buckets; min and max are exact, and 0 while count is 0.
struct histogram {
    uint64_t count, min, max;
    uint64_t sum; // stays at UINT64_MAX once it is there
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

unsigned histogram_bucket_of(uint64_t value);
uint64_t histogram_smallest_in(unsigned bucket);
uint64_t histogram_largest_in(unsigned bucket);

void histogram_reset(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);
// Takes off what was there at an earlier reading of the same histogram: what is left came since then, its min and max as those of
// its buckets. False, with h untouched: `earlier` is no earlier reading of it.
bool histogram_subtract(struct histogram *h, const struct histogram *earlier);
// The least value that at least `per_mille` of 1000 values do not exceed (500: the median), as the largest of its bucket but never
// above max; 0 of an empty histogram.
uint64_t histogram_percentile(const struct histogram *h, unsigned per_mille);
uint64_t histogram_mean(const struct histogram *h);
uint64_t histogram_count_to(const struct histogram *h, uint64_t value); // how many do not exceed it, as read back

// {"count", "sum", "max", "buckets": [[value, count], ...]}: of each bucket that is not empty its largest value, in ascending
// order.
json_t *histogram_encode(const struct histogram *h);
// What another process has encoded; -EINVAL, with h empty, when it is none.
int histogram_decode(struct histogram *h, const json_t *json);
