// A verdict as JSON: see describe.h.
#include "promise/describe.h"

#include "base/clock.h"

static void set(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static const char *unit_of(const struct promise *p)
{
    static const char *const units[PROMISE_METRICS] = {
        [PROMISE_BANDWIDTH] = "bytes/s",       [PROMISE_OPERATIONS] = "requests/s", [PROMISE_LATENCY] = "ppm of requests",
        [PROMISE_UTILIZATION] = "ppm of time", [PROMISE_CORES] = "ppm of a CPU",    [PROMISE_BIT_RATE] = "bits/s",
        [PROMISE_PACKETS] = "packets/s",
    };
    return units[p->metric];
}

static json_t *record(const struct promise_record *r)
{
    json_t *object = json_object();
    set(object, "judged_ms", r->judged_ms);
    set(object, "broken_ms", r->broken_ms);
    const uint64_t kept_ms = r->judged_ms - (r->broken_ms < r->judged_ms ? r->broken_ms : r->judged_ms);
    json_object_set_new(object, "kept_ppm",
                        r->judged_ms ? json_integer((json_int_t)(kept_ms * 1000000 / r->judged_ms)) : json_null());
    return object;
}

static json_t *name_or_null(const char *name)
{
    return name[0] ? json_string(name) : json_null();
}

static json_t *breach(const struct promise_breach *b, uint64_t now_ns)
{
    if (!b->broken_ms)
        return json_null();
    json_t *object = json_object();
    set(object, "ago_ms", (now_ns - b->since_ns) / NS_PER_MS);
    set(object, "broken_ms", b->broken_ms);
    set(object, "lack_ppm", b->lack);
    json_object_set_new(object, "held_by", name_or_null(b->held_by));
    set(object, "held_ppm", b->held);
    json_object_set_new(object, "by_device", json_boolean(b->by_resource));
    return object;
}

json_t *promise_describe_verdict(const struct promise_verdict *v, uint64_t now_ns)
{
    char text[PROMISE_TEXT_MAX];
    json_t *object = json_object();
    json_object_set_new(object, "promise", json_string(promise_format(&v->promise, text)));
    json_object_set_new(object, "kept", json_boolean(v->kept));
    json_object_set_new(object, "owed", json_boolean(v->owed));
    set(object, "for_ms", (now_ns - v->since_ns) / NS_PER_MS);
    json_object_set_new(object, "unit", json_string(unit_of(&v->promise)));
    set(object, "goal", v->goal);
    set(object, "achieved", v->achieved);
    set(object, "lack_ppm", v->lack);
    json_object_set_new(object, "held_by", name_or_null(v->held_by));
    set(object, "held_ppm", v->held);
    json_object_set_new(object, "by_device", json_boolean(v->by_resource));
    json_object_set_new(object, "last_broken", breach(&v->last, now_ns));
    json_object_set_new(object, "hour", record(&v->hour));
    json_object_set_new(object, "day", record(&v->day));
    json_object_set_new(object, "all", record(&v->all));
    return object;
}
