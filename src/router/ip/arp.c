// The Address Resolution Protocol for IPv4 on Ethernet (RFC 826): answers for the router's own addresses and to machines
// for those of others behind it, asks for neighbours. Worker.
#include "router/ip/ip.h"

struct arp_packet {
    uint16_t hardware, protocol;
    uint8_t hardware_bytes, protocol_bytes;
    uint16_t operation;
    uint8_t sender_mac[6];
    uint32_t sender;
    uint8_t target_mac[6];
    uint32_t target;
} IP_WIRE;

enum { ARP_REQUEST = 1, ARP_REPLY = 2 };
#define FRAME_BYTES (sizeof(struct ethernet_header) + sizeof(struct arp_packet))

static bool is_well_formed(const struct rte_mbuf *packet)
{
    const struct arp_packet *arp = ip_packet(packet);
    return packet->data_len >= FRAME_BYTES && arp->hardware == htobe16(1) && arp->protocol == htobe16(ETHERTYPE_IP4) &&
           arp->hardware_bytes == 6 && arp->protocol_bytes == 4 && !(arp->sender_mac[0] & 1);
}

// Whoever is known already is believed; whoever asks for us will hear from us, and is remembered (RFC 826, "Packet Reception").
// A sender of zero only wants to know whether an address is free (RFC 5227, 2.1.1).
static void learn(struct vn *vn, struct vn_port *in, const struct arp_packet *arp, bool asks_us)
{
    struct ip *ip = vn->state;
    const rib_key sender = ip4_key(be32toh(arp->sender));
    if (!ip_is_on_link(in->state, IP4, sender))
        return;
    struct neighbour *n = neighbour_find(ip->neighbours, IP4, in->index, sender);
    const bool is_answer = n && arp->operation == htobe16(ARP_REPLY) && n->state != NEIGHBOUR_STALE;
    if (!n && asks_us)
        n = resolve_meet(vn, IP4, in, sender);
    if (n)
        resolve_heard(vn, n, arp->sender_mac, is_answer);
}

static void answer(struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip_port *own = in->state;
    struct ethernet_header *frame = ip_frame(packet);
    struct arp_packet *arp = ip_packet(packet);
    const uint32_t asked = arp->target;
    arp->operation = htobe16(ARP_REPLY);
    arp->target = arp->sender;
    memcpy(arp->target_mac, arp->sender_mac, 6);
    memcpy(frame->to, arp->sender_mac, 6);
    arp->sender = asked;
    memcpy(arp->sender_mac, own->mac, 6);
    memcpy(frame->from, own->mac, 6);
    counter_add(&own->resolved, 1);
    vn_send(in, packet);
}

void arp_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip_port *own = in->state;
    const struct arp_packet *arp = ip_packet(packet);
    if (!is_well_formed(packet)) {
        vn_drop(in, packet, DROP_MALFORMED);
        return;
    }
    if (ip_is_own(own, IP4, ip4_key(be32toh(arp->sender)))) { // somebody says that he has our address
        vn_drop(in, packet, DROP_SPOOFED);
        return;
    }
    const rib_key target = ip4_key(be32toh(arp->target));
    const bool asks_us =
        arp->operation == htobe16(ARP_REQUEST) && (ip_is_own(own, IP4, target) || ip_is_elsewhere(vn, in, IP4, target));
    counter_add(&own->for_router, 1);
    learn(vn, in, arp, asks_us);
    if (asks_us)
        answer(in, packet);
    else
        rte_pktmbuf_free(packet);
}

// To all, or to the one who is to confirm what is known of him.
void arp_solicit(struct vn *vn, struct vn_port *out, const struct neighbour *n)
{
    const struct ip_port *own = out->state;
    struct rte_mbuf *packet = rte_pktmbuf_alloc(vn->pool);
    if (!packet)
        return; // it is asked again in a second
    struct ethernet_header *frame = (void *)rte_pktmbuf_append(packet, FRAME_BYTES);
    const rib_key target = (rib_key)n->high << 64 | n->low;
    rib_key source = 0;
    ip_choose_source(vn, own, IP4, target, &source);
    struct arp_packet *arp = ip_packet(packet);
    *arp = (struct arp_packet){
        .hardware = htobe16(1),
        .protocol = htobe16(ETHERTYPE_IP4),
        .hardware_bytes = 6,
        .protocol_bytes = 4,
        .operation = htobe16(ARP_REQUEST),
        .sender = htobe32((uint32_t)(source >> 96)),
        .target = htobe32((uint32_t)(target >> 96)),
    };
    memcpy(arp->sender_mac, own->mac, 6);
    memset(frame->to, 0xff, 6);
    if (n->is_ready)
        memcpy(frame->to, n->rewrite, 6);
    memcpy(frame->from, own->mac, 6);
    frame->type = htobe16(ETHERTYPE_ARP);
    vn_send(out, packet);
}
