// What machines leave to be done: see offload.h.
#include "router/offload.h"

#include "router/port/port.h"

#include <netinet/in.h>
#include <rte_ip.h>
#include <rte_net.h>
#include <rte_tcp.h>
#include <rte_udp.h>
#include <string.h>

// A machine that has each of its bytes cut into a frame of its own would have hundreds of others' frames wait for one packet. No
// connection over Ethernet has segments as short as this.
#define SEGMENT_LEAST 256

static uint32_t head_bytes(const struct rte_mbuf *packet)
{
    return (uint32_t)(packet->l2_len + packet->l3_len + packet->l4_len);
}

// The headers' lengths from the headers themselves. False: no TCP or UDP, or not whole in the first buffer.
static bool read_headers(struct rte_mbuf *packet)
{
    struct rte_net_hdr_lens lens = {0};
    const uint32_t type = rte_net_get_ptype(packet, &lens, RTE_PTYPE_L2_MASK | RTE_PTYPE_L3_MASK | RTE_PTYPE_L4_MASK);
    const uint32_t transport = type & RTE_PTYPE_L4_MASK;
    const uint32_t least = transport == RTE_PTYPE_L4_TCP ? sizeof(struct rte_tcp_hdr) : sizeof(struct rte_udp_hdr);
    if (transport != RTE_PTYPE_L4_TCP && transport != RTE_PTYPE_L4_UDP)
        return false;
    if (lens.l4_len < least || (uint32_t)lens.l2_len + lens.l3_len + lens.l4_len > packet->data_len)
        return false;
    packet->tx_offload = rte_mbuf_tx_offload(lens.l2_len, lens.l3_len, lens.l4_len, packet->tso_segsz, 0, 0, 0);
    packet->ol_flags |= RTE_ETH_IS_IPV4_HDR(type) ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    packet->ol_flags |= transport == RTE_PTYPE_L4_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
    return packet->l2_len == lens.l2_len && packet->l3_len == lens.l3_len; // they have 7 and 9 bits there
}

bool offload_take(struct rte_mbuf *packet)
{
    const uint64_t received = packet->ol_flags;
    const bool is_long = received & RTE_MBUF_F_RX_LRO;
    packet->ol_flags = 0;
    if (!is_long && (received & RTE_MBUF_F_RX_L4_CKSUM_MASK) != RTE_MBUF_F_RX_L4_CKSUM_NONE)
        return true;
    if (!read_headers(packet))
        return false;
    if (!is_long)
        return true;
    if ((packet->ol_flags & RTE_MBUF_F_TX_L4_MASK) != RTE_MBUF_F_TX_TCP_CKSUM || packet->tso_segsz < SEGMENT_LEAST)
        return false;
    if (packet->pkt_len > head_bytes(packet) + packet->tso_segsz)
        packet->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
    return true;
}

// ---- the checksum ----

// Of the addresses, the protocol and the length (RFC 9293, 3.1; RFC 8200, 8.1), not complemented.
static uint16_t pseudo_sum(const struct rte_mbuf *packet, uint32_t len_bytes, uint8_t protocol)
{
    const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, packet->l2_len);
    const bool is_ip4 = packet->ol_flags & RTE_MBUF_F_TX_IPV4;
    const uint32_t rest[2] = {rte_cpu_to_be_32(len_bytes), rte_cpu_to_be_32(protocol)};
    const uint32_t sum = (uint32_t)rte_raw_cksum(ip + (is_ip4 ? 12 : 8), is_ip4 ? 8 : 32) + rte_raw_cksum(rest, sizeof(rest));
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

// As the IP header has it: a frame may be padded. A header that says more than there is gets the sum of what there is.
static uint32_t transport_bytes(const struct rte_mbuf *packet)
{
    const uint8_t *ip = rte_pktmbuf_mtod_offset(packet, const uint8_t *, packet->l2_len);
    const uint32_t there = packet->pkt_len - packet->l2_len - packet->l3_len;
    const uint32_t whole = packet->ol_flags & RTE_MBUF_F_TX_IPV4
                               ? rte_be_to_cpu_16(((const struct rte_ipv4_hdr *)(const void *)ip)->total_length)
                               : (uint32_t)sizeof(struct rte_ipv6_hdr) +
                                     rte_be_to_cpu_16(((const struct rte_ipv6_hdr *)(const void *)ip)->payload_len);
    return whole >= (uint32_t)packet->l3_len + packet->l4_len && whole - packet->l3_len < there ? whole - packet->l3_len : there;
}

void offload_checksum(struct rte_mbuf *packet)
{
    const bool is_tcp = (packet->ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM;
    const uint32_t at = (uint32_t)packet->l2_len + packet->l3_len, len = transport_bytes(packet);
    uint16_t *field = rte_pktmbuf_mtod_offset(
        packet, uint16_t *, at + (is_tcp ? offsetof(struct rte_tcp_hdr, cksum) : offsetof(struct rte_udp_hdr, dgram_cksum)));
    uint16_t sum = 0;
    *field = pseudo_sum(packet, len, is_tcp ? IPPROTO_TCP : IPPROTO_UDP);
    rte_raw_cksum_mbuf(packet, at, len, &sum);
    sum = (uint16_t)~sum;
    *field = !sum && !is_tcp ? 0xffff : sum; // RFC 768: 0 is none
    packet->ol_flags = 0;
}

// ---- cutting ----

// Numbered on, so that they can be told apart should they be fragmented (RFC 6864).
static void fix_ip(struct rte_mbuf *frame, unsigned number)
{
    const uint16_t len = (uint16_t)(frame->pkt_len - frame->l2_len);
    uint8_t *ip = rte_pktmbuf_mtod_offset(frame, uint8_t *, frame->l2_len);
    if (frame->ol_flags & RTE_MBUF_F_TX_IPV4) {
        struct rte_ipv4_hdr *ip4 = (void *)ip;
        ip4->total_length = rte_cpu_to_be_16(len);
        ip4->packet_id = rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(ip4->packet_id) + number));
        ip4->hdr_checksum = 0;
        ip4->hdr_checksum = (uint16_t)~rte_raw_cksum(ip4, frame->l3_len);
    } else {
        struct rte_ipv6_hdr *ip6 = (void *)ip;
        ip6->payload_len = rte_cpu_to_be_16((uint16_t)(len - sizeof(*ip6)));
    }
}

// What says something of the end is for the last frame, what of the beginning for the first.
static void fix_tcp(struct rte_mbuf *frame, uint32_t at, bool is_last)
{
    struct rte_tcp_hdr *tcp = rte_pktmbuf_mtod_offset(frame, struct rte_tcp_hdr *, frame->l2_len + frame->l3_len);
    tcp->sent_seq = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->sent_seq) + at);
    if (!is_last)
        tcp->tcp_flags &= (uint8_t) ~(RTE_TCP_FIN_FLAG | RTE_TCP_PSH_FLAG);
    if (at)
        tcp->tcp_flags &= (uint8_t)~RTE_TCP_CWR_FLAG;
}

static bool copy(const struct rte_mbuf *packet, uint32_t at, uint32_t len_bytes, char *to)
{
    const void *bytes = rte_pktmbuf_read(packet, at, len_bytes, to); // copies only what lies in several buffers
    if (bytes && bytes != to)
        memcpy(to, bytes, len_bytes);
    return bytes;
}

struct rte_mbuf *offload_cut_next(struct offload_cut *cut, struct rte_mempool *pool)
{
    const struct rte_mbuf *packet = cut->packet;
    const uint32_t head = head_bytes(packet), left = packet->pkt_len - head - cut->at;
    const uint32_t len = left < packet->tso_segsz ? left : packet->tso_segsz;
    struct rte_mbuf *frame = rte_pktmbuf_alloc(pool);
    char *bytes = frame ? rte_pktmbuf_append(frame, (uint16_t)(head + len)) : NULL;
    if (!bytes || !copy(packet, 0, head, bytes) || !copy(packet, head + cut->at, len, bytes + head)) {
        rte_pktmbuf_free(frame);
        return NULL;
    }
    frame->tx_offload = packet->tx_offload;
    frame->ol_flags = packet->ol_flags & ~RTE_MBUF_F_TX_TCP_SEG;
    fix_ip(frame, cut->at / packet->tso_segsz);
    fix_tcp(frame, cut->at, len == left);
    offload_checksum(frame);
    cut->at += len;
    return frame;
}
