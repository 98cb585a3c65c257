// The forwarding tables of one network: for each family the routes (rib.h) and the Poptrie made from them (poptrie.h), and the
// targets that they lead to. The control thread changes them, the worker reads without a lock; what is taken away is freed or used
// again when the worker has passed by, for which `synchronize` is called.
#pragma once

#include "base/error.h"
#include "router/ip/address.h"
#include "router/ip/ecmp.h"
#include "router/ip/poptrie.h"

#define FIB_TARGETS_MOST 65535

enum target_kind {
    TARGET_NONE,        // the first of all: no route
    TARGET_VIA,         // to a gateway behind a port
    TARGET_LINK,        // whom it is for is on the link of a port
    TARGET_GROUP,       // to one of several gateways, by flow
    TARGET_LOCAL,       // to the router itself
    TARGET_BROADCAST,   // to all on the link of a port: not forwarded (RFC 2644)
    TARGET_BLACKHOLE,   // nowhere, and nobody hears of it
    TARGET_UNREACHABLE, // nowhere, and the sender hears of it
    TARGET_PUNT,        // to the kernel of the network's namespace
};

struct target {
    uint8_t kind, family; // family: the gateway's
    uint16_t port;
    _Atomic uint32_t hint; // the worker's: where the gateway was in the table of neighbours when it was last looked for
    union {
        struct {
            uint64_t high, low;
        } gateway; // a key
        struct {
            const uint16_t *buckets; // targets of the kind VIA (ecmp.h)
            uint32_t mask;
        } group;
    };
};

struct hop {
    uint8_t family; // 0: no gateway, it is on the link
    uint16_t port;
    rib_key gateway;
};

struct route {
    enum target_kind kind; // VIA with one hop or several; LINK and BROADCAST with one
    unsigned n_hops;
    struct hop hops[ECMP_MEMBERS_MAX];
};

struct fib_config {
    void (*synchronize)(void *arg); // returns when no reader has what it read before the call
    void *arg;
    size_t bytes_most; // of memory for routes
    size_t direct_at;  // with so many routes a family's table gets direct pointing
};

struct target_owner; // fib.c

struct fib {
    struct poptrie tries[2]; // IPv4, IPv6
    _Atomic(struct target *) targets;
    // The control thread's.
    struct fib_config config;
    struct rib ribs[2];
    struct target_owner *owners; // beside each target
    unsigned n_targets, room;
    uint16_t *heads, free, dying;
    size_t group_bytes, charged_bytes;
};

static inline unsigned fib_family(unsigned family)
{
    return family == IP6;
}

// ---- worker ----

// The targets; loaded behind the look into a trie, never before it.
static inline struct target *fib_targets(const struct fib *fib)
{
    return atomic_load_explicit(&fib->targets, memory_order_acquire);
}

// ---- control thread ----

int fib_init(struct fib *fib, const struct fib_config *config); // -ENOMEM
void fib_fini(struct fib *fib);                                 // no reader is left
size_t fib_bytes(const struct fib *fib);

// Sets a route, in place of one of the same prefix. -ENOSPC: it would take more memory than bytes_most, or there are too many
// different targets; -ENOMEM. Nothing has changed then. fib_settle() at the end of several.
int fib_set(struct fib *fib, unsigned family, rib_key key, unsigned len, const struct route *route);
int fib_remove(struct fib *fib, unsigned family, rib_key key, unsigned len); // -ENOENT
// Waits until the worker has passed by, and frees what is not in use any more.
void fib_settle(struct fib *fib);

// The same in two steps, for who keeps targets besides (candidates.h): a target for the route, with one use more, near to that of
// `before` (a target or 0); one use less; a prefix leads to a target (0: it goes), with one use more while it does.
int fib_hold(struct fib *fib, const struct route *route, uint16_t before, uint16_t *id);
void fib_release(struct fib *fib, uint16_t id);
int fib_install(struct fib *fib, unsigned family, rib_key key, unsigned len, uint16_t id);
// Of the memory that routes may take, what others have taken for them.
void fib_charge(struct fib *fib, size_t bytes);
void fib_discharge(struct fib *fib, size_t bytes);
bool fib_is_full(struct fib *fib); // what can be given back has been

// The route of exactly this prefix; false: there is none.
bool fib_get(const struct fib *fib, unsigned family, rib_key key, unsigned len, struct route *route);
// What a target is, as rib_walk() finds it.
void fib_describe(const struct fib *fib, uint16_t target, struct route *route);
// A port is about to go: routes over it alone go, others lose it.
void fib_withdraw_port(struct fib *fib, unsigned port);
