// What machines leave to be done: packets that are summed and cut, beside sums made byte by byte; and what makes no sense.
#include "ip_rig.h"

#include "router/offload.h"
#include "router/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BUFFERS 128
#define TCP 6
#define UDP 17

static struct rte_mempool *pool;

struct made { // a packet of a machine, as bytes
    unsigned l2, l3, l4;
    uint32_t len;
    uint8_t bytes[70000];
};

static struct made made;

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static uint32_t add(const uint8_t *bytes, uint32_t len)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < len; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    return sum;
}

static unsigned fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

// Whether the transport's sum is right (RFC 1071): with it all is 0xffff.
static bool is_summed(const uint8_t *frame, unsigned l2, unsigned l3, uint32_t len, bool is_ip6, unsigned protocol)
{
    const uint8_t *ip = frame + l2;
    uint32_t sum = is_ip6 ? add(ip + 8, 32) : add(ip + 12, 8);
    sum += protocol + (len - l2 - l3);
    return fold(sum + fold(add(frame + l2 + l3, len - l2 - l3))) == 0xffff;
}

// Headers without sums, payload by a generator; TCP has 12 bytes of options, and everything is last and first: FIN, PSH, CWR.
static void make(bool is_ip6, unsigned protocol, bool has_tag, uint32_t payload)
{
    uint8_t *at = made.bytes;
    made.l2 = has_tag ? 18 : 14;
    made.l3 = is_ip6 ? 40 : 24; // IPv4 with an option
    made.l4 = protocol == TCP ? 32 : 8;
    made.len = made.l2 + made.l3 + made.l4 + payload;
    memset(at, 0, made.len - payload);
    memcpy(at, "\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12);
    if (has_tag)
        memcpy(at + 12, "\x81\x00\x00\x07", 4);
    put16(at + made.l2 - 2, is_ip6 ? 0x86dd : 0x0800);
    uint8_t *ip = at + made.l2, *l4 = ip + made.l3;
    const uint32_t ip_len = made.l3 + made.l4 + payload;
    if (is_ip6) {
        ip[0] = 0x60;
        put16(ip + 4, (ip_len - 40) & 0xffff);
        ip[6] = (uint8_t)protocol;
        ip[7] = 64;
        memset(ip + 8, 0xfd, 32);
    } else {
        ip[0] = 0x46;
        put16(ip + 2, ip_len & 0xffff);
        put16(ip + 4, 0xfffe); // goes over its end
        ip[8] = 64;
        ip[9] = (uint8_t)protocol;
        memcpy(ip + 12, "\x0a\0\0\x01\x0a\0\0\x02\x01\x01\x01\x01", 12);
    }
    put16(l4, 1000);
    put16(l4 + 2, 7);
    if (protocol == TCP) {
        put16(l4 + 4, 0xffff); // the sequence number, too
        l4[12] = 8 << 4;
        l4[13] = 0x80 | 0x10 | 0x08 | 0x01;
        memset(l4 + 20, 1, 12);
    } else {
        put16(l4 + 4, (8 + payload) & 0xffff);
    }
    for (uint32_t i = 0; i < payload; i++)
        at[made.len - payload + i] = (uint8_t)(i * 2654435761u >> 13);
}

// Of as many buffers as it needs, with DPDK's flags of reception.
static struct rte_mbuf *received(uint64_t flags, unsigned segment)
{
    struct rte_mbuf *packet = rte_pktmbuf_alloc(pool), *last = packet;
    for (uint32_t at = 0; at < made.len;) {
        const uint32_t room = rte_pktmbuf_tailroom(last), len = made.len - at < room ? made.len - at : room;
        memcpy(rte_pktmbuf_mtod(last, void *), made.bytes + at, len);
        last->data_len = (uint16_t)len;
        at += len;
        if (at < made.len) {
            last = last->next = rte_pktmbuf_alloc(pool);
            packet->nb_segs++;
        }
    }
    packet->pkt_len = made.len;
    packet->ol_flags = flags;
    packet->tso_segsz = (uint16_t)segment;
    return packet;
}

#define SUM RTE_MBUF_F_RX_L4_CKSUM_NONE
#define LONG (SUM | RTE_MBUF_F_RX_LRO)

static void check_frame(const struct rte_mbuf *frame, uint32_t at, unsigned number, bool is_ip6, bool is_last)
{
    const uint8_t *bytes = rte_pktmbuf_mtod(frame, const uint8_t *), *ip = bytes + made.l2, *l4 = ip + made.l3;
    const uint32_t head = made.l2 + made.l3 + made.l4;
    assert_int_equal(frame->nb_segs, 1);
    assert_int_equal(frame->data_len, frame->pkt_len);
    assert_false(offload_is_pending(frame));
    assert_memory_equal(bytes, made.bytes, made.l2);
    assert_memory_equal(bytes + head, made.bytes + head + at, frame->data_len - head);
    assert_true(is_summed(bytes, made.l2, made.l3, frame->data_len, is_ip6, TCP));
    if (is_ip6) {
        assert_int_equal(get16(ip + 4), frame->data_len - made.l2 - 40);
    } else {
        assert_int_equal(get16(ip + 2), frame->data_len - made.l2);
        assert_int_equal(get16(ip + 4), (0xfffe + number) & 0xffff);
        assert_int_equal(fold(add(ip, made.l3)), 0xffff);
    }
    assert_int_equal(get32(l4 + 4), 0xffff0000u + at);
    assert_int_equal(l4[13], 0x10 | (at ? 0 : 0x80) | (is_last ? 0x09 : 0));
    assert_memory_equal(l4 + 20, made.bytes + made.l2 + made.l3 + 20, 12);
}

static void test_cuts(void **state)
{
    (void)state;
    static const uint32_t payloads[] = {1449, 2896, 2897, 4000, 65000};
    for (unsigned i = 0; i < 4 * sizeof(payloads) / sizeof(payloads[0]); i++) {
        const bool is_ip6 = i & 1;
        const uint32_t payload = payloads[i / 4];
        make(is_ip6, TCP, i & 2, payload);
        struct rte_mbuf *packet = received(LONG, 1448);
        assert_true(offload_take(packet));
        assert_int_equal(offload_needs(packet), is_ip6 ? OFFLOAD_TSO6 : OFFLOAD_TSO4);
        assert_int_equal(offload_frame_bytes(packet), made.l2 + made.l3 + made.l4 + 1448);
        struct offload_cut cut = offload_cut_begin(packet);
        uint32_t at = 0;
        for (unsigned n = 0; !offload_cut_is_done(&cut); n++) {
            struct rte_mbuf *frame = offload_cut_next(&cut, pool);
            assert_non_null(frame);
            const uint32_t len = frame->pkt_len - made.l2 - made.l3 - made.l4;
            check_frame(frame, at, n, is_ip6, at + len == payload);
            assert_true(len == 1448 || at + len == payload);
            at += len;
            rte_pktmbuf_free(frame);
        }
        assert_int_equal(at, payload);
        rte_pktmbuf_free(packet);
    }
    assert_int_equal(rte_mempool_avail_count(pool), BUFFERS);
}

static void test_sums(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        const bool is_ip6 = i & 1;
        const unsigned protocol = i & 2 ? UDP : TCP;
        make(is_ip6, protocol, i & 4, i & 8 ? 3 : 1200);
        const uint32_t len = made.len;
        memset(made.bytes + len, 0xee, 30);
        made.len += i & 8 ? 30 : 0; // padded: not of what is summed
        struct rte_mbuf *packet = received(SUM, 0);
        assert_true(offload_take(packet));
        assert_int_equal(offload_needs(packet), OFFLOAD_CHECKSUM);
        assert_int_equal(offload_frame_bytes(packet), made.len);
        offload_checksum(packet);
        assert_false(offload_is_pending(packet));
        assert_true(is_summed(rte_pktmbuf_mtod(packet, const uint8_t *), made.l2, made.l3, len, is_ip6, protocol));
        rte_pktmbuf_free(packet);
    }
}

// A sum of UDP that comes out as zero is sent as 0xffff, since zero is none (RFC 768).
static void test_no_sum_of_zero(void **state)
{
    (void)state;
    make(false, UDP, false, 2);
    uint8_t *at = made.bytes + made.len - 2;
    put16(at, 0);
    const uint32_t pseudo = add(made.bytes + made.l2 + 12, 8) + UDP + 10;
    put16(at, 0xffff - fold(pseudo + add(made.bytes + made.l2 + made.l3, 10)));
    struct rte_mbuf *packet = received(SUM, 0);
    assert_true(offload_take(packet));
    offload_checksum(packet);
    assert_int_equal(get16(rte_pktmbuf_mtod(packet, const uint8_t *) + made.l2 + made.l3 + 6), 0xffff);
    rte_pktmbuf_free(packet);
}

static void expect(bool is_taken, uint64_t flags, unsigned segment, unsigned needs)
{
    struct rte_mbuf *packet = received(flags, segment);
    assert_int_equal(offload_take(packet), is_taken);
    if (is_taken)
        assert_int_equal(offload_needs(packet), needs);
    rte_pktmbuf_free(packet);
}

static void test_nonsense(void **state)
{
    (void)state;
    make(false, TCP, false, 1448);
    expect(true, 0, 0, 0);
    expect(true, RTE_MBUF_F_RX_L4_CKSUM_GOOD, 0, 0);
    expect(true, LONG, 1448, OFFLOAD_CHECKSUM); // in one piece: it need not be cut
    expect(true, LONG, 1447, OFFLOAD_TSO4);
    expect(false, LONG, 0, 0);
    expect(false, LONG, 255, 0); // pieces too small to be worth everybody's time
    made.len = made.l2 + made.l3 + made.l4 - 1;
    expect(false, SUM, 0, 0);
    made.len = 13;
    expect(false, SUM, 0, 0);
    make(false, TCP, false, 3000);
    made.bytes[made.l2 + made.l3 + 12] = 4 << 4; // a header of TCP shorter than there are
    expect(false, LONG, 1448, 0);
    make(false, TCP, false, 3000);
    put16(made.bytes + made.l2 + 6, 0x2000); // a fragment
    expect(false, LONG, 1448, 0);
    make(false, UDP, false, 3000);
    expect(false, LONG, 1448, 0);
    make(true, 132, false, 1000); // SCTP
    expect(false, SUM, 0, 0);
    make(true, TCP, false, 1000);
    put16(made.bytes + made.l2 - 2, 0x88b5);
    expect(false, SUM, 0, 0);
    assert_int_equal(rte_mempool_avail_count(pool), BUFFERS);
}

static void test_no_buffers(void **state)
{
    (void)state;
    struct rte_mbuf *others[BUFFERS];
    make(false, TCP, false, 30000);
    struct rte_mbuf *packet = received(LONG, 1448);
    assert_true(offload_take(packet));
    const unsigned n = BUFFERS - packet->nb_segs - 2;
    assert_int_equal(rte_pktmbuf_alloc_bulk(pool, others, n), 0);
    struct offload_cut cut = offload_cut_begin(packet);
    struct rte_mbuf *first = offload_cut_next(&cut, pool), *second = offload_cut_next(&cut, pool);
    assert_true(first && second && !offload_cut_next(&cut, pool) && !offload_cut_is_done(&cut));
    rte_pktmbuf_free(first);
    struct rte_mbuf *third = offload_cut_next(&cut, pool); // and it goes on
    assert_non_null(third);
    check_frame(third, 2896, 2, false, false);
    rte_pktmbuf_free(second);
    rte_pktmbuf_free(third);
    rte_pktmbuf_free(packet);
    rte_pktmbuf_free_bulk(others, n);
    assert_int_equal(rte_mempool_avail_count(pool), BUFFERS);
}

static int start(void **state)
{
    (void)state;
    rig_start();
    return pool_create(1, BUFFERS, PORT_FRAME_MAX, &pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),     cmocka_unit_test(test_sums),       cmocka_unit_test(test_no_sum_of_zero),
        cmocka_unit_test(test_nonsense), cmocka_unit_test(test_no_buffers),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
