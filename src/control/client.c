// The command's side of trivetd's control socket: see client.h.
#include "control/client.h"

#include "base/clock.h"
#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/files.h"
#include "control/paths.h"
#include "control/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_DEADLINE_NS (10 * NS_PER_S)
#define END_DEADLINE_MS 5000

static int find_socket(char path[static PATH_MAX], struct tv_error *err)
{
    char run[PATH_MAX];
    int rc = path_run_dir(run, err);
    return rc ? rc : path_format(path, err, "%s/trivetd.sock", run);
}

static int no_trivetd(const char *path, const char *why, struct tv_error *err)
{
    return tv_error_set(
        err, -EADDRINUSE,
        "%s: what listens there does not answer as a trivetd does (%s); end it, or set TRIVET_RUN_DIR to another folder", path,
        why);
}

// Takes fd and returns it if a trivetd is at its other end. -ENOTCONN: one that is just ending, it may be.
static int greet(int fd, const char *path, struct tv_error *err)
{
    cleanup_json json_t *status = NULL;
    int rc = rpc_call(fd, "trivetd.status", json_object(), NULL, 0, CLIENT_HELLO_MS, &status, err);
    if (rc == 0)
        return fd;
    close(fd);
    no_trivetd(path, strerror(-rc), err);
    return rc == -ECONNRESET || rc == -EPIPE ? -ENOTCONN : rc == -ENOTCONN ? rc : -EADDRINUSE;
}

static int dial(struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = find_socket(path, err);
    if (rc)
        return rc;
    int fd = rpc_connect(path, err);
    if (fd == -ENOENT)
        return tv_error_set(err, -ESRCH, "no trivetd runs here (%s); `trivet up FILE` starts one", path);
    if (fd == -EACCES)
        return tv_error_set(err, fd, "%s: no permission: that trivetd is another user's; set TRIVET_RUN_DIR to another folder",
                            path);
    if (fd == -ETIMEDOUT)
        return no_trivetd(path, "it takes no connections", err);
    return fd < 0 ? fd : greet(fd, path, err);
}

// What it said last, which is why it went. Status 2: something to put right before it can start.
static int explain_end(const char *log, size_t log_bytes_before, int status, struct tv_error *err)
{
    const int code = WIFEXITED(status) && WEXITSTATUS(status) == 2 ? -EINVAL : -EIO;
    cleanup_free char *text = NULL;
    size_t len = 0;
    if (file_read_all(log, 64u << 20, &text, &len, NULL) || len <= log_bytes_before)
        return tv_error_set(err, code, "trivetd ended at once and could not say why in %s: is there room, and permission to write?",
                            log);
    if (text[len - 1] == '\n')
        text[len - 1] = 0;
    const char *line = strrchr(text, '\n');
    return tv_error_set(err, code, "%.400s", line ? line + 1 : text);
}

// The log is what tells of all that goes wrong: a disk that has no room for it is found out before anything is started.
static int open_log(const char *path, size_t *len_bytes, struct tv_error *err)
{
    static const char header[] = "--- trivetd\n";
    struct stat st;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (write(fd, header, sizeof(header) - 1) == sizeof(header) - 1 && fstat(fd, &st) == 0) {
        *len_bytes = (size_t)st.st_size;
        return fd;
    }
    int code = errno ? errno : ENOSPC;
    close(fd);
    return tv_error_set(err, -code, "%s: cannot be written: %s; make room, or set TRIVET_STATE_DIR to a folder on another disk",
                        path, strerror(code));
}

static int start_daemon(struct worker *worker, char log[static PATH_MAX], size_t *log_bytes, struct tv_error *err)
{
    char state[PATH_MAX], run[PATH_MAX];
    int rc = path_run_dir(run, err);
    if (!rc)
        rc = dir_make_own(run, "TRIVET_RUN_DIR", err);
    if (!rc)
        rc = path_state_dir(state, err);
    if (!rc)
        rc = dir_make_own(state, "TRIVET_STATE_DIR", err);
    if (!rc)
        rc = path_format(log, err, "%s/trivetd.log", state);
    if (rc)
        return rc;
    cleanup_close int log_fd = open_log(log, log_bytes, err);
    if (log_fd < 0)
        return log_fd;
    static const char *const argv[] = {"trivetd", "--exit-when-empty", NULL};
    const struct worker_start start = {.program = "trivetd", .argv = argv, .stderr_fd = log_fd};
    return worker_start(worker, &start, err);
}

static int start_and_dial(struct tv_error *err)
{
    char log[PATH_MAX];
    struct worker worker;
    size_t log_bytes = 0;
    int fd, status, rc = start_daemon(&worker, log, &log_bytes, err);
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
        waitpid(worker.pid, &status, 0);
        fd = dial(err); // somebody else may have started one at the same time
        return fd >= 0 ? fd : explain_end(log, log_bytes, status, err);
    }
    return tv_error_set(err, -ETIMEDOUT, "trivetd does not answer; its log is %s", log);
}

// One that is just ending is waited for.
static int dial_settled(struct tv_error *err)
{
    uint64_t deadline_ns = clock_now_ns() + START_DEADLINE_NS;
    int fd;
    while ((fd = dial(err)) == -ENOTCONN && clock_now_ns() < deadline_ns)
        poll(NULL, 0, 10);
    return fd;
}

int client_connect(struct tv_error *err)
{
    int fd = dial_settled(err);
    return fd == -ECONNREFUSED ? start_and_dial(err) : fd; // its socket is there and nobody listens: it died
}

int client_connect_or_start(struct tv_error *err)
{
    int fd = dial_settled(err);
    return fd == -ESRCH || fd == -ECONNREFUSED ? start_and_dial(err) : fd;
}

int client_call(int fd, const char *method, json_t *params, json_t **result, struct tv_error *err)
{
    return client_call_long(fd, method, params, 0, result, err);
}

int client_call_long(int fd, const char *method, json_t *params, unsigned takes_ms, json_t **result, struct tv_error *err)
{
    return rpc_call(fd, method, params, NULL, 0, takes_ms + CLIENT_TIMEOUT_MS, result, err);
}

int client_call_with(int fd, const char *method, json_t *params, int pass_fd, json_t **result, struct tv_error *err)
{
    return rpc_call(fd, method, params, &pass_fd, pass_fd >= 0, CLIENT_TIMEOUT_MS, result, err);
}

int client_call_machine(int fd, const char *machine, const char *method, json_t *params, int pass_fd, json_t **result,
                        struct tv_error *err)
{
    json_t *outer = json_pack("{s:s, s:s, s:o}", "name", machine, "method", method, "params", params);
    return client_call_with(fd, "machine.call", outer, pass_fd, result, err);
}

void client_end_if_empty(int fd)
{
    json_t *result = NULL;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    if (client_call(fd, "trivetd.end_if_empty", json_object(), &result, NULL) == 0 && json_is_true(json_object_get(result, "ends")))
        poll(&pfd, 1, END_DEADLINE_MS);
    json_decref(result);
}
