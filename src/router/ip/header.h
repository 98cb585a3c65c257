// The headers of IPv4 (RFC 791), IPv6 (RFC 8200) and what a router checks of them before it forwards anything (RFC 1812, 5.2.2 and
// 5.3.7). Pure logic over foreign bytes.
#pragma once

#include "router/counters.h"

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Behind an Ethernet header, at an even address.
#define IP_WIRE __attribute__((packed, aligned(2)))

struct ethernet_header {
    uint8_t to[6], from[6];
    uint16_t type;
} IP_WIRE;

enum { ETHERTYPE_IP4 = 0x0800, ETHERTYPE_ARP = 0x0806, ETHERTYPE_IP6 = 0x86dd };

struct ip4_header {
    uint8_t version_ihl, tos;
    uint16_t total_length, id, fragment; // fragment: flags and an offset in units of eight bytes
    uint8_t ttl, protocol;
    uint16_t checksum;
    uint32_t source, destination;
} IP_WIRE;

enum { IP4_DONT_FRAGMENT = 0x4000, IP4_MORE_FRAGMENTS = 0x2000, IP4_OFFSET = 0x1fff };

struct ip6_header {
    uint32_t version_class_flow;
    uint16_t payload_length;
    uint8_t next, hop_limit, source[16], destination[16];
} IP_WIRE;

enum { IP_PROTOCOL_ICMP = 1, IP_PROTOCOL_TCP = 6, IP_PROTOCOL_UDP = 17, IP_PROTOCOL_ICMP6 = 58 };

// ---- the checksum of the Internet (RFC 1071) ----

// A sum of 16-bit words as they lie in memory, folded when it is done; an odd last byte is one with a zero behind it.
static inline uint64_t checksum_add(uint64_t sum, const void *data, size_t len_bytes)
{
    const uint8_t *at = data;
    for (; len_bytes >= 4; at += 4, len_bytes -= 4) {
        uint32_t word;
        memcpy(&word, at, sizeof(word));
        sum += word;
    }
    if (len_bytes) {
        uint32_t word = 0;
        memcpy(&word, at, len_bytes);
        sum += word;
    }
    return sum;
}

static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)((sum >> 16) + (sum & 0xffff));
}

// Of a header without options. Valid: zero. What is stored in it: the complement, with the field zero.
static inline uint16_t ip4_checksum_plain(const struct ip4_header *h)
{
    uint32_t w[5];
    memcpy(w, h, sizeof(w));
    uint64_t sum = (uint64_t)w[0] + w[1] + w[2] + w[3] + w[4];
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t) ~((sum >> 16) + (sum & 0xffff));
}

// The TTL is one less, and the checksum follows (RFC 1624, equation 3; the word of the TTL changes by 0x0100).
static inline void ip4_decrement(struct ip4_header *h)
{
    uint32_t sum = (uint32_t)h->checksum + htobe16(0x0100);
    h->checksum = (uint16_t)(sum + (sum >= 0xffff));
    h->ttl--;
}

// Of what ICMPv6 (RFC 4443, 2.3) and others sum up: addresses, length and protocol, and the payload. As it lies in memory.
uint16_t ip6_payload_checksum(const struct ip6_header *h, uint8_t protocol, const void *payload, size_t len_bytes);

// ---- what can be forwarded ----

static inline unsigned ip4_header_bytes(const struct ip4_header *h)
{
    return (h->version_ihl & 15u) * 4;
}

// DROP_NONE, DROP_MALFORMED, DROP_CHECKSUM or DROP_OPTIONS; len_bytes lie there.
enum drop ip4_check(const struct ip4_header *h, size_t len_bytes);
enum drop ip6_check(const struct ip6_header *h, size_t len_bytes);

// 0/8, 127/8, 224/4 and 240/4 (RFC 1122, 3.2.1.3; RFC 1112).
static inline bool ip4_is_special(uint32_t address)
{
    const uint32_t first = address >> 24;
    return first >= 224 || first == 127 || first == 0;
}

// ::/8 (unspecified, loopback, mapped), fe80::/10 and ff00::/8: RFC 4291, 2.4.
static inline bool ip6_is_special(const uint8_t address[static 16])
{
    return address[0] == 0 || address[0] == 0xff || (address[0] == 0xfe && (address[1] & 0xc0) == 0x80);
}

static inline bool ip6_is_link_local(const uint8_t address[static 16])
{
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

// ---- flows ----

// A number for all packets of one flow: addresses, protocol and ports, or IPv6's flow label (RFC 6438); fragments have no ports,
// and go together. payload: what lies behind the header.
uint32_t ip4_flow(const struct ip4_header *h, const void *payload, size_t len_bytes, uint64_t key);
uint32_t ip6_flow(const struct ip6_header *h, const void *payload, size_t len_bytes, uint64_t key);
