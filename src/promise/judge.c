// The arithmetic of a window: see watch.h for what is judged.
//
// Amounts and times are 64 bits wide and may be anything, since they may have been loaded; products are made in 128 bits, of
// factors of which one is at most a rate (below 2^60) or both are saturated to 64.
#include "promise/watch_parts.h"

#include "base/clock.h"

typedef unsigned __int128 u128;

enum { MILLION = 1000000 };

static uint64_t saturated(u128 value)
{
    return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// part / whole in millionths, saturated.
static uint32_t millionths(uint64_t part, uint64_t whole)
{
    if (!whole)
        return 0;
    const u128 value = (u128)part * MILLION / whole;
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

// Amounts of a metric in one base unit: shares are kept in millionths, their amounts in ns.
static uint64_t amount_unit(enum promise_metric metric)
{
    return metric == PROMISE_UTILIZATION || metric == PROMISE_CORES ? NS_PER_S / MILLION : 1;
}

static uint64_t amount_in(const struct promise *p, uint64_t time_ns)
{
    return saturated((u128)p->value * amount_unit(p->metric) * time_ns / NS_PER_S);
}

static uint64_t by_the_second(enum promise_metric metric, uint64_t amount, uint64_t duration_ns)
{
    return saturated((u128)amount * NS_PER_S / duration_ns / amount_unit(metric));
}

static uint64_t duration(const struct holder *h, uint64_t now_ns)
{
    return now_ns - h->begin_ns;
}

static uint64_t waited(const struct holder *h, uint64_t duration_ns)
{
    return smaller(h->got.waited_ns, duration_ns);
}

// Of a disk requests, of a network packets. Of CPU time there are none.
static uint64_t requests(const struct holder *h)
{
    return saturated((u128)h->got.amount[PROMISE_OPERATIONS] + h->got.amount[PROMISE_PACKETS]);
}

// Of a holder's mean request, the amount in a metric.
static uint64_t mean_request(const struct holder *h, enum promise_metric metric)
{
    return requests(h) ? h->got.amount[metric] / requests(h) : 0;
}

// An amount as the resource's time, at what the holder's requests cost in this window.
static uint64_t as_time(const struct holder *h, enum promise_metric metric, uint64_t amount)
{
    const uint64_t done = h->got.amount[metric];
    if (metric == PROMISE_UTILIZATION)
        return amount;
    return done ? saturated((u128)amount * h->got.amount[PROMISE_UTILIZATION] / done) : 0;
}

static uint64_t reserved_time(const struct holder *h, uint64_t duration_ns)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < h->set.n; i++) {
        const struct promise *p = &h->set.list[i];
        if (p->kind != PROMISE_RESERVE || p->metric == PROMISE_LATENCY)
            continue;
        const uint64_t time = as_time(h, p->metric, amount_in(p, duration_ns));
        most = time > most ? time : most;
    }
    return smaller(most, duration_ns);
}

static uint64_t limited_time(const struct holder *h, uint64_t duration_ns)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < h->set.n; i++) {
        const struct promise *p = &h->set.list[i];
        if (p->kind == PROMISE_LIMIT && h->got.amount[p->metric])
            least = smaller(least, as_time(h, p->metric, amount_in(p, duration_ns)));
    }
    return least > h->got.amount[PROMISE_UTILIZATION] ? least : h->got.amount[PROMISE_UTILIZATION];
}

static bool waited_throughout(const struct promise_watch *w, const struct holder *h, uint64_t duration_ns)
{
    return waited(h, duration_ns) >= saturated((u128)duration_ns * less(MILLION, w->options.tolerance) / MILLION);
}

bool judge_is_due(const struct promise_watch *w, const struct holder *h, uint64_t now_ns)
{
    const uint64_t passed = duration(h, now_ns);
    return passed && passed >= w->options.window_ns / 2;
}

static void divide(struct promise_watch *w, uint64_t now_ns)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->options.holders_max; i++) {
        const struct holder *h = w->holders[i];
        w->shares[i] = (struct share){0};
        if (!h || h->begin_ns != w->begin_ns)
            continue;
        const uint64_t passed = duration(h, now_ns), used = h->got.amount[PROMISE_UTILIZATION];
        w->shares[i].low = smaller(reserved_time(h, passed), UINT64_MAX / w->options.holders_max);
        w->shares[i].high = waited_throughout(w, h, passed) ? limited_time(h, passed) : used; // it had all that it asked for
        w->shares[i].weight = promise_set_weight(&h->set);
        total = saturated((u128)total + used);
    }
    share_fill(w->shares, w->options.holders_max, total);
}

// ---- who had what was lacking

static void note_excess(struct excess *e, uint32_t slot, uint64_t time_ns)
{
    const unsigned at = time_ns > e->time_ns[0] ? 0 : 1;
    if (time_ns <= e->time_ns[at])
        return;
    if (at == 0) {
        e->slot[1] = e->slot[0];
        e->time_ns[1] = e->time_ns[0];
    }
    e->slot[at] = slot;
    e->time_ns[at] = time_ns;
}

void judge_begin(struct promise_watch *w, uint64_t now_ns)
{
    const struct excess none = {.slot = {NOBODY, NOBODY}};
    divide(w, now_ns);
    w->beyond_reserve = w->beyond_share = none;
    w->used_ns = 0;
    for (uint32_t i = 0; i < w->options.holders_max; i++) {
        const struct holder *h = w->holders[i];
        if (!h)
            continue;
        const uint64_t used = h->got.amount[PROMISE_UTILIZATION];
        w->used_ns = saturated((u128)w->used_ns + used);
        note_excess(&w->beyond_reserve, i, less(used, reserved_time(h, duration(h, now_ns))));
        note_excess(&w->beyond_share, i, less(used, w->shares[i].given));
    }
}

static void blame(const struct promise_watch *w, uint32_t slot, const struct promise *p, uint64_t duration_ns, struct finding *f)
{
    const struct excess *e = p->kind == PROMISE_WEIGHT ? &w->beyond_share : &w->beyond_reserve;
    const unsigned at = e->slot[0] == slot ? 1 : 0;
    const uint64_t unused = less(duration_ns, w->used_ns);
    uint64_t held = e->time_ns[at];
    f->held_by = e->slot[at];
    if (p->kind == PROMISE_LIMIT) {
        f->held_by = slot;
        held = w->holders[slot]->got.amount[PROMISE_UTILIZATION];
    } else if (unused > held) {
        f->held_by = NOBODY;
        held = unused;
    }
    f->held = millionths(held, duration_ns);
}

static void blame_resource(struct finding *f)
{
    f->held_by = NOBODY;
    f->held = 0;
    f->by_resource = true;
}

// ---- the four kinds

// What was done against what was owed, a part of the latter forgiven.
static void judge_owed(const struct holder *h, enum promise_metric metric, uint64_t owed, uint32_t tolerance, struct finding *f)
{
    const uint64_t done = h->got.amount[metric];
    f->owed = owed > 0;
    f->kept = (u128)done + mean_request(h, metric) >= (u128)owed * less(MILLION, tolerance) / MILLION;
    f->lack = millionths(less(owed, done), owed);
}

static void judge_limit(const struct promise_watch *w, const struct holder *h, const struct promise *p, uint64_t allowed,
                        struct finding *f)
{
    const uint64_t done = h->got.amount[p->metric];
    f->owed = done > 0;
    f->kept = less(done, mean_request(h, p->metric)) <= (u128)allowed * ((u128)MILLION + w->options.tolerance) / MILLION;
    f->lack = millionths(less(done, allowed), allowed ? allowed : 1);
}

static void judge_latency(const struct holder *h, const struct promise *p, uint64_t duration_ns, struct finding *f)
{
    const uint64_t done = requests(h), late = smaller(h->got.amount[PROMISE_LATENCY], done);
    const bool stuck = !done && waited(h, duration_ns) >= p->value;
    f->owed = done || stuck;
    f->kept = !stuck && (u128)late * 1000 <= (u128)done * (1000 - p->per_mille); // as histogram_percentile() counts
    f->goal = (1000 - p->per_mille) * 1000;
    f->achieved = stuck ? MILLION : millionths(late, done);
    f->lack = (uint32_t)less(f->achieved, f->goal);
}

static void judge_weight(const struct promise_watch *w, uint32_t slot, uint64_t duration_ns, struct finding *f)
{
    const struct holder *h = w->holders[slot];
    const uint64_t share = w->shares[slot].given;
    *f = (struct finding){.kept = true, .goal = millionths(share, duration_ns)};
    f->achieved = millionths(h->got.amount[PROMISE_UTILIZATION], duration_ns);
    if (waited_throughout(w, h, duration_ns))
        judge_owed(h, PROMISE_UTILIZATION, share, w->options.weight_tolerance, f);
}

struct finding judge(const struct promise_watch *w, uint32_t slot, const struct promise *p, uint64_t now_ns)
{
    const struct holder *h = w->holders[slot];
    const uint64_t passed = duration(h, now_ns);
    const uint64_t amount = amount_in(p, p->kind == PROMISE_LIMIT ? passed : waited(h, passed));
    struct finding f = {.goal = by_the_second(p->metric, amount, passed),
                        .achieved = by_the_second(p->metric, h->got.amount[p->metric], passed)};
    if (p->kind == PROMISE_WEIGHT)
        judge_weight(w, slot, passed, &f);
    else if (p->metric == PROMISE_LATENCY)
        judge_latency(h, p, passed, &f);
    else if (p->kind == PROMISE_LIMIT)
        judge_limit(w, h, p, amount, &f);
    else
        judge_owed(h, p->metric, amount, w->options.tolerance, &f);
    if (!f.owed)
        f.kept = true;
    blame(w, slot, p, passed, &f);
    if (p->metric == PROMISE_LATENCY && h->got.is_slow)
        blame_resource(&f);
    return f;
}
