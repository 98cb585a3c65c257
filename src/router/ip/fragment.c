// Fragmentation of IPv4 (RFC 791, 3.2). Worker.
#include "router/ip/ip.h"
#include "router/offload.h"

#define FRAGMENTS_MOST 64
#define OPTION_COPIED 0x80 // it stands in every fragment

enum { OPTION_END = 0, OPTION_NOP = 1 };

// The options that stand in fragments but the first, padded; they were checked (ip4_check). How many bytes.
static size_t copy_options(const uint8_t *from, size_t len, uint8_t *to)
{
    size_t n = 0;
    for (size_t i = 0, step; i < len && from[i] != OPTION_END; i += step) {
        step = from[i] == OPTION_NOP ? 1 : from[i + 1];
        if (step > 1 && from[i] & OPTION_COPIED) {
            memcpy(to + n, from + i, step);
            n += step;
        }
    }
    while (n % 4)
        to[n++] = OPTION_END;
    return n;
}

// Payload bytes `at` to at + n of the packet, in a buffer that is empty.
static void fill(struct rte_mbuf *fragment, const struct rte_mbuf *packet, size_t at, size_t n)
{
    const struct ip4_header *whole = ip_packet(packet);
    const size_t header = ip4_header_bytes(whole), payload = be16toh(whole->total_length) - header;
    const unsigned before = be16toh(whole->fragment);
    fragment->data_len = (uint16_t)sizeof(struct ethernet_header);
    struct ip4_header *h = ip_packet(fragment);
    *ip_frame(fragment) = *ip_frame(packet);
    *h = *whole;
    size_t options = header - sizeof(*h);
    if (at)
        options = copy_options((const uint8_t *)(whole + 1), options, (uint8_t *)(h + 1));
    else
        memcpy(h + 1, whole + 1, options);
    const size_t own_header = sizeof(*h) + options;
    const bool is_last = at + n == payload && !(before & IP4_MORE_FRAGMENTS);
    h->version_ihl = (uint8_t)(0x40 | own_header / 4);
    h->total_length = htobe16((uint16_t)(own_header + n));
    h->fragment = htobe16((uint16_t)(((before & IP4_OFFSET) + at / 8) | (is_last ? 0 : IP4_MORE_FRAGMENTS)));
    h->checksum = 0;
    h->checksum = (uint16_t)~checksum_fold(checksum_add(0, h, own_header));
    memcpy((uint8_t *)h + own_header, (const uint8_t *)whole + header + at, n);
    fragment->data_len = (uint16_t)(sizeof(struct ethernet_header) + own_header + n);
    fragment->pkt_len = fragment->data_len;
}

bool ip4_fragment(struct vn *vn, struct neighbour *n, struct rte_mbuf *packet)
{
    struct rte_mbuf *fragments[FRAGMENTS_MOST];
    const struct ip4_header *h = ip_packet(packet);
    struct ip_port *own = ((struct vn_port *)n->out)->state;
    const size_t header = ip4_header_bytes(h), payload = be16toh(h->total_length) - header;
    const size_t piece = (n->mtu - header) & ~(size_t)7; // at least eight bytes: the MTU is 68 or more
    const unsigned n_fragments = (unsigned)((payload + piece - 1) / piece);
    if (offload_is_pending(packet))
        offload_checksum(packet); // of all fragments together
    if (n_fragments > FRAGMENTS_MOST || rte_pktmbuf_alloc_bulk(vn->pool, fragments, n_fragments))
        return false;
    for (unsigned i = 0; i < n_fragments; i++) {
        const size_t at = i * piece, len = at + piece < payload ? piece : payload - at;
        fill(fragments[i], packet, at, len);
        memcpy(ip_frame(fragments[i]), n->rewrite, sizeof(n->rewrite));
        vn_send(n->out, fragments[i]);
    }
    counter_add(&own->fragments_sent, n_fragments);
    rte_pktmbuf_free(packet);
    return true;
}
