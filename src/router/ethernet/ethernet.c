// Networks of the type `ethernet`: a learning switch (IEEE 802.1Q, 8.6 and 8.7) whose tags are payload.
//
// A port's machine can be held to its own addresses (guard.h); an address that belongs to a port so is pinned to it. What is
// flooded is copied for each port but the last, from the network's own buffers, so that no two ports share a packet.
#include "router/ethernet/ethernet.h"

#include "base/log.h"
#include "router/offload.h"
#include "router/params.h"
#include "router/trace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_random.h>
#include <stdlib.h>
#include <string.h>

#define MACS_DEFAULT 1024
#define MACS_MOST (1u << 20)
#define AGE_DEFAULT_S 300 // IEEE 802.1Q, 8.8.3
#define PORT_MACS_DEFAULT 256
#define FRAME_LEAST RTE_ETHER_HDR_LEN

// ---- control thread ----

static int ethernet_create(struct vn *vn, const json_t *params, struct tv_error *err)
{
    uint32_t macs, age_s;
    const char *unknown;
    if (params_get_u32(params, "macs", MACS_DEFAULT, 1, MACS_MOST, &macs, err) ||
        params_get_u32(params, "age_s", AGE_DEFAULT_S, 1, 1000000, &age_s, err) ||
        params_get_string(params, "unknown", "flood", &unknown, err))
        return -EINVAL;
    if (strcmp(unknown, "flood") && strcmp(unknown, "drop"))
        return tv_error_set(err, -EINVAL, "\"unknown\" is '%s'; must be flood or drop", unknown);
    struct ethernet *ethernet = calloc(1, sizeof(*ethernet));
    if (ethernet)
        ethernet->table = mac_table_create(macs, rte_rand(), age_s);
    if (!ethernet || !ethernet->table) {
        free(ethernet);
        return tv_error_set(err, -ENOMEM, "no memory for a table of %u addresses", macs);
    }
    ethernet->drops_unknown = *unknown == 'd';
    ethernet->varp_key = rte_rand();
    vn->state = ethernet;
    return 0;
}

static void ethernet_destroy(struct vn *vn)
{
    struct ethernet *ethernet = vn->state;
    ethernet_destroy_tables(ethernet);
    mac_table_destroy(ethernet->table);
    free(ethernet);
}

static int add_address(struct guard *guard, const char *text, struct tv_error *err)
{
    if (guard->n_ip4 < GUARD_ADDRESSES_MAX && inet_pton(AF_INET, text, guard->ip4[guard->n_ip4]) == 1)
        guard->n_ip4++;
    else if (guard->n_ip6 < GUARD_ADDRESSES_MAX && inet_pton(AF_INET6, text, guard->ip6[guard->n_ip6]) == 1)
        guard->n_ip6++;
    else
        return tv_error_set(err, -EINVAL, "\"addresses\": '%s' is no IPv4 or IPv6 address, or one of more than %d", text,
                            GUARD_ADDRESSES_MAX);
    return 0;
}

static int read_guard(struct ethernet_port *port, const json_t *params, struct tv_error *err)
{
    const json_t *addresses = json_object_get(params, "addresses"), *entry;
    const char *mac;
    size_t i;
    if (params_get_string(params, "mac", "", &mac, err))
        return -EINVAL;
    struct rte_ether_addr parsed = {0};
    if (*mac && (rte_ether_unformat_addr(mac, &parsed) || !rte_is_valid_assigned_ether_addr(&parsed)))
        return tv_error_set(err, -EINVAL, "\"mac\" is '%s'; must be a station's address, as 52:54:00:12:34:56", mac);
    if (addresses && (!json_is_array(addresses) || !*mac))
        return tv_error_set(err, -EINVAL, "\"addresses\" must be a list of IPv4 and IPv6 addresses, beside a \"mac\"");
    const json_t *router = json_object_get(params, "router");
    if (router && (!json_is_boolean(router) || !*mac))
        return tv_error_set(err, -EINVAL, "\"router\" must be true or false, beside a \"mac\"");
    port->guard.is_router = json_is_true(router);
    port->is_guarded = *mac;
    memcpy(port->guard.mac, parsed.addr_bytes, 6);
    json_array_foreach(addresses, i, entry)
    {
        if (add_address(&port->guard, json_is_string(entry) ? json_string_value(entry) : "", err))
            return -EINVAL;
    }
    return 0;
}

// Two ports of one machine would each be right to send, and what is for it would go to one of them.
static int check_owner(struct vn *vn, const struct ethernet_port *own, struct tv_error *err)
{
    for (unsigned i = 0; own->is_guarded && i < VN_PORTS_MAX; i++) {
        const struct vn_port *other = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ethernet_port *theirs = other ? other->state : NULL;
        if (theirs && theirs->is_guarded && !memcmp(theirs->guard.mac, own->guard.mac, sizeof(own->guard.mac)))
            return tv_error_set(err, -EEXIST, "port '%s' has this \"mac\" already", other->name);
    }
    return 0;
}

static int read_meter(struct ethernet_port *port, const json_t *params, struct tv_error *err)
{
    uint32_t rate;
    if (params_get_u32(params, "flood_bytes_per_s", 0, 0, UINT32_MAX, &rate, err))
        return -EINVAL;
    const uint32_t burst = rate / 10 > 4 * PORT_FRAME_MAX ? rate / 10 : 4 * PORT_FRAME_MAX;
    struct rte_meter_srtcm_params terms = {.cir = rate, .cbs = burst, .ebs = 0};
    port->is_metered = rate;
    if (rate && (rte_meter_srtcm_profile_config(&port->profile, &terms) || rte_meter_srtcm_config(&port->meter, &port->profile)))
        return tv_error_set(err, -EINVAL, "\"flood_bytes_per_s\" cannot be %u", rate);
    return 0;
}

static int ethernet_add_port(struct vn *vn, struct vn_port *port, const json_t *params, struct tv_error *err)
{
    struct ethernet_port *own = port->state = calloc(1, sizeof(*own));
    if (!own)
        return tv_error_set(err, -ENOMEM, "out of memory");
    int r = params_get_u32(params, "mac_limit", PORT_MACS_DEFAULT, 0, MACS_MOST, &own->macs_most, err);
    if (!r)
        r = read_guard(own, params, err);
    if (!r)
        r = check_owner(vn, own, err);
    if (!r)
        r = read_meter(own, params, err);
    if (r)
        free(own);
    return r;
}

static int ethernet_publish_port(struct vn *vn, struct vn_port *port, struct tv_error *err)
{
    struct ethernet_port *own = port->state;
    own->is_link = port->port->kind->is_link;
    if (port->port->kind == &port_vtep)
        return tv_error_set(err, -EINVAL, "a vtep must be a port of a network of the type ip; '%s' is of the type ethernet",
                            vn->name);
    if (own->is_guarded) // it is here now, wherever it was said to be
        ethernet_forget_said(vn->state, port->index, own->guard.mac);
    return 0;
}

// It has its place.
static void ethernet_placed_port(struct vn *vn, struct vn_port *port)
{
    const struct ethernet_port *own = port->state;
    struct tv_error err = {0};
    if (own->is_guarded && ethernet_publish_table(vn, &err))
        log_event(LOG_WARN, "router", "a machine's addresses are not known to others", LOG_STR("why", err.text));
}

static void ethernet_withdraw_port(struct vn *vn, struct vn_port *port)
{
    struct ethernet *ethernet = vn->state;
    struct ethernet_port *own = port->state;
    struct tv_error err = {0};
    own->is_withdrawn = true;
    ethernet_forget_said(ethernet, port->index, NULL);
    if (atomic_load_explicit(&ethernet->varp, memory_order_relaxed) && ethernet_publish_table(vn, &err))
        log_event(LOG_WARN, "router", "a machine's addresses are still known to others", LOG_STR("why", err.text));
}

static void ethernet_free_port(struct vn_port *port)
{
    free(port->state);
}

static json_t *ethernet_describe(struct vn *vn)
{
    struct ethernet *ethernet = vn->state;
    return json_pack("{s:I}", "addresses", (json_int_t)counter_get(&ethernet->n_addresses));
}

static json_t *ethernet_describe_port(const struct vn_port *port)
{
    const struct ethernet_port *own = port->state;
    char mac[RTE_ETHER_ADDR_FMT_SIZE] = "";
    if (own->is_guarded)
        rte_ether_format_addr(mac, sizeof(mac), (const struct rte_ether_addr *)own->guard.mac);
    return json_pack("{s:s, s:I}", "mac", mac, "answered", (json_int_t)counter_get(&own->answered));
}

// ---- worker ----

static void ethernet_attach(struct vn *vn, struct vn_port *port)
{
    struct ethernet *ethernet = vn->state;
    struct ethernet_port *own = port->state;
    if (own->is_guarded)
        mac_table_pin(ethernet->table, mac_number(own->guard.mac), (uint16_t)port->index);
}

static void ethernet_detach(struct vn *vn, unsigned index)
{
    struct ethernet *ethernet = vn->state;
    mac_table_forget(ethernet->table, (uint16_t)index);
}

static void ethernet_tick(struct vn *vn)
{
    struct ethernet *ethernet = vn->state;
    uint32_t counts[VN_PORTS_MAX];
    uint64_t sum = 0;
    mac_table_sweep(ethernet->table, vn->now_s, counts, VN_PORTS_MAX);
    for (unsigned i = 0; i < vn->n_active; i++) {
        struct ethernet_port *own = vn->active[i]->state;
        own->n_macs = counts[vn->active[i]->index];
        sum += own->n_macs;
    }
    atomic_store_explicit(&ethernet->n_addresses, sum, memory_order_relaxed);
}

// Links are a full mesh: whoever sent it has sent it to all hosts himself (split horizon, RFC 4762, 4.4).
static bool may_leave(const struct vn_port *in, const struct vn_port *out)
{
    const struct ethernet_port *from = in->state, *to = out->state;
    return in != out && !(from->is_link && to->is_link);
}

static void flood(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ethernet_port *own = in->state;
    if (own->is_metered &&
        rte_meter_srtcm_color_blind_check(&own->meter, &own->profile, rte_rdtsc(), packet->pkt_len) != RTE_COLOR_GREEN) {
        vn_drop(in, packet, DROP_STORM);
        return;
    }
    struct vn_port *last = NULL;
    for (unsigned i = 0; i < vn->n_active; i++) {
        if (!may_leave(in, vn->active[i]))
            continue;
        struct rte_mbuf *copy = last ? rte_pktmbuf_copy(packet, vn->pool, 0, UINT32_MAX) : NULL;
        if (copy)
            vn_send(last, copy);
        else if (last)
            counter_add(&in->counters.dropped[DROP_NO_BUFFERS], 1);
        last = vn->active[i];
    }
    if (last)
        vn_send(last, packet);
    else
        vn_drop(in, packet, DROP_UNKNOWN);
}

// What keeps a frame from being forwarded, whereto it may go. Of its whole_bytes data_bytes lie in one piece, and on a wire no more
// than len_bytes are one frame.
static enum drop check(const struct ethernet_port *own, const struct rte_ether_hdr *head, size_t data_bytes, size_t whole_bytes,
                       size_t len_bytes)
{
    static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0x00, 0x00}; // and a last byte below 16: IEEE 802.1Q, table 8-1
    if (data_bytes < FRAME_LEAST || len_bytes >= PORT_FRAME_MAX || !rte_is_valid_assigned_ether_addr(&head->src_addr))
        return DROP_MALFORMED;
    if (rte_is_multicast_ether_addr(&head->dst_addr) && !memcmp(head->dst_addr.addr_bytes, reserved, sizeof(reserved)) &&
        head->dst_addr.addr_bytes[5] < 16)
        return DROP_RESERVED;
    return own->is_guarded ? guard_check(&own->guard, (const uint8_t *)head, data_bytes, whole_bytes) : DROP_NONE;
}

// False: the address belongs to another port.
static bool learn(struct vn *vn, struct vn_port *in, uint64_t source)
{
    struct ethernet *ethernet = vn->state;
    struct ethernet_port *own = in->state, *before_own;
    uint16_t before;
    const enum mac_learned learned = mac_table_learn(ethernet->table, source, (uint16_t)in->index, vn->now_s,
                                                     !own->is_guarded && own->n_macs < own->macs_most, &before);
    if (learned == MAC_NEW || learned == MAC_MOVED)
        own->n_macs++;
    if (learned == MAC_MOVED && vn->by_index[before]) {
        before_own = vn->by_index[before]->state;
        before_own->n_macs -= before_own->n_macs > 0;
    }
    return learned != MAC_PINNED;
}

static void forward(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ethernet *ethernet = vn->state;
    const struct rte_ether_hdr *head = rte_pktmbuf_mtod(packet, const struct rte_ether_hdr *);
    const enum drop wrong = check(in->state, head, packet->data_len, packet->pkt_len, offload_frame_bytes(packet));
    if (wrong) {
        vn_drop(in, packet, wrong);
        return;
    }
    if (!learn(vn, in, mac_number(head->src_addr.addr_bytes))) {
        vn_drop(in, packet, DROP_SPOOFED);
        return;
    }
    if (rte_is_multicast_ether_addr(&head->dst_addr)) {
        if (!ethernet_answer(vn, in, packet))
            flood(vn, in, packet);
        return;
    }
    const uint16_t to = mac_table_find(ethernet->table, mac_number(head->dst_addr.addr_bytes), vn->now_s);
    if (to != MAC_NOWHERE && !may_leave(in, vn->by_index[to]))
        vn_drop(in, packet, DROP_SAME_PORT);
    else if (to != MAC_NOWHERE)
        vn_send(vn->by_index[to], packet);
    else if (ethernet->drops_unknown)
        vn_drop(in, packet, DROP_UNKNOWN);
    else
        flood(vn, in, packet);
}

static void ethernet_input(struct vn *vn, struct vn_port *in, struct rte_mbuf **packets, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rte_prefetch0(rte_pktmbuf_mtod(packets[i], void *));
    for (unsigned i = 0; i < n; i++)
        forward(vn, in, packets[i]);
}

// ---- control thread: what would become of a frame ----

static void trace_flood(struct vn *vn, const struct vn_port *in, const char *why, struct trace *t)
{
    const struct ethernet_port *own = in->state;
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (port && may_leave(in, port))
            json_array_append_new(t->ports, json_string(port->name));
    }
    if (own->is_metered)
        trace_step(t, "what the port may have flooded is limited; above that it is dropped");
    if (json_array_size(t->ports))
        trace_end(t, "flooded", "%s: it leaves by all other ports", why);
    else
        trace_drop(t, DROP_UNKNOWN, "%s, and there is no other port: it is dropped", why);
}

static void trace_refusal(enum drop wrong, struct trace *t)
{
    trace_drop(t, wrong, "it is dropped: %s",
               wrong == DROP_RESERVED  ? "it is for the link alone"
               : wrong == DROP_SPOOFED ? "it has an address that is not that of the machine behind the port"
                                       : "it is no frame that could be forwarded");
}

static void ethernet_trace(struct vn *vn, struct vn_port *in, const uint8_t *frame, size_t len_bytes, struct trace *t)
{
    const struct ethernet *ethernet = vn->state;
    const struct ethernet_port *own = in->state;
    const struct rte_ether_hdr *head = (const void *)frame;
    const enum drop wrong = check(own, head, len_bytes, len_bytes, len_bytes);
    char text[RTE_ETHER_ADDR_FMT_SIZE];
    if (wrong) {
        trace_refusal(wrong, t);
        return;
    }
    const uint16_t home = mac_table_peek(ethernet->table, mac_number(head->src_addr.addr_bytes));
    const struct vn_port *owner = home < VN_PORTS_MAX ? atomic_load_explicit(&vn->slots[home], memory_order_relaxed) : NULL;
    const struct ethernet_port *theirs = owner ? owner->state : NULL;
    rte_ether_format_addr(text, sizeof(text), &head->src_addr);
    if (owner && owner != in && theirs->is_guarded) {
        trace_drop(t, DROP_SPOOFED, "it is dropped: %s belongs to the machine behind port '%s'", text, owner->name);
        return;
    }
    trace_step(t,
               owner == in ? "%s is known to be at this port"
               : owner     ? "%s was seen at another port, and is at this one now"
                           : "%s is not known yet, and is learned at this port",
               text);
    rte_ether_format_addr(text, sizeof(text), &head->dst_addr);
    if (rte_is_multicast_ether_addr(&head->dst_addr) && ethernet_would_answer(vn, in, frame, len_bytes)) {
        json_array_append_new(t->ports, json_string(in->name));
        trace_end(t, "answered", "it asks for an address that the network knows, and is answered");
        return;
    }
    if (rte_is_multicast_ether_addr(&head->dst_addr)) {
        trace_flood(vn, in, "it is for a group or for all", t);
        return;
    }
    const uint16_t to = mac_table_peek(ethernet->table, mac_number(head->dst_addr.addr_bytes));
    const struct vn_port *out = to < VN_PORTS_MAX ? atomic_load_explicit(&vn->slots[to], memory_order_relaxed) : NULL;
    if (out == in || rte_is_same_ether_addr(&head->src_addr, &head->dst_addr)) {
        trace_drop(t, DROP_SAME_PORT, "it is dropped: %s is at the port it comes from", text);
    } else if (out && !may_leave(in, out)) {
        trace_drop(t, DROP_SAME_PORT, "it is dropped: %s is behind another link, and has had it by that", text);
    } else if (out) {
        json_array_append_new(t->ports, json_string(out->name));
        trace_end(t, "sent", "%s is at port '%s', by which it leaves", text, out->name);
    } else if (ethernet->drops_unknown) {
        trace_drop(t, DROP_UNKNOWN, "it is dropped: nobody has been seen with %s", text);
    } else {
        trace_flood(vn, in, "nobody has been seen with its destination", t);
    }
}

const struct vn_type vn_ethernet = {
    .name = "ethernet",
    .offloads = OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6, // it looks at no length but their frames'
    .create = ethernet_create,
    .destroy = ethernet_destroy,
    .add_port = ethernet_add_port,
    .publish_port = ethernet_publish_port,
    .placed_port = ethernet_placed_port,
    .withdraw_port = ethernet_withdraw_port,
    .free_port = ethernet_free_port,
    .describe = ethernet_describe,
    .describe_port = ethernet_describe_port,
    .trace = ethernet_trace,
    .attach = ethernet_attach,
    .detach = ethernet_detach,
    .input = ethernet_input,
    .tick = ethernet_tick,
    .update = ethernet_update,
    .commands = ethernet_commands,
};
