// The router's control socket: JSON-RPC methods over router.h. The loop's thread.
#include "router/router.h"

#include "base/rpc.h"
#include "router/control_capture.h"
#include "router/frame_text.h"
#include "router/params.h"
#include "router/peer/peer.h"
#include "router/port/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAKEN_MOST 1024 // frames of one answer

struct control {
    struct router *router;
    struct peers *peers;
    void (*quit)(void *arg);
    void *arg;
};

static struct control control; // one a process

static void answer(struct rpc_request *req, int r, const struct tv_error *err)
{
    if (r)
        rpc_reply_error(req, r == -EINVAL ? RPC_BAD_PARAMS : RPC_FAILED, err);
    else
        rpc_reply(req, json_object());
}

// With what is taken on trust. Takes unproven.
static void answer_promised(struct rpc_request *req, int r, json_t *unproven, const struct tv_error *err)
{
    if (r)
        answer(req, r, err);
    else
        rpc_reply(req, json_pack("{s:O}", "unproven", unproven));
    json_decref(unproven);
}

static void method_add_vn(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    (void)arg;
    json_t *unproven = json_array();
    answer_promised(req, router_add_vn(control.router, params, unproven, &err), unproven, &err);
}

static void method_remove_vn(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name;
    (void)arg;
    int r = params_get_string(params, "name", NULL, &name, &err);
    if (!r)
        r = router_remove_vn(control.router, name, &err);
    answer(req, r, &err);
}

static void method_list(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    (void)params;
    rpc_reply(req, router_list(control.router));
}

static void method_stat_vn(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *name;
    (void)arg;
    json_t *stat = params_get_string(params, "name", NULL, &name, &err) ? NULL : router_stat_vn(control.router, name, &err);
    if (stat)
        rpc_reply(req, stat);
    else
        answer(req, err.code, &err);
}

// With a descriptor beside it, for kinds that take one.
static void method_add_port(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    (void)arg;
    int fd = req ? rpc_request_take_fd(req, 0) : -1;
    if (fd < 0)
        fd = -1;
    json_t *unproven = json_array();
    const int r = router_add_port(control.router, params, fd, unproven, &err);
    if (r && fd >= 0)
        close(fd);
    answer_promised(req, r, unproven, &err);
}

// {"vn", and the port's name as the member `key`}
static int get_port(const json_t *params, const char *key, const char **vn, const char **port, struct tv_error *err)
{
    int r = params_get_string(params, "vn", NULL, vn, err);
    return r ? r : params_get_string(params, key, NULL, port, err);
}

static void method_remove_port(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *vn, *name;
    (void)arg;
    int r = get_port(params, "name", &vn, &name, &err);
    if (!r)
        r = router_remove_port(control.router, vn, name, &err);
    answer(req, r, &err);
}

// {"vn", and the port's name as "name", or the network's own; "promises"; "admitted"}: {"unproven"}
static void promise(struct rpc_request *req, const json_t *params, bool is_port)
{
    struct tv_error err = {0};
    const char *vn, *port = NULL;
    const json_t *admitted = json_object_get(params, "admitted"), *promises = json_object_get(params, "promises");
    json_t *unproven = json_array();
    int r = is_port ? get_port(params, "name", &vn, &port, &err) : params_get_string(params, "name", NULL, &vn, &err);
    if (!r && !promises)
        r = tv_error_set(&err, -EINVAL, "\"promises\" is missing, a string; an empty one takes all back");
    if (!r && admitted && !json_is_boolean(admitted))
        r = tv_error_set(&err, -EINVAL, "\"admitted\" must be true or false");
    if (!r)
        r = router_promise(control.router, vn, port, promises, json_is_true(admitted), unproven, &err);
    answer_promised(req, r, unproven, &err);
}

static void method_promise_vn(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    promise(req, params, false);
}

static void method_promise_port(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    promise(req, params, true);
}

static void method_promises(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    (void)params;
    rpc_reply(req, router_list_promises(control.router));
}

// ---- the far ends of rings ----

// {"vn", "port", "frames"}: all are checked before the first is put; it tells of the first there was no room for.
static void method_put(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const json_t *frames = json_object_get(params, "frames"), *entry;
    const char *vn, *port;
    uint8_t frame[PORT_FRAME_MAX];
    size_t i, len;
    (void)arg;
    int r = get_port(params, "port", &vn, &port, &err);
    if (!r && !json_is_array(frames))
        r = tv_error_set(&err, -EINVAL, "\"frames\" must be a list");
    for (i = 0; !r && (entry = json_array_get(frames, i)); i++)
        r = frame_read(entry, frame, &len, &err);
    for (i = 0; !r && (entry = json_array_get(frames, i)); i++) {
        frame_read(entry, frame, &len, &err);
        r = router_put(control.router, vn, port, frame, len, &err);
    }
    answer(req, r, &err);
}

// {"vn", "port"}: {"frames"}, those that were sent by the port and not taken yet
static void method_take(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *vn, *port;
    uint8_t frame[PORT_FRAME_MAX];
    (void)arg;
    json_t *frames = json_array();
    int len = get_port(params, "port", &vn, &port, &err);
    for (unsigned i = 0; len >= 0 && i < TAKEN_MOST; i++) {
        len = router_take(control.router, vn, port, frame, sizeof(frame), &err);
        if (len >= 0)
            json_array_append_new(frames, frame_write(frame, (size_t)len));
    }
    if (err.code)
        answer(req, err.code, &err);
    else
        rpc_reply(req, json_pack("{s:O}", "frames", frames));
    json_decref(frames);
}

// {"vn", "port", "frame"}: what would become of it
static void method_trace(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    const char *vn, *port;
    _Alignas(8) uint8_t frame[PORT_FRAME_MAX];
    size_t len;
    (void)arg;
    int r = get_port(params, "port", &vn, &port, &err);
    if (!r)
        r = frame_read(json_object_get(params, "frame"), frame, &len, &err);
    json_t *trace = r ? NULL : router_trace(control.router, vn, port, frame, len, &err);
    if (trace)
        rpc_reply(req, trace);
    else
        answer(req, err.code, &err);
}

// ---- what networks of one type have ----

static void run_command(const char *command, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    json_t *result = NULL;
    const int r = router_command(control.router, command, params, &result, &err);
    if (r || !result)
        answer(req, r, &err);
    else
        rpc_reply(req, result);
}

#define COMMAND(function, name)                                                                                                    \
    static void function(void *arg, struct rpc_request *req, const json_t *params)                                                 \
    {                                                                                                                              \
        (void)arg;                                                                                                                 \
        run_command(name, req, params);                                                                                            \
    }
COMMAND(method_add_routes, "route.add")
COMMAND(method_remove_routes, "route.remove")
COMMAND(method_list_routes, "route.list")
COMMAND(method_add_neighbours, "neighbour.add")
COMMAND(method_remove_neighbours, "neighbour.remove")
COMMAND(method_list_neighbours, "neighbour.list")
#undef COMMAND

// ---- other hosts ----

static void method_serve_peers(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    (void)arg;
    int fd = req ? rpc_request_take_fd(req, 0) : -1;
    if (fd < 0)
        fd = -1;
    const int r = peers_serve(control.peers, params, fd, &err);
    if (r && fd >= 0)
        close(fd);
    answer(req, r, &err);
}

static void method_add_peer(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    (void)arg;
    const int r = peers_add(control.peers, params, &err);
    answer(req, r, &err);
}

static void method_remove_peer(void *arg, struct rpc_request *req, const json_t *params)
{
    struct tv_error err = {0};
    (void)arg;
    const int r = peers_remove(control.peers, params, &err);
    answer(req, r, &err);
}

static void method_list_peers(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    (void)params;
    rpc_reply(req, json_pack("{s:o}", "peers", peers_list(control.peers)));
}

static void method_stat(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    (void)params;
    rpc_reply(req, router_stat(control.router));
}

static void method_quit(void *arg, struct rpc_request *req, const json_t *params)
{
    (void)arg;
    (void)params;
    rpc_reply(req, json_object());
    control.quit(control.arg);
}

void router_end_control(struct rpc_server *server)
{
    control_end_captures();
    if (control.router)
        router_set_control(control.router, NULL);
    rpc_server_destroy(server);
    peers_destroy(control.peers);
    control.peers = NULL;
}

struct rpc_server *router_serve_control(struct router *router, struct loop *loop, int listen_fd, void (*quit)(void *), void *arg,
                                        struct tv_error *err)
{
    static const struct rpc_method methods[] = {
        {"vn.add", method_add_vn},
        {"vn.remove", method_remove_vn},
        {"vn.list", method_list},
        {"vn.stat", method_stat_vn},
        {"port.add", method_add_port},
        {"port.remove", method_remove_port},
        {"vn.promise", method_promise_vn},
        {"port.promise", method_promise_port},
        {"router.promises", method_promises},
        {"port.put", method_put},
        {"port.take", method_take},
        {"route.add", method_add_routes},
        {"route.remove", method_remove_routes},
        {"route.list", method_list_routes},
        {"neighbour.add", method_add_neighbours},
        {"neighbour.remove", method_remove_neighbours},
        {"neighbour.list", method_list_neighbours},
        {"trace", method_trace},
        {"capture.start", control_start_capture},
        {"capture.stop", control_stop_capture},
        {"peer.serve", method_serve_peers},
        {"peer.add", method_add_peer},
        {"peer.remove", method_remove_peer},
        {"peer.list", method_list_peers},
        {"router.stat", method_stat},
        {"router.quit", method_quit},
        {NULL, NULL},
    };
    const struct rpc_service service = {.methods = methods};
    struct peers *peers = peers_create(router, loop, err);
    if (!peers) {
        close(listen_fd);
        return NULL;
    }
    control = (struct control){router, peers, quit, arg};
    control_init_captures(router, loop);
    struct rpc_server *server = rpc_server_create(loop, listen_fd, &service, err);
    if (!server)
        router_end_control(NULL);
    router_set_control(router, server);
    return server;
}
