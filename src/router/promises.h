// What networks and their ports were promised of a worker's CPU, and whether it is kept. The control thread.
//
// What is promised holds for what comes in by a port, or by all of a network's. What a worker can do is a matter of its time, so
// promises in bits and packets are added up as the cycles that they take, by what the network's packets cost of late; what they
// cost is known of networks that had something to do, and of others reserves are taken on trust (as the store takes those of
// disks).
//
// A change holds as a whole or not at all. Every PROMISES_TICK_NS what was counted goes to the watches (promise/watch.h): one of
// the worker's time, in which all of its networks are, and one of each network whose ports were promised something. A promise that
// breaks or is kept again is logged, and told.
#pragma once

#include "promise/promise.h"
#include "router/pace.h"

#include <jansson.h>

#define PROMISES_TICK_NS 200000000u

struct promises; // of a worker
struct promise_watch;
struct vn;
struct vn_port;

// Of a network or a port, which has it.
struct promised {
    struct promise_set set;
    bool is_watched;
    uint32_t slot; // in the watch, while it is watched
    struct usage_reading seen, measured;
    uint64_t admitted; // of networks: millionths of the CPU that were found to be enough when they were promised, or proven
};

struct promises_options {
    unsigned worker;                         // its number
    uint64_t hz;                             // cycles by the second
    void (*tell)(void *arg, json_t *params); // of a verdict that has changed; takes params
    void *arg;
};

struct promises *promises_create(const struct promises_options *options, struct tv_error *err);
void promises_destroy(struct promises *p); // no network is left; NULL is fine

// From the parameters "promises" (a text, or an object of its entries), "weight" (a number, the same as in the text) and "admitted"
// (true: it was decided elsewhere) of a network, or of a port of vn, that is to be. -EINVAL, -ERANGE, -EBUSY with the arithmetic.
// unproven: as with promises_change(), or NULL.
int promises_decide_vn(struct promises *p, const char *name, const json_t *params, struct promise_set *set, json_t *unproven,
                       struct tv_error *err);
int promises_decide_port(struct promises *p, struct vn *vn, const char *name, const json_t *params, struct promise_set *set,
                         json_t *unproven, struct tv_error *err);

// It is there, with its set, which it was decided to have (vn_create(), vn_add_port()). -ENOMEM.
int promises_join(struct promises *p, struct vn *vn, struct tv_error *err);
int promises_join_port(struct promises *p, struct vn *vn, struct vn_port *port, struct tv_error *err);
void promises_leave_port(struct promises *p, struct vn *vn, struct vn_port *port); // it is about to go
void promises_leave(struct promises *p, struct vn *vn);                            // with its ports

// Other promises; port: NULL for the network's own. What is taken on trust is appended to `unproven`: {"name", "promise"}.
int promises_change(struct promises *p, struct vn *vn, struct vn_port *port, const json_t *promises, bool admitted,
                    json_t *unproven, struct tv_error *err);

void promises_tick(struct promises *p, uint64_t now_ns);

// Adds "promises" and "verdicts", and "alone" ("bits_per_s", "packets_per_s"): what it would reach with the CPU for itself, where
// that is known. port: NULL for the network's.
void promises_describe(const struct promises *p, const struct vn *vn, const struct vn_port *port, json_t *object);
// Appends {"name", "vn", "port", "state", "promises", "verdicts"} of all that were promised something; "port" is there for ports.
void promises_list(const struct promises *p, json_t *list);

// terms.c: what the worker is to keep of a set; `reserve` by metric is what it comes to when it is more than the set's own.
void terms_set(struct pace_terms *terms, const struct promise_set *set, const uint64_t reserve[static PACE_METRICS], uint64_t hz);
// A set's reserve or limit in a metric; 0: none.
uint64_t terms_rate(const struct promise_set *set, enum promise_kind kind, enum pace_metric metric, uint64_t hz);
