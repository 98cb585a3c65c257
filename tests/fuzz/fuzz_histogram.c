// Any JSON as a histogram of another process: refused, and empty then, or one whose count is the sum of its buckets, and which is
// encoded and decoded again the same.
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/histogram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct histogram h, again;

static void check_whole(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        n += h.buckets[i];
    assert(n == h.count && h.min <= h.max);
    json_t *json = histogram_encode(&h);
    assert(histogram_decode(&again, json) == 0 && again.count == h.count &&
           memcmp(again.buckets, h.buckets, sizeof(h.buckets)) == 0);
    json_decref(json);
    assert(histogram_percentile(&h, 1000) <= h.max && histogram_count_to(&h, UINT64_MAX) == h.count);
    assert(histogram_subtract(&h, &again) && h.count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    if (!json)
        return 0;
    if (histogram_decode(&h, json) == 0)
        check_whole();
    else
        assert(h.count == 0 && h.max == 0);
    json_decref(json);
    return 0;
}
