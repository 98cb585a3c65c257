// JSON-RPC 2.0 connections: see rpc.h. Sending and receiving lines with descriptors is rpc_line.c, sockets by path are
// rpc_socket.c.
#include "base/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rpc_line.h"

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

struct rpc_server {
    struct loop *loop;
    int listen_fd;
    struct loop_source *source;
    struct rpc_service service;
    struct rpc_conn *conns;
};

struct rpc_conn {
    struct loop *loop;
    struct rpc_service service;
    struct rpc_server *server; // NULL for a connection of its own
    struct rpc_conn *next;     // in server->conns
    struct loop_source *source, *timer;
    struct rpc_line line;
    struct rpc_request *requests; // not yet answered
    struct pending *pending;
    json_int_t last_id;
    unsigned busy; // callbacks on the stack; the conn is freed when none is left
    bool closed;
};

static void conn_close(struct rpc_conn *conn);

static void conn_free(struct rpc_conn *conn)
{
    rpc_line_fini(&conn->line);
    free(conn);
}

static void conn_enter(struct rpc_conn *conn)
{
    conn->busy++;
}

static void conn_leave(struct rpc_conn *conn)
{
    if (--conn->busy == 0 && conn->closed)
        conn_free(conn);
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

static void conn_close(struct rpc_conn *conn)
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
        for (struct rpc_conn **at = &conn->server->conns; *at; at = &(*at)->next)
            if (*at == conn) {
                *at = conn->next;
                break;
            }
    cancel_pending(conn, -ECANCELED, "the connection was closed");
    if (conn->service.closed)
        conn->service.closed(conn->service.arg, conn);
    conn_leave(conn);
}

static void flush(struct rpc_conn *conn)
{
    if (conn->closed)
        return;
    int ret = rpc_line_flush(&conn->line);
    if (ret < 0)
        conn_close(conn);
    else
        loop_set_events(conn->source, EPOLLIN | (ret > 0 ? (uint32_t)EPOLLOUT : 0));
}

// Queues a message; takes it. Oversized and unencodable ones cannot happen but by our own bug or no memory.
static int send_message(struct rpc_conn *conn, json_t *message, const int *fds, size_t n_fds)
{
    int ret = message && !conn->closed ? rpc_line_put(&conn->line, message, fds, n_fds) : message ? -EPIPE : -ENOMEM;
    json_decref(message);
    if (ret == 0)
        flush(conn);
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

static void take_request(struct rpc_conn *conn, const json_t *message, const json_t *id, const char *name)
{
    const json_t *params = json_object_get(message, "params");
    json_int_t n_fds = json_integer_value(json_object_get(message, "fds"));
    if ((params && !json_is_object(params)) || n_fds < 0 || n_fds > RPC_FDS_MAX || (size_t)n_fds > conn->line.n_in_fds) {
        refuse(conn, id, RPC_INVALID, "params must be an object and fds the number of descriptors sent");
        return;
    }
    struct rpc_request *req = calloc(1, sizeof(*req));
    if (!req) {
        conn_close(conn);
        return;
    }
    req->conn = conn;
    req->id = json_deep_copy(id);
    req->n_fds = (size_t)n_fds;
    rpc_line_take_fds(&conn->line, req->fds, req->n_fds);
    const struct rpc_method *method = find_method(conn, name);
    json_t *none = params ? NULL : json_object();
    if (!id) { // a notification: descriptors that came with it are closed
        request_free(req);
        if (method)
            method->fn(conn->service.arg, NULL, params ? params : none);
    } else {
        req->next = conn->requests;
        conn->requests = req;
        struct tv_error err;
        if (method) {
            method->fn(conn->service.arg, req, params ? params : none);
        } else {
            tv_error_set(&err, -ENOSYS, "there is no method '%.100s'", name);
            rpc_reply_error(req, RPC_NO_METHOD, &err);
        }
    }
    json_decref(none);
}

static void take_message(void *arg, json_t *message)
{
    struct rpc_conn *conn = arg;
    const json_t *id = json_object_get(message, "id");
    const char *method = json_string_value(json_object_get(message, "method"));
    if (conn->closed)
        return;
    if (method)
        take_request(conn, message, id, method);
    else if (id && (json_object_get(message, "result") || json_object_get(message, "error")))
        take_answer(conn, message, id);
    else
        refuse(conn, id, RPC_INVALID, "neither a request nor an answer of JSON-RPC 2.0");
}

static void conn_ready(void *arg, int fd, uint32_t events)
{
    (void)fd;
    struct rpc_conn *conn = arg;
    conn_enter(conn);
    if (events & EPOLLOUT)
        flush(conn);
    if (!conn->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && rpc_line_read(&conn->line, take_message, conn) != 0)
        conn_close(conn);
    conn_leave(conn);
}

static struct rpc_conn *conn_new(struct loop *loop, int fd, const struct rpc_service *service, struct rpc_server *server,
                                 struct tv_error *err)
{
    struct rpc_conn *conn = calloc(1, sizeof(*conn));
    if (!conn) {
        close(fd);
        tv_error_set(err, -ENOMEM, "control connection: no memory");
        return NULL;
    }
    conn->loop = loop;
    conn->server = server;
    if (service)
        conn->service = *service;
    rpc_line_init(&conn->line, fd);
    conn->source = loop_add_fd(loop, fd, EPOLLIN, conn_ready, conn, err);
    conn->timer = conn->source ? loop_add_timer(loop, timed_out, conn, err) : NULL;
    if (!conn->timer) {
        loop_remove(conn->source);
        conn_free(conn);
        return NULL;
    }
    return conn;
}

struct rpc_conn *rpc_conn_create(struct loop *loop, int fd, const struct rpc_service *service, struct tv_error *err)
{
    struct rpc_conn *conn = conn_new(loop, fd, service, NULL, err);
    if (conn && conn->service.opened)
        conn->service.opened(conn->service.arg, conn);
    return conn;
}

void rpc_conn_destroy(struct rpc_conn *conn)
{
    if (!conn || conn->closed)
        return;
    conn->service.closed = NULL; // the owner knows
    conn_enter(conn);
    conn_close(conn);
    conn_leave(conn);
}

static void accept_one(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct rpc_server *server = arg;
    int conn_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (conn_fd < 0)
        return;
    struct rpc_conn *conn = conn_new(server->loop, conn_fd, &server->service, server, NULL);
    if (!conn)
        return;
    conn->next = server->conns;
    server->conns = conn;
    if (server->service.opened)
        server->service.opened(server->service.arg, conn);
}

struct rpc_server *rpc_server_create(struct loop *loop, int listen_fd, const struct rpc_service *service, struct tv_error *err)
{
    struct rpc_server *server = calloc(1, sizeof(*server));
    if (!server) {
        close(listen_fd);
        tv_error_set(err, -ENOMEM, "control server: no memory");
        return NULL;
    }
    *server = (struct rpc_server){.loop = loop, .listen_fd = listen_fd, .service = *service};
    server->source = loop_add_fd(loop, listen_fd, EPOLLIN, accept_one, server, err);
    if (!server->source) {
        close(listen_fd);
        free(server);
        return NULL;
    }
    return server;
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (!server)
        return;
    while (server->conns)
        conn_close(server->conns);
    loop_remove(server->source);
    close(server->listen_fd);
    free(server);
}

void rpc_server_broadcast(struct rpc_server *server, const char *method, json_t *params)
{
    for (struct rpc_conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        rpc_notify(conn, method, json_incref(params));
    }
    json_decref(params);
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
    conn_enter(conn);
    conn->pending = p;
    int ret = send_message(conn, rpc_request_message(method, params, p->id, n_fds), fds, n_fds);
    if (ret < 0 && !conn->closed) {
        conn->pending = p->next;
        free(p);
    } else {
        ret = 0; // a connection that broke meanwhile has told fn so
        if (!conn->closed)
            arm_timer(conn);
    }
    conn_leave(conn);
    return ret;
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

static void request_end(struct rpc_request *req, json_t *message)
{
    struct rpc_conn *conn = req->conn;
    if (conn)
        for (struct rpc_request **at = &conn->requests; *at; at = &(*at)->next)
            if (*at == req) {
                *at = req->next;
                break;
            }
    request_free(req);
    if (conn)
        send_message(conn, message, NULL, 0);
    else
        json_decref(message);
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
