// Links: ports of the kinds `vxlan` and `raw`, whose far side is the same network on another host. What links and the end of their
// tunnels (vtep.h) share; nothing outside this folder includes this.
#pragma once

#include "router/link/tunnel.h"
#include "router/link/vtep.h"

#include <stdatomic.h>

#define LINK_QUEUE 512     // packets that have come, and wait for their network's turn; a power of two
#define LINK_MTU_LEAST 576 // outer, bytes: less is not believed (RFC 1191, 3, says 68; nobody has it)
#define LINK_PATH_MTU 1500 // outer, by default
#define LINK_PATH_MTU_MOST 2032

struct link {
    struct port *port;
    struct tunnel_config config;
    uint16_t path_mtu; // outer, as it was said
    char underlay[16];
    _Atomic(struct vtep *) vtep; // NULL: it is gone. Set by the control thread
    // The vtep's, set by the control thread.
    _Atomic(struct link *) next; // in its bucket
    struct link *next_link;      // of all links
    // The worker's.
    struct tunnel tunnel;
    _Atomic uint16_t frame_most; // bytes of an inner frame that fit on the way
    uint32_t mtu_until_s;        // 0: nobody said that it was less than path_mtu
    uint32_t head, tail;         // of queue; run freely
    struct rte_mbuf *queue[LINK_QUEUE];
};

// Control thread. The link is complete but for `tunnel`. -ENOENT, -EEXIST, -EINVAL.
int vtep_join(struct link *link, struct tv_error *err);
void vtep_leave(struct link *link); // no worker knows it any more when this is done

// ---- worker ----

// Frames of the link's network; taken.
void vtep_output(struct link *link, struct rte_mbuf **packets, unsigned n);
// A frame for it, from the far side.
void link_arrive(struct link *link, const struct tunnel_arrival *arrival);
// Outer.
void link_set_mtu(struct link *link, unsigned mtu);
