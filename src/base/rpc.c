// JSON-RPC 2.0 connections: see rpc.h. Sending and receiving lines with descriptors is rpc_line.c, accepting is rpc_server.c, the
// blocking call is rpc_call.c, sockets by path are rpc_socket.c.
//
// A connection is closed from the loop alone (conn_ready) or by its owner, never inside a call that sends: a failed send only shuts
// the socket down, and the loop then finds it closed. So nobody's connection goes while he is using it.
#include "base/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rpc_conn.h"

enum { REQUESTS_MAX = 1024 }; // unanswered ones of a connection

struct rpc_request {
    struct rpc_conn *conn; // NULL once the connection has gone: the answer is dropped
    struct rpc_request *next;
    json_t *id;
    int fds[RPC_FDS_MAX];
    size_t n_fds;
};

struct pending { // a call of ours that waits for its answer
    struct pending *next;
    json_int_t id;
    uint64_t deadline_ns; // 0: none
    rpc_answer_fn *fn;
    void *arg;
};

static void conn_enter(struct rpc_conn *conn)
{
    conn->busy++;
}

static void conn_leave(struct rpc_conn *conn)
{
    if (--conn->busy != 0 || !conn->closed)
        return;
    rpc_line_fini(&conn->line);
    if (conn->owner_holds)
        return;
    free(conn);
}

static void request_free(struct rpc_request *req)
{
    for (size_t i = 0; i < req->n_fds; i++)
        if (req->fds[i] >= 0)
            close(req->fds[i]);
    json_decref(req->id);
    free(req);
}

static void answer(struct pending *p, const json_t *result, const struct tv_error *err)
{
    if (p->fn)
        p->fn(p->arg, result, err);
    free(p);
}

static void cancel_pending(struct rpc_conn *conn, int code, const char *why)
{
    struct tv_error err;
    tv_error_set(&err, code, "%s", why);
    while (conn->pending) {
        struct pending *p = conn->pending;
        conn->pending = p->next;
        answer(p, NULL, &err);
    }
}

void rpc_conn_close(struct rpc_conn *conn, int code, const char *why)
{
    if (conn->closed)
        return;
    conn->closed = true;
    conn_enter(conn);
    loop_remove(conn->source);
    loop_remove(conn->timer);
    for (struct rpc_request *r = conn->requests; r; r = r->next)
        r->conn = NULL;
    conn->requests = NULL;
    if (conn->server)
        rpc_server_forget(conn->server, conn);
    cancel_pending(conn, code, why);
    if (conn->service.closed)
        conn->service.closed(conn->service.arg, conn);
    conn_leave(conn);
}

static void hang_up(struct rpc_conn *conn)
{
    conn->broken = true;
    shutdown(conn->line.fd, SHUT_RDWR); // the loop sees it and closes the connection
    loop_set_events(conn->source, EPOLLIN);
}

static void flush(struct rpc_conn *conn)
{
    if (conn->closed || conn->broken)
        return;
    int ret = rpc_line_flush(&conn->line);
    if (ret < 0)
        hang_up(conn);
    else
        loop_set_events(conn->source, EPOLLIN | (ret > 0 ? (uint32_t)EPOLLOUT : 0));
}

// Takes message. -EMSGSIZE: the line is too long, nothing was sent. A peer that does not read what it is sent is hung up on.
static int send_message(struct rpc_conn *conn, json_t *message, const int *fds, size_t n_fds)
{
    int ret = -ENOTCONN;
    if (!message)
        ret = -ENOMEM;
    else if (!conn->closed && !conn->broken)
        ret = rpc_line_put(&conn->line, message, fds, n_fds);
    json_decref(message);
    if (ret == 0)
        flush(conn);
    else if (ret == -ENOBUFS)
        hang_up(conn);
    return ret;
}

static void arm_timer(struct rpc_conn *conn)
{
    uint64_t first = 0, now = clock_now_ns();
    for (const struct pending *p = conn->pending; p; p = p->next)
        if (p->deadline_ns && (!first || p->deadline_ns < first))
            first = p->deadline_ns;
    loop_set_timer(conn->timer, first ? (first > now ? first - now : 1) : 0, 0);
}

static void timed_out(void *arg)
{
    struct rpc_conn *conn = arg;
    uint64_t now = clock_now_ns();
    struct tv_error err;
    tv_error_set(&err, -ETIMEDOUT, "no answer in time");
    conn_enter(conn);
    for (struct pending **at = &conn->pending; *at && !conn->closed;) {
        struct pending *p = *at;
        if (!p->deadline_ns || p->deadline_ns > now) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        answer(p, NULL, &err);
        at = &conn->pending; // the callback may have changed the list
    }
    if (!conn->closed)
        arm_timer(conn);
    conn_leave(conn);
}

static void take_answer(struct rpc_conn *conn, const json_t *message, const json_t *id)
{
    for (struct pending **at = &conn->pending; *at; at = &(*at)->next) {
        struct pending *p = *at;
        if (!json_is_integer(id) || p->id != json_integer_value(id))
            continue;
        *at = p->next;
        arm_timer(conn);
        struct tv_error err = {0};
        const json_t *result = rpc_answer_decode(message, &err);
        answer(p, result, &err);
        return;
    }
}

static void refuse(struct rpc_conn *conn, const json_t *id, int rpc_code, const char *text)
{
    struct tv_error err;
    tv_error_set(&err, -EINVAL, "%s", text);
    send_message(conn, rpc_error_message(id, rpc_code, &err), NULL, 0);
}

static const struct rpc_method *find_method(const struct rpc_conn *conn, const char *name)
{
    for (const struct rpc_method *m = conn->service.methods; m && m->name; m++)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

static bool id_is_valid(const json_t *id) // JSON-RPC 2.0, section 4
{
    return !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
}

// The request with its descriptors, put on the connection's list; NULL with the connection hung up.
static struct rpc_request *request_new(struct rpc_conn *conn, const json_t *id, size_t n_fds)
{
    struct rpc_request *req = calloc(1, sizeof(*req));
    if (!req) {
        hang_up(conn);
        return NULL;
    }
    req->conn = conn;
    req->id = json_deep_copy(id);
    req->n_fds = n_fds;
    rpc_line_take_fds(&conn->line, req->fds, n_fds);
    req->next = conn->requests;
    conn->requests = req;
    conn->n_requests++;
    return req;
}

static void request_unlink(struct rpc_request *req)
{
    struct rpc_conn *conn = req->conn;
    if (!conn)
        return;
    struct rpc_request **at = &conn->requests;
    while (*at != req)
        at = &(*at)->next;
    *at = req->next;
    conn->n_requests--;
}

// Why the request cannot be carried out: 0, or a code of JSON-RPC with the reason in err.
static int request_check(const struct rpc_conn *conn, const json_t *message, const char *name, const struct rpc_method *method,
                         struct tv_error *err)
{
    const json_t *version = json_object_get(message, "jsonrpc"), *params = json_object_get(message, "params");
    if (!json_is_string(version) || strcmp(json_string_value(version), "2.0") != 0) {
        tv_error_set(err, -EPROTO, "a request has \"jsonrpc\": \"2.0\"");
        return RPC_INVALID;
    }
    if (!method) {
        tv_error_set(err, -ENOSYS, "there is no method '%.100s'", name);
        return RPC_NO_METHOD;
    }
    if (params && !json_is_object(params)) {
        tv_error_set(err, -EINVAL, "%s: params are given by name, in an object", name);
        return RPC_BAD_PARAMS;
    }
    if (conn->n_requests > REQUESTS_MAX) {
        tv_error_set(err, -EBUSY, "%s: %d requests of this connection are not answered yet", name, REQUESTS_MAX);
        return RPC_FAILED;
    }
    return 0;
}

static void take_request(struct rpc_conn *conn, const json_t *message, const json_t *id, const char *name)
{
    const json_int_t n_fds = json_integer_value(json_object_get(message, "fds"));
    if (!id_is_valid(id) || n_fds < 0 || n_fds > RPC_FDS_MAX || (size_t)n_fds > conn->line.n_in_fds) {
        refuse(conn, NULL, RPC_INVALID, "an id is a string or a number, and fds how many descriptors came with the request");
        hang_up(conn); // which descriptor belongs to which request is not known from here on
        return;
    }
    struct rpc_request *req = request_new(conn, id, (size_t)n_fds);
    if (!req)
        return;
    const struct rpc_method *method = find_method(conn, name);
    struct tv_error err = {0};
    const int refused = request_check(conn, message, name, method, &err);
    if (!id) { // a notification has no answer; descriptors that came with it are closed
        request_unlink(req);
        request_free(req);
        req = NULL;
    }
    if (refused) {
        rpc_reply_error(req, refused, &err);
        return;
    }
    const json_t *params = json_object_get(message, "params");
    json_t *none = params ? NULL : json_object();
    if (params || none)
        method->fn(conn->service.arg, req, params ? params : none);
    else
        hang_up(conn);
    json_decref(none);
}

static void take_message(void *arg, json_t *message)
{
    struct rpc_conn *conn = arg;
    const json_t *id = json_object_get(message, "id");
    const char *method = json_string_value(json_object_get(message, "method"));
    if (conn->closed || conn->broken)
        return;
    if (method)
        take_request(conn, message, id, method);
    else if (json_object_get(message, "result") || json_object_get(message, "error"))
        take_answer(conn, message, id);
    else
        refuse(conn, NULL, RPC_INVALID, "neither a request nor an answer of JSON-RPC 2.0");
}

static void conn_ready(void *arg, int fd, uint32_t events)
{
    (void)fd;
    struct rpc_conn *conn = arg;
    conn_enter(conn);
    if (events & EPOLLOUT)
        flush(conn);
    int ret = 0;
    if (!conn->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        ret = rpc_line_read(&conn->line, take_message, conn);
    if (ret == -EBADMSG)
        refuse(conn, NULL, RPC_PARSE, "a line is one JSON object");
    if (ret < 0)
        rpc_conn_close(conn, -ECONNRESET, "the other end has closed the connection");
    conn_leave(conn);
}

struct rpc_conn *rpc_conn_new(struct loop *loop, int fd, const struct rpc_service *service, struct rpc_server *server,
                              struct tv_error *err)
{
    struct rpc_conn *conn = calloc(1, sizeof(*conn));
    if (!conn) {
        close(fd);
        tv_error_set(err, -ENOMEM, "control connection: no memory");
        return NULL;
    }
    conn->server = server;
    if (service)
        conn->service = *service;
    rpc_line_init(&conn->line, fd);
    conn->source = loop_add_fd(loop, fd, EPOLLIN, conn_ready, conn, err);
    conn->timer = conn->source ? loop_add_timer(loop, timed_out, conn, err) : NULL;
    if (!conn->timer) {
        loop_remove(conn->source);
        rpc_line_fini(&conn->line);
        free(conn);
        return NULL;
    }
    return conn;
}

struct rpc_conn *rpc_conn_create(struct loop *loop, int fd, const struct rpc_service *service, struct tv_error *err)
{
    struct rpc_conn *conn = rpc_conn_new(loop, fd, service, NULL, err);
    if (!conn)
        return NULL;
    conn->owner_holds = !conn->service.closed;
    if (conn->service.opened)
        conn->service.opened(conn->service.arg, conn);
    return conn;
}

void rpc_conn_destroy(struct rpc_conn *conn)
{
    if (!conn)
        return;
    conn_enter(conn);
    conn->service.closed = NULL; // the owner knows
    conn->owner_holds = false;
    const bool was_closed = conn->closed;
    rpc_conn_close(conn, -ECANCELED, "the connection was closed");
    if (was_closed && conn->busy == 1)
        free(conn); // its line went when it was closed
    else
        conn_leave(conn); // NOLINT(clang-analyzer-unix.Malloc): busy is counted, it was not freed
}

int rpc_notify(struct rpc_conn *conn, const char *method, json_t *params)
{
    return send_message(conn, rpc_request_message(method, params, 0, 0), NULL, 0);
}

int rpc_call_async(struct rpc_conn *conn, const char *method, json_t *params, const int *fds, size_t n_fds, unsigned timeout_ms,
                   rpc_answer_fn *fn, void *arg)
{
    struct pending *p = calloc(1, sizeof(*p));
    if (!p) {
        json_decref(params);
        return -ENOMEM;
    }
    *p = (struct pending){.next = conn->pending, .id = ++conn->last_id, .fn = fn, .arg = arg};
    p->deadline_ns = timeout_ms ? clock_now_ns() + timeout_ms * NS_PER_MS : 0;
    int ret = send_message(conn, rpc_request_message(method, params, p->id, n_fds), fds, n_fds);
    if (ret < 0) {
        free(p);
        return ret;
    }
    conn->pending = p;
    arm_timer(conn);
    return 0;
}

struct rpc_conn *rpc_request_conn(const struct rpc_request *req)
{
    return req->conn;
}

int rpc_request_take_fd(struct rpc_request *req, size_t index)
{
    if (!req || index >= req->n_fds || req->fds[index] < 0)
        return -ENOENT;
    int fd = req->fds[index];
    req->fds[index] = -1;
    return fd;
}

// Takes message. An answer that is too long for a line becomes an error, since the other end waits for one.
static void request_end(struct rpc_request *req, json_t *message)
{
    struct rpc_conn *conn = req->conn;
    request_unlink(req);
    if (!conn)
        json_decref(message);
    else if (send_message(conn, message, NULL, 0) == -EMSGSIZE)
        refuse(conn, req->id, RPC_FAILED, "the answer is longer than a line may be");
    request_free(req);
}

void rpc_reply(struct rpc_request *req, json_t *result)
{
    if (req)
        request_end(req, rpc_result_message(req->id, result));
    else
        json_decref(result);
}

void rpc_reply_error(struct rpc_request *req, int rpc_code, const struct tv_error *err)
{
    if (req)
        request_end(req, rpc_error_message(req->id, rpc_code, err));
}
