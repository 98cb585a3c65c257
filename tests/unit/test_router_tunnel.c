// Mac-in-UDP without packets: what is written in front of a frame is read again, by RFC 7348; congestion by RFC 6040; flows and
// ports.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/link/tunnel.h"

#define FRAME_MOST 1600

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 0xa1};

static struct tunnel_config config_of(unsigned family, enum tunnel_framing framing)
{
    struct tunnel_config c = {.framing = framing, .family = (uint8_t)family, .ttl = 64, .udp_port = 4789};
    struct ip_prefix local, remote;
    assert_int_equal(ip_parse_address(family == IP4 ? "192.0.2.1" : "2001:db8::1", &local), 0);
    assert_int_equal(ip_parse_address(family == IP4 ? "192.0.2.2" : "2001:db8::2", &remote), 0);
    c.local = local.key;
    c.remote = remote.key;
    c.has_checksum = family == IP6;
    c.vni = framing == TUNNEL_VXLAN ? 0xabcdef : 0;
    return c;
}

static size_t write_frame(const struct tunnel_config *config, const void *frame, size_t len, uint8_t *outer)
{
    struct tunnel tunnel;
    tunnel_init(&tunnel, config, mac, 7);
    return tunnel_write(&tunnel, outer, frame, len);
}

// An IPv4 packet in a frame: its ECN field, and an odd payload so that checksums have something to do.
static size_t inner4(uint8_t *frame, unsigned ecn, uint16_t port, size_t payload)
{
    struct ethernet_header *e = (void *)frame;
    struct ip4_header *h = (void *)(e + 1);
    memset(frame, 0x5a, sizeof(*e) + sizeof(*h) + payload);
    memset(e, 2, 12);
    e->type = htobe16(ETHERTYPE_IP4);
    *h = (struct ip4_header){.version_ihl = 0x45,
                             .tos = (uint8_t)(0xb8 | ecn),
                             .ttl = 9,
                             .protocol = IP_PROTOCOL_UDP,
                             .total_length = htobe16((uint16_t)(sizeof(*h) + payload)),
                             .source = 1,
                             .destination = 2};
    h->checksum = ip4_checksum_plain(h);
    memcpy(h + 1, &port, sizeof(port));
    return sizeof(*e) + sizeof(*h) + payload;
}

static size_t inner6(uint8_t *frame, unsigned ecn)
{
    struct ethernet_header *e = (void *)frame;
    struct ip6_header *h = (void *)(e + 1);
    memset(frame, 2, sizeof(*e));
    e->type = htobe16(ETHERTYPE_IP6);
    *h = (struct ip6_header){.version_class_flow = htobe32(6u << 28 | ecn << 20), .next = 59, .hop_limit = 1};
    return sizeof(*e) + sizeof(*h);
}

static void *ip_of(uint8_t *outer)
{
    return outer + sizeof(struct ethernet_header);
}

static enum drop check_ip(unsigned family, const void *packet, size_t len)
{
    return family == IP4 ? ip4_check(packet, len) : ip6_check(packet, len);
}

static void test_written_is_read(void **state)
{
    (void)state;
    static const size_t payloads[] = {8, 9, 100, 1400};
    for (unsigned i = 0; i < 16; i++) {
        const unsigned family = i & 1 ? IP4 : IP6;
        struct tunnel_config c = config_of(family, i & 2 ? TUNNEL_VXLAN : TUNNEL_RAW);
        struct tunnel_arrival a;
        uint8_t frame[FRAME_MOST], outer[FRAME_MOST + TUNNEL_HEAD_MAX];
        uint32_t vni = 0;
        const size_t len = inner4(frame, 0, 1, payloads[i / 4]), whole = write_frame(&c, frame, len, outer);
        const size_t packet = whole - sizeof(struct ethernet_header);
        assert_int_equal(whole, len + tunnel_head_bytes(family, c.framing));
        assert_memory_equal(((struct ethernet_header *)outer)->to, mac, 6);
        assert_int_equal(check_ip(family, ip_of(outer), packet), DROP_NONE);
        assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_NONE);
        assert_true(a.from == c.local && a.udp_port == 4789 && a.source_port >= 49152 && a.family == family && !a.ecn);
        assert_int_equal(a.has_checksum, family == IP6);
        assert_true(c.framing == TUNNEL_RAW || tunnel_read_vxlan(&a, &vni));
        assert_int_equal(vni, c.vni);
        assert_int_equal(a.len_bytes, len);
        assert_memory_equal(a.payload, frame, len);
    }
    assert_int_equal(tunnel_head_bytes(IP4, TUNNEL_RAW), 42);
    assert_int_equal(tunnel_head_bytes(IP4, TUNNEL_VXLAN), 50);
}

static void test_checksums(void **state)
{
    (void)state;
    uint8_t frame[FRAME_MOST], outer[FRAME_MOST + TUNNEL_HEAD_MAX];
    struct tunnel_arrival a;
    for (unsigned family = IP4; family <= IP6; family += IP6 - IP4) {
        struct tunnel_config c = config_of(family, TUNNEL_VXLAN);
        c.has_checksum = true;
        // all values of two bytes, so that a sum of zero comes by, which is written as 0xffff (RFC 768)
        for (unsigned port = 0; port < 65536; port += port < 64 ? 1 : 97) {
            const size_t len = inner4(frame, 0, (uint16_t)port, 9);
            const size_t packet = write_frame(&c, frame, len, outer) - sizeof(struct ethernet_header);
            assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_NONE);
            assert_true(a.has_checksum);
            outer[packet + sizeof(struct ethernet_header) - 1] ^= 1;
            assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_CHECKSUM);
        }
    }
}

static void test_lengths(void **state)
{
    (void)state;
    for (unsigned family = IP4; family <= IP6; family += IP6 - IP4) {
        struct tunnel_config c = config_of(family, TUNNEL_VXLAN);
        uint8_t frame[FRAME_MOST], outer[FRAME_MOST + TUNNEL_HEAD_MAX];
        struct tunnel_arrival a;
        uint32_t vni;
        c.has_checksum = false;
        const size_t len = inner4(frame, 0, 1, 50);
        const size_t packet = write_frame(&c, frame, len, outer) - sizeof(struct ethernet_header);
        struct udp_header *udp = (void *)((uint8_t *)ip_of(outer) + (family == IP4 ? 20 : 40));
        const uint16_t right = be16toh(udp->length);
        udp->length = htobe16((uint16_t)(right + 1));
        assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_MALFORMED);
        udp->length = htobe16(7);
        assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_MALFORMED);
        udp->length = htobe16((uint16_t)(right - 10)); // there may be something behind it
        assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_NONE);
        assert_int_equal(a.len_bytes, right - 18);
        udp->length = htobe16(8 + 7); // less than VXLAN's header
        assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_NONE);
        assert_false(tunnel_read_vxlan(&a, &vni));
        udp->length = htobe16(right);
        assert_int_equal(tunnel_read(family, ip_of(outer), packet, &a), DROP_NONE);
        ((uint8_t *)(udp + 1))[0] = 0xf7; // all flags but that there is a VNI
        assert_false(tunnel_read_vxlan(&a, &vni));
        ((uint8_t *)(udp + 1))[0] = 0xff; // reserved ones are nobody's business
        assert_true(tunnel_read_vxlan(&a, &vni));
    }
}

// RFC 6040, figure 4: what becomes of an inner field when the outer one has arrived as that; 4 is dropped.
static void test_congestion(void **state)
{
    (void)state;
    enum { NOT, ECT1, ECT0, CE, DROPPED };
    static const unsigned want[4][4] = {
        // outer   not,  ECT1, ECT0, CE
        [NOT] = {NOT, NOT, NOT, DROPPED},
        [ECT0] = {ECT0, ECT1, ECT0, CE},
        [ECT1] = {ECT1, ECT1, ECT1, CE},
        [CE] = {CE, CE, CE, CE},
    };
    uint8_t frame[FRAME_MOST], outer[FRAME_MOST + TUNNEL_HEAD_MAX];
    for (unsigned i = 0; i < 32; i++) {
        const unsigned inner = i & 3, met = i >> 2 & 3;
        const bool is_4 = i >> 4;
        const size_t len = is_4 ? inner4(frame, inner, 1, 20) : inner6(frame, inner);
        struct ip4_header *h4 = ip_of(frame);
        struct ip6_header *h6 = ip_of(frame);
        assert_int_equal(tunnel_pass_ecn(frame, len, met), want[inner][met] != DROPPED);
        if (want[inner][met] == DROPPED)
            continue;
        assert_int_equal(is_4 ? h4->tos & 3u : be32toh(h6->version_class_flow) >> 20 & 3, want[inner][met]);
        assert_true(!is_4 || (h4->tos >> 2 == 0xb8 >> 2 && !ip4_checksum_plain(h4)));
        // and the field of the outer packet is the inner one's
        struct tunnel_config c = config_of(is_4 ? IP4 : IP6, TUNNEL_VXLAN);
        struct tunnel_arrival a;
        c.dscp = 46;
        const size_t packet = write_frame(&c, frame, len, outer) - sizeof(struct ethernet_header);
        assert_int_equal(check_ip(c.family, ip_of(outer), packet), DROP_NONE);
        assert_int_equal(tunnel_read(c.family, ip_of(outer), packet, &a), DROP_NONE);
        assert_int_equal(a.ecn, want[inner][met]);
    }
    // what is no IP has no such field
    uint8_t arp[60] = {[12] = 0x08, [13] = 0x06};
    assert_true(tunnel_pass_ecn(arp, sizeof(arp), CE));
}

static void test_flows(void **state)
{
    (void)state;
    uint8_t frame[FRAME_MOST], tagged[FRAME_MOST + 4];
    unsigned seen[64] = {0}, n_seen = 0;
    for (unsigned port = 0; port < 256; port++) {
        const size_t len = inner4(frame, 0, (uint16_t)port, 30);
        const uint32_t flow = tunnel_flow(frame, len, 7);
        frame[len - 1] ^= 0xff; // another packet of the same flow
        assert_int_equal(tunnel_flow(frame, len, 7), flow);
        n_seen += !seen[flow % 64]++;
        memcpy(tagged, frame, 12);
        memcpy(tagged + 12, (const uint8_t[4]){0x81, 0, 0, 5}, 4);
        memcpy(tagged + 16, frame + 12, len - 12);
        assert_int_equal(tunnel_flow(tagged, len + 4, 7), flow);
    }
    assert_true(n_seen > 55); // of 64
    uint8_t other[60] = {1, [12] = 0x88, [13] = 0xb5};
    const uint32_t flow = tunnel_flow(other, sizeof(other), 7);
    other[11] = 1;
    assert_int_not_equal(tunnel_flow(other, sizeof(other), 7), flow);
    assert_int_equal(tunnel_flow(other, 13, 7), 0); // no frame
}

static void test_quoted(void **state)
{
    (void)state;
    for (unsigned family = IP4; family <= IP6; family += IP6 - IP4) {
        const struct tunnel_config c = config_of(family, TUNNEL_VXLAN);
        uint8_t frame[FRAME_MOST], outer[FRAME_MOST + TUNNEL_HEAD_MAX];
        struct tunnel_arrival a;
        uint32_t vni;
        const size_t header = family == IP4 ? 20 : 40;
        write_frame(&c, frame, inner4(frame, 0, 1, 1000), outer);
        assert_true(tunnel_read_quoted(family, ip_of(outer), header + 16, &a));
        assert_true(a.from == c.remote && a.udp_port == 4789 && tunnel_read_vxlan(&a, &vni) && vni == c.vni);
        assert_true(tunnel_read_quoted(family, ip_of(outer), header + 8, &a));
        assert_false(tunnel_read_vxlan(&a, &vni)); // as little as RFC 792 asks for
        assert_false(tunnel_read_quoted(family, ip_of(outer), header + 7, &a));
        assert_false(tunnel_read_quoted(family, ip_of(outer), 1, &a));
        outer[sizeof(struct ethernet_header) + header] = 1; // not a source port of ours
        assert_false(tunnel_read_quoted(family, ip_of(outer), header + 16, &a));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_read), cmocka_unit_test(test_checksums), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_congestion),      cmocka_unit_test(test_flows),     cmocka_unit_test(test_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
