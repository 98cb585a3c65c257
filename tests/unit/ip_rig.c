// Networks without a worker's thread: see ip_rig.h.
#include "ip_rig.h"

#include "router/eal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tv_error rig_error;
static struct rte_rcu_qsbr *rcu;

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "ip_rig: %s: %s\n", what, rig_error.text);
    abort();
}

void rig_start(void)
{
    const struct eal_config config = {.memory_mb = 64, .no_huge = true};
    bool has_huge;
    need(!eal_start(&config, &has_huge, &rig_error), "DPDK");
    rcu = aligned_alloc(RTE_CACHE_LINE_SIZE, rte_rcu_qsbr_get_memsize(1));
    need(rcu && !rte_rcu_qsbr_init(rcu, 1), "RCU");
    atexit(eal_stop);
}

static json_t *parse(const char *text)
{
    json_error_t error;
    char *copy = strdup(text);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    json_t *json = json_loads(copy, 0, &error);
    snprintf(rig_error.text, sizeof(rig_error.text), "%s in %s", error.text, copy);
    need(json, "parameters");
    free(copy);
    return json;
}

struct vn *rig_vn(const char *name, const char *params)
{
    json_t *json = parse(params);
    const struct vn_config config = {.name = name, .type = "ip", .n_buffers = 512, .rcu = rcu};
    struct vn *vn = vn_create(&config, json, &rig_error);
    need(vn, name);
    json_decref(json);
    vn->now_s = 1000;
    return vn;
}

struct vn_port *rig_try_port(struct vn *vn, const char *name, const char *params)
{
    json_t *json = parse(params);
    json_object_set_new(json, "kind", json_string("ring"));
    const struct port_env env = {.epoll_fd = -1, .rcu = rcu};
    rig_error = (struct tv_error){0};
    struct vn_port *port = vn_add_port(vn, name, json, -1, &env, NULL, &rig_error);
    json_decref(json);
    vn_refresh(vn);
    return port;
}

struct vn_port *rig_port(struct vn *vn, const char *name, const char *params)
{
    struct vn_port *port = rig_try_port(vn, name, params);
    need(port, name);
    return port;
}

void rig_remove_port(struct vn *vn, struct vn_port *port)
{
    // As with a worker that sleeps: it sees that the port is gone when it is gone.
    vn_remove_port(vn, port, rcu);
    vn_refresh(vn);
}

void rig_remove_vn(struct vn *vn)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++)
        if (atomic_load(&vn->slots[i]))
            rig_remove_port(vn, atomic_load(&vn->slots[i]));
    vn_destroy(vn);
}

int rig_command(struct vn *vn, const char *command, const char *params, json_t **result)
{
    json_t *json = parse(params), *ignored = NULL;
    const struct vn_command *c = vn->type->commands;
    while (c->name && strcmp(c->name, command))
        c++;
    need(c->name, command);
    rig_error = (struct tv_error){0};
    const int r = c->run(vn, json, result ? result : &ignored, &rig_error);
    json_decref(ignored);
    json_decref(json);
    vn_refresh(vn);
    return r;
}

void rig_put(struct vn_port *port, const struct packet *packet)
{
    need(!port->port->kind->put(port->port, packet->bytes, packet->len), "put");
}

void rig_run(struct vn *vn)
{
    vn_refresh(vn);
    while (vn_poll(vn, false))
        ;
}

void rig_seconds(struct vn *vn, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        vn_tick(vn, vn->now_s + 1);
}

bool rig_take(struct vn_port *port, struct packet *packet)
{
    const int len = port->port->kind->take(port->port, packet->bytes, sizeof(packet->bytes));
    packet->len = len < 0 ? 0 : (size_t)len;
    return len >= 0;
}

unsigned rig_discard(struct vn_port *port)
{
    struct packet packet;
    unsigned n = 0;
    while (rig_take(port, &packet))
        n++;
    return n;
}

uint64_t rig_drops(const struct vn_port *port, enum drop cause)
{
    return counter_get(&port->counters.dropped[cause]);
}

unsigned rig_used(const struct vn *vn)
{
    return rte_mempool_in_use_count(vn->pool);
}

// ---- frames ----

void mac_of(unsigned n, uint8_t mac[static 6])
{
    const uint8_t bytes[6] = {2, 0, 0, 0, 0, (uint8_t)n};
    memcpy(mac, bytes, 6);
}

void add_hex(struct packet *packet, const char *hex)
{
    while (*hex) {
        const char digits[3] = {hex[0], hex[1], 0};
        if (*hex == ' ') {
            hex++;
            continue;
        }
        packet->bytes[packet->len++] = (uint8_t)strtoul(digits, NULL, 16);
        hex += 2;
    }
}

struct packet make_frame(unsigned to, unsigned from, unsigned type)
{
    struct packet packet = {.len = sizeof(struct ethernet_header)};
    struct ethernet_header *frame = frame_of(&packet);
    mac_of(to, frame->to);
    if (to == 0xff)
        memset(frame->to, 0xff, 6);
    mac_of(from, frame->from);
    frame->type = htobe16((uint16_t)type);
    return packet;
}

static void add_payload(struct packet *packet, size_t n)
{
    for (size_t i = 0; i < n; i++)
        packet->bytes[packet->len++] = (uint8_t)i;
}

struct packet make_ip4(unsigned mac_to, unsigned mac_from, const struct ip4_fields *fields)
{
    struct packet packet = make_frame(mac_to, mac_from, ETHERTYPE_IP4);
    struct ip4_header *h = ip4_of(&packet);
    uint32_t from = 0, to = 0;
    need(inet_pton(AF_INET, fields->from, &from) == 1 && inet_pton(AF_INET, fields->to, &to) == 1, "an IPv4 address");
    *h = (struct ip4_header){.ttl = fields->ttl, .protocol = fields->protocol, .id = htobe16(7), .source = from, .destination = to};
    packet.len += sizeof(*h);
    add_hex(&packet, fields->options ? fields->options : "");
    const size_t header = packet.len - sizeof(struct ethernet_header);
    add_payload(&packet, fields->payload);
    h->fragment = htobe16(fields->flags);
    h->version_ihl = (uint8_t)(0x40 | header / 4);
    h->total_length = htobe16((uint16_t)(packet.len - sizeof(struct ethernet_header)));
    h->checksum = (uint16_t)~checksum_fold(checksum_add(0, h, header));
    return packet;
}

struct packet make_ip6(unsigned mac_to, unsigned mac_from, const struct ip6_fields *fields)
{
    struct packet packet = make_frame(mac_to, mac_from, ETHERTYPE_IP6);
    struct ip6_header *h = ip6_of(&packet);
    *h = (struct ip6_header){.version_class_flow = htobe32(6u << 28),
                             .payload_length = htobe16((uint16_t)fields->payload),
                             .next = fields->next,
                             .hop_limit = fields->hop_limit};
    need(inet_pton(AF_INET6, fields->from, h->source) == 1 && inet_pton(AF_INET6, fields->to, h->destination) == 1,
         "an IPv6 address");
    packet.len += sizeof(*h);
    add_payload(&packet, fields->payload);
    return packet;
}

struct packet make_echo4(unsigned mac_to, unsigned mac_from, const char *from, const char *to, size_t payload)
{
    const struct ip4_fields fields = {.from = from, .to = to, .ttl = 64, .protocol = IP_PROTOCOL_ICMP, .payload = 8 + payload};
    struct packet packet = make_ip4(mac_to, mac_from, &fields);
    uint8_t *icmp = (uint8_t *)(ip4_of(&packet) + 1);
    memcpy(icmp, (const uint8_t[8]){8, 0, 0, 0, 0, 1, 0, 2}, 8);
    const uint16_t checksum = (uint16_t)~checksum_fold(checksum_add(0, icmp, 8 + payload));
    memcpy(icmp + 2, &checksum, 2);
    return packet;
}

static void seal_icmp6(struct packet *packet)
{
    struct ip6_header *h = ip6_of(packet);
    uint8_t *icmp = (uint8_t *)(h + 1);
    const uint16_t checksum = (uint16_t)~ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, icmp, be16toh(h->payload_length));
    memcpy(icmp + 2, &checksum, 2);
}

struct packet make_icmp6(unsigned mac_to, unsigned mac_from, const char *from, const char *to, uint8_t hop_limit, const char *hex)
{
    struct packet packet =
        make_ip6(mac_to, mac_from, &(struct ip6_fields){.from = from, .to = to, .hop_limit = hop_limit, .next = IP_PROTOCOL_ICMP6});
    add_hex(&packet, hex);
    ip6_of(&packet)->payload_length = htobe16((uint16_t)(packet.len - sizeof(struct ethernet_header) - sizeof(struct ip6_header)));
    seal_icmp6(&packet);
    return packet;
}

struct packet make_echo6(unsigned mac_to, unsigned mac_from, const char *from, const char *to, size_t payload)
{
    struct packet packet =
        make_ip6(mac_to, mac_from,
                 &(struct ip6_fields){.from = from, .to = to, .hop_limit = 64, .next = IP_PROTOCOL_ICMP6, .payload = 8 + payload});
    memcpy(ip6_of(&packet) + 1, (const uint8_t[8]){128, 0, 0, 0, 0, 1, 0, 2}, 8);
    seal_icmp6(&packet);
    return packet;
}

struct packet make_arp(unsigned mac_to, unsigned mac_from, unsigned operation, const char *sender, const char *target)
{
    struct packet packet = make_frame(mac_to, mac_from, ETHERTYPE_ARP);
    uint8_t *at = packet.bytes + packet.len;
    memcpy(at, (const uint8_t[8]){0, 1, 8, 0, 6, 4, 0, (uint8_t)operation}, 8);
    mac_of(mac_from, at + 8);
    need(inet_pton(AF_INET, sender, at + 14) == 1 && inet_pton(AF_INET, target, at + 24) == 1, "an IPv4 address");
    if (mac_to != 0xff)
        mac_of(mac_to, at + 18);
    packet.len += 28;
    return packet;
}
