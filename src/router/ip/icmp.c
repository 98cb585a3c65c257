// Errors of ICMP (RFC 792, RFC 1812, 4.3) and ICMPv6 (RFC 4443). Worker.
#include "router/ip/ip.h"

#include <rte_cycles.h>

#define QUOTED_MOST4 548 // so that all of it is no longer than 576 bytes (RFC 1812, 4.3.2.3)
#define TOS_CONTROL 0xc0 // RFC 1812, 4.3.2.5

struct icmp_header {
    uint8_t type, code;
    uint16_t checksum;
    uint32_t word;
} IP_WIRE;

#define QUOTED_MOST6 (IP6_MTU_LEAST - sizeof(struct ip6_header) - sizeof(struct icmp_header)) // RFC 4443, 3

// RFC 4443, 2.4 (f): a bucket of tokens for each port, so that whoever sends nonsense uses up his own port's.
static bool may_send(const struct ip *ip, struct ip_port *own)
{
    struct ip_budget *budget = &own->errors;
    if (!ip->errors_per_s)
        return false;
    const uint64_t price = ip->hz / ip->errors_per_s, n_most = ip->errors_per_s / 10 > 10 ? ip->errors_per_s / 10 : 10;
    const uint64_t now = rte_rdtsc(), tokens = budget->last_cycles ? budget->tokens + (now - budget->last_cycles) : n_most * price;
    budget->tokens = tokens < n_most * price ? tokens : n_most * price;
    budget->last_cycles = now;
    if (budget->tokens < price) {
        counter_add(&own->errors_limited, 1);
        return false;
    }
    budget->tokens -= price;
    return true;
}

// No errors about errors, groups, all but the first fragment, and senders that are none.
static bool deserves_error4(const struct rte_mbuf *packet)
{
    const struct ip4_header *h = ip_packet(packet);
    const uint8_t *icmp = (const uint8_t *)h + ip4_header_bytes(h);
    const size_t len = be16toh(h->total_length) - ip4_header_bytes(h);
    if (ip_frame(packet)->to[0] & 1 || ip4_is_special(be32toh(h->source)) || ip4_is_special(be32toh(h->destination)) ||
        h->fragment & htobe16(IP4_OFFSET))
        return false;
    const bool is_query = len && (*icmp == ICMP_ECHO || *icmp == ICMP_ECHO_REPLY || (*icmp >= 13 && *icmp <= 18));
    return h->protocol != IP_PROTOCOL_ICMP || is_query;
}

static struct rte_mbuf *make_packet(struct vn *vn, size_t header, const void *quoted, size_t len, struct icmp_header **icmp)
{
    struct rte_mbuf *packet = rte_pktmbuf_alloc(vn->pool);
    if (!packet)
        return NULL;
    uint8_t *data =
        (uint8_t *)rte_pktmbuf_append(packet, (uint16_t)(sizeof(struct ethernet_header) + header + sizeof(**icmp) + len));
    *icmp = (struct icmp_header *)(data + sizeof(struct ethernet_header) + header);
    memcpy(*icmp + 1, quoted, len);
    return packet;
}

void icmp4_error(struct vn *vn, struct vn_port *in, const struct rte_mbuf *packet, uint8_t type, uint8_t code, uint32_t word)
{
    struct ip *ip = vn->state;
    struct ip_port *own = in->state;
    const struct ip4_header *cause = ip_packet(packet);
    const size_t total = be16toh(cause->total_length), len = total < QUOTED_MOST4 ? total : QUOTED_MOST4;
    rib_key source;
    if (!deserves_error4(packet) || !ip_choose_source(vn, own, IP4, ip4_key(be32toh(cause->source)), &source) || !may_send(ip, own))
        return;
    struct icmp_header *icmp;
    struct rte_mbuf *error = make_packet(vn, sizeof(*cause), cause, len, &icmp);
    if (!error)
        return;
    struct ip4_header *h = ip_packet(error);
    ip_frame(error)->type = htobe16(ETHERTYPE_IP4);
    icmp->type = type;
    icmp->code = code;
    icmp->word = htobe32(word);
    icmp->checksum = 0;
    icmp->checksum = (uint16_t)~checksum_fold(checksum_add(0, icmp, sizeof(*icmp) + len));
    *h = (struct ip4_header){.version_ihl = 0x45,
                             .tos = TOS_CONTROL,
                             .total_length = htobe16((uint16_t)(sizeof(*h) + sizeof(*icmp) + len)),
                             .id = htobe16(ip->next_id++),
                             .ttl = IP_TTL_OWN,
                             .protocol = IP_PROTOCOL_ICMP,
                             .source = htobe32((uint32_t)(source >> 96)),
                             .destination = cause->source};
    h->checksum = ip4_checksum_plain(h);
    counter_add(&own->errors_sent, 1);
    ip_output(vn, in, error);
}

// Errors about packets for a group are sent for "too big" alone (RFC 4443, 2.4 e.3), which here never has one.
static bool deserves_error6(const struct rte_mbuf *packet)
{
    const struct ip6_header *h = ip_packet(packet);
    const uint8_t *icmp = (const uint8_t *)(h + 1);
    if (ip_frame(packet)->to[0] & 1 || h->destination[0] == 0xff || h->source[0] == 0xff || !ip6_key(h->source))
        return false;
    return h->next != IP_PROTOCOL_ICMP6 || (h->payload_length && *icmp >= 128 && *icmp != 137); // 137: a redirect
}

void icmp6_error(struct vn *vn, struct vn_port *in, const struct rte_mbuf *packet, uint8_t type, uint8_t code, uint32_t word)
{
    struct ip *ip = vn->state;
    struct ip_port *own = in->state;
    const struct ip6_header *cause = ip_packet(packet);
    const size_t total = sizeof(*cause) + be16toh(cause->payload_length), len = total < QUOTED_MOST6 ? total : QUOTED_MOST6;
    rib_key source;
    if (!deserves_error6(packet) || !ip_choose_source(vn, own, IP6, ip6_key(cause->source), &source) || !may_send(ip, own))
        return;
    struct icmp_header *icmp;
    struct rte_mbuf *error = make_packet(vn, sizeof(*cause), cause, len, &icmp);
    if (!error)
        return;
    struct ip6_header *h = ip_packet(error);
    ip_frame(error)->type = htobe16(ETHERTYPE_IP6);
    *h = (struct ip6_header){.version_class_flow = htobe32(6u << 28),
                             .payload_length = htobe16((uint16_t)(sizeof(*icmp) + len)),
                             .next = IP_PROTOCOL_ICMP6,
                             .hop_limit = IP_TTL_OWN};
    ip6_bytes(source, h->source);
    memcpy(h->destination, cause->source, 16);
    icmp->type = type;
    icmp->code = code;
    icmp->word = htobe32(word);
    icmp->checksum = 0;
    icmp->checksum = (uint16_t)~ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, icmp, sizeof(*icmp) + len);
    counter_add(&own->errors_sent, 1);
    ip_output(vn, in, error);
}
