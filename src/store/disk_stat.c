// What a disk tells of itself: the answer of disk.stat.
#include "base/clock.h"
#include "store/admission.h"
#include "store/disk.h"

#include <string.h>

static void set(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *latency(const struct histogram *h, bool whole)
{
    json_t *object = json_object();
    set(object, "count", h->count);
    set(object, "mean_ns", histogram_mean(h));
    set(object, "p50_ns", histogram_percentile(h, 500));
    set(object, "p90_ns", histogram_percentile(h, 900));
    set(object, "p99_ns", histogram_percentile(h, 990));
    set(object, "p999_ns", histogram_percentile(h, 999));
    set(object, "max_ns", h->max);
    if (whole)
        json_object_set_new(object, "histogram", histogram_encode(h));
    return object;
}

// Readings of one disk can be subtracted: `at_ns` says how far they are apart.
static void tell_of_turns(const struct disk *disk, json_t *object)
{
    const struct dispatcher *d = disk->store->dispatcher;
    const uint64_t now_ns = clock_now_ns();
    set(object, "at_ns", now_ns);
    set(object, "in_flight", disk->n_in_flight);
    set(object, "started", disk->n_started);
    if (d->ops->waited_ns)
        set(object, "waited_ns", d->ops->waited_ns(d, disk->queue, now_ns));
    if (d->ops->knows_costs && d->ops->knows_costs(d))
        set(object, "device_ns", disk->promised.usage.device_ns);
}

// Of its mirrors: legs that are not in sync, or not here; false: it has no mirror.
static bool count_missing_legs(const json_t *volume, json_int_t *missing)
{
    const json_t *legs = json_object_get(volume, "legs");
    bool has_mirror = json_is_integer(legs);
    const char *key;
    json_t *member, *element;
    size_t i;
    *missing += json_integer_value(legs);
    json_object_foreach((json_t *)volume, key, member)
    {
        if (json_is_object(member))
            has_mirror |= count_missing_legs(member, missing);
        json_array_foreach(member, i, element)
        {
            const char *state = json_string_value(json_object_get(element, "state"));
            *missing -= state && strcmp(state, "in sync") == 0;
            has_mirror |= count_missing_legs(element, missing);
        }
    }
    return has_mirror;
}

static void tell_of_mirrors(const struct disk *disk, json_t *object)
{
    json_t *volume = volume_describe(disk->volume);
    json_int_t missing = 0;
    if (count_missing_legs(volume, &missing))
        json_object_set_new(object, "missing_legs", json_integer(missing));
    json_decref(volume);
}

void disk_describe(const struct disk *disk, json_t *object)
{
    const struct volume *volume = disk->volume;
    json_object_set_new(object, "name", json_string(disk->name));
    set(object, "size_bytes", volume->size_bytes);
    set(object, "block_size", volume->block_bytes);
    json_object_set_new(object, "read_only", json_boolean(volume->read_only));
    json_object_set_new(object, "volume", volume_describe(volume));
    for (const struct disk_front *front = disk->fronts; front; front = front->next)
        front->ops->describe(front, object);
}

json_t *disk_stat(const struct disk *disk, bool histograms)
{
    const struct disk_counters *c = &disk->counters;
    json_t *object = json_object(), *latencies = json_object();
    disk_describe(disk, object);
    set(object, "reads", c->reads);
    set(object, "writes", c->writes);
    set(object, "flushes", c->flushes);
    set(object, "discards", c->discards);
    set(object, "write_zeroes", c->write_zeroes);
    set(object, "read_bytes", c->read_bytes);
    set(object, "written_bytes", c->written_bytes);
    set(object, "errors", c->errors);
    set(object, "refused", c->refused);
    tell_of_turns(disk, object);
    tell_of_mirrors(disk, object);
    json_object_set_new(latencies, "read", latency(&disk->latency->read, histograms));
    json_object_set_new(latencies, "write", latency(&disk->latency->write, histograms));
    json_object_set_new(latencies, "flush", latency(&disk->latency->flush, histograms));
    json_object_set_new(latencies, "trim", latency(&disk->latency->trim, histograms));
    json_object_set_new(object, "latency", latencies);
    promises_describe(disk->store->promises, disk, object);
    uint64_t alone[PROMISE_METRICS] = {0};
    admission_alone(disk, alone);
    set(object, "alone_bytes_per_s", alone[PROMISE_BANDWIDTH]); // 0: not known
    set(object, "alone_requests_per_s", alone[PROMISE_OPERATIONS]);
    return object;
}
