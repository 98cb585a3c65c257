// What a virtual network is to be: see net_spec.h.
#include "control/net/net_spec.h"

#include "control/cleanup.h"
#include "control/net/gateway.h"
#include "promise/promise.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

// --- addresses

int net_parse_address(const char *text, unsigned char bytes[static 16], int *bits)
{
    char address[INET6_ADDRSTRLEN], *end;
    const char *slash = strchr(text, '/');
    const size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if ((slash && !bits) || len >= sizeof(address))
        return 0;
    memcpy(address, text, len);
    address[len] = 0;
    const int family = strchr(address, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, address, bytes) != 1)
        return 0;
    if (bits)
        *bits = -1;
    if (!slash)
        return family;
    const unsigned long n = slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : 999;
    if (n > (family == AF_INET ? 32 : 128) || *end)
        return 0;
    *bits = (int)n;
    return family;
}

static bool is_within(const char *address, const char *prefix)
{
    unsigned char a[16] = {0}, p[16] = {0};
    int bits = 0;
    const int family = net_parse_address(address, a, NULL);
    if (!family || family != net_parse_address(prefix, p, &bits) || bits < 0)
        return false;
    const int bytes = bits / 8, rest = bits % 8;
    return memcmp(a, p, (size_t)bytes) == 0 && (!rest || (a[bytes] ^ p[bytes]) >> (8 - rest) == 0);
}

// Nothing is set behind its length.
static bool is_prefix(const char *text)
{
    unsigned char bytes[16];
    int bits;
    const int family = net_parse_address(text, bytes, &bits);
    if (!family || bits < 0)
        return false;
    for (int i = bits; i < (family == AF_INET ? 32 : 128); i++)
        if (bytes[i / 8] & (0x80 >> i % 8))
            return false;
    return true;
}

// FNV-1a, 64 bits, with the NUL between them.
void net_make_mac(const char *a, const char *b, char mac[static SPEC_MAC_TEXT_MAX])
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *p = a; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    hash *= 0x100000001b3;
    for (const char *p = b; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    snprintf(mac, SPEC_MAC_TEXT_MAX, "52:%02x:%02x:%02x:%02x:%02x", (unsigned)(hash >> 56) & 255, (unsigned)(hash >> 48) & 255,
             (unsigned)(hash >> 40) & 255, (unsigned)(hash >> 32) & 255, (unsigned)(hash >> 24) & 255);
}

bool net_mac_is_good(const char *text)
{
    unsigned b[6];
    char end;
    if (strlen(text) != 17 || sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6)
        return false;
    return !(b[0] & 1) && (b[0] | b[1] | b[2] | b[3] | b[4] | b[5]);
}

// --- members

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static bool is_among(const char *word, const char *const *list)
{
    while (*list && strcmp(word, *list) != 0)
        list++;
    return *list != NULL;
}

// Of the members of an object none is unknown.
static int check_keys(const json_t *json, const char *const *known, const char *what, struct tv_error *err)
{
    const char *key;
    json_t *member;
    if (!json_is_object(json))
        return tv_error_set(err, -EINVAL, "%s should be an object", what);
    json_object_foreach((json_t *)json, key, member)
    {
        if (!is_among(key, known))
            return tv_error_set(err, -EINVAL, "%s has no '%.40s'", what, key);
    }
    return 0;
}

static int check_name(const char *name, const char *what, struct tv_error *err)
{
    if (name && spec_name_is_good(name) && strlen(name) <= NET_NAME_MAX)
        return 0;
    return tv_error_set(err, -EINVAL, "%s '%.60s': the name should be 1 to %d letters, digits, '-', '_' and '.'", what,
                        name ? name : "", NET_NAME_MAX);
}

// A list of texts; absent is an empty one.
static int check_texts(const json_t *json, const char *key, struct tv_error *err)
{
    const json_t *list = json_object_get(json, key), *entry;
    size_t i;
    if (list && !json_is_array(list))
        return tv_error_set(err, -EINVAL, "'%s' should be a list", key);
    json_array_foreach(list, i, entry)
    {
        if (!json_is_string(entry))
            return tv_error_set(err, -EINVAL, "'%s' should be a list of texts", key);
    }
    return 0;
}

// --- prefixes and gateways

static const char *prefix_of(const json_t *prefixes, const char *address)
{
    size_t i;
    json_t *entry;
    json_array_foreach(prefixes, i, entry)
    {
        if (is_within(address, json_string_value(entry)))
            return json_string_value(entry);
    }
    return NULL;
}

static int check_prefixes(const json_t *prefixes, struct tv_error *err)
{
    size_t i, j;
    json_t *entry, *other;
    json_array_foreach(prefixes, i, entry)
    {
        const char *prefix = json_string_value(entry);
        if (!is_prefix(prefix))
            return tv_error_set(err, -EINVAL, "'prefixes': '%.60s' is no prefix, such as 10.0.0.0/24 or fd00::/64", prefix);
        json_array_foreach(prefixes, j, other)
        {
            if (j < i && json_equal(entry, other))
                return tv_error_set(err, -EINVAL, "'prefixes': '%s' is named twice", prefix);
        }
    }
    return 0;
}

// The first address of the prefix, where none is said.
static int add_gateway(const char *prefix, json_t *gateways, struct tv_error *err)
{
    unsigned char bytes[16] = {0};
    char address[INET6_ADDRSTRLEN];
    int bits;
    const int family = net_parse_address(prefix, bytes, &bits);
    if (bits > (family == AF_INET ? 30 : 126))
        return tv_error_set(err, -EINVAL, "'%s' has no room for a gateway and a machine", prefix);
    bytes[family == AF_INET ? 3 : 15] |= 1;
    inet_ntop(family, bytes, address, sizeof(address));
    json_array_append_new(gateways, json_string(address));
    return 0;
}

// One of each prefix, in their order.
static int put_gateways(json_t *spec, const json_t *said, struct tv_error *err)
{
    const json_t *prefixes = json_object_get(spec, "prefixes");
    json_t *gateways = json_array(), *entry, *prefix;
    size_t i, j;
    json_object_set_new(spec, "gateways", gateways);
    json_array_foreach(said, i, entry)
    {
        unsigned char bytes[16];
        const char *gateway = json_string_value(entry);
        if (!net_parse_address(gateway, bytes, NULL))
            return tv_error_set(err, -EINVAL, "'gateways': '%.60s' is no address, such as 10.0.0.1", gateway);
        if (!prefix_of(prefixes, gateway))
            return tv_error_set(err, -EINVAL, "'gateways': '%s' is in none of the network's prefixes", gateway);
    }
    json_array_foreach(prefixes, j, prefix)
    {
        const char *found = NULL;
        json_array_foreach(said, i, entry)
        {
            if (!is_within(json_string_value(entry), json_string_value(prefix)))
                continue;
            if (found)
                return tv_error_set(err, -EINVAL, "'gateways': '%s' and '%s' are of one prefix", found, json_string_value(entry));
            found = json_string_value(entry);
        }
        if (found)
            json_array_append_new(gateways, json_string(found));
        else if (add_gateway(json_string_value(prefix), gateways, err))
            return err->code;
    }
    return 0;
}

// --- ports and routes

int net_spec_check_port(const json_t *json, json_t **port, struct tv_error *err)
{
    static const char *const keys[] = {
        "name",     "kind",     "socket",  "unsealed",  "device", "address",   "role",   "receive",
        "send",     "mac",      "machine", "addresses", "mtu",    "mac_limit", "pad_to", "flood_bytes_per_s",
        "frames",   "promises", "weight",  "underlay",  "local",  "remote",    "vni",    "udp_port",
        "path_mtu", "ttl",      "dscp",    "checksum",  "server", "router",    NULL};
    const char *name = text(json, "name"), *kind = text(json, "kind");
    *port = NULL;
    int rc = check_name(name, "port", err);
    if (rc)
        return rc;
    rc = check_keys(json, keys, "it", err);
    if (!rc && !kind)
        rc = tv_error_set(err, -EINVAL, "'kind' is missing: vhost, tap, packet, xdp, pci, memif, ring, vxlan, raw or vtep");
    if (!rc)
        *port = json_deep_copy(json);
    return rc ? tv_error_prefix(err, "port '%s'", name) : 0;
}

int net_spec_check_route(const json_t *json, json_t **route, struct tv_error *err)
{
    static const char *const keys[] = {"prefix", "via", "port", "type", NULL};
    const char *prefix = text(json, "prefix");
    *route = NULL;
    if (!prefix || !is_prefix(prefix))
        return tv_error_set(err, -EINVAL, "route '%.60s' is to no prefix, such as 10.1.0.0/16 or fd00::/8", prefix ? prefix : "");
    int rc = check_keys(json, keys, "it", err);
    if (!rc && !json_object_get(json, "via") + !json_object_get(json, "port") + !json_object_get(json, "type") != 2)
        rc = tv_error_set(err, -EINVAL, "it has one of 'via', 'port' and 'type'");
    if (!rc)
        *route = json_deep_copy(json);
    return rc ? tv_error_prefix(err, "route '%s'", prefix) : 0;
}

typedef int check_fn(const json_t *json, json_t **out, struct tv_error *err);

// A list of ports or routes, by what they are known by.
static int put_list(json_t *spec, const json_t *list, const char *key, const char *id, check_fn *check, struct tv_error *err)
{
    json_t *checked = json_array(), *entry, *one, *other;
    size_t i, j;
    json_object_set_new(spec, key, checked);
    if (list && !json_is_array(list))
        return tv_error_set(err, -EINVAL, "'%s' should be a list", key);
    json_array_foreach(list, i, entry)
    {
        int rc = check(entry, &one, err);
        if (rc)
            return rc;
        json_array_foreach(checked, j, other)
        {
            if (json_equal(json_object_get(other, id), json_object_get(one, id)))
                rc = tv_error_set(err, -EINVAL, "'%s': '%s' is named twice", key, text(one, id));
        }
        json_array_append_new(checked, one);
        if (rc)
            return rc;
    }
    return 0;
}

// --- NAT, forwards, DHCP and DNS

int net_spec_parse_forward(const char *word, json_t **forward, struct tv_error *err)
{
    char protocol[4], to[INET_ADDRSTRLEN], end;
    unsigned port, to_port;
    *forward = NULL;
    if (sscanf(word, "%3[a-z]:%5u:%15[0-9.]:%5u%c", protocol, &port, to, &to_port, &end) != 4)
        return tv_error_set(err, -EINVAL, "forward '%.60s' should be as tcp:8080:10.0.0.2:80", word);
    *forward = json_pack("{s:s, s:i, s:s, s:i}", "protocol", protocol, "port", (int)port, "to", to, "to_port", (int)to_port);
    return 0;
}

static int check_forward(const json_t *json, const json_t *prefixes, struct tv_error *err)
{
    static const char *const keys[] = {"protocol", "port", "to", "to_port", NULL};
    const char *protocol = text(json, "protocol"), *to = text(json, "to");
    const json_int_t port = json_integer_value(json_object_get(json, "port")),
                     to_port = json_integer_value(json_object_get(json, "to_port"));
    unsigned char bytes[16];
    int rc = check_keys(json, keys, "a forward", err);
    if (rc)
        return rc;
    if (!protocol || (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0))
        return tv_error_set(err, -EINVAL, "a forward is of tcp or udp, not '%.20s'", protocol ? protocol : "");
    if (port < 1 || port > 65535 || to_port < 1 || to_port > 65535)
        return tv_error_set(err, -EINVAL, "a forward is from a port to a port, each from 1 to 65535");
    if (!to || net_parse_address(to, bytes, NULL) != AF_INET || !prefix_of(prefixes, to))
        return tv_error_set(err, -EINVAL, "a forward to '%.60s': is no IPv4 address of the network's prefixes", to ? to : "");
    return 0;
}

static int check_forwards(const json_t *forwards, const json_t *prefixes, struct tv_error *err)
{
    size_t i;
    json_t *forward;
    if (forwards && !json_is_array(forwards))
        return tv_error_set(err, -EINVAL, "'forwards' should be a list");
    json_array_foreach(forwards, i, forward)
    {
        int rc = check_forward(forward, prefixes, err);
        if (rc)
            return rc;
    }
    return 0;
}

static bool has_ip4(const json_t *prefixes)
{
    size_t i;
    json_t *entry;
    bool found = false;
    json_array_foreach(prefixes, i, entry) found |= !strchr(json_string_value(entry), ':');
    return found;
}

uint64_t net_spec_outside_bit_rate(const json_t *spec)
{
    const char *limit = text(json_object_get(spec, "services"), "limit");
    struct promise_set set = {.resource = PROMISE_LINK};
    const struct promise *p =
        limit && promise_set_add(&set, "limit", limit, NULL) == 0 ? promise_set_find(&set, PROMISE_LIMIT, PROMISE_BIT_RATE) : NULL;
    return p && set.n == 1 ? p->value : 0;
}

// What they need of the rest.
static int check_services_fit(const json_t *spec, struct tv_error *err)
{
    size_t i;
    json_t *port;
    const json_t *services = json_object_get(spec, "services");
    if (json_object_get(services, "limit") && !net_spec_outside_bit_rate(spec))
        return tv_error_set(err, -EINVAL, "the outside's limit '%.40s' should be as 100Mbit/s", text(services, "limit"));
    if (json_object_get(services, "limit") && !json_is_true(json_object_get(services, "nat")) &&
        !json_object_get(services, "forwards"))
        return tv_error_set(err, -EINVAL, "a limit of the outside needs a way there: NAT or forwards");
    if (!has_ip4(json_object_get(spec, "prefixes")))
        return tv_error_set(err, -EINVAL, "NAT, forwards, DHCP and DNS are for IPv4: give a prefix, such as 10.0.0.0/24");
    json_array_foreach(json_object_get(spec, "ports"), i, port)
    {
        if (strcmp(text(port, "name"), GATEWAY_PORT) == 0)
            return tv_error_set(err, -EINVAL, "port '" GATEWAY_PORT "': the name is that of the network's own gateway");
    }
    return 0;
}

// Those that are wanted; a network without has none.
static int put_services(json_t *spec, const json_t *services, struct tv_error *err)
{
    static const char *const keys[] = {"nat", "dhcp", "dns", "forwards", "limit", NULL}, *const flags[] = {"nat", "dhcp", "dns",
                                                                                                           NULL};
    const json_t *forwards = json_object_get(services, "forwards");
    cleanup_json json_t *checked = json_object();
    int rc = services ? check_keys(services, keys, "'services'", err) : 0;
    for (const char *const *flag = flags; *flag && !rc; flag++) {
        const json_t *value = json_object_get(services, *flag);
        if (value && !json_is_boolean(value))
            rc = tv_error_set(err, -EINVAL, "'%s' should be true or false", *flag);
        if (json_is_true(value))
            json_object_set_new(checked, *flag, json_true());
    }
    if (!rc)
        rc = check_forwards(forwards, json_object_get(spec, "prefixes"), err);
    if (!rc && json_array_size(forwards))
        json_object_set_new(checked, "forwards", json_deep_copy(forwards));
    const json_t *limit = json_object_get(services, "limit");
    if (!rc && limit && !json_is_string(limit))
        rc = tv_error_set(err, -EINVAL, "the outside's 'limit' should be a text, as 100Mbit/s");
    if (!rc && limit)
        json_object_set(checked, "limit", (json_t *)limit);
    if (rc || !json_object_size(checked))
        return rc;
    json_object_set(spec, "services", checked);
    return check_services_fit(spec, err);
}

// --- links to other hosts

static int check_number(const json_t *json, const char *key, json_int_t least, json_int_t most, struct tv_error *err)
{
    const json_t *value = json_object_get(json, key);
    if (!value || (json_is_integer(value) && json_integer_value(value) >= least && json_integer_value(value) <= most))
        return 0;
    return tv_error_set(err, -EINVAL, "'%s' should be a number from %lld to %lld", key, (long long)least, (long long)most);
}

// The ranges are the router's.
static int check_link(const json_t *link, const char *kind, struct tv_error *err)
{
    static const char *const keys[] = {"kind", "vni", "udp_port", "path_mtu", "hosts", NULL};
    const bool is_vxlan = strcmp(kind, "vxlan") == 0;
    int rc = check_keys(link, keys, "it", err);
    if (!rc && !is_vxlan && strcmp(kind, "raw") != 0)
        rc = tv_error_set(err, -EINVAL, "there is no kind '%.20s'; there are vxlan and raw", kind);
    if (!rc)
        rc = check_number(link, "vni", 0, 0xffffff, err);
    if (!rc)
        rc = check_number(link, "udp_port", 1, 65535, err);
    if (!rc)
        rc = check_number(link, "path_mtu", 576, 2032, err);
    if (!rc && is_vxlan && !json_object_get(link, "vni"))
        rc = tv_error_set(err, -EINVAL, "'vni' is missing: the number of the network, the same on all hosts");
    if (!rc && !is_vxlan && (!json_object_get(link, "udp_port") || json_object_get(link, "vni")))
        rc = tv_error_set(err, -EINVAL, "one of the kind raw has a 'udp_port', which is the network's alone, and no 'vni'");
    return rc ? rc : check_texts(link, "hosts", err);
}

// With 'hosts' alone where they are said; without it leads to all.
static int put_link(json_t *spec, const json_t *link, struct tv_error *err)
{
    if (!link)
        return 0;
    const char *kind = text(link, "kind");
    kind = kind ? kind : "vxlan";
    int rc = check_link(link, kind, err);
    if (!rc && net_spec_routes(spec))
        rc = tv_error_set(err, -EINVAL,
                          "it is for networks of the type ethernet; here a port of the kind %s with addresses of its own does that",
                          kind);
    if (rc)
        return tv_error_prefix(err, "'link'");
    json_t *made = json_deep_copy(link);
    json_object_set_new(made, "kind", json_string(kind));
    if (!json_array_size(json_object_get(made, "hosts")))
        json_object_del(made, "hosts");
    json_object_set_new(spec, "link", made);
    return 0;
}

// --- the whole

static int check_options(const json_t *options, const char *type, struct tv_error *err)
{
    static const char *const of_switches[] = {"weight", "worker", "buffers", "macs", "age_s", "unknown", "promises", NULL};
    static const char *const of_routers[] = {
        "weight",   "worker",   "buffers", "neighbours", "neighbour_age_s", "icmp_errors_per_s",
        "table_mb", "promises", "netns",   "fpm_port",   "stale_s",         NULL};
    if (!options)
        return 0;
    return check_keys(
        options, strcmp(type, "ip") == 0 ? of_routers : of_switches,
        strcmp(type, "ip") == 0 ? "'options' of a network of the type ip" : "'options' of a network of the type ethernet", err);
}

static int check_whole(const json_t *json, json_t *spec, struct tv_error *err)
{
    static const char *const keys[] = {"name",    "type",  "tenant", "description", "prefixes", "gateways",
                                       "options", "ports", "routes", "services",    "link",     NULL};
    const char *type = text(json, "type"), *tenant = text(json, "tenant");
    const json_t *options = json_object_get(json, "options");
    int rc = check_keys(json, keys, "it", err);
    type = type ? type : "ethernet";
    if (!rc && strcmp(type, "ethernet") != 0 && strcmp(type, "ip") != 0)
        rc = tv_error_set(err, -EINVAL, "there is no type '%.40s'; there are ethernet (a switch) and ip (a router)", type);
    if (!rc && tenant && !spec_name_is_good(tenant))
        rc = tv_error_set(err, -EINVAL, "tenant '%.60s' should be letters, digits, '-', '_' and '.'", tenant);
    if (!rc)
        rc = check_texts(json, "prefixes", err);
    if (!rc)
        rc = check_texts(json, "gateways", err);
    if (!rc)
        rc = check_options(options, type, err);
    if (rc)
        return rc;
    json_object_set_new(spec, "type", json_string(type));
    if (tenant)
        json_object_set_new(spec, "tenant", json_string(tenant));
    if (text(json, "description"))
        json_object_set(spec, "description", json_object_get(json, "description"));
    json_object_set_new(spec, "options", options ? json_deep_copy(options) : json_object());
    json_t *prefixes = json_deep_copy(json_object_get(json, "prefixes"));
    json_object_set_new(spec, "prefixes", prefixes ? prefixes : json_array());
    rc = check_prefixes(prefixes, err);
    if (!rc)
        rc = put_gateways(spec, json_object_get(json, "gateways"), err);
    if (!rc)
        rc = put_list(spec, json_object_get(json, "ports"), "ports", "name", net_spec_check_port, err);
    if (!rc)
        rc = put_list(spec, json_object_get(json, "routes"), "routes", "prefix", net_spec_check_route, err);
    if (!rc && !net_spec_routes(spec) && json_array_size(json_object_get(spec, "routes")))
        rc = tv_error_set(err, -EINVAL, "a network of the type ethernet has no routes; give 'type' ip");
    if (!rc)
        rc = put_link(spec, json_object_get(json, "link"), err);
    return rc ? rc : put_services(spec, json_object_get(json, "services"), err);
}

int net_spec_check(const json_t *json, json_t **spec, struct tv_error *err)
{
    const char *name = text(json, "name");
    *spec = NULL;
    int rc = check_name(name, "network", err);
    if (rc)
        return rc;
    cleanup_json json_t *made = json_pack("{s:s}", "name", name);
    rc = check_whole(json, made, err);
    if (!rc)
        *spec = json_incref(made);
    return rc ? tv_error_prefix(err, "network '%s'", name) : 0;
}

const char *net_spec_name(const json_t *spec)
{
    return text(spec, "name");
}

bool net_spec_routes(const json_t *spec)
{
    const char *type = text(spec, "type");
    return type && strcmp(type, "ip") == 0;
}

bool net_spec_is_underlay(const json_t *spec)
{
    size_t i;
    json_t *port;
    bool found = false;
    json_array_foreach(json_object_get(spec, "ports"), i, port) found |= strcmp(text(port, "kind"), "vtep") == 0;
    return found;
}

// --- for the router

json_t *net_spec_vn(const json_t *spec)
{
    json_t *params = json_deep_copy(json_object_get(spec, "options"));
    json_object_set(params, "name", json_object_get(spec, "name"));
    json_object_set(params, "type", json_object_get(spec, "type"));
    return params;
}

// The router's own on the link. No name has a space in it, so it is no machine's. host: "" where nobody but a machine is.
static void put_router_mac(const json_t *spec, const char *host, const char *port, json_t *params)
{
    char link[NET_NAME_MAX + 64], mac[SPEC_MAC_TEXT_MAX];
    if (!net_spec_routes(spec) || json_object_get(params, "mac"))
        return;
    snprintf(link, sizeof(link), "router %.40s%s", host, net_spec_name(spec));
    net_make_mac(link, port, mac);
    json_object_set_new(params, "mac", json_string(mac));
}

json_t *net_spec_port(const json_t *spec, const json_t *port, const char *host)
{
    json_t *params = json_deep_copy(port);
    put_router_mac(spec, host, text(port, "name"), params);
    json_object_set(params, "vn", json_object_get(spec, "name"));
    return params;
}

json_t *net_spec_machine_port(const json_t *spec, const char *machine, const struct nic_spec *nic, const char *socket)
{
    json_t *addresses = json_array(), *gateway;
    size_t i;
    for (unsigned k = 0; k < nic->n_addresses; k++)
        json_array_append_new(addresses, json_string(nic->addresses[k]));
    json_t *params =
        json_pack("{s:s, s:s, s:s, s:s}", "vn", net_spec_name(spec), "name", machine, "kind", "vhost", "socket", socket);
    if (nic->promises)
        json_object_set_new(params, "promises", json_string(nic->promises));
    if (!net_spec_routes(spec)) {
        json_object_set_new(params, "mac", json_string(nic->mac));
        if (nic->n_addresses)
            json_object_set(params, "addresses", addresses);
        json_decref(addresses);
        return params;
    }
    json_t *own = json_array();
    json_array_foreach(json_object_get(spec, "gateways"), i, gateway)
    {
        const char *address = json_string_value(gateway);
        json_array_append_new(own, json_sprintf("%s/%d", address, strchr(address, ':') ? 128 : 32));
    }
    json_object_set_new(params, "addresses", own);
    put_router_mac(spec, "", machine, params);
    json_object_set_new(params, "machine", json_pack("{s:s, s:o}", "mac", nic->mac, "addresses", addresses));
    return params;
}

static int check_machine(const json_t *spec, const struct machine_spec *machine, const struct nic_spec *nic, struct tv_error *err)
{
    const char *tenant = text(spec, "tenant");
    if (tenant && strcmp(tenant, machine->tenant) != 0)
        return tv_error_set(err, -EPERM, "it is tenant '%s''s, and the machine is tenant '%s''s", tenant, machine->tenant);
    if (net_spec_routes(spec) && !nic->n_addresses)
        return tv_error_set(err, -EINVAL, "it is of the type ip, so the machine's address must be said: give 'ip'");
    const json_t *prefixes = json_object_get(spec, "prefixes"), *gateway;
    size_t i;
    for (unsigned k = 0; k < nic->n_addresses; k++) {
        if (json_array_size(prefixes) && !prefix_of(prefixes, nic->addresses[k]))
            return tv_error_set(err, -EINVAL, "'%s' is in none of its prefixes", nic->addresses[k]);
        json_array_foreach(json_object_get(spec, "gateways"), i, gateway)
        {
            if (strcmp(json_string_value(gateway), nic->addresses[k]) == 0)
                return tv_error_set(err, -EINVAL, "'%s' is its gateway", nic->addresses[k]);
        }
    }
    return 0;
}

int net_spec_check_machine(const json_t *spec, const struct machine_spec *machine, const struct nic_spec *nic, struct tv_error *err)
{
    const int rc = check_machine(spec, machine, nic, err);
    return rc ? tv_error_prefix(err, "machine '%s': network '%s'", machine->name, net_spec_name(spec)) : 0;
}
