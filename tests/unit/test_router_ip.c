// A network of the type ip, packet by packet: what is forwarded and how, each cause for which something is dropped, each message of
// ICMP, ARP and Neighbour Discovery. The router's ports are 02::a1 and 02::a2 (0xa1, 0xa2), stations 1 to 9.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ip_rig.h"
#include "router/ip/ecmp.h"

enum { A = 0xa1, B = 0xa2, ALL = 0xff };

struct rig {
    struct vn *vn;
    struct vn_port *a, *b;
};

// Two links, 10.0.1.0/24 and 10.0.2.0/24; station 1 on the first, station 2 on the second, both known; all else by station 2.
static struct rig two_links(const char *vn_params)
{
    struct rig r = {.vn = rig_vn("v", vn_params)};
    r.a = rig_port(r.vn, "a", "{'mac': '02:00:00:00:00:a1', 'addresses': ['10.0.1.254/24', 'fd00:1::fe/64']}");
    r.b = rig_port(r.vn, "b", "{'mac': '02:00:00:00:00:a2', 'mtu': 1280, 'addresses': ['10.0.2.254/24', 'fd00:2::fe/64']}");
    assert_int_equal(rig_command(r.vn, "neighbour.add",
                                 "{'neighbours': [{'port': 'a', 'address': '10.0.1.1', 'mac': '02:00:00:00:00:01'},"
                                 "{'port': 'a', 'address': 'fd00:1::1', 'mac': '02:00:00:00:00:01'},"
                                 "{'port': 'b', 'address': '10.0.2.1', 'mac': '02:00:00:00:00:02'},"
                                 "{'port': 'b', 'address': 'fd00:2::1', 'mac': '02:00:00:00:00:02'}]}",
                                 NULL),
                     0);
    assert_int_equal(
        rig_command(r.vn, "route.add",
                    "{'routes': [{'prefix': '20.0.0.0/8', 'via': '10.0.2.1'}, {'prefix': 'fd20::/16', 'via': 'fd00:2::1'},"
                    "{'prefix': '30.0.0.0/8', 'type': 'blackhole'}, {'prefix': '31.0.0.0/8', 'type': 'unreachable'},"
                    "{'prefix': 'fd31::/16', 'type': 'unreachable'}]}",
                    NULL),
        0);
    return r;
}

static void finish(struct rig *r)
{
    rig_run(r->vn);
    rig_discard(r->a);
    rig_discard(r->b);
    rig_remove_port(r->vn, r->a);
    rig_remove_port(r->vn, r->b);
    assert_int_equal(rig_used(r->vn), 0); // no packet was lost on the way
    rig_remove_vn(r->vn);
}

static void pass(struct rig *r, const struct packet *packet)
{
    rig_put(r->a, packet);
    rig_run(r->vn);
}

static const struct ip4_fields usual4 = {.from = "10.0.1.1", .to = "20.0.0.1", .ttl = 64, .protocol = 17, .payload = 26};
static const struct ip6_fields usual6 = {.from = "fd00:1::1", .to = "fd20::1", .hop_limit = 64, .next = 17, .payload = 26};

static bool is_valid4(const struct packet *p)
{
    return !ip4_check(ip4_of(p), p->len - sizeof(struct ethernet_header));
}

// ---- forwarding ----

static void check_frame(const struct packet *p, unsigned to, unsigned from)
{
    uint8_t mac[6];
    mac_of(to, mac);
    assert_memory_equal(frame_of(p)->to, mac, 6);
    mac_of(from, mac);
    assert_memory_equal(frame_of(p)->from, mac, 6);
}

static void test_forwards_ip4(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet sent = make_ip4(A, 1, &usual4), got;
    pass(&r, &sent);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 2, B);
    assert_true(is_valid4(&got));
    assert_int_equal(ip4_of(&got)->ttl, 63);
    assert_int_equal(got.len, sent.len);
    assert_memory_equal(ip4_of(&got) + 1, ip4_of(&sent) + 1, 26);
    // to a station on the link, and with an Ethernet trailer, which goes no further
    sent = make_ip4(A, 1, &(struct ip4_fields){.from = "10.0.1.1", .to = "10.0.2.1", .ttl = 2, .protocol = 17, .payload = 1});
    const size_t len = sent.len;
    add_hex(&sent, "ee ee ee ee");
    pass(&r, &sent);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 2, B);
    assert_int_equal(got.len, len);
    assert_int_equal(ip4_of(&got)->ttl, 1);
    assert_true(is_valid4(&got));
    assert_int_equal(rig_discard(r.a) + rig_discard(r.b), 0);
    finish(&r);
}

// Whatever the checksum was, it is right behind a router.
static void test_checksums_stay_right(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet got;
    for (unsigned i = 0; i < 3000; i++) {
        struct packet sent = make_ip4(A, 1, &usual4);
        struct ip4_header *h = ip4_of(&sent);
        h->id = htobe16((uint16_t)(i * 23));
        h->ttl = (uint8_t)(i % 254 + 2);
        h->checksum = 0;
        h->checksum = ip4_checksum_plain(h);
        pass(&r, &sent);
        assert_true(rig_take(r.b, &got));
        assert_true(is_valid4(&got));
    }
    finish(&r);
}

static void test_forwards_ip6(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet sent = make_ip6(A, 1, &usual6), got;
    pass(&r, &sent);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 2, B);
    assert_int_equal(ip6_of(&got)->hop_limit, 63);
    ip6_of(&got)->hop_limit++;
    assert_int_equal(got.len, sent.len);
    assert_memory_equal(ip6_of(&got), ip6_of(&sent), sent.len - sizeof(struct ethernet_header));
    finish(&r);
}

// A burst of all sorts comes out with each packet treated as if it had been alone.
static void test_mixed_burst(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    const struct packet four = make_ip4(A, 1, &usual4), six = make_ip6(A, 1, &usual6), other = make_frame(A, 1, 0x88b5);
    const struct packet echo = make_echo4(A, 1, "10.0.1.1", "10.0.1.254", 10);
    for (unsigned i = 0; i < 8; i++) {
        rig_put(r.a, &four);
        rig_put(r.a, &six);
        rig_put(r.a, &other);
        rig_put(r.a, &echo);
    }
    rig_run(r.vn);
    assert_int_equal(rig_discard(r.b), 16);
    assert_int_equal(rig_discard(r.a), 8);
    assert_int_equal(rig_drops(r.a, DROP_ETHERTYPE), 8);
    finish(&r);
}

// ---- what is dropped ----

static void check_drop(struct rig *r, const struct packet *packet, enum drop cause, unsigned n_told)
{
    const uint64_t before = rig_drops(r->a, cause);
    pass(r, packet);
    assert_int_equal(rig_drops(r->a, cause), before + 1);
    assert_int_equal(rig_discard(r->b), 0);
    assert_int_equal(rig_discard(r->a), n_told);
}

static void check_drop4(struct rig *r, struct ip4_fields fields, enum drop cause)
{
    const struct packet packet = make_ip4(A, 1, &fields);
    check_drop(r, &packet, cause, 0);
}

#define LIKE4(...)                                                                                                                 \
    ((struct ip4_fields){.from = "10.0.1.1", .to = "20.0.0.1", .ttl = 64, .protocol = 17, .payload = 26, __VA_ARGS__})

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
static void test_drops_ip4(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet p = make_ip4(A, 1, &usual4);
    p.len -= 1; // less than its length says
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_ip4(A, 1, &usual4);
    ip4_of(&p)->version_ihl = 0x55;
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_ip4(A, 1, &usual4);
    ip4_of(&p)->version_ihl = 0x44;
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_ip4(A, 1, &usual4);
    p.len = 13;
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_ip4(A, 1, &usual4);
    ip4_of(&p)->id ^= 1;
    check_drop(&r, &p, DROP_CHECKSUM, 0);
    p = make_ip4(9, 1, &usual4);
    check_drop(&r, &p, DROP_OTHER_MAC, 0);
    p = make_ip4(ALL, 1, &usual4);
    check_drop(&r, &p, DROP_MULTICAST, 0);
    check_drop4(&r, LIKE4(.to = "224.0.0.5"), DROP_MULTICAST);
    check_drop4(&r, LIKE4(.to = "255.255.255.255"), DROP_MULTICAST);
    check_drop4(&r, LIKE4(.to = "10.0.2.255"), DROP_MULTICAST);
    check_drop4(&r, LIKE4(.to = "127.0.0.1"), DROP_MARTIAN);
    check_drop4(&r, LIKE4(.to = "0.1.2.3"), DROP_MARTIAN);
    check_drop4(&r, LIKE4(.to = "240.0.0.1"), DROP_MARTIAN);
    check_drop4(&r, LIKE4(.from = "127.0.0.1"), DROP_MARTIAN);
    check_drop4(&r, LIKE4(.from = "0.0.0.0"), DROP_MARTIAN);
    check_drop4(&r, LIKE4(.from = "225.0.0.1"), DROP_MARTIAN);
    check_drop4(&r, LIKE4(.options = "83 07 04 0a 00 00 09 00"), DROP_OPTIONS);
    check_drop4(&r, LIKE4(.options = "89 07 04 0a 00 00 09 00"), DROP_OPTIONS);
    check_drop4(&r, LIKE4(.options = "07 00 00 00"), DROP_MALFORMED);
    check_drop4(&r, LIKE4(.options = "07 09 00 00"), DROP_MALFORMED);
    check_drop4(&r, LIKE4(.to = "30.0.0.1"), DROP_PROHIBITED);
    p = make_frame(A, 1, 0x88b5);
    check_drop(&r, &p, DROP_ETHERTYPE, 0);
    finish(&r);
}

// Options that are none of the router's business go with the packet.
static void test_options_go_along(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet got, sent = make_ip4(A, 1, &LIKE4(.options = "94 04 00 00 01 01 01 00"));
    pass(&r, &sent);
    assert_true(rig_take(r.b, &got));
    assert_true(is_valid4(&got));
    assert_memory_equal(ip4_of(&got) + 1, ip4_of(&sent) + 1, 8);
    finish(&r);
}

// ---- ICMP ----

// An error about `cause`, to its sender, with that type, code and word.
static void check_icmp4(struct vn_port *port, const struct packet *cause, unsigned type, unsigned code, uint32_t word)
{
    struct packet p;
    assert_true(rig_take(port, &p));
    const struct ip4_header *h = ip4_of(&p), *about = ip4_of(cause);
    const uint8_t *icmp = (const uint8_t *)(h + 1);
    const size_t len = be16toh(h->total_length) - sizeof(*h), quoted = len - 8;
    uint32_t got_word;
    memcpy(&got_word, icmp + 4, 4);
    assert_true(is_valid4(&p));
    assert_int_equal(p.len, be16toh(h->total_length) + sizeof(struct ethernet_header));
    assert_int_equal(h->protocol, 1);
    assert_int_equal(h->destination, about->source);
    assert_int_equal(be32toh(h->source), 0x0a0001fe);
    assert_int_equal(checksum_fold(checksum_add(0, icmp, len)), 0xffff);
    assert_int_equal(icmp[0], type);
    assert_int_equal(icmp[1], code);
    assert_int_equal(be32toh(got_word), word);
    const size_t total = be16toh(about->total_length);
    assert_int_equal(quoted, total < 548 ? total : 548);
    assert_memory_equal(icmp + 8, about, 8); // behind that TTL and checksum may have been changed already
    assert_memory_equal(icmp + 8 + 12, (const uint8_t *)about + 12, quoted - 12);
    check_frame(&p, 1, A);
}

static void check_told4(struct rig *r, struct ip4_fields fields, enum drop cause, unsigned type, unsigned code, uint32_t word)
{
    const struct packet packet = make_ip4(A, 1, &fields);
    const uint64_t before = rig_drops(r->a, cause);
    pass(r, &packet);
    assert_int_equal(rig_drops(r->a, cause), before + 1);
    check_icmp4(r->a, &packet, type, code, word);
    assert_int_equal(rig_discard(r->a) + rig_discard(r->b), 0);
}

static void test_tells_of_ip4(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1000000}");
    check_told4(&r, LIKE4(.ttl = 1), DROP_TTL, 11, 0, 0);
    check_told4(&r, LIKE4(.ttl = 0), DROP_TTL, 11, 0, 0);
    check_told4(&r, LIKE4(.to = "40.0.0.1"), DROP_NO_ROUTE, 3, 0, 0);
    check_told4(&r, LIKE4(.to = "31.0.0.1"), DROP_PROHIBITED, 3, 1, 0);
    check_told4(&r, LIKE4(.payload = 1400, .flags = IP4_DONT_FRAGMENT), DROP_TOO_BIG, 3, 4, 1280);
    check_told4(&r, LIKE4(.to = "10.0.1.254"), DROP_LOCAL, 3, 3, 0); // UDP
    check_told4(&r, LIKE4(.to = "10.0.2.254"), DROP_LOCAL, 3, 3, 0); // another port's address
    check_told4(&r, LIKE4(.to = "10.0.2.254", .protocol = 50), DROP_LOCAL, 3, 2, 0);
    check_told4(&r, LIKE4(.to = "10.0.1.254", .ttl = 1), DROP_LOCAL, 3, 3, 0); // the last router is the destination
    finish(&r);
}

// RFC 1812, 4.3.2.7: who is not to be told.
static void test_tells_nobody(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1000000}");
    check_drop4(&r, LIKE4(.ttl = 1, .flags = 5), DROP_TTL); // not the first fragment
    struct packet p = make_ip4(A, 1, &LIKE4(.ttl = 1, .protocol = 1));
    memset(ip4_of(&p) + 1, 3, 1); // an error itself
    check_drop(&r, &p, DROP_TTL, 0);
    memset(ip4_of(&p) + 1, 8, 1); // a question
    check_drop(&r, &p, DROP_TTL, 1);
    p = make_icmp6(A, 1, "fd00:1::1", "fd20::1", 1, "01 00 0000 00000000");
    check_drop(&r, &p, DROP_TTL, 0);
    finish(&r);
}

static void test_errors_are_limited(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1}");
    const struct packet p = make_ip4(A, 1, &LIKE4(.ttl = 1));
    for (unsigned i = 0; i < 64; i++)
        pass(&r, &p);
    const unsigned told = rig_discard(r.a);
    assert_true(told >= 10 && told < 60);
    assert_int_equal(rig_drops(r.a, DROP_TTL), 64);
    finish(&r);
    r = two_links("{'icmp_errors_per_s': 0}");
    check_drop(&r, &p, DROP_TTL, 0);
    finish(&r);
}

static void test_answers_echo4(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet sent = make_echo4(A, 1, "10.0.1.1", "10.0.2.254", 56), got;
    pass(&r, &sent);
    assert_true(rig_take(r.a, &got));
    check_frame(&got, 1, A);
    const struct ip4_header *h = ip4_of(&got);
    assert_true(is_valid4(&got));
    assert_int_equal(h->source, ip4_of(&sent)->destination);
    assert_int_equal(h->destination, ip4_of(&sent)->source);
    assert_int_equal(*(const uint8_t *)(h + 1), 0);
    assert_int_equal(checksum_fold(checksum_add(0, h + 1, 64)), 0xffff);
    assert_memory_equal((const uint8_t *)(h + 1) + 4, (const uint8_t *)(ip4_of(&sent) + 1) + 4, 60);
    ((uint8_t *)(ip4_of(&sent) + 1))[9] ^= 1;
    check_drop(&r, &sent, DROP_CHECKSUM, 0);
    check_drop4(&r, LIKE4(.to = "10.0.1.254", .protocol = 1, .payload = 4), DROP_MALFORMED);
    finish(&r);
}

// ---- fragmentation ----

static void check_fragments(struct rig *r, struct ip4_fields fields, size_t mtu, const char *copied)
{
    const struct packet sent = make_ip4(A, 1, &fields);
    uint8_t whole[PORT_FRAME_MAX];
    size_t at = 0;
    bool more = true;
    struct packet p;
    pass(r, &sent);
    const size_t base = (fields.flags & IP4_OFFSET) * 8u;
    for (unsigned n = 0; more; n++) {
        assert_true(rig_take(r->b, &p));
        const struct ip4_header *h = ip4_of(&p);
        const size_t header = ip4_header_bytes(h), len = be16toh(h->total_length) - header;
        const unsigned fragment = be16toh(h->fragment);
        check_frame(&p, 2, B);
        assert_true(is_valid4(&p));
        assert_true(be16toh(h->total_length) <= mtu);
        assert_int_equal(p.len, be16toh(h->total_length) + sizeof(struct ethernet_header));
        assert_int_equal(h->id, ip4_of(&sent)->id);
        assert_int_equal(h->ttl, 63);
        assert_int_equal((fragment & IP4_OFFSET) * 8, base + at);
        struct packet options = {0};
        add_hex(&options, n ? copied : fields.options ? fields.options : "");
        assert_int_equal(header, sizeof(*h) + options.len);
        assert_memory_equal(h + 1, options.bytes, options.len);
        memcpy(whole + at, (const uint8_t *)h + header, len);
        at += len;
        more = at < fields.payload;
        assert_int_equal(!!(fragment & IP4_MORE_FRAGMENTS), more || fields.flags & IP4_MORE_FRAGMENTS);
        assert_true(!more || len % 8 == 0);
    }
    assert_int_equal(at, fields.payload);
    assert_memory_equal(whole, sent.bytes + sent.len - fields.payload, fields.payload);
    assert_int_equal(rig_discard(r->b), 0);
}

static void test_fragments(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    check_fragments(&r, LIKE4(.payload = 1480), 1280, "");
    check_fragments(&r, LIKE4(.payload = 1261), 1280, "");
    check_fragments(&r, LIKE4(.payload = 1480, .flags = 100), 1280, "");                     // the last one of another
    check_fragments(&r, LIKE4(.payload = 1480, .flags = IP4_MORE_FRAGMENTS | 10), 1280, ""); // one in the middle
    check_fragments(&r, LIKE4(.payload = 1400, .options = "94 04 00 00 01 07 03 00"), 1280, "94 04 00 00");
    struct packet p = make_ip4(A, 1, &LIKE4(.payload = 1260)), got; // just as large as may be
    pass(&r, &p);
    assert_true(rig_take(r.b, &got) && !rig_discard(r.b));
    finish(&r);
}

// What a machine left to be summed is, before it leaves by a port that does not: in one piece, and over all fragments together.
static void check_sum(struct rig *r, size_t payload)
{
    const struct packet sent = make_ip4(A, 1, &LIKE4(.payload = payload));
    struct rte_mbuf *packet = rte_pktmbuf_alloc(r->vn->pool);
    memcpy(rte_pktmbuf_append(packet, (uint16_t)sent.len), sent.bytes, sent.len);
    packet->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
    packet->tx_offload = rte_mbuf_tx_offload(14, 20, 8, 0, 0, 0, 0);
    r->vn->type->input(r->vn, r->a, &packet, 1);
    vn_flush(r->b);
    struct packet p;
    uint64_t sum = checksum_add(htobe32((uint32_t)(17 + payload)), &ip4_of(&sent)->source, 8);
    size_t at = 0;
    while (rig_take(r->b, &p)) {
        const size_t len = p.len - sizeof(struct ethernet_header) - 20;
        assert_true(is_valid4(&p));
        sum = checksum_add(sum, ip4_of(&p) + 1, len);
        at += len;
    }
    assert_int_equal(at, payload);
    assert_int_equal(checksum_fold(sum), 0xffff);
}

static void test_sums_what_was_left(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    check_sum(&r, 1000);
    check_sum(&r, 1480); // two fragments
    finish(&r);
}

// ---- what TCP sent in one go ----

enum { TCP_HEAD = 20 };

// As a machine's port has received it, in buffers as full as they get; `more` bytes behind what its header tells of.
static void put_long(struct rig *r, const struct packet *head, unsigned segment, size_t payload, size_t more)
{
    struct rte_mbuf *packet = rte_pktmbuf_alloc(r->vn->pool), *last = packet;
    const bool is_4 = frame_of(head)->type == htobe16(ETHERTYPE_IP4);
    memcpy(rte_pktmbuf_append(packet, (uint16_t)head->len), head->bytes, head->len);
    for (size_t left = payload + more; left;) {
        const size_t room = rte_pktmbuf_tailroom(last), n = left < room ? left : room;
        memset(rte_pktmbuf_mtod_offset(last, uint8_t *, last->data_len), 0x5a, n);
        last->data_len = (uint16_t)(last->data_len + n);
        packet->pkt_len += (uint32_t)n * (last != packet);
        left -= n;
        if (last == packet)
            packet->pkt_len = packet->data_len;
        if (left) {
            last = last->next = rte_pktmbuf_alloc(r->vn->pool);
            packet->nb_segs++;
        }
    }
    packet->ol_flags = (is_4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_TCP_SEG;
    packet->tx_offload = rte_mbuf_tx_offload(14, is_4 ? 20 : 40, TCP_HEAD, segment, 0, 0, 0);
    r->vn->type->input(r->vn, r->a, &packet, 1);
    vn_flush(r->b);
    vn_flush(r->a);
}

static struct packet long4(const char *to, uint16_t flags, size_t payload)
{
    struct packet p = make_ip4(A, 1, &LIKE4(.to = to, .protocol = 6, .payload = TCP_HEAD, .flags = flags));
    struct ip4_header *h = ip4_of(&p);
    h->total_length = htobe16((uint16_t)(sizeof(*h) + TCP_HEAD + payload));
    h->checksum = 0;
    h->checksum = ip4_checksum_plain(h);
    ((uint8_t *)(h + 1))[12] = TCP_HEAD / 4 << 4;
    return p;
}

static struct packet long6(const char *to, size_t payload)
{
    struct packet p =
        make_ip6(A, 1, &(struct ip6_fields){.from = "fd00:1::1", .to = to, .hop_limit = 64, .next = 6, .payload = TCP_HEAD});
    ip6_of(&p)->payload_length = htobe16((uint16_t)(TCP_HEAD + payload));
    ((uint8_t *)(ip6_of(&p) + 1))[12] = TCP_HEAD / 4 << 4;
    return p;
}

// Frames of b: how many, none larger than its MTU, with headers that are right and a smaller TTL; *bytes of payload in all of them.
static unsigned take_frames(struct rig *r, size_t *bytes)
{
    struct packet p;
    unsigned n = 0;
    for (*bytes = 0; rig_take(r->b, &p); n++) {
        const bool is_4 = frame_of(&p)->type == htobe16(ETHERTYPE_IP4);
        const size_t head = sizeof(struct ethernet_header) + (is_4 ? 20 : 40);
        const bool is_rest = is_4 && ip4_of(&p)->fragment & htobe16(IP4_OFFSET);
        assert_true(p.len <= sizeof(struct ethernet_header) + 1280);
        assert_true(is_4 ? is_valid4(&p) && ip4_of(&p)->ttl == 63 : ip6_of(&p)->hop_limit == 63);
        *bytes += p.len - head - (is_rest ? 0 : TCP_HEAD);
    }
    return n;
}

static void test_long_segments(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet four = long4("20.0.0.1", IP4_DONT_FRAGMENT, 30000), six = long6("fd20::1", 30000), got;
    size_t bytes;
    put_long(&r, &four, 1200, 30000, 0);
    assert_int_equal(take_frames(&r, &bytes), 25);
    assert_int_equal(bytes, 30000);
    put_long(&r, &six, 1200, 30000, 0);
    assert_int_equal(take_frames(&r, &bytes), 25);
    assert_int_equal(bytes, 30000);
    // Its frames would not fit.
    put_long(&r, &four, 1300, 30000, 0);
    assert_true(rig_take(r.a, &got) && ip4_of(&got)->protocol == 1 && !take_frames(&r, &bytes));
    put_long(&r, &six, 1300, 30000, 0);
    assert_true(rig_take(r.a, &got) && ip6_of(&got)->next == 58 && !take_frames(&r, &bytes));
    assert_int_equal(rig_drops(r.a, DROP_TOO_BIG), 2);
    four = long4("20.0.0.1", 0, 30000); // but may be fragmented
    put_long(&r, &four, 1500, 30000, 0);
    assert_int_equal(take_frames(&r, &bytes), 40);
    assert_int_equal(bytes, 30000);
    // Nothing lies behind such a packet.
    put_long(&r, &four, 1200, 30000, 1);
    put_long(&r, &six, 1200, 30000, 1);
    assert_int_equal(rig_drops(r.a, DROP_MALFORMED), 2);
    finish(&r);
}

// It waits for a neighbour with all its buffers, and those are what is counted.
static void test_long_segments_wait(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    const struct packet p = long4("10.0.2.7", IP4_DONT_FRAGMENT, 60000), q = long4("10.0.2.8", IP4_DONT_FRAGMENT, 60000),
                        late = long4("10.0.2.9", IP4_DONT_FRAGMENT, 1000);
    put_long(&r, &p, 1200, 60000, 0);
    put_long(&r, &q, 1200, 60000, 0);
    assert_int_equal(rig_drops(r.a, DROP_WAITING), 0);
    put_long(&r, &q, 1200, 60000, 0);
    assert_int_equal(rig_drops(r.a, DROP_WAITING), 0);
    put_long(&r, &late, 1200, 1000, 0); // an eighth of the network's buffers, and more than that, wait already
    assert_int_equal(rig_drops(r.a, DROP_WAITING), 1);
    finish(&r);
}

static void test_smallest_mtu(void **state)
{
    (void)state;
    struct rig r = {.vn = rig_vn("v", "{}")};
    r.a = rig_port(r.vn, "a", "{'mac': '02:00:00:00:00:a1', 'addresses': ['10.0.1.254/24']}");
    r.b = rig_port(r.vn, "b",
                   "{'mac': '02:00:00:00:00:a2', 'mtu': 68, 'addresses': ['10.0.2.254/24'],"
                   "'machine': {'mac': '02:00:00:00:00:02', 'addresses': ['20.0.0.1']}}");
    check_fragments(&r, LIKE4(.payload = 1480), 68, "");
    check_fragments(&r, LIKE4(.payload = 100, .options = "01010101 01010101 01010101 01010101 01010101 01010101 01010101 01010101"),
                    68, "");
    finish(&r);
}

// ---- IPv6 ----

static void check_told6(struct rig *r, struct ip6_fields fields, enum drop cause, unsigned type, unsigned code, uint32_t word)
{
    const struct packet packet = make_ip6(A, 1, &fields);
    const uint64_t before = rig_drops(r->a, cause);
    struct packet p;
    pass(r, &packet);
    assert_int_equal(rig_drops(r->a, cause), before + 1);
    if (!type) {
        assert_int_equal(rig_discard(r->a) + rig_discard(r->b), 0);
        return;
    }
    assert_true(rig_take(r->a, &p));
    const struct ip6_header *h = ip6_of(&p);
    const uint8_t *icmp = (const uint8_t *)(h + 1);
    const size_t len = be16toh(h->payload_length);
    uint32_t got_word;
    memcpy(&got_word, icmp + 4, 4);
    assert_int_equal(p.len, len + sizeof(*h) + sizeof(struct ethernet_header));
    assert_true(len + sizeof(*h) <= 1280);
    assert_int_equal(ip6_payload_checksum(h, 58, icmp, len), 0xffff);
    assert_memory_equal(h->destination, ip6_of(&packet)->source, 16);
    assert_int_equal(icmp[0], type);
    assert_int_equal(icmp[1], code);
    assert_int_equal(be32toh(got_word), word);
    assert_memory_equal(icmp + 8, ip6_of(&packet), 7);
    assert_memory_equal(icmp + 16, (const uint8_t *)ip6_of(&packet) + 8, len - 16);
    assert_int_equal(rig_discard(r->a) + rig_discard(r->b), 0);
}

#define LIKE6(...)                                                                                                                 \
    ((struct ip6_fields){.from = "fd00:1::1", .to = "fd20::1", .hop_limit = 64, .next = 17, .payload = 26, __VA_ARGS__})

static void test_drops_ip6(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1000000}");
    check_told6(&r, LIKE6(.hop_limit = 1), DROP_TTL, 3, 0, 0);
    check_told6(&r, LIKE6(.to = "fd40::1"), DROP_NO_ROUTE, 1, 0, 0);
    check_told6(&r, LIKE6(.to = "fd31::1"), DROP_PROHIBITED, 1, 3, 0);
    check_told6(&r, LIKE6(.payload = 1300), DROP_TOO_BIG, 2, 0, 1280);
    check_told6(&r, LIKE6(.to = "fd00:2::fe"), DROP_LOCAL, 1, 4, 0);
    check_told6(&r, LIKE6(.to = "fd00:1::fe", .next = 50), DROP_LOCAL, 4, 1, 6);
    check_told6(&r, LIKE6(.to = "ff0e::1"), DROP_MULTICAST, 0, 0, 0);
    check_told6(&r, LIKE6(.to = "fe80::99"), DROP_MARTIAN, 0, 0, 0);
    check_told6(&r, LIKE6(.from = "fe80::1"), DROP_MARTIAN, 0, 0, 0);
    check_told6(&r, LIKE6(.from = "ff02::1"), DROP_MARTIAN, 0, 0, 0);
    check_told6(&r, LIKE6(.from = "::1"), DROP_MARTIAN, 0, 0, 0);
    check_told6(&r, LIKE6(.to = "::1"), DROP_MARTIAN, 0, 0, 0);
    struct packet p = make_ip6(A, 1, &usual6);
    p.len--;
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_ip6(A, 1, &usual6);
    ip6_of(&p)->version_class_flow = htobe32(5u << 28);
    check_drop(&r, &p, DROP_MALFORMED, 0);
    finish(&r);
}
#pragma GCC diagnostic pop

static void test_answers_echo6(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    static const char *const own[] = {"fd00:1::fe", "fd00:2::fe", "fe80::ff:fe00:a1"};
    for (unsigned i = 0; i < 3; i++) {
        struct packet sent = make_echo6(A, 1, "fd00:1::1", own[i], 56), got;
        pass(&r, &sent);
        assert_true(rig_take(r.a, &got));
        check_frame(&got, 1, A);
        const struct ip6_header *h = ip6_of(&got);
        assert_memory_equal(h->source, ip6_of(&sent)->destination, 16);
        assert_memory_equal(h->destination, ip6_of(&sent)->source, 16);
        assert_int_equal(*(const uint8_t *)(h + 1), 129);
        assert_int_equal(ip6_payload_checksum(h, 58, h + 1, 64), 0xffff);
        ((uint8_t *)(ip6_of(&sent) + 1))[9] ^= 1;
        check_drop(&r, &sent, DROP_CHECKSUM, 0);
    }
    finish(&r);
}

// ---- ARP ----

static void test_arp_answers(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet p = make_arp(ALL, 3, 1, "10.0.1.3", "10.0.1.254"), got;
    pass(&r, &p);
    assert_true(rig_take(r.a, &got));
    struct packet want = make_arp(3, A, 2, "10.0.1.254", "10.0.1.3");
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.bytes, want.bytes, want.len);
    // who asked is known from then on
    p = make_ip4(B, 2, &(struct ip4_fields){.from = "10.0.2.1", .to = "10.0.1.3", .ttl = 9, .protocol = 17});
    rig_put(r.b, &p);
    rig_discard(r.a);
    rig_run(r.vn);
    assert_true(rig_take(r.a, &got));
    check_frame(&got, 3, A);
    // for another's address, for one of another port, a probe of ours, and from nowhere on this link
    p = make_arp(ALL, 3, 1, "10.0.1.3", "10.0.1.7");
    pass(&r, &p);
    p = make_arp(ALL, 3, 1, "10.0.1.3", "10.0.2.254");
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 0);
    p = make_arp(ALL, 3, 1, "0.0.0.0", "10.0.1.254");
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 1);
    p = make_arp(ALL, 4, 1, "10.9.9.9", "10.0.1.254");
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 1);
    p = make_arp(ALL, 3, 1, "10.0.1.254", "10.0.1.254"); // somebody claims it
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_arp(ALL, 3, 1, "10.0.1.3", "10.0.1.254");
    p.len--;
    check_drop(&r, &p, DROP_MALFORMED, 0);
    finish(&r);
}

static struct packet to_station(const char *to)
{
    return make_ip4(A, 1, &(struct ip4_fields){.from = "10.0.1.1", .to = to, .ttl = 9, .protocol = 17, .payload = 26});
}

static void test_arp_resolves(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1000000}");
    struct packet p = to_station("10.0.2.5"), got;
    for (unsigned i = 0; i < 6; i++) // four wait
        pass(&r, &p);
    assert_int_equal(rig_drops(r.a, DROP_WAITING), 2);
    assert_true(rig_take(r.b, &got));
    struct packet want = make_arp(ALL, B, 1, "10.0.2.254", "10.0.2.5");
    assert_memory_equal(got.bytes, want.bytes, want.len);
    assert_int_equal(rig_discard(r.b), 0); // asked once
    rig_seconds(r.vn, 1);
    assert_int_equal(rig_discard(r.b), 1); // and again
    struct packet answer = make_arp(B, 5, 2, "10.0.2.5", "10.0.2.254");
    rig_put(r.b, &answer);
    rig_run(r.vn);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(rig_take(r.b, &got));
        check_frame(&got, 5, B);
        assert_int_equal(ip4_of(&got)->ttl, 8);
        assert_true(is_valid4(&got));
    }
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    // one that does not answer: asked three times, then the senders hear of it
    p = to_station("10.0.2.6");
    pass(&r, &p);
    pass(&r, &p);
    rig_seconds(r.vn, 3);
    assert_int_equal(rig_discard(r.b), 3);
    assert_int_equal(rig_drops(r.b, DROP_NEIGHBOUR), 2);
    assert_true(rig_take(r.a, &got));
    assert_int_equal(((const uint8_t *)(ip4_of(&got) + 1))[0], 3);
    assert_int_equal(((const uint8_t *)(ip4_of(&got) + 1))[1], 1);
    assert_int_equal(rig_discard(r.a), 1);
    finish(&r);
}

// The error about a gateway that does not answer may have to go by that gateway itself: an end is found all the same.
static void test_error_behind_the_same_gateway(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1000000}");
    assert_int_equal(rig_command(r.vn, "route.add", "{'routes': [{'prefix': '0.0.0.0/0', 'via': '10.0.2.9'}]}", NULL), 0);
    const struct packet p = make_ip4(A, 1, &(struct ip4_fields){.from = "60.0.0.1", .to = "61.0.0.1", .ttl = 9, .protocol = 17});
    pass(&r, &p);
    rig_seconds(r.vn, 3);
    assert_int_equal(rig_drops(r.b, DROP_NEIGHBOUR), 1);
    rig_seconds(r.vn, 4);
    assert_int_equal(rig_drops(r.b, DROP_NEIGHBOUR), 2); // the error; there is none about it
    rig_discard(r.b);
    assert_int_equal(rig_used(r.vn), 0);
    finish(&r);
}

// A neighbour that is in use is asked again, by itself; one that nobody uses is forgotten.
static void test_neighbours_age(void **state)
{
    (void)state;
    struct rig r = two_links("{'neighbour_age_s': 100}");
    struct packet p = to_station("10.0.2.5"), got;
    const struct packet answer = make_arp(B, 5, 2, "10.0.2.5", "10.0.2.254");
    pass(&r, &p);
    rig_put(r.b, &answer);
    rig_run(r.vn);
    assert_int_equal(rig_discard(r.b), 2);
    rig_seconds(r.vn, 29);
    assert_int_equal(rig_discard(r.b), 0);
    rig_seconds(r.vn, 2); // stale
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    rig_seconds(r.vn, 1);
    assert_true(rig_take(r.b, &got)); // asked
    check_frame(&got, 5, B);
    assert_int_equal(be16toh(frame_of(&got)->type), ETHERTYPE_ARP);
    rig_put(r.b, &answer);
    rig_run(r.vn);
    rig_seconds(r.vn, 29);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    rig_seconds(r.vn, 4); // stale, used before it became so: left alone
    assert_int_equal(rig_discard(r.b), 0);
    pass(&r, &p);
    rig_seconds(r.vn, 5); // asked three times, without an answer
    assert_int_equal(rig_discard(r.b), 4);
    pass(&r, &p);
    assert_true(rig_take(r.b, &got)); // as if it had never been there
    assert_int_equal(frame_of(&got)->to[0], 0xff);
    rig_put(r.b, &answer);
    rig_run(r.vn);
    json_t *list = NULL;
    rig_command(r.vn, "neighbour.list", "{}", &list);
    assert_int_equal(json_array_size(json_object_get(list, "neighbours")), 5);
    json_decref(list);
    rig_seconds(r.vn, 140);
    rig_command(r.vn, "neighbour.list", "{}", &list);
    assert_int_equal(json_array_size(json_object_get(list, "neighbours")), 4); // those that were told it
    json_decref(list);
    finish(&r);
}

// Whoever scans a link finds no more room than a quarter of the table, and nobody who is there is forgotten for it.
static void test_scans_find_an_end(void **state)
{
    (void)state;
    struct rig r = two_links("{'neighbours': 64, 'icmp_errors_per_s': 0}");
    char to[32];
    for (unsigned i = 5; i < 205; i++) {
        snprintf(to, sizeof(to), "10.0.2.%u", i);
        const struct packet p = to_station(to);
        pass(&r, &p);
    }
    assert_true(rig_drops(r.a, DROP_NEIGHBOUR) >= 180);
    assert_true(rig_discard(r.b) <= 18);
    const struct packet p = make_ip4(A, 1, &usual4);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    finish(&r);
}

// ---- Neighbour Discovery ----

#define FD1_3 "fd000001000000000000000000000003"
#define FD1_FE "fd0000010000000000000000000000fe"
#define FD2_5 "fd000002000000000000000000000005"

static void test_nd_answers(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct packet got,
        p = make_icmp6(ALL, 3, "fd00:1::3", "ff02::1:ff00:fe", 255, "87 00 0000 00000000" FD1_FE "01 01 020000000003");
    pass(&r, &p);
    assert_true(rig_take(r.a, &got));
    struct packet want = make_icmp6(3, A, "fd00:1::fe", "fd00:1::3", 255, "88 00 0000 e0000000" FD1_FE "02 01 0200000000a1");
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.bytes, want.bytes, want.len);
    // is the address free?
    p = make_icmp6(ALL, 3, "::", "ff02::1:ff00:fe", 255, "87 00 0000 00000000" FD1_FE);
    pass(&r, &p);
    assert_true(rig_take(r.a, &got));
    assert_memory_equal(frame_of(&got)->to, "\x33\x33\0\0\0\1", 6);
    assert_int_equal(((const uint8_t *)(ip6_of(&got) + 1))[4], 0xa0); // router, override, not solicited
    // from beyond the link, of another's address, broken options, a wrong checksum
    p = make_icmp6(ALL, 3, "fd00:1::3", "ff02::1:ff00:fe", 254, "87 00 0000 00000000" FD1_FE "01 01 020000000003");
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_icmp6(ALL, 3, "fd00:1::3", "ff02::1:ff00:fe", 255, "87 00 0000 00000000" FD1_3);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 0);
    p = make_icmp6(ALL, 3, "fd00:1::3", "ff02::1:ff00:fe", 255, "87 00 0000 00000000" FD1_FE "01 00 020000000003");
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_icmp6(ALL, 3, "fd00:1::3", "ff02::1:ff00:fe", 255,
                   "87 00 0000 00000000"
                   "fd00");
    check_drop(&r, &p, DROP_MALFORMED, 0);
    p = make_icmp6(ALL, 3, "fd00:1::3", "ff02::1:ff00:fe", 255, "87 00 0000 00000000" FD1_FE "01 01 020000000003");
    p.bytes[p.len - 1] ^= 1;
    check_drop(&r, &p, DROP_CHECKSUM, 0);
    finish(&r);
}

static void test_nd_resolves(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 1000000}");
    struct packet got, p = make_ip6(A, 1, &(struct ip6_fields){.from = "fd00:1::1", .to = "fd00:2::5", .hop_limit = 9, .next = 17});
    pass(&r, &p);
    assert_true(rig_take(r.b, &got));
    struct packet want =
        make_icmp6(0, B, "fe80::ff:fe00:a2", "ff02::1:ff00:5", 255, "87 00 0000 00000000" FD2_5 "01 01 0200000000a2");
    memcpy(frame_of(&want)->to, "\x33\x33\xff\x00\x00\x05", 6);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.bytes, want.bytes, want.len);
    struct packet answer = make_icmp6(B, 5, "fd00:2::5", "fe80::ff:fe00:a2", 255, "88 00 0000 60000000" FD2_5 "02 01 020000000005");
    rig_put(r.b, &answer);
    rig_run(r.vn);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 5, B);
    assert_int_equal(ip6_of(&got)->hop_limit, 8);
    // another station says so without "override": not believed; with it, it is
    answer = make_icmp6(B, 6, "fd00:2::5", "fe80::ff:fe00:a2", 255, "88 00 0000 40000000" FD2_5 "02 01 020000000006");
    rig_put(r.b, &answer);
    pass(&r, &p);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 5, B);
    answer = make_icmp6(B, 6, "fd00:2::5", "fe80::ff:fe00:a2", 255, "88 00 0000 60000000" FD2_5 "02 01 020000000006");
    rig_put(r.b, &answer);
    rig_run(r.vn);
    pass(&r, &p);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 6, B);
    // nobody there
    p = make_ip6(A, 1, &(struct ip6_fields){.from = "fd00:1::1", .to = "fd00:2::7", .hop_limit = 9, .next = 17});
    pass(&r, &p);
    rig_seconds(r.vn, 3);
    assert_int_equal(rig_discard(r.b), 3);
    assert_true(rig_take(r.a, &got));
    assert_memory_equal((const uint8_t *)(ip6_of(&got) + 1), "\x01\x03", 2);
    finish(&r);
}

// ---- machines that may not say they are others ----

static void test_machine_is_held_to_its_addresses(void **state)
{
    (void)state;
    struct rig r = {.vn = rig_vn("v", "{}")};
    r.a = rig_port(r.vn, "a",
                   "{'mac': '02:00:00:00:00:a1', 'addresses': ['10.0.1.254/32'],"
                   "'machine': {'mac': '02:00:00:00:00:01', 'addresses': ['10.0.1.1', 'fd00:1::1']}}");
    r.b = rig_port(r.vn, "b",
                   "{'mac': '02:00:00:00:00:a2', 'addresses': ['10.0.2.254/24'],"
                   "'machine': {'mac': '02:00:00:00:00:02', 'addresses': ['10.0.2.1', '20.0.0.1', 'fd20::1']}}");
    struct packet got, p = make_ip4(A, 1, &usual4);
    pass(&r, &p);
    assert_true(rig_take(r.b, &got)); // nobody had to be asked
    check_frame(&got, 2, B);
    p = make_ip6(A, 1, &usual6);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    p = make_ip4(A, 3, &usual4);
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_ip4(A, 1, &(struct ip4_fields){.from = "10.0.1.2", .to = "20.0.0.1", .ttl = 64, .protocol = 17});
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_ip6(A, 1, &(struct ip6_fields){.from = "fd00:1::2", .to = "fd20::1", .hop_limit = 64, .next = 17});
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_arp(ALL, 1, 2, "10.0.2.1", "10.0.1.254");
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_icmp6(A, 1, "fd00:1::1", "ff02::1", 255, "88 00 0000 20000000" FD2_5 "02 01 020000000001");
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_echo4(A, 1, "10.0.1.1", "10.0.1.254", 10);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 1);
    finish(&r);
}

// Machines take each other to be on one link: the router answers for those that are behind another port, and for nobody else.
static void test_machines_are_answered_for(void **state)
{
    (void)state;
    struct rig r = {.vn = rig_vn("v", "{}")};
    r.a = rig_port(r.vn, "a",
                   "{'mac': '02:00:00:00:00:a1', 'addresses': ['10.0.1.254/32', 'fd00:1::fe/128'],"
                   "'machine': {'mac': '02:00:00:00:00:01', 'addresses': ['10.0.1.1', 'fd00:1::1']}}");
    r.b = rig_port(r.vn, "b",
                   "{'mac': '02:00:00:00:00:a2', 'addresses': ['10.0.1.254/32', 'fd00:1::fe/128'],"
                   "'machine': {'mac': '02:00:00:00:00:03', 'addresses': ['10.0.1.3', 'fd00:1::3']}}");
    struct packet p = make_arp(ALL, 1, 1, "10.0.1.1", "10.0.1.3"), got;
    pass(&r, &p);
    assert_true(rig_take(r.a, &got));
    struct packet want = make_arp(1, A, 2, "10.0.1.3", "10.0.1.1");
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.bytes, want.bytes, want.len);
    p = make_arp(ALL, 1, 1, "10.0.1.1", "10.0.1.7"); // nobody
    pass(&r, &p);
    p = make_arp(ALL, 1, 1, "0.0.0.0", "10.0.1.1"); // whether its own is free
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 0);
    p = make_icmp6(ALL, 1, "fd00:1::1", "ff02::1:ff00:3", 255, "87 00 0000 00000000" FD1_3 "01 01 020000000001");
    pass(&r, &p);
    assert_true(rig_take(r.a, &got));
    want = make_icmp6(1, A, "fe80::ff:fe00:a1", "fd00:1::1", 255, "88 00 0000 c0000000" FD1_3 "02 01 0200000000a1");
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.bytes, want.bytes, want.len);
    finish(&r);
}

// BOOTP (RFC 951) about the station with the MAC address 02:00:00:00:00:n, with no options behind it.
static struct packet make_bootp(const char *from, const char *to, unsigned mac_to, unsigned mac_from, bool is_answer, unsigned n)
{
    struct packet p = make_ip4(
        mac_to, mac_from, &(struct ip4_fields){.from = from, .to = to, .ttl = 64, .protocol = IP_PROTOCOL_UDP, .payload = 8 + 236});
    uint8_t *udp = (uint8_t *)(ip4_of(&p) + 1);
    memset(udp, 0, 8 + 236);
    udp[is_answer ? 1 : 3] = 67;
    udp[is_answer ? 3 : 1] = 68;
    udp[5] = 8 + 236;
    udp[8] = is_answer ? 2 : 1;
    udp[9] = 1;
    udp[10] = 6;
    mac_of(n, udp + 8 + 28);
    return p;
}

// What machines want of the router itself goes to the server, and its answers for all to the machine they are about.
static void test_server(void **state)
{
    (void)state;
    struct rig r = {.vn = rig_vn("v", "{}")};
    r.a = rig_port(r.vn, "a",
                   "{'mac': '02:00:00:00:00:a1', 'addresses': ['10.0.1.254/32'],"
                   "'machine': {'mac': '02:00:00:00:00:01', 'addresses': ['10.0.1.1']}}");
    r.b = rig_port(r.vn, "b", "{'mac': '02:00:00:00:00:a2', 'addresses': ['169.254.255.1/30'], 'server': '02:00:00:00:00:09'}");
    assert_null(rig_try_port(r.vn, "c", "{'server': '02:00:00:00:00:08'}"));
    assert_non_null(strstr(rig_error.text, "another port"));
    struct packet got, p = make_bootp("0.0.0.0", "255.255.255.255", ALL, 1, false, 1);
    pass(&r, &p);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 9, B);
    assert_int_equal(got.len, p.len);
    assert_memory_equal(got.bytes + 12, p.bytes + 12, p.len - 12);
    p = make_bootp("0.0.0.0", "255.255.255.255", ALL, 1, false, 3); // for another machine
    check_drop(&r, &p, DROP_SPOOFED, 0);
    p = make_bootp("0.0.0.0", "255.255.255.255", ALL, 1, true, 1); // no question
    check_drop(&r, &p, DROP_MULTICAST, 0);
    p = make_bootp("0.0.0.0", "255.255.255.255", ALL, 1, false, 1);
    ((uint8_t *)(ip4_of(&p) + 1))[10] = 7; // of no Ethernet
    check_drop(&r, &p, DROP_MULTICAST, 0);
    p = make_ip4(ALL, 1,
                 &(struct ip4_fields){.from = "0.0.0.0", .to = "255.255.255.255", .ttl = 64, .protocol = 17, .payload = 43});
    ((uint8_t *)(ip4_of(&p) + 1))[3] = 67; // one byte too short
    check_drop(&r, &p, DROP_MULTICAST, 0);
    // to its own address, as DNS: nothing else is changed; an echo is answered here
    p = make_ip4(A, 1, &(struct ip4_fields){.from = "10.0.1.1", .to = "10.0.1.254", .ttl = 1, .protocol = 17, .payload = 8});
    pass(&r, &p);
    assert_true(rig_take(r.b, &got));
    check_frame(&got, 9, B);
    assert_memory_equal(got.bytes + 12, p.bytes + 12, p.len - 12);
    p = make_echo4(A, 1, "10.0.1.1", "10.0.1.254", 10);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.a), 1);
    // answers
    p = make_bootp("10.0.1.254", "255.255.255.255", ALL, 9, true, 1);
    rig_put(r.b, &p);
    rig_run(r.vn);
    assert_true(rig_take(r.a, &got));
    check_frame(&got, 1, A);
    assert_memory_equal(got.bytes + 12, p.bytes + 12, p.len - 12);
    p = make_bootp("10.0.1.254", "10.0.1.1", B, 9, true, 1); // not for all: it is routed
    rig_put(r.b, &p);
    rig_run(r.vn);
    assert_int_equal(rig_discard(r.a), 1);
    p = make_bootp("10.0.1.254", "255.255.255.255", ALL, 9, true, 3); // about nobody
    rig_put(r.b, &p);
    rig_run(r.vn);
    assert_int_equal(rig_discard(r.a), 0);
    assert_int_equal(rig_drops(r.b, DROP_MULTICAST), 1);
    rig_remove_port(r.vn, r.b);
    p = make_bootp("0.0.0.0", "255.255.255.255", ALL, 1, false, 1);
    r.b = rig_port(r.vn, "b", "{}"); // a network without one
    check_drop(&r, &p, DROP_MULTICAST, 0);
    finish(&r);
}

// ---- several next hops ----

static void flows(struct rig *r, struct vn_port *const ports[3], int taken[256])
{
    char from[32];
    struct packet got;
    for (unsigned i = 0; i < 256; i++) {
        snprintf(from, sizeof(from), "10.0.1.%u", i % 250 + 1);
        struct packet p =
            make_ip4(A, 1, &(struct ip4_fields){.from = from, .to = "50.0.0.1", .ttl = 9, .protocol = 17, .payload = 8});
        ((uint8_t *)(ip4_of(&p) + 1))[0] = (uint8_t)i;
        pass(r, &p);
        taken[i] = -1;
        for (int k = 0; k < 3; k++)
            if (rig_take(ports[k], &got)) {
                assert_int_equal(taken[i], -1);
                taken[i] = k;
            }
        assert_true(taken[i] >= 0);
    }
}

static void test_flows_stay_where_they_are(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct vn_port *const ports[3] = {r.b, rig_port(r.vn, "c", "{'addresses': ['10.0.3.254/24']}"),
                                      rig_port(r.vn, "d", "{'addresses': ['10.0.4.254/24']}")};
    int first[256], second[256], third[256];
    unsigned n[3] = {0}, moved = 0;
    rig_command(r.vn, "neighbour.add",
                "{'neighbours': [{'port': 'c', 'address': '10.0.3.1', 'mac': '02:00:00:00:00:03'},"
                "{'port': 'd', 'address': '10.0.4.1', 'mac': '02:00:00:00:00:04'}]}",
                NULL);
    assert_int_equal(rig_command(r.vn, "route.add",
                                 "{'routes': [{'prefix': '50.0.0.0/8', 'via': ['10.0.2.1', '10.0.3.1', '10.0.4.1', '10.0.3.1']}]}",
                                 NULL),
                     0);
    flows(&r, ports, first);
    flows(&r, ports, second);
    assert_memory_equal(first, second, sizeof(first));
    for (unsigned i = 0; i < 256; i++)
        n[first[i]]++;
    for (unsigned k = 0; k < 3; k++)
        assert_true(n[k] > 40 && n[k] < 140);
    // one goes: its flows alone move; it comes back: only what it gets moves
    rig_command(r.vn, "route.add", "{'routes': [{'prefix': '50.0.0.0/8', 'via': ['10.0.2.1', '10.0.4.1']}]}", NULL);
    flows(&r, ports, second);
    for (unsigned i = 0; i < 256; i++)
        assert_true(first[i] == 1 ? second[i] != 1 : second[i] == first[i]);
    rig_command(r.vn, "route.add", "{'routes': [{'prefix': '50.0.0.0/8', 'via': ['10.0.2.1', '10.0.3.1', '10.0.4.1']}]}", NULL);
    flows(&r, ports, third);
    for (unsigned i = 0; i < 256; i++) {
        moved += third[i] != second[i];
        assert_true(third[i] == second[i] || third[i] == 1);
    }
    assert_true(moved > 40 && moved < 140);
    // a port goes, and with it its next hop
    rig_remove_port(r.vn, ports[1]);
    json_t *list = NULL;
    rig_command(r.vn, "route.list", "{'from': '50.0.0.0/8'}", &list);
    const json_t *route = json_array_get(json_object_get(list, "routes"), 0);
    assert_string_equal(json_string_value(json_object_get(route, "prefix")), "50.0.0.0/8");
    assert_int_equal(json_array_size(json_object_get(route, "via")), 2);
    json_decref(list);
    rig_discard(ports[2]);
    rig_remove_port(r.vn, ports[2]);
    finish(&r);
}

static void test_buckets(void **state)
{
    (void)state;
    uint16_t buckets[256] = {0}, before[256], members[ECMP_MEMBERS_MAX] = {0};
    srand(3);
    unsigned n = 0;
    for (unsigned turn = 0; turn < 2000; turn++) {
        const bool removes = n > 1 && (rand() % 2 || n == ECMP_MEMBERS_MAX);
        const unsigned at = (unsigned)rand() % (n ? n : 1);
        uint16_t changed = removes ? members[at] : (uint16_t)(turn + 1);
        memcpy(before, buckets, sizeof(buckets));
        if (removes)
            members[at] = members[--n];
        else
            members[n++] = changed;
        ecmp_assign(buckets, 256, members, n);
        unsigned has[ECMP_MEMBERS_MAX] = {0};
        for (unsigned b = 0; b < 256; b++) {
            bool found = false;
            for (unsigned i = 0; i < n; i++)
                if (members[i] == buckets[b]) {
                    has[i]++;
                    found = true;
                }
            assert_true(found);
            if (removes) // nobody else's change hands
                assert_true(buckets[b] == before[b] || before[b] == changed);
            else if (turn)
                assert_true(buckets[b] == before[b] || buckets[b] == changed);
        }
        for (unsigned i = 0; i < n; i++)
            assert_true(has[i] == 256 / n || has[i] == 256 / n + 1);
    }
}

// ---- networks and ports ----

static void test_overlapping_networks(void **state)
{
    (void)state;
    struct rig r = two_links("{}"), s = two_links("{}");
    struct packet p = make_ip4(A, 1, &usual4);
    assert_int_equal(rig_command(s.vn, "route.add", "{'routes': [{'prefix': '20.0.0.0/8', 'type': 'blackhole'}]}", NULL), 0);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    check_drop(&s, &p, DROP_PROHIBITED, 0);
    assert_int_equal(rig_discard(r.b) + rig_discard(r.a), 0);
    finish(&r);
    finish(&s);
}

static void test_ports_come_and_go(void **state)
{
    (void)state;
    struct rig r = two_links("{'icmp_errors_per_s': 0}");
    const struct packet p = make_ip4(A, 1, &usual4), unknown = to_station("10.0.2.77");
    pass(&r, &unknown); // waits when the port goes
    rig_discard(r.b);
    rig_remove_port(r.vn, r.b);
    check_drop(&(struct rig){r.vn, r.a, r.a}, &p, DROP_NO_ROUTE, 0);
    assert_int_equal(rig_used(r.vn), 0);
    r.b = rig_port(r.vn, "b", "{'mac': '02:00:00:00:00:a2', 'addresses': ['10.0.2.254/24']}");
    pass(&r, &p);
    assert_int_equal(rig_drops(r.a, DROP_NO_ROUTE), 2);
    rig_command(r.vn, "route.add", "{'routes': [{'prefix': '20.0.0.0/8', 'via': '10.0.2.1'}]}", NULL);
    pass(&r, &p);
    struct packet got;
    assert_true(rig_take(r.b, &got)); // it has to ask: nothing of the old port is left
    assert_int_equal(be16toh(frame_of(&got)->type), ETHERTYPE_ARP);
    finish(&r);
}

static void test_no_buffers(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    struct rte_mbuf *all[512];
    unsigned n = 0;
    struct packet p =
        make_ip4(A, 1, &(struct ip4_fields){.from = "10.0.1.1", .to = "20.0.0.1", .ttl = 9, .protocol = 17, .payload = 1400});
    rig_put(r.a, &p);
    while ((all[n] = rte_pktmbuf_alloc(r.vn->pool)))
        n++;
    rig_run(r.vn);
    assert_int_equal(rig_drops(r.a, DROP_NO_BUFFERS), 1);
    rte_pktmbuf_free_bulk(all, n);
    finish(&r);
}

static void check_refused(struct rig *r, const char *command, const char *params, const char *message)
{
    assert_true(rig_command(r->vn, command, params, NULL) < 0);
    assert_non_null(strstr(rig_error.text, message));
}

static void test_refuses_parameters(void **state)
{
    (void)state;
    struct rig r = two_links("{}");
    check_refused(&r, "route.add", "{}", "\"routes\" must be a list");
    check_refused(&r, "route.add",
                  "{'routes': [{'prefix': '1.0.0.0/8', 'via': '10.0.2.1'}, {'prefix': '10.0.0.1/8', 'via': '10.0.2.1'}]}",
                  "route 2 ('10.0.0.1/8'): \"prefix\"");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/33', 'via': '10.0.2.1'}]}", "\"prefix\" is '1.0.0.0/33'");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/8', 'via': '11.0.2.1'}]}", "no port's link");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/8', 'via': '10.0.2.1%x'}]}", "no port 'x'");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/8', 'via': '10.0.2.254'}]}", "router's own");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/8', 'via': []}]}", "must be 1 to 64");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/8'}]}", "one of \"via\", \"port\" and \"type\"");
    check_refused(&r, "route.add", "{'routes': [{'prefix': '1.0.0.0/8', 'type': 'x'}]}", "blackhole or unreachable");
    check_refused(&r, "route.remove", "{'routes': ['10.0.2.254/32']}", "router's own");
    check_refused(&r, "neighbour.add", "{'neighbours': [{'port': 'a', 'address': '10.0.1.2', 'mac': 'x'}]}", "station's address");
    check_refused(&r, "neighbour.add", "{'neighbours': [{'port': 'a', 'address': '10.0.1.254', 'mac': '02:00:00:00:00:03'}]}",
                  "somebody else's");
    json_t *list = NULL;
    rig_command(r.vn, "route.list", "{'from': '1.0.0.0/8'}", &list); // the first of the two above has not been added either
    assert_string_not_equal(json_string_value(json_object_get(json_array_get(json_object_get(list, "routes"), 0), "prefix")),
                            "1.0.0.0/8");
    json_decref(list);
    static const char *const ports[][2] = {
        {"{'addresses': ['10.0.2.1/24']}", "a route to 10.0.2.0/24 already"},
        {"{'addresses': ['10.0.5.0/24']}", "number of a network"},
        {"{'addresses': ['10.0.5.1']}", "as 10.0.0.1/24"},
        {"{'addresses': ['127.0.0.1/8']}", "as 10.0.0.1/24"},
        {"{'addresses': 'x'}", "must be a list"},
        {"{'mtu': 1000, 'addresses': ['fd00:5::1/64']}", "must be 1280 or more"},
        {"{'mtu': 9000}", "\"mtu\" must be a number"},
        {"{'mac': 'ff:ff:ff:ff:ff:ff'}", "station's address"},
        {"{'machine': {'addresses': ['10.0.5.1']}}", "\"mac\" is missing"},
        {"{'machine': {'mac': '02:00:00:00:00:01', 'addresses': ['10.0.5.1/24']}}", "'10.0.5.1/24' is no"},
    };
    for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
        assert_null(rig_try_port(r.vn, "c", ports[i][0]));
        assert_non_null(strstr(rig_error.text, ports[i][1]));
    }
    struct packet p = make_ip4(A, 1, &usual4);
    pass(&r, &p); // what was refused has taken nothing with it
    assert_int_equal(rig_discard(r.b), 1);
    finish(&r);
}

// A quota: a network cannot have all of the host's memory for its routes.
static void test_quota_of_routes(void **state)
{
    (void)state;
    struct rig r = two_links("{'table_mb': 1}");
    char *text = malloc(1 << 20);
    int result = 0;
    unsigned n = 0;
    for (; !result && n < 64; n++) {
        char *at = text + sprintf(text, "{'routes': [");
        for (unsigned i = 0; i < 1000; i++)
            at += sprintf(at, "%s{'prefix': '%u.%u.%u.0/24', 'via': '10.0.2.1'}", i ? "," : "", 100 + n % 20,
                          n / 20 * 100 + i / 250, i % 250);
        strcpy(at, "]}");
        result = rig_command(r.vn, "route.add", text, NULL);
    }
    assert_int_equal(result, -ENOSPC);
    assert_non_null(strstr(rig_error.text, "table_mb"));
    assert_true(n > 3);
    struct packet p = make_ip4(A, 1, &usual4);
    pass(&r, &p);
    assert_int_equal(rig_discard(r.b), 1);
    free(text);
    finish(&r);
}

static int start(void **state)
{
    (void)state;
    rig_start();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forwards_ip4),
        cmocka_unit_test(test_checksums_stay_right),
        cmocka_unit_test(test_forwards_ip6),
        cmocka_unit_test(test_mixed_burst),
        cmocka_unit_test(test_drops_ip4),
        cmocka_unit_test(test_options_go_along),
        cmocka_unit_test(test_tells_of_ip4),
        cmocka_unit_test(test_tells_nobody),
        cmocka_unit_test(test_errors_are_limited),
        cmocka_unit_test(test_answers_echo4),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_sums_what_was_left),
        cmocka_unit_test(test_long_segments),
        cmocka_unit_test(test_long_segments_wait),
        cmocka_unit_test(test_smallest_mtu),
        cmocka_unit_test(test_drops_ip6),
        cmocka_unit_test(test_answers_echo6),
        cmocka_unit_test(test_arp_answers),
        cmocka_unit_test(test_arp_resolves),
        cmocka_unit_test(test_error_behind_the_same_gateway),
        cmocka_unit_test(test_neighbours_age),
        cmocka_unit_test(test_scans_find_an_end),
        cmocka_unit_test(test_nd_answers),
        cmocka_unit_test(test_nd_resolves),
        cmocka_unit_test(test_machine_is_held_to_its_addresses),
        cmocka_unit_test(test_machines_are_answered_for),
        cmocka_unit_test(test_server),
        cmocka_unit_test(test_flows_stay_where_they_are),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_overlapping_networks),
        cmocka_unit_test(test_ports_come_and_go),
        cmocka_unit_test(test_no_buffers),
        cmocka_unit_test(test_refuses_parameters),
        cmocka_unit_test(test_quota_of_routes),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
