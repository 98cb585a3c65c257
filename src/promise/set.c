// Sets of promises: what a promise must obey by itself and beside the others. See promise.h.
#include "promise/unit.h"

#include "base/state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

static int check_value(enum promise_resource resource, const struct promise *p, struct tv_error *err)
{
    char most[PROMISE_TEXT_MAX];
    const uint64_t max = promise_value_max(p->kind, p->metric);
    if (p->value > max && p->kind != PROMISE_WEIGHT)
        return tv_error_set(err, -ERANGE, "it is too much: write at most %s", promise_format_value(p->metric, max, most));
    if (p->kind == PROMISE_WEIGHT && (p->value == 0 || p->value > max))
        return tv_error_set(err, -ERANGE, "a weight is 1 to %" PRIu64 "; who has none said has %u", max, PROMISE_WEIGHT_DEFAULT);
    if (p->value == 0 && p->kind == PROMISE_LIMIT)
        return tv_error_set(err, -EINVAL, "a limit of nothing would stop %s for good: pause the machine instead",
                            promise_resource_names[resource]);
    if (p->value == 0)
        return tv_error_set(err, -EINVAL, "it comes to nothing: leave it out, or write more");
    return 0;
}

static int check_meaning(enum promise_resource resource, const struct promise *p, struct tv_error *err)
{
    const bool latency = p->metric == PROMISE_LATENCY;
    if (!promise_resource_has(resource, p->metric))
        return tv_error_set(err, -EINVAL, "this unit is not one of %s: write %s", promise_resource_names[resource],
                            promise_resource_units[resource]);
    if (latency && p->kind == PROMISE_LIMIT)
        return tv_error_set(err, -EINVAL,
                            "a latency cannot be limited: to make requests slower than they are serves nobody; to promise that "
                            "they are fast, write 'latency: p99 < 5ms'");
    if (p->kind == PROMISE_WEIGHT && p->metric != PROMISE_UTILIZATION)
        return tv_error_set(err, -EINVAL, "a weight shares the time of %s, whatever it is used for: write it without a unit",
                            promise_resource_names[resource]);
    if (latency != (p->per_mille != 0) || p->per_mille > 999)
        return tv_error_set(err, -EINVAL, "a latency is promised to p0.1 to p99.9 of the requests: write 'latency: p99 < 5ms'");
    return check_value(resource, p, err);
}

static int check_beside(const struct promise_set *set, const struct promise *p, struct tv_error *err)
{
    char text[PROMISE_TEXT_MAX], other[PROMISE_TEXT_MAX];
    const struct promise *same = promise_set_find(set, p->kind, p->metric);
    if (same)
        return tv_error_set(err, -EINVAL, "'%s' is there already: keep one of the two", promise_format(same, text));
    const struct promise *reserve = p->kind == PROMISE_RESERVE ? p : promise_set_find(set, PROMISE_RESERVE, p->metric);
    const struct promise *limit = p->kind == PROMISE_LIMIT ? p : promise_set_find(set, PROMISE_LIMIT, p->metric);
    if (reserve && limit && reserve->value > limit->value)
        return tv_error_set(err, -EINVAL,
                            "limit %s is below reserve %s: what is reserved could never be used; raise the limit or "
                            "lower the reserve",
                            promise_format_value(limit->metric, limit->value, text),
                            promise_format_value(reserve->metric, reserve->value, other));
    return 0;
}

int promise_set_insert(struct promise_set *set, const struct promise *p, struct tv_error *err)
{
    int rc = check_meaning(set->resource, p, err);
    if (!rc)
        rc = check_beside(set, p, err);
    if (rc)
        return rc;
    assert(set->n < PROMISE_SET_MAX); // follows from what was checked
    set->list[set->n++] = *p;
    return 0;
}

const struct promise *promise_set_find(const struct promise_set *set, enum promise_kind kind, enum promise_metric metric)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->list[i].kind == kind && set->list[i].metric == metric)
            return &set->list[i];
    return NULL;
}

uint32_t promise_set_weight(const struct promise_set *set)
{
    const struct promise *weight = promise_set_find(set, PROMISE_WEIGHT, PROMISE_UTILIZATION);
    return weight ? (uint32_t)weight->value : PROMISE_WEIGHT_DEFAULT;
}

static void load_promise(struct promise_set *set, struct state *s, const uint32_t fields[3], uint64_t value)
{
    struct tv_error err = {0};
    if (fields[0] >= PROMISE_KINDS || fields[1] >= PROMISE_METRICS) {
        state_fail(s, "promise of kind %u in metric %u; there are %d kinds and %d metrics", fields[0], fields[1], PROMISE_KINDS,
                   PROMISE_METRICS);
        return;
    }
    const struct promise p = {
        .kind = (enum promise_kind)fields[0], .metric = (enum promise_metric)fields[1], .per_mille = fields[2], .value = value};
    if (promise_set_insert(set, &p, &err) != 0)
        state_fail(s, "a promise of it means nothing: %s", err.text);
}

void promise_set_state(struct promise_set *set, struct state *s)
{
    const bool loading = state_is_loading(s);
    uint32_t resource = set->resource, n = set->n;
    state_section_begin(s, "promises", 1);
    state_u32(s, "resource", &resource);
    if (resource >= PROMISE_RESOURCES)
        state_fail(s, "resource %u is unknown; there are %d", resource, PROMISE_RESOURCES);
    state_count(s, "n", &n, PROMISE_SET_MAX);
    if (loading && !state_failed(s))
        *set = (struct promise_set){.resource = (enum promise_resource)resource};
    for (uint32_t i = 0; i < n && !state_failed(s); i++) {
        const struct promise *p = &set->list[i];
        uint32_t fields[3] = {loading ? 0 : p->kind, loading ? 0 : p->metric, loading ? 0 : p->per_mille};
        uint64_t value = loading ? 0 : p->value;
        state_u32(s, "kind", &fields[0]);
        state_u32(s, "metric", &fields[1]);
        state_u32(s, "per_mille", &fields[2]);
        state_u64(s, "value", &value);
        if (loading && !state_failed(s))
            load_promise(set, s, fields, value);
    }
    state_section_end(s);
    if (loading && state_failed(s))
        set->n = 0;
}
