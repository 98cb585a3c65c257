// Ports of the kinds `vxlan` and `raw`: see link.h.
#include "router/link/link.h"

#include "router/params.h"

#include <errno.h>
#include <rte_random.h>
#include <stdio.h>
#include <stdlib.h>

#define TTL_DEFAULT 64
#define FRAME_LEAST (sizeof(struct ethernet_header))

// ---- control thread ----

static int read_host(const json_t *params, const char *key, struct ip_prefix *address, struct tv_error *err)
{
    const char *text;
    uint8_t bytes[16];
    int r = params_get_string(params, key, NULL, &text, err);
    if (r)
        return r;
    r = ip_parse_address(text, address);
    ip6_bytes(address->key, bytes);
    if (r || (address->family == IP4 ? ip4_is_special((uint32_t)(address->key >> 96)) : ip6_is_special(bytes)))
        return tv_error_set(err, -EINVAL, "\"%s\" is '%.60s'; must be a host's IPv4 or IPv6 address", key, text);
    return 0;
}

static int read_hosts(struct link *link, const json_t *params, struct tv_error *err)
{
    struct ip_prefix local, remote;
    if (read_host(params, "local", &local, err) || read_host(params, "remote", &remote, err))
        return -EINVAL;
    if (local.family != remote.family)
        return tv_error_set(err, -EINVAL, "\"local\" and \"remote\" must be both of IPv4 or both of IPv6");
    if (local.key == remote.key)
        return tv_error_set(err, -EINVAL, "\"remote\" is \"local\"; must be the address of another host");
    link->config.family = local.family;
    link->config.local = local.key;
    link->config.remote = remote.key;
    return 0;
}

// Of 16 bits, or by itself: to be read after the hosts.
static int read_numbers(struct link *link, const json_t *params, struct tv_error *err)
{
    struct tunnel_config *c = &link->config;
    const bool is_vxlan = c->framing == TUNNEL_VXLAN;
    const json_t *checksum = json_object_get(params, "checksum");
    uint32_t udp_port, ttl, dscp, path_mtu;
    if (params_get_u32(params, "udp_port", is_vxlan ? TUNNEL_VXLAN_PORT : 0, 1, 65535, &udp_port, err) ||
        params_get_u32(params, "ttl", TTL_DEFAULT, 1, 254, &ttl, err) || params_get_u32(params, "dscp", 0, 0, 63, &dscp, err) ||
        params_get_u32(params, "path_mtu", LINK_PATH_MTU, LINK_MTU_LEAST, LINK_PATH_MTU_MOST, &path_mtu, err) ||
        params_get_u32(params, "vni", 0, 0, TUNNEL_VNI_MOST, &c->vni, err))
        return -EINVAL;
    if (is_vxlan && !json_object_get(params, "vni"))
        return tv_error_set(err, -EINVAL, "\"vni\" is missing, a number, 0 to %d", TUNNEL_VNI_MOST);
    if (!is_vxlan && (!udp_port || c->vni))
        return tv_error_set(err, -EINVAL,
                            "a link of the kind raw has a \"udp_port\" and no \"vni\": the UDP port alone is its network's");
    if (checksum && !json_is_boolean(checksum))
        return tv_error_set(err, -EINVAL, "\"checksum\" must be true or false");
    c->udp_port = (uint16_t)udp_port;
    c->ttl = (uint8_t)(ttl + 1); // the underlay takes one off
    c->dscp = (uint8_t)dscp;
    c->has_checksum = checksum ? json_is_true(checksum) : c->family == IP6;
    link->path_mtu = (uint16_t)path_mtu;
    return 0;
}

void link_set_mtu(struct link *link, unsigned mtu)
{
    const unsigned head = tunnel_head_bytes(link->config.family, link->config.framing);
    atomic_store_explicit(&link->frame_most, (uint16_t)(mtu + sizeof(struct ethernet_header) - head), memory_order_relaxed);
}

static int link_open(struct port *port, const json_t *params, enum tunnel_framing framing, struct tv_error *err)
{
    const char *underlay;
    struct link *link = port->own = calloc(1, sizeof(*link));
    if (!link)
        return tv_error_set(err, -ENOMEM, "out of memory");
    link->port = port;
    link->config.framing = framing;
    int r = params_get_name(params, "underlay", sizeof(link->underlay) - 1, &underlay, err);
    if (!r)
        r = read_hosts(link, params, err);
    if (!r)
        r = read_numbers(link, params, err);
    if (!r) {
        snprintf(link->underlay, sizeof(link->underlay), "%s", underlay);
        link_set_mtu(link, link->path_mtu);
        r = vtep_join(link, err);
    }
    if (r)
        free(link);
    return r;
}

static int vxlan_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    (void)fd;
    return link_open(port, params, TUNNEL_VXLAN, err);
}

static int raw_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    (void)fd;
    return link_open(port, params, TUNNEL_RAW, err);
}

static void link_close(struct port *port)
{
    struct link *link = port->own;
    vtep_leave(link);
    for (; link->head != link->tail; link->head++)
        rte_pktmbuf_free(link->queue[link->head % LINK_QUEUE]);
    free(link);
}

static json_t *link_describe(struct port *port)
{
    struct link *link = port->own;
    const struct tunnel_config *c = &link->config;
    char local[IP_TEXT_MAX], remote[IP_TEXT_MAX];
    ip_format_address(c->family, c->local, local);
    ip_format_address(c->family, c->remote, remote);
    json_t *json =
        json_pack("{s:s, s:b, s:s, s:s, s:i, s:i, s:i, s:b, s:i, s:i}", "underlay", link->underlay, "connected",
                  atomic_load_explicit(&link->vtep, memory_order_relaxed) != NULL, "local", local, "remote", remote, "udp_port",
                  (int)c->udp_port, "ttl", c->ttl - 1, "dscp", (int)c->dscp, "checksum", (int)c->has_checksum, "path_mtu",
                  (int)link->path_mtu, "frame_most", (int)atomic_load_explicit(&link->frame_most, memory_order_relaxed));
    if (c->framing == TUNNEL_VXLAN)
        json_object_set_new(json, "vni", json_integer(c->vni));
    return json;
}

static uint16_t link_mtu(const struct port *port)
{
    const struct link *link = port->own;
    return (uint16_t)(atomic_load_explicit(&link->frame_most, memory_order_relaxed) - sizeof(struct ethernet_header));
}

// ---- worker ----

static uint16_t link_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    struct link *link = port->own;
    uint16_t got = 0;
    for (; got < n && link->head != link->tail; link->head++)
        packets[got++] = link->queue[link->head % LINK_QUEUE];
    return got;
}

static uint16_t link_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    vtep_output(port->own, packets, n);
    return n;
}

static bool link_arm(struct port *port)
{
    const struct link *link = port->own;
    return link->head == link->tail;
}

void link_arrive(struct link *link, const struct tunnel_arrival *arrival)
{
    _Atomic uint64_t *dropped = link->port->env.counters->dropped;
    const size_t len = arrival->len_bytes;
    if (len < FRAME_LEAST || len >= PORT_FRAME_MAX) {
        counter_add(&dropped[DROP_MALFORMED], 1);
        return;
    }
    if (link->tail - link->head == LINK_QUEUE) {
        counter_add(&dropped[DROP_WAITING], 1);
        return;
    }
    struct rte_mbuf *packet = rte_pktmbuf_alloc(link->port->env.pool);
    if (!packet) {
        counter_add(&dropped[DROP_NO_BUFFERS], 1);
        return;
    }
    uint8_t *frame = rte_pktmbuf_mtod(packet, uint8_t *);
    memcpy(frame, arrival->payload, len);
    if (!tunnel_pass_ecn(frame, len, arrival->ecn)) {
        counter_add(&dropped[DROP_CONGESTION], 1);
        rte_pktmbuf_free(packet);
        return;
    }
    packet->data_len = (uint16_t)len;
    packet->pkt_len = (uint32_t)len;
    link->queue[link->tail++ % LINK_QUEUE] = packet;
}

#define LINK(name_, open_)                                                                                                         \
    {                                                                                                                              \
        .name = (name_), .open = (open_), .close = link_close, .receive = link_receive, .send = link_send, .arm = link_arm,        \
        .describe = link_describe, .mtu = link_mtu, .is_link = true                                                                \
    }

const struct port_kind port_vxlan = LINK("vxlan", vxlan_open);
const struct port_kind port_raw = LINK("raw", raw_open);
