// Forwarding: the fixed pipeline of a network that routes. Worker.
//
// A burst is sorted first: packets that only have to be forwarded are looked up together, so that one waits for memory while
// others are worked on; whatever is special about a packet sends it down the slow path, one at a time.
#include "router/ip/ip.h"
#include "router/offload.h"

#include <rte_branch_prediction.h>
#include <rte_prefetch.h>

// What a burst has of one family that only has to be forwarded.
struct plain {
    unsigned n;
    struct rte_mbuf *packets[PORT_BURST];
    uint16_t targets[PORT_BURST];
};

// ---- checks ----

// The frame is the port's own, and from one station: no group's bit is set in the first byte of its source.
static inline bool is_for_port(const struct ip_port *own, const struct rte_mbuf *packet)
{
    uint64_t first;
    memcpy(&first, ip_frame(packet), sizeof(first));
    return ((first ^ own->mac_word) & htobe64(0xffffffffffff0100)) == 0;
}

static inline bool is_machines_own4(const struct ip_port *own, const struct ethernet_header *frame, uint32_t source)
{
    bool is_own = !own->guard.n_ip4 && !own->guard.n_ip6;
    for (unsigned i = 0; i < own->guard.n_ip4; i++)
        is_own |= !memcmp(own->guard.ip4[i], &source, sizeof(source));
    return is_own && !memcmp(own->guard.mac, frame->from, sizeof(frame->from));
}

// Nothing is to be done with it but to forward it. What it says no to is looked at again, and then for the reason.
static inline bool is_plain4(const struct ip_port *own, const struct rte_mbuf *packet)
{
    const struct ethernet_header *frame = ip_frame(packet);
    const struct ip4_header *h = ip_packet(packet);
    if (packet->data_len < sizeof(*frame) + sizeof(*h) || packet->nb_segs != 1 || !is_for_port(own, packet) ||
        frame->type != htobe16(ETHERTYPE_IP4) || h->version_ihl != 0x45 || h->ttl <= 1)
        return false;
    const unsigned total = be16toh(h->total_length);
    if (total < sizeof(*h) || total > packet->data_len - sizeof(*frame) || ip4_checksum_plain(h) ||
        ip4_is_special(be32toh(h->source)) || ip4_is_special(be32toh(h->destination)))
        return false;
    return !own->is_guarded || is_machines_own4(own, frame, h->source);
}

static inline bool is_plain6(const struct ip_port *own, const struct rte_mbuf *packet)
{
    const struct ethernet_header *frame = ip_frame(packet);
    const struct ip6_header *h = ip_packet(packet);
    if (packet->data_len < sizeof(*frame) + sizeof(*h) || packet->nb_segs != 1 || !is_for_port(own, packet) ||
        frame->type != htobe16(ETHERTYPE_IP6) || h->hop_limit <= 1)
        return false;
    if (ip6_check(h, packet->data_len - sizeof(*frame)) || ip6_is_special(h->source) || ip6_is_special(h->destination))
        return false;
    return !own->is_guarded || !guard_check(&own->guard, (const uint8_t *)frame, packet->data_len, packet->pkt_len);
}

// ---- sending ----

static inline unsigned packet_bytes(const struct rte_mbuf *packet)
{
    return packet->pkt_len - (unsigned)sizeof(struct ethernet_header);
}

static inline void emit_whole(struct neighbour *n, struct rte_mbuf *packet)
{
    memcpy(ip_frame(packet), n->rewrite, sizeof(n->rewrite));
    vn_send(n->out, packet);
}

// What TCP sent in one go, and may be cut further than it wished for.
static void fragment_frames(struct vn *vn, struct vn_port *in, struct neighbour *n, struct rte_mbuf *packet)
{
    struct offload_cut cut = offload_cut_begin(packet);
    while (!offload_cut_is_done(&cut)) {
        struct rte_mbuf *frame = offload_cut_next(&cut, vn->pool);
        if (!frame) { // the rest is lost
            vn_drop(in, packet, DROP_NO_BUFFERS);
            return;
        }
        if (!ip4_fragment(vn, n, frame))
            vn_drop(in, frame, DROP_NO_BUFFERS);
    }
    rte_pktmbuf_free(packet);
}

static void too_big(struct vn *vn, struct vn_port *in, struct neighbour *n, struct rte_mbuf *packet)
{
    const struct ip *ip = vn->state;
    const struct ip4_header *h = ip_packet(packet);
    const bool is_4 = ip_frame(packet)->type == htobe16(ETHERTYPE_IP4);
    if (in == ip->vtep) { // the link is told, and no error of ICMP sent to ourselves
        underlay_too_big(vn, is_4 ? IP4 : IP6, h, packet_bytes(packet), n->mtu);
        vn_drop(in, packet, DROP_TOO_BIG);
        return;
    }
    if (is_4 && !(h->fragment & htobe16(IP4_DONT_FRAGMENT))) {
        if (offload_is_long(packet))
            fragment_frames(vn, in, n, packet);
        else if (!ip4_fragment(vn, n, packet))
            vn_drop(in, packet, DROP_NO_BUFFERS);
        return;
    }
    if (is_4)
        icmp4_error(vn, in, packet, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, n->mtu); // RFC 1191, 4
    else
        icmp6_error(vn, in, packet, ICMP6_TOO_BIG, 0, n->mtu);
    vn_drop(in, packet, DROP_TOO_BIG);
}

void ip_emit(struct vn *vn, struct vn_port *in, struct neighbour *n, struct rte_mbuf *packet)
{
    n->used_s = vn->now_s;
    if (unlikely(packet_bytes(packet) > n->mtu) && offload_frame_bytes(packet) > n->mtu + sizeof(struct ethernet_header))
        too_big(vn, in, n, packet);
    else
        emit_whole(n, packet);
}

// ---- where to ----

static rib_key destination_of(const struct rte_mbuf *packet, unsigned family)
{
    const struct ip4_header *h4 = ip_packet(packet);
    const struct ip6_header *h6 = ip_packet(packet);
    return family == IP4 ? ip4_key(be32toh(h4->destination)) : ip6_key(h6->destination);
}

static struct target *choose_member(struct vn *vn, struct target *targets, const struct target *group,
                                    const struct rte_mbuf *packet, unsigned family)
{
    const struct ip *ip = vn->state;
    const struct ip4_header *h4 = ip_packet(packet);
    const struct ip6_header *h6 = ip_packet(packet);
    const unsigned header = family == IP4 ? ip4_header_bytes(h4) : (unsigned)sizeof(*h6), len = packet_bytes(packet) - header;
    const uint32_t flow =
        family == IP4 ? ip4_flow(h4, (const uint8_t *)h4 + header, len, ip->flow_key) : ip6_flow(h6, h6 + 1, len, ip->flow_key);
    return &targets[group->group.buckets[flow & group->group.mask]];
}

// The neighbour that a target leads to, if it was there when it was last looked for.
static inline struct neighbour *hinted(const struct ip *ip, const struct target *t)
{
    const uint32_t hint = atomic_load_explicit(&t->hint, memory_order_relaxed);
    if (unlikely(t->kind != TARGET_VIA || hint >= ip->neighbours->n_seen))
        return NULL;
    struct neighbour *n = &ip->neighbours->entries[hint];
    return likely(neighbour_is(n, t->family, t->port, t->gateway.high, t->gateway.low)) ? n : NULL;
}

// The neighbour that takes the packet, known or to be asked for. NULL: the port is gone, or there is no room.
static struct neighbour *find_neighbour(struct vn *vn, struct target *t, unsigned family, const struct rte_mbuf *packet)
{
    struct ip *ip = vn->state;
    struct vn_port *out = vn->by_index[t->port];
    struct neighbour *n = hinted(ip, t);
    if (n || !out)
        return n;
    if (t->kind == TARGET_LINK)
        return resolve_get(vn, family, out, destination_of(packet, family));
    n = resolve_get(vn, t->family, out, (rib_key)t->gateway.high << 64 | t->gateway.low);
    if (n)
        atomic_store_explicit(&t->hint, (uint32_t)(n - ip->neighbours->entries), memory_order_relaxed);
    return n;
}

static void refuse(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, unsigned family, enum drop cause)
{
    const bool prohibited = cause == DROP_PROHIBITED;
    if (family == IP4)
        icmp4_error(vn, in, packet, ICMP_UNREACHABLE, prohibited ? ICMP_HOST : ICMP_NET, 0);
    else
        icmp6_error(vn, in, packet, ICMP6_UNREACHABLE, prohibited ? ICMP6_ADDRESS : ICMP6_NO_ROUTE, 0);
    vn_drop(in, packet, cause);
}

// n NULL: there was no room for one.
static void hand_over(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, struct neighbour *n)
{
    if (!n)
        vn_drop(in, packet, DROP_NEIGHBOUR);
    else if (n->is_ready)
        ip_emit(vn, in, n, packet);
    else
        resolve_wait(vn, in, n, packet);
}

static void decrement(struct rte_mbuf *packet, unsigned family)
{
    struct ip6_header *h6 = ip_packet(packet);
    if (family == IP4)
        ip4_decrement(ip_packet(packet));
    else
        h6->hop_limit--;
}

static void time_exceeded(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, unsigned family)
{
    if (family == IP4)
        icmp4_error(vn, in, packet, ICMP_TIME_EXCEEDED, 0, 0);
    else
        icmp6_error(vn, in, packet, ICMP6_TIME_EXCEEDED, 0, 0);
    vn_drop(in, packet, DROP_TTL);
}

// One packet to one target. Not from here on: whether it may be forwarded at all.
static void follow(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet, struct target *targets, uint16_t id, unsigned family,
                   bool is_ours)
{
    const struct ip4_header *h4 = ip_packet(packet);
    const struct ip6_header *h6 = ip_packet(packet);
    struct target *t = &targets[id];
    if (t->kind == TARGET_LOCAL && !is_ours) {
        if (family == IP4)
            local_input4(vn, in, packet);
        else
            local_input6(vn, in, packet);
        return;
    }
    if (t->kind == TARGET_PUNT && !is_ours) { // its kernel counts the TTL
        if (!punt_up(vn, in, packet))
            vn_drop(in, packet, DROP_LOCAL);
        return;
    }
    if (!is_ours && (family == IP4 ? h4->ttl : h6->hop_limit) <= 1) {
        time_exceeded(vn, in, packet, family);
        return;
    }
    switch (t->kind) {
    case TARGET_GROUP:
        t = choose_member(vn, targets, t, packet, family);
        break;
    case TARGET_VIA:
    case TARGET_LINK:
        break;
    case TARGET_UNREACHABLE:
        refuse(vn, in, packet, family, DROP_PROHIBITED);
        return;
    case TARGET_NONE:
        refuse(vn, in, packet, family, DROP_NO_ROUTE);
        return;
    default: // blackholes, broadcasts, and what the router would send to itself
        vn_drop(in, packet, t->kind == TARGET_BROADCAST ? DROP_MULTICAST : DROP_PROHIBITED);
        return;
    }
    if (!is_ours)
        decrement(packet, family);
    hand_over(vn, in, packet, find_neighbour(vn, t, family, packet));
}

void ip_output_on_link(struct vn *vn, struct vn_port *out, struct rte_mbuf *packet, unsigned family, rib_key to)
{
    hand_over(vn, out, packet, resolve_get(vn, family, out, to));
}

void ip_output(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip *ip = vn->state;
    const unsigned family = ip_frame(packet)->type == htobe16(ETHERTYPE_IP4) ? IP4 : IP6;
    const rib_key to = destination_of(packet, family);
    const struct poptrie_root *root = poptrie_root(&ip->fib.tries[fib_family(family)]);
    const uint16_t id = family == IP4 ? poptrie_find4(root, (uint32_t)(to >> 96)) : poptrie_find6(root, to);
    const struct ip6_header *h6 = ip_packet(packet);
    if (family == IP4 || !ip6_is_link_local(h6->destination)) {
        follow(vn, in, packet, fib_targets(&ip->fib), id, family, true);
        return;
    }
    // An address of the link says nothing about which; it is the one where the question came from.
    ip_output_on_link(vn, in, packet, IP6, to);
}

// ---- the slow path: whatever is special ----

// What lies behind the packet in the frame is no part of it (RFC 894; IEEE 802.3 pads to 60 bytes). False: there should be nothing,
// as behind what TCP sent in one go.
static bool cut_padding(struct rte_mbuf *packet, size_t len_bytes)
{
    const size_t whole = sizeof(struct ethernet_header) + len_bytes;
    return packet->pkt_len == whole || (!offload_is_long(packet) && !rte_pktmbuf_trim(packet, (uint16_t)(packet->pkt_len - whole)));
}

// 224.0.0.0/24, never forwarded (RFC 5771, 4), and to all on the link.
static bool is_for_link4(uint32_t to)
{
    return to >> 8 == 0xe00000 || to == UINT32_MAX;
}

static void slow4(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip *ip = vn->state;
    const struct ip4_header *h = ip_packet(packet);
    const enum drop wrong = ip4_check(h, packet_bytes(packet));
    if (wrong) {
        vn_drop(in, packet, wrong);
        return;
    }
    if (!cut_padding(packet, be16toh(h->total_length))) {
        vn_drop(in, packet, DROP_MALFORMED);
        return;
    }
    const uint32_t to = be32toh(h->destination), first = to >> 24;
    if (is_for_link4(to) && (punt_up(vn, in, packet) || (to == UINT32_MAX && serve_question(vn, in, packet))))
        return;
    if (serve_answer(vn, in, packet))
        return;
    if (!is_for_port(in->state, packet) || (first >= 224 && first < 240) || to == UINT32_MAX) {
        vn_drop(in, packet, DROP_MULTICAST); // a frame for all is not forwarded, whatever is in it (RFC 1812, 5.3.4)
        return;
    }
    if (ip4_is_special(be32toh(h->source)) || ip4_is_special(to)) {
        vn_drop(in, packet, DROP_MARTIAN);
        return;
    }
    const uint16_t id = poptrie_find4(poptrie_root(&ip->fib.tries[0]), to);
    follow(vn, in, packet, fib_targets(&ip->fib), id, IP4, false);
}

static void slow6(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip *ip = vn->state;
    const struct ip_port *own = in->state;
    const struct ip6_header *h = ip_packet(packet);
    const enum drop wrong = ip6_check(h, packet_bytes(packet));
    if (wrong || h->source[0] == 0xff) { // RFC 4291, 2.7
        vn_drop(in, packet, wrong ? wrong : DROP_MARTIAN);
        return;
    }
    if (!cut_padding(packet, sizeof(*h) + be16toh(h->payload_length))) {
        vn_drop(in, packet, DROP_MALFORMED);
        return;
    }
    if (h->destination[0] == 0xff || ip6_is_link_local(h->destination)) {
        if (h->destination[0] == 0xff || ip6_key(h->destination) == own->link_local)
            local_input6(vn, in, packet);
        else
            vn_drop(in, packet, DROP_MARTIAN); // RFC 4291, 2.5.6
        return;
    }
    const rib_key to = ip6_key(h->destination);
    const uint16_t id = poptrie_find6(poptrie_root(&ip->fib.tries[1]), to);
    struct target *targets = fib_targets(&ip->fib);
    const bool is_local = targets[id].kind == TARGET_LOCAL, from_link = ip6_is_link_local(h->source);
    if (!is_for_port(own, packet))
        vn_drop(in, packet, DROP_MULTICAST);
    else if (ip6_is_special(h->destination) || (ip6_is_special(h->source) && !(is_local && from_link)))
        vn_drop(in, packet, DROP_MARTIAN);
    else
        follow(vn, in, packet, targets, id, IP6, false);
}

// What TCP sent in one go: in several buffers, of which the first has all that is looked at here, and that an error quotes.
static bool is_whole_head(const struct rte_mbuf *packet)
{
    return offload_is_long(packet) && packet->data_len >= sizeof(struct ethernet_header) + IP6_MTU_LEAST;
}

static void slow(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    const struct ip_port *own = in->state;
    const struct ethernet_header *frame = ip_frame(packet);
    const bool is_plain = packet->nb_segs == 1 && packet->pkt_len < PORT_FRAME_MAX;
    if (packet->data_len < sizeof(*frame) || !(is_plain || is_whole_head(packet)) || (frame->from[0] & 1)) {
        vn_drop(in, packet, DROP_MALFORMED);
        return;
    }
    if (!(frame->to[0] & 1) && !is_for_port(own, packet)) {
        vn_drop(in, packet, DROP_OTHER_MAC);
        return;
    }
    const enum drop wrong =
        own->is_guarded ? guard_check(&own->guard, (const uint8_t *)frame, packet->data_len, packet->pkt_len) : DROP_NONE;
    if (wrong) {
        vn_drop(in, packet, wrong);
        return;
    }
    switch (be16toh(frame->type)) {
    case ETHERTYPE_IP4:
        slow4(vn, in, packet);
        break;
    case ETHERTYPE_IP6:
        slow6(vn, in, packet);
        break;
    case ETHERTYPE_ARP:
        arp_input(vn, in, packet);
        break;
    default:
        vn_drop(in, packet, DROP_ETHERTYPE);
    }
}

// ---- the fast path ----

static void sort(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n, struct plain *four, struct plain *six)
{
    const struct ip_port *own = in->state;
    for (unsigned i = 0; i < n; i++) {
        if (likely(is_plain4(own, packets[i])))
            four->packets[four->n++] = packets[i];
        else if (is_plain6(own, packets[i]))
            six->packets[six->n++] = packets[i];
        else
            slow(vn, in, packets[i]);
    }
}

// All entries of the root are asked for, then all nodes, then the looks are finished.
static void look_up4(const struct poptrie_root *root, struct plain *plain)
{
    uint32_t to[PORT_BURST];
    for (unsigned i = 0; i < plain->n; i++) {
        const struct ip4_header *h = ip_packet(plain->packets[i]);
        to[i] = be32toh(h->destination);
        rte_prefetch0((const void *)poptrie_entry(root, (uint64_t)to[i] << 32));
    }
    for (unsigned i = 0; i < plain->n; i++) {
        const uintptr_t entry = atomic_load_explicit(poptrie_entry(root, (uint64_t)to[i] << 32), memory_order_acquire);
        rte_prefetch0((const void *)entry); // a value is no address; asking for it does no harm
    }
    for (unsigned i = 0; i < plain->n; i++) // packets come in trains, and those of tunnels go to one host
        plain->targets[i] = i && to[i] == to[i - 1] ? plain->targets[i - 1] : poptrie_find4(root, to[i]);
}

static void look_up6(const struct poptrie_root *root, struct plain *plain)
{
    rib_key to[PORT_BURST];
    for (unsigned i = 0; i < plain->n; i++) {
        const struct ip6_header *h = ip_packet(plain->packets[i]);
        to[i] = ip6_key(h->destination);
        rte_prefetch0((const void *)poptrie_entry(root, (uint64_t)(to[i] >> 64)));
    }
    for (unsigned i = 0; i < plain->n; i++)
        plain->targets[i] = i && to[i] == to[i - 1] ? plain->targets[i - 1] : poptrie_find6(root, to[i]);
}

static inline struct neighbour *ready_neighbour(struct vn *vn, struct target *targets, struct target *t, struct rte_mbuf *packet,
                                                unsigned family)
{
    const struct ip *ip = vn->state;
    if (t->kind == TARGET_GROUP)
        t = choose_member(vn, targets, t, packet, family);
    struct neighbour *n =
        t->kind == TARGET_LINK ? neighbour_find(ip->neighbours, family, t->port, destination_of(packet, family)) : hinted(ip, t);
    return n && n->is_ready ? n : NULL;
}

static void forward4(struct vn *vn, struct vn_port *in, struct plain *plain)
{
    const struct ip *ip = vn->state;
    look_up4(poptrie_root(&ip->fib.tries[0]), plain);
    struct target *targets = fib_targets(&ip->fib);
    struct neighbour *n = NULL; // that took the packet before
    uint32_t to = 0;
    for (unsigned i = 0; i < plain->n; i++) {
        struct rte_mbuf *packet = plain->packets[i];
        struct ip4_header *h = ip_packet(packet);
        struct target *t = &targets[plain->targets[i]];
        const unsigned total = be16toh(h->total_length);
        if (unlikely(packet_bytes(packet) != total) && !cut_padding(packet, total)) {
            vn_drop(in, packet, DROP_MALFORMED);
            continue;
        }
        if (!n || h->destination != to || t->kind == TARGET_GROUP)
            n = ready_neighbour(vn, targets, t, packet, IP4);
        if (unlikely(!n || total > n->mtu)) {
            follow(vn, in, packet, targets, plain->targets[i], IP4, false);
            n = NULL; // it may be gone
            continue;
        }
        to = h->destination;
        ip4_decrement(h);
        n->used_s = vn->now_s;
        emit_whole(n, packet);
    }
}

static void forward6(struct vn *vn, struct vn_port *in, struct plain *plain)
{
    const struct ip *ip = vn->state;
    look_up6(poptrie_root(&ip->fib.tries[1]), plain);
    struct target *targets = fib_targets(&ip->fib);
    struct neighbour *n = NULL; // that took the packet before
    uint8_t to[16] = {0};
    for (unsigned i = 0; i < plain->n; i++) {
        struct rte_mbuf *packet = plain->packets[i];
        struct ip6_header *h = ip_packet(packet);
        struct target *t = &targets[plain->targets[i]];
        const unsigned total = be16toh(h->payload_length) + (unsigned)sizeof(*h);
        if (unlikely(packet_bytes(packet) != total) && !cut_padding(packet, total)) {
            vn_drop(in, packet, DROP_MALFORMED);
            continue;
        }
        if (!n || memcmp(h->destination, to, sizeof(to)) || t->kind == TARGET_GROUP)
            n = ready_neighbour(vn, targets, t, packet, IP6);
        if (unlikely(!n || total > n->mtu)) {
            follow(vn, in, packet, targets, plain->targets[i], IP6, false);
            n = NULL; // it may be gone
            continue;
        }
        memcpy(to, h->destination, sizeof(to));
        h->hop_limit--;
        n->used_s = vn->now_s;
        emit_whole(n, packet);
    }
}

void ip_input(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n)
{
    struct plain four, six;
    if (unlikely(in->punts_for)) {
        punt_input(vn, in, packets, n);
        return;
    }
    four.n = six.n = 0;
    for (unsigned i = 0; i < n; i++)
        rte_prefetch0(rte_pktmbuf_mtod(packets[i], void *));
    sort(vn, in, packets, n, &four, &six);
    if (likely(four.n))
        forward4(vn, in, &four);
    if (six.n)
        forward6(vn, in, &six);
}
