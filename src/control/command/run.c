// trivet run: one machine in the foreground.
#include "control/cleanup.h"
#include "control/command/command.h"
#include "control/command/foreground.h"
#include "control/files.h"
#include "control/image/image.h"
#include "control/paths.h"
#include "control/spec/spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct run_options {
    const char *engine, *cpu, *kernel, *initrd, *append, *memory, *cpus, *image, *name, *restore, *on_reboot, *audit_instructions;
    bool audit;
    const char *disks[SPEC_DISKS_MAX], *nets[SPEC_NETS_MAX];
    int n_disks, n_nets;
    bool hugepages, perf_map, jitdump;
};

static int absolute_path(const char *path, char out[static PATH_MAX], struct tv_error *err)
{
    char cwd[PATH_MAX];
    if (path[0] == '/')
        return path_format(out, err, "%s", path);
    if (!getcwd(cwd, sizeof(cwd)))
        return tv_error_set(err, -errno, "current directory: %s", strerror(errno));
    return path_format(out, err, "%s/%s", cwd, path);
}

static int put_path(json_t *json, const char *key, const char *path, struct tv_error *err)
{
    char full[PATH_MAX];
    if (!path)
        return 0;
    int rc = absolute_path(path, full, err);
    if (!rc)
        json_object_set_new(json, key, json_string(full));
    return rc;
}

// One setting behind the path: read-only, serial=S, size=N, queues=N, image=NAME, promises=TEXT.
static int disk_setting(json_t *disk, const char *setting, struct tv_error *err)
{
    uint64_t size;
    if (strcmp(setting, "read-only") == 0)
        return json_object_set_new(disk, "read_only", json_true());
    if (strncmp(setting, "serial=", 7) == 0)
        return json_object_set_new(disk, "serial", json_string(setting + 7));
    if (strncmp(setting, "size=", 5) == 0) {
        int rc = spec_parse_size(setting + 5, "disk size", &size, err);
        return rc ? rc : json_object_set_new(disk, "size_bytes", json_integer((json_int_t)size));
    }
    if (strncmp(setting, "queues=", 7) == 0)
        return json_object_set_new(disk, "queues", json_integer(atoi(setting + 7)));
    if (strncmp(setting, "image=", 6) == 0)
        return json_object_set_new(disk, "image", json_string(setting + 6));
    if (strncmp(setting, "promises=", 9) == 0) // several with ';' between them, since a comma ends the setting
        return json_object_set_new(disk, "promises", json_string(setting + 9));
    return tv_error_set(
        err, -EINVAL,
        "--disk: '%s' is none of read-only, serial=S, size=N, queues=N, image=NAME, promises=TEXT (several with ';' "
        "between them)",
        setting);
}

static int add_disk(json_t *disks, const char *words, struct tv_error *err)
{
    cleanup_free char *copy = strdup(words);
    char name[32], *save = NULL;
    if (!copy)
        return tv_error_set(err, -ENOMEM, "no memory");
    snprintf(name, sizeof(name), "disk%zu", json_array_size(disks));
    cleanup_json json_t *disk = json_pack("{s:s}", "name", name);
    char *path = strtok_r(copy, ",", &save);
    if (!path)
        return tv_error_set(err, -EINVAL, "--disk: there is no path");
    int rc = put_path(disk, "path", path, err);
    for (char *setting; !rc && (setting = strtok_r(NULL, ",", &save));)
        rc = disk_setting(disk, setting, err);
    return rc ? rc : json_array_append(disks, disk);
}

// One setting behind the socket's path: mac=M, mtu=N, queues=N.
static int net_setting(json_t *net, const char *setting, struct tv_error *err)
{
    if (strncmp(setting, "mac=", 4) == 0)
        return json_object_set_new(net, "mac", json_string(setting + 4));
    if (strncmp(setting, "mtu=", 4) == 0)
        return json_object_set_new(net, "mtu_bytes", json_integer(atoi(setting + 4)));
    if (strncmp(setting, "queues=", 7) == 0)
        return json_object_set_new(net, "queues", json_integer(atoi(setting + 7)));
    return tv_error_set(err, -EINVAL, "--net: '%s' is none of mac=M, mtu=N, queues=N", setting);
}

static int add_net(json_t *nets, const char *words, struct tv_error *err)
{
    cleanup_free char *copy = strdup(words);
    char name[32], *save = NULL;
    if (!copy)
        return tv_error_set(err, -ENOMEM, "no memory");
    snprintf(name, sizeof(name), "net%zu", json_array_size(nets));
    cleanup_json json_t *net = json_pack("{s:s}", "name", name);
    char *path = strtok_r(copy, ",", &save);
    if (!path)
        return tv_error_set(err, -EINVAL, "--net: there is no path of a router's socket");
    int rc = put_path(net, "socket", path, err);
    for (char *setting; !rc && (setting = strtok_r(NULL, ",", &save));)
        rc = net_setting(net, setting, err);
    return rc ? rc : json_array_append(nets, net);
}

// The image of Debian lives on its disks: a copy of its root that goes when the machine ends, unless the first disk is one that
// stays, and the packages after all others.
static int add_image_disks(json_t *disks, const char *image, struct tv_error *err)
{
    struct image_paths paths;
    char path[PATH_MAX], state[PATH_MAX];
    int rc = image_find(&paths, image, err);
    if (!rc)
        rc = path_state_dir(state, err);
    if (rc)
        return rc;
    if (!json_object_get(json_array_get(disks, 0), "image")) {
        int fd = file_copy_unnamed(paths.disk, state, err);
        if (fd < 0)
            return fd;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd); // ours until the end, opened anew for each store
        json_array_insert_new(disks, 0, json_pack("{s:s, s:s, s:s}", "name", "root", "path", path, "image", image));
    }
    return json_array_append_new(disks, json_pack("{s:s, s:s, s:b}", "name", "packages", "path", paths.packages, "read_only", 1));
}

// --kernel takes a file; a bare word that is no file but an image's name means the image.
static int put_kernel(json_t *json, const struct run_options *o, struct tv_error *err)
{
    const char *image = o->image;
    if (o->kernel && !image && image_is_known(o->kernel) && access(o->kernel, F_OK) < 0)
        image = o->kernel;
    if (image)
        return json_object_set_new(json, "image", json_string(image));
    return put_path(json, "kernel", o->kernel, err);
}

// --audit alone: for as long as the machine runs.
static int put_audit(json_t *json, const struct run_options *o, struct tv_error *err)
{
    const char *words = o->audit_instructions;
    char *end = NULL;
    errno = 0;
    long long n = words ? strtoll(words, &end, 10) : INT64_MAX;
    if (words && (*end || end == words || errno || n <= 0))
        return tv_error_set(err, -EINVAL, "--audit-instructions '%s' should be a number above 0", words);
    return o->audit || words ? json_object_set_new(json, "audit_instructions", json_integer(n)) : 0;
}

static int to_json(const struct run_options *o, json_t *json, struct tv_error *err)
{
    uint64_t memory = 512ull << 20;
    char *end = NULL;
    unsigned long cpus = o->cpus ? strtoul(o->cpus, &end, 10) : 1;
    if (end && (*end || end == o->cpus || cpus > SPEC_CPUS_MAX))
        return tv_error_set(err, -EINVAL, "--cpus '%s' should be from 1 to %d", o->cpus, SPEC_CPUS_MAX);
    int rc = o->memory ? spec_parse_size(o->memory, "--memory", &memory, err) : 0;
    if (rc)
        return rc;
    json_object_set_new(json, "name", json_string(o->name ? o->name : "machine"));
    json_object_set_new(json, "memory_bytes", json_integer((json_int_t)memory));
    json_object_set_new(json, "cpus", json_integer((json_int_t)cpus));
    json_object_set_new(json, "engine", json_string(o->engine ? o->engine : "auto"));
    json_object_set_new(json, "on_reboot", json_string(o->on_reboot ? o->on_reboot : "reset"));
    json_object_set_new(json, "hugepages", json_boolean(o->hugepages));
    json_object_set_new(json, "perf_map", json_boolean(o->perf_map));
    json_object_set_new(json, "jitdump", json_boolean(o->jitdump));
    rc = put_audit(json, o, err);
    if (rc)
        return rc;
    if (o->cpu)
        json_object_set_new(json, "cpu", json_string(o->cpu));
    if (o->append)
        json_object_set_new(json, "append", json_string(o->append));
    json_t *disks = json_array();
    json_object_set_new(json, "disks", disks);
    for (int i = 0; i < o->n_disks && !rc; i++)
        rc = add_disk(disks, o->disks[i], err);
    json_t *nets = json_array();
    json_object_set_new(json, "nets", nets);
    for (int i = 0; i < o->n_nets && !rc; i++)
        rc = add_net(nets, o->nets[i], err);
    if (!rc)
        rc = put_kernel(json, o, err);
    const char *image = json_string_value(json_object_get(json, "image"));
    if (!rc && image && image_is_debian(image))
        rc = add_image_disks(disks, image, err);
    if (!rc)
        rc = put_path(json, "initrd", o->initrd, err);
    return rc ? rc : put_path(json, "restore", o->restore, err);
}

// An option that may stand several times is taken out of argv before the rest is read.
static int take_all(int *argc, char **argv, const char *option, const char **values, int *n, int most)
{
    const size_t len = strlen(option);
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        const char *value = NULL;
        if (strncmp(argv[i], option, len) == 0 && argv[i][len] == '=')
            value = argv[i] + len + 1;
        else if (strcmp(argv[i], option) == 0 && i + 1 < *argc)
            value = argv[++i];
        if (!value)
            argv[kept++] = argv[i];
        else if (*n == most)
            return command_usage("run", "%s: more than %d", option, most);
        else
            values[(*n)++] = value;
    }
    argv[kept] = NULL;
    *argc = kept;
    return 0;
}

int cmd_run(int argc, char **argv)
{
    struct run_options o = {0};
    const struct option_spec options[] = {{"--engine", NULL, &o.engine},
                                          {"--cpu", NULL, &o.cpu},
                                          {"--kernel", NULL, &o.kernel},
                                          {"--initrd", NULL, &o.initrd},
                                          {"--append", NULL, &o.append},
                                          {"--memory|-m", NULL, &o.memory},
                                          {"--cpus", NULL, &o.cpus},
                                          {"--image", NULL, &o.image},
                                          {"--name", NULL, &o.name},
                                          {"--restore", NULL, &o.restore},
                                          {"--on-reboot", NULL, &o.on_reboot},
                                          {"--disk", NULL, &o.disks[0]},
                                          {"--net", NULL, &o.nets[0]},
                                          {"--hugepages", &o.hugepages, NULL},
                                          {"--perf-map", &o.perf_map, NULL},
                                          {"--jitdump", &o.jitdump, NULL},
                                          {"--audit", &o.audit, NULL},
                                          {"--audit-instructions", NULL, &o.audit_instructions},
                                          {0}};
    if (take_all(&argc, argv, "--disk", o.disks, &o.n_disks, SPEC_DISKS_MAX) ||
        take_all(&argc, argv, "--net", o.nets, &o.n_nets, SPEC_NETS_MAX))
        return EXIT_USAGE;
    int words = command_options(command_find("run"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words > 0)
        return command_usage("run", "unexpected '%s'", argv[1]);
    if (!o.kernel && !o.image && !o.restore)
        return command_usage("run", "there is nothing to run: give --kernel FILE or --image NAME");
    struct tv_error err = {0};
    struct machine_spec spec;
    cleanup_json json_t *json = json_object();
    int rc = to_json(&o, json, &err);
    if (!rc)
        rc = spec_decode(json, &spec, &err);
    if (rc)
        return command_failed("run", false, EXIT_USAGE, &err);
    int status = foreground_run(&spec, &err);
    if (err.code)
        command_failed("run", false, status, &err);
    spec_free(&spec);
    return status;
}
