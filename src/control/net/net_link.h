// A machine's connections to its ports at routers, kept for as long as it runs: when a router has gone its socket is tried until
// one answers, and the machine gets the new connection. On the loop's thread.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/rpc.h"
#include "control/spec/spec.h"

#include <stdbool.h>

struct net_links;

struct net_link {
    struct net_links *links;
    bool is_away;  // a connection is wanted
    bool is_asked; // the machine was given one, and has not answered
};

struct net_links {
    const struct machine_spec *spec; // borrowed
    struct rpc_conn **control;       // the machine's; NULL there while there is none
    struct loop_source *timer;
    struct net_link links[SPEC_NETS_MAX];
};

int net_links_init(struct net_links *links, struct loop *loop, const struct machine_spec *spec, struct rpc_conn **control,
                   struct tv_error *err);
void net_links_fini(struct net_links *links); // after the connection to the machine has gone; a zeroed one is fine
// The machine said net.disconnected, with the name of the network.
void net_links_away(struct net_links *links, const char *name);
