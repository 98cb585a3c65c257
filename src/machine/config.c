// Decoding a machine's configuration: see config.h. One table names every member; what is not in it is refused.
#include "machine/config.h"
#include "machine/device/device.h"
#include "machine/engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_TEXT_MAX (1u << 20)
#define PAGE_BYTES 4096u

enum kind { KIND_NAME, KIND_TEXT, KIND_U32, KIND_U64, KIND_BOOL, KIND_FD, KIND_SPECIAL };

struct member {
    const char *key;
    enum kind kind;
    size_t offset;     // in the struct that is filled
    uint64_t min, max; // of a number; of a text, its size with the NUL
    bool required;
};

#define AT(member) offsetof(struct config, member)
static const struct member machine_members[] = {
    {"name", KIND_NAME, AT(name), 0, 0, true},
    {"tenant", KIND_NAME, AT(tenant), 0, 0, false},
    {"engine", KIND_NAME, AT(engine), 0, 0, false},
    {"engine_why", KIND_TEXT, AT(engine_why), 0, CONFIG_WHY_MAX, false},
    {"cpu", KIND_NAME, AT(cpu), 0, 0, false},
    {"memory_bytes", KIND_U64, AT(memory_bytes), CONFIG_MEMORY_MIN, CONFIG_MEMORY_MAX, true},
    {"hugepages", KIND_BOOL, AT(hugepages), 0, 0, false},
    {"cpus", KIND_U32, AT(cpus), 1, ENGINE_VCPUS_MAX, true},
    {"audit_instructions", KIND_U64, AT(audit_instructions), 0, INT64_MAX, false},
    {"append", KIND_TEXT, AT(append), 0, CONFIG_APPEND_MAX, false},
    {"kernel_fd", KIND_FD, AT(kernel_fd), 0, 0, false},
    {"initrd_fd", KIND_FD, AT(initrd_fd), 0, 0, false},
    {"restore_fd", KIND_FD, AT(restore_fd), 0, 0, false},
    {"control_fd", KIND_FD, AT(control_fd), 0, 0, false},
    {"log_fd", KIND_FD, AT(log_fd), 0, 0, false},
    {"status_fd", KIND_FD, AT(status_fd), 0, 0, false},
    {"perf_map_fd", KIND_FD, AT(perf_map_fd), 0, 0, false},
    {"jitdump_fd", KIND_FD, AT(jitdump_fd), 0, 0, false},
    {"kvm_fd", KIND_FD, AT(kvm_fd), 0, 0, false},
    {"console", KIND_SPECIAL, 0, 0, 0, false},
    {"disks", KIND_SPECIAL, 0, 0, 0, false},
    {"nets", KIND_SPECIAL, 0, 0, 0, false},
    {"on_reboot", KIND_SPECIAL, 0, 0, 0, false},
    {"confine", KIND_SPECIAL, 0, 0, 0, false},
    {.key = NULL},
};
static const struct member console_members[] = {
    {"listen_fd", KIND_FD, AT(console_listen_fd), 0, 0, false},
    {"fd", KIND_FD, AT(console_fd), 0, 0, false},
    {.key = NULL},
};
#undef AT
#define AT(member) offsetof(struct config_disk, member)
static const struct member disk_members[] = {
    {"name", KIND_NAME, AT(name), 0, 0, true},
    {"fd", KIND_FD, AT(fd), 0, 0, true},
    {"queues", KIND_U32, AT(queues), 1, 64, false},
    {.key = NULL},
};
#undef AT
#define AT(member) offsetof(struct config_net, member)
static const struct member net_members[] = {
    {"name", KIND_NAME, AT(name), 0, 0, true},
    {"fd", KIND_FD, AT(fd), 0, 0, true},
    {"mac", KIND_TEXT, AT(mac_text), 0, CONFIG_NAME_MAX, true},
    {"mtu_bytes", KIND_U32, AT(mtu_bytes), VIRTIO_NET_MTU_MIN, UINT16_MAX, false},
    {"queues", KIND_U32, AT(queues), 1, VIRTIO_NET_PAIRS_MAX, false},
    {.key = NULL},
};
#undef AT

static int config_wrong(struct tv_error *err, const char *key, const char *what)
{
    return tv_error_set(err, -EINVAL, "%s: %s", key, what);
}

// Names go into messages, paths and thread names of other programs: letters, digits, '-', '_' and '.'.
static int decode_name(const char *key, const char *value, char *out, struct tv_error *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t len = strlen(value);
    if (len == 0 || len >= CONFIG_NAME_MAX || strspn(value, allowed) != len)
        return tv_error_set(err, -EINVAL, "%s: '%.80s' should be 1 to %d letters, digits, '-', '_' or '.'", key, value,
                            CONFIG_NAME_MAX - 1);
    memcpy(out, value, len + 1);
    return 0;
}

static int decode_fd(const char *key, json_int_t value, int *out, struct tv_error *err)
{
    int flags = value >= 0 && value <= INT32_MAX ? fcntl((int)value, F_GETFD) : -1;
    if (flags < 0)
        return tv_error_set(err, -EINVAL, "%s: %" JSON_INTEGER_FORMAT " is no open descriptor", key, value);
    if (fcntl((int)value, F_SETFD, flags | FD_CLOEXEC) < 0)
        return tv_error_set(err, -errno, "%s: descriptor %" JSON_INTEGER_FORMAT ": %s", key, value, strerror(errno));
    *out = (int)value;
    return 0;
}

static int decode_number(const struct member *m, const json_t *value, uint64_t *out, struct tv_error *err)
{
    json_int_t v = json_integer_value(value);
    if (v < 0 || (uint64_t)v < m->min || (uint64_t)v > m->max)
        return tv_error_set(err, -EINVAL, "%s: %" JSON_INTEGER_FORMAT " should be %" PRIu64 " to %" PRIu64, m->key, v, m->min,
                            m->max);
    *out = (uint64_t)v;
    return 0;
}

static int decode_member(const struct member *m, const json_t *value, void *to, struct tv_error *err)
{
    bool wants_text = m->kind == KIND_NAME || m->kind == KIND_TEXT;
    char *at = (char *)to + m->offset;
    uint64_t number = 0;
    if (m->kind == KIND_SPECIAL)
        return 0;
    if (m->kind == KIND_BOOL) {
        *(bool *)(void *)at = json_is_true(value);
        return json_is_boolean(value) ? 0 : config_wrong(err, m->key, "should be true or false");
    }
    if (wants_text ? !json_is_string(value) : !json_is_integer(value))
        return config_wrong(err, m->key, wants_text ? "should be a string" : "should be a whole number");
    if (m->kind == KIND_NAME)
        return decode_name(m->key, json_string_value(value), at, err);
    if (m->kind == KIND_FD)
        return decode_fd(m->key, json_integer_value(value), (int *)(void *)at, err);
    if (m->kind == KIND_TEXT) {
        size_t len = json_string_length(value);
        if (len >= m->max)
            return tv_error_set(err, -EINVAL, "%s: is %zu bytes long; at most %" PRIu64 " are possible", m->key, len, m->max - 1);
        memcpy(at, json_string_value(value), len + 1);
        return 0;
    }
    int rc = decode_number(m, value, &number, err);
    if (rc == 0 && m->kind == KIND_U32)
        *(uint32_t *)(void *)at = (uint32_t)number;
    else if (rc == 0)
        *(uint64_t *)(void *)at = number;
    return rc;
}

static int decode_object(const struct member *members, const json_t *object, const char *what, void *to, struct tv_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return config_wrong(err, what, "should be an object");
    json_object_foreach((json_t *)object, key, value)
    {
        const struct member *m = members;
        while (m->key && strcmp(m->key, key) != 0)
            m++;
        if (!m->key)
            return tv_error_set(err, -EINVAL, "%s: has no member '%.60s'", what, key);
        int rc = decode_member(m, value, to, err);
        if (rc < 0)
            return rc;
    }
    for (const struct member *m = members; m->key; m++)
        if (m->required && !json_object_get(object, m->key))
            return tv_error_set(err, -EINVAL, "%s: lacks '%s'", what, m->key);
    return 0;
}

static int decode_disks(const json_t *disks, struct config *config, struct tv_error *err)
{
    if (!json_is_array(disks))
        return config_wrong(err, "disks", "should be an array");
    if (json_array_size(disks) > CONFIG_DISKS_MAX)
        return tv_error_set(err, -EINVAL, "disks: are %zu; a machine has room for %d", json_array_size(disks), CONFIG_DISKS_MAX);
    for (size_t i = 0; i < json_array_size(disks); i++) {
        struct config_disk *disk = &config->disks[i];
        *disk = (struct config_disk){.fd = -1, .queues = 1};
        config->n_disks = (unsigned)i + 1;
        int rc = decode_object(disk_members, json_array_get(disks, i), "disk", disk, err);
        if (rc < 0)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(config->disks[j].name, disk->name) == 0)
                return tv_error_set(err, -EINVAL, "disks: two have the name '%s'", disk->name);
    }
    return 0;
}

// Six bytes of a station: not of a group, and not all zero (IEEE 802, 8.2).
static int decode_mac(struct config_net *net, struct tv_error *err)
{
    unsigned b[6], any = 0;
    int end = 0;
    bool good = sscanf(net->mac_text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) == 6 &&
                end == 17 && net->mac_text[end] == 0;
    for (unsigned i = 0; i < 6 && good; i++) {
        net->mac[i] = (uint8_t)b[i];
        any |= b[i];
    }
    return good && any && !(net->mac[0] & 1)
               ? 0
               : tv_error_set(err, -EINVAL, "net '%s': mac: '%s' should be a station's address, as 52:54:00:12:34:56", net->name,
                              net->mac_text);
}

static int decode_nets(const json_t *nets, struct config *config, struct tv_error *err)
{
    if (!json_is_array(nets))
        return config_wrong(err, "nets", "should be an array");
    if (json_array_size(nets) > CONFIG_NETS_MAX)
        return tv_error_set(err, -EINVAL, "nets: are %zu; a machine has room for %d", json_array_size(nets), CONFIG_NETS_MAX);
    for (size_t i = 0; i < json_array_size(nets); i++) {
        struct config_net *net = &config->nets[i];
        *net = (struct config_net){.fd = -1, .queues = 1};
        config->n_nets = (unsigned)i + 1;
        int rc = decode_object(net_members, json_array_get(nets, i), "net", net, err);
        if (rc == 0)
            rc = decode_mac(net, err);
        if (rc < 0)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(config->nets[j].name, net->name) == 0)
                return tv_error_set(err, -EINVAL, "nets: two have the name '%s'", net->name);
    }
    return 0;
}

static int decode_specials(const json_t *root, struct config *config, struct tv_error *err)
{
    const json_t *console = json_object_get(root, "console"), *disks = json_object_get(root, "disks");
    const json_t *nets = json_object_get(root, "nets"), *on_reboot = json_object_get(root, "on_reboot");
    const json_t *confine = json_object_get(root, "confine");
    int rc = console ? decode_object(console_members, console, "console", config, err) : 0;
    if (rc == 0 && disks)
        rc = decode_disks(disks, config, err);
    if (rc == 0 && nets)
        rc = decode_nets(nets, config, err);
    if (rc == 0 && confine)
        rc = confine_mode_parse(json_is_string(confine) ? json_string_value(confine) : "", &config->confine, err);
    if (rc < 0 || !on_reboot)
        return rc;
    const char *value = json_is_string(on_reboot) ? json_string_value(on_reboot) : "";
    config->exit_on_reboot = strcmp(value, "exit") == 0;
    return config->exit_on_reboot || strcmp(value, "reset") == 0 ? 0
                                                                 : config_wrong(err, "on_reboot", "should be 'reset' or 'exit'");
}

static int check_whole(const struct config *config, struct tv_error *err)
{
    int fds[11 + CONFIG_DISKS_MAX + CONFIG_NETS_MAX] = {
        config->kernel_fd,         config->initrd_fd,  config->restore_fd, config->control_fd,
        config->console_listen_fd, config->console_fd, config->log_fd,     config->status_fd,
        config->perf_map_fd,       config->jitdump_fd, config->kvm_fd};
    unsigned n = 11;
    if (config->memory_bytes % PAGE_BYTES != 0)
        return config_wrong(err, "memory_bytes", "should be a multiple of 4096");
    if (config->hugepages && config->memory_bytes % GUEST_HUGE_PAGE_BYTES != 0)
        return config_wrong(err, "memory_bytes", "should be a multiple of 2 MiB with hugepages");
    if (config->kernel_fd < 0 && config->restore_fd < 0)
        return config_wrong(err, "kernel_fd", "there is neither a kernel nor a saved machine to load (restore_fd)");
    if (config->initrd_fd >= 0 && config->kernel_fd < 0)
        return config_wrong(err, "initrd_fd", "an initrd needs a kernel (kernel_fd)");
    if (config->console_listen_fd >= 0 && config->console_fd >= 0)
        return config_wrong(err, "console", "has both listen_fd and fd; give one");
    for (unsigned i = 0; i < config->n_disks; i++)
        fds[n++] = config->disks[i].fd;
    for (unsigned i = 0; i < config->n_nets; i++)
        fds[n++] = config->nets[i].fd;
    for (unsigned i = 0; i < n; i++)
        for (unsigned j = 0; j < i; j++)
            if (fds[i] >= 0 && fds[i] == fds[j])
                return tv_error_set(err, -EINVAL, "descriptor %d is named twice; each thing needs one of its own", fds[i]);
    return 0;
}

static void config_init(struct config *config)
{
    *config = (struct config){.tenant = "default", .engine = "auto", .cpu = "host"};
    config->kernel_fd = config->initrd_fd = config->restore_fd = config->control_fd = -1;
    config->console_listen_fd = config->console_fd = config->log_fd = config->status_fd = -1;
    config->perf_map_fd = config->jitdump_fd = config->kvm_fd = -1;
}

int config_decode(const char *text, size_t len_bytes, struct config *config, struct tv_error *err)
{
    json_error_t at;
    config_init(config);
    json_t *root = json_loadb(text, len_bytes, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return tv_error_set(err, -EINVAL, "configuration: line %d: %s", at.line, at.text);
    int rc = decode_object(machine_members, root, "machine", config, err);
    if (rc == 0)
        rc = decode_specials(root, config, err);
    if (rc == 0)
        rc = check_whole(config, err);
    json_decref(root);
    return rc;
}

int config_read(int fd, struct config *config, struct tv_error *err)
{
    char *text = malloc(CONFIG_TEXT_MAX);
    size_t len = 0;
    ssize_t n = 1;
    config_init(config);
    if (!text)
        return tv_error_set(err, -ENOMEM, "configuration: no memory to read it");
    while (n != 0 && len < CONFIG_TEXT_MAX) {
        n = read(fd, text + len, CONFIG_TEXT_MAX - len);
        if (n > 0)
            len += (size_t)n;
        else if (n < 0 && errno != EINTR)
            break;
    }
    int rc;
    if (n < 0)
        rc = tv_error_set(err, -errno, "configuration: reading descriptor %d: %s", fd, strerror(errno));
    else if (len == CONFIG_TEXT_MAX)
        rc = tv_error_set(err, -EINVAL, "configuration: is longer than %u bytes", CONFIG_TEXT_MAX);
    else
        rc = config_decode(text, len, config, err);
    free(text);
    return rc;
}

static void close_once(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void config_fini(struct config *config)
{
    close_once(&config->kernel_fd);
    close_once(&config->initrd_fd);
    close_once(&config->restore_fd);
    close_once(&config->control_fd);
    close_once(&config->console_listen_fd);
    close_once(&config->console_fd);
    close_once(&config->log_fd);
    close_once(&config->status_fd);
    close_once(&config->perf_map_fd);
    close_once(&config->jitdump_fd);
    close_once(&config->kvm_fd);
    for (unsigned i = 0; i < config->n_disks; i++)
        close_once(&config->disks[i].fd);
    for (unsigned i = 0; i < config->n_nets; i++)
        close_once(&config->nets[i].fd);
}
