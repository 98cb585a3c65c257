// The router: virtual networks (vn.h) on workers (worker.h), by name, for whoever controls it. The loop's thread, which started
// DPDK.
//
// Parameters are objects of JSON, as trivet-router(8) has them; they are checked whole before anything is changed.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/rpc.h"

#include <jansson.h>

#define ROUTER_VNS_MAX 4096

struct router;

// With DPDK started (eal.h): a worker on each of the lcores 1 to n_workers. loop: borrowed, has a timer for promises. NULL with
// err.
struct router *router_create(struct loop *loop, unsigned n_workers, struct tv_error *err);
void router_destroy(struct router *router); // with all its networks; NULL is fine

// unproven: as with router_promise(), or NULL; of a port as well.
int router_add_vn(struct router *router, const json_t *params, json_t *unproven, struct tv_error *err);
int router_remove_vn(struct router *router, const char *name, struct tv_error *err); // with its ports
// fd: the descriptor that came with it, or -1; taken with success only.
int router_add_port(struct router *router, const json_t *params, int fd, json_t *unproven, struct tv_error *err);
int router_remove_port(struct router *router, const char *vn, const char *name, struct tv_error *err);

// What a network is promised from now on, or a port of it (NULL: the network), as trivet-promises(7) has it; admitted: whoever asks
// has decided that it can be kept. What is taken on trust is appended to `unproven`: {"name", "promise"}.
int router_promise(struct router *router, const char *vn, const char *port, const json_t *promises, bool admitted, json_t *unproven,
                   struct tv_error *err);
json_t *router_list_promises(const struct router *router); // of all to whom something was promised, with verdicts (promises.h)
// Who is told when a promise breaks or is kept again.
void router_set_control(struct router *router, struct rpc_server *control);

// What networks of a type have besides (vn.h, struct vn_command), by the method's name; params has the network's as "vn". *result
// is the caller's, or as it was.
int router_command(struct router *router, const char *command, const json_t *params, json_t **result, struct tv_error *err);

// ---- what hosts tell each other of the networks that stand on both (peer/peer.h) ----

// fn(arg) after each change of networks and ports; NULL: no longer.
void router_set_changed(struct router *router, void (*fn)(void *arg), void *arg);
// Of each network that has a link to the host: {its identity, the same on both: [{"address", "mac"} of its machines here]}. host:
// as links show it. The caller's.
json_t *router_announce(const struct router *router, const char *host);
// The link of the network of that identity to the host: a number that no other link ever has; 0: there is none.
uint64_t router_find_link(const struct router *router, const char *host, const char *identity);
// The machines that it has there, and no others; a list as above, which is checked. -ENOENT: there is no such link.
int router_hear(struct router *router, const char *host, const char *identity, const json_t *neighbours, struct tv_error *err);

json_t *router_list(const struct router *router);                                            // the names of its networks
json_t *router_stat_vn(const struct router *router, const char *name, struct tv_error *err); // NULL with err
json_t *router_stat(const struct router *router);                                            // its workers

// The far end of a port of the kind ring: a frame is received by it; what it has sent is taken, its length or -EAGAIN.
int router_put(struct router *router, const char *vn, const char *port, const void *frame, size_t len_bytes, struct tv_error *err);
int router_take(struct router *router, const char *vn, const char *port, void *frame, size_t max_bytes, struct tv_error *err);

// What would become of the frame if it came by the port (trace.h); the caller's. NULL with err.
json_t *router_trace(struct router *router, const char *vn, const char *port, const uint8_t *frame, size_t len_bytes,
                     struct tv_error *err);

struct capture;
// What passes the port, or all if that is "", is copied there (capture.h, vn.h). Until it is cleared; the network may be gone then.
int router_set_capture(struct router *router, const char *vn, const char *port, struct capture *capture, struct tv_error *err);
void router_clear_capture(struct router *router, const char *vn, const struct capture *capture);

// control.c: JSON-RPC on a listening socket (taken); quit(arg) when router.quit came.
struct rpc_server *router_serve_control(struct router *router, struct loop *loop, int listen_fd, void (*quit)(void *), void *arg,
                                        struct tv_error *err);
void router_end_control(struct rpc_server *server); // NULL is fine
