// Gateways of networks with services, and the dnsmasq of each: see daemon.h and gateway.h.
//
// dnsmasq is a worker like others: it outlives us, is known by pid and start time, and is started again when it dies. It is told on
// its command line which machine gets which address; where that changes it is started anew, and knows its leases from their file.
#include "control/net/gateway.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/net/net_spec.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define RESTART_NS (1 * NS_PER_S)

static const json_t *services(const struct daemon_net *n)
{
    return json_object_get(n->spec, "services");
}

static bool wants_dnsmasq(const struct daemon_net *n)
{
    return json_is_true(json_object_get(services(n), "dhcp")) || json_is_true(json_object_get(services(n), "dns"));
}

static void record(const struct daemon_net *n)
{
    char key[NET_NAME_MAX + 16];
    cleanup_json json_t *json =
        json_pack("{s:i, s:I}", "pid", (int)n->dnsmasq.pid, "start_ticks", (json_int_t)n->dnsmasq.start_ticks);
    snprintf(key, sizeof(key), "dnsmasq %s", net_spec_name(n->spec));
    database_put(n->daemon->db, key, json, NULL);
}

static void forget(struct daemon_net *n)
{
    loop_remove(n->dnsmasq_watch);
    n->dnsmasq_watch = NULL;
    if (n->dnsmasq_pidfd >= 0)
        close(n->dnsmasq_pidfd);
    n->dnsmasq_pidfd = -1;
    if (n->dnsmasq.pid)
        waitpid(n->dnsmasq.pid, NULL, WNOHANG);
    n->dnsmasq = (struct worker){0};
}

static void ended(void *arg, int fd, uint32_t events)
{
    struct daemon_net *n = arg;
    (void)fd, (void)events;
    log_event(LOG_WARN, "trivetd", "dnsmasq ended", LOG_STR("network", net_spec_name(n->spec)), LOG_I64("pid", n->dnsmasq.pid));
    forget(n);
    record(n);
    loop_set_timer(n->dnsmasq_timer, RESTART_NS, 0);
}

static void restart(void *arg)
{
    daemon_gateway_refresh(arg);
}

static int watch(struct daemon_net *n, bool is_child)
{
    n->dnsmasq_pidfd = is_child ? worker_open_child(&n->dnsmasq) : worker_open(&n->dnsmasq);
    if (n->dnsmasq_pidfd < 0)
        return n->dnsmasq_pidfd;
    n->dnsmasq_watch = loop_add_fd(n->daemon->loop, n->dnsmasq_pidfd, EPOLLIN, ended, n, NULL);
    return n->dnsmasq_watch ? 0 : -ENOMEM;
}

static void stop(struct daemon_net *n)
{
    const struct worker worker = n->dnsmasq;
    loop_remove(n->dnsmasq_watch);
    n->dnsmasq_watch = NULL;
    worker_kill(&worker, SIGKILL); // it writes its leases as it gives them
    if (worker.pid)
        waitpid(worker.pid, NULL, 0); // gone at once; of one that was adopted there is nothing to wait for
    forget(n);
}

// --- who gets which address

static json_t *list_hosts(const struct daemon_net *n)
{
    json_t *hosts = json_array();
    for (const struct daemon_machine *m = n->daemon->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_nics; i++)
            for (unsigned k = 0; k < m->spec.nics[i].n_addresses; k++)
                if (strcmp(m->spec.nics[i].network, net_spec_name(n->spec)) == 0 && !strchr(m->spec.nics[i].addresses[k], ':'))
                    json_array_append_new(hosts, json_pack("{s:s, s:s, s:s}", "mac", m->spec.nics[i].mac, "address",
                                                           m->spec.nics[i].addresses[k], "name", m->spec.name));
    return hosts;
}

static int start(struct daemon_net *n, const json_t *hosts, struct tv_error *err)
{
    struct gateway gateway;
    struct gateway_words words;
    char path[PATH_MAX];
    gateway_init(&gateway, n->daemon->run_dir, n->spec);
    int rc = path_format(path, err, "%s/logs/gateway-%s.log", n->daemon->state_dir, net_spec_name(n->spec));
    cleanup_close int log_fd = rc ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (!rc)
        rc = path_format(path, err, "%s/logs/gateway-%s.leases", n->daemon->state_dir, net_spec_name(n->spec));
    if (!rc)
        rc = gateway_dnsmasq(&gateway, path, hosts, &words, err);
    if (rc)
        return rc;
    const struct worker_start how = {.program = "dnsmasq",
                                     .argv = (const char *const *)words.words,
                                     .stderr_fd = log_fd,
                                     .prepare = gateway_enter,
                                     .prepare_arg = &gateway};
    rc = worker_start(&n->dnsmasq, &how, err);
    gateway_free_words(&words);
    record(n); // before anything else: whoever comes after us has to find it
    return rc ? rc : watch(n, true);
}

void daemon_gateway_refresh(struct daemon_net *n)
{
    struct tv_error err = {0};
    cleanup_json json_t *hosts = list_hosts(n);
    if (!wants_dnsmasq(n) || n->state != NET_UP || (n->dnsmasq.pid && json_equal(n->hosts, hosts)))
        return;
    if (n->dnsmasq.pid)
        stop(n);
    json_decref(n->hosts);
    n->hosts = json_incref(hosts);
    if (start(n, hosts, &err)) {
        log_event(LOG_WARN, "trivetd", "dnsmasq not started", LOG_STR("network", net_spec_name(n->spec)),
                  LOG_STR("error", err.text));
        loop_set_timer(n->dnsmasq_timer, 10 * RESTART_NS, 0);
    }
}

// --- its life

struct opening {
    struct daemon *daemon;
    char name[NET_NAME_MAX + 1];
    void (*done)(void *arg, int fd, const struct tv_error *err);
    void *arg;
};

static void made(void *arg, const struct tv_error *said)
{
    struct opening *o = arg;
    const struct daemon_net *n = net_find(o->daemon, o->name);
    struct gateway gateway;
    struct tv_error err = *said;
    int fd = -1;
    if (!n || !services(n)) {
        tv_error_set(&err, -ECANCELED, "network '%s' was removed meanwhile", o->name);
    } else if (!err.code) {
        gateway_init(&gateway, o->daemon->run_dir, n->spec);
        fd = gateway_open_device(&gateway, &err);
    }
    o->done(o->arg, fd, &err);
    if (fd >= 0)
        close(fd);
    free(o);
}

void daemon_gateway_open(struct daemon_net *n, bool anew, void (*done)(void *arg, int fd, const struct tv_error *err), void *arg)
{
    struct gateway gateway;
    const struct tv_error none = {0}, no_memory = {.code = -ENOMEM, .text = "no memory"};
    struct opening *o = calloc(1, sizeof(*o));
    if (!o) {
        done(arg, -1, &no_memory);
        return;
    }
    *o = (struct opening){.daemon = n->daemon, .done = done, .arg = arg};
    snprintf(o->name, sizeof(o->name), "%s", net_spec_name(n->spec));
    gateway_init(&gateway, n->daemon->run_dir, n->spec);
    if (!anew && gateway_is_there(&gateway) && !daemon_gateways_are_busy(n->daemon)) {
        made(o, &none);
        return;
    }
    stop(n); // it is in a namespace that goes
    daemon_gateway_work(n->daemon, anew ? GATEWAY_MAKE : GATEWAY_NEED, n->spec, made, o);
}

void daemon_gateway_remove(struct daemon_net *n, const json_t *spec)
{
    char path[PATH_MAX];
    static const char *const files[] = {"log", "leases"};
    stop(n);
    loop_set_timer(n->dnsmasq_timer, 0, 0);
    if (!json_object_get(spec, "services"))
        return;
    daemon_gateway_work(n->daemon, GATEWAY_REMOVE, spec, NULL, NULL);
    record(n);
    for (int i = 0; i < 2; i++)
        if (path_format(path, NULL, "%s/logs/gateway-%s.%s", n->daemon->state_dir, net_spec_name(n->spec), files[i]) == 0)
            unlink(path);
}

void daemon_gateway_adopt(struct daemon_net *n)
{
    char key[NET_NAME_MAX + 16];
    n->dnsmasq_pidfd = -1;
    n->dnsmasq_timer = loop_add_timer(n->daemon->loop, restart, n, NULL);
    snprintf(key, sizeof(key), "dnsmasq %s", net_spec_name(n->spec));
    cleanup_json json_t *json = database_get(n->daemon->db, key);
    n->dnsmasq.pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
    n->dnsmasq.start_ticks = (uint64_t)json_integer_value(json_object_get(json, "start_ticks"));
    if (n->dnsmasq.pid && watch(n, false))
        forget(n);
    n->hosts = n->dnsmasq.pid ? list_hosts(n) : NULL;
}

void daemon_gateway_leave(struct daemon_net *n)
{
    loop_remove(n->dnsmasq_watch);
    loop_remove(n->dnsmasq_timer);
    if (n->dnsmasq_pidfd >= 0)
        close(n->dnsmasq_pidfd);
    json_decref(n->hosts);
}
