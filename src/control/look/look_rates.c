// Differences of two readings: see look.h.
#include "control/look/look.h"

#include "base/clock.h"
#include "base/histogram.h"

static double member(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const json_t *find_same(const json_t *list, const json_t *wanted, const char *key, const char *also)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (json_equal(json_object_get(one, key), json_object_get(wanted, key)) &&
            (!also || json_equal(json_object_get(one, also), json_object_get(wanted, also))))
            return one;
    }
    return NULL;
}

// --- disks

static const json_t *histogram_of(const json_t *disk, const char *kind)
{
    return json_object_get(json_object_get(json_object_get(disk, "latency"), kind), "histogram");
}

// What came since `before`; all of it where that is no earlier reading, since the store was started again.
static bool latency_since(const json_t *before, const json_t *now, const char *kind, struct histogram *h)
{
    struct histogram earlier;
    if (histogram_decode(h, histogram_of(now, kind)))
        return false;
    if (histogram_decode(&earlier, histogram_of(before, kind)) == 0)
        histogram_subtract(h, &earlier);
    return true;
}

static json_t *describe(const struct histogram *h)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "count", (json_int_t)h->count, "p50_ns", (json_int_t)histogram_percentile(h, 500),
                     "p99_ns", (json_int_t)histogram_percentile(h, 990), "p999_ns", (json_int_t)histogram_percentile(h, 999));
}

// A counter that went back began anew.
static double since(const json_t *before, const json_t *now, const char *key)
{
    const double a = member(before, key), b = member(now, key);
    return b < a ? b : b - a;
}

static void set(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, json_real(value));
}

// The time that requests took in all, divided by the time in which they came, is how many there were at once on average (Little).
static void set_latencies(const json_t *before, const json_t *now, double seconds, json_t *rates)
{
    static const char *const kinds[] = {"read", "write", "flush", "trim"};
    double requests = 0, took_ns = 0;
    for (int i = 0; i < 4; i++) {
        struct histogram h;
        if (!latency_since(before, now, kinds[i], &h))
            continue;
        requests += (double)h.count;
        took_ns += (double)h.sum;
        if (i < 2)
            json_object_set_new(rates, kinds[i], describe(&h));
    }
    set(rates, "iops", requests / seconds);
    set(rates, "queue", took_ns / 1e9 / seconds);
}

static void add_disk_rates(const json_t *before, json_t *now)
{
    const double seconds = (member(now, "at_ns") - member(before, "at_ns")) / 1e9;
    if (seconds <= 0) { // the same reading
        json_t *rates = json_object_get(before, "rates");
        if (rates)
            json_object_set(now, "rates", rates);
        return;
    }
    json_t *rates = json_object();
    set(rates, "seconds", seconds);
    set_latencies(before, now, seconds, rates);
    set(rates, "read_iops", since(before, now, "reads") / seconds);
    set(rates, "write_iops", since(before, now, "writes") / seconds);
    set(rates, "read_bps", since(before, now, "read_bytes") / seconds);
    set(rates, "write_bps", since(before, now, "written_bytes") / seconds);
    if (json_object_get(now, "waited_ns"))
        set(rates, "waited_percent", 100 * since(before, now, "waited_ns") / 1e9 / seconds);
    if (json_object_get(before, "device_ns") && json_object_get(now, "device_ns"))
        set(rates, "device_percent", 100 * since(before, now, "device_ns") / 1e9 / seconds);
    json_object_set_new(now, "rates", rates);
}

// --- machines

static double sum_of(const json_t *list, const char *key, const char *group)
{
    double sum = 0;
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one) sum += member(group ? json_object_get(one, group) : one, key);
    return sum;
}

static void add_machine_rates(const json_t *before, json_t *now)
{
    const double seconds = (member(now, "uptime_ns") - member(before, "uptime_ns")) / 1e9;
    const json_t *old_vcpus = json_object_get(before, "vcpus"), *vcpus = json_object_get(now, "vcpus");
    if (!json_object_get(now, "uptime_ns") || seconds <= 0)
        return;
    set(now, "cpu_percent", 100 * (sum_of(vcpus, "cpu_ns", NULL) - sum_of(old_vcpus, "cpu_ns", NULL)) / 1e9 / seconds);
    set(now, "mips", (sum_of(vcpus, "instructions", NULL) - sum_of(old_vcpus, "instructions", NULL)) / 1e6 / seconds);
}

static void add_disks_of_machine(const json_t *before, json_t *now)
{
    const json_t *disks = json_object_get(now, "disks"), *old_disks = json_object_get(before, "disks");
    size_t i;
    json_t *disk;
    if (!disks || !old_disks)
        return; // the store did not tell
    json_array_foreach(disks, i, disk)
    {
        const json_t *old = find_same(old_disks, disk, "name", NULL);
        if (old)
            add_disk_rates(old, disk);
    }
    set(now, "read_bps", sum_of(disks, "read_bps", "rates"));
    set(now, "write_bps", sum_of(disks, "write_bps", "rates"));
}

void look_add_rates(const json_t *before, json_t *now)
{
    size_t i;
    json_t *m;
    json_array_foreach(now, i, m)
    {
        const json_t *old = json_object_get(m, "name") ? find_same(before, m, "name", "pid") : json_array_get(before, i);
        add_machine_rates(old, m);
        add_disks_of_machine(old, m);
    }
}

json_t *look_without_histograms(const json_t *machines)
{
    json_t *copy = json_deep_copy(machines), *m, *disk, *latency;
    const char *kind;
    size_t i, j;
    json_array_foreach(copy, i, m)
    {
        json_array_foreach(json_object_get(m, "disks"), j, disk)
        {
            json_object_foreach(json_object_get(disk, "latency"), kind, latency) json_object_del(latency, "histogram");
        }
    }
    return copy;
}
