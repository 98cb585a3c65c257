// Addresses and prefixes of both families, as keys (rib.h) and as text. Control thread alone reads and writes text.
#pragma once

#include "router/ip/rib.h"

#include <endian.h>
#include <string.h>

enum { IP4 = 4, IP6 = 6 };

#define IP_TEXT_MAX 64

struct ip_prefix {
    uint8_t family, len;
    rib_key key; // all of it, as written: with what is behind the length
};

static inline unsigned ip_bits(unsigned family)
{
    return family == IP4 ? 32 : 128;
}

static inline rib_key ip4_key(uint32_t address)
{
    return (rib_key)address << 96;
}

static inline rib_key ip6_key(const uint8_t bytes[static 16])
{
    uint64_t high, low;
    memcpy(&high, bytes, 8);
    memcpy(&low, bytes + 8, 8);
    return (rib_key)be64toh(high) << 64 | be64toh(low);
}

static inline void ip6_bytes(rib_key key, uint8_t bytes[static 16])
{
    const uint64_t high = htobe64((uint64_t)(key >> 64)), low = htobe64((uint64_t)key);
    memcpy(bytes, &high, 8);
    memcpy(bytes + 8, &low, 8);
}

// "10.0.0.1" or "fd00::1", and with "/24" behind it. 0 or -EINVAL.
int ip_parse_address(const char *text, struct ip_prefix *address); // len is that of a host
int ip_parse_prefix(const char *text, struct ip_prefix *prefix);
void ip_format_address(unsigned family, rib_key key, char text[static IP_TEXT_MAX]);
void ip_format_prefix(unsigned family, rib_key key, unsigned len, char text[static IP_TEXT_MAX]);
