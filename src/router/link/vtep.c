// The end of tunnels: see vtep.h.
#include "router/link/link.h"

#include <errno.h>
#include <rte_prefetch.h>
#include <rte_random.h>
#include <stdlib.h>

#define BUCKETS 1024 // a power of two
#define PORTS 65536
#define MTU_AGE_S 600 // RFC 1191, 6.3

struct vtep {
    struct port *port;
    struct vtep_host host;
    struct vtep *next;                                    // of all that are published
    _Atomic(struct link *) heads[BUCKETS];                // written by the control thread, acquired by the worker
    _Atomic uint64_t wanted[PORTS / 64], raw[PORTS / 64]; // UDP ports of links, and those of them without a header
    _Atomic unsigned n_links;
};

// The control thread's: links have the name of a network, and there may be none of that name for a while.
static struct vtep *all;
static struct link *links;

// ---- which link a packet belongs to ----

static unsigned bucket_of(rib_key from, uint16_t udp_port, uint32_t vni)
{
    const uint64_t word = ((uint64_t)(from >> 64) * 3 ^ (uint64_t)from) + ((uint64_t)vni << 16 | udp_port);
    return (unsigned)(word * 0x9e3779b97f4a7c15u >> 54) & (BUCKETS - 1); // 2^64 / the golden ratio
}

static bool has(const _Atomic uint64_t *ports, uint16_t udp_port)
{
    return atomic_load_explicit(&ports[udp_port / 64], memory_order_relaxed) >> udp_port % 64 & 1;
}

static struct link *find_link(const struct vtep *vtep, unsigned family, rib_key from, uint16_t udp_port, uint32_t vni)
{
    struct link *link = atomic_load_explicit(&vtep->heads[bucket_of(from, udp_port, vni)], memory_order_acquire);
    while (link && (link->config.remote != from || link->config.udp_port != udp_port || link->config.vni != vni ||
                    link->config.family != family))
        link = atomic_load_explicit(&link->next, memory_order_acquire);
    return link;
}

// The payload is then the inner frame. NULL: there is none.
static struct link *find_owner(const struct vtep *vtep, struct tunnel_arrival *arrival)
{
    uint32_t vni = 0;
    if (!has(vtep->wanted, arrival->udp_port))
        return NULL;
    if (!has(vtep->raw, arrival->udp_port) && !tunnel_read_vxlan(arrival, &vni))
        return NULL;
    return find_link(vtep, arrival->family, arrival->from, arrival->udp_port, vni);
}

// ---- control thread: links ----

static void set_port(_Atomic uint64_t *ports, uint16_t udp_port, bool value)
{
    const uint64_t bit = (uint64_t)1 << udp_port % 64, before = atomic_load_explicit(&ports[udp_port / 64], memory_order_relaxed);
    atomic_store_explicit(&ports[udp_port / 64], value ? before | bit : before & ~bit, memory_order_relaxed);
}

static void attach(struct vtep *vtep, struct link *link)
{
    const struct tunnel_config *c = &link->config;
    _Atomic(struct link *) *head = &vtep->heads[bucket_of(c->remote, c->udp_port, c->vni)];
    tunnel_init(&link->tunnel, c, vtep->host.mac, rte_rand());
    set_port(vtep->raw, c->udp_port, c->framing == TUNNEL_RAW);
    set_port(vtep->wanted, c->udp_port, true);
    atomic_store_explicit(&link->next, atomic_load_explicit(head, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(head, link, memory_order_release); // acquired in find_link()
    atomic_fetch_add_explicit(&vtep->n_links, 1, memory_order_relaxed);
    atomic_store_explicit(&link->vtep, vtep, memory_order_release); // acquired in vtep_output()
}

static bool is_used(const struct vtep *vtep, const struct link *but)
{
    const struct link *link = links;
    while (link && (link == but || link->config.udp_port != but->config.udp_port ||
                    atomic_load_explicit(&link->vtep, memory_order_relaxed) != vtep))
        link = link->next_link;
    return link;
}

static void detach(struct vtep *vtep, struct link *link)
{
    const struct tunnel_config *c = &link->config;
    _Atomic(struct link *) *at = &vtep->heads[bucket_of(c->remote, c->udp_port, c->vni)];
    struct link *here;
    while ((here = atomic_load_explicit(at, memory_order_relaxed)) != link)
        at = &here->next;
    // A reader that is at the link goes on from there: its own pointer stays.
    atomic_store_explicit(at, atomic_load_explicit(&link->next, memory_order_relaxed), memory_order_release);
    atomic_store_explicit(&link->vtep, NULL, memory_order_relaxed);
    atomic_fetch_sub_explicit(&vtep->n_links, 1, memory_order_relaxed);
    if (!is_used(vtep, link))
        set_port(vtep->wanted, c->udp_port, false);
}

static struct vtep *find_vtep(const char *name)
{
    struct vtep *vtep = all;
    while (vtep && strcmp(vtep->host.name, name))
        vtep = vtep->next;
    return vtep;
}

static int check_place(const struct vtep *vtep, const struct link *link, struct tv_error *err)
{
    char text[IP_TEXT_MAX];
    const struct tunnel_config *c = &link->config;
    if (vtep->port->env.vn_id == link->port->env.vn_id)
        return tv_error_set(err, -EINVAL, "\"underlay\" is the link's own network '%s'; must be another one", link->underlay);
    if (vtep->port->env.rcu != link->port->env.rcu)
        return tv_error_set(err, -EINVAL,
                            "its network and the underlay '%s' are on different workers; make both with the same \"worker\"",
                            link->underlay);
    ip_format_address(c->family, c->local, text);
    if (!vtep->host.has_address(vtep->host.arg, c->family, c->local))
        return tv_error_set(err, -EINVAL, "\"local\" is %s, which no port of the underlay '%s' has in its \"addresses\"", text,
                            link->underlay);
    return 0;
}

int vtep_join(struct link *link, struct tv_error *err)
{
    const struct tunnel_config *c = &link->config;
    char text[IP_TEXT_MAX];
    struct vtep *vtep = find_vtep(link->underlay);
    if (!vtep)
        return tv_error_set(err, -ENOENT, "the underlay '%s' has no port of the kind vtep; add one first", link->underlay);
    const int r = check_place(vtep, link, err);
    if (r)
        return r;
    if (has(vtep->wanted, c->udp_port) && has(vtep->raw, c->udp_port) != (c->framing == TUNNEL_RAW))
        return tv_error_set(err, -EEXIST, "UDP port %u of the underlay '%s' is one of links of the other kind", c->udp_port,
                            link->underlay);
    const struct link *same = find_link(vtep, c->family, c->remote, c->udp_port, c->vni);
    ip_format_address(c->family, c->remote, text);
    if (same)
        return tv_error_set(err, -EEXIST, "port '%s' of a network is the link to %s with UDP port %u and VNI %u already",
                            same->port->name, text, c->udp_port, c->vni);
    link->next_link = links;
    links = link;
    attach(vtep, link);
    return 0;
}

void vtep_leave(struct link *link)
{
    struct vtep *vtep = atomic_load_explicit(&link->vtep, memory_order_relaxed);
    struct link **at = &links;
    while (*at != link)
        at = &(*at)->next_link;
    *at = link->next_link;
    if (vtep)
        detach(vtep, link);
    rte_rcu_qsbr_synchronize(link->port->env.rcu, RTE_QSBR_THRID_INVALID);
}

// ---- control thread: the port ----

static int vtep_open(struct port *port, const json_t *params, int fd, struct tv_error *err)
{
    (void)params;
    (void)fd;
    struct vtep *vtep = port->own = calloc(1, sizeof(*vtep));
    if (!vtep)
        return tv_error_set(err, -ENOMEM, "out of memory");
    vtep->port = port;
    return 0;
}

void vtep_publish(struct port *port, const struct vtep_host *host)
{
    struct vtep *vtep = port->own;
    vtep->host = *host;
    vtep->next = all;
    all = vtep;
    for (struct link *link = links; link; link = link->next_link)
        if (!strcmp(link->underlay, host->name) && !atomic_load_explicit(&link->vtep, memory_order_relaxed) &&
            link->port->env.rcu == port->env.rcu)
            attach(vtep, link);
}

void vtep_withdraw(struct port *port)
{
    struct vtep *vtep = port->own, **at = &all;
    while (*at && *at != vtep)
        at = &(*at)->next;
    if (*at)
        *at = vtep->next;
    for (struct link *link = links; link; link = link->next_link)
        if (atomic_load_explicit(&link->vtep, memory_order_relaxed) == vtep)
            detach(vtep, link);
}

static void vtep_close(struct port *port)
{
    free(port->own);
}

static json_t *vtep_describe(struct port *port)
{
    struct vtep *vtep = port->own;
    return json_pack("{s:i}", "links", (int)atomic_load_explicit(&vtep->n_links, memory_order_relaxed));
}

// ---- worker: from links ----

static void drop_all(struct link *link, struct rte_mbuf **packets, unsigned n, enum drop cause)
{
    counter_add(&link->port->env.counters->dropped[cause], n);
    rte_pktmbuf_free_bulk(packets, n);
}

// Into a buffer of the underlay's, which is empty.
static void wrap(const struct link *link, const struct rte_mbuf *packet, struct rte_mbuf *outer)
{
    uint8_t whole[PORT_FRAME_MAX]; // for those in pieces
    const uint32_t len = packet->pkt_len;
    const void *frame = rte_pktmbuf_read(packet, 0, len, whole);
    const size_t bytes = tunnel_write(&link->tunnel, rte_pktmbuf_mtod(outer, void *), frame, len);
    outer->data_len = (uint16_t)bytes;
    outer->pkt_len = (uint32_t)bytes;
}

void vtep_output(struct link *link, struct rte_mbuf **packets, unsigned n)
{
    struct vtep *vtep = atomic_load_explicit(&link->vtep, memory_order_acquire);
    const unsigned most = atomic_load_explicit(&link->frame_most, memory_order_relaxed);
    struct rte_mbuf *fit[PORT_BURST], *outer[PORT_BURST];
    unsigned n_fit = 0;
    if (!vtep) {
        drop_all(link, packets, n, DROP_LINK);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (packets[i]->pkt_len <= most)
            fit[n_fit++] = packets[i];
        else
            drop_all(link, &packets[i], 1, DROP_TOO_BIG);
    }
    if (!n_fit)
        return;
    if (rte_pktmbuf_alloc_bulk(vtep->port->env.pool, outer, n_fit)) {
        counter_add(&vtep->port->env.counters->dropped[DROP_NO_BUFFERS], n_fit);
        rte_pktmbuf_free_bulk(fit, n_fit);
        return;
    }
    for (unsigned i = 0; i < n_fit; i++)
        wrap(link, fit[i], outer[i]);
    rte_pktmbuf_free_bulk(fit, n_fit);
    vtep->host.input(vtep->host.arg, outer, n_fit);
}

// ---- worker: to links ----

static void unwrap(struct vtep *vtep, const struct rte_mbuf *packet)
{
    _Atomic uint64_t *dropped = vtep->port->env.counters->dropped;
    const struct ethernet_header *frame = rte_pktmbuf_mtod(packet, const struct ethernet_header *);
    struct tunnel_arrival arrival;
    const enum drop wrong =
        tunnel_read(frame->type == htobe16(ETHERTYPE_IP4) ? IP4 : IP6, frame + 1, packet->data_len - sizeof(*frame), &arrival);
    struct link *link = wrong ? NULL : find_owner(vtep, &arrival);
    if (wrong)
        counter_add(&dropped[wrong], 1);
    else if (!link)
        counter_add(&dropped[DROP_LINK], 1);
    else if (!arrival.has_checksum && arrival.family == IP6 && link->config.has_checksum)
        counter_add(&dropped[DROP_CHECKSUM], 1); // without one only where it was said so (RFC 6936, 5)
    else
        link_arrive(link, &arrival);
}

// The underlay has checked their IP headers, and that they are of one piece.
static uint16_t vtep_send(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    for (uint16_t i = 0; i < n; i++)
        unwrap(port->own, packets[i]);
    rte_pktmbuf_free_bulk(packets, n);
    return n;
}

bool vtep_wants(const struct port *port, uint16_t udp_port)
{
    const struct vtep *vtep = port->own;
    return has(vtep->wanted, udp_port);
}

static uint16_t vtep_receive(struct port *port, struct rte_mbuf **packets, uint16_t n)
{
    (void)port;
    (void)packets;
    (void)n;
    return 0; // links have it received within their own turn
}

static bool vtep_arm(struct port *port)
{
    (void)port;
    return true;
}

// ---- worker: MTUs ----

void vtep_too_big(struct port *port, unsigned family, const void *packet, size_t len_bytes, unsigned mtu, uint32_t now_s)
{
    struct tunnel_arrival sent;
    struct link *link = tunnel_read_quoted(family, packet, len_bytes, &sent) ? find_owner(port->own, &sent) : NULL;
    if (!link || mtu < LINK_MTU_LEAST || mtu >= link->path_mtu)
        return;
    link_set_mtu(link, mtu);
    link->mtu_until_s = now_s + MTU_AGE_S;
}

void vtep_tick(struct port *port, uint32_t now_s)
{
    const struct vtep *vtep = port->own;
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct link *link = atomic_load_explicit(&vtep->heads[i], memory_order_acquire);
        for (; link; link = atomic_load_explicit(&link->next, memory_order_acquire)) {
            if (!link->mtu_until_s || now_s < link->mtu_until_s)
                continue;
            link->mtu_until_s = 0;
            link_set_mtu(link, link->path_mtu);
        }
    }
}

const struct port_kind port_vtep = {
    .name = "vtep",
    .open = vtep_open,
    .close = vtep_close,
    .receive = vtep_receive,
    .send = vtep_send,
    .arm = vtep_arm,
    .describe = vtep_describe,
};
