// How a machine starts, is taken over, and ends: see daemon.h.
#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/files.h"
#include "control/worker/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define BACKOFF_FIRST_NS (1 * NS_PER_S)
#define BACKOFF_MOST_NS (60 * NS_PER_S)
#define RAN_LONG_NS (60 * NS_PER_S) // then the next failure counts as the first
#define EXIT_BAD_CONFIG 2           // of trivet-machine: it would be the same the next time

static int start(struct daemon_machine *m, struct tv_error *err);

// --- the end

// The last line of a small file, which is what a worker said before it went.
static void read_last_line(const struct daemon_machine *m, const char *file, char *line, size_t size)
{
    char path[PATH_MAX];
    cleanup_free char *text = NULL;
    line[0] = 0;
    if (machine_path(m, file, path, NULL) || file_read_all(path, 1u << 20, &text, NULL, NULL))
        return;
    for (char *p = text, *next; p && *p; p = next) {
        next = strchr(p, '\n');
        if (next)
            *next++ = 0;
        snprintf(line, size, "%s", strncmp(p, "trivet-machine: ", 16) == 0 ? p + 16 : p);
    }
}

// From its own child the kernel tells the status; one that was taken over has written it to its file, or was killed.
static void learn_status(struct daemon_machine *m)
{
    char line[512];
    int status;
    m->exit_status = 3;
    snprintf(m->reason, sizeof(m->reason), "its process was killed");
    if (waitpid(m->worker.pid, &status, WNOHANG) == m->worker.pid) {
        if (WIFSIGNALED(status))
            snprintf(m->reason, sizeof(m->reason), "its process was killed by %s",
                     worker_describe_signal(WTERMSIG(status), (char[32]){0}));
        else
            m->exit_status = WEXITSTATUS(status);
    }
    read_last_line(m, "status", line, sizeof(line));
    cleanup_json json_t *json = line[0] ? json_loads(line, 0, NULL) : NULL;
    const char *reason = json_string_value(json_object_get(json, "reason"));
    if (json_is_integer(json_object_get(json, "exit")))
        m->exit_status = (int)json_integer_value(json_object_get(json, "exit"));
    if (m->exit_status == EXIT_BAD_CONFIG)
        read_last_line(m, "stderr", line, sizeof(line));
    if (m->exit_status == EXIT_BAD_CONFIG && line[0])
        snprintf(m->reason, sizeof(m->reason), "%.255s", line);
    else if (reason)
        snprintf(m->reason, sizeof(m->reason), "%.255s", reason);
}

void machine_drop_launch(struct daemon_machine *m)
{
    if (m->launch)
        launch_fini(m->launch);
    free(m->launch);
    m->launch = NULL;
}

static void let_go(struct daemon_machine *m)
{
    machine_drop_launch(m);
    loop_remove(m->watch);
    m->watch = NULL;
    if (m->pidfd >= 0)
        close(m->pidfd);
    m->pidfd = -1;
    if (m->control)
        rpc_conn_destroy(m->control);
    m->control = NULL;
    m->worker = (struct worker){0};
    m->paused = false;
    loop_set_timer(m->timer, 0, 0);
    daemon_store_close_disks(m);
    daemon_nic_close_all(m);
}

static bool is_to_restart(const struct daemon_machine *m)
{
    if (!m->wanted || m->exit_status == EXIT_BAD_CONFIG)
        return false;
    return m->spec.restart == RESTART_ALWAYS || (m->spec.restart == RESTART_ON_FAILURE && m->exit_status != 0);
}

static void wait_to_restart(struct daemon_machine *m)
{
    unsigned doublings = m->restarts < 6 ? m->restarts : 6;
    uint64_t delay_ns = BACKOFF_FIRST_NS << doublings;
    m->restarts++;
    m->state = MACHINE_WAITING;
    loop_set_timer(m->timer, delay_ns < BACKOFF_MOST_NS ? delay_ns : BACKOFF_MOST_NS, 0);
}

static void settle(struct daemon_machine *m)
{
    if (is_to_restart(m)) {
        wait_to_restart(m);
    } else {
        m->state = m->wanted && m->exit_status != 0 ? MACHINE_FAILED : MACHINE_STOPPED;
        m->wanted = false;
    }
    machine_record(m, NULL);
}

static void machine_ended(void *arg, int fd, uint32_t events)
{
    struct daemon_machine *m = arg;
    (void)fd, (void)events;
    learn_status(m);
    let_go(m);
    log_event(LOG_INFO, "trivetd", "machine ended", LOG_STR("machine", m->spec.name), LOG_I64("exit", m->exit_status),
              LOG_STR("reason", m->reason));
    if (clock_now_ns() - m->started_ns > RAN_LONG_NS)
        m->restarts = 0;
    bool was_starting = m->state == MACHINE_STARTING;
    settle(m);
    struct tv_error err = {0};
    if (was_starting && m->starting) {
        bool named = strncmp(m->reason, "machine '", 9) == 0; // by the machine itself
        tv_error_set(&err, m->exit_status == EXIT_BAD_CONFIG ? -EINVAL : -EIO, "%s", m->reason);
        if (!named)
            tv_error_prefix(&err, "machine '%s'", m->spec.name);
    }
    batch_wake(&m->starting, m, &err);
    batch_wake(&m->stopping, m, NULL);
}

// The user's own start is taken back; one by policy has failed like a run of it.
static void start_failed(struct daemon_machine *m, const struct tv_error *err)
{
    if (m->restarts) {
        log_event(LOG_WARN, "trivetd", "machine not started again", LOG_STR("machine", m->spec.name), LOG_STR("error", err->text));
        m->exit_status = 3;
        snprintf(m->reason, sizeof(m->reason), "%.255s", err->text);
        settle(m);
    } else {
        m->wanted = false;
        m->state = MACHINE_STOPPED;
        machine_record(m, NULL);
    }
    batch_wake(&m->starting, m, err);
}

void machine_timer_expired(void *arg)
{
    struct daemon_machine *m = arg;
    struct tv_error err = {0};
    if (m->worker.pid) {
        worker_kill(&m->worker, SIGKILL); // it was asked and did not go
        return;
    }
    if (m->state == MACHINE_WAITING && start(m, &err))
        start_failed(m, &err);
}

// --- its control socket

static void status_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct daemon_machine *m = arg;
    (void)err; // it ends then, and that tells more
    if (!result)
        return;
    const char *state = json_string_value(json_object_get(result, "state"));
    const char *engine = json_string_value(json_object_get(result, "engine"));
    const char *why = json_string_value(json_object_get(result, "engine_why"));
    snprintf(m->engine, sizeof(m->engine), "%s", engine ? engine : "");
    snprintf(m->engine_why, sizeof(m->engine_why), "%s", why ? why : "");
    m->paused = state && strcmp(state, "paused") == 0;
    if (m->state == MACHINE_STARTING)
        m->state = MACHINE_RUNNING;
    batch_wake(&m->starting, m, NULL);
}

static void method_stopped(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg, (void)params; // the process ends next, and its status file says the same
    rpc_reply(req, json_object());
}

static void method_disconnected(void *arg, struct rpc_request *req, const json_t *params)
{
    const char *disk = json_string_value(json_object_get(params, "name"));
    if (disk)
        daemon_disk_away(arg, disk);
    rpc_reply(req, json_object());
}

static void method_net_disconnected(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_machine *m = arg;
    const char *network = json_string_value(json_object_get(params, "name"));
    for (unsigned i = 0; i < m->spec.n_nics && network; i++)
        m->nic_away[i] |= strcmp(m->spec.nics[i].network, network) == 0;
    daemon_router_gather(m->daemon);
    rpc_reply(req, json_object());
}

static void control_closed(void *arg, struct rpc_conn *conn)
{
    struct daemon_machine *m = arg;
    (void)conn; // frees itself
    m->control = NULL;
}

static int connect_control(struct daemon_machine *m, struct tv_error *err)
{
    static const struct rpc_method methods[] = {{"machine.stopped", method_stopped},
                                                {"disk.disconnected", method_disconnected},
                                                {"net.disconnected", method_net_disconnected},
                                                {0}};
    const struct rpc_service service = {.methods = methods, .arg = m, .closed = control_closed};
    char path[PATH_MAX];
    int rc = machine_path(m, "control.sock", path, err);
    int fd = rc ? rc : rpc_connect(path, err);
    if (fd < 0)
        return fd;
    m->control = rpc_conn_create(m->daemon->loop, fd, &service, err);
    if (!m->control)
        return err->code;
    return rpc_call_async(m->control, "machine.status", json_object(), NULL, 0, 0, status_answered, m);
}

static int watch_process(struct daemon_machine *m, bool is_child, struct tv_error *err)
{
    int fd = is_child ? worker_open_child(&m->worker) : worker_open(&m->worker);
    m->pidfd = fd < 0 ? -1 : fd;
    if (m->pidfd < 0)
        return tv_error_set(err, -ESRCH, "machine '%s': its process is gone", m->spec.name);
    m->watch = loop_add_fd(m->daemon->loop, m->pidfd, EPOLLIN, machine_ended, m, err);
    return m->watch ? 0 : err->code;
}

// --- the beginning

static int open_in(const struct daemon_machine *m, const char *file, int flags, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = file ? machine_path(m, file, path, err) : machine_log_path(m, path, err);
    if (rc)
        return rc;
    int fd = open(path, flags | O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
}

static int listen_in(const struct daemon_machine *m, const char *file, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = machine_path(m, file, path, err);
    return rc ? rc : rpc_listen(path, 0600, err);
}

static int open_runtime(const struct daemon_machine *m, struct launch *launch, struct tv_error *err)
{
    char dir[PATH_MAX];
    int rc = machine_path(m, "", dir, err);
    if (!rc)
        rc = dir_make(dir, 0700, err);
    if (rc)
        return rc;
    if ((launch->control_fd = listen_in(m, "control.sock", err)) < 0)
        return launch->control_fd;
    if ((launch->console_listen_fd = listen_in(m, "console.sock", err)) < 0)
        return launch->console_listen_fd;
    if ((launch->log_fd = open_in(m, NULL, O_APPEND, err)) < 0)
        return launch->log_fd;
    if ((launch->status_fd = open_in(m, "status", O_TRUNC, err)) < 0)
        return launch->status_fd;
    if ((launch->stderr_fd = open_in(m, "stderr", O_TRUNC | O_APPEND, err)) < 0)
        return launch->stderr_fd;
    return 0;
}

// The worker, once everything is open. What was opened is closed in any case.
static int start_process(struct daemon_machine *m, struct tv_error *err)
{
    int rc = launch_start(m->launch, &m->spec, &m->worker, err);
    if (!rc)
        rc = machine_record(m, err); // before anything else: whoever comes after us has to find it
    if (!rc)
        rc = watch_process(m, true, err);
    if (!rc)
        rc = connect_control(m, err);
    machine_drop_launch(m); // not before: we hold the listener open, so that a machine that ends at once can tell why
    if (rc && m->worker.pid) {
        worker_kill(&m->worker, SIGKILL);
        waitpid(m->worker.pid, NULL, 0);
    }
    if (rc) {
        let_go(m);
        machine_record(m, NULL);
        return rc;
    }
    m->started_ns = clock_now_ns();
    return 0;
}

static int open_disks(struct daemon_machine *m, struct tv_error *err)
{
    int rc = m->spec.n_disks ? daemon_store_need(m->daemon, err) : 0;
    for (unsigned i = 0; i < m->spec.n_disks && !rc; i++)
        rc = daemon_store_open_disk(m, i, err);
    return rc ? tv_error_prefix(err, "machine '%s'", m->spec.name) : 0;
}

// The worker follows when everything it is to be given is open.
static void opened(struct daemon_machine *m, struct tv_error *err)
{
    bool all = true;
    for (unsigned i = 0; i < m->spec.n_disks; i++)
        all &= !m->opening[i];
    for (unsigned i = 0; i < m->spec.n_nics; i++)
        all &= !m->nic_opening[i];
    if (err->code)
        tv_error_prefix(err, "machine '%s'", m->spec.name);
    else if (!all || start_process(m, err) == 0)
        return;
    let_go(m);
    start_failed(m, err);
}

void machine_disk_opened(struct daemon_machine *m, unsigned disk, int fd, struct tv_error *err)
{
    m->launch->disk_fds[disk] = fd;
    m->disk_away[disk] = false;
    opened(m, err);
}

void machine_nic_opened(struct daemon_machine *m, unsigned nic, int fd, struct tv_error *err)
{
    m->launch->nic_fds[nic] = fd;
    m->nic_away[nic] = false;
    opened(m, err);
}

static int open_nics(struct daemon_machine *m, struct tv_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < m->spec.n_nics && !rc; i++)
        rc = daemon_nic_open(m, i, err);
    return rc;
}

// Opens what it is made of; the worker follows when the store has its disks and the router its ports.
static int start(struct daemon_machine *m, struct tv_error *err)
{
    loop_set_timer(m->timer, 0, 0);
    json_decref(m->unproven);
    m->unproven = NULL;
    m->launch = malloc(sizeof(*m->launch));
    if (!m->launch)
        return tv_error_set(err, -ENOMEM, "no memory");
    launch_init(m->launch);
    int rc = launch_open(m->launch, &m->spec, err);
    if (!rc)
        rc = open_runtime(m, m->launch, err);
    if (!rc)
        rc = open_disks(m, err);
    if (!rc)
        rc = open_nics(m, err);
    if (!rc && !m->spec.n_disks && !m->spec.n_nics)
        rc = start_process(m, err);
    if (rc) {
        let_go(m);
        return rc;
    }
    m->state = MACHINE_STARTING;
    m->exit_status = -1;
    m->reason[0] = 0;
    return 0;
}

int machine_start(struct daemon_machine *m, struct tv_error *err)
{
    m->wanted = true;
    m->restarts = 0;
    int rc = start(m, err);
    if (rc)
        start_failed(m, err);
    return rc;
}

void machine_adopt(struct daemon_machine *m)
{
    struct tv_error err = {0};
    m->started_ns = clock_now_ns();
    if (!m->worker.pid) {
        if (m->wanted)
            wait_to_restart(m);
        return;
    }
    m->state = MACHINE_STARTING;
    if (watch_process(m, false, &err) == 0 && connect_control(m, &err) == 0) {
        log_event(LOG_INFO, "trivetd", "machine taken over", LOG_STR("machine", m->spec.name), LOG_I64("pid", m->worker.pid));
        return;
    }
    if (m->pidfd >= 0)
        return; // it lives but does not listen: its end will come
    machine_ended(m, -1, 0);
}

static void asked_to_stop(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)arg, (void)result, (void)err; // the timer sees to it that it ends
}

static void stop_waiting(struct daemon_machine *m)
{
    struct tv_error err = {0};
    loop_set_timer(m->timer, 0, 0);
    if (m->launch) {
        let_go(m);
        tv_error_set(&err, -ECANCELED, "machine '%s': was stopped before its disks were open", m->spec.name);
    }
    m->state = MACHINE_STOPPED;
    machine_record(m, NULL);
    batch_wake(&m->starting, m, &err);
    batch_wake(&m->stopping, m, NULL);
}

void machine_stop(struct daemon_machine *m, unsigned timeout_ms)
{
    m->wanted = false;
    if (!m->worker.pid) {
        stop_waiting(m);
        return;
    }
    m->state = MACHINE_STOPPING;
    machine_record(m, NULL);
    if (m->paused && m->control) // a guest that stands still hears nothing
        rpc_call_async(m->control, "machine.resume", json_object(), NULL, 0, 0, asked_to_stop, m);
    bool asked = m->control && rpc_call_async(m->control, "machine.shutdown", json_object(), NULL, 0, 0, asked_to_stop, m) == 0;
    loop_set_timer(m->timer, asked && timeout_ms ? timeout_ms * NS_PER_MS : 1, 0);
}

void machine_kill(struct daemon_machine *m)
{
    m->wanted = false;
    if (!m->worker.pid) {
        stop_waiting(m);
        return;
    }
    m->state = MACHINE_STOPPING;
    machine_record(m, NULL);
    worker_kill(&m->worker, SIGKILL);
}
