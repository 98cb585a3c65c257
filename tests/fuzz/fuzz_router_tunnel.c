// Any bytes as a packet that came for the end of a tunnel, or as what an error of ICMP quotes: read within the packet, and a frame
// that is found in it lies in it, keeps its length and its addresses when it is told of congestion, and comes out the same when it
// is sent on.
//
// The input: a byte that says the family, and the packet.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "router/link/tunnel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send_on(const struct tunnel_arrival *arrival, uint32_t vni)
{
    const unsigned family = arrival->family;
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    const struct tunnel_config config = {.framing = vni ? TUNNEL_VXLAN : TUNNEL_RAW,
                                         .family = (uint8_t)family,
                                         .ttl = 64,
                                         .has_checksum = vni & 1,
                                         .udp_port = arrival->udp_port,
                                         .vni = vni,
                                         .local = arrival->from,
                                         .remote = arrival->from};
    struct tunnel tunnel;
    struct tunnel_arrival again;
    uint32_t same = 0;
    uint8_t *outer = aligned_alloc(2, (TUNNEL_HEAD_MAX + arrival->len_bytes + 1) & ~(size_t)1);
    tunnel_init(&tunnel, &config, mac, 7);
    const size_t len = tunnel_write(&tunnel, outer, arrival->payload, arrival->len_bytes) - sizeof(struct ethernet_header);
    const void *packet = outer + sizeof(struct ethernet_header);
    assert((family == IP4 ? ip4_check(packet, len) : ip6_check(packet, len)) == DROP_NONE);
    assert(tunnel_read(family, packet, len, &again) == DROP_NONE && (!vni || tunnel_read_vxlan(&again, &same)));
    assert(again.from == arrival->from && same == vni && again.len_bytes == arrival->len_bytes);
    assert(!memcmp(again.payload, arrival->payload, again.len_bytes));
    free(outer);
}

static void arrive(const struct tunnel_arrival *arrival, uint32_t vni)
{
    uint8_t *frame = malloc(arrival->len_bytes ? arrival->len_bytes : 1); // of just this size
    memcpy(frame, arrival->payload, arrival->len_bytes);
    if (tunnel_pass_ecn(frame, arrival->len_bytes, arrival->ecn) && arrival->len_bytes >= 14)
        assert(!memcmp(frame, arrival->payload, 14));
    free(frame);
    if (arrival->len_bytes < 60000)
        send_on(arrival, vni);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tunnel_arrival arrival;
    uint32_t vni;
    if (!size || size > 65536)
        return 0;
    const unsigned family = *data & 1 ? IP6 : IP4;
    const size_t len = size - 1;
    uint8_t *packet = malloc(len ? len : 1); // of just this size, so that a byte too many is noticed
    memcpy(packet, data + 1, len);
    const void *head = packet;
    if ((family == IP4 ? ip4_check(head, len) : ip6_check(head, len)) == DROP_NONE &&
        tunnel_read(family, packet, len, &arrival) == DROP_NONE) {
        assert(arrival.payload >= packet && arrival.payload + arrival.len_bytes <= packet + len);
        arrive(&arrival, 0);
        if (tunnel_read_vxlan(&arrival, &vni)) {
            assert(arrival.payload + arrival.len_bytes <= packet + len && vni <= TUNNEL_VNI_MOST);
            arrive(&arrival, vni);
        }
    }
    if (len && tunnel_read_quoted(family, packet, len, &arrival)) {
        assert(arrival.payload + arrival.len_bytes == packet + len);
        tunnel_read_vxlan(&arrival, &vni);
    }
    free(packet);
    return 0;
}
