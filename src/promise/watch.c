// Watches: holders, windows and what verdicts become of findings. See watch.h.
#include "promise/watch_parts.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct promise_watch *promise_watch_create(const struct promise_watch_options *options, uint64_t now_ns)
{
    assert(options->window_ns > 0 && options->holders_max > 0 && options->holders_max < NOBODY);
    struct promise_watch *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->options = *options;
    w->begin_ns = now_ns;
    w->holders = calloc(options->holders_max, sizeof(struct holder *));
    w->shares = calloc(options->holders_max, sizeof(*w->shares));
    if (w->holders && w->shares)
        return w;
    promise_watch_destroy(w);
    return NULL;
}

void promise_watch_destroy(struct promise_watch *w)
{
    if (!w)
        return;
    for (uint32_t i = 0; w->holders && i < w->options.holders_max; i++)
        free(w->holders[i]);
    free(w->holders);
    free(w->shares);
    free(w);
}

// ---- holders

struct holder *holder_create(const char *name, const struct promise_set *set, uint64_t now_ns)
{
    struct holder *h = calloc(1, sizeof(*h) + set->n * sizeof(h->tracks[0]));
    if (!h)
        return NULL;
    assert(strlen(name) < sizeof(h->name));
    strcpy(h->name, name);
    h->set = *set;
    h->begin_ns = now_ns;
    for (unsigned i = 0; i < set->n; i++) {
        struct track *t = &h->tracks[i];
        t->promise = set->list[i];
        t->kept = true;
        t->since_ns = now_ns;
        record_init(&t->record, now_ns);
    }
    return h;
}

int promise_watch_join(struct promise_watch *w, const char *name, const struct promise_set *set, uint64_t now_ns, uint32_t *slot,
                       struct tv_error *err)
{
    if (!name[0] || strlen(name) >= PROMISE_NAME_MAX)
        return tv_error_set(err, -EINVAL, "'%.80s' cannot be watched: a name has 1 to %u characters", name, PROMISE_NAME_MAX - 1);
    uint32_t i = 0;
    while (i < w->options.holders_max && w->holders[i])
        i++;
    if (i == w->options.holders_max)
        return tv_error_set(err, -ENOSPC, "'%s' cannot be watched: there are %u already, and no more may be", name, i);
    w->holders[i] = holder_create(name, set, now_ns);
    if (!w->holders[i])
        return tv_error_set(err, -ENOMEM, "'%s' cannot be watched: out of memory", name);
    *slot = i;
    return 0;
}

static const struct track *find_track(const struct holder *h, const struct promise *like)
{
    for (unsigned i = 0; i < h->set.n; i++)
        if (h->tracks[i].promise.kind == like->kind && h->tracks[i].promise.metric == like->metric)
            return &h->tracks[i];
    return NULL;
}

int promise_watch_change(struct promise_watch *w, uint32_t slot, const struct promise_set *set, uint64_t now_ns,
                         struct tv_error *err)
{
    struct holder *old = w->holders[slot];
    struct holder *h = holder_create(old->name, set, now_ns);
    if (!h)
        return tv_error_set(err, -ENOMEM, "the promises of '%s' cannot be changed: out of memory", old->name);
    for (unsigned i = 0; i < set->n; i++) {
        const struct track *before = find_track(old, &set->list[i]);
        if (!before)
            continue;
        h->tracks[i] = *before;
        h->tracks[i].promise = set->list[i];
    }
    w->holders[slot] = h;
    free(old);
    return 0;
}

void promise_watch_leave(struct promise_watch *w, uint32_t slot)
{
    free(w->holders[slot]);
    w->holders[slot] = NULL;
}

const char *promise_watch_name(const struct promise_watch *w, uint32_t slot)
{
    return slot < w->options.holders_max && w->holders[slot] ? w->holders[slot]->name : NULL;
}

const char *name_of(const struct promise_watch *w, uint32_t slot)
{
    const char *name = slot == NOBODY ? NULL : promise_watch_name(w, slot);
    return name ? name : "";
}

void promise_watch_add(struct promise_watch *w, uint32_t slot, const struct promise_sample *sample)
{
    struct holder *h = w->holders[slot];
    for (unsigned i = 0; i < PROMISE_METRICS; i++)
        h->got.amount[i] += sample->amount[i];
    h->got.waited_ns += sample->waited_ns;
    h->got.is_slow |= sample->is_slow;
}

// ---- verdicts

static struct promise_verdict verdict_of(const struct track *t)
{
    struct promise_verdict v = {.promise = t->promise,
                                .kept = t->kept,
                                .owed = t->owed,
                                .since_ns = t->since_ns,
                                .goal = t->goal,
                                .achieved = t->achieved,
                                .lack = t->lack,
                                .held = t->held,
                                .by_resource = t->by_resource,
                                .last = t->last,
                                .hour = record_last(&t->record, RECORD_HOUR_SLOTS),
                                .day = record_last(&t->record, RECORD_SLOTS),
                                .all = t->record.all};
    memcpy(v.held_by, t->held_by, sizeof(v.held_by));
    return v;
}

unsigned promise_watch_verdicts(const struct promise_watch *w, uint32_t slot,
                                struct promise_verdict verdicts[static PROMISE_SET_MAX])
{
    const struct holder *h = w->holders[slot];
    for (unsigned i = 0; i < h->set.n; i++)
        verdicts[i] = verdict_of(&h->tracks[i]);
    return h->set.n;
}

static void tell(const struct promise_watch *w, uint32_t slot, const struct track *t)
{
    const struct promise_event event = {.slot = slot, .name = w->holders[slot]->name, .verdict = verdict_of(t)};
    if (w->options.event)
        w->options.event(w->options.opaque, &event);
}

static void take_figures(const struct promise_watch *w, struct track *t, const struct finding *f)
{
    t->goal = f->goal;
    t->achieved = f->achieved;
    t->lack = f->kept ? 0 : f->lack;
    t->held = f->kept ? 0 : f->held;
    t->by_resource = !f->kept && f->by_resource;
    memset(t->held_by, 0, sizeof(t->held_by));
    if (!f->kept)
        strcpy(t->held_by, name_of(w, f->held_by));
}

// A window broke it, the first one or one more. `t` has its figures.
static void note_breach(struct track *t, bool is_first, uint64_t begin_ns, uint64_t duration_ns)
{
    struct promise_breach *last = &t->last;
    if (is_first)
        *last = (struct promise_breach){.since_ns = begin_ns};
    if (t->lack >= last->lack) {
        last->lack = t->lack;
        last->held = t->held;
        last->by_resource = t->by_resource;
        memcpy(last->held_by, t->held_by, sizeof(last->held_by));
    }
    last->broken_ms += duration_ns / NS_PER_MS;
}

// Whether the verdict has changed.
static bool follow(const struct promise_watch *w, struct track *t, const struct finding *f, uint64_t begin_ns, uint64_t now_ns)
{
    const bool was_kept = t->kept;
    t->owed = f->owed;
    if (!f->kept) {
        t->good_windows = 0;
        t->kept = false;
    } else if (!was_kept) {
        t->good_ns = t->good_windows ? t->good_ns : begin_ns;
        if (++t->good_windows < w->options.windows_to_mend)
            return false; // still broken, with the figures of the window that broke it
        t->kept = true;
        t->good_windows = 0;
    }
    take_figures(w, t, f);
    if (!f->kept)
        note_breach(t, was_kept, begin_ns, now_ns - begin_ns);
    if (t->kept != was_kept)
        t->since_ns = t->kept ? t->good_ns : begin_ns;
    return t->kept != was_kept;
}

static void judge_holder(struct promise_watch *w, uint32_t slot, uint64_t now_ns)
{
    struct holder *h = w->holders[slot];
    for (unsigned i = 0; i < h->set.n; i++) {
        struct track *t = &h->tracks[i];
        const struct finding f = judge(w, slot, &t->promise, now_ns);
        record_advance(&t->record, now_ns);
        if (f.owed)
            record_add(&t->record, now_ns - h->begin_ns, !f.kept);
        if (follow(w, t, &f, h->begin_ns, now_ns))
            tell(w, slot, t);
    }
}

void promise_watch_tick(struct promise_watch *w, uint64_t now_ns)
{
    if (now_ns - w->begin_ns < w->options.window_ns)
        return;
    judge_begin(w, now_ns);
    for (uint32_t i = 0; i < w->options.holders_max; i++)
        if (w->holders[i] && judge_is_due(w, w->holders[i], now_ns))
            judge_holder(w, i, now_ns);
    for (uint32_t i = 0; i < w->options.holders_max; i++) // after all were judged: each is compared with the others
        if (w->holders[i] && judge_is_due(w, w->holders[i], now_ns)) {
            w->holders[i]->begin_ns = now_ns;
            w->holders[i]->got = (struct promise_sample){0};
        }
    w->begin_ns = now_ns;
}
