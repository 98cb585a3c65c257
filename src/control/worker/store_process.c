// The store as its supervisor sees it: see store_process.h.
#include "control/worker/store_process.h"

#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/spec/disk_image.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int control_path(const struct store_process *store, char path[static PATH_MAX], struct tv_error *err)
{
    return path_format(path, err, "%s/store.sock", store->dir);
}

static int disk_path(const struct store_process *store, const char *label, char path[static PATH_MAX], struct tv_error *err)
{
    return path_format(path, err, "%s/disk-%s.sock", store->dir, label);
}

int store_process_make_dir(struct store_process *store, struct tv_error *err)
{
    char run[PATH_MAX];
    int rc = path_run_dir(run, err);
    if (!rc)
        rc = dir_make_own(run, "TRIVET_RUN_DIR", err);
    if (!rc)
        rc = path_format(store->dir, err, "%s/run-XXXXXX", run);
    if (!rc && !mkdtemp(store->dir))
        rc = tv_error_set(err, -errno, "%s: the folder cannot be made: %s", run, strerror(errno));
    return rc;
}

void store_process_remove_dir(const struct store_process *store)
{
    char run[PATH_MAX];
    tree_remove(store->dir, NULL);
    if (path_run_dir(run, NULL) == 0)
        rmdir(run); // only if nothing else is in it
}

int store_process_start(struct store_process *store, bool dies_with_parent, int stderr_fd, int verdicts_fd, struct tv_error *err)
{
    char path[PATH_MAX], number[16], verdicts[16];
    int rc = control_path(store, path, err);
    if (rc)
        return rc;
    cleanup_close int listen_fd = rpc_listen(path, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    snprintf(number, sizeof(number), "%d", listen_fd);
    snprintf(verdicts, sizeof(verdicts), "%d", verdicts_fd);
    const char *const argv[] = {"trivet-store", "--control", number, "--scheduler", "oios", verdicts_fd < 0 ? NULL : "--verdicts",
                                verdicts,       NULL};
    const int fds[] = {listen_fd, verdicts_fd};
    const struct worker_start start = {.program = "trivet-store",
                                       .argv = argv,
                                       .fds = fds,
                                       .n_fds = verdicts_fd < 0 ? 1 : 2,
                                       .stderr_fd = stderr_fd,
                                       .dies_with_parent = dies_with_parent};
    rc = worker_start(&store->worker, &start, err);
    if (rc)
        unlink(path);
    return rc;
}

int store_process_connect(const struct store_process *store, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = control_path(store, path, err);
    return rc ? rc : rpc_connect(path, err);
}

int store_process_open_disk(const struct store_process *store, const char *label, const struct disk_spec *disk,
                            struct store_disk *open, struct tv_error *err)
{
    json_t *volume;
    *open = (struct store_disk){0};
    int rc = disk_image_open(disk, &volume, &open->fds, err);
    if (!rc)
        return store_process_open_socket(store, label, disk, volume, open, err);
    json_decref(volume);
    store_process_close_disk(open);
    return rc;
}

int store_process_open_socket(const struct store_process *store, const char *label, const struct disk_spec *disk, json_t *volume,
                              struct store_disk *open, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = disk_path(store, label, path, err);
    open->params = json_pack("{s:s, s:b, s:i, s:o*, s:i}", "name", label, "read_only", disk->read_only, "queues", (int)disk->queues,
                             "volume", volume, "vhost", (int)open->fds.n);
    const int listen_fd = rc ? rc : rpc_listen(path, 0600, err);
    if (listen_fd < 0) {
        store_process_close_disk(open);
        return listen_fd;
    }
    open->fds.fd[open->fds.n++] = listen_fd;
    if (disk->serial)
        json_object_set_new(open->params, "serial", json_string(disk->serial));
    if (disk->promises)
        json_object_set_new(open->params, "promises", json_string(disk->promises));
    return 0;
}

void store_process_close_disk(struct store_disk *open)
{
    store_close_fds(&open->fds);
    json_decref(open->params);
    open->params = NULL;
}

int store_process_connect_disk(const struct store_process *store, const char *label, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = disk_path(store, label, path, err);
    return rc ? rc : rpc_connect(path, err);
}

void store_process_forget_disk(const struct store_process *store, const char *label)
{
    char path[PATH_MAX];
    if (disk_path(store, label, path, NULL) == 0)
        unlink(path);
}

int store_process_add(const struct store_process *store, const char *label, const struct disk_spec *disk, bool nbd, int *front_fd,
                      json_t *unproven, struct tv_error *err)
{
    struct store_disk open;
    cleanup_json json_t *result = NULL;
    int rc = store_process_open_disk(store, label, disk, &open, err);
    if (rc)
        return rc;
    json_object_set_new(open.params, "nbd", json_boolean(nbd));
    cleanup_close int fd = store_process_connect(store, err);
    rc = fd < 0 ? fd : rpc_call(fd, "disk.add", json_incref(open.params), open.fds.fd, open.fds.n, STORE_TIMEOUT_MS, &result, err);
    store_process_close_disk(&open);
    if (rc) {
        store_process_forget_disk(store, label);
        return tv_error_prefix(err, "%s", disk->path); // the store names the disk
    }
    if (unproven)
        json_array_extend(unproven, json_object_get(result, "unproven"));
    *front_fd = store_process_connect_disk(store, label, err);
    return *front_fd < 0 ? *front_fd : 0;
}

int store_process_serve_nbd(const struct store_process *store, char path[static PATH_MAX], struct tv_error *err)
{
    cleanup_json json_t *result = NULL;
    int rc = path_format(path, err, "%s/nbd.sock", store->dir);
    if (rc)
        return rc;
    cleanup_close int fd = store_process_connect(store, err), listen_fd = fd < 0 ? -1 : rpc_listen(path, 0600, err);
    if (listen_fd < 0)
        return fd < 0 ? fd : listen_fd;
    return rpc_call(fd, "nbd.listen", json_pack("{s:s}", "name", "nbd"), &listen_fd, 1, STORE_TIMEOUT_MS, &result, err);
}

void store_process_stop(struct store_process *store)
{
    char path[PATH_MAX];
    cleanup_close int pidfd = worker_open(&store->worker);
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    if (pidfd >= 0) {
        worker_kill(&store->worker, SIGTERM);
        if (poll(&pfd, 1, STORE_STOP_MS) == 0)
            worker_kill(&store->worker, SIGKILL); // it hangs, and no machine is left whose writes it could hold
    }
    store->worker = (struct worker){0};
    if (control_path(store, path, NULL) == 0)
        unlink(path);
}
