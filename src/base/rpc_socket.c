// Unix sockets by path, and the blocking call: see rpc.h.
#include "base/rpc.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rpc_line.h"

static int make_address(const char *path, struct sockaddr_un *address, struct tv_error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path))
        return tv_error_set(err, -ENAMETOOLONG, "%s: a socket's path has at most %zu characters", path,
                            sizeof(address->sun_path) - 1);
    strcpy(address->sun_path, path);
    return 0;
}

int rpc_connect(const char *path, struct tv_error *err)
{
    struct sockaddr_un address;
    int ret = make_address(path, &address, err);
    if (ret < 0)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        ret = tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
        close(fd);
        return ret;
    }
    return fd;
}

static int bind_fresh(int fd, const struct sockaddr_un *address)
{
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    int peer = rpc_connect(address->sun_path, NULL);
    if (peer >= 0) {
        close(peer);
        return -EADDRINUSE;
    }
    struct stat st;
    if (peer != -ECONNREFUSED || lstat(address->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode) || unlink(address->sun_path) != 0)
        return -EADDRINUSE; // a file that is no socket is left alone
    return bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : -errno;
}

int rpc_listen(const char *path, unsigned mode, struct tv_error *err)
{
    struct sockaddr_un address;
    int ret = make_address(path, &address, err);
    if (ret < 0)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    ret = bind_fresh(fd, &address);
    if (ret == 0 && (chmod(path, (mode_t)mode) != 0 || listen(fd, 64) != 0))
        ret = -errno;
    if (ret == 0)
        return fd;
    close(fd);
    if (ret == -EADDRINUSE)
        return tv_error_set(err, ret,
                            "%s: somebody listens there already, or it is no stale socket: stop it or choose another path", path);
    return tv_error_set(err, ret, "%s: %s", path, strerror(-ret));
}

struct wanted {
    bool done;
    json_t *result;
    struct tv_error *err;
    int code;
};

static void take_answer(void *arg, json_t *message)
{
    struct wanted *w = arg;
    if (w->done || json_integer_value(json_object_get(message, "id")) != 1 || json_object_get(message, "method"))
        return;
    struct tv_error err = {0};
    const json_t *result = rpc_answer_decode(message, &err);
    w->done = true;
    w->result = json_deep_copy(result);
    if (!result)
        w->code = tv_error_set(w->err, err.code ? err.code : -EPROTO, "%s", err.text);
}

static int wait_until(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    int timeout_ms = -1;
    if (deadline_ns) {
        uint64_t now = clock_now_ns();
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        timeout_ms = (int)((deadline_ns - now) / NS_PER_MS) + 1;
    }
    int n = poll(&p, 1, timeout_ms);
    return n < 0 && errno != EINTR ? -errno : 0;
}

static int exchange(struct rpc_line *line, struct wanted *w, uint64_t deadline_ns)
{
    int ret;
    while ((ret = rpc_line_flush(line)) > 0)
        if ((ret = wait_until(line->fd, POLLOUT, deadline_ns)) < 0)
            break;
    while (ret == 0 && !w->done) {
        ret = wait_until(line->fd, POLLIN, deadline_ns);
        if (ret == 0)
            ret = rpc_line_read(line, take_answer, w);
    }
    return w->done ? 0 : ret;
}

int rpc_call(int fd, const char *method, json_t *params, const int *fds, size_t n_fds, unsigned timeout_ms, json_t **result,
             struct tv_error *err)
{
    *result = NULL;
    json_t *message = rpc_request_message(method, params, 1, n_fds);
    int copy = dup(fd); // the line owns a descriptor; the caller keeps his
    if (!message || copy < 0) {
        json_decref(message);
        return tv_error_set(err, -ENOMEM, "%s: no memory or descriptor", method);
    }
    struct rpc_line line;
    struct wanted w = {.err = err};
    rpc_line_init(&line, copy);
    int ret = rpc_line_put(&line, message, fds, n_fds);
    json_decref(message);
    if (ret == 0)
        ret = exchange(&line, &w, timeout_ms ? clock_now_ns() + timeout_ms * NS_PER_MS : 0);
    rpc_line_fini(&line);
    if (ret < 0)
        return tv_error_set(err, ret, "%s: %s", method, ret == -ENOTCONN ? "the other end closed the connection" : strerror(-ret));
    *result = w.result;
    return w.code;
}
