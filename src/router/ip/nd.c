// Neighbour Discovery for IPv6 (RFC 4861): answers for the router's own addresses and to machines for those of others
// behind it, asks for neighbours. Routers are not advertised. Worker.
#include "router/ip/ip.h"

struct nd_message {
    uint8_t type, code;
    uint16_t checksum;
    uint32_t flags; // reserved in a solicitation
    uint8_t target[16];
} IP_WIRE;

struct nd_option {
    uint8_t type, units, mac[6]; // of a link-layer address on Ethernet (RFC 2464, 6)
} IP_WIRE;

enum { ND_SOLICIT = 135, ND_ADVERT = 136 };
enum { OPTION_SOURCE = 1, OPTION_TARGET = 2 };
enum { FLAG_ROUTER = 1u << 31, FLAG_SOLICITED = 1u << 30, FLAG_OVERRIDE = 1u << 29 };
#define HOPS 255 // nobody beyond the link can send such a one
#define MESSAGE_BYTES (sizeof(struct nd_message) + sizeof(struct nd_option))

static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};

// The address in an option of that type; false: the options are none. *mac stays NULL when there is no such option.
static bool find_option(const uint8_t *at, size_t len, uint8_t type, const uint8_t **mac)
{
    *mac = NULL;
    while (len) {
        const size_t n = len < 8 ? 0 : (size_t)at[1] * 8;
        if (!n || n > len)
            return false;
        if (at[0] == type)
            *mac = at + 2;
        at += n;
        len -= n;
    }
    return !*mac || !(**mac & 1);
}

// Where groups' frames go (RFC 2464, 7).
static void group_mac(const uint8_t group[static 16], uint8_t mac[static 6])
{
    mac[0] = mac[1] = 0x33;
    memcpy(mac + 2, group + 12, 4);
}

static struct rte_mbuf *make_message(struct vn *vn, const struct ip_port *own, const uint8_t source[static 16],
                                     const uint8_t to[static 16], const struct nd_message *message, uint8_t option)
{
    struct rte_mbuf *packet = rte_pktmbuf_alloc(vn->pool);
    if (!packet)
        return NULL;
    rte_pktmbuf_append(packet, sizeof(struct ethernet_header) + sizeof(struct ip6_header) + MESSAGE_BYTES);
    struct ip6_header *h = ip_packet(packet);
    struct nd_message *body = (void *)(h + 1);
    struct nd_option *own_mac = (void *)(body + 1);
    *h = (struct ip6_header){.version_class_flow = htobe32(6u << 28),
                             .payload_length = htobe16(MESSAGE_BYTES),
                             .next = IP_PROTOCOL_ICMP6,
                             .hop_limit = HOPS};
    memcpy(h->source, source, 16);
    memcpy(h->destination, to, 16);
    *body = *message;
    *own_mac = (struct nd_option){.type = option, .units = 1};
    memcpy(own_mac->mac, own->mac, 6);
    body->checksum = (uint16_t)~ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, body, MESSAGE_BYTES);
    memcpy(ip_frame(packet)->from, own->mac, 6);
    ip_frame(packet)->type = htobe16(ETHERTYPE_IP6);
    return packet;
}

// RFC 4861, 7.2.4; for somebody else without "override" (7.2.8).
static void advertise(struct vn *vn, struct vn_port *in, const struct rte_mbuf *asked, bool is_own)
{
    struct ip_port *own = in->state;
    const struct ip6_header *h = ip_packet(asked);
    const struct nd_message *solicitation = (const void *)(h + 1);
    const bool is_probe = !ip6_key(h->source); // whether the address is free (RFC 4862, 5.4.3)
    const uint32_t flags = FLAG_ROUTER | (is_own ? FLAG_OVERRIDE : 0) | (is_probe ? 0 : FLAG_SOLICITED);
    struct nd_message advert = {.type = ND_ADVERT, .flags = htobe32(flags)};
    uint8_t source[16];
    memcpy(advert.target, solicitation->target, 16);
    ip6_bytes(is_own ? ip6_key(advert.target) : own->link_local, source);
    struct rte_mbuf *packet = make_message(vn, own, source, is_probe ? all_nodes : h->source, &advert, OPTION_TARGET);
    if (!packet)
        return; // it will ask again
    if (is_probe)
        group_mac(all_nodes, ip_frame(packet)->to);
    else
        memcpy(ip_frame(packet)->to, ip_frame(asked)->from, 6);
    counter_add(&own->resolved, 1);
    vn_send(in, packet);
}

// RFC 4861, 7.2.3. False: it is malformed.
static bool take_solicitation(struct vn *vn, struct vn_port *in, const struct rte_mbuf *packet, size_t len)
{
    const struct ip6_header *h = ip_packet(packet);
    const struct nd_message *message = (const void *)(h + 1);
    const rib_key source = ip6_key(h->source);
    const uint8_t *mac;
    if (!find_option((const uint8_t *)(message + 1), len - sizeof(*message), OPTION_SOURCE, &mac) || (!source && mac))
        return false;
    const bool is_own = ip_is_own(in->state, IP6, ip6_key(message->target));
    if (!is_own && !ip_is_elsewhere(vn, in, IP6, ip6_key(message->target)))
        return true;
    if (source && mac && ip_is_on_link(in->state, IP6, source)) {
        struct neighbour *n = resolve_meet(vn, IP6, in, source);
        if (n)
            resolve_heard(vn, n, mac, false);
    }
    advertise(vn, in, packet, is_own);
    return true;
}

// RFC 4861, 7.2.5: without the flag "override" another address is not taken over.
static bool take_advert(struct vn *vn, struct vn_port *in, const struct rte_mbuf *packet, size_t len)
{
    struct ip *ip = vn->state;
    const struct ip6_header *h = ip_packet(packet);
    const struct nd_message *message = (const void *)(h + 1);
    const uint32_t flags = be32toh(message->flags);
    const uint8_t *mac;
    if (!find_option((const uint8_t *)(message + 1), len - sizeof(*message), OPTION_TARGET, &mac) ||
        (h->destination[0] == 0xff && flags & FLAG_SOLICITED))
        return false;
    struct neighbour *n = neighbour_find(ip->neighbours, IP6, in->index, ip6_key(message->target));
    if (n && !mac && n->is_ready && flags & FLAG_SOLICITED)
        resolve_heard(vn, n, n->rewrite, true);
    else if (n && mac && (flags & FLAG_OVERRIDE || !n->is_ready || !memcmp(n->rewrite, mac, 6)))
        resolve_heard(vn, n, mac, flags & FLAG_SOLICITED);
    return true;
}

void nd_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip_port *own = in->state;
    const struct ip6_header *h = ip_packet(packet);
    const struct nd_message *message = (const void *)(h + 1);
    const size_t len = be16toh(h->payload_length);
    bool ok = h->hop_limit == HOPS && !message->code;
    counter_add(&own->for_router, 1);
    if (ok && (message->type == ND_SOLICIT || message->type == ND_ADVERT))
        ok = len >= sizeof(*message) && message->target[0] != 0xff &&
             (message->type == ND_SOLICIT ? take_solicitation(vn, in, packet, len) : take_advert(vn, in, packet, len));
    if (ok)
        rte_pktmbuf_free(packet);
    else
        vn_drop(in, packet, DROP_MALFORMED);
}

// To the group of the address (RFC 4291, 2.7.1), or to the one who is to confirm what is known of him.
void nd_solicit(struct vn *vn, struct vn_port *out, const struct neighbour *n)
{
    const struct ip_port *own = out->state;
    struct nd_message solicitation = {.type = ND_SOLICIT};
    uint8_t source[16], to[16] = {0xff, 0x02, [11] = 1, [12] = 0xff};
    ip6_bytes(own->link_local, source);
    ip6_bytes((rib_key)n->high << 64 | n->low, solicitation.target);
    memcpy(to + 13, solicitation.target + 13, 3);
    if (n->is_ready)
        memcpy(to, solicitation.target, 16);
    struct rte_mbuf *packet = make_message(vn, own, source, to, &solicitation, OPTION_SOURCE);
    if (!packet)
        return; // it is asked again in a second
    if (n->is_ready)
        memcpy(ip_frame(packet)->to, n->rewrite, 6);
    else
        group_mac(to, ip_frame(packet)->to);
    vn_send(out, packet);
}
