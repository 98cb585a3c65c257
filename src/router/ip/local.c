// Packets for the router itself: echoes and Neighbour Discovery are answered here. All else is for the control plane in the
// network's namespace (routing protocols, DHCP) or the server's; where there is neither, who wants something hears that it is not
// there. Worker.
//
// Fragments are not put together again, but by the namespace's kernel: nothing the router answers is larger than a link.
#include "router/ip/ip.h"

struct icmp_header {
    uint8_t type, code;
    uint16_t checksum;
    uint32_t word;
} IP_WIRE;

// RFC 1624, equation 3: one word of what is summed up becomes another.
static uint16_t checksum_replace(uint16_t checksum, uint16_t from, uint16_t to)
{
    return (uint16_t)~checksum_fold((uint64_t)(uint16_t)~checksum + (uint16_t)~from + to);
}

static void set_type(struct icmp_header *icmp, uint8_t type)
{
    uint16_t from, to;
    memcpy(&from, icmp, sizeof(from));
    icmp->type = type;
    memcpy(&to, icmp, sizeof(to));
    icmp->checksum = checksum_replace(icmp->checksum, from, to);
}

// RFC 1122, 3.2.2.6.
static void echo4(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip4_header *h = ip_packet(packet);
    const uint32_t asker = h->source;
    h->source = h->destination;
    h->destination = asker;
    h->ttl = IP_TTL_OWN;
    h->fragment = 0;
    h->checksum = 0;
    h->checksum = (uint16_t)~checksum_fold(checksum_add(0, h, ip4_header_bytes(h)));
    set_type((struct icmp_header *)((uint8_t *)h + ip4_header_bytes(h)), ICMP_ECHO_REPLY);
    ip_output(vn, in, packet);
}

// Of errors one is of use here: what a link sent was too big (RFC 1191, 4; the MTU is the lower half of the second word).
static void icmp4_error_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, size_t len)
{
    const struct ip4_header *h = ip_packet(packet);
    const struct icmp_header *icmp = (const void *)((const uint8_t *)h + ip4_header_bytes(h));
    if (icmp->type == ICMP_UNREACHABLE && icmp->code == ICMP_FRAGMENTATION_NEEDED)
        underlay_too_big(vn, IP4, icmp + 1, len - sizeof(*icmp), be32toh(icmp->word) & 0xffff);
    if (!punt_up(vn, in, packet))
        vn_drop(in, packet, DROP_LOCAL);
}

static void icmp4_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip4_header *h = ip_packet(packet);
    const struct icmp_header *icmp = (const void *)((const uint8_t *)h + ip4_header_bytes(h));
    const size_t len = be16toh(h->total_length) - ip4_header_bytes(h);
    if (len < sizeof(*icmp))
        vn_drop(in, packet, DROP_MALFORMED);
    else if (checksum_fold(checksum_add(0, icmp, len)) != 0xffff)
        vn_drop(in, packet, DROP_CHECKSUM);
    else if (icmp->type == ICMP_ECHO)
        echo4(vn, in, packet);
    else
        icmp4_error_input(vn, in, packet, len);
}

void local_input4(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip_port *own = in->state;
    const struct ip4_header *h = ip_packet(packet);
    counter_add(&own->for_router, 1);
    if (h->fragment & htobe16(IP4_MORE_FRAGMENTS | IP4_OFFSET)) {
        if (!punt_up(vn, in, packet))
            vn_drop(in, packet, DROP_LOCAL);
        return;
    }
    if (h->protocol == IP_PROTOCOL_ICMP) {
        icmp4_input(vn, in, packet);
        return;
    }
    if (underlay_input(vn, packet, IP4) || punt_up(vn, in, packet) || serve_local(vn, in, packet, h->protocol))
        return;
    const bool has_ports = h->protocol == IP_PROTOCOL_UDP || h->protocol == IP_PROTOCOL_TCP;
    icmp4_error(vn, in, packet, ICMP_UNREACHABLE, has_ports ? ICMP_PORT : ICMP_PROTOCOL, 0); // RFC 1122, 3.2.2.1
    vn_drop(in, packet, DROP_LOCAL);
}

// RFC 4443, 4.2. An answer comes from the address that was asked.
static void echo6(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip6_header *h = ip_packet(packet);
    uint8_t asker[16];
    memcpy(asker, h->source, 16);
    memcpy(h->source, h->destination, 16);
    memcpy(h->destination, asker, 16);
    h->hop_limit = IP_TTL_OWN;
    set_type((struct icmp_header *)(h + 1), ICMP6_ECHO_REPLY);
    ip_output(vn, in, packet);
}

enum { ICMP6_SOLICITATION = 133, ICMP6_REDIRECT = 137 }; // the router's; the last message of RFC 4861, 4

// Groups of the link (RFC 4291, 2.7) are the control plane's.
static void multicast6(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip6_header *h = ip_packet(packet);
    if ((h->destination[1] & 15) != 2 || !punt_up(vn, in, packet))
        vn_drop(in, packet, DROP_MULTICAST);
}

// RFC 4443, 3.2: of use is what it says about a packet of a link's.
static void too_big6_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, size_t len)
{
    const struct ip6_header *h = ip_packet(packet);
    const struct icmp_header *icmp = (const void *)(h + 1);
    const uint32_t mtu = be32toh(icmp->word);
    underlay_too_big(vn, IP6, icmp + 1, len - sizeof(*icmp), mtu > UINT16_MAX ? UINT16_MAX : mtu);
    if (!punt_up(vn, in, packet))
        vn_drop(in, packet, DROP_LOCAL);
}

static void icmp6_input(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip6_header *h = ip_packet(packet);
    const struct icmp_header *icmp = (const void *)(h + 1);
    const size_t len = be16toh(h->payload_length);
    if (len < sizeof(*icmp))
        vn_drop(in, packet, DROP_MALFORMED);
    else if (ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, icmp, len) != 0xffff)
        vn_drop(in, packet, DROP_CHECKSUM);
    else if (icmp->type == ICMP6_SOLICITATION && punt_up(vn, in, packet))
        return; // who advertises is in the namespace
    else if (icmp->type >= ICMP6_SOLICITATION && icmp->type <= ICMP6_REDIRECT)
        nd_input(vn, in, packet);
    else if (h->destination[0] == 0xff)
        multicast6(vn, in, packet);
    else if (icmp->type == ICMP6_TOO_BIG)
        too_big6_input(vn, in, packet, len);
    else if (icmp->type == ICMP6_ECHO && ip6_key(h->source))
        echo6(vn, in, packet);
    else if (!punt_up(vn, in, packet))
        vn_drop(in, packet, DROP_LOCAL);
}

void local_input6(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ip_port *own = in->state;
    const struct ip6_header *h = ip_packet(packet);
    if (h->next == IP_PROTOCOL_ICMP6) {
        icmp6_input(vn, in, packet);
        return;
    }
    if (h->destination[0] == 0xff) {
        multicast6(vn, in, packet);
        return;
    }
    counter_add(&own->for_router, 1);
    if (underlay_input(vn, packet, IP6) || punt_up(vn, in, packet) || serve_local(vn, in, packet, h->next))
        return;
    if (h->next == IP_PROTOCOL_UDP || h->next == IP_PROTOCOL_TCP)
        icmp6_error(vn, in, packet, ICMP6_UNREACHABLE, ICMP6_PORT, 0);
    else // RFC 8200, 4: the offset of what is not known
        icmp6_error(vn, in, packet, ICMP6_PARAMETER, ICMP6_NEXT_HEADER, offsetof(struct ip6_header, next));
    vn_drop(in, packet, DROP_LOCAL);
}
