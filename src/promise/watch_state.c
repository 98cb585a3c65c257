// Saves and loads watches: see watch.h. What is loaded is foreign until it was checked.
#include "promise/watch_parts.h"

#include "base/state.h"

#include <stdlib.h>
#include <string.h>

// A point in time, as its age.
static void state_time(struct state *s, const char *name, uint64_t *time_ns, uint64_t now_ns)
{
    uint64_t age_ns = now_ns - *time_ns;
    state_u64(s, name, &age_ns);
    *time_ns = now_ns - age_ns;
}

static bool is_sound(const struct track *t)
{
    const size_t end = PROMISE_NAME_MAX - 1;
    return !t->held_by[end] && !t->last.held_by[end] &&
           (!t->kept || (t->good_windows == 0 && t->lack == 0 && t->held == 0 && !t->by_resource && !t->held_by[0]));
}

static void track_state(struct track *t, struct state *s, uint64_t now_ns)
{
    state_section_begin(s, "verdict", 1);
    state_bool(s, "kept", &t->kept);
    state_bool(s, "owed", &t->owed);
    state_time(s, "since_age_ns", &t->since_ns, now_ns);
    state_u32(s, "good_windows", &t->good_windows);
    state_time(s, "good_age_ns", &t->good_ns, now_ns);
    state_u64(s, "goal", &t->goal);
    state_u64(s, "achieved", &t->achieved);
    state_u32(s, "lack", &t->lack);
    state_u32(s, "held", &t->held);
    state_bool(s, "by_resource", &t->by_resource);
    state_bytes(s, "held_by", t->held_by, sizeof(t->held_by));
    state_time(s, "last_age_ns", &t->last.since_ns, now_ns);
    state_u64(s, "last_broken_ms", &t->last.broken_ms);
    state_u32(s, "last_lack", &t->last.lack);
    state_u32(s, "last_held", &t->last.held);
    state_bool(s, "last_by_resource", &t->last.by_resource);
    state_bytes(s, "last_held_by", t->last.held_by, sizeof(t->last.held_by));
    record_state(&t->record, s, now_ns);
    if (state_is_loading(s) && !state_failed(s) && !is_sound(t))
        state_fail(s, "a verdict that cannot be: kept and yet broken, or by a name that does not end");
    state_section_end(s);
}

// Makes the holder of the slot when loading; NULL when the stream has failed.
static struct holder *holder_head(struct promise_watch *w, struct state *s, uint32_t slot, uint64_t now_ns)
{
    char name[PROMISE_NAME_MAX] = "";
    struct promise_set set = {0};
    const bool loading = state_is_loading(s);
    if (!loading) {
        memcpy(name, w->holders[slot]->name, sizeof(name));
        set = w->holders[slot]->set;
    }
    state_bytes(s, "name", name, sizeof(name));
    promise_set_state(&set, s);
    if (!loading || state_failed(s))
        return loading ? NULL : w->holders[slot];
    if (!name[0] || name[sizeof(name) - 1]) {
        state_fail(s, "the name of holder %u is empty or does not end", slot);
        return NULL;
    }
    w->holders[slot] = holder_create(name, &set, now_ns);
    if (!w->holders[slot])
        state_fail(s, "out of memory");
    return w->holders[slot];
}

static void holder_state(struct promise_watch *w, struct state *s, uint32_t slot, uint64_t now_ns)
{
    state_section_begin(s, "holder", 1);
    struct holder *h = holder_head(w, s, slot, now_ns);
    if (h) {
        state_time(s, "window_age_ns", &h->begin_ns, now_ns);
        state_u64_array(s, "amounts", h->got.amount, PROMISE_METRICS);
        state_u64(s, "waited_ns", &h->got.waited_ns);
        state_bool(s, "is_slow", &h->got.is_slow);
        for (unsigned i = 0; i < h->set.n && !state_failed(s); i++)
            track_state(&h->tracks[i], s, now_ns);
    }
    state_section_end(s);
}

// The next slot that somebody has.
static uint32_t next_slot(const struct promise_watch *w, uint32_t from)
{
    while (from < w->options.holders_max && !w->holders[from])
        from++;
    return from;
}

static void empty(struct promise_watch *w)
{
    for (uint32_t i = 0; i < w->options.holders_max; i++) {
        free(w->holders[i]);
        w->holders[i] = NULL;
    }
}

void promise_watch_state(struct promise_watch *w, struct state *s, uint64_t now_ns)
{
    const bool loading = state_is_loading(s);
    uint32_t n = 0, slot = 0;
    for (uint32_t i = next_slot(w, 0); i < w->options.holders_max; i = next_slot(w, i + 1))
        n++;
    state_section_begin(s, "watch", 1);
    state_time(s, "window_age_ns", &w->begin_ns, now_ns);
    state_count(s, "holders", &n, w->options.holders_max);
    for (uint32_t i = 0; i < n && !state_failed(s); i++, slot++) {
        slot = loading ? slot : next_slot(w, slot);
        const uint32_t least = slot;
        state_u32(s, "slot", &slot);
        if (slot < least || slot >= w->options.holders_max)
            state_fail(s, "holder %u is in slot %u; they are in ascending slots below %u", i, slot, w->options.holders_max);
        if (!state_failed(s))
            holder_state(w, s, slot, now_ns);
    }
    state_section_end(s);
    if (loading && state_failed(s))
        empty(w);
}
