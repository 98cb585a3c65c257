// The network namespace in which a network's control plane runs (network_namespaces(7)): routing daemons, dnsmasq, nftables, and
// for each port of the network a TAP device of the same name, address and MTU. Control thread.
//
// It is found by its name as ip-netns(8) has it, in /run/netns. One that was not there is made, and goes with the network; so does
// one that a router made which was killed. One that somebody else made stays. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
//
// Nothing but sockets and devices is opened inside: the thread enters and leaves within one call.
#pragma once

#include "base/error.h"
#include "router/ip/address.h"

#include <sys/types.h>

#define NAMESPACE_NAME_MAX 63

struct namespace;

struct namespace *namespace_open(const char *name, struct tv_error *err); // NULL with err
void namespace_close(struct namespace *space);                            // NULL is fine
const char *namespace_name(const struct namespace *space);

struct namespace_device {
    const char *name;
    const uint8_t *mac;
    unsigned mtu, n_addresses;
    const struct ip_prefix *addresses;
    unsigned n_stations; // who else is on its link
    const struct ip_prefix *stations;
};

// A TAP device with these addresses, up, which takes and gives whole Ethernet frames. The kernel resolves nobody behind it: a frame
// to a station that the kernel has not been told of has the device's own address for its destination (IFF_NOARP). Its descriptor,
// with *index its interface's; or -errno with err. It goes with the descriptor.
int namespace_add_device(struct namespace *space, const struct namespace_device *device, unsigned *index, struct tv_error *err);
// socket(2) inside.
int namespace_socket(struct namespace *space, int domain, int type, int protocol, struct tv_error *err);
