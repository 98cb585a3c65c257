// Mac-in-UDP: an Ethernet frame behind the headers of IP, UDP and, when the framing says so, VXLAN (RFC 7348). Pure logic over
// foreign bytes; threads: whoever calls.
//
// `vxlan` is what Linux and Open vSwitch speak; `raw` has nothing between UDP's header and the frame, so that all that is added to
// it are 42 bytes, and the UDP port alone says which network it is.
#pragma once

#include "router/counters.h"
#include "router/ip/address.h"
#include "router/ip/header.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TUNNEL_VXLAN_PORT 4789 // RFC 7348, 5
#define TUNNEL_VNI_MOST 0xffffff
#define TUNNEL_HEAD_MAX (sizeof(struct ethernet_header) + sizeof(struct ip6_header) + sizeof(struct udp_header) + 8)

enum tunnel_framing { TUNNEL_VXLAN, TUNNEL_RAW };

struct udp_header {
    uint16_t source, destination, length, checksum;
} IP_WIRE;

struct tunnel_config {
    enum tunnel_framing framing;
    uint8_t family, ttl, dscp;
    bool has_checksum; // UDP's is filled in; without it it is zero (RFC 7348, 5; for IPv6 RFC 6935)
    uint16_t udp_port;
    uint32_t vni; // with raw: 0
    rib_key local, remote;
};

// What is written in front of each frame, but for what depends on it. Nobody's but the sender's.
struct tunnel {
    bool has_checksum;
    uint8_t family, head_bytes;
    uint64_t flow_key, sum; // sum: of what the checksum of IPv4's header covers, or of the pseudo header of UDP's, as far as known
    uint8_t head[TUNNEL_HEAD_MAX];
};

// How many bytes there are in front of the frame, with the outer Ethernet header.
unsigned tunnel_head_bytes(unsigned family, enum tunnel_framing framing);

// mac: of whoever takes the outer packet on. flow_key: so that nobody can tell which flows share a source port.
void tunnel_init(struct tunnel *tunnel, const struct tunnel_config *config, const uint8_t mac[static 6], uint64_t flow_key);

// The whole outer frame, at an even address with room for TUNNEL_HEAD_MAX + len_bytes: the source port is the flow's (RFC 7348, 5),
// IPv4 is not to be fragmented, the ECN field is the inner one's (RFC 6040, 4.1). How many bytes it is. len_bytes: at most 65535
// with all headers.
size_t tunnel_write(const struct tunnel *tunnel, void *outer, const void *frame, size_t len_bytes);

// ---- what has come ----

struct tunnel_arrival {
    uint8_t family, ecn;
    bool has_checksum;
    uint16_t source_port, udp_port; // UDP's, in host order
    rib_key from;                   // the far host
    const uint8_t *payload;         // borrowed
    size_t len_bytes;               // of it
};

// An IP packet without its Ethernet header, checked by ip4_check() or ip6_check() for len_bytes, no fragment: the headers up to
// UDP's. DROP_NONE; DROP_MALFORMED: not UDP, or lengths that do not fit; DROP_CHECKSUM: one was there, and is wrong.
enum drop tunnel_read(unsigned family, const void *packet, size_t len_bytes, struct tunnel_arrival *arrival);

// The beginning of a packet of ours, as an error of ICMP quotes it; `from` is then whereto it went, and nothing is said about
// has_checksum. False: too little of it, or none of ours.
bool tunnel_read_quoted(unsigned family, const void *packet, size_t len_bytes, struct tunnel_arrival *arrival);

// The header of VXLAN; the payload is what lies behind it. False: too short, or without a VNI (RFC 7348, 5).
bool tunnel_read_vxlan(struct tunnel_arrival *arrival, uint32_t *vni);

// Congestion that the outer packet met is the inner one's (RFC 6040, 4.2); frames without IP stay as they are. False: the packet is
// to be dropped, as its sender would not understand.
bool tunnel_pass_ecn(void *frame, size_t len_bytes, unsigned outer_ecn);

// A number for all frames of one flow: of what IP has (ip4_flow(), ip6_flow()), else of the addresses and the type.
uint32_t tunnel_flow(const void *frame, size_t len_bytes, uint64_t key);
