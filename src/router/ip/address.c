// Addresses as text: see address.h.
#include "router/ip/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int ip_parse_address(const char *text, struct ip_prefix *address)
{
    uint8_t bytes[16];
    uint32_t word;
    if (inet_pton(AF_INET, text, bytes) == 1) {
        memcpy(&word, bytes, sizeof(word));
        *address = (struct ip_prefix){.family = IP4, .len = 32, .key = ip4_key(be32toh(word))};
    } else if (inet_pton(AF_INET6, text, bytes) == 1) {
        *address = (struct ip_prefix){.family = IP6, .len = 128, .key = ip6_key(bytes)};
    } else {
        return -EINVAL;
    }
    return 0;
}

int ip_parse_prefix(const char *text, struct ip_prefix *prefix)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    if (!slash || (size_t)(slash - text) >= sizeof(address) || !slash[1] || strlen(slash + 1) > 3 ||
        strspn(slash + 1, "0123456789") != strlen(slash + 1))
        return -EINVAL;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = 0;
    const unsigned long len = strtoul(slash + 1, NULL, 10);
    if (ip_parse_address(address, prefix) || len > ip_bits(prefix->family))
        return -EINVAL;
    prefix->len = (uint8_t)len;
    return 0;
}

void ip_format_address(unsigned family, rib_key key, char text[static IP_TEXT_MAX])
{
    uint8_t bytes[16];
    ip6_bytes(key, bytes); // the first four are IPv4's
    inet_ntop(family == IP4 ? AF_INET : AF_INET6, bytes, text, IP_TEXT_MAX);
}

void ip_format_prefix(unsigned family, rib_key key, unsigned len, char text[static IP_TEXT_MAX])
{
    ip_format_address(family, key, text);
    const size_t at = strlen(text);
    snprintf(text + at, IP_TEXT_MAX - at, "/%u", len);
}
