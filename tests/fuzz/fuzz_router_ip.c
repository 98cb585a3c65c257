// A hostile link: any frames into a network that routes, from two ports, one with a machine that is held to its addresses; time
// passes in between. Whatever comes, no byte beyond a frame is read, every packet is sent, dropped or waits, and what is forwarded
// has a header that is right, a smaller TTL (what goes to the server behind the first port has any), and the router's own MAC
// address.
//
// The input is frames: port and length (two bytes), then the frame; a length of zero lets a second pass. With bit 4 of the first
// byte it is what TCP sent in one go, to be cut into pieces of 1200 bytes, with 4000 bytes more behind the frame for each of bits 5
// to 7.
#include "../unit/ip_rig.h"

#include "router/offload.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FRAMES_MOST 60 // of one input

static struct vn *vn;
static struct vn_port *ports[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    rig_start();
    return 0;
}

static void make_network(void)
{
    vn = rig_vn("v", "{'neighbours': 64, 'icmp_errors_per_s': 1000000}");
    ports[0] = rig_port(vn, "a",
                        "{'mac': '02:00:00:00:00:a1', 'addresses': ['10.0.1.254/24', 'fd00:1::fe/64'],"
                        "'server': '02:00:00:00:00:01'}");
    ports[1] = rig_port(vn, "b",
                        "{'mac': '02:00:00:00:00:a2', 'mtu': 1280, 'addresses': ['10.0.2.254/24', 'fd00:2::fe/64'],"
                        "'machine': {'mac': '02:00:00:00:00:02', 'addresses': ['10.0.9.1', 'fd00:9::1']}}");
    rig_command(vn, "neighbour.add", "{'neighbours': [{'port': 'a', 'address': '10.0.1.1', 'mac': '02:00:00:00:00:01'}]}", NULL);
    rig_command(vn, "route.add",
                "{'routes': [{'prefix': '0.0.0.0/0', 'via': ['10.0.1.1', '10.0.2.1']}, {'prefix': '::/0', 'via': 'fd00:2::1'},"
                "{'prefix': '30.0.0.0/8', 'type': 'blackhole'}, {'prefix': '31.0.0.0/8', 'type': 'unreachable'}]}",
                NULL);
}

static void check_sent(const struct packet *p, unsigned port)
{
    const uint8_t own[6] = {2, 0, 0, 0, 0, (uint8_t)(0xa1 + port)};
    assert(p->len >= sizeof(struct ethernet_header));
    assert(!memcmp(frame_of(p)->from, own, 6));
    const size_t len = p->len - sizeof(struct ethernet_header);
    if (frame_of(p)->type == htobe16(ETHERTYPE_IP4)) {
        assert(!ip4_check(ip4_of(p), len) && be16toh(ip4_of(p)->total_length) == len);
        assert((ip4_of(p)->ttl > 0 || !port) && len <= (port ? 1280 : 1500));
    } else if (frame_of(p)->type == htobe16(ETHERTYPE_IP6)) {
        assert(!ip6_check(ip6_of(p), len) && be16toh(ip6_of(p)->payload_length) + sizeof(struct ip6_header) == len);
        assert((ip6_of(p)->hop_limit > 0 || !port) && len <= (port ? 1280 : 1500));
    } else {
        assert(frame_of(p)->type == htobe16(ETHERTYPE_ARP) && len >= 28);
    }
}

static void take_all(void)
{
    struct packet p;
    for (unsigned i = 0; i < 2; i++)
        while (rig_take(ports[i], &p))
            check_sent(&p, i);
}

// As a machine's port receives it.
static void put_long(unsigned port, const struct packet *p, size_t more)
{
    struct rte_mbuf *packet = rte_pktmbuf_alloc(vn->pool), *last = packet;
    memcpy(rte_pktmbuf_append(packet, (uint16_t)p->len), p->bytes, p->len);
    for (size_t left = more; left;) {
        const size_t room = rte_pktmbuf_tailroom(last), n = left < room ? left : room;
        memset(rte_pktmbuf_mtod_offset(last, uint8_t *, last->data_len), 0, n);
        last->data_len = (uint16_t)(last->data_len + n);
        left -= n;
        if (left) {
            last = last->next = rte_pktmbuf_alloc(vn->pool);
            packet->nb_segs++;
        }
    }
    packet->pkt_len = (uint32_t)(p->len + more);
    packet->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE | RTE_MBUF_F_RX_LRO;
    packet->tso_segsz = 1200;
    if (!offload_take(packet)) {
        rte_pktmbuf_free(packet);
        return;
    }
    vn_refresh(vn);
    vn_input(vn, ports[port], &packet, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct packet p;
    make_network();
    for (unsigned n = 0; n < FRAMES_MOST && size >= 2; n++) {
        const unsigned port = data[0] & 1, more = 4000u * (data[0] >> 5);
        const bool is_long = data[0] & 0x10;
        p.len = (size_t)(data[0] >> 1 & 7) << 8 | data[1];
        data += 2;
        size -= 2;
        if (!p.len) {
            rig_seconds(vn, 1);
            take_all();
            continue;
        }
        if (p.len > size)
            p.len = size;
        memcpy(p.bytes, data, p.len);
        data += p.len;
        size -= p.len;
        if (!p.len)
            break;
        if (is_long)
            put_long(port, &p, more);
        else
            rig_put(ports[port], &p);
        rig_run(vn);
        take_all();
    }
    rig_seconds(vn, 10); // nothing waits longer, and neither does the error about it
    take_all();
    assert(rig_used(vn) == 0);
    rig_remove_vn(vn);
    return 0;
}
