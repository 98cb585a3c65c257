// What a switch knows of its stations' IP addresses (varp.h): those of ports that are held to their machines, and those that were
// said, as of machines on other hosts. Control thread, but for ethernet_answer() and ethernet_update().
#include "router/ethernet/ethernet.h"

#include "router/params.h"

#include <errno.h>
#include <rte_ether.h>
#include <stdlib.h>
#include <string.h>

#define SAID_MOST 16384
#define LISTED_MOST 40000 // so that an answer is no longer than a line may be

// ---- control thread: the table ----

static size_t machine_entries(const struct vn *vn, struct varp_entry *entries)
{
    size_t n = 0;
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ethernet_port *own = port ? port->state : NULL;
        if (!own || !own->is_guarded || own->is_withdrawn)
            continue;
        struct varp_entry entry = {.is_machine = true, .port = (uint16_t)i};
        memcpy(entry.mac, own->guard.mac, 6);
        for (unsigned k = 0; k < own->guard.n_ip4; k++) {
            uint32_t word;
            memcpy(&word, own->guard.ip4[k], sizeof(word));
            entry.family = IP4;
            entry.address = ip4_key(be32toh(word));
            entries[n++] = entry;
        }
        for (unsigned k = 0; k < own->guard.n_ip6; k++) {
            entry.family = IP6;
            entry.address = ip6_key(own->guard.ip6[k]);
            entries[n++] = entry;
        }
    }
    return n;
}

static void free_retired(struct ethernet *ethernet)
{
    const struct varp *seen = atomic_load_explicit(&ethernet->varp_seen, memory_order_acquire);
    for (unsigned i = 0; i < ethernet->n_retired;) {
        if (ethernet->retired[i] == seen) {
            i++;
            continue;
        }
        varp_destroy(ethernet->retired[i]);
        ethernet->retired[i] = ethernet->retired[--ethernet->n_retired];
    }
}

int ethernet_publish_table(struct vn *vn, struct tv_error *err)
{
    struct ethernet *ethernet = vn->state;
    struct varp_entry *entries = malloc((VN_PORTS_MAX * 2 * GUARD_ADDRESSES_MAX + ethernet->n_said) * sizeof(*entries));
    struct varp *table = NULL;
    if (entries) {
        const size_t n = machine_entries(vn, entries);
        if (ethernet->n_said)
            memcpy(entries + n, ethernet->said, ethernet->n_said * sizeof(*entries));
        table = varp_create(entries, n + ethernet->n_said, ethernet->varp_key);
    }
    free(entries);
    if (!table)
        return tv_error_set(err, -ENOMEM, "no memory for a table of %zu neighbours", ethernet->n_said);
    struct varp *before = atomic_exchange_explicit(&ethernet->varp, table, memory_order_acq_rel); // acquired by the worker
    rte_rcu_qsbr_synchronize(vn->rcu, RTE_QSBR_THRID_INVALID);
    // What the worker last took addresses from stays until it has taken them from another one.
    if (before)
        ethernet->retired[ethernet->n_retired++] = before;
    free_retired(ethernet);
    vn_notify(vn);
    return 0;
}

void ethernet_destroy_tables(struct ethernet *ethernet)
{
    for (unsigned i = 0; i < ethernet->n_retired; i++)
        varp_destroy(ethernet->retired[i]);
    varp_destroy(atomic_load_explicit(&ethernet->varp, memory_order_relaxed));
    free(ethernet->said);
}

void ethernet_forget_said(struct ethernet *ethernet, unsigned port, const uint8_t *mac)
{
    size_t kept = 0;
    for (size_t i = 0; i < ethernet->n_said; i++)
        if (mac ? memcmp(ethernet->said[i].mac, mac, 6) : ethernet->said[i].port != port)
            ethernet->said[kept++] = ethernet->said[i];
    ethernet->n_said = kept;
}

// ---- control thread: commands ----

static int read_entry(struct vn *vn, const json_t *json, bool adds, struct varp_entry *entry, struct tv_error *err)
{
    const char *port_name, *text, *mac = NULL;
    struct ip_prefix address;
    struct rte_ether_addr parsed = {0};
    if (params_get_string(json, "port", NULL, &port_name, err) || params_get_string(json, "address", NULL, &text, err) ||
        (adds && params_get_string(json, "mac", NULL, &mac, err)))
        return -EINVAL;
    const struct vn_port *port = vn_find_port(vn, port_name);
    if (!port)
        return tv_error_set(err, -ENOENT, "there is no port '%.20s'", port_name);
    if (ip_parse_address(text, &address))
        return tv_error_set(err, -EINVAL, "\"address\" is '%.60s'; must be an IPv4 or IPv6 address", text);
    if (mac && (rte_ether_unformat_addr(mac, &parsed) || !rte_is_valid_assigned_ether_addr(&parsed)))
        return tv_error_set(err, -EINVAL, "\"mac\" is '%.40s'; must be a station's address, as 52:54:00:12:34:56", mac);
    const struct ethernet_port *own = port->state;
    if (adds && own->is_guarded)
        return tv_error_set(err, -EINVAL, "port '%s' has its machine's \"addresses\"; no others can be said to be there",
                            port_name);
    *entry = (struct varp_entry){.family = address.family, .address = address.key, .port = (uint16_t)port->index};
    memcpy(entry->mac, parsed.addr_bytes, 6);
    return 0;
}

static bool is_guarded_mac(const struct vn *vn, const uint8_t mac[static 6])
{
    bool found = false;
    for (unsigned i = 0; i < VN_PORTS_MAX && !found; i++) {
        const struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ethernet_port *own = port ? port->state : NULL;
        found = own && own->is_guarded && !memcmp(own->guard.mac, mac, 6);
    }
    return found;
}

static void remove_said(struct ethernet *ethernet, const struct varp_entry *entry, bool any_port)
{
    for (size_t i = 0; i < ethernet->n_said; i++) {
        const struct varp_entry *said = &ethernet->said[i];
        if (said->address == entry->address && said->family == entry->family && (any_port || said->port == entry->port)) {
            ethernet->said[i] = ethernet->said[--ethernet->n_said];
            return;
        }
    }
}

static int carry_out(struct vn *vn, const json_t *list, bool adds, struct tv_error *err)
{
    struct ethernet *ethernet = vn->state;
    const json_t *json;
    struct varp_entry entry = {0};
    size_t i;
    json_array_foreach(list, i, json)
    {
        if (read_entry(vn, json, adds, &entry, err))
            continue; // it was right before
        remove_said(ethernet, &entry, adds);
        if (adds && !is_guarded_mac(vn, entry.mac)) // the machine is here itself
            ethernet->said[ethernet->n_said++] = entry;
    }
    return ethernet_publish_table(vn, err);
}

// All right, and room for them.
static int check_list(struct vn *vn, const json_t *list, bool adds, struct tv_error *err)
{
    struct ethernet *ethernet = vn->state;
    const json_t *json;
    struct varp_entry entry;
    size_t i;
    if (!json_is_array(list))
        return tv_error_set(err, -EINVAL, "\"neighbours\" must be a list");
    json_array_foreach(list, i, json)
    {
        if (read_entry(vn, json, adds, &entry, err))
            return tv_error_prefix(err, "neighbour %zu", i + 1);
    }
    const size_t n = ethernet->n_said + (adds ? json_array_size(list) : 0);
    if (n > SAID_MOST)
        return tv_error_set(err, -ENOSPC, "there is no room for %zu neighbours more: %d are possible", json_array_size(list),
                            SAID_MOST);
    struct varp_entry *grown = n ? realloc(ethernet->said, n * sizeof(*grown)) : ethernet->said;
    if (n && !grown)
        return tv_error_set(err, -ENOMEM, "out of memory");
    ethernet->said = grown;
    return 0;
}

static int run_neighbours(struct vn *vn, const json_t *params, bool adds, struct tv_error *err)
{
    const json_t *list = json_object_get(params, "neighbours");
    const int r = check_list(vn, list, adds, err);
    return r ? r : carry_out(vn, list, adds, err);
}

// {"port", "neighbours"}: what is said of the port is this and nothing else.
static int run_set(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    const char *port_name;
    size_t i;
    json_t *json;
    (void)result;
    int r = params_get_string(params, "port", NULL, &port_name, err);
    const struct vn_port *port = r ? NULL : vn_find_port(vn, port_name);
    if (!port)
        return r ? r : tv_error_set(err, -ENOENT, "there is no port '%.20s'", port_name);
    json_t *list = json_deep_copy(json_object_get(params, "neighbours"));
    json_array_foreach(list, i, json)
    {
        json_object_set_new(json, "port", json_string(port_name)); // what is no object is refused below
    }
    r = check_list(vn, list, true, err);
    if (!r) {
        ethernet_forget_said(vn->state, port->index, NULL);
        r = carry_out(vn, list, true, err);
    }
    json_decref(list);
    return r;
}

static int run_add(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    (void)result;
    return run_neighbours(vn, params, true, err);
}

static int run_remove(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    (void)result;
    return run_neighbours(vn, params, false, err);
}

static int run_list(struct vn *vn, const json_t *params, json_t **result, struct tv_error *err)
{
    struct ethernet *ethernet = vn->state;
    const struct varp *table = atomic_load_explicit(&ethernet->varp, memory_order_relaxed);
    char text[IP_TEXT_MAX], mac[RTE_ETHER_ADDR_FMT_SIZE];
    (void)params;
    (void)err;
    json_t *list = json_array();
    for (size_t i = 0; table && i < table->n && i < LISTED_MOST; i++) {
        const struct varp_entry *entry = &table->entries[i];
        const struct vn_port *port = atomic_load_explicit(&vn->slots[entry->port], memory_order_relaxed);
        ip_format_address(entry->family, entry->address, text);
        rte_ether_format_addr(mac, sizeof(mac), (const struct rte_ether_addr *)entry->mac);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "port", port ? port->name : "", "address", text, "mac", mac,
                                              "state", entry->is_machine ? "machine" : "static"));
    }
    *result = json_pack("{s:o}", "neighbours", list);
    return 0;
}

const struct vn_command ethernet_commands[] = {
    {"neighbour.add", run_add},
    {"neighbour.remove", run_remove},
    {"neighbour.set", run_set},
    {"neighbour.list", run_list},
    {NULL, NULL},
};

// ---- worker ----

// Frames for who is known need not be flooded, nor can anybody else say that he is it.
void ethernet_update(struct vn *vn)
{
    struct ethernet *ethernet = vn->state;
    const struct varp *before = atomic_load_explicit(&ethernet->varp_seen, memory_order_relaxed);
    const struct varp *now = atomic_load_explicit(&ethernet->varp, memory_order_acquire);
    if (before == now)
        return;
    for (size_t i = 0; before && i < before->n; i++)
        if (!before->entries[i].is_machine)
            mac_table_unpin(ethernet->table, mac_number(before->entries[i].mac), before->entries[i].port);
    for (size_t i = 0; now && i < now->n; i++)
        if (!now->entries[i].is_machine && vn->by_index[now->entries[i].port])
            mac_table_pin(ethernet->table, mac_number(now->entries[i].mac), now->entries[i].port);
    atomic_store_explicit(&ethernet->varp_seen, now, memory_order_release); // acquired in free_retired()
}

bool ethernet_answer(struct vn *vn, struct vn_port *in, struct rte_mbuf *packet)
{
    struct ethernet *ethernet = vn->state;
    struct ethernet_port *own = in->state;
    const struct varp *table = atomic_load_explicit(&ethernet->varp, memory_order_acquire);
    if (!table || !table->n || own->is_link || packet->nb_segs != 1)
        return false;
    const size_t len = varp_answer(table, ethernet->varp_key, rte_pktmbuf_mtod(packet, uint8_t *), packet->data_len,
                                   packet->data_len + (size_t)rte_pktmbuf_tailroom(packet));
    if (!len)
        return false;
    packet->data_len = (uint16_t)len;
    packet->pkt_len = (uint32_t)len;
    counter_add(&own->answered, 1);
    vn_send(in, packet);
    return true;
}

bool ethernet_would_answer(struct vn *vn, const struct vn_port *in, const uint8_t *frame, size_t len_bytes)
{
    struct ethernet *ethernet = vn->state;
    const struct ethernet_port *own = in->state;
    const struct varp *table = atomic_load_explicit(&ethernet->varp, memory_order_relaxed);
    uint8_t copy[256]; // more than any answer has
    if (!table || own->is_link || len_bytes > sizeof(copy))
        return false;
    memcpy(copy, frame, len_bytes);
    return varp_answer(table, ethernet->varp_key, copy, len_bytes, sizeof(copy));
}
