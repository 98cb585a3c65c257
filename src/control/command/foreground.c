// One machine in the foreground: see foreground.h.
#include "control/command/foreground.h"

#include "base/clock.h"
#include "base/loop.h"
#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/command/command.h"
#include "control/command/terminal.h"
#include "control/files.h"
#include "control/net/net_link.h"
#include "control/paths.h"
#include "control/worker/launch.h"
#include "control/worker/store_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define QUIT_TIMEOUT_NS (3 * NS_PER_S)
#define STORE_RETRY_NS (300 * NS_PER_MS)

struct foreground {
    const struct machine_spec *spec;
    struct loop *loop;
    struct terminal *terminal;
    struct rpc_conn *control;
    struct store_process store;
    struct net_links links;
    struct worker machine;
    struct loop_source *signals[4], *kill_timer, *store_timer;
    struct loop_source *machine_child, *store_child;
    uint64_t store_started_ns;
    int exit_status;
    int signal; // that asked us to end
    bool ended;
};

// --- the end

static void kill_machine(void *arg)
{
    struct foreground *f = arg;
    worker_kill(&f->machine, SIGKILL);
}

static void quit_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)arg, (void)result, (void)err; // its end is what counts; the timer sees to it
}

static void quit(void *arg)
{
    struct foreground *f = arg;
    if (!f->control || rpc_call_async(f->control, "machine.quit", json_object(), NULL, 0, 0, quit_answered, f) < 0)
        kill_machine(f);
    loop_set_timer(f->kill_timer, QUIT_TIMEOUT_NS, 0);
}

static void on_signal(void *arg, int signo)
{
    struct foreground *f = arg;
    f->signal = signo;
    quit(f);
}

static void machine_ended(void *arg, pid_t pid, int status)
{
    struct foreground *f = arg;
    (void)pid;
    f->machine.pid = 0;
    f->machine_child = NULL;
    if (f->terminal)
        terminal_drain(f->terminal);
    terminal_destroy(f->terminal);
    f->terminal = NULL;
    if (WIFEXITED(status)) {
        f->exit_status = WEXITSTATUS(status);
    } else {
        f->exit_status = 1;
        if (!f->signal)
            fprintf(stderr, "trivet run: machine '%s': its process was killed by %s\n", f->spec->name,
                    worker_describe_signal(WTERMSIG(status), (char[32]){0}));
    }
    f->ended = true;
    loop_stop(f->loop);
}

static void console_closed(void *arg)
{
    (void)arg; // the process ends next
}

// --- the store

static void store_ended(void *arg, pid_t pid, int status);

// All sockets are connected when this returns, so that their names can go.
// `unproven`: what is promised on trust; NULL: nobody asks.
static int start_store(struct foreground *f, int fds[static SPEC_DISKS_MAX], json_t *unproven, struct tv_error *err)
{
    cleanup_close int log_fd = memfd_create("store-log", MFD_CLOEXEC); // its log has no place on the machine's console
    int rc = store_process_start(&f->store, true, log_fd, -1, err);
    f->store_started_ns = clock_now_ns();
    for (unsigned i = 0; i < f->spec->n_disks && !rc; i++)
        rc = store_process_add(&f->store, f->spec->disks[i].name, &f->spec->disks[i], false, &fds[i], unproven, err);
    if (!rc) {
        f->store_child = loop_add_child(f->loop, f->store.worker.pid, store_ended, f, err);
        rc = f->store_child ? 0 : err->code;
    }
    if (rc && f->store.worker.pid) {
        worker_kill(&f->store.worker, SIGKILL);
        waitpid(f->store.worker.pid, NULL, 0);
        f->store.worker.pid = 0;
    }
    return rc;
}

static void attached(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)arg;
    if (!result)
        fprintf(stderr, "trivet run: disk not attached again: %s\n", err->text);
}

static void restart_store(void *arg)
{
    struct foreground *f = arg;
    struct tv_error err = {0};
    int fds[SPEC_DISKS_MAX];
    memset(fds, -1, sizeof(fds));
    int rc = store_process_make_dir(&f->store, &err);
    if (!rc)
        rc = start_store(f, fds, NULL, &err);
    store_process_remove_dir(&f->store);
    for (unsigned i = 0; i < f->spec->n_disks; i++) {
        if (!rc && f->control)
            rpc_call_async(f->control, "disk.attach", json_pack("{s:s}", "name", f->spec->disks[i].name), &fds[i], 1, 0, attached,
                           f);
        if (fds[i] >= 0)
            close(fds[i]);
    }
    if (!rc)
        return;
    fprintf(stderr, "trivet run: the store does not start again, next try follows: %s\n", err.text);
    loop_set_timer(f->store_timer, STORE_RETRY_NS, 0);
}

static void store_ended(void *arg, pid_t pid, int status)
{
    struct foreground *f = arg;
    (void)pid, (void)status;
    f->store.worker.pid = 0;
    f->store_child = NULL;
    if (f->ended)
        return;
    bool at_once = clock_now_ns() - f->store_started_ns > STORE_RETRY_NS;
    fprintf(stderr, "trivet run: the store has died; starting it again\n");
    loop_set_timer(f->store_timer, at_once ? 1 : STORE_RETRY_NS, 0);
}

// --- the beginning

static void control_closed(void *arg, struct rpc_conn *conn)
{
    struct foreground *f = arg;
    (void)conn; // frees itself
    f->control = NULL;
}

static void method_net_disconnected(void *arg, struct rpc_request *req, const json_t *params)
{
    struct foreground *f = arg;
    net_links_away(&f->links, json_string_value(json_object_get(params, "name")));
    rpc_reply(req, json_object());
}

static int start_machine(struct foreground *f, struct launch *launch, int *console_fd, struct tv_error *err)
{
    char path[PATH_MAX];
    int pair[2];
    int rc = path_format(path, err, "%s/control.sock", f->store.dir);
    if (rc)
        return rc;
    if ((launch->control_fd = rpc_listen(path, 0600, err)) < 0)
        return launch->control_fd;
    int control_fd = rpc_connect(path, err);
    if (control_fd < 0)
        return control_fd;
    static const struct rpc_method methods[] = {{"net.disconnected", method_net_disconnected}, {0}};
    const struct rpc_service service = {.methods = methods, .arg = f, .closed = control_closed};
    f->control = rpc_conn_create(f->loop, control_fd, &service, err);
    if (!f->control)
        return err->code;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return tv_error_set(err, -errno, "socketpair: %s", strerror(errno));
    *console_fd = pair[0];
    launch->console_fd = pair[1];
    launch->dies_with_parent = true;
    rc = launch_start(launch, f->spec, &f->machine, err);
    if (rc)
        return rc;
    f->machine_child = loop_add_child(f->loop, f->machine.pid, machine_ended, f, err);
    return f->machine_child ? 0 : err->code;
}

static int start_all(struct foreground *f, struct launch *launch, struct tv_error *err)
{
    int console_fd = -1;
    cleanup_json json_t *unproven = json_array();
    int rc = store_process_make_dir(&f->store, err);
    if (rc)
        return rc;
    if (f->spec->n_disks)
        rc = start_store(f, launch->disk_fds, unproven, err);
    if (!rc)
        command_print_unproven(stderr, "trivet run: ", unproven);
    if (!rc)
        rc = start_machine(f, launch, &console_fd, err);
    store_process_remove_dir(&f->store);
    if (rc) {
        if (console_fd >= 0)
            close(console_fd);
        return rc;
    }
    const struct terminal_config config = {
        .loop = f->loop, .console_fd = console_fd, .leave = quit, .closed = console_closed, .arg = f};
    f->terminal = terminal_create(&config, err);
    return f->terminal ? 0 : err->code;
}

static int prepare_loop(struct foreground *f, struct tv_error *err)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    f->loop = loop_create(err);
    if (!f->loop)
        return err->code;
    for (size_t i = 0; i < 4; i++)
        if (!(f->signals[i] = loop_add_signal(f->loop, numbers[i], on_signal, f, err)))
            return err->code;
    f->kill_timer = loop_add_timer(f->loop, kill_machine, f, err);
    f->store_timer = loop_add_timer(f->loop, restart_store, f, err);
    if (!f->kill_timer || !f->store_timer)
        return err->code;
    return net_links_init(&f->links, f->loop, f->spec, &f->control, err);
}

static void end_all(struct foreground *f)
{
    f->ended = true;
    terminal_destroy(f->terminal);
    if (f->control)
        rpc_conn_destroy(f->control);
    net_links_fini(&f->links);
    struct worker *workers[] = {&f->machine, &f->store.worker};
    loop_remove(f->machine_child);
    loop_remove(f->store_child);
    for (size_t i = 0; i < 2; i++) {
        if (workers[i]->pid <= 0)
            continue;
        // A store has nothing to write that a guest was promised: what it holds back is nothing.
        worker_kill(workers[i], SIGKILL);
        waitpid(workers[i]->pid, NULL, 0);
    }
    loop_destroy(f->loop);
}

int foreground_run(const struct machine_spec *spec, struct tv_error *err)
{
    struct foreground f = {.spec = spec};
    struct launch launch;
    launch_init(&launch);
    int rc = launch_open(&launch, spec, err);
    if (!rc)
        rc = prepare_loop(&f, err);
    if (!rc)
        rc = start_all(&f, &launch, err);
    launch_fini(&launch);
    if (!rc)
        loop_run(f.loop);
    if (f.loop)
        end_all(&f);
    if (rc)
        return 2;
    return f.signal ? 128 + f.signal : f.exit_status;
}
