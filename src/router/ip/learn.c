// What messages of rtnetlink say, carried out: see learn.h.
#include "router/ip/learn.h"

#include <errno.h>
#include <stdlib.h>

// An object: one hop, or the numbers of others.
struct learn_nexthop {
    struct learn_nexthop *next;
    uint32_t id;
    bool is_blackhole;
    struct netlink_hop hop;
    unsigned n_members;
    uint32_t members[];
};

void learn_init(struct learn *l, struct candidates *candidates, enum origin origin, const struct learn_env *env)
{
    *l = (struct learn){.candidates = candidates, .origin = origin, .env = *env, .replaces = origin == ORIGIN_FPM};
}

static void forget_nexthops(struct learn *l)
{
    for (unsigned i = 0; i < LEARN_CHAINS; i++)
        while (l->nexthops[i]) {
            struct learn_nexthop *n = l->nexthops[i];
            l->nexthops[i] = n->next;
            free(n);
        }
    l->n_nexthops = 0;
}

void learn_fini(struct learn *l)
{
    forget_nexthops(l);
}

// Their numbers may be others' the next time.
void learn_begin(struct learn *l, bool has_events)
{
    forget_nexthops(l);
    candidates_begin(l->candidates, l->origin, has_events);
}

size_t learn_end(struct learn *l)
{
    return candidates_sweep(l->candidates, l->origin);
}

void learn_settle(struct learn *l)
{
    candidates_flush(l->candidates);
}

// ---- from hops to a route ----

// On-link legs of a route to several gateways are left out: a group is of gateways. So are legs by devices that are no ports, if
// others are.
static void add_hop(struct learn *l, const struct netlink_hop *in, struct route *route)
{
    struct hop hop = {0};
    const enum target_kind kind = l->env.resolve(l->env.arg, in, &hop);
    const bool is_better = route->kind == TARGET_NONE || (route->kind == TARGET_PUNT && kind != TARGET_NONE) ||
                           (route->kind == TARGET_LINK && kind == TARGET_VIA);
    if (kind == TARGET_NONE || (!is_better && !(kind == TARGET_VIA && route->kind == TARGET_VIA)))
        return;
    if (is_better)
        route->n_hops = 0;
    route->kind = kind;
    if (kind != TARGET_PUNT && route->n_hops < ECMP_MEMBERS_MAX)
        route->hops[route->n_hops++] = hop;
}

static struct learn_nexthop **find_nexthop(struct learn *l, uint32_t id)
{
    struct learn_nexthop **at = &l->nexthops[id % LEARN_CHAINS];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

// A group's members are no groups (ip-nexthop(8)).
static void add_object(struct learn *l, uint32_t id, struct route *route)
{
    const struct learn_nexthop *n = *find_nexthop(l, id);
    if (!n)
        return;
    if (n->is_blackhole)
        route->kind = TARGET_BLACKHOLE;
    else if (!n->n_members)
        add_hop(l, &n->hop, route);
    for (unsigned i = 0; i < n->n_members; i++) {
        const struct learn_nexthop *member = *find_nexthop(l, n->members[i]);
        if (member && !member->n_members && !member->is_blackhole)
            add_hop(l, &member->hop, route);
    }
}

static bool is_of_interest(const struct netlink_route *in)
{
    uint8_t bytes[16];
    const struct ip_prefix *p = &in->prefix;
    const uint32_t first = (uint32_t)(p->key >> 120);
    const bool is_main = in->table == RT_TABLE_MAIN, is_local = in->table == RT_TABLE_LOCAL && in->type == RTN_LOCAL;
    if ((!is_main && !is_local) || in->is_clone)
        return false;
    if (!p->len)
        return true;
    ip6_bytes(p->key, bytes);
    if (p->family == IP4)
        return first < 224 && first != 127 && first != 0;
    return bytes[0] != 0xff && !(bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80) && p->key >> 120;
}

// TARGET_NONE: it leads nowhere that we know of.
static void make_route(struct learn *l, const struct netlink_route *in, struct route *route)
{
    route->kind = TARGET_NONE;
    route->n_hops = 0;
    switch (in->type) {
    case RTN_UNICAST:
        for (unsigned i = 0; i < in->n_hops; i++)
            add_hop(l, &in->hops[i], route);
        if (!in->n_hops && in->nexthop)
            add_object(l, in->nexthop, route);
        break;
    case RTN_LOCAL:
        route->kind = TARGET_PUNT;
        break;
    case RTN_BLACKHOLE:
        route->kind = TARGET_BLACKHOLE;
        break;
    case RTN_UNREACHABLE:
    case RTN_PROHIBIT:
        route->kind = TARGET_UNREACHABLE;
        break;
    default:
        break;
    }
}

static void set_candidate(struct learn *l, const struct candidate_key *key, const struct candidate_told *told,
                          const struct route *route)
{
    if (candidates_set(l->candidates, key, told, route->kind == TARGET_NONE ? NULL : route)) {
        l->n_refused++;
        candidates_remove(l->candidates, key); // what was there before is not true any more
    }
}

// ---- routes ----

static bool is_same_hop(const struct hop *a, const struct hop *b)
{
    return a->family == b->family && a->port == b->port && a->gateway == b->gateway;
}

// IPv6 takes away the legs of a route one by one, and tells of each. Whether some are left.
static bool take_away_legs(struct learn *l, const struct candidate_key *key, const struct netlink_route *in)
{
    struct route gone, left;
    const struct candidate *e = candidates_get(l->candidates, key);
    if (!e || !e->target || key->family != IP6 || l->replaces || !in->n_hops)
        return false;
    make_route(l, in, &gone);
    candidates_describe(l->candidates, e, &left);
    if (gone.kind != TARGET_VIA || left.kind != TARGET_VIA || gone.n_hops >= left.n_hops)
        return false;
    unsigned n = 0;
    for (unsigned i = 0; i < left.n_hops; i++) {
        bool is_gone = false;
        for (unsigned k = 0; k < gone.n_hops; k++)
            is_gone |= is_same_hop(&left.hops[i], &gone.hops[k]);
        if (!is_gone)
            left.hops[n++] = left.hops[i];
    }
    left.n_hops = n;
    if (n)
        set_candidate(l, key, &(struct candidate_told){.protocol = e->protocol, .nexthop = e->nexthop}, &left);
    return n;
}

static void take_route(struct learn *l, const struct netlink_message *m, bool is_late)
{
    const struct netlink_route *in = &m->route;
    const struct candidate_key key = {.origin = l->origin,
                                      .family = in->prefix.family,
                                      .len = in->prefix.len,
                                      .key = in->prefix.key,
                                      .metric = l->replaces ? 0 : in->metric};
    struct route route;
    if (!is_of_interest(in))
        return;
    if (m->adds) {
        make_route(l, in, &route);
        set_candidate(l, &key, &(struct candidate_told){in->protocol, in->nexthop, is_late}, &route);
    } else if (l->replaces) {
        candidates_doom(l->candidates, &key);
    } else if (!take_away_legs(l, &key, in)) {
        candidates_remove(l->candidates, &key);
    }
}

// ---- nexthop objects ----

static void refresh_route(void *arg, const struct candidate *e)
{
    struct learn *l = arg;
    const struct candidate_key key = {l->origin, e->family, e->len, (rib_key)e->high << 64 | e->low, e->metric};
    struct route route = {.kind = TARGET_NONE};
    add_object(l, e->nexthop, &route);
    set_candidate(l, &key, &(struct candidate_told){.protocol = e->protocol, .nexthop = e->nexthop}, &route);
}

static void refresh_routes(struct learn *l, uint32_t id)
{
    candidates_of_nexthop(l->candidates, l->origin, id, refresh_route, l);
    for (unsigned i = 0; i < LEARN_CHAINS; i++)
        for (struct learn_nexthop *n = l->nexthops[i]; n; n = n->next)
            for (unsigned k = 0; k < n->n_members; k++)
                if (n->members[k] == id)
                    candidates_of_nexthop(l->candidates, l->origin, n->id, refresh_route, l);
}

static void remove_route(void *arg, const struct candidate *e)
{
    struct learn *l = arg;
    const struct candidate_key key = {l->origin, e->family, e->len, (rib_key)e->high << 64 | e->low, e->metric};
    candidates_remove(l->candidates, &key);
}

static bool remove_nexthop(struct learn *l, uint32_t id)
{
    struct learn_nexthop **at = find_nexthop(l, id), *n = *at;
    if (!n)
        return false;
    *at = n->next;
    free(n);
    l->n_nexthops--;
    return true;
}

static void take_nexthop(struct learn *l, const struct netlink_message *m)
{
    const struct netlink_nexthop *in = &m->nexthop;
    const bool was_there = remove_nexthop(l, in->id);
    if (!m->adds) {
        candidates_of_nexthop(l->candidates, l->origin, in->id, remove_route, l);
        return;
    }
    struct learn_nexthop *n = l->n_nexthops < LEARN_NEXTHOPS_MOST ? malloc(sizeof(*n) + in->n_members * sizeof(uint32_t)) : NULL;
    if (!n) {
        l->n_refused++;
        return;
    }
    struct learn_nexthop **head = &l->nexthops[in->id % LEARN_CHAINS];
    *n = (struct learn_nexthop){
        .next = *head, .id = in->id, .is_blackhole = in->is_blackhole, .hop = in->hop, .n_members = in->n_members};
    memcpy(n->members, in->members, in->n_members * sizeof(uint32_t));
    *head = n;
    l->n_nexthops++;
    if (was_there)
        refresh_routes(l, in->id);
}

void learn_message(struct learn *l, const struct netlink_message *message, bool is_late)
{
    if (message->kind == NETLINK_ROUTE_MESSAGE)
        take_route(l, message, is_late);
    else if (message->kind == NETLINK_NEXTHOP_MESSAGE)
        take_nexthop(l, message);
    else if (message->kind == NETLINK_NEIGHBOUR_MESSAGE && l->env.neighbour)
        l->env.neighbour(l->env.arg, &message->neighbour, message->adds);
}
