// A JSON-RPC connection from within: what rpc.c, which runs it, shares with rpc_server.c, which accepts it. Private to base.
#pragma once

#include "base/rpc.h"
#include "base/rpc_line.h"

struct pending; // a call of ours that waits for its answer

// Invariants: once closed, source, timer, requests and pending are gone, and it is in no server's list; the memory stays while a
// callback is on the stack (busy), and while the owner, who is not told of the end, still holds it.
struct rpc_conn {
    struct rpc_service service;
    struct rpc_server *server; // NULL for a connection of its own
    struct rpc_conn *next;     // in the server's list
    struct loop_source *source, *timer;
    struct rpc_line line;
    struct rpc_request *requests; // not yet answered
    unsigned n_requests;
    struct pending *pending;
    json_int_t last_id;
    unsigned busy;
    bool broken; // shut down by us; the loop closes it
    bool closed;
    bool owner_holds;
};

// Takes fd, on failure too.
struct rpc_conn *rpc_conn_new(struct loop *loop, int fd, const struct rpc_service *service, struct rpc_server *server,
                              struct tv_error *err);
void rpc_conn_close(struct rpc_conn *conn, int code, const char *why); // unanswered calls get code and why; tells service.closed
void rpc_server_forget(struct rpc_server *server, struct rpc_conn *conn);
