// The router as its supervisor sees it: a worker, its control socket and a socket for each port that a machine connects to, all in
// one folder.
//
// DIR/router.sock and DIR/net-NETWORK.PORT.sock. After a restart of the supervisor the same router is found again by its sockets.
// On the caller's thread; only router_process_stop() waits, for at most ROUTER_STOP_MS.
#pragma once

#include "base/error.h"
#include "control/worker/worker.h"

#include <limits.h>

#define ROUTER_STOP_MS 3000

struct router_process {
    struct worker worker; // pid 0: not running
    char dir[PATH_MAX];
};

// Starts a router with its control socket in router->dir. stderr_fd as for worker_start().
int router_process_start(struct router_process *router, int stderr_fd, struct tv_error *err);
// The control connection.
int router_process_connect(const struct router_process *router, struct tv_error *err);
// Where the machine behind a port is waited for. -ENAMETOOLONG: sockets have at most 107 characters (unix(7)).
int router_process_port_path(const struct router_process *router, const char *network, const char *port, char path[static PATH_MAX],
                             struct tv_error *err);
// Asks it to end, kills it when it does not within ROUTER_STOP_MS, and takes its sockets away.
void router_process_stop(struct router_process *router);
