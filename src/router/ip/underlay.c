// A network that routes as the underlay of others: between it and the port where their tunnels end (router/link/vtep.h).
#include "router/ip/ip.h"

#include "router/link/vtep.h"

#include <errno.h>
#include <stdio.h>

// ---- control thread ----

static bool has_address(void *arg, unsigned family, rib_key address)
{
    struct vn_port *vtep = arg;
    bool found = false;
    for (unsigned i = 0; i < VN_PORTS_MAX && !found; i++) {
        const struct vn_port *port = atomic_load_explicit(&vtep->vn->slots[i], memory_order_relaxed);
        found = port && ip_is_own(port->state, family, address);
    }
    return found;
}

static void input(void *arg, struct rte_mbuf **packets, unsigned n)
{
    struct vn_port *vtep = arg;
    vn_input(vtep->vn, vtep, packets, n);
}

int underlay_publish(struct vn *vn, struct vn_port *port, struct tv_error *err)
{
    const struct ip_port *own = port->state;
    struct vtep_host host = {.arg = port, .has_address = has_address, .input = input};
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *other = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (other && other->port->kind == &port_vtep)
            return tv_error_set(err, -EEXIST, "port '%s' is the network's vtep already; one is enough for all links", other->name);
    }
    snprintf(host.name, sizeof(host.name), "%s", vn->name);
    memcpy(host.mac, own->mac, sizeof(host.mac));
    vtep_publish(port->port, &host);
    return 0;
}

// ---- worker ----

bool underlay_input(struct vn *vn, struct rte_mbuf *packet, unsigned family)
{
    const struct ip *ip = vn->state;
    const struct ip4_header *h4 = ip_packet(packet);
    const struct ip6_header *h6 = ip_packet(packet);
    const size_t header = family == IP4 ? ip4_header_bytes(h4) : sizeof(*h6);
    const size_t total = family == IP4 ? be16toh(h4->total_length) : sizeof(*h6) + be16toh(h6->payload_length);
    uint16_t udp_port;
    if (!ip->vtep || (family == IP4 ? h4->protocol : h6->next) != IP_PROTOCOL_UDP || total < header + 8)
        return false;
    memcpy(&udp_port, (const uint8_t *)h4 + header + 2, sizeof(udp_port)); // RFC 768
    if (!vtep_wants(ip->vtep->port, be16toh(udp_port)))
        return false;
    vn_send(ip->vtep, packet);
    return true;
}

void underlay_too_big(struct vn *vn, unsigned family, const void *packet, size_t len_bytes, unsigned mtu)
{
    const struct ip *ip = vn->state;
    if (ip->vtep)
        vtep_too_big(ip->vtep->port, family, packet, len_bytes, mtu, vn->now_s);
}
