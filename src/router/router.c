// The router: see router.h.
#include "router/router.h"

#include "base/clock.h"
#include "router/params.h"
#include "router/promises.h"
#include "router/trace.h"
#include "router/vn.h"
#include "router/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS_DEFAULT 4096
#define BUFFERS_LEAST 256
#define BUFFERS_MOST (1u << 20)

struct entry {
    struct vn *vn;
    struct worker *worker;
    struct promises *promises; // the worker's
};

struct router {
    struct loop *loop;
    unsigned n_workers, n_vns;
    void (*changed)(void *arg);
    void *changed_arg;
    struct worker *workers[WORKERS_MAX];
    struct promises *promises[WORKERS_MAX];
    struct loop_source *timer;
    struct rpc_server *control; // NULL: nobody can be told anything
    struct entry vns[ROUTER_VNS_MAX];
};

static void on_tick(void *arg)
{
    struct router *router = arg;
    const uint64_t now_ns = clock_now_ns();
    for (unsigned i = 0; i < router->n_workers; i++)
        promises_tick(router->promises[i], now_ns);
}

static void tell(void *arg, json_t *params)
{
    struct router *router = arg;
    if (router->control)
        rpc_server_broadcast(router->control, "promise.changed", params);
    else
        json_decref(params);
}

void router_set_control(struct router *router, struct rpc_server *control)
{
    router->control = control;
}

static int add_worker(struct router *router, struct tv_error *err)
{
    struct promises_options options = {.worker = router->n_workers, .hz = worker_hz(), .tell = tell, .arg = router};
    struct promises *promises = promises_create(&options, err);
    struct worker *worker = promises ? worker_create(router->n_workers + 1, err) : NULL;
    if (!worker) {
        promises_destroy(promises);
        return err->code;
    }
    router->promises[router->n_workers] = promises;
    router->workers[router->n_workers++] = worker;
    return 0;
}

struct router *router_create(struct loop *loop, unsigned n_workers, struct tv_error *err)
{
    struct router *router = calloc(1, sizeof(*router));
    if (!router) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    router->loop = loop;
    router->timer = loop_add_timer(loop, on_tick, router, err);
    int r = router->timer ? 0 : err->code;
    while (!r && router->n_workers < n_workers)
        r = add_worker(router, err);
    if (!r)
        return router;
    router_destroy(router);
    return NULL;
}

static struct entry *find(const struct router *router, const char *name)
{
    for (unsigned i = 0; i < router->n_vns; i++)
        if (!strcmp(router->vns[i].vn->name, name))
            return (struct entry *)&router->vns[i];
    return NULL;
}

static struct entry *find_or_tell(const struct router *router, const char *name, struct tv_error *err)
{
    struct entry *entry = find(router, name);
    if (!entry)
        tv_error_set(err, -ENOENT, "there is no network '%.40s'", name);
    return entry;
}

static struct vn_port *find_port(struct entry *entry, const char *name, struct tv_error *err)
{
    struct vn_port *port = vn_find_port(entry->vn, name);
    if (!port)
        tv_error_set(err, -ENOENT, "network '%s' has no port '%.40s'", entry->vn->name, name);
    return port;
}

static void tell_change(struct router *router)
{
    if (router->changed)
        router->changed(router->changed_arg);
}

void router_set_changed(struct router *router, void (*fn)(void *arg), void *arg)
{
    router->changed = fn;
    router->changed_arg = arg;
}

// The one that is asked for, or the one with the fewest networks.
static int choose_worker(struct router *router, const json_t *params, struct entry *entry, struct tv_error *err)
{
    uint32_t number;
    if (params_get_u32(params, "worker", router->n_workers, 0, router->n_workers, &number, err))
        return -EINVAL;
    if (number == router->n_workers) {
        number = 0;
        for (unsigned i = 1; i < router->n_workers; i++)
            if (worker_n_vns(router->workers[i]) < worker_n_vns(router->workers[number]))
                number = i;
    }
    entry->worker = router->workers[number];
    entry->promises = router->promises[number];
    return 0;
}

static int start_vn(struct router *router, struct entry *entry, struct tv_error *err)
{
    int r = promises_join(entry->promises, entry->vn, err);
    if (!r)
        r = worker_add_vn(entry->worker, entry->vn, err);
    if (r) {
        promises_leave(entry->promises, entry->vn);
        vn_destroy(entry->vn);
        return r;
    }
    router->vns[router->n_vns++] = *entry;
    if (router->n_vns == 1)
        loop_set_timer(router->timer, PROMISES_TICK_NS, PROMISES_TICK_NS);
    return 0;
}

static void wake(void *worker)
{
    worker_wake(worker);
}

int router_add_vn(struct router *router, const json_t *params, json_t *unproven, struct tv_error *err)
{
    struct vn_config config;
    struct entry entry;
    struct promise_set promises;
    if (params_get_name(params, "name", VN_NAME_MAX, &config.name, err) ||
        params_get_string(params, "type", "ethernet", &config.type, err) ||
        params_get_u32(params, "buffers", BUFFERS_DEFAULT, BUFFERS_LEAST, BUFFERS_MOST, &config.n_buffers, err) ||
        choose_worker(router, params, &entry, err))
        return -EINVAL;
    if (find(router, config.name))
        return tv_error_set(err, -EEXIST, "there is a network '%s' already", config.name);
    if (router->n_vns == ROUTER_VNS_MAX)
        return tv_error_set(err, -ENOSPC, "there are %d networks, and no more are possible", ROUTER_VNS_MAX);
    int r = promises_decide_vn(entry.promises, config.name, params, &promises, unproven, err);
    if (r)
        return r;
    config.rcu = worker_rcu(entry.worker);
    config.env = (struct vn_env){router->loop, wake, entry.worker};
    config.promises = &promises;
    entry.vn = vn_create(&config, params, err);
    return entry.vn ? start_vn(router, &entry, err) : err->code;
}

static void remove_entry(struct router *router, struct entry *entry)
{
    worker_remove_vn(entry->worker, entry->vn);
    promises_leave(entry->promises, entry->vn);
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *port = atomic_load_explicit(&entry->vn->slots[i], memory_order_relaxed);
        if (port)
            vn_remove_port(entry->vn, port, worker_rcu(entry->worker));
    }
    vn_destroy(entry->vn);
    *entry = router->vns[--router->n_vns];
    if (!router->n_vns)
        loop_set_timer(router->timer, 0, 0);
    tell_change(router);
}

int router_remove_vn(struct router *router, const char *name, struct tv_error *err)
{
    struct entry *entry = find_or_tell(router, name, err);
    if (!entry)
        return err->code;
    remove_entry(router, entry);
    return 0;
}

void router_destroy(struct router *router)
{
    if (!router)
        return;
    while (router->n_vns)
        remove_entry(router, &router->vns[router->n_vns - 1]);
    for (unsigned i = 0; i < router->n_workers; i++) {
        worker_destroy(router->workers[i]);
        promises_destroy(router->promises[i]);
    }
    loop_remove(router->timer);
    free(router);
}

int router_add_port(struct router *router, const json_t *params, int fd, json_t *unproven, struct tv_error *err)
{
    const char *vn_name, *name;
    if (params_get_string(params, "vn", NULL, &vn_name, err) || params_get_name(params, "name", PORT_NAME_MAX, &name, err))
        return -EINVAL;
    struct entry *entry = find_or_tell(router, vn_name, err);
    if (!entry)
        return err->code;
    if (vn_find_port(entry->vn, name))
        return tv_error_set(err, -EEXIST, "network '%s' has a port '%s' already", vn_name, name);
    const struct port_env env = worker_port_env(entry->worker);
    struct promise_set promises;
    int r = promises_decide_port(entry->promises, entry->vn, name, params, &promises, unproven, err);
    if (r)
        return r;
    struct vn_port *port = vn_add_port(entry->vn, name, params, fd, &env, &promises, err);
    if (!port)
        return tv_error_prefix(err, "port '%s' of network '%s'", name, vn_name);
    r = promises_join_port(entry->promises, entry->vn, port, err);
    if (r)
        vn_remove_port(entry->vn, port, worker_rcu(entry->worker));
    worker_wake(entry->worker);
    tell_change(router);
    return r;
}

int router_remove_port(struct router *router, const char *vn, const char *name, struct tv_error *err)
{
    struct entry *entry = find_or_tell(router, vn, err);
    struct vn_port *port = entry ? find_port(entry, name, err) : NULL;
    if (!port)
        return err->code;
    promises_leave_port(entry->promises, entry->vn, port);
    vn_remove_port(entry->vn, port, worker_rcu(entry->worker));
    worker_wake(entry->worker); // so that what it knows of the port goes now
    tell_change(router);
    return 0;
}

int router_promise(struct router *router, const char *vn, const char *port, const json_t *promises, bool admitted, json_t *unproven,
                   struct tv_error *err)
{
    struct entry *entry = find_or_tell(router, vn, err);
    struct vn_port *found = entry && port ? find_port(entry, port, err) : NULL;
    if (!entry || (port && !found))
        return err->code;
    int r = promises_change(entry->promises, entry->vn, found, promises, admitted, unproven, err);
    worker_wake(entry->worker);
    return r;
}

json_t *router_list_promises(const struct router *router)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < router->n_workers; i++)
        promises_list(router->promises[i], list);
    return list;
}

int router_command(struct router *router, const char *command, const json_t *params, json_t **result, struct tv_error *err)
{
    const char *name;
    int r = params_get_string(params, "vn", NULL, &name, err);
    struct entry *entry = r ? NULL : find_or_tell(router, name, err);
    if (!entry)
        return err->code;
    const struct vn_command *c = entry->vn->type->commands;
    while (c && c->name && strcmp(c->name, command))
        c++;
    if (!c || !c->name)
        return tv_error_set(err, -EOPNOTSUPP, "network '%s' is of the type %s, which has no %s", name, entry->vn->type->name,
                            command);
    r = c->run(entry->vn, params, result, err);
    worker_wake(entry->worker);
    return r ? tv_error_prefix(err, "network '%s'", name) : 0;
}

// ---- what hosts tell each other ----

#define IDENTITY_MAX 32

static void identify(const struct vn_port *port, const json_t *described, char identity[static IDENTITY_MAX])
{
    snprintf(identity, IDENTITY_MAX, "%s:%d:%d", port->port->kind->name,
             (int)json_integer_value(json_object_get(described, "udp_port")),
             (int)json_integer_value(json_object_get(described, "vni")));
}

// The network's link to the host, and what both call the network.
static struct vn_port *find_link_to(const struct vn *vn, const char *host, char identity[static IDENTITY_MAX])
{
    struct vn_port *found = NULL;
    for (unsigned i = 0; i < VN_PORTS_MAX && !found; i++) {
        struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (!port || !port->port->kind->is_link)
            continue;
        json_t *described = port->port->kind->describe(port->port);
        const char *remote = json_string_value(json_object_get(described, "remote"));
        if (remote && !strcmp(remote, host)) {
            identify(port, described, identity);
            found = port;
        }
        json_decref(described);
    }
    return found;
}

static int run_on(struct vn *vn, const char *command, const json_t *params, json_t **result, struct tv_error *err)
{
    const struct vn_command *c = vn->type->commands;
    while (c && c->name && strcmp(c->name, command))
        c++;
    return c && c->name ? c->run(vn, params, result, err) : -EOPNOTSUPP;
}

static json_t *list_machines(struct vn *vn)
{
    json_t *listed = NULL, *entry, *machines = json_array(), *params = json_object();
    struct tv_error err;
    size_t i;
    run_on(vn, "neighbour.list", params, &listed, &err);
    json_array_foreach(json_object_get(listed, "neighbours"), i, entry)
    {
        if (!strcmp(json_string_value(json_object_get(entry, "state")), "machine"))
            json_array_append_new(machines, json_pack("{s:O, s:O}", "address", json_object_get(entry, "address"), "mac",
                                                      json_object_get(entry, "mac")));
    }
    json_decref(listed);
    json_decref(params);
    return machines;
}

json_t *router_announce(const struct router *router, const char *host)
{
    json_t *networks = json_object();
    char identity[IDENTITY_MAX];
    for (unsigned i = 0; i < router->n_vns; i++)
        if (find_link_to(router->vns[i].vn, host, identity))
            json_object_set_new(networks, identity, list_machines(router->vns[i].vn));
    return networks;
}

static struct entry *find_identity(const struct router *router, const char *host, const char *identity, struct vn_port **port)
{
    char own[IDENTITY_MAX];
    for (unsigned i = 0; i < router->n_vns; i++) {
        *port = find_link_to(router->vns[i].vn, host, own);
        if (*port && !strcmp(own, identity))
            return (struct entry *)&router->vns[i];
    }
    return NULL;
}

uint64_t router_find_link(const struct router *router, const char *host, const char *identity)
{
    struct vn_port *port;
    return find_identity(router, host, identity, &port) ? port->serial : 0;
}

int router_hear(struct router *router, const char *host, const char *identity, const json_t *neighbours, struct tv_error *err)
{
    struct vn_port *port;
    json_t *result = NULL;
    struct entry *entry = find_identity(router, host, identity, &port);
    if (!entry)
        return tv_error_set(err, -ENOENT, "no network has the link %.40s to %s", identity, host);
    json_t *params = json_pack("{s:s, s:O}", "port", port->name, "neighbours", neighbours);
    const int r = run_on(entry->vn, "neighbour.set", params, &result, err);
    json_decref(params);
    json_decref(result);
    worker_wake(entry->worker);
    return r;
}

// ---- looking ----

json_t *router_list(const struct router *router)
{
    json_t *names = json_array();
    for (unsigned i = 0; i < router->n_vns; i++)
        json_array_append_new(names, json_string(router->vns[i].vn->name));
    return names;
}

static json_t *describe_counters(const struct counters *counters)
{
    json_t *drops = json_object();
    for (unsigned i = DROP_NONE + 1; i < DROP_CAUSES; i++)
        json_object_set_new(drops, drop_names[i], json_integer((json_int_t)counter_get(&counters->dropped[i])));
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "received_packets", (json_int_t)counter_get(&counters->received_packets),
                     "received_bytes", (json_int_t)counter_get(&counters->received_bytes), "sent_packets",
                     (json_int_t)counter_get(&counters->sent_packets), "sent_bytes", (json_int_t)counter_get(&counters->sent_bytes),
                     "drops", drops);
}

static json_t *describe_port(const struct entry *entry, const struct vn_port *port)
{
    const struct vn *vn = entry->vn;
    json_t *json = describe_counters(&port->counters);
    json_object_set_new(json, "name", json_string(port->name));
    json_object_set_new(json, "kind", json_string(port->port->kind->name));
    json_object_update_new(json, vn->type->describe_port(port));
    if (port->port->kind->describe)
        json_object_update_new(json, port->port->kind->describe(port->port));
    if (port->punt)
        json_object_set_new(json, "punt", describe_counters(&port->punt->counters));
    json_object_set_new(json, "cycles", json_integer((json_int_t)counter_get(&port->pace.usage.cycles)));
    promises_describe(entry->promises, vn, port, json);
    return json;
}

// [[ns, packets], ...]: of each bucket that is not empty its largest value.
static json_t *describe_latency(const struct vn *vn)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        const uint64_t n = counter_get(&vn->latency[i]);
        const uint64_t ns = (uint64_t)((unsigned __int128)latency_largest_in(i) * NS_PER_S / vn->pace.hz);
        if (n)
            json_array_append_new(list, json_pack("[I, I]", (json_int_t)ns, (json_int_t)n));
    }
    return list;
}

json_t *router_stat_vn(const struct router *router, const char *name, struct tv_error *err)
{
    const struct entry *entry = find_or_tell(router, name, err);
    if (!entry)
        return NULL;
    struct vn *vn = entry->vn;
    json_t *ports = json_array();
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        const struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        if (port && !port->punts_for)
            json_array_append_new(ports, describe_port(entry, port));
    }
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "name", vn->name, "type", vn->type->name, "weight",
                  (json_int_t)atomic_load(&vn->terms.weight), "cycles", (json_int_t)counter_get(&vn->pace.usage.cycles), "buffers",
                  (json_int_t)vn->n_buffers, "buffers_used", (json_int_t)rte_mempool_in_use_count(vn->pool), "ports", ports);
    json_object_update_new(json, vn->type->describe(vn));
    promises_describe(entry->promises, vn, NULL, json);
    json_object_set_new(json, "latency", describe_latency(vn));
    return json;
}

json_t *router_stat(const struct router *router)
{
    json_t *workers = json_array();
    for (unsigned i = 0; i < router->n_workers; i++)
        json_array_append_new(workers, worker_describe(router->workers[i]));
    return json_pack("{s:i, s:o}", "networks", (int)router->n_vns, "workers", workers);
}

json_t *router_trace(struct router *router, const char *vn, const char *port, const uint8_t *frame, size_t len_bytes,
                     struct tv_error *err)
{
    struct entry *entry = find_or_tell(router, vn, err);
    struct vn_port *in = entry ? find_port(entry, port, err) : NULL;
    return in ? trace_run(entry->vn, in, frame, len_bytes) : NULL;
}

int router_set_capture(struct router *router, const char *vn, const char *port, struct capture *capture, struct tv_error *err)
{
    const struct entry *entry = find_or_tell(router, vn, err);
    return entry ? vn_set_capture(entry->vn, port, capture, err) : err->code;
}

void router_clear_capture(struct router *router, const char *vn, const struct capture *capture)
{
    const struct entry *entry = find(router, vn);
    if (entry)
        vn_clear_capture(entry->vn, capture);
}

// ---- the far ends of rings ----

static struct entry *find_far_end(struct router *router, const char *vn, const char *name, struct port **port, struct tv_error *err)
{
    struct entry *entry = find_or_tell(router, vn, err);
    struct vn_port *found = entry ? find_port(entry, name, err) : NULL;
    if (!found)
        return NULL;
    *port = found->port;
    if ((*port)->kind->put)
        return entry;
    tv_error_set(err, -EOPNOTSUPP, "port '%s' is of the kind %s; frames can be put into and taken from rings", name,
                 (*port)->kind->name);
    return NULL;
}

int router_put(struct router *router, const char *vn, const char *port, const void *frame, size_t len_bytes, struct tv_error *err)
{
    struct port *end;
    struct entry *entry = find_far_end(router, vn, port, &end, err);
    if (!entry)
        return err->code;
    int r = end->kind->put(end, frame, len_bytes);
    if (r)
        return tv_error_set(err, r, "port '%s' has no room for another frame", port);
    worker_wake(entry->worker);
    return 0;
}

int router_take(struct router *router, const char *vn, const char *port, void *frame, size_t max_bytes, struct tv_error *err)
{
    struct port *end;
    struct entry *entry = find_far_end(router, vn, port, &end, err);
    return entry ? end->kind->take(end, frame, max_bytes) : err->code;
}
