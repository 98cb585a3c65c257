// JSON-RPC 2.0 over a Unix stream socket, one object a line, with file descriptors beside it (SCM_RIGHTS).
//
// The same for every process: trivetd, its workers and the command. Both ends of a connection may send requests and notifications.
// A message that carries descriptors says so by a member "fds": N beside "method"; they are taken in order from the socket.
// Lines longer than RPC_LINE_MAX, bad JSON, or more descriptors than RPC_FDS_MAX close the connection. Everything here runs on the
// loop's thread, but rpc_call(), which is blocking and for programs without a loop.
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define RPC_LINE_MAX (4u << 20)
#define RPC_FDS_MAX 64

// Codes of JSON-RPC 2.0, section 5.1, and ours: a failed operation carries {"errno": "ENOENT"} in its data.
enum { RPC_PARSE = -32700, RPC_INVALID = -32600, RPC_NO_METHOD = -32601, RPC_BAD_PARAMS = -32602, RPC_FAILED = -32000 };

struct rpc_conn;
struct rpc_request; // a request that waits for its answer; belongs to the handler until it answers

// Must answer `req` once, now or later (a notification has req == NULL). Borrows params (never NULL; an empty object if absent).
typedef void rpc_method_fn(void *arg, struct rpc_request *req, const json_t *params);

struct rpc_method {
    const char *name;
    rpc_method_fn *fn;
};

struct rpc_service {
    const struct rpc_method *methods; // ends with a NULL name
    void *arg;
    void (*opened)(void *arg, struct rpc_conn *conn); // may be NULL
    void (*closed)(void *arg, struct rpc_conn *conn); // the other end has gone; the conn is freed after this; may be NULL
};

// Accepts on listen_fd (taken). Destroying closes the listener and all its connections, with service.closed called for each.
struct rpc_server *rpc_server_create(struct loop *loop, int listen_fd, const struct rpc_service *service, struct tv_error *err);
void rpc_server_destroy(struct rpc_server *server);
void rpc_server_broadcast(struct rpc_server *server, const char *method, json_t *params); // takes params

// A connection on a connected socket (taken), as client, server or both. service may be NULL. Without a service.closed the conn
// stays valid when the other end goes, every call on it fails with -ENOTCONN, and rpc_conn_destroy() frees it.
struct rpc_conn *rpc_conn_create(struct loop *loop, int fd, const struct rpc_service *service, struct tv_error *err);
// Unanswered calls get -ECANCELED (-ECONNRESET when the other end went first). service.closed is not called. NULL is fine.
void rpc_conn_destroy(struct rpc_conn *conn);

// Sending never closes a connection nor runs a callback: the loop does so later. -EMSGSIZE: longer than a line may be. Takes
// params.
int rpc_notify(struct rpc_conn *conn, const char *method, json_t *params);

// Answer of a call: result (borrowed) with err->code 0, or NULL with what the other end said.
typedef void rpc_answer_fn(void *arg, const json_t *result, const struct tv_error *err);
// Takes params; borrows fds (they are sent before or after return, as copies). timeout_ms 0: no limit.
int rpc_call_async(struct rpc_conn *conn, const char *method, json_t *params, const int *fds, size_t n_fds, unsigned timeout_ms,
                   rpc_answer_fn *fn, void *arg);

// Blocking call on a connected socket. Takes params. *result is the caller's to free. Notifications that arrive first are skipped.
int rpc_call(int fd, const char *method, json_t *params, const int *fds, size_t n_fds, unsigned timeout_ms, json_t **result,
             struct tv_error *err);

struct rpc_conn *rpc_request_conn(const struct rpc_request *req); // NULL once the connection has gone
int rpc_request_take_fd(struct rpc_request *req, size_t index);   // the caller's from now on; -ENOENT if there is none
void rpc_reply(struct rpc_request *req, json_t *result);          // takes result; NULL req is fine (a notification)
void rpc_reply_error(struct rpc_request *req, int rpc_code, const struct tv_error *err);

// Sockets by path. A path that exists and is answered to is -EADDRINUSE; a stale one is replaced.
int rpc_listen(const char *path, unsigned mode, struct tv_error *err);
// The same, but nobody is listened to yet: who connects is refused.
int rpc_bind(const char *path, unsigned mode, struct tv_error *err);
int rpc_connect(const char *path, struct tv_error *err);
