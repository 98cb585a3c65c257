// Neighbours that have to be asked for: packets wait, questions are repeated once a second, what is known grows old (RFC 1122,
// 2.3.2; RFC 4861, 7.3, whose states these are for both families). Worker.
#include "router/ip/ip.h"

#include <rte_cycles.h>

#define TRIES_MOST 3    // MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT (RFC 4861, 10), a second apart
#define REACHABLE_S 30u // REACHABLE_TIME

static void solicit(struct vn *vn, struct neighbour *n)
{
    n->tries++;
    if (n->family == IP4)
        arp_solicit(vn, n->out, n);
    else
        nd_solicit(vn, n->out, n);
}

static void set_link(struct neighbour *n, struct vn_port *out)
{
    const struct ip_port *own = out->state;
    n->out = out;
    n->mtu = own->mtu;
    memcpy(n->rewrite + 6, own->mac, sizeof(own->mac));
}

static struct neighbour *add_neighbour(struct vn *vn, unsigned family, struct vn_port *out, rib_key address)
{
    struct ip *ip = vn->state;
    struct neighbour *n = neighbour_add(ip->neighbours, family, out->index, address, vn->now_s);
    if (n) {
        neighbour_begin(n);
        set_link(n, out);
        neighbour_end(n);
    }
    return n;
}

struct neighbour *resolve_meet(struct vn *vn, unsigned family, struct vn_port *out, rib_key address)
{
    struct ip *ip = vn->state;
    struct neighbour *n = neighbour_find(ip->neighbours, family, out->index, address);
    return n ? n : add_neighbour(vn, family, out, address);
}

struct neighbour *resolve_get(struct vn *vn, unsigned family, struct vn_port *out, rib_key address)
{
    struct ip *ip = vn->state;
    struct neighbour *n = neighbour_find(ip->neighbours, family, out->index, address);
    if (n)
        return n;
    // Who scans a link's addresses must not push out those that are there.
    if (ip->neighbours->n_incomplete > ip->neighbours->most / 4)
        return NULL;
    n = add_neighbour(vn, family, out, address);
    if (n)
        solicit(vn, n);
    return n;
}

// ---- packets that wait ----

void resolve_wait(struct vn *vn, struct vn_port *in, struct neighbour *n, struct rte_mbuf *packet)
{
    struct ip *ip = vn->state;
    if (n->n_waiting == NEIGHBOUR_WAITING_MAX || ip->n_waiting >= vn->n_buffers / 8) {
        vn_drop(in, packet, DROP_WAITING);
        return;
    }
    n->waiting[n->n_waiting++] = packet;
    ip->n_waiting += packet->nb_segs;
}

// How many.
static unsigned take_waiting(struct ip *ip, struct neighbour *n, struct rte_mbuf *waiting[static NEIGHBOUR_WAITING_MAX])
{
    const unsigned n_waiting = n->n_waiting;
    n->n_waiting = 0;
    for (unsigned i = 0; i < n_waiting; i++) {
        waiting[i] = n->waiting[i];
        ip->n_waiting -= waiting[i]->nb_segs;
    }
    return n_waiting;
}

static void send_waiting(struct vn *vn, struct neighbour *n)
{
    struct rte_mbuf *waiting[NEIGHBOUR_WAITING_MAX];
    const unsigned n_waiting = take_waiting(vn->state, n, waiting);
    for (unsigned i = 0; i < n_waiting; i++)
        ip_emit(vn, n->out, n, waiting[i]);
}

// Whoever waits for it hears of it (RFC 1812, 5.2.7.1; RFC 4861, 7.2.2), unless the port is going, and nobody can be told. It is
// gone before: to tell somebody may need the same neighbour again.
static void forget(struct vn *vn, struct neighbour *n, bool tells)
{
    struct ip *ip = vn->state;
    struct rte_mbuf *waiting[NEIGHBOUR_WAITING_MAX];
    struct vn_port *out = n->out;
    const unsigned n_waiting = take_waiting(ip, n, waiting);
    neighbour_remove(ip->neighbours, n);
    for (unsigned i = 0; i < n_waiting; i++) {
        if (!tells) {
            rte_pktmbuf_free(waiting[i]);
            continue;
        }
        if (ip_frame(waiting[i])->type == htobe16(ETHERTYPE_IP4))
            icmp4_error(vn, out, waiting[i], ICMP_UNREACHABLE, ICMP_HOST, 0);
        else
            icmp6_error(vn, out, waiting[i], ICMP6_UNREACHABLE, ICMP6_ADDRESS, 0);
        vn_drop(out, waiting[i], DROP_NEIGHBOUR);
    }
}

// ---- what is heard ----

void resolve_heard(struct vn *vn, struct neighbour *n, const uint8_t mac[static 6], bool is_answer)
{
    struct ip *ip = vn->state;
    const bool changes = !n->is_ready || memcmp(n->rewrite, mac, 6);
    if (n->state == NEIGHBOUR_STATIC || (!changes && !is_answer))
        return;
    neighbour_begin(n);
    memcpy(n->rewrite, mac, 6);
    n->is_ready = true;
    neighbour_set_state(ip->neighbours, n, is_answer ? NEIGHBOUR_REACHABLE : NEIGHBOUR_STALE, vn->now_s);
    neighbour_end(n);
    send_waiting(vn, n);
}

// ---- once a second ----

static void set_state(struct vn *vn, struct neighbour *n, enum neighbour_state state)
{
    struct ip *ip = vn->state;
    neighbour_begin(n);
    neighbour_set_state(ip->neighbours, n, state, vn->now_s);
    neighbour_end(n);
}

static void tick_neighbour(struct vn *vn, struct neighbour *n)
{
    const struct ip *ip = vn->state;
    switch (n->state) {
    case NEIGHBOUR_INCOMPLETE:
    case NEIGHBOUR_PROBE:
        if (n->tries >= TRIES_MOST)
            forget(vn, n, true);
        else
            solicit(vn, n);
        break;
    case NEIGHBOUR_REACHABLE:
        if (vn->now_s - n->since_s >= REACHABLE_S)
            set_state(vn, n, NEIGHBOUR_STALE);
        break;
    case NEIGHBOUR_STALE:
        if (n->used_s > n->since_s) {
            set_state(vn, n, NEIGHBOUR_PROBE);
            solicit(vn, n);
        } else if (vn->now_s - n->since_s > ip->neighbour_age_s) {
            forget(vn, n, false);
        }
        break;
    default:
        break;
    }
}

void resolve_tick(struct vn *vn)
{
    struct ip *ip = vn->state;
    for (uint32_t i = 0; i < ip->neighbours->n_seen; i++)
        tick_neighbour(vn, &ip->neighbours->entries[i]);
}

void resolve_set_mtu(struct vn *vn, struct vn_port *out, uint16_t mtu)
{
    struct ip *ip = vn->state;
    struct ip_port *own = out->state;
    own->mtu = mtu;
    for (uint32_t i = 0; i < ip->neighbours->n_seen; i++) {
        struct neighbour *n = &ip->neighbours->entries[i];
        if (n->state == NEIGHBOUR_FREE || n->port != out->index)
            continue;
        neighbour_begin(n);
        n->mtu = mtu;
        neighbour_end(n);
    }
}

// ---- what control has to say ----

void resolve_forget_port(struct vn *vn, unsigned port)
{
    struct ip *ip = vn->state;
    for (uint32_t i = 0; i < ip->neighbours->n_seen; i++) {
        struct neighbour *n = &ip->neighbours->entries[i];
        if (n->state != NEIGHBOUR_FREE && n->port == port)
            forget(vn, n, false);
    }
}

void resolve_set_static(struct vn *vn, struct vn_port *out, unsigned family, rib_key address, const uint8_t mac[static 6])
{
    struct ip *ip = vn->state;
    struct neighbour *n = neighbour_find(ip->neighbours, family, out->index, address);
    if (!n)
        n = add_neighbour(vn, family, out, address);
    if (!n)
        return;
    neighbour_begin(n);
    memcpy(n->rewrite, mac, 6);
    n->is_ready = true;
    neighbour_set_state(ip->neighbours, n, NEIGHBOUR_STATIC, vn->now_s);
    neighbour_end(n);
    send_waiting(vn, n);
}

static void carry_out(struct vn *vn, const struct ip_message *message)
{
    struct ip *ip = vn->state;
    struct vn_port *out = vn->by_index[message->port];
    if (!out)
        return; // it has gone meanwhile
    struct neighbour *n = neighbour_find(ip->neighbours, message->family, message->port, message->address);
    if (message->adds)
        resolve_set_static(vn, out, message->family, message->address, message->mac);
    else if (n)
        forget(vn, n, false);
}

void resolve_take_messages(struct vn *vn)
{
    struct ip *ip = vn->state;
    struct ip_message *last_first = atomic_exchange_explicit(&ip->posted, NULL, memory_order_acquire), *first = NULL;
    while (last_first) { // the order in which they were posted
        struct ip_message *message = last_first;
        last_first = message->next_posted;
        message->next_posted = first;
        first = message;
    }
    while (first) {
        struct ip_message *message = first;
        first = message->next_posted;
        carry_out(vn, message);
        atomic_store_explicit(&message->is_done, true, memory_order_release); // it is the control thread's again
    }
}
