// What is asked of a network that routes: routes and neighbours, many at once (trivet-router(8), Control). Control thread.
//
// All of a request is read and checked before the first of it is carried out.
#include "router/ip/ip.h"

#include "router/params.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <rte_ether.h>
#include <stdlib.h>

#define LISTED_MOST 20000 // of one answer, which is a line of at most 4 MiB

// ---- reading ----

// "ADDRESS", which is on the link of a port, or "ADDRESS%PORT" (as RFC 4007, 11, writes zones).
static int read_hop(struct vn *vn, const json_t *entry, struct hop *hop, struct tv_error *err)
{
    char text[IP_TEXT_MAX];
    struct ip_prefix address;
    const char *whole = json_is_string(entry) ? json_string_value(entry) : "";
    const char *percent = strchrnul(whole, '%');
    const size_t len = (size_t)(percent - whole);
    memcpy(text, whole, len < sizeof(text) ? len : 0);
    text[len < sizeof(text) ? len : 0] = 0;
    if (ip_parse_address(text, &address))
        return tv_error_set(err, -EINVAL,
                            "\"via\" is '%.60s'; must be a gateway's address, as 10.0.0.1 or fe80::1%%PORT, or a list of them",
                            whole);
    *hop = (struct hop){.family = address.family, .gateway = address.key};
    const struct vn_port *port = *percent ? vn_find_port(vn, percent + 1) : ip_find_link(vn, hop->family, hop->gateway);
    if (!port && *percent)
        return tv_error_set(err, -ENOENT, "\"via\" is '%.60s', but there is no port '%.20s'", whole, percent + 1);
    if (!port)
        return tv_error_set(err, -EINVAL, "\"via\" is '%s', which is on no port's link; name the port, as %s%%PORT", text, text);
    if (ip_is_own(port->state, hop->family, hop->gateway))
        return tv_error_set(err, -EINVAL, "\"via\" is '%s', which is the router's own", text);
    hop->port = (uint16_t)port->index;
    return 0;
}

static int read_hops(struct vn *vn, const json_t *via, struct route *route, struct tv_error *err)
{
    const json_t *entry;
    size_t i;
    route->kind = TARGET_VIA;
    if (!json_is_array(via)) {
        route->n_hops = 1;
        return read_hop(vn, via, &route->hops[0], err);
    }
    if (!json_array_size(via) || json_array_size(via) > ECMP_MEMBERS_MAX)
        return tv_error_set(err, -EINVAL, "\"via\" has %zu gateways; must be 1 to %d", json_array_size(via), ECMP_MEMBERS_MAX);
    json_array_foreach(via, i, entry)
    {
        int r = read_hop(vn, entry, &route->hops[route->n_hops++], err);
        if (r)
            return r;
    }
    return 0;
}

static int read_prefix(const json_t *entry, struct ip_prefix *prefix, struct tv_error *err)
{
    const char *text = json_string_value(json_is_string(entry) ? entry : json_object_get(entry, "prefix"));
    if (!text || ip_parse_prefix(text, prefix) || rib_mask(prefix->key, prefix->len) != prefix->key)
        return tv_error_set(err, -EINVAL,
                            "\"prefix\" is '%.60s'; must be a network's, as 10.0.0.0/8 or fd00::/8, with nothing set behind it",
                            text ? text : "");
    return 0;
}

// {"prefix", and one of "via", "port" and "type"}
static int read_route(struct vn *vn, const json_t *entry, struct ip_prefix *prefix, struct route *route, struct tv_error *err)
{
    const json_t *via = json_object_get(entry, "via"), *port = json_object_get(entry, "port"),
                 *type = json_object_get(entry, "type");
    route->n_hops = 0;
    if (read_prefix(entry, prefix, err))
        return -EINVAL;
    if (!via + !port + !type != 2)
        return tv_error_set(err, -EINVAL, "must have one of \"via\", \"port\" and \"type\"");
    if (via)
        return read_hops(vn, via, route, err);
    const char *text = json_string_value(port ? port : type);
    if (port) {
        const struct vn_port *found = text ? vn_find_port(vn, text) : NULL;
        route->kind = TARGET_LINK;
        if (!found)
            return tv_error_set(err, -ENOENT, "there is no port '%.20s'", text ? text : "");
        route->hops[route->n_hops++] = (struct hop){.port = (uint16_t)found->index};
        return 0;
    }
    if (!text || (strcmp(text, "blackhole") && strcmp(text, "unreachable")))
        return tv_error_set(err, -EINVAL, "\"type\" is '%.20s'; must be blackhole or unreachable", text ? text : "");
    route->kind = *text == 'b' ? TARGET_BLACKHOLE : TARGET_UNREACHABLE;
    return 0;
}

// What ports have brought with them goes with them alone.
static bool is_ports_own(const struct ip *ip, const struct ip_prefix *prefix)
{
    struct route route;
    if (!fib_get(&ip->fib, prefix->family, prefix->key, prefix->len, &route))
        return false;
    if (ip->candidates) {
        const struct candidate *best = candidates_best(ip->candidates, prefix->family, prefix->key, prefix->len);
        return best && best->origin == ORIGIN_PORT;
    }
    return route.kind == TARGET_LOCAL || route.kind == TARGET_BROADCAST;
}

static int tell_of(struct tv_error *err, const json_t *entry, size_t i)
{
    const char *text = json_string_value(json_is_string(entry) ? entry : json_object_get(entry, "prefix"));
    return tv_error_prefix(err, "route %zu ('%.60s')", i + 1, text ? text : "");
}

static int get_list(const json_t *params, const char *key, const json_t **list, struct tv_error *err)
{
    *list = json_object_get(params, key);
    return json_is_array(*list) ? 0 : tv_error_set(err, -EINVAL, "\"%s\" must be a list", key);
}

// ---- routes ----

static int check_route(struct vn *vn, const json_t *entry, struct ip_prefix *prefix, struct route *route, bool adds,
                       struct tv_error *err)
{
    char text[IP_TEXT_MAX];
    struct ip *ip = vn->state;
    int r = adds ? read_route(vn, entry, prefix, route, err) : read_prefix(entry, prefix, err);
    if (!r && is_ports_own(ip, prefix)) {
        ip_format_prefix(prefix->family, prefix->key, prefix->len, text);
        r = tv_error_set(err, -EEXIST, "%s is the router's own, by a port's \"addresses\"", text);
    }
    return r;
}

static int run_routes(struct vn *vn, const json_t *params, bool adds, struct tv_error *err)
{
    struct ip *ip = vn->state;
    const json_t *routes, *entry;
    struct ip_prefix prefix;
    struct route route;
    size_t i;
    int r = get_list(params, "routes", &routes, err);
    for (i = 0; !r && (entry = json_array_get(routes, i)); i++)
        if ((r = check_route(vn, entry, &prefix, &route, adds, err)))
            tell_of(err, entry, i);
    for (i = 0; !r && (entry = json_array_get(routes, i)); i++) {
        r = check_route(vn, entry, &prefix, &route, adds, err);
        if (!r)
            r = adds ? ip_set_route(ip, ORIGIN_CONTROL, &prefix, &route) : ip_remove_route(ip, ORIGIN_CONTROL, &prefix);
        if (r == -ENOENT) {
            r = 0; // it is gone, as was asked for
        } else if (r) {
            tv_error_set(err, r, "no memory for it (\"table_mb\"), or too many different gateways; those before it are done");
            tell_of(err, entry, i);
        }
    }
    fib_settle(&ip->fib);
    return r;
}

static int run_add_routes(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    (void)result;
    return run_routes(vn, params, true, err);
}

static int run_remove_routes(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    (void)result;
    return run_routes(vn, params, false, err);
}

struct listing {
    struct vn *vn;
    json_t *routes;
    unsigned family;
    char next[IP_TEXT_MAX]; // the one that there was no room for
};

static json_t *describe_hop(struct vn *vn, const struct hop *hop)
{
    char text[IP_TEXT_MAX];
    const struct vn_port *port = atomic_load_explicit(&vn->slots[hop->port], memory_order_relaxed);
    ip_format_address(hop->family, hop->gateway, text);
    return json_sprintf("%s%%%s", text, port ? port->name : "");
}

// Where there are several origins: which one it is, and the protocol that a daemon has named (linux/rtnetlink.h, RTPROT_*).
static void describe_origin(json_t *json, const struct candidate *e)
{
    static const char *const origins[ORIGINS] = {"port", "control", "fpm", "kernel"};
    static const struct {
        uint8_t number;
        const char *name;
    } protocols[] = {{RTPROT_KERNEL, "kernel"},
                     {RTPROT_BOOT, "boot"},
                     {RTPROT_STATIC, "static"},
                     {RTPROT_ZEBRA, "zebra"},
                     {RTPROT_BIRD, "bird"},
                     {RTPROT_DHCP, "dhcp"},
                     {RTPROT_BABEL, "babel"},
                     {RTPROT_BGP, "bgp"},
                     {RTPROT_ISIS, "isis"},
                     {RTPROT_OSPF, "ospf"},
                     {RTPROT_RIP, "rip"},
                     {RTPROT_EIGRP, "eigrp"},
                     {196, "static"}}; // zebra's own number (FRR, zebra/rt_netlink.h)
    if (!e)
        return; // it is gone, but there was no memory to take it out of the tables
    json_object_set_new(json, "origin", json_string(origins[e->origin]));
    if (e->origin == ORIGIN_PORT || e->origin == ORIGIN_CONTROL)
        return;
    const char *name = NULL;
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
        if (protocols[i].number == e->protocol)
            name = protocols[i].name;
    json_object_set_new(json, "protocol", name ? json_string(name) : json_sprintf("%u", e->protocol));
    json_object_set_new(json, "metric", json_integer(e->metric));
}

static json_t *describe_route(struct listing *l, const char *prefix, uint16_t target)
{
    static const char *const types[] = {[TARGET_VIA] = "via",
                                        [TARGET_LINK] = "link",
                                        [TARGET_LOCAL] = "local",
                                        [TARGET_BROADCAST] = "broadcast",
                                        [TARGET_BLACKHOLE] = "blackhole",
                                        [TARGET_UNREACHABLE] = "unreachable",
                                        [TARGET_PUNT] = "namespace"};
    struct ip *ip = l->vn->state;
    struct route route;
    fib_describe(&ip->fib, target, &route);
    json_t *json = json_pack("{s:s, s:s}", "prefix", prefix, "type", types[route.kind]);
    if (route.kind == TARGET_LINK || route.kind == TARGET_BROADCAST) {
        const struct vn_port *port = atomic_load_explicit(&l->vn->slots[route.hops[0].port], memory_order_relaxed);
        json_object_set_new(json, "port", json_string(port ? port->name : ""));
    } else if (route.n_hops) {
        json_t *via = json_array();
        for (unsigned i = 0; i < route.n_hops; i++)
            json_array_append_new(via, describe_hop(l->vn, &route.hops[i]));
        json_object_set_new(json, "via", via);
    }
    return json;
}

static bool list_route(void *arg, rib_key key, unsigned len, uint16_t target)
{
    struct listing *l = arg;
    char text[IP_TEXT_MAX];
    ip_format_prefix(l->family, key, len, text);
    if (json_array_size(l->routes) == LISTED_MOST) {
        memcpy(l->next, text, sizeof(text));
        return false;
    }
    json_t *json = describe_route(l, text, target);
    const struct ip *ip = l->vn->state;
    if (ip->candidates)
        describe_origin(json, candidates_best(ip->candidates, l->family, key, len));
    json_array_append_new(l->routes, json);
    return true;
}

// {"from"}: a prefix, the first one to be listed; IPv4 comes before IPv6.
static int run_list_routes(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    struct ip *ip = vn->state;
    struct ip_prefix from = {.family = IP4};
    const char *text;
    if (params_get_string(params, "from", "0.0.0.0/0", &text, err))
        return -EINVAL;
    if (ip_parse_prefix(text, &from))
        return tv_error_set(err, -EINVAL, "\"from\" is '%.60s'; must be a prefix, as 10.0.0.0/8", text);
    struct listing l = {.vn = vn, .routes = json_array(), .family = from.family};
    rib_walk(&ip->fib.ribs[fib_family(from.family)], from.key, from.len, list_route, &l);
    if (from.family == IP4 && !*l.next) {
        l.family = IP6;
        rib_walk(&ip->fib.ribs[1], 0, 0, list_route, &l);
    }
    *result = json_pack("{s:o}", "routes", l.routes);
    if (*l.next)
        json_object_set_new(*result, "next", json_string(l.next));
    return 0;
}

// ---- neighbours ----

// {"port", "address", "mac"}
static int read_neighbour(struct vn *vn, const json_t *entry, bool adds, struct ip_message *message, struct tv_error *err)
{
    const char *port_name, *text, *mac = NULL;
    struct ip_prefix address;
    struct rte_ether_addr parsed = {0};
    if (params_get_string(entry, "port", NULL, &port_name, err) || params_get_string(entry, "address", NULL, &text, err) ||
        (adds && params_get_string(entry, "mac", NULL, &mac, err)))
        return -EINVAL;
    const struct vn_port *port = vn_find_port(vn, port_name);
    if (!port)
        return tv_error_set(err, -ENOENT, "there is no port '%.20s'", port_name);
    if (ip_parse_address(text, &address) || ip_is_own(port->state, address.family, address.key))
        return tv_error_set(err, -EINVAL, "\"address\" is '%.60s'; must be an IPv4 or IPv6 address of somebody else's", text);
    if (mac && (rte_ether_unformat_addr(mac, &parsed) || !rte_is_valid_assigned_ether_addr(&parsed)))
        return tv_error_set(err, -EINVAL, "\"mac\" is '%.40s'; must be a station's address, as 52:54:00:12:34:56", mac);
    *message = (struct ip_message){.adds = adds, .family = address.family, .port = port->index, .address = address.key};
    memcpy(message->mac, parsed.addr_bytes, 6);
    return 0;
}

static int run_neighbours(struct vn *vn, const json_t *params, bool adds, struct tv_error *err)
{
    const struct ip *ip = vn->state;
    const json_t *list, *entry;
    struct ip_message read;
    size_t i;
    int r = get_list(params, "neighbours", &list, err);
    for (i = 0; !r && (entry = json_array_get(list, i)); i++)
        if ((r = read_neighbour(vn, entry, adds, &read, err)))
            tv_error_prefix(err, "neighbour %zu", i + 1);
    if (!r && adds &&
        json_array_size(list) + atomic_load_explicit(&ip->neighbours->n_used, memory_order_relaxed) > ip->neighbours->most)
        r = tv_error_set(err, -ENOSPC, "there is no room for %zu neighbours more: \"neighbours\" of the network is %u",
                         json_array_size(list), ip->neighbours->most);
    for (i = 0; !r && (entry = json_array_get(list, i)); i++) {
        struct ip_message *message = malloc(sizeof(*message));
        if (!message || read_neighbour(vn, entry, adds, message, err)) {
            free(message);
            return tv_error_set(err, -ENOMEM, "out of memory; the neighbours before the %zuth are done", i + 1);
        }
        ip_post(vn, message);
    }
    return r;
}

static int run_add_neighbours(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    (void)result;
    return run_neighbours(vn, params, true, err);
}

static int run_remove_neighbours(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    (void)result;
    return run_neighbours(vn, params, false, err);
}

static json_t *describe_neighbour(struct vn *vn, const struct neighbour *n)
{
    static const char *const states[] = {"free", "incomplete", "reachable", "stale", "probe", "static"};
    char text[IP_TEXT_MAX], mac[RTE_ETHER_ADDR_FMT_SIZE] = "";
    const struct vn_port *port = atomic_load_explicit(&vn->slots[n->port % VN_PORTS_MAX], memory_order_relaxed);
    ip_format_address(n->family, (rib_key)n->high << 64 | n->low, text);
    if (n->is_ready)
        rte_ether_format_addr(mac, sizeof(mac), (const struct rte_ether_addr *)n->rewrite);
    return json_pack("{s:s, s:s, s:s, s:s}", "port", port ? port->name : "", "address", text, "mac", mac, "state",
                     n->state < sizeof(states) / sizeof(states[0]) ? states[n->state] : "");
}

static int run_list_neighbours(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    struct ip *ip = vn->state;
    struct neighbour copy;
    (void)params;
    (void)err;
    json_t *list = json_array();
    for (uint32_t i = 0; i < ip->neighbours->most && json_array_size(list) < LISTED_MOST; i++)
        if (neighbours_read(ip->neighbours, i, &copy))
            json_array_append_new(list, describe_neighbour(vn, &copy));
    *result = json_pack("{s:o}", "neighbours", list);
    return 0;
}

const struct vn_command ip_commands[] = {
    {"route.add", run_add_routes},
    {"route.remove", run_remove_routes},
    {"route.list", run_list_routes},
    {"neighbour.add", run_add_neighbours},
    {"neighbour.remove", run_remove_neighbours},
    {"neighbour.list", run_list_neighbours},
    {NULL, NULL},
};
