// The router of a host, shared by the networks of one trivetd: see daemon.h.
//
// It is started with the first network and stopped with the last. When it dies it is started again, and is given all networks anew
// (net.c); a machine then gets a new connection by net.attach, its guest only waits meanwhile.
#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define GATHER_NS (20 * NS_PER_MS)
#define BACKOFF_FIRST_NS (500 * NS_PER_MS)
#define BACKOFF_MOST 6               // doublings
#define LIVED_LONG_NS (2 * NS_PER_S) // its death is no consequence of its start

void daemon_router_disconnect(struct daemon *d)
{
    struct rpc_conn *control = d->router_control;
    d->router_control = NULL;
    d->host_told = false;
    rpc_conn_destroy(control); // whoever waits for an answer is told
}

static void forget_router(struct daemon *d)
{
    daemon_router_disconnect(d);
    loop_remove(d->router_watch);
    d->router_watch = NULL;
    if (d->router_pidfd >= 0)
        close(d->router_pidfd);
    d->router_pidfd = -1;
    if (d->router.worker.pid)
        waitpid(d->router.worker.pid, NULL, WNOHANG);
    d->router.worker = (struct worker){0};
}

static void record_router(struct daemon *d)
{
    cleanup_json json_t *json =
        json_pack("{s:i, s:I}", "pid", (int)d->router.worker.pid, "start_ticks", (json_int_t)d->router.worker.start_ticks);
    database_put(d->db, "router", json, NULL);
}

// One that dies at once would do so again: it is waited longer each time.
static uint64_t restart_delay_ns(struct daemon *d)
{
    if (clock_now_ns() - d->router_started_ns > LIVED_LONG_NS)
        d->router_deaths = 0;
    const unsigned deaths = d->router_deaths++;
    if (!deaths)
        return 1;
    return BACKOFF_FIRST_NS << (deaths < BACKOFF_MOST ? deaths : BACKOFF_MOST);
}

static void router_ended(void *arg, int fd, uint32_t events)
{
    struct daemon *d = arg;
    (void)fd, (void)events;
    log_event(LOG_WARN, "trivetd", "router died", LOG_I64("pid", d->router.worker.pid));
    forget_router(d);
    record_router(d);
    net_router_died(d);
    loop_set_timer(d->router_timer, restart_delay_ns(d), 0);
}

// It ends, which is soon told of; or the connection alone has gone, and what was asked by it may have been done or not.
static void control_closed(void *arg, struct rpc_conn *conn)
{
    struct daemon *d = arg;
    (void)conn;
    d->router_control = NULL;
    d->host_told = false;
    loop_set_timer(d->router_timer, GATHER_NS, 0);
}

static int connect_router(struct daemon *d, struct tv_error *err)
{
    const int fd = router_process_connect(&d->router, NULL);
    if (fd < 0)
        return tv_error_set(err, fd, "trivet-router takes no connection: %s; its log is %s/router.log", strerror(-fd),
                            d->state_dir);
    static const struct rpc_method methods[] = {{"promise.changed", daemon_promise_changed}, {0}};
    const struct rpc_service service = {.methods = methods, .arg = d, .closed = control_closed};
    d->router_control = rpc_conn_create(d->loop, fd, &service, err);
    if (d->router_control)
        daemon_host_restore(d); // before its networks
    return d->router_control ? 0 : -ENOMEM;
}

static int watch_router(struct daemon *d, bool is_child, struct tv_error *err)
{
    d->router_pidfd = is_child ? worker_open_child(&d->router.worker) : worker_open(&d->router.worker);
    if (d->router_pidfd < 0)
        return tv_error_set(err, -ESRCH, "trivet-router is gone; its log is %s/router.log", d->state_dir);
    d->router_watch = loop_add_fd(d->loop, d->router_pidfd, EPOLLIN, router_ended, d, err);
    return d->router_watch ? connect_router(d, err) : -ENOMEM;
}

int daemon_router_need(struct daemon *d, struct tv_error *err)
{
    if (d->router.worker.pid)
        return d->router_control ? 0 : connect_router(d, err);
    char path[PATH_MAX];
    int rc = path_format(path, err, "%s/router.log", d->state_dir);
    if (rc)
        return rc;
    cleanup_close int log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    rc = router_process_start(&d->router, log_fd, err);
    if (!rc)
        rc = watch_router(d, true, err);
    if (rc)
        daemon_router_stop(d);
    d->router_started_ns = clock_now_ns();
    record_router(d);
    return rc;
}

static void bring_back(void *arg)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    if (!d->nets)
        return;
    if (daemon_router_need(d, &err) == 0) {
        net_restore(d);
        return;
    }
    log_event(LOG_WARN, "trivetd", "router not up again yet", LOG_STR("error", err.text));
    loop_set_timer(d->router_timer, d->router.worker.pid ? BACKOFF_FIRST_NS : restart_delay_ns(d), 0);
}

void daemon_router_gather(struct daemon *d)
{
    if (d->router.worker.pid) // else the timer is set
        loop_set_timer(d->router_timer, GATHER_NS, 0);
}

void daemon_router_adopt(struct daemon *d)
{
    d->router_pidfd = -1;
    d->router_timer = loop_add_timer(d->loop, bring_back, d, NULL);
    cleanup_json json_t *json = database_get(d->db, "router");
    d->router.worker.pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
    d->router.worker.start_ticks = (uint64_t)json_integer_value(json_object_get(json, "start_ticks"));
    if (d->router.worker.pid && watch_router(d, false, NULL))
        daemon_router_stop(d); // one that cannot be talked to is no use to anyone
    d->router_started_ns = clock_now_ns();
    if (d->nets)
        loop_set_timer(d->router_timer, 1, 0);
    else if (d->router.worker.pid)
        daemon_router_stop(d);
}

void daemon_router_stop(struct daemon *d)
{
    if (d->router.worker.pid)
        router_process_stop(&d->router);
    forget_router(d);
    record_router(d);
}
