// What a hostile machine says is left to be done for its packets: whatever it is, no byte outside of them is read or written, what
// is refused is given back, and what is cut is whole: frames no longer than was said, all of the payload, and no buffer lost.
//
// The input: flags (bit 0 a sum, bit 1 to be cut), the segment's size and the length (two bytes each), then the
// packet, whose last byte is repeated up to that length.
#include "../unit/ip_rig.h"

#include "router/offload.h"
#include "router/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BUFFERS 256

static struct rte_mempool *pool;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    rig_start();
    assert(!pool_create(1, BUFFERS, PORT_FRAME_MAX, &pool));
    return 0;
}

static struct rte_mbuf *receive(const uint8_t *bytes, size_t size, uint32_t len)
{
    struct rte_mbuf *packet = rte_pktmbuf_alloc(pool), *last = packet;
    for (uint32_t at = 0; at < len;) {
        const uint32_t room = rte_pktmbuf_tailroom(last), part = len - at < room ? len - at : room;
        uint8_t *to = (uint8_t *)rte_pktmbuf_append(last, (uint16_t)part);
        for (uint32_t i = 0; i < part; i++)
            to[i] = bytes[at + i < size ? at + i : size - 1];
        at += part;
        if (at < len) {
            last = last->next = rte_pktmbuf_alloc(pool);
            packet->nb_segs++;
        }
    }
    packet->pkt_len = len;
    return packet;
}

static void cut_all(struct rte_mbuf *packet)
{
    const uint32_t head = (uint32_t)(packet->l2_len + packet->l3_len + packet->l4_len), most = offload_frame_bytes(packet);
    struct offload_cut cut = offload_cut_begin(packet);
    uint32_t payload = 0;
    while (!offload_cut_is_done(&cut)) {
        struct rte_mbuf *frame = offload_cut_next(&cut, pool);
        assert(frame && frame->pkt_len > head && frame->pkt_len <= most && !offload_is_pending(frame));
        payload += frame->pkt_len - head;
        rte_pktmbuf_free(frame);
    }
    assert(payload == packet->pkt_len - head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 6)
        return 0;
    const uint8_t flags = data[0];
    const uint32_t wanted = (uint32_t)(data[3] << 8 | data[4]);
    const uint32_t len = wanted > size - 5 ? wanted : (uint32_t)(size - 5 < 65535 ? size - 5 : 65535);
    struct rte_mbuf *packet = receive(data + 5, size - 5, len);
    packet->ol_flags = (flags & 1 ? RTE_MBUF_F_RX_L4_CKSUM_NONE : 0) | (flags & 2 ? RTE_MBUF_F_RX_LRO : 0);
    packet->tso_segsz = (uint16_t)(data[1] << 8 | data[2]);
    if (offload_take(packet)) {
        if (offload_needs(packet) & (OFFLOAD_TSO4 | OFFLOAD_TSO6)) {
            if (offload_frame_bytes(packet) < PORT_FRAME_MAX) // the others no network carries
                cut_all(packet);
        } else if (offload_is_pending(packet) && packet->pkt_len < PORT_FRAME_MAX) {
            offload_checksum(packet);
        }
    }
    rte_pktmbuf_free(packet);
    assert(rte_mempool_avail_count(pool) == BUFFERS);
    return 0;
}
