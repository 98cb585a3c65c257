// trivetd as a whole: see daemon.h.
#include "control/daemon/daemon.h"

#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#define LINGER_NS (200 * NS_PER_MS) // so that the answer that emptied us gets out

static void load_machine(void *arg, const struct database_machine *row)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    struct machine_spec spec;
    cleanup_json json_t *json = json_loads(row->spec, 0, NULL);
    if (!json || spec_decode(json, &spec, &err)) {
        log_event(LOG_ERROR, "trivetd", "machine not loaded", LOG_STR("machine", row->name), LOG_STR("error", err.text));
        return;
    }
    struct daemon_machine *m = machine_add(d, &spec, &err);
    if (!m)
        return;
    m->wanted = row->wanted;
    m->worker = row->worker;
    m->exit_status = row->exit_status;
    m->restarts = row->restarts;
    snprintf(m->reason, sizeof(m->reason), "%s", row->reason ? row->reason : "");
    if (m->exit_status > 0 && !m->worker.pid)
        m->state = MACHINE_FAILED;
}

static void load_network(void *arg, json_t *spec, bool is_settled)
{
    net_load(arg, spec, is_settled);
}

// One trivetd for a state directory, whatever its run directory is.
static int lock_state(struct daemon *d, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = path_format(path, err, "%s/trivetd.lock", d->state_dir);
    if (rc)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); // held until we end
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        d->lock_fd = fd;
        return 0;
    }
    rc = tv_error_set(err, -EADDRINUSE, "%s: another trivetd has this state; stop it, or set TRIVET_STATE_DIR", path);
    close(fd);
    return rc;
}

static int make_folders(const struct daemon *d, struct tv_error *err)
{
    char logs[PATH_MAX];
    int rc = dir_make_own(d->run_dir, "TRIVET_RUN_DIR", err);
    if (!rc)
        rc = dir_make_own(d->state_dir, "TRIVET_STATE_DIR", err);
    if (!rc)
        rc = path_format(logs, err, "%s/logs", d->state_dir);
    return rc ? rc : dir_make(logs, 0700, err);
}

static int open_socket(struct daemon *d, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = path_format(path, err, "%s/trivetd.sock", d->run_dir);
    int fd = rc ? rc : rpc_listen(path, 0600, err);
    if (fd == -EADDRINUSE)
        return tv_error_set(err, fd, "%s: another trivetd answers there; stop it, or set TRIVET_RUN_DIR", path);
    if (fd < 0)
        return fd;
    const struct rpc_service service = {.methods = daemon_methods, .arg = d};
    d->server = rpc_server_create(d->loop, fd, &service, err);
    return d->server ? 0 : err->code;
}

static void end(void *arg)
{
    struct daemon *d = arg;
    if (!d->machines && !d->nets && !daemon_gateways_are_busy(d))
        loop_stop(d->loop);
}

int daemon_init(struct daemon *d, struct tv_error *err)
{
    char path[PATH_MAX];
    d->store_pidfd = d->router_pidfd = -1;
    d->lock_fd = -1;
    int rc = make_folders(d, err);
    if (!rc)
        rc = lock_state(d, err);
    if (!rc)
        rc = path_format(d->store.dir, err, "%s", d->run_dir);
    if (!rc)
        rc = path_format(d->router.dir, err, "%s", d->run_dir);
    if (!rc)
        rc = path_format(path, err, "%s/trivet.db", d->state_dir);
    if (rc)
        return rc;
    d->loop = loop_create(err);
    d->db = d->loop ? database_open(path, err) : NULL;
    d->quit_timer = d->db ? loop_add_timer(d->loop, end, d, err) : NULL;
    if (!d->quit_timer)
        return err->code;
    rc = daemon_gateways_init(d, err);
    if (!rc)
        rc = open_socket(d, err);
    if (!rc)
        rc = daemon_host_load(d, err);
    if (!rc)
        rc = database_each_machine(d->db, load_machine, d, err);
    if (!rc)
        rc = database_each_network(d->db, load_network, d, err);
    if (rc)
        return rc;
    rc = daemon_opener_init(d, err);
    if (rc)
        return rc;
    daemon_store_adopt(d);
    daemon_router_adopt(d);
    for (struct daemon_machine *m = d->machines; m; m = m->next)
        machine_adopt(m);
    return 0;
}

bool daemon_consider_end(struct daemon *d)
{
    if (!d->machines)
        daemon_store_stop(d);
    if (!d->nets)
        daemon_router_stop(d);
    if (d->machines || d->nets || daemon_gateways_are_busy(d))
        return false;
    if (d->exit_when_empty)
        loop_set_timer(d->quit_timer, LINGER_NS, 0);
    return d->exit_when_empty;
}

static void remove_run_files(const struct daemon *d)
{
    static const char *const names[] = {"trivetd.sock", "store.sock", "router.sock"};
    char path[PATH_MAX];
    for (size_t i = 0; i < 3; i++)
        if (path_format(path, NULL, "%s/%s", d->run_dir, names[i]) == 0)
            unlink(path);
    if (path_format(path, NULL, "%s/machines", d->run_dir) == 0)
        rmdir(path);
    rmdir(d->run_dir);
}

void daemon_fini(struct daemon *d)
{
    bool empty = !d->machines && !d->nets;
    daemon_router_disconnect(d); // first: what waits for answers knows of networks and machines
    while (d->machines)
        machine_free(d->machines);
    daemon_opener_fini(d);
    daemon_store_disconnect(d);
    daemon_gateways_fini(d);
    net_free_all(d);
    loop_remove(d->store_watch);
    loop_remove(d->router_watch);
    loop_remove(d->host_timer);
    json_decref(d->host);
    database_close(d->db);
    if (d->server && empty)
        remove_run_files(d);
    else
        rmdir(d->run_dir); // only if nothing is in it
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    if (d->server) // last: whoever waits for our end sees it by this, and may take the folders away
        rpc_server_destroy(d->server);
    if (d->loop)
        loop_destroy(d->loop);
}
