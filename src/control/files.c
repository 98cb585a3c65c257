// Whole files and folders: see files.h.
#include "control/files.h"

#include "control/cleanup.h"
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read_all(const char *path, size_t max_bytes, char **data, size_t *len_bytes, struct tv_error *err)
{
    cleanup_fclose FILE *f = fopen(path, "re");
    if (!f)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    cleanup_free char *buf = NULL;
    size_t len = 0, room = 0;
    for (;;) {
        if (len + 1 >= room) {
            room = room ? room * 2 : 4096;
            char *more = realloc(buf, room);
            if (!more)
                return tv_error_set(err, -ENOMEM, "%s: no memory", path);
            buf = more;
        }
        size_t n = fread(buf + len, 1, room - len - 1, f);
        len += n;
        if (len > max_bytes)
            return tv_error_set(err, -EFBIG, "%s: larger than %zu bytes", path, max_bytes);
        if (n == 0)
            break;
    }
    if (ferror(f))
        return tv_error_set(err, -EIO, "%s: %s", path, strerror(errno));
    buf[len] = 0;
    *data = buf;
    buf = NULL;
    if (len_bytes)
        *len_bytes = len;
    return 0;
}

static int write_fully(int fd, const void *data, size_t len)
{
    for (const char *p = data; len;) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int file_write_all(const char *path, const void *data, size_t len_bytes, mode_t mode, struct tv_error *err)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = write_fully(fd, data, len_bytes);
    if (rc)
        return tv_error_set(err, rc, "%s: %s", path, strerror(-rc));
    if (fchmod(fd, mode) < 0) // the mode asked for, whatever the umask
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

int file_name_new(const char *temp, const char *path)
{
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL) // file systems that do not know it, as NFS
        return -errno;
    return link(temp, path) < 0 || unlink(temp) < 0 ? -errno : 0;
}

int file_make_sparse(const char *path, uint64_t size_bytes, mode_t mode, struct tv_error *err)
{
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: cannot be made: %s", path, strerror(errno));
    if (ftruncate(fd, (off_t)size_bytes) == 0)
        return 0;
    int code = errno;
    unlink(path);
    return tv_error_set(err, -code, "%s: cannot be made %llu bytes large: %s", path, (unsigned long long)size_bytes,
                        strerror(code));
}

struct copying {
    int in, out;
    uint64_t done_bytes, total_bytes; // of data, without the holes
    const struct file_progress *progress;
};

static int copy_range(struct copying *c, off_t from, off_t to)
{
    static char buf[1 << 20];
    for (off_t at = from; at < to;) {
        size_t want = to - at > (off_t)sizeof(buf) ? sizeof(buf) : (size_t)(to - at);
        ssize_t n = pread(c->in, buf, want, at);
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        errno = 0;
        if (pwrite(c->out, buf, (size_t)n, at) != n)
            return errno ? -errno : -ENOSPC;
        at += n;
        c->done_bytes += (uint64_t)n;
        int rc = c->progress ? c->progress->tell(c->progress->arg, c->done_bytes, c->total_bytes) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int copy_data(struct copying *c, off_t size)
{
    if (ftruncate(c->out, size) < 0)
        return -errno;
    for (off_t at = 0; at < size;) {
        off_t data = lseek(c->in, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0; // nothing but a hole up to the end
        if (data < 0)
            data = at;
        off_t hole = lseek(c->in, data, SEEK_HOLE);
        if (hole < 0)
            hole = size;
        int rc = copy_range(c, data, hole);
        if (rc)
            return rc;
        at = hole;
    }
    return 0;
}

int file_copy_data(int in, int out, const struct file_progress *progress, bool *reflinked)
{
    struct stat st;
    *reflinked = ioctl(out, FICLONE, in) == 0;
    if (*reflinked)
        return 0;
    if (fstat(in, &st) < 0)
        return -errno;
    off_t size = S_ISBLK(st.st_mode) ? lseek(in, 0, SEEK_END) : st.st_size;
    struct copying c = {.in = in, .out = out, .progress = progress};
    c.total_bytes = S_ISBLK(st.st_mode) || st.st_blocks * 512 > size ? (uint64_t)size : (uint64_t)st.st_blocks * 512;
    return size < 0 ? -errno : copy_data(&c, size);
}

int file_copy(const char *from, const char *to, mode_t mode, struct tv_error *err)
{
    cleanup_close int in = open(from, O_RDONLY | O_CLOEXEC);
    bool reflinked;
    if (in < 0)
        return tv_error_set(err, -errno, "%s: %s", from, strerror(errno));
    cleanup_close int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (out < 0)
        return tv_error_set(err, -errno, "%s: %s", to, strerror(errno));
    int rc = file_copy_data(in, out, NULL, &reflinked);
    if (rc) {
        unlink(to);
        return tv_error_set(err, rc, "%s: copy of %s: %s", to, from, strerror(-rc));
    }
    return 0;
}

int file_copy_unnamed(const char *from, const char *dir, struct tv_error *err)
{
    char path[PATH_MAX];
    int rc = path_format(path, err, "%s/.unnamed-XXXXXX", dir);
    if (rc)
        return rc;
    cleanup_close int in = open(from, O_RDONLY | O_CLOEXEC);
    bool reflinked;
    if (in < 0)
        return tv_error_set(err, -errno, "%s: %s", from, strerror(errno));
    int out = mkostemp(path, O_CLOEXEC);
    if (out < 0)
        return tv_error_set(err, -errno, "%s: a file cannot be made: %s", dir, strerror(errno));
    unlink(path);
    rc = file_copy_data(in, out, NULL, &reflinked);
    if (!rc)
        return out;
    close(out);
    return tv_error_set(err, rc, "%s: copy of %s: %s", dir, from, strerror(-rc));
}

int dir_make(const char *path, mode_t mode, struct tv_error *err)
{
    char part[PATH_MAX];
    int rc = path_format(part, err, "%s", path);
    if (rc)
        return rc;
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char was = *p;
        *p = 0;
        if (mkdir(part, was ? 0755 : mode) < 0 && errno != EEXIST)
            return tv_error_set(err, -errno, "%s: cannot make the folder: %s", part, strerror(errno));
        *p = was;
        if (!was)
            break;
    }
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        return tv_error_set(err, -ENOTDIR, "%s: is no folder", path);
    return 0;
}

int dir_make_own(const char *path, const char *variable, struct tv_error *err)
{
    struct tv_error why = {0};
    int rc = dir_make(path, 0700, &why);
    if (!rc && access(path, W_OK | X_OK) < 0)
        rc = tv_error_set(&why, -errno, "%s: cannot be written to: %s", path, strerror(errno));
    return rc ? tv_error_set(err, rc, "%s; set %s to another folder", why.text, variable) : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

int tree_remove(const char *path, struct tv_error *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return tv_error_set(err, -errno, "%s: cannot be removed: %s", path, strerror(errno));
    return 0;
}

static _Thread_local uint64_t tree_bytes; // nftw() has no argument for its callback

static int add_size(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path, (void)ftw;
    if (type == FTW_F)
        tree_bytes += (uint64_t)st->st_size;
    return 0;
}

uint64_t tree_size(const char *path)
{
    tree_bytes = 0;
    nftw(path, add_size, 16, FTW_PHYS);
    return tree_bytes;
}
