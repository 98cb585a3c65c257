// Promises on the disks and network cards of machines, and what is told of these and of networks', as trivetd has them: see
// daemon.h.
//
// A machine's specification says what its disks and cards are promised; a disk gets it whenever it is given to the store, a card
// with its port of the router. Of a machine that runs these are asked first, port by port and then the store for all disks; when
// one refuses, ports that had agreed get what they had.
#include "control/cleanup.h"
#include "control/daemon/daemon.h"

#include "base/log.h"
#include "promise/archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHANGE_TIMEOUT_MS 10000
#define LOOK_TIMEOUT_MS 1000 // as for counters

// A change of machines, for all of them or none, on its way to the router and the store.
struct promising {
    struct daemon *daemon;
    struct rpc_request *req;
    json_t *ports;    // [{"vn", "name", "promises", "before"}]
    size_t n_agreed;  // of these
    json_t *disks;    // label -> promises
    json_t *unproven; // what is taken on trust
    size_t n;
    struct machine_spec specs[]; // as they are to be
};

static void fail(struct rpc_request *req, const struct tv_error *err)
{
    rpc_reply_error(req, RPC_FAILED, err);
}

static bool differs(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static void discard(struct promising *p)
{
    for (size_t i = 0; p && i < p->n; i++)
        spec_free(&p->specs[i]);
    if (p) {
        json_decref(p->ports);
        json_decref(p->disks);
        json_decref(p->unproven);
    }
    free(p);
}

// The machine that a specification is for, as long as it differs in promises alone.
static struct daemon_machine *machine_for(const struct promising *p, const struct machine_spec *spec, struct tv_error *err)
{
    struct daemon_machine *m = machine_find(p->daemon, spec->name);
    if (m && machine_differs_in_promises_only(&m->spec, spec))
        return m;
    tv_error_set(err, -ESRCH, "machine '%s' is not there, or differs in more than its promises; `trivet up` changes it",
                 spec->name);
    return NULL;
}

static void take_over(struct daemon_machine *m, struct machine_spec *spec)
{
    for (unsigned i = 0; i < m->spec.n_disks; i++) {
        char *old = m->spec.disks[i].promises;
        m->spec.disks[i].promises = spec->disks[i].promises;
        spec->disks[i].promises = old;
    }
    for (unsigned i = 0; i < m->spec.n_nics; i++) {
        char *old = m->spec.nics[i].promises;
        m->spec.nics[i].promises = spec->nics[i].promises;
        spec->nics[i].promises = old;
    }
}

static void put_back(void *arg, const json_t *result, const struct tv_error *err)
{
    if (!result && err->code != -ECANCELED) // it has died; its ports come back with what is recorded
        log_event(LOG_WARN, "trivetd", "promises not put back", LOG_STR("error", err->text));
    (void)arg;
}

static int ask_port(const struct promising *p, size_t at, const char *key, rpc_answer_fn *fn, void *arg)
{
    const json_t *port = json_array_get(p->ports, at);
    return rpc_call_async(p->daemon->router_control, "port.promise",
                          json_pack("{s:O, s:O, s:O, s:b}", "vn", json_object_get(port, "vn"), "name",
                                    json_object_get(port, "name"), "promises", json_object_get(port, key), "admitted",
                                    strcmp(key, "before") == 0),
                          NULL, 0, CHANGE_TIMEOUT_MS, fn, arg);
}

static void give_up(struct promising *p, const struct tv_error *err)
{
    for (size_t i = 0; i < p->n_agreed && p->daemon->router_control; i++)
        ask_port(p, i, "before", put_back, NULL);
    fail(p->req, err);
    discard(p);
}

// All have agreed.
static void settle(struct promising *p)
{
    struct tv_error err = {0};
    for (size_t i = 0; i < p->n && !err.code; i++) {
        struct daemon_machine *m = machine_for(p, &p->specs[i], &err);
        if (!m)
            break;
        take_over(m, &p->specs[i]);
        machine_record(m, &err);
    }
    if (err.code)
        fail(p->req, &err);
    else
        rpc_reply(p->req, json_pack("{s:s, s:o}", "result", "promises changed", "unproven", json_incref(p->unproven)));
    discard(p);
}

static void store_agreed(void *arg, const json_t *result, const struct tv_error *said)
{
    struct promising *p = arg;
    struct tv_error err = *said;
    if (result) {
        json_array_extend(p->unproven, json_object_get(result, "unproven"));
        settle(p);
        return;
    }
    if (said->code == -ETIMEDOUT)
        tv_error_set(&err, -ETIMEDOUT, "the store does not answer; `kill -9 %d` has it started again",
                     (int)p->daemon->store.worker.pid);
    give_up(p, &err);
}

// What the store has to be told: label -> text of each disk that it has and whose promises are others.
static void add_changes(const struct daemon_machine *m, const struct machine_spec *spec, json_t *changes)
{
    for (unsigned i = 0; i < spec->n_disks && m->worker.pid; i++) {
        char label[128];
        const char *text = spec->disks[i].promises;
        if (!differs(m->spec.disks[i].promises, text) || (m->disk_away[i] && !(m->opening[i] && m->opening[i]->is_asked)))
            continue;
        daemon_store_label(m, i, label);
        json_object_set_new(changes, label, json_string(text ? text : ""));
    }
}

// The same of ports that the router has, or is about to have with what was promised before.
static void add_ports(const struct daemon_machine *m, const struct machine_spec *spec, json_t *ports)
{
    for (unsigned i = 0; i < spec->n_nics && m->worker.pid && m->daemon->router_control; i++) {
        const char *before = m->spec.nics[i].promises, *text = spec->nics[i].promises;
        if (differs(before, text) && (!m->nic_away[i] || m->nic_opening[i]))
            json_array_append_new(ports, json_pack("{s:s, s:s, s:s, s:s}", "vn", spec->nics[i].network, "name", spec->name,
                                                   "promises", text ? text : "", "before", before ? before : ""));
    }
}

static int list_changes(const struct promising *p, struct tv_error *err)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct daemon_machine *m = machine_for(p, &p->specs[i], err);
        if (!m)
            return err->code;
        if (m->launch)
            return tv_error_set(err, -EBUSY, "machine '%s' is just starting; try again when it runs", m->spec.name);
        add_changes(m, &p->specs[i], p->disks);
        add_ports(m, &p->specs[i], p->ports);
    }
    return 0;
}

static void ask_store(struct promising *p)
{
    struct tv_error err = {0};
    struct rpc_conn *store = p->daemon->store_control;
    if (!store || !json_object_size(p->disks)) {
        settle(p);
        return;
    }
    const int rc = rpc_call_async(store, "disk.promise", json_pack("{s:O}", "promises", p->disks), NULL, 0, CHANGE_TIMEOUT_MS,
                                  store_agreed, p);
    if (!rc)
        return;
    tv_error_set(&err, rc, "trivet-store: %s", strerror(-rc));
    give_up(p, &err);
}

static void ask_next(struct promising *p);

static void port_agreed(void *arg, const json_t *result, const struct tv_error *said)
{
    struct promising *p = arg;
    if (!result) {
        give_up(p, said);
        return;
    }
    p->n_agreed++;
    json_array_extend(p->unproven, json_object_get(result, "unproven"));
    ask_next(p);
}

static void ask_next(struct promising *p)
{
    struct tv_error err = {0};
    if (p->n_agreed == json_array_size(p->ports)) {
        ask_store(p);
        return;
    }
    const int rc = p->daemon->router_control ? ask_port(p, p->n_agreed, "promises", port_agreed, p) : -ENOTCONN;
    if (!rc)
        return;
    tv_error_set(&err, rc, "trivet-router: %s", strerror(-rc));
    give_up(p, &err);
}

// Takes p.
static void start_change(struct promising *p)
{
    struct tv_error err = {0};
    p->ports = json_array();
    p->disks = json_object();
    p->unproven = json_array();
    if (list_changes(p, &err))
        give_up(p, &err);
    else
        ask_next(p);
}

// {"specs": [...]}: what the disks and cards of these machines, which are there, are promised from now on.
void daemon_change_promises(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const json_t *specs = json_object_get(params, "specs");
    struct promising *p = calloc(1, sizeof(*p) + json_array_size(specs) * sizeof(p->specs[0]));
    int rc = 0;
    if (!p) {
        tv_error_set(&err, -ENOMEM, "no memory");
        fail(req, &err);
        return;
    }
    *p = (struct promising){.daemon = arg, .req = req};
    for (size_t i = 0; i < json_array_size(specs) && !rc; i++) {
        rc = spec_decode(json_array_get(specs, i), &p->specs[i], &err);
        p->n += !rc;
    }
    if (!rc) {
        start_change(p);
        return;
    }
    discard(p);
    rpc_reply_error(req, RPC_BAD_PARAMS, &err);
}

bool machine_differs_in_promises_only(const struct machine_spec *a, const struct machine_spec *b)
{
    cleanup_json json_t *ja = spec_encode(a), *jb = spec_encode(b);
    size_t i;
    json_t *one;
    for (int k = 0; k < 2; k++) {
        const char *const list = k ? "nics" : "disks";
        json_array_foreach(json_object_get(ja, list), i, one) json_object_del(one, "promises");
        json_array_foreach(json_object_get(jb, list), i, one) json_object_del(one, "promises");
    }
    return json_equal(ja, jb);
}

// --- one disk, by name

void daemon_promise(void *arg, struct rpc_request *req, const json_t *params)
{
    const char *name = json_string_value(json_object_get(params, "name"));
    const char *text = json_string_value(json_object_get(params, "promises"));
    struct tv_error err = {0};
    unsigned disk = 0;
    if (!name || !text) {
        tv_error_set(&err, -EINVAL, "disk.promise takes: name and promises, both strings");
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        return;
    }
    const struct daemon_machine *m = daemon_find_disk(arg, name, &disk, &err);
    if (!m) {
        fail(req, &err);
        return;
    }
    json_t *spec = spec_encode(&m->spec);
    json_object_set_new(json_array_get(json_object_get(spec, "disks"), disk), "promises", json_string(text));
    cleanup_json json_t *change = json_pack("{s:[o]}", "specs", spec);
    daemon_change_promises(arg, req, change);
}

// --- what is promised, and whether it is kept

// The store is asked first, then the router. Of machines that do not run the record tells.
struct looking {
    struct daemon *daemon;
    struct rpc_request *req;
    json_t *list;
};

static const json_t *verdicts_of(const json_t *told, const char *label)
{
    size_t i;
    json_t *disk;
    json_array_foreach(told, i, disk)
    {
        const char *name = json_string_value(json_object_get(disk, "name"));
        if (name && strcmp(name, label) == 0)
            return json_object_get(disk, "verdicts");
    }
    return NULL;
}

static json_t *describe(const struct daemon_machine *m, unsigned disk, const json_t *told, struct promise_archive *recorded)
{
    char label[128];
    daemon_store_label(m, disk, label);
    const char *promises = m->spec.disks[disk].promises;
    const json_t *now = verdicts_of(told, label);
    json_t *verdicts = !m->worker.pid ? daemon_recorded_verdicts(recorded, label, promises)
                       : now          ? json_deep_copy(now)
                                      : json_array();
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "name", label, "machine", m->spec.name, "disk", m->spec.disks[disk].name,
                     "state", machine_state_name(m), "promises", promises, "verdicts", verdicts);
}

static bool any_stopped(const struct daemon *d)
{
    const struct daemon_machine *m = d->machines;
    while (m && m->worker.pid)
        m = m->next;
    return m;
}

static void end_look(struct looking *l)
{
    rpc_reply(l->req, json_pack("{s:o, s:b}", "promises", l->list, "late", l->daemon->store_late));
    free(l);
}

static void router_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct looking *l = arg;
    (void)err; // a router that is not there has no networks now
    if (json_is_array(result))
        json_array_extend(l->list, (json_t *)result);
    end_look(l);
}

// `told`: the store's answer; NULL: it is not there, or does not answer.
static void look_on(struct looking *l, const json_t *told)
{
    struct promise_archive *recorded = any_stopped(l->daemon) ? daemon_read_verdicts(l->daemon) : NULL;
    for (const struct daemon_machine *m = l->daemon->machines; m; m = m->next)
        for (unsigned i = 0; i < m->spec.n_disks; i++)
            if (m->spec.disks[i].promises)
                json_array_append_new(l->list, describe(m, i, told, recorded));
    promise_archive_destroy(recorded);
    struct rpc_conn *router = l->daemon->router_control;
    if (!router || rpc_call_async(router, "router.promises", json_object(), NULL, 0, LOOK_TIMEOUT_MS, router_answered, l))
        end_look(l);
}

static void store_answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct looking *l = arg;
    if (err->code == -ETIMEDOUT)
        daemon_store_note_late(l->daemon);
    look_on(l, result);
}

void daemon_promises(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct looking *l = malloc(sizeof(*l));
    (void)params;
    if (!l) {
        fail(req, &(struct tv_error){.code = -ENOMEM, .text = "no memory"});
        return;
    }
    *l = (struct looking){.daemon = d, .req = req, .list = json_array()};
    if (!d->store_control || d->store_late ||
        rpc_call_async(d->store_control, "disk.promises", json_object(), NULL, 0, LOOK_TIMEOUT_MS, store_answered, l))
        look_on(l, NULL);
}

// The store or the router tells of a promise that was broken or is kept again. Whoever listens to us is told as well.
void daemon_promise_changed(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    const char *name = json_string_value(json_object_get(params, "name"));
    const char *promise = json_string_value(json_object_get(params, "promise"));
    const char *held_by = json_string_value(json_object_get(params, "held_by"));
    const bool kept = json_is_true(json_object_get(params, "kept"));
    if (name && promise)
        log_event(kept ? LOG_INFO : LOG_WARN, "trivetd", kept ? "promise is kept again" : "promise broken", LOG_STR("name", name),
                  LOG_STR("promise", promise), LOG_STR("held_by", held_by ? held_by : "nobody"));
    rpc_server_broadcast(d->server, "promise.changed", json_deep_copy(params));
    rpc_reply(req, json_object());
}
