// What networks and ports were promised, and whether it is kept: see promises.h.
#include "router/promises.h"

#include "base/clock.h"
#include "base/log.h"
#include "promise/describe.h"
#include "promise/share.h"
#include "router/admission.h"
#include "router/params.h"
#include "router/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEASURED_PACKETS (1u << 20)                   // so many packets, and what they cost is half forgotten
#define SETTLED_SHARE (ADMISSION_SHARE_MAX / 20 * 19) // below this it is not too much any more
#define MARGIN 20                                     // a twentieth more than is needed: what packets cost varies

struct promises {
    struct promises_options options;
    struct admission admission;
    struct vn *vns[WORKER_VNS_MAX];
    struct share shares[WORKER_VNS_MAX]; // of tick()
    struct promise_watch *watch;
    bool is_too_much; // more is promised than the CPU can do, as it now turns out
};

static const struct promise_set nothing = {.resource = PROMISE_LINK};

// ---- what is counted goes to the watches ----

static uint64_t as_ns(uint64_t cycles, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)cycles * NS_PER_S / hz);
}

static void measure(struct promised *promised, const struct usage_reading *now)
{
    struct usage_reading *m = &promised->measured;
    m->full_packets += now->full_packets - promised->seen.full_packets;
    m->full_bits += now->full_bits - promised->seen.full_bits;
    m->full_cycles += now->full_cycles - promised->seen.full_cycles;
    while (m->full_packets >= MEASURED_PACKETS) {
        m->full_packets /= 2;
        m->full_bits /= 2;
        m->full_cycles /= 2;
    }
}

static void feed(const struct promises *p, struct promise_watch *watch, struct promised *promised, const struct usage *usage)
{
    const struct usage_reading now = usage_read(usage), *seen = &promised->seen;
    const uint64_t hz = p->options.hz;
    const struct promise_sample sample = {.amount = {[PROMISE_BIT_RATE] = now.bits - seen->bits,
                                                     [PROMISE_PACKETS] = now.packets - seen->packets,
                                                     [PROMISE_LATENCY] = now.late_packets - seen->late_packets,
                                                     [PROMISE_UTILIZATION] = as_ns(now.cycles - seen->cycles, hz)},
                                          .waited_ns = as_ns(now.waited_cycles - seen->waited_cycles, hz)};
    promise_watch_add(watch, promised->slot, &sample);
    measure(promised, &now);
    promised->seen = now;
}

static struct vn_port *port_at(const struct vn *vn, unsigned i)
{
    return atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
}

static void feed_ports(const struct promises *p, struct vn *vn)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *port = port_at(vn, i);
        if (port && port->promised.is_watched)
            feed(p, vn->port_watch, &port->promised, &port->pace.usage);
    }
}

static void feed_all(const struct promises *p)
{
    for (size_t i = 0; i < p->admission.n_vns; i++) {
        struct vn *vn = p->vns[i];
        feed(p, p->watch, &vn->promised, &vn->pace.usage);
        if (vn->port_watch)
            feed_ports(p, vn);
    }
}

static void on_event(void *arg, const struct promise_event *event)
{
    const struct promises *p = arg;
    const struct promise_verdict *v = &event->verdict;
    char text[PROMISE_TEXT_MAX];
    promise_format(&v->promise, text);
    if (v->kept)
        log_event(LOG_INFO, "router", "promise is kept again", LOG_STR("network", event->name), LOG_STR("promise", text));
    else
        log_event(LOG_WARN, "router", "promise broken", LOG_STR("network", event->name), LOG_STR("promise", text),
                  LOG_U64("goal", v->goal), LOG_U64("achieved", v->achieved), LOG_U64("lack_ppm", v->lack),
                  LOG_STR("held_by", v->held_by[0] ? v->held_by : "nobody"));
    json_t *params = promise_describe_verdict(v, clock_now_ns());
    json_object_set_new(params, "name", json_string(event->name));
    p->options.tell(p->options.arg, params);
}

// ---- what networks are entitled to ----

static bool has_reserves(const struct vn *vn)
{
    for (unsigned i = 0; i < PACE_METRICS; i++)
        if (counter_get(&vn->terms.reserve[i]))
            return true;
    return false;
}

// In millionths: at least what was admitted, and more where packets have become dearer, as far as there is more.
static void fill_share(const struct promises *p, const struct vn *vn, struct share *share)
{
    bool known;
    const uint64_t need = admission_need(vn, p->options.hz, &known), least = vn->promised.admitted;
    *share = (struct share){.weight = 1, .high = known ? need + need / MARGIN : ADMISSION_SHARE_MAX};
    share->low = known && need < least ? need : least;
}

static uint64_t room_for_more(const struct promises *p)
{
    uint64_t admitted = 0;
    for (size_t i = 0; i < p->admission.n_vns; i++)
        admitted += p->vns[i]->promised.admitted;
    return admitted < ADMISSION_SHARE_MAX ? ADMISSION_SHARE_MAX - admitted : 0;
}

// What was taken on trust is known now: it counts as if it had been then, as far as there is room.
static void prove(struct vn *vn, uint64_t hz, uint64_t *room)
{
    bool known;
    const uint64_t need = admission_need(vn, hz, &known);
    if (vn->promised.admitted || !known)
        return;
    vn->promised.admitted = need < *room ? need : *room;
    *room -= vn->promised.admitted;
}

static void entitle_all(struct promises *p)
{
    uint64_t room = room_for_more(p);
    size_t n = 0;
    for (size_t i = 0; i < p->admission.n_vns; i++) {
        if (!has_reserves(p->vns[i]))
            continue;
        prove(p->vns[i], p->options.hz, &room);
        fill_share(p, p->vns[i], &p->shares[n++]);
    }
    share_fill(p->shares, n, ADMISSION_SHARE_MAX);
    for (size_t i = 0, at = 0; i < p->admission.n_vns; i++)
        if (has_reserves(p->vns[i]))
            atomic_store_explicit(&p->vns[i]->terms.entitled, p->shares[at++].given * (p->options.hz / 1000000),
                                  memory_order_relaxed);
}

// What was taken on trust may prove to be too much, and packets may become dearer.
static void check_sum(struct promises *p)
{
    uint64_t sum = 0;
    bool known;
    for (size_t i = 0; i < p->admission.n_vns; i++)
        sum += has_reserves(p->vns[i]) ? admission_need(p->vns[i], p->options.hz, &known) : 0;
    const bool is_too_much = sum > (p->is_too_much ? SETTLED_SHARE : ADMISSION_SHARE_MAX);
    if (is_too_much && !p->is_too_much)
        log_event(LOG_WARN, "router", "more is reserved than a worker can promise", LOG_U64("worker", p->options.worker),
                  LOG_U64("reserved_ppm_of_time", sum), LOG_U64("can_be_promised_ppm", ADMISSION_SHARE_MAX));
    p->is_too_much = is_too_much;
}

void promises_tick(struct promises *p, uint64_t now_ns)
{
    feed_all(p);
    promise_watch_tick(p->watch, now_ns);
    for (size_t i = 0; i < p->admission.n_vns; i++)
        if (p->vns[i]->port_watch)
            promise_watch_tick(p->vns[i]->port_watch, now_ns);
    entitle_all(p);
    check_sum(p);
}

// ---- life ----

static struct promise_watch *create_watch(struct promises *p, uint32_t holders_max)
{
    const struct promise_watch_options options = {
        .holders_max = holders_max, .event = on_event, .opaque = p, PROMISE_WATCH_DEFAULTS};
    return promise_watch_create(&options, clock_now_ns());
}

struct promises *promises_create(const struct promises_options *options, struct tv_error *err)
{
    struct promises *p = calloc(1, sizeof(*p));
    if (p)
        p->watch = create_watch(p, WORKER_VNS_MAX);
    if (!p || !p->watch) {
        free(p);
        tv_error_set(err, -ENOMEM, "promises: out of memory");
        return NULL;
    }
    p->options = *options;
    p->admission = (struct admission){.hz = options->hz, .vns = p->vns};
    snprintf(p->admission.name, sizeof(p->admission.name), "worker %u", options->worker);
    return p;
}

void promises_destroy(struct promises *p)
{
    if (p)
        promise_watch_destroy(p->watch);
    free(p);
}

// What the network's worker is to keep: its own reserves, or those of its ports together.
static void set_terms(const struct promises *p, struct vn *vn)
{
    uint64_t sums[PACE_METRICS] = {0};
    bool known;
    for (unsigned i = 0; vn->port_watch && i < VN_PORTS_MAX; i++)
        for (enum pace_metric metric = 0; port_at(vn, i) && metric < PACE_METRICS; metric++)
            sums[metric] += terms_rate(&port_at(vn, i)->promised.set, PROMISE_RESERVE, metric, p->options.hz);
    terms_set(&vn->terms, &vn->promised.set, sums, p->options.hz);
    const uint64_t need = admission_need(vn, p->options.hz, &known);
    vn->promised.admitted = 0;
    const uint64_t room = room_for_more(p);
    vn->promised.admitted = !known ? 0 : need < room ? need : room; // somebody else may have admitted more than there is
    vn_notify(vn);
}

static int watch(struct promise_watch *watch, const char *name, struct promised *promised, const struct usage *usage,
                 struct tv_error *err)
{
    promised->measured = promised->seen = usage_read(usage);
    int r = promise_watch_join(watch, name, &promised->set, clock_now_ns(), &promised->slot, err);
    promised->is_watched = !r;
    return r;
}

int promises_join(struct promises *p, struct vn *vn, struct tv_error *err)
{
    if (p->admission.n_vns == WORKER_VNS_MAX)
        return tv_error_set(err, -ENOSPC, "network '%s': a worker has room for %d networks", vn->name, WORKER_VNS_MAX);
    int r = watch(p->watch, vn->name, &vn->promised, &vn->pace.usage, err);
    if (r)
        return r;
    p->vns[p->admission.n_vns++] = vn;
    set_terms(p, vn);
    return 0;
}

static int watch_port(struct vn *vn, struct vn_port *port, struct tv_error *err)
{
    char name[ADMISSION_NAME_MAX];
    return watch(vn->port_watch, admission_name(vn->name, port->name, name), &port->promised, &port->pace.usage, err);
}

static void unwatch_ports(struct vn *vn)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++)
        if (port_at(vn, i))
            port_at(vn, i)->promised.is_watched = false;
    promise_watch_destroy(vn->port_watch);
    vn->port_watch = NULL;
}

// All ports of a network are watched once one of them was promised something.
static int watch_ports(struct promises *p, struct vn *vn, struct tv_error *err)
{
    if (vn->port_watch)
        return 0;
    vn->port_watch = create_watch(p, VN_PORTS_MAX);
    int r = vn->port_watch ? 0 : tv_error_set(err, -ENOMEM, "promises: out of memory");
    for (unsigned i = 0; !r && i < VN_PORTS_MAX; i++)
        if (port_at(vn, i))
            r = watch_port(vn, port_at(vn, i), err);
    if (r)
        unwatch_ports(vn);
    return r;
}

int promises_join_port(struct promises *p, struct vn *vn, struct vn_port *port, struct tv_error *err)
{
    int r = 0;
    if (vn->port_watch)
        r = watch_port(vn, port, err);
    else if (port->promised.set.n)
        r = watch_ports(p, vn, err);
    if (!r && port->promised.set.n)
        set_terms(p, vn);
    return r;
}

void promises_leave_port(struct promises *p, struct vn *vn, struct vn_port *port)
{
    if (!port->promised.is_watched)
        return;
    const bool has_promises = port->promised.set.n;
    promise_watch_leave(vn->port_watch, port->promised.slot);
    port->promised.is_watched = false;
    port->promised.set = nothing;
    if (has_promises)
        set_terms(p, vn);
}

void promises_leave(struct promises *p, struct vn *vn)
{
    size_t i = 0;
    while (i < p->admission.n_vns && p->vns[i] != vn)
        i++;
    if (i == p->admission.n_vns)
        return;
    if (vn->port_watch)
        unwatch_ports(vn);
    promise_watch_leave(p->watch, vn->promised.slot);
    vn->promised.is_watched = false;
    p->vns[i] = p->vns[--p->admission.n_vns];
}

// ---- decisions ----

// A text, or an object of entries as a YAML mapping has them.
static int parse_promises(const json_t *promises, struct promise_set *set, struct tv_error *err)
{
    const char *key;
    json_t *value;
    int r = 0;
    *set = nothing;
    if (!promises)
        return 0;
    if (json_is_string(promises))
        return promise_set_parse(set, PROMISE_LINK, json_string_value(promises), err);
    if (!json_is_object(promises))
        return tv_error_set(err, -EINVAL, "\"promises\" must be a string, as \"reserve: 100Mbit/s\", or an object");
    json_object_foreach((json_t *)promises, key, value)
    {
        char number[24];
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        if (!r && !json_is_string(value) && !json_is_integer(value))
            r = tv_error_set(err, -EINVAL, "\"promises\": '%.20s' must be a string or a number", key);
        if (!r)
            r = promise_set_add(set, key, json_is_string(value) ? json_string_value(value) : number, err);
    }
    return r;
}

static int parse(const json_t *params, struct promise_set *set, bool *admitted, struct tv_error *err)
{
    uint32_t weight;
    const json_t *is_admitted = json_object_get(params, "admitted");
    char number[16];
    if (is_admitted && !json_is_boolean(is_admitted))
        return tv_error_set(err, -EINVAL, "\"admitted\" must be true or false");
    *admitted = json_is_true(is_admitted);
    int r = parse_promises(json_object_get(params, "promises"), set, err);
    if (!r)
        r = params_get_u32(params, "weight", PROMISE_WEIGHT_DEFAULT, 1, PROMISE_WEIGHT_MAX, &weight, err);
    if (r || !json_object_get(params, "weight"))
        return r;
    snprintf(number, sizeof(number), "%u", weight);
    return promise_set_add(set, "weight", number, err);
}

static int decide(struct promises *p, struct admission_change *change, const json_t *params, json_t *unproven, struct tv_error *err)
{
    bool admitted = false;
    int r = parse(params, &change->set, &admitted, err);
    return r || admitted ? r : admission_check(&p->admission, change, unproven, err);
}

int promises_decide_vn(struct promises *p, const char *name, const json_t *params, struct promise_set *set, json_t *unproven,
                       struct tv_error *err)
{
    struct admission_change change = {.new_vn = name};
    int r = decide(p, &change, params, unproven, err);
    *set = change.set;
    return r ? tv_error_prefix(err, "network '%s'", name) : 0;
}

int promises_decide_port(struct promises *p, struct vn *vn, const char *name, const json_t *params, struct promise_set *set,
                         json_t *unproven, struct tv_error *err)
{
    struct admission_change change = {.vn = vn, .new_port = name};
    int r = decide(p, &change, params, unproven, err);
    *set = change.set;
    return r ? tv_error_prefix(err, "port '%s' of network '%s'", name, vn->name) : 0;
}

static int take_over(struct promises *p, struct vn *vn, struct vn_port *port, const struct promise_set *set, struct tv_error *err)
{
    static const uint64_t none[PACE_METRICS];
    struct promised *promised = port ? &port->promised : &vn->promised;
    int r = port ? watch_ports(p, vn, err) : 0;
    if (!r)
        r = promise_watch_change(port ? vn->port_watch : p->watch, promised->slot, set, clock_now_ns(), err);
    if (r)
        return r;
    promised->set = *set;
    if (port)
        terms_set(&port->terms, set, none, p->options.hz);
    set_terms(p, vn);
    return 0;
}

int promises_change(struct promises *p, struct vn *vn, struct vn_port *port, const json_t *promises, bool admitted,
                    json_t *unproven, struct tv_error *err)
{
    char name[ADMISSION_NAME_MAX], taken[PROMISE_SET_TEXT_MAX];
    struct admission_change change = {.vn = vn, .port = port};
    admission_name(vn->name, port ? port->name : NULL, name);
    feed_all(p); // what was done up to here does not count for what is promised from now on
    int r = parse_promises(promises, &change.set, err);
    if (!r && !admitted)
        r = admission_check(&p->admission, &change, unproven, err);
    if (!r)
        r = take_over(p, vn, port, &change.set, err);
    if (r)
        return tv_error_prefix(err, "%s '%s'", port ? "port" : "network", name);
    entitle_all(p);
    log_event(LOG_INFO, "router", "promises changed", LOG_STR("network", name),
              LOG_STR("promises", promise_set_format(&change.set, taken)));
    return 0;
}

// ---- what is told ----

void promises_describe(const struct promises *p, const struct vn *vn, const struct vn_port *port, json_t *object)
{
    const struct promised *promised = port ? &port->promised : &vn->promised;
    const struct promise_watch *watch = port ? vn->port_watch : p->watch;
    struct promise_verdict verdicts[PROMISE_SET_MAX];
    char text[PROMISE_SET_TEXT_MAX];
    uint64_t alone[PROMISE_METRICS] = {0};
    json_t *list = json_array();
    admission_alone(promised, p->options.hz, alone);
    const uint64_t now_ns = clock_now_ns();
    const unsigned n = promised->is_watched ? promise_watch_verdicts(watch, promised->slot, verdicts) : 0;
    for (unsigned i = 0; i < n; i++) {
        json_t *verdict = promise_describe_verdict(&verdicts[i], now_ns);
        json_object_set_new(verdict, "proven", json_boolean(admission_is_proven(promised, &verdicts[i].promise, p->options.hz)));
        json_array_append_new(list, verdict);
    }
    json_object_set_new(object, "promises", json_string(promise_set_format(&promised->set, text)));
    json_object_set_new(object, "verdicts", list);
    if (alone[PROMISE_PACKETS])
        json_object_set_new(object, "alone",
                            json_pack("{s:I, s:I}", "bits_per_s", (json_int_t)alone[PROMISE_BIT_RATE], "packets_per_s",
                                      (json_int_t)alone[PROMISE_PACKETS]));
}

static void list_one(const struct promises *p, const struct vn *vn, const struct vn_port *port, json_t *list)
{
    char name[ADMISSION_NAME_MAX];
    if (!(port ? port->promised.set.n : vn->promised.set.n))
        return;
    json_t *one = json_pack("{s:s, s:s, s:s}", "name", admission_name(vn->name, port ? port->name : NULL, name), "vn", vn->name,
                            "state", "running");
    if (port)
        json_object_set_new(one, "port", json_string(port->name));
    promises_describe(p, vn, port, one);
    json_array_append_new(list, one);
}

void promises_list(const struct promises *p, json_t *list)
{
    for (size_t i = 0; i < p->admission.n_vns; i++) {
        list_one(p, p->vns[i], NULL, list);
        for (unsigned k = 0; p->vns[i]->port_watch && k < VN_PORTS_MAX; k++)
            if (port_at(p->vns[i], k))
                list_one(p, p->vns[i], port_at(p->vns[i], k), list);
    }
}
