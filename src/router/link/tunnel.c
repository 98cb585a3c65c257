// Mac-in-UDP: see tunnel.h.
#include "router/link/tunnel.h"

enum { ETHERTYPE_VLAN = 0x8100, ETHERTYPE_SERVICE_VLAN = 0x88a8 };
enum { ECN_NOT_ECT, ECN_ECT1, ECN_ECT0, ECN_CE }; // RFC 3168, 5
#define ECN_MASK 3u
#define TAGS_MOST 2
#define SOURCE_PORTS 0xc000u // 49152 to 65535: RFC 7348, 5
#define VXLAN_HAS_VNI 0x08

struct vxlan_header {
    uint8_t flags, reserved[3];
    uint32_t vni; // and eight bits more
} IP_WIRE;

unsigned tunnel_head_bytes(unsigned family, enum tunnel_framing framing)
{
    const size_t ip = family == IP4 ? sizeof(struct ip4_header) : sizeof(struct ip6_header);
    const size_t vxlan = framing == TUNNEL_VXLAN ? sizeof(struct vxlan_header) : 0;
    return (unsigned)(sizeof(struct ethernet_header) + ip + sizeof(struct udp_header) + vxlan);
}

// ---- the inner frame ----

// The type of what the frame has behind its tags, and where that begins. 0: it is too short.
static unsigned find_payload(const uint8_t *frame, size_t len, size_t *at)
{
    unsigned type = 0;
    *at = sizeof(struct ethernet_header) - 2;
    for (unsigned tags = 0; tags <= TAGS_MOST; tags++) {
        if (*at + 2 > len)
            return 0;
        type = (unsigned)frame[*at] << 8 | frame[*at + 1];
        *at += 2;
        if (type != ETHERTYPE_VLAN && type != ETHERTYPE_SERVICE_VLAN)
            return type;
        *at += 2;
    }
    return type;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u; // 2^64 / the golden ratio
    return hash ^ hash >> 29;
}

static uint32_t frame_flow(const uint8_t *frame, unsigned type, uint64_t key)
{
    uint64_t first;
    uint32_t rest;
    memcpy(&first, frame, sizeof(first)); // both addresses are twelve bytes
    memcpy(&rest, frame + sizeof(first), sizeof(rest));
    return (uint32_t)(mix(mix(key, first), (uint64_t)rest << 16 | type) >> 32);
}

// Type and place are find_payload()'s, here and below.
static uint32_t flow_of(const uint8_t *bytes, size_t len_bytes, unsigned type, size_t at, uint64_t key)
{
    if (!type)
        return 0;
    const size_t left = len_bytes > at ? len_bytes - at : 0;
    const struct ip4_header *h4 = (const void *)(bytes + at);
    const struct ip6_header *h6 = (const void *)(bytes + at);
    if (type == ETHERTYPE_IP4 && left >= sizeof(*h4) && ip4_header_bytes(h4) >= sizeof(*h4) && ip4_header_bytes(h4) <= left)
        return ip4_flow(h4, bytes + at + ip4_header_bytes(h4), left - ip4_header_bytes(h4), key);
    if (type == ETHERTYPE_IP6 && left >= sizeof(*h6))
        return ip6_flow(h6, h6 + 1, left - sizeof(*h6), key);
    return frame_flow(bytes, type, key);
}

uint32_t tunnel_flow(const void *frame, size_t len_bytes, uint64_t key)
{
    size_t at;
    const unsigned type = find_payload(frame, len_bytes, &at);
    return flow_of(frame, len_bytes, type, at, key);
}

static unsigned ecn_of(const uint8_t *frame, size_t len, unsigned type, size_t at)
{
    if (type == ETHERTYPE_IP4 && len >= at + sizeof(struct ip4_header))
        return frame[at + 1] & ECN_MASK;
    if (type == ETHERTYPE_IP6 && len >= at + sizeof(struct ip6_header))
        return frame[at + 1] >> 4 & ECN_MASK; // four bits of version, eight of class
    return ECN_NOT_ECT;
}

static void set_ecn4(struct ip4_header *h, unsigned ecn)
{
    uint16_t before, after;
    memcpy(&before, h, sizeof(before));
    h->tos = (uint8_t)((h->tos & ~ECN_MASK) | ecn);
    memcpy(&after, h, sizeof(after));
    // RFC 1624, equation 3
    h->checksum = (uint16_t)~checksum_fold((uint64_t)(uint16_t)~h->checksum + (uint16_t)~before + after);
}

bool tunnel_pass_ecn(void *frame, size_t len_bytes, unsigned outer_ecn)
{
    uint8_t *bytes = frame;
    size_t at;
    if (outer_ecn == ECN_NOT_ECT)
        return true;
    const unsigned type = find_payload(bytes, len_bytes, &at), inner = ecn_of(bytes, len_bytes, type, at);
    const bool is_changed = outer_ecn != inner && (outer_ecn == ECN_CE || (outer_ecn == ECN_ECT1 && inner == ECN_ECT0));
    if (!is_changed || (type != ETHERTYPE_IP4 && type != ETHERTYPE_IP6))
        return true;
    if (inner == ECN_NOT_ECT)
        return len_bytes < at + sizeof(struct ip4_header); // too short to be IP is the network's to see
    if (type == ETHERTYPE_IP4)
        set_ecn4((void *)(bytes + at), outer_ecn);
    else
        bytes[at + 1] = (uint8_t)((bytes[at + 1] & ~(ECN_MASK << 4)) | outer_ecn << 4);
    return true;
}

// ---- sending ----

static void init_ip4(struct tunnel *tunnel, const struct tunnel_config *config)
{
    struct ip4_header *h = (void *)(tunnel->head + sizeof(struct ethernet_header));
    *h = (struct ip4_header){.version_ihl = 0x45,
                             .tos = (uint8_t)(config->dscp << 2),
                             .fragment = htobe16(IP4_DONT_FRAGMENT), // so the number may be zero (RFC 6864, 4.1)
                             .ttl = config->ttl,
                             .protocol = IP_PROTOCOL_UDP,
                             .source = htobe32((uint32_t)(config->local >> 96)),
                             .destination = htobe32((uint32_t)(config->remote >> 96))};
    tunnel->sum = checksum_add(0, h, sizeof(*h));
}

static void init_ip6(struct tunnel *tunnel, const struct tunnel_config *config)
{
    struct ip6_header *h = (void *)(tunnel->head + sizeof(struct ethernet_header));
    *h = (struct ip6_header){
        .version_class_flow = htobe32(6u << 28 | (uint32_t)config->dscp << 22), .next = IP_PROTOCOL_UDP, .hop_limit = config->ttl};
    ip6_bytes(config->local, h->source);
    ip6_bytes(config->remote, h->destination);
}

void tunnel_init(struct tunnel *tunnel, const struct tunnel_config *config, const uint8_t mac[static 6], uint64_t flow_key)
{
    *tunnel = (struct tunnel){.has_checksum = config->has_checksum,
                              .family = config->family,
                              .head_bytes = (uint8_t)tunnel_head_bytes(config->family, config->framing),
                              .flow_key = flow_key};
    struct ethernet_header *frame = (void *)tunnel->head;
    memcpy(frame->to, mac, 6);
    memcpy(frame->from, mac, 6);
    frame->type = htobe16(config->family == IP4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    if (config->family == IP4)
        init_ip4(tunnel, config);
    else
        init_ip6(tunnel, config);
    const size_t ip = config->family == IP4 ? sizeof(struct ip4_header) : sizeof(struct ip6_header);
    struct udp_header *udp = (void *)(tunnel->head + sizeof(*frame) + ip);
    udp->destination = htobe16(config->udp_port);
    struct vxlan_header *vxlan = (void *)(udp + 1);
    if (config->framing == TUNNEL_VXLAN)
        *vxlan = (struct vxlan_header){.flags = VXLAN_HAS_VNI, .vni = htobe32(config->vni << 8)};
}

static uint16_t udp_checksum(unsigned family, const void *ip, const struct udp_header *udp, size_t len)
{
    const struct ip4_header *h4 = ip;
    const struct ip6_header *h6 = ip;
    uint64_t sum = family == IP4 ? checksum_add(0, &h4->source, 8) : checksum_add(0, h6->source, 32); // both addresses
    sum += htobe32((uint32_t)len) + (uint64_t)htobe32(IP_PROTOCOL_UDP);
    return checksum_fold(checksum_add(sum, udp, len));
}

size_t tunnel_write(const struct tunnel *tunnel, void *outer, const void *frame, size_t len_bytes)
{
    uint8_t *at = outer;
    size_t payload_at;
    const unsigned type = find_payload(frame, len_bytes, &payload_at), ecn = ecn_of(frame, len_bytes, type, payload_at);
    const uint32_t flow = flow_of(frame, len_bytes, type, payload_at, tunnel->flow_key);
    const size_t whole = tunnel->head_bytes + len_bytes, total = whole - sizeof(struct ethernet_header);
    memcpy(at, tunnel->head, sizeof(tunnel->head)); // more than there is; the frame comes over it
    memcpy(at + tunnel->head_bytes, frame, len_bytes);
    struct ip4_header *h4 = (void *)(at + sizeof(struct ethernet_header));
    struct ip6_header *h6 = (void *)h4;
    struct udp_header *udp = tunnel->family == IP4 ? (void *)(h4 + 1) : (void *)(h6 + 1);
    const size_t udp_bytes = (size_t)(at + whole - (uint8_t *)udp);
    if (tunnel->family == IP4) {
        h4->tos |= (uint8_t)ecn;
        h4->total_length = htobe16((uint16_t)total);
        h4->checksum = (uint16_t)~checksum_fold(tunnel->sum + h4->total_length + htobe16((uint16_t)ecn));
    } else {
        h6->version_class_flow |= htobe32(ecn << 20);
        h6->payload_length = htobe16((uint16_t)udp_bytes);
    }
    udp->source = htobe16((uint16_t)(SOURCE_PORTS | (flow & ~SOURCE_PORTS)));
    udp->length = htobe16((uint16_t)udp_bytes);
    if (tunnel->has_checksum) {
        const uint16_t checksum = (uint16_t)~udp_checksum(tunnel->family, h4, udp, udp_bytes);
        udp->checksum = checksum ? checksum : 0xffff; // RFC 768: zero is none
    }
    return whole;
}

// ---- what has come ----

// The headers up to UDP's, of what is there of a packet; total: how long IP says it is. NULL: no UDP, or less than its header.
static const struct udp_header *read_ip(unsigned family, const void *packet, size_t len, struct tunnel_arrival *arrival,
                                        size_t *total)
{
    const struct ip4_header *h4 = packet;
    const struct ip6_header *h6 = packet;
    const size_t header = family == IP4 ? ip4_header_bytes(h4) : sizeof(*h6);
    if (len < header + sizeof(struct udp_header) || (family == IP4 ? h4->protocol : h6->next) != IP_PROTOCOL_UDP)
        return NULL;
    const struct udp_header *udp = (const void *)((const uint8_t *)packet + header);
    arrival->family = (uint8_t)family;
    arrival->ecn = family == IP4 ? h4->tos & ECN_MASK : be32toh(h6->version_class_flow) >> 20 & ECN_MASK;
    arrival->source_port = be16toh(udp->source);
    arrival->udp_port = be16toh(udp->destination);
    arrival->payload = (const uint8_t *)(udp + 1);
    *total = family == IP4 ? be16toh(h4->total_length) - header : be16toh(h6->payload_length);
    return udp;
}

enum drop tunnel_read(unsigned family, const void *packet, size_t len_bytes, struct tunnel_arrival *arrival)
{
    const struct ip4_header *h4 = packet;
    const struct ip6_header *h6 = packet;
    size_t total;
    const struct udp_header *udp = read_ip(family, packet, len_bytes, arrival, &total);
    if (!udp)
        return DROP_MALFORMED;
    const size_t bytes = be16toh(udp->length);
    if (bytes < sizeof(*udp) || bytes > total)
        return DROP_MALFORMED;
    arrival->from = family == IP4 ? ip4_key(be32toh(h4->source)) : ip6_key(h6->source);
    arrival->len_bytes = bytes - sizeof(*udp);
    arrival->has_checksum = udp->checksum;
    if (udp->checksum && udp_checksum(family, packet, udp, bytes) != 0xffff)
        return DROP_CHECKSUM;
    return DROP_NONE;
}

bool tunnel_read_quoted(unsigned family, const void *packet, size_t len_bytes, struct tunnel_arrival *arrival)
{
    const struct ip4_header *h4 = packet;
    const struct ip6_header *h6 = packet;
    size_t total;
    const size_t least = family == IP4 ? sizeof(*h4) : sizeof(*h6);
    if (len_bytes < least || *(const uint8_t *)packet >> 4 != family || (family == IP4 && ip4_header_bytes(h4) != sizeof(*h4)))
        return false; // ours have no options
    const struct udp_header *udp = read_ip(family, packet, len_bytes, arrival, &total);
    if (!udp || arrival->source_port < SOURCE_PORTS)
        return false;
    arrival->from = family == IP4 ? ip4_key(be32toh(h4->destination)) : ip6_key(h6->destination);
    arrival->len_bytes = len_bytes - (size_t)(arrival->payload - (const uint8_t *)packet);
    return true;
}

bool tunnel_read_vxlan(struct tunnel_arrival *arrival, uint32_t *vni)
{
    const struct vxlan_header *h = (const void *)arrival->payload;
    if (arrival->len_bytes < sizeof(*h) || !(h->flags & VXLAN_HAS_VNI))
        return false;
    *vni = be32toh(h->vni) >> 8;
    arrival->payload += sizeof(*h);
    arrival->len_bytes -= sizeof(*h);
    return true;
}
