// Networks: what trivetd records of them, and what it asks of the router: see daemon.h.
//
// A change is recorded as unsettled before the router is asked, and as settled when it has agreed; what it refuses is taken back.
// So whoever comes after a trivetd that was killed in between knows which network to give to the router anew. A router that was
// started again, and one that was taken over, are both asked what they have, and get what is missing.
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/net/gateway.h"
#include "control/net/host_spec.h"
#include "control/net/net_spec.h"
#include "promise/promise.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL_TIMEOUT_MS 60000

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static void refuse(struct rpc_request *req, int rpc_code, int code, const char *format, const char *word)
{
    struct tv_error err = {0};
    tv_error_set(&err, code, format, word);
    rpc_reply_error(req, rpc_code, &err);
}

struct daemon_net *net_find(const struct daemon *d, const char *name)
{
    for (struct daemon_net *n = d->nets; n; n = n->next)
        if (strcmp(net_spec_name(n->spec), name) == 0)
            return n;
    return NULL;
}

// Takes the specification.
static struct daemon_net *add(struct daemon *d, json_t *spec)
{
    struct daemon_net *n = calloc(1, sizeof(*n)), **at = &d->nets;
    if (!n) {
        json_decref(spec);
        return NULL;
    }
    n->spec = spec;
    n->daemon = d;
    daemon_gateway_adopt(n);
    while (*at && strcmp(net_spec_name((*at)->spec), net_spec_name(spec)) < 0)
        at = &(*at)->next;
    n->next = *at;
    *at = n;
    return n;
}

static void drop(struct daemon *d, struct daemon_net *n)
{
    struct daemon_net **at = &d->nets;
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    daemon_gateway_leave(n);
    json_decref(n->spec);
    free(n);
}

void net_load(struct daemon *d, json_t *spec, bool is_settled)
{
    struct daemon_net *n = add(d, spec);
    if (!n)
        return;
    n->state = NET_MAKING;
    if (!is_settled)
        n->state = NET_FAILED; // the router is to get it anew, whatever it has
}

void net_free_all(struct daemon *d)
{
    while (d->nets)
        drop(d, d->nets);
}

// --- asking the router

// What is asked about one network together; it ends with the last answer, and the first error is what counts. Freed then.
struct work {
    struct daemon *daemon;
    char name[NET_NAME_MAX + 1];
    unsigned open; // answers still to come, and one until all has been asked
    struct tv_error err;
    void (*done)(struct work *w); // NULL: nothing follows
    struct rpc_request *req;      // who waits; may be NULL
    json_t *before, *after;       // specifications; NULL: there was, or will be, none
    json_t *answer;               // for req
};

static struct work *begin(struct daemon *d, const char *name, void (*done)(struct work *w))
{
    struct work *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->daemon = d;
    w->done = done;
    w->open = 1;
    snprintf(w->name, sizeof(w->name), "%s", name);
    return w;
}

static void end(struct work *w)
{
    if (--w->open)
        return;
    if (w->done)
        w->done(w);
    json_decref(w->before);
    json_decref(w->after);
    json_decref(w->answer);
    free(w);
}

// A person needs to know which process it was, and where it wrote down why.
static void note_error(struct work *w, const struct tv_error *said)
{
    if (w->err.code)
        return;
    if (said->code == -ECANCELED || said->code == -ECONNRESET || said->code == -ENOTCONN)
        tv_error_set(&w->err, -EIO, "network '%s': the router has died; its log is %s/router.log", w->name, w->daemon->state_dir);
    else if (said->code == -ETIMEDOUT)
        tv_error_set(&w->err, -ETIMEDOUT, "network '%s': the router does not answer; `kill -9 %d` has it started again", w->name,
                     (int)w->daemon->router.worker.pid);
    else
        w->err = *said;
    if (!strstr(w->err.text, "network '"))
        tv_error_prefix(&w->err, "network '%s'", w->name);
}

static void answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct work *w = arg;
    const json_t *unproven = json_object_get(result, "unproven");
    if (!result)
        note_error(w, err);
    if (w->answer && json_array_size(unproven)) {
        if (!json_object_get(w->answer, "unproven"))
            json_object_set_new(w->answer, "unproven", json_array());
        json_array_extend(json_object_get(w->answer, "unproven"), (json_t *)unproven);
    }
    end(w);
}

static void answered_whatever(void *arg, const json_t *result, const struct tv_error *err)
{
    (void)result, (void)err; // that there is no such thing is as good
    end(arg);
}

// Takes params; fd goes with it, unless it is -1.
static void ask_with(struct work *w, const char *method, json_t *params, int fd, rpc_answer_fn *fn)
{
    struct rpc_conn *control = w->daemon->router_control;
    const int rc = control ? rpc_call_async(control, method, params, &fd, fd >= 0, CALL_TIMEOUT_MS, fn, w) : -ENOTCONN;
    if (!control)
        json_decref(params);
    if (!rc) {
        w->open++;
        return;
    }
    const struct tv_error err = {.code = rc == -EMSGSIZE ? rc : -ENOTCONN, .text = "more than one line of control takes"};
    note_error(w, &err);
}

static void ask_for(struct work *w, const char *method, json_t *params, rpc_answer_fn *fn)
{
    ask_with(w, method, params, -1, fn);
}

static void ask(struct work *w, const char *method, json_t *params)
{
    ask_for(w, method, params, answered);
}

static void ask_to_remove(struct work *w)
{
    ask_for(w, "vn.remove", json_pack("{s:s}", "name", w->name), answered_whatever);
}

// A port of a machine's kind has its socket in our folder, unless it is said where.
static json_t *port_params(struct work *w, const json_t *spec, const json_t *port)
{
    json_t *params = net_spec_port(spec, port, w->daemon->host_word);
    char path[PATH_MAX];
    struct tv_error err = {0};
    if (strcmp(text(port, "kind"), "vhost") != 0 || text(port, "socket"))
        return params;
    if (router_process_port_path(&w->daemon->router, w->name, text(port, "name"), path, &err))
        note_error(w, &err);
    json_object_set_new(params, "socket", json_string(path));
    return params;
}

static void ask_for_routes(struct work *w, const char *method, const json_t *routes)
{
    if (json_array_size(routes))
        ask(w, method, json_pack("{s:s, s:O}", "vn", w->name, "routes", routes));
}

// Work that waits for its gateway.
struct gateway_wait {
    struct work *work;
    json_t *spec;
};

static void gateway_opened(void *arg, int fd, const struct tv_error *err)
{
    struct gateway_wait *wait = arg;
    struct work *w = wait->work;
    struct gateway gateway;
    if (fd < 0) {
        note_error(w, err);
    } else {
        gateway_init(&gateway, w->daemon->run_dir, wait->spec);
        cleanup_json json_t *port = gateway_port(&gateway), *routes = gateway_routes(&gateway);
        ask_with(w, "port.add", net_spec_port(wait->spec, port, ""), fd, answered);
        ask_for_routes(w, "route.add", routes);
    }
    json_decref(wait->spec);
    free(wait);
    end(w);
}

// The port that leads to the gateway. anew: whatever there is of it goes first.
static void ask_for_gateway(struct work *w, json_t *spec, bool anew)
{
    struct daemon_net *n = net_find(w->daemon, w->name);
    const struct tv_error no_memory = {.code = -ENOMEM, .text = "no memory"};
    if (!n || !json_object_get(spec, "services"))
        return;
    struct gateway_wait *wait = calloc(1, sizeof(*wait));
    if (!wait) {
        note_error(w, &no_memory);
        return;
    }
    *wait = (struct gateway_wait){.work = w, .spec = json_incref(spec)};
    w->open++;
    daemon_gateway_open(n, anew, gateway_opened, wait);
}

// All ports but machines' and the gateway's: those that are said, and those of its link.
static json_t *wanted_ports(struct work *w, const json_t *spec)
{
    cleanup_json json_t *links = NULL;
    struct tv_error err = {0};
    json_t *ports = json_copy(json_object_get(spec, "ports"));
    if (host_spec_links(w->daemon->host, spec, &links, &err))
        note_error(w, &err);
    json_array_extend(ports, links);
    return ports;
}

// The whole of it, to a router that has none of that name. Machines' ports come with their machines.
static void ask_to_make(struct work *w, json_t *spec, bool anew)
{
    size_t i;
    json_t *port;
    cleanup_json json_t *ports = wanted_ports(w, spec);
    ask(w, "vn.add", net_spec_vn(spec));
    json_array_foreach(ports, i, port) ask(w, "port.add", port_params(w, spec, port));
    ask_for_gateway(w, spec, anew);
    ask_for_routes(w, "route.add", json_object_get(spec, "routes"));
}

static void bring_machines_back(struct daemon *d, const char *name)
{
    for (struct daemon_machine *m = d->machines; m; m = m->next)
        daemon_nic_away(m, name);
}

static void settle(struct work *w)
{
    struct daemon_net *n = net_find(w->daemon, w->name);
    if (!n)
        return;
    n->state = w->err.code ? NET_FAILED : NET_UP;
    snprintf(n->reason, sizeof(n->reason), "%.255s", w->err.code ? w->err.text : "");
    if (w->err.code)
        log_event(LOG_WARN, "trivetd", "network not made", LOG_STR("network", w->name), LOG_STR("error", w->err.text));
    if (!w->err.code) {
        bring_machines_back(w->daemon, w->name);
        daemon_gateway_refresh(n);
    }
}

// --- what the router should have

static bool is_machines(const struct daemon *d, const char *network, const char *port)
{
    const struct daemon_machine *m = machine_find(d, port);
    for (unsigned i = 0; m && i < m->spec.n_nics; i++)
        if (strcmp(m->spec.nics[i].network, network) == 0)
            return m->worker.pid != 0;
    return false;
}

static bool has_named(const json_t *list, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const char *own = json_is_string(entry) ? json_string_value(entry) : text(entry, "name");
        if (own && strcmp(own, name) == 0)
            return true;
    }
    return false;
}

// A machine's port that a router lost which goes on: nobody has seen that yet, but it makes sure.
static void find_lost_nics(struct work *w, const json_t *there)
{
    for (struct daemon_machine *m = w->daemon->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_nics && m->worker.pid; i++)
            if (strcmp(m->spec.nics[i].network, w->name) == 0 && !has_named(there, m->spec.name))
                m->nic_away[i] = true;
}

static void compare_ports(struct work *w, const json_t *there)
{
    const struct daemon_net *n = net_find(w->daemon, w->name);
    size_t i;
    json_t *port;
    if (!n)
        return;
    cleanup_json json_t *wanted = wanted_ports(w, n->spec);
    json_array_foreach(there, i, port)
    {
        const char *name = text(port, "name");
        if (name && strcmp(name, GATEWAY_PORT) != 0 && !has_named(wanted, name) && !is_machines(w->daemon, w->name, name))
            ask(w, "port.remove", json_pack("{s:s, s:s}", "vn", w->name, "name", name));
    }
    json_array_foreach(wanted, i, port)
    {
        if (!has_named(there, text(port, "name")))
            ask(w, "port.add", port_params(w, n->spec, port));
    }
    if (!has_named(there, GATEWAY_PORT))
        ask_for_gateway(w, n->spec, false);
    ask_for_routes(w, "route.add", json_object_get(n->spec, "routes"));
    find_lost_nics(w, there);
}

static void ports_told(void *arg, const json_t *result, const struct tv_error *err)
{
    struct work *w = arg;
    if (result)
        compare_ports(w, json_object_get(result, "ports"));
    else
        note_error(w, err);
    end(w);
}

static void restore_one(struct daemon *d, struct daemon_net *n, const json_t *there)
{
    struct work *w = begin(d, net_spec_name(n->spec), settle);
    if (!w)
        return;
    const bool is_there = has_named(there, w->name);
    if (is_there && n->state != NET_FAILED) {
        ask_for(w, "vn.stat", json_pack("{s:s}", "name", w->name), ports_told);
    } else {
        if (is_there)
            ask_to_remove(w);
        ask_to_make(w, n->spec, n->state == NET_FAILED); // one that was being made may be there in part
        for (struct daemon_machine *m = d->machines; m; m = m->next)
            for (unsigned i = 0; i < m->spec.n_nics && m->worker.pid; i++)
                m->nic_away[i] |= strcmp(m->spec.nics[i].network, w->name) == 0;
        bring_machines_back(d, w->name); // the router answers in order, and other networks take their time
    }
    database_put_network(d->db, n->spec, true, NULL);
    end(w);
}

static bool has_machines(const struct daemon *d, const struct daemon_net *n)
{
    for (const struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_nics && m->worker.pid; i++)
            if (strcmp(m->spec.nics[i].network, net_spec_name(n->spec)) == 0)
                return true;
    return false;
}

static void networks_told(void *arg, const json_t *result, const struct tv_error *err)
{
    struct daemon *d = arg;
    size_t i;
    json_t *name;
    (void)err; // it died; the next one is asked
    if (!result)
        return;
    json_array_foreach(result, i, name)
    {
        struct work *w = net_find(d, json_string_value(name)) ? NULL : begin(d, json_string_value(name), NULL);
        if (!w)
            continue;
        ask_to_remove(w);
        end(w);
    }
    // What others need first, then where somebody waits.
    for (unsigned rank = 0; rank < 3; rank++)
        for (struct daemon_net *n = d->nets; n; n = n->next)
            if (rank == (net_spec_is_underlay(n->spec) ? 0 : has_machines(d, n) ? 1 : 2))
                restore_one(d, n, result);
}

static bool has_same(const json_t *a, const json_t *b, const char *key)
{
    return json_equal(json_object_get(a, key), json_object_get(b, key));
}

// Ports come and go with peers. Where links stay and lead elsewhere, the network is made anew; so it is recorded as unsettled.
void net_host_changed(struct daemon *d, const json_t *before)
{
    struct tv_error none = {0};
    for (struct daemon_net *n = d->nets; n; n = n->next) {
        cleanup_json json_t *were = NULL, *are = NULL;
        size_t i, j;
        json_t *was, *is;
        bool moved = false;
        if (!json_object_get(n->spec, "link") || host_spec_links(before, n->spec, &were, &none) ||
            host_spec_links(d->host, n->spec, &are, &none))
            continue;
        json_array_foreach(were, i, was) json_array_foreach(are, j, is) moved |= has_same(was, is, "name") && !json_equal(was, is);
        if (!moved)
            continue;
        database_put_network(d->db, n->spec, false, NULL);
        n->state = NET_FAILED;
    }
    net_restore(d);
}

void net_restore(struct daemon *d)
{
    if (d->router_control)
        rpc_call_async(d->router_control, "vn.list", json_object(), NULL, 0, CALL_TIMEOUT_MS, networks_told, d);
}

void net_router_died(struct daemon *d)
{
    for (struct daemon_net *n = d->nets; n; n = n->next)
        if (n->state == NET_UP)
            n->state = NET_MAKING;
    for (struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_nics && m->worker.pid; i++)
            m->nic_away[i] = true;
}

// --- looking

static json_t *addresses_of(const struct nic_spec *nic)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < nic->n_addresses; i++)
        json_array_append_new(list, json_string(nic->addresses[i]));
    return list;
}

static json_t *describe(const struct daemon *d, const struct daemon_net *n)
{
    static const char *const states[] = {"starting", "up", "failed"};
    json_t *machines = json_array();
    for (const struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_nics; i++)
            if (strcmp(m->spec.nics[i].network, net_spec_name(n->spec)) == 0)
                json_array_append_new(machines,
                                      json_pack("{s:s, s:b, s:s, s:o}", "name", m->spec.name, "running", m->worker.pid != 0, "mac",
                                                m->spec.nics[i].mac, "addresses", addresses_of(&m->spec.nics[i])));
    json_t *json = json_pack("{s:s, s:s, s:s, s:O, s:O, s:i, s:o}", "name", net_spec_name(n->spec), "type", text(n->spec, "type"),
                             "state", states[n->state], "prefixes", json_object_get(n->spec, "prefixes"), "gateways",
                             json_object_get(n->spec, "gateways"), "ports", (int)json_array_size(json_object_get(n->spec, "ports")),
                             "machines", machines);
    if (text(n->spec, "tenant"))
        json_object_set(json, "tenant", json_object_get(n->spec, "tenant"));
    if (json_object_get(n->spec, "services")) {
        struct gateway gateway;
        gateway_init(&gateway, d->run_dir, n->spec);
        json_object_set_new(json, "namespace", json_string(gateway.space));
        json_object_set_new(json, "dnsmasq_pid", json_integer(n->dnsmasq.pid)); // 0: none
    }
    if (n->state == NET_FAILED && n->reason[0])
        json_object_set_new(json, "reason", json_string(n->reason));
    if (json_object_get(n->spec, "link")) {
        json_t *links;
        struct tv_error none = {0};
        host_spec_links(d->host, n->spec, &links, &none);
        json_object_set_new(json, "links", links);
    }
    return json;
}

void daemon_net_list(void *arg, struct rpc_request *req, const json_t *params)
{
    const struct daemon *d = arg;
    json_t *networks = json_array();
    (void)params;
    for (const struct daemon_net *n = d->nets; n; n = n->next)
        json_array_append_new(networks, describe(d, n));
    rpc_reply(req, json_pack("{s:o}", "networks", networks));
}

// The network named by "name"; NULL when the request has been answered with what is wrong.
static struct daemon_net *need_net(struct daemon *d, struct rpc_request *req, const json_t *params)
{
    const char *name = text(params, "name");
    struct daemon_net *n = name ? net_find(d, name) : NULL;
    if (!n)
        refuse(req, RPC_FAILED, -ENOENT, "there is no network '%s'; `trivet net list` shows them", name ? name : "");
    return n;
}

void daemon_net_get(void *arg, struct rpc_request *req, const json_t *params)
{
    const struct daemon *d = arg;
    const struct daemon_net *n = need_net(arg, req, params);
    if (!n)
        return;
    json_t *json = describe(d, n);
    json_object_set(json, "spec", n->spec);
    daemon_host_add_state(arg, req, json);
}

// --- making and changing

// The router has refused what was to be: it is as it was.
static void take_back(struct work *w)
{
    struct daemon *d = w->daemon;
    struct daemon_net *n = net_find(d, w->name);
    struct work *back = begin(d, w->name, w->before ? settle : NULL);
    if (n)
        daemon_gateway_remove(n, n->spec);
    if (n && w->before) {
        json_decref(n->spec);
        n->spec = json_incref(w->before);
        database_put_network(d->db, n->spec, true, NULL);
    } else if (n) {
        drop(d, n);
        database_delete_network(d->db, w->name, NULL);
    }
    if (!back)
        return;
    ask_to_remove(back); // if the router cannot be asked, it is to get the network anew when it can
    if (w->before)
        ask_to_make(back, w->before, true);
    end(back);
}

static void applied(struct work *w)
{
    if (w->err.code) {
        take_back(w);
        rpc_reply_error(w->req, RPC_FAILED, &w->err);
        return;
    }
    settle(w);
    database_put_network(w->daemon->db, w->after, true, NULL);
    rpc_reply(w->req, json_incref(w->answer));
}

// Takes the specification and the answer. n: what there is; NULL: nothing yet.
static int begin_change(struct daemon *d, struct daemon_net *n, json_t *spec, struct rpc_request *req, json_t *answer,
                        struct work **work, struct tv_error *err)
{
    cleanup_json json_t *after = spec, *said = answer;
    int rc = daemon_router_need(d, err);
    struct work *w = rc ? NULL : begin(d, net_spec_name(after), applied);
    if (!rc && !w)
        rc = tv_error_set(err, -ENOMEM, "no memory");
    if (!rc)
        rc = database_put_network(d->db, after, false, err);
    if (!rc && !n && !add(d, json_incref(after)))
        rc = tv_error_set(err, -ENOMEM, "no memory");
    if (rc) {
        free(w);
        return rc;
    }
    w->req = req;
    w->answer = json_incref(said);
    w->after = json_incref(after);
    if (n) {
        w->before = n->spec;
        n->spec = json_incref(after);
    }
    *work = w;
    return 0;
}

static bool is_settled(const struct daemon_net *n, struct rpc_request *req)
{
    if (n->state != NET_MAKING)
        return true;
    refuse(req, RPC_FAILED, -EBUSY, "network '%s' is just being made; try again", net_spec_name(n->spec));
    return false;
}

// The router has decided: a refusal has changed nothing there.
static void promised(struct work *w)
{
    struct daemon_net *n = net_find(w->daemon, w->name);
    if (w->err.code) {
        if (n) {
            json_decref(n->spec);
            n->spec = json_incref(w->before);
            if (w->err.code == -EIO)
                n->state = NET_FAILED; // it may have done it, and gets the network anew
        }
        database_put_network(w->daemon->db, w->before, true, NULL);
        rpc_reply_error(w->req, RPC_FAILED, &w->err);
        return;
    }
    database_put_network(w->daemon->db, w->after, true, NULL);
    rpc_reply(w->req, json_incref(w->answer));
}

// As vn.add has them: the weight may stand beside the promises. The text is the set's, for vn.promise, which has no other place for
// it.
static int promises_of(const json_t *spec, char said[static PROMISE_SET_TEXT_MAX], struct tv_error *err)
{
    const json_t *options = json_object_get(spec, "options"), *weight = json_object_get(options, "weight");
    const char *promises = text(options, "promises");
    struct promise_set set = {.resource = PROMISE_LINK};
    char number[24];
    int rc = promises ? promise_set_parse(&set, PROMISE_LINK, promises, err) : 0;
    snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(weight));
    if (!rc && weight)
        rc = promise_set_add(&set, "weight", number, err);
    promise_set_format(&set, said);
    return rc;
}

// Nothing else has changed: it need not be made anew.
static bool differs_in_promises_only(const json_t *a, const json_t *b)
{
    cleanup_json json_t *ja = json_deep_copy(a), *jb = json_deep_copy(b);
    json_object_del(json_object_get(ja, "options"), "promises");
    json_object_del(json_object_get(jb, "options"), "promises");
    return json_equal(ja, jb);
}

// {"spec", "dry": bool}: makes the network, or changes it, which makes it anew unless it is about promises alone; "dry" only says
// what would be done. Answers {"result"} and, where promises are taken on trust, "unproven".
void daemon_net_apply(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    struct work *w;
    json_t *spec;
    if (net_spec_check(json_object_get(params, "spec"), &spec, &err)) {
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        return;
    }
    struct daemon_net *n = net_find(d, net_spec_name(spec));
    cleanup_json json_t *links = NULL;
    if (host_spec_links(d->host, spec, &links, &err)) {
        json_decref(spec);
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    const bool is_same = n && json_equal(n->spec, spec) && n->state != NET_FAILED;
    const char *result = !n ? "created" : is_same ? "unchanged" : "changed";
    if (is_same || json_is_true(json_object_get(params, "dry"))) {
        json_decref(spec);
        rpc_reply(req, json_pack("{s:s}", "result", result));
        return;
    }
    if (n && !is_settled(n, req)) {
        json_decref(spec);
        return;
    }
    if (begin_change(d, n, spec, req, json_pack("{s:s}", "result", result), &w, &err)) {
        daemon_consider_end(d);
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    if (n && n->state == NET_UP && differs_in_promises_only(w->before, w->after)) {
        char said[PROMISE_SET_TEXT_MAX];
        w->done = promised;
        if (promises_of(w->after, said, &err))
            note_error(w, &err);
        else
            ask(w, "vn.promise", json_pack("{s:s, s:s}", "name", w->name, "promises", said));
        end(w);
        return;
    }
    if (n) {
        ask_to_remove(w);
        daemon_gateway_remove(n, w->before);
    }
    ask_to_make(w, w->after, true);
    if (n) {
        n->state = NET_MAKING;
        for (struct daemon_machine *m = d->machines; m; m = m->next)
            for (unsigned i = 0; i < m->spec.n_nics && m->worker.pid; i++)
                m->nic_away[i] |= strcmp(m->spec.nics[i].network, w->name) == 0;
    }
    end(w);
}

struct removal {
    struct daemon *daemon;
    struct rpc_request *req;
    char name[NET_NAME_MAX + 1];
};

// Its gateway has gone, too. Until then it is on record: whoever comes after a trivetd that was killed has it, and all of it.
static void removed(void *arg, const struct tv_error *none)
{
    struct removal *r = arg;
    struct tv_error err = {0};
    (void)none;
    if (!net_find(r->daemon, r->name) && database_delete_network(r->daemon->db, r->name, &err))
        rpc_reply_error(r->req, RPC_FAILED, &err);
    else
        rpc_reply(r->req, json_pack("{s:b}", "ends", daemon_consider_end(r->daemon)));
    free(r);
}

// {"name"}. Answers {"ends": bool}: trivetd ends with this.
void daemon_net_remove(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct daemon_net *n = need_net(d, req, params);
    struct tv_error err = {0};
    if (!n)
        return;
    for (const struct daemon_machine *m = d->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_nics; i++)
            if (strcmp(m->spec.nics[i].network, net_spec_name(n->spec)) == 0) {
                tv_error_set(&err, -EBUSY, "network '%s': machine '%s' has its place in it; remove that first",
                             net_spec_name(n->spec), m->spec.name);
                rpc_reply_error(req, RPC_FAILED, &err);
                return;
            }
    struct work *w = begin(d, net_spec_name(n->spec), NULL);
    struct removal *removal = calloc(1, sizeof(*removal));
    if (!w || !removal)
        tv_error_set(&err, -ENOMEM, "no memory");
    if (!w || !removal || database_put_network(d->db, n->spec, false, &err)) {
        free(w);
        free(removal);
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    *removal = (struct removal){.daemon = d, .req = req};
    snprintf(removal->name, sizeof(removal->name), "%s", w->name);
    daemon_gateway_remove(n, n->spec);
    drop(d, n);
    if (d->nets) // with the last one the router goes
        ask_to_remove(w);
    end(w);
    daemon_gateway_work(d, GATEWAY_NOTHING, NULL, removed, removal);
}

// --- ports and routes, one by one

static json_t *without(const json_t *list, const char *id, const char *name)
{
    json_t *rest = json_array(), *entry;
    size_t i;
    json_array_foreach(list, i, entry)
    {
        if (strcmp(text(entry, id), name) != 0)
            json_array_append(rest, entry);
    }
    return rest;
}

static void changed(struct work *w)
{
    struct daemon_net *n = net_find(w->daemon, w->name);
    if (w->err.code && n && w->before) { // the router did none of it
        json_decref(n->spec);
        n->spec = json_incref(w->before);
        database_put_network(w->daemon->db, n->spec, true, NULL);
    }
    if (w->err.code) {
        rpc_reply_error(w->req, RPC_FAILED, &w->err);
        return;
    }
    if (n)
        database_put_network(w->daemon->db, n->spec, true, NULL);
    rpc_reply(w->req, json_incref(w->answer));
}

// The network with `list` for its `key`. Takes list. NULL when the request has been answered.
static struct work *change_list(struct daemon *d, struct daemon_net *n, const char *key, json_t *list, struct rpc_request *req)
{
    struct tv_error err = {0};
    struct work *w;
    json_t *spec = json_copy(n->spec);
    json_object_set_new(spec, key, list);
    if (!is_settled(n, req)) {
        json_decref(spec);
        return NULL;
    }
    if (begin_change(d, n, spec, req, json_object(), &w, &err)) {
        rpc_reply_error(req, RPC_FAILED, &err);
        return NULL;
    }
    w->done = changed;
    return w;
}

// {"name", "port": {...}}: answers {"socket"} for a machine's kind.
void daemon_net_attach(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_net *n = need_net(arg, req, params);
    struct tv_error err = {0};
    json_t *port = NULL;
    if (!n)
        return;
    int rc = net_spec_check_port(json_object_get(params, "port"), &port, &err);
    const json_t *ports = json_object_get(n->spec, "ports");
    if (!rc && has_named(ports, text(port, "name")))
        rc = tv_error_set(&err, -EEXIST, "network '%s' has a port '%s' already", net_spec_name(n->spec), text(port, "name"));
    if (rc) {
        json_decref(port);
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    json_t *list = json_copy((json_t *)ports);
    json_array_append(list, port);
    struct work *w = change_list(arg, n, "ports", list, req);
    if (w) {
        json_t *asked = port_params(w, n->spec, port);
        if (text(asked, "socket"))
            json_object_set(w->answer, "socket", json_object_get(asked, "socket"));
        ask(w, "port.add", asked);
        end(w);
    }
    json_decref(port);
}

// {"name", "port": NAME}
void daemon_net_detach(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_net *n = need_net(arg, req, params);
    const char *port = text(params, "port");
    if (!n)
        return;
    if (!port || !has_named(json_object_get(n->spec, "ports"), port)) {
        struct tv_error err = {0};
        tv_error_set(&err, -ENOENT, "network '%s' has no port '%s' of its own; those of machines come and go with them",
                     net_spec_name(n->spec), port ? port : "");
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    struct work *w = change_list(arg, n, "ports", without(json_object_get(n->spec, "ports"), "name", port), req);
    if (!w)
        return;
    ask(w, "port.remove", json_pack("{s:s, s:s}", "vn", w->name, "name", port));
    end(w);
}

// {"name", "add": {...}} or {"name", "remove": PREFIX}
void daemon_net_route(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_net *n = need_net(arg, req, params);
    struct tv_error err = {0};
    json_t *route = NULL, *list = NULL;
    if (!n)
        return;
    const json_t *add = json_object_get(params, "add"), *routes = json_object_get(n->spec, "routes");
    const char *prefix = text(params, "remove");
    int rc = 0;
    if (!net_spec_routes(n->spec))
        rc = tv_error_set(&err, -EINVAL, "network '%s' is of the type ethernet, which has no routes", net_spec_name(n->spec));
    else if (!add == !prefix)
        rc = tv_error_set(&err, -EINVAL, "net.route takes one of: add, a route; remove, a prefix");
    else if (add)
        rc = net_spec_check_route(add, &route, &err);
    else if (json_array_size(list = without(routes, "prefix", prefix)) == json_array_size(routes))
        rc = tv_error_set(&err, -ENOENT, "network '%s' has no route '%s' of its own; `trivet net show` tells which it has",
                          net_spec_name(n->spec), prefix);
    if (rc) {
        json_decref(list);
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    if (add) {
        list = without(routes, "prefix", text(route, "prefix"));
        json_array_append(list, route);
    }
    struct work *w = change_list(arg, n, "routes", list, req);
    if (w && add)
        ask(w, "route.add", json_pack("{s:s, s:[O]}", "vn", w->name, "routes", route));
    else if (w)
        ask(w, "route.remove", json_pack("{s:s, s:[s]}", "vn", w->name, "routes", prefix));
    if (w)
        end(w);
    json_decref(route);
}

// --- passing on to the router

static void passed(void *arg, const json_t *result, const struct tv_error *err)
{
    if (result)
        rpc_reply(arg, json_deep_copy(result));
    else
        rpc_reply_error(arg, RPC_FAILED, err);
}

static bool may_pass(const char *method)
{
    static const char *const methods[] = {"vn.stat",     "route.list",    "neighbour.list", "port.put", "port.take",
                                          "router.stat", "capture.start", "capture.stop",   "trace",    NULL};
    for (const char *const *m = methods; method && *m; m++)
        if (strcmp(*m, method) == 0)
            return true;
    return false;
}

// {"name", "method", "params"}: a method of the router's that looks, on this network.
void daemon_net_call(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    const struct daemon_net *n = need_net(d, req, params);
    const char *method = text(params, "method");
    if (!n)
        return;
    if (!may_pass(method)) {
        refuse(req, RPC_BAD_PARAMS, -EINVAL, "'%s' is none of the methods that are passed on to the router", method ? method : "");
        return;
    }
    if (!d->router_control) {
        refuse(req, RPC_FAILED, -ESRCH, "network '%s': the router is not up again yet; its log is router.log in the state folder",
               net_spec_name(n->spec));
        return;
    }
    json_t *inner = json_deep_copy(json_object_get(params, "params"));
    if (!inner)
        inner = json_object();
    json_object_set(inner, strcmp(method, "vn.stat") == 0 ? "name" : "vn", json_object_get(n->spec, "name"));
    const int fd = rpc_request_take_fd(req, 0);
    const int rc = rpc_call_async(d->router_control, method, inner, &fd, fd >= 0, CALL_TIMEOUT_MS, passed, req);
    if (fd >= 0)
        close(fd);
    if (rc)
        refuse(req, RPC_FAILED, rc, "the router cannot be asked: %s", strerror(-rc));
}
