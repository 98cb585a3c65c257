// Specifications of networks: one form for what means the same, messages that name what is wrong, and what the router is told.
#include "control/net/host_spec.h"
#include "control/net/net_spec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// With ' for ".
static json_t *parse(const char *text)
{
    char *copy = strdup(text);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    json_t *json = json_loads(copy, 0, NULL);
    free(copy);
    assert_non_null(json);
    return json;
}

static json_t *check(const char *text)
{
    struct tv_error err = {0};
    json_t *json = parse(text), *spec = NULL;
    const int rc = net_spec_check(json, &spec, &err);
    if (rc)
        print_message("%s\n", err.text);
    assert_int_equal(rc, 0);
    json_decref(json);
    return spec;
}

static void expect_wrong(const char *text, const char *says)
{
    struct tv_error err = {0};
    json_t *json = parse(text), *spec = NULL;
    assert_int_equal(net_spec_check(json, &spec, &err), -EINVAL);
    assert_null(spec);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
    json_decref(json);
}

static void test_one_form(void **state)
{
    (void)state;
    json_t *a = check("{'name': 'n'}"),
           *b = check("{'name': 'n', 'type': 'ethernet', 'options': {}, 'ports': [], 'services': {'nat': false}}");
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    a = check("{'name': 'n', 'type': 'ip', 'prefixes': ['10.0.0.0/24', 'fd00::/64']}");
    b = check("{'name': 'n', 'type': 'ip', 'prefixes': ['10.0.0.0/24', 'fd00::/64'], 'gateways': ['fd00::1', '10.0.0.1']}");
    assert_true(json_equal(a, b)); // the first address of each is the gateway, in the order of prefixes
    json_t *again = NULL;
    assert_int_equal(net_spec_check(a, &again, NULL), 0);
    assert_true(json_equal(a, again));
    json_decref(again);
    json_decref(a);
    json_decref(b);
}

static void test_what_is_wrong(void **state)
{
    (void)state;
    expect_wrong("{}", "network ''");
    expect_wrong("{'name': 'sixteen-letters-'}", "1 to 15");
    expect_wrong("{'name': 'n', 'typ': 'ip'}", "'typ'");
    expect_wrong("{'name': 'n', 'type': 'atm'}", "'atm'");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.1/24']}", "'10.0.0.1/24'");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/33']}", "'10.0.0.0/33'");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0']}", "'10.0.0.0'");
    expect_wrong("{'name': 'n', 'prefixes': [10]}", "texts");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/31']}", "no room");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'gateways': ['10.0.1.1']}", "none of");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'gateways': ['10.0.0.1', '10.0.0.2']}", "one prefix");
    expect_wrong("{'name': 'n', 'options': {'table_mb': 1}}", "'table_mb'");
    expect_wrong("{'name': 'n', 'ports': [{'name': 'p'}]}", "'kind'");
    expect_wrong("{'name': 'n', 'ports': [{'name': 'p', 'kind': 'tap'}, {'name': 'p', 'kind': 'tap'}]}", "twice");
    expect_wrong("{'name': 'n', 'routes': [{'prefix': '10.0.0.0/8', 'via': '10.0.0.1'}]}", "no routes");
    expect_wrong("{'name': 'n', 'type': 'ip', 'routes': [{'prefix': '10.0.0.0/8'}]}", "one of");
    expect_wrong("{'name': 'n', 'services': {'nat': true}}", "prefix");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'services': {'nat': true, 'limit': '7 apples'}}", "'7 apples'");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'services': {'nat': true, 'limit': '100 pps'}}", "100Mbit/s");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'services': {'nat': true, 'limit': 7}}", "text");
    expect_wrong("{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'services': {'dhcp': true, 'limit': '1Mbit/s'}}", "NAT or forwards");
    expect_wrong("{'name': 'n', 'type': 'ip', 'prefixes': ['fd00::/64'], 'services': {'dhcp': true}}", "10.0.0.0/24");
    expect_wrong(
        "{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'services': {'forwards': [{'protocol': 'tcp', 'port': 0, 'to': '10.0.0.2', "
        "'to_port': 1}]}}",
        "1 to 65535");
    expect_wrong(
        "{'name': 'n', 'prefixes': ['10.0.0.0/24'], 'ports': [{'name': 'gateway', 'kind': 'tap'}], 'services': {'nat': true}}",
        "'gateway'");
}

static void test_machines(void **state)
{
    (void)state;
    struct machine_spec machine = {.name = (char *)"web", .tenant = (char *)"acme"};
    struct nic_spec nic = {.network = (char *)"n", .mac = "52:54:00:00:00:01", .addresses = {(char *)"10.0.0.2"}, .n_addresses = 1};
    struct tv_error err = {0};
    json_t *spec = check("{'name': 'n', 'type': 'ip', 'tenant': 'acme', 'prefixes': ['10.0.0.0/24']}");
    assert_int_equal(net_spec_check_machine(spec, &machine, &nic, &err), 0);
    json_t *port = net_spec_machine_port(spec, "web", &nic, "/run/s"), *again = net_spec_machine_port(spec, "web", &nic, "/run/s");
    json_t *wanted =
        parse("{'vn': 'n', 'name': 'web', 'kind': 'vhost', 'socket': '/run/s', 'addresses': ['10.0.0.1/32'], 'machine': {'mac': "
              "'52:54:00:00:00:01', 'addresses': ['10.0.0.2']}}");
    assert_true(json_equal(port, again)); // the router's own address on the link as well
    json_object_del(port, "mac");
    assert_true(json_equal(port, wanted));
    json_decref(wanted);
    json_decref(again);
    json_decref(port);
    machine.tenant = (char *)"beta";
    assert_int_equal(net_spec_check_machine(spec, &machine, &nic, &err), -EPERM);
    machine.tenant = (char *)"acme";
    nic.addresses[0] = (char *)"10.0.0.1";
    assert_int_equal(net_spec_check_machine(spec, &machine, &nic, &err), -EINVAL);
    assert_non_null(strstr(err.text, "gateway"));
    nic.addresses[0] = (char *)"10.0.1.1";
    assert_int_equal(net_spec_check_machine(spec, &machine, &nic, &err), -EINVAL);
    nic.n_addresses = 0;
    assert_int_equal(net_spec_check_machine(spec, &machine, &nic, &err), -EINVAL);
    json_decref(spec);
}

static void test_links(void **state)
{
    (void)state;
    struct tv_error err = {0};
    expect_wrong("{'name': 'n', 'type': 'ip', 'link': {'vni': 7}}", "ethernet");
    expect_wrong("{'name': 'n', 'link': {}}", "'vni' is missing");
    expect_wrong("{'name': 'n', 'link': {'vni': 16777216}}", "16777215");
    expect_wrong("{'name': 'n', 'link': {'kind': 'raw', 'vni': 7}}", "'udp_port'");
    expect_wrong("{'name': 'n', 'link': {'kind': 'gre', 'vni': 7}}", "'gre'");
    expect_wrong("{'name': 'n', 'link': {'vni': 7, 'hosts': 'b'}}", "list");
    json_t *all = check("{'name': 'n', 'link': {'vni': 7, 'hosts': []}}"),
           *some = check("{'name': 'n', 'link': {'vni': 7, 'hosts': ['c']}}"), *host, *ports, *wanted,
           *said = parse("{'address': '192.0.2.1', 'underlay': 'u', 'peers': [{'name': 'b', 'address': '192.0.2.2'}]}");
    assert_int_equal(host_spec_links(NULL, all, &ports, &err), -ENOENT);
    json_decref(ports);
    assert_int_equal(host_spec_check(said, &host, &err), 0);
    assert_int_equal(host_spec_links(host, all, &ports, &err), 0);
    wanted = parse("[{'name': 'to-b', 'kind': 'vxlan', 'vni': 7, 'underlay': 'u', 'local': '192.0.2.1', 'remote': '192.0.2.2'}]");
    assert_true(json_equal(ports, wanted));
    json_decref(wanted);
    json_decref(ports);
    assert_int_equal(host_spec_links(host, some, &ports, &err), -ENOENT);
    assert_non_null(strstr(err.text, "'c'"));
    json_decref(ports);
    json_decref(host);
    json_decref(said);
    json_decref(all);
    json_decref(some);
}

static void test_hosts(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"{}", "'address'"},
        {"[]", "object"},
        {"{'address': 'x', 'underlay': 'u'}", "'x'"},
        {"{'address': '192.0.2.1'}", "'underlay'"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'listen': '192.0.2.1:7'}", "go together"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'listen': '192.0.2.1:70000'}", "TCP port"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'listen': 7}", "text"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'peers': {}}", "list"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'peers': [{'name': 'b'}]}", "'b'"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'peers': [{'name': 'thirteen-char', 'address': '192.0.2.2'}]}", "1 to 12"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'peers': [{'name': 'b', 'address': '192.0.2.2', 'connect': '192.0.2.2:7'}]}",
         "certificate"},
        {"{'address': '192.0.2.1', 'underlay': 'u', 'peers': [{'name': 'b', 'address': '192.0.2.2'}, {'name': 'c', 'address': "
         "'192.0.2.2'}]}",
         "already"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct tv_error err = {0};
        json_t *json = parse(wrong[i][0]), *host;
        assert_int_equal(host_spec_check(json, &host, &err), -EINVAL);
        if (!strstr(err.text, wrong[i][1]))
            fail_msg("'%s' does not say '%s'", err.text, wrong[i][1]);
        json_decref(json);
    }
}

static void test_addresses(void **state)
{
    (void)state;
    unsigned char bytes[16];
    char a[SPEC_MAC_TEXT_MAX], b[SPEC_MAC_TEXT_MAX];
    int bits;
    assert_int_equal(net_parse_address("10.0.0.1", bytes, NULL), 2); // AF_INET
    assert_int_equal(net_parse_address("10.0.0.1/24", bytes, NULL), 0);
    assert_int_equal(net_parse_address("fd00::1/64", bytes, &bits), 10);
    assert_int_equal(bits, 64);
    assert_int_equal(net_parse_address("fd00::1/129", bytes, &bits), 0);
    assert_int_equal(net_parse_address("10.0.0.0/-1", bytes, &bits), 0);
    assert_int_equal(net_parse_address("10.0.0.0/8x", bytes, &bits), 0);
    assert_true(net_mac_is_good("52:54:00:12:34:56"));
    assert_false(net_mac_is_good("53:54:00:12:34:56"));
    assert_false(net_mac_is_good("00:00:00:00:00:00"));
    assert_false(net_mac_is_good("52:54:00:12:34:5"));
    net_make_mac("ab", "c", a);
    net_make_mac("a", "bc", b);
    assert_true(net_mac_is_good(a));
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_form), cmocka_unit_test(test_what_is_wrong),
                                       cmocka_unit_test(test_machines), cmocka_unit_test(test_links),
                                       cmocka_unit_test(test_hosts),    cmocka_unit_test(test_addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
