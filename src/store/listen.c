// Listening sockets and texts: see listen.h.
#include "store/listen.h"

#include "base/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 128
#define HOST_MAX 256u

static int bind_to(const struct addrinfo *info)
{
    const int one = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (!bind(fd, info->ai_addr, info->ai_addrlen) && !listen(fd, BACKLOG))
        return fd;
    const int r = -errno;
    close(fd);
    return r;
}

static int listen_tcp(const char *host, const char *port, struct tv_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int r = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (r)
        return tv_error_set(err, -EADDRNOTAVAIL, "tcp:%s:%s: %s", host, port, gai_strerror(r));
    int fd = bind_to(found);
    freeaddrinfo(found);
    return fd < 0 ? tv_error_set(err, fd, "tcp:%s:%s: cannot listen: %s", host, port, strerror(-fd)) : fd;
}

static int listen_host_port(const char *address, struct tv_error *err)
{
    char host[HOST_MAX];
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : 0;
    if (!colon || !colon[1] || len >= sizeof(host))
        return tv_error_set(err, -EINVAL, "tcp:%s: must be tcp:HOST:PORT", address);
    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    memcpy(host, address, len);
    host[len] = 0;
    return listen_tcp(host, colon + 1, err);
}

int listen_at(const char *address, const char **path, struct tv_error *err)
{
    *path = NULL;
    if (!strncmp(address, "tcp:", 4))
        return listen_host_port(address + 4, err);
    if (strncmp(address, "unix:", 5) || !address[5])
        return tv_error_set(err, -EINVAL, "%s: must be unix:PATH or tcp:HOST:PORT", address);
    int fd = rpc_listen(address + 5, 0600, err);
    if (fd >= 0)
        *path = address + 5;
    return fd;
}

int listen_read_text(int fd, const char *label, char **text, struct tv_error *err)
{
    struct stat st;
    *text = NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)LISTEN_TEXT_MAX)
        return tv_error_set(err, -EINVAL, "%s: must be a regular file of at most %u bytes", label, LISTEN_TEXT_MAX);
    char *bytes = malloc((size_t)st.st_size + 1);
    if (!bytes)
        return tv_error_set(err, -ENOMEM, "%s: out of memory", label);
    const ssize_t n = pread(fd, bytes, (size_t)st.st_size, 0);
    if (n < 0) {
        const int r = -errno;
        free(bytes);
        return tv_error_set(err, r, "%s: %s", label, strerror(-r));
    }
    bytes[n] = 0;
    *text = bytes;
    return 0;
}

int listen_load_text(const char *path, char **text, struct tv_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    int r = listen_read_text(fd, path, text, err);
    close(fd);
    return r;
}
