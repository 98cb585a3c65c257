// What is counted of a virtual network and of each of its ports. The worker writes, anybody reads: single writer, so that adding is
// a load and a store.
#pragma once

#include <stdatomic.h>
#include <stdint.h>

// Why a packet went no further. In the order of drop_names.
enum drop {
    DROP_NONE,       // it goes on
    DROP_MALFORMED,  // no frame that could be forwarded
    DROP_SPOOFED,    // an address that is not the port's
    DROP_RESERVED,   // for the link alone (IEEE 802.1Q, 8.6.3)
    DROP_STORM,      // more to be flooded than the port may cause
    DROP_UNKNOWN,    // to an address nobody has been seen with
    DROP_SAME_PORT,  // for where it came from
    DROP_SEND_FULL,  // the port it should have left by did not take it
    DROP_NO_BUFFERS, // the network's quota of buffers is used up
    // Networks that route.
    DROP_OTHER_MAC,  // a frame for another station
    DROP_ETHERTYPE,  // neither IP nor ARP
    DROP_CHECKSUM,   // of an IPv4 header, an ICMP message or a message of Neighbour Discovery
    DROP_MARTIAN,    // from or to an address that must not be forwarded
    DROP_MULTICAST,  // to a group, or to all
    DROP_TTL,        // it has come as far as it may
    DROP_OPTIONS,    // source routes
    DROP_NO_ROUTE,   // no route leads there
    DROP_PROHIBITED, // a route says so
    DROP_TOO_BIG,    // for the next link, and not to be fragmented
    DROP_NEIGHBOUR,  // who would take it does not answer
    DROP_WAITING,    // too many wait for that answer already
    DROP_LOCAL,      // for the router itself, where nothing wants it
    // Links between hosts.
    DROP_LINK,       // from a host to which there is no such link; or to one by an underlay that is gone
    DROP_CONGESTION, // met by the outer packet, where the sender of the inner one cannot be told
    DROP_CAUSES
};

extern const char *const drop_names[DROP_CAUSES];

struct counters {
    _Atomic uint64_t received_packets, received_bytes, sent_packets, sent_bytes;
    _Atomic uint64_t dropped[DROP_CAUSES];
};

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t counter_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}
