// What a network that routes would do with a frame: see router/trace.h. It says in words, and in the order, what forward.c does,
// and what changes there changes here; the neighbours are the worker's, and are read as neighbour.h allows.
#include "router/trace.h"

#include "router/ip/ip.h"

#include <rte_ether.h>

static void mac_text(const uint8_t mac[static 6], char text[static RTE_ETHER_ADDR_FMT_SIZE])
{
    rte_ether_format_addr(text, RTE_ETHER_ADDR_FMT_SIZE, (const struct rte_ether_addr *)mac);
}

// A packet that may be forwarded, as far as its headers say.
struct subject {
    struct vn *vn;
    struct vn_port *in;
    const void *header;
    unsigned family, bytes; // of the packet
    uint8_t ttl;
    rib_key from, to;
    char to_text[IP_TEXT_MAX];
};

// ---- where to ----

// The route that the target was made from: the longest one that there is.
static void tell_route(const struct subject *s, struct trace *t)
{
    static const char *const kinds[] = {
        [TARGET_VIA] = "by a gateway",        [TARGET_LINK] = "on a link",        [TARGET_GROUP] = "by one of several gateways",
        [TARGET_LOCAL] = "the router itself", [TARGET_BROADCAST] = "a broadcast", [TARGET_BLACKHOLE] = "a blackhole",
        [TARGET_UNREACHABLE] = "unreachable"};
    const struct ip *ip = s->vn->state;
    char prefix[IP_TEXT_MAX];
    struct route route;
    for (int len = (int)ip_bits(s->family); len >= 0; len--) {
        const rib_key key = rib_mask(s->to, (unsigned)len);
        if (!fib_get(&ip->fib, s->family, key, (unsigned)len, &route))
            continue;
        ip_format_prefix(s->family, key, (unsigned)len, prefix);
        trace_step(t, "the longest route to %s is %s: %s", s->to_text, prefix,
                   kinds[route.kind == TARGET_VIA && route.n_hops > 1 ? TARGET_GROUP : route.kind]);
        return;
    }
}

static const struct target *find_target(const struct subject *s)
{
    const struct ip *ip = s->vn->state;
    const struct poptrie_root *root = poptrie_root(&ip->fib.tries[fib_family(s->family)]);
    const uint16_t id = s->family == IP4 ? poptrie_find4(root, (uint32_t)(s->to >> 96)) : poptrie_find6(root, s->to);
    return &fib_targets(&ip->fib)[id];
}

static const struct target *choose_member(const struct subject *s, const struct target *group, struct trace *t)
{
    const struct ip *ip = s->vn->state;
    const struct ip4_header *h4 = s->header;
    const struct ip6_header *h6 = s->header;
    const unsigned header = s->family == IP4 ? ip4_header_bytes(h4) : (unsigned)sizeof(*h6), len = s->bytes - header;
    const uint32_t flow =
        s->family == IP4 ? ip4_flow(h4, (const uint8_t *)h4 + header, len, ip->flow_key) : ip6_flow(h6, h6 + 1, len, ip->flow_key);
    trace_step(t, "its flow belongs to bucket %u of %u", flow & group->group.mask, group->group.mask + 1);
    return &fib_targets(&ip->fib)[group->group.buckets[flow & group->group.mask]];
}

static bool find_neighbour(const struct subject *s, unsigned family, unsigned port, rib_key address, struct neighbour *n)
{
    struct ip *ip = s->vn->state;
    for (uint32_t i = 0; i < ip->neighbours->most; i++)
        if (neighbours_read(ip->neighbours, i, n) && neighbour_is(n, family, port, (uint64_t)(address >> 64), (uint64_t)address))
            return true;
    return false;
}

static void leave(const struct subject *s, const struct vn_port *out, const struct neighbour *n, struct trace *t)
{
    const struct ip_port *own = out->state;
    const struct ip4_header *h4 = s->header;
    char mac[RTE_ETHER_ADDR_FMT_SIZE];
    mac_text(n->rewrite, mac);
    const bool fits = s->bytes <= own->mtu;
    if (!fits && (s->family == IP6 || h4->fragment & htobe16(IP4_DONT_FRAGMENT))) {
        trace_drop(t, DROP_TOO_BIG,
                   "its %u bytes are more than the MTU %u of port '%s': it is dropped, and the sender is told by ICMP", s->bytes,
                   own->mtu, out->name);
        return;
    }
    if (!fits)
        trace_step(t, "its %u bytes are more than the MTU %u of port '%s': it goes as fragments", s->bytes, own->mtu, out->name);
    json_array_append_new(t->ports, json_string(out->name));
    trace_end(t, "sent", "it leaves by port '%s' to %s", out->name, mac);
}

static void hand_over(const struct subject *s, const struct target *target, struct trace *t)
{
    const bool is_link = target->kind == TARGET_LINK;
    const unsigned family = is_link ? s->family : target->family;
    const rib_key address = is_link ? s->to : (rib_key)target->gateway.high << 64 | target->gateway.low;
    const struct vn_port *out = atomic_load_explicit(&s->vn->slots[target->port], memory_order_relaxed);
    char text[IP_TEXT_MAX];
    struct neighbour n;
    ip_format_address(family, address, text);
    if (!out) {
        trace_drop(t, DROP_NEIGHBOUR, "the port it would leave by is gone: it is dropped");
        return;
    }
    trace_step(t, "who takes it is %s, on the link of port '%s'", text, out->name);
    if (!find_neighbour(s, family, target->port, address, &n) || !n.is_ready) {
        trace_end(t, "waits",
                  "the address of %s on that link is not known: it waits while %s asks for it, and is dropped when nobody "
                  "answers",
                  text, family == IP4 ? "ARP" : "Neighbour Discovery");
        return;
    }
    static const char *const states[] = {"free", "incomplete", "reachable", "stale", "probe", "static"};
    trace_step(t, "it is known as a neighbour, %s", states[n.state]);
    leave(s, out, &n, t);
}

// ---- to the router itself: local.c ----

static struct vn_port *find_server(const struct subject *s)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *port = atomic_load_explicit(&s->vn->slots[i], memory_order_relaxed);
        const struct ip_port *own = port && port != s->in ? port->state : NULL;
        if (own && own->has_server)
            return port;
    }
    return NULL;
}

static void refuse_local(const struct subject *s, uint8_t protocol, struct trace *t)
{
    const struct vn_port *server = protocol == IP_PROTOCOL_UDP || protocol == IP_PROTOCOL_TCP ? find_server(s) : NULL;
    if (server) {
        json_array_append_new(t->ports, json_string(server->name));
        trace_end(t, "sent", "it is for the router itself, and goes to the network's server by port '%s'", server->name);
        return;
    }
    trace_drop(t, DROP_LOCAL, "it is for the router itself, where nothing wants it: it is dropped, and the sender is told by ICMP");
}

// An ICMP message that is whole; its type, or -1 when it is dropped.
static int icmp_type(const uint8_t *icmp, size_t len, bool is_right, struct trace *t)
{
    if (len >= 8 && is_right)
        return *icmp;
    trace_drop(t, len < 8 ? DROP_MALFORMED : DROP_CHECKSUM, "it is dropped: its ICMP message is %s",
               len < 8 ? "too short" : "of another checksum");
    return -1;
}

static void local4(const struct subject *s, struct trace *t)
{
    const struct ip4_header *h = s->header;
    const uint8_t *icmp = (const uint8_t *)h + ip4_header_bytes(h);
    const size_t len = s->bytes - ip4_header_bytes(h);
    if (h->fragment & htobe16(IP4_MORE_FRAGMENTS | IP4_OFFSET)) {
        trace_drop(t, DROP_LOCAL, "it is a fragment for the router itself, which puts none together: it is dropped");
        return;
    }
    if (h->protocol != IP_PROTOCOL_ICMP) {
        refuse_local(s, h->protocol, t);
        return;
    }
    const int type = icmp_type(icmp, len, checksum_fold(checksum_add(0, icmp, len)) == 0xffff, t);
    if (type == ICMP_ECHO)
        trace_end(t, "answered", "it is an echo request to the router itself, which answers");
    else if (type >= 0)
        trace_drop(t, DROP_LOCAL, "it is ICMP to the router itself, which does not want it: it is dropped");
}

static void local6(const struct subject *s, struct trace *t)
{
    const struct ip6_header *h = s->header;
    const size_t len = s->bytes - sizeof(*h);
    const bool is_group = h->destination[0] == 0xff;
    if (h->next != IP_PROTOCOL_ICMP6) {
        if (is_group)
            trace_drop(t, DROP_MULTICAST, "it is dropped: what is for a group is not forwarded");
        else
            refuse_local(s, h->next, t);
        return;
    }
    const int type =
        icmp_type((const uint8_t *)(h + 1), len, len >= 8 && ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, h + 1, len) == 0xffff, t);
    if (type >= 133 && type <= 137) // RFC 4861, 4
        trace_end(t, "taken", "it is Neighbour Discovery, which the router takes");
    else if (type >= 0 && is_group)
        trace_drop(t, DROP_MULTICAST, "it is dropped: what is for a group is not forwarded");
    else if (type == ICMP6_ECHO && s->from)
        trace_end(t, "answered", "it is an echo request to the router itself, which answers");
    else if (type >= 0)
        trace_drop(t, DROP_LOCAL, "it is ICMP to the router itself, which does not want it: it is dropped");
}

static void tell_local(const struct subject *s, struct trace *t)
{
    if (s->family == IP4)
        local4(s, t);
    else
        local6(s, t);
}

static void follow(const struct subject *s, struct trace *t)
{
    const struct target *target = find_target(s);
    tell_route(s, t);
    if (target->kind == TARGET_LOCAL) {
        tell_local(s, t);
        return;
    }
    if (s->ttl <= 1) {
        trace_drop(t, DROP_TTL, "it has come as far as it may (%u more hops): it is dropped, and the sender is told by ICMP",
                   s->ttl);
        return;
    }
    switch (target->kind) {
    case TARGET_GROUP:
        target = choose_member(s, target, t);
        break;
    case TARGET_VIA:
    case TARGET_LINK:
        break;
    case TARGET_NONE:
        trace_drop(t, DROP_NO_ROUTE, "no route leads to %s: it is dropped, and the sender is told by ICMP", s->to_text);
        return;
    case TARGET_BROADCAST:
        trace_drop(t, DROP_MULTICAST, "it is dropped: broadcasts of a link are not forwarded to it");
        return;
    default:
        trace_drop(t, DROP_PROHIBITED, "it is dropped%s",
                   target->kind == TARGET_UNREACHABLE ? ", and the sender is told by ICMP" : "; nobody hears of it");
        return;
    }
    trace_step(t, "its TTL becomes %u", s->ttl - 1);
    hand_over(s, target, t);
}

// ---- checks ----

static bool refuses(enum drop wrong, struct trace *t)
{
    if (wrong)
        trace_drop(t, wrong, "it is dropped: %s",
                   wrong == DROP_CHECKSUM  ? "the checksum of its header is wrong"
                   : wrong == DROP_OPTIONS ? "it has a source route"
                                           : "its header is none");
    return wrong;
}

// A machine's, of DHCP, for all on its link (serve.c).
static bool is_question(const struct subject *s)
{
    const struct ip_port *own = s->in->state;
    const struct ip4_header *h = s->header;
    const size_t header = ip4_header_bytes(h);
    uint16_t port;
    if (!own->is_guarded || h->destination != UINT32_MAX || h->protocol != IP_PROTOCOL_UDP || s->bytes < header + 8)
        return false;
    memcpy(&port, (const uint8_t *)h + header + 2, sizeof(port));
    return port == htobe16(67);
}

static void trace4(struct subject *s, const struct ethernet_header *frame, struct trace *t)
{
    const struct ip4_header *h = s->header;
    if (refuses(ip4_check(h, s->bytes), t))
        return;
    const uint32_t to = be32toh(h->destination), first = to >> 24;
    s->bytes = be16toh(h->total_length);
    s->ttl = h->ttl;
    s->from = ip4_key(be32toh(h->source));
    s->to = ip4_key(to);
    ip_format_address(IP4, s->to, s->to_text);
    if (is_question(s) && find_server(s)) {
        json_array_append_new(t->ports, json_string(find_server(s)->name));
        trace_end(t, "sent", "it asks for an address, and goes to the network's server by port '%s'", find_server(s)->name);
    } else if (frame->to[0] & 1 || (first >= 224 && first < 240) || to == UINT32_MAX)
        trace_drop(t, DROP_MULTICAST, "it is dropped: what is for all is not forwarded");
    else if (ip4_is_special(be32toh(h->source)) || ip4_is_special(to))
        trace_drop(t, DROP_MARTIAN, "it is dropped: it is from or to an address that is not forwarded");
    else
        follow(s, t);
}

static void trace6(struct subject *s, const struct ethernet_header *frame, struct trace *t)
{
    const struct ip_port *own = s->in->state;
    const struct ip6_header *h = s->header;
    if (refuses(ip6_check(h, s->bytes), t))
        return;
    s->bytes = be16toh(h->payload_length) + (unsigned)sizeof(*h);
    s->ttl = h->hop_limit;
    s->from = ip6_key(h->source);
    s->to = ip6_key(h->destination);
    ip_format_address(IP6, s->to, s->to_text);
    const bool is_group = h->destination[0] == 0xff, from_link = ip6_is_link_local(h->source);
    const bool is_local = find_target(s)->kind == TARGET_LOCAL;
    if (h->source[0] == 0xff)
        trace_drop(t, DROP_MARTIAN, "it is dropped: its source is a group");
    else if (is_group || s->to == own->link_local)
        tell_local(s, t);
    else if (ip6_is_link_local(h->destination))
        trace_drop(t, DROP_MARTIAN, "it is dropped: it is for an address of a link");
    else if (frame->to[0] & 1)
        trace_drop(t, DROP_MULTICAST, "it is dropped: a frame for all is not forwarded");
    else if (ip6_is_special(h->destination) || (ip6_is_special(h->source) && !(is_local && from_link)))
        trace_drop(t, DROP_MARTIAN, "it is dropped: it is from or to an address that is not forwarded");
    else
        follow(s, t);
}

void ip_trace(struct vn *vn, struct vn_port *in, const uint8_t *bytes, size_t len_bytes, struct trace *t)
{
    const struct ip_port *own = in->state;
    const struct ethernet_header *frame = (const void *)bytes;
    char mac[RTE_ETHER_ADDR_FMT_SIZE];
    if (len_bytes < sizeof(*frame) || len_bytes >= PORT_FRAME_MAX || frame->from[0] & 1) {
        trace_drop(t, DROP_MALFORMED, "it is dropped: it is no frame that could be forwarded");
        return;
    }
    mac_text(frame->to, mac);
    if (!(frame->to[0] & 1) && memcmp(frame->to, own->mac, 6)) {
        trace_drop(t, DROP_OTHER_MAC, "it is dropped: it is for %s, another station", mac);
        return;
    }
    const enum drop wrong = own->is_guarded ? guard_check(&own->guard, bytes, len_bytes, len_bytes) : DROP_NONE;
    if (wrong) {
        trace_drop(t, wrong, "it is dropped: the machine behind the port may send with its own addresses alone");
        return;
    }
    if (own->is_guarded)
        trace_step(t, "its addresses are those of the machine behind the port");
    struct subject s = {.vn = vn, .in = in, .header = frame + 1, .bytes = (unsigned)(len_bytes - sizeof(*frame))};
    switch (be16toh(frame->type)) {
    case ETHERTYPE_IP4:
        s.family = IP4;
        trace4(&s, frame, t);
        break;
    case ETHERTYPE_IP6:
        s.family = IP6;
        trace6(&s, frame, t);
        break;
    case ETHERTYPE_ARP:
        trace_end(t, "taken",
                  "it is ARP, which the router takes, and answers if it is asked for an address of its own, or by a machine for "
                  "one behind another port");
        break;
    default:
        trace_drop(t, DROP_ETHERTYPE, "it is dropped: it is neither IP nor ARP, but 0x%04x", be16toh(frame->type));
    }
}
