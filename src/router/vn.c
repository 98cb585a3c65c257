// Virtual networks: see vn.h.
#include "router/vn.h"

#include "router/offload.h"
#include "router/pool.h"

#include <errno.h>
#include <rte_cycles.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_QUANTUM_US 5 // of a port of weight 100, a turn
// Of dear packets fewer make a burst, so that others need not wait long for its end: it takes about so long, and less while others
// are looked into between bursts. Not so few then that what a burst costs by itself, as an interrupt of a machine, made packets
// ever dearer and bursts ever smaller.
#define BURST_US 5
#define BURST_AWAITED_US 1
#define AWAITED_LEAST 8

const char *const drop_names[DROP_CAUSES] = {
    "none",       "malformed",  "spoofed",   "reserved",  "storm",   "unknown",   "same_port", "send_full",
    "no_buffers", "other_mac",  "ethertype", "checksum",  "martian", "multicast", "ttl",       "options",
    "no_route",   "prohibited", "too_big",   "neighbour", "waiting", "local",     "link",      "congestion",
};

static const struct vn_type *const types[] = {&vn_ethernet, &vn_ip};

// ---- control thread ----

static const struct vn_type *find_type(const char *name)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (!strcmp(types[i]->name, name))
            return types[i];
    return NULL;
}

static void promise(struct promised *promised, struct pace_terms *terms, const struct promise_set *set)
{
    static const uint64_t none[PACE_METRICS];
    promised->set = set ? *set : (struct promise_set){.resource = PROMISE_LINK};
    terms_set(terms, &promised->set, none, rte_get_tsc_hz());
}

struct vn *vn_create(const struct vn_config *config, const json_t *params, struct tv_error *err)
{
    static unsigned n_created;
    const struct vn_type *type = find_type(config->type);
    if (!type) {
        tv_error_set(err, -EINVAL, "network '%s': there is no type '%s'; there are ethernet and ip", config->name, config->type);
        return NULL;
    }
    struct vn *vn = calloc(1, sizeof(*vn));
    if (!vn) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    vn->type = type;
    vn->id = n_created++;
    vn->n_buffers = config->n_buffers;
    vn->rcu = config->rcu;
    vn->env = config->env;
    promise(&vn->promised, &vn->terms, config->promises);
    pace_init(&vn->pace, &vn->terms, rte_get_tsc_hz(), rte_rdtsc(), 0);
    vn->port_quantum = rte_get_tsc_hz() / 1000000 * PORT_QUANTUM_US;
    snprintf(vn->name, sizeof(vn->name), "%s", config->name);
    int r = pool_create(vn->id, vn->n_buffers, PORT_FRAME_MAX, &vn->pool);
    if (r)
        tv_error_set(err, r, "network '%s': no memory for %u packet buffers; start with a larger --memory", vn->name,
                     vn->n_buffers);
    if (r || type->create(vn, params, err)) {
        rte_mempool_free(vn->pool);
        free(vn);
        return NULL;
    }
    return vn;
}

void vn_destroy(struct vn *vn)
{
    vn->type->destroy(vn);
    rte_mempool_free(vn->pool);
    free(vn);
}

struct vn_port *vn_find_port(struct vn *vn, const char *name)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (port && !port->punts_for && !strcmp(port->name, name))
            return port;
    }
    return NULL;
}

// From `i` on; -1: none is free.
static int free_slot(const struct vn *vn, unsigned i)
{
    for (; i < VN_PORTS_MAX; i++)
        if (!atomic_load_explicit(&vn->slots[i], memory_order_relaxed))
            return (int)i;
    return -1;
}

void vn_notify(struct vn *vn)
{
    atomic_fetch_add_explicit(&vn->version, 1, memory_order_release); // acquired in vn_refresh()
}

static void publish(struct vn *vn, unsigned index, struct vn_port *port)
{
    atomic_store_explicit(&vn->slots[index], port, memory_order_relaxed);
    vn_notify(vn);
}

static struct vn_port *make_port(struct vn *vn, const char *name, unsigned from, const struct promise_set *promises,
                                 struct tv_error *err)
{
    static uint64_t n_added;
    const int index = free_slot(vn, from);
    if (index < 0) {
        tv_error_set(err, -ENOSPC, "network '%s' has %d ports%s, and no more are possible", vn->name, VN_PORTS_MAX,
                     from ? ", those of its control plane counted" : "");
        return NULL;
    }
    struct vn_port *port = calloc(1, sizeof(*port));
    if (!port) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    port->vn = vn;
    port->index = (unsigned)index;
    port->serial = ++n_added;
    snprintf(port->name, sizeof(port->name), "%s", name);
    port->asked = rte_rdtsc();
    promise(&port->promised, &port->terms, promises);
    pace_init(&port->pace, &port->terms, rte_get_tsc_hz(), port->asked, vn->pace.looked_own);
    return port;
}

int vn_add_punt(struct vn *vn, struct vn_port *port, int fd, struct tv_error *err)
{
    struct vn_port *punt = make_port(vn, port->name, port->index + 1, NULL, err); // the port has its place, but is not there yet
    if (!punt)
        return err->code;
    struct port_env env = port->port->env;
    env.counters = &punt->counters;
    punt->punts_for = port;
    punt->port = port_open_punt(punt->name, fd, &env, err);
    if (!punt->port) {
        free(punt);
        return err->code;
    }
    port->punt = punt;
    publish(vn, punt->index, punt);
    return 0;
}

static int open_port(struct vn *vn, struct vn_port *port, const json_t *params, int fd, const struct port_env *env,
                     struct tv_error *err)
{
    int r = vn->type->add_port(vn, port, params, err);
    if (r)
        return r;
    port->port = port_open(port->name, params, fd, env, err);
    r = port->port ? 0 : err->code;
    if (!r && vn->type->publish_port)
        r = vn->type->publish_port(vn, port, err);
    if (r && port->port)
        port_close(port->port);
    if (r)
        vn->type->free_port(port);
    return r;
}

struct vn_port *vn_add_port(struct vn *vn, const char *name, const json_t *params, int fd, const struct port_env *env,
                            const struct promise_set *promises, struct tv_error *err)
{
    struct vn_port *port = make_port(vn, name, 0, promises, err);
    if (!port)
        return NULL;
    struct port_env own_env = *env;
    own_env.vn_id = vn->id;
    own_env.pool = vn->pool;
    own_env.offloads = vn->type->offloads;
    own_env.counters = &port->counters;
    if (open_port(vn, port, params, fd, &own_env, err)) {
        free(port);
        return NULL;
    }
    if (vn->capture && (!*vn->captured_port || !strcmp(vn->captured_port, port->name)))
        atomic_store_explicit(&port->capture, vn->capture, memory_order_relaxed);
    publish(vn, port->index, port);
    if (vn->type->placed_port)
        vn->type->placed_port(vn, port);
    return port;
}

void vn_remove_port(struct vn *vn, struct vn_port *port, struct rte_rcu_qsbr *rcu)
{
    if (vn->type->withdraw_port)
        vn->type->withdraw_port(vn, port);
    publish(vn, port->index, NULL);
    if (port->punt)
        publish(vn, port->punt->index, NULL);
    rte_rcu_qsbr_synchronize(rcu, RTE_QSBR_THRID_INVALID);
    if (port->punt)
        port_close(port->punt->port);
    free(port->punt);
    port_close(port->port);
    vn->type->free_port(port);
    free(port);
}

int vn_set_capture(struct vn *vn, const char *port, struct capture *capture, struct tv_error *err)
{
    if (vn->capture)
        return tv_error_set(err, -EBUSY, "network '%s' is being captured already; one can look at a time", vn->name);
    if (*port && !vn_find_port(vn, port))
        return tv_error_set(err, -ENOENT, "network '%s' has no port '%.40s'", vn->name, port);
    vn->capture = capture;
    snprintf(vn->captured_port, sizeof(vn->captured_port), "%s", port);
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *p = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (p && !p->punts_for && (!*port || !strcmp(p->name, port)))
            atomic_store_explicit(&p->capture, capture, memory_order_release); // acquired in look()
    }
    return 0;
}

void vn_clear_capture(struct vn *vn, const struct capture *capture)
{
    if (vn->capture != capture)
        return;
    vn->capture = NULL;
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *p = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (p)
            atomic_store_explicit(&p->capture, NULL, memory_order_relaxed);
    }
    rte_rcu_qsbr_synchronize(vn->rcu, RTE_QSBR_THRID_INVALID);
}

// ---- worker ----

static void look(struct vn_port *port, enum pcapng_direction direction, struct rte_mbuf *const *packets, unsigned n)
{
    struct capture *capture = atomic_load_explicit(&port->capture, memory_order_acquire);
    if (__builtin_expect(capture != NULL, 0))
        capture_packets(capture, port->name, direction, packets, n);
}

static void note_latency(struct vn *vn, const struct pace *pace)
{
    if (pace->late_cycles && pace->late_cycles < vn->late_least)
        vn->late_least = pace->late_cycles;
}

static void refresh_slot(struct vn *vn, unsigned index)
{
    struct vn_port *port = atomic_load_explicit(&vn->slots[index], memory_order_acquire);
    const uint64_t serial = port ? port->serial : 0;
    if (serial != vn->serials[index]) {
        if (vn->serials[index])
            vn->type->detach(vn, index);
        vn->serials[index] = serial;
        vn->by_index[index] = port;
        if (port)
            vn->type->attach(vn, port);
    }
    if (!port)
        return;
    vn->active[vn->n_active++] = port;
    vn->n_backlogged += port->pace.is_backlogged;
    pace_apply(&port->pace);
    note_latency(vn, &port->pace);
}

void vn_refresh(struct vn *vn)
{
    const uint32_t version = atomic_load_explicit(&vn->version, memory_order_acquire);
    if (version == vn->seen_version)
        return;
    vn->seen_version = version;
    vn->is_busy = true;
    vn->n_active = vn->next_active = vn->n_backlogged = 0;
    vn->is_visiting = false;
    vn->late_least = UINT64_MAX;
    pace_apply(&vn->pace);
    note_latency(vn, &vn->pace);
    for (unsigned i = 0; i < VN_PORTS_MAX; i++)
        refresh_slot(vn, i);
    vn->pace.is_backlogged = vn->n_backlogged > 0;
    if (vn->type->update)
        vn->type->update(vn);
    vn->is_busy = false;
}

void vn_drop(struct vn_port *in, struct rte_mbuf *packet, enum drop cause)
{
    counter_add(&in->counters.dropped[cause], 1);
    rte_pktmbuf_free(packet);
}

static void send_burst(struct vn_port *port, struct rte_mbuf **packets, uint16_t n)
{
    uint64_t bytes = 0;
    for (uint16_t i = 0; i < n; i++)
        bytes += packets[i]->pkt_len;
    look(port, PCAPNG_OUTBOUND, packets, n);
    const uint16_t sent = port->port->kind->send(port->port, packets, n);
    for (uint16_t i = sent; i < n; i++) {
        bytes -= packets[i]->pkt_len;
        vn_drop(port, packets[i], DROP_SEND_FULL);
    }
    counter_add(&port->counters.sent_packets, sent);
    counter_add(&port->counters.sent_bytes, bytes);
}

struct outgoing {
    struct vn_port *port;
    uint16_t n;
    struct rte_mbuf *packets[PORT_BURST];
};

static void burst_add(struct outgoing *burst, struct rte_mbuf *packet)
{
    if (burst->n == PORT_BURST) {
        send_burst(burst->port, burst->packets, burst->n);
        burst->n = 0;
    }
    burst->packets[burst->n++] = packet;
}

static void cut(struct outgoing *burst, struct rte_mbuf *packet)
{
    struct offload_cut cut = offload_cut_begin(packet);
    while (!offload_cut_is_done(&cut)) {
        struct rte_mbuf *frame = offload_cut_next(&cut, burst->port->port->env.pool);
        if (!frame) { // the rest is lost, as any frame may be
            counter_add(&burst->port->counters.dropped[DROP_NO_BUFFERS], 1);
            break;
        }
        burst_add(burst, frame);
    }
    rte_pktmbuf_free(packet);
}

// What the far end does not do itself is done here.
static void finish_and_send(struct vn_port *port)
{
    struct outgoing burst = {.port = port};
    const unsigned takes = port->port->kind->offloads ? port->port->kind->offloads(port->port) : 0;
    for (uint16_t i = 0; i < port->n_out; i++) {
        struct rte_mbuf *packet = port->out[i];
        const unsigned rest = offload_needs(packet) & ~takes;
        if (rest & (OFFLOAD_TSO4 | OFFLOAD_TSO6)) {
            cut(&burst, packet);
            continue;
        }
        if (rest)
            offload_checksum(packet);
        burst_add(&burst, packet);
    }
    if (burst.n)
        send_burst(port, burst.packets, burst.n);
}

void vn_flush(struct vn_port *port)
{
    bool is_pending = false;
    for (uint16_t i = 0; i < port->n_out; i++)
        is_pending |= offload_is_pending(port->out[i]);
    if (is_pending)
        finish_and_send(port);
    else
        send_burst(port, port->out, port->n_out);
    port->n_out = 0;
}

static void flush_all(struct vn *vn)
{
    for (unsigned i = 0; i < vn->n_active; i++)
        if (vn->active[i]->n_out)
            vn_flush(vn->active[i]);
}

static uint64_t input(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += packets[i]->pkt_len;
    counter_add(&in->counters.received_packets, n);
    counter_add(&in->counters.received_bytes, bytes);
    look(in, PCAPNG_INBOUND, packets, n);
    vn->is_busy = true;
    vn->type->input(vn, in, packets, n);
    flush_all(vn);
    vn->is_busy = false;
    return bytes;
}

void vn_input(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n)
{
    if (!vn->is_busy)
        vn_refresh(vn);
    if (!vn->is_busy && vn->by_index[in->index] == in)
        input(vn, in, packets, n);
    else
        rte_pktmbuf_free_bulk(packets, n);
}

// ---- turns of ports ----

static void set_backlogged(struct vn *vn, struct vn_port *port, bool is_backlogged)
{
    vn->n_backlogged += is_backlogged;
    vn->n_backlogged -= port->pace.is_backlogged;
    port->pace.is_backlogged = is_backlogged;
    vn->pace.is_backlogged = vn->n_backlogged > 0;
}

static void end_visit(struct vn *vn)
{
    vn->is_visiting = false;
    vn->next_active = vn->next_active + 1 < vn->n_active ? vn->next_active + 1 : 0;
}

static unsigned poll_port(struct vn *vn, struct vn_port *in, unsigned most)
{
    struct rte_mbuf *packets[PORT_BURST];
    const unsigned asked = pace_budget(&in->pace, most);
    const unsigned n = asked ? in->port->kind->receive(in->port, packets, (uint16_t)asked) : 0;
    const uint64_t since = in->asked;
    in->asked = vn->pace.looked;
    set_backlogged(vn, in, asked && n == asked);
    if (n) {
        vn->last_in = in;
        vn->last_asked = asked;
        vn->last_since = since;
        vn->last = (struct pace_burst){.packets = n, .bits = 8 * input(vn, in, packets, n)};
    } else {
        pace_found_empty(&in->pace);
        if (!vn->n_backlogged)
            vn->pace.waiting = 0; // nor does the network
        end_visit(vn);
    }
    return n;
}

// How many turns it takes for the port to be out of debt; 0: it may have its turn.
static uint64_t debt_of(const struct vn *vn, const struct vn_port *port)
{
    const uint64_t quantum = vn->port_quantum * port->pace.drr.weight / DRR_WEIGHT_DEFAULT;
    const int64_t deficit = port->pace.drr.deficit_cycles;
    return deficit > 0 || pace_is_owed(&port->pace) ? 0 : (uint64_t)-deficit / quantum + 1;
}

// Each port is visited once. *least: the turns to wait for the first of those that are in debt.
static unsigned visit_ports(struct vn *vn, unsigned most, uint64_t *least)
{
    unsigned n = 0;
    const unsigned visits = vn->n_active + vn->is_visiting;
    for (unsigned i = 0; i < visits && !n; i++) { // the first may be at the end of its turn
        struct vn_port *in = vn->active[vn->next_active];
        pace_look(&in->pace, vn->pace.looked, vn->pace.looked_own);
        const bool begins = !vn->is_visiting;
        if (begins)
            drr_begin(&in->pace.drr, vn->port_quantum);
        vn->is_visiting = true;
        const uint64_t debt = debt_of(vn, in);
        if (!debt)
            n = poll_port(vn, in, most);
        else
            end_visit(vn);
        if (debt && begins)
            *least = debt < *least ? debt : *least;
    }
    return n;
}

// Turns in which nobody could do anything are left out.
static void skip_turns(struct vn *vn, uint64_t turns)
{
    for (unsigned i = 0; i < vn->n_active; i++)
        if (vn->active[i]->pace.drr.deficit_cycles <= 0)
            drr_begin(&vn->active[i]->pace.drr, vn->port_quantum * turns);
}

// As many packets like those of the last burst as take so long; 1 to PORT_BURST.
static unsigned packets_in(const struct vn *vn, unsigned us)
{
    const uint64_t cycles = vn->port_quantum * us / PORT_QUANTUM_US;
    return vn->packet_cycles * PORT_BURST <= cycles ? PORT_BURST
           : vn->packet_cycles < cycles             ? (unsigned)(cycles / vn->packet_cycles)
                                                    : 1;
}

static unsigned burst_most(const struct vn *vn)
{
    const unsigned most = packets_in(vn, BURST_US), soon = vn->is_awaited ? packets_in(vn, BURST_AWAITED_US) : most;
    return soon >= AWAITED_LEAST || soon == most ? soon : most < AWAITED_LEAST ? most : AWAITED_LEAST;
}

unsigned vn_poll(struct vn *vn, bool is_awaited)
{
    vn->is_awaited = is_awaited;
    const unsigned most = pace_budget(&vn->pace, burst_most(vn));
    unsigned n = 0;
    for (uint64_t least = 0; most && !n && least != UINT64_MAX;) { // each time one at least is found to have nothing
        if (least)
            skip_turns(vn, least);
        least = UINT64_MAX;
        n = visit_ports(vn, most, &least);
    }
    return n;
}

static void count_late(struct pace *pace, const struct vn *vn, uint64_t waited_cycles)
{
    if (pace->late_cycles && waited_cycles >= pace->late_cycles)
        counter_add(&pace->usage.late_packets, vn->last.packets);
}

void vn_charge(struct vn *vn, uint64_t cycles, uint64_t now)
{
    struct vn_port *in = vn->last_in;
    const uint64_t waited_cycles = now - vn->last_since;
    vn->last.cycles = cycles;
    vn->last.is_full = vn->last.packets >= PORT_BURST / 2 || vn->last.packets == burst_most(vn);
    vn->packet_cycles = cycles / vn->last.packets;
    counter_add(&vn->latency[latency_bucket_of(waited_cycles)], vn->last.packets);
    pace_charge(&vn->pace, &vn->last);
    pace_charge(&in->pace, &vn->last);
    count_late(&vn->pace, vn, waited_cycles);
    count_late(&in->pace, vn, waited_cycles);
    const bool goes_on = in->pace.drr.deficit_cycles > 0 && drr_charge(&in->pace.drr, cycles, cycles); // else it was owed
    if (vn->last.packets < vn->last_asked) {
        pace_found_empty(&in->pace);
        end_visit(vn);
    } else if (!goes_on && !pace_is_owed(&in->pace)) {
        end_visit(vn);
    }
}

void vn_tick(struct vn *vn, uint32_t now_s)
{
    vn->now_s = now_s;
    vn->is_busy = true;
    vn->type->tick(vn);
    flush_all(vn);
    vn->is_busy = false;
}
