// The store of a host, shared by the machines of one trivetd: see daemon.h.
//
// It is started with the first disk and stopped with the last machine. When it dies, it is started again and every disk of every
// running machine is given to it anew; a machine gets the new connection by disk.attach, its guest only waits meanwhile.
#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define GATHER_NS (20 * NS_PER_MS) // several machines tell of the same death
#define RETRY_NS (500 * NS_PER_MS)

void daemon_store_label(const struct daemon_machine *m, unsigned disk, char label[static 128])
{
    snprintf(label, 128, "%s.%s", m->spec.name, m->spec.disks[disk].name);
}

// --- disks, given to it and taken back

static void attach(struct daemon_machine *m, unsigned disk, int fd);

// What the store itself says names the disk; a person needs the path as well, and what to do when it says nothing.
static void explain(const struct daemon *d, const struct disk_spec *disk, const struct tv_error *said, struct tv_error *err)
{
    if (said->code == -ETIMEDOUT)
        tv_error_set(err, -ETIMEDOUT,
                     "disk '%s': %s: the store does not answer; `kill -9 %d` has it started again (its log is %s/store.log)",
                     disk->name, disk->path, (int)d->store.worker.pid, d->state_dir);
    else if (said->code == -ECANCELED || said->code == -ECONNRESET)
        tv_error_set(err, -EIO, "disk '%s': %s: the store has died; its log is %s/store.log", disk->name, disk->path, d->state_dir);
    else
        tv_error_set(err, said->code, "%s: %s", disk->path, said->text);
}

// Takes the opening. fd < 0: it failed, with err.
static void finish(struct disk_opening *opening, int fd, struct tv_error *err)
{
    struct daemon_machine *m = opening->machine;
    const unsigned disk = opening->disk;
    disk_opening_free(opening);
    m->opening[disk] = NULL;
    if (m->launch) {
        machine_disk_opened(m, disk, fd, err);
    } else if (fd >= 0) {
        attach(m, disk, fd);
    } else {
        log_event(LOG_WARN, "trivetd", "disk not open again yet", LOG_STR("machine", m->spec.name), LOG_STR("error", err->text));
        loop_set_timer(m->daemon->store_timer, RETRY_NS, 0);
    }
}

static void disk_added(void *arg, const json_t *result, const struct tv_error *said)
{
    struct disk_opening *opening = arg;
    struct daemon_machine *m = opening->machine;
    if (!m) {
        disk_opening_free(opening);
        return;
    }
    char label[128];
    struct tv_error err = {0};
    int fd = -1;
    daemon_store_label(m, opening->disk, label);
    const json_t *unproven = json_object_get(result, "unproven");
    if (json_array_size(unproven)) {
        m->unproven = m->unproven ? m->unproven : json_array();
        json_array_extend(m->unproven, (json_t *)unproven);
    }
    if (result)
        fd = store_process_connect_disk(&m->daemon->store, label, &err);
    else
        explain(m->daemon, &m->spec.disks[opening->disk], said, &err);
    finish(opening, fd, &err);
}

// What it is promised may have been changed while its image was opened.
static int ask_store(struct disk_opening *opening, struct tv_error *err)
{
    struct daemon_machine *m = opening->machine;
    const struct disk_spec *spec = &m->spec.disks[opening->disk];
    char label[128];
    struct store_disk open = {.fds = opening->fds};
    json_t *volume = opening->volume;
    opening->fds.n = 0;
    opening->volume = NULL;
    daemon_store_label(m, opening->disk, label);
    int rc = store_process_open_socket(&m->daemon->store, label, spec, volume, &open, err);
    if (rc)
        return rc;
    if (!m->launch) // it comes back to its machine
        json_object_set_new(open.params, "admitted", json_true());
    rc = m->daemon->store_control ? rpc_call_async(m->daemon->store_control, "disk.add", json_incref(open.params), open.fds.fd,
                                                   open.fds.n, STORE_TIMEOUT_MS, disk_added, opening)
                                  : -ECONNRESET;
    store_process_close_disk(&open);
    opening->is_asked = !rc;
    if (rc)
        tv_error_set(err, rc, "disk '%s': trivet-store: %s; its log is %s/store.log", spec->name, strerror(-rc),
                     m->daemon->state_dir);
    return rc;
}

void daemon_store_image_opened(struct disk_opening *opening)
{
    struct tv_error err = opening->err;
    if (!opening->machine)
        disk_opening_free(opening);
    else if (opening->result || ask_store(opening, &err))
        finish(opening, -1, &err);
}

static void disk_removed(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)arg, (void)result, (void)err; // that it has no such disk is as good
}

static void close_disk(struct daemon_machine *m, unsigned disk)
{
    char label[128];
    daemon_store_label(m, disk, label);
    if (m->opening[disk])
        m->opening[disk]->machine = NULL;
    m->opening[disk] = NULL;
    if (m->daemon->store_control)
        rpc_call_async(m->daemon->store_control, "disk.remove", json_pack("{s:s}", "name", label), NULL, 0, 0, disk_removed, NULL);
    store_process_forget_disk(&m->daemon->store, label);
}

// A disk of that name that the store still has, from a machine that is gone, is taken back first: it answers in order.
int daemon_store_open_disk(struct daemon_machine *m, unsigned disk, struct tv_error *err)
{
    close_disk(m, disk);
    struct disk_opening *opening = calloc(1, sizeof(*opening));
    if (!opening || spec_copy_disk(&m->spec.disks[disk], &opening->spec)) {
        free(opening);
        return tv_error_set(err, -ENOMEM, "no memory");
    }
    opening->machine = m;
    opening->daemon = m->daemon;
    opening->disk = disk;
    m->opening[disk] = opening;
    daemon_opener_start(opening);
    return 0;
}

void daemon_store_abandon(struct daemon_machine *m)
{
    for (unsigned i = 0; i < m->spec.n_disks; i++) {
        if (m->opening[i])
            m->opening[i]->machine = NULL;
        m->opening[i] = NULL;
    }
}

void daemon_store_close_disks(struct daemon_machine *m)
{
    for (unsigned i = 0; i < m->spec.n_disks; i++)
        close_disk(m, i);
}

// --- its life

void daemon_store_disconnect(struct daemon *d)
{
    struct rpc_conn *control = d->store_control;
    d->store_control = NULL;
    rpc_conn_destroy(control); // whoever waits for an answer is told
}

static void forget_store(struct daemon *d)
{
    daemon_store_disconnect(d);
    loop_remove(d->store_watch);
    d->store_watch = NULL;
    if (d->store_pidfd >= 0)
        close(d->store_pidfd);
    d->store_pidfd = -1;
    if (d->store.worker.pid)
        waitpid(d->store.worker.pid, NULL, WNOHANG);
    d->store.worker = (struct worker){0};
}

static void record_store(struct daemon *d)
{
    cleanup_json json_t *json =
        json_pack("{s:i, s:I}", "pid", (int)d->store.worker.pid, "start_ticks", (json_int_t)d->store.worker.start_ticks);
    database_put(d->db, "store", json, NULL);
}

static void store_ended(void *arg, int fd, uint32_t events)
{
    struct daemon *d = arg;
    (void)fd, (void)events;
    log_event(LOG_WARN, "trivetd", "store died", LOG_I64("pid", d->store.worker.pid));
    forget_store(d);
    record_store(d);
    for (struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_disks && m->worker.pid; i++)
            m->disk_away[i] = true;
    loop_set_timer(d->store_timer, GATHER_NS, 0);
}

static int watch_store(struct daemon *d, bool is_child, struct tv_error *err)
{
    d->store_pidfd = is_child ? worker_open_child(&d->store.worker) : worker_open(&d->store.worker);
    if (d->store_pidfd < 0)
        return tv_error_set(err, -ESRCH, "trivet-store is gone; its log is %s/store.log", d->state_dir);
    d->store_watch = loop_add_fd(d->loop, d->store_pidfd, EPOLLIN, store_ended, d, err);
    if (!d->store_watch)
        return -ENOMEM;
    const int fd = store_process_connect(&d->store, NULL);
    if (fd < 0)
        return tv_error_set(err, fd, "trivet-store takes no connection: %s; its log is %s/store.log", strerror(-fd), d->state_dir);
    static const struct rpc_method methods[] = {{"promise.changed", daemon_promise_changed}, {0}};
    const struct rpc_service service = {.methods = methods, .arg = d};
    d->store_control = rpc_conn_create(d->loop, fd, &service, err);
    return d->store_control ? 0 : -ENOMEM;
}

// Opened anew for each store: the lock on it ends with the one that had it. Without it verdicts end with their store.
static int open_verdicts(const struct daemon *d)
{
    char path[PATH_MAX] = "";
    const int fd = path_format(path, NULL, "%s/verdicts", d->state_dir) ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        log_event(LOG_WARN, "trivetd", "verdicts on promises will not outlive the store", LOG_STR("path", path),
                  LOG_STR("because", strerror(errno)));
    return fd;
}

int daemon_store_need(struct daemon *d, struct tv_error *err)
{
    if (d->store.worker.pid)
        return 0;
    char path[PATH_MAX];
    int rc = path_format(path, err, "%s/store.log", d->state_dir);
    if (rc)
        return rc;
    cleanup_close int log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    cleanup_close int verdicts_fd = open_verdicts(d);
    rc = store_process_start(&d->store, false, log_fd, verdicts_fd, err);
    if (!rc)
        rc = watch_store(d, true, err);
    if (rc)
        daemon_store_stop(d);
    record_store(d);
    return rc;
}

static void attach_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct daemon_machine *m = arg;
    if (result || err->code == -ECANCELED)
        return;
    log_event(LOG_WARN, "trivetd", "disk not attached", LOG_STR("machine", m->spec.name), LOG_STR("error", err->text));
}

static void attach(struct daemon_machine *m, unsigned disk, int fd)
{
    cleanup_close int owned = fd;
    if (!m->control)
        return; // it ends
    m->disk_away[disk] = false;
    json_t *params = json_pack("{s:s}", "name", m->spec.disks[disk].name);
    rpc_call_async(m->control, "disk.attach", params, &owned, 1, 0, attach_answered, m);
}

static void bring_all_back(void *arg)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    int rc = 0;
    for (struct daemon_machine *m = d->machines; m && !rc; m = m->next)
        for (unsigned i = 0; i < m->spec.n_disks && !rc; i++) {
            if (!m->disk_away[i] || !m->control || m->opening[i])
                continue;
            rc = daemon_store_need(d, &err);
            if (!rc)
                rc = daemon_store_open_disk(m, i, &err);
        }
    if (!rc)
        return;
    log_event(LOG_WARN, "trivetd", "store not up again yet", LOG_STR("error", err.text));
    loop_set_timer(d->store_timer, RETRY_NS, 0);
}

void daemon_disk_away(struct daemon_machine *m, const char *disk)
{
    for (unsigned i = 0; i < m->spec.n_disks; i++)
        if (strcmp(m->spec.disks[i].name, disk) == 0)
            m->disk_away[i] = true;
    loop_set_timer(m->daemon->store_timer, GATHER_NS, 0);
}

void daemon_store_adopt(struct daemon *d)
{
    d->store_pidfd = -1;
    d->store_timer = loop_add_timer(d->loop, bring_all_back, d, NULL);
    cleanup_json json_t *json = database_get(d->db, "store");
    d->store.worker.pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
    d->store.worker.start_ticks = (uint64_t)json_integer_value(json_object_get(json, "start_ticks"));
    if (d->store.worker.pid && watch_store(d, false, NULL))
        daemon_store_stop(d); // one that cannot be talked to is no use to anyone
}

void daemon_store_stop(struct daemon *d)
{
    if (d->store.worker.pid)
        store_process_stop(&d->store);
    forget_store(d);
    record_store(d);
}
