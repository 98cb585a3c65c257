// What a machine leaves to others to do for a packet it sends: the checksum of its transport, and cutting what TCP sent in one go
// into frames (virtio 1.2, 5.1.6.2). It stands in the packet as DPDK has it for sending: RTE_MBUF_F_TX_* and the lengths of the
// headers. A machine that takes such packets gets them as they are, so that between two machines of a host nobody ever sums or
// cuts; for all other ports it is done here, when the packet leaves.
//
// Nothing is trusted of what a machine says of a packet but what its headers bear out. The worker's thread.
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

// What a port's far end takes.
#define OFFLOAD_CHECKSUM 1u
#define OFFLOAD_TSO4 2u // TCP over IPv4
#define OFFLOAD_TSO6 4u

// A packet as DPDK's vhost library received it, its flags those of reception. False: what is left to be done makes no sense.
bool offload_take(struct rte_mbuf *packet);

static inline bool offload_is_pending(const struct rte_mbuf *packet)
{
    return packet->ol_flags & (RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_TCP_SEG);
}

// To be cut.
static inline bool offload_is_long(const struct rte_mbuf *packet)
{
    return packet->ol_flags & RTE_MBUF_F_TX_TCP_SEG;
}

// What a port must take for this packet to leave by it as it is.
static inline unsigned offload_needs(const struct rte_mbuf *packet)
{
    if (packet->ol_flags & RTE_MBUF_F_TX_TCP_SEG)
        return packet->ol_flags & RTE_MBUF_F_TX_IPV4 ? OFFLOAD_TSO4 : OFFLOAD_TSO6;
    return packet->ol_flags & RTE_MBUF_F_TX_L4_MASK ? OFFLOAD_CHECKSUM : 0;
}

// The largest frame that comes of it on a wire, in bytes.
static inline uint32_t offload_frame_bytes(const struct rte_mbuf *packet)
{
    return packet->ol_flags & RTE_MBUF_F_TX_TCP_SEG
               ? (uint32_t)(packet->l2_len + packet->l3_len + packet->l4_len) + packet->tso_segsz
               : packet->pkt_len;
}

// Of a packet that need not be cut: sums it, in place. It is the caller's alone.
void offload_checksum(struct rte_mbuf *packet);

// Cutting: frames one by one, whole and summed, of buffers of the pool. The packet stays the caller's.
struct offload_cut {
    struct rte_mbuf *packet;
    uint32_t at; // bytes of payload that are cut already
};

static inline struct offload_cut offload_cut_begin(struct rte_mbuf *packet)
{
    return (struct offload_cut){.packet = packet};
}

static inline bool offload_cut_is_done(const struct offload_cut *cut)
{
    const struct rte_mbuf *packet = cut->packet;
    return cut->at >= packet->pkt_len - (uint32_t)(packet->l2_len + packet->l3_len + packet->l4_len);
}

// The next frame of one that is not done; NULL: the pool is empty.
struct rte_mbuf *offload_cut_next(struct offload_cut *cut, struct rte_mempool *pool);
