// What messages of rtnetlink say, carried out: one parser (netlink.h) and one reading of it for two inputs, the namespace's kernel
// and FPM. Routes become candidates of an origin, nexthop objects are kept for the routes that refer to them. Control thread.
#pragma once

#include "router/ip/candidates.h"
#include "router/ip/netlink.h"

#define LEARN_NEXTHOPS_MOST 65536 // objects of one origin
#define LEARN_CHAINS 256

struct learn_env {
    // A hop of the kernel's: TARGET_VIA or TARGET_LINK with *hop; TARGET_PUNT: it is behind a device of the namespace's own; or
    // TARGET_NONE: it leads nowhere.
    enum target_kind (*resolve)(void *arg, const struct netlink_hop *in, struct hop *hop);
    void (*neighbour)(void *arg, const struct netlink_neighbour *neighbour, bool adds); // NULL: they are of no interest
    void *arg;
};

struct learn_nexthop;

struct learn {
    struct candidates *candidates;
    enum origin origin;
    struct learn_env env;
    // FPM: a route is replaced by taking it away and adding it, and no two differ in their metric. learn_settle() at the end of
    // what came together.
    bool replaces;
    struct learn_nexthop *nexthops[LEARN_CHAINS];
    unsigned n_nexthops;
    uint64_t n_refused; // routes there was no memory for
};

// Borrows candidates. All of it zero before.
void learn_init(struct learn *l, struct candidates *candidates, enum origin origin, const struct learn_env *env);
void learn_fini(struct learn *l); // leaves the candidates

// Everything is about to be told again (candidates_begin()), was told.
void learn_begin(struct learn *l, bool has_events);
size_t learn_end(struct learn *l); // how many routes went
// is_late: of what is told again.
void learn_message(struct learn *l, const struct netlink_message *message, bool is_late);
void learn_settle(struct learn *l);
