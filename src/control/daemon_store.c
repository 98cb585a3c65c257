// The store of a host, shared by the machines of one trivetd: see daemon.h.
//
// It is started with the first disk and stopped with the last machine. When it dies, it is started again and every disk of every
// running machine is given to it anew; a machine gets the new connection by disk.attach, its guest only waits meanwhile.
#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define GATHER_NS (20 * NS_PER_MS) // several machines tell of the same death
#define RETRY_NS (500 * NS_PER_MS)

void daemon_store_label(const struct daemon_machine *m, unsigned disk, char label[static 128])
{
    snprintf(label, 128, "%s.%s", m->spec.name, m->spec.disks[disk].name);
}

int daemon_store_open_disk(struct daemon_machine *m, unsigned disk, int *front_fd, struct tv_error *err)
{
    char label[128];
    daemon_store_label(m, disk, label);
    return store_process_add(&m->daemon->store, label, &m->spec.disks[disk], front_fd, err);
}

void daemon_store_close_disks(struct daemon_machine *m)
{
    char label[128];
    for (unsigned i = 0; i < m->spec.n_disks; i++) {
        daemon_store_label(m, i, label);
        store_process_remove(&m->daemon->store, label);
    }
}

static void forget_store(struct daemon *d)
{
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
    return d->store_watch ? 0 : -ENOMEM;
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
    rc = store_process_start(&d->store, false, log_fd, err);
    if (!rc)
        rc = watch_store(d, true, err);
    if (rc)
        forget_store(d);
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

static int bring_back(struct daemon_machine *m, unsigned disk, struct tv_error *err)
{
    int fd = -1;
    int rc = daemon_store_open_disk(m, disk, &fd, err);
    cleanup_close int owned = fd;
    if (rc)
        return rc;
    m->disk_away[disk] = false;
    json_t *params = json_pack("{s:s}", "name", m->spec.disks[disk].name);
    return rpc_call_async(m->control, "disk.attach", params, &owned, 1, 0, attach_answered, m);
}

static void bring_all_back(void *arg)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    int rc = 0;
    for (struct daemon_machine *m = d->machines; m && !rc; m = m->next)
        for (unsigned i = 0; i < m->spec.n_disks && !rc; i++) {
            if (!m->disk_away[i] || !m->control)
                continue;
            rc = daemon_store_need(d, &err);
            if (!rc)
                rc = bring_back(m, i, &err);
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
    if (d->store.worker.pid && watch_store(d, false, NULL) == 0)
        return;
    forget_store(d);
}

void daemon_store_stop(struct daemon *d)
{
    if (d->store.worker.pid)
        store_process_stop(&d->store);
    forget_store(d);
    record_store(d);
}
