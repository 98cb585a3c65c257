// The router as its supervisor sees it: see router_process.h.
#include "control/worker/router_process.h"

#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/paths.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static int control_path(const struct router_process *router, char path[static PATH_MAX], struct tv_error *err)
{
    return path_format(path, err, "%s/router.sock", router->dir);
}

int router_process_start(struct router_process *router, int stderr_fd, struct tv_error *err)
{
    char path[PATH_MAX], number[16];
    int rc = control_path(router, path, err);
    if (rc)
        return rc;
    cleanup_close int listen_fd = rpc_listen(path, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    snprintf(number, sizeof(number), "%d", listen_fd);
    const char *const argv[] = {"trivet-router", "--control", number, NULL};
    const struct worker_start start = {
        .program = "trivet-router", .argv = argv, .fds = &listen_fd, .n_fds = 1, .stderr_fd = stderr_fd};
    rc = worker_start(&router->worker, &start, err);
    if (rc)
        unlink(path);
    return rc;
}

int router_process_connect(const struct router_process *router, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = control_path(router, path, err);
    return rc ? rc : rpc_connect(path, err);
}

int router_process_port_path(const struct router_process *router, const char *network, const char *port, char path[static PATH_MAX],
                             struct tv_error *err)
{
    int rc = path_format(path, err, "%s/net-%s.%s.sock", router->dir, network, port);
    if (!rc && strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        rc = tv_error_set(err, -ENAMETOOLONG, "%s: longer than a socket's path may be; set TRIVET_RUN_DIR to a shorter folder",
                          path);
    return rc;
}

// The sockets of ports, which a router that was killed has left.
static void remove_port_sockets(const struct router_process *router)
{
    DIR *dir = opendir(router->dir);
    const struct dirent *entry;
    char path[PATH_MAX];
    while (dir && (entry = readdir(dir))) {
        const size_t len = strlen(entry->d_name);
        if (len > 9 && strncmp(entry->d_name, "net-", 4) == 0 && strcmp(entry->d_name + len - 5, ".sock") == 0 &&
            path_format(path, NULL, "%s/%s", router->dir, entry->d_name) == 0)
            unlink(path);
    }
    if (dir)
        closedir(dir);
}

void router_process_stop(struct router_process *router)
{
    char path[PATH_MAX];
    cleanup_close int pidfd = worker_open(&router->worker);
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    if (pidfd >= 0) {
        worker_kill(&router->worker, SIGTERM);
        if (poll(&pfd, 1, ROUTER_STOP_MS) == 0)
            worker_kill(&router->worker, SIGKILL);
    }
    router->worker = (struct worker){0};
    if (control_path(router, path, NULL) == 0)
        unlink(path);
    remove_port_sockets(router);
}
