// Virtual ARP: a table of who has which address, and the answers it gives to ARP and Neighbour Discovery.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/ethernet/varp.h"
#include "router/ip/header.h"

#define KEY 7

static struct varp_entry entry_of(const char *address, uint8_t last, uint16_t port)
{
    struct ip_prefix parsed;
    assert_int_equal(ip_parse_address(address, &parsed), 0);
    return (struct varp_entry){.family = parsed.family, .address = parsed.key, .mac = {2, 0, 0, 0, 0, last}, .port = port};
}

static struct varp *two(void)
{
    const struct varp_entry entries[] = {entry_of("10.0.0.2", 2, 1), entry_of("fd00::2", 2, 1)};
    struct varp *table = varp_create(entries, 2, KEY);
    assert_non_null(table);
    return table;
}

static void test_table(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct varp_entry entries[N + 1];
    for (unsigned i = 0; i < N; i++) {
        entries[i] = entry_of(i & 1 ? "10.0.0.0" : "fd00::", (uint8_t)i, (uint16_t)i);
        entries[i].address += i & 1 ? ip4_key(i) : i;
    }
    entries[N] = entries[0];
    entries[N].port = 9999; // the first one counts
    struct varp *table = varp_create(entries, N + 1, KEY);
    assert_int_equal(table->n, N);
    for (unsigned i = 0; i < N; i++) {
        const struct varp_entry *found = varp_find(table, entries[i].family, entries[i].address, KEY);
        assert_true(found && found->port == i);
        assert_null(varp_find(table, entries[i].family == IP4 ? IP6 : IP4, entries[i].address, KEY));
    }
    assert_null(varp_find(table, IP4, ip4_key(1), KEY));
    varp_destroy(table);
    table = varp_create(NULL, 0, KEY);
    assert_null(varp_find(table, IP4, 0, KEY));
    varp_destroy(table);
}

struct text {
    uint8_t bytes[256];
    size_t len;
};

static struct text bytes_of(const char *hex)
{
    struct text t = {0};
    while (*hex) {
        const char digits[3] = {hex[0], hex[1], 0};
        if (*hex != ' ')
            t.bytes[t.len++] = (uint8_t)strtoul(digits, NULL, 16);
        hex += *hex == ' ' ? 1 : 2;
    }
    return t;
}

static void check(const struct varp *table, struct text asked, const char *want)
{
    const struct text before = asked, answer = bytes_of(want);
    const size_t len = varp_answer(table, KEY, asked.bytes, asked.len, sizeof(asked.bytes));
    assert_int_equal(len, answer.len);
    assert_memory_equal(asked.bytes, len ? answer.bytes : before.bytes, len ? len : before.len);
}

#define ARP_HEAD "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 "

static void test_arp(void **state)
{
    (void)state;
    struct varp *table = two();
    check(table, bytes_of(ARP_HEAD "0a000001 000000000000 0a000002"),
          "020000000001 020000000002 0806 0001 0800 06 04 0002 020000000002 0a000002 020000000001 0a000001");
    check(table, bytes_of(ARP_HEAD "0a000001 000000000000 0a000003"), ""); // nobody known
    check(table, bytes_of(ARP_HEAD "00000000 000000000000 0a000002"), ""); // is it free?
    check(table, bytes_of(ARP_HEAD "0a000002 000000000000 0a000002"), ""); // he tells of himself
    check(table, bytes_of(ARP_HEAD "0a000001 000000000000 0a0000"), "");   // too short
    check(table, bytes_of("ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 0a000001 000000000000 0a000002"), "");
    check(table, bytes_of("ffffffffffff 020000000002 0806 0001 0800 06 04 0001 020000000002 0a000009 000000000000 0a000002"), "");
    varp_destroy(table);
}

static struct text solicitation(const char *source, const char *target, uint8_t hops, const char *option)
{
    struct text t = bytes_of("3333ff000002 020000000001 86dd 60000000 0018 3a ff");
    const size_t at = t.len;
    struct text parts[] = {bytes_of(source), bytes_of("ff0200000000000000000001ff000002 87 00 0000 00000000"), bytes_of(target),
                           bytes_of(option)};
    for (unsigned i = 0; i < 4; i++) {
        memcpy(t.bytes + t.len, parts[i].bytes, parts[i].len);
        t.len += parts[i].len;
    }
    struct ip6_header *h = (void *)(t.bytes + 14);
    uint8_t *icmp = (uint8_t *)(h + 1);
    h->hop_limit = hops;
    h->payload_length = htobe16((uint16_t)(t.len - at - 32));
    const uint16_t checksum = (uint16_t)~ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, icmp, be16toh(h->payload_length));
    memcpy(icmp + 2, &checksum, 2);
    return t;
}

#define ONE6 "fd000000000000000000000000000001"
#define TWO6 "fd000000000000000000000000000002"

static void test_neighbour_discovery(void **state)
{
    (void)state;
    struct varp *table = two();
    static const char *const options[] = {"", "01 01 020000000001"};
    for (unsigned i = 0; i < 2; i++) {
        struct text t = solicitation(ONE6, TWO6, 255, options[i]);
        const size_t len = varp_answer(table, KEY, t.bytes, t.len, sizeof(t.bytes));
        const struct text head = bytes_of("020000000001 020000000002 86dd 60000000 0020 3a ff" TWO6 ONE6 "88 00"),
                          rest = bytes_of("60000000" TWO6 "02 01 020000000002");
        const struct ip6_header *h = (const void *)(t.bytes + 14);
        assert_int_equal(len, 86);
        assert_memory_equal(t.bytes, head.bytes, head.len);
        assert_memory_equal(t.bytes + head.len + 2, rest.bytes, rest.len);
        assert_int_equal(ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, h + 1, 32), 0xffff);
    }
    check(table, solicitation(ONE6, ONE6, 255, ""), "");
    check(table, solicitation(ONE6, TWO6, 254, ""), "");                               // it came from beyond the link
    check(table, solicitation("00000000000000000000000000000000", TWO6, 255, ""), ""); // is it free?
    struct text t = solicitation(ONE6, TWO6, 255, "");
    t.bytes[70] ^= 1;
    check(table, t, ""); // the checksum
    t = solicitation(ONE6, TWO6, 255, "");
    t.len--;
    check(table, t, "");
    t = solicitation(ONE6, TWO6, 255, "");
    assert_int_equal(varp_answer(table, KEY, t.bytes, t.len, 85), 0); // no room for the option
    varp_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_neighbour_discovery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
