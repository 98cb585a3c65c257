// Ports: where packets come from and go to. A row of functions for each kind, in port.c; nothing else knows what is behind a port.
//
// A port is opened and closed by the control thread. In between one worker alone calls receive, send, arm and disarm. Packets are
// of the network's own pool, which is its quota of buffers: what a port receives it takes from there, and what it was given to send
// goes back there.
#pragma once

#include "base/error.h"
#include "router/counters.h"

#include <jansson.h>
#include <rte_mbuf.h>
#include <rte_rcu_qsbr.h>
#include <stdbool.h>
#include <stdint.h>

#define PORT_BURST 32
#define PORT_NAME_MAX 15
#define PORT_FRAME_MAX 2048 // bytes: what a buffer holds, without its headroom

struct port;

// What a port gets from the network it belongs to; outlives the port.
struct port_env {
    unsigned vn_id; // no two networks have the same
    struct rte_mempool *pool;
    int epoll_fd;              // the worker sleeps on it; a port adds what it is woken by
    struct rte_rcu_qsbr *rcu;  // the worker; for kinds whose far end can go at any time
    struct counters *counters; // of the port
    unsigned offloads;         // what packets that come may have left to be done, OFFLOAD_*
};

struct port_kind {
    const char *name;
    // `fd`: the descriptor that came with the request, or -1; taken with success only.
    int (*open)(struct port *port, const json_t *params, int fd, struct tv_error *err);
    void (*close)(struct port *port);
    // As many packets as have come, up to n. Never waits.
    uint16_t (*receive)(struct port *port, struct rte_mbuf **packets, uint16_t n);
    // How many of the first ones it took; the others stay the caller's. A packet that cannot be sent at all is taken and counted.
    uint16_t (*send)(struct port *port, struct rte_mbuf **packets, uint16_t n);
    // What the far end would do itself of what is left to be done, OFFLOAD_*; NULL: nothing. Worker.
    unsigned (*offloads)(struct port *port);
    // The worker is about to sleep: from now on what comes makes a descriptor of epoll_fd readable. False: something is there
    // already.
    bool (*arm)(struct port *port);
    void (*disarm)(struct port *port); // it has woken; NULL: nothing to do
    // The far end, for control: kinds without it have NULL.
    int (*put)(struct port *port, const void *frame, size_t len_bytes); // -ENOBUFS: full
    int (*take)(struct port *port, void *frame, size_t max_bytes);      // how many bytes; -EAGAIN: nothing there
    json_t *(*describe)(struct port *port);                             // NULL: nothing to tell
    uint16_t (*mtu)(const struct port *port); // bytes of IP that fit, as of now; NULL: what a buffer holds
    bool naps;                                // nothing tells that packets have come: the worker has to look again after a while
    bool is_link;                             // the same network on another host is behind it
};

struct port {
    const struct port_kind *kind;
    struct port_env env;
    char name[PORT_NAME_MAX + 1];
    void *own; // the kind's
};

extern const char port_kinds[]; // their names, for messages

// name: its name in its network. NULL with err on failure.
struct port *port_open(const char *name, const json_t *params, int fd, const struct port_env *env, struct tv_error *err);
// The network's end of a port of its control plane's (vn.h, punt): a TAP device's descriptor, taken with success. It is looked at
// some thousand times a second while others have packets, not before each burst.
struct port *port_open_punt(const char *name, int fd, const struct port_env *env, struct tv_error *err);
void port_close(struct port *port);

extern const struct port_kind port_ring, port_tap, port_vhost, port_null, port_packet, port_xdp, port_memif, port_pci, port_source,
    port_punt, port_vxlan, port_raw, port_vtep;
