// Unix sockets by path: see rpc.h.
#include "base/rpc.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECT_S = 10 }; // for a place in the queue of one who accepts nobody

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
    const struct timeval limit = {.tv_sec = CONNECT_S}, none = {0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        const int code = errno == EAGAIN ? ETIMEDOUT : errno;
        ret = tv_error_set(err, -code, "%s: %s", path, code == ETIMEDOUT ? "nobody takes the connections there" : strerror(code));
        close(fd);
        return ret;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
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

int rpc_bind(const char *path, unsigned mode, struct tv_error *err)
{
    struct sockaddr_un address;
    int ret = make_address(path, &address, err);
    if (ret < 0)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    ret = bind_fresh(fd, &address);
    if (ret == 0 && chmod(path, (mode_t)mode) != 0)
        ret = -errno;
    if (ret == 0)
        return fd;
    close(fd);
    if (ret == -EADDRINUSE)
        return tv_error_set(err, ret,
                            "%s: somebody listens there already, or it is no stale socket: stop it or choose another path", path);
    return tv_error_set(err, ret, "%s: %s", path, strerror(-ret));
}

int rpc_listen(const char *path, unsigned mode, struct tv_error *err)
{
    int fd = rpc_bind(path, mode, err);
    if (fd < 0 || listen(fd, 64) == 0)
        return fd;
    int ret = tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    close(fd);
    return ret;
}
