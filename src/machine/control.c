// The machine's control protocol: JSON-RPC methods and notifications (machine.*, disk.*, net.*). On the loop's thread.
#include "base/clock.h"
#include "base/rpc.h"
#include "machine/machine.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUTTON_DELAY_NS (10 * NS_PER_S) // for a guest to begin to shut down, and to end
#define POWER_OFF_DELAY_NS (1 * NS_PER_S)

struct control {
    struct machine *m;
    struct rpc_server *server;
    struct loop_source *power_off; // the next part of a shutdown that no agent of the guest's does
    bool is_synced;                // of which the first is over
};

// --- what is asked about

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static void method_status(void *arg, struct rpc_request *req, const json_t *params)
{
    const struct machine *m = ((struct control *)arg)->m;
    (void)params;
    rpc_reply(req, json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "state",
                             m->paused || m->active ? "paused" : "running", "name", m->config.name, "tenant", m->config.tenant,
                             "engine", m->engine->ops->name, "engine_why", m->config.engine_why, "cpus", number(m->config.cpus),
                             "memory_bytes", number(m->config.memory_bytes), "resident_bytes", number(machine_resident_bytes(m)),
                             "uptime_ns", number(clock_now_ns() - m->created_ns), "guest_time_ns", number(machine_guest_ns(m))));
}

static void method_stats(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    rpc_reply(req, machine_stats(((struct control *)arg)->m));
}

// --- stop and go

static void task_paused(struct machine *m, void *arg)
{
    rpc_reply(arg, json_object());
    machine_task_done(m);
}

static void method_pause(void *arg, struct rpc_request *req, const json_t *params)
{
    struct machine *m = ((struct control *)arg)->m;
    (void)params;
    m->paused = true;
    machine_when_parked(m, task_paused, req);
}

static void method_resume(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    machine_set_paused(((struct control *)arg)->m, false);
    rpc_reply(req, json_object());
}

static void task_reset(struct machine *m, void *arg)
{
    struct tv_error err = {0};
    if (!m->ended && machine_reboot(m, &err) < 0) {
        rpc_reply_error(arg, RPC_FAILED, &err);
        machine_end(m, 3, "%s", err.text);
    } else {
        rpc_reply(arg, json_object());
    }
    machine_task_done(m);
}

static void method_reset(void *arg, struct rpc_request *req, const json_t *params)
{
    struct machine *m = ((struct control *)arg)->m;
    struct tv_error err = {0};
    (void)params;
    if (m->config.kernel_fd < 0) {
        tv_error_set(&err, -ENOENT, "machine '%s': has no kernel to start again; it was loaded without one", m->config.name);
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    machine_when_parked(m, task_reset, req);
}

static void method_quit(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)params;
    rpc_reply(req, json_object());
    machine_end(((struct control *)arg)->m, 0, "stopped on request");
}

// Linux takes a break on its serial console as the SysRq key: sync, remount read-only, and a little later power off. That is for
// guests that no agent and no power button reaches.
static void sysrq(struct machine *m, const char *keys)
{
    for (; *keys; keys++)
        if (uart16550_break(board_uart(m->board)) == 0)
            uart16550_input(board_uart(m->board), (const uint8_t *)keys, 1);
}

static void power_off(void *arg)
{
    struct control *c = arg;
    sysrq(c->m, c->is_synced ? "o" : "su");
    if (!c->is_synced)
        loop_set_timer(c->power_off, POWER_OFF_DELAY_NS, 0);
    c->is_synced = true;
}

static void method_shutdown(void *arg, struct rpc_request *req, const json_t *params)
{
    struct control *c = arg;
    (void)params;
    c->is_synced = false;
    if (!machine_ask_powerdown(c->m)) {
        if (board_press_power_button(c->m->board))
            loop_set_timer(c->power_off, BUTTON_DELAY_NS, 0);
        else
            power_off(c);
    }
    rpc_reply(req, json_object());
}

// --- saving

struct save_request {
    struct machine *m;
    struct rpc_request *req;
    int fd;
    bool quit;
};

static void save_done(void *arg, uint64_t size_bytes, const struct tv_error *err)
{
    struct save_request *save = arg;
    struct machine *m = save->m;
    if (err->code < 0)
        rpc_reply_error(save->req, RPC_FAILED, err);
    else
        rpc_reply(save->req, json_pack("{s:o}", "size_bytes", number(size_bytes)));
    if (err->code == 0 && save->quit)
        machine_end(m, 0, "saved");
    free(save);
    machine_task_done(m);
}

static void task_save(struct machine *m, void *arg)
{
    struct save_request *save = arg;
    machine_save(m, save->fd, save_done, save);
}

static void method_save(void *arg, struct rpc_request *req, const json_t *params)
{
    struct machine *m = ((struct control *)arg)->m;
    struct tv_error err = {0};
    const json_t *quit = json_object_get(params, "quit");
    struct save_request *save = calloc(1, sizeof(*save));
    int fd = save ? rpc_request_take_fd(req, 0) : -ENOMEM;
    if (fd < 0 || (quit && !json_is_boolean(quit))) {
        tv_error_set(&err, fd < 0 ? fd : -EINVAL,
                     fd < 0 ? "machine.save: needs the descriptor of a file to write to"
                            : "machine.save: quit should be true or false");
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        if (fd >= 0)
            close(fd);
        free(save);
        return;
    }
    *save = (struct save_request){.m = m, .req = req, .fd = fd, .quit = json_is_true(quit)};
    machine_when_parked(m, task_save, save);
}

// --- disks and networks

typedef int attach_fn(struct machine *m, const char *name, int fd, struct tv_error *err);

static void attach(void *arg, struct rpc_request *req, const json_t *params, const char *method, attach_fn *attach_to)
{
    struct machine *m = ((struct control *)arg)->m;
    struct tv_error err = {0};
    const char *name = json_string_value(json_object_get(params, "name"));
    int fd = rpc_request_take_fd(req, 0);
    if (!name || fd < 0) {
        tv_error_set(&err, -EINVAL, "%s: needs a name and a connected vhost-user socket", method);
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        if (fd >= 0)
            close(fd);
    } else if (attach_to(m, name, fd, &err) < 0) {
        rpc_reply_error(req, RPC_FAILED, &err);
    } else {
        rpc_reply(req, json_object());
    }
}

static void method_disk_attach(void *arg, struct rpc_request *req, const json_t *params)
{
    attach(arg, req, params, "disk.attach", machine_attach_disk);
}

static void method_net_attach(void *arg, struct rpc_request *req, const json_t *params)
{
    attach(arg, req, params, "net.attach", machine_attach_net);
}

void control_tell_disconnected(struct control *c, const char *what, const char *name)
{
    if (c)
        rpc_server_broadcast(c->server, what, json_pack("{s:s}", "name", name));
}

// A supervisor that was away learns what waits for it.
static void connection_opened(void *arg, struct rpc_conn *conn)
{
    const struct machine *m = ((struct control *)arg)->m;
    for (unsigned i = 0; i < m->config.n_disks; i++)
        if (!machine_disk_is_attached(m, i))
            rpc_notify(conn, "disk.disconnected", json_pack("{s:s}", "name", m->config.disks[i].name));
    for (unsigned i = 0; i < m->config.n_nets; i++)
        if (!machine_net_is_attached(m, i))
            rpc_notify(conn, "net.disconnected", json_pack("{s:s}", "name", m->config.nets[i].name));
}

// --- the server

void control_tell_progress(struct control *c, const char *what, uint64_t done_bytes, uint64_t total_bytes)
{
    if (c)
        rpc_server_broadcast(
            c->server, "machine.progress",
            json_pack("{s:s, s:o, s:o}", "operation", what, "done_bytes", number(done_bytes), "total_bytes", number(total_bytes)));
}

void control_tell_stopped(struct control *c, int exit_status, const char *reason)
{
    if (c)
        rpc_server_broadcast(c->server, "machine.stopped", json_pack("{s:i, s:s}", "exit", exit_status, "reason", reason));
}

struct control *control_create(struct machine *m, int listen_fd, struct tv_error *err)
{
    static const struct rpc_method methods[] = {{"machine.status", method_status},
                                                {"machine.stats", method_stats},
                                                {"machine.pause", method_pause},
                                                {"machine.resume", method_resume},
                                                {"machine.reset", method_reset},
                                                {"machine.quit", method_quit},
                                                {"machine.save", method_save},
                                                {"machine.shutdown", method_shutdown},
                                                {"disk.attach", method_disk_attach},
                                                {"net.attach", method_net_attach},
                                                {NULL, NULL}};
    struct control *c = calloc(1, sizeof(*c));
    if (!c) {
        close(listen_fd);
        tv_error_set(err, -ENOMEM, "control: no memory");
        return NULL;
    }
    struct rpc_service service = {.methods = methods, .arg = c, .opened = connection_opened};
    c->m = m;
    c->power_off = loop_add_timer(m->loop, power_off, c, err);
    c->server = c->power_off ? rpc_server_create(m->loop, listen_fd, &service, err) : NULL;
    if (!c->server) {
        control_destroy(c);
        return NULL;
    }
    return c;
}

void control_destroy(struct control *c)
{
    if (!c)
        return;
    loop_remove(c->power_off);
    if (c->server)
        rpc_server_destroy(c->server);
    free(c);
}
