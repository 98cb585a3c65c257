// Starting a machine: see launch.h.
#include "control/worker/launch.h"

#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/files.h"
#include "control/image/image.h"
#include "control/spec/disk_image.h"
#include "control/worker/perf_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

void launch_init(struct launch *launch)
{
    *launch = (struct launch){.kernel_fd = -1,
                              .initrd_fd = -1,
                              .restore_fd = -1,
                              .control_fd = -1,
                              .console_listen_fd = -1,
                              .console_fd = -1,
                              .log_fd = -1,
                              .status_fd = -1,
                              .stderr_fd = -1,
                              .engine = {.kvm_fd = -1}};
    for (unsigned i = 0; i < SPEC_DISKS_MAX; i++)
        launch->disk_fds[i] = -1;
    for (unsigned i = 0; i < SPEC_NICS_MAX; i++)
        launch->nic_fds[i] = -1;
    for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
        launch->net_fds[i] = -1;
}

void launch_fini(struct launch *launch)
{
    const int fds[] = {launch->kernel_fd,  launch->initrd_fd, launch->restore_fd, launch->control_fd, launch->console_listen_fd,
                       launch->console_fd, launch->log_fd,    launch->status_fd,  launch->stderr_fd,  launch->engine.kvm_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (unsigned i = 0; i < SPEC_DISKS_MAX; i++)
        if (launch->disk_fds[i] >= 0)
            close(launch->disk_fds[i]);
    for (unsigned i = 0; i < SPEC_NICS_MAX; i++)
        if (launch->nic_fds[i] >= 0)
            close(launch->nic_fds[i]);
    for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
        if (launch->net_fds[i] >= 0)
            close(launch->net_fds[i]);
    free(launch->append);
    launch_init(launch);
}

static int open_file(const char *what, const char *path, struct tv_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s %s: %s", what, path,
                            errno == ENOENT   ? "there is no such file"
                            : errno == EACCES ? "no permission to read it"
                                              : strerror(errno));
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        return fd;
    close(fd);
    return tv_error_set(err, -EINVAL, "%s %s: %s", what, path, S_ISREG(st.st_mode) ? "the file is empty" : "is no regular file");
}

// A kernel's own words replace the default; those for an image are added to what the image needs.
static int build_append(struct launch *launch, const struct machine_spec *spec, struct tv_error *err)
{
    int len;
    if (!spec->image)
        len = asprintf(&launch->append, "%s", spec->append ? spec->append : "console=ttyS0 panic=-1");
    else
        len = asprintf(&launch->append, "console=ttyS0 panic=-1 hostname=%s%s%s%s", spec->name,
                       spec->n_disks && spec->disks[0].image ? " root=/dev/vda rw" : "", spec->append ? " " : "",
                       spec->append ? spec->append : "");
    if (len < 0) {
        launch->append = NULL;
        return tv_error_set(err, -ENOMEM, "no memory");
    }
    return 0;
}

// The one that was named, or the image's, of which the engine that was chosen says the variant.
static int open_kernel(struct launch *launch, const struct machine_spec *spec, struct tv_error *err)
{
    struct image_paths image;
    const char *kernel = spec->kernel, *initrd = spec->initrd;
    if (kernel && (launch->kernel_fd = open_file("kernel", kernel, err)) < 0)
        return launch->kernel_fd;
    if (spec->restore && (launch->restore_fd = open_file("saved machine", spec->restore, err)) < 0)
        return launch->restore_fd;
    int rc = engine_choose(spec, launch->kernel_fd, launch->restore_fd, &launch->engine, err);
    if (rc)
        return rc;
    if (spec->image) {
        rc = image_find(&image, launch->engine.image, err);
        if (rc)
            return rc;
        if (image_is_debian(spec->image) && !(spec->n_disks && spec->disks[0].image))
            return tv_error_set(err, -EINVAL, "image '%s' needs a root: let the first disk be 'from: image %s'", spec->image,
                                spec->image);
        initrd = initrd ? initrd : image.initrd;
        if ((launch->kernel_fd = open_file("kernel", image.kernel, err)) < 0)
            return launch->kernel_fd;
    }
    if (launch->kernel_fd >= 0 && initrd && (launch->initrd_fd = open_file("initrd", initrd, err)) < 0)
        return launch->initrd_fd;
    return 0;
}

static int open_net(struct launch *launch, const struct net_spec *net, unsigned i, struct tv_error *err)
{
    launch->net_fds[i] = rpc_connect(net->socket, err);
    return launch->net_fds[i] >= 0 ? 0
                                   : tv_error_prefix(err, "net '%s': a router must serve its port there (kind vhost)", net->name);
}

int launch_open(struct launch *launch, const struct machine_spec *spec, struct tv_error *err)
{
    int rc = build_append(launch, spec, err);
    if (!rc)
        rc = open_kernel(launch, spec, err);
    for (unsigned i = 0; i < spec->n_disks && !rc; i++)
        rc = disk_image_check(&spec->disks[i], err);
    for (unsigned i = 0; i < spec->n_nets && !rc; i++)
        rc = open_net(launch, &spec->nets[i], i, err);
    return rc ? tv_error_prefix(err, "machine '%s'", spec->name) : 0;
}

static void put_fd(json_t *json, const char *key, int fd)
{
    if (fd >= 0)
        json_object_set_new(json, key, json_integer(fd));
}

static json_t *build_config(const struct launch *launch, const struct machine_spec *spec, const struct perf_files *perf)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:i, s:s, s:s}", "name", spec->name, "tenant", spec->tenant, "engine",
                             launch->engine.engine, "memory_bytes", (json_int_t)spec->memory_bytes, "cpus", (int)spec->cpus,
                             "append", launch->append, "on_reboot", spec->exit_on_reboot ? "exit" : "reset");
    if (!json)
        return NULL;
    if (spec->audit_instructions)
        json_object_set_new(json, "audit_instructions", json_integer((json_int_t)spec->audit_instructions));
    if (spec->hugepages)
        json_object_set_new(json, "hugepages", json_true());
    json_object_set_new(json, "engine_why", json_string(launch->engine.why));
    if (spec->cpu)
        json_object_set_new(json, "cpu", json_string(spec->cpu));
    json_object_set_new(json, "confine", json_string(worker_confine_mode()));
    put_fd(json, "kernel_fd", launch->kernel_fd);
    put_fd(json, "initrd_fd", launch->initrd_fd);
    put_fd(json, "restore_fd", launch->restore_fd);
    put_fd(json, "control_fd", launch->control_fd);
    put_fd(json, "log_fd", launch->log_fd);
    put_fd(json, "status_fd", launch->status_fd);
    put_fd(json, "kvm_fd", launch->engine.kvm_fd);
    put_fd(json, "perf_map_fd", perf->map_fd);
    put_fd(json, "jitdump_fd", perf->jitdump_fd);
    json_t *console = json_object();
    put_fd(console, "listen_fd", launch->console_listen_fd);
    put_fd(console, "fd", launch->console_fd);
    json_object_set_new(json, "console", console);
    json_t *disks = json_array();
    for (unsigned i = 0; i < spec->n_disks; i++)
        json_array_append_new(disks, json_pack("{s:s, s:i, s:i}", "name", spec->disks[i].name, "fd", launch->disk_fds[i], "queues",
                                               (int)spec->disks[i].queues));
    json_object_set_new(json, "disks", disks);
    json_t *nets = json_array();
    for (unsigned i = 0; i < spec->n_nets; i++) {
        const struct net_spec *net = &spec->nets[i];
        json_t *one = json_pack("{s:s, s:i, s:s, s:i}", "name", net->name, "fd", launch->net_fds[i], "mac", net->mac, "queues",
                                (int)net->queues);
        if (net->mtu_bytes)
            json_object_set_new(one, "mtu_bytes", json_integer(net->mtu_bytes));
        json_array_append_new(nets, one);
    }
    for (unsigned i = 0; i < spec->n_nics; i++)
        json_array_append_new(
            nets, json_pack("{s:s, s:i, s:s}", "name", spec->nics[i].network, "fd", launch->nic_fds[i], "mac", spec->nics[i].mac));
    json_object_set_new(json, "nets", nets);
    return json;
}

static int write_config(const struct launch *launch, const struct machine_spec *spec, const struct perf_files *perf,
                        struct tv_error *err)
{
    cleanup_json json_t *json = build_config(launch, spec, perf);
    cleanup_free char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (!text)
        return tv_error_set(err, -ENOMEM, "no memory");
    int fd = memfd_create("machine-config", MFD_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "memfd: %s", strerror(errno));
    size_t len = strlen(text);
    if (write(fd, text, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET) < 0) {
        close(fd);
        return tv_error_set(err, -EIO, "memfd: cannot be written");
    }
    return fd;
}

static int start_worker(const struct launch *launch, const struct machine_spec *spec, struct perf_files *perf,
                        struct worker *worker, struct tv_error *err)
{
    cleanup_close int config_fd = write_config(launch, spec, perf, err);
    if (config_fd < 0)
        return config_fd;
    int fds[16 + SPEC_DISKS_MAX + SPEC_NICS_MAX + SPEC_NETS_MAX];
    size_t n = 0;
    const int all[] = {
        config_fd,          launch->kernel_fd, launch->initrd_fd, launch->restore_fd, launch->control_fd, launch->console_listen_fd,
        launch->console_fd, launch->log_fd,    launch->status_fd, perf->map_fd,       perf->jitdump_fd,   launch->engine.kvm_fd};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i] >= 0)
            fds[n++] = all[i];
    for (unsigned i = 0; i < spec->n_disks; i++)
        fds[n++] = launch->disk_fds[i];
    for (unsigned i = 0; i < spec->n_nics; i++)
        fds[n++] = launch->nic_fds[i];
    for (unsigned i = 0; i < spec->n_nets; i++)
        fds[n++] = launch->net_fds[i];
    char number[16];
    snprintf(number, sizeof(number), "%d", config_fd);
    const char *const argv[] = {"trivet-machine", "--config", number, NULL};
    const struct worker_start start = {.program = "trivet-machine",
                                       .argv = argv,
                                       .fds = fds,
                                       .n_fds = n,
                                       .stderr_fd = launch->stderr_fd,
                                       .dies_with_parent = launch->dies_with_parent,
                                       .prepare = perf_files_name,
                                       .prepare_arg = perf};
    return worker_start(worker, &start, err);
}

int launch_start(const struct launch *launch, const struct machine_spec *spec, struct worker *worker, struct tv_error *err)
{
    struct perf_files perf;
    int rc = perf_files_open(&perf, spec->perf_map, spec->jitdump, err);
    if (!rc)
        rc = start_worker(launch, spec, &perf, worker, err);
    perf_files_close(&perf, !rc);
    return rc ? tv_error_prefix(err, "machine '%s'", spec->name) : 0;
}
