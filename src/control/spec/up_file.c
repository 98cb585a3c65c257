// The file of `trivet up`: see up_file.h. What a schema can tell is checked by base/yaml_file; here is what it cannot: sizes, and
// what one part of the file says of another.
#include "control/spec/up_file.h"

#include "base/yaml_file.h"
#include "control/cleanup.h"
#include "control/image/image.h"
#include "control/net/host_spec.h"
#include "control/net/net_spec.h"
#include "control/paths.h"
#include "control/spec/spec.h"
#include "promise/promise.h"
#include "store/open.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- what the file holds; a pointer is NULL where it says nothing

struct tenant {
    char *name, *description;
};

// Of a network, as trivet-router(8) has it.
// As texts: promise/promise.h reads them.
struct promises {
    char *reserve, *limit, *weight, *latency, *utilization;
};

struct port {
    char *name, *kind, *device, *socket, *address, *role, *mac, *underlay, *local, *remote;
    char **addresses;
    uint32_t n_addresses;
    uint32_t *mtu, *mac_limit, *flood_bytes_per_s, *vni, *udp_port, *path_mtu;
    bool unsealed;
    struct promises *promises;
};

struct route {
    char *prefix, *via, *port, *type;
};

// A network's way to other hosts.
struct link {
    char *kind;
    uint32_t *vni, *udp_port, *path_mtu;
    char **hosts;
    uint32_t n_hosts;
};

// Another host, and this one.
struct peer {
    char *name, *address, *connect;
};

struct host {
    char *address, *underlay, *listen, *certificate, *key, *ca;
    struct peer *peers;
    uint32_t n_peers;
};

// What lies behind its gateway.
struct outside {
    char *limit;
};

struct network {
    char *name, *tenant, *description, *type, *gateway, *unknown, *netns;
    struct promises *promises;
    struct link *link;
    struct outside *outside;
    uint32_t *weight, *buffers, *macs, *age_s, *neighbours, *neighbour_age_s, *icmp_errors_per_s, *table_mb, *fpm_port, *stale_s;
    bool nat, dhcp, dns;
    char **prefixes, **forwards;
    struct port *ports;
    struct route *routes;
    uint32_t n_prefixes, n_forwards, n_ports, n_routes;
};

// A machine's place in a network.
struct net {
    char *name, *mac, *ip;
    struct promises *promises;
};

struct disk {
    char *name, *path, *size, *from, *over, *serial;
    bool read_only;
    uint32_t *queues;
    struct promises *promises;
};

struct machine {
    char *name, *tenant, *image, *kernel, *initrd, *append, *engine, *cpu, *memory;
    uint32_t *cpus;
    enum spec_restart restart;
    int exit_on_reboot;
    bool hugepages, perf_map, jitdump;
    char **disks, *net;
    struct net *nets;
    uint32_t n_disks, n_nets;
};

struct plan {
    struct host *host;
    struct tenant *tenants;
    struct network *networks;
    struct disk *disks;
    struct machine *machines;
    uint32_t n_tenants, n_networks, n_disks, n_machines;
};

#define NAME(structure) CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct structure, name, 1, SPEC_NAME_MAX)
#define TEXT(structure, member)                                                                                                    \
    CYAML_FIELD_STRING_PTR(#member, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct structure, member, 1, CYAML_UNLIMITED)
#define NUMBER(structure, member) CYAML_FIELD_UINT_PTR(#member, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct structure, member)
#define LIST(structure, member, entry, most)                                                                                       \
    CYAML_FIELD_SEQUENCE_COUNT(#member, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct structure, member, n_##member, &(entry),  \
                               0, most)

static const cyaml_strval_t restarts[] = {{"no", RESTART_NO}, {"on-failure", RESTART_ON_FAILURE}, {"always", RESTART_ALWAYS}};
static const cyaml_strval_t reboots[] = {{"reset", 0}, {"exit", 1}};
static const cyaml_schema_value_t word = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, CYAML_UNLIMITED)};

static const cyaml_schema_field_t tenant_fields[] = {NAME(tenant), TEXT(tenant, description), CYAML_FIELD_END};
static const cyaml_schema_field_t promise_fields[] = {
    TEXT(promises, reserve), TEXT(promises, limit),       TEXT(promises, weight),
    TEXT(promises, latency), TEXT(promises, utilization), CYAML_FIELD_END,
};
static const cyaml_schema_field_t port_fields[] = {
    NAME(port),
    TEXT(port, kind),
    TEXT(port, device),
    TEXT(port, socket),
    TEXT(port, address),
    TEXT(port, role),
    TEXT(port, mac),
    LIST(port, addresses, word, 16),
    NUMBER(port, mtu),
    NUMBER(port, mac_limit),
    NUMBER(port, flood_bytes_per_s),
    TEXT(port, underlay),
    TEXT(port, local),
    TEXT(port, remote),
    NUMBER(port, vni),
    NUMBER(port, udp_port),
    NUMBER(port, path_mtu),
    CYAML_FIELD_MAPPING_PTR("promises", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct port, promises, promise_fields),
    CYAML_FIELD_BOOL("unsealed", CYAML_FLAG_OPTIONAL, struct port, unsealed),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t route_fields[] = {
    CYAML_FIELD_STRING_PTR("prefix", CYAML_FLAG_POINTER, struct route, prefix, 1, CYAML_UNLIMITED),
    TEXT(route, via),
    TEXT(route, port),
    TEXT(route, type),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t port_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct port, port_fields)};
static const cyaml_schema_value_t route_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct route, route_fields)};
static const cyaml_schema_field_t link_fields[] = {
    TEXT(link, kind), NUMBER(link, vni), NUMBER(link, udp_port), NUMBER(link, path_mtu), LIST(link, hosts, word, 255),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t outside_fields[] = {TEXT(outside, limit), CYAML_FIELD_END};
static const cyaml_schema_field_t peer_fields[] = {NAME(peer), TEXT(peer, address), TEXT(peer, connect), CYAML_FIELD_END};
static const cyaml_schema_value_t peer_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct peer, peer_fields)};
static const cyaml_schema_field_t host_fields[] = {
    TEXT(host, address),
    TEXT(host, underlay),
    TEXT(host, listen),
    TEXT(host, certificate),
    TEXT(host, key),
    TEXT(host, ca),
    LIST(host, peers, peer_value, 255),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t network_fields[] = {
    NAME(network),
    TEXT(network, tenant),
    TEXT(network, description),
    TEXT(network, type),
    LIST(network, prefixes, word, 16),
    TEXT(network, gateway),
    CYAML_FIELD_BOOL("nat", CYAML_FLAG_OPTIONAL, struct network, nat),
    CYAML_FIELD_BOOL("dhcp", CYAML_FLAG_OPTIONAL, struct network, dhcp),
    CYAML_FIELD_BOOL("dns", CYAML_FLAG_OPTIONAL, struct network, dns),
    LIST(network, forwards, word, 256),
    NUMBER(network, weight),
    NUMBER(network, buffers),
    NUMBER(network, macs),
    NUMBER(network, age_s),
    TEXT(network, unknown),
    NUMBER(network, neighbours),
    NUMBER(network, neighbour_age_s),
    NUMBER(network, icmp_errors_per_s),
    NUMBER(network, table_mb),
    TEXT(network, netns),
    NUMBER(network, fpm_port),
    NUMBER(network, stale_s),
    CYAML_FIELD_MAPPING_PTR("promises", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct network, promises, promise_fields),
    CYAML_FIELD_MAPPING_PTR("link", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct network, link, link_fields),
    CYAML_FIELD_MAPPING_PTR("outside", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct network, outside, outside_fields),
    LIST(network, ports, port_value, 256),
    LIST(network, routes, route_value, CYAML_UNLIMITED),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t net_fields[] = {
    NAME(net),
    TEXT(net, mac),
    TEXT(net, ip),
    CYAML_FIELD_MAPPING_PTR("promises", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct net, promises, promise_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t net_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct net, net_fields)};
static const cyaml_schema_field_t disk_fields[] = {
    NAME(disk),
    TEXT(disk, path),
    TEXT(disk, size),
    TEXT(disk, from),
    TEXT(disk, over),
    TEXT(disk, serial),
    CYAML_FIELD_BOOL("read_only", CYAML_FLAG_OPTIONAL, struct disk, read_only),
    NUMBER(disk, queues),
    CYAML_FIELD_MAPPING_PTR("promises", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct disk, promises, promise_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t machine_fields[] = {
    NAME(machine),
    TEXT(machine, tenant),
    TEXT(machine, image),
    TEXT(machine, kernel),
    TEXT(machine, initrd),
    TEXT(machine, append),
    TEXT(machine, engine),
    TEXT(machine, cpu),
    TEXT(machine, memory),
    CYAML_FIELD_BOOL("hugepages", CYAML_FLAG_OPTIONAL, struct machine, hugepages),
    NUMBER(machine, cpus),
    CYAML_FIELD_ENUM("restart", CYAML_FLAG_OPTIONAL, struct machine, restart, restarts, CYAML_ARRAY_LEN(restarts)),
    CYAML_FIELD_ENUM("on_reboot", CYAML_FLAG_OPTIONAL, struct machine, exit_on_reboot, reboots, CYAML_ARRAY_LEN(reboots)),
    CYAML_FIELD_BOOL("perf_map", CYAML_FLAG_OPTIONAL, struct machine, perf_map),
    CYAML_FIELD_BOOL("jitdump", CYAML_FLAG_OPTIONAL, struct machine, jitdump),
    LIST(machine, disks, word, SPEC_DISKS_MAX),
    TEXT(machine, net),
    LIST(machine, nets, net_value, SPEC_NICS_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t tenant_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct tenant, tenant_fields)};
static const cyaml_schema_value_t network_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct network, network_fields)};
static const cyaml_schema_value_t disk_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct disk, disk_fields)};
static const cyaml_schema_value_t machine_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct machine, machine_fields)};

static const cyaml_schema_field_t plan_fields[] = {
    CYAML_FIELD_MAPPING_PTR("host", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct plan, host, host_fields),
    LIST(plan, tenants, tenant_value, CYAML_UNLIMITED),
    LIST(plan, networks, network_value, CYAML_UNLIMITED),
    LIST(plan, disks, disk_value, CYAML_UNLIMITED),
    CYAML_FIELD_SEQUENCE_COUNT("machines", CYAML_FLAG_POINTER, struct plan, machines, n_machines, &machine_value, 1,
                               CYAML_UNLIMITED),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t plan_schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct plan, plan_fields)};

// --- reading

struct reader {
    const struct yaml_file *yaml;
    const struct plan *plan;
    const char *dir; // relative paths begin here
    struct up_file *file;
    json_t **disks;         // of the plan, as spec_decode() takes them
    const char **disk_user; // the machine that has each of them; NULL: none yet
    struct tv_error *err;
};

// At the value of `key` of an entry of a section.
#define FAULT(r, section, name, key, ...) fault(r, (const char *const[]){section, name, key}, __VA_ARGS__)

static int fault(const struct reader *r, const char *const place[static 3], const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fault(const struct reader *r, const char *const place[static 3], const char *format, ...)
{
    char path[2 * SPEC_NAME_MAX + 64], text[400];
    snprintf(path, sizeof(path), "%s/%s/%s", place[0], place[1], place[2]);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return yaml_file_error(r->yaml, path, r->err, "%s", text);
}

static void put_text(json_t *json, const char *key, const char *text)
{
    if (text)
        json_object_set_new(json, key, json_string(text));
}

// A path, absolute in the end.
static int put_path(const struct reader *r, const char *const place[static 3], json_t *json, const char *text)
{
    char full[PATH_MAX];
    if (!text)
        return 0;
    if (path_format(full, NULL, "%s%s%s", text[0] == '/' ? "" : r->dir, text[0] == '/' ? "" : "/", text))
        return fault(r, place, "'%s': the path is longer than %d bytes", place[2], PATH_MAX - 1);
    return json_object_set_new(json, place[2], json_string(full));
}

static int put_size(const struct reader *r, const char *const place[static 3], json_t *json, const char *key, const char *text)
{
    uint64_t bytes;
    struct tv_error why = {0};
    if (!text)
        return 0;
    if (spec_parse_size(text, place[2], &bytes, &why))
        return fault(r, place, "%s", why.text);
    return json_object_set_new(json, key, json_integer((json_int_t)bytes));
}

static int put_number(const struct reader *r, const char *const place[static 3], json_t *json, const uint32_t *number,
                      unsigned most)
{
    if (number && (*number < 1 || *number > most))
        return fault(r, place, "'%s' should be from 1 to %u, not %u", place[2], most, *number);
    return number ? json_object_set_new(json, place[2], json_integer(*number)) : 0;
}

static int check_tenant(const struct reader *r, const char *section, const char *name, const char *tenant)
{
    for (uint32_t i = 0; tenant && i < r->plan->n_tenants; i++)
        if (strcmp(r->plan->tenants[i].name, tenant) == 0)
            return 0;
    return tenant ? FAULT(r, section, name, "tenant", "there is no tenant '%s' under 'tenants'", tenant) : 0;
}

// --- disks

// from: image NAME
static int put_from(const struct reader *r, const struct disk *disk, json_t *json)
{
    if (!disk->from)
        return 0;
    if (strncmp(disk->from, "image ", 6) != 0)
        return FAULT(r, "disks", disk->name, "from", "'from' should be 'image NAME', not '%.60s'", disk->from);
    if (!image_is_known(disk->from + 6))
        return FAULT(r, "disks", disk->name, "from", "image '%.60s' is not known; there are " IMAGE_NAMES, disk->from + 6);
    return json_object_set_new(json, "image", json_string(disk->from + 6));
}

// Without a path it lies in the state directory.
static int put_default_path(const struct reader *r, const struct disk *disk, json_t *json)
{
    char state[PATH_MAX], path[PATH_MAX];
    if (disk->path)
        return 0;
    if (!disk->size && !disk->from && !disk->over)
        return FAULT(r, "disks", disk->name, "", "disk '%s': give a path, a size, 'from: image NAME' or 'over: FILE'", disk->name);
    const char *suffix = disk->over ? STORE_VOLUME_SUFFIX : ".raw";
    if (path_state_dir(state, r->err) || path_format(path, r->err, "%s/disks/%s%s", state, disk->name, suffix))
        return r->err->code;
    return json_object_set_new(json, "path", json_string(path));
}

// Copy-on-write over a template: the disk itself is a volume file, whose size is the making's business.
static int put_over(const struct reader *r, const struct disk *disk, json_t *json)
{
    if (!disk->over)
        return 0;
    if (disk->from)
        return FAULT(r, "disks", disk->name, "over", "disk '%s': is either a copy ('from') or over a template ('over')",
                     disk->name);
    if (!store_is_volume_file(json_string_value(json_object_get(json, "path"))))
        return FAULT(r, "disks", disk->name, "path",
                     "disk '%s': a disk over a template is a volume file, whose name ends in " STORE_VOLUME_SUFFIX, disk->name);
    json_t *overlay = json_pack("{s:s, s:O, s:I}", "name", disk->name, "path", json_object_get(json, "path"), "size_bytes",
                                json_integer_value(json_object_get(json, "size_bytes")));
    json_array_append_new(r->file->overlays, overlay);
    json_object_del(json, "size_bytes");
    return put_path(r, (const char *const[]){"disks", disk->name, "over"}, overlay, disk->over);
}

// What the owner, `what` in words, is promised of a resource, as one text. place: section, name and the key that leads there.
static int put_promises(const struct reader *r, const char *const place[static 3], const char *what,
                        const struct promises *promises, enum promise_resource resource, json_t *json)
{
    const struct promises none = {0}, *p = promises ? promises : &none;
    const struct {
        const char *key, *value;
    } entries[] = {{"reserve", p->reserve},
                   {"limit", p->limit},
                   {"weight", p->weight},
                   {"latency", p->latency},
                   {"utilization", p->utilization}};
    struct promise_set set = {.resource = resource};
    char text[PROMISE_SET_TEXT_MAX], key[64];
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        struct tv_error why = {0};
        snprintf(key, sizeof(key), "%s/%s", place[2], entries[i].key);
        if (entries[i].value && promise_set_add(&set, entries[i].key, entries[i].value, &why))
            return FAULT(r, place[0], place[1], key, "%s: %s", what, why.text);
    }
    return set.n ? json_object_set_new(json, "promises", json_string(promise_set_format(&set, text))) : 0;
}

static int put_disk_promises(const struct reader *r, const struct disk *disk, json_t *json)
{
    char what[128];
    snprintf(what, sizeof(what), "disk '%.100s'", disk->name);
    return put_promises(r, (const char *const[]){"disks", disk->name, "promises"}, what, disk->promises, PROMISE_DISK, json);
}

static int read_disk(struct reader *r, uint32_t index)
{
    const struct disk *disk = &r->plan->disks[index];
    json_t *json = json_pack("{s:s, s:b}", "name", disk->name, "read_only", disk->read_only);
    r->disks[index] = json;
    put_text(json, "serial", disk->serial);
    int rc = put_path(r, (const char *const[]){"disks", disk->name, "path"}, json, disk->path);
    if (!rc)
        rc = put_size(r, (const char *const[]){"disks", disk->name, "size"}, json, "size_bytes", disk->size);
    if (!rc)
        rc = put_number(r, (const char *const[]){"disks", disk->name, "queues"}, json, disk->queues, SPEC_QUEUES_MAX);
    if (!rc)
        rc = put_from(r, disk, json);
    if (!rc)
        rc = put_disk_promises(r, disk, json);
    if (!rc)
        rc = put_default_path(r, disk, json);
    if (!rc)
        rc = put_over(r, disk, json);
    for (uint32_t i = 0; i < index && !rc; i++)
        if (json_equal(json_object_get(r->disks[i], "path"), json_object_get(json, "path")))
            rc = FAULT(r, "disks", disk->name, "path", "disk '%s' has the same path as disk '%s'", disk->name,
                       r->plan->disks[i].name);
    return rc;
}

// --- networks

// "A, B" as a list of texts.
static json_t *split(const char *text)
{
    json_t *list = json_array();
    while (text && *text) {
        text += strspn(text, ", ");
        const size_t len = strcspn(text, ", ");
        if (len)
            json_array_append_new(list, json_stringn(text, len));
        text += len;
    }
    return list;
}

static json_t *words(char *const *list, uint32_t n)
{
    json_t *json = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(json, json_string(list[i]));
    return json;
}

static void put_if(json_t *json, const char *key, const uint32_t *number)
{
    if (number)
        json_object_set_new(json, key, json_integer(*number));
}

static json_t *read_options(const struct network *network)
{
    json_t *options = json_object();
    put_text(options, "unknown", network->unknown);
    put_if(options, "weight", network->weight);
    put_if(options, "buffers", network->buffers);
    put_if(options, "macs", network->macs);
    put_if(options, "age_s", network->age_s);
    put_if(options, "neighbours", network->neighbours);
    put_if(options, "neighbour_age_s", network->neighbour_age_s);
    put_if(options, "icmp_errors_per_s", network->icmp_errors_per_s);
    put_if(options, "table_mb", network->table_mb);
    put_text(options, "netns", network->netns);
    put_if(options, "fpm_port", network->fpm_port);
    put_if(options, "stale_s", network->stale_s);
    return options;
}

static json_t *read_port(const struct port *port)
{
    json_t *json = json_pack("{s:s}", "name", port->name);
    put_text(json, "kind", port->kind);
    put_text(json, "device", port->device);
    put_text(json, "socket", port->socket);
    put_text(json, "address", port->address);
    put_text(json, "role", port->role);
    put_text(json, "mac", port->mac);
    put_if(json, "mtu", port->mtu);
    put_if(json, "mac_limit", port->mac_limit);
    put_if(json, "flood_bytes_per_s", port->flood_bytes_per_s);
    put_text(json, "underlay", port->underlay);
    put_text(json, "local", port->local);
    put_text(json, "remote", port->remote);
    put_if(json, "vni", port->vni);
    put_if(json, "udp_port", port->udp_port);
    put_if(json, "path_mtu", port->path_mtu);
    if (port->n_addresses)
        json_object_set_new(json, "addresses", words(port->addresses, port->n_addresses));
    if (port->unsealed)
        json_object_set_new(json, "unsealed", json_true());
    return json;
}

static json_t *read_route(const struct route *route)
{
    json_t *json = json_pack("{s:s}", "prefix", route->prefix);
    if (route->via)
        json_object_set_new(json, "via", split(route->via));
    put_text(json, "port", route->port);
    put_text(json, "type", route->type);
    return json;
}

static int read_services(const struct reader *r, const struct network *network, json_t *json)
{
    struct tv_error why = {0};
    json_t *services = json_pack("{s:b, s:b, s:b}", "nat", network->nat, "dhcp", network->dhcp, "dns", network->dns), *forward;
    json_t *forwards = json_array();
    json_object_set_new(json, "services", services);
    json_object_set_new(services, "forwards", forwards);
    put_text(services, "limit", network->outside ? network->outside->limit : NULL);
    for (uint32_t i = 0; i < network->n_forwards; i++) {
        char key[32];
        snprintf(key, sizeof(key), "forwards/%u", i);
        if (net_spec_parse_forward(network->forwards[i], &forward, &why))
            return FAULT(r, "networks", network->name, key, "network '%s': %s", network->name, why.text);
        json_array_append_new(forwards, forward);
    }
    return 0;
}

// Of the network itself, and of its ports.
static int put_network_promises(const struct reader *r, const struct network *network, json_t *json)
{
    char what[128], key[64];
    snprintf(what, sizeof(what), "network '%.40s'", network->name);
    int rc = put_promises(r, (const char *const[]){"networks", network->name, "promises"}, what, network->promises, PROMISE_LINK,
                          json_object_get(json, "options"));
    for (uint32_t i = 0; i < network->n_ports && !rc; i++) {
        const struct port *port = &network->ports[i];
        snprintf(what, sizeof(what), "port '%.40s' of network '%.40s'", port->name, network->name);
        snprintf(key, sizeof(key), "ports/%.40s/promises", port->name);
        rc = put_promises(r, (const char *const[]){"networks", network->name, key}, what, port->promises, PROMISE_LINK,
                          json_array_get(json_object_get(json, "ports"), i));
    }
    return rc;
}

// --- this host and others

static int read_host(struct reader *r)
{
    const struct host *host = r->plan->host;
    struct tv_error why = {0};
    if (!host)
        return 0;
    json_t *peers = json_array();
    cleanup_json json_t *json = json_pack("{s:o}", "peers", peers);
    put_text(json, "address", host->address);
    put_text(json, "underlay", host->underlay);
    put_text(json, "listen", host->listen);
    int rc = put_path(r, (const char *const[]){"host", "certificate", "certificate"}, json, host->certificate);
    if (!rc)
        rc = put_path(r, (const char *const[]){"host", "key", "key"}, json, host->key);
    if (!rc)
        rc = put_path(r, (const char *const[]){"host", "ca", "ca"}, json, host->ca);
    for (uint32_t i = 0; i < host->n_peers; i++) {
        json_t *peer = json_pack("{s:s}", "name", host->peers[i].name);
        put_text(peer, "address", host->peers[i].address);
        put_text(peer, "connect", host->peers[i].connect);
        json_array_append_new(peers, peer);
    }
    if (!rc && host_spec_check(json, &r->file->host, &why))
        rc = yaml_file_error(r->yaml, "host", r->err, "%s", why.text);
    return rc;
}

// Links to hosts that the file does not have, if it has any.
static int check_link(const struct reader *r, const struct network *network, const json_t *checked)
{
    cleanup_json json_t *links = NULL;
    struct tv_error why = {0};
    if (!r->file->host || host_spec_links(r->file->host, checked, &links, &why) == 0)
        return 0;
    return FAULT(r, "networks", network->name, "link", "%s", why.text);
}

// --- the whole of a network

static void put_link(const struct network *network, json_t *json)
{
    const struct link *link = network->link;
    if (!link)
        return;
    json_t *made = json_pack("{s:o}", "hosts", words(link->hosts, link->n_hosts));
    put_text(made, "kind", link->kind);
    put_if(made, "vni", link->vni);
    put_if(made, "udp_port", link->udp_port);
    put_if(made, "path_mtu", link->path_mtu);
    json_object_set_new(json, "link", made);
}

static int read_network(struct reader *r, const struct network *network)
{
    json_t *ports = json_array(), *routes = json_array(), *checked;
    struct tv_error why = {0};
    for (uint32_t i = 0; i < network->n_ports; i++)
        json_array_append_new(ports, read_port(&network->ports[i]));
    for (uint32_t i = 0; i < network->n_routes; i++)
        json_array_append_new(routes, read_route(&network->routes[i]));
    json_t *json = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "name", network->name, "prefixes",
                             words(network->prefixes, network->n_prefixes), "gateways", split(network->gateway), "options",
                             read_options(network), "ports", ports, "routes", routes);
    put_text(json, "type", network->type);
    put_text(json, "tenant", network->tenant);
    put_text(json, "description", network->description);
    put_link(network, json);
    int rc = check_tenant(r, "networks", network->name, network->tenant);
    if (!rc)
        rc = put_network_promises(r, network, json);
    if (!rc)
        rc = read_services(r, network, json);
    if (!rc && net_spec_check(json, &checked, &why))
        rc = FAULT(r, "networks", network->name, "", "%s", why.text);
    else if (!rc && json_array_append_new(r->file->networks, checked) == 0)
        rc = check_link(r, network, checked);
    json_decref(json);
    return rc;
}

// --- machines

// Its list of names of disks. A disk belongs to one machine, unless it is only read.
static int put_disks(struct reader *r, const struct machine *machine, json_t *json)
{
    json_t *list = json_array();
    json_object_set_new(json, "disks", list);
    for (uint32_t i = 0; i < machine->n_disks; i++) {
        char key[32];
        uint32_t d = 0;
        snprintf(key, sizeof(key), "disks/%u", i);
        while (d < r->plan->n_disks && strcmp(r->plan->disks[d].name, machine->disks[i]) != 0)
            d++;
        if (d == r->plan->n_disks)
            return FAULT(r, "machines", machine->name, key, "there is no disk '%s' under 'disks'", machine->disks[i]);
        if (r->disk_user[d] && !r->plan->disks[d].read_only)
            return FAULT(r, "machines", machine->name, key,
                         "disk '%s' is machine '%s''s already; only a read_only one can be shared", machine->disks[i],
                         r->disk_user[d]);
        json_array_append_new(list, json_deep_copy(r->disks[d]));
        r->disk_user[d] = machine->name;
    }
    return 0;
}

static int put_paths(const struct reader *r, const struct machine *machine, json_t *json)
{
    int rc = put_path(r, (const char *const[]){"machines", machine->name, "kernel"}, json, machine->kernel);
    return rc ? rc : put_path(r, (const char *const[]){"machines", machine->name, "initrd"}, json, machine->initrd);
}

static int check_words(const struct reader *r, const struct machine *machine)
{
    if (machine->image && !image_is_known(machine->image))
        return FAULT(r, "machines", machine->name, "image", "machine '%s': image '%.60s' is not known; there are " IMAGE_NAMES,
                     machine->name, machine->image);
    return check_tenant(r, "machines", machine->name, machine->tenant);
}

static int put_net_promises(const struct reader *r, const struct machine *machine, const struct net *net, json_t *json)
{
    char what[160], key[32 + SPEC_NAME_MAX];
    snprintf(what, sizeof(what), "machine '%.60s': network '%.60s'", machine->name, net->name);
    snprintf(key, sizeof(key), "nets/%.*s/promises", SPEC_NAME_MAX, net->name);
    return put_promises(r, (const char *const[]){"machines", machine->name, key}, what, net->promises, PROMISE_LINK, json);
}

// net: NAME, or nets: {NAME: {mac, ip, promises}, ...}
static int put_nets(const struct reader *r, const struct machine *machine, json_t *json)
{
    json_t *list = json_array();
    if (machine->net || machine->n_nets)
        json_object_set(json, "nics", list);
    json_decref(list);
    if (machine->net && machine->n_nets)
        return FAULT(r, "machines", machine->name, "net", "machine '%s': give either 'net' or 'nets'", machine->name);
    if (machine->net)
        json_array_append_new(list, json_pack("{s:s}", "network", machine->net));
    for (uint32_t i = 0; i < machine->n_nets; i++) {
        json_t *net = json_pack("{s:s, s:o}", "network", machine->nets[i].name, "addresses", split(machine->nets[i].ip));
        put_text(net, "mac", machine->nets[i].mac);
        json_array_append_new(list, net);
        if (put_net_promises(r, machine, &machine->nets[i], net))
            return -EINVAL;
    }
    return 0;
}

// Networks that the file has know more of what fits in; others trivetd knows.
static int check_nets(const struct reader *r, const struct machine *machine, const struct machine_spec *spec)
{
    size_t i;
    json_t *network;
    struct tv_error why = {0};
    for (unsigned k = 0; k < spec->n_nics; k++) {
        char key[32 + SPEC_NAME_MAX];
        snprintf(key, sizeof(key), machine->net ? "net" : "nets/%s", spec->nics[k].network);
        json_array_foreach(r->file->networks, i, network)
        {
            if (strcmp(net_spec_name(network), spec->nics[k].network) == 0 &&
                net_spec_check_machine(network, spec, &spec->nics[k], &why))
                return FAULT(r, "machines", machine->name, key, "%s", why.text);
        }
    }
    return 0;
}

static int read_machine(struct reader *r, const struct machine *machine)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b}", "name", machine->name, "restart",
                             spec_restart_name(machine->restart), "on_reboot", reboots[machine->exit_on_reboot].str, "hugepages",
                             machine->hugepages, "perf_map", machine->perf_map, "jitdump", machine->jitdump);
    json_array_append_new(r->file->machines, json);
    put_text(json, "tenant", machine->tenant);
    put_text(json, "image", machine->image);
    put_text(json, "append", machine->append);
    put_text(json, "engine", machine->engine);
    put_text(json, "cpu", machine->cpu);
    int rc = check_words(r, machine);
    if (!rc)
        rc = put_paths(r, machine, json);
    if (!rc)
        rc = put_size(r, (const char *const[]){"machines", machine->name, "memory"}, json, "memory_bytes", machine->memory);
    if (!rc)
        rc = put_number(r, (const char *const[]){"machines", machine->name, "cpus"}, json, machine->cpus, SPEC_CPUS_MAX);
    if (!rc)
        rc = put_disks(r, machine, json);
    if (!rc)
        rc = put_nets(r, machine, json);
    struct machine_spec spec;
    struct tv_error why = {0};
    if (!rc && spec_decode(json, &spec, &why))
        return FAULT(r, "machines", machine->name, "", "%s", why.text);
    if (!rc) {
        rc = check_nets(r, machine, &spec);
        spec_free(&spec);
    }
    return rc;
}

// --- the whole

static int read_plan(struct reader *r)
{
    const struct plan *plan = r->plan;
    int rc = read_host(r);
    for (uint32_t i = 0; i < plan->n_tenants; i++)
        json_array_append_new(r->file->tenants, json_string(plan->tenants[i].name));
    for (uint32_t i = 0; i < plan->n_networks && !rc; i++)
        rc = read_network(r, &plan->networks[i]);
    for (uint32_t i = 0; i < plan->n_disks && !rc; i++)
        rc = read_disk(r, i);
    for (uint32_t i = 0; i < plan->n_machines && !rc; i++)
        rc = read_machine(r, &plan->machines[i]);
    return rc;
}

// Takes yaml.
static int read_yaml(struct yaml_file *yaml, const char *dir, struct up_file *file, struct tv_error *err)
{
    struct tv_error none = {0};
    const struct plan *plan = yaml_file_data(yaml);
    const size_t n = plan->n_disks + 1u;
    struct reader r = {.yaml = yaml,
                       .plan = plan,
                       .dir = dir,
                       .file = file,
                       .disks = calloc(n, sizeof(json_t *)),
                       .disk_user = calloc(n, sizeof(char *)),
                       .err = err ? err : &none};
    *file = (struct up_file){.tenants = json_array(), .networks = json_array(), .machines = json_array(), .overlays = json_array()};
    int rc = r.disks && r.disk_user ? read_plan(&r) : tv_error_set(err, -ENOMEM, "no memory");
    for (uint32_t i = 0; r.disks && i < plan->n_disks; i++)
        json_decref(r.disks[i]);
    free(r.disks);
    free(r.disk_user);
    yaml_file_destroy(yaml);
    if (rc)
        up_file_free(file);
    return rc;
}

static int folder_of(const char *path, char dir[static PATH_MAX], struct tv_error *err)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    char *slash = strrchr(real, '/');
    slash[slash == real] = 0;
    return path_format(dir, err, "%s", real);
}

int up_file_load(const char *path, struct up_file *file, struct tv_error *err)
{
    struct yaml_file *yaml;
    char dir[PATH_MAX];
    *file = (struct up_file){0};
    int rc = yaml_file_load(path, &plan_schema, &yaml, err);
    if (rc)
        return rc;
    rc = folder_of(path, dir, err);
    if (rc) {
        yaml_file_destroy(yaml);
        return rc;
    }
    return read_yaml(yaml, dir, file, err);
}

int up_file_parse(const char *name, const char *dir, const char *text, size_t len_bytes, struct up_file *file, struct tv_error *err)
{
    struct yaml_file *yaml;
    *file = (struct up_file){0};
    int rc = yaml_file_parse(name, text, len_bytes, &plan_schema, &yaml, err);
    return rc ? rc : read_yaml(yaml, dir, file, err);
}

void up_file_free(struct up_file *file)
{
    json_decref(file->host);
    json_decref(file->tenants);
    json_decref(file->networks);
    json_decref(file->machines);
    json_decref(file->overlays);
    *file = (struct up_file){0};
}
