// The router's logic without packets: the table of addresses beside a plain model, what a port may send, deficit round robin.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/drr.h"
#include "router/ethernet/guard.h"
#include "router/ethernet/mac_table.h"

#define AGE_S 10

// ---- addresses ----

static void test_table_learns(void **state)
{
    (void)state;
    struct mac_table *table = mac_table_create(16, 1, AGE_S);
    uint16_t before;
    assert_int_equal(mac_table_find(table, 5, 0), MAC_NOWHERE);
    assert_int_equal(mac_table_learn(table, 5, 3, 100, true, &before), MAC_NEW);
    assert_int_equal(mac_table_find(table, 5, 100 + AGE_S), 3);
    assert_int_equal(mac_table_find(table, 5, 101 + AGE_S), MAC_NOWHERE);
    assert_int_equal(mac_table_learn(table, 5, 3, 105, false, &before), MAC_KNOWN);
    assert_int_equal(mac_table_find(table, 5, 101 + AGE_S), 3);
    assert_int_equal(mac_table_learn(table, 5, 4, 106, false, &before), MAC_FULL);
    assert_int_equal(mac_table_learn(table, 5, 4, 106, true, &before), MAC_MOVED);
    assert_int_equal(before, 3);
    assert_int_equal(mac_table_find(table, 5, 106), 4);
    mac_table_forget(table, 4);
    assert_int_equal(mac_table_find(table, 5, 106), MAC_NOWHERE);
    mac_table_destroy(table);
}

static void test_table_pins(void **state)
{
    (void)state;
    struct mac_table *table = mac_table_create(1, 1, AGE_S);
    uint32_t counts[2];
    uint16_t before;
    for (uint64_t mac = 100; mac < 200; mac++)
        mac_table_learn(table, mac, 1, 0, true, &before);
    assert_true(mac_table_pin(table, 7, 0)); // one that was learned makes room
    assert_int_equal(mac_table_learn(table, 7, 1, 0, true, &before), MAC_PINNED);
    assert_int_equal(mac_table_learn(table, 7, 0, 0, true, &before), MAC_KNOWN);
    mac_table_sweep(table, 1000000, counts, 2);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 0);
    assert_int_equal(mac_table_find(table, 7, 2000000), 0);
    mac_table_destroy(table);
}

// Whatever was asked, the table says what an array of all addresses says, or that it does not know.
static void test_table_like_model(void **state)
{
    (void)state;
    enum { MACS = 512 };
    uint16_t model[MACS];
    uint32_t seen[MACS] = {0}, now = 0;
    unsigned unknown = 0, known = 0;
    uint16_t before;
    struct mac_table *table = mac_table_create(MACS, 12345, AGE_S);
    memset(model, 0xff, sizeof(model));
    srand(1);
    for (unsigned i = 0; i < 200000; i++) {
        const unsigned n = (unsigned)rand() % (MACS - 1) + 1;
        const uint64_t mac = (uint64_t)n * 0x010000001u;
        now += rand() % 400 == 0;
        if (rand() % 2) {
            const uint16_t port = (uint16_t)(rand() % 8);
            if (mac_table_learn(table, mac, port, now, true, &before) != MAC_FULL) {
                model[n] = port;
                seen[n] = now;
            }
            continue;
        }
        const uint16_t want = model[n] != MAC_NOWHERE && now - seen[n] <= AGE_S ? model[n] : MAC_NOWHERE;
        const uint16_t got = mac_table_find(table, mac, now);
        assert_true(got == want);
        unknown += got == MAC_NOWHERE;
        known += got != MAC_NOWHERE;
    }
    assert_true(known > 10 * unknown);
    mac_table_destroy(table);
}

// ---- what a port may send ----

static const struct guard own = {
    .mac = {2, 0, 0, 0, 0, 1},
    .n_ip4 = 1,
    .n_ip6 = 1,
    .ip4 = {{10, 0, 0, 1}},
    .ip6 = {{0xfd, [15] = 1}},
};

struct text {
    uint8_t bytes[256];
    size_t len;
};

static void add(struct text *t, const char *hex)
{
    for (; *hex; hex += hex[2] == ' ' ? 3 : 2) {
        const char digits[3] = {hex[0], hex[1], 0};
        t->bytes[t->len++] = (uint8_t)strtoul(digits, NULL, 16);
    }
}

#define HEAD "ffffffffffff 020000000001 "

static enum drop check(const char *hex)
{
    struct text t = {0};
    char plain[600];
    size_t n = 0;
    for (; *hex; hex++)
        if (*hex != ' ')
            plain[n++] = *hex;
    plain[n] = 0;
    add(&t, plain);
    return guard_check(&own, t.bytes, t.len, t.len);
}

static void test_guard_ethernet(void **state)
{
    (void)state;
    assert_int_equal(check("ffffffffffff 020000000001"), DROP_MALFORMED);
    assert_int_equal(check(HEAD "88b5"), DROP_NONE);
    assert_int_equal(check("ffffffffffff 020000000002 88b5"), DROP_SPOOFED);
    assert_int_equal(check(HEAD "8100 0001 88b5"), DROP_NONE);
    assert_int_equal(check(HEAD "8100 0001"), DROP_MALFORMED);
    assert_int_equal(check(HEAD "88a8 0001 8100 0001 88b5"), DROP_NONE);
    assert_int_equal(check(HEAD "88a8 0001 8100 0001 8100 0001 88b5"), DROP_MALFORMED);
}

#define ARP "0806 0001 0800 06 04 0001 "

static void test_guard_arp(void **state)
{
    (void)state;
    assert_int_equal(check(HEAD ARP "020000000001 0a000001 000000000000 0a000002"), DROP_NONE);
    assert_int_equal(check(HEAD ARP "020000000001 00000000 000000000000 0a000001"), DROP_NONE);
    assert_int_equal(check(HEAD ARP "020000000001 0a000002 000000000000 0a000002"), DROP_SPOOFED);
    assert_int_equal(check(HEAD ARP "020000000002 0a000001 000000000000 0a000002"), DROP_SPOOFED);
    assert_int_equal(check(HEAD ARP "020000000001 0a000001 000000000000 0a0000"), DROP_MALFORMED);
    assert_int_equal(check(HEAD "8100 0001 " ARP "020000000001 0a000002 000000000000 0a000002"), DROP_SPOOFED);
}

#define IP4 "0800 45 00 0014 0000 0000 40 11 0000 "

static void test_guard_ip4(void **state)
{
    (void)state;
    assert_int_equal(check(HEAD IP4 "0a000001 0a000002"), DROP_NONE);
    assert_int_equal(check(HEAD IP4 "0a000003 0a000002"), DROP_SPOOFED);
    assert_int_equal(check(HEAD IP4 "00000000 ffffffff"), DROP_NONE);
    assert_int_equal(check(HEAD IP4 "00000000 0a000002"), DROP_SPOOFED);
    assert_int_equal(check(HEAD IP4 "0a000001 0a0000"), DROP_MALFORMED);
    assert_int_equal(check(HEAD "0800 65 00 0014 0000 0000 40 11 0000 0a000001 0a000002"), DROP_MALFORMED);
}

#define ALL_NODES "ff020000000000000000000000000001 "
#define OWN6 "fd000000000000000000000000000001 "
#define OTHER6 "fd000000000000000000000000000002 "
#define LINK6 "fe80000000000000000000fffe000001 "
#define NONE6 "00000000000000000000000000000000 "

static void test_guard_ip6(void **state)
{
    (void)state;
    assert_int_equal(check(HEAD "86dd 60000000 0000 3b 40 " OWN6 ALL_NODES), DROP_NONE);
    assert_int_equal(check(HEAD "86dd 60000000 0000 3b 40 " LINK6 ALL_NODES), DROP_NONE);
    assert_int_equal(check(HEAD "86dd 60000000 0000 3b 40 " NONE6 ALL_NODES), DROP_NONE);
    assert_int_equal(check(HEAD "86dd 60000000 0000 3b 40 " NONE6 OTHER6), DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0000 3b 40 " OTHER6 ALL_NODES), DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0001 3b 40 " OWN6 ALL_NODES), DROP_MALFORMED);
}

#define ADVERT "88 00 0000 60000000 "

static void test_guard_neighbour_discovery(void **state)
{
    (void)state;
    // an advertisement: of its own, of another's address, with another's MAC
    assert_int_equal(check(HEAD "86dd 60000000 0020 3a ff " OWN6 ALL_NODES ADVERT OWN6 "02 01 020000000001"), DROP_NONE);
    assert_int_equal(check(HEAD "86dd 60000000 0020 3a ff " OWN6 ALL_NODES ADVERT OTHER6 "02 01 020000000001"), DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0020 3a ff " OWN6 ALL_NODES ADVERT OWN6 "02 01 020000000002"), DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0020 3a ff " OWN6 ALL_NODES ADVERT OWN6 "02 00 020000000001"), DROP_MALFORMED);
    struct guard router = {.mac = {2, 0, 0, 0, 0, 1}, .is_router = true};
    uint8_t advert[] = {0x33, 0x33, 0,    0,    0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0,    24,
                        58,   255,  0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0xff, 0xfe, 0, 0, 1, 0xff, 2,
                        0,    0,    0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0,    1,    134,  0, 0, 0, 64,   0,
                        7,    8,    0,    0,    0, 0, 0, 0, 0, 0, 1, 1, 2,    0,    0,    0, 0, 1};
    assert_int_equal(guard_check(&router, advert, sizeof(advert), sizeof(advert)), DROP_NONE);
    advert[sizeof(advert) - 1] = 2; // somebody else's MAC address
    assert_int_equal(guard_check(&router, advert, sizeof(advert), sizeof(advert)), DROP_SPOOFED);
    router.is_router = false;
    assert_int_equal(guard_check(&router, advert, sizeof(advert), sizeof(advert)), DROP_SPOOFED);
    // a router's advertisement; the same behind a header of options, and in a fragment
    assert_int_equal(check(HEAD "86dd 60000000 0010 3a ff " OWN6 ALL_NODES "86 00 0000 40000000 0000000000000000"), DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0010 00 ff " OWN6 ALL_NODES "3a 00 000000000000 86 00 0000 40000000"), DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0010 2c ff " OWN6 ALL_NODES "3a 00 0001 00000001 86 00 0000 40000000"),
                     DROP_SPOOFED);
    assert_int_equal(check(HEAD "86dd 60000000 0010 2c ff " OWN6 ALL_NODES "3c 00 0001 00000001 3a 00 000000000000"),
                     DROP_MALFORMED);
    assert_int_equal(check(HEAD "86dd 60000000 0010 2c ff " OWN6 ALL_NODES "11 00 0001 00000001 0000000000000000"), DROP_NONE);
    // an echo request
    assert_int_equal(check(HEAD "86dd 60000000 0008 3a ff " OWN6 ALL_NODES "80 00 0000 00000000"), DROP_NONE);
}

// ---- turns ----

// Two flows that always have something to do, one with bursts ten times as dear, have cycles by weight.
static void test_turns_by_weight(void **state)
{
    (void)state;
    struct drr flows[2] = {{.weight = 100}, {.weight = 300}};
    static const uint64_t cost[2] = {5000, 500};
    uint64_t had[2] = {0};
    for (unsigned turn = 0; turn < 1000; turn++)
        for (unsigned i = 0; i < 2; i++) {
            bool may = drr_begin(&flows[i], 2000);
            while (may) {
                had[i] += cost[i];
                may = drr_charge(&flows[i], cost[i], 1000000);
            }
        }
    assert_true(had[1] > 3 * had[0] - 20000 && had[1] < 3 * had[0] + 20000);
}

static void test_turns_debt(void **state)
{
    (void)state;
    struct drr flow = {.weight = 100};
    assert_true(drr_begin(&flow, 1000));
    assert_false(drr_charge(&flow, 3500, 1000000));
    assert_false(drr_begin(&flow, 1000)); // a debt is not forgiven
    assert_false(drr_begin(&flow, 1000));
    assert_true(drr_begin(&flow, 1000));
    assert_int_equal(flow.deficit_cycles, 500);
    assert_true(drr_begin(&flow, 1000)); // and nothing is saved up
    assert_int_equal(flow.deficit_cycles, 1000);
    assert_false(drr_charge(&flow, 1u << 31, 2000)); // the host took the CPU away
    assert_int_equal(flow.deficit_cycles, -1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_learns),     cmocka_unit_test(test_table_pins),
        cmocka_unit_test(test_table_like_model), cmocka_unit_test(test_guard_ethernet),
        cmocka_unit_test(test_guard_arp),        cmocka_unit_test(test_guard_ip4),
        cmocka_unit_test(test_guard_ip6),        cmocka_unit_test(test_guard_neighbour_discovery),
        cmocka_unit_test(test_turns_by_weight),  cmocka_unit_test(test_turns_debt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
