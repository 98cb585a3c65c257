// Histograms between processes: see histogram.h. Counts and values beyond what JSON's integers hold here (INT64_MAX) are cut off
// there.
#include "base/histogram.h"

#include <errno.h>

static json_t *number(uint64_t value)
{
    return json_integer(value < INT64_MAX ? (json_int_t)value : INT64_MAX);
}

json_t *histogram_encode(const struct histogram *h)
{
    json_t *buckets = json_array();
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (!h->buckets[i])
            continue;
        json_t *pair = json_array();
        json_array_append_new(pair, number(histogram_largest_in(i)));
        json_array_append_new(pair, number(h->buckets[i]));
        json_array_append_new(buckets, pair);
    }
    json_t *object = json_object();
    json_object_set_new(object, "count", number(h->count));
    json_object_set_new(object, "sum", number(h->sum));
    json_object_set_new(object, "max", number(h->max));
    json_object_set_new(object, "buckets", buckets);
    return object;
}

static bool get(const json_t *json, uint64_t *value)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0)
        return false;
    *value = (uint64_t)json_integer_value(json);
    return true;
}

// The pairs ascend, and no count is 0; what was cut off makes the last two the same.
static bool decode_buckets(struct histogram *h, const json_t *buckets)
{
    size_t i;
    json_t *pair;
    uint64_t value, n, before = 0;
    if (!json_is_array(buckets))
        return false;
    json_array_foreach(buckets, i, pair)
    {
        if (json_array_size(pair) != 2 || !get(json_array_get(pair, 0), &value) || !get(json_array_get(pair, 1), &n) || !n)
            return false;
        const unsigned bucket = histogram_bucket_of(value);
        if ((i && value < before) || histogram_largest_in(bucket) != value || __builtin_add_overflow(h->count, n, &h->count))
            return false;
        h->buckets[bucket] += n;
        if (!i)
            h->min = histogram_smallest_in(bucket);
        before = value;
    }
    return true;
}

int histogram_decode(struct histogram *h, const json_t *json)
{
    uint64_t count, sum, max;
    histogram_reset(h);
    if (get(json_object_get(json, "count"), &count) && get(json_object_get(json, "sum"), &sum) &&
        get(json_object_get(json, "max"), &max) && decode_buckets(h, json_object_get(json, "buckets")) && h->count == count &&
        max >= h->min) {
        h->sum = sum;
        h->max = max;
        return 0;
    }
    histogram_reset(h);
    return -EINVAL;
}
