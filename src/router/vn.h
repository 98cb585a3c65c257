// A virtual network (VN): ports, a type that says what happens between them, its own pool of packet buffers, its own share of a
// worker.
//
// The control thread creates and destroys networks and gives and takes ports; one worker carries the packets. Isolation is by
// construction: a packet is classified by the port it came in by, before anything looks into it, and from there on only what hangs
// on that port's network is in reach: its ports, its type's state, its pool. Nothing leads from one network to another.
//
// What the control thread changes under a running worker are pointers in `slots`, and `version` behind them; what it takes away it
// frees when the worker has passed a quiescent state (rte_rcu_qsbr).
#pragma once

#include "base/loop.h"
#include "router/capture.h"
#include "router/counters.h"
#include "router/latency.h"
#include "router/pace.h"
#include "router/port/port.h"
#include "router/promises.h"

#include <rte_mbuf.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VN_PORTS_MAX 256
#define VN_NAME_MAX 15

struct vn;
struct trace;

// What a network's control plane needs of the control thread.
struct vn_env {
    struct loop *loop;       // NULL: no control plane is possible
    void (*wake)(void *arg); // the worker, so that it sees now what has changed
    void *wake_arg;
};

// What can be asked of the networks of a type, besides the methods that all have.
struct vn_command {
    const char *name; // of the RPC method; NULL: the last
    // Control thread. *result may be left alone. vn.stat and the like are not concerned.
    int (*run)(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err);
};

struct vn_port {
    char name[PORT_NAME_MAX + 1];
    struct vn *vn;   // whose it is
    unsigned index;  // in slots; a later port may have the same
    uint64_t serial; // no two ports have the same
    struct port *port;
    struct counters counters;
    _Atomic(struct capture *) capture; // who looks; NULL: nobody. Written by the control thread
    struct promised promised;          // the control thread's, as are the terms
    struct pace_terms terms;
    void *state; // the type's
    // What the control plane of the network receives and sends by this port goes by a port of its own, which has no name, no state,
    // and goes with it. NULL: it has none; it is none.
    struct vn_port *punt, *punts_for;
    // The worker's; and what leaves by this port at the end of the burst.
    struct pace pace;
    uint64_t asked; // for packets, the last time; or woken by them
    uint16_t n_out;
    struct rte_mbuf *out[PORT_BURST];
};

// A kind of network, a row each in vn.c: `ethernet` and `ip`. One that names data (`ccn`) or is programmed (`openflow`) has the
// same row; what it needs besides are its own tables, changed from the control thread by RCU.
struct vn_type {
    const char *name;
    unsigned offloads; // what packets may have left to be done, OFFLOAD_* (offload.h)
    // Control thread. params: those of vn.add and port.add, checked here. What add_port() made is in port->state.
    int (*create)(struct vn *vn, const json_t *params, struct tv_error *err);
    void (*destroy)(struct vn *vn);
    int (*add_port)(struct vn *vn, struct vn_port *port, const json_t *params, struct tv_error *err);
    // It is open, and the worker is to have it; what it needs besides comes now. NULL: nothing to do.
    int (*publish_port)(struct vn *vn, struct vn_port *port, struct tv_error *err);
    void (*placed_port)(struct vn *vn, struct vn_port *port);   // it is in its slot; NULL: nothing to do
    void (*withdraw_port)(struct vn *vn, struct vn_port *port); // it is about to go; NULL: nothing to do
    void (*free_port)(struct vn_port *port);                    // no worker knows it any more
    json_t *(*describe)(struct vn *vn);                         // for vn.stat; NULL: out of memory
    json_t *(*describe_port)(const struct vn_port *port);       // the same
    // What would become of the frame (trace.h).
    void (*trace)(struct vn *vn, struct vn_port *in, const uint8_t *frame, size_t len_bytes, struct trace *trace);
    // Worker. A port is there, or is gone (only its number is left); packets, which become the type's; once a second, time in
    // seconds.
    void (*attach)(struct vn *vn, struct vn_port *port);
    void (*detach)(struct vn *vn, unsigned index);
    void (*input)(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n);
    void (*tick)(struct vn *vn);
    void (*update)(struct vn *vn);     // vn_notify() was called; NULL: it never is
    const struct vn_command *commands; // control thread; NULL: none
};

struct vn {
    char name[VN_NAME_MAX + 1];
    unsigned id;
    const struct vn_type *type;
    void *state; // the type's
    struct rte_mempool *pool;
    struct rte_rcu_qsbr *rcu; // its worker's: readers of what the control thread changes
    struct vn_env env;
    uint32_t n_buffers;
    struct capture *capture; // who looks, at captured_port or, where that is empty, all; the control thread's
    char captured_port[PORT_NAME_MAX + 1];
    struct promised promised;         // the control thread's, as are the next two
    struct promise_watch *port_watch; // NULL: no port was promised anything
    struct pace_terms terms;
    // Written by the control thread, read by the worker.
    _Atomic(struct vn_port *) slots[VN_PORTS_MAX];
    _Atomic uint32_t version;
    // The worker's.
    struct pace pace;
    uint64_t port_quantum;                     // cycles
    _Atomic uint64_t latency[LATENCY_BUCKETS]; // packets, by what they took from when they could have been taken at the earliest
    uint64_t packet_cycles;                    // of the last burst, each
    bool is_busy;                              // it has a turn, and may not be entered again
    bool is_awaited;                           // other networks may have something soon
    uint32_t seen_version, now_s;
    unsigned n_active, next_active;
    uint64_t late_least;     // the shortest latency that was promised to it or to a port of its, in cycles; UINT64_MAX: none
    unsigned n_backlogged;   // of the active ones
    bool is_visiting;        // active[next_active] has its turn
    struct vn_port *last_in; // what the last burst came by, and what it was
    unsigned last_asked;     // for so many packets
    uint64_t last_since;     // none of them came before
    struct pace_burst last;
    struct vn_port *active[VN_PORTS_MAX]; // those in slots, as of seen_version, without gaps
    struct vn_port *by_index[VN_PORTS_MAX];
    uint64_t serials[VN_PORTS_MAX]; // of by_index, which may be freed; 0: none
};

extern const struct vn_type vn_ethernet, vn_ip;

// ---- control thread ----

struct vn_config {
    const char *name, *type;
    uint32_t n_buffers;
    struct rte_rcu_qsbr *rcu; // of the worker that will have it
    struct vn_env env;
    const struct promise_set *promises; // NULL: none
};

struct vn *vn_create(const struct vn_config *config, const json_t *params, struct tv_error *err);
void vn_destroy(struct vn *vn); // no worker has it, no port is left

// env: what the worker gives to a port. promises: NULL: none. NULL with err.
struct vn_port *vn_add_port(struct vn *vn, const char *name, const json_t *params, int fd, const struct port_env *env,
                            const struct promise_set *promises, struct tv_error *err);
// Waits until the worker has passed by.
void vn_remove_port(struct vn *vn, struct vn_port *port, struct rte_rcu_qsbr *rcu);
struct vn_port *vn_find_port(struct vn *vn, const char *name);
// From publish_port(): the port gets its punt. fd: a TAP device's, taken with success.
int vn_add_punt(struct vn *vn, struct vn_port *port, int fd, struct tv_error *err);
// What passes the port, or all if that is "", is copied there from now on. -EBUSY: somebody looks already; -ENOENT: no such port.
int vn_set_capture(struct vn *vn, const char *port, struct capture *capture, struct tv_error *err);
// No more, if it is that one; waits until the worker has passed by.
void vn_clear_capture(struct vn *vn, const struct capture *capture);
// The worker applies terms and calls the type's update() when it comes by next; it is to be woken.
void vn_notify(struct vn *vn);

// ---- worker ----

// Takes over what the control thread has changed.
void vn_refresh(struct vn *vn);
// One burst of the port whose turn it is; ports have turns as networks have, by deficit round robin in cycles. How many packets; 0:
// none has any, or limits are used up. The network has been looked at (pace_look()) at this time. is_awaited: other networks may
// have something soon, so a burst is to be short.
unsigned vn_poll(struct vn *vn, bool is_awaited);
// What the burst has cost, without what was not the network's doing (drr.h). Now it is `now`.
void vn_charge(struct vn *vn, uint64_t cycles, uint64_t now);
// In another network's turn, by the same worker: packets of this network's buffers that the port receives. Taken; dropped where the
// port is gone, or the network is just having a turn that led here.
void vn_input(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n);
void vn_tick(struct vn *vn, uint32_t now_s);

// Sends what is waiting at the port.
void vn_flush(struct vn_port *port);

// For types: the packet leaves by the port at the end of the burst; or is dropped, counted where it came in.
static inline void vn_send(struct vn_port *out, struct rte_mbuf *packet)
{
    if (out->n_out == PORT_BURST) // packets that the type has made come on top of the burst's
        vn_flush(out);
    out->out[out->n_out++] = packet;
}
void vn_drop(struct vn_port *in, struct rte_mbuf *packet, enum drop cause);
// Whether the worker has the port, which may be about to go or to come, as it also has the one that it is asked by.
static inline bool vn_has(const struct vn *vn, const struct vn_port *port)
{
    return vn->by_index[port->index] == port;
}
