// Disks of machines for those who ask for them by name or path: see daemon.h.
#include "control/daemon/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CALL_TIMEOUT_MS 60000

static void refuse(struct rpc_request *req, int rpc_code, int code, const char *text)
{
    struct tv_error err = {0};
    tv_error_set(&err, code, "%s", text);
    rpc_reply_error(req, rpc_code, &err);
}

const struct daemon_machine *daemon_find_disk(const struct daemon *d, const char *name, unsigned *disk, struct tv_error *err)
{
    const struct daemon_machine *found = NULL;
    char label[128], other[128] = "";
    for (const struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_disks; i++) {
            daemon_store_label(m, i, label);
            if (strcmp(name, label) != 0 && strcmp(name, m->spec.disks[i].name) != 0)
                continue;
            if (found && strcmp(name, label) != 0) {
                tv_error_set(err, -EINVAL, "there is a disk '%s' in several machines; name one of them, as '%s' or '%s'", name,
                             other, label);
                return NULL;
            }
            found = m;
            *disk = i;
            memcpy(other, label, sizeof(other));
        }
    if (!found)
        tv_error_set(err, -ENOENT, "no machine has a disk '%s'; `trivet up` makes the disks of a file", name);
    return found;
}

static bool is_same_file(const char *path, const struct stat *st)
{
    struct stat other;
    return stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

// One whose machine runs goes before others that have the same file.
static const struct daemon_machine *find_by_path(const struct daemon *d, const char *path, unsigned *disk, struct tv_error *err)
{
    const struct daemon_machine *found = NULL;
    struct stat st;
    const bool is_there = stat(path, &st) == 0;
    for (const struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_disks; i++) {
            const char *own = m->spec.disks[i].path;
            if ((found && !m->worker.pid) || (strcmp(own, path) != 0 && !(is_there && is_same_file(own, &st))))
                continue;
            found = m;
            *disk = i;
        }
    if (!found)
        tv_error_set(err, -ENOENT, "no machine has a disk at %s", path);
    return found;
}

// {"disk"} or {"path"}: answers {"name": "MACHINE.DISK", "path", "running": bool}.
void daemon_disk_find(void *arg, struct rpc_request *req, const json_t *params)
{
    const char *name = json_string_value(json_object_get(params, "disk"));
    const char *path = json_string_value(json_object_get(params, "path"));
    struct tv_error err = {0};
    unsigned disk = 0;
    char label[128];
    if (!name == !path) {
        refuse(req, RPC_BAD_PARAMS, -EINVAL, "disk.find takes one of: disk, path, both strings");
        return;
    }
    const struct daemon_machine *m = name ? daemon_find_disk(arg, name, &disk, &err) : find_by_path(arg, path, &disk, &err);
    if (!m) {
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    daemon_store_label(m, disk, label);
    rpc_reply(req, json_pack("{s:s, s:s, s:b}", "name", label, "path", m->spec.disks[disk].path, "running", m->worker.pid != 0));
}

static void call_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct rpc_request *req = arg;
    if (result)
        rpc_reply(req, json_deep_copy(result));
    else
        rpc_reply_error(req, RPC_FAILED, err);
}

static bool may_call(const char *method)
{
    static const char *const methods[] = {"disk.stat", "disk.resize", "disk.snapshot", "disk.absorb", NULL};
    for (const char *const *m = methods; method && *m; m++)
        if (strcmp(*m, method) == 0)
            return true;
    return false;
}

// {"name": "MACHINE.DISK", "method", "params"}, and a descriptor if the method takes one: asks the store.
void daemon_disk_call(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    const char *name = json_string_value(json_object_get(params, "name"));
    const char *method = json_string_value(json_object_get(params, "method"));
    if (!name || !may_call(method)) {
        refuse(req, RPC_BAD_PARAMS, -EINVAL,
               "disk.call takes: name, method (disk.stat, disk.resize, disk.snapshot, disk.absorb) and params");
        return;
    }
    if (!d->store_control) {
        refuse(req, RPC_FAILED, -ESRCH, "the store does not run; it is started with the first machine that has a disk");
        return;
    }
    json_t *inner = json_deep_copy(json_object_get(params, "params"));
    if (!inner)
        inner = json_object();
    json_object_set_new(inner, "name", json_string(name));
    const int fd = rpc_request_take_fd(req, 0);
    const int rc = rpc_call_async(d->store_control, method, inner, &fd, fd >= 0, CALL_TIMEOUT_MS, call_answered, req);
    if (fd >= 0)
        close(fd);
    if (rc)
        refuse(req, RPC_FAILED, rc, strerror(-rc));
}
