// Headers of IP: see header.h.
#include "router/ip/header.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LOOSE_ROUTE = 131, OPTION_STRICT_ROUTE = 137 };

// Source routes are refused (RFC 7126, 4.3 and 4.4); other options go as they are, and what is no list of options is malformed.
static enum drop check_options(const uint8_t *at, size_t len)
{
    while (len && *at != OPTION_END) {
        const size_t n = *at == OPTION_NOP ? 1 : len < 2 ? 0 : at[1];
        if (!n || n > len || (n == 1 && *at != OPTION_NOP))
            return DROP_MALFORMED;
        if (*at == OPTION_LOOSE_ROUTE || *at == OPTION_STRICT_ROUTE)
            return DROP_OPTIONS;
        at += n;
        len -= n;
    }
    return DROP_NONE;
}

enum drop ip4_check(const struct ip4_header *h, size_t len_bytes)
{
    if (len_bytes < sizeof(*h) || h->version_ihl >> 4 != 4)
        return DROP_MALFORMED;
    const size_t header = ip4_header_bytes(h), total = be16toh(h->total_length);
    if (header < sizeof(*h) || total < header || total > len_bytes)
        return DROP_MALFORMED;
    if (checksum_fold(checksum_add(0, h, header)) != 0xffff)
        return DROP_CHECKSUM;
    return check_options((const uint8_t *)(h + 1), header - sizeof(*h));
}

enum drop ip6_check(const struct ip6_header *h, size_t len_bytes)
{
    if (len_bytes < sizeof(*h) || be32toh(h->version_class_flow) >> 28 != 6 || be16toh(h->payload_length) > len_bytes - sizeof(*h))
        return DROP_MALFORMED;
    return DROP_NONE;
}

uint16_t ip6_payload_checksum(const struct ip6_header *h, uint8_t protocol, const void *payload, size_t len_bytes)
{
    uint64_t sum = checksum_add(0, (const uint8_t *)h + offsetof(struct ip6_header, source), 32); // both addresses
    sum += htobe32((uint32_t)len_bytes) + (uint64_t)htobe32(protocol);
    return checksum_fold(checksum_add(sum, payload, len_bytes));
}

// ---- flows ----

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u; // 2^64 / the golden ratio
    return hash ^ hash >> 29;
}

static uint64_t mix_ports(uint64_t hash, uint8_t protocol, const void *payload, size_t len_bytes)
{
    uint32_t ports = 0;
    if ((protocol == IP_PROTOCOL_TCP || protocol == IP_PROTOCOL_UDP) && len_bytes >= sizeof(ports))
        memcpy(&ports, payload, sizeof(ports));
    return mix(hash, (uint64_t)ports << 8 | protocol);
}

uint32_t ip4_flow(const struct ip4_header *h, const void *payload, size_t len_bytes, uint64_t key)
{
    const bool is_fragment = h->fragment & htobe16(IP4_MORE_FRAGMENTS | IP4_OFFSET);
    uint64_t hash = mix(key, (uint64_t)h->source << 32 | h->destination);
    hash = mix_ports(hash, h->protocol, payload, is_fragment ? 0 : len_bytes);
    return (uint32_t)(hash >> 32);
}

uint32_t ip6_flow(const struct ip6_header *h, const void *payload, size_t len_bytes, uint64_t key)
{
    uint64_t words[4], hash = mix(key, be32toh(h->version_class_flow) & 0xfffff);
    memcpy(words, (const uint8_t *)h + offsetof(struct ip6_header, source), sizeof(words)); // both addresses
    for (unsigned i = 0; i < 4; i++)
        hash = mix(hash, words[i]);
    return (uint32_t)(mix_ports(hash, h->next, payload, len_bytes) >> 32);
}
