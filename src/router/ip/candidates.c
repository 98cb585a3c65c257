// Routes of several origins: see candidates.h.
#include "router/ip/candidates.h"

#include <errno.h>
#include <stdlib.h>

#define CHAINS_LEAST 64

struct candidates {
    struct fib *fib;
    struct candidate **chains, *doomed;
    size_t n_chains, n; // n_chains: a power of two
    size_t counts[ORIGINS];
    bool has_events[ORIGINS]; // while everything is told again
};

struct candidates *candidates_create(struct fib *fib)
{
    struct candidates *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->fib = fib;
    c->n_chains = CHAINS_LEAST;
    c->chains = calloc(c->n_chains, sizeof(struct candidate *));
    if (!c->chains) {
        free(c);
        return NULL;
    }
    fib_charge(fib, c->n_chains * sizeof(struct candidate *));
    return c;
}

void candidates_destroy(struct candidates *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_chains; i++)
        for (struct candidate *e = c->chains[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    free(c->chains);
    free(c);
}

// ---- the table: all of one prefix are in one chain ----

static size_t chain_of(const struct candidates *c, unsigned family, uint64_t high, uint64_t low, unsigned len)
{
    uint64_t h = (high ^ (low * 0x9e3779b97f4a7c15u)) + len * 2 + family; // 2^64 / the golden ratio
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;                              // a mixer of Pelle Evensen's (rrmxmx)
    return (h ^ h >> 32) & (c->n_chains - 1);
}

static struct candidate **chain(const struct candidates *c, unsigned family, rib_key key, unsigned len)
{
    return &c->chains[chain_of(c, family, (uint64_t)(key >> 64), (uint64_t)key, len)];
}

static bool is_of(const struct candidate *e, unsigned family, rib_key key, unsigned len)
{
    return e->high == (uint64_t)(key >> 64) && e->low == (uint64_t)key && e->len == len && e->family == family;
}

static struct candidate **find(const struct candidates *c, const struct candidate_key *k)
{
    struct candidate **at = chain(c, k->family, k->key, k->len);
    while (*at && !(is_of(*at, k->family, k->key, k->len) && (*at)->origin == k->origin && (*at)->metric == k->metric))
        at = &(*at)->next;
    return at;
}

// Without memory for it the chains are longer, and that is all.
static void grow(struct candidates *c)
{
    struct candidates grown = {.n_chains = c->n_chains * 2};
    if (c->n < c->n_chains || !(grown.chains = calloc(grown.n_chains, sizeof(struct candidate *))))
        return;
    for (size_t i = 0; i < c->n_chains; i++)
        for (struct candidate *e = c->chains[i], *next; e; e = next) {
            struct candidate **head = &grown.chains[chain_of(&grown, e->family, e->high, e->low, e->len)];
            next = e->next;
            e->next = *head;
            *head = e;
        }
    fib_charge(c->fib, c->n_chains * sizeof(struct candidate *));
    free(c->chains);
    c->chains = grown.chains;
    c->n_chains = grown.n_chains;
}

static struct candidate *add(struct candidates *c, const struct candidate_key *k)
{
    struct candidate *e = malloc(sizeof(*e));
    if (!e)
        return NULL;
    grow(c);
    struct candidate **head = chain(c, k->family, k->key, k->len);
    *e = (struct candidate){.next = *head,
                            .high = (uint64_t)(k->key >> 64),
                            .low = (uint64_t)k->key,
                            .metric = k->metric,
                            .family = (uint8_t)k->family,
                            .len = (uint8_t)k->len,
                            .origin = (uint8_t)k->origin};
    *head = e;
    c->n++;
    c->counts[k->origin]++;
    fib_charge(c->fib, sizeof(*e));
    return e;
}

static rib_key key_of(const struct candidate *e)
{
    return (rib_key)e->high << 64 | e->low;
}

static void undoom(struct candidates *c, struct candidate *e)
{
    struct candidate **at = &c->doomed;
    if (!e->is_doomed)
        return;
    while (*at != e)
        at = &(*at)->next_doomed;
    *at = e->next_doomed;
    e->is_doomed = false;
}

static void drop(struct candidates *c, struct candidate **at)
{
    struct candidate *e = *at;
    undoom(c, e);
    *at = e->next;
    c->n--;
    c->counts[e->origin]--;
    fib_release(c->fib, e->target);
    fib_discharge(c->fib, sizeof(*e));
    free(e);
}

// ---- which one it is ----

static bool is_before(const struct candidate *a, const struct candidate *b)
{
    return a->origin != b->origin ? a->origin < b->origin : a->metric < b->metric;
}

static struct candidate *best_but(const struct candidates *c, unsigned family, rib_key key, unsigned len,
                                  const struct candidate *but)
{
    struct candidate *best = NULL;
    for (struct candidate *e = *chain(c, family, key, len); e; e = e->next)
        if (e != but && e->target && !e->is_gone && is_of(e, family, key, len) && (!best || is_before(e, best)))
            best = e;
    return best;
}

const struct candidate *candidates_best(const struct candidates *c, unsigned family, rib_key key, unsigned len)
{
    return best_but(c, family, key, len, NULL);
}

const struct candidate *candidates_get(const struct candidates *c, const struct candidate_key *key)
{
    return *find(c, key);
}

void candidates_describe(const struct candidates *c, const struct candidate *candidate, struct route *route)
{
    route->n_hops = 0;
    fib_describe(c->fib, candidate->target, route);
}

// The forwarding tables have what would be chosen if `e` led to `target`.
static int install(struct candidates *c, const struct candidate *e, uint16_t target)
{
    const struct candidate *best = best_but(c, e->family, key_of(e), e->len, e);
    if (target && (!best || is_before(e, best)))
        return fib_install(c->fib, e->family, key_of(e), e->len, target);
    return fib_install(c->fib, e->family, key_of(e), e->len, best ? best->target : 0);
}

// What cannot go for want of memory leads nowhere at least: to take a route away may need a node more in a table.
static void uninstall(struct candidates *c, const struct candidate *e)
{
    if (install(c, e, 0)) {
        fib_settle(c->fib);
        install(c, e, 0);
    }
}

static int set_target(struct candidates *c, struct candidate *e, const struct route *route)
{
    uint16_t id = 0;
    int r = route ? fib_hold(c->fib, route, e->target, &id) : 0;
    if (r)
        return r;
    r = install(c, e, id);
    if (r) {
        fib_release(c->fib, id);
        return r;
    }
    fib_release(c->fib, e->target);
    e->target = id;
    return 0;
}

int candidates_set(struct candidates *c, const struct candidate_key *key, const struct candidate_told *told,
                   const struct route *route)
{
    struct candidate **at = find(c, key), *e = *at;
    const bool is_new = !e;
    if (e && told->is_late && e->is_touched)
        return 0;
    if (is_new && !(e = add(c, key)))
        return -ENOMEM;
    const bool was_gone = e->is_gone;
    e->is_gone = false;
    const int r = set_target(c, e, route);
    if (r) {
        e->is_gone = was_gone;
        if (is_new)
            drop(c, find(c, key));
        return r;
    }
    undoom(c, e);
    e->protocol = told->protocol;
    e->nexthop = told->nexthop;
    e->is_stale = false;
    e->is_touched = !told->is_late && c->has_events[key->origin];
    return 0;
}

int candidates_remove(struct candidates *c, const struct candidate_key *key)
{
    struct candidate **at = find(c, key), *e = *at;
    const bool was_there = e && !e->is_gone;
    if (!c->has_events[key->origin]) {
        if (!e)
            return -ENOENT;
        uninstall(c, e);
        drop(c, at);
        return 0;
    }
    if (!e && !(e = add(c, key)))
        return -ENOMEM; // at worst it is there until everything is told the next time
    uninstall(c, e);
    fib_release(c->fib, e->target);
    e->target = 0;
    e->is_gone = e->is_touched = true;
    return was_there ? 0 : -ENOENT;
}

void candidates_doom(struct candidates *c, const struct candidate_key *key)
{
    struct candidate *e = *find(c, key);
    if (!e || e->is_doomed)
        return;
    e->is_doomed = true;
    e->nexthop = 0; // what becomes of the object does not bring it back
    e->next_doomed = c->doomed;
    c->doomed = e;
}

void candidates_flush(struct candidates *c)
{
    while (c->doomed) {
        const struct candidate *e = c->doomed;
        const struct candidate_key key = {e->origin, e->family, e->len, key_of(e), e->metric};
        undoom(c, c->doomed);
        candidates_remove(c, &key);
    }
}

// ---- all of them ----

typedef bool candidate_is_fn(const struct candidate *e); // whether it goes

static size_t drop_all(struct candidates *c, enum origin origin, candidate_is_fn *fn)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_chains; i++)
        for (struct candidate **at = &c->chains[i]; *at;) {
            if ((*at)->origin != origin || !fn(*at)) {
                at = &(*at)->next;
                continue;
            }
            n += !(*at)->is_gone;
            uninstall(c, *at);
            drop(c, at);
        }
    return n;
}

// Marks it on the way.
static bool was_gone_before(const struct candidate *e)
{
    struct candidate *marked = (struct candidate *)e;
    marked->is_stale = true;
    marked->is_touched = false;
    marked->nexthop = 0; // its number may be another's
    return e->is_gone;
}

void candidates_begin(struct candidates *c, enum origin origin, bool has_events)
{
    drop_all(c, origin, was_gone_before);
    c->has_events[origin] = has_events;
}

static bool was_not_told(const struct candidate *e)
{
    return e->is_stale || e->is_gone;
}

size_t candidates_sweep(struct candidates *c, enum origin origin)
{
    c->has_events[origin] = false;
    return drop_all(c, origin, was_not_told);
}

size_t candidates_count(const struct candidates *c, enum origin origin)
{
    return c->counts[origin];
}

void candidates_of_nexthop(struct candidates *c, enum origin origin, uint32_t nexthop, candidate_fn *fn, void *arg)
{
    for (size_t i = 0; i < c->n_chains; i++)
        for (struct candidate *e = c->chains[i], *next; e; e = next) {
            next = e->next;
            if (e->origin == origin && e->nexthop == nexthop)
                fn(arg, e);
        }
}

// ---- ports that go ----

// Without memory to make the smaller group it leads nowhere: to a port that is gone nothing may.
static void withdraw(struct candidates *c, struct candidate *e, unsigned port)
{
    struct route route;
    unsigned n = 0;
    candidates_describe(c, e, &route);
    for (unsigned i = 0; i < route.n_hops; i++)
        if (route.hops[i].port != port)
            route.hops[n++] = route.hops[i];
    if (n == route.n_hops)
        return;
    route.n_hops = n;
    if (n && !set_target(c, e, &route))
        return;
    uninstall(c, e);
    fib_release(c->fib, e->target);
    e->target = 0;
}

void candidates_withdraw_port(struct candidates *c, unsigned port)
{
    for (size_t i = 0; i < c->n_chains; i++)
        for (struct candidate **at = &c->chains[i]; *at;) {
            if ((*at)->target)
                withdraw(c, *at, port);
            if ((*at)->target || (*at)->is_gone)
                at = &(*at)->next;
            else
                drop(c, at);
        }
    fib_withdraw_port(c->fib, port); // there is none left, but for what an earlier want of memory has kept
}
