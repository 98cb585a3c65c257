// This host and its peers, as host_spec.h has them: see daemon.h.
//
// They are recorded whether a router runs or not; each router gets them before its networks. Those of a router that was taken over
// are compared with what is recorded, but that the certificates are given to it anew: connections are made again by that, and
// nothing that was said is lost.
#include "base/clock.h"
#include "base/log.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/net/host_spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CALL_TIMEOUT_MS 60000
#define RETRY_NS (10 * NS_PER_S) // as when an address is not there yet

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

// --- telling the router

// All that is asked together; it ends with the last answer, and the first error counts. Freed then.
struct telling {
    struct daemon *daemon;
    unsigned open;
    struct tv_error err;
    struct rpc_request *req;        // who waits; may be NULL
    json_t *before, *host, *answer; // before: to go back to; host: what is told
};

static int record(struct daemon *d, const json_t *host, struct tv_error *err)
{
    cleanup_json json_t *none = json_null();
    return database_put(d->db, "host", host ? host : none, err);
}

static void tell(struct daemon *d, struct rpc_request *req, json_t *before, json_t *answer);

static void go_back(struct telling *t)
{
    struct daemon *d = t->daemon;
    json_decref(d->host);
    d->host = json_incref(t->before);
    record(d, d->host, NULL);
    tell(d, NULL, NULL, NULL);
    rpc_reply_error(t->req, RPC_FAILED, &t->err);
}

static void end(struct telling *t)
{
    struct daemon *d = t->daemon;
    if (--t->open)
        return;
    if (t->err.code && t->req) {
        go_back(t);
    } else if (t->err.code) {
        snprintf(d->host_reason, sizeof(d->host_reason), "%.255s", t->err.text);
        log_event(LOG_WARN, "trivetd", "peers not told of", LOG_STR("error", t->err.text));
        d->host_told = false;
        loop_set_timer(d->host_timer, RETRY_NS, 0);
    } else {
        d->host_reason[0] = 0;
        if (t->req) {
            net_host_changed(d, t->before);
            rpc_reply(t->req, json_incref(t->answer));
        }
    }
    json_decref(t->before);
    json_decref(t->host);
    json_decref(t->answer);
    free(t);
}

static void answered(void *arg, const json_t *result, const struct tv_error *err)
{
    struct telling *t = arg;
    if (!result && !t->err.code) {
        t->err = *err;
        tv_error_prefix(&t->err, "this host: the router");
    }
    end(t);
}

static void ask(struct telling *t, const char *method, json_t *params, rpc_answer_fn *fn)
{
    struct rpc_conn *control = t->daemon->router_control;
    const int rc = control ? rpc_call_async(control, method, params, NULL, 0, CALL_TIMEOUT_MS, fn, t) : -ENOTCONN;
    if (!control)
        json_decref(params);
    if (!rc)
        t->open++;
    else if (!t->err.code)
        tv_error_set(&t->err, rc, "this host: the router cannot be asked; its log is %s/router.log", t->daemon->state_dir);
}

static bool has_peer(const json_t *list, const json_t *peer)
{
    size_t i;
    json_t *entry;
    bool found = false;
    json_array_foreach(list, i, entry) found |= json_equal(json_object_get(entry, "address"), json_object_get(peer, "address")) &&
                                                json_equal(json_object_get(entry, "connect"), json_object_get(peer, "connect"));
    return found;
}

static void listed(void *arg, const json_t *result, const struct tv_error *err)
{
    struct telling *t = arg;
    const json_t *there = json_object_get(result, "peers"), *wanted = json_object_get(t->host, "peers");
    size_t i;
    json_t *peer;
    if (!result) {
        answered(t, NULL, err);
        return;
    }
    json_array_foreach(there, i, peer)
    {
        if (!has_peer(wanted, peer))
            ask(t, "peer.remove", json_pack("{s:O}", "address", json_object_get(peer, "address")), answered);
    }
    json_t *serve = text(t->host, "listen") ? host_spec_serve(t->host, &t->err) : NULL;
    if (serve)
        ask(t, "peer.serve", serve, answered);
    json_array_foreach(wanted, i, peer)
    {
        if (serve && text(peer, "connect") && !has_peer(there, peer))
            ask(t, "peer.add",
                json_pack("{s:O, s:O}", "address", json_object_get(peer, "address"), "connect", json_object_get(peer, "connect")),
                answered);
    }
    end(t);
}

// Takes before and answer.
static void tell(struct daemon *d, struct rpc_request *req, json_t *before, json_t *answer)
{
    struct telling *t = calloc(1, sizeof(*t));
    if (!t) {
        const struct tv_error err = {.code = -ENOMEM, .text = "no memory"};
        json_decref(before);
        json_decref(answer);
        if (req)
            rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    *t = (struct telling){.daemon = d, .open = 1, .req = req, .before = before, .answer = answer, .host = json_incref(d->host)};
    d->host_told = d->router_control;
    if (d->router_control)
        ask(t, "peer.list", json_object(), listed);
    end(t);
}

void daemon_host_restore(struct daemon *d)
{
    if (d->host && d->router_control && !d->host_told)
        tell(d, NULL, NULL, NULL);
}

static void retry(void *arg)
{
    daemon_host_restore(arg);
}

static int load_word(struct daemon *d, struct tv_error *err)
{
    uint64_t random[2];
    cleanup_json json_t *known = database_get(d->db, "host word");
    if (json_is_string(known)) {
        snprintf(d->host_word, sizeof(d->host_word), "%s", json_string_value(known));
        return 0;
    }
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return tv_error_set(err, -EIO, "no random numbers: %s", strerror(errno));
    snprintf(d->host_word, sizeof(d->host_word), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    cleanup_json json_t *word = json_string(d->host_word);
    return database_put(d->db, "host word", word, err);
}

int daemon_host_load(struct daemon *d, struct tv_error *err)
{
    d->host_timer = loop_add_timer(d->loop, retry, d, err);
    if (!d->host_timer)
        return err->code;
    if (load_word(d, err))
        return err->code;
    cleanup_json json_t *json = database_get(d->db, "host");
    struct tv_error why = {0};
    if (json && !json_is_null(json) && host_spec_check(json, &d->host, &why))
        log_event(LOG_ERROR, "trivetd", "this host not loaded", LOG_STR("error", why.text));
    return 0;
}

// --- methods

// A link by what it leads to, a peer by its own address.
static void add_states(json_t *list, const char *key, const json_t *peers)
{
    size_t i, j;
    json_t *entry, *peer;
    json_array_foreach(list, i, entry)
    {
        json_array_foreach(peers, j, peer)
        {
            if (!json_equal(json_object_get(entry, key), json_object_get(peer, "address")))
                continue;
            json_object_set(entry, "synced", json_object_get(peer, "synced"));
            json_object_set(entry, "hears", json_object_get(peer, "hears"));
        }
    }
}

struct looking {
    struct rpc_request *req;
    json_t *json;
};

static void looked(void *arg, const json_t *result, const struct tv_error *err)
{
    struct looking *l = arg;
    (void)err; // then nothing is known of them
    add_states(json_object_get(l->json, "links"), "remote", json_object_get(result, "peers"));
    add_states(json_object_get(l->json, "peers"), "address", json_object_get(result, "peers"));
    rpc_reply(l->req, l->json);
    free(l);
}

void daemon_host_add_state(struct daemon *d, struct rpc_request *req, json_t *json)
{
    struct looking *l = calloc(1, sizeof(*l));
    const bool has_any = json_object_get(json, "links") || json_object_get(json, "peers");
    if (l)
        *l = (struct looking){req, json};
    if (l && has_any && d->router_control &&
        rpc_call_async(d->router_control, "peer.list", json_object(), NULL, 0, CALL_TIMEOUT_MS, looked, l) == 0)
        return;
    free(l);
    rpc_reply(req, json);
}

// Answers {"host", "peers"}, without them when nothing was stated; "reason" where the router has not taken it.
void daemon_host_get(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    (void)params;
    json_t *json = json_object();
    if (!d->host) {
        rpc_reply(req, json);
        return;
    }
    json_t *host = json_deep_copy(d->host);
    json_object_set(json, "peers", json_object_get(host, "peers"));
    json_object_del(host, "peers");
    json_object_set_new(json, "host", host);
    if (d->host_reason[0])
        json_object_set_new(json, "reason", json_string(d->host_reason));
    daemon_host_add_state(d, req, json);
}

// The networks' links have to go on.
static int check_links(const struct daemon *d, const json_t *host, struct tv_error *err)
{
    int rc = 0;
    for (const struct daemon_net *n = d->nets; n && !rc; n = n->next) {
        cleanup_json json_t *links = NULL;
        rc = host_spec_links(host, n->spec, &links, err);
    }
    return rc;
}

// Takes host; result is a word for the answer.
static void change(struct daemon *d, struct rpc_request *req, json_t *host, const char *result)
{
    cleanup_json json_t *after = host;
    struct tv_error err = {0};
    int rc = check_links(d, after, &err);
    if (!rc)
        rc = record(d, after, &err);
    if (rc) {
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    json_t *before = d->host;
    d->host = json_incref(after);
    tell(d, req, before, json_pack("{s:s}", "result", result));
}

// {"host": {...}}: as a whole. Its peers stay as they are if they are not said. Answers {"result"}.
void daemon_host_apply(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    cleanup_json json_t *said = json_deep_copy(json_object_get(params, "host"));
    json_t *host;
    if (json_is_object(said) && !json_object_get(said, "peers") && d->host)
        json_object_set(said, "peers", json_object_get(d->host, "peers"));
    if (host_spec_check(said, &host, &err)) {
        rpc_reply_error(req, RPC_BAD_PARAMS, &err);
        return;
    }
    if (d->host && json_equal(d->host, host) && !d->host_reason[0]) {
        json_decref(host);
        rpc_reply(req, json_pack("{s:s}", "result", "unchanged"));
        return;
    }
    change(d, req, host, d->host ? "changed" : "created");
}

// {"add": {...}} or {"remove": NAME}: one of the peers.
void daemon_host_peer(void *arg, struct rpc_request *req, const json_t *params)
{
    struct daemon *d = arg;
    struct tv_error err = {0};
    const json_t *add = json_object_get(params, "add");
    const char *name = text(params, "remove");
    json_t *peers = json_array(), *peer, *host;
    size_t i;
    if (!d->host)
        tv_error_set(&err, -ENOENT, "this host is not known to itself; `trivet net host` states its address first");
    else if (!add && (!name || !host_spec_peer(d->host, name)))
        tv_error_set(&err, -ENOENT, "there is no peer '%s'; `trivet net peers` shows them", name ? name : "");
    json_array_foreach(json_object_get(d->host, "peers"), i, peer)
    {
        if (!name || strcmp(text(peer, "name"), name) != 0)
            json_array_append(peers, peer);
    }
    if (add)
        json_array_append(peers, (json_t *)add);
    cleanup_json json_t *said = d->host ? json_copy(d->host) : json_object();
    json_object_set_new(said, "peers", peers);
    if (err.code || host_spec_check(said, &host, &err)) {
        rpc_reply_error(req, RPC_FAILED, &err);
        return;
    }
    change(d, req, host, add ? "added" : "removed");
}
