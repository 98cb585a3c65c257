// The command's side of trivetd's control socket: see client.h.
#include "control/client.h"

#include "base/clock.h"
#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>

#define START_DEADLINE_NS (10 * NS_PER_S)

static int dial(struct tv_error *err)
{
    char run[PATH_MAX], path[PATH_MAX];
    int rc = path_run_dir(run, err);
    if (!rc)
        rc = path_format(path, err, "%s/trivetd.sock", run);
    if (rc)
        return rc;
    int fd = rpc_connect(path, err);
    if (fd == -ENOENT || fd == -ECONNREFUSED)
        return tv_error_set(err, fd, "no trivetd runs here (%s); `trivet up FILE` starts one", path);
    if (fd == -EACCES)
        return tv_error_set(err, fd, "%s: no permission: that trivetd is another user's", path);
    return fd;
}

// What it said last, which is why it went.
static int explain_end(const char *log, struct tv_error *err)
{
    cleanup_free char *text = NULL;
    size_t len = 0;
    if (file_read_all(log, 64u << 20, &text, &len, NULL) || len == 0)
        return tv_error_set(err, -EIO, "trivetd ended at once; its log is %s", log);
    if (text[len - 1] == '\n')
        text[len - 1] = 0;
    const char *line = strrchr(text, '\n');
    return tv_error_set(err, -EIO, "%.400s", line ? line + 1 : text);
}

static int start_daemon(struct worker *worker, char log[static PATH_MAX], struct tv_error *err)
{
    char state[PATH_MAX];
    int rc = path_state_dir(state, err);
    if (!rc)
        rc = dir_make(state, 0700, err);
    if (!rc)
        rc = path_format(log, err, "%s/trivetd.log", state);
    if (rc)
        return rc;
    cleanup_close int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return tv_error_set(err, -errno, "%s: %s", log, strerror(errno));
    static const char *const argv[] = {"trivetd", "--exit-when-empty", NULL};
    const struct worker_start start = {.program = "trivetd", .argv = argv, .stderr_fd = log_fd};
    return worker_start(worker, &start, err);
}

static int start_and_dial(struct tv_error *err)
{
    char log[PATH_MAX];
    struct worker worker;
    int fd, rc = start_daemon(&worker, log, err);
    if (rc)
        return rc;
    cleanup_close int pidfd = worker_open_child(&worker);
    uint64_t deadline_ns = clock_now_ns() + START_DEADLINE_NS;
    while (clock_now_ns() < deadline_ns) {
        fd = dial(err);
        if (fd >= 0)
            return fd;
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        if (poll(&pfd, 1, 10) == 0)
            continue;
        waitpid(worker.pid, NULL, 0);
        fd = dial(err); // somebody else may have started one at the same time
        return fd >= 0 ? fd : explain_end(log, err);
    }
    return tv_error_set(err, -ETIMEDOUT, "trivetd does not answer; its log is %s", log);
}

int client_connect(struct tv_error *err)
{
    int fd = dial(err);
    return fd == -ECONNREFUSED ? start_and_dial(err) : fd; // its socket is there and nobody answers: it died
}

int client_connect_or_start(struct tv_error *err)
{
    int fd = dial(err);
    return fd == -ENOENT || fd == -ECONNREFUSED ? start_and_dial(err) : fd;
}

int client_call(int fd, const char *method, json_t *params, json_t **result, struct tv_error *err)
{
    return rpc_call(fd, method, params, NULL, 0, CLIENT_TIMEOUT_MS, result, err);
}

int client_call_machine(int fd, const char *machine, const char *method, json_t *params, int pass_fd, json_t **result,
                        struct tv_error *err)
{
    json_t *outer = json_pack("{s:s, s:s, s:o}", "name", machine, "method", method, "params", params);
    return rpc_call(fd, "machine.call", outer, &pass_fd, pass_fd >= 0, CLIENT_TIMEOUT_MS, result, err);
}
