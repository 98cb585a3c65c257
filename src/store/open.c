// Volumes from paths and addresses: see open.h.
#include "store/open.h"

#include "store/volume/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 5000

static int keep(json_t *object, const char *key, int fd, struct store_fds *fds, struct tv_error *err)
{
    if (fds->n == STORE_FDS_MAX) {
        close(fd);
        return tv_error_set(err, -E2BIG, "volume: more than %d files and sockets; divide it", STORE_FDS_MAX);
    }
    fds->fd[fds->n] = fd;
    json_object_set_new(object, key, json_integer((json_int_t)fds->n++));
    return 0;
}

static int open_image(json_t *object, const char *path, const struct store_open_options *options, struct store_fds *fds,
                      struct tv_error *err)
{
    const json_t *said = json_object_get(object, "read_only");
    const bool read_only = said ? json_is_true(said) : options->read_only;
    int fd = image_open(path, read_only, err);
    if (fd < 0)
        return fd;
    int r = options->lock_wait_ms ? image_lock(fd, read_only, path, options->lock_wait_ms, err) : 0;
    if (r) {
        close(fd);
        return r;
    }
    return keep(object, "fd", fd, fds, err);
}

static int open_key(json_t *object, const char *path, struct store_fds *fds, struct tv_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    return keep(object, "key_fd", fd, fds, err);
}

// ---- services ----

static int finish_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    if (!connect(fd, address, len))
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, CONNECT_TIMEOUT_MS) <= 0)
        return -ETIMEDOUT;
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return -error;
}

static int connect_to(int family, const struct sockaddr *address, socklen_t len)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int r = finish_connect(fd, address, len);
    if (!r)
        return fd;
    close(fd);
    return r;
}

static int open_socket(json_t *object, const char *path, struct store_fds *fds, struct tv_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return tv_error_set(err, -ENAMETOOLONG, "%s: too long for a socket: at most %zu bytes", path, sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);
    int fd = connect_to(AF_UNIX, (struct sockaddr *)&address, sizeof(address));
    if (fd < 0)
        return tv_error_set(err, fd, "%s: cannot connect: %s; is the service running?", path, strerror(-fd));
    return keep(object, "fd", fd, fds, err);
}

static int open_tcp(json_t *object, const char *host, const char *port, struct store_fds *fds, struct tv_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int r = getaddrinfo(host, port, &hints, &found);
    if (r)
        return tv_error_set(err, -EHOSTUNREACH, "%s port %s: %s", host, port, gai_strerror(r));
    int fd = -EHOSTUNREACH;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = connect_to(at->ai_family, at->ai_addr, at->ai_addrlen);
    freeaddrinfo(found);
    if (fd < 0)
        return tv_error_set(err, fd, "%s port %s: cannot connect: %s", host, port, strerror(-fd));
    return keep(object, "fd", fd, fds, err);
}

// ---- the tree ----

static int open_own(json_t *object, const struct store_open_options *options, struct store_fds *fds, struct tv_error *err)
{
    const char *path = json_string_value(json_object_get(object, "path"));
    const char *key_file = json_string_value(json_object_get(object, "key_file"));
    const char *socket = json_string_value(json_object_get(object, "socket"));
    const char *host = json_string_value(json_object_get(object, "host")),
               *port = json_string_value(json_object_get(object, "port"));
    int r = path ? open_image(object, path, options, fds, err) : 0;
    if (!r && key_file)
        r = open_key(object, key_file, fds, err);
    if (!r && socket)
        r = open_socket(object, socket, fds, err);
    if (!r && host)
        r = port ? open_tcp(object, host, port, fds, err)
                 : tv_error_set(err, -EINVAL, "volume: \"host\" wants a \"port\", a string, beside it");
    static const char *const opened[] = {"path", "key_file", "socket", "host", "port"};
    for (size_t i = 0; i < sizeof(opened) / sizeof(opened[0]) && !r; i++)
        json_object_del(object, opened[i]);
    return r;
}

int store_open_volume(json_t *volume, const struct store_open_options *options, struct store_fds *fds, struct tv_error *err)
{
    int r = json_is_object(volume) ? open_own(volume, options, fds, err) : 0;
    struct store_open_options base = *options; // what lies below an overlay is only read, whatever is above
    base.read_only = true;
    const char *key;
    json_t *member, *element;
    size_t i;
    json_object_foreach(volume, key, member)
    {
        if (!r && json_is_object(member))
            r = store_open_volume(member, strcmp(key, "base") == 0 ? &base : options, fds, err);
        json_array_foreach(member, i, element) if (!r && json_is_object(element)) r = store_open_volume(element, options, fds, err);
    }
    return r;
}

// ---- volume files ----

bool store_is_volume_file(const char *path)
{
    const size_t len = strlen(path), suffix = sizeof(STORE_VOLUME_SUFFIX) - 1;
    return len > suffix && !strcmp(path + len - suffix, STORE_VOLUME_SUFFIX);
}

static void make_absolute(json_t *volume, const char *folder, int folder_len)
{
    static const char *const keys[] = {"path", "key_file", "socket"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const char *path = json_string_value(json_object_get(volume, keys[i]));
        if (path && path[0] != '/')
            json_object_set_new(volume, keys[i], json_sprintf("%.*s/%s", folder_len, folder, path));
    }
    const char *key;
    json_t *member, *element;
    size_t i;
    json_object_foreach(volume, key, member)
    {
        make_absolute(member, folder, folder_len);
        json_array_foreach(member, i, element) make_absolute(element, folder, folder_len);
    }
}

int store_load_volume(const char *path, json_t **volume, struct tv_error *err)
{
    json_error_t where;
    char real[PATH_MAX];
    if (!realpath(path, real))
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    *volume = json_load_file(real, JSON_REJECT_DUPLICATES, &where);
    if (!*volume)
        return tv_error_set(err, -EINVAL, "%s:%d: %s; it should be a volume in JSON, as trivet-store(8) tells", path, where.line,
                            where.text);
    if (!json_is_object(*volume)) {
        json_decref(*volume);
        return tv_error_set(err, -EINVAL, "%s: should be one object of JSON, a volume, as trivet-store(8) tells", path);
    }
    make_absolute(*volume, real, (int)(strrchr(real, '/') - real));
    return 0;
}

void store_close_fds(struct store_fds *fds)
{
    for (unsigned i = 0; i < fds->n; i++)
        if (fds->fd[i] >= 0)
            close(fds->fd[i]);
    fds->n = 0;
}
