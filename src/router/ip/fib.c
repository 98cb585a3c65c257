// The forwarding tables of one network: see fib.h.
#include "router/ip/fib.h"

#include "router/ip/neighbour.h"

#include <errno.h>
#include <stdlib.h>

#define HEADS 1024 // chains of targets
#define ROOM_LEAST 16
#define RETIRED_MOST (4u << 20) // bytes, before the worker is waited for in the middle of many changes

// What the control thread keeps of a target. A group's members are targets of the kind VIA, each with one use more for it.
struct target_owner {
    uint32_t uses;
    uint16_t next; // in its chain, or of the free or dying ones
    uint16_t n_members;
    uint16_t *members; // in ascending order
};

int fib_init(struct fib *fib, const struct fib_config *config)
{
    *fib = (struct fib){.config = *config, .n_targets = 1, .room = ROOM_LEAST};
    fib->heads = calloc(HEADS, sizeof(*fib->heads));
    fib->owners = calloc(fib->room, sizeof(*fib->owners));
    struct target *targets = calloc(fib->room, sizeof(*targets));
    atomic_init(&fib->targets, targets);
    const int r = poptrie_init(&fib->tries[0], 0) | poptrie_init(&fib->tries[1], 0);
    if (fib->heads && fib->owners && targets && !r)
        return 0;
    fib_fini(fib);
    return -ENOMEM;
}

static void free_group(struct fib *fib, unsigned id)
{
    struct target *target = &fib_targets(fib)[id];
    if (target->kind != TARGET_GROUP)
        return;
    fib->group_bytes -= (target->group.mask + 1) * sizeof(uint16_t) + fib->owners[id].n_members * sizeof(uint16_t);
    free((void *)target->group.buckets);
    free(fib->owners[id].members);
    target->kind = TARGET_NONE;
}

void fib_fini(struct fib *fib)
{
    for (unsigned id = 1; id < fib->n_targets; id++)
        free_group(fib, id);
    for (unsigned f = 0; f < 2; f++) {
        poptrie_fini(&fib->tries[f]);
        rib_fini(&fib->ribs[f]);
    }
    free(fib_targets(fib));
    free(fib->owners);
    free(fib->heads);
}

size_t fib_bytes(const struct fib *fib)
{
    size_t sum = fib->room * (sizeof(struct target) + sizeof(struct target_owner)) + HEADS * sizeof(*fib->heads) +
                 fib->group_bytes + fib->charged_bytes;
    for (unsigned f = 0; f < 2; f++)
        sum += fib->tries[f].bytes + fib->ribs[f].bytes;
    return sum;
}

// ---- targets ----

static uint16_t *chain_of(struct fib *fib, uint64_t word)
{
    return &fib->heads[word * 0x9e3779b97f4a7c15u >> 54]; // 2^64 / the golden ratio; ten bits
}

static uint16_t *chain_of_target(struct fib *fib, const struct target *t, const uint16_t *members, unsigned n_members)
{
    uint64_t word = (uint64_t)t->kind << 32 | (uint64_t)t->family << 24 | t->port;
    if (t->kind != TARGET_GROUP)
        return chain_of(fib, word ^ t->gateway.high ^ t->gateway.low * 31);
    for (unsigned i = 0; i < n_members; i++)
        word = word * 31 + members[i];
    return chain_of(fib, word);
}

static bool is_same(const struct fib *fib, unsigned id, const struct target *t, const uint16_t *members, unsigned n_members)
{
    const struct target *other = &fib_targets(fib)[id];
    const struct target_owner *owner = &fib->owners[id];
    if (other->kind != t->kind)
        return false;
    if (t->kind == TARGET_GROUP)
        return owner->n_members == n_members && !memcmp(owner->members, members, n_members * sizeof(*members));
    return other->family == t->family && other->port == t->port && other->gateway.high == t->gateway.high &&
           other->gateway.low == t->gateway.low;
}

static void copy_target(struct target *to, const struct target *from)
{
    to->kind = from->kind;
    to->family = from->family;
    to->port = from->port;
    if (from->kind == TARGET_GROUP)
        to->group = from->group;
    else
        to->gateway = from->gateway;
    atomic_store_explicit(&to->hint, atomic_load_explicit(&from->hint, memory_order_relaxed), memory_order_relaxed);
}

// Twice the room, in new memory; the worker has the old one until it passes by.
static int grow(struct fib *fib)
{
    const unsigned room = fib->room * 2;
    struct target *old = fib_targets(fib), *grown = calloc(room, sizeof(*grown));
    struct target_owner *owners = reallocarray(fib->owners, room, sizeof(*owners));
    if (owners)
        fib->owners = owners;
    if (!grown || !owners) {
        free(grown);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < fib->room; i++)
        copy_target(&grown[i], &old[i]);
    memset(&owners[fib->room], 0, (room - fib->room) * sizeof(*owners));
    fib->room = room;
    atomic_store_explicit(&fib->targets, grown, memory_order_release); // acquired in fib_targets()
    fib->config.synchronize(fib->config.arg);
    free(old);
    return 0;
}

static int take_id(struct fib *fib, uint16_t *id)
{
    if (!fib->free && fib->n_targets > FIB_TARGETS_MOST && fib->dying)
        fib_settle(fib);
    if (fib->free) {
        *id = fib->free;
        fib->free = fib->owners[*id].next;
        return 0;
    }
    if (fib->n_targets > FIB_TARGETS_MOST)
        return -ENOSPC;
    if (fib->n_targets == fib->room && grow(fib))
        return -ENOMEM;
    *id = (uint16_t)fib->n_targets++;
    return 0;
}

// One use more of a target that is like t. Of a group, buckets and members become the fib's.
static int use_target(struct fib *fib, const struct target *t, uint16_t *members, unsigned n_members, uint16_t *id)
{
    uint16_t *head = chain_of_target(fib, t, members, n_members);
    for (*id = *head; *id; *id = fib->owners[*id].next)
        if (is_same(fib, *id, t, members, n_members)) {
            fib->owners[*id].uses++;
            return -EEXIST;
        }
    int r = take_id(fib, id);
    if (r)
        return r;
    copy_target(&fib_targets(fib)[*id], t);
    fib->owners[*id] = (struct target_owner){.uses = 1, .next = *head, .n_members = (uint16_t)n_members, .members = members};
    *head = *id;
    return 0;
}

static void leave_target(struct fib *fib, uint16_t id)
{
    struct target_owner *owner = &fib->owners[id];
    if (!id || --owner->uses)
        return;
    uint16_t *at = chain_of_target(fib, &fib_targets(fib)[id], owner->members, owner->n_members);
    while (*at != id)
        at = &fib->owners[*at].next;
    *at = owner->next;
    owner->next = fib->dying;
    fib->dying = id;
    for (unsigned i = 0; i < owner->n_members; i++)
        leave_target(fib, owner->members[i]);
}

void fib_settle(struct fib *fib)
{
    if (!fib->dying && !fib->tries[0].retired.n && !fib->tries[1].retired.n)
        return;
    fib->config.synchronize(fib->config.arg);
    poptrie_reclaim(&fib->tries[0]);
    poptrie_reclaim(&fib->tries[1]);
    while (fib->dying) {
        const uint16_t id = fib->dying;
        fib->dying = fib->owners[id].next;
        free_group(fib, id);
        fib->owners[id] = (struct target_owner){.next = fib->free};
        fib->free = id;
    }
}

// ---- from routes to targets ----

static int use_hop(struct fib *fib, enum target_kind kind, const struct hop *hop, uint16_t *id)
{
    const struct target t = {.kind = (uint8_t)kind,
                             .family = hop->family,
                             .port = hop->port,
                             .hint = NEIGHBOUR_NOWHERE,
                             .gateway = {(uint64_t)(hop->gateway >> 64), (uint64_t)hop->gateway}};
    const int r = use_target(fib, &t, NULL, 0, id);
    return r == -EEXIST ? 0 : r;
}

static int compare_ids(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

// The buckets of a new group, as near as can be to those of the group that it comes in place of.
static int make_group(struct fib *fib, uint16_t before, const uint16_t *members, unsigned n, struct target *t, uint16_t **kept)
{
    const struct target *old = &fib_targets(fib)[before];
    const unsigned n_buckets = ecmp_n_buckets(n);
    uint16_t *buckets = calloc(n_buckets, sizeof(*buckets));
    *kept = malloc(n * sizeof(**kept));
    if (!buckets || !*kept) {
        free(buckets);
        free(*kept);
        return -ENOMEM;
    }
    for (unsigned b = 0; old->kind == TARGET_GROUP && b < n_buckets; b++)
        buckets[b] = old->group.buckets[b & old->group.mask];
    ecmp_assign(buckets, n_buckets, members, n);
    memcpy(*kept, members, n * sizeof(*members));
    *t = (struct target){.kind = TARGET_GROUP, .group = {buckets, n_buckets - 1}};
    fib->group_bytes += (n_buckets + n) * sizeof(uint16_t);
    return 0;
}

// members: one use more of each, which the group takes over.
static int use_group(struct fib *fib, uint16_t before, uint16_t *members, unsigned n, uint16_t *id)
{
    struct target t;
    uint16_t *kept;
    int r = make_group(fib, before, members, n, &t, &kept);
    if (r)
        return r;
    r = use_target(fib, &t, kept, n, id);
    if (!r)
        return 0;
    fib->group_bytes -= (t.group.mask + 1 + n) * sizeof(uint16_t);
    free((void *)t.group.buckets);
    free(kept);
    for (unsigned i = 0; r == -EEXIST && i < n; i++)
        leave_target(fib, members[i]); // the group that was there has them
    return r == -EEXIST ? 0 : r;
}

// A target for the route, with one use more. before: the target of the route that it comes in place of, or 0.
static int use_route(struct fib *fib, const struct route *route, uint16_t before, uint16_t *id)
{
    uint16_t members[ECMP_MEMBERS_MAX];
    unsigned n = 0;
    int r = 0;
    if (route->kind != TARGET_VIA || route->n_hops == 1)
        return use_hop(fib, route->kind, route->n_hops ? &route->hops[0] : &(struct hop){0}, id);
    for (unsigned i = 0; i < route->n_hops && !r; i++) {
        r = use_hop(fib, TARGET_VIA, &route->hops[i], &members[n]);
        bool is_twice = false;
        for (unsigned k = 0; !r && k < n; k++)
            is_twice |= members[k] == members[n];
        if (is_twice)
            leave_target(fib, members[n]);
        n += !r && !is_twice;
    }
    qsort(members, n, sizeof(*members), compare_ids);
    if (!r && n == 1) {
        *id = members[0];
        return 0;
    }
    if (!r)
        r = use_group(fib, before, members, n, id);
    for (unsigned i = 0; r && i < n; i++)
        leave_target(fib, members[i]);
    return r;
}

// ---- routes ----

// Sets the target of a prefix in both tables, or in none.
static int set_target(struct fib *fib, unsigned f, rib_key key, unsigned len, uint16_t id, uint16_t *before)
{
    uint16_t ignored;
    int r = rib_set(&fib->ribs[f], key, len, id, before);
    if (r || *before == id)
        return r;
    r = poptrie_update(&fib->tries[f], &fib->ribs[f], key, len);
    if (r)
        rib_set(&fib->ribs[f], key, len, *before, &ignored);
    return r;
}

static void after_change(struct fib *fib, unsigned f)
{
    struct poptrie *trie = &fib->tries[f];
    if (fib->ribs[f].n_routes >= fib->config.direct_at && !poptrie_root(trie)->direct_bits)
        poptrie_rebuild(trie, &fib->ribs[f], POPTRIE_DIRECT_MOST); // without memory for it, it goes on as it is
    if (trie->retired_bytes > RETIRED_MOST)
        fib_settle(fib);
}

void fib_charge(struct fib *fib, size_t bytes)
{
    fib->charged_bytes += bytes;
}

void fib_discharge(struct fib *fib, size_t bytes)
{
    fib->charged_bytes -= bytes;
}

bool fib_is_full(struct fib *fib)
{
    if (fib_bytes(fib) > fib->config.bytes_most)
        fib_settle(fib);
    return fib_bytes(fib) > fib->config.bytes_most;
}

int fib_hold(struct fib *fib, const struct route *route, uint16_t before, uint16_t *id)
{
    return fib_is_full(fib) ? -ENOSPC : use_route(fib, route, before, id);
}

void fib_release(struct fib *fib, uint16_t id)
{
    leave_target(fib, id);
}

// Takes over one use of the target, unless it fails.
static int give_target(struct fib *fib, unsigned f, rib_key key, unsigned len, uint16_t id)
{
    uint16_t before;
    const int r = set_target(fib, f, key, len, id, &before);
    if (r)
        return r;
    leave_target(fib, before);
    after_change(fib, f);
    return 0;
}

int fib_install(struct fib *fib, unsigned family, rib_key key, unsigned len, uint16_t id)
{
    const unsigned f = fib_family(family);
    const uint16_t before = rib_get(&fib->ribs[f], key, len);
    if (before == id)
        return 0;
    if (!before && fib_is_full(fib)) // to lead elsewhere takes no more memory
        return -ENOSPC;
    const int r = give_target(fib, f, key, len, id);
    if (!r && id)
        fib->owners[id].uses++;
    return r;
}

int fib_set(struct fib *fib, unsigned family, rib_key key, unsigned len, const struct route *route)
{
    const unsigned f = fib_family(family);
    uint16_t id;
    int r = fib_hold(fib, route, rib_get(&fib->ribs[f], key, len), &id);
    if (r)
        return r;
    r = give_target(fib, f, key, len, id);
    if (r)
        leave_target(fib, id);
    return r;
}

int fib_remove(struct fib *fib, unsigned family, rib_key key, unsigned len)
{
    const unsigned f = fib_family(family);
    return rib_get(&fib->ribs[f], key, len) == RIB_NONE ? -ENOENT : give_target(fib, f, key, len, RIB_NONE);
}

static void add_hop(const struct fib *fib, uint16_t id, struct route *route)
{
    const struct target *t = &fib_targets(fib)[id];
    route->hops[route->n_hops++] =
        (struct hop){.family = t->family, .port = t->port, .gateway = (rib_key)t->gateway.high << 64 | t->gateway.low};
}

void fib_describe(const struct fib *fib, uint16_t target, struct route *route)
{
    const struct target *t = &fib_targets(fib)[target];
    const struct target_owner *owner = &fib->owners[target];
    route->n_hops = 0;
    route->kind = t->kind == TARGET_GROUP ? TARGET_VIA : t->kind;
    if (t->kind == TARGET_GROUP)
        for (unsigned i = 0; i < owner->n_members; i++)
            add_hop(fib, owner->members[i], route);
    else if (t->kind == TARGET_VIA || t->kind == TARGET_LINK || t->kind == TARGET_BROADCAST)
        add_hop(fib, target, route);
}

bool fib_get(const struct fib *fib, unsigned family, rib_key key, unsigned len, struct route *route)
{
    const uint16_t target = rib_get(&fib->ribs[fib_family(family)], key, len);
    if (target != RIB_NONE)
        fib_describe(fib, target, route);
    return target != RIB_NONE;
}

// ---- ports that go ----

struct withdrawal {
    const struct fib *fib;
    unsigned port;
    rib_key key; // the first route that is concerned
    unsigned len;
    bool found;
};

static bool find_user(void *arg, rib_key key, unsigned len, uint16_t value)
{
    struct withdrawal *w = arg;
    struct route route;
    route.n_hops = 0;
    fib_describe(w->fib, value, &route);
    for (unsigned i = 0; i < route.n_hops && !w->found; i++)
        w->found = route.hops[i].port == w->port;
    w->key = key;
    w->len = len;
    return !w->found;
}

// Without memory to make the smaller group a route goes altogether: nothing may lead to a port that is gone.
static void withdraw(struct fib *fib, unsigned family, const struct withdrawal *w)
{
    struct route route;
    unsigned n = 0;
    route.n_hops = 0;
    fib_get(fib, family, w->key, w->len, &route);
    for (unsigned i = 0; i < route.n_hops; i++)
        if (route.hops[i].port != w->port)
            route.hops[n++] = route.hops[i];
    route.n_hops = n;
    if (!n || fib_set(fib, family, w->key, w->len, &route))
        fib_remove(fib, family, w->key, w->len);
}

void fib_withdraw_port(struct fib *fib, unsigned port)
{
    static const unsigned families[2] = {IP4, IP6};
    for (unsigned f = 0; f < 2; f++) {
        struct withdrawal w = {.fib = fib, .port = port};
        do {
            w.found = false;
            rib_walk(&fib->ribs[f], w.key, w.len, find_user, &w); // on from where the last one was
            if (w.found)
                withdraw(fib, families[f], &w);
        } while (w.found);
    }
    fib_settle(fib);
}
