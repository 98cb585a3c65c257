// Any bytes as a saved watch: refused, and nobody is in it; or a watch that is saved and loaded as the same, and goes on: its
// windows are judged and its events name whom they blame.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/state.h"
#include "promise/watch.h"

enum { HOLDERS_MAX = 4 };
static const uint64_t now_ns = 1000000000000;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_event(void *opaque, const struct promise_event *event)
{
    struct promise_watch *const *w = opaque;
    assert(promise_watch_name(*w, event->slot) == event->name && strlen(event->name) < PROMISE_NAME_MAX);
    assert(strlen(event->verdict.held_by) < PROMISE_NAME_MAX && strlen(event->verdict.last.held_by) < PROMISE_NAME_MAX);
    assert(!event->verdict.kept || (event->verdict.lack == 0 && !event->verdict.by_resource && !event->verdict.held_by[0]));
}

static void *save(struct promise_watch *w, size_t *len)
{
    void *buf;
    struct state *s = state_create_save();
    promise_watch_state(w, s, now_ns);
    assert(state_finish(s, &buf, len, NULL) == 0);
    state_destroy(s);
    return buf;
}

static int load(struct promise_watch *w, const void *data, size_t len)
{
    struct state *s = state_create_load(data, len);
    promise_watch_state(w, s, now_ns);
    for (uint32_t slot = 0; state_failed(s) && slot < HOLDERS_MAX; slot++)
        assert(!promise_watch_name(w, slot));
    const int rc = state_finish(s, NULL, NULL, NULL);
    state_destroy(s);
    return rc;
}

static void check_saved(struct promise_watch *w, const struct promise_watch_options *options, size_t size)
{
    size_t len, len_again;
    struct promise_watch *other = promise_watch_create(options, now_ns);
    void *once = save(w, &len);
    assert(other && len == size && load(other, once, len) == 0);
    void *twice = save(other, &len_again);
    assert(len_again == len && memcmp(once, twice, len) == 0);
    promise_watch_destroy(other);
    free(once);
    free(twice);
}

static void go_on(struct promise_watch *w)
{
    const struct promise_sample sample = {.amount = {1 << 20, 100, 50, 300000000, 300000000, 1 << 20, 100}, .waited_ns = 900000000};
    for (uint64_t now = now_ns; now < now_ns + 5000000000; now += 500000000) {
        for (uint32_t slot = 0; slot < HOLDERS_MAX; slot++)
            if (promise_watch_name(w, slot))
                promise_watch_add(w, slot, &sample);
        promise_watch_tick(w, now);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct promise_watch *w;
    const struct promise_watch_options options = {PROMISE_WATCH_DEFAULTS, .holders_max = HOLDERS_MAX, .event = check_event,
                                                  .opaque = &w};
    w = promise_watch_create(&options, now_ns);
    assert(w);
    if (load(w, data, size) == 0) {
        check_saved(w, &options, size);
        go_on(w);
    }
    promise_watch_destroy(w);
    return 0;
}
