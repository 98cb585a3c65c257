// The store as its supervisor sees it: see store_process.h.
#include "control/store_process.h"

#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/disk_image.h"
#include "control/paths.h"

#include <errno.h>
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

int store_process_start(struct store_process *store, bool dies_with_parent, int stderr_fd, struct tv_error *err)
{
    char path[PATH_MAX], number[16];
    int rc = control_path(store, path, err);
    if (rc)
        return rc;
    cleanup_close int listen_fd = rpc_listen(path, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    snprintf(number, sizeof(number), "%d", listen_fd);
    const char *const argv[] = {"trivet-store", "--control", number, NULL};
    const struct worker_start start = {.program = "trivet-store",
                                       .argv = argv,
                                       .fds = &listen_fd,
                                       .n_fds = 1,
                                       .stderr_fd = stderr_fd,
                                       .dies_with_parent = dies_with_parent};
    rc = worker_start(&store->worker, &start, err);
    if (rc)
        unlink(path);
    return rc;
}

static int call(const struct store_process *store, const char *method, json_t *params, const int *fds, size_t n_fds,
                json_t **result, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = control_path(store, path, err);
    cleanup_close int fd = rc ? rc : rpc_connect(path, err);
    if (fd < 0) {
        json_decref(params);
        return fd;
    }
    return rpc_call(fd, method, params, fds, n_fds, STORE_TIMEOUT_MS, result, err);
}

void store_process_remove(const struct store_process *store, const char *label)
{
    char path[PATH_MAX];
    json_t *result = NULL;
    if (store->worker.pid && call(store, "disk.remove", json_pack("{s:s}", "name", label), NULL, 0, &result, NULL) == 0)
        json_decref(result);
    if (disk_path(store, label, path, NULL) == 0)
        unlink(path);
}

json_t *store_process_stat(const struct store_process *store, const char *label)
{
    json_t *result = NULL;
    if (!store->worker.pid || call(store, "disk.stat", json_pack("{s:s}", "name", label), NULL, 0, &result, NULL))
        return NULL;
    return result;
}

int store_process_add(const struct store_process *store, const char *label, const struct disk_spec *disk, int *front_fd,
                      struct tv_error *err)
{
    char path[PATH_MAX];
    store_process_remove(store, label);
    int rc = disk_path(store, label, path, err);
    if (rc)
        return rc;
    cleanup_close int image_fd = disk_image_open(disk, err);
    if (image_fd < 0)
        return image_fd;
    cleanup_close int listen_fd = rpc_listen(path, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    json_t *params = json_pack("{s:s, s:b, s:i}", "name", label, "read_only", disk->read_only, "queues", (int)disk->queues);
    if (disk->serial)
        json_object_set_new(params, "serial", json_string(disk->serial));
    const int fds[] = {image_fd, listen_fd};
    cleanup_json json_t *result = NULL;
    rc = call(store, "disk.add", params, fds, 2, &result, err);
    if (rc) {
        unlink(path);
        return tv_error_prefix(err, "%s", disk->path); // the store names the disk
    }
    *front_fd = rpc_connect(path, err);
    return *front_fd < 0 ? *front_fd : 0;
}

void store_process_stop(struct store_process *store)
{
    char path[PATH_MAX];
    if (store->worker.pid)
        worker_kill(&store->worker, SIGTERM);
    store->worker = (struct worker){0};
    if (control_path(store, path, NULL) == 0)
        unlink(path);
}
