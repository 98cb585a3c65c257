// The end of tunnels (a VTEP, in the words of RFC 7348): a port of the kind `vtep` of a network that routes, the underlay, whose
// addresses the outer packets go from and to. Links (link.h), ports of other networks, have their far side behind it.
//
// What a link sends gets its outer headers and is received by this port, from where the underlay routes it as any other packet: it
// knows neighbours, routes and MTUs. What the underlay has for one of its own addresses and a UDP port of a link's it sends by this
// port, which finds the link that it belongs to, by the host it came from, the UDP port and the VNI, or drops it. Nothing of a
// packet is touched by the network of a link before that.
//
// Packets are copied between the underlay's buffers and those of a link's network, so that each has what is its own. A link's
// network and the underlay are on the same worker: a link sends within its own network's turn, and pays for it.
#pragma once

#include "router/port/port.h"

#include "router/ip/address.h"

// What the underlay tells about itself. The callbacks have arg.
struct vtep_host {
    char name[16];  // the network's
    uint8_t mac[6]; // the port's
    void *arg;
    bool (*has_address)(void *arg, unsigned family, rib_key address); // control thread: whether it is the underlay's own
    void (*input)(void *arg, struct rte_mbuf **packets, unsigned n);  // worker: received by the port; taken
};

// Control thread. From now on links can have it; links that once had one of this network's have it again.
void vtep_publish(struct port *port, const struct vtep_host *host);
void vtep_withdraw(struct port *port); // links stay, and drop what they are to send

// ---- worker ----

// Whether a packet for this UDP port, in host order, is to be sent by the port.
bool vtep_wants(const struct port *port, uint16_t udp_port);
// A packet of a link's, of which there is so much, was too big for a part of its way, where the MTU is that: the link's is so for
// ten minutes (RFC 1191, 6.3).
void vtep_too_big(struct port *port, unsigned family, const void *packet, size_t len_bytes, unsigned mtu, uint32_t now_s);
void vtep_tick(struct port *port, uint32_t now_s); // once a second
