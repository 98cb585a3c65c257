// What routing daemons tell: messages of rtnetlink read, candidates of several origins beside a model that is searched from one end
// to the other, everything told again, replaced routes that are never away, nexthop objects.
#include <errno.h>
#include <linux/nexthop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "router/ip/fpm.h"
#include "router/ip/learn.h"

static struct fib fib;
static struct candidates *candidates;
static struct learn kernel, fpm;

static void synchronize(void *arg)
{
    (void)arg;
}

// Device 9 is the namespace's own, 0 none; others are the ports of their number.
static enum target_kind resolve(void *arg, const struct netlink_hop *in, struct hop *hop)
{
    (void)arg;
    if (!in->device || in->device == 9)
        return in->device ? TARGET_PUNT : TARGET_NONE;
    *hop = (struct hop){.family = in->family, .port = (uint16_t)in->device, .gateway = in->gateway};
    return in->family ? TARGET_VIA : TARGET_LINK;
}

static void begin(size_t bytes_most)
{
    const struct fib_config config = {.synchronize = synchronize, .bytes_most = bytes_most, .direct_at = 8192};
    const struct learn_env env = {.resolve = resolve};
    assert_int_equal(fib_init(&fib, &config), 0);
    candidates = candidates_create(&fib);
    assert_non_null(candidates);
    learn_init(&kernel, candidates, ORIGIN_KERNEL, &env);
    learn_init(&fpm, candidates, ORIGIN_FPM, &env);
}

static void end(void)
{
    learn_fini(&kernel);
    learn_fini(&fpm);
    candidates_destroy(candidates);
    fib_settle(&fib);
    fib_fini(&fib);
}

// ---- messages, as the kernel and zebra write them ----

static rib_key key4(unsigned a, unsigned b, unsigned c, unsigned d)
{
    return ip4_key(a << 24 | b << 16 | c << 8 | d);
}

static void put_key(struct netlink_writer *w, unsigned attribute, rib_key key, size_t len)
{
    uint8_t bytes[16];
    ip6_bytes(key, bytes);
    netlink_put(w, attribute, bytes, len);
}

static void begin_route(struct netlink_writer *w, bool adds, rib_key key, unsigned len, unsigned type)
{
    const struct rtmsg h = {.rtm_family = AF_INET,
                            .rtm_dst_len = (uint8_t)len,
                            .rtm_table = RT_TABLE_MAIN,
                            .rtm_protocol = RTPROT_BGP,
                            .rtm_type = (uint8_t)type};
    netlink_begin(w, adds ? RTM_NEWROUTE : RTM_DELROUTE, 0, &h, sizeof(h));
    put_key(w, RTA_DST, key, 4);
}

static void tell(struct learn *l, const struct netlink_writer *w, bool is_late)
{
    const uint8_t *at = w->bytes;
    size_t len = w->len;
    struct netlink_message m;
    assert_int_equal(netlink_read(&at, &len, &m), 0);
    assert_int_equal(netlink_read(&at, &len, &m), -ENODATA);
    learn_message(l, &m, is_late);
}

static void tell_route(struct learn *l, bool adds, rib_key key, unsigned len, unsigned gateway, uint32_t metric, bool is_late)
{
    struct netlink_writer w;
    const uint32_t device = 1;
    begin_route(&w, adds, key, len, RTN_UNICAST);
    put_key(&w, RTA_GATEWAY, key4(10, 0, 0, gateway), 4);
    netlink_put(&w, RTA_OIF, &device, sizeof(device));
    netlink_put(&w, RTA_PRIORITY, &metric, sizeof(metric));
    tell(l, &w, is_late);
}

// The last byte of the gateway that a prefix leads to; 0: there is no route; 1000: none by a single gateway.
static unsigned gateway_of(rib_key key, unsigned len)
{
    struct route route;
    if (!fib_get(&fib, IP4, key, len, &route))
        return 0;
    return route.kind == TARGET_VIA && route.n_hops == 1 ? (unsigned)(route.hops[0].gateway >> 96) & 255 : 1000;
}

// ---- origins and metrics ----

static void test_first_origin_lowest_metric(void **state)
{
    (void)state;
    const rib_key key = key4(20, 0, 0, 0);
    begin(1 << 20);
    tell_route(&kernel, true, key, 8, 1, 20, false);
    assert_int_equal(gateway_of(key, 8), 1);
    tell_route(&kernel, true, key, 8, 2, 10, false);
    assert_int_equal(gateway_of(key, 8), 2);
    tell_route(&fpm, true, key, 8, 3, 99, false);
    assert_int_equal(gateway_of(key, 8), 3);
    const struct candidate_key control = {.origin = ORIGIN_CONTROL, .family = IP4, .len = 8, .key = key};
    const struct route blackhole = {.kind = TARGET_BLACKHOLE};
    assert_int_equal(candidates_set(candidates, &control, &(struct candidate_told){0}, &blackhole), 0);
    assert_int_equal(gateway_of(key, 8), 1000);
    assert_int_equal(candidates_remove(candidates, &control), 0);
    assert_int_equal(gateway_of(key, 8), 3);
    tell_route(&fpm, false, key, 8, 3, 99, false);
    learn_settle(&fpm);
    assert_int_equal(gateway_of(key, 8), 2);
    tell_route(&kernel, false, key, 8, 2, 10, false);
    assert_int_equal(gateway_of(key, 8), 1);
    tell_route(&kernel, false, key, 8, 1, 20, false);
    assert_int_equal(gateway_of(key, 8), 0);
    end();
}

// ---- everything told again ----

// Routes that are told again are never away, neither while nobody tells anything; others go at the end.
static void test_stale_routes(void **state)
{
    (void)state;
    begin(1 << 20);
    for (unsigned i = 0; i < 100; i++)
        tell_route(&fpm, true, key4(20, i, 0, 0), 16, 1, 0, false);
    learn_begin(&fpm, false); // the connection is gone
    learn_begin(&fpm, false); // and there is a new one
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(gateway_of(key4(20, i, 0, 0), 16), 1);
    for (unsigned i = 0; i < 100; i += 2)
        tell_route(&fpm, true, key4(20, i, 0, 0), 16, i % 4 ? 2 : 1, 0, false);
    learn_settle(&fpm);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(gateway_of(key4(20, i, 0, 0), 16), i % 2 || i % 4 == 0 ? 1 : 2);
    assert_int_equal(learn_end(&fpm), 50);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(gateway_of(key4(20, i, 0, 0), 16), i % 2 ? 0 : i % 4 ? 2 : 1);
    end();
}

// zebra's module replaces a route by taking it away and adding it: in between it is there.
static void test_replaced_is_never_away(void **state)
{
    (void)state;
    const rib_key key = key4(20, 0, 0, 0);
    begin(1 << 20);
    tell_route(&fpm, true, key, 8, 1, 0, false);
    tell_route(&fpm, false, key, 8, 1, 0, false);
    assert_int_equal(gateway_of(key, 8), 1);
    tell_route(&fpm, true, key, 8, 2, 0, false);
    assert_int_equal(gateway_of(key, 8), 2);
    learn_settle(&fpm);
    assert_int_equal(gateway_of(key, 8), 2);
    tell_route(&fpm, false, key, 8, 2, 0, false);
    learn_settle(&fpm);
    assert_int_equal(gateway_of(key, 8), 0);
    end();
}

// While the kernel's table is being told events are newer than what is told late.
static void test_events_count_more(void **state)
{
    (void)state;
    const rib_key stays = key4(20, 0, 0, 0), goes = key4(21, 0, 0, 0), unknown = key4(22, 0, 0, 0), silent = key4(23, 0, 0, 0);
    begin(1 << 20);
    tell_route(&kernel, true, stays, 8, 1, 0, false);
    tell_route(&kernel, true, goes, 8, 1, 0, false);
    tell_route(&kernel, true, silent, 8, 1, 0, false);
    learn_begin(&kernel, true);
    tell_route(&kernel, true, stays, 8, 2, 0, false);
    tell_route(&kernel, false, goes, 8, 1, 0, false);
    tell_route(&kernel, false, unknown, 8, 1, 0, false); // it was lost that it came
    tell_route(&kernel, true, stays, 8, 1, 0, true);
    tell_route(&kernel, true, goes, 8, 1, 0, true);
    tell_route(&kernel, true, unknown, 8, 1, 0, true);
    assert_int_equal(gateway_of(stays, 8), 2);
    assert_int_equal(gateway_of(goes, 8), 0);
    assert_int_equal(gateway_of(unknown, 8), 0);
    assert_int_equal(gateway_of(silent, 8), 1);
    assert_int_equal(learn_end(&kernel), 1);
    assert_int_equal(gateway_of(stays, 8), 2);
    assert_int_equal(gateway_of(silent, 8), 0);
    assert_int_equal(candidates_count(candidates, ORIGIN_KERNEL), 1);
    tell_route(&kernel, true, goes, 8, 3, 0, false); // it may come again
    assert_int_equal(gateway_of(goes, 8), 3);
    end();
}

// ---- nexthop objects ----

static void tell_object(struct learn *l, bool adds, uint32_t id, unsigned gateway)
{
    struct netlink_writer w;
    const struct nhmsg h = {.nh_family = AF_INET};
    const uint32_t device = gateway == 9 ? 9 : 1;
    netlink_begin(&w, adds ? RTM_NEWNEXTHOP : RTM_DELNEXTHOP, 0, &h, sizeof(h));
    netlink_put(&w, NHA_ID, &id, sizeof(id));
    if (adds) {
        netlink_put(&w, NHA_OIF, &device, sizeof(device));
        put_key(&w, NHA_GATEWAY, key4(10, 0, 0, gateway), 4);
    }
    tell(l, &w, false);
}

static void tell_group(struct learn *l, uint32_t id, uint32_t first, uint32_t second)
{
    struct netlink_writer w;
    const struct nhmsg h = {.nh_family = AF_UNSPEC};
    const struct nexthop_grp members[2] = {{.id = first}, {.id = second}};
    netlink_begin(&w, RTM_NEWNEXTHOP, 0, &h, sizeof(h));
    netlink_put(&w, NHA_ID, &id, sizeof(id));
    netlink_put(&w, NHA_GROUP, members, sizeof(members));
    tell(l, &w, false);
}

static void tell_route_by(struct learn *l, rib_key key, uint32_t id)
{
    struct netlink_writer w;
    begin_route(&w, true, key, 16, RTN_UNICAST);
    netlink_put(&w, RTA_NH_ID, &id, sizeof(id));
    tell(l, &w, false);
}

static void test_nexthop_objects(void **state)
{
    (void)state;
    const rib_key one = key4(20, 1, 0, 0), both = key4(20, 2, 0, 0);
    struct route route;
    begin(1 << 20);
    tell_object(&fpm, true, 1, 1);
    tell_object(&fpm, true, 2, 2);
    tell_group(&fpm, 3, 1, 2);
    tell_route_by(&fpm, one, 1);
    tell_route_by(&fpm, both, 3);
    assert_int_equal(gateway_of(one, 16), 1);
    assert_true(fib_get(&fib, IP4, both, 16, &route) && route.n_hops == 2);
    tell_object(&fpm, true, 1, 5); // changed in place, for all who refer to it
    assert_int_equal(gateway_of(one, 16), 5);
    assert_true(fib_get(&fib, IP4, both, 16, &route) && route.n_hops == 2);
    tell_object(&fpm, true, 2, 5);
    assert_int_equal(gateway_of(both, 16), 5); // twice the same
    tell_object(&fpm, true, 1, 9);
    assert_true(fib_get(&fib, IP4, one, 16, &route) && route.kind == TARGET_PUNT);
    // A new zebra uses the same numbers for others: routes of before are not concerned.
    tell_object(&fpm, true, 1, 1);
    learn_begin(&fpm, false);
    tell_object(&fpm, true, 1, 7);
    tell_object(&fpm, true, 1, 8);
    assert_int_equal(gateway_of(one, 16), 1);
    tell_route_by(&fpm, one, 1);
    assert_int_equal(gateway_of(one, 16), 8);
    assert_int_equal(learn_end(&fpm), 1);
    tell_object(&fpm, false, 1, 0);
    assert_int_equal(gateway_of(one, 16), 0);
    end();
}

// ---- ports, memory, and a long run beside a model ----

static void test_port_that_goes(void **state)
{
    (void)state;
    const rib_key key = key4(20, 0, 0, 0);
    const struct route two = {.kind = TARGET_VIA, .n_hops = 2, .hops = {{IP4, 1, key4(10, 0, 0, 1)}, {IP4, 2, key4(10, 0, 1, 1)}}};
    const struct candidate_key k = {.origin = ORIGIN_KERNEL, .family = IP4, .len = 8, .key = key};
    begin(1 << 20);
    assert_int_equal(candidates_set(candidates, &k, &(struct candidate_told){0}, &two), 0);
    candidates_withdraw_port(candidates, 2);
    assert_int_equal(gateway_of(key, 8), 1);
    candidates_withdraw_port(candidates, 1);
    assert_int_equal(gateway_of(key, 8), 0);
    assert_int_equal(candidates_count(candidates, ORIGIN_KERNEL), 0);
    end();
}

// More routes than there is memory for are refused and counted, and those that are there stay right.
static void test_limit(void **state)
{
    (void)state;
    begin(256 << 10);
    for (unsigned i = 0; i < 20000; i++)
        tell_route(&fpm, true, key4(20 + i / 65536, i / 256 % 256, i % 256, 0), 24, i % 7 + 1, 0, false);
    assert_true(fpm.n_refused > 1000);
    const size_t n = candidates_count(candidates, ORIGIN_FPM);
    assert_true(n > 1000 && n + fpm.n_refused == 20000 && fib.ribs[0].n_routes == n);
    assert_true(fib_bytes(&fib) < (256 << 10) + 4096);
    learn_begin(&fpm, false);
    assert_int_equal(learn_end(&fpm), n);
    assert_int_equal(fib.ribs[0].n_routes, 0);
    end();
}

#define MODEL_KEYS 24
#define MODEL_METRICS 2

struct model {
    unsigned gateways[ORIGINS][MODEL_KEYS][MODEL_METRICS]; // 0: none
};

static void compare(const struct model *m)
{
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        unsigned expected = 0;
        for (unsigned o = 0; o < ORIGINS && !expected; o++)
            for (unsigned i = 0; i < MODEL_METRICS && !expected; i++)
                expected = m->gateways[o][k][i];
        assert_int_equal(gateway_of(key4(20, k, 0, 0), 16), expected);
    }
}

static void test_beside_a_model(void **state)
{
    (void)state;
    static struct model m;
    uint64_t random = 20261127;
    begin(1 << 20);
    for (unsigned step = 0; step < 20000; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX
        const unsigned draw = (unsigned)(random >> 40), o = draw % ORIGINS, k = draw / 4 % MODEL_KEYS,
                       i = draw / 128 % MODEL_METRICS, gateway = draw / 256 % 8;
        const struct candidate_key key = {.origin = o, .family = IP4, .len = 16, .key = key4(20, k, 0, 0), .metric = i};
        const struct route route = {.kind = TARGET_VIA, .n_hops = 1, .hops = {{IP4, 1, key4(10, 0, 0, gateway)}}};
        if (gateway)
            assert_int_equal(candidates_set(candidates, &key, &(struct candidate_told){0}, &route), 0);
        else
            assert_int_equal(candidates_remove(candidates, &key), m.gateways[o][k][i] ? 0 : -ENOENT);
        m.gateways[o][k][i] = gateway;
        if (step % 16 == 0)
            compare(&m);
    }
    for (unsigned o = 0; o < ORIGINS; o++) {
        candidates_begin(candidates, o, false);
        candidates_sweep(candidates, o);
        memset(m.gateways[o], 0, sizeof(m.gateways[o]));
        compare(&m);
    }
    fib_settle(&fib);
    assert_int_equal(fib.ribs[0].n_routes, 0);
    end();
}

// ---- reading ----

static void test_frames(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 1, 0, 6, 'a', 'b', 1, 1, 0, 4, 1, 1, 0, 9, 'c'}, *at = bytes, *messages;
    size_t len = sizeof(bytes), n;
    assert_int_equal(fpm_read(&at, &len, &messages, &n), 0);
    assert_true(n == 2 && messages[0] == 'a');
    assert_int_equal(fpm_read(&at, &len, &messages, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(fpm_read(&at, &len, &messages, &n), -EAGAIN);
    assert_int_equal(len, 5);
    for (unsigned i = 0; i < 4; i++) {
        uint8_t wrong[4] = {1, 1, 0, 4};
        wrong[i] = i == 2 ? 0 : i == 3 ? 3 : 2; // a version, a type, lengths
        at = wrong;
        len = sizeof(wrong);
        assert_int_equal(fpm_read(&at, &len, &messages, &n), i == 2 ? 0 : -EBADMSG);
    }
}

// What cannot be is refused whole, and what is behind it still read.
static void test_bad_messages(void **state)
{
    (void)state;
    struct netlink_writer w;
    struct netlink_message m;
    const uint32_t device = 1;
    uint8_t two[2 * NETLINK_WRITTEN_MAX];
    begin_route(&w, true, key4(20, 0, 0, 0), 33, RTN_UNICAST); // longer than an address
    memcpy(two, w.bytes, w.len);
    const size_t first = w.len;
    begin_route(&w, true, key4(20, 0, 0, 7), 8, RTN_UNICAST); // bits behind the prefix are none of its
    netlink_put(&w, RTA_OIF, &device, sizeof(device));
    memcpy(two + first, w.bytes, w.len);
    const uint8_t *at = two;
    size_t len = first + w.len;
    assert_int_equal(netlink_read(&at, &len, &m), -EBADMSG);
    assert_int_equal(netlink_read(&at, &len, &m), 0);
    assert_true(m.kind == NETLINK_ROUTE_MESSAGE && m.route.prefix.key == key4(20, 0, 0, 0) && m.route.n_hops == 1);
    assert_int_equal(netlink_read(&at, &len, &m), -ENODATA);
    begin_route(&w, true, key4(20, 0, 0, 0), 8, RTN_UNICAST);
    netlink_put(&w, RTA_GATEWAY, "123", 3);
    at = w.bytes;
    len = w.len;
    assert_int_equal(netlink_read(&at, &len, &m), -EBADMSG);
    at = w.bytes;
    len = w.len - 1; // cut off
    assert_int_equal(netlink_read(&at, &len, &m), -EBADMSG);
    assert_int_equal(netlink_read(&at, &len, &m), -ENODATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_origin_lowest_metric),
        cmocka_unit_test(test_stale_routes),
        cmocka_unit_test(test_replaced_is_never_away),
        cmocka_unit_test(test_events_count_more),
        cmocka_unit_test(test_nexthop_objects),
        cmocka_unit_test(test_port_that_goes),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_beside_a_model),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_bad_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
