// What disks were promised, and whether it is kept: see promises.h.
#include "store/promises.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rpc.h"
#include "promise/describe.h"
#include "store/admission.h"
#include "store/terms.h"
#include "store/verdict_file.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

_Static_assert(VERDICT_FILE_EVERY_NS == VERDICT_FILE_TURNS * PROMISES_TICK_NS, "a turn is a tick");

#define SETTLED_SHARE (ADMISSION_SHARE_MAX / 20 * 19) // below this it is not too much any more
#define DEVICE_TIME_NS (10 * NS_PER_S)                // what the device takes is known of the last 10 to 20 seconds
#define MEASURED_REQUESTS 100000u                     // so many requests, and what they cost is half forgotten

struct promises {
    struct store *store;
    struct promise_watch *watch;
    struct verdict_file *file; // NULL: there is none
    struct loop_source *timer;
    uint64_t fed_ns;  // when it was fed last
    uint64_t turn_ns; // when the device's times were turned last
    bool is_too_much; // more is promised than the device can do, as it now turns out
};

// ---- what is counted goes to the watch ----

static uint64_t waited_ns(const struct disk *disk, uint64_t now_ns)
{
    const struct dispatcher *d = disk->store->dispatcher;
    return d->ops->waited_ns ? d->ops->waited_ns(d, disk->queue, now_ns) : 0;
}

static bool is_device_slow(const struct disk *disk)
{
    const struct dispatcher *d = disk->store->dispatcher;
    return d->ops->is_device_slow && d->ops->is_device_slow(d, disk->queue);
}

static struct disk_usage usage_since(const struct disk_usage *now, const struct disk_usage *then)
{
    return (struct disk_usage){.bytes = now->bytes - then->bytes,
                               .requests = now->requests - then->requests,
                               .device_ns = now->device_ns - then->device_ns,
                               .late = now->late - then->late,
                               .latency_ns = now->latency_ns - then->latency_ns};
}

static void measure(struct disk_promises *p, const struct disk_usage *more, uint64_t passed_ns)
{
    struct disk_usage *m = &p->measured;
    if (!more->requests)
        return;
    p->measured_ns += passed_ns;
    m->latency_ns += more->latency_ns;
    m->bytes += more->bytes;
    m->requests += more->requests;
    m->device_ns += more->device_ns;
    if (m->requests < MEASURED_REQUESTS)
        return;
    m->bytes /= 2;
    m->requests /= 2;
    m->device_ns /= 2;
    m->latency_ns /= 2;
    p->measured_ns /= 2;
}

static void feed(struct promises *p, struct disk *disk, uint64_t now_ns)
{
    struct disk_promises *promised = &disk->promised;
    const struct disk_usage more = usage_since(&promised->usage, &promised->seen);
    const uint64_t waited = waited_ns(disk, now_ns);
    const struct promise_sample sample = {.amount = {[PROMISE_BANDWIDTH] = more.bytes,
                                                     [PROMISE_OPERATIONS] = more.requests,
                                                     [PROMISE_LATENCY] = more.late,
                                                     [PROMISE_UTILIZATION] = more.device_ns},
                                          .waited_ns = waited - promised->seen_waited_ns,
                                          .is_slow = is_device_slow(disk)};
    promise_watch_add(p->watch, promised->slot, &sample);
    promised->seen = promised->usage;
    promised->seen_waited_ns = waited;
    if (p->store->knows_costs)
        measure(promised, &more, now_ns - p->fed_ns);
}

static uint64_t feed_all(struct promises *p)
{
    const struct dispatcher *d = p->store->dispatcher;
    const uint64_t now_ns = clock_now_ns();
    p->store->knows_costs = d->ops->knows_costs && d->ops->knows_costs(d);
    for (struct disk *disk = p->store->disks; disk; disk = disk->next)
        feed(p, disk, now_ns);
    p->fed_ns = now_ns;
    return now_ns;
}

static void turn_device_times(struct promises *p, uint64_t now_ns)
{
    if (now_ns - p->turn_ns < DEVICE_TIME_NS)
        return;
    p->turn_ns = now_ns;
    for (struct disk *disk = p->store->disks; disk; disk = disk->next)
        device_time_turn(&disk->promised.device_time);
}

// What was taken on trust may prove to be too much, and a device may become slower.
static void check_sum(struct promises *p)
{
    const uint64_t need = admission_need(p->store);
    const bool is_too_much = need > (p->is_too_much ? SETTLED_SHARE : ADMISSION_SHARE_MAX);
    if (is_too_much && !p->is_too_much)
        log_event(LOG_WARN, "store", "more is reserved than the device can promise", LOG_U64("reserved_ppm_of_time", need),
                  LOG_U64("can_be_promised_ppm", ADMISSION_SHARE_MAX));
    p->is_too_much = is_too_much;
}

static void on_tick(void *arg)
{
    struct promises *p = arg;
    const uint64_t now_ns = feed_all(p);
    promise_watch_tick(p->watch, now_ns);
    turn_device_times(p, now_ns);
    verdict_file_tick(p->file, p->watch, IO_FILES_MAX);
    check_sum(p);
}

static void on_event(void *arg, const struct promise_event *event)
{
    struct promises *p = arg;
    const struct promise_verdict *v = &event->verdict;
    char text[PROMISE_TEXT_MAX];
    promise_format(&v->promise, text);
    if (v->kept)
        log_event(LOG_INFO, "store", "promise is kept again", LOG_STR("disk", event->name), LOG_STR("promise", text));
    else
        log_event(LOG_WARN, "store", "promise broken", LOG_STR("disk", event->name), LOG_STR("promise", text),
                  LOG_U64("goal", v->goal), LOG_U64("achieved", v->achieved), LOG_U64("lack_ppm", v->lack),
                  LOG_STR("held_by", v->by_resource  ? "the device itself"
                                     : v->held_by[0] ? v->held_by
                                                     : "nobody"));
    if (!p->store->control)
        return;
    json_t *params = promise_describe_verdict(v, clock_now_ns());
    json_object_set_new(params, "name", json_string(event->name));
    rpc_server_broadcast(p->store->control, "promise.changed", params);
}

// ---- life ----

struct promises *promises_create(struct store *store, int verdicts_fd, struct tv_error *err)
{
    struct promises *p = calloc(1, sizeof(*p));
    if (!p) {
        tv_error_set(err, -ENOMEM, "promises: out of memory");
        return NULL;
    }
    p->store = store;
    const struct promise_watch_options options = {
        .holders_max = IO_FILES_MAX, .event = on_event, .opaque = p, PROMISE_WATCH_DEFAULTS};
    p->watch = promise_watch_create(&options, clock_now_ns());
    if (!p->watch)
        tv_error_set(err, -ENOMEM, "promises: out of memory");
    else if ((verdicts_fd < 0 || (p->file = verdict_file_create(store->io, verdicts_fd, err))) &&
             (p->timer = loop_add_timer(store->loop, on_tick, p, err))) {
        verdict_file_tick(p->file, p->watch, 0); // reads it, if nobody else has it
        return p;
    }
    promises_destroy(p);
    return NULL;
}

void promises_destroy(struct promises *p)
{
    if (!p)
        return;
    loop_remove(p->timer);
    verdict_file_destroy(p->file);
    promise_watch_destroy(p->watch);
    free(p);
}

// ---- changes ----

static uint64_t late_after(const struct promise_set *set)
{
    const struct promise *latency = promise_set_find(set, PROMISE_RESERVE, PROMISE_LATENCY);
    return latency ? latency->value : UINT64_MAX;
}

static int set_terms(struct disk *disk, const struct promise_set *set, struct tv_error *err)
{
    struct dispatcher *d = disk->store->dispatcher;
    const struct dispatch_terms terms = terms_of_promises(set);
    int r = d->ops->queue_set(d, disk->queue, &terms, clock_now_ns(), err);
    if (r)
        return err ? tv_error_prefix(err, "disk '%s'", disk->name) : r;
    disk->terms = terms;
    disk->promised.set = *set;
    disk->promised.late_ns = late_after(set);
    return 0;
}

static void log_unproven(const json_t *unproven)
{
    size_t i;
    json_t *one;
    json_array_foreach(unproven, i, one)
        log_event(LOG_INFO, "store", "promised on trust", LOG_STR("disk", json_string_value(json_object_get(one, "name"))),
                  LOG_STR("promise", json_string_value(json_object_get(one, "promise"))),
                  LOG_STR("because", json_string_value(json_object_get(one, "because"))));
}

int promises_join(struct promises *p, struct disk *disk, const struct promise_set *set, bool admitted, json_t *unproven,
                  struct tv_error *err)
{
    const struct admission_change change = {.disk = disk, .set = *set};
    json_t *own = json_array();
    int r = admitted ? 0 : admission_check(p->store, &change, 1, own, err);
    if (!r)
        log_unproven(own);
    if (!r && unproven)
        json_array_extend(unproven, own);
    json_decref(own);
    if (!r)
        r = set_terms(disk, set, err);
    if (!r)
        r = promise_watch_join(p->watch, disk->name, set, clock_now_ns(), &disk->promised.slot, err);
    if (r)
        return r;
    disk->promised.is_watched = true;
    verdict_file_resume(p->file, p->watch, disk->promised.slot);
    loop_set_timer(p->timer, PROMISES_TICK_NS, PROMISES_TICK_NS);
    return 0;
}

void promises_leave(struct promises *p, struct disk *disk)
{
    if (disk->promised.is_watched) {
        verdict_file_save(p->file, p->watch, disk->promised.slot);
        promise_watch_leave(p->watch, disk->promised.slot);
    }
    disk->promised.is_watched = false;
    if (!p->store->disks)
        loop_set_timer(p->timer, 0, 0);
}

static int change_one(struct promises *p, struct disk *disk, const struct promise_set *set, struct tv_error *err)
{
    const struct promise_set before = disk->promised.set;
    int r = set_terms(disk, set, err);
    if (r)
        return r;
    r = promise_watch_change(p->watch, disk->promised.slot, set, clock_now_ns(), err);
    if (r)
        set_terms(disk, &before, NULL);
    return r;
}

static int change_all(struct promises *p, struct admission_change *changes, size_t n, struct tv_error *err)
{
    int r = 0;
    size_t i = 0;
    feed_all(p); // what was done up to here does not count for what is promised from now on
    for (; i < n && !r; i++) {
        assert(changes[i].disk); // decoded
        const struct promise_set before = changes[i].disk->promised.set;
        r = change_one(p, changes[i].disk, &changes[i].set, err);
        changes[i].set = before;
    }
    for (size_t undo = 0; r && undo + 1 < i; undo++)
        change_one(p, changes[undo].disk, &changes[undo].set, NULL);
    return r;
}

static int decode(struct promises *p, const json_t *wanted, struct admission_change *changes, struct tv_error *err)
{
    const char *name;
    json_t *text;
    size_t n = 0;
    json_object_foreach((json_t *)wanted, name, text)
    {
        struct admission_change *change = &changes[n++];
        change->disk = store_find_disk(p->store, name, err);
        if (!change->disk)
            return -ENOENT;
        if (!json_is_string(text))
            return tv_error_set(err, -EINVAL, "disk '%s': its promises must be a text, as 'reserve: 40MB/s'", name);
        if (promise_set_parse(&change->set, PROMISE_DISK, json_string_value(text), err))
            return tv_error_prefix(err, "disk '%s'", name);
    }
    return 0;
}

static void log_change(const struct disk *disk)
{
    char text[PROMISE_SET_TEXT_MAX];
    log_event(LOG_INFO, "store", "promises changed", LOG_STR("disk", disk->name),
              LOG_STR("promises", promise_set_format(&disk->promised.set, text)));
}

int promises_change(struct promises *p, const json_t *wanted, bool admitted, json_t *unproven, struct tv_error *err)
{
    const size_t n = json_object_size(wanted);
    struct admission_change *changes = calloc(n + 1, sizeof(*changes));
    if (!changes)
        return tv_error_set(err, -ENOMEM, "promises: out of memory");
    int r = decode(p, wanted, changes, err);
    if (!r && !admitted)
        r = admission_check(p->store, changes, n, unproven, err);
    if (!r)
        r = change_all(p, changes, n, err);
    for (size_t i = 0; i < n && !r; i++) {
        verdict_file_resume(p->file, p->watch, changes[i].disk->promised.slot); // a promise that was made before goes on
        log_change(changes[i].disk);
    }
    if (!r)
        log_unproven(unproven);
    free(changes);
    return r;
}

// ---- what is told ----

void promises_describe(struct promises *p, const struct disk *disk, json_t *object)
{
    struct promise_verdict verdicts[PROMISE_SET_MAX];
    char text[PROMISE_SET_TEXT_MAX];
    json_t *list = json_array();
    const uint64_t now_ns = clock_now_ns();
    const unsigned n = promise_watch_verdicts(p->watch, disk->promised.slot, verdicts);
    for (unsigned i = 0; i < n; i++) {
        json_t *verdict = promise_describe_verdict(&verdicts[i], now_ns);
        json_object_set_new(verdict, "proven", json_boolean(admission_is_proven(disk, &verdicts[i].promise)));
        json_array_append_new(list, verdict);
    }
    json_object_set_new(object, "promises", json_string(promise_set_format(&disk->promised.set, text)));
    json_object_set_new(object, "verdicts", list);
}
