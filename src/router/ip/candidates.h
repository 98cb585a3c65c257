// Routes to one prefix from several origins: the network's ports, its configuration, what routing daemons tell by FPM, and the
// table of the namespace's kernel. The one of the first origin, and of its routes the one of the lowest metric, is in the
// forwarding tables (fib.h). Daemons weigh their protocols against each other by administrative distance themselves; here only
// origins meet. Control thread.
//
// After a connection was lost, or events were, an origin tells everything again: candidates_begin() leaves all that it told before
// where it is, candidates_sweep() takes away what was not told again. So what has not changed is never away.
#pragma once

#include "router/ip/fib.h"

enum origin {
    ORIGIN_PORT,    // connected
    ORIGIN_CONTROL, // static: route.add
    ORIGIN_FPM,
    ORIGIN_KERNEL,
    ORIGINS
};

struct candidate_key {
    enum origin origin;
    unsigned family, len;
    rib_key key;
    uint32_t metric; // two routes of one origin to a prefix may differ in it
};

struct candidate {
    struct candidate *next, *next_doomed;
    uint64_t high, low;
    uint32_t metric, nexthop;      // nexthop: the object it was given by (netlink.h), 0: none
    uint16_t target;               // one use of it; 0: nothing it could lead to, and it is not chosen
    uint8_t family, len, protocol; // protocol: rtnetlink(7), RTPROT_*
    uint8_t origin;
    bool is_stale : 1,  // not told again yet
        is_touched : 1, // told by an event while everything is told again
        is_gone : 1,    // taken away meanwhile: what is told late does not bring it back
        is_doomed : 1;  // to be taken away by candidates_flush()
};

struct candidates;

struct candidates *candidates_create(struct fib *fib); // NULL: -ENOMEM. Borrows fib.
void candidates_destroy(struct candidates *c);         // leaves the forwarding tables as they are

struct candidate_told {
    uint8_t protocol;
    uint32_t nexthop;
    bool is_late; // part of telling everything again, of which events may have been newer
};

// As fib_set(): 0, -ENOSPC or -ENOMEM, and nothing has changed then. route NULL: it leads nowhere for now.
int candidates_set(struct candidates *c, const struct candidate_key *key, const struct candidate_told *told,
                   const struct route *route);
int candidates_remove(struct candidates *c, const struct candidate_key *key); // -ENOENT
// To be removed by the next flush, unless it was set again till then: for who replaces by removing and adding.
void candidates_doom(struct candidates *c, const struct candidate_key *key);
void candidates_flush(struct candidates *c);

// has_events: those come in between, and what they say counts more.
void candidates_begin(struct candidates *c, enum origin origin, bool has_events);
size_t candidates_sweep(struct candidates *c, enum origin origin); // how many went
size_t candidates_count(const struct candidates *c, enum origin origin);

// Routes over a port that goes.
void candidates_withdraw_port(struct candidates *c, unsigned port);
// NULL: there is none. What it leads to.
const struct candidate *candidates_get(const struct candidates *c, const struct candidate_key *key);
void candidates_describe(const struct candidates *c, const struct candidate *candidate, struct route *route);
// What is in the forwarding tables for the prefix, or NULL.
const struct candidate *candidates_best(const struct candidates *c, unsigned family, rib_key key, unsigned len);
// All of the origin that were given by a nexthop object: fn may set or remove the one it is called with.
typedef void candidate_fn(void *arg, const struct candidate *candidate);
void candidates_of_nexthop(struct candidates *c, enum origin origin, uint32_t nexthop, candidate_fn *fn, void *arg);
