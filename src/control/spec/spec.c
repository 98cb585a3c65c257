// What a machine is to be: see spec.h.
#include "control/spec/spec.h"

#include "control/cleanup.h"
#include "control/net/net_spec.h"
#include "promise/promise.h"
#include "store/open.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

static const char *const restart_names[] = {"no", "on-failure", "always"};

bool spec_name_is_good(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t len = strlen(name);
    return len > 0 && len <= SPEC_NAME_MAX && strspn(name, letters) == len && !strchr("-_.", name[0]);
}

int spec_parse_size(const char *text, const char *what, uint64_t *bytes, struct tv_error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    unsigned shift = 0;
    if (end && *end && strchr("KMGTkmgt", *end)) {
        static const char units[] = "kmgt";
        shift = 10 * (unsigned)(strchr(units, *end | 0x20) - units + 1);
        end++;
    }
    if (end && *end)
        end += strcmp(end, "iB") == 0 ? 2 : strcmp(end, "B") == 0;
    if (!end || *end || errno || value == 0 || value > (UINT64_MAX >> 1) >> shift)
        return tv_error_set(err, -EINVAL, "%s '%s' is no size, such as 512M or 2G", what, text);
    *bytes = (uint64_t)value << shift;
    return 0;
}

static bool comes_before(const struct promise *a, const struct promise *b)
{
    return a->kind != b->kind ? a->kind < b->kind : a->metric < b->metric;
}

int spec_parse_promises(const char *text, enum promise_resource resource, char **promises, struct tv_error *err)
{
    struct promise_set set, sorted = {.resource = resource};
    char buffer[PROMISE_SET_TEXT_MAX];
    *promises = NULL;
    int rc = promise_set_parse(&set, resource, text, err);
    if (rc || !set.n)
        return rc;
    for (; sorted.n < set.n; sorted.n++) {
        unsigned at = sorted.n;
        for (; at && comes_before(&set.list[sorted.n], &sorted.list[at - 1]); at--)
            sorted.list[at] = sorted.list[at - 1];
        sorted.list[at] = set.list[sorted.n];
    }
    *promises = strdup(promise_set_format(&sorted, buffer));
    return *promises ? 0 : tv_error_set(err, -ENOMEM, "no memory");
}

int spec_parse_restart(const char *text, enum spec_restart *restart)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(text, restart_names[i]) == 0) {
            *restart = (enum spec_restart)i;
            return 0;
        }
    return -EINVAL;
}

const char *spec_restart_name(enum spec_restart restart)
{
    return restart_names[restart];
}

// --- decoding

// A copy of a string member, NULL if there is none.
static int take_string(const json_t *json, const char *key, char **value, struct tv_error *err)
{
    const json_t *member = json_object_get(json, key);
    if (!member || json_is_null(member))
        return 0;
    if (!json_is_string(member))
        return tv_error_set(err, -EINVAL, "'%s' should be a string", key);
    *value = strdup(json_string_value(member));
    return *value ? 0 : tv_error_set(err, -ENOMEM, "no memory");
}

static int take_number(const json_t *json, const char *key, uint64_t min, uint64_t max, uint64_t *value, struct tv_error *err)
{
    const json_t *member = json_object_get(json, key);
    if (!member)
        return 0;
    json_int_t n = json_is_integer(member) ? json_integer_value(member) : -1;
    if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
        return tv_error_set(err, -EINVAL, "'%s' should be from %llu to %llu", key, (unsigned long long)min,
                            (unsigned long long)max);
    *value = (uint64_t)n;
    return 0;
}

static int take_bool(const json_t *json, const char *key, bool *value, struct tv_error *err)
{
    const json_t *member = json_object_get(json, key);
    if (member && !json_is_boolean(member))
        return tv_error_set(err, -EINVAL, "'%s' should be true or false", key);
    if (member)
        *value = json_is_true(member);
    return 0;
}

static int absolute(const char *key, const char *path, struct tv_error *err)
{
    return !path || path[0] == '/' ? 0 : tv_error_set(err, -EINVAL, "'%s' should be an absolute path", key);
}

static int take_promises(const json_t *json, enum promise_resource resource, char **promises, struct tv_error *err)
{
    cleanup_free char *text = NULL;
    int rc = take_string(json, "promises", &text, err);
    return rc || !text ? rc : spec_parse_promises(text, resource, promises, err);
}

static int decode_disk(const json_t *json, struct disk_spec *disk, struct tv_error *err)
{
    uint64_t queues = 1;
    int rc = take_string(json, "name", &disk->name, err);
    if (!rc && (!disk->name || !spec_name_is_good(disk->name)))
        return tv_error_set(err, -EINVAL, "disk '%s': the name should be letters, digits, '-', '_' and '.'",
                            disk->name ? disk->name : "");
    if (!rc)
        rc = take_string(json, "path", &disk->path, err);
    if (!rc)
        rc = take_string(json, "serial", &disk->serial, err);
    if (!rc)
        rc = take_string(json, "image", &disk->image, err);
    if (!rc)
        rc = take_promises(json, PROMISE_DISK, &disk->promises, err);
    if (!rc)
        rc = take_number(json, "size_bytes", 0, INT64_MAX, &disk->size_bytes, err);
    if (!rc)
        rc = take_number(json, "queues", 1, SPEC_QUEUES_MAX, &queues, err);
    if (!rc)
        rc = take_bool(json, "read_only", &disk->read_only, err);
    if (!rc)
        rc = absolute("path", disk->path, err);
    if (!rc && !disk->path)
        rc = tv_error_set(err, -EINVAL, "'path' is missing");
    if (!rc && store_is_volume_file(disk->path) && (disk->size_bytes || disk->image))
        rc = tv_error_set(err, -EINVAL,
                          "%s is a volume file, which is not made from a size or an image; `trivet disk create` makes one",
                          disk->path);
    if (!rc && disk->serial && strlen(disk->serial) > 20)
        rc = tv_error_set(err, -EINVAL, "serial '%s' is longer than 20 characters", disk->serial);
    if (!rc && disk->size_bytes % 512)
        rc = tv_error_set(err, -EINVAL, "a size of %llu bytes is no multiple of 512", (unsigned long long)disk->size_bytes);
    disk->queues = (unsigned)queues;
    return rc ? tv_error_prefix(err, "disk '%s'", disk->name) : 0;
}

static int decode_disks(const json_t *disks, struct machine_spec *spec, struct tv_error *err)
{
    if (disks && !json_is_array(disks))
        return tv_error_set(err, -EINVAL, "'disks' should be an array");
    if (json_array_size(disks) > SPEC_DISKS_MAX)
        return tv_error_set(err, -EINVAL, "%zu disks are more than %d", json_array_size(disks), SPEC_DISKS_MAX);
    for (size_t i = 0; i < json_array_size(disks); i++) {
        struct disk_spec *disk = &spec->disks[spec->n_disks++];
        int rc = decode_disk(json_array_get(disks, i), disk, err);
        for (unsigned j = 0; j + 1 < spec->n_disks && !rc; j++)
            if (strcmp(spec->disks[j].name, disk->name) == 0)
                rc = tv_error_set(err, -EINVAL, "disk '%s' is named twice", disk->name);
        if (rc)
            return rc;
    }
    return 0;
}

static int decode_nic_addresses(const json_t *addresses, struct nic_spec *nic, struct tv_error *err)
{
    size_t i;
    json_t *entry;
    unsigned char bytes[16];
    if (addresses && (!json_is_array(addresses) || json_array_size(addresses) > SPEC_NIC_ADDRESSES_MAX))
        return tv_error_set(err, -EINVAL, "'addresses' should be an array of at most %d", SPEC_NIC_ADDRESSES_MAX);
    json_array_foreach(addresses, i, entry)
    {
        const char *text = json_is_string(entry) ? json_string_value(entry) : "";
        if (!net_parse_address(text, bytes, NULL))
            return tv_error_set(err, -EINVAL, "'%.60s' is no address, such as 10.0.0.2 or fd00::2", text);
        nic->addresses[nic->n_addresses] = strdup(text);
        if (!nic->addresses[nic->n_addresses++])
            return tv_error_set(err, -ENOMEM, "no memory");
    }
    return 0;
}

// Where none is given: the same at each start, made from two names.
static int decode_mac(const json_t *json, const char *name, const char *other, char mac[static SPEC_MAC_TEXT_MAX],
                      struct tv_error *err)
{
    cleanup_free char *given = NULL;
    int rc = take_string(json, "mac", &given, err);
    if (!rc && given && !net_mac_is_good(given))
        rc = tv_error_set(err, -EINVAL, "mac '%.40s' should be a station's, such as 52:54:00:12:34:56", given);
    if (!rc && given)
        snprintf(mac, SPEC_MAC_TEXT_MAX, "%s", given);
    else if (!rc)
        net_make_mac(name, other, mac);
    return rc;
}

static int decode_nic(const json_t *json, const char *machine, struct nic_spec *nic, struct tv_error *err)
{
    int rc = take_string(json, "network", &nic->network, err);
    if (!rc && (!nic->network || !spec_name_is_good(nic->network)))
        return tv_error_set(err, -EINVAL, "'network' should be the name of a network");
    if (!rc)
        rc = decode_mac(json, machine, nic->network, nic->mac, err);
    if (!rc)
        rc = decode_nic_addresses(json_object_get(json, "addresses"), nic, err);
    if (!rc)
        rc = take_promises(json, PROMISE_LINK, &nic->promises, err);
    return rc ? tv_error_prefix(err, "network '%s'", nic->network ? nic->network : "") : 0;
}

static int decode_nics(const json_t *nics, struct machine_spec *spec, struct tv_error *err)
{
    if (nics && (!json_is_array(nics) || json_array_size(nics) > SPEC_NICS_MAX))
        return tv_error_set(err, -EINVAL, "'nics' should be an array of at most %d", SPEC_NICS_MAX);
    if (json_array_size(nics) && strlen(spec->name) > NET_NAME_MAX)
        return tv_error_set(err, -EINVAL, "its port in a network has its name, which is longer than %d characters", NET_NAME_MAX);
    for (size_t i = 0; i < json_array_size(nics); i++) {
        struct nic_spec *nic = &spec->nics[spec->n_nics++];
        int rc = decode_nic(json_array_get(nics, i), spec->name, nic, err);
        for (unsigned j = 0; j + 1 < spec->n_nics && !rc; j++)
            if (strcmp(spec->nics[j].network, nic->network) == 0)
                rc = tv_error_set(err, -EINVAL, "network '%s' is named twice", nic->network);
        if (rc)
            return rc;
    }
    return 0;
}

static int decode_net(const json_t *json, struct net_spec *net, struct tv_error *err)
{
    uint64_t queues = 1, mtu_bytes = 0;
    int rc = take_string(json, "name", &net->name, err);
    if (!rc && (!net->name || !spec_name_is_good(net->name)))
        return tv_error_set(err, -EINVAL, "net '%s': the name should be letters, digits, '-', '_' and '.'",
                            net->name ? net->name : "");
    if (!rc)
        rc = take_string(json, "socket", &net->socket, err);
    if (!rc && !net->socket)
        return tv_error_set(err, -EINVAL, "net '%s': 'socket' is missing", net->name);
    if (!rc)
        rc = absolute("socket", net->socket, err);
    if (!rc)
        rc = decode_mac(json, "port", net->socket, net->mac, err);
    if (!rc)
        rc = take_number(json, "mtu_bytes", 68, 65535, &mtu_bytes, err);
    if (!rc)
        rc = take_number(json, "queues", 1, 16, &queues, err);
    net->queues = (unsigned)queues;
    net->mtu_bytes = (unsigned)mtu_bytes;
    return rc ? tv_error_prefix(err, "net '%s'", net->name) : 0;
}

static int decode_nets(const json_t *nets, struct machine_spec *spec, struct tv_error *err)
{
    if (nets && !json_is_array(nets))
        return tv_error_set(err, -EINVAL, "'nets' should be an array");
    if (json_array_size(nets) > SPEC_NETS_MAX)
        return tv_error_set(err, -EINVAL, "%zu nets are more than %d", json_array_size(nets), SPEC_NETS_MAX);
    for (size_t i = 0; i < json_array_size(nets); i++) {
        struct net_spec *net = &spec->nets[spec->n_nets++];
        int rc = decode_net(json_array_get(nets, i), net, err);
        for (unsigned j = 0; j + 1 < spec->n_nets && !rc; j++) {
            if (strcmp(spec->nets[j].name, net->name) == 0)
                rc = tv_error_set(err, -EINVAL, "net '%s' is named twice", net->name);
            else if (strcmp(spec->nets[j].socket, net->socket) == 0)
                rc = tv_error_set(err, -EINVAL, "nets '%s' and '%s' have one socket; a port is for one of them", spec->nets[j].name,
                                  net->name);
        }
        if (rc)
            return rc;
    }
    return 0;
}

static int decode_strings(const json_t *json, struct machine_spec *spec, struct tv_error *err)
{
    const struct {
        const char *key;
        char **value;
    } strings[] = {{"tenant", &spec->tenant},   {"engine", &spec->engine}, {"kernel", &spec->kernel},
                   {"initrd", &spec->initrd},   {"append", &spec->append}, {"image", &spec->image},
                   {"restore", &spec->restore}, {"cpu", &spec->cpu},       {NULL, NULL}};
    int rc = 0;
    for (size_t i = 0; strings[i].key && !rc; i++)
        rc = take_string(json, strings[i].key, strings[i].value, err);
    if (!rc && !spec->tenant)
        spec->tenant = strdup("default");
    if (!rc && !spec->engine)
        spec->engine = strdup("auto");
    if (!rc && (!spec->tenant || !spec->engine))
        rc = tv_error_set(err, -ENOMEM, "no memory");
    return rc;
}

// As the engine has them (machine/engine/kvm/baseline.h).
static bool cpu_is_known(const char *cpu)
{
    static const char *const known[] = {"host", "x86-64-v2", "x86-64-v3", "x86-64-v4"};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(cpu, known[i]) == 0)
            return true;
    return false;
}

static int check(const struct machine_spec *spec, struct tv_error *err)
{
    if (!spec_name_is_good(spec->tenant))
        return tv_error_set(err, -EINVAL, "tenant '%s' should be letters, digits, '-', '_' and '.'", spec->tenant);
    if (strcmp(spec->engine, "auto") != 0 && strcmp(spec->engine, "rv64") != 0 && strcmp(spec->engine, "kvm") != 0)
        return tv_error_set(err, -EINVAL, "engine '%s' is not known; there are 'rv64', 'kvm' and 'auto'", spec->engine);
    if (spec->cpu && strcmp(spec->engine, "rv64") == 0)
        return tv_error_set(err, -EINVAL, "cpu '%s' is for engine 'kvm'; engine 'rv64' has a processor of its own: leave it out",
                            spec->cpu);
    if (spec->cpu && !cpu_is_known(spec->cpu))
        return tv_error_set(err, -EINVAL, "cpu '%s' is not known; there are 'host', 'x86-64-v2', 'x86-64-v3' and 'x86-64-v4'",
                            spec->cpu);
    if (!spec->kernel && !spec->image && !spec->restore)
        return tv_error_set(err, -EINVAL, "there is no kernel: give 'kernel' or 'image'");
    if (spec->kernel && spec->image)
        return tv_error_set(err, -EINVAL, "'kernel' and 'image' exclude each other");
    if (spec->audit_instructions && spec->cpus != 1)
        return tv_error_set(err, -EINVAL, "an audit is of one vcpu, not %u: give '--cpus 1'", spec->cpus);
    if (spec->memory_bytes < SPEC_MEMORY_MIN)
        return tv_error_set(err, -EINVAL, "memory of %llu bytes is too little for a kernel: give at least %lluM",
                            (unsigned long long)spec->memory_bytes, (unsigned long long)(SPEC_MEMORY_MIN >> 20));
    if (spec->memory_bytes % 4096)
        return tv_error_set(err, -EINVAL, "memory of %llu bytes is no multiple of 4096", (unsigned long long)spec->memory_bytes);
    if (spec->hugepages && spec->memory_bytes % (2u << 20))
        return tv_error_set(err, -EINVAL, "memory of %llu bytes is no multiple of the huge pages' 2M: give whole ones",
                            (unsigned long long)spec->memory_bytes);
    struct sysinfo host;
    if (sysinfo(&host) == 0 &&
        spec->memory_bytes > (uint64_t)host.totalram * host.mem_unit + (uint64_t)host.totalswap * host.mem_unit)
        return tv_error_set(err, -ENOMEM, "memory of %llu MB is more than this host's %llu MB",
                            (unsigned long long)(spec->memory_bytes >> 20),
                            (unsigned long long)((uint64_t)host.totalram * host.mem_unit >> 20));
    int rc = absolute("kernel", spec->kernel, err);
    if (!rc)
        rc = absolute("initrd", spec->initrd, err);
    return rc ? rc : absolute("restore", spec->restore, err);
}

int spec_decode(const json_t *json, struct machine_spec *spec, struct tv_error *err)
{
    *spec = (struct machine_spec){.memory_bytes = 512ull << 20};
    uint64_t cpus = 1;
    const char *on_reboot = json_string_value(json_object_get(json, "on_reboot"));
    const char *restart = json_string_value(json_object_get(json, "restart"));
    int rc = take_string(json, "name", &spec->name, err);
    if (!rc && (!spec->name || !spec_name_is_good(spec->name)))
        rc = tv_error_set(err, -EINVAL, "machine '%s': the name should be letters, digits, '-', '_' and '.'",
                          spec->name ? spec->name : "");
    if (rc) {
        spec_free(spec);
        return rc;
    }
    rc = decode_strings(json, spec, err);
    if (!rc)
        rc = take_number(json, "memory_bytes", 0, INT64_MAX, &spec->memory_bytes, err);
    if (!rc)
        rc = take_number(json, "cpus", 1, SPEC_CPUS_MAX, &cpus, err);
    if (!rc)
        rc = take_number(json, "audit_instructions", 0, INT64_MAX, &spec->audit_instructions, err);
    spec->cpus = (unsigned)cpus;
    if (!rc && on_reboot && strcmp(on_reboot, "reset") != 0 && strcmp(on_reboot, "exit") != 0)
        rc = tv_error_set(err, -EINVAL, "'on_reboot' should be 'reset' or 'exit'");
    spec->exit_on_reboot = on_reboot && strcmp(on_reboot, "exit") == 0;
    if (!rc && restart && spec_parse_restart(restart, &spec->restart))
        rc = tv_error_set(err, -EINVAL, "'restart' should be 'no', 'on-failure' or 'always'");
    if (!rc)
        rc = take_bool(json, "hugepages", &spec->hugepages, err);
    if (!rc)
        rc = take_bool(json, "perf_map", &spec->perf_map, err);
    if (!rc)
        rc = take_bool(json, "jitdump", &spec->jitdump, err);
    if (!rc)
        rc = decode_disks(json_object_get(json, "disks"), spec, err);
    if (!rc)
        rc = decode_nics(json_object_get(json, "nics"), spec, err);
    if (!rc)
        rc = decode_nets(json_object_get(json, "nets"), spec, err);
    if (!rc && spec->n_nics + spec->n_nets > SPEC_NICS_MAX)
        rc = tv_error_set(err, -EINVAL, "%u network cards are more than %d", spec->n_nics + spec->n_nets, SPEC_NICS_MAX);
    if (!rc)
        rc = check(spec, err);
    if (rc) {
        tv_error_prefix(err, "machine '%s'", spec->name);
        spec_free(spec);
    }
    return rc;
}

// --- encoding

static void put_string(json_t *json, const char *key, const char *value)
{
    if (value)
        json_object_set_new(json, key, json_string(value));
}

static void put_number(json_t *json, const char *key, uint64_t value)
{
    json_object_set_new(json, key, json_integer((json_int_t)value));
}

static json_t *encode_disk(const struct disk_spec *disk)
{
    json_t *json = json_object();
    put_string(json, "name", disk->name);
    put_string(json, "path", disk->path);
    put_string(json, "serial", disk->serial);
    put_string(json, "image", disk->image);
    put_string(json, "promises", disk->promises);
    put_number(json, "size_bytes", disk->size_bytes);
    put_number(json, "queues", disk->queues);
    json_object_set_new(json, "read_only", json_boolean(disk->read_only));
    return json;
}

static json_t *encode_nic(const struct nic_spec *nic)
{
    json_t *addresses = json_array();
    for (unsigned i = 0; i < nic->n_addresses; i++)
        json_array_append_new(addresses, json_string(nic->addresses[i]));
    json_t *json = json_pack("{s:s, s:s, s:o}", "network", nic->network, "mac", nic->mac, "addresses", addresses);
    put_string(json, "promises", nic->promises);
    return json;
}

static json_t *encode_nets(const struct machine_spec *spec)
{
    json_t *nets = json_array();
    for (unsigned i = 0; i < spec->n_nets; i++) {
        const struct net_spec *net = &spec->nets[i];
        json_t *json = json_pack("{s:s, s:s, s:s, s:i}", "name", net->name, "socket", net->socket, "mac", net->mac, "queues",
                                 (int)net->queues);
        if (net->mtu_bytes)
            put_number(json, "mtu_bytes", net->mtu_bytes);
        json_array_append_new(nets, json);
    }
    return nets;
}

json_t *spec_encode(const struct machine_spec *spec)
{
    json_t *json = json_object(), *disks = json_array();
    put_string(json, "name", spec->name);
    put_string(json, "tenant", spec->tenant);
    put_string(json, "engine", spec->engine);
    put_string(json, "cpu", spec->cpu);
    put_string(json, "kernel", spec->kernel);
    put_string(json, "initrd", spec->initrd);
    put_string(json, "append", spec->append);
    put_string(json, "image", spec->image);
    put_string(json, "restore", spec->restore);
    put_string(json, "on_reboot", spec->exit_on_reboot ? "exit" : "reset");
    put_string(json, "restart", spec_restart_name(spec->restart));
    json_object_set_new(json, "hugepages", json_boolean(spec->hugepages));
    json_object_set_new(json, "perf_map", json_boolean(spec->perf_map));
    json_object_set_new(json, "jitdump", json_boolean(spec->jitdump));
    put_number(json, "memory_bytes", spec->memory_bytes);
    put_number(json, "cpus", spec->cpus);
    put_number(json, "audit_instructions", spec->audit_instructions);
    for (unsigned i = 0; i < spec->n_disks; i++)
        json_array_append_new(disks, encode_disk(&spec->disks[i]));
    json_object_set_new(json, "disks", disks);
    json_t *nics = spec->n_nics ? json_array() : NULL;
    for (unsigned i = 0; i < spec->n_nics; i++)
        json_array_append_new(nics, encode_nic(&spec->nics[i]));
    if (nics)
        json_object_set_new(json, "nics", nics);
    if (spec->n_nets)
        json_object_set_new(json, "nets", encode_nets(spec));
    return json;
}

void spec_free_disk(struct disk_spec *disk)
{
    free(disk->name);
    free(disk->path);
    free(disk->serial);
    free(disk->image);
    free(disk->promises);
    *disk = (struct disk_spec){0};
}

int spec_copy_disk(const struct disk_spec *disk, struct disk_spec *copy)
{
    const char *const from[] = {disk->name, disk->path, disk->serial, disk->image, disk->promises};
    char **const to[] = {&copy->name, &copy->path, &copy->serial, &copy->image, &copy->promises};
    bool whole = true;
    *copy = *disk;
    for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
        *to[i] = from[i] ? strdup(from[i]) : NULL;
        whole = whole && (*to[i] || !from[i]);
    }
    if (!whole)
        spec_free_disk(copy);
    return whole ? 0 : -ENOMEM;
}

void spec_free(struct machine_spec *spec)
{
    char *const strings[] = {spec->name,   spec->tenant, spec->engine, spec->cpu,    spec->kernel,
                             spec->initrd, spec->append, spec->image,  spec->restore};
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(strings[i]);
    for (unsigned i = 0; i < spec->n_disks; i++)
        spec_free_disk(&spec->disks[i]);
    for (unsigned i = 0; i < spec->n_nics; i++) {
        free(spec->nics[i].network);
        free(spec->nics[i].promises);
        for (unsigned j = 0; j < spec->nics[i].n_addresses; j++)
            free(spec->nics[i].addresses[j]);
    }
    for (unsigned i = 0; i < spec->n_nets; i++) {
        free(spec->nets[i].name);
        free(spec->nets[i].socket);
    }
    *spec = (struct machine_spec){0};
}
