// What the control plane in the network's namespace receives and sends: punted packets, as they are called in routers. Each port
// has a TAP device there, the port's punt (vn.h). Worker.
//
// The namespace's kernel knows no neighbours (namespace.h): its frames to a station say which port's device it was, and the
// neighbour is the router's to know. Frames to groups, and to stations that somebody in there has named himself (dnsmasq does, for
// a machine that has no address yet), leave by the port as they are.
#include "router/ip/ip.h"

bool punt_up(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct vn_port *punt = in->punt;
    if (!punt || !vn_has(vn, punt))
        return false;
    vn_send(punt, packet);
    return true;
}

// The kernel has cut its packets for the device's MTU; what is larger somebody made by hand.
static void send_as_is(struct vn_port *punt, struct vn_port *out, struct rte_mbuf *packet)
{
    const struct ip_port *own = out->state;
    if (packet->pkt_len > own->mtu + sizeof(struct ethernet_header))
        vn_drop(punt, packet, DROP_TOO_BIG);
    else
        vn_send(out, packet);
}

// To all on the link: of a kernel that resolves nobody such a frame looks as one to a station.
static bool is_broadcast(const struct ip_port *own, unsigned family, rib_key to)
{
    const rib_key all = rib_mask(~(rib_key)0, 32);
    bool found = family == IP4 && to == all;
    for (unsigned i = 0; family == IP4 && i < own->n_addresses && !found; i++) {
        const struct ip_prefix *a = &own->addresses[i];
        found = a->family == IP4 && a->len < 31 && to == (rib_mask(a->key, a->len) | (all & ~rib_mask(all, a->len)));
    }
    return found;
}

static void route(struct vn *vn, struct vn_port *punt, struct vn_port *out, struct rte_mbuf *packet, unsigned family)
{
    const struct ip4_header *h4 = ip_packet(packet);
    const struct ip6_header *h6 = ip_packet(packet);
    const size_t len = packet->pkt_len - sizeof(struct ethernet_header);
    const enum drop wrong = family == IP4 ? ip4_check(h4, len) : ip6_check(h6, len);
    if (wrong) {
        vn_drop(punt, packet, wrong);
        return;
    }
    const size_t used = family == IP4 ? be16toh(h4->total_length) : sizeof(*h6) + be16toh(h6->payload_length);
    if (used < len)
        rte_pktmbuf_trim(packet, (uint16_t)(len - used));
    const rib_key to = family == IP4 ? ip4_key(be32toh(h4->destination)) : ip6_key(h6->destination);
    if (is_broadcast(out->state, family, to)) {
        memset(ip_frame(packet)->to, 0xff, 6);
        send_as_is(punt, out, packet);
    } else if (ip_is_on_link(out->state, family, to) && !ip_is_own(out->state, family, to)) {
        ip_output_on_link(vn, out, packet, family, to);
    } else {
        ip_output(vn, out, packet);
    }
}

static void input(struct vn *vn, struct vn_port *punt, struct vn_port *out, struct rte_mbuf *packet)
{
    const struct ip_port *own = out->state;
    const struct ethernet_header *frame = ip_frame(packet);
    if (packet->data_len <= sizeof(*frame) || packet->nb_segs != 1) {
        vn_drop(punt, packet, DROP_MALFORMED);
        return;
    }
    const unsigned type = be16toh(frame->type);
    if (type != ETHERTYPE_IP4 && type != ETHERTYPE_IP6)
        vn_drop(punt, packet, DROP_ETHERTYPE);
    else if (memcmp(frame->to, own->mac, sizeof(own->mac)))
        send_as_is(punt, out, packet);
    else
        route(vn, punt, out, packet, type == ETHERTYPE_IP4 ? IP4 : IP6);
}

void punt_input(struct vn *vn, struct vn_port *punt, struct rte_mbuf **packets, unsigned n)
{
    struct vn_port *out = punt->punts_for;
    for (unsigned i = 0; i < n; i++) {
        if (vn_has(vn, out))
            input(vn, punt, out, packets[i]);
        else
            vn_drop(punt, packets[i], DROP_UNKNOWN);
    }
}
