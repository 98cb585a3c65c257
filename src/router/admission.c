// Admission of promises to a worker's CPU: see admission.h.
#include "router/admission.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

// A network or a port as admission sees it: without what is taken on trust.
struct entry {
    char label[64];
    struct promise_set set;
};

// What is admitted, and where it is put together.
struct sum {
    const struct admission *a;
    const struct admission_change *change; // NULL: as things are
    struct promise_holder *holders;
    struct entry *entries;
    size_t n, n_entries;
};

const char *admission_name(const char *vn, const char *port, char buf[static ADMISSION_NAME_MAX])
{
    snprintf(buf, ADMISSION_NAME_MAX, "%s%s%s", vn, port ? "/" : "", port ? port : "");
    return buf;
}

// ---- what is known ----

static uint64_t by_the_second(uint64_t amount, uint64_t cycles, uint64_t hz)
{
    const unsigned __int128 rate = (unsigned __int128)amount * hz / cycles;
    return rate < UINT64_MAX ? (uint64_t)rate : UINT64_MAX;
}

void admission_alone(const struct promised *promised, uint64_t hz, uint64_t rates[static PROMISE_METRICS])
{
    const struct usage_reading *m = &promised->measured;
    if (m->full_packets < ADMISSION_PACKETS_LEAST || !m->full_cycles)
        return;
    rates[PROMISE_BIT_RATE] = by_the_second(m->full_bits, m->full_cycles, hz);
    rates[PROMISE_PACKETS] = by_the_second(m->full_packets, m->full_cycles, hz);
}

static bool needs_measure(const struct promise *p)
{
    return p->kind == PROMISE_RESERVE && (p->metric == PROMISE_BIT_RATE || p->metric == PROMISE_PACKETS);
}

bool admission_is_proven(const struct promised *promised, const struct promise *p, uint64_t hz)
{
    uint64_t rates[PROMISE_METRICS] = {0};
    admission_alone(promised, hz, rates);
    return !needs_measure(p) || rates[p->metric];
}

// promised: NULL for what is not there yet.
static uint64_t need(const struct promised *promised, uint64_t hz, bool *known)
{
    struct promise_holder holder = {.name = "", .set = &promised->set};
    admission_alone(promised, hz, holder.alone);
    for (unsigned i = 0; i < promised->set.n; i++)
        *known &= !needs_measure(&promised->set.list[i]) || holder.alone[promised->set.list[i].metric];
    return promise_need(&holder);
}

static const struct vn_port *port_at(const struct vn *vn, unsigned i)
{
    return atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
}

uint64_t admission_need(const struct vn *vn, uint64_t hz, bool *known)
{
    uint64_t ports = 0;
    *known = true;
    const uint64_t own = need(&vn->promised, hz, known);
    for (unsigned i = 0; vn->port_watch && i < VN_PORTS_MAX; i++)
        if (port_at(vn, i))
            ports += need(&port_at(vn, i)->promised, hz, known);
    return own > ports ? own : ports;
}

// ---- a sum of them ----

static void add(struct sum *sum, const char *vn, const char *port, const struct promised *promised, const struct promise_set *set,
                json_t *unproven)
{
    struct entry *entry = &sum->entries[sum->n_entries++];
    struct promise_holder *holder = &sum->holders[sum->n++];
    char name[ADMISSION_NAME_MAX], text[PROMISE_TEXT_MAX];
    *holder = (struct promise_holder){.name = entry->label, .set = &entry->set};
    if (promised)
        admission_alone(promised, sum->a->hz, holder->alone);
    snprintf(entry->label, sizeof(entry->label), "%s '%s'", port ? "port" : "network", admission_name(vn, port, name));
    entry->set = (struct promise_set){.resource = PROMISE_LINK};
    for (unsigned i = 0; i < set->n; i++) {
        const struct promise *p = &set->list[i];
        if (!needs_measure(p) || holder->alone[p->metric])
            entry->set.list[entry->set.n++] = *p;
        else if (unproven)
            json_array_append_new(unproven, json_pack("{s:s, s:s}", "name", name, "promise", promise_format(p, text)));
    }
}

// The ports of a network, or the one that is to be.
static void add_ports(struct sum *sum, const struct vn *vn, json_t *unproven)
{
    const struct admission_change *change = sum->change && sum->change->vn == vn ? sum->change : NULL;
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *port = port_at(vn, i);
        const bool is_it = port && change && change->port == port;
        if (port && (is_it || port->promised.set.n))
            add(sum, vn->name, port->name, &port->promised, is_it ? &change->set : &port->promised.set, is_it ? unproven : NULL);
    }
    if (change && change->new_port)
        add(sum, vn->name, change->new_port, NULL, &change->set, unproven);
}

static uint64_t needs(const struct sum *sum, size_t from)
{
    uint64_t needs = 0;
    for (size_t i = from; i < sum->n; i++)
        needs += promise_need(&sum->holders[i]);
    return needs;
}

// The network itself, or its ports if they need more together.
static void add_vn(struct sum *sum, const struct vn *vn, json_t *unproven)
{
    const struct admission_change *change = sum->change && sum->change->vn == vn ? sum->change : NULL;
    const bool is_it = change && !change->port && !change->new_port;
    const size_t at = sum->n;
    add(sum, vn->name, NULL, &vn->promised, is_it ? &change->set : &vn->promised.set, is_it ? unproven : NULL);
    if (!vn->port_watch && !(change && !is_it))
        return; // no port was promised anything
    add_ports(sum, vn, unproven);
    if (needs(sum, at + 1) > promise_need(&sum->holders[at])) {
        for (size_t i = at; i + 1 < sum->n; i++)
            sum->holders[i] = sum->holders[i + 1];
        sum->n--;
    } else {
        sum->n = at + 1;
    }
}

static size_t room_for(const struct admission *a)
{
    size_t n = 2; // what is new
    for (size_t i = 0; i < a->n_vns; i++)
        n += a->vns[i]->port_watch ? 1 + VN_PORTS_MAX : 1;
    return n + VN_PORTS_MAX; // of a network whose first port is promised something
}

static void add_all(struct sum *sum, json_t *unproven)
{
    sum->n = sum->n_entries = 0;
    for (size_t i = 0; i < sum->a->n_vns; i++)
        add_vn(sum, sum->a->vns[i], unproven);
    if (sum->change && sum->change->new_vn)
        add(sum, sum->change->new_vn, NULL, NULL, &sum->change->set, unproven);
}

// ---- ports beside their network ----

// What the ports are promised is to come by the network, so its limit must not be below.
static int check_limits(const struct admission_change *change, const struct vn *vn, uint64_t hz, struct tv_error *err)
{
    const bool is_vn = !change->port && !change->new_port;
    const struct promise_set *own = is_vn ? &change->set : &vn->promised.set;
    for (enum pace_metric metric = 0; metric < PACE_METRICS; metric++) {
        const uint64_t limit = terms_rate(own, PROMISE_LIMIT, metric, hz);
        uint64_t sum = change->new_port ? terms_rate(&change->set, PROMISE_RESERVE, metric, hz) : 0;
        for (unsigned i = 0; limit && i < VN_PORTS_MAX; i++) {
            const struct vn_port *port = port_at(vn, i);
            if (port)
                sum += terms_rate(port == change->port ? &change->set : &port->promised.set, PROMISE_RESERVE, metric, hz);
        }
        if (!limit || sum <= limit)
            continue;
        char text[PROMISE_TEXT_MAX], most[PROMISE_TEXT_MAX];
        static const enum promise_metric metrics[PACE_METRICS] = {PROMISE_BIT_RATE, PROMISE_PACKETS, PROMISE_UTILIZATION};
        const uint64_t unit = metric == PACE_CYCLES ? hz / 1000000 : 1;
        return tv_error_set(err, -EINVAL,
                            "the ports of network '%s' have %s reserved together, and its limit is %s: raise the limit, or reserve "
                            "less",
                            vn->name, promise_format_value(metrics[metric], sum / unit, text),
                            promise_format_value(metrics[metric], limit / unit, most));
    }
    return 0;
}

int admission_check(const struct admission *a, const struct admission_change *change, json_t *unproven, struct tv_error *err)
{
    const struct promise_capacity capacity = {.name = a->name, .share_max = ADMISSION_SHARE_MAX};
    int r = change->vn ? check_limits(change, change->vn, a->hz, err) : 0;
    if (r)
        return r;
    const size_t room = room_for(a);
    struct sum sum = {.a = a, .holders = calloc(room, sizeof(*sum.holders)), .entries = calloc(room, sizeof(*sum.entries))};
    if (sum.holders && sum.entries) {
        add_all(&sum, NULL);
        const uint64_t before = needs(&sum, 0);
        sum.change = change;
        add_all(&sum, unproven);
        r = needs(&sum, 0) > before ? promise_admit(&capacity, sum.holders, sum.n, err) : 0;
    } else {
        r = tv_error_set(err, -ENOMEM, "promises: out of memory");
    }
    free(sum.holders);
    free(sum.entries);
    return r;
}
