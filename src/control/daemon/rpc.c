// What trivetd does on request: see daemon.h, and trivetd(8) for the words.
#include "control/cleanup.h"
#include "control/daemon/daemon.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define STOP_TIMEOUT_MS 30000
#define CALL_TIMEOUT_MS 60000

static void refuse(struct rpc_request *req, int code, int rpc_code, const char *format, const char *word)
{
    struct tv_error err = {0};
    tv_error_set(&err, code, format, word);
    rpc_reply_error(req, rpc_code, &err);
}

// The machine named by "name"; NULL when the request has been answered with what is wrong.
static struct daemon_machine *need_machine(struct daemon *d, struct rpc_request *req, const json_t *params)
{
    const char *name = json_string_value(json_object_get(params, "name"));
    struct daemon_machine *m = name ? machine_find(d, name) : NULL;
    if (!m)
        refuse(req, -ENOENT, RPC_FAILED, "there is no machine '%s'; `trivet ps` lists them", name ? name : "");
    return m;
}

static void method_status(void *arg, struct rpc_request *req, const json_t *params)
{
    const struct daemon *d = arg;
    (void)params;
    rpc_reply(req, json_pack("{s:i, s:s, s:s, s:i, s:i}", "pid", (int)getpid(), "run_dir", d->run_dir, "state_dir", d->state_dir,
                             "store_pid", (int)d->store.worker.pid, "router_pid", (int)d->router.worker.pid));
}

static void method_list(void *arg, struct rpc_request *req, const json_t *params)
{
    const struct daemon *d = arg;
    json_t *machines = json_array();
    (void)params;
    for (const struct daemon_machine *m = d->machines; m; m = m->next)
        json_array_append_new(machines, machine_describe(m));
    rpc_reply(req, json_pack("{s:o}", "machines", machines));
}

static void method_get(void *arg, struct rpc_request *req, const json_t *params)
{
    const struct daemon_machine *m = need_machine(arg, req, params);
    if (!m)
        return;
    json_t *json = machine_describe(m);
    json_object_set_new(json, "spec", spec_encode(&m->spec));
    rpc_reply(req, json);
}

// --- making and removing

static bool same_spec(const struct machine_spec *a, const struct machine_spec *b)
{
    cleanup_json json_t *ja = spec_encode(a), *jb = spec_encode(b);
    return json_equal(ja, jb);
}

static void update(struct daemon_machine *m, struct machine_spec *spec, struct rpc_request *req)
{
    struct tv_error err = {0};
    if (machine_is_up(m)) {
        spec_free(spec);
        refuse(req, -EBUSY, RPC_FAILED, "machine '%s' runs; stop it before it is changed", m->spec.name);
        return;
    }
    spec_free(&m->spec);
    m->spec = *spec;
    if (machine_record(m, &err))
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        rpc_reply(req, json_pack("{s:s}", "result", "changed"));
}

// What becomes of a machine; NULL: there is none of that name.
static const char *result_of(const struct daemon_machine *m, const struct machine_spec *spec)
{
    if (!m)
        return "created";
    if (same_spec(&m->spec, spec))
        return "unchanged";
    return machine_differs_in_promises_only(&m->spec, spec) ? "promises changed" : "changed";
}

// {"spec": {...}, "dry": bool}: makes the machine, or changes it; "dry" only says what would be done. "promises changed" of a
// machine that runs is done by machine.promise.
static void method_apply(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    struct machine_spec spec;
    if (spec_decode(json_object_get(params, "spec"), &spec, &err)) {
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        return;
    }
    struct daemon_machine *m = machine_find(d, spec.name);
    const char *result = result_of(m, &spec);
    if (strcmp(result, "unchanged") == 0 || json_is_true(json_object_get(params, "dry"))) {
        spec_free(&spec);
        rpc_reply(req, json_pack("{s:s}", "result", result));
        return;
    }
    if (m) {
        update(m, &spec, req);
        return;
    }
    m = machine_add(d, &spec, &err);
    int rc = m ? machine_record(m, &err) : err.code;
    if (rc && m)
        machine_free(m);
    if (rc)
        rpc_reply_error(req, RPC_FAILED, &err);
    else
        rpc_reply(req, json_pack("{s:s}", "result", "created"));
}

// Answers {"ends": bool}: trivetd ends with this, its last machine.
static void method_remove(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_machine *m = need_machine(arg, req, params);
    if (!m)
        return;
    if (machine_is_up(m)) {
        refuse(req, -EBUSY, RPC_FAILED, "machine '%s' runs; stop it first", m->spec.name);
        return;
    }
    machine_remove(m);
    rpc_reply(req, json_pack("{s:b}", "ends", daemon_consider_end(arg)));
}

// --- start, stop, kill: {"names": [...]}; no names means all

// A saved machine is loaded by this start alone; the next one boots again.
static int start_from(struct daemon_machine *m, const char *saved, struct tv_error *err)
{
    m->spec.restore = strdup(saved);
    int rc = m->spec.restore ? machine_start(m, err) : tv_error_set(err, -ENOMEM, "no memory");
    free(m->spec.restore);
    m->spec.restore = NULL;
    machine_record(m, NULL);
    return rc;
}

static void start_one(struct daemon_machine *m, struct batch *b, const json_t *params)
{
    struct tv_error err = {0};
    const char *saved = json_string_value(json_object_get(params, "restore"));
    if (m->state == MACHINE_STOPPING)
        tv_error_set(&err, -EBUSY, "machine '%s' is just stopping; start it when it has", m->spec.name);
    else if (saved && machine_is_up(m))
        tv_error_set(&err, -EBUSY, "machine '%s' runs; stop it before it is restored", m->spec.name);
    else if (saved)
        start_from(m, saved, &err);
    else if (!machine_is_up(m))
        machine_start(m, &err);
    if (err.code || m->state == MACHINE_RUNNING || batch_wait(b, &m->starting, &err))
        batch_result(b, m, &err);
}

static void stop_one(struct daemon_machine *m, struct batch *b, const json_t *params)
{
    const json_t *timeout = json_object_get(params, "timeout_ms");
    struct tv_error err = {0};
    if (batch_wait(b, &m->stopping, &err))
        batch_result(b, m, &err);
    machine_stop(m, json_is_integer(timeout) ? (unsigned)json_integer_value(timeout) : STOP_TIMEOUT_MS);
}

static void kill_one(struct daemon_machine *m, struct batch *b, const json_t *params)
{
    struct tv_error err = {0};
    (void)params;
    if (batch_wait(b, &m->stopping, &err))
        batch_result(b, m, &err);
    machine_kill(m);
}

typedef void each_fn(struct daemon_machine *m, struct batch *b, const json_t *params);

static void for_each(struct daemon *d, struct rpc_request *req, const json_t *params, each_fn *fn)
{
    const json_t *names = json_object_get(params, "names"), *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        if (json_is_string(name) && machine_find(d, json_string_value(name)))
            continue;
        refuse(req, -ENOENT, RPC_FAILED, "there is no machine '%s'; `trivet ps` lists them",
               json_is_string(name) ? json_string_value(name) : "");
        return;
    }
    struct batch *b = batch_create(req);
    if (!b) {
        refuse(req, -ENOMEM, RPC_FAILED, "%s", "no memory");
        return;
    }
    if (json_array_size(names)) {
        json_array_foreach(names, i, name) fn(machine_find(d, json_string_value(name)), b, params);
    } else {
        for (struct daemon_machine *m = d->machines; m; m = m->next)
            fn(m, b, params);
    }
    batch_seal(b);
}

static void method_start(void *arg, struct rpc_request *req, const json_t *params)
{
    for_each(arg, req, params, start_one);
}

static void method_stop(void *arg, struct rpc_request *req, const json_t *params)
{
    for_each(arg, req, params, stop_one);
}

static void method_kill(void *arg, struct rpc_request *req, const json_t *params)
{
    for_each(arg, req, params, kill_one);
}

// --- passing on to the machine: {"name", "method", "params"}, with at most one descriptor

struct passed {
    struct rpc_request *req;
    struct daemon *daemon;
    char machine[SPEC_NAME_MAX + 1], method[32];
};

static void note_pause(const struct passed *p)
{
    struct daemon_machine *m = machine_find(p->daemon, p->machine);
    if (m && strcmp(p->method, "machine.pause") == 0)
        m->paused = true;
    else if (m && strcmp(p->method, "machine.resume") == 0)
        m->paused = false;
}

static void passed_answer(void *arg, const json_t *result, const struct tv_error *err)
{
    struct passed *p = arg;
    if (result) {
        note_pause(p);
        rpc_reply(p->req, json_deep_copy(result));
    } else {
        struct tv_error with = *err;
        tv_error_prefix(&with, "machine '%s'", p->machine);
        rpc_reply_error(p->req, RPC_FAILED, &with);
    }
    free(p);
}

static bool may_pass(const char *method)
{
    static const char *const methods[] = {
        "machine.status", "machine.stats", "machine.pause", "machine.resume", "machine.reset", "machine.save", NULL};
    for (const char *const *m = methods; method && *m; m++)
        if (strcmp(*m, method) == 0)
            return true;
    return false;
}

static void method_call(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_machine *m = need_machine(arg, req, params);
    const char *method = json_string_value(json_object_get(params, "method"));
    if (!m)
        return;
    if (!may_pass(method)) {
        refuse(req, -EINVAL, RPC_BAD_PARAMS, "'%s' is none of the methods that are passed on to a machine", method ? method : "");
        return;
    }
    if (!m->control) {
        refuse(req, -ESRCH, RPC_FAILED, "machine '%s' does not run; start it first", m->spec.name);
        return;
    }
    struct passed *p = calloc(1, sizeof(*p));
    if (!p) {
        refuse(req, -ENOMEM, RPC_FAILED, "%s", "no memory");
        return;
    }
    *p = (struct passed){.req = req, .daemon = arg};
    strcpy(p->machine, m->spec.name); // both were checked for their length
    strcpy(p->method, method);
    cleanup_close int fd = req ? rpc_request_take_fd(req, 0) : -1;
    json_t *inner = json_deep_copy(json_object_get(params, "params"));
    rpc_call_async(m->control, method, inner ? inner : json_object(), &fd, fd >= 0, CALL_TIMEOUT_MS, passed_answer, p);
}

// {"name"}: disk.stat of each disk of the machine, with histograms, at most a second old.
static void method_disks(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon_machine *m = need_machine(arg, req, params);
    if (m)
        daemon_look(m, req);
}

// {"tenants": [...]}: what an `up` file says beside its machines and networks, kept for those who ask.
static void method_facts(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    static const char *const keys[] = {"tenants", NULL};
    struct tv_error err = {0};
    json_t *all = json_object();
    for (const char *const *key = keys; *key && !err.code; key++) {
        const json_t *value = json_object_get(params, *key);
        if (value)
            database_put(d->db, *key, value, &err);
        json_t *kept = database_get(d->db, *key);
        json_object_set_new(all, *key, kept ? kept : json_array());
    }
    if (!err.code) {
        rpc_reply(req, all);
        return;
    }
    json_decref(all);
    rpc_reply_error(req, RPC_FAILED, &err);
}

// Answers {"ends": bool}: there are no machines and no networks, and trivetd is to end then.
struct end_question {
    struct daemon *daemon;
    struct rpc_request *req;
};

static void answer_end(void *arg, const struct tv_error *err)
{
    struct end_question *q = arg;
    (void)err;
    rpc_reply(q->req, json_pack("{s:b}", "ends", daemon_consider_end(q->daemon)));
    free(q);
}

// What it had has to be gone whole.
static void method_end_if_empty(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct end_question *q = daemon_gateways_are_busy(d) ? malloc(sizeof(*q)) : NULL;
    (void)params;
    if (!q) {
        rpc_reply(req, json_pack("{s:b}", "ends", daemon_consider_end(d)));
        return;
    }
    *q = (struct end_question){d, req};
    daemon_gateway_work(d, GATEWAY_NOTHING, NULL, answer_end, q);
}

static void method_quit(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    (void)params;
    rpc_reply(req, json_object());
    loop_stop(d->loop);
}

const struct rpc_method daemon_methods[] = {
    {"trivetd.status", method_status},
    {"trivetd.quit", method_quit},
    {"trivetd.end_if_empty", method_end_if_empty},
    {"trivetd.facts", method_facts},
    {"machine.list", method_list},
    {"machine.get", method_get},
    {"machine.apply", method_apply},
    {"machine.remove", method_remove},
    {"machine.start", method_start},
    {"machine.stop", method_stop},
    {"machine.kill", method_kill},
    {"machine.call", method_call},
    {"machine.disks", method_disks},
    {"machine.promise", daemon_change_promises},
    {"net.list", daemon_net_list},
    {"net.get", daemon_net_get},
    {"net.apply", daemon_net_apply},
    {"net.remove", daemon_net_remove},
    {"net.attach", daemon_net_attach},
    {"net.detach", daemon_net_detach},
    {"net.route", daemon_net_route},
    {"net.call", daemon_net_call},
    {"host.get", daemon_host_get},
    {"host.apply", daemon_host_apply},
    {"host.peer", daemon_host_peer},
    {"disk.find", daemon_disk_find},
    {"disk.call", daemon_disk_call},
    {"disk.promise", daemon_promise},
    {"disk.promises", daemon_promises},
    {0},
};
