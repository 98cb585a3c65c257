// Networks of the type `ip`: making and taking away, what vn.stat shows. See ip.h.
#include "router/ip/control_plane.h"
#include "router/ip/fpm.h"

#include "router/link/vtep.h"
#include "router/offload.h"
#include "router/params.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_random.h>
#include <stdlib.h>

#define NEIGHBOURS_DEFAULT 1024
#define NEIGHBOURS_MOST 65536
#define NEIGHBOUR_AGE_DEFAULT_S 300
#define ERRORS_DEFAULT_PER_S 100
#define TABLE_MB_DEFAULT 256
#define STALE_DEFAULT_S 60 // FRR's daemons look for a new zebra each 10 seconds, three times
#define DIRECT_AT 8192     // routes: from here on 2 MiB for direct pointing are little beside the rest

// ---- control thread: the network ----

static void synchronize(void *arg)
{
    const struct vn *vn = arg;
    rte_rcu_qsbr_synchronize(vn->rcu, RTE_QSBR_THRID_INVALID);
}

static void free_messages(struct ip *ip, bool all)
{
    struct ip_message **at = &ip->kept;
    while (*at) {
        struct ip_message *message = *at;
        if (all || atomic_load_explicit(&message->is_done, memory_order_acquire)) {
            *at = message->next_kept;
            free(message);
        } else {
            at = &message->next_kept;
        }
    }
}

// No worker has the network, no port is left: and no packet waits, for those went with the ports.
static void ip_destroy(struct vn *vn)
{
    struct ip *ip = vn->state;
    for (uint32_t i = 0; i < ip->neighbours->n_seen; i++) {
        struct neighbour *n = &ip->neighbours->entries[i];
        for (unsigned k = 0; n->state != NEIGHBOUR_FREE && k < n->n_waiting; k++)
            rte_pktmbuf_free(n->waiting[k]);
    }
    free_messages(ip, true);
    control_plane_destroy(ip->plane);
    candidates_destroy(ip->candidates);
    fib_fini(&ip->fib);
    neighbours_destroy(ip->neighbours);
    free(ip);
}

static int read_control_plane(const struct vn *vn, const json_t *params, struct control_plane_config *plane, struct tv_error *err)
{
    plane->netns = NULL;
    if (params_get_u32(params, "fpm_port", FPM_PORT, 0, 65535, &plane->fpm_port, err) ||
        params_get_u32(params, "stale_s", STALE_DEFAULT_S, 1, 86400, &plane->stale_s, err))
        return -EINVAL;
    if (!json_object_get(params, "netns"))
        return json_object_get(params, "fpm_port") || json_object_get(params, "stale_s")
                   ? tv_error_set(err, -EINVAL, "\"fpm_port\" and \"stale_s\" are of a control plane; it needs \"netns\"")
                   : 0;
    if (params_get_name(params, "netns", NAMESPACE_NAME_MAX, &plane->netns, err))
        return -EINVAL;
    return vn->env.loop ? 0 : tv_error_set(err, -EOPNOTSUPP, "\"netns\": there is no event loop for a control plane");
}

static int ip_create(struct vn *vn, const json_t *params, struct tv_error *err)
{
    uint32_t neighbours, table_mb;
    struct ip *ip = aligned_alloc(64, (sizeof(*ip) + 63) & ~(size_t)63);
    if (!ip)
        return tv_error_set(err, -ENOMEM, "out of memory");
    *ip = (struct ip){.flow_key = rte_rand(), .hz = rte_get_tsc_hz()};
    if (params_get_u32(params, "neighbours", NEIGHBOURS_DEFAULT, 16, NEIGHBOURS_MOST, &neighbours, err) ||
        params_get_u32(params, "neighbour_age_s", NEIGHBOUR_AGE_DEFAULT_S, 1, 1000000, &ip->neighbour_age_s, err) ||
        params_get_u32(params, "icmp_errors_per_s", ERRORS_DEFAULT_PER_S, 0, 1000000, &ip->errors_per_s, err) ||
        params_get_u32(params, "table_mb", TABLE_MB_DEFAULT, 1, 1 << 16, &table_mb, err)) {
        free(ip);
        return -EINVAL;
    }
    struct control_plane_config plane;
    if (read_control_plane(vn, params, &plane, err)) {
        free(ip);
        return -EINVAL;
    }
    const struct fib_config config = {
        .synchronize = synchronize, .arg = vn, .bytes_most = (size_t)table_mb << 20, .direct_at = DIRECT_AT};
    ip->neighbours = neighbours_create(neighbours, rte_rand());
    if (!ip->neighbours || fib_init(&ip->fib, &config)) {
        neighbours_destroy(ip->neighbours);
        free(ip);
        return tv_error_set(err, -ENOMEM, "no memory for tables of %u neighbours", neighbours);
    }
    vn->state = ip;
    if (!plane.netns)
        return 0;
    ip->candidates = candidates_create(&ip->fib);
    if (!ip->candidates)
        tv_error_set(err, -ENOMEM, "out of memory");
    else
        ip->plane = control_plane_create(vn, &plane, err);
    if (ip->plane)
        return 0;
    ip_destroy(vn);
    return err->code;
}

void ip_post(struct vn *vn, struct ip_message *message)
{
    struct ip *ip = vn->state;
    free_messages(ip, false);
    message->next_kept = ip->kept;
    ip->kept = message;
    message->next_posted = atomic_load_explicit(&ip->posted, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&ip->posted, &message->next_posted, message, memory_order_release,
                                                  memory_order_relaxed)) // acquired in resolve_take_messages()
        ;
    vn_notify(vn);
}

// ---- control thread: ports ----

static int read_mac(const json_t *params, const char *key, const char *otherwise, uint8_t mac[static 6], struct tv_error *err)
{
    const char *text;
    struct rte_ether_addr parsed;
    int r = params_get_string(params, key, otherwise, &text, err);
    if (r)
        return r;
    if (rte_ether_unformat_addr(text, &parsed) || !rte_is_valid_assigned_ether_addr(&parsed))
        return tv_error_set(err, -EINVAL, "\"%s\" is '%.40s'; must be a station's address, as 52:54:00:12:34:56", key, text);
    memcpy(mac, parsed.addr_bytes, 6);
    return 0;
}

// fe80::/64 with the interface identifier of the MAC address (RFC 4291, appendix A).
static rib_key link_local_of(const uint8_t mac[static 6])
{
    const uint8_t bytes[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
    return ip6_key(bytes);
}

static int read_link(struct ip_port *own, const json_t *params, struct tv_error *err)
{
    uint32_t mtu;
    char random[RTE_ETHER_ADDR_FMT_SIZE];
    struct rte_ether_addr made;
    uint64_t word = 0;
    rte_eth_random_addr(made.addr_bytes);
    rte_ether_format_addr(random, sizeof(random), &made);
    if (read_mac(params, "mac", random, own->mac, err) ||
        params_get_u32(params, "mtu", IP_MTU_DEFAULT, IP4_MTU_LEAST, IP_MTU_MOST, &mtu, err))
        return -EINVAL;
    own->mtu = (uint16_t)mtu;
    own->link_local = link_local_of(own->mac);
    memcpy(&word, own->mac, 6);
    own->mac_word = word;
    return 0;
}

static bool is_usable(const struct ip_prefix *address)
{
    uint8_t bytes[16];
    ip6_bytes(address->key, bytes);
    return address->family == IP4 ? !ip4_is_special((uint32_t)(address->key >> 96)) : !ip6_is_special(bytes);
}

static int read_address(struct ip_port *own, const json_t *entry, struct tv_error *err)
{
    const char *text = json_is_string(entry) ? json_string_value(entry) : "";
    struct ip_prefix *address = &own->addresses[own->n_addresses];
    if (own->n_addresses == IP_PORT_ADDRESSES_MAX)
        return tv_error_set(err, -EINVAL, "\"addresses\" has more than %d", IP_PORT_ADDRESSES_MAX);
    if (ip_parse_prefix(text, address) || !is_usable(address))
        return tv_error_set(
            err, -EINVAL,
            "\"addresses\": '%.60s' is no address of the router's with the length of its prefix, as 10.0.0.1/24 or fd00::1/64",
            text);
    if (address->family == IP4 && address->len < 31 && rib_mask(address->key, address->len) == address->key)
        return tv_error_set(err, -EINVAL, "\"addresses\": '%s' is the number of a network; must be an address in it", text);
    if (address->family == IP6 && own->mtu < IP6_MTU_LEAST)
        return tv_error_set(err, -EINVAL, "\"mtu\" is %u; with IPv6 it must be %u or more", own->mtu, IP6_MTU_LEAST);
    own->n_addresses++;
    return 0;
}

static int read_machine_address(struct guard *guard, const json_t *entry, struct tv_error *err)
{
    const char *text = json_is_string(entry) ? json_string_value(entry) : "";
    struct ip_prefix address;
    uint8_t bytes[16];
    if (ip_parse_address(text, &address) || !is_usable(&address) ||
        (address.family == IP4 ? guard->n_ip4 : guard->n_ip6) == GUARD_ADDRESSES_MAX)
        return tv_error_set(err, -EINVAL, "\"machine\": '%.60s' is no IPv4 or IPv6 address of a station, or one of more than %d",
                            text, GUARD_ADDRESSES_MAX);
    ip6_bytes(address.key, bytes);
    if (address.family == IP4)
        memcpy(guard->ip4[guard->n_ip4++], bytes, 4);
    else
        memcpy(guard->ip6[guard->n_ip6++], bytes, 16);
    return 0;
}

// "machine": {"mac", "addresses"}
static int read_machine(struct ip_port *own, const json_t *params, struct tv_error *err)
{
    const json_t *machine = json_object_get(params, "machine"), *addresses, *entry;
    size_t i;
    if (!machine)
        return 0;
    addresses = json_object_get(machine, "addresses");
    if (!json_is_object(machine) || (addresses && !json_is_array(addresses)))
        return tv_error_set(err, -EINVAL, "\"machine\" must be an object of a \"mac\" and a list of \"addresses\"");
    if (read_mac(machine, "mac", NULL, own->guard.mac, err))
        return tv_error_prefix(err, "\"machine\"");
    own->is_guarded = true;
    json_array_foreach(addresses, i, entry)
    {
        if (read_machine_address(&own->guard, entry, err))
            return -EINVAL;
    }
    return 0;
}

static int read_addresses(struct ip_port *own, const json_t *params, struct tv_error *err)
{
    const json_t *addresses = json_object_get(params, "addresses"), *entry;
    size_t i;
    if (addresses && !json_is_array(addresses))
        return tv_error_set(err, -EINVAL, "\"addresses\" must be a list of the router's addresses, as 10.0.0.1/24");
    json_array_foreach(addresses, i, entry)
    {
        if (read_address(own, entry, err))
            return -EINVAL;
    }
    return 0;
}

static int ip_add_port(struct vn *vn, struct vn_port *port, const json_t *params, struct tv_error *err)
{
    (void)vn;
    struct ip_port *own = port->state = calloc(1, sizeof(*own));
    if (!own)
        return tv_error_set(err, -ENOMEM, "out of memory");
    own->has_server = json_object_get(params, "server");
    if (read_link(own, params, err) || read_addresses(own, params, err) || read_machine(own, params, err) ||
        (own->has_server && read_mac(params, "server", NULL, own->server, err))) {
        free(own);
        return -EINVAL;
    }
    return 0;
}

static void ip_free_port(struct vn_port *port)
{
    free(port->state);
}

// ---- control thread: routes ----

static struct candidate_key candidate_key(enum origin origin, const struct ip_prefix *p)
{
    return (struct candidate_key){.origin = origin, .family = p->family, .len = p->len, .key = p->key};
}

int ip_set_route(struct ip *ip, enum origin origin, const struct ip_prefix *prefix, const struct route *route)
{
    const struct candidate_key key = candidate_key(origin, prefix);
    return ip->candidates ? candidates_set(ip->candidates, &key, &(struct candidate_told){0}, route)
                          : fib_set(&ip->fib, prefix->family, prefix->key, prefix->len, route);
}

int ip_remove_route(struct ip *ip, enum origin origin, const struct ip_prefix *prefix)
{
    const struct candidate_key key = candidate_key(origin, prefix);
    return ip->candidates ? candidates_remove(ip->candidates, &key)
                          : fib_remove(&ip->fib, prefix->family, prefix->key, prefix->len);
}

struct vn_port *ip_find_link(struct vn *vn, unsigned family, rib_key address)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ip_port *own = port ? port->state : NULL;
        for (unsigned k = 0; own && k < own->n_addresses; k++) {
            const struct ip_prefix *a = &own->addresses[k];
            if (a->family == family && a->len < ip_bits(a->family) && !rib_mask(a->key ^ address, a->len))
                return port;
        }
    }
    return NULL;
}

// ---- control thread: what a port brings with it ----

static const struct vn_port *find_owner(struct vn *vn, const struct vn_port *but, unsigned family, rib_key address)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ip_port *own = port ? port->state : NULL;
        for (unsigned k = 0; own && port != but && k < own->n_addresses; k++)
            if (own->addresses[k].family == family && own->addresses[k].key == address)
                return port;
    }
    return NULL;
}

// The first of them all is in force, so one of a port's is known by it.
static bool is_taken(struct ip *ip, const struct ip_prefix *p, enum target_kind kind)
{
    struct route other;
    if (!fib_get(&ip->fib, p->family, p->key, p->len, &other) || (kind == TARGET_LOCAL && other.kind == TARGET_LOCAL))
        return false;
    const struct candidate *best = ip->candidates ? candidates_best(ip->candidates, p->family, p->key, p->len) : NULL;
    return !ip->candidates || (best && best->origin == ORIGIN_PORT);
}

static int add_route(struct ip *ip, unsigned family, rib_key key, unsigned len, enum target_kind kind, unsigned port,
                     struct tv_error *err)
{
    char text[IP_TEXT_MAX];
    const struct route route = {.kind = kind, .n_hops = kind != TARGET_LOCAL, .hops = {{.port = (uint16_t)port}}};
    const struct ip_prefix prefix = {.family = (uint8_t)family, .len = (uint8_t)len, .key = key};
    ip_format_prefix(family, key, len, text);
    if (is_taken(ip, &prefix, kind))
        return tv_error_set(err, -EEXIST, "there is a route to %s already; remove it, or the port it belongs to", text);
    const int r = ip_set_route(ip, ORIGIN_PORT, &prefix, &route);
    return r ? tv_error_set(err, r, "no memory for the route to %s; \"table_mb\" of the network is its limit", text) : 0;
}

// Of an address: itself; the link it is on; and for IPv4 that link's broadcast address (RFC 1812, 5.3.5).
static int add_address_routes(struct ip *ip, const struct vn_port *port, const struct ip_prefix *a, struct tv_error *err)
{
    int r = add_route(ip, a->family, a->key, ip_bits(a->family), TARGET_LOCAL, 0, err);
    if (!r && a->len < ip_bits(a->family))
        r = add_route(ip, a->family, rib_mask(a->key, a->len), a->len, TARGET_LINK, port->index, err);
    if (!r && a->family == IP4 && a->len < 31)
        r = add_route(ip, IP4, a->key | rib_mask(~(rib_key)0 >> a->len, 32), 32, TARGET_BROADCAST, port->index, err);
    return r;
}

static int add_machine_routes(struct ip *ip, const struct vn_port *port, struct tv_error *err)
{
    const struct ip_port *own = port->state;
    uint32_t word;
    int r = 0;
    for (unsigned i = 0; !r && i < own->guard.n_ip4; i++) {
        memcpy(&word, own->guard.ip4[i], sizeof(word));
        r = add_route(ip, IP4, ip4_key(be32toh(word)), 32, TARGET_LINK, port->index, err);
    }
    for (unsigned i = 0; !r && i < own->guard.n_ip6; i++)
        r = add_route(ip, IP6, ip6_key(own->guard.ip6[i]), 128, TARGET_LINK, port->index, err);
    return r;
}

static void ip_withdraw_port(struct vn *vn, struct vn_port *port)
{
    struct ip *ip = vn->state;
    const struct ip_port *own = port->state;
    struct route route;
    if (port->port->kind == &port_vtep)
        vtep_withdraw(port->port);
    for (unsigned i = 0; i < own->n_addresses; i++) {
        const struct ip_prefix *a = &own->addresses[i];
        const struct ip_prefix host = {.family = a->family, .len = (uint8_t)ip_bits(a->family), .key = a->key};
        if (!find_owner(vn, port, a->family, a->key) && fib_get(&ip->fib, a->family, a->key, host.len, &route) &&
            route.kind == TARGET_LOCAL)
            ip_remove_route(ip, ORIGIN_PORT, &host);
    }
    if (!ip->plane) {
        fib_withdraw_port(&ip->fib, port->index);
        return;
    }
    control_plane_withdraw_port(ip->plane, port);
    candidates_withdraw_port(ip->candidates, port->index);
}

// What fits into what the port is made of, if that is less than it was to have. IPv6 needs its least.
static int limit_mtu(struct vn_port *port, struct tv_error *err)
{
    struct ip_port *own = port->state;
    const uint16_t most = port->port->kind->mtu(port->port);
    own->mtu = own->mtu_most = own->mtu < most ? own->mtu : most;
    for (unsigned i = 0; i < own->n_addresses; i++)
        if (own->addresses[i].family == IP6 && own->mtu < IP6_MTU_LEAST)
            return tv_error_set(err, -EINVAL, "\"path_mtu\" leaves %u bytes for IP; with IPv6 it must be %u or more", own->mtu,
                                IP6_MTU_LEAST);
    return 0;
}

static bool has_server(const struct vn *vn, const struct vn_port *but)
{
    bool found = false;
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ip_port *own = port && port != but ? port->state : NULL;
        found |= own && own->has_server;
    }
    return found;
}

static int ip_publish_port(struct vn *vn, struct vn_port *port, struct tv_error *err)
{
    struct ip *ip = vn->state;
    const struct ip_port *own = port->state;
    int r = 0;
    if (port->port->kind->mtu && limit_mtu(port, err))
        return -EINVAL;
    if (own->has_server && has_server(vn, port))
        return tv_error_set(err, -EEXIST, "\"server\": another port of the network has one already");
    for (unsigned i = 0; !r && i < own->n_addresses; i++)
        r = add_address_routes(ip, port, &own->addresses[i], err);
    if (!r)
        r = add_machine_routes(ip, port, err);
    if (!r && ip->plane)
        r = control_plane_add_port(ip->plane, port, err);
    if (!r && port->port->kind == &port_vtep)
        r = underlay_publish(vn, port, err);
    if (r)
        ip_withdraw_port(vn, port);
    else
        fib_settle(&ip->fib);
    return r;
}

// ---- control thread: looking ----

static json_t *ip_describe(struct vn *vn)
{
    struct ip *ip = vn->state;
    json_t *json = json_pack("{s:I, s:I, s:I, s:I}", "routes4", (json_int_t)ip->fib.ribs[0].n_routes, "routes6",
                             (json_int_t)ip->fib.ribs[1].n_routes, "table_bytes",
                             (json_int_t)(fib_bytes(&ip->fib) + neighbours_bytes(ip->neighbours)), "neighbours",
                             (json_int_t)atomic_load_explicit(&ip->neighbours->n_used, memory_order_relaxed));
    if (ip->plane)
        json_object_set_new(json, "netns", json_string(control_plane_netns(ip->plane)));
    if (ip->plane)
        json_object_set_new(json, "control_plane", control_plane_describe(ip->plane));
    return json;
}

static json_t *describe_machine(const struct guard *guard)
{
    char mac[RTE_ETHER_ADDR_FMT_SIZE], text[IP_TEXT_MAX];
    uint32_t word;
    json_t *addresses = json_array();
    for (unsigned i = 0; i < guard->n_ip4; i++) {
        memcpy(&word, guard->ip4[i], sizeof(word));
        ip_format_address(IP4, ip4_key(be32toh(word)), text);
        json_array_append_new(addresses, json_string(text));
    }
    for (unsigned i = 0; i < guard->n_ip6; i++) {
        ip_format_address(IP6, ip6_key(guard->ip6[i]), text);
        json_array_append_new(addresses, json_string(text));
    }
    rte_ether_format_addr(mac, sizeof(mac), (const struct rte_ether_addr *)guard->mac);
    return json_pack("{s:s, s:o}", "mac", mac, "addresses", addresses);
}

static json_t *ip_describe_port(const struct vn_port *port)
{
    const struct ip_port *own = port->state;
    char mac[RTE_ETHER_ADDR_FMT_SIZE], text[IP_TEXT_MAX];
    rte_ether_format_addr(mac, sizeof(mac), (const struct rte_ether_addr *)own->mac);
    json_t *addresses = json_array();
    for (unsigned i = 0; i < own->n_addresses; i++) {
        ip_format_prefix(own->addresses[i].family, own->addresses[i].key, own->addresses[i].len, text);
        json_array_append_new(addresses, json_string(text));
    }
    json_t *json =
        json_pack("{s:s, s:i, s:o, s:I, s:I, s:I, s:I, s:I}", "mac", mac, "mtu", (int)own->mtu, "addresses", addresses,
                  "for_router", (json_int_t)counter_get(&own->for_router), "resolved", (json_int_t)counter_get(&own->resolved),
                  "icmp_errors", (json_int_t)counter_get(&own->errors_sent), "icmp_errors_limited",
                  (json_int_t)counter_get(&own->errors_limited), "fragments", (json_int_t)counter_get(&own->fragments_sent));
    if (own->is_guarded)
        json_object_set_new(json, "machine", describe_machine(&own->guard));
    if (own->has_server) {
        rte_ether_format_addr(mac, sizeof(mac), (const struct rte_ether_addr *)own->server);
        json_object_set_new(json, "server", json_string(mac));
    }
    return json;
}

// ---- worker ----

static void ip_attach(struct vn *vn, struct vn_port *port)
{
    struct ip *ip = vn->state;
    const struct ip_port *own = port->state;
    uint32_t word;
    if (!own) // a punt
        return;
    if (port->port->kind == &port_vtep) {
        ip->vtep_index = port->index + 1;
        ip->vtep = port;
    }
    if (own->has_server) {
        ip->server_index = port->index + 1;
        ip->server = port;
    }
    for (unsigned i = 0; own->is_guarded && i < own->guard.n_ip4; i++) {
        memcpy(&word, own->guard.ip4[i], sizeof(word));
        resolve_set_static(vn, port, IP4, ip4_key(be32toh(word)), own->guard.mac);
    }
    for (unsigned i = 0; own->is_guarded && i < own->guard.n_ip6; i++)
        resolve_set_static(vn, port, IP6, ip6_key(own->guard.ip6[i]), own->guard.mac);
}

static void ip_detach(struct vn *vn, unsigned index)
{
    struct ip *ip = vn->state;
    if (ip->vtep_index == index + 1) { // the port itself may be gone
        ip->vtep = NULL;
        ip->vtep_index = 0;
    }
    if (ip->server_index == index + 1) {
        ip->server = NULL;
        ip->server_index = 0;
    }
    resolve_forget_port(vn, index);
}

bool ip_is_own(const struct ip_port *own, unsigned family, rib_key address)
{
    bool found = family == IP6 && address == own->link_local;
    for (unsigned i = 0; i < own->n_addresses && !found; i++)
        found = own->addresses[i].family == family && own->addresses[i].key == address;
    return found;
}

static bool is_machines(const struct guard *guard, unsigned family, rib_key address)
{
    uint8_t bytes[16];
    ip6_bytes(address, bytes);
    bool found = false;
    for (unsigned i = 0; family == IP4 && i < guard->n_ip4; i++)
        found |= !memcmp(guard->ip4[i], bytes, 4);
    for (unsigned i = 0; family == IP6 && i < guard->n_ip6; i++)
        found |= !memcmp(guard->ip6[i], bytes, 16);
    return found;
}

bool ip_is_on_link(const struct ip_port *own, unsigned family, rib_key address)
{
    bool found = (family == IP6 && address >> 118 == 0xfe80 >> 6) || (own->is_guarded && is_machines(&own->guard, family, address));
    for (unsigned i = 0; i < own->n_addresses && !found; i++) {
        const struct ip_prefix *a = &own->addresses[i];
        found = a->family == family && !rib_mask(a->key ^ address, a->len);
    }
    return found;
}

// The first one of the family; or with on_link the first one whose link `to` is on.
static const struct ip_prefix *find_address(const struct ip_port *own, unsigned family, rib_key to, bool on_link)
{
    for (unsigned i = 0; i < own->n_addresses; i++) {
        const struct ip_prefix *a = &own->addresses[i];
        if (a->family == family && (!on_link || !rib_mask(a->key ^ to, a->len)))
            return a;
    }
    return NULL;
}

bool ip_choose_source(struct vn *vn, const struct ip_port *own, unsigned family, rib_key to, rib_key *source)
{
    if (family == IP6 && to >> 118 == 0xfe80 >> 6) {
        *source = own->link_local;
        return true;
    }
    const struct ip_prefix *a = NULL;
    for (unsigned pass = 0; pass < 2 && !a; pass++) {
        a = find_address(own, family, to, !pass);
        for (unsigned i = 0; i < vn->n_active && !a; i++)
            if (vn->active[i]->state && (!pass || !find_address(own, family, to, false)))
                a = find_address(vn->active[i]->state, family, to, !pass);
    }
    if (a)
        *source = a->key;
    return a;
}

// What leads to the server, or to nobody, is not; so the addresses of a prefix that nobody has are not taken for the outside's.
bool ip_is_elsewhere(struct vn *vn, const struct vn_port *in, unsigned family, rib_key address)
{
    struct ip *ip = vn->state;
    const struct ip_port *own = in->state;
    if (!own->is_guarded)
        return false;
    const struct poptrie_root *root = poptrie_root(&ip->fib.tries[fib_family(family)]);
    const uint16_t id = family == IP4 ? poptrie_find4(root, (uint32_t)(address >> 96)) : poptrie_find6(root, address);
    const struct target *t = &fib_targets(&ip->fib)[id];
    if (t->kind == TARGET_GROUP)
        return true;
    return (t->kind == TARGET_LINK || t->kind == TARGET_VIA) && t->port != in->index &&
           (!ip->server || t->port != ip->server->index);
}

static void ip_tick(struct vn *vn)
{
    const struct ip *ip = vn->state;
    resolve_tick(vn);
    if (ip->vtep)
        vtep_tick(ip->vtep->port, vn->now_s);
    for (unsigned i = 0; i < vn->n_active; i++) {
        struct ip_port *own = vn->active[i]->state;
        struct port *port = vn->active[i]->port;
        if (!port->kind->mtu)
            continue;
        const uint16_t now = port->kind->mtu(port), mtu = now < own->mtu_most ? now : own->mtu_most;
        if (mtu != own->mtu)
            resolve_set_mtu(vn, vn->active[i], mtu);
    }
}

const struct vn_type vn_ip = {
    .name = "ip",
    .offloads = OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6, // addresses and ports stay as they are
    .create = ip_create,
    .destroy = ip_destroy,
    .add_port = ip_add_port,
    .publish_port = ip_publish_port,
    .withdraw_port = ip_withdraw_port,
    .free_port = ip_free_port,
    .describe = ip_describe,
    .describe_port = ip_describe_port,
    .trace = ip_trace,
    .attach = ip_attach,
    .detach = ip_detach,
    .input = ip_input,
    .tick = ip_tick,
    .update = resolve_take_messages,
    .commands = ip_commands,
};
