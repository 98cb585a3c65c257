// Machines' places in networks: a port of the router, and the connection to it that the machine gets: see daemon.h.
//
// As with disks, trivetd connects and hands the connection over (docs/decisions/0004): when the machine starts, and by net.attach
// whenever the router was started again or has made the network anew.
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/net/net_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL_TIMEOUT_MS 60000

static void forget(struct daemon_machine *m, unsigned nic)
{
    if (m->nic_opening[nic])
        m->nic_opening[nic]->machine = NULL;
    m->nic_opening[nic] = NULL;
}

void daemon_nic_abandon(struct daemon_machine *m)
{
    for (unsigned i = 0; i < m->spec.n_nics; i++)
        forget(m, i);
}

static void attach_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    const struct daemon_machine *m = arg;
    if (result || err->code == -ECANCELED)
        return;
    log_event(LOG_WARN, "trivetd", "network not attached", LOG_STR("machine", m->spec.name), LOG_STR("error", err->text));
}

static void attach(struct daemon_machine *m, unsigned nic, int fd)
{
    cleanup_close int owned = fd;
    if (!m->control)
        return; // it ends
    m->nic_away[nic] = false;
    json_t *params = json_pack("{s:s}", "name", m->spec.nics[nic].network);
    rpc_call_async(m->control, "net.attach", params, &owned, 1, 0, attach_answered, m);
}

// fd < 0: it failed, with err.
static void finish(struct daemon_machine *m, unsigned nic, int fd, struct tv_error *err)
{
    if (err->code)
        tv_error_prefix(err, "network '%s'", m->spec.nics[nic].network);
    if (m->launch) {
        machine_nic_opened(m, nic, fd, err);
    } else if (fd >= 0) {
        attach(m, nic, fd);
    } else {
        log_event(LOG_WARN, "trivetd", "port not back", LOG_STR("machine", m->spec.name), LOG_STR("error", err->text));
        m->nic_away[nic] = true;
    }
}

static void port_added(void *arg, const json_t *result, const struct tv_error *said)
{
    struct nic_opening *opening = arg;
    struct daemon_machine *m = opening->machine;
    const unsigned nic = opening->nic;
    struct tv_error err = {0};
    char path[PATH_MAX];
    int fd = -1;
    free(opening);
    if (!m)
        return;
    m->nic_opening[nic] = NULL;
    const json_t *unproven = json_object_get(result, "unproven");
    if (json_array_size(unproven)) {
        m->unproven = m->unproven ? m->unproven : json_array();
        json_array_extend(m->unproven, (json_t *)unproven);
    }
    if (!result)
        err = *said;
    else if (router_process_port_path(&m->daemon->router, m->spec.nics[nic].network, m->spec.name, path, &err) == 0)
        fd = rpc_connect(path, &err);
    finish(m, nic, fd, &err);
}

static void removed(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)arg, (void)result, (void)err; // that there is no such port is as good
}

static void close_one(struct daemon_machine *m, unsigned nic)
{
    const struct daemon *d = m->daemon;
    forget(m, nic);
    if (d->router_control)
        rpc_call_async(d->router_control, "port.remove",
                       json_pack("{s:s, s:s}", "vn", m->spec.nics[nic].network, "name", m->spec.name), NULL, 0, 0, removed, NULL);
}

void daemon_nic_close_all(struct daemon_machine *m)
{
    for (unsigned i = 0; i < m->spec.n_nics; i++)
        close_one(m, i);
}

static int find_net(const struct daemon_machine *m, unsigned nic, const struct daemon_net **net, struct tv_error *err)
{
    const char *name = m->spec.nics[nic].network;
    *net = net_find(m->daemon, name);
    if (!*net)
        return tv_error_set(err, -ENOENT, "machine '%s': there is no network '%s'; `trivet net create %s` makes it", m->spec.name,
                            name, name);
    return net_spec_check_machine((*net)->spec, &m->spec, &m->spec.nics[nic], err);
}

// A port of that name that the router still has, from a machine that is gone, is taken back first: it answers in order.
int daemon_nic_open(struct daemon_machine *m, unsigned nic, struct tv_error *err)
{
    struct daemon *d = m->daemon;
    const struct daemon_net *net;
    char path[PATH_MAX];
    int rc = find_net(m, nic, &net, err);
    if (!rc)
        rc = router_process_port_path(&d->router, m->spec.nics[nic].network, m->spec.name, path, err);
    if (rc)
        return rc;
    if (!d->router_control)
        return tv_error_set(err, -ENOTCONN, "machine '%s': network '%s': the router is not up again yet; its log is %s/router.log",
                            m->spec.name, m->spec.nics[nic].network, d->state_dir);
    daemon_gateway_refresh(net_find(d, m->spec.nics[nic].network));
    close_one(m, nic);
    struct nic_opening *opening = calloc(1, sizeof(*opening));
    if (!opening)
        return tv_error_set(err, -ENOMEM, "no memory");
    *opening = (struct nic_opening){.machine = m, .nic = nic};
    m->nic_opening[nic] = opening;
    rc = rpc_call_async(d->router_control, "port.add", net_spec_machine_port(net->spec, m->spec.name, &m->spec.nics[nic], path),
                        NULL, 0, CALL_TIMEOUT_MS, port_added, opening);
    if (!rc)
        return 0;
    m->nic_opening[nic] = NULL;
    free(opening);
    return tv_error_set(err, rc, "machine '%s': the router cannot be asked: %s", m->spec.name, strerror(-rc));
}

void daemon_nic_away(struct daemon_machine *m, const char *network)
{
    struct tv_error err = {0};
    for (unsigned i = 0; i < m->spec.n_nics; i++) {
        if (!m->nic_away[i] || strcmp(m->spec.nics[i].network, network) != 0 || !m->control || m->nic_opening[i] || m->launch)
            continue;
        if (daemon_nic_open(m, i, &err))
            log_event(LOG_WARN, "trivetd", "port not back", LOG_STR("machine", m->spec.name), LOG_STR("error", err.text));
    }
}
