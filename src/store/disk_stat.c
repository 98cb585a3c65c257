// What a disk tells of itself: the answer of disk.stat.
#include "store/admission.h"
#include "store/disk.h"

static void set(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *latency(const struct histogram *h)
{
    json_t *object = json_object();
    set(object, "count", h->count);
    set(object, "mean_ns", histogram_mean(h));
    set(object, "p50_ns", histogram_percentile(h, 500));
    set(object, "p90_ns", histogram_percentile(h, 900));
    set(object, "p99_ns", histogram_percentile(h, 990));
    set(object, "p999_ns", histogram_percentile(h, 999));
    set(object, "max_ns", h->max);
    return object;
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

json_t *disk_stat(const struct disk *disk)
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
    set(object, "in_flight", disk->n_in_flight);
    json_object_set_new(latencies, "read", latency(&disk->latency->read));
    json_object_set_new(latencies, "write", latency(&disk->latency->write));
    json_object_set_new(latencies, "flush", latency(&disk->latency->flush));
    json_object_set_new(latencies, "trim", latency(&disk->latency->trim));
    json_object_set_new(object, "latency", latencies);
    promises_describe(disk->store->promises, disk, object);
    uint64_t alone[PROMISE_METRICS] = {0};
    admission_alone(disk, alone);
    set(object, "alone_bytes_per_s", alone[PROMISE_BANDWIDTH]); // 0: not known
    set(object, "alone_requests_per_s", alone[PROMISE_OPERATIONS]);
    return object;
}
