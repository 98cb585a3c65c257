// Accepts JSON-RPC connections: see rpc.h.
#include "base/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rpc_conn.h"

// Without descriptors or memory the waiting client stays in the queue, and an event loop that is told so at once would spin.
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

struct rpc_server {
    struct loop *loop;
    int listen_fd; // ours
    struct loop_source *source, *timer;
    struct rpc_service service;
    struct rpc_conn *conns;
};

static void resume(void *arg)
{
    struct rpc_server *server = arg;
    loop_set_events(server->source, EPOLLIN);
}

static void accept_one(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct rpc_server *server = arg;
    int conn_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (conn_fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        loop_set_events(server->source, 0);
        loop_set_timer(server->timer, ACCEPT_PAUSE_NS, 0);
    }
    if (conn_fd < 0)
        return;
    struct rpc_conn *conn = rpc_conn_new(server->loop, conn_fd, &server->service, server, NULL);
    if (!conn)
        return;
    conn->next = server->conns;
    server->conns = conn;
    if (server->service.opened)
        server->service.opened(server->service.arg, conn);
}

void rpc_server_forget(struct rpc_server *server, struct rpc_conn *conn)
{
    for (struct rpc_conn **at = &server->conns; *at; at = &(*at)->next)
        if (*at == conn) {
            *at = conn->next;
            break;
        }
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
    server->timer = server->source ? loop_add_timer(loop, resume, server, err) : NULL;
    if (!server->timer) {
        rpc_server_destroy(server);
        return NULL;
    }
    return server;
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (!server)
        return;
    while (server->conns)
        rpc_conn_close(server->conns, -ECANCELED, "the server was stopped");
    loop_remove(server->source);
    loop_remove(server->timer);
    close(server->listen_fd);
    free(server);
}

void rpc_server_broadcast(struct rpc_server *server, const char *method, json_t *params)
{
    for (struct rpc_conn *conn = server->conns; conn; conn = conn->next)
        rpc_notify(conn, method, json_incref(params));
    json_decref(params);
}
