// Volumes from paths: see open.h.
#include "store/open.h"

#include "store/luks.h"
#include "store/volume/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int add_fd(json_t *object, int fd, struct store_fds *fds, struct tv_error *err)
{
    if (fds->n == STORE_FDS_MAX) {
        close(fd);
        return tv_error_set(err, -E2BIG, "volume: more than %d files; divide it", STORE_FDS_MAX);
    }
    fds->fd[fds->n] = fd;
    json_object_set_new(object, "fd", json_integer((json_int_t)fds->n++));
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
    const bool locks = options->lock_wait_ms && !json_is_false(json_object_get(object, "lock"));
    int r = locks ? image_lock(fd, read_only, path, options->lock_wait_ms, err) : 0;
    if (!r)
        return add_fd(object, fd, fds, err);
    close(fd);
    return r;
}

#define DEPTH_MAX 64 // of volume files that name volume files

static int open_tree(json_t *volume, unsigned depth, const struct store_open_options *options, struct store_fds *fds,
                     struct tv_error *err);

// The volume that the file tells of takes the place of its name; or, of an encrypted one, what that lies over: the ciphertext.
static int open_file(json_t *volume, const char *path, bool ciphertext, unsigned depth, const struct store_open_options *options,
                     struct store_fds *fds, struct tv_error *err)
{
    json_t *named;
    if (depth == DEPTH_MAX)
        return tv_error_set(err, -ELOOP, "%s: a volume file that names itself, or a chain of more than %d", path, DEPTH_MAX);
    int r = store_load_volume(path, &named, err);
    if (r)
        return r;
    const char *type = json_string_value(json_object_get(named, "type"));
    json_t *taken = ciphertext ? json_object_get(named, "over") : named;
    if (ciphertext && (!type || strcmp(type, "crypt") != 0 || !json_is_object(taken))) {
        json_decref(named);
        return tv_error_set(err, -EINVAL, "%s: is no encrypted disk, whose ciphertext there could be", path);
    }
    json_object_clear(volume);
    json_object_update(volume, taken);
    json_decref(named);
    return open_tree(volume, depth + 1, options, fds, err);
}

// The folder is opened and not the socket, since who comes after a server that ended makes another one of the same name.
static int open_socket(json_t *object, const char *path, struct store_fds *fds, struct tv_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char folder[PATH_MAX] = ".";
    if (slash && snprintf(folder, sizeof(folder), "%.*s/", (int)(slash - path), path) >= (int)sizeof(folder))
        return tv_error_set(err, -ENAMETOOLONG, "%s: %s", path, strerror(ENAMETOOLONG));
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    json_object_set_new(object, "name", json_string(name));
    json_object_del(object, "socket");
    return add_fd(object, fd, fds, err);
}

static int resolve_host(json_t *object, const char *host, struct tv_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char address[NI_MAXHOST];
    int r = getaddrinfo(host, NULL, &hints, &found);
    if (r)
        return tv_error_set(err, -EHOSTUNREACH, "volume: host %s: %s", host, gai_strerror(r));
    r = getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    if (r)
        return tv_error_set(err, -EHOSTUNREACH, "volume: host %s: %s", host, gai_strerror(r));
    json_object_set_new(object, "address", json_string(address));
    json_object_del(object, "host");
    return 0;
}

// What an object names by itself.
static int open_names(json_t *object, const struct store_open_options *options, struct store_fds *fds, struct tv_error *err)
{
    const char *path = json_string_value(json_object_get(object, "path"));
    const char *socket = json_string_value(json_object_get(object, "socket")),
               *host = json_string_value(json_object_get(object, "host"));
    int r = path ? open_image(object, path, options, fds, err) : 0;
    if (path && !r)
        json_object_del(object, "path");
    if (!r && socket)
        r = open_socket(object, socket, fds, err);
    return !r && host ? resolve_host(object, host, err) : r;
}

// ---- encryption ----

// In memory that is a file, as the others that are handed over.
static int add_key(json_t *volume, const struct luks_key *key, struct store_fds *fds, struct tv_error *err)
{
    json_t *object = json_object();
    int fd = memfd_create("key", MFD_CLOEXEC);
    json_object_set_new(volume, "key", object);
    if (fd < 0 || write(fd, key->key, key->key_bytes) != (ssize_t)key->key_bytes) {
        if (fd >= 0)
            close(fd);
        return tv_error_set(err, -EIO, "no memory for a key is to be had");
    }
    json_object_set_new(volume, "sector_size", json_integer(key->sector_bytes));
    json_object_set_new(volume, "offset_bytes", json_integer((json_int_t)key->offset_bytes));
    json_object_set_new(volume, "first_iv", json_integer((json_int_t)key->first_iv));
    return add_fd(object, fd, fds, err);
}

// The header of what `over` has become: a file apart, or the beginning of it. A descriptor that is the caller's to close, -errno.
static int open_header(const json_t *volume, const struct store_fds *fds, struct tv_error *err)
{
    const json_t *over = json_object_get(volume, "over"), *fd = json_object_get(over, "fd");
    const char *type = json_string_value(json_object_get(over, "type"));
    const char *header = json_string_value(json_object_get(volume, "header"));
    int copy;
    if (header)
        return image_open(header, true, err);
    if (!type || strcmp(type, "file") != 0 || !json_is_integer(fd) || json_integer_value(fd) < 0 ||
        json_integer_value(fd) >= (json_int_t)fds->n)
        return tv_error_set(
            err, -EINVAL,
            "volume of type 'crypt': \"over\" must be a volume of type 'file', a LUKS2 image, if no \"header\" is given");
    copy = fcntl(fds->fd[json_integer_value(fd)], F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? tv_error_set(err, -errno, "volume of type 'crypt': %s", strerror(errno)) : copy;
}

// With the passphrase in the file the key that the header has.
static int unlock(json_t *volume, const char *path, struct store_fds *fds, struct tv_error *err)
{
    const char *header = json_string_value(json_object_get(volume, "header"));
    char passphrase[LUKS_PASSPHRASE_MOST + 1];
    struct luks_key key = {0};
    size_t n = 0;
    const int fd = open_header(volume, fds, err);
    if (fd < 0)
        return fd;
    int r = luks_read_passphrase(path, passphrase, &n, err);
    if (!r)
        r = luks_unlock(fd, header ? header : "volume of type 'crypt'", passphrase, n, &key, err);
    if (!r)
        r = add_key(volume, &key, fds, err);
    close(fd);
    explicit_bzero(passphrase, sizeof(passphrase));
    explicit_bzero(&key, sizeof(key));
    return r;
}

static int open_crypt(json_t *volume, unsigned depth, const struct store_open_options *options, struct store_fds *fds,
                      struct tv_error *err)
{
    json_t *over = json_object_get(volume, "over");
    const char *path = json_string_value(json_object_get(volume, "passphrase"));
    if (!json_is_object(over) || !path)
        return tv_error_set(err, -EINVAL,
                            "volume of type 'crypt': must have \"over\", a volume, and \"passphrase\", a file's path");
    int r = open_tree(over, depth, options, fds, err);
    if (!r && options->without_keys)
        return access(path, R_OK) ? tv_error_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
    return r ? r : unlock(volume, path, fds, err);
}

static void tell_of_missing_leg(struct tv_error *err)
{
    if (!err)
        return;
    const struct tv_error own = *err;
    tv_error_set(err, own.code, "%s; a mirror goes on without it if \"volumes\" leaves it out, and \"degraded\" is true", own.text);
}

static int open_tree(json_t *volume, unsigned depth, const struct store_open_options *options, struct store_fds *fds,
                     struct tv_error *err)
{
    const char *path = json_string_value(json_object_get(volume, "path"));
    const char *type = json_string_value(json_object_get(volume, "type"));
    const bool ciphertext = type && !strcmp(type, "ciphertext");
    if (path && (ciphertext || store_is_volume_file(path)))
        return open_file(volume, path, ciphertext, depth, options, fds, err);
    if (type && !strcmp(type, "crypt"))
        return open_crypt(volume, depth, options, fds, err);
    int r = open_names(volume, options, fds, err);
    struct store_open_options base = *options; // what lies below an overlay is only read, whatever is above
    base.read_only = true;
    const char *key;
    json_t *member, *element;
    size_t i;
    json_object_foreach(volume, key, member)
    {
        if (!r && json_is_object(member))
            r = open_tree(member, depth, strcmp(key, "base") == 0 ? &base : options, fds, err);
        json_array_foreach(member, i, element) if (!r && json_is_object(element)) r = open_tree(element, depth, options, fds, err);
    }
    if (r == -ENOENT && type && !strcmp(type, "mirror"))
        tell_of_missing_leg(err);
    return r;
}

int store_open_volume(json_t *volume, const struct store_open_options *options, struct store_fds *fds, struct tv_error *err)
{
    return open_tree(volume, 0, options, fds, err);
}

// ---- volume files ----

bool store_is_volume_file(const char *path)
{
    const size_t len = strlen(path), suffix = sizeof(STORE_VOLUME_SUFFIX) - 1;
    return len > suffix && !strcmp(path + len - suffix, STORE_VOLUME_SUFFIX);
}

static void make_absolute(json_t *volume, const char *folder, int folder_len)
{
    static const char *const keys[] = {"path", "socket", "passphrase", "header"};
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
    if (!store_is_volume_file(path)) {
        *volume = json_pack("{s:s, s:s}", "type", "file", "path", path);
        return *volume ? 0 : tv_error_set(err, -EINVAL, "%s: the name must be UTF-8", path);
    }
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
