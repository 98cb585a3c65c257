// Port security: whether a frame that a machine sends carries the machine's own addresses alone. Pure logic over foreign bytes.
//
// Looked at are the Ethernet source, behind at most two VLAN tags ARP (RFC 826, RFC 5227), the sources of IPv4 and IPv6, and
// Neighbour Discovery (RFC 4861; behind no fragment header, RFC 6980, and with no router's messages but a router's, RFC 6105). What
// cannot be looked at whole is refused. Without any IP address only MAC addresses are checked.
#pragma once

#include "router/counters.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_ADDRESSES_MAX 16

struct guard {
    uint8_t mac[6];
    bool is_router; // it may advertise itself
    unsigned n_ip4, n_ip6;
    uint8_t ip4[GUARD_ADDRESSES_MAX][4], ip6[GUARD_ADDRESSES_MAX][16];
};

// DROP_NONE, DROP_SPOOFED or DROP_MALFORMED. Of the frame's whole_bytes the first len_bytes lie in one piece; they are all of them,
// but for what TCP sent in one go (offload.h).
enum drop guard_check(const struct guard *guard, const uint8_t *frame, size_t len_bytes, size_t whole_bytes);
